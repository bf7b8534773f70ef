"""A run's way to the scheduler that its cluster's runs share: it reserves slots, hears of leases and reports.

The question for news that is always open is what tells the service that the run is alive. A service that was lost is
started anew by whichever run misses it first; each tells it what it holds, so that leases outlive the service.
"""

from __future__ import annotations

import contextlib
import time
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

import ray
from ray.exceptions import ActorUnavailableError, GetTimeoutError, RayActorError, RayError
from ray.util.placement_group import PlacementGroup

from hierfl.errors import RuntimeUnavailable
from hierfl.runtime.ray_service import Bundle, Moved, service
from scheduler import Beside, Device, Granted, LeaseDecision, Want
from scheduler.guests import ALONE

__all__ = ["RayLink"]

REACH_S = 60.0
"""How long the service may take to come up, again too."""

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
        self._letters: list[LeaseDecision] = []
        self._last: tuple[Mapping[str, Want], int] = ({}, 0)
        self._num_reports = 0
        self._num_letters = 0
        self._service: Any = None
        self._news: Any = None
        self._more: Any = None
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
        """Give the reference that is ready as soon as there is news."""
        return () if self._news is None else (self._news,)

    def more(self, count: int) -> None:
        """Take in slots that have come, and ask for those of `count` that have not; never waits."""
        if self._more is not None:
            ready, _ = ray.wait([self._more], timeout=0)
            if not ready:
                return
            with contextlib.suppress(RayError):  # the service is lost: the question for news tells
                self._take(ray.get(self._more))
            self._more = None
        named, alike, _ = self._slots
        self._slots = (named, alike, count)
        if len(self._groups) < len(named) + count:
            self._more = self._service.reserve.remote(self.run, *self._slots, 0.0, self._devices)

    def collect(self) -> None:
        """Read the answer to the question for news, which is there, and ask again."""
        try:
            answer = ray.get(self._news)
        except RayError:
            answer = None
        if answer is None:
            self._reach()
            return
        self._num_letters, letters = answer
        for letter in letters:
            if isinstance(letter, Moved):
                self._groups[letter.device] = letter.group
                continue
            if isinstance(letter, Granted):
                self._held[letter.device] = letter.number
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
        for device in released:
            self._held.pop(device, None)
        self._num_reports += 1
        self._service.report.remote(self.run, self._num_reports, wants, num_jobs, released, beside)

    def close(self) -> None:
        """Leave; the last run takes the service with it."""
        self._news = None
        with contextlib.suppress(RayError):  # then there is nothing to leave
            ray.get(self._service.leave.remote(self.run), timeout=LEAVE_S)

    def _reach(self) -> None:
        """Register with the service, which may have to be started, and reserve what the run uses.

        Errors: RuntimeUnavailable if it does not come up, or the slots are of another sort.
        """
        deadline = time.monotonic() + REACH_S
        while True:
            try:
                self._service = service()
                registering = self._service.register.remote(self.run, self._policy, tuple(self._held))
                if ray.get(registering, timeout=REACH_S):
                    reserving = self._service.reserve.remote(self.run, *self._slots, devices=self._devices)
                    self._take(ray.get(reserving, timeout=REACH_S))
                    break
            except (RayActorError, ActorUnavailableError, GetTimeoutError, ValueError) as error:  # it has just ended
                if time.monotonic() > deadline:
                    raise RuntimeUnavailable(
                        f"the scheduler that this cluster's runs share does not come up: {error}; runtime.share: false"
                        " does without"
                    ) from error
            time.sleep(0.1)
        self._num_letters = 0
        self._ask()
        self.report(*self._last, {})

    def _take(self, reserved: Mapping[str, PlacementGroup] | str) -> None:
        """Take in reserved slots. Errors: RuntimeUnavailable if there are none to be had."""
        if isinstance(reserved, str):
            self.close()
            raise RuntimeUnavailable(reserved)
        self._groups.update(reserved)

    def _ask(self) -> None:
        self._news = self._service.changes.remote(self.run, self._num_letters)
