"""Whatever a member sends is taken or refused by name: never another error, and never much memory."""

from __future__ import annotations

import random
import resource
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from link_fuzz import Hub, corpus, invented, mutated

from hierfl.link._wire import link_pb2 as wire
from hierfl.link.codec import MAX_BYTES

METHODS = ("train", "evaluate", "describe")
MORE_MIB = 200


@pytest.fixture
def hub(tmp_path: Path) -> Hub:
    return Hub(tmp_path)


def test_sound_messages_are_taken(hub: Hub) -> None:
    for name, content in corpus(0).items():
        if name == "chunk":
            continue
        method = name.partition(" ")[0]
        sound = wire.MemberSays.FromString(content)
        sound.answer.id = hub.ask(method)
        assert hub.hear(sound.SerializeToString()) == "taken"
        assert hub.done[-1].ticket == 2, name


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=400))
def test_raw_bytes(hub: Hub, content: bytes) -> None:
    hub.hear(content)
    hub.receive(content)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32), method=st.sampled_from(METHODS))
def test_messages_of_the_right_types(hub: Hub, seed: int, method: str) -> None:
    one_case(hub, random.Random(seed), method)


def test_a_message_that_is_too_long_is_refused_unread(hub: Hub) -> None:
    assert "at most" in hub.hear(bytes(MAX_BYTES + 1))


def test_replayed_and_foreign_messages_are_refused(hub: Hub) -> None:
    beat = wire.MemberSays(nonce=b"n" * 16, sequence=1, beat=wire.Beat())
    assert hub.hear(beat.SerializeToString(), b"n" * 16) == "taken"
    assert "another session" in hub.hear(beat.SerializeToString(), b"m" * 16)
    for sequence in (0, 2, 2**63):
        beat.sequence = sequence
        assert "comes next" in hub.hear(beat.SerializeToString(), b"n" * 16)


@pytest.mark.slow
def test_a_million_messages(tmp_path: Path) -> None:
    chance = random.Random(0)
    hub = Hub(tmp_path)
    start_mib = peak_mib()
    outcomes = {"taken": 0, "refused": 0}
    for number in range(1_000_000):
        said = one_case(hub, chance, METHODS[number % 3])
        outcomes["taken" if said == "taken" else "refused"] += 1
    assert outcomes["taken"] > 1000 and outcomes["refused"] > 500_000, outcomes
    assert peak_mib() - start_mib < MORE_MIB
    assert not list(tmp_path.glob("*.update"))


def one_case(hub: Hub, chance: random.Random, method: str) -> str:
    """Send one message, damaged or invented, to a hub that has just asked."""
    ask_id = hub.ask(method) if chance.random() < 0.05 or len(hub.done) > 500 else hub.member.last.ask.id
    if len(hub.done) > 500:
        hub.done.clear()
    del hub.member.said[:-1]
    sound = _SOUND or _SOUND.update(corpus(1)) or _SOUND
    if chance.random() < 0.4:
        content = mutated(chance.choice(list(sound.values())), chance)
    else:
        message = invented(wire.MemberSays, chance)
        message.nonce, message.sequence = b"", chance.choice((1, 1, 1, 1, 0, 7))
        if message.WhichOneof("what") == "answer":
            message.answer.id = ask_id
        content = message.SerializeToString()
    said = hub.receive(content) if chance.random() < 0.2 else hub.hear(content)
    assert said != "refused without a word"
    return said


_SOUND: dict[str, bytes] = {}


def peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if sys.platform == "linux" else 1 << 20)
