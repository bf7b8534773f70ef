"""A TensorBoard event file, written with tensorboard's own messages and records.

torch.utils.tensorboard writes the same, but importing torch costs the supervisor two seconds and 190 MB; tensorboard's
own writer lets a full disk end its thread with a traceback on the screen.
"""

from __future__ import annotations

import itertools
import os
import queue
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from tensorboard.compat.proto import event_pb2, summary_pb2, tensor_pb2, tensor_shape_pb2, types_pb2
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.custom_scalar import metadata as custom_scalar
from tensorboard.plugins.hparams import api_pb2, plugin_data_pb2
from tensorboard.plugins.hparams import metadata as hparams
from tensorboard.plugins.text import metadata as text
from tensorboard.summary.writer.record_writer import RecordWriter

from hierfl.errors import OutputError

__all__ = ["EventFile"]

QUEUE = 10_000
FLUSH_S = 5.0
PREFIX = "events.out.tfevents."

_numbers = itertools.count()


class EventFile:
    """One event file in a folder; points are queued and written by a thread.

    `purge_step`: a reader drops what earlier files of the folder say from this step on. Errors: every method may raise
    OutputError that names the file, where it cannot be written (a full disk); once, and all that follows is dropped.

    Readers take a folder's files in the order of their names: the newest file has the largest stamp, whatever the clock
    of the machine says, and also where two begin within one second.
    """

    def __init__(self, folder: Path, purge_step: int | None = None) -> None:
        own = f"{socket.gethostname()}.{os.getpid()}.{next(_numbers)}"
        self._records = _Records(folder / f"{PREFIX}{_stamp(folder):010d}.{own}")
        self._event(file_version="brain.Event:2")
        if purge_step is not None:
            start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
            self._event(step=purge_step, session_log=start)

    def scalar(self, tag: str, value: float, step: int) -> None:
        """Add a point to a curve."""
        self._add(summary_pb2.Summary.Value(tag=tag, simple_value=value), step)

    def text(self, tag: str, markdown: str) -> None:
        """Add a text in Markdown."""
        shape = tensor_shape_pb2.TensorShapeProto(dim=[tensor_shape_pb2.TensorShapeProto.Dim(size=1)])
        self._tensor(tag, markdown.encode(), text.create_summary_metadata(tag, ""), shape)

    def image(self, tag: str, png: bytes, step: int = 0) -> None:
        """Add a picture, given as the bytes of a PNG; its header holds width and height."""
        width, height = int.from_bytes(png[16:20], "big"), int.from_bytes(png[20:24], "big")
        picture = summary_pb2.Summary.Image(encoded_image_string=png, width=width, height=height, colorspace=4)
        self._add(summary_pb2.Summary.Value(tag=tag, image=picture), step)

    def custom_scalars(self, layout: Mapping[str, Mapping[str, Sequence[str]]]) -> None:
        """Lay out charts: {category: {title: tags}}; tags are regular expressions."""
        categories = [
            layout_pb2.Category(
                title=category,
                chart=[
                    layout_pb2.Chart(title=title, multiline=layout_pb2.MultilineChartContent(tag=tags))
                    for title, tags in charts.items()
                ],
            )
            for category, charts in layout.items()
        ]
        content = layout_pb2.Layout(category=categories).SerializeToString()
        self._tensor(custom_scalar.CONFIG_SUMMARY_TAG, content, custom_scalar.create_summary_metadata())

    def hparams(self, settings: Mapping[str, Any], metrics: Sequence[str]) -> None:
        """Describe the run by its settings (numbers, words) and the tags of the curves to compare it by."""
        infos = [
            api_pb2.HParamInfo(
                name=name, type=api_pb2.DATA_TYPE_FLOAT64 if _number(value) else api_pb2.DATA_TYPE_STRING
            )
            for name, value in settings.items()
        ]
        columns = [api_pb2.MetricInfo(name=api_pb2.MetricName(tag=tag)) for tag in metrics]
        begun = plugin_data_pb2.SessionStartInfo(start_time_secs=time.time())
        for name, value in settings.items():
            if _number(value):
                begun.hparams[name].number_value = value
            else:
                begun.hparams[name].string_value = str(value)
        ended = plugin_data_pb2.SessionEndInfo(status=api_pb2.STATUS_SUCCESS, end_time_secs=time.time())
        experiment = api_pb2.Experiment(hparam_infos=infos, metric_infos=columns)
        self._hparams(hparams.EXPERIMENT_TAG, plugin_data_pb2.HParamsPluginData(experiment=experiment))
        self._hparams(hparams.SESSION_START_INFO_TAG, plugin_data_pb2.HParamsPluginData(session_start_info=begun))
        self._hparams(hparams.SESSION_END_INFO_TAG, plugin_data_pb2.HParamsPluginData(session_end_info=ended))

    def flush(self) -> None:
        """Write what is queued."""
        self._records.flush()

    def close(self) -> None:
        """Write what is queued and close the file; closing twice does no harm."""
        self._records.close()

    def _hparams(self, tag: str, content: Any) -> None:
        """Add one message of the hparams plugin, which lives in the metadata."""
        metadata = hparams.create_summary_metadata(content)
        self._add(summary_pb2.Summary.Value(tag=tag, metadata=metadata, tensor=hparams.NULL_TENSOR), 0)

    def _tensor(self, tag: str, content: bytes, metadata: Any, shape: Any = None) -> None:
        """Add bytes for a plugin, as a scalar string tensor or one of a shape."""
        shape = shape or tensor_shape_pb2.TensorShapeProto()
        tensor = tensor_pb2.TensorProto(dtype=types_pb2.DT_STRING, string_val=[content], tensor_shape=shape)
        self._add(summary_pb2.Summary.Value(tag=tag, metadata=metadata, tensor=tensor), 0)

    def _add(self, value: Any, step: int) -> None:
        """Queue one summary."""
        self._event(step=step, summary=summary_pb2.Summary(value=[value]))

    def _event(self, **content: Any) -> None:
        self._records.write(event_pb2.Event(wall_time=time.time(), **content).SerializeToString())


class _Records:
    """A file of records, written by a thread; what goes wrong there is raised here, by the next call.

    The file is on disk after every FLUSH_S seconds in which something came.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._error: OSError | None = None
        self._told = False
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file: IO[bytes] = path.open("wb")
        except OSError as error:
            raise self._failed(error) from error
        self._queue: queue.Queue[bytes | None] = queue.Queue(QUEUE)
        self._thread = threading.Thread(target=self._work, name="hierfl-event-file", daemon=True)
        self._thread.start()

    def write(self, record: bytes) -> None:
        """Queue one record."""
        self._queue.put(record)
        self._check()

    def flush(self) -> None:
        """Wait until all that is queued was written."""
        self._queue.join()
        self._guard(self._file.flush)
        self._check()

    def close(self) -> None:
        """Write what is queued, end the thread and close the file."""
        if self._file.closed:
            return
        self._queue.put(None)
        self._thread.join()
        try:
            self._file.close()
        except OSError as error:  # what was told first is the cause of this too
            self._error = self._error or error
        self._check()

    def _work(self) -> None:
        """Write what comes, and go on taking it after an error, so that nobody waits for a place in the queue."""
        writer = RecordWriter(self._file)
        flushed_s, pending = time.monotonic(), False
        while True:
            try:
                record = self._queue.get(timeout=FLUSH_S if pending else None)
            except queue.Empty:
                record = b""
            if record is None:
                return
            if record:
                self._guard(lambda record=record: writer.write(record))  # type: ignore[misc]
                pending = True
                self._queue.task_done()
            if pending and time.monotonic() - flushed_s > FLUSH_S:
                self._guard(self._file.flush)
                flushed_s, pending = time.monotonic(), False

    def _guard(self, work: Callable[[], object]) -> None:
        """Keep the first error, and do nothing after it."""
        try:
            if self._error is None:
                work()
        except OSError as error:
            self._error = error

    def _check(self) -> None:
        """Raise what went wrong in the thread, once."""
        if self._error is not None and not self._told:
            self._told = True
            raise self._failed(self._error) from self._error

    def _failed(self, error: OSError) -> OutputError:
        return OutputError(
            f"cannot write {self._path}: {error.strerror or error}; free space, choose another folder (output.dir), or"
            " do without this log (output.tensorboard=false)"
        )


def _stamp(folder: Path) -> int:
    """Give the second that a new file begins in, or the one after the newest file's, where that is no earlier."""
    stamps = [path.name.removeprefix(PREFIX).partition(".")[0] for path in folder.glob(f"{PREFIX}*")]
    return max([int(time.time()), *(int(stamp) + 1 for stamp in stamps if stamp.isdecimal())])


def _number(value: Any) -> bool:
    """Say whether a setting is a number for the HPARAMS page."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)
