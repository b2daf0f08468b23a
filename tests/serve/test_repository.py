"""Models by name: versions, hot swaps, folders that go."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import numpy as np
import pytest
from live_server import SIDE, expected, make_run, photo
from numpy.typing import NDArray

from fakes import NAMES
from lucidate.core.errors import RunError, ServeError
from lucidate.core.run import RunDir
from lucidate.export.onnx import export_onnx
from lucidate.serve.errors import BadRequest, NotFound
from lucidate.serve.repository import Repository
from lucidate.serve.settings import Settings, name_runs

pytestmark = pytest.mark.slow


@pytest.fixture
def copy(untrained: RunDir, tmp_path: Path) -> RunDir:
    """A run that may be written into."""
    shutil.copytree(untrained.path, tmp_path / "photos")
    return RunDir(tmp_path / "photos")


def other_weights(run: RunDir, tmp_path: Path) -> RunDir:
    """Put another run's weights into a run; returns the other one."""
    other = make_run(tmp_path / "other", seed=7)
    shutil.copy(other.weights, run.weights)
    return other


def test_a_new_version_takes_over_between_two_requests(copy: RunDir, tmp_path: Path) -> None:
    image = photo(3)
    truths: dict[str, NDArray[np.float64]] = {}
    seen: list[str] = []

    async def main() -> None:
        repository = Repository({"photos": copy.path}, Settings(threads=1))
        await repository.load_all()
        truths["1"] = expected(copy, image, temperature=repository.get().calibration.temperature)
        ended = False

        async def ask() -> None:
            while not ended:
                served = repository.get("photos")
                seen.append(served.version)
                answers = await served.answer(np.stack([image] * 3))
                # Of one version or the other, never something between.
                np.testing.assert_allclose(answers.probabilities, [truths[served.version]] * 3, rtol=0, atol=1e-5)
                await asyncio.sleep(0.002)  # the new version is made by another process, which needs its share

        asking = [asyncio.create_task(ask()) for _ in range(4)]
        await asyncio.sleep(0.05)
        held = repository.get("photos")
        truths["2"] = expected(other_weights(copy, tmp_path), image, temperature=held.calibration.temperature)
        loaded = await repository.load("photos")
        assert loaded.version == "2"
        while seen[-1:] != ["2"] and not any(task.done() for task in asking):
            await asyncio.sleep(0.01)
        ended = True
        await asyncio.gather(*asking)
        # Whoever still holds the old version is answered by it.
        late = await held.answer(image[None])
        np.testing.assert_allclose(late.probabilities[0], truths["1"], rtol=0, atol=1e-5)
        with pytest.raises(NotFound, match="expected 2"):
            repository.get("photos", "1")
        assert repository.get("photos", "2") is loaded
        assert await repository.load("photos") is loaded  # nothing has changed

    asyncio.run(main())
    assert np.abs(truths["1"] - truths["2"]).max() > 0.01
    assert seen == sorted(seen)
    assert set(seen) == {"1", "2"}


def test_a_folder_that_goes_takes_nothing_with_it(copy: RunDir) -> None:
    async def main() -> None:
        repository = Repository({"photos": copy.path}, Settings(threads=1))
        await repository.load_all()
        before = await repository.get().answer(photo()[None])
        shutil.rmtree(copy.path)
        after = await repository.get().answer(photo()[None])
        np.testing.assert_array_equal(before.logits, after.logits)
        with pytest.raises(BadRequest, match="cannot be loaded"):
            await repository.load("photos")
        assert [entry.state for entry in repository.index()] == ["READY"]
        assert repository.ready

    asyncio.run(main())


def test_what_is_unloaded_is_not_there_until_it_is_loaded(copy: RunDir) -> None:
    async def main() -> None:
        repository = Repository({"photos": copy.path}, Settings(threads=1))
        assert not repository.ready
        with pytest.raises(NotFound, match="not loaded"):
            repository.get("photos")
        await repository.load_all()
        held = repository.get("photos")
        await repository.unload("photos")
        with pytest.raises(NotFound, match="not loaded"):
            repository.get("photos")
        assert repository.index()[0].reason == "unloaded"
        assert repository.ready  # as somebody wanted it
        await held.answer(photo()[None])
        await repository.load("photos")
        assert repository.get("photos").version == "2"
        for call in (repository.load, repository.unload):
            with pytest.raises(NotFound, match="expected one of photos"):
                await call("others")

    asyncio.run(main())


def test_a_damaged_run_is_refused_and_the_current_version_stays(copy: RunDir) -> None:
    async def main() -> None:
        repository = Repository({"photos": copy.path}, Settings(threads=1))
        await repository.load_all()
        copy.weights.write_bytes(copy.weights.read_bytes()[:-100])
        with pytest.raises(BadRequest, match="expected weights in safetensors"):
            await repository.load("photos")
        assert repository.get("photos").version == "1"

    asyncio.run(main())


def test_a_damaged_graph_is_made_anew(copy: RunDir) -> None:
    kept = copy.path / "export" / "serve.onnx"
    before = kept.read_bytes()
    kept.write_bytes(b"no graph")
    asyncio.run(Repository({"photos": copy.path}, Settings()).load_all())
    assert kept.read_bytes() == before


def test_int8_must_have_been_made(copy: RunDir) -> None:
    with pytest.raises(ServeError, match="lucidate quantize"):
        asyncio.run(Repository({"photos": copy.path}, Settings(int8=True)).load_all())


def test_names_of_models(copy: RunDir, tmp_path: Path) -> None:
    path = str(copy.path)
    assert name_runs([path]) == {"photos": copy.path}
    assert name_runs([f"new={path}", f"{path}/"]) == {"new": copy.path, "photos": Path(f"{path}/")}
    for arguments, reason in (
        ([path, path], "each name once, received photos"),
        ([f"a/b={path}"], "letters, digits"),
        ([f"..={path}"], "letters, digits"),
        ([str(tmp_path / "none")], "a folder that holds a run"),
    ):
        with pytest.raises((ServeError, RunError), match=reason):
            name_runs(arguments)
    copy.weights.unlink()
    with pytest.raises(RunError, match="training did not end"):
        name_runs([path])


def test_an_exported_model_answers_as_the_run_it_came_from(copy: RunDir, tmp_path: Path) -> None:
    export_onnx(copy, tmp_path / "shipped.onnx", views="one")
    images = np.stack([photo(seed) for seed in range(3)])
    answered = asyncio.run(_logits(tmp_path / "shipped.onnx", images))
    np.testing.assert_allclose(answered, asyncio.run(_logits(copy.path, images)), rtol=0, atol=1e-4)


def test_a_graph_from_elsewhere_is_served_by_what_its_toml_says(copy: RunDir, tmp_path: Path) -> None:
    shutil.copy(copy.path / "export" / "serve.onnx", tmp_path / "theirs.onnx")
    names = ", ".join(f'"{name}"' for name in reversed(NAMES))
    (tmp_path / "theirs.toml").write_text(f'classes = [{names}]\noutputs = "logits"\n[preprocess]\nsize = {SIDE}\n')
    images = np.stack([photo(seed) for seed in range(3)])
    answered = asyncio.run(_logits(tmp_path / "theirs.onnx", images))
    np.testing.assert_allclose(answered, asyncio.run(_logits(copy.path, images)), rtol=0, atol=1e-4)


async def _logits(path: Path, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    repository = Repository({"one": path}, Settings())
    await repository.load_all()
    return (await repository.get().answer(images)).logits
