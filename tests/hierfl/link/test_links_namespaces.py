"""Three institutions in network namespaces of their own: cuts, kills, renewed certificates; and delay and loss."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from link_processes import Links, members

HUB = "10.213.7.1"
CUT_S = 12.0


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True)


def lossy(space: str) -> None:
    """Let a wire take time, and lose packets, where the kernel can do it."""
    if shutil.which("tc") is None:
        pytest.skip("delay and loss need the command tc")
    netem = ["qdisc", "add", "dev", "wire", "root", "netem", "delay", "30ms", "loss", "1%"]
    made = subprocess.run(["tc", "-n", space, *netem], check=False, capture_output=True, text=True)
    if made.returncode:
        pytest.skip(f"delay and loss need netem, which this kernel has not: {made.stderr.strip()}")


@pytest.fixture(params=["clean wires", "delay and loss"])
def spaces(request: pytest.FixtureRequest) -> Iterator[dict[str, str]]:
    """Namespaces by name: the members' each have one wire, which ends at the hub's bridge; the host has none of it."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("network namespaces need root and the command ip")
    mark = secrets.token_hex(2)
    made = {name: f"hf{mark}{name[:2]}" for name in ("world", "us", "hungary", "switzerland")}
    try:
        try:
            for space in made.values():
                ip("netns", "add", space)
                ip("-n", space, "link", "set", "lo", "up")
            ip("-n", made["world"], "link", "add", "bridge", "type", "bridge")
            ip("-n", made["world"], "addr", "add", f"{HUB}/24", "dev", "bridge")
            ip("-n", made["world"], "link", "set", "bridge", "up")
            for number, name in enumerate(("us", "hungary", "switzerland"), 2):
                far = f"to-{name[:2]}"
                ip("-n", made["world"], "link", "add", far, "type", "veth", "peer", "name", "wire", "netns", made[name])
                ip("-n", made["world"], "link", "set", far, "master", "bridge", "up")
                ip("-n", made[name], "addr", "add", f"10.213.7.{number}/24", "dev", "wire")
                ip("-n", made[name], "link", "set", "wire", "up")
                if request.param == "delay and loss":
                    lossy(made[name])
        except subprocess.CalledProcessError as error:
            pytest.skip(f"no network namespaces here: {error.stderr}")
        yield made
    finally:
        for space in made.values():
            subprocess.run(["ip", "netns", "del", space], check=False, capture_output=True)


@pytest.mark.slow
def test_institutions_in_networks_of_their_own_give_the_bits_of_the_simulation(
    tmp_path: Path, spaces: dict[str, str]
) -> None:
    tree = members(["us", "hungary", "switzerland"], 8443, HUB, deadline_s=60)
    training = {"lr": 0.01, "batch_size": 4, "local_steps": 100}
    with Links(tmp_path, {"rounds": 10, "members": tree}, training=training) as links:
        links.prefix = {name: ["ip", "netns", "exec", space] for name, space in spaces.items()}
        links.serve()
        links.join("us", "hungary", "switzerland")
        links.until("world", " 2/10 ")
        ip("-n", spaces["us"], "link", "set", "wire", "down")
        time.sleep(CUT_S)  # long enough for both sides to take the connection for cut
        ip("-n", spaces["us"], "link", "set", "wire", "up")
        links.until("world", " 4/10 ")
        links.kill("hungary")
        assert links.hierfl("renew", "--ca", "pki").returncode == 0
        links.join("hungary")
        for name in ("world", "us", "hungary", "switzerland"):
            assert links.wait(name) == 0, links.said(name)
        assert "round 1: an update" in links.said("us")
        for number in range(1, 11):  # nobody was asked to train again for the cut
            assert links.said("us").count(f"round {number}: an update of weight") == 1
        assert links.digest == links.simulated()
