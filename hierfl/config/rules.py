"""What a key's value must be beyond its type: one table, read by the checker and by the documentation."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any

from hierfl.config.keys import HubKeys, SiteKeys, TemplateKeys, TopKeys
from hierfl.config.schema import (
    Arithmetic,
    DeviceGroup,
    Evaluation,
    LinkSettings,
    Output,
    Redundancy,
    Replication,
    Runtime,
    Stopping,
    Training,
)
from hierfl.config.terms import Terms
from hierfl.config.values import shown
from hierfl.fault import Where
from hierfl.kinds import nearest
from hierfl.learning.optimizers import IMPOSSIBLE, OPTIONS, is_known
from hierfl.learning.own_metrics import BUILT_IN, is_own_name
from hierfl.learning.score_bins import MOST_BINS

__all__ = ["FEWEST", "MOST_NODES", "MOST_WEIGHT", "RULES", "Rule", "broken"]


MOST_NODES = 1_000_000
"""Nodes of a tree at most: a slip in a template's count ends with a message, not with the machine's memory."""

MOST_WEIGHT = 8_000_000_000
"""What weights of one hub's members may add up to, in a round's sum: in parts of 2^-20 that must stay below 2^53."""

FEWEST = 3
"""Members of a masked sum: of two, each one knows the other's update by the sum and its own."""

MOST_NAME_BYTES = 200
"""Bytes of a name at most: files are called after it, with a date and an ending, and have 255."""


@dataclass(frozen=True, slots=True)
class Rule:
    """`text` completes "must be ..."; `test` says whether a value (never null) keeps the rule.

    `words`: what is allowed; `reasons`: why some words are not that one may well think of.
    """

    text: str
    test: Callable[[Any], bool]
    words: Sequence[str] = ()
    reasons: Mapping[str, str] = field(default_factory=dict)


def broken(cls: type, key: str, value: Any) -> str | None:
    """Say how a converted value breaks its rule; None where it keeps it."""
    rule = RULES.get(cls, {}).get(key)
    if rule is None or value is None or rule.test(value):
        return None
    if rule.words:
        why = rule.reasons.get(str(value).lower())
        return f"is {shown(value)}{f', which {why}' if why else ''}{nearest('' if why else str(value), rule.words)}"
    return f"must be {rule.text}, not {shown(value)}"


def _is_digest(value: str) -> bool:
    return re.fullmatch("[0-9a-f]{64}", value) is not None


def _is_day(value: str) -> bool:
    try:
        return date.fromisoformat(value).isoformat() == value
    except ValueError:
        return False


def _at_least(low: int) -> Rule:
    return Rule(f"at least {low}", lambda value: math.isfinite(value) and value >= low)


def _from_to(low: int, high: int) -> Rule:
    return Rule(f"from {low} to {high:,}", lambda value: low <= value <= high)


def _above(low: float) -> Rule:
    return Rule(f"a number above {low:g}", lambda value: math.isfinite(value) and value > low)


def _one_of(*words: str) -> Rule:
    return Rule("one of " + ", ".join(words), lambda value: value in words, words)


def _share(value: float) -> bool:
    return math.isfinite(value) and value >= 0 and (value <= 1 or value == int(value))


def _power_of_two(value: float) -> bool:
    return math.isfinite(value) and value > 0 and math.frexp(value)[0] == 0.5


def _is_name(value: str) -> bool:
    """Tell whether files, logs and terminals can hold it: no control characters, no broken Unicode, no line breaks."""
    is_text = not any(unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") for character in value)
    fits = is_text and len(value.encode()) <= MOST_NAME_BYTES
    return fits and bool(value.strip()) and "/" not in value and value not in (".", "..")


def _is_address(value: str) -> bool:
    found = re.fullmatch(r"(\[[^\]\s/]+\]|[^\s/:]+):(\d{1,5})", value)
    return found is not None and 0 < int(found[2]) < 65536


_NAME = Rule(
    f"a name of 1 to {MOST_NAME_BYTES} bytes that holds no '/' and no line break or other control character", _is_name
)
_FINITE = Rule("a finite number", math.isfinite)
_WEIGHT = Rule(f"a number from 0.000001 to {MOST_WEIGHT:,}", lambda value: 1e-6 <= value <= MOST_WEIGHT)
_ADDRESS = Rule(
    "auto, host:port or ray://host:port",
    lambda value: re.fullmatch(r"auto|(ray://)?(\[[^\]\s/]+\]|[^\s/:]+):\d{1,5}", value) is not None,
)

_REPLICATION = {
    "replicas": _from_to(1, 15),
    "mode": _one_of("crash", "vote"),
    "lease_s": _above(0),
}

RULES: dict[type, dict[str, Rule]] = {
    TopKeys: {"name": _NAME, "seed": _at_least(0), "baseline": _one_of("local", "pooled")},
    SiteKeys: {
        "name": _NAME,
        "weight": _WEIGHT,
        "split": _from_to(1, 1000),
        "role": _one_of("training", "evaluation", "statistics"),
        "site_timeout_s": _above(0),
        "joins_at": _at_least(1),
        "leaves_at": _at_least(2),
    },
    HubKeys: {
        "name": _NAME,
        "rounds": _at_least(1),
        "on_failure": _one_of("stop", "continue"),
        "quorum": Rule("a fraction above 0, at most 1", lambda value: 0 < value <= 1),
        "secure_aggregation": _one_of("none", "masks"),
        "weight": _WEIGHT,
        "site_timeout_s": _above(0),
        "joins_at": _at_least(1),
        "leaves_at": _at_least(2),
    },
    TemplateKeys: {"count": _from_to(1, MOST_NODES), "start": _at_least(0)},
    Training: {
        "optimizer": Rule("a class of torch.optim", is_known, tuple(OPTIONS), IMPOSSIBLE),
        "lr": _above(0),
        "batch_size": _at_least(1),
        "local_steps": _at_least(1),
        "local_epochs": _at_least(1),
        "clip_norm": _above(0),
        "loader_workers": _from_to(0, 64),
        "precision": _one_of("float32", "bfloat16", "float16"),
    },
    Evaluation: {
        "every": _at_least(0),
        "auc": _one_of("histogram", "exact", "none"),
        "bins": _from_to(2, MOST_BINS),
        "batch_size": _at_least(1),
        "intervals": Rule("a confidence level, as 0.95", lambda value: 0 < value < 1),
    },
    Stopping: {
        "metric": Rule(
            f"one of {', '.join(BUILT_IN)}, or a metric of the task's own",
            lambda value: value in BUILT_IN or is_own_name(value),
            tuple(BUILT_IN),
        ),
        "mode": _one_of("min", "max"),
        "target": _FINITE,
        "patience": _at_least(1),
        "min_delta": _at_least(0),
    },
    Arithmetic: {
        "width": Rule("32 or 64", lambda value: value in (32, 64)),
        "clip": Rule("a power of two above 0 (... 4, 8, 16 ...)", _power_of_two),
    },
    DeviceGroup: {
        "name": _NAME,
        "count": _from_to(1, 10_000),
        "kind": Rule("a name that is not empty", lambda value: bool(value.strip())),
        "memory_gib": _above(0),
        "places": _at_least(1),
        "cpus": _at_least(0),
        "gpus": Rule("a fraction of one GPU, or a whole number of them", _share),
        "resources": Rule(
            "amounts above 0", lambda value: all(math.isfinite(amount) and amount > 0 for amount in value.values())
        ),
    },
    Runtime: {
        "kind": _one_of("local", "ray"),
        "address": _ADDRESS,
        "num_workers": _from_to(1, 10_000),
        "cpus_per_worker": _at_least(0),
        "gpus_per_worker": Rule("a fraction of one GPU, or a whole number of them", _share),
        "resources_per_worker": Rule(
            "amounts above 0", lambda value: all(math.isfinite(amount) and amount > 0 for amount in value.values())
        ),
        "site_timeout_s": _above(0),
        "device_timeout_s": _above(0),
        "estimates": Rule("a file's name", lambda value: bool(value.strip())),
        "num_cpus": _at_least(1),
        "num_gpus": _at_least(0),
        "num_aggregators": _at_least(1),
        "threads_per_worker": _at_least(1),
        "device": _one_of("auto", "cpu", "cuda"),
    },
    LinkSettings: {
        "address": Rule("host:port", _is_address),
        "standbys": Rule("a list of host:port", lambda value: all(map(_is_address, value))),
        "peers": Rule("host:port", _is_address),
        "deadline_s": _at_least(1),
        "compression": _one_of("none", "gzip"),
    },
    Output: {
        "dir": Rule("a folder's name", lambda value: bool(value.strip())),
        "checkpoint_every": _at_least(1),
        "keep": _at_least(1),
        "tensorboard_sites": _at_least(0),
    },
    Terms: {
        "tasks": Rule("a list of kinds of task", lambda value: bool(value)),
        "code": Rule("a list of SHA-256 digests of 64 hexadecimal digits", lambda value: all(map(_is_digest, value))),
        "rounds": _at_least(1),
        "until": Rule("a day, as 2027-06-30", _is_day),
        "members": _at_least(FEWEST),
        "epsilon": _above(0),
        "delta": Rule("a number between 0 and 1", lambda value: 0 < value < 1),
        "min_count": _at_least(1),
    },
    Where: {
        "node": Rule("a path, or run", lambda value: bool(value.strip())),
        "round": _at_least(1),
        "nth": _at_least(1),
        "times": _at_least(1),
        "replica": _at_least(1),
        "probability": Rule("a fraction above 0, at most 1", lambda value: 0 < value <= 1),
    },
    Replication: _REPLICATION,
    Redundancy: {
        **_REPLICATION,
        "journal": Rule("none, a folder's name, or an address (s3://...)", lambda value: bool(value.strip())),
    },
}
