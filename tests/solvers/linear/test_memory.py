"""Nothing that a solve builds may hang in a reference cycle: hierarchies are large, and solves are many."""

from __future__ import annotations

import gc
import weakref

import torch

import sciml
from sciml.solvers.linear import GMRES, ConjugateGradient, Multigrid


def test_hierarchies_are_freed_without_the_collector():
    equation = sciml.Equation("-div(a*grad(u)) = f")
    a = (1 + torch.rand(20, 20, dtype=torch.float64)).requires_grad_()
    gc.collect()
    gc.disable()
    try:
        for method in (ConjugateGradient(preconditioner=Multigrid()), GMRES(preconditioner=Multigrid())):
            solution = sciml.solve(equation, sciml.Grid((20, 20)), fields={"a": a, "f": 1.0}, method=method)
            solution.value.sum().backward()
            prepared = method.prepare(solution.system.operator.detach())
            prepared.transpose()
            prepared.solve(torch.ones(20, 20, dtype=torch.float64))
            watched = [weakref.ref(prepared), weakref.ref(prepared.operator), weakref.ref(solution.system.operator)]
            del solution, prepared
            assert [ref() for ref in watched] == [None] * 3
    finally:
        gc.enable()
