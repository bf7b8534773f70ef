"""Strategies with a side of their own at the sites, in whole local runs: against plain loops from their papers, and the
same bits whoever trains whom.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from plain_loops import FULL, LR, STEPS, WARDS, Loop, Params, minus, same
from small_runs import Ran, config_of, go, hub, site, tensors
from ward_tasks import Deep

from hierfl import checkpoint
from hierfl.errors import ConfigError
from hierfl.learning.seeds import derive
from hierfl.lifecycle import evaluate, resume
from hierfl.monitor.records import Evaluated

SITES = [site(name, n=n) for name, n in WARDS.items()]
ROUNDS = 3


def root(strategy: Any, *members: Any, rounds: int = ROUNDS) -> dict[str, Any]:
    return {**hub("world", *(members or SITES), strategy=strategy), "rounds": rounds}


def ran(folder: Path, strategy: Any, **top: Any) -> dict[str, Any]:
    return tensors(go(folder, root(strategy), **{"training": FULL, **top}).folder)


def test_scaffold_is_karimireddy_et_al_algorithm_1(tmp_path: Path) -> None:
    loop = Loop()
    x, c = loop.start(), [torch.zeros_like(v) for v in loop.start()]
    own = {k: [torch.zeros_like(v) for v in x] for k in WARDS}
    for _ in range(ROUNDS):
        y = {k: loop.local(x, k, lambda w, k=k, c=c, own=own: minus(c, own[k])) for k in WARDS}
        new = {
            k: [a - b + (v - u) / (STEPS * LR) for a, b, v, u in zip(own[k], c, x, y[k], strict=True)] for k in WARDS
        }
        c = [a + b for a, b in zip(c, loop.mean({k: minus(new[k], own[k]) for k in WARDS}), strict=True)]
        x, own = loop.mean(y), new
    same(ran(tmp_path, "scaffold"), x)


def test_feddyn_is_acar_et_al_algorithm_1(tmp_path: Path) -> None:
    loop, alpha = Loop(), 0.3
    x, h = loop.start(), [torch.zeros_like(v) for v in loop.start()]
    g = {k: [torch.zeros_like(v) for v in x] for k in WARDS}
    for _ in range(ROUNDS):

        def pull(w: Params, k: str, x: Params = x, g: dict[str, Params] = g) -> Params:
            return [alpha * (a - b) - m for a, b, m in zip(w, x, g[k], strict=True)]

        y = {k: loop.local(x, k, lambda w, k=k: pull(w, k)) for k in WARDS}
        g = {k: [a - alpha * (b - v) for a, b, v in zip(g[k], y[k], x, strict=True)] for k in WARDS}
        h = [a - alpha * b for a, b in zip(h, loop.mean({k: minus(y[k], x) for k in WARDS}), strict=True)]
        x = [a - b / alpha for a, b in zip(loop.mean(y), h, strict=True)]
    same(ran(tmp_path, {"kind": "feddyn", "alpha": alpha}), x)


def test_fednova_is_wang_et_al_eq_9(tmp_path: Path) -> None:
    """Three wards that take two, five and three steps."""
    loop = Loop()
    x, tau = loop.start(), {"north": 2, "south": 5, "east": 3}
    for _ in range(ROUNDS):
        d = {k: [(a - b) / tau[k] for a, b in zip(x, loop.local(x, k, steps=tau[k]), strict=True)] for k in WARDS}
        effective = sum(loop.weights[k] * tau[k] for k in WARDS)
        x = [a - effective * b for a, b in zip(x, loop.mean(d), strict=True)]
    members = [site(k, n=n, training={"local_steps": tau[k]}) for k, n in WARDS.items()]
    strategy = {"kind": "fednova", "max_steps": 8}
    same(tensors(go(tmp_path, root(strategy, *members), training=FULL).folder), x)


def test_fedper_is_arivazhagan_et_al(tmp_path: Path) -> None:
    """The bias is each ward's own, the weights are shared."""
    loop = Loop()
    x = loop.start()
    bias = dict.fromkeys(WARDS, x[1])
    for _ in range(ROUNDS):
        y = {k: loop.local([x[0], bias[k]], k) for k in WARDS}
        bias = {k: y[k][1] for k in WARDS}
        x = [loop.mean(y)[0], x[1]]
    strategy = {"kind": "fedper", "personal": ["bias"]}
    run = go(tmp_path, root(strategy), training=FULL)
    same(tensors(run.folder), x)
    saved = checkpoint.load(checkpoint.latest(run.folder) or Path())
    for k in WARDS:
        np.testing.assert_allclose(saved.sites[f"world/{k}"]["own"], bias[k].numpy(), atol=1e-6)


def test_fedrep_is_collins_et_al_algorithm_1(tmp_path: Path) -> None:
    """Two steps on the head alone, then the configured ones on the representation alone."""
    loop = Loop()
    x = loop.start()
    bias = dict.fromkeys(WARDS, x[1])

    def half(model: Params, k: str, which: int, steps: int) -> Params:
        w = list(model)
        for _ in range(steps):
            w[which] = w[which] - LR * loop.gradient(w, k)[which]
        return w

    for _ in range(ROUNDS):
        y = {}
        for k in WARDS:
            bias[k] = half([x[0], bias[k]], k, 1, 2)[1]
            y[k] = half([x[0], bias[k]], k, 0, STEPS)
        x = [loop.mean(y)[0], x[1]]
    same(ran(tmp_path, {"kind": "fedrep", "personal": ["bias"], "head_steps": 2}), x)


def test_ditto_is_li_et_al_algorithm_1_beside_plain_averaging(tmp_path: Path) -> None:
    loop, lam = Loop(), 0.5
    x = loop.start()
    v = dict.fromkeys(WARDS, x)
    for _ in range(ROUNDS):

        def near(w: Params, x: Params = x) -> Params:
            return [lam * (a - b) for a, b in zip(w, x, strict=True)]

        v = {k: loop.local(v[k], k, near) for k in WARDS}
        x = loop.mean({k: loop.local(x, k) for k in WARDS})
    ditto = go(tmp_path / "ditto", root({"kind": "ditto", "lam": lam}), training=FULL)
    same(tensors(ditto.folder), x)
    assert ditto.digest == go(tmp_path / "plain", root("fedavg"), training=FULL).digest
    saved = checkpoint.load(checkpoint.latest(ditto.folder) or Path())
    for k in WARDS:
        flat = np.concatenate([values.numpy().ravel() for values in v[k]])
        np.testing.assert_allclose(saved.sites[f"world/{k}"]["model"], flat, atol=1e-6)


def test_fedprox_is_li_et_al_eq_2(tmp_path: Path) -> None:
    loop, mu = Loop(), 0.7
    x = loop.start()
    for _ in range(ROUNDS):

        def near(w: Params, x: Params = x) -> Params:
            return [mu * (a - b) for a, b in zip(w, x, strict=True)]

        x = loop.mean({k: loop.local(x, k, near) for k in WARDS})
    same(ran(tmp_path, {"kind": "fedprox", "mu": mu}), x)


def test_fedbn_is_li_et_al_algorithm_1(tmp_path: Path) -> None:
    """Each ward's net in float64 with its own batch norm, statistics included; the linear layers are averaged."""
    task = Deep(dropout=0.0)
    torch.manual_seed(derive(0, "model"))
    x = {name: value.double() for name, value in task.model().state_dict().items()}
    own: dict[str, dict[str, torch.Tensor]] = {k: {n: v for n, v in x.items() if n.startswith("1.")} for k in WARDS}
    sizes = {k: n / sum(WARDS.values()) for k, n in WARDS.items()}
    for _ in range(ROUNDS):
        sent = {}
        for k, n in WARDS.items():
            net = task.model().double()
            net.load_state_dict({**x, **own[k]})
            features, labels = task.data(k, n=n).train.tensors
            for _ in range(STEPS):
                net.zero_grad()
                task.loss(net, (features.double(), labels)).backward()
                with torch.no_grad():
                    for parameter in net.parameters():
                        parameter -= 0.05 * parameter.grad  # type: ignore[operator]
            sent[k] = {name: value.clone() for name, value in net.state_dict().items()}
            own[k] = {name: value for name, value in sent[k].items() if name.startswith("1.")}
        shared = [name for name in x if not name.startswith("1.")]
        x |= {name: sum(sizes[k] * sent[k][name] for k in WARDS) for name in shared}  # type: ignore[misc]
    task_of = {"kind": "ward_tasks:Deep", "dropout": 0.0, "dtype": "float64"}
    run = go(tmp_path, root("fedbn"), task_of, training={**FULL, "lr": 0.05})
    found = tensors(run.folder)
    for name in shared:
        np.testing.assert_allclose(found[name], x[name].numpy(), atol=1e-6)
    saved = checkpoint.load(checkpoint.latest(run.folder) or Path())
    for k in WARDS:
        floats = np.concatenate([v.numpy().ravel() for name, v in own[k].items() if v.is_floating_point()])
        np.testing.assert_allclose(saved.sites[f"world/{k}"]["own"], floats, atol=1e-6)


def test_fedbn_keeps_a_wards_normalisation_at_the_ward(tmp_path: Path) -> None:
    """Li et al. 2021: no normalisation layer of the hub's model moves, and those of the wards differ."""
    run = go(tmp_path, root("fedbn"), "ward_tasks:Deep", training=FULL)
    before = tensors(go(tmp_path / "one", root("fedbn", rounds=1), "ward_tasks:Deep", training=FULL).folder)
    after = tensors(run.folder)
    saved = checkpoint.load(checkpoint.latest(run.folder) or Path())
    still = {name for name in after if np.array_equal(before[name], after[name])}
    assert still >= {"1.weight", "1.bias", "1.running_mean", "1.running_var"} and "0.weight" not in still
    own = [saved.sites[f"world/{k}"]["own"] for k in WARDS]
    assert not np.array_equal(own[0], own[1]) and own[0].size == own[1].size > 0


RULES: list[Any] = [
    "scaffold",
    "fednova",
    {"kind": "feddyn", "alpha": 0.3},
    {"kind": "fedper", "personal": ["bias"]},
    {"kind": "fedrep", "personal": ["bias"]},
    "ditto",
]
each_rule = pytest.mark.parametrize("rule", RULES, ids=str)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Any], Ran]:
    found: dict[str, Ran] = {}

    def get(rule: Any) -> Ran:
        if str(rule) not in found:
            found[str(rule)] = go(tmp_path_factory.mktemp("alone"), root(rule))
        return found[str(rule)]

    return get


def kept(run: Ran) -> dict[str, dict[str, bytes]]:
    saved = checkpoint.load(checkpoint.latest(run.folder) or Path())
    return {path: {name: vector.tobytes() for name, vector in state.items()} for path, state in saved.sites.items()}


@each_rule
@pytest.mark.parametrize("preaggregate", [True, False])
def test_who_trains_whom_changes_no_bit(
    alone: Callable[[Any], Ran], rule: Any, preaggregate: bool, tmp_path: Path
) -> None:
    runtime = {"kind": "local", "num_workers": 3, "preaggregate": preaggregate}
    many = go(tmp_path, root(rule, *reversed(SITES)), runtime=runtime)
    assert many.digest == alone(rule).digest and kept(many) == kept(alone(rule))


@each_rule
def test_a_resumed_run_has_the_bits_of_an_unbroken_one(alone: Callable[[Any], Ran], rule: Any, tmp_path: Path) -> None:
    first = go(tmp_path, root(rule, rounds=1))
    assert resume(first.folder, [f"federation.rounds={ROUNDS}"])["model_digest"] == alone(rule).digest


@pytest.mark.parametrize("rule", ["scaffold", "fednova"])
def test_channels_add_up_over_a_tree_like_the_model(alone: Callable[[Any], Ran], rule: str, tmp_path: Path) -> None:
    """Hubs below hand up raw sums of model and channels: the first round has the flat federation's bits."""
    north, south, east = SITES
    tree = go(tmp_path / "tree", root(rule, hub("up", north, hub("top", south)), east))
    assert tree.digest == alone(rule).digest
    if rule == "scaffold":
        twice = go(tmp_path / "twice", root(rule, {**hub("up", north, south), "rounds": 2}, east))
        assert twice.digest != tree.digest


def test_a_strategy_with_channels_may_stand_below_one_without(tmp_path: Path) -> None:
    north, south, east = SITES
    inner = go(tmp_path, root("fedavg", hub("up", north, south, strategy="scaffold"), east), training=FULL)
    saved = checkpoint.load(checkpoint.latest(inner.folder) or Path())
    assert set(saved.states) == {"world/up"} and set(saved.sites) == {"world/up/north", "world/up/south"}


def test_what_is_measured_is_what_a_site_uses(tmp_path: Path) -> None:
    """Ditto's global model is FedAvg's, but each ward measures its own; `hierfl evaluate` does so, too."""
    ditto = go(tmp_path / "ditto", root("ditto"))
    plain = go(tmp_path / "plain", root("fedavg"))
    last = ditto.monitor.of(Evaluated)[-1].metrics
    assert ditto.digest == plain.digest
    assert {p: s["loss"] for p, s in last.items()} != {
        p: s["loss"] for p, s in plain.monitor.of(Evaluated)[-1].metrics.items()
    }
    assert {p: s["loss"] for p, s in evaluate(ditto.folder).items()} == {p: s["loss"] for p, s in last.items()}


def test_a_site_that_takes_no_part_keeps_what_it_kept(tmp_path: Path) -> None:
    drawn = {**root("scaffold", rounds=2), "participation": {"kind": "sample", "count": 2}}
    run = go(tmp_path, drawn)
    assert 2 <= len(kept(run)) <= 3


@pytest.mark.parametrize(
    ("strategy", "said"),
    [
        ({"kind": "fedper", "personal": ["bais"]}, "no tensor of the model is named like 'bais' .did you mean 'bias'"),
        ({"kind": "fedper", "personal": ["*"]}, "all tensors are the sites' own"),
        ("fedbn", "no layer that normalises"),
    ],
)
def test_what_does_not_fit_the_model_is_said_before_any_training(strategy: Any, said: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"the strategy of world: .*{said}"):
        go(tmp_path, root(strategy))


@pytest.mark.parametrize("strategy", ["scaffold", "fednova", "feddyn"])
def test_a_strategy_below_one_that_needs_what_sites_do_is_refused(strategy: str, tmp_path: Path) -> None:
    north, south, east = SITES
    with pytest.raises(ConfigError, match="what sites do under the strategy of 'world' goes for every site below"):
        config_of(tmp_path, root(strategy, hub("up", north, south, strategy="fedavg"), east))


def test_more_steps_than_fednova_counts_are_refused_by_name(tmp_path: Path) -> None:
    from hierfl.errors import SiteFailed

    with pytest.raises(SiteFailed, match=r"world/\w+ could not be trained: 3 local steps, more than max_steps \(2\)"):
        go(tmp_path, root({"kind": "fednova", "max_steps": 2}), training=FULL)


@pytest.mark.parametrize("kind", ["fedper", "fedrep"])
def test_a_resumed_run_keeps_which_tensors_are_the_sites_own(kind: str, tmp_path: Path) -> None:
    folder = go(tmp_path, root({"kind": kind, "personal": ["bias"]}, rounds=1)).folder
    before = checkpoint.load(checkpoint.latest(folder) or Path()).sites
    said = r"world: strategy\.personal: is \['weight'\], of the run \['bias'\]; a run keeps it to its end"
    with pytest.raises(ConfigError, match=said):
        resume(folder, ["federation.rounds=2", "federation.strategy.personal=[weight]"])
    assert resume(folder, ["federation.rounds=2", "federation.strategy.personal=[bias]"])["rounds"] == 2
    after = checkpoint.load(checkpoint.latest(folder) or Path()).sites
    assert {path: kept["own"].shape for path, kept in after.items()} == dict.fromkeys(before, (1,))
