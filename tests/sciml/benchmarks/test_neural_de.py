"""The cases and figures of the suite `neural-de`, and one run of all of it at its smallest."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from sciml.benchmarks import program
from sciml.benchmarks.bench import Bench
from sciml.benchmarks.neural_de import gradients, kept, methods, order, picture, plan, sde, step, stiffness, training
from sciml.benchmarks.neural_de.gradients import Interval
from sciml.benchmarks.neural_de.kept import Trainings
from sciml.benchmarks.neural_de.methods import BIASED, ER, OF_STOCHASTIC, SETTINGS, SR, UNBIASED, VANILLA
from sciml.benchmarks.neural_de.order import Geometric
from sciml.benchmarks.neural_de.sde import SOSRI2, SRK, Spiral, method_name
from sciml.benchmarks.neural_de.training import Course
from sciml.benchmarks.row import Row, Rows
from sciml.benchmarks.runner import reached
from sciml.benchmarks.suite import Device, Size
from sciml.benchmarks.timing import IMPATIENCE
from sciml.solvers.neural_de.tasks import Task, shipped_recipes

pytest.importorskip("sklearn")

TINY = plan.EXTENTS["tiny"]
LITTLE = TINY.courses[0]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """What is kept stands here."""
    with pytest.MonkeyPatch.context() as patch:
        place = tmp_path_factory.mktemp("kept")
        patch.setattr(kept, "folder", lambda: place)
        yield place


def bench() -> Bench:
    return Bench("neural-de", "tiny", "cpu", lambda line: None, patience=IMPATIENCE)


def test_every_method_goes_with_every_task() -> None:
    """And is not the plain model."""
    for course in plan.EXTENTS["medium"].courses:
        assert course.task in shipped_recipes()
        for method in course.chosen():
            task = course.made(method, 3)
            assert task.plan.seed == 3
            assert (task.regularization.regularizer is None) == (method == VANILLA)
        assert set(course.chosen()) == set(OF_STOCHASTIC if course.task.endswith("sde") else SETTINGS)
    assert set(methods.PUBLISHED) <= {course.task for course in plan.EXTENTS["medium"].courses}


def trained(case: str, method: str, values: dict[int, float], seconds: float, headline: str = "accuracy") -> Row:
    seeds = [
        {
            "seed": seed,
            "metrics": {"loss": 1 - value, headline: value},
            "evaluations": 100 * seconds + seed,
            "training_seconds": seconds,
            "prediction_seconds": 0.1 * seconds,
        }
        for seed, value in values.items()
    ]
    extra = {**seeds[0], "headline": headline, "value": values[0], "seeds": seeds, "published": None}
    return Row("neural-de", case, method, "sciml", solve_seconds=seconds, extra=extra)


def figures_of(rows: list[Row], extent: plan.Extent = plan.EXTENTS["medium"]) -> dict[str, float | None]:
    return {item.figure.what: item.value for item in (reached(each, Rows(rows)) for each in plan.figures(extent))}


def test_figures_of_trainings_are_medians_of_ratios_seed_by_seed() -> None:
    case = Course("digits-ode").name
    plain, own = {0: 0.97, 1: 0.98, 2: 0.96}, {0: 0.96, 1: 0.98, 2: 0.955}
    rows = [trained(case, VANILLA, plain, 2.0), trained(case, ER, own, 0.5), trained(case, UNBIASED, own, 1.0)]
    found = figures_of(rows)
    assert found[f"{case}, ER, evaluations over vanilla's"] == pytest.approx(51 / 201)
    assert found[f"{case}, ER, training seconds over vanilla's"] == pytest.approx(0.25)
    assert found[f"{case}, ER, prediction seconds over vanilla's"] == pytest.approx(0.25)
    assert found[f"{case}, ER, points of accuracy lost"] == pytest.approx(0.5)
    assert found[f"{case}, ER, cross-entropy over vanilla's"] == pytest.approx(0.045 / 0.04)
    assert found[f"{case}, {UNBIASED}, evaluations over vanilla's"] == pytest.approx(101 / 201)
    assert found[f"{case}, {BIASED}, evaluations over vanilla's"] is None


def test_the_better_of_two_has_to_be_good_enough() -> None:
    case = Course("latent-spirals").name
    name = f"{case}, the better of ER and SR, evaluations over vanilla's"
    plain = trained(case, VANILLA, {0: 1.0}, 4.0, "error")
    quick, slow = trained(case, ER, {0: 1.2}, 1.0, "error"), trained(case, SR, {0: 1.04}, 2.0, "error")
    assert figures_of([plain, quick, slow])[name] == pytest.approx(0.5)
    good = trained(case, ER, {0: 1.05}, 1.0, "error")
    found = figures_of([plain, good, slow])
    assert found[name] == pytest.approx(0.25)
    assert found[f"{case}, the same, error over vanilla's"] == pytest.approx(1.05)
    both_bad = figures_of([plain, quick, replace(slow, extra={**slow.extra, "value": 1.3})])
    assert both_bad[f"{case}, the same, error over vanilla's"] == pytest.approx(1.2)


def test_every_figure_follows_from_the_rows_of_the_cases() -> None:
    """With a row of every method on every case no figure is missing."""
    extent = plan.EXTENTS["medium"]
    rows = []
    for course in extent.courses:
        headline = "accuracy" if course.task.startswith("digits") else "error"
        for method in course.chosen():
            rows.append(trained(course.name, method, {0: 0.5}, 2.0 if method == VANILLA else 1.0, headline))
    names = [step.OWN, step.TORCHDIFFEQ, step.TSITOURAS]
    for place, name in enumerate(names):
        extra = {"total_seconds": 1.0 + place, "evaluations": 86 if place else 43}
        rows.append(Row("neural-de", extent.digits.peers_case, name, "sciml", extra=extra))
    for method in SETTINGS:
        extra = {"total_seconds": 1.04, "evaluations": 80 + 7 * method.startswith("local")}
        rows.append(Row("neural-de", extent.digits.regularizers_case, method, "sciml", extra=extra))
    for count in extent.spiral.counts:
        for name, seconds in ((SOSRI2, 1.0), (SRK, 4.0)):
            row = Row("neural-de", extent.spiral.name, method_name(name, count), "sciml", error=count**-1.5)
            rows.append(replace(row, solve_seconds=seconds * count))
    for name in order.METHODS:
        extra = {"order": 1.4, "of_method": 1.5}
        rows.append(Row("neural-de", extent.geometric.name, name, "sciml", extra=extra))
    for oscillator in extent.oscillators:
        for name in stiffness.METHODS:
            rows.append(Row("neural-de", oscillator.name, name, "sciml", extra={"factor": 1.5, "share": 0.5}))
    for case in (extent.ode.case, extent.sde.stochastic):
        rows += [Row("neural-de", case, name, "sciml", error=error) for name, error in (("a", 1e-9), ("b", 1e-7))]
    found = figures_of(rows)
    assert [what for what, value in found.items() if value is None] == []
    ends = {what.rpartition(", ")[2]: value for what, value in found.items()}
    assert ends["seconds an evaluation over torchdiffeq's"] == pytest.approx(1.0)  # half the time for half of them
    assert ends["SOSRI2 over torchsde's srk at equal strong error"] == pytest.approx(0.25)
    assert ends["observed order of SOSRI2 from 1.5"] == pytest.approx(0.1)
    assert ends["further evaluations of local, unbiased and local, biased".rpartition(", ")[2]] == 7
    assert ends["the largest relative difference from differences"] == 1e-7
    notes = [reached(each, Rows(rows)).note for each in plan.figures(extent)]
    assert any("43 evaluations against 86, 0.50 x in all" in note for note in notes)


def test_times_at_equal_error_lie_between_those_of_the_rows() -> None:
    spiral = Spiral(counts=(64, 128))
    rows = []
    for name, errors, seconds in ((SOSRI2, (1e-2, 1e-4), (1.0, 4.0)), (SRK, (1e-3, 1e-5), (8.0, 16.0))):
        for count, error, time in zip(spiral.counts, errors, seconds, strict=True):
            rows.append(Row("neural-de", spiral.name, method_name(name, count), "x", error=error, solve_seconds=time))
    assert sde.ratios(spiral, Rows(rows)) == pytest.approx({64: 2.0 / 8.0})
    assert sde.observed_order(spiral, SRK, Rows(rows)) == pytest.approx(math.log2(100))
    with pytest.raises(LookupError, match="outside"):
        sde.ratios(spiral, Rows([replace(row, error=1e-9) if SRK in row.method else row for row in rows]))


def test_orders_are_those_of_the_methods() -> None:
    rows = order.measure_order(Geometric(400, (16, 32, 64, 128)), bench())
    for row in rows:
        assert row.extra["order"] == pytest.approx(row.extra["of_method"], abs=0.2), row.method


def test_eigenvalues_of_the_oscillator_are_those_of_its_jacobian() -> None:
    oscillator = stiffness.OSCILLATORS[1]
    u = torch.tensor([1.3, -0.7], dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(lambda v: oscillator.rate(v, 0.0), u)
    expected = torch.linalg.eigvals(jacobian).abs().max()
    assert float(oscillator.largest_eigenvalue(u)) == pytest.approx(float(expected), rel=1e-12)
    v = oscillator.initial()
    assert abs(float(oscillator.rate(v, 0.0)[1])) < 1e-12 and float(v[1]) < 0  # the slow manifold, to first order


def test_a_gradient_that_is_wrong_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ESTIMATES", "INTEGRALS", "LOCAL"):
        monkeypatch.setattr(gradients, name, dict(list(getattr(gradients, name).items())[:1]))
    for row in gradients.measure_ode(Interval(1.0), bench()):
        assert row.error is not None and row.error < 1e-6, row
    grad = torch.autograd.grad

    def scaled(*arguments: Any, **options: Any) -> list[Any]:
        return [part if part is None else 1.001 * part for part in grad(*arguments, **options)]

    monkeypatch.setattr(torch.autograd, "grad", scaled)
    for row in gradients.measure_ode(Interval(1.0), bench()):
        assert row.error is not None and 1e-5 < row.error < 1e-2, row


def test_a_training_is_done_once_until_the_case_is_complete(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also one that was interrupted in between goes on."""
    begun: list[Any] = []
    train = Task.train

    def counted(self: Task, *arguments: Any, **options: Any) -> Any:
        assert options["resume"] is True
        begun.append(self.plan.seed)
        return train(self, *arguments, **options)

    monkeypatch.setattr(Task, "train", counted)
    task = LITTLE.made(ER, 0)
    first, model = Trainings("trial", "cpu").result(task)
    again, same = Trainings("trial", "cpu").result(task)
    assert first == again and begun == [0]
    states = model.state_dict(), same.state_dict()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert 0 < first["training_seconds"] <= 1.001 * first["clock_seconds"]
    Trainings("trial", "cpu").result(LITTLE.made(ER, 1))
    Trainings("trial", "cpu").result(LITTLE.made(UNBIASED, 1))
    assert begun == [0, 1, 1]
    monkeypatch.setattr(kept, "_programs", lambda: "others")
    Trainings("trial", "cpu").result(task)
    assert begun == [0, 1, 1, 0]
    Trainings("trial", "cpu").complete()
    assert not (folder / "trial").exists()


def test_every_case_runs(folder: Path, tmp_path: Path) -> None:
    rows: list[Row] = []
    for case in plan.plan("tiny", "cpu").cases:
        found = list(case.measure(bench()))
        assert {row.case for row in found} == {case.name}
        rows += found
    rows = [Row.from_json(json.loads(json.dumps(row.to_json()))) for row in rows]
    for row in rows:
        assert "failure" not in row.extra, row
    for course in TINY.courses:
        for method in course.chosen():
            row = Rows(rows).one(course.name, method)
            assert [seed["seed"] for seed in row.extra["seeds"]] == list(course.seeds)
            assert row.error == pytest.approx(1 - row.extra["value"]) and 0 < row.error < 1
            assert row.solve_seconds > 0 and row.extra["prediction_seconds"] > 0
            assert row.extra["published"]["evaluations"] > 0
            assert row.iterations == round(row.extra["evaluations"])
    assert not list(folder.glob("training*/*"))
    found = figures_of(rows, TINY)
    further = {what: value for what, value in found.items() if "further evaluations" in what}
    assert list(further.values()) == [0, 7]
    assert found[f"{TINY.spiral.name}, SOSRI2 over torchsde's srk at equal strong error"] is not None
    drawn = picture.draw(rows)
    assert drawn is not None
    panels = drawn.get_axes()
    assert [axes.get_title(loc="left") for axes in panels] == [
        course.name.removeprefix("training, ") for course in TINY.courses
    ]
    dots = [line for line in panels[0].lines if line.get_marker() == "o"]
    assert [line.get_label() for line in dots] == list(LITTLE.chosen())
    plain = Rows(rows).one(LITTLE.name, VANILLA)
    ends = [(seed["evaluations"], 100 * seed["metrics"]["accuracy"]) for seed in plain.extra["seeds"]]
    assert list(zip(*dots[0].get_data(), strict=True)) == ends
    assert picture.picture([]) is None


def test_a_method_that_fails_leaves_the_others(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = Trainings.result

    def failing(self: Trainings, task: Task) -> Any:
        if "LocalError" in str(task.regularization):
            raise training.TrainingError("the loss is not finite", None)  # type: ignore[arg-type]
        return result(self, task)

    monkeypatch.setattr(Trainings, "result", failing)
    course = Course("digits-ode", (0,), (VANILLA, UNBIASED), LITTLE.changes)
    plain, local = training.measure_training(course, bench())
    assert "failure" not in plain.extra
    assert "not finite" in local.extra["failure"]


def test_the_picture_stands_beside_the_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    from sciml.benchmarks import runner

    row = trained("training, digits-ode", VANILLA, {0: 0.9}, 1.0)
    seed = {**row.extra["seeds"][0], "validations": {"evaluations": [20, 26], "accuracy": [0.5, 0.9]}}
    row = replace(row, extra={**row.extra, "seeds": [seed]})
    measured = runner.Run("neural-de", "tiny", "cpu", [row])
    monkeypatch.setattr(runner, "run", lambda *arguments: measured)
    program.bench(["neural-de"], Size.TINY, Device.CPU, tmp_path / "rows.json")
    assert (tmp_path / "rows-neural-de.png").read_bytes().startswith(b"\x89PNG")
    assert str(tmp_path / "rows-neural-de.png") in capsys.readouterr().out
