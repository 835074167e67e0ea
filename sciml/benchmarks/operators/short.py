"""A short training on random fields, which can be made to be killed; done in a process of its own, see `child`."""

from __future__ import annotations

import hashlib
import os
import signal
from collections.abc import Mapping
from typing import Any, final

import torch
from torch import Tensor

from sciml.operators import MgNO, RelativeL2

from ...training import AdamW, OneCycle, Plan, Samples, TensorSamples, train


def train_short(order: Mapping[str, Any]) -> dict[str, Any]:
    """Train on random fields, taking up what the folder holds.

    Args:
        order: "device", "channels", "points", "steps", "folder", and "killed": the steps after which this process
            kills itself, or None.

    Returns:
        "losses" of all steps, and "weights", a digest of the last ones.
    """
    generator = torch.Generator().manual_seed(0)
    n = order["points"]
    x, y = torch.randn(2, 40, 1, n, n, generator=generator)
    samples: Samples = TensorSamples(input=x, output=y)
    if order["killed"] is not None:
        samples = Deadly(samples, order["killed"])
    torch.manual_seed(0)
    network = MgNO(in_channels=1, channels=order["channels"], layers=2)
    training = train(
        network,
        lambda net, batch: RelativeL2()(net(batch["input"]), batch["output"]),
        samples,
        Plan(steps=order["steps"], batch_size=8, optimizer=AdamW(1e-3), schedule=OneCycle()),
        folder=order["folder"],
        resume=True,
        save_every=0.0,
        device=order["device"],
    )
    digest = hashlib.sha256()
    for weights in network.state_dict().values():
        digest.update(weights.detach().cpu().contiguous().numpy().tobytes())
    return {"losses": training.history["loss"].tolist(), "weights": digest.hexdigest()}


@final
class Deadly(Samples):
    """Samples that kill the process when one batch more is asked for than it may have."""

    def __init__(self, samples: Samples, batches: int) -> None:
        self._samples, self._left = samples, batches

    def __len__(self) -> int:
        return len(self._samples)

    def batch(self, indices: Tensor) -> Mapping[str, Tensor]:
        if not self._left:
            os.kill(os.getpid(), signal.SIGKILL)
        self._left -= 1
        return self._samples.batch(indices)
