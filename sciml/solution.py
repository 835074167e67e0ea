"""What a solve returns."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property, lru_cache
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from . import reconstruction
from .copies import deep_copy
from .errors import InputError
from .evolving import EvolvingSystem
from .exact import Exact, by_unknown
from .grid import Grid
from .mesh import Mesh
from .status import Status

if TYPE_CHECKING:
    from .discretization import NonlinearSystem, System
    from .elements import MeshSystem, NonlinearMeshSystem
    from .equations import Equation

_SHOWN = {"iterations": "{} iterations", "relative_residual": "relative residual {:.1e}", "steps": "{} steps"}


@lru_cache(maxsize=1)
def _versions() -> dict[str, str]:
    try:
        own = version("sciml-torch")
    except PackageNotFoundError:
        own = "unknown"
    return {"sciml": own, "torch": str(torch.__version__), "python": platform.python_version()}


@dataclass
class AdjointRecord:
    """How the adjoint solves of a solution ended.

    Attributes:
        codes: int64 of batch shape, values of `Status`; None before any backward pass.
    """

    codes: Tensor | None = None


@dataclass(frozen=True, eq=False, repr=False)
class Solution:
    """The result of a solve, row by row of the batch, with how it was reached. Registered as a pytree.

    Attributes:
        value: `(*batch, *space)`, with several unknowns `(*batch, channel, *space)` in the order of
            `equation.unknowns`; 0 in solid cells. In the units of the problem.
        codes: int64 of batch shape, values of `Status`.
        statistics: counts and norms as tensors of batch shape ("iterations", "residual_norm", "relative_residual"),
            times as floats in seconds ("seconds_setup", "seconds_solve").
        history: tensors `(steps, *batch)`, "residual_norm" for iterative methods.
        times: of an evolution, `(time,)` in float64, the times of `value`, whose axis of time stands before the space
            (and channels); None of a steady problem.
        events: of an evolution, for each event a dict of "time" `(*batch,)` and "value" `(*batch, *space)`; see
            `sciml.solvers.time.Event`.
        method: what solved it, and why it was chosen.
        notes: what a reader should know of the discretization, a sentence each.
        versions: of the software that made it, by name.
        system: the discretized problem; None for a bare A x = b, which has no equation and no domain.
        adjoint: how the solves of the backward pass ended, filled in by it; None where no gradient is tracked.
    """

    value: Tensor
    codes: Tensor
    statistics: dict[str, Any]
    history: dict[str, Tensor]
    method: str = ""
    notes: tuple[str, ...] = ()
    versions: dict[str, str] = field(default_factory=lambda: dict(_versions()))
    system: System | MeshSystem | NonlinearSystem | NonlinearMeshSystem | EvolvingSystem | None = None
    times: Tensor | None = None
    events: tuple[dict[str, Tensor], ...] = ()
    adjoint: AdjointRecord | None = None

    @property
    def status(self) -> tuple[Status, ...]:
        """One Status a row, in batch order; length 1 without a batch. Made on demand: it waits for the device."""
        return tuple(Status(code) for code in self.codes.reshape(-1).tolist())

    @property
    def adjoint_status(self) -> tuple[Status, ...] | None:
        """One Status a row for the latest backward pass, None before it."""
        if self.adjoint is None or self.adjoint.codes is None:
            return None
        return tuple(Status(code) for code in self.adjoint.codes.reshape(-1).tolist())

    @property
    def converged(self) -> Tensor:
        """Bool tensor of batch shape."""
        return self.codes == Status.CONVERGED

    @property
    def equation(self) -> Equation | None:
        """The equation that was solved; None for a bare A x = b, and for a right-hand side that is a function."""
        return None if self.system is None else self.system.equation

    @property
    def domain(self) -> Grid | Mesh | None:
        """Where it was solved."""
        return None if self.system is None else self.system.domain

    @property
    def unknowns(self) -> tuple[str, ...]:
        """Names of the unknowns; "x" for that of a bare A x = b."""
        return ("x",) if self.system is None else tuple(self.system.unknowns)

    @property
    def fields(self) -> dict[str, Tensor]:
        """Each unknown by name, `(*batch, *space)`, of an evolution `(*batch, time, *space)`, with the fields that its
        constraints determine."""
        return self._channels if self.times is None else {**self._channels, **self._constrained}

    @property
    def _channels(self) -> dict[str, Tensor]:
        """Each unknown alone."""
        if len(self.unknowns) == 1:
            return {self.unknowns[0]: self.value}
        return dict(zip(self.unknowns, self.value.unbind(-1 - self._axes), strict=True))

    @cached_property
    def _constrained(self) -> dict[str, Tensor]:
        """What the constraints of an evolving equation determine, at all times."""
        system, times = self.system, self.times
        if times is None or not isinstance(system, EvolvingSystem):
            return {}
        if self.equation is None or not self.equation.constrained:
            return {}
        dim = self.value.ndim - 1 - len(system.space)
        moments = [system.constrained(u, float(t)) for u, t in zip(self.value.unbind(dim), times, strict=True)]
        return {name: torch.stack([moment[name] for moment in moments], dim) for name in moments[0]}

    def with_constrained(self, known: dict[str, Tensor] | None) -> Solution:
        """The solution, with what is known of the fields that constraints determine."""
        if known:
            vars(self)["_constrained"] = known  # where the cached property keeps them
        return self

    @property
    def _axes(self) -> int:
        """Trailing axes of one unknown's field."""
        if isinstance(self.domain, Mesh):
            return 1
        return 0 if self.domain is None else self.domain.dimension

    def at(self, points: reconstruction.Points) -> Tensor:
        """Values at points, to second order up to the walls.

        Multilinear between the unknowns, and between them and the walls by the boundary conditions; differentiable with
        respect to `value` and `points`. On a mesh, linear in each cell; of a spectral discretization the Fourier series
        itself.

        Args:
            points: `(n, dimension)`, a tensor or nested lists, in the unit of length of the domain; along periodic axes
                they wrap.

        Returns:
            `(*batch, n)`, with several unknowns `(*batch, channel, n)`; of an evolution with the axis of time after
            the batch, as of all that follows.

        Raises:
            InputError: for points of another shape, not finite, outside the domain or inside solid cells; for a
                solution without a domain.
        """
        if self.times is not None:
            from . import trajectories

            return trajectories.at(self, points)
        if isinstance(mesh := self.domain, Mesh):
            from .elements import reconstruction as linear

            return self._by_unknown(lambda _, value: linear.interpolate(value, mesh, points), space=1)
        grid = self._grid()
        return self._by_unknown(
            lambda name, value: reconstruction.interpolate(value, grid, points, *self._faces(name, value)), space=1
        )

    def gradient(self) -> Tensor:
        """The gradient at the unknowns, to second order up to the walls; 0 in solid cells.

        The formulas, and where the order is less: `sciml.reconstruction.gradient`; on a mesh
        `sciml.elements.reconstruction.gradient`, and `cell_gradient` beside it has the gradient of each cell. Of a
        spectral discretization the derivatives of the Fourier series.

        Returns:
            `(*batch, dimension, *space)`, with several unknowns `(*batch, channel, dimension, *space)`.

        Raises:
            InputError: for a solution without a domain.
        """
        if self.times is not None:
            from . import trajectories

            return trajectories.gradient(self)
        if isinstance(mesh := self.domain, Mesh):
            from .elements import reconstruction as linear

            return self._by_unknown(lambda _, value: linear.gradient(value, mesh), space=2)
        grid = self._grid()
        return self._by_unknown(
            lambda name, value: reconstruction.gradient(value, grid, *self._faces(name, value)),
            space=1 + grid.dimension,
        )

    def flux(self, name: str) -> Tensor:
        """The total outward flux through a boundary, of shape batch, by the face formula of the discretization itself.

        Args:
            name: one of `domain.boundaries`: "x_lower", ..., "walls"; on a mesh, what it calls them.

        Raises:
            InputError: for another name; for a solution without a domain.
        """
        if self.system is None:
            raise _without_domain()
        if self.times is not None or isinstance(self.system, EvolvingSystem):
            from . import trajectories

            return trajectories.flux(self, name)
        return self.system.flux(self.value, name)

    def integral(self, region: Tensor | Callable[..., Tensor] | str | None = None) -> Tensor:
        """The integral over the fluid, by the midpoint rule (second order); on a mesh that of the linear function.

        Args:
            region: where to integrate: None for everywhere, a bool tensor of the grid's shape, or a function of the
                coordinates that returns one; on a mesh, None or the name of a region.

        Returns:
            batch shape, with several unknowns `(*batch, channel)`.

        Raises:
            InputError: for a region that is no bool mask of the grid's shape, or that the mesh does not have; for a
                solution without a domain.
        """
        if isinstance(mesh := self.domain, Mesh):
            from .elements import reconstruction as linear

            name = region
            return self._by_unknown(lambda _, value: linear.integral(value, mesh, name), space=0)
        grid = self._grid()
        mask = region(*grid.coordinates) if callable(region) and not isinstance(region, Tensor) else region
        value = self.value
        if mask is not None:
            if not isinstance(mask, Tensor) or mask.dtype != torch.bool or tuple(mask.shape) != grid.shape:
                kind = f"{mask.dtype} of shape {tuple(mask.shape)}" if isinstance(mask, Tensor) else type(mask).__name__
                raise InputError(f"region: expected a bool tensor of the grid's shape {grid.shape}, got {kind}")
            value = torch.where(mask.to(value.device), value, 0.0)
        return value.flatten(-grid.dimension).sum(-1) * grid.cell_volume

    def error(self, exact: Exact | Mapping[str, Exact]) -> dict[str, Tensor]:
        """The distance from an exact solution, in two norms over the fluid; absolute, not relative.

        L2: the root of the sum of (u - exact)^2 h^d over the unknowns. H1: the root of L2^2 plus the sum, over the
        faces between two unknowns along each axis, of (difference quotient - d exact/dx at the face)^2 h^d; the
        derivative of `exact` is taken by automatic differentiation. Faces on walls are left out. On a mesh, the norms
        of the linear function minus `exact` by quadrature of degree 5. Of a spectral discretization sums over the
        unknowns with the exact derivatives of the series; without a domain both are |u - exact|.

        Args:
            exact: a function of the coordinates, of an evolution with t after them, made of torch operations that
                returns values which broadcast to `(*batch, *space)`; with several unknowns a dict of them by name.

        Returns:
            "L2" and "H1", each of batch shape, with several unknowns `(*batch, channel)`.

        Raises:
            InputError: for an `exact` that does not fit; for a solution without a domain.
        """
        functions = by_unknown(exact, self.unknowns)
        if self.times is not None:
            from . import trajectories

            return trajectories.error(self, functions)
        if isinstance(mesh := self.domain, Mesh):
            from .elements import reconstruction as linear

            l2, h1 = self._by_unknown(lambda n, v: linear.norms(v, mesh, functions[n], n), space=1).unbind(-1)
            return {"L2": l2, "H1": h1}
        grid = self._grid()
        found = self._by_unknown(lambda n, v: reconstruction.norms(v, grid, functions[n], n), space=1)
        l2, h1 = found.unbind(-1)
        return {"L2": l2, "H1": h1}

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write an HDF5 file in the layout of The Well, whole or not at all; see `sciml.storage` for what it holds.

        On a mesh it holds that mesh with its names. `sciml.paraview.write` makes files for ParaView.

        Raises:
            InputError: the solution has no domain, or the path cannot become a file.
            OSError: the disk is full or not writable; what stood at `path` is unharmed.
        """
        from . import storage

        storage.save(self, path)

    @classmethod
    def load(cls, path: str | os.PathLike[str], device: torch.device | str = "cpu") -> Solution:
        """Read what `save` wrote, bit for bit.

        Raises:
            InputError: the file is missing, cut short, damaged, of a newer version or of another kind.
        """
        from . import storage

        parts = storage.load(path, device)
        constrained = parts.pop("constrained")
        return cls(**parts).with_constrained(constrained)

    def plot(self, path: str | os.PathLike[str], *, history: bool = False) -> None:
        """Draw the solution into a .png, .pdf or .svg file; with `history` the convergence beside it.

        Of an evolution see `sciml.pictures_of_evolutions.draw`; into a .gif file, or .mp4 where ffmpeg is found, it
        becomes an animation.

        Raises:
            InputError: the solution has no domain, or the path cannot become a picture.
            OSError: the disk is full or not writable; what stood at `path` is unharmed.
        """
        if self.times is not None:
            from . import animations, pictures, pictures_of_evolutions

            if animations.is_meant(path):
                animations.write(self, path)
            else:
                pictures.write(pictures_of_evolutions.draw(self), path)
            return
        from . import pictures, pictures_of_meshes

        draw = pictures_of_meshes.draw_solution if isinstance(self.domain, Mesh) else pictures.draw
        pictures.write(draw(self, history=history), path)

    def __deepcopy__(self, memo: dict[int, Any]) -> Solution:
        parts = deep_copy(vars(self), memo, "the solution")
        known = parts.pop("_constrained", None)
        return Solution(**parts).with_constrained(known)

    def __repr__(self) -> str:
        if self.system is None:
            what = f"A x = b with {tuple(self.value.shape)} unknowns"
        else:
            what = f"{self.equation or getattr(self.system, 'text', '')} for {', '.join(self.unknowns)}"
            if self._axes:
                what += f" on {' x '.join(map(str, self.value.shape[-self._axes :]))} unknowns"
            if self.times is not None:
                what += f" at {len(self.times)} times from {float(self.times[0]):g} to {float(self.times[-1]):g}"
        rows = self.codes.numel()
        batch = f", {rows} rows" if self.codes.dim() else ""
        parts = [f"Solution of {what}{batch} ({self.value.dtype}, {self.value.device}), {self._outcome()}"]
        if self.method:
            parts.append(f"by {self.method}")
        return " ".join(parts)

    def _outcome(self) -> str:
        """How it ended, in a few words; with advice for the rows that failed."""
        status = self.status
        shown = {key: torch.as_tensor(item) for key, item in self.statistics.items() if key in _SHOWN}
        worst = {key: item.max().item() for key, item in shown.items() if item.numel()}
        words = [_SHOWN[key].format(number) for key, number in worst.items()]
        numbers = f" ({'at most ' if len(status) > 1 else ''}{', '.join(words)})" if words else ""
        failed = [index for index, row in enumerate(status) if row]
        if not failed:
            return f"{'converged' if self.times is None else 'evolved'}{numbers}"
        names = [f"row {index} {status[index].name}" if len(status) > 1 else status[index].name for index in failed]
        more = [f"{len(failed) - 3} more"] if len(failed) > 3 else []
        outcome = "not converged" if self.times is None else "failed"
        first = status[failed[0]]
        advice = first.advice if self.times is None else first.advice_in_time
        return f"{outcome}: {', '.join(names[:3] + more)}{numbers}; {advice}"

    def _grid(self) -> Grid:
        if self.domain is None:
            raise _without_domain() if self.system is None else _without_space()
        if isinstance(self.domain, Mesh):
            raise InputError("this is for solutions on a grid, and the solution is one on a mesh")
        return self.domain

    def _by_unknown(self, function: Callable[[str, Tensor], Tensor], space: int) -> Tensor:
        """The results of a function of each unknown, stacked in an axis before the last `space` ones if several."""
        results = [function(name, value) for name, value in self._channels.items()]
        return results[0] if len(results) == 1 else torch.stack(results, -1 - space)

    def _faces(self, unknown: str, value: Tensor) -> tuple[reconstruction.Faces, reconstruction.Faces]:
        """Values of one unknown on the sides of the box and on the faces of solid cells, by the discretization."""
        from .discretization.second_order import face_value

        if self.system is None or isinstance(self.system, EvolvingSystem) or isinstance(self.system.domain, Mesh):
            raise _without_domain()
        grid, problem = self.system.domain, self.system.assembly.problem
        sides, walls = {}, {}
        for wall in problem.walls(unknown):
            if wall.name == "walls":
                r, s = face_value(problem, unknown, wall)
                walls[wall.axis, wall.side] = r + s * value
            else:
                face = self.system.boundary_value(self.value, wall.axis, wall.side)
                if len(self.unknowns) > 1:
                    face = face.select(-grid.dimension, self.unknowns.index(unknown))
                sides[wall.axis, wall.side] = face.unsqueeze(wall.axis - grid.dimension)
        return sides, walls


def _without_domain() -> InputError:
    return InputError(
        "this solution belongs to a bare operator, without equation and domain; sciml.solve gives one with them"
    )


def _without_space() -> InputError:
    return InputError(
        "this solution is one of ordinary differential equations, which have no coordinates; its values are in "
        "solution.fields"
    )


_TENSORS = ("value", "codes", "statistics", "history", "events")
_REST = tuple(f.name for f in fields(Solution) if f.name not in _TENSORS)


class _Rest:
    """What is no tensor of the solution; texts are compared by value, objects that hold tensors by identity."""

    def __init__(self, solution: Solution) -> None:
        self.parts = {name: getattr(solution, name) for name in _REST}

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, _Rest):
            return NotImplemented
        texts = all(self.parts[name] == other.parts[name] for name in ("method", "notes", "versions"))
        return texts and all(self.parts[name] is other.parts[name] for name in ("system", "times", "adjoint"))

    __hash__ = None  # type: ignore[assignment]


pytree.register_pytree_node(
    Solution,
    lambda solution: ([getattr(solution, name) for name in _TENSORS], _Rest(solution)),
    lambda tensors, rest: Solution(**dict(zip(_TENSORS, tensors, strict=True)), **rest.parts),
    serialized_type_name="sciml.Solution",
)
