"""TensorBoard event files of one trial: curves, texts and the row of the HParams tab.

The records are TensorBoard's own (`RecordWriter` and its protocol buffers), appended to the file at each
call: no thread, nothing held back, no file kept open, and TensorFlow is not imported where it happens to be
installed. TensorBoard itself is imported by the first board, so importing this module is cheap.

Curves are worth less than the training they show. When an event file cannot be written (disk full, directory
gone), nothing is raised: the board goes silent and keeps the reason in `error`, and the study says it once.
"""

from __future__ import annotations

import itertools
import math
import os
import socket
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, SupportsFloat

DIVERGED = "trial/diverged"
"""Tag of the mark of a diverged trial: 1 at the step where it ended. Other trials do not have it."""

_file_numbers = itertools.count()


class Domain(Protocol):
    """What the HParams tab asks of a distribution (see `tune_rnn.space`)."""

    def categories(self) -> int | None: ...

    def corners(self) -> tuple[Any, ...]: ...


class TrialBoard:
    """The event files of one trial, with one writer.

    Opening it puts the trial's row into the HParams tab at once. Opening it again on the same directory (the
    trial goes on after an interruption) adds a file: TensorBoard keeps the row, continues the curves, and
    drops points of the first file that lie beyond the step from which training went on.
    """

    def __init__(
        self,
        directory: Path,
        hyperparameters: Mapping[str, Any],
        domains: Mapping[str, Domain | None],
        metrics: Sequence[str],
    ) -> None:
        """Write the trial's row.

        directory: of this trial alone; its path below TensorBoard's `--logdir` is the trial's name there.
        hyperparameters: this trial's values by dotted key: numbers, texts, booleans, None, or numpy scalars.
        domains: what is searched in the whole study, other branches included (None: they differ in it).
            Give every trial the same: TensorBoard takes the columns from one trial, whichever it finds first.
        metrics: columns of the HParams tab, in this order; each is filled by the scalar of the same tag.
        """
        self.error: str | None = None
        """Why nothing is written any more, None while all is well."""
        self._file: Path | None = None
        self._last_step = 0
        keys = [*domains, *(key for key in hyperparameters if key not in domains)]
        columns = {
            key: _column(key, domains.get(key), hyperparameters.get(key, 0.0), searched=key in domains) for key in keys
        }
        row = _experiment(list(columns.values()), metrics), _session_start(hyperparameters, columns)
        self._attempt(lambda: self._open(directory, [{"summary": summary, "step": 0} for summary in row]))

    def scalars(self, step: int, values: Mapping[str, SupportsFloat]) -> None:
        """Add one point to each curve at `step` (training tokens processed).

        Values that are not finite are left out: no number stands for them, and they would break the sorting
        of the HParams tab. What became of the trial is said by `close`.
        """
        self._last_step = step
        self._write(_scalar_summary(values), step=step)

    def text(self, tag: str, text: str, step: int) -> None:
        """Show a text as it is, line by line."""
        self._write(_text_summary(tag, text), step=step)

    @staticmethod
    def append_text(directory: Path, tag: str, text: str, step: int) -> str | None:
        """Add a text to a trial whose board is closed; returns why that failed, None if it did not."""
        try:
            _new_file(directory, [{"summary": _text_summary(tag, text), "step": step}])
        except OSError as error:
            return f"no {tag} in TensorBoard: {error}"
        return None

    def close(self, outcome: str) -> None:
        """Say how the trial ended, as text `status` and as status of its row; nothing is written after.

        outcome: "completed", "stopped early: …", "diverged: …", "failed: …" or "interrupted". An interrupted
        trial's row is left open like a running one's: TensorBoard would ignore the status of its later, true
        end. A second call does nothing.
        """
        if self._file is None:
            return
        kind, summaries = outcome.partition(":")[0], [_text_summary("status", outcome)]
        if kind == "diverged":
            summaries.append(_scalar_summary({DIVERGED: 1.0}))
        if kind != "interrupted":
            summaries.append(_session_end(succeeded=kind in ("completed", "stopped early")))
        self._write(*summaries, step=self._last_step)
        self._file = None

    def _open(self, directory: Path, events: Iterable[dict[str, Any]]) -> None:
        self._file = _new_file(directory, events)

    def _write(self, *summaries: Any, step: int) -> None:
        file, events = self._file, [{"summary": summary, "step": step} for summary in summaries if summary.value]
        if file is not None and events:
            self._attempt(lambda: _append(file, events))

    def _attempt(self, action: Callable[[], object]) -> None:
        """Do it, or note why it cannot be done and be silent from now on."""
        try:
            action()
        except OSError as error:
            self.error = f"no more TensorBoard curves for this trial: {error}"
            self._file = None


def _new_file(directory: Path, events: Iterable[dict[str, Any]]) -> Path:
    """An event file with its first events, which TensorBoard reads after those that are there.

    It goes by their names, so the time comes first in them.
    """
    directory.mkdir(parents=True, exist_ok=True)
    host, process, number = socket.gethostname(), os.getpid(), next(_file_numbers)
    file = directory / f"events.out.tfevents.{time.time():017.6f}.{host}.{process}.{number}"
    _append(file, [{"file_version": "brain.Event:2"}, *events])
    return file


def _append(file: Path, events: Iterable[dict[str, Any]]) -> None:
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.summary.writer.record_writer import RecordWriter

    with file.open("ab") as stream:
        writer = RecordWriter(stream)
        for fields in events:
            writer.write(Event(wall_time=time.time(), **fields).SerializeToString())


def _scalar_summary(values: Mapping[str, SupportsFloat]) -> Any:
    from tensorboard.compat.proto.summary_pb2 import Summary

    finite = {tag: float(value) for tag, value in values.items() if math.isfinite(value)}
    return Summary(value=[Summary.Value(tag=tag, simple_value=value) for tag, value in finite.items()])


def _text_summary(tag: str, text: str) -> Any:
    """A text for the Text tab, which renders Markdown: there, an indented code block is shown as it is."""
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.compat.proto.tensor_pb2 import TensorProto
    from tensorboard.compat.proto.types_pb2 import DT_STRING
    from tensorboard.plugins.text.metadata import create_summary_metadata

    block = "\n".join(f"    {line}" for line in text.split("\n"))
    tensor = TensorProto(dtype=DT_STRING, string_val=[block.encode("utf-8", "replace")])
    return Summary(value=[Summary.Value(tag=tag, tensor=tensor, metadata=create_summary_metadata("", ""))])


def _plain(value: Any) -> bool | float | str:
    """The value as the HParams tab can hold it; None, which it has no type for, becomes the text "none"."""
    if callable(getattr(value, "item", None)):  # numpy scalars
        value = value.item()
    if isinstance(value, bool | str):
        return value
    return float(value) if isinstance(value, int | float) else "none" if value is None else str(value)


def _column(key: str, domain: Domain | None, example: Any, *, searched: bool) -> Any:
    """The column of one hyperparameter: choices are a set, ranges an interval; else see the example.

    Choices of different types become texts, because a column has one type. TensorBoard shows searched ones
    first.
    """
    from tensorboard.plugins.hparams import api_pb2

    values = [_plain(value) for value in (domain.corners() if domain else (example,))]
    types = {type(value) for value in values}
    if types == {float} and domain and domain.categories() is None:
        interval = api_pb2.Interval(min_value=min(values), max_value=max(values))
        kind = api_pb2.DATA_TYPE_FLOAT64
        return api_pb2.HParamInfo(name=key, type=kind, domain_interval=interval, differs=searched)
    kinds = {bool: api_pb2.DATA_TYPE_BOOL, float: api_pb2.DATA_TYPE_FLOAT64, str: api_pb2.DATA_TYPE_STRING}
    kind = kinds[types.pop()] if len(types) == 1 else api_pb2.DATA_TYPE_STRING
    column = api_pb2.HParamInfo(name=key, type=kind, differs=searched)
    if domain:
        texts = kind == api_pb2.DATA_TYPE_STRING
        column.domain_discrete.extend([_as_text(value) for value in values] if texts else values)
    return column


def _as_text(value: bool | float | str) -> str:
    return f"{value:.12g}" if isinstance(value, float) else str(value)


def _experiment(columns: Sequence[Any], metrics: Sequence[str]) -> Any:
    from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2

    infos = [api_pb2.MetricInfo(name=api_pb2.MetricName(tag=tag)) for tag in metrics]
    experiment = api_pb2.Experiment(hparam_infos=columns, metric_infos=infos, time_created_secs=time.time())
    return _hparams_summary(metadata.EXPERIMENT_TAG, plugin_data_pb2.HParamsPluginData(experiment=experiment))


def _session_start(hyperparameters: Mapping[str, Any], columns: Mapping[str, Any]) -> Any:
    from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2

    start = plugin_data_pb2.SessionStartInfo(start_time_secs=time.time())
    for key, value in hyperparameters.items():
        plain = _plain(value)
        if columns[key].type == api_pb2.DATA_TYPE_STRING:
            start.hparams[key].string_value = _as_text(plain)
        elif isinstance(plain, bool):
            start.hparams[key].bool_value = plain
        else:
            start.hparams[key].number_value = plain
    data = plugin_data_pb2.HParamsPluginData(session_start_info=start)
    return _hparams_summary(metadata.SESSION_START_INFO_TAG, data)


def _session_end(succeeded: bool) -> Any:
    from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2

    status = api_pb2.STATUS_SUCCESS if succeeded else api_pb2.STATUS_FAILURE
    end = plugin_data_pb2.SessionEndInfo(status=status, end_time_secs=time.time())
    data = plugin_data_pb2.HParamsPluginData(session_end_info=end)
    return _hparams_summary(metadata.SESSION_END_INFO_TAG, data)


def _hparams_summary(tag: str, data: Any) -> Any:
    """A summary as the HParams plugin reads it: all content in the metadata, beside an empty tensor."""
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.plugins.hparams import metadata

    content = metadata.create_summary_metadata(data)
    return Summary(value=[Summary.Value(tag=tag, metadata=content, tensor=metadata.NULL_TENSOR)])
