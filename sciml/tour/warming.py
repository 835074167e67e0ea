"""Section: heat through a part in the course of time."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sciml.solvers.evolve import evolve
from sciml.solvers.solve import solve

from ..boundary import Dirichlet, Neumann, Robin
from ..equations import Equation
from ..mesh import Mesh
from ..solution import Solution
from .chapter import Chapter, Section, evolving_system_of
from .evolution_figures import curves_figure, mesh_snapshots_figure
from .shapes import make_link

CONDUCTIVITY = {"steel": 15.0, "bush": 60.0}
CAPACITY = {"steel": 3.9e6, "bush": 3.3e6}
STOP = 900.0  # seconds


def friction(x: Tensor, y: Tensor, t: Tensor) -> Tensor:
    """The shaft turns from the first minute to the fifteenth."""
    now = torch.as_tensor(t, dtype=x.dtype)
    running = torch.sigmoid((now - 60) / 10) * torch.sigmoid((900 - now) / 10)
    return 20e3 * running.expand_as(x)


def evolve_part(path: Path, times: Tensor, heating: Any) -> Solution:
    """Metres, seconds, degrees Celsius; a part one metre thick."""
    part = Mesh.read(path)
    equation = Equation("c*T_t = div(k*grad(T))", unknowns=["T"])
    fields = {"c": CAPACITY, "k": CONDUCTIVITY}
    held, air = Dirichlet(20.0), Robin(50.0, 50.0 * 20.0)
    sides = {"shaft": Neumann(heating), "pin": held, "rest": air}
    given: dict[str, Any] = {"fields": fields, "boundary": sides}
    return evolve(equation, part, initial=20.0, times=times, **given)


def write(chapter: Chapter, quick: bool) -> None:
    times = torch.linspace(0, 2400, 41 if quick else 81, dtype=torch.float64)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "link.msh"
        make_link(0.003 if quick else 0.002).write(path)
        solution = evolve_part(path, times, friction)
        late = evolve_part(path, torch.tensor([0.0, 600.0, 40_000.0]), 20e3)
    part = _mesh(solution)
    steady = _steady(part)
    limit = float((late.value[-1] - steady.value).abs().max() / (steady.value - 20).max())
    stored, flows, imbalance = _balance(solution)
    hottest = float(solution.value.max())

    chapter.say(
        "The link of an earlier section, from the moment when the shaft begins to turn: it runs for a quarter of an "
        "hour and stops. The equation now has a derivative in time and a heat capacity, the friction is a function of "
        "the time, and the call is `evolve` where it was `solve`. The choice falls on an implicit method of order 5, "
        "since an explicit one would be held to steps of a fraction of a second by the smallest triangle."
    )
    chapter.equation(Equation("c*T_t = div(k*grad(T))", unknowns=["T"]))
    chapter.code(friction, evolve_part)
    shown = (120.0, 420.0, 900.0, 1020.0, 1320.0, 2400.0)
    places = [int((times - t).abs().argmin()) for t in shown]
    chapter.pictures(
        f"The temperature in degrees Celsius on {len(part.cells):,} triangles. The shaft stops after 15 minutes. "
        f"{solution.method[0].upper()}{solution.method[1:]}.",
        (
            mesh_snapshots_figure(
                part,
                [solution.value[place] for place in places],
                [f"{t / 60:.0f} minutes" for t in shown],
                columns=3,
                label="T, °C",
            ),
            "six maps of a link that warms from its larger bore and cools again",
        ),
    )
    minutes = times / 60
    probes = {"bush": (0.0185, 0.0), "neck": (0.045, 0.0), "rim behind the shaft": (-0.0299, 0.0)}
    warmth = solution.at(list(probes.values()))
    chapter.pictures(
        "Left: the temperature at three points. Right: where the heat of the shaft goes, in kilowatts per metre of "
        "thickness; what is stored is the integral of c dT/dt.",
        (
            curves_figure(
                {name: (minutes, warmth[:, k]) for k, name in enumerate(probes)}, labels=("minutes", "T, °C")
            ),
            "three curves that rise for 15 minutes and fall",
        ),
        (
            curves_figure(
                {
                    "from the shaft": (minutes, flows["shaft"] / 1e3),
                    "stored": (minutes, stored / 1e3),
                    "to the air": (minutes, -flows["rim"] / 1e3),
                    "to the pin": (minutes, -flows["pin"] / 1e3),
                },
                labels=("minutes", "kW/m"),
            ),
            "the heat from the shaft is stored at first, and later given to air and pin",
        ),
    )
    steps = int(solution.statistics["steps"])
    chapter.facts(
        {
            "triangles": f"{len(part.cells):,}",
            "steps": f"{steps}, {int(solution.statistics['rejected'])} rejected",
            "hottest": f"{hottest:.1f} °C",
            "time": f"{solution.statistics['seconds_solve']:.1f} s",
        }
    )
    chapter.claim(
        f"At all {len(times)} times the heat that is stored, c dT/dt over the part, is what shaft, pin and rim let in: "
        f"largest difference {imbalance:.1e} of what the shaft gives.",
        imbalance <= 1e-8,
    )
    chapter.claim(
        f"A shaft that never stops brings the part to the temperature that `solve` finds for the steady equation: "
        f"after 11 hours the difference is {limit:.1e} of the warming.",
        limit <= 1e-5,
    )
    chapter.headline = f"{len(part.cells):,} triangles, {steps} steps; heat balance {imbalance:.0e} at every time"
    chapter.numbers = {
        "triangles": len(part.cells),
        "steps": steps,
        "hottest": hottest,
        "imbalance": imbalance,
        "steady_difference": limit,
        "probes": warmth,
    }


def _balance(solution: Solution) -> tuple[Tensor, dict[str, Tensor], float]:
    """Heat stored at each time, heat that enters by each boundary, and how far they are apart."""
    part, times = _mesh(solution), solution.times
    if times is None:
        raise RuntimeError("this solution does not evolve")
    flows = {name: solution.flux(name) for name in ("shaft", "pin", "rim")}
    system = evolving_system_of(solution)
    capacity = torch.zeros(len(part.cells), dtype=torch.float64)
    for name, value in CAPACITY.items():
        capacity[part.region(name)] = value
    rates = torch.stack([system.rate(u, float(t)) for u, t in zip(solution.value, times, strict=True)])
    stored = (rates[:, part.cells].mean(-1) * capacity * part.volumes).sum(-1)
    apart = float((stored - sum(flows.values())).abs().max() / flows["shaft"].max())
    return stored, flows, apart


def _steady(part: Mesh) -> Solution:
    sides = {"shaft": Neumann(20e3), "pin": Dirichlet(20.0), "rest": Robin(50.0, 50.0 * 20.0)}
    equation = Equation("div(k*grad(T)) = 0", unknowns=["T"])
    return solve(equation, part, fields={"k": CONDUCTIVITY}, boundary=sides, rtol=1e-12)


def _mesh(solution: Solution) -> Mesh:
    if not isinstance(solution.domain, Mesh):
        raise RuntimeError("this solution does not belong to a mesh")
    return solution.domain


SECTION = Section("warming", "Heat through a part, minute by minute", write)
