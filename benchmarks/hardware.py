"""What every table of a benchmark begins with."""

from __future__ import annotations

import os
import platform
import time

import torch


def head(device: str) -> str:
    """Date, machine, device and PyTorch's version."""
    hardware = torch.cuda.get_device_name() if device != "cpu" else f"{os.cpu_count()} cores, one used"
    return f"{time.strftime('%Y-%m-%d')}, {platform.machine()}, {hardware}, torch {torch.__version__}, fp32"
