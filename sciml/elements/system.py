"""From a symbolic equation on a mesh to an operator and a right side, and back from values to what they mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..boundary import SideCondition
from ..errors import InputError
from ..given import Number, batch_shape, require_names, resolve_parameters_on
from ..linear_operator import BlockOperator, LinearOperator
from ..mesh import Mesh
from ..scheme import FiniteElement
from .assembly import load_on_facets
from .boundary import Conditions, read_conditions, resolve, split_by_unknown
from .fluxes import boundary_flux
from .geometry import geometry_of
from .operator import matrix_operator, negated
from .pattern import Pattern, pattern_of
from .terms import Row, read_rows
from .values import Values, extremes
from .weak_form import WeakForm

if TYPE_CHECKING:
    from ..equations import Equation


@dataclass(frozen=True, eq=False)
class MeshSystem:
    """A discretized steady linear equation on a mesh: operator u = right_side, integrated over the test functions.

    The unknowns stand at the points, those of Dirichlet conditions included: their rows and columns are those of a
    multiple of the identity.

    Attributes:
        operator: on fields `(*batch, n)`; of several unknowns a BlockOperator on `(*batch, channel, n)`.
        right_side: `(*batch, n)`, of several unknowns `(*batch, channel, n)`.
        equation, domain, unknowns: what was discretized; channels are in the order of `unknowns`.
        fields: the values given: floats, tensors `(*batch, n)` by point or `(*batch, m)` by cell, or functions.
        parameters: the values used, floats or tensors `(*batch, 1)`.
        boundary: unknown -> boundary name -> the condition used.
        scheme: the scheme used.
        notes: what was chosen, for people to read.
        definite: the operator is symmetric and certainly definite (on the complement of its `null_space`).
        sign: +1 or -1, the sign of the diagonal.
        forms: the weak form of each row, the boundary conditions left out.
        volume_operators: row -> unknown's place -> the operator of the weak form, without boundary conditions.
        loads: for each row the integrated sources, `(*batch, n)`.
    """

    operator: LinearOperator
    right_side: Tensor
    equation: Equation
    domain: Mesh
    unknowns: tuple[str, ...]
    fields: dict[str, Any]
    parameters: dict[str, Number]
    boundary: dict[str, dict[str, SideCondition]]
    scheme: FiniteElement
    notes: tuple[str, ...]
    definite: bool
    sign: int
    forms: tuple[WeakForm, ...] = field(repr=False)
    volume_operators: tuple[dict[int, LinearOperator], ...] = field(repr=False)
    loads: tuple[Tensor, ...] = field(repr=False)

    def flux(self, value: Tensor, boundary_name: str) -> Tensor:
        """The outward flux of a field through a named boundary, consistent with the discrete equation.

        It is the integral of what stands inside the divergence (a du/dn for -div(a*grad(u)), du/dn for a plain
        Laplacian), so that the fluxes through all boundaries balance the integrated source to rounding: where the value
        is held, it is read off the residual of the equation there (Carey, Commun. Appl. Numer. Methods 1 (1985) 63-71),
        divided among the facets of a point according to the flux of each; elsewhere it is that of the condition. Terms
        in divergence form with another factor in front count relative to the diffusive one, as on grids:
        -div(a*grad(u)) + div([b*u]) has the flux a du/dn - b u n.

        Args:
            value: `(*batch, n)`, of several unknowns `(*batch, channel, n)`: a solution of the system.
            boundary_name: one of `domain.boundaries`, whose facets need not be those of one condition.

        Returns:
            `(*batch,)`, of several unknowns `(*batch, channel)`: one flux an equation.

        Raises:
            InputError: for another name, a value of another shape, or an equation without a flux.
        """
        facets = self.domain.boundary(boundary_name)
        self._check(value)
        channels = [value] if len(self.unknowns) == 1 else list(value.unbind(-2))
        rows = []
        for row, form in enumerate(self.forms):
            residual = self.loads[row]
            for place, operator in self.volume_operators[row].items():
                residual = residual - operator.apply(channels[place].contiguous())
            rows.append(boundary_flux(form, channels[row], residual, facets))
        return rows[0] if len(rows) == 1 else torch.stack(torch.broadcast_tensors(*rows), -1)

    def with_positive_diagonal(self) -> tuple[LinearOperator, Tensor]:
        """Operator and right side, multiplied by -1 where that makes the diagonal positive."""
        if self.sign > 0:
            return self.operator, self.right_side
        return negated(self.operator), -self.right_side

    def _check(self, value: Tensor) -> None:
        space = self.operator.space
        if tuple(value.shape[-len(space) :]) != space:
            raise InputError(f"value has shape {tuple(value.shape)}, expected (*batch, {', '.join(map(str, space))})")


def discretize_on_mesh(
    equation: Equation,
    mesh: Mesh,
    fields: Mapping[str, Any],
    parameters: Mapping[str, Any],
    boundary: Any,
    scheme: Any,
) -> MeshSystem:
    """P1 finite elements for a steady linear equation; see `sciml.discretize`."""
    scheme = checked_scheme(scheme)
    given = prepare(read_rows(equation, mesh), equation, mesh, fields, parameters, boundary, scheme)
    unknowns, forms, conditions, pattern = given.unknowns, given.forms, given.conditions, given.pattern
    assembled = [_assemble_row(form, unknowns, conditions) for form in forms]
    batch = given.batch()
    several = len(forms) > 1
    notes = ["P1 finite elements" + (", lumped masses" if scheme.lumped else "")]
    for form in forms:
        notes.extend(form.notes(several))
    definite, sign, null_space = False, 1, None
    if not several:
        sign = forms[0].sign
        definite, null_space = _definiteness(forms[0], pattern.size)
        if null_space is not None:
            notes.append(f"{unknowns[0]}: determined up to a constant on each part of the mesh that nothing holds")
    blocks = [
        [
            None
            if entries is None
            else matrix_operator(pattern, entries, symmetric=form.symmetric and i == j, null_space=null_space)
            for j, entries in enumerate(part.entries)
        ]
        for i, (form, part) in enumerate(zip(forms, assembled, strict=True))
    ]
    right_sides = [part.right_side.expand(*batch, pattern.size) for part in assembled]
    return MeshSystem(
        operator=BlockOperator(blocks) if several else blocks[0][0],  # type: ignore[arg-type]
        right_side=torch.stack(right_sides, -2) if several else right_sides[0].contiguous(),
        equation=equation,
        domain=mesh,
        unknowns=unknowns,
        fields=given.values.fields,
        parameters=given.values.parameters,
        boundary=given.boundary,
        scheme=scheme,
        notes=tuple(notes),
        definite=definite,
        sign=sign,
        forms=forms,
        volume_operators=tuple(
            {j: matrix_operator(pattern, e, symmetric=False) for j, e in part.volume.items()} for part in assembled
        ),
        loads=tuple(part.load for part in assembled),
    )


def checked_scheme(scheme: Any) -> FiniteElement:
    """The scheme with its default filled in.

    Raises:
        InputError: for a scheme of grids.
    """
    if scheme is not None and not isinstance(scheme, FiniteElement):
        raise InputError(f"scheme: on a mesh it is FiniteElement(...) or None, got {scheme!r}")
    return FiniteElement() if scheme is None else scheme


@dataclass(frozen=True)
class Given:
    """What was given for an equation on a mesh, checked and put where it is needed.

    Attributes:
        unknowns: in the order of the rows.
        forms: the weak form of the linear terms of each row.
        conditions: on each unknown, evaluated.
        boundary: the same as they were given, by unknown and boundary name.
        values: of fields and parameters.
        pattern: of the mesh.
    """

    unknowns: tuple[str, ...]
    forms: tuple[WeakForm, ...]
    conditions: dict[str, Conditions]
    boundary: dict[str, dict[str, SideCondition]]
    values: Values
    pattern: Pattern

    def batch(self) -> tuple[int, ...]:
        """What all that was used broadcasts to; to be called after assembly."""
        tensors = [(f"boundary of {n}", v) for n, c in self.conditions.items() for v in c.tensors()]
        return batch_shape([*self.values.tensors(), *tensors], 1)


def prepare(
    rows: Sequence[Row],
    equation: Equation,
    mesh: Mesh,
    fields: Mapping[str, Any],
    parameters: Mapping[str, Any],
    boundary: Any,
    scheme: FiniteElement,
) -> Given:
    """Check everything that was given.

    Raises:
        InputError: see `sciml.discretize`.
    """
    unknowns = (*equation.unknowns, *equation.constrained)
    require_names(fields, equation.coefficients)
    resolved = resolve_parameters_on(mesh, 1, parameters, equation.parameters)
    geometry, pattern = geometry_of(mesh), pattern_of(mesh)
    values = Values(mesh, geometry, tuple(equation.coordinates), fields, resolved)
    given = {
        name: read_conditions(part, mesh, f"boundary[{name!r}]" if len(unknowns) > 1 else "boundary")
        for name, part in split_by_unknown(boundary, mesh, unknowns).items()
    }
    conditions = {name: resolve(part, mesh, geometry) for name, part in given.items()}
    batch_shape(
        [*values.given_tensors(), *((f"boundary of {n}", v) for n, c in conditions.items() for v in c.tensors())], 1
    )
    forms = tuple(
        WeakForm(row, own, conditions[own], values, pattern, scheme) for own, row in zip(unknowns, rows, strict=True)
    )
    plain = {name: {place: pair[0] for place, pair in part.items()} for name, part in given.items()}
    return Given(unknowns, forms, conditions, plain, values, pattern)


@dataclass(frozen=True)
class _AssembledRow:
    """Entries with the conditions applied, by unknown; the right side; entries and load without any condition."""

    entries: list[Tensor | None]
    right_side: Tensor
    volume: dict[int, Tensor]
    load: Tensor


@dataclass(frozen=True)
class LinearRow:
    """The linear terms of a row with their conditions on the flux, those on the value left out.

    Attributes:
        volume: unknown's place -> entries without any condition.
        full: the same with Robin conditions.
        load: `(*batch, n)`, the integrated sources.
        right_side: the same with Neumann and Robin values.
    """

    volume: dict[int, Tensor]
    full: dict[int, Tensor]
    load: Tensor
    right_side: Tensor


def linear_row(form: WeakForm, unknowns: tuple[str, ...]) -> LinearRow:
    """The matrices and right sides of a row."""
    pattern = form.pattern
    load = form.load()
    right = load
    for part in form.conditions.parts:
        if part.kind != "dirichlet" and (isinstance(part.value, Tensor) or part.value) and form.has_flux:
            factor = form.outer_on(part.facets)
            factor = factor.unsqueeze(-2) if isinstance(factor, Tensor) else factor
            right = right - load_on_facets(form.geometry, part.facets, factor * part.value, pattern.size)
    volume, full = {}, {}
    for place, name in enumerate(unknowns):
        if name == form.own:
            volume[place], full[place] = form.own_entries()
        elif name in form.row.terms:
            volume[place] = full[place] = form.coupling_entries(name)
    return LinearRow(volume, full, load, right)


def _assemble_row(form: WeakForm, unknowns: tuple[str, ...], conditions: dict[str, Conditions]) -> _AssembledRow:
    pattern = form.pattern
    row = linear_row(form, unknowns)
    right, held = row.right_side, form.conditions.held
    own = row.full[unknowns.index(form.own)]
    scale = held_diagonal(own[..., pattern.diagonal].detach(), held, form.sign)
    entries: list[Tensor | None] = [None] * len(unknowns)
    for place, full in row.full.items():
        other = conditions[unknowns[place]]
        if bool(other.held.any()):
            right = right - matrix_operator(pattern, full, symmetric=False).apply(other.lift)
        entries[place] = eliminated(pattern, full, held, other.held, scale if unknowns[place] == form.own else None)
    return _AssembledRow(entries, torch.where(held, scale * form.conditions.lift, right), row.volume, row.load)


def eliminated(pattern: Pattern, entries: Tensor, held: Tensor, columns: Tensor, diagonal: Tensor | None) -> Tensor:
    """Entries without the rows and columns of held points.

    Args:
        pattern: of the mesh.
        entries: `(*batch, entries)`.
        held, columns: bool `(n,)`, the points held in the rows and in the columns.
        diagonal: what stands on the diagonal of held rows, None for nothing.
    """
    kept = entries
    for points, mirrored in ((held, False), (columns, True)):
        if bool(points.any()):
            places = pattern.entries_of(points)
            kept = kept.index_fill(-1, pattern.transposed[places] if mirrored else places, 0.0)
    if diagonal is None or not bool(held.any()):
        return kept
    points = held.nonzero().squeeze(-1)
    own = diagonal[..., points]
    batch = torch.broadcast_shapes(kept.shape[:-1], own.shape[:-1])
    kept = kept.expand(*batch, kept.shape[-1])
    return kept.index_copy(-1, pattern.diagonal[points], own.expand(*batch, len(points)))


def held_diagonal(diagonal: Tensor, held: Tensor, sign: int) -> Tensor:
    """What stands on the diagonal at held points: the size of the entry that was there, or of the mean where that has
    no diagonal but rounding.

    Where coefficients jump by large factors, anything larger in these rows would make the right side so large that
    tolerances relative to it say nothing of the others.
    """
    size = diagonal.abs()
    mean = size.mean(-1, keepdim=True)
    mean = torch.where(mean > 0, mean, 1.0)
    return sign * torch.where(size > 64 * torch.finfo(size.dtype).eps * mean, size, mean)


def _definiteness(form: WeakForm, size: int) -> tuple[bool, Tensor | None]:
    """Whether the matrix is certainly definite (but for its null space), and that null space `(k, n)`."""
    if not form.symmetric or form.diffusion is None or not form.diffusion.sign:
        low, high = extremes(form.reaction)
        massive = form.symmetric and form.diffusion is None and low * high > 0.0
        return massive, None
    low, high = sorted(form.sign * bound for bound in extremes(form.reaction))
    robin = [part for part in form.conditions.parts if part.kind == "robin"]
    bounds = [extremes(part.coefficient) for part in robin]
    definite = form.diffusion.sign == form.sign and low >= 0.0 and all(least >= 0.0 for least, _ in bounds)
    if low > 0.0:
        return definite, None
    touched = form.conditions.held.clone()
    sure = touched.clone()
    for part, (least, largest) in zip(robin, bounds, strict=True):
        points = form.geometry.facets[:, part.facets].reshape(-1)
        touched[points] |= least != 0.0 or largest != 0.0
        sure[points] |= least > 0.0
    count, labels = form.pattern.components
    loose = torch.ones(count, dtype=torch.bool, device=labels.device)
    loose[labels[touched].unique().long()] = False
    certain = torch.zeros_like(loose)
    certain[labels[sure].unique().long()] = True
    if form.terms.reaction is not None and (low != 0.0 or high != 0.0):
        # A reaction that vanishes in places may or may not hold a part.
        return definite and bool(certain.all()), None
    if not bool(loose.any()):
        return definite and bool(certain.all()), None
    vectors = torch.stack([labels == label for label in torch.nonzero(loose).squeeze(-1)]).to(form.geometry.volumes)
    return definite and bool((certain | loose).all()), vectors / vectors.sum(-1, keepdim=True).sqrt()
