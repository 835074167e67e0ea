"""The wheel holds everything, the metadata says what the code needs, and the source folders clash with nobody."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import sciml

if TYPE_CHECKING:
    from conftest import SourceTree

# Import names that differ from the name of the distribution that brings them.
DISTRIBUTIONS = {
    "lightning_fabric": "lightning-fabric",
    "mpl_toolkits": "matplotlib",
    "neuralop": "neuraloperator",
    "pyqg_jax": "pyqg-jax",
    "sklearn": "scikit-learn",
    "skfem": "scikit-fem",
    "torch_sla": "torch-sla",
}


@pytest.fixture(scope="session")
def wheel(source_tree: SourceTree, tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """Built from a copy: setuptools also packs what an earlier build left in build/."""
    folder = tmp_path_factory.mktemp("wheel")
    leave = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for source in source_tree.folders.values():
        shutil.copytree(source, folder / "tree" / source.name, ignore=leave)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(source_tree.root / name, folder / "tree")
    run = subprocess.run(
        [
            *(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-build-isolation", "--no-deps", "--no-index"),
            *("--wheel-dir", str(folder), str(folder / "tree")),
        ],
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    (path,) = folder.glob("*.whl")
    return zipfile.ZipFile(path)


def metadata(wheel: zipfile.ZipFile, name: str) -> str:
    (path,) = (path for path in wheel.namelist() if path.endswith(f".dist-info/{name}"))
    return wheel.read(path).decode()


def test_packages_are_the_folders_that_hold_code(source_tree: SourceTree) -> None:
    """A folder missing from `packages` imports in the tree and is silently absent from the wheel."""
    listed = source_tree.project["tool"]["setuptools"]["packages"]
    present = {
        Path(installed).parent.as_posix().replace("/", ".")
        for installed in source_tree.files()
        if installed.endswith(".py")
    }
    assert sorted(listed) == sorted(present)


def test_every_folder_with_code_is_a_package(source_tree: SourceTree) -> None:
    without = {path.parent for path in source_tree.modules().values() if not (path.parent / "__init__.py").exists()}
    assert not without, "without __init__.py it is a namespace package, which type checkers and guards miss"


def test_the_wheel_holds_every_file(wheel: zipfile.ZipFile, source_tree: SourceTree) -> None:
    packed = {path for path in wheel.namelist() if ".dist-info/" not in path}
    assert packed == set(source_tree.files())


def test_the_wheel_holds_the_files_unchanged(wheel: zipfile.ZipFile, source_tree: SourceTree) -> None:
    assert all(wheel.read(installed) == path.read_bytes() for installed, path in source_tree.files().items())


def test_the_wheel_has_licence_typing_mark_version_and_program(wheel: zipfile.ZipFile) -> None:
    assert "sciml/py.typed" in wheel.namelist()
    assert "Apache License" in metadata(wheel, "licenses/LICENSE")
    assert f"\nVersion: {sciml.__version__}\n" in metadata(wheel, "METADATA")
    assert "sciml = sciml.command_line:main" in metadata(wheel, "entry_points.txt")


def requirements(project: dict[str, Any], *extras: str) -> set[str]:
    table = project["project"]
    texts = [*table["dependencies"], *(text for extra in extras for text in table["optional-dependencies"][extra])]
    return {re.split(r"[^\w.-]", text)[0].lower() for text in texts}


def third_party_imports(tree: ast.AST) -> dict[str, bool]:
    """Import name of each third-party library -> whether the file cannot be loaded without it."""
    found: dict[str, bool] = {}

    def visit(node: ast.AST, needed: bool) -> None:
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names = [node.module]
        for name in names:
            top = name.partition(".")[0]
            if top not in sys.stdlib_module_names and top != "sciml":
                found[top] = found.get(top, False) or needed
        optional = isinstance(node, ast.Try | ast.FunctionDef | ast.AsyncFunctionDef | ast.If)
        for child in ast.iter_child_nodes(node):
            visit(child, needed and not optional)

    visit(tree, True)
    return found


def test_every_library_that_is_imported_is_declared(source_tree: SourceTree) -> None:
    """At the top of a file only what every installation has; what an extra brings, inside functions."""
    always = requirements(source_tree.project)
    declared = always | requirements(source_tree.project, "demo", "bench", "dask")
    violations = [
        f"{path.relative_to(source_tree.root)} imports {name}"
        for path in source_tree.modules().values()
        for name, needed in third_party_imports(ast.parse(path.read_text(encoding="utf-8"))).items()
        if DISTRIBUTIONS.get(name, name) not in (always if needed else declared)
    ]
    assert not violations, "not declared in pyproject.toml, or only in an extra:\n" + "\n".join(violations)


@pytest.mark.parametrize("name", ["datasets", "operators", "solvers"])
def test_a_source_folder_is_not_importable_by_its_own_name(name: str, source_tree: SourceTree) -> None:
    """From the repository's root, `import datasets` in somebody else's code would otherwise take ours."""
    run = subprocess.run(
        [sys.executable, "-c", f"import {name}"], cwd=source_tree.root, capture_output=True, text=True, check=False
    )
    assert run.returncode != 0
    assert f"this folder is the package sciml.{name}: import it by that name" in run.stderr.splitlines()[-1]


def test_every_source_folder_beside_sciml_is_guarded(source_tree: SourceTree) -> None:
    assert set(source_tree.folders) == {"sciml", "sciml.datasets", "sciml.operators", "sciml.solvers"}


def test_the_package_under_test_is_this_tree(source_tree: SourceTree) -> None:
    import sciml.solvers

    assert Path(sciml.__file__).is_relative_to(source_tree.root)
    assert Path(sciml.solvers.__file__).is_relative_to(source_tree.root)


def test_test_folders_are_no_packages(source_tree: SourceTree) -> None:
    """With an __init__.py in it, tests/sciml would be imported as `sciml`."""
    assert not list((source_tree.root / "tests").rglob("__init__.py"))


def test_no_file_names_a_place_on_one_machine(source_tree: SourceTree) -> None:
    """An installation that names an index or a folder of its own works on one machine only."""
    places = re.compile(r"index-url|find-links|trusted-host|/(home|mnt|opt|root|Users)/\w")
    files = ["pyproject.toml", "constraints.txt", "Makefile", ".ci/run", ".ci/types", "README.md", "CONTRIBUTING.md"]
    assert not [name for name in files if places.search((source_tree.root / name).read_text(encoding="utf-8"))]


@pytest.mark.parametrize("script", [".ci/run", ".ci/types"])
def test_scripts_can_be_run(script: str, source_tree: SourceTree) -> None:
    path = source_tree.root / script
    assert os.access(path, os.X_OK)
    subprocess.run(["bash", "-n", str(path)], check=True)
