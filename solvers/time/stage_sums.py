"""The sums y + h sum(w k) of one step, and what is estimated of it: each in one pass, forwards and backwards."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sciml.evolving import Tolerance
from sciml.kernels import steps
from sciml.kernels.steps import Pair

from .stepper import combined

FEWEST = 1 << 14  # entries of a state, below which torch's own operations take no longer than calls from Python do


def pays(y: Tensor) -> bool:
    """Whether `StageSums` can be taken for this state, and is quicker."""
    return y.numel() >= FEWEST and steps.fits(y)


def sums(y: Tensor, h: float) -> Sums | StageSums:
    """Those that are quicker for this state."""
    return StageSums(y, h) if pays(y) else Sums(y, h)


class Sums:
    """y + h sum(w k), as torch operations.

    Args:
        y: the state at the start of a step.
        h: the step.
    """

    def __init__(self, y: Tensor, h: float) -> None:
        self.y, self.h = y, h

    def __call__(self, stages: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
        """Over as many terms as there are of both."""
        return combined(self.y, stages, weights, self.h)

    def increment(self, stages: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
        """The same without y."""
        return combined(0.0, stages, weights, self.h)


class StageSums:
    """The same by compiled kernels, asked for in the order in which the terms come to be.

    As torch operations each term costs a pass over memory in the forward pass, and two in the backward pass. Here every
    sum is a node of the graph in which the latest slope enters, tied to the one before by an empty tensor. In the
    backward pass that brings along all derivatives with respect to later sums, and the derivative with respect to the
    slope is one weighted sum of these.

    Args:
        y, h: as of `Sums`.
    """

    def __init__(self, y: Tensor, h: float) -> None:
        self.y, self.h = y, h
        self._anchor = y
        self._known = 0  # slopes that have entered

    def __call__(self, stages: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
        """See `Sums`; of the stages at most one is new since the call before."""
        return self._of(True, stages, weights)

    def increment(self, stages: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
        """See `Sums`."""
        return self._of(False, stages, weights)

    def _of(self, whole: bool, stages: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
        terms = self._terms(stages, weights)
        start = self.y if whole else None
        if not torch.is_grad_enabled():
            return _sum(start, terms)
        total, self._anchor = _Sum.apply((start, terms), *self._entering(stages))
        return total

    def estimates(
        self,
        stages: Sequence[Tensor],
        weights: Sequence[float],
        value: Tensor,
        pair: Pair | None,
        rtol: float,
        atol: Tolerance,
        axes: int,
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """The error h sum(w k), its ratio as of `sciml.evolving.root_mean_square_ratio`, and the stiffness.

        Args:
            stages, weights: as above.
            value: the state at the end.
            pair: two states at the same time, and their slopes; None for no stiffness.
            rtol, atol: the tolerances.
            axes: trailing axes of a row.
        """
        if pair is not None:
            x, z, u, v = pair
            pair = x, z, u.contiguous(), v.contiguous()
        given = _Step(self._terms(stages, weights), self.y, value, pair, rtol, atol, axes)
        if not torch.is_grad_enabled():
            found = _estimates(given)
            return found.error, found.ratio, found.stiffness
        anchor = self._entering(stages)
        error, ratio, stiffness, self._anchor = _Estimates.apply(given, *anchor, value, *(pair or (None,) * 4))
        return error, ratio, stiffness

    def _terms(self, stages: Sequence[Tensor], weights: Sequence[float]) -> _Terms:
        h = self.h
        return _Terms(
            [k if k.is_contiguous() else k.contiguous() for k in stages], [h * w for w in weights[: len(stages)]]
        )

    def _entering(self, stages: Sequence[Tensor]) -> tuple[bool, Tensor, Tensor | None]:
        """Whether a node is the first, what it holds on to, and the slope that enters there."""
        latest = stages[-1] if len(stages) > self._known else None
        first, self._known = not self._known, len(stages)
        return first, self._anchor, latest


class _Terms(NamedTuple):
    slopes: list[Tensor]
    weights: list[float]


class _Step(NamedTuple):
    terms: _Terms
    before: Tensor
    after: Tensor
    pair: Pair | None
    rtol: float
    atol: Tolerance
    axes: int


def _sum(start: Tensor | None, terms: _Terms) -> Tensor:
    used, factors = ([], []) if start is None else ([start], [1.0])
    for k, w in zip(*terms, strict=True):
        if w:
            used.append(k)
            factors.append(w)
    return steps.weighted_sum(used, factors) if used else torch.zeros_like(terms.slopes[0])


def _estimates(step: _Step) -> steps.Estimates:
    terms, before, after, pair, rtol, atol, axes = step
    return steps.estimates(*terms, before, after, rtol, atol, axes, pair)


_Later = list[tuple[Tensor, list[float], bool]]
"""Of the sums of later nodes: the derivative with respect to a sum, the weights of its slopes, and whether it has y."""


class _Sum(torch.autograd.Function):
    """One sum, and an empty tensor for the next node to hold on to."""

    @staticmethod
    def forward(
        ctx: Any, parts: tuple[Tensor | None, _Terms], first: bool, anchor: Tensor, latest: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        start, terms = parts
        ctx.whole, ctx.weights, ctx.first = start is not None, terms.weights, first
        ctx.set_materialize_grads(False)
        return _sum(start, terms), torch.empty(0, dtype=anchor.dtype)

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor | None) -> tuple[Tensor | None, ...]:
        slope, rest = slopes
        own: _Later = [] if slope is None else [(slope.contiguous(), ctx.weights, ctx.whole)]
        return None, None, *_handed_on(ctx, rest, own)


class _Estimates(torch.autograd.Function):
    """Error, ratio, stiffness, and an empty tensor for the next node to hold on to."""

    @staticmethod
    def forward(
        ctx: Any, step: _Step, first: bool, anchor: Tensor, latest: Tensor | None, value: Tensor, *pair: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor | None, Tensor]:
        found = _estimates(step)
        # The error is kept as a result of this node, so that derivatives of the derivatives come by it.
        kept = (found.error, step.before, step.after, found.ratio)
        ctx.save_for_backward(*kept, *(() if step.pair is None else (*step.pair, found.squares)))
        ctx.weights, ctx.first, ctx.settings = step.terms.weights, first, (step.rtol, step.atol, step.axes)
        ctx.set_materialize_grads(False)
        return found.error, found.ratio, found.stiffness, torch.empty(0, dtype=anchor.dtype)

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor | None) -> tuple[Tensor | None, ...]:
        of_error, of_ratio, of_stiffness, rest = slopes
        error, before, after, ratio, *others = ctx.saved_tensors
        rtol, atol, axes = ctx.settings
        own: _Later = [] if of_error is None else [(of_error.contiguous(), ctx.weights, False)]
        of_value = None
        of_pair: tuple[Tensor | None, ...] = (None,) * 4
        if of_ratio is not None:
            along, of_start, of_value = steps.error_gradient(of_ratio, error, before, after, ratio, rtol, atol, axes)
            own += [(along, ctx.weights, False), (of_start, [0.0] * len(ctx.weights), True)]
        if of_stiffness is not None:
            x, y, u, v, squares = others
            of_pair = steps.stiffness_gradient(of_stiffness, (x, y, u, v), squares, axes)
        return None, None, *_handed_on(ctx, rest, own), of_value, *of_pair


def _handed_on(ctx: Any, rest: Tensor | None, own: _Later) -> tuple[Tensor | None, Tensor | None]:
    """The derivatives with respect to the anchor, which is y of the first node, and to the slope that enters."""
    if rest is None:
        if not own:
            return None, None
        rest = torch.empty(0, dtype=own[0][0].dtype)
        rest.later = own  # type: ignore[attr-defined]
    else:
        # A list of tensors can travel through the graph as an attribute of a gradient, though not as one itself.
        rest.later += own  # type: ignore[attr-defined]
    later: _Later = rest.later  # type: ignore[attr-defined]
    compiled = not torch.is_grad_enabled() and steps.fits(later[0][0])
    of_anchor: Tensor | None = rest
    of_latest = None
    *_, anchored, entering = ctx.needs_input_grad[:4]
    if ctx.first:
        of_anchor = _pulled([(slope, 1.0) for slope, _, whole in later if whole], compiled) if anchored else None
    if entering:
        place = len(ctx.weights) - 1
        of_latest = _pulled([(slope, weights[place]) for slope, weights, _ in later if weights[place]], compiled)
    return of_anchor, of_latest


def _pulled(pairs: list[tuple[Tensor, float]], compiled: bool) -> Tensor | None:
    """The derivative with respect to what has these weights in sums, from those with respect to the sums."""
    if not pairs:
        return None
    terms, weights = zip(*pairs, strict=True)
    return steps.weighted_sum(terms, weights) if compiled else combined(0.0, terms, weights, 1.0)
