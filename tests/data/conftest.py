from __future__ import annotations

import shutil
import socket

import pytest
from writers import binary_batches, make_images, python_batches, write_archive, write_files, write_folder, write_parquet


@pytest.fixture
def elsewhere(monkeypatch, tmp_path_factory):
    """No test finds a copy of CIFAR-10 by accident, and none reaches a network."""
    place = tmp_path_factory.mktemp("elsewhere")
    monkeypatch.chdir(place)
    monkeypatch.setenv("LUCIDATE_CACHE", str(place / "cache"))
    monkeypatch.delenv("LUCIDATE_DATA", raising=False)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        monkeypatch.setenv("LUCIDATE_CIFAR10_URL", f"http://127.0.0.1:{free.getsockname()[1]}/x.tar.gz")
    return place


@pytest.fixture(scope="session")
def train():
    return make_images(100, seed=1)


@pytest.fixture(scope="session")
def test():
    return make_images(40, seed=2)


@pytest.fixture(scope="session")
def written(tmp_path_factory, train, test):
    """Each form of the same 140 images, written once."""
    place = tmp_path_factory.mktemp("written")
    write_parquet(place / "tables" / "plain_text" / "train-00000-of-00001.parquet", *train)
    write_parquet(place / "tables" / "plain_text" / "test-00000-of-00001.parquet", *test)
    python, binary = python_batches(train, test), binary_batches(train, test)
    write_files(place / "cifar-10-batches-py", python)
    write_files(place / "nested" / "cifar-10-batches-bin", binary)
    write_archive(place / "cifar-10-python.tar.gz", python)
    write_archive(place / "b.tgz", binary, folder="cifar-10-batches-bin")
    write_archive(place / "p.tar", python)
    write_folder(place / "folder" / "train", *train)
    write_folder(place / "folder" / "test", *test)
    return place


@pytest.fixture
def forms(tmp_path, written):
    """Form → path, copies that a test may change."""
    shutil.copytree(written, tmp_path, dirs_exist_ok=True)
    return {
        "parquet": tmp_path / "tables",
        "python": tmp_path / "cifar-10-batches-py",
        "binary": tmp_path / "nested",
        "archive": tmp_path / "cifar-10-python.tar.gz",
        "binary archive": tmp_path / "b.tgz",
        "plain archive": tmp_path / "p.tar",
        "folder": tmp_path / "folder",
    }
