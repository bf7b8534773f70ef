"""The table of models by sites: what is shown of it, and a file that is damaged."""

import warnings
from itertools import pairwise

import pytest

from hierfl.errors import ConfigError, OutputError
from hierfl.monitor.cross_site import FILE, Matrix, check_measured, read_matrix, short, write_matrix
from hierfl.monitor.pictures import style
from hierfl.monitor.pictures.heat import heat


def test_the_metric_that_is_defined_most_often_is_shown_and_hubs_but_the_root_are_left_out():
    row = {
        "w": {"accuracy": 0.5, "auc": 0.75},
        "w/us": {"accuracy": 0.5, "auc": 0.5},
        "w/us/a": {"accuracy": 1.0, "auc": None},
        "w/b": {"accuracy": 0.0, "auc": None},
    }
    name, table = Matrix(3, {"w": row}).shown()
    assert (name, table) == ("accuracy", {"w": {"w": 0.5, "w/us/a": 1.0, "w/b": 0.0}})
    defined = {path: {**scalars, "auc": 0.5} for path, scalars in row.items()}
    assert Matrix(3, {"w": defined}).shown()[0] == "auc"


def test_the_picture_says_after_which_round_it_was_measured():
    said = [text.get_text() for text in heat(Matrix(3, {"w": {"w": {"auc": 0.75}}})).texts]
    assert any(text.endswith("; after round 3") for text in said)


@pytest.mark.parametrize("num", [1, 22, 23, 48, 49])
def test_names_in_the_picture_lie_within_it_and_do_not_touch(num: int):
    paths = ["w", *(f"w/the hospital of Saint Nobody, number {place}" for place in range(1, num))]
    made = heat(Matrix(3, {path: {key: {"auc": 0.75} for key in paths} for path in paths}))
    made.canvas.draw()
    axes, whole = made.axes[0], made.bbox
    for labels, along in ((axes.get_xticklabels(), "x"), (axes.get_yticklabels(), "y")):
        boxes = [label.get_window_extent() for label in labels if label.get_text()]
        assert len(boxes) == (num if num <= 48 else 0)
        assert all(box.x0 >= 0 and box.y0 >= 0 and box.x1 <= whole.x1 for box in boxes)
        if labels and labels[0].get_rotation() in (0.0, 90.0):
            ends = [(getattr(box, f"{along}0"), getattr(box, f"{along}1")) for box in boxes]
            assert all(one[1] <= two[0] for one, two in pairwise(sorted(ends)))
        elif len(boxes) > 1:  # slanted by 30 degrees: lines of text lie apart by half of what columns do
            assert (boxes[1].x1 - boxes[0].x1) / 2 > style.SIZE / 72 * made.dpi


def test_letters_that_the_usual_font_lacks_are_drawn_in_another_that_is_installed(monkeypatch: pytest.MonkeyPatch):
    """A font that matplotlib brings along has the one Japanese letter."""
    monkeypatch.setattr(style, "_OTHER_SCRIPTS", ("STIXGeneral", "Not Installed"))
    made = heat(Matrix(3, {path: {"w": {"auc": 0.75}, "w/のの": {"auc": 0.5}} for path in ("w", "w/のの")}))
    style.png(made)
    assert [label.get_fontfamily() for label in made.axes[0].get_yticklabels()] == [
        ["sans-serif"],
        ["sans-serif", "STIXGeneral"],
    ]
    with warnings.catch_warnings(action="ignore"):
        drawn = style.width_in("のの")
        monkeypatch.setattr(style, "_OTHER_SCRIPTS", ())
        assert style.width_in("のの") != drawn, "what is measured is what is drawn"


def test_names_are_short_where_that_tells_them_apart():
    assert short(["w", "w/x/a", "w/y/a", "w/b"]) == {"w": "w", "w/x/a": "w/x/a", "w/y/a": "w/y/a", "w/b": "b"}


def test_a_metric_that_was_never_measured_is_refused_before_any_model_is():
    nodes = {"w": {"auc": 0.5, "accuracy": None, "dice": 0.5, "num_test": 3}}
    for known, found in (("auc", nodes), ("accuracy", nodes), ("dice", nodes), ("auk", {})):
        check_measured(known, found)
    for unknown in ("auk", "num_test"):
        with pytest.raises(ConfigError, match=f"--metric {unknown}: not measured .*allowed: auc, accuracy, dice"):
            check_measured(unknown, nodes)


def test_it_is_read_as_it_was_written_and_a_damaged_file_is_named(tmp_path):
    assert read_matrix(tmp_path) is None
    matrix = Matrix(2, {"w": {"w": {"accuracy": 0.5}}})
    write_matrix(tmp_path, matrix)
    assert read_matrix(tmp_path) == matrix
    (tmp_path / FILE).write_text("{}")
    with pytest.raises(OutputError, match="damaged"):
        read_matrix(tmp_path)
