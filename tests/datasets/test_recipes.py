"""Recipes: those that are shipped, and what is refused with its place."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch

from sciml import solve
from sciml.datasets import load_recipe, shipped_recipes
from sciml.datasets.making import describe, tasks
from sciml.errors import InputError

RECIPE: dict[str, Any] = {
    "name": "trial",
    "equation": {"catalogue": "diffusion"},
    "domain": {"shape": [16, 16], "lower": [0.0, 0.0], "upper": [1.0, 1.0]},
    "fields": {
        "f": 1.0,
        "a": {
            "kind": "threshold",
            "above": 12.0,
            "below": 3.0,
            "field": {"kind": "gaussian", "alpha": 2.0, "tau": 3.0, "boundary": "neumann"},
        },
    },
    "samples": {"train": 6, "valid": 3, "shard": 4, "batch": 2},
}


def changed(place: str, value: Any) -> dict[str, Any]:
    """The recipe with another value, or without the key if it is None."""
    content = copy.deepcopy(RECIPE)
    *tables, key = place.split("/")
    table = content
    for name in tables:
        table = table.setdefault(name, {})
    if value is None:
        del table[key]
    else:
        table[key] = value
    return content


@pytest.mark.parametrize("name", shipped_recipes())
def test_shipped_recipes_can_be_read(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.name == name
    assert recipe.description
    assert describe(recipe).outputs
    assert sum(task.count for task in tasks(recipe)) == sum(recipe.sizes.values())


def test_every_kind_of_problem_is_shipped_large_and_small() -> None:
    names = set(shipped_recipes())
    small = {f"{name}-small" for name in names if not name.endswith("-small")} & names
    kinds = {"darcy-rough", "darcy-multiscale", "helmholtz", "navier-stokes", "burgers", "kuramoto-sivashinsky"}
    assert small == {f"{kind}-small" for kind in kinds}
    assert {"darcy-smooth", "darcy-64", "darcy-128"} <= names


def test_the_smooth_darcy_recipe_is_the_published_setting() -> None:
    recipe = load_recipe("darcy-smooth")
    assert (recipe.grid.shape, recipe.coarsen, recipe.stored_grid.shape) == ((422, 422), 2, (211, 211))
    a = recipe.fields["a"].sample(recipe.stored_grid, [1])
    assert set(a.unique().tolist()) == {3.0, 12.0}


def test_the_two_small_darcy_recipes_have_the_same_test_samples() -> None:
    """Coefficients agree but in cells that an interface crosses."""
    coarse, fine = load_recipe("darcy-64"), load_recipe("darcy-128")
    assert (coarse.seed, coarse.sizes["test"]) == (fine.seed, fine.sizes["test"])
    a, b = (recipe.fields["a"].sample(recipe.grid, [11]) for recipe in (coarse, fine))
    means = torch.nn.functional.avg_pool2d(b, 2)
    assert float((a != means).double().mean()) < 0.08


def test_a_file_and_its_content_make_the_same_recipe(tmp_path: Path) -> None:
    shipped = load_recipe("burgers-small", sizes={"train": 7})
    again = load_recipe(shipped.content)
    assert again.content == shipped.content
    assert again.sizes == {"train": 7, "valid": 100, "test": 200}
    file = tmp_path / "mine.toml"
    file.write_text(
        """
        equation = { text = "-nu*laplacian(u) = 1" }
        domain = { shape = [8], lower = [0.0], upper = [1.0] }
        parameters = { nu = { kind = "uniform", lower = 1.0, upper = 2.0 } }
        samples = { train = 3, shard = 2, batch = 1 }
        """
    )
    mine = load_recipe(file)
    assert (mine.name, mine.stored, describe(mine).inputs) == ("mine", ("u",), ("nu",))


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        ("feilds", {}, r"recipe: unknown key 'feilds'; did you mean 'fields'\?"),
        ("samples/sede", 3, r"\[samples\]: unknown key 'sede'; did you mean 'seed'\?"),
        ("samples/train", 0, r"\[samples\] train: .*greater than or equal to 1"),
        ("samples/batch", 5, "batch, 5 samples, is a part of a shard, which has 4"),
        ("samples/seed", -1, "seed: .*greater than or equal to 0"),
        ("fields/a/kind", "treshold", r"\[fields\.a\]: .*did you mean 'threshold'\?"),
        ("fields/a/field/alpha", 1.0, r"\[fields\.a\]: alpha = 1 gives no field in 2 dimensions"),
        ("fields/a/field/tau", -3.0, r"\[fields\.a\.field\]: InversePower: tau .* got -3"),
        ("fields/a/field/tua", 3.0, r"\[fields\.a\.field\]: unknown key 'tua'; did you mean 'tau'\?"),
        ("fields/a/field/boundary", "closed", "kind of side is dirichlet, neumann, periodic, got 'closed'"),
        ("fields/f", None, r"\[fields\]: nothing is said of f"),
        ("fields/g", 1.0, r"\[fields\]: the equation has no coefficient 'g'"),
        ("fields/f", [1.0], "a number, an expression, or a table"),
        ("fields/a", 1.0, "nothing in it is random"),
        ("parameters/nu", 1.0, "the equation has no parameter 'nu'|no parameter"),
        ("parameters/nu", {"kind": "gaussian", "alpha": 2.0, "tau": 3.0}, "a parameter is a number for each sample"),
        ("initial/u", 1.0, r"\[initial\]: no initial state is needed of 'u'"),
        ("domain/device", "cuda", "a recipe is the same on every machine"),
        ("domain/solid", {"file": "a.h5", "dataset": "a"}, "names no files"),
        ("stored/coarsen", 3, r"\[stored\]: coarsen: 3 cells cannot be taken together along x, which has 16"),
        ("stored/fields", ["a", "v"], "'v' is not among what can be kept"),
        ("stored/fields", ["a"], "of the solution nothing is kept"),
        ("solver/times", [0.0, 1.0], r"\[solver\]: times is for evolving equations"),
        ("solver/method", "Multigird", r"\[solver\] method: unknown method 'Multigird'; did you mean 'Multigrid'\?"),
        ("solver/initial", 1.0, r"states are drawn by \[initial\]"),
        ("equation/catalogue", "difusion", r"\[equation\]: no equation is called 'difusion'"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(place: str, value: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_recipe(changed(place, value))


def test_an_unknown_name_is_refused_with_the_nearest() -> None:
    with pytest.raises(InputError, match=r"no recipe is called 'darcy-65'; did you mean 'darcy-64'\?"):
        load_recipe("darcy-65")
    with pytest.raises(InputError, match="cannot be read"):
        load_recipe("nowhere/recipe.toml")
    with pytest.raises(InputError, match="no split 'validation'"):
        load_recipe("darcy-64", sizes={"validation": 3})


def test_a_recipe_of_a_training_is_no_recipe_of_a_dataset(tmp_path: Path) -> None:
    path = tmp_path / "mgno.toml"
    path.write_text('data = { folder = "d" }\noperator = { name = "MgNO" }\ntraining = { epochs = 1 }\n')
    with pytest.raises(InputError, match=r"mgno\.toml says how an operator is trained: sciml train .*mgno\.toml"):
        load_recipe(path)


def test_waves_of_the_helmholtz_recipe_are_resolved() -> None:
    """Twice the resolution changes the field by less than 1 %; of second order it was 8 %."""
    recipe = load_recipe("helmholtz-small")
    content = copy.deepcopy(dict(recipe.content))
    content["domain"]["shape"] = [128, 128]
    side = content["boundary"]["y_upper"]
    side["flux"] = side["flux"].replace("64", "128")
    coarse, fine = (
        solve(
            r.equation, r.grid, fields={"c": r.fields["c"].sample(r.grid, [0])[0]}, scheme=r.scheme, method=r.method
        ).value
        for r in (recipe, load_recipe(content))
    )
    means = fine.reshape(64, 2, 64, 2).mean((1, 3))
    assert float((coarse - means).norm() / means.norm()) < 0.01
