"""Settings that hold for every test, and the source tree as an object."""

from __future__ import annotations

import gc
import multiprocessing
import os

# Read once, when OpenMP starts: before torch is loaded. Workers that spin slow down everything else on the machine.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("MPLBACKEND", "Agg")

import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import torch

hypothesis.settings.register_profile("local", deadline=None)
hypothesis.settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "local")

# Sums differ between 1 and 2 threads; more than 2 would make a test's result depend on the machine. Several processes
# have one thread each, since two would have to wait for those of the others.
if "OMP_NUM_THREADS" not in os.environ:
    torch.set_num_threads(1 if "PYTEST_XDIST_WORKER" in os.environ else min(2, os.cpu_count() or 1))


LONGEST = ("test_examples.py", "test_sections.py")
"""Begun first, so that no process is at one when the others have nothing left to do."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.path.name not in LONGEST)
    if torch.cuda.is_available():
        return
    for item in items:
        if item.get_closest_marker("cuda"):
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


gc.disable()  # what is made until the tests are found stays


def pytest_collection_finish() -> None:
    """No garbage collection looks at the libraries, and the thousands of tests, from here on."""
    gc.collect()
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="module", autouse=True)
def only_own_garbage() -> None:
    """Nor at what the files before left in caches: the benchmarks, and whoever times with them, collect every run."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def unchanged_defaults() -> Iterator[None]:
    """A test draws the same numbers whatever ran before it; torch's global settings are restored by who changes them,
    or the tests after it are others."""
    torch.manual_seed(0)
    before = torch.get_default_dtype(), torch.is_grad_enabled(), torch.get_num_threads()
    yield
    after = torch.get_default_dtype(), torch.is_grad_enabled(), torch.get_num_threads()
    assert after == before, "the test left torch's default dtype, grad mode or thread count changed"


@pytest.fixture(scope="session")
def forks() -> ForkServerContext:
    """Whose processes are forks of one that has loaded what they need, which takes longer than most of their work."""
    context = multiprocessing.get_context("forkserver")
    names = (
        "problem_file",
        "storage",
        "pictures",
        "solvers.time",
        "operators.fitting",
        "benchmarks.operators.training",
    )
    context.set_forkserver_preload([f"sciml.{name}" for name in names])
    return context


@dataclass(frozen=True)
class SourceTree:
    """The folders of the repository that make up the package."""

    root: Path
    project: dict[str, Any]  # pyproject.toml

    @property
    def folders(self) -> dict[str, Path]:
        """Import name of each source folder -> the folder."""
        mapping = self.project["tool"]["setuptools"]["package-dir"]
        return {name: self.root / folder for name, folder in mapping.items()}

    def files(self) -> dict[str, Path]:
        """Path inside the installed package, e.g. `sciml/solvers/__init__.py`, -> file, for code and data alike."""
        return {
            f"{name.replace('.', '/')}/{path.relative_to(folder).as_posix()}": path
            for name, folder in self.folders.items()
            for path in sorted(folder.rglob("*"))
            if path.is_file() and "__pycache__" not in path.parts
        }

    def modules(self) -> dict[str, Path]:
        """Import name -> file; a package goes by its own name, without `.__init__`."""
        names = {}
        for installed, path in self.files().items():
            if path.suffix == ".py":
                names[installed.removesuffix(".py").replace("/", ".").removesuffix(".__init__")] = path
        return names


@pytest.fixture(scope="session")
def source_tree() -> SourceTree:
    root = Path(__file__).resolve().parents[1]
    return SourceTree(root, tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8")))
