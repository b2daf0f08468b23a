"""The page at `/`: static files, and a few of the run's validation images to try it on, where they are packed here.

It asks nothing of other servers.
"""

from __future__ import annotations

import asyncio
import io
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from urllib.parse import quote
from weakref import WeakKeyDictionary

import numpy as np
from PIL import Image
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.staticfiles import StaticFiles

from lucidate.core.errors import LucidateError
from lucidate.core.records import RunCard
from lucidate.core.run import RunDir
from lucidate.serve.calibration import validation_images
from lucidate.serve.errors import NotFound
from lucidate.serve.repository import ModelVersion
from lucidate.serve.state import json_response, state_of

FILES = Path(str(resources.files("lucidate.serve"))) / "page"
STATIC = StaticFiles(directory=FILES / "static")
LEAST, MOST = 6, 10  # what a page shows in a row; a server is no way to copy a data set


@dataclass(frozen=True)
class Example:
    """id: of the image in its data set. label: what it is known to show. png: its file."""

    id: str
    label: str
    png: bytes


async def index(request: Request) -> Response:  # noqa: ARG001
    """The page. Asked for anew each time, so that it fits the server that it came from."""
    return FileResponse(FILES / "index.html", headers={"Cache-Control": "no-cache"})


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
        _known[served] = await asyncio.to_thread(examples_of_run, served.run)
    return _known[served]


def examples_of_run(run: RunDir, *, seed: int = 0) -> tuple[Example, ...]:
    """Six to ten validation images, one a class as far as there are as many, in their order; empty without any."""
    try:
        card = RunCard.load(run.card)
    except LucidateError:
        return ()
    if (found := validation_images(run, card)) is None:
        return ()
    packed, rows = found
    mixed = np.random.default_rng(seed).permutation(rows)
    _, firsts = np.unique(packed.labels[mixed], return_index=True)
    first_of_each = mixed[firsts]  # of each class, in their order
    rest = mixed[~np.isin(mixed, first_of_each)]
    chosen = first_of_each[np.linspace(0, len(first_of_each) - 1, min(MOST, len(first_of_each))).astype(np.int64)]
    chosen = np.concatenate([chosen, rest[: max(0, LEAST - len(chosen))]])
    return tuple(
        Example(str(packed.ids[row]), card.classes[packed.labels[row]], _png(packed.images[row])) for row in chosen
    )


def _png(pixels: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.asarray(pixels)).save(file, "PNG")
    return file.getvalue()
