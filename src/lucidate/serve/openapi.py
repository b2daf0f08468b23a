"""/openapi.json, made from the table of routes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema
from starlette.responses import JSONResponse, Response

from lucidate.serve import schemas

REF = "#/components/schemas/{model}"
BYTES: dict[str, Any] = {"schema": {"type": "string", "format": "binary"}}
IMAGES = ("image/png", "image/jpeg", "image/webp", "application/octet-stream")
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGNgYGAAAAAEAAH2FzhVAAAAAElFTkSuQmCC"  # 1×1, black
ONE = {"one": {"value": {"image": PIXEL}}}
SEVERAL = {"several": {"value": {"images": [PIXEL, PIXEL]}}}
BODIES = (schemas.OneImage, schemas.SeveralImages, schemas.ImageForm, schemas.InferRequest)  # beside JSON: bytes
ERRORS: dict[int | str, dict[str, Any]] = {
    400: {"model": schemas.Error, "description": "No image that can be read, or a parameter that cannot be meant"},
    401: {"model": schemas.Error, "description": "No known key, where keys are asked for"},
    404: {"model": schemas.Error, "description": "No such model or version"},
    408: {"model": schemas.Error, "description": "The body did not come in time"},
    413: {"model": schemas.Error, "description": "More bytes, pixels or images than are taken"},
    415: {"model": schemas.Error, "description": "A format that is not read"},
    429: {"model": schemas.Error, "description": "Too many wait; Retry-After says when to come again"},
    500: {"model": schemas.Error, "description": "Something went wrong here"},
    503: {"model": schemas.Error, "description": "The model is being loaded, or the server is about to end"},
    504: {"model": schemas.Error, "description": "Not computed in time"},
}
EITHER: dict[int | str, dict[str, Any]] = {
    "4XX": {"model": schemas.Error, "description": "What is wrong"},
    "5XX": {"model": schemas.Error, "description": "What is wrong"},
}


@dataclass(frozen=True)
class Operation:
    """What is said of a route. answer: its form in JSON, if it is any. kinds: its other forms. body: what it takes."""

    summary: str
    answer: Any = dict[str, Any]
    errors: dict[int | str, dict[str, Any]] = field(default_factory=lambda: EITHER)
    about: str = "Answered"
    kinds: dict[str, Any] = field(default_factory=dict)
    query: type[BaseModel] | None = None
    headers: type[BaseModel] | None = None
    body: dict[str, Any] | None = None
    tag: Literal["people", "Open Inference Protocol"] = "Open Inference Protocol"


def images_body(*forms: type[BaseModel], examples: dict[str, Any]) -> dict[str, Any]:
    """Raw bytes, a form, or JSON of one of some forms."""
    refs = [_ref(form) for form in forms]
    content: dict[str, Any] = dict.fromkeys(IMAGES, BYTES)
    content["multipart/form-data"] = {"schema": _ref(schemas.ImageForm)}
    content["application/json"] = {"schema": refs[0] if len(refs) == 1 else {"oneOf": refs}, "examples": examples}
    return {"required": True, "description": "Raw bytes of an image, a form's files, or base64.", "content": content}


def infer_body() -> dict[str, Any]:
    content = {"application/json": {"schema": _ref(schemas.InferRequest)}, "application/octet-stream": BYTES}
    return {"required": True, "content": content}


def optional_body() -> dict[str, Any]:
    content = {"application/json": {"schema": {"type": "object"}}}
    return {"required": False, "description": "Nothing, or a JSON object.", "content": content}


def describe_routes(app: FastAPI, operations: Sequence[tuple[str, str, Any, Operation]]) -> None:
    """Let `app.openapi` tell of these operations: (path, method, endpoint, what is said of it) each."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            routes = [_documented(*each) for each in operations]
            schema = get_openapi(title=app.title, version=app.version, summary=app.summary, routes=routes)
            _, bodies = models_json_schema([(body, "validation") for body in BODIES], ref_template=REF)
            schema["components"]["schemas"] |= bodies["$defs"]
            app.openapi_schema = schema
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's documented way


def _documented(path: str, method: str, endpoint: Any, operation: Operation) -> APIRoute:
    """A route that nobody asks: FastAPI describes routes of its own kind alone."""
    found = [{"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in _names(path)]
    found += _parameters(operation.query, "query") + _parameters(operation.headers, "header")
    extra: dict[str, Any] = {"parameters": found} if found else {}
    if operation.body is not None:
        extra["requestBody"] = operation.body
    responses = dict(operation.errors)
    if operation.kinds:
        responses[200] = {"content": operation.kinds}
    return APIRoute(
        path,
        endpoint,
        methods=[method],
        tags=[operation.tag],
        summary=operation.summary,
        response_model=operation.answer,
        response_class=Response if operation.answer is None else JSONResponse,
        response_description=operation.about,
        responses=responses,
        openapi_extra=extra,
    )


def _names(path: str) -> list[str]:
    return re.findall(r"{(\w+)", path)


def _parameters(model: type[BaseModel] | None, location: str) -> list[dict[str, Any]]:
    fields = model.model_json_schema()["properties"] if model is not None else {}
    found = []
    for name, schema in fields.items():
        about = {key: value for key, value in schema.items() if key not in ("title", "description")}
        found.append({"name": name, "in": location, "description": schema["description"], "schema": about})
    return found


def _ref(model: type[BaseModel]) -> dict[str, str]:
    return {"$ref": REF.format(model=model.__name__)}
