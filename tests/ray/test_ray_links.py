"""Institutions with a Ray each: aggregators and workers are actors on both sides, and the bits are the same."""

from __future__ import annotations

from pathlib import Path

import pytest
from link_processes import Links, Wire, free_port, members
from ray_runs import environment

pytestmark = [pytest.mark.ray, pytest.mark.slow]


RUNTIME = {"kind": "ray", "num_workers": 1, "num_cpus": 2}


def test_each_institution_has_a_ray_of_its_own(tmp_path: Path, ray_temp: Path) -> None:
    """Four processes with a Ray each: cut from each other, killed in training, certified anew; nothing is lost."""
    port = free_port()
    with Wire(port).open() as wire:
        tree = members(["us", "hungary", "switzerland"], wire.port, deadline_s=120)
        training = {"lr": 0.01, "batch_size": 4, "local_steps": 50}
        with Links(tmp_path, {"rounds": 8, "members": tree}, runtime=RUNTIME, training=training) as links:
            links.env = environment(ray_temp)
            links.troubled(wire, port, ["us", "hungary", "switzerland"], 8, loses="hungary")
            assert links.hierfl("renew", "--ca", "pki").returncode == 0
            wire.mend()
            for name in ("world", "us", "hungary", "switzerland"):
                assert links.wait(name) == 0, links.said(name)
            assert links.digest == links.simulated("runtime.kind=local", "runtime.num_cpus=null")
