"""Relative errors against closed forms."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from math import exp, inf, pi, sqrt

import pytest
import torch
from torch import Tensor

from sciml.boundary import Dirichlet, Neumann, Periodic
from sciml.equations import Equation
from sciml.errors import InputError
from sciml.grid import Grid
from sciml.operators import LegacyH1, MeanOverFields, RelativeH1, RelativeL2
from sciml.solvers.discretize import discretize

LOSSES = [RelativeL2(), RelativeH1((0.1, 0.2), (True, False), "zero"), RelativeH1((0.1, 0.2)), LegacyH1()]


def fields(grid: Grid, function: Callable[..., Tensor]) -> Tensor:
    """A function on a grid as one sample of one channel."""
    return function(*grid.coordinates)[None, None]


def orders(errors: list[float]) -> list[float]:
    return [float(torch.tensor(a / b).log2()) for a, b in pairwise(errors)]


def test_l2_is_the_root_of_the_quotient_of_the_sums_over_channels_and_space() -> None:
    truth = torch.tensor([[[3.0, 0.0], [0.0, 4.0]], [[1.0, 1.0], [1.0, 1.0]]])  # 2 samples, 2 channels, 2 points
    error = torch.tensor([[[0.0, 1.0], [0.0, 0.0]], [[0.5, -0.5], [0.5, -0.5]]])
    assert RelativeL2()(truth + error, truth).tolist() == pytest.approx([0.2, 0.5], rel=1e-6)


def test_h1_of_a_fourier_mode_has_the_symbol_of_the_difference() -> None:
    """|u|^2 = (1 + 4/h^2 sin^2(pi k h)) |u|_L2^2, exactly, on a periodic axis."""
    grid = Grid((24, 10), upper=(2.0, 1.0), boundary=Periodic())
    truth = fields(grid, lambda x, y: torch.sin(pi * x))
    error = fields(grid, lambda x, y: 0.01 * torch.cos(6 * pi * y))
    h, k = grid.spacing
    square = (1 + 4 / k**2 * torch.tensor(3 * pi * k).sin() ** 2) / (1 + 4 / h**2 * torch.tensor(pi * h / 2).sin() ** 2)
    found = RelativeH1.on(grid)(truth + error, truth)
    assert found.item() == pytest.approx(0.01 * float(square.sqrt()), rel=1e-6)


@pytest.mark.parametrize(
    "boundary", [Dirichlet(0.0), Periodic(), Neumann(0.0), {"x": Periodic(), "y": (Dirichlet(0.0), Neumann(0.0))}]
)
def test_h1_is_the_energy_norm_of_the_discretization(boundary: object) -> None:
    """(e, e) + (e, A e) with A the negative Laplacian by finite volumes."""
    grid = Grid((12, 9), upper=(1.0, 0.5), boundary=boundary)  # type: ignore[arg-type]
    generator = torch.Generator().manual_seed(0)
    truth, error = torch.randn((2, 12, 9), generator=generator, dtype=torch.float64)
    operator = discretize(Equation("-laplacian(u) = f"), grid, fields={"f": 0.0}).operator

    def square(u: Tensor) -> float:
        return float(u.square().sum() + (u * operator.apply(u)).sum())

    found = RelativeH1.on(grid)((truth + error)[None, None], truth[None, None])
    assert found.item() == pytest.approx(sqrt(square(error) / square(truth)), rel=1e-12)


def wave(k: int, m: int) -> Callable[..., Tensor]:
    return lambda x, y: torch.sin(k * pi * x) * torch.sin(m * pi * y)


def hill(k: int, m: int) -> Callable[..., Tensor]:
    return lambda x, y: torch.cos(k * pi * x) * torch.cos(m * pi * y)


def general(x: Tensor, y: Tensor) -> Tensor:
    return torch.exp(x) + y**2


# Name -> boundary, truth, error, the norm of the error over that of the truth by integration.
CLOSED = {
    "zero": (Dirichlet(0.0), wave(1, 1), wave(2, 3), sqrt((1 + 13 * pi**2) / (1 + 2 * pi**2))),
    "no flux": (Neumann(0.0), hill(1, 2), hill(3, 1), sqrt((1 + 10 * pi**2) / (1 + 5 * pi**2))),
    "periodic": (Periodic(), hill(2, 4), wave(6, 2), sqrt((1 + 40 * pi**2) / (1 + 20 * pi**2))),
    "nothing said": (
        Dirichlet(1.0),
        general,
        lambda x, y: x * y,
        # 1/9 + 2/3 over the integral of (e^x + y^2)^2 + e^2x + 4 y^2.
        sqrt((1 / 9 + 2 / 3) / ((exp(2) - 1) + 2 / 3 * (exp(1) - 1) + 1 / 5 + 4 / 3)),
    ),
}


@pytest.mark.parametrize("case", CLOSED)
def test_h1_converges_with_second_order(case: str) -> None:
    boundary, truth, error, exact = CLOSED[case]
    differences = []
    for n in (16, 32, 64):
        grid = Grid((n, n), boundary=boundary)
        u, e = fields(grid, truth), fields(grid, error)
        differences.append(abs(RelativeH1.on(grid)(u + e, u).item() - exact) / exact)
    assert differences[-1] < 2e-3
    assert all(order == pytest.approx(2.0, abs=0.1) for order in orders(differences))


def test_h1_reads_the_sides_of_a_grid() -> None:
    boundary = {"x": (Dirichlet(0.0), Dirichlet(1.0)), "y": Periodic(), "z": (Neumann(0.0), Dirichlet(0))}
    loss = RelativeH1.on(Grid((4, 5, 6), upper=(1.0, 1.0, 3.0), boundary=boundary))
    assert loss.spacing == pytest.approx((0.25, 0.2, 0.5))
    assert loss.periodic == (False, True, False)
    assert loss.walls == (("zero", "open"), ("open", "open"), ("no flux", "zero"))


def test_legacy_h1_ignores_the_derivative_of_the_finest_detail() -> None:
    """1 % of the 30th wave on the third: 0.01/sqrt(1 + 3^2) as published; 2 pi k is 60 pi over 6 pi in truth."""
    grid = Grid((256, 256), boundary=Periodic())
    truth = fields(grid, lambda x, y: torch.sin(6 * pi * x))
    error = fields(grid, lambda x, y: 0.01 * torch.cos(60 * pi * y))
    legacy, h1 = LegacyH1()(truth + error, truth), RelativeH1.on(grid)(truth + error, truth)
    assert legacy.item() == pytest.approx(0.01 / sqrt(10), rel=1e-9)
    continuous = 0.01 * sqrt((1 + 3600 * pi**2) / (1 + 36 * pi**2))
    assert continuous > 30 * legacy.item()
    # The difference over a face sees sin(30 pi h)/(30 pi h) = 0.977 of the derivative.
    assert h1.item() == pytest.approx(continuous, rel=0.03)


@pytest.mark.parametrize("k", [(7, 0), (19, 2), (20, 2), (25, 25)])
def test_legacy_h1_cuts_each_component_at_twenty(k: tuple[int, int]) -> None:
    grid = Grid((64, 64), boundary=Periodic())
    truth = fields(grid, lambda x, y: torch.cos(2 * pi * (x + y)))
    error = fields(grid, lambda x, y: torch.cos(2 * pi * (k[0] * x + k[1] * y)))
    weight = 1 + sum(number**2 for number in k if number < 20)
    assert LegacyH1()(truth + error, truth).item() == pytest.approx(sqrt(weight / 3), rel=1e-9)


@pytest.mark.parametrize("loss", LOSSES)
def test_gradients(loss: Callable[[Tensor, Tensor], Tensor]) -> None:
    generator = torch.Generator().manual_seed(1)
    prediction, truth = torch.randn((2, 2, 2, 4, 5), generator=generator, dtype=torch.float64)
    assert torch.autograd.gradcheck(loss, (prediction.requires_grad_(), truth))


@pytest.mark.parametrize("loss", LOSSES)
def test_a_perfect_prediction_has_error_and_gradient_zero(loss: Callable[[Tensor, Tensor], Tensor]) -> None:
    truth = torch.ones(2, 1, 4, 4)
    prediction = truth.clone().requires_grad_()
    errors = loss(prediction, truth)
    (gradient,) = torch.autograd.grad(errors.sum(), prediction)
    assert errors.tolist() == [0.0, 0.0]
    assert torch.equal(gradient, torch.zeros_like(gradient))


@pytest.mark.parametrize("loss", LOSSES)
def test_a_truth_of_zero_has_no_relative_error(loss: Callable[[Tensor, Tensor], Tensor]) -> None:
    truth = torch.zeros(2, 1, 4, 4)
    prediction = torch.stack((torch.ones(1, 4, 4), torch.zeros(1, 4, 4))).requires_grad_()
    errors = loss(prediction, truth)
    (gradient,) = torch.autograd.grad(errors.sum(), prediction)
    assert errors.tolist() == [inf, 0.0]
    assert torch.equal(gradient, torch.zeros_like(gradient))


@pytest.mark.parametrize("loss", LOSSES)
def test_what_is_not_a_number_stays_so(loss: Callable[[Tensor, Tensor], Tensor]) -> None:
    truth = torch.ones(2, 1, 4, 4)
    prediction = truth.clone()
    prediction[1, 0, 2, 3] = torch.nan
    errors = loss(prediction, truth)
    assert errors[0] == 0.0 and errors[1].isnan()


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("unit", [1e-30, 1e30])
def test_the_unit_does_not_matter(loss: Callable[[Tensor, Tensor], Tensor], unit: float) -> None:
    """In float32, where the squares of these fields are zero or infinite."""
    generator = torch.Generator().manual_seed(2)
    prediction, truth = torch.randn((2, 3, 1, 6, 5), generator=generator)
    exact = loss(prediction.double(), truth.double())
    torch.testing.assert_close(loss(prediction * unit, truth * unit).double(), exact, rtol=1e-5, atol=0.0)


def test_half_precision_is_measured_in_float32() -> None:
    truth = torch.linspace(1.0, 2.0, 4096).reshape(1, 1, 64, 64)
    prediction = (truth * 1.01).to(torch.bfloat16)
    exact = RelativeL2()(prediction.double(), truth.double())
    found = RelativeL2()(prediction, truth)
    assert found.dtype == torch.float32
    assert found.item() == pytest.approx(exact.item(), rel=1e-5)


def test_refusals() -> None:
    u = torch.zeros(1, 1, 4, 4)
    with pytest.raises(InputError, match=r"RelativeL2: .* of one shape, got \(1, 1, 4, 4\) and \(1, 1, 4, 5\)"):
        RelativeL2()(u, torch.zeros(1, 1, 4, 5))
    with pytest.raises(InputError, match=r"spacing has 1 axes, so that fields are \(n, channel, x\)"):
        RelativeH1((0.1,))(u, u)
    with pytest.raises(InputError, match="give a positive number for each axis"):
        RelativeH1((0.1, -0.1))
    with pytest.raises(InputError, match="a wall is one of 'open', 'zero', 'no flux', not 'Dirichlet'"):
        RelativeH1((0.1, 0.1), walls=("open", "Dirichlet"))  # type: ignore[arg-type]
    with pytest.raises(InputError, match="one entry for all axes, or one for each"):
        RelativeH1((0.1, 0.1), periodic=(True,))


def test_walls_of_unknowns_that_differ() -> None:
    grid = Grid((8, 6), boundary={"u": Dirichlet(0.0), "v": Neumann(0.0)})
    assert RelativeH1.on(grid, "u") == RelativeH1.on(Grid((8, 6), boundary=Dirichlet(0.0)))
    assert RelativeH1.on(grid, "v") == RelativeH1.on(Grid((8, 6), boundary=Neumann(0.0)))
    for names in ((), ("u", "v"), ("pressure",)):
        assert RelativeH1.on(grid, *names) == RelativeH1(grid.spacing)


def test_a_pressure_does_not_hide_a_velocity():
    """1e5 Pa beside 1 m/s: a velocity of zero is wrong by 100 %, a pressure 1 % off by 1 %."""
    generator = torch.Generator().manual_seed(0)
    pressure, velocity = (
        1e5 + torch.randn(3, 1, 8, 8, generator=generator),
        torch.randn(3, 2, 8, 8, generator=generator),
    )
    truth = torch.cat((pressure, velocity), 1)
    prediction = torch.cat((1.01 * pressure, 0.0 * velocity), 1)
    assert float(RelativeL2()(prediction, truth).max()) < 0.011
    fields = MeanOverFields((RelativeL2(), RelativeL2()), (1, 2))
    torch.testing.assert_close(fields(prediction, truth), torch.full((3,), (0.01 + 1.0) / 2), rtol=1e-5, atol=0.0)
    torch.testing.assert_close(fields(torch.cat((pressure, 2 * velocity), 1), truth), torch.full((3,), 0.5))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MeanOverFields((RelativeL2(),), (1, 2)), r"1 errors and the counts of channels \(1, 2\)"),
        (lambda: MeanOverFields((RelativeL2(),), (0,)), "one positive count for each"),
        (
            lambda: MeanOverFields((RelativeL2(), RelativeL2()), (1, 2))(torch.ones(1, 2, 4), torch.ones(1, 3, 4)),
            r"fields of 1 \+ 2 channels, got 2 of the prediction and 3 of the truth",
        ),
    ],
)
def test_fields_that_do_not_fit_their_counts(make, message):
    with pytest.raises(InputError, match=message):
        make()
