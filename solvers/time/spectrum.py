"""The outermost eigenvalues of the Jacobian of a right-hand side, which limit the steps of explicit methods."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import cast

import torch
from torch import Tensor
from torch.autograd import forward_ad

from sciml.dense_operator import DenseOperator
from sciml.evolving import EvolvingSystem
from sciml.ordinary import OrdinarySystem

VECTORS = 10  # evaluations of the right-hand side for an estimate, but for one or two of each unknown
_MEMORY = 200_000_000  # numbers that the vectors may hold
_DENSE = 64  # unknowns of a row up to which its matrix is formed, and rows for which that is done
_NOISE = 0.02  # in real parts relative to the largest eigenvalue, of projections that are not quite antisymmetric
_WEAK = 0.01  # real part over modulus of an oscillation that counts as undamped


def eigenvalues(system: EvolvingSystem, y: Tensor, t: float, count: int = VECTORS) -> Tensor:
    """Estimates of the outermost eigenvalues of the Jacobian of the slope at (y, t), of all rows together.

    Exact ones for small systems of ordinary differential equations, of the rows that have the largest matrices.

    Args:
        system: what evolves.
        y: `(*batch, *state_space)`.
        t: the time.
        count: evaluations of the slope, but for some to begin with.

    Returns:
        complex128 `(count,)`, in 1 / unit of time; empty where the slope is not finite.
    """
    with torch.no_grad(), forward_ad._set_fwd_grad_enabled(False):
        if isinstance(system, OrdinarySystem) and prod(system.space) <= _DENSE:
            return _dense(system, y.detach(), t)
        return Projection(system, y.detach(), t, system.slope, count).eigenvalues


def damped(values: Tensor) -> Tensor:
    """The decay of each eigenvalue as a real one, without those that grow."""
    decay = values.real.clamp(max=0.0)
    return decay.to(values.dtype)[decay < 0.0]


def settled(values: Tensor) -> Tensor:
    """Estimates that say something about steps: not those that grow by themselves, and undamped oscillations without
    the small real part that their estimates have."""
    if not len(values):
        return values
    size = values.abs()
    undamped = values.real.abs() <= torch.maximum(_WEAK * size, _NOISE * size.max())
    values = torch.complex(torch.where(undamped, 0.0, values.real), values.imag)
    return values[(values.real <= 0.0) & (values != 0.0)]


def mean_eigenvalues(system: EvolvingSystem, u: Tensor, t: float) -> Tensor:
    """Eigenvalues of how the unknowns act on each other's means over space: those of sources, to which waves,
    transport and diffusion add nothing.

    Args:
        system: of fields on a grid or mesh.
        u: `(*batch, *space)`.
        t: the time.
    """
    several = len(system.space) > system.axes
    space = tuple(range(-system.axes, 0))
    channels = system.space[0] if several else 1
    batch = u.shape[: u.ndim - len(system.space)]
    base = system.rate(u, t)
    size = float(u.square().mean().sqrt()) or 1.0
    small = size * torch.finfo(u.dtype).eps ** 0.5
    columns = []
    for j in range(channels):
        moved = u.clone()
        (moved.select(-1 - system.axes, j) if several else moved).add_(small)
        change = (system.rate(moved, t) - base).mean(space) / small
        columns.append(change if several else change.unsqueeze(-1))
    return _of_matrices(torch.stack(columns, -1).expand(*batch, channels, channels).reshape(-1, channels, channels))


def _dense(system: OrdinarySystem, y: Tensor, t: float) -> Tensor:
    n = prod(system.space)
    shifted = cast(DenseOperator, system.shifted(y, t, 1.0)).matrices
    return _of_matrices((torch.eye(n, dtype=shifted.dtype, device=shifted.device) - shifted).reshape(-1, n, n))


def _of_matrices(matrices: Tensor) -> Tensor:
    """Of the largest of many matrices `(count, n, n)`."""
    matrices = matrices[torch.isfinite(matrices).flatten(1).all(1)]
    if len(matrices) > _DENSE:
        matrices = matrices[matrices.flatten(1).norm(dim=1).topk(_DENSE).indices]
    return torch.linalg.eigvals(matrices.to("cpu", torch.float64)).reshape(-1)


class Projection:
    """The Jacobian on a few directions, by Arnoldi's method with difference quotients.

    Saad, Numerical Methods for Large Eigenvalue Problems, 2nd ed., SIAM 2011, section 6.2. Inner products are those of
    the mass matrix, in which diffusion is symmetric; unknowns are scaled so that they act on each other alike, in which
    waves are antisymmetric: Osborne, J. ACM 7 (1960) 338-345.

    Args:
        system: what evolves.
        y: `(*batch, *state_space)`.
        t: the time.
        slope: dy/dt, or a part of it.
        count: of directions, at most.

    Attributes:
        vectors: `(count, y.numel())`.
        matrix: float64 `(count, count)`; of fewer vectors, or none, where the slope is not finite.
        eigenvalues: of it, complex128.
    """

    def __init__(
        self,
        system: EvolvingSystem,
        y: Tensor,
        t: float,
        slope: Callable[[Tensor, float], Tensor],
        count: int = VECTORS,
    ) -> None:
        self.system, self.y, self.t, self.slope = system, y, t, slope
        self.axes = tuple(range(-len(system.state_space), 0))
        self.channels = len(system.unknowns) if len(system.unknowns) > 1 else 1
        self.generator = torch.Generator().manual_seed(0)
        self.change = self._sizes() * torch.finfo(y.dtype).eps ** 0.5  # of the state, for difference quotients
        self.weight = float(system.apply_mass(torch.ones_like(y)).mean())
        self.base = slope(y, t)
        self.vectors = y.new_empty(0, y.numel())
        self.matrix = torch.zeros(0, 0, dtype=torch.float64)
        if bool(torch.isfinite(self.base).all()):
            if self.channels > 1:
                self._balance()
            self._project(count)
        self.eigenvalues = torch.linalg.eigvals(self.matrix)

    def of(self, force: Callable[[Tensor, float], Tensor]) -> Tensor:
        """The derivative of a force, which is M times a slope, on the same directions."""
        base = force(self.y, self.t)
        images = [force(self.y + self._moved(v), self.t) - base for v in self.vectors]
        columns = [self.vectors @ (image / self.change).reshape(-1) for image in images]
        return torch.stack(columns, 1).to("cpu", torch.float64) / (self.weight * self.y.numel())

    def _sizes(self) -> Tensor:
        """Root mean square of every unknown in every row; of the row, of all or 1 where that is 0."""
        axes = self.axes
        own = axes[1:] if self.channels > 1 else axes
        size = self.y.square().mean(own, keepdim=True).sqrt() if own else self.y.abs()
        for wider in (axes, tuple(range(self.y.ndim))):
            mean = self.y.square().mean(wider, keepdim=True).sqrt() if wider else self.y.abs()
            size = torch.where(size == 0.0, mean, size)
        return torch.where(size == 0.0, 1.0, size)

    def _random(self) -> Tensor:
        return torch.randn(self.y.shape, generator=self.generator, dtype=torch.float64).to(self.y)

    def _moved(self, v: Tensor) -> Tensor:
        """A small change of the state along a vector."""
        return v.reshape(self.y.shape) * self.change

    def _apply(self, v: Tensor) -> Tensor:
        moved = self.slope(self.y + self._moved(v), self.t)
        return (moved - self.base) / self.change

    def _balance(self) -> None:
        """Scale the unknowns so that each acts on the others as strongly as they on it."""
        channel = self.axes[0]
        sizes = []
        for j in range(self.channels):
            direction = torch.zeros_like(self.y)
            direction.select(channel, j).copy_(self._random().select(channel, j))
            image = self._apply(direction)
            sizes.append([float(image.select(channel, i).norm()) for i in range(self.channels)])
        factor = torch.ones(self.channels, dtype=torch.float64)
        acts = torch.tensor(sizes, dtype=torch.float64).T.fill_diagonal_(0.0)
        for _ in range(10):
            for i in range(self.channels):
                inward, outward = acts[i] @ factor, acts[:, i] @ (1 / factor)
                if inward > 0.0 and outward > 0.0:
                    factor[i] = (inward / outward).sqrt()
        factor = factor / factor.log().mean().exp()
        if bool(torch.isfinite(factor).all()):
            self.change = self.change * factor.to(self.y).reshape(-1, *(1,) * (len(self.axes) - 1))

    def _project(self, wanted: int) -> None:
        """With vectors whose mean square is 1, not their sum of squares."""
        size = self.y.numel()
        count = max(2, min(wanted, _MEMORY // max(1, size)))
        vectors = self.y.new_empty(count, size)
        found = torch.zeros(count + 1, count, dtype=torch.float64)
        v = self._random()
        norm = self._norm(v)
        for k in range(count):
            vectors[k] = (v / norm).reshape(-1)
            v = self._apply(vectors[k])
            earlier, before = vectors[: k + 1], self._norm(v)
            for again in (False, True):
                parts = earlier @ self._with_mass(v).reshape(-1) / size
                v = v - (parts @ earlier).reshape(v.shape)
                found[: k + 1, k] += parts.to(found)
                norm = self._norm(v)
                if again or not bool(norm < 0.1 * before):  # what is small by cancellation is not orthogonal
                    break
            found[k + 1, k] = norm
            if not bool(torch.isfinite(norm)):
                return
            end = norm <= 1e-5 * float(found.abs().max())
            self.matrix, self.vectors = found[: k + 1, : k + 1], earlier
            if bool(end):
                return

    def _norm(self, v: Tensor) -> Tensor:
        return (v * self._with_mass(v)).mean().clamp(min=0.0).sqrt()

    def _with_mass(self, v: Tensor) -> Tensor:
        """M v, where M is of the order of the identity."""
        return self.system.apply_mass(v) / self.weight
