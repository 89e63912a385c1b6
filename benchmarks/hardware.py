"""What every table of a benchmark begins with, and what ends it where something is broken."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Mapping

import torch


def head(device: str, precision: str = "fp32") -> str:
    """Date, machine, device, PyTorch's version and the number format."""
    hardware = torch.cuda.get_device_name() if device != "cpu" else f"{os.cpu_count()} cores, one used"
    return f"{time.strftime('%Y-%m-%d')}, {platform.machine()}, {hardware}, torch {torch.__version__}, {precision}"


def require(ratios: Mapping[str, float], least: float) -> None:
    """End the process with status 1 and a line for each ratio that is below `least`."""
    low = [f"{name} is {ratio:.2f}, below {least:g}" for name, ratio in ratios.items() if ratio < least]
    if low:
        raise SystemExit("\n".join(low))
