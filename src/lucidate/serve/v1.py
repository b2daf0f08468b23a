"""The routes for people and their programs: an image in any common form goes in, an answer in words comes out."""

from __future__ import annotations

import asyncio
import base64
import io
from collections.abc import Awaitable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import quote
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from starlette.requests import Request
from starlette.responses import Response

from lucidate.core.errors import ExplainError, LucidateError
from lucidate.core.records import RunCard
from lucidate.serve.calibration import Views, validation_images
from lucidate.serve.errors import BadRequest, NotFound, NotReady, RequestError
from lucidate.serve.images import Backlog, Decoded, Upload, decode_images, uploads
from lucidate.serve.repository import ModelVersion, predictions
from lucidate.serve.request_body import in_thread_if_large
from lucidate.serve.settings import Settings
from lucidate.serve.state import CONTEXT, json_response, state_of

if TYPE_CHECKING:
    from lucidate.serve.explainer import Heatmap

TOP = 3
CLASS_BYTES = 64  # of an answer, about
SIDES = (8, 1024)  # pixels of a picture that may be asked for
LEAST, MOST = 6, 10  # examples that a page shows in a row; a server is no way to copy a data set

_heatmaps = Backlog()
_explaining = ThreadPoolExecutor(1, thread_name_prefix="explain")  # of all models: heatmaps never take more than a core


async def predict(request: Request) -> Response:
    """Classes of one image, or of several, the likeliest first; calibrated, unless the query says calibrated=false."""
    state, query = state_of(request), request.query_params
    served = state.repository.get(query.get("model"), query.get("version"))
    top = _whole("top", query.get("top"), default=TOP, least=1, most=1_000_000)
    calibrated = query.get("calibrated", "true") == "true"
    if not calibrated and query["calibrated"] != "false":
        raise BadRequest(f"calibrated: expected true or false, received {query['calibrated'][:40]!r}")
    found, several = await _uploads(request, state.settings)
    images = await _decoded(found, served, state.settings)
    good = [image for image in images if not isinstance(image, RequestError)]
    if not good:
        first = next(image for image in images if isinstance(image, RequestError))
        if not several:
            raise first.anew()
        raise BadRequest(f"images: expected at least one that can be read, received none; the first: {first.message}")
    stacked = good[0][None] if len(good) == 1 else np.stack(good)
    answers = await served.answer(stacked, timeout=state.settings.request_timeout)
    head, promise = _head(request, served), _promise(served, calibrated=calibrated)

    def respond() -> Response:
        each = iter(predictions(served, answers, top=top, calibrated=calibrated))
        content = [{"error": image.message} if isinstance(image, RequestError) else next(each) for image in images]
        return json_response({**head, "predictions": content, **promise})

    return await in_thread_if_large(len(good) * min(top, len(served.classes)) * CLASS_BYTES, respond)


async def explain(request: Request) -> Response:
    """What in one image spoke for its class: a heatmap, with what is known of how far to trust it."""
    state, query = state_of(request), request.query_params
    served = state.repository.get(query.get("model"), query.get("version"))
    side = _whole("side", query.get("side"), default=served.image_size, least=SIDES[0], most=SIDES[1])
    found, several = await _uploads(request, state.settings)
    if several or len(found) != 1:
        raise BadRequest("image: expected one, received several")
    (image,) = await _decoded(found, served, state.settings)
    if isinstance(image, RequestError):
        raise image.anew()
    target = _target(query.get("target", "predicted"), served)
    method = query.get("method", "gradcam")

    def heatmap_of(chosen: int | None) -> Awaitable[Heatmap]:
        return _heatmap(served, image, chosen, method=method, side=side, queue=state.settings.explain_queue)

    # Both at once. They nearly always agree about the class; where they do not, the answer's is the one that counts.
    answers, heatmap = await asyncio.gather(
        served.answer(image[None], timeout=state.settings.request_timeout), heatmap_of(target)
    )
    (prediction,) = predictions(served, answers, top=TOP)
    chosen = prediction["classes"][0]["index"] if target is None else target
    if heatmap.target != chosen:
        heatmap = await heatmap_of(chosen)
    if "image/png" in request.headers.get("accept", ""):
        return Response(heatmap.picture, media_type="image/png")
    return json_response(
        {
            **_head(request, served),
            "prediction": prediction,
            "method": method,
            "layer": heatmap.layer,
            "target": {"label": served.classes[chosen], "index": chosen},
            "heatmap": base64.b64encode(heatmap.picture).decode(),
            "map": heatmap.values,
            "trust": heatmap.trust,
            **_promise(served),
        }
    )


async def _heatmap(
    served: ModelVersion, pixels: NDArray[np.uint8], target: int | None, *, method: str, side: int, queue: int
) -> Heatmap:
    """See `Explainer.heatmap`. queue: how many may wait, over all models.

    Raises BadRequest for a method that does not suit the model, Overloaded, NotReady where the run's folder no longer
    holds what is served.
    """

    def work() -> Heatmap:
        return served.explainer.heatmap(pixels, target, method=method, side=side)

    with _heatmaps.waiting(1, most=queue, refusal="too many wait for a heatmap; come again later"):
        try:
            return await asyncio.get_running_loop().run_in_executor(_explaining, work)
        except ExplainError as error:
            raise BadRequest(str(error).replace("--", "")) from None
        except LucidateError:
            raise NotReady("the model's folder no longer holds what is served: no heatmap can be made of it") from None


async def models(request: Request) -> Response:
    """What is served, the one that is meant without a name first."""
    state = state_of(request)
    return json_response([_about(served, int8=state.settings.int8) for served in state.repository])


async def live(request: Request) -> Response:
    """How the server has done for the last minute, how much waits, whether images have drifted."""
    state = state_of(request)
    each = [
        {
            "name": served.name,
            "version": served.version,
            "queue": served.engine.depth(),
            "capacity": served.engine.queue_images,
            "drift": served.drift.report(),
        }
        for served in state.repository
    ]
    return json_response(state.recent.report() | {"models": each})


# Images to try it on, where they are packed here


@dataclass(frozen=True)
class Example:
    """id: of the image in its data set. label: what it is known to show. png: its file."""

    id: str
    label: str
    png: bytes


_known: WeakKeyDictionary[ModelVersion, tuple[Example, ...]] = WeakKeyDictionary()


async def examples(request: Request) -> Response:
    """Which there are; none where the images are not at hand."""
    served = state_of(request).repository.get(request.query_params.get("model"))
    version = f"of={served.fingerprint[:12]}"  # another version's images, kept by a browser, have other addresses
    found = [
        {"id": each.id, "label": each.label, "url": f"/v1/examples/{number}.png?model={quote(served.name)}&{version}"}
        for number, each in enumerate(await _examples(served))
    ]
    return json_response({"model": served.name, "examples": found})


async def example(request: Request) -> Response:
    """One of them, as it was packed. Raises NotFound."""
    served = state_of(request).repository.get(request.query_params.get("model"))
    found, number = await _examples(served), request.path_params["number"]
    if number >= len(found):
        raise NotFound(f"example: expected one of {len(found)}, received number {number}")
    return Response(found[number].png, media_type="image/png", headers={"Cache-Control": "private, max-age=3600"})


async def _examples(served: ModelVersion) -> tuple[Example, ...]:
    if served not in _known:
        _known[served] = await asyncio.to_thread(examples_of, served)
    return _known[served]


def examples_of(served: ModelVersion) -> tuple[Example, ...]:
    """Six to ten validation images, one a class as far as there are as many, in their order; empty without any."""
    if (known := validation_images(served.run)) is None:
        return ()
    packed, rows = known
    mixed = np.random.default_rng(0).permutation(rows)
    _, firsts = np.unique(packed.labels[mixed], return_index=True)
    first_of_each = mixed[firsts]  # of each class, in their order
    rest = mixed[~np.isin(mixed, first_of_each)]
    chosen = first_of_each[np.linspace(0, len(first_of_each) - 1, min(MOST, len(first_of_each))).astype(np.int64)]
    chosen = np.concatenate([chosen, rest[: max(0, LEAST - len(chosen))]])
    found = []
    for row in chosen:
        file = io.BytesIO()
        Image.fromarray(np.asarray(packed.images[row])).save(file, "PNG")
        found.append(Example(str(packed.ids[row]), served.classes[packed.labels[row]], file.getvalue()))
    return tuple(found)


# What is asked, and what is said


async def _uploads(request: Request, settings: Settings) -> tuple[list[Upload], bool]:
    kind = request.headers.get("content-type", "")
    body = await request.body()
    read = partial(uploads, body, kind, most=settings.max_images, json=settings.json_limits)
    return await in_thread_if_large(len(body), read)


async def _decoded(found: Sequence[Upload], served: ModelVersion, settings: Settings) -> list[Decoded]:
    blobs = [blob for blob in found if isinstance(blob, bytes)]
    each = iter(await decode_images(blobs, size=served.image_size, max_pixels=settings.max_pixels))
    return [next(each) if isinstance(blob, bytes) else blob for blob in found]


def _whole(name: str, text: str | None, *, default: int, least: int, most: int) -> int:
    """A whole number of a query. Raises BadRequest."""
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and len(text) < 10 and least <= int(text) <= most):
        raise BadRequest(f"{name}: expected a whole number from {least} to {most:,}, received {text[:40]!r}")
    return int(text)


def _target(text: str, served: ModelVersion) -> int | None:
    """The class that is asked for, by name or else by number; None for the predicted one. Raises BadRequest."""
    if text == "predicted":
        return None
    if text in served.classes:
        return served.classes.index(text)
    if text.isascii() and text.isdigit() and len(text) < 10 and int(text) < len(served.classes):
        return int(text)
    raise BadRequest(f"target: expected predicted, or a class by its name or number, received {text[:40]!r}")


def _head(request: Request, served: ModelVersion) -> dict[str, Any]:
    return {"model": served.name, "version": served.version, "id": request.scope[CONTEXT].id.decode()}


def _promise(served: ModelVersion, *, calibrated: bool = True) -> dict[str, Any]:
    """How probabilities came about: a temperature of 1 leaves them as the model gave them, and is no calibration."""
    known = served.calibration
    temperature = known.temperature if calibrated else 1.0
    how = {"calibrated": temperature != 1, "temperature": temperature, "views": known.views}
    return {**how, "threshold": known.threshold, "risk": known.risk}


def _about(served: ModelVersion, *, int8: bool) -> dict[str, Any]:
    content: dict[str, Any] = {
        "name": served.name,
        "version": served.version,
        "classes": served.classes,
        "image_size": served.image_size,
        **_promise(served),
        "coverage": served.calibration.coverage,
        "precision": "int8" if int8 else "float32",
    }
    notes = [served.calibration.note] if served.calibration.note else []
    try:
        card = RunCard.load(served.run.card)
    except LucidateError:
        return {**content, "notes": ["the run's folder has gone since it was loaded", *notes]}
    return {
        **content,
        "architecture": card.model.name,
        "parameters": card.model.parameters,
        "dataset": card.data.dataset,
        "accuracy": accuracy_of(card, served.calibration.views, int8=int8),
        "results": card.results.model_dump(
            include={"val_accuracy", "test_accuracy", "val_accuracy_one_view", "test_accuracy_one_view"}
        ),
        "notes": [*card.notes, *notes],
    }


def accuracy_of(card: RunCard, views: Views, *, int8: bool) -> dict[str, Any]:
    """Of the graph that is served, with the views that it averages over; None where just another one was judged."""
    results, judged = card.results, card.recipe.predict.views
    if judged == "mirror" and not card.data.flips:
        judged = "one"  # the same answers
    number = {"one": 1, "mirror": 2, "mirror-shift": 6 if card.data.flips else 3}[views]
    validation = test = None
    if not int8 and views == judged:
        validation, test = results.val_accuracy, results.test_accuracy
    elif not int8 and views == "one":
        validation, test = results.val_accuracy_one_view, results.test_accuracy_one_view
    return {"validation": validation, "test": test, "views": views, "views_averaged": number}
