"""The multigrid cycle on networks of conductances as the compiled kernels run it."""

from __future__ import annotations

from math import prod

from torch import Tensor

from sciml.kernels import build, layout
from sciml.kernels.conductances import (
    WIDEST,
    CompiledCoarsening,
    CompiledNetworkCycle,
    Faces,
    Pairs,
    read_couplings,
)
from sciml.linear_operator import LinearOperator
from sciml.stencil import StencilOperator

from .multigrid_coarsening import CoarseningNetwork
from .multigrid_conductances import (
    Conductances,
    check_least,
    coarsened_axes,
    coupling_terms,
    mean_diagonal,
    without_zeros,
)
from .multigrid_cycle import direct_inverse, smoothing_weights


def compilable(operator: LinearOperator, network: CoarseningNetwork) -> bool:
    """Whether the kernels take an operator and a network."""
    return (
        build.library() is not None
        and isinstance(operator, StencilOperator)
        and operator.device.type == "cpu"
        and operator.dtype in layout.NAMES
        and not any(operator.periodic)
        and network.width <= WIDEST
        and network.smoothing.device.type == "cpu"
    )


def compiled_cycle(operator: LinearOperator, network: CoarseningNetwork, coarsest: int) -> CompiledNetworkCycle:
    """The cycle of an operator without batch, coefficients in 16 bits: see ConductanceCycle.of.

    Raises:
        InputError: for an operator that is no network of conductances.
    """
    terms = coupling_terms(operator)
    unit = float(mean_diagonal(operator))
    check_least(1.0, 0.0, unit)
    space = operator.space
    axes, coefficients = zip(*terms, strict=True)
    system, diagonal, least, least_diagonal = read_couplings(space, axes, coefficients, unit)
    check_least(least, least_diagonal)
    diagonal = without_zeros(diagonal)
    layers = [(layer.weight.detach(), layer.bias.detach()) for layer in (network.first, network.second, network.last)]
    coarsen = CompiledCoarsening(layers, float(network.mismatch.detach().exp()))
    levels: list[tuple[Faces, Tensor | None, list[Pairs], list[float]]] = []
    while prod(system.ground.shape) > coarsest:
        joined = coarsened_axes(_conductances(system))
        if not joined:
            break
        coarser, pairs = system, []
        for axis in joined:
            coarser, pair = coarsen(coarser, axis)
            pairs.append(pair)
        weights = [float(weight.detach()) for weight in smoothing_weights(network, len(levels))]
        levels.append((system, None if levels else diagonal, pairs, weights))
        system = coarser
    return CompiledNetworkCycle(
        levels,
        float(network.correction.detach().exp()),
        direct_inverse(_conductances(system)).contiguous(),
        unit,
    )


def _conductances(faces: Faces) -> Conductances:
    return Conductances(faces.edges, faces.ground, (False,) * len(faces.edges))
