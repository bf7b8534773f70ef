"""What is asked of a member's place, and what it answers: each held against what may be, whatever comes.

The messages are those of whole runs, one for each topology; they are sent as they were, and changed.
"""

from __future__ import annotations

import os
import random
import stat
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from link_fuzz import MORE_MIB, in_short, peak_mib
from link_inside import Inside, let_several_run
from link_invented import invented, varied
from small_runs import config_of, hub, site

from hierfl.errors import HierflError, LinkError, PeerUnreached, RuntimeUnavailable, UpdateRefused
from hierfl.link import place
from hierfl.link._wire import link_pb2 as wire
from hierfl.link.asked import admitted
from hierfl.link.calls import PlaceCall
from hierfl.link.lane import Lane
from hierfl.link.objects import Objects
from hierfl.link.payload import Outgoing, Shape
from hierfl.link.place import Workplace
from hierfl.link.store import Store

CASES = 1500


@dataclass
class Tape:
    """What went to the places of a run's members, and what came back: a call for each method."""

    config: Any
    folder: Path
    layout: Any = None
    asks: dict[str, tuple[str, wire.Ask]] = field(default_factory=dict)
    answers: dict[str, tuple[str, PlaceCall, wire.Placed]] = field(default_factory=dict)


@pytest.fixture(scope="module")
def tapes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tape]:
    """Run a federation of three institutions for a round under each topology."""
    with pytest.MonkeyPatch.context() as patch:
        let_several_run(patch)
        return {kind: taped(kind, tmp_path_factory.mktemp(kind)) for kind in METHODS}


def taped(kind: str, folder: Path) -> Tape:
    link = {"address": "hub.example.org:8443", "peers": "ward.example.org:1"}
    members = [{**site(name, n=12), "link": link} for name in "abc"]
    tree = hub("world", *members, rounds=1, topology=kind, strategy="fedavgm" if kind != "peer" else "fedavg")
    tape = Tape(config_of(folder / "runs", tree), folder / "linked")
    carry_out, placed = Workplace.carry_out, Lane._placed

    def carried(self: Workplace, layout: Any, ask: wire.Ask) -> wire.Placed:
        tape.layout = layout
        tape.asks.setdefault(str(ask.place.WhichOneof("what")), (self.path, ask))
        return carry_out(self, layout, ask)

    def answered(self: Lane, call: Any, message: wire.Placed) -> None:
        tape.answers.setdefault(call.arguments[0].method, (self.path, call.arguments[0], message))
        placed(self, call, message)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Workplace, "carry_out", carried)
        patch.setattr(Lane, "_placed", answered)
        Inside(tape.config, tape.folder).go()
    return tape


METHODS = {
    "allreduce": {"cut", "add", "gather", "commit", "write_model"},
    "swarm": {"reduce", "commit", "write_model"},
    "peer": {"mix", "cut_model", "average", "join", "commit", "write_model"},
}


def test_what_is_asked_is_done_or_refused_by_name(tapes: dict[str, Tape]) -> None:
    """Nothing but a LinkError comes of a message, and few that were changed are let in."""
    for kind, tape in tapes.items():
        assert set(tape.asks) == METHODS[kind]
        for path, ask in tape.asks.values():
            assert admitted(tape.config, path, tape.layout, ask.place).method == ask.place.WhichOneof("what")
    outcomes, _ = asked_strangely(tapes, random.Random(0), CASES * len(tapes))
    assert outcomes["refused"] > outcomes["taken"] > 100 and len(outcomes) == 2, outcomes


def test_whatever_vectors_come_a_place_gives_a_result_or_a_typed_error(tapes: dict[str, Tape], tmp_path: Path) -> None:
    """Vectors of the right length with any numbers in them, infinite ones too."""
    chance, numbers = random.Random(1), np.random.default_rng(1)

    def take(holder: str, shape: Shape, digest: bytes, to: Path, limit: int | None) -> None:
        to.write_bytes(numbers.bytes(shape.num_bytes))

    for kind, tape in tapes.items():
        outcomes = Counter[str]()
        for number in range(CASES // 30):
            path, ask = chance.choice(list(tape.asks.values()))
            folder = tmp_path / f"{kind}-{number % 3}"
            at = Workplace(tape.config, path, Objects(folder / "place"), Store(folder), folder, take)
            at.begin("run-1")
            said = wire.Ask(id=number + 1, place=varied(ask.place, chance) if chance.random() < 0.5 else ask.place)
            for thing in said.place.things:  # as if others had them
                for held in [one.held for one in thing.state.vectors] or [
                    thing.sum if thing.HasField("sum") else thing.model
                ]:
                    held.holder = "world/z" if thing.WhichOneof("what") else ""
            with np.errstate(all="ignore"):
                try:
                    at.carry_out(tape.layout, said)
                    outcomes["done"] += 1
                except HierflError:
                    outcomes["refused"] += 1
        assert min(outcomes["done"], outcomes["refused"]) > 2, (kind, outcomes)


def test_what_a_member_answers_is_taken_or_refused_by_name(tapes: dict[str, Tape]) -> None:
    for kind, tape in tapes.items():
        assert set(tape.answers) == METHODS[kind]
        for path, call, said in tape.answers.values():
            call.admit(path, said)
            with pytest.raises(LinkError):
                call.admit(path, wire.Placed())
    outcomes, _ = answered_strangely(tapes, random.Random(2), CASES * len(tapes))
    assert outcomes["refused"] > 500 and min(outcomes["taken"], outcomes["failed"]) > 100, outcomes
    assert len(outcomes) == 3


def test_models_that_a_member_keeps_for_people_are_its_owners_alone(tapes: dict[str, Tape]) -> None:
    for kind, tape in tapes.items():
        kept = [*tape.folder.rglob(place.MODEL), *tape.folder.rglob(place.OWN)]
        assert len(kept) >= (6 if kind == "peer" else 3)
        assert {stat.S_IMODE(file.stat().st_mode) for file in kept} == {0o600}


@pytest.mark.slow
def test_half_a_million_questions_of_places_and_as_many_answers(tapes: dict[str, Tape]) -> None:
    """Each is taken or refused by name, for many reasons, and memory is as before."""
    start_mib = peak_mib()
    for send, least in ((asked_strangely, 25), (answered_strangely, 15)):
        outcomes, reasons = send(tapes, random.Random(3), 500_000)
        assert not outcomes["refused without a word"], outcomes
        assert outcomes["refused"] > 100_000 and outcomes["taken"] > 10_000, outcomes
        assert len(reasons) > least, reasons
    assert peak_mib() - start_mib < MORE_MIB


def asked_strangely(tapes: dict[str, Tape], chance: random.Random, num: int) -> tuple[Counter[str], set[str]]:
    """Ask places of what they were asked, changed, or of what nobody asks; give what became of it, and the reasons."""
    outcomes, reasons, kinds = Counter[str](), set[str](), list(tapes.values())
    for _ in range(num):
        tape = chance.choice(kinds)
        path, ask = chance.choice(list(tape.asks.values()))
        said = varied(ask.place, chance) if chance.random() < 0.9 else invented(wire.Place, chance)
        try:
            admitted(tape.config, path, tape.layout, said)
            outcomes["taken"] += 1
        except LinkError as error:
            outcomes["refused" if str(error) else "refused without a word"] += 1
            reasons.add(in_short(error))
    return outcomes, reasons


def answered_strangely(tapes: dict[str, Tape], chance: random.Random, num: int) -> tuple[Counter[str], set[str]]:
    """Answer a hub as members did, with changes, or anything; give what became of it, and the reasons."""
    outcomes, reasons, kinds = Counter[str](), set[str](), list(tapes.values())
    for _ in range(num):
        tape = chance.choice(kinds)
        path, call, said = chance.choice(list(tape.answers.values()))
        said = varied(said, chance) if chance.random() < 0.9 else invented(wire.Placed, chance)
        try:
            call.admit(path, said)
            outcomes["taken"] += 1
        except (PeerUnreached, RuntimeUnavailable, UpdateRefused):
            outcomes["failed"] += 1
        except LinkError as error:
            outcomes["refused" if str(error) else "refused without a word"] += 1
            reasons.add(in_short(error))
    return outcomes, reasons


def test_a_place_works_for_its_own_hub_and_its_own_run(tapes: dict[str, Tape], tmp_path: Path) -> None:
    tape = tapes["allreduce"]
    path, ask = tape.asks["cut"]
    for changed, said in (
        ({"hub": "world/other"}, "no hub of its without a centre"),
        ({"opened_by": "moon"}, "not above world"),
        ({"total_weight": 0}, "the weight of a round is 0"),
        ({"total_weight": 1}, "the weight of sums is 1"),
    ):
        message = wire.Place()
        message.CopyFrom(ask.place)
        for key, value in changed.items():
            setattr(message, key, value)
        with pytest.raises(LinkError, match=said):
            admitted(tape.config, path, tape.layout, message)
    message.CopyFrom(ask.place)
    message.things[0].sum.payload.num_floats += 1
    with pytest.raises(LinkError, match="thing 1 for cut has 6 int32"):
        admitted(tape.config, path, tape.layout, message)
    taken: list[str] = []
    at = Workplace(
        *(tape.config, path, Objects(tmp_path / "place"), Store(tmp_path), tmp_path),
        lambda holder, shape, digest, to, limit: taken.append(holder),
    )
    for run in ("../up", "", ".hidden", "a/b", "a\nb", "x" * 300):
        with pytest.raises(LinkError, match="no name of a folder"):
            at.begin(run)
    at.begin("breast MRI-20260101-120000 (2)")
    at.begin("run-1")
    kept = Objects(tmp_path / "place").put("1-0", np.zeros(5, np.int32), np.zeros(0, np.int64))
    at.begin("run-1")
    assert at.offered(kept.digest) is not None
    at.begin("run-2")
    assert at.offered(kept.digest) is None, "nothing is wanted of another run"
    with pytest.raises(PeerUnreached, match=f"{path} does not have"):
        at.carry_out(tape.layout, ask)
    assert not taken and place.MODEL == "model.safetensors"


def test_commits_of_runs_that_nobody_goes_on_with_are_let_go_of(tapes: dict[str, Tape], tmp_path: Path) -> None:
    """Of a run that has finished at once, of others once two newer ones were left; never of the one that goes on."""
    objects, tape = Objects(tmp_path / "place"), tapes["allreduce"]
    vector = (np.arange(5, dtype=np.int32), np.zeros(0, np.int64))

    def at_work(run: str) -> Workplace:
        at = Workplace(tape.config, "world/north", objects, Store(tmp_path), tmp_path, lambda *_: None)
        at.begin(run)
        return at

    def kept() -> list[str]:
        return sorted(path.name for path in (tmp_path / "place" / "commits").iterdir())

    for number, run in enumerate(("d", "c", "b")):  # left in another order than their names'
        at_work(run)
        os.utime(objects.commit(run, 1, [vector], keep=2).parent, (number, number))
    assert kept() == ["b", "c", "d"]
    at_work("d")
    assert kept() == ["b", "c", "d"], "the oldest is taken up again"
    last = at_work("a")
    assert kept() == ["b", "c"]
    objects.commit("a", 1, [vector], keep=2)
    last.begin("a")
    assert kept() == ["a", "b", "c"] and last.offered(Outgoing(*vector).digest) is not None
    last.finished()
    assert kept() == ["b", "c"]
    Workplace(tape.config, "world/north", objects, Store(tmp_path), tmp_path, lambda *_: None).finished()
    assert kept() == ["b", "c"], "no run was begun"
