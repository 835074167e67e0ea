"""Fluxes through parts of the boundary, read off the residual of the weak form."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import InputError
from ..given import Number
from .assembly import load_on_facets
from .boundary import Part
from .weak_form import WeakForm


@dataclass(frozen=True, eq=False)
class Further:
    """What nonlinear terms add on the exterior facets, per area and times the factors before their divergences.

    Attributes:
        diffusive: `(*batch, d, f)`, n . flux with the gradient of the cell behind, times each basis function.
        carried: `(*batch, f)`, n . flux without derivatives.
    """

    diffusive: Tensor
    carried: Tensor


def boundary_flux(
    form: WeakForm, value: Tensor, residual: Tensor, wanted: Tensor, further: Further | None = None
) -> Tensor:
    """The flux through exterior facets, of shape batch.

    Args:
        form: of the row whose flux it is.
        value: `(*batch, n)`, the row's unknown.
        residual: `(*batch, n)`, load minus matrix times solution, both without boundary conditions: the factor of the
            flux times its integral against the basis functions.
        wanted: `(k,)`, places in `mesh.facets`.
        further: the fluxes of nonlinear terms.

    Raises:
        InputError: for an equation without second derivatives, or with a factor before them that varies in space.
    """
    outer = form.outer()
    if outer is None:
        raise InputError(f"the equation of {form.own} has no second derivatives, and so no flux through a boundary")
    if not form.is_constant(outer):
        raise InputError(
            f"the factor {outer} before the divergence varies in space, so that the fluxes do not balance: write the "
            "equation with it inside, -div(a*grad(u)) = f"
        )
    factor = form.values.at(outer, "cells")
    geometry = form.geometry
    chosen = torch.zeros(len(geometry.areas), dtype=torch.bool, device=wanted.device)
    chosen[wanted] = True
    total = torch.zeros((), dtype=value.dtype, device=value.device)
    integrals = residual / factor
    held = []
    for part in form.conditions.parts:
        if part.kind == "dirichlet":
            held.append(part.facets)
            continue
        density = _density(form, part, value)
        integrals = integrals - load_on_facets(geometry, part.facets, density, form.pattern.size)
        own = part.facets[chosen[part.facets]]
        if len(own):
            inside = _density(form, _restricted(part, chosen), value)
            total = total + load_on_facets(geometry, own, inside, form.pattern.size).sum(-1)
    if held:
        facets = torch.cat(held)
        extra = None if further is None else (further.diffusive / _by_point(factor))[..., facets]
        shares = _shares(form, value, integrals, facets, extra)
        total = total + torch.where(chosen[facets], shares, 0.0).sum((-2, -1))
    if form.terms.carried:
        through = form.carried_through(wanted) / factor
        mean = geometry.on_facets(value)[..., wanted]
        total = total + (through * mean * geometry.areas[wanted]).sum(-1)
    if further is not None:
        total = total + (further.carried * geometry.areas / factor)[..., wanted].sum(-1)
    return total


def _density(form: WeakForm, part: Part, value: Tensor) -> Tensor:
    """The diffusive flux density that a Neumann or Robin condition states, by vertex `(*batch, d, k)`."""
    corners = value[..., form.geometry.facets[:, part.facets]]
    given = part.value if isinstance(part.value, Tensor) else torch.full_like(corners, part.value)
    if part.kind == "neumann":
        return given
    coefficient = part.coefficient
    return given - (coefficient.unsqueeze(-2) if isinstance(coefficient, Tensor) else coefficient) * corners


def _restricted(part: Part, chosen: Tensor) -> Part:
    """The part on those of its facets that are chosen."""
    inside = chosen[part.facets]

    def pick(value: Tensor | float) -> Tensor | float:
        return value[..., inside] if isinstance(value, Tensor) and value.shape[-1] == len(inside) else value

    return Part(part.name, part.kind, part.facets[inside], pick(part.coefficient), pick(part.value))


def _shares(form: WeakForm, value: Tensor, integrals: Tensor, facets: Tensor, further: Tensor | None) -> Tensor:
    """What each facet, at each of its points, has of the integrals at points: `(*batch, d, k)`.

    First the flux of the gradient in the cell behind the facet, `further` being that of nonlinear terms; what then is
    missing at a point is divided by area.
    """
    geometry, size = form.geometry, form.pattern.size
    cells, d = geometry.facet_cells[facets], geometry.dimension
    slopes = geometry.gradient(value)[..., cells]
    normals, areas = geometry.normals[:, facets], geometry.areas[facets]
    density = torch.zeros_like(slopes[..., 0, :])
    outer = form.values.at(form.outer(), "cells")
    diffusion = form.diffusion
    for (k, j), entry in ({} if diffusion is None else diffusion.tensor).items():
        inner = -entry / outer
        if isinstance(inner, Tensor) and inner.shape[-1] > 1:
            inner = inner[..., cells]
        density = density + normals[k] * inner * slopes[..., j, :]
    direct = (density * areas / d).unsqueeze(-2)
    direct = direct.expand(*direct.shape[:-2], d, len(facets))
    if further is not None:
        direct = direct + further * areas
    points = geometry.facets[:, facets].reshape(-1)
    sums = direct.new_zeros(*direct.shape[:-2], size).index_add(-1, points, direct.flatten(-2))
    weight = areas.new_zeros(size).index_add(0, points, areas.expand(d, -1).reshape(-1))
    missing = (integrals - sums) / torch.where(weight > 0, weight, 1.0)
    return direct + missing[..., points].unflatten(-1, (d, len(facets))) * areas


def _by_point(value: Number) -> Number:
    return value.unsqueeze(-2) if isinstance(value, Tensor) else value
