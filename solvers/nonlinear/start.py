"""Where a nonlinear solve begins, as the caller gave it -> a tensor."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from sciml.boundary import suggestion
from sciml.discretization.inputs import resolve_field
from sciml.discretization.linearization import NonlinearSystem
from sciml.errors import InputError
from sciml.solution import Solution


def resolve_start(initial: Any, system: NonlinearSystem) -> Tensor | None:
    """A start of the shape of the unknowns, or None for zero.

    Args:
        initial: a number, a tensor that broadcasts to `(*batch, *space)`, a function of the coordinates, an earlier
            solution; of several unknowns a dict of these by name, or a tensor `(*batch, channel, *space)`.

    Raises:
        InputError: for a wrong name, type, shape, dtype or device, or values that are not finite.
    """
    if initial is None:
        return None
    if isinstance(initial, Solution):
        initial = initial.value.detach()
    grid, unknowns = system.domain, system.unknowns
    if len(unknowns) == 1 and not isinstance(initial, Mapping):
        return _on_grid(initial, system, "initial")
    if isinstance(initial, Mapping):
        for name in initial:
            if name not in unknowns:
                raise InputError(f"initial: {name!r} is not an unknown{suggestion(str(name), unknowns)}")
        parts = [_on_grid(initial.get(name, 0.0), system, f"initial of {name!r}") for name in unknowns]
        if len(parts) == 1:
            return parts[0]
        return torch.stack(torch.broadcast_tensors(*parts), dim=-1 - grid.dimension)
    if isinstance(initial, Tensor) and initial.ndim > grid.dimension:
        return initial
    raise InputError(
        f"initial: of several unknowns give a dict by name, or a tensor (*batch, {len(unknowns)}, *{grid.shape})"
    )


def _on_grid(value: Any, system: NonlinearSystem, name: str) -> Tensor:
    grid = system.domain
    field = torch.as_tensor(resolve_field(value, grid, name), dtype=grid.dtype, device=grid.device)
    return field.expand(torch.broadcast_shapes(field.shape, grid.shape))
