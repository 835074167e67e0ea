"""A multigrid preconditioner whose interpolation and coarse operators come from a small trained network.

    from sciml.solvers.linear import ConjugateGradient, LearnedMultigrid

    solver = ConjugateGradient(preconditioner=LearnedMultigrid.pretrained("poisson-3d"))
    solution = solver.solve(operator, b)

or, with weights of one's own from `sciml train multigrid-3d`,
`LearnedMultigrid.load("multigrid-3d/preconditioner.safetensors")`.
"""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass, field
from math import prod
from typing import Any

import torch
from torch import Tensor

from sciml.errors import InputError
from sciml.kernels.conductances import CompiledNetworkCycle
from sciml.linear_operator import Kind, LinearOperator
from sciml.stencil import StencilOperator

from ..finiteness import check_finite
from ..inverse import ApproximateInverse, unbatched
from ..rows import Rows
from ..settings import check_count
from .multigrid_coarsening import CoarseningNetwork
from .multigrid_compiled import compilable, compiled_cycle
from .multigrid_conductances import conductances_of, mean_diagonal
from .multigrid_cycle import ConductanceCycle
from .weights import Weights, fill, load_shipped, load_weights, save_weights

KIND = "coarsening-network"


@dataclass(frozen=True, eq=False)
class LearnedMultigrid:
    """A preconditioner of multigrid's shape that was trained on obstacles, jumping coefficients and anisotropy.

    A network of some hundred weights looks at every pair of neighbouring cells once, in `prepare`, and says how the
    pairs become the cells of the coarser grid: interpolation, conductances and grounds. What is applied is then one
    V-cycle with operators of next neighbours on all grids, linear and symmetric positive definite by construction, so
    that conjugate gradients keep their guarantees: a bad network costs iterations, never a wrong answer.

    Works on symmetric stencils with couplings between next neighbours of the sign of diffusion, on grids of any size,
    with obstacles, walls and periodic axes. Large jumps that change places from cell to cell are not for grids of
    pairs: on 64x64 cells of 1 or 10,000 at random it takes some 150 iterations to 1e-6, AlgebraicMultigrid 13. The rows
    of a batch have a hierarchy each only on the CPU in float32 without periodic axes; elsewhere all are coarsened along
    the same axes, which costs iterations where some conduct best along one axis and some along another.

    Args:
        network: as trained by `sciml train`, or `LearnedMultigrid.pretrained(...)`'s.
        coarsest: largest number of unknowns that is solved directly, by a dense inverse; three along each axis are so
            in any case.
        precision: dtype of the cycle.

    Raises:
        InputError: for settings out of range; from `prepare` for an operator that the network was not made for.
    """

    network: CoarseningNetwork = field(default_factory=CoarseningNetwork)
    coarsest: int = 400
    precision: torch.dtype = torch.float32

    def __post_init__(self) -> None:
        if not isinstance(self.network, CoarseningNetwork):
            raise InputError(f"LearnedMultigrid: network must be a CoarseningNetwork, got {self.network!r}")
        check_count(self.coarsest, "LearnedMultigrid: coarsest")
        if self.precision not in (torch.float32, torch.float64):
            raise InputError(f"LearnedMultigrid: precision must be torch.float32 or float64, got {self.precision!r}")

    @staticmethod
    def pretrained(name: str) -> LearnedMultigrid:
        """With weights that ship with the package: "poisson-2d" or "poisson-3d".

        Raises:
            InputError: for another name.
        """
        return LearnedMultigrid(network_of(load_shipped(name, KIND), f"{name!r}"))

    @staticmethod
    def load(path: str | os.PathLike[str]) -> LearnedMultigrid:
        """With weights that `save` or `sciml train` wrote.

        Raises:
            InputError: no such file, or weights of something else, damaged or not finite.
        """
        return LearnedMultigrid(network_of(load_weights(path, KIND), str(path)))

    def save(self, path: str | os.PathLike[str], about: dict[str, object] | None = None) -> None:
        """Write the weights; `about` is what they were trained on."""
        save_weights(path, KIND, self.network.settings, self.network, about)

    def describe(self) -> str:
        """Name in a few words."""
        sweeps = self.network.sweeps
        return f"learned multigrid({sweeps},{sweeps})"

    def prepare(self, operator: LinearOperator) -> LinearOperator:
        """The cycle of an operator.

        Raises:
            InputError: for an operator that the network was not made for, or weights that are not finite.
        """
        if not all(bool(torch.isfinite(weight).all()) for weight in self.network.parameters()):
            raise InputError("LearnedMultigrid: the network has weights that are NaN or infinite")
        axes = len(operator.space)
        if isinstance(operator, StencilOperator) and axes not in self.network.dimensions:
            made = " or ".join(str(number) for number in self.network.dimensions)
            advice = f'LearnedMultigrid.pretrained("poisson-{axes}d"), or ' * (axes in (2, 3))
            raise InputError(
                f"this network was made for operators on {made} axes, this one has {axes}: use {advice}Multigrid"
            )
        with torch.no_grad():
            return LearnedCycle(self, operator.detach())

    def cycles(self, operator: LinearOperator) -> ConductanceCycle | tuple[CompiledNetworkCycle, ...]:
        """The cycle of an operator in units of the mean of its diagonal, or one compiled for each row of its batch."""
        if compilable(operator, self.network) and self.precision == torch.float32:
            return tuple(compiled_cycle(row, self.network, self.coarsest) for row in unbatched(operator))
        network, diagonal = conductances_of(operator)
        network, diagonal = network.to(self.precision), diagonal.to(self.precision)
        learned = self.network.like(diagonal)
        return ConductanceCycle.of(network, diagonal, learned, self.coarsest)


class LearnedCycle(ApproximateInverse):
    """One cycle from a zero start, as an operator.

    Args:
        settings: the preconditioner.
        operator: what it approximately inverts, without gradients.
    """

    def __init__(self, settings: LearnedMultigrid, operator: LinearOperator) -> None:
        super().__init__(operator, Kind.SYMMETRIC_POSITIVE)
        check_finite(operator)
        self._settings, self._operator = settings, operator
        self._cycles = settings.cycles(operator)
        self._unit = mean_diagonal(operator).double()
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[Any, ...]:
        """Copied and pickled by what it was made from: addresses in memory stay in this process."""
        return LearnedCycle, (self._settings, self._operator)

    def multiply(self, x: Tensor, out: Tensor | None = None) -> Tensor:
        batch = torch.broadcast_shapes(self.batch, x.shape[: x.ndim - len(self.space)])
        x = x.resolve_neg().expand(*batch, *self.space).contiguous()
        fits = out is not None and out.is_contiguous() and (out.shape, out.dtype) == (x.shape, x.dtype)
        value = out if out is not None and fits else torch.empty_like(x)
        self.apply_and_dot(x, value)
        return value if out is None or value is out else out.copy_(value)

    def apply_and_dot(self, x: Tensor, out: Tensor) -> Tensor:
        """B x into `out`, of the shape of x; returns x . B x in float64, row by row."""
        rows = Rows(x.shape[: x.ndim - len(self.space)], self.space)
        if isinstance(self._cycles, ConductanceCycle):
            # A norm of 1 keeps float32 clear of overflow and underflow whatever the scale of the residual.
            norm = rows.norm(x.contiguous())
            norm = torch.where(norm > 0, norm, 1.0)
            scaled = (x * rows.spread(norm.reciprocal(), x)).to(self._settings.precision)
            out.copy_(self._cycles.apply(scaled).to(x.dtype) * rows.spread(norm / self._unit, x))
            return rows.dot(x, out)
        fields, results = x.reshape(rows.count, rows.size), out.view(rows.count, rows.size)
        with self._lock:
            dots = [
                self._cycles[place](field, result)
                for place, field, result in zip(self._places(rows.batch), fields, results, strict=True)
            ]
        return torch.tensor(dots, dtype=torch.float64).reshape(rows.batch)

    def transpose(self) -> LinearOperator:
        return self

    def _places(self, batch: tuple[int, ...]) -> list[int]:
        """For every row of a batch that of the operator's."""
        places: list[int] = torch.arange(prod(self.batch)).reshape(self.batch).expand(batch).flatten().tolist()
        return places


def network_of(weights: Weights, source: str) -> CoarseningNetwork:
    """The network of weights that were read.

    Raises:
        InputError: they are of another architecture.
    """
    settings = weights.settings
    try:
        network = CoarseningNetwork(settings["width"], settings["sweeps"], settings["dimensions"])
    except (KeyError, TypeError, InputError) as error:
        why = error if isinstance(error, InputError) else f"settings {settings!r}"
        raise InputError(f"the weights of {source} are of another architecture than CoarseningNetwork: {why}") from None
    fill(network, weights.tensors, source)
    return network
