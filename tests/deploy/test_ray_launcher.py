"""The file for Ray's cluster launcher: what it asks for, brings along, and starts."""

from __future__ import annotations

import copy
import importlib.util
import json
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from hierfl import __version__

ROOT = Path(__file__).parents[2]
FILE: dict[str, Any] = yaml.safe_load((ROOT / "deploy" / "ray-cluster.yaml").read_text())
WHEEL = f"hierfl-{__version__}-py3-none-any.whl"
SETUP: list[str] = FILE["setup_commands"]
STARTS = {role: FILE[f"{role}_start_ray_commands"] for role in ("head", "worker")}
GIVEN = {"head_ip": ("provider", "10.0.0.10"), "ssh_user": ("auth", "ray")}
"""What is left to whoever has the machines, beside the list of workers."""


@pytest.fixture(scope="module")
def schema() -> Any:
    spec = importlib.util.find_spec("ray")
    assert spec is not None and spec.origin is not None
    return json.loads((Path(spec.origin).parent / "autoscaler" / "ray-schema.json").read_text())


def filled(*but: str) -> dict[str, Any]:
    config = copy.deepcopy(FILE)
    config["provider"]["worker_ips"] = ["10.0.0.11", "10.0.0.12"]
    for key, (section, value) in GIVEN.items():
        if key not in but:
            config[section][key] = value
    return config


def test_ray_accepts_the_file_with_its_blanks_filled_in(schema: Any) -> None:
    jsonschema.validate(filled(), schema)


@pytest.mark.parametrize("key", GIVEN)
def test_a_blank_that_was_left_is_told_and_not_dialled_for_minutes(key: str, schema: Any) -> None:
    with pytest.raises(jsonschema.ValidationError) as told:
        jsonschema.validate(filled(key), schema)
    assert list(told.value.absolute_path) == [GIVEN[key][0], key]


def test_every_worker_of_the_list_is_waited_for() -> None:
    assert FILE["provider"]["worker_ips"] == [], "a name that is nobody's would be dialled for ever"
    assert not {"min_workers", "max_workers"} & set(FILE), "by default as many as are listed"


def test_hierfl_comes_with_the_nodes_and_from_no_index() -> None:
    assert FILE["file_mounts"][f"~/{WHEEL}"] == f"dist/{WHEEL}"
    installs = [shlex.split(line) for line in SETUP if " install " in line]
    assert [line[-1] for line in installs] == [f"~/{WHEEL}[tasks]", f"~/{WHEEL}"]
    made = SETUP.index("python3 -m venv ~/hierfl-env")
    assert made < min(at for at, line in enumerate(SETUP) if " install " in line)
    assert {"--force-reinstall", "--no-deps"} <= set(installs[-1]), "a new wheel of the same number counts"
    guide = (ROOT / "docs" / "deploy.md").read_text()
    assert guide.index("pip wheel --no-deps --wheel-dir dist .") < guide.index("ray up deploy/ray-cluster.yaml")


def test_the_token_is_its_owners_before_anything_starts() -> None:
    assert FILE["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"
    assert SETUP[0] == "chmod 600 ~/.ray/auth_token"


def test_every_shell_of_a_node_has_its_ray_and_the_token_mode(tmp_path: Path) -> None:
    """`ray down` says no more than `ray stop`, and `ray start` asks nobody for a token unless it is told to."""
    (tmp_path / ".bashrc").write_text("true\n")
    (tmp_path / "hierfl-env" / "bin").mkdir(parents=True)
    lines = [line for line in SETUP if ".bashrc" in line]
    asked = 'printf "%s\\n" "${PATH%%:*}" "$RAY_AUTH_MODE"'
    done = subprocess.run(
        ["bash", "-ec", "\n".join([*lines, *lines, ". ~/.bashrc", asked, "wc -l < ~/.bashrc"])],
        env={"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == [str(tmp_path / "hierfl-env" / "bin"), "token", "2"], "however often it is set up"


def test_the_guide_stops_the_workers_whom_the_launcher_leaves() -> None:
    guide = (ROOT / "docs" / "deploy.md").read_text().splitlines()
    after = guide[guide.index("    ray down deploy/ray-cluster.yaml") + 1]
    assert after.startswith("    for host in ") and "~/hierfl-env/bin/ray stop" in after


@pytest.mark.parametrize("role", STARTS)
def test_nodes_start_afresh_on_ports_that_no_worker_takes(role: str) -> None:
    stop, start = STARTS[role]
    assert stop == "ray stop"
    ports = [int(port) for port in re.findall(r"port=(\d+)", start)] + [
        int(port) for port in re.findall(r":(\d+)", start)
    ]
    assert ports and not [port for port in ports if 10002 <= port <= 19999]
    if role == "worker":
        assert start.endswith(f"--address=$RAY_HEAD_IP:{ports[0]}") and f"--port={ports[0]} " in STARTS["head"][1]
    else:
        words = shlex.split(start)
        assert "--dashboard-host=0.0.0.0" in words, "jobs come from other machines"
        assert "--autoscaling-config=~/ray_bootstrap_config.yaml" in words, "or it brings up no worker"
        assert words[0] == "RAY_enable_autoscaler_v2=0", "which takes the head for one of the workers"
