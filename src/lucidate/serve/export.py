"""`python -m lucidate.serve.export RUN FILE VIEWS DIGEST`: a run's graph for the server, in a process of its own."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Literal

import numpy as np
import onnx
import torch

from lucidate.core.errors import LucidateError
from lucidate.core.records import RunCard
from lucidate.core.run import RunDir
from lucidate.export.onnx import export_onnx
from lucidate.export.torch_program import whole_of
from lucidate.models.session import open_session
from lucidate.serve.engine import INPUT, OUTPUT
from lucidate.serve.graph import MADE_OF

OPSET = 18
CLOSE = 1e-3  # of the largest logit: two runtimes sum in another order; a wrong operator is off by far more

OneView = Literal["one"] | None


def main() -> None:
    run, path, views, digest = RunDir(Path(sys.argv[1])), Path(sys.argv[2]), sys.argv[3], sys.argv[4]
    one: OneView = "one" if views == "one" else None
    try:
        content = traced(run, views=one)
        if content is None:
            export_onnx(run, path, views=one)
            content = path.read_bytes()
        path.write_bytes(noted(content, {MADE_OF: digest, "views": views}))
    except LucidateError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


def traced(run: RunDir, *, views: OneView) -> bytes | None:
    """A graph by torch's older exporter, ten times as quick as the newer; None where it cannot, or answers otherwise.

    It is on its way out of torch, and knows fewer operators: `lucidate export` uses the newer one, as we do then.
    """
    size = RunCard.load(run.card).data.image_size
    whole = whole_of(run, views=views)
    images = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (4, size, size, 3), dtype=np.uint8))
    file = io.BytesIO()
    try:
        with torch.inference_mode():
            expected = whole(images)[0].numpy()
            torch.onnx.export(
                whole,
                (images,),
                file,  # type: ignore[arg-type]  # documented for this exporter
                dynamo=False,
                opset_version=OPSET,
                input_names=[INPUT],
                output_names=[OUTPUT, "probabilities"],
                dynamic_axes={INPUT: {0: "batch"}, OUTPUT: {0: "batch"}, "probabilities": {0: "batch"}},
            )
        session = open_session(file.getvalue(), threads=1)
        for part in (slice(0, 4), slice(0, 1)):  # a batch that the tracer took for a constant shows here
            answered = session.run([OUTPUT], {INPUT: images[part].numpy()})[0]
            if not np.allclose(answered, expected[part], rtol=0, atol=CLOSE * max(1.0, float(np.abs(expected).max()))):
                return None
    except LucidateError:
        raise
    except Exception:  # an exporter meets whatever a model's code, or a newer torch, raises
        return None
    return file.getvalue()


def noted(content: bytes, notes: dict[str, str]) -> bytes:
    """The graph with notes of what it was made from, in the place of all that it said of itself."""
    model = onnx.load_model_from_string(content)
    del model.metadata_props[:]
    for key, value in notes.items():
        entry = model.metadata_props.add()
        entry.key, entry.value = key, value
    result: bytes = model.SerializeToString(deterministic=True)
    return result


if __name__ == "__main__":
    main()
