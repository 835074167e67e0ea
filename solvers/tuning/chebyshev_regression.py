"""Least squares by Chebyshev polynomials with bounds on their coefficients, kept up by one sample at a time."""

from __future__ import annotations

from math import cos, pi
from typing import Any

import numpy as np

_STEPS = 20
_CHANGES = 200
_TOLERANCE = 1e-12
_RIDGE = 1e-9
_NOTHING = 1e-200  # a trace of G below which all samples are forgotten


def chebyshev_features(x: float, degree: int) -> list[float]:
    """T_0(x), ..., T_degree(x)."""
    features = [1.0, x]
    for _ in range(degree - 1):
        features.append(2.0 * x * features[-1] - features[-2])
    return features[: degree + 1]


def bounded_least_squares(gram: np.ndarray, moment: np.ndarray, bounds: np.ndarray, start: np.ndarray) -> np.ndarray:
    """The theta that minimise theta.G theta / 2 - h.theta over |theta_j| <= bounds_j, of several problems at once.

    A ridge of 1e-9 of the mean diagonal makes the minimum unique where G is singular. The primal-dual active set
    method (Hintermueller, Ito and Kunisch, SIAM J. Optim. 13 (2002) 865-888) takes a handful of small solves from the
    last answer; it may cycle, and then bounds are taken up and let go one at a time.

    Args:
        gram: G, `(problems, n, n)`, symmetric and positive semidefinite.
        moment: h, `(problems, n)`.
        bounds: `(n,)`, positive.
        start: `(problems, n)`; the answer to a problem nearby saves steps.

    Returns:
        theta, `(problems, n)`; 0 where G is.
    """
    unit = np.eye(gram.shape[-1])
    mean = gram.diagonal(axis1=1, axis2=2).mean(-1)
    empty = mean <= _NOTHING
    mean = np.where(empty, 1.0, mean)
    scaled = gram / mean[:, None, None] + _RIDGE * unit
    scaled[empty] = unit
    right = np.where(empty[:, None], 0.0, moment / mean[:, None])
    above, below = start >= bounds, start <= -bounds
    for _ in range(_STEPS):
        fixed = above | below
        system = np.where(fixed[..., None], unit, scaled)
        theta = np.linalg.solve(system, np.where(above, bounds, np.where(below, -bounds, right))[..., None])[..., 0]
        pull = right - (scaled @ theta[..., None])[..., 0]
        pushed = theta + np.where(fixed, pull, 0.0)
        above_next, below_next = pushed > bounds, pushed < -bounds
        if (above_next == above).all() and (below_next == below).all():
            return theta
        above, below = above_next, below_next
    problems = zip(scaled, right, np.clip(start, -bounds, bounds), strict=True)
    return np.array([_active_set(one, moments, bounds, theta) for one, moments, theta in problems])


def _active_set(gram: np.ndarray, moment: np.ndarray, bounds: np.ndarray, theta: np.ndarray) -> np.ndarray:
    """The same for one problem, one bound at a time, so that no step goes uphill (Stark and Parker, Comput. Stat. 10
    (1995) 129-141)."""
    fixed = np.abs(theta) >= bounds
    for _ in range(_CHANGES):
        free = ~fixed
        wanted = theta.copy()
        if free.any():
            known = moment[free] - gram[np.ix_(free, fixed)] @ theta[fixed]
            wanted[free] = np.linalg.solve(gram[np.ix_(free, free)], known)
        outside = np.abs(wanted) > bounds
        if outside.any():
            shares = np.where(
                outside, (np.copysign(bounds, wanted) - theta) / np.where(outside, wanted - theta, 1.0), 2.0
            )
            first = int(shares.argmin())
            theta = theta + float(shares[first]) * (wanted - theta)
            theta[first] = np.copysign(bounds[first], wanted[first])
            fixed[first] = True
            continue
        theta = wanted
        inwards = np.where(fixed, -np.sign(theta) * (moment - gram @ theta), 0.0)
        if inwards.max() <= _TOLERANCE * np.abs(moment).max():
            break
        fixed[int(inwards.argmax())] = False
    return theta


def change_of_interval(degree: int, old: tuple[float, float], new: tuple[float, float]) -> np.ndarray:
    """S with f_new(c) = S f_old(c) for the Chebyshev features of a number c on two intervals, the new around the old.

    A polynomial of T_j on the new interval, at most 1 there, has coefficients of at most 2 on the old one: accuracy is
    not lost, as it would be the other way round.
    """
    count = degree + 1
    nodes = np.array([cos(pi * (k + 0.5) / count) for k in range(count)])
    narrow = np.array([chebyshev_features(x, degree) for x in nodes])
    points = old[0] + (nodes + 1.0) * (0.5 * (old[1] - old[0]))
    wide = np.array([chebyshev_features(x, degree) for x in place(points, new)])
    # The features on the nodes are orthogonal.
    return wide.T @ narrow / (narrow * narrow).sum(0)


def place(c: Any, interval: tuple[float, float]) -> Any:
    """Where in [-1, 1] a number of an interval goes, or an array of them."""
    return (2.0 * c - (interval[0] + interval[1])) / (interval[1] - interval[0])
