"""The commands of links: who may take part, and the processes that do. What is heavy is imported inside them."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hierfl.console import Watch, aside, finish, told
from hierfl.errors import LinkError
from hierfl.options import Debug, Json, Report, Words, loaded
from hierfl.stops import leaving

if TYPE_CHECKING:
    from hierfl.link.serving import Serving
    from hierfl.monitor.records import Monitor

__all__ = ["register"]

DAYS = 30.0

GRPC_WORDS = "GRPC_VERBOSITY"
"""How much gRPC says itself, in lines that are no JSON: INFO shows handshakes that have failed."""

Days = Annotated[float, typer.Option(metavar="N", help="For how many days certificates hold.", min=0.001, max=3650)]
KitFolder = Annotated[Path, typer.Option("--kit", metavar="DIR", help="The node's start-up kit.")]
Listen = Annotated[str | None, typer.Option(metavar="HOST:PORT", help="Where members dial in; their port by default.")]
ListenPeers = Annotated[
    str | None,
    typer.Option("--listen-peers", metavar="HOST:PORT", help="Where other members dial in; the port of link.peers."),
]
HealthAt = Annotated[
    str | None, typer.Option("--health", metavar="HOST:PORT", help="Answer GET /healthz and /metrics here.")
]
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

    A kit for the root and for each member with a link. In a folder that has them, only what is missing is made, and
    nothing for a node whose certificate still holds, wherever its kit is now: `hierfl revoke` comes first.
    """
    with told(False, debug):
        config = loaded(words)
        _need_packages()
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
        _need_packages()
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
        _need_packages()
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
        _need_packages()
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
        _need_packages()
        from hierfl.link import provisioning

        _say(provisioning.revoke(node, ca, datetime.now(UTC), reason))


def _serve(
    words: Words,
    kit: KitFolder,
    node: Annotated[str | None, typer.Option(metavar="PATH", help="The root; the kit says it, too.")] = None,
    listen: Listen = None,
    health: HealthAt = None,
    resume: Annotated[Path | None, typer.Option(metavar="RUN_DIR", help="Go on with this run.")] = None,
    standby: Annotated[bool, typer.Option("--standby", help="Watch who leads, and lead once nobody does.")] = False,
    report: Report = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Run CONFIG with its linked members in their institutions.

    Serves the root, waits for the members, which `hierfl join`, and ends with the federation. With --standby another
    process serves it, and this one takes the run up when that one is heard of no more.
    """
    typed = {"--kit": kit, "--listen": listen, "--health": health}
    options = [str(word) for option, value in typed.items() if value is not None for word in (option, value)]
    watch = Watch(way_on=["serve", *words, *options, "--resume"])
    with told(as_json, debug, watch), aside(as_json) as answer, contextlib.ExitStack() as stack:
        serving = _serving(words, kit, node, listen)
        stack.enter_context(_watched(serving))
        from hierfl.link import log
        from hierfl.link.serving import serve
        from hierfl.monitor.plain import Plain

        if as_json:  # what is said of the run goes to the log, where every line is JSON
            stack.enter_context(contextlib.redirect_stdout(log.Lines(serving.log, serving.kit.path)))
        gauges = _gauges(stack, health, serving.health) if health is not None else []

        def monitors() -> list[Monitor]:
            return [Plain(sys.stdout, serving.log if as_json else None), watch, *gauges]

        if standby:
            from hierfl.link.standby import serve_in_turn

            summary = serve_in_turn(serving, monitors, resume)
        else:
            summary = serve(serving, monitors(), resume)
        finish(summary, report)
        answer.update(summary)


def _join(
    words: Words,
    kit: KitFolder,
    node: Annotated[str | None, typer.Option(metavar="PATH", help="The node; the kit says it, too.")] = None,
    data: Annotated[Path | None, typer.Option(metavar="PATH", help="A single site's data.")] = None,
    approved: Annotated[str | None, typer.Option("--approve", metavar="PLAN", help="Agree to this plan.")] = None,
    state: Annotated[Path | None, typer.Option(metavar="DIR", help="Where updates are kept until they count.")] = None,
    listen: Listen = None,
    listen_peers: ListenPeers = None,
    health: HealthAt = None,
    standby: Annotated[
        bool, typer.Option("--standby", help="Watch in --state who serves the node, and do once nobody does.")
    ] = False,
    debug: Debug = False,
) -> None:
    """Take part in CONFIG's federation as one of its members.

    Shows what will be done and what leaves the site, and begins once that is approved. Runs until the federation ends.
    With --standby on two machines that share --state, one serves the node, and the other when that one is heard of no
    more.
    """
    with told(False, debug), contextlib.ExitStack() as stack:
        serving = _serving(words, kit, node, listen, listen_peers)
        stack.enter_context(_watched(serving))
        from hierfl.link.log import Rounds
        from hierfl.link.serving import check_member, join, state_folder, with_data
        from hierfl.link.standby import join_in_turn
        from hierfl.monitor.plain import Plain as Lines

        check_member(serving)  # who is none, or has no data there, is asked to agree to nothing
        with_data(serving.config, serving.kit.path, data)
        _approve(serving, approved)
        stopping = stack.enter_context(leaving())
        way: list[Any] = [None]

        def reached(dialer: Any) -> None:
            way[0] = dialer

        def said() -> Mapping[str, Any]:
            dialer = way[0]
            known = {"up": dialer.is_up, "run": dialer.run} if dialer is not None else {"up": False, "run": ""}
            return {**serving.health(), "leads": dialer is not None, **known}

        gauges = _gauges(stack, health, said) if health is not None else []

        def monitors() -> list[Monitor]:
            return [Lines(sys.stdout), Rounds(serving.log), *gauges]

        place = state or state_folder(serving.config, serving.kit.path)
        if standby:
            last = join_in_turn(serving, monitors, place, stopping, data=data, reached=reached)
        else:
            last = join(serving, monitors(), place, stopping, data=data, reached=reached)
        print(last or "updates that are ready are kept", flush=True)
        if not last:
            stopping.end()


_COMMANDS: dict[str, Callable[..., None]] = {
    "provision": _provision,
    "csr": _csr,
    "sign": _sign,
    "renew": _renew,
    "revoke": _revoke,
    "serve": _serve,
    "join": _join,
}


def _say(lines: Iterable[str]) -> None:
    for line in lines:
        print(line)


def _serving(
    words: Sequence[str], kit: Path, node: str | None, listen: str | None, listen_peers: str | None = None
) -> Serving:
    """Read the configuration and the kit; what is said from now on is seen at once. Errors: ConfigError, LinkError."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)  # a service's output goes to a file or a pipe
    os.environ.setdefault(GRPC_WORDS, "NONE")
    from hierfl.learning.schedules import try_out
    from hierfl.link.memory import use_few_arenas

    use_few_arenas()  # first: threads that imported code starts settle how many there may be
    config = loaded(words)
    try_out(config)  # all of it: what one process sees has few of the sites
    _need_packages()
    from hierfl.link.kit import Kit
    from hierfl.link.log import Log
    from hierfl.link.serving import Serving
    from hierfl.link.sound import check_sound

    opened = Kit.open(kit)
    if node is not None and node != opened.path:
        raise LinkError(f"{kit} is the kit of {opened.path}, not of {node}")
    serving = Serving(config, opened, Log(), listen, listen_peers)
    check_sound(opened, datetime.now(UTC))
    return serving


def _watched(serving: Serving) -> contextlib.AbstractContextManager[None]:
    """Warn of the kit's certificate while the node is served."""
    from hierfl.link.sound import watched

    return watched(serving.kit, lambda said: serving.log("warning", serving.kit.path, said))


def _approve(serving: Serving, approved: str | None) -> None:
    """Show the plan, and let a person agree to it, once. Errors: LinkError if nobody does."""
    from hierfl.link.agreement import OPTION, TYPED, agree, agreed, agreement_here
    from hierfl.link.approval import plan_of
    from hierfl.link.terms import heeded, terms_lines

    plan, folder = plan_of(serving.config, serving.kit.path), serving.kit.folder
    shown = [*plan.lines(), *terms_lines(serving.config, serving.kit, plan)]
    _say(shown)
    heeded(serving.config, serving.kit, plan)()  # nobody is asked to agree to what is not to be
    agreement = agreed(plan, folder)
    if agreement is None:
        is_typed = approved is None and sys.stdin.isatty() and typer.confirm("Agree to this plan?")
        if not is_typed and approved != plan.digest:
            said = f"the plan is another one than {approved[:16]}..." if approved else "this plan is not approved"
            raise LinkError(f"{said}; agree to it with --approve {plan.digest}")
        agreement = agreement_here(TYPED if is_typed else OPTION, datetime.now(UTC))
        agree(plan, folder, agreement, shown)
    _say([agreement.line()])


def _gauges(stack: contextlib.ExitStack, address: str, say: Callable[[], Mapping[str, Any]]) -> list[Monitor]:
    """Answer at an address while the command lasts; give what is to hear of the run for that. Errors: LinkError."""
    from hierfl.link.gauges import Gauges
    from hierfl.link.health import Health

    gauges = Gauges(say)
    stack.callback(Health(address, say, gauges.page).close)
    return [gauges]


def _need_packages() -> None:
    """Errors: LinkError naming the extra, where its packages are not installed."""
    from importlib.util import find_spec

    missing = [name for name in ("blake3", "cryptography", "prometheus_client") if find_spec(name) is None]
    if missing:
        raise LinkError(f"links need {' and '.join(missing)}: pip install 'hierfl[link]'")
