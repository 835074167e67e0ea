"""The fields that constraints determine on a grid: one linear solve an evaluation, by a solver prepared once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from ..balance import drifted, imbalance, require_balanced, without
from ..equations.residuals import ResidualForm
from ..errors import InputError
from ..evolving import Prepare
from ..linear_operator import BlockOperator, Kind, LinearOperator
from ..stencil import StencilOperator
from .assembly import Assembly
from .linearization import NonlinearSystem
from .null_space import names_in
from .problem import Problem


def in_order_of_unknowns(
    forms: Sequence[ResidualForm], unknowns: tuple[str, ...], constrained: tuple[str, ...]
) -> tuple[ResidualForm, ...]:
    """The forms, each constraint in the place of the field that it determines: the one of highest derivatives in it.

    Raises:
        InputError: for constraints that are not linear in their fields with coefficients that stay as they are.
    """
    evolving, constraints = forms[: len(unknowns)], list(forms[len(unknowns) :])
    for form in constraints:
        varied = sorted({jet.field for jet in form.jets.values()} & set(constrained))
        if varied:
            raise InputError(
                f"the constraint on {', '.join(varied)} is not linear in it, or has a coefficient that changes in time "
                "or with an unknown; on a grid this version solves constraints whose operator stays the same"
            )

    def highest(form: ResidualForm, name: str) -> int:
        return max(
            (sum(t.derivative) + (t.flux_axis is not None) for t in form.terms if t.unknown == name),
            default=-1,
        )

    ordered = []
    for name in constrained:
        best = max(constraints, key=lambda form: highest(form, name))
        if highest(best, name) < 0:
            raise InputError(f"no constraint is left that determines {name!r}: none of them holds it")
        constraints.remove(best)
        ordered.append(best)
    return (*evolving, *ordered)


class Constraint:
    """The constraints of an evolving equation, prepared.

    Args:
        problem: of all unknowns; those that the constraints determine are the last.
        system: the same, discretized.
        names: of the fields that the constraints determine.
        prepare: see `sciml.evolving`.

    Raises:
        InputError: for constraints whose operator is singular but for constants.
    """

    def __init__(self, problem: Problem, system: NonlinearSystem, names: tuple[str, ...], prepare: Prepare) -> None:
        self.names = names
        self.grid = problem.grid
        self.first = len(problem.unknowns) - len(names)
        self.blocks = system.assembly.blocks
        own = Assembly(problem.restricted(names))
        self.sign = own.signs[0] if len(names) == 1 else 1.0
        self.null_space = own.null_space
        self.operator = self._operator(own)
        self.fixed = all(system.rows[row].rest == 0 for row in range(self.first, len(problem.unknowns)))
        self._prepare = prepare
        self._solve_transposed: Callable[[Tensor], Tensor] | None = None
        try:
            self._solve = prepare(self.operator)
        except InputError as error:
            if "singular" not in str(error):
                raise
            raise InputError(
                f"the constraints do not determine {', '.join(names)}, and not only up to a constant "
                f"({str(error).partition(':')[0]}): give a Dirichlet condition on one side, or add a term that holds "
                "the value"
            ) from error

    def solve(self, now: NonlinearSystem, channels: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The fields, `(*batch, *grid)` each; NaN in rows that have none, since the right side has a mean that the
        operator cannot reach.

        Args:
            now: the equation at a time.
            channels: the evolving unknowns, by name.
        """
        terms = self._terms(now, channels)
        right = self._joined(terms)
        solved = self.response(right)
        if self.null_space is not None:
            wrong = drifted(*self._imbalance(terms, right, self.null_space))
            solved = torch.where(wrong.reshape(*wrong.shape, *[1] * len(self.operator.space)), torch.nan, solved)
        if len(self.names) == 1:
            return {self.names[0]: solved}
        return dict(zip(self.names, solved.unbind(-1 - self.grid.dimension), strict=True))

    def response(self, right: Tensor) -> Tensor:
        """The fields for a right side, `(*batch, *space)` of the constraints."""
        return self._sided(self._solve, right)

    def response_transposed(self, right: Tensor) -> Tensor:
        """The solution with the transposed operator."""
        if self.operator.symmetric:
            return self.response(right)
        if self._solve_transposed is None:
            self._solve_transposed = self._prepare(self.operator.transpose())
        return self._sided(self._solve_transposed, right)

    def _sided(self, solve: Callable[[Tensor], Tensor], right: Tensor) -> Tensor:
        if self.sign < 0:
            right = -right
        if self.null_space is None:
            return solve(right)
        return without(solve(without(right, self.null_space)), self.null_space)

    def check_balance(self, now: NonlinearSystem, channels: Mapping[str, Tensor]) -> None:
        """Raise InputError where a field is determined up to a constant, and the right side has a mean."""
        if self.null_space is None:
            return
        with torch.no_grad():
            terms = self._terms(now, channels)
            part, size = self._imbalance(terms, self._joined(terms), self.null_space)
        require_balanced(part, size, tuple(dict.fromkeys(names_in(v, self.names) for v in self.null_space)))

    def _terms(self, now: NonlinearSystem, channels: Mapping[str, Tensor]) -> list[list[Tensor]]:
        """By row what the fields' operator must equal, to be added up."""
        names = now.unknowns
        rows = range(self.first, len(names))
        cells = {} if self.fixed else now.cells(channels, [now.rows[row] for row in rows])
        found = []
        for row in rows:
            terms = [now.sources[row]]
            terms += [
                -block.apply(channels[names[column]])
                for column in range(self.first)
                if (block := self.blocks[row][column]) is not None
            ]
            if now.rows[row].rest != 0:
                rest = torch.as_tensor(now.rest(row, cells))
                terms.append(-rest.expand(torch.broadcast_shapes(rest.shape, self.grid.shape)))
            solid = self.grid.solid
            found.append(terms if solid is None else [torch.where(solid, 0.0, term) for term in terms])
        return found

    def _joined(self, terms: list[list[Tensor]]) -> Tensor:
        results = [sum(row[1:], start=row[0]) for row in terms]
        if len(results) == 1:
            return results[0]
        return torch.stack(torch.broadcast_tensors(*results), dim=-1 - self.grid.dimension)

    def _imbalance(self, terms: list[list[Tensor]], right: Tensor, null_space: Tensor) -> tuple[Tensor, Tensor]:
        return imbalance(right, [term for row in terms for term in row], null_space, self.grid.dimension)

    def _operator(self, own: Assembly) -> LinearOperator:
        if len(self.names) > 1:
            return BlockOperator(own.blocks, null_space=own.null_space)
        operator = own.diagonal_blocks[0]
        if self.null_space is None and not operator.symmetric:
            self.null_space = _constant_kernel(operator)
        kind = Kind.SYMMETRIC_POSITIVE if own.properties[0].definite else Kind.LINEAR
        coefficients = operator.coefficients if self.sign > 0 else [-c for c in operator.coefficients]
        return StencilOperator(
            operator.space,
            operator.offsets,
            coefficients,
            operator.periodic,
            symmetric=operator.symmetric,
            null_space=self.null_space,
            kind=kind,
        )


def _constant_kernel(operator: StencilOperator) -> Tensor | None:
    """The constant, if the operator and its transpose annihilate it."""
    plain = operator.detach()
    ones = torch.ones(plain.space, dtype=plain.dtype, device=plain.device)
    scale = 1e3 * torch.finfo(plain.dtype).eps * float(plain.diagonal().abs().max())
    if float(plain.apply(ones).abs().max()) > scale or float(plain.transpose().apply(ones).abs().max()) > scale:
        return None
    return (ones / ones.numel() ** 0.5).unsqueeze(0)
