"""What strikes where faults are to happen: it counts a process's steps, and does to it what is due.

What is done to a process is done by itself: nobody else knows the moment so well. Whether it is to be is asked of the
run's ledger first, which has it on disk before it happens.
"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from hierfl.fault import ANSWER, PROCESS, Moment, Plan, Process
from hierfl.runtime.liar import Liar
from hierfl.runtime.points import Claims
from tiers.messages import Add, Advance, Carry, Close, Command, Finish, Hold, Open

__all__ = ["Crashed", "OwnProcess", "OwnThread", "Watched"]


@dataclass
class Watched:
    """Lets the faults of a plan happen in this process; counts the updates of a hub's round for them."""

    plan: Plan
    claims: Claims
    struck: Process
    replica: int = 1
    _round: int = 0
    _accepted: int = field(default=0, compare=False)

    def along(self, node: str, commands: Sequence[Command]) -> Iterator[Command]:
        """Give them one by one, with the steps before and after."""
        for command in commands:
            before, after = "", ""
            match command:
                case Open() | Advance():
                    self._round = command.round_number
                    self._accepted = 0 if isinstance(command, Open) else self._accepted
                    after = "open" if isinstance(command, Open) else ""
                case Add() | Hold() | Carry():
                    self._accepted += 1
                    before, after = "before_accept", "after_accept"
                case Close():
                    before, after = "before_close", "after_aggregate"
                case Finish():
                    before, after = "before_publish", "after_publish"
            self._at(node, before)
            yield command
            self._at(node, after)

    def reached(self, node: str, step: str, round_number: int | None = None) -> None:
        """Let what is due happen; a round that is told is this node's, and not that of the hub that `along` sees."""
        self._at(node, step, round_number)

    def over(self, node: str, serving: Any) -> Any:
        """Let what serves a hub lie where the plan says so."""
        if not self.plan.of(ANSWER).faults:
            return serving
        return Liar(serving, node, self.replica, self.plan.of(ANSWER), self.claims)

    def _at(self, node: str, step: str, round_number: int | None = None) -> None:
        nth = self._accepted if step in ("before_accept", "after_accept") else 1
        at = self._round if round_number is None else round_number
        self.at(Moment(node, step, at + 1, nth, self.replica))

    def at(self, moment: Moment) -> None:
        """Let what is due at a moment happen."""
        for fault in self.plan.of(PROCESS).due(moment):
            if self.claims.claim(fault, moment):
                fault.what.strike(self.struck)


class OwnProcess:
    """Strikes the process that it is in, which has whoever is struck to itself."""

    def kill(self, after_s: float) -> None:
        """End it."""
        if after_s:
            timer = threading.Timer(after_s, os.kill, (os.getpid(), signal.SIGKILL))
            timer.daemon = True
            timer.start()
        else:
            os.kill(os.getpid(), signal.SIGKILL)

    def hang(self, for_s: float) -> None:
        """Stop it; another process wakes it up."""
        wake = f"(sleep {for_s:g}; kill -CONT {os.getpid()}) >/dev/null 2>&1 &"
        subprocess.run(["/bin/sh", "-c", wake], start_new_session=True, check=True)
        os.kill(os.getpid(), signal.SIGSTOP)

    def delay(self, for_s: float) -> None:
        """Wait."""
        time.sleep(for_s)


class Crashed(BaseException):
    """What stands for the end of a process where hubs and workers are threads of the run's own."""


class OwnThread:
    """Strikes a hub or a worker that shares the run's process: a crash is what its calls end with."""

    def kill(self, after_s: float) -> None:
        """Lose it, with all that it holds."""
        time.sleep(after_s)
        raise Crashed("it was lost on purpose")

    def hang(self, for_s: float) -> None:
        """Errors: AssertionError; the configuration has refused it."""
        raise AssertionError(f"a thread cannot hang for {for_s} s alone")

    def delay(self, for_s: float) -> None:
        """Wait."""
        time.sleep(for_s)
