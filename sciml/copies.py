"""Deep copies of what holds tensors."""

from __future__ import annotations

import copy
from typing import Any, TypeVar

from .errors import InputError

T = TypeVar("T")


def deep_copy(parts: T, memo: dict[int, Any], what: str) -> T:
    """A copy of the parts of an object, `memo` being that of the protocol of `copy.deepcopy`.

    Raises:
        InputError: for tensors that were computed with gradients, which torch does not copy.
    """
    try:
        return copy.deepcopy(parts, memo)
    except RuntimeError as error:
        raise InputError(
            f"{what} holds tensors that were computed with gradients, and these cannot be copied: make it under "
            "torch.no_grad(), or from detached tensors"
        ) from error
