"""Reading a GPU, with a library that stands in for NVIDIA's; and what readings add up to."""

from __future__ import annotations

import gc
import threading
from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest

from hierfl.monitor.gpus import GpuTime
from hierfl.monitor.plain import closing_lines
from hierfl.monitor.records import GpuSampled, Leased, Record
from hierfl.runtime.gpus import Sampler, library, sampler
from hierfl.runtime.jobs import GpuUse
from hierfl.runtime.scribe import Scribe
from tiers.federation import Federation, Hub, Site

GB = 10**9


@dataclass
class FakeNvml:
    """One GPU whose readings a test sets; `broken`: what it cannot tell raises."""

    used: int = 50
    memory: int = 10 * GB
    broken: bool = False
    read: threading.Event = field(default_factory=threading.Event)

    def nvmlInit(self) -> None:  # noqa: N802
        if self.broken:
            raise RuntimeError("Driver Not Loaded")

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:  # noqa: N802
        assert uuid == "GPU-1"
        return uuid

    def nvmlDeviceGetName(self, gpu: str) -> bytes:  # noqa: N802
        return b"H100"

    def nvmlDeviceGetMemoryInfo(self, gpu: str) -> SimpleNamespace:  # noqa: N802
        return SimpleNamespace(used=self.memory, total=80 * GB)

    def nvmlDeviceGetUtilizationRates(self, gpu: str) -> SimpleNamespace:  # noqa: N802
        self.read.set()
        return SimpleNamespace(gpu=self.used)


def test_readings_are_given_once() -> None:
    nvml, clock = FakeNvml(), iter([1.0, 2.0, 3.0])
    gpu = Sampler(nvml, "GPU-1", lambda: next(clock))
    nvml.used, nvml.memory = 100, 20 * GB
    gpu.sample()
    assert gpu.take() == GpuUse("H100", 80 * GB, ((1.0, 0.5, 10 * GB), (2.0, 1.0, 20 * GB)))
    assert gpu.take() is None
    gpu.sample()
    assert gpu.take() == GpuUse("H100", 80 * GB, ((3.0, 1.0, 20 * GB),))


def test_it_reads_by_itself_until_nobody_holds_it() -> None:
    nvml = FakeNvml()
    gpu = Sampler(nvml, "GPU-1")
    before = threading.active_count()
    gpu.start(period_s=0.001)
    nvml.read.clear()
    assert nvml.read.wait(20.0)
    [thread] = [each for each in threading.enumerate() if each.name.endswith("(_keep_sampling)")]
    del gpu
    gc.collect()
    thread.join(20.0)
    assert not thread.is_alive() and threading.active_count() <= before


@pytest.mark.parametrize("nvml", [None, FakeNvml(broken=True)])
def test_without_a_library_or_a_driver_there_are_no_figures(nvml: FakeNvml | None) -> None:
    assert sampler(nvml, "GPU-1") is None


def test_the_library_is_optional() -> None:
    found = library()
    assert found is None or hasattr(found, "nvmlInit")


def sampled(*samples: tuple[float, float, int], device: str = "card-0") -> GpuSampled:
    return GpuSampled(9.0, device, "w", "H100", 80 * GB, samples)


def test_use_is_a_mean_and_memory_a_peak_of_the_run_and_since_last_asked() -> None:
    gpus = GpuTime()
    gpus.on(sampled((1.0, 0.2, 5 * GB), (2.0, 0.4, 30 * GB)))
    assert gpus.take()["card-0"].utilisation == pytest.approx(0.3)
    gpus.on(sampled((3.0, 0.9, 1 * GB)))
    assert gpus.take()["card-0"].utilisation == pytest.approx(0.9) and not gpus.take()
    total = gpus.total()["card-0"]
    assert (total.utilisation, total.peak_bytes, total.num_samples) == (pytest.approx(0.5), 30 * GB, 3)


def test_what_others_do_with_a_shared_device_is_not_counted() -> None:
    gpus = GpuTime()
    for time_s, change in ((1.0, "granted"), (2.0, "recalled"), (3.0, "released"), (6.0, "granted")):
        gpus.on(Leased(time_s, "card-0", "run", change, "a reason"))
    gpus.on(sampled((0.5, 1.0, GB), (2.5, 0.5, GB), (4.0, 1.0, 70 * GB), (7.0, 0.7, GB)))
    found = gpus.total()["card-0"]
    assert found.utilisation == pytest.approx(0.6) and found.peak_bytes == GB


def test_a_device_that_changes_hands_for_weeks_is_known_by_its_newest_leases(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hierfl.monitor.gpus.LEASES", 5)
    gpus = GpuTime()
    for turn in range(1000):
        gpus.on(Leased(2.0 * turn, "card-0", "run", "granted", "a reason"))
        gpus.on(Leased(2.0 * turn + 1, "card-0", "run", "released", "a reason"))
        gpus.on(sampled((2.0 * turn - 2.5, 1.0, 70 * GB), (2.0 * turn - 1.5, 0.5, GB), (2.0 * turn + 0.5, 0.5, GB)))
    assert len(gpus._leases["card-0"]) <= 10
    assert gpus.total()["card-0"].utilisation == pytest.approx(0.5) and gpus.total()["card-0"].num_samples == 1999


def test_the_last_lines_have_it_only_where_there_is_something() -> None:
    gpus = GpuTime()
    gpus.on(sampled((1.0, 0.25, 12 * GB)))
    figures = {"idle_fraction": 0.5, "schedule": {"gpus": {"card-0": gpus.total()["card-0"].record()}}}
    assert "gpus     card-0 25% used, peak 12.0 GB of 80.0 GB (H100)" in closing_lines("finished", figures, "")
    assert not [line for line in closing_lines("finished", {"idle_fraction": 0.5}, "") if line.startswith("gpus")]


def test_readings_are_recorded_by_the_runs_own_clock() -> None:
    heard: list[Record] = []
    scribe = Scribe(Federation(Hub("world", (Site("a"),))), heard.append, started_s=100.0)
    scribe.gpu("card-0", "w", GpuUse("H100", 80 * GB, ((101.5, 0.5, GB),)))
    [record] = heard
    assert isinstance(record, GpuSampled) and record.samples == ((1.5, 0.5, GB),)
