"""The program: what it writes, what it says, and the exit codes."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import meshio
import numpy as np
import pytest
import torch
from typer.testing import CliRunner, Result

from sciml import Mesh, Solution, command_line

PROBLEM = """
[equation]
text = "-div(a*grad(u)) = f"
[domain]
shape = [32, 24]
lower = [0, 0]
upper = [1, 1]
[boundary]
all = { kind = "dirichlet", value = "x + y" }
x = { kind = "neumann", flux = 0 }
[fields]
a = "1 + x*y"
f = 1
"""

PROGRAM = [sys.executable, "-c", "from sciml.command_line import main; main()"]


@pytest.fixture
def problem(tmp_path: Path) -> Path:
    path = tmp_path / "plate.toml"
    path.write_text(PROBLEM)
    return path


def invoke(*arguments: Any) -> Result:
    return CliRunner().invoke(command_line.app, [str(argument) for argument in arguments])


def test_solve_writes_what_it_says(problem: Path, tmp_path: Path) -> None:
    run = subprocess.run([*PROGRAM, "solve", problem, "--output", tmp_path / "out"], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "plate.h5",
        "plate.json",
        "plate.png",
        "plate.vti",
    ]
    summary = json.loads((tmp_path / "out" / "plate.json").read_text())
    solution = Solution.load(tmp_path / "out" / "plate.h5")
    assert summary["converged"] is True
    assert summary["equation"] == str(solution.equation) == "-div(a*grad(u)) = f"
    assert summary["domain"]["shape"] == [32, 24]
    assert summary["method"] == solution.method
    assert summary["rows"][0]["status"] == "CONVERGED"
    assert summary["rows"][0]["relative_residual"] <= 1e-8
    assert summary["rows"][0]["iterations"] == int(solution.statistics["iterations"])
    assert summary["files"] == ["plate.h5", "plate.png", "plate.vti"]
    fluxes = summary["rows"][0]["fluxes"]["u"]
    assert fluxes == {name: float(solution.flux(name)) for name in ("x_lower", "x_upper", "y_lower", "y_upper")}
    assert sum(fluxes.values()) == pytest.approx(-1.0, abs=1e-7)  # what the source puts in goes out
    assert summary["rows"][0]["integrals"] == {"u": float(solution.integral())}
    assert summary["versions"]["torch"] == torch.__version__
    for part in ("-div(a*grad(u)) = f", "32 x 24", "converged", "plate.png"):
        assert part in run.stdout
    assert [line.split()[0] for line in run.stderr.splitlines()] == ["reading", "solving", "writing"]
    system = solution.system
    assert system is not None
    residual = system.right_side - system.operator.apply(solution.value)
    assert float(residual.norm() / system.right_side.norm()) <= 1e-8


def test_quiet_prints_nothing(problem: Path, tmp_path: Path) -> None:
    result = invoke("solve", problem, "--output", tmp_path, "--quiet")
    assert (result.exit_code, result.output) == (0, "")
    assert (tmp_path / "plate.h5").is_file()


def test_formats_and_names_are_those_of_the_file(problem: Path, tmp_path: Path) -> None:
    problem.write_text(PROBLEM + '[output]\nname = "other"\nformats = ["vti"]\n')
    assert invoke("solve", problem, "--output", tmp_path / "out", "--quiet").exit_code == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["other.json", "other.vti"]


def test_a_solve_that_does_not_converge_says_what_to_do(problem: Path, tmp_path: Path) -> None:
    method = '[solver]\nmethod = { name = "ConjugateGradient", max_iterations = 2 }\n'
    problem.write_text(PROBLEM + method)
    result = invoke("solve", problem, "--output", tmp_path)
    assert result.exit_code == 1
    assert "MAX_ITERATIONS: The iteration limit was reached: raise max_iterations" in result.stderr
    assert "NOT CONVERGED" in result.stdout
    assert json.loads((tmp_path / "plate.json").read_text())["converged"] is False
    assert Solution.load(tmp_path / "plate.h5").status[0].name == "MAX_ITERATIONS"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("shape", "shap"), "sciml: plate.toml, [domain]: unknown key 'shap'; did you mean 'shape'?"),
        (("div(", "dif("), "sciml: plate.toml, [equation]: "),
        (("f = 1", ""), "sciml: fields: the equation has the coefficient f, and no value is given for it"),
        (('"x + y"', '"x + w"'), "sciml: plate.toml, [boundary]: "),
        (("f = 1", 'f = "1/(x - 0.015625)"'), "sciml: field 'f'"),
        (("all = {", "y_lower = {"), None),
    ],
)
def test_bad_input_is_one_message_and_exit_code_2(
    change: tuple[str, str], message: str | None, problem: Path, tmp_path: Path
) -> None:
    problem.write_text(PROBLEM.replace(*change))
    result = invoke("solve", problem, "--output", tmp_path / "out")
    if message is None:
        assert result.exit_code == 0
        return
    assert result.exit_code == 2
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert not list(tmp_path.glob("out/*"))


def test_a_neumann_problem_without_a_solution_is_bad_input(problem: Path, tmp_path: Path) -> None:
    problem.write_text(PROBLEM.replace('kind = "dirichlet", value = "x + y"', 'kind = "neumann", flux = 1'))
    result = invoke("solve", problem, "--output", tmp_path)
    assert result.exit_code == 2
    assert "balance" in result.stderr


def test_a_missing_file_and_a_bad_folder(problem: Path, tmp_path: Path) -> None:
    result = invoke("solve", tmp_path / "none.toml")
    assert result.exit_code == 2
    assert "none.toml cannot be read: No such file" in result.stderr
    result = invoke("solve", problem, "--output", problem)
    assert result.exit_code == 2
    assert "is no folder" in result.stderr


def test_too_large_a_problem_is_no_traceback(problem: Path) -> None:
    problem.write_text(PROBLEM.replace("[32, 24]", "[1000000, 1000000]"))
    result = invoke("solve", problem)
    assert result.exit_code == 1
    assert "there is not enough memory" in result.stderr


def test_a_batch_is_summarized_row_by_row(problem: Path, tmp_path: Path) -> None:
    import h5py

    with h5py.File(tmp_path / "sources.h5", "w") as file:
        file["f"] = torch.rand(3, 32, 24, generator=torch.Generator().manual_seed(0)).numpy()
    problem.write_text(PROBLEM.replace("f = 1", 'f = { file = "sources.h5", dataset = "f" }'))
    result = invoke("solve", problem, "--output", tmp_path)
    assert result.exit_code == 0, result.output
    assert "3 of 3 rows converged" in result.stdout
    assert len(json.loads((tmp_path / "plate.json").read_text())["rows"]) == 3
    assert (tmp_path / "plate_2.vti").is_file()


# Meshes


PART = """
[equation]
text = "-div(k*grad(T)) = q"
unknowns = ["T"]
[domain]
mesh = "part.msh"
[domain.boundaries]
hot = "(x - 0.25)**2 + (y - 0.5)**2 < 0.011"
[domain.regions]
core = "x > 0.5"
[boundary]
cold = { kind = "dirichlet", value = 20 }
hot = { kind = "dirichlet", value = "100 + 0*x" }
rest = { kind = "robin", coefficient = 0.5, value = "0.5*20" }
[fields]
k = { core = 10.0, rest = 1.0 }
q = "5*y"
"""


@pytest.fixture
def part(tmp_path: Path) -> Path:
    """A plate with a hole, and a problem on it."""
    x, y = torch.meshgrid(*[torch.linspace(0, 1, 21, dtype=torch.float64)] * 2, indexing="ij")
    turn = torch.arange(16, dtype=torch.float64) * (torch.pi / 8)
    rim = torch.stack([0.25 + 0.1 * turn.cos(), 0.5 + 0.1 * turn.sin()], 1)
    plate = torch.stack([x, y], -1).reshape(-1, 2)
    plate = plate[(plate - torch.tensor([0.25, 0.5])).norm(dim=1) > 0.12]
    mesh = Mesh.delaunay(torch.cat([plate, rim]), inside=lambda x, y: (x - 0.25) ** 2 + (y - 0.5) ** 2 > 0.0099)
    mesh.with_boundaries({"cold": lambda x, y: x > 1 - 1e-9}).write(tmp_path / "part.msh")
    path = tmp_path / "part.toml"
    path.write_text(PART)
    return path


def test_a_problem_on_a_mesh(part: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")  # files are looked for beside the problem file
    run = invoke("solve", part, "--output", tmp_path / "out")
    assert run.exit_code == 0, run.stderr
    out = tmp_path / "out"
    assert sorted(path.name for path in out.iterdir()) == ["part.h5", "part.json", "part.png", "part.vtu"]
    summary = json.loads((out / "part.json").read_text())
    solution = Solution.load(out / "part.h5")
    mesh = solution.domain
    assert isinstance(mesh, Mesh)
    assert summary["files"] == ["part.h5", "part.png", "part.vtu"]
    assert summary["domain"]["points"] == len(mesh.points)
    assert summary["domain"]["boundaries"] == {name: len(part) for name, part in mesh.boundaries.items()}
    assert summary["domain"]["regions"] == {"core": len(mesh.region("core"))}
    assert summary["domain"]["volume"] == pytest.approx(1 - 8 * math.sin(math.pi / 8) * 0.01, rel=1e-9)
    (row,) = summary["rows"]
    assert row["fluxes"]["T"] == {name: float(solution.flux(name)) for name in mesh.boundaries}
    assert row["integrals"] == {"T": float(solution.integral())}
    assert row["region_integrals"] == {"T": {"core": float(solution.integral("core"))}}
    # Heat in: 5 y integrated over the plate. It goes out through the boundary.
    source = float((5 * mesh.cell_centres[:, 1] * mesh.volumes).sum())
    assert row["fluxes"]["T"]["exterior"] == pytest.approx(-source, rel=1e-9)
    assert row["fluxes"]["T"]["hot"] > 0 > row["fluxes"]["T"]["cold"]
    at_rim = mesh.boundary_points("hot")
    assert torch.equal(solution.value[at_rim], torch.full_like(solution.value[at_rim], 100.0))
    content = meshio.read(out / "part.vtu")
    np.testing.assert_array_equal(content.point_data["T"], solution.value)
    np.testing.assert_array_equal(content.points[:, :2], mesh.points)
    conductivity = content.cell_data["k"][0]
    np.testing.assert_array_equal(np.flatnonzero(conductivity == 10.0), mesh.region("core"))
    again = Mesh.read(out / "part.vtu")
    assert {name: len(part) for name, part in again.boundaries.items()} == summary["domain"]["boundaries"]
    for words in (f"{len(mesh.points)} points", "hot (16)", "core (", "outward flux", "integral", "part.vtu"):
        assert words in run.stdout


@pytest.mark.parametrize(
    ("change", "messages"),
    [
        (('"part.msh"', '"prat.msh"'), ["part.toml, [domain] mesh: there is no file 'prat.msh' beside part.toml"]),
        (("cold = {", "clod = {"), ["the mesh has no boundary 'clod', but ", "cold", "hot", "did you mean 'cold'?"]),
        (("rest = {", "# rest = {"), ["part.toml, [boundary]: T: nothing is said about 60 of 96 facets (x from"]),
        (("core = 10.0, rest", "core = 10.0, ret"), ["[fields] k: the mesh has no region 'ret', but core; did you"]),
        ((", rest = 1.0", ""), ["sciml: field 'k': ", "cells lie in none of the regions core"]),
        (("refine", "refine"), None),
        (('hot = "(', 'hot = "__import__('), ["part.toml, [domain.boundaries] hot: "]),
        (('q = "5*y"', ""), ["fields: the equation has the coefficient q, and no value is given for it"]),
        (('"dirichlet", value = 20', '"dirichlet", value = "1/(1 - x)"'), ["boundary 'cold'"]),
    ],
)  # fmt: skip
def test_bad_input_on_meshes_is_one_message_and_exit_code_2(
    change: tuple[str, str], messages: list[str] | None, part: Path, tmp_path: Path
) -> None:
    part.write_text(PART.replace(*change))
    result = invoke("solve", part, "--output", tmp_path / "out", "--quiet")
    if messages is None:
        assert (result.exit_code, result.output) == (0, "")
        return
    assert result.exit_code == 2
    first, *rest = result.stderr.splitlines()
    for message in messages:
        assert message in first
    assert not rest or rest[-1].split()[-1] == "^"
    assert "Traceback" not in result.stderr
    assert not list(tmp_path.glob("out/*"))


def test_warnings_are_lines_of_the_program(part: Path, tmp_path: Path) -> None:
    mesh = Mesh.box((2, 2))
    cells = [("triangle", mesh.cells.numpy()), ("line", np.array([[0, 1], [4, 5]]))]
    tags = {"gmsh:physical": [np.zeros(8, dtype=int), np.array([1, 1])]}
    tags["gmsh:geometrical"] = tags["gmsh:physical"]
    points = np.pad(mesh.points.numpy(), ((0, 0), (0, 1)))
    content = meshio.Mesh(points, cells, cell_data=tags, field_data={"cold": np.array([1, 1])})
    content.write(tmp_path / "part.msh", file_format="gmsh22")
    text = 'domain.mesh = "part.msh"\nequation.text = "-laplacian(u) = 1"\n'
    part.write_text(f'{text}boundary.rest = {{ kind = "dirichlet", value = 0 }}')
    result = invoke("solve", part, "--output", tmp_path / "out")
    assert result.exit_code == 0, result.output
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("sciml: ")]
    assert line.startswith("sciml: note: ")
    assert "1 of the 2 facets of the group 'cold' are not on the surface" in line
    (kept,) = json.loads((tmp_path / "out" / "part.json").read_text())["warnings"]
    assert line.endswith(kept)


def test_a_batch_on_a_mesh_with_several_unknowns(part: Path, tmp_path: Path) -> None:
    import h5py

    with h5py.File(tmp_path / "sources.h5", "w") as file:
        file["f"] = torch.rand(2, 12, generator=torch.Generator().manual_seed(0)).numpy()
    part.write_text(
        """
        equation = { text = ["-laplacian(u) + v = 0", "-laplacian(v) = f"], unknowns = ["u", "v"] }
        domain.mesh = { shape = [2, 3], lower = [0, 0], upper = [1, 1] }
        boundary.rest = { kind = "dirichlet", value = 0 }
        boundary.unknowns.v.x_lower = { kind = "dirichlet", value = 1 }
        fields.f = { file = "sources.h5", dataset = "f" }
        output.formats = ["h5", "png", "vtu"]
        """
    )
    result = invoke("solve", part, "--output", tmp_path / "out")
    assert result.exit_code == 0, result.output
    summary = json.loads((tmp_path / "out" / "part.json").read_text())
    solution = Solution.load(tmp_path / "out" / "part.h5")
    assert summary["files"] == ["part.h5", "part.png", "part_0.vtu", "part_1.vtu"]
    for row, facts in enumerate(summary["rows"]):
        assert facts["integrals"] == {"u": float(solution.integral()[row, 0]), "v": float(solution.integral()[row, 1])}
        assert facts["fluxes"]["v"]["x_lower"] == float(solution.flux("x_lower")[row, 1])
        content = meshio.read(tmp_path / "out" / f"part_{row}.vtu")
        np.testing.assert_array_equal(content.point_data["v"], solution.fields["v"][row])


@pytest.mark.parametrize("method", ["Newton", "Picard"])
@pytest.mark.parametrize(
    "domain",
    ["shape = [16, 12]\nlower = [0, 0]\nupper = [1, 1]", "mesh = { shape = [16, 12], lower = [0, 0], upper = [1, 1] }"],
)
def test_nonlinear_equations(method: str, domain: str, tmp_path: Path) -> None:
    """Through a conductivity of 1 + T**2 the heat from 0 to 2 is 2 + 8/3."""
    (tmp_path / "heat.toml").write_text(
        f"""
        [equation]
        text = "-div((1 + T**2)*grad(T)) = 0"
        unknowns = ["T"]
        [domain]
        {domain}
        [boundary]
        x_lower = {{ kind = "dirichlet", value = 0 }}
        x_upper = {{ kind = "dirichlet", value = 2 }}
        {"rest" if "mesh" in domain else "y"} = {{ kind = "neumann", flux = 0 }}
        [solver]
        method = "{method}"
        initial = "2*x"
        rtol = 1e-9
        """
    )
    result = invoke("solve", tmp_path / "heat.toml", "--output", tmp_path)
    assert result.exit_code == 0, result.output
    summary = json.loads((tmp_path / "heat.json").read_text())
    assert summary["method"].startswith({"Newton": "Newton's method", "Picard": "Picard's iteration"}[method])
    assert summary["rows"][0]["fluxes"]["T"]["x_upper"] == pytest.approx(2 + 8 / 3, rel=5e-3)
    assert Solution.load(tmp_path / "heat.h5").method == summary["method"]


def test_names_that_no_vtu_file_can_hold_cost_only_that_file(part: Path, tmp_path: Path) -> None:
    text = PART.replace("hot = ", '"<hot>" = ')
    part.write_text(text)
    result = invoke("solve", part, "--output", tmp_path / "out")
    assert result.exit_code == 0
    assert "sciml: no part.vtu: the name '<hot>' cannot be kept in a file" in result.stderr
    assert json.loads((tmp_path / "out" / "part.json").read_text())["files"] == ["part.h5", "part.png"]


def test_help_and_version_do_not_wait_for_torch() -> None:
    code = (
        "import sys; from sciml.command_line import app\n"
        "for word in ('--help', '--version'):\n"
        "    try: app([word])\n"
        "    except SystemExit as end: assert not end.code\n"
        "heavy = {'torch', 'numpy', 'sympy', 'matplotlib', 'scipy', 'h5py', 'pydantic'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert "solve" in run.stdout
    assert "sciml 0" in run.stdout


def test_openmp_workers_do_not_spin() -> None:
    code = (
        "import os; from sciml import command_line\n"
        "command_line.app = lambda: print(os.environ['GOMP_SPINCOUNT'], os.environ['OMP_WAIT_POLICY'])\n"
        "command_line.main()"
    )
    environment = {"PATH": "", "GOMP_SPINCOUNT": "5"}
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert run.stdout.split() == ["5", "PASSIVE"]  # what the user set stays
