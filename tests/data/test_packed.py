"""One changed byte of a packed store is noticed: when it is opened, by `data verify`, and by whoever reads it later."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from writers import Listener, make_images, write_folder

from cli.test_explain import call, mistake
from lucidate.data import packed
from lucidate.data.pack import open_pack
from lucidate.data.packed import PIECE, UNSEALED, fault, seal


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("LUCIDATE_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def folder(tmp_path):
    return write_folder(tmp_path / "pets", *make_images(30))


def flip(path, place: int) -> None:
    """Change one bit of one byte, and leave the file's time as it was, as a failing disk does."""
    states = path.stat()
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(states.st_atime_ns, states.st_mtime_ns))


@pytest.mark.parametrize("place", [0, 127, 128, 50_000, -1])
def test_a_flipped_byte_of_the_pixels(folder, place):
    pack = open_pack(folder)
    expected = np.array(pack.images)
    flip(pack.path / "images.npy", place)
    listener = Listener()
    again = open_pack(folder, reporter=listener)
    np.testing.assert_array_equal(again.images, expected)
    (said,) = listener.said
    assert "images.npy differs from its checksum between byte 0 and 92,288; packing it anew" in said
    listener = Listener()
    open_pack(folder, reporter=listener)
    assert listener.said == []


@pytest.mark.parametrize("name", ["labels.npy", "index.parquet", "meta.json"])
def test_every_byte_of_every_file_counts(folder, name):
    pack = open_pack(folder)
    length = (pack.path / name).stat().st_size
    for place in range(0, length, max(1, length // 40)):
        flip(pack.path / name, place)
        assert fault(pack.path) is not None, place
        flip(pack.path / name, place)
        assert fault(pack.path) is None, place


def test_a_tail_of_zeros_and_where_the_damage_is(tmp_path):
    (tmp_path / "a").write_bytes(np.random.default_rng(0).bytes(3 * PIECE + 10))
    (tmp_path / "b").write_bytes(b"")
    seal(tmp_path)
    for thorough in (False, True):
        assert fault(tmp_path, thorough=thorough) is None
    with (tmp_path / "a").open("r+b") as file:
        file.seek(2 * PIECE + 5)
        file.write(bytes(PIECE))
    for thorough in (False, True):
        assert fault(tmp_path, thorough=thorough) == "a differs from its checksum between byte 2,097,152 and 3,145,728"
    os.truncate(tmp_path / "a", 2 * PIECE)
    assert fault(tmp_path, thorough=False) == "a has another length than it was written with"
    (tmp_path / "a").unlink()
    assert fault(tmp_path, thorough=False) == "a is missing"


def test_what_nobody_touched_is_not_read_when_it_is_opened(folder, monkeypatch):
    pack = open_pack(folder)
    read = []
    checksums = packed._checksums
    monkeypatch.setattr(packed, "_checksums", lambda file: read.append(file.name) or checksums(file))
    open_pack(folder)
    assert read == []
    shutil.copytree(pack.path, copy := pack.path.with_name("copy"))
    pack.path.rename(pack.path.with_name("away"))
    copy.rename(pack.path)  # the same bytes in other files: they are compared, and found whole
    listener = Listener()
    open_pack(folder, reporter=listener)
    assert sorted(read) == ["images.npy", "index.parquet", "labels.npy", "meta.json"]
    assert listener.said == []


def test_verify_finds_it_and_says_what_to_do(folder, capsys):
    small, large = open_pack(folder), open_pack(folder, image_size=48)
    answer = call(capsys, "data", "verify", str(folder))
    expected = [{"path": str(each.path), "side": each.image_size, "fault": None} for each in (small, large)]
    assert answer["packs"] == sorted(expected, key=lambda each: each["path"])
    flip(large.path / "images.npy", 100_000)
    said = mistake(capsys, "data", "verify", str(folder))
    assert f"expected the pack {large.path} as it was made, received one of which images.npy differs" in said
    assert said.endswith(f"lucidate data info {folder} --image-size 48")
    call(capsys, *said.split("lucidate ")[1].split())
    call(capsys, "data", "verify", str(folder))


def test_a_pack_of_before_is_packed_anew(folder, capsys):
    pack = open_pack(folder)
    (pack.path / "checksums.json").unlink()
    assert call(capsys, "data", "verify", str(folder))["packs"][0]["fault"] == UNSEALED
    listener = Listener()
    again = open_pack(folder, reporter=listener)
    assert (again.hash, again.path, listener.said) == (pack.hash, pack.path, [])
    assert fault(again.path) is None


def test_a_pack_is_found_by_its_content_under_any_name(folder, tmp_path):
    pack = open_pack(folder)
    renamed = open_pack(folder.rename(tmp_path / "animals"))
    assert (renamed.path, renamed.dataset, renamed.hash) == (pack.path, "animals", pack.hash)


def test_two_processes_mend_one_pack(folder):
    pack = open_pack(folder)
    expected = np.array(pack.images).sum()
    flip(pack.path / "images.npy", 50_000)
    program = "import sys; from lucidate.data.pack import open_pack; print(open_pack(sys.argv[1]).images.sum())"
    command = [sys.executable, "-c", program, str(folder)]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert [int(each.communicate()[0]) for each in both] == [expected] * 2
    assert not [each for each in pack.path.parent.iterdir() if each.name.startswith(".") or each.suffix == ".lock"]
