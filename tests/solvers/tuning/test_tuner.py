"""The tuner: solves like a solver, learns from what that cost, bounds what a bad arm costs, resumes bit for bit."""

from __future__ import annotations

import copy
import itertools
import json
import pickle
from dataclasses import dataclass, replace

import numpy
import pytest
import torch

import sciml
from sciml.errors import InputError, SolveError
from sciml.linear_operator import Kind
from sciml.solvers.linear import (
    GMRES,
    SOR,
    SSOR,
    Chebyshev,
    ConjugateGradient,
    Direct,
    FlexibleConjugateGradient,
    IncompleteCholesky,
    Jacobi,
    LearnedMultigrid,
    Multigrid,
)
from sciml.solvers.linear.inverse import MatrixInverse
from sciml.solvers.linear.stationary import StationaryMethod
from sciml.solvers.tuning import (
    BanditTuner,
    ChebCB,
    Choice,
    ContextualTsallisINF,
    Policy,
    ThompsonSampling,
    TsallisINF,
    TunerState,
    dominance,
)
from sciml.solvers.tuning.records import as_data
from sciml.status import Status

CG_SSOR = ConjugateGradient(preconditioner=SSOR())


@dataclass(frozen=True, kw_only=True)
class InTurn(Policy):
    """Arms in a given order, with all that it is told kept in a list."""

    order: tuple[int, ...] = (0,)

    def validate(self):
        pass

    def describe(self):
        return "in turn"

    def begin(self, arms=None):
        return Told([], 0)

    def choose(self, state, context, generator):
        state.round += 1
        return Choice(self.order[(state.round - 1) % len(self.order)], 1.0)

    def expected(self, state, context):
        return None

    def update(self, state, choice, loss, context=None, estimate=None):
        state.told.append((choice.arm, loss, estimate))


@dataclass
class Told:
    told: list
    round: int


@dataclass(frozen=True)
class Refusing(StationaryMethod):
    """A preconditioner that cannot be set up."""

    fault: type = InputError

    def validate(self):
        pass

    def describe(self):
        return "refusing"

    def setup(self, operator):
        raise self.fault("not for this operator")


@dataclass(frozen=True)
class Scaled(StationaryMethod):
    """The identity times a number: the solver diverges where that is large."""

    factor: float = 1.0

    def validate(self):
        pass

    def describe(self):
        return f"times {self.factor:g}"

    def setup(self, operator):
        def times(b):
            return b * self.factor

        return MatrixInverse(operator, Kind.SYMMETRIC_POSITIVE, times, times, self.setup)


def solved(operator, b, solution, rtol=1e-8):
    residual = torch.linalg.vector_norm(b - operator.apply(solution.value), dim=(-2, -1))
    return bool((residual <= 1.0001 * rtol * torch.linalg.vector_norm(b, dim=(-2, -1))).all())


def told(tuner):
    return tuner.state.learned.policy.told


# Solving


@pytest.mark.parametrize(
    "solver, parameters",
    [
        (SOR(), {"relaxation": (1.0, 1.9)}),
        (SSOR(ordering="multicolour"), {"relaxation": (0.8, 1.5)}),
        (CG_SSOR, {"preconditioner.relaxation": (1.0, 1.9)}),
        (
            ConjugateGradient(),
            {"preconditioner": [Jacobi(), SSOR(1.5), IncompleteCholesky(), Chebyshev(), Multigrid()]},
        ),
        (GMRES(), {"restart": (5, 40), "preconditioner": [None, Jacobi()]}),
        (Multigrid(), {"sweeps": [1, 2], "smoother.relaxation": (0.7, 1.2, 3)}),
    ],
    ids=["SOR", "SSOR", "CG", "choices", "GMRES", "multigrid"],
)
def test_whatever_the_arm_the_residual_meets_the_tolerance(solver, parameters, laplacian, right_side):
    if isinstance(solver, Multigrid):
        names = {part.name for part in solver.__dataclass_fields__.values()}
        parameters = {k: v for k, v in parameters.items() if k.split(".")[0] in names}
    tuner = BanditTuner(solver, parameters, policy=TsallisINF(arms=4))
    operator = laplacian(0.1, 16)
    arms = set()
    for seed in range(12):
        b = right_side(seed, 16)
        solution = tuner.solve(operator, b)
        assert solved(operator, b, solution)
        assert solution.statistics["value"] == list(tuner.arms[solution.statistics["arm"]].values.values())
        assert solution.statistics["cost"] == float(solution.statistics["iterations"])
        assert 0 < solution.statistics["probability"] <= 1
        assert not solution.statistics["cut_off"]
        arms.add(solution.statistics["arm"])
    assert len(arms) > 1
    assert tuner.state.learned.rounds == 12 == tuner.state.learned.pulls.sum()


def test_an_arm_solves_as_its_solver_does(laplacian, right_side):
    operator, b = laplacian(0.05), right_side()
    tuner = BanditTuner(SOR(), {"relaxation": [1.2, 1.7]}, policy=InTurn(order=(0, 1)), rtol=1e-9)
    for relaxation in (1.2, 1.7):
        own = SOR(relaxation, rtol=1e-9).solve(operator, b)
        found = tuner.solve(operator, b)
        assert torch.equal(found.value, own.value)
        assert torch.equal(found.history["residual_norm"], own.history["residual_norm"])
        assert found.statistics["iterations"] == own.statistics["iterations"]


def test_the_tolerances_of_the_solver_become_those_of_the_tuner(laplacian, right_side):
    tuner = BanditTuner(SOR(rtol=1e-3, max_iterations=77), {"relaxation": (1.0, 1.9)})
    assert (tuner.rtol, tuner.max_iterations, tuner.solver.rtol) == (1e-3, 77, None)
    assert replace(tuner, rtol=1e-5).rtol == 1e-5
    assert BanditTuner(SOR(rtol=1e-3), {"relaxation": (1.0, 1.9)}, rtol=1e-4).rtol == 1e-4
    operator, b = laplacian(0.2), right_side()
    assert solved(operator, b, tuner.solve(operator, b), 1e-3)


def test_relaxation_is_learned(laplacian, right_side):
    """SOR on a mildly shifted Laplacian: the mean of the last rounds is near the best of the arms."""
    tuner = BanditTuner(SOR(), {"relaxation": (1.0, 1.9)}, policy=TsallisINF(arms=5, reduced_variance=True))
    operator, systems = laplacian(0.02), [right_side(seed) for seed in range(8)]
    best = min(
        numpy.mean([int(SOR(w).solve(operator, b).statistics["iterations"]) for b in systems])
        for w in numpy.linspace(1.0, 1.9, 5)
    )
    prepared = tuner.prepare(operator)
    costs = [prepared.solve(systems[t % 8]).statistics["cost"] for t in range(400)]
    assert numpy.mean(costs[-100:]) < 1.3 * best
    assert numpy.mean(costs[-100:]) < 0.7 * numpy.mean(costs[:20])


def test_contexts_pick_the_arm(laplacian, right_side):
    """Nearly singular and dominant systems in turn; the best relaxations differ."""
    tuner = BanditTuner(SOR(), {"relaxation": (1.0, 1.8)}, policy=ChebCB(arms=5, degree=1), context=dominance)
    easy, hard = laplacian(4.0), laplacian(0.0)
    costs = {}
    for t in range(200):
        operator = hard if t % 2 else easy
        solution = tuner.solve(operator, right_side(t))
        costs.setdefault(t % 2, []).append(solution.statistics["cost"])
        assert solution.statistics["context"] == pytest.approx(dominance(operator, right_side()))
    for kind, operator in ((0, easy), (1, hard)):
        arms = [
            numpy.mean([int(SOR(w).solve(operator, right_side(s)).statistics["iterations"]) for s in range(5)])
            for w in numpy.linspace(1.0, 1.8, 5)
        ]
        assert numpy.mean(costs[kind][-40:]) < 1.15 * min(arms)


def test_dominance_is_what_it_says(laplacian):
    operator = laplacian(3.0)
    dense = operator.to_sparse().to_dense()
    assert dominance(operator, torch.zeros(10, 10, dtype=torch.float64)) == pytest.approx(
        float(dense.sum(1).mean() / dense.diagonal().mean())
    )


def test_a_context_for_each_solve(laplacian, right_side):
    tuner = BanditTuner(SOR(), {"relaxation": (1.0, 1.9)}, policy=ContextualTsallisINF(interval=(0.0, 1.0), bins=2))
    operator = laplacian(1.0)
    for context in (0.1, 0.9, 0.95):
        assert tuner.with_context(context).solve(operator, right_side()).statistics["context"] == context
    assert [state.rounds for state in tuner.state.learned.policy.bins] == [1.0, 2.0]


def test_a_batch_is_one_round_and_its_cost_the_mean(laplacian, right_side):
    tuner = BanditTuner(SOR(), {"relaxation": (1.0, 1.9)})
    operator, b = laplacian(0.1), right_side(0, 10, (3, 2))
    b[0] *= 1e-3
    b[1, 1] = 0.0
    solution = tuner.solve(operator, b)
    assert solved(operator, b, solution)
    assert solution.statistics["cost"] == pytest.approx(float(solution.statistics["iterations"].double().mean()))
    assert tuner.state.learned.rounds == 1
    assert bool((solution.value[1, 1] == 0).all())


def test_nothing_is_learned_where_there_is_nothing_to_solve(laplacian):
    tuner = BanditTuner(SOR(), {"relaxation": (1.0, 1.9)})
    solution = tuner.solve(laplacian(), torch.zeros(10, 10, dtype=torch.float64))
    assert bool(solution.converged) and tuner.state.learned.rounds == 0


def test_only_the_arm_that_is_chosen_is_set_up(laplacian, right_side):
    tuner = BanditTuner(
        ConjugateGradient(),
        {"preconditioner": [Jacobi(), Refusing(), SSOR()]},
        policy=InTurn(order=(0, 2, 0)),
    )
    prepared = tuner.prepare(laplacian())
    for _ in range(3):
        assert not prepared.solve(right_side()).statistics["cut_off"]
    assert sorted(prepared.state._prepared) == [0, 2]


def test_within_another_method(laplacian, right_side):
    inner = BanditTuner(CG_SSOR, {"preconditioner.relaxation": (1.0, 1.8)}, rtol=1e-2)
    operator, b = laplacian(0.0, 16), right_side(1, 16)
    outer = FlexibleConjugateGradient(preconditioner=inner).solve(operator, b)
    assert solved(operator, b, outer)
    assert inner.state.learned.rounds >= int(outer.statistics["iterations"])


def test_of_an_equation(tmp_path):
    grid = sciml.Grid((12, 12), (0.0, 0.0), (1.0, 1.0), boundary=sciml.Dirichlet(0.0))
    tuner = BanditTuner(CG_SSOR, {"preconditioner.relaxation": (1.0, 1.8)})
    equation = sciml.Equation("-laplacian(u) = f")
    solution = sciml.solve(equation, grid, fields={"f": 1.0}, method=tuner)
    direct = sciml.solve(equation, grid, fields={"f": 1.0}, method=Direct())
    assert torch.allclose(solution.value, direct.value, rtol=1e-7)
    solution.save(tmp_path / "out.h5")
    again = sciml.Solution.load(tmp_path / "out.h5")
    assert torch.equal(again.value, solution.value)
    for key in ("arm", "value", "cost", "probability", "cut_off"):
        assert again.statistics[key] == solution.statistics[key]


# The fallback


def test_an_arm_is_cut_off_at_a_multiple_of_the_fallback(laplacian, right_side):
    """Rounds 0, 1, 2, 4 try the fallback; in round 3 the arm is stopped and the fallback takes over."""
    operator, b = laplacian(0.0), right_side()
    fallback = SOR(1.6)
    known = int(fallback.solve(operator, b).statistics["iterations"])
    tuner = BanditTuner(SOR(), {"relaxation": [1.0, 1.9]}, policy=InTurn(), fallback=fallback, patience=1.5)
    solutions = [tuner.solve(operator, b) for _ in range(6)]
    assert [s.statistics["arm"] for s in solutions] == [-1, -1, -1, 0, -1, 0]
    limit = -(-3 * known // 2)
    for solution in (solutions[3], solutions[5]):
        assert solved(operator, b, solution)
        assert solution.statistics["cut_off"]
        assert limit < int(solution.statistics["iterations"]) <= limit + known + 1
        assert solution.statistics["cost"] == float(solution.statistics["iterations"])
    alone = int(SOR(1.0).solve(operator, b).statistics["iterations"])
    assert alone > limit + known
    (arm, loss, estimate), _ = told(tuner)
    assert (arm, loss) == (0, solutions[3].statistics["cost"] - 1)
    assert estimate == pytest.approx(alone, rel=0.15)
    assert tuner.state.learned.fallback.value == pytest.approx(known, rel=0.1)


@pytest.mark.parametrize("policy", [ChebCB(), ContextualTsallisINF(interval=(0.0, 1.0))], ids=["ChebCB", "bins"])
def test_on_hard_systems_arms_have_the_time_that_the_fallback_takes_on_hard_systems(policy, laplacian, right_side):
    """Seven of eight are easy: by the mean over all every arm would be cut off on the eighth, where it is better than
    the fallback."""
    easy, hard, fallback = laplacian(64.0, 32), laplacian(0.0, 32), ConjugateGradient(preconditioner=SSOR(1.0))
    tuner = BanditTuner(
        CG_SSOR,
        {"preconditioner.relaxation": [1.4, 1.8]},
        policy=policy,
        context=dominance,
        fallback=fallback,
        patience=1.5,
    )
    b = right_side(0, 32)
    least, most = (int(fallback.solve(operator, b).statistics["iterations"]) for operator in (easy, hard))
    assert most > 8 * least
    solutions = [(tuner.solve(hard if t % 8 == 7 else easy, right_side(t, 32)), t % 8 == 7) for t in range(160)]
    latest = [solution.statistics for solution, is_hard in solutions[40:] if is_hard]
    assert len(latest) == 15 and sum(each["cut_off"] for each in latest) <= 1
    assert all(each["cost"] < most for each in latest if not each["cut_off"])
    learned = tuner.state.learned
    for operator, cost in ((easy, least), (hard, most)):
        assert learned.cost_of_fallback(dominance(operator, b)) == pytest.approx(cost, rel=0.25, abs=1)


def test_a_cut_off_keeps_what_the_arm_reached(laplacian, right_side):
    """The fallback goes on from the arm's iterate where that is better, and from the start where it is not."""
    operator, b = laplacian(0.0), right_side()
    start = torch.linalg.vector_norm(b)
    for arm, kept in ((1.0, True), (1.95, None)):
        tuner = BanditTuner(SOR(), {"relaxation": [arm, 1.9]}, policy=InTurn(), fallback=SOR(1.6), patience=0.5)
        for _ in range(4):
            solution = tuner.solve(operator, b)
        history = solution.history["residual_norm"]
        cut = -(-int(tuner.state.learned.fallback.value) // 2)
        assert solution.statistics["cut_off"]
        if kept:
            assert float(history[cut]) < 0.5 * float(start)
            assert float(history[cut + 1]) < 2 * float(history[cut])


def test_a_diverging_arm_does_no_harm(laplacian, right_side):
    operator, b = laplacian(1.0), right_side()
    tuner = BanditTuner(Scaled(), {"factor": [1.0, 1e30]}, policy=InTurn(), fallback=SOR(1.2))
    for _ in range(4):
        solution = tuner.solve(operator, b)
        assert solved(operator, b, solution)
    assert solution.statistics["arm"] == 0 and solution.statistics["cut_off"]


@pytest.mark.parametrize("fault", [InputError, RuntimeError, MemoryError])
def test_an_arm_that_is_refused_costs_like_a_cut_off_and_is_tried_ever_more_rarely(fault, laplacian, right_side):
    operator, b = laplacian(0.0), right_side()
    choices = {"preconditioner": [Refusing(fault), Jacobi()]}
    tuner = BanditTuner(ConjugateGradient(), choices, policy=InTurn(), fallback=CG_SSOR, patience=3.0)
    known = int(CG_SSOR.solve(operator, b).statistics["iterations"])
    failures = []
    for _ in range(40):
        solution = tuner.solve(operator, b)
        assert solved(operator, b, solution)
        assert solution.statistics["cost"] == known
        failures.append(int(tuner.state.learned.failures[0]))
    assert {loss for _, loss, _ in told(tuner)} == {4.0 * known - 1}
    grew = [t for t in range(1, 40) if failures[t] > failures[t - 1]]
    assert 2 <= len(grew) <= 6
    assert all(later - earlier >= 2**n for n, (earlier, later) in enumerate(itertools.pairwise(grew), 1))


def test_without_a_fallback_the_solver_as_given_takes_over_from_what_fails(laplacian, right_side):
    operator, b = laplacian(0.0), right_side()
    tuner = BanditTuner(ConjugateGradient(), {"preconditioner": [Refusing(), Jacobi()]}, policy=InTurn())
    solution = tuner.solve(operator, b)
    assert solved(operator, b, solution) and solution.statistics["cut_off"]
    assert solution.statistics["refused"] == "not for this operator"
    assert int(solution.statistics["iterations"]) == int(
        ConjugateGradient().solve(operator, b).statistics["iterations"]
    )


def test_the_best_arm_so_far_as_the_fallback(laplacian, right_side):
    operator, b = laplacian(0.0, 24), right_side(0, 24)
    choices = {"preconditioner": [Multigrid(), None, SSOR(1.8)]}
    tuner = BanditTuner(ConjugateGradient(), choices, policy=InTurn(order=(0, 1, 0, 2)), fallback="best", patience=1.5)
    first, second, _, fourth = (tuner.solve(operator, b) for _ in range(4))
    cycles = int(first.statistics["iterations"])
    assert not first.statistics["cut_off"]
    for solution in (second, fourth):
        assert solved(operator, b, solution)
        assert solution.statistics["cut_off"]
        assert int(solution.statistics["iterations"]) <= -(-3 * cycles // 2) + cycles + 1
    assert tuner.settled() == ConjugateGradient(preconditioner=Multigrid())


def test_an_arm_goes_on_where_no_other_has_worked(laplacian, right_side):
    """The solver as it is given is refused, and so is the other arm."""
    easy, hard, b = laplacian(30.0, 24), laplacian(0.0, 24), right_side(0, 24)
    tuner = BanditTuner(
        ConjugateGradient(Refusing()),
        {"preconditioner": [Refusing(), Jacobi()]},
        policy=InTurn(order=(0, 1, 1)),
        fallback="best",
        patience=1.5,
    )
    with pytest.raises(InputError, match="not for this operator"):
        tuner.solve(easy, b)
    learned = tuner.state.learned
    assert (learned.rounds, list(learned.failures)) == (1, [1, 0]), "what broke off is remembered"
    tuner.solve(easy, b)
    solution = tuner.solve(hard, b)
    assert solved(hard, b, solution)
    assert not solution.statistics["cut_off"]
    assert solution.statistics["cost"] == int(solution.statistics["iterations"])
    assert told(tuner)[-1] == (1, solution.statistics["cost"] - 1, None)
    assert solution.statistics["cost"] > 1.5 * told(tuner)[-2][1], "it ran into its limit on the way"


def test_a_failing_fallback_is_reported(laplacian, right_side):
    operator, b = laplacian(0.0), right_side()
    tuner = BanditTuner(
        Scaled(), {"factor": [1e3, 1e4]}, policy=InTurn(), fallback=Scaled(1e5), max_iterations=20, patience=2.0
    )
    with pytest.raises(SolveError) as caught:
        tuner.solve(operator, b)
    assert caught.value.solution.status[0] is not Status.CONVERGED
    for _ in range(3):
        solution = tuner.solve(operator, b, throw=False)
    assert solution.statistics["arm"] == 0 and not bool(solution.converged)
    refused = BanditTuner(ConjugateGradient(), {"preconditioner": [Refusing(), Jacobi()]}, fallback=Refusing())
    with pytest.raises(InputError, match="not for this operator"):
        refused.solve(operator, b)


def test_seconds_are_cut_off_by_a_deadline(laplacian, right_side):
    """An arm that would take tens of thousands of steps ends soon after a few times what the fallback takes."""
    operator, b = laplacian(0.0, 48), right_side(0, 48)
    tuner = BanditTuner(
        Scaled(max_iterations=10**6),
        {"factor": [1e-9, 1e-8]},
        policy=InTurn(),
        fallback=CG_SSOR,
        patience=2.0,
        cost="seconds",
    )
    solutions = [tuner.solve(operator, b) for _ in range(4)]
    assert solved(operator, b, solutions[3]) and solutions[3].statistics["cut_off"]
    assert 0 < int(solutions[3].statistics["iterations"]) < 10**5
    ((_, loss, estimate),) = told(tuner)
    assert loss == solutions[3].statistics["cost"] > 0
    assert estimate > 0


def test_methods_stop_at_a_deadline(laplacian, right_side):
    """One that has passed already: no more than a step is made."""
    operator, b = laplacian(0.0, 32), right_side(0, 32)
    for solver in (
        ConjugateGradient(),
        ConjugateGradient(preconditioner=Multigrid()),
        GMRES(restart=5),
        SOR(),
        FlexibleConjugateGradient(preconditioner=Jacobi()),
    ):
        tuner = BanditTuner(
            ConjugateGradient(),
            {"preconditioner": [None, Jacobi()]},
            policy=InTurn(),
            cost="seconds",
            fallback=Direct(),
        )
        tuner.state.learned.fallback.add(1e-12)
        tuner.state.learned.rounds = 3
        object.__setattr__(tuner, "arms", (replace(tuner.arms[0], solver=solver), tuner.arms[1]))
        solution = tuner.solve(operator, b)
        assert solved(operator, b, solution)
        assert solution.statistics["cut_off"]
        assert int(solution.statistics["iterations"]) == 1  # Direct's


def test_what_the_true_residual_asks_for_besides_is_charged():
    """Of a matrix with a condition of 1e8 the residual that the recursion updates meets the tolerance too early."""
    generator = torch.Generator().manual_seed(0)
    basis = torch.linalg.qr(torch.randn(40, 40, generator=generator, dtype=torch.float64)).Q
    matrix = (basis * torch.logspace(-8, 0, 40, dtype=torch.float64)) @ basis.T
    b = torch.randn(40, generator=generator, dtype=torch.float64)
    solver = ConjugateGradient(rtol=1e-10, max_iterations=5000)
    tuner = BanditTuner(solver, {"preconditioner": [None, Jacobi()]}, policy=InTurn())
    with pytest.warns(UserWarning, match="cannot be met"):
        solution = tuner.solve(0.5 * (matrix + matrix.T), b)
    assert solution.statistics["cost"] == int(solution.statistics["iterations"]) == tuner.state.learned.cost
    ((_, loss, _),) = told(tuner)
    assert solution.statistics["cost"] > loss + 1  # there was a second call


# Derivatives


def test_derivatives_are_those_of_the_solve_and_teach_nothing(right_side):
    matrix = torch.randn(9, 9, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    matrix = (matrix @ matrix.T + 9 * torch.eye(9, dtype=torch.float64)).requires_grad_()
    b = torch.randn(9, generator=torch.Generator().manual_seed(1), dtype=torch.float64, requires_grad=True)
    tuner = BanditTuner(GMRES(rtol=1e-13), {"restart": [3, 5, 9]}, policy=InTurn(order=(0, 1, 2)))

    def solve(matrix, b):
        return tuner.solve(matrix, b).value

    assert torch.autograd.gradcheck(solve, (matrix, b))
    rounds = tuner.state.learned.rounds
    value = solve(matrix, b)
    gradients = torch.autograd.grad(value.square().sum(), (matrix, b), create_graph=True)
    adjoint = torch.linalg.solve(matrix.T, 2 * value)
    assert torch.allclose(gradients[1], adjoint, rtol=1e-8)
    assert torch.allclose(gradients[0], -torch.outer(adjoint, value), rtol=1e-8)
    torch.autograd.grad(sum(g.square().sum() for g in gradients), (matrix, b))
    assert tuner.state.learned.rounds == rounds + 1


def test_derivatives_go_through_the_fallback_where_it_solved(laplacian, right_side):
    operator = laplacian(0.5)
    b = right_side().requires_grad_()
    tuner = BanditTuner(ConjugateGradient(), {"preconditioner": [Refusing(), Jacobi()]}, policy=InTurn(), rtol=1e-12)
    (gradient,) = torch.autograd.grad(tuner.solve(operator, b).value.sum(), b)
    expected = Direct().solve(operator, torch.ones(10, 10, dtype=torch.float64)).value
    assert torch.allclose(gradient, expected, rtol=1e-9)
    assert tuner.state.learned.rounds == 1


# The state


def run(tuner, laplacian, right_side, seeds):
    found = []
    for seed in seeds:
        shift = 0.5 * float(torch.rand((), generator=torch.Generator().manual_seed(seed)))
        solution = tuner.with_context(shift).solve(laplacian(shift), right_side(seed))
        found.append((solution.statistics["arm"], solution.statistics["probability"], solution.statistics["cost"]))
    return found


@pytest.mark.parametrize(
    "policy",
    [
        TsallisINF(arms=6),
        ContextualTsallisINF(arms=6, interval=(0.0, 0.5), bins=3),
        ChebCB(arms=6),
        ThompsonSampling(arms=6),
    ],
    ids=lambda policy: policy.describe(),
)
@pytest.mark.parametrize("fallback", [None, "best", SOR(1.5)], ids=["none", "best", "SOR"])
def test_a_saved_tuner_goes_on_bit_for_bit(policy, fallback, laplacian, right_side, tmp_path):
    def fresh(state=None):
        return BanditTuner(SOR(), {"relaxation": (1.0, 1.9)}, policy=policy, fallback=fallback, seed=3, state=state)

    whole = run(fresh(), laplacian, right_side, range(40))
    tuner = fresh()
    first = run(tuner, laplacian, right_side, range(25))
    tuner.state.save(tmp_path / "state.json")
    again = fresh(TunerState.load(tmp_path / "state.json"))
    assert as_data(again.state.learned) == as_data(tuner.state.learned)
    assert first + run(again, laplacian, right_side, range(25, 40)) == whole
    again.state.save(tmp_path / "state.json")
    assert TunerState.load(tmp_path / "state.json").tuner == again.state.tuner


def test_a_loaded_state_can_be_saved_before_it_is_used(tmp_path):
    tuner = BanditTuner(SOR(), {"relaxation": (1.0, 1.9)})
    tuner.state.save(tmp_path / "a.json")
    TunerState.load(tmp_path / "a.json").save(tmp_path / "b.json")
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()


def test_tuners_made_by_replacement_learn_together_and_copies_do_not(laplacian, right_side):
    tuner = BanditTuner(SOR(), {"relaxation": (1.0, 1.9)})
    for other, shared in (
        (replace(tuner, rtol=1e-4), True),
        (tuner.with_context(1.0), True),
        (copy.deepcopy(tuner), False),
        (pickle.loads(pickle.dumps(tuner)), False),
        (replace(tuner, state=None), False),
    ):
        before = tuner.state.learned.rounds
        other.solve(laplacian(0.3), right_side())
        assert tuner.state.learned.rounds == before + shared
    assert tuner != replace(tuner) and tuner == tuner and len({tuner, replace(tuner)}) == 2


# Bad input


def state_with(tmp_path, change):
    """A file of a state with something wrong."""
    tuner = BanditTuner(SOR(), {"relaxation": (1.0, 1.9)}, policy=TsallisINF(arms=3))
    tuner.state.save(tmp_path / "state.json")
    data = json.loads((tmp_path / "state.json").read_text())
    change(data)
    (tmp_path / "state.json").write_text(json.dumps(data))
    return replace(tuner, state=TunerState.load(tmp_path / "state.json"))


def put(*path, value):
    def change(data):
        for key in path[:-1]:
            data = data[key]
        data[path[-1]] = value

    return change


@pytest.mark.parametrize(
    "change, message",
    [
        (put("format", value="other"), "no state of a tuner"),
        (put("version", value=2), "is of version 2, this program reads version 1"),
        (put("learned", value=3), "damaged"),
        (put("tuner", "cost", value="seconds"), "belongs to another tuner: its cost is 'seconds'"),
        (put("tuner", "arms", 0, "relaxation", value=1.1), "another tuner: its arms is"),
        (put("tuner", "policy", value="ChebCB()"), "another tuner: its policy is 'ChebCB"),
        (put("tuner", "solver", value="SSOR"), "another tuner: its solver is 'SSOR'"),
        (put("learned", "policy", "losses", 1, value=float("nan")), "1 of the numbers are NaN or infinite"),
        (put("learned", "policy", "losses", value=[1.0]), r"numbers in the shape \(3,\) are needed"),
        (put("learned", "policy", "losses", value=[[1.0], 2.0, 3.0]), r"numbers in the shape \(3,\) are needed"),
        (put("learned", "policy", "total", value="1"), "total: a finite number is needed, got '1'"),
        (put("learned", "cost", value=float("inf")), "cost: a finite number is needed, got inf"),
        (put("learned", "rounds", value=1.5), "rounds: a finite whole number is needed, got 1.5"),
        (put("learned", "pulls", 0, value=0.5), "pulls: numbers in the shape"),
        (put("learned", "means", value=[]), "means: 3 entries are needed"),
        (put("learned", "generator", value={"a": 1}), "no state of the random generator"),
        (put("learned", "extra", value=1), "should hold policy, generator"),
    ],
)
def test_the_state_of_another_tuner_or_a_damaged_one_is_refused(change, message, tmp_path):
    with pytest.raises(InputError, match=message):
        state_with(tmp_path, change)


def learned_multigrid(change=0.0):
    solver = LearnedMultigrid.pretrained("poisson-2d")
    if change:
        network = copy.deepcopy(solver.network)
        with torch.no_grad():
            next(network.parameters()).view(-1)[0] += change
        solver = replace(solver, network=network)
    return solver


@pytest.mark.parametrize(
    "one, other, message",
    [
        ({"choices": [Jacobi(), SSOR()]}, {"choices": [Jacobi(damping=0.7), SSOR()]}, "its arms is"),
        ({"choices": [None, SSOR(1.5)]}, {"choices": [None, SSOR(1.5000001)]}, "its arms is"),
        ({"choices": [Multigrid(coarsest=100), None]}, {"choices": [None, Multigrid(coarsest=100)]}, "its arms is"),
        ({"choices": [IncompleteCholesky(), None]}, {"choices": [IncompleteCholesky(shift=0.1), None]}, "its arms is"),
        ({"choices": [learned_multigrid(), None]}, {"choices": [learned_multigrid(1e-6), None]}, "its arms is"),
        ({"policy": ChebCB(interval=(0, 1))}, {"policy": ChebCB(interval=(0, 2))}, "its policy is"),
        ({"fallback": SOR(1.5)}, {"fallback": SOR(1.2)}, "its fallback is"),
        ({"fallback": SOR(1.5)}, {}, "its fallback is"),
        ({"fallback": None}, {"fallback": "best"}, "its fallback is None, here it is 'best'"),
    ],
    ids=["damping", "relaxation", "order", "shift", "weights", "interval", "fallback", "no fallback", "best"],
)
def test_tuners_that_differ_in_any_setting_have_states_of_their_own(one, other, message, tmp_path):
    def made(state=None, choices=(None, Jacobi), **given):
        choices = [choice() if isinstance(choice, type) else choice for choice in choices]
        return BanditTuner(ConjugateGradient(), {"preconditioner": choices}, state=state, **given)

    made(**one).state.save(tmp_path / "state.json")
    assert made(TunerState.load(tmp_path / "state.json"), **one).state.learned.rounds == 0
    with pytest.raises(InputError, match=message):
        made(TunerState.load(tmp_path / "state.json"), **other)


@pytest.mark.parametrize("interval", [[0, 1], (0.0, 1), numpy.array([0.0, 1.0])], ids=["list", "tuple", "array"])
def test_the_same_settings_in_another_form_are_the_same(interval, tmp_path):
    def made(interval, state=None):
        policy = ContextualTsallisINF(arms=3, interval=interval)
        return BanditTuner(SOR(), {"relaxation": (1, 1.9)}, policy=policy, state=state)

    made((0.0, 1.0)).state.save(tmp_path / "state.json")
    assert made(interval, TunerState.load(tmp_path / "state.json")).state.learned.rounds == 0


def test_files_that_are_no_states_are_refused(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        TunerState.load(tmp_path / "missing.json")
    for text in ("", "[1, 2]", "{", "[" * 100_000):
        (tmp_path / "bad.json").write_text(text)
        with pytest.raises(InputError, match="is no state of a tuner"):
            TunerState.load(tmp_path / "bad.json")
    with pytest.raises(InputError, match="does not exist"):
        BanditTuner(SOR(), {"relaxation": (1.0, 1.9)}).state.save(tmp_path / "no" / "state.json")


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: BanditTuner(SOR(), {}), "parameters must say what to tune"),
        (lambda: BanditTuner(SOR(), {"relaxation": []}), "the list of 'relaxation' is empty"),
        (lambda: BanditTuner(SOR(), {"relaxation": ()}), "must be"),
        (lambda: BanditTuner(SOR(), {"relaxation": [1.5]}), "nothing to choose from, 1 arm in all"),
        (lambda: BanditTuner(SOR(), {"relaxation": (1.9, 1.0)}), "is empty: its lower end, 1.9, is not below 1"),
        (lambda: BanditTuner(SOR(), {"relaxation": (1.5, 1.5)}), "is empty"),
        (lambda: BanditTuner(SOR(), {"relaxation": (1.0, float("inf"))}), "must be finite"),
        (lambda: BanditTuner(SOR(), {"relaxation": (1.0, 2.0)}), "'relaxation' cannot be 2.0: SOR: relaxation must be"),
        (lambda: BanditTuner(SOR(), {"relaxation": (0.0, 1.9)}), "'relaxation' cannot be 0.0: SOR: relaxation must be"),
        (lambda: BanditTuner(SOR(), {"relaxation": "high"}), "needs a range"),
        (lambda: BanditTuner(SOR(), {"relaxation": (1.0, 1.9, 0)}), "number of values of 'relaxation'"),
        (lambda: BanditTuner(SOR(), {"relaxtion": (1.0, 1.9)}), "no setting 'relaxtion'; did you mean 'relaxation'"),
        (lambda: BanditTuner(CG_SSOR, {"preconditioner.omega": (1.0, 1.9)}), r"preconditioner \(SSOR\) has no setting"),
        (lambda: BanditTuner(ConjugateGradient(), {"preconditioner.relaxation": (1.0, 1.9)}), "has no preconditioner"),
        (lambda: BanditTuner(SOR(), {"relaxation.x": (1.0, 1.9)}), "relaxation has no settings, it is 1.0"),
        (lambda: BanditTuner(SOR(), {"rtol": (1e-8, 1e-4)}), "give it to the tuner itself"),
        (lambda: BanditTuner(SOR(), {3: (1.0, 1.9)}), "a path is a text"),
        (
            lambda: BanditTuner(CG_SSOR, {"preconditioner": [SSOR()], "preconditioner.relaxation": (1.0, 1.9)}),
            "set the same thing",
        ),
        (
            lambda: BanditTuner(
                GMRES(preconditioner=SSOR()), {"restart": (1, 100, 60), "preconditioner.relaxation": (1.0, 1.9)}
            ),
            "1200 arms, more than 1000",
        ),
        (lambda: BanditTuner(ConjugateGradient(), {"preconditioner": [SSOR, Jacobi()]}), r"write SSOR\(\)"),
        (lambda: BanditTuner("SOR", {"relaxation": (1.0, 1.9)}), "solver must be a linear solver"),
        (lambda: BanditTuner(SOR(), {"relaxation": (1.0, 1.9)}, policy="ChebCB"), "policy must be one of"),
        (lambda: BanditTuner(SOR(), {"relaxation": (1.0, 1.9)}, cost="time"), "cost must be one of"),
        (lambda: BanditTuner(SOR(), {"relaxation": (1.0, 1.9)}, patience=-1.0), "patience must be a number in"),
        (lambda: BanditTuner(SOR(), {"relaxation": (1.0, 1.9)}, fallback="SOR"), "fallback must be"),
        (lambda: BanditTuner(SOR(), {"relaxation": (1.0, 1.9)}, seed=-1), "seed must be"),
        (lambda: BanditTuner(SOR(), {"relaxation": (1.0, 1.9)}, state={}), "state must be a TunerState"),
        (lambda: BanditTuner(SOR(), {"relaxation": (1.0, 1.9)}, context="c"), "context must be a number, a function"),
        (lambda: BanditTuner(SOR(), {"relaxation": (1.0, 1.9)}, context=float("nan")), "finite number, got nan"),
    ],
)
def test_bad_settings_are_refused(make, message):
    with pytest.raises(InputError, match=message):
        make()


@pytest.mark.parametrize(
    "context, message",
    [
        (None, "needs a context"),
        (lambda operator, b: float("nan"), "must be a finite number, got nan"),
        (lambda operator, b: torch.tensor(float("inf")), "must be a finite number, got inf"),
        (lambda operator, b: b, "one number for the whole batch"),
        (lambda operator, b: "much", "must be a finite number, got 'much'"),
        (lambda operator, b: None, "must be a finite number, got None"),
        (lambda operator, b: 1e200, "at most 1e.100 in magnitude, got 1e.200: give its logarithm"),
    ],
)
def test_contexts_that_are_no_numbers_are_refused(context, message, laplacian, right_side):
    tuner = BanditTuner(SOR(), {"relaxation": (1.0, 1.9)}, policy=ChebCB(), context=context)
    with pytest.raises(InputError, match=message):
        tuner.solve(laplacian(), right_side())
    assert tuner.state.learned.rounds == 0
    with pytest.raises(InputError, match="finite number"):
        tuner.with_context(float("inf"))
    with pytest.raises(InputError, match="called with the operator and the right side, and does not take these two"):
        tuner.with_context(lambda operator: 1.0)
