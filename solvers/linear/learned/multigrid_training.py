"""Training of coarsening networks on random obstacles, jumping coefficients and anisotropy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import pi, prod
from typing import Any, final

import numpy
import scipy.fft
import scipy.ndimage
import torch
from torch import Tensor, nn

from sciml.errors import InputError
from sciml.training import Adam, Cosine, Plan, Samples, Training, train
from sciml.training.order import mixed

from ..settings import check_count
from .multigrid_coarsening import CoarseningNetwork
from .multigrid_conductances import Conductances
from .multigrid_cycle import ConductanceCycle

_TRAINED, _HELD_OUT = 0, 1
_STEPS = (4, 12)
_COARSEST = 200
_LEAST_SHARE = 0.6
_LEAST_GAIN, _LEAST_ENERGY, _FAR = 1e-3, 1e-24, 1e-12


@final
@dataclass(frozen=True, kw_only=True)
class CoarseningTraining:
    """How a coarsening network is trained.

    Args:
        largest: cells along each axis of the largest systems; those of a batch have one shape, drawn between 0.6 of
            this and this.
        samples: systems of an epoch. Each is made anew from its number whenever it is seen; none is stored.
        held_out: systems of the validation, from other random numbers.
        plan: how the network is trained.
        seed: of the systems.
    """

    largest: tuple[int, ...] = (32, 32, 32)
    samples: int = 2_000
    held_out: int = 32
    plan: Plan = field(
        default_factory=lambda: Plan(
            epochs=1, batch_size=4, optimizer=Adam(5e-3, betas=(0.9, 0.98)), schedule=Cosine(warmup=0.03), clip=1.0
        )
    )
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("samples", "held_out"):
            check_count(getattr(self, name), name)
        if not 1 <= len(self.largest) <= 3 or min(self.largest) < 8:
            raise InputError(f"largest has one to three axes of at least 8 cells, got {self.largest}")
        if prod(round(_LEAST_SHARE * n) for n in self.largest) <= _COARSEST:
            raise InputError(
                f"largest: systems of {_LEAST_SHARE} of {self.largest} must have more than {_COARSEST} cells, to be "
                f"coarsened at all"
            )


def train_coarsening(
    network: CoarseningNetwork,
    settings: CoarseningTraining,
    **options: Any,
) -> Training:
    """Train a network so that conjugate gradients with its cycle converge fast.

    Args:
        network: in float64; trained in place.
        settings: see CoarseningTraining.
        options: of `sciml.training.train`, such as folder, resume, device and progress.

    Returns:
        How it went; the "loss" is the mean logarithm of the iterations that reduce the error by a factor of e.

    Raises:
        InputError: a network in another dtype.
    """
    if network.smoothing.dtype != torch.float64:
        raise InputError(f"a coarsening network is trained in float64, this one is {network.smoothing.dtype}")
    return train(
        network,
        effort,
        RandomNetworks(settings.largest, settings.samples, mixed(settings.seed, _TRAINED)),
        settings.plan,
        validation=RandomNetworks(settings.largest, settings.held_out, mixed(settings.seed, _HELD_OUT)),
        about={"network": network.settings, "largest": list(settings.largest), "seed": settings.seed},
        **options,
    )


def effort(network: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
    """The loss of every system: the logarithm of the iterations of conjugate gradients for a factor e of error.

    Measured in the energy norm over some steps, from an error that two cycles make of a random right side: it has
    most of what is hardest to remove. Of all systems a part of their iterations counts the same, be they many or few.
    """
    axes = batch["ground"].ndim - 1
    losses = []
    for row in range(len(batch["ground"])):
        edges = tuple(batch[f"edges_{axis}"][row] for axis in range(axes))
        system = Conductances(edges, batch["ground"][row], (False,) * axes)
        diagonal = system.diagonal()
        # Cells that are cut off stand alone: their error is not to be counted.
        alive = system.incident() > 0
        cycle = ConductanceCycle.of(system, diagonal, network, _COARSEST)  # type: ignore[arg-type]
        b = torch.where(alive, batch["right_side"][row] * diagonal.sqrt(), 0.0)
        with torch.no_grad():
            error = cycle.apply(b)
            error = error + 0.3 * cycle.apply(b - system.apply(error))
            error = error / (error * system.apply(error)).sum().sqrt()
        losses.append(_logarithm_of_iterations(system, cycle, error, int(batch["steps"][row])))
    return torch.stack(losses)


def _logarithm_of_iterations(system: Conductances, cycle: ConductanceCycle, error: Tensor, steps: int) -> Tensor:
    """From an error of energy 1, over so many steps, or fewer once it has fallen as far as is asked of solvers."""
    residual = system.apply(error)
    z = cycle.apply(residual)
    direction, product = z, (residual * z).sum()
    for step in range(1, steps + 1):
        image = system.apply(direction)
        length = product / (direction * image).sum()
        error, residual = error - length * direction, residual - length * image
        energy = (error * residual).sum()
        if step == steps or float(energy.detach()) < _FAR:
            break
        z = cycle.apply(residual)
        previous, product = product, (residual * z).sum()
        direction = z + product / previous * direction
    return (2 * step / -energy.clamp(min=_LEAST_ENERGY).log().clamp(max=-_LEAST_GAIN)).log()


@final
class RandomNetworks(Samples):
    """Random networks of conductances, float64, each made from its number when it is asked for.

    Obstacles, boxes of other coefficients, two-valued and lognormal random fields, anisotropy along an axis that may
    change from region to region, walls that are open or insulated, reactions.

    Args:
        largest: cells along each axis.
        count: the number of samples.
        seed: samples of two seeds have no random number in common.
    """

    def __init__(self, largest: Sequence[int], count: int, seed: int) -> None:
        self._largest, self._count, self._seed = tuple(largest), count, seed

    def __len__(self) -> int:
        return self._count

    def batch(self, indices: Tensor) -> Mapping[str, Tensor]:
        first = torch.Generator().manual_seed(mixed(self._seed, int(indices[0]), 1))
        shape = tuple(round(n * _uniform(first, _LEAST_SHARE, 1.0)) for n in self._largest)
        rows = [self._one(shape, int(index)) for index in indices]
        return {name: torch.stack([row[name] for row in rows]) for name in rows[0]}

    def _one(self, shape: tuple[int, ...], index: int) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(mixed(self._seed, index, 0))
        system = random_network(shape, generator)
        return {
            **{f"edges_{axis}": faces for axis, faces in enumerate(system.edges)},
            "ground": system.ground,
            "right_side": torch.randn(shape, generator=generator, dtype=torch.float64),
            "steps": torch.randint(_STEPS[0], _STEPS[1] + 1, (), generator=generator),
        }


def random_network(shape: Sequence[int], generator: torch.Generator) -> Conductances:
    """A random diffusion problem on a grid of unit cells."""
    draw = generator
    kind = int(torch.randint(5, (), generator=draw))
    coefficient = torch.ones(*shape, dtype=torch.float64)
    solid = torch.zeros(*shape, dtype=torch.bool)
    if kind == 0 or _uniform(draw) < 0.3:
        for box in _boxes(shape, draw, int(_uniform(draw, 1, 14))):
            solid[box] = True
        if float(solid.double().mean()) > 0.7:
            solid.fill_(False)
    if kind == 1:
        low, high = (1e-2, 1e2) if _uniform(draw) < 0.5 else (1.0, 1e3)
        for box in _boxes(shape, draw, int(_uniform(draw, 5, 40))):
            coefficient[box] = min(max(10 ** _uniform(draw, -4, 4), low), high)
    if kind in (2, 4):
        values = _field(shape, draw, 10 ** _uniform(draw, 1, 3.2), _uniform(draw, 1.5, 3.0))
        coefficient[values > _uniform(draw, -0.7, 0.7)] = 10 ** _uniform(draw, 0.3, 3.0)
    along = [1.0] * len(shape)
    if kind == 3:
        if _uniform(draw) < 0.5:
            values = _field(shape, draw, 10 ** _uniform(draw, 1, 3), _uniform(draw, 1.5, 3.0))
            coefficient = torch.exp(values * _uniform(draw, 0, 2.5))
        along = [10 ** _uniform(draw, -2, 2) for _ in shape]
        along = [max(factor / max(along), 1e-3) for factor in along]
    directed = [coefficient * factor for factor in along]
    if kind == 4 and len(shape) > 1 and _uniform(draw) < 0.6:
        region = _field(shape, draw, 10 ** _uniform(draw, 1, 2.5), 2.0) > 0
        factor = 10 ** _uniform(draw, 0.5, 2)
        one, two = torch.randperm(len(shape), generator=draw)[:2].tolist()
        directed[one] = torch.where(region, directed[one] * factor, directed[one])
        directed[two] = torch.where(region, directed[two], directed[two] * factor)
    open_walls = torch.rand(len(shape), 2, generator=draw) < 0.5
    open_walls[0, 0] |= not bool(open_walls.any())
    solid = _with_closed_pockets(solid, open_walls)
    ground = torch.zeros_like(coefficient)
    if _uniform(draw) < 0.2:
        ground = coefficient * 10 ** _uniform(draw, -3, 0)
    held = bool(_uniform(draw) < 0.15)
    edges = []
    for axis, field_along in enumerate(directed):
        field_along = field_along.masked_fill(solid, 0.0)
        edges.append(_faces(field_along, axis, open_walls[axis].tolist()))
        if held:
            for shift in (1, -1):
                beside = solid.roll(shift, axis)
                beside.select(axis, 0 if shift == 1 else -1).fill_(False)
                ground = ground + torch.where(beside, 2 * field_along, 0.0)
    return Conductances(tuple(edges), ground.masked_fill(solid, 0.0), (False,) * len(shape))


def _with_closed_pockets(solid: Tensor, open_walls: Tensor) -> Tensor:
    """The obstacles together with the cells from which no way leads to an open wall; none if they shut all ways."""
    parts, _ = scipy.ndimage.label(~solid.numpy())
    labels = torch.from_numpy(parts)
    walls = [labels.select(axis, -side) for axis, side in open_walls.nonzero().tolist()]
    reached = torch.isin(labels, torch.cat([wall.flatten() for wall in walls])) & ~solid
    return ~reached if bool(reached.any()) else torch.zeros_like(solid)


def _faces(coefficient: Tensor, axis: int, open_walls: Sequence[bool]) -> Tensor:
    """Harmonic means inside, and twice the coefficient through open walls."""
    n = coefficient.shape[axis]
    one, two = coefficient.narrow(axis, 0, n - 1), coefficient.narrow(axis, 1, n - 1)
    both = (one > 0) & (two > 0)
    inside = torch.where(both, 2 * one * two / torch.where(both, one + two, 1.0), 0.0)
    walls = [
        2.0 * is_open * coefficient.narrow(axis, at, 1) for is_open, at in zip(open_walls, (0, n - 1), strict=True)
    ]
    return torch.cat([walls[0], inside, walls[1]], axis)


def _field(shape: Sequence[int], generator: torch.Generator, shift: float, power: float) -> Tensor:
    """A Gaussian field of covariance (-laplacian + shift)^-power on the unit cube, of standard deviation 1."""
    squares = [(pi * numpy.arange(n)) ** 2 for n in shape]
    spectrum = (sum(numpy.meshgrid(*squares, indexing="ij")) + shift) ** -power
    spectrum.flat[0] = 0.0
    noise = torch.randn(*shape, generator=generator, dtype=torch.float64).numpy()
    values = torch.from_numpy(numpy.ascontiguousarray(scipy.fft.idctn(numpy.sqrt(spectrum) * noise, norm="ortho")))
    return values / values.std()


def _boxes(shape: Sequence[int], generator: torch.Generator, count: int) -> list[tuple[slice, ...]]:
    boxes = []
    for _ in range(count):
        lengths = [int(torch.randint(1, max(1, n // 3) + 1, (), generator=generator)) for n in shape]
        starts = [
            int(torch.randint(n - length + 1, (), generator=generator))
            for n, length in zip(shape, lengths, strict=True)
        ]
        boxes.append(tuple(slice(start, start + length) for start, length in zip(starts, lengths, strict=True)))
    return boxes


def _uniform(generator: torch.Generator, low: float = 0.0, high: float = 1.0) -> float:
    return low + (high - low) * float(torch.rand((), generator=generator))
