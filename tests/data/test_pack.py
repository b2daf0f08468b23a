from __future__ import annotations

import threading
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from filelock import FileLock
from PIL import Image
from writers import encode, make_images, png, python_batches, write_archive, write_files, write_folder, write_parquet

from lucidate.core.atomic import WRITER
from lucidate.core.errors import SourceError
from lucidate.data import pack as packing
from lucidate.data.decode import decode
from lucidate.data.pack import Pack, open_pack


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache"


@pytest.fixture
def folder(tmp_path):
    return write_folder(tmp_path / "pets", *make_images(30))


def files(cache):
    return sorted(path.relative_to(cache).as_posix() for path in cache.rglob("*") if path.is_file())


def test_a_pack_of_digits(cache):
    pack = open_pack("digits", cache=cache)
    assert (len(pack), pack.image_size, pack.images.shape, pack.flips) == (1797, 8, (1797, 8, 8, 3), False)
    assert (pack.images.dtype, pack.labels.dtype) == (np.uint8, np.int64)
    assert isinstance(pack.images, np.memmap)
    assert not pack.images.flags.writeable
    assert (pack.dataset, pack.source, pack.set_aside) == ("digits", "digits", ())
    assert pack.path.parent == cache / "packs"
    assert pack.path.name == f"digits-{pack.hash[:16]}"
    larger = open_pack("digits", image_size=16, cache=cache)
    assert larger.image_size == 16
    assert larger.hash != pack.hash
    assert open_pack("digits", image_size=8, cache=cache).path == pack.path


def test_forms_pack_to_the_same_rows(tmp_path, cache):
    train, test = make_images(60, seed=1), make_images(20, seed=2)
    write_parquet(tmp_path / "t" / "train.parquet", *train)
    write_parquet(tmp_path / "t" / "test.parquet", *test)
    batches = python_batches(train, test)
    packs = [
        open_pack(path, cache=cache)
        for path in (
            tmp_path / "t",
            write_files(tmp_path / "b", batches),
            write_archive(tmp_path / "a.tar.gz", batches),
        )
    ]
    for pack in packs:
        np.testing.assert_array_equal(pack.images, np.concatenate([train[0], test[0]]))
        np.testing.assert_array_equal(pack.labels, np.concatenate([train[1], test[1]]))
        assert pack.given.tolist() == ["train"] * 60 + ["test"] * 20
        assert pack.ids.tolist() == packs[0].ids.tolist()
    assert packs[1].hash == packs[2].hash


def test_odd_files_are_set_aside_and_the_rest_is_packed(tmp_path, cache):
    images, labels = make_images(190)
    root = write_folder(tmp_path / "odd", images, labels)
    place = root / "frog"
    noise = make_images(1, seed=9)[0][0]
    gray = np.arange(32 * 32, dtype=np.uint16).reshape(32, 32) * 64
    rgba = np.dstack([noise, np.tile(np.arange(32, dtype=np.uint8) * 8, (32, 1))])
    exif = Image.Exif()
    exif[0x0112] = 6
    good = {
        "z-cmyk.tif": (
            encode(Image.new("CMYK", (32, 32), (0, 255, 0, 0)), "TIFF"),
            np.full((32, 32, 3), (255, 0, 255)),
        ),
        "z-gray.png": (encode(Image.fromarray(gray), "PNG"), np.rint(gray / 257)[..., None].repeat(3, -1)),
        "z-turned.png": (encode(Image.fromarray(noise), "PNG", exif=exif), np.rot90(noise, -1)),
        "z-clear.png": (
            png(rgba),
            np.rint((noise * (rgba[..., 3:] / 1.0) + 255 * (255.0 - rgba[..., 3:])) / 255),
        ),
    }
    bad = {
        "z-cut.png": (png(noise)[:1500], "truncated image"),
        "z-empty.jpg": (b"", "empty file"),
        "z-text.png": (b"this is not a picture\n", "not an image"),
        "z-photo.jpg": (encode(Image.new("RGB", (400, 300)), "JPEG")[:200], None),  # its other size does not count
    }
    for name, (content, _) in {**good, **bad}.items():
        (place / name).write_bytes(content)
    (place / "notes.txt").write_text("hello")
    pack = open_pack(root, cache=cache)
    assert (len(pack), pack.image_size) == (194, 32)
    aside = {each.path: each.reason for each in pack.set_aside}
    assert aside.keys() == {f"frog/{name}" for name in (*bad, "notes.txt")}
    assert aside["frog/notes.txt"] == "not an image file (.txt)"
    for name, (_, reason) in bad.items():
        assert reason is None or aside[f"frog/{name}"] == reason
    row = {id: number for number, id in enumerate(pack.ids.tolist())}
    for name, (_, expected) in good.items():
        np.testing.assert_array_equal(pack.images[row[f"frog/{name}"]], expected, err_msg=name)
        assert pack.class_names[pack.labels[row[f"frog/{name}"]]] == "frog"
    for id, number in row.items():
        if "z-" not in id:
            np.testing.assert_array_equal(pack.images[number], images[int(id[-9:-4])])
            assert pack.labels[number] == labels[int(id[-9:-4])]
    again = open_pack(root, cache=cache)
    assert again.set_aside == pack.set_aside
    assert (again.path / "images.npy").stat().st_size == 128 + 194 * 32 * 32 * 3


@pytest.mark.parametrize(
    ("sizes", "side"),
    [
        ([(48, 48)], 48),
        ([(96, 96)], 96),
        ([(97, 97)], 64),
        ([(48, 40)], 64),
        ([(48, 48), (32, 32)], 64),
        ([(500, 20)], 64),
        ([(8, 8)], 8),
        ([(7, 7)], 32),
    ],
)
def test_size_rule(tmp_path, cache, sizes, side):
    root = tmp_path / "sized"
    for number in range(6):
        (root / f"class{number % 2}").mkdir(parents=True, exist_ok=True)
        width, height = sizes[number % len(sizes)]
        content = encode(Image.new("RGB", (width, height), (number, 0, 0)), "PNG")
        (root / f"class{number % 2}" / f"{number}.png").write_bytes(content)
    assert open_pack(root, cache=cache).images.shape == (6, side, side, 3)
    asked = open_pack(root, image_size=24, cache=cache)
    assert asked.images.shape == (6, 24, 24, 3)
    np.testing.assert_array_equal(asked.images[0], decode((root / asked.ids[0]).read_bytes(), size=24))


def test_a_second_call_decodes_nothing(folder, cache, monkeypatch):
    first = open_pack(folder, cache=cache)
    before = files(cache)
    monkeypatch.setattr(packing, "decode", None)
    second = open_pack(folder, cache=cache)
    assert second.hash == first.hash
    np.testing.assert_array_equal(second.images, first.images)
    assert files(cache) == before


def test_the_same_content_elsewhere_keeps_its_own_name(folder, cache, tmp_path, monkeypatch):
    first = open_pack(folder, cache=cache)
    (tmp_path / "other").mkdir()
    moved = folder.rename(tmp_path / "other" / "pets")
    monkeypatch.setattr(packing, "decode", None)
    second = open_pack(moved, cache=cache)
    assert (second.path, second.hash) == (first.path, first.hash)
    assert (second.source, second.dataset) == (str(moved), "pets")


def test_changed_content_is_packed_anew(folder, cache):
    first = open_pack(folder, cache=cache)
    (folder / "cat" / "new.png").write_bytes(png(make_images(1)[0][0]))
    second = open_pack(folder, cache=cache)
    assert (len(second), second.hash != first.hash) == (31, True)


@pytest.mark.parametrize("damage", ["images.npy", "labels.npy", "index.parquet", "meta.json", "checksums.json"])
@pytest.mark.parametrize("how", ["short", "missing", "garbage"])
def test_a_damaged_pack_is_rebuilt(folder, cache, damage, how):
    first = open_pack(folder, cache=cache)
    expected = np.array(first.images)
    path, first = first.path / damage, None
    if how == "missing":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-50] if how == "short" else b"garbage")
    again = open_pack(folder, cache=cache)
    np.testing.assert_array_equal(again.images, expected)
    assert len(files(cache)) == 6


def test_several_at_once(folder, cache):
    packs: list[Pack] = []
    start = threading.Barrier(4)

    def work() -> None:
        start.wait()
        packs.append(open_pack(folder, cache=cache))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(packs) == 4
    for pack in packs:
        np.testing.assert_array_equal(pack.images, packs[0].images)
    assert len(files(cache)) == 6, "nothing temporary is left"


def test_classes_without_a_readable_image(folder, cache):
    for path in (folder / "cat").iterdir():
        path.write_bytes(b"text")
    with pytest.raises(SourceError, match=r"none that can be read in 'cat'; 3 were set aside, the first: cat/.*not an"):
        open_pack(folder, cache=cache)
    for path in folder.rglob("*.png"):
        path.write_bytes(b"")
    with pytest.raises(SourceError, match=r"none that can be read; 30 were set aside.*empty file") as caught:
        open_pack(folder, cache=cache)
    assert "\n" not in str(caught.value)
    assert not any(path.name.startswith(".") for path in cache.rglob("*")), "nothing temporary is left"


def test_one_class_in_a_table(tmp_path, cache):
    table = pa.table({"img": [png(image) for image in make_images(3)[0]], "label": ["cat"] * 3})
    pq.write_table(table, tmp_path / "t.parquet")
    with pytest.raises(SourceError, match="at least two classes"):
        open_pack(tmp_path / "t.parquet", cache=cache)


def test_a_table_damaged_inside_ends_in_one_line(tmp_path, cache):
    path = write_parquet(tmp_path / "t.parquet", *make_images(40))
    content = bytearray(path.read_bytes())
    content[40_000:48_000] = bytes(8000)
    path.write_bytes(content)
    with pytest.raises(SourceError, match="damaged") as caught:
        open_pack(path, cache=cache)
    assert "\n" not in str(caught.value)


def test_a_cache_that_cannot_be_written(folder, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    for options in ({}, {"image_size": 32}):
        with pytest.raises(SourceError, match=r"expected a folder that can be written to.*LUCIDATE_CACHE") as caught:
            open_pack(folder, cache=tmp_path / "file" / "cache", **options)
        assert "\n" not in str(caught.value)
    monkeypatch.setenv("LUCIDATE_CACHE", str(tmp_path / "from-the-environment"))
    assert (tmp_path / "from-the-environment") in open_pack(folder).path.parents


@pytest.mark.parametrize("size", [-1, 0, 7, 513, 100_000])
def test_sizes_that_no_recipe_allows(cache, size):
    with pytest.raises(SourceError) as caught:
        open_pack("digits", image_size=size, cache=cache)
    assert str(caught.value) == f"image_size: expected a side from 8 to 512 pixels, received {size}"
    assert not cache.exists()


@pytest.mark.parametrize("noted", ["-1", "100000", "", "x"])
def test_a_note_that_it_cannot_have_written_is_written_anew(folder, cache, noted):
    first = open_pack(folder, cache=cache)
    (note,) = cache.rglob("*.agreed")
    note.write_text(noted)
    assert open_pack(folder, cache=cache).path == first.path
    assert note.read_text() == "32"


def test_what_killed_builds_left_is_swept_and_nothing_else(folder, cache):
    packs = cache / "packs"
    old, at_work, note, other = (
        packs / name
        for name in (
            ".digits-0123456789abcdef.r3t1v55y",
            ".pets-0123456789abcdef.abcdefgh",
            ".pets-0123456789abcdef.agreed.abcd_123",
            ".mine",
        )
    )
    for place in (old, at_work, note, other):
        (place / "below").mkdir(parents=True)
        (place / "below" / "images.npy").write_bytes(b"x")
    with FileLock(at_work / WRITER):
        open_pack(folder, cache=cache)
    assert [place.exists() for place in (old, at_work, note, other)] == [False, True, False, True]


def test_a_disk_without_room_is_said_before_anything_is_packed(folder, cache, monkeypatch):
    monkeypatch.setattr("lucidate.core.atomic.shutil.disk_usage", lambda _: SimpleNamespace(free=1_000))
    with pytest.raises(SourceError, match=r"cache: .*: expected room for [\d.]+ kB in .* set LUCIDATE_CACHE to it"):
        open_pack(folder, cache=cache)


def test_a_long_name_is_packed(tmp_path, cache):
    long = write_folder(tmp_path / ("pets-" * 43), *make_images(20))
    pack = open_pack(long, cache=cache)
    assert len(pack.path.name) < 100
    assert len(pack.dataset) <= 60
