"""A direction network made ready for an operator: residuals to directions, in the operator's dtype."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor, nn

from sciml.errors import InputError
from sciml.linear_operator import BlockOperator, Kind, LinearOperator, MatrixFreeOperator

from ..rows import Rows
from .direction_network import DirectionNetwork

_POINTS = 1 << 21  # that pass the network at once: 16 channels of them are 128 MiB


class Directions:
    """A network's directions for residuals of one operator.

    Unknowns that are coupled to no other, such as those of solid cells, are no matter for the network: it is given 0
    there, and what it returns there is dropped.

    Args:
        network: from residuals `(rows, *space)` of norm 1 to directions.
        operator: symmetric.

    Attributes:
        alone: bool, broadcastable to `(*batch, *space)`: unknowns that are coupled to no other; None if there are none.

    Raises:
        InputError: an operator that is not symmetric, of another dimension or on another device than the network.
    """

    def __init__(self, network: nn.Module, operator: LinearOperator) -> None:
        if not operator.symmetric:
            raise InputError(
                "conjugate directions need a symmetric operator, and this one is not known to be: use GMRES or BiCGStab"
            )
        weights = next(network.parameters(), None)
        self.dtype = operator.dtype if weights is None else weights.dtype
        if weights is not None and weights.device != operator.device:
            raise InputError(
                f"the network is on {weights.device} and the operator on {operator.device}: move the network there, "
                f"network.to({str(operator.device)!r})"
            )
        if isinstance(operator, BlockOperator):
            raise InputError("the network is of one unknown, and the operator couples several: solve for one at a time")
        if isinstance(network, DirectionNetwork) and network.dimension != len(operator.space):
            raise InputError(
                f"the network is of dimension {network.dimension}, and the operator acts on fields {operator.space}: "
                "it needs one whose fields have as many axes, from sciml.discretize on a grid"
            )
        self.network = network
        self.operator = operator
        with torch.no_grad():
            self.alone = _coupled_to_none(operator)

    def __call__(self, residual: Tensor, rows: Rows, wanted: Tensor | None = None) -> Tensor:
        """Directions of any length, perhaps not finite.

        Args:
            residual: `(*batch, *space)`, of norm 1 or 0.
            rows: of that batch.
            wanted: bool of batch shape: the others get 0, and on the CPU do not pass the network; None for all.
        """
        fields = residual if self.alone is None else residual.masked_fill(self.alone, 0.0)
        fields = fields.reshape(rows.count, *rows.space).to(self.dtype)
        chosen = None
        if wanted is not None and wanted.device.type == "cpu" and not bool(wanted.all()):
            chosen = wanted.reshape(-1).nonzero().squeeze(1)
            fields = fields[chosen]
        parts = fields.split(max(1, _POINTS // rows.size))
        found = torch.cat([self.network(part) for part in parts]).to(residual.dtype)
        if found.shape != fields.shape:
            raise InputError(
                f"the network returned shape {tuple(found.shape)} for residuals of shape {tuple(fields.shape)}"
            )
        if chosen is not None:
            found = found.new_zeros(rows.count, *rows.space).index_copy(0, chosen, found)
        found = found.reshape(residual.shape)
        if self.alone is not None:
            found = found.masked_fill(self.alone, 0.0)
        if self.operator.null_space is not None:
            for vector in self.operator.null_space.to(found.dtype):
                along = (found * vector).flatten(-len(rows.space)).sum(-1)
                found = found - rows.spread(along, found) * vector
        return found


def solved_alone(operator: LinearOperator, r: Tensor) -> Tensor:
    """r/d with the diagonal d, and r where that is zero, as in a cell that walls enclose: there any number will do."""
    diagonal = operator.diagonal()
    return r / torch.where(diagonal == 0, 1.0, diagonal)


def _coupled_to_none(operator: LinearOperator) -> Tensor | None:
    probe = torch.rand(operator.space, generator=torch.Generator().manual_seed(0), dtype=torch.float64).add_(0.5)
    probe = probe.to(operator.device, operator.dtype).expand(*operator.batch, *operator.space).contiguous()
    own = probe * operator.diagonal()
    alone = (operator.apply(probe) - own).abs() <= 4 * torch.finfo(operator.dtype).eps * own.abs()
    return alone if bool(alone.any()) else None


@final
@dataclass(frozen=True, eq=False)
class DeepDirection:
    """A direction network as preconditioner of flexible methods: the best step from zero along its direction.

    It is nonlinear: ConjugateGradient refuses it, FlexibleConjugateGradient and GMRES take it. Where a step along the
    residual would lower the energy of the error more, that is taken.

    Args:
        network: from residuals `(rows, *space)` of norm 1 to directions, such as DirectionNetwork.

    Raises:
        InputError: something that is no network; from `prepare`, see Directions.
    """

    network: nn.Module

    def __post_init__(self) -> None:
        check_network(self.network)

    @classmethod
    def pretrained(
        cls, name: str, *, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32
    ) -> DeepDirection:
        """With weights that come with the package, see DirectionNetwork.pretrained."""
        return cls(DirectionNetwork.pretrained(name, device=device, dtype=dtype))

    def describe(self) -> str:
        return "a direction network"

    def prepare(self, operator: LinearOperator, /) -> DirectionInverse:
        return DirectionInverse(self, operator)


@final
class DirectionInverse(MatrixFreeOperator):
    """r -> (q.r)/(q.A q) q with q the network's direction for r, and r/d where an unknown is coupled to no other.

    Attributes:
        method: whose network it is.
        operator: A.
    """

    def __init__(self, method: DeepDirection, operator: LinearOperator) -> None:
        super().__init__(operator.space, operator.batch, operator.dtype, operator.device, kind=Kind.NONLINEAR)
        self.method = method
        self.operator = operator
        self._directions = Directions(method.network, operator.detach())

    def apply(self, x: Tensor, out: Tensor | None = None) -> Tensor:
        batch = torch.broadcast_shapes(self.batch, x.shape[: x.ndim - len(self.space)])
        rows = Rows(batch, self.space)
        r = x.expand(*batch, *self.space)
        alone = self._directions.alone
        inner = r if alone is None else r.masked_fill(alone, 0.0)
        length = torch.linalg.vector_norm(inner.flatten(-len(self.space)), dim=-1)
        unit = inner / rows.spread(torch.where(length > 0, length, 1.0), inner)
        q = self._directions(unit, rows)
        step, gain = self._step(q, inner, rows)
        plain_step, plain_gain = self._step(unit, inner, rows)
        better = rows.spread(gain >= plain_gain, inner).bool()
        result = torch.where(better, q * rows.spread(step, q), unit * rows.spread(plain_step, unit))
        if alone is not None:
            result = torch.where(alone, solved_alone(self.operator, r), result)
        return result if out is None else out.copy_(result)

    def _step(self, q: Tensor, r: Tensor, rows: Rows) -> tuple[Tensor, Tensor]:
        """The best step along q, and by how much it lowers the energy of the error, -1 where there is no step.

        A row whose curvature is negative goes by 1, and is for the method to report.
        """
        axes = len(self.space)
        image = self._directions.operator.apply(q.contiguous())
        slope, curvature = (q * r).flatten(-axes).sum(-1), (q * image).flatten(-axes).sum(-1)
        usable = (curvature > 0) & torch.isfinite(curvature) & torch.isfinite(slope)
        step = torch.where(usable, slope / torch.where(usable, curvature, 1.0), 1.0)
        return step, torch.where(usable, slope * step, -1.0)

    def transpose(self) -> LinearOperator:
        raise InputError("a direction network is nonlinear: it has no transpose")

    def to(self, dtype: torch.dtype) -> DirectionInverse:
        return DirectionInverse(self.method, self.operator.to(dtype))

    def detach(self) -> DirectionInverse:
        return DirectionInverse(self.method, self.operator.detach())

    def __getitem__(self, row: int) -> DirectionInverse:
        return DirectionInverse(self.method, self.operator[row])


def check_network(network: object) -> None:
    """Raise InputError for something that is no network."""
    if not isinstance(network, nn.Module):
        raise InputError(
            "network must be a torch.nn.Module from residuals (rows, *space) to directions, for example "
            f"DirectionNetwork.published(64); got {network!r}"
        )
