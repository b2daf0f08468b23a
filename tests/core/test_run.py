from __future__ import annotations

import multiprocessing
import shutil
from pathlib import Path

import pytest

from lucidate.core.errors import DiskFullError, RunError
from lucidate.core.run import RunDir, atomic_path, atomic_write, fresh_path, remove_abandoned


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


def test_a_run_is_only_made_in_a_new_or_empty_folder(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for name in ("new", "empty"):
        with RunDir(tmp_path / name).claim():
            RunDir(tmp_path / name).card.write_text("{}")
            RunDir(tmp_path / name).weights.touch()
        with pytest.raises(RunError, match="already holds a run;"):
            RunDir.free(tmp_path / name)
    RunDir(tmp_path / "new").weights.unlink()
    with (
        pytest.raises(RunError, match="already holds a run whose training did not end"),
        RunDir(tmp_path / "new").claim(),
    ):
        pass
    assert RunDir(tmp_path / "new").card.exists()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").touch()
    with pytest.raises(RunError, match="holds other files"):
        RunDir.free(tmp_path / "other")
    with pytest.raises(RunError, match=r"thesis\.tex is not a folder"):
        RunDir.free(tmp_path / "other" / "thesis.tex")
    with pytest.raises(RunError, match=r"thesis\.tex is not a folder"):
        RunDir.free(tmp_path / "other" / "thesis.tex" / "run")
    RunDir.free(tmp_path / "unborn" / "run")
    assert not (tmp_path / "unborn").exists()


def test_a_training_that_fails_leaves_the_folder_free(tmp_path: Path) -> None:
    (tmp_path / "existed").mkdir()
    for name in ("fresh", "existed"):
        run = RunDir(tmp_path / name)
        with pytest.raises(KeyError), run.claim():
            run.card.write_text("{}")
            run.splits.touch()
            raise KeyError
        assert run.path.exists() == (name == "existed")
        RunDir.free(run.path)
    run = RunDir(tmp_path / "trained")
    with pytest.raises(KeyError), run.claim():
        run.card.write_text("{}")
        run.weights.touch()
        raise KeyError
    assert run.card.exists()
    assert run.weights.exists()


def test_a_run_without_weights_is_unfinished(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"run\.json"):
        RunDir.open(tmp_path)
    RunDir(tmp_path).card.write_text("{}")
    with pytest.raises(RunError, match="did not end"):
        RunDir.open(tmp_path)


def _hold(path: Path, ready: object, release: object) -> None:
    with RunDir(path).lock():
        ready.set()  # type: ignore[attr-defined]
        release.wait(20)  # type: ignore[attr-defined]


def test_one_writer_a_run(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    ready, release = context.Event(), context.Event()
    holder = context.Process(target=_hold, args=(tmp_path, ready, release))
    holder.start()
    try:
        assert ready.wait(20)
        with pytest.raises(RunError, match=f"process {holder.pid} is writing"), RunDir(tmp_path).lock():
            pass
    finally:
        release.set()
        holder.join()
    with RunDir(tmp_path).lock():  # free again
        pass


def test_a_second_writer_leaves_the_first_ones_files(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    ready, release = context.Event(), context.Event()
    RunDir(tmp_path).card.write_text("{}")
    holder = context.Process(target=_hold, args=(tmp_path, ready, release))
    holder.start()
    try:
        assert ready.wait(20)
        with pytest.raises(RunError, match="is writing"), RunDir(tmp_path).claim(resume=True):
            pass
        assert RunDir(tmp_path).card.exists()
    finally:
        release.set()
        holder.join()


@pytest.mark.parametrize("resume", [False, True])
def test_what_a_killed_start_leaves_is_no_obstacle(tmp_path: Path, resume: bool) -> None:
    (tmp_path / ".lock").write_text("1")
    (tmp_path / ".run.json.abc_1234").mkdir()
    (tmp_path / ".run.json.abc_1234" / "run.json").write_text('{"half')
    with RunDir(tmp_path).claim(resume=resume):
        assert [path.name for path in tmp_path.iterdir()] == [".lock"]
        RunDir(tmp_path).card.write_text("{}")
        RunDir(tmp_path).weights.touch()


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


def test_fresh_paths_count_up(tmp_path: Path) -> None:
    for expected in ("run", "run-2", "run-3"):
        path = fresh_path(tmp_path, "run")
        assert path.name == expected
        path.mkdir()
