"""The processes of a federation over links: one that serves the root, and one for every member."""

from __future__ import annotations

import contextlib
import secrets
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from hierfl.config.schema import RunConfig
from hierfl.errors import ConfigError, DataError, Fenced, HierflError, LinkError
from hierfl.journal import Lead, LocalStore, leading
from hierfl.kinds import nearest
from hierfl.link import kept, noted
from hierfl.link._wire import link_pb2 as wire
from hierfl.link.approval import Plan, config_digest, goes_on_as, plan_of
from hierfl.link.branch import Branch
from hierfl.link.commits import restored
from hierfl.link.desk import Desk
from hierfl.link.dialer import Dialer
from hierfl.link.door import try_to_listen
from hierfl.link.driver import WOKEN, LinkedDriver
from hierfl.link.errands import PARTED
from hierfl.link.fits import check_listen, check_roles, check_state
from hierfl.link.handover import LINE, line_of, taken_over
from hierfl.link.identity import HUB, MEMBER, exchanging, members_of, server_of
from hierfl.link.kit import Kit, folder_name
from hierfl.link.lane import Lane
from hierfl.link.leaders import Leaders
from hierfl.link.ledger import FILE as PAID
from hierfl.link.ledger import Ledger
from hierfl.link.log import Log
from hierfl.link.masked import MaskedSums
from hierfl.link.masker import Masker
from hierfl.link.peering import neighbours, workplace
from hierfl.link.served import as_served, membership, num_sites, stay_of
from hierfl.link.service import VERSIONS, Agreed, Service
from hierfl.link.shelf import Shelf
from hierfl.link.sound import certificate_of
from hierfl.link.spool import Spool
from hierfl.link.store import Store
from hierfl.link.taking import Taker
from hierfl.link.terms import heeded
from hierfl.link.turns import Turns
from hierfl.monitor.records import Monitor, Record
from hierfl.provenance import code_of
from hierfl.rundir import SPOOL
from hierfl.runtime.driver import Done, Driver
from hierfl.runtime.opening import JOURNAL, Opened, closing, open_driver
from hierfl.voice import emit_to
from tiers.lease import FINISHED, LEFT

__all__ = [
    "Serving",
    "check_member",
    "check_root",
    "join",
    "member_journal",
    "serve",
    "state_folder",
    "with_data",
]

LEADERS, STATES = "leaders.json", "states"
DRAIN_S = 5.0
ANEW = "the configuration as it is given now"


@dataclass(frozen=True)
class Serving:
    """How a node is served here.

    `listen`: None takes the port of its members' address, at all interfaces; `listen_peers`: None that of `link.peers`.
    """

    config: RunConfig
    kit: Kit
    log: Log
    listen: str | None = None
    listen_peers: str | None = None
    lanes: dict[str, Lane] = field(default_factory=dict)
    """The members' lanes, once they are open."""

    def __post_init__(self) -> None:
        """Errors: ConfigError where kit and configuration do not fit together."""
        config, kit = self.config, self.kit
        if kit.federation != config.name:
            raise ConfigError(f"the kit is of the federation {kit.federation!r}, the configuration of {config.name!r}")
        if kit.path not in config.federation.nodes:
            raise ConfigError(f"the federation has no node {kit.path!r}{nearest(kit.path, config.federation.nodes)}")
        check_roles(config, kit)
        alone = "" if self.members else f"{kit.path} dials out, and has no member with a link that would dial in"
        check_listen("--listen", self.listen, alone)
        unasked = "" if exchanging(config, kit.path) else f"{kit.path} hands no vectors to others, and none dials in"
        check_listen("--listen-peers", self.listen_peers, unasked)

    @property
    def members(self) -> tuple[str, ...]:
        """List the members that are served from here."""
        return members_of(self.config, self.kit.path)

    @property
    def num_joined(self) -> int:
        """Count the members that are there now."""
        return sum(lane.session is not None for lane in self.lanes.values())

    def health(self) -> Mapping[str, Any]:
        """Say who is here."""
        lanes = self.lanes.copy()  # which open and close while somebody asks
        up = {path: lane.session is not None for path, lane in lanes.items() if lane.is_member}
        said = {"node": self.kit.path, "federation": self.config.name, "leads": bool(lanes), "members": up}
        with contextlib.suppress(LinkError):  # in the midst of being renewed
            said["certificate_until"] = certificate_of(self.kit).not_valid_after_utc.isoformat()
        return said

    def opened(self, run: str, spool: Path, line: str = "") -> Opened:
        """Give what opens this node's runtime, with its members.

        `run`: what they know the run by; `line`: in which the processes of this node count, where a run has several.
        """

        def open_links(done: Callable[[Done], None], base: Driver, lead: Lead) -> tuple[Service, Mapping[str, Lane]]:
            lead.claim()
            own, shelf, turns = Spool(taken_over(spool, lead.epoch)), Shelf(), Turns()
            sums = MaskedSums(self.config, lambda: done(WOKEN), own.folder)
            lanes = {
                path: Lane(
                    *(path, run, self.config.links[path].deadline_s, num_sites(self.config, path)),
                    *(own, shelf, done, base.put),
                    stays=exchanging(self.config, path),
                    turns=turns,
                    epochs=membership(self.config, path),
                    masked=sums.of(path),
                )
                for path in self.members
            }
            config = self.config
            agreed = Agreed(
                *(config.name, config_digest(config), code_of(config).digest, run, config.federation.epoch),
                *(lead.epoch, line),
            )
            compression = "gzip" if all(config.links[path].compression == "gzip" for path in lanes) else "none"
            service = Service(self.kit, self.listens_at(), agreed, lanes, self.log, compression)
            self.lanes.update(lanes)
            lead.tells = lambda: {"address": self.listen or f":{service.port}", "members": self.num_joined}
            self.log("info", self.kit.path, f"listens at port {service.port} for {', '.join(lanes)}")
            return service, lanes

        def opened(config: RunConfig, run_dir: Path, lead: Lead) -> Driver:
            if not self.members:
                return open_driver(config, run_dir)
            if not lead.is_taken:
                try_to_listen(self.listens_at())
            return LinkedDriver(
                open_driver(config, run_dir),
                self.members,
                lambda done, base: open_links(done, base, lead),
                Taker(run_dir / SPOOL, neighbours(self.config, self.kit, self.log)),
                lambda path: num_sites(self.config, path),
                self.log,
                at_once=lead.is_taken,
            )

        return opened

    def listens_at(self) -> str:
        """Give the address to listen at. Errors: ConfigError where members name several ports."""
        if self.listen is not None:
            return self.listen
        ports = {at.rpartition(":")[2] for path in self.members for at in self.config.links[path].addresses}
        if len(ports) != 1:
            raise ConfigError(
                f"the members of {self.kit.path} dial several ports ({', '.join(sorted(ports))}): --listen"
            )
        return f"0.0.0.0:{ports.pop()}"


def check_root(serving: Serving) -> None:
    """Errors: ConfigError for a node that is not the root, or a federation without links."""
    root = serving.config.federation.root.name
    if serving.kit.path != root or HUB not in serving.kit.roles:
        raise ConfigError(f"{serving.kit.path} is not the root, {root}: `hierfl join` serves it")
    if not serving.members:
        raise ConfigError("no member has a link; `hierfl run` runs such a federation")


def serve(
    serving: Serving, monitors: Sequence[Monitor], resumed: Path | None = None, *, at_once: bool = False
) -> Mapping[str, Any]:
    """Serve the root: run the federation to its end, with its members over links; return its summary.

    `resumed`: the folder of a run to go on with; `at_once`: as of `Reopened`. Errors: HierflError; ConfigError for a
    node that is not the root.
    """
    check_root(serving)
    config, root = serving.config, serving.config.federation.root.name
    from hierfl.lifecycle import go_on, run
    from hierfl.reopen import reopened

    drivers: list[Driver] = []

    def opened(seen: RunConfig, run_dir: Path, lead: Lead) -> Driver:
        drivers.append(serving.opened(run_dir.name, run_dir / SPOOL)(seen, run_dir, lead))
        return drivers[-1]

    class Finish:
        """A monitor that lets the driver tell members of the end."""

        def on(self, record: Record) -> None:
            """Take one record."""
            from hierfl.monitor.records import RunEnded

            if isinstance(record, RunEnded) and record.status in ("finished", "stopped early") and drivers:
                finish = getattr(drivers[-1], "finish", None)
                if finish is not None:
                    finish()

        def close(self) -> None:
            """Hold nothing."""

    listening = [*monitors, Finish()]
    if resumed is None:
        try_to_listen(serving.listens_at())  # before there is a folder
        return run(as_served(config, root), listening, opened)
    with reopened(resumed, to_train=True, elsewhere=True) as left:
        if config_digest(left.config) != config_digest(config):
            if at_once or not goes_on_as(left.config, config):
                raise ConfigError(
                    f"{resumed} is a run of another configuration than the one that is given; on_failure, quorum and"
                    " privacy.epsilon may be others, all else stays as it was"
                )
            left = replace(left, config=config, overrides=(ANEW,))
        saved, seen = restored(left.config, left.saved), as_served(left.config, root)
        return go_on(replace(left, config=seen, saved=saved, needs_number=True, at_once=at_once), listening, opened)


def check_member(serving: Serving) -> None:
    """Errors: ConfigError for a node that is served by no link."""
    config, kit = serving.config, serving.kit
    if kit.path not in config.links or MEMBER not in kit.roles:
        raise ConfigError(f"{kit.path} has no link: `hierfl serve` serves the root{nearest(kit.path, config.links)}")


def join(
    serving: Serving,
    monitors: Sequence[Monitor],
    state: Path,
    stopping: threading.Event,
    *,
    data: Path | None = None,
    reached: Callable[[Dialer | None], None] = lambda dialer: None,
) -> str:
    """Serve a member until its federation has finished, or it is stopped; return the hub's last words.

    `state`: where updates and states are kept, and who serves the member. `data`: the site's data, handed to the task
    as `path`. `reached`: is given the way to the hub, and None at the end. Errors: HierflError; Fenced where another
    process serves the member since.
    """
    check_member(serving)
    seen = as_served(with_data(serving.config, serving.kit.path, data), serving.kit.path)
    check_state(state, serving.config.name, serving.kit.path)
    with leading(member_journal(state), serving.config.redundancy.lease_s, Fenced) as lead:
        try:
            if lead.failure:
                raise LinkError(f"{state} cannot be written: {lead.failure}; --state takes another folder")
            last = _join(serving, seen, monitors, taken_over(state, lead.epoch), stopping, lead, reached)
        except (HierflError, OSError) as error:
            with contextlib.suppress(OSError):
                lead.check()  # a successor has taken away what was needed here
            if isinstance(error, OSError):
                raise LinkError(f"{error.filename or state}: {error.strerror or error}") from error
            raise
        finally:
            serving.lanes.clear()
            reached(None)
        lead.close(*((FINISHED, last) if last else (LEFT, "it was stopped")))
        return last


def _join(
    serving: Serving,
    seen: RunConfig,
    monitors: Sequence[Monitor],
    place: Path,
    stopping: threading.Event,
    lead: Lead,
    reached: Callable[[Dialer | None], None],
) -> str:
    """Serve a member from a folder that is this process's own; return the hub's last words."""
    config, kit = serving.config, serving.kit
    link, plan = config.links[kit.path], plan_of(config, kit.path)
    store, line = Store(place, lead.epoch), line_of(place)

    def tell(level: str, message: str) -> None:
        serving.log(level, kit.path, message)

    def fence() -> None:
        with contextlib.suppress(OSError):  # what cannot be read cannot be written: no harm is done
            lead.check()

    dialer = Dialer(
        *(kit, server_of(config, kit.path), link.addresses, _hello(plan, lead.epoch, line)),
        *(link.deadline_s, link.compression, tell, Leaders(place / LEADERS)),
    )
    reached(dialer)
    if (stay := stay_of(config, kit.path)).first > 1:
        tell("info", f"takes part from round {stay.first} on, and waits for it")
    lead.lost = lambda: dialer.leave("another process serves this member")
    driver = serving.opened(plan.digest[:16], place / SPOOL, line)(seen, place, lead)
    with contextlib.ExitStack() as stack:
        stack.callback(store.close)
        stack.enter_context(closing(driver))
        at = stack.enter_context(workplace(config, kit, serving.log, store, place.parent, dialer, serving.listen_peers))
        desk = Desk(
            lambda: Branch(
                *(seen, kit.path, driver, place / STATES, emit_to(monitors), Ledger(place / PAID)),
                terms=heeded(config, kit, plan),
            ),
            *(store, dialer.say, dialer.fetch, tell, lambda: dialer.leave("the member has failed")),
            *(fence, at, Masker.of(config, kit, store)),
        )
        dialer.asked, dialer.offered = desk.asked, desk.offered
        watch = threading.Thread(target=_leave_at, args=(stopping, dialer), daemon=True)
        watch.start()
        try:
            last = dialer.serve()
        except Fenced as error:
            way = f"Where nobody else serves {kit.path}, start it again; if an old copy of {place.parent} was put back"
            raise Fenced(f"{error}. {way}, delete {place / LINE} first") from error
        finally:
            dialer.leave("the member is stopping")
            desk.close(DRAIN_S)
        fence()
        if desk.failed is not None:
            raise desk.failed
        finish = getattr(driver, "finish", None)
        if last and finish is not None:
            finish(last)
        if last and last != PARTED:  # then a hub that goes back to its checkpoint may ask for its last rounds once more
            for what in (STATES, noted.MASKED):
                kept.forget(place / what, dialer.run)
            if at is not None:
                at.finished()
        return last


def with_data(config: RunConfig, path: str, data: Path | None) -> RunConfig:
    """Let a site's data come from a path. Errors: ConfigError where the node is no site, or its task takes no path;
    DataError where nothing is there.
    """
    if data is None:
        return config
    if path not in config.sites:
        raise ConfigError(
            f"--data is for a single site; {path} is a hub: give its sites data: {{path: ...}} in the YAML"
        )
    import inspect

    if "path" not in inspect.signature(config.task.data).parameters:
        raise ConfigError(f"the task {config.task_kind} takes no path; its data are its own")
    if not data.exists():
        raise DataError(f"--data {data}: does not exist").misnamed()
    site = config.sites[path]
    return replace(
        config, sites={**config.sites, path: replace(site, source={**site.source, "path": str(data.resolve())})}
    )


def member_journal(state: Path) -> LocalStore:
    """Give the place where processes that may serve a member count themselves, and say that they live."""
    return LocalStore(state / JOURNAL)


def state_folder(config: RunConfig, path: str) -> Path:
    """Give where a member keeps its state, unless it is told otherwise."""
    return config.output.folder / folder_name(path, f"{config.name}-")


def _hello(plan: Plan, number: int, line: str) -> wire.Hello:
    return wire.Hello(
        versions=VERSIONS,
        federation=plan.federation,
        node=plan.node,
        config_digest=plan.config,
        task_digest=plan.task,
        approval=plan.digest,
        instance=secrets.token_hex(16),
        number=number,
        line=line,
    )


def _leave_at(stopping: threading.Event, dialer: Dialer) -> None:
    stopping.wait()
    dialer.leave("the member is stopping")
