"""What hubs were told in rounds under way goes from checkpoint to checkpoint, each thing written once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hierfl import durable
from hierfl.learning.local import Objective
from hierfl.learning.ring import PartialSum
from hierfl.learning.state import ModelState
from hierfl.runtime.jobs import Order
from hierfl.runtime.lines import Line, vectors_of
from hierfl.runtime.underway import UnderWay, carried
from tiers.journal import MAGIC, Closed, Entry, Head, Told, frame
from tiers.messages import Arrived, Begin, Close, Lost, Opening, Share, TimeUp, Update
from tiers.standing import Errand

NOTHING = np.zeros(0, np.int64)
MODEL, LATER = (ModelState(np.full(3, value, np.float32), NOTHING) for value in (1.0, 2.0))
HEAD = Head(4, "settings", ("w/i", "w/i/j"), {"w": {"i": Errand(0, 1)}, "w/i": {"j": Errand(0, 1)}})


def order(hub: str, number: int) -> Order:
    return Order(hub, number, (), Opening(hub, number, 32, 8.0, 9, "float32"), Objective())


def begun(hub: str, number: int, above: int, model: ModelState | None) -> tuple[str, Line]:
    event = Begin(number)
    return hub, Line(Told(hub, event), (event, order(hub.rpartition("/")[0], above), model, None))


def arrived(hub: str, member: str, value: int, number: int = 0) -> tuple[str, Line]:
    update = Update(hub, number, (Share(member, 1),))
    return hub, Line(Told(hub, Arrived(update)), (update, PartialSum(np.full(2, value, np.int32), NOTHING, 1)))


def made(*lines: tuple[str, Line]) -> UnderWay:
    found = UnderWay(lambda handle: handle)
    for path, line in lines:
        found.add(path, line)
    return found


def read(folder: Path) -> list[tuple[str, Any, list[list[float]]]]:
    before = carried(folder)
    assert before.head == HEAD and before.left == ()
    return [
        (entry.record.hub, entry.record.event, [vector.tolist() for vector in vectors_of(entry).values()])
        if isinstance(entry.record, Told)
        else (entry.record.hub, entry.record.close, [])  # type: ignore[union-attr]
        for entry in before.told
    ]


def test_what_was_told_comes_back_in_its_order_with_vectors_and_the_model_of_who_began_first(tmp_path: Path) -> None:
    close = Close(0, ("x",), {}, 1, "")
    lost = Lost(1, {"y": "ill"})
    under_way = made(
        begun("w/i", 0, 0, MODEL),
        arrived("w/i", "x", 7),
        ("w/i", Line(Closed("w/i", close))),
        begun("w/i/j", 1, 1, LATER),
        ("w/i", Line(Told("w/i", lost), (lost,))),
        arrived("w/i/j", "z", 8, 1),
        arrived("w", "a", 9),
    )
    under_way.mark(HEAD, {"w/i": LATER, "w/i/j": LATER})
    under_way.write(tmp_path / "it")
    assert read(tmp_path / "it") == [
        ("w/i", Begin(0), [[1.0, 1.0, 1.0], []]),
        ("w/i", arrived("w/i", "x", 7)[1].record.event, [[7, 7], []]),  # type: ignore[union-attr]
        ("w/i", close, []),
        ("w/i/j", Begin(1), []),
        ("w/i", lost, []),
        ("w/i/j", arrived("w/i/j", "z", 8, 1)[1].record.event, [[8, 8], []]),  # type: ignore[union-attr]
    ]


@pytest.mark.parametrize("above", ["is idle", "asks for something else now"])
def test_a_beginning_has_its_model_where_nobody_is_there_to_give_it_again(above: str, tmp_path: Path) -> None:
    """A hub that hands up raw sums is given none itself: its members train from the one that it was begun with."""
    under_way = made(begun("w/i", 1, 0, MODEL), begun("w/i/j", 0, 0, None))
    under_way.mark(HEAD, {"w/i/j": LATER, **({} if above == "is idle" else {"w/i": MODEL})})
    under_way.write(tmp_path / "it")
    assert read(tmp_path / "it")[-1] == ("w/i/j", Begin(0), [[2.0, 2.0, 2.0], []])


def test_the_next_checkpoint_has_the_same_files_and_what_is_new(tmp_path: Path) -> None:
    under_way = made(begun("w/i", 0, 0, MODEL), arrived("w/i", "x", 7))
    folders = [tmp_path / name for name in ("one", "two", "three")]
    for folder, more in zip(folders, ([], [arrived("w/i", "y", 8)], []), strict=True):
        for path, line in more:
            under_way.add(path, line)
        under_way.mark(HEAD, {"w/i": MODEL})
        under_way.write(folder)
        under_way.saved(folder)
    first, second, third = ({file.name: file.stat().st_ino for file in one.glob("*.records")} for one in folders)
    assert second == third and first.items() < second.items() and len(second) == 2
    assert len(read(folders[2])) == 3


def test_what_one_hub_was_told_is_one_file_and_is_gone_once_the_hub_is_idle(tmp_path: Path) -> None:
    under_way = made(begun("w/i", 0, 0, MODEL), begun("w/i/j", 0, 0, MODEL))
    for number in range(20):
        for hub in ("w/i", "w/i/j"):
            under_way.add(*arrived(hub, f"s{number}", number))
    under_way.mark(HEAD, {"w/i": MODEL, "w/i/j": MODEL})
    under_way.write(tmp_path / "one")
    under_way.saved(tmp_path / "one")
    assert len(list((tmp_path / "one").glob("*.records"))) == 2
    told = [(hub, vectors[0][0]) for hub, event, vectors in read(tmp_path / "one") if isinstance(event, Arrived)]
    assert told == [(hub, number) for number in range(20) for hub in ("w/i", "w/i/j")], "in the order in which it came"
    under_way.idle("w/i/j", 0)
    under_way.add(*arrived("w/i", "more", 21))
    under_way.mark(HEAD, {"w/i": MODEL})
    under_way.write(tmp_path / "two")
    assert [hub for hub, _, _ in read(tmp_path / "two")] == ["w/i"] * 22
    files = {name: {file.name for file in (tmp_path / name).glob("*.records")} for name in ("one", "two")}
    assert len(files["two"]) == 2 and len(files["one"] & files["two"]) == 1


def test_of_a_file_in_which_something_counts_yet_the_rest_does_not(tmp_path: Path) -> None:
    """A hub begins anew, and has kept of what it was told before only what came late."""
    under_way = made(begun("w/i", 0, 0, MODEL), arrived("w/i", "x", 7), arrived("w/i", "late", 8))
    under_way.mark(HEAD, {"w/i": MODEL})
    under_way.write(tmp_path / "one")
    under_way.saved(tmp_path / "one")
    under_way.idle("w/i", 1)
    under_way.add(*begun("w/i", 1, 0, MODEL))
    under_way.mark(HEAD, {"w/i": MODEL})
    under_way.write(tmp_path / "two")
    assert [event for _, event, _ in read(tmp_path / "two")] == [arrived("w/i", "late", 8)[1].record.event, Begin(1)]  # type: ignore[union-attr]


def test_where_the_last_checkpoint_is_gone_it_is_written_again(tmp_path: Path) -> None:
    under_way = made(begun("w/i", 0, 0, MODEL), arrived("w/i", "x", 7))
    for name in ("one", "two"):
        under_way.mark(HEAD, {"w/i": MODEL})
        under_way.write(tmp_path / name)
        under_way.saved(tmp_path / "nowhere")
    assert read(tmp_path / "two") == read(tmp_path / "one")


def test_who_is_idle_has_nothing_to_carry_but_what_came_since(tmp_path: Path) -> None:
    under_way = made(
        begun("w/i", 0, 0, MODEL), arrived("w/i", "x", 7), ("w/i", Line(Closed("w/i", Close(0, (), {}, 1, ""))))
    )
    under_way.add(*arrived("w/i", "late", 5))
    under_way.idle("w/i", 1)
    under_way.add(*begun("w/i", 1, 0, MODEL))
    under_way.mark(HEAD, {"w/i": MODEL})
    under_way.write(tmp_path / "it")
    assert [event for _, event, _ in read(tmp_path / "it")] == [arrived("w/i", "late", 5)[1].record.event, Begin(1)]  # type: ignore[union-attr]
    under_way.drop(["w/i"])
    under_way.mark(HEAD, {})
    under_way.write(tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_what_is_not_whole_is_refused(tmp_path: Path) -> None:
    under_way = made(begun("w/i", 0, 0, MODEL), arrived("w/i", "x", 7))
    under_way.mark(HEAD, {"w/i": MODEL})
    under_way.write(tmp_path / "it")
    [file] = (tmp_path / "it").glob("*.records")
    for one in (file, tmp_path / "it" / "head"):
        whole = one.read_bytes()
        for damaged in (whole[:-1], b"", whole[:-1] + bytes([whole[-1] ^ 1])):
            one.write_bytes(damaged)
            with pytest.raises(ValueError, match=one.name):
                carried(tmp_path / "it")
        one.write_bytes(whole)
    durable.write(file, [MAGIC, *frame(Told("w/i", Begin(0)))])
    with pytest.raises(ValueError, match="a file in it ends before its end"):
        carried(tmp_path / "it")


def test_what_was_left_of_a_journal_comes_back_after_what_was_told(tmp_path: Path) -> None:
    entries = [Entry(Told("w", TimeUp(number, 1.0)), memoryview(bytes(number))) for number in range(2)]
    under_way = made(begun("w/i", 0, 0, MODEL))
    under_way.mark(HEAD, {"w/i": MODEL}, [(3, entries[0]), (11, entries[1])])
    assert under_way.begun == {"w/i"}
    under_way.write(tmp_path / "it")
    found = carried(tmp_path / "it")
    assert [entry.record for entry in found.left] == [entry.record for entry in entries] and len(found.told) == 1
    assert [bytes(entry.payload) for entry in found.left] == [b"", bytes(1)]


def test_a_hub_for_which_nobody_waits_any_more_does_not_go_on(tmp_path: Path) -> None:
    """It is about to be stopped, as it was before the run was taken up."""
    under_way = made(begun("w/i", 0, 0, MODEL), begun("w/i/j", 0, 0, MODEL))
    under_way.mark(Head(4, "", ("w/i", "w/i/j")), {"w/i": MODEL, "w/i/j": MODEL})
    under_way.write(tmp_path / "it")
    assert not (tmp_path / "it").exists() and under_way.begun == set()


def test_what_sites_keep_is_not_written_once_more(tmp_path: Path) -> None:
    """The checkpoint has it, as it is by then."""
    kept = {"x": 0}, [{"x": {"control": np.full(3, 5.0)}}]
    _, line = arrived("w/i", "x", 7)
    under_way = made(begun("w/i", 0, 0, MODEL), ("w/i", replace(line, kept=kept)))
    under_way.mark(HEAD, {"w/i": LATER})
    under_way.write(tmp_path / "it")
    assert read(tmp_path / "it")[1][2] == [[7, 7], []]
