"""Probability densities as flows of ordinary differential equations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import log, pi
from typing import Any, Literal, final, get_args

import torch
from torch import Tensor, nn
from torch.distributions import Distribution
from torch.func import jvp, vmap

from sciml.differentiation import in_transform
from sciml.errors import InputError
from sciml.evolving import Time
from sciml.modes import in_plain_mode
from sciml.solution import Solution

from ..time.explicit import ExplicitRungeKutta
from .integrals import IntegralRegularizer, Rate, check_time, needs_time
from .ode import Adjoint, Backend, NeuralODE
from .regularizers import Regularizer, WeightedSum, terms_of

Divergence = Literal["exact", "hutchinson"]
Noise = Literal["rademacher", "gaussian"]


@final
class ContinuousNormalizingFlow(nn.Module):
    """A density of points x: along dz/dt = rate(z, t) from z(t0) = x to z(t1) they become those of a simple one.

    log p(x) = log base(z(t1)) + integral of div rate(z(t), t) from t0 to t1. The integral is solved for as one more
    component of the state, and the steps control its error too. Points are drawn by going back from t1 to t0.

    Chen, Rubanova, Bettencourt and Duvenaud, "Neural Ordinary Differential Equations", NeurIPS 2018, theorem 1;
    Grathwohl, Chen, Bettencourt, Sutskever and Duvenaud, "FFJORD", ICLR 2019, for the estimate of the divergence.

    A regularizer acts in training on `forward` and `to_base`. Estimates of the steps are of the whole state, with its
    last component; integrals (KineticEnergy, JacobianNorm, TaylorDerivative) are of the points alone.

    Args:
        rate: (z, t) -> dz/dt on `(*batch, dimension)`, rows independent of each other; see `NeuralODE`.
        dimension: of the points.
        divergence: "exact": the trace of the Jacobian, by `dimension` vector-Jacobian products an evaluation, which
            takes less time than as many products from the other side; "hutchinson": e^T J e, one such product, with
            one random vector e for each row and solve: unbiased for log p, not for p.
        noise: entries of e: "rademacher", -1 or 1, exact where the Jacobian is diagonal; "gaussian", standard normal.
        base: density at t1, of event shape `(dimension,)`, on the device of the points; None: standard normal.
        interval: (t0, t1) in the unit of time.
        method, rtol, atol, adjoint, backend, regularizer, throw: see `NeuralODE`.

    Raises:
        InputError: for settings that do not go together.
    """

    def __init__(
        self,
        rate: Callable[[Tensor, Time], Tensor],
        dimension: int,
        *,
        divergence: Divergence = "exact",
        noise: Noise = "rademacher",
        base: Distribution | None = None,
        interval: tuple[float, float] = (0.0, 1.0),
        method: ExplicitRungeKutta | None = None,
        rtol: float | None = None,
        atol: float | None = None,
        adjoint: Adjoint = "recorded",
        backend: Backend = "sciml",
        regularizer: Regularizer | None = None,
        throw: bool = True,
    ) -> None:
        super().__init__()
        if not isinstance(dimension, int) or dimension < 1:
            raise InputError(f"dimension is a number of at least 1, got {dimension!r}")
        for name, word, words in (("divergence", divergence, get_args(Divergence)), ("noise", noise, get_args(Noise))):
            if word not in words:
                raise InputError(f"{name} is {' or '.join(map(repr, words))}, got {word!r}")
        if base is not None and not (isinstance(base, Distribution) and tuple(base.event_shape) == (dimension,)):
            raise InputError(
                f"base is a torch.distributions.Distribution of event shape ({dimension},), got {base!r}; "
                "torch.distributions.Independent(base, 1) makes one of independent components"
            )
        self.rate, self.dimension, self.divergence, self.noise, self.base = rate, dimension, divergence, noise, base
        self.regularizer = regularizer
        self._settings: dict[str, Any] = {
            "interval": interval,
            "method": method,
            "rtol": rtol,
            "atol": atol,
            "adjoint": adjoint,
            "backend": backend,
            "throw": throw,
        }
        self.interval = self._ode(rate, regularizer).interval or (0.0, 1.0)

    def extra_repr(self) -> str:
        return f"dimension={self.dimension}, divergence={self.divergence!r}, interval={self.interval}"

    def forward(self, x: Tensor, *, generator: torch.Generator | None = None) -> tuple[Tensor, Solution]:
        """The logarithm of the density at points.

        Args:
            x: `(*batch, dimension)`.
            generator: of the vectors e of divergence="hutchinson"; None: torch's own.

        Returns:
            log p(x), `(*batch)`, in nats; and the solution, whose states `(*batch, time, dimension + 1)` have the
            change of log p behind the point. An evaluation that it counts is one of the rate with its divergence.

        Raises:
            InputError: for points of another dimension, or a rate that returns another shape.
            SolveError: where a row failed.
        """
        z, change, solution = self.to_base(x, generator=generator)
        return self._log_base(z) + change, solution

    @in_plain_mode
    def to_base(self, x: Tensor, *, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor, Solution]:
        """The points z(t1), `(*batch, dimension)`, to which x flows; log |det dz/dx|, `(*batch)`; and the solution.

        Args, Raises: as of `forward`.
        """
        self._check(x, "x")
        noise = None if self.divergence == "exact" else self._drawn(x, generator)
        state = torch.cat((x, x.new_zeros(*x.shape[:-1], 1)), -1)
        forward_mode = self._settings["adjoint"] == "checkpointed" or in_transform()
        lifted = WithDivergence(self.rate, self.dimension, noise, forward_mode)
        if self.training and self.regularizer is not None:
            self._ode(self.rate, self.regularizer)  # it may have been replaced, and what is wrapped is not looked into
            if any(needs_time(term) for _, term in terms_of(self.regularizer)):
                check_time(self.rate, x.detach(), *self.interval)
        ode = self._ode(lifted, self._of_points())
        ode.training = self.training
        end, solution = ode(state)
        return end[..., :-1], end[..., -1], solution

    def inverse(self, z: Tensor) -> tuple[Tensor, Solution]:
        """The points x, `(*batch, dimension)`, that flow to z, and the solution, whose time is t0 + t1 - t.

        Args:
            z: `(*batch, dimension)`.

        Raises:
            InputError: for points of another dimension.
            SolveError: where a row failed.
        """
        self._check(z, "z")
        x, solution = self._ode(_Backwards(self.rate, sum(self.interval)), None)(z)
        return x, solution

    def sample(
        self, shape: int | Sequence[int], *, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Solution]:
        """Random points, `(*shape, dimension)`, and the solution of `inverse`.

        They have the dtype and device of the rate's parameters (of a rate without: torch's defaults), or of the base.

        Args:
            shape: how many.
            generator: None: torch's own. The distributions of torch, given as `base`, take no other.

        Raises:
            InputError: for a shape that is none, or a generator that cannot be used.
            SolveError: where a row failed.
        """
        sizes = (shape,) if isinstance(shape, int) else tuple(shape)
        if not all(isinstance(size, int) and size >= 0 for size in sizes):
            raise InputError(f"shape is a number of points or a shape of such, got {shape!r}")
        if self.base is None:
            like = next((p for p in self.parameters() if p.is_floating_point()), torch.empty(0))
            z = torch.randn((*sizes, self.dimension), dtype=like.dtype, device=like.device, generator=generator)
        elif generator is None:
            z = self.base.sample(torch.Size(sizes))
        else:
            raise InputError(
                "a base that is a distribution of torch draws from torch's own generator: use torch.manual_seed, or "
                "draw z yourself and call inverse(z)"
            )
        return self.inverse(z)

    def _ode(self, rate: Rate, regularizer: Regularizer | None) -> NeuralODE:
        # One for each solve: what a backward pass will look up, such as the noise, is not changed by the next solve.
        return NeuralODE(rate, regularizer=regularizer, **self._settings)

    def _of_points(self) -> Regularizer | None:
        if self.regularizer is None:
            return None
        return WeightedSum(
            tuple(
                (weight, _OfPoints(term, self.rate, self.dimension) if isinstance(term, IntegralRegularizer) else term)
                for weight, term in terms_of(self.regularizer)
            )
        )

    def _drawn(self, x: Tensor, generator: torch.Generator | None) -> Tensor:
        if self.noise == "gaussian":
            return torch.randn(x.shape, dtype=x.dtype, device=x.device, generator=generator)
        return 2 * torch.randint(0, 2, x.shape, device=x.device, generator=generator).to(x.dtype) - 1

    def _log_base(self, z: Tensor) -> Tensor:
        if self.base is not None:
            return self.base.log_prob(z)
        return -0.5 * (z.square().sum(-1) + self.dimension * log(2 * pi))

    def _check(self, x: Tensor, name: str) -> None:
        if not isinstance(x, Tensor) or not x.is_floating_point() or x.ndim < 1 or x.shape[-1] != self.dimension:
            what = f"{x.dtype} and shape {tuple(x.shape)}" if isinstance(x, Tensor) else repr(x)
            raise InputError(f"{name} is a real tensor (*batch, {self.dimension}), got {what}")
        if not bool(x.isfinite().all()):
            raise InputError(f"{name} has entries that are not finite")


@final
class WithDivergence(nn.Module):
    """The rate of a point with the divergence of its rate behind it, `(*batch, dimension + 1)`.

    Args:
        rate: of points.
        dimension: of them.
        noise: `(*batch, dimension)`, for the estimate e^T J e; None: the trace itself.
        forward_mode: products J e by torch.func in place of e^T J: they take about twice the time, and unlike those go
            with torch.utils.checkpoint and inside torch.func.
    """

    def __init__(self, rate: Rate, dimension: int, noise: Tensor | None, forward_mode: bool = False) -> None:
        super().__init__()
        self.rate, self.dimension, self.forward_mode = rate, dimension, forward_mode
        self.register_buffer("noise", noise, persistent=False)
        self.noise: Tensor | None

    def forward(self, y: Tensor, t: Any) -> Tensor:
        z = y[..., : self.dimension]
        slope, divergence = (self._forward_mode if self.forward_mode else self._reverse_mode)(z, t)
        return torch.cat((slope, divergence[..., None]), -1)

    def _forward_mode(self, z: Tensor, t: Any) -> tuple[Tensor, Tensor]:
        def rate(z: Tensor) -> Tensor:
            return self._checked(self.rate(z, t), z)

        if self.noise is not None:
            slope, product = jvp(rate, (z,), (self.noise,))[:2]
            return slope, (product * self.noise).sum(-1)
        unit = torch.eye(self.dimension, dtype=z.dtype, device=z.device)

        def along(direction: Tensor) -> tuple[Tensor, Tensor]:
            return jvp(rate, (z,), (direction.expand_as(z).contiguous(),))[:2]

        slope, products = vmap(along, out_dims=(None, 0))(unit)  # type: ignore[arg-type]
        return slope, products.diagonal(dim1=0, dim2=-1).sum(-1)

    def _reverse_mode(self, z: Tensor, t: Any) -> tuple[Tensor, Tensor]:
        tracked = torch.is_grad_enabled()
        with torch.enable_grad():
            if not z.requires_grad:
                z = z.detach().requires_grad_()
            slope = self._checked(self.rate(z, t), z)

            def product(vector: Tensor) -> Tensor:
                if not slope.requires_grad:
                    return torch.zeros_like(z)
                (found,) = torch.autograd.grad(
                    slope, z, vector, retain_graph=True, create_graph=tracked, materialize_grads=True
                )
                return found

            if self.noise is not None:
                divergence = (product(self.noise) * self.noise).sum(-1)
            else:
                unit = torch.eye(self.dimension, dtype=z.dtype, device=z.device)
                products = [product(row.expand_as(z))[..., k] for k, row in enumerate(unit)]
                divergence = torch.stack(products, -1).sum(-1)
        return (slope, divergence) if tracked else (slope.detach(), divergence.detach())

    @staticmethod
    def _checked(slope: Tensor, z: Tensor) -> Tensor:
        if isinstance(slope, Tensor) and slope.shape == z.shape:
            return slope
        what = f"shape {tuple(slope.shape)}" if isinstance(slope, Tensor) else type(slope).__name__
        raise InputError(f"the rate returned {what} for points of shape {tuple(z.shape)}")


@final
class _Backwards(nn.Module):
    """-rate(z, ends - t): the way back."""

    def __init__(self, rate: Rate, ends: float) -> None:
        super().__init__()
        self.rate, self.ends = rate, ends

    def forward(self, z: Tensor, t: Any) -> Tensor:
        return -self.rate(z, self.ends - t)


@final
@dataclass(frozen=True)
class _OfPoints(IntegralRegularizer):
    """An integral of the rate of the points, without the component behind them."""

    integral: IntegralRegularizer
    rate: Rate
    dimension: int

    @property
    def needs_graph(self) -> bool:
        return self.integral.needs_graph

    def integrand(self, rate: Rate, u: Tensor, t: Time, slope: Tensor, noise: Tensor) -> Tensor:
        z = u[..., : self.dimension]
        found = self.integral.integrand(self.rate, z, t, self.rate(z, t), noise[..., : self.dimension])
        return nn.functional.pad(found, (0, 1))
