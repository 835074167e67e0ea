"""The compiled kernels for networks of conductances: their coarsening in pairs, and the multigrid cycle on them."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from . import build, layout

_WIDE = 16  # numbers at a time, and at whose multiples fields begin
WIDEST = 64
"""The most hidden values of a coarsening network that the kernels have room for."""

_Pointers = ctypes.c_void_p * 3


class NetworkTable(ctypes.Structure):
    """`CoarseningNetwork` of conductances.hpp."""

    _fields_ = (
        ("width", ctypes.c_int64),
        ("first", ctypes.c_void_p),
        ("second", ctypes.c_void_p),
        ("last", ctypes.c_void_p),
        ("mismatch", ctypes.c_float),
    )


class PairingTable(ctypes.Structure):
    """`Pairing` of conductances.hpp."""

    _fields_ = (
        ("cells", layout.Three),
        ("axis", ctypes.c_int64),
        ("edges", _Pointers),
        ("ground", ctypes.c_void_p),
        ("coarse_edges", _Pointers),
        ("coarse_ground", ctypes.c_void_p),
        ("own_first", ctypes.c_void_p),
        ("own_second", ctypes.c_void_p),
        ("outward_first", ctypes.c_void_p),
        ("outward_second", ctypes.c_void_p),
        ("scratch", ctypes.c_void_p),
    )


class PairsTable(ctypes.Structure):
    """`Pairs` of network_cycle.hpp."""

    _fields_ = (
        ("axis", ctypes.c_int64),
        ("own_first", ctypes.c_void_p),
        ("own_second", ctypes.c_void_p),
        ("outward_first", ctypes.c_void_p),
        ("outward_second", ctypes.c_void_p),
    )


class LevelTable(ctypes.Structure):
    """`NetworkLevel` of network_cycle.hpp."""

    _fields_ = (
        ("cells", layout.Three),
        ("transfers", ctypes.c_int64),
        ("sweeps", ctypes.c_int64),
        ("weights", ctypes.c_void_p),
        ("edges", _Pointers),
        ("ground", ctypes.c_void_p),
        ("inverse", ctypes.c_void_p),
        ("transfer", PairsTable * 3),
        ("b", ctypes.c_void_p),
        ("x", ctypes.c_void_p),
        ("spare", ctypes.c_void_p),
        ("half", ctypes.c_void_p),
        ("quarter", ctypes.c_void_p),
    )


class CycleTable(ctypes.Structure):
    """`NetworkCycle` of network_cycle.hpp."""

    _fields_ = (
        ("levels", ctypes.c_void_p),
        ("depth", ctypes.c_int64),
        ("correction", ctypes.c_double),
        ("unit", ctypes.c_double),
        ("inverse", ctypes.c_void_p),
        ("coarse_size", ctypes.c_int64),
        ("b", ctypes.c_void_p),
        ("x", ctypes.c_void_p),
    )


class CouplingsTable(ctypes.Structure):
    """`Couplings` of conductances.hpp."""

    _fields_ = (
        ("cells", layout.Three),
        ("terms", ctypes.c_int64),
        ("axis", ctypes.c_void_p),
        ("strides", ctypes.c_void_p),
        ("coefficients", ctypes.c_void_p),
    )


@dataclass(frozen=True)
class Faces:
    """A network of conductances: float32, contiguous, on the CPU, without batch, no axis of which wraps.

    Attributes:
        edges: one tensor an axis, with one more along the axis than there are cells.
        ground: `space`.
    """

    edges: tuple[Tensor, ...]
    ground: Tensor


@dataclass(frozen=True)
class Pairs:
    """Weights of interpolation from pairs of cells along an axis, each of the pairs' shape: see PairTransfer."""

    axis: int
    own_first: Tensor
    own_second: Tensor
    outward_first: Tensor
    outward_second: Tensor


def read_couplings(
    space: Sequence[int], axes: Sequence[int], coefficients: Sequence[Tensor], unit: float
) -> tuple[Faces, Tensor, float, float]:
    """The conductances of a symmetric stencil, see `conductances_of`.

    Args:
        space: shape of the grid.
        axes: along which each term leads to the next cell; -1 for terms on the diagonal.
        coefficients: of the terms, broadcastable to `space` and of as many axes, on the CPU.
        unit: by which all is divided.

    Returns:
        The conductances, the diagonal, and the least of each.
    """
    dimension = len(space)
    terms = layout.TermTable([[0] * dimension for _ in coefficients], coefficients, space, ())
    strides = [number for place in range(terms.count) for number in terms.strides[4 * place + 1 : 4 * place + 4]]  # type: ignore[index]
    edges = tuple(
        torch.empty([n + (k == axis) for k, n in enumerate(space)], dtype=torch.float32) for axis in range(dimension)
    )
    ground, diagonal = (torch.empty(*space, dtype=torch.float32) for _ in range(2))
    along, steps = layout.integers(*(a if a < 0 else a + 3 - dimension for a in axes)), layout.integers(*strides)
    table = CouplingsTable(
        layout.three(space, 1),
        terms.count,
        layout.address(along),
        layout.address(steps),
        layout.address(terms.addresses),
    )
    least = (ctypes.c_double * 2)()
    getattr(build.library(), f"read_couplings_{layout.NAMES[coefficients[0].dtype]}")(
        ctypes.byref(table),
        ctypes.c_double(unit),
        _three(edges),
        layout.pointer(ground),
        layout.pointer(diagonal),
        least,
        layout.threads(),
    )
    return Faces(edges, ground), diagonal, least[0], least[1]


class CompiledCoarsening:
    """A coarsening network for the kernels.

    Args:
        layers: weight and bias of its three layers.
        mismatch: weight of the energy by which neighbours' interpolations differ.
    """

    def __init__(self, layers: Sequence[tuple[Tensor, Tensor]], mismatch: float) -> None:
        self.held = [torch.cat([bias.unsqueeze(1), weight], 1).float().contiguous() for weight, bias in layers]
        self.table = NetworkTable(len(layers[0][1]), *(layer.data_ptr() for layer in self.held), mismatch)

    def __call__(self, fine: Faces, axis: int) -> tuple[Faces, Pairs]:
        """Join the cells in pairs along an axis."""
        cells, axes = list(fine.ground.shape), fine.ground.ndim
        pairs = [(n + 1) // 2 if k == axis else n for k, n in enumerate(cells)]
        edges = tuple(
            torch.empty([n + (k == other) for k, n in enumerate(pairs)], dtype=torch.float32) for other in range(axes)
        )
        ground, *weights = (torch.empty(pairs, dtype=torch.float32) for _ in range(5))
        scratch = torch.empty(11 * prod(pairs), dtype=torch.float32)
        table = PairingTable(
            layout.three(cells, 1),
            axis + 3 - axes,
            _three(fine.edges),
            fine.ground.data_ptr(),
            _three(edges),
            ground.data_ptr(),
            *(weight.data_ptr() for weight in weights),
            scratch.data_ptr(),
        )
        build.library().pair_up_float32(ctypes.byref(self.table), ctypes.byref(table), layout.threads())  # type: ignore[union-attr]
        return Faces(edges, ground), Pairs(axis + 3 - axes, *weights)


class CompiledNetworkCycle:
    """The tables of one hierarchy of networks, and the fields that a cycle works on. Not for two threads at once.

    Args:
        levels: finest first: a network, the diagonal of cells that are cut off or None, the pairs, axis after axis, to
            the next, and the weights of the smoothing steps.
        correction: factor on corrections.
        inverse: `(size, size)`, float32, of the coarsest operator.
        unit: mean of the operator's diagonal.
    """

    def __init__(
        self,
        levels: Sequence[tuple[Faces, Tensor | None, Sequence[Pairs], Sequence[float]]],
        correction: float,
        inverse: Tensor,
        unit: float,
    ) -> None:
        self.size = levels[0][0].ground.numel() if levels else len(inverse)
        tables = (LevelTable * len(levels))()
        self.held: list[object] = [tables, inverse]
        for table, (network, diagonal, pairs, weights) in zip(tables, levels, strict=True):
            self._lay_out(table, network, diagonal, pairs)
            numbers = (ctypes.c_double * len(weights))(*weights)
            table.sweeps, table.weights = len(weights), layout.address(numbers)
            self.held.append(numbers)
        fields = torch.zeros(2, len(inverse), dtype=torch.float32)
        self.held.append(fields)
        self.table = CycleTable(
            layout.address(tables),
            len(levels),
            correction,
            unit,
            inverse.data_ptr(),
            len(inverse),
            fields[0].data_ptr(),
            fields[1].data_ptr(),
        )

    def __call__(self, r: Tensor, out: Tensor) -> float:
        """out = B r; returns r . B r. For contiguous fields of one dtype."""
        function = getattr(build.library(), f"cycle_network_{layout.NAMES[r.dtype]}")
        function.restype = ctypes.c_double
        product: float = function(
            ctypes.byref(self.table),
            layout.pointer(r),
            layout.pointer(out),
            ctypes.c_int64(self.size),
            layout.threads(),
        )
        return product

    def _lay_out(self, table: LevelTable, network: Faces, diagonal: Tensor | None, pairs: Sequence[Pairs]) -> None:
        space = network.ground.shape
        size = network.ground.numel()
        zeros = -(-prod(space[1:]) // _WIDE) * _WIDE
        length = zeros + -(-size // _WIDE) * _WIDE + zeros + _WIDE
        coefficients = torch.zeros(len(space) + 2, length, dtype=torch.bfloat16)
        fields = torch.zeros(3, length, dtype=torch.float32)
        places = [row.data_ptr() + zeros * row.element_size() for row in coefficients]
        table.cells = layout.three(space, 1)
        table.transfers = len(pairs)
        table.edges = _Pointers(*[None] * (3 - len(space)), *places[:-2])
        table.ground, table.inverse = places[-2:]
        table.b, table.x, table.spare = (row.data_ptr() + zeros * row.element_size() for row in fields)
        kept: list[object] = [coefficients, fields]
        for place, pair in enumerate(pairs):
            halves = [
                weight.to(torch.bfloat16)
                for weight in (pair.own_first, pair.own_second, pair.outward_first, pair.outward_second)
            ]
            table.transfer[place] = PairsTable(pair.axis, *(weight.data_ptr() for weight in halves))
            between = torch.empty(pair.own_first.numel(), dtype=torch.float32)
            kept += [halves, between]
            if place < 2:
                setattr(table, ("half", "quarter")[place], between.data_ptr())
        self.held.append(kept)
        build.library().lay_out_network(  # type: ignore[union-attr]
            ctypes.byref(table),
            _three(network.edges),
            layout.pointer(network.ground),
            None if diagonal is None else layout.pointer(diagonal),
            layout.threads(),
        )


def _three(tensors: Sequence[Tensor]) -> ctypes.Array[ctypes.c_void_p]:
    return _Pointers(*[None] * (3 - len(tensors)), *(tensor.data_ptr() for tensor in tensors))
