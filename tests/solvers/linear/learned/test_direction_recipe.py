"""The weights that come with the package, and the recipe that makes such."""

from __future__ import annotations

import dataclasses
from importlib.resources import as_file, files

import pytest
import torch

import sciml
from sciml.solvers.linear import ConjugateGradient, DeepConjugateDirection, FlexibleConjugateGradient
from sciml.solvers.linear.learned import DeepDirection, DirectionNetwork, about_weights, shipped
from sciml.solvers.linear.learned.direction_recipe import BOX_3D, Stage, divergence, normal


def test_the_weights_that_ship_are_those_of_the_published_network():
    assert "box-3d" in shipped("direction-network")
    network = DirectionNetwork.pretrained("box-3d")
    assert sum(parameter.numel() for parameter in network.parameters()) == 97_457
    package = files("sciml.solvers.linear.learned") / "weights"
    with as_file(package / "direction-network-box-3d.safetensors") as path:
        assert path.stat().st_size < 1_000_000
        about = about_weights(path)
    assert about["samples"] == sum(stage["samples"] for stage in about["stages"]) > 0
    assert about["seconds"] > 0


@pytest.mark.parametrize(("points", "plain"), [(16, 25), (32, 50)])
def test_on_a_box_they_need_few_iterations_whatever_its_size(points, plain):
    """Of right sides that no training had, to 1e-4; at 64 points an axis as few, see the benchmark."""
    network = DirectionNetwork.pretrained("box-3d")
    for name, counts in BOX_3D.compare(network, points).items():
        assert counts["deep"] <= 9, name
        assert counts["plain"] >= plain, name


def test_the_method_takes_them_in_the_precision_of_short_numbers():
    method = DeepConjugateDirection.pretrained("box-3d", dtype=torch.bfloat16, rtol=1e-8)
    solution = method.solve(BOX_3D.operator(16), normal(16))
    assert float(solution.statistics["relative_residual"]) <= 1e-8
    assert int(solution.statistics["iterations"]) <= 20


def test_they_serve_beside_obstacles_and_walls_too(boxes):
    solid = torch.zeros(16, 16, 16, dtype=torch.bool)
    solid[4:8, 5:9, 3:12] = True
    operator, b = boxes.operator(16, solid=solid), normal(16)
    method = DeepConjugateDirection.pretrained("box-3d", rtol=1e-6)
    plain = ConjugateGradient(rtol=1e-6).solve(operator, b)
    deep = method.solve(operator, b)
    assert 2 * int(deep.statistics["iterations"]) <= int(plain.statistics["iterations"])
    walls = {"x": (sciml.Dirichlet(0.0), sciml.Neumann(0.0)), "y": sciml.Neumann(0.0), "z": sciml.Neumann(0.0)}
    operator = boxes.operator(16, boundary=walls)
    solution = FlexibleConjugateGradient(DeepDirection.pretrained("box-3d"), rtol=1e-6).solve(operator, b)
    assert float(solution.statistics["relative_residual"]) <= 1e-6


def test_the_recipe_goes_on_where_it_was_interrupted(tmp_path):
    recipe = dataclasses.replace(
        BOX_3D, stages=(Stage(6, 12, 4, 2e-3, 50, "float32"), Stage(8, 8, 2, 1e-3, 60, "float32"))
    )
    whole = recipe.train(tmp_path / "whole")
    first = dataclasses.replace(recipe, stages=recipe.stages[:1])
    first.train(tmp_path / "parts")
    parts = recipe.train(tmp_path / "parts")
    one, other = (DirectionNetwork.load(path).state_dict() for path in (whole, parts))
    assert all(torch.equal(one[name], other[name]) for name in one)
    about = about_weights(parts)
    assert (about["samples"], [stage["points"] for stage in about["stages"]]) == (12 * 4 + 8 * 2, [6, 8])
    assert set(recipe.compare(DirectionNetwork.load(whole), 6)["normal"]) == {
        *("deep", "deep_seconds", "plain", "plain_seconds"),
    }


def test_the_divergence_is_one_field_on_grids_of_any_size():
    coarse, fine = divergence(16), divergence(64)
    means = fine.unfold(0, 4, 4).unfold(1, 4, 4).unfold(2, 4, 4).mean((-1, -2, -3))
    torch.testing.assert_close(coarse, means, rtol=0.0, atol=0.15 * float(coarse.abs().max()))
    assert float(coarse.std()) > 0.1 and not torch.equal(divergence(16, seed=1), coarse)
