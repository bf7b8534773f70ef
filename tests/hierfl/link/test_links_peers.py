"""Members of a hub without a centre as real processes, which dial each other: the bits of the simulation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from link_processes import Links, Wire, free_port, members

HUBS = ("us", "hungary", "switzerland")


def tree(port: int, ports: dict[str, int], topology: str = "allreduce", **link: Any) -> dict[str, Any]:
    found = members(HUBS, port, **link)
    for one in found:
        one["link"]["peers"] = f"localhost:{ports[one['name']]}"
    return {"topology": topology, "members": found}


@pytest.mark.slow
def test_institutions_exchange_without_a_centre(tmp_path: Path) -> None:
    """Each has the model at the end; the hub has its digest, and no vector."""
    port, ports = free_port(), {name: free_port() for name in HUBS}
    with Links(tmp_path, {"rounds": 2, "strategy": "fedavgm", **tree(port, ports)}) as links:
        links.serve()
        links.join(*HUBS)
        for name in ("world", *HUBS):
            assert links.wait(name) == 0, links.said(name)
        assert links.digest == links.simulated()
        written = {(tmp_path / "runs" / f"heart-world__{name}" / "model.safetensors").read_bytes() for name in HUBS}
        assert written == {next((tmp_path / "simulated").glob("*/model.safetensors")).read_bytes()}
        assert {path.stat().st_size for path in links.run_dir.rglob("*.safetensors")} <= {8, 16}, "no vector at the hub"
        assert not list((tmp_path / "runs").glob("heart-world__*/*/place/commits/*")), "nobody goes on with it"
        said = json.loads(next(links.run_dir.glob("checkpoints/*/checkpoint.json")).read_text())
        assert sorted(said["elsewhere"]["holders"]) == sorted(f"world/{name}" for name in HUBS)


@pytest.mark.slow
def test_a_member_that_is_killed_while_it_exchanges_comes_back_to_the_same_model(tmp_path: Path) -> None:
    """What it has lies on its disk: it does its part, nobody trains again, and the others have waited."""
    port, ports = free_port(), {name: free_port() for name in HUBS}
    with Wire(ports["us"]).open() as wire:
        federation = {"rounds": 6, "strategy": "fedavgm", **tree(port, {**ports, "us": wire.port}, deadline_s=60)}
        with Links(tmp_path, federation) as links:
            links.serve()
            plan = ("--kit", "pki/kits/world__us", "--approve", links.plan("us"))
            links.start("us", "join", *plan, "--listen-peers", f"localhost:{ports['us']}")
            links.join("hungary", "switzerland")
            for number in (1, 3):
                links.until("world", f" {number}/6 ")
                wire.cut()  # so that the others wait for it, with what they need
                links.until("hungary", "(link.peers) is not reached", number // 2 + 1)
                links.kill("us")
                wire.mend()
                links.start("us", "join", *plan, "--listen-peers", f"localhost:{ports['us']}")
            for name in ("world", *HUBS):
                assert links.wait(name) == 0, links.said(name)
            assert links.digest == links.simulated()
            trained = [line for line in links.said("hungary").splitlines() if "an update of weight" in line]
            assert len(trained) == 6, "nobody trains again for it"


@pytest.mark.slow
@pytest.mark.parametrize("topology", ["swarm", "peer"])
def test_a_hub_that_is_killed_goes_on_from_what_its_members_have(tmp_path: Path, topology: str) -> None:
    port, ports = free_port(), {name: free_port() for name in HUBS}
    with Links(tmp_path, {"rounds": 8, **tree(port, ports, topology, deadline_s=60)}) as links:
        links.serve()
        links.join(*HUBS)
        links.until("world", " 3/8 ")
        links.kill("world")
        links.kill("us")
        links.join("us")
        links.serve("--resume", str(links.run_dir))
        for name in ("world", *HUBS):
            assert links.wait(name) == 0, links.said(name)
        assert links.digest == links.simulated()
