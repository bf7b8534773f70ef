"""A member's part in masked sums: a key for each attempt, and its update under the masks of all pairs.

What may never leave a member is two masked updates under the same masks: their difference would be the difference of
the updates. So masks belong to one attempt and one update. A secret is drawn when the hub asks for a key, is bound to
the update that is in the store then, by its digest, lies in memory only, and is dropped as soon as it has masked that
update, or another key is asked for. A process that died has forgotten it: it says so (`is_lost`), and the hub begins
another attempt, for which every member draws a new secret. What a hub may be sent of one update are therefore masked
updates under masks that are independent of each other, however often members or the hub die, are resumed or succeeded
by standbys, and each attempt tells the sum of the whole cohort or nothing.

Nor may a hub have two sums in which all members' updates are the same but one's: their difference would be that one's.
So a member masks one update for each round of a run, by its digest, in the sum of one set of members, both of which it
notes on its disk first (`noted`), and trains for no weight but the one that the configuration gives it. Who is in a sum
is said before keys are drawn, and is signed with them. The sums that a hub can have of one round are thus of sets that
have no member in common, each of all that the YAML asks for at least, and of three: no sum or difference of them is of
less than such a set. What is left to a hub that lies are rounds of their own: it can say that a member has no update
now and ask the others for a round from nearly the same model, which shows that member's update as far as the others'
repeat themselves. Against that stands `on_failure: stop`, with which all are in all sums, or noise.

A member takes part with nobody but the cohort that it reads from its own copy of the YAML, each with a key signed under
a certificate of the authority in its kit: a hub can neither leave members out of a sum unheard nor put itself between
two.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from hierfl.config.schema import RunConfig
from hierfl.errors import LinkError
from hierfl.link import asks
from hierfl.link._wire import link_pb2 as wire
from hierfl.link.approval import config_digest
from hierfl.link.codec import MAX_WEIGHT, bounded, payload_out
from hierfl.link.cohort import cohort, fewest, masks, members_in
from hierfl.link.identity import MEMBER, Identity
from hierfl.link.kit import Kit
from hierfl.link.masks import ATTEMPT_BYTES, SECRET_BYTES, Terms, masked, new_secret, pair_key, public_of
from hierfl.link.noted import Noted
from hierfl.link.payload import Outgoing, Shape
from hierfl.link.signed import check_signed, signed
from hierfl.link.store import Store
from hierfl.runtime.specs import weight_of
from tiers.federation import parent

__all__ = ["Masker"]


@dataclass(frozen=True, slots=True)
class _Attempt:
    """A key that was drawn: for which terms, and for which update of which weight."""

    terms: Terms
    secret: bytes
    said: wire.MemberKey
    update: bytes
    shape: Shape


class Masker:
    """A member's; used by its desk's thread, but for `offered`. `config`: the whole federation's."""

    def __init__(
        self, config: RunConfig, kit: Kit, store: Store, now: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self.path = kit.path
        self._config = config
        self._kit = kit
        self._store = store
        self._now = now
        hub = parent(kit.path) or ""
        self._cohort, self._fewest = cohort(config, hub), fewest(config, hub)
        self._noted = Noted(store.folder, kit.path, self._cohort)
        self._attempt: _Attempt | None = None
        self._ready: Outgoing | None = None

    @classmethod
    def of(cls, config: RunConfig, kit: Kit, store: Store) -> Masker | None:
        """Give that of a member that masks its updates; else None."""
        return cls(config, kit, store) if masks(config, kit.path) else None

    def key(self, run: str, ask: wire.Ask) -> wire.Keyed:
        """Draw a secret for an attempt at the sum of what was trained, or say in whose sum alone that may be.

        Errors: LinkError.
        """
        self._attempt, self._ready, asked = None, None, ask.key
        members = members_in(asked.members, self._cohort, self._fewest, self.path)
        found = self._store.answer(self.train_id(run, ask))
        trained = None if found is None else found.trained
        if trained is None:
            return wire.Keyed(is_lost=True)
        shape = Shape(trained.update.num_floats, trained.update.num_ints, trained.update.dtype)
        terms, secret = self._terms(run, asked, shape, members), new_secret()
        noted = self._noted.members(terms)
        if noted is not None and noted != members:
            return wire.Keyed(noted=self._kept_to(terms, noted))
        public = public_of(secret)
        certificate, signature = signed(self._kit, terms.said(self.path, trained.weight, public))
        said = wire.MemberKey(
            node=self.path,
            weight=trained.weight,
            public=public,
            certificate=certificate,
            signature=signature,
        )
        self._attempt = _Attempt(terms, secret, said, bytes(trained.update.digest), shape)
        return wire.Keyed(key=said)

    def mask(self, asked: wire.AskMasked) -> wire.Masked:
        """Mask the update of an attempt with the keys of all members, and let the secret go. Errors: LinkError."""
        attempt, self._attempt, self._ready = self._attempt, None, None
        if attempt is None or attempt.terms.attempt != asked.attempt:
            return wire.Masked(is_lost=True)
        keys = self._keys(attempt, asked)
        if self._store.outgoing(attempt.update) is None:
            return wire.Masked(is_lost=True)
        self._noted.note(attempt.terms, attempt.update)
        floats, ints = self._store.read(self._store.update(attempt.update), attempt.shape)
        self._ready = Outgoing(*masked(floats, ints, self.path, attempt.terms.members, keys))
        return wire.Masked(update=payload_out(self._ready.shape, self._ready.digest))

    def check_weight(self, weight: int, num_samples: int) -> None:
        """Errors: LinkError for a weight that is not the member's own, which has so many training samples."""
        own = weight_of(self._config, self.path, num_samples)
        if weight != own:
            raise LinkError(f"{self.path} is to train for a weight of {weight}, and its own is {own}")

    def offered(self, digest: bytes) -> Outgoing | None:
        """Give the masked update of the last attempt; None for anything else."""
        ready = self._ready
        return ready if ready is not None and ready.digest == digest else None

    def train_id(self, run: str, ask: wire.Ask) -> int:
        """Give the id of the question by which a member was asked to train what it is asked for a key for."""
        return asks.with_id(wire.Ask(train=ask.key.train), run, self.path, ask.epoch).id

    def _kept_to(self, terms: Terms, noted: tuple[str, ...]) -> tuple[str, ...]:
        """Give the set that a hub has to keep to. Errors: LinkError where no sum of its may be of that any more."""
        try:
            return members_in(noted, self._cohort, self._fewest, self.path)
        except LinkError:
            raise LinkError(self._noted.refusal(terms, noted)) from None

    def _terms(self, run: str, asked: wire.AskKey, shape: Shape, members: tuple[str, ...]) -> Terms:
        """Give the terms of an attempt. Errors: LinkError for a hub that is not the member's own, or no attempt."""
        said, attempt = asked.train, asked.attempt
        if said.hub != parent(self.path) or len(attempt) != ATTEMPT_BYTES:
            raise LinkError(f"a key for a sum that is not of {parent(self.path)}")
        return Terms(
            federation=self._config.name,
            config=config_digest(self._config),
            run=run,
            hub=said.hub,
            round_number=said.round_number,
            opened_by=said.opened_by,
            opened_round=said.opened_round,
            total_weight=bounded(said.total_weight, "the weight of a round", 1, MAX_WEIGHT),
            model=bytes(said.model.digest),
            shape=(shape.num_floats, shape.num_ints, shape.dtype),
            attempt=attempt,
            members=members,
        )

    def _keys(self, attempt: _Attempt, asked: wire.AskMasked) -> dict[str, bytes]:
        """Agree on a key with each other member. Errors: LinkError for a list that is not of the attempt's members, and
        for a key that its member has not signed.
        """
        terms, own = attempt.terms, self.path
        if tuple(one.node for one in asked.keys) != terms.members:
            raise LinkError(f"keys of {len(asked.keys)} members, which are not the {len(terms.members)} of the sum")
        found = {}
        for one in asked.keys:
            if one.node == own:
                if one != attempt.said:
                    raise LinkError(f"another key of {own} than its own")
                continue
            if len(one.public) != SECRET_BYTES:
                raise LinkError(f"a key of {one.node} of {len(one.public)} bytes")
            said = terms.said(one.node, bounded(one.weight, "a weight", 1, terms.total_weight), one.public)
            who = Identity(MEMBER, self._kit.federation, one.node)
            check_signed(self._kit, who, one.certificate, one.signature, said, self._now())
            try:
                found[one.node] = pair_key(terms, attempt.secret, own, one.node, one.public)
            except ValueError as error:
                raise LinkError(f"a key of {one.node} that is none") from error
        return found
