"""A model is asked one way, whoever asks: pixels in, logits out, and all that lies between is its own."""

from __future__ import annotations

from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
import torch
from torch import nn

from fakes import TwoLayers
from lucidate.core.errors import RunError
from lucidate.core.recipe import ModelRecipe
from lucidate.data.preprocess import Preprocess
from lucidate.models.build import build
from lucidate.models.predictor import InferenceConfig, InferenceModel, TorchPredictor, Views, batch_size, model_logits
from lucidate.models.registry import Preparable, ToKeras, models, with_keras

OWN = Preprocess(16, (0.4, 0.5, 0.6), (0.2, 0.25, 0.3))
IMAGES = np.random.default_rng(0).integers(0, 256, (9, 16, 16, 3), dtype=np.uint8)


class Corner(nn.Module):
    """Says what stands in the upper left pixel, channel by channel."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images[:, :, 0, 0]


def test_views_are_the_stated_means() -> None:
    images = torch.arange(2 * 3 * 4 * 4).float().reshape(2, 3, 4, 4)
    here, far = images[:, :, 0, 0], images[:, :, 0, 3]
    torch.testing.assert_close(model_logits(Corner(), images, InferenceConfig(OWN, "one", True)), here)
    torch.testing.assert_close(model_logits(Corner(), images, InferenceConfig(OWN, "mirror", False)), here)
    torch.testing.assert_close(model_logits(Corner(), images, InferenceConfig(OWN, "mirror", True)), (here + far) / 2)
    # One pixel up and left, the corner holds what was reflected into it: the pixel at (1, 1); and the other way too.
    moved = (images[:, :, 1, 1] + images[:, :, 1, 1]) / 2
    shifted = model_logits(Corner(), images, InferenceConfig(OWN, "mirror-shift", False))
    torch.testing.assert_close(shifted, here / 2 + moved / 2)


@pytest.mark.parametrize("views", get_args(Views))
@pytest.mark.parametrize("mirror", [False, True])
def test_views_at_once_are_the_same_mean(views: Views, mirror: bool) -> None:
    torch.manual_seed(0)
    model, images = build(ModelRecipe(name="fastnet", widths=[4, 8]), 5).eval(), torch.randn(3, 3, 16, 16)
    config = InferenceConfig(OWN, views, mirror)
    one_by_one = model_logits(model, images, config)
    torch.testing.assert_close(model_logits(model, images, config, at_once=True), one_by_one)


@pytest.mark.parametrize("views", get_args(Views))
def test_each_view_comes_with_the_answer_that_they_make(views: Views) -> None:
    torch.manual_seed(0)
    model = build(ModelRecipe(name="fastnet", widths=[4, 8]), 5).eval()
    asked = TorchPredictor(model, InferenceConfig(OWN, views, mirror=True, order=(4, 3, 2, 1, 0)))
    seen = asked.collect([asked.start_views(IMAGES)])
    assert seen.shape == (9, 1 + {"one": 1, "mirror": 2, "mirror-shift": 6}[views], 5)
    np.testing.assert_allclose(seen[:, 0], asked(IMAGES), atol=1e-6)
    plain = TorchPredictor(model, InferenceConfig(OWN, "one", mirror=True, order=(4, 3, 2, 1, 0)))
    np.testing.assert_allclose(seen[:, 1], plain(IMAGES), atol=1e-6)


def test_pixels_are_normalized_brought_to_size_and_answers_to_order() -> None:
    torch.manual_seed(0)
    model = TwoLayers().eval()
    config = InferenceConfig(OWN, order=(2, 0, 1))
    with torch.inference_mode():
        expected = model(OWN.normalize(torch.from_numpy(IMAGES)))[:, [2, 0, 1]].numpy()
    predictor = TorchPredictor(model, config)
    np.testing.assert_array_equal(predictor(IMAGES), expected)
    np.testing.assert_array_equal(
        predictor.collect([predictor.start(IMAGES[:4]), predictor.start(IMAGES[4:])]), expected
    )
    larger = IMAGES.repeat(2, axis=1).repeat(2, axis=2)
    module = InferenceModel(model, config)
    assert module.prepare(torch.from_numpy(larger)).shape == (9, 3, 16, 16)
    flat = np.full((1, 40, 40, 3), 77, np.uint8)
    resized, same = (module.prepare(torch.from_numpy(images)) for images in (flat, flat[:, :16, :16]))
    torch.testing.assert_close(resized, same, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", list(models))
def test_embeddings_are_what_the_last_layer_sees(name: str) -> None:
    torch.manual_seed(0)
    model = build(ModelRecipe(name=name), 5).eval()
    predictor = TorchPredictor(model, InferenceConfig(OWN))
    embeddings = predictor.embed(IMAGES)
    assert embeddings.shape[0] == len(IMAGES)
    assert embeddings.dtype == np.float32
    *_, last = (layer for layer in model.modules() if isinstance(layer, nn.Linear))
    with torch.inference_mode():
        logits = last(torch.from_numpy(embeddings)).numpy() * getattr(model, "scale", 1.0)
    np.testing.assert_allclose(logits, predictor(IMAGES), atol=1e-5)


def test_a_model_without_embeddings_says_so() -> None:
    with pytest.raises(RunError, match=r"embed: expected a network .* without: corner"):
        TorchPredictor(Corner(), InferenceConfig(OWN)).embed(IMAGES)


def test_a_config_with_views_changes_the_answer() -> None:
    torch.manual_seed(0)
    model, config = build(ModelRecipe(name="fastnet", widths=[4, 8]), 5).eval(), InferenceConfig(OWN, mirror=True)
    seen = [TorchPredictor(model, replace(config, views=views))(IMAGES) for views in get_args(Views)]
    assert np.abs(seen[0] - seen[1]).max() > 1e-4
    assert np.abs(seen[1] - seen[2]).max() > 1e-4


def test_abilities_are_found_on_the_class() -> None:
    assert with_keras() == [name for name in models if isinstance(build(ModelRecipe(name=name), 3), ToKeras)]
    assert [name for name in models if isinstance(build(ModelRecipe(name=name), 3), Preparable)] == ["fastnet"]


@pytest.mark.parametrize(("size", "own", "images"), [(32, None, 128), (96, None, 28), (32, 128, 16), (512, None, 8)])
def test_a_batch_holds_fewer_of_larger_images_whoever_enlarges_them(size: int, own: int | None, images: int) -> None:
    net = Corner()
    net.size = own  # type: ignore[assignment]
    together = nn.Module()
    together.members = nn.ModuleList([Corner(), net])
    assert batch_size(net, size, "cpu") == batch_size(together, size, "cpu") == images
    assert batch_size(net, size, "cuda") == 1_000
