"""The command `lucidate`: verbs gathered, mistakes turned into one line."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Annotated, NoReturn

import typer

import lucidate
from lucidate.cli import analyze, catalog, compare, explain, export, predict, run, serve, studies
from lucidate.cli.process import tune_process
from lucidate.core.errors import LucidateError
from lucidate.core.machine import processes
from lucidate.core.text import plain

# Typer ships with click, or with its own copy of it, depending on its version; its public names lead to either.
UsageError: type[Exception] = typer.BadParameter.__base__  # type: ignore[assignment]

app = typer.Typer(
    name="lucidate",
    help="Train image classifiers, and see where and why they err.\n\n"
    "Example: lucidate demo, then: lucidate run compact --data FOLDER_OF_IMAGES",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for verb in (
    *(run.demo, run.run, run.train, predict.predict, predict.embed),
    *(analyze.analyze, analyze.gallery, analyze.report, compare.compare, explain.explain),
    *(export.export, export.quantize, studies.distill, studies.ensemble, studies.levels),
    *(catalog.runs, serve.serve, catalog.models),
):
    app.command()(verb)
app.add_typer(catalog.data, name="data")


def _version(wanted: bool) -> None:
    if wanted:
        print(f"lucidate {lucidate.__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Options that every verb takes; `main` acts on --debug before the arguments are parsed."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command and exit: 0 done, 2 a mistake by the user, 130 interrupted."""
    tune_process()
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in words
    try:
        status = app(args=[word for word in words if word != "--debug"], standalone_mode=False)
    except (LucidateError, UsageError, OSError) as error:
        if debug:
            raise
        if message := in_words(error):  # none where a group was called without a verb, and its help has been shown
            print(f"error: {plain(message)}", file=sys.stderr)
        leave(getattr(error, "status", 2))
    except (KeyboardInterrupt, typer.Abort):
        print("interrupted", file=sys.stderr)
        leave(130)
    if status == 130:  # Typer has met the interrupt before us, and says nothing
        print("interrupted", file=sys.stderr)
    leave(status if isinstance(status, int) else 0)


def in_words(error: Exception) -> str:
    """An error as one line; the system's without its number."""
    if isinstance(error, OSError) and not isinstance(error, LucidateError) and error.strerror:
        what = f"{error.filename}: expected to read or write it" if error.filename else "expected to read or write"
        return f"{what}, received: {error.strerror}"
    message = error.format_message() if hasattr(error, "format_message") else str(error)
    return " ".join(message.split())


def leave(status: int) -> NoReturn:
    """End the process."""
    if processes()[1] > 1:
        # Threads that served the other processes can keep the interpreter from ending: everything is written by now.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)
