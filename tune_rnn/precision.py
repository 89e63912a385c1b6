"""Which number format the matrix products use, and what a process sets before it trains."""

from __future__ import annotations

import functools
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from tune_rnn import decoder, model
from tune_rnn.captured import WARM_UP, Captured, Function
from tune_rnn.errors import InputError
from tune_rnn.machine import computes_bf16

WORTH_IT = 1.1
"""Another format than fp32 is chosen where it makes a training step at least this much faster."""

FOR_GPUS = {"tf32": (8, 0), "fp16": (7, 0)}
"""Formats that processors do not have, and from which compute capability on GPUs do."""

SMALL = 128
"""Units of a layer of the model that a processor is timed with; a GPU is timed with the study's largest."""


def prepare_process(threads: int) -> None:
    """Threads for the matrix products, and denormal numbers to zero (they slow an LSTM 20-fold: oneDNN issue 561).

    On a GPU fp32 means fp32: cuDNN would by default round the recurrent layers' factors to TF32's 10 bits.
    """
    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)
    use_tf32(False)


def use_tf32(allowed: bool) -> None:
    """Whether a GPU may round the factors of fp32 products to TF32's 10 bits, forward and backward, from now on."""
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = allowed


@contextmanager
def autocast(device: torch.device, precision: str) -> Iterator[None]:
    """Matrix products in 16 bits where `precision` says so; parameters, losses and carried state stay in fp32."""
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision)
    with torch.autocast(device.type, dtype=dtype or torch.bfloat16, enabled=dtype is not None):
        yield


def is_available(precision: str, device: torch.device, cell: str) -> bool:
    """Whether a cell can train with `precision` here.

    bf16 is for processors: oneDNN keeps an LSTM's cell state in fp32, cuDNN would round it to 8 bits at each time step.
    Many a processor has none. fp16 and TF32 are for GPUs, TF32 from compute capability 8 (Ampere) on.
    """
    if precision == "fp32":
        return True
    if device.type == "cuda" and torch.cuda.is_available():
        first = FOR_GPUS.get(precision)
        return first is not None and torch.cuda.get_device_capability(device) >= first
    return device.type == "cpu" and precision == "bf16" and _has_bf16(cell)


@functools.cache
def _has_bf16(cell: str) -> bool:
    """Tried once in a process, as it takes longer than a small trial's first steps."""
    return _step_seconds("bf16", torch.device("cpu"), cell, SMALL, repeats=1) is not None


def resolve_precision(precision: str, device: torch.device, cells: Sequence[str], hidden: int = SMALL) -> str:
    """`auto` becomes the format with which each of the cells trains a small model faster than in fp32, else "fp32".

    `hidden`: units of a layer of the study's largest model, which on a GPU decide whether fp16 pays.
    Raises InputError for a stated format with which one of the cells cannot train here.
    """
    if precision == "auto":
        return _fastest(device, cells, hidden if device.type == "cuda" else SMALL)
    if precision in FOR_GPUS and device.type == "cpu":
        raise InputError("training.precision", "is for GPUs", "Write auto, bf16 or fp32.", precision)
    for cell in cells:
        if not is_available(precision, device, cell):
            rule = f"cell {cell} cannot train with {precision} on this {device.type}"
            raise InputError("training.precision", rule, "Write auto, or fp32.", precision)
    return precision


def _fastest(device: torch.device, cells: Sequence[str], hidden: int) -> str:
    others = [*FOR_GPUS] if device.type == "cuda" else ["bf16"] if computes_bf16() else []
    others = [other for other in others if all(is_available(other, device, cell) for cell in cells)]
    gains = {other: min(_gain(other, device, cell, hidden) for cell in cells) for other in others}
    best = max(gains, key=lambda other: gains[other], default="fp32")
    return best if gains.get(best, 0.0) > WORTH_IT else "fp32"


def _gain(precision: str, device: torch.device, cell: str, hidden: int) -> float:
    """How many times faster than fp32 it is; 0 where the hardware cannot do it."""
    fp32_s, other_s = (_step_seconds(kind, device, cell, hidden) for kind in ("fp32", precision))
    return fp32_s / other_s if fp32_s and other_s else 0.0


def _step_seconds(precision: str, device: torch.device, cell: str, hidden: int, repeats: int = 5) -> float | None:
    """Fastest of a few forward and backward passes; None where the hardware cannot do it."""
    before = torch.backends.cudnn.allow_tf32
    try:
        use_tf32(precision == "tf32")
        with torch.enable_grad():
            return min(_time_steps(precision, device, cell, hidden, repeats))
    except torch.OutOfMemoryError:
        raise
    except RuntimeError:  # oneDNN refuses bf16 on a processor without it
        return None
    finally:
        use_tf32(before)


def _time_steps(precision: str, device: torch.device, cell: str, hidden: int, repeats: int) -> Iterator[float]:
    sizes = model.Sizes(cell, vocabulary=64, embedding=64, hidden=(hidden, hidden))
    parameters = model.to_device(model.initialise(sizes, torch.Generator().manual_seed(0)), device)
    for parameter in parameters.values():
        parameter.requires_grad_()
    inputs_TB = torch.zeros(32, 32, dtype=torch.long, device=device)

    def step(*parts: Tensor) -> tuple[Tensor, ...]:
        with autocast(device, precision):
            logits_TBV, after = model.forward(sizes, parameters, model.state_of(sizes, parts), inputs_TB)
        loss = decoder.of_logits(logits_TBV, inputs_TB)
        loss.backward()
        for parameter in parameters.values():
            parameter.grad = None
        return loss.detach(), *model.parts_of(model.detach_state(after))

    run: Function = step
    if device.type == "cuda":  # kernel by kernel, launches would hide what the formats differ in
        run = Captured(step, torch.Generator(device))
        repeats += WARM_UP + 1
    parts = model.parts_of(model.zero_state(sizes, 32, device))
    clock = time.thread_time if device.type == "cpu" else time.perf_counter  # others may be at work on processors
    for _ in range(repeats):
        started = clock()
        loss, *parts = run(*parts)
        loss.item()  # waits for a GPU
        yield clock() - started
