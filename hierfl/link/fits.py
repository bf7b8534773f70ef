"""What must fit together before a node is served: its kit's roles, where it listens, and whose its `--state` is."""

from __future__ import annotations

import contextlib
import json
import stat
from pathlib import Path

from hierfl.config.schema import RunConfig
from hierfl.errors import ConfigError, LinkError
from hierfl.link.files import write_private
from hierfl.link.identity import parties
from hierfl.link.kit import OPEN_TO_OTHERS, Kit

__all__ = ["check_listen", "check_roles", "check_state"]

WHOSE = "node.json"


def check_roles(config: RunConfig, kit: Kit) -> None:
    """Errors: ConfigError for a kit from before its node served members, or handed vectors to others."""
    roles = parties(config).get(kit.path, ())
    missing = [role for role in roles if role not in kit.roles]
    if missing:
        raise ConfigError(
            f"{kit.path} is {', '.join(roles)} in this configuration, and its kit, {kit.folder}, is from before it was"
            f" {' and '.join(missing)}: `hierfl provision` again, and `hierfl renew {kit.path} --ca DIR`, where the"
            " authority is, make the cert.pem and node.json that belong there"
        )


def check_listen(option: str, address: str | None, nobody: str = "") -> None:
    """Errors: ConfigError for what is no HOST:PORT, and for any where `nobody` would dial, for that reason."""
    if address is None:
        return
    if nobody:
        raise ConfigError(f"{option} {address}: {nobody}; leave it out")
    host, _, port = address.rpartition(":")
    if not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ConfigError(f"{option} must be HOST:PORT (0.0.0.0:8443 is all interfaces), not {address!r}")


def check_state(state: Path, federation: str, node: str) -> None:
    """See that a folder keeps what is this node's, and say so in it; a folder that others can look into is closed.

    Errors: LinkError for another node's, and for one that stays open, or holds who knows whose files.
    """
    mine, file = {"federation": federation, "node": node}, state / WHOSE
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        found = None
    except (OSError, ValueError) as error:
        said = error.strerror if isinstance(error, OSError) else error
        raise LinkError(
            f"{file}, which says whose {state} is, cannot be read: {said}; --state takes another"
        ) from error
    if found is not None and found != mine:
        whose = f"{found.get('node')} of {found.get('federation')!r}" if isinstance(found, dict) else "another node"
        raise LinkError(
            f"{state} keeps what is of {whose}, not of {node} of {federation!r}; --state takes another folder"
        )
    _make(state)
    _close(state, is_own=found is not None)
    if found is None:
        try:
            write_private(file, (json.dumps(mine) + "\n").encode())
        except LinkError as error:
            if not file.exists():  # else another process of this node has just said it
                raise LinkError(f"{error}; --state takes another folder") from error


def _make(state: Path) -> None:
    """Make a folder that is not there, and those above it, for its owner alone: one of these may be another node's."""
    for folder in reversed([state, *state.parents]):
        if not folder.exists():
            with contextlib.suppress(OSError):  # what is then written there is told
                folder.mkdir(mode=0o700, exist_ok=True)


def _close(state: Path, *, is_own: bool) -> None:
    """Take a folder's rights from all but its owner, where it `is_own`, of this node, or empty. Errors: LinkError."""
    if not state.exists():
        return
    try:
        mode = stat.S_IMODE(state.stat().st_mode)
        if mode & OPEN_TO_OTHERS and (is_own or not any(state.iterdir())):
            with contextlib.suppress(PermissionError):
                state.chmod(mode & ~OPEN_TO_OTHERS)
        is_open = stat.S_IMODE(state.stat().st_mode) & OPEN_TO_OTHERS
    except OSError as error:
        raise LinkError(f"{state} cannot be read: {error.strerror or error}; --state takes another folder") from error
    if is_open:
        raise LinkError(
            f"{state}, which keeps updates and models, can be read by others: chmod 700 {state}, as its owner, or"
            " --state takes another folder"
        )
