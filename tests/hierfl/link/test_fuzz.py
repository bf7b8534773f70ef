"""Whatever a member sends is taken or refused by name: never another error, and never much memory."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import grpc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from link_fuzz import MORE_MIB, Cases, Hub, Member, corpus, in_short, peak_mib, questions
from link_invented import mutated, varied
from link_members import AGREED, Pki, hub_on_loopback

from hierfl.link import limits
from hierfl.link._wire import link_pb2 as wire
from hierfl.link.codec import MAX_BYTES
from hierfl.link.door import SERVICE
from hierfl.link.identity import server_name
from hierfl.link.permits import NODE_KEY


@pytest.fixture
def hub(tmp_path: Path) -> Hub:
    return Hub(tmp_path)


def test_sound_messages_are_taken(hub: Hub) -> None:
    for name, content in corpus(0).items():
        if name in ("chunk", "hello"):
            continue
        method = name.partition(" ")[0]
        sound = wire.MemberSays.FromString(content)
        sound.answer.id = hub.ask(method)
        assert hub.hear(sound.SerializeToString()) == "taken"
        assert hub.done[-1].ticket == 2, name
    assert hub.greet(corpus(0)["hello"]) == "taken"


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=400))
def test_raw_bytes(hub: Hub, content: bytes) -> None:
    hub.hear(content)
    hub.receive(content)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32))
def test_messages_of_every_kind(hub: Hub, seed: int) -> None:
    cases = Cases(hub, random.Random(seed))
    for _ in range(5):
        assert cases.one()[1] != "refused without a word"


def test_what_a_hub_asks_is_done_or_refused_by_name(tmp_path: Path) -> None:
    member = Member(tmp_path)
    for name, said in questions().items():
        assert member.hear(said.SerializeToString()) == "taken", name
    strange(member, random.Random(0), 300)
    member.close()


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
    """Every kind is taken at times and refused more often; nothing else happens, and memory and disk are as before."""
    hub = Hub(tmp_path)
    cases, outcomes, reasons = Cases(hub, random.Random(0)), Counter[tuple[str, str]](), set[str]()
    start_mib = peak_mib()
    for _ in range(1_000_000):
        kind, said = cases.one()
        assert said != "refused without a word"
        outcomes[kind, "taken" if said == "taken" else "refused"] += 1
        reasons.add(in_short(said))
    for kind in ("invented", "varied", "chunk", "hello"):
        assert outcomes[kind, "taken"] > 500 and outcomes[kind, "refused"] > 5000, outcomes
    assert len(reasons) > 40, reasons
    assert peak_mib() - start_mib < MORE_MIB
    hub.lane.reset()
    assert not list(tmp_path.glob("*.update*"))


@pytest.mark.slow
def test_twenty_thousand_questions_of_a_hub(tmp_path: Path) -> None:
    member = Member(tmp_path)
    start_mib = peak_mib()
    assert strange(member, random.Random(0), 20_000) > 1000
    assert peak_mib() - start_mib < MORE_MIB
    member.close()


@pytest.mark.slow
def test_thousands_of_streams_to_a_hub_that_listens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A member with a sound certificate sends what it likes: each stream ends with a status, and the hub serves on."""
    monkeypatch.setattr(limits, "CALLS_PER_S", 1e9)
    monkeypatch.setattr(limits, "BURST", 1e9)
    chance, pki = random.Random(0), Pki(tmp_path)
    sound = corpus(1)
    hello = wire.MemberSays.FromString(sound["hello"])
    with hub_on_loopback(pki) as (service, _, _, heard):
        key, certificate, authority = pki.kit("world/us").credentials()
        credentials = grpc.ssl_channel_credentials(authority, key, certificate)
        options = [("grpc.ssl_target_name_override", server_name("heart", "world"))]
        with grpc.secure_channel(f"localhost:{service.port}", credentials, options) as channel:
            control = channel.stream_stream(f"/{SERVICE}/Control")
            fetch, deliver = channel.unary_stream(f"/{SERVICE}/Fetch"), channel.stream_unary(f"/{SERVICE}/Deliver")
            statuses = Counter[str]()
            for number in range(3000):
                content = mutated(chance.choice(list(sound.values())), chance)
                first = content if chance.random() < 0.3 else varied(hello, chance).SerializeToString()
                try:
                    metadata = ((NODE_KEY, b"world/us"),)
                    if number % 3 == 0:
                        list(control(iter([first, content]), metadata=metadata, timeout=60))
                    elif number % 3 == 1:
                        list(fetch(content, metadata=metadata, timeout=60))
                    else:
                        deliver(iter([content]), metadata=metadata, timeout=60)
                    statuses["OK"] += 1
                except grpc.RpcError as error:
                    statuses[error.code().name] += 1
            assert set(statuses) <= {"OK", "FAILED_PRECONDITION", "INVALID_ARGUMENT", "ABORTED"}, statuses
            assert not any("failed" in line for line in heard)
            hello.hello.line = "another"  # a stream may have named a process that came after
            hello.hello.instance = "new"
            said = control(iter([hello.SerializeToString()]), metadata=((NODE_KEY, b"world/us"),), timeout=60)
            assert wire.HubSays.FromString(next(said)).welcome.run == AGREED.run
            said.cancel()


def strange(member: Member, chance: random.Random, num: int) -> int:
    """Ask a member strange things; give how often it did what was asked."""
    sound, taken = list(questions().values()), 0
    for _ in range(num):
        said = chance.choice(sound)
        content = varied(said, chance).SerializeToString()
        outcome = member.hear(content if chance.random() < 0.8 else mutated(content, chance))
        assert outcome != "refused without a word"
        taken += outcome == "taken"
    return taken
