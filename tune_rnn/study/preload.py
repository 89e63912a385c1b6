"""Loaded by the processes of a private Ray as they start, before they know that trials will train in them."""

from __future__ import annotations

import gc
import logging
from importlib import import_module

gc.disable()  # a fifth of the time of these imports would be the search for garbage in what stays
try:
    for module in ("tune_rnn.study.worker", "tune_rnn.study.trainable"):
        import_module(module)
except Exception:  # a trial tells it, with its traceback, as soon as it needs what is missing
    logging.getLogger(__name__).exception("not loaded ahead")
finally:
    gc.freeze()
    gc.enable()
