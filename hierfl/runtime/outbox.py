"""What workers have been asked and have not answered: every call to a worker is made here.

A worker does what it is asked one by one. Two things go past what it is at work on, so that a site that hangs there
holds nobody else's up: a sum that nothing more is to be added to is handed up, and what has not begun is given back.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

from hierfl.runtime.asking import asked
from hierfl.runtime.driver import Driver
from hierfl.runtime.holdings import Holdings
from hierfl.runtime.keeper import Keeper
from hierfl.runtime.results import Group
from hierfl.runtime.roster import Call
from scheduler import Job, JobKey

__all__ = ["TAKE_BACK", "Outbox"]

TAKE_BACK = "take_back"
COLLECT = "collect"


class Outbox:
    """Calls by ticket, in the order in which they were made. `preaggregate`: sites share a worker's sum."""

    def __init__(self, driver: Driver, keeper: Keeper, preaggregate: bool) -> None:
        self.holdings = Holdings()
        self._driver = driver
        self._keeper = keeper
        self._preaggregate = preaggregate
        self._calls: dict[int, Call] = {}

    def __contains__(self, ticket: int) -> bool:
        return ticket in self._calls

    def answered(self, ticket: int) -> Call:
        """A call has ended; give it."""
        return self._calls.pop(ticket)

    def at(self, worker: str) -> list[Call]:
        """List the calls that a worker has not answered, in the order in which it does them."""
        return [call for call in self._calls.values() if call.worker == worker]

    def left(self, worker: str, chunk: tuple[Job, ...]) -> tuple[Job, ...]:
        """List the jobs of a chunk that a worker has not answered."""
        asked_of = {job.key for call in self.at(worker) for job in call.work}
        return tuple(job for job in chunk if job.key in asked_of)

    def lose(self, worker: str) -> list[Call]:
        """A worker is gone; give what it has not answered."""
        lost = self.at(worker)
        self._calls = {ticket: call for ticket, call in self._calls.items() if call.worker != worker}
        return lost

    def send(self, worker: str, method: str, *arguments: Any) -> None:
        """Ask a worker for something that is no site's work."""
        self._note(self._driver.call(worker, method, *arguments), Call(worker, method, None, ()))

    def work(self, worker: str, group: Group, jobs: tuple[Job, ...], company: int, others: int) -> None:
        """Send a chunk of work; training that is not added up at the worker is handed up site by site.

        `company`, `others`: as in `Call`.
        """
        if group.kind != "train":
            self._ask(worker, group, jobs, jobs, *((0, 0) if group.kind == "describe" else (company, others)))
            return
        together = self._preaggregate and not group.one_by_one
        for work in [jobs] if together else [(job,) for job in jobs]:
            self.holdings.send(worker, group.name, [job.name for job in work])
            self._ask(worker, group, work, jobs if work[-1] is jobs[-1] else (), company, others)
            if not together:
                self.collect(worker, group)
        if together:
            self.holdings.mark(worker, group.name)

    def collect(self, worker: str, group: Group) -> None:
        """Ask a worker for its sum: after what is still to be added to it, else at once."""
        self.holdings.ask(worker, group.name)
        calls = self.at(worker)
        is_held_up = bool(calls) and not any(call.group is group and call.work for call in calls)
        call = self._driver.aside if is_held_up else self._driver.call
        ticket = call(worker, COLLECT, group.hub, group.round_number)
        self._note(ticket, Call(worker, COLLECT, group, (), is_aside=is_held_up))

    def reclaim(self, worker: str) -> None:
        """Ask a worker to give back what it has not begun, if there is anything and it was not asked for yet."""
        calls = [(ticket, call) for ticket, call in self._calls.items() if call.worker == worker and not call.is_aside]
        own = calls[0][1].group if calls else None
        behind = tuple(ticket for ticket, call in calls[1:] if call.work or call.group not in (own, None))
        if behind and not any(call.method == TAKE_BACK for call in self.at(worker)):
            ticket = self._driver.take_back(worker, behind)
            self._note(ticket, Call(worker, TAKE_BACK, None, (), is_aside=True))

    def given_back(
        self, worker: str, tickets: Collection[int], chunks: Sequence[tuple[Job, ...]]
    ) -> tuple[list[tuple[Group, list[str]]], list[tuple[Job, ...]]]:
        """A worker will not do these; give the sites by group, and which of its chunks are over by that.

        The sums that were to be handed up after them are asked for at once.
        """
        calls = [self._calls.pop(ticket) for ticket in list(self._calls) if ticket in tickets]
        sites: dict[str, tuple[Group, list[str]]] = {}
        for call in calls:
            if call.group is not None and call.work:
                sites.setdefault(call.group.name, (call.group, []))[1].extend(job.name for job in call.work)
        for group, names in sites.values():
            self.holdings.drop(worker, group.name, names)
        over = [chunk for chunk in chunks if not self._still_ends(worker, chunk)]
        for group in {call.group.name: call.group for call in calls if call.group and call.method == COLLECT}.values():
            if self.holdings.holds(worker, group.name):
                self.collect(worker, group)
        return list(sites.values()), over

    def _still_ends(self, worker: str, chunk: tuple[Job, ...]) -> bool:
        """Let a chunk end with the last of its calls that is left; False if none is."""
        keys = {job.key for job in chunk}
        left = [ticket for ticket, call in self._calls.items() if call.worker == worker and keys & _keys(call)]
        if left:
            self._calls[left[-1]] = replace(self._calls[left[-1]], jobs=chunk)
        return bool(left)

    def _ask(
        self, worker: str, group: Group, work: tuple[Job, ...], ended: tuple[Job, ...], company: int, others: int
    ) -> None:
        """Ask for the work of some sites; `ended`: the chunk that is over with it."""
        method, arguments = asked(group, tuple(job.name for job in work), self._keeper)
        ticket = self._driver.call(worker, method, *arguments)
        self._note(ticket, Call(worker, method, group, ended, work, company, others))

    def _note(self, ticket: int, call: Call) -> None:
        self._calls[ticket] = call


def _keys(call: Call) -> set[JobKey]:
    return {job.key for job in call.work}
