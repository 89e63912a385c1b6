"""What this machine has, as far as can be told without torch, whose import takes a second and more."""

from __future__ import annotations

import platform
import re
from pathlib import Path

GPU_DEVICES = ("/dev/nvidiactl", "/dev/nvmap", "/dev/dxg", "/dev/kfd")
"""What drivers of GPUs that torch can use put there on Linux: NVIDIA's, its small computers', Windows', AMD's."""

PCI = Path("/sys/bus/pci/devices")

GPU_VENDORS = ("0x10de", "0x1002")
"""NVIDIA's and AMD's numbers: a driver may put its device there on first use only."""


def processor_name() -> str:
    names = re.findall(r"^model name\s*:\s*(.*\S)", _cpuinfo(), re.MULTILINE)
    return str(names[0]) if names else platform.processor()


def computes_bf16() -> bool:
    """Whether the processor has arithmetic for bf16, as far as Linux tells.

    Without it oneDNN calculates in fp32 and converts, which is slower; a timing on a busy machine may say otherwise.
    """
    features = _cpuinfo()
    return not features or re.search(r"\b(avx512_bf16|amx_bf16|bf16)\b", features) is not None


def may_have_gpu() -> bool:
    """False only where torch would certainly find none."""
    if platform.system() != "Linux" or any(Path(device).exists() for device in GPU_DEVICES):
        return True
    return any(vendor.read_text().strip() in GPU_VENDORS for vendor in PCI.glob("*/vendor"))


def _cpuinfo() -> str:
    """What Linux says of the processors; "" where it says nothing."""
    try:
        return Path("/proc/cpuinfo").read_text("utf-8", errors="replace")
    except OSError:
        return ""
