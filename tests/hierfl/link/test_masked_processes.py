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
            links.troubled(wire, port, NAMES, 10, loses="us")
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


@pytest.mark.slow
def test_a_standby_of_the_root_goes_on_with_masked_rounds(tmp_path: Path) -> None:
    """The leader is killed in the midst of a round: members mask what they have trained anew, for the standby."""
    first, second = free_port(), free_port()
    tree = members(NAMES, first, deadline_s=30, standbys=[f"localhost:{second}"])
    more = {"redundancy": {"lease_s": 4.0}, "training": {"lr": 0.01, "batch_size": 4, "local_steps": 600}}
    with Links(tmp_path, {"rounds": 6, "secure_aggregation": "masks", "members": tree}, **more) as links:
        links.serve("--listen", f"localhost:{first}")
        links.start("second", "serve", "--kit", "pki/kits/world", "--standby", "--listen", f"localhost:{second}")
        links.join(*NAMES)
        links.until("second", "number 1, leads")
        links.until("us", "round 3: an update")
        links.kill("world")
        for name in ("second", *NAMES):
            assert links.wait(name) == 0, links.said(name)
        assert links.digest == links.simulated()
        for name in NAMES:
            for number in range(1, 7):
                assert links.said(name).count(f"round {number}: an update of weight") == 1, "nobody trains again"
