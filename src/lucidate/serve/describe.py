"""What a model says of itself in the Open Inference Protocol: metadata, configuration, statistics."""

from __future__ import annotations

from typing import Any

from lucidate import __version__
from lucidate.serve.engine import INPUT, Duration
from lucidate.serve.model_version import ModelVersion

PROBABILITIES, LOGITS = "probabilities", "logits"
PLATFORM = "onnxruntime_onnx"
EXTENSIONS = (
    "binary_tensor_data",
    "classification",
    "model_configuration",
    "model_repository",
    "model_repository(unload_dependents)",
    "parameters",
    "statistics",
)


def server_metadata() -> dict[str, Any]:
    return {"name": "lucidate", "version": __version__, "extensions": list(EXTENSIONS)}


def model_metadata(served: ModelVersion) -> dict[str, Any]:
    """One input and one output, as clients that look them up expect. -1: any number of images."""
    size = served.image_size
    return {
        "name": served.name,
        "versions": [served.version],
        "platform": PLATFORM,
        "inputs": [{"name": INPUT, "datatype": "UINT8", "shape": [-1, size, size, 3]}],
        "outputs": [{"name": PROBABILITIES, "datatype": "FP32", "shape": [-1, len(served.classes)]}],
    }


def model_config(served: ModelVersion, *, most_images: int) -> dict[str, Any]:
    """Triton's form of it. Dimensions are of one image. most_images: in one request."""
    size = served.image_size
    return {
        "name": served.name,
        "platform": PLATFORM,
        "backend": "onnxruntime",
        "version_policy": {"latest": {"num_versions": 1}},
        "max_batch_size": most_images,
        "input": [{"name": INPUT, "data_type": "TYPE_UINT8", "format": "FORMAT_NHWC", "dims": [size, size, 3]}],
        "output": [
            {
                "name": PROBABILITIES,
                "data_type": "TYPE_FP32",
                "dims": [len(served.classes)],
                "label_filename": "labels.txt",
            }
        ],
        "dynamic_batching": {"max_queue_delay_microseconds": 0},
        "parameters": {
            "input": {"string_value": "RGB, 0 to 255; also FP32 of the same range, or BYTES: encoded images, any size"},
            "output": {"string_value": f"{_how(served)}; {LOGITS} where they are asked for by name"},
            "calibrated": {"string_value": "true" if served.temperature() != 1 else "false"},
            "temperature": {"string_value": f"{served.temperature():.9g}"},
            "views": {"string_value": served.calibration.views},
            "classes": {"string_value": "\n".join(served.classes)},
        },
    }


def _how(served: ModelVersion) -> str:
    temperature = served.temperature()
    return "not calibrated" if temperature == 1 else f"calibrated: softmax of logits / {temperature:.6g}"


def model_statistics(served: ModelVersion) -> dict[str, Any]:
    """Since the version was loaded. Durations are nanoseconds of requests, but in batch_stats of executions."""
    known = served.engine.statistics
    nothing = Duration()
    return {
        "name": served.name,
        "version": served.version,
        "last_inference": known.last_inference,
        "inference_count": known.images,
        "execution_count": known.executions,
        "inference_stats": {
            "success": _duration(known.success),
            "fail": _duration(known.fail),
            "queue": _duration(known.queue),
            "compute_input": _duration(known.compute_input),
            "compute_infer": _duration(known.compute_infer),
            "compute_output": _duration(known.compute_output),
            "cache_hit": _duration(nothing),
            "cache_miss": _duration(nothing),
        },
        "batch_stats": [
            {
                "batch_size": size,
                "compute_input": _duration(taken),
                "compute_infer": _duration(computed),
                "compute_output": _duration(given),
            }
            for size, (taken, computed, given) in sorted(known.batches.items())
        ],
    }


def _duration(value: Duration) -> dict[str, int]:
    return {"count": value.count, "ns": value.ns}
