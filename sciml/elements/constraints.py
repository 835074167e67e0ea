"""Fields on a mesh that constraints determine at every time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any, final

import torch
from torch import Tensor

from ..balance import drifted, imbalance, require_balanced, without
from ..evolving import Prepare
from ..linear_operator import BlockOperator, LinearOperator
from .evolving_row import EvolvingRow, Moment
from .nonlinear_form import State
from .operator import matrix_operator, negated

Solve = Callable[[Tensor], Tensor]


@final
class Constraints:
    """0 = A c + b(u, t) for the fields c that constraints determine, A being prepared once.

    Where A is singular since nothing holds the fields, but for a constant on each part of the mesh, the solution is the
    one whose integral over each part is 0.

    Args:
        rows: one a field.
        first: the place of the first field among all unknowns.
        prepare: see `sciml.evolving.Prepare`.
    """

    def __init__(self, rows: tuple[EvolvingRow, ...], first: int, prepare: Prepare) -> None:
        self.rows = rows
        self.first = first
        self.names = tuple(row.own for row in rows)
        self.prepare = prepare
        self._negative = all(row.form.sign < 0 for row in rows)
        operator = self._make_operator()
        self.null_space = _null_space(operator, rows[0])
        self.operator = operator if self.null_space is None else self._make_operator(self.null_space)
        self._solve = prepare(self.operator)

    def __reduce__(self) -> tuple[Any, ...]:
        """Copied by what it was made from: prepared solvers may hold addresses in memory."""
        return Constraints, (self.rows, self.first, self.prepare)

    def fields(self, known: Mapping[str, Tensor], moment: Moment) -> dict[str, Tensor]:
        """The fields, given the others with the values at held points; NaN in rows that have none, since A is singular
        and b has a mean."""
        terms, lifts = self._terms(known, moment)
        right = self._joined(terms)
        found = self.solve(right)
        if self.null_space is not None:
            wrong = drifted(*self._imbalance(terms, right, self.null_space))
            found = torch.where(wrong.reshape(*wrong.shape, *[1] * len(self.operator.space)), torch.nan, found)
        parts = _parts(found, len(self.operator.space))
        return {name: lifts[name] + part for name, part in zip(self.names, parts, strict=True)}

    def check_balance(self, known: Mapping[str, Tensor], moment: Moment) -> None:
        """Raise InputError where A is singular and b has a mean."""
        if self.null_space is None:
            return
        with torch.no_grad():
            terms, _ = self._terms(known, moment)
            require_balanced(*self._imbalance(terms, self._joined(terms), self.null_space), self.names)

    def _terms(self, known: Mapping[str, Tensor], moment: Moment) -> tuple[list[list[Tensor]], dict[str, Tensor]]:
        """By row what -b is the sum of, and the values at held points."""
        lifts = {row.own: moment.lifts[row.own] for row in self.rows}
        state = State(self.rows[0].form.geometry, {**known, **lifts})
        still = {row.own for row in self.rows if not row.holds}
        on = {place: u for place, (name, u) in enumerate(state.fields.items()) if name not in still}
        terms = [[-part for part in row.left_parts(state, moment, on)] for row in self.rows]
        return [
            [torch.where(row.held, 0.0, part) if row.holds else part for part in parts]
            or [torch.zeros_like(state.fields[row.own])]
            for row, parts in zip(self.rows, terms, strict=True)
        ], lifts

    def _joined(self, terms: list[list[Tensor]]) -> Tensor:
        return _stacked([sum(parts[1:], start=parts[0]) for parts in terms])

    def _imbalance(self, terms: list[list[Tensor]], right: Tensor, null_space: Tensor) -> tuple[Tensor, Tensor]:
        return imbalance(right, [term for row in terms for term in row], null_space, 1)

    def solve(self, right: Tensor) -> Tensor:
        """c with A c = right at free points, 0 at held ones: `(*batch, n)`, or `(*batch, channel, n)` of several."""
        return self._solved(right, self._solve)

    def solve_transposed(self, right: Tensor) -> Tensor:
        """The same for the transpose of A."""
        return self._solved(right, self._solve_transposed)

    def _solved(self, right: Tensor, solve: Solve) -> Tensor:
        held = _stacked([row.held for row in self.rows])
        right = torch.where(held, 0.0, right)
        right = -right if self._negative else right
        found = solve((right if self.null_space is None else without(right, self.null_space)).contiguous())
        return self._with_mean_zero(found)

    @cached_property
    def _solve_transposed(self) -> Solve:
        return self._solve if self.operator.symmetric else self.prepare(self.operator.transpose())

    def _make_operator(self, null_space: Tensor | None = None) -> LinearOperator:
        blocks: list[list[LinearOperator | None]] = []
        for row in self.rows:
            blocks.append([])
            for place in range(self.first, self.first + len(self.rows)):
                entries = row.entries.get(place)
                if entries is None:
                    blocks[-1].append(None)
                    continue
                own = place == self.first + len(blocks) - 1
                kept = row.with_fixed(entries, place) if own else row.kept(entries, place)
                one = null_space if len(self.rows) == 1 else None
                symmetric = own and row.symmetric
                block = matrix_operator(row.form.pattern, kept, symmetric=symmetric, null_space=one)
                blocks[-1].append(negated(block) if self._negative else block)
        (only, *_), *_ = blocks
        return BlockOperator(blocks, null_space=null_space) if len(blocks) > 1 or only is None else only

    def _with_mean_zero(self, found: Tensor) -> Tensor:
        if self.null_space is None:
            return found
        axes = tuple(range(1 - self.null_space.ndim, 0))
        for vector in self.null_space:
            weighted = self._volumes * vector
            mean = (found * weighted).sum(axes) / (weighted * vector).sum()
            found = found - mean.reshape(*mean.shape, *[1] * len(axes)) * vector
        return found

    @cached_property
    def _volumes(self) -> Tensor:
        """`(n,)`, the integral of each basis function."""
        form = self.rows[0].form
        shares = (form.geometry.volumes / len(form.geometry.cells)).expand(len(form.geometry.cells), -1)
        return form.pattern.point_sum(shares.reshape(-1))


def couplings(
    row: EvolvingRow, state: State, moment: Moment, unknowns: tuple[str, ...], first: int
) -> list[LinearOperator | None]:
    """The derivatives of a row by unknowns in places from `first` on, rows and columns of held points left out."""
    found: list[LinearOperator | None] = []
    for place, name in enumerate(unknowns, first):
        entries = row.jacobian_entries(state, moment, name, place)
        pattern = row.form.pattern
        found.append(None if entries is None else matrix_operator(pattern, row.kept(entries, place), symmetric=False))
    return found


def _null_space(operator: LinearOperator, row: EvolvingRow) -> Tensor | None:
    """The constants on parts of the mesh, of one field or of all, that an operator and its transpose map to 0."""
    plain = operator.detach()
    count, labels = row.form.pattern.components
    several = len(plain.space) > 1
    channels = plain.space[0] if several else 1
    size = float(plain.diagonal().abs().max())
    bound = torch.finfo(plain.dtype).eps ** 0.75 * size
    found = []
    for part in range(count):
        inside = (labels == part).to(plain.dtype)
        single = torch.eye(channels, dtype=plain.dtype, device=plain.device)
        choices = [list(single), [torch.ones_like(single[0])]] if several else [[single[0]]]
        for choice in choices:
            vectors = [one[:, None] * inside if several else inside for one in choice]
            good = [
                vector / torch.linalg.vector_norm(vector)
                for vector in vectors
                if all(float(a.apply(vector).abs().max()) <= bound for a in (plain, plain.transpose()))
            ]
            found += good
            if good:
                break
    return torch.stack(found) if found else None


def _stacked(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.stack(torch.broadcast_tensors(*parts), -2)


def _parts(fields: Tensor, axes: int) -> tuple[Tensor, ...]:
    return (fields,) if axes == 1 else fields.unbind(-2)
