"""discretize_nonlinear(equation, domain): from a steady equation on a grid to a residual and its exact derivative."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, overload

import sympy

from ..boundary import Boundary
from ..elements import NonlinearMeshSystem, discretize_nonlinear_on_mesh
from ..equations.evaluation import names
from ..equations.residuals import ResidualForm
from ..errors import InputError
from ..grid import Grid
from ..mesh import Mesh
from ..modes import in_plain_mode
from ..scheme import FiniteDifference, FiniteElement, FiniteVolume, Scheme
from .assembly import Assembly
from .conditions import Conditions
from .face_flux import FaceFlux
from .flux_formula import Condition, FluxFormula, flux_formula, normal_symbol, slopes_of
from .inputs import require_problem
from .jets import JetMap, Side, jet_map
from .limited_flux import LimitedFlux, laws_of
from .limiters import SLOPES
from .linearization import NonlinearSystem, Row
from .problem import Problem, refuse_evolving

if TYPE_CHECKING:
    from ..equations import Equation


@overload
def discretize_nonlinear(
    equation: Equation,
    domain: Grid,
    fields: Mapping[str, Any] | None = None,
    parameters: Mapping[str, Any] | None = None,
    boundary: Boundary | None = None,
    scheme: Scheme | None = None,
) -> NonlinearSystem: ...


@overload
def discretize_nonlinear(
    equation: Equation,
    domain: Mesh,
    fields: Mapping[str, Any] | None = None,
    parameters: Mapping[str, Any] | None = None,
    boundary: Boundary | None = None,
    scheme: FiniteElement | None = None,
) -> NonlinearMeshSystem: ...


@overload
def discretize_nonlinear(
    equation: Equation,
    domain: Grid | Mesh,
    fields: Mapping[str, Any] | None = None,
    parameters: Mapping[str, Any] | None = None,
    boundary: Boundary | None = None,
    scheme: Scheme | FiniteElement | None = None,
) -> NonlinearSystem | NonlinearMeshSystem: ...


@in_plain_mode
def discretize_nonlinear(
    equation: Equation,
    domain: Grid | Mesh,
    fields: Mapping[str, Any] | None = None,
    parameters: Mapping[str, Any] | None = None,
    boundary: Boundary | None = None,
    scheme: Any = None,
) -> NonlinearSystem | NonlinearMeshSystem:
    """Discretize a steady equation, linear or not, as a residual with its derivative.

    On a mesh by P1 finite elements, see `NonlinearMeshSystem`. On a grid divergences stay in flux form: the flux is
    evaluated once a face, with derivatives across it from the two cells beside it, derivatives along it as the mean of
    theirs, and means of coefficients as `flux_formula` has them. Other terms are second- or fourth-order differences;
    `FiniteDifference(order=4)` carries divergences out. First derivatives in nonlinear terms are central unless the
    scheme asks for upwind ones; those in a divergence always are.

    Args:
        equation, domain, fields, parameters, boundary, scheme: see `discretize`; scheme None takes finite volumes if
            the equation has div(...).

    Returns:
        the system.

    Raises:
        InputError: as `discretize`; on a grid also for conditions on a flux, where its coefficient depends on the
            solution and derivatives across that boundary stand outside the flux too; on a mesh for second derivatives
            outside of div(...) and factors of div(...) that depend on the solution, and for derivatives of another
            unknown alone in a divergence, all limits of this version and not of the method.
    """
    require_problem(equation, domain)
    if isinstance(domain, Mesh):
        return discretize_nonlinear_on_mesh(equation, domain, fields or {}, parameters or {}, boundary, scheme)
    refuse_evolving(equation)
    if isinstance(scheme, FiniteElement):
        raise InputError("scheme: FiniteElement(...) is for meshes; take FiniteDifference(...) or FiniteVolume(...)")

    def build(changed: Mapping[str, Any]) -> NonlinearSystem:
        given = {**(parameters or {}), **changed}
        forms = equation.residual_forms(domain.dimension)
        chosen = choose_scheme(scheme, forms)
        expanded = forms
        if is_fourth_order(chosen):
            expanded = equation.residual_forms(domain.dimension, conservative=False)
        return Builder(equation, domain, fields or {}, given, boundary, chosen, forms, expanded).system(build)

    return build({})


def choose_scheme(scheme: Scheme | None, forms: Sequence[ResidualForm]) -> Scheme:
    """The scheme asked for, else finite volumes if there is a divergence and finite differences otherwise."""
    divergence = any(form.fluxes or any(t.flux_axis is not None for t in form.terms) for form in forms)
    return scheme or (FiniteVolume() if divergence else FiniteDifference())


def is_fourth_order(scheme: Scheme) -> bool:
    """Whether divergences are carried out."""
    return isinstance(scheme, FiniteDifference) and scheme.order == 4


class Builder:
    """What discretize_nonlinear needs while it works.

    Args:
        conservative, forms: of the equation, divergences kept together, and as the scheme takes them.
        advective: by unknown and axis, fluxes with limited slopes.
        limiter: of these.
    """

    def __init__(
        self,
        equation: Equation,
        grid: Grid,
        fields: Mapping[str, Any],
        parameters: Mapping[str, Any],
        boundary: Boundary | Conditions | None,
        scheme: Scheme,
        conservative: Sequence[ResidualForm],
        forms: Sequence[ResidualForm],
        advective: Mapping[str, Sequence[sympy.Expr]] | None = None,
        limiter: str = "",
    ) -> None:
        self.conservative, self.forms, chosen = conservative, forms, scheme
        # Without the nonlinear diffusion a Peclet number would mean nothing.
        linear = chosen
        if chosen.advection == "auto" and any(form.rest != 0 for form in self.forms):
            linear = replace(chosen, advection="central")
        self.problem = Problem(
            equation, grid, fields, parameters, boundary, linear, [form.terms for form in self.forms]
        )
        self.assembly = Assembly(self.problem)
        self.grid = grid
        self.equation = equation
        self.scheme = chosen
        self.constants = frozenset(self.problem.parameters) | {"t"}
        self.advective = advective or {}
        self.limiter = limiter
        harmonic = isinstance(chosen, FiniteVolume) and chosen.average == "harmonic"
        self.formulas = [
            {flux.symbol: flux_formula(flux, form.jets, self.constants, harmonic) for flux in form.fluxes}
            for form in self.conservative
        ]
        self._implicit: set[tuple[str, int, int]] = set()
        self.jets: dict[tuple[str, tuple[int, ...], Side], JetMap] = {}

    def system(self, rebuild: Callable[[Mapping[str, Any]], NonlinearSystem]) -> NonlinearSystem:
        problem = self.problem
        conditions = {name: self._conditions(name) for name in problem.unknowns}
        rows = tuple(self._row(number, form, conditions) for number, form in enumerate(self.forms))
        return NonlinearSystem(
            equation=self.equation,
            domain=self.grid,
            unknowns=problem.unknowns,
            fields=problem.fields,
            parameters=problem.parameters,
            boundary=problem.sides,
            scheme=self.scheme,
            notes=(*self.assembly.notes, *self._notes(rows)),
            batch=problem.batch,
            rebuild=rebuild,
            implicit=frozenset(self._implicit),
            assembly=self.assembly,
            rows=rows,
            sources=tuple(self.assembly.right_sides),
            known=problem.values(self.wanted()),
        )

    def wanted(self) -> set[str]:
        """The names of what stands in the fluxes and the rest besides unknowns and their derivatives."""
        unknown = set(self.problem.unknowns) | {s.name for form in self.forms for s in form.jets}
        expressions = [e for form in self.forms for e in (form.rest, *(flux.inner for flux in form.fluxes))]
        expressions += [flux for fluxes in self.advective.values() for flux in fluxes]
        return {name for e in expressions for name in names(e) if "#" not in name} - unknown

    def _row(self, number: int, form: ResidualForm, conditions: Mapping[str, list[Condition]]) -> Row:
        fluxes: dict[sympy.Symbol, FaceFlux | LimitedFlux] = {
            flux.symbol: FaceFlux(formula, self.problem, self._tangents(form, formula), conditions)
            for flux, formula in zip(form.fluxes, self.formulas[number].values(), strict=False)
        }
        inside = {symbol: jet for symbol, jet in form.jets.items() if symbol in form.rest.free_symbols}
        jets = {symbol: self._jet(jet.field, jet.order) for symbol, jet in inside.items() if any(jet.order)}
        own = self.problem.unknowns[number]
        upwind = {}
        if self.scheme.advection == "upwind":
            for symbol, jet in inside.items():
                if jet.field == own and sum(jet.order) == 1:
                    upwind[symbol] = (self._jet(own, jet.order, "backward"), self._jet(own, jet.order, "forward"))
        slopes = slopes_of(form.rest, (*inside, *fluxes))
        slopes |= self._add_limited(own, fluxes)
        sign = self.assembly.signs[number]
        if not self.problem.pieces(number, own) and fluxes:
            leading = slopes[next(iter(fluxes))]
            sign = -1.0 if leading.is_number and leading > 0 else 1.0
        limited = fluxes.keys() - {flux.symbol for flux in form.fluxes}
        return Row(sympy.Add(form.rest, *limited), slopes, jets, fluxes, upwind, sign)

    def _add_limited(
        self, own: str, fluxes: dict[sympy.Symbol, FaceFlux | LimitedFlux]
    ) -> dict[sympy.Symbol, sympy.Expr]:
        """Adds the flux of an unknown with limited slopes; returns the derivative of the row by it."""
        for law in laws_of(self.advective):
            if own in law.names:
                used = {symbol for axis in law.fluxes for flux in axis for symbol in flux.free_symbols}
                jets = {s: jet for form in self.forms for s, jet in form.jets.items() if s in used and any(jet.order)}
                tangents = {symbol: self._jet(jet.field, jet.order) for symbol, jet in jets.items()}
                symbol = sympy.Symbol("div#limited", real=True)
                fluxes[symbol] = LimitedFlux(law, own, self.problem, tangents, SLOPES[self.limiter])
                return {symbol: sympy.Integer(1)}
        return {}

    def _tangents(self, form: ResidualForm, formula: FluxFormula) -> dict[sympy.Symbol, JetMap]:
        return {symbol: self._jet(form.jets[symbol].field, form.jets[symbol].order) for symbol in formula.tangents}

    def _jet(self, unknown: str, order: tuple[int, ...], side: Side = "central") -> JetMap:
        key = (unknown, order, side)
        if key not in self.jets:
            for axis, count in enumerate(order):
                if count:
                    self._refuse_unknown_slopes(unknown, axis)
            self.jets[key] = jet_map(self.assembly, unknown, order, side)
        return self.jets[key]

    def _conditions(self, unknown: str) -> list[Condition]:
        """One for each wall: what is known there, and what multiplies du/dn."""
        found = []
        for wall in self.problem.walls(unknown):
            normal = self._nonlinear_normal(unknown, wall.axis)
            if normal == 0:
                normal = normal_symbol(unknown)
            elif self._has_linear_normal(unknown, wall.axis):
                normal += normal_symbol(unknown)
            zero = isinstance(wall.value, float) and wall.value == 0.0
            found.append(Condition(wall.kind, zero, normal))
            if wall.kind == "dirichlet" or (zero and wall.kind == "neumann") or normal == normal_symbol(unknown):
                continue
            self._implicit.add((unknown, wall.axis, wall.side))
            if any(piece.total[wall.axis] for piece in self.problem.own_pieces(unknown)):
                raise InputError(_slope_unknown(unknown, wall.name))
        return found

    def _nonlinear_normal(self, unknown: str, axis: int) -> sympy.Expr:
        row, base = self.problem.own(unknown)
        formulas = self.formulas[row].values()
        return sympy.Add(*(f.diffusive.get(base, sympy.Integer(0)) for f in formulas if f.axis == axis))

    def _has_linear_normal(self, unknown: str, axis: int) -> bool:
        pieces = self.problem.own_pieces(unknown)
        return any(piece.role == "diffusion" and piece.flux_axis == axis for piece in pieces)

    def _refuse_unknown_slopes(self, unknown: str, axis: int) -> None:
        """A derivative in the cells takes du/dn from the condition, which must not depend on the solution itself."""
        for wall in self.problem.walls(unknown, axis):
            if (unknown, axis, wall.side) in self._implicit:
                raise InputError(_slope_unknown(unknown, wall.name))

    def _notes(self, rows: tuple[Row, ...]) -> list[str]:
        notes = []
        if self.advective:
            notes.append(
                f"fluxes of {', '.join(self.advective)} without derivatives: slopes limited by {self.limiter}, local "
                "Lax-Friedrichs fluxes"
            )
        symbols = {symbol.name for row in rows for symbol, jet in row.jets.items() if sum(jet.order) == 1}
        if not symbols:
            return notes
        taken = {symbol.name for row in rows for symbol in row.upwind}
        how = "upwind, of order 1" if taken else f"central, of order {self.problem.order}"
        carried = any(
            sum(jet.order) == 1 and jet.unknown in self.equation.unknowns for row in rows for jet in row.jets.values()
        )
        if self.equation.evolving and isinstance(self.scheme, FiniteVolume) and carried:
            how += "; limiters act on divergences, such as -div([u**2/2]) for -u*u_x"
        return [*notes, f"first derivatives in nonlinear terms ({', '.join(sorted(symbols))}): {how}"]


def _slope_unknown(unknown: str, boundary: str) -> str:
    return (
        f"boundary {boundary}: the condition on the flux of {unknown!r} has a coefficient that depends on the "
        "solution, or on time, and derivatives across this boundary stand outside that flux too; this version has no "
        "formula for them: give a Dirichlet condition or Neumann(0.0) there, or bring all terms under div(...)"
    )
