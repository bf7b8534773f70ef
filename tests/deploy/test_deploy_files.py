"""The files of deploy/ against the schemas of what reads them."""

from __future__ import annotations

import importlib.util
import json
import re
import shlex
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml
from typer.main import get_command

from hierfl import __version__
from hierfl.cli import app

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
MANIFESTS = sorted((DEPLOY / "kuberay").glob("*.yaml"))

GROUP = {
    "rayStartParams": {"type": "object", "additionalProperties": {"type": "string"}},
    "template": {"type": "object", "required": ["spec"]},
}
CLUSTER = {
    "type": "object",
    "required": ["rayVersion", "headGroupSpec"],
    "additionalProperties": False,
    "properties": {
        "rayVersion": {"type": "string"},
        "authOptions": {
            "type": "object",
            "additionalProperties": False,
            "properties": {"mode": {"enum": ["disabled", "token"]}, "secretName": {"type": "string"}},
        },
        "gcsFaultToleranceOptions": {
            "type": "object",
            "required": ["redisAddress"],
            "additionalProperties": False,
            "properties": {
                "redisAddress": {"type": "string"},
                "redisPassword": {"type": "object", "additionalProperties": False, "properties": {"valueFrom": {}}},
                "externalStorageNamespace": {"type": "string"},
            },
        },
        "headGroupSpec": {
            "type": "object",
            "required": ["template", "rayStartParams"],
            "additionalProperties": False,
            "properties": GROUP,
        },
        "workerGroupSpecs": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["groupName", "template"],
                "additionalProperties": False,
                "properties": GROUP
                | {"groupName": {"type": "string"}}
                | {key: {"type": "integer"} for key in ("replicas", "minReplicas", "maxReplicas")},
            },
        },
    },
}
"""What these manifests use of a RayCluster's spec (KubeRay's API reference, ray.io/v1)."""
JOB = {
    "type": "object",
    "required": ["entrypoint", "rayClusterSpec"],
    "additionalProperties": False,
    "properties": {
        "entrypoint": {"type": "string"},
        "submissionMode": {"enum": ["K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode"]},
        "shutdownAfterJobFinishes": {"type": "boolean"},
        "ttlSecondsAfterFinished": {"type": "integer"},
        "backoffLimit": {"type": "integer"},
        "rayClusterSpec": CLUSTER,
    },
}
SPECS = {"RayCluster": CLUSTER, "RayJob": JOB}


def documents(path: Path) -> list[dict[str, Any]]:
    return [document for document in yaml.safe_load_all(path.read_text()) if document]


def cluster_in(document: dict[str, Any]) -> dict[str, Any]:
    spec: dict[str, Any] = document["spec"]
    return spec["rayClusterSpec"] if document["kind"] == "RayJob" else spec


RAY = [(path.name, document) for path in MANIFESTS for document in documents(path) if document["kind"] in SPECS]
PLAIN = [(path.name, document) for path in MANIFESTS for document in documents(path) if document["kind"] not in SPECS]


def named(value: Any) -> str:
    return str(value["kind"]) if isinstance(value, dict) else str(value)


@pytest.mark.parametrize(("file", "document"), PLAIN, ids=named)
def test_kubernetes_own_kinds_are_valid(file: str, document: dict[str, Any]) -> None:
    kubernetes_validate.validate(document, kubernetes_validate.latest_version(), strict=True)


@pytest.mark.parametrize(("file", "document"), RAY, ids=named)
def test_rays_kinds_are_valid(file: str, document: dict[str, Any]) -> None:
    assert document["apiVersion"] == "ray.io/v1"
    jsonschema.validate(document["spec"], SPECS[document["kind"]])
    cluster = cluster_in(document)
    for group in [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]:
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "node"}, "spec": group["template"]["spec"]}
        kubernetes_validate.validate(pod, kubernetes_validate.latest_version(), strict=True)
        assert group["template"]["spec"]["containers"][0]["image"] == f"hierfl:{__version__}"
        resources = group["rayStartParams"].get("resources", '"{}"')
        assert isinstance(json.loads(json.loads(resources)), dict)  # KubeRay hands it to a shell, quotes and all


@pytest.mark.parametrize(("file", "document"), RAY, ids=named)
def test_clusters_ask_for_their_token(file: str, document: dict[str, Any]) -> None:
    assert cluster_in(document)["authOptions"] == {"mode": "token"}


def test_a_schema_that_would_pass_anything_would_not_do() -> None:
    spec = documents(DEPLOY / "kuberay" / "raycluster.yaml")[3]["spec"]
    with pytest.raises(jsonschema.ValidationError, match="headGroupSpecs"):
        jsonschema.validate(spec | {"headGroupSpecs": {}}, CLUSTER)


def test_the_jobs_command_is_one() -> None:
    (_, job), *_ = (entry for entry in RAY if entry[1]["kind"] == "RayJob")
    program, command, *words = shlex.split(job["spec"]["entrypoint"])
    assert program == "hierfl"
    chosen = get_command(app).commands[command]  # type: ignore[attr-defined]
    parsed = chosen.make_context(command, list(words))
    assert "runtime.address=auto" in words
    assert parsed.params["plain"]


def test_ray_accepts_the_launchers_file() -> None:
    spec = importlib.util.find_spec("ray")
    assert spec is not None and spec.origin is not None
    schema = json.loads((Path(spec.origin).parent / "autoscaler" / "ray-schema.json").read_text())
    jsonschema.validate(yaml.safe_load((DEPLOY / "ray-cluster.yaml").read_text()), schema)


def test_the_image_copies_what_there_is() -> None:
    text = (DEPLOY / "Dockerfile").read_text()
    copied = [line.split()[1:-1] for line in text.splitlines() if line.startswith("COPY") and "--from" not in line]
    assert [name for names in copied for name in names if not (ROOT / name).exists()] == []
    packages = {name for names in copied for name in names if (ROOT / name).is_dir()}
    assert packages == {"hierfl", "tiers", "scheduler"}


def test_what_the_guide_names_is_there() -> None:
    guide = (ROOT / "docs" / "deploy.md").read_text()
    named = set(re.findall(r"deploy/[\w./-]*\w", guide))
    assert named and [name for name in named if not (ROOT / name).exists()] == []
    files = {path.relative_to(ROOT).as_posix() for path in DEPLOY.rglob("*") if path.is_file()}
    assert files - {"deploy/README.md"} <= named
