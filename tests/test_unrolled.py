"""GRU and RNN as one node of the graph, against PyTorch's modules in double precision."""

from __future__ import annotations

import pytest
import torch

from tune_rnn.unrolled import Unrolled

MODULES = {"gru": torch.nn.GRU, "rnn": torch.nn.RNN}
STEPS, STREAMS, INPUTS, HIDDEN = 7, 4, 5, 6

Numbers = list[torch.Tensor]


def both(cell: str, *, autocast: bool = False) -> tuple[Numbers, Numbers]:
    """Outputs and the gradients of everything, ours and PyTorch's; the state after the window counts twice."""
    torch.manual_seed(0)
    module = MODULES[cell](INPUTS, HIDDEN).double()
    given = [
        torch.randn(STEPS, STREAMS, INPUTS),
        torch.randn(STREAMS, HIDDEN),
        *map(torch.Tensor.float, module.parameters()),
    ]
    ours = [value.detach().requires_grad_() for value in given]
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        hidden, *_ = Unrolled.apply(cell, *ours)  # type: ignore[no-untyped-call]
    towards = torch.randn(STEPS, STREAMS, HIDDEN)
    torch.autograd.backward([hidden[1:], hidden[-1]], [towards, towards[0]])

    inputs, state = (value.detach().double().requires_grad_() for value in given[:2])
    outputs, after = module(inputs, state.unsqueeze(0))
    torch.autograd.backward([outputs, after[0]], [towards.double(), towards[0].double()])
    theirs = [inputs, state, *module.parameters()]
    return [hidden[1:], *(one.grad for one in ours)], [outputs, *(one.grad for one in theirs)]


@pytest.mark.parametrize("cell", MODULES)
def test_outputs_and_gradients_are_those_of_pytorch(cell: str) -> None:
    for own, expected in zip(*both(cell), strict=True):
        torch.testing.assert_close(own, expected.float(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("cell", MODULES)
def test_under_autocast_products_are_in_bf16_and_all_else_in_fp32(cell: str) -> None:
    for own, expected in zip(*both(cell, autocast=True), strict=True):
        assert own.dtype == torch.float32
        torch.testing.assert_close(own, expected.float(), rtol=0.1, atol=0.1)
        assert not torch.allclose(own, expected.float(), rtol=1e-5, atol=1e-6), "bf16 was not in force"


@pytest.mark.parametrize("cell", MODULES)
def test_the_first_state_alone_may_have_a_gradient(cell: str) -> None:
    module = MODULES[cell](INPUTS, HIDDEN)
    weights = [one.detach() for one in module.parameters()]
    state = torch.zeros(STREAMS, HIDDEN, requires_grad=True)
    hidden, *_ = Unrolled.apply(cell, torch.ones(1, STREAMS, INPUTS), state, *weights)  # type: ignore[no-untyped-call]
    hidden[-1].sum().backward()
    assert state.grad is not None
    assert state.grad.any()
