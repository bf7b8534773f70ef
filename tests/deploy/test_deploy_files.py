"""The files of deploy/ against the schemas of what reads them."""

from __future__ import annotations

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
        "submitterPodTemplate": GROUP["template"],
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


def templates(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Give the pods that come of a document, as templates, by what they do."""
    if document["kind"] == "StatefulSet":
        return {"redis": document["spec"]["template"]}
    if document["kind"] not in SPECS:
        return {}
    cluster = cluster_in(document)
    [worker] = cluster["workerGroupSpecs"]
    found = {"head": cluster["headGroupSpec"]["template"], "worker": worker["template"]}
    if document["kind"] == "RayJob":
        found["submitter"] = document["spec"]["submitterPodTemplate"]
    return found


def pods(document: dict[str, Any]) -> list[dict[str, Any]]:
    """Give the specs of these pods: KubeRay's init containers copy their security contexts."""
    return [template["spec"] for template in templates(document).values()]


def labels(document: dict[str, Any], role: str) -> dict[str, str]:
    """Give the labels of a pod: its template's, and what KubeRay adds to nodes of a cluster, if its name is known."""
    own = dict(templates(document)[role].get("metadata", {}).get("labels", {}))
    if document["kind"] == "RayCluster":
        own |= {"ray.io/cluster": document["metadata"]["name"], "ray.io/node-type": role}
    return own


def selects(selector: dict[str, Any], found: dict[str, str]) -> bool:
    """Whether a selector of Kubernetes is of a pod with these labels."""
    assert all(one["operator"] == "In" for one in selector.get("matchExpressions", []))
    return all(found.get(key) == value for key, value in selector.get("matchLabels", {}).items()) and all(
        found.get(one["key"]) in one["values"] for one in selector.get("matchExpressions", [])
    )


def is_let_in(file: str, to: dict[str, str], caller: dict[str, str], port: int) -> bool:
    """Whether the file's policies let a pod of the same namespace call another one, which some policy must select."""
    policies = [document["spec"] for name, document in PLAIN if (name, document["kind"]) == (file, "NetworkPolicy")]
    of_it = [policy for policy in policies if selects(policy["podSelector"], to) and "Ingress" in policy["policyTypes"]]
    assert of_it, f"no policy in {file} is of {to}"
    return any(
        any(selects(source["podSelector"], caller) for source in rule["from"])
        and port in [one["port"] for one in rule.get("ports", [{"port": port}])]
        for policy in of_it
        for rule in policy.get("ingress", [])
    )


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
    for spec in pods(document):
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "node"}, "spec": spec}
        kubernetes_validate.validate(pod, kubernetes_validate.latest_version(), strict=True)
        assert spec["containers"][0]["image"] == f"hierfl:{__version__}"
    for group in [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]:
        resources = group["rayStartParams"].get("resources", "'{}'")
        (word,) = shlex.split(resources)  # KubeRay hands it to a shell, quotes and all
        assert json.loads(word) == json.loads(resources.strip("'\"` ")), "and reads it itself, to add GPUs"


@pytest.mark.parametrize(("file", "document"), RAY + PLAIN, ids=named)
def test_a_namespace_that_is_restricted_admits_every_pod(file: str, document: dict[str, Any]) -> None:
    # https://kubernetes.io/docs/concepts/security/pod-security-standards/#restricted
    for spec in pods(document):
        pod = spec["securityContext"]
        assert pod["runAsNonRoot"] and pod["runAsUser"] and pod["seccompProfile"] == {"type": "RuntimeDefault"}
        assert spec["automountServiceAccountToken"] is False
        assert {kind for volume in spec.get("volumes", []) for kind in set(volume) - {"name"}} <= {
            "configMap",
            "persistentVolumeClaim",
        }
        for container in spec["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "capabilities": {"drop": ["ALL"]},
            }


def test_who_may_call_whom() -> None:
    """In Ray's cluster all may, but for Redis, which is the head's; from beside it the dashboard at most."""
    role = {
        (document["kind"], role): labels(document, role) for _, document in RAY + PLAIN for role in templates(document)
    }
    stranger = {"app": "web"}
    operator = {"app.kubernetes.io/component": "kuberay-operator"}
    for kind, file in (("RayCluster", "raycluster.yaml"), ("RayJob", "rayjob.yaml")):
        head, worker = role[kind, "head"], role[kind, "worker"]
        for to, caller in ((head, worker), (worker, head), (worker, worker)):
            assert is_let_in(file, to, caller, 6379) and is_let_in(file, to, caller, 10002)
        assert not is_let_in(file, head, stranger, 6379) and not is_let_in(file, worker, stranger, 10002)
    submitter = role["RayJob", "submitter"]
    head = role["RayJob", "head"]
    for caller in (submitter, operator):
        assert is_let_in("rayjob.yaml", head, caller, 8265) and not is_let_in("rayjob.yaml", head, caller, 6379)
    assert not is_let_in("rayjob.yaml", head, stranger, 8265) and not is_let_in("rayjob.yaml", submitter, head, 8265)
    redis, tidies = role["StatefulSet", "redis"], {"ray.io/cluster": "hierfl", "ray.io/node-type": "redis-cleanup"}
    assert is_let_in("raycluster.yaml", redis, role["RayCluster", "head"], 6379)
    assert is_let_in("raycluster.yaml", redis, tidies, 6379)
    for caller in (role["RayCluster", "worker"], head, submitter, stranger):
        assert not is_let_in("raycluster.yaml", redis, caller, 6379)


@pytest.mark.parametrize(("file", "document"), RAY, ids=named)
def test_clusters_ask_for_their_token(file: str, document: dict[str, Any]) -> None:
    assert cluster_in(document)["authOptions"] == {"mode": "token"}


def test_a_schema_that_would_pass_anything_would_not_do() -> None:
    spec = next(document for _, document in RAY if document["kind"] == "RayCluster")["spec"]
    with pytest.raises(jsonschema.ValidationError, match="headGroupSpecs"):
        jsonschema.validate(spec | {"headGroupSpecs": {}}, CLUSTER)


def parsed(line: list[str]) -> dict[str, Any]:
    """Read a command line as hierfl would."""
    assert Path(line[0]).name == "hierfl"
    context = get_command(app).commands[line[1]].make_context(line[1], list(line[2:]))  # type: ignore[attr-defined]
    found: dict[str, Any] = context.params
    return found


def test_the_jobs_command_is_one() -> None:
    (_, job), *_ = (entry for entry in RAY if entry[1]["kind"] == "RayJob")
    line = shlex.split(job["spec"]["entrypoint"])
    assert "runtime.address=auto" in line
    assert parsed(line)["plain"]


SERVICES: dict[str, dict[str, Any]] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
ROOTS = ("world", "second")
IGNORED = [
    line.removeprefix("/deploy/").strip("/") for line in (ROOT / ".gitignore").read_text().split() if "/deploy/" in line
]
"""What the steps at the top of compose.yaml make."""


def words(service: dict[str, Any]) -> list[str]:
    """Give a service's command as Compose hands it to the container, with no variable set."""
    return shlex.split(re.sub(r"\$\{\w+:-\}", "", service["command"]))


def test_every_linked_member_has_a_service_and_its_own_kit() -> None:
    kits = {folder_name(node) for node in ("world", *(f"world/{name}" for name in ("us", "hungary", "switzerland")))}
    assert set(SERVICES) == {"world", "second", "us", "hungary", "switzerland"}
    for link in load(DEPLOY / "three_institutions.yaml").links.values():
        assert link.addresses == tuple(f"{root}:8443" for root in ROOTS)
    mounted = []
    for name, service in SERVICES.items():
        assert words(service)[1] == ("serve" if name in ROOTS else "join")
        assert Path(parsed(words(service))["kit"]) == Path("/kit")
        assert parsed(words(service)).get("standby", False) == (name == "second")
        mounted += [volume.split(":")[0] for volume in service["volumes"] if ":/kit" in volume]
        assert len(set(service["networks"])) == (3 if name in ROOTS else 1)
    assert {Path(folder).name for folder in mounted} == kits and len(mounted) == len(kits) + 1
    assert SERVICES["second"]["volumes"] == SERVICES["world"]["volumes"]


@pytest.mark.parametrize("name", SERVICES)
def test_containers_see_what_their_commands_name(name: str) -> None:
    service = SERVICES[name]
    given = parsed(words(service))
    inside = {volume.split(":")[1]: volume.split(":")[2:] for volume in service["volumes"]}
    assert {given["words"][0], str(given["kit"])} <= set(inside), "the configuration and the kit"
    writable = {place for place, options in inside.items() if options != ["ro"]}
    assert service["read_only"] and service["tmpfs"] == ["/tmp"]
    assert service["environment"]["RAY_AUTH_MODE"] == "token", "the root is in every institution's network"
    if name in ROOTS:
        assert writable == {str(load(DEPLOY / "three_institutions.yaml").output.folder)}
    else:
        assert writable == {str(given["state"]), "/kit"}, "approvals are noted in the kit"
    for place in (volume.split(":")[0].removeprefix("./") for volume in service["volumes"]):
        made = [folder for folder in IGNORED if place.startswith(folder)]
        assert made or (DEPLOY / place).is_file(), place
    assert given["health"] in " ".join(service["healthcheck"]["test"]), "asked where it answers"


def test_what_another_start_does_not_mend_is_not_started_again() -> None:
    """Containers as the services of systemd: of the exit codes that these name, Docker hears 0."""
    assert (DEPLOY / "Dockerfile").read_text().split("ENTRYPOINT ")[1].startswith('["tini", "--"]')
    units = {"second": "hierfl-standby@", **dict.fromkeys(set(SERVICES) - {*ROOTS}, "hierfl-join@")}
    for name, unit in units.items():
        text = (DEPLOY / "systemd" / f"{unit}.service").read_text()
        (codes,) = re.findall(r"^RestartPreventExitStatus=(.*)$", text, re.MULTILINE)
        told = [word for code in codes.split() for word in ("-e", code)]
        assert SERVICES[name]["restart"] == "on-failure" and SERVICES[name]["entrypoint"] == ["tini", *told, "--"]
        if shutil.which("tini") is not None:
            for code in range(5):
                started = [*SERVICES[name]["entrypoint"], "sh", "-c", f"exit {code}"]
                done = subprocess.run(started, capture_output=True, check=False)
                assert done.returncode == (0 if str(code) in told else code)
    assert SERVICES["world"]["restart"] == "no" and SERVICES["world"]["entrypoint"] == ["tini", "--"]


@pytest.mark.parametrize("options", ["--standby", "--resume /runs/heart-1"])
def test_the_first_root_comes_back_by_a_variable(options: str) -> None:
    command = SERVICES["world"]["command"].replace("${WORLD_OPTIONS:-}", options)
    given = parsed(shlex.split(command))
    assert given["standby"] or Path(given["resume"]) == Path("/runs/heart-1")


@pytest.mark.parametrize("unit", sorted((DEPLOY / "systemd").iterdir()), ids=lambda path: path.name)
def test_services_start_commands_that_are_ones(unit: Path, tmp_path: Path) -> None:
    text = unit.read_text()
    (line,) = re.findall(r"^ExecStart=(.*)$", text, re.MULTILINE)
    given = parsed(shlex.split(line.replace("%i", "heart").replace(" $OPTIONS", "")))
    assert Path(given["kit"]) == Path("/etc/hierfl/heart/kit")
    settings = dict(line.split("=", 1) for line in text.splitlines() if re.match(r"[A-Z]\w+=", line))
    assert settings["KillMode"] == "mixed", "hierfl ends its Ray; what outlives it is not waited for"
    assert settings["ProtectHome"] == "yes"
    home = f"HOME=/var/lib/{settings['StateDirectory']}"  # which Ray can see
    assert settings["Environment"].split() == [home, "RAY_AUTH_MODE=token"], "Ray listens at all interfaces"
    assert ("/etc/hierfl/%i/kit" in settings.get("ReadWritePaths", "")) == ("hierfl join " in line), "for approvals"
    if (verify := shutil.which("systemd-analyze")) is None:
        pytest.skip("systemd-analyze is not here")
    copy = tmp_path / unit.name.replace("@", "@heart")
    copy.write_text(text.replace("/opt/hierfl/bin/hierfl", "/bin/true"))
    done = subprocess.run([verify, "verify", "--man=no", str(copy)], capture_output=True, text=True, check=False)
    assert unit.name.split("@")[0] not in done.stderr, done.stderr


def copied() -> set[str]:
    """Name what the image's build copies from the folder that it is given."""
    lines = (DEPLOY / "Dockerfile").read_text().splitlines()
    return {name for line in lines if line.startswith("COPY") and "--from" not in line for name in line.split()[1:-1]}


def test_the_image_copies_what_there_is() -> None:
    assert [name for name in copied() if not (ROOT / name).exists()] == []
    assert {name for name in copied() if (ROOT / name).is_dir()} == {"hierfl", "tiers", "scheduler"}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["readme"] in copied() and {path.partition("/")[0] for path in project["license-files"]} <= copied()


def test_the_build_is_given_what_it_copies_and_no_keys() -> None:
    first, *lines = [line for line in (ROOT / ".dockerignore").read_text().split("\n") if line and line[0] != "#"]
    assert first == "*" and {line[1:] for line in lines if line[0] == "!"} == copied()


def test_what_the_guide_names_is_there() -> None:
    guide = (ROOT / "docs" / "deploy.md").read_text()
    named = set(re.findall(r"deploy/[\w./@-]*\w", guide))
    assert named and [name for name in named if not (ROOT / name).exists()] == []
    files = {path.relative_to(ROOT).as_posix() for path in DEPLOY.rglob("*") if path.is_file()}
    assert files - {"deploy/README.md"} <= named


def test_the_guides_kubectl_names_what_the_manifests_make() -> None:
    guide = (ROOT / "docs" / "deploy.md").read_text()
    made = {f"{document['kind'].lower()}/{document['metadata']['name']}" for _, document in RAY + PLAIN}
    for _, document in RAY:  # what KubeRay makes of them
        name = document["metadata"]["name"]
        made.add(f"job/{name}" if document["kind"] == "RayJob" else f"service/{name}-head-svc")
    named = set(re.findall(r"\b((?:rayjob|raycluster|job|service)/[\w-]+)", guide))
    assert named and named <= made
    for path in MANIFESTS:
        for line in re.findall(r"^#   (kubectl .*)$", path.read_text(), re.MULTILINE):
            assert line in guide, f"{path.name} and the guide say the same"


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
