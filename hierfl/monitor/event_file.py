"""A TensorBoard event file, written with tensorboard's own writer and messages.

torch.utils.tensorboard writes the same, but importing torch costs the supervisor two seconds and 190 MB.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tensorboard.compat.proto import event_pb2, summary_pb2, tensor_pb2, tensor_shape_pb2, types_pb2
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.custom_scalar import metadata as custom_scalar
from tensorboard.plugins.hparams import api_pb2, plugin_data_pb2
from tensorboard.plugins.hparams import metadata as hparams
from tensorboard.plugins.text import metadata as text
from tensorboard.summary.writer.event_file_writer import EventFileWriter

__all__ = ["EventFile"]

QUEUE = 10_000
FLUSH_S = 5


class EventFile:
    """One event file in a folder; points are queued and written by a thread of the writer's own.

    `purge_step`: a reader drops what earlier files of the folder say from this step on.
    """

    def __init__(self, folder: Path, purge_step: int | None = None) -> None:
        self._writer = EventFileWriter(str(folder), QUEUE, FLUSH_S)
        if purge_step is not None:
            start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
            self._writer.add_event(event_pb2.Event(wall_time=time.time(), step=purge_step, session_log=start))

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
        self._writer.flush()

    def close(self) -> None:
        """Write what is queued and close the file."""
        self._writer.close()

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
        summary = summary_pb2.Summary(value=[value])
        self._writer.add_event(event_pb2.Event(wall_time=time.time(), step=step, summary=summary))


def _number(value: Any) -> bool:
    """Say whether a setting is a number for the HPARAMS page."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)
