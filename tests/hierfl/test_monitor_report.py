from __future__ import annotations

import importlib
import json
import logging
import re
import struct
import warnings
from html.parser import HTMLParser

import monitor_script as script
import pytest

from hierfl.errors import OutputError
from hierfl.monitor import pictures
from hierfl.monitor.files import JsonLines
from hierfl.monitor.pictures import _quiet
from hierfl.monitor.records import Notice, RoundClosed, RunEnded
from hierfl.monitor.report import write_report
from hierfl.monitor.run_record import read_run
from hierfl.monitor.tape import Tape
from hierfl.monitor.words import WHAT_FIGURES_MEAN, seconds
from tiers.federation import Federation, Hub, Site


def folder(run_dir, federation, records, extra=()):
    lines = JsonLines(run_dir)
    for record in [*records, *extra]:
        lines.on(record)
        if isinstance(record, RunEnded):
            (run_dir / "summary.json").write_text(json.dumps(dict(record.summary)))
    lines.close()
    (run_dir / "config.yaml").write_text("name: heart\nseed: 0\n")
    return run_dir


class Checked(HTMLParser):
    """Collects text and checks that every element is closed in order."""

    VOID = ("meta", "img", "br")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.links += [value for name, value in attrs if name in ("src", "href")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open[-1:] != ["style"]:
            self.text.append(data)


def parsed(path) -> Checked:
    page = Checked()
    page.feed(path.read_text())
    page.close()
    assert page.open == []
    return page


def test_the_report_of_a_finished_run_is_whole_and_self_contained(tmp_path):
    federation = script.heart()
    page = parsed(write_report(folder(tmp_path, federation, script.run(federation))))
    text = " ".join(page.text)
    for piece in (
        "15 of 15",
        "3f2a" * 16,
        "zurich_basel",
        "name: heart",
        "torch 2.13.0",
        f"code: {'5e1f' * 16}",
        "20%",
        "0.924",
        "one class",
        "Goodput",
        WHAT_FIGURES_MEAN,
        "55%",
    ):
        assert piece in text
    assert "undefined" in text
    assert "missing" not in text
    assert len(page.links) == 4
    assert all(link.startswith("data:image/png;base64,") for link in page.links)
    assert not re.search(r"https?://|@import|url\(", (tmp_path / "report.html").read_text())
    for name in ("tree", "trajectory", "curves", "timeline"):
        data = (tmp_path / f"{name}.png").read_bytes()
        width, height = struct.unpack(">II", data[16:24])
        assert data[:4] == b"\x89PNG"
        assert width >= 1000
        assert height >= 300


def test_a_run_that_was_cut_off_says_what_is_missing(tmp_path):
    federation = script.heart()
    text = " ".join(parsed(write_report(folder(tmp_path, federation, script.run(federation, until=4)))).text)
    assert "summary.json is missing" in text
    assert "unfinished" in text
    assert "4 of 15" in text


def test_what_a_run_has_failed_of_stands_there_with_its_resume_behind_it(tmp_path):
    federation = script.heart()
    failed = RunEnded(
        9.0, "failed", {"status": "failed", "error": "world/us/cleveland could not be trained: no <disk>"}
    )
    folder(tmp_path, federation, script.run(federation, until=2), [failed])
    assert "could not be trained: no <disk>" in " ".join(parsed(write_report(tmp_path)).text)
    record = read_run(folder(tmp_path, federation, script.run(federation, first=3)))
    [told] = [notice for notice in record.notices if "no <disk>" in notice["message"]]
    assert told["level"] == "error" and record.summary["status"] == "finished"
    assert told["time_s"] < record.tape.commits[2][1], "before the rounds of the next process"


def test_a_run_that_was_cut_off_after_it_was_resumed_is_told_by_its_last_process(tmp_path):
    federation = script.heart()
    folder(tmp_path, federation, script.run(federation, until=2))
    (tmp_path / "summary.json").write_text(
        json.dumps({"status": "finished", "rounds": 2, "nodes": {"world": {"auc": 0.5}}})
    )
    folder(tmp_path, federation, script.run(federation, first=3, until=9))
    record = read_run(tmp_path)
    assert record.nodes["world"] == record.last["world"]
    text = " ".join(parsed(write_report(tmp_path)).text)
    assert "9 of 15" in text and "unfinished" in text and "summary.json is of an earlier process" in text
    assert "finished ·" not in text


def test_a_run_without_metrics_or_times_still_has_a_report(tmp_path):
    federation = script.heart()
    folder(tmp_path, federation, script.run(federation)[4:5], [Notice(1.0, "error", "world", "stopped")])
    text = " ".join(parsed(write_report(tmp_path)).text)
    assert "metrics.jsonl holds no measurement" in text
    assert "no working times" in text
    assert (tmp_path / "tree.png").exists()
    assert not (tmp_path / "curves.png").exists()


def test_confusion_counts_stand_in_the_table_and_of_many_classes_at_the_root(tmp_path):
    rows = [{"round": 1, "node": "world", "accuracy": 0.5, "true_positives": 7001, "false_negatives": 12}]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    text = " ".join(parsed(write_report(tmp_path)).text)
    assert "true + " in text and "7,001" in text and "true class" not in text
    rows = [{"round": 1, "node": "world", "accuracy": 0.5, "confusion": [[31, 2, 0], [3, 4, 0], [0, 0, 8001]]}]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    text = " ".join(parsed(write_report(tmp_path)).text)
    assert "true class, predicted as" in text and "8,001" in text and "true + " not in text


def test_what_privacy_has_cost_stands_in_the_table(tmp_path):
    rows = [{"round": 1, "node": "world", "epsilon": 5.6367}, {"round": 1, "node": "world/ulm", "epsilon": 5.6367}]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    text = " ".join(parsed(write_report(tmp_path)).text)
    assert text.count("5.64") == 2 and "at delta" not in text, "a run that goes on"
    (tmp_path / "summary.json").write_text(json.dumps({"privacy": {"sites": {"world/ulm": {"delta": 1e-4}}}}))
    assert "may tell of any one record, at delta 0.0001;" in " ".join(parsed(write_report(tmp_path)).text)


def test_a_run_that_never_began_has_only_its_configuration(tmp_path):
    (tmp_path / "config.yaml").write_text("name: x\n")
    text = " ".join(parsed(write_report(tmp_path)).text)
    assert "failed before its first round" in text
    assert "name: x" in text


def test_what_a_run_says_is_text_in_the_page(tmp_path):
    federation = Federation(Hub("w<b>", (Site('s"&<script>alert(1)'), Site("$x_{1}$")), rounds=1))
    evil = "<script>alert('x')</script>"
    folder(tmp_path, federation, script.run(federation), [Notice(1.0, evil, evil, evil)])
    (tmp_path / "config.yaml").write_text(f"name: {evil}\n")
    summary = json.loads((tmp_path / "summary.json").read_text())
    summary |= {
        "name": evil,
        "status": evil,
        "model_digest": evil,
        "versions": {evil: evil},
        "task_code": evil,
        "workers": {evil: {}},
    }
    (tmp_path / "summary.json").write_text(json.dumps(summary))
    path = write_report(tmp_path)
    assert "<script" not in path.read_text()
    assert evil in " ".join(parsed(path).text)


def test_a_resumed_runs_times_are_strung_together(tmp_path):
    federation = script.heart()
    folder(tmp_path, federation, script.run(federation, until=5))
    folder(tmp_path, federation, script.run(federation, first=4))
    record = read_run(tmp_path)
    assert record.sessions == 2
    assert [number for number, _ in record.tape.commits] == list(range(1, 16))
    times = [time_s for _, time_s in record.tape.commits]
    assert times == sorted(times)
    first = read_run(folder(tmp_path / "unbroken", federation, script.run(federation)))
    assert first.tape.commits[0][1] == pytest.approx(times[0])
    assert min(bar.start_s for bar in first.tape.bars) == pytest.approx(0.4)
    assert "resumed" in write_report(tmp_path).read_text()


def test_of_a_resumed_run_the_whole_time_stands_there_and_the_last_process_figures_say_so(tmp_path):
    federation = script.heart()
    once = " ".join(parsed(write_report(folder(tmp_path, federation, script.run(federation)))).text)
    assert "(last process)" not in once
    folder(tmp_path, federation, script.run(federation, first=15))
    summary = json.loads((tmp_path / "summary.json").read_text()) | {"wall_s": 4.0, "wall_s_total": 125.0}
    summary["traffic"] = {"bytes_up": 4500, "bytes_spared": 10}
    (tmp_path / "summary.json").write_text(json.dumps(summary))
    text = " ".join(parsed(write_report(tmp_path)).text)
    assert f"Wall time {seconds(125.0)} " in text and seconds(4.0) not in text
    for label in ("Start-up", "Devices busy", "Goodput", "Sent up", "Spared by compression", "Workers and devices"):
        assert f"{label} (last process)" in text


def test_who_is_missing_round_after_round_is_named_by_path_once_for_each_reason(tmp_path):
    federation = script.heart()

    def closed(hub, number, missing, late=()):
        return RoundClosed(float(number), hub, number, "enough", [], missing, 1.0, 0, late=late)

    lost = [closed("world/us", number, {"site": "lost"}) for number in range(1, 301)]
    again = [closed("world/us", 300, {"site": "lost"}), closed("world/us", 301, {"site": "no data"})]
    late = [closed("world/hungary", 7, {"site": "late: at work since round 7"}, ["site"])]
    folder(
        tmp_path, federation, [Notice(0.5, "info", "world", "privacy"), *script.run(federation), *lost, *again, *late]
    )
    told = [(notice["level"], notice["node"], notice["message"]) for notice in read_run(tmp_path).notices]
    assert ("info", "world", "privacy") in told
    assert told[-3:] == [
        ("warning", "world/us/site", "300 rounds closed without it, from 1 to 300: lost"),
        ("warning", "world/us/site", "round 301 closed without it: no data"),
        ("info", "world/hungary/site", "round 7 closed without it: late: at work since round 7"),
    ]


def test_members_whose_late_updates_alone_count_are_on_the_models_way(tmp_path):
    federation = script.heart()
    late = RoundClosed(99.0, "world", 16, "enough", ["us"], {}, 1.0, 0, carried={"hungary": "late", "us": "late"})
    record = read_run(folder(tmp_path, federation, script.run(federation), [late]))
    assert record.trained["world"] == ["us", "hungary"]


def test_of_many_reasons_the_last_ones_stand_there(tmp_path):
    federation = script.heart()
    reasons = [RoundClosed(1.0, "world", n, "enough", [], {"us": f"why {n}"}, 1.0, 0) for n in [*range(1, 251), 1]]
    record = read_run(folder(tmp_path, federation, reasons))
    assert (len(record.notices), record.num_notices, len(record.without)) == (200, 251, 200)
    assert record.notices[-1]["message"] == "round 1 closed without it: why 1"


def test_a_folder_that_is_no_run_is_named(tmp_path):
    with pytest.raises(OutputError, match="is no run directory"):
        write_report(tmp_path)
    with pytest.raises(OutputError, match=r"nowhere does not exist"):
        write_report(tmp_path / "nowhere")


def test_a_damaged_summary_is_named(tmp_path):
    (tmp_path / "summary.json").write_text("{")
    with pytest.raises(OutputError, match=r"summary\.json is damaged"):
        write_report(tmp_path)


@pytest.mark.slow
def test_ten_thousand_sites_keep_the_report_small(tmp_path):
    federation = script.wide(100, 100, rounds=1)
    path = write_report(folder(tmp_path, federation, script.run(federation)))
    assert path.stat().st_size < 2_000_000
    assert path.read_text().count("<tr") < 1_100
    assert "9,101 more nodes" in path.read_text()


def test_no_box_of_a_tree_lies_on_another():
    federation = script.heart()
    notes = dict.fromkeys(federation.hubs, "star, fedavg, rounds 1")
    boxes = [
        patch for patch in pictures.tree(federation.nodes, notes).axes[0].patches if hasattr(patch, "get_boxstyle")
    ]
    spans = [(box.get_x(), box.get_x() + box.get_width(), box.get_y(), box.get_y() + box.get_height()) for box in boxes]
    assert len(spans) == 8
    for place, (left, right, low, high) in enumerate(spans):
        for a, b, c, d in spans[place + 1 :]:
            assert right <= a or b <= left or high <= c or d <= low


def test_a_deep_tree_stays_legible_in_width():
    deep = Hub("h0", (Site("leaf"),))
    for depth in range(1, 60):
        deep = Hub(f"h{depth}", (deep, Site(f"a-site-with-a-rather-long-name-{depth}")))
    figure = pictures.tree(Federation(deep).nodes)
    assert figure.get_size_inches()[0] < 17


def test_pictures_without_data_say_so():
    with pytest.raises(ValueError, match="no row has a value"):
        pictures.curves([{"round": 1, "node": "w", "auc": None}], ["auc"])
    with pytest.raises(ValueError, match="no phase"):
        pictures.timeline(Tape())


def test_letters_that_the_font_lacks_and_a_home_that_cannot_be_written_are_not_told() -> None:
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        importlib.reload(_quiet)
        pictures.png(pictures.tree(["世界", "世界/東京"]))
    assert told == []
    assert logging.getLogger("matplotlib.font_manager").getEffectiveLevel() > logging.WARNING


def test_no_words_of_a_panel_lie_on_others():
    names = ("loss", *(f"auc_lung_opacity_in_the_{side}_lobe_beside_the_heart" for side in ("left", "right", "middle")))
    rows = [{"round": n, "node": "w", **dict.fromkeys(names, 0.5)} for n in (1, 2)]
    rows += [{"round": n, "node": f"w/{site}"} for n in (1, 2) for site in range(2000)]
    made = pictures.curves(rows, names)
    made.canvas.draw()
    words = [text for axes in made.axes for text in (*axes.texts, axes._left_title, axes.xaxis.label)]
    words += [*made.texts, *(text for legend in made.legends for text in legend.get_texts())]
    boxes = [text.get_window_extent() for text in words if text.get_text()]
    assert sum("undefined at 2,000 of 2,001" in text.get_text() for text in words) == len(names)
    for place, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[place + 1 :])
