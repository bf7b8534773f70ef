"""Privacy between real processes over mutual TLS: what left a site is paid for, whoever is killed, and no budget is
exceeded.

Noise over links is secret and differs from run to run, so no two models are the same: what is compared is accounting.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

pytest.importorskip("dp_accounting")

from link_deaths import NEVER, heard
from link_processes import Links, free_port, members

from hierfl.accountant import epsilon
from hierfl.learning.privacy import Release
from hierfl.link.ledger import FILE

SITES = ("cleveland", "budapest", "long_beach")
DELTA = 1e-4
NOISE = {"kind": "dp_sgd", "noise_multiplier": 1.5, "max_grad_norm": 1.0, "delta": DELTA}
BUDGET = 20.0
TRAINING = {"lr": 0.1, "batch_size": 8, "local_steps": 10}

PAID_FOR_NOTHING = {"paid", "stored"}
"""What dies then has told nobody of a training that is paid for, and trains anew."""


def sites(port: int, **own: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Three hospitals, each a member with a process of its own."""
    link = {"address": f"localhost:{port}", "deadline_s": 300}
    return [{"name": name, "link": link, **own.get(name, {})} for name in SITES]


class Private(Links):
    """Such a federation; its processes die where they are told."""

    def join_to_die(self, deaths: Mapping[str, Sequence[tuple[str, int]]]) -> None:
        """Start members that die one after the other, and again, until they need not any more."""
        for time in range(max(map(len, deaths.values())) + 1):
            for name, moments in deaths.items():
                if time:
                    self.has_died(name)
                self.die(name, *[*moments, (NEVER, 0)][time])
                self.join(name)

    def ledger(self, name: str) -> list[dict[str, Any]]:
        """Read what a member has paid, line by line."""
        [file] = self.folder.glob(f"runs/heart-world__{name}/*/{FILE}")
        return [json.loads(line) for line in file.read_text().splitlines()]

    def spent(self, name: str, site: str = "", repeated: Counter[int] | None = None) -> float:
        """Add up a site's ledger, or all of it but for lines of rounds that are repeated."""
        lines, left = [], Counter(repeated)
        for line in self.ledger(name):
            if left[line["round"]]:
                left[line["round"]] -= 1
            else:
                lines.append(line)
        return epsilon([Release(*line["sites"][site or f"world/{name}"]) for line in lines], DELTA)

    def told(self) -> dict[str, str]:
        """Ask `hierfl validate` what the whole run is to cost each site."""
        return dict(json.loads(self.hierfl("validate", "--json").stdout)["privacy"])

    @property
    def summary(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.run_dir / "summary.json").read_text())
        return found


def rounds(lines: Sequence[Mapping[str, Any]]) -> Counter[int]:
    """Count the lines of each round."""
    return Counter(line["round"] for line in lines)


def private(folder: Path, tree: list[dict[str, Any]], num_rounds: int, root: Any = None, **top: Any) -> Private:
    """Give a federation that may pay more than its plan says, by a good deal. `root`, `top`: more of its settings."""
    whole = {"rounds": num_rounds, "privacy": {**NOISE, "epsilon": BUDGET}, "members": tree, **(root or {})}
    top["output"] = {"dir": "runs", "tensorboard": False, **top.get("output", {})}
    return Private(folder, whole, **{"training": TRAINING, **top})


@pytest.mark.slow
def test_whatever_left_a_site_was_paid_for_whoever_is_killed_and_when(tmp_path: Path) -> None:
    """Each member dies at two moments of two rounds, and then the hub with half a round in its hands."""
    deaths = {
        "cleveland": [("trains", 1), ("sent", 3)],
        "budapest": [("unpaid", 1), ("told", 3)],
        "long_beach": [("paid", 1), ("stored", 3)],
    }
    with private(tmp_path, sites(free_port()), 6) as links:
        told = links.told()
        links.die("world", "took", 5)
        links.serve()
        links.join_to_die(deaths)
        links.has_died("world")
        before = {name: links.ledger(name) for name in SITES}
        links.resume()
        links.end("world", *SITES)
        privacy, came = links.summary["privacy"], heard(tmp_path)
        for name in SITES:
            lines, path = links.ledger(name), f"world/{name}"
            anew = Counter(number for moment, number in deaths[name] if moment in PAID_FOR_NOTHING)
            assert rounds(lines) == Counter(range(1, 7)) + anew
            assert lines[: len(before[name])] == before[name], "what was paid stays paid"
            for number in range(1, 7):
                assert 1 <= len(came[path, number]) <= rounds(lines)[number], "each update that the hub had is paid for"
            said = privacy["sites"][path]
            assert said["epsilon"] == said["epsilon_planned"] == links.spent(name, repeated=anew)
            assert f"epsilon {said['epsilon']:.3g} at delta 0.0001" in told[path]
            assert (said["epsilon"] < links.spent(name) < BUDGET) if anew else (said["epsilon"] == links.spent(name))
        assert privacy["epsilon"] == max(said["epsilon"] for said in privacy["sites"].values())
        assert links.summary["nodes"]["world"]["auc"] > 0.8


@pytest.mark.slow
def test_a_budget_that_is_used_up_ends_a_sites_part_by_name(tmp_path: Path) -> None:
    """The hub dies in round 12, goes back to round 6 with no journal, and members, who let go of round 7, train anew.

    One site has a budget for two rounds above the plan. The others go on without it; a second run from its folder is
    refused.
    """
    once = Release(TRAINING["batch_size"] / 199, NOISE["noise_multiplier"], TRAINING["local_steps"])
    budget = 1.0001 * epsilon([once] * 14, DELTA)
    tree = sites(free_port(), cleveland={"privacy": {**NOISE, "epsilon": budget}})
    goes_back = {"redundancy": {"journal": "none"}, "output": {"checkpoint_every": 6}}
    with private(tmp_path, tree, 12, {"on_failure": "continue"}, **goes_back) as links:
        links.die("world", "took", 12)
        links.serve()
        links.join(*SITES)
        links.has_died("world")
        before = {name: links.ledger(name) for name in SITES}
        links.resume()
        links.end("world", *SITES)
        for name in SITES:
            assert links.ledger(name)[: len(before[name])] == before[name], "what was paid stays paid"
        for name in SITES[1:]:
            found = rounds(links.ledger(name))
            assert found.pop(12) in (1, 2), "its training may not have begun when the hub died"
            assert found == Counter([*range(1, 12), *range(7, 12)])
        assert len(links.ledger("cleveland")) == 14
        assert links.spent("cleveland") <= budget
        words = f"privacy.epsilon is {budget:g}, and another round makes it"
        for name in ("world", "cleveland"):
            assert f"world/cleveland: {words}" in links.said(name)
        assert links.summary["privacy"]["sites"]["world/cleveland"]["epsilon"] == epsilon([once] * 12, DELTA)
        links.serve()
        links.join(*SITES)
        assert links.wait("world") == 1, links.said("world")
        assert f"world/cleveland: privacy.epsilon is {budget:g}, and it would pay" in links.said("world")
        assert "of it by runs before" in links.said("world")
        assert len(links.ledger("cleveland")) == 14


@pytest.mark.slow
def test_masked_updates_are_paid_for_too(tmp_path: Path) -> None:
    """Hubs of sites mask updates that have noise in them; three members die in one round, and then the hub."""
    below = {"us": ("cleveland", "long_beach"), "hungary": ("budapest",), "switzerland": ("zurich_basel",)}
    deaths = {"hungary": [("paid", 2)], "us": [("masked", 2)], "switzerland": [("sent", 2)]}
    tree = members(tuple(below), free_port(), deadline_s=300)
    with private(tmp_path, tree, 5, {"secure_aggregation": "masks"}) as links:
        told = links.told()
        links.die("world", "took", 4)
        links.serve()
        links.join_to_die(deaths)
        links.has_died("world")
        links.resume()
        links.end("world", *below)
        for name in below:
            anew = Counter(number for moment, number in deaths[name] if moment in PAID_FOR_NOTHING)
            assert rounds(links.ledger(name)) == Counter(range(1, 6)) + anew
            for site in below[name]:
                path = f"world/{name}/{site}"
                once = links.spent(name, path, repeated=anew)
                assert f"epsilon {once:.3g} at delta 0.0001" in told[path]
                assert links.spent(name, path) < BUDGET
        assert links.summary["nodes"]["world"]["auc"] > 0.8


@pytest.mark.slow
def test_epochs_of_patients_masks_and_adapters_have_the_bits_of_the_simulation_whoever_is_killed(
    tmp_path: Path,
) -> None:
    """Noise is no secret here: each training's key is what the simulation has for it."""
    num_visits = {"a": 12, "b": 20, "c": 16, "d": 24}
    for name, number in num_visits.items():  # two visits each
        x, z = np.random.RandomState(number).randn(2, number)
        visits = {"x": x, "z": z, "sick": (x > 0).astype(int), "pid": np.arange(number) // 2, "use": ["train"] * number}
        pa.parquet.write_table(pa.table(visits), tmp_path / f"{name}.parquet")
    (tmp_path / "sitecustomize.py").write_text(
        "import os, sys\n"
        "drawn = os.urandom\n"
        "def known(size):\n"
        "    is_noise = sys._getframe(1).f_globals['__name__'] == 'hierfl.runtime.secrecy'\n"
        "    return b'seed 0' if is_noise else drawn(size)\n"
        "os.urandom = known\n"
    )
    deaths = {"c": [("paid", 2)], "us": [("masked", 2)], "d": [("sent", 2)]}
    link = {"address": f"localhost:{free_port()}", "deadline_s": 300}
    here = {name: {"name": name, "data": {"path": f"{name}.parquet"}} for name in num_visits}
    us = {"name": "us", "rounds": 2, "members": [here["a"], here["b"]], "link": link}
    tree = [us, *({**here[name], "link": link} for name in "cd")]
    task = {
        "kind": "parquet",
        "features": ["x", "z"],
        "label": "sick",
        "patient": "pid",
        "split": "use",
        "network": "mlp",
    }
    top = {"task": {**task, "standardise": "none"}, "lora": {"rank": 1}, "seed": 0, "evaluation": {"every": 0}}
    root = {"secure_aggregation": "masks", "privacy": {**NOISE, "epsilon": 1000.0, "unit": "patient"}}
    with private(tmp_path, tree, 3, root, **top, training={"lr": 0.1, "batch_size": 4, "local_epochs": 2}) as links:
        links.env["PYTHONPATH"] += f":{tmp_path}"
        links.die("world", "took", 3)
        links.serve()
        links.join_to_die(deaths)
        links.has_died("world")
        links.resume()
        links.end("world", "us", "c", "d")
        assert links.digest == links.simulated()
        prices = {"us": {"us/a": [4 / 6, 1.5, 2 * 4], "us/b": [4 / 10, 1.5, 2 * 6]}}
        prices |= {"c": {"c": [4 / 8, 1.5, 4]}, "d": {"d": [4 / 12, 1.5, 6]}}
        for name, sites in prices.items():
            anew = Counter(number for moment, number in deaths[name] if moment in PAID_FOR_NOTHING)
            assert rounds(links.ledger(name)) == Counter(range(1, 4)) + anew
            for line in links.ledger(name):
                assert line["sites"] == {f"world/{site}": price for site, price in sites.items()}
                assert {*line["units"].values()} == {"patient"}
        said = links.summary["privacy"]["sites"]["world/d"]
        assert said["epsilon"] == said["epsilon_planned"] == links.spent("d")
        assert not any("Traceback" in links.said(name) for name in ("world", "us", "c", "d"))


@pytest.mark.slow
@pytest.mark.parametrize("way", ["a higher epsilon", "without the site"])
def test_a_run_that_a_used_up_budget_has_stopped_goes_on_once_all_agree_to_another_yaml(
    tmp_path: Path, way: str
) -> None:
    """A site trains round 2 twice, since it died between, and has nothing left for round 3. It waits for the hub until
    somebody ends it, and so does one with the YAML of before.
    """
    once = Release(TRAINING["batch_size"] / 199, NOISE["noise_multiplier"], TRAINING["local_steps"])
    budget, one_more = 1.0001 * epsilon([once] * 3, DELTA), epsilon([once] * 4, DELTA)
    tree = sites(free_port(), cleveland={"privacy": {**NOISE, "epsilon": budget}})
    with private(tmp_path, tree, 3) as links:
        links.die("cleveland", "paid", 2)
        links.serve()
        links.join(*SITES)
        links.again("cleveland")
        assert links.wait("world") == 1, links.said("world")
        paid = links.ledger("cleveland")
        assert rounds(paid) == Counter({1: 1, 2: 2})
        *_, ended, or_else, way_on = links.said("world").splitlines()
        more = "with a higher privacy.epsilon, to which all agree anew, `hierfl serve --resume` goes on"
        words = f"world/cleveland: privacy.epsilon is {budget:g}, and another round makes it {one_more:.3g}"
        words = f"{words}; rounds trained anew cost anew; {more}"
        assert ended == f"error: world/cleveland could not be trained: {words}"
        assert or_else == "(on_failure: continue goes on without such a site)"
        assert way_on.startswith("the last commit is") and f"--resume {links.run_dir.relative_to(tmp_path)}" in way_on
        for name in ("cleveland", "budapest"):
            links.stop(name)
        assert links.said("cleveland").count(words) == 1
        goes_on = way == "a higher epsilon"
        if goes_on:
            links.change(lambda world: world["members"][0]["privacy"].update(epsilon=BUDGET))
        else:
            links.change(lambda world: world.update(on_failure="continue"))
        links.resume()
        links.join("cleveland", "budapest")
        links.until("long_beach", "its configuration is another one than this hub's")
        links.stop("long_beach")
        links.join("long_beach")
        links.end("world", *SITES)
        assert "from round 3 on: the configuration as it is given now; config-1.yaml held before" in links.said("world")
        assert links.ledger("cleveland")[:3] == paid
        assert rounds(links.ledger("cleveland")[3:]) == Counter([3] if goes_on else [])
        assert (f"error: world/cleveland: could not be trained: {words}" in links.said("world")) != goes_on
        for name in SITES[1:]:
            assert rounds(links.ledger(name)) == Counter([1, 2, 3]), "what was ready when the run ended is sent again"
        assert not any("Traceback" in links.said(name) for name in ("world", *SITES))
