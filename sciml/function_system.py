"""A right-hand side given as a function, such as a neural network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor

from .evolving import Time
from .row_system import Function, Ratio, RowSystem, checked


@final
class FunctionSystem(RowSystem):
    """du/dt = function(u, t), rows of the batch independent of each other; `sciml.evolve` takes it for an equation.

    There is no equation as text: its solutions cannot be stored, and their one unknown is called u.

    Args:
        function: (u, t) -> du/dt, for example a torch.nn.Module; u and du/dt, a new tensor in every call, are
            `(*batch, *space)`, and t is a float, or, where rows have steps of their own (control="row"), a float64
            tensor of the batch's shape: `torch.as_tensor(t, dtype=u.dtype)[..., None]` goes with rows of one axis
            either way. Not every library has this order: `lambda u, t: f(t, u)` turns it around.
        space: the trailing shape of a row, `()` for a number; all axes before it are batch.
        dtype, device: of the states, and so of the function's own tensors.
        counted: how many leading entries of the last axis the error ratio of a step counts, and so decide its size; the
            others ride along, such as integrals over the solution that nothing depends on. None counts all.
        ratio: what to take in place of the root mean square over a row: (error, state before, state after, rtol, atol)
            -> the error relative to the tolerance, one number a row, at most 1 where a step is good enough.

    Raises:
        InputError: for a function of other arguments, a space that is no shape, or a count that it does not have; from
            `rate` and the like, for a function that returns another shape or dtype.
    """

    def __init__(
        self,
        function: Function,
        space: Sequence[int] = (),
        *,
        dtype: torch.dtype = torch.float64,
        device: torch.device | str = "cpu",
        counted: int | None = None,
        ratio: Ratio | None = None,
    ) -> None:
        named = {"function": function}
        text = "du/dt = function(u, t)"
        super().__init__(text, named, space, dtype=dtype, device=device, counted=counted, ratio=ratio)
        self.function = function

    def rate(self, u: Tensor, t: Time) -> Tensor:
        return checked(self.function(u, t), u, "the right-hand side")
