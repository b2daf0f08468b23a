from __future__ import annotations

import multiprocessing
from pathlib import Path

import pytest

from lucidate.core.errors import RunError
from lucidate.core.run import RunDir, fresh_path


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


def test_fresh_paths_count_up(tmp_path: Path) -> None:
    for expected in ("run", "run-2", "run-3"):
        path = fresh_path(tmp_path, "run")
        assert path.name == expected
        path.mkdir()
