"""The networks that are trained, each with about as many real numbers as MgNO has with its published settings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, cast

import torch
from torch import nn

from sciml.datasets import Dataset
from sciml.operators import FNO, DeepONet, UNet
from sciml.operators.recipe import load_recipe

from ...training import AdamW, Plan
from .peers import NeuraloperatorFNO

MGNO = "MgNO"
OWN_FNO = "FNO"
UNET = "U-Net"
DEEPONET = "DeepONet"
NEURALOPERATOR_FNO = "FNO of neuraloperator"

ROUGH_MGNO = "MgNO of rough Darcy flow"

RECIPES = {MGNO: "mgno-darcy-64", ROUGH_MGNO: "mgno-darcy-rough"}
"""The shipped recipes that MgNO is trained by; the second one is the published network."""

CHOSEN = {OWN_FNO: (1.6e-2, 4), UNET: (1e-3, 4), DEEPONET: (2e-3, 8), NEURALOPERATOR_FNO: (1.6e-2, 4)}
"""Learning rates at their peak, and sizes of batches, the best on the samples for validation: of our FNO, which both
FNOs take, out of rates of 8e-3, 1.6e-2 and 3.2e-2 (and batches of 4 and 8 with another schedule); of the U-Net out of
5e-4, 1e-3 and 2e-3; of DeepONet out of 1e-3, 2e-3 and 4e-3, and at 2e-3 out of batches of 4 and 8. All else of their
plans is that of MgNO's recipe."""

_NEVER = 10**9
_ONE: dict[str, Any] = {"in_channels": 1, "out_channels": 1}


@dataclass(frozen=True)
class Contestant:
    """A network and how it is trained.

    Args:
        name: of the method in rows.
        library: whose it is.
        make: (dataset, seed) -> the network with its first weights, for the channels and the grid of the dataset.
        plan: how it is trained; its length and its seed are to be replaced.
        logarithm, coordinates: as `train_operator` takes them.
    """

    name: str
    library: str
    make: Callable[[Dataset, int], nn.Module]
    plan: Plan
    logarithm: bool | Sequence[bool] = False
    coordinates: bool = False

    def lasting(self, steps: int, seed: int) -> Plan:
        """The plan for so many steps, validated at the end."""
        return replace(self.plan, epochs=None, seconds=None, steps=steps, seed=seed, validate_every=_NEVER)

    def clocked(self, seconds: float, seed: int, device: str) -> Plan:
        """The plan for so many seconds of this process, or of the clock on the wall beside a GPU."""
        clock: Literal["cpu", "wall"] = "cpu" if device == "cpu" else "wall"
        timed = replace(self.plan, epochs=None, steps=None, seconds=seconds, clock=clock)
        return replace(timed, seed=seed, validate_every=_NEVER)


def contestants(size: str) -> tuple[Contestant, ...]:
    """Those of a size; the size tiny has small networks."""
    tiny = size == "tiny"
    fourier: dict[str, Any] = {"modes": (6, 6), "width": 4} if tiny else {"modes": (16, 16), "width": 22}
    branch: dict[str, Any] = {"basis": 8, "width": 4} if tiny else {"basis": 64, "width": 22}
    return (
        _of_recipe(MGNO, tiny),
        _contestant(OWN_FNO, "sciml", lambda data: FNO(**_ONE, **fourier)),
        _contestant(UNET, "sciml", lambda data: UNet(**_ONE, width=4 if tiny else 17)),
        _contestant(DEEPONET, "sciml", lambda data: DeepONet(**_ONE, grid=data.grid.shape, **branch)),
        _contestant(NEURALOPERATOR_FNO, "neuraloperator", lambda data: NeuraloperatorFNO(**_ONE, **fourier)),
    )


def contestant(size: str, name: str) -> Contestant:
    """One of them, or the one of rough Darcy flow."""
    if name == ROUGH_MGNO:
        return _of_recipe(name, size == "tiny")
    return next(item for item in contestants(size) if item.name == name)


def _of_recipe(name: str, tiny: bool) -> Contestant:
    recipe = load_recipe(RECIPES[name])
    if tiny:
        recipe = replace(recipe, network=("MgNO", {"channels": 4, "layers": 2, "levels": [[1, 0], [2, 0]]}))

    def make(data: Dataset, seed: int) -> nn.Module:
        return replace(recipe, seed=seed).make_network(data)

    return Contestant(name, "sciml", make, recipe.plan, recipe.logarithm, recipe.coordinates)


def _contestant(name: str, library: str, make: Callable[[Dataset], nn.Module]) -> Contestant:
    def seeded(data: Dataset, seed: int) -> nn.Module:
        torch.manual_seed(seed)
        return make(data)

    rate, batch = CHOSEN[name]
    plan = load_recipe(RECIPES[MGNO]).plan
    optimizer = replace(cast(AdamW, plan.optimizer), rate=rate)
    plan = replace(plan, batch_size=batch, optimizer=optimizer)
    return Contestant(name, library, seeded, plan)
