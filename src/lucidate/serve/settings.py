"""How the server behaves: from a TOML file, from LUCIDATE_SERVE_*, from the command line, the later winning; and which
models it serves, under which names. Quick to import, since most mistakes are made here.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, EnvSettingsSource, SettingsConfigDict, SettingsError

from lucidate.core.errors import ServeError
from lucidate.core.registry import choices
from lucidate.core.run import RunDir

PREFIX = "LUCIDATE_SERVE_"

ServedViews = Literal["one", "recipe"]


@dataclass(frozen=True)
class JsonLimits:
    """What one body may hold. values: numbers, texts, lists and objects, by the commas and brackets that part them."""

    bytes: int = 16_777_216
    values: int = 500_000


class Settings(BaseSettings):
    """All of them, with their defaults. Times are seconds, sizes bytes, unless their name says otherwise."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="forbid")

    # server
    host: str = "127.0.0.1"
    port: int = Field(8000, ge=0, le=65535, description="0: any that is free")
    keep_alive: int = Field(75, ge=1, description="an idle connection is kept; clients expect a minute")
    drain_seconds: float = Field(30.0, gt=0, description="from SIGTERM to the end, at most")
    grace_seconds: float = Field(1.0, ge=0, description="not ready but still answering, for balancers to notice")
    access_log: bool | None = Field(None, description="one JSON line a request; default: unless to a terminal")

    # inference
    threads: int | None = Field(None, ge=1, description="of one batch; default: one for a quick model, else all cores")
    queue_images: int = Field(512, ge=1, description="images waiting for a model; beyond: 429")
    # A processor computes eight images hardly faster together than one by one. With more in a batch, all clients wait
    # for it, and nobody reads their next requests meanwhile: of pixels by 16 connections, up to 32 gave 1,833 requests
    # a second, up to 8 2,408.
    max_batch: int = Field(8, ge=1, le=1024, description="images computed together")
    request_timeout: float = Field(30.0, gt=0, description="until computing begins, a second more to its end; then 504")

    views: ServedViews = Field("one", description="test-time views: one, or the recipe's, up to six times the work")
    int8: bool = Field(False, description="serve RUN/export/model.int8.onnx")

    # what is let in
    connections: int = Field(4096, ge=1, description="open at a time; beyond: 503, and closed")
    head_timeout: float = Field(10.0, gt=0, description="for a request's line and headers; then 408")
    head_bytes: int = Field(65_536, ge=1024, description="of a request's line and headers; beyond: 431")
    body_timeout: float = Field(10.0, gt=0, description="for a body, or 8 KiB/s of it, and again; then 408")
    body_bytes: int = Field(67_108_864, ge=1024, description="of a body, also unpacked; beyond: 413")
    json_bytes: int = Field(16_777_216, ge=1024, description="of JSON in a body; beyond: 413")
    json_values: int = Field(500_000, ge=1024, description="numbers, texts, lists in JSON; beyond: 413")
    bodies_bytes: int = Field(536_870_912, ge=1024, description="of all bodies held at a time; beyond: 429")
    max_images: int = Field(256, ge=1, description="in one request; beyond: 413")
    max_pixels: int = Field(16_777_216, ge=1, description="of one image, by its header; beyond: 413")
    explain_queue: int = Field(16, ge=1, description="images waiting for a heatmap; beyond: 429")
    api_keys: tuple[SecretStr, ...] = Field((), description="who may ask more than health, page, docs; empty: anybody")
    rate: float = Field(0.0, ge=0, description="requests a second of each key, or address; 0: as many as they like")
    burst: int = Field(20, ge=1, description="requests that may come at once after a rest, where there is a rate")

    # administration
    admin_keys: tuple[SecretStr, ...] = Field(
        (), description="who may load and unload; empty: programs here, where host is this machine's own"
    )

    @field_validator("api_keys", "admin_keys")
    @classmethod
    def _can_be_sent(cls, keys: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
        """Headers lose the spaces around them and hold no control characters: such a key would match nobody's."""
        for number, key in enumerate(keys, start=1):
            text = key.get_secret_value()
            if not text or text != text.strip() or not text.isprintable():
                came = f"received another as number {number}; no request could show it"
                raise ValueError(f"keys of printable characters without spaces around them, {came}")
        return keys

    @property
    def json_limits(self) -> JsonLimits:
        return JsonLimits(self.json_bytes, self.json_values)


def load_settings(file: Path | None = None, *, overrides: Mapping[str, Any] | None = None) -> Settings:
    """Settings of a TOML file, over them the environment's, over these `overrides`. Raises ServeError in one line."""
    try:
        values = tomllib.loads(file.read_text(encoding="utf-8")) if file else {}
    except OSError as error:
        raise ServeError(f"--settings: expected a TOML file, received {file} ({error.strerror})") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ServeError(f"--settings: expected TOML, received {file}, which does not parse: {error}") from None
    named = {f"{PREFIX}{name.upper()}": name for name in Settings.model_fields}
    for variable in os.environ:
        if variable.upper().startswith(PREFIX) and variable.upper() not in named:
            raise ServeError(f"{variable}: expected {choices(variable, list(named))}")
    try:
        others = {**EnvSettingsSource(Settings)(), **(overrides or {})}
        return Settings(**{**values, **others})
    except SettingsError as error:
        raise ServeError(f"{PREFIX}…: expected values as JSON, received others: {error}") from None
    except ValidationError as error:
        raise ServeError(_describe(error, f"{file}: " if file else "", others)) from None


def _describe(error: ValidationError, file: str, others: Mapping[str, Any]) -> str:
    """The first complaint, as one line; never the value, which may be a key."""
    first = error.errors(include_input=False)[0]
    name = str(first["loc"][0])
    where = "" if name in others else file
    if first["type"] == "extra_forbidden":
        return f"{where}unknown setting {name!r}; expected {choices(name, list(Settings.model_fields))}"
    return f"{where}{name}: expected {first['msg'].removeprefix('Input should be ').removeprefix('Value error, ')}"


NAME = re.compile(r"[A-Za-z0-9._-]{1,128}")  # of a model: it stands in addresses


def name_runs(arguments: Sequence[str]) -> dict[str, Path]:
    """Runs by the names they are served under: that of `NAME=RUN`, else the folder's, or a file's without its ending.

    Checks that they can be opened; loads nothing. Raises ServeError, RunError.
    """
    runs: dict[str, Path] = {}
    for argument in arguments:
        name, equals, path = argument.partition("=")
        if not equals or Path(argument).exists():  # a folder's own name may hold "="
            name, path = "", argument
        location = Path(path)
        whole = location.resolve()  # "." has no name
        name = name or (whole.name if whole.is_dir() else whole.stem)
        if not NAME.fullmatch(name) or ".." in name:
            expected = "a name of letters, digits, '.', '_' and '-'"
            raise ServeError(f"run: expected {expected}, received {name!r}; choose one as NAME=RUN")
        if name in runs:
            both = f"{name} for {runs[name]} and for {location}"
            raise ServeError(f"run: expected each name once, received {both}; rename one as NAME=RUN")
        if not location.is_file():
            RunDir.open(location)
        runs[name] = location
    return runs
