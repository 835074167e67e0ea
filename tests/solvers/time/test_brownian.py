"""Brownian paths: the law of what they answer, and that they always answer the same."""

from __future__ import annotations

import copy
import pickle
import random
from itertools import pairwise

import numpy
import pytest
import torch
import torchsde

import sciml
from sciml import InputError, StochasticSystem
from sciml.noise import TorchsdeNoise
from sciml.solvers.time import BrownianPath
from sciml.solvers.time.brownian import PARTS

MANY = 40_000
KNOTS = (0.0, 0.75, 1.0, 3.0)

# Within one cell, from knot to knot, across a knot; ends that are ends of cells, and others.
INTERVALS = ((0.0, 0.75), (0.1875, 0.375), (0.1, 0.2), (0.75, 2.5), (0.3, 0.9), (0.9, 2.0), (1.23, 1.2300001))


def answers(path: BrownianPath, intervals: tuple[tuple[float, float], ...]) -> list[torch.Tensor]:
    return [torch.stack(path.increments(*interval)) for interval in intervals]


@pytest.mark.parametrize("levels", [5, 24])
def test_answers_depend_on_no_other_question(levels: int) -> None:
    def fresh() -> BrownianPath:
        return BrownianPath(KNOTS, (3, 2), seed=7, levels=levels)

    generator = random.Random(1)
    times = [generator.uniform(0.0, 3.0) for _ in range(60)] + [k / 64 for k in range(0, 193, 7)]
    intervals = INTERVALS + tuple((min(pair), max(pair)) for pair in zip(times[::2], times[1::2], strict=False))
    path = fresh()
    first = answers(path, intervals)
    order = list(range(len(intervals)))
    generator.shuffle(order)
    again = {place: answers(path, (intervals[place],))[0] for place in order}
    alone = [answers(fresh(), (interval,))[0] for interval in intervals]
    for place, found in enumerate(first):
        assert torch.equal(found, again[place])
        assert torch.equal(found, alone[place])


def test_float32_is_the_same_path() -> None:
    double = answers(BrownianPath(KNOTS, (50,), seed=3), INTERVALS)
    single = answers(BrownianPath(KNOTS, (50,), seed=3, dtype=torch.float32), INTERVALS)
    for one, other in zip(double, single, strict=True):
        assert float(((one - other).abs() / one.abs().amax(1, keepdim=True)).max()) < 1e-6


def test_parts_add_up() -> None:
    path = BrownianPath(KNOTS, (100,), seed=5)
    for times in ((0.1, 0.11, 0.5, 0.75, 0.9, 1.7, 2.0), (0.0, 0.25, 2.25, 3.0), (1.1, 1.10000001, 1.10000003, 1.2)):
        growth, integral = path.increments(times[0], times[-1])
        total, area = torch.zeros(100, dtype=torch.float64), torch.zeros(100, dtype=torch.float64)
        for t0, t1 in pairwise(times):
            w, k = path.increments(t0, t1)
            area = area + k + (t1 - t0) * total
            total = total + w
        torch.testing.assert_close(total, growth, rtol=0.0, atol=1e-13)
        torch.testing.assert_close(area, integral, rtol=0.0, atol=1e-13)


def law(intervals: tuple[tuple[float, float], ...]) -> torch.Tensor:
    """Covariances of growths and integrals, all growths first: of W at s and t it is min(s, t)."""
    count = len(intervals)
    nodes, weights = torch.tensor([-(0.6**0.5), 0.0, 0.6**0.5]).double(), torch.tensor([5.0, 8.0, 5.0]).double() / 9
    found = torch.zeros(2 * count, 2 * count, dtype=torch.float64)
    for i, (a, b) in enumerate(intervals):
        for j, (c, d) in enumerate(intervals):
            # The derivative of min is piecewise constant, so that Gauss' rule between all ends is exact.
            ends = sorted({x for x in (a, b, c, d) if max(a, c) <= x <= min(b, d)})
            for left, right in pairwise(ends):
                s = (left + right) / 2 + (right - left) / 2 * nodes
                w = (right - left) / 2 * weights
                for part, value in (
                    ((i, j), torch.ones(3)),
                    ((i + count, j), b - s),
                    ((i, j + count), d - s),
                    ((i + count, j + count), (b - s) * (d - s)),
                ):
                    found[part] += float((w * value).sum())
    return found


@pytest.mark.parametrize(
    "intervals",
    [
        ((0.0, 0.1875), (0.1875, 0.75), (0.75, 1.0)),
        ((0.0, 0.75), (0.05, 0.55), (0.3, 0.31)),
        ((0.1, 0.9), (0.6, 2.0), (0.9, 2.9)),
        ((0.2, 0.4), (0.4, 0.6), (0.3, 0.5)),
    ],
    ids=["cells", "within one", "across knots", "beside each other"],
)
def test_law(intervals: tuple[tuple[float, float], ...]) -> None:
    path = BrownianPath(KNOTS, (MANY,), seed=11)
    found = answers(path, intervals)
    sample = torch.cat([torch.stack([x[0] for x in found]), torch.stack([x[1] for x in found])])
    expected = law(intervals)
    spread = ((expected.diagonal()[:, None] * expected.diagonal() + expected**2) / MANY).sqrt()
    assert float(((sample @ sample.t() / MANY - expected) / spread).abs().max()) < 4.0
    assert float((sample.mean(1) / (expected.diagonal() / MANY).sqrt()).abs().max()) < 4.0


def test_middle_of_an_interval() -> None:
    """Foster, Lyons and Oberhauser, SIAM J. Numer. Anal. 58 (2020): with w the growth and H the space-time area over h,
    the first half has w/2 + 3/2 H + z, and the halves have H/4 -+ z/2 +- n, where z ~ N(0, h/16), n ~ N(0, h/48)."""
    path = BrownianPath((0.0, 2.0), (MANY,), seed=2)
    h, (w, k) = 2.0, path.increments(0.0, 2.0)
    area = k / h - w / 2
    (w1, k1), (w2, k2) = path.increments(0.0, 1.0), path.increments(1.0, 2.0)
    first, second = k1 - w1 / 2, k2 - w2 / 2
    z = w1 - w / 2 - 1.5 * area
    n = first - area / 4 + z / 2
    torch.testing.assert_close(second, area / 4 - z / 2 - n, rtol=0.0, atol=1e-13)
    sample = torch.stack([w / h**0.5, area * (12 / h) ** 0.5, z * (16 / h) ** 0.5, n * (48 / h) ** 0.5])
    assert float((sample @ sample.t() / MANY - torch.eye(4)).abs().max()) < 4 * (2 / MANY) ** 0.5


def test_a_point_in_a_finest_cell_has_its_law() -> None:
    path = BrownianPath((0.0, 1.0), (MANY,), seed=4, levels=2)  # cells of 1/4
    intervals = ((0.0, 0.25), (0.0, 0.1), (0.1, 0.25), (0.25, 0.6))
    found = answers(path, intervals)
    sample = torch.cat([torch.stack([x[0] for x in found]), torch.stack([x[1] for x in found])])
    expected = law(intervals)
    spread = ((expected.diagonal()[:, None] * expected.diagonal() + expected**2) / MANY).sqrt()
    assert float(((sample @ sample.t() / MANY - expected) / spread).abs().max()) < 4.0


def test_seeds_and_entries_are_independent() -> None:
    one, other = (BrownianPath((0.0, 1.0), (MANY, 2), seed=seed).increments(0.25, 0.5)[0] for seed in (0, 1))
    sample = torch.cat([one, other], 1) * 2
    assert float((sample.t() @ sample / MANY - torch.eye(4)).abs().max()) < 4 * (2 / MANY) ** 0.5


def test_fitted_steps_are_little_shorter_and_cheap() -> None:
    path = BrownianPath((0.0, 1.0, 4.0), (2,), seed=0)
    drawn = 0
    draw = path._draw

    def counting(*arguments: object) -> torch.Tensor:
        nonlocal drawn
        drawn += 1
        return draw(*arguments)  # type: ignore[arg-type]

    path._draw = counting  # type: ignore[assignment]
    generator, t, steps = random.Random(3), 0.0, 0
    while t < 4.0:
        wanted = 10 ** generator.uniform(-2.3, -2.0)
        h = path.fitted(t, min(wanted, 4.0 - t))
        assert 7 / 8 < h / min(wanted, 4.0 - t) <= 1.0
        before = drawn
        path.increments(t, t + h)
        # Each draw divides a cell into PARTS; all that follow one below the other are a few.
        assert drawn - before <= 12
        t, steps = t + h, steps + 1
    assert t == 4.0
    assert drawn < 3 * steps
    assert PARTS == 4


def test_steps_of_fixed_size_are_knots() -> None:
    times = (0.0, 0.1, 0.35, 1.0)
    path = BrownianPath(times, (2,), seed=0, step=0.03)
    steps: list[tuple[float, float]] = []
    with torch.no_grad():
        sciml.evolve(
            StochasticSystem(lambda u, t: -u, lambda u, t: u, (2,), path=path),
            initial=1.0,
            times=times,
            step=0.03,
            step_observer=lambda t, h, u: steps.append((t, h)),
        )
    assert path.times == (*[t for t, _ in steps], 1.0)
    cells = [path._position(t + h) for t, h in steps]
    assert all(cell.fraction == 0.0 and cell.place in (0, path._finest) for cell in cells)


def test_seeds_may_be_of_numpy() -> None:
    answer, other = (BrownianPath((0.0, 1.0), (3,), seed=seed).increments(0.0, 0.3) for seed in (7, numpy.int64(7)))
    assert torch.equal(answer[0], other[0])


def test_copies_answer_the_same() -> None:
    path = BrownianPath(KNOTS, (3,), seed=0)
    path.increments(0.1, 0.2)
    for other in (copy.deepcopy(path), pickle.loads(pickle.dumps(path))):
        assert all(map(torch.equal, other.increments(0.2, 1.5), path.increments(0.2, 1.5)))


def test_steps_below_the_finest_cells_are_left_alone() -> None:
    path = BrownianPath((0.0, 1.0), (2,), seed=0, levels=4)
    assert path.fitted(0.3, 0.01) == 0.01


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"times": (0.0,)}, "the start and the end"),
        ({"times": (0.0, 1.0, 1.0)}, "must increase: times\\[1\\] is 1.0"),
        ({"times": (0.0, float("nan"))}, "must increase"),
        ({"times": "ab"}, "a list of increasing numbers"),
        ({"shape": (0, 2)}, "such as \\(100, 2\\), got \\(0, 2\\)"),
        ({"seed": -1}, "seed: expected an integer from 0"),
        ({"seed": 1.5}, "seed: expected an integer from 0"),
        ({"step": 0.0}, "step: expected a positive number"),
        ({"levels": 1}, "levels: expected a number of halvings"),
        ({"dtype": torch.int64}, "one of real numbers"),
    ],
)
def test_refused(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        BrownianPath(**{"times": (0.0, 1.0), "shape": (2,), "seed": 0, **arguments})  # type: ignore[arg-type]


def test_times_beyond_the_ends_are_refused() -> None:
    path = BrownianPath((0.0, 1.0), (2,), seed=0)
    with pytest.raises(InputError, match=r"from 0\.0 to 1\.0, and was asked for 1\.5"):
        path.increments(0.5, 1.5)
    with pytest.raises(InputError, match="t0 comes first"):
        path.increments(0.5, 0.25)


# torchsde


def interval(shape: tuple[int, ...], area: str = "space-time", **options: object) -> torchsde.BrownianInterval:
    return torchsde.BrownianInterval(
        0.0, 1.0, size=shape, dtype=torch.float64, entropy=5, levy_area_approximation=area, **options
    )


def test_torchsde_has_the_same_convention() -> None:
    noise = TorchsdeNoise(interval((MANY,)))
    intervals = ((0.0, 0.4), (0.4, 1.0), (0.2, 0.7))
    found = [noise.increments(*one) for one in intervals]
    sample = torch.stack([x[0] for x in found] + [x[1] for x in found if x[1] is not None])
    expected = law(intervals)
    spread = ((expected.diagonal()[:, None] * expected.diagonal() + expected**2) / MANY).sqrt()
    assert float(((sample @ sample.t() / MANY - expected) / spread).abs().max()) < 4.0


def test_torchsde_says_the_same_itself() -> None:
    brownian = interval((4,), halfway_tree=True, tol=1e-6)
    noise = TorchsdeNoise(brownian)
    growth, integral = brownian(0.25, 0.5, return_U=True)
    found = noise.increments(0.25, 0.5)
    assert torch.equal(found[0], growth)
    assert found[1] is not None
    assert torch.equal(found[1], integral)
    assert (noise.start, noise.end, noise.shape) == (0.0, 1.0, (4,))
    assert TorchsdeNoise(interval((4,), "none")).increments(0.0, 1.0)[1] is None


def test_torchsde_reversed_is_one_path() -> None:
    noise = TorchsdeNoise(torchsde.ReverseBrownian(interval((3,))))
    assert (noise.start, noise.end) == (-1.0, 0.0)
    (w, k), (first, one), (second, two) = (
        noise.increments(*ends) for ends in ((-0.9, -0.1), (-0.9, -0.4), (-0.4, -0.1))
    )
    assert k is not None and one is not None and two is not None
    torch.testing.assert_close(w, first + second, rtol=0.0, atol=1e-12)
    torch.testing.assert_close(k, one + two + 0.3 * first, rtol=0.0, atol=1e-12)
