"""Adapters on layers of all sorts, without a run."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import default_collate

from hierfl.config.learning import Lora
from hierfl.errors import ConfigError
from hierfl.kinds import load
from hierfl.learning.flat import FlatModel
from hierfl.learning.lora import adapt, merge


class Words(nn.Module):
    """An embedding, attention, a convolution over time, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(11, 8)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.local = nn.Conv1d(8, 6, 3, padding=1)
        self.head = nn.Linear(6, 2)

    def forward(self, x: Any) -> Any:
        found = self.words(x)
        found = self.attention(found, found, found)[0]
        return self.head(self.local(found.transpose(1, 2)).mean(dim=2))


def built() -> Words:
    torch.manual_seed(1)
    return Words()


X = torch.arange(12).reshape(2, 6) % 11


def test_at_first_an_adapted_model_is_its_base_and_merged_it_is_the_model_that_it_became() -> None:
    plain, adapted, whole = built(), built(), built()
    adapt(adapted, Lora(rank=2))
    for layer in ("words", "attention.out_proj", "local", "head"):
        assert torch.equal(adapted.get_submodule(layer).weight, plain.get_submodule(layer).weight)
    torch.testing.assert_close(adapted(X), plain(X))  # torch has other kernels for attention whose weights are frozen
    adapted(X).square().sum().backward()
    ups = [(name, p) for name, p in adapted.named_parameters() if name.endswith(".up")]
    assert len(ups) == 4 and all(p.grad is not None and p.grad.abs().sum() > 0 for _, p in ups)
    with torch.no_grad():
        for _, p in ups:
            p.normal_()
    merge(adapted, whole)
    assert not torch.allclose(whole(X), plain(X))
    torch.testing.assert_close(whole(X), adapted(X), rtol=1e-4, atol=1e-4)
    assert set(whole.state_dict()) == set(plain.state_dict())


def test_only_adapters_and_what_is_named_travel() -> None:
    flat = FlatModel(_adapted(Lora(rank=2, layers=["local", "words"], whole=["head.*"])))
    assert {spec.name for spec in flat.layout.tensors} == {
        *(f"{layer}.parametrizations.weight.0.{half}" for layer in ("local", "words") for half in ("up", "down")),
        *("head.weight", "head.bias"),
    }
    half = FlatModel(_adapted(Lora(rank=2, layers=["local"], freeze_down=True)))
    assert [spec.name for spec in half.layout.tensors] == ["local.parametrizations.weight.0.up"]
    assert half.layout.num_floats == 6 * 2


def test_the_digest_is_of_the_base_alone() -> None:
    one, two, other = built(), built(), built()
    with torch.no_grad():
        other.head.weight[0, 0] += 1
    assert adapt(one, Lora(rank=2)) == adapt(two, Lora(rank=2)) != adapt(other, Lora(rank=2))
    changed = built()
    with torch.no_grad():
        changed.head.weight[0, 0] += 1
    whole = Lora(rank=2, layers=["local"], whole=["head.*"])
    assert adapt(built(), whole) == adapt(changed, whole)


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        (
            Lora(layers=["hed"]),
            r"lora.layers: no layer that can have an adapter is named like 'hed' .did you mean 'head'",
        ),
        (Lora(layers=["attention"]), r"lora.layers: no layer that can have an adapter"),
        (Lora(whole=["head.wieght"]), r"lora.whole: no tensor of the model is named like 'head.wieght'"),
    ],
)
def test_a_pattern_that_fits_nothing_is_refused_by_name(wanted: Lora, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        adapt(built(), wanted)


def test_a_weight_that_two_layers_share_is_refused_by_name() -> None:
    module = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    module[1].weight = module[0].weight
    with pytest.raises(ConfigError, match="'0' and '1' share one weight"):
        adapt(module, Lora())
    module = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2))
    module[1].weight = module[0].weight
    adapt(module, Lora(layers=["2"]))


class Tied(nn.Module):
    """A language model's shape: what reads words and what writes them have one weight, in either order."""

    def __init__(self, head_first: bool = False) -> None:
        super().__init__()
        head, words = nn.Linear(8, 11, bias=False), nn.Embedding(11, 8)
        for name, layer in (("head", head), ("words", words))[:: 1 if head_first else -1]:
            self.add_module(name, layer)
        self.inner = nn.Linear(8, 8)
        self.inner_again = self.inner
        head.weight = words.weight

    def forward(self, x: Any) -> Any:
        return self.head(self.inner_again(torch.tanh(self.inner(self.words(x)))))


def tied(head_first: bool = False) -> Tied:
    torch.manual_seed(1)
    return Tied(head_first)


@pytest.mark.parametrize("head_first", [True, False])
@pytest.mark.parametrize("layers", [["words"], ["head"], ["*"]])
def test_a_tie_of_which_one_end_would_learn_is_refused_by_name(head_first: bool, layers: list[str]) -> None:
    with pytest.raises(ConfigError, match=r"'(words|head)' and '(words|head)' share one weight, .*lora\.whole"):
        adapt(tied(head_first), Lora(layers=layers))


@pytest.mark.parametrize("head_first", [True, False])
@pytest.mark.parametrize("whole", [["words.weight"], ["head.weight"], ["words.*", "head.*"], []])
def test_merged_a_model_with_ties_is_the_one_that_it_became(head_first: bool, whole: list[str]) -> None:
    plain, adapted, merged = tied(head_first), tied(head_first), tied(head_first)
    adapt(adapted, Lora(rank=2, whole=whole, layers=["*"] if whole else ["inner"]))
    flat = FlatModel(adapted)
    assert flat.layout.num_floats == 2 * (8 + 8) + (88 if whole else 0)
    trained = [parameter for parameter in adapted.parameters() if parameter.requires_grad]
    with torch.no_grad():
        for parameter in trained:
            parameter.normal_()
    merge(adapted, merged)
    assert merged.head.weight is merged.words.weight
    assert not torch.allclose(merged(X), plain(X))
    torch.testing.assert_close(merged(X), adapted(X), rtol=1e-4, atol=1e-4)


def test_a_layer_at_two_places_has_one_adapter_by_either_name() -> None:
    for pattern in ("inner", "inner_again"):
        adapted, merged = tied(), tied()
        adapt(adapted, Lora(rank=2, layers=[pattern]))
        assert sum(p.numel() for p in adapted.parameters() if p.requires_grad) == 2 * (8 + 8)
        with torch.no_grad():
            adapted.inner.parametrizations.weight[0].up.normal_()
        merge(adapted, merged)
        torch.testing.assert_close(merged(X), adapted(X), rtol=1e-4, atol=1e-4)


def test_a_weight_that_is_computed_is_refused_by_name() -> None:
    module = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(4, 4)), nn.Linear(4, 2))
    with pytest.raises(ConfigError, match="the weight of '0' is computed"):
        adapt(module, Lora())
    adapt(module, Lora(layers=["1"]))


@pytest.mark.parametrize(
    ("kind", "fields", "site"),
    [("digits", {}, "site-0"), ("images", {"num_sites": 2}, None), ("volumes", {"num_sites": 2}, None)],
)
def test_a_tasks_own_code_works_with_adapters(kind: str, fields: dict[str, Any], site: str | None) -> None:
    if kind == "digits":
        pytest.importorskip("sklearn")
    try:
        task = load("task", kind)(**fields)
    except TypeError:
        task = load("task", kind)()
    listed = task.sites()
    data = task.data(site if listed is None else str(next(iter(listed))))
    torch.manual_seed(0)
    plain = task.model()
    adapted = copy.deepcopy(plain)
    adapt(adapted, Lora(rank=2))
    batch = default_collate([data.train[i] for i in range(4)])
    for module in (plain, adapted):
        module.eval()
    torch.testing.assert_close(task.loss(adapted, batch), task.loss(plain, batch))
    adapted.train()
    task.loss(adapted, batch).backward()
    assert all(p.grad is not None for name, p in adapted.named_parameters() if name.endswith(".up"))


def _adapted(wanted: Lora) -> Words:
    module = built()
    adapt(module, wanted)
    return module
