"""What is asked and answered, as /openapi.json says it. These forms stand here and nowhere else."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field


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


class IndexEntry(BaseModel):
    """A model that can be served. reason: why it is not ready."""

    name: str
    version: str
    state: str
    reason: str


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


class ModelQuery(BaseModel):
    """Which model."""

    model: str = Field(description="default: the first that is served")
    version: str = Field(description="default: the current one")


class PredictQuery(ModelQuery):
    """What is told of its answer."""

    top: int = Field(3, ge=1, le=1_000_000, description="classes to name")
    calibrated: bool = Field(
        True, description="false: probabilities of the logits as they are; abstaining goes by calibrated ones"
    )


class ExplainQuery(ModelQuery):
    """How a class is explained."""

    method: Literal[
        "gradcam",
        "hirescam",
        "layercam",
        "gradcam++",
        "eigencam",
        "rollout",
        "integrated-gradients",
        "occlusion",
    ] = Field("gradcam", description="rollout suits vision transformers alone")
    target: str = Field("predicted", description="predicted, or a class by its name or number")
    side: int = Field(ge=8, le=1024, description="pixels of the picture; default: as the model sees the image")


class InferHeaders(BaseModel):
    """Headers of a request for inference."""

    length: int = Field(
        ge=0,
        alias="Inference-Header-Content-Length",
        description="How many of the body's bytes are JSON; 0: the body is one image. Without it, all are.",
    )
