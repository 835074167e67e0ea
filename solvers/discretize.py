"""discretize(equation, domain): from an equation to tensors, whatever it is and wherever it lives."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from math import prod
from typing import Any, cast, final

import torch
from torch import Tensor
from torch.autograd import forward_ad

from sciml import discretization
from sciml.boundary import Boundary
from sciml.differentiation import in_one_jvp, in_transform, refuse_transforms_but_jvp
from sciml.discretization import GridEvolution
from sciml.discretization.conditions import read_evolving_conditions
from sciml.discretization.inputs import require_problem
from sciml.equations import Equation
from sciml.errors import InputError
from sciml.evolving import EvolvingSystem, Prepare
from sciml.grid import Grid
from sciml.linear_operator import BlockOperator, Kind, LinearOperator
from sciml.mesh import Mesh
from sciml.modes import in_plain_mode
from sciml.scheme import FiniteElement, Scheme, Spectral
from sciml.stencil import StencilOperator

from .choice import choose_linear
from .linear import Direct
from .linear.base import LinearSolver, Prepared
from .mesh_methods import choose_for_jacobian

# Up to how many unknowns factors, which are used over and over, are quicker than multigrid, by dimension of the grid.
_FACTORED = {1: 5_000_000, 2: 70_000, 3: 8_000}


@in_plain_mode
def discretize(
    equation: Equation,
    domain: Grid | Mesh | None = None,
    fields: Mapping[str, Any] | None = None,
    parameters: Mapping[str, Any] | None = None,
    boundary: Boundary | None = None,
    scheme: Scheme | Spectral | FiniteElement | None = None,
) -> Any:
    """Discretize an equation: a steady linear one as an operator and a right side, an evolving one as its rate.

    Everything is differentiable: gradients with respect to fields, parameters and boundary values flow into what comes
    out, as they do with respect to the unknowns. What is made of the data here is shared by all that is computed with
    the result later: discretize anew for every backward pass with respect to data (every iteration of a training), and
    after data were changed in place.

    Args:
        equation: steady and linear, or evolving; of one unknown or a system of several.
        domain: the grid or mesh; None for ordinary differential equations.
        fields: one value for each of `equation.coefficients`: a number, a tensor that broadcasts to `(*batch, *space)`
            given at the unknowns, or a function of the coordinates, called with one tensor of the grid's shape an axis;
            of an evolving equation also of the coordinates and time, t last: a float64 tensor without axes, or, where
            rows have steps of their own, one of the batch's shape with an axis of length 1 for each of space.
            On a mesh of n points and m cells a tensor is `(*batch, n)`, by point (also where m = n), or `(*batch, m)`,
            by cell; a dict by region, "rest" being what is left, gives each a number or a tensor of the batch's shape;
            and a function is called with the coordinates of points, or of the centres of cells or facets.
        parameters: values that replace those stored in the equation: numbers, or tensors of the batch's shape.
        boundary: conditions in place of the grid's; axes (or unknowns) that a dict does not name keep the grid's, and
            periodic axes stay. A mesh has none of its own: one condition for all, or a dict by the names of
            `domain.boundaries`, "rest" being what is left, that holds every exterior facet once; where two parts meet,
            Dirichlet prevails, and of two Dirichlet conditions the one named first. A value is a number, a function,
            asked at the points of the part, or a tensor `(*batch, n)`; but for Dirichlet values also a tensor with one
            value a facet of the part. Of evolving equations functions may have t as their last argument.
        scheme: on a grid FiniteDifference(...), FiniteVolume(...), or Spectral(...) for evolving equations on periodic
            grids; on a mesh FiniteElement(...). None takes, on a grid, Spectral() for evolving equations where every
            axis is periodic and there are no solid cells, but for conservation laws without second derivatives and
            constraints; else finite volumes if the equation has div(...), and second-order finite differences
            otherwise.

    Returns:
        a `System` or `MeshSystem`, or an `EvolvingSystem`, with notes of what was chosen. Which one depends on what the
        equation says, and no annotation could tell.

    Raises:
        InputError: for a nonlinear steady equation, see `discretize_nonlinear`; for names missing or unknown, values of
            a wrong shape, dtype or device, or not finite, too few axes or cells, and terms that this version has no
            formula for at walls (mixed derivatives outside of div, and derivatives above the second).
    """
    if domain is None and getattr(equation, "coordinates", None) == ():
        from sciml.ordinary import OrdinarySystem

        if boundary is not None or scheme is not None:
            raise InputError("a system of ordinary differential equations has no boundary and needs no scheme")
        return OrdinarySystem(equation, fields, parameters)
    require_problem(equation, domain)
    domain = cast(Grid | Mesh, domain)
    if not equation.evolving:
        if isinstance(scheme, Spectral):
            raise InputError("scheme: Spectral(...) is for evolving equations; take FiniteDifference() or None")
        return discretization.discretize(equation, domain, fields, parameters, boundary, cast(Any, scheme))
    if isinstance(domain, Mesh):
        from sciml.elements.evolving import discretize_evolving_on_mesh

        return discretize_evolving_on_mesh(
            equation, domain, fields or {}, parameters or {}, boundary, scheme, preparation(domain)
        )
    if scheme is None and _suits_fourier_series(equation, domain):
        scheme = Spectral()
    if isinstance(scheme, Spectral):
        from sciml.spectral import discretize_spectral

        if boundary is not None:
            read_evolving_conditions(domain, equation.unknowns, equation.constrained, boundary)

        return discretize_spectral(equation, domain, fields or {}, parameters or {}, scheme)
    if isinstance(scheme, FiniteElement):
        raise InputError("scheme: FiniteElement(...) is for meshes; take FiniteDifference(...) or FiniteVolume(...)")
    return GridEvolution(equation, domain, fields or {}, parameters or {}, boundary, scheme, preparation(domain))


def evolving_system(
    equation: Equation | EvolvingSystem,
    domain: Grid | Mesh | None,
    fields: Mapping[str, Any] | None,
    parameters: Mapping[str, Any] | None,
    boundary: Boundary | None,
    scheme: Scheme | Spectral | FiniteElement | None,
) -> EvolvingSystem:
    """The discretization of an evolving equation; one that is discretized already is taken as it is.

    Raises:
        InputError: as `discretize`; for a steady equation; for a system with anything else.
    """
    if isinstance(equation, EvolvingSystem):
        rest = {"domain": domain, "fields": fields, "parameters": parameters, "boundary": boundary, "scheme": scheme}
        given = [name for name, value in rest.items() if value is not None]
        if given:
            raise InputError(
                f"{', '.join(given)}: given beside a system that is discretized already ({type(equation).__name__}); "
                "give them to sciml.discretize, or the equation here"
            )
        return equation
    if isinstance(equation, Equation) and not equation.evolving:
        raise InputError(f"'{equation}' has no time derivative: it is steady, take sciml.solve")
    if callable(equation):
        raise InputError(
            "equation: a right-hand side that is a function is given as sciml.FunctionSystem(function, space), with "
            "function(u, t) and the shape of one row of u"
        )
    system: EvolvingSystem = discretize(equation, domain, fields, parameters, boundary, scheme)
    return system


def _suits_fourier_series(equation: Equation, grid: Grid) -> bool:
    """Whether every axis is periodic, without obstacles, and shocks are not to be expected."""
    if grid.solid is not None or not all(grid.periodic):
        return False
    if equation.order >= 2 or equation.constrained:
        return True
    forms = equation.residual_forms(grid.dimension)
    return not any(form.fluxes or any(term.flux_axis is not None for term in form.terms) for form in forms)


def preparation(domain: Grid | Mesh) -> Prepare:
    """How systems on a domain are solved where that is a part of evaluating a rate: to 1e-12 of the right side in
    float64 and 1e-6 in float32, by factors where these are small."""
    return _Preparation(domain)


@final
@dataclass(frozen=True, eq=False)
class _Preparation:
    """Operator -> (right side -> solution); an object, and no function in a function, so that it can be pickled."""

    domain: Grid | Mesh

    def __call__(self, operator: LinearOperator) -> Callable[[Tensor], Tensor]:
        refuse_transforms_but_jvp("to discretize an equation with constraints")
        chosen = _choose(operator, self.domain)
        accuracy = 1e-12 if operator.dtype == torch.float64 else 1e-6
        single = operator.dtype == torch.float32 and not isinstance(chosen, Direct)
        # In single precision iterations end at rounding, and a null space is not met well enough.
        exact = _in_double(operator) if single else operator
        return _Inverse(replace(chosen, rtol=accuracy).prepare(exact), single, _is_tracked(operator))


@final
@dataclass(frozen=True, eq=False)
class _Inverse:
    """right side -> solution; `single` of fields in single precision, `tracked` where the operator has derivatives."""

    prepared: Prepared
    single: bool
    tracked: bool

    def __call__(self, right: Tensor) -> Tensor:
        there = right.double() if self.single else right
        wanted = torch.is_grad_enabled() or forward_ad._current_level >= 0
        if self.tracked and wanted and (in_one_jvp() or not in_transform()):
            return self.prepared.solve(_without_null_space(there, self.prepared)).value.to(right.dtype)
        solution: Tensor = _Solve.apply(there, self.prepared)
        return solution.to(right.dtype)


def _choose(operator: LinearOperator, domain: Grid | Mesh) -> LinearSolver:
    if isinstance(domain, Mesh):
        return choose_for_jacobian(operator, domain.dimension)[0]
    small = operator.device.type == "cpu" and prod(operator.batch) * operator.size <= _FACTORED[domain.dimension]
    if small:
        return Direct()
    return choose_linear(operator, domain.dimension, definite=operator.kind is Kind.SYMMETRIC_POSITIVE)[0]


def _in_double(operator: LinearOperator) -> LinearOperator:
    """The operator in double precision, its null space of length 1 there."""
    double = operator.to(torch.float64)
    if double.null_space is None or not isinstance(double, StencilOperator):
        return double
    lengths = torch.linalg.vector_norm(double.null_space.flatten(1), dim=1)
    return double.with_null_space(double.null_space / lengths.reshape(-1, *[1] * len(double.space)))


def _without_null_space(right: Tensor, prepared: Prepared) -> Tensor:
    axes = tuple(range(-len(prepared.space), 0))
    for vector in () if prepared.operator.null_space is None else prepared.operator.null_space:
        right = right - (right * vector).sum(dim=axes, keepdim=True) * vector
    return right


def _is_tracked(operator: LinearOperator) -> bool:
    """Whether derivatives with respect to the coefficients are asked for, backward or forward."""
    if isinstance(operator, BlockOperator):
        return any(_is_tracked(block) for row in operator.blocks for block in row if block is not None)
    coefficients = operator.coefficients if isinstance(operator, StencilOperator) else (operator.diagonal(),)
    return any(c.requires_grad or forward_ad.unpack_dual(c).tangent is not None for c in coefficients)


@final
class _Solve(torch.autograd.Function):
    """right side -> solution, of a fixed operator; a row that is not finite has none, and takes no other down."""

    @staticmethod
    def forward(right: Tensor, prepared: Prepared) -> Tensor:
        if isinstance(prepared.solver, Direct):
            return prepared.apply(right)  # accurate to rounding, row by row: nothing is to be checked
        right, axes = _without_null_space(right, prepared), tuple(range(-len(prepared.space), 0))
        finite = torch.isfinite(torch.linalg.vector_norm(right, ord=torch.inf, dim=axes, keepdim=True))
        if bool(finite.all()):
            return prepared.solve(right).value
        return torch.where(finite, prepared.solve(torch.where(finite, right, 0.0)).value, torch.nan)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.prepared = inputs[1]
        ctx.batch = inputs[0].shape

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        return _Solve.apply(gradients[0], ctx.prepared.transpose()).sum_to_size(ctx.batch), None

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor | None) -> Tensor:
        solution: Tensor = _Solve.apply(tangents[0], ctx.prepared)
        return solution
