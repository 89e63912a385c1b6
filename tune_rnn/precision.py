"""Which number format the matrix products use, and what a process sets before it trains."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from tune_rnn import decoder, model
from tune_rnn.errors import InputError

WORTH_IT = 1.1
"""bf16 is chosen where it makes a training step at least this much faster."""


def prepare_process(threads: int) -> None:
    """Threads for the matrix products, and denormal numbers to zero (they slow an LSTM 20-fold: oneDNN issue 561).

    On a GPU fp32 means fp32: cuDNN would by default round the recurrent layers' factors to TF32's 10 bits.
    """
    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)
    torch.backends.cudnn.allow_tf32 = False


@contextmanager
def autocast(device: torch.device, precision: str) -> Iterator[None]:
    """bf16 matrix products where `precision` is "bf16"; parameters, losses and carried state stay in fp32."""
    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16"):
        yield


def is_available(precision: str, device: torch.device, cell: str) -> bool:
    """Whether a cell can train with `precision` here: oneDNN, for one, has no bf16 on many a processor.

    On a GPU it cannot: autocast runs cuDNN's recurrent layers in fp16, whatever format it was asked for.
    """
    if precision != "bf16":
        return True
    return device.type == "cpu" and _step_seconds(precision, device, cell, repeats=1) is not None


def resolve_precision(precision: str, device: torch.device, cells: Iterable[str]) -> str:
    """`auto` becomes "bf16" where each of the cells trains a small model faster with it than in fp32, else "fp32".

    Raises InputError for a stated bf16 with which one of them cannot train here.
    """
    if precision == "auto":
        return "bf16" if all(_is_worth_it(device, cell) for cell in cells) else "fp32"
    for cell in cells:
        if not is_available(precision, device, cell):
            rule = f"cell {cell} cannot train with bf16 on this {device.type}"
            raise InputError("training.precision", rule, "Write auto, or fp32.", precision)
    return precision


def _is_worth_it(device: torch.device, cell: str) -> bool:
    if not _computes_bf16() or not is_available("bf16", device, cell):
        return False
    fp32_s, bf16_s = _step_seconds("fp32", device, cell), _step_seconds("bf16", device, cell)
    return bf16_s is not None and fp32_s is not None and fp32_s > WORTH_IT * bf16_s


def _computes_bf16() -> bool:
    """Whether the processor has arithmetic for bf16, as far as Linux tells.

    Without it oneDNN calculates in fp32 and converts, which is slower; a timing on a busy machine may say otherwise.
    """
    try:
        features = Path("/proc/cpuinfo").read_text("utf-8", errors="replace")
    except OSError:
        return True
    return re.search(r"\b(avx512_bf16|amx_bf16|bf16)\b", features) is not None


def _step_seconds(precision: str, device: torch.device, cell: str, repeats: int = 5) -> float | None:
    """Fastest of a few forward and backward passes; None where the hardware cannot do it."""
    try:
        with torch.enable_grad():
            return min(_time_steps(precision, device, cell, repeats))
    except torch.OutOfMemoryError:
        raise
    except RuntimeError:  # oneDNN refuses bf16 on a processor without it
        return None


def _time_steps(precision: str, device: torch.device, cell: str, repeats: int) -> Iterator[float]:
    sizes = model.Sizes(cell, vocabulary=64, embedding=64, hidden=(128, 128))
    parameters = model.to_device(model.initialise(sizes, torch.Generator().manual_seed(0)), device)
    for parameter in parameters.values():
        parameter.requires_grad_()
    state = model.zero_state(sizes, 32, device)
    inputs_TB = torch.zeros(32, 32, dtype=torch.long, device=device)
    for _ in range(repeats):
        started = time.perf_counter()
        with autocast(device, precision):
            logits_TBV, after = model.forward(sizes, parameters, state, inputs_TB)
        loss = decoder.of_logits(logits_TBV, inputs_TB)
        loss.backward()  # type: ignore[no-untyped-call]
        loss.item()  # waits for a GPU
        state = model.detach_state(after)
        yield time.perf_counter() - started
