"""Low-rank adapters in whole local runs: against a plain loop, and the same bits whoever trains whom."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from plain_loops import FULL, LR, STEPS, WARDS, Loop, Params
from small_runs import Ran, config_of, go, hub, site, tensors
from torch.nn import functional as F

from hierfl import checkpoint
from hierfl.errors import ConfigError, HierflError
from hierfl.learning.fine_tune import FINE_TUNED
from hierfl.learning.seeds import derive
from hierfl.lifecycle import evaluate, export, resume
from hierfl.monitor.records import Notice
from hierfl.tree import sent_small

ROUNDS, RANK, ALPHA = 3, 2, 4.0
SITES = [site(name, n=n) for name, n in WARDS.items()]
LORA: dict[str, Any] = {"rank": RANK, "alpha": ALPHA, "whole": ["bias"]}
GENTLE = {**FULL, "lr": 0.05}


def root(*members: Any, rounds: int = ROUNDS, **settings: Any) -> dict[str, Any]:
    return {**hub("world", *(members or SITES)), "rounds": rounds, **settings}


def adapted(folder: Path, *members: Any, lora: Any = LORA, task: Any = "ward_tasks:Wards", **settings: Any) -> Ran:
    top = {key: settings.pop(key) for key in ("runtime", "evaluation", "stopping") if key in settings}
    training = settings.pop("training", FULL)
    return go(folder, root(*members, **settings), task, training=training, lora=lora, **top)


def deep(folder: Path, *members: Any, **settings: Any) -> Ran:
    """Two linear layers, batch norm whose statistics travel, a counter, and dropout."""
    lora = {"rank": 2, "alpha": 2.0, "whole": ["4.bias"]}
    return adapted(folder, *members, lora=lora, task="ward_tasks:Deep", training=GENTLE, **settings)


class LowRank:
    """Hu et al. 2022, Section 4.1, on the wards' one layer, in float64: weight W + alpha / r * B A, and the bias."""

    def __init__(self) -> None:
        self.loop = Loop()
        torch.manual_seed(derive(0, "model"))
        self.loop.task.model()
        self.down = torch.randn(RANK, 4).double() / 4**0.5
        self.weight, self.bias = self.loop.start()

    def whole(self, b: torch.Tensor, a: torch.Tensor) -> torch.Tensor:
        return self.weight + ALPHA / RANK * b @ a

    def local(self, start: Params, ward: str) -> Params:
        """Steps of gradient descent on B, A and the bias."""
        x, y = self.loop.data[ward]
        values = [value.clone().requires_grad_() for value in start]
        for _ in range(STEPS):
            b, a, bias = values
            logits = x.double() @ self.whole(b, a)[0] + bias
            slopes = torch.autograd.grad(F.binary_cross_entropy_with_logits(logits, y.double()), values)
            values = [(v - LR * slope).detach().requires_grad_() for v, slope in zip(values, slopes, strict=True)]
        return [value.detach() for value in values]


def test_adapters_are_averaged_as_in_a_plain_loop_and_merged_at_the_end(tmp_path: Path) -> None:
    low = LowRank()
    x: Params = [torch.zeros(1, RANK, dtype=torch.float64), low.down, low.bias]
    for _ in range(ROUNDS):
        sent = {k: low.local(x, k) for k in WARDS}
        x = [sum(low.loop.weights[k] * sent[k][i] for k in WARDS) for i in range(3)]  # type: ignore[misc]
    run = adapted(tmp_path)
    found = tensors(run.folder)
    np.testing.assert_allclose(found["weight"], low.whole(x[0], x[1]).numpy(), atol=1e-6)
    np.testing.assert_allclose(found["bias"], x[2].numpy(), atol=1e-6)
    assert run.summary["num_parameters"] == RANK * (4 + 1) + 1 and run.summary["lora"]["num_parameters"] == 5
    assert run.summary["traffic"]["bytes_up"] == ROUNDS * 4 * (RANK * (4 + 1) + 1)


def test_with_frozen_a_the_mean_of_b_is_the_mean_of_the_changes(tmp_path: Path) -> None:
    """One round: the merged weight is the weighted mean of the sites' merged weights, as without adapters."""
    low = LowRank()
    low_local: dict[str, torch.Tensor] = {}
    for k in WARDS:
        b, bias = torch.zeros(1, RANK, dtype=torch.float64), low.bias
        x, y = low.loop.data[k]
        for _ in range(STEPS):
            values = [b.requires_grad_(), bias.clone().requires_grad_()]
            logits = x.double() @ low.whole(values[0], low.down)[0] + values[1]
            slopes = torch.autograd.grad(F.binary_cross_entropy_with_logits(logits, y.double()), values)
            b, bias = ((v - LR * slope).detach() for v, slope in zip(values, slopes, strict=True))
        low_local[k] = low.whole(b, low.down)
    mean = sum(low.loop.weights[k] * low_local[k] for k in WARDS)
    run = adapted(tmp_path, lora={**LORA, "freeze_down": True}, rounds=1)
    np.testing.assert_allclose(tensors(run.folder)["weight"], mean.numpy(), atol=1e-6)  # type: ignore[union-attr]
    assert run.summary["num_parameters"] == RANK + 1


def test_the_base_stays_as_the_run_began_with_it(tmp_path: Path) -> None:
    run = deep(tmp_path / "deep")
    untouched = go(tmp_path / "first", root(rounds=1), "ward_tasks:Deep", training={**GENTLE, "lr": 1e-30})
    found, first = tensors(run.folder), tensors(untouched.folder)
    for name in ("0.bias", "1.weight", "1.bias"):
        np.testing.assert_array_equal(found[name], first[name])
    for name in ("0.weight", "4.weight", "4.bias", "1.running_mean"):
        assert not np.array_equal(found[name], first[name])


def test_a_tree_and_any_number_of_workers_have_the_bits_of_the_flat_federation(tmp_path: Path) -> None:
    north, south, east = SITES
    alone = deep(tmp_path / "alone")
    many = deep(
        tmp_path / "many",
        *(hub("up", east, hub("top", south)), north),
        runtime={"kind": "local", "num_workers": 3},
    )
    assert many.digest == alone.digest
    for name, values in tensors(alone.folder).items():
        np.testing.assert_array_equal(tensors(many.folder)[name], values)


def test_a_resumed_run_has_the_bits_of_an_unbroken_one(tmp_path: Path) -> None:
    whole, broken = deep(tmp_path / "whole"), deep(tmp_path / "broken", rounds=1)
    assert resume(broken.folder, [f"federation.rounds={ROUNDS}"])["model_digest"] == whole.digest
    with pytest.raises(ConfigError, match="lora: is"):
        resume(broken.folder, [f"federation.rounds={ROUNDS + 1}", "lora.rank=3"])


def test_it_goes_with_personal_layers_compression_and_fine_tuning(tmp_path: Path) -> None:
    settings = {"strategy": {"kind": "fedper", "personal": ["4.*"]}, "compression": "one_bit"}
    evaluation = {"fine_tune": {"steps": 2, "tensors": ["*.up"]}}
    whole = deep(tmp_path / "whole", **settings, evaluation=evaluation)
    broken = deep(tmp_path / "broken", **settings, evaluation=evaluation, rounds=1)
    assert resume(broken.folder, [f"federation.rounds={ROUNDS}"])["model_digest"] == whole.digest
    saved = checkpoint.load(checkpoint.latest(whole.folder) or Path())
    kept = saved.sites["world/north"]
    assert set(kept) == {"own", "compression.residual", FINE_TUNED}
    assert kept[FINE_TUNED].size == saved.layout.num_floats == whole.summary["num_parameters"]


def weights(file: Path) -> bytes:
    """A file's tensors, without what its head says of them."""
    content = file.read_bytes()
    return content[8 + int.from_bytes(content[:8], "little") :]


def test_the_model_is_written_on_request_and_measured_as_it_was(tmp_path: Path) -> None:
    run = deep(tmp_path)
    assert export(run.folder, tmp_path / "model.safetensors") == (ROUNDS, run.digest)
    assert weights(tmp_path / "model.safetensors") == weights(run.folder / "model.safetensors")
    assert evaluate(run.folder)["world"]["loss"] == run.summary["nodes"]["world"]["loss"]
    plain = go(tmp_path / "plain", root(), training=FULL)
    export(plain.folder, tmp_path / "plain.safetensors")
    assert weights(tmp_path / "plain.safetensors") == weights(plain.folder / "model.safetensors")


def test_the_best_model_is_written_whole(tmp_path: Path) -> None:
    run = deep(tmp_path / "run", stopping={"metric": "loss", "patience": 9, "min_delta": 5.0})
    first = deep(tmp_path / "first", rounds=1)
    assert (run.folder / "best.safetensors").read_bytes() == (first.folder / "model.safetensors").read_bytes()


def test_a_worker_with_another_base_is_refused(tmp_path: Path) -> None:
    with pytest.raises(HierflError, match="builds another model than the federation's: the base that adapters change"):
        adapted(tmp_path, task="ward_tasks:Drifting", runtime={"kind": "local", "num_workers": 2})


@pytest.mark.parametrize(
    ("lora", "said"),
    [
        ({"rank": 0}, "lora.rank: rank is 0; at least 1"),
        ({"alpha": 0.0}, "lora.alpha: alpha is 0.0; a number above 0"),
        ({"layers": []}, "lora.layers: layers is empty"),
        ({"ranks": 2}, "lora.ranks: unknown key .did you mean 'rank'"),
    ],
)
def test_a_wrong_key_is_refused_by_name(lora: Any, said: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=said):
        config_of(tmp_path, root(), lora=lora)


def test_a_pattern_that_fits_no_layer_is_said_before_any_training(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"lora.layers: no layer that can have an adapter is named like 'x'"):
        adapted(tmp_path, lora={"layers": ["x"]})


def test_what_travels_is_said_beforehand(tmp_path: Path) -> None:
    said = sent_small(config_of(tmp_path, root(compression="one_bit"), lora=LORA))
    assert said == {"world": "lora: adapters of rank 2 on *, and whole bias travel; compression: 3 sites by one_bit"}


def test_adapters_that_are_larger_than_their_layer_are_named_when_the_run_starts(tmp_path: Path) -> None:
    """Of 5 x 4 and 2 x 5 weights; rank 1 takes 9 and 7 numbers, rank 2 takes 18 and 14."""
    for rank, named in ((1, []), (2, ["4.weight (2 x (2 + 5) in place of 2 x 5)"])):
        lora = {"rank": rank}
        run = adapted(tmp_path, lora=lora, task="ward_tasks:Deep", training=GENTLE, rounds=1)
        said = [one.message for one in run.monitor.of(Notice) if one.level == "warning"]
        assert len(said) == len(named)
        for message, name in zip(said, named, strict=True):
            assert message.startswith(f"lora: adapters are larger than the weights that they change: {name}; name them")
    run = adapted(tmp_path, lora={"rank": 1}, rounds=1)
    [said_of_root] = [one.message for one in run.monitor.of(Notice) if one.level == "warning"]
    assert "change: weight (1 x (1 + 4) in place of 1 x 4); name" in said_of_root


def test_a_base_that_the_task_has_frozen_itself_has_the_same_bits(tmp_path: Path) -> None:
    lora = {"rank": RANK, "alpha": ALPHA}
    assert adapted(tmp_path, lora=lora, task="ward_tasks:Frozen").digest == adapted(tmp_path, lora=lora).digest
