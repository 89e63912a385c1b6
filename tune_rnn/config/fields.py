"""Types of keys: bounds, and checks of their own, which raise ValueError(rule, remedy)."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field


def _paths(value: Any) -> Any:
    """A path, or a list of them as a tuple."""
    if isinstance(value, str) and value.strip():
        return value
    paths = value if isinstance(value, (list, tuple)) else ()
    if paths and all(isinstance(path, str) and path.strip() for path in paths):
        return tuple(paths)
    remedy = "Write for example corpus: text.txt, and quote what YAML reads as something else."
    raise ValueError("must be a path or a list of paths", remedy)


def _fractions(value: Any) -> Any:
    remedy = "Write for example [0.8, 0.1, 0.1]."
    numbers = isinstance(value, (list, tuple)) and all(type(part) in (int, float) for part in value)
    if not numbers or len(value) != 3:
        raise ValueError("must be three fractions, [train, validation, test]", remedy)
    train, validation, test = value
    if not (train > 0 and validation > 0 and test >= 0 and abs(train + validation + test - 1) < 1e-6):
        rule = "train and validation must be greater than 0, test at least 0, and their sum 1"
        raise ValueError(rule, remedy)
    return (float(train), float(validation), float(test))


def _whole(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value  # 2e6 is what one writes


def _gpu_share(value: Any) -> Any:
    if value == "auto":
        return value
    if type(value) not in (int, float) or not value >= 0:
        remedy = "Write auto, a share of a GPU such as 0.25, or 0 for none."
        raise ValueError("must be auto or a number from 0 to 1", remedy)
    if value > 1:
        rule = "must be at most 1, as a trial runs on one GPU"
        raise ValueError(rule, "Write 1 or less; more GPUs run more trials at a time.")
    return float(value)


def _name(value: Any) -> Any:
    if isinstance(value, str) and not (re.fullmatch(r"[A-Za-z0-9._-]{1,100}", value) and value.strip(".")):
        rule = "must be 1 to 100 letters, digits, dots, dashes or underscores: the name of a directory"
        raise ValueError(rule, "Write for example name: char-lm; storage says where the directory lies.")
    return value


def _storage(value: Any) -> Any:
    if isinstance(value, str) and "://" in value:
        if not value.startswith(("s3://", "gs://")):
            raise ValueError("must be a path, or begin with s3:// or gs://", "Write for example storage: results.")
        if "@" in value.partition("?")[0] or "secret" in value.lower():
            rule = "must not contain credentials, as it is written into every run"
            raise ValueError(rule, "Give them by the environment (AWS_ACCESS_KEY_ID …), a profile or a role.")
    if isinstance(value, str) and not value.strip():
        raise ValueError("must be the path of a directory", "Write for example storage: results.")
    return value


def _points(value: Any) -> Any:
    """Values by dotted key; `tune_rnn.config.starting` says which of them are right."""
    if not isinstance(value, (list, tuple)) or not all(isinstance(point, dict) for point in value):
        rule = "must be a list of starting points"
        raise ValueError(rule, "Write for example search.start: [{training: {learning_rate: 0.001}}].")
    return tuple(value)


def _runs(value: Any) -> Any:
    """Paths, or one of them."""
    paths = [value] if isinstance(value, str) else value
    if not isinstance(paths, (list, tuple)) or not all(isinstance(path, str) and path.strip() for path in paths):
        raise ValueError("must be a list of run directories", "Write for example warm_start: [results/quickstart].")
    return tuple(paths)


Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0)]
Strength = Annotated[float, Field(ge=0)]  # 0 is off
Probability = Annotated[float, Field(ge=0, lt=1)]  # of dropping; 0 is off
Whole = Annotated[Count, BeforeValidator(_whole)]
Paths = Annotated[str | tuple[str, ...], BeforeValidator(_paths)]
Fractions = Annotated[tuple[float, float, float], BeforeValidator(_fractions)]
GpuShare = Annotated[Literal["auto"] | float, BeforeValidator(_gpu_share)]
Name = Annotated[str, BeforeValidator(_name)]
Runs = Annotated[tuple[str, ...], BeforeValidator(_runs)]
Points = Annotated[tuple[dict[str, Any], ...], BeforeValidator(_points)]
Storage = Annotated[str, BeforeValidator(_storage)]
