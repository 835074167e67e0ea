"""Solutions on meshes come back from files bit for bit, with their mesh, its names, and what can be asked of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from sciml import (
    Dirichlet,
    Equation,
    FiniteElement,
    InputError,
    Mesh,
    MeshSystem,
    Neumann,
    NonlinearMeshSystem,
    Robin,
    Solution,
    container,
    discretize,
    solve,
    storage,
)

EQUATION = Equation("-div(a*grad(u)) + b*u_x + nu*u = f", parameters={"nu": 0.5})


def same_bits(one: Any, other: Any) -> None:
    if isinstance(one, Tensor):
        assert one.dtype == other.dtype
        assert one.shape == other.shape
        assert one.detach().numpy().tobytes() == other.numpy().tobytes()
    else:
        assert one == other


def same_mesh(one: Mesh, other: Mesh) -> None:
    for name in ("points", "cells", "facets", "facet_cells"):
        same_bits(getattr(one, name), getattr(other, name))
    for name in ("boundaries", "regions"):
        assert list(getattr(one, name)) == list(getattr(other, name))
        for key, part in getattr(one, name).items():
            same_bits(part, getattr(other, name)[key])


def same(one: Solution, other: Solution) -> None:
    """Everything that a solution holds is the same, and so is everything that it can be asked for."""
    for name in ("value", "codes", "method", "notes", "versions"):
        same_bits(getattr(one, name), getattr(other, name))
    for name in ("statistics", "history"):
        assert list(getattr(one, name)) == list(getattr(other, name))
        for key, item in getattr(one, name).items():
            same_bits(item, getattr(other, name)[key])
    a, b = one.system, other.system
    assert isinstance(a, MeshSystem)
    assert isinstance(b, MeshSystem)
    same_mesh(a.domain, b.domain)
    assert (a.equation, a.scheme, a.unknowns, a.notes) == (b.equation, b.scheme, b.unknowns, b.notes)
    for key, item in a.parameters.items():
        same_bits(item, b.parameters[key])
    for key, item in a.fields.items():
        if isinstance(item, Tensor) or not callable(item):
            same_bits(item, b.fields[key])
    same_bits(a.right_side, b.right_side)
    probe = torch.rand(a.right_side.shape, dtype=a.domain.dtype, generator=torch.Generator().manual_seed(1))
    same_bits(a.operator.apply(probe), b.operator.apply(probe))
    for name in a.domain.boundaries:
        same_bits(a.flux(probe, name), b.flux(probe, name))
    for region in (None, *a.domain.regions):
        same_bits(one.integral(region), other.integral(region))
    same_bits(one.gradient(), other.gradient())
    same_bits(one.at(a.domain.cell_centres[:5].detach()), other.at(a.domain.cell_centres[:5].detach()))


def moved_box(shape: tuple[int, ...], generator: torch.Generator, dtype: torch.dtype = torch.float64) -> Mesh:
    """A box whose points are a little off their places."""
    box = Mesh.box(shape)
    moves = 0.1 / max(shape) * torch.rand(box.points.shape, dtype=torch.float64, generator=generator)
    return Mesh(box.points + moves, box.cells, box.boundaries).to(dtype=dtype)


def with_values(system: MeshSystem, batch: tuple[int, ...], generator: torch.Generator) -> Solution:
    """A solution with random values, as a solver might leave it: some rows failed, and a NaN in one of them."""
    value = torch.rand(*batch, *system.operator.space, dtype=system.domain.dtype, generator=generator)
    value.flatten()[-1] = float("nan")
    codes = torch.randint(0, 6, batch, generator=generator)
    statistics = {"iterations": codes * 7, "seconds_setup": 0.1}
    history = {"residual_norm": torch.rand(4, *batch, dtype=torch.float64, generator=generator)}
    return Solution(value, codes, statistics, history, "because a test said so", system.notes, system=system)


NAMES = st.text(min_size=1, max_size=12).filter(lambda name: name not in ("exterior", "rest"))


@st.composite
def solutions(draw: st.DrawFn) -> Solution:
    dimension = draw(st.integers(2, 3))
    shape = tuple(draw(st.lists(st.integers(1, 3), min_size=dimension, max_size=dimension)))
    batch = draw(st.sampled_from([(), (1,), (3,), (2, 1, 2)]))
    dtype = draw(st.sampled_from([torch.float64, torch.float32]))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**30)))
    mesh = moved_box(shape, generator, dtype)
    inlet, core = draw(NAMES), draw(NAMES)
    halves = torch.rand(len(mesh.cells), generator=generator) < 0.5
    mesh = Mesh(mesh.points, mesh.cells, {inlet: mesh.boundary("x_lower")}, {core: halves})
    points, cells, facets = len(mesh.points), len(mesh.cells), len(mesh.boundary(inlet))

    def random(*lengths: int) -> Tensor:
        return 0.5 + torch.rand(lengths, dtype=dtype, generator=generator)

    def number(kinds: list[str]) -> Any:
        kind = draw(st.sampled_from(kinds))
        if kind == "number":
            return draw(st.floats(0.1, 1e3))
        if kind == "function":
            return lambda *c: 1.0 + sum(x * x for x in c)
        if kind == "constant function":
            return lambda *c: 2.0
        if kind == "regions":
            return {core: 2.0, "rest": random(*batch)}
        lengths = {"row": (*batch, 1), "points": (points,), "all points": (*batch, points), "cells": (*batch, cells)}
        return random(*{**lengths, "scalar": (), "facets": (*batch, facets)}[kind])

    everywhere = ["number", "function", "constant function", "row", "points", "all points"]

    def condition() -> Any:
        kind = draw(st.sampled_from([Dirichlet, Neumann, Robin]))
        kinds = [*everywhere, "scalar", *([] if kind is Dirichlet else ["facets"])]
        return Robin(number(kinds), number(kinds)) if kind is Robin else kind(number(kinds))

    rest = draw(st.sampled_from([Dirichlet(0.0), Neumann(lambda *c: c[0] * c[1]), Robin(1.0, 2.0)]))
    system = discretize(
        EQUATION,
        mesh,
        fields={name: number([*everywhere, "cells", "regions"]) for name in ("a", "b", "f")},
        parameters={"nu": draw(st.sampled_from([0.25, torch.rand(batch, dtype=dtype, generator=generator)]))},
        boundary={inlet: condition(), "rest": rest},
        scheme=draw(st.sampled_from([None, FiniteElement("none"), FiniteElement("streamline", lumped=True)])),
    )
    return with_values(system, batch, generator)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(solution=solutions())
def test_every_bit_comes_back(solution: Solution, tmp_path: Path) -> None:
    solution.save(tmp_path / "a.h5")
    same(solution, Solution.load(tmp_path / "a.h5"))
    assert [path.name for path in tmp_path.iterdir()] == ["a.h5"]


def test_several_unknowns_with_their_own_conditions(tmp_path: Path) -> None:
    equation = Equation(["-laplacian(u) + v = 0", "-laplacian(v) = f"], unknowns=["u", "v"])
    boundary = {
        "u": {"x_lower": Dirichlet(lambda x, y: y), "rest": Neumann(1.0)},
        "v": {"y_upper": Dirichlet(3.0), "rest": Robin(1.0, lambda x, y: x)},
    }
    system = discretize(equation, Mesh.box((3, 2)), {"f": lambda x, y: x * y}, boundary=boundary)
    solution = with_values(system, (3,), torch.Generator().manual_seed(0))
    solution.save(tmp_path / "a.h5")
    same(solution, Solution.load(tmp_path / "a.h5"))
    with h5py.File(tmp_path / "a.h5", "r") as file:
        masks = {name: int(entry["mask"][()].sum()) for name, entry in file["boundary_conditions"].items()}
    assert masks == {"u on x_lower": 3, "u on rest": 9, "v on y_upper": 4, "v on rest": 8}


def test_one_condition_for_all(tmp_path: Path) -> None:
    solution = solve(Equation("-laplacian(u) = f"), Mesh.box((2, 2, 2)), fields={"f": 1.0}, boundary=Dirichlet(2.0))
    solution.save(tmp_path / "a.h5")
    same(solution, Solution.load(tmp_path / "a.h5"))


@pytest.mark.parametrize("dimension", [2, 3])
def test_nonlinear_equations(dimension: int, tmp_path: Path) -> None:
    mesh = moved_box((3,) * dimension, torch.Generator().manual_seed(0)).with_regions({"left": lambda x, *_: x < 0.5})
    equation = Equation("-div((a + beta*u**2)*grad(u)) + b*u**3 = f", parameters={"beta": 2.0})
    boundary = {"x_lower": Dirichlet(lambda x, y, *_: y), "x_upper": Robin(1.0, 2.0), "rest": Neumann(0.1)}
    fields = {"a": {"left": 1.0, "rest": 3.0}, "b": lambda x, *_: x * x, "f": 1.0}
    beta = torch.tensor([0.5, 2.0], dtype=torch.float64)
    solution = solve(equation, mesh, fields=fields, parameters={"beta": beta}, boundary=boundary)
    solution.save(tmp_path / "a.h5")
    again = Solution.load(tmp_path / "a.h5")
    for name in ("value", "codes", "method", "notes", "versions"):
        same_bits(getattr(solution, name), getattr(again, name))
    a, b = solution.system, again.system
    assert isinstance(a, NonlinearMeshSystem)
    assert isinstance(b, NonlinearMeshSystem)
    same_mesh(a.domain, b.domain)
    assert (a.scheme, a.notes, a.batch) == (b.scheme, b.notes, b.batch)
    same_bits(a.residual(solution.value), b.residual(again.value))
    same_bits(a.jacobian(solution.value).apply(solution.value), b.jacobian(again.value).apply(again.value))
    for name in mesh.boundaries:
        same_bits(solution.flux(name), again.flux(name))
    same_bits(solution.integral("left"), again.integral("left"))
    same_bits(solution.gradient(), again.gradient())


def test_regions_stay_cells_where_there_are_as_many_points(tmp_path: Path) -> None:
    mesh = Mesh.box((2, 3)).with_regions({"left": lambda x, y: x < 0.5})
    assert len(mesh.points) == len(mesh.cells)
    held = {"x_lower": Dirichlet(0.0), "x_upper": Dirichlet(1.0), "rest": Neumann(0.0)}
    fields = {"a": {"left": 1.0, "rest": 10.0}}
    solution = solve(Equation("-div(a*grad(u)) = 0"), mesh, fields=fields, boundary=held)
    solution.save(tmp_path / "a.h5")
    again = Solution.load(tmp_path / "a.h5")
    same(solution, again)
    assert float(again.flux("x_upper")) == pytest.approx(1 / (0.5 + 0.05), rel=1e-12)


def test_functions_need_values_only_where_they_are_asked_for(tmp_path: Path) -> None:
    # 1 / x is infinite at points of the mesh; the coefficient of a divergence is asked for at the cells' centres.
    held = {"x_lower": Dirichlet(0.0), "x_upper": Dirichlet(1.0), "rest": Neumann(0.0)}
    fields = {"a": lambda x, y: 1.0 / x}
    solution = solve(Equation("-div(a*grad(u)) = 0"), Mesh.box((8, 2)), fields=fields, boundary=held)
    solution.save(tmp_path / "a.h5")
    again = Solution.load(tmp_path / "a.h5")
    same(solution, again)
    with h5py.File(tmp_path / "a.h5", "r") as file:
        assert list(file["t0_fields"]) == ["u"]
        assert list(file["sciml/functions/a"]) == ["cells", "facets"][: len(file["sciml/functions/a"])]
    with pytest.raises(InputError, match="field 'a' was read from a file, which has its values at cells"):
        again.system.fields["a"](torch.rand(7), torch.rand(7))  # type: ignore[union-attr]


def test_a_condition_from_a_file_is_refused_elsewhere(tmp_path: Path) -> None:
    held = {"x_lower": Dirichlet(lambda x, y: y), "rest": Neumann(0.0)}
    solution = solve(Equation("-laplacian(u) = 1"), Mesh.box((4, 4)), boundary=held)
    solution.save(tmp_path / "a.h5")
    system = Solution.load(tmp_path / "a.h5").system
    assert system is not None
    with pytest.raises(InputError, match="has values at the 5 points of its boundary only"):
        solve(Equation("-laplacian(u) = 1"), Mesh.box((4, 5)), boundary=system.boundary["u"])


def test_the_layout(tmp_path: Path) -> None:
    mesh = Mesh.box((4, 3), (0.0, 1.0), (2.0, 4.0)).with_regions(
        {"core": lambda x, y: x < 1, "a/b": lambda x, y: x > 1}
    )
    by_cell = torch.rand(len(mesh.cells), dtype=torch.float64) + 0.5
    source = torch.rand(2, 1, len(mesh.points), dtype=torch.float64)
    held = {"x_lower": Dirichlet(7.0), "rest": Neumann(0.0)}
    system = discretize(EQUATION, mesh, {"a": by_cell, "b": 1.0, "f": source}, boundary=held)
    solution = with_values(system, (2, 3), torch.Generator().manual_seed(0))
    solution.save(tmp_path / "a.h5")
    with h5py.File(tmp_path / "a.h5", "r") as file:
        assert file.attrs["grid_type"] == "unstructured"
        assert file.attrs["n_spatial_dims"] == 2
        assert file.attrs["n_trajectories"] == 6
        assert file.attrs["dataset_name"] == str(EQUATION)
        assert file.attrs["nu"] == 0.5
        for axis, places in zip("xy", mesh.coordinates, strict=True):
            np.testing.assert_array_equal(file["dimensions"][axis], places)
        for name in ("points", "cells", "facets"):
            np.testing.assert_array_equal(file["mesh"][name], getattr(mesh, name))
        np.testing.assert_array_equal(file["mesh/boundaries/y_upper"], mesh.boundary("y_upper"))
        np.testing.assert_array_equal(file["mesh/regions/core"], mesh.region("core"))
        np.testing.assert_array_equal(file["mesh/regions/(1)"], mesh.region("a/b"))
        for name, shape, location in (
            ("u", (6, 1, len(mesh.points)), "points"),
            ("a", (len(mesh.cells),), "cells"),
            ("f", (6, len(mesh.points)), "points"),
        ):
            assert file["t0_fields"][name].shape == shape
            assert file["t0_fields"][name].attrs["location"] == location
        np.testing.assert_array_equal(file["t0_fields/u"][4, 0], solution.value[1, 1])
        np.testing.assert_array_equal(file["t0_fields/f"][4], source[1, 0])
        assert list(file["scalars"].attrs["field_names"]) == ["b", "nu"]
        inlet = file["boundary_conditions/x_lower"]
        np.testing.assert_array_equal(inlet["mask"], mesh.points[:, 0] == 0.0)
        np.testing.assert_array_equal(inlet["values"], np.full(4, 7.0))
        file.visititems(
            lambda name, item: (
                None
                if isinstance(item, h5py.Group) or item.dtype.kind in "fib" or h5py.check_string_dtype(item.dtype)
                else pytest.fail(f"{name} is pickled")
            )
        )


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda file: file.__delitem__("mesh/cells"), "does not have the layout of a solution"),
        (lambda file: file["mesh/cells"].__setitem__((0, 0), 999), r"a\.h5: .*points that do not exist|a\.h5: Mesh"),
        (lambda file: file["mesh/boundaries/x_lower"].__setitem__(0, 999), r"a\.h5: Mesh: .*x_lower"),
        (lambda file: file["mesh/points"].__setitem__((0, 0), np.nan), r"a\.h5: Mesh"),
        (lambda file: file.__delitem__("t0_fields/u"), "does not have the layout of a solution"),
    ],
)
def test_a_sound_file_with_a_mesh_that_is_none_is_refused(damage: Any, message: str, tmp_path: Path) -> None:
    solve(Equation("-laplacian(u) = 1"), Mesh.box((4, 4)), boundary=Dirichlet(0.0)).save(tmp_path / "whole.h5")

    def copy(file: h5py.File) -> None:
        with h5py.File(tmp_path / "whole.h5", "r") as own:
            for name in own:
                own.copy(name, file)
        damage(file)

    container.write(tmp_path / "a.h5", storage.KIND, storage.FORMAT, copy)
    with pytest.raises(InputError, match=message):
        Solution.load(tmp_path / "a.h5")
