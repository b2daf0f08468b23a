"""What the server tells its operator: one JSON line each, by the logger "lucidate.serve"."""

from __future__ import annotations

import logging
import sys
import traceback
from datetime import UTC, datetime
from typing import Any

import orjson

logger = logging.getLogger("lucidate.serve")


class JsonLines(logging.Formatter):
    """time, level, message; the fields of a request; a traceback where there is one."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "message": record.getMessage(),
        }
        line |= getattr(record, "fields", {})
        if record.exc_info:
            line["traceback"] = "".join(traceback.format_exception(*record.exc_info))
        # What a client wrote may be no text at all; nothing of it ends a line.
        return orjson.dumps(line, default=str).decode()


def write_to_stderr() -> None:
    """Send the log, and what uvicorn has to say, to standard error. For the command line; twice is as once."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    for name, level in (("lucidate.serve", logging.INFO), ("uvicorn.error", logging.WARNING)):
        known = logging.getLogger(name)
        known.handlers = [handler]
        known.propagate = False
        known.setLevel(level)


def wanted(access_log: bool | None) -> bool:
    """Whether each request gets its line: as it was set, else where nobody sits before it."""
    return not sys.stderr.isatty() if access_log is None else access_log


def request_line(fields: dict[str, Any], *, failure: BaseException | None = None) -> None:
    """Tell of one request. fields: id, client, method, path, status, ms … failure: of ours, with its traceback."""
    level = logging.ERROR if failure else logging.INFO
    if logger.isEnabledFor(level):
        # `logger.info` would walk the stack for the caller's line, which is always this one.
        record = logging.LogRecord(logger.name, level, __file__, 0, "request", (), None)
        record.fields = fields
        if failure is not None:
            record.exc_info = (type(failure), failure, failure.__traceback__)
        logger.handle(record)
