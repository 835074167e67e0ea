"""Problem files become the right problem, or are refused in a line that names the place."""

from __future__ import annotations

import copy
import tomllib
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sciml import Dirichlet, FiniteVolume, InputError, Neumann, Periodic, Robin, problem_file
from sciml.equations import catalogue
from sciml.solvers import linear

METHODS = {name: getattr(linear, name) for name in linear.__all__}

FULL = """
[equation]
text = "-div(a*grad(u)) + nu*u = f"
parameters = { nu = 2 }

[domain]
shape = [6, 4]
lower = [0, 0.0]
upper = [3.0, 2]
solid = "(x - 1.25)**2 + (y - 0.75)**2 < 0.01"
walls = { kind = "dirichlet", value = "x" }
device = "cpu"
dtype = "float32"

[boundary]
all = { kind = "dirichlet", value = 1 }
y = { kind = "neumann", flux = "sin(pi*x)" }
y_upper = { kind = "robin", coefficient = 2.0, value = "x*y" }

[fields]
a = "1 + x**2"
f = { file = "arrays.h5", dataset = "deep/f" }

[scheme]
name = "FiniteVolume"
average = "arithmetic"

[solver]
method = { name = "conjugate_gradient", preconditioner = "Multigrid", max_iterations = 7 }
rtol = 1e-6
atol = 1

[output]
name = "result-1"
formats = ["png"]
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    with h5py.File(tmp_path / "arrays.h5", "w") as file:
        file["deep/f"] = np.arange(24).reshape(6, 4)
        file["batch"] = np.ones((3, 6, 4))
        file["wrong"] = np.ones((6, 5))
        file["text"] = "words"
        file["mask"] = np.arange(24).reshape(6, 4) == 5
        file["hole"] = np.full((6, 4), np.nan)
    (tmp_path / "cut.h5").write_bytes((tmp_path / "arrays.h5").read_bytes()[:1000])
    return tmp_path


def read(folder: Path, text: str, **words: Any) -> problem_file.Problem:
    (folder / "problem.toml").write_text(text, encoding="utf-8")
    return problem_file.read(folder / "problem.toml", METHODS, **words)


def changed(line: str, new: str) -> str:
    assert FULL.count(line) == 1
    return FULL.replace(line, new)


def test_a_full_file(folder: Path) -> None:
    problem = read(folder, FULL)
    assert str(problem.equation) == "-div(a*grad(u)) + nu*u = f"
    assert problem.equation.parameters == {"nu": 2.0}
    grid = problem.domain
    assert (grid.shape, grid.lower, grid.upper, grid.dtype) == ((6, 4), (0.0, 0.0), (3.0, 2.0), torch.float32)
    assert grid.solid is not None
    assert grid.solid.nonzero().tolist() == [[2, 1]]
    x, y = grid.coordinates
    assert isinstance(grid.walls, Dirichlet)
    assert torch.equal(grid.walls.value(x, y), x)  # type: ignore[operator]
    lower, upper = grid.boundary["y"]
    assert grid.boundary["x"] == (Dirichlet(1.0), Dirichlet(1.0))
    assert isinstance(lower, Neumann)
    torch.testing.assert_close(lower.flux(x, y), torch.sin(torch.pi * x))  # type: ignore[operator]
    assert isinstance(upper, Robin)
    assert upper.coefficient == 2.0
    assert torch.equal(upper.value(x, y), x * y)  # type: ignore[operator]
    assert torch.equal(problem.fields["a"](x, y), 1 + x**2)
    assert torch.equal(problem.fields["f"], torch.arange(24.0).reshape(6, 4))
    assert problem.scheme == FiniteVolume("arithmetic")
    assert problem.method == linear.ConjugateGradient(preconditioner=linear.Multigrid(), max_iterations=7)
    assert (problem.rtol, problem.atol) == (1e-6, 1.0)
    assert (problem.name, problem.formats) == ("result-1", ("png",))


SMALL = """
[equation]
text = "-laplacian(u) = f"
[domain]
shape = [8]
lower = [0]
upper = [1]
[fields]
f = 1
"""


def test_what_is_left_out(folder: Path) -> None:
    problem = read(folder, SMALL)
    assert problem.domain.boundary == {"x": (Dirichlet(0.0), Dirichlet(0.0))}
    assert problem.fields == {"f": 1.0}
    assert (problem.name, problem.formats) == ("problem", ("h5", "png", "vti"))
    assert (problem.method, problem.scheme, problem.rtol, problem.atol) == (None, None, None, None)
    assert (problem.boundary, problem.initial) == (None, None)


def test_the_catalogue(folder: Path) -> None:
    evolving = "[solver]\ninitial = 0\ntimes = [0, 1]\n"
    for name in catalogue.names():
        equation = catalogue.get(name).equation
        text = SMALL.replace('text = "-laplacian(u) = f"', f'catalogue = "{name}"')
        assert read(folder, text + (evolving if equation.evolving else "")).equation == equation
    text = SMALL.replace('text = "-laplacian(u) = f"', 'catalogue = "burgers"\nparameters = { nu = 0.5 }') + evolving
    assert read(folder, text).equation.parameters == {"nu": 0.5}


def test_conditions_by_unknown(folder: Path) -> None:
    problem = read(
        folder,
        """
        [equation]
        text = ["-laplacian(u) + v = 0", "-laplacian(v) = 1"]
        unknowns = ["u", "v"]
        [domain]
        shape = [8, 8]
        lower = [0, 0]
        upper = [1, 1]
        [boundary]
        x = { kind = "periodic" }
        y_lower = { kind = "dirichlet", value = 1 }
        [boundary.unknowns.v]
        y = { kind = "neumann", flux = 0 }
        """,
    )
    assert problem.domain.boundary == {
        "u": {"x": (Periodic(), Periodic()), "y": (Dirichlet(1.0), Dirichlet(0.0))},
        "v": {"x": (Periodic(), Periodic()), "y": (Neumann(0.0), Neumann(0.0))},
    }


@pytest.mark.parametrize(
    ("solid", "cells"),
    [
        ('"x - 2"', [4, 5]),
        ('"x > 2.25"', [5]),
        ('"x >= 2.25"', [4, 5]),
        ('"0.75 > x"', [0]),
        ('"x <= 0.75"', [0, 1]),
        ('"0.5 < x < 1 or x > 2.5"', [1, 5]),
    ],
)
def test_solids_as_expressions(solid: str, cells: list[int], folder: Path) -> None:
    problem = read(folder, changed('"(x - 1.25)**2 + (y - 0.75)**2 < 0.01"', solid))
    assert problem.domain.solid is not None
    assert problem.domain.solid.any(1).nonzero().flatten().tolist() == cells


def test_a_solid_from_a_file(folder: Path) -> None:
    text = changed('"(x - 1.25)**2 + (y - 0.75)**2 < 0.01"', '{ file = "arrays.h5", dataset = "mask" }')
    assert read(folder, text).domain.solid.nonzero().tolist() == [[1, 1]]  # type: ignore[union-attr]


def test_a_batch_from_a_file(folder: Path) -> None:
    assert read(folder, changed("deep/f", "batch")).fields["f"].shape == (3, 6, 4)


@pytest.mark.parametrize(
    ("line", "new", "message"),
    [
        ("shape =", "shap =", "problem.toml, [domain]: unknown key 'shap'; did you mean 'shape'?"),
        ("[fields]", "[feilds]", "problem.toml: unknown key 'feilds'; did you mean 'fields'?"),
        ("y_upper =", "y_uper =", "problem.toml, [boundary]: unknown key 'y_uper'; did you mean 'y_upper'?"),
        ("flux =", "flucks =", "problem.toml, [boundary.y]: unknown key 'flucks'; did you mean 'flux'?"),
        ("dataset =", "data =", "problem.toml, [fields.f]: unknown key 'data'; did you mean 'dataset'?"),
        ("shape = [6, 4]", "", "problem.toml, [domain]: 'shape' is missing"),
        ("shape = [6, 4]", "shape = 6", "problem.toml, [domain] shape: input should be a valid list, not 6"),
        ("[6, 4]", "[6, 4.5]", "problem.toml, [domain] shape[1]: input should be a valid integer, not 4.5"),
        ("[6, 4]", "[6, -4]", "problem.toml, [domain]: Grid: shape is one to three positive integers"),
        ("[6, 4]", "[6000000, 4000000]", "problem.toml, [domain]: shape has 24000000000000 unknowns, which fit in no"),
        ("upper = [3.0, 2]", "upper = [3.0]", "problem.toml, [domain]: Grid: upper is one number for each of the 2 ax"),
        ("upper = [3.0, 2]", "upper = [3.0, -2]", "problem.toml, [domain]: Grid: the spacing along y would not be"),
        ("upper = [3.0, 2]", "upper = [3.0, nan]", "problem.toml, [domain] upper[1]: a finite number is needed, not n"),
        ("upper = [3.0, 2]", f"upper = [1{'0' * 400}, 2]", "problem.toml, [domain] upper[0]: a finite number"),
        ("upper = [3.0, 2]", f"upper = [1{'0' * 5000}, 2]", "problem.toml is not valid TOML: Exceeds the limit"),
        ("upper = [3.0, 2]", "upper = [3.0, true]", "problem.toml, [domain] upper[1]: a number is needed, not True"),
        ('"cpu"', '"tpu"', "problem.toml, [domain] device: 'tpu' is not a device"),
        ('"float32"', '"float16"', "problem.toml, [domain] dtype: input should be 'float64' or 'float32', not 'float1"),
        ('"neumann"', '"neuman"', "problem.toml, [boundary.y] kind: input should be 'dirichlet', 'neumann', 'robin' o"),
        ("flux =", "value =", "problem.toml, [boundary.y]: a neumann condition takes flux, not value"),
        ("coefficient = 2.0, ", "", "[boundary.y_upper]: a robin condition takes coefficient and value, not value"),
        ("flux = \"sin(pi*x)\"", "flux = true", "[boundary.y] flux: a number or an expression of the coordinates is n"),
        ("y = {", "z = {", "problem.toml, [boundary]: a condition is given for z, but the domain has only the axes x,"),
        ("y = {", "unknowns.w.y = {", "problem.toml, [boundary]: the equation has no unknown 'w'"),
        ("sin(pi*x)", "sin(pi*w)", "problem.toml, [boundary]: "),
        ('a = "1 + x**2"', 'a = "__import__(\'os\')"', "problem.toml, [fields] a: "),
        ('a = "1 + x**2"', 'a = "1 +"', "problem.toml, [fields] a: "),
        ('a = "1 + x**2"', "a = [1, 2]", "problem.toml, [fields] a: a number or an expression of the coordinates is n"),
        ("deep/f", "deep/g", "[fields] f: arrays.h5: there is no array 'deep/g'; did you mean 'deep/f'?"),
        ("deep/f", "deep", "[fields] f: arrays.h5: there is no array 'deep'"),
        ("deep/f", "wrong", "[fields] f: arrays.h5: 'wrong' has shape (6, 5), expected one that broadcasts to (*batch"),
        ("deep/f", "text", "[fields] f: arrays.h5: 'text' holds object, and no numbers"),
        ("arrays.h5", "none.h5", "[fields] f: there is no file 'none.h5' beside problem.toml"),
        ("arrays.h5", "cut.h5", "[fields] f: cut.h5 cannot be read as HDF5, it may be cut short or damaged"),
        ("arrays.h5", "problem.toml", "[fields] f: problem.toml cannot be read as HDF5"),
        ('"FiniteVolume"', '"FiniteVolumes"', "problem.toml, [scheme]: unknown scheme 'FiniteVolumes'; did you mean"),
        ("average =", "averaging =", "[scheme]: FiniteVolume: unknown argument 'averaging'; did you mean 'average'?"),
        ('"arithmetic"', '"geometric"', "[scheme]: FiniteVolume: average is one of harmonic, arithmetic, got 'geometr"),
        ('"conjugate_gradient"', '"ConjugateGradients"', "[solver] method: unknown method 'ConjugateGradients'; did y"),
        ("max_iterations", "max_iteration", "[solver] method: ConjugateGradient: unknown argument 'max_iteration'; di"),
        ('max_iterations = 7', 'max_iterations = "7"', "[solver] method: max_iterations must be a whole number"),
        ('"Multigrid"', "3", "[solver] method: a preconditioner is a name, or a table with the key `name`"),
        ("rtol = 1e-6", 'rtol = "small"', "problem.toml, [solver] rtol: a number is needed, not 'small'"),
        ('"result-1"', '"../result"', "problem.toml, [output]: name: '../result' does not do as a file name"),
        ('["png"]', '["bmp"]', "problem.toml, [output] formats[0]: input should be 'h5', 'png', 'vti', 'vtu', 'vtk'"),
        ("grad(u)) + nu", "grad(u)) + nv", "problem.toml, [equation]: "),
        ('text = "-div(a*grad(u)) + nu*u = f"', "", "[equation]: give the equation either as `text` or by its name in"),
        ('text = "-div(a*grad(u)) + nu*u = f"', 'catalogue = "poison"', "[equation]: no equation is called 'poison':"),
        ("{ nu = 2 }", '{ nu = "2" }', "problem.toml, [equation.parameters] nu: a number is needed, not '2'"),
        ('"(x - 1.25)**2 + (y - 0.75)**2 < 0.01"', '"x < 1 & y"', "[domain] solid: write 'and'"),
        ('"(x - 1.25)**2 + (y - 0.75)**2 < 0.01"', '"log(x - 1)"', "[domain] solid: 'log(x - 1)' is not finite everyw"),
        ('"(x - 1.25)**2 + (y - 0.75)**2 < 0.01"', '"1"', "[domain] solid: Grid: every cell is solid"),
        ('"(x - 1.25)**2 + (y - 0.75)**2 < 0.01"', "1.0", "[domain] solid: a condition such as 'x < 0.5'"),
        ('"(x - 1.25)**2 + (y - 0.75)**2 < 0.01"', '{file="arrays.h5", dataset="hole"}', "[domain] solid: arrays.h5:"),
        ('"dirichlet", value = "x"', '"periodic"', "[domain] walls: the faces of solid cells cannot be periodic"),
        ("[output]", "[[output]]", "problem.toml, output: a table is needed here, not [{'name': 'result-1', "),
        ("[equation]", "[equation", "problem.toml is not valid TOML: "),
        ('["png"]', '["vtu"]', "problem.toml, [output] formats: 'vtu' is for meshes, and the domain is a grid: tak"),
        ("lower = [0, 0.0]", "lower = [0, 0.0]\nrefine = 1", "[domain]: unknown key 'refine': it belongs to a mesh"),
        ("shape = [6, 4]", "shape = [6, 4]\nmehs = 'a.msh'", "[domain]: unknown key 'mehs'; did you mean 'mesh'?"),
        ("atol = 1", 'initial = "x"', "[solver] initial: it is the start for a nonlinear equation, and this one is"),
    ],
)  # fmt: skip
def test_refusals_name_the_place(line: str, new: str, message: str, folder: Path) -> None:
    with pytest.raises(InputError) as caught:
        read(folder, changed(line, new))
    first, *rest = str(caught.value).splitlines()
    assert message in first
    assert not rest or rest[-1].strip() == "^"  # the parser points at the place in an expression


def test_every_wrong_table_gets_a_line(folder: Path) -> None:
    with pytest.raises(InputError) as caught:
        read(folder, changed("shape =", "shap =").replace("rtol", "rtoll").replace('"png"', "1"))
    assert len(str(caught.value).splitlines()) == 3


def test_walls_need_solids(folder: Path) -> None:
    with pytest.raises(InputError, match="give `solid` too"):
        read(folder, changed('solid = "(x - 1.25)**2 + (y - 0.75)**2 < 0.01"', ""))


def test_files_that_cannot_be_read(folder: Path) -> None:
    with pytest.raises(InputError, match=r"none\.toml cannot be read: No such file"):
        problem_file.read(folder / "none.toml")
    with pytest.raises(InputError, match="cannot be read: Is a directory"):
        problem_file.read(folder)
    (folder / "latin.toml").write_bytes("[equation]\ntext = 'ä'".encode("latin-1"))
    with pytest.raises(InputError, match=r"not a text file in UTF-8 \(byte 19\)"):
        problem_file.read(folder / "latin.toml")
    for deep in ("a = " + "[" * 5_000, "a" + ".a" * 1_500 + " = 1", "a = " + "{ a = " * 150 + "1" + " }" * 150):
        with pytest.raises(InputError, match="nested too deeply"):
            read(folder, deep)
    with pytest.raises(InputError, match=r"line 2 has 20005 characters; break it"):  # an hour's work at 1 MB
        read(folder, "b = 1\na" + ".a" * 10_000 + " = 1")
    with pytest.raises(InputError, match="has more than 262144 bytes"):
        read(folder, "#" * (1 << 21))


def test_a_device_in_place_of_the_files(folder: Path) -> None:
    assert read(folder, SMALL, device="cpu").domain.device.type == "cpu"
    if not torch.cuda.is_available():
        with pytest.raises(InputError, match="'cuda': there is no CUDA device here; use cpu"):
            read(folder, SMALL, device="cuda")


# Whatever stands in a file, it is a problem or it is refused


PARSE = tomllib.loads
LEAVES = st.one_of(
    st.integers(-3, 9), st.floats(), st.booleans(), st.text(max_size=8), st.sampled_from(["u", "x", "1", "u_x"])
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_change_to_a_file_is_a_problem_or_is_refused(
    data: st.DataObject, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = PARSE(FULL)
    tables = [content, *(table for table in content.values())]
    tables += [inner for table in content.values() for inner in table.values() if isinstance(inner, dict)]
    table = data.draw(st.sampled_from(tables))
    key = data.draw(st.sampled_from(list(table)) | st.text(max_size=6))
    if key in table and data.draw(st.booleans()):
        del table[key]
    else:
        table[key] = data.draw(VALUES)
    monkeypatch.setattr(tomllib, "loads", lambda _: copy.deepcopy(content))
    try:
        problem = read(folder, FULL)
    except InputError as error:
        assert "problem.toml" in str(error)
        assert len(str(error)) < 2000
    else:
        assert problem.domain.dimension <= 3


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(noise=st.binary(max_size=40), place=st.floats(0, 1))
def test_noise_in_a_file_is_refused_or_harmless(noise: bytes, place: float, folder: Path) -> None:
    raw = bytearray(FULL.encode())
    start = int(place * len(raw))
    raw[start : start + len(noise)] = noise
    (folder / "problem.toml").write_bytes(raw)
    try:
        problem_file.read(folder / "problem.toml", METHODS)
    except InputError as error:
        assert "problem.toml" in str(error)
