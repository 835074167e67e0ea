"""From a symbolic evolving equation on a mesh to M du/dt = G(u, t), by P1 finite elements."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, final

import torch
from torch import Tensor

from ..equations.evaluation import names
from ..errors import InputError
from ..evolving import EvolvingSystem, Prepare, Time, Tolerance, root_mean_square_ratio
from ..given import Number, batch_shape, require_names, resolve_parameters_on
from ..linear_operator import BlockOperator, LinearOperator
from ..mesh import Mesh
from ..modes import in_plain_mode
from ..scheme import FiniteElement
from ..shifted import Table, shifted_through
from ..time_functions import clock, depends_on_time
from .boundary import read_conditions, split_by_unknown
from .constraints import Constraints, couplings
from .evolving_flux import boundary_fluxes
from .evolving_row import EvolvingRow, Moment, make_row
from .geometry import geometry_of
from .mass import InverseMass, Mass
from .moving import MovingConditions, Placed, rate_condition, resolve_moving
from .nonlinear_form import State
from .nonlinear_system import has_first_derivatives
from .nonlinear_terms import EvolvingTerms, read_evolving_rows
from .operator import matrix_operator
from .system import checked_scheme
from .values import OfTime, Values

if TYPE_CHECKING:
    from ..equations import Equation


@final
class MeshEvolution(EvolvingSystem):
    """A discretized evolving equation M du/dt = G(u, t) on a mesh: the weak form for each P1 basis function.

    M is the consistent mass matrix, with FiniteElement(lumped=True) its row sums; a factor c before u_t that varies in
    space stands in it, int c v u, so that -div(k*grad(u)) keeps its meaning where c jumps. States are fields.

    At held points, those of Dirichlet conditions u = g(x, t), `rate` is dg/dt, by automatic differentiation. All else
    takes g(t) there whatever u is, and the mass matrix is split accordingly: with f for the free points and h for the
    held ones

        M_ff du_f/dt = G_f(u_f, g(t)) - M_fh dg/dt.

    `apply_mass` and `force` mean these rows, and the rows 0 = s (g(t) - u_h), of which s > 0 has the size of the
    diagonal of dG/du. So `shifted` is the exact derivative of M u - a G(u, t), with the rows and columns of held points
    eliminated: symmetric where the equation is, and a s on the diagonal there. An implicit stage gives u_h = g(t). A
    method that does not solve for u_h integrates dg/dt from where u_h started; `hold` puts the values there. Nothing
    at free points depends on u_h.

    Conditions on a flux state that of the divergence, as in steady equations. The rate u_t of an equation of second
    order in time is an unknown; where no conditions are given for it, they are the derivatives in time of those on u.
    Fields that constraints determine are solved for in every evaluation.

    First derivatives are not stabilized, a limit of convenience: where they prevail, steep fronts need cells that
    resolve them.

    Attributes:
        rows: one an unknown.
        constraints: None without any.
        values: of coefficients that do not change in time.
        inherited: the names of the rates whose conditions follow from those on what they are the rate of.

    Args:
        equation: evolving.
        mesh: what to discretize on.
        fields: one value for each of `equation.coefficients`: what steady equations take, or a function of the
            coordinates and t.
        parameters: values that replace those stored in the equation: numbers, or tensors of the batch's shape.
        boundary: by boundary name, of several unknowns a dict by unknown of these; values may be functions of the
            coordinates and t.
        scheme: FiniteElement(...), None for the default.
        prepare: prepares the solution of constraints.

    Raises:
        InputError: for values that do not fit, and for equations that P1 elements cannot take, see
            `sciml.discretize_nonlinear`.
    """

    def __init__(
        self,
        equation: Equation,
        mesh: Mesh,
        fields: Mapping[str, Any],
        parameters: Mapping[str, Any],
        boundary: Any,
        scheme: FiniteElement,
        prepare: Prepare,
    ) -> None:
        self.equation = equation
        self.domain: Mesh = mesh
        self.unknowns = equation.unknowns
        self.scheme = scheme
        self.dtype, self.device = mesh.dtype, mesh.device
        self.axes = 1
        self.space = (*(() if len(self.unknowns) == 1 else (len(self.unknowns),)), len(mesh.points))
        self.state_space = self.space
        require_names(fields, equation.coefficients)
        moving = {n for n, value in fields.items() if depends_on_time(value, mesh.dimension, f"field {n!r}")}
        terms = read_evolving_rows(equation, mesh, frozenset({"t", *moving}))
        resolved = resolve_parameters_on(mesh, 1, parameters, equation.parameters)
        given = {name: OfTime(value) if name in moving else value for name, value in fields.items()}
        geometry = geometry_of(mesh)
        self.values = Values(mesh, geometry, tuple(equation.coordinates), given, {**resolved, "t": 0.0})
        self.fields = {**self.values.fields, **{name: fields[name] for name in moving}}
        self.parameters = resolved
        placed, self.inherited = _conditions(boundary, mesh, terms)
        self.boundary = {name: {place: pair[0] for place, pair in part.items()} for name, part in placed.items()}
        changing = {name for one in terms for name in _with_changing_flux(one, self.values)}
        conditions = {
            name: resolve_moving(part, mesh, geometry, all_fluxes=name in changing) for name, part in placed.items()
        }
        plain = replace(scheme, stabilization="none")
        rows = tuple(make_row(one, conditions, self.values, plain) for one in terms)
        self.rows = rows[: len(self.unknowns)]
        self.constraints = None
        if equation.constrained:
            self.constraints = Constraints(rows[len(self.unknowns) :], len(self.unknowns), prepare)
        self.batch = self._batch(conditions)
        self.linear_part = self._linear_part()
        notes = ["P1 finite elements, " + ("lumped masses" if scheme.lumped else "consistent masses")]
        if any(has_first_derivatives(form, row.nonlinear) for row in rows for form in row.forms):
            notes.append("first derivatives: Galerkin, not stabilized")
        self.notes = tuple(notes)

    # Rates

    def rate(self, u: Tensor, t: Time) -> Tensor:
        return self._rate(u, t, linear=True)

    def nonlinear_part(self, u: Tensor, t: Time) -> Tensor:
        return self._rate(u, t, linear=False)

    def constrained(self, u: Tensor, t: Time) -> dict[str, Tensor]:
        if self.constraints is None:
            return {}
        state = self._state(u, self._moment(t))
        return {name: state.fields[name] for name in self.constraints.names}

    def hold(self, u: Tensor, t: Time) -> Tensor:
        """A field with the values of Dirichlet conditions at time t where these hold.

        Raises:
            InputError: for a constraint that holds its field nowhere, and whose right side has a mean.
        """
        moment = self._moment(t)
        lifted = self._lifted(u, moment)
        if self.constraints is not None:
            self.constraints.check_balance(lifted, moment)
        return self._stacked(list(lifted.values()))

    def flux(self, value: Tensor, boundary_name: str, t: Time) -> Tensor:
        """The outward flux of a field through a named boundary at a time; see `evolving_flux.boundary_fluxes`.

        Args:
            value: `(*batch, *space)`.
            boundary_name: one of `domain.boundaries`.
            t: a number, or a tensor of the batch's shape.

        Returns:
            `(*batch,)`, of several unknowns `(*batch, channel)`: one flux an equation, 0 of one without a divergence.

        Raises:
            InputError: for another name, a value of another shape, or an equation without a flux.
        """
        facets = self.domain.boundary(boundary_name)
        moment = self._moment(t)
        state = self._state(value, moment)
        return boundary_fluxes(self.rows, self._parts(self._rate(value, t, linear=True)), state, moment, facets)

    # States

    def encode(self, u: Tensor) -> Tensor:
        return u

    def decode(self, y: Tensor) -> Tensor:
        return y

    def slope(self, y: Tensor, t: Time) -> Tensor:
        return self._rate(y, t, linear=True)

    def error_ratio(self, error: Tensor, before: Tensor, after: Tensor, rtol: float, atol: Tolerance) -> Tensor:
        return root_mean_square_ratio(error, before, after, rtol, atol, len(self.space))

    # Implicit methods

    def apply_mass(self, y: Tensor) -> Tensor:
        return self._stacked([mass.apply(part) for mass, part in zip(self._masses, self._parts(y), strict=True)])

    def force(self, y: Tensor, t: Time) -> Tensor:
        return self._force(y, t, linear=True)

    def explicit_force(self, y: Tensor, t: Time) -> Tensor:
        return self._force(y, t, linear=False)

    def shifted(self, y: Tensor, t: Time, step: float) -> LinearOperator:
        moment = self._moment(t)
        state = self._state(y, moment)
        blocks = self._blocks(step, lambda row, name, place: row.jacobian_entries(state, moment, name, place))
        if self.constraints is None:
            return blocks
        first, names = len(self.unknowns), self.constraints.names
        outer: Table = [couplings(row, state, moment, names, first) for row in self.rows]
        inner: Table = [couplings(row, state, moment, self.unknowns, 0) for row in self.constraints.rows]
        if not all(any(block is not None for row in table for block in row) for table in (outer, inner)):
            return blocks
        return shifted_through(
            blocks,
            step,
            outer,
            inner,
            self.constraints.solve,
            self.constraints.solve_transposed,
            self.constraints.prepare,
            axes=1,
        )

    def shifted_linear(self, step: float) -> LinearOperator:
        return self._blocks(step, lambda row, name, place: row.entries.get(place))

    # Parts

    @property
    def _masses(self) -> tuple[Mass, ...]:
        return tuple(row.mass for row in self.rows if row.mass is not None)

    def _rate(self, u: Tensor, t: Time, *, linear: bool) -> Tensor:
        moment = self._moment(t)
        state = self._state(u, moment)
        rates = []
        for row, mass in zip(self.rows, self._masses, strict=True):
            moving = row.conditions[0].lift_rate(moment.t)
            speed = row.terms.speed
            if speed in self.inherited:
                rate = state.fields[speed] if linear else torch.zeros_like(state.fields[speed])
                rate = torch.where(row.held, 0.0, rate) if row.holds else rate
            else:
                rate = mass.solve(self._free_force(row, mass, state, moment, moving, linear))
            rates.append(rate if moving is None else torch.where(row.held, moving, rate))
        return self._stacked(rates)

    def _force(self, y: Tensor, t: Time, *, linear: bool) -> Tensor:
        moment = self._moment(t)
        state = self._state(y, moment)
        found = []
        for row, mass, own in zip(self.rows, self._masses, self._parts(y), strict=True):
            moving = row.conditions[0].lift_rate(moment.t) if row.holds else None
            force = self._free_force(row, mass, state, moment, moving, linear)
            if row.holds:
                away = moment.lifts[row.own] - own if linear else moment.lifts[row.own]
                force = torch.where(row.held, row.scale * away, force)
            found.append(force)
        return self._stacked(found)

    def _free_force(
        self, row: EvolvingRow, mass: Mass, state: State, moment: Moment, moving: Tensor | None, linear: bool
    ) -> Tensor:
        """G at free points, meaningless at held ones."""
        evolving = len(self.unknowns)
        fields = {}
        for place, (name, u) in enumerate(state.fields.items()):
            if linear or place >= evolving:
                fields[place] = u
            elif self.rows[place].holds:
                fields[place] = moment.lifts[name]
        force = -row.left_side(state, moment, fields)
        shape = torch.broadcast_shapes(force.shape, state.fields[row.own].shape)
        force = force if force.shape == shape else force.expand(shape).contiguous()
        return force if moving is None or mass.lumped else force - mass.of_held(moving)

    def _blocks(self, step: float, derivative: Any) -> LinearOperator:
        """M + step * a derivative of -G by each unknown, given by its entries, with `scale` at held points."""
        blocks: list[list[LinearOperator | None]] = []
        for row, mass in zip(self.rows, self._masses, strict=True):
            blocks.append([])
            pattern = row.form.pattern
            for place, name in enumerate(self.unknowns):
                entries = derivative(row, name, place)
                own = name == row.own
                if own:
                    kept = row.fixed if entries is None else row.with_fixed(entries, place)
                    entries = mass.entries if kept is None else torch.add(mass.entries, kept, alpha=step)
                elif entries is not None:
                    entries = step * row.kept(entries, place)
                blocks[-1].append(
                    None if entries is None else matrix_operator(pattern, entries, symmetric=own and row.symmetric)
                )
        (first, *_), *_ = blocks
        return first if len(self.unknowns) == 1 and first is not None else BlockOperator(blocks)

    def _moment(self, t: Time) -> Moment:
        number: Number = t if not isinstance(t, Tensor) else t.reshape(*t.shape, 1)
        argument = clock(t, 1, self.device)
        rows = (*self.rows, *(() if self.constraints is None else self.constraints.rows))
        lifts = {row.own: row.conditions[0].lift(argument) for row in rows}
        return Moment(argument, self.values.at_time(number, argument), lifts)

    def _lifted(self, u: Tensor, moment: Moment) -> dict[str, Tensor]:
        return {row.own: row.lifted(part, moment) for row, part in zip(self.rows, self._parts(u), strict=True)}

    def _state(self, u: Tensor, moment: Moment) -> State:
        fields = self._lifted(u, moment)
        if self.constraints is not None:
            fields |= self.constraints.fields(fields, moment)
        return State(self.values.geometry, fields)

    def _batch(self, conditions: Mapping[str, MovingConditions]) -> tuple[int, ...]:
        """What all that was given broadcasts to; functions of the time are asked at t = 0."""
        tensors = self.values.tensors()
        corner = tuple(axis[:1].detach() for axis in self.domain.coordinates)
        for name, value in self.values.fields.items():
            if isinstance(value, OfTime):
                tensors.append((f"field {name!r}", _sample_shape(value.function, corner)))
        for name, one in conditions.items():
            tensors += [(f"boundary of {name}", value) for value in one.still.tensors()]
            tensors += [(part.name, _sample_shape(part.function, corner)) for part in one.sampled()]
        return batch_shape(tensors, 1)

    def _linear_part(self) -> LinearOperator | None:
        """M^-1 times the terms that are linear with coefficients that do not change in time, of free points."""
        evolving = range(len(self.unknowns))
        if not any(place in row.entries for row in self.rows for place in evolving):
            return None
        blocks: list[list[LinearOperator | None]] = []
        for i, row in enumerate(self.rows):
            found = {place: -row.kept(row.entries[place], place) for place in evolving if place in row.entries}
            if i not in found:
                found[i] = torch.zeros_like(self._masses[i].entries)
            pattern = row.form.pattern
            blocks.append(
                [
                    matrix_operator(pattern, found[j], symmetric=i == j and row.form.symmetric) if j in found else None
                    for j in evolving
                ]
            )
        only = blocks[0][0]
        operator = only if len(blocks) == 1 and only is not None else BlockOperator(blocks)
        return InverseMass(self._masses, self.space) @ operator

    def _parts(self, u: Tensor) -> tuple[Tensor, ...]:
        if tuple(u.shape[max(0, u.ndim - len(self.space)) :]) != self.space:
            raise InputError(f"u has shape {tuple(u.shape)}, expected (*batch, {', '.join(map(str, self.space))})")
        return (u,) if len(self.unknowns) == 1 else u.unbind(-2)

    def _stacked(self, parts: list[Tensor]) -> Tensor:
        return parts[0] if len(self.unknowns) == 1 else torch.stack(torch.broadcast_tensors(*parts), -2)


@in_plain_mode
def discretize_evolving_on_mesh(
    equation: Equation,
    mesh: Mesh,
    fields: Mapping[str, Any],
    parameters: Mapping[str, Any],
    boundary: Any,
    scheme: Any,
    prepare: Prepare,
) -> MeshEvolution:
    """P1 finite elements for an evolving equation; see `MeshEvolution`.

    Raises:
        InputError: see there, and for FiniteElement(stabilization='streamline').
    """
    scheme = checked_scheme(scheme)
    if scheme.stabilization == "streamline":
        raise InputError(
            "FiniteElement(stabilization='streamline') is for steady linear equations in this version: for an evolving "
            "one take 'auto' or 'none', which leave first derivatives as they are, or a grid and advection='upwind'"
        )
    return MeshEvolution(equation, mesh, fields, parameters, boundary, scheme, prepare)


def _conditions(
    boundary: Any, mesh: Mesh, terms: tuple[EvolvingTerms, ...]
) -> tuple[dict[str, Placed], frozenset[str]]:
    """The conditions on each unknown, and the names of the rates that inherit theirs."""
    speeds = {one.speed: one.own for one in terms if one.speed is not None}
    named = set(boundary) if isinstance(boundary, Mapping) else set()
    inherited = frozenset(speed for speed in speeds if speed not in named)
    asked = tuple(one.own for one in terms if one.own not in inherited)
    placed: dict[str, Placed] = {
        name: read_conditions(part, mesh, f"boundary[{name!r}]" if len(asked) > 1 else "boundary")
        for name, part in split_by_unknown(boundary, mesh, asked).items()
    }
    for one in terms:
        if one.own in inherited:
            placed[one.own] = {
                place: (rate_condition(condition, mesh, f"boundary {place!r}"), facets)
                for place, (condition, facets) in placed[speeds[one.own]].items()
            }
    return {one.own: placed[one.own] for one in terms}, inherited


def _with_changing_flux(terms: EvolvingTerms, values: Values) -> Iterator[str]:
    """The unknowns that have a divergence with a factor before it, which conditions on the flux speak of, that depends
    on the time."""
    for name, row in {terms.own: terms.row, **terms.behind}.items():
        if any(values.varies(part) for outer in row.outers for part in names(outer)):
            yield name


def _sample_shape(function: Any, corner: tuple[Tensor, ...]) -> Tensor:
    """A tensor of the batch shape of a function of coordinates and time, and one more axis."""
    try:
        with torch.no_grad():
            value = function(*corner, torch.zeros_like(corner[0][0]))
    except (ArithmeticError, ValueError):  # it need not be defined at t = 0
        value = corner[0]
    return value if isinstance(value, Tensor) and value.ndim else corner[0]
