"""A multigrid preconditioner whose grids, interpolation and coarse operators come from a small trained network."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

import torch
from torch import Tensor

from sciml.errors import InputError
from sciml.linear_operator import Kind, LinearOperator

from ..inverse import ApproximateInverse
from ..rows import Rows
from ..settings import check_count
from .multigrid_coarsening import CoarseningNetwork
from .multigrid_conductances import conductances_of
from .multigrid_cycle import ConductanceCycle
from .weights import Weights, fill, load_shipped, load_weights, save_weights

KIND = "coarsening-network"


@dataclass(frozen=True, eq=False)
class LearnedMultigrid:
    """A preconditioner of multigrid's shape that was trained on obstacles, jumping coefficients and anisotropy.

    A network of some hundred weights looks at every pair of neighbouring cells once, in `prepare`, and says how the
    pairs become the cells of the coarser grid: interpolation, conductances and grounds. What is applied is then one
    V-cycle with operators of next neighbours on all grids, linear and symmetric positive definite by construction, so
    that conjugate gradients keep their guarantees: a bad network costs time only.

    Works on symmetric stencils with couplings between next neighbours of the sign of diffusion, on grids of any size,
    with obstacles, walls and periodic axes.

    Args:
        network: as trained by `sciml train`, or `LearnedMultigrid.pretrained(...)`'s.
        coarsest: largest number of unknowns that is solved directly, by a dense inverse.
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
        return LearnedMultigrid(network_of(load_shipped(name, KIND), f"the weights {name!r}"))

    @staticmethod
    def load(path: str | os.PathLike[str]) -> LearnedMultigrid:
        """With weights that `save` or `sciml train` wrote.

        Raises:
            InputError: no such file, or weights of something else, damaged or not finite.
        """
        return LearnedMultigrid(network_of(load_weights(path, KIND), str(path)))

    def save(self, path: str | os.PathLike[str], about: dict[str, object] | None = None) -> None:
        """Write the weights; `about` is what they were trained on."""
        network = self.network
        settings = {"width": network.width, "sweeps": network.sweeps, "dimensions": list(network.dimensions)}
        save_weights(path, KIND, settings, network, about)

    def describe(self) -> str:
        """Name in a few words."""
        sweeps = self.network.sweeps
        return f"learned multigrid({sweeps},{sweeps})"

    def prepare(self, operator: LinearOperator) -> LinearOperator:
        """The cycle of an operator.

        Raises:
            InputError: for an operator that the network was not made for.
        """
        axes = len(operator.space)
        if axes not in self.network.dimensions:
            made = " or ".join(str(number) for number in self.network.dimensions)
            raise InputError(
                f"this network was made for operators on {made} axes, this one has {axes}: use weights for {axes}, "
                f'such as LearnedMultigrid.pretrained("poisson-{axes}d"), or Multigrid'
            )
        with torch.no_grad():
            plain = operator.detach()
            network, diagonal = conductances_of(plain)
            learned = self.network.in_dtype(self.precision)
            cycle = ConductanceCycle.of(
                network.to(self.precision), diagonal.to(self.precision), learned, self.coarsest
            )
            unit = float(plain.diagonal().expand(*plain.batch, *plain.space).mean())
        return LearnedCycle(plain, cycle, unit, self.precision)


class LearnedCycle(ApproximateInverse):
    """One cycle from a zero start, as an operator.

    Args:
        operator: what it approximately inverts.
        cycle: that of the operator over `unit`.
        unit: mean of the operator's diagonal.
        precision: dtype of the cycle.
    """

    def __init__(
        self, operator: LinearOperator, cycle: ConductanceCycle, unit: float, precision: torch.dtype
    ) -> None:
        super().__init__(operator, Kind.SYMMETRIC_POSITIVE)
        self.cycle = cycle
        self.unit = unit
        self.precision = precision

    def multiply(self, x: Tensor, out: Tensor | None = None) -> Tensor:
        batch = torch.broadcast_shapes(self.batch, x.shape[: x.ndim - len(self.space)])
        x = x.expand(*batch, *self.space)
        rows = Rows(batch, self.space)
        # A norm of 1 keeps float32 clear of overflow and underflow whatever the scale of the residual.
        norm = rows.norm(x.contiguous())
        norm = torch.where(norm > 0, norm, 1.0)
        value = self.cycle.apply((x * rows.spread(norm.reciprocal(), x)).to(self.precision)).to(x.dtype)
        value = value * rows.spread(norm / self.unit, x)
        return value if out is None else out.copy_(value)

    def transpose(self) -> LinearOperator:
        return self


def network_of(weights: Weights, source: str) -> CoarseningNetwork:
    """The network of weights that were read.

    Raises:
        InputError: they are of another architecture.
    """
    settings = weights.settings
    try:
        network = CoarseningNetwork(settings["width"], settings["sweeps"], tuple(settings["dimensions"]))
    except (KeyError, TypeError) as error:
        raise InputError(f"{source} are of another architecture than CoarseningNetwork: {error}") from None
    fill(network, weights.tensors, source)
    return network
