"""What can be known of the deployment files without a container engine or a cluster."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import kubernetes_validate
import pytest
import yaml
from servers import Server

from lucidate.core.run import RunDir
from lucidate.serve.monitoring import Metrics
from lucidate.serve.settings import Settings

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
KUBERNETES = DEPLOY / "kubernetes"
KINDS = ("Deployment", "Service", "HorizontalPodAutoscaler", "PodDisruptionBudget", "NetworkPolicy")
METRIC = re.compile(r"\b(?:nv_inference|lucidate)_[a-z0-9_]+")
PROBES = ("/v2/health/live", "/v2/health/ready")


def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def manifests() -> dict[str, Any]:
    """By kind: what kustomization.yaml names."""
    found = [read(KUBERNETES / name) for name in read(KUBERNETES / "kustomization.yaml")["resources"]]
    return {manifest["kind"]: manifest for manifest in found}


@pytest.fixture(scope="module")
def pod(manifests: dict[str, Any]) -> Any:
    return manifests["Deployment"]["spec"]["template"]["spec"]


@pytest.fixture(scope="module")
def dockerfile() -> list[tuple[str, str]]:
    """Instructions and what follows them, lines joined, comments left out."""
    text = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")
    lines = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    pairs = [line.strip().partition(" ") for line in lines.replace("\\\n", " ").splitlines() if line.strip()]
    return [(instruction, rest.strip()) for instruction, _, rest in pairs]


@pytest.fixture(scope="module")
def exposed() -> set[str]:
    """Names of the series that a server exposes."""
    text = Metrics().exposition([]).decode()
    kinds = dict(re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE))
    parts = {
        f"{name}_{part}" for name, kind in kinds.items() if kind == "histogram" for part in ("bucket", "sum", "count")
    }
    return set(kinds) | parts


# Kubernetes


@pytest.mark.parametrize("version", ["1.27", "1.30", "1.33"])
def test_manifests_are_what_kubernetes_takes(manifests: dict[str, Any], version: str) -> None:
    assert tuple(manifests) == KINDS
    for manifest in manifests.values():
        assert kubernetes_validate.validate(manifest, version, strict=True) == version


def test_a_manifest_with_a_fault_would_be_found(manifests: dict[str, Any]) -> None:
    broken = json.loads(json.dumps(manifests["Deployment"]))
    broken["spec"]["template"]["spec"]["containers"][0]["readynessProbe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(broken, "1.30", strict=True)


def test_names_and_ports_lead_to_the_pods(manifests: dict[str, Any], pod: Any) -> None:
    labels = manifests["Deployment"]["spec"]["template"]["metadata"]["labels"]
    selectors = [
        manifests["Deployment"]["spec"]["selector"]["matchLabels"],
        manifests["Service"]["spec"]["selector"],
        manifests["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"],
        manifests["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"],
    ]
    for selector in selectors:
        assert selector.items() <= labels.items()
    target = manifests["HorizontalPodAutoscaler"]["spec"]["scaleTargetRef"]
    assert target["name"] == manifests["Deployment"]["metadata"]["name"]
    (container,) = pod["containers"]
    assert {port["name"] for port in container["ports"]} == {"http"}
    assert manifests["Service"]["spec"]["ports"][0]["targetPort"] == "http"
    assert manifests["NetworkPolicy"]["spec"]["ingress"][0]["ports"][0]["port"] == "http"


def test_the_pod_has_no_rights_that_it_needs_not(pod: Any) -> None:
    (container,) = pod["containers"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] > 0
    assert pod["securityContext"]["seccompProfile"]["type"] == "RuntimeDefault"
    assert pod["automountServiceAccountToken"] is False
    assert pod["enableServiceLinks"] is False  # its variables would look like settings
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert container["resources"].keys() == {"requests", "limits"}
    assert not container["image"].endswith(":latest")
    assert ":" in container["image"]
    mounts = {mount["mountPath"] for mount in container["volumeMounts"]}
    assert mounts == {"/tmp"}


def test_probes_ask_what_the_server_answers(pod: Any, server: Server) -> None:
    from urllib.request import urlopen

    (container,) = pod["containers"]
    asked = {name: container[name]["httpGet"]["path"] for name in ("startupProbe", "readinessProbe", "livenessProbe")}
    assert asked == {"startupProbe": PROBES[1], "readinessProbe": PROBES[1], "livenessProbe": PROBES[0]}
    for path in PROBES:
        with urlopen(server.url + path, timeout=20) as answer:
            assert answer.status == 200


def test_there_is_time_to_end_in_order(pod: Any) -> None:
    settings = Settings()
    (container,) = pod["containers"]
    (_, seconds) = container["lifecycle"]["preStop"]["exec"]["command"]
    needed = float(seconds) + settings.grace_seconds + settings.drain_seconds
    assert needed < pod["terminationGracePeriodSeconds"]
    compose = read(DEPLOY / "compose.yaml")["services"]["lucidate"]
    assert settings.grace_seconds + settings.drain_seconds < int(compose["stop_grace_period"].rstrip("s"))


def test_the_autoscaler_follows_a_metric_that_there_is(manifests: dict[str, Any], exposed: set[str]) -> None:
    queue, processor = manifests["HorizontalPodAutoscaler"]["spec"]["metrics"]
    assert queue["pods"]["metric"]["name"] in exposed
    assert 0 < int(queue["pods"]["target"]["averageValue"]) < Settings().queue_images
    assert processor["resource"]["name"] == "cpu"
    (rule,) = read(KUBERNETES / "adapter-rule.yaml")["rules"]["custom"]
    assert rule["name"]["as"] == queue["pods"]["metric"]["name"]
    assert set(METRIC.findall(rule["seriesQuery"])) <= exposed


@pytest.mark.parametrize("path", ["kubernetes/deployment.yaml", "Dockerfile", "README.md", "compose.yaml"])
def test_settings_that_are_named_exist(path: str) -> None:
    text = (DEPLOY / path).read_text(encoding="utf-8")
    named = {name.lower() for name in re.findall(r"LUCIDATE_SERVE_([A-Z_]+)", text)} - {""}
    assert named <= set(Settings.model_fields)


# Prometheus and Grafana


def test_the_dashboard_asks_for_series_that_there_are(exposed: set[str]) -> None:
    board = json.loads((DEPLOY / "grafana/dashboards/lucidate.json").read_text(encoding="utf-8"))
    queries = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    queries += [variable["query"]["query"] for variable in board["templating"]["list"]]
    assert len(queries) > 15
    for query in queries:
        assert METRIC.findall(query), query
        assert set(METRIC.findall(query)) <= exposed, query
        assert query.count("(") == query.count(")")
        assert query.count("{") == query.count("}")
    ids = [panel["id"] for panel in board["panels"]]
    assert len(set(ids)) == len(ids)
    cells = [
        (x, y)
        for panel in board["panels"]
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(set(cells)) == len(cells)  # none lies over another
    assert max(x for x, _ in cells) < 24
    source = read(DEPLOY / "grafana/provisioning/datasources/prometheus.yaml")["datasources"][0]
    assert {panel["datasource"]["uid"] for panel in board["panels"]} == {source["uid"]}


def test_labels_and_routes_that_are_asked_for_are_exposed(server: Server, png: bytes) -> None:
    image = Request(f"{server.url}/v1/predict", data=png, headers={"Content-Type": "image/png"})
    urlopen(image, timeout=20).close()  # a series begins with its first event
    with urlopen(f"{server.url}/metrics", timeout=20) as answer:
        text = answer.read().decode()
    labels = set(re.findall(r'(\w+)="', text)) | {"signal"}
    board = (DEPLOY / "grafana/dashboards/lucidate.json").read_text(encoding="utf-8")
    rules = (DEPLOY / "prometheus/rules.yml").read_text(encoding="utf-8")
    for part in re.findall(r"by \(([a-z, ]+)\)", board + rules):
        assert set(part.split(", ")) <= labels
    (pattern,) = set(re.findall(r'route=~\\?"([^"\\]+)\\?"', board + rules))
    for route in ("/v1/predict", "/v2/models/{model}/infer", "/v2/models/{model}/versions/{version}/infer"):
        assert re.fullmatch(pattern, route)
    assert not re.fullmatch(pattern, "/v2/health/ready")


def test_alerts_ask_for_series_that_there_are(exposed: set[str]) -> None:
    (group,) = read(DEPLOY / "prometheus/rules.yml")["groups"]
    for rule in group["rules"]:
        named = set(METRIC.findall(rule["expr"].replace('job="lucidate"', "")))
        assert named <= exposed
        assert named or rule["expr"].startswith("up{")
        assert rule["annotations"]["summary"].endswith(".")
    (job,) = read(DEPLOY / "prometheus/prometheus.yml")["scrape_configs"]
    assert job["job_name"] == "lucidate"  # as the alerts name it
    assert job["metrics_path"] == "/metrics"


# Compose and the image


def test_compose_holds_together(dockerfile: list[tuple[str, str]]) -> None:
    compose = read(DEPLOY / "compose.yaml")
    services = compose["services"]
    assert set(services) == {"lucidate", "prometheus", "grafana"}
    for name, service in services.items():
        image, _, tag = service["image"].partition(":")
        assert image
        assert re.match(r"v?\d+\.\d+", tag), name
        for port in service["ports"]:
            assert port.startswith("127.0.0.1:")
        for volume in service.get("volumes", []):
            source, target, *mode = volume.split(":")
            if source.startswith("."):
                assert (DEPLOY / source).exists(), source
                assert mode == ["ro"]
            else:
                assert source in compose["volumes"]
            assert target.startswith("/")
        assert set(service.get("depends_on", [])) <= set(services)
    server = services["lucidate"]
    assert server["read_only"] is True
    assert server["cap_drop"] == ["ALL"]
    assert (DEPLOY / server["build"]["context"] / server["build"]["dockerfile"]).is_file()
    exposed_port = dict(dockerfile)["EXPOSE"]
    assert server["ports"] == [f"127.0.0.1:{exposed_port}:{exposed_port}"]
    (job,) = read(DEPLOY / "prometheus/prometheus.yml")["scrape_configs"]
    assert job["static_configs"][0]["targets"] == [f"lucidate:{exposed_port}"]
    source = read(DEPLOY / "grafana/provisioning/datasources/prometheus.yaml")["datasources"][0]
    assert source["url"] == "http://prometheus:9090"
    assert "PASSWORD" not in (DEPLOY / "compose.yaml").read_text(encoding="utf-8")


def test_the_image_is_built_with_care(dockerfile: list[tuple[str, str]], pod: Any) -> None:
    stages = [rest for instruction, rest in dockerfile if instruction == "FROM"]
    assert [stage.rpartition(" ")[2] for stage in stages] == ["build", "serve"]
    last = dockerfile[[index for index, (name, _) in enumerate(dockerfile) if name == "FROM"][-1] :]
    said = dict(last)
    user, group = said["USER"].split(":")
    assert int(user) == pod["securityContext"]["runAsUser"] > 0
    assert int(group) == pod["securityContext"]["runAsGroup"]
    assert said["STOPSIGNAL"] == "SIGTERM"
    assert said["ENTRYPOINT"].startswith("[")  # no shell between the signal and the server
    assert said["CMD"].startswith("[")
    assert "HEALTHCHECK" in said
    assert not any(name == "ADD" for name, _ in dockerfile)
    assert any(rest.startswith("PYTHON=") and "slim" in rest for name, rest in dockerfile if name == "ARG")
    text = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")
    assert ":latest" not in text
    assert not re.search(r"(?i)(password|secret|token)\s*=", text)
    # After USER nothing is copied or run as somebody else.
    names = [name for name, _ in last]
    assert {"COPY", "RUN", "USER"}.isdisjoint(names[names.index("USER") + 1 :])


def test_what_the_image_copies_is_there_and_let_in(dockerfile: list[tuple[str, str]]) -> None:
    ignored = (DEPLOY / "Dockerfile.dockerignore").read_text(encoding="utf-8").splitlines()
    assert ignored[1] == "*"
    let_in = {line[1:] for line in ignored if line.startswith("!")}
    copied = {
        name
        for instruction, rest in dockerfile
        if instruction == "COPY" and not rest.startswith("--from")
        for name in rest.split()[:-1]
    }
    assert copied == let_in
    for name in copied:
        assert (ROOT / name).exists(), name
    left_out = [line for line in ignored[2:] if line and not line.startswith("!")]
    for module in (ROOT / "src").rglob("*.py"):
        inside = module.relative_to(ROOT)
        assert not any(path.match(pattern) for path in (inside, *inside.parents) for pattern in left_out), inside


def test_the_commands_in_the_image_work(
    dockerfile: list[tuple[str, str]], server: Server, untrained: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    (health,) = [rest for name, rest in dockerfile if name == "HEALTHCHECK"]
    command = json.loads(health[health.index("[") :])
    command[-1] = command[-1].replace("http://127.0.0.1:8000", server.url)
    assert server.url in command[-1]
    assert subprocess.run([sys.executable, *command[1:]], check=False, capture_output=True).returncode == 0
    command[-1] = command[-1].replace(server.url, "http://127.0.0.1:1")
    assert subprocess.run([sys.executable, *command[1:]], check=False, capture_output=True).returncode != 0
    (exporting,) = [rest for name, rest in dockerfile if name == "RUN" and "open_graph" in rest]
    words = shlex.split(exporting)
    code = words[words.index("-c") + 1]
    monkeypatch.setattr(sys, "argv", ["-c", str(untrained.path)])
    exec(compile(code, "Dockerfile", "exec"), {})
    assert (untrained.path / "export" / "serve.onnx").is_file()
