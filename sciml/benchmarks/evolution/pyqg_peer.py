"""pyqg-jax: the same two layers, stepped by the third-order Adams-Bashforth method, one right-hand side a step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..timing import Contender
from .compiled import compiled
from .problems import BETA, DRAG, RADIUS, SHEAR, THICKNESSES, FieldProblem

AB3 = "QGModel, AB3Stepper"

# It damps waves beyond 0.65 of the highest, every step, instead of leaving out the upper third; so strong a filter cuts
# them off.
_CUT = 1e12


def quasi_geostrophic(problem: FieldProblem) -> Contender:
    """Axes are in the order y, x there."""

    def build(jax: Any) -> tuple[Callable[[Any], Any], Any]:
        from pyqg_jax.qg_model import QGModel
        from pyqg_jax.state import Precision
        from pyqg_jax.steppers import AB3Stepper, SteppedModel

        model = QGModel(
            nx=problem.grid[0],
            L=problem.length,
            rek=DRAG,
            filterfac=_CUT,
            beta=BETA,
            rd=RADIUS,
            delta=THICKNESSES,
            U1=SHEAR,
            U2=0.0,
            precision=Precision.DOUBLE,
        )
        stepped = SteppedModel(model, AB3Stepper(dt=problem.step))
        empty = model.create_initial_state(jax.random.key(0))

        def one(q: Any) -> Any:
            state = stepped.initialize_stepper_state(empty.update(q=q.swapaxes(-1, -2)))
            state, _ = jax.lax.scan(lambda now, _: (stepped.step_model(now), None), state, None, length=problem.steps)
            return state.state.q.swapaxes(-1, -2)

        return jax.vmap(one), jax.numpy.asarray(problem.initial)

    return compiled(AB3, "pyqg-jax", build, problem.steps, problem.steps)
