"""A member measures what the plan has and nothing else, whatever its hub asks."""

from __future__ import annotations

import json
import queue
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from link_inside import Inside, several_runs  # noqa: F401
from small_runs import config_of, hub, site

from hierfl.config.learning import FineTune
from hierfl.config.schema import Evaluation, Stopping
from hierfl.errors import LinkError, told_above
from hierfl.learning.metrics import Tally
from hierfl.learning.state import ModelState
from hierfl.lifecycle import run
from hierfl.link import asks
from hierfl.link._wire import link_pb2 as wire
from hierfl.link.approval import plan_of
from hierfl.link.branch import Branch
from hierfl.link.desk import Desk
from hierfl.link.ledger import Ledger
from hierfl.link.measured import FILE, MOST_MODELS, Measured, check_measurement
from hierfl.link.payload import Outgoing, Shape
from hierfl.link.served import as_served
from hierfl.link.spool import Spool
from hierfl.link.store import Store
from hierfl.runtime.local import LocalDriver

LINK = {"address": "hub.example.org:8443"}


def federation(folder: Path, stay: Any = (), rounds: int = 5, **evaluation: Any) -> Any:
    members = [{**site("c"), **dict(stay), "link": LINK}, site("d")]
    return config_of(folder, hub("world", *members, rounds=rounds), evaluation=evaluation)


class Member:
    """One process of the member world/c: a desk over its branch, which is asked by messages."""

    def __init__(self, folder: Path, config: Any, run: str = "run-1") -> None:
        self.run, self.logged, self.num_measured, self.num_asked = run, list[tuple[str, str]](), 0, 0
        self.said: queue.SimpleQueue[wire.Answer] = queue.SimpleQueue()
        seen = as_served(config, "world/c")
        self.driver = LocalDriver(seen.runtime)
        ledger = Ledger(folder / "privacy.jsonl")
        self.branch = Branch(seen, "world/c", self.driver, folder / "states", lambda record: None, ledger)
        self.models: dict[bytes, ModelState] = {}
        self.desk = Desk(
            *(lambda: self.branch, Store(folder / "store"), self.said.put, self._fetch),
            *(lambda level, said: self.logged.append((level, said)), lambda: None),
        )
        self._counted = self.branch._engine.tally
        self.branch._engine.tally = self._tally  # type: ignore[method-assign]

    def __enter__(self) -> Member:
        self.branch.prepare(self.run, None)
        return self

    def __exit__(self, *_: object) -> None:
        self.desk.close(10.0)
        self.driver.close()
        assert self.desk.failed is None, self.desk.failed

    def _tally(self, *what: Any, **how: Any) -> Tally:
        self.num_measured += 1
        return self._counted(*what, **how)

    def _fetch(self, shape: Shape, digest: bytes, path: Path, spool: Spool) -> None:
        found = self.models[digest]
        path.write_bytes(found.floats.tobytes() + found.ints.tobytes())

    def measure(self, round_number: int, model: int = 0, *, tunes: bool = False) -> wire.Evaluated:
        """Ask for one of several models, each time under an id of its own."""
        layout = self.branch.layout
        state = ModelState(np.full(layout.num_floats, model / 8, np.float32), np.zeros(layout.num_ints, np.int64))
        made = Outgoing(state.floats, state.ints)
        self.models[made.digest] = state
        ask = asks.evaluate(made.shape, made.digest, "", round_number, tunes=tunes)
        self.num_asked += 1
        ask.id = self.num_asked
        self.desk.asked(self.run, ask)
        return self.said.get(timeout=20).evaluated

    def refused(self, *what: int, **how: bool) -> str:
        """Ask for what is not measured, as the member's log says, too; give the reason that the hub hears."""
        before = self.num_measured
        error = self.measure(*what, **how).error
        assert error and self.num_measured == before
        level, said = self.logged[-1]
        assert level == "error" and told_above(said) == error
        return error


def test_with_evaluation_every_0_nothing_is_measured_whatever_is_asked(tmp_path: Path) -> None:
    with Member(tmp_path, federation(tmp_path, every=0)) as member:
        for number in (0, 1, 5, 999):
            said = member.refused(number)
            assert (
                said == f"a measurement after round {number} is asked for, and the plan has none (evaluation.every: 0)"
            )
        assert "the plan has none" in member.refused(5, tunes=True)
        assert not (tmp_path / "states/run-1" / FILE).exists()


def test_only_rounds_that_the_plan_measures_are(tmp_path: Path) -> None:
    with Member(tmp_path, federation(tmp_path, every=2)) as member:
        for number in (2, 4, 5):
            assert member.measure(number).tally.num_samples == 6
        for number in (1, 3):
            assert member.refused(number).endswith("the plan has one after every 2 and after the last, 5")
        for number in (0, 6, 999):
            assert member.refused(number) == f"a measurement after round {number} is asked for, and the plan has 5"
        assert "evaluation.fine_tune" in member.refused(5, tunes=True)


def test_sites_make_models_their_own_only_when_the_plan_says_so(tmp_path: Path) -> None:
    with Member(tmp_path, federation(tmp_path, fine_tune={"steps": 2})) as member:
        assert "the plan has one after the last, 5" in member.refused(4, tunes=True)
        assert not member.measure(4).error and not member.measure(5, tunes=True).error


def test_a_member_measures_while_it_is_one(tmp_path: Path) -> None:
    with Member(tmp_path, federation(tmp_path, {"joins_at": 2, "leaves_at": 4}.items())) as member:
        member.branch.enter(1)
        for number in (1, 4, 5):
            with pytest.raises(LinkError, match="world/c takes part from round 2 to round 3"):
                member.branch.tally(number, bytes(32), ModelState(np.zeros(0, np.float32), np.zeros(0, np.int64)))


def test_nothing_is_measured_before_a_run_is_begun(tmp_path: Path) -> None:
    member = Member(tmp_path, federation(tmp_path))
    assert member.refused(1) == "a measurement was asked for before the run was begun"
    member.__exit__()


def test_a_round_has_few_models_also_for_a_process_that_comes_later(tmp_path: Path) -> None:
    """What is asked again, under whichever id, is answered again: it is the same model."""
    config = federation(tmp_path)
    with Member(tmp_path, config) as member:
        for model in (*range(MOST_MODELS), 0):
            assert not member.measure(3, model).error
        assert "another model is to be measured after round 3, and 4 were" in member.refused(3, MOST_MODELS)
        assert not member.measure(4, MOST_MODELS).error, "each round has its own"
    with Member(tmp_path, config) as member:
        assert "another model is to be measured after round 3" in member.refused(3, MOST_MODELS)
        assert not member.measure(3, 0).error
    with Member(tmp_path, config, "run-2") as member:
        assert not member.measure(3, MOST_MODELS).error, "and each run"


def test_a_model_is_noted_before_it_is_measured(tmp_path: Path) -> None:
    with Member(tmp_path, federation(tmp_path)) as member:

        def fails(*_: Any, **__: Any) -> Tally:
            raise LinkError("dies here")

        member.branch._engine.tally = fails  # type: ignore[method-assign]
        assert member.measure(3).error == "dies here"
        [line] = (tmp_path / "states/run-1" / FILE).read_text().splitlines()
        assert json.loads(line) == {"round": 3, "model": next(iter(member.models)).hex()}
        (tmp_path / "states/run-1" / FILE).unlink()
        (tmp_path / "states/run-1" / FILE).mkdir()
        assert "cannot be written" in member.refused(4)


def test_a_line_that_was_cut_off_does_not_count_and_a_spoilt_file_is_not_read_over(tmp_path: Path) -> None:
    Measured(tmp_path).admit(1, b"a" * 32)
    whole = (tmp_path / FILE).read_bytes()
    (tmp_path / FILE).write_bytes(whole + whole[:-9])
    Measured(tmp_path).admit(2, b"b" * 32)
    assert [json.loads(line)["round"] for line in (tmp_path / FILE).read_text().splitlines()] == [1, 2]
    (tmp_path / FILE).write_text("nonsense\n")
    with pytest.raises(LinkError, match=r"cannot be read\n  in detail: .*put it back from a copy, or remove it, if"):
        Measured(tmp_path)


def planned(config: Any, stopped_after: int | None) -> Iterator[tuple[int, bool]]:
    """The measurements of a run, as `Rounds` has them: of the model, and of what sites make of it."""
    evaluation, rounds = config.evaluation, config.federation.root.rounds
    for done in range(1, rounds + 1):
        if evaluation.every and (done % evaluation.every == 0 or done == rounds):
            yield done, False
            is_last = done in (rounds, stopped_after)
            if evaluation.fine_tune is not None and (is_last or evaluation.fine_tune.at == "every"):
                yield done, True
            if done == stopped_after:
                return


@given(
    st.integers(0, 7),
    st.integers(1, 9),
    st.sampled_from([None, FineTune(1), FineTune(1, at="every")]),
    st.booleans(),
)
def test_what_is_allowed_is_what_a_run_asks_for(
    small: Callable[..., Any], every: int, rounds: int, tuning: FineTune | None, stops: bool
) -> None:
    config = small(every, rounds, tuning, stops)
    wanted = set(planned(config, None))
    for number in range(1, rounds + 1) if stops and every else ():
        wanted |= set(planned(config, number)) if number % every == 0 else set()

    def allowed(number: int, tunes: bool) -> bool:
        try:
            check_measurement(config, number, tunes=tunes)
        except LinkError:
            return False
        return True

    assert {(n, tunes) for n in range(-1, 12) for tunes in (False, True) if allowed(n, tunes)} == wanted


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Any]:
    config = federation(tmp_path_factory.mktemp("runs"))

    def made(every: int, rounds: int, tuning: FineTune | None, stops: bool) -> Any:
        tree = replace(config.federation, root=replace(config.federation.root, rounds=rounds))
        stopping = Stopping("loss", patience=1) if stops else Stopping()
        evaluation = Evaluation(every=every, fine_tune=tuning)
        return replace(config, federation=tree, evaluation=evaluation, stopping=stopping)

    return made


@pytest.mark.usefixtures("several_runs")
@pytest.mark.parametrize(
    ("top", "measured"),
    [
        ({"evaluation": {"every": 2, "fine_tune": {"steps": 1}}}, [2, 4, 5]),
        ({"evaluation": {"every": 2}, "stopping": {"metric": "loss", "patience": 1, "min_delta": 9.0}}, [2, 4]),
        ({"evaluation": {"every": 0}}, []),
    ],
    ids=["every second", "stopped early", "never"],
)
def test_runs_over_links_and_again_after_their_hub_went_back_are_answered(
    tmp_path: Path, top: dict[str, Any], measured: list[int]
) -> None:
    """One model a round, also at a site below a linked hub that has several rounds for one of the root's."""
    inner = hub("north", {**site("a"), "link": LINK}, "b", rounds=2, link=LINK)
    root = hub("world", inner, {**site("c"), "link": LINK}, rounds=5)
    output = {"dir": str(tmp_path / "runs"), "tensorboard": False, "keep": 9}
    config = config_of(tmp_path / "runs", root, output=output, **top)
    simulated = run(config)
    linked = Inside(config, tmp_path / "linked").go()
    assert linked["nodes"]["world/c"] == simulated["nodes"]["world/c"]
    folder = Path(linked["run_dir"])
    (folder / "summary.json").unlink()
    for late in sorted((folder / "checkpoints").glob("round-*"))[1:]:
        shutil.rmtree(late)
    assert Inside(config, tmp_path / "linked").go(resumed=folder)["model_digest"] == simulated["model_digest"]
    for path in ("world__c", "world__north", "world__north__a"):
        file = tmp_path / "linked" / path / "states/run-1" / FILE
        rounds = [json.loads(line)["round"] for line in file.read_text().splitlines()] if measured else []
        assert rounds == measured, path


def test_the_plan_says_how_often_and_of_how_many_models(tmp_path: Path) -> None:
    for every, said in ((1, "after each round, of"), (3, "after every 3 rounds and the last, of"), (0, "")):
        leaves = [one for one in plan_of(federation(tmp_path, every=every), "world/c").leaves if "models" in one]
        assert [one.startswith(f"{said} at most {MOST_MODELS} models, counts of") for one in leaves] == [True] * bool(
            every
        )
