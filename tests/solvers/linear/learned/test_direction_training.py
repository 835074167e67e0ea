"""Training of direction networks: the loss, the residuals they are trained on, and that it helps."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import sciml
from sciml.errors import InputError
from sciml.solvers.linear import Direct
from sciml.solvers.linear.learned import DirectionNetwork, RitzVectors, ritz_vectors
from sciml.solvers.linear.learned.direction_training import (
    DirectionLoss,
    DirectionTraining,
    RitzResiduals,
    train_direction_network,
)
from sciml.training import Adam, Constant, OneCycle, Plan, TensorSamples, evaluate


def unit(fields):
    return fields / fields.flatten(1).norm(dim=1).reshape(-1, *[1] * (fields.ndim - 1))


def test_the_loss_is_what_one_step_leaves(boxes):
    operator, b = boxes.operator(5), unit(boxes.field(3, 5, 5, 5))
    loss = DirectionLoss(operator)
    q = boxes.field(3, 5, 5, 5, seed=2)
    values = loss(lambda r: q, {"residual": b})
    matrix = operator.to_sparse().to_dense()
    for row in range(3):
        direction, right = q[row].flatten(), b[row].flatten()
        step = direction @ right / (direction @ matrix @ direction)
        expected = (right - step * matrix @ direction).square().sum()
        assert float(values[row]) == pytest.approx(float(expected), rel=1e-12)
    inverse = Direct().prepare(operator)
    assert loss(inverse.apply, {"residual": b}).max() < 1e-24
    assert torch.equal(loss(lambda r: 0 * r, {"residual": b}) > 0.999, torch.ones(3, dtype=torch.bool))


@pytest.mark.parametrize("scale", [1e-3, -1.0, 4e5])
def test_the_loss_does_not_change_with_the_scale_of_the_direction(boxes, scale):
    operator, b = boxes.operator(5), unit(boxes.field(3, 5, 5, 5))
    loss = DirectionLoss(operator)
    network = DirectionNetwork(3, 3, (1, 1, 1)).double()
    plain = loss(network, {"residual": b})
    torch.testing.assert_close(loss(lambda r: scale * network(r), {"residual": b}), plain, rtol=1e-10, atol=0.0)


def test_the_gradient_of_the_loss(boxes):
    loss, b = DirectionLoss(boxes.operator(3, 2)), unit(boxes.field(2, 3, 3))
    q = boxes.field(2, 3, 3, seed=3).requires_grad_()
    assert torch.autograd.gradcheck(lambda q: loss(lambda r: q, {"residual": b}), (q,))


def test_residuals_are_made_from_their_number_alone_and_never_twice(boxes):
    ritz = ritz_vectors(boxes.operator(5), 40)
    settings = DirectionTraining(vectors=40, samples=300, held_out=200, mirrored=True, plan=Plan(steps=1))
    trained, held_out = (RitzResiduals.of(ritz, settings, stream) for stream in (0, 1))
    assert (len(trained), len(held_out)) == (300, 200)
    together = trained.batch(torch.arange(300))["residual"]
    torch.testing.assert_close(together.flatten(1).norm(dim=1), torch.ones(300))
    order = torch.tensor([7, 3, 250])
    torch.testing.assert_close(trained.batch(order)["residual"], together[order], rtol=1e-5, atol=1e-6)
    assert torch.equal(trained.batch(order)["residual"], trained.batch(order)["residual"])
    every = torch.cat([together, held_out.batch(torch.arange(200))["residual"]]).flatten(1)
    products = (every @ every.mT).abs() - torch.eye(500)
    assert products.max() < 0.95


def test_low_modes_have_their_weight():
    """Of unit vectors the coefficients are seen again, up to the norm, which geometric means do not notice."""
    vectors = torch.eye(64).reshape(64, 4, 4, 4)
    ritz = RitzVectors(torch.arange(1.0, 65.0), vectors, torch.zeros(64), 64, 0)
    samples = RitzResiduals(ritz, 4000, low_share=0.25, low_weight=9.0, noise=0.0, seed=1)
    logarithms = samples.batch(torch.arange(4000))["residual"].flatten(1).abs().log().mean(0)
    assert float((logarithms[:16].mean() - logarithms[16:].mean()).exp()) == pytest.approx(9.0, rel=0.03)
    assert max(float(part.max() - part.min()) for part in (logarithms[:16], logarithms[16:])) < 0.15


def test_noise_reaches_what_the_ritz_vectors_do_not_span(boxes):
    ritz = ritz_vectors(boxes.operator(6), 20)
    rows = ritz.vectors.flatten(1)
    outside = []
    for noise in (0.0, 1.0, 3.0):
        b = RitzResiduals(ritz, 500, noise=noise, seed=1).batch(torch.arange(500))["residual"].flatten(1)
        outside.append(float((b - b @ rows.mT @ rows).square().sum(1).mean()))
    assert outside[0] < 1e-10
    within = 11 * 81 + 9  # of 216 - 20 = 196 dimensions outside, and 20 inside, each has the noise
    assert outside[1] == pytest.approx(196 / (196 + within + 20), rel=0.1)
    assert outside[2] == pytest.approx(196 * 9 / (196 * 9 + within + 180), rel=0.1)


def test_mirrored_residuals_are_images_under_the_symmetries_of_the_cube(boxes):
    operator = boxes.operator(4)
    ritz = ritz_vectors(operator, 30, dtype=torch.float32)
    plain, mirrored = (
        RitzResiduals(ritz, 100, mirrored=mirrored, seed=1).batch(torch.arange(100))["residual"]
        for mirrored in (False, True)
    )
    torch.testing.assert_close(
        plain.flatten(1).sort(1).values, mirrored.flatten(1).sort(1).values, rtol=1e-4, atol=1e-5
    )
    assert 90 <= int((plain - mirrored).flatten(1).norm(dim=1).gt(0.1).sum()) < 100
    energy = [(r * operator.to(torch.float32).apply(r)).flatten(1).sum(1) for r in (plain, mirrored)]
    torch.testing.assert_close(*energy, rtol=1e-4, atol=1e-4)


def test_a_short_training_lowers_the_loss_on_right_sides_that_it_has_not_seen(boxes):
    operator = boxes.operator(12, 2)
    smooth = torch.stack([torch.cos(i * torch.arange(12.0) / 4 + i)[:, None] * torch.ones(12) for i in range(8)])
    others = TensorSamples(residual=unit(torch.cat([smooth, boxes.field(8, 12, 12).float()])))
    network = DirectionNetwork(2, 8, (1, 2, 1))
    loss = DirectionLoss(operator)

    def mean():
        return evaluate(network, lambda net, batch: {"loss": loss(net, batch)}, others).means["loss"]

    before = mean()
    settings = DirectionTraining(
        vectors=70,
        mirrored=True,
        samples=10_000,
        plan=Plan(steps=300, batch_size=16, optimizer=Adam(4e-3), schedule=OneCycle(), clip=1.0),
    )
    training = train_direction_network(network, operator, settings)
    assert float(training.validations["loss"][-1]) < 0.1
    assert mean() < 0.2 * before


def test_a_training_is_resumed_to_the_last_bit(boxes, tmp_path):
    operator = boxes.operator(8, 2)

    def trained(steps, folder, resume=False):
        network = DirectionNetwork(2, 3, (1, 1, 1))
        plan = Plan(steps=steps, batch_size=4, schedule=Constant())
        settings = DirectionTraining(vectors=30, samples=50, held_out=4, plan=plan)
        train_direction_network(network, operator, settings, folder=folder, resume=resume)
        return network.state_dict()

    whole = trained(20, tmp_path / "whole")
    trained(11, tmp_path / "parts")
    parts = trained(20, tmp_path / "parts", resume=True)
    assert all(torch.equal(parts[name], whole[name]) for name in whole)


def test_settings_out_of_range_are_refused(boxes):
    with pytest.raises(InputError, match="low_share must be a number in"):
        DirectionTraining(low_share=0.0)
    with pytest.raises(InputError, match="vectors must be a whole number"):
        DirectionTraining(vectors=0)
    grid = sciml.Grid((4, 5))
    operator = sciml.discretize(sciml.Equation("-laplacian(u) = f"), grid, fields={"f": 0.0}).operator
    settings = DirectionTraining(vectors=10, mirrored=True, plan=Plan(steps=1))
    with pytest.raises(InputError, match=r"mirrored exchanges axes, and those of \(4, 5\) differ in length"):
        train_direction_network(nn.Identity(), operator, settings)
