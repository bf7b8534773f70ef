"""Who may take part: the authority, kits, requests, renewals and denials, as the command line does them."""

from __future__ import annotations

import hashlib
import json
import shutil
import stat
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from hierfl.cli import app
from hierfl.config import load
from hierfl.errors import LinkError
from hierfl.link.identity import HUB, MEMBER, Identity, members_of, parties, server_name
from hierfl.link.kit import folder_name
from hierfl.link.serving import state_folder

x509 = pytest.importorskip("cryptography.x509")
serialization = pytest.importorskip("cryptography.hazmat.primitives.serialization")

TREE = """
name: heart
task: {kind: heart_disease}
federation:
  name: world
  members:
    - name: us
      link: {address: "hub.example.org:8443"}
      members: [{name: cleveland}, {name: long_beach, link: {address: "us.example.org:8443"}}]
    - {name: hungary, members: [{name: budapest, link: {address: "hub.example.org:8443"}}]}
    - {name: zurich_basel}
"""

Call = Callable[..., Any]


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "heart.yaml"
    path.write_text(TREE)
    return path


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Call:
    monkeypatch.chdir(tmp_path)
    return lambda *words: CliRunner().invoke(app, [str(word) for word in words])


def certificate(path: Path) -> Any:
    return x509.load_pem_x509_certificate(path.read_bytes())


def uris(found: Any) -> list[str]:
    names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return list(names.get_values_for_type(x509.UniformResourceIdentifier))


def dns(found: Any) -> list[str]:
    names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return list(names.get_values_for_type(x509.DNSName))


def test_each_node_with_a_process_of_its_own_has_its_roles(config: Path) -> None:
    heart = load(config)
    assert parties(heart) == {
        "world": (HUB,),
        "world/us": (HUB, MEMBER),
        "world/us/long_beach": (MEMBER,),
        "world/hungary/budapest": (MEMBER,),
    }
    assert members_of(heart, "world") == ("world/us", "world/hungary/budapest")
    assert members_of(heart, "world/us") == ("world/us/long_beach",)


@given(st.text(min_size=1), st.text(min_size=1))
def test_an_identity_is_read_as_it_was_written(federation: str, path: str) -> None:
    one = Identity(MEMBER, federation.encode("utf-8", "replace").decode(), path.encode("utf-8", "replace").decode())
    assert Identity.parse(one.uri) == one


@pytest.mark.parametrize(
    "uri",
    [
        "",
        "hierfl://",
        "hierfl://heart/member/",
        "hierfl://heart/boss/world",
        "http://heart/member/world",
        "hierfl:///hub/w",
        "hierfl://heart/member/w%6Frld",
        "hierfl://heart/member/world?x",
        "hierfl://heart%2Fmember/world",
    ],
)
def test_what_names_no_party_is_refused(uri: str) -> None:
    with pytest.raises(ValueError, match=r"names no party|role"):
        Identity.parse(uri)


def test_kits_are_whole_private_and_of_their_nodes(call: Call, config: Path, tmp_path: Path) -> None:
    assert call("provision", config, "--out", "pki").exit_code == 0
    kits = tmp_path / "pki" / "kits"
    assert sorted(kit.name for kit in kits.iterdir()) == [
        *("world", "world__hungary__budapest", "world__us", "world__us__long_beach"),
    ]
    for key in [*kits.glob("*/key.pem"), tmp_path / "pki" / "ca" / "ca-key.pem"]:
        assert stat.S_IMODE(key.stat().st_mode) == 0o600
    us, site = certificate(kits / "world__us" / "cert.pem"), certificate(kits / "world__us__long_beach" / "cert.pem")
    assert uris(us) == ["hierfl://heart/hub/world/us", "hierfl://heart/member/world/us"]
    assert dns(us) == [server_name("heart", "world/us")]
    assert uris(site) == ["hierfl://heart/member/world/us/long_beach"] and dns(site) == []
    use = site.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(use) == [x509.oid.ExtendedKeyUsageOID.CLIENT_AUTH]
    assert (kits / "world" / "denied.json").exists() and not (kits / "world__us__long_beach" / "denied.json").exists()
    us.verify_directly_issued_by(certificate(tmp_path / "pki" / "ca" / "ca.pem"))


def test_names_may_be_as_long_as_a_configuration_has_them(call: Call, config: Path, tmp_path: Path) -> None:
    """A common name has 64 bytes, a file's name 255, and letters may have several each."""
    long = {"heart": "心" * 66, "world": "Ω" * 100, "us": "Ж" * 100}
    long |= {
        site: f"{letter * 66}, data: {{key: {site}}}" for site, letter in (("long_beach", "東"), ("budapest", "b"))
    }
    text = TREE
    for name, longer in long.items():
        text = text.replace(f"name: {name}", f"name: {longer}")
    config.write_text(text)
    loaded = load(config)
    assert call("provision", config, "--out", "pki", "--days", 2).exit_code == 0
    for path, roles in parties(loaded).items():
        kit = tmp_path / "pki" / "kits" / folder_name(path)
        assert uris(certificate(kit / "cert.pem")) == [Identity(role, loaded.name, path).uri for role in roles]
        assert len(state_folder(loaded, path).name.encode()) <= 255
        assert len(f"{kit.name}-{'0' * 64}.update.partial".encode()) <= 255, "as a hub calls what comes of it"
    assert call("csr", config, "--node", (site := max(parties(loaded), key=len)), "--out", "own").exit_code == 0
    assert len({folder_name(site + str(n)) for n in range(9)}) == 9


def test_called_again_it_makes_what_is_missing_only(call: Call, config: Path, tmp_path: Path) -> None:
    assert call("provision", config, "--out", "pki").exit_code == 0
    before = {path: path.read_bytes() for path in (tmp_path / "pki").rglob("*.pem")}
    config.write_text(TREE.replace("{name: zurich_basel}", "{name: zurich_basel, link: {address: 'a:1'}}"))
    again = call("provision", config, "--out", "pki")
    assert again.exit_code == 0 and again.stdout.count("\n") == 1 and "world/zurich_basel" in again.stdout
    assert {path: path.read_bytes() for path in before} == before
    assert call("provision", config, "--out", "pki").stdout == "pki/kits: has a kit for each node; nothing was made\n"
    for lost in [tmp_path / "pki/kits/world__us/cert.pem", *(tmp_path / "pki/ca/issued").iterdir()]:
        lost.unlink()  # as where the disk was full before it came
    assert "was begun and has no certificate; it is made anew" in call("provision", config, "--out", "pki").stdout
    assert uris(certificate(tmp_path / "pki/kits/world__us/cert.pem"))
    late = call("provision", config, "--out", "pki", "--own-key", "world/us")
    assert (
        late.exit_code == 1 and "world/us has a key already, made here with its kit pki/kits/world__us" in late.stderr
    )


def test_a_node_whose_kit_was_handed_over_gets_no_second_key(call: Call, config: Path, tmp_path: Path) -> None:
    call("provision", config, "--out", "pki")
    kits, node = tmp_path / "pki/kits", "world/us/long_beach"
    shutil.move(kits / "world__us__long_beach", tmp_path / "handed")
    config.write_text(TREE.replace("{name: zurich_basel}", "{name: zurich_basel, link: {address: 'a:1'}}"))
    again = call("provision", config, "--out", "pki")
    assert again.exit_code == 0 and f"{node}: no kit is made, for it has a certificate that holds until" in again.stdout
    assert f"`hierfl revoke {node} --ca pki` first" in again.stdout and "world__zurich_basel: the kit" in again.stdout
    assert not (kits / "world__us__long_beach").exists()
    assert "no kit is made" in call("provision", config, "--out", "pki", "--own-key", node).stdout
    renewed = call("renew", node, "--ca", "pki")
    assert "put it into the kit where the node runs" in renewed.stdout
    found = certificate(kits / "world__us__long_beach/cert.pem")
    assert found.public_key() == certificate(tmp_path / "handed/cert.pem").public_key()
    shutil.rmtree(kits / "world__us__long_beach")
    call("revoke", node, "--ca", "pki")
    assert "the kit of world/us/long_beach (member)" in call("provision", config, "--out", "pki").stdout
    assert certificate(kits / "world__us__long_beach/cert.pem").public_key() != found.public_key()


def test_a_node_that_made_its_own_key_is_made_no_other(call: Call, config: Path, tmp_path: Path) -> None:
    call("provision", config, "--out", "pki", "--own-key", "world/us")
    call("csr", config, "--node", "world/us", "--out", "site")
    call("sign", "site/request.pem", "--ca", "pki")
    shutil.move(tmp_path / "pki/kits/world__us", tmp_path / "sent_back")
    assert "world/us: no kit is made" in call("provision", config, "--out", "pki").stdout
    assert not (tmp_path / "pki/kits/world__us").exists()


def test_a_kit_elsewhere_is_told_of_a_role_that_its_node_has_got(call: Call, config: Path, tmp_path: Path) -> None:
    small = TREE.replace(', link: {address: "us.example.org:8443"}', "")
    config.write_text(small)
    call("provision", config, "--out", "pki")
    shutil.move(tmp_path / "pki/kits/world__us", tmp_path / "handed")
    config.write_text(TREE)
    again = call("provision", config, "--out", "pki")
    assert "world/us is hub now, too; `hierfl renew world/us --ca pki` certifies that" in again.stdout
    renewed = call("renew", "world/us", "--ca", "pki")
    assert "put it and node.json into the kit where the node runs" in renewed.stdout
    assert len(uris(certificate(tmp_path / "pki/kits/world__us/cert.pem"))) == 2


def test_a_certificate_that_has_run_out_stands_in_no_new_kits_way(call: Call, config: Path, tmp_path: Path) -> None:
    from hierfl.link.provisioning import provision

    call("provision", config, "--out", "pki")
    shutil.rmtree(tmp_path / "pki/kits/world__us__long_beach")
    later = datetime.now(UTC) + timedelta(days=31)
    made = list(provision(load(config), Path("pki"), later, 30))
    assert made == ["pki/kits/world__us__long_beach: the kit of world/us/long_beach (member); hand it to nobody else"]


def test_nobody_guesses_which_of_two_keys_a_node_has(call: Call, config: Path, tmp_path: Path) -> None:
    from hierfl.link.authority import Authority, new_key

    call("provision", config, "--out", "pki")
    Authority(tmp_path / "pki/ca").issue("world/us", new_key().public_key(), datetime.now(UTC), 30)
    before = {path: path.read_bytes() for path in (tmp_path / "pki").rglob("*.pem")}
    for words in (("renew", "world/us"), ("renew",)):
        refused = call(*words, "--ca", "pki")
        assert refused.exit_code == 1 and "world/us has certificates of 2 keys that hold" in refused.stderr
    assert {path: path.read_bytes() for path in (tmp_path / "pki").rglob("*.pem")} == before
    assert "`hierfl revoke world/us --ca pki` denies them all, then give it a new kit" in refused.stderr
    assert call("renew", "world/us/long_beach", "--ca", "pki").exit_code == 0


def test_who_has_the_roots_kit_is_asked_to_agree_to_nothing(call: Call, config: Path) -> None:
    assert call("provision", config, "--out", "pki").exit_code == 0
    told = call("join", config, "--kit", "pki/kits/world")
    assert told.exit_code == 2 and "`hierfl serve` serves the root" in told.stderr and told.stdout == ""


def test_a_site_makes_its_own_key_and_the_authority_signs_it(call: Call, config: Path, tmp_path: Path) -> None:
    node = "world/us/long_beach"
    assert call("provision", config, "--out", "pki", "--own-key", node).exit_code == 0
    assert not (tmp_path / "pki/kits/world__us__long_beach/key.pem").exists()
    made = call("csr", config, "--node", node, "--out", "kit")
    assert made.exit_code == 0 and "put the cert.pem and ca.pem that come back beside it" in made.stdout
    assert stat.S_IMODE((tmp_path / "kit/key.pem").stat().st_mode) == 0o600
    signed = call("sign", "kit/request.pem", "--ca", "pki", "--out", "signed.pem")
    assert signed.exit_code == 0
    found = certificate(tmp_path / "signed.pem")
    assert uris(found) == [f"hierfl://heart/member/{node}"]
    der = found.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    for told in (made, signed):  # which the two people compare
        assert hashlib.sha256(der).hexdigest() in told.stdout
    assert "is there, its request is kit/request.pem" in call("csr", config, "--node", node, "--out", "kit").stderr
    (tmp_path / "kit/request.pem").unlink()
    assert "is there, without a request;" in call("csr", config, "--node", node, "--out", "kit").stderr
    assert "world/cert.pem: it needs no" in call("csr", config, "--node", "world", "--out", "pki/kits/world").stderr


def test_a_request_in_the_name_of_a_node_that_has_a_key_is_not_signed(call: Call, config: Path, tmp_path: Path) -> None:
    node = "world/us/long_beach"
    call("provision", config, "--out", "pki")
    call("csr", config, "--node", node, "--out", "kit")
    place = tmp_path / "pki/kits/world__us__long_beach"
    before = place.joinpath("cert.pem").read_bytes()
    refused = call("sign", "kit/request.pem", "--ca", "pki")
    assert refused.exit_code == 1 and "has a certificate of another key, which holds until" in refused.stderr
    assert "`hierfl revoke world/us/long_beach --ca pki` denies that first" in refused.stderr
    call("revoke", node, "--ca", "pki")
    refused = call("sign", "kit/request.pem", "--ca", "pki")
    assert refused.exit_code == 1 and "take the folder away" in refused.stderr, "its key and the new one are no kit"
    assert place.joinpath("cert.pem").read_bytes() == before
    shutil.rmtree(place)
    assert call("sign", "kit/request.pem", "--ca", "pki").exit_code == 0
    assert call("sign", "kit/request.pem", "--ca", "pki").exit_code == 0, "the same key may be certified again"
    call("revoke", node, "--ca", "pki")
    again = call("sign", "kit/request.pem", "--ca", "pki")
    assert again.exit_code == 1 and "this key of world/us/long_beach was denied" in again.stderr


def test_a_hub_with_its_own_key_is_given_the_list_of_whom_it_denies(call: Call, config: Path, tmp_path: Path) -> None:
    from hierfl.link.kit import Kit

    call("provision", config, "--out", "pki", "--own-key", "world/us")
    call("revoke", "world/us/long_beach", "--ca", "pki")
    assert (
        "put the cert.pem, ca.pem and denied.json that"
        in call(*("csr", config, "--node", "world/us", "--out", "kit")).stdout
    )
    shutil.rmtree(tmp_path / "pki/kits/world__us")
    signed = call("sign", "kit/request.pem", "--ca", "pki")
    assert "send it back with pki/ca/ca.pem and pki/ca/denied.json" in signed.stdout
    lists = [tmp_path / "pki" / place / "denied.json" for place in ("ca", "kits/world__us")]
    assert lists[0].read_bytes() == lists[1].read_bytes()
    for name in ("cert.pem", "ca.pem"):
        shutil.copy(tmp_path / "pki/kits/world__us" / name, tmp_path / "kit")
    with pytest.raises(LinkError, match=r"denied.json is missing"):
        Kit.open(tmp_path / "kit")
    shutil.copy(lists[0], tmp_path / "kit")
    assert Kit.open(tmp_path / "kit").path == "world/us"


def test_a_certificate_that_has_run_out_is_denied_too_so_that_nobody_renews_its_key(
    call: Call, config: Path, tmp_path: Path
) -> None:
    from hierfl.link.authority import Authority

    call("provision", config, "--out", "pki")
    place = tmp_path / "pki/kits/world__us__long_beach/cert.pem"
    later = certificate(place).not_valid_after_utc + timedelta(days=1)
    authority = Authority(tmp_path / "pki/ca")
    assert authority.revoke("world/us/long_beach", later, "") == [certificate(place).serial_number]
    with pytest.raises(LinkError, match="no certificate that could be renewed"):
        authority.renew("world/us/long_beach", later, 30)


def test_revoking_a_hub_says_that_its_members_look_at_no_list(call: Call, config: Path) -> None:
    call("provision", config, "--out", "pki")
    assert "Whoever has its key passes for it until" in call("revoke", "world/us", "--ca", "pki").stdout
    assert "passes for it" not in call("revoke", "world/us/long_beach", "--ca", "pki").stdout


def test_renewing_keeps_the_key(call: Call, config: Path, tmp_path: Path) -> None:
    call("provision", config, "--out", "pki", "--days", "1")
    place = tmp_path / "pki/kits/world__us/cert.pem"
    before = certificate(place)
    assert call("renew", "world/us", "--ca", "pki", "--days", "7").exit_code == 0
    after = certificate(place)
    assert after.public_key() == before.public_key() and after.serial_number != before.serial_number
    assert after.not_valid_after_utc - datetime.now(UTC) > timedelta(days=6)


def test_revoking_denies_all_that_a_node_has_and_tells_the_hubs(call: Call, config: Path, tmp_path: Path) -> None:
    call("provision", config, "--out", "pki")
    place = tmp_path / "pki/kits/world__us__long_beach/cert.pem"
    serials = [certificate(place).serial_number]
    call("renew", "world/us/long_beach", "--ca", "pki")
    serials.append(certificate(place).serial_number)
    assert call("revoke", "world/us/long_beach", "--ca", "pki", "--reason", "laptop lost").exit_code == 0
    for list_of in ("ca", "kits/world", "kits/world__us"):
        denied = json.loads((tmp_path / "pki" / list_of / "denied.json").read_text())["denied"]
        assert sorted(int(entry["serial"], 16) for entry in denied) == sorted(serials)
    refused = call("renew", "world/us/long_beach", "--ca", "pki")
    assert refused.exit_code == 1 and "no certificate that could be renewed" in refused.stderr


def test_the_authority_signs_for_its_own_nodes_with_their_own_roles_only(
    call: Call, config: Path, tmp_path: Path
) -> None:
    from hierfl.link.authority import Authority, new_key, request

    call("provision", config, "--out", "pki")
    authority = Authority(tmp_path / "pki" / "ca")
    now = datetime.now(UTC)
    for federation, path, roles in (
        ("heart", "world/us/long_beach", [HUB, MEMBER]),
        ("other", "world/us", [HUB, MEMBER]),
        ("heart", "world/mars", [MEMBER]),
    ):
        with pytest.raises(LinkError):
            authority.asked(request(federation, path, roles, new_key()), now)
    with pytest.raises(LinkError, match="no request"):
        authority.asked(b"nonsense", now)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("provision", "heart.yaml", "--out", "p", "--own-key", "world/u"), "neither the root nor a member"),
        (("provision", "heart.yaml", "federation.members.us.link.address=x", "--out", "p"), "must be host:port"),
        (("csr", "heart.yaml", "--node", "world/zurich_basel", "--out", "p"), "neither the root nor a member"),
        (("sign", "missing.pem", "--ca", "nowhere"), "holds no certificate authority"),
        (("renew", "--ca", "nowhere"), "`hierfl provision CONFIG --out DIR` makes one"),
        (("revoke", "world/us", "--ca", "nowhere"), "holds no certificate authority"),
    ],
)
def test_mistakes_are_clear(call: Call, config: Path, words: tuple[str, ...], said: str) -> None:
    result = call(*words)
    assert result.exit_code == 2 and said in result.stderr


def test_a_federation_without_links_needs_no_certificates(call: Call, config: Path) -> None:
    config.write_text("task: {kind: heart_disease}\nfederation: {name: w, members: [{name: cleveland}]}\n")
    assert "no member of the federation has a link" in call("provision", config, "--out", "p").stderr


def test_without_the_package_the_extra_is_named(call: Call, config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.util

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert "pip install 'hierfl[link]'" in call("provision", config, "--out", "p").stderr


def test_a_key_that_others_can_read_is_no_key(call: Call, config: Path, tmp_path: Path) -> None:
    from hierfl.link.kit import Kit

    call("provision", config, "--out", "pki")
    folder = tmp_path / "pki/kits/world__us"
    assert Kit.open(folder).path == "world/us"
    (folder / "key.pem").chmod(0o644)
    with pytest.raises(LinkError, match="can be read by others: chmod 600"):
        Kit.open(folder)
