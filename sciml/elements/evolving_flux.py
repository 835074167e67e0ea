"""Fluxes through parts of the boundary of an evolving system on a mesh."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import replace

import torch
from torch import Tensor

from ..errors import InputError
from .boundary import Part
from .evolving_row import EvolvingRow, Moment
from .fluxes import Further, boundary_flux
from .nonlinear_form import State
from .operator import matrix_operator
from .system import linear_row
from .weak_form import WeakForm


def boundary_fluxes(
    rows: Sequence[EvolvingRow], rates: Sequence[Tensor], state: State, moment: Moment, facets: Tensor
) -> Tensor:
    """The outward flux of every unknown, of batch shape, of several unknowns `(*batch, channel)`; read off the weak
    form with its rate, so that the fluxes through all boundaries balance the sources and what stays in the domain.

    Args:
        rows: of the evolving unknowns.
        rates: `(*batch, n)` each.
        state, moment: where and when.
        facets: places in `mesh.facets`.

    Raises:
        InputError: for factors before the divergence that vary in space, and divergences of another unknown.
    """
    found = []
    for row, rate in zip(rows, rates, strict=True):
        if any(form.outer() is not None for form in row.forms):
            found.append(_row_flux(row, rate, state, moment, facets))
        else:
            found.append(torch.zeros((), dtype=rate.dtype, device=rate.device))
    return found[0] if len(found) == 1 else torch.stack(torch.broadcast_tensors(*found), -1)


def _row_flux(row: EvolvingRow, rate: Tensor, state: State, moment: Moment, facets: Tensor) -> Tensor:
    if len(row.forms) > 1:
        raise InputError(
            f"the equation of {row.own} has divergences of another unknown, and their fluxes are not read off in this "
            "version"
        )
    names, pattern = tuple(state.fields), row.form.pattern
    linear = linear_row(row.form, names)
    residual, further = linear.load, None
    for place, entries in linear.volume.items():
        residual = residual - matrix_operator(pattern, entries, symmetric=False).apply(state.fields[names[place]])
    if row.nonlinear is not None:
        late = row.nonlinear.at_time(moment.values)
        residual = residual - late.residual(state)
        further = Further(late.diffusive_through(state), late.carried_through(state))
    if row.mass is not None:
        residual = residual - matrix_operator(pattern, row.mass.full, symmetric=True).apply(rate)
    return boundary_flux(_at(row, moment), state.fields[row.own], residual, facets, further)


def _at(row: EvolvingRow, moment: Moment) -> WeakForm:
    """The weak form with the conditions on the flux and the factors of this time."""
    moving = {flux.part.name: flux for flux in row.conditions[0].fluxes}

    def now(part: Part) -> Part:
        if part.name not in moving:
            return part
        flux = moving[part.name]
        return replace(flux.part, coefficient=flux.coefficient_at(moment.t), value=flux.value_at(moment.t))

    form = copy(row.form)
    form.conditions = replace(form.conditions, parts=tuple(now(part) for part in form.conditions.parts))
    form.values = moment.values
    return form
