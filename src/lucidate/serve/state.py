"""What every route of the server may see, and the form of its answers."""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass, field

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Scope

from lucidate.serve.monitoring import Metrics, Recent
from lucidate.serve.repository import Repository
from lucidate.serve.settings import Settings

CONTEXT = "lucidate.context"  # in a scope: its RequestContext
OPEN = ("/v2/health/", "/healthz", "/readyz", "/static/", "/docs", "/openapi.json", "/favicon.ico")  # to anybody
SANE_ID = re.compile(rb"[A-Za-z0-9._:-]{1,128}")


@dataclass
class Life:
    """How far the server is.

    ready: answers are to be had. draining: it is about to end, and says that it is not ready. closing: it takes no
    connection any more, and gives those it has up with their next answer.
    """

    ready: bool = False
    draining: bool = False
    closing: bool = False


@dataclass(frozen=True)
class State:
    """Stands at `app.state.lucidate`."""

    settings: Settings
    repository: Repository
    life: Life
    metrics: Metrics = field(default_factory=Metrics)
    recent: Recent = field(default_factory=Recent)


def state_of(request: Request) -> State:
    """The server's state, as a route finds it."""
    state: State = request.app.state.lucidate
    return state


def json_response(content: object) -> Response:
    """An answer in JSON, of arrays and dataclasses too."""
    return Response(orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY), media_type="application/json")


class RequestContext:
    """What is known of a request.

    id: its own X-Request-ID, else one that is made for it. open: whether anybody may ask it. status: of its answer, 0
    before that begins. body_bytes: that were read of it.
    """

    __slots__ = ("body_bytes", "failure", "headers", "id", "open", "status")

    def __init__(self, scope: Scope) -> None:
        self.headers: dict[bytes, bytes] = dict(scope["headers"])
        shown = self.headers.get(b"x-request-id", b"")
        self.id = shown if SANE_ID.fullmatch(shown) else secrets.token_hex(8).encode()
        self.open: bool = scope["path"] == "/" or scope["path"].startswith(OPEN)
        self.status = 0
        self.body_bytes = 0
        self.failure: Exception | None = None
