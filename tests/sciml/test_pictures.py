"""What the pictures show is what the solution holds, in its place."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from sciml import Dirichlet, Equation, Grid, InputError, Periodic, Solution, discretize, pictures
from sciml.discretization import discretize_nonlinear

POISSON = Equation("-laplacian(u) = f")


def make(grid: Grid, value: torch.Tensor, equation: Equation = POISSON, **words: Any) -> Solution:
    system = discretize(equation, grid, dict.fromkeys(equation.coefficients, 1.0))
    batch = value.shape[: value.dim() - len(system.operator.space)]
    words = {"codes": torch.zeros(batch, dtype=torch.int64), "history": {}, **words}
    return Solution(value=value, statistics={}, system=system, **words)


def maps(figure: Figure) -> list[Any]:
    """The axes that show a map, in order, without colour bars and curves."""
    return [axes for axes in figure.axes if axes.images]


def shown(axes: Any) -> np.ma.MaskedArray[Any, Any]:
    """The field of a map, its first axis along the abscissa."""
    return np.ma.masked_invalid(axes.images[0].get_array()).T


def test_a_map_shows_the_field_in_its_place() -> None:
    grid = Grid((6, 4), (0, 1), (3, 2), boundary={"x": Periodic(), "y": Dirichlet(0.0)})
    value = torch.rand(6, 4, dtype=torch.float64) + 1
    figure = pictures.draw(make(grid, value))
    (axes,) = maps(figure)
    np.testing.assert_array_equal(shown(axes), value)
    image = axes.images[0]
    assert image.origin == "lower"
    assert image.get_extent() == pytest.approx((-0.25, 2.75, 1, 2))  # a periodic unknown in the middle of its cell
    assert axes.get_aspect() == 1
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("x", "y")
    assert POISSON.latex() in figure.get_suptitle()


@pytest.mark.parametrize(
    ("low", "high", "name", "limits"),
    [
        (-1.0, 2.0, "RdBu_r", (-2.0, 2.0)),
        (1.0, 2.0, "viridis", (1.0, 2.0)),
        (-2.0, -1.0, "viridis", (-2.0, -1.0)),
        (-1e-9, 2.0, "viridis", (-1e-9, 2.0)),  # rounding below zero is no change of sign
        (3.0, 3.0, "viridis", (1.5, 4.5)),
        (0.0, 0.0, "viridis", (-1.0, 1.0)),
    ],
)
def test_the_colours_follow_the_sign(low: float, high: float, name: str, limits: tuple[float, float]) -> None:
    value = torch.linspace(low, high, 20, dtype=torch.float64).reshape(5, 4)
    image = maps(pictures.draw(make(Grid((5, 4)), value)))[0].images[0]
    assert image.get_cmap().name == name
    assert (image.norm.vmin, image.norm.vmax) == pytest.approx(limits)


def test_solid_cells_are_left_out_of_the_map_and_of_the_scale() -> None:
    solid = torch.zeros(5, 4, dtype=torch.bool)
    solid[1:3, 2] = True
    value = torch.rand(5, 4, dtype=torch.float64) + 5
    axes = maps(pictures.draw(make(Grid((5, 4), solid=solid), value.masked_fill(solid, 0.0))))[0]
    np.testing.assert_array_equal(np.ma.getmaskarray(shown(axes)), solid)
    assert axes.images[0].norm.vmin > 5
    red, green, blue, _ = axes.get_facecolor()
    assert red == green == blue


def test_a_batch_shows_its_first_rows_on_one_scale_and_names_those_that_failed() -> None:
    value = torch.arange(5.0, dtype=torch.float64)[:, None, None] + torch.rand(5, 4, 4, dtype=torch.float64)
    figure = pictures.draw(make(Grid((4, 4)), value, codes=torch.tensor([0, 1, 0, 0, 0])))
    shown_rows = maps(figure)
    assert len(shown_rows) == pictures.MOST_ROWS
    for row, axes in enumerate(shown_rows):
        np.testing.assert_array_equal(shown(axes), value[row])
        assert axes.images[0].norm is shown_rows[0].images[0].norm
    assert [axes.get_title(loc="left") for axes in shown_rows] == ["row 0", "row 1 (MAX_ITERATIONS)", "row 2"]


def test_several_unknowns_have_panels_and_scales_of_their_own() -> None:
    equation = Equation(["-laplacian(u) + v = 0", "-laplacian(v) = 1"], unknowns=["u", "v"])
    value = torch.rand(2, 2, 4, 4, dtype=torch.float64)
    figure = pictures.draw(make(Grid((4, 4)), value, equation))
    panels = maps(figure)
    assert [axes.get_title(loc="left") for axes in panels] == ["u, row 0", "v, row 0", "u, row 1", "v, row 1"]
    for axes, (row, channel) in zip(panels, [(0, 0), (0, 1), (1, 0), (1, 1)], strict=True):
        np.testing.assert_array_equal(shown(axes), value[row, channel])
    assert panels[0].images[0].norm is panels[2].images[0].norm
    assert panels[0].images[0].norm is not panels[1].images[0].norm


def test_three_dimensions_show_the_planes_through_the_middle() -> None:
    grid = Grid((6, 4, 8), (0, 0, 0), (3, 2, 4))
    value = torch.rand(6, 4, 8, dtype=torch.float64)
    panels = maps(pictures.draw(make(grid, value)))
    for axes, plane in zip(panels, (value[:, :, 4], value[:, 2, :], value[3]), strict=True):
        np.testing.assert_array_equal(shown(axes), plane)
    assert [(axes.get_xlabel(), axes.get_ylabel()) for axes in panels] == [("x", "y"), ("x", "z"), ("y", "z")]
    assert [axes.get_title(loc="left") for axes in panels] == ["z = 2.25", "y = 1.25", "x = 1.75"]


def test_lines_have_gaps_at_obstacles() -> None:
    solid = torch.tensor([False, False, True, True, False, False])
    grid = Grid((6,), (0,), (3,), solid=solid)
    value = torch.rand(2, 6, dtype=torch.float64)
    axes = pictures.draw(make(grid, value)).axes[0]
    for line, row in zip(axes.lines, value, strict=True):
        np.testing.assert_array_equal(line.get_xdata(), grid.coordinates[0])
        np.testing.assert_array_equal(line.get_ydata(), row.masked_fill(solid, float("nan")))
    (patch,) = axes.patches
    assert (patch.get_x(), patch.get_x() + patch.get_width()) == (1.0, 2.0)
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["row 0", "row 1"]


def test_the_history_is_that_of_the_worst_row() -> None:
    norms = torch.tensor([[1.0, 2.0], [0.5, 0.1], [0.0, 0.0]], dtype=torch.float64)
    solution = make(Grid((4, 4)), torch.rand(2, 4, 4, dtype=torch.float64), history={"residual_norm": norms})
    figure = pictures.draw(solution, history=True)
    curve = next(axes for axes in figure.axes if axes.get_yscale() == "log")
    np.testing.assert_array_equal(curve.lines[0].get_ydata(), [1.0, 0.5, float("nan")])
    assert not any(axes.get_yscale() == "log" for axes in pictures.draw(solution).axes)


@pytest.mark.parametrize(("text", "name"), [("-laplacian(u) = f", "|b - A x|"), ("-laplacian(u) = u**2", "|F(u)|")])
def test_the_history_of_a_nonlinear_equation_is_that_of_its_residual(text: str, name: str) -> None:
    equation = Equation(text)
    system = (discretize if equation.linear else discretize_nonlinear)(
        equation, Grid((4, 4)), dict.fromkeys(equation.coefficients, 1.0)
    )
    history = {"residual_norm": torch.tensor([1.0, 0.5])}
    codes = torch.zeros((), dtype=torch.int64)
    solution = Solution(torch.rand(4, 4, dtype=torch.float64), codes, {}, history, system=system)
    labels = [axes.get_ylabel() for axes in pictures.draw(solution, history=True).axes]
    assert any(label.startswith(f"residual {name}") for label in labels)


@pytest.mark.parametrize(
    ("latex", "expected"),
    [
        (r"\exp\left(u\right)", r"\exp(u)"),
        (r"\left(\left(1 + u^{2}\right) \nabla u\right)", r"\left(\left(1 + u^{2}\right) \nabla u\right)"),
        (r"\left(\sin\left(x\right)\right)^{2}", r"(\sin(x))^{2}"),
        (r"\left(\frac{u}{2}\right) \left(x\right)", r"\left(\frac{u}{2}\right) (x)"),
    ],
)
def test_parentheses_around_low_letters_are_not_shrunk(latex: str, expected: str) -> None:
    assert pictures.mathtext(latex) == expected


def test_histories_of_methods_are_compared() -> None:
    figure = pictures.draw_history({"CG": torch.logspace(0, -8, 50), "multigrid": torch.logspace(0, -8, 6)})
    (axes,) = figure.axes
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["CG", "multigrid"]
    assert [len(line.get_xdata()) for line in axes.lines] == [50, 6]
    with pytest.raises(InputError, match="no history"):
        pictures.draw_history({})


@pytest.mark.parametrize(("ending", "start"), [("png", b"\x89PNG"), ("pdf", b"%PDF"), ("svg", b"<?xml")])
def test_formats(ending: str, start: bytes, tmp_path: Path) -> None:
    path = tmp_path / f"a.{ending}"
    make(Grid((4, 4)), torch.rand(4, 4, dtype=torch.float64)).plot(path)
    assert path.read_bytes().startswith(start)
    assert [item.name for item in tmp_path.iterdir()] == [path.name]


def test_refusals(tmp_path: Path) -> None:
    solution = make(Grid((4, 4)), torch.full((4, 4), float("nan"), dtype=torch.float64))
    with pytest.raises(InputError, match="'u' has no finite value"):
        solution.plot(tmp_path / "a.png")
    with pytest.raises(InputError, match=r"ending in \.png or \.pdf or \.svg"):
        make(Grid((4,)), torch.ones(4, dtype=torch.float64)).plot(tmp_path / "a.gif")


def test_the_global_state_of_matplotlib_is_left_alone() -> None:
    code = (
        "import sys, matplotlib; before = dict(matplotlib.rcParams);"
        "from sciml import pictures; import torch; pictures.encode(pictures.draw_history({'a': torch.ones(3)}));"
        "assert 'matplotlib.pyplot' not in sys.modules; assert dict(matplotlib.rcParams) == before"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
