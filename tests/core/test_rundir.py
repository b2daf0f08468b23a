from __future__ import annotations

import multiprocessing
from pathlib import Path

import pytest

from lucidate.core.errors import RunError
from lucidate.core.rundir import RunDir, atomic_path, atomic_write, fresh_path


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


def test_fresh_paths_count_up(tmp_path: Path) -> None:
    for expected in ("run", "run-2", "run-3"):
        path = fresh_path(tmp_path, "run")
        assert path.name == expected
        path.mkdir()
