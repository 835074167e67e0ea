"""Tasks: that they learn, that a regularizer makes them cheaper, and what is kept of a training."""

from __future__ import annotations

import json
import math

import pytest
import torch

from sciml import InputError
from sciml.solvers.neural_de import ErrorEstimate, LocalError, Steer, StiffnessEstimate
from sciml.solvers.neural_de.layers import Autonomous, Perceptron, TimeDependent, TimeLinear
from sciml.solvers.neural_de.tasks import (
    Fold,
    Regularization,
    Task,
    digits_ode,
    digits_sde,
    gaussian_flow,
    latent_spirals,
    load_task,
    shipped_recipes,
    shipped_task,
    spiral_ode,
    spiral_sde,
)
from sciml.solvers.neural_de.tasks.problem import loss_of
from sciml.solvers.neural_de.tasks.recipe import PROBLEMS
from sciml.solvers.neural_de.tasks.regularization import NAMES, named
from sciml.training import SGD, Adam, Plan
from sciml.training.order import permutation

SMALL = {
    "digits-ode": {"hidden": 8},
    "spiral-ode": {"hidden": 6, "points": 4, "end": 0.3, "tolerance": 1e-5},
    "latent-spirals": {"count": 20, "points": 20, "observed": 8, "tolerance": 1e-4, "batch_size": 8},
    "digits-sde": {"hidden": 8, "channels": 4, "trajectories": 2},
    "spiral-sde": {"hidden": 6, "points": 4, "observed": 50, "trajectories": 20, "predicted": 20},
    "gaussians": {"samples": 24, "hidden": 6, "tolerance": 1e-4, "batch_size": 12},
}
"""Settings by which every task runs in a moment."""


def small(name: str, regularizer="none", **changes) -> Task:
    return shipped_task(name, regularizer, **{"steps": 2, **SMALL[name], **changes})


@pytest.fixture(autouse=True)
def digits_are_there():
    pytest.importorskip("sklearn")


def test_a_layer_with_time_is_one_with_an_input_more():
    layer = TimeLinear(3, 4)
    u, t = torch.randn(5, 3), 0.7
    whole = torch.nn.Linear(4, 4)
    with torch.no_grad():
        whole.weight.copy_(torch.cat([layer.weight, layer.speed[:, None]], 1))
        whole.bias.copy_(layer.bias)
    torch.testing.assert_close(layer(u, t), whole(torch.cat([u, torch.full((5, 1), t)], 1)))
    bounded, free = (TimeDependent((3, 50, 3), last=last) for last in (True, False))
    free.load_state_dict(bounded.state_dict())
    torch.testing.assert_close(bounded(u, t), torch.tanh(free(u, t)))


def test_gated_sines_are_spirals_of_what_is_linear_in_time():
    """(a cos c - b sin c, a sin c + b cos c) of inputs a, b and c, written down with two units a sine."""
    net = Perceptron((3, 4, 2), frequency=2.0, gated=True).double()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.zero_()
        net.layers[0].weight[:, 2] = 0.5
        net.layers[0].bias[:2] = torch.pi / 4  # cosines
        net.gate.weight[[0, 3], 0] = net.gate.weight[[1, 2], 1] = 1.0
        net.layers[1].weight.copy_(torch.tensor([[1.0, 0.0, -1.0, 0.0], [0.0, 1.0, 0.0, 1.0]]))
    a, b, c = torch.randn(3, 50, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    expected = torch.stack((a * c.cos() - b * c.sin(), a * c.sin() + b * c.cos()), -1)
    torch.testing.assert_close(net(torch.stack((a, b, c), -1)), expected, rtol=1e-12, atol=1e-12)


def test_a_right_hand_side_may_begin_small():
    first = []
    for scale in (1.0, 0.1):
        torch.manual_seed(0)
        first.append(Autonomous((2, 8, 2), scale=scale)(torch.randn(5, 2), 0.0))
    torch.testing.assert_close(first[1], 0.1 * first[0])


def test_digits_are_learned_and_become_cheaper():
    """In a few of the fifty epochs."""
    changes = {"epochs": 5, "hidden": 20, "validate_every": 5, "batch_size": 128, "tolerance": 1.4e-8}
    plain, cheap = (digits_ode(name, **changes).train() for name in ("none", "error"))
    assert plain.metrics["accuracy"] > 0.9 and cheap.metrics["accuracy"] > plain.metrics["accuracy"] - 0.03
    assert cheap.evaluations < 0.8 * plain.evaluations
    for result in (plain, cheap):
        images = result.task.data.test.tensors["image"]
        scores, solution = result.model(images)
        labels = result.task.data.test.tensors["label"]
        assert float((scores.argmax(1) == labels).double().mean()) == pytest.approx(result.metrics["accuracy"])
        loss = torch.nn.functional.cross_entropy(scores.detach(), labels)
        assert float(loss) == pytest.approx(result.metrics["loss"], rel=1e-6)
        assert float(solution.statistics["penalty"].abs().max()) == 0
        assert result.headline == result.metrics["accuracy"] and result.training_seconds > 0
        assert 0 < result.prediction_seconds < 10


def test_a_spiral_is_approached():
    result = spiral_ode("none", steps=40, tolerance=1e-4, end=0.75, points=16).train()
    history = result.training.history["loss"]
    assert result.metrics["loss"] < 0.1 * float(history[0])
    value, solution = result.model(torch.tensor([[2.0, 0.0]], dtype=torch.float64))
    exact = result.task.data.test.tensors["value"]
    assert float((value - exact).detach().square().mean()) == pytest.approx(result.metrics["loss"])
    assert result.evaluations == int(solution.statistics["evaluations"])


def test_digits_are_learned_by_a_stochastic_equation():
    changes = {"epochs": 4, "hidden": 16, "channels": 16, "batch_size": 128, "trajectories": 3, "validate_every": 4}
    result = digits_sde("error", **changes).train()
    assert result.metrics["accuracy"] > 0.8
    images = result.task.data.test.tensors["image"]
    first, _ = result.model(images)
    again, solution = result.model(images)
    assert torch.equal(first, again), "the noise of predictions is always the same"
    assert solution.value.shape[0] == 3
    many, few = result.model, result.task.data.test.tensors["image"][:1].expand(2, -1)
    one, other = many.train()(few)[0]
    assert not torch.equal(one, other), "in training each sample has its own"


def test_the_moments_of_a_stochastic_spiral_are_approached():
    result = spiral_sde("none", steps=60, optimizer=Adam(3e-2), points=8, observed=500, validate_every=60).train()
    assert result.metrics["loss"] < 0.3 * float(result.training.history["loss"][0])
    mean, variance, solution = result.model(torch.tensor([[2.0, 0.0]], dtype=torch.float64))
    assert solution.value.shape[0] == result.task.problem.predicted
    test = result.task.data.test.tensors
    error = (mean - test["mean"]).square() + (variance - test["variance"]).square()
    assert float(error.detach().mean()) == pytest.approx(result.metrics["loss"])


def test_a_flow_finds_the_gaussians():
    result = gaussian_flow("none", epochs=8, samples=256, batch_size=64, tolerance=1e-3, modes=2).train()
    assert result.metrics["excess"] < 0.5 * float(result.training.validations["excess"][0])
    assert result.metrics["excess"] > -0.05, "no model is better than the density itself"
    density, _ = result.model(result.task.data.test.tensors["point"])
    assert -float(density.detach().mean()) == pytest.approx(result.metrics["loss"], rel=1e-2)


def test_latent_spirals_are_reconstructed():
    sizes = {"count": 200, "points": 24, "observed": 16, "batch_size": 20}
    task = latent_spirals("none", epochs=25, tolerance=1e-3, validate_every=25, **sizes)
    result = task.train()
    value, mask = (task.data.test.tensors[name] for name in ("value", "mask"))
    variance = float(value[mask].square().mean())
    assert result.metrics["error"] < 0.7 * variance
    prediction, _ = result.model(value, mask)
    squares = ((prediction - value) * mask).square().sum((1, 2)) / mask.sum((1, 2))
    assert float(squares.detach().mean()) == pytest.approx(result.metrics["error"], rel=1e-3)


INTEGRALS = ("taylor", "kinetic", "jacobian", "kinetic+jacobian")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("task", SMALL)
def test_every_task_goes_with_every_regularizer(task, name):
    if task.endswith("sde") and name in INTEGRALS:
        with pytest.raises(InputError, match="is an integral along ordinary differential equations"):
            small(task, name)
        return
    given = small(task, {"name": name, "width": 0.02} if name.startswith("steer") else name, steps=1)
    network = given.make_network()
    result = given.train()
    loss = float(result.training.history["loss"][0])
    first = permutation(len(given.data.training), given.plan.seed, 0)[: given.plan.batch_size]
    with torch.no_grad():
        torch.manual_seed(0)
        plain = float(loss_of(network.eval(), given.data.training.batch(first)).mean())
    assert math.isfinite(loss)
    if task in ("latent-spirals", "digits-sde", "spiral-sde"):
        return  # whose training has noise
    if name != "none" and not name.startswith("steer"):
        assert loss > plain
    elif name == "none":
        assert loss == pytest.approx(plain, rel=1e-9)


@pytest.mark.parametrize(
    ("task", "settings", "regularizer"),
    [
        ("digits-ode", {"adjoint": "checkpointed"}, "error"),
        ("digits-ode", {"adjoint": "continuous"}, "local-error"),
        ("digits-ode", {"backend": "torchdiffeq"}, "local-error"),
        ("latent-spirals", {"adjoint": "continuous", "backend": "torchdiffeq"}, "none"),
        ("gaussians", {"backend": "torchdiffeq"}, "kinetic"),
        ("spiral-sde", {"adjoint": "checkpointed"}, "error"),
        ("spiral-sde", {"backend": "torchsde", "step": 0.05}, "local-error"),
    ],
)
def test_other_solvers_train_the_same(task, settings, regularizer):
    """The loss of the plain model after two steps, of ordinary equations to the tolerance."""
    plain = small(task, **settings).train().training.history["loss"]
    if not task.endswith("sde"):
        assert plain.tolist() == pytest.approx(small(task).train().training.history["loss"].tolist(), rel=2e-3)
    with_it = small(task, regularizer, **settings).train().training.history["loss"]
    assert torch.isfinite(with_it).all()
    if regularizer != "none":
        assert not torch.equal(with_it, plain)


@pytest.mark.parametrize("task", SMALL)
def test_a_training_is_resumed_to_the_last_bit(task, tmp_path):
    """With random draws, and a weight that changes from sample to sample."""
    regularizer = {"name": "local-error", "weight": 2.0, "last_weight": 0.1}
    given = small(task, regularizer, epochs=3, steps=None)
    whole = given.train(tmp_path / "whole")
    counts = []

    class Stop(Exception):
        pass

    problem = type(given.problem)
    outcome = problem.outcome

    def interrupted(self, model, batch, step):
        counts.append(step)
        if len(counts) == 4:
            raise Stop
        return outcome(self, model, batch, step)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(problem, "outcome", interrupted)
        with pytest.raises(Stop):
            given.train(tmp_path / "parts", save_every=0.0)
    parts = given.train(tmp_path / "parts", resume=True)
    first, second = whole.model.state_dict(), parts.model.state_dict()
    assert first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)
    assert whole.metrics == parts.metrics and whole.evaluations == parts.evaluations
    assert torch.equal(whole.training.history["loss"], parts.training.history["loss"])
    with pytest.raises(InputError, match=r"weight 2\.0 there, 3\.0 here"):
        given.with_changes({**regularizer, "weight": 3.0}).train(tmp_path / "parts", resume=True)
    with pytest.raises(InputError, match=r"settings\.tolerance"):
        given.with_changes(tolerance=1e-3).train(tmp_path / "parts", resume=True)


def test_the_weight_follows_the_samples():
    """Also in an epoch whose last batch is smaller."""
    weights = Regularization(ErrorEstimate(), 100.0, 1.0)
    assert [weights.at(seen, 40) for seen in (0, 20, 40, 60)] == pytest.approx([100, 10, 1, 1])
    assert Regularization(ErrorEstimate(), 3.0).at(20, 40) == 3.0
    task = small("digits-ode", "error", epochs=2, steps=None, batch_size=1000)
    network = task.make_network()
    assert network.samples == 2 * 1437
    assert small("digits-ode", "error", steps=4, batch_size=1000).make_network().samples == 2 * 1437
    assert small("digits-ode", "error", steps=4, batch_size=1000, drop_last=True).make_network().samples == 4 * 1000
    network.train()
    batch = task.data.training.batch(torch.arange(1437))
    with_penalty = network(batch)["loss"].detach()
    assert int(network.seen) == 1437 and int(network.calls) == 1
    cheaper = network(batch)["loss"].detach()
    plain = network.eval()(batch)["loss"].detach()
    assert int(network.seen) == 2 * 1437
    ratio = (cheaper - plain).mean() / (with_penalty - plain).mean()
    expected = math.sqrt(task.regularization.last_weight / task.regularization.weight)
    assert float(ratio) == pytest.approx(expected, rel=1e-6)


def test_first_weights_come_from_the_seed_and_leave_the_generator_alone():
    before = torch.get_rng_state()
    one, again, other = (small("digits-ode", seed=seed).make_network() for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    states = [network.state_dict() for network in (one, again, other)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert not torch.equal(states[0]["model.classifier.weight"], states[2]["model.classifier.weight"])


def test_what_is_kept_can_be_loaded(tmp_path):
    result = small("digits-ode", ErrorEstimate() + 0.1 * StiffnessEstimate(), epochs=2, steps=None).train(
        tmp_path / "a"
    )
    names = {path.name for path in (tmp_path / "a").iterdir()}
    assert {"model.safetensors", "result.json", "evaluations.png", "curves.png", "log.jsonl", "checkpoints"} <= names
    loaded = load_task(tmp_path / "a")
    assert loaded.problem == result.task.problem and not loaded.model.training
    images = result.task.data.test.tensors["image"]
    assert torch.equal(loaded.model(images)[0], result.model(images)[0])
    kept = json.loads((tmp_path / "a/result.json").read_text())
    assert loaded.result == kept
    assert kept["metrics"]["accuracy"] == result.metrics["accuracy"] and kept["evaluations"] == result.evaluations
    assert kept["validations"]["evaluations"][-1] == result.evaluations and len(kept["validations"]["step"]) == 2
    assert kept["regularizer"] == repr(ErrorEstimate() + 0.1 * StiffnessEstimate()) and kept["weight"] == 1.0
    assert kept["test_samples"] == 360 and kept["steps"] == 12
    for path, text in (("model.safetensors", "model.safetensors"), ("result.json", "result.json")):
        data = (tmp_path / "a" / path).read_bytes()
        (tmp_path / "a" / path).write_bytes(data[: len(data) // 2])
        with pytest.raises(InputError, match=text):
            load_task(tmp_path / "a")
        (tmp_path / "a" / path).write_bytes(data)
    with pytest.raises(InputError, match=r"model\.safetensors"):
        load_task(tmp_path / "nowhere")


def test_what_is_told_of_a_result():
    result = small("digits-ode", "error", epochs=2, steps=None).train()
    lines = "\n".join(result.lines())
    assert "12 steps in" in lines and "all 2 epochs are done" in lines
    assert f"accuracy     {100 * result.metrics['accuracy']:.2f} %   over 360 test samples" in lines
    assert (
        f"{result.evaluations:.4g}   of the right-hand side for a prediction; " in lines
        and "at step 6, most at" in lines
    )


def test_regularizers_by_name():
    assert named({"name": "none"}) == Regularization()
    assert named({"name": "local-error", "sampling": "biased", "weight": 2}) == Regularization(
        LocalError("biased"), 2.0
    )
    made = named({"name": "error+stiffness", "stiffness": 0.5, "reduction": "mean", "weight": 3.0})
    assert made.regularizer == ErrorEstimate("mean") + 0.5 * StiffnessEstimate()
    assert named({"name": "steer+error", "width": 0.2}).regularizer == ErrorEstimate() + Steer(0.2)
    usual = {"error": {"weight": 9.0, "last_weight": 1.0, "reduction": "max"}}
    assert named({"name": "error"}, usual) == Regularization(ErrorEstimate("max"), 9.0, 1.0)
    assert named({"name": "error", "weight": 2.0}, usual) == Regularization(ErrorEstimate("max"), 2.0, None)
    assert named({"name": "error", "last_weight": 2.0}, usual) == Regularization(ErrorEstimate("max"), 9.0, 2.0)
    for problem in PROBLEMS.values():
        without = INTEGRALS if problem.name.endswith("sde") else ()
        assert set(problem.usual) == set(NAMES) - {"none", *without}
        for name in problem.usual:
            assert named({"name": name}, problem.usual).regularizer is not None
    assert "with weight 9 falling to 1" in str(named({"name": "error"}, usual))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "a regularizer needs a name: none, error, "),
        ({"name": "eror"}, "there is no regularizer 'eror'; did you mean 'error'"),
        ({"name": "none", "weight": 1.0}, "the regularizer 'none' has no 'weight'"),
        ({"name": "error", "sampling": "biased"}, "unknown key 'sampling' of the regularizer 'error'"),
        ({"name": "error", "wieght": 1.0}, "unknown key 'wieght' .*; did you mean 'weight'"),
        ({"name": "error", "weight": -1.0}, "weight of a regularizer must be positive and finite, got -1.0"),
        ({"name": "error", "weight": "much"}, "weight: input should be a valid number"),
        (
            {"name": "error", "reduction": "most"},
            "regularizer 'error': reduction: input should be 'sum', 'mean' or 'max'",
        ),
        ({"name": "taylor", "order": 0}, "TaylorDerivative: order is an integer, at least 1, got 0"),
        ({"name": "steer", "width": 0.0}, "Steer: width is a positive time, got 0"),
    ],
)
def test_regularizers_that_are_none_are_refused(settings, message):
    with pytest.raises(InputError, match=message):
        named(settings)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: shipped_task("digit-ode"), "there is no task 'digit-ode'; did you mean 'digits-ode'"),
        (lambda: digits_ode(hiden=3), "digits-ode has no 'hiden'; did you mean 'hidden'"),
        (lambda: digits_ode(hidden=0), "hidden must be at least 1, got 0"),
        (lambda: digits_ode(tolerance=0.0), "tolerance must be positive and finite, got 0.0"),
        (lambda: digits_ode(dtype="half"), "dtype is float32 or float64, got 'half'"),
        (lambda: digits_ode(adjoint="backwards"), "adjoint is one of 'recorded', 'checkpointed', 'continuous'"),
        (lambda: digits_ode("error", adjoint="continuous"), "take LocalError.* which work with any adjoint"),
        (lambda: digits_ode("error", backend="torchdiffeq"), "torchdiffeq does not give them"),
        (lambda: digits_ode(regularizer=3.0), "a regularizer needs a name: none, error, "),
        (lambda: digits_ode(precision="bf16"), "precision: the model of a task is trained as it is"),
        (lambda: Task(digits_ode().problem, Plan(seconds=3.0)), "seconds: the weight of a regularizer follows"),
        (lambda: latent_spirals(share=1.0), "share of the samples lies between 0 and 1, got 1.0"),
        (lambda: latent_spirals(deviation=0.0), "deviation must be positive and finite, got 0.0"),
        (lambda: latent_spirals(first_rate=0.0), "first_rate must be positive and finite, got 0.0"),
        (lambda: latent_spirals(frequency=0.0), "frequency must be positive and finite, got 0.0"),
        (lambda: latent_spirals(first_deviation=-1.0), "first_deviation must be positive and finite, got -1.0"),
        (lambda: latent_spirals(decoder=(64, 0)), r"decoder\[1\]"),
        (lambda: digits_sde(step=0.0), "step must be positive, got 0.0"),
        (lambda: digits_sde(trajectories=0), "trajectories must be at least 1, got 0"),
        (lambda: digits_sde("error", backend="torchsde"), "torchsde does not give them"),
        (lambda: spiral_sde(predicted=1), "predicted must be at least 2, got 1"),
        (lambda: gaussian_flow(radius=-1.0), "radius must be positive, got -1.0"),
        (lambda: Fold(5), "of 5 parts the last has the number 4, got 5"),
        (lambda: Fold(0, of=1), "of is a whole number, at least 2, got 1"),
        (lambda: Fold(-1), "number is a whole number, at least 0, got -1"),
        (lambda: spiral_ode(fold=Fold(0)).data, "1 samples for training cannot be divided into 5 parts"),
        (lambda: spiral_ode(points=1), "points are at least 2 and end is positive, got 1"),
    ],
)
def test_tasks_that_make_no_sense_are_refused(make, message):
    with pytest.raises(InputError, match=message):
        make()


def test_folds_hold_out_every_sample_for_training_once_and_none_of_the_test(tmp_path):
    whole = digits_ode().data
    parts = [digits_ode(fold=Fold(number, of=3)).with_changes(seed=4).data for number in range(3)]
    assert [len(part.test) for part in parts] == [479, 479, 479]

    def images(*samples):
        return sorted(tuple(image) for some in samples for image in some.tensors["image"].tolist())

    assert images(*(part.test for part in parts)) == images(whole.training)
    for part in parts:
        assert images(part.training, part.test) == images(whole.training)
    held_out = small("digits-ode", fold=Fold(2, of=3)).train(tmp_path)
    assert held_out.described()["test_samples"] == 479
    assert held_out.described()["fold"] == {"number": 2, "of": 3, "seed": 0}
    with pytest.raises(InputError, match=r"fold\.number 2 there, 1 here"):
        small("digits-ode", fold=Fold(1, of=3)).train(tmp_path, resume=True)


def test_changes_stay_apart_from_the_task():
    task = digits_ode("error", seed=3, epochs=7)
    assert (task.plan.seed, task.plan.epochs, task.plan.optimizer) == (3, 7, SGD(0.1, 0.9))
    assert task.with_changes("none").regularization == Regularization()
    assert task.regularization.regularizer is not None
    assert task.with_changes(Regularization(LocalError(), 2.0)).regularization.weight == 2.0
    assert task.with_changes(steps=5).plan.epochs is None
    assert set(SMALL) <= set(shipped_recipes())


def test_a_model_that_cannot_be_solved_has_a_result(tmp_path):
    """One step leads to weights that are finite, and predictions that are not; its file is JSON all the same."""
    with pytest.warns(RuntimeWarning, match="validation after step 1: loss is not finite"):
        result = small("spiral-ode", steps=1, optimizer=SGD(1e200)).train(tmp_path / "a")
    assert not math.isfinite(result.metrics["loss"]) and f"loss         {result.headline}" in "\n".join(result.lines())
    text = (tmp_path / "a/result.json").read_text()
    assert "NaN" not in text and "Infinity" not in text and json.loads(text)["metrics"]["loss"] is None
    assert "validation after step 1: loss is not finite" in json.loads(text)["notes"]


@pytest.mark.cuda
@pytest.mark.parametrize("task", SMALL)
def test_tasks_are_trained_on_a_gpu(task, tmp_path):
    result = small(task, "error").train(tmp_path / "a", device="cuda")
    assert next(result.model.parameters()).device.type == "cuda" and result.training.steps == 2
    assert all(math.isfinite(value) for value in result.metrics.values())
    assert load_task(tmp_path / "a").result["metrics"] == result.metrics
