from __future__ import annotations

import gzip
import io
import os
import pickle
import tarfile

import numpy as np
import pytest
from writers import (
    CLASSES,
    binary_batches,
    python_batches,
    write_archive,
    write_files,
)

from lucidate.core.errors import ChecksumError, SourceError, UnsafeFileError
from lucidate.data.sources import cifar_files
from lucidate.data.sources.find import open_source, verify_source

pytestmark = pytest.mark.usefixtures("elsewhere")


def test_every_flipped_byte_in_an_archive_is_noticed(forms):
    archive = forms["archive"]
    whole = archive.read_bytes()
    rng = np.random.default_rng(0)
    # behind the gzip header, of which time and system are not under its checksum
    for place in [*rng.integers(40, len(whole), 12), len(whole) - 6, len(whole) - 2, 0]:
        damaged = bytearray(whole)
        damaged[place] ^= 0x10
        archive.write_bytes(damaged)
        with pytest.raises(ChecksumError, match="checksum") as caught:
            open_source(archive)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("share", [0.0001, 0.5, 0.99, 0.99999])
@pytest.mark.parametrize("form", ["archive", "plain archive"])
def test_a_truncated_archive(forms, form, share):
    whole = forms[form].read_bytes()
    forms[form].write_bytes(whole[: int(len(whole) * share) - (8000 if form == "plain archive" and share > 0.9 else 0)])
    with pytest.raises(ChecksumError, match="checksum"):
        open_source(forms[form])


def test_a_broken_header_inside_a_plain_archive(forms):
    content = bytearray(forms["plain archive"].read_bytes())
    second = content.index(b"cifar-10-batches-py/data_batch_3")
    content[second] ^= 1
    forms["plain archive"].write_bytes(content)
    with pytest.raises(ChecksumError):
        open_source(forms["plain archive"])


def test_a_full_archive_must_be_the_official_one(forms, monkeypatch):
    assert open_source(forms["archive"])
    assert verify_source(forms["archive"])["official"] is False
    monkeypatch.setattr(cifar_files, "OFFICIAL_SIZES", {"train": [20] * 5, "test": [40]})
    for form in ("archive", "binary archive"):
        with pytest.raises(ChecksumError, match=r"checksum.*extract it and give the folder"):
            open_source(forms[form])
    monkeypatch.undo()


def test_an_archive_of_the_official_size_must_be_the_official_one(forms, monkeypatch):
    size = forms["archive"].stat().st_size
    monkeypatch.setattr(cifar_files, "PINS", {size: "0" * 64})
    with pytest.raises(ChecksumError, match="checksum"):
        open_source(forms["archive"])
    monkeypatch.setattr(cifar_files, "PINS", {size: cifar_files.sha256(forms["archive"])})
    assert verify_source(forms["archive"])["official"] is True


def test_another_archive(tmp_path):
    path = write_archive(tmp_path / "cifar-100-python.tar.gz", {"train": b"x", "meta": b"y"}, folder="cifar-100-python")
    with pytest.raises(SourceError, match="expected an archive of CIFAR-10's batches"):
        open_source(path)


def test_links_and_outside_names_in_an_archive_are_passed_over(tmp_path, train, test):
    files = python_batches(train, test, batches=1)
    secret = tmp_path / "secret"
    secret.write_bytes(files["test_batch"])
    with tarfile.open(tmp_path / "odd.tar.gz", "w:gz") as tar:
        for name, target in (("c/test_batch", str(secret)), ("c/data_batch_2", "data_batch_1")):
            link = tarfile.TarInfo(name)
            link.type, link.linkname = tarfile.SYMTYPE, target
            tar.addfile(link)
        for name in ("../data_batch_3", "/data_batch_4", "c/data_batch_1"):
            member = tarfile.TarInfo(name)
            member.size = len(files["data_batch_1"])
            tar.addfile(member, io.BytesIO(files["data_batch_1"]))
    source = open_source(tmp_path / "odd.tar.gz")
    assert len(source) == 100
    assert set(source.given) == {""}


def test_an_archive_that_unpacks_without_end(tmp_path, monkeypatch):
    monkeypatch.setattr(cifar_files, "MAX_STREAM_BYTES", 1 << 20)
    path = tmp_path / "bomb.tar.gz"
    path.write_bytes(gzip.compress(write_archive(tmp_path / "a.tar", {"readme": bytes(4 << 20)}).read_bytes()))
    with pytest.raises(SourceError, match="unpacks to more than"):
        open_source(path)


class Evil:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


def test_a_malicious_batch_in_a_folder_and_an_archive(forms, tmp_path, train, test):
    files = python_batches(train, test)
    files["data_batch_2"] = pickle.dumps({b"data": Evil(tmp_path / "marker"), b"labels": []})
    for path in (write_files(forms["python"], files), write_archive(tmp_path / "evil.tar.gz", files)):
        with pytest.raises(UnsafeFileError, match=r"data_batch_2.*mkdir"):
            open_source(path)
    assert not (tmp_path / "marker").exists()


@pytest.mark.parametrize("name", ["python", "binary"])
def test_truncated_batches(forms, name):
    batch = next(path for path in forms[name].rglob("data_batch_2*"))
    batch.write_bytes(batch.read_bytes()[:-700])
    with pytest.raises(SourceError, match=r"data_batch_2.*truncated"):
        open_source(forms[name])


def test_fewer_batches_and_no_names(tmp_path, train, test):
    files = python_batches(train, test, batches=2)
    del files["batches.meta"]
    source = open_source(write_files(tmp_path / "few", files))
    assert (len(source), source.class_names) == (140, CLASSES)
    (tmp_path / "few" / "test_batch").unlink()
    source = open_source(tmp_path / "few")
    assert (len(source), set(source.given), source.ids[0]) == (100, {""}, "train/00000")


def test_a_binary_label_out_of_range(tmp_path, train, test):
    files = binary_batches(train, (test[0], test[1] + 5))
    with pytest.raises(SourceError, match=r"test_batch\.bin.*0 to 9"):
        open_source(write_files(tmp_path / "b", files))


def test_many_batches_are_bounded_together(forms, monkeypatch):
    monkeypatch.setattr(cifar_files, "MAX_STREAM_BYTES", 100_000)
    with pytest.raises(SourceError, match="CIFAR batches of less than"):
        open_source(forms["python"])
