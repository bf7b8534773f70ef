"""What is checked of a task before anything starts: its own fields, its sites, and what its `data` takes."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import pytest

from hierfl.config import from_mapping
from hierfl.errors import ConfigError, Problem
from hierfl.learning.task import Check
from hierfl.tree import survey


@dataclass(frozen=True)
class Wards:
    """A task of one's own; its sites depend on a field."""

    num_wards: int = 2
    hidden: int = 8

    def __post_init__(self) -> None:
        if self.hidden < 1:
            raise ValueError(f"hidden is {self.hidden}; at least 1")
        if self.num_wards < 1:
            raise ValueError(f"num_wards is {self.num_wards}; at least 1")

    def sites(self) -> list[str]:
        return self._all()

    def _all(self) -> list[str]:
        return [f"ward-{i}" for i in range(self.num_wards)]

    def model(self) -> Any: ...
    def data(self, site: str, file: str, patients: int = 3, *, ages: "list[float] | None" = None) -> Any: ...
    def loss(self, model: Any, batch: Any) -> Any: ...
    def predict(self, model: Any, batch: Any) -> Any: ...


@dataclass(frozen=True)
class Open(Wards):
    """Its `data` takes anything."""

    def data(self, site: str, **source: Any) -> Any: ...  # type: ignore[override]


@dataclass(frozen=True)
class Roomless(Wards):
    """Its `data` has no room for the site."""

    def data(self) -> Any: ...  # type: ignore[override]


@dataclass(frozen=True)
class Scaled(Open):
    """Names a way of scaling."""

    standardise: str = "none"


@dataclass(frozen=True)
class Doubly(Open):
    """Has a field that is called as the class itself is in the YAML."""

    kind: str = "synthetic"


@dataclass(frozen=True)
class Net:
    """A record of numbers within a task."""

    width: int = 8


@dataclass(frozen=True)
class Nested(Open):
    """Holds records."""

    net: Net = Net()
    more: tuple[Net, ...] = ()


@dataclass(frozen=True)
class Named(Open):
    """Has fields that are called as methods are that a task may have."""

    sites: str = "all"  # type: ignore[assignment]
    num_samples: int = 5
    metrics: str = "auc"
    collate: bool = True
    sample_weights: bool = False


@dataclass(frozen=True)
class Keyed(Wards):
    """Its `data` asks for what every site has by its name."""

    def data(self, site: str, key: str) -> Any: ...  # type: ignore[override]


class Fieldless:
    """No dataclass."""


def given(task: object, *members: object, **more: object) -> dict[str, Any]:
    return {"task": task, "federation": {"name": "w", "members": list(members)}, **more}


def mistakes(*configuration: Any, **more: object) -> dict[str, str]:
    with pytest.raises(ConfigError) as caught:
        from_mapping(given(*configuration, **more))
    return {problem.path: problem.message for problem in caught.value.problems}


def own(cls: type, **fields: object) -> dict[str, object]:
    return {"kind": f"{__name__}:{cls.__name__}", **fields}


FILE = {"file": "x.csv"}


def test_an_unknown_key_hides_no_other_mistake() -> None:
    found = mistakes({"kind": "heart_disease", "network": "mpl", "hiden": 3}, {"name": "clevland"})
    assert set(found) == {"task.network", "task.hiden", "federation.members.clevland.name"}
    assert "did you mean 'mlp'" in found["task.network"]
    assert "did you mean 'cleveland'" in found["federation.members.clevland.name"]


def test_all_the_fields_that_a_class_refuses_one_by_one_are_told() -> None:
    task = own(Wards, hidden=0, num_wards=-1)
    assert set(mistakes(task, {"name": "ward-0", "data": FILE})) == {"task.hidden", "task.num_wards"}
    buffered = {"kind": "buffered", "goal": 0, "staleness": 0, "discount": "sqr"}
    tree = {"name": "w", "members": [{"name": "a"}], "participation": buffered}
    with pytest.raises(ConfigError) as caught:
        from_mapping({"task": "synthetic", "federation": tree})
    told = {problem.path.rpartition(".")[2]: problem.message for problem in caught.value.problems}
    assert set(told) == {"goal", "staleness", "discount"}
    assert "did you mean 'sqrt'" in told["discount"]


def test_a_misspelt_field_is_read_as_what_it_was_meant_to_be() -> None:
    found = mistakes({"kind": "synthetic", "num_sampels_min": 5, "num_samples_max": 10}, {"name": "a"})
    assert set(found) == {"task.num_sampels_min"}


def test_sites_that_hang_on_a_wrong_field_are_not_judged() -> None:
    site = {"name": "ward-5", "data": FILE}
    assert "ward-5" in mistakes(own(Wards, hidden="x"), site)["federation.members.ward-5.name"]
    assert set(mistakes(own(Wards, num_wards="many"), site)) == {"task.num_wards"}
    assert set(mistakes(own(Wards, num_wards=-1), site)) == {"task.num_wards"}
    assert set(mistakes(own(Wards, num_ward=9), site)) == {"task.num_ward"}


@pytest.mark.parametrize(
    ("data", "key", "words"),
    [
        ({**FILE, "patents": 3}, "patents", "did you mean 'patients'? allowed: file, patients, ages, key)"),
        ({**FILE, "patients": "many"}, "patients", "whole number, not 'many'"),
        ({**FILE, "ages": [1, "old"]}, "ages[1]", "must be a number"),
        ({**FILE, "site": "x"}, "site", "data: {key: ...} gives another"),
        ({"patients": 3}, "file", "is missing: Wards.data needs it"),
        (None, "file", "is missing: Wards.data needs it"),
    ],
)
def test_what_a_task_of_ones_own_does_not_take(data: Any, key: str, words: str) -> None:
    found = mistakes(own(Wards), {"name": "ward-0", "data": data})
    assert words in found.pop(f"federation.members.ward-0.data.{key}")
    assert not found


def test_the_shipped_tasks_say_what_they_take() -> None:
    parquet = {"kind": "parquet", "features": ["a"], "label": "b"}
    found = mistakes(parquet, {"name": "a", "data": {"pth": "x"}}, {"name": "b"})
    assert "did you mean 'path'" in found.pop("federation.members.a.data.pth")
    assert set(found) == {f"federation.members.{name}.data.path" for name in "ab"}
    found = mistakes("heart_disease", {"name": "cleveland", "data": {"foo": 1}})
    assert found == {"federation.members.cleveland.data.foo": "unknown key (allowed: key)"}
    hub = {"name": "h", "data": {"foo": 1}, "members": [{"name": "cleveland"}]}
    assert mistakes("heart_disease", hub) == {"federation.members.h.data.foo": "unknown key; the task takes none"}


def odd(value: int) -> str:
    return "" if value % 2 else f"is {value}; needed: an odd number"


@dataclass(frozen=True)
class Checked(Wards):
    """A value that has to be something beside its type."""

    def data(self, site: str, patients: Annotated[int, "of a ward", Check(odd)] = 1) -> Any:  # type: ignore[override]
        return patients


def test_what_a_value_has_to_be_beside_its_type_is_told_before_anything_starts() -> None:
    sound = from_mapping(given(own(Checked), {"name": "ward-0", "data": {"patients": "3"}}))
    assert sound.sites["w/ward-0"].source == {"patients": 3}
    found = mistakes(own(Checked), {"name": "ward-0", "data": {"patients": 4}})
    assert found == {"federation.members.ward-0.data.patients": "is 4; needed: an odd number"}
    parquet = {"kind": "parquet", "features": ["a"], "label": "b"}
    found = mistakes(parquet, {"name": "a", "data": {"path": "x", "encoding": "utf9", "delimiter": "x"}})
    assert "is 'utf9', which is none (did you mean 'utf-8'?" in found.pop("federation.members.a.data.encoding")
    assert list(found) == ["federation.members.a.data.delimiter"]


def test_a_template_is_told_once_and_many_sites_are_counted() -> None:
    template = {"count": 50, "name": "ward-{i}", "data": {"fil": "{name}.csv"}}
    with pytest.raises(ConfigError) as caught:
        from_mapping(given(own(Wards, num_wards=50), template))
    told = [problem.path for problem in caught.value.problems]
    assert sorted(told) == ["federation.members[0].data.fil", "federation.members[0].data.file"]
    found = mistakes(own(Wards, num_wards=50), *({"name": f"ward-{i}"} for i in range(50)))
    assert len(found) == 21 and "30 more sites" in found["federation"]


def test_what_is_taken_comes_converted_and_inherited() -> None:
    template = {"count": 2, "name": "ward-{i}", "data": {"patients": "{i}"}}
    hub = {"name": "h", "data": {"file": 7, "ages": [1]}, "members": template}
    config = from_mapping(given(own(Wards), hub))
    assert config.sites["w/h/ward-1"].source == {"file": "7", "ages": [1.0], "patients": 1}
    assert from_mapping(config.resolved) == config


@dataclass(frozen=True)
class Leaves(Wards):
    """It ends the program where it is made."""

    def __post_init__(self) -> None:
        raise SystemExit("no licence")


@dataclass(frozen=True)
class Counts(Wards):
    """Its `sites` gives a number in place of names."""

    def sites(self) -> Any:
        return self.num_wards


def test_what_a_task_of_ones_own_raises_is_a_mistake_at_its_place() -> None:
    site = {"name": "ward-0", "data": FILE}
    assert mistakes(own(Leaves), site) == {"task": "SystemExit: no licence"}
    assert "cannot list its sites: TypeError" in mistakes(own(Counts), site)["task"]


@dataclass(frozen=True)
class Contrary(Wards):
    """It complains of two things that are no field."""

    def __post_init__(self) -> None:
        raise ConfigError([Problem("", "this is wrong"), Problem("", "and this")])


def test_all_that_a_class_says_of_itself_is_told() -> None:
    with pytest.raises(ConfigError) as caught:
        from_mapping(given(own(Contrary), {"name": "ward-0", "data": FILE}))
    assert [(problem.path, problem.message) for problem in caught.value.problems] == [
        ("task", "this is wrong"),
        ("task", "and this"),
    ]


def test_a_module_that_ends_the_program_is_a_mistake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "leaving.py").write_text("raise SystemExit(3)")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert "importing leaving failed: SystemExit: 3" in mistakes("leaving:Task", {"name": "a"})["task.kind"]


def test_a_task_may_take_anything_but_must_take_the_site() -> None:
    assert from_mapping(given(own(Open), {"name": "ward-0", "data": {"x": 1}})).sites["w/ward-0"].source == {"x": 1}
    found = mistakes(own(Roomless), {"name": "ward-0"})
    assert list(found) == ["task.kind"] and "def data(self, site, ...)" in found["task.kind"]


def test_a_way_of_scaling_that_is_none_is_told_of_a_task_of_ones_own_too() -> None:
    assert from_mapping(given(own(Scaled, standardise="federated"), {"name": "ward-0"})).task.standardise == "federated"
    said = mistakes(own(Scaled, standardise="federatd"), {"name": "ward-0"})
    assert said == {
        "task.standardise": "is 'federatd' (did you mean 'federated'? allowed: none, site, federated)",
    }
    assert set(mistakes({"kind": "heart_disease", "standardise": "federatd"}, {"name": "cleveland"})) == {
        "task.standardise"
    }


def test_a_field_that_is_called_kind_would_stand_for_the_class_and_is_refused() -> None:
    for task in (own(Doubly), Doubly(), Doubly):
        [(place, said)] = mistakes(task, {"name": "a"}).items()
        assert place == "task.kind" and "Doubly has a field 'kind'" in said and "another name" in said


def test_records_within_a_task_are_no_kinds() -> None:
    task = Nested(net=Net(3), more=(Net(4), Net(5)))
    config = from_mapping(given(task, {"name": "ward-0"}))
    assert config.task == task
    assert config.resolved["task"] == own(Nested, net={"width": 3}, more=[{"width": 4}, {"width": 5}]) | {
        "num_wards": 2,
        "hidden": 8,
    }
    assert from_mapping(config.resolved).task == task


def test_fields_that_are_called_as_methods_are_none() -> None:
    config = from_mapping(
        given(own(Named), {"name": "anybody"}, stopping={"metric": "mae", "mode": "min", "patience": 3})
    )
    node = survey(config)["w/anybody"]
    assert (node.num_train, node.note) == (None, None)


def test_the_sites_own_key_is_no_argument() -> None:
    said = mistakes(own(Keyed), {"name": "ward-0", "data": {"key": "ward-1"}})
    assert list(said) == ["task.kind"] and said["task.kind"].startswith("Keyed.data takes 'key': in the YAML")


def test_an_instance_of_no_dataclass_is_told() -> None:
    [(place, said)] = mistakes(Fieldless(), {"name": "a"}).items()
    assert place == "task" and said.startswith("is an instance of Fieldless, which is no dataclass: ")
