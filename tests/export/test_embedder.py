"""Embeddings: computed once, kept by id, the same as the network's own."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import lucidate
from lucidate.cli.main import main
from lucidate.core.errors import PredictionsError
from lucidate.core.recipe import ModelRecipe
from lucidate.data.pack import open_pack
from lucidate.export.embedder import of_pretrained, of_run
from lucidate.models.build import build
from lucidate.predict import embed
from lucidate.predict.embed import Backend, Embeddings, embed_source

LITE0 = "timm:tf_efficientnet_lite0"


def on_cpu() -> torch.device:
    return torch.device("cpu")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> lucidate.Run:
    out = tmp_path_factory.mktemp("embed") / "run"
    return lucidate.train("digits", out=out, settings={"train.epochs": 1, "model.name": "fastnet"})


def call(*arguments: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    out, err = capsys.readouterr()
    return int(ended.value.code or 0), out, err


def test_a_runs_embeddings_are_what_its_last_layer_sees(run: lucidate.Run) -> None:
    embeddings = run.embed()
    pack = open_pack("digits")
    assert embeddings.ids.tolist() == pack.ids.tolist()
    assert embeddings.values.dtype == np.float16
    model = run.model()
    from lucidate.models.predictor import InferenceConfig, InferenceModel

    ask = InferenceModel(model, InferenceConfig.of_run(run.card, views="one"))
    with torch.inference_mode():
        features = model.embed(ask.prepare(torch.from_numpy(np.array(pack.images[:200]))))
    np.testing.assert_allclose(embeddings.values[:200], features.numpy(), atol=0.002 * float(features.abs().max()))


def test_they_are_kept_and_told_in_json(
    run: lucidate.Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = embed_source(of_run(run.folder, device=on_cpu), "digits")
    monkeypatch.setattr(embed, "_write", None)  # it is not called again
    status, out, _ = call("embed", str(run.path), "--data", "digits", "--json", capsys=capsys)
    answer = json.loads(out)
    assert status == 0
    assert answer["images"] == 1797
    assert answer["dimension"] == Embeddings.load(Path(answer["path"])).values.shape[1]
    assert answer["images_per_second"] == first.images_per_second > 0
    assert answer["reused"] is True
    assert Path(answer["path"]).parent == run.folder.predictions("test").parent


def test_other_weights_or_images_are_other_embeddings(run: lucidate.Run, tmp_path: Path) -> None:
    other = lucidate.train(
        "digits", out=tmp_path / "other", settings={"train.epochs": 1, "model.name": "fastnet", "seed": 9}
    )
    paths = {embed_source(of_run(each.folder, device=on_cpu), "digits").path.name for each in (run, other)}
    assert len(paths) == 2


def test_a_damaged_file_is_made_anew(run: lucidate.Run) -> None:
    file = embed_source(of_run(run.folder, device=on_cpu), "digits")
    before = Embeddings.load(file.path)
    file.path.write_bytes(file.path.read_bytes()[:-20])
    with pytest.raises(PredictionsError, match="expected embeddings that lucidate wrote"):
        Embeddings.load(file.path)
    again = embed_source(of_run(run.folder, device=on_cpu), "digits")
    assert not again.reused
    np.testing.assert_allclose(Embeddings.load(again.path).values, before.values, atol=0.02)


def test_they_are_streamed_in_groups(run: lucidate.Run, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = run.embed().values
    monkeypatch.setattr(embed, "GROUP", 300)
    file = embed_source(of_run(run.folder, device=on_cpu), "digits")
    file.path.unlink()
    grouped = Embeddings.load(embed_source(of_run(run.folder, device=on_cpu), "digits").path)
    assert len(grouped.ids) == len(whole)
    np.testing.assert_allclose(grouped.values, whole, atol=0.02)


@pytest.mark.slow
def test_a_pretrained_network_embeds_and_writes_where_it_is_asked_to(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "digits.npy"
    status, text, err = call("embed", LITE0, "--data", "digits", "--size", "32", "--out", str(out), capsys=capsys)
    assert status == 0, err
    assert "1,797 embeddings of 1,280 numbers" in text
    values = np.load(out)
    assert values.dtype == np.float16
    assert values.shape == (1797, 1280)
    net = build(ModelRecipe(name=LITE0, pretrained=True, fit="upsample", size=32), 2, image_size=32).eval()
    pixels = torch.from_numpy(np.array(open_pack("digits").images[:8])).permute(0, 3, 1, 2).float() / 255
    with torch.inference_mode():
        features = net.embed((pixels - 0.5) / 0.5).numpy()
    given = values[:8].astype(np.float32)
    cosine = (features * given).sum(1) / np.linalg.norm(features, axis=1) / np.linalg.norm(given, axis=1)
    assert cosine.min() > 0.9999


@pytest.mark.slow
def test_finding_them_again_loads_no_torch(run: lucidate.Run) -> None:
    run.embed()
    code = (
        "import sys; from lucidate.cli.main import main\n"
        "try: main()\nexcept SystemExit as end: assert not end.code\n"
        "assert 'torch' not in sys.modules"
    )
    arguments = ["embed", str(run.path), "--data", "digits", "--json"]
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert of_pretrained(LITE0, size=32, device=on_cpu).kept("x").name == "x.parquet"


def test_mistakes(run: lucidate.Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cases = [
        (["embed", LITE0], "--data: expected the images to embed, received none"),
        (["embed", str(run.path), "--size", "64"], "--size: expected only with a pretrained network"),
        (["embed", str(run.path), "--out", "x.csv"], "--out: expected a name that ends in .parquet or .npy"),
        (["embed", str(tmp_path / "none"), "--data", "digits"], "none"),
        (["embed", "timm:nonsense", "--data", "digits"], "such as timm:"),
    ]
    for arguments, words in cases:
        status, _, err = call(*arguments, capsys=capsys)
        assert status == 2
        assert words in err.splitlines()[-1]
        assert err.splitlines()[-1].startswith("error: ")


def test_photos_are_packed_as_large_as_the_network_sees_them_and_images_of_one_size_as_they_are(
    tmp_path: Path,
) -> None:
    generator = np.random.default_rng(0)
    for source, heights in {"photos": (120, 150), "alike": (64, 64)}.items():
        for name in ("cat", "dog"):
            (tmp_path / source / name).mkdir(parents=True)
            for number, side in enumerate(heights):
                pixels = generator.integers(0, 255, (side, 64, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / source / name / f"{number}.png")
    sides = []

    def load(images: np.ndarray) -> Backend:
        sides.append(images.shape[1])
        return Backend("sums", lambda given: given.reshape(len(given), -1).sum(1, keepdims=True).astype(np.float32))

    for source, size in (("photos", 96), ("photos", 128), ("alike", 96)):
        model = of_pretrained(LITE0, size=size, device=on_cpu)
        embedder = replace(model, load=load, kept=lambda key: tmp_path / f"{key}.parquet")
        assert embed_source(embedder, str(tmp_path / source)).dimension == 1
    assert sides == [96, 128, 64]
