"""Tests are pure unless marked `ray`: in all others `ray.init` raises, also where Ray is imported only later."""

import gc
import importlib.abc
import importlib.util
import os
import signal
import sys
from importlib.machinery import ModuleSpec

import pytest
from hypothesis import settings

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch: steady times, and the same bits

# Begun in the background, or by nohup: programs under test would inherit it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)

# Deterministic unless asked otherwise: `pytest --hypothesis-profile=explore` draws new examples each time.
settings.register_profile("ci", derandomize=True, deadline=None)
settings.register_profile("explore", max_examples=1000, deadline=None)
settings.load_profile("ci")


class RayGuard(importlib.abc.MetaPathFinder):
    """Sees Ray being imported, wherever that happens, and puts its own `init` in place of Ray's."""

    allowed = False

    def find_spec(self, fullname: str, path: object = None, target: object = None) -> ModuleSpec | None:
        if fullname != "ray" or self not in sys.meta_path:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec("ray")
        if spec is not None and spec.loader is not None:
            load = spec.loader.exec_module

            def load_and_guard(module: object) -> None:
                load(module)
                self.guard(module)

            spec.loader.exec_module = load_and_guard
        return spec

    def guard(self, ray: object) -> None:
        start = ray.init

        def init(*args: object, **kwargs: object) -> object:
            if not self.allowed:
                pytest.fail("this test starts Ray: mark it `ray`, or move what it tests to the pure side")
            return start(*args, **kwargs)

        ray.init = init


GUARD = RayGuard()
if "ray" in sys.modules:
    GUARD.guard(sys.modules["ray"])
else:
    sys.meta_path.insert(0, GUARD)


def pytest_sessionstart() -> None:
    """Collect tests without looking through what they have loaded: it stays, and it grows to millions of objects."""
    gc.disable()


def pytest_collection_finish() -> None:
    """Look after what the tests leave, as ever."""
    gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run short files last, and spread those that start Ray over the first half: else a worker is at one by itself at
    the end, or all are at them at once.
    """
    files: dict[object, list[pytest.Item]] = {}
    for item in items:
        files.setdefault(item.path, []).append(item)
    dear = [path for path, own in files.items() if any(item.get_closest_marker("ray") for item in own)]
    order = [path for path in reversed(files) if path not in dear]
    step = max(1, len(order) // (2 * len(dear) + 1))
    for number, path in enumerate(dear):
        order.insert(number * (step + 1), path)
    items[:] = [item for path in order for item in files[path]]


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Allow Ray to marked tests, before any of their fixtures."""
    GUARD.allowed = item.get_closest_marker("ray") is not None
