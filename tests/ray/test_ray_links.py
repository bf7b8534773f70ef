"""Institutions with a Ray each: aggregators and workers are actors on both sides, and the bits are the same."""

from __future__ import annotations

from pathlib import Path

import pytest
from link_processes import Links, free_port, members
from ray_runs import environment

pytestmark = [pytest.mark.ray, pytest.mark.slow]


def test_each_institution_has_a_ray_of_its_own(tmp_path: Path, ray_temp: Path) -> None:
    runtime = {"kind": "ray", "num_workers": 1, "num_cpus": 2}
    tree = members(["us"], free_port(), deadline_s=120)
    with Links(tmp_path, {"rounds": 3, "members": tree}, runtime=runtime) as links:
        links.env = environment(ray_temp)
        links.serve()
        links.join("us")
        for name in ("world", "us"):
            assert links.wait(name) == 0, links.said(name)
        local = links.hierfl("run", "runtime.kind=local", "runtime.num_cpus=null", "output.dir=simulated", "--json")
        assert f'"{links.digest}"' in local.stdout, local.stderr
