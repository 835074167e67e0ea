"""exponax: ETDRK4 on the same equations, its steps taken between Fourier coefficients as by its RepeatedStepper."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..timing import Contender
from .compiled import compiled
from .problems import FieldProblem

ETDRK4 = "RepeatedStepper, order=4"


def kuramoto_sivashinsky(problem: FieldProblem) -> Contender:
    """In conservation form, which it steps as fast as the other one."""

    def stepper(exponax: Any) -> Any:
        return exponax.stepper.KuramotoSivashinskyConservative(
            1, problem.length, problem.grid[0], problem.step, single_channel=True, order=4
        )

    return _stepped(problem, stepper)


def navier_stokes(problem: FieldProblem) -> Contender:
    """In vorticity form; its vorticity has the other sign, hence the sign of the convection."""

    def stepper(exponax: Any) -> Any:
        return exponax.stepper.NavierStokesVorticity(
            2,
            problem.length,
            problem.grid[0],
            problem.step,
            diffusivity=problem.parameters["nu"],
            vorticity_convection_scale=-1.0,
            order=4,
        )

    return _stepped(problem, stepper)


def _stepped(problem: FieldProblem, stepper: Callable[[Any], Any]) -> Contender:
    def build(jax: Any) -> tuple[Callable[[Any], Any], Any]:
        import exponax

        repeated = jax.vmap(exponax.RepeatedStepper(stepper(exponax), problem.steps))
        return lambda u: repeated(u[:, None])[:, 0], jax.numpy.asarray(problem.initial)

    return compiled(ETDRK4, "exponax", build, problem.steps, 4 * problem.steps)
