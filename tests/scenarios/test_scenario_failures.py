"""Bad data and failing code at a site: told by name, and the rest goes on where it may."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_runs import Ran, events, go, hub, site, tensors
from ward_tasks import Wards

from hierfl.errors import DataError, HierflError, RoundFailed, SiteFailed
from hierfl.monitor.records import NodesChanged, Notice, RoundClosed, RunEnded, RunStarted
from hierfl.monitor.report import write_report
from hierfl.monitor.words import UNDEFINED
from hierfl.planning.log import read_log
from tiers.collecting import Collecting
from tiers.messages import Share

FAULTS = ("raise", "nan", "reshape")
GOES_ON: dict[str, Any] = {"on_failure": "continue", "quorum": 0.5}


def only(folder: Path) -> Path:
    [run_dir] = folder.iterdir()
    return run_dir


def with_fault(fault: str, **settings: Any) -> dict[str, Any]:
    return hub("world", hub("up", "north", site("south", fault=fault)), "east", **settings)


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ("raise", r"ZeroDivisionError: a ward's own mistake\nTraceback .*\n  File .*ward_tasks\.py.*in loss"),
        ("nan", r"the training loss is nan; lower training\.lr, set training\.clip_norm, or look at the site's data"),
        ("reshape", r"'weight' has shape \[2, 4\] float32, the federation's model \[1, 4\] float32"),
    ],
)
def test_a_failing_site_ends_the_run_by_name(fault: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(SiteFailed, match=r"^world/up/south could not be trained: ") as caught:
        go(tmp_path, with_fault(fault))
    assert re.search(says, str(caught.value))
    assert "on_failure: continue" in str(caught.value)
    summary = json.loads((only(tmp_path) / "summary.json").read_text())
    assert summary["status"] == "failed" and "world/up/south" in summary["error"]
    assert not (only(tmp_path) / "model.safetensors").exists()
    last = events(only(tmp_path))[-1]
    assert (last["event"], last["status"]) == ("run_ended", "failed")


@pytest.mark.parametrize("error", [KeyboardInterrupt, GeneratorExit, SystemExit])
@pytest.mark.parametrize("where", ["data", "loss"])
def test_whatever_a_task_raises_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str, error: type[BaseException]
) -> None:
    def raises(self: Wards, first: Any, batch: Any = None, **_: Any) -> Any:
        raise error("of the task's own")

    monkeypatch.setattr(Wards, where, raises)
    with pytest.raises(HierflError, match=f"(?s)world.*{error.__name__}: of the task's own.*in raises"):
        go(tmp_path, with_fault(""))


@pytest.mark.parametrize("num_workers", [1, 2])
def test_a_round_goes_on_without_a_failing_site_and_says_so(num_workers: int, tmp_path: Path) -> None:
    """Whatever the fault is, it leaves no trace: the same bits, on any number of workers."""
    runtime = {"kind": "local", "num_workers": num_workers}
    runs = {fault: go(tmp_path / fault, with_fault(fault, **GOES_ON), runtime=runtime) for fault in FAULTS}
    assert len({ran.digest for ran in runs.values()}) == 1
    monitor = runs["raise"].monitor
    closed = [record for record in monitor.of(RoundClosed) if record.node == "world/up"]
    assert [list(record.members) for record in closed] == [["north"]] * 2
    assert closed[0].missing == {"south": "ZeroDivisionError: a ward's own mistake"}
    assert closed[0].reason == "1 of 2 reported, the rest lost"
    told = [notice for notice in monitor.of(Notice) if notice.node == "world/up/south"]
    assert len(told) == 2 and told[0].level == "error"
    assert told[0].message.startswith("could not be trained: ZeroDivisionError") and "Traceback" in told[0].message
    states = [record.state for record in monitor.of(NodesChanged) if "world/up/south" in record.nodes]
    assert "failed" in states
    assert runs["raise"].summary["status"] == "finished"


def test_the_round_without_it_is_the_round_of_the_others(tmp_path: Path) -> None:
    """To within the grid: the lost site's weight is in the opening's W, not in the mean."""
    found = tensors(go(tmp_path / "with", with_fault("nan", **GOES_ON)).folder)
    expected = tensors(go(tmp_path / "without", hub("world", hub("up", "north"), "east")).folder)
    for name, values in expected.items():
        assert found[name] == pytest.approx(values, abs=1e-6)


def test_too_few_for_the_quorum_end_the_run(tmp_path: Path) -> None:
    root = hub("world", "north", site("south", fault="raise"), "east", on_failure="continue", quorum=0.9)
    with pytest.raises(RoundFailed, match=r"^world: .*below the quorum of 3 of 3 members: south: ZeroDivisionError: a"):
        go(tmp_path, root)
    assert events(only(tmp_path))[-1]["status"] == "failed"


@pytest.mark.parametrize("num_workers", [1, 2])
@pytest.mark.parametrize("rounds", [1, 2])
def test_a_hub_that_gives_up_is_missing_at_its_parent(rounds: int, num_workers: int, tmp_path: Path) -> None:
    """Twice: its sites of the first round must not come into the second one's sum."""
    broken = hub("up", "north", site("south", fault="raise"), "bay", rounds=rounds, quorum=1.0)
    deep = hub("left", hub("low", broken, "quay", quorum=0.5), quorum=0.5)
    runtime = {"kind": "local", "num_workers": num_workers}
    ran = go(tmp_path / "with", hub("world", deep, "east", on_failure="continue", quorum=1.0), runtime=runtime)
    closed = [record for record in ran.monitor.of(RoundClosed) if record.node == "world/left/low"]
    assert [list(record.members) for record in closed] == [["quay"]] * 2
    assert re.match("below the quorum of 3 of 3 members: south: ZeroDivisionError", closed[0].missing["up"])
    gave_up = [notice for notice in ran.monitor.of(Notice) if notice.node == "world/left/low/up"]
    assert [notice.message.split(":")[0] for notice in gave_up] == ["gave up its round"] * 2
    without = tensors(go(tmp_path / "without", hub("world", hub("left", hub("low", "quay")), "east")).folder)
    for name, values in tensors(ran.folder).items():
        assert values == pytest.approx(without[name], abs=1e-6)


def test_a_lost_hub_is_the_end_where_its_parent_does_not_go_on(tmp_path: Path) -> None:
    broken = hub("up", site("south", fault="raise"), **GOES_ON)
    with pytest.raises(RoundFailed, match=r"^world/up: .*below the quorum of 1 of 1 members: south"):
        go(tmp_path, hub("world", broken, "east"))


def test_an_update_over_the_clip_is_the_sites_failure(tmp_path: Path) -> None:
    with pytest.raises(
        SiteFailed,
        match=r"world/south could not be trained: .* the clip of 8; .*\n  in detail: weight\[0, \d\] changed by",
    ):
        go(tmp_path, hub("world", "north", {"name": "south", "training": {"lr": 1000.0}}))


def test_a_hubs_own_change_over_the_clip_is_the_hubs_failure(tmp_path: Path) -> None:
    wild = hub("up", "north", "south", strategy={"kind": "fedavgm", "lr": 10000.0})
    with pytest.raises(RoundFailed, match=r"^world/up: the round cannot be closed: .*over the clip of 8"):
        go(tmp_path / "stop", hub("world", wild, "east"))
    ran = go(tmp_path / "continue", hub("world", wild, "east", **GOES_ON))
    closed = [record for record in ran.monitor.of(RoundClosed) if record.node == "world"]
    assert [list(record.members) for record in closed] == [["east"]] * 2
    assert "over the clip" in closed[0].missing["up"]


def test_a_site_without_training_samples_is_skipped_by_name_and_changes_no_bit(tmp_path: Path) -> None:
    root = hub("world", hub("up", "north", site("empty", n=0)), "east", hub("hollow", site("bare", n=0, test=0)))
    ran = go(tmp_path / "with", root)
    assert ran.digest == go(tmp_path / "without", hub("world", hub("up", "north"), "east")).digest
    skipped = {node for record in ran.monitor.of(NodesChanged) if record.state == "skipped" for node in record.nodes}
    assert skipped == {"world/up/empty", "world/hollow", "world/hollow/bare"}
    told = {notice.node for notice in ran.monitor.of(Notice) if "no training samples" in notice.message}
    assert told == skipped
    nodes = ran.summary["nodes"]
    assert nodes["world/up/empty"]["num_samples"] == 0 and nodes["world/up/empty"]["num_test"] == 6
    assert nodes["world/up/empty"]["accuracy"] is not None and nodes["world/hollow/bare"]["accuracy"] is None
    closed = [record for record in ran.monitor.of(RoundClosed) if record.node == "world"]
    assert closed[0].missing == {"hollow": "no training samples"}


@pytest.mark.parametrize("weights", ["uniform", "given"])
def test_a_site_without_samples_has_no_weight_either(weights: str, tmp_path: Path) -> None:
    strategy = {"kind": "fedavg", "weights": weights}
    ran = go(tmp_path / "with", hub("world", "north", site("empty", n=0, weight=5.0), "east", strategy=strategy))
    assert ran.digest == go(tmp_path / "without", hub("world", "north", "east", strategy=strategy)).digest


def test_nobody_has_anything_to_train_on(tmp_path: Path) -> None:
    with pytest.raises(RoundFailed, match=r"^world: .*no member of world has training samples"):
        go(tmp_path, hub("world", site("a", n=0), hub("up", site("b", n=0))))


def test_a_site_with_one_sample_trains(tmp_path: Path) -> None:
    ran = go(tmp_path, hub("world", site("single", n=1, test=1), "north"))
    assert ran.summary["nodes"]["world/single"]["num_samples"] == 1
    assert ran.summary["nodes"]["world/single"]["auc"] is None
    closed = ran.monitor.of(RoundClosed)
    assert set(closed[0].members) == {"single", "north"}


@pytest.mark.parametrize("auc", ["histogram", "exact"])
def test_one_class_has_no_auc_and_the_roll_up_has_one(auc: str, tmp_path: Path) -> None:
    root = hub("world", hub("up", site("sick", labels=1)), hub("down", site("well", labels=0)), "north")
    ran = go(tmp_path, root, evaluation={"auc": auc})
    nodes = ran.summary["nodes"]
    assert [nodes[path]["auc"] for path in ("world/up/sick", "world/up", "world/down/well", "world/down")] == [None] * 4
    assert 0.0 <= nodes["world"]["auc"] <= 1.0 and nodes["world/north"]["auc"] is not None
    assert json.loads((ran.folder / "summary.json").read_text())["nodes"]["world/up"]["auc"] is None


def test_a_site_that_cannot_be_loaded_is_named_before_any_round(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"^world/up/south: FileNotFoundError: south\.csv is missing"):
        go(tmp_path, with_fault("no file"))
    told = events(only(tmp_path))
    assert not any(event["event"] in ("run_started", "site_trained") for event in told)


def test_a_run_may_go_on_without_a_site_that_cannot_be_loaded(tmp_path: Path) -> None:
    ran = go(tmp_path / "with", with_fault("no file", **GOES_ON))
    told = [notice for notice in ran.monitor.of(Notice) if notice.node == "world/up/south"]
    assert told[0].level == "error"
    assert told[0].message.startswith("could not be loaded: FileNotFoundError: south.csv is missing")
    states = [record.state for record in ran.monitor.of(NodesChanged) if "world/up/south" in record.nodes]
    assert states == ["failed"], "and on the screen it does not wait for its turn"
    assert ran.digest == go(tmp_path / "without", hub("world", hub("up", "north"), "east")).digest
    assert "accuracy" not in ran.summary["nodes"]["world/up/south"]


def test_what_a_site_has_that_cannot_be_loaded_is_unknown(tmp_path: Path) -> None:
    root = hub("world", hub("up", site("south", fault="no file"), **GOES_ON), "north", "east", **GOES_ON)
    ran = go(tmp_path, root)
    (started,) = ran.monitor.of(RunStarted)
    assert [started.num_samples[path] for path in ("world/up/south", "world/up", "world/north")] == [None, None, 12]
    assert started.num_samples["world"] == 24
    page = write_report(ran.folder).read_text(encoding="utf-8")
    assert [page.count(f">{name}</td><td>{UNDEFINED}</td>") for name in ("south", "up", "north")] == [1, 1, 0]
    assert ran.summary["nodes"]["world/up/south"]["num_samples"] == 0
    assert read_log(ran.folder).num_samples["world/up/south"] == 0, "a plan from it has no work for the site"


def test_a_site_that_cannot_be_measured(tmp_path: Path) -> None:
    with pytest.raises(SiteFailed, match=r"^world/up/south could not be measured: ZeroDivisionError"):
        go(tmp_path / "stop", with_fault("raise measured"))
    ran = go(tmp_path / "continue", with_fault("raise measured", **GOES_ON))
    nodes = ran.summary["nodes"]
    assert nodes["world"]["num_test"] == 12 and "accuracy" not in nodes["world/up/south"]
    assert any("could not be measured" in notice.message for notice in ran.monitor.of(Notice))


def test_workers_that_build_unlike_models_are_told_apart(tmp_path: Path) -> None:
    runtime = {"kind": "local", "num_workers": 2}
    said = (
        r"worker-[01] cannot take part in the run: it builds another model than the federation's: .*'weight' has shape"
    )
    with pytest.raises(HierflError, match=said):
        go(tmp_path, hub("world", "north", "south"), "ward_tasks:Unlike", runtime=runtime)


@pytest.mark.parametrize("fault", FAULTS)
def test_monitors_are_closed_and_told_of_the_end(fault: str, tmp_path: Path) -> None:
    from small_runs import Listener, config_of

    from hierfl.lifecycle import run

    monitor = Listener()
    with pytest.raises(SiteFailed):
        run(config_of(tmp_path, with_fault(fault)), [monitor])
    assert monitor.closed == 1
    [ended] = monitor.of(RunEnded)
    assert ended.status == "failed"


def test_a_failing_site_leaves_nothing_in_the_next_ones_model(tmp_path: Path) -> None:
    """One worker trains south (which breaks the module) and then east: east must be as without south's visit."""
    order = [site("south", fault="reshape"), "east", "north"]
    ran: Ran = go(tmp_path / "broken", hub("world", *order, **GOES_ON), runtime={"kind": "local", "num_workers": 1})
    alone = go(tmp_path / "alone", hub("world", "east", "north"))
    found, expected = tensors(ran.folder), tensors(alone.folder)
    assert all(np.abs(found[name] - expected[name]).max() < 1e-6 for name in expected)


def test_sites_that_cannot_be_loaded_count_against_the_quorum(tmp_path: Path) -> None:
    with pytest.raises(RoundFailed, match=r"below the quorum of 2 of 2 members: .*south: FileNotFoundError"):
        go(tmp_path, with_fault("no file", on_failure="continue", quorum=1.0))


def test_a_hub_never_waits_for_an_update_that_it_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Collecting, share: Share) -> str:
        return "of a wrong kind" if share.member == "south" else ""

    monkeypatch.setattr(Collecting, "refuse", refuse)
    with pytest.raises(RoundFailed, match="its update was refused: of a wrong kind"):
        go(tmp_path, with_fault(""))
