"""Loaded by the processes of a private Ray as they start, before they know that trials will train in them."""

from __future__ import annotations

import gc
from importlib import import_module

gc.disable()  # a fifth of the time of these imports would be the search for garbage in what stays
for module in ("tune_rnn.study.worker", "tune_rnn.study.trainable"):
    import_module(module)
gc.freeze()
gc.enable()
