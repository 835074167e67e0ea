"""Where a nonlinear solve begins, as the caller gave it -> a tensor."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from sciml.boundary import suggestion
from sciml.discretization.inputs import resolve_field
from sciml.elements.values import sample
from sciml.errors import InputError
from sciml.given import check_value
from sciml.mesh import Mesh
from sciml.solution import Solution

from .base import AnySystem


def resolve_start(initial: Any, system: AnySystem) -> Tensor | None:
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
    unknowns = system.unknowns
    if len(unknowns) == 1 and not isinstance(initial, Mapping):
        return _on_domain(initial, system, "initial")
    if isinstance(initial, Mapping):
        for name in initial:
            if name not in unknowns:
                raise InputError(f"initial: {name!r} is not an unknown{suggestion(str(name), unknowns)}")
        parts = [_on_domain(initial.get(name, 0.0), system, f"initial of {name!r}") for name in unknowns]
        if len(parts) == 1:
            return parts[0]
        return torch.stack(torch.broadcast_tensors(*parts), dim=-1 - system.axes)
    if isinstance(initial, Tensor) and initial.ndim > system.axes:
        return initial
    shape = ", ".join(map(str, system.space))
    raise InputError(f"initial: of several unknowns give a dict by name, or a tensor (*batch, {shape})")


def _on_domain(value: Any, system: AnySystem, name: str) -> Tensor:
    domain, space = system.domain, system.space[-system.axes :]
    if not isinstance(domain, Mesh):
        number = resolve_field(value, domain, name)
    elif callable(value) and not isinstance(value, Tensor):
        number = sample(value, domain.coordinates, domain, name)
    else:
        number = check_value(value, domain, name, wanted="a number, a tensor by point or a function of the coordinates")
    field = torch.as_tensor(number, dtype=domain.dtype, device=domain.device)
    try:
        return field.expand(torch.broadcast_shapes(field.shape, space))
    except RuntimeError as error:
        raise InputError(
            f"{name} has shape {tuple(field.shape)}, expected (*batch, {', '.join(map(str, space))})"
        ) from error
