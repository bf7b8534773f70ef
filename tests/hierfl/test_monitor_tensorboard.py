from __future__ import annotations

import dataclasses
import io

import matplotlib.image
import monitor_script as script
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar import layout_pb2

from hierfl.config.schema import Evaluation, Output, Training
from hierfl.monitor.records import Evaluated, ReplicaReplaced, RoundClosed, RunEnded, SiteTrained
from hierfl.monitor.tensorboard import FOLDER, TensorBoard, _settings, evenly


def logged(run_dir, config, records) -> EventAccumulator:
    monitor = TensorBoard(run_dir, config)
    for record in records:
        monitor.on(record)
    monitor.close()
    monitor.close()
    return read(run_dir)


def read(run_dir) -> EventAccumulator:
    accumulator = EventAccumulator(str(run_dir / FOLDER), size_guidance={"scalars": 0, "tensors": 0})
    accumulator.Reload()
    return accumulator


@pytest.fixture(scope="module")
def heart(tmp_path_factory):
    federation = script.heart()
    config = script.config(federation, training={"lr": 0.01})
    return logged(tmp_path_factory.mktemp("heart"), config, script.run(federation))


def test_metrics_stand_under_the_node_with_the_round_as_step(heart):
    expected = [r.metrics["world/us/cleveland"]["auc"] for r in script.run(script.heart()) if isinstance(r, Evaluated)]
    points = heart.Scalars("world/us/cleveland/auc")
    assert [point.step for point in points] == list(range(1, 16))
    assert [point.value for point in points] == pytest.approx(expected)
    assert len(heart.Scalars("world/us/cleveland/train_loss")) == 15
    assert "world/us/cleveland/lr" not in heart.Tags()["scalars"], "no schedule gave one"


def test_of_a_run_of_weeks_the_many_curves_have_ever_fewer_points_and_the_last(tmp_path, monkeypatch):
    monkeypatch.setattr("hierfl.monitor.tensorboard.ALL", 4)
    federation = script.heart()
    log = logged(tmp_path, script.config(federation), script.run(federation))
    steps = {tag: [point.step for point in log.Scalars(tag)] for tag in log.Tags()["scalars"]}
    few, all_ = [1, 2, 3, 4, 6, 8, 12, 15], list(range(1, 16))
    many = ("world/us/loss", "world/us/cleveland/train_loss", "workers/worker-1/busy", "bytes/world/us")
    assert [steps[tag] for tag in (*many, "schedule/device/worker-1/idle")] == [few] * 5
    whole = (
        "bytes/world",
        "world/loss",
        "time/train",
        "workers/busy",
        "schedule/hub/world/idle",
        "bytes/up",
        "fairness/loss/mean",
    )
    assert [steps[tag] for tag in whole] == [all_] * 7


def test_of_a_run_that_measures_now_and_then_each_measurement_counts(tmp_path, monkeypatch):
    monkeypatch.setattr("hierfl.monitor.tensorboard.ALL", 2)
    federation = script.heart()
    config = dataclasses.replace(script.config(federation), evaluation=Evaluation(every=5))
    seldom = [one for one in script.run(federation) if not isinstance(one, Evaluated) or one.round_number % 5 == 0]
    log = logged(tmp_path, config, seldom)
    assert [point.step for point in log.Scalars("world/us/loss")] == [5, 10, 15]


def test_what_was_of_a_round_is_not_of_the_next(tmp_path, monkeypatch):
    """One site trains in the first round only, and a process of its hub is replaced there."""
    monkeypatch.setattr("hierfl.monitor.tensorboard.ALL", 4)
    federation, records = script.heart(), []
    for record in script.run(federation, until=8):
        if not (isinstance(record, SiteTrained) and record.node.endswith("cleveland") and record.round_number > 1):
            records.append(dataclasses.replace(record, lr=0.5) if isinstance(record, SiteTrained) else record)
        if isinstance(record, RoundClosed) and record.node == "world/us" and record.round_number == 1:
            records.append(ReplicaReplaced(record.time_s, "world/us", 2, 3, "died", "its process died", 1))
    log = logged(tmp_path, script.config(federation), records)
    for tag in ("world/us/cleveland/train_loss", "world/us/cleveland/lr", "replicas/world/us/replaced"):
        assert [point.step for point in log.Scalars(tag)] == [1]
    assert [point.value for point in log.Scalars("world/switzerland/zurich_basel/lr")] == [0.5] * 6
    assert b"replica 2 died: its process died" in log.Tensors("replicas/world/us")[0].tensor_proto.string_val[0]
    assert [point.value for point in log.Scalars("bytes/up")] == [4 * 480] * 8
    assert [point.step for point in log.Scalars("world/us/loss")] == [1, 2, 3, 4, 6, 8], "none is written twice"


def test_bytes_that_compression_spared_are_there_where_it_did(heart, tmp_path):
    federation = script.heart()
    records = [
        dataclasses.replace(record, bytes_spared=10) if isinstance(record, RoundClosed) else record
        for record in script.run(federation)
    ]
    log = logged(tmp_path, script.config(federation, training={"lr": 0.01}), records)
    assert [point.value for point in log.Scalars("bytes/spared")] == [10 * 4] * 15
    assert "bytes/spared" not in heart.Tags()["scalars"]


def test_undefined_metrics_are_left_out(heart):
    tags = heart.Tags()["scalars"]
    assert "world/switzerland/zurich_basel/auc" not in tags
    assert "world/switzerland/zurich_basel/accuracy" in tags


def test_times_bytes_and_workers_are_there(heart):
    phases = ("round", "wait", "load", "train", "evaluate", "aggregate", "transfer")
    for tag in [f"time/{phase}" for phase in phases] + ["bytes/up", "bytes/world/us", "workers/busy"]:
        assert len(heart.Scalars(tag)) == 15
    assert heart.Scalars("bytes/up")[0].value == 4 * 480
    busy = [heart.Scalars(f"workers/{worker}/busy")[3].value for worker in script.WORKERS]
    idle = [heart.Scalars(f"workers/{worker}/idle")[3].value for worker in script.WORKERS]
    assert [a + b for a, b in zip(busy, idle, strict=True)] == pytest.approx([1, 1])
    assert sum(busy) / 2 == pytest.approx(heart.Scalars("workers/busy")[3].value, abs=0.01)
    spent = sum(heart.Scalars(f"time/{phase}")[3].value for phase in ("wait", "load", "train", "evaluate"))
    assert spent == pytest.approx(2 * heart.Scalars("time/round")[3].value, abs=1e-5)


def test_the_schedules_figures_are_there_of_the_run_its_devices_and_hubs(heart):
    assert heart.Scalars("schedule/goodput")[0].value == pytest.approx(1 - heart.Scalars("schedule/idle")[0].value)
    for what in ("device/worker-1", "hub/world/us"):
        for figure in ("idle", "floor", "avoidable", "efficiency", "goodput"):
            assert len(heart.Scalars(f"schedule/{what}/{figure}")) == 15
    assert heart.Scalars("schedule/device/worker-1/goodput")[0].value == pytest.approx(0.6)


def test_the_timeline_is_drawn_as_the_run_goes(tmp_path):
    federation = script.heart()
    monitor = TensorBoard(tmp_path, script.config(federation))
    monitor._draw_at_s = 2.0
    drawn = []
    for record in script.run(federation):
        monitor.on(record)
        drawn.append(monitor._draw_at_s)
    assert len(set(drawn)) > 2, "drawn anew when the run is half as old again"
    monitor.close()
    steps = [image.step for image in read(tmp_path).Images("timeline")]
    assert len(steps) == len(set(drawn)) and steps[-1] == 15 and steps[0] < 8


def test_the_configuration_is_text_and_the_tree_a_picture(heart):
    text = heart.Tensors("config")[0].tensor_proto.string_val[0].decode()
    assert "    training:\n      lr: 0.01\n" in text
    image = matplotlib.image.imread(io.BytesIO(heart.Images("tree")[0].encoded_image_string))
    assert image.shape[1] > 500
    assert image.std() > 0.05


def test_a_tree_of_a_hundred_tiers_is_text_too(tmp_path):
    federation = {"name": "deepest", "members": [{"name": "site"}]}
    for tier in range(100):
        federation = {"name": f"hub-{tier}", "members": [federation]}
    config = dataclasses.replace(script.config(script.heart()), resolved={"federation": federation})
    found = logged(tmp_path, config, script.run(script.heart()))
    assert b"name: deepest" in found.Tensors("config")[0].tensor_proto.string_val[0]


def layout_of(found):
    """The one that TensorBoard shows: it keeps the last."""
    layout = layout_pb2.Layout()
    layout.ParseFromString(found.Tensors("custom_scalars__config__")[-1].tensor_proto.string_val[0])
    return layout


def test_each_tier_has_a_layout_whose_patterns_meet_existing_tags(heart):
    layout = layout_of(heart)
    assert [category.title for category in layout.category] == [
        "tier 0",
        "tier 1",
        "tier 2",
        "time",
        "schedule",
        "workers",
    ]
    chart = next(chart for chart in layout.category[1].chart if chart.title == "accuracy")
    assert list(chart.multiline.tag) == [f"^world/{name}/accuracy$" for name in ("us", "hungary", "switzerland")]


def test_what_a_task_measures_has_its_charts_and_no_other(tmp_path):
    federation = script.heart()
    records = list(script.run(federation, until=2))
    for place, record in enumerate(records):
        if isinstance(record, Evaluated):
            days = {path: {"num_test": 9, "auc": None, "loss": 2.0, "absolute_error": 1.5} for path in record.metrics}
            records[place] = dataclasses.replace(record, metrics=days)
    layout = layout_of(logged(tmp_path, script.config(federation), records))
    charts = [[chart.title for chart in category.chart] for category in layout.category[:3]]
    assert charts == [["loss", "absolute_error"], ["loss", "absolute_error"], ["loss", "absolute_error", "train_loss"]]
    never = [record for record in records if not isinstance(record, Evaluated)]
    found = logged(tmp_path / "never", script.config(federation), never)
    assert [category.title for category in layout_of(found).category] == [c.title for c in layout.category]


def test_hparams_name_the_settings_and_the_roots_metrics(heart):
    content = heart.PluginTagToContent("hparams")["_hparams_/experiment"]
    for word in (b"lr", b"optimizer", b"batch_size", b"strategy", b"world/auc"):
        assert word in content
    assert b"lr_schedule" not in content
    assert b"rounds" not in content, "a resumed run may have others, and TensorBoard keeps those of the first process"


def _with_lr(lr, written):
    """The heart federation; `lr` of the sites that have one of their own, and the YAML that says so."""
    config = script.config(script.heart())
    sites = {
        path: dataclasses.replace(site, training=Training(lr=lr.get(path.rpartition("/")[2], 0.05)))
        for path, site in config.sites.items()
    }
    return dataclasses.replace(config, sites=sites, resolved={**config.resolved, **written})


def test_hparams_name_what_holds_where_no_hub_or_site_overrides_it():
    written = {"training": {"lr": 0.05}}
    assert _settings(_with_lr({}, written))["lr"] == 0.05
    assert _settings(_with_lr({"budapest": 0.1}, written))["lr"] == 0.05
    at_root = {"training": {"lr": 0.3}, "federation": {"training": {"lr": 0.05}}}
    assert _settings(_with_lr({"budapest": 0.1}, at_root))["lr"] == 0.05
    everywhere = dict.fromkeys(script.SAMPLES, 0.1)
    assert _settings(_with_lr(everywhere, written))["lr"] == 0.1
    assert _settings(_with_lr({**everywhere, "budapest": 0.2}, written))["lr"] == "mixed"


def test_hparams_name_a_schedule_by_its_kind():
    config = script.config(script.heart())
    training = Training(lr_schedule={"kind": "ExponentialLR", "gamma": 0.5})
    sites = {path: dataclasses.replace(site, training=training) for path, site in config.sites.items()}
    assert _settings(dataclasses.replace(config, sites=sites))["lr_schedule"] == "ExponentialLR"


def test_only_so_many_sites_have_curves_but_every_hub(tmp_path):
    federation = script.wide(10, 100, rounds=1)
    config = dataclasses.replace(script.config(federation), output=Output(tensorboard_sites=20))
    tags = logged(tmp_path, config, script.run(federation)).Tags()["scalars"]
    with_auc = {tag.removesuffix("/auc") for tag in tags if tag.endswith("/auc")}
    assert with_auc >= set(federation.hubs)
    sites = with_auc - set(federation.hubs)
    assert len(sites) == 20
    assert {path.split("/")[1] for path in sites} == {hub.name for hub in federation.root.members}


def test_a_resumed_run_replaces_the_rounds_that_are_run_again(tmp_path):
    federation = script.heart()
    config = script.config(federation)
    first = TensorBoard(tmp_path, config)
    for record in script.run(federation, until=5):
        first.on(record)
    first.close()
    again = logged(tmp_path, config, script.run(federation, first=4))
    assert [point.step for point in again.Scalars("world/auc")] == list(range(1, 16))


def test_a_run_that_never_started_leaves_no_log(tmp_path):
    monitor = TensorBoard(tmp_path, script.config(script.heart()))
    monitor.on(RunEnded(0.1, "failed"))
    monitor.close()
    assert not (tmp_path / FOLDER).exists()


def test_evenly_keeps_order_and_spreads():
    assert evenly("abc", 5) == ["a", "b", "c"]
    assert evenly("abcdefghij", 5) == ["a", "c", "e", "g", "i"]
    assert evenly("abc", 0) == []
