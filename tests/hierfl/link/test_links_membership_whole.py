"""Hospitals that join and leave between rounds, each a process of its own over mutual TLS."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from link_processes import Links, free_port

pytestmark = pytest.mark.slow

PARTED = "its part is done: the federation goes on without it"


def linked(name: str, port: int, **settings: Any) -> dict[str, Any]:
    return {"name": name, "link": {"address": f"localhost:{port}", "deadline_s": 60.0}, **settings}


def take_part(links: Links, name: str, node: str, *words: str) -> None:
    plan = links.plan(node)
    kit = f"pki/kits/world__{node.replace('/', '__')}"
    links.start(name, "join", "--kit", kit, "--approve", plan, *words)


def test_one_hospital_joins_and_another_leaves_and_whoever_is_killed_comes_back(tmp_path: Path) -> None:
    """Who joins is killed while it waits, who leaves after its last update, and the root while it waits for another."""
    port = free_port()
    us = {"name": "us", "members": [linked("cleveland", port), linked("long_beach", port, leaves_at=3)]}
    late = {"name": "switzerland", "joins_at": 2, "members": [linked("zurich_basel", port)]}
    later = linked("hungary", port, joins_at=4, members=[{"name": "budapest"}])
    nodes = {"cleveland": "us/cleveland", "long_beach": "us/long_beach", "zurich_basel": "switzerland/zurich_basel"}
    # A checkpoint after the last round only, but for what who leaves has done.
    output = {"dir": "runs", "tensorboard": False, "checkpoint_every": 9}
    federation = {"rounds": 5, "members": [us, later, late]}
    with Links(tmp_path, federation, output=output) as links:
        links.serve()
        take_part(links, "zurich_basel", nodes["zurich_basel"])
        links.until("zurich_basel", "has joined world")
        assert "takes part from round 2 on, and waits for it" in links.said("zurich_basel")
        links.kill("zurich_basel")
        for site, node in nodes.items():
            take_part(links, site, node)
        links.until("long_beach", "round 2: an update")
        links.kill("long_beach")
        take_part(links, "long_beach", nodes["long_beach"])
        assert links.wait("long_beach") == 0, links.said("long_beach")
        assert PARTED in links.said("long_beach")
        links.until("world", " 3/5 ")
        links.kill("world")
        links.serve("--resume", str(links.run_dir))
        links.until("world", "listens at port", 2)
        take_part(links, "long_beach", nodes["long_beach"])  # by mistake
        assert links.wait("long_beach") == 0, links.said("long_beach")
        links.join("hungary")  # which the run has waited for
        for name in ("world", "cleveland", "hungary", "zurich_basel"):
            assert links.wait(name) == 0, links.said(name)
        assert links.said("long_beach").count("round 1: an update") == 1
        assert "round 1: an update" not in links.said("zurich_basel")
        assert links.digest == links.simulated()


def test_sites_below_a_linked_hub_join_and_leave_and_the_hub_is_killed_between(tmp_path: Path) -> None:
    port, inner = free_port(), free_port()
    us = linked("us", port, members=[])
    us["members"] = [linked("cleveland", inner, leaves_at=3), linked("long_beach", inner, joins_at=2)]
    late = linked("switzerland", port, joins_at=3, members=[{"name": "zurich_basel"}])
    federation = {"rounds": 5, "strategy": "scaffold", "members": [us, {"name": "budapest"}, late]}
    with Links(tmp_path, federation) as links:
        links.serve()
        links.join("us", "switzerland")
        for site in ("cleveland", "long_beach"):
            take_part(links, site, f"us/{site}")
        links.until("us", "round 2: an update")
        links.kill("us")
        links.join("us")
        assert links.wait("cleveland") == 0, links.said("cleveland")
        assert PARTED in links.said("cleveland")
        for name in ("world", "us", "switzerland", "long_beach"):
            assert links.wait(name) == 0, links.said(name)
        assert links.digest == links.simulated()


def test_a_second_root_takes_over_while_the_first_waits_for_who_joins(tmp_path: Path) -> None:
    first, second = free_port(), free_port()
    link = {"address": f"localhost:{first}", "standbys": [f"localhost:{second}"], "deadline_s": 30.0}
    us = {"name": "us", "link": link, "members": [{"name": "cleveland"}, {"name": "long_beach", "joins_at": 3}]}
    hungary = {"name": "hungary", "link": link, "leaves_at": 3, "members": [{"name": "budapest"}]}
    late = {"name": "switzerland", "link": link, "joins_at": 3, "members": [{"name": "zurich_basel"}]}
    federation = {"rounds": 4, "members": [us, hungary, late], "strategy": "scaffold"}
    output = {"dir": str(tmp_path / "runs"), "tensorboard": False}
    with Links(tmp_path, federation, output=output, redundancy={"lease_s": 4.0}) as links:
        links.serve("--listen", f"localhost:{first}")
        links.join("us", "hungary")
        links.until("world", " 1/4 ")
        links.start("second", "serve", "--kit", "pki/kits/world", "--standby", "--listen", f"localhost:{second}")
        links.until("second", "leads")
        links.until("world", " 2/4 ")
        assert links.wait("hungary") == 0, links.said("hungary")
        links.kill("world")
        links.join("switzerland", "hungary")  # the latter by mistake: it has left
        for name in ("second", "us", "switzerland", "hungary"):
            assert links.wait(name) == 0, links.said(name)
        assert links.said("hungary").count(PARTED) >= 2
        assert links.digest == links.simulated()
        kept = {path.parents[2].name for path in (tmp_path / "runs").glob("heart-world__*/*/states/*")}
        assert kept == {"heart-world__hungary"}, "a hub that goes back may ask for its last rounds once more"
