"""Federations over links as real processes: the bits of the simulation, whatever is cut or killed."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from link_processes import Links, Wire, free_port, members


def test_a_hub_in_another_process_gives_the_bits_of_the_simulation(tmp_path: Path) -> None:
    """One member over a link, two beside the root: the world's model is the one of `hierfl run`. All logs are JSON."""
    port, health = free_port(), free_port()
    with Links(tmp_path, {"rounds": 2, "members": members(["us"], port)}) as links:
        links.serve("--json", "--health", f"localhost:{health}")
        links.join("us")
        links.until("us", "has joined")
        while True:  # the member knows it a moment before the hub does
            said = json.loads(urllib.request.urlopen(f"http://localhost:{health}/healthz", timeout=60).read())
            assert said["node"] == "world" and list(said["members"]) == ["world/us"]
            if said["members"]["world/us"]:
                break
            assert links.processes["world"].poll() is None, links.said("world")
        gauges = urllib.request.urlopen(f"http://localhost:{health}/metrics", timeout=60).read().decode()
        assert 'hierfl_member_up{member="world/us"} 1.0' in gauges.splitlines()
        assert links.wait("world") == 0, links.said("world")
        assert links.wait("us") == 0, links.said("us")
        assert links.digest == links.simulated()
        assert "the federation has finished" in links.said("us")
        logs = [(tmp_path / f"{name}.err").read_text().splitlines() for name in ("us", "world")]
        assert all({"time", "level", "node", "message"} == set(json.loads(line)) for log in logs for line in log)
        assert any("round 2/2  auc" in line for line in logs[1]) and "2 of 2 rounds" in links.said("world")
        assert json.loads((tmp_path / "world.out").read_text())["model_digest"] == links.digest


@pytest.mark.slow
def test_four_processes_with_cuts_and_kills_give_the_bits_of_the_simulation(tmp_path: Path) -> None:
    """A member is killed in its training, the wire is cut twice, certificates are renewed: nothing is lost."""
    port = free_port()
    with Wire(port).open() as wire:
        tree = members(["us", "hungary", "switzerland"], wire.port, deadline_s=60)
        training = {"lr": 0.01, "batch_size": 4, "local_steps": 100}
        with Links(tmp_path, {"rounds": 12, "members": tree}, training=training) as links:
            links.troubled(wire, port, ["us", "hungary", "switzerland"], 12, loses="us")
            wire.mend()
            assert links.hierfl("renew", "--ca", "pki").returncode == 0
            links.until("world", " 5/12 ")
            wire.cut()
            wire.mend()
            for name in ("world", "us", "hungary", "switzerland"):
                assert links.wait(name) == 0, links.said(name)
            assert links.digest == links.simulated()


@pytest.mark.slow
def test_a_hub_that_is_killed_goes_on_with_its_run(tmp_path: Path) -> None:
    """The hub is killed between rounds; members stay, and the run that is taken up again ends with the same bits."""
    port = free_port()
    with Links(tmp_path, {"rounds": 8, "members": members(["us", "hungary"], port, deadline_s=60)}) as links:
        links.serve()
        links.join("us", "hungary")
        links.until("world", " 3/8 ")
        links.kill("world")
        links.serve("--resume", str(links.run_dir))
        for name in ("world", "us", "hungary"):
            assert links.wait(name) == 0, links.said(name)
        assert links.digest == links.simulated()


@pytest.mark.slow
@pytest.mark.parametrize(
    "root",
    [
        {"strategy": {"kind": "scaffold"}},
        {"strategy": {"kind": "fedadam", "lr": 0.1}},
        {"topology": {"kind": "cyclic"}},
        {"strategy": {"kind": "median"}},
        {"participation": {"kind": "sample", "fraction": 0.5}},
    ],
    ids=lambda root: next(iter(root.values()))["kind"],
)
def test_strategies_topologies_and_participation_work_over_links(tmp_path: Path, root: dict[str, object]) -> None:
    """A linked hub, and below it a linked site of another process; and each ends with the simulation's bits."""
    port, below = free_port(), free_port()
    tree = members(["us", "hungary"], port)
    tree[0]["members"][0]["link"] = {"address": f"localhost:{below}"}
    with Links(tmp_path, {"rounds": 3, "members": tree, **root}) as links:
        links.serve()
        links.join("us", "hungary")
        plan = links.plan("us/cleveland")
        links.start("cleveland", "join", "--kit", "pki/kits/world__us__cleveland", "--approve", plan)
        for name in ("world", "us", "hungary", "cleveland"):
            assert links.wait(name) == 0, links.said(name)
        assert links.digest == links.simulated()
        assert not list((tmp_path / "runs").glob("heart-world__*/*/states/*")), "nobody goes on with it"


@pytest.mark.slow
def test_what_goes_over_the_wire_is_tls_and_holds_no_record(tmp_path: Path) -> None:
    """All of the traffic is captured: every byte belongs to a TLS record, and no row of a ward is among them."""
    from ward_tasks import patients

    port = free_port()
    with Wire(port, keep=True).open() as wire:
        north = {"name": "north", "link": {"address": f"localhost:{wire.port}"}}
        tree = [{**north, "members": [{"name": "a"}, {"name": "b"}]}, {"name": "c"}]
        with Links(tmp_path, {"rounds": 3, "members": tree}, task={"kind": "ward_tasks:Wards"}) as links:
            links.serve("--listen", f"localhost:{port}")
            links.join("north")
            for name in ("world", "north"):
                assert links.wait(name) == 0, links.said(name)
        crossed = [bytes(way) for way in wire.seen if way]
    assert len(crossed) >= 2 and sum(map(len, crossed)) > 5000
    for way in crossed:
        kinds = list(tls_kinds(way))
        assert kinds[0] == HANDSHAKE and set(kinds[1:]) <= {CHANGE, ALERT, DATA} and DATA in kinds, kinds
        for name in ("a", "b"):
            for row in patients(name, 18)[0].numpy():
                for dtype in (np.float32, np.float64):
                    assert row.astype(dtype).tobytes() not in way
                assert ",".join(f"{cell:.3f}" for cell in row).encode() not in way
        assert b"world/north" not in way and b"weight" not in way


CHANGE, ALERT, HANDSHAKE, DATA = 20, 21, 22, 23
"""Kinds of TLS records (RFC 8446, section 5.1)."""


def tls_kinds(way: bytes) -> Iterator[int]:
    """Read one way of a connection as TLS records, to its end."""
    at = 0
    while at + 5 <= len(way):
        kind, version, size = way[at], way[at + 1 : at + 3], int.from_bytes(way[at + 3 : at + 5], "big")
        assert version in (b"\x03\x01", b"\x03\x03") and size <= (1 << 14) + 256, (at, kind)
        yield kind
        at += 5 + size


def test_a_plan_is_approved_before_anything_starts(tmp_path: Path) -> None:
    with Links(tmp_path, {"rounds": 2, "members": members(["us"], 1)}) as links:
        refused = links.hierfl("join", "--kit", "pki/kits/world__us")
        assert refused.returncode == 1 and "this plan is not approved; agree to it with --approve" in refused.stderr
        assert "per round the change of the model, of its 2 sites together" in refused.stdout
        other = links.hierfl("join", "--kit", "pki/kits/world__us", "--approve", "0" * 64)
        assert other.returncode == 1 and "the plan is another one" in other.stderr
        assert not (tmp_path / "pki/kits/world__us/approved.json").exists()
