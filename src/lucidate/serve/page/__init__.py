"""The page at `/`: static files, and a few of the run's own images to try it on. It asks nothing of other servers."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

from lucidate.serve.examples import example, examples

_HERE = Path(str(resources.files(__name__)))


def page_routes() -> list[BaseRoute]:
    """`/`, `/static/…` and `/v1/examples`."""
    return [
        Route("/", index, methods=["GET"]),
        Mount("/static", StaticFiles(directory=_HERE / "static")),
        Route("/v1/examples", examples, methods=["GET"]),
        Route("/v1/examples/{number:int}.png", example, methods=["GET"]),
    ]


async def index(request: Request) -> Response:  # noqa: ARG001
    """The page. Asked for anew each time, so that it fits the server that it came from."""
    return FileResponse(_HERE / "index.html", headers={"Cache-Control": "no-cache"})
