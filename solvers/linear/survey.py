"""What the set-up of multigrid asks about a stencil, found in one pass over its coefficients."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from sciml.kernels import build, layout


@dataclass(frozen=True)
class Survey:
    """A stencil in a few numbers.

    Attributes:
        sizes: mean of |c| over batch and space, one a term.
        has_positive_couplings: whether any coefficient off the diagonal is positive.
        widest_row: the largest sum of |c| over a row, divided by its diagonal.
        contrast: the largest over the smallest diagonal entry of points that are coupled to others, the worst of a
            batch.
        has_obstacles: whether a point has no negative couplings.
    """

    sizes: Tensor
    has_positive_couplings: bool
    widest_row: float
    contrast: float
    has_obstacles: bool

    @staticmethod
    def of(coefficients: Tensor, centre: int, dimension: int) -> Survey:
        """Of the coefficients `(terms, *batch, *space)`, those of the diagonal being number `centre`."""
        compiled = coefficients.device.type == "cpu" and coefficients.dtype in layout.NAMES
        found = (_compiled if compiled and build.library() is not None else _eager)(coefficients, centre, dimension)
        terms = len(coefficients)
        sizes = found[:, :terms].mean(0) / prod(coefficients.shape[-dimension:])
        coupling, widest, _, _, detached = found[:, terms:].amax(0).tolist()
        contrast = float((found[:, terms + 3] / found[:, terms + 2]).max())
        return Survey(sizes.to(coefficients.dtype), coupling > 0, widest, contrast, detached > 0)


def _compiled(coefficients: Tensor, centre: int, dimension: int) -> Tensor:
    """The numbers of survey.hpp, `(rows, terms + 5)`, by the compiled kernel."""
    coefficients = coefficients.contiguous()
    terms, size = len(coefficients), prod(coefficients.shape[-dimension:])
    rows = prod(coefficients.shape[1:-dimension])
    found = torch.empty(rows, terms + 5, dtype=torch.float64)
    getattr(build.library(), f"survey_{layout.NAMES[coefficients.dtype]}")(
        *map(ctypes.c_int64, (rows, size, terms, centre)),
        layout.pointer(coefficients),
        layout.pointer(found),
        layout.threads(),
    )
    return found


def _eager(coefficients: Tensor, centre: int, dimension: int) -> Tensor:
    """The same in torch operations."""
    flat = coefficients.reshape(len(coefficients), prod(coefficients.shape[1:-dimension]), -1)
    sizes, diagonal = flat.abs(), flat[centre]
    others = torch.cat([flat[:centre], flat[centre + 1 :], torch.zeros_like(flat[:1])])
    positive = others.clamp_min(0.0)
    negative = others.clamp_max(0.0).sum(0)
    coupled = (others.sum(0).abs() > 1e-10 * diagonal.abs()) & (diagonal > 0)
    detached = ~(-negative > 1e-10 * (diagonal + positive.sum(0)).abs())
    columns = (
        positive.amax((0, 2)),
        (sizes.sum(0) / diagonal.abs().clamp_min(torch.finfo(flat.dtype).tiny)).amax(1),
        torch.where(coupled, diagonal, torch.inf).amin(1),
        torch.where(coupled, diagonal, 0.0).amax(1),
        detached.sum(1),
    )
    return torch.cat([sizes.sum(2).mT.double(), torch.stack([column.double() for column in columns], 1)], 1)
