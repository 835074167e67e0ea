"""The program: what it writes, what it says, and the exit codes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner, Result

from sciml import Solution, command_line

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
