"""What replicas have in common that say the same, and the ways in which one may lie."""

from __future__ import annotations

from collections.abc import Callable

from replicated_brain import Said

from tiers.messages import Close, Command, GiveUp
from tiers.replica_messages import FAILED

__all__ = ["LIES", "agreed", "lie"]

LIES = (
    *("fails", "flips a bit", "forges", "forges", "does not sign", "impersonates", "repeats"),
    *("drops", "doubles", "invents"),
)
"""Of them, where the first answer counts, one may only fail."""


def agreed(said: Said, truth: Said, index: int) -> bytes:
    """What replicas have in common that say the same to the thing of this index."""
    if said is truth or said.same(truth):
        return b"%d" % index
    return repr((index, said.commands, said.sums)).encode()


def lie(how: str, said: Said, last: Said | None, sign: Callable[[Said], bytes]) -> Said:
    """Bits turned round, a site left out or doubled, another's signature, an earlier answer. `last`: what it said
    before; `sign`: gives the digest.
    """
    lie = Said(said.commands, [one ^ 1 for one in said.sums], said.memory)
    match how:
        case "fails":
            lie.digest = FAILED
            return lie
        case "forges":
            lie.true, lie.digest = False, said.digest
            return lie
        case "does not sign":
            lie.signed = False
        case "repeats" if last is not None:
            lie = Said(last.commands, last.sums, last.memory)
        case "drops" | "doubles":
            lie.commands = [_falsified(one, how) for one in said.commands]
            lie.sums = [one + 1 if how == "doubles" else one - 1 for one in said.sums]
        case "invents":
            lie.commands = [*said.commands, GiveUp(0, "it says so")]
    lie.digest = sign(lie)
    return lie


def _falsified(command: Command, how: str) -> Command:
    """Leave a site out of a list, or name it twice."""
    if type(command) is not Close:
        return command
    members = command.members[1:] if how == "drops" else (*command.members, *command.members[:1])
    return Close(*(command.round_number, members, command.missing, command.weight, command.reason, command.carried))
