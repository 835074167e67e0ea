"""discretize(equation, domain): from a symbolic equation on a grid to an operator and a right side."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, overload

import torch
from torch import Tensor

from ..boundary import Boundary, StatedByAxis
from ..elements import MeshSystem, discretize_on_mesh
from ..errors import InputError
from ..grid import Grid
from ..linear_operator import BlockOperator, LinearOperator
from ..mesh import Mesh
from ..modes import in_plain_mode
from ..scheme import FiniteElement, Scheme
from .assembly import Assembly
from .fluxes import boundary_flux, boundary_value
from .inputs import Number, require_problem
from .problem import Problem

if TYPE_CHECKING:
    from ..equations import Equation


@dataclass(frozen=True, eq=False)
class System:
    """A discretized steady linear equation: operator u = right_side, in point form.

    Attributes:
        operator: on fields `(*batch, *space)`; of several unknowns a BlockOperator on `(*batch, channel, *space)`.
        right_side: `(*batch, *space)`, of several unknowns `(*batch, channel, *space)`: the equation's sources and what
            the boundary values contribute.
        equation, domain, unknowns: what was discretized; channels are in the order of `unknowns`.
        fields, parameters: the values used, as floats or tensors that broadcast to `(*batch, *space)`.
        boundary: unknown -> axis -> (lower, upper), the conditions used.
        scheme: the scheme used.
        notes: what was chosen, for people to read.
        definite: the operator is symmetric and certainly definite (on the complement of its `null_space`).
        sign: +1 or -1, the sign of the diagonal.
    """

    operator: LinearOperator
    right_side: Tensor
    equation: Equation
    domain: Grid
    unknowns: tuple[str, ...]
    fields: dict[str, Number]
    parameters: dict[str, Number]
    boundary: dict[str, StatedByAxis]
    scheme: Scheme
    notes: tuple[str, ...]
    definite: bool
    sign: int
    assembly: Assembly = field(repr=False)

    def flux(self, value: Tensor, boundary_name: str) -> Tensor:
        """The outward flux of a field through a named boundary, by the face formula of the operator.

        It is the integral of what stands inside the divergence (a du/dn for -div(a*grad(u)), du/dn for a plain
        Laplacian), so that the fluxes through all boundaries balance the integrated source to rounding. Terms in
        divergence form with another factor in front count relative to the diffusive one: -div(a*grad(u)) + div([b*u])
        has the flux a du/dn - b u n.

        Args:
            value: `(*batch, *space)`, of several unknowns `(*batch, channel, *space)`.
            boundary_name: one of `domain.boundaries`.

        Returns:
            `(*batch,)`, of several unknowns `(*batch, channel)`: one flux an equation.

        Raises:
            InputError: for another name, a value of another shape, or an equation without a flux.
        """
        self._check(value)
        if boundary_name not in self.domain.boundaries:
            known = ", ".join(self.domain.boundaries) or "none, every axis is periodic"
            raise InputError(f"there is no boundary {boundary_name!r}; the grid has: {known}")
        return boundary_flux(self.assembly, value, boundary_name)

    def boundary_value(self, value: Tensor, axis: int, side: int) -> Tensor:
        """The field on a side of the box (0 lower, 1 upper), second order: what the boundary condition makes of it.

        Args:
            value: `(*batch, *space)`, of several unknowns `(*batch, channel, *space)`.

        Returns:
            the same shape without the axis.

        Raises:
            InputError: for a value of another shape, or a side of a periodic axis.
        """
        self._check(value)
        if self.domain.periodic[axis]:
            raise InputError(f"axis {self.domain.axes[axis]} is periodic and has no sides")
        return boundary_value(self.assembly, value, axis, side)

    def _check(self, value: Tensor) -> None:
        if tuple(value.shape[-len(self.operator.space) :]) != self.operator.space:
            raise InputError(f"value has shape {tuple(value.shape)}, expected (*batch, *{self.operator.space})")


@overload
def discretize(
    equation: Equation,
    domain: Grid,
    fields: Mapping[str, Any] | None = None,
    parameters: Mapping[str, Any] | None = None,
    boundary: Boundary | None = None,
    scheme: Scheme | None = None,
) -> System: ...


@overload
def discretize(
    equation: Equation,
    domain: Mesh,
    fields: Mapping[str, Any] | None = None,
    parameters: Mapping[str, Any] | None = None,
    boundary: Boundary | None = None,
    scheme: FiniteElement | None = None,
) -> MeshSystem: ...


@overload
def discretize(
    equation: Equation,
    domain: Grid | Mesh,
    fields: Mapping[str, Any] | None = None,
    parameters: Mapping[str, Any] | None = None,
    boundary: Boundary | None = None,
    scheme: Scheme | FiniteElement | None = None,
) -> System | MeshSystem: ...


@in_plain_mode
def discretize(
    equation: Equation,
    domain: Grid | Mesh,
    fields: Mapping[str, Any] | None = None,
    parameters: Mapping[str, Any] | None = None,
    boundary: Boundary | None = None,
    scheme: Any = None,
) -> System | MeshSystem:
    """Discretize a steady linear equation on a grid, or on a mesh by P1 finite elements.

    Everything is differentiable: gradients with respect to fields, parameters and boundary values flow into the
    operator's coefficients and the right side.

    Args:
        equation: steady and linear, of one unknown or a system of several.
        domain: the grid or mesh.
        fields: one value for each of `equation.coefficients`: a number, a tensor that broadcasts to `(*batch, *space)`
            given at the unknowns, or a function of the coordinates, called with one tensor of the grid's shape an axis.
            On a mesh of n points and m cells a tensor is `(*batch, n)`, by point (also where m = n), or `(*batch, m)`,
            by cell; a dict by region, "rest" being what is left, gives each a number or a tensor of the batch's shape;
            and a function is called with the coordinates of points, or of the centres of cells or facets.
        parameters: values that replace those stored in the equation: numbers, or tensors of the batch's shape.
        boundary: conditions in place of the grid's; axes (or unknowns) that a dict does not name keep the grid's, and
            periodic axes stay. A mesh has none of its own: one condition for all, or a dict by the names of
            `domain.boundaries`, "rest" being what is left, that holds every exterior facet once; where two parts meet,
            Dirichlet prevails, and of two Dirichlet conditions the one named first. A value is a number, a function,
            asked at the points of the part, or a tensor `(*batch, n)`; but for Dirichlet values also a tensor with one
            value a facet of the part.
        scheme: FiniteDifference(...) or FiniteVolume(...); None takes finite volumes if the equation has div(...) and
            second-order finite differences otherwise. On a mesh FiniteElement(...).

    Returns:
        the system, with notes of what was chosen.

    Raises:
        InputError: for a nonlinear equation, see `discretize_nonlinear`, or an evolving one (a limit of this version),
            names missing or unknown, values of a wrong shape, dtype or device, or not finite, too few axes or cells,
            and terms that this version has no formula for at walls (mixed derivatives outside of div, and derivatives
            above the second).
    """
    require_problem(equation, domain)
    if isinstance(domain, Mesh):
        return discretize_on_mesh(equation, domain, fields or {}, parameters or {}, boundary, scheme)
    problem = Problem(equation, domain, fields or {}, parameters or {}, boundary, scheme)
    assembly = Assembly(problem)
    operator: LinearOperator = assembly.diagonal_blocks[0]
    right_side = assembly.right_sides[0]
    definite, sign = assembly.properties[0].definite, int(assembly.signs[0])
    if len(problem.unknowns) > 1:
        operator = BlockOperator(assembly.blocks, null_space=assembly.null_space)
        right_side = torch.stack(assembly.right_sides, dim=-domain.dimension - 1)
        definite, sign = False, 1
    return System(
        operator=operator,
        right_side=right_side,
        equation=equation,
        domain=domain,
        unknowns=problem.unknowns,
        fields=problem.fields,
        parameters=problem.parameters,
        boundary=problem.sides,
        scheme=problem.scheme,
        notes=assembly.notes,
        definite=definite,
        sign=sign,
        assembly=assembly,
    )
