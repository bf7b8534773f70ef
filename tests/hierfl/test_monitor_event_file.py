from __future__ import annotations

import itertools
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from hierfl.errors import OutputError
from hierfl.monitor.event_file import EventFile

FULL_DISK = """
import resource, signal, sys
from pathlib import Path
from hierfl.errors import OutputError
from hierfl.monitor.event_file import EventFile

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
log = EventFile(Path(sys.argv[1]))
told = []
for step in range(3_000):
    for call in (lambda: log.scalar("world/loss", 0.5, step), log.flush):
        try:
            call()
        except OutputError as error:
            told.append(str(error))
for _ in range(2):
    try:
        log.close()
    except OutputError as error:
        told.append(str(error))
print(*told, sep="\\n")
"""


def test_a_full_disk_is_told_once_and_without_a_traceback(tmp_path: Path) -> None:
    command = [sys.executable, "-W", "error", "-c", FULL_DISK, str(tmp_path / "tensorboard")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert done.stderr == ""
    (told,) = done.stdout.splitlines()
    assert told.startswith(f"cannot write {tmp_path / 'tensorboard'}/events.out.tfevents.")
    assert "File too large" in told and "output.tensorboard=false" in told
    log = EventAccumulator(str(tmp_path / "tensorboard"))
    log.Reload()
    assert len(log.Scalars("world/loss")) > 100


def test_what_is_queued_is_on_disk_after_a_flush_and_a_close_ends_the_thread(tmp_path: Path) -> None:
    log = EventFile(tmp_path)
    log.scalar("a", 1.0, 1)
    log.flush()
    reader = EventAccumulator(str(tmp_path))
    assert [point.value for point in reader.Reload().Scalars("a")] == [1.0]
    log.scalar("a", 2.0, 2)
    log.close()
    log.close()
    assert [point.value for point in reader.Reload().Scalars("a")] == [1.0, 2.0]
    assert not [thread for thread in threading.enumerate() if thread.name == "hierfl-event-file"]


def test_two_files_of_one_moment_have_two_names(tmp_path: Path) -> None:
    for log in [EventFile(tmp_path), EventFile(tmp_path)]:
        log.close()
    assert len(list(tmp_path.iterdir())) == 2


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "tensorboard").write_text("a file where the folder should be")
    with pytest.raises(OutputError, match=f"cannot write {tmp_path}/tensorboard/events"):
        EventFile(tmp_path / "tensorboard")


@pytest.mark.parametrize("later_s", [0.0, -3600.0], ids=["in the same second", "by a clock that is behind"])
def test_a_file_that_is_begun_later_is_read_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, later_s: float
) -> None:
    monkeypatch.setattr("hierfl.monitor.event_file._numbers", itertools.count(9))  # "10" sorts before "9"
    begun_s = time.time()
    for purge_step, steps, now_s in ((None, (1, 2, 3, 4, 5), begun_s), (4, (4, 5, 6), begun_s + later_s)):
        with monkeypatch.context() as patched:
            patched.setattr("time.time", lambda now_s=now_s: now_s)
            log = EventFile(tmp_path, purge_step)
        for step in steps:
            log.scalar("loss", 0.5, step)
        log.close()
    accumulator = EventAccumulator(str(tmp_path))
    accumulator.Reload()
    assert [point.step for point in accumulator.Scalars("loss")] == [1, 2, 3, 4, 5, 6]
