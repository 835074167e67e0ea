"""Evolutions come back from files bit for bit, with what their equation, walls and fields were at their times."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import pytest
import torch
from torch import Tensor

from sciml import (
    Dirichlet,
    Equation,
    FiniteElement,
    FiniteVolume,
    Grid,
    InputError,
    Mesh,
    Neumann,
    Periodic,
    Robin,
    Solution,
    Spectral,
    container,
    evolve,
    solve,
    storage,
)
from sciml.solvers.time import Event, ImplicitRungeKutta
from sciml.trajectories import take

TIMES = (0.0, 0.03, 0.1)


def same_bits(one: Any, other: Any) -> None:
    if isinstance(one, Tensor):
        assert (one.dtype, one.shape) == (other.dtype, other.shape)
        assert one.detach().contiguous().numpy().tobytes() == other.contiguous().numpy().tobytes()
    else:
        assert one == other


def there_and_back(solution: Solution, path: Path) -> Solution:
    """Through a file, everything that a solution holds compared."""
    solution.save(path)
    found = Solution.load(path)
    for name in ("value", "codes", "times", "method", "notes", "versions", "unknowns"):
        same_bits(getattr(solution, name), getattr(found, name))
    for name in ("statistics", "history", "fields"):
        assert list(getattr(solution, name)) == list(getattr(found, name))
        for key, item in getattr(solution, name).items():
            same_bits(item, getattr(found, name)[key])
    assert len(solution.events) == len(found.events)
    for one, other in zip(solution.events, found.events, strict=True):
        for key, item in one.items():
            same_bits(item, other[key])
    assert repr(found) == repr(solution)
    assert type(found.system) is type(solution.system)
    assert found.equation == solution.equation
    return found


def same_rates(one: Solution, other: Solution) -> None:
    """The rebuilt system has the same rate at every time of the solution, to the last bit."""
    assert one.times is not None
    for place, t in enumerate(one.times.tolist()):
        u = one.value.select(one.codes.ndim, place)
        same_bits(one.system.rate(u, t), other.system.rate(u, t))  # type: ignore[union-attr]


def spectral(**words: Any) -> Solution:
    grid = Grid((16, 12), (0.0, 1.0), (2 * math.pi, 3.0), boundary=Periodic())
    flow = Equation(
        "w_t = psi_x*w_y - psi_y*w_x + nu*laplacian(w) + f",
        constraints=["laplacian(psi) = -w"],
        parameters={"nu": 0.01},
    )
    return evolve(
        flow,
        grid,
        fields={"f": lambda x, y, t: torch.cos(x) * torch.sin(t)},
        parameters={"nu": torch.tensor([0.01, 0.02], dtype=torch.float64)},
        initial=lambda x, y: torch.cos(x) * torch.cos(math.pi * y),
        times=TIMES,
        **words,
    )


def walled() -> Solution:
    solid = torch.zeros(10, 8, dtype=torch.bool)
    solid[4:6, 3:5] = True
    grid = Grid(
        (10, 8),
        (0.0, 0.0),
        (1.0, 1.0),
        boundary={
            "x": (Dirichlet(lambda x, y, t: y + t), Robin(2.0, lambda x, y, t: torch.sin(t) * y)),
            "y": (Neumann(lambda x, y, t: x * t), Dirichlet(lambda x, y: x)),
        },
        solid=solid,
        walls=Dirichlet(lambda x, y, t: x - t),
    )
    return evolve(
        Equation("u_t = div(a*grad(u)) - u**3 + f"),
        grid,
        fields={"a": lambda x, y: 1 + x, "f": lambda x, y, t: x * t},
        initial=lambda x, y: x * y,
        times=TIMES,
        scheme=FiniteVolume(),
    )


def plain_wave() -> Solution:
    grid = Grid((24,), (0.0,), (1.0,), boundary={"x": (Dirichlet(lambda x, t: torch.sin(3 * t)), Neumann(0.0))})
    return evolve(Equation("u_tt = u_xx"), grid, initial={"u": 0.0, "u_t": 0.0}, times=TIMES)


def square() -> Mesh:
    mesh = Mesh.box((5, 4), (0.0, 0.0), (1.0, 1.0))
    return mesh.with_boundaries({"left": lambda x, y: x < 1e-9, "a/b": lambda x, y: x > 1 - 1e-9})


def on_mesh() -> Solution:
    return evolve(
        Equation("c*u_t = div((1 + u**2)*grad(u)) + f"),
        square(),
        fields={"f": lambda x, y, t: x + t, "c": lambda x, y: 1 + x},
        initial=lambda x, y: x * (1 - x) + y,
        boundary={
            "left": Dirichlet(lambda x, y, t: y + t),
            "a/b": Robin(lambda x, y, t: 1 + t, lambda x, y, t: torch.cos(t) * y),
            "rest": Neumann(0.0),
        },
        times=TIMES,
        method=ImplicitRungeKutta.sdirk2(),
        step=0.01,
        scheme=FiniteElement(lumped=True),
    )


def mesh_wave() -> Solution:
    return evolve(
        Equation("u_tt = laplacian(u)"),
        square(),
        initial={"u": lambda x, y: x * y, "u_t": 0.0},
        boundary={"left": Dirichlet(0.0), "rest": Neumann(0.0)},
        times=TIMES,
    )


def ordinary() -> Solution:
    lorenz = Equation(
        ["x_t = s*(y - x)", "y_t = x*(28 - z) - y + g", "z_t = x*y - z*8/3"], parameters={"s": 10.0}, coordinates=()
    )
    start = torch.randn(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    return evolve(
        lorenz,
        fields={"g": lambda t: 0.1 * t},
        parameters={"s": torch.linspace(9.0, 10.0, 4, dtype=torch.float64)},
        initial=start,
        times=(0.0, 0.5, 1.0),
        events=Event(lambda u, t: u[..., 0], stop=False),
    )


CASES: dict[str, Callable[[], Solution]] = {
    "spectral": spectral,
    "spectral, finer products": lambda: spectral(scheme=Spectral(dealias="3/2")),
    "walls that move": walled,
    "second order": plain_wave,
    "mesh": on_mesh,
    "mesh, second order": mesh_wave,
    "ordinary": ordinary,
}


@pytest.mark.parametrize("case", CASES)
def test_everything_comes_back_bit_for_bit(case: str, tmp_path: Path) -> None:
    solution = CASES[case]()
    found = there_and_back(solution, tmp_path / "run.h5")
    same_rates(solution, found)
    assert found.times is not None
    if found.domain is not None:
        points = [[0.3] * found.domain.dimension, [0.7] * found.domain.dimension]
        if case.startswith("spectral"):
            points = [[0.3, 1.1], [0.7, 2.9]]
        same_bits(solution.at(points), found.at(points))
        same_bits(solution.gradient(), found.gradient())
        same_bits(solution.integral(), found.integral())
    if case in ("walls that move", "mesh"):
        for name in found.domain.boundaries:  # type: ignore[union-attr]
            same_bits(solution.flux(name), found.flux(name))
    # A second time through a file.
    found.save(tmp_path / "again.h5")
    same_bits(Solution.load(tmp_path / "again.h5").value, solution.value)


def test_a_file_is_gone_on_with(tmp_path: Path) -> None:
    equation = Equation("u_t = -u*u_x + 0.1*u_xx")
    grid = Grid((32,), (0.0,), (2 * math.pi,), boundary=Periodic())
    whole = evolve(equation, grid, initial=torch.sin, times=(0.0, 0.5, 1.0), step=0.05)
    first = evolve(equation, grid, initial=torch.sin, times=(0.0, 0.5), step=0.05)
    first.save(tmp_path / "first.h5")
    second = evolve(equation, grid, initial=Solution.load(tmp_path / "first.h5"), times=(0.5, 1.0), step=0.05)
    torch.testing.assert_close(second.value[-1], whole.value[-1], rtol=0, atol=1e-13)


def test_functions_of_the_time_are_known_at_the_times_of_the_file_only(tmp_path: Path) -> None:
    solution = plain_wave()
    solution.save(tmp_path / "wave.h5")
    found = Solution.load(tmp_path / "wave.h5")
    with pytest.raises(InputError, match=r"at the 3 times of the solution only, and not at t = 0\.05"):
        found.system.rate(found.value[-1], 0.05)  # type: ignore[union-attr]


def test_the_layout_has_an_axis_of_time(tmp_path: Path) -> None:
    solution = spectral()
    solution.save(tmp_path / "run.h5")
    with h5py.File(tmp_path / "run.h5") as file:
        assert file.attrs["n_trajectories"] == 2
        assert file["dimensions/time"][()].tolist() == list(TIMES)
        assert sorted(file["t0_fields"]) == ["f", "psi", "w"]
        for name in ("w", "psi"):
            assert file[f"t0_fields/{name}"].shape == (2, 3, 16, 12)
            assert bool(file[f"t0_fields/{name}"].attrs["time_varying"])
        assert file["t0_fields/f"].shape == (3, 16, 12)
        assert bool(file["t0_fields/f"].attrs["time_varying"])
        assert not bool(file["t0_fields/f"].attrs["sample_varying"])


def test_constraints_off_periodic_grids_are_kept_and_not_solved_again(tmp_path: Path) -> None:
    flow = Equation(
        "w_t = psi_x*w_y - psi_y*w_x + nu*laplacian(w)", constraints=["laplacian(psi) = -w"], parameters={"nu": 0.01}
    )
    grid = Grid((10, 10), (0.0, 0.0), (1.0, 1.0), boundary=Dirichlet(0.0))
    solution = evolve(flow, grid, initial=lambda x, y: x * y, times=(0.0, 0.1))
    found = there_and_back(solution, tmp_path / "run.h5")
    same_bits(solution.at([[0.2, 0.3]]), found.at([[0.2, 0.3]]))
    same_bits(solution.flux("x_lower"), found.flux("x_lower"))
    same_bits(take(found, [-1]).flux("x_lower"), found.flux("x_lower")[-1:])
    same_bits(copy.deepcopy(found).fields["psi"], found.fields["psi"])
    with pytest.raises(InputError, match=r"without a solver for its constraints: make it again by sciml\.discretize"):
        found.system.rate(found.value[-1], 0.0)  # type: ignore[union-attr]


def test_rows_that_failed_and_float32(tmp_path: Path) -> None:
    growth = Equation("u_t = u**2", coordinates=())
    solution = evolve(growth, initial=torch.tensor([0.1, 2.0], dtype=torch.float32), times=(0.0, 0.4, 1.0), throw=False)
    assert solution.status[0].name == "CONVERGED"
    assert bool(solution.value[1, -1].isnan())
    found = there_and_back(solution, tmp_path / "run.h5")
    assert found.status == solution.status


def test_steady_files_of_the_format_before_are_read(tmp_path: Path) -> None:
    grid = Grid((6, 5), (0.0, 0.0), (1.0, 1.0), boundary=Dirichlet(0.0))
    solution = solve(Equation("-laplacian(u) = f"), grid, fields={"f": 1.0})
    solution.save(tmp_path / "new.h5")

    def fill(file: h5py.File) -> None:
        with h5py.File(tmp_path / "new.h5") as new:
            for name in new:
                new.copy(name, file)
            description = json.loads(new["sciml/description"].asstr()[()])
        for word in ("evolving", "times", "events"):
            del description[word]
        del file["sciml/description"]
        file["sciml/description"] = json.dumps(description)

    container.write(tmp_path / "old.h5", storage.KIND, 2, fill)
    same_bits(solution.value, Solution.load(tmp_path / "old.h5").value)


@pytest.mark.parametrize("seed", range(12))
def test_a_changed_bit_and_a_cut_are_refused(seed: int, tmp_path: Path) -> None:
    path = tmp_path / "run.h5"
    ordinary().save(path)
    data = bytearray(path.read_bytes())
    place = int(torch.randint(0, len(data), (1,), generator=torch.Generator().manual_seed(seed)))
    if seed % 2:
        data[place] ^= 1 << seed % 8
    else:
        del data[place:]
    path.write_bytes(bytes(data))
    with pytest.raises(InputError):
        Solution.load(path)
