"""The same few images in each form that a source can have, and what reads them back."""

from __future__ import annotations

import io
import json
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image

from lucidate.core.progress import Silent
from lucidate.data.decode import decode

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def make_images(count: int, *, seed: int = 0) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """(count, 32, 32, 3) noise, and labels that use all ten classes."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
    return images, rng.permutation(np.arange(count) % 10).astype(np.int64)


def png(pixels: NDArray[np.uint8]) -> bytes:
    return encode(Image.fromarray(pixels), "PNG")


def encode(image: Image.Image, format: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def rows(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(n, 3072): a plane a color, as CIFAR keeps them."""
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2).reshape(len(images), 3072))


def write_parquet(path, images, labels, *, names=CLASSES, column="img", struct=True) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    contents = [png(image) for image in images]
    cells = [{"bytes": content, "path": "/etc/hostname"} for content in contents] if struct else contents
    table = pa.table({column: cells, "label": [int(label) for label in labels]})
    if names:
        features = {"label": {"names": list(names), "_type": "ClassLabel"}}
        about = json.dumps({"info": {"features": features}})
        table = table.replace_schema_metadata({"huggingface": about})
    pq.write_table(table, path, row_group_size=16)
    return path


def python_batches(train, test, *, batches: int = 5, protocol: int = 4, text_keys: bool = False) -> dict[str, bytes]:
    """File name → content. train and test: (images, labels)."""

    def batch(images, labels) -> bytes:
        values = {b"data": rows(images), b"labels": labels.tolist(), b"batch_label": b"of a test"}
        if text_keys:
            values = {key.decode(): value for key, value in values.items()}
        return pickle.dumps(values, protocol=protocol)

    parts = zip(np.array_split(train[0], batches), np.array_split(train[1], batches), strict=True)
    files = {f"data_batch_{number}": batch(*part) for number, part in enumerate(parts, 1)}
    meta = {b"label_names": [name.encode() for name in CLASSES]}
    return {**files, "test_batch": batch(*test), "batches.meta": pickle.dumps(meta, protocol=protocol)}


def binary_batches(train, test, *, batches: int = 5) -> dict[str, bytes]:
    def batch(images, labels) -> bytes:
        return np.concatenate([labels.astype(np.uint8)[:, None], rows(images)], axis=1).tobytes()

    parts = zip(np.array_split(train[0], batches), np.array_split(train[1], batches), strict=True)
    files = {f"data_batch_{number}.bin": batch(*part) for number, part in enumerate(parts, 1)}
    return {**files, "test_batch.bin": batch(*test), "batches.meta.txt": ("\n".join(CLASSES) + "\n\n").encode()}


def write_files(folder: Path, files: dict[str, bytes]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


def write_archive(path: Path, files: dict[str, bytes], *, folder: str = "cifar-10-batches-py") -> Path:
    with tarfile.open(path, "w" if path.name.endswith(".tar") else "w:gz") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(f"{folder}/{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def write_folder(path: Path, images, labels, *, names=CLASSES) -> Path:
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        place = path / names[label]
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{number:05d}.png").write_bytes(png(image))
    return path


class Listener(Silent):
    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)


def pixels(source, index):
    content = source.read(index)
    return decode(content, size=None) if isinstance(content, bytes) else content
