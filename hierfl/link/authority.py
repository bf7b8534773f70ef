"""The federation's own certificate authority: a folder with a key, what it has signed, and whom it denies.

ECDSA on P-256 (gRPC takes no Ed25519), X.509 v3 by RFC 5280. A certificate names its party by URI (see `identity`), is
short-lived, and is for clients, for servers, or for both, by its roles. The authority remembers every certificate that
it has signed, so that it can renew one for the same key, and deny all that a node ever had.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from hierfl.errors import LinkError
from hierfl.link.files import write_private, write_public
from hierfl.link.identity import HUB, MEMBER, PEER, Identity, server_name, uris_in
from hierfl.link.times import moment

__all__ = ["CERTIFICATE", "DENIED", "Authority", "fingerprint", "new_key", "private_pem", "request", "roles_of"]

EARLY = timedelta(minutes=5)
"""How long before its making a certificate is valid: clocks differ."""

CA_DAYS = 3650
KEY, CERTIFICATE, NODES, ISSUED, DENIED = "ca-key.pem", "ca.pem", "nodes.json", "issued", "denied.json"

_CLIENT, _SERVER = ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH
_USES = {MEMBER: (_CLIENT,), HUB: (_SERVER,), PEER: (_CLIENT, _SERVER)}


class Authority:
    """A certificate authority that was made before. Errors: LinkError if the folder holds none."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            self.certificate = x509.load_pem_x509_certificate((folder / CERTIFICATE).read_bytes())
            key = serialization.load_pem_private_key((folder / KEY).read_bytes(), None)
            said = json.loads((folder / NODES).read_text(encoding="utf-8"))
            self.federation: str = said["federation"]
            self.nodes: dict[str, tuple[str, ...]] = {path: tuple(roles) for path, roles in said["nodes"].items()}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise LinkError(
                f"{folder} holds no certificate authority: {error}; `hierfl provision CONFIG --out DIR` makes one"
            ).misnamed(error) from error
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        self._key = key

    @classmethod
    def create(cls, folder: Path, federation: str, now: datetime) -> Authority:
        """Make a new one, in a folder that holds none. Errors: LinkError."""
        key = new_key()
        name = _common_name(f"hierfl {federation}")
        usage = _usage(certifies=True)
        built = (
            _builder(name, name, key.public_key(), now, CA_DAYS)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(usage, critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .sign(key, hashes.SHA256())
        )
        write_private(folder / KEY, private_pem(key))
        write_public(folder / CERTIFICATE, _pem(built))
        write_public(folder / NODES, json.dumps({"federation": federation, "nodes": {}}).encode())
        write_public(folder / DENIED, b'{"denied": []}\n')
        return cls(folder)

    @property
    def pem(self) -> bytes:
        """Give the authority's own certificate, which everybody has."""
        return _pem(self.certificate)

    def know(self, nodes: Mapping[str, Sequence[str]]) -> None:
        """Sign for these nodes, each with its roles, from now on; others stay known."""
        self.nodes.update({path: tuple(roles) for path, roles in nodes.items()})
        said = {"federation": self.federation, "nodes": {path: list(roles) for path, roles in self.nodes.items()}}
        write_public(self.folder / NODES, (json.dumps(said, indent=2) + "\n").encode())

    def asked(self, request_pem: bytes, now: datetime) -> tuple[str, ec.EllipticCurvePublicKey]:
        """Read a node's request; return the node and its key. Errors: LinkError if that may not be certified.

        A node has one key at a time: whoever sends a request in its name must not come to stand beside it.
        """
        try:
            asked = x509.load_pem_x509_csr(request_pem)
            identities = [Identity.parse(uri) for uri in uris_in(asked)]
            valid = asked.is_signature_valid
        except (ValueError, InvalidSignature, x509.ExtensionNotFound) as error:
            raise LinkError(f"this is no request of `hierfl csr`: {error}") from error
        paths = {identity.path for identity in identities}
        if not valid or len(paths) != 1 or any(one.federation != self.federation for one in identities):
            raise LinkError(f"the request must be of one node of {self.federation!r}, signed by its own key")
        (path,) = paths
        roles, known = {identity.role for identity in identities}, self._roles(path)
        if roles != set(known):
            raise LinkError(f"{path} asks to be {', '.join(sorted(roles))}; it is {', '.join(known)}")
        key, denied = _checked_key(asked.public_key()), self.denied()
        if any(one.public_key() == key and one.serial_number in denied for one in self.issued(path)):
            raise LinkError(f"this key of {path} was denied: `hierfl csr` into another folder makes a new one")
        for one in self.holding(path, now):
            if one.public_key() != key:
                until = moment(one.not_valid_after_utc)
                way = f"`hierfl revoke {path} --ca {self.folder.parent}` denies that first"
                raise LinkError(f"{path} has a certificate of another key, which holds until {until}; {way}")
        return path, key

    def issue(self, path: str, key: ec.EllipticCurvePublicKey, now: datetime, days: float) -> bytes:
        """Certify that a key is a node's. Errors: LinkError for a node that is not known."""
        roles = self._roles(path)
        names: list[x509.GeneralName] = [
            x509.UniformResourceIdentifier(Identity(role, self.federation, path).uri) for role in roles
        ]
        names += [x509.DNSName(server_name(self.federation, path, role)) for role in (HUB, PEER) if role in roles]
        uses = dict.fromkeys(use for role in roles for use in _USES[role])
        subject = _common_name(path)
        made = (
            _builder(subject, self.certificate.subject, key, now, days)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(certifies=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage(list(uses)), critical=True)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        write_public(self.folder / ISSUED / f"{made.serial_number:x}.pem", _pem(made))
        return _pem(made)

    def renew(self, path: str, now: datetime, days: float) -> bytes:
        """Certify a node's key anew. Errors: as of `newest`."""
        return self.issue(path, _checked_key(self.newest(path, now).public_key()), now, days)

    def newest(self, path: str, now: datetime) -> x509.Certificate:
        """Give a node's newest certificate, run out or not.

        Errors: LinkError if it has none, all of its were denied, or those of several keys hold.
        """
        self._roles(path)
        good = self._undenied(path)
        if not good:
            raise LinkError(
                f"{path} has no certificate that could be renewed; make a key with `hierfl csr` and sign its request"
            )
        keys = {fingerprint(_checked_key(one.public_key())) for one in good if now < one.not_valid_after_utc}
        if len(keys) > 1:
            way = f"`hierfl revoke {path} --ca {self.folder.parent}` denies them all, then give it a new kit"
            raise LinkError(f"{path} has certificates of {len(keys)} keys that hold, and uses one of them; {way}")
        return max(good, key=lambda one: one.not_valid_before_utc)

    def revoke(self, path: str, now: datetime, reason: str) -> list[int]:
        """Deny all certificates that a node ever had; return the serial numbers that were not denied before.

        Those that have run out, too: else their keys could be renewed.
        """
        self._roles(path)
        already = self.denied()
        found = [one.serial_number for one in self.issued(path) if one.serial_number not in already]
        entries = self._denials() + [
            {"serial": f"{serial:x}", "node": path, "at": now.isoformat(timespec="seconds"), "reason": reason}
            for serial in found
        ]
        write_public(self.folder / DENIED, (json.dumps({"denied": entries}, indent=2) + "\n").encode())
        return found

    def issued(self, path: str) -> list[x509.Certificate]:
        """List all certificates that a node was ever given."""
        found = []
        for file in sorted((self.folder / ISSUED).glob("*.pem")):
            certificate = x509.load_pem_x509_certificate(file.read_bytes())
            if any(Identity.parse(uri).path == path for uri in uris_in(certificate)):
                found.append(certificate)
        return found

    def holding(self, path: str, now: datetime) -> list[x509.Certificate]:
        """List the certificates of a node that are neither denied nor run out."""
        return [one for one in self._undenied(path) if now < one.not_valid_after_utc]

    def denied(self) -> set[int]:
        """List the serial numbers that are denied."""
        return {int(entry["serial"], 16) for entry in self._denials()}

    def _undenied(self, path: str) -> list[x509.Certificate]:
        denied = self.denied()
        return [one for one in self.issued(path) if one.serial_number not in denied]

    def _denials(self) -> list[dict[str, str]]:
        found: list[dict[str, str]] = json.loads((self.folder / DENIED).read_text(encoding="utf-8"))["denied"]
        return found

    def _roles(self, path: str) -> tuple[str, ...]:
        """Give a node's roles. Errors: LinkError for one that has no process of its own."""
        if path not in self.nodes:
            raise LinkError(f"{path!r} is no node with a link; known here: {', '.join(sorted(self.nodes))}").misnamed()
        return self.nodes[path]


def roles_of(certificate: x509.Certificate) -> tuple[str, ...]:
    """Give the roles that a certificate says its node has."""
    return tuple(Identity.parse(uri).role for uri in uris_in(certificate))


def new_key() -> ec.EllipticCurvePrivateKey:
    """Make a private key."""
    return ec.generate_private_key(ec.SECP256R1())


def fingerprint(key: ec.EllipticCurvePublicKey) -> str:
    """Give the SHA-256 of a public key, by which two people know that they speak of the same."""
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return hashlib.sha256(key.public_bytes(serialization.Encoding.DER, form)).hexdigest()


def request(federation: str, path: str, roles: Sequence[str], key: ec.EllipticCurvePrivateKey) -> bytes:
    """Ask to certify a key, in PEM; the key itself is not in it."""
    uris = [x509.UniformResourceIdentifier(Identity(role, federation, path).uri) for role in roles]
    made = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(_common_name(path))
        .add_extension(x509.SubjectAlternativeName(uris), critical=False)
        .sign(key, hashes.SHA256())
    )
    return made.public_bytes(serialization.Encoding.PEM)


def _common_name(text: str) -> x509.Name:
    """Say for people whose a certificate is, in the 64 bytes that there are; parties are known by their URIs."""
    begins = text.encode()[:64].decode(errors="ignore")
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, begins)])


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, now: datetime, days: float
) -> x509.CertificateBuilder:
    now = now.astimezone(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - EARLY)
        .not_valid_after(now + timedelta(days=days))
    )


def _usage(*, certifies: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not certifies,
        key_cert_sign=certifies,
        crl_sign=certifies,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _checked_key(key: object) -> ec.EllipticCurvePublicKey:
    """Errors: LinkError for a key of another sort."""
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise LinkError("the key must be ECDSA on P-256, as `hierfl csr` makes it")
    return key


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def private_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """Write a private key, unencrypted: the file's mode protects it."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
