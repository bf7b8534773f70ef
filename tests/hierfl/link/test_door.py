"""Callers that open calls and say nothing: they are judged before anything is waited for, and nobody waits long."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import pytest
from link_members import AGREED, Pki, hub_on_loopback

from hierfl.link import permits
from hierfl.link._wire import link_pb2 as wire
from hierfl.link.denied import LOOK_S
from hierfl.link.door import SERVICE
from hierfl.link.identity import PEER, server_name
from hierfl.link.kit import Kit
from hierfl.link.peers import PeerDoor
from hierfl.link.permits import NODE_KEY
from hierfl.link.service import VERSIONS

NUM = 40
LIMIT_S = 15.0


@pytest.fixture
def pki(tmp_path: Path) -> Pki:
    return Pki(tmp_path)


@contextlib.contextmanager
def channel(kit: Kit, port: int, server: str) -> Iterator[Any]:
    key, certificate, authority = kit.credentials()
    credentials = grpc.ssl_channel_credentials(authority, key, certificate)
    options = [("grpc.ssl_target_name_override", server), ("grpc.use_local_subchannel_pool", 1)]
    with grpc.secure_channel(f"localhost:{port}", credentials, options) as opened:
        yield opened


@contextlib.contextmanager
def silent(kit: Kit, port: int, call: str, num: int, server: str) -> Iterator[list[Any]]:
    """Open calls over connections of their own, eight on each, of which only the headers go."""
    over, about = threading.Event(), ((NODE_KEY, kit.path.encode()),)

    def nothing() -> Iterator[bytes]:
        over.wait()
        yield from ()

    with contextlib.ExitStack() as stack:
        stack.callback(over.set)
        calls: list[Any] = []
        while len(calls) < num:
            stub = stack.enter_context(channel(kit, port, server)).stream_stream(f"/{SERVICE}/{call}")
            calls += [stub(nothing(), metadata=about, timeout=4 * LIMIT_S) for _ in range(min(8, num - len(calls)))]
        yield calls


def status(call: Any) -> grpc.StatusCode:
    with pytest.raises(grpc.RpcError) as caught:
        list(call)
    return caught.value.code()


def joins(kit: Kit, port: int) -> bool:
    """Whether a hub welcomes a member."""
    agreed = {"federation": "heart", "config_digest": "config", "task_digest": "task"}
    hello = wire.Hello(versions=VERSIONS, node=kit.path, instance="a", **agreed)
    said = iter([wire.MemberSays(hello=hello, sequence=1).SerializeToString()])
    with channel(kit, port, server_name("heart", "world")) as opened:
        control = opened.stream_stream(f"/{SERVICE}/Control")
        heard = next(control(said, metadata=((NODE_KEY, kit.path.encode()),), timeout=LIMIT_S))
    return bool(wire.HubSays.FromString(heard).welcome.run == AGREED.run)


def revoke(pki: Pki, node: str, at: str) -> None:
    pki.authority.revoke(node, datetime.now(UTC), "stolen")
    (pki.folder / at / "denied.json").write_bytes((pki.authority.folder / "denied.json").read_bytes())
    time.sleep(LOOK_S)


@pytest.mark.parametrize(
    ("call", "ends"), [("Fetch", "PERMISSION_DENIED"), ("Deliver", "PERMISSION_DENIED"), ("Nothing", "UNIMPLEMENTED")]
)
def test_a_revoked_certificate_holds_none_of_a_hubs_threads(pki: Pki, call: str, ends: str) -> None:
    """More calls than the hub has threads, of which nothing comes but that they were made."""
    with hub_on_loopback(pki) as (service, _, _, heard):
        them, us = pki.kit("world/them"), pki.kit("world/us")
        revoke(pki, "world/them", "world")
        with silent(them, service.port, call, NUM, server_name("heart", "world")) as calls:
            assert {status(one).name for one in calls} == {ends}
            assert joins(us, service.port)
        assert any("was refused" in line for line in heard)


def test_nor_of_a_members_that_hands_vectors_out(pki: Pki) -> None:
    offered: list[bytes] = []
    door = PeerDoor(pki.kit("ring/a"), "127.0.0.1:0", ["ring/b"], lambda digest: offered.append(digest))
    try:
        ring_b, server = pki.kit("ring/b"), server_name("heart", "ring/a", PEER)
        with silent(pki.kit("ring/c"), door.port, "Hand", NUM, server), channel(ring_b, door.port, server) as opened:
            asked = wire.FetchRequest(digest=b"d" * 32).SerializeToString()
            hand = opened.unary_stream(f"/{SERVICE}/Hand")
            found = status(hand(asked, metadata=((NODE_KEY, b"ring/b"),), timeout=LIMIT_S))
            assert found == grpc.StatusCode.NOT_FOUND and offered == [b"d" * 32]
    finally:
        door.close()


@pytest.mark.parametrize("call", ["Control", "Fetch"])
def test_who_may_call_says_soon_what_it_wants(pki: Pki, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    """Two that have gone without a word would keep a member out."""
    monkeypatch.setattr(permits, "FIRST_S", 0.2)
    with hub_on_loopback(pki) as (service, _, _, heard):
        us = pki.kit("world/us")
        with silent(us, service.port, call, 2, server_name("heart", "world")) as calls:
            assert {status(one).name for one in calls} == {"CANCELLED"}
        assert sum(f"was ended: {call} stood still" in line for line in heard) == 2
        assert joins(us, service.port)


@pytest.mark.parametrize("call", ["Control", "Hand"])
def test_who_takes_nothing_any_more_is_hung_up_on(pki: Pki, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    """gRPC waits in the midst of an answer, and so nothing else is looked at."""
    monkeypatch.setattr(permits, "STILL_S", dict.fromkeys(permits.CALLS, 0.2))
    kit, ended, told = pki.kit("ring/a"), threading.Event(), list[str]()
    keeper = permits.Gatekeeper("heart", ["ring/a"], permits.DenyList(kit.denied), permits.Limits(), told.append)
    context: Any = SimpleNamespace(
        auth_context=lambda: {"x509_pem_cert": [kit.credentials()[1]]},
        peer=lambda: "ipv4:10.0.0.7:4711",
        cancel=ended.set,
    )
    handler = grpc.stream_stream_rpc_method_handler(lambda *_: iter(range(3)))
    details = SimpleNamespace(method=f"/{SERVICE}/{call}", invocation_metadata=((NODE_KEY, b"ring/a"),))
    says = keeper.intercept_service(lambda _: handler, details).stream_stream(iter(()), context)
    assert next(says) == 0
    assert ended.wait(LIMIT_S)
    says.close()
    assert f"was ended: {call} stood still" in told[0] and not keeper.limits._open["ring/a", call]
