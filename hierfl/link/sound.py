"""Whether a kit is sound: its key, its certificate and the authority's belong together, are the node's, and hold now.

What is wrong with it would else be seen by the other side alone, which cuts the connection in the handshake, without a
word.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from hierfl.errors import LinkError
from hierfl.link.denied import DenyList
from hierfl.link.identity import Identity, uris_in
from hierfl.link.kit import AUTHORITY, CERTIFICATE, KEY, Kit
from hierfl.link.times import moment

__all__ = ["Outlook", "certificate_of", "check_sound", "is_short", "said_until", "watched", "wrong_with"]

SHORT = 0.25
"""What is left of a certificate's time is short once it is less than this part of it."""

LOOK_S = 60.0
AGAIN = timedelta(days=1)
"""How long after a warning the next one is due, while nothing has changed."""


def check_sound(kit: Kit, now: datetime) -> None:
    """Errors: LinkError naming the file that is wrong, why, and the way out."""
    said = wrong_with(kit, now)
    if said:
        raise LinkError(said)
    DenyList(kit.denied)


def certificate_of(kit: Kit) -> Any:
    """Read a kit's certificate. Errors: LinkError."""
    from cryptography import x509

    _, certificate, _ = kit.credentials()
    try:
        return x509.load_pem_x509_certificate(certificate)
    except ValueError as error:
        raise LinkError(_unreadable(kit, CERTIFICATE, error)) from error


def is_short(kit: Kit, now: datetime) -> bool:
    """Say whether a kit's certificate runs out before long. Errors: LinkError."""
    found = certificate_of(kit)
    whole = found.not_valid_after_utc - found.not_valid_before_utc
    return bool(found.not_valid_after_utc - now < SHORT * whole)


class Outlook:
    """Warns of a kit's certificate whose time is short, by `tell`, and of the same one once a day."""

    def __init__(self, kit: Kit, tell: Callable[[str], None]) -> None:
        self._kit = kit
        self._tell = tell
        self._warned: tuple[str, datetime] | None = None

    def look(self, now: datetime) -> None:
        """Look at the certificate that is in the kit now."""
        with contextlib.suppress(LinkError):  # in the midst of being renewed
            until = said_until(self._kit)
            is_due = self._warned is None or self._warned[0] != until or now - self._warned[1] >= AGAIN
            if is_short(self._kit, now) and is_due:
                self._warned = until, now
                self._tell(f"{until}; {_how_renewed(self._kit)}")


@contextlib.contextmanager
def watched(kit: Kit, tell: Callable[[str], None]) -> Iterator[None]:
    """Look at a kit's certificate now, and every minute until the end: runs last longer than certificates."""
    outlook, over = Outlook(kit, tell), threading.Event()
    outlook.look(datetime.now(UTC))

    def look_on() -> None:
        while not over.wait(LOOK_S):
            outlook.look(datetime.now(UTC))

    threading.Thread(target=look_on, name="certificate", daemon=True).start()
    try:
        yield
    finally:
        over.set()


def said_until(kit: Kit) -> str:
    """Say until when a kit's certificate holds. Errors: LinkError."""
    return f"{kit.folder / CERTIFICATE} holds until {moment(certificate_of(kit).not_valid_after_utc)}"


def _how_renewed(kit: Kit) -> str:
    """Say how a kit comes by a new certificate."""
    return f"`hierfl renew {kit.path} --ca DIR`, where the authority is, makes the one that belongs here"


def wrong_with(kit: Kit, now: datetime) -> str:
    """Say what is wrong with a kit; empty if nothing is."""
    from cryptography import x509
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key_pem, _, authority_pem = kit.credentials()
        found = certificate_of(kit)
    except LinkError as error:
        return str(error)
    place = kit.folder / CERTIFICATE
    try:
        key = load_pem_private_key(key_pem, None)
    except (ValueError, TypeError) as error:
        return _unreadable(kit, KEY, error)
    try:
        authority = x509.load_pem_x509_certificate(authority_pem)
    except ValueError as error:
        return _unreadable(kit, AUTHORITY, error)
    if key.public_key() != found.public_key():
        return f"{place} is not of the key in {kit.folder / KEY}: `hierfl sign` makes one of that key's own request"
    try:
        found.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature):
        said = f"{place} was not signed by the authority in {kit.folder / AUTHORITY}"
        return f"{said}: both come from one folder of `hierfl provision`"
    return _misnamed(kit, found) or _out_of_time(kit, found, now)


def _misnamed(kit: Kit, found: Any) -> str:
    """Say how a certificate is another party's than the kit; empty if it is not."""
    from cryptography import x509

    wanted = {Identity(role, kit.federation, kit.path).uri for role in kit.roles}
    try:
        named = set(uris_in(found))
    except x509.ExtensionNotFound:
        named = set()
    if wanted <= named:
        return ""
    said = f"{kit.folder / CERTIFICATE} is of {', '.join(sorted(named)) or 'nobody'}"
    return f"{said}, the kit of {', '.join(sorted(wanted))}: {_how_renewed(kit)}"


def _out_of_time(kit: Kit, found: Any, now: datetime) -> str:
    """Say that a certificate does not hold now; empty if it does."""
    place, clock = kit.folder / CERTIFICATE, moment(now)
    if now >= found.not_valid_after_utc:
        return f"{place} ran out on {moment(found.not_valid_after_utc)}, and it is {clock}: {_how_renewed(kit)}"
    if now < found.not_valid_before_utc:
        said = f"{place} holds from {moment(found.not_valid_before_utc)} on, and it is {clock}"
        return f"{said} by this machine's clock: set the wrong clock right, this one's or the authority's"
    return ""


def _unreadable(kit: Kit, name: str, error: Exception) -> str:
    said = str(error).splitlines()[0] if str(error) else type(error).__name__
    return f"{kit.folder / name} cannot be read: {said}"
