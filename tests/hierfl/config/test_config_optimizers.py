"""The table of optimizers against the installed torch, and what a node's options are checked against."""

import inspect
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from hierfl.config import from_mapping
from hierfl.config.optimizer import OPTION_NAMES
from hierfl.config.schema import Training
from hierfl.errors import ConfigError
from hierfl.learning.optimizers import HELD_BACK, IMPOSSIBLE, OPTIONS, is_known, takes, try_out
from hierfl.lifecycle import run

INSTALLED = {
    name.lower(): cls
    for name, cls in vars(torch.optim).items()
    if isinstance(cls, type) and issubclass(cls, torch.optim.Optimizer) and cls is not torch.optim.Optimizer
}


def tree(members: list[object], **training: object) -> dict[str, object]:
    return {"task": "synthetic", "training": training, "federation": {"name": "w", "members": members}}


def test_the_optimizers_are_torchs() -> None:
    assert list(OPTIONS) == sorted(OPTIONS)
    assert set(OPTIONS) <= set(INSTALLED)
    assert not set(OPTIONS) & set(IMPOSSIBLE)
    assert all(is_known(name) and is_known(name.upper()) for name in OPTIONS)
    assert not any(is_known(name) for name in (*IMPOSSIBLE, "adamm"))


@pytest.mark.parametrize("name", OPTIONS)
def test_the_options_are_torchs(name: str) -> None:
    arguments = set(inspect.signature(INSTALLED[name]).parameters) - set(HELD_BACK)
    newer_than_the_oldest = {"decoupled_weight_decay"}
    assert set(OPTIONS[name]) - newer_than_the_oldest <= arguments
    assert set(OPTIONS[name]) <= OPTION_NAMES


@pytest.mark.parametrize("name", OPTIONS)
def test_torchs_own_defaults_keep_the_rules_and_take_a_step(name: str) -> None:
    defaults = inspect.signature(INSTALLED[name]).parameters
    options = {option: defaults[option].default for option in OPTIONS[name] if option in defaults}
    config = from_mapping(tree([{"name": "a"}], optimizer=name, optimizer_options=options))
    assert config.sites["w/a"].training.optimizer_options == options
    try_out({"w/a": config.sites["w/a"].training})


def test_what_a_newer_torch_has_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    class Newer(torch.optim.SGD):
        def __init__(self, params, lr=0.1, momentum=0.0, wisdom=0):  # type: ignore[no-untyped-def]
            super().__init__(params, lr=lr, momentum=momentum)

    monkeypatch.setattr("hierfl.learning.optimizers._installed", lambda: {**INSTALLED, "newer": Newer})
    assert takes("newer", "wisdom") and takes("sgd", "momentum") and not takes("sgd", "wisdom")
    from_mapping(tree([{"name": "a"}], optimizer="Newer", optimizer_options={"wisdom": 3}))


def test_options_are_checked_against_the_optimizer_that_holds_there() -> None:
    options = {"optimizer_options": {"momentum": 0.5}}
    hub = {"name": "h", "training": {"optimizer": "adam"}, "members": [{"name": "a", "training": options}]}
    with pytest.raises(ConfigError) as caught:
        from_mapping(tree([hub, {"name": "b", "training": options}]))
    (problem,) = caught.value.problems
    assert problem.path == "federation.members.h.members.a.training.optimizer_options.momentum"
    hub["training"] = {"optimizer": "adamm"}
    with pytest.raises(ConfigError) as caught:
        from_mapping(tree([hub]))
    assert [problem.path for problem in caught.value.problems] == ["federation.members.h.training.optimizer"]


def test_numbers_from_the_environment_are_numbers() -> None:
    config = from_mapping(tree([{"name": "a"}], optimizer_options={"momentum": "0.5", "nesterov": "true"}))
    assert config.sites["w/a"].training.optimizer_options == {"momentum": 0.5, "nesterov": True}
    assert from_mapping(config.resolved) == config


def test_what_torch_refuses_is_told_for_every_optimizer_with_its_first_site() -> None:
    bad = Training(optimizer_options={"nesterov": True})
    worse = Training(optimizer="adam", optimizer_options={"wisdom": 3})
    with pytest.raises(ConfigError) as caught:
        try_out({"w/a": Training(), "w/b": bad, "w/c": Training(optimizer_options={"nesterov": True}), "w/d": worse})
    told = str(caught.value).splitlines()
    assert len(told) == 2
    assert told[0].startswith("w/b: training.optimizer_options of sgd: ") and "wisdom" in told[1]


def test_a_run_that_torch_refuses_leaves_no_folder(tmp_path: Path) -> None:
    config = from_mapping(tree([{"name": "a"}]) | {"output": {"dir": str(tmp_path)}, "runtime": {"kind": "local"}})
    site = replace(config.sites["w/a"], training=Training(optimizer_options={"nesterov": True}))
    with pytest.raises(ConfigError, match=r"w/a: training\.optimizer_options of sgd"):
        run(replace(config, sites={"w/a": site}))
    assert not list(tmp_path.iterdir())
