"""What a request can meet. Every one becomes the answer {"error": message} with its status.

RequestError            any status
├── BadRequest     400  what was sent cannot be meant
├── NotFound       404  no such model, version or path
├── Overloaded     429  more was asked than is let in; Retry-After says when to come again
├── NotReady       503  the server is starting, or about to end
└── Expired        504  not computed within the request's own time
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Self


class RequestError(Exception):
    """One request cannot be answered. message: one sentence, without anything of the server's inside."""

    default_status = 500

    def __init__(self, message: str, *, status: int | None = None, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.status = status or self.default_status
        self.headers: dict[str, str] = dict(headers or {})

    def anew(self) -> Self:
        """The same, to be raised where a frame goes on holding this one.

        An error knows the frames that it was raised through: one that is held by such a frame would keep it, and the
        request's body with it, until garbage is collected.
        """
        return copy.copy(self)


class BadRequest(RequestError):
    default_status = 400


class NotFound(RequestError):
    default_status = 404


class Overloaded(RequestError):
    """retry_after: whole seconds after which to come again."""

    default_status = 429

    def __init__(self, message: str, *, retry_after: int = 1) -> None:
        super().__init__(message, headers={"Retry-After": str(max(1, retry_after))})


class NotReady(RequestError):
    default_status = 503


class Expired(RequestError):
    default_status = 504
