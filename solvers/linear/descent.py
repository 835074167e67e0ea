"""Conjugate gradients around a multigrid cycle in one compiled call for many steps, row by row."""

from __future__ import annotations

from math import inf

import torch
from torch import Tensor

from sciml.kernels import layout
from sciml.kernels.cycle import CompiledCycle
from sciml.kernels.stencil import CompiledStencil

from .base import Iteration

_UPDATES = 20_000_000  # unknowns times steps of one call, about a second, so that Ctrl-C is heard


def run_descent(task: Iteration, stencil: CompiledStencil, cycle: CompiledCycle, p: Tensor) -> None:
    """Advance a task by the method of `_descend` in conjugate_gradient.py.

    Args:
        task: fields of one dtype, contiguous, on the CPU.
        stencil: its operator.
        cycle: the preconditioner, for the rows of the task.
        p: a field for the direction.
    """
    rows = task.rows
    rz = rows.scalars(-1.0, p.device)
    tolerance = task.tolerance.expand(rows.batch).to(torch.float64).contiguous()
    outcome, iterations = task.codes.clone(), task.iterations.clone()
    table = layout.DescentTable(
        stencil.plain, *map(Tensor.data_ptr, (task.x, task.r, p, rz, tolerance, iterations, outcome))
    )
    left = task.max_iterations
    least, updates = (8, _UPDATES) if task.deadline == inf else (1, _UPDATES // 100)
    while left > 0 and not task.expired and bool((outcome == Iteration.RUNNING).any()):
        steps = min(left, max(least, updates // p.numel()))
        norms = torch.empty(steps, rows.count, dtype=torch.float64)
        before = iterations.clone()
        cycle.descend(table, p.dtype, norms)
        used = max(1, int((iterations - before).max()))
        task.history.extend(norms[:used].reshape(used, *rows.batch).unbind(0))
        left -= steps
    task.codes, task.iterations = outcome, iterations
