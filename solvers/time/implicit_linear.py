"""Linear systems with M - a J, the matrices of implicit steps: which method solves them, and its set-up kept."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from math import log10, prod
from typing import Protocol, cast, final, runtime_checkable

import torch
from torch import Tensor

from sciml.dense_operator import DenseOperator
from sciml.differentiation import refuse_transforms_but_jvp
from sciml.elements.operator import SparseBatch
from sciml.errors import InputError
from sciml.evolving import EvolvingSystem
from sciml.grid import Grid
from sciml.linear_operator import BlockOperator, Kind, LinearOperator
from sciml.mesh import Mesh
from sciml.one_thread import one_thread
from sciml.sparse import SparseOperator
from sciml.stencil import StencilOperator

from ..choice import choose_linear, direct_is_possible, slower_but_surer
from ..linear import GMRES, ConjugateGradient, Direct, Multigrid
from ..linear.base import LinearSolver, Prepared
from ..linear.direct import SingularError
from ..linear.inverse import ApproximateInverse
from ..linear.stationary import StationaryMethod
from ..mesh_methods import choose_for_jacobian, factorization_is_possible, surer_on_mesh
from ..tuning.tuner import BanditTuner

_SMALL = 200  # unknowns up to which dense factors are quicker than anything else
_DENSE = 4_000_000  # entries of matrices that are formed where nothing is known that helps an iteration

# Unknowns up to which factors, which serve for many steps, are quicker than multigrid, by dimension of the grid.
_FACTORED = {1: 5_000_000, 2: 20_000, 3: 4_000}


@runtime_checkable
class Invertible(Protocol):
    """An operator that knows its exact inverse."""

    def inverse(self) -> LinearOperator: ...


@runtime_checkable
class Preconditioned(Protocol):
    """An operator that brings an approximate inverse."""

    preconditioner: LinearOperator


@final
@dataclass(frozen=True, kw_only=True)
class DenseLU(StationaryMethod):
    """LU factorization of a batch of small dense matrices at once."""

    def validate(self) -> None:
        pass

    def describe(self) -> str:
        return "dense LU factorization"

    def setup(self, operator: LinearOperator) -> LinearOperator:
        matrices = _matrices(operator)
        with one_thread():
            factors, pivots, information = torch.linalg.lu_factor_ex(matrices)
        if bool(information.any()):
            singular = information != 0
            if bool(singular.all()):
                raise SingularError("the matrix of an implicit step is singular")
            # One row takes no other down: with the identity it will not converge.
            unit = torch.eye(operator.size, dtype=matrices.dtype, device=matrices.device)
            with one_thread():
                factors, pivots, _ = torch.linalg.lu_factor_ex(torch.where(singular[..., None, None], unit, matrices))
        return _DenseInverse(operator, factors, pivots)


class _DenseInverse(ApproximateInverse):
    def __init__(self, operator: LinearOperator, factors: Tensor, pivots: Tensor, *, transposed: bool = False) -> None:
        super().__init__(operator, Kind.LINEAR)
        self.factors = factors
        self.pivots = pivots
        self.transposed = transposed
        self._operator = operator

    def multiply(self, x: Tensor, out: Tensor | None = None) -> Tensor:
        right = x.reshape(*x.shape[: x.ndim - len(self.space)], self.size, 1)
        with one_thread():
            solved = torch.linalg.lu_solve(self.factors, self.pivots, right, adjoint=self.transposed)
        result = solved.reshape((*solved.shape[:-2], *self.space))
        return result if out is None else out.copy_(result)

    def transpose(self) -> LinearOperator:
        return _DenseInverse(self._operator, self.factors, self.pivots, transposed=not self.transposed)


def _matrices(operator: LinearOperator) -> Tensor:
    """`(*batch, n, n)`, of an operator of another kind by applying it to all unit vectors."""
    if isinstance(operator, DenseOperator):
        return operator.matrices
    n = operator.size
    unit = torch.eye(n, dtype=operator.dtype, device=operator.device)
    columns = unit.reshape(n, *(1,) * len(operator.batch), *operator.space).expand(n, *operator.batch, *operator.space)
    images = operator.apply(columns.contiguous())
    return images.reshape(*images.shape[: images.ndim - len(operator.space)], n).movedim(0, -1)


def with_axis(operator: LinearOperator) -> DenseOperator:
    """An operator on fields of one number without axes, on fields with one axis."""
    return DenseOperator(_matrices(operator), (1,))


@final
@dataclass(frozen=True, kw_only=True)
class OwnInverse(StationaryMethod):
    """The inverse that an operator knows itself."""

    def validate(self) -> None:
        pass

    def describe(self) -> str:
        return "its own inverse"

    def setup(self, operator: LinearOperator) -> LinearOperator:
        return cast(Invertible, operator).inverse()


@dataclass(frozen=True)
class _Brought:
    """The preconditioner that an operator brings."""

    def describe(self) -> str:
        return "its own preconditioner"

    def prepare(self, operator: LinearOperator, /) -> LinearOperator:
        return cast(Preconditioned, operator).preconditioner


@dataclass(frozen=True, eq=False)
class _Kept:
    """A preconditioner that was prepared before."""

    approximate: LinearOperator

    def describe(self) -> str:
        return "what was prepared before"

    def prepare(self, operator: LinearOperator, /) -> LinearOperator:
        return self.approximate


def check_linear(given: object) -> None:
    """Refuse what is neither a linear solver nor None."""
    if given is not None and not isinstance(given, LinearSolver):
        raise InputError(f"linear must be a linear solver, for example GMRES(...), or None, got {given!r}")


def choose(operator: LinearOperator, system: EvolvingSystem) -> LinearSolver:
    """The method for the matrix of an implicit step. A symmetric one is taken for definite, as it is where a step is
    not too long; the caller takes a surer method where that fails."""
    domain = system.domain
    structured = isinstance(operator, StencilOperator | BlockOperator | SparseOperator | SparseBatch)
    if isinstance(operator, Invertible):
        return OwnInverse()
    if isinstance(operator, DenseOperator) or operator.size <= _SMALL:
        return DenseLU()
    if system.linear_part is None and not structured and operator.size**2 * prod(operator.batch) <= _DENSE:
        return DenseLU()  # what would precondition an iteration is the linear part
    if isinstance(operator, Preconditioned):
        return GMRES(preconditioner=_Brought())
    if structured and isinstance(domain, Mesh):
        return choose_for_jacobian(operator, domain.dimension)[0]
    if structured and isinstance(domain, Grid):
        if direct_is_possible(operator, domain.dimension) and operator.size <= _FACTORED[domain.dimension]:
            return Direct()
        several = domain.dimension > 1 or bool(operator.batch)
        if several and operator.symmetric and isinstance(operator, StencilOperator):
            return ConjugateGradient(preconditioner=Multigrid())
        return choose_linear(operator, domain.dimension, definite=False)[0]
    if structured and not operator.batch and operator.device.type == "cpu":
        return Direct()
    return GMRES(restart=60)


def surer(chosen: LinearSolver, operator: LinearOperator, system: EvolvingSystem) -> LinearSolver | None:
    """What is to take over where the method of `choose` fails; None where nothing better is known."""
    domain = system.domain
    if isinstance(chosen, Direct | DenseLU | OwnInverse) or domain is None:
        return None
    if not isinstance(operator, StencilOperator | BlockOperator | SparseOperator | SparseBatch):
        return None
    if isinstance(domain, Mesh):
        if factorization_is_possible(operator, domain.dimension):
            return Direct()
        return surer_on_mesh(chosen, operator)
    if direct_is_possible(operator, domain.dimension):
        return Direct()
    found = slower_but_surer(chosen, operator) or choose_linear(operator, domain.dimension, definite=False)[0]
    return None if found.describe() == chosen.describe() else found


@final
class ShiftedSolver:
    """Solves with one operator M - a J, to the accuracy asked for at each time.

    Args:
        operator: as `shifted` or `shifted_linear` of the system returns it.
        system: what evolves.
        method: of its solution; None chooses.
        requested: whether the method is what somebody asked for, so that no other takes over.

    Attributes:
        given, operator: what it solves with; the second has an axis where the state of the first has none.
        method: by which it does.
        prepared: for full accuracy.
        exact: whether one application solves, so that how accurately is no matter.
        iterations: of the linear solver so far, in all, the slowest row's; a solution by factors counts as one.
    """

    def __init__(
        self, operator: LinearOperator, system: EvolvingSystem, method: LinearSolver | None, *, requested: bool
    ) -> None:
        self.given = operator
        self.scalar = operator.space == ()
        if self.scalar:
            operator = with_axis(operator)
        self.operator = operator
        self.system = system
        self.requested = requested
        self.method = choose(operator, system) if method is None else method
        self.iterations = 0
        self._prepare()

    def _prepare(self) -> None:
        """Set up, by a surer method where the first does not exist for this operator."""
        plain = self.operator.detach()
        with torch.no_grad():
            try:
                self._set_up(plain)
            except InputError:
                found = None if self.requested else surer(self.method, self.operator, self.system)
                if found is None:
                    raise
                self.method = found
                self._set_up(plain)
        self._loose: dict[int, Prepared] = {}

    def _set_up(self, operator: LinearOperator) -> None:
        method = self.method
        own = getattr(method, "preconditioner", None)
        self.approximate: LinearOperator | None = None
        if own is not None:
            self.approximate = own.prepare(operator)
            method = replace(method, preconditioner=_Kept(self.approximate))  # type: ignore[call-arg]
        self.prepared = replace(method, atol=0.0).prepare(operator)
        self.exact = isinstance(method, Direct | DenseLU | OwnInverse)

    def solve(self, right: Tensor, reduction: float, start: Tensor | None = None) -> Tensor | None:
        """The solution without gradients, its residual that much smaller than the right side; None if that fails.

        Args:
            right: `(*batch, *state_space)`, finite.
            reduction: of the residual, in (0, 1); factors do better.
            start: of an iteration.
        """
        if self.scalar:
            right, start = right.unsqueeze(-1), None
        if self.prepared.solver.stationary:
            self.iterations += 1
            value = self.prepared.apply(right)
            return value.squeeze(-1) if self.scalar else value
        while True:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # of tolerances that rounding does not let it meet
                solution = self._to(reduction).solve(right, start, throw=False)
            self.iterations += int(solution.statistics["iterations"].max())
            left = torch.as_tensor(solution.statistics["relative_residual"])
            if bool((solution.converged | (left < 10 * reduction)).all()):
                return solution.value.squeeze(-1) if self.scalar else solution.value
            found = None if self.requested else surer(self.method, self.operator, self.system)
            if found is None:
                return None
            self.method = found
            self._prepare()
            if self.prepared.solver.stationary:
                return self.solve(right.squeeze(-1) if self.scalar else right, reduction)

    def with_gradients(self, operator: LinearOperator) -> Callable[[Tensor], Tensor]:
        """right side -> solution, for an operator of the same values, differentiable with respect to both."""
        if self.scalar:
            prepared = self._tight(with_axis(operator))
            return lambda right: prepared.solve(right.unsqueeze(-1)).value.squeeze(-1)
        prepared = self._tight(operator)
        return lambda right: prepared.solve(right).value

    def near(self, operator: LinearOperator) -> Prepared:
        """Prepared for an operator that differs a little, by this one's set-up where that serves its transpose too."""
        if isinstance(self.method, DenseLU | OwnInverse):
            return replace(self.method, rtol=None, atol=0.0).prepare(operator)
        if self.prepared.solver.stationary:
            return GMRES(preconditioner=_Kept(self.prepared)).prepare(operator)
        kept = self.approximate
        serves = kept is None or kept.symmetric or isinstance(kept, ApproximateInverse | Prepared)
        method = self.prepared.solver if serves else self.method
        if isinstance(method, BanditTuner):
            method = method.settled()
        return replace(method, rtol=None, atol=0.0).prepare(operator)

    def _tight(self, operator: LinearOperator) -> Prepared:
        prepared = self.prepared
        if not prepared.solver.stationary:
            prepared = self._to(1e-12 if operator.dtype == torch.float64 else 1e-6)
        return prepared.with_gradients(operator)

    def _to(self, reduction: float) -> Prepared:
        """Prepared for a tolerance, one for each power of ten."""
        decade = round(log10(reduction) - 0.5)
        if decade not in self._loose:
            solver = replace(self.prepared.solver, rtol=10.0**decade)
            self._loose[decade] = self.prepared.with_gradients(self.prepared.operator, solver)
        return self._loose[decade]


def finite_rows(y: Tensor, axes: int) -> Tensor:
    """Which rows hold neither NaN nor infinity: bool, of y's shape without the last `axes`."""
    if not axes:
        return torch.isfinite(y)
    found = torch.isfinite(y.sum(tuple(range(-axes, 0))))
    # The sum is quicker, but that of large numbers may overflow.
    return found if bool(found.all()) else torch.isfinite(y).flatten(-axes).all(-1)


def healthy(y: Tensor, axes: int) -> Tensor | None:
    """States with a finite row in place of those that are not, so that these spoil nothing; None if there is none."""
    finite = finite_rows(y, axes)
    if bool(finite.all()):
        return y
    if not bool(finite.any()):
        return None
    some = y.reshape(-1, *y.shape[y.ndim - axes :])[int(finite.reshape(-1).nonzero()[0])]
    return torch.where(finite.reshape(*finite.shape, *(1,) * axes), y, some)


@final
class Mass:
    """The mass matrix of a system, as far as implicit steps need to know it.

    Attributes:
        identity: whether it is the identity.
        algebraic: bool, of the state's trailing shape: where its rows are zero, so that the force there vanishes at
            every time; None if there are none.
    """

    def __init__(self, system: EvolvingSystem) -> None:
        refuse_transforms_but_jvp("an implicit method")
        self.system = system
        generator = torch.Generator().manual_seed(0)
        probe = torch.rand(system.state_space, generator=generator, dtype=torch.float64).add_(0.5)
        probe = probe.to(device=system.device, dtype=system.dtype)
        with torch.no_grad():
            image = system.apply_mass(probe)
            self.identity = torch.equal(image, probe)
            image = image.reshape(-1, *system.state_space)[0]
            zero = image == 0.0
            self.algebraic = zero if bool(zero.any()) else None

    def apply(self, y: Tensor) -> Tensor:
        """M y."""
        return y if self.identity else self.system.apply_mass(y)

    def differential(self, force: Tensor) -> Tensor:
        """A force with 0 where the equations are algebraic."""
        return force if self.algebraic is None else torch.where(self.algebraic, 0.0, force)
