"""Event files, read back with the code by which TensorBoard itself shows them."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tune_rnn.tensorboard import DIVERGED, TrialBoard

FULL_DISK = Path("/dev/full")
METRICS = ("loss/validation_best", "loss/validation", "bits_per_character", DIVERGED)


@dataclass(frozen=True)
class Domain:
    """A distribution as the board sees it: ends of a range, or all choices and their number."""

    ends: tuple[Any, ...]
    choices: int | None = None

    def corners(self) -> tuple[Any, ...]:
        return self.ends

    def categories(self) -> int | None:
        return self.choices


DOMAINS = {
    "one_of": Domain(("sgd", "adamw"), 2),
    "model.layers": Domain((1, 3)),
    "model.tied": Domain((False, True), 2),
    "model.hidden_size": Domain((128, 256), 2),
    "regularizers.weight_decay": Domain((1e-3, 1.0)),
    "training.schedule": Domain(("cosine", 0, None), 3),
}
SGD = {
    "one_of": "sgd",
    "model.layers": 2,
    "model.tied": True,
    "model.hidden_size": 128,
    "training.schedule": None,
}
ADAMW = {**SGD, "one_of": "adamw", "regularizers.weight_decay": 0.25}


def _read(directory: Path) -> tuple[Any, Any, Any]:
    """(events, data provider, HParams backend) of a log directory, as a TensorBoard server would load it."""
    from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
    from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
    from tensorboard.plugins.base_plugin import TBContext
    from tensorboard.plugins.hparams.backend_context import Context

    events = EventMultiplexer().AddRunsFromDirectory(str(directory))
    events.Reload()
    provider = MultiplexerDataProvider(events, str(directory))
    return events, provider, Context(TBContext(data_provider=provider))


def _rows(directory: Path, **column: Any) -> dict[str, Any]:
    """The rows of the HParams tab by trial, filtered and sorted by one column where given."""
    from tensorboard.context import RequestContext
    from tensorboard.plugins.hparams import api_pb2
    from tensorboard.plugins.hparams.list_session_groups import Handler

    request = api_pb2.ListSessionGroupsRequest(
        col_params=[api_pb2.ColParams(**column)] if column else [],
        allowed_statuses=[0, 1, 2, 3],
        slice_size=100,
    )
    handler = Handler(RequestContext(), _read(directory)[2], "", request)
    return {row.name: row for row in handler.run().session_groups}


def _curve(directory: Path, tag: str) -> list[tuple[int, float]]:
    """(step, value) of trial a."""
    return [(point.step, point.tensor_proto.float_val[0]) for point in _read(directory)[0].Tensors("a", tag)]


def _values(row: Any) -> dict[str, Any]:
    return {key: getattr(value, value.WhichOneof("kind")) for key, value in row.hparams.items()}


def _metrics(row: Any) -> dict[str, tuple[int, Any]]:
    return {m.name.tag: (m.training_step, pytest.approx(m.value)) for m in row.metric_values}


def _columns(directory: Path) -> dict[str, Any]:
    from tensorboard.context import RequestContext

    backend = _read(directory)[2]
    content = backend.hparams_metadata(RequestContext(), "")
    experiment = backend.experiment_from_metadata(RequestContext(), "", True, content, None)
    assert [metric.name.tag for metric in experiment.metric_infos] == list(METRICS)
    return {column.name: column for column in experiment.hparam_infos}


def test_a_trial_has_its_row_before_it_reports(tmp_path: Path) -> None:
    TrialBoard(tmp_path / "a", SGD, DOMAINS, METRICS)
    TrialBoard(tmp_path / "b", ADAMW, DOMAINS, METRICS)
    rows = _rows(tmp_path)
    assert _values(rows["a"]) == {**SGD, "training.schedule": "none"}
    assert _values(rows["b"]) == {**ADAMW, "training.schedule": "none"}
    assert not rows["a"].metric_values


def test_rows_are_found_by_values_that_only_some_trials_have(tmp_path: Path) -> None:
    TrialBoard(tmp_path / "a", SGD, DOMAINS, METRICS)
    TrialBoard(tmp_path / "b", ADAMW, DOMAINS, METRICS)
    TrialBoard(tmp_path / "c", {**ADAMW, "regularizers.weight_decay": 0.01}, DOMAINS, METRICS)
    decay, upper_half = "regularizers.weight_decay", {"min_value": 0.1, "max_value": 1.0}
    assert list(_rows(tmp_path, hparam=decay, order="ORDER_ASC")) == ["c", "b", "a"]
    assert list(_rows(tmp_path, hparam=decay, filter_interval=upper_half)) == ["a", "b"]
    assert list(_rows(tmp_path, hparam=decay, filter_interval=upper_half, exclude_missing_values=True)) == ["b"]
    assert list(_rows(tmp_path, hparam="one_of", filter_regexp="adam")) == ["b", "c"]


def test_columns_are_intervals_for_ranges_and_sets_for_choices(tmp_path: Path) -> None:
    TrialBoard(tmp_path / "a", {**SGD, "training.batch_size": 32}, DOMAINS, METRICS)
    columns = _columns(tmp_path)
    sets = {key: list(column.domain_discrete) for key, column in columns.items() if column.domain_discrete}
    ranges = {
        key: (column.domain_interval.min_value, column.domain_interval.max_value)
        for key, column in columns.items()
        if column.HasField("domain_interval")
    }
    assert sets == {
        "one_of": ["sgd", "adamw"],
        "model.tied": [False, True],
        "model.hidden_size": [128, 256],
        "training.schedule": ["cosine", "0", "none"],
    }
    assert ranges == {"model.layers": (1, 3), "regularizers.weight_decay": (1e-3, 1)}
    assert {key for key, column in columns.items() if not column.differs} == {"training.batch_size"}


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (np.int64(3), 3),
        (np.float32(0.5), 0.5),
        (np.bool_(True), True),
        (np.str_("lstm"), "lstm"),
        (2**40, 2**40),
        ("", ""),
        ("größer", "größer"),
        (None, "none"),
        ([1, 2], "[1, 2]"),
    ],
)
def test_values_of_every_type(tmp_path: Path, value: Any, shown: object) -> None:
    TrialBoard(tmp_path / "a", {"key": value}, {}, METRICS)
    assert _values(_rows(tmp_path)["a"]) == {"key": shown}


def test_scalars_become_curves_and_fill_the_row(tmp_path: Path) -> None:
    board = TrialBoard(tmp_path / "a", SGD, DOMAINS, METRICS)
    board.scalars(100, {"loss/validation": 3.0, "loss/validation_best": 3.0, "gradient_norm": np.float32(0.5)})
    board.scalars(200, {"loss/validation": 3.5, "loss/validation_best": 3.0})
    assert _curve(tmp_path, "loss/validation") == [(100, 3.0), (200, 3.5)]
    assert _curve(tmp_path, "gradient_norm") == [(100, 0.5)]
    assert _metrics(_rows(tmp_path)["a"]) == {
        "loss/validation": (200, 3.5),
        "loss/validation_best": (200, 3.0),
    }


@pytest.mark.parametrize(
    ("outcome", "status"),
    [
        ("completed", "STATUS_SUCCESS"),
        ("stopped early: 7th of 9 at 2 epochs", "STATUS_SUCCESS"),
        ("diverged: the loss is not finite", "STATUS_FAILURE"),
        ("failed: out of memory", "STATUS_FAILURE"),
        ("interrupted", "STATUS_UNKNOWN"),
    ],
)
def test_close_says_the_outcome(tmp_path: Path, outcome: str, status: str) -> None:
    from tensorboard.plugins.hparams import api_pb2

    board = TrialBoard(tmp_path / "a", SGD, DOMAINS, METRICS)
    board.scalars(50, {"loss/validation": 2.0})
    board.close(outcome)
    board.close("completed")  # the first one counts
    board.scalars(60, {"loss/validation": 1.0})
    row = _rows(tmp_path)["a"]
    assert api_pb2.Status.Name(row.sessions[0].status) == status
    diverged = {DIVERGED: (50, 1.0)} if outcome.startswith("diverged") else {}
    assert _metrics(row) == {"loss/validation": (50, 2.0), **diverged}
    (text,) = _read(tmp_path)[0].Tensors("a", "status")
    assert text.step == 50
    assert text.tensor_proto.string_val[0].decode().strip() == outcome


def test_a_loss_that_is_not_finite_is_never_shown_as_a_number(tmp_path: Path) -> None:
    board = TrialBoard(tmp_path / "a", SGD, DOMAINS, METRICS)
    board.scalars(10, {"loss/validation": float("nan"), "loss/train": float("inf"), "learning_rate": 0.1})
    board.close("diverged: the loss is not finite")
    tags = _read(tmp_path)[0].Runs()["a"]["tensors"]
    assert sorted(tag for tag in tags if not tag.startswith("_hparams_")) == [
        "learning_rate",
        "status",
        DIVERGED,
    ]


@pytest.mark.filterwarnings("ignore:html5lib")  # TensorBoard's own copy warns when it is imported
def test_texts_are_shown_as_they_are(tmp_path: Path) -> None:
    from tensorboard.plugin_util import markdown_to_safe_html

    sample = "# no heading\n*no emphasis*\n\n  <b>| ünïcödé |</b>"
    board = TrialBoard(tmp_path / "a", SGD, DOMAINS, METRICS)
    board.text("sample", sample, 10)
    board.text("sample", "unpaired \ud800", 20)
    first, second = _read(tmp_path)[0].Tensors("a", "sample")
    html = markdown_to_safe_html(first.tensor_proto.string_val[0])
    escaped = sample.replace("<", "&lt;").replace(">", "&gt;")
    assert html == f"<pre><code>{escaped}\n</code></pre>"
    assert second.tensor_proto.string_val[0] == b"    unpaired ?"


def test_a_trial_that_goes_on_keeps_its_row_and_curves(tmp_path: Path) -> None:
    board = TrialBoard(tmp_path / "a", SGD, DOMAINS, METRICS)
    board.scalars(100, {"loss/validation": 3.0})
    board.close("interrupted")
    again = TrialBoard(tmp_path / "a", SGD, DOMAINS, METRICS)
    again.scalars(200, {"loss/validation": 2.0})
    again.close("completed")
    rows = _rows(tmp_path)
    assert list(rows) == ["a"]
    assert rows["a"].sessions[0].status == 1  # success
    assert _metrics(rows["a"]) == {"loss/validation": (200, 2.0)}
    assert _curve(tmp_path, "loss/validation") == [(100, 3.0), (200, 2.0)]


def test_a_text_can_follow_when_the_board_is_closed(tmp_path: Path) -> None:
    board = TrialBoard(tmp_path / "a", SGD, DOMAINS, METRICS)
    board.scalars(100, {"loss/validation": 3.0})
    board.close("completed")
    assert TrialBoard.append_text(tmp_path / "a", "sample", "text", 100) is None
    (sample,) = _read(tmp_path)[0].Tensors("a", "sample")
    assert (sample.step, sample.tensor_proto.string_val[0]) == (100, b"    text")
    assert _rows(tmp_path)["a"].sessions[0].status == 1  # success, still
    (tmp_path / "file").write_text("in the way")
    error = TrialBoard.append_text(tmp_path / "file" / "a", "sample", "text", 100)
    assert error is not None
    assert error.startswith("no sample in TensorBoard: ")


def test_a_key_whose_branches_differ_is_a_number_also_where_it_is_missing(tmp_path: Path) -> None:
    TrialBoard(tmp_path / "a", {"one_of": "sgd"}, {"one_of": None, "training.learning_rate": None}, METRICS)
    columns = _columns(tmp_path)
    assert (columns["one_of"].type, columns["training.learning_rate"].type) == (1, 3)  # text, number
    assert all(column.differs for column in columns.values())
    assert _values(_rows(tmp_path)["a"]) == {"one_of": "sgd"}


def test_a_record_cut_by_a_crash_costs_nothing_else(tmp_path: Path) -> None:
    board = TrialBoard(tmp_path / "a", SGD, DOMAINS, METRICS)
    board.scalars(100, {"loss/validation": 3.0})
    board.scalars(200, {"loss/validation": 2.0})
    (file,) = (tmp_path / "a").iterdir()
    file.write_bytes(file.read_bytes()[:-7])
    TrialBoard(tmp_path / "a", SGD, DOMAINS, METRICS).scalars(300, {"loss/validation": 1.0})
    assert _curve(tmp_path, "loss/validation") == [(100, 3.0), (300, 1.0)]


@pytest.mark.skipif(not FULL_DISK.exists(), reason="a device of Linux")
def test_a_full_disk_silences_the_board_and_keeps_the_reason(tmp_path: Path) -> None:
    board = TrialBoard(tmp_path / "a", SGD, DOMAINS, METRICS)
    errors = [board.error]
    (file,) = (tmp_path / "a").iterdir()
    file.unlink()
    file.symlink_to(FULL_DISK)
    board.scalars(100, {"loss/validation": 3.0})
    board.text("sample", "text", 100)
    board.close("completed")
    errors.append(board.error)
    assert errors == [None, "no more TensorBoard curves for this trial: [Errno 28] No space left on device"]


def test_a_directory_that_cannot_be_made_is_said_not_raised(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    board = TrialBoard(tmp_path / "file" / "a", SGD, DOMAINS, METRICS)
    board.scalars(100, {"loss/validation": 3.0})
    board.close("completed")
    assert board.error is not None
    assert "Not a directory" in board.error


def test_importing_the_module_imports_no_tensorboard() -> None:
    code = "import sys, tune_rnn.tensorboard; sys.exit('tensorboard' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
