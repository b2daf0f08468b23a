"""What /openapi.json says of the routes for people. The answers' forms stand here and nowhere else."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class Answer(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Error(Answer):
    """What is wrong, in one sentence."""

    error: str


class Probability(Answer):
    """A class and its probability."""

    label: str
    index: int = Field(ge=0)
    probability: float = Field(ge=0, le=1)


class Prediction(Answer):
    """Classes, the likeliest first. entropy: nats. abstain: too unsure to keep the risk; null where that is unknown."""

    classes: list[Probability]
    entropy: float = Field(ge=0)
    abstain: bool | None


class Promise(Answer):
    """threshold: of calibrated confidence, below which to abstain. risk: share of other answers that may be wrong.

    calibrated: whether logits were divided by a temperature that validation images gave, rather than by 1. views: the
    test-time views of an image that its answer is the mean of.
    """

    calibrated: bool
    temperature: float
    views: str
    threshold: float | None
    risk: float


class Predictions(Promise):
    """Of each image of a request, in their order. id: of the request, also in X-Request-ID."""

    model: str
    version: str
    id: str
    predictions: list[Prediction | Error]


class Target(Answer):
    """The class that is explained."""

    label: str
    index: int


class Explanation(Promise):
    """heatmap: a PNG in base64, the image with the map over it. map: rows of the map in its layer's own grid."""

    model: str
    version: str
    id: str
    prediction: Prediction
    method: str
    layer: str
    target: Target
    heatmap: str
    map: list[list[float]]
    trust: dict[str, Any] = Field(description="verdict, and the figures behind it where they were measured")


class Accuracy(Answer):
    """Of the graph that is served, 0 to 1; null where only another was judged: with other views, or not in int8."""

    validation: float | None
    test: float | None
    views: str
    views_averaged: int = Field(ge=1)


class Model(BaseModel):
    """A model that is served. results: of its run, by the views that its recipe asks for, or by one."""

    name: str
    version: str
    classes: list[str]
    image_size: int
    threshold: float | None
    risk: float
    calibrated: bool
    temperature: float
    coverage: float | None
    views: str
    precision: str
    architecture: str | None = None
    parameters: int | None = None
    dataset: str | None = None
    accuracy: Accuracy | None = None
    results: dict[str, float | None] | None = None
    notes: list[str]


class Latency(Answer):
    """Milliseconds; null where nothing was asked."""

    p50: float | None
    p99: float | None


class ModelLive(Answer):
    """queue: images admitted and not yet answered, of capacity. drift: by signal."""

    name: str
    version: str
    queue: int
    capacity: int
    drift: dict[str, Any]


class Live(Answer):
    """The last minute of predictions, by either protocol."""

    requests_per_second: float
    latency_ms: Latency
    models: list[ModelLive]


ERRORS: dict[int | str, dict[str, Any]] = {
    400: {"model": Error, "description": "No image that can be read, or a parameter that cannot be meant"},
    401: {"model": Error, "description": "No known key, where keys are asked for"},
    404: {"model": Error, "description": "No such model or version"},
    408: {"model": Error, "description": "The body did not come in time"},
    413: {"model": Error, "description": "More bytes, pixels or images than are taken"},
    415: {"model": Error, "description": "A format that is not read"},
    429: {"model": Error, "description": "Too many wait; Retry-After says when to come again"},
    500: {"model": Error, "description": "Something went wrong here"},
    503: {"model": Error, "description": "The model is being loaded, or the server is about to end"},
    504: {"model": Error, "description": "Not computed in time"},
}
MODEL_QUERY = [
    {"name": "model", "in": "query", "description": "default: the first that is served", "schema": {"type": "string"}},
    {"name": "version", "in": "query", "description": "default: the current one", "schema": {"type": "string"}},
]
BINARY = {"schema": {"type": "string", "format": "binary"}, "description": "an encoded image, any size"}
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGNgYGAAAAAEAAH2FzhVAAAAAElFTkSuQmCC"  # 1×1, black
ONE = {
    "type": "object",
    "properties": {"image": {"type": "string", "format": "byte", "description": "base64, or a data URL"}},
    "required": ["image"],
    "additionalProperties": False,
}
SEVERAL = {
    "type": "object",
    "properties": {"images": {"type": "array", "items": {"type": "string", "format": "byte"}, "minItems": 1}},
    "required": ["images"],
    "additionalProperties": False,
}
FORM = {
    "type": "object",
    "properties": {
        "image": {"type": "string", "format": "binary", "description": "any field names; files alone count"}
    },
    "required": ["image"],
}


def _body(schema: dict[str, Any], examples: dict[str, Any]) -> dict[str, Any]:
    kinds = ("image/png", "image/jpeg", "image/webp", "application/octet-stream")
    content: dict[str, Any] = {kind: {"schema": {"type": "string", "format": "binary"}} for kind in kinds}
    content["multipart/form-data"] = {"schema": FORM}
    content["application/json"] = {"schema": schema, "examples": examples}
    return {"required": True, "description": "Raw bytes of an image, a form's files, or base64.", "content": content}


PREDICT: dict[str, Any] = {
    "summary": "What is on one image, or on several",
    "response_model": Predictions,
    "responses": ERRORS,
    "openapi_extra": {
        "parameters": [
            *MODEL_QUERY,
            {
                "name": "top",
                "in": "query",
                "description": "classes to name",
                "schema": {"type": "integer", "minimum": 1, "maximum": 1_000_000, "default": 3},
            },
            {
                "name": "calibrated",
                "in": "query",
                "description": "false: probabilities of the logits as they are; abstaining goes by calibrated ones",
                "schema": {"type": "boolean", "default": True},
            },
        ],
        "requestBody": _body(
            {"oneOf": [ONE, SEVERAL]},
            {"one": {"value": {"image": PIXEL}}, "several": {"value": {"images": [PIXEL, PIXEL]}}},
        ),
    },
}
EXPLAIN: dict[str, Any] = {
    "summary": "What in an image spoke for its class",
    "response_model": Explanation,
    "responses": {
        **ERRORS,
        200: {
            "model": Explanation,
            "description": "The picture alone where Accept asks for image/png",
            "content": {"image/png": {}},
        },
    },
    "openapi_extra": {
        "parameters": [
            *MODEL_QUERY,
            {
                "name": "method",
                "in": "query",
                "description": "rollout suits vision transformers alone",
                "schema": {
                    "type": "string",
                    "default": "gradcam",
                    "enum": [
                        "gradcam",
                        "hirescam",
                        "layercam",
                        "gradcam++",
                        "eigencam",
                        "rollout",
                        "integrated-gradients",
                        "occlusion",
                    ],
                },
            },
            {
                "name": "target",
                "in": "query",
                "description": "predicted, or a class by its name or number",
                "schema": {"type": "string", "default": "predicted"},
            },
            {
                "name": "side",
                "in": "query",
                "description": "pixels of the picture; default: as the model sees the image",
                "schema": {"type": "integer", "minimum": 8, "maximum": 1024},
            },
        ],
        "requestBody": _body(ONE, {"one": {"value": {"image": PIXEL}}}),
    },
}
MODELS: dict[str, Any] = {"summary": "What is served", "response_model": list[Model], "responses": {401: ERRORS[401]}}
LIVE: dict[str, Any] = {
    "summary": "How the server has done for the last minute",
    "response_model": Live,
    "responses": {401: ERRORS[401]},
}
