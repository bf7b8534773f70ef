"""An institution's own terms bound what it takes part in, whatever the federation's YAML says."""

from __future__ import annotations

import shutil
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import yaml
from link_fuzz import Member, questions
from link_inside import Inside, several_runs  # noqa: F401
from link_members import Pki
from small_runs import Listener, config_of, hub, site
from typer.testing import CliRunner

from hierfl.cli import app
from hierfl.config.terms import SCORES, Terms
from hierfl.errors import ConfigError, HierflError, LinkError
from hierfl.link import asks
from hierfl.link._wire import link_pb2 as wire
from hierfl.link.approval import plan_of
from hierfl.link.kit import Kit
from hierfl.link.ledger import FILE
from hierfl.link.served import sites_here
from hierfl.link.terms import heeded, read_terms, terms_lines
from hierfl.monitor.records import RoundClosed

LINK = {"address": "hub.example.org:8443"}
NOISE: dict[str, Any] = {"kind": "dp_sgd", "noise_multiplier": 2.0, "max_grad_norm": 1.0, "delta": 0.001}
DAY = date(2027, 6, 30)


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return Pki(tmp_path_factory.mktemp("pki"))


@pytest.fixture
def kit(pki: Pki, tmp_path: Path) -> Kit:
    shutil.copytree(pki.kit("world/us").folder, tmp_path / "kit")
    return Kit.open(tmp_path / "kit")


def federation(folder: Path, *, task: str = "ward_tasks:Wards", **root: Any) -> Any:
    members = [hub("us", "a", site("b"), link=LINK), *({**site(name), "link": LINK} for name in "cdef")]
    return config_of(folder, hub("world", *members, rounds=20, **root), task, name="heart")


def breaches(config: Any, kit: Kit, today: date = DAY, **terms: Any) -> str:
    kit.terms.write_text(yaml.safe_dump(terms))
    try:
        assert heeded(config, kit, plan_of(config, kit.path), lambda: today)() == read_terms(kit.terms)
    except LinkError as error:
        return str(error).removeprefix(f"the terms of {kit.path} are not kept: ")
    return ""


def lines(config: Any, kit: Kit) -> list[str]:
    return list(terms_lines(config, kit, plan_of(config, kit.path)))


def test_without_a_file_nothing_is_bounded(tmp_path: Path, kit: Kit) -> None:
    config = federation(tmp_path)
    assert heeded(config, kit, plan_of(config, kit.path))() == Terms()
    assert lines(config, kit) == [f"own terms      none ({kit.terms})"]
    kit.terms.write_text("rounds: 20\ntasks: [ward_tasks:Wards]\n")
    assert lines(config, kit) == [f"own terms      tasks ward_tasks:Wards; rounds 20 ({kit.terms})"]
    kit.terms.write_text("rounds: 2\ntasks: [digits]\n")
    assert [line[:22] for line in lines(config, kit)[1:]] == ["not kept       tasks: ", f"{'':<15}rounds:"]


@pytest.mark.parametrize(
    ("kept", "broken", "said"),
    [
        ({"tasks": ["ward_tasks:Wards"]}, {"tasks": ["digits", "parquet"]}, "and not digits, parquet"),
        ({"rounds": 20}, {"rounds": 19}, "the federation has 20, and at most 19 are agreed to"),
        ({"until": "2027-06-30"}, {"until": "2027-06-29"}, "after 2027-06-29, and it is 2027-06-30"),
        ({"scores": "histogram"}, {"scores": "none"}, "evaluation.auc is histogram, which tells more"),
        ({}, {"members": 3}, "world may see each update by itself, and 3 are to be in each"),
        ({}, {"epsilon": 8}, "no noise hides the records of world/us/a"),
        ({}, {"unit": "patient"}, "no noise hides the records of world/us/a"),
        ({}, {"code": ["0" * 64]}, "which is not among those here"),
    ],
)
def test_each_term_is_held_against_the_federation(
    tmp_path: Path, kit: Kit, kept: dict[str, Any], broken: dict[str, Any], said: str
) -> None:
    config = federation(tmp_path)
    assert not breaches(config, kit, **kept)
    found = breaches(config, kit, **broken)
    assert found.startswith(f"{next(iter(broken))}: ") and said in found


@pytest.mark.parametrize(
    ("auc", "told"),
    [
        ("none", "and no scores and no calibration curve"),
        ("histogram", "in each of 2048 bins, so each score to its bin, and the calibration curve"),
        (
            "exact",
            "by label where a sample has several, every distinct score, with how many samples of it, and of others",
        ),
    ],
)
def test_the_plan_and_the_terms_tell_what_is_told_of_scores(tmp_path: Path, kit: Kit, auc: str, told: str) -> None:
    config = federation(tmp_path)
    config = replace(config, evaluation=replace(config.evaluation, auc=auc))
    [line] = [one for one in plan_of(config, kit.path).leaves if one.startswith("after each round, of at most")]
    assert told in line and "(with few samples nearly those of each)" in line
    for at_most in SCORES:
        assert bool(breaches(config, kit, scores=at_most)) == (SCORES.index(auc) > SCORES.index(at_most))


def test_all_that_is_not_kept_is_told_at_once(tmp_path: Path, kit: Kit) -> None:
    found = breaches(federation(tmp_path), kit, rounds=1, until="2027-01-01", epsilon=2)
    assert all(words in found for words in ("rounds: ", "until: ", "of world/us/a", "of world/us/b"))
    assert len(found.splitlines()) == 1, "a hub is told one line"


def test_code_and_noise_that_are_there_keep_their_terms(tmp_path: Path, kit: Kit) -> None:
    config = federation(tmp_path, privacy=NOISE)
    assert not breaches(config, kit, epsilon=3.0, code=[plan_of(config, kit.path).task])
    assert lines(config, kit)[0].endswith(f"; epsilon 3.0; delta below one over a site's records ({kit.terms})")
    by_patient = federation(tmp_path, privacy={**NOISE, "unit": "patient"}, task="ward_tasks:Visits")
    assert "; delta below one over a site's patients (" in lines(by_patient, kit)[0]
    assert not breaches(config, kit, epsilon=3.0, delta=0.001)
    assert lines(config, kit)[0] == f"own terms      epsilon 3.0; delta 0.001 ({kit.terms})"
    assert not breaches(config, kit, unit="record")
    assert "noise hides each record of world/us/a, and each patient is to be hidden" in breaches(
        config, kit, unit="patient"
    )
    found = breaches(config, kit, epsilon=3.0, delta=0.0001)
    assert found.startswith("delta: world/us/a has 0.001, and at most 0.0001 is agreed to") and "world/us/b" in found
    assert "delta: no noise hides the records of world/us/a" in breaches(federation(tmp_path), kit, delta=0.001)


def test_sums_hide_as_many_as_masks_and_quorum_say(tmp_path: Path, kit: Kit) -> None:
    masked = federation(tmp_path, secure_aggregation="masks")
    assert breaches(masked, kit, members=5) == ""
    assert "sums of 5 members, and 6 are to be" in breaches(masked, kit, members=6)
    fewer = federation(tmp_path, secure_aggregation="masks", on_failure="continue", quorum=0.6)
    assert breaches(fewer, kit, members=3) == ""
    assert "sums of 3 members, and 4 are to be" in breaches(fewer, kit, members=4)


def test_terms_are_of_the_records_that_are_here(tmp_path: Path, kit: Kit) -> None:
    north = hub("us", "a", {**site("b"), "link": LINK}, hub("deep", "x", link=LINK), link=LINK)
    config = config_of(tmp_path, hub("world", north), name="heart")
    assert sites_here(config, "world/us") == ["world/us/a"]
    said = breaches(config, kit, epsilon=2)
    assert "world/us/a" in said and "world/us/b" not in said and "world/us/deep" not in said


def test_every_mistake_in_the_file_is_told_with_its_way_out(tmp_path: Path) -> None:
    file = tmp_path / "terms.yaml"
    file.write_text(
        "round: 3\nuntil: 30.6.2027\nmembers: 2\nepsilon: -1\ndelta: 1\nscores: all\ncode: [abc]\ntasks: []\n"
    )
    with pytest.raises(ConfigError) as wrong:
        read_terms(file)
    said = str(wrong.value)
    assert len(wrong.value.problems) == 8 and said.count(str(file)) == 8
    for words in ("round: unknown key (did you mean 'rounds'?", "a day, as 2027-06-30", "at least 3", "64 hexadecimal"):
        assert words in said, said
    file.write_text("- rounds")
    with pytest.raises(ConfigError, match="must be a mapping"):
        read_terms(file)


def test_nobody_is_asked_to_agree_to_what_is_against_the_terms(pki: Pki, kit: Kit, tmp_path: Path) -> None:
    us = {"name": "us", "link": {"address": "localhost:1"}, "members": [{"name": "cleveland"}]}
    said = {"name": "heart", "task": {"kind": "heart_disease"}}
    said["federation"] = {"name": "world", "members": [us, {"name": "budapest"}]}  # type: ignore[assignment]
    file = tmp_path / "heart.yaml"
    file.write_text(yaml.safe_dump({**said, "output": {"dir": str(tmp_path / "runs")}}))
    kit.terms.write_text("members: 3\n")
    ended = CliRunner().invoke(app, ["join", str(file), "--kit", str(kit.folder)])
    assert ended.exit_code == 1 and "the terms of world/us are not kept: members: world may see" in ended.stderr
    assert "own terms      members 3" in ended.stdout and "not kept       members: world may" in ended.stdout
    assert "not approved" not in ended.stderr
    kit.terms.write_text("members: three\n")
    ended = CliRunner().invoke(app, ["join", str(file), "--kit", str(kit.folder)])
    assert ended.exit_code == 2 and "terms.yaml: members: must be a whole number, not 'three'" in ended.stderr


@pytest.mark.usefixtures("several_runs")
def test_a_term_that_ends_in_the_midst_of_a_run_is_heeded_with_the_next_question(tmp_path: Path, kit: Kit) -> None:
    """The others go on without the member, whose institution says why."""
    config = federation(tmp_path / "runs", on_failure="continue", quorum=0.5)
    config = replace(config, federation=replace(config.federation, root=replace(config.federation.root, rounds=4)))
    linked, monitor, days = Inside(config, tmp_path / "linked"), Listener(), [DAY]
    kit.terms.write_text("until: 2027-06-30\n")
    linked.terms["world/us"] = heeded(config, kit, plan_of(config, "world/us"), lambda: days[0])

    class Calendar:
        def on(self, record: Any) -> None:
            if isinstance(record, RoundClosed) and record.node == "world" and record.round_number == 2:
                days[0] = date(2027, 7, 1)

        def close(self) -> None:
            pass

    linked.go(monitor, Calendar())
    closed = {record.round_number: record for record in monitor.of(RoundClosed) if record.node == "world"}
    assert [("us" in closed[number].members) for number in (1, 2, 3, 4)] == [True, True, False, False]
    assert (
        "until: nothing is trained or measured here after 2027-06-30, and it is 2027-07-01" in closed[3].missing["us"]
    )


def test_whatever_a_hub_asks_is_held_against_the_terms_first(tmp_path: Path) -> None:
    """What was answered before, too, by this process or by an earlier one; once they are kept again it is there."""
    member, asked = Member(tmp_path), {name: said.ask for name, said in questions().items()}
    asked["place"] = wire.Ask(id=7, place=wire.Place(hub="world"))
    assert asked.keys() == asks.ANSWERS.keys()

    def answer(name: str) -> Any:
        assert member.hear(wire.HubSays(ask=asked[name]).SerializeToString()) == "taken"
        return getattr(member.last, asks.ANSWERS[name])

    before = answer("train")
    assert before.HasField("update") and not answer("prepare").difference
    member.refusal = "the terms of world/us are not kept: until: it is over"
    for number in range(2):
        for name in asked:
            said = answer(name)
            assert (said.difference if name == "prepare" else said.error) == member.refusal
            assert len(said.ListFields()) == 1, "and nothing else is told"
        if not number:
            member.close()
            member.restart()
    member.refusal = ""
    again = answer("train")
    assert again.SerializeToString() == before.SerializeToString(), (
        "its loss is NaN, which older protobufs find unequal"
    )
    assert not answer("prepare").difference and answer("describe").num_train == 9
    member.close()


@pytest.mark.usefixtures("several_runs")
def test_a_site_pays_no_more_than_its_own_terms_allow(tmp_path: Path) -> None:
    pytest.importorskip("dp_accounting")
    tree = hub("world", {**site("c", n=16), "link": LINK}, rounds=3, privacy={**NOISE, "epsilon": 50.0})
    config = config_of(tmp_path / "runs", tree, "ward_tasks:Doses", training={"batch_size": 4, "local_steps": 3})
    linked = Inside(config, tmp_path / "linked")
    linked.terms["world/c"] = lambda: Terms(epsilon=0.5)
    with pytest.raises(HierflError, match=r"world/c: the terms of the institution allow an epsilon of 0\.5, and it"):
        linked.go()
    assert not list(tmp_path.glob(f"linked/world__c/{FILE}"))
