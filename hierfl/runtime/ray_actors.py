"""The Ray runtime: hubs and workers are actors, vectors lie in the object store, the supervisor owns them all.

Ray facts that shape this file: an object dies with the process that made the call, so every call is the supervisor's;
a lost actor is noticed at its next or running call; of two replies of an actor the later may be there first; a request
for devices that are not there waits in silence, so what is asked for is checked before.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import ActorUnavailableError, RayActorError, RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy, PlacementGroupSchedulingStrategy

from hierfl.config.schema import Runtime
from hierfl.errors import HierflError, RuntimeUnavailable
from hierfl.runtime.driver import BESIDE, Done, Handle, Seat, num_beside, replica_of
from hierfl.runtime.jobs import HubSpec, Post, WorkerSpec
from hierfl.runtime.overtaken import in_turn
from hierfl.runtime.places import PLACE
from hierfl.runtime.ray_cluster import (
    check_devices,
    connect,
    disconnect,
    more_slots,
    needs,
    num_slots,
    num_workers,
    refuse_taken,
    with_gpus,
)
from hierfl.runtime.ray_hosts import ASIDE, HubProcess, WorkerProcess
from hierfl.runtime.ray_link import RayLink
from hierfl.runtime.ray_rooms import HUB, Rooms
from hierfl.runtime.ray_spare import Spares
from hierfl.runtime.seats import declared_devices, group_of, seats
from hierfl.runtime.turns import NONE
from scheduler import Device

__all__ = ["RayDriver"]

SPARE_S = 10.0
"""How long a run lasts before it keeps processes started ahead: shorter ones are over before anybody dies."""

STRANDED_S = 0.5
"""How often it is looked whether processes that have not started yet still can."""

SHARED_GPU = 0.001
"""What a worker takes of a slot that runs share, so that Ray shows it the slot's GPU; the lease says who may use it."""


class RayDriver:
    """Carries calls to Ray actors; a handle is an object reference that this process owns.

    `name`: what the run is called among those that share the cluster; `code_dirs`: where the user's own code lies;
    `replicas`: how many a hub has at most.
    """

    kind = "ray"

    def __init__(self, runtime: Runtime, name: str = "run", code_dirs: Sequence[str] = (), replicas: int = 1) -> None:
        self.link: RayLink | None = None
        self._name = name
        self._code_dirs = tuple(code_dirs)
        self._spec: Handle = None
        self._actors: dict[str, Any] = {}
        self._calls: dict[tuple[str, int], Any] = {}
        self._slots: dict[str, str] = {}
        self._rooms = Rooms(runtime.num_aggregators, replicas)
        self._spares = Spares(self._start_hubs)
        self._began_s = self._looked_s = time.monotonic()
        self._out_of_reach: set[str] = set()
        self._groups: dict[str, Any] = {}
        self._places: dict[str, Device] = {}
        self._lives: dict[str, int] = {}
        self._asides: dict[str, int] = {}
        self._pending: dict[Any, tuple[int, str, str, int, tuple[Handle, ...]]] = {}
        self._early: list[Any] = []
        self._next_ticket = 0
        self._owns_ray = connect(runtime)
        try:
            self.runtime = with_gpus(runtime)
        except BaseException:
            self.close()
            raise

    def start(self, spec: WorkerSpec, num_hubs: int) -> tuple[Seat, ...]:
        """Start one actor for each device slot, after a look whether they fit, and the hubs' beside them."""
        found = self._seats()
        if spec.device == "auto" and not self.runtime.gpus_per_worker:
            spec = replace(spec, device="cpu")
        self._spec = ray.put(spec)
        self._sit(found)
        for room in self._rooms.first(num_hubs):
            self._start_process(room)
        return found

    def grow(self) -> tuple[Seat, ...]:
        """Start workers where nodes have come, if the number of workers was left to the cluster."""
        if time.monotonic() - self._began_s >= SPARE_S:
            for node in self._rooms.look():
                self._spares.want(node)
        if self.link is not None:
            with contextlib.suppress(RuntimeUnavailable):  # nodes have gone, and may come back
                self.link.more(0 if self.runtime.devices else num_slots(self.runtime))
            return self._sit(tuple(seat for seat in self._leasable(self.link) if seat.worker not in self._slots))
        if self.runtime.num_workers or self.runtime.devices or self.runtime.address is None:
            return ()
        have = sum(1 for slot in self._slots.values() if not slot.startswith(HUB))
        return self._sit(tuple(_seat(f"worker-{number}") for number in range(have, have + more_slots(self.runtime))))

    def _seats(self) -> tuple[Seat, ...]:
        """Give the workers: of `runtime.devices`, or as many alike as are wanted or fit. Errors: RuntimeUnavailable."""
        if self.runtime.devices:
            check_devices(self.runtime)
        if self.runtime.share and self.runtime.address is not None:
            self.link = self._join()
            return self._leasable(self.link) or refuse_taken(self.runtime)
        if self.runtime.devices:
            return seats(self.runtime)
        return tuple(_seat(f"worker-{number}") for number in range(num_workers(self.runtime)))

    def _join(self) -> RayLink:
        """Join the runs that share the cluster."""
        runtime = self.runtime
        devices = declared_devices(runtime)
        named = {device.name: self._bundle(device) for device in devices}
        count = 0 if runtime.devices else num_slots(runtime)
        return RayLink(self._name, repr(runtime.policy), named, self._bundle(None), count, devices)

    def _bundle(self, device: Device | None) -> dict[str, float]:
        """Give what a slot takes, all of its places together; a little, where its workers take nothing."""
        places = device.places if device is not None else 1
        need = needs(self.runtime, group_of(self.runtime, device.name) if device is not None else None)
        return {name: amount * places for name, amount in need.items() if amount > 0} or {"CPU": SHARED_GPU}

    def _leasable(self, link: RayLink) -> tuple[Seat, ...]:
        """Give the workers of the slots that there are."""
        if self.runtime.devices:
            return tuple(seat for seat in seats(self.runtime) if seat.device.name in link.groups)
        return tuple(_seat(name) for name in link.groups)

    def _sit(self, found: tuple[Seat, ...]) -> tuple[Seat, ...]:
        """Start the workers' processes."""
        for seat in found:
            self._slots[seat.worker] = seat.worker
            self._places[seat.worker] = seat.device
            self._start_process(seat.worker)
        return found

    def enter(self, epoch: int) -> None:
        """Actors do the work of any tree."""

    def start_hub(self, spec: HubSpec, post: Post) -> None:
        """Make a replica of a hub's aggregator, in a process of its own as long as there are few hubs."""
        self._actors[self._slot(replica_of(spec.path, post.replica))].start_hub.remote(spec, post)

    def processes(self) -> Mapping[str, Sequence[str]]:
        """List the processes of hubs, each with the replicas that it serves."""
        return self._rooms.serve(self._slots)

    def ping(self, process: str) -> int:
        """Ask in the process's other thread."""
        ticket = self._next_ticket
        self._next_ticket += 1
        self._await(ticket, process, self._actors[process].ping.remote())
        return ticket

    def machine(self, actor: str) -> str:
        """Name the Ray node on which a replica was placed, by its host."""
        return self._rooms.machine(self._slot(actor))

    def _slot(self, actor: str) -> str:
        """Give the process of an actor: a hub's place is where the hub is, a site's is with one of the hubs in turn."""
        slot = self._slots.get(actor) or self._slots.get(actor.removeprefix(PLACE))
        if slot is None:
            slot = self._slots[actor] = self._rooms.choose(actor, self._slots)
        if slot not in self._actors:
            self._start_process(slot)
        return slot

    def call(self, actor: str, method: str, *arguments: Any) -> int:
        """Call a method; the replies and what is beside them belong to this process."""
        ticket = self._next_ticket
        self._next_ticket += 1
        slot, num = self._slot(actor), num_beside(method, arguments)
        who = (actor,) if slot.startswith(HUB) else (ticket, self._asides[slot])
        if (slot, num) not in self._calls:
            self._calls[slot, num] = self._actors[slot].call.options(num_returns=1 + num)
        self._await(ticket, actor, self._calls[slot, num].remote(*who, method, *arguments))
        return ticket

    def aside(self, worker: str, method: str, *arguments: Any) -> int:
        """Call a method in the worker's other thread."""
        ticket = self._past(worker)
        options = {"num_returns": 1 + BESIDE.get(method, 0)}
        self._await(ticket, worker, self._actors[worker].aside.options(**options).remote(ticket, method, *arguments))
        return ticket

    def take_back(self, worker: str, tickets: Sequence[int]) -> int:
        """Ask the worker's other thread."""
        ticket = self._past(worker)
        self._await(ticket, worker, self._actors[worker].take_back.remote(ticket, tuple(tickets)))
        return ticket

    def _past(self, worker: str) -> int:
        """Give the ticket of a call that goes past others; those to come begin after it."""
        ticket = self._asides[worker] = self._next_ticket
        self._next_ticket += 1
        return ticket

    def _await(self, ticket: int, actor: str, made: Any) -> None:
        """Note what a call gives: a header, and vectors beside it."""
        header, *beside = made if isinstance(made, list) else (made,)
        slot = self._slot(actor)
        self._pending[header] = (ticket, actor, slot, self._lives[slot], tuple(beside))

    def wait(self, timeout_s: float) -> Sequence[Done]:
        """Give all calls that have ended; what an actor's earlier life still says is dropped."""
        if self.link is not None:
            self.link.tend()
        if self._spares.wanted:
            self._spares.fill(self._rooms.busy(self.processes()))
        if hopeless := self._hopeless():
            return hopeless
        early = set(self._early)
        waiting = [header for header in self._pending if header not in early]
        waiting += self.link.waiting if self.link is not None else ()
        if not waiting:
            time.sleep(min(timeout_s, 0.01))
            return ()
        ready, _ = ray.wait(waiting, num_returns=1, timeout=timeout_s, fetch_local=False)
        if not ready:
            return ()
        ready, _ = ray.wait(waiting, num_returns=len(waiting), timeout=0, fetch_local=False)
        if self.link is not None and any(news in ready for news in self.link.waiting):
            self.link.collect()
        sent = ((header, self._line(actor, slot, life)) for header, (_, actor, slot, life, _) in self._pending.items())
        ready, self._early = in_turn(sent, {*ready, *early})
        found = [self._fetch(header) for header in ready]
        return [done for done in found if done is not None]

    def _hopeless(self) -> list[Done]:
        """Give up those whose processes will not start, or not before Ray misses their nodes: workers that were started
        in slots which are reserved anew since, and hubs' on nodes that are gone.
        """
        moved = self.link.moved() if self.link is not None else set()
        places = self._places.items() if moved else ()
        slots = {slot for slot, place in places if place.name in moved and self._has_moved(slot)}
        if time.monotonic() - self._looked_s >= STRANDED_S:
            self._looked_s = time.monotonic()
            slots |= self._rooms.stranded()
        found: dict[str, Done] = {}
        for header, (ticket, actor, slot, life, _) in list(self._pending.items()) if slots else ():
            if slot in slots and slot not in found and life == self._lives[slot] and header not in self._early:
                del self._pending[header]
                found[slot] = Done(ticket, actor, crashed="its machine is gone")
        return list(found.values())

    def _has_moved(self, slot: str) -> bool:
        """Say whether a worker was started in another placement group than the one that its device has now."""
        return self.link is not None and self._groups[slot] != self.link.groups[self._places[slot].name].id

    def _line(self, actor: str, slot: str, life: int) -> tuple[str, int] | None:
        """Name the line in which a reply stands: what serves hubs answers in turn, but for its signs of life."""
        return (slot, life) if slot.startswith(HUB) and actor != slot else None

    def restart(self, actor: str, *, silent: bool = False) -> tuple[str, ...]:
        """Start a fresh process in the place of a lost one, and of those beside it that may never begin."""
        lost = [slot := self._slot(actor)]
        if slot.startswith(HUB) and (silent or slot in self._out_of_reach):
            node, beside = self._rooms.node(slot), self._rooms.doubt(slot)
            if beside is not None:
                self._spares.leave(node)
                lost += beside
        for each in lost:
            ray.kill(self._actors[each], no_restart=True)
            self._start_process(each)
            if each.startswith(HUB):
                self._spares.want(self._rooms.node(each))
        return tuple(name for name, place in self._slots.items() if place in lost)

    def put(self, value: Any) -> Handle:
        """Put a value into the object store."""
        return ray.put(value)

    def get(self, handle: Handle) -> Any:
        """Fetch a value; vectors come without a copy, read-only."""
        try:
            return ray.get(handle)
        except RayError as error:
            raise RuntimeUnavailable(f"a value was lost from Ray's object store: {error}") from error

    def close(self) -> None:
        """Kill the actors; end Ray if this run began it."""
        self._pending.clear()
        try:
            if ray.is_initialized():
                for actor in self._actors.values():
                    ray.kill(actor, no_restart=True)
                self._spares.close()
                if self.link is not None:
                    self.link.close()
        finally:
            self._actors.clear()
            if self._owns_ray:
                disconnect()

    def _fetch(self, header: Any) -> Done | None:
        """Read one reply."""
        ticket, actor, slot, life, beside = self._pending.pop(header)
        if life != self._lives[slot]:
            return None
        try:
            value, started_s, ended_s = ray.get(header)
        except (RayActorError, ActorUnavailableError) as error:
            if isinstance(error, ActorUnavailableError):
                self._out_of_reach.add(slot)
            if error.actor_init_failed:
                return Done(ticket, actor, error=_not_begun(actor, str(error)))
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            return Done(ticket, actor, crashed=reason)
        except RayTaskError as error:
            cause = error.cause if isinstance(error.cause, HierflError) else None
            return Done(ticket, actor, error=cause or HierflError(f"{actor} failed: {error}"))
        except RayError as error:
            return Done(ticket, actor, crashed=f"{type(error).__name__}: {error}")
        if not ended_s:  # taken back, as the reply to that says, which may come later than this one
            return None
        if slot.startswith(HUB):
            self._rooms.heard(slot)
            if actor == slot:  # a sign of life
                self._rooms.found(slot, value)
        return Done(ticket, actor, value, beside, started_s=started_s, ended_s=ended_s)

    def _start_process(self, slot: str) -> None:
        """Start one actor's process; workers take their device slot, hubs take none."""
        self._lives[slot] = self._lives.get(slot, -1) + 1
        self._asides[slot] = NONE
        self._out_of_reach.discard(slot)
        runtime = self.runtime
        if slot.startswith(HUB):
            actor = self._spares.take(self._rooms.place(slot, self._spares.soonest()))
        else:
            need = needs(runtime, group_of(runtime, self._places[slot].name))
            options: dict[str, Any] = {
                "num_cpus": need.pop("CPU"),
                "num_gpus": need.pop("GPU"),
                "resources": need or None,
            }
            if self.link is not None:
                group = self.link.groups[self._places[slot].name]
                self._groups[slot] = group.id
                place = PlacementGroupSchedulingStrategy(group, 0)
                num_gpus = SHARED_GPU if options["num_gpus"] else 0
                options = {"num_cpus": 0, "num_gpus": num_gpus, "scheduling_strategy": place}
            given = (self._code_dirs, str(Path.cwd()), [self._spec])
            actor = _two_threads(WorkerProcess).options(max_restarts=0, **options).remote(*given)
        self._actors[slot] = actor
        self._calls = {key: call for key, call in self._calls.items() if key[0] != slot}

    def _start_hubs(self, node: str) -> Any:
        """Start a process for hubs, on a node if it is still there.

        It asks for one byte: who asks for nothing at all, Ray puts anywhere, whatever its soft affinity.
        """
        where = NodeAffinitySchedulingStrategy(node, soft=True)
        actor = _two_threads(HubProcess).options(num_cpus=0, memory=1, max_restarts=0, scheduling_strategy=where)
        return actor.remote(self._code_dirs)


def _two_threads(process: type) -> Any:
    """Make an actor's class whose second thread goes past what the first one does."""
    return ray.remote(concurrency_groups={ASIDE: 1})(process)  # type: ignore[call-overload]


def _seat(name: str) -> Seat:
    """Give a worker that has a device to itself."""
    return Seat(name, Device(name))


def _not_begun(actor: str, said: str) -> HierflError:
    """Say why a process's first step failed: it would fail in every other one."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", said).strip()
    cause = plain.splitlines()[-1].strip() if plain else "no reason was given"
    if "No module named" in cause:
        return RuntimeUnavailable(
            f"{actor} could not begin: {cause}; what the task imports must be installed on every node, or lie in the"
            " folder from which the run is started or submitted"
        )
    return RuntimeUnavailable(f"{actor} could not begin: {cause}\n{plain}")
