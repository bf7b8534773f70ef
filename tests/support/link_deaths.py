"""Processes of a federation over links that die by SIGKILL at one moment of one round, by their own hand.

    python link_deaths.py MOMENT ROUND python -m hierfl join ...

A hub notes what it hears and takes of its members' updates in `heard.jsonl`, in the folder where it was started.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

__all__ = ["MOMENTS", "NEVER", "dies", "heard"]

MOMENTS = {
    "trains": "in the midst of its local steps",
    "unpaid": "its training has ended, and the ledger has not got its line",
    "paid": "the line is there, and nothing else of the training",
    "stored": "the update is on the disk, and no word of whose round it is",
    "told": "the hub was told that an update is ready",
    "sent": "gRPC has taken the update; the call is open, or has just ended",
    "masked": "the update is masked, and its digest noted",
    "took": "a hub has a member's update, whole",
}
"""Of members, and the last one of a hub."""

NEVER = "never"
HEARD = "heard.jsonl"


def dies(moment: str, in_round: int = 0) -> list[str]:
    """Give what stands before a process's own command."""
    assert moment == NEVER or moment in MOMENTS, moment
    return [sys.executable, __file__, moment, str(in_round)]


def heard(folder: Path) -> dict[tuple[str, int], set[str]]:
    """Give the digests of all updates that a hub heard of, by member's path and round."""
    found: dict[tuple[str, int], set[str]] = {}
    for line in (folder / HEARD).read_text().splitlines():
        said = json.loads(line)
        found.setdefault((said["node"], said["round"]), set()).add(said["digest"])
    return found


class Death:
    def __init__(self, moment: str, in_round: int) -> None:
        self._at = moment, in_round
        self.round = 0

    def __call__(self, moment: str) -> None:
        if (moment, self.round) == self._at:
            os.kill(os.getpid(), signal.SIGKILL)

    def around(self, owner: type, method: str, before: str = "", after: str = "") -> None:
        whole = getattr(owner, method)

        def watched(*arguments: Any, **named: Any) -> Any:
            self(before)
            found = whole(*arguments, **named)
            self(after)
            return found

        setattr(owner, method, watched)


def watch_member(death: Death) -> None:
    from hierfl.link.branch import Branch
    from hierfl.link.dialer import Dialer
    from hierfl.link.ledger import Ledger
    from hierfl.link.masker import Masker
    from hierfl.link.payload import Outgoing
    from hierfl.link.store import Store
    from hierfl.privacy.dp_sgd import DpSgd

    train, say, chunks, gradients = Branch.train, Dialer.say, Outgoing.chunks, DpSgd.gradients

    def training(self: Branch, asked: Any, model: Any) -> Any:
        death.round = asked.round_number + 1
        return train(self, asked, model)

    def stepping(*arguments: Any) -> Iterator[None]:
        for step, _ in enumerate(gradients(*arguments)):
            if step == 2:
                death("trains")
            yield

    def saying(self: Dialer, answer: Any) -> None:
        say(self, answer)
        if answer.WhichOneof("what") == "trained":
            death("told")

    def sending(self: Outgoing, transfer: int, offset: int) -> Iterator[bytes]:
        yield from chunks(self, transfer, offset)
        death("sent")

    Branch.train, Dialer.say, Outgoing.chunks = training, saying, sending  # type: ignore[method-assign]
    DpSgd.gradients = stepping  # type: ignore[assignment]
    death.around(Ledger, "pay", "unpaid", "paid")
    death.around(Store, "put", after="stored")
    death.around(Dialer, "_deliver", after="sent")  # a hub that has all may answer before gRPC asks for more
    death.around(Masker, "mask", after="masked")


def watch_hub(death: Death) -> None:
    from hierfl.link.collect import Collect
    from hierfl.link.lane import Lane
    from hierfl.link.masked_collect import MaskedCollect

    trained, hand_up, came = Lane._trained, Collect._hand_up, MaskedCollect.came
    at = Path(HEARD).absolute()

    def hearing(self: Lane, call: Any, message: Any) -> None:
        if message.update.digest:
            note(self.path, call.arguments[0].round_number, message.update.digest)
        trained(self, call, message)

    def taking(self: Collect, call: Any, offer: Any) -> None:
        death.round = offer.job.round_number + 1
        note(self._path, offer.job.round_number, offer.digest)
        hand_up(self, call, offer)
        death("took")

    def taking_masked(self: MaskedCollect, offer: Any) -> None:
        death.round = offer.job.round_number + 1
        came(self, offer)
        death("took")

    def note(path: str, number: int, digest: bytes) -> None:
        with at.open("a") as file:
            file.write(json.dumps({"node": path, "round": number + 1, "digest": digest.hex()}) + "\n")

    Lane._trained, Collect._hand_up, MaskedCollect.came = hearing, taking, taking_masked  # type: ignore[method-assign]


def main(moment: str, in_round: str, words: Sequence[str]) -> None:
    death = Death(moment, int(in_round))
    watch: Callable[[Death], None] = watch_hub if words[0] == "serve" else watch_member
    watch(death)
    sys.argv = ["hierfl", *words]
    from hierfl.__main__ import main as hierfl

    hierfl()


if __name__ == "__main__":
    main(*sys.argv[1:3], sys.argv[6:])
