"""Who may call what: the table cell by cell, certificates over a real handshake, the deny list, the limits."""

from __future__ import annotations

import itertools
import json
import re
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import pytest
from link_members import AGREED, Pki, hub_on_loopback

from hierfl.errors import LinkError
from hierfl.link._wire import link_pb2 as wire
from hierfl.link.denied import DenyList
from hierfl.link.door import SERVICE
from hierfl.link.identity import HUB, MEMBER, PEER, Identity, server_name
from hierfl.link.kit import Kit
from hierfl.link.limits import AT_ONCE, BURST, Bucket, Limits
from hierfl.link.permits import ALLOWED, CALLS, ELSEWHERE, NODE_KEY, OTHER, OWN, TOLD_AT_ONCE, Gatekeeper, Peer
from hierfl.link.service import VERSIONS
from hierfl.link.sound import certificate_of

SOON = datetime.now(UTC) + timedelta(days=1)  # read as the tests are gathered: all of them take more than an hour
ABOUT = {OWN: "world/us", OTHER: "world/them", ELSEWHERE: "world/mars"}
CELLS = list(itertools.product((HUB, MEMBER, PEER), CALLS, (OWN, OTHER, ELSEWHERE)))


@pytest.fixture
def keeper(tmp_path: Path) -> Gatekeeper:
    return Gatekeeper("heart", ["world/us", "world/them"], DenyList(tmp_path / "denied.json"), Limits())


@pytest.mark.parametrize(("role", "call", "resource"), CELLS)
def test_every_cell_of_the_table(keeper: Gatekeeper, role: str, call: str, resource: str) -> None:
    peer = Peer((Identity(role, "heart", "world/us"),), 1, SOON)
    said = keeper.judge(peer, call, ABOUT[resource])
    mine = {HUB: (), MEMBER: ("Control", "Fetch", "Deliver"), PEER: ("Hand",)}[role]
    assert (said is None) == (call in mine and resource == OWN) == ((role, call, resource) in ALLOWED)


def test_a_party_of_another_federation_and_nobody_may_nothing(keeper: Gatekeeper) -> None:
    for identities in ((Identity(MEMBER, "other", "world/us"),), ()):
        assert keeper.judge(Peer(identities, 1, SOON), "Control", "world/us") is not None


def test_a_certificate_that_has_run_out_or_is_denied_is_none(tmp_path: Path) -> None:
    (tmp_path / "denied.json").write_text(json.dumps({"denied": [{"serial": "2a"}]}))
    keeper = Gatekeeper("heart", ["world/us"], DenyList(tmp_path / "denied.json"), Limits())
    me = (Identity(MEMBER, "heart", "world/us"),)
    assert keeper.judge(Peer(me, 41, SOON), "Control", "world/us") is None
    assert keeper.judge(Peer(me, 42, SOON), "Control", "world/us") is not None
    assert keeper.judge(Peer(me, 41, datetime.now(UTC) - timedelta(seconds=1)), "Control", "world/us") is not None


def test_the_deny_list_is_read_anew_and_half_a_file_lets_nobody_in(tmp_path: Path) -> None:
    clock, place = [0.0], tmp_path / "denied.json"
    denied = DenyList(place, lambda: clock[0])
    assert 7 not in denied
    place.write_text(json.dumps({"denied": [{"serial": "7"}]}))
    clock[0] = 1.0
    assert 7 in denied and 8 not in denied
    place.write_text('{"denied": [{"ser')
    clock[0] = 2.0
    assert 7 in denied
    place.unlink()
    clock[0] = 3.0
    assert 7 in denied, "a file that is being replaced lets nobody in"
    place.write_text(json.dumps({"denied": [{"serial": "8"}]}))
    clock[0] = 4.0
    assert 7 not in denied and 8 in denied
    place.write_text("nonsense")
    with pytest.raises(LinkError, match="no list of denied certificates"):
        DenyList(place)


def test_calls_are_limited_at_once_and_per_second() -> None:
    clock = [0.0]
    limits = Limits(lambda: clock[0])
    for _ in range(AT_ONCE["Fetch"]):
        assert limits.enter("world/us", "Fetch") is None
    assert "open" in str(limits.enter("world/us", "Fetch"))
    assert limits.enter("world/them", "Fetch") is None
    limits.leave("world/us", "Fetch")
    assert limits.enter("world/us", "Fetch") is None
    for _ in range(int(BURST)):
        limits.enter("world/us", "Fetch")
    assert "times per second" in str(limits.enter("world/us", "Control"))
    clock[0] = 1.0
    assert limits.enter("world/us", "Control") is None


def test_refusals_are_told_a_few_at_a_time(tmp_path: Path) -> None:
    """Who is refused all the time does not fill the hub's log."""
    told: list[str] = []
    keeper = Gatekeeper("heart", ["world/us"], DenyList(tmp_path / "denied.json"), Limits(), told.append)

    class Context:
        def auth_context(self) -> dict[str, list[bytes]]:
            return {"x509_pem_cert": [b"nonsense"]}

        def peer(self) -> str:
            return "ipv4:10.0.0.7:4711"

        def abort(self, status: grpc.StatusCode, why: str) -> None:
            raise LinkError(why)

    for _ in range(100):
        with pytest.raises(LinkError, match="names no party"):
            keeper._enter("Control", "world/us", Context())
    assert TOLD_AT_ONCE <= len(told) < TOLD_AT_ONCE + 5
    assert told[0].startswith("a call from 10.0.0.7:4711 was refused: the certificate names no party")


@pytest.mark.parametrize("call", ["Fetch", "Deliver", "Hand"])
def test_a_certificate_that_is_revoked_ends_what_is_on_its_way(pki: Pki, tmp_path: Path, call: str) -> None:
    """A transfer of hours ends with the next chunk, not with the last one."""
    kit, clock, list_of = pki.kit("ring/a"), [0.0], tmp_path / "denied.json"
    keeper = Gatekeeper("heart", ["ring/a"], DenyList(list_of, lambda: clock[0]), Limits())

    class Context:
        def auth_context(self) -> dict[str, list[bytes]]:
            return {"x509_pem_cert": [kit.credentials()[1]]}

        def peer(self) -> str:
            return "ipv4:10.0.0.7:4711"

        def abort(self, status: grpc.StatusCode, why: str) -> None:
            raise LinkError(f"{status.name}: {why}")

    def chunks(*_: Any) -> Iterator[int]:
        for number in range(3):
            if number == 2:
                list_of.write_text(json.dumps({"denied": [{"serial": f"{certificate_of(kit).serial_number:x}"}]}))
            clock[0] += 1.0
            yield number

    passed: list[int] = []
    if call == "Deliver":
        handler = grpc.stream_unary_rpc_method_handler(lambda asked, *_: passed.extend(asked))
        said = lambda serve: serve.stream_unary(chunks(), Context())  # noqa: E731
    else:
        handler = grpc.unary_stream_rpc_method_handler(chunks)
        said = lambda serve: passed.extend(serve.stream_stream(iter([b""]), Context()))  # noqa: E731
    details = SimpleNamespace(method=f"/{SERVICE}/{call}", invocation_metadata=((NODE_KEY, b"ring/a"),))
    with pytest.raises(LinkError, match="PERMISSION_DENIED: the certificate is denied, or has run out"):
        said(keeper.intercept_service(lambda _: handler, details))
    assert passed == [0, 1]
    assert not keeper.limits._open["ring/a", call]


def test_a_bucket_fills_again() -> None:
    clock = [0.0]
    bucket = Bucket(2.0, 3.0, lambda: clock[0])
    assert [bucket.take() for _ in range(4)] == [True, True, True, False]
    clock[0] = 0.5
    assert [bucket.take() for _ in range(2)] == [True, False]


def dial(kit: Kit, port: int, node: str, *, hub: str = "world", hello: wire.Hello | None = None) -> Iterator[bytes]:
    """Open a control stream; give what comes."""
    key, certificate, authority = kit.credentials()
    credentials = grpc.ssl_channel_credentials(authority, key, certificate)
    options = [("grpc.ssl_target_name_override", server_name("heart", hub)), ("grpc.use_local_subchannel_pool", 1)]
    said = hello or wire.Hello(
        versions=VERSIONS, federation="heart", node=node, config_digest="config", task_digest="task", instance="a"
    )
    with grpc.secure_channel(f"localhost:{port}", credentials, options) as channel:
        control = channel.stream_stream(f"/{SERVICE}/Control")
        first = wire.MemberSays(hello=said, sequence=1).SerializeToString()

        def says() -> Iterator[bytes]:
            yield first
            time.sleep(130)

        yield from control(says(), metadata=((NODE_KEY, node.encode()),), timeout=120)


def refused(*args: Any, **more: Any) -> Any:
    with pytest.raises(grpc.RpcError) as caught:
        list(dial(*args, **more))
    return caught.value


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return Pki(tmp_path_factory.mktemp("pki"))


def test_members_are_who_their_certificates_say(pki: Pki, tmp_path: Path) -> None:
    us, stranger = pki.kit("world/us"), Pki(tmp_path).kit("world/us")
    with hub_on_loopback(pki) as (service, _, _, heard):
        welcome = wire.HubSays.FromString(next(dial(us, service.port, "world/us")))
        assert welcome.welcome.run == AGREED.run and len(welcome.welcome.nonce) == 16
        for node in ("world/them", "world/mars", ""):
            assert refused(us, service.port, node).code() == grpc.StatusCode.PERMISSION_DENIED
            serial = f"{certificate_of(us).serial_number:x}"
            assert re.search(rf"^world: a call from \S+:\d+, with the certificate {serial} was refused: ", heard[-1])
            assert f"hierfl://heart/member/world/us may not call Control about '{node}' here" in heard[-1]
        hub = pki.kit("world")  # its certificate is for servers: it does not get through the handshake
        assert refused(hub, service.port, "world").code() == grpc.StatusCode.UNAVAILABLE
        stranger.put(authority=pki.authority.pem)
        assert refused(stranger, service.port, "world/us").code() == grpc.StatusCode.UNAVAILABLE
        assert refused(us, service.port, "world/us", hub="world/us").code() == grpc.StatusCode.UNAVAILABLE


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"config_digest": "other"}, r"same YAML and overrides, and the same version of hierfl \(\d"),
        ({"task_digest": "other"}, r"code of its task .* same version of hierfl \(\d"),
        ({"versions": [VERSIONS[-1] + 1]}, rf"versions \[{VERSIONS[-1] + 1}\]"),
        (
            {"versions": [1, 2, 3, 4]},
            rf"versions \[1, 2, 3, 4\] of the protocol; this hub \[{VERSIONS[-1]}\]; .* same version of hierfl",
        ),
        ({"node": "world/them"}, "is not 'world/us'"),
        ({"instance": "x" * 5000}, "at most 2000"),
    ],
)
def test_what_does_not_fit_together_is_told(pki: Pki, changed: dict[str, Any], said: str) -> None:
    fields = {"versions": VERSIONS, "federation": "heart", "node": "world/us", "config_digest": "config"}
    hello = wire.Hello(**{**fields, "task_digest": "task", "instance": "a", **changed})
    with hub_on_loopback(pki) as (service, _, _, heard):
        error = refused(pki.kit("world/us"), service.port, "world/us", hello=hello)
        assert error.code() == grpc.StatusCode.FAILED_PRECONDITION
        assert re.search(said, error.details()) and any("was refused" in line for line in heard)


def test_a_member_cannot_pass_for_a_hub(pki: Pki) -> None:
    """A member's certificate is for clients: whoever serves with it is not believed."""
    us = pki.kit("world/us")
    with hub_on_loopback(pki) as (service, _, _, _):
        fake = pki.folder / "world"
        before = [(fake / name).read_bytes() for name in ("key.pem", "cert.pem")]
        for name in ("key.pem", "cert.pem"):
            (fake / name).write_bytes((us.folder / name).read_bytes())
        try:
            assert refused(us, service.port, "world/us").code() == grpc.StatusCode.UNAVAILABLE
        finally:
            for name, content in zip(("key.pem", "cert.pem"), before, strict=True):
                (fake / name).write_bytes(content)
        assert next(dial(us, service.port, "world/us"))  # a renewed certificate holds from the next handshake on


def test_a_revoked_member_is_gone_within_seconds_without_a_restart(pki: Pki) -> None:
    with hub_on_loopback(pki, deadline_s=10.0) as (service, _, _, heard):
        kit = pki.kit("world/them")
        stream = dial(kit, service.port, "world/them")
        next(stream)  # the stream has a limit of its own, far away: it ends by the hub's word before that
        pki.authority.revoke("world/them", datetime.now(UTC), "lost")
        (pki.folder / "world" / "denied.json").write_bytes((pki.authority.folder / "denied.json").read_bytes())
        said = next(one for one in map(wire.HubSays.FromString, stream) if one.WhichOneof("what") == "bye")
        assert said.bye.reason == "its certificate is denied, or has run out"
        assert heard[-1] == "world/them: is gone: its certificate is denied, or has run out", "who hears it hangs up"
        assert refused(kit, service.port, "world/them").code() == grpc.StatusCode.PERMISSION_DENIED
        assert any("denied" in line for line in heard)
