"""The commands of links: who may take part. What is heavy is imported inside them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from hierfl.console import told
from hierfl.errors import LinkError
from hierfl.options import Debug, Words, loaded

__all__ = ["register"]

DAYS = 30.0

Days = Annotated[float, typer.Option(metavar="N", help="For how many days certificates hold.", min=0.001, max=3650)]
Ca = Annotated[Path, typer.Option("--ca", metavar="DIR", help="The folder that `hierfl provision` wrote.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    for name, command in _COMMANDS.items():
        app.command(name)(command)


def _provision(
    words: Words,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where the authority and the kits are written.")],
    days: Days = DAYS,
    own_key: Annotated[
        list[str] | None, typer.Option(metavar="NODE", help="This node makes its own key (`hierfl csr`).")
    ] = None,
    debug: Debug = False,
) -> None:
    """Make a certificate authority and start-up kits for CONFIG.

    A kit for the root and for each member with a link. In a folder that has them, only what is missing is made.
    """
    with told(False, debug):
        config = loaded(words)
        _need_cryptography()
        from hierfl.link import provisioning

        _say(provisioning.provision(config, out, datetime.now(UTC), days, own_key or ()))


def _csr(
    words: Words,
    node: Annotated[str, typer.Option(metavar="PATH", help="The node, world/us.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="The node's kit, which is begun here.")],
    debug: Debug = False,
) -> None:
    """Make a node's own key, and the request to sign it."""
    with told(False, debug):
        config = loaded(words)
        _need_cryptography()
        from hierfl.link import provisioning

        _say(provisioning.csr(config, node, out))


def _sign(
    request: Annotated[Path, typer.Argument(metavar="REQUEST", help="What `hierfl csr` has written.")],
    ca: Ca,
    days: Days = DAYS,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the certificate here, too.")] = None,
    debug: Debug = False,
) -> None:
    """Sign a node's request."""
    with told(False, debug):
        _need_cryptography()
        from hierfl.link import provisioning

        _say(provisioning.sign(request, ca, datetime.now(UTC), days, out))


def _renew(
    ca: Ca,
    nodes: Annotated[list[str] | None, typer.Argument(metavar="[NODE]...", help="All, if none is given.")] = None,
    days: Days = DAYS,
    debug: Debug = False,
) -> None:
    """Renew certificates; keys stay as they are."""
    with told(False, debug):
        _need_cryptography()
        from hierfl.link import provisioning

        _say(provisioning.renew(nodes or (), ca, datetime.now(UTC), days))


def _revoke(
    node: Annotated[str, typer.Argument(metavar="NODE", help="The node, world/us.")],
    ca: Ca,
    reason: Annotated[str, typer.Option(metavar="TEXT", help="Why; kept in the list.")] = "",
    debug: Debug = False,
) -> None:
    """Deny all certificates of a node."""
    with told(False, debug):
        _need_cryptography()
        from hierfl.link import provisioning

        _say(provisioning.revoke(node, ca, datetime.now(UTC), reason))


_COMMANDS: dict[str, Callable[..., None]] = {
    "provision": _provision,
    "csr": _csr,
    "sign": _sign,
    "renew": _renew,
    "revoke": _revoke,
}


def _say(lines: Iterable[str]) -> None:
    for line in lines:
        print(line)


def _need_cryptography() -> None:
    """Errors: LinkError naming the extra, where the package is not installed."""
    from importlib.util import find_spec

    if find_spec("cryptography") is None:
        raise LinkError("links need the package cryptography: pip install 'hierfl[link]'")
