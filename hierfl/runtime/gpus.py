"""What a GPU really does while a worker uses it: utilisation and memory, read once a second by NVIDIA's own library.

The library is the package `nvidia-ml-py` (the extra `gpu`); without it, or without CUDA, nothing is started. A GPU that
does not answer (a MIG slice has no utilisation) is left out.
"""

from __future__ import annotations

import contextlib
import importlib
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from typing import Any

from hierfl.monitor.records import GpuSample
from hierfl.runtime.jobs import GpuUse

__all__ = ["Sampler", "library", "sampler"]

PERIOD_S = 1.0
MAX_SAMPLES = 3600
"""Samples that are kept for the next report; older ones are dropped."""


class Sampler:
    """Keeps samples of one GPU until they are taken. `nvml`: the library; `uuid`: the GPU's, as the library writes it.

    Errors: whatever the library raises where it does not know the GPU, or cannot say how much it is used.
    """

    def __init__(self, nvml: Any, uuid: str, now: Callable[[], float] = time.time) -> None:
        nvml.nvmlInit()
        self._nvml = nvml
        self._now = now
        self._gpu = nvml.nvmlDeviceGetHandleByUUID(uuid)
        name = nvml.nvmlDeviceGetName(self._gpu)
        self.name = name.decode() if isinstance(name, bytes) else str(name)
        self.memory_bytes = int(nvml.nvmlDeviceGetMemoryInfo(self._gpu).total)
        self._samples: deque[GpuSample] = deque(maxlen=MAX_SAMPLES)
        self.sample()

    def sample(self) -> None:
        """Read the GPU once."""
        used = self._nvml.nvmlDeviceGetUtilizationRates(self._gpu).gpu / 100.0
        memory = int(self._nvml.nvmlDeviceGetMemoryInfo(self._gpu).used)
        self._samples.append((self._now(), used, memory))

    def take(self) -> GpuUse | None:
        """Give what was read since the last time; None if nothing was."""
        found: list[GpuSample] = []
        with contextlib.suppress(IndexError):
            while True:
                found.append(self._samples.popleft())
        return GpuUse(self.name, self.memory_bytes, tuple(found)) if found else None

    def start(self, period_s: float = PERIOD_S) -> None:
        """Read it every so often, in a thread that ends with this object."""
        threading.Thread(target=_keep_sampling, args=(weakref.ref(self), period_s), daemon=True).start()


def library() -> Any:
    """Give NVIDIA's library, or None where it is not installed."""
    try:
        return importlib.import_module("pynvml")
    except ImportError:
        return None


def sampler(nvml: Any, uuid: str) -> Sampler | None:
    """Begin to sample a GPU; None where there is no library, or it cannot tell."""
    if nvml is None:
        return None
    try:
        made = Sampler(nvml, uuid)
    except Exception:  # no driver, no such GPU, nothing to be read of it: figures are missing then, and no more
        return None
    made.start()
    return made


def _keep_sampling(found: weakref.ref[Sampler], period_s: float) -> None:
    """Sample until nobody holds the sampler any more, or the GPU does not answer."""
    while True:
        time.sleep(period_s)
        alive = found()
        if alive is None:
            return
        try:
            alive.sample()
        except Exception:  # the driver is gone: what was read stays
            return
        del alive
