"""A stochastic differential equation given as functions, such as neural networks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, final, get_args

import torch
from torch import Tensor

from .errors import InputError
from .evolving import Time
from .noise import Noise, TorchsdeNoise
from .row_system import Function, Ratio, RowSystem, checked

Calculus = Literal["ito", "stratonovich"]


@final
class StochasticSystem(RowSystem):
    """du = drift(u, t) dt + diffusion(u, t) dW, with a Brownian motion of its own for every entry of u (diagonal
    noise); `sciml.evolve` takes it for an equation, with a stochastic method of `sciml.solvers.time`.

    The rate of the system is its drift. The order that a method has for diagonal noise needs that entry i of the
    diffusion depends on entry i of u, and on no other; else all converge too, with strong order 1/2, in Ito's calculus
    and in Stratonovich's (a mathematical limit: without Lévy areas of pairs of entries nothing has a higher one).

    Args:
        drift, diffusion: (u, t) -> what multiplies dt and dW, such as a torch.nn.Module; u and both are
            `(*batch, *space)`, t is a float.
        space: the trailing shape of a row, `()` for a number; all axes before it are batch.
        path: what W does: a `sciml.solvers.time.BrownianPath`, or a Brownian motion of torchsde; of shape
            `(*batch, *space)`, or one that broadcasts to it, so that rows share their noise.
        calculus: "ito" or "stratonovich".
        dtype, device: of the states; None: those of the path.
        counted, ratio: as of `sciml.FunctionSystem`.

    Raises:
        InputError: for functions of other arguments, a space that is no shape, a path that does not go with it, or an
            unknown calculus; from `rate`, `diffusion` and the like, for functions that return another shape or dtype.
    """

    def __init__(
        self,
        drift: Function,
        diffusion: Function,
        space: Sequence[int] = (),
        *,
        path: Any,
        calculus: Calculus = "ito",
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
        counted: int | None = None,
        ratio: Ratio | None = None,
    ) -> None:
        if calculus not in get_args(Calculus):
            raise InputError(f"calculus is 'ito' or 'stratonovich', got {calculus!r}")
        noise = path if isinstance(path, Noise) else TorchsdeNoise(path)
        dtype = noise.dtype if dtype is None else dtype
        device = noise.device if device is None else torch.device(device)
        if (noise.dtype, noise.device) != (dtype, device):
            raise InputError(
                f"path is of {noise.dtype} on {noise.device}, and the states are of {dtype} on {device}: make the path "
                "in their dtype, and on their device"
            )
        axes = len(space) if isinstance(space, Sequence) else 0
        super().__init__(
            "du = drift(u, t) dt + diffusion(u, t) dW",
            {"drift": drift, "diffusion": diffusion},
            space,
            batch=noise.shape[: max(0, len(noise.shape) - axes)],
            dtype=dtype,
            device=device,
            counted=counted,
            ratio=ratio,
        )
        if noise.shape[len(noise.shape) - axes :] != self.space:
            raise InputError(
                f"path has the shape {noise.shape}, which does not end in that of a row, {self.space}: there is one "
                "Brownian motion for every entry of u"
            )
        self.drift = drift
        self.noise = noise
        self.calculus: Calculus = calculus
        self._diffusion = diffusion

    def rate(self, u: Tensor, t: Time) -> Tensor:
        return checked(self.drift(u, t), u, "the drift")

    def diffusion(self, u: Tensor, t: Time) -> Tensor:
        """What multiplies dW, entry by entry: the shape of u."""
        return checked(self._diffusion(u, t), u, "the diffusion")
