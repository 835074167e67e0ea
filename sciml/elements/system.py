"""From a symbolic equation on a mesh to an operator and a right side, and back from values to what they mean."""

from __future__ import annotations

from collections.abc import Mapping
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
from .pattern import pattern_of
from .terms import read_rows
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
    if scheme is not None and not isinstance(scheme, FiniteElement):
        raise InputError(f"scheme: on a mesh it is FiniteElement(...) or None, got {scheme!r}")
    scheme = FiniteElement() if scheme is None else scheme
    rows = read_rows(equation, mesh)
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
    forms = tuple(
        WeakForm(row, own, conditions[own], values, pattern, scheme) for own, row in zip(unknowns, rows, strict=True)
    )
    assembled = [_assemble_row(form, unknowns, conditions) for form in forms]
    batch = batch_shape(
        [*values.tensors(), *((f"boundary of {n}", v) for n, c in conditions.items() for v in c.tensors())], 1
    )
    several = len(forms) > 1
    notes = ["P1 finite elements" + (", lumped masses" if scheme.lumped else "")]
    for form in forms:
        notes.extend(form.notes(several))
    definite, sign, null_space = False, 1, None
    if not several:
        sign = forms[0].sign
        definite, null_space = _definiteness(forms[0], pattern_of(mesh).size)
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
        fields=values.fields,
        parameters=resolved,
        boundary={name: {place: pair[0] for place, pair in part.items()} for name, part in given.items()},
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


@dataclass(frozen=True)
class _AssembledRow:
    """Entries with the conditions applied, by unknown; the right side; entries and load without any condition."""

    entries: list[Tensor | None]
    right_side: Tensor
    volume: dict[int, Tensor]
    load: Tensor


def _assemble_row(form: WeakForm, unknowns: tuple[str, ...], conditions: dict[str, Conditions]) -> _AssembledRow:
    pattern = form.pattern
    own, with_robin = form.own_entries()
    load = form.load()
    right = load
    for part in form.conditions.parts:
        if part.kind != "dirichlet" and (isinstance(part.value, Tensor) or part.value) and form.terms.diffusion:
            factor = form.outer_on(part.facets)
            factor = factor.unsqueeze(-2) if isinstance(factor, Tensor) else factor
            right = right - load_on_facets(form.geometry, part.facets, factor * part.value, pattern.size)
    rows, columns = pattern.entries
    held = form.conditions.held
    volume, entries = {}, list[Tensor | None]()
    scale = _held_diagonal(with_robin[..., pattern.diagonal].detach(), held, form.sign)
    for place, name in enumerate(unknowns):
        if name not in form.row.terms:
            entries.append(None)
            continue
        is_own = name == form.own
        volume[place] = own if is_own else form.coupling_entries(name)
        full = with_robin if is_own else volume[place]
        other = conditions[name]
        if bool(other.held.any()):
            lifted = matrix_operator(pattern, full, symmetric=False).apply(other.lift.expand(*other.lift.shape))
            right = right - lifted
        kept = torch.where(held[rows] | other.held[columns], 0.0, full)
        if is_own and bool(held.any()):
            diagonal = torch.where(held, scale, kept[..., pattern.diagonal])
            kept = kept.index_copy(-1, pattern.diagonal, diagonal.expand(*kept.shape[:-1], pattern.size))
        entries.append(kept)
    return _AssembledRow(entries, torch.where(held, scale * form.conditions.lift, right), volume, load)


def _held_diagonal(diagonal: Tensor, held: Tensor, sign: int) -> Tensor:
    """What stands on the diagonal at held points: the size of the entry that was there, or of the mean where it is
    smaller than a thousandth of that, so that the condition number does not suffer."""
    size = diagonal.abs()
    mean = size.mean(-1, keepdim=True)
    mean = torch.where(mean > 0, mean, 1.0)
    return sign * torch.where(size > 1e-3 * mean, size, mean)


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
