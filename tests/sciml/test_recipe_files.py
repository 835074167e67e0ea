"""Recipes are found by the names of those that are shipped, and by their paths."""

from __future__ import annotations

from pathlib import Path

import pytest

from sciml import InputError
from sciml.recipe_files import described, read_recipe, shipped_files

PACKAGES = ("sciml.operators", "sciml.datasets", "sciml.solvers.linear.learned", "sciml.solvers.neural_de.tasks")


@pytest.mark.parametrize("package", PACKAGES)
def test_what_is_shipped_is_found_by_its_name(package: str) -> None:
    shipped, descriptions = shipped_files(package), described(package)
    assert shipped and list(shipped) == list(descriptions)
    for name, file in shipped.items():
        path, content = read_recipe(name, package)
        assert path == file and content["description"] == descriptions[name] != ""
        assert read_recipe(file, package) == (path, content)


def test_a_file_goes_before_what_is_shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("digits-ode").write_text("mine = 1\n")
    assert read_recipe("digits-ode", PACKAGES[-1]) == (Path("digits-ode"), {"mine": 1})


@pytest.mark.parametrize("package", PACKAGES)
@pytest.mark.parametrize("source", ["missing.toml", "../recipe", "../recipes/mgno-darcy-64", ".", ""])
def test_what_is_neither_is_refused(source: str, package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=f"^there is no file {source!r}, and no recipe of this name"):
        read_recipe(source, package)


def test_the_nearest_name_is_told() -> None:
    with pytest.raises(InputError, match=r"no recipe of this name; did you mean 'spiral-ode'\?"):
        read_recipe("spiral-od", PACKAGES[-1])


def test_what_is_not_toml_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text("[task\n")
    with pytest.raises(InputError, match=r"mine\.toml is not valid TOML"):
        read_recipe(path, PACKAGES[0])
