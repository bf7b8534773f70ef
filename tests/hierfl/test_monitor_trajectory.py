"""The picture of the model's way: a cycle is one line of boxes, a star a stack between its hub and itself."""

from __future__ import annotations

from pathlib import Path

from small_runs import go, hub

from hierfl.monitor.pictures import trajectory
from hierfl.monitor.report import write_report
from hierfl.monitor.run_record import read_run

Places = dict[str, list[tuple[float, float]]]


def places(made: object) -> Places:
    """Where each text stands: from the left, from the top."""
    [axes] = made.axes  # type: ignore[attr-defined]
    found: Places = {}
    for text in axes.texts:
        if text.get_text():
            x, y = text.get_position()
            found.setdefault(text.get_text(), []).append((x, -y))
    return found


def num_arrows(made: object) -> int:
    [axes] = made.axes  # type: ignore[attr-defined]
    return sum(not text.get_text() for text in axes.texts)


def test_a_cycle_goes_from_left_to_right_in_the_order_of_turns_and_ends_at_its_hub() -> None:
    made = trajectory({"w": ["c", "a", "b"]}, ["w"])
    found = places(made)
    (start, end), *turns = found["w"], *(found[name][0] for name in "cab")
    assert [start, *turns, end] == sorted([start, *turns, end])
    assert len({y for _, y in [start, *turns, end]}) == 1 and num_arrows(made) == 4


def test_a_star_stacks_its_members_between_its_hub_and_itself() -> None:
    made = trajectory({"w": ["a", "b", "c"]}, [])
    found = places(made)
    (start, end), members = found["w"], [found[name][0] for name in "abc"]
    assert {x for x, _ in members} == {members[0][0]} and start[0] < members[0][0] < end[0]
    assert len({y for _, y in members}) == 3 and num_arrows(made) == 6


def test_hubs_have_bands_of_their_own_one_below_the_other() -> None:
    found = places(trajectory({"w": ["in", "d"], "w/in": ["a", "b"]}, ["w/in"]))
    assert found["a"][0][1] > max(y for _, y in found["w"] + found["d"])
    assert len(found["in"]) == 3


def test_of_many_the_first_are_drawn_and_the_last_of_a_cycle_and_the_rest_is_counted() -> None:
    names = [f"s{i}" for i in range(100)]
    cycle, star = places(trajectory({"w": names}, ["w"])), places(trajectory({"w": names}, []))
    assert "96 more" in cycle and "s99" in cycle and cycle["s2"] < cycle["96 more"] < cycle["s99"]
    assert "96 more" in star and "s3" in star and "s99" not in star
    many = trajectory({f"w{i}": ["a"] for i in range(40)}, [])
    assert any("32 more hubs" in text.get_text() for text in many.texts)


def test_a_run_tells_whose_members_take_turns_and_in_which_order_they_did(tmp_path: Path) -> None:
    inner = hub("in", "a", "b", "c", rounds=2, topology={"kind": "cyclic", "order": "shuffled"})
    ran = go(tmp_path, hub("world", inner, "d"))
    record = read_run(ran.folder)
    assert record.started["in_turn"] == ["world/in"]
    assert sorted(record.trained["world/in"]) == ["a", "b", "c"] and set(record.trained["world"]) == {"in", "d"}
    write_report(ran.folder)
    assert (ran.folder / "trajectory.png").exists()
