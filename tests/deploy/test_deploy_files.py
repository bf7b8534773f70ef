"""The files of deploy/ against the schemas of what reads them."""

from __future__ import annotations

import importlib.util
import json
import re
import shlex
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml
from typer.main import get_command

from hierfl import __version__
from hierfl.cli import app
from hierfl.config.load import load
from hierfl.link.kit import folder_name

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


def parsed(words: list[str]) -> dict[str, Any]:
    """Read a command line as hierfl would."""
    assert Path(words[0]).name == "hierfl"
    context = get_command(app).commands[words[1]].make_context(words[1], list(words[2:]))  # type: ignore[attr-defined]
    found: dict[str, Any] = context.params
    return found


def test_the_jobs_command_is_one() -> None:
    (_, job), *_ = (entry for entry in RAY if entry[1]["kind"] == "RayJob")
    words = shlex.split(job["spec"]["entrypoint"])
    assert "runtime.address=auto" in words
    assert parsed(words)["plain"]


def test_every_linked_member_has_a_service_and_its_own_kit() -> None:
    load(DEPLOY / "three_institutions.yaml")
    kits = {folder_name(node) for node in ("world", *(f"world/{name}" for name in ("us", "hungary", "switzerland")))}
    services = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
    assert set(services) == {"world", "second", "us", "hungary", "switzerland"}
    roots = ("world", "second")
    for link in load(DEPLOY / "three_institutions.yaml").links.values():
        assert link.addresses == tuple(f"{root}:8443" for root in roots)
    mounted = []
    for name, service in services.items():
        assert service["command"][1] == ("serve" if name in roots else "join")
        assert parsed(service["command"])["kit"] == Path("/kit")
        assert parsed(service["command"]).get("standby", False) == (name == "second")
        mounted += [volume.split(":")[0] for volume in service["volumes"] if ":/kit" in volume]
        assert len(set(service["networks"])) == (3 if name in roots else 1)
    assert {Path(folder).name for folder in mounted} == kits and len(mounted) == len(kits) + 1
    assert services["second"]["volumes"] == services["world"]["volumes"]


@pytest.mark.parametrize("unit", sorted((DEPLOY / "systemd").iterdir()), ids=lambda path: path.name)
def test_services_start_commands_that_are_ones(unit: Path, tmp_path: Path) -> None:
    text = unit.read_text()
    (line,) = re.findall(r"^ExecStart=(.*)$", text, re.MULTILINE)
    assert parsed(shlex.split(line.replace("%i", "heart").replace(" $OPTIONS", "")))["kit"] == Path(
        "/etc/hierfl/heart/kit"
    )
    if (verify := shutil.which("systemd-analyze")) is None:
        pytest.skip("systemd-analyze is not here")
    copy = tmp_path / unit.name.replace("@", "@heart")
    copy.write_text(text.replace("/opt/hierfl/bin/hierfl", "/bin/true"))
    done = subprocess.run([verify, "verify", "--man=no", str(copy)], capture_output=True, text=True, check=False)
    assert unit.name.split("@")[0] not in done.stderr, done.stderr


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
    named = set(re.findall(r"deploy/[\w./@-]*\w", guide))
    assert named and [name for name in named if not (ROOT / name).exists()] == []
    files = {path.relative_to(ROOT).as_posix() for path in DEPLOY.rglob("*") if path.is_file()}
    assert files - {"deploy/README.md"} <= named


def test_whoever_unpacks_a_source_distribution_finds_what_the_readme_names() -> None:
    sdist = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["sdist"]
    readme = (ROOT / "README.md").read_text()
    folders = {f"/{name}" for name in re.findall(r"^\| `(\w+)/` \|", readme, re.M)}
    linked = {f"/{path.partition('/')[0]}" for path in re.findall(r"\]\((?!https?:|#)([^)#]+)", readme)}
    assert "/deploy" in folders and "/docs" in linked
    assert folders | linked | {"/Makefile", "/README.md"} <= set(sdist["include"])
    assert {f"/{line.strip('/')}" for line in (ROOT / ".gitignore").read_text().split() if "/deploy/" in line} == set(
        sdist["exclude"]
    ), "no keys"
