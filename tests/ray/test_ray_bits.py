"""On Ray a run has the bits that it has in threads, however many processes share its work."""

from __future__ import annotations

from pathlib import Path

import pytest
from ray_runs import Watcher, run, write_config

from hierfl.config.schema import Runtime
from hierfl.errors import RuntimeUnavailable
from hierfl.monitor.records import RunStarted
from hierfl.runtime.ray_cluster import num_workers, with_gpus

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("shared_ray")]

HEART = Path(__file__).parents[2] / "configs" / "heart.yaml"
RAY = ("runtime.kind=ray", "runtime.num_workers=2")


@pytest.fixture
def config(tmp_path: Path) -> Path:
    schedule = {"kind": "ExponentialLR", "gamma": 0.5}
    return write_config(tmp_path, training={"lr": 0.2, "lr_schedule": schedule, "batch_size": 8, "local_steps": 3})


@pytest.fixture
def digest(config: Path) -> str:
    return str(run(config, "runtime.kind=local")["model_digest"])


def test_real_hospitals_get_the_same_model_in_threads_and_on_ray(tmp_path: Path) -> None:
    quick = ("federation.rounds=2", "training.local_steps=20", f"output.dir={tmp_path}", "output.tensorboard=false")
    on_ray = run(HEART, *quick, *RAY)
    assert on_ray["model_digest"] == run(HEART, *quick, "runtime.kind=local")["model_digest"]
    assert on_ray["runtime"] == "ray"


@pytest.mark.parametrize(
    "overrides",
    [
        pytest.param(("runtime.num_workers=1",), marks=pytest.mark.slow),
        pytest.param(("runtime.num_workers=3",), marks=pytest.mark.slow),
        ("runtime.num_workers=2", "runtime.preaggregate=false", "runtime.num_aggregators=1"),
        pytest.param(("runtime.num_workers=2", "runtime.num_aggregators=2"), marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_the_bits_do_not_depend_on_how_the_work_is_shared(
    config: Path, digest: str, overrides: tuple[str, ...]
) -> None:
    assert run(config, *overrides)["model_digest"] == digest


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["scaffold", "ditto"])
def test_what_sites_keep_goes_from_worker_to_worker(config: Path, strategy: str) -> None:
    """Three rounds of more sites than workers: some site trains on another worker than before."""
    kept = f"federation.strategy={strategy}"
    assert run(config, *RAY, kept)["model_digest"] == run(config, "runtime.kind=local", kept)["model_digest"]


@pytest.mark.slow
def test_adapters_and_models_that_sites_made_their_own_are_those_of_threads(config: Path) -> None:
    made = ("training.lr=0.02", "lora={rank: 1, whole: [bias]}", "evaluation.fine_tune={steps: 2, at: every}")
    on_ray, in_threads = run(config, *RAY, *made), run(config, "runtime.kind=local", *made)
    assert on_ray["model_digest"] == in_threads["model_digest"] and on_ray["lora"] == in_threads["lora"]
    assert on_ray["personal_fairness"] == in_threads["personal_fairness"]


@pytest.mark.slow
def test_a_hub_that_looks_at_each_member_has_the_same_bits(config: Path) -> None:
    rule = "federation.strategy={kind: trimmed_mean, num_byzantine: 0, mixing: true}"
    assert run(config, *RAY, rule)["model_digest"] == run(config, "runtime.kind=local", rule)["model_digest"]


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        (Runtime(), 4),
        (Runtime(num_workers=3), 3),
        (Runtime(cpus_per_worker=2.0), 2),
        (Runtime(cpus_per_worker=0.0, gpus_per_worker=0.5), 8),
        (Runtime(cpus_per_worker=0.5, gpus_per_worker=0.5), 8),
        (Runtime(gpus_per_worker=1.0), 4),
        (Runtime(gpus_per_worker=2.0), 2),
        (Runtime(cpus_per_worker=0.0), 1),
    ],
    ids=str,
)
def test_one_worker_for_each_device_slot(asked: Runtime, expected: int) -> None:
    assert num_workers(asked) == expected


@pytest.mark.parametrize(
    ("asked", "taken"),
    [(Runtime(), 1.0), (Runtime(gpus_per_worker=0.0), 0.0), (Runtime(gpus_per_worker=0.5), 0.5)],
    ids=str,
)
def test_a_worker_takes_a_gpu_where_there_is_one_unless_told_otherwise(asked: Runtime, taken: float) -> None:
    assert with_gpus(asked).gpus_per_worker == taken


@pytest.mark.slow
def test_workers_that_share_devices_give_the_same_bits(config: Path, digest: str) -> None:
    watcher = Watcher()
    shares = ("runtime.gpus_per_worker=0.5", "runtime.cpus_per_worker=0.5")
    assert run(config, *shares, watcher=watcher)["model_digest"] == digest
    started = next(record for record in watcher.records if isinstance(record, RunStarted))
    assert len(started.workers) == 8


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (("runtime.num_workers=5",), ("5 CPU", "has 4", "runtime.num_workers")),
        (("runtime.gpus_per_worker=8",), ("8 GPU", "has 4", "runtime.gpus_per_worker")),
        (("runtime.resources_per_worker.hospital=1",), ("1 hospital", "has 0")),
    ],
    ids=str,
)
def test_more_than_the_cluster_has_is_said_before_anything_waits_for_it(
    config: Path, overrides: tuple[str, ...], said: tuple[str, ...]
) -> None:
    with pytest.raises(RuntimeUnavailable) as caught:
        run(config, *overrides)
    assert all(words in str(caught.value) for words in said), caught.value


def test_cuda_where_there_is_none_is_said_at_once(config: Path) -> None:
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device here")
    watcher = Watcher()
    with pytest.raises(RuntimeUnavailable, match=r"runtime\.device is cuda, but torch sees no CUDA device"):
        run(config, *RAY, "runtime.device=cuda", watcher=watcher)
    assert watcher.deaths() == []
