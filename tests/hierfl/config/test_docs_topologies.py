"""The own topology and the own participation policy of docs/topologies.md, as they stand there."""

from __future__ import annotations

import json
import re
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
import yaml
from small_runs import hub

import hierfl

PAGE = (Path(__file__).parents[3] / "docs" / "topologies.md").read_text(encoding="utf-8")


def block(section: str, language: str) -> str:
    text = PAGE.partition(f"## {section}\n")[2].partition("\n## ")[0]
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)[0]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    (tmp_path / "my_topology.py").write_text(block("A topology of your own", "python"), encoding="utf-8")
    (tmp_path / "my_policy.py").write_text(block("A participation policy of your own", "python"), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    yield
    for name in ("my_topology", "my_policy"):
        sys.modules.pop(name, None)


def config(rounds: int, **settings: Any) -> dict[str, Any]:
    return {
        "task": {"kind": "ward_tasks:Wards"},
        "training": {"lr": 0.1, "batch_size": 4},
        "federation": hub("world", *"abcd", rounds=rounds, **settings),
        "runtime": {"kind": "local", "num_workers": 1},
        "output": {"tensorboard": False},
    }


def trained(result: hierfl.Result) -> dict[int, list[str]]:
    """Who trained in each round, from 1, in the order in which they ended."""
    found: dict[int, list[str]] = defaultdict(list)
    for line in (result.run_dir / "events.jsonl").read_text().splitlines():
        event = json.loads(line)
        if event["event"] == "site_trained":
            found[event["round_number"]].append(event["node"].removeprefix("world/"))
    return dict(found)


def test_the_second_half_begins_from_what_the_first_one_left() -> None:
    own = yaml.safe_load(block("A topology of your own", "yaml"))
    whole = hierfl.run(config(2, **own))
    assert {number: (set(names[:1]), set(names[1:])) for number, names in trained(whole).items()} == {
        number: ({"a"}, {"b", "c", "d"}) for number in (1, 2)
    }
    cycle, star = (hierfl.run(config(2, topology=kind)).digest for kind in ("cyclic", "star"))
    assert len({whole.digest, cycle, star}) == 3
    in_pairs = config(1, topology={**own["topology"], "first": 0.5})
    in_pairs["federation"]["members"] = in_pairs["federation"]["members"][:2]
    turns = config(1, topology="cyclic")
    turns["federation"]["members"] = turns["federation"]["members"][:2]
    assert hierfl.run(in_pairs).digest == hierfl.run(turns).digest  # halves of one member each take turns
    with pytest.raises(hierfl.ConfigError, match="two halves need two members"):
        hierfl.validate({**turns, "federation": hub("world", "a", **own)})


def test_members_take_part_in_shifts_and_a_resumed_run_keeps_them() -> None:
    own = yaml.safe_load(block("A participation policy of your own", "yaml"))
    whole = hierfl.run(config(4, **own))
    shifts = {number: sorted(names) for number, names in trained(whole).items()}
    assert shifts == {1: ["a", "d"], 2: ["b"], 3: ["c"], 4: ["a", "d"]}
    assert hierfl.resume(hierfl.run(config(2, **own)), ["federation.rounds=4"]).digest == whole.digest
