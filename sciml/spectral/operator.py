"""Linear operators that are diagonal, or small matrices, wavenumber by wavenumber."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor

from ..linear_operator import LinearOperator, MatrixFreeOperator, require_batch
from ..one_thread import one_thread
from .modes import Modes


@final
class FourierOperator(MatrixFreeOperator):
    """A convolution on periodic fields, or the same on states; it can solve itself.

    Args:
        symbol: complex, `(*batch, *kept)`, of several unknowns `(*batch, channel, channel, *kept)`.
        modes: the coefficients that are kept.
        channels: number of unknowns; 1 for a symbol without channel axes.
        on_states: whether it acts on states, pairs of real numbers `(*batch, [channel,] *kept, 2)`, rather than on
            fields `(*batch, [channel,] *grid)`, of which it drops what is not kept.
        rest: what it multiplies by what is not kept; 0 of an operator on fields such as a derivative.
    """

    def __init__(
        self, symbol: Tensor, modes: Modes, channels: int, *, on_states: bool = False, rest: float = 0.0
    ) -> None:
        self.symbol = symbol
        self.modes = modes
        self.channels = channels
        self.on_states = on_states
        self.rest = rest
        inner = (*modes.kept, 2) if on_states else modes.shape
        space = inner if channels == 1 else (channels, *inner)
        own = modes.dimension + (0 if channels == 1 else 2)
        real = torch.float64 if symbol.dtype == torch.complex128 else torch.float32
        super().__init__(space, symbol.shape[: symbol.ndim - own], real, symbol.device)

    def apply(self, x: Tensor, out: Tensor | None = None) -> Tensor:
        if self.on_states:
            found = torch.view_as_real(
                times(self.symbol, torch.view_as_complex(x.contiguous()), self.modes, self.channels)
            )
        else:
            c = self.modes.forward(x)
            found = self.modes.inverse(times(self.symbol, c, self.modes, self.channels), self.modes.shape)
            if self.rest:
                found = found + self.rest * (x - self.modes.inverse(c, self.modes.shape))
        return found if out is None else out.copy_(found)

    def inverse(self) -> FourierOperator:
        """The exact inverse."""
        return self._with(inverted(self.symbol, self.modes, self.channels), 1 / self.rest if self.rest else 0.0)

    def solve(self, b: Tensor) -> Tensor:
        """x with A x = b, exact to rounding; of fields without what is not kept where the operator has lost it."""
        return self.inverse().apply(b)

    def shifted(self, step: float) -> FourierOperator:
        """1 - step * A."""
        symbol = -step * self.symbol
        if self.channels == 1:
            return self._with(1 + symbol, 1 - step * self.rest)
        eye = torch.eye(self.channels, dtype=symbol.dtype, device=symbol.device)
        return self._with(symbol + eye.reshape(*eye.shape, *[1] * self.modes.dimension), 1 - step * self.rest)

    def transpose(self) -> FourierOperator:
        symbol = self.symbol.conj().resolve_conj()
        if self.channels > 1:
            symbol = symbol.transpose(-1 - self.modes.dimension, -2 - self.modes.dimension)
        return self._with(symbol, self.rest)

    def to(self, dtype: torch.dtype) -> LinearOperator:
        return self._with(self.symbol.to(torch.complex128 if dtype == torch.float64 else torch.complex64), self.rest)

    def detach(self) -> FourierOperator:
        return self._with(self.symbol.detach(), self.rest)

    def __getitem__(self, row: int) -> LinearOperator:
        require_batch(self)
        return self._with(self.symbol[row], self.rest)

    def _with(self, symbol: Tensor, rest: float) -> FourierOperator:
        return FourierOperator(symbol, self.modes, self.channels, on_states=self.on_states, rest=rest)


def times(symbol: Tensor, c: Tensor, modes: Modes, channels: int) -> Tensor:
    """The product at every wavenumber: `(*batch, [channel,] *kept)`."""
    if channels == 1:
        return symbol * c
    return (symbol * c.unsqueeze(-2 - modes.dimension)).sum(-1 - modes.dimension)


def inverted(symbol: Tensor, modes: Modes, channels: int) -> Tensor:
    """The inverse at every wavenumber."""
    if channels == 1:
        return symbol.reciprocal()
    moved = torch.movedim(symbol, (-2 - modes.dimension, -1 - modes.dimension), (-2, -1))
    with one_thread():
        inverse = torch.linalg.inv(moved)
    return torch.movedim(inverse, (-2, -1), (-2 - modes.dimension, -1 - modes.dimension))
