"""The processor that is named is the one that is there."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from sciml.machine import processor


def test_the_processor_has_a_name() -> None:
    information = Path("/proc/cpuinfo")
    assert processor() == processor(torch.device("cpu")) != ""
    if information.exists() and "model name" in information.read_text():
        assert f": {processor()}\n" in information.read_text()


@pytest.mark.cuda
def test_a_gpu_has_its_own() -> None:
    assert processor("cuda") == torch.cuda.get_device_name()
