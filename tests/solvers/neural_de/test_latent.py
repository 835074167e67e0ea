"""Latent ODEs against normal distributions with known evidence, loops over series, and finite differences."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn

from sciml import InputError
from sciml.solvers.neural_de import (
    DivergenceAnnealing,
    ErrorEstimate,
    LatentDistribution,
    LatentODE,
    RecognitionGRU,
    evidence_lower_bound,
    gaussian_log_likelihood,
)

DOUBLE = torch.float64


def drawn(*shape, seed=0):
    return torch.randn(*shape, dtype=DOUBLE, generator=torch.Generator().manual_seed(seed))


def series(batch=5, time=7, channels=2, seed=0, share=0.4):
    """Values, mask and times; the last row has nothing, the one before it one observation."""
    generator = torch.Generator().manual_seed(seed)
    mask = torch.rand(batch, time, channels, generator=generator) < share
    mask[-1] = mask[-2] = False
    mask[-2, 3, 1] = True
    times = torch.rand(time, generator=generator, dtype=DOUBLE).cumsum(0)
    return drawn(batch, time, channels, seed=seed + 1), mask, times


def model(channels=2, latent=3, seed=0, **options):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        encoder = RecognitionGRU(channels, latent, hidden=8, units=6, time_unit=0.5).double()
        rate = nn.Sequential(nn.Linear(latent, 8), nn.Tanh(), nn.Linear(8, latent)).double()
        decoder = nn.Linear(latent, channels).double()
    return LatentODE(encoder, Autonomous(rate), decoder, **options)


class Autonomous(nn.Module):
    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, z, t):
        return self.net(z)


def linear_model(matrix, decoder, latent, **options):
    """A LatentODE whose encoder answers what it is told, with a linear rate and decoder."""
    return LatentODE(
        lambda values, mask, times: latent,
        lambda z, t: z @ matrix.T,
        lambda z: z @ decoder.T,
        rtol=1e-10,
        atol=1e-10,
        **options,
    )


# Recognition


@pytest.mark.parametrize("at_once", [1, 2, 3, 7])
def test_the_encoder_is_a_recurrence_over_the_observations_of_each_series(at_once):
    """One of which takes up some of them, the latest first, and zeros where fewer are left."""
    values, mask, times = series(batch=6)
    with torch.random.fork_rng():
        encoder = RecognitionGRU(2, 3, hidden=8, units=6, time_unit=0.5, at_once=at_once).double()
    mean, log_variance = encoder(values, mask, times - 0.1)
    cell = nn.GRUCell(5 * at_once, 8).double()
    own = {name.removesuffix("_l0"): p for name, p in encoder.recurrent.named_parameters()}
    cell.load_state_dict(own)
    for row in range(6):
        seen = [k for k in range(7) if bool(mask[row, k].any())]
        read = []
        for place in range(len(seen) - 1, -1, -1):
            now = float(times[seen[place]])
            before = float(times[seen[place - 1]]) if place else 0.1
            known = mask[row, seen[place]].double()
            gap = torch.tensor([(now - before) / 0.5], dtype=DOUBLE)
            read.append(torch.cat((values[row, seen[place]] * known, known, gap)))
        state = torch.zeros(1, 8, dtype=DOUBLE)
        for start in range(0, len(read), at_once):
            step = torch.cat(read[start : start + at_once])
            state = cell(nn.functional.pad(step, (0, 5 * at_once - len(step)))[None], state)
        expected = encoder.to_latent(state)[0]
        torch.testing.assert_close(torch.cat((mean[row], log_variance[row])), expected, rtol=1e-12, atol=1e-12)


def test_the_first_deviation_of_the_latent_states():
    values, mask, times = series()
    encoder = RecognitionGRU(2, 3, deviation=0.05).double()
    mean, log_variance = encoder(values, mask, times)
    torch.testing.assert_close((0.5 * log_variance).exp(), torch.full_like(mean, 0.05), rtol=1e-6, atol=0)
    assert float(mean.detach().abs().min()) > 0
    (log_variance * drawn(5, 3, seed=4)).sum().backward()
    assert bool((encoder.to_latent[-1].weight.grad[3:] != 0).all()), "it is learned like everything else"


@pytest.mark.parametrize("samples", [None, 0, 4])
def test_the_decoder_can_be_asked_where_there_is_something_only(samples):
    values, mask, times = series()
    net, asked = model(), []
    net.decoder.register_forward_hook(lambda _, given, __: asked.append(given[0].shape[-2]))
    seen = mask.any(-1)
    found = []
    for where in (None, seen):
        generator = torch.Generator().manual_seed(0)
        prediction, _ = net(values, mask, times, where=where, samples=samples, generator=generator)
        loss = torch.where(mask, prediction - torch.where(mask, values, 0.0), 0.0).square().sum()
        found.append((prediction, torch.autograd.grad(loss, list(net.parameters()))))
    (whole, slopes), (some, others) = found
    assert asked == [7, int(seen.sum())]
    assert torch.equal(some, torch.where(seen[..., None], whole, 0.0))
    for one, other in zip(slopes, others, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


def test_masked_values_have_no_influence():
    values, mask, times = series()
    net = model()
    first, solution = net(values, mask, times, samples=0)
    for other in (1e300, torch.nan, torch.inf):
        changed = torch.where(mask, values, other)
        second, again = net(changed, mask, times, samples=0)
        assert torch.equal(first, second)
        assert torch.equal(solution.statistics["latent"].log_variance, again.statistics["latent"].log_variance)
        bounds = [
            evidence_lower_bound(first, given, mask, solution.statistics["latent"], deviation=0.1)
            for given in (values, changed)
        ]
        assert torch.equal(*bounds)
        gradients = torch.autograd.grad(bounds[1].sum(), list(net.parameters()), retain_graph=True)
        assert all(bool(g.isfinite().all()) for g in gradients)


def test_times_that_no_series_has_make_no_difference():
    values, mask, times = series()
    net = model()
    mean, log_variance = net.encode(values, mask, times)
    more = torch.cat((times, times[:-1] + 0.5 * times.diff(), times[-1:] + 1))
    order = more.argsort()
    spread = torch.cat((values, 7 * torch.ones_like(values)), 1)[:, order]
    spread_mask = torch.cat((mask, torch.zeros_like(mask)), 1)[:, order]
    found = net.encode(spread, spread_mask, more[order])
    torch.testing.assert_close(found.mean, mean, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(found.log_variance, log_variance, rtol=1e-12, atol=1e-12)


def test_rows_do_not_influence_each_other():
    values, mask, times = series(batch=8)
    net = model(rtol=1e-9, atol=1e-9)
    prediction, solution = net(values, mask, times, samples=0)
    order = torch.tensor([3, 7, 1, 0, 5, 2, 6, 4])
    permuted, again = net(values[order], mask[order], times, samples=0)
    torch.testing.assert_close(permuted, prediction[order], rtol=1e-12, atol=1e-12)
    one, _ = net(values[2:3], mask[2:3], times, samples=0)
    torch.testing.assert_close(one, prediction[2:3], rtol=1e-7, atol=1e-7)
    assert torch.equal(again.codes, solution.codes[order])


def test_a_series_without_observations_has_the_prior():
    values, mask, times = series()
    prediction, solution = model()(values, mask, times)
    latent = solution.statistics["latent"]
    assert latent.mean[-1].tolist() == latent.log_variance[-1].tolist() == [0.0] * 3
    bound = evidence_lower_bound(prediction, values, mask, latent, deviation=0.1, counting="mean")
    assert bound[-1].item() == 0.0
    nothing = torch.zeros_like(mask)
    prediction, solution = model()(values, nothing, times)
    found = evidence_lower_bound(prediction, values, nothing, solution.statistics["latent"], deviation=0.1)
    assert found.tolist() == [0.0] * 5


# The bound


def exact_posterior(values, mask, times, matrix, decoder, deviation):
    """Of a linear latent ODE with a standard normal prior, for one series: mean, covariance, and log evidence."""
    design = torch.cat([decoder @ torch.linalg.matrix_exp(float(t - times[0]) * matrix) for t in times])
    design, seen = design[mask.flatten()], values[mask]
    if not len(seen):
        return (
            torch.zeros(len(matrix), dtype=DOUBLE),
            torch.eye(len(matrix), dtype=DOUBLE),
            torch.zeros((), dtype=DOUBLE),
        )
    covariance = design @ design.T + deviation**2 * torch.eye(len(seen), dtype=DOUBLE)
    evidence = torch.distributions.MultivariateNormal(torch.zeros(len(seen), dtype=DOUBLE), covariance).log_prob(seen)
    posterior = torch.linalg.inv(torch.eye(matrix.shape[0], dtype=DOUBLE) + design.T @ design / deviation**2)
    return posterior @ design.T @ seen / deviation**2, posterior, evidence


@pytest.mark.parametrize("size", [1, 2])
def test_the_bound_is_the_evidence_minus_the_divergence_from_the_posterior(size):
    """Means of quadratic functions of a normal distribution: exactly those over 2 n points, here the samples."""
    values, mask, times = series(batch=4)
    matrix, decoder, deviation = drawn(size, size, seed=3), drawn(2, size, seed=4), 0.3
    latent = LatentDistribution(drawn(4, size, seed=5), drawn(4, size, seed=6))
    net = linear_model(matrix, decoder, latent)
    spread = (0.5 * latent.log_variance).exp()
    offsets = math.sqrt(size) * torch.cat((torch.eye(size, dtype=DOUBLE), -torch.eye(size, dtype=DOUBLE)))
    trajectory, _ = net.ode(latent.mean + offsets[:, None] * spread, times)
    bound = evidence_lower_bound(net.decoder(trajectory), values, mask, latent, deviation=deviation)
    half = evidence_lower_bound(
        net.decoder(trajectory), values, mask, latent, deviation=deviation, divergence_weight=0.5
    )
    for row in range(4):
        mean, covariance, evidence = exact_posterior(values[row], mask[row], times, matrix, decoder, deviation)
        guess = torch.distributions.MultivariateNormal(latent.mean[row], spread[row].square().diag())
        gap = torch.distributions.kl_divergence(guess, torch.distributions.MultivariateNormal(mean, covariance))
        assert bound[row].item() == pytest.approx((evidence - gap).item(), rel=1e-8, abs=1e-8)
        prior = torch.distributions.MultivariateNormal(mean * 0, torch.eye(size, dtype=DOUBLE))
        weighted = bound[row] + 0.5 * torch.distributions.kl_divergence(guess, prior)
        assert half[row].item() == pytest.approx(weighted.item(), rel=1e-8)


def test_the_bound_is_reached_at_the_posterior():
    values, mask, times = series(batch=4)
    matrix, decoder = drawn(1, 1, seed=3), drawn(2, 1, seed=4)
    exact = [exact_posterior(values[row], mask[row], times, matrix, decoder, 0.3) for row in range(4)]
    latent = LatentDistribution(
        torch.stack([mean for mean, _, _ in exact]), torch.stack([covariance[0].log() for _, covariance, _ in exact])
    )
    net = linear_model(matrix, decoder, latent)
    prediction, solution = net(values, mask, times, samples=4000, generator=torch.Generator().manual_seed(0))
    bounds = torch.stack(
        [evidence_lower_bound(p, values, mask, solution.statistics["latent"], deviation=0.3) for p in prediction]
    )
    mean = evidence_lower_bound(prediction, values, mask, latent, deviation=0.3)
    torch.testing.assert_close(mean, bounds.mean(0), rtol=1e-12, atol=1e-12)
    errors = (mean - torch.stack([evidence for _, _, evidence in exact])).abs()
    assert bool((errors <= 4 * bounds.std(0) / 4000**0.5).all())


def test_samples_are_those_of_the_distribution():
    latent = LatentDistribution(drawn(3, 2), drawn(3, 2, seed=1))
    found = latent.sample(40000, torch.Generator().manual_seed(0))
    assert found.shape == (40000, 3, 2)
    spread = (0.5 * latent.log_variance).exp()
    assert bool(((found.mean(0) - latent.mean).abs() < 4 * spread / 200).all())
    torch.testing.assert_close(found.var(0).log(), latent.log_variance, rtol=0, atol=4 * math.sqrt(2 / 40000))
    one = latent.sample(generator=torch.Generator().manual_seed(0))
    assert torch.equal(one, latent.sample(1, torch.Generator().manual_seed(0))[0])
    normal = torch.distributions.Normal(latent.mean, spread)
    divergence = torch.distributions.kl_divergence(normal, torch.distributions.Normal(0.0, 1.0)).sum(-1)
    torch.testing.assert_close(latent.divergence(), divergence)


def test_the_likelihood_is_that_of_independent_normal_noise():
    values, mask, _ = series()
    prediction, deviation = drawn(2, 5, 7, 2, seed=9), torch.tensor([0.5, 2.0], dtype=DOUBLE)
    density = torch.distributions.Normal(prediction, deviation).log_prob(values) * mask
    found = gaussian_log_likelihood(prediction, values, mask, deviation=deviation)
    torch.testing.assert_close(found, density.sum((-2, -1)))
    mean = gaussian_log_likelihood(prediction, values, mask, deviation=deviation, counting="mean")
    torch.testing.assert_close(mean[:, :-1], found[:, :-1] / mask.sum((-2, -1))[:-1])
    assert mean[:, -1].tolist() == [0.0, 0.0]


def test_the_weight_of_the_divergence_grows_as_published():
    annealing = DivergenceAnnealing(wait=10)
    assert [annealing.weight(step) for step in (0, 10)] == [0.0, 0.0]
    assert annealing.weight(12) == pytest.approx(1 - 0.99**2)
    assert DivergenceAnnealing().weight(3000) == pytest.approx(1.0)


# Prediction


@pytest.mark.parametrize(
    "options",
    [
        {"adjoint": "recorded"},
        {"adjoint": "checkpointed"},
        {"adjoint": "continuous"},
        {"adjoint": "continuous", "backend": "torchdiffeq"},
    ],
    ids=lambda options: "-".join(options.values()),
)
def test_gradients_are_those_of_finite_differences(options):
    values, mask, times = series()
    net = model(rtol=1e-10, atol=1e-10, **options)
    deviation = torch.tensor([0.4, 0.8], dtype=DOUBLE, requires_grad=True)

    def loss():
        prediction, solution = net(values, mask, times, samples=2, generator=torch.Generator().manual_seed(3))
        latent = solution.statistics["latent"]
        bound = evidence_lower_bound(
            prediction, values, mask, latent, deviation=deviation, divergence_weight=0.7, counting="mean"
        )
        return (bound * torch.arange(5.0)).sum()

    inputs = [*net.parameters(), deviation]
    gradients = torch.autograd.grad(loss(), inputs)
    directions = [drawn(*p.shape, seed=8) for p in inputs]
    slope = sum((g * d).sum() for g, d in zip(gradients, directions, strict=True))
    ends = []
    with torch.no_grad():
        for sign in (1, -2, 1):
            for p, d in zip(inputs, directions, strict=True):
                p += sign * 1e-5 * d
            ends.append(loss())
    assert slope.item() == pytest.approx(((ends[0] - ends[1]) / 2e-5).item(), rel=1e-7)


def test_the_latent_state_is_that_of_the_first_time_or_of_the_interval():
    values, mask, times = series()
    matrix, decoder = drawn(2, 2, seed=3), drawn(2, 2, seed=4)
    latent = LatentDistribution(drawn(5, 2), drawn(5, 2, seed=1))
    latent.mean[-1] = latent.log_variance[-1] = 0.0
    at = [float(times[2]), float(times[-1]), float(times[-1]) + 1.5]
    for interval in (None, (-0.5, 30.0), (float(times[0]), at[-1])):
        net = linear_model(matrix, decoder, latent, interval=interval)
        start = float(times[0]) if interval is None else interval[0]
        for wanted in (times.tolist(), at):
            found, solution = net(values, mask, times, wanted, samples=0)
            flows = [torch.linalg.matrix_exp((t - start) * matrix).T for t in wanted]
            exact = torch.stack([latent.mean @ flow @ decoder.T for flow in flows], 1)
            torch.testing.assert_close(found, exact, rtol=1e-7, atol=1e-7)
            assert solution.statistics["penalty"].shape == (5,)


def test_times_may_be_rounded_to_float32():
    values, mask, _ = series()
    net = model(interval=(0.7, 1.3))
    times = torch.linspace(0.7, 1.3, 7, dtype=DOUBLE)
    exact, _ = net(values, mask, times, samples=0)
    assert float(times.float()[0]) < 0.7
    torch.testing.assert_close(net(values, mask, times.float(), samples=0)[0], exact, rtol=1e-5, atol=1e-5)
    net = model()
    exact, _ = net(values, mask, times, samples=0)
    torch.testing.assert_close(net(values, mask, times, times.float(), samples=0)[0], exact, rtol=1e-5, atol=1e-5)


def test_solutions_can_be_copied_and_mapped():
    values, mask, times = series()
    with torch.no_grad():
        _, solution = model()(values, mask, times)
    copied = copy.deepcopy(solution).statistics["latent"]
    doubled = torch.utils._pytree.tree_map(lambda x: 2 * x, solution).statistics["latent"]
    assert isinstance(doubled, LatentDistribution)
    assert torch.equal(copied.mean, solution.statistics["latent"].mean)
    assert torch.equal(doubled.mean, 2 * copied.mean)


def test_draws_come_from_the_generator():
    values, mask, times = series()
    net = model(regularizer=ErrorEstimate(), rtol=1e-4)
    first, solution = net(values, mask, times, samples=3, generator=torch.Generator().manual_seed(1))
    second, _ = net(values, mask, times, samples=3, generator=torch.Generator().manual_seed(1))
    assert first.shape == (3, 5, 7, 2)
    assert torch.equal(first, second)
    assert solution.statistics["penalty"].shape == (3, 5)
    assert bool((solution.statistics["penalty"] > 0).all())
    with torch.random.fork_rng():
        torch.manual_seed(1)
        drawn_once, _ = net(values, mask, times)
    assert drawn_once.shape == (5, 7, 2)
    torch.testing.assert_close(
        drawn_once,
        net(values, mask, times, samples=1, generator=torch.Generator().manual_seed(1))[0][0],
        rtol=1e-12,
        atol=1e-12,
    )


def test_a_damped_oscillation_is_recovered_from_noisy_observations_with_gaps():
    """y = exp(-0.3 t) (a cos 2t + b sin 2t), a third of the values observed: the eigenvalues of a linear rate, and
    series that the training did not have, against the means given the observations and the true equation."""
    generator = torch.Generator().manual_seed(0)
    times = torch.linspace(0, 3, 31)
    waves = torch.exp(-0.3 * times) * torch.stack((torch.cos(2 * times), torch.sin(2 * times)))
    clean = (torch.randn(1088, 2, generator=generator) @ waves)[..., None]
    mask = torch.rand(clean.shape, generator=generator) < 0.33
    noisy = clean + 0.1 * torch.randn(clean.shape, generator=generator)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        rate, decoder = nn.Linear(2, 2, bias=False), nn.Linear(2, 1)
        net = LatentODE(RecognitionGRU(1, 2, hidden=32, units=32, time_unit=0.3), Autonomous(rate), decoder, rtol=1e-3)
    optimizer = torch.optim.Adam(net.parameters())
    for step in range(300):
        rows = torch.randperm(1024, generator=generator)[:128]
        prediction, solution = net(noisy[rows], mask[rows], times, generator=generator)
        latent, weight = solution.statistics["latent"], DivergenceAnnealing().weight(step)
        bound = evidence_lower_bound(
            prediction, noisy[rows], mask[rows], latent, deviation=0.1, divergence_weight=weight
        )
        optimizer.param_groups[0]["lr"] = 0.01 * (1 + math.cos(math.pi * step / 300))
        optimizer.zero_grad()
        (-bound.mean()).backward()
        optimizer.step()
    eigenvalue = torch.linalg.eigvals(rate.weight.detach())[0]
    assert eigenvalue.real.item() == pytest.approx(-0.3, abs=0.03)
    assert eigenvalue.imag.abs().item() == pytest.approx(2.0, abs=0.03)

    clean, mask, noisy = clean[1024:], mask[1024:], noisy[1024:]
    with torch.no_grad():
        prediction, _ = net(noisy, mask, times, samples=0)
    best = torch.zeros_like(clean)
    for row in range(64):
        design = waves.T[mask[row, :, 0]]
        precision = torch.eye(2) + design.T @ design / 0.01
        best[row, :, 0] = torch.linalg.solve(precision, design.T @ noisy[row][mask[row]] / 0.01) @ waves
    error, least, size = ((found - clean)[~mask].square().mean().sqrt() for found in (prediction, best, 0 * best))
    assert least < error < 2 * least < 0.2 * size


# Refusals


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"values": torch.zeros(5, 7)},
            r"values is a real tensor \(batch, time, channel\), got torch.float32 and shape",
        ),
        ({"mask": torch.ones(5, 7, 2)}, r"mask is a bool tensor of the shape of the values, \(5, 7, 2\)"),
        ({"mask": torch.ones(5, 7, dtype=torch.bool)}, r"got torch.bool and shape \(5, 7\)"),
        ({"times": torch.zeros(5, 7)}, "put the times of all series into one list, and mask those that a series lacks"),
        ({"times": [0.0, 1.0, 2.0]}, "times has 3 entries, and the values stand at 7 times"),
        ({"times": [0, 1, 2, 2, 3, 4, 5]}, r"times must increase: times\[2\] is 2.0 and times\[3\] is 2.0"),
        ({"times": [0, 1, 2, math.nan, 3, 4, 5]}, r"times must be finite: times\[3\] is nan"),
        ({"times": "now"}, "times is a list of numbers, increasing, got 'now'"),
        ({"at": []}, "at is empty; at least one time is needed"),
        ({"at": [1.0, 0.5]}, r"at must increase: at\[0\] is 1.0 and at\[1\] is 0.5"),
        ({"at": [-3.0, 0.5]}, r"at\[0\] = -3.0 stands before the latent state, which is that at"),
        ({"where": torch.ones(5, 7)}, r"where is a bool tensor \(5, 7\), \(batch, time\), got torch.float32"),
        (
            {"where": torch.ones(5, 6) > 0},
            r"where is a bool tensor \(5, 7\), \(batch, time\), got torch.bool and shape",
        ),
        ({"where": [True]}, r"where is a bool tensor \(5, 7\), \(batch, time\), got \[True\]"),
        ({"samples": -1}, "samples is a number, at least 0, or None, got -1"),
        (
            {"values": torch.zeros(5, 7, 2)},
            "RecognitionGRU is for 2 channels in torch.float64, and the values have 2 in",
        ),
        ({"values": torch.full((5, 7, 2), torch.inf, dtype=DOUBLE)}, "values: series 0 is not finite at a place that"),
    ],
)
def test_series_that_make_no_sense_are_refused(change, message):
    values, mask, times = series()
    with pytest.raises(InputError, match=message):
        model()(**{"values": values, "mask": mask, "times": times, **change})


def test_parts_of_a_model_that_do_not_fit_are_refused():
    values, mask, times = series()
    zeros = torch.zeros(5, 3, dtype=DOUBLE)
    net = LatentODE(lambda *series: (zeros, zeros[:, :2]), lambda z, t: z, lambda z: z)
    with pytest.raises(InputError, match=r"returned shapes \(5, 3\) and \(5, 2\) for 5 series"):
        net(values, mask, times)
    net = LatentODE(lambda *series: (zeros, zeros), lambda z, t: z, lambda z: z[..., 0])
    with pytest.raises(InputError, match=r"the decoder returned shape \(5, 7\) for latent states \(5, 7, 3\)"):
        net(values, mask, times)
    with pytest.raises(InputError, match=r"stands before the latent state, which is that at 1\.0"):
        model(interval=(1.0, 9.0))(values, mask, times - times[0])
    with pytest.raises(InputError, match="is that of the latent state: give `at` more times, or LatentODE an interval"):
        model()(values[:, :1], mask[:, :1], times[:1])
    with pytest.raises(InputError, match=r"LatentODE: decoder is a torch\.nn.Module or a function, got None"):
        LatentODE(lambda *series: None, lambda z, t: z, None)
    with pytest.raises(InputError, match="RecognitionGRU: hidden is a number of at least 1, got 0"):
        RecognitionGRU(1, 2, hidden=0)
    with pytest.raises(InputError, match="RecognitionGRU: time_unit is a positive time, got 0"):
        RecognitionGRU(1, 2, time_unit=0)
    with pytest.raises(InputError, match="RecognitionGRU: at_once is a number of at least 1, got 0"):
        RecognitionGRU(1, 2, at_once=0)
    with pytest.raises(InputError, match="RecognitionGRU: deviation is a positive number or None, got 0"):
        RecognitionGRU(1, 2, deviation=0)


def test_losses_that_make_no_sense_are_refused():
    values, mask, _ = series()
    latent = LatentDistribution(torch.zeros(5, 3), torch.zeros(5, 3))
    for settings, message in (
        ({"deviation": 0.0}, "deviation is a positive number or a tensor, got 0.0"),
        ({"deviation": torch.tensor(-0.1)}, "deviation is positive, got a tensor whose smallest entry is -0.1"),
        ({"deviation": torch.tensor([0.0, 1.0])}, "deviation is positive, got a tensor whose smallest entry is 0"),
        ({"deviation": torch.tensor(torch.nan)}, "deviation is positive, got a tensor whose smallest entry is nan"),
        ({"deviation": torch.ones(3)}, r"deviation, of shape \(3,\), does not broadcast to the values, \(5, 7, 2\)"),
        ({"deviation": 1.0, "divergence_weight": -1.0}, "divergence_weight is a number, at least 0, got -1.0"),
        ({"deviation": 1.0, "counting": "max"}, "counting is 'sum' or 'mean', got 'max'"),
    ):
        with pytest.raises(InputError, match=message):
            evidence_lower_bound(values, values, mask, latent, **settings)
    with pytest.raises(InputError, match=r"of shape \(5, 3, 2\), has other last axes than the values, \(5, 7, 2\)"):
        evidence_lower_bound(values[:, :3], values, mask, latent, deviation=1.0)
    with pytest.raises(InputError, match=r"the latent distribution is one of \(4,\) series, and the values of 5"):
        few = LatentDistribution(latent.mean[:4], latent.log_variance[:4])
        evidence_lower_bound(values, values, mask, few, deviation=1.0)
    with pytest.raises(InputError, match=r"base is a number, at least 0 and below 1, got 1.0"):
        DivergenceAnnealing(1.0)
    with pytest.raises(InputError, match="wait is a number of steps, at least 0, got -1"):
        DivergenceAnnealing(wait=-1)
