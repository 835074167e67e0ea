"""Values, derivatives and integrals of a solution that evolves, at all of its times.

What grids and meshes have for one time is asked for time by time, with the boundary conditions of that time; Fourier
series are summed as they are. Results have the axis of time after those of the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from numbers import Integral
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from . import reconstruction
from .discretization import GridEvolution, NonlinearSystem
from .elements.evolving import MeshEvolution
from .errors import InputError
from .evolving import EvolvingSystem
from .exact import Exact, derivative, evaluate
from .grid import Grid
from .mesh import Mesh
from .reconstruction import Faces, Points, sum_of_squares
from .spectral import SpectralSystem, fourier_series

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .solution import Solution

_Channel = Callable[[str, Tensor], Tensor]


def take(solution: Solution, places: Sequence[int]) -> Solution:
    """The solution at some of its times.

    Args:
        places: indices of times; negative ones count from the end.

    Raises:
        InputError: for places that are no whole numbers, none at all, or beyond the times that there are; for a
            solution that does not evolve.
    """
    _, times = _parts(solution)
    count = len(times)
    for place in places:
        if not isinstance(place, Integral) or isinstance(place, bool) or not -count <= place < count:
            raise InputError(f"places: the {count} times have the indices {-count} to {count - 1}, and not {place!r}")
    if not len(places):
        raise InputError("places: give at least one of the solution's times")
    index = torch.tensor([int(place) for place in places], dtype=torch.int64) % count

    def taken(field: Tensor) -> Tensor:
        return field.index_select(solution.codes.ndim, index.to(field.device))

    found = replace(solution, value=taken(solution.value), times=times[index])
    known = {name: field for name, field in solution.fields.items() if name not in solution.unknowns}
    return found.with_constrained({name: taken(field) for name, field in known.items()})


def at(solution: Solution, points: Points) -> Tensor:
    """Values at points; see `Solution.at`."""
    system, _ = _parts(solution)
    if isinstance(mesh := system.domain, Mesh):
        from .elements import reconstruction as linear

        return _by_unknown(solution, lambda _, value: linear.interpolate(value, mesh, points), space=1)
    if isinstance(system, SpectralSystem):
        places = reconstruction.read_points(points, system.domain)
        return _by_unknown(solution, lambda _, value: fourier_series.evaluate(value, system.modes, places), space=1)
    grid = _grid(system)

    def one(name: str, value: Tensor, sides: Faces, walls: Faces) -> Tensor:
        return reconstruction.interpolate(value, grid, points, sides, walls)

    return _on_grid(solution, one, space=1)


def gradient(solution: Solution) -> Tensor:
    """The gradient at the unknowns; see `Solution.gradient`."""
    system, _ = _parts(solution)
    if isinstance(mesh := system.domain, Mesh):
        from .elements import reconstruction as linear

        return _by_unknown(solution, lambda _, value: linear.gradient(value, mesh), space=2)
    grid = _grid(system)
    if isinstance(system, SpectralSystem):
        modes = system.modes
        return _by_unknown(solution, lambda _, value: fourier_series.gradient(value, modes), space=1 + grid.dimension)

    def one(name: str, value: Tensor, sides: Faces, walls: Faces) -> Tensor:
        return reconstruction.gradient(value, grid, sides, walls)

    return _on_grid(solution, one, space=1 + grid.dimension)


def flux(solution: Solution, name: str) -> Tensor:
    """The outward flux through a boundary; see `Solution.flux`."""
    system, _ = _parts(solution)
    if isinstance(system, GridEvolution | MeshEvolution):
        count = len(system.unknowns)
        if isinstance(system, GridEvolution):
            fluxes = [now.flux(whole, name, count) for now, whole in _snapshots(solution, system)]
        else:
            fluxes = [system.flux(u, name, t) for u, t in _moments(solution)]
        batch = tuple(solution.codes.shape)
        channels = () if len(system.unknowns) == 1 else (len(system.unknowns),)
        return _stacked(solution, [amount.expand((*batch, *channels)) for amount in fluxes])
    _grid(system)
    raise InputError(f"there is no boundary {name!r}; the grid has: none, every axis is periodic")


def error(solution: Solution, functions: dict[str, Exact]) -> dict[str, Tensor]:
    """The distance from an exact solution, a function of the coordinates and t; see `Solution.error`."""
    system, times = _parts(solution)
    parts = {name: [] for name in functions}  # type: dict[str, list[Tensor]]
    for place, t in enumerate(times.tolist()):
        for name, value in _channels(solution).items():
            one = value.select(solution.codes.ndim, place)
            parts[name].append(_norms(system, one, _frozen(functions[name], t, name), name))
    dim = solution.codes.ndim
    stacked = [torch.stack(found, dim) for found in parts.values()]
    both = stacked[0] if len(stacked) == 1 else torch.stack(stacked, -2)
    l2, h1 = both.unbind(-1)
    return {"L2": l2, "H1": h1}


def _norms(system: EvolvingSystem, value: Tensor, exact: Exact, name: str) -> Tensor:
    """L2 and H1 norm of the error of one unknown at one time, `(*batch, 2)`."""
    domain = system.domain
    if domain is None:
        difference = (value - torch.as_tensor(exact(), dtype=value.dtype, device=value.device)).abs()
        return torch.stack((difference, difference), -1)
    if isinstance(domain, Mesh):
        from .elements import reconstruction as linear

        return linear.norms(value, domain, exact, name)
    if not isinstance(system, SpectralSystem):
        return reconstruction.norms(value, domain, exact, name)
    plain = sum_of_squares(value - evaluate(exact, domain.coordinates, name), domain)
    slopes = torch.zeros_like(plain)
    own = fourier_series.gradient(value, system.modes)
    for axis, slope in enumerate(own.unbind(-1 - domain.dimension)):
        slopes = slopes + sum_of_squares(slope - derivative(exact, domain.coordinates, axis, name), domain)
    return torch.stack((plain.sqrt(), (plain + slopes).sqrt()), -1)


def _frozen(exact: Exact, t: float, name: str) -> Exact:
    """The exact solution at a time, a function of the coordinates."""

    def at_time(*coordinates: Tensor) -> object:
        like = coordinates[0] if coordinates else torch.zeros((), dtype=torch.float64)
        try:
            return exact(*coordinates, torch.as_tensor(t, dtype=like.dtype, device=like.device))
        except TypeError as failure:
            raise InputError(
                f"exact solution of {name!r}: of an evolution it is a function of the {len(coordinates)} coordinates "
                f"and t, which comes last; it failed with TypeError: {failure}"
            ) from failure

    return at_time


def _on_grid(solution: Solution, one: Callable[[str, Tensor, Faces, Faces], Tensor], space: int) -> Tensor:
    """A function of every unknown with its values on walls, time by time."""
    system, _ = _parts(solution)
    if not isinstance(system, GridEvolution):
        raise _without_space()
    results = []
    for now, whole in _snapshots(solution, system):
        fields = dict(
            zip(now.unknowns, (whole,) if len(now.unknowns) == 1 else whole.unbind(-1 - system.axes), strict=True)
        )
        found = [one(name, fields[name], *_faces(now, name, fields[name], whole)) for name in system.unknowns]
        results.append(found[0] if len(found) == 1 else torch.stack(found, -1 - space))
    return _stacked(solution, results)


def _snapshots(solution: Solution, system: GridEvolution) -> Iterator[tuple[NonlinearSystem, Tensor]]:
    """The equations with the constraints at each time, and all fields in the order of their unknowns."""
    _, times = _parts(solution)
    fields = list(solution.fields.values())
    for place, t in enumerate(times.tolist()):
        here = [field.select(solution.codes.ndim, place) for field in fields]
        yield system.at(t), here[0] if len(here) == 1 else torch.stack(here, -1 - system.axes)


def _faces(now: NonlinearSystem, name: str, value: Tensor, whole: Tensor) -> tuple[Faces, Faces]:
    """Values of one unknown on the sides of the box and on the faces of solid cells.

    Args:
        now: the system at the time.
        value: `(*batch, *grid)`, the unknown.
        whole: `(*batch, *space)`, all unknowns.
    """
    from .discretization.second_order import face_value

    grid, problem = now.domain, now.assembly.problem
    sides, walls = {}, {}
    for wall in problem.walls(name):
        if wall.name == "walls":
            r, s = face_value(problem, name, wall)
            walls[wall.axis, wall.side] = r + s * value
            continue
        face = now.boundary_value(whole, wall.axis, wall.side)
        if len(now.unknowns) > 1:
            face = face.select(-grid.dimension, now.unknowns.index(name))
        sides[wall.axis, wall.side] = face.unsqueeze(wall.axis - grid.dimension)
    return sides, walls


def _moments(solution: Solution) -> Iterator[tuple[Tensor, float]]:
    """`(*batch, *space)` and the time, one after the other."""
    _, times = _parts(solution)
    return zip(solution.value.unbind(solution.codes.ndim), times.tolist(), strict=True)


def _channels(solution: Solution) -> dict[str, Tensor]:
    """Each unknown at all times, `(*batch, time, *grid)`."""
    system, _ = _parts(solution)
    return _split(system, solution.value)


def _split(system: EvolvingSystem, u: Tensor) -> dict[str, Tensor]:
    if len(system.unknowns) == 1:
        return {system.unknowns[0]: u}
    return dict(zip(system.unknowns, u.unbind(-1 - system.axes), strict=True))


def _by_unknown(solution: Solution, one: _Channel, space: int) -> Tensor:
    """The results of a function of each unknown, stacked in an axis before the last `space` ones if several."""
    results = [one(name, value) for name, value in _channels(solution).items()]
    return results[0] if len(results) == 1 else torch.stack(results, -1 - space)


def _stacked(solution: Solution, results: list[Tensor]) -> Tensor:
    return torch.stack(results, solution.codes.ndim)


def _parts(solution: Solution) -> tuple[EvolvingSystem, Tensor]:
    if solution.times is None or not isinstance(solution.system, EvolvingSystem):
        raise InputError("this is for solutions of evolving equations")
    return solution.system, solution.times


def _grid(system: EvolvingSystem) -> Grid:
    if not isinstance(system.domain, Grid):
        raise _without_space()
    return system.domain


def _without_space() -> InputError:
    return InputError(
        "this solution is one of ordinary differential equations, which have no coordinates; its values are in "
        "solution.fields"
    )
