"""A run's way to the scheduler that its cluster's runs share: it reserves slots, hears of leases and reports.

The question for news that is always open is what tells the service that the run is alive. A service that was lost is
started anew by whichever run misses it first; each tells it what it holds, so that leases outlive the service. Only the
beginning waits for the service: where its machine is gone Ray says so a quarter of a minute later, and the run goes on
meanwhile with what it holds.
"""

from __future__ import annotations

import contextlib
import time
import uuid
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.placement_group import PlacementGroup

from hierfl.errors import RuntimeUnavailable
from hierfl.runtime.ray_service import Bundle, Moved, service
from scheduler import Beside, Device, Granted, LeaseDecision, Want
from scheduler.guests import ALONE

__all__ = ["RayLink"]

REACH_S = 60.0
"""How long the service may take to come up, again too."""

AGAIN_S = 0.1
"""How long after an attempt the next one to reach the service."""

LEAVE_S = 10.0


class RayLink:
    """Holds a run's leases as the service knows them; `named`, `alike`, `count`, `devices`: as in
    `SchedulerService.reserve`.
    """

    def __init__(
        self,
        name: str,
        policy: str,
        named: Mapping[str, Bundle],
        alike: Bundle,
        count: int,
        devices: Sequence[Device] = (),
    ) -> None:
        self.run = f"{name}-{uuid.uuid4().hex[:6]}"
        self._policy = policy
        self._slots = (named, alike, count)
        self._devices = tuple(devices)
        self._groups: dict[str, PlacementGroup] = {}
        self._held: dict[str, int] = {}
        self._given_back: dict[str, int] = {}
        self._newest = 0
        self._letters: list[LeaseDecision] = []
        self._last: tuple[Mapping[str, Want], int] = ({}, 0)
        self._num_reports = 0
        self._num_letters = 0
        self._service: Any = None
        self._news: Any = None
        self._more: Any = None
        self._joining: Any = None
        self._is_registered = False
        self._again_s = 0.0
        self._until_s = time.monotonic() + REACH_S
        self._moved: set[str] = set()
        self._reach()

    @property
    def cluster(self) -> str:
        """Name the Ray cluster, by the address of its head."""
        return str(ray.get_runtime_context().gcs_address)

    @property
    def groups(self) -> Mapping[str, PlacementGroup]:
        """Give the slots that there are, by device."""
        return self._groups

    @property
    def waiting(self) -> Sequence[Any]:
        """Give the reference that is ready as soon as there is news, or an answer of a service that was lost."""
        return tuple(one for one in (self._news, self._joining) if one is not None)

    def moved(self) -> set[str]:
        """Name the devices whose slots have been reserved anew since the last time."""
        found, self._moved = self._moved, set()
        return found

    def more(self, count: int) -> None:
        """Take in slots that have come, and ask for those of `count` that have not; never waits."""
        if self._more is not None:
            ready, _ = ray.wait([self._more], timeout=0)
            if not ready:
                return
            with contextlib.suppress(RayError):  # the service is lost: the question for news tells
                self._take(ray.get(self._more), self._groups)
            self._more = None
        named, alike, _ = self._slots
        self._slots = (named, alike, count)
        if self._news is not None and len(self._groups) < len(named) + count:
            self._more = self._service.reserve.remote(self.run, *self._slots, 0.0, self._devices)

    def tend(self) -> None:
        """Try anew to reach a service that was lost, from time to time; never waits. Errors: as of `collect`."""
        if self._joining is not None:  # where Ray finds no room for the service it says nothing, for ever
            is_late = not self._is_registered and time.monotonic() > self._until_s
            if is_late and not ray.wait([self._joining], timeout=0)[0]:
                self._missed(_silence())
        elif self._news is None and time.monotonic() >= self._again_s:
            self._seek()

    def collect(self) -> None:
        """Read what is there of `waiting`, and ask again.

        Errors: RuntimeUnavailable if the service does not come up, or the slots are of another sort.
        """
        if self._joining is not None:
            self._join()
            return
        try:
            answer = ray.get(self._news)
        except RayError:
            answer = None
        if answer is None:
            self._news, self._until_s = None, time.monotonic() + REACH_S
            self._seek()
            return
        self._num_letters, letters = answer
        for letter in letters:
            if isinstance(letter, Moved):
                self._place(letter.device, letter.group)
                continue
            if isinstance(letter, Granted):
                if letter.number == self._given_back.get(letter.device):
                    continue  # it was on its way: another run may have the device by now
                self._held[letter.device] = letter.number
                self._newest = max(self._newest, letter.number)
            self._letters.append(letter)
        self._ask()

    def news(self) -> Sequence[LeaseDecision]:
        """Give what was decided since the last time."""
        letters, self._letters = self._letters, []
        return letters

    def report(
        self, wants: Mapping[str, Want], num_jobs: int, released: Mapping[str, int], beside: Beside = ALONE
    ) -> None:
        """Tell the service what the run wants, shares and gives back, and wait for nothing."""
        self._last = (wants, num_jobs)
        for device, number in released.items():
            self._held.pop(device, None)
            self._given_back[device] = number
        self._num_reports += 1
        self._service.report.remote(self.run, self._num_reports, wants, num_jobs, released, beside)

    def close(self) -> None:
        """Leave; the last run takes the service with it."""
        self._news = self._joining = None
        with contextlib.suppress(RayError):  # then there is nothing to leave
            ray.get(self._service.leave.remote(self.run), timeout=LEAVE_S)

    def _reach(self) -> None:
        """Wait until the service has taken the run in. Errors: as of `collect`."""
        while self._news is None:
            self.tend()
            if self._joining is None:
                time.sleep(AGAIN_S)
            elif ray.wait([self._joining], timeout=REACH_S)[0]:
                self._join()
            else:
                self._missed(_silence())

    def _seek(self) -> None:
        """Ask the service, which may have to be started, to take the run in."""
        self._is_registered = False
        try:
            self._service = service()
            self._joining = self._service.register.remote(self.run, self._policy, tuple(self._held), self._newest)
        except (RayError, ValueError) as error:  # it has just ended
            self._missed(error)

    def _join(self) -> None:
        """Take what the service has answered: first that the run is registered, then the slots that it uses."""
        try:
            answer = ray.get(self._joining)
        except (RayError, ValueError) as error:
            self._missed(error)
            return
        if not self._is_registered and not answer:
            self._missed(None)
        elif not self._is_registered:
            self._is_registered = True
            self._joining = self._service.reserve.remote(self.run, *self._slots, devices=self._devices)
        else:
            self._joining, self._num_letters = None, 0
            self._take(answer)
            self._ask()
            self.report(*self._last, {})

    def _missed(self, error: Exception | None) -> None:
        """The service has ended, or cannot be reached: try again soon. Errors: RuntimeUnavailable, after `REACH_S`."""
        self._joining, self._again_s = None, time.monotonic() + AGAIN_S
        if time.monotonic() > self._until_s:
            raise RuntimeUnavailable(
                f"the scheduler that this cluster's runs share does not come up: {error or 'it ends'}; runtime.share:"
                " false does without"
            ) from error

    def _take(self, reserved: Mapping[str, PlacementGroup] | str, known: Collection[str] = ()) -> None:
        """Take in reserved slots; of those that are `known` letters tell, which this answer may come behind.

        Errors: RuntimeUnavailable if there are none to be had.
        """
        if isinstance(reserved, str):
            self.close()
            raise RuntimeUnavailable(reserved)
        for device, group in reserved.items():
            if device not in known:
                self._place(device, group)

    def _place(self, device: str, group: PlacementGroup) -> None:
        """A device's slot is in a group."""
        if device in self._groups and self._groups[device].id != group.id:
            self._moved.add(device)
        self._groups[device] = group

    def _ask(self) -> None:
        self._news = self._service.changes.remote(self.run, self._num_letters)


def _silence() -> Exception:
    return TimeoutError(f"no answer within {REACH_S:g} s")
