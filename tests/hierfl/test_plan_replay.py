"""A run's log simulated: what it did is what is simulated, and a log that is none is told in one clear sentence."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from small_runs import events
from typer.testing import CliRunner

from hierfl.cli import app
from hierfl.config import from_mapping
from hierfl.config.write import write
from hierfl.errors import ConfigError, OutputError
from hierfl.lifecycle import run
from hierfl.monitor.files import JsonLines
from hierfl.monitor.records import RunStarted
from hierfl.plan import knowledge, plan, replay
from hierfl.planning.case import case_of
from hierfl.planning.log import read_log
from hierfl.planning.replayed import case_of_log
from hierfl.planning.simulation import simulate
from scheduler.forecast import Learned

ROUNDS, KAPPA = 3, 2
STEPS_S = (0.01, 0.02, 0.06, 0.035)


def mapping(folder: Path) -> dict[str, Any]:
    """Five sites under a root and a hub with two rounds of its own; steps wait 2 ms, on two declared devices."""
    north = {"name": "north", "rounds": KAPPA, "residency": ["no"], "members": [{"name": "a"}, {"name": "b"}]}
    return {
        "name": "live",
        "task": {"kind": "synthetic", "num_samples_min": 8, "num_test": 4, "step_s": 0.002},
        "training": {"batch_size": 4, "local_steps": 4},
        "federation": {
            "name": "world",
            "rounds": ROUNDS,
            "members": [north, {"name": "c", "training": {"local_steps": 12}}, {"name": "d"}, {"name": "e"}],
        },
        "runtime": {"kind": "local", "devices": [{"name": "gpu", "count": 2, "labels": ["no"]}], "policy": "fifo"},
        "output": {"dir": str(folder), "tensorboard": False},
    }


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real run's folder."""
    folder = tmp_path_factory.mktemp("runs")
    return Path(run(from_mapping(mapping(folder)))["run_dir"])


def test_the_work_of_the_log_is_simulated_and_nothing_else(run_dir: Path) -> None:
    found = replay(run_dir)
    trained = [event for event in events(run_dir) if event["event"] == "site_trained"]
    assert found.rounds == ROUNDS and found.num_jobs == len(trained) == ROUNDS * (3 + KAPPA * 2)
    assert found.work_s == pytest.approx(sum(event["duration_s"] for event in trained))
    closed = [event for event in events(run_dir) if event["event"] == "round_closed" and event["node"] == "world"]
    assert found.live.figures.round_s * ROUNDS == pytest.approx(sum(event["duration_s"] for event in closed))
    assert [one.live_s for one in found.times] == pytest.approx([event["duration_s"] for event in closed])


def test_live_and_simulated_stand_side_by_side(run_dir: Path) -> None:
    found = replay(run_dir)
    rows = {row.policy: row for row in found.policies}
    assert set(rows) == {"chain_first", "fifo", "greedy", "longest_first", "round_robin", "static"}
    assert rows["fifo"].is_configured and found.live.policy == "fifo"
    assert found.fidelity == pytest.approx(rows["fifo"].figures.round_s / found.live.figures.round_s - 1.0)
    assert -0.95 < found.fidelity < 1.0, "of the same size; how near depends on the machine"
    for row in (found.live, *found.policies):
        assert 0.0 <= row.figures.floor <= row.figures.idle + 1e-9 <= 1.0 and 0.0 < row.figures.efficiency <= 1.0 + 1e-9
    bound_s = {row.figures.efficiency * row.figures.round_s for row in (found.live, *found.policies)}
    assert max(bound_s) == pytest.approx(min(bound_s)), "one bound for all"
    assert all(0.0 < one.bound_s <= one.simulated_s + 1e-9 for one in found.times)


def test_a_log_by_hand(run_dir: Path, tmp_path: Path) -> None:
    """Two devices, a round of 1.2 s: c takes 1 s beside d 0.4 and e 0.5; 0.1 s before and after nothing runs."""
    lines: list[dict[str, Any]] = [started()]
    for number, begin in enumerate((10.0, 20.0), start=1):
        lines.append(asked("world/c", begin + 0.08, number))
        for site, worker, start, end in (
            ("c", "gpu-0", 0.1, 1.1),
            ("d", "gpu-1", 0.1, 0.5),
            ("e", "gpu-1", 0.52, 1.02),
        ):
            lines.append(phase(worker, begin + start, begin + end, f"world/{site}", number))
            lines.append(trained(worker, f"world/{site}", number, end - start))
        lines.append(closed("world", begin + 1.2, 1.2, number))
    found = replay(written(run_dir, tmp_path, lines))
    assert found.live.figures.round_s == pytest.approx(1.2) and found.rounds == 2
    assert found.live.figures.idle == pytest.approx(1 - 1.9 / 2.4)
    assert found.work_s == pytest.approx(2 * 1.9)
    log = read_log(tmp_path)
    assert log.call_s == pytest.approx(0.02) and log.pauses.opened_s == pytest.approx(
        {("world", 0): 0.08, ("world", 1): 0.08}
    )
    assert log.pauses.closing_s["world"] == pytest.approx(0.1) and log.pauses.between_s == pytest.approx({0: 8.8})
    fifo = next(row.figures for row in found.policies if row.policy == "fifo")
    assert fifo.round_s == pytest.approx(0.08 + 0.02 + 1.0 + 0.1), "the pause before, a call's gap, the longest site"


def test_work_that_is_late_counts_in_each_round_in_which_it_went_on(run_dir: Path, tmp_path: Path) -> None:
    """One device of two trains c from 10 to 14, over two rounds and the gap of 0.5 s between them: 3.5 s of 7 are busy.

    e on the other device is busy for 1 s of each round.
    """
    lines = [started(), asked("world/c", 10.0, 1)]
    for number, begin in ((1, 10.0), (2, 12.5)):
        lines += [phase("gpu-1", begin, begin + 1, "world/e", number), trained("gpu-1", "world/e", number, 1.0)]
        if number == 2:
            lines += [phase("gpu-0", 10.0, 14.0, "world/c", 2), trained("gpu-0", "world/c", 1, 4.0)]
        lines.append(closed("world", begin + 2.0, 2.0, number))
    folder = written(run_dir, tmp_path, lines)
    saved = (folder / "config.yaml").read_text()
    (folder / "config.yaml").write_text(saved.replace("kind: all\n    probe_after: null", "kind: buffered", 1))
    live = replay(folder).live.figures
    assert live.round_s == pytest.approx(2.0)
    assert live.idle == pytest.approx(1 - (3.5 + 2.0) / 8.0) and live.efficiency == pytest.approx(5.5 / 8.0)


def test_who_was_asked_first_is_known_though_all_were_asked_at_once(run_dir: Path, tmp_path: Path) -> None:
    """The root asks at 10.1; north, told first, asks 0.3 s later, and again 0.2 s after its first round."""
    lines = [
        started(),
        asked("world/north/a", 10.4, 1),
        asked("world/north", 10.15, 1),
        asked("world/north/a", 11.7, 2),
    ]
    lines += [phase("gpu-0", 10.4, 11.4, "world/north/a", 1), trained("gpu-0", "world/north/a", 1, 1.0)]
    lines += [closed("world/north", 11.5, 1.4, 1)]
    lines += [phase("gpu-0", 11.7, 12.7, "world/north/a", 1), trained("gpu-0", "world/north/a", 2, 1.0)]
    lines += [closed("world/north", 12.9, 1.4, 2), closed("world", 13.0, 3.0, 1)]
    pauses = read_log(written(run_dir, tmp_path, lines)).pauses
    assert pauses.opened_s == pytest.approx({("world", 0): 0.1, ("world/north", 0): 0.3, ("world/north", 1): 0.2})
    assert pauses.closed_s == pytest.approx({("world/north", 0): 0.1, ("world/north", 1): 0.2, ("world", 0): 0.1})


def test_of_a_resumed_run_the_last_time_counts(run_dir: Path, tmp_path: Path) -> None:
    """Round 2 was done twice, its clock begins anew; the first time, of 9 s, does not count."""
    lines = [started()]
    for number, took in ((1, 1.0), (2, 9.0)):
        lines += [phase("gpu-0", 10, 10 + took, "world/c", number), trained("gpu-0", "world/c", number, took)]
        lines += [closed("world", 10 + took, took, number)]
    lines += [started(), phase("gpu-1", 3, 5, "world/c", 2), trained("gpu-1", "world/c", 2, 2.0)]
    lines += [closed("world", 5.0, 2.0, 2), phase("gpu-1", 6, 7, "world/c", 3), trained("gpu-1", "world/c", 3, 1.0)]
    found = replay(written(run_dir, tmp_path, lines))
    assert [one.live_s for one in found.times] == [1.0, 2.0], "the third round never closed"
    assert found.work_s == pytest.approx(3.0)


def test_of_a_long_run_the_newest_rounds_are_simulated(run_dir: Path, tmp_path: Path) -> None:
    lines = [started()]
    for number, took in enumerate((4.0, 3.0, 2.0), start=1):
        begin = 10.0 * number
        lines += [phase("gpu-0", begin, begin + took, "world/c", number)]
        lines += [trained("gpu-0", "world/c", number, took), closed("world", begin + took + 1, took + 1, number)]
    folder = written(run_dir, tmp_path, lines)
    found = replay(folder, rounds=2)
    assert (found.rounds, found.in_log, found.num_jobs, found.work_s) == (2, 3, 2, pytest.approx(5.0))
    assert [one.live_s for one in found.times] == [4.0, 3.0]
    assert found.live.figures.idle == pytest.approx(1 - 5.0 / 7.0), "in these rounds"
    said = CliRunner().invoke(app, ["plan", "--replay", str(folder), "--rounds", "2", "--plain"]).output
    assert "the newest 2 of 3 rounds, 2 trainings" in said and "--rounds 3 simulates all" in said
    assert "the newest" not in CliRunner().invoke(app, ["plan", "--replay", str(folder), "--plain"]).output
    assert replay(folder).rounds == 3
    with pytest.raises(ConfigError, match="--rounds 0: 1 or more"):
        replay(folder, rounds=0)


def test_an_earlier_run_tells_what_training_takes(run_dir: Path) -> None:
    config = from_mapping(mapping(run_dir.parent), ["federation.members.c.training.local_steps=40"])
    known = knowledge(config, run_dir=run_dir)
    found = plan(config, known)
    assert not found.is_guess and str(run_dir) in found.durations
    assert known.seconds("world/c", 40, "default") > 2 * known.seconds("world/c", 12, "default") > 2 * 12 * 0.002
    assert found.policies[0].figures.round_s > 40 * 0.002
    unknown = from_mapping(
        mapping(run_dir.parent) | {"task": {"kind": "ward_tasks:Wards"}}, ["training.local_steps=null"]
    )
    assert plan(unknown, known).counts["sites"] == 5, "samples as the run has told them"


def test_the_command_prints_a_table_or_json(run_dir: Path) -> None:
    shown = CliRunner().invoke(app, ["plan", "--replay", str(run_dir)])
    assert shown.exit_code == 0, shown.output
    assert "as it ran, fifo" in shown.stdout and "fifo *" in shown.stdout and "without the first round" in shown.stdout
    answer = json.loads(CliRunner().invoke(app, ["plan", "--replay", str(run_dir), "--json"]).stdout)
    assert answer["rounds"] == ROUNDS and answer["policy"] == "fifo" and len(answer["times"]) == ROUNDS
    assert answer["makespans_s"]["fifo"] / answer["makespans_s"]["live"] - 1 == pytest.approx(answer["fidelity"])


def test_replay_takes_nothing_beside_the_run(run_dir: Path) -> None:
    for words in (["x.yaml"], ["--devices", "2"], ["--run", str(run_dir)]):
        result = CliRunner().invoke(app, ["plan", "--replay", str(run_dir), *words])
        assert result.exit_code == 2 and "give no CONFIG" in result.stderr


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda folder: (folder / "events.jsonl").unlink(), "has no events.jsonl"),
        (lambda folder: (folder / "config.yaml").unlink(), "has no config.yaml"),
        (lambda folder: (folder / "events.jsonl").write_text("{}\nnonsense\n{}\n"), "damaged at line 2"),
        (lambda folder: (folder / "events.jsonl").write_text('{"event": "site_trained"}\n'), "line 1: KeyError"),
        (lambda folder: (folder / "events.jsonl").write_text("[]\n"), "line 1"),
        (lambda folder: (folder / "events.jsonl").write_text(""), "no trained site"),
    ],
)
def test_a_log_that_is_none_is_told(run_dir: Path, tmp_path: Path, spoil: Callable[[Path], object], said: str) -> None:
    written(run_dir, tmp_path, [started()])
    spoil(tmp_path)
    with pytest.raises(OutputError, match=said):
        replay(tmp_path)
    result = CliRunner().invoke(app, ["plan", "--replay", str(tmp_path)])
    is_none = "config.yaml" in said  # no run at all, so that the command has named something else
    assert result.exit_code == (2 if is_none else 1) and len(result.stderr.splitlines()) == 1


def test_a_run_without_a_whole_round_has_nothing_to_replay(run_dir: Path, tmp_path: Path) -> None:
    written(run_dir, tmp_path, [started(), trained("gpu-0", "world/c", 1, 1.0)])
    with pytest.raises(OutputError, match="no whole round"):
        replay(tmp_path)


def written(run_dir: Path, folder: Path, lines: list[dict[str, Any]]) -> Path:
    """Write a log by hand beside the run's configuration."""
    (folder / "config.yaml").write_text((run_dir / "config.yaml").read_text())
    (folder / "events.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def started() -> dict[str, Any]:
    return {"event": "run_started", "num_samples": {"world/c": 8}}


def asked(node: str, time_s: float, number: int) -> dict[str, Any]:
    return {"event": "nodes_changed", "time_s": time_s, "nodes": [node], "state": "training", "round_number": number}


def phase(actor: str, start_s: float, end_s: float, site: str, number: int) -> dict[str, Any]:
    span = {"start_s": start_s, "end_s": end_s, "nodes": [site], "round_number": number}
    return {"event": "phase", "time_s": end_s, "actor": actor, "phase": "train", **span}


def trained(worker: str, site: str, number: int, seconds: float) -> dict[str, Any]:
    done = {"node": site, "round_number": number, "worker": worker, "duration_s": seconds, "num_steps": 4}
    return {"event": "site_trained", "time_s": 0.0, **done}


def closed(node: str, time_s: float, duration_s: float, number: int) -> dict[str, Any]:
    return {"event": "round_closed", "time_s": time_s, "node": node, "round_number": number, "duration_s": duration_s}


@pytest.mark.parametrize("early", [{}, {"kind": "buffered", "goal": 2}, {"kind": "deadline", "after_s": 0.02}])
@pytest.mark.parametrize("policy", ["fifo", "chain_first"])
def test_a_simulated_log_is_a_log_and_leads_to_the_same_decisions(
    tmp_path: Path, early: dict[str, Any], policy: str
) -> None:
    """What a simulation writes is read, simulated again with what it learns on the way, and decides the same."""
    shape = mapping(tmp_path)
    shape["runtime"]["policy"] = policy
    shape["federation"] |= {"participation": early} if early else {}
    config = from_mapping(shape)
    case = case_of(config, knowledge(config, seconds_per_step=0.002))
    rule = config.runtime.policy
    assert rule is not None
    lines = JsonLines(tmp_path)
    samples = {site: work.weight for site, work in case.sites.items()}
    lines.on(RunStarted(0.0, "live", str(tmp_path), "local", ["gpu-0", "gpu-1"], ROUNDS, 1, 1, samples))
    first = simulate(case, rule, forecast=Learned(), emit=lines.on)
    lines.close()
    (tmp_path / "config.yaml").write_text(write(config.resolved))
    second = simulate(case_of_log(read_log(tmp_path)), rule, forecast=Learned())
    assert second.rounds_s() == pytest.approx(first.rounds_s()) and len(second.rounds_s()) == ROUNDS
    decided = [
        [(d.assign.device, [job.key for job in d.assign.jobs]) for d in ran.decisions] for ran in (first, second)
    ]
    assert decided[0] == decided[1]


@pytest.mark.parametrize("policy", ["fifo", "longest_first"])
def test_a_live_log_leads_the_simulator_to_the_decisions_of_the_run(tmp_path: Path, policy: str) -> None:
    """On one device, where time decides nothing: the same sites in the same calls, with what is learned on the way."""
    shape = mapping(tmp_path)
    members = [{"name": name, "data": {"step_s": step_s}} for name, step_s in zip("abcd", STEPS_S, strict=True)]
    shape["federation"]["members"] = [{"name": "north", "members": members[:2]}, *members[2:]]
    shape["runtime"] = {"kind": "local", "num_workers": 1, "policy": policy}
    log = read_log(Path(run(from_mapping(shape))["run_dir"]))
    rule = log.config.runtime.policy
    assert rule is not None
    found = simulate(case_of_log(log), rule, forecast=Learned()).decisions
    live = [event for event in events(log.run_dir) if event["event"] == "assigned" and event["kind"] == "train"]
    assert [(d.round_number, [job.name for job in d.assign.jobs]) for d in found] == [
        (event["round_number"], event["sites"]) for event in live
    ]
