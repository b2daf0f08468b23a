"""The Open Inference Protocol's routes in /openapi.json, which FastAPI makes of its own routes alone."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI

Schema = dict[str, Any]

ERROR: Schema = {
    "type": "object",
    "properties": {"error": {"type": "string"}},
    "required": ["error"],
    "additionalProperties": False,
}
TEXT: Schema = {"type": "string"}
SIDES: Schema = {"type": "array", "items": {"type": "integer"}}
OBJECT: Schema = {"type": "object"}
TENSOR: Schema = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "enum": ["images"]},
        "datatype": {"type": "string", "enum": ["UINT8", "FP32", "BYTES"]},
        "shape": {**SIDES, "description": "[n, S, S, 3]; of BYTES [n]"},
        "parameters": OBJECT,
        "data": {"type": "array", "description": "numbers from 0 to 255, flat or nested; of BYTES, base64"},
    },
    "required": ["name", "datatype", "shape"],
}
REQUEST: Schema = {
    "type": "object",
    "properties": {
        "id": TEXT,
        "parameters": OBJECT,
        "inputs": {"type": "array", "items": TENSOR, "minItems": 1, "maxItems": 1},
        "outputs": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"name": {"type": "string", "enum": ["probabilities", "logits"]}, "parameters": OBJECT},
                "required": ["name"],
            },
        },
    },
    "required": ["inputs"],
}
ANSWER: Schema = {
    "type": "object",
    "properties": {
        "model_name": TEXT,
        "model_version": TEXT,
        "id": TEXT,
        "outputs": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "name": TEXT,
                    "datatype": {"type": "string", "enum": ["FP32", "BYTES"]},
                    "shape": SIDES,
                    "data": {"type": "array"},
                    "parameters": OBJECT,
                },
                "required": ["name", "datatype", "shape"],
            },
        },
    },
    "required": ["model_name", "model_version", "outputs"],
}
INDEX: Schema = {
    "type": "array",
    "items": {
        "type": "object",
        "properties": {"name": TEXT, "version": TEXT, "state": TEXT, "reason": TEXT},
        "required": ["name", "version", "state", "reason"],
    },
}
BYTES: Schema = {"schema": {"type": "string", "format": "binary"}}
OPTIONAL_BODY = "Nothing, or a JSON object."


def extend(app: FastAPI) -> None:
    """Let `app.openapi` tell of the protocol's routes too."""
    own = app.openapi

    def whole() -> dict[str, Any]:
        if app.openapi_schema is None:
            schema = own()
            schema["paths"] = {**paths(), **schema.get("paths", {})}
            app.openapi_schema = schema
        return app.openapi_schema

    app.openapi = whole  # type: ignore[method-assign]  # FastAPI's documented way


def paths() -> dict[str, Any]:
    """Path items by path."""
    found: dict[str, Any] = {
        "/v2/health/live": _get("Whether the process answers", OBJECT),
        "/v2/health/ready": _get("Whether every model answers", OBJECT),
        "/healthz": _get("The same as /v2/health/live", OBJECT),
        "/readyz": _get("The same as /v2/health/ready", OBJECT),
        "/metrics": {"get": _operation("What Prometheus reads", {"text/plain": {"schema": TEXT}})},
        "/v2": _get("The server's name, version and extensions", OBJECT),
        "/v2/models/stats": _get("Statistics of every model", OBJECT),
        "/v2/repository/index": _post("The models that can be served", INDEX, _optional(OBJECT)),
        "/v2/repository/models/{model}/load": _post(
            "Read a model anew from its folder; a new version where it has changed", OBJECT, _optional(OBJECT)
        ),
        "/v2/repository/models/{model}/unload": _post("Let go of a model", OBJECT, _optional(OBJECT)),
    }
    for form in ("", "/versions/{version}"):
        start = f"/v2/models/{{model}}{form}"
        found[start] = _get("A model's inputs and outputs", OBJECT)
        found[f"{start}/ready"] = _get("Whether a model answers", OBJECT)
        found[f"{start}/config"] = _get("A model's configuration in Triton's form", OBJECT)
        found[f"{start}/stats"] = _get("What a model has done, and how long it took", OBJECT)
        found[f"{start}/infer"] = _infer()
    for path, item in found.items():
        names = [name for name in ("model", "version") if f"{{{name}}}" in path]
        if names:
            item["parameters"] = [{"name": name, "in": "path", "required": True, "schema": TEXT} for name in names]
    return found


def _infer() -> dict[str, Any]:
    operation = _operation(
        "Probabilities of images",
        {"application/json": {"schema": ANSWER}, "application/octet-stream": BYTES},
    )
    operation["parameters"] = [
        {
            "name": "Inference-Header-Content-Length",
            "in": "header",
            "description": "How many of the body's bytes are JSON; 0: the body is one image. Without it, all are.",
            "schema": {"type": "integer", "minimum": 0},
        }
    ]
    operation["requestBody"] = {
        "required": True,
        "content": {"application/json": {"schema": REQUEST}, "application/octet-stream": BYTES},
    }
    return {"post": operation}


def _get(summary: str, schema: Schema) -> dict[str, Any]:
    return {"get": _operation(summary, {"application/json": {"schema": schema}})}


def _post(summary: str, schema: Schema, body: dict[str, Any]) -> dict[str, Any]:
    operation = _operation(summary, {"application/json": {"schema": schema}})
    operation["requestBody"] = body
    return {"post": operation}


def _optional(schema: Schema) -> dict[str, Any]:
    return {"required": False, "description": OPTIONAL_BODY, "content": {"application/json": {"schema": schema}}}


def _operation(summary: str, content: dict[str, Any]) -> dict[str, Any]:
    refused = {"description": "What is wrong", "content": {"application/json": {"schema": ERROR}}}
    return {
        "tags": ["Open Inference Protocol"],
        "summary": summary,
        "responses": {"200": {"description": "Answered", "content": content}, "4XX": refused, "5XX": refused},
    }
