"""What is asked and answered, as /openapi.json says it. These forms stand here and nowhere else."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.json_schema import models_json_schema

from lucidate.serve.tensors import HEADER_LENGTH


def _without_default(schema: dict[str, Any]) -> None:
    schema.pop("default", None)


ABSENT: Any = Field(None, json_schema_extra=_without_default)  # may be left out, but is never null


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


class Model(Promise):
    """A model that is served. results: of its run, by the views that its recipe asks for, or by one."""

    name: str
    version: str
    classes: list[str]
    image_size: int
    coverage: float | None
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


# /v2


class OutputTensor(BaseModel):
    """An output, in JSON or as bytes behind it."""

    name: str
    datatype: Literal["FP32", "BYTES"]
    shape: list[int]
    data: list[Any] = ABSENT
    parameters: dict[str, Any] = ABSENT


class InferAnswer(BaseModel):
    """id: the request's own, where it had one."""

    model_name: str
    model_version: str
    id: str = ABSENT
    outputs: list[OutputTensor]


class InputTensor(BaseModel):
    """Images."""

    name: Literal["images"]
    datatype: Literal["UINT8", "FP32", "BYTES"]
    shape: list[int] = Field(description="[n, S, S, 3]; of BYTES [n]")
    parameters: dict[str, Any] = ABSENT
    data: list[Any] = Field(
        default_factory=list,
        description="numbers from 0 to 255, flat or nested; of BYTES, base64",
        json_schema_extra=_without_default,
    )


class RequestedOutput(BaseModel):
    """An output that is asked for."""

    name: Literal["probabilities", "logits"]
    parameters: dict[str, Any] = ABSENT


class InferRequest(BaseModel):
    """One input; without outputs, the probabilities."""

    id: str = ABSENT
    parameters: dict[str, Any] = ABSENT
    inputs: list[InputTensor] = Field(min_length=1, max_length=1)
    outputs: list[RequestedOutput] = ABSENT


# Images, and what stands in a query


class OneImage(Answer):
    """An image in JSON."""

    image: Annotated[str, Field(json_schema_extra={"format": "byte"})] = Field(description="base64, or a data URL")


class SeveralImages(Answer):
    """Images in JSON."""

    images: list[Annotated[str, Field(json_schema_extra={"format": "byte"})]] = Field(min_length=1)


class ImageForm(BaseModel):
    """Files of a form."""

    image: str = Field(description="any field names; files alone count", json_schema_extra={"format": "binary"})


# In the form of /openapi.json

Responses = dict[int | str, dict[str, Any]]
REF = "#/components/schemas/{model}"
BYTES: dict[str, Any] = {"schema": {"type": "string", "format": "binary"}}
IMAGES = ("image/png", "image/jpeg", "image/webp", "application/octet-stream")
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGNgYGAAAAAEAAH2FzhVAAAAAElFTkSuQmCC"  # 1×1, black
ONE = {"one": {"value": {"image": PIXEL}}}
SEVERAL = {"several": {"value": {"images": [PIXEL, PIXEL]}}}
ERRORS: Responses = {
    status: {"model": Error, "description": text}
    for status, text in {
        400: "No image that can be read, or a parameter that cannot be meant",
        401: "No known key, where keys are asked for",
        404: "No such model or version",
        408: "The body did not come in time",
        413: "More bytes, pixels or images than are taken",
        415: "A format that is not read",
        429: "Too many wait; Retry-After says when to come again",
        500: "Something went wrong here",
        503: "The model is being loaded, or the server is about to end",
        504: "Not computed in time",
    }.items()
}
NO_KEY: Responses = {401: ERRORS[401]}
EITHER: Responses = {status: {"model": Error, "description": "What is wrong"} for status in ("4XX", "5XX")}


def _ref(model: type[BaseModel]) -> dict[str, str]:
    return {"$ref": REF.format(model=model.__name__)}


def images_body(*forms: type[BaseModel], examples: dict[str, Any]) -> dict[str, Any]:
    """Raw bytes, a form, or JSON of one of some forms."""
    refs = [_ref(form) for form in forms]
    content: dict[str, Any] = dict.fromkeys(IMAGES, BYTES)
    content["multipart/form-data"] = {"schema": _ref(ImageForm)}
    content["application/json"] = {"schema": refs[0] if len(refs) == 1 else {"oneOf": refs}, "examples": examples}
    return {"required": True, "description": "Raw bytes of an image, a form's files, or base64.", "content": content}


INFER_BODY: dict[str, Any] = {
    "required": True,
    "content": {"application/json": {"schema": _ref(InferRequest)}, "application/octet-stream": BYTES},
}
SMALL_BODY: dict[str, Any] = {
    "required": False,
    "description": "Nothing, or a JSON object.",
    "content": {"application/json": {"schema": {"type": "object"}}},
}


def of_bodies() -> dict[str, Any]:
    """The schemas that the bodies' forms refer to, by name."""
    forms: list[type[BaseModel]] = [OneImage, SeveralImages, ImageForm, InferRequest]
    return models_json_schema([(form, "validation") for form in forms], ref_template=REF)[1]["$defs"]


def _parameter(name: str, about: str, schema: dict[str, Any], *, location: str = "query") -> dict[str, Any]:
    return {"name": name, "in": location, "description": about, "schema": schema}


def in_path(path: str) -> list[dict[str, Any]]:
    """The parameters that a path names."""
    names = re.findall(r"{(\w+)", path)
    return [{"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names]


MODEL_QUERY = (
    _parameter("model", "default: the first that is served", {"type": "string"}),
    _parameter("version", "default: the current one", {"type": "string"}),
)
CALIBRATED = "false: probabilities of the logits as they are; abstaining goes by calibrated ones"
PREDICT_QUERY = (
    *MODEL_QUERY,
    _parameter("top", "classes to name", {"default": 3, "maximum": 1_000_000, "minimum": 1, "type": "integer"}),
    _parameter("calibrated", CALIBRATED, {"default": True, "type": "boolean"}),
)
METHODS = ["gradcam", "hirescam", "layercam", "gradcam++", "eigencam", "rollout", "integrated-gradients", "occlusion"]
METHOD = {"default": "gradcam", "enum": METHODS, "type": "string"}
SIDE = "pixels of the picture; default: as the model sees the image"
EXPLAIN_QUERY = (
    *MODEL_QUERY,
    _parameter("method", "rollout suits vision transformers alone", METHOD),
    _parameter("target", "predicted, or a class by its name or number", {"default": "predicted", "type": "string"}),
    _parameter("side", SIDE, {"maximum": 1024, "minimum": 8, "type": "integer"}),
)
LENGTH = "How many of the body's bytes are JSON; 0: the body is one image. Without it, all are."
INFER_HEADERS = (_parameter(HEADER_LENGTH, LENGTH, {"minimum": 0, "type": "integer"}, location="header"),)
