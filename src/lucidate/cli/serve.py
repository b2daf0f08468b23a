"""`lucidate serve`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, Option

from lucidate.cli import console
from lucidate.cli.console import Json
from lucidate.cli.process import tune_server
from lucidate.core.errors import ServeError
from lucidate.core.recipe import apply_override

if TYPE_CHECKING:
    from lucidate.serve.repository import Repository

Runs = Annotated[
    list[str], Argument(metavar="RUN", help="Run folders, or exported models; NAME=RUN serves one under another name.")
]
Port = Annotated[int | None, Option(metavar="PORT", help="0 takes any that is free. (default: 8000)")]
Host = Annotated[
    str | None,
    Option(metavar="ADDRESS", help="0.0.0.0 lets other machines in. (default: 127.0.0.1, this machine alone)"),
]
Views = Annotated[
    str | None,
    Option(metavar="VIEWS", help="one, or recipe: the test-time views of its recipe, more exact and slower."),
]
Int8 = Annotated[bool, Option("--int8", help="Serve the quantized model that lucidate quantize has made.")]
SettingsFile = Annotated[
    Path | None,
    Option("--settings", metavar="FILE", help="TOML with settings; LUCIDATE_SERVE_NAME in the environment wins."),
]
Set = Annotated[
    list[str] | None, Option("--set", metavar="KEY=VALUE", help="One setting; wins over all; may be repeated.")
]


def serve(
    runs: Runs,
    port: Port = None,
    host: Host = None,
    views: Views = None,
    int8: Int8 = False,
    settings: SettingsFile = None,
    set_: Set = None,
    json: Json = False,
) -> None:
    """Serve models over HTTP: a page to try them, an API for people, the Open Inference Protocol for machines.

    Examples: lucidate serve models/cifar10-fastnet; lucidate serve old=runs/a new=runs/b --port 9000 --set max_batch=16
    """
    from lucidate.serve.settings import load_settings, name_runs

    named: dict[str, Any] = {"port": port, "host": host, "views": views, "int8": int8 or None}
    overrides = {**_assignments(set_ or []), **{name: value for name, value in named.items() if value is not None}}
    chosen = load_settings(settings, overrides=overrides)
    models = name_runs(runs)
    tune_server()

    from lucidate.serve.monitoring import write_to_stderr
    from lucidate.serve.server import serve as run

    write_to_stderr()

    def announce(url: str, repository: Repository) -> None:
        lines = [f"serving {', '.join(repository.names)}", f"page {url}   documentation {url}/docs   Ctrl-C ends it"]
        console.emit({"url": url, "models": list(repository.names)}, "\n".join(lines), as_json=json)

    run(chosen, models, announce=announce)
    if not json:
        print("ended; every admitted request was answered", file=sys.stderr)


def _assignments(texts: list[str]) -> dict[str, Any]:
    """KEY=VALUE as settings: VALUE is TOML where it is, else a text."""
    values: dict[str, Any] = {}
    for text in texts:
        key, equals, _ = text.partition("=")
        if not equals or not key.strip():
            raise ServeError(f"--set: expected KEY=VALUE such as max_batch=16, received {text!r}")
        apply_override(values, text)
    return values
