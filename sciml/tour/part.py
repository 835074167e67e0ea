"""Section: a part from a mesh file, with names for its boundaries and regions."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator, StrMethodFormatter
from torch import Tensor

from sciml.solvers.solve import solve

from ..benchmarks.geometry.meshes import unstructured
from ..boundary import Dirichlet, Neumann, Robin
from ..equations import Equation
from ..mesh import Mesh
from ..solution import Solution
from . import figures
from .chapter import Chapter, Section, mesh_system_of
from .convergence import slope
from .mesh_figures import field_figure, mesh_figure, surface_figure
from .shapes import make_link, thicken

THICKNESS = 0.012
SIZES = {2: (16, 32, 64), 3: (5, 10, 20)}
LARGER = {2: (16, 32, 64, 128), 3: (6, 12, 24)}
KINDS = {2: "triangles", 3: "tetrahedra"}


def solve_part(path: Path) -> Solution:
    """Metres, degrees Celsius; in the plane for a part one metre thick."""
    part = Mesh.read(path)
    equation = Equation("div(k*grad(T)) = 0", unknowns=["T"])
    conductivity = {"steel": 15.0, "bush": 60.0}
    friction, held, air = Neumann(20e3), Dirichlet(40.0), Robin(50.0, 50.0 * 20.0)
    sides = {"shaft": friction, "pin": held, "rest": air}
    return solve(equation, part, fields={"k": conductivity}, boundary=sides)


def exact(x: Tensor, *others: Tensor) -> Tensor:
    return torch.exp(x) * torch.cos(2 * torch.stack(others).sum(0))


def solve_known(mesh: Mesh) -> Solution:
    f = {2: 3.0, 3: 7.0}[mesh.dimension]  # -laplacian(u) = f u
    sides = {
        "x_upper": Neumann(exact),  # du/dx = u
        "x_lower": Robin(2.0, exact),  # -du/dx + 2 u = u
        "rest": Dirichlet(exact),
    }
    equation = Equation("-laplacian(u) = f")
    source = {"f": lambda *x: f * exact(*x)}
    return solve(equation, mesh, fields=source, boundary=sides, rtol=1e-11)


def make_square(cells: int) -> Mesh:
    """The Delaunay mesh of points at random, more or less, over the unit square."""
    points = unstructured((cells, cells), seed=cells).points
    sides = {"x_lower": lambda x, y: x == 0, "x_upper": lambda x, y: x == 1}
    return Mesh.delaunay(points).with_boundaries(sides)


def write(chapter: Chapter, quick: bool) -> None:
    size = 0.003 if quick else 0.002
    _write_part(chapter, size)
    _write_body(chapter, size, 4 if quick else 6)
    _write_orders(chapter, quick)
    numbers = chapter.numbers
    worst = max(abs(numbers["orders"][name]["L2"] - 2) for name in KINDS.values())
    chapter.headline = (
        f"{numbers['triangles']:,} triangles, heat balance {numbers['imbalance']:.0e}; orders within {worst:.2f} of 2"
    )


def _write_part(chapter: Chapter, size: float) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file, kept = Path(folder) / "link.msh", Path(folder) / "link.h5"
        make_link(size).write(file)
        solution = solve_part(file)
        solution.save(kept)
        again = Solution.load(kept)
    system = mesh_system_of(solution)
    part = system.domain
    quality = part.quality()
    names = [name for name in part.boundaries if name != "exterior"]
    heat = {name: float(solution.flux(name)) for name in names}
    imbalance = abs(sum(heat.values())) / heat["shaft"]
    same = torch.equal(again.value, solution.value) and heat == {name: float(again.flux(name)) for name in names}
    area = float(part.volumes[part.region("bush")].sum())

    chapter.say(
        "A steel link, 14 cm long, with a bronze bush around its larger bore. A shaft turns in it and heats the bush "
        "by friction, 20 kilowatts per square metre; a pin in the smaller bore is held at 40 degrees, and the rim is "
        "cooled by air of 20 degrees. The part comes from a mesh file, and its boundaries and regions have the names "
        "that they have there: conditions are given by boundary, conductivities by region. `sciml` reads what meshio "
        "reads; this file was made by `Mesh.delaunay` from points, and written in the format of Gmsh."
    )
    chapter.equation(system.equation)
    chapter.code(solve_part)
    chapter.pictures(
        f"The mesh as read, with its names, and the temperature in degrees Celsius with isotherms; lengths in metres. "
        f"What the solution says of itself: {'; '.join(solution.notes)}; {solution.method}.",
        (
            mesh_figure(part, {"bush": figures.SOLID}, figures.HALF),
            "triangles of a link with two bores; the ring around the larger one is filled",
        ),
        (
            field_figure(part, solution.value, figures.HALF, colours="plasma", contours=14),
            "map of the temperature: hot around the larger bore, cool at the pin",
        ),
    )
    chapter.facts(
        {
            "triangles": f"{quality.cells:,}",
            "angles": f"{quality.smallest_angle:.0f}° to {quality.largest_angle:.0f}°",
            "radius ratio (1 is regular)": f"{quality.smallest_radius_ratio:.2f}, mean {quality.mean_radius_ratio:.2f}",
            "heat from the shaft": f"{heat['shaft']:.1f} W/m",
            "to the pin": f"{-heat['pin']:.1f} W/m",
            "to the air": f"{-heat['rim']:.1f} W/m",
            "hottest": f"{float(solution.value.max()):.1f} °C",
            "mean of the bush": f"{float(solution.integral('bush')) / area:.1f} °C",
        }
    )
    chapter.claim(
        f"What the shaft gives, {heat['shaft']:.9f} watts per metre of thickness, leaves by pin and rim, "
        f"{-heat['pin'] - heat['rim']:.9f}: relative difference {imbalance:.1e}. `solution.flux(name)` is consistent "
        "with the finite elements, and not a difference quotient at the boundary.",
        imbalance <= 1e-10,
    )
    chapter.claim(
        "Saved as HDF5 and loaded again the solution has the same values and the same fluxes, to the last bit.", same
    )
    chapter.numbers |= {
        "triangles": quality.cells,
        "smallest_angle": quality.smallest_angle,
        "smallest_radius_ratio": quality.smallest_radius_ratio,
        "heat": heat,
        "imbalance": imbalance,
        "hottest": float(solution.value.max()),
        "coldest": float(solution.value.min()),
        "stored_alike": same,
    }


def _write_body(chapter: Chapter, size: float, layers: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "body.msh"
        thicken(make_link(size), THICKNESS, layers).write(file)
        solution = solve_part(file)
    body = mesh_system_of(solution).domain
    quality = body.quality()
    heat = {name: float(solution.flux(name)) for name in body.boundaries if name != "exterior"}
    imbalance = abs(sum(heat.values())) / heat["shaft"]

    chapter.say(
        "The same in space: a file with the link 12 mm thick, in tetrahedra, solved by the same function, unchanged. "
        "Its two faces are cooled by the air too, so much that now the pin gives heat and takes none."
    )
    chapter.pictures(
        f"The temperature on the surface of {quality.cells:,} tetrahedra, with dihedral angles from "
        f"{quality.smallest_angle:.0f} to {quality.largest_angle:.0f} degrees. {solution.method[0].upper()}"
        f"{solution.method[1:]}, {int(solution.statistics['iterations'])} iterations.",
        (
            surface_figure(body, solution.value, figures.HALF, title="T", colours="plasma"),
            "a link in perspective, hot around its larger bore",
        ),
    )
    chapter.claim(
        f"What enters by shaft and pin, {heat['shaft']:.4f} and {heat['pin']:.4f} watts, leaves by rim and faces, "
        f"{-heat['rim']:.4f} and {-heat['faces']:.4f}: relative difference {imbalance:.1e}.",
        imbalance <= 1e-6,
    )
    chapter.numbers |= {
        "body": {
            "tetrahedra": quality.cells,
            "heat": heat,
            "imbalance": imbalance,
            "hottest": float(solution.value.max()),
        }
    }


def _write_orders(chapter: Chapter, quick: bool) -> None:
    makers = {2: make_square, 3: lambda n: unstructured((n, n, n), seed=n)}
    counts: dict[int, list[int]] = {}
    errors: dict[int, dict[str, list[float]]] = {}
    for dimension, sizes in SIZES.items():
        counts[dimension], errors[dimension] = [], {"L2": [], "H1": []}
        for n in sizes if quick else LARGER[dimension]:
            mesh = makers[dimension](n)
            counts[dimension].append(len(mesh.cells))
            for norm, value in solve_known(mesh).error(exact).items():
                errors[dimension][norm].append(float(value))
    orders = {
        KINDS[d]: {norm: slope([n ** (1 / d) for n in counts[d]], found) for norm, found in errors[d].items()}
        for d in errors
    }

    chapter.say(
        "How fast does the error fall? For a solution that is known, u = exp(x) cos(2y) in the plane and exp(x) cos(2y "
        "+ 2z) in space, on the unit square and cube, with a Neumann, a Robin and Dirichlet sides. The triangles are "
        "the Delaunay mesh of points near those of a lattice, each moved at random, and drawn anew at every size; the "
        "tetrahedra are those of a regular mesh whose points were moved in the same way."
    )
    chapter.code(exact, solve_known)
    chapter.pictures(
        "Error in L2 and in H1, which counts the gradient too, against the number of cells; the dashed lines fall with "
        "the powers 2 and 1 of the size of a cell.",
        *(
            (_diagram(counts[d], errors[d], orders[KINDS[d]], d), f"straight lines of errors on {KINDS[d]}")
            for d in errors
        ),
    )
    for kind, reached in orders.items():
        chapter.claim(
            f"On unstructured {kind} the order is {reached['L2']:.2f} in L2 and {reached['H1']:.2f} in H1, between the "
            "two finest meshes.",
            abs(reached["L2"] - 2) <= 0.1 and abs(reached["H1"] - 1) <= 0.1,
        )
    chapter.numbers |= {
        "cells": {KINDS[d]: found for d, found in counts.items()},
        "errors": {KINDS[d]: found for d, found in errors.items()},
        "orders": orders,
    }


def _diagram(
    counts: Sequence[int], errors: dict[str, list[float]], measured: dict[str, float], dimension: int
) -> Figure:
    with figures.style():
        figure, axes = figures.panel(figures.HALF, 3.0)
        for colour, order, (norm, found) in zip(figures.LINES, (2, 1), errors.items(), strict=False):
            beside = [0.6 * found[0] * (counts[0] / n) ** (order / dimension) for n in counts]
            axes.loglog(counts, beside, color=figures.SOFT, linewidth=0.8, linestyle=(0, (4, 3)))
            label = f"{norm}, measured order {measured[norm]:.2f}"
            axes.loglog(counts, found, color=colour, marker="o", markersize=4, label=label)
        axes.xaxis.set_major_locator(FixedLocator(list(counts)))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
        axes.set_xlabel(f"{KINDS[dimension]}")
        axes.set_ylabel("error")
        axes.legend(loc="lower left")
        figures.tidy(axes)
        return figure


SECTION = Section("part", "A part from a mesh file", write)
