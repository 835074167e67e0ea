"""How large a step may be before a method makes of what decays or oscillates something that grows."""

from __future__ import annotations

from collections.abc import Callable
from math import inf, log10

import torch
from torch import Tensor

from .explicit import ExplicitRungeKutta
from .implicit_tableau import AdditiveTableau
from .multistep import AdamsBashforth3, Leapfrog
from .tableau import Tableau

# Growth in one step of size 1 / |eigenvalue| that counts as none, and where growth at every step is looked for.
_TOLERANCE = 1e-3
_LEAST = 0.01
_NONE = 1e-10

# No explicit method of ours is stable beyond this.
_MOST = 20.0
_SCANNED = 200
_BISECTIONS = 12

Growth = Callable[[Tensor], Tensor]


def growth_of(method: object) -> Growth | None:
    """z = h lambda -> the factor by which a method multiplies solutions of y' = lambda y in one step, for complex z of
    any shape; None of methods other than explicit Runge-Kutta, Adams-Bashforth 3 and leapfrog."""
    if isinstance(method, ExplicitRungeKutta):
        coefficients = _polynomial(method.tableau)
        return lambda z: _horner(coefficients, z).abs()
    if isinstance(method, AdamsBashforth3):
        return lambda z: _radius([[1 + 23 / 12 * z, -16 / 12 * z, 5 / 12 * z], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    if isinstance(method, Leapfrog):
        f = method.filter
        return lambda z: _radius([[2 * z, 1.0], [1 - 2 * f + 2 * f * z, 2 * f]])
    return None


def limit(growth: Growth, values: Tensor) -> float:
    """The largest step up to which nothing grows.

    Args:
        growth: of a method.
        values: complex `(count,)`, eigenvalues without a positive real part.

    Returns:
        a time, inf if there is no limit; 0 if something grows at every step, however small.
    """
    sizes = values.abs()
    values, sizes = values[sizes > 0.0], sizes[sizes > 0.0]
    if not len(values):
        return inf
    directions = values / sizes
    if always_grows(growth, directions):
        return 0.0

    def grows(lengths: Tensor) -> Tensor:
        factors = growth(lengths * directions.unsqueeze(-1))
        return factors > 1.0 + _TOLERANCE * lengths.square().clamp(max=1.0)

    scanned = torch.logspace(log10(_LEAST), log10(_MOST), _SCANNED, dtype=torch.float64)
    found = grows(scanned)
    ends = found.any(-1)
    if not bool(ends.any()):
        return inf
    first = found.to(torch.int64).argmax(-1)[ends]
    directions, sizes = directions[ends], sizes[ends]
    low, high = scanned[(first - 1).clamp(min=0)], scanned[first]
    for _ in range(_BISECTIONS):
        middle = 0.5 * (low + high)
        bad = grows(middle.unsqueeze(-1)).squeeze(-1)
        low, high = torch.where(bad, low, middle), torch.where(bad, middle, high)
    return float((high / sizes).min())


def always_grows(growth: Growth, directions: Tensor) -> bool:
    """Whether eigenvalues in one of these directions, numbers of modulus 1, make solutions grow at every step."""
    return bool((growth(_LEAST * directions) > 1.0 + _NONE).any())


def additive_limit(tableau: AdditiveTableau | None, implicit: Tensor, explicit: Tensor) -> float:
    """The largest step of a method for y' = L y + N y up to which nothing grows quicker than the solution.

    Args:
        tableau: None for Crank-Nicolson and Adams-Bashforth 2.
        implicit, explicit: L and N, float64 `(count, count)`.

    Returns:
        a time, inf if there is no limit.
    """
    radius = float(torch.linalg.eigvals(explicit).abs().max())
    if radius == 0.0:
        return inf
    fastest = max(0.0, float(torch.linalg.eigvals(implicit + explicit).real.max()))
    for length in torch.logspace(-2, 2, _SCANNED).tolist():
        h = length / radius
        step = (
            _multistep_matrix(implicit, explicit, h)
            if tableau is None
            else _step_matrix(tableau, implicit, explicit, h)
        )
        if not bool(torch.isfinite(step).all()):
            return h
        growth = float(torch.linalg.eigvals(step).abs().max())
        if growth > (1.0 + _TOLERANCE * min(1.0, length * length)) * torch.tensor(fastest * h).exp():
            return h
    return inf


def _step_matrix(tableau: AdditiveTableau, implicit: Tensor, explicit: Tensor, h: float) -> Tensor:
    unit = torch.eye(len(implicit), dtype=implicit.dtype)
    inverse = torch.linalg.inv(unit - h * tableau.diagonal * implicit)
    stages = [unit]
    for a, e in zip(tableau.implicit[1:], tableau.explicit[1:], strict=True):
        right = unit
        for j, stage in enumerate(stages):
            right = right + h * (a[j] * implicit + e[j] * explicit) @ stage
        stages.append(inverse @ right)
    total = torch.stack([b * stage for b, stage in zip(tableau.b, stages, strict=True)]).sum(0)
    return unit + h * (implicit + explicit) @ total


def _multistep_matrix(implicit: Tensor, explicit: Tensor, h: float) -> Tensor:
    """On the state and the one before."""
    unit = torch.eye(len(implicit), dtype=implicit.dtype)
    inverse = torch.linalg.inv(unit - h / 2 * implicit)
    now, before = inverse @ (unit + h / 2 * implicit + 1.5 * h * explicit), -0.5 * h * (inverse @ explicit)
    return torch.cat((torch.cat((now, before), 1), torch.cat((unit, torch.zeros_like(unit)), 1)))


def _polynomial(tableau: Tableau) -> list[float]:
    """Coefficients of R(z) = 1 + sum_k b^T A^(k-1) 1 z^k, the constant first."""
    found, powers = [1.0], [1.0] * tableau.stages
    for _ in range(tableau.stages):
        found.append(sum(b * power for b, power in zip(tableau.b, powers, strict=True)))
        powers = [sum(a * power for a, power in zip(row, powers, strict=False)) for row in tableau.a]
    return found


def _horner(coefficients: list[float], z: Tensor) -> Tensor:
    total = torch.zeros_like(z)
    for coefficient in reversed(coefficients):
        total = total * z + coefficient
    return total


def _radius(rows: list[list[Tensor | float]]) -> Tensor:
    """Largest modulus of the eigenvalues of matrices given by their entries."""
    z = next(entry for row in rows for entry in row if isinstance(entry, Tensor))
    entries = [[torch.as_tensor(entry, dtype=z.dtype).expand(z.shape) for entry in row] for row in rows]
    matrices = torch.stack([torch.stack(row, -1) for row in entries], -2)
    return torch.linalg.eigvals(matrices).abs().amax(-1)
