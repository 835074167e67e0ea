"""The mass matrix that stands before the rate of an unknown, and the solution of systems with it.

The eigenvalues of D^-1 M, D being the diagonal of the mass matrix M of P1 elements, lie between 1/2 and (d + 2)/2
whatever the cells and the positive weights in them, also without the rows and columns of some points (Wathen, IMA J.
Numer. Anal. 7 (1987) 449-457). With these bounds Chebyshev's iteration reaches rounding in 34 steps on triangles and
39 on tetrahedra; it needs no scalar products, and is one polynomial in M whatever the right side (Wathen and Rees, ETNA
34 (2009) 125-135).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from math import ceil, log
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from ..given import Number
from ..kernels.sparse import CompiledMatrix, compilable
from ..linear_operator import LinearOperator, MatrixFreeOperator, require_batch
from ..sparse import SparseOperator
from .assembly import MatrixSum
from .geometry import Geometry
from .operator import matrix_operator
from .pattern import Pattern
from .system import eliminated


@dataclass(frozen=True, eq=False)
class Mass:
    """int weight v u of basis functions v and u.

    Attributes:
        pattern: of the mesh.
        dimension: 2 or 3.
        full: `(*batch, entries)`.
        held: bool `(n,)`, the points whose rows and columns are left out.
        lumped: whether all of a row stands on the diagonal.
        diagonal: `(*batch, n)`, at held points too.
        entries: `(*batch, entries)`, 0 in rows and columns of held points.
    """

    pattern: Pattern
    dimension: int
    full: Tensor
    held: Tensor
    lumped: bool
    diagonal: Tensor = field(init=False)
    entries: Tensor = field(init=False)
    _operator: LinearOperator = field(init=False)
    _whole: LinearOperator = field(init=False)
    _scaled: LinearOperator = field(init=False)
    _compiled: CompiledMatrix | None = field(init=False)
    _root: Tensor = field(init=False)

    def __post_init__(self) -> None:
        put = object.__setattr__
        put(self, "diagonal", self.full[..., self.pattern.diagonal])
        put(self, "entries", eliminated(self.pattern, self.full, self.held, self.held, None))
        put(self, "_operator", matrix_operator(self.pattern, self.entries, symmetric=True))
        put(self, "_whole", matrix_operator(self.pattern, self.full, symmetric=True))
        if self.lumped:
            return
        rows, columns = self.pattern.entries
        root = self.diagonal.rsqrt()
        scaled = self.entries * root[..., rows] * root[..., columns]
        put(self, "_root", root)
        operator = matrix_operator(self.pattern, scaled, symmetric=True)
        put(self, "_scaled", operator)
        single = operator.to_sparse() if isinstance(operator, SparseOperator) and not scaled.requires_grad else None
        put(self, "_compiled", CompiledMatrix(single) if single is not None and compilable(single) else None)

    def __reduce__(self) -> tuple[Any, ...]:
        """Copied and pickled by what it was made from: addresses in memory stay in this process."""
        return Mass, (self.pattern, self.dimension, self.full, self.held, self.lumped)

    def apply(self, u: Tensor) -> Tensor:
        """M u, of values at free points, and 0 at held ones."""
        if self.lumped:
            return torch.where(self.held, 0.0, self.diagonal * u)
        return self._operator.apply(u.contiguous())

    def of_held(self, u: Tensor) -> Tensor:
        """What a u that is 0 at free points adds to their rows of the whole matrix."""
        return torch.where(self.held, 0.0, self._whole.apply(u.contiguous()))

    def solve(self, right: Tensor) -> Tensor:
        """M^-1 right at free points, 0 at held ones; differentiable in all that it is made of."""
        right = torch.where(self.held, 0.0, right)
        if self.lumped:
            return right / self.diagonal
        if self.diagonal.ndim > 1:
            right = right.expand(torch.broadcast_shapes(right.shape, self.diagonal.shape))
        recorded = torch.is_grad_enabled() and right.requires_grad and not self.full.requires_grad
        if recorded and forward_ad._current_level < 0:
            result: Tensor = _Solve.apply(right, self)
            return result
        return self.iterate(right)

    def iterate(self, right: Tensor) -> Tensor:
        """Chebyshev's iteration (Saad, Iterative Methods for Sparse Linear Systems, 2003, algorithm 12.1) for
        D^-1/2 M D^-1/2."""
        low, high = 0.5, (self.dimension + 2) / 2
        theta, delta = (high + low) / 2, (high - low) / 2
        sigma = theta / delta
        growth = sigma + (sigma * sigma - 1.0) ** 0.5
        factors, rho = [], 1.0 / sigma
        for _ in range(ceil(log(2.0 / torch.finfo(right.dtype).eps) / log(growth)) - 1):
            rho, before = 1.0 / (2.0 * sigma - rho), rho
            factors.append((rho * before, 2.0 * rho / delta))
        b = self._root * right
        x, last = b / theta, torch.zeros_like(b)
        tracked = torch.is_grad_enabled() and b.requires_grad
        if self._compiled is not None and not tracked and forward_ad._current_level < 0:
            return self._root * self._compiled.chebyshev(factors, b.contiguous(), x.contiguous())
        for first, second in factors:
            x, last = x + first * (x - last) + second * self._scaled.residual(b, x), x
        return self._root * x

    def changed(self, change: Callable[[Tensor], Tensor]) -> Mass:
        """The same with other entries."""
        return replace(self, full=change(self.full))


def make_mass(pattern: Pattern, geometry: Geometry, weight: Number, held: Tensor, *, lumped: bool) -> Mass:
    """The mass matrix with a positive weight, a float or by cell `(*batch, m)`."""
    form = MatrixSum(pattern, geometry)
    form.add_reaction(weight, lumped=lumped)
    return Mass(pattern, geometry.dimension, form.entries(symmetric=True), held, lumped)


class _Solve(torch.autograd.Function):
    """M^-1 right without a record of the steps, M being symmetric and not differentiated."""

    @staticmethod
    def forward(ctx: Any, right: Tensor, mass: Mass) -> Tensor:
        ctx.mass = mass
        return mass.iterate(right)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return ctx.mass.solve(gradients[0]), None


class InverseMass(MatrixFreeOperator):
    """The inverse of the mass matrices of one unknown or several, 0 at held points.

    Args:
        masses: one an unknown.
        space: `(n,)`, of several unknowns `(channel, n)`.
    """

    def __init__(self, masses: tuple[Mass, ...], space: tuple[int, ...]) -> None:
        first = masses[0].full
        batch = torch.broadcast_shapes(*(mass.full.shape[:-1] for mass in masses))
        super().__init__(space, batch, first.dtype, first.device, symmetric=True)
        self.masses = masses

    def apply(self, x: Tensor, out: Tensor | None = None) -> Tensor:
        if len(self.space) == 1:
            result = self.masses[0].solve(x)
        else:
            parts = [mass.solve(part) for mass, part in zip(self.masses, x.unbind(-2), strict=True)]
            result = torch.stack(torch.broadcast_tensors(*parts), -2)
        return result if out is None else out.copy_(result)

    def transpose(self) -> LinearOperator:
        return self

    def to(self, dtype: torch.dtype) -> LinearOperator:
        return self._changed(lambda entries: entries.to(dtype))

    def detach(self) -> LinearOperator:
        return self._changed(torch.Tensor.detach)

    def __getitem__(self, row: int) -> LinearOperator:
        require_batch(self)
        batch = self.batch
        return self._changed(lambda entries: entries.expand(*batch, entries.shape[-1])[row])

    def _changed(self, change: Callable[[Tensor], Tensor]) -> LinearOperator:
        return InverseMass(tuple(mass.changed(change) for mass in self.masses), self.space)
