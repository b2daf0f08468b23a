"""What a server knows of its validation images: temperature, threshold, histograms; where it comes from and is kept."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from live_server import PREPROCESS, make_run, photo
from recorded import PACK, photographs, recorded_run

from fakes import NAMES, random_predictions
from lucidate.core.records import Predictions, RunCard, softmax
from lucidate.core.run import RunDir
from lucidate.data.pack import Pack
from lucidate.data.packed import packed_images
from lucidate.data.splits import Splits
from lucidate.models.checkpoint import load_model
from lucidate.predict.infer import predict_run
from lucidate.serve import calibration as references
from lucidate.serve import calibration as statistics
from lucidate.serve.calibration import Histogram, calibration_of_run, in_tenths, load_calibrations


@pytest.fixture
def packed(own_cache: Path) -> Path:
    """The images of these runs, as packing leaves them."""
    folder = own_cache / "packs" / f"photos-{PACK[:16]}"
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / "images.npy", photographs(1_500))
    np.save(folder / "labels.npy", np.arange(1_500) % 10)
    index = {"id": [f"image/{row}" for row in range(1_500)], "given": ["train"] * 1_500}
    pq.write_table(pa.table(index), folder / "index.parquet")
    (folder / "meta.json").write_text(json.dumps({"key": PACK, "count": 1_500, "set_aside": []}))
    return folder


@pytest.mark.usefixtures("packed")
def test_a_run_tells_its_temperature_threshold_and_images_and_keeps_them(tmp_path: Path) -> None:
    run = recorded_run(tmp_path / "run")
    found = calibration_of_run(run)
    table = Predictions.load(run.predictions("validation"))
    confidence = softmax(table.logits / found.temperature).max(1)
    assert found.calibrated
    assert found.ece_after is not None
    assert found.ece_before is not None
    assert found.ece_after < found.ece_before
    assert found.threshold is not None
    answered = confidence >= found.threshold
    assert found.coverage == pytest.approx(answered.mean())
    assert found.error == pytest.approx((~table.correct[answered]).mean())
    assert found.class_share is not None
    np.testing.assert_allclose(found.class_share, np.bincount(table.predicted, minlength=10) / 1_000)
    assert set(found.histograms) == {"classes", "confidence", *statistics.NAMES}
    assert [sum(each.counts) for each in found.histograms.values()] == [1_000] * 6
    assert found.note == ""
    assert run.serving.stat().st_size < 4_000
    run.predictions("validation").unlink()  # what is kept is enough
    assert calibration_of_run(run) == found


def test_images_that_are_not_packed_here_leave_the_statistics_out(tmp_path: Path, packed: Path) -> None:
    (packed / "meta.json").write_text(json.dumps({"key": "another"}))
    run = recorded_run(tmp_path / "run")
    assert packed_images(RunCard.load(run.card)) is None
    found = calibration_of_run(run)
    assert set(found.histograms) == {"classes", "confidence"}
    assert found.calibrated


def test_other_weights_and_other_files_are_not_believed(tmp_path: Path) -> None:
    run = recorded_run(tmp_path / "run")
    first = calibration_of_run(run)
    changed = first.model_copy(update={"temperature": 9.0})
    references.store_calibrations(run, {"one": changed})
    assert calibration_of_run(run).temperature == 9.0
    run.weights.write_bytes(b"other weights")
    assert load_calibrations(run) == {}
    assert calibration_of_run(run).temperature == first.temperature
    for content in (b"", b"[]", b'{"format": 99}', b"\xff\x00"):
        run.serving.write_bytes(content)
        assert calibration_of_run(run) == first


@pytest.mark.usefixtures("packed")
def test_a_run_without_predictions_says_so(tmp_path: Path) -> None:
    run = recorded_run(tmp_path / "run", predicted=())
    found = calibration_of_run(run)
    assert (found.temperature, found.threshold, found.class_share) == (1.0, None, None)
    assert not found.calibrated
    assert found.note.startswith("not calibrated: ")
    assert found.note.endswith(f"lucidate predict {run.path.name} --split validation")
    assert set(found.histograms) == set(statistics.NAMES)
    assert not run.serving.exists()


def test_each_way_of_viewing_has_its_own_temperature(tmp_path: Path) -> None:
    run = recorded_run(tmp_path / "run", views="mirror-shift", predicted=("validation", "one-view"))
    averaged, one = calibration_of_run(run, views="recipe"), calibration_of_run(run)
    assert (averaged.views, one.views) == ("mirror-shift", "one")
    assert one.temperature == pytest.approx(averaged.temperature / 2, rel=1e-6)
    assert one.threshold == pytest.approx(averaged.threshold, rel=1e-6)
    assert set(load_calibrations(run)) == {"mirror-shift", "one"}


def test_another_views_temperature_is_lent_but_no_threshold(tmp_path: Path) -> None:
    run = recorded_run(tmp_path / "run", views="mirror-shift")
    found = calibration_of_run(run)
    assert found.temperature == calibration_of_run(run, views="recipe").temperature != 1
    assert (found.threshold, found.confidence, found.calibrated) == (None, None, False)
    assert "averaged over views (mirror-shift), not for one" in found.note
    assert "one" not in load_calibrations(run)  # as soon as there are predictions, they count
    table = Predictions.load(run.predictions("validation"))
    table.save(run.one_view("validation"))
    assert calibration_of_run(run).calibrated


def test_a_folder_that_cannot_be_written_to_serves_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = recorded_run(tmp_path / "run")

    def refuse(path: Path, content: bytes) -> None:
        raise PermissionError(path, len(content))

    monkeypatch.setattr(references, "atomic_write", refuse)
    assert calibration_of_run(run).calibrated
    assert not run.serving.exists()


def test_a_model_that_is_never_wrong_keeps_its_probabilities(tmp_path: Path) -> None:
    run = recorded_run(tmp_path / "run", predicted=())
    random_predictions(1_000, skill=50.0, split="validation").save(run.predictions("validation"))
    found = calibration_of_run(run)
    assert (found.temperature, found.threshold) == (1.0, 0.0)
    assert found.note.startswith("not calibrated: ")


def test_the_shipped_model_carries_its_reference() -> None:
    run = RunDir(Path(__file__).parents[2] / "models/cifar10-fastnet")
    for views in ("one", "recipe"):
        found = calibration_of_run(run, views=views)
        assert found.calibrated
        assert found.num_validation == 2_500
        assert found.threshold is not None
        assert 0.5 < found.threshold < 0.95
        assert set(found.histograms) == {"classes", "confidence", *statistics.NAMES}


@pytest.mark.parametrize("views", ["one", "mirror"])
def test_predicting_leaves_what_a_server_with_one_view_is_calibrated_on(tmp_path: Path, views: str) -> None:
    run = make_run(tmp_path / "run")
    card = RunCard.load(run.card)
    recipe = card.recipe.model_copy(update={"predict": card.recipe.predict.model_copy(update={"views": views})})
    card.model_copy(update={"recipe": recipe}).save(run.card)
    pixels = np.stack([photo(seed) for seed in range(30)])
    ids = np.array([f"image/{row}" for row in range(30)])
    given = np.full(30, "")
    labels = np.arange(30) % 10
    arrays = {"images": pixels, "labels": labels, "ids": ids, "given": given, "set_aside": ()}
    about = {"path": tmp_path, "class_names": NAMES, "dataset": "photos", "source": "photos", "hash": "0" * 64}
    pack = Pack(**arrays, **about, flips=True)
    Splits("official", np.arange(10), np.arange(10, 20), np.arange(20, 30)).save(run.splits, ids)
    for split in ("validation", "test"):
        predict_run(run, split, pack=pack)
    assert run.one_view("validation").exists() == (views == "mirror")
    assert not run.one_view("test").exists()
    assert calibration_of_run(run).views == "one"
    kept = Predictions.load(run.one_view("validation") if views == "mirror" else run.predictions("validation"))
    with torch.inference_mode():
        logits = load_model(run)(PREPROCESS.normalize(torch.from_numpy(pixels[10:20])))
    np.testing.assert_allclose(kept.logits, logits.numpy(), atol=1e-4)
    assert calibration_of_run(run, views="recipe").views == views


def test_a_value_on_an_edge_belongs_above_it() -> None:
    histogram = Histogram(edges=(1.0, 2.0), counts=(0, 0, 0))
    assert histogram.bins(np.array([0.5, 1.0, 1.5, 2.0, 9.0])).tolist() == [0, 1, 1, 2, 2]
    assert in_tenths(np.arange(100.0)).counts == (10,) * 10
    assert in_tenths(np.full(50, 3.0)).counts == (0, 50)


@pytest.mark.parametrize("temperature", ["NaN", "Infinity", "0.0", "-1.0", "1e-320"])
def test_a_temperature_that_makes_no_numbers_is_not_served(untrained: RunDir, tmp_path: Path, temperature: str) -> None:
    run = RunDir(tmp_path / "run")
    shutil.copytree(untrained.path, run.path)
    known = calibration_of_run(run)
    text = run.serving.read_text().replace(f'"temperature": {known.temperature}', f'"temperature": {temperature}')
    assert f": {temperature}," in text
    run.serving.write_text(text)
    assert calibration_of_run(run).temperature == known.temperature  # found anew
