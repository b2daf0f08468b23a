"""What every route of the server may see."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from starlette.requests import Request

from lucidate.serve.metrics import Metrics
from lucidate.serve.settings import Settings
from lucidate.serve.stats import Recent

if TYPE_CHECKING:
    from lucidate.serve.repository import Repository


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
    metrics: Metrics
    life: Life = field(default_factory=Life)
    recent: Recent = field(default_factory=Recent)


def state_of(request: Request) -> State:
    """The server's state, as a route finds it."""
    state: State = request.app.state.lucidate
    return state
