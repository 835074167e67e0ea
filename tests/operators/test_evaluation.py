"""Evaluation of operators whose errors are known in closed form, and of `sciml evaluate`."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from typer.testing import CliRunner

import sciml
from sciml import Dirichlet, Equation, Grid, InputError, Neumann
from sciml.command_line import app
from sciml.datasets import Dataset, Description, Field, Manifest, generate, load_recipe, write_shard
from sciml.datasets import open as open_dataset
from sciml.operators import MgNO, Normalized, RelativeL2, TrainedOperator, evaluate
from sciml.operators.against_solver import Problem, compare
from sciml.operators.evaluation import _problem, _Task
from sciml.operators.place import Place
from sciml.operators.resampling import resample
from sciml.operators.trained import Channel

NU, STEP, WRONG = 0.02, 0.1, 0.05

POISSON: dict[str, Any] = {
    "name": "poisson",
    "equation": {"text": "-laplacian(u) = f"},
    "domain": {"shape": [16, 16], "lower": [0.0, 0.0], "upper": [1.0, 1.0]},
    "fields": {"f": {"kind": "gaussian", "alpha": 2.0, "tau": 3.0, "boundary": "neumann", "zero_mean": False}},
    "solver": {"rtol": 1e-10},
    "stored": {"dtype": "float64"},
    "samples": {"train": 2, "test": 7, "shard": 4, "batch": 4},
}
HEAT: dict[str, Any] = {
    "name": "heat",
    "equation": {"text": "u_t = nu*u_xx", "parameters": {"nu": NU}},
    "domain": {"shape": [32], "lower": [0.0], "upper": [1.0]},
    "boundary": {"all": {"kind": "periodic"}},
    "initial": {"u": {"kind": "gaussian", "alpha": 2.0, "tau": 5.0, "sigma": 25.0}},
    "scheme": {"name": "Spectral"},
    "solver": {"times": {"start": 0.0, "end": 5 * STEP, "count": 6}, "rtol": 1e-9},
    "stored": {"dtype": "float64"},
    "samples": {"train": 2, "test": 4, "shard": 4, "batch": 4},
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    found = {}
    for recipe in (POISSON, HEAT):
        found[recipe["name"]] = tmp_path_factory.mktemp("data") / recipe["name"]
        generate(load_recipe(recipe), found[recipe["name"]], workers=0)
    return found


@pytest.fixture(scope="module")
def poisson(folders: dict[str, Path]) -> Dataset:
    return open_dataset(folders["poisson"])


@pytest.fixture(scope="module")
def heat(folders: dict[str, Path]) -> Dataset:
    return open_dataset(folders["heat"])


class Inverse(nn.Module):
    """The solution of -laplacian(u) = f on the unit square by finite volumes, in its eigenvectors, times a factor."""

    def __init__(self, n: int, factor: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        index = torch.arange(n, dtype=torch.float64)
        sines = torch.sin(math.pi * (index + 1)[:, None] * (index + 0.5) / n)
        self.sines = (sines / sines.norm(dim=1, keepdim=True)).float()
        values = 4 * n**2 * torch.sin(math.pi * (index + 1) / (2 * n)) ** 2
        self.values = (values[:, None] + values).float()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        u = self.sines.T @ ((self.sines @ x @ self.sines.T) / self.values) @ self.sines
        return u * self.factor(x).reshape(-1, 1, 1, 1)


class Propagator(nn.Module):
    """The heat equation on a ring of length 1 over one step, times a factor."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        k = 2 * math.pi * torch.arange(x.shape[-1] // 2 + 1)
        return self.factor * torch.fft.irfft(torch.fft.rfft(x) * torch.exp(-NU * STEP * k**2), n=x.shape[-1])


def operator_for(data: Dataset, network: nn.Module, **changes: Any) -> TrainedOperator:
    given = {
        "network": Normalized(network, [0.0], [1.0], [0.0], [1.0]).eval(),
        "inputs": (Channel(data.inputs[0]),),
        "outputs": (Channel("u"),),
        "place": Place.of(data.grid),
        "equation": data.equation,
        **changes,
    }
    return TrainedOperator(**given)


def wrong_by_sample(x: Tensor) -> Tensor:
    return 1 + 0.1 * x.abs().amax((1, 2, 3))


# Errors


def test_errors_of_a_steady_problem(poisson: Dataset):
    """A solution that is too large by e has the relative error e in every norm, and e**2 of the energy everywhere."""
    report = evaluate(operator_for(poisson, Inverse(16, wrong_by_sample)), poisson, solver=False, batches=(1,))
    expected = 0.1 * poisson.split("test").read("f").abs().amax((1, 2))
    for norm in ("L2", "H1", "largest"):
        torch.testing.assert_close(report.errors["u"][norm], expected, rtol=1e-4, atol=0.0)
        numbers = report.table()["u"][norm]
        assert numbers["mean"] == pytest.approx(float(expected.mean()), rel=1e-4)
        for q in (50, 90, 95, 99, 100):
            assert numbers[str(q)] == pytest.approx(np.percentile(expected, q, method="inverted_cdf"), rel=1e-4)
    u = poisson.split("test").read("u")
    spectrum = report.spectra["u"]
    assert spectrum.basis == "sines along x, sines along y"
    assert float(spectrum.truth.sum()) == pytest.approx(float(u.square().mean()))
    assert float(spectrum.error.sum()) == pytest.approx(float((expected[:, None, None] * u).square().mean()), rel=1e-4)
    order = expected.argsort()
    assert [case.sample for case in report.cases] == [int(order[-1]), int(order[-2]), int(order[3])]
    worst = report.cases[0]
    torch.testing.assert_close(
        worst.prediction["u"], u[worst.sample] * (1 + expected[worst.sample]), rtol=1e-4, atol=1e-7
    )
    assert report.rollout is None


def test_one_step_and_going_on_in_time(heat: Dataset):
    """Each step makes the state too large by 5 %, so that n steps make it too large by 1.05**n - 1."""
    operator = operator_for(heat, Propagator(1 + WRONG), interval=STEP)
    report = evaluate(operator, heat, solver=False, batches=(1,))
    assert report.dataset["pairs"] == 4 * 5
    for norm in ("L2", "H1", "largest"):
        torch.testing.assert_close(report.errors["u"][norm], torch.full((20,), WRONG).double(), rtol=1e-3, atol=0.0)
    spectrum = report.spectra["u"]
    assert spectrum.basis == "waves along x"
    low = slice(0, 6)
    torch.testing.assert_close(spectrum.error[low], WRONG**2 * spectrum.truth[low], rtol=1e-3, atol=1e-14)
    assert report.rollout is not None
    torch.testing.assert_close(report.rollout.times, STEP * torch.arange(1, 6, dtype=torch.float64))
    growth = (1 + WRONG) ** torch.arange(1, 6, dtype=torch.float64) - 1
    torch.testing.assert_close(report.rollout.errors["u"], growth.expand(4, 5), rtol=1e-3, atol=0.0)
    u = heat.split("test").read("u")
    standing = (u[:, 1:] - u[:, :1]).norm(dim=2) / u[:, 1:].norm(dim=2)
    torch.testing.assert_close(report.rollout.standing["u"], standing)


def test_inputs_that_change_on_the_way_are_those_of_each_time(tmp_path: Path):
    """u grows by f, which the operator is given too: going on is exact with the f of each time, and only so."""
    f = torch.randn(3, 5, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    u = torch.cat((torch.ones(3, 1, 8), 1 + f.cumsum(1)[:, :-1]), 1)
    moving = {"u": Field(time_varying=True), "f": Field(time_varying=True)}
    grid, times = Grid(8), torch.arange(5.0)
    description = Description("sums", grid, moving, times, inputs=("u", "f"), outputs=("u",))
    Manifest("sums", (write_shard(tmp_path, "test", 0, description, {"u": u, "f": f}, {}),), {}).write(tmp_path)

    class Sum(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.sum(1, keepdim=True)

    data = open_dataset(tmp_path)
    network = Normalized(Sum(), [0.0, 0.0], [1.0, 1.0], [0.0], [1.0])
    inputs = (Channel("u"), Channel("f"))
    operator = replace(operator_for(data, nn.Identity(), interval=1.0), network=network, inputs=inputs)
    report = evaluate(operator, data, solver=False, batches=(1,))
    assert report.rollout is not None and report.rollout.errors["u"].shape == (3, 4)
    assert float(report.rollout.errors["u"].max()) < 1e-5


def test_an_operator_over_several_times(heat: Dataset):
    """Two steps of the dataset at once: four pairs of times, and a rollout over times 2 and 4."""

    class Twice(Propagator):
        def forward(self, x: Tensor) -> Tensor:
            return Propagator.forward(self, Propagator.forward(self, x))

    report = evaluate(operator_for(heat, Twice(1 + WRONG), interval=2 * STEP), heat, solver=False, batches=(1,))
    assert report.dataset["pairs"] == 4 * 4
    twice = (1 + WRONG) ** 2
    torch.testing.assert_close(report.errors["u"]["L2"], torch.full((16,), twice - 1).double(), rtol=1e-3, atol=0.0)
    assert report.rollout is not None
    torch.testing.assert_close(report.rollout.times, STEP * torch.tensor([2.0, 4.0], dtype=torch.float64))
    torch.testing.assert_close(
        report.rollout.errors["u"][0], torch.tensor([twice - 1, twice**2 - 1]).double(), rtol=1e-3, atol=0.0
    )


def test_another_grid_than_that_of_the_training(poisson: Dataset):
    place = replace(Place.of(poisson.grid), shape=(8, 8))
    network = Inverse(8, lambda x: torch.ones(len(x)))
    report = evaluate(operator_for(poisson, network, place=place), poisson, solver=False, batches=(1,))
    test, flat = poisson.split("test"), (False, False)
    coarse = network(resample(test.read("f").float(), (8, 8), flat)[:, None])
    expected = RelativeL2()(resample(coarse, (16, 16), flat).double(), test.read("u")[:, None])
    torch.testing.assert_close(report.errors["u"]["L2"], expected, rtol=1e-5, atol=0.0)
    assert any("trained at 8 x 8, evaluated at 16 x 16" in note for note in report.notes)


class Scale(nn.Module):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return self.factor * x


def at_nodes(cells: int, folder: Path) -> Dataset:
    """u = sin(pi x) sin(pi y) with its right side, also on the walls of the unit square."""
    x = torch.linspace(0, 1, cells + 1, dtype=torch.float64)
    u = torch.sin(math.pi * x)[:, None] * torch.sin(math.pi * x)
    description = Description(
        name="nodes",
        grid=Grid((cells, cells)),
        fields={"f": Field(), "u": Field()},
        equation=Equation("-laplacian(u) = f"),
        inputs=("f",),
        outputs=("u",),
        points="nodes",
    )
    entry = write_shard(folder, "test", 0, description, {"f": 2 * math.pi**2 * u[None], "u": u[None]}, {})
    Manifest("nodes", (entry,), {}).write(folder)
    return open_dataset(folder)


def test_values_at_nodes(tmp_path: Path):
    """Errors are known there, and the solver, on the domain between them, is of second order."""
    exact = 1 / (2 * math.pi**2)
    errors = []
    for cells in (16, 32):
        data = at_nodes(cells, tmp_path / str(cells))
        place = Place.of(data.domain, "nodes")
        operator = operator_for(data, Scale((1 + WRONG) * exact), place=place)
        task = _Task(operator, data.split("test"), 1)
        rows = torch.arange(1)
        answers, _ = _problem(task, rows, 0, None, {}, task.truth(rows, 0), None).solve((cells, cells), 1e-10)
        errors.append(float((answers["u"] - data.read("u")).norm() / data.read("u").norm()))
    assert math.log2(errors[0] / errors[1]) == pytest.approx(2.0, abs=0.1)
    report = evaluate(operator, data, batches=(1,))
    for norm in ("L2", "H1", "largest"):
        assert float(report.errors["u"][norm]) == pytest.approx(WRONG, rel=1e-4)
    spectrum = report.spectra["u"]
    assert spectrum.basis == "sines along x, sines along y"
    assert float(spectrum.truth[1]) == pytest.approx(0.25)
    assert float(spectrum.error.sum()) == pytest.approx(0.25 * WRONG**2, rel=1e-4)
    assert report.comparison is not None and report.comparison.reached is not None
    assert report.comparison.reached <= report.comparison.error == pytest.approx(WRONG, rel=1e-4)
    coarser = operator_for(data, Scale(exact), place=Place.of(Grid((16, 16)), "nodes"))
    assert float(evaluate(coarser, data, solver=False, batches=(1,)).errors["u"]["L2"]) < (math.pi / 16) ** 2 / 3


def test_answers_that_are_not_finite(poisson: Dataset, heat: Dataset):
    f = poisson.split("test").read("f").abs().amax((1, 2))
    limit = float(f.sort().values[-2])
    network = Inverse(16, lambda x: torch.where(x.abs().amax((1, 2, 3)) >= 0.9999 * limit, math.nan, 1.0 + WRONG))
    report = evaluate(operator_for(poisson, network), poisson, batches=(1,))
    assert set(report.not_finite) == set(f.argsort()[-2:].tolist())
    numbers = report.described()["errors"]["u"]["L2"]
    assert numbers["mean"] is None
    assert numbers["100"] is None
    assert numbers["50"] == pytest.approx(WRONG, rel=1e-3)
    assert all(case.sample not in report.not_finite for case in report.cases)
    assert "NaN or infinite answers for sample" in str(report)
    # A rollout that overflows: infinite from there on, and other samples go on.
    largest = heat.split("test").read("u")[:, 0].abs().amax(1)

    class Overflow(Propagator):
        def forward(self, x: Tensor) -> Tensor:
            y = Propagator.forward(self, x)
            return torch.where(y.abs().amax((1, 2), keepdim=True) > 1.5 * largest.max(), math.inf, y)

    rollout = evaluate(operator_for(heat, Overflow(2.0), interval=STEP), heat, solver=False, batches=(1,)).rollout
    assert rollout is not None
    finite = torch.isfinite(rollout.errors["u"])
    assert bool(finite.any()) and not bool(finite.all())
    assert bool((finite[:, 1:] <= finite[:, :-1]).all())
    exact = 2.0 ** torch.arange(1, 6, dtype=torch.float64) - 1
    torch.testing.assert_close(rollout.errors["u"][finite], exact.expand(4, 5)[finite], rtol=1e-3, atol=0.0)


# The solver


def test_the_solver_is_as_accurate_as_the_operator(poisson: Dataset):
    report = evaluate(
        operator_for(poisson, Inverse(16, lambda x: torch.full((len(x),), 1.0 + WRONG))), poisson, batches=(1, 3)
    )
    found = report.comparison
    assert found is not None
    assert found.error == pytest.approx(WRONG, rel=1e-3)
    assert found.reached is not None and found.shape is not None and found.rtol is not None
    assert found.reached <= found.error
    test = poisson.split("test")
    grid = Grid(found.shape)
    f = resample(test.read("f"), found.shape, (False, False))
    u = resample(sciml.solve(poisson.equation, grid, fields={"f": f}, rtol=found.rtol).value, (16, 16), (False, False))
    assert found.reached == pytest.approx(float(RelativeL2()(u[:, None], test.read("u")[:, None]).mean()), rel=1e-6)
    assert [timing.batch for timing in found.timings] == [1, 3]
    assert all(min(t.operator) > 0 and t.solver is not None and min(t.solver) > 0 for t in found.timings)
    assert any("quicker at this accuracy" in sentence for sentence in found.sentences())
    # The residual of (1 + e) u is e times the right side.
    guess = found.guess
    assert guess is not None
    assert guess.residual == pytest.approx(WRONG, rel=0.02)
    assert guess.iterations[1] <= guess.iterations[0]


def test_an_answer_saves_iterations(poisson: Dataset):
    """An exact operator in float32 leaves its rounding, some 1e-5 of the residual, to the solver."""
    report = evaluate(operator_for(poisson, Inverse(16, lambda x: torch.ones(len(x)))), poisson, batches=(1,))
    assert report.comparison is not None
    guess = report.comparison.guess
    assert guess is not None
    assert guess.residual is not None and guess.residual < 1e-4
    cold = sciml.solve(poisson.equation, poisson.grid, fields={"f": poisson.split("test").read("f")}, rtol=1e-8)
    assert guess.iterations[0] == pytest.approx(float(cold.statistics["iterations"].double().mean()))
    assert guess.iterations[1] <= 0.6 * guess.iterations[0]


def test_no_solver_is_good_enough_for_an_error_of_zero(poisson: Dataset):
    test = poisson.split("test")
    f, u = test.read("f"), test.read("u")
    problem = Problem(
        poisson.equation, test.grid, None, {"f": f}, {}, {"u": 1.001 * u}, {}, None, (16, 16), (False, False)
    )
    found = compare(lambda rows: {"u": u[rows]}, problem, 0.0, len(f), torch.device("cpu"), (1,))
    assert found.shape is None
    assert found.nearest == pytest.approx(1 - 1 / 1.001, rel=1e-3)
    assert any("no setting of the solver" in sentence for sentence in found.sentences())


def test_nonlinear_equations_begin_at_the_answer():
    """u**3 makes Newton's method take steps; from the solution it takes none, or one."""
    equation = Equation("-laplacian(u) + 100*u**3 = f")
    grid = Grid((16, 16))
    x, y = grid.coordinates
    f = torch.stack([100 * torch.sin(math.pi * x) * torch.sin(math.pi * y), 50 + 0 * x])
    u = sciml.solve(equation, grid, fields={"f": f}).value
    problem = Problem(equation, grid, None, {"f": f}, {}, {"u": u}, {}, None, (16, 16), (False, False))
    guess = compare(lambda rows: {"u": u[rows]}, problem, 0.01, 2, torch.device("cpu"), (1,)).guess
    assert guess is not None and guess.inner is not None
    assert guess.iterations[0] >= 3
    assert guess.iterations[1] <= 1
    assert guess.inner[1] < guess.inner[0]


def test_in_time_the_solver_goes_as_far_as_the_operator(heat: Dataset):
    operator = operator_for(heat, Propagator(1 + WRONG), interval=STEP)
    task = _Task(operator, heat.split("test"), 4)
    rows = torch.arange(4)
    truth = task.truth(rows, 2)
    problem = _problem(task, rows, 2, sciml.Spectral(), {}, truth, (2 * STEP, 3 * STEP))
    answers, _ = problem.solve((32,), 1e-9)
    torch.testing.assert_close(answers["u"], truth["u"], rtol=1e-6, atol=1e-8)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = evaluate(operator, heat, scheme=sciml.Spectral(), batches=(1,)).comparison
    assert found is not None and found.reached is not None
    assert found.times == pytest.approx((2 * STEP, 3 * STEP))
    assert found.reached <= found.error == pytest.approx(WRONG, rel=1e-3)
    assert found.guess is None


# What is refused


@pytest.mark.parametrize(
    ("changes", "given", "message"),
    [
        ({"inputs": (Channel("k"),)}, {}, "input 'k', which dataset 'poisson' lacks"),
        ({"outputs": (Channel("v"),)}, {}, "output 'v', which dataset 'poisson' lacks"),
        ({"inputs": (Channel("f", components=(2,)),)}, {}, r"components \(2,\), that of dataset 'poisson' \(\)"),
        ({"place": Place.of(Grid((16, 16), upper=2.0))}, {}, "trained on the box"),
        ({"place": Place.of(Grid((16, 16), boundary=Neumann(0.0)))}, {}, "trained with Neumann"),
        ({"place": Place.of(Grid((16, 16), boundary=Dirichlet(1.0)))}, {}, r"trained with Dirichlet\(1\)"),
        ({}, {"split": "valid"}, "no split 'valid'"),
        ({}, {"samples": 0}, "at least 1"),
    ],
)
def test_what_does_not_fit_is_refused(poisson: Dataset, changes: Any, given: Any, message: str):
    operator = operator_for(poisson, Inverse(16, wrong_by_sample), **changes)
    with pytest.raises(InputError, match=message):
        evaluate(operator, poisson, **given)


@pytest.mark.parametrize(
    ("interval", "message"),
    [(0.15, r"goes 0.15 ahead in time, and .* lie 0.1, 0.2, 0.3, ... after"), (None, "one of a steady problem")],
)
def test_other_times_are_refused(heat: Dataset, interval: float | None, message: str):
    with pytest.raises(InputError, match=message):
        evaluate(operator_for(heat, Propagator(1.0), interval=interval), heat)


def test_a_dataset_without_an_equation_has_no_solver(poisson: Dataset):
    bare = Dataset(replace(poisson.description, equation=None), poisson.parts)
    report = evaluate(operator_for(poisson, Inverse(16, wrong_by_sample)), bare, batches=(1,))
    assert report.comparison is not None
    assert report.comparison.timings[0].solver is None
    assert any("does not say its equation" in note for note in report.notes)


# The command


def run(*arguments: object) -> Any:
    return CliRunner().invoke(app, ["evaluate", *map(str, arguments)])


@pytest.fixture(scope="module")
def stored(poisson: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An operator of random weights."""
    torch.manual_seed(0)
    network = MgNO(in_channels=1, channels=4, layers=1, levels=[[1, 0], [1, 0]])
    folder = tmp_path_factory.mktemp("operator")
    operator_for(poisson, network).save(folder)
    return folder


def test_the_command(stored: Path, folders: dict[str, Path], tmp_path: Path):
    result = run(stored, "--data", folders["poisson"], "--output", tmp_path / "out", "--samples", 3)
    assert result.exit_code == 0, result.output
    assert "relative L2" in result.output
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["cases.png", "evaluation.json", "spectra.png"]
    content = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    data = open_dataset(folders["poisson"]).split("test")
    f, u = data.read("f", [0, 1, 2]), data.read("u", [0, 1, 2])
    with torch.no_grad():
        answer = sciml.operators.load(stored)({"f": f.float()}, data.grid)["u"].double()
    expected = (answer - u).flatten(1).norm(dim=1) / u.flatten(1).norm(dim=1)
    assert content["error_of_each"]["u"]["L2"] == pytest.approx(expected.tolist(), rel=1e-5)
    assert content["dataset"]["samples"] == 3
    assert content["comparison"]["threads"] == torch.get_num_threads()


def test_the_command_says_that_answers_are_not_finite(poisson: Dataset, folders: dict[str, Path], tmp_path: Path):
    network = MgNO(in_channels=1, channels=4, layers=1, levels=[[1, 0]])
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.fill_(math.nan)
    operator_for(poisson, network).save(tmp_path / "o")
    result = run(tmp_path / "o", "--data", folders["poisson"], "--output", tmp_path / "out")
    assert result.exit_code == 1
    assert "answers for 7 samples are NaN or infinite; the first is 0" in result.stderr
    assert "no cases.png" in result.stderr
    content = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert content["not_finite"] == [0, 1, 2, 3, 4, 5, 6]
    assert content["errors"]["u"]["L2"]["50"] is None
    assert content["comparison"]["timings"][0]["solver"] is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{data}", "--data", "{data}"], "holds no operator"),
        (["{operator}", "--data", "{operator}"], "manifest.json"),
        (["{operator}", "--data", "{data}", "--split", "valid"], "no split 'valid'"),
        (["{operator}", "--data", "{other}"], "trained on the box"),
        (["{operator}", "--data", "{data}", "--device", "nowhere"], "--device nowhere"),
    ],
)
def test_the_command_refuses(
    arguments: list[str], message: str, stored: Path, folders: dict[str, Path], tmp_path: Path
):
    places = {"data": folders["poisson"], "other": folders["heat"], "operator": stored}
    result = run(*(text.format(**places) for text in arguments), "--output", tmp_path / "out")
    assert result.exit_code == 2
    assert message in result.stderr
    assert not (tmp_path / "out").exists()
