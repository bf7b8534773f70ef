"""What a member agrees to, what fits together, and how a process that serves says how it is."""

from __future__ import annotations

import io
import json
import socket
import stat
import threading
import urllib.error
import urllib.request
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from link_members import Pki
from small_runs import config_of, hub, site

from hierfl.config import load, write
from hierfl.errors import ConfigError, DataError, LinkError, OutputError
from hierfl.lifecycle import run
from hierfl.link.approval import goes_on_as, plan_of
from hierfl.link.fits import check_state
from hierfl.link.health import Health
from hierfl.link.kit import Kit
from hierfl.link.log import Log
from hierfl.link.serving import Serving, join, serve, with_data
from hierfl.link.standby import join_in_turn
from hierfl.link.times import Times

LINK = {"address": "hub.example.org:8443"}


def config(folder: Path, *, link: Any = LINK, name: str = "heart", **top: Any) -> Any:
    return config_of(folder, hub("world", hub("us", "a", "b", link=link), "c"), name=name, **top)


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return Pki(tmp_path_factory.mktemp("pki"))


def test_a_plan_is_of_what_is_shared_and_of_nothing_else(tmp_path: Path) -> None:
    plan = plan_of(config(tmp_path), "world/us")
    elsewhere = config(tmp_path / "other", runtime={"kind": "local", "num_workers": 3})
    assert plan_of(elsewhere, "world/us").digest == plan.digest
    others = [
        plan_of(config(tmp_path, training={"lr": 0.2}), "world/us"),
        plan_of(config(tmp_path, evaluation={"auc": "exact"}), "world/us"),
        plan_of(config(tmp_path, task={"kind": "ward_tasks:Wards", "standardise": "federated"}), "world/us"),
        plan_of(config(tmp_path), "world/c"),
    ]
    assert len({plan.digest, *(other.digest for other in others)}) == 5
    assert "every distinct score" in "\n".join(others[1].lines())
    assert "sums of squares of each feature" in "\n".join(others[2].lines())
    assert "of its 2 sites together" in "\n".join(plan.lines())
    alone = config_of(tmp_path, hub("world", hub("us", "a", link={"address": "localhost:1"}), "b", rounds=1))
    assert "of its one site, as integers" in "\n".join(plan_of(alone, "world/us").lines())
    assert plan_of(alone, "world/us").lines()[0].endswith(", 1 round")


NOISE = {"kind": "dp_sgd", "noise_multiplier": 2.0, "max_grad_norm": 0.5, "delta": 1e-3}


@pytest.mark.parametrize(
    ("changed", "goes_on"),
    [
        ({}, True),
        ({"on_failure": "continue", "quorum": 0.5}, True),
        ({"us": {"rounds": 2}}, False),
        ({"privacy": {**NOISE, "epsilon": 5.0}}, True),
        ({"privacy": {**NOISE, "noise_multiplier": 1.0}}, False),
        ({"privacy": None}, False),
        ({"us": {"privacy": {**NOISE, "epsilon": 5.0}}}, False),
        ({"us": {"on_failure": "continue", "quorum": 0.5}}, True),
        ({"rounds": 3}, False),
        ({"secure_aggregation": "none", "strategy": "fedavgm"}, False),
        ({"participation": {"kind": "deadline", "after_s": 9.0, "quorum": 0.5}}, False),
    ],
)
def test_a_served_run_goes_on_with_other_budgets_and_without_members_and_else_as_it_was(
    tmp_path: Path, changed: dict[str, Any], goes_on: bool
) -> None:
    """Whatever is changed, members have to agree to another plan."""
    pytest.importorskip("dp_accounting")

    def such(us: Any = None, **top: Any) -> Any:
        tree = hub("world", hub("us", site("a"), site("b"), link=LINK, **(us or {})), {**site("c"), "link": LINK})
        return config_of(tmp_path, {**tree, "privacy": NOISE, **top})

    before, now = such(), such(**changed)
    assert goes_on_as(before, now) == goes_on_as(now, before) == goes_on
    is_same = plan_of(before, "world/us").digest == plan_of(now, "world/us").digest
    assert is_same == (not changed)


def test_kit_configuration_and_command_must_fit_together(pki: Pki, tmp_path: Path) -> None:
    world, us, log = pki.kit("world"), pki.kit("world/us"), Log(io.StringIO())
    with pytest.raises(ConfigError, match="federation 'heart', the configuration of 'other'"):
        Serving(config(tmp_path, name="other"), world, log)
    with pytest.raises(ConfigError, match="no node 'world/them'"):
        Serving(config(tmp_path), pki.kit("world/them"), log)
    with pytest.raises(ConfigError, match="is not the root, world: `hierfl join` serves it"):
        serve(Serving(config(tmp_path), us, log), [])
    with pytest.raises(ConfigError, match="world has no link: `hierfl serve` serves the root"):
        join(Serving(config(tmp_path), world, log), [], tmp_path, threading.Event())
    with pytest.raises(ConfigError, match="`hierfl run` runs such a federation"):
        serve(Serving(config(tmp_path, link=None), world, log), [])
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("listen", "why"),
    [
        ("127.0.0.1:{taken}", "Address already in use"),
        ("0.0.0.0:{taken}", "Address already in use"),
        ("192.0.2.7:0", "Cannot assign requested address"),  # an address of nobody's (RFC 5737)
    ],
)
def test_where_nobody_can_listen_no_folder_is_made(listen: str, why: str, pki: Pki, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        at = listen.format(taken=taken.getsockname()[1])
        serving = Serving(config(tmp_path), pki.kit("world"), Log(io.StringIO()), at)
        with pytest.raises(LinkError, match=f"cannot listen at {at}: .*{why}.*; --listen takes another address"):
            serve(serving, [])
    assert not (tmp_path / "runs").exists()


def test_members_that_dial_several_ports_need_a_word(pki: Pki, tmp_path: Path) -> None:
    tree = hub("world", hub("us", "a", link=LINK), {**site("c"), "link": {"address": "hub.example.org:9443"}})
    serving = Serving(config_of(tmp_path, tree, name="heart"), pki.kit("world"), Log(io.StringIO()))
    assert serving.members == ("world/us", "world/c")
    with pytest.raises(ConfigError, match=r"several ports \(8443, 9443\): --listen"):
        serving.listens_at()
    assert serving.health()["members"] == {}
    assert datetime.fromisoformat(serving.health()["certificate_until"]) > datetime.now(UTC)


def test_a_single_sites_data_may_come_from_a_path(tmp_path: Path) -> None:
    tables = {"kind": "parquet", "features": ["x"], "label": "y"}
    tree = hub("world", site("a", path="elsewhere.parquet"), site("b", path="b.parquet"))
    with pytest.raises(DataError, match=r"mine\.parquet: does not exist"):
        with_data(config_of(tmp_path, tree, tables), "world/a", tmp_path / "mine.parquet")
    (tmp_path / "mine.parquet").touch()
    given = with_data(config_of(tmp_path, tree, tables), "world/a", tmp_path / "mine.parquet")
    assert given.sites["world/a"].source["path"] == str(tmp_path / "mine.parquet")
    assert given.sites["world/b"].source["path"] == "b.parquet"
    assert plan_of(given, "world/a") == plan_of(config_of(tmp_path, tree, tables), "world/a")
    with pytest.raises(ConfigError, match="takes no path"):
        with_data(config(tmp_path), "world/c", tmp_path)
    with pytest.raises(ConfigError, match="world/us is a hub"):
        with_data(config(tmp_path), "world/us", tmp_path)


def test_health_is_one_json_object(tmp_path: Path) -> None:
    health = Health(
        "127.0.0.1:0", lambda: {"node": "world", "members": {"world/us": True}}, lambda: ("text/plain", b"")
    )
    try:
        place = f"http://127.0.0.1:{health.port}"
        assert json.loads(urllib.request.urlopen(f"{place}/healthz", timeout=10).read())["node"] == "world"
        with pytest.raises(urllib.error.HTTPError):
            urllib.request.urlopen(f"{place}/other", timeout=10)
    finally:
        health.close()
    with pytest.raises(LinkError, match="give HOST:PORT"):
        Health("nonsense", dict, lambda: ("text/plain", b""))


def test_a_log_is_one_object_per_line() -> None:
    stream = io.StringIO()
    log = Log(stream)
    log("info", "world/us", "has joined\nand more")
    log("warning", "world/us", "is gone")
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [line["level"] for line in lines] == ["info", "warning"]
    assert lines[0]["node"] == "world/us" and lines[0]["message"] == "has joined\nand more"


@pytest.mark.parametrize("deadline_s", [1.0, 60.0, 600.0, 1e6])
def test_every_time_follows_from_the_deadline(deadline_s: float) -> None:
    import random

    times, chance = Times(deadline_s), random.Random(0)
    assert 0 < times.beat_s < times.silence_s < deadline_s
    waits = [times.back_off_s(attempt, chance) for attempt in range(40)]
    assert all(0 < wait <= times.silence_s for wait in waits)
    assert waits[0] < waits[5] and min(waits[20:]) >= times.silence_s / 2


def test_an_incomplete_kit_says_what_is_missing(pki: Pki) -> None:
    folder = pki.kit("world/us").folder
    (folder / "cert.pem").unlink()
    with pytest.raises(LinkError, match=r"cert.pem is missing; `hierfl sign` makes it"):
        Kit.open(folder)
    with pytest.raises(LinkError, match="is no start-up kit"):
        Kit.open(folder.parent / "nowhere")


def test_validate_refuses_at_once_what_serve_would(tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from hierfl.cli import app

    us = {
        "name": "us",
        "link": LINK,
        "members": [{"name": "cleveland"}, {"name": "long_beach", "role": "evaluation"}],
    }
    eu = {
        "name": "eu",
        "topology": "swarm",
        "members": [{"name": "budapest", "link": LINK}, {"name": "zurich_basel"}],
    }
    said = {
        "task": {"kind": "heart_disease"},
        "federation": {"name": "world", "members": [us, eu]},
    }
    file = tmp_path / "heart.yaml"
    file.write_text(yaml.safe_dump(said))
    refused = CliRunner().invoke(app, ["validate", str(file), "--json"])
    assert refused.exit_code == 2
    assert [problem["path"] for problem in json.loads(refused.stdout)["error"]["problems"]] == [
        "federation.members.eu.members.budapest.link.peers",
        "federation.members.us.members.long_beach.role",
    ]
    assert len(load(file).links) == 2  # `hierfl run` simulates it


def test_a_standby_finds_the_newest_run_that_is_led_and_keeps_to_it(tmp_path: Path) -> None:
    from hierfl.config import write
    from hierfl.journal import LocalStore
    from hierfl.link.standby import Newest
    from tiers.lease import FINISHED, LEFT, Lease

    ours, other = config(tmp_path / "runs"), config(tmp_path / "runs", seed=7)

    def begun(stamp: str, of: Any, state: str | None) -> Path:
        run_dir = tmp_path / "runs" / f"heart-{stamp}"
        run_dir.mkdir(parents=True)
        (run_dir / "config.yaml").write_text(write(of.resolved))
        if state is not None:
            LocalStore(run_dir / "journal").claim(1)
            LocalStore(run_dir / "journal").put_lease(1, Lease(1, "alpha:7", state=state).write())
        return run_dir

    newest = Newest(ours)
    assert newest() is None
    begun("20260101", ours, FINISHED)
    begun("20260102", other, "leads")
    begun("20260103", ours, None)
    assert newest() is None
    led = begun("20260104", ours, "leads")
    begun("20260105", ours, FINISHED)
    assert newest() == led
    LocalStore(led / "journal").put_lease(1, Lease(1, "alpha:7", state=FINISHED).write())
    assert newest() == led  # to hear that it has ended
    following = begun("20260106", ours, LEFT)
    assert newest() == following


def test_a_kit_from_before_its_node_served_members_is_told_and_renewed(tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from hierfl.cli import app
    from hierfl.link.sound import check_sound

    def write(*, link: bool) -> str:
        below: dict[str, Any] = {"name": "cleveland", **({"link": LINK} if link else {})}
        us = {"name": "us", "link": LINK, "members": [below, {"name": "budapest"}]}
        said = {"name": "heart", "task": {"kind": "heart_disease"}, "federation": {"name": "world", "members": [us]}}
        (tmp_path / "heart.yaml").write_text(yaml.safe_dump(said))
        return str(tmp_path / "heart.yaml")

    def call(*words: str) -> str:
        ended = CliRunner().invoke(app, [*words])
        assert ended.exit_code == 0, ended.output
        return ended.output

    file, out = write(link=False), str(tmp_path / "pki")
    call("provision", file, "--out", out)
    kit = tmp_path / "pki/kits/world__us"
    Serving(load(write(link=True)), Kit.open(tmp_path / "pki/kits/world"), Log(io.StringIO()))
    with pytest.raises(ConfigError, match=r"world/us is hub, member .* before it was hub: .*`hierfl renew world/us"):
        Serving(load(file), Kit.open(kit), Log(io.StringIO()))
    assert f"world/us is hub now, too; `hierfl renew world/us --ca {out}`" in call("provision", file, "--out", out)
    assert "put it and node.json into the kit" in call("renew", "world/us", "--ca", out)
    assert "put it into the kit" in call("renew", "world/us", "--ca", out)
    assert (kit / "denied.json").exists()
    check_sound(Kit.open(kit), datetime.now(UTC))
    Serving(load(file), Kit.open(kit), Log(io.StringIO()))


@pytest.mark.parametrize("address", ["nonsense", "8443", ":8443", "localhost:", "localhost:99999", "localhost:http"])
def test_where_to_listen_is_read_before_anything_starts(pki: Pki, tmp_path: Path, address: str) -> None:
    with pytest.raises(ConfigError, match=f"^--listen must be HOST:PORT .*, not '{address}'"):
        Serving(config(tmp_path), pki.kit("world"), Log(io.StringIO()), address)
    Serving(config(tmp_path), pki.kit("world"), Log(io.StringIO()), "[::]:8443")


def test_an_address_where_nobody_dials_is_refused(pki: Pki, tmp_path: Path) -> None:
    """Whoever gives one should not believe that a port is open, or that one is needed."""
    with pytest.raises(ConfigError, match=r"--listen localhost:1: world/us dials out, .*; leave it out"):
        Serving(config(tmp_path), pki.kit("world/us"), Log(io.StringIO()), "localhost:1")
    with pytest.raises(ConfigError, match=r"--listen-peers localhost:1: world/us hands no vectors .*; leave it out"):
        Serving(config(tmp_path), pki.kit("world/us"), Log(io.StringIO()), None, "localhost:1")
    members = [{**site(name), "link": {**LINK, "peers": f"{name}.example.org:1"}} for name in ("a", "b")]
    ring = config_of(tmp_path, hub("ring", *members, topology="allreduce"), name="heart")
    for wrong, right in (("nonsense", "localhost:0"), ("localhost:99999", "[::]:8444")):
        with pytest.raises(ConfigError, match="--listen-peers must be HOST:PORT"):
            Serving(ring, pki.kit("ring/a"), Log(io.StringIO()), None, wrong)
        Serving(ring, pki.kit("ring/a"), Log(io.StringIO()), None, right)


def test_a_state_is_one_nodes(pki: Pki, tmp_path: Path) -> None:
    """Two nodes that share one would fence each other: each is told whose it is."""
    tree = hub("world", hub("us", "a", "b", link=LINK), {**site("them"), "link": LINK})
    settings, stopped = config_of(tmp_path, tree, name="heart"), threading.Event()
    stopped.set()
    state = tmp_path / "state"
    check_state(state, "heart", "world/us")
    check_state(state, "heart", "world/us")
    for way in (join, lambda *words: join_in_turn(words[0], list, *words[2:])):
        them = Serving(settings, pki.kit("world/them"), Log(io.StringIO()))
        with pytest.raises(
            LinkError, match=r"keeps what is of world/us of 'heart', not of world/them of 'heart'; --state"
        ):
            way(them, [], state, stopped)
    assert not (state / "journal").exists(), "nobody was fenced"
    (state / "node.json").write_text("[]")
    with pytest.raises(LinkError, match="is of another node"):
        check_state(state, "heart", "world/us")
    (tmp_path / "file").write_text("")
    with pytest.raises(LinkError, match=r"cannot be read: Not a directory; --state takes another"):
        check_state(tmp_path / "file", "heart", "world/us")


def test_a_site_s_state_may_lie_in_its_hub_s(tmp_path: Path) -> None:
    check_state(tmp_path / "state" / "us" / "cleveland", "heart", "world/us/cleveland")
    check_state(tmp_path / "state" / "us", "heart", "world/us")
    assert {folder.stat().st_mode & 0o777 for folder in (tmp_path / "state").rglob("*") if folder.is_dir()} == {0o700}


def test_a_state_that_was_there_before_is_closed_to_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state, open_to_all = tmp_path / "state", tmp_path / "shared"
    state.mkdir()
    for before in (0o755, 0o2770):
        state.chmod(before)
        check_state(state, "heart", "world/us")
        assert stat.S_IMODE(state.stat().st_mode) == before & ~0o077
    with pytest.raises(LinkError, match="keeps what is of world/us"):
        check_state(state, "heart", "world/them")
    open_to_all.mkdir()
    open_to_all.chmod(0o1777)
    (open_to_all / "somebodys").touch()
    said = rf"can be read by others: chmod 700 {open_to_all}, as its owner, or --state takes another"
    with pytest.raises(LinkError, match=said):
        check_state(open_to_all, "heart", "world/us")
    assert stat.S_IMODE(open_to_all.stat().st_mode) == 0o1777 and not (open_to_all / "node.json").exists()
    (open_to_all / "somebodys").unlink()

    def forbidden(*_: object, **__: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(Path, "chmod", forbidden)
    with pytest.raises(LinkError, match=said):
        check_state(open_to_all, "heart", "world/us")


def test_a_served_run_that_has_done_its_rounds_is_not_gone_on_with(pki: Pki, tmp_path: Path) -> None:
    finished = run(config(tmp_path, link=None))
    with pytest.raises(OutputError, match="its members have agreed to no more: another run, without --resume"):
        serve(Serving(config(tmp_path), pki.kit("world"), Log(io.StringIO())), [], Path(finished["run_dir"]))


def test_a_served_run_is_not_gone_on_with_as_another(pki: Pki, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A standby, which nobody has told of it, takes nothing up under another configuration either."""

    def go_on(*_: object) -> None:
        pytest.fail("it is gone on with")

    monkeypatch.setattr("hierfl.lifecycle.go_on", go_on)
    left = Path(run(config(tmp_path, link=None))["run_dir"])
    (left / "model.safetensors").unlink()  # as if it had been killed before its end
    (left / "config.yaml").write_text(write(config(tmp_path).resolved))
    other = config(tmp_path, training={"lr": 0.2})
    going_on = config_of(
        tmp_path, hub("world", hub("us", "a", "b", link=LINK), "c", on_failure="continue"), name="heart"
    )
    for now, at_once in ((other, False), (going_on, True)):
        with pytest.raises(
            ConfigError, match=r"of another configuration .* on_failure, quorum and privacy.epsilon may"
        ):
            serve(Serving(now, pki.kit("world"), Log(io.StringIO())), [], left, at_once=at_once)
