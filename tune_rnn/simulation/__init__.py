"""Search and early stopping played against learning curves in simulated time, without training."""

from __future__ import annotations

from tune_rnn.simulation.blackbox import BlackBox
from tune_rnn.simulation.history import Event, History
from tune_rnn.simulation.playing import Proposes, simulate
from tune_rnn.simulation.synthetic import Synthetic
from tune_rnn.simulation.taskset import TaskSet

__all__ = ["BlackBox", "Event", "History", "Proposes", "Synthetic", "TaskSet", "simulate"]
