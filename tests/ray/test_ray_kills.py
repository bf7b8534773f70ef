"""Processes are killed with SIGKILL in the middle of rounds; the run ends with the bits of an undisturbed one."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from ray_runs import PATIENCE_S, Drivers, Watcher, begun, closed, committed, run, trained, tree, write_config

from hierfl.errors import RoundFailed, RuntimeUnavailable, SiteFailed
from hierfl.monitor.records import RoundClosed, RoundCommitted, SiteTrained

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("shared_ray")]


@pytest.mark.parametrize(
    ("workers", "times"),
    [(1, 2), *(pytest.param(2, times, marks=pytest.mark.slow) for times in (1, 2))],
)
def test_a_worker_that_dies_while_it_trains(
    config: Path, digest: str, tmp_path: Path, workers: int, times: int
) -> None:
    (tmp_path / "kill-b").write_text(str(times))
    watcher = Watcher()
    assert run(config, f"runtime.num_workers={workers}", watcher=watcher)["model_digest"] == digest
    deaths = watcher.deaths()
    assert len(deaths) == times
    assert all(death.node.startswith("worker-") for death in deaths)


@pytest.mark.slow
def test_a_worker_that_dies_with_a_sum_that_nobody_has_collected(config: Path, drivers: Drivers) -> None:
    """Sites take so long that each is a call of its own: the second to be trained is not the last of its hub."""
    long = "training.local_steps=200"
    digest = run(config, "runtime.kind=local", long)["model_digest"]
    watcher = Watcher([(trained(2), lambda: drivers.kill("worker-0")), (trained(9), lambda: drivers.kill("worker-0"))])
    assert run(config, "runtime.num_workers=1", long, watcher=watcher)["model_digest"] == digest
    assert watcher.strikes == []
    deaths = watcher.deaths()
    assert [death.node for death in deaths] == ["worker-0", "worker-0"]
    trainings = [(r.node, r.round_number) for r in watcher.records if isinstance(r, SiteTrained)]
    assert len(trainings) > len(set(trainings)), "nothing was lost, so nothing was tested"


@pytest.mark.slow
def test_a_worker_that_dies_between_rounds_is_replaced(config: Path, digest: str, drivers: Drivers) -> None:
    watcher = Watcher([(lambda record: isinstance(record, RoundCommitted), lambda: drivers.kill("worker-1"))])
    assert run(config, "runtime.num_workers=2", watcher=watcher)["model_digest"] == digest
    assert [notice.node for notice in watcher.deaths()] == ["worker-1"]


@pytest.mark.slow
def test_a_site_that_always_kills_its_worker_is_left_out_where_the_hub_goes_on(
    tmp_path: Path, drivers: Drivers
) -> None:
    config = write_config(tmp_path, tree(rounds=1, on_failure="continue"))
    watcher = Watcher()
    (tmp_path / "fail-b").touch()
    undisturbed = run(config, "runtime.kind=local")["model_digest"]
    (tmp_path / "fail-b").unlink()
    for notes in tmp_path.glob("steps-*"):
        notes.unlink()
    (tmp_path / "kill-b").write_text("1000000")
    assert run(config, "runtime.num_workers=2", watcher=watcher)["model_digest"] == undisturbed
    lost = watcher.notices("error")
    assert {notice.node for notice in lost} == {"world/us/b"}
    assert all("its worker died" in notice.message for notice in lost)
    rounds = [record for record in watcher.records if isinstance(record, RoundClosed) and record.node == "world/us"]
    assert [set(record.members) for record in rounds] == [{"a", "c"}, {"a", "c"}]


@pytest.mark.slow
def test_a_site_that_always_kills_its_worker_ends_a_run_that_wants_all(config: Path, tmp_path: Path) -> None:
    (tmp_path / "kill-b").write_text("1000000")
    with pytest.raises(SiteFailed, match=r"world/us/b could not be trained: its worker died 3 times"):
        run(config, "runtime.num_workers=2")
    steps = len((tmp_path / "steps-b").read_text().splitlines())
    assert steps == 3


@pytest.mark.slow
def test_many_killers_are_all_named_and_the_others_train(tmp_path: Path) -> None:
    names = "abcdefghij"
    killers = "cdfhj"
    federation = {
        "name": "world",
        "rounds": 2,
        "on_failure": "continue",
        "members": [{"name": name} for name in names],
    }
    config = write_config(tmp_path, federation)
    for name in killers:
        (tmp_path / f"kill-{name}").write_text("3")
    watcher = Watcher()
    run(config, "runtime.num_workers=1", watcher=watcher)
    assert {notice.node for notice in watcher.notices("error")} == {f"world/{name}" for name in killers}
    spared = [(r.node, r.round_number) for r in watcher.records if isinstance(r, SiteTrained)]
    assert max(spared.count(one) for one in spared) <= 2, "a suspect took others' work with it"
    first, second = (record for record in watcher.records if isinstance(record, RoundClosed))
    assert set(first.members) == set(names) - set(killers)
    assert set(second.members) == set(names)


@pytest.mark.slow
def test_a_model_that_kills_every_worker_ends_the_run_with_a_reason(config: Path, tmp_path: Path) -> None:
    (tmp_path / "kill-model").write_text("1000000")
    with pytest.raises(RuntimeUnavailable, match=r"died 6 times in a row while they built the model, worker-0 last"):
        run(config, "runtime.num_workers=1")


@pytest.mark.slow
def test_a_site_that_raises_is_named_with_its_traceback(config: Path, tmp_path: Path) -> None:
    (tmp_path / "fail-d").touch()
    with pytest.raises(SiteFailed) as caught:
        run(config, "runtime.num_workers=2")
    said = str(caught.value)
    assert "world/eu/d" in said and "site d was told to fail" in said and "faulty_task.py" in said


@pytest.mark.slow
def test_too_few_members_for_the_quorum_end_the_round_by_name(tmp_path: Path) -> None:
    federation = tree(rounds=1)
    federation["members"][0] |= {"on_failure": "continue", "quorum": 0.6}
    config = write_config(tmp_path, federation)
    for name in "ab":
        (tmp_path / f"fail-{name}").touch()
    with pytest.raises(RoundFailed, match=r"world/us: .*quorum"):
        run(config, "runtime.num_workers=2")


def test_one_that_waits_for_a_death_is_known_to_be_up_or_dead() -> None:
    import ray

    from hierfl.runtime.ray_hosts import ASIDE, HubProcess
    from hierfl.runtime.ray_spare import Spares

    begun: list[Any] = []

    def start(node: str) -> Any:
        two_threads = ray.remote(concurrency_groups={ASIDE: 1})  # type: ignore[call-overload]
        begun.append(two_threads(HubProcess).options(num_cpus=0).remote(()))
        return begun[-1]

    def wait(over: set[str]) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while spares.soonest() != over:
            assert time.monotonic() < deadline
            time.sleep(0.02)

    spares = Spares(start)
    spares.want("a")
    spares.want("b")
    spares.fill({"b"})
    ray.get(begun[0].ping.remote())
    spares.fill(())
    ray.kill(begun[1])
    wait({"a"})
    assert spares.take("a") is begun[0]
    wait(set())
    assert spares.wanted == {"b"}, "one that has died is missed"
    spares.close()
    ray.kill(begun[0])


@pytest.mark.parametrize(
    ("hub", "overrides"),
    [
        pytest.param("world", ()),
        pytest.param("world/us", (), marks=pytest.mark.slow),
        pytest.param("world/eu", (), marks=pytest.mark.slow),
        pytest.param("world/us", ("runtime.num_aggregators=1",), marks=pytest.mark.slow),
        pytest.param("world/us", ("runtime.num_aggregators=2",), marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_an_aggregator_that_dies(
    config: Path, digest: str, drivers: Drivers, hub: str, overrides: tuple[str, ...]
) -> None:
    moments = [begun, trained(3), closed("world/us", 3), committed(2), closed("world/us", 5)]
    watcher = Watcher([(moment, lambda: drivers.kill(hub)) for moment in moments])
    result = run(config, "runtime.num_workers=2", *overrides, watcher=watcher)
    assert watcher.strikes == []
    assert result["model_digest"] == digest
    said = watcher.deaths()
    assert all("aggregator died" in notice.message for notice in said)
    assert [notice.node for notice in said].count(hub) == len(drivers.killed) >= 3
    if not overrides:
        assert {notice.node for notice in said} == {hub}


@pytest.mark.slow
def test_the_root_and_an_inner_hub_and_a_worker_die_in_one_run(config: Path, digest: str, drivers: Drivers) -> None:
    def all_at_once() -> None:
        for actor in ("world", "world/us", "worker-0"):
            drivers.kill(actor)

    watcher = Watcher([(trained(3), all_at_once), (trained(12), all_at_once)])
    assert run(config, "runtime.num_workers=2", watcher=watcher)["model_digest"] == digest
    assert watcher.strikes == []
