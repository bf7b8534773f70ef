"""Where a traceback of the user's code begins."""

from __future__ import annotations

from pathlib import Path

import pytest

import hierfl
from hierfl.frames import spelt

FOLDER = Path(hierfl.__file__).parent


def raised(*files: Path) -> str:
    """Let code of these files call each other, the last one fail, and spell that."""
    call = None
    for file in reversed(files):
        names: dict[str, object] = {"then": call}
        exec(compile("def step():\n    then() if then else {}['gone']", file, "exec"), names)
        call = names["step"]
    with pytest.raises(KeyError) as caught:
        call()  # type: ignore[operator]
    trace = caught.value.__traceback__
    assert trace is not None
    return spelt(caught.value.with_traceback(trace.tb_next))


@pytest.mark.parametrize("own", [Path("/srv/ward.py"), FOLDER / "tasks" / "parquet.py"])
def test_what_stands_before_the_first_frame_of_a_task_is_left_out(own: Path) -> None:
    said = raised(FOLDER / "runtime" / "worker.py", FOLDER / "learning" / "training.py", own, FOLDER / "errors.py")
    assert said.startswith("KeyError: 'gone'\nTraceback (most recent call last):\n  File \"" + str(own))
    assert "worker.py" not in said and "training.py" not in said and "errors.py" in said


def test_of_a_mistake_that_is_ours_nothing_is_left_out() -> None:
    said = raised(FOLDER / "runtime" / "worker.py", FOLDER / "learning" / "training.py")
    assert "worker.py" in said and "training.py" in said
