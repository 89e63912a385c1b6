"""A training step as a CUDA graph: hundreds of kernels launched at once.

A small recurrent network leaves a GPU waiting for the next launch most of the time. A graph is recorded once, for
shapes that stay, and replayed with new inputs; random numbers come from a generator that the graph knows and that is
seeded anew before each replay, so a replayed step draws what the same step drawn kernel by kernel would.
"""

from __future__ import annotations

import gc
from collections.abc import Callable

import torch
from torch import Tensor

WARM_UP = 3
"""Calls before recording: they choose kernels and allocate workspaces and the optimizer's state."""

Function = Callable[..., tuple[Tensor, ...]]


class Captured:
    """A function of tensors of fixed shapes on a GPU, which may change other tensors in place."""

    def __init__(self, function: Function, generator: torch.Generator) -> None:
        self.function, self.generator = function, generator
        self.calls = 0
        self.graph: torch.cuda.CUDAGraph | None = None
        self.arguments: tuple[Tensor, ...] = ()
        self.results: tuple[Tensor, ...] = ()

    def __call__(self, *arguments: Tensor) -> tuple[Tensor, ...]:
        """The function's results; those of one replay are overwritten by the next."""
        if self.calls < WARM_UP:
            self.calls += 1
            return self.function(*arguments)
        if self.graph is None:
            self._record(arguments)
        else:
            torch._foreach_copy_(self.arguments, arguments)
        assert self.graph is not None
        self.graph.replay()
        return self.results

    def _record(self, arguments: tuple[Tensor, ...]) -> None:
        self.arguments = tuple(argument.detach().clone() for argument in arguments)
        self.graph = torch.cuda.CUDAGraph()
        self.graph.register_generator_state(self.generator)
        torch.cuda.synchronize()
        collecting = gc.isenabled()
        gc.disable()  # an old graph that is collected meanwhile would spoil this one
        try:
            with torch.cuda.graph(self.graph, capture_error_mode="thread_local"):  # Ray's threads go on
                self.results = self.function(*self.arguments)
        finally:
            if collecting:
                gc.enable()
