"""What a program runs on."""

from __future__ import annotations

import platform
from pathlib import Path

import torch


def processor(device: str | torch.device = "cpu") -> str:
    """The name of a device's processor, as far as the system tells it.

    Args:
        device: "cpu" or a CUDA device.
    """
    if torch.device(device).type == "cuda":
        return torch.cuda.get_device_name(device)
    information = Path("/proc/cpuinfo")
    lines = information.read_text(errors="replace").splitlines() if information.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
