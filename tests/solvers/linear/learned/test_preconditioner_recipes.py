"""Recipes of preconditioners: what they train, that it helps, and what they refuse."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import safetensors.torch
import torch
from typer.testing import CliRunner

import sciml
from sciml.command_line import app
from sciml.errors import InputError
from sciml.solvers.linear import ConjugateGradient, DeepConjugateDirection
from sciml.solvers.linear.learned import CoarseningNetwork, DirectionNetwork, LearnedMultigrid, about_weights
from sciml.solvers.linear.learned.direction_recipe import BOX_3D
from sciml.solvers.linear.learned.multigrid_training import RandomNetworks, effort, train_coarsening
from sciml.solvers.linear.learned.recipe import CoarseningRecipe, is_recipe, load_recipe, shipped_recipes
from sciml.training import Adam, evaluate

TEXT = """
description = "small"
[preconditioner]
name = "CoarseningNetwork"
width = 6
largest = [26, 26]
samples = 40
held_out = 4
seed = 3
[training]
steps = 4
batch_size = 2
"""

STAGED = """
[preconditioner]
name = "DirectionNetwork"
published = 128
insulated = ["x_upper", "y"]
seed = 2
[[stages]]
points = 8
steps = 3
batch_size = 2
rate = 1e-3
vectors = 20
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(old="", new="", text=TEXT, name="mine.toml"):
    assert old in text
    Path(name).write_text(text.replace(old, new, 1) if old else text)
    return name


def run(*arguments):
    return CliRunner().invoke(app, ["train", *arguments])


def test_a_recipe_is_read(folder):
    recipe = load_recipe(write("steps = 4", "steps = 4\noptimizer = { name = 'Adam', rate = 0.1 }"))
    assert isinstance(recipe, CoarseningRecipe)
    network = recipe.make_network()
    assert (network.width, network.sweeps, network.dimensions) == (6, CoarseningNetwork().sweeps, (2,))
    assert network.smoothing.dtype == torch.float64
    assert (recipe.training.largest, recipe.training.samples, recipe.training.held_out) == ((26, 26), 40, 4)
    assert (recipe.training.seed, recipe.training.plan.optimizer) == (3, Adam(0.1))
    before = torch.get_rng_state()
    again = recipe.make_network()
    LearnedMultigrid.pretrained("poisson-2d"), DirectionNetwork(2)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(one, other) for one, other in zip(network.parameters(), again.parameters(), strict=True))


def test_shipped_recipes_say_what_they_are_and_can_be_read():
    assert {"multigrid-2d", "multigrid-3d", "direction-box-3d"} == set(shipped_recipes())
    for name, description in shipped_recipes().items():
        assert description and is_recipe(name)
        assert load_recipe(name).name == name
    for dimension in (2, 3):
        recipe = load_recipe(f"multigrid-{dimension}d")
        assert recipe.network["dimensions"] == (dimension,)
        assert len(recipe.training.largest) == dimension
    box = load_recipe("direction-box-3d").recipe
    assert dataclasses.replace(box, name="box-3d") == BOX_3D


def test_a_short_training_lowers_the_loss_of_systems_that_it_has_not_seen(folder):
    """From rules that were spoilt: those that a network begins with are good already."""
    write("steps = 4", "steps = 20\noptimizer = { name = 'Adam', rate = 0.1 }")
    recipe = load_recipe("mine.toml")
    network = recipe.make_network()
    with torch.no_grad():
        network.correction.fill_(-2.0)
        network.last.bias[2] = 1.0
    others = RandomNetworks((26, 26), 12, seed=77)

    def mean():
        return evaluate(network, lambda net, batch: {"loss": effort(net, batch)}, others, batch_size=4).means["loss"]

    spoilt = mean()
    training = train_coarsening(network, recipe.training)
    assert mean() < spoilt - 0.2
    assert float(training.validations["loss"][-1]) == pytest.approx(training.best.value)


def test_the_command_leaves_weights_checkpoints_a_log_and_curves(folder):
    result = run(write())
    assert result.exit_code == 0, result.output
    assert {"preconditioner.safetensors", "log.jsonl", "curves.png"} <= {path.name for path in Path("mine").iterdir()}
    assert "CoarseningNetwork of" in result.stdout and "all 4 steps are done" in result.stdout
    line = 'use it by: ConjugateGradient(preconditioner=LearnedMultigrid.load("mine/preconditioner.safetensors"))'
    assert line in result.stdout
    about = about_weights("mine/preconditioner.safetensors")
    assert (about["steps"], about["samples"], about["largest"], about["seed"]) == (4, 8, [26, 26], 3)
    assert about["seconds"] > 0 and about["threads"] == torch.get_num_threads()
    assert f"loss {about['validation_loss']:.4g}" in result.stdout
    method = ConjugateGradient(preconditioner=LearnedMultigrid.load("mine/preconditioner.safetensors"))
    operator = sciml.discretize(sciml.Equation("-laplacian(u) = f"), sciml.Grid((40, 41)), fields={"f": 0.0}).operator
    assert int(method.solve(operator, torch.ones(40, 41, dtype=torch.float64)).statistics["iterations"]) < 20
    assert run("mine.toml", "--quiet", "--output", "other").stdout == ""


def test_a_training_is_resumed_to_the_last_bit(folder):
    write("steps = 4", "steps = 7")
    assert run("mine.toml", "--output", "whole").exit_code == 0
    write()
    assert run("mine.toml", "--output", "parts").exit_code == 0
    write("steps = 4", "steps = 7")
    resumed = run("mine.toml", "--output", "parts", "--resume")
    assert resumed.exit_code == 0, resumed.output
    # Not the best ones, which are chosen among more validations where there was an interruption.
    last = (Path(name, "checkpoints", "step-000000007", "network.safetensors") for name in ("whole", "parts"))
    first, second = (safetensors.torch.load_file(path) for path in last)
    assert first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)
    changed = write("seed = 3", "seed = 4")
    refused = run(changed, "--output", "parts", "--resume")
    assert refused.exit_code == 2 and "seed" in refused.stderr


def test_a_direction_network_is_trained_in_stages(folder):
    write(text=STAGED)
    result = run("mine.toml", "--quiet")
    assert result.exit_code == 0, result.output
    network = DirectionNetwork.load("mine/preconditioner.safetensors")
    assert network.settings == DirectionNetwork.published(128).settings | {"mean_square": True}
    about = about_weights("mine/preconditioner.safetensors")
    assert [stage["points"] for stage in about["stages"]] == [8]
    recipe = load_recipe("mine.toml")
    boundary = recipe.recipe.boundary
    assert boundary == {
        "x": (sciml.Dirichlet(0.0), sciml.Neumann(0.0)),
        "y": (sciml.Neumann(0.0), sciml.Neumann(0.0)),
        "z": (sciml.Dirichlet(0.0), sciml.Dirichlet(0.0)),
    }
    operator = recipe.recipe.operator(8)
    b = torch.randn(8, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert isinstance(network, DirectionNetwork)
    solution = DeepConjugateDirection(network, rtol=1e-4, max_iterations=400).solve(operator, b)
    assert float((b - operator.apply(solution.value)).norm() / b.norm()) <= 1.01e-4
    refused = run("mine.toml")
    assert refused.exit_code == 2 and "mine holds a training already" in refused.stderr
    Path("other").mkdir()
    Path("mine/preconditioner.safetensors").rename("other/preconditioner.safetensors")
    refused = run("mine.toml", "--output", "other")
    assert refused.exit_code == 2 and "other holds a training already" in refused.stderr
    again = run("mine.toml", "--resume")
    assert again.exit_code == 0 and "all 1 stages are done" in again.stdout
    assert 'use it by: DeepConjugateDirection(DirectionNetwork.load("mine/preconditioner.safetensors"))' in again.stdout


@pytest.mark.parametrize(
    ("text", "place"), [(TEXT, "begun"), (f"{STAGED}[[stages]]{STAGED.partition('[[stages]]')[2]}", "begun/stage-0")]
)
def test_where_there_is_nothing_to_resume_it_is_said_once(text, place, folder):
    def told(*options):
        result = run("mine.toml", *options)
        assert result.exit_code == 0, result.output
        return [line for line in result.stderr.splitlines() if "nothing to resume" in line]

    write(text=text)
    assert told("--output", "begun", "--resume") == [f"nothing to resume in {Path(place)}: beginning"]
    assert told("--output", "begun", "--resume") == told("--output", "new") == []


def test_the_recipes_of_operators_and_preconditioners_are_listed_together():
    listed = run("--list").stdout
    assert "multigrid-3d" in listed and "direction-box-3d" in listed and "mgno-darcy-64" in listed


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("width = 6", "widht = 6", "mine.toml, [preconditioner]: unknown key 'widht'; did you mean 'width'"),
        ("width = 6", "width = 0", "[preconditioner] width: input should be greater than or equal to 1, not 0"),
        ("width = 6", "sweeps = 1.5", "[preconditioner] sweeps: input should be a valid integer, not 1.5"),
        ("width = 6", "dimensions = [5]", "dimensions are some of 1, 2 and 3, got (5,)"),
        ("[26, 26]", "[26, 26, 26, 26]", "[preconditioner]: largest has one to three axes of at least 8 cells"),
        ("[26, 26]", "[10, 10]", "[preconditioner]: largest: systems of 0.6 of (10, 10) must have more than 200 cells"),
        ("samples = 40", "samples = 0", "[preconditioner] samples: input should be greater than or equal to 1"),
        ("seed = 3", "seed = -3", "[preconditioner] seed: input should be greater than or equal to 0, not -3"),
        (
            "CoarseningNetwork",
            "CoarsenNetwork",
            "there is no network 'CoarsenNetwork'; did you mean 'CoarseningNetwork'",
        ),
        (
            'name = "CoarseningNetwork"',
            "",
            "a table with the name of a network is needed: CoarseningNetwork, DirectionN",
        ),
        ("steps = 4", "step = 4", "mine.toml, [training]: unknown key 'step'; did you mean 'steps'"),
        ("steps = 4", "steps = 4\nepochs = 1", "exactly one of epochs, steps and seconds, got epochs and steps"),
        (
            "steps = 4",
            "steps = 4\nprecision = 'bf16'",
            "[training] precision: a CoarseningNetwork is trained in float64",
        ),
        ("steps = 4", "steps = 4\nmonitor = 'L2'", "[training] monitor: the loss alone is validated, not 'L2'"),
        ("[training]", "[run]\ndevices = 2\n[training]", "[run] devices: a CoarseningNetwork is trained on one device"),
        ("[training]", "[run]\ndevice = 'meta'\n[training]", "device meta cannot be used"),
        ("[training]", "[operator]\nname = 'FNO'\n[training]", "unknown key 'operator': this recipe is of a precond"),
        (
            "[training]",
            "[data]\nfolder = 'd'\n[training]",
            "unknown key 'data': what a preconditioner is trained on is ma",
        ),
        (
            "[training]",
            "[[stages]]\npoints = 8\n[training]",
            "unknown key 'stages': a CoarseningNetwork is trained at on",
        ),
        ("[training]", "[trained]", "unknown key 'trained'"),
    ],
)
def test_what_is_wrong_is_named(old, new, message, folder):
    result = run(write(old, new))
    assert result.exit_code == 2, result.output
    assert message in result.stderr
    assert result.stdout == ""
    assert not Path("mine").exists()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("points = 8", "cells = 8", r"mine.toml, \[stages\[0\]\]: unknown key 'cells'|unknown key 'cells'"),
        ("rate = 1e-3", "rate = 0", r"rate: input should be greater than 0, not 0"),
        ("rate = 1e-3", "", r"'rate' is missing"),
        ("published = 128", "published = 96", r"\[preconditioner\] published: input should be 64 or 128, not 96"),
        ('"x_upper", "y"', '"left"', r"\[preconditioner\] insulated\[0\]: input should be 'x', 'x_lower'"),
        ('"x_upper", "y"', '"x", "y", "z"', r"\[preconditioner\]: insulated: u must be given on one side at least"),
        ("seed = 2", "mirrored = true", r"mirrored: the problem has the symmetries of the cube only if no side"),
        ("seed = 2", "points = 2", r"unknown key 'points': it belongs into \[\[stages\]\]"),
        (
            "[[stages]]",
            "[training]\nsteps = 2\n[[stages]]",
            r"'training': a DirectionNetwork is trained in \[\[stages\]\]",
        ),
    ],
)
def test_what_is_wrong_with_stages_is_named(old, new, message, folder):
    with pytest.raises(InputError, match=message):
        load_recipe(write(old, new, STAGED))


def test_what_is_for_datasets_is_not_for_preconditioners(folder):
    refused = run(write(), "--data", "somewhere")
    assert refused.exit_code == 2 and "there is no --data" in refused.stderr
    refused = run("mine.toml", "--skip-damaged")
    assert refused.exit_code == 2 and "there is no --skip-damaged" in refused.stderr
    refused = run("multigrid-4d")
    assert refused.exit_code == 2 and "no recipe of this name; did you mean 'multigrid-" in refused.stderr
    refused = run(write(text=STAGED.replace("[preconditioner]", "[precondtioner]")))
    assert refused.exit_code == 2 and "DirectionNetwork, and [precondtioner] is none" in refused.stderr
    refused = run(write(text=STAGED), "--device", "cuda")
    assert refused.exit_code == 2 and "trained on the cpu, got device 'cuda'" in refused.stderr


def test_files_that_are_no_recipes(folder):
    with pytest.raises(InputError, match=r"there is no file 'multigrid-5d', and no recipe of this name"):
        load_recipe("multigrid-5d")
    Path("mine.toml").write_text("preconditioner = 3\n")
    with pytest.raises(InputError, match=r"mine\.toml, \[preconditioner\]: a table with the name of a network"):
        load_recipe("mine.toml")
