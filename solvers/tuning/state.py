"""What a tuner has learned, saved and resumed to the last bit."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sciml.errors import InputError
from sciml.files import write_whole

from .cheb_cb import ChebCB, ChebState
from .policy import Choice, Policy
from .records import as_data, fill

_FORMAT = "sciml tuner state"
_VERSION = 1
_LATEST = 20  # numbers over which running means go, about
_REGRESSION = ChebCB(degree=3, discount=1 - 1 / _LATEST)  # of one arm


@dataclass
class RunningMean:
    """A mean that forgets what is long past.

    Attributes:
        count: of the numbers.
        value: their mean, of recent ones where there are many.
    """

    count: int = 0
    value: float = 0.0

    def add(self, number: float) -> None:
        self.count += 1
        self.value += (number - self.value) / min(self.count, _LATEST)


@dataclass
class Learned:
    """The numbers of a TunerState.

    Attributes:
        policy: state of the policy.
        generator: of its random numbers.
        rounds: solves so far.
        cost: of them all, in iterations or seconds.
        pulls: `(arms,)`, how often each arm was chosen.
        means: mean cost of each arm.
        failures: `(arms,)`, how often an arm has failed since it last did not.
        rest: `(arms,)`, the round before which an arm that failed is not tried again.
        fallback: cost of the fallback.
        fallback_at: its regression on the context, where there is one.
        cut_off: rounds in which the fallback took over.
    """

    policy: Any
    generator: np.random.Generator
    pulls: np.ndarray
    means: list[RunningMean]
    failures: np.ndarray
    rest: np.ndarray
    fallback: RunningMean
    fallback_at: ChebState
    rounds: int = 0
    cost: float = 0.0
    cut_off: int = 0

    @staticmethod
    def nothing(policy: Policy, arms: int, seed: int) -> Learned:
        """Before the first round."""
        return Learned(
            policy.begin(arms),
            np.random.Generator(np.random.PCG64(seed)),
            np.zeros(arms, dtype=np.int64),
            [RunningMean() for _ in range(arms)],
            np.zeros(arms, dtype=np.int64),
            np.zeros(arms, dtype=np.int64),
            RunningMean(),
            _REGRESSION.begin(1),
        )

    def tell_fallback(self, cost: float, context: float | None) -> None:
        """Learn what the fallback cost."""
        self.fallback.add(cost)
        if context is not None:
            _REGRESSION.update(self.fallback_at, Choice(0, 1.0), cost, context)

    def cost_of_fallback(self, context: float | None) -> float | None:
        """What the fallback is expected to cost; None where nothing is known of it."""
        if context is not None and self.fallback_at.rounds > 0.0:
            return float(_REGRESSION.expected(self.fallback_at, context)[0])
        return self.fallback.value if self.fallback.count else None


class TunerState:
    """What a tuner has learned; only solving changes it, and tuners that share it learn together.

    Attributes:
        tuner: what it belongs to: the solver, the arms, the policy, the cost, the fallback.
        learned: the numbers.
    """

    def __init__(self, tuner: dict[str, Any], learned: Learned) -> None:
        self.tuner = tuner
        self.learned = learned
        self._data: Mapping[str, Any] | None = None
        self._origin = "the tuner's state"

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write it to a file of JSON, whole or not at all.

        Raises:
            InputError: the folder does not exist.
        """
        learned = as_data(self.learned) if self._data is None else self._data
        data = {"format": _FORMAT, "version": _VERSION, "tuner": self.tuner, "learned": learned}
        write_whole(path, json.dumps(data, allow_nan=False).encode())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> TunerState:
        """Read what `save` wrote; the tuner that it is given to checks that it is its own.

        Raises:
            InputError: if the file is missing, no state of a tuner, damaged or of another version.
        """
        try:
            data = json.loads(Path(path).read_bytes())
        except OSError as error:
            raise InputError(f"{path} cannot be read: {error.strerror or error}") from error
        except (ValueError, RecursionError) as error:
            raise InputError(f"{path} is no state of a tuner: it is not JSON ({error})") from error
        if not isinstance(data, Mapping) or data.get("format") != _FORMAT:
            raise InputError(f"{path} is no state of a tuner: its format is not {_FORMAT!r}")
        if data.get("version") != _VERSION:
            raise InputError(f"{path} is of version {data.get('version')!r}, this program reads version {_VERSION}")
        if not isinstance(data.get("tuner"), dict) or not isinstance(data.get("learned"), dict):
            raise InputError(f"{path} is damaged: 'tuner' or 'learned' is missing")
        state = cls(data["tuner"], None)  # type: ignore[arg-type]
        state._data, state._origin = data["learned"], str(path)
        return state

    def belong(self, tuner: dict[str, Any], policy: Policy) -> None:
        """Check that it is the state of a tuner, and read what came from a file.

        Raises:
            InputError: if it is another's, or damaged.
        """
        for key, wanted in tuner.items():
            if self.tuner.get(key) != wanted:
                raise InputError(
                    f"{self._origin} belongs to another tuner: its {key} is {_short(self.tuner.get(key))}, here it is "
                    f"{_short(wanted)}; without a state a tuner learns from the beginning"
                )
        if self._data is not None:
            learned = Learned.nothing(policy, len(tuner["arms"]), 0)
            fill(learned, self._data, self._origin)
            self.learned, self._data = learned, None


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 160 else f"{text[:120]} ... {text[-30:]}"
