"""The scheduler that the runs of one Ray cluster share: a detached actor that leases device slots to runs.

It reserves each slot by a placement group of its own, so that Ray's other users see it taken; the workers of every run
that shares the slot live in it, and only the one that holds the lease works. The service is born with the first run and
ends with the last. It keeps nothing that cannot be made again: slots are found by their groups' names, leases are what
the runs say that they hold. A run that was not heard of for `SILENCE_S` is gone.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import ray
from ray.util.placement_group import PlacementGroup, placement_group, placement_group_table, remove_placement_group
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from hierfl.runtime.ray_cluster import SETTLE_S, num_that_fit
from scheduler import Beside, Device, LeaseDecision, Leases, Want
from scheduler.guests import ALONE

__all__ = ["NAMESPACE", "SERVICE", "SILENCE_S", "Bundle", "Moved", "SchedulerService", "service"]

SERVICE = "hierfl-scheduler"
NAMESPACE = "hierfl"

SILENCE_S = 15.0
"""A run's loop is heard of every `POLL_S`; one that is silent so long was killed."""

POLL_S = 5.0
"""How long a question for news waits for some."""

GROUP_S = 5.0
"""How long a reservation may take that Ray should have room for."""

LOOK_S = 1.0

ANSWER_S = 0.1
"""How long the service lives on when it has ended, so that the last run has its answer."""

RECOVER_S = 1.0
"""How long a service that finds slots of a lost one waits for the runs that hold them."""

PREFIX = "hierfl-slot"

Bundle: TypeAlias = Mapping[str, float]
"""What a slot takes of Ray's resources."""


@dataclass(frozen=True, slots=True)
class Moved:
    """Letter: a device's slot is reserved anew, as the node on which it was is gone; its workers start in `group`."""

    device: str
    group: PlacementGroup


@dataclass(eq=False)
class _Slot:
    """A reserved device, and the runs that use it; `since_s`: when it was found or made."""

    group: PlacementGroup
    bundle: Bundle
    since_s: float
    runs: set[str] = field(default_factory=set)


@dataclass(eq=False)
class _Line:
    """What a run is still to be told, from letter number `first` on, and when it was heard of last."""

    seen_s: float
    first: int = 0
    letters: list[LeaseDecision | Moved] = field(default_factory=list)
    news: asyncio.Event = field(default_factory=asyncio.Event)
    last_report: int = -1

    def tell(self, letter: LeaseDecision | Moved) -> None:
        """Let the run hear of something."""
        self.letters.append(letter)
        self.news.set()


class SchedulerService:
    """Leases device slots to runs. All methods return at once but `reserve` and `changes`, which wait for seconds."""

    def __init__(self) -> None:
        self._leases = Leases()
        self._slots: dict[str, _Slot] = {}
        self._lines: dict[str, _Line] = {}
        self._reserving = asyncio.Lock()
        self._watching: list[asyncio.Task[None]] = []
        self._left: list[PlacementGroup] = []
        self._is_over = False
        self._leases_from_s = 0.0

    async def register(self, run: str, policy: str, holds: Iterable[str], after: int = 0) -> bool:
        """Take in a run, with the devices that it holds already; False: this service ends, ask for another one.

        `after`: as in `Leases.register`.
        """
        if self._is_over:
            return False
        if not self._watching:
            self._watching = [asyncio.create_task(self._watch()), asyncio.create_task(self._look_after_slots())]
            self._adopt()
        if run in self._lines:
            self._forget(run)
        self._lines[run] = _Line(time.monotonic())
        self._leases.register(run, policy, holds, time.monotonic(), after)
        self._decide()
        return True

    async def reserve(
        self,
        run: str,
        named: Mapping[str, Bundle],
        alike: Bundle,
        count: int,
        settle_s: float = SETTLE_S,
        devices: Sequence[Device] = (),
    ) -> Mapping[str, PlacementGroup] | str:
        """Reserve the devices `named`, and `count` like `alike`; give those that are there, or why it cannot be.

        Slots that other runs have reserved are used by this one too. What Ray has no room for now may come later.
        `devices`: of what sort the named ones are, so that runs may share them.
        """
        async with self._reserving:
            for name, bundle in named.items():
                if name in self._slots and self._slots[name].bundle != bundle:
                    return _other_device(name, bundle, self._slots[name].bundle)
            for device in devices:
                known = self._leases.guests.differs(device)
                if known is not None and self._slots[device.name].runs - {run}:
                    return _other_sort(device, known)
            numbers = (f"worker-{number}" for number in range(len(self._slots) + count + 1))
            same = [name for name in numbers if name not in self._slots or self._slots[name].bundle == alike]
            wanted = {**named, **dict.fromkeys(same[:count], alike)}
            missing = {name: bundle for name, bundle in wanted.items() if name not in self._slots}
            await self._make_all(missing, settle_s)
        found = {name: self._slots[name] for name in wanted if name in self._slots}
        for slot in found.values():
            slot.runs |= {run} & self._lines.keys()
        for device in devices:
            if device.name in found:
                self._leases.guests.describe(device)
        return {name: slot.group for name, slot in found.items()}

    async def changes(self, run: str, seen: int) -> tuple[int, list[LeaseDecision | Moved]] | None:
        """Wait for what a run has not been told of; `seen`: how many letters it has had. None: the run is unknown."""
        line = self._lines.get(run)
        if line is None:
            return None
        line.seen_s = time.monotonic()
        line.letters, line.first = line.letters[seen - line.first :], seen
        if not line.letters:
            line.news.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(line.news.wait(), POLL_S)
        return seen + len(line.letters), list(line.letters)

    async def report(
        self,
        run: str,
        number: int,
        wants: Mapping[str, Want],
        num_jobs: int,
        released: Mapping[str, int],
        beside: Beside = ALONE,
    ) -> None:
        """Take what a run wants, shares and gives back; of wants out of order the latest, by `number`, hold."""
        line = self._lines.get(run)
        if line is None:
            return
        if number > line.last_report:
            line.last_report = number
            self._leases.want(run, wants, num_jobs)
        self._leases.beside(run, beside, time.monotonic())
        for device, lease in released.items():
            self._leases.release(run, device, lease, time.monotonic())
        self._decide()

    async def leave(self, run: str) -> None:
        """A run is over."""
        self._forget(run)
        self._tidy()

    def _decide(self) -> None:
        """Lease, and put what was decided into the runs' lines."""
        now_s = time.monotonic()
        for decision in self._leases.decide(now_s) if now_s >= self._leases_from_s else ():
            line = self._lines.get(decision.run)
            if line is not None:
                line.tell(decision)

    def _forget(self, run: str) -> None:
        """Let go of a run and of what it held."""
        self._lines.pop(run, None)
        self._leases.leave(run, time.monotonic())
        for slot in self._slots.values():
            slot.runs.discard(run)
        self._decide()

    async def _watch(self) -> None:
        """Miss runs that have fallen silent."""
        while not self._is_over:
            await asyncio.sleep(LOOK_S)
            now_s = time.monotonic()
            for run in [run for run, line in self._lines.items() if now_s - line.seen_s > SILENCE_S]:
                self._forget(run)
            self._decide()
            self._tidy()

    async def _look_after_slots(self) -> None:
        """Reserve slots anew whose nodes are gone."""
        while not self._is_over:
            await asyncio.sleep(LOOK_S)
            with contextlib.suppress(Exception):  # Ray's head cannot be asked just now: then at the next look
                self._move(await asyncio.to_thread(placement_group_table))

    def _move(self, known: Mapping[str, Mapping[str, Any]]) -> None:
        """Reserve slots anew that Ray would itself put elsewhere; `known`: Ray's table of groups.

        Ray tries that without a pause for as long as there is no room, and its head has no time for anything else
        (https://github.com/ray-project/ray/pull/65007); what is asked for anew it tries from time to time. The old
        group goes at the next look, so that runs begin nothing in it.
        """
        self._let_go()
        adrift = {key for key, entry in known.items() if entry["state"] == "RESCHEDULING"}
        for name, slot in self._slots.items():
            if slot.group.id.hex() in adrift:
                self._left.append(slot.group)
                slot.group = _ask_for(name, slot.bundle)
                for line in (self._lines[run] for run in slot.runs):
                    line.tell(Moved(name, slot.group))

    def _let_go(self) -> None:
        """Give back the groups of slots that were reserved anew."""
        while self._left:
            remove_placement_group(self._left.pop())

    def _tidy(self) -> None:
        """Give slots that no run uses back to Ray; end with the last run."""
        self._is_over = self._is_over or not self._lines
        now_s = time.monotonic()
        for name, slot in list(self._slots.items()):
            if self._is_over or (not slot.runs and now_s - slot.since_s > SILENCE_S):
                del self._slots[name]
                self._leases.withdraw(name)
                remove_placement_group(slot.group)
        if self._is_over:
            self._let_go()
            actor = ray.get_runtime_context().current_actor
            asyncio.get_running_loop().call_later(ANSWER_S, ray.kill, actor)

    async def _make_all(self, missing: Mapping[str, Bundle], settle_s: float) -> None:
        """Reserve slots, as many as there is room for; what has just ended is free after `settle_s`."""
        deadline = time.monotonic() + settle_s
        while (fit := num_that_fit(list(missing.values()))) < len(missing) and time.monotonic() < deadline:
            await asyncio.sleep(0.1)
        await asyncio.gather(*(self._make(name, missing[name]) for name in list(missing)[:fit]))

    async def _make(self, name: str, bundle: Bundle) -> None:
        """Reserve a slot, if Ray finds room for it."""
        group = _ask_for(name, bundle)
        if await asyncio.to_thread(group.wait, GROUP_S) and not self._is_over:
            self._add(name, group, bundle)
        else:
            remove_placement_group(group)

    def _adopt(self) -> None:
        """Take over the slots of a service that was lost."""
        known: Mapping[str, Mapping[str, Any]] = placement_group_table()
        for entry in known.values():
            prefix, _, rest = entry["name"].partition("/")
            if prefix == PREFIX and entry["state"] in ("CREATED", "RESCHEDULING"):
                group_id = ray.PlacementGroupID(bytes.fromhex(entry["placement_group_id"]))
                self._leases_from_s = time.monotonic() + RECOVER_S
                self._add(rest.rpartition("/")[0], PlacementGroup(group_id), entry["bundles"][0])

    def _add(self, name: str, group: PlacementGroup, bundle: Bundle) -> None:
        self._slots[name] = _Slot(group, dict(bundle), time.monotonic())
        self._leases.offer(name)
        self._decide()


def service() -> Any:
    """Find the cluster's service, or start it; the handle of its actor.

    It starts on the node of the run that misses it, if Ray can: a run whose own node goes has no use for it. It asks
    for one byte: who asks for nothing at all, Ray puts anywhere.
    """
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
    options: dict[str, Any] = {"name": SERVICE, "namespace": NAMESPACE, "lifetime": "detached", "get_if_exists": True}
    options |= {"num_cpus": 0, "memory": 1, "scheduling_strategy": here}
    return ray.remote(SchedulerService).options(**options, max_restarts=0, max_concurrency=1000).remote()


def _ask_for(name: str, bundle: Bundle) -> PlacementGroup:
    """Ask Ray for the resources of a slot, which it may give later."""
    full = f"{PREFIX}/{name}/{uuid.uuid4().hex[:8]}"
    group: PlacementGroup = placement_group([dict(bundle)], name=full, lifetime="detached")
    return group


def _other_sort(wanted: Device, have: Device) -> str:
    """Say that two runs describe a device that they would share in two ways."""
    sizes = [
        "unknown memory" if one.memory_bytes is None else f"{one.memory_bytes / 2**30:g} GiB" for one in (wanted, have)
    ]
    said = [f"{device.places} places and {size}" for device, size in zip((wanted, have), sizes, strict=True)]
    return (
        f"device {wanted.name!r} has {said[0]} here, but {said[1]} in a run that shares this cluster; give it the same"
        " `places` and `memory_gib` in both (runtime.devices), another name, or set runtime.share: false"
    )


def _other_device(name: str, wanted: Bundle, have: Bundle) -> str:
    """Say that two runs call different devices by one name."""
    said = [", ".join(f"{amount:g} {what}" for what, amount in bundle.items()) for bundle in (wanted, have)]
    return (
        f"device {name!r} takes {said[0]} here, but {said[1]} in a run that shares this cluster; give different devices"
        " different names (runtime.devices), or set runtime.share: false"
    )
