"""Runs whose hubs are served by replicas: drawn histories of faults at every place, and what must hold after each.

    supervisor   told lists, journal, checkpoints. It is killed or hangs, and another one takes the run up from what is
                 durable; one that had hung comes back and goes on as if it were alone.
    replicas     die, hang, come back late, lie (in votes, as many as these outvote); see `replicated_hub`
    members      answer in any order, twice, late, or not at all

What a seed draws is drawn again by the same seed, and `story` tells it.
"""

from __future__ import annotations

import gc
from collections.abc import Iterable, Sequence
from random import Random

from replicated_brain import Violation, must
from replicated_disk import Disk
from replicated_hub import Served
from replicated_lies import LIES
from replicated_run import Supervisor
from replicated_trees import EARLY, TREES, Tree

from tiers.replica_messages import Mode

__all__ = ["KINDS", "World", "checked", "told"]

KINDS: Sequence[tuple[Mode, int]] = (
    *(("crash", 1), ("crash", 2), ("crash", 2), ("crash", 3)),
    *(("vote", 3), ("vote", 3), ("vote", 3), ("vote", 5)),
)


class World:
    """A drawn history; `run` plays it to its end.

    `alone`: the journal is bytes, and every replica works out everything itself; so it is for one seed of 16. In one of
    8 a replica that dies does so until it sits out the rest of its hub's round; one of 8 is longer, and of a root that
    closes early over hubs, whose process is killed more often.
    """

    def __init__(
        self, seed: int, *, alone: bool | None = None, story: list[str] | None = None, tree: Tree | None = None
    ) -> None:
        random = self.random = Random(seed)
        draw = random.random
        self.seed, self.story = seed, story
        self.tree = tree or TREES[int(draw() * len(TREES))]
        self.kinds = {shape.path: KINDS[int(draw() * len(KINDS))] for shape in self.tree.shapes}
        self.every = 1 if draw() < 0.6 else 2
        self.kills = 0.03 if draw() < 0.85 else 0.15
        self.num_faults = 5 + int(draw() * 30)
        self.deaths = 6 if seed % 8 == 3 else 1
        if seed % 8 == 5 and tree is None:
            self.tree = EARLY[int(draw() * len(EARLY))]
            self.kinds = {shape.path: KINDS[int(draw() * 2)] for shape in self.tree.shapes}
            self.every, self.kills, self.num_faults = 1, 0.08, self.num_faults + 50
        self.alone = seed % 16 == 0 if alone is None else alone
        self.disk = Disk(self.alone)
        self.receipts: set[tuple[str, int, str]] = set()
        self.owed: set[tuple[str, int, str]] = set()
        self.published: dict[int, int] = {}
        self.hung: list[Supervisor] = []
        self.leader = Supervisor(self)

    @property
    def is_over(self) -> bool:
        return self.disk.saved.number == self.tree.rounds

    def run(self) -> None:
        for _ in range(self.num_faults):
            if self.is_over:
                break
            self.step()
        self.finish()

    def step(self) -> None:
        leader, draw = self.leader, self.random.random()
        if leader.ended or draw < self.kills:
            self.take_up(kill=True)
        elif draw < self.kills + 0.02:
            self.take_up(kill=False)
        elif draw < self.kills + 0.05 and self.hung:
            zombie = self.hung[int(self.random.random() * len(self.hung))]
            for _ in range(6):
                self.act(zombie)
                zombie.flush(len(zombie.waiting))
        elif draw < self.kills + 0.13:
            leader.flush(int(self.random.random() * (len(leader.waiting) + 1)))
        else:
            self.act(leader)

    def act(self, process: Supervisor) -> None:
        """Let something happen to a process of the run, or below it."""
        if process.ended:
            return
        random = self.random.random
        draw = random()
        if draw < 0.6:
            found = process.pending(int(random() * len(process.seats)))
            if found is not None:
                process.deliver(*found, draw < 0.04)
                return
            draw = 0.6 + draw / 3
        if draw < 0.8:
            self.members(process, draw)
            return
        hubs = process.hubs
        seats = process.seats
        served = hubs["w"] if len(hubs) == 1 else seats[int(random() * len(seats))][0]
        replica = int(random() * served.num)
        if draw < 0.84:
            for _ in range(self.deaths):
                served.die(replica)
        elif draw < 0.87:
            served.processes[replica].stuck ^= True
        elif draw < 0.91:
            self.corrupt(served, replica, LIES[int(random() * len(LIES))] if served.votes else "fails")
        elif draw < 0.95:
            process.wait(1.5 if draw < 0.93 else 4.0)
        elif served.zombies:
            served.haunt(int(random() * len(served.zombies)), draw < 0.98)
        process.settle()

    def members(self, process: Supervisor, draw: float) -> None:
        if process.at_work and draw < 0.77:
            keys = list(process.at_work)
            key = keys[int(self.random.random() * len(keys))]
            if draw > 0.71 and self.tree.loses:
                process.lose(key)
            else:
                process.answer(
                    key, "twice" if draw < 0.62 else "otherwise" if draw < 0.63 else "together" * (draw < 0.66)
                )
        elif process.timers:
            paths = list(process.timers)
            process.ring(paths[int(self.random.random() * len(paths))])

    def corrupt(self, served: Served, replica: int, how: str) -> None:
        """A replica lies from now on, if no more do than are outvoted."""
        liars = sum(bool(one.lies) for one in served.processes)
        if liars < len(served.replicas.active) - served.quorum:
            served.processes[replica].lies = how

    def take_up(self, *, kill: bool) -> None:
        """Another process takes the run up: of the one before, what waited is lost, or it hangs and may come back."""
        before = self.leader
        if kill or before.ended:
            if not before.ended:
                before.flush(int(self.random.random() * (len(before.waiting) + 1)))
                before.stream.tear(self.random)
            before.ended = True
        else:
            self.hung.append(before)
        if self.story is not None:
            before.tell_story("ends" if before.ended else "hangs")
        self.leader = Supervisor(self)

    def finish(self) -> None:
        """Nothing fails any more; as many replicas as a hub can do without never answer again. All rounds end."""
        self._quiet(self.leader)
        for turn in range(800):
            leader = self.leader
            if self.is_over:
                break
            if leader.ended:
                self.take_up(kill=True)
                self._quiet(self.leader)
                continue
            if not turn % 8:
                self._haunted(leader)
            found = leader.pending(turn % len(leader.seats))
            if found is not None:
                leader.deliver(*found)
            elif leader.at_work:
                leader.answer(next(iter(leader.at_work)))
            else:
                must(leader.timers, "nothing can happen, and the run is not at its end")
                leader.ring(next(iter(leader.timers)))
        must(self.is_over, "the rounds do not end")
        if self.tree.is_calm:
            must(self.published.items() <= self.tree.calm.items(), "the bits are not those of an undisturbed run")

    def _haunted(self, process: Supervisor) -> None:
        """What earlier lives still say comes, now that it matters least."""
        for served in process.hubs.values():
            if served.zombies:
                served.haunt(0, True)
        process.settle()

    def _quiet(self, process: Supervisor) -> None:
        for served in process.hubs.values():
            spare = len(served.replicas.active) - served.quorum
            for one in served.processes:
                spare -= bool(one.lies)
                one.stuck = False
            for one in served.processes:
                if spare > 0 and not one.lies and self.random.random() < 0.4:
                    one.stuck = True
                    spare -= 1

    def void(self, path: str) -> None:
        """A hub has given up its rounds: its members' receipts are worth nothing."""
        self.receipts = {one for one in self.receipts if one[0] != path}
        self.owed = {one for one in self.owed if one[0] != path}

    def check_receipts(self, process: Supervisor) -> None:
        """Who has a receipt is in a list, carried over by name, refused by name, held for the next round, or the
        hub's business still: of a round that another one has closed without it, or on a tape.
        """
        tapes = process.replay.hubs if process.replay is not None else ()
        due = set()
        for one in self.owed:
            path, number, name = one
            served = process.hubs[path]
            fate = served.fate.get((name, number))
            if fate == "held" or (fate is None and (path in tapes or (served.running and served.waits))):
                due.add(one)
            else:
                must(fate, "{}/{} has a receipt for round {}, and is lost", path, name, number)
        self.owed = due


def checked(seeds: Iterable[int]) -> int:
    """Play histories; give how many. Errors: Violation, with the seed and its story."""
    number, before = 0, gc.get_threshold()
    gc.freeze()  # what is there already is not looked through again and again
    gc.set_threshold(50_000, 20, 100)
    try:
        for seed in seeds:
            number += 1
            try:
                World(seed).run()
            except Exception as error:
                raise Violation(told(seed)) from error
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()
    return number


def told(seed: int) -> str:
    """Tell the story of a history that breaks something."""
    story: list[str] = []
    try:
        World(seed, story=story).run()
    except Exception as error:
        story.append(repr(error))
    return "\n".join([f"history {seed}: World({seed}, story=[]).run() plays it again", *story])
