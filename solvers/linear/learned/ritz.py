"""Ritz vectors by the Lanczos method, within a limit of memory."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import final

import torch
from torch import Tensor

from sciml.errors import InputError
from sciml.linear_operator import LinearOperator, refuse_batch

from ..settings import check_count, check_number

_COLUMNS = 1 << 15
_LOWEST = 0.5  # of the vectors that memory has room for, kept through a restart


@final
@dataclass(frozen=True, eq=False)
class RitzVectors:
    """Approximate eigenvectors of a symmetric operator.

    Attributes:
        values: Ritz values, ascending, float64 `(count,)`.
        vectors: orthonormal, `(count, *space)`.
        residuals: |A v - value v| of each, float64 `(count,)`.
        products: products with A that were made.
        restarts: how often the lowest Ritz vectors were kept and the others dropped.
    """

    values: Tensor
    vectors: Tensor
    residuals: Tensor
    products: int
    restarts: int

    def describe(self) -> str:
        """What was kept, in a sentence."""
        count, space = len(self.values), tuple(self.vectors.shape[1:])
        converged = int((self.residuals <= 1e-3 * self.values.abs()).sum())
        megabytes = self.vectors.nbytes / 2**20
        restarted = f", {self.restarts} restarts with the lowest half" if self.restarts else ""
        return (
            f"{count} Ritz vectors of {space} in {megabytes:.0f} MiB from {self.products} products{restarted}; values "
            f"{float(self.values[0]):.4g} to {float(self.values[-1]):.4g}, {converged} with a residual below 1e-3"
        )


def ritz_vectors(
    operator: LinearOperator,
    count: int,
    *,
    memory: float = 2.0**30,
    restarts: int | None = None,
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
) -> RitzVectors:
    """Ritz vectors of a symmetric operator, from the image of a random vector.

    Lanczos steps with full reorthogonalization fill the memory. If it has room for all `count` vectors, that is all,
    and they are the Ritz vectors of one Krylov space: the ends of the spectrum converged, the middle not. Otherwise
    the lower half of the Ritz vectors stays and the steps go on from there (Wu and Simon, Thick-restart Lanczos method
    for large symmetric eigenvalue problems, SIAM J. Matrix Anal. Appl. 22 (2000) 602-616), until as many products as
    vectors were asked for are made; what is returned is what there was room for, its lower half converged further.
    Ritz values below 1e-8 of the largest belong to the null space and are left out.

    Args:
        operator: symmetric, without batch.
        count: how many vectors are wanted.
        memory: bytes that the vectors may take.
        restarts: how many of them, whatever the memory; None: as many as `count` asks for.
        dtype: of the vectors; sums are in float64 where it matters.
        seed: of the first vector.

    Raises:
        InputError: an operator that is not symmetric or has a batch, a memory with room for fewer than 4 vectors, or
            another setting out of range.
    """
    refuse_batch(operator)
    check_count(count, "count")
    check_number(memory, "memory", 0.0, inf)
    if restarts is not None and (not isinstance(restarts, int) or restarts < 0):
        raise InputError(f"restarts must be None or a whole number of at least 0, got {restarts!r}")
    if dtype not in (torch.float32, torch.float64):
        raise InputError(f"dtype must be torch.float32 or float64, got {dtype!r}")
    if not operator.symmetric:
        raise InputError("Ritz vectors are of a symmetric operator, and this one is not known to be")
    size, width = operator.size, torch.finfo(dtype).bits // 8
    room = int(memory // (size * width)) - 1
    capacity = min(count, room, size)
    least = min(4, count, size)
    if capacity < least:
        needed = (least + 1) * size * width
        raise InputError(f"memory for {max(room, 0)} vectors of {size} unknowns: at least {needed} bytes are needed")
    with torch.no_grad():
        return _Lanczos(operator.detach().to(dtype), capacity, seed).run(count, restarts)


class _Lanczos:
    """Basis V, row by row; projected matrix T = V A V^T, which after a restart is an arrow and then tridiagonal."""

    def __init__(self, operator: LinearOperator, capacity: int, seed: int) -> None:
        self.operator = operator
        self.generator = torch.Generator().manual_seed(seed)
        self.basis = torch.empty(capacity + 1, operator.size, dtype=operator.dtype, device=operator.device)
        self.projected = torch.zeros(capacity, capacity, dtype=torch.float64)
        self.filled = 0
        self.products = 0
        self._put(self._apply(self._random()))

    def run(self, count: int, restarts: int | None) -> RitzVectors:
        capacity, done = len(self.projected), 0
        while True:
            coupling = self._fill()
            values, rotation = torch.linalg.eigh(self.projected)
            enough = self.products > count if restarts is None else done >= restarts
            if enough or capacity < 4 or capacity == self.operator.size or (restarts is None and capacity == count):
                break
            kept = max(1, int(_LOWEST * capacity))
            self._rotate(rotation[:, :kept])
            self.basis[kept] = self.basis[capacity]
            self.projected.zero_()
            self.projected.diagonal()[:kept] = values[:kept]
            arrow = coupling * rotation[-1, :kept]
            self.projected[kept, :kept] = self.projected[:kept, kept] = arrow
            self.filled, done = kept, done + 1
        self._rotate(rotation)
        residuals = (coupling * rotation[-1]).abs()
        first = int((values < 1e-8 * values[-1]).sum())
        vectors = self.basis[first:capacity].reshape(-1, *self.operator.space)
        return RitzVectors(values[first:], vectors, residuals[first:], self.products, done)

    def _fill(self) -> float:
        """Lanczos steps until the basis is full; the coupling to the vector that follows."""
        coupling = 0.0
        for step in range(self.filled, len(self.projected)):
            image = self._apply(self.basis[step])
            own = float(torch.dot(image.double(), self.basis[step].double()))
            self.projected[step, step] = own
            coupling = self._put(image, step + 1)
            if step + 1 < len(self.projected):
                self.projected[step, step + 1] = self.projected[step + 1, step] = coupling
        return coupling

    def _put(self, vector: Tensor, place: int = 0) -> float:
        """Orthonormalize a vector against the basis, put it into its place, and return what was left of its norm."""
        before = float(vector.norm())
        self._orthogonalize(vector, place)
        left = float(vector.norm())
        if not left > 1e2 * torch.finfo(vector.dtype).eps * before:
            # The Krylov space is invariant: the next one begins at random.
            left, vector = 0.0, self._random()
            self._orthogonalize(vector, place)
        torch.div(vector, vector.norm(), out=self.basis[place])
        return left

    def _orthogonalize(self, vector: Tensor, place: int) -> None:
        for _ in range(2):
            vector -= self.basis[:place].mT @ (self.basis[:place] @ vector)

    def _rotate(self, rotation: Tensor) -> None:
        """The first rows of the basis become its combinations, in place, some columns at a time."""
        rows, kept = rotation.shape
        turned = rotation.mT.to(self.basis)
        for part in self.basis.split(_COLUMNS, dim=1):
            part[:kept] = turned @ part[:rows]

    def _apply(self, vector: Tensor) -> Tensor:
        self.products += 1
        return self.operator.apply(vector.reshape(self.operator.space).contiguous()).reshape(-1)

    def _random(self) -> Tensor:
        return torch.randn(self.operator.size, generator=self.generator).to(self.basis)
