"""Solutions come back from files bit for bit, in The Well's layout, and damaged files are refused for what they are."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
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
    FiniteDifference,
    FiniteVolume,
    Grid,
    InputError,
    Mesh,
    Neumann,
    NonlinearSystem,
    Periodic,
    Robin,
    Solution,
    container,
    discretize,
    discretize_nonlinear,
    storage,
)
from sciml.files import write_whole

DARCY = Equation("-div(a*grad(u)) + nu*u = f", parameters={"nu": 0.5})


def make(grid: Grid, batch: tuple[int, ...] = (), seed: int = 0, **words: Any) -> Solution:
    """A solution with random values, as a solver might leave it: some rows failed, and a NaN in one of them."""
    generator = torch.Generator().manual_seed(seed)
    words = {"fields": {"a": 2.0, "f": 1.0}, **words}
    system = discretize(DARCY, grid, **words)
    value = torch.rand(*batch, *grid.shape, dtype=grid.dtype, generator=generator)
    value.flatten()[-1] = float("nan")
    codes = torch.randint(0, 6, batch, generator=generator)
    norms = torch.rand(batch, dtype=torch.float64, generator=generator)
    return Solution(
        value,
        codes,
        {"iterations": codes * 7, "relative_residual": norms, "seconds_setup": 0.1, "seconds_solve": float("inf")},
        {"residual_norm": torch.rand(4, *batch, dtype=torch.float64, generator=generator)},
        "conjugate gradients, because a test said so",
        system.notes,
        system=system,
    )


def same_bits(one: Any, other: Any) -> None:
    """Tensors agree in dtype, shape and every bit; other things are equal."""
    if isinstance(one, Tensor):
        assert one.dtype == other.dtype
        assert one.shape == other.shape
        assert one.detach().numpy().tobytes() == other.numpy().tobytes()
    else:
        assert one == other


def same(one: Solution, other: Solution) -> None:
    """Everything that a solution holds is the same, and the rebuilt system acts in the same way."""
    for name in ("value", "codes", "method", "notes", "versions"):
        same_bits(getattr(one, name), getattr(other, name))
    for name in ("statistics", "history"):
        assert list(getattr(one, name)) == list(getattr(other, name))
        for key, item in getattr(one, name).items():
            same_bits(item, getattr(other, name)[key])
    a, b = one.system, other.system
    assert a is not None
    assert b is not None
    assert a.equation == b.equation
    assert a.scheme == b.scheme
    assert (a.domain.shape, a.domain.lower, a.domain.upper, a.domain.dtype, a.domain.periodic) == (
        (b.domain.shape, b.domain.lower, b.domain.upper, b.domain.dtype, b.domain.periodic)
    )
    for values in (a.fields, a.parameters):
        for key, item in values.items():
            same_bits(item, {**b.fields, **b.parameters}[key])
    same_bits(a.right_side, b.right_side)
    probe = torch.rand(a.right_side.shape, dtype=a.domain.dtype, generator=torch.Generator().manual_seed(1))
    same_bits(a.operator.apply(probe), b.operator.apply(probe))
    for name in a.domain.boundaries:
        same_bits(a.flux(probe, name), b.flux(probe, name))


# What goes in comes out


@st.composite
def solutions(draw: st.DrawFn) -> Solution:
    dimension = draw(st.integers(1, 3))
    shape = tuple(draw(st.lists(st.integers(2, 4), min_size=dimension, max_size=dimension)))
    batch = draw(st.sampled_from([(), (1,), (3,), (2, 3), (2, 1, 2)]))
    dtype = draw(st.sampled_from([torch.float64, torch.float32]))
    seed = draw(st.integers(0, 2**30))
    generator = torch.Generator().manual_seed(seed)

    def number(space: tuple[int, ...]) -> Any:
        kind = draw(st.sampled_from(["number", "field", "line", "row", "all", "function"]))
        if kind == "number":
            return draw(st.floats(0.1, 1e3))
        if kind == "function":
            return lambda *c: 1.0 + sum(x * x for x in c)
        shapes = {
            "field": space,
            "line": (1,) * len(space),
            "row": (*batch, *(1,) * len(space)),
            "all": (*batch, *space),
        }
        wanted = (*shapes["line"][:-1], *space[-1:]) if kind == "line" else shapes[kind]
        return 0.5 + torch.rand(wanted, dtype=dtype, generator=generator)

    def condition(space: tuple[int, ...]) -> Any:
        kind = draw(st.sampled_from([Dirichlet, Neumann, Robin]))
        return Robin(number(space), number(space)) if kind is Robin else kind(number(space))

    sides: dict[str, Any] = {}
    for k, axis in enumerate("xyz"[:dimension]):
        face = shape[:k] + shape[k + 1 :]
        sides[axis] = Periodic() if draw(st.booleans()) else (condition(face), condition(face))
    solid = None
    if draw(st.booleans()):
        solid = torch.rand(shape, generator=generator) < 0.3
        solid.flatten()[0] = False
    lower = tuple(draw(st.floats(-10, 10)) for _ in shape)
    upper = tuple(low + draw(st.floats(0.5, 10)) for low in lower)
    grid = Grid(shape, lower, upper, sides, solid, condition(shape), dtype=dtype)
    schemes = [None, FiniteVolume("arithmetic"), FiniteDifference(advection="central")]
    return make(
        grid,
        batch,
        seed,
        fields={"a": number(shape), "f": number(shape)},
        parameters={"nu": draw(st.sampled_from([0.25, torch.rand(batch, dtype=dtype, generator=generator)]))},
        scheme=draw(st.sampled_from(schemes)),
    )


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(solution=solutions())
def test_every_bit_comes_back(solution: Solution, tmp_path: Path) -> None:
    solution.save(tmp_path / "a.h5")
    same(solution, Solution.load(tmp_path / "a.h5"))
    assert [path.name for path in tmp_path.iterdir()] == ["a.h5"]


def test_several_unknowns_with_their_own_conditions(tmp_path: Path) -> None:
    equation = Equation(["-laplacian(u) + v = 0", "-laplacian(v) = f"], unknowns=["u", "v"])
    solid = torch.zeros(4, 5, dtype=torch.bool)
    solid[1, 1] = True
    grid = Grid(
        (4, 5),
        boundary={"u": Dirichlet(1.0), "v": Neumann(0.0)},
        solid=solid,
        walls={"u": Neumann(0), "v": Dirichlet(2)},
    )
    system = discretize(equation, grid, {"f": 1.0}, boundary={"v": {"x": (Dirichlet(3.0), Neumann(1.0))}})
    value = torch.rand(3, 2, 4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    solution = Solution(value, torch.zeros(3, dtype=torch.int64), {}, {}, system=system)
    solution.save(tmp_path / "a.h5")
    again = Solution.load(tmp_path / "a.h5")
    same(solution, again)
    points = torch.tensor([[0.01, 0.02], [0.9, 0.99]], dtype=torch.float64)
    same_bits(solution.at(points), again.at(points))


def test_a_solution_with_gradients_is_saved_without_them(tmp_path: Path) -> None:
    solution = make(Grid((4,)), fields={"a": torch.ones(4, dtype=torch.float64, requires_grad=True), "f": 1.0})
    solution.save(tmp_path / "a.h5")
    assert not Solution.load(tmp_path / "a.h5").value.requires_grad


@pytest.mark.parametrize("scheme", [None, FiniteVolume("arithmetic"), FiniteDifference(advection="central")])
def test_nonlinear_solutions_come_back(scheme: Any, tmp_path: Path) -> None:
    boundary = {"x": (Dirichlet(lambda x, y: y), Robin(2.0, 1.0)), "y": Periodic()}
    solid = torch.zeros(6, 5, dtype=torch.bool)
    solid[2:4, 2] = True
    grid = Grid((6, 5), (0.0, -1.0), (2.0, 1.0), boundary, solid, Dirichlet(1.0))
    beta = torch.tensor([0.5, 2.0], dtype=torch.float64)
    fields = {"f": lambda x, y: x + y, "q": 2.0}
    solution = make_nonlinear(grid, fields=fields, parameters={"beta": beta}, scheme=scheme)
    solution.save(tmp_path / "a.h5")
    again = Solution.load(tmp_path / "a.h5")
    assert isinstance(again.system, NonlinearSystem)
    assert isinstance(solution.system, NonlinearSystem)
    for name in ("value", "codes", "method", "notes"):
        same_bits(getattr(solution, name), getattr(again, name))
    same_bits(solution.system.residual(solution.value), again.system.residual(again.value))
    same_bits(solution.gradient(), again.gradient())
    points = [[0.05, 0.9], [1.9, -0.8]]
    same_bits(solution.at(points), again.at(points))
    for name in grid.boundaries:
        same_bits(solution.flux(name), again.flux(name))


def test_files_of_the_first_format_are_read(tmp_path: Path) -> None:
    solution = make(Grid((4, 3)), (2,))
    solution.save(tmp_path / "a.h5")

    def copy(file: h5py.File) -> None:
        with h5py.File(tmp_path / "a.h5", "r") as own:
            for name in own:
                own.copy(name, file)
        description = json.loads(file["sciml/description"].asstr()[()])
        del description["linear"], file["sciml/description"]
        file["sciml/description"] = json.dumps(description)

    container.write(tmp_path / "first.h5", storage.KIND, 1, copy)
    same(solution, Solution.load(tmp_path / "first.h5"))


# The layout


def test_the_layout_is_that_of_the_well(tmp_path: Path) -> None:
    grid = Grid((4, 3), (0, 1), (2, 4), boundary={"x": Periodic(), "y": (Dirichlet(7.0), Neumann(0.0))})
    field = torch.rand(2, 1, 4, 3, dtype=torch.float64)
    solution = make(grid, (2, 3), fields={"a": torch.ones(4, 1, dtype=torch.float64), "f": field})
    solution.save(tmp_path / "a.h5")
    with h5py.File(tmp_path / "a.h5", "r") as file:
        assert file.attrs["grid_type"] == "cartesian"
        assert file.attrs["n_spatial_dims"] == 2
        assert file.attrs["n_trajectories"] == 6
        assert file.attrs["dataset_name"] == str(DARCY)
        assert list(file.attrs["simulation_parameters"]) == ["nu"]
        assert file.attrs["nu"] == 0.5
        assert list(file["dimensions"].attrs["spatial_dims"]) == ["x", "y"]
        np.testing.assert_array_equal(file["dimensions/x"], [0.0, 0.5, 1.0, 1.5])
        np.testing.assert_array_equal(file["dimensions/y"], [1.5, 2.5, 3.5])
        assert file["dimensions/time"].shape == (1,)
        assert {
            name: list(file[name].attrs["field_names"]) for name in ("t0_fields", "t1_fields", "t2_fields", "scalars")
        } == {
            "t0_fields": ["u", "a", "f"],
            "t1_fields": [],
            "t2_fields": [],
            "scalars": ["nu"],
        }
        for name, shape, by_sample, by_time in (
            ("u", (6, 1, 4, 3), True, True),
            ("a", (4, 3), False, False),
            ("f", (6, 4, 3), True, False),
        ):
            data = file["t0_fields"][name]
            assert data.shape == shape
            assert (data.attrs["sample_varying"], data.attrs["time_varying"]) == (by_sample, by_time)
            assert list(data.attrs["dim_varying"]) == [True, True]
        np.testing.assert_array_equal(file["t0_fields/u"][4, 0], solution.value[1, 1])
        np.testing.assert_array_equal(file["t0_fields/f"][4], field[1, 0])
        sides = file["boundary_conditions"]
        assert {name: side.attrs["bc_type"] for name, side in sides.items()} == {
            "x_periodic": "PERIODIC",
            "y_lower": "WALL",
            "y_upper": "WALL",
        }
        np.testing.assert_array_equal(sides["x_periodic/mask"], [True, False, False, True])
        np.testing.assert_array_equal(sides["y_lower/mask"], [True, False, False])
        np.testing.assert_array_equal(sides["y_lower/values"], [7.0])
        assert list(sides["y_lower"].attrs["associated_fields"]) == ["u"]


def test_nothing_in_the_file_is_pickled(tmp_path: Path) -> None:
    make(Grid((4, 3)), (2,)).save(tmp_path / "a.h5")

    def check(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            assert item.dtype.kind in "fib" or h5py.check_string_dtype(item.dtype), name

    with h5py.File(tmp_path / "a.h5", "r") as file:
        file.visititems(check)


# Damage


def make_nonlinear(grid: Grid, **words: Any) -> Solution:
    equation = Equation("-div((1 + beta*u**2)*grad(u)) + q*u**3 = f", parameters={"beta": 0.5})
    system = discretize_nonlinear(equation, grid, **{"fields": {"f": 1.0, "q": 2.0}, **words})
    value = torch.rand(*system.batch, *grid.shape, dtype=grid.dtype, generator=torch.Generator().manual_seed(0))
    return Solution(value, torch.zeros(system.batch, dtype=torch.int64), {}, {}, system=system)


def make_on_mesh() -> Solution:
    mesh = Mesh.box((3, 2)).with_regions({"core": lambda x, y: x < 0.5})
    boundary = {"x_lower": Dirichlet(lambda x, y: y), "rest": Neumann(0.0)}
    fields = {"a": {"core": 2.0, "rest": 1.0}, "f": lambda x, y: x * y}
    system = discretize(DARCY, mesh, fields=fields, boundary=boundary)
    value = torch.rand(2, len(mesh.points), dtype=mesh.dtype, generator=torch.Generator().manual_seed(0))
    return Solution(value, torch.zeros(2, dtype=torch.int64), {}, {}, system=system)


@pytest.fixture(scope="module", params=["grid", "nonlinear", "mesh"])
def image(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("image") / "a.h5"
    makers: dict[str, Callable[[], Solution]] = {
        "grid": lambda: make(Grid((4, 3)), (2,)),
        "nonlinear": lambda: make_nonlinear(Grid((4, 3))),
        "mesh": make_on_mesh,
    }
    makers[request.param]().save(path)
    return path.read_bytes()


@pytest.mark.parametrize("part", [0.0, 0.01, 0.02, 0.1, 0.5, 0.9, 0.9999])
def test_a_file_cut_short_is_refused(part: float, image: bytes, tmp_path: Path) -> None:
    path = tmp_path / "cut.h5"
    path.write_bytes(image[: int(part * len(image))])
    with pytest.raises(InputError, match=r"cut\.h5 is (empty|not an HDF5 file|damaged|cut short)"):
        Solution.load(path)


def test_a_file_that_has_grown_is_refused(image: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.h5").write_bytes(image + b"\0")
    with pytest.raises(InputError, match="is longer than it was"):
        Solution.load(tmp_path / "a.h5")


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7), early=st.booleans())
def test_every_flipped_bit_is_found(place: float, bit: int, early: bool, image: bytes, tmp_path: Path) -> None:
    damaged = bytearray(image)
    damaged[int(place * (600 if early else len(image)))] ^= 1 << bit
    (tmp_path / "a.h5").write_bytes(damaged)
    with pytest.raises(InputError, match=r"a\.h5"):
        Solution.load(tmp_path / "a.h5")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"hello, this is no HDF5 file", "is not an HDF5 file"),
        (b"\x89HDF\r\n\x1a\n" + bytes(600), "is an HDF5 file, but not one that sciml wrote"),
        (container._header("solution", 99, 512, "0" * 64), "newer version of sciml .format 99; this one reads up to 3"),
        (container._header("checkpoint", 1, 512, "0" * 64), "holds a checkpoint; a solution is needed"),
        (container._header("solution", 1, 512, "0" * 64), "is damaged: its content is no longer what was written"),
        (container._header("solution", 1, 512, "0" * 64).replace(b"solution", b"\xff\xfe!!"), "is damaged: its first"),
        (b"sciml HDF5 file []\n", "is damaged: its first"),
    ],
)
def test_other_files_are_refused_for_what_they_are(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "a.h5").write_bytes(content)
    with pytest.raises(InputError, match=message):
        Solution.load(tmp_path / "a.h5")


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none.h5 cannot be read: No such file"):
        Solution.load(tmp_path / "none.h5")
    with pytest.raises(InputError, match="cannot be read: Is a directory"):
        Solution.load(tmp_path)


def test_a_sound_file_with_another_content_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    container.write(path, storage.KIND, storage.FORMAT, lambda file: file.create_group("sciml"))
    with pytest.raises(InputError, match=r"a\.h5: its content does not have the layout of a solution"):
        Solution.load(path)
    container.write(path, storage.KIND, storage.FORMAT, lambda file: file.__setitem__("sciml/description", "{}"))
    with pytest.raises(InputError, match=r"a\.h5: its content does not have the layout of a solution: .*'batch'"):
        Solution.load(path)


# Writing whole or not at all


def test_paths_that_cannot_become_files_are_refused(tmp_path: Path) -> None:
    solution = make(Grid((4,)))
    with pytest.raises(InputError, match=r"the folder .*none does not exist"):
        solution.save(tmp_path / "none" / "a.h5")
    with pytest.raises(InputError, match=r"a\.txt: a file name ending in \.h5 or \.hdf5 is needed"):
        solution.save(tmp_path / "a.txt")
    (tmp_path / "folder.h5").mkdir()
    with pytest.raises(InputError, match=r"folder\.h5 is a folder"):
        solution.save(tmp_path / "folder.h5")


def test_a_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    os.symlink(tmp_path / "real" / "a.h5", tmp_path / "link.h5")
    make(Grid((4,))).save(tmp_path / "link.h5")
    assert (tmp_path / "link.h5").is_symlink()
    assert (tmp_path / "real" / "a.h5").is_file()


def run(code: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, timeout=60)


FULL_DISK = """
import pathlib, resource, signal
from sciml.files import write_whole
write_whole("a.h5", b"old")
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
try:
    write_whole("a.h5", bytes(100000))
except OSError as error:
    print(error)
print(sorted(path.name for path in pathlib.Path(".").iterdir()), pathlib.Path("a.h5").read_bytes())
"""


def test_a_limit_on_the_file_size_in_the_middle_of_writing_leaves_the_old_file(tmp_path: Path) -> None:
    done = run(FULL_DISK, tmp_path)
    assert "a.h5" in done.stdout.splitlines()[0]
    assert "what stood there before is unharmed" in done.stdout.splitlines()[0]
    assert done.stdout.splitlines()[1] == "['a.h5'] b'old'"


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Any:
    """A file system of 64 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", folder], capture_output=True)
    if mounted.returncode:
        pytest.skip("mounting a file system needs more rights than these")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_full_disk_leaves_the_old_file(tiny_disk: Path) -> None:
    small, large = make(Grid((4,))), make(Grid((60, 60)))
    small.save(tiny_disk / "a.h5")
    with pytest.raises(OSError, match=r"No space left on device.*what stood there before is unharmed") as caught:
        large.save(tiny_disk / "a.h5")
    assert caught.value.filename == str(tiny_disk / "a.h5")
    same(small, Solution.load(tiny_disk / "a.h5"))
    assert [path.name for path in tiny_disk.iterdir()] == ["a.h5"]


KILLED = """
import os, pathlib, signal
from sciml import files
def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)
step = {step!r}
if step == "written":
    os.fsync = die
elif step == "flushed":
    os.replace = die
elif step == "renamed":
    files._flush_folder = die
files.write_whole("a.h5", pathlib.Path("new").read_bytes())
"""


@pytest.mark.parametrize(("step", "survivor"), [("written", "old"), ("flushed", "old"), ("renamed", "new")])
def test_kill_9_at_each_step_leaves_a_whole_file(step: str, survivor: str, tmp_path: Path) -> None:
    kept = {"old": make(Grid((4,)), seed=1), "new": make(Grid((40, 40)), seed=2)}
    kept["new"].save(tmp_path / "new.h5")
    (tmp_path / "new.h5").rename(tmp_path / "new")
    kept["old"].save(tmp_path / "a.h5")
    done = run(KILLED.format(step=step), tmp_path)
    assert done.returncode == -signal.SIGKILL
    same(kept[survivor], Solution.load(tmp_path / "a.h5"))


def test_an_interrupted_write_cleans_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_whole(tmp_path / "a.h5", b"old")

    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_whole(tmp_path / "a.h5", b"new")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"a.h5": b"old"}
