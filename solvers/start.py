"""Where a nonlinear solve or an evolution begins, as the caller gave it -> a tensor."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import Tensor

from sciml.boundary import suggestion
from sciml.discretization.inputs import resolve_field
from sciml.elements.values import sample
from sciml.errors import InputError
from sciml.given import check_value
from sciml.grid import Grid
from sciml.mesh import Mesh


class _Unknowns(Protocol):
    """What is known of a system here."""

    @property
    def unknowns(self) -> tuple[str, ...]: ...

    @property
    def domain(self) -> Grid | Mesh | None: ...

    @property
    def axes(self) -> int: ...

    @property
    def space(self) -> tuple[int, ...]: ...


def resolve_start(initial: Any, system: _Unknowns, *, complete: bool) -> Tensor:
    """A start of the shape of the unknowns.

    Args:
        initial: a number, a tensor that broadcasts to `(*batch, *space)`, a function of the coordinates; of several
            unknowns a dict of these by name, or a tensor `(*batch, channel, *space)`.
        complete: whether a dict must hold every unknown; else what is left out is 0.

    Raises:
        InputError: for a wrong name, type, shape, dtype or device, or values that are not finite.
    """
    unknowns = system.unknowns
    if len(unknowns) == 1 and not isinstance(initial, Mapping):
        return _on_domain(initial, system, "initial")
    if isinstance(initial, Mapping):
        for name in initial:
            if name not in unknowns:
                raise InputError(f"initial: {name!r} is not an unknown{suggestion(str(name), unknowns)}")
        missing = [name for name in unknowns if name not in initial]
        if complete and missing:
            raise InputError(f"initial: no value is given for {', '.join(missing)}")
        parts = [_on_domain(initial.get(name, 0.0), system, f"initial of {name!r}") for name in unknowns]
        if len(parts) == 1:
            return parts[0]
        return torch.stack(torch.broadcast_tensors(*parts), dim=-1 - system.axes)
    shape = ", ".join(map(str, system.space))
    if isinstance(initial, Tensor) and initial.ndim > system.axes:
        return _expanded(torch.as_tensor(check_value(initial, _place(system), "initial")), system.space, "initial")
    raise InputError(f"initial: of several unknowns give a dict by name, or a tensor (*batch, {shape})")


def _on_domain(value: Any, system: _Unknowns, name: str) -> Tensor:
    domain, space = system.domain, system.space[len(system.space) - system.axes :]
    if isinstance(domain, Grid):
        number = resolve_field(value, domain, name)
    elif isinstance(domain, Mesh) and callable(value) and not isinstance(value, Tensor):
        number = sample(value, domain.coordinates, domain, name)
    else:
        wanted = (
            "a number or a tensor" if domain is None else "a number, a tensor by point or a function of coordinates"
        )
        number = check_value(value, _place(system), name, wanted=wanted)
    place = _place(system)
    return _expanded(torch.as_tensor(number, dtype=place.dtype, device=place.device), space, name)


def _place(system: _Unknowns) -> Any:
    """What has a dtype and a device: the domain, or the system itself where there is none."""
    return system if system.domain is None else system.domain


def _expanded(field: Tensor, space: tuple[int, ...], name: str) -> Tensor:
    try:
        shape = torch.broadcast_shapes(field.shape, space)
        if shape[len(shape) - len(space) :] != space:
            raise RuntimeError
        return torch.broadcast_to(field, shape)
    except RuntimeError as error:
        wanted = ", ".join(map(str, ("*batch", *space)))
        raise InputError(f"{name} has shape {tuple(field.shape)}, expected ({wanted})") from error
