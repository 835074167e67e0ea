"""What operators ask of a dataset; `sciml.datasets.Dataset` has it all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol

from torch import Tensor

from sciml.equations import Equation
from sciml.grid import Grid
from sciml.training import Samples


class Described(Protocol):
    """What the samples share."""

    @property
    def name(self) -> str: ...
    @property
    def grid(self) -> Grid: ...
    @property
    def domain(self) -> Grid: ...
    @property
    def times(self) -> Tensor | None: ...
    @property
    def equation(self) -> Equation | None: ...
    @property
    def parameters(self) -> Mapping[str, float | Tensor]: ...
    @property
    def fields(self) -> Mapping[str, Any]: ...
    @property
    def points(self) -> Literal["cells", "nodes"]: ...
    def read(
        self, name: str, indices: Tensor | Sequence[int] | None, times: Tensor | Sequence[int] | None
    ) -> Tensor: ...


class OperatorData(Described, Protocol):
    """To train with."""

    @property
    def digest(self) -> str: ...
    @property
    def inputs(self) -> tuple[str, ...]: ...
    @property
    def outputs(self) -> tuple[str, ...]: ...
    @property
    def splits(self) -> tuple[str, ...]: ...
    def split(self, name: str) -> OperatorData: ...
    def samples(self, inputs: Sequence[str] | None, outputs: Sequence[str] | None, steps: int | None) -> Samples: ...


class EvaluationData(Described, Protocol):
    """To evaluate on."""

    def __len__(self) -> int: ...
    def split(self, name: str) -> EvaluationData: ...
