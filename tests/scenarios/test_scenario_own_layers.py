"""Tasks whose sites keep layers of their own, in whole local runs: against plain loops in float64 from their papers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_runs import go, hub, site, tensors
from torch.nn import functional as F

from hierfl import checkpoint
from hierfl.kinds import load
from hierfl.learning.seeds import derive

Tensors = Mapping[str, torch.Tensor]
LR, STEPS, ROUNDS = 0.1, 3, 3


def by_hand(
    task: Any, own: tuple[str, ...], loss: Callable[[Tensors, torch.Tensor, torch.Tensor], torch.Tensor]
) -> tuple[dict[str, torch.Tensor], dict[str, dict[str, torch.Tensor]]]:
    """Gradient descent at every site; tensors that begin with `own` stay there, of the others the mean by size."""
    torch.manual_seed(derive(0, "model"))
    shared = {name: value.double() for name, value in task.model().state_dict().items()}
    sites = {name: task.data(name).train.tensors for name in task.sites()}
    num = sum(len(x) for x, _ in sites.values())
    kept = {k: {name: value for name, value in shared.items() if name.startswith(own)} for k in sites}
    for _ in range(ROUNDS):
        sent = {}
        for k, (x, y) in sites.items():
            w = {name: value.clone() for name, value in {**shared, **kept[k]}.items()}
            for _ in range(STEPS):
                w = {name: value.detach().requires_grad_() for name, value in w.items()}
                slopes = torch.autograd.grad(loss(w, x.double(), y), list(w.values()))
                w = {name: value - LR * slope for (name, value), slope in zip(w.items(), slopes, strict=True)}
            sent[k] = {name: value.detach() for name, value in w.items()}
            kept[k] = {name: sent[k][name] for name in kept[k]}
        for name in [name for name in shared if not name.startswith(own)]:
            shared[name] = sum(len(sites[k][0]) / num * sent[k][name] for k in sites)
    return shared, kept


def same(folder: Path, task: Mapping[str, Any], strategy: Any, expected: Any) -> None:
    """The federation has the loop's shared tensors, and each of its sites the loop's own ones."""
    shared, kept = expected
    training = {"lr": LR, "batch_size": None, "local_steps": STEPS}
    ran = go(folder, hub("world", *map(site, kept), rounds=ROUNDS, strategy=strategy), task, training=training)
    found = tensors(ran.folder)
    for name, value in shared.items():
        np.testing.assert_allclose(found[name], value.numpy(), atol=1e-6, err_msg=name)
    saved = checkpoint.load(checkpoint.latest(ran.folder) or Path())
    for k, own in kept.items():
        flat = np.concatenate([value.numpy().ravel() for value in own.values()])
        np.testing.assert_allclose(saved.sites[f"world/{k}"]["own"], flat, atol=1e-6, err_msg=k)
        assert any((value - shared[name]).abs().max() > 1e-3 for name, value in own.items()), "nothing was learned"


def test_melloddy_shares_a_trunk_over_companies_of_unlike_assays(tmp_path: Path) -> None:
    """Heyndrickx et al. 2023: one trunk; each company's head has its own assays, of which most compounds lack some."""
    fields = {"num_sites": 3, "num_cases": 90, "size_spread": 0.5, "num_features": 12, "num_assays": 4, "hidden": 6}
    task = load("task", "multitask")(**fields)

    def loss(w: Tensors, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        first = (x @ w["trunk.0.weight"].T + w["trunk.0.bias"]).relu()
        second = (first @ w["trunk.2.weight"].T + w["trunk.2.bias"]).relu()
        z = second @ w["head.weight"].T + w["head.bias"]
        said = [
            F.softplus(z[i, j]) - y[i, j] * z[i, j] for i in range(len(y)) for j in range(y.shape[1]) if y[i, j] >= 0
        ]
        return torch.stack(said).mean()

    known = [(task.data(name).train.tensors[1] >= 0).any(dim=0).tolist() for name in task.sites()]
    assert len({tuple(assays) for assays in known}) > 1, "companies have other assays than each other"
    same(tmp_path, {"kind": "multitask", **fields}, "fedper", by_hand(task, ("head.",), loss))


def test_hidden_features_are_drawn_to_one_reference_at_every_site(tmp_path: Path) -> None:
    """After Sun & Saenko 2016: mean 0 and variance 1 of each hidden feature, behind a first layer of the site's own."""
    fields = {"num_sites": 3, "num_cases": 90, "num_features": 5, "hidden": 4, "shift": 1.0, "standardise": "none"}
    task, weight = load("task", "tabular")(**fields), 0.7

    def loss(w: Tensors, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        hidden = x @ w["trunk.weight"].T + w["trunk.bias"]
        z = (hidden.relu() @ w["head.weight"].T + w["head.bias"])[:, 0]
        away = sum(h.mean() ** 2 + ((h - h.mean()) ** 2).mean().sub(1) ** 2 for h in hidden.T)
        total: torch.Tensor = (F.softplus(z) - y * z).mean() + weight / hidden.shape[1] * away
        return total

    strategy = {"kind": "fedper", "personal": ["trunk.*"]}
    same(tmp_path, {"kind": "tabular", **fields, "alignment": weight}, strategy, by_hand(task, ("trunk.",), loss))


@pytest.mark.parametrize("num_classes", [2, 3])
def test_a_private_expert_and_a_gate_stay_at_the_site_as_in_li_et_al(num_classes: int, tmp_path: Path) -> None:
    """Li et al. 2020: p = alpha p_shared + (1 - alpha) p_private, trained by the cross entropy of the mixture."""
    fields = {"num_sites": 3, "num_cases": 90, "num_features": 5, "hidden": 4, "shift": 1.0, "standardise": "none"}
    fields |= {"network": "experts", "num_classes": num_classes}
    task = load("task", "tabular")(**fields)

    def loss(w: Tensors, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        def p(name: str) -> torch.Tensor:
            hidden = (x @ w[f"{name}.trunk.weight"].T + w[f"{name}.trunk.bias"]).relu()
            z = hidden @ w[f"{name}.head.weight"].T + w[f"{name}.head.bias"]
            return z.softmax(dim=1) if num_classes > 2 else torch.cat([1 - z.sigmoid(), z.sigmoid()], dim=1)

        alpha = (x @ w["gate.weight"].T + w["gate.bias"]).sigmoid()
        said = alpha * p("shared") + (1 - alpha) * p("private")
        return -torch.stack([said[i, y[i]].log() for i in range(len(y))]).mean()

    strategy = {"kind": "fedper", "personal": ["private.*", "gate.*"]}
    same(tmp_path, {"kind": "tabular", **fields}, strategy, by_hand(task, ("private.", "gate."), loss))
