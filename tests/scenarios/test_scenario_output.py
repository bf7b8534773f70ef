"""What a run writes, when it stops, and what becomes of it when the disk does not play along."""

from __future__ import annotations

import errno
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from small_runs import Listener, config_of, events, go, hub, site, tensors
from torch.nn.functional import binary_cross_entropy_with_logits
from ward_tasks import Wards, patients

from hierfl import checkpoint
from hierfl.config import load
from hierfl.errors import ConfigError, OutputError, RuntimeUnavailable
from hierfl.journal.store import LocalStore
from hierfl.lifecycle import evaluate, resume, run
from hierfl.monitor.records import Evaluated, Notice, RoundCommitted, SiteTrained
from hierfl.rundir import RunDir
from hierfl.runtime.opening import store_of

TREE = hub("world", hub("up", "north", "south"), "east")
DEEP = "ward_tasks:Deep"
SUPPORT = Path(__file__).parents[1] / "support"


def output(folder: Path, **settings: Any) -> dict[str, Any]:
    return {"dir": str(folder), "tensorboard": False, **settings}


def rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]


def checkpoints(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "checkpoints").iterdir())


def test_the_summary_holds_the_run(tmp_path: Path) -> None:
    ran = go(tmp_path, {**TREE, "rounds": 3}, seed=5)
    summary = json.loads((ran.folder / "summary.json").read_text())
    assert {**summary, "run_dir": ran.summary["run_dir"]} == dict(ran.summary)
    assert (summary["name"], summary["seed"], summary["rounds"], summary["status"]) == ("trial", 5, 3, "finished")
    assert len(summary["model_digest"]) == 64 and summary["num_parameters"] == 5
    assert 0 < summary["startup_s"] <= summary["wall_s"]
    assert list(summary["nodes"]) == ["world", "world/up", "world/up/north", "world/up/south", "world/east"]
    assert [node["num_samples"] for node in summary["nodes"].values()] == [36, 24, 12, 12, 12]
    assert [node["num_test"] for node in summary["nodes"].values()] == [18, 12, 6, 6, 6]
    assert all({"accuracy", "auc", "loss"} <= set(node) for node in summary["nodes"].values())
    assert list(summary["workers"]) == ["worker-0"]
    worker = summary["workers"]["worker-0"]
    assert worker["busy_fraction"] + worker["idle_fraction"] == pytest.approx(1.0)
    assert 0.0 <= summary["idle_floor"] <= 1.0 and 0.0 <= summary["idle_fraction"] <= 1.0
    assert 0.0 < summary["efficiency"] <= 1.001, "no bound is above the time"
    assert {"python", "hierfl", "torch", "ray", "numpy"} <= set(summary["versions"])


def test_whom_the_umask_lets_may_read_every_file(tmp_path: Path) -> None:
    ran = go(tmp_path, TREE)
    files = [path for path in ran.folder.rglob("*") if path.is_file()]
    assert ran.folder / "model.safetensors" in files
    assert len({path.stat().st_mode for path in files}) == 1


def test_the_events_tell_the_run_in_order(tmp_path: Path) -> None:
    ran = go(tmp_path, TREE)
    told = events(ran.folder)
    names = [event["event"] for event in told]
    assert (names[0], names[-1]) == ("log_opened", "run_ended")
    before = told[1 : names.index("run_started")]
    assert {(event["event"], event.get("phase", event.get("kind"))) for event in before} == {
        ("assigned", "describe"),
        ("phase", "load"),
    }
    assigned = [event for event in told if event["event"] == "assigned" and event["kind"] == "train"]
    assert sorted(site for event in assigned for site in event["sites"]) == sorted(
        2 * ["world/up/north", "world/up/south", "world/east"]
    )
    assert all(event["reason"] and event["worker"] == "worker-0" for event in assigned)
    assert [event["time_s"] for event in told] == sorted(event["time_s"] for event in told)
    per_round = ["site_trained"] * 3 + ["round_closed"] * 2 + ["evaluated", "round_committed"]
    kept = [name for name in names if name in per_round]
    assert sorted(kept[:7]) == sorted(kept[7:]) == sorted(per_round)
    assert kept[5:7] == kept[12:] == ["evaluated", "round_committed"]
    assert {(e["node"], e["round_number"]) for e in told if e["event"] == "site_trained"} == {
        (node, number) for node in ("world/up/north", "world/up/south", "world/east") for number in (1, 2)
    }
    closed = [event for event in told if event["event"] == "round_closed" and event["node"] == "world"]
    assert [sorted(event["members"]) for event in closed] == [["east", "up"]] * 2
    assert all(event["bytes_up"] == 2 * 5 * 4 for event in closed), "five parameters of 4 bytes, from two members"
    trained = ran.monitor.of(SiteTrained)
    assert {(record.num_samples, record.num_steps) for record in trained} == {(12, 3)}


def test_metrics_have_a_line_per_node_and_measured_round(tmp_path: Path) -> None:
    ran = go(tmp_path, {**TREE, "rounds": 5}, evaluation={"every": 2})
    assert [(row["round"], row["node"]) for row in rows(ran.folder)] == [
        (number, node) for number in (2, 4, 5) for node in ran.summary["nodes"]
    ]
    assert len(ran.monitor.of(Evaluated)) == 3 and len(ran.monitor.of(RoundCommitted)) == 5
    last = rows(ran.folder)[-5]
    assert last["loss"] == ran.summary["nodes"]["world"]["loss"]


def test_a_run_may_go_without_measuring(tmp_path: Path) -> None:
    ran = go(tmp_path, TREE, evaluation={"every": 0})
    assert rows(ran.folder) == []
    assert ran.summary["nodes"]["world"] == {"num_samples": 36}


def test_auc_that_is_not_measured_is_nowhere(tmp_path: Path) -> None:
    ran = go(tmp_path, TREE, evaluation={"auc": "none"})
    assert all("auc" not in node and "accuracy" in node for node in ran.summary["nodes"].values())
    assert "auc" not in evaluate(ran.folder)["world"]


@pytest.mark.parametrize(
    ("root", "task"),
    [(TREE, DEEP), (hub("world", hub("us", "cleveland", "long_beach"), "budapest"), {"kind": "heart_disease"})],
    ids=["wards", "standardised-hospitals"],
)
def test_evaluate_measures_what_the_run_measured_last(root: Any, task: Any, tmp_path: Path) -> None:
    ran = go(tmp_path, root, task)
    measured = evaluate(ran.folder)
    assert set(measured) == set(ran.summary["nodes"])
    for path, metrics in measured.items():
        node = dict(ran.summary["nodes"][path])
        for name in ("accuracy", "auc", "loss"):
            assert metrics[name] == node[name]


@pytest.mark.parametrize(
    ("stopping", "rounds", "says"),
    [
        ({"metric": "loss", "target": 100.0}, 1, "has reached its target 100"),
        ({"metric": "loss", "patience": 2, "min_delta": 10.0}, 3, "has not improved on"),
    ],
    ids=["reached", "patience"],
)
def test_early_stopping(stopping: dict[str, Any], rounds: int, says: str, tmp_path: Path) -> None:
    ran = go(tmp_path, {**TREE, "rounds": 6}, stopping=stopping, output=output(tmp_path, checkpoint_every=4))
    assert ran.summary["rounds"] == rounds and ran.summary["rounds_planned"] == 6
    assert ran.summary["status"] == "stopped early"
    [told] = [notice.message for notice in ran.monitor.of(Notice) if notice.message.startswith("stops after")]
    assert says in told
    assert checkpoints(ran.folder)[-1] == f"round-{rounds:06d}"


@pytest.mark.parametrize(
    ("settings", "kept"),
    [({}, [5, 6]), ({"keep": 1}, [6]), ({"checkpoint_every": 4, "keep": 9}, [4, 6]), ({"keep": 9}, [1, 2, 3, 4, 5, 6])],
)
def test_checkpoints_are_written_and_kept_as_asked(settings: dict[str, Any], kept: list[int], tmp_path: Path) -> None:
    ran = go(tmp_path, {**TREE, "rounds": 6}, output=output(tmp_path, **settings))
    assert checkpoints(ran.folder) == [f"round-{number:06d}" for number in kept]


def test_the_model_on_disk_is_the_model_of_the_digest(tmp_path: Path) -> None:
    """It loads into the task's own module, every tensor in its shape and dtype, and gives the digest."""
    import torch
    from ward_tasks import Deep

    from hierfl.learning.flat import FlatModel

    ran = go(tmp_path, TREE, DEEP)
    module = Deep().model()
    loaded = {name: torch.from_numpy(values) for name, values in tensors(ran.folder).items()}
    expected = module.state_dict()
    assert {name: (t.shape, t.dtype) for name, t in loaded.items()} == {
        name: (t.shape, t.dtype) for name, t in expected.items()
    }
    module.load_state_dict(loaded)
    flat = FlatModel(module)
    assert flat.read().digest(flat.layout) == ran.digest


def test_a_folder_is_a_run_that_can_be_run_again(tmp_path: Path) -> None:
    ran = go(tmp_path, TREE)
    again = run(load(ran.folder / "config.yaml"))
    assert again["model_digest"] == ran.digest
    assert Path(again["run_dir"]) != ran.folder, "runs of one second have folders of their own"


def spoil_model(folder: Path) -> None:
    path = folder / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def cut(name: str) -> Any:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:-7])


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (spoil_model, "is corrupt: what .*/model.safetensors holds has the digest"),
        (cut("model.safetensors"), "is corrupt|cannot be read"),
        (cut("strategies.safetensors"), "is corrupt|cannot be read"),
        (cut("checkpoint.json"), "is corrupt|cannot be read"),
        (lambda folder: (folder / "checkpoint.json").write_text("{}"), "cannot be read: 'layout'|is corrupt"),
        (lambda folder: (folder / "model.safetensors").unlink(), "cannot be read: .*No such file"),
    ],
    ids=["bit", "model", "strategies", "header", "empty", "missing"],
)
def test_a_damaged_checkpoint_is_told_and_the_one_before_it_is_used(damage: Any, says: str, tmp_path: Path) -> None:
    tree = {**TREE, "strategy": "fedavgm"}
    unbroken = go(tmp_path / "unbroken", {**tree, "rounds": 3})
    ran = go(tmp_path / "ran", tree)
    newest = checkpoint.latest(ran.folder)
    assert newest is not None
    damage(newest)
    heard = Listener()
    evaluate(ran.folder, [heard])
    monitor = Listener()
    assert resume(ran.folder, ["federation.rounds=3", "output.keep=1"], [monitor])["model_digest"] == unbroken.digest
    for told in (heard, monitor):
        [warning] = [notice.message for notice in told.of(Notice) if notice.level == "warning"]
        assert re.match(f"checkpoint .*round-000002 ({says}).*; .*round-000001 is used in its place", warning)
    assert checkpoints(ran.folder) == ["round-000003", "spoilt-round-000002"]


def test_a_run_without_a_checkpoint_that_can_be_read_says_so(tmp_path: Path) -> None:
    ran = go(tmp_path, TREE)
    for folder in (ran.folder / "checkpoints").iterdir():
        spoil_model(folder)
    with pytest.raises(OutputError, match=r"round-000002 is corrupt: .*round-000001 is corrupt: .*start the run anew"):
        resume(ran.folder, ["federation.rounds=3"])


def test_a_half_written_checkpoint_does_not_count(tmp_path: Path) -> None:
    """A machine that went down while round 2 was written: its folder has another name until it is whole."""
    ran = go(tmp_path, {**TREE, "rounds": 3})
    newest = checkpoint.latest(ran.folder)
    assert newest is not None
    newest.rename(newest.with_name(f".{newest.name}.partial"))
    assert checkpoint.latest(ran.folder) == newest.with_name("round-000002")
    assert resume(ran.folder)["model_digest"] == ran.digest


def test_a_disk_that_fills_up_keeps_the_last_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = go(tmp_path / "whole", {**TREE, "rounds": 4}, DEEP)
    flush = os.fsync

    def full(handle: int) -> None:
        if any((tmp_path / "full").glob("*/checkpoints/*round-000003*")):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        flush(handle)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(
        OutputError, match=r"round-000003 cannot be written: No space left on device; earlier .* resume"
    ):
        go(tmp_path / "full", {**TREE, "rounds": 4}, DEEP, redundancy={"journal": "none"})
    [folder] = (tmp_path / "full").iterdir()
    assert checkpoints(folder) == ["round-000001", "round-000002"]
    monkeypatch.setattr(os, "fsync", flush)
    assert resume(folder)["model_digest"] == whole.digest


FULL_DISK = """
import resource, sys
from pathlib import Path
from small_runs import config_of, hub
from hierfl.errors import OutputError
from hierfl.lifecycle import run
resource.setrlimit(resource.RLIMIT_FSIZE, (16384, resource.RLIM_INFINITY))
config = config_of(Path(sys.argv[1]), hub("world", "north", "south"), {"kind": "ward_tasks:Deep", "hidden": 600})
try:
    run(config)
except OutputError as error:
    print(error)
    sys.exit(error.exit_code)
"""


def test_a_file_that_may_not_grow_ends_the_run_with_one_message(tmp_path: Path) -> None:
    """A real limit of the operating system: no file over 16384 bytes, and a model of 24 kB."""
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(SUPPORT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    assert "cannot be written: File too large" in done.stdout
    [folder] = tmp_path.iterdir()
    assert not any(name.startswith("round") for name in checkpoints(folder))


@pytest.mark.parametrize("where", ["file", "file/below", "/proc/hierfl-runs"])
def test_an_output_folder_that_cannot_be_is_told(where: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("a file")
    target = Path(where) if where.startswith("/") else tmp_path / where
    with pytest.raises(
        OutputError, match=rf"output\.dir '{target}' cannot be written: .*; set output\.dir to a folder"
    ):
        go(target, TREE)


def test_a_tilde_is_the_users_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    paths = {"output": {"dir": "~/runs"}, "redundancy": {"journal": "~/journals"}}
    config = config_of(tmp_path, TREE, **paths)
    made = RunDir.create(config).path
    assert made.parent == tmp_path / "runs"
    store = store_of(config, made)
    assert isinstance(store, LocalStore) and store.folder == tmp_path / "journals" / made.name


def test_a_finished_run_says_how_to_go_on(tmp_path: Path) -> None:
    ran = go(tmp_path, TREE)
    with pytest.raises(OutputError, match=r"has done its 2 rounds; to go on, ask for more: federation\.rounds=12"):
        resume(ran.folder)


def test_a_checkpoint_of_another_model_is_not_gone_on_with(tmp_path: Path) -> None:
    ran = go(tmp_path, TREE, DEEP)
    with pytest.raises(
        OutputError,
        match=r"of another model than the task builds now: tensor '0\.weight' has shape.*hidden is 6, of the run 5",
    ):
        resume(ran.folder, ["federation.rounds=3", "task.hidden=6"])


def test_a_folder_that_is_no_run_is_told(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"has no config\.yaml: not the folder of a run"):
        resume(tmp_path)


def test_a_run_stopped_before_its_first_commit_starts_anew(tmp_path: Path) -> None:
    whole = go(tmp_path / "whole", TREE, DEEP)
    with pytest.raises(KeyboardInterrupt):
        go(tmp_path / "broken", TREE, DEEP, until=(SiteTrained, 1))
    [folder] = (tmp_path / "broken").iterdir()
    assert checkpoint.latest(folder) is None
    assert json.loads((folder / "summary.json").read_text())["status"] == "interrupted"
    with pytest.raises(OutputError, match=r"has no checkpoint yet; `hierfl resume .*` starts its first round"):
        evaluate(folder)
    assert resume(folder)["model_digest"] == whole.digest


def test_a_process_has_one_local_run_at_a_time(tmp_path: Path) -> None:
    config = config_of(tmp_path, hub("world", site("north"), site("south")))

    class Another:
        def on(self, record: Any) -> None:
            if isinstance(record, SiteTrained):
                with pytest.raises(RuntimeUnavailable, match="another local run is under way"):
                    run(config)

        def close(self) -> None: ...

    first = run(config, [Another()])
    assert run(config)["model_digest"] == first["model_digest"]


@pytest.mark.parametrize("standardise", ["federated", "none"])
def test_the_model_is_used_without_hierfl_as_the_docs_say(standardise: str, tmp_path: Path) -> None:
    ran = go(tmp_path, TREE, {"kind": "ward_tasks:Wards", "standardise": standardise})
    model = Wards().model()
    model.load_state_dict(load_file(ran.folder / "model.safetensors"))
    model.eval()
    scale = json.loads((ran.folder / "summary.json").read_text()).get("standardised")
    assert (scale is None) == (standardise == "none")
    for path, site_name in (("world/up/north", "north"), ("world/east", "east")):
        x, y = (part[12:] for part in patients(site_name, 18))
        if scale is not None:
            mean, std = (torch.tensor(scale[name], dtype=torch.float64) for name in ("mean", "std"))
            x = ((x.double() - mean) / std).float()
        with torch.no_grad():
            loss = binary_cross_entropy_with_logits(model(x)[:, 0], y.float())
        assert ran.summary["nodes"][path]["loss"] == pytest.approx(float(loss), rel=1e-6)


def test_a_model_is_measured_on_other_data_and_the_run_stays_as_it_is(tmp_path: Path) -> None:
    ran = go(tmp_path, TREE)
    kept = (ran.folder / "config.yaml").read_text()
    found = evaluate(ran.folder, overrides=["federation.members.east.data={n: 12, test: 40}"])
    x, y = (part[12:] for part in patients("east", 52))
    with torch.no_grad():
        model = Wards().model()
        model.load_state_dict(load_file(ran.folder / "model.safetensors"))
        loss = binary_cross_entropy_with_logits(model(x)[:, 0], y.float())
    assert found["world/east"]["num_test"] == 40 and found["world/east"]["loss"] == pytest.approx(float(loss), rel=1e-6)
    assert found["world/up"] == {name: ran.summary["nodes"]["world/up"][name] for name in found["world/up"]}
    assert (ran.folder / "config.yaml").read_text() == kept
    with pytest.raises(ConfigError, match=r"task\.kind: is ward_tasks:Deep, of the run"):
        evaluate(ran.folder, overrides=["task={kind: 'ward_tasks:Deep'}"])
