"""What every kind of fault keeps; the folder is listed."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, fields
from typing import Any

import pytest

from hierfl import fault
from hierfl.errors import ConfigError
from hierfl.kinds import load, names

KINDS = names("fault")
ALLOWED = {
    fault.PROCESS: {"kill", "hang", "delay"},
    fault.MESSAGE: {"repeat", "garble", "cut_off"},
    fault.ANSWER: {"lie"},
}
each_kind = pytest.mark.parametrize("kind", KINDS)


class Struck:
    """Notes what is done to it."""

    def __init__(self) -> None:
        self.done: list[tuple[str, tuple[Any, ...]]] = []

    def __getattr__(self, name: str) -> Any:
        return lambda *arguments: self.done.append((name, arguments))


def test_the_folder_is_not_empty() -> None:
    assert set(KINDS) >= {"corrupt", "delay", "duplicate", "hang", "kill", "lie", "partition"}


@each_kind
def test_a_kind_does_one_thing_to_what_it_strikes_and_is_never_another(kind: str) -> None:
    one, struck = load("fault", kind)(), Struck()
    assert isinstance(one, fault.FaultKind)
    one.strike(struck)
    one.strike(struck)
    [(name, arguments), again] = struck.done
    assert name in ALLOWED[one.strikes] and again == (name, arguments)
    with pytest.raises((FrozenInstanceError, AttributeError)):
        one.strikes_twice = True


@each_kind
def test_it_happens_at_steps_that_there_are(kind: str) -> None:
    one = load("fault", kind)()
    assert one.at and all(steps and set(steps) <= set(fault.STEPS[what]) for what, steps in one.at.items())
    if one.strikes != fault.PROCESS:
        assert set(one.at) == {"hub"}, "only hubs are handed updates, and answer"


@each_kind
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1.0])
def test_a_time_that_is_none_is_refused(kind: str, value: float) -> None:
    cls = load("fault", kind)
    if "after_s" in {field.name for field in fields(cls)}:
        with pytest.raises(ConfigError, match="after_s is"):
            cls(after_s=value)
