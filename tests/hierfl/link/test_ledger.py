"""What a member's sites pay for privacy over links is kept where the records are, and nothing leaves unpaid."""

from __future__ import annotations

import contextlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("dp_accounting")

from link_inside import Inside, several_runs  # noqa: F401
from small_runs import config_of, foreseen, hub, site

from hierfl.accountant import epsilon
from hierfl.budget import Cost, costs
from hierfl.config.terms import Terms
from hierfl.errors import ConfigError, HierflError, LinkError
from hierfl.learning.privacy import Release
from hierfl.learning.ring import PartialSum
from hierfl.learning.state import ModelState
from hierfl.lifecycle import run
from hierfl.link.approval import plan_of
from hierfl.link.branch import Asked, Branch
from hierfl.link.files import append_private
from hierfl.link.ledger import FILE, Ledger
from hierfl.link.served import as_served, check_links
from hierfl.privacy.dp_sgd import DpSgd
from hierfl.runtime.local import LocalDriver

LINK = {"address": "hub.example.org:8443"}
NOISE: dict[str, Any] = {"kind": "dp_sgd", "noise_multiplier": 2.0, "max_grad_norm": 1.0, "delta": 0.001}


def federation(folder: Path, rounds: int = 3, **noise: Any) -> Any:
    north = hub("north", site("a", n=12), site("b", n=20), link=LINK, rounds=2, privacy={**NOISE, **noise})
    tree = hub("world", north, {**site("c"), "link": LINK}, rounds=rounds)
    return config_of(folder, tree, "ward_tasks:Doses", training={"batch_size": 4, "local_steps": 3})


class Member:
    """One process of the member world/north."""

    def __init__(self, folder: Path, **noise: Any) -> None:
        config = as_served(federation(folder, **noise), "world/north")
        self.driver = LocalDriver(config.runtime)
        self.branch = Branch(
            *(config, "world/north", self.driver, folder / "states", lambda record: None),
            ledger=Ledger(folder / FILE),
        )

    def __enter__(self) -> Member:
        self.branch.prepare("run-1", None)
        return self

    def __exit__(self, *_: object) -> None:
        self.driver.close()

    def train(self, number: int) -> PartialSum:
        start = ModelState(np.full(5, number / 8, np.float32), np.zeros(0, np.int64))
        return self.branch.train(Asked("world", number, 32, "world", number, 44), start)[1]


def paid(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / FILE).read_text().splitlines()]


def test_a_line_that_could_not_be_written_whole_is_taken_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / FILE
    append_private(file, '{"run": "a", "round": 1, "sites": {}}\n')
    whole = file.read_bytes()
    monkeypatch.setattr("hierfl.link.files.os.fsync", lambda handle: (_ for _ in ()).throw(OSError(28, "full")))
    with pytest.raises(LinkError, match="cannot be written: full"):
        append_private(file, '{"run": "a", "round": 2, "sites": {}}\n')
    assert file.read_bytes() == whole


def test_each_update_is_paid_for_before_it_leaves_and_what_is_trained_anew_has_noise_of_its_own(tmp_path: Path) -> None:
    with Member(tmp_path, epsilon=1000.0) as member:
        first = member.train(0).floats.copy()
        again = member.train(0).floats.copy()
    assert not np.array_equal(first, again), "the same round of the same model, and other noise"
    with Member(tmp_path, epsilon=1000.0) as member:
        assert not np.isin(member.train(0).floats, np.concatenate([first, again])).any()
    lines = paid(tmp_path)
    assert [(line["run"], line["round"]) for line in lines] == [("run-1", 1)] * 3
    assert lines[0]["sites"] == {"world/north/a": [4 / 12, 2.0, 6], "world/north/b": [4 / 20, 2.0, 6]}


def test_no_more_than_the_plan_is_given_whoever_asks(tmp_path: Path) -> None:
    with Member(tmp_path) as member:
        for number in range(3):
            member.train(number)
        with pytest.raises(ConfigError, match=r"world/north/a: the run was to cost .* another round makes it"):
            member.train(2)
    with Member(tmp_path) as member, pytest.raises(ConfigError, match="the run was to cost"):
        member.train(0)
    assert len(paid(tmp_path)) == 3


def test_a_budget_holds_over_all_runs_from_one_folder(tmp_path: Path) -> None:
    whole = epsilon([Release(4 / 12, 2.0, 18)], 0.001)
    with Member(tmp_path, epsilon=1.2 * whole) as member:
        for number in range(3):
            member.train(number)
        with pytest.raises(ConfigError, match=r"privacy.epsilon is .*, and it would pay .* of it by runs before"):
            member.branch.prepare("run-2", None)
        for _ in range(6):
            with contextlib.suppress(ConfigError):
                member.train(2)
    lines = paid(tmp_path)
    spent = [Release(*line["sites"]["world/north/a"]) for line in lines]
    assert 3 < len(lines) < 9 and epsilon(spent, 0.001) <= 1.2 * whole < epsilon([*spent, spent[0]], 0.001)


def test_a_line_that_was_cut_off_does_not_count_and_a_spoilt_book_is_not_read_over(tmp_path: Path) -> None:
    [a, _] = costs(federation(tmp_path), {"world/north/a": 12, "world/north/b": 20}, "world/north").values()
    book = Ledger(tmp_path / FILE)
    book.pay({"world/north/a": a}, "run-1", 0)
    whole = (tmp_path / FILE).read_bytes()
    (tmp_path / FILE).write_bytes(whole + whole[:-9])
    for _ in range(2):
        assert Ledger(tmp_path / FILE).epsilon(a) == epsilon([a.release], a.delta) > 0
    assert (tmp_path / FILE).read_bytes() == whole
    (tmp_path / FILE).write_bytes(b"nonsense\n")
    with pytest.raises(LinkError, match="put it back from a copy"):
        Ledger(tmp_path / FILE)


@pytest.mark.parametrize(
    "line",
    [
        "null",
        "[1]",
        '{"run": "run-1", "sites": [1]}',
        '{"run": ["run-1"], "sites": {"world/north/a": [0.25, 2.0, 6]}}',
        '{"run": "run-1", "sites": {"world/north/a": ["0.25", 2.0, 6]}}',
        '{"run": "run-1", "sites": {"world/north/a": [NaN, 2.0, 6]}}',
        '{"run": "run-1", "sites": {"world/north/a": [0.25, Infinity, 6]}}',
        '{"run": "run-1", "sites": {"world/north/a": [0.25, 2.0, -6]}}',
        '{"run": "run-1", "sites": {"world/north/a": [0.25, 2.0, 6]}, "deltas": {"world/north/a": 1.5}}',
        '{"run": "run-1", "sites": {"world/north/a": [0.25, 2.0, 6]}, "deltas": null}',
    ],
)
def test_a_line_that_no_round_can_have_paid_is_refused_by_name(line: str, tmp_path: Path) -> None:
    sound = '{"run": "run-0", "round": 1, "sites": {"world/north/a": [0.25, 2.0, 6]}}'
    (tmp_path / FILE).write_text(f"{sound}\n")
    Ledger(tmp_path / FILE)
    (tmp_path / FILE).write_text(f"{sound}\n{line}\n")
    with pytest.raises(LinkError, match=r"privacy\.jsonl, which says .* cannot be read: .*; put it back from a copy"):
        Ledger(tmp_path / FILE)


def test_what_a_hub_asks_costs_its_own_rounds_and_the_run_those_above_too(tmp_path: Path) -> None:
    counts = {"world/north/a": 12, "world/north/b": 20}
    one, whole = (costs(federation(tmp_path), counts, top)["world/north/a"] for top in ("world/north", ""))
    assert isinstance(one, Cost) and one.release == whole.release == Release(4 / 12, 2.0, 6)
    assert whole.epsilon == epsilon([Release(4 / 12, 2.0, 18)], 0.001)


def test_the_plan_says_whose_records_are_hidden_and_how_well(tmp_path: Path) -> None:
    [north, other] = (plan_of(federation(tmp_path, epsilon=5.0), path) for path in ("world/north", "world/c"))
    said = "\n".join(north.lines())
    assert "world/north/a: noise hides single records in the change, dp_sgd (noise_multiplier=2.0" in said
    assert "epsilon at most 5, in all runs" in said and "no noise is in anything else of this" in said
    assert "world/c: no noise hides its records in any of this" in "\n".join(other.lines())
    assert "in a run no more epsilon than its rounds cost" in "\n".join(
        plan_of(federation(tmp_path), "world/north").lines()
    )
    plain = plan_of(federation(tmp_path, noise_multiplier=3.0), "world/north")
    assert plain.digest != plan_of(federation(tmp_path), "world/north").digest


def test_private_sites_beside_members_over_links_are_refused(tmp_path: Path) -> None:
    tree = hub("world", {**site("a", n=12), "privacy": NOISE}, {**site("c"), "link": LINK})
    with pytest.raises(ConfigError, match=r"members\.a\.privacy.* give it a link"):
        check_links(config_of(tmp_path, tree, "ward_tasks:Doses"))


@pytest.mark.usefixtures("several_runs")
def test_a_whole_federation_over_links_pays_where_its_records_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    north = hub("north", site("a", n=12), site("b", n=20), link=LINK, rounds=2)
    tree = hub("world", north, {**site("c", n=16), "link": LINK}, rounds=2, privacy=NOISE)
    config = config_of(tmp_path / "runs", tree, "ward_tasks:Doses", training={"batch_size": 4, "local_steps": 3})
    linked = Inside(config, tmp_path / "linked").go()
    simulated = run(config)
    assert linked["model_digest"] != simulated["model_digest"], "nobody knows whose noise it is"
    for path, count in (("world/north", 6), ("world/c", 3)):
        lines = paid(tmp_path / "linked" / path.replace("/", "__"))
        assert [line["round"] for line in lines] == [1, 2]
        assert {each[2] for line in lines for each in line["sites"].values()} == {count}
    assert linked["privacy"]["sites"]["world/c"] == simulated["privacy"]["sites"]["world/c"]
    monkeypatch.setattr("hierfl.runtime.secrecy.os.urandom", lambda size: f"seed {config.seed}".encode())
    assert Inside(config, tmp_path / "known").go()["model_digest"] == simulated["model_digest"]


@pytest.mark.usefixtures("several_runs")
def test_a_hub_between_pays_for_no_site_that_is_served_elsewhere(tmp_path: Path) -> None:
    """Else one that has to do a round anew with updates that its sites have ready would refuse it in their name."""
    below = ({**site(name, n=12), "link": LINK} for name in "ab")
    tree = hub("world", hub("north", *below, link=LINK, privacy=NOISE), "c", rounds=2)
    config = config_of(tmp_path / "runs", tree, "ward_tasks:Doses", training={"batch_size": 4, "local_steps": 3})
    Inside(config, tmp_path / "linked").go()
    books = tmp_path.glob(f"linked/*/{FILE}")
    assert sorted(book.parent.name for book in books) == ["world__north__a", "world__north__b"]


@pytest.mark.usefixtures("several_runs")
def test_a_run_for_which_nothing_is_left_ends_with_the_sites_own_words(tmp_path: Path) -> None:
    """And not with those for a member that builds another model."""
    tree = hub("world", {**site("c", n=16), "link": LINK}, rounds=2, privacy={**NOISE, "epsilon": 1.5})
    config = config_of(tmp_path / "runs", tree, "ward_tasks:Doses", training={"batch_size": 4, "local_steps": 3})
    book = tmp_path / "linked" / "world__c" / FILE
    book.parent.mkdir(parents=True)
    book.write_text(before := '{"run": "run-0", "round": 1, "sites": {"world/c": [0.25, 2.0, 6]}}\n')
    with pytest.raises(HierflError) as ended:
        Inside(config, tmp_path / "linked").go()
    said = "world/c cannot take part in the run: world/c: privacy.epsilon is 1.5, and it would pay 1.66, 1.19 of it"
    assert str(ended.value) == f"{said} by runs before"
    assert book.read_text() == before


def test_a_training_that_fails_is_paid_for_too(tmp_path: Path) -> None:
    """What is said of a refused update quotes the mechanism's output: no hub is to have that for nothing."""
    tree = hub("world", {**site("c", n=12), "link": LINK}, on_failure="continue", privacy={**NOISE, "epsilon": 50.0})
    settings = {"batch_size": 4, "local_steps": 1, "lr": 1.0}
    config = config_of(tmp_path, tree, "ward_tasks:Doses", training=settings, arithmetic={"clip": 2.0**-9})
    driver = LocalDriver(config.runtime)
    member = Branch(
        *(as_served(config, "world/c"), "world/c", driver, tmp_path / "states", lambda record: None),
        ledger=Ledger(tmp_path / FILE),
    )
    with contextlib.closing(driver):
        member.prepare("run-1", None)
        start = ModelState(np.zeros(5, np.float32), np.zeros(0, np.int64))
        for _ in range(2):
            with pytest.raises(HierflError, match="a change is over the clip"):
                member.train(Asked("world", 0, 32, "world", 0, 44), start)
    assert [line["sites"] for line in paid(tmp_path)] == [{"world/c": [4 / 12, 2.0, 1]}] * 2


def test_nothing_is_kept_of_a_training_that_is_not_paid_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Member(tmp_path) as member:
        monkeypatch.setattr(member.branch, "_save", lambda number: paid(tmp_path))
        member.train(0)


def test_a_later_run_with_a_larger_delta_makes_nothing_cheaper_that_was_paid(tmp_path: Path) -> None:
    """The YAML's delta is the hub's, and the epsilon of an institution's own terms is not to hang on it."""

    def cost(delta: float, noise: float) -> Cost:
        release = Release(0.1, noise, 20)
        return Cost("world/c", DpSgd(noise, 1.0, delta), release, 1, 15, 1000, allowed=4.0)

    def spend(book: Ledger, price: dict[str, Cost]) -> None:
        for number in range(100):
            book.check(price, price, "run-1")
            book.pay(price, "run-1", number)

    strict, loose, book = cost(1e-5, 3.0), cost(0.9, 1.0), Ledger(tmp_path / FILE)
    with pytest.raises(ConfigError, match="the terms of the institution allow an epsilon of 4, and another"):
        spend(book, {"world/c": strict})
    for again in (book, Ledger(tmp_path / FILE)):
        assert again.epsilon(loose) == again.epsilon(strict) > 3.5
        with pytest.raises(ConfigError, match=r"it would pay .* by runs before, at delta 1e-05, the least that"):
            again.check_run({"world/c": loose}, "run-2")
        with pytest.raises(ConfigError, match=r"another round makes it .*, at delta 1e-05, the least"):
            again.check({"world/c": loose}, {"world/c": loose}, "run-2")


def test_a_smaller_delta_counts_what_was_paid_before_and_old_lines_have_none(tmp_path: Path) -> None:
    [a, _] = costs(federation(tmp_path), {"world/north/a": 12, "world/north/b": 20}, "world/north").values()
    (tmp_path / FILE).write_text('{"run": "run-0", "round": 1, "sites": {"world/north/a": [0.25, 2.0, 6]}}\n')
    book, before = Ledger(tmp_path / FILE), Release(0.25, 2.0, 6)
    assert book.epsilon(a) == epsilon([before], 0.001)
    book.pay({"world/north/a": a}, "run-1", 0)
    stricter = replace(a, mechanism=replace(a.mechanism, delta=1e-6))
    for again in (book, Ledger(tmp_path / FILE)):
        assert again.epsilon(a) == epsilon([before, a.release], 0.001)
        assert again.epsilon(stricter) == epsilon([before, a.release], 1e-6)
    assert paid(tmp_path)[1]["deltas"] == {"world/north/a": 0.001}


def test_an_epsilon_without_a_delta_wants_one_below_one_over_the_records(tmp_path: Path) -> None:
    config = as_served(federation(tmp_path, delta=0.06), "world/north")
    driver, terms = LocalDriver(config.runtime), [Terms(epsilon=100.0)]
    member = Branch(
        *(config, "world/north", driver, tmp_path / "states", lambda record: None, Ledger(tmp_path / FILE)),
        terms=lambda: terms[0],
    )
    with contextlib.closing(driver):
        said = r"of world/north are not kept: epsilon: its delta of 0\.06 promises nothing to the 20 records of"
        with pytest.raises(LinkError, match=rf"{said} world/north/b; privacy\.delta has to be below 0\.05, or a delta"):
            member.prepare("run-1", None)
        terms[0] = Terms(epsilon=100.0, delta=0.1)
        member.prepare("run-1", None)
        terms[0] = Terms()
        member.prepare("run-1", None)
    assert not (tmp_path / FILE).exists()


def test_what_was_paid_for_records_and_for_patients_does_not_add_up(tmp_path: Path) -> None:
    [a, b] = costs(federation(tmp_path), {"world/north/a": 12, "world/north/b": 20}, "world/north").values()
    of_patients = {"world/north/a": replace(a, mechanism=replace(a.mechanism, unit="patient"))}
    of_records = {"world/north/a": a, "world/north/b": b}
    book = Ledger(tmp_path / FILE)
    book.pay(of_patients, "run-1", 0)
    line = json.loads((tmp_path / FILE).read_text())
    assert line["units"] == {"world/north/a": "patient"}
    for again in (book, Ledger(tmp_path / FILE)):
        again.check_run(of_patients, "run-2")
        again.check_run({"world/north/b": b}, "run-2")
        with pytest.raises(
            ConfigError, match=r"world/north/a: privacy\.unit is record, and .*privacy\.jsonl has .* unit p"
        ):
            again.check_run(of_records, "run-2")
    (tmp_path / FILE).write_text(json.dumps({**line, "units": {"world/north/a": "ward"}}) + "\n")
    with pytest.raises(LinkError, match="is nothing that a round can have paid"):
        Ledger(tmp_path / FILE)
    (tmp_path / FILE).unlink()
    book = Ledger(tmp_path / FILE)
    book.pay(of_records, "run-1", 0)
    assert "units" not in json.loads((tmp_path / FILE).read_text())
    with pytest.raises(ConfigError, match=r"go on with unit: record, or begin anew"):
        book.check_run(of_patients, "run-1")


@pytest.mark.usefixtures("several_runs")
def test_patients_are_counted_over_links_as_they_are_in_a_simulation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    north = hub("north", site("a", n=12), site("b", n=20), link=LINK, rounds=2)
    tree = hub("world", north, {**site("c", n=16), "link": LINK}, privacy={**NOISE, "unit": "patient"})
    settings = {"batch_size": 4, "local_epochs": 1}
    config = config_of(tmp_path / "runs", tree, "ward_tasks:Visits", training=settings)
    asked = foreseen(monkeypatch)
    simulated = run(config)
    monkeypatch.setattr("hierfl.runtime.secrecy.os.urandom", lambda size: f"seed {config.seed}".encode())
    linked = Inside(config, tmp_path / "linked").go()
    below, c = {"world/north/a": 2, "world/north/b": 3}, {"world/c": 2}
    assert asked[0] == below | c and below in asked[1:] and c in asked[1:], asked
    said = {path: "\n".join(plan_of(config, path).lines()) for path in ("world/c", "world/north")}
    assert "world/c: noise hides single patients in the change, dp_sgd" in said["world/c"]
    assert "the numbers of training and test samples, and of patients who are trained on" in said["world/c"]
    assert "of patients who" not in said["world/north"], "a hub tells nobody how many its sites have"
    assert linked["model_digest"] == simulated["model_digest"]
    assert linked["privacy"]["sites"]["world/c"] == simulated["privacy"]["sites"]["world/c"]
    assert simulated["privacy"]["sites"]["world/c"]["sampling_rate"] == 4 / 8
    prices = {"world/north": {"a": [4 / 6, 2.0, 2 * 2], "b": [4 / 10, 2.0, 2 * 3]}, "world/c": {"": [4 / 8, 2.0, 2]}}
    for path, sites in prices.items():
        for line in paid(tmp_path / "linked" / path.replace("/", "__")):
            assert line["sites"] == {f"{path}/{name}".rstrip("/"): price for name, price in sites.items()}
            assert {*line["units"].values()} == {"patient"}
