"""The Gantt chart: rows are devices; loading, waiting, and having nothing to do look different."""

from __future__ import annotations

from matplotlib.collections import PolyCollection
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from hierfl.monitor.pictures import timeline
from hierfl.monitor.tape import Tape


def tape() -> Tape:
    """A card with two workers and a processor; a round from 1 to 6, nothing until 7, then a measurement until 8."""
    found = Tape()
    found.start(["card.0", "card.1", "cpu"], {"card.0": "card", "card.1": "card"}, 1)
    found.phase("cpu", "train", 1, 4)
    found.phase("cpu", "load", 1, 2)
    found.phase("card.0", "train", 1, 3)
    found.phase("card.1", "train", 2, 5)
    found.phase("world", "aggregate", 5, 6)
    found.closed("world/us", 5, 4)
    found.closed("world", 6, 5)
    found.phase("cpu", "evaluate", 7, 8)
    found.evaluated(8)
    found.commits.append((1, 8.0))
    return found


def boxes(figure: Figure, hue: str) -> list[tuple[float, float]]:
    """List the spans drawn in a colour."""
    found = [
        c for c in figure.axes[0].collections if isinstance(c, PolyCollection) and to_hex(c.get_facecolor()[0]) == hue
    ]
    corners = [path.vertices[:, 0] for one in found for path in one.get_paths()]
    return sorted((float(min(x)), float(max(x))) for x in corners)


def hue(figure: Figure, word: str) -> str:
    legend = figure.legends[0]
    return next(
        to_hex(handle.get_facecolor())
        for handle, text in zip(legend.get_patches(), legend.get_texts(), strict=True)
        if text.get_text() == word
    )


def test_rows_are_devices_and_hubs() -> None:
    names = [label.get_text() for label in timeline(tape()).axes[0].get_yticklabels()]
    assert names == ["card", "cpu", "world"]


def test_a_device_waits_where_a_round_or_a_measurement_is_open() -> None:
    """The card is free from 5 to 6 and from 7 to 8, the processor from 4 to 6; from 6 to 7 there is nothing to do."""
    figure = timeline(tape())
    assert boxes(figure, hue(figure, "waiting")) == [(4.0, 6.0), (5.0, 6.0), (7.0, 8.0)]
    texts = [text.get_text() for text in figure.texts]
    assert any(text.startswith("devices busy 57%, waiting 29%, nothing to do 14%") for text in texts)


def test_loading_lies_on_the_training_that_it_is_part_of() -> None:
    figure = timeline(tape())
    assert boxes(figure, hue(figure, "loading")) == [(1.0, 2.0)]
    order = [to_hex(c.get_facecolor()[0]) for c in figure.axes[0].collections if isinstance(c, PolyCollection)]
    assert order.index(hue(figure, "loading")) > order.index(hue(figure, "training"))
    assert {"loading", "training", "measuring", "aggregating", "waiting", "nothing to do"} == {
        text.get_text() for text in figure.legends[0].get_texts()
    }


def test_workers_of_one_device_have_lanes_that_do_not_overlap() -> None:
    figure = timeline(tape())
    training = hue(figure, "training")
    drawn = [
        c
        for c in figure.axes[0].collections
        if isinstance(c, PolyCollection) and to_hex(c.get_facecolor()[0]) == training
    ]
    heights = [sorted(path.vertices[:, 1])[:: len(path.vertices) - 1] for one in drawn for path in one.get_paths()]
    for place, (low, high) in enumerate(sorted(map(tuple, heights))):
        following = sorted(map(tuple, heights))[place + 1 :]
        assert all(other_low >= high - 1e-9 for other_low, _ in following)
        assert high > low


def test_a_long_run_keeps_its_newest_bars() -> None:
    short = Tape(3)
    short.committed(1, 0.0)
    for second in range(9):
        short.phase("x", "train", second, second + 1)
    assert [bar.start_s for bar in short.bars] == [6, 7, 8]
    assert list(short.commits) == [(1, 0.0)], "in a round that has more of them than that, it is known which"


def test_a_run_of_weeks_keeps_no_more_rounds_than_bars() -> None:
    short = Tape(30)
    for number in range(1, 1001):
        short.phase("x", "train", number, number + 0.5)
        short.phase("x", "evaluate", number + 0.5, number + 0.8)
        short.closed("world", number + 0.5, 0.5)
        short.evaluated(number + 0.8)
        short.commits.append((number, number + 0.9))
    assert len(short.bars) == 30 and len(short.open) <= 32 and len(short.commits) <= 17
    assert [number for number, _ in short.commits][-1] == 1000
    assert min(short.open)[0] <= short.bars[0].start_s, "what is drawn has all that it waited for"


def test_the_longest_paths_leave_room_for_the_bars() -> None:
    """Three hubs of 60 letters below each other had more than the whole picture's width, and the run a traceback."""
    found = tape()
    path = "world/" + "/".join(["Universitätsklinikum Hamburg-Eppendorf, Kardiologie, Haus 1"] * 3)
    found.phase(path, "aggregate", 4, 5)
    axes = timeline(found).axes[0]
    assert axes.get_position().width > 0.4
    said = axes.get_yticklabels()[-1].get_text()
    assert said.startswith("world/Universitätsklinik…") and said.endswith("Kardiologie, Haus 1")
    assert len(said) == 48
