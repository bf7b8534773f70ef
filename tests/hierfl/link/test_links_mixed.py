"""Trees of institutions whose hubs differ: one without a centre below a star, and a star below one without a centre."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from link_processes import Links, free_port

pytestmark = pytest.mark.slow

SITES = {"us": ("cleveland", "long_beach"), "eu": ("budapest", "zurich_basel")}


class Mixed(Links):
    """The root, us and eu below it, and each of their sites: seven processes."""

    def __init__(self, folder: Path, kinds: dict[str, Any]) -> None:
        self.ports = {name: free_port() for name in kinds}
        self.kinds = kinds
        hubs = [
            {"name": hub, **self.link("world"), **self.hub(hub), "members": [self.site(hub, site) for site in sites]}
            for hub, sites in SITES.items()
        ]
        super().__init__(folder, {"rounds": 3, **self.hub("world"), "members": hubs})

    def hub(self, name: str) -> dict[str, Any]:
        """Of a hub of peers below the root the second round begins from what the first one left."""
        has_more = name != "world" and self.kinds[name] == "peer"
        return {"topology": self.kinds[name], **({"rounds": 2} if has_more else {})}

    def site(self, hub: str, name: str) -> dict[str, Any]:
        return {"name": name, **self.link(hub)}

    def link(self, hub: str) -> dict[str, Any]:
        """Let a member dial its hub, and be dialled by the others where that has no centre."""
        link = {"address": f"localhost:{self.ports[hub]}", "deadline_s": 60.0}
        return {"link": link | ({} if self.kinds[hub] == "star" else {"peers": f"localhost:{free_port()}"})}

    def go(self) -> None:
        """Run the federation to its end; everybody has ended well."""
        self.serve()
        for hub, sites in SITES.items():
            for node in (hub, *(f"{hub}/{site}" for site in sites)):
                plan = self.plan(node)
                self.start(
                    node.replace("/", "__"),
                    "join",
                    "--kit",
                    f"pki/kits/world__{node.replace('/', '__')}",
                    "--approve",
                    plan,
                    "--state",
                    f"state/{node}",
                )
        for name in self.processes:
            assert self.wait(name) == 0, self.said(name)


@pytest.mark.parametrize(
    "kinds",
    [
        {"world": "star", "us": "star", "eu": "allreduce"},
        {"world": "star", "us": "swarm", "eu": "peer"},
        {"world": "peer", "us": "star", "eu": "allreduce"},
    ],
    ids=lambda kinds: "-".join(kinds.values()),
)
def test_trees_of_unlike_hubs_give_the_bits_of_the_simulation(tmp_path: Path, kinds: dict[str, Any]) -> None:
    with Mixed(tmp_path, kinds) as links:
        links.go()
        assert links.digest == links.simulated()
