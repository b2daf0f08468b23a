"""`python -m lucidate.serve.export RUN FILE VIEWS DIGEST`: a run's graph for the server, in a process of its own."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Literal

from lucidate.core.errors import LucidateError
from lucidate.core.run import RunDir
from lucidate.export.onnx import export_onnx, quick_graph, with_metadata
from lucidate.predict.backends import WEIGHTS_KEY

OneView = Literal["one"] | None


def main() -> None:
    run, path, views, digest = RunDir(Path(sys.argv[1])), Path(sys.argv[2]), sys.argv[3], sys.argv[4]
    one: OneView = "one" if views == "one" else None
    try:
        content = quick_graph(run, views=one)
        if content is None:
            export_onnx(run, path, views=one)
            content = path.read_bytes()
        path.write_bytes(with_metadata(content, {WEIGHTS_KEY: digest, "views": views}, keep=False))
    except LucidateError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
