"""The tasks that come with this package, one function each; `Task.with_changes` says what may be changed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..regularizers import Regularizer
from .recipe import shipped_task
from .regularization import Regularization
from .task import Task

Chosen = Regularization | Regularizer | str | Mapping[str, Any] | None
"""Of a regularizer; None: that of the recipe."""


def digits_ode(regularizer: Chosen = None, **changes: Any) -> Task:
    """Scikit-learn's digits, classified by a neural ODE: a minute on one core. See `DigitsODE`."""
    return shipped_task("digits-ode", regularizer, **changes)


def digits_sde(regularizer: Chosen = None, **changes: Any) -> Task:
    """Scikit-learn's digits, classified by a neural SDE. See `DigitsSDE`."""
    return shipped_task("digits-sde", regularizer, **changes)


def spiral_ode(regularizer: Chosen = None, **changes: Any) -> Task:
    """A spiral, followed by a neural ODE. See `SpiralODE`."""
    return shipped_task("spiral-ode", regularizer, **changes)


def spiral_sde(regularizer: Chosen = None, **changes: Any) -> Task:
    """The means and variances of a stochastic spiral, followed by a neural SDE. See `SpiralSDE`."""
    return shipped_task("spiral-sde", regularizer, **changes)


def latent_spirals(regularizer: Chosen = None, **changes: Any) -> Task:
    """Spirals observed here and there, reconstructed by a latent ODE. See `LatentSpirals`."""
    return shipped_task("latent-spirals", regularizer, **changes)


def gaussian_flow(regularizer: Chosen = None, **changes: Any) -> Task:
    """Six Gaussians, learned by a continuous normalizing flow. See `Gaussians`."""
    return shipped_task("gaussians", regularizer, **changes)


def mnist_ode(folder: str, regularizer: Chosen = None, **changes: Any) -> Task:
    """MNIST, classified by a neural ODE. See `MnistODE`."""
    return shipped_task("mnist-ode", regularizer, folder=folder, **changes)


def mnist_sde(folder: str, regularizer: Chosen = None, **changes: Any) -> Task:
    """MNIST, classified by a neural SDE. See `MnistSDE`."""
    return shipped_task("mnist-sde", regularizer, folder=folder, **changes)


def physionet_2012(folder: str, regularizer: Chosen = None, **changes: Any) -> Task:
    """The PhysioNet challenge of 2012, reconstructed by a latent ODE. See `PhysioNet2012`."""
    return shipped_task("physionet", regularizer, folder=folder, **changes)
