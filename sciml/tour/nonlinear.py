"""Section: a nonlinear equation by Newton's method, the gradient of its solution, and the end of a branch."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from matplotlib.figure import Figure
from torch import Tensor

from sciml.solvers.nonlinear import Continuation, Newton, Picard
from sciml.solvers.nonlinear.base import NonlinearSolver
from sciml.solvers.solve import solve

from ..benchmarks.geometry.meshes import unstructured
from ..boundary import Dirichlet, Neumann
from ..equations import Equation
from ..grid import Grid
from ..mesh import Mesh
from ..solution import Solution
from . import figures
from .chapter import Chapter, Section, grid_of

Method = NonlinearSolver | Continuation | None

SENSOR = (1.1, 0.25)
FOLD = 6.808124423
"""The largest lambda for which Bratu's equation on the unit square has a solution: A. Mohsen, Comput. Math. Appl. 67
(2014) 26-33."""


def burner(x: Tensor, y: Tensor) -> Tensor:
    return 300.0 * torch.exp(-((x - 0.5) ** 2 + (y - 0.6) ** 2) / 0.02)


def solve_plate(f: Tensor, method: NonlinearSolver) -> Solution:
    """0 on the left, 2 on the right, insulated below and above."""
    equation = Equation("-div((1 + u**2)*grad(u)) = f")
    sides = {"x": (Dirichlet(0.0), Dirichlet(2.0)), "y": Neumann(0.0)}
    plate = Grid(tuple(f.shape), upper=(1.5, 1.0), boundary=sides)
    return solve(equation, plate, fields={"f": f}, method=method, rtol=1e-12)


def solve_on_triangles(mesh: Mesh) -> Solution:
    equation = Equation("-div((1 + u**2)*grad(u)) = f")
    cold, hot = Dirichlet(0.0), Dirichlet(2.0)
    sides = {"left": cold, "right": hot, "rest": Neumann(0.0)}
    return solve(equation, mesh, fields={"f": burner}, boundary=sides)


def sensitivity(f: Tensor) -> Tensor:
    """Of the temperature at the sensor to the source in each cell."""
    f = f.clone().requires_grad_()
    value = solve_plate(f, Newton()).at([SENSOR])
    return torch.autograd.grad(value, f)[0]


def solve_bratu(cells: int, value: object, method: Method = None) -> Solution:
    text, given = "-laplacian(u) = lambda_*exp(u)", {"lambda_": value}
    equation = Equation(text, parameters={"lambda_": 0.0})
    square = Grid((cells, cells), boundary=Dirichlet(0.0))
    return solve(equation, square, parameters=given, method=method, throw=False)


def write(chapter: Chapter, quick: bool) -> None:
    shape = (96, 64) if quick else (288, 192)
    f = burner(*Grid(shape, upper=(1.5, 1.0)).coordinates)
    newton = _write_newton(chapter, f)
    _write_triangles(chapter, newton)
    _write_gradient(chapter, f, newton)
    _write_fold(chapter, 32 if quick else 64)
    numbers = chapter.numbers
    chapter.headline = (
        f"{numbers['unknowns']:,} unknowns in {numbers['steps']['Newton']} steps, by Picard's iteration "
        f"{numbers['steps']['Picard']}; gradient off by {numbers['gradient_agreement']:.0e}"
    )


def _write_newton(chapter: Chapter, f: Tensor) -> Solution:
    newton, picard = solve_plate(f, Newton()), solve_plate(f, Picard())
    histories = {}
    for name, solution in (("Newton", newton), ("Picard", picard)):
        norms = solution.history["residual_norm"]
        histories[name] = norms / norms[0]
    steps = {name: len(norms) - 1 for name, norms in histories.items()}
    exponents = _exponents(histories["Newton"])
    quadratic = _tail(histories["Newton"], exponents)
    factor = float((histories["Picard"][-1] / histories["Picard"][-9]) ** (1 / 8))
    plate = grid_of(newton)
    spread = float((newton.value - picard.value).abs().max() / newton.value.abs().max())

    chapter.say(
        "A plate that conducts the better the hotter it is, over a burner: the equation is nonlinear. `solve` sees "
        "that from the text, differentiates the equation symbolically, and takes Newton's method; each step is a "
        "linear equation with the exact Jacobian, solved only as accurately as the step deserves. Picard's iteration, "
        "which puts the last temperature into the conductivity, is there for those who ask for it."
    )
    chapter.equation(Equation(str(newton.equation)))
    chapter.code(burner, solve_plate)
    chapter.pictures(
        f"The temperature on {plate.shape[0]} x {plate.shape[1]} cells with isotherms, and the residual |F(u)| after "
        f"each step. Steps of Newton's method: {newton.method.partition('steps by ')[2]}.",
        (
            figures.map_figure(plate, newton.value, figures.HALF, title="u", colours="inferno", contours=12),
            "map of the temperature, hot over the burner and to the right",
        ),
        (
            figures.history_figure(histories, figures.HALF, 3.05, label="step", ordinate="residual |F(u)| / |F(0)|"),
            "the residual of Newton's method falls ever faster, that of Picard's iteration by a constant factor",
        ),
    )
    rows = []
    for step, norm in enumerate(histories["Newton"].tolist()):
        exponent = "" if step < 2 else f"{exponents[step - 2]:.2f}"
        rows.append([str(step), f"{norm:.1e}", exponent, f"{float(histories['Picard'][step]):.1e}"])
    chapter.table(
        ["step", "Newton", "exponent", "Picard"],
        rows,
        "The exponent p says that the residual fell with the power p of what it fell by in the step before; Newton's "
        "method reaches 2 near the solution, before the tolerance of 1e-12 leaves its last step with less to do.",
    )
    chapter.claim(
        f"Near the solution Newton's method is quadratic: the exponent is {quadratic:.2f}.", 1.8 <= quadratic <= 2.3
    )
    chapter.claim(
        f"Picard's iteration is linear, by a factor of {factor:.2f} a step, and ends at the same solution: largest "
        f"difference {spread:.1e}.",
        0.05 < factor < 0.9 and spread <= 1e-8,
    )
    chapter.numbers |= {
        "unknowns": f.numel(),
        "steps": steps,
        "inner": {
            "Newton": int(newton.statistics["inner_iterations"]),
            "Picard": int(picard.statistics["inner_iterations"]),
        },
        "residuals": histories,
        "exponent": quadratic,
        "factor": factor,
        "spread": spread,
    }
    return newton


def _write_triangles(chapter: Chapter, on_grid: Solution) -> None:
    width, height = grid_of(on_grid).shape
    points = unstructured((width // 2, height // 2)).points * torch.tensor([1.5, 1.0], dtype=torch.float64)
    names = {"left": lambda x, y: x == 0, "right": lambda x, y: x == 1.5}
    mesh = Mesh.delaunay(points).with_boundaries(names)
    solution = solve_on_triangles(mesh)
    steps = int(solution.statistics["iterations"])
    generator = torch.Generator().manual_seed(5)
    places = torch.rand(500, 2, generator=generator, dtype=torch.float64) * torch.tensor([1.5, 1.0])
    apart = (solution.at(places) - on_grid.at(places)).abs().max() / on_grid.value.max()

    chapter.say(
        f"The same equation by finite elements, on {len(mesh.cells):,} unstructured triangles: {steps} steps to a "
        "residual of 1e-8."
    )
    chapter.code(solve_on_triangles)
    chapter.claim(
        f"At 500 random points finite elements and finite volumes agree to {float(apart):.1e} of the largest value.",
        float(apart) <= 5e-3,
    )
    chapter.numbers |= {"steps_on_triangles": steps, "triangles_apart": float(apart)}


def _write_gradient(chapter: Chapter, f: Tensor, solution: Solution) -> None:
    plate = grid_of(solution)
    gradient = sensitivity(f)
    direction = torch.randn(f.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64) * f.max()
    slope, step = float((gradient * direction).sum()), 1e-3
    above, below = (float(solve_plate(f + sign * step * direction, Newton()).at([SENSOR]).detach()) for sign in (1, -1))
    quotient = (above - below) / (2 * step)
    agreement = abs(slope - quotient) / abs(quotient)

    chapter.say(
        f"The solution can be differentiated, whatever it took to find it: one linear solve with the transposed "
        f"Jacobian at the end gives the derivative of the temperature at one sensor with respect to the heat put in at "
        f"each of the {f.numel():,} cells."
    )
    chapter.code(sensitivity)
    chapter.pictures(
        "Rise of the temperature at the sensor (the dot) for a unit of heat at each place. Heat counts most near the "
        "sensor, and nothing on the sides that are held.",
        (_sensor_figure(plate, gradient / plate.cell_volume), "map that is brightest around the sensor"),
    )
    chapter.claim(
        f"Along a random direction the gradient says {slope:.9f}, central differences of two solves {quotient:.9f}: "
        f"relative difference {agreement:.1e}.",
        agreement <= 1e-6,
    )
    chapter.numbers |= {"gradient_agreement": agreement, "least_sensitivity": float(gradient.min())}


def _write_fold(chapter: Chapter, cells: int) -> None:
    values = torch.linspace(0.4, 6.8, 17, dtype=torch.float64)
    branch = solve_bratu(cells, values)
    beyond = solve_bratu(cells, 7.0, Continuation("lambda_"))
    path = beyond.history["parameter"].reshape(-1)
    reached = float(path[-1])
    tops = branch.value.amax((-2, -1)).tolist()

    chapter.say(
        "Not every nonlinear equation has a solution. Bratu's, for a mixture that heats itself, has none beyond a "
        "value of lambda near 6.808, where the branch of its solutions turns back. A batch of values is one call. "
        "Asked for lambda = 7, continuation starts at 0, follows the branch as far as it goes, and keeps what it has."
    )
    chapter.equation(Equation(str(beyond.equation)))
    chapter.code(solve_bratu)
    chapter.pictures(
        f"The largest value of u for {len(tops)} values of lambda, solved as one batch, and where the attempt to reach "
        "7 ended; the dashed line is where the branch turns back.",
        (_branch_figure(values.tolist(), tops, reached, float(beyond.value.max())), "a curve that turns upwards"),
    )
    status = beyond.status[0]
    chapter.say(f"The status of that attempt is {status.name}, and its advice: “{status.advice}”")
    chapter.claim(
        f"All {len(tops)} values below the turning point converged, in {int(branch.statistics['iterations'].max())} "
        "steps at most.",
        bool(branch.converged.all()),
    )
    chapter.claim(
        f"The attempt beyond it failed, and said so; it came as far as lambda = {reached:.4f}, and the end of the "
        f"branch is known to be {FOLD:.4f}.",
        not bool(beyond.converged.any()) and abs(reached - FOLD) <= 0.01 * FOLD,
    )
    chapter.numbers |= {"branch": {"lambda": values, "maximum": tops}, "reached": reached, "status": status.name}


def _exponents(norms: Tensor) -> list[float]:
    """log(r[k + 1] / r[k]) / log(r[k] / r[k - 1])."""
    falls = norms.log().diff()
    return (falls[1:] / falls[:-1]).tolist()


def _tail(norms: Tensor, exponents: Sequence[float]) -> float:
    """The exponent of the last step that had not yet come near the tolerance."""
    free = [exponent for norm, exponent in zip(norms[2:].tolist(), exponents, strict=True) if norm > 1e-11]
    return free[-1] if free else math.nan


def _sensor_figure(plate: Grid, gradient: Tensor) -> Figure:
    low, high = (float(gradient.quantile(share)) for share in (0.01, 0.9999))
    figure = figures.map_figure(
        plate,
        gradient.clamp(low, high),
        figures.HALF,
        title="du(sensor)/df",
        logarithmic=True,
        ticks=(1e-3, 1e-2, 1e-1),
    )
    figure.axes[0].plot(*SENSOR, "o", color="white", markersize=5, markeredgecolor="#101010")
    return figure


def _branch_figure(values: Sequence[float], tops: Sequence[float], reached: float, top: float) -> Figure:
    with figures.style():
        figure, axes = figures.panel(figures.HALF, 2.8)
        axes.plot(values, tops, color=figures.LINES[0], marker="o", markersize=3.5, label="batch")
        axes.plot(reached, top, "D", color=figures.LINES[1], markersize=6, label=f"continuation, to {reached:.3f}")
        axes.axvline(FOLD, color=figures.SOFT, linewidth=0.8, linestyle=(0, (4, 3)))
        axes.set(xlabel="lambda", ylabel="largest u", xlim=(0, 7.2), ylim=(0, None))
        axes.legend(loc="upper left")
        figures.tidy(axes)
        return figure


SECTION = Section("nonlinear", "Nonlinear equations, and one without a solution", write)
