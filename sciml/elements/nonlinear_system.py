"""From a symbolic equation on a mesh, linear or not, to a residual and its exact derivative."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..boundary import SideCondition
from ..errors import InputError
from ..given import Number
from ..linear_operator import BlockOperator, LinearOperator
from ..mesh import Mesh
from ..scheme import FiniteElement
from .boundary import Conditions
from .fluxes import Further, boundary_flux
from .nonlinear_form import NonlinearForm, State
from .nonlinear_terms import NonlinearTerms, read_nonlinear_rows
from .operator import matrix_operator
from .system import Given, LinearRow, checked_scheme, eliminated, held_diagonal, linear_row, prepare
from .terms import Row
from .weak_form import WeakForm

if TYPE_CHECKING:
    from ..equations import Equation

Rows = tuple[tuple[Row, NonlinearTerms | None], ...]


@dataclass(frozen=True, eq=False)
class NonlinearRow:
    """One equation.

    Attributes:
        form: the weak form of its linear terms, the boundary conditions left out.
        linear: their matrices and right sides.
        nonlinear: the weak form of the other terms, None without any.
        operators: unknown's place -> the matrix of the linear terms with Robin conditions; those that are 0 left out.
        scale: `(*batch, n)`, what stands on the diagonal at held points.
        fixed: `(*batch, entries)`, the matrix that is scale at held points and 0 elsewhere.
        free: unknown's place -> bool `(entries,)`, where neither the row nor the column belongs to a held point.
    """

    form: WeakForm
    linear: LinearRow
    nonlinear: NonlinearForm | None
    operators: dict[int, LinearOperator]
    scale: Tensor
    fixed: Tensor
    free: dict[int, Tensor]

    @property
    def held(self) -> Tensor:
        """bool `(n,)`, the points where a Dirichlet condition gives the value."""
        return self.form.conditions.held

    def is_symmetric(self, lagged: bool) -> bool:
        """Whether the derivative by the row's own unknown is by construction."""
        if self.nonlinear is None:
            return self.form.symmetric
        terms = self.nonlinear.terms
        return self.form.symmetric and (terms.lagged_symmetric if lagged else terms.symmetric)


@dataclass(frozen=True, eq=False)
class NonlinearMeshSystem:
    """A discretized steady equation F(u) = 0 on a mesh, by P1 finite elements: the weak form for each basis function.

    Everything stands on the left side, integrated, so that of a linear equation F(u) = A u - b with the operator and
    the right side of `sciml.discretize`. At held points F is a multiple of u minus its value there, and elsewhere it
    takes that value whatever u is at held points: rows and columns of the derivative are eliminated symmetrically.

    Conditions on the flux state that part of what stands in the divergence that holds derivatives of the row's unknown:
    of -div(k*grad(u) - [b*u**2, 0]) it is k du/dn, also where k depends on u and its gradient.

    Quadrature: coefficients at the centres of cells and facets; the solution in fluxes at the centres of cells, in
    other terms by a rule of degree 2 (with `lumped`, at the points of the mesh), of second order all. There is no
    stabilization of first derivatives in a nonlinear equation.

    Attributes:
        equation, domain, unknowns: what was discretized; channels are in the order of `unknowns`.
        fields: the values given, see `MeshSystem`.
        parameters: the values used, floats or tensors `(*batch, 1)`.
        boundary: unknown -> boundary name -> the condition used.
        scheme: the scheme used.
        notes: what was chosen, for people to read.
        batch: the shape that fields, parameters and boundary values broadcast to.
        rows: one for each equation.
        terms: the same as expressions, linear ones and others.
    """

    equation: Equation
    domain: Mesh
    unknowns: tuple[str, ...]
    fields: dict[str, Any]
    parameters: dict[str, Number]
    boundary: dict[str, dict[str, SideCondition]]
    scheme: FiniteElement
    notes: tuple[str, ...]
    batch: tuple[int, ...]
    rows: tuple[NonlinearRow, ...] = field(repr=False)
    terms: Rows = field(repr=False)

    @property
    def space(self) -> tuple[int, ...]:
        """The shape of one field: `(n,)`, of several unknowns `(channel, n)`."""
        channels = () if len(self.unknowns) == 1 else (len(self.unknowns),)
        return (*channels, len(self.domain.points))

    @property
    def axes(self) -> int:
        """Trailing axes of one unknown's field: 1."""
        return 1

    @property
    def forms(self) -> tuple[WeakForm, ...]:
        """The weak form of the linear terms of each row, with the conditions and values used."""
        return tuple(row.form for row in self.rows)

    def with_parameters(self, values: Mapping[str, Any]) -> NonlinearMeshSystem:
        """The same problem with other values of some parameters: numbers, or tensors of the batch's shape.

        Raises:
            InputError: for a name that is no parameter of the equation.
        """
        plain = {n: v.squeeze(-1) if isinstance(v, Tensor) else v for n, v in self.parameters.items()}
        boundary = self.boundary if len(self.unknowns) > 1 else self.boundary[self.unknowns[0]]
        fields = self.forms[0].values.given()
        return _build(self.terms, self.equation, self.domain, fields, {**plain, **values}, boundary, self.scheme)

    def residual(self, u: Tensor) -> Tensor:
        """F(u), in the unit of the equation times that of a volume.

        Args:
            u: `(*batch, n)`, of several unknowns `(*batch, channel, n)`.

        Returns:
            the shape of u and of the data, broadcast; differentiable with respect to u and to all data.

        Raises:
            InputError: for a u of another shape.
        """
        channels = self._channels(u)
        state = self._state(channels)
        results = []
        for row, own in zip(self.rows, self.unknowns, strict=True):
            total = -row.linear.right_side
            for place, operator in row.operators.items():
                total = total + operator.apply(state.fields[self.unknowns[place]])
            if row.nonlinear is not None:
                total = total + row.nonlinear.residual(state)
            at_held = row.scale * (channels[own] - row.form.conditions.lift)
            results.append(torch.where(row.held, at_held, total))
        return results[0] if len(results) == 1 else torch.stack(torch.broadcast_tensors(*results), -2)

    def jacobian(self, u: Tensor) -> LinearOperator:
        """The derivative of `residual` at u, exactly, of several unknowns a BlockOperator; at a kink of abs that on one
        side. Its entries are differentiable with respect to u and to all data.

        Raises:
            InputError: for a u of another shape.
        """
        return self._linearized(u, lagged=False)

    def lagged(self, u: Tensor) -> LinearOperator:
        """The operator with its coefficients evaluated at u and kept there, as Picard's iteration takes it.

        Of each divergence and each product it keeps the derivatives of the unknowns and takes their factors as given;
        nonlinear terms without derivatives are left out.
        """
        return self._linearized(u, lagged=True)

    def flux(self, value: Tensor, boundary_name: str) -> Tensor:
        """The outward flux of a field through a named boundary, by the residual of the weak form; see
        `MeshSystem.flux`. The fluxes through all boundaries balance the integral of the other terms as far as F(u) = 0
        was solved.

        Raises:
            InputError: for another name, a value of another shape, or an equation without a flux.
        """
        facets = self.domain.boundary(boundary_name)
        channels = self._channels(value)
        state = State(self.forms[0].geometry, channels)
        rows = []
        for row, own in zip(self.rows, self.unknowns, strict=True):
            residual, further = row.linear.load, None
            for place, entries in row.linear.volume.items():
                operator = matrix_operator(row.form.pattern, entries, symmetric=False)
                residual = residual - operator.apply(channels[self.unknowns[place]].contiguous())
            if row.nonlinear is not None:
                residual = residual - row.nonlinear.residual(state)
                further = Further(row.nonlinear.diffusive_through(state), row.nonlinear.carried_through(state))
            rows.append(boundary_flux(row.form, channels[own], residual, facets, further))
        return rows[0] if len(rows) == 1 else torch.stack(torch.broadcast_tensors(*rows), -1)

    def _channels(self, u: Tensor) -> dict[str, Tensor]:
        if tuple(u.shape[max(0, u.ndim - len(self.space)) :]) != self.space:
            raise InputError(f"u has shape {tuple(u.shape)}, expected (*batch, {', '.join(map(str, self.space))})")
        if len(self.unknowns) == 1:
            return {self.unknowns[0]: u}
        return dict(zip(self.unknowns, u.unbind(-2), strict=True))

    def _state(self, channels: Mapping[str, Tensor]) -> State:
        """The fields with the values of Dirichlet conditions at held points."""
        conditions = {row.form.own: row.form.conditions for row in self.rows}
        return State(self.forms[0].geometry, {n: lifted(u, conditions[n]) for n, u in channels.items()})

    def _linearized(self, u: Tensor, lagged: bool) -> LinearOperator:
        state = self._state(self._channels(u))
        pattern = self.forms[0].pattern
        blocks: list[list[LinearOperator | None]] = []
        for row in self.rows:
            blocks.append([])
            for place, name in enumerate(self.unknowns):
                own = name == row.form.own
                symmetric = own and row.is_symmetric(lagged)
                fixed = row.linear.full.get(place)
                entries = derivative(fixed, row.nonlinear, state, name, lagged=lagged, symmetric=symmetric)
                if entries is None:
                    blocks[-1].append(None)
                    continue
                kept = torch.where(row.free[place], entries, row.fixed if own else 0.0)
                blocks[-1].append(matrix_operator(pattern, kept, symmetric=symmetric))
        (first, *_), *_ = blocks
        return first if len(self.unknowns) == 1 and first is not None else BlockOperator(blocks)


def discretize_nonlinear_on_mesh(
    equation: Equation,
    mesh: Mesh,
    fields: Mapping[str, Any],
    parameters: Mapping[str, Any],
    boundary: Any,
    scheme: Any,
) -> NonlinearMeshSystem:
    """P1 finite elements for a steady equation, linear or not; see `sciml.discretize_nonlinear`."""
    rows = read_nonlinear_rows(equation, mesh)
    return _build(rows, equation, mesh, fields, parameters, boundary, checked_scheme(scheme))


def lifted(u: Tensor, conditions: Conditions) -> Tensor:
    """A field with the values of Dirichlet conditions where these hold."""
    return torch.where(conditions.held, conditions.lift, u)


def derivative(
    linear: Tensor | None, nonlinear: NonlinearForm | None, state: State, unknown: str, *, lagged: bool, symmetric: bool
) -> Tensor | None:
    """The entries of the derivative of a row by an unknown, conditions on the value left out; None where it is 0.

    Args:
        linear: of the linear terms.
        nonlinear, state, unknown, lagged, symmetric: see `NonlinearForm.derivative`.
    """
    found = None if nonlinear is None else nonlinear.derivative(state, unknown, lagged=lagged, symmetric=symmetric)
    if found is None or linear is None:
        return linear if found is None else found
    return found + linear


def _build(
    rows: Rows,
    equation: Equation,
    mesh: Mesh,
    fields: Mapping[str, Any],
    parameters: Mapping[str, Any],
    boundary: Any,
    scheme: FiniteElement,
) -> NonlinearMeshSystem:
    nonlinear = any(terms is not None for _, terms in rows)
    used = scheme
    if nonlinear and scheme.stabilization == "streamline":
        raise InputError(
            "FiniteElement(stabilization='streamline') is for linear equations in this version: for a nonlinear one "
            "take 'auto' or 'none', which leave first derivatives as they are, or a grid and advection='upwind'"
        )
    if nonlinear:
        used = replace(scheme, stabilization="none")
    given = prepare([row for row, _ in rows], equation, mesh, fields, parameters, boundary, used)
    forms = [
        None if terms is None else NonlinearForm(terms, given.values, given.pattern, scheme.lumped) for _, terms in rows
    ]
    linear = [linear_row(form, given.unknowns) for form in given.forms]
    state = State(given.values.geometry, {name: one.lift.detach() for name, one in given.conditions.items()})
    built = tuple(
        _row(form, own, part, state, given) for form, own, part in zip(given.forms, forms, linear, strict=True)
    )
    notes = ["P1 finite elements" + (", lumped masses" if scheme.lumped else "")]
    if not nonlinear:
        for form in given.forms:
            notes.extend(form.notes(len(given.forms) > 1))
    elif any(has_first_derivatives(row.form, row.nonlinear) for row in built):
        notes.append("first derivatives: Galerkin, not stabilized, since the equation is nonlinear")
    return NonlinearMeshSystem(
        equation=equation,
        domain=mesh,
        unknowns=given.unknowns,
        fields=given.values.fields,
        parameters=given.values.parameters,
        boundary=given.boundary,
        scheme=scheme,
        notes=tuple(notes),
        batch=given.batch(),
        rows=built,
        terms=rows,
    )


def _row(
    form: WeakForm, nonlinear: NonlinearForm | None, linear: LinearRow, start: State, given: Given
) -> NonlinearRow:
    """A row with the scale of its held points: that of the diagonal of `lagged` at u = 0."""
    place, pattern = given.unknowns.index(form.own), given.pattern
    with torch.no_grad():
        entries = derivative(linear.full[place], nonlinear, start, form.own, lagged=True, symmetric=False)
        entries = linear.full[place] if entries is None else entries
        diagonal = torch.nan_to_num(entries[..., pattern.diagonal].detach(), 0.0, 0.0, 0.0)
        sign = -1 if float(diagonal.sum()) < 0.0 else 1
        held = form.conditions.held
        scale = held_diagonal(diagonal, held, sign)
        ones, zeros = torch.ones(len(pattern.places), device=held.device), torch.zeros_like(entries)
        columns = enumerate(given.conditions[name].held for name in given.unknowns)
        free = {k: eliminated(pattern, ones, held, other, None).bool() for k, other in columns}
    own_terms = form.row.terms[form.own]
    operators = {}
    for other, full in linear.full.items():
        if other != place or not own_terms.is_empty or full is not linear.volume[other]:
            operators[other] = matrix_operator(pattern, full, symmetric=False)
    fixed = eliminated(pattern, zeros, held, held, scale)
    return NonlinearRow(form, linear, nonlinear, operators, scale, fixed, free)


def has_first_derivatives(form: WeakForm, nonlinear: NonlinearForm | None) -> bool:
    """Whether a row holds them, so that it is a question whether to stabilize it."""
    if form.velocity:
        return True
    terms = None if nonlinear is None else nonlinear.terms
    return terms is not None and bool(terms.carried or any(terms.source_by_slope.values()))
