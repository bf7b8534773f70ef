"""Masked sums between real processes over mutual TLS: the bits of the simulation, whoever is killed or cut."""

from __future__ import annotations

from pathlib import Path

import pytest
from link_processes import Links, Wire, free_port, members

NAMES = ("us", "hungary", "switzerland")


@pytest.mark.slow
def test_masked_updates_end_with_the_bits_of_the_simulation_whoever_is_killed(tmp_path: Path) -> None:
    """A member is killed in the midst of a round, the wire is cut, the hub is killed and goes on with its run."""
    port = free_port()
    with Wire(port).open() as wire:
        tree = members(NAMES, wire.port, deadline_s=60)
        training = {"lr": 0.01, "batch_size": 4, "local_steps": 60}
        world = {"rounds": 10, "secure_aggregation": "masks", "members": tree}
        with Links(tmp_path, world, training=training) as links:
            links.serve("--listen", f"localhost:{port}")
            links.join(*NAMES)
            links.until("world", " 1/10 ")
            links.kill("us")
            links.join("us")
            links.until("world", " 3/10 ")
            wire.cut()
            links.until("us", "is not reached")
            wire.mend()
            links.until("world", " 5/10 ")
            links.kill("world")
            links.serve("--listen", f"localhost:{port}", "--resume", str(links.run_dir))
            for name in ("world", *NAMES):
                assert links.wait(name) == 0, links.said(name)
            assert links.digest == links.simulated()
            noted = list((tmp_path / "runs").glob("heart-world__*/*/masked/*"))
            assert not noted, "what was masked in which round is of no use once the run has ended"
            assert "masked: world learns the sum over us, hungary, switzerland" in links.said("us")
