"""What hubs remember goes through a checkpoint: held updates to the bit, and who keeps being lost."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from small_runs import config_of

from hierfl.checkpoint import Checkpoint, latest, load, save, save_model
from hierfl.commits import set_aside
from hierfl.errors import OutputError
from hierfl.learning.local import Objective
from hierfl.learning.ring import PartialSum
from hierfl.learning.state import Layout, ModelState
from hierfl.members import folder_of
from hierfl.members import write as write_member
from hierfl.rundir import RunDir
from hierfl.runtime.jobs import Memory, Order
from hierfl.runtime.lines import Line
from hierfl.runtime.remembered import still_true
from hierfl.runtime.underway import UnderWay
from tiers.federation import Federation, Hub, Site
from tiers.journal import Head, Told
from tiers.messages import Begin, Opening, Share, Shortfall, Update
from tiers.standing import Errand, Losses, Standing

LAYOUT = Layout.of({"w": ((3,), "float32"), "seen": ((), "int64")})
HELD = Update("world:a/us", 6, (Share("bay", 40),), 20)
OPENINGS = {6: Opening("world:a/us", 6, 32, 8.0, 100, "float32"), 5: Opening("world:a/us", 5, 32, 8.0, 90, "float32")}
SHORT = {"bay": (Shortfall(6, 28, 40), Shortfall(7, 0, 1))}
VOID = {**SHORT, "hill": (Shortfall(5, 0, 1),)}
"""And what is still under way when the run is left off."""
STANDING = Standing(7, {"hill": Errand(5, 10)}, {"gone": Losses(3, 7)}, (HELD,), SHORT)
PART = PartialSum(np.array([1, -2, 2**30], np.int32), np.array([2**40], np.int64), 40)
US = Hub("us", (Site("bay"), Site("hill"), Site("gone")), rounds=2)
TREE = Federation(Hub("world:a", (US, Site("north")), rounds=9))
PATH = "world:a/us"
MODEL = ModelState(np.zeros(3, np.float32), np.zeros(1, np.int64))


def saved(folder: Path) -> Checkpoint:
    hubs = {PATH: (Memory(STANDING, OPENINGS), (PART,)), "world:a": (Memory(Standing(3, {}, {"us": Losses(1, 3)})), ())}
    return load(save(folder, Checkpoint(4, 0, 1, LAYOUT, MODEL, hubs=hubs), keep=2))


def test_what_hubs_remember_is_read_as_it_was_written(tmp_path: Path) -> None:
    memory, [part] = saved(tmp_path).hubs[PATH]
    assert memory.standing == Standing(7, {}, {"gone": Losses(3, 7)}, (HELD,), VOID)  # nobody is at work any more
    assert memory.openings == {6: OPENINGS[6]}
    assert part.weight == 40 and part.floats.dtype == np.int32
    assert part.floats.tobytes() == PART.floats.tobytes() and part.ints.tobytes() == PART.ints.tobytes()
    assert saved(tmp_path).hubs["world:a"] == (Memory(Standing(3, {}, {"us": Losses(1, 3)})), ())


@pytest.mark.parametrize("name", ["model", "strategies", "sites", "held", "members/us"])
def test_a_bit_that_has_changed_in_any_file_is_told_with_both_digests(name: str, tmp_path: Path) -> None:
    """A machine lost its power: the length was on its disk, and not all of the bytes."""
    members, vectors = folder_of(tmp_path, 4), {"v": np.ones(3, np.float32)}
    write_member(members, "us", MODEL)
    content = Checkpoint(4, 0, 1, LAYOUT, MODEL, {PATH: vectors}, sites={f"{PATH}/bay": vectors})
    content = replace(content, hubs={PATH: (Memory(STANDING, OPENINGS), (PART,))})
    folder = save(tmp_path, content, keep=2, members=members)
    assert load(folder).rounds_done == 4
    file = folder / f"{name}.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"\x07")
    digest = "[0-9a-f]{64}"
    said = f"checkpoint {folder} is corrupt: what {file} holds has the digest {digest}, and was written with {digest}"
    with pytest.raises(OutputError, match=said):
        load(folder)


def test_a_checkpoint_without_late_updates_has_no_file_of_them(tmp_path: Path) -> None:
    folder = save(tmp_path, Checkpoint(4, 0, 1, LAYOUT, MODEL), keep=2)
    assert not (folder / "held.safetensors").exists() and load(folder).hubs == {}


def test_all_that_is_in_a_checkpoint_is_on_disk_with_the_folders_that_list_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed: set[int] = set()
    monkeypatch.setattr(os, "fsync", lambda handle: flushed.add(os.fstat(handle).st_ino))
    under_way = UnderWay(lambda handle: handle)
    under_way.add(
        PATH, Line(Told(PATH, Begin(7)), (Begin(7), Order("world:a", 7, (), OPENINGS[6], Objective()), MODEL, None))
    )
    under_way.mark(Head(4, "settings", (PATH,), {"world:a": {"us": Errand(7, 1)}}), {PATH: MODEL})
    members = folder_of(tmp_path, 4)
    write_member(members, "us", MODEL)
    content = Checkpoint(4, 0, 1, LAYOUT, MODEL)
    folder = save(tmp_path, content, keep=2, members=members, carry=under_way.write)
    there = [folder.parent, folder, *folder.rglob("*")]
    assert {folder / "members" / "us.safetensors", folder / "under_way" / "head"} < set(there)
    assert [path for path in there if path.stat().st_ino not in flushed] == []


def test_a_runs_configuration_is_on_disk_before_its_first_round(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without it nobody goes on with a run whose machine has died."""
    flushed: set[int] = set()
    monkeypatch.setattr(os, "fsync", lambda handle: flushed.add(os.fstat(handle).st_ino))
    folder = RunDir.create(config_of(tmp_path / "runs", {"name": "world", "members": [{"name": "a"}, {"name": "b"}]}))
    there = [folder.path.parent, folder.path, *folder.path.iterdir()]
    assert folder.config in there
    assert [path for path in there if path.stat().st_ino not in flushed] == []
    save_model(folder.model, LAYOUT, MODEL)
    assert folder.model.stat().st_ino in flushed


@pytest.mark.parametrize(
    ("tree", "rounds_done"),
    [
        (Federation(Hub("other", (Site("x"),))), 4),  # there is no such hub
        (TREE, 3),  # its rounds 6 and 7 are to be done again
        (Federation(Hub("world:a", (Hub("us", (Site("bay"),)),))), 4),  # its rounds are counted otherwise now
        (Federation(Hub("world:a", (Hub("us", (Site("new"),), rounds=2),))), 4),  # nobody is left whom it concerns
    ],
)
def test_a_memory_of_another_federation_is_dropped(tree: Federation, rounds_done: int) -> None:
    assert still_true(Memory(STANDING, OPENINGS), (PART,), PATH, rounds_done, tree) is None


def test_what_is_left_of_a_memory_is_what_concerns_members_that_are_there() -> None:
    assert still_true(Memory(STANDING, OPENINGS), (PART,), PATH, 4, TREE) == (
        Memory(Standing(7, {}, {"gone": Losses(3, 7)}, (HELD,), VOID), {6: OPENINGS[6]}),
        (PART,),
    )
    fewer = Federation(Hub("world:a", (Hub("us", (Site("gone"), Site("new")), rounds=2),)))
    assert still_true(Memory(STANDING, OPENINGS), (PART,), PATH, 4, fewer) == (
        Memory(Standing(7, {}, {"gone": Losses(3, 7)})),
        (),
    )


def test_a_run_of_a_million_rounds_keeps_its_newest_checkpoints(tmp_path: Path) -> None:
    """Their names have a digit more from there on, and come before those of fewer rounds in the alphabet."""
    for rounds_done in range(999_997, 1_000_003):
        newest = save(tmp_path, Checkpoint(rounds_done, 0, 1, LAYOUT, MODEL), keep=3)
        assert newest.exists() and latest(tmp_path) == newest
    left = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert left == ["round-1000000", "round-1000001", "round-1000002"]
    set_aside(tmp_path, 1_000_001)
    assert latest(tmp_path) == tmp_path / "checkpoints" / "round-1000001"
