"""The number format of matrix products that are written out, where autocast does not reach."""

from __future__ import annotations

import torch


def product_type(device: str) -> torch.dtype:
    """What autocast would multiply in on this type of device; float32 without it."""
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else torch.float32
