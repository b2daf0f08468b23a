from __future__ import annotations

import os

import numpy as np
import pytest
from writers import make_images, png, write_folder, write_parquet

from lucidate.core.errors import SourceError
from lucidate.data import pack as packing
from lucidate.data.pack import open_pack
from lucidate.data.sources import find
from lucidate.data.sources.find import open_source

pytestmark = pytest.mark.usefixtures("elsewhere")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(find, "SETTLED", -1.0)  # what was written a moment ago counts as settled
    monkeypatch.setattr(find, "_seen", {})
    return write_folder(tmp_path / "pets", *make_images(30))


@pytest.fixture
def opened(monkeypatch):
    """What was opened, and not recalled."""
    specs: list[object] = []

    def listen(spec, **options):
        specs.append(spec)
        return open_source(spec, **options)

    monkeypatch.setattr(packing, "open_source", listen)
    return specs


def test_an_unchanged_source_is_opened_once(folder, opened, tmp_path):
    (folder / "cat" / "notes.txt").write_text("hello")
    first, second = open_pack(folder), open_pack(folder)
    assert opened == [folder]
    for name in ("path", "class_names", "dataset", "source", "hash", "flips", "set_aside"):
        assert getattr(first, name) == getattr(second, name)
    for name in ("images", "labels", "ids", "given"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))
    assert open_pack(str(folder)).source == str(folder)
    table = write_parquet(tmp_path / "t.parquet", *make_images(30))
    assert open_pack(table).hash == open_pack(table).hash
    assert opened == [folder, str(folder), table]


def test_another_size_or_a_lost_pack_opens_it_again(folder, opened):
    path = open_pack(folder).path
    open_pack(folder, image_size=16)
    assert len(opened) == 2
    (path / "labels.npy").unlink()
    assert open_pack(folder).path == path
    assert len(opened) == 3
    for note in path.parent.glob("*.agreed"):
        note.unlink()
    open_pack(folder)
    assert len(opened) == 4


def change_a_pixel(folder):
    """The size and the time of last change are as before; the time that a user cannot set tells."""
    path = sorted(folder.rglob("*.png"))[0]
    content, state = bytearray(path.read_bytes()), path.stat()
    content[-20] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))


@pytest.mark.parametrize(
    "change",
    [
        change_a_pixel,
        lambda folder: (folder / "cat" / "new.png").write_bytes(png(make_images(1)[0][0])),
        lambda folder: sorted(folder.rglob("*.png"))[0].unlink(),
        lambda folder: (folder / "cat").rename(folder / "lion"),
        lambda folder: (folder / "cat" / "notes.txt").write_text("hello"),
    ],
)
def test_any_change_opens_it_again(folder, opened, change):
    open_pack(folder)
    change(folder)
    open_pack(folder)
    assert len(opened) == 2
    open_pack(folder)
    assert len(opened) == 2


def test_a_relative_path_is_another_source_elsewhere(folder, opened, tmp_path, monkeypatch):
    assert folder == tmp_path / "pets"
    write_folder(tmp_path / "other" / "pets", *make_images(20))
    monkeypatch.chdir(tmp_path)
    assert len(open_pack("pets")) == 30
    monkeypatch.chdir(tmp_path / "other")
    assert len(open_pack("pets")) == 20
    assert opened == ["pets", "pets"]


def test_what_its_state_does_not_tell_is_opened_each_time(folder, opened, tmp_path, monkeypatch):
    outside = tmp_path / "outside"
    outside.mkdir()
    (folder / "link").symlink_to(outside)
    open_pack(folder)
    open_pack(folder)
    assert len(opened) == 2
    (folder / "link").unlink()
    monkeypatch.setattr(find, "SETTLED", 60.0)
    open_pack(folder)
    open_pack(folder)
    assert len(opened) == 4
    assert find.signature(None) is None
    assert find.signature(tmp_path / "nothing") is None


def test_a_source_that_is_gone_is_not_recalled(folder):
    open_pack(folder)
    folder.rename(folder.with_name("elsewhere"))
    with pytest.raises(SourceError, match="does not exist"):
        open_pack(folder)


def test_cifar10_is_recalled_from_the_copy_that_is_found(folder, opened, elsewhere, monkeypatch):
    (elsewhere / "data").mkdir()
    folder.rename(elsewhere / "data" / "cifar10")
    assert len(open_pack("cifar10")) == len(open_pack("cifar10")) == 30
    assert opened == ["cifar10"]
    monkeypatch.setenv("LUCIDATE_DATA", str(elsewhere / "own"))
    write_folder(elsewhere / "own" / "cifar10", *make_images(20))
    assert len(open_pack("cifar10")) == 20
