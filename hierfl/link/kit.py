"""A node's start-up kit: a folder with its key, its certificate, the authority's, and who it is."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hierfl.errors import LinkError
from hierfl.link.files import write_private, write_public
from hierfl.link.identity import HUB, PEER

__all__ = ["AUTHORITY", "CERTIFICATE", "KEY", "Kit", "folder_name", "roles_in"]

KEY, CERTIFICATE, AUTHORITY, NODE, DENIED = "key.pem", "cert.pem", "ca.pem", "node.json", "denied.json"
TERMS = "terms.yaml"

OPEN_TO_OTHERS = 0o077

MOST_NAME_BYTES = 150
"""Of a node's place in a file's name: file systems take 255, and a hub writes a digest of 64 behind it."""


@dataclass(frozen=True, slots=True)
class Kit:
    """The files of a node, read anew at each use: a certificate may be renewed while the process runs."""

    folder: Path
    federation: str
    path: str
    roles: tuple[str, ...]

    @classmethod
    def open(cls, folder: Path) -> Kit:
        """Open a kit that is whole. Errors: LinkError naming the file that is missing, or is open to others."""
        try:
            said = json.loads((folder / NODE).read_text(encoding="utf-8"))
            kit = cls(folder, str(said["federation"]), str(said["node"]), tuple(said["roles"]))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise LinkError(
                f"{folder} is no start-up kit: {error}; `hierfl provision` makes kits, `hierfl csr` begins one"
            ).misnamed(error) from error
        wanted = [(KEY, "`hierfl csr`"), (CERTIFICATE, "`hierfl sign`"), (AUTHORITY, "`hierfl provision`")]
        if {HUB, PEER} & {*kit.roles}:
            wanted.append((DENIED, "`hierfl provision`"))  # without it a hub would let in whoever was denied
        for name, whence in wanted:
            if not (folder / name).is_file():
                raise LinkError(f"{folder / name} is missing; {whence} makes it")
        if (folder / KEY).stat().st_mode & OPEN_TO_OTHERS:
            raise LinkError(f"{folder / KEY} can be read by others: chmod 600 {folder / KEY}")
        return kit

    @classmethod
    def write(cls, folder: Path, federation: str, path: str, roles: Sequence[str], *, key: bytes | None = None) -> Kit:
        """Begin a kit; the certificates are put beside. Errors: LinkError."""
        said = {"federation": federation, "node": path, "roles": list(roles)}
        write_public(folder / NODE, (json.dumps(said, indent=2) + "\n").encode())
        if key is not None:
            write_private(folder / KEY, key)
        return cls(folder, federation, path, tuple(roles))

    def put(self, *, certificate: bytes | None = None, authority: bytes | None = None) -> None:
        """Put certificates into the kit."""
        if certificate is not None:
            write_public(self.folder / CERTIFICATE, certificate)
        if authority is not None:
            write_public(self.folder / AUTHORITY, authority)

    def deny(self, denied: bytes) -> None:
        """Put the list of denied certificates into a hub's kit; a hub that runs heeds it within seconds."""
        write_public(self.folder / DENIED, denied)

    @property
    def denied(self) -> Path:
        """Give the place of the list of denied certificates."""
        return self.folder / DENIED

    @property
    def terms(self) -> Path:
        """Give the place of the institution's own terms."""
        return self.folder / TERMS

    def credentials(self) -> tuple[bytes, bytes, bytes]:
        """Read the key, the certificate, and the authority's certificate, all in PEM. Errors: LinkError."""
        try:
            key, certificate, authority = ((self.folder / name).read_bytes() for name in (KEY, CERTIFICATE, AUTHORITY))
        except OSError as error:
            raise LinkError(f"{error.filename} cannot be read: {error.strerror}") from error
        return key, certificate, authority


def folder_name(path: str, before: str = "") -> str:
    """Name a node's kit among the others: `world/us` is in world__us; `before`: what its folder's name begins with."""
    plain = before + path.replace("/", "__")
    begins = plain.encode()[:MOST_NAME_BYTES].decode(errors="ignore")
    if begins != plain:
        return f"{begins}-{_short(before + path)}"
    return f"{plain}-{_short(path)}" if "__" in path else plain


def roles_in(folder: Path) -> tuple[str, ...]:
    """Give the roles that a kit says its node has; none where there is no kit."""
    try:
        return tuple(json.loads((folder / NODE).read_text(encoding="utf-8"))["roles"])
    except (OSError, ValueError, KeyError, TypeError):
        return ()


def _short(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]
