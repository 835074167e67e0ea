"""The program on evolving problems: what it writes, what it refuses, and what is left when it is ended."""

from __future__ import annotations

import json
import math
import os
import signal
import time
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner, Result

from sciml import Equation, Grid, Periodic, Solution, command_line, evolve

HEAT = """
[equation]
text = "u_t = laplacian(u)"
[domain]
shape = [32]
lower = [0]
upper = [6.283185307179586]
[boundary]
all = { kind = "periodic" }
[solver]
initial = "sin(x)"
times = { start = 0, end = 1, count = 11 }
"""

PLATE = """
[equation]
text = "u_t = div(grad(u)) + f"
[domain]
shape = [20, 8]
lower = [0, 0]
upper = [1, 1]
[boundary]
x = { kind = "dirichlet", value = "x*t" }
y = { kind = "neumann", flux = 0 }
[fields]
f = "x"
[solver]
initial = 0
times = [0, 0.5, 1]
method = { name = "kvaerno5", controller = { safety = 0.8 } }
rtol = 1e-7
atol = 1e-9
[output]
formats = ["h5", "png", "gif", "pvd"]
"""

PART = """
[equation]
text = "u_t = laplacian(u)"
[domain]
mesh = { shape = [6, 6], lower = [0, 0], upper = [1, 1] }
boundaries = { left = "x < 1e-9" }
[boundary]
left = { kind = "dirichlet", value = "1 + t" }
rest = { kind = "neumann", flux = 0 }
[solver]
initial = 1
times = [0, 0.1, 0.2]
[output]
formats = ["h5", "png", "pvd"]
"""

TURN = """
[equation]
text = ["x_t = -w*y", "y_t = w*x + g"]
parameters = { w = 2.0 }
coordinates = []
[fields]
g = "0*t"
[solver]
initial = { x = 1, y = 0 }
times = { start = 0, end = 3.141592653589793, count = 5 }
rtol = 1e-9
"""

LONG = """
[equation]
text = "u_t = -u*u_x - u_xx - u_xxxx"
[domain]
shape = [128]
lower = [0]
upper = [60]
[boundary]
all = { kind = "periodic" }
[solver]
initial = "cos(pi*x/15)"
times = { start = 0, end = 100000, count = 100001 }
step = 0.1
method = "etd4"
"""


def invoke(tmp_path: Path, text: str, name: str = "run.toml") -> Result:
    (tmp_path / name).write_text(text)
    return CliRunner().invoke(command_line.app, ["solve", str(tmp_path / name), "--output", str(tmp_path / "out")])


def summary(tmp_path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((tmp_path / "out" / "run.json").read_text())
    return found


def names(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in (tmp_path / "out").iterdir())


def test_one_dimension(tmp_path: Path) -> None:
    result = invoke(tmp_path, HEAT)
    assert result.exit_code == 0, result.output
    assert names(tmp_path) == ["run.h5", "run.json", "run.png"]
    solution = Solution.load(tmp_path / "out" / "run.h5")
    assert float(solution.error(lambda x, t: torch.sin(x) * torch.exp(-t))["L2"].max()) < 1e-12
    facts = summary(tmp_path)
    assert facts["finished"] is True
    assert facts["times"] == {"first": 0.0, "last": 1.0, "count": 11}
    assert facts["rows"][0]["status"] == "CONVERGED"
    assert facts["rows"][0]["steps"] == int(solution.statistics["steps"])
    assert abs(facts["rows"][0]["integrals"]["u"]) < 1e-12
    for part in ("u_t = laplacian(u)", "11 from 0 to 1", "steps", "evaluations", "exponential", "evolved", "run.png"):
        assert part in result.stdout


def test_a_plate_whose_walls_move(tmp_path: Path) -> None:
    """u = x t solves it exactly, in space and in time."""
    result = invoke(tmp_path, PLATE)
    assert result.exit_code == 0, result.output
    assert {"run.h5", "run.png", "run.gif", "run.pvd", "run"} <= set(names(tmp_path))
    assert len(list((tmp_path / "out" / "run").glob("*.vti"))) == 3
    solution = Solution.load(tmp_path / "out" / "run.h5")
    assert float(solution.error(lambda x, y, t: x * t)["H1"].max()) < 1e-7
    assert "Kvaerno" in solution.method
    facts = summary(tmp_path)
    assert facts["files"] == ["run.h5", "run.png", "run.gif", "run.pvd"]
    assert facts["rows"][0]["integrals"]["u"] == pytest.approx(0.5, abs=1e-7)
    assert facts["rows"][0]["initial_integrals"]["u"] == 0.0
    assert facts["rows"][0]["fluxes"]["u"]["x_upper"] == pytest.approx(1.0, abs=1e-6)


def test_a_mesh(tmp_path: Path) -> None:
    result = invoke(tmp_path, PART)
    assert result.exit_code == 0, result.output
    assert len(list((tmp_path / "out" / "run").glob("*.vtu"))) == 3
    solution = Solution.load(tmp_path / "out" / "run.h5")
    torch.testing.assert_close(solution.at([[0.0, 0.5]])[:, 0], 1 + solution.times)  # type: ignore[operator]
    assert "left" in result.stdout


def test_ordinary_differential_equations(tmp_path: Path) -> None:
    result = invoke(tmp_path, TURN)
    assert result.exit_code == 0, result.output
    assert names(tmp_path) == ["run.h5", "run.json", "run.png"]
    values = summary(tmp_path)["rows"][0]["values"]
    assert values["x"] == pytest.approx(1.0, abs=1e-7)
    assert values["y"] == pytest.approx(0.0, abs=1e-7)
    assert "last values" in result.stdout


def test_the_catalogue_and_fixed_steps(tmp_path: Path) -> None:
    text = '[equation]\ncatalogue = "lorenz"\n[solver]\ninitial = { x = 1, y = 1, z = 20 }\ntimes = [0, 1]\n'
    assert invoke(tmp_path, text + 'step = 0.01\nmethod = "rk4"\n').exit_code == 0
    assert summary(tmp_path)["rows"][0]["steps"] == 100


def test_a_run_goes_on_from_a_file(tmp_path: Path) -> None:
    assert invoke(tmp_path, HEAT).exit_code == 0
    (tmp_path / "before.h5").write_bytes((tmp_path / "out" / "run.h5").read_bytes())
    later = HEAT.replace('"sin(x)"', '{ file = "before.h5" }').replace("start = 0, end = 1", "start = 1, end = 2")
    result = invoke(tmp_path, later)
    assert result.exit_code == 0, result.output
    solution = Solution.load(tmp_path / "out" / "run.h5")
    assert float(solution.error(lambda x, t: torch.sin(x) * torch.exp(-t))["L2"].max()) < 1e-12


def test_two_unknowns_of_second_order_and_a_scheme(tmp_path: Path) -> None:
    text = HEAT.replace("u_t = laplacian(u)", "u_tt = laplacian(u)").replace('"sin(x)"', '{ u = "sin(x)", u_t = 0 }')
    result = invoke(tmp_path, text + '[scheme]\nname = "spectral"\ndealias = "none"\n')
    assert result.exit_code == 0, result.output
    solution = Solution.load(tmp_path / "out" / "run.h5")
    found = solution.fields["u"][-1]
    (x,) = solution.domain.coordinates  # type: ignore[union-attr]
    torch.testing.assert_close(found, torch.sin(x) * math.cos(1.0), rtol=0, atol=1e-5)


def test_the_controller_keeps_steps_from_passing_a_pulse(tmp_path: Path) -> None:
    """The integral of the pulse, which lasts for a hundredth of the time, is c w sqrt(pi)."""
    text = """
[equation]
text = "u_t = 100*exp(-((t - 5)/0.05)**2)"
unknowns = ["u"]
coordinates = []
[solver]
initial = 0
times = [0, 10]
method = { name = "tsit5", controller = { first_step = 0.03, largest_step = 0.1 } }
atol = 1e-9
rtol = 1e-9
[output]
formats = ["h5"]
"""
    result = invoke(tmp_path, text)
    assert result.exit_code == 0, result.output
    solution = Solution.load(tmp_path / "out" / "run.h5")
    assert float(solution.value[-1]) == pytest.approx(5 * math.sqrt(math.pi), rel=1e-7)
    sizes = solution.history["step"]
    assert float(sizes[0]) == pytest.approx(0.03)
    assert float(sizes.max()) == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("text", "change", "message"),
    [
        (HEAT, ("times = { start = 0, end = 1, count = 11 }", ""), "the equation evolves: give times"),
        (HEAT, ('initial = "sin(x)"', ""), "[solver] initial: the equation evolves: give its state at the first time"),
        (HEAT, ("end = 1", "end = -1"), "start must come before end"),
        (HEAT, ("start = 0, end = 1, count = 11", "start = 0, stop = 1"), "unknown key 'stop'"),
        (HEAT, ('"sin(x)"', '"sin(x)*t"'), "[solver] initial: "),
        (HEAT, ("count = 11 }", 'count = 11 }\nmethod = "etd5"'), "unknown method 'etd5'"),
        (HEAT, ("count = 11 }", 'count = 11 }\nmethod = { name = "rk4", steps = 3 }'), "rk4: unknown argument 'steps'"),
        (HEAT, ("count = 11 }", 'count = 11 }\nmethod = { name = "tsit5", dense = "no" }'), "dense is true or false"),
        (HEAT, ("count = 11 }", 'count = 11 }\nmethod = { name = "tsit5", controller = 3 }'), "controller is a table"),
        (PLATE, ("safety = 0.8", "longest_step = 1"), "unknown argument 'longest_step'; did you mean 'largest_step'"),
        (PLATE, ("safety = 0.8", "largest_step = -1"), "largest_step is a positive number in the unit of time, got -1"),
        (PLATE, ("safety = 0.8", 'first_step = "a"'), "first_step is a positive number in the unit of time, got 'a'"),
        (PLATE, ("safety = 0.8", 'safety = "a"'), "Controller: an argument is of the wrong type"),
        (HEAT, ("count = 11 }", "count = 11 }\nstep = 0.1\nrtol = 1e-3"), "give either step"),
        (HEAT, ("u_t = laplacian(u)", "laplacian(u) = u"), "times is for evolving equations"),
        (HEAT, ("[solver]", '[output]\nformats = ["vti"]\n[solver]'), "'vti' is not for evolutions"),
        (TURN, ("[fields]", "[boundary]\n[fields]"), "ordinary differential equations have none"),
        (TURN, ("coordinates = []\n", ""), "'domain' is missing"),
        (HEAT, ('"sin(x)"', '{ file = "none.h5" }'), "there is no file 'none.h5'"),
    ],
)
def test_bad_input_is_one_message(text: str, change: tuple[str, str], message: str, tmp_path: Path) -> None:
    result = invoke(tmp_path, text.replace(*change))
    assert result.exit_code == 2
    assert message in result.stderr
    assert "Traceback" not in result.stderr


def test_a_run_that_fails_is_written_and_says_when(tmp_path: Path) -> None:
    text = TURN.replace('["x_t = -w*y", "y_t = w*x + g"]', '"x_t = w*x**2 + g"').replace("x = 1, y = 0", "x = 1")
    result = invoke(tmp_path, text)
    assert result.exit_code == 1
    assert "FAILED: " in result.stdout
    assert Solution.load(tmp_path / "out" / "run.h5").status[0].name in ("STEP_UNDERFLOW", "NON_FINITE")
    assert summary(tmp_path)["rows"][0]["failed_at"] == pytest.approx(0.5, abs=1e-3)


PROGRAM = """
import os, signal, sys
from sciml import command_line, long_runs

# A process that a shell started in the background ignores Ctrl-C, and so would its children.
signal.signal(signal.SIGINT, signal.default_int_handler)
for descriptor, name in ((1, "output"), (2, "errors")):
    os.dup2(os.open(os.path.join(folder, name), os.O_WRONLY | os.O_CREAT), descriptor)
long_runs.SAVE_EVERY = 0.3
sys.argv = ["sciml", "solve", os.path.join(folder, "run.toml"), "--output", os.path.join(folder, "out")]
command_line.main()
"""


def start(forks: ForkServerContext, tmp_path: Path) -> BaseProcess:
    (tmp_path / "run.toml").write_text(LONG)
    process = forks.Process(target=exec, args=(PROGRAM, {"folder": str(tmp_path)}))
    process.start()
    return process


def end(process: BaseProcess, number: int) -> int | None:
    """Its exit code."""
    assert process.pid
    os.kill(process.pid, number)
    process.join(120)
    return process.exitcode


def wait_for(path: Path) -> None:
    end = time.monotonic() + 120
    while not path.exists() and time.monotonic() < end:
        time.sleep(0.05)
    assert path.exists()


def check_beginning(solution: Solution) -> None:
    """The values are those of a run that was not ended."""
    count = len(solution.times)  # type: ignore[arg-type]
    assert count >= 2
    grid = Grid((128,), (0.0,), (60.0,), boundary=Periodic())
    times = [float(t) for t in solution.times[: min(count, 40)]]  # type: ignore[index]
    whole = evolve(
        Equation("u_t = -u*u_x - u_xx - u_xxxx"),
        grid,
        initial=lambda x: torch.cos(math.pi * x / 15),
        times=times,
        step=0.1,
    )
    torch.testing.assert_close(solution.value[: len(times)], whole.value, rtol=0, atol=1e-9)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_run_that_is_ended_writes_what_it_reached(
    number: int, code: int, forks: ForkServerContext, tmp_path: Path
) -> None:
    process = start(forks, tmp_path)
    wait_for(tmp_path / "out" / "run.h5")
    found = end(process, number)
    output, errors = ((tmp_path / name).read_text() for name in ("output", "errors"))
    assert found == code, errors
    assert "interrupted: ends at t = " in errors
    assert {"run.h5", "run.json", "run.png"} <= set(names(tmp_path))
    solution = Solution.load(tmp_path / "out" / "run.h5")
    assert "interrupted" in solution.notes[-1]
    assert summary(tmp_path)["times"]["count"] == len(solution.times)  # type: ignore[arg-type]
    assert "of 100001 times" in output + errors
    assert "INTERRUPTED" in output
    assert summary(tmp_path)["finished"] is False
    check_beginning(solution)


def test_a_run_that_is_killed_leaves_a_valid_file(forks: ForkServerContext, tmp_path: Path) -> None:
    process = start(forks, tmp_path)
    wait_for(tmp_path / "out" / "run.h5")
    time.sleep(0.5)
    assert end(process, signal.SIGKILL) == -signal.SIGKILL
    solution = Solution.load(tmp_path / "out" / "run.h5")
    assert "still running" in solution.notes[-1]
    check_beginning(solution)
    last = float(solution.times[-1])  # type: ignore[index]
    grid = Grid((128,), (0.0,), (60.0,), boundary=Periodic())
    equation = Equation("u_t = -u*u_x - u_xx - u_xxxx")
    on = evolve(equation, grid, initial=solution, times=(last, last + 1.0), step=0.1)
    assert bool(on.converged)
