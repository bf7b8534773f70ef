"""What the commands of provisioning do: an authority and start-up kits, requests, signatures, renewals, denials."""

from __future__ import annotations

import shutil
from collections.abc import Collection, Iterator, Sequence
from datetime import datetime
from pathlib import Path

from hierfl.config.schema import RunConfig
from hierfl.errors import ConfigError, LinkError
from hierfl.kinds import nearest
from hierfl.link.authority import (
    CERTIFICATE,
    DENIED,
    Authority,
    fingerprint,
    new_key,
    private_pem,
    request,
    roles_of,
)
from hierfl.link.files import write_public
from hierfl.link.identity import HUB, PEER, parties
from hierfl.link.kit import CERTIFICATE as OWN
from hierfl.link.kit import KEY, Kit, folder_name, roles_in
from hierfl.link.times import moment

__all__ = ["csr", "provision", "renew", "revoke", "sign"]

CA, KITS, REQUEST = "ca", "kits", "request.pem"

_BESIDE_A_KEY = {
    REQUEST: f"its request is {{}}/{REQUEST}",
    OWN: f"with its certificate {{}}/{OWN}: it needs no request",
}
"""What a key that is there is told to have, by the first file that lies beside it."""


def provision(
    config: RunConfig, out: Path, now: datetime, days: float, own_keys: Collection[str] = ()
) -> Iterator[str]:
    """Make an authority in `out`, if there is none, and a kit for every node that has none; say what was made.

    A node whose kit is elsewhere has a certificate that holds, and gets no second key: the first one would stay good.

    `own_keys`: nodes that make their own key. Errors: ConfigError where no member has a link; LinkError, also for a kit
    with a key of a node that is to make its own.
    """
    if not config.links:
        raise ConfigError(
            "no member of the federation has a link; give those that other institutions serve"
            " link: {address: host:port}"
        )
    roles = parties(config)
    for node in own_keys:
        _known(node, roles)
    if (out / CA / CERTIFICATE).exists():
        authority = Authority(out / CA)
        if authority.federation != config.name:
            raise LinkError(f"{out} is of the federation {authority.federation!r}, not of {config.name!r}")
    else:
        authority = Authority.create(out / CA, config.name, now)
        yield f"{out / CA}: the authority; whoever has its key can admit members, so keep it offline"
    folders = {path: out / KITS / folder_name(path) for path in roles}
    given = next((path for path in own_keys if (folders[path] / KEY).exists()), None)
    if given is not None:
        way = f"`hierfl revoke {given} --ca {out}`, and take the folder away"
        raise LinkError(f"{given} has a key already, made here with its kit {folders[given]}: {way}")
    authority.know(roles)
    away = {path: held[-1] for path in roles if not folders[path].exists() and (held := authority.holding(path, now))}
    said = {path: roles_of(away[path]) if path in away else roles_in(folders[path]) for path in roles}
    grown = [line for path, own in roles.items() for line in _grown(folders[path], path, own, said[path], out)]
    begun = [path for path, folder in folders.items() if _is_begun(folder) and not authority.holding(path, now)]
    for path in begun:
        shutil.rmtree(folders[path])  # nobody has this key: no certificate was ever there to go with it
        yield f"{folders[path]}: was begun and has no certificate; it is made anew"
    if all(folder.exists() for folder in folders.values()) and not grown:
        yield f"{out / KITS}: has a kit for each node; nothing was made"
    yield from grown
    for path, own in roles.items():
        folder = folders[path]
        if path in away:
            until = moment(away[path].not_valid_after_utc)
            way = f"where its key is lost, `hierfl revoke {path} --ca {out}` first"
            yield f"{path}: no kit is made, for it has a certificate that holds until {until}; {way}"
        if path in away or folder.exists():
            continue
        certificate = None
        if path in own_keys:
            kit = Kit.write(folder, config.name, path, own)
            yield f"{folder}: the kit of {path} without a key; it runs `hierfl csr`, and you `hierfl sign`"
        else:
            key = new_key()
            kit = Kit.write(folder, config.name, path, own, key=private_pem(key))
            certificate = authority.issue(path, key.public_key(), now, days)
            yield f"{folder}: the kit of {path} ({', '.join(own)}); hand it to nobody else"
        _certify(kit, authority, certificate)


def csr(config: RunConfig, node: str, out: Path) -> Iterator[str]:
    """Make a node's key and its request in `out`. Errors: ConfigError for a node without a link; LinkError."""
    roles = parties(config)
    _known(node, roles)
    if (out / KEY).exists():
        beside = next((said for name, said in _BESIDE_A_KEY.items() if (out / name).exists()), "without a request")
        raise LinkError(f"{out / KEY} is there, {beside.format(out)}; another folder gets a new key")
    key = new_key()
    Kit.write(out, config.name, node, roles[node], key=private_pem(key))
    write_public(out / REQUEST, request(config.name, node, roles[node], key))
    yield f"{out / 'key.pem'}: the key of {node}; it never leaves this machine"
    yield f"{out / REQUEST}: for whoever runs the authority; put {_files(roles[node])} that come back beside it"
    yield f"{fingerprint(key.public_key())}: the key's fingerprint; say it to whoever signs, not in the same message"


def sign(asked: Path, folder: Path, now: datetime, days: float, out: Path | None) -> Iterator[str]:
    """Sign a request with the authority in `folder`. Errors: LinkError."""
    authority = Authority(folder / CA)
    try:
        content = asked.read_bytes()
    except OSError as error:
        raise LinkError(f"{asked} cannot be read: {error.strerror}").misnamed(error) from error
    path, key = authority.asked(content, now)
    place = folder / KITS / folder_name(path)
    if (place / KEY).exists():
        raise LinkError(f"{place} has a key of {path} that was made here: take the folder away, then sign this one")
    certificate = authority.issue(path, key, now, days)
    kit = _kit(folder, authority, path)
    _certify(kit, authority, certificate)
    if out is not None:
        write_public(out, certificate)
    beside = (CERTIFICATE, DENIED) if _lets_in(kit.roles) else (CERTIFICATE,)
    with_it = " and ".join(str(folder / CA / name) for name in beside)
    yield f"{out or kit.folder / 'cert.pem'}: the certificate of {path}; send it back with {with_it}"
    yield f"{fingerprint(key)}: its key's fingerprint; where {path} does not say the same, `hierfl revoke` it"


def renew(nodes: Sequence[str], folder: Path, now: datetime, days: float) -> Iterator[str]:
    """Certify the nodes' keys anew, or those of all nodes that have one. Errors: LinkError."""
    authority = Authority(folder / CA)
    able = [
        path for path in authority.nodes if {one.serial_number for one in authority.issued(path)} - authority.denied()
    ]
    for path, newest in {path: authority.newest(path, now) for path in nodes or able}.items():
        before = roles_in(folder / KITS / folder_name(path)) or roles_of(newest)
        certificate = authority.renew(path, now, days)
        kit = _kit(folder, authority, path)
        _certify(kit, authority, certificate)
        files = "it" if {*before} == {*kit.roles} else "it and node.json"
        yield f"{kit.folder / 'cert.pem'}: of {path}, for {days:g} days; put {files} into the kit where the node runs"


def revoke(node: str, folder: Path, now: datetime, reason: str) -> Iterator[str]:
    """Deny all of a node's certificates. Errors: LinkError."""
    authority = Authority(folder / CA)
    serials = authority.revoke(node, now, reason)
    yield f"{node}: {len(serials)} certificate{'' if len(serials) == 1 else 's'} denied"
    denied = authority.folder / DENIED
    for path, roles in authority.nodes.items():
        kit = folder / KITS / folder_name(path)
        if _lets_in(roles) and kit.is_dir():
            _kit(folder, authority, path).deny(denied.read_bytes())
            yield f"{kit / DENIED}: put into the kit of {path} here; copy it to where that node runs"
    until = max((one.not_valid_after_utc for one in authority.issued(node)), default=now)
    if HUB in authority.nodes[node] and until > now:
        yield (
            f"{node} is a hub: lists keep it from dialling in, but members that dial it look at none. Whoever has its"
            f" key passes for it until {moment(until)}; a new authority, `hierfl provision` into another"
            " folder with new kits for all, ends that at once"
        )


def _kit(folder: Path, authority: Authority, path: str) -> Kit:
    """Give a node's kit beside the authority, which is begun if it is not there."""
    place, roles = folder / KITS / folder_name(path), authority.nodes.get(path)
    if roles is None:
        raise LinkError(f"{path!r} is no node with a link{nearest(path, authority.nodes)}")
    return Kit.write(place, authority.federation, path, roles)


def _certify(kit: Kit, authority: Authority, certificate: bytes | None) -> None:
    """Put into a kit what the authority has for it."""
    kit.put(certificate=certificate, authority=authority.pem)
    if _lets_in(kit.roles):
        kit.deny((authority.folder / DENIED).read_bytes())


def _lets_in(roles: Collection[str]) -> bool:
    """Say whether others dial in at who has these roles."""
    return bool({HUB, PEER} & {*roles})


def _is_begun(folder: Path) -> bool:
    """Say whether a kit was broken off here, by a full disk say, before it had its certificate; nobody's own key."""
    return (folder / KEY).exists() and not any((folder / name).exists() for name in (OWN, REQUEST))


def _files(roles: Collection[str]) -> str:
    """Name the files that a node that has a key needs beside it."""
    return "the cert.pem, ca.pem and denied.json" if _lets_in(roles) else "the cert.pem and ca.pem"


def _grown(folder: Path, path: str, roles: Sequence[str], before: Sequence[str], out: Path) -> Iterator[str]:
    """Say that a kit is from before its node was what it is now."""
    missing = [role for role in roles if role not in before]
    if missing and (before or folder.exists()):
        yield f"{folder}: {path} is {' and '.join(missing)} now, too; `hierfl renew {path} --ca {out}` certifies that"


def _known(node: str, roles: Collection[str]) -> None:
    """Errors: ConfigError for a node that has no process of its own."""
    if node not in roles:
        raise ConfigError(f"{node!r} is neither the root nor a member with a link{nearest(node, roles)}")
