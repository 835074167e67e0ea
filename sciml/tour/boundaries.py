"""Section: every kind of boundary condition, a pure Neumann problem among them."""

from __future__ import annotations

import torch
from torch import Tensor

from sciml.solvers.solve import solve

from ..boundary import Dirichlet, Neumann, Periodic, Robin
from ..equations import Equation
from ..errors import InputError
from ..grid import Grid
from ..solution import Solution
from . import figures
from .chapter import Chapter, Section, system_of

SQUARE = 4.0


def wells(x: Tensor, y: Tensor) -> Tensor:
    injection = torch.exp(-((x - 0.3) ** 2 + (y - 0.3) ** 2) / 0.004)
    production = torch.exp(-((x - 0.7) ** 2 + (y - 0.65) ** 2) / 0.004)
    return 100 * (injection - production)


def solve_closed_box(cells: int, f: object) -> Solution:
    box = Grid((cells, cells), boundary=Neumann(0.0))
    return solve(Equation("-laplacian(u) = f"), box, fields={"f": f})


def solve_floor(shape: tuple[int, int]) -> Solution:
    """A metre is the unit of length; temperatures in degrees Celsius."""
    air, ground, water = Robin(10.0, 10.0 * 20.0), Dirichlet(12.0), Dirichlet(38.0)
    sides = {"x": Periodic(), "y": (ground, air)}
    floor = Grid(shape, upper=(0.6, 0.2), boundary=sides)
    x, y = floor.coordinates
    pipes = ((x + 0.075) % 0.15 - 0.075) ** 2 + (y - 0.12) ** 2 < 0.012**2
    floor = Grid(shape, upper=(0.6, 0.2), boundary=sides, solid=pipes, walls=water)
    concrete, insulation = torch.full_like(y, 1.4), y < 0.08
    conductivity = concrete.masked_fill(insulation, 0.04)
    equation = Equation("div(k*grad(T)) = 0", unknowns=["T"])
    return solve(equation, floor, fields={"k": conductivity}, rtol=1e-11)


def write(chapter: Chapter, quick: bool) -> None:
    _write_neumann(chapter, 96 if quick else 256)
    _write_floor(chapter, (240, 80) if quick else (600, 200))
    chapter.headline = (
        f"mean of a pure Neumann solution {chapter.numbers['neumann_mean']:.0e}, heat balance of a floor "
        f"{chapter.numbers['floor_imbalance']:.0e}"
    )


def _write_neumann(chapter: Chapter, cells: int) -> None:
    solution = solve_closed_box(cells, wells)
    system = system_of(solution)
    box = system.domain
    try:
        solve_closed_box(cells, 1.0)
    except InputError as error:
        refusal = str(error)
    else:
        refusal = ""
    mean = float(solution.value.mean().abs() / solution.value.abs().max())
    residual = float(solution.statistics["relative_residual"])

    chapter.say(
        "A closed box: fluid is injected at one place and withdrawn at another, and nothing passes through the sides "
        "(Neumann conditions all around). The solution is determined up to a constant only; `sciml` knows the kernel "
        "of the operator, and solves in the space of zero mean."
    )
    chapter.equation(system.equation)
    chapter.code(wells, solve_closed_box)
    chapter.pictures(
        f"The source and the solution on {cells} x {cells} cells. What the solution notes about itself: "
        f"{'; '.join(solution.notes)}.",
        (
            figures.map_figure(box, wells(*box.coordinates), SQUARE, title="f", colours="RdBu_r", centred=True),
            "map of the source: a positive and a negative spot",
        ),
        (
            figures.map_figure(box, solution.value, SQUARE, title="u", colours="RdBu_r", centred=True, contours=16),
            "map of the solution, high around the injection and low around the withdrawal",
        ),
    )
    chapter.say(f"A source that does not balance has no solution, and is refused. With f = 1 the answer is: {refusal}.")
    chapter.claim(f"The mean of the solution is zero: {mean:.1e} of its largest value.", mean <= 1e-12)
    chapter.claim(f"The true residual is {residual:.1e} of the right side.", residual <= 1e-8)
    chapter.claim("The source that does not balance was refused.", bool(refusal))
    chapter.numbers |= {
        "neumann_mean": mean,
        "neumann_residual": residual,
        "neumann_iterations": int(solution.statistics["iterations"]),
        "refusal": refusal,
    }


def _write_floor(chapter: Chapter, shape: tuple[int, int]) -> None:
    solution = solve_floor(shape)
    system = system_of(solution)
    floor = system.domain
    given = float(solution.flux("walls"))
    up, down = -float(solution.flux("y_upper")), -float(solution.flux("y_lower"))
    imbalance = abs(given - up - down) / given
    surface = system.boundary_value(solution.value, 1, 1)

    chapter.say(
        "Conditions of every kind in one problem: a heated floor in cross-section, 60 cm wide and 20 cm high. Pipes "
        "with water of 38 degrees (Dirichlet, on voxels) lie in concrete, over insulation that conducts 35 times less; "
        "the ground below has 12 degrees (Dirichlet), the air above 20 degrees and a coefficient of heat transfer of "
        "10 watts per square metre and degree (Robin), and to the left and right the floor goes on (periodic)."
    )
    chapter.equation(system.equation)
    chapter.code(solve_floor)
    chapter.pictures(
        f"Temperature in degrees Celsius on {shape[0]} x {shape[1]} cells, with isotherms; the four pipes are grey.",
        (
            figures.map_figure(floor, solution.value, figures.WHOLE, colours="inferno", contours=18),
            "map of the temperature, warm around four pipes, cold below the insulation",
        ),
    )
    heat = "watts per metre of pipe length"
    chapter.facts(
        {
            "given by the pipes": f"{given:.2f} W/m",
            "to the room": f"{up:.2f} W/m",
            "to the ground": f"{down:.2f} W/m",
            "lost to the ground": f"{down / given:.1%}",
            "surface of the floor": f"{float(surface.min()):.2f} to {float(surface.max()):.2f} °C",
            "iterations": str(int(solution.statistics["iterations"])),
        }
    )
    chapter.claim(
        f"The heat that the pipes give, {given:.9f} {heat}, is what room and ground receive, {up + down:.9f}: relative "
        f"difference {imbalance:.1e}.",
        imbalance <= 1e-9,
    )
    chapter.numbers |= {"floor_imbalance": imbalance, "floor_heat": given, "floor_loss": down / given}


SECTION = Section("boundaries", "Boundary conditions of every kind", write)
