"""What a model makes of images: `lucidate predict`, `lucidate embed`."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, Option

from lucidate.cli import console, stages
from lucidate.cli.console import Device, Json, RunArgument, Split
from lucidate.core.errors import LucidateError
from lucidate.core.progress import Reporter
from lucidate.core.records import RunCard, slug
from lucidate.core.registry import EXTERNAL, TIMM, choices
from lucidate.core.run import RunDir
from lucidate.data.splits import source_of

if TYPE_CHECKING:
    from lucidate.models.onnx_session import OnnxPredictor

Files = Annotated[list[Path] | None, Argument(metavar="IMAGE…", help="Image files to name the classes of.")]
Data = Annotated[str | None, Option(metavar="SRC", help="Other images than the run's own.")]
OUT = "With --data: where they go, .parquet with logits or .csv with probabilities. (default: predictions-NAME.parquet)"
Out = Annotated[Path | None, Option(metavar="FILE", help=OUT)]
CALIBRATED = "Divide logits by the temperature that fits validation; for files and CSV."
Calibrated = Annotated[bool, Option("--calibrated", help=CALIBRATED)]
BackendName = Annotated[
    str, Option("--backend", metavar="BACKEND", help="torch, onnx or onnx-int8 (after: lucidate quantize RUN).")
]

Model = Annotated[
    str, Argument(metavar="RUN|MODEL", help="A run folder, or a pretrained network such as timm:resnet50.")
]
EmbedSource = Annotated[
    str | None, Option(metavar="SRC", help="digits, cifar10, or a path to images. (default: the run's own)")
]
EmbedFile = Annotated[
    Path | None, Option(metavar="FILE", help="Write them here as well: .parquet with ids, or .npy of numbers.")
]
EmbedSize = Annotated[
    int | None, Option(metavar="PIXELS", min=16, max=512, help="A pretrained network's side. (default: its own)")
]


def predict(
    run: RunArgument,
    files: Files = None,
    data: Data = None,
    out: Out = None,
    split: Split = "test",
    backend: BackendName = "torch",
    calibrated: Calibrated = False,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Predict a split of a run's own images, other images, or single files.

    Examples: lucidate predict runs/compact --split validation;
    lucidate predict models/cifar10-fastnet cat.jpg dog.png;
    lucidate predict models/cifar10-fastnet --data photos/ --out photos.csv --calibrated;
    lucidate predict models/cifar10-fastnet --data photos/ --backend onnx
    """
    start = time.perf_counter()
    folder = stages.open_run(run)
    if files and (data or out):
        raise LucidateError("predict: expected image files or --data, received both")
    if out and not data:
        raise LucidateError("--out: expected only with --data; a run's own predictions go into the run")
    if calibrated and not files and not (out and out.suffix.lower() == ".csv"):
        raise LucidateError(
            "--calibrated: expected image files, or --out FILE.csv: a table of predictions holds logits"
        )
    require_backend(backend, device)
    from lucidate.predict.infer import Stopwatch
    from lucidate.predict.new_data import require_kind, save_table

    if out:
        require_kind(out)

    watch = Stopwatch()
    with console.reporter() as reporter:
        engine = ready_backend(backend, folder, reporter)
    chosen = "cpu" if engine else stages.pick_device(device)  # which loads torch
    shown, words = how_shown(folder, engine, calibrated=calibrated)
    if files:
        from lucidate.predict.new_data import predict_files

        answers = predict_files(folder, files, device=chosen, predictor=engine, temperature=shown["temperature"])
        lines = []
        for answer in answers:
            likeliest = zip(answer.classes, answer.probabilities, strict=True)
            lines.append("  ".join([str(answer.path), *(f"{name} {share:.1%}" for name, share in likeliest)]))
        way_on = "" if calibrated else "; --calibrated divides logits by the temperature that fits validation"
        lines.append(f"probabilities: {words}{way_on}")
        console.emit({"run": str(folder.path), "images": answers, **shown}, lines, as_json=json)
        return
    with console.reporter() as reporter:
        if data:
            from lucidate.predict.new_data import predict_source

            predictions = predict_source(
                folder, data, split=split, device=chosen, reporter=reporter, predictor=engine, watch=watch
            )
            path = out or Path(f"predictions-{slug(predictions.dataset)}.parquet")
            save_table(predictions, path, temperature=shown["temperature"])
        else:
            from lucidate.predict.backends import predictions_path
            from lucidate.predict.infer import predict_run

            with folder.lock():
                predictions = predict_run(
                    folder, split, backend=backend, predictor=engine, device=chosen, reporter=reporter, watch=watch
                )
            path = predictions_path(folder, split, backend)
    rate, seconds = watch.rate(len(predictions)), time.perf_counter() - start
    views = words.partition(",")[0]
    text = (
        f"{predictions.split} accuracy {predictions.accuracy:.4f} ({views}) on {len(predictions):,} images; "
        f"{rate:,.0f} images/s by {backend}, {seconds:.1f} s in all\n{path}"
    )
    result = {"run": str(run), "split": predictions.split, "predictions": str(path), "backend": backend, **shown}
    result |= {"images": len(predictions), "accuracy": predictions.accuracy}
    console.emit({**result, "images_per_second": rate, "seconds": seconds}, text, as_json=json)


def how_shown(folder: RunDir, engine: OnnxPredictor | None, *, calibrated: bool) -> tuple[dict[str, Any], str]:
    """What the numbers are, as `--json` has it and in words: views that are averaged, the probabilities' temperature.

    Raises LucidateError where a calibration is asked for that the run has no validation answers to make of.
    """
    views = engine.views if engine else RunCard.load(folder.card).recipe.predict.views
    temperature, how = 1.0, "not calibrated"
    if calibrated:
        from lucidate.serve.calibration import calibration_of_run

        found = calibration_of_run(folder, views="recipe" if views not in ("one", "mirror", "mirror-shift") else views)
        if not found.calibrated:
            raise LucidateError(
                f"--calibrated: expected validation predictions of {folder.path} to fit a temperature on, "
                f"received none; make them with: lucidate predict {folder.path} --split validation"
            )
        temperature, how = found.temperature, f"calibrated (temperature {found.temperature:.3g})"
    named = {"one": "one view an image", "members": "each member's own views"}
    shown = {"views": views, "calibrated": calibrated, "temperature": temperature}
    return shown, f"{named.get(views, f'{views} views')}, {how}"


def require_backend(name: str, device: str) -> None:
    """Raise LucidateError for a backend that there is not, or one that does not compute on the device."""
    from lucidate.predict.backends import BACKENDS

    if name not in BACKENDS:
        raise LucidateError(f"--backend: expected {choices(name, list(BACKENDS))}, received {name!r}")
    if name != "torch" and device not in ("auto", "cpu"):
        raise LucidateError(f"--device: expected cpu with --backend {name}, received {device!r}")


def ready_backend(name: str, folder: RunDir, reporter: Reporter) -> OnnxPredictor | None:
    """What answers in place of torch; None: torch. A float graph that is missing or out of date is exported first."""
    if name == "torch":
        return None
    from lucidate.predict.backends import find_graph, graph_path, open_graph, views_inside

    card = RunCard.load(folder.card)
    if card.recipe.model.name in EXTERNAL:
        raise LucidateError(f"--backend: expected torch, which asks the file {card.model.name} itself, received {name}")
    path, graph = graph_path(folder, name), find_graph(name, folder)
    if graph is None and name == "onnx":
        from lucidate.export.exporter import export_run

        reporter.say(f"{path}: {'made from other weights' if path.exists() else 'not there yet'}; exporting it first")
        with folder.lock():
            export_run(folder, "onnx", reporter=reporter)
    graph = graph or open_graph(name, folder)
    if graph.views != (asked := views_inside(card)):
        reporter.say(f"{path}: answers with views {graph.views!r}, where the recipe asks for {asked!r}")
    return graph


def embed(
    model: Model,
    data: EmbedSource = None,
    out: EmbedFile = None,
    size: EmbedSize = None,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Compute what a network's last layer sees of each image: float16, kept by id, reused when asked for again.

    Example: lucidate embed timm:tf_efficientnet_lite0 --data photos/ --size 96 --out embeddings.npy
    """
    from lucidate.export import embedder as models
    from lucidate.predict import embed as embedding
    from lucidate.predict.new_data import require_kind

    if out is not None:
        require_kind(out, embedding.KINDS)
    held: AbstractContextManager[None] = nullcontext()
    where = partial(stages.pick_device, device)
    if device not in ("auto", "cpu"):
        where()  # a mistake is told before weights are fetched and images packed
    with console.reporter() as reporter:
        if model.startswith(TIMM):
            if data is None:
                raise LucidateError("--data: expected the images to embed, received none")
            chosen, source = models.of_pretrained(model, size=size, device=where), data
        else:
            if size is not None:
                raise LucidateError(f"--size: expected only with a pretrained network ({TIMM}NAME), received a run")
            run = stages.open_run(Path(model))
            chosen, source = models.of_run(run, device=where), data or source_of(RunCard.load(run.card))
            held = run.lock()
        with held:
            file = embedding.embed_source(chosen, source, reporter=reporter)
    if out is not None:
        embedding.save_copy(file.path, out)
    shown = out or file.path
    how = "computed before" if file.reused else f"{file.images_per_second:,.0f} images/s, {file.backend}"
    text = f"{file.images:,} embeddings of {file.dimension:,} numbers ({how})\n{shown}"
    console.emit({**asdict(file), "path": str(shown)}, text, as_json=json)
