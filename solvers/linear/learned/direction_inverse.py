"""A direction network made ready for an operator: residuals to directions, in the operator's dtype."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
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

    @cached_property
    def alone(self) -> Tensor | None:
        """bool, broadcastable to `(*batch, *space)`: unknowns that are coupled to no other; None if there are none."""
        generator = torch.Generator().manual_seed(0)
        probe = torch.rand(self.operator.space, generator=generator, dtype=torch.float64).add_(0.5)
        probe = probe.to(self.operator.device, self.operator.dtype).expand(*self.operator.batch, *self.operator.space)
        own = probe * self.operator.diagonal()
        eps = torch.finfo(self.operator.dtype).eps
        alone = (self.operator.apply(probe.contiguous()) - own).abs() <= 4 * eps * own.abs()
        return alone if bool(alone.any()) else None

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


@final
@dataclass(frozen=True, eq=False)
class DeepDirection:
    """A direction network as preconditioner of flexible methods: one step of steepest descent along its direction.

    It is nonlinear: ConjugateGradient refuses it, FlexibleConjugateGradient and flexible GMRES take it. Where the
    network's direction is zero, not finite or no descent, the residual takes its place.

    Args:
        network: from residuals `(rows, *space)` of norm 1 to directions, such as DirectionNetwork.

    Raises:
        InputError: something that is no network; from `prepare`, see Directions.
    """

    network: nn.Module

    def __post_init__(self) -> None:
        check_network(self.network)

    @classmethod
    def pretrained(cls, name: str) -> DeepDirection:
        """With weights that come with the package, see DirectionNetwork.pretrained."""
        return cls(DirectionNetwork.pretrained(name))

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
        q = self._directions(inner / rows.spread(torch.where(length > 0, length, 1.0), inner), rows)
        step, usable = self._step(q, inner, rows)
        if not bool((usable | (length == 0)).all()):
            q = torch.where(rows.spread(usable, q).bool(), q, inner)
            step, usable = self._step(q, inner, rows)
        # A row whose curvature is negative keeps its sign, and is for the method to report.
        result = rows.spread(torch.where(usable, step, 1.0), q) * torch.where(rows.spread(usable, q).bool(), q, inner)
        if alone is not None:
            result = torch.where(alone, r / self.operator.diagonal(), result)
        return result if out is None else out.copy_(result)

    def _step(self, q: Tensor, r: Tensor, rows: Rows) -> tuple[Tensor, Tensor]:
        """The best step along q, and whether there is one."""
        axes = len(self.space)
        image = self._directions.operator.apply(q.contiguous())
        slope, curvature = (q * r).flatten(-axes).sum(-1), (q * image).flatten(-axes).sum(-1)
        step = slope / torch.where(curvature > 0, curvature, 1.0)
        return step, (curvature > 0) & torch.isfinite(step) & (step != 0)

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
