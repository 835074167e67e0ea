"""Every example runs in a folder of its own, and what it prints and writes is true."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import meshio
import pytest
import torch

import sciml
from sciml import Solution, datasets, operators
from sciml.solvers.tuning import TunerState

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
SCRIPTS = sorted(path.name for path in EXAMPLES.glob("*.py"))
PROBLEMS = sorted(path.name for path in EXAMPLES.glob("*.toml"))
RECIPES = {
    "recipes/darcy-32.toml": "data generate recipes/darcy-32.toml --output ../data/darcy-32 --train 64",
    "recipes/mgno-darcy-32.toml": "train recipes/mgno-darcy-32.toml --data ../data/darcy-32",
}
"""With what the program is called, one after the other."""
MAX_LINES = 60

PNG = b"\x89PNG\r\n\x1a\n"


FORKS = """
import gc, io, json, os, runpy, sys
import h5py, lightning_fabric, matplotlib.pyplot, meshio, pydantic, scipy.sparse.linalg, scipy.special, sympy, torch
import typer
import sciml, sciml.command_line, sciml.solvers.linear, sciml.solvers.time.by_name
import sciml.datasets.generation, sciml.operators.recipe, sciml.training
from sciml import animations, paraview, pictures_of_evolutions, pictures_of_meshes, problem_file, storage, summary
for name in sciml.__all__:
    getattr(sciml, name)
figure, axes = matplotlib.pyplot.subplots()
axes.set_title("$x$")
figure.savefig(io.BytesIO())  # finds the fonts
matplotlib.pyplot.close(figure)
gc.freeze()
for folder, arguments in json.loads(sys.argv[1]):
    if child := os.fork():
        with open(os.path.join(folder, "exit_code"), "w") as file:
            file.write(str(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])))
        continue
    os.chdir(folder)
    for descriptor, name in ((1, "output"), (2, "errors")):
        os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT), descriptor)
    sys.argv = arguments
    if arguments[0].endswith(".py"):
        runpy.run_path(arguments[0], run_name="__main__")
    else:
        from sciml.command_line import main
        main()
    break
"""
"""Each example in a process of its own, forked from one that has loaded the libraries and this one, which takes longer
than most of the examples do."""


class Runs:
    """What each example left behind."""

    def __init__(self, root: Path) -> None:
        self.root = root
        work = []
        for name in (*SCRIPTS, *PROBLEMS, *RECIPES):
            self.folder(name).mkdir()
            if name not in RECIPES:
                shutil.copy(EXAMPLES / name, self.folder(name))
            shutil.copytree(EXAMPLES / "recipes", self.folder(name) / "recipes")
            command = RECIPES.get(name, f"solve {name}")
            arguments = [name] if name.endswith(".py") else ["sciml", *command.split()]
            work.append((str(self.folder(name)), arguments))
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        subprocess.run([sys.executable, "-c", FORKS, json.dumps(work)], env=environment, check=True, timeout=540)

    def folder(self, name: str) -> Path:
        return self.root / name.replace(".", "_").replace("/", "_")

    def output(self, name: str) -> str:
        output = (self.folder(name) / "output").read_text()
        assert (self.folder(name) / "exit_code").read_text() == "0", output + self.errors(name)
        return output

    def errors(self, name: str) -> str:
        return (self.folder(name) / "errors").read_text()


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    return Runs(tmp_path_factory.mktemp("examples"))


def numbers(pattern: str, text: str) -> list[float]:
    """The groups of the first match, as numbers."""
    match = re.search(pattern, text)
    assert match, f"{pattern!r} is not in:\n{text}"
    return [float(group) for group in match.groups()]


@pytest.mark.parametrize("name", SCRIPTS)
def test_scripts_run_and_save_their_picture(name: str, runs: Runs) -> None:
    assert runs.output(name).strip()
    assert (runs.folder(name) / name).with_suffix(".png").read_bytes().startswith(PNG)


@pytest.mark.parametrize("name", SCRIPTS)
def test_scripts_warn_of_nothing(name: str, runs: Runs) -> None:
    """What torch, or we, say of our own code is not for a newcomer to read."""
    lines = [line for line in runs.errors(name).splitlines() if "compiling the CPU kernels" not in line]
    assert not lines


@pytest.mark.parametrize("name", PROBLEMS)
def test_problem_files_are_solved(name: str, runs: Runs) -> None:
    assert re.search("converged|evolved", runs.output(name))
    path = runs.folder(name) / name
    assert path.with_suffix(".png").read_bytes().startswith(PNG)
    assert json.loads(path.with_suffix(".json").read_text())["converged"]
    assert bool(Solution.load(path.with_suffix(".h5")).converged)


@pytest.mark.parametrize("name", SCRIPTS)
def test_scripts_are_short(name: str) -> None:
    assert len((EXAMPLES / name).read_text(encoding="utf-8").splitlines()) < MAX_LINES


@pytest.mark.parametrize("name", SCRIPTS)
def test_scripts_import_what_they_use(name: str) -> None:
    """A module that the process before the fork had imported would be there without."""
    tree = ast.parse((EXAMPLES / name).read_text(encoding="utf-8"))
    nodes = [node for node in ast.walk(tree) if isinstance(node, ast.Attribute)]
    names = {node.attr for node in nodes if ast.unparse(node.value) == "sciml"}
    assert names <= {*sciml.__all__} - {"datasets", "equations", "operators", "solvers"}


def test_the_list_of_examples_is_complete() -> None:
    text = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    targets = set(re.findall(r"\]\(([^)]+)\)", text))
    pictures = {target for target in targets if target.endswith(".png")}
    assert targets - pictures == {*SCRIPTS, *PROBLEMS, *RECIPES}
    assert {*RECIPES} == {f"recipes/{path.name}" for path in (EXAMPLES / "recipes").iterdir()}
    for name in pictures:
        assert (EXAMPLES / name).read_bytes().startswith(PNG)
        assert (EXAMPLES / name).stat().st_size < 60_000


# What they print


def test_poisson(runs: Runs) -> None:
    (largest,) = numbers(r"largest value ([\d.]+)", runs.output("poisson.py"))
    assert largest == pytest.approx(0.0736713, abs=2e-6)


def test_poisson_as_a_problem_file(runs: Runs) -> None:
    solution = Solution.load(runs.folder("poisson.toml") / "poisson.h5")
    assert float(solution.value.max()) == pytest.approx(0.0736713, abs=2e-6)


def test_jumping_coefficient(runs: Runs) -> None:
    text = runs.output("jumping_coefficient.py")
    inflow, outflow = numbers(r"inflow ([\d.]+), outflow ([\d.]+)", text)
    assert inflow == pytest.approx(outflow, rel=1e-8)
    whole, tight = numbers(r"permeability of the whole ([\d.]+), with (\d+)%", text)
    share = tight / 100
    assert 1 / (1 - share + share / 1e-3) < whole < 1 - share * (1 - 1e-3)  # the bounds of Wiener


def test_jumping_coefficient_as_a_problem_file(runs: Runs) -> None:
    """The same rock as that of the script."""
    solution = Solution.load(runs.folder("jumping_coefficient.toml") / "jumping_coefficient.h5")
    (inflow,) = numbers(r"inflow ([\d.]+)", runs.output("jumping_coefficient.py"))
    assert float(solution.flux("x_lower")) == pytest.approx(inflow, rel=1e-6)


def test_heat_in_a_part_as_a_problem_file(runs: Runs) -> None:
    folder = runs.folder("heat_in_a_part.toml")
    (row,) = json.loads((folder / "heat_in_a_part.json").read_text())["rows"]
    heat = 2000.0 * 0.008  # what the heater gives off, and the air takes up: 25 W/(m2 K) times 40 mm times its warmth
    assert row["fluxes"]["T"]["heater"] == pytest.approx(heat, rel=1e-9)
    assert row["fluxes"]["T"]["y_upper"] == pytest.approx(-heat, rel=1e-6)
    solution = Solution.load(folder / "heat_in_a_part.h5")
    x = torch.linspace(0.0, 0.04, 81, dtype=torch.float64)
    top = solution.at(torch.stack([x, torch.full_like(x, 0.02)], 1))
    assert float(torch.trapezoid(top, x)) / 0.04 == pytest.approx(20 + heat / (25 * 0.04), rel=1e-9)
    across = solution.at([[0.0165, 0.008], [0.0235, 0.008], [0.0005, 0.008], [0.0395, 0.008]])
    assert float(across[0] - across[1]) < 0.01 * float(across[2] - across[3])  # copper is all of one temperature
    content = meshio.read(folder / "heat_in_a_part.vtu")
    assert set(content.cell_data["k"][0].tolist()) == {0.3, 400.0}


def test_voxel_obstacles(runs: Runs) -> None:
    text = runs.output("voxel_obstacles.py")
    inflow, outflow = numbers(r"inflow ([\d.]+), outflow ([\d.]+)", text)
    assert inflow == pytest.approx(outflow, rel=1e-10)
    assert 0.25 < inflow < 0.5  # 0.5 through the empty channel
    (fastest,) = numbers(r"fastest ([\d.]+) times", text)
    assert fastest > 1


def test_flow_around_a_scan(runs: Runs) -> None:
    text = runs.output("flow_around_a_scan.py")
    open_edges, exact, voxels = numbers(r"(\d+) open edges, volume ([\d.]+)[\s\S]*inside, volume ([\d.]+)", text)
    assert open_edges == 0
    assert voxels == pytest.approx(exact, rel=0.01)
    inflow, outflow, share = numbers(r"inflow ([\d.]+), outflow ([\d.]+); ([\d.]+) of", text)
    assert inflow == pytest.approx(outflow, rel=1e-9)
    assert 0.75 < share < 0.987  # the share of lines along x that miss the ring; of the volume beside it


def test_pure_neumann(runs: Runs) -> None:
    text = runs.output("pure_neumann.py")
    mean, low, high = numbers(r"mean ([-\d.e]+), from ([-\d.]+) to ([-\d.]+)", text)
    assert abs(mean) < 1e-15
    assert low < 0 < high
    assert "is refused: no side fixes the value" in text


def test_recover_coefficient(runs: Runs) -> None:
    text = runs.output("recover_coefficient.py")
    before, after = numbers(r"objective ([\d.]+) -> ([\d.]+)", text)
    assert after < 1.3 < before
    before, after = numbers(r"error of the coefficient ([\d.]+)% -> ([\d.]+)%", text)
    assert after < before / 5


@pytest.mark.parametrize("order", [2, 4])
def test_convergence_order(order: int, runs: Runs) -> None:
    (measured,) = numbers(rf"order {order}, 64 x 64 .* measured order ([\d.]+)", runs.output("convergence_order.py"))
    assert measured == pytest.approx(order, abs=0.1)


def test_batch_of_problems(runs: Runs) -> None:
    text = runs.output("batch_of_problems.py")
    assert "all converged: True" in text
    assert "value (16, 63, 63)" in text
    (difference,) = numbers(r"one by one ([\d.e+-]+)", text)
    assert difference < 1e-6


def test_own_preconditioner(runs: Runs) -> None:
    counts = [
        int(count) for count in re.findall(r": (\d+) iterations, CONVERGED", runs.output("own_preconditioner.py"))
    ]
    plain, six, twelve = counts
    assert twelve < six < plain / 3


def test_nonlinear_heat(runs: Runs) -> None:
    text = runs.output("nonlinear_heat.py")
    found = [numbers(rf"beta +{beta}: hottest ([\d.]+), (\d+) Newton steps", text) for beta in ("0.0", "1.0", "10.0")]
    temperatures, steps = zip(*found, strict=True)
    assert temperatures[0] > temperatures[1] > temperatures[2] > 1.99  # what conducts better is cooler
    assert max(steps) <= 10
    (balance,) = numbers(r"heat in minus heat out, at most ([\d.e+-]+)", text)
    assert balance < 1e-5
    on_triangles, _ = numbers(r"on triangles, beta 1.0: hottest ([\d.]+), (\d+) Newton steps", text)
    assert on_triangles == pytest.approx(temperatures[1], rel=5e-3)


# Evolution in time


def test_chaos_on_a_ring(runs: Runs) -> None:
    text = runs.output("chaos_on_a_ring.py")
    slope, drift = numbers(r"largest slope ([\d.]+), the mean changes by ([\d.e+-]+)", text)
    assert 2.5 < slope < 4
    assert drift < 1e-13
    apart = [numbers(rf"t = {t} by ([\d.e+-]+)", text)[0] for t in (20, 60, 100, 140)]
    assert apart == sorted(apart)
    assert apart[0] < 1e-4 < 100 * apart[0] < apart[-1]


def test_heat_over_time(runs: Runs) -> None:
    text = runs.output("heat_over_time.py")
    ranges = [numbers(rf"t = +{t} s: ([\d.]+) to ([\d.]+) degrees", text) for t in (60, 330, 600, 900)]
    highest = [high for _, high in ranges]
    assert max(highest) == highest[1]  # when the heating ends
    assert highest[1] > highest[2] > highest[3] > 20
    spread = [high - low for low, high in ranges]
    assert spread[3] < spread[2] < spread[1] / 5
    came, stored = numbers(r"came and stayed (\d+), stored (\d+)", text)
    assert came == pytest.approx(stored, rel=1e-3)


def test_turbulence(runs: Runs) -> None:
    text = runs.output("turbulence.py")
    found = [numbers(rf"t = {t}: energy ([\d.]+), enstrophy ([\d.]+)", text) for t in ("0.0", "1.5", "3.0", "6.0")]
    energy, enstrophy = zip(*found, strict=True)
    assert list(energy) == sorted(energy, reverse=True)
    assert enstrophy[-1] / enstrophy[0] < energy[-1] / energy[0] < 1
    lost, spent = numbers(r"energy lost ([\d.]+), taken by viscosity ([\d.]+)", text)
    assert lost == pytest.approx(spent, rel=1e-3)


def test_gray_scott(runs: Runs) -> None:
    text = runs.output("gray_scott.py")
    for name in ("spots", "worms", "labyrinth"):
        first, *_, last = numbers(rf"{name}: V covers (\d+)%, (\d+)%, (\d+)%, (\d+)%", text)
        assert last > 2 * first


def test_learned_preconditioner(runs: Runs) -> None:
    text = runs.output("learned_preconditioner.py")
    unknowns, solid = numbers(r"(\d+) unknowns around (\d+) cells", text)
    assert unknowns + solid == 74 * 80 * 41
    alone, learned = (numbers(rf"{name}: (\d+) iterations", text)[0] for name in ("alone", "learned multigrid"))
    assert learned <= alone / 3


def test_shock(runs: Runs) -> None:
    text = runs.output("shock.py")
    found = [numbers(rf"{n} cells: mean error ([\d.]+), from ([-\d.]+) to ([\d.]+)", text) for n in (100, 200, 400)]
    errors, lowest, highest = zip(*found, strict=True)
    assert errors[0] / errors[2] == pytest.approx(4, rel=0.1)  # order 1
    assert (min(lowest), max(highest)) == (0, 1)
    after, before = numbers(r"mass ([\d.]+), at first ([\d.]+)", text)
    assert after == pytest.approx(before, abs=1e-11)


def test_sensitivity(runs: Runs) -> None:
    text = runs.output("sensitivity.py")
    (quotient,) = numbers(r"difference quotient: ([\d.e+-]+)", text)
    (exact,) = numbers(r"exact derivative: ([\d.e+-]+)", text)
    assert max(quotient, exact) < 1e-6
    backward, forward = numbers(r"backward ([-\d.]+), forward ([-\d.]+)", text)
    assert backward == pytest.approx(forward, rel=1e-9)


def test_bouncing_ball(runs: Runs) -> None:
    text = runs.output("bouncing_ball.py")
    for bounce in range(1, 6):
        found, exact = numbers(rf"bounce {bounce}: t = ([\d.]+), exactly ([\d.]+)", text)
        assert found == pytest.approx(exact, abs=2e-9)


def test_batch_of_oscillators(runs: Runs) -> None:
    text = runs.output("batch_of_oscillators.py")
    found = re.findall(r"mu +[\d.]+: (\d+) steps of its own, (\d+) together; amplitude ([\d.]+)", text)
    alone = [int(steps) for steps, _, _ in found]
    assert alone == sorted(alone)
    assert alone[-1] < int(found[0][1])
    assert [float(amplitude) for _, _, amplitude in found] == pytest.approx([2, 2.02, 2.017], abs=0.01)
    (difference,) = numbers(r"for the mildest ([\d.e+-]+)", text)
    assert difference < 1e-5


# Datasets and operators


def test_train_operator(runs: Runs) -> None:
    text = runs.output("train_operator.py")
    assert "352 samples, 256 train, 32 valid, 64 test" in text
    first, *_, last = [float(error) for error in re.findall(r"([\d.]+)%", text.splitlines()[1])]
    mean, largest = numbers(r"64 test samples: mean error ([\d.]+)%, largest ([\d.]+)%", text)
    assert last < first / 3
    assert mean < 10  # the mean of all training solutions has 25
    assert mean < largest < 40


def test_foreign_dataset(runs: Runs) -> None:
    text = runs.output("foreign_dataset.py")
    assert "24 samples, 16 train, 4 valid, 4 test" in text
    assert "-div(a*grad(u)) = beta on (64, 64) cells from ('a',) to ('u',)" in text
    (difference,) = numbers(r"solved again: relative difference ([\d.e+-]+)", text)
    assert difference < 1e-6  # of float32


def test_operator_as_initial_guess(runs: Runs) -> None:
    text = runs.output("operator_as_initial_guess.py")
    (error,) = numbers(r"mean error of the operator ([\d.]+)%", text)
    assert error < 12
    zero, answer = (numbers(rf"from {name}: ([\d.]+) steps", text)[0] for name in ("zero", "the operator's answer"))
    assert answer < zero - 1
    assert text.count("all converged: True") == 2


def test_tuner_in_a_heat_simulation(runs: Runs) -> None:
    text = runs.output("tuner_in_a_heat_simulation.py")
    fixed = [numbers(rf"relaxation {omega}: (\d+) iterations", text)[0] for omega in ("1.3", "1.6", "1.9")]
    tuned, apart = numbers(r"tuned: (\d+) iterations, temperatures within ([\d.e+-]+)", text)
    (again,) = numbers(r"with what was learned: (\d+) iterations", text)
    assert again < tuned < min(fixed)
    assert apart < 1e-6
    standing, stirred = numbers(r"relaxation ([\d.]+) where the melt stands, ([\d.]+) where it is stirred", text)
    assert standing < stirred
    TunerState.load(runs.folder("tuner_in_a_heat_simulation.py") / "tuner_in_a_heat_simulation.json")


def test_neural_ode(runs: Runs) -> None:
    text = runs.output("neural_ode.py")
    vanilla, before = numbers(r"vanilla: (\d+) evaluations for a prediction, ([\d.]+)% right", text)
    cheap, right = numbers(r"regularized: (\d+) evaluations for a prediction, ([\d.]+)% right", text)
    assert cheap <= 0.6 * vanilla
    assert right > max(94, before - 1.5)


def test_neural_sde(runs: Runs) -> None:
    text = runs.output("neural_sde.py")
    pattern = r"{}: (\d+) evaluations, squared distance from the data ([\d.]+)"
    vanilla, before = numbers(pattern.format("vanilla"), text)
    cheap, distance = numbers(pattern.format("regularized"), text)
    assert cheap <= 0.7 * vanilla
    assert max(before, distance) < 0.1  # 1.09 if nothing moves


def test_regularized_torchdiffeq(runs: Runs) -> None:
    text = runs.output("regularized_torchdiffeq.py")
    pattern = r"{}: (\d+) evaluations in the training, \d+ at its end, ([\d.]+)% right"
    plain, before = numbers(pattern.format("plain torchdiffeq"), text)
    cheap, right = numbers(pattern.format("regularized"), text)
    assert cheap < 0.8 * plain
    assert min(before, right) > 95


def test_recipes(runs: Runs) -> None:
    assert "64 train, 32 valid, 64 test" in runs.output("recipes/darcy-32.toml")
    text = runs.output("recipes/mgno-darcy-32.toml")
    (error,) = numbers(r"L2 +([\d.]+) %", text)
    assert error < 20
    operator = operators.load(runs.folder("recipes/mgno-darcy-32.toml") / "mgno-darcy-32" / "operator")
    data = datasets.open(runs.root / "data" / "darcy-32").split("valid")
    a, u = data.read("a"), data.read("u")
    with torch.no_grad():
        answer = operator({"a": a}, data.grid)["u"]
    errors = (answer - u).flatten(1).norm(dim=1) / u.flatten(1).norm(dim=1)
    assert float(errors.mean()) == pytest.approx(error / 100, rel=1e-3)
