"""Runs that take turns on one cluster's devices: the bits of each alone, through killed runs and a killed scheduler."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from ray_runs import HIERFL, SUPPORT, digest_in, environment, finish, run, started, tree, wait_gone, write_config

from hierfl.monitor.joint import read_joint

pytestmark = pytest.mark.ray

DEVICES = {"worker-0", "worker-1"}


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """A Ray of two CPUs that the runs of this module join."""
    import ray

    folder = Path(tempfile.mkdtemp(prefix="hfl-", dir="/tmp"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(SUPPORT))
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.setenv("RAY_AUTH_MODE", "disabled")
        ray.init(
            address="local",
            num_cpus=2,
            num_gpus=0,
            include_dashboard=False,
            log_to_driver=False,
            logging_level="ERROR",
            _temp_dir=str(folder),
        )
        try:
            yield str(ray.get_runtime_context().gcs_address)
        finally:
            ray.shutdown()
    wait_gone(folder)
    shutil.rmtree(folder, ignore_errors=True)


class Runs:
    """Runs of the same federation, each in a folder of its own."""

    def __init__(self, folder: Path, address: str) -> None:
        self.folder = folder
        self.address = address
        self.stack = ExitStack()

    def config(self, name: str) -> Path:
        folder = self.folder / name
        folder.mkdir(exist_ok=True)
        return write_config(folder, tree(rounds=2), name=name)

    def start(self, name: str, *overrides: str) -> subprocess.Popen[str]:
        words = ["run", str(self.config(name)), "runtime.kind=ray", f"runtime.address={self.address}", *overrides]
        env = environment(self.folder, RAY_AUTH_MODE="disabled", PYTHONPATH=str(SUPPORT))
        return self.stack.enter_context(started([*HIERFL, *words, "--plain"], self.folder / name, env))

    def hold(self, name: str, sites: str = "abcdef") -> None:
        """Let these sites wait in their first step."""
        self.config(name)
        for site in sites:
            (self.folder / name / f"hold-{site}").write_text("0")

    def go_on(self, name: str) -> None:
        for order in (self.folder / name).glob("hold-*"):
            order.unlink()

    def sites_begun(self, name: str) -> int:
        return len(list((self.folder / name).glob("steps-[a-f]")))

    def wait_until_told(self, name: str, change: str, reason: str, *processes: subprocess.Popen[str]) -> None:
        """Wait until a run has heard of a change of its leases of both devices, for such a reason."""

        def told() -> bool:
            heard = [one for one in self.events(name, "leased") if one["change"] == change]
            return {one["device"] for one in heard if reason in one["reason"]} == DEVICES

        wait_for(told, *processes)

    def wait_until_wanted(self, name: str, *processes: subprocess.Popen[str]) -> None:
        """Wait until another run wants both devices that a run has, and a little longer."""
        self.wait_until_told(name, "recalled", "want", *processes)
        time.sleep(0.5)

    def wait_for_steps(self, name: str, num_sites: int, process: subprocess.Popen[str]) -> None:
        """Wait until so many sites are in their first step."""
        wait_for(lambda: self.sites_begun(name) >= num_sites, process)

    def events(self, name: str, kind: str) -> list[dict[str, Any]]:
        (run_dir,) = (self.folder / name / "runs").iterdir()
        whole, _, _ = (run_dir / "events.jsonl").read_text().rpartition("\n")
        lines = whole.splitlines()
        return [event for event in map(json.loads, lines) if event["event"] == kind]

    def digest(self, name: str) -> str:
        (run_dir,) = (self.folder / name / "runs").iterdir()
        return digest_in(run_dir)

    def devices_of(self, name: str) -> set[str]:
        return {event["device"] for event in self.events(name, "leased") if event["change"] == "granted"}


def wait_for(over: Callable[[], bool], *processes: subprocess.Popen[str], timeout_s: float = 120) -> None:
    deadline = time.monotonic() + timeout_s
    while not over():
        assert all(process.poll() is None for process in processes), [p.communicate() for p in processes]
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.fixture
def runs(tmp_path: Path, address: str) -> Iterator[Runs]:
    made = Runs(tmp_path, address)
    with made.stack:
        yield made


@pytest.fixture
def alone(tmp_path: Path) -> str:
    """The digest of the run in threads, by itself."""
    folder = tmp_path / "alone"
    folder.mkdir()
    return str(run(write_config(folder, tree(rounds=2)), "runtime.kind=local")["model_digest"])


def service() -> Any:
    """The handle of the cluster's scheduler, if there is one."""
    import ray

    from hierfl.runtime.ray_service import NAMESPACE, SERVICE

    try:
        return ray.get_actor(SERVICE, namespace=NAMESPACE)
    except ValueError:
        return None


def nothing_left() -> None:
    """The scheduler ends with its last run, and gives back what it reserved."""
    import ray
    from ray.util.placement_group import placement_group_table

    wait_for(lambda: service() is None)
    assert {entry["state"] for entry in placement_group_table().values()} <= {"REMOVED"}
    wait_for(lambda: ray.available_resources().get("CPU") == 2.0)


@pytest.mark.slow
def test_two_runs_take_turns_and_each_has_the_bits_that_it_has_alone(runs: Runs, alone: str) -> None:
    """The first holds both devices until the second wants them, too."""
    runs.hold("one")
    one = runs.start("one")
    runs.wait_for_steps("one", 2, one)
    other = runs.start("other")
    runs.wait_until_wanted("one", one, other)
    assert runs.sites_begun("other") == 0, "both devices are held"
    runs.go_on("one")
    ends = [finish(one), finish(other)]
    assert [returned for returned, _, _ in ends] == [0, 0], ends
    assert [runs.digest("one"), runs.digest("other")] == [alone, alone]
    assert runs.devices_of("one") == runs.devices_of("other") == DEVICES
    joint = read_joint([next((runs.folder / name / "runs").iterdir()) for name in ("one", "other")]).joint
    assert set(joint.wanted) == DEVICES and 0.0 < joint.share("one") < 1.0
    assert joint.idle.idle == pytest.approx(1.0 - sum(map(joint.fraction, ("one", "other")))), "nothing runs at once"
    recalled = [event["reason"] for event in runs.events("one", "leased") if event["change"] == "recalled"]
    assert recalled and all(reason.startswith("other-") and reason.endswith(" wants it") for reason in recalled)
    nothing_left()


@pytest.mark.slow
def test_a_run_that_comes_later_has_the_devices_of_one_that_is_killed(runs: Runs, alone: str) -> None:
    runs.hold("one")
    one = runs.start("one")
    runs.wait_for_steps("one", 2, one)
    other = runs.start("other")
    runs.wait_until_wanted("one", one, other)
    assert runs.sites_begun("other") == 0
    one.kill()
    returned, out, err = finish(other)
    assert returned == 0, (out, err)
    assert runs.digest("other") == alone
    nothing_left()


@pytest.mark.slow
def test_no_round_is_lost_with_the_scheduler(runs: Runs, alone: str) -> None:
    import ray

    runs.hold("one")
    one = runs.start("one")
    runs.wait_for_steps("one", 2, one)
    other = runs.start("other")
    runs.wait_until_wanted("one", one, other)
    lost = service()
    ray.kill(lost)
    runs.wait_until_told("one", "changed", "it had the device before", one, other)
    time.sleep(0.5)
    assert runs.sites_begun("other") == 0, "the first run has what it had"
    runs.go_on("one")
    ends = [finish(one), finish(other)]
    assert [returned for returned, _, _ in ends] == [0, 0], ends
    assert [runs.digest("one"), runs.digest("other")] == [alone, alone]
    assert runs.devices_of("other") == DEVICES
    nothing_left()


@pytest.mark.slow
def test_a_run_that_does_not_share_leaves_what_is_reserved_alone(runs: Runs) -> None:
    runs.hold("one")
    one = runs.start("one", "runtime.num_workers=1")
    runs.wait_for_steps("one", 1, one)
    other = runs.start("other", "runtime.share=false")
    returned, out, err = finish(other)
    assert returned == 0, (out, err)
    assert "1 worker (ray)" in out and not runs.events("other", "leased")
    runs.go_on("one")
    assert finish(one)[0] == 0
    nothing_left()


@pytest.mark.slow
def test_a_run_for_which_others_leave_no_room_says_so(runs: Runs) -> None:
    import ray

    class Other:
        def name(self) -> str:
            return "other"

    holder = ray.remote(num_cpus=2)(Other).remote()  # type: ignore[attr-defined]
    assert ray.get(holder.name.remote()) == "other"
    returned, out, err = finish(runs.start("one"))
    assert returned == 1, (out, err)
    assert "no room for a worker now: 0 of 2 CPU are free; begin again when" in err
    ray.kill(holder)
    nothing_left()


@pytest.mark.slow
def test_different_devices_of_one_name_are_told_apart(runs: Runs) -> None:
    runs.hold("one")
    one = runs.start("one", "runtime.devices=[{name: gpu, count: 2}]")
    runs.wait_for_steps("one", 2, one)
    other = runs.start("other", "runtime.devices=[{name: gpu, cpus: 2}]")
    returned, _, err = finish(other)
    assert returned == 1
    assert "device 'gpu-0' takes 2 CPU here, but 1 CPU in a run that shares this cluster" in err
    runs.go_on("one")
    assert finish(one)[0] == 0
    assert runs.devices_of("one") == {"gpu-0", "gpu-1"}
    nothing_left()
