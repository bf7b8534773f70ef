"""Compressed updates in whole local runs: against plain loops from their papers, the same bits whoever trains whom."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from plain_loops import FULL, LR, STEPS, WARDS, Loop, Params, minus, same
from small_runs import Ran, config_of, go, hub, site, tensors

from hierfl import checkpoint
from hierfl.errors import ConfigError
from hierfl.learning.compression import RESIDUAL
from hierfl.learning.seeds import derive
from hierfl.lifecycle import resume
from hierfl.monitor.records import RoundClosed
from hierfl.monitor.report import write_report
from hierfl.tree import sent_small

ROUNDS = 4
SITES = [site(name, n=n) for name, n in WARDS.items()]
DEEP = "ward_tasks:Deep"


def root(compression: Any, *members: Any, rounds: int = ROUNDS, **settings: Any) -> dict[str, Any]:
    top = {} if compression is None else {"compression": compression}
    return {**hub("world", *(members or SITES)), "rounds": rounds, **top, **settings}


def flat(model: Params) -> list[float]:
    """The model's numbers one after another, weight before bias."""
    return [float(value) for tensor in model for value in tensor.ravel()]


def shaped(values: list[float]) -> Params:
    return [torch.tensor(values[:4], dtype=torch.float64)[None], torch.tensor(values[4:], dtype=torch.float64)]


def averaged(send: Callable[[str, int, list[float]], list[float]]) -> Params:
    """Federated averaging in which ward k sends `send(k, round, change)` in place of its change."""
    loop = Loop()
    x = loop.start()
    for number in range(ROUNDS):
        sent = {k: shaped(send(k, number, flat(minus(loop.local(x, k), x)))) for k in WARDS}
        x = [a + b for a, b in zip(x, loop.mean(sent), strict=True)]
    return x


def test_top_k_is_karimireddy_et_al_algorithm_1(tmp_path: Path) -> None:
    """p = change + e; the two largest of five numbers go; e = p - what went."""
    e = {k: [0.0] * 5 for k in WARDS}

    def send(k: str, number: int, change: list[float]) -> list[float]:
        p = [a + b for a, b in zip(change, e[k], strict=True)]
        largest = sorted(range(5), key=lambda i: -abs(p[i]))[:2]
        sent = [p[i] if i in largest else 0.0 for i in range(5)]
        e[k] = [a - b for a, b in zip(p, sent, strict=True)]
        return sent

    expected = averaged(send)
    run = go(tmp_path, root({"kind": "top_k", "fraction": 0.4}), training=FULL)
    same(tensors(run.folder), expected)
    saved = checkpoint.load(checkpoint.latest(run.folder) or Path())
    for k in WARDS:
        np.testing.assert_allclose(saved.sites[f"world/{k}"][RESIDUAL], e[k], atol=1e-6)


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_quantize_is_alistarh_et_al_section_3_1(bits: int, tmp_path: Path) -> None:
    """In buckets of two: sgn(v) * m * xi / s, with xi at random by the ward's and the round's own numbers."""
    s = 2 ** (bits - 1) - 1

    def send(k: str, number: int, v: list[float]) -> list[float]:
        random = np.random.Generator(np.random.PCG64(derive(0, "compress", number, k))).random((3, 2), np.float32)
        sent = []
        for i, value in enumerate(v):
            m = max(map(abs, v[i // 2 * 2 : i // 2 * 2 + 2]))
            ratio = s * value / m
            low = np.floor(ratio)
            sent.append(m * float(low + (random[i // 2, i % 2] < ratio - low)) / s)
        return sent

    run = go(tmp_path, root({"kind": "quantize", "bits": bits, "bucket": 2}), training=FULL)
    same(tensors(run.folder), averaged(send))


def test_one_bit_is_seide_et_al_section_3(tmp_path: Path) -> None:
    e = {k: [0.0] * 5 for k in WARDS}

    def send(k: str, number: int, change: list[float]) -> list[float]:
        p = [a + b for a, b in zip(change, e[k], strict=True)]
        sent = []
        for i, value in enumerate(p):
            alike = [other for other in p[i // 3 * 3 : i // 3 * 3 + 3] if (other >= 0) == (value >= 0)]
            sent.append(sum(alike) / len(alike))
        e[k] = [a - b for a, b in zip(p, sent, strict=True)]
        return sent

    expected = averaged(send)
    same(tensors(go(tmp_path, root({"kind": "one_bit", "bucket": 3}), training=FULL).folder), expected)


def test_nearest_rounding_with_error_feedback(tmp_path: Path) -> None:
    e = {k: [0.0] * 5 for k in WARDS}

    def send(k: str, number: int, change: list[float]) -> list[float]:
        p = [a + b for a, b in zip(change, e[k], strict=True)]
        unit = max(map(abs, p)) / 7
        sent = [unit * round(value / unit) for value in p]
        e[k] = [a - b for a, b in zip(p, sent, strict=True)]
        return sent

    expected = averaged(send)
    kind = {"kind": "quantize", "bits": 4, "stochastic": False, "error_feedback": True}
    same(tensors(go(tmp_path, root(kind), training=FULL).folder), expected)


KINDS: list[Any] = [
    {"kind": "quantize", "bits": 4, "bucket": 8},
    "one_bit",
    {"kind": "top_k", "fraction": 0.2},
]
each_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind if isinstance(kind, str) else kind["kind"])
HALF = {**FULL, "batch_size": 7}


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Ran]:
    found: dict[str, Ran] = {}

    def get(kind: Any) -> Ran:
        if str(kind) not in found:
            found[str(kind)] = go(tmp_path_factory.mktemp("alone"), root(kind), DEEP, training=FULL)
        return found[str(kind)]

    return get


def kept(run: Ran) -> dict[str, bytes]:
    saved = checkpoint.load(checkpoint.latest(run.folder) or Path())
    return {path.rpartition("/")[2]: state[RESIDUAL].tobytes() for path, state in saved.sites.items()}


@each_kind
def test_a_tree_has_the_bits_of_the_flat_federation(alone: Callable[..., Ran], kind: Any, tmp_path: Path) -> None:
    north, south, east = SITES
    tree = go(tmp_path, root(kind, hub("up", east, hub("top", south)), north), DEEP, training=FULL)
    assert tree.digest == alone(kind).digest and kept(tree) == kept(alone(kind))


@each_kind
@pytest.mark.parametrize("preaggregate", [True, False])
def test_who_trains_whom_changes_no_bit(
    alone: Callable[..., Ran], kind: Any, preaggregate: bool, tmp_path: Path
) -> None:
    runtime = {"kind": "local", "num_workers": 3, "preaggregate": preaggregate}
    many = go(tmp_path, root(kind, *reversed(SITES)), DEEP, training=FULL, runtime=runtime)
    assert many.digest == alone(kind).digest and kept(many) == kept(alone(kind))


@each_kind
def test_a_resumed_run_has_the_bits_of_an_unbroken_one(alone: Callable[..., Ran], kind: Any, tmp_path: Path) -> None:
    first = go(tmp_path, root(kind, rounds=2), DEEP, training=FULL)
    assert resume(first.folder, [f"federation.rounds={ROUNDS}"])["model_digest"] == alone(kind).digest


@each_kind
def test_a_hub_that_steps_by_itself_compresses_its_own_change_and_keeps_what_it_left_out(
    kind: Any, tmp_path: Path
) -> None:
    north, south, east = SITES
    members = ({**hub("up", north, south), "rounds": 2}, east)
    whole = go(tmp_path / "whole", root(kind, *members), DEEP, training=FULL)
    broken = go(tmp_path / "broken", root(kind, *members, rounds=1), DEEP, training=FULL)
    assert resume(broken.folder, [f"federation.rounds={ROUNDS}"])["model_digest"] == whole.digest
    saved = checkpoint.load(checkpoint.latest(whole.folder) or Path())
    assert (RESIDUAL in saved.states.get("world/up", {})) == bool(kept(whole))
    up = next(closed for closed in whole.monitor.of(RoundClosed) if closed.node == "world")
    assert up.bytes_up < 2 * 236 and up.bytes_up + up.bytes_spared == 2 * 236


def test_none_below_a_hub_that_compresses_sends_whole_updates(tmp_path: Path) -> None:
    north, south, east = SITES
    mixed = [north, {**south, "compression": "none"}, {**east, "compression": "one_bit"}]
    run = go(tmp_path, root("quantize", *mixed), DEEP, training=FULL)
    closed = run.monitor.of(RoundClosed)[0]
    assert closed.bytes_up + closed.bytes_spared == 3 * 236 and set(kept(run)) == {"east"}
    said = sent_small(config_of(tmp_path, root("quantize", *mixed), DEEP))
    assert said == {"world": "compression: 1 site by quantize, 1 site by one_bit"}


def test_what_does_not_send_whole_updates_says_so_beforehand(tmp_path: Path) -> None:
    north, south, east = SITES
    members = (hub("up", north), {**hub("low", south), "rounds": 2}, east)
    said = sent_small(config_of(tmp_path, root({"kind": "top_k", "fraction": 0.1}, *members)))
    assert said == {
        "world": "compression: 1 site by top_k (fraction=0.1)",
        "world/up": "compression: 1 site by top_k (fraction=0.1), hands up the exact sum of its members, whole",
        "world/low": "compression: 1 site by top_k (fraction=0.1), its own by top_k (fraction=0.1)",
    }
    assert sent_small(config_of(tmp_path, root(None))) == {}


def test_bytes_that_were_spared_stand_in_the_summary(tmp_path: Path) -> None:
    wide = {"kind": DEEP, "hidden": 400}
    run = go(tmp_path / "small", root("quantize", rounds=1), wide, training=FULL)
    whole = go(tmp_path / "whole", root(None, rounds=1), wide, training=FULL)
    traffic = json.loads((run.folder / "summary.json").read_text())["traffic"]
    before = whole.summary["traffic"]
    assert before["bytes_spared"] == 0 and traffic["bytes_up"] + traffic["bytes_spared"] == before["bytes_up"] * 3
    assert traffic["bytes_up"] < 0.6 * before["bytes_up"] * 3
    assert "Spared by compression" in write_report(run.folder).read_text()
    assert "Spared by compression" not in write_report(whole.folder).read_text()


@pytest.mark.parametrize(
    "strategy", ["fedprox", "fednova", "feddyn", "ditto", {"kind": "fedper", "personal": ["bias"]}]
)
def test_it_goes_with_strategies_that_send_a_model(strategy: Any, tmp_path: Path) -> None:
    """What a site keeps for its strategy and for error feedback stands side by side; a resumed run has both."""
    kind = {"kind": "top_k", "fraction": 0.4}
    whole = go(tmp_path / "whole", root(kind, strategy=strategy), training=FULL)
    broken = go(tmp_path / "broken", root(kind, strategy=strategy, rounds=2), training=FULL)
    assert resume(broken.folder, [f"federation.rounds={ROUNDS}"])["model_digest"] == whole.digest
    assert whole.digest != go(tmp_path / "plain", root(None, strategy=strategy), training=FULL).digest
    assert set(kept(whole)) == set(WARDS)


def test_it_goes_with_rules_that_look_at_each_member(tmp_path: Path) -> None:
    kind = {"kind": "top_k", "fraction": 0.4}
    one = go(tmp_path / "one", root(kind, strategy="median"), training=FULL)
    other = go(tmp_path / "other", root(kind, *reversed(SITES), strategy="median"), training=FULL)
    assert one.digest == other.digest


def test_scaffold_is_refused_with_it_by_name(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"federation.compression: scaffold at 'world' sends vectors beside the model"
    ):
        config_of(tmp_path, root("quantize", strategy="scaffold"))
    north, south, east = SITES
    with pytest.raises(ConfigError, match=r"members.south.compression: scaffold at 'world'"):
        config_of(tmp_path, root(None, north, {**south, "compression": "one_bit"}, east, strategy="scaffold"))
    config_of(tmp_path, root("quantize", *({**one, "compression": "none"} for one in SITES), strategy="scaffold"))


def test_baselines_send_nothing_compressed(tmp_path: Path) -> None:
    for baseline in ("local", "pooled"):
        config = config_of(tmp_path, root("quantize"), baseline=baseline)
        assert all(settings.compression is None for settings in config.sites.values())


def test_steps_are_those_of_the_loops() -> None:
    assert (FULL["lr"], FULL["local_steps"]) == (LR, STEPS)
