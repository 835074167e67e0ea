"""How a solve ended, one code per row of the batch."""

from __future__ import annotations

from enum import IntEnum


class Status(IntEnum):
    """Outcome of one row of a batched solve; `advice` says what to do about it, `advice_in_time` if it evolved."""

    CONVERGED = 0
    MAX_ITERATIONS = 1
    STAGNATED = 2
    INDEFINITE = 3
    BREAKDOWN = 4
    NON_FINITE = 5
    SINGULAR = 6
    STEP_UNDERFLOW = 7
    MAX_STEPS = 8

    @property
    def advice(self) -> str:
        return _ADVICE.get(self) or _ADVICE_IN_TIME[self]

    @property
    def advice_in_time(self) -> str:
        return _ADVICE_IN_TIME.get(self) or _ADVICE[self]


_ADVICE = {
    Status.CONVERGED: "The true residual |b - A x| meets the tolerance.",
    Status.MAX_ITERATIONS: "The iteration limit was reached: raise max_iterations, or use a preconditioner "
    "(Multigrid() on grids, IncompleteCholesky() or ILU0() for sparse matrices). Of a nonlinear equation: raise it, or "
    "begin nearer to the solution, by another initial guess or a Continuation.",
    Status.STAGNATED: "The residual stopped falling before it met the tolerance: the tolerance is near what the dtype "
    "can resolve, or the system is singular and inconsistent. Use float64 or a larger rtol. Of a nonlinear equation: "
    "the line search found no step that lowers |F|. Give another initial guess, or a Continuation from parameters for "
    "which the equation is solved; perhaps it has no solution here.",
    Status.INDEFINITE: "The method needs a symmetric positive definite operator and preconditioner, and met a "
    "direction of negative curvature: use MINRES (symmetric), GMRES (general) or Direct.",
    Status.BREAKDOWN: "The recurrence divided by zero: use GMRES with a larger restart, another start x0, or Direct.",
    Status.NON_FINITE: "NaN or infinity appeared: check the coefficients and the right side for extreme values, and "
    "whether the preconditioner suits the operator. Of a nonlinear equation: begin where it is defined, with another "
    "initial guess (zero is not good for log(u) or 1/u).",
    Status.SINGULAR: "The Jacobian is singular, or too near to it for the linear solver: a fold or bifurcation of the "
    "solutions, a coefficient that vanishes, or a solution that nothing fixes. Give another initial guess, a "
    "Continuation that ends earlier, a condition that fixes the value, or linear=Direct().",
}

_ADVICE_IN_TIME = {
    Status.CONVERGED: "It came to its end.",
    Status.STAGNATED: "The equations within a step could not be solved: take smaller steps, or rtol and atol in place "
    "of step; perhaps the solution ends here.",
    Status.NON_FINITE: "NaN or infinity appeared in the state: the solution grows without bound, comes to where the "
    "equation is not defined (u below 0 in log(u), a constraint without a solution), or has lost all accuracy. End "
    "before that, or take smaller steps or tolerances.",
    Status.STEP_UNDERFLOW: "The step size fell below what the time can resolve: the solution grows without bound in "
    "finite time, or the right-hand side jumps, or the tolerance is beyond the dtype. Loosen rtol and atol, end before "
    "that time, or take an implicit method if the equation is stiff.",
    Status.MAX_STEPS: "The limit of steps was reached: raise max_steps in the method's controller, loosen the "
    "tolerances, or take an implicit or exponential method if the equation is stiff.",
}
