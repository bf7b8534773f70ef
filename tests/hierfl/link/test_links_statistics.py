"""What members tell of their records over links: as much as was agreed, and the same as in a simulation."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from link_inside import Inside, several_runs  # noqa: F401
from link_members import Pki
from link_processes import Links, free_port, members
from small_runs import Listener, config_of, go, hub, site

from hierfl.errors import DataError, LinkError
from hierfl.learning.standardise import Moments
from hierfl.learning.statistics import Column, TableStatistics
from hierfl.link._wire import link_pb2 as wire
from hierfl.link.approval import plan_of
from hierfl.link.codec import moments_out, statistics_in, statistics_out
from hierfl.link.kit import Kit
from hierfl.link.terms import heeded
from hierfl.runtime.jobs import Inventory
from hierfl.told import rolled_up

LINK = {"address": "hub.example.org:8443"}
HOSPITALS = hub(
    "world",
    hub("us", "cleveland", "long_beach", link=LINK),
    {**site("budapest"), "link": LINK},
    hub("switzerland", {**site("zurich_basel"), "link": LINK}, link=LINK),
)
ASKED = {"only": True, "ranges": {"age": [20, 80], "chol": [0, 600]}}


def config(folder: Path, **asked: Any) -> Any:
    return config_of(folder, HOSPITALS, "heart_disease", statistics={**ASKED, **asked})


def told(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "statistics.json").read_text(encoding="utf-8"))["nodes"]
    return found


@pytest.mark.usefixtures("several_runs")
def test_the_root_is_told_of_its_members_as_a_simulation_says_and_of_no_site_below_them(tmp_path: Path) -> None:
    linked = Inside(config(tmp_path / "runs"), tmp_path / "linked")
    summary = linked.go()
    found = told(Path(summary["run_dir"]))
    simulated = told(go(tmp_path / "simulated", HOSPITALS, "heart_disease", statistics=ASKED).folder)
    assert list(found) == ["world", "world/us", "world/budapest", "world/switzerland"]
    assert found == {path: simulated[path] for path in found}
    crossed = b"".join(linked.up)
    assert b"cleveland" not in crossed and summary["rounds"] == 0 and not linked.down


@pytest.mark.usefixtures("several_runs")
def test_a_federation_that_trains_has_the_same_bits_and_tells_too(tmp_path: Path) -> None:
    one = config_of(tmp_path / "runs", HOSPITALS, "heart_disease", statistics={})
    summary = Inside(one, tmp_path / "linked").go()
    ran = go(tmp_path / "simulated", HOSPITALS, "heart_disease")
    assert summary["model_digest"] == ran.digest and summary["statistics"]["num_rows"] == 920


@pytest.mark.usefixtures("several_runs")
def test_a_member_tells_no_more_than_its_own_terms_allow(tmp_path: Path) -> None:
    kits = Pki(tmp_path / "pki", "trial", {"world/budapest": ("member",)})
    shutil.copytree(kits.kit("world/budapest").folder, tmp_path / "kit")
    kit, seen = Kit.open(tmp_path / "kit"), config(tmp_path / "runs")
    kit.terms.write_text("min_count: 10\nmembers: 3\nepsilon: 1.0\nscores: none\nrounds: 1\n")
    linked, monitor = Inside(seen, tmp_path / "linked"), Listener()
    linked.terms["world/budapest"] = heeded(seen, kit, plan_of(seen, kit.path))
    summary = linked.go(monitor)
    assert list(told(Path(summary["run_dir"]))) == ["world", "world/us", "world/switzerland"]
    said = [record.message for record in monitor.heard if getattr(record, "level", "") == "error"]
    assert said == [
        "could not be loaded: the terms of world/budapest are not kept: min_count: numbers of the statistics may"
        " stand for 5 records, and for 10 at least here; statistics.min_count says for how many"
    ]
    kit.terms.write_text("epsilon: 1.0\n")
    with pytest.raises(
        LinkError, match="epsilon: no noise hides records in the statistics that it asks for; min_count"
    ):
        heeded(seen, kit, plan_of(seen, kit.path))()
    trains = replace(seen, statistics=replace(seen.statistics, only=False))
    linked = Inside(trains, tmp_path / "trains")
    kit.terms.write_text("min_count: 10\n")
    linked.terms["world/budapest"] = heeded(trains, kit, plan_of(trains, kit.path))
    with pytest.raises(DataError, match=r"world/budapest: the terms of world/budapest are not kept: min_count"):
        linked.go()


def test_the_plan_says_what_is_told(tmp_path: Path) -> None:
    leaves = plan_of(config(tmp_path), "world/us").leaves
    assert leaves[0] == "nothing of a model: nothing is trained" and not any("change" in said for said in leaves)
    assert leaves[-1] == (
        "once of each column of its records how many values are missing, mean and deviation of numbers, and how often"
        " each of its 20 most frequent values is there, of age (20 to 80), chol (0 to 600) instead how many"
        " values lie in each of 20 bins: no number but those of all records and of missing values stands for fewer"
        " than 5 records of a site"
    )
    assert plan_of(config(tmp_path, min_count=1), "world/us").leaves[-1].endswith("a number may stand for one record")
    trains = plan_of(config(tmp_path, only=False, columns=["sex"], ranges={}), "world/us").leaves
    assert trains[0].startswith("per round the change of the model") and any(
        said.startswith("once of the columns sex of its records") for said in trains
    )


COLUMNS = st.builds(
    lambda values, missing, withheld, bins: Column(
        *("number", sum(values.values()), missing, withheld, moments(values), values, 0),
        (sum(values.values()), 0, 0) if bins else None,
    ),
    st.dictionaries(st.integers(0, 9).map(str), st.integers(1, 9), min_size=1),
    st.integers(0, 5),
    st.integers(0, 3),
    st.booleans(),
)


def moments(values: dict[str, int]) -> Moments:
    import numpy as np

    return Moments.of(np.repeat([float(value) for value in values], list(values.values()))[:, None])


@given(st.dictionaries(st.text(max_size=9), COLUMNS, max_size=3))
def test_statistics_arrive_as_they_were(columns: dict[str, Column]) -> None:
    found = TableStatistics(
        200, {**columns, "none": Column(missing=3), "words": Column("category", 9, 0, 0, values={})}
    )
    found = replace(found, columns={**found.columns, "words": replace(found.columns["words"], others=9)})
    assert statistics_in(wire.Statistics.FromString(statistics_out(found).SerializeToString())) == found


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"kind": "secret"}, "is of kind 'secret'"),
        ({"count": 11}, "has 11 values, and 0 are missing, in 10 rows"),
        ({"missing": 2}, "has 9 values, and 2 are missing, in 10 rows"),
        ({"others": 3}, "counts other values than it has"),
        ({"has_values": False}, "counts other values than it has"),
        ({"values": {"a" * 65: 9}}, "a value of more than 64 characters"),
        ({"bins": [1, 2]}, "has 3 values in its bins, and 9 in all"),
        ({"moments": moments_out(Moments(10, (1,), (1,)))}, "has moments of 10 values"),
        ({"moments": moments_out(Moments(9, (1, 2), (1, 2)))}, "has moments of 9 values, and 2 of them"),
        ({"name": "x" * 2001}, "a column's name of 2001 characters"),
    ],
)
def test_what_contradicts_itself_is_refused(change: dict[str, Any], said: str) -> None:
    good = {"name": "x", "kind": "number", "count": 9, "has_values": True, "values": {"1": 9}}
    statistics_in(wire.Statistics(num_rows=10, columns=[wire.Column(**good)]))
    with pytest.raises(LinkError, match=said):
        statistics_in(wire.Statistics(num_rows=10, columns=[wire.Column(**{**good, **change})]))
    with pytest.raises(LinkError, match="several columns of one name"):
        statistics_in(wire.Statistics(num_rows=10, columns=[wire.Column(**good)] * 2))


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ({"age": Column("number", 9, bins=(9,))}, "column 'age' has 1 bins with those at its ends, agreed are 22"),
        ({"sex": Column("number", 9, bins=(0, 9, 0))}, "column 'sex' has 3 bins with those at its ends, agreed are 0"),
        ({"name": Column("category", 9, values={"Jo": 9})}, "a column 'name', for which nobody has asked"),
    ],
)
def test_what_was_not_agreed_to_is_not_taken(tmp_path: Path, told: dict[str, Column], said: str) -> None:
    found = {"world/budapest": Inventory("world/budapest", 9, 0, None, statistics=TableStatistics(9, told))}
    asked = config(tmp_path, columns=["age", "chol", "sex"])
    with pytest.raises(DataError, match=f"what world/budapest tells of its records: {said}"):
        rolled_up(asked, found)
    assert rolled_up(replace(asked, statistics=None), found) == {}


@pytest.mark.slow
def test_institutions_in_processes_of_their_own_tell_and_end(tmp_path: Path) -> None:
    """One member is killed once it is asked, and begins again; nobody has a model at the end."""
    port = free_port()
    with Links(tmp_path, {"members": members(["us", "hungary"], port)}, statistics={"only": True}) as links:
        links.serve()
        links.join("us")
        links.until("us", "has joined")
        links.kill("us")
        links.join("us", "hungary")
        for name in ("world", "us", "hungary"):
            assert links.wait(name) == 0, links.said(name)
        found = told(links.run_dir)
        assert [(path, node["num_rows"]) for path, node in found.items() if path.count("/") < 2] == [
            *(("world", 920), ("world/us", 503), ("world/hungary", 294), ("world/switzerland", 123))
        ]
        assert "finished in" in links.said("world") and "chol" in links.said("world")
        assert "the federation has finished" in links.said("us")
        assert not list(tmp_path.glob("**/model.safetensors"))
