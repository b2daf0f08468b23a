"""/openapi.json is true: what schemathesis makes of it is answered as it says, and never by a fault of ours."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from browsing import Tab
from hypothesis import HealthCheck, given, settings
from live_server import Running, encoded, photo, running
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from lucidate.core.run import RunDir
from lucidate.serve import schemas
from lucidate.serve.app import ROUTES
from lucidate.serve.settings import Settings

pytestmark = pytest.mark.slow

CHECKS = [not_a_server_error, response_schema_conformance, content_type_conformance, status_code_conformance]


@pytest.fixture(scope="module")
def server(untrained: RunDir) -> Iterator[Running]:
    with running(Settings(access_log=True), {"photos": untrained}) as server:
        yield server


@pytest.fixture(scope="module")
def schema(server: Running) -> Any:
    return server.ask("/openapi.json").json


def test_every_route_for_people_is_described(schema: Any) -> None:
    for path, method in (("predict", "post"), ("explain", "post"), ("models", "get"), ("live", "get")):
        operation = schema["paths"][f"/v1/{path}"][method]
        assert operation["summary"]
        assert "200" in operation["responses"]
        assert "422" not in operation["responses"]
    body = schema["paths"]["/v1/predict"]["post"]["requestBody"]
    assert {"image/png", "multipart/form-data", "application/json"} <= set(body["content"])


def test_every_route_is_described_but_the_page(schema: Any) -> None:
    paths = {path for entry in ROUTES for path in entry.forms}
    assert paths - set(schema["paths"]) == {"/", "/v2/", "/v1/examples", "/v1/examples/{number:int}.png"}
    assert set(schema["paths"]) <= paths


def test_the_examples_work(server: Running, schema: Any) -> None:
    for path in ("/v1/predict", "/v1/explain"):
        examples = schema["paths"][path]["post"]["requestBody"]["content"]["application/json"]["examples"]
        for example in examples.values():
            reply = server.ask(
                path, json.dumps(example["value"]).encode(), headers={"Content-Type": "application/json"}
            )
            assert reply.status == 200


def test_answers_have_the_form_that_is_promised(server: Running) -> None:
    png = encoded(photo(2))
    both = json.dumps({"images": [base64.b64encode(png).decode(), "AAAA"]}).encode()
    replies = {
        schemas.Predictions: [
            server.predict(png),
            server.predict(both, Content_Type="application/json"),
        ],
        schemas.Explanation: [server.ask("/v1/explain", png)],
        schemas.Live: [server.ask("/v1/live")],
        schemas.Error: [server.predict(b""), server.ask("/v1/explain", b""), server.ask("/nowhere")],
    }
    for model, answers in replies.items():
        for reply in answers:
            model.model_validate_json(reply.body, strict=True)
    for about in server.ask("/v1/models").json:
        schemas.Model.model_validate_json(json.dumps(about), strict=True)
        assert set(about) <= set(schemas.Model.model_fields)


def operations(server: Running, *, names: dict[str, list[str]]) -> list[Any]:
    """What is tried: all but loading and unloading, after which nobody else could ask. names: that exist."""
    content = server.ask("/openapi.json").json
    for item in content["paths"].values():
        for holder in (item, *(operation for operation in item.values() if isinstance(operation, dict))):
            for parameter in holder.get("parameters", []):
                if parameter["name"] in names:
                    parameter["schema"]["enum"] = names[parameter["name"]]
    described = schemathesis.openapi.from_dict(content)
    described.config.update(base_url=f"http://127.0.0.1:{server.port}")
    return [found.ok() for found in described.exclude(path_regex="/v2/repository/models/").get_all_operations()]


@pytest.mark.parametrize(
    ("names", "examples"),
    [({"model": ["photos"], "version": ["1"]}, 40), ({}, 6)],
    ids=["models-that-exist", "any-names"],
)
def test_whatever_fits_the_description_is_answered_by_it(
    names: dict[str, list[str]], examples: int, server: Running
) -> None:
    server.log_lines.clear()
    tried = operations(server, names=names)
    assert len(tried) > 15
    for operation in tried:

        @settings(
            max_examples=examples,
            deadline=None,
            derandomize=True,
            database=None,
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy())
        def attempt(case: Any) -> None:
            response = case.call()
            case.validate_response(response, checks=CHECKS)

        attempt()
    assert not [line for line in server.log_lines if line["failure"]]
    answered = {line["path"] for line in server.log_lines if line["status"] == 200}
    if names:
        assert {"/v1/predict", "/v1/explain", "/v2/models/photos", "/v2/models/photos/versions/1/config"} <= answered


@pytest.mark.browser
def test_the_documentation_is_readable_without_other_servers(browser: Any, server: Running) -> None:
    tab = Tab(browser.new_page(), f"http://127.0.0.1:{server.port}/docs")
    tab.page.goto(tab.url)
    tab.page.wait_for_selector('.opblock-summary-path[data-path="/v1/predict"]')
    assert {url.split("/")[2] for url in tab.requests if not url.startswith("data:")} == {f"127.0.0.1:{server.port}"}
    assert tab.faults == []
    tab.page.close()
