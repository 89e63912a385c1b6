"""Studies on Ray: the only part of tune_rnn that imports it."""

from tune_rnn.study.study import resume, run

__all__ = ["resume", "run"]
