"""Finds a well-regularised recurrent network for your sequence data.

The public names are loaded on first use, so that ``import tune_rnn`` and ``tune-rnn --help`` answer at once:
neither torch nor Ray is imported before something needs it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # the table below, in the words of type checkers
    from tune_rnn import errors as errors
    from tune_rnn import space as space
    from tune_rnn.experiment import Experiment as Experiment
    from tune_rnn.exported import load_model as load_model
    from tune_rnn.simulation import simulate as simulate
    from tune_rnn.single import train as train
    from tune_rnn.study import resume as resume
    from tune_rnn.study import run as run

__version__ = "0.1.0"

_PUBLIC = {  # name: where it lives, "module" or "module:attribute"
    "Experiment": "tune_rnn.experiment:Experiment",
    "errors": "tune_rnn.errors",
    "load_model": "tune_rnn.exported:load_model",
    "resume": "tune_rnn.study:resume",
    "run": "tune_rnn.study:run",
    "simulate": "tune_rnn.simulation:simulate",
    "space": "tune_rnn.space",
    "train": "tune_rnn.single:train",
}


def __getattr__(name: str) -> Any:
    """Load a public name on first use and keep it (PEP 562)."""
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, _, attribute = _PUBLIC[name].partition(":")
    loaded = import_module(module)
    value = getattr(loaded, attribute) if attribute else loaded
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*_PUBLIC, "__version__"]
