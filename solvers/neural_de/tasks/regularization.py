"""Which regularizer a training has, and how much of it: from a name and numbers, as recipes have them."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from typing import Any, final

from pydantic import TypeAdapter, ValidationError

from sciml.boundary import suggestion
from sciml.errors import InputError

from ..annealing import ExponentialAnnealing
from ..integrals import JacobianNorm, KineticEnergy, TaylorDerivative
from ..local import LocalError, LocalStiffness
from ..regularizers import (
    ErrorEstimate,
    ErrorEstimateSquared,
    Reduction,
    Regularizer,
    Rows,
    StiffnessEstimate,
)
from ..steer import Steer


@final
@dataclass(frozen=True)
class Regularization:
    """What is added to a loss.

    Args:
        regularizer: None for nothing.
        weight: of its penalty, at the beginning of the training; dimensionless, positive.
        last_weight: at the end, fallen or grown by the same ratio from sample to sample; None: `weight` throughout.

    Raises:
        InputError: for a weight that is not positive, or a regularizer that is none.
    """

    regularizer: Regularizer | None = None
    weight: float = 1.0
    last_weight: float | None = None

    def __post_init__(self) -> None:
        if self.regularizer is not None and not isinstance(self.regularizer, Regularizer):
            raise InputError(
                f"regularizer is one of sciml.solvers.neural_de, such as ErrorEstimate(), got {self.regularizer!r}"
            )
        for name, value in (("weight", self.weight), ("last_weight", self.last_weight)):
            if value is not None and not (isfinite(value) and value > 0):
                raise InputError(f"{name} of a regularizer must be positive and finite, got {value!r}")

    def at(self, seen: int, samples: int) -> float:
        """The weight after `seen` of the `samples` that a training is of."""
        if self.last_weight is None:
            return self.weight
        return ExponentialAnnealing(self.weight, self.last_weight, samples).weight(seen)

    def described(self) -> dict[str, Any]:
        """In JSON's values."""
        if self.regularizer is None:
            return {"regularizer": None}
        return {"regularizer": repr(self.regularizer), "weight": self.weight, "last_weight": self.last_weight}

    def __str__(self) -> str:
        if self.regularizer is None:
            return "no regularizer"
        last = "" if self.last_weight is None else f" falling to {self.last_weight:g}"
        if self.last_weight is not None and self.last_weight > self.weight:
            last = f" growing to {self.last_weight:g}"
        return f"{self.regularizer!r} with weight {self.weight:g}{last}"


@dataclass(frozen=True)
class _ErrorAndStiffness:
    """ErrorEstimate, and `stiffness` times StiffnessEstimate."""

    stiffness: float = 0.1
    reduction: Reduction = "sum"
    rows: Rows = "each"
    step_factor: bool = True
    stiffness_reduction: Reduction = "sum"
    stiffness_step_factor: bool = True

    def made(self) -> Regularizer:
        second = StiffnessEstimate(self.stiffness_reduction, self.stiffness_step_factor)
        return ErrorEstimate(self.reduction, self.step_factor, self.rows) + self.stiffness * second


@dataclass(frozen=True)
class _KineticAndJacobian:
    """KineticEnergy, and `jacobian` times JacobianNorm."""

    jacobian: float = 1.0

    def made(self) -> Regularizer:
        return KineticEnergy() + self.jacobian * JacobianNorm()


@dataclass(frozen=True)
class _SteerAndError:
    """Steer, and ErrorEstimate."""

    width: float = 0.5
    reduction: Reduction = "sum"
    rows: Rows = "each"
    step_factor: bool = True

    def made(self) -> Regularizer:
        return ErrorEstimate(self.reduction, self.step_factor, self.rows) + Steer(self.width)


_KINDS: Mapping[str, type[Any]] = {
    "error": ErrorEstimate,
    "error-squared": ErrorEstimateSquared,
    "stiffness": StiffnessEstimate,
    "error+stiffness": _ErrorAndStiffness,
    "local-error": LocalError,
    "local-stiffness": LocalStiffness,
    "steer": Steer,
    "steer+error": _SteerAndError,
    "taylor": TaylorDerivative,
    "kinetic": KineticEnergy,
    "jacobian": JacobianNorm,
    "kinetic+jacobian": _KineticAndJacobian,
}
NAMES = ("none", *_KINDS)
"""Of regularizers in recipes."""
_WEIGHTS = ("weight", "last_weight")


def named(settings: Mapping[str, Any], usual: Mapping[str, Mapping[str, Any]] | None = None) -> Regularization:
    """The regularization that a table describes.

    Args:
        settings: "name", one of NAMES; "weight", "last_weight"; further keys are the arguments of the regularizer, of
            "error+stiffness" and its like those of the first and "stiffness", "jacobian" or "width" of the second.
        usual: settings by name, for the keys that the table does not have. A weight that the table has is not annealed
            unless it says so.

    Raises:
        InputError: for an unknown name or key, or a value of another kind or range.
    """
    name = settings.get("name") if isinstance(settings, Mapping) else None
    if not isinstance(name, str):
        raise InputError(f"a regularizer needs a name: {', '.join(NAMES)}")
    if name not in NAMES:
        raise InputError(f"there is no regularizer {name!r}{suggestion(name, NAMES)}")
    own = {key: value for key, value in settings.items() if key != "name"}
    if name == "none":
        if own:
            raise InputError(f"the regularizer 'none' has no {sorted(own)[0]!r}")
        return Regularization()
    kind = _KINDS[name]
    keys = [field.name for field in dataclasses.fields(kind)]
    unknown = [key for key in own if key not in (*keys, *_WEIGHTS)]
    if unknown:
        known = (*keys, *_WEIGHTS)
        raise InputError(f"unknown key {unknown[0]!r} of the regularizer {name!r}{suggestion(unknown[0], known)}")
    defaults = dict((usual or {}).get(name, {}))
    if "weight" in own:
        defaults.pop("last_weight", None)
    merged = {**defaults, **own}
    weights = {key: _checked(float, merged.pop(key), key) for key in _WEIGHTS if merged.get(key) is not None}
    merged.pop("last_weight", None)
    made = _checked(kind, merged, f"regularizer {name!r}")
    regularizer = made if isinstance(made, Regularizer) else made.made()
    return Regularization(regularizer, **weights)


def _checked(kind: type[Any], value: Any, where: str) -> Any:
    try:
        return TypeAdapter(kind).validate_json(json.dumps(value, default=str), strict=True)
    except ValidationError as error:
        problem = error.errors()[0]
        place = ".".join(map(str, problem["loc"]))
        message = str(problem["msg"])
        own = message.removeprefix("Value error, ")
        if own == message:
            own = f"{own[0].lower()}{own[1:]}"
        raise InputError(f"{where}: {place}{': ' * bool(place)}{own}") from None
