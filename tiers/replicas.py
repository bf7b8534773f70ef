"""The replicas of a hub's aggregator: whose answer counts, and who is replaced.

All replicas of a hub are told the same in the same order, by the one that supervises them: active replication of a
deterministic machine (Schneider 1990, Implementing fault-tolerant services using the state machine approach). Answers
carry the index of what they answer, and the digest of what they say.

**crash**: the first answer to each index counts, so that any n - 1 of n replicas may die or hang. A replica is not
expected to compute wrongly; where two answers differ all the same, the one that counts is kept and the other's author
is named and begins anew, though nobody can say which of the two is wrong. That a replica could not compute its answer
(`FAILED`) counts only once all say so: one machine's memory or disk may be to blame.

**vote**: an answer counts once f + 1 of 2f + 1 replicas have signed the same digest, so that any f of them may say
whatever they like. f + 1 is enough, and 3f + 1 replicas are not needed, since those who vote do not have to agree on an
order: the one supervisor gives it, and counts. That it is right is taken for granted, as it is of whoever reads the
result. Which f they are may change: who is caught is replaced, and is told everything once more.

Which replica dies, or is caught, again and again within a hub's rounds sits the rest of them out: it is told nothing,
has no vote, and nobody waits for it. A vote needs as many as before; where too few are left for one, the run ends.

Safety rests on lives, never on clocks. A replica's process has a life, counted from 0; when it is replaced the next
life begins, and what an earlier one still says is dropped. The lease only says when to stop waiting for a replica that
the others have left behind, and a wrong guess costs no more than a process. After each such guess the patience with
that replica doubles, until the hub's next rounds. A replica that the whole hub waits for is `tiers.pulse`'s.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tiers.replica_messages import (
    FAILED,
    Abandon,
    Answered,
    CarryOut,
    Cause,
    Command,
    Died,
    Disagree,
    Event,
    Forged,
    Mode,
    Opened,
    Rebased,
    Replace,
    Retire,
    Return,
    Stopped,
    Tick,
    Told,
    Up,
)

__all__ = ["MAX_RESTARTS", "Replicas", "quorum_of"]

MAX_RESTARTS = 5
"""How often one replica's process is replaced within a hub's rounds; then it sits out the rest of them."""


def quorum_of(mode: Mode, num_replicas: int) -> int:
    """Say how many equal answers count."""
    return num_replicas // 2 + 1 if mode == "vote" else 1


@dataclass
class _Replica:
    """One replica: `answered` is the index that its process will answer next, `begins` the first that it was told.

    `heard_s`: when its process last said something; None while it has not begun.
    """

    life: int = 0
    begins: int = 0
    recalls: bool = False
    answered: int = 0
    heard_s: float | None = None
    restarts: int = 0
    silences: int = 0
    sits_out: bool = False


@dataclass
class Replicas:
    """The replicas of one hub. `lease_s`: how long one may be behind the others, in the seconds of `Tick`.

    `told`, `carried_out`, `first`: the index of the next thing to be told, to be carried out, and of the first that a
    fresh replica is told.
    """

    num_replicas: int = 1
    mode: Mode = "crash"
    lease_s: float = float("inf")
    told: int = 0
    carried_out: int = 0
    first: int = 0
    recalls: bool = False
    _replicas: list[_Replica] = field(default_factory=list)
    _votes: dict[int, dict[int, bytes]] = field(default_factory=dict)
    _decided: dict[int, bytes] = field(default_factory=dict)
    _first_s: dict[int, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        assert self.mode == "crash" or self.num_replicas % 2 == 1, f"{self.num_replicas} replicas cannot vote"
        self._replicas = [_Replica() for _ in range(self.num_replicas)]

    @property
    def lives(self) -> tuple[int, ...]:
        """The life of each replica's process."""
        return tuple(replica.life for replica in self._replicas)

    @property
    def quorum(self) -> int:
        """How many equal answers count."""
        return quorum_of(self.mode, self.num_replicas)

    @property
    def lags(self) -> bool:
        """Whether any replica has yet to say what another one has said: time counts."""
        return any(one.answered in self._first_s and not one.sits_out for one in self._replicas)

    @property
    def active(self) -> tuple[int, ...]:
        """The replicas that do not sit out, and are told what there is."""
        return tuple(number for number, one in enumerate(self._replicas) if not one.sits_out)

    def handle(self, event: Event) -> list[Command]:
        """Take what has happened; give what is to be done, in order. At most one index is carried out at a time, but
        for what waited for a replica that sits out.
        """
        commands = self._heard(event)
        if any(isinstance(command, Retire) for command in commands) and self.carried_out in self._votes:
            commands += self._decide(self.carried_out)
        return commands

    def _heard(self, event: Event) -> list[Command]:
        match event:
            case Told():
                self.told += 1
            case Opened():
                return self._opened()
            case Answered():
                return self._answered(event)
            case Up(replica, life, now):
                if life == self._replicas[replica].life:
                    self._replicas[replica].heard_s = now
            case Forged(replica, life, index):
                return self._end(replica, life, "forged", f"{_answer(index)} is not what its signature is about")
            case Died(replica, life, reason, cause):
                return self._end(replica, life, cause, reason)
            case Tick(now):
                return [one for number in range(self.num_replicas) for one in self._tick(number, now)]
            case Rebased(first, recalls):
                assert self.first <= first <= self.carried_out, f"{first} is not carried out"
                self.first, self.recalls = first, recalls
            case Stopped():
                self._stop()
        return []

    def _opened(self) -> list[Command]:
        """Give everybody a clean slate."""
        found: list[Command] = []
        for number, one in enumerate(self._replicas):
            one.restarts = one.silences = 0
            if one.sits_out:
                one.sits_out = False
                one.life += 1
                self._begin(one)
                found.append(Return(number, one.life))
        return found

    def _answered(self, event: Answered) -> list[Command]:
        """Count an answer, unless it is of an earlier life or has come before."""
        number, index, one = event.replica, event.index, self._replicas[event.replica]
        if event.life != one.life or index < one.answered:
            return []
        assert index == one.answered < self.told, f"{_answer(index)} came before {_answer(one.answered)}"
        one.answered, one.heard_s = index + 1, event.now
        if not event.signed:
            return self._end(number, one.life, "unsigned", f"{_answer(index)} is not signed by its key")
        if one.recalls and index == one.begins:
            return []
        if index < self.carried_out:
            departs = self._decided.get(index, event.digest) != event.digest
            self._forget()
            return self._odd(number, index) if departs else []
        self._first_s.setdefault(index, event.now)
        self._votes.setdefault(index, {})[number] = event.digest
        return self._decide(index)

    def _decide(self, index: int) -> list[Command]:
        """Carry out an answer that has votes enough; say so if none can have them.

        No other index can be decided by the same answer: whoever else has answered a later one has answered this.
        """
        if index != self.carried_out:
            return []
        votes = self._votes[index]
        by_digest: dict[bytes, list[int]] = {}
        for number, digest in votes.items():
            by_digest.setdefault(digest, []).append(number)
        best = max(by_digest.values(), key=len)
        decided = [who for digest, who in by_digest.items() if len(who) >= self._needs(digest)]
        if decided:
            [best] = decided
            odd = [number for number in votes if number not in best]
            self._decided[index] = votes[best[0]]
            del self._votes[index]
            self.carried_out += 1
            replaced = [command for number in odd for command in self._odd(number, index)]
            self._forget()
            return [*replaced, CarryOut(index, tuple(best))]
        if self.mode == "vote" and len(best) + len(self.active) - len(votes) < self.quorum:
            split = _split(by_digest)
            return [Disagree(index, f"no {self.quorum} of {self.num_replicas} replicas give the same answer: {split}")]
        return []

    def _needs(self, digest: bytes) -> int:
        """Say how many must give this answer for it to count."""
        return len(self.active) if self.mode == "crash" and digest == FAILED else self.quorum

    def _odd(self, number: int, index: int) -> list[Command]:
        """Replace a replica whose answer is not the one that counts."""
        life = self._replicas[number].life
        if self.mode == "vote":
            said = f"{_answer(index)} differs from that of {self.quorum} others, who agree"
            return self._end(number, life, "outvoted", said)
        return self._end(number, life, "differs", f"{_answer(index)} differs from the one that counts")

    def _tick(self, number: int, now: float) -> list[Command]:
        """Replace a replica that the others have left behind for too long."""
        one = self._replicas[number]
        first_s = self._first_s.get(one.answered)
        if first_s is None or one.heard_s is None or one.sits_out:
            return []
        behind_s = now - max(first_s, one.heard_s)
        if behind_s <= self.lease_s * 2**one.silences:
            return []
        one.silences += 1
        said = f"{_answer(one.answered)} has not come {behind_s:.1f} s after another replica's"
        return self._end(number, one.life, "silent", said)

    def _end(self, number: int, life: int, cause: Cause, reason: str) -> list[Command]:
        """Begin a replica's next life; its votes that have not counted yet are void."""
        one = self._replicas[number]
        if life != one.life or one.sits_out:
            return []
        one.life += 1
        one.restarts += 1
        self._begin(one)
        for votes in self._votes.values():
            votes.pop(number, None)
        self._votes = {index: votes for index, votes in self._votes.items() if votes}
        if one.restarts <= MAX_RESTARTS:
            return [Replace(number, one.life, cause, reason)]
        said = f"died {one.restarts} times in one round: {reason}"
        if len(self.active) <= self.quorum:
            return [Abandon(number, said)]
        one.sits_out = True
        return [Retire(number, one.life, cause, f"{reason}, the {one.restarts}th time in one round")]

    def _begin(self, one: _Replica) -> None:
        one.begins = one.answered = self.first
        one.recalls, one.heard_s = self.recalls, None

    def _stop(self) -> None:
        """Forget all that was told; what processes still say of it is dropped."""
        self.told = self.carried_out = self.first = 0
        self.recalls = False
        for kept in (self._votes, self._decided, self._first_s):
            kept.clear()
        for one in self._replicas:
            one.life += 1
            one.sits_out = False
            heard_s = one.heard_s
            self._begin(one)
            one.heard_s = heard_s  # the process goes on

    def _forget(self) -> None:
        """Forget what nobody will be compared with any more."""
        last = min(self.first, *(self._replicas[number].answered for number in self.active))
        for kept in (self._decided, self._first_s):
            for index in [index for index in kept if index < last]:
                del kept[index]


def _answer(index: int) -> str:
    """Name an answer."""
    return f"its answer to message {index + 1}"


def _split(by_digest: Mapping[bytes, list[int]]) -> str:
    """Say who said what; people count replicas from 1."""
    groups = sorted((sorted(number + 1 for number in who), digest) for digest, who in by_digest.items())
    return "; ".join(
        f"{', '.join(map(str, who))} {'say' if len(who) > 1 else 'says'} {digest.hex()[:8]}" for who, digest in groups
    )
