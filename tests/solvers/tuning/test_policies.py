"""The policies against the equations that define them, scipy, and what they reach on costs that theory gives."""

from __future__ import annotations

import copy
import json
from math import cos, pi, sqrt

import numpy
import pytest
from scipy.optimize import brentq, lsq_linear

from sciml.errors import InputError
from sciml.solvers.tuning import ChebCB, Choice, ContextualTsallisINF, ThompsonSampling, TsallisINF
from sciml.solvers.tuning.chebyshev_regression import (
    bounded_least_squares,
    change_of_interval,
    chebyshev_features,
    place,
)
from sciml.solvers.tuning.records import as_data, fill
from sciml.solvers.tuning.tsallis_inf import tsallis_probabilities

RELAXATIONS = numpy.linspace(1.0, 1.95, 20)
INTERVAL = (-0.15, 0.65)
POLICIES = [
    TsallisINF(),
    TsallisINF(reduced_variance=True, discount=0.99),
    ContextualTsallisINF(interval=INTERVAL),
    ChebCB(interval=INTERVAL),
    ChebCB(discount=0.99),
    ThompsonSampling(),
]


def named(policy):
    return repr(policy)


def sor_costs(shifts, noise=0.05, seed=0):
    """Iterations of SOR to 1e-8 on the Laplacian of 10 x 10 points plus c, by Young's theory, `(rounds, 20)`."""
    jacobi = 4 * cos(pi / 11) / (4 + shifts[:, None])
    best = 1 + (jacobi / (1 + numpy.sqrt(1 - jacobi**2))) ** 2
    w = RELAXATIONS[None, :]
    root = numpy.sqrt(numpy.maximum(w**2 * jacobi**2 / 4 - w + 1, 0.0))
    radius = numpy.where(w < best, (w * jacobi / 2 + root) ** 2, w - 1)
    exact = numpy.log(1e-8) / numpy.log(radius)
    return numpy.ceil(exact * numpy.exp(noise * numpy.random.default_rng(seed).standard_normal(exact.shape)))


def published_shifts(rounds, seed, beta=(0.5, 1.5)):
    return -0.15 + 0.6 * numpy.random.default_rng(seed).beta(*beta, rounds)


def play(policy, costs, contexts, seed=0, state=None, generator=None):
    """Cost of each round, the state after the last, and its generator."""
    state = policy.begin(costs.shape[1]) if state is None else state
    generator = numpy.random.default_rng(seed) if generator is None else generator
    paid = numpy.empty(len(costs))
    for t, row in enumerate(costs):
        choice = policy.choose(state, float(contexts[t]), generator)
        paid[t] = row[choice.arm]
        policy.update(state, choice, float(row[choice.arm] - 1), float(contexts[t]))
    return paid, state, generator


# Tsallis-INF


@pytest.mark.parametrize("scale", [0.0, 1e-6, 1.0, 1e3, 1e9])
@pytest.mark.parametrize("distance", [0.0, 2.0, 5.0, 1e6])
def test_tsallis_probabilities_solve_their_equation(scale, distance):
    losses = scale * numpy.random.default_rng(1).standard_normal(20)
    eta = 0.3
    found, z = tsallis_probabilities(losses, eta, distance)

    def excess(x):
        return float((4 / (eta * (losses - x)) ** 2).sum()) - 1

    x = brentq(excess, losses.min() - 2 * sqrt(20) / eta - 1e-6, losses.min() - 1.999 / eta, xtol=1e-15, rtol=1e-15)
    assert found.sum() == pytest.approx(1.0, abs=1e-14)
    assert (found > 0).all()
    assert found == pytest.approx(4 / (eta * (losses - x)) ** 2, rel=1e-6, abs=1e-12)
    assert 2.0 <= z <= 2 * sqrt(20) + 1e-12


def test_tsallis_estimates_are_unbiased():
    """The mean over the choice of what a round adds to the losses is the loss, but for a baseline common to all."""
    for policy in (TsallisINF(), TsallisINF(reduced_variance=True)):
        state = policy.begin(3)
        for arm, loss in ((0, 4.0), (1, 2.0), (2, 3.0), (1, 2.0)):
            policy.update(state, Choice(arm, 1 / 3), loss)
        saved = as_data(state)
        probabilities = policy.probabilities(state)
        costs = numpy.array([5.0, 1.0, 3.0])
        mean = numpy.zeros(3)
        for arm in range(3):
            fill(state, saved, "state")
            state.probabilities = probabilities
            before = state.losses.copy()
            policy.update(state, Choice(arm, float(probabilities[arm])), float(costs[arm]))
            mean += probabilities[arm] * (state.losses - before)
        assert mean == pytest.approx(costs)


# ChebCB


def test_chebyshev_features_are_cosines():
    for x in (-1.0, -0.3, 0.0, 0.7, 1.0):
        assert chebyshev_features(x, 5) == pytest.approx([numpy.cos(j * numpy.arccos(x)) for j in range(6)])
    assert chebyshev_features(0.3, 1) == [1.0, 0.3]


@pytest.mark.parametrize("samples", [1, 3, 6, 40])
@pytest.mark.parametrize("bound", [0.05, 0.5, 50.0])
def test_bounded_least_squares_agrees_with_scipy(samples, bound):
    generator = numpy.random.default_rng(samples)
    problems = []
    for _ in range(30):
        features = numpy.array([chebyshev_features(x, 5) for x in generator.uniform(-1, 1, samples)])
        problems.append((features, generator.standard_normal(samples)))
    bounds = bound / numpy.array([1.0, 1, 2, 3, 4, 5])
    gram = numpy.array([f.T @ f for f, _ in problems])
    moment = numpy.array([f.T @ y for f, y in problems])
    start = numpy.clip(generator.standard_normal((30, 6)), -bounds, bounds)
    found = bounded_least_squares(gram, moment, bounds, start)
    assert (numpy.abs(found) <= bounds * (1 + 1e-12)).all()
    for theta, (features, y) in zip(found, problems, strict=True):
        best = lsq_linear(features, y, (-bounds, bounds), method="bvls")
        assert 0.5 * ((features @ theta - y) ** 2).sum() == pytest.approx(best.cost, rel=1e-6, abs=1e-9)
        if samples == 40:
            assert theta == pytest.approx(best.x, abs=1e-6)


def test_bounded_least_squares_of_nothing_is_zero():
    found = bounded_least_squares(numpy.zeros((2, 3, 3)), numpy.zeros((2, 3)), numpy.ones(3), numpy.zeros((2, 3)))
    assert (found == 0).all()


def test_a_change_of_interval_keeps_the_polynomials():
    old, new = (0.2, 0.5), (-1.0, 0.6)
    matrix = change_of_interval(5, old, new)
    for c in (0.2, 0.31, 0.5):
        narrow, wide = (numpy.array(chebyshev_features(place(c, ends), 5)) for ends in (old, new))
        assert matrix @ narrow == pytest.approx(wide, abs=1e-12)


def test_the_running_regression_is_the_one_of_all_samples():
    policy = ChebCB(arms=2, degree=3)  # the interval grows as the contexts come
    state = policy.begin()
    generator = numpy.random.default_rng(0)
    contexts, losses = generator.uniform(-1, 3, 60), generator.uniform(5, 9, 60)
    contexts[:2] = 1.0, 1.1
    for c, loss in zip(contexts, losses, strict=True):
        policy.update(state, Choice(0, 1.0), float(loss), float(c))
    ends = tuple(state.interval)
    assert ends[0] <= contexts.min() and contexts.max() <= ends[1]
    features = numpy.array([chebyshev_features(place(c, ends), 3) for c in contexts])
    spread = losses.max() - losses.min()
    bounds = numpy.array([losses.max(), 2 * spread, spread, 2 * spread / 3])
    best = lsq_linear(features, losses, (-bounds, bounds), method="bvls")
    assert state.theta[0] == pytest.approx(best.x, rel=1e-5)
    assert state.misfit[0] == pytest.approx(2 * best.cost, rel=1e-6)
    assert (state.theta[1] == 0).all()


def test_cheb_cb_draws_by_inverse_gaps():
    policy = ChebCB(arms=3, degree=1, interval=(0.0, 1.0))
    state = policy.begin()
    for t in range(30):
        policy.update(state, Choice(t % 3, 1.0), (10.0, 12.0, 20.0)[t % 3] + 0.5 * (t % 2), 0.5)
    found = policy.probabilities(state, 0.5)
    regret = state.errors - state.misfit.sum()
    gamma = 2 * 31 * sqrt(3 * 31 / regret)
    expected = state.theta @ [1.0, 0.0]
    assert found[1:] == pytest.approx(1 / (3 + gamma * (expected[1:] - expected[0])), rel=1e-12)
    assert found.sum() == pytest.approx(1.0)
    assert found.argmax() == 0


# What they reach


def test_policies_beat_a_random_choice_and_contexts_beat_the_best_fixed_arm():
    """The published experiment in small: 800 rounds, iteration counts by Young's theory, 3 seeds."""
    ratios = {"tsallis": [], "cheb": [], "uniform": []}
    for seed in range(3):
        shifts = published_shifts(800, seed)
        costs = sor_costs(shifts, seed=seed)
        fixed = costs.mean(0).min()
        ratios["uniform"].append(costs.mean() / fixed)
        ratios["tsallis"].append(play(TsallisINF(), costs, shifts, seed)[0].mean() / fixed)
        ratios["cheb"].append(play(ChebCB(interval=INTERVAL), costs, shifts, seed)[0].mean() / fixed)
    mean = {name: numpy.mean(found) for name, found in ratios.items()}
    assert mean["uniform"] > 2.5
    assert mean["tsallis"] < 0.6 * mean["uniform"]
    assert mean["cheb"] < 0.85


def test_contexts_in_bins_beat_none():
    shifts = published_shifts(4000, 0)
    costs = sor_costs(shifts)
    plain = play(TsallisINF(), costs, shifts)[0][-1000:].mean()
    binned = play(ContextualTsallisINF(interval=INTERVAL), costs, shifts)[0][-1000:].mean()
    assert binned < 0.9 * plain


@pytest.mark.parametrize(
    "forgets, remembers",
    [
        (TsallisINF(discount=0.998), TsallisINF()),
        (ChebCB(interval=INTERVAL, discount=0.99), ChebCB(interval=INTERVAL)),
    ],
    ids=["Tsallis-INF", "ChebCB"],
)
def test_a_discount_follows_a_change(forgets, remembers):
    shifts = published_shifts(2500, 1, (2, 6))
    costs = sor_costs(shifts)
    costs[1500:] = costs[1500:, ::-1]
    after = {policy: play(policy, costs, shifts)[0][1500:].mean() for policy in (forgets, remembers)}
    assert after[forgets] < 0.9 * after[remembers]


def drifting_costs(seed, change, rounds=500):
    """Seconds of six arms, 1 to 10, that drift together and apart, with noise and outliers; other arms after half."""
    generator = numpy.random.default_rng(seed)
    base = numpy.log([1.0, 1.15, 2.0, 4.0, 7.0, 10.0])
    first = generator.permutation(6)
    second = numpy.roll(first, 3) if change else first
    half = rounds // 2
    costs = numpy.concatenate([numpy.tile(base[first], (half, 1)), numpy.tile(base[second], (rounds - half, 1))])
    time = numpy.linspace(0, 2 * pi, rounds)[:, None]
    costs += 0.7 * numpy.sin(generator.uniform(0.5, 2) * time + generator.uniform(0, 6))
    costs += 0.3 * numpy.sin(generator.uniform(0.5, 1.5, 6) * time + generator.uniform(0, 6, 6))
    costs += 0.1 * generator.standard_normal(costs.shape)
    return 1e-3 * numpy.exp(costs + numpy.log(2) * (generator.random(costs.shape) < 0.02))


def play_with_limit(policy, costs, seed, patience=1.5):
    """Total cost where an arm is cut off at `patience` times the recent mean of the best, which then takes over."""
    state, generator = policy.begin(costs.shape[1]), numpy.random.default_rng(seed)
    means = numpy.full(costs.shape[1], numpy.inf)
    total = 0.0
    for row in costs:
        choice = policy.choose(state, None, generator)
        limit, own = patience * means.min(), float(row[choice.arm])
        paid, estimate = own, None
        if own > limit:
            others = numpy.where(numpy.arange(len(row)) == choice.arm, numpy.inf, means)
            best = row[others.argmin()] if numpy.isfinite(others).any() else own
            paid = float(limit + best * (1 - limit / own))
            estimate = own * float(numpy.exp(0.2 * generator.standard_normal()))
        policy.update(state, choice, paid, None, estimate)
        seen = own if estimate is None else estimate
        means[choice.arm] = seen if numpy.isinf(means[choice.arm]) else 0.9 * means[choice.arm] + 0.1 * seen
        total += paid
    return total


def test_thompson_sampling_comes_near_the_best_fixed_arm_without_knowing_it():
    ratios = []
    for seed in range(5):
        costs = drifting_costs(seed, change=False)
        ratios.append(play_with_limit(ThompsonSampling(), costs, seed) / costs.sum(0).min())
    assert numpy.mean(ratios) < 1.05
    assert max(ratios) < 1.1


def test_thompson_sampling_is_ahead_of_every_fixed_arm_where_the_kind_changes():
    ratios = []
    for seed in range(5):
        costs = drifting_costs(seed, change=True)
        ratios.append(play_with_limit(ThompsonSampling(), costs, seed) / costs.sum(0).min())
    assert numpy.mean(ratios) < 0.9


def test_an_outlier_is_no_jump_and_two_are():
    policy = ThompsonSampling()
    state = policy.begin(3)
    for t in range(60):
        policy.update(state, Choice(t % 3, 1.0), (1.0, 3.0, 9.0)[t % 3])
    kept = state.mean.copy()
    policy.update(state, Choice(0, 1.0), 5.0)
    assert state.mean[0] == pytest.approx(kept[0], abs=0.4)
    policy.update(state, Choice(0, 1.0), 5.0)
    assert state.mean[0] == pytest.approx(numpy.log(5.0), abs=0.2)
    assert state.covariance[1, 1] - state.covariance[1, 0] ** 2 / state.covariance[0, 0] > 0.5


# Bit for bit


@pytest.mark.parametrize("policy", POLICIES, ids=named)
def test_a_state_that_went_through_json_goes_on_bit_for_bit(policy):
    shifts = published_shifts(300, 2)
    costs = sor_costs(shifts)
    _, state, generator = play(policy, costs[:150], shifts[:150], seed=5)
    text = json.dumps([as_data(state), as_data(generator)], allow_nan=False)
    data, bits = json.loads(text)
    again = policy.begin(20)
    fill(again, data, "state")
    other = numpy.random.Generator(numpy.random.PCG64())
    other.bit_generator.state = bits
    paid, state, _ = play(policy, costs[150:], shifts[150:], state=state, generator=generator)
    repaid, again, _ = play(policy, costs[150:], shifts[150:], state=again, generator=other)
    assert (paid == repaid).all()
    assert as_data(state) == as_data(again)


@pytest.mark.parametrize("policy", [TsallisINF(), ChebCB(interval=INTERVAL), ChebCB()], ids=named)
def test_a_look_changes_nothing(policy):
    """At contexts within and beyond those so far, what is expected is what a choice there would go by."""
    shifts = published_shifts(200, 0)
    _, state, generator = play(policy, sor_costs(shifts), shifts)
    before = json.dumps([as_data(state), as_data(generator)])
    for context in (0.0, 3.0, -7.0):
        found = policy.probabilities(state, context) if policy.contextual else policy.probabilities(state)
        policy.expected(state, context)
        assert json.dumps([as_data(state), as_data(generator)]) == before
        seen = copy.deepcopy(state)
        choice = policy.choose(seen, context, copy.deepcopy(generator))
        assert choice.probability == pytest.approx(found[choice.arm], rel=1e-12)


@pytest.mark.parametrize("policy", POLICIES, ids=named)
def test_probabilities_are_those_of_the_draws(policy):
    shifts = published_shifts(200, 3)
    costs = sor_costs(shifts)
    _, state, generator = play(policy, costs, shifts)
    choices = [policy.choose(state, 0.1, generator) for _ in range(4000)]
    counts = numpy.bincount([choice.arm for choice in choices], minlength=20) / 4000
    told = numpy.zeros(20)
    for arm in range(20):
        told[arm] = numpy.mean([c.probability for c in choices if c.arm == arm] or [0.0])
    assert counts == pytest.approx(told, abs=0.05)


# Bad input


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: TsallisINF(arms=1), "arms must be at least 2, got 1"),
        (lambda: TsallisINF(arms=2.5), "arms must be a whole number"),
        (lambda: TsallisINF(rate=-1.0), "rate must be a number in"),
        (lambda: TsallisINF(discount=0.0), "discount must be a number in"),
        (lambda: ChebCB(discount=1.5), "1 to forget nothing, got 1.5"),
        (lambda: ChebCB(degree=0), "degree must be a whole number of at least 1"),
        (lambda: ChebCB(interval=(1.0, 1.0)), "the lower first, got"),
        (lambda: ChebCB(interval=(0.0, float("nan"))), "two finite numbers"),
        (lambda: ChebCB(interval=3.0), "interval must be two numbers"),
        (lambda: ContextualTsallisINF(interval=INTERVAL, bins=0), "bins must be a whole number of at least 1"),
        (lambda: ContextualTsallisINF(interval=INTERVAL, bandit=ChebCB()), "bandit must be a TsallisINF, got ChebCB"),
        (lambda: ThompsonSampling(drift=-0.1), "drift must be a number in"),
        (lambda: ThompsonSampling(jumps=1.0), "jumps must be a number in"),
    ],
)
def test_settings_out_of_range_are_refused(make, message):
    with pytest.raises(InputError, match=message):
        make()
