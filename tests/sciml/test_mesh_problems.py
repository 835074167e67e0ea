"""Problem files on meshes, with scans, tensors, nonlinear equations: they become the right problem, or are refused."""

from __future__ import annotations

import copy
import math
import tomllib
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sciml import Dirichlet, FiniteElement, InputError, Mesh, Neumann, Robin, problem_file, solve
from sciml.solvers import linear, nonlinear
from sciml.solvers.nonlinear import Backtracking, Continuation, EisenstatWalker, Newton, Picard

METHODS = {name: getattr(kind, name) for kind in (linear, nonlinear) for name in kind.__all__}

FULL = """
[equation]
text = "-div(a*grad(u)) + b*u = f"

[domain]
mesh = "part.msh"
refine = 1
device = "cpu"
dtype = "float64"

[domain.boundaries]
inlet = "x < 1e-9 and y < 0.5 + 1e-9"
outlet = "x > 2 - 1e-9"

[domain.regions]
core = "(x - 1)**2 + (y - 0.5)**2 < 0.1"

[boundary]
inlet = { kind = "dirichlet", value = "1 + y" }
outlet = { kind = "robin", coefficient = 2.0, value = "x*y" }
rest = { kind = "neumann", flux = 0 }

[fields]
a = { core = 10, rest = 1.0 }
b = "x*y"
f = { file = "arrays.h5", dataset = "cells" }

[scheme]
name = "finite_element"
lumped = true

[solver]
method = { name = "GMRES", preconditioner = "ILU0" }

[output]
formats = ["h5", "vtu", "xdmf"]
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    part = Mesh.box((8, 4), (0.0, 0.0), (2.0, 1.0)).with_boundaries({"upper half": lambda x, y: y > 0.5 - 1e-9})
    part.write(tmp_path / "part.msh")
    with h5py.File(tmp_path / "arrays.h5", "w") as file:
        fine = part.refine()
        file["cells"] = np.arange(len(fine.cells))
        file["points"] = np.ones((3, len(fine.points)))
        file["wrong"] = np.ones(7)
    (tmp_path / "cut.msh").write_bytes((tmp_path / "part.msh").read_bytes()[:600])
    (tmp_path / "text.msh").write_text("no mesh")
    return tmp_path


def read(folder: Path, text: str) -> problem_file.Problem:
    (folder / "problem.toml").write_text(text, encoding="utf-8")
    return problem_file.read(folder / "problem.toml", METHODS)


def changed(line: str, new: str) -> str:
    assert FULL.count(line) == 1
    return FULL.replace(line, new)


def test_a_full_file(folder: Path) -> None:
    problem = read(folder, FULL)
    mesh = problem.domain
    assert isinstance(mesh, Mesh)
    assert (len(mesh.cells), mesh.dtype) == (256, torch.float64)
    centres = mesh.facet_centres
    assert set(mesh.boundary("inlet").tolist()) == set(
        ((centres[:, 0] < 1e-9) & (centres[:, 1] < 0.5)).nonzero().flatten().tolist()
    )
    x, y = mesh.cell_centres.unbind(1)
    assert mesh.region("core").tolist() == ((x - 1) ** 2 + (y - 0.5) ** 2 < 0.1).nonzero().flatten().tolist()
    conditions: Any = problem.boundary
    assert list(conditions) == ["inlet", "outlet", "rest"]
    assert isinstance(conditions["inlet"], Dirichlet)
    assert torch.equal(conditions["inlet"].value(x, y), 1 + y)  # type: ignore[operator]
    assert isinstance(conditions["outlet"], Robin)
    assert conditions["outlet"].coefficient == 2.0
    assert torch.equal(conditions["outlet"].value(x, y), x * y)  # type: ignore[operator]
    assert conditions["rest"] == Neumann(0.0)
    assert problem.fields["a"] == {"core": 10.0, "rest": 1.0}
    assert torch.equal(problem.fields["b"](x, y), x * y)
    assert torch.equal(problem.fields["f"], torch.arange(256, dtype=torch.float64))
    assert problem.scheme == FiniteElement(lumped=True)
    assert problem.method == linear.GMRES(preconditioner=linear.ILU0())
    assert problem.formats == ("h5", "vtu", "xdmf")


def test_a_box_and_what_is_left_out(folder: Path) -> None:
    box = "mesh = { shape = [2, 3, 1], lower = [0, 0, 0], upper = [1, 3, 1] }"
    problem = read(
        folder,
        f"""
        equation.text = "-laplacian(u) = 1"
        domain.{box}
        boundary.rest = {{ kind = "dirichlet", value = 0 }}
        """,
    )
    assert isinstance(problem.domain, Mesh)
    assert torch.equal(problem.domain.points, Mesh.box((2, 3, 1), (0, 0, 0), (1, 3, 1)).points)
    assert problem.boundary == {"rest": Dirichlet(0.0)}
    assert problem.formats == ("h5", "png", "vtu")


def test_conditions_by_unknown(folder: Path) -> None:
    problem = read(
        folder,
        """
        [equation]
        text = ["-laplacian(u) + v = 0", "-laplacian(v) = 1"]
        unknowns = ["u", "v"]
        [domain]
        mesh = { shape = [2, 2], lower = [0, 0], upper = [1, 1] }
        [boundary]
        x_lower = { kind = "dirichlet", value = 1 }
        rest = { kind = "neumann", flux = 0 }
        [boundary.unknowns.v]
        x_lower = { kind = "dirichlet", value = 2 }
        y_lower = { kind = "robin", coefficient = 1, value = 0 }
        """,
    )
    assert problem.boundary == {
        "u": {"x_lower": Dirichlet(1.0), "rest": Neumann(0.0)},
        "v": {"x_lower": Dirichlet(2.0), "y_lower": Robin(1.0, 0.0), "rest": Neumann(0.0)},
    }


def test_a_boundary_may_be_called_unknowns(folder: Path) -> None:
    text = changed('outlet = "x', 'unknowns = "x').replace("outlet = {", "unknowns = {")
    assert list(read(folder, text).boundary) == ["inlet", "unknowns", "rest"]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("line", "new", "message"),
    [
        ("part.msh", "prat.msh", "problem.toml, [domain] mesh: there is no file 'prat.msh' beside problem.toml"),
        ("part.msh", "cut.msh", "[domain] mesh: "),
        ("part.msh", "text.msh", "text.msh: not a mesh file, or a damaged one"),
        ("part.msh", "arrays.h5", "[domain] mesh: "),
        ('"part.msh"', "3", "problem.toml, [domain] mesh: input should be a valid string, not 3"),
        ('"part.msh"', "{ shape = [2, 2], lower = [0, 0] }", "problem.toml, [domain.mesh]: 'upper' is missing"),
        ('"part.msh"', "{ shape = [2, 2], lowr = [0, 0] }", "[domain.mesh]: unknown key 'lowr'; did you mean 'lower'?"),
        ('"part.msh"', "{ shape = [2], lower = [0], upper = [1] }", "problem.toml, [domain] mesh: "),
        ('"part.msh"', "{ shape = [9000000, 900000, 1], lower = [0, 0, 0], upper = [1, 1, 1] }", "fit in no memory"),
        ("refine = 1", "refine = -1", "problem.toml, [domain] refine: input should be greater than or equal to 0"),
        ("refine = 1", "shape = [3, 3]", "[domain]: unknown key 'shape'; the box of a mesh is given as mesh = { shape"),
        ("refine = 1", 'solid = "x < 1"', "[domain]: unknown key 'solid': it belongs to a grid, and the domain is a m"),
        ("refine = 1", "refin = 1", "problem.toml, [domain]: unknown key 'refin'; did you mean 'refine'?"),
        ("x < 1e-9 and", "x < 1e-9 &", "problem.toml, [domain.boundaries] inlet: write 'and'"),
        ("x < 1e-9 and", "x < -1 and", "[domain.boundaries] inlet: Mesh: boundaries['inlet'] is true for no exte"),
        ("(x - 1)**2", "x - 3 > 0 and (x - 1)**2", "[domain.regions] core: Mesh: regions['core'] is true for no cell"),
        ("(x - 1)**2", "log(x - 1)", "problem.toml, [domain.regions] core: 'log(x - 1) + (y - 0.5)**2' is not f"),
        ('inlet = "x', 'rest = "x', "[domain.boundaries] rest: 'rest' stands for what the other names leave"),
        ('inlet = "x', 'exterior = "x', "[domain.boundaries] exterior: Mesh: the boundary 'exterior' is always all"),
        ("inlet = {", "inlte = {", "problem.toml, [boundary]: the mesh has no boundary 'inlte', but x_lower, "),
        ("rest = {", "all = {", "rest is what is left, also where that is all"),
        ("rest = {", "y_upper = {", "problem.toml, [boundary]: u: nothing is said about 20 of 48 facets (x from 0"),
        ("rest = {", "exterior = {", "problem.toml, [boundary]: u: 12 facets belong to more than one of inlet"),
        ("rest = {", "unknowns.v.rest = {", "problem.toml, [boundary]: the equation has no unknown 'v'"),
        ('"neumann", flux = 0', '"periodic"', "[boundary]: u['rest']: Periodic() belongs to the axes of a grid"),
        ("coefficient = 2.0, ", "", "[boundary.outlet]: a robin condition takes coefficient and value, not value"),
        ("core = 10", "cor = 10", "[fields] a: the mesh has no region 'cor', but core; did you mean 'core'?"),
        ("core = 10", 'core = "x"', "problem.toml, [fields.a]: unknown key 'core'"),
        (", rest = 1.0", "", "field 'a'"),
        ('"cells"', '"wrong"', "[fields] f: arrays.h5: 'wrong' has shape (7,), expected (*batch, 153), a value a"),
        ('["h5", "vtu", "xdmf"]', '["vti"]', "[output] formats: 'vti' is for grids, and the domain is a mesh: take h5"),
        ("lumped", "lumpd", "[scheme]: FiniteElement: unknown argument 'lumpd'; did you mean 'lumped'?"),
    ],
)  # fmt: skip
def test_refusals_name_the_place(line: str, new: str, message: str, folder: Path) -> None:
    with pytest.raises(InputError) as caught:
        problem = read(folder, changed(line, new))
        solve(problem.equation, problem.domain, fields=problem.fields, boundary=problem.boundary, scheme=problem.scheme)
    first, *rest = str(caught.value).splitlines()
    assert message in first
    assert not rest or rest[-1].strip() == "^"


# Scans


CUBE = """
[equation]
text = "-laplacian(u) = 1"
[domain]
shape = [8, 8, 8]
lower = [0, 0, 0]
upper = [1, 1, 1]
solid = { surface = "cube.stl" }
"""


def write_cube(path: Path, low: float, high: float, faces: int = 12) -> None:
    mesh = Mesh.box((1, 1, 1), low, high)
    corners = mesh.points[mesh.facets[:faces]].tolist()
    lines = ["solid cube"]
    for triangle in corners:
        lines += ["facet normal 0 0 0", "outer loop", *(f"vertex {x} {y} {z}" for x, y, z in triangle), "endloop"]
        lines += ["endfacet"]
    path.write_text("\n".join([*lines, "endsolid cube"]))


def test_a_scan_becomes_solid_cells(tmp_path: Path) -> None:
    write_cube(tmp_path / "cube.stl", 0.3, 0.7)
    problem = read(tmp_path, CUBE)
    inside = torch.stack([(c > 0.3) & (c < 0.7) for c in problem.domain.coordinates]).all(0)
    assert int(inside.sum()) == 64
    assert torch.equal(problem.domain.solid, inside)  # type: ignore[union-attr, arg-type]


def test_a_scan_with_a_hole_needs_another_method(tmp_path: Path) -> None:
    write_cube(tmp_path / "cube.stl", 0.3, 0.7, faces=11)
    with pytest.raises(InputError, match=r"problem\.toml, \[domain\] solid: .*3 .*open"):
        read(tmp_path, CUBE)
    problem = read(tmp_path, CUBE.replace('"cube.stl"', '"cube.stl", method = "winding"'))
    assert problem.domain.solid is not None  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("cube.stl", "cub.stl"), "problem.toml, [domain] solid: there is no file 'cub.stl' beside problem.toml"),
        (('"cube.stl"', '"cube.stl", method = "rays"'), "[domain.solid] method: input should be 'parity' or 'winding'"),
        (('"cube.stl"', '"cube.stl", methd = "parity"'), "[domain.solid]: unknown key 'methd'; did you mean 'method'?"),
        (("[8, 8, 8]", "[8, 8, 4]"), None),
        (("upper = [1, 1, 1]", "upper = [0.2, 0.2, 0.2]"), "problem.toml, [domain] solid: voxelize: "),
    ],
)
def test_refusals_of_scans(change: tuple[str, str], message: str | None, tmp_path: Path) -> None:
    write_cube(tmp_path / "cube.stl", 0.3, 0.7)
    if message is None:
        read(tmp_path, CUBE.replace(*change))
        return
    with pytest.raises(InputError) as caught:
        read(tmp_path, CUBE.replace(*change))
    assert message in str(caught.value)


# Tensors


def test_a_tensor_that_mixes_the_axes(tmp_path: Path) -> None:
    """A linear function is its own discrete solution, whatever the constant tensor, on grids and on meshes."""
    text = """
    [equation]
    text = "-div([p*u_x + q*u_y, q*u_x + r*u_y]) = 0"
    parameters = { p = 75.25, q = 42.86849, r = 25.75 }
    [boundary]
    rest = { kind = "dirichlet", value = "x - 2*y" }
    """
    for domain in (
        "shape = [12, 12]\nlower = [0, 0]\nupper = [1, 1]",
        "mesh = { shape = [12, 12], lower = [0, 0], upper = [1, 1] }",
    ):
        content = f"{text}\n[domain]\n{domain}"
        problem = read(tmp_path, content.replace("rest", "all") if "shape = [12, 12]\n" in content else content)
        solution = solve(problem.equation, problem.domain, boundary=problem.boundary, rtol=1e-12)
        x, y = problem.domain.coordinates
        torch.testing.assert_close(solution.value, x - 2 * y, rtol=0, atol=1e-9)


# Nonlinear equations


HEAT = """
[equation]
text = "-div((1 + beta*u**2)*grad(u)) = 0"
parameters = { beta = 3.0 }
[domain]
shape = [48]
lower = [0]
upper = [1]
[boundary]
x_lower = { kind = "dirichlet", value = 0 }
x_upper = { kind = "dirichlet", value = 2 }
[solver]
"""


@pytest.mark.parametrize(
    ("entry", "wanted"),
    [
        ('method = "Newton"', Newton()),
        (
            'method = { name = "Newton", linear = "GMRES", line_search = "none", '
            'forcing = { name = "eisenstat_walker", largest = 0.1 } }',
            Newton(linear=linear.GMRES(), line_search=None, forcing=EisenstatWalker(largest=0.1)),
        ),
        (
            'method = { name = "Picard", line_search = "Backtracking", max_iterations = 300 }',
            Picard(line_search=Backtracking(), max_iterations=300),
        ),
        (
            'method = { name = "Continuation", parameter = "beta", start = 0.5, method = { name = "Newton" } }',
            Continuation("beta", 0.5),
        ),
    ],
)
@pytest.mark.parametrize("initial", ["", "initial = 1.0", 'initial = "2*x"', 'initial = { u = "2*x" }'])
def test_methods_for_nonlinear_equations(entry: str, wanted: Any, initial: str, tmp_path: Path) -> None:
    problem = read(tmp_path, f"{HEAT}\n{entry}\n{initial}")
    assert problem.method == wanted
    solution = solve(problem.equation, problem.domain, method=problem.method, initial=problem.initial, rtol=1e-10)
    # The flux is constant, so that u + beta u**3 / 3 is linear: its slope is what it reaches at the right end.
    assert float(solution.flux("x_upper")) == pytest.approx(2 + 3.0 * 2**3 / 3, rel=2e-3)
    (x,) = problem.domain.coordinates
    mean = math.sqrt(float((solution.value + solution.value**3 - 10 * x).square().mean()))
    assert mean < 5e-3


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ('method = "Newtn"', "[solver] method: unknown method 'Newtn'; did you mean 'Newton'?"),
        ('method = { name = "Newton", linear = "GMRS" }', "[solver] method: unknown linear 'GMRS'; did you mean"),
        ('method = { name = "Newton", max_iteration = 3 }', "Newton: unknown argument 'max_iteration'; did you mea"),
        ('method = { name = "Newton", forcing = 3 }', "a forcing is a name, or a table with the key `name`"),
        ('method = { name = "Newton", forcing = "GMRES" }', "Newton: forcing must be EisenstatWalker(...), got GMRES"),
        ('method = { name = "Continuation" }', "Continuation: an argument is of the wrong type"),
        ('method = { name = "Continuation", parameter = "beta", start = "a" }', "Continuation: start must be a number"),
        ('method = { name = "Continuation", parameter = "bta" }', "the equation has no parameter 'bta'; it has: beta"),
        ('initial = "2*w"', "[solver] initial: unknown name 'w'"),
        ("initial = { v = 1.0 }", "initial: 'v' is not an unknown"),
        ("initial = true", "[solver] initial: a number or an expression of the coordinates is needed, not True"),
    ],
)  # fmt: skip
def test_refusals_of_methods(entry: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        problem = read(tmp_path, f"{HEAT}\n{entry}")
        solve(problem.equation, problem.domain, method=problem.method, initial=problem.initial)
    assert message in str(caught.value)


# Whatever stands in a file, it is a problem or it is refused


LEAVES = st.one_of(
    st.integers(-3, 3),
    st.floats(),
    st.booleans(),
    st.text(max_size=8),
    st.sampled_from(["u", "x < 1", "1", "part.msh"]),
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)
PARSE = tomllib.loads


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_change_to_a_file_is_a_problem_or_is_refused(
    data: st.DataObject, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = PARSE(FULL)
    tables = [content, *(table for table in content.values())]
    tables += [inner for table in content.values() for inner in table.values() if isinstance(inner, dict)]
    table = data.draw(st.sampled_from(tables))
    key = data.draw(st.sampled_from(sorted(table)) | st.text(max_size=6))
    if key in table and data.draw(st.booleans()):
        del table[key]
    else:
        table[key] = data.draw(VALUES)
    (folder / "problem.toml").write_text("")
    monkeypatch.setattr(tomllib, "loads", lambda _: copy.deepcopy(content))
    try:
        problem_file.read(folder / "problem.toml", METHODS)
    except InputError as error:
        assert "problem.toml" in str(error)
