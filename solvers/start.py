"""Where a nonlinear solve or an evolution begins, as the caller gave it -> a tensor."""

from __future__ import annotations

from collections.abc import Mapping
from math import isclose
from typing import Any, Protocol

import torch
from torch import Tensor

from sciml.boundary import suggestion
from sciml.discretization.inputs import resolve_field
from sciml.elements.values import sample
from sciml.errors import InputError
from sciml.evolving import EvolvingSystem
from sciml.given import check_value
from sciml.grid import Grid
from sciml.mesh import Mesh
from sciml.solution import Solution
from sciml.status import Status

_ROUNDINGS = 16  # of a time, by which the end of one run and the start of the next may differ


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


def guess(initial: Any, unknowns: tuple[str, ...]) -> Any:
    """What a steady solve begins with: of an earlier solution the value, of an evolution that at its last time, with
    the channels in the order of these unknowns if it has the same; anything else as it is."""
    if not isinstance(initial, Solution):
        return initial
    batch = initial.codes.ndim
    value = initial.value if initial.times is None else initial.value.select(batch, -1)
    before = initial.unknowns
    if before != unknowns and sorted(before) == sorted(unknowns):
        value = value.index_select(batch, _order(before, unknowns, value))
    return value.detach()


def continued(solution: Solution, system: EvolvingSystem, start: float) -> tuple[Tensor, Tensor]:
    """Where an evolution begins that goes on from an earlier one.

    Rows that had failed stay failed. A row that had stopped at an event goes on from there, if that is the first time.

    Args:
        solution: of an evolving equation: the earlier one.
        system: what is to evolve: of the same unknowns, in whatever order, on the same domain. All else may differ.
        start: its first time, which must be that at which the rows ended, to rounding.

    Returns:
        the field `(*batch, *space)`, its channels in the order of the system's unknowns, differentiable with respect to
        the solution; and `(*batch)` int64, the codes of rows that had failed, 0 of the others. In rows that had failed
        stands a copy of one that had not.

    Raises:
        InputError: for a solution that does not evolve, of other unknowns or on another domain, that ended at another
            time, or none of whose rows is left; for values of another dtype, on another device, or not finite.
    """
    before, times = solution.system, solution.times
    if times is None or not isinstance(before, EvolvingSystem):
        raise InputError("initial: the given solution is that of a steady equation and has no time to go on from")
    _check_same_place(before, system)
    failed = solution.codes != Status.CONVERGED
    _check_end(solution, times.detach().to("cpu", torch.float64), failed, start)
    batch = failed.ndim
    field = solution.value.select(batch, -1)
    if system.unknowns != before.unknowns:
        field = field.index_select(batch, _order(before.unknowns, system.unknowns, field))
    if bool(failed.any()):
        alive = int((~failed).reshape(-1).to(torch.int64).argmax())
        instead = field.detach().reshape(-1, *system.space)[alive]
        field = torch.where(failed.reshape(*failed.shape, *[1] * len(system.space)), instead, field)
    return torch.as_tensor(check_value(field, _place(system), "initial")), solution.codes.to(torch.int64)


def _order(before: tuple[str, ...], now: tuple[str, ...], like: Tensor) -> Tensor:
    return torch.tensor([before.index(name) for name in now], device=like.device)


def _check_same_place(before: EvolvingSystem, system: EvolvingSystem) -> None:
    """Refuse to go on with other unknowns, or on another domain."""
    if sorted(before.unknowns) != sorted(system.unknowns):
        old, new = ", ".join(before.unknowns), ", ".join(system.unknowns)
        raise InputError(
            f"initial: the given solution is one for {old}, and the equation one for {new}; give a dict by name, of "
            "values such as solution.fields[name] at the last time"
        )
    difference = _difference(before.domain, system.domain)
    if not difference and before.space != system.space:
        difference = f"its states have shape {before.space}, not {system.space}"
    if difference:
        raise InputError(
            f"initial: the given solution is one on another domain: {difference}; give the values on the new one, for "
            "example from solution.at(points)"
        )


def _difference(old: Grid | Mesh | None, new: Grid | Mesh | None) -> str:
    """In which way the unknowns stand elsewhere, nothing if they do not; conditions on the boundary may differ."""
    if old is new:
        return ""
    if isinstance(old, Grid) and isinstance(new, Grid):
        for name in ("shape", "periodic"):
            one, other = getattr(old, name), getattr(new, name)
            if one != other:
                return f"{name} {one}, not {other}"
        corners = (*zip(old.lower, new.lower, strict=True), *zip(old.upper, new.upper, strict=True))
        if not all(isclose(a, b, rel_tol=1e-12, abs_tol=1e-9 * min(new.spacing)) for a, b in corners):
            return f"a box from {old.lower} to {old.upper}, not from {new.lower} to {new.upper}"
        return "" if _equal(old.solid, new.solid) else "other cells are solid"
    if isinstance(old, Mesh) and isinstance(new, Mesh):
        if _equal(old.cells, new.cells) and _equal(old.points.detach(), new.points.detach()):
            return ""
        sizes = [f"{len(mesh.points)} points and {len(mesh.cells)} cells" for mesh in (old, new)]
        return "a mesh with other points or cells" if sizes[0] == sizes[1] else f"{sizes[0]}, not {sizes[1]}"
    one, other = ("none" if domain is None else f"a {type(domain).__name__}" for domain in (old, new))
    return f"{one}, not {other}"


def _equal(one: Tensor | None, other: Tensor | None) -> bool:
    if one is None or other is None:
        return one is other
    return torch.equal(one.cpu(), other.to("cpu", one.dtype))


def _check_end(solution: Solution, times: Tensor, failed: Tensor, start: float) -> None:
    """Refuse another time than that at which the rows ended that have not failed."""
    if failed.numel() and bool(failed.all()):
        codes = sorted({status.name for status in solution.status})
        raise InputError(
            f"initial: {'every row of ' if failed.ndim else ''}the given solution has failed ({', '.join(codes)}): "
            "there is nothing to go on from. Give its values before that, as a tensor"
        )
    last = float(times[-1])
    stopped = solution.statistics.get("stopped_at")
    ends = torch.full(failed.shape, last, dtype=torch.float64)
    if isinstance(stopped, Tensor):
        stopped = stopped.detach().to("cpu", torch.float64)
        ends = torch.where(stopped <= last, stopped, ends)
    interval = last - float(times[-2]) if len(times) > 1 else 0.0
    rounding = _ROUNDINGS * torch.finfo(torch.float64).eps * max(abs(last), abs(start), interval)
    wrong = (~failed.cpu() & ~((ends - start).abs() <= rounding)).reshape(-1).nonzero().reshape(-1)
    if not len(wrong):
        return
    row = int(wrong[0])
    end = float(ends.reshape(-1)[row])
    if isinstance(stopped, Tensor) and float(stopped.reshape(-1)[row]) <= last:
        name = f"row {row} of the given solution" if failed.ndim else "the given solution"
        raise InputError(
            f"initial: {name} stopped at an event at time {end}, and times begins at {start}: go on with rows that "
            "ended at the same time, giving their values as a tensor"
        )
    raise InputError(f"initial: the given solution ends at time {end}, and times begins at {start}")


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
