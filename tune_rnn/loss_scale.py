"""Loss scaling for fp16, whose smallest number is 6e-8: small gradients would vanish on their way back."""

from __future__ import annotations

import torch
from torch import Tensor

from tune_rnn.regularizers import global_norm

FIRST = 2.0**12

STEADY = 500
"""Steps without an overflow after which the scale doubles."""


class LossScale:
    """A factor for the loss that the gradients are divided by again (Micikevicius et al. 2018, section 3.2).

    It is halved when a gradient is not finite, and that step's gradient is taken for 0; it doubles after `STEADY` steps
    without. All of it stays on the device, so that a step can be captured.
    """

    def __init__(self, device: torch.device) -> None:
        self.scale = torch.tensor(FIRST, device=device)
        self.steady = torch.tensor(0, device=device)

    @torch.no_grad()
    def unscale(self, gradients: list[Tensor]) -> None:
        """Divide the gradients, in place, and adapt the factor to what came."""
        torch._foreach_div_(gradients, self.scale)
        finite = global_norm(gradients).isfinite()
        for gradient in gradients:
            gradient.masked_fill_(~finite, 0.0)
        steady = torch.where(finite, self.steady + 1, 0)
        grown = torch.where(steady == STEADY, 2 * self.scale, self.scale)
        self.scale.copy_(torch.where(finite, grown, self.scale / 2))
        self.steady.copy_(steady % STEADY)

    def state_dict(self) -> dict[str, Tensor]:
        return {"scale": self.scale, "steady": self.steady}

    def load_state_dict(self, saved: dict[str, Tensor]) -> None:
        self.scale.copy_(saved["scale"])
        self.steady.copy_(saved["steady"])
