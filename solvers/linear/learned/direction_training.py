"""Training of direction networks on residuals that are combined from Ritz vectors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import inf
from typing import Any, final

import torch
from torch import Tensor, nn

from sciml.errors import InputError
from sciml.linear_operator import LinearOperator, refuse_batch
from sciml.training import Adam, OneCycle, Plan, Samples, Training, train
from sciml.training.order import mixed

from ..settings import check_count, check_number
from .ritz import RitzVectors, ritz_vectors

_TRAINED, _HELD_OUT = 0, 1


@final
@dataclass(frozen=True, kw_only=True)
class DirectionTraining:
    """How a direction network is trained for an operator.

    The published training has 10,000 Ritz vectors of 64x64x64 unknowns, which is 21 GB in float64, 20,000 samples,
    batches of 10 and Adam at a rate of 1e-4.

    Args:
        vectors: Ritz vectors that residuals are combined from.
        memory: bytes that they may take, see `ritz_vectors`.
        low_share: of the vectors, those of the lowest Ritz values, that have the greater weight; in (0, 1].
        low_weight: standard deviation of their coefficients; the others have 1.
        noise: standard deviation of the coefficients of what is added in all directions alike, those outside the span
            of the Ritz vectors too. The published training has none, and its networks know nothing but that span.
        mirrored: whether residuals are also reversed along axes and have axes exchanged, at random: for operators that
            are unchanged by that, as on a cube with the same condition on all faces.
        samples: residuals of an epoch. Each is made anew from its number whenever it is seen; none is stored.
        held_out: residuals of the validation, from other random numbers.
        plan: how the network is trained.
        seed: of the Ritz vectors and of the residuals.
    """

    vectors: int = 1_000
    memory: float = 2.0**30
    low_share: float = 0.55
    low_weight: float = 9.0
    noise: float = 1.0
    mirrored: bool = False
    samples: int = 20_000
    held_out: int = 64
    plan: Plan = field(
        default_factory=lambda: Plan(epochs=1, batch_size=8, optimizer=Adam(1e-3), schedule=OneCycle(), clip=1.0)
    )
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("vectors", "samples", "held_out"):
            check_count(getattr(self, name), name)
        check_number(self.memory, "memory", 0.0, inf)
        check_number(self.low_share, "low_share", 0.0, 1.0, "(]")
        check_number(self.low_weight, "low_weight", 0.0, inf)
        check_number(self.noise, "noise", 0.0, inf, "[)")


def train_direction_network(
    network: nn.Module,
    operator: LinearOperator,
    settings: DirectionTraining,
    **options: Any,
) -> Training:
    """Train a network to return directions along which the residual of an operator falls most.

    Args:
        network: from residuals `(rows, *space)` of norm 1 to directions, such as DirectionNetwork; trained in place.
        operator: symmetric positive definite, without batch.
        settings: see DirectionTraining.
        options: of `sciml.training.train`, such as folder, resume, device (that of the operator) and progress.

    Returns:
        How it went; the validation's "loss" is the mean of |b - A x|^2 / |b|^2 after one step from x = 0.

    Raises:
        InputError: an operator that is not symmetric, or Ritz vectors for which there is no memory.
    """
    ritz = ritz_vectors(operator, settings.vectors, memory=settings.memory, seed=settings.seed)
    about = {
        "operator": {"space": list(operator.space), "kind": type(operator).__name__},
        "ritz": {"vectors": len(ritz.values), "products": ritz.products, "restarts": ritz.restarts},
        "residuals": {
            name: getattr(settings, name) for name in ("low_share", "low_weight", "noise", "mirrored", "seed")
        },
        "network": getattr(network, "settings", {}),
    }
    return train(
        network,
        DirectionLoss(operator),
        RitzResiduals.of(ritz, settings, _TRAINED),
        settings.plan,
        validation=RitzResiduals.of(ritz, settings, _HELD_OUT),
        about=about,
        **options,
    )


@final
class RitzResiduals(Samples):
    """Random combinations of Ritz vectors, of norm 1, float32, each made from its number when it is asked for.

    Args:
        ritz: what is combined.
        count: the number of samples.
        low_share, low_weight, noise, mirrored: see DirectionTraining.
        seed: samples of two seeds have no random number in common.

    Raises:
        InputError: axes of different lengths cannot be exchanged.
    """

    def __init__(
        self,
        ritz: RitzVectors,
        count: int,
        *,
        low_share: float = 0.55,
        low_weight: float = 9.0,
        noise: float = 1.0,
        mirrored: bool = False,
        seed: int = 0,
    ) -> None:
        self._vectors = ritz.vectors.flatten(1)
        self._space = tuple(ritz.vectors.shape[1:])
        if mirrored and len(set(self._space)) > 1:
            raise InputError(f"mirrored exchanges axes, and those of {self._space} differ in length")
        self._count = count
        self._scale = torch.ones(len(self._vectors))
        self._scale[: max(1, round(low_share * len(self._vectors)))] = low_weight
        self._noise = noise
        self._mirrored = mirrored
        self._seed = seed

    @classmethod
    def of(cls, ritz: RitzVectors, settings: DirectionTraining, stream: int) -> RitzResiduals:
        """Those of a training: stream 0 to train with, 1 to validate with."""
        return cls(
            ritz,
            settings.held_out if stream == _HELD_OUT else settings.samples,
            low_share=settings.low_share,
            low_weight=settings.low_weight,
            noise=settings.noise,
            mirrored=settings.mirrored,
            seed=mixed(settings.seed, stream),
        )

    def __len__(self) -> int:
        return self._count

    def batch(self, indices: Tensor) -> Mapping[str, Tensor]:
        generators = [torch.Generator().manual_seed(mixed(self._seed, index)) for index in indices.tolist()]
        chosen = torch.stack([torch.randn(len(self._scale), generator=generator) for generator in generators])
        combined = (chosen * self._scale).to(self._vectors) @ self._vectors
        if self._noise:
            size = combined.shape[1]
            combined += self._noise * torch.stack([torch.randn(size, generator=one) for one in generators]).to(combined)
        combined = (combined / combined.norm(dim=1, keepdim=True)).reshape(-1, *self._space)
        if self._mirrored:
            turned = [_turned(field, generator) for field, generator in zip(combined, generators, strict=True)]
            combined = torch.stack(turned)
        return {"residual": combined}


@final
class DirectionLoss:
    """|b - A x|^2 with x the best step from zero along the network's direction: x = (q.b)/(q.A q) q, q = network(b).

    It does not change with the length or the sign of q, and needs no solutions.

    Args:
        operator: A, symmetric positive definite; taken in the dtype of the residuals.
    """

    def __init__(self, operator: LinearOperator) -> None:
        refuse_batch(operator)
        self._operator = operator.detach()
        self._of: dict[torch.dtype, LinearOperator] = {}

    def __call__(self, network: Any, batch: Mapping[str, Tensor]) -> Tensor:
        b = batch["residual"]
        q = network(b).to(b.dtype)
        if b.dtype not in self._of:
            self._of[b.dtype] = self._operator.to(b.dtype)
        image: Tensor = _Image.apply(q, self._of[b.dtype])
        step = _dot(q, b) / _dot(q, image).clamp_min(torch.finfo(b.dtype).tiny)
        return (b - step.reshape(-1, *[1] * (b.ndim - 1)) * image).flatten(1).square().sum(1)


class _Image(torch.autograd.Function):
    """x -> A x for a symmetric A without gradients of its own: compiled forwards and backwards."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, operator: LinearOperator) -> Tensor:
        ctx.operator = operator
        return operator.apply(x.contiguous())

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return ctx.operator.apply(gradients[0].contiguous()), None


def _dot(x: Tensor, y: Tensor) -> Tensor:
    return torch.linalg.vecdot(x.flatten(1), y.flatten(1))


def _turned(field: Tensor, generator: torch.Generator) -> Tensor:
    """One of the images of a cube under its symmetries."""
    axes = torch.randperm(field.ndim, generator=generator).tolist()
    reversed_axes = torch.randint(0, 2, (field.ndim,), generator=generator).nonzero().flatten().tolist()
    return field.permute(axes).flip(reversed_axes)
