from __future__ import annotations

import multiprocessing
import shutil
from pathlib import Path

import pytest
from filelock import FileLock

from lucidate.core.atomic import atomic_path, atomic_write, remove_abandoned
from lucidate.core.errors import DiskFullError


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "file"
    atomic_write(target, b"old")
    with pytest.raises(KeyError), atomic_path(target) as temporary:
        temporary.write_bytes(b"half")
        raise KeyError
    assert target.read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    atomic_write(target, b"new")
    assert target.read_bytes() == b"new"


def test_a_folder_is_swapped_whole(tmp_path: Path) -> None:
    target = tmp_path / "folder"
    for content in ("one", "two"):
        with atomic_path(target) as temporary:
            temporary.mkdir()
            (temporary / content).touch()
    assert [path.name for path in target.iterdir()] == ["two"]
    with pytest.raises(KeyError), atomic_path(target) as temporary:
        temporary.mkdir()
        raise KeyError
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]
    assert [path.name for path in target.iterdir()] == ["two"]


def test_a_swap_that_fails_puts_the_old_folder_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "folder"
    target.mkdir()
    (target / "old").touch()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"), atomic_path(target) as temporary:
        temporary.mkdir()
        monkeypatch.setattr(Path, "replace", full)
    assert [path.name for path in target.iterdir()] == ["old"]
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def _write_slowly(path: Path, pipe: object) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text("slow")
        pipe.send("ready")  # type: ignore[attr-defined]
        pipe.poll(20)  # type: ignore[attr-defined]


@pytest.mark.parametrize("killed", [False, True])
def test_the_next_writer_removes_what_a_killed_one_left_and_no_more(tmp_path: Path, killed: bool) -> None:
    context = multiprocessing.get_context("spawn")
    ours, its = context.Pipe()
    other = tmp_path / ".other.abcdefgh"
    other.mkdir()
    writer = context.Process(target=_write_slowly, args=(tmp_path / "gallery", its))
    writer.start()
    try:
        assert ours.poll(20)
        if killed:
            writer.kill()
            writer.join()
        atomic_write(tmp_path / "gallery", b"quick")
        assert len(list(tmp_path.glob(".gallery.*"))) == (0 if killed else 1)
        assert other.exists()
    finally:
        ours.send("go on")
        writer.join()
    assert (tmp_path / "gallery").read_text() == ("quick" if killed else "slow")


def test_a_kill_in_the_middle_of_a_swap_loses_neither_content(tmp_path: Path) -> None:
    left = tmp_path / ".gallery.abcdefgh"
    for content, name in (("old", "replaced"), ("new", "gallery")):
        (left / name).mkdir(parents=True)
        (left / name / content).touch()
    remove_abandoned(tmp_path)
    assert [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")] == ["gallery", "gallery/new"]


def test_a_disk_without_room_names_the_folder_and_the_need(tmp_path: Path) -> None:
    target = tmp_path / "file"
    target.write_text("old")
    with pytest.raises(DiskFullError, match=r"expected room for [\d,]+\.\d MB in .*, received a full disk \(.* free\)"):
        atomic_path(target, size=shutil.disk_usage(tmp_path).free + 10**15).__enter__()
    with pytest.raises(DiskFullError, match=r"expected room for 0\.3 MB in"), atomic_path(target) as temporary:
        temporary.write_bytes(bytes(300_000))
        raise OSError(28, "No space left on device")
    assert target.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_folder_taken_for_a_dead_writers_is_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    acquire, tried = FileLock.acquire, []

    def removed_before(lock: FileLock, *arguments: object, **options: object) -> object:
        tried.append(lock.lock_file)
        if len(tried) == 1:
            raise FileNotFoundError(lock.lock_file)
        return acquire(lock, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(FileLock, "acquire", removed_before)
    atomic_write(tmp_path / "note", b"64")
    assert (tmp_path / "note").read_bytes() == b"64"
    assert len(set(tried)) >= 2
