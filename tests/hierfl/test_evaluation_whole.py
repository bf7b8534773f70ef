"""What whole local runs say of how a model does: at every node, in the summary and in the report."""

import pytest
from small_runs import go, hub, site

from hierfl.monitor.plain import closing_lines
from hierfl.monitor.report import write_report


def test_calibration_of_every_node_adds_up_and_is_drawn(tmp_path):
    ran = go(tmp_path, hub("world", hub("us", "a", "b"), "c"))
    nodes = ran.summary["nodes"]
    for path in ("world", "world/us", "world/us/a", "world/us/b", "world/c"):
        rows = nodes[path]["reliability"]
        assert sum(number for number, _, _ in rows) == nodes[path]["num_test"]
        gaps = sum(abs(hits - number * mean) for number, hits, mean in rows)
        assert nodes[path]["ece"] == pytest.approx(gaps / nodes[path]["num_test"], abs=1e-9)
    hits = {path: sum(row[1] for row in nodes[path]["reliability"]) for path in nodes}
    assert (
        hits["world"] == hits["world/us"] + hits["world/c"] == hits["world/us/a"] + hits["world/us/b"] + hits["world/c"]
    )
    page = write_report(ran.folder).read_text()
    assert "Calibration" in page and "calibration error" in page
    assert (ran.folder / "calibration.png").stat().st_size > 10_000


def test_the_end_says_how_evenly_the_model_serves_the_sites(tmp_path):
    ran = go(tmp_path, hub("world", hub("us", "a", site("b", test=11)), site("c", labels=1)))
    nodes, found = ran.summary["nodes"], ran.summary["fairness"]
    sites = {path: nodes[path] for path in ("world/us/a", "world/us/b", "world/c")}
    assert found["loss"]["worst_value"] == max(scalars["loss"] for scalars in sites.values())
    assert found["loss"]["weighted_mean"] == pytest.approx(nodes["world"]["loss"])  # of what adds over samples
    assert (found["auc"]["num_sites"], found["auc"]["num_undefined"]) == (2, 1)
    assert sum(line.startswith("sites ") for line in closing_lines("finished", ran.summary, "")) == 3
    assert f"<td>{found['loss']['worst']}</td>" in write_report(ran.folder).read_text()
