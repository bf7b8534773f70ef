"""What is wrong with a kit is told where it lies, before anybody is dialled."""

from __future__ import annotations

import shutil
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from link_members import AGREED, Pki, hub_on_loopback

from hierfl.errors import LinkError
from hierfl.link._wire import link_pb2 as wire
from hierfl.link.dialer import Dialer
from hierfl.link.identity import HUB, MEMBER
from hierfl.link.kit import Kit
from hierfl.link.service import VERSIONS
from hierfl.link.sound import Outlook, certificate_of, check_sound, is_short, said_until, watched, wrong_with
from hierfl.link.words import in_words


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return Pki(tmp_path_factory.mktemp("pki"))


@pytest.fixture
def kit(pki: Pki, tmp_path: Path) -> Kit:
    """A kit of a day, which a test may spoil."""
    made = pki.kit("world/us")
    shutil.copytree(made.folder, tmp_path / "kit")
    return Kit.open(tmp_path / "kit")


def test_a_sound_kit_is_sound_while_its_certificate_holds(kit: Kit) -> None:
    now = datetime.now(UTC)
    check_sound(kit, now)
    assert not is_short(kit, now) and is_short(kit, now + timedelta(hours=20))
    assert f"{certificate_of(kit).not_valid_after_utc:%Y-%m-%d %H:%M:%S} UTC" in said_until(kit)
    with pytest.raises(LinkError, match=r"ran out on .* UTC, and it is .* UTC: `hierfl renew world/us --ca DIR`"):
        check_sound(kit, now + timedelta(days=2))
    with pytest.raises(LinkError, match=r"holds from .* on, and it is .* by this machine's clock: set the wrong clock"):
        check_sound(kit, now - timedelta(days=2))


def test_a_certificate_that_runs_out_in_a_run_is_warned_of_once_a_day(pki: Pki, kit: Kit) -> None:
    told: list[str] = []
    outlook, until = Outlook(kit, told.append), certificate_of(kit).not_valid_after_utc
    for hours in (23, 12):
        outlook.look(until - timedelta(hours=hours))
    assert told == []
    for hours in (5, 4, 1):
        outlook.look(until - timedelta(hours=hours))
    assert told == [
        f"{said_until(kit)}; `hierfl renew world/us --ca DIR`, where the authority is, makes the one that belongs here"
    ]
    outlook.look(until + timedelta(hours=19.5))
    assert len(told) == 2, "a day later"
    shutil.copy(pki.kit("world/us", days=2, name="later").folder / "cert.pem", kit.folder)
    (kit.folder / "cert.pem").write_bytes(b"half of it")
    outlook.look(until + timedelta(days=9))
    assert len(told) == 2, "in the midst of being renewed"
    shutil.copy(pki.kit("world/us", days=2, name="later").folder / "cert.pem", kit.folder)
    outlook.look(until)
    assert len(told) == 2, "it was renewed"
    outlook.look(certificate_of(kit).not_valid_after_utc - timedelta(hours=1))
    assert len(told) == 3, "another one, which is short in its turn"


def test_who_serves_looks_on(pki: Pki, kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    import queue

    monkeypatch.setattr("hierfl.link.sound.LOOK_S", 0.01)
    told: queue.Queue[str] = queue.Queue()
    with watched(kit, told.put):
        assert told.empty()
        shutil.copy(pki.kit("world/us", days=0.001, name="short").folder / "cert.pem", kit.folder)
        assert "holds until" in told.get(timeout=60)


@pytest.mark.parametrize(
    ("file", "whose", "said"),
    [
        ("cert.pem", "world/them", r"cert.pem is not of the key in .*key.pem: `hierfl sign`"),
        ("ca.pem", "stranger", r"cert.pem was not signed by the authority in .*ca.pem: both come from one folder"),
        ("key.pem", "", r"key.pem cannot be read"),
        ("cert.pem", "", r"cert.pem cannot be read"),
        ("ca.pem", "", r"ca.pem cannot be read"),
        ("denied.json", "", r"denied.json is no list of denied certificates"),
    ],
)
def test_files_that_do_not_belong_together_are_told(
    pki: Pki, kit: Kit, tmp_path: Path, file: str, whose: str, said: str
) -> None:
    other = Pki(tmp_path / "other").kit("world/us") if whose == "stranger" else pki.kit("world/them")
    content = (other.folder / file).read_bytes() if whose else b"nonsense"
    (kit.folder / file).write_bytes(content)
    with pytest.raises(LinkError, match=said):
        check_sound(kit, datetime.now(UTC))


def test_a_certificate_of_another_party_or_of_fewer_roles_is_told(pki: Pki, kit: Kit) -> None:
    for path, roles in (("world/them", [MEMBER]), ("world/us", [HUB, MEMBER])):
        said = wrong_with(Kit.write(kit.folder, "heart", path, roles), datetime.now(UTC))
        assert "cert.pem is of hierfl://heart/member/world/us, the kit of " in said
        assert f"`hierfl renew {path} --ca DIR`" in said


def test_a_certificate_of_more_roles_than_the_kit_says_is_sound(pki: Pki, kit: Kit) -> None:
    """As where a node became a hub, and its renewed certificate was put into its old kit."""
    peer = pki.kit("ring/a").folder
    assert wrong_with(Kit.write(peer, "heart", "ring/a", [MEMBER]), datetime.now(UTC)) == ""


def test_a_kit_that_is_not_sound_ends_the_commands_at_once(pki: Pki, kit: Kit, tmp_path: Path) -> None:
    """Before a run's folder is made, and before anybody is asked to approve a plan."""
    import yaml
    from typer.testing import CliRunner

    from hierfl.cli import app

    us = {"name": "us", "link": {"address": "localhost:1"}, "members": [{"name": "cleveland"}]}
    federation = {"name": "world", "members": [us, {"name": "budapest"}]}
    said = {"name": "heart", "task": {"kind": "heart_disease"}, "federation": federation}
    file = tmp_path / "heart.yaml"
    file.write_text(yaml.safe_dump({**said, "output": {"dir": str(tmp_path / "runs")}}))
    (kit.folder / "ca.pem").write_bytes(b"nonsense")
    world = pki.kit("world").folder
    shutil.copytree(world, tmp_path / "world")
    (tmp_path / "world" / "cert.pem").write_bytes((kit.folder / "cert.pem").read_bytes())
    for command, folder, wrong in (("join", kit.folder, "ca.pem"), ("serve", tmp_path / "world", "cert.pem")):
        ended = CliRunner().invoke(app, [command, str(file), "--kit", str(folder)])
        assert ended.exit_code == 1 and wrong in ended.stderr and "Traceback" not in ended.stderr
        assert "this plan is not approved" not in ended.stderr
    assert not (tmp_path / "runs").exists()


def test_a_hub_that_names_a_path_for_a_run_is_not_joined(pki: Pki, kit: Kit) -> None:
    with hub_on_loopback(pki, agreed=replace(AGREED, run="../../elsewhere")) as (service, _, _, _):
        said = heard_by(kit, service.port)
        assert said == "the hub broke the rules: a run's name '../../elsewhere' is no name of a folder"


def heard_by(kit: Kit, port: int, spoil: str = "") -> str:
    """What a member first says of a hub that it dials; `spoil`: a file of its kit that goes before."""
    if spoil:
        (kit.folder / spoil).unlink()
    said: list[str] = []

    def tell(level: str, message: str) -> None:
        said.append(message)
        dialer.leave("heard")

    hello = wire.Hello(
        versions=VERSIONS, federation="heart", node=kit.path, config_digest="config", task_digest="task", instance="a"
    )
    dialer = Dialer(kit, "world", [f"localhost:{port}"], hello, 20.0, "none", tell)
    dialer.serve()
    return said[0]


def test_a_member_that_is_not_let_in_is_told_why(pki: Pki, kit: Kit, tmp_path: Path) -> None:
    """A hub that does not believe a certificate hangs up without a word, and a member that does not, with too many."""
    with hub_on_loopback(pki) as (service, _, _, _):
        assert "has joined world at localhost" in heard_by(kit, service.port)
        stranger = Pki(tmp_path / "other").kit("world/us")
        assert heard_by(stranger, service.port).endswith(
            "is not reached: its certificate is not believed: another authority signed it than the one in this kit's"
            " ca.pem"
        )
        key = load_pem_private_key((kit.folder / "key.pem").read_bytes(), None).public_key()
        assert isinstance(key, EllipticCurvePublicKey)
        kit.put(certificate=pki.authority.issue("world/us", key, datetime.now(UTC) - timedelta(days=3), 1))
        assert "world at localhost" in (said := heard_by(kit, service.port)) and "cert.pem ran out on" in said
        assert "is not dialled" in (said := heard_by(kit, service.port, "cert.pem")) and "cert.pem" in said


@pytest.mark.parametrize(
    ("details", "said"),
    [
        (
            "failed to connect to all addresses; last error: UNKNOWN: ipv4:127.0.0.1:1: Failed to connect to remote"
            " host: Connection refused",
            "ipv4:127.0.0.1:1: Failed to connect to remote host: Connection refused",
        ),
        (
            "last error: UNKNOWN: ipv4:1.2.3.4:1: Tls handshake failed (TSI_PROTOCOL_FAILURE): SSL_ERROR_SSL:"
            " error:1000007d:SSL routines:OPENSSL_internal:CERTIFICATE_VERIFY_FAILED: certificate has expired: OK",
            "its certificate is not believed: it has run out, or a clock is wrong",
        ),
        ("CERTIFICATE_VERIFY_FAILED: something new", "its certificate is not believed: something new"),
        ("one\ntwo", "one"),
        ("", "ValueError"),
    ],
)
def test_what_grpc_says_is_put_in_few_words(details: str, said: str) -> None:
    assert in_words(ValueError(details)) == said
