"""Where the entries of a matrix on the points of a mesh stand, and which entries of element matrices each one sums."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import combinations

import numpy
import torch
from torch import Tensor
from torch.autograd import forward_ad

from ..csr import csr_from_starts
from ..differentiation import kept
from ..kernels.buckets import buckets, runs_of_pairs
from ..kernels.sparse import sum_segments
from ..mesh import Mesh


@dataclass(frozen=True, eq=False)
class SegmentSum:
    """Sums over the segments of a permuted vector.

    Attributes:
        starts: `(count + 1,)`, where in `order` each segment starts.
        order: `(k,)`, the entries that are summed, segment by segment.
    """

    starts: Tensor
    order: Tensor

    def __call__(self, values: Tensor) -> Tensor:
        """`(*batch, k)` -> `(*batch, count)`."""
        if (torch.is_grad_enabled() and values.requires_grad) or forward_ad._current_level >= 0:
            return values.new_zeros(*values.shape[:-1], len(self.starts) - 1).index_add(-1, self.targets, values)
        sums = sum_segments(self.starts, self.order, values)
        if sums is not None:
            return sums
        matrix = self._double if values.dtype == torch.float64 else self._single
        if values.ndim == 1:
            return torch.mv(matrix, values)
        rows = values.reshape(-1, values.shape[-1])
        return torch.stack([torch.mv(matrix, row) for row in rows]).reshape(*values.shape[:-1], -1)

    @kept
    def targets(self) -> Tensor:
        """`(k,)` int64, the segment that each entry of the vector belongs to."""
        segments = torch.arange(len(self.starts) - 1, device=self.starts.device)
        result = torch.empty(len(self.order), dtype=torch.int64, device=self.starts.device)
        result[self.order.long()] = torch.repeat_interleave(segments, self.starts.diff())
        return result

    def __getstate__(self) -> dict[str, object]:
        """Without the matrices: torch does not copy CSR tensors."""
        return {name: value for name, value in self.__dict__.items() if name not in ("_double", "_single")}

    @kept
    def _double(self) -> Tensor:
        return self._ones(torch.float64)

    @kept
    def _single(self) -> Tensor:
        return self._ones(torch.float32)

    def _ones(self, dtype: torch.dtype) -> Tensor:
        ones = torch.ones(len(self.order), dtype=dtype, device=self.order.device)
        return csr_from_starts(self.starts, self.order, ones, (len(self.starts) - 1, len(self.order)))


@dataclass(frozen=True, eq=False)
class Pattern:
    """The sparsity pattern of P1 elements on a mesh.

    An edge with the points i < j has one entry above the diagonal and one below. The pairs of local vertices are in the
    order 01, 02, 12 or 01, 02, 03, 12, 13, 23.

    Attributes:
        size: number of points n.
        cells: `(d + 1, m)`.
        edge_sum: from `(pairs * m,)` to the e edges.
        end_sum: from `(2 * e,)`, first the larger and then the smaller end of each edge, to points.
        starts, columns: the CSR pattern of the matrix.
        places: `(2 * e + n,)`, from where in (below, diagonal, above) each entry of the matrix comes.
    """

    size: int
    cells: Tensor
    edge_sum: SegmentSum
    end_sum: SegmentSum
    starts: Tensor
    columns: Tensor
    places: Tensor

    @property
    def edges(self) -> int:
        """Number of edges."""
        return len(self.end_sum.order) // 2

    @cached_property
    def pairs(self) -> tuple[tuple[int, int], ...]:
        """The local vertices of each pair."""
        return tuple(combinations(range(len(self.cells)), 2))

    @kept
    def swapped(self) -> Tensor:
        """bool `(pairs, m)`, whether the first vertex of a pair has the larger number."""
        return torch.stack([self.cells[a] > self.cells[b] for a, b in self.pairs])

    @kept
    def cell_edges(self) -> Tensor:
        """`(pairs, m)`, the edge of each pair."""
        return self.edge_sum.targets.reshape(len(self.pairs), -1)

    @kept
    def ends(self) -> Tensor:
        """`(2, e)`, the points of each edge, the larger first."""
        return self.end_sum.targets.reshape(2, -1)

    @kept
    def point_sum(self) -> SegmentSum:
        """From `((d + 1) * m,)` to points."""
        return SegmentSum(*buckets(self.cells.to(self.starts.dtype).reshape(-1), self.size))

    @kept
    def entries(self) -> tuple[Tensor, Tensor]:
        """Row and column of every entry, int64."""
        points = torch.arange(self.size, device=self.columns.device)
        return torch.repeat_interleave(points, self.starts.diff()), self.columns.long()

    @kept
    def place_of(self) -> Tensor:
        """`(2 * e + n,)`, where in the entries each of (below, diagonal, above) stands."""
        result = torch.empty_like(self.places, dtype=torch.int64)
        result[self.places.long()] = torch.arange(len(self.places), device=self.places.device)
        return result

    @kept
    def transposed(self) -> Tensor:
        """`(2 * e + n,)`, for each entry the place of the one across the diagonal."""
        below, diagonal, above = self.place_of.split([self.edges, self.size, self.edges])
        return torch.cat([above, diagonal, below])[self.places.long()]

    @property
    def diagonal(self) -> Tensor:
        """`(n,)`, where in the entries the diagonal stands."""
        return self.place_of[self.edges : -self.edges]

    def entries_of(self, points: Tensor) -> Tensor:
        """Where in the entries the rows of the points stand for which a bool `(n,)` is true."""
        first, count = self.starts[:-1][points].long(), self.starts.diff()[points].long()
        before = count.cumsum(0) - count
        return torch.repeat_interleave(first - before, count) + torch.arange(int(count.sum()), device=points.device)

    @kept
    def components(self) -> tuple[int, Tensor]:
        """The number of connected parts of the mesh, and `(n,)` which part each point belongs to."""
        from scipy import sparse

        indices, starts = self.columns.cpu().numpy(), self.starts.cpu().numpy()
        graph = sparse.csr_array(
            (numpy.ones(len(indices), dtype=numpy.int8), indices, starts), shape=(self.size, self.size)
        )
        # Every edge goes both ways, so that the strong parts are the parts, and no transpose is needed to find them.
        count, labels = sparse.csgraph.connected_components(graph, connection="strong")
        return int(count), torch.from_numpy(labels).to(self.places.device)

    def gather(self, above: Tensor, below: Tensor, diagonal: Tensor) -> Tensor:
        """The entries of the matrix, `(*batch, entries)`, from those above, below and on the diagonal."""
        batch = torch.broadcast_shapes(above.shape[:-1], below.shape[:-1], diagonal.shape[:-1])
        parts = [part.expand(*batch, part.shape[-1]) for part in (below, diagonal, above)]
        return torch.cat(parts, -1).index_select(-1, self.places)


def pattern_of(mesh: Mesh) -> Pattern:
    """The pattern of a mesh, computed once and kept as long as the mesh."""
    return mesh.remember(_make_pattern)


def _make_pattern(mesh: Mesh) -> Pattern:
    return make_pattern(mesh.cells, len(mesh.points))


def make_pattern(cells: Tensor, size: int) -> Pattern:
    """The pattern of cells `(m, d + 1)` on points numbered below `size`, in a number of operations linear in m."""
    short = torch.int32 if max(size, 8 * cells.numel()) < 2**31 else torch.int64
    corners = cells.to(short).mT.contiguous()
    pairs = list(combinations(corners, 2))
    low, high = (torch.cat([choose(*pair) for pair in pairs]) for choose in (torch.minimum, torch.maximum))
    slots, begins, low, high = runs_of_pairs(low, high, size)
    edge_sum = SegmentSum(begins, slots)
    # Edges with the same larger point are in the order of the smaller one, and the other way round.
    points = torch.arange(size, dtype=short, device=cells.device)
    end_sum = SegmentSum(*buckets(torch.cat([high, low]), size))
    starts, places = buckets(torch.cat([high, points, low]), size)
    columns = torch.cat([low, points, high]).index_select(0, places)
    return Pattern(size, corners.long(), edge_sum, end_sum, starts, columns, places)
