"""Darcy flow as datasets have it: one coefficient a sample, everything from the coefficient to the solution timed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy
import scipy.sparse
import torch
from torch import Tensor

from sciml.solvers.solve import solve

from ...boundary import Dirichlet
from ...equations import Equation
from ...grid import Grid
from ...status import Status
from ..bench import Bench, version_of
from ..evolution.one_core import one_core
from ..linear.peers import RUGE_STUBEN
from ..linear.problems import gaussian_field
from ..row import Row
from ..timing import Contender, Outcome

Array = numpy.ndarray[Any, numpy.dtype[Any]]
SolveOne = Callable[[scipy.sparse.csc_matrix, Array], tuple[Array, int | None]]

OWN = "solve"
SUPERLU = "SuperLU"
SUPERLU_MINIMUM_DEGREE = "SuperLU, minimum degree, symmetric mode"
TOLERANCE = 1e-8

_EQUATION = Equation("-div(a*grad(u)) = f")


def generation_case(n: int) -> str:
    """Name of the case."""
    return f"Darcy (12 and 3) {n}x{n} from the coefficient, to 1e-8"


def kinds_case(n: int) -> str:
    """Name of the case."""
    return f"other Darcy coefficients {n}x{n}, to 1e-8"


# The coefficients, all of one Gaussian field z of covariance (-laplacian + 9)^-2


@dataclass(frozen=True)
class Kind:
    """What makes a coefficient of the field z."""

    name: str
    of: Callable[[Tensor], Tensor]


def _two_valued(high: float, low: float, z: Tensor) -> Tensor:
    return torch.full_like(z, low).masked_fill(z > 0, high)


TWELVE_AND_THREE = Kind("12 and 3", partial(_two_valued, 12.0, 3.0))
OTHER_KINDS = (
    Kind("12 and 2", partial(_two_valued, 12.0, 2.0)),
    Kind("smooth, exp(z / std z)", lambda z: torch.exp(z / z.std())),
    Kind("contrast 1e4", partial(_two_valued, 1e4, 1.0)),
)


def coefficients(kind: Kind, n: int, samples: int) -> Tensor:
    """float64 `(samples, n, n)`, sample i of seed i."""
    return torch.stack([kind.of(gaussian_field((n, n), seed)) for seed in range(samples)])


def assemble(a: Array) -> scipy.sparse.csc_matrix:
    """The matrix of -div(a grad u) on cell centres of the unit square, u = 0 on all sides.

    Harmonic means of the coefficient on faces, written for numpy without anything of this package.

    Args:
        a: `(n, n)`, positive.
    """
    n = len(a)
    square = 1.0 * n * n
    below = 2.0 * square * a[1:] * a[:-1] / (a[1:] + a[:-1])
    beside = 2.0 * square * a[:, 1:] * a[:, :-1] / (a[:, 1:] + a[:, :-1])
    diagonal = numpy.zeros((n, n))
    diagonal[1:] += below
    diagonal[:-1] += below
    diagonal[:, 1:] += beside
    diagonal[:, :-1] += beside
    for wall in (0, -1):
        diagonal[wall] += 2.0 * square * a[wall]
        diagonal[:, wall] += 2.0 * square * a[:, wall]
    along = numpy.zeros((n, n))
    along[:, :-1] = -beside
    bands = [diagonal.ravel(), along.ravel()[:-1], along.ravel()[:-1], -below.ravel(), -below.ravel()]
    return scipy.sparse.diags(bands, [0, 1, -1, n, -n], format="csc")


def relative_residual(a: Tensor, value: Any) -> float:
    """|1 - A u| / |1|, the largest over the samples."""
    worst = 0.0
    for sample, u in zip(a.numpy(), numpy.asarray(torch.as_tensor(value).cpu()), strict=True):
        rest = 1.0 - assemble(sample) @ u.reshape(-1)
        worst = max(worst, float(numpy.linalg.norm(rest)) / sample.size**0.5)
    return worst


# The contenders


def own(a: Tensor, device: str, method: str = OWN) -> Contender:
    """This package's public path on the whole batch."""
    grid = Grid(tuple(a.shape[1:]), boundary=Dirichlet(0.0), device=device)
    fields = {"a": a.to(device), "f": 1.0}

    def run(_: Any) -> Any:
        return solve(_EQUATION, grid, fields=fields, rtol=TOLERANCE, throw=False)

    def finish(solution: Any) -> Outcome:
        worst = Status(int(solution.codes.max()))
        note = None if worst is Status.CONVERGED else worst.name
        return Outcome(solution.value, int(solution.statistics["iterations"].max()), note)

    return Contender(
        method,
        "sciml",
        version_of("sciml"),
        run,
        finish,
        device=device,
        loops=None,
        setup_within=lambda solution: float(solution.statistics["seconds_setup"]),
    )


def _one_by_one(
    a: Tensor,
    method: str,
    library: str,
    solve_one: Callable[[scipy.sparse.csc_matrix, Array], tuple[Array, int | None]],
) -> Contender:
    """A method that takes one matrix at a time, which is assembled within the time."""
    samples, ones = a.numpy(), numpy.ones(a[0].numel())

    def run(_: Any) -> list[tuple[Array, int | None]]:
        return [solve_one(assemble(sample), ones) for sample in samples]

    def finish(found: list[tuple[Array, int | None]]) -> Outcome:
        counts = [count for _, count in found if count is not None]
        return Outcome(numpy.stack([u.reshape(samples[0].shape) for u, _ in found]), max(counts, default=None))

    return Contender(method, library, version_of(library), run, finish)


def _superlu(symmetric: bool, matrix: scipy.sparse.csc_matrix, b: Array) -> tuple[Array, None]:
    from scipy.sparse.linalg import splu

    if symmetric:
        factors = splu(matrix, permc_spec="MMD_AT_PLUS_A", options={"SymmetricMode": True})
    else:
        factors = splu(matrix)
    return factors.solve(b), None


def _ruge_stuben(matrix: scipy.sparse.csc_matrix, b: Array) -> tuple[Array, int]:
    import pyamg

    residuals: list[float] = []
    hierarchy = pyamg.ruge_stuben_solver(matrix.tocsr())
    u = hierarchy.solve(b, tol=TOLERANCE, maxiter=500, accel="cg", residuals=residuals)
    return u, len(residuals) - 1


# The cases


def measure_generation(n: int, samples: int, bench: Bench) -> list[Row]:
    """The batch against one matrix after the other; peers run on the CPU, and beside a GPU not at all."""
    a = coefficients(TWELVE_AND_THREE, n, samples)
    contenders = [own(a, bench.device)]
    if bench.device == "cpu":
        contenders += [
            _one_by_one(a, SUPERLU, "scipy", partial(_superlu, False)),
            _one_by_one(a, SUPERLU_MINIMUM_DEGREE, "scipy", partial(_superlu, True)),
            _one_by_one(a, RUGE_STUBEN, "pyamg", _ruge_stuben),
        ]
    return _compared(generation_case(n), contenders, a, bench)


def measure_kinds(n: int, samples: int, bench: Bench) -> list[Row]:
    """This package alone on coefficients of other kinds."""
    rows = []
    for kind in OTHER_KINDS:
        a = coefficients(kind, n, samples)
        rows += _compared(kinds_case(n), [own(a, bench.device, kind.name)], a, bench)
    return rows


def _compared(case: str, contenders: list[Contender], a: Tensor, bench: Bench) -> list[Row]:
    with one_core():
        rows = bench.compare(
            case,
            contenders,
            unknowns=a.numel(),
            residual=partial(relative_residual, a),
            tolerance=TOLERANCE,
        )
    return [_with_rate(row, len(a)) for row in rows]


def _with_rate(row: Row, samples: int) -> Row:
    """The row with its samples and samples a second."""
    if row.total_seconds is None:
        return row
    rate = samples / row.total_seconds
    note = "; ".join(filter(None, [row.extra.get("note"), f"{rate:.3g} samples/s"]))
    return replace(row, extra={**row.extra, "samples": samples, "samples_per_second": rate, "note": note})
