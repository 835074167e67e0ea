"""Densities of continuous normalizing flows, against matrix exponentials, quadrature, and finite differences."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from sciml import InputError, Status
from sciml.solvers.neural_de import (
    ContinuousNormalizingFlow,
    ErrorEstimate,
    JacobianNorm,
    KineticEnergy,
    LocalError,
    NeuralODE,
    TaylorDerivative,
)

TIGHT = {"rtol": 1e-9, "atol": 1e-9}


class Rate(nn.Module):
    """A perceptron of the point and the time."""

    def __init__(self, dimension=2, units=16, scale=1.5, seed=0, dtype=torch.float64):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.net = nn.Sequential(nn.Linear(dimension + 1, units), nn.Tanh(), nn.Linear(units, dimension)).to(dtype)
        with torch.no_grad():
            for p in self.parameters():
                p *= scale

    def forward(self, z, t):
        time = torch.as_tensor(t, dtype=z.dtype).expand(*z.shape[:-1], 1)
        return self.net(torch.cat((z, time), -1))


def drawn(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def standard(z):
    return -0.5 * (z.square().sum(-1) + z.shape[-1] * math.log(2 * math.pi))


def grid(half=6.5, count=101):
    """Points of a square, and the weight of each in an integral."""
    line = torch.linspace(-half, half, count, dtype=torch.float64)
    return torch.cartesian_prod(line, line), float(line[1] - line[0]) ** 2


@pytest.mark.parametrize(
    "options",
    [
        {"adjoint": "recorded"},
        {"adjoint": "checkpointed"},
        {"adjoint": "continuous"},
        {"adjoint": "recorded", "backend": "torchdiffeq"},
        {"adjoint": "continuous", "backend": "torchdiffeq"},
    ],
    ids=lambda options: "-".join(options.values()),
)
@pytest.mark.parametrize("dimension", [1, 2, 5])
def test_the_density_of_a_linear_flow_is_that_of_the_matrix_exponential(dimension, options):
    matrix, shift = drawn(dimension, dimension, seed=1), drawn(dimension, seed=2)
    flow = ContinuousNormalizingFlow(
        lambda z, t: 2 * t * (z @ matrix.T + shift), dimension, interval=(0.0, 1.0), **options, **TIGHT
    )
    x = drawn(4, 3, dimension)
    found, solution = flow(x)
    centre = -torch.linalg.solve(matrix, shift)  # the integral of 2 t is 1
    z = centre + (x - centre) @ torch.linalg.matrix_exp(matrix).T
    exact = standard(z) + matrix.trace()
    assert found.shape == (4, 3)
    torch.testing.assert_close(found, exact, rtol=1e-7, atol=1e-7)
    torch.testing.assert_close(flow.inverse(z)[0], x, rtol=1e-7, atol=1e-7)
    assert solution.status == (Status.CONVERGED,) * 12


def test_the_density_integrates_to_one():
    points, weight = grid()
    with torch.no_grad():
        for adjoint in ("recorded", "checkpointed"):
            flow = ContinuousNormalizingFlow(Rate(seed=3), 2, interval=(-0.5, 1.0), adjoint=adjoint)
            total = flow(points)[0].exp().sum() * weight
            assert total.item() == pytest.approx(1.0, abs=2e-6)


@pytest.mark.parametrize("adjoint", ["recorded", "checkpointed", "continuous"])
@pytest.mark.parametrize("divergence", ["exact", "hutchinson"])
def test_gradients_are_those_of_finite_differences(divergence, adjoint):
    rate, x = Rate(), drawn(6, 2)
    flow = ContinuousNormalizingFlow(rate, 2, divergence=divergence, adjoint=adjoint, rtol=1e-10, atol=1e-10)
    weights = drawn(6, seed=5)

    def loss(x):
        return (weights * flow(x, generator=torch.Generator().manual_seed(7))[0]).sum()

    inputs = [x.requires_grad_(), *rate.parameters()]
    gradients = torch.autograd.grad(loss(x), inputs)
    directions = [drawn(*p.shape, seed=8) for p in inputs]
    slope = sum((g * d).sum() for g, d in zip(gradients, directions, strict=True))
    ends = []
    with torch.no_grad():
        for sign in (1, -1):
            for p, d in zip(inputs, directions, strict=True):
                p += sign * 1e-5 * d
            ends.append(loss(x))
            for p, d in zip(inputs, directions, strict=True):
                p -= sign * 1e-5 * d
    assert slope.item() == pytest.approx(((ends[0] - ends[1]) / 2e-5).item(), rel=1e-7)


def test_two_solves_may_precede_the_backward_pass():
    """The noise of the first is still there when its steps are computed again."""
    rate, x = Rate(), drawn(4, 2)
    for adjoint in ("checkpointed", "continuous"):
        flow = ContinuousNormalizingFlow(rate, 2, divergence="hutchinson", adjoint=adjoint, **TIGHT)
        alone = torch.autograd.grad(
            flow(x, generator=torch.Generator().manual_seed(1))[0].sum(), list(rate.parameters())
        )
        first = flow(x, generator=torch.Generator().manual_seed(1))[0].sum()
        flow(x, generator=torch.Generator().manual_seed(2))
        for a, b in zip(alone, torch.autograd.grad(first, list(rate.parameters())), strict=True):
            assert torch.equal(a, b)


@pytest.mark.parametrize("adjoint", ["recorded", "checkpointed"])
@pytest.mark.parametrize("noise", ["rademacher", "gaussian"])
def test_the_estimate_of_the_divergence_has_its_mean_and_variance(noise, adjoint):
    """Of a linear rate the change is e^T A e: Hutchinson, Communications in Statistics 18 (1989)."""
    matrix = drawn(3, 3, seed=4)
    flow = ContinuousNormalizingFlow(
        lambda z, t: z @ matrix.T, 3, divergence="hutchinson", noise=noise, adjoint=adjoint
    )
    change = flow.to_base(drawn(1, 3).expand(10000, 3), generator=torch.Generator().manual_seed(0))[1]
    even = (matrix + matrix.T) / 2
    variance = 2 * even.square().sum() - (2 * even.diagonal().square().sum() if noise == "rademacher" else 0)
    assert change.mean().item() == pytest.approx(matrix.trace().item(), abs=4 * math.sqrt(variance / 10000))
    assert change.var().item() == pytest.approx(variance.item(), rel=0.1)


def test_rademacher_noise_is_exact_where_the_jacobian_is_diagonal():
    x = drawn(5, 3)
    exact, estimate = (
        ContinuousNormalizingFlow(lambda z, t: torch.sin(z + t), 3, divergence=divergence, **TIGHT)(x)[0]
        for divergence in ("exact", "hutchinson")
    )
    torch.testing.assert_close(exact, estimate, rtol=1e-12, atol=1e-12)


def test_samples_have_the_density():
    flow = ContinuousNormalizingFlow(Rate(seed=2, scale=2.0), 2)
    points, weight = grid()
    with torch.no_grad():
        x, _ = flow.sample(10000, generator=torch.Generator().manual_seed(0))
        density = flow(points)[0]
        for function in (
            lambda x, log_density: log_density,
            lambda x, log_density: x[:, 0],
            lambda x, log_density: x[:, 1].square(),
            lambda x, log_density: torch.sin(2 * x[:, 0] * x[:, 1]),
        ):
            exact = (density.exp() * function(points, density)).sum() * weight
            found = function(x, flow(x)[0])
            assert found.mean().item() == pytest.approx(exact.item(), abs=float(4 * found.std() / 10000**0.5))


def test_sampling_and_flowing_invert_each_other():
    flow = ContinuousNormalizingFlow(Rate(scale=2.0), 2, interval=(0.25, 1.5), **TIGHT)
    x, solution = flow.sample((3, 5), generator=torch.Generator().manual_seed(0))
    z = drawn(3, 5, 2, seed=0)
    torch.testing.assert_close(flow.to_base(x)[0], z, rtol=1e-7, atol=1e-7)
    torch.testing.assert_close(flow.inverse(flow.to_base(z)[0])[0], z, rtol=1e-7, atol=1e-7)
    again, _ = flow.sample((3, 5), generator=torch.Generator().manual_seed(0))
    assert torch.equal(x, again)
    assert solution.times.tolist() == [0.25, 1.5]


def test_a_base_may_be_given():
    base = torch.distributions.Independent(
        torch.distributions.Laplace(torch.zeros(2, dtype=torch.float64), torch.ones(2, dtype=torch.float64)), 1
    )
    flow = ContinuousNormalizingFlow(lambda z, t: 0.5 * z, 2, base=base, **TIGHT)
    x = drawn(4, 2)
    torch.testing.assert_close(flow(x)[0], base.log_prob(math.exp(0.5) * x) + 1.0, rtol=1e-7, atol=1e-7)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        found, _ = flow.sample(10)
        torch.manual_seed(0)
        torch.testing.assert_close(found, math.exp(-0.5) * base.sample((10,)), rtol=1e-7, atol=1e-7)
    with pytest.raises(InputError, match=r"use torch.manual_seed, or draw z yourself and call inverse\(z\)"):
        flow.sample(2, generator=torch.Generator())


@pytest.mark.parametrize("divergence", ["exact", "hutchinson"])
def test_integral_regularizers_are_of_the_points_alone(divergence):
    rate, x = Rate(), drawn(5, 2)
    for integral in (KineticEnergy(), TaylorDerivative(2), 0.5 * KineticEnergy() + 2.0 * TaylorDerivative(1)):
        flow = ContinuousNormalizingFlow(rate, 2, divergence=divergence, regularizer=integral, **TIGHT)
        of_flow = flow(x)[1].statistics["penalty"]
        of_points = NeuralODE(rate, regularizer=integral, **TIGHT)(x)[1].statistics["penalty"]
        torch.testing.assert_close(of_flow, of_points, rtol=1e-7, atol=1e-7)
        assert of_flow.requires_grad


def test_the_jacobian_norm_of_a_linear_flow_is_that_of_its_matrix():
    matrix = drawn(2, 2, seed=4)
    flow = ContinuousNormalizingFlow(lambda z, t: z @ matrix.T, 2, regularizer=JacobianNorm())
    with torch.random.fork_rng():
        torch.manual_seed(0)
        penalty = flow(drawn(10000, 2))[1].statistics["penalty"]
    variance = 2 * (matrix @ matrix.T).square().sum()
    exact = matrix.square().sum().item()
    assert penalty.mean().item() == pytest.approx(exact, abs=4 * math.sqrt(variance / 10000))


def test_regularizers_act_in_training_only_and_may_be_replaced():
    rate, x = Rate(), drawn(5, 2)
    flow = ContinuousNormalizingFlow(rate, 2, regularizer=ErrorEstimate(), rtol=1e-4)
    first = flow(x)[1].statistics["penalty"]
    flow.regularizer = 3.0 * ErrorEstimate()
    torch.testing.assert_close(flow(x)[1].statistics["penalty"], 3 * first, rtol=1e-12, atol=0.0)
    assert bool((first > 0).all())
    rate.net[1].eval()
    flow(x)
    assert rate.training and not rate.net[1].training  # what the solves use inside leaves the modes as they are
    flow.eval()
    assert flow(x)[1].statistics["penalty"].tolist() == [0.0] * 5


def test_what_is_refused_of_a_model_is_refused_of_a_flow():
    def rate(z, t):
        return torch.sin(z + torch.full_like(z, float(t)))

    flow = ContinuousNormalizingFlow(rate, 2, regularizer=TaylorDerivative(2))
    with pytest.raises(InputError, match="TaylorDerivative: the rate depends on the time, and its derivative"):
        flow(drawn(5, 2))
    flow.eval()(drawn(5, 2))
    flow = ContinuousNormalizingFlow(Rate(), 2, adjoint="checkpointed")
    flow.regularizer = JacobianNorm()
    with pytest.raises(InputError, match="JacobianNorm has a backward pass of its own"):
        flow(drawn(5, 2))


@pytest.mark.parametrize("adjoint", ["recorded", "checkpointed", "continuous"])
def test_local_regularizers_go_with_every_adjoint(adjoint):
    rate = Rate()
    flow = ContinuousNormalizingFlow(rate, 2, adjoint=adjoint, regularizer=LocalError(), rtol=1e-4)
    penalty = flow(drawn(5, 2))[1].statistics["penalty"]
    assert bool((penalty > 0).all())
    gradients = torch.autograd.grad(penalty.sum(), list(rate.parameters()))
    assert all(bool(g.isfinite().all()) and bool(g.any()) for g in gradients)


def test_densities_in_inference_mode_and_inside_transforms():
    flow, x = ContinuousNormalizingFlow(Rate(), 2, **TIGHT), drawn(5, 2)
    exact, _ = flow(x.requires_grad_())
    (score,) = torch.autograd.grad(exact.sum(), x)
    with torch.inference_mode():
        assert torch.equal(flow(x.detach().clone())[0], exact)
    x = x.detach()
    torch.testing.assert_close(torch.func.grad(lambda x: flow(x)[0].sum())(x), score, rtol=1e-7, atol=1e-7)
    _, slope = torch.func.jvp(lambda x: flow(x)[0], (x,), (torch.ones_like(x),))
    torch.testing.assert_close(slope, score.sum(-1), rtol=1e-7, atol=1e-7)


def test_a_row_that_fails_takes_no_other_down():
    """dz/dt = z^2 is infinite at t = 1/x."""
    flow = ContinuousNormalizingFlow(lambda z, t: z.square(), 1, throw=False, **TIGHT)
    x = torch.tensor([[0.5], [4.0], [-3.0]], dtype=torch.float64)
    found, solution = flow(x)
    assert [status is Status.CONVERGED for status in solution.status] == [True, False, True]
    exact = standard(x / (1 - x)) - 2 * torch.log((1 - x[:, 0]).abs())
    torch.testing.assert_close(found[[0, 2]], exact[[0, 2]], rtol=1e-7, atol=1e-7)
    assert bool(found[1].isnan())


def test_a_ring_is_learned():
    generator = torch.Generator().manual_seed(0)

    def ring(count):
        radius = 2 + 0.3 * torch.randn(count, generator=generator)
        angle = 2 * math.pi * torch.rand(count, generator=generator)
        return torch.stack((radius * angle.cos(), radius * angle.sin()), -1)

    train, test = ring(4096), ring(4096)
    radius = test.norm(dim=-1)
    true = 0.5 * ((radius - 2) / 0.3).square() + math.log(0.3 * math.sqrt(2 * math.pi)) + (2 * math.pi * radius).log()
    flow = ContinuousNormalizingFlow(Rate(units=32, scale=1.0, dtype=torch.float32), 2, rtol=1e-3, atol=1e-3)
    optimizer = torch.optim.Adam(flow.parameters(), lr=0.05)
    for step in range(100):
        rows = torch.randperm(4096, generator=generator)[:256]
        optimizer.param_groups[0]["lr"] = 0.025 * (1 + math.cos(math.pi * step / 100))
        optimizer.zero_grad()
        (-flow(train[rows])[0].mean()).backward()
        optimizer.step()
    with torch.no_grad():
        found = -flow(test)[0].mean()
        gaussian = -torch.distributions.MultivariateNormal(train.mean(0), train.T.cov()).log_prob(test).mean()
    assert true.mean() < found < true.mean() + 0.05 < gaussian - 0.7


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"dimension": 0}, "dimension is a number of at least 1, got 0"),
        ({"divergence": "trace"}, "divergence is 'exact' or 'hutchinson', got 'trace'"),
        ({"noise": "uniform"}, "noise is 'rademacher' or 'gaussian', got 'uniform'"),
        ({"base": torch.distributions.Normal(0.0, 1.0)}, r"base is a torch.distributions.Distribution of event shape"),
        ({"interval": (1.0, 0.0)}, r"interval is a pair \(t0, t1\) of times"),
        ({"adjoint": "continuous", "regularizer": ErrorEstimate()}, "the continuous adjoint does not see"),
    ],
)
def test_settings_that_make_no_flow_are_refused(settings, message):
    with pytest.raises(InputError, match=message):
        ContinuousNormalizingFlow(lambda z, t: z, **{"dimension": 2, **settings})


def test_points_and_rates_that_do_not_fit_are_refused():
    flow = ContinuousNormalizingFlow(lambda z, t: z, 2)
    with pytest.raises(InputError, match=r"x is a real tensor \(\*batch, 2\), got torch.float32 and shape \(4, 3\)"):
        flow(torch.zeros(4, 3))
    with pytest.raises(InputError, match="x has entries that are not finite"):
        flow(torch.tensor([[0.0, torch.nan]]))
    with pytest.raises(InputError, match=r"z is a real tensor \(\*batch, 2\), got None"):
        flow.inverse(None)
    with pytest.raises(InputError, match=r"shape is a number of points or a shape of such, got -1"):
        flow.sample(-1)
    for adjoint in ("recorded", "checkpointed"):
        wrong = ContinuousNormalizingFlow(lambda z, t: z[..., :1], 2, adjoint=adjoint)
        with pytest.raises(InputError, match=r"the rate returned shape \(4, 1\) for points of shape \(4, 2\)"):
            wrong(torch.zeros(4, 2))
