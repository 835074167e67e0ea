"""Pictures and animations of evolutions show the values they are of, and files for ParaView hold them."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import meshio
import numpy as np
import pytest
import torch
from matplotlib.animation import FFMpegWriter
from matplotlib.collections import QuadMesh
from PIL import Image, ImageSequence

from sciml import Dirichlet, Equation, Grid, InputError, Mesh, Neumann, Periodic, Solution, evolve, paraview
from sciml.pictures_of_evolutions import chosen_times, draw

HEAT = Equation("u_t = laplacian(u)")


def on_ring(count: int) -> Solution:
    grid = Grid((16,), (0.0,), (2 * math.pi,), boundary=Periodic())
    return evolve(HEAT, grid, initial=torch.sin, times=torch.linspace(0, 1, count), step=0.1)


def on_plate() -> Solution:
    solid = torch.zeros(8, 6, dtype=torch.bool)
    solid[3, 2] = True
    grid = Grid((8, 6), (0.0, 0.0), (2.0, 1.5), boundary={"x": Dirichlet(1.0), "y": Neumann(0.0)}, solid=solid)
    return evolve(HEAT, grid, initial=torch.tensor([[[0.0]], [[2.0]]], dtype=torch.float64), times=(0.0, 0.1, 0.5))


def on_mesh(dimension: int) -> Solution:
    mesh = Mesh.box((3,) * dimension, (0.0,) * dimension, (1.0,) * dimension)
    return evolve(HEAT, mesh, initial=0.0, boundary={"exterior": Dirichlet(1.0)}, times=(0.0, 0.01, 0.05))


def ordinary() -> Solution:
    turn = Equation(["x_t = -y", "y_t = x"], coordinates=())
    return evolve(turn, initial={"x": 1.0, "y": 0.0}, times=torch.linspace(0, 3, 20))


def test_a_space_time_picture_holds_every_value() -> None:
    solution = on_ring(12)
    (mesh,) = (part for axes in draw(solution).axes for part in axes.collections if isinstance(part, QuadMesh))
    np.testing.assert_allclose(np.asarray(mesh.get_array()), solution.value.T.numpy())


def test_few_times_are_profiles() -> None:
    solution = on_ring(4)
    axes = draw(solution).axes[0]
    assert [line.get_label() for line in axes.lines] == ["$t = 0$", "$t = 0.3333$", "$t = 0.6667$", "$t = 1$"]
    for line, profile in zip(axes.lines, solution.value, strict=True):
        np.testing.assert_allclose(np.asarray(line.get_ydata()), profile.numpy())


def test_snapshots_have_one_scale_of_colours() -> None:
    figure = draw(on_plate())
    images = [image for axes in figure.axes for image in axes.images]
    assert len(images) == 6  # two rows of the batch, three times
    assert {(image.norm.vmin, image.norm.vmax) for image in images} == {(0.0, 2.0)}
    assert bool(np.ma.getmaskarray(images[0].get_array())[2, 3])  # solid


def test_curves_and_their_phase_picture() -> None:
    solution = ordinary()
    x, y, phase = draw(solution).axes
    np.testing.assert_allclose(np.asarray(x.lines[0].get_ydata()), solution.fields["x"].numpy())
    np.testing.assert_allclose(np.asarray(y.lines[0].get_xdata()), solution.times.numpy())  # type: ignore[union-attr]
    radius = np.hypot(*np.asarray(phase.lines[0].get_data()))
    np.testing.assert_allclose(radius, 1.0, atol=1e-5)


def test_times_are_chosen_with_their_ends() -> None:
    assert chosen_times([0.0, 1.0, 2.0], 6) == [0, 1, 2]
    assert chosen_times([float(k) for k in range(101)], 6) == [0, 20, 40, 60, 80, 100]
    assert chosen_times([0.0, 0.01, 0.02, 0.03, 0.04, 0.05, 10.0], 4) == [0, 2, 4, 6]


@pytest.mark.parametrize("make", [lambda: on_ring(4), on_plate, lambda: on_mesh(2), lambda: on_mesh(3), ordinary])
def test_animations_have_a_frame_a_time(make, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    solution = make()
    path = tmp_path / "film.gif"
    solution.plot(path)
    with Image.open(path) as film:
        frames = sum(1 for _ in ImageSequence.Iterator(film))
        film.seek(0)
        assert frames == len(solution.times)
        first = np.asarray(film.convert("RGB")).copy()
        film.seek(frames - 1)
        assert not np.array_equal(first, np.asarray(film.convert("RGB")))
    assert [part.name for part in tmp_path.iterdir()] == ["film.gif"]


def test_films_need_ffmpeg(tmp_path: Path) -> None:
    if FFMpegWriter.isAvailable():
        ordinary().plot(tmp_path / "film.mp4")
        assert (tmp_path / "film.mp4").stat().st_size > 0
        return
    with pytest.raises(InputError, match=r"needs the program ffmpeg.*write a \.gif"):
        ordinary().plot(tmp_path / "film.mp4")


def test_what_is_not_finite_is_not_drawn(tmp_path: Path) -> None:
    solution = ordinary()
    empty = Solution(solution.value * math.nan, solution.codes, {}, {}, system=solution.system, times=solution.times)
    with pytest.raises(InputError, match="nothing to draw"):
        empty.plot(tmp_path / "a.png")


def entries(path: Path) -> dict[float, Path]:
    found = ElementTree.parse(path).getroot().iter("DataSet")
    return {float(entry.attrib["timestep"]): path.parent / entry.attrib["file"] for entry in found}


def test_a_series_for_paraview_on_a_mesh(tmp_path: Path) -> None:
    solution = on_mesh(2)
    files = paraview.write(solution, tmp_path / "part.pvd")
    series = entries(tmp_path / "part.pvd")
    assert list(series) == solution.times.tolist()  # type: ignore[union-attr]
    assert sorted(files) == sorted([tmp_path / "part.pvd", *series.values()])
    for place, path in enumerate(series.values()):
        np.testing.assert_array_equal(meshio.read(path).point_data["u"], solution.value[place].numpy())


def test_a_series_for_paraview_on_a_grid_has_a_file_a_row(tmp_path: Path) -> None:
    solution = on_plate()
    paraview.write(solution, tmp_path / "plate.pvd")
    for row in (0, 1):
        series = entries(tmp_path / f"plate_{row}.pvd")
        assert list(series) == [0.0, 0.1, 0.5]
        assert all(path.read_bytes().startswith(b'<?xml version="1.0"?>') for path in series.values())
    with pytest.raises(InputError, match=r"\.pvd is needed"):
        paraview.write(solution, tmp_path / "plate.vti")
