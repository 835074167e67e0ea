"""Values of known functions and all their derivatives, taken by autograd."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import pytest
import torch
from torch import Tensor

Fields = Mapping[str, Callable[..., Tensor]]
Values = Callable[..., dict[str, Tensor]]


def derivative(value: Tensor, letters: str, coordinates: dict[str, Tensor]) -> Tensor:
    for letter in letters:
        value = value + 0 * sum(coordinates.values())  # it may depend on none of them
        (value,) = torch.autograd.grad(value.sum(), coordinates[letter], create_graph=True, materialize_grads=True)
    return value


@pytest.fixture
def values_of() -> Values:
    """values_of(fields, names, letters): the values of all names at random points, t between 1 and 2.

    A field is a function of its coordinates, by keyword: `lambda x, y, t: ...`.
    """

    def make(fields: Fields, names: Iterable[str], letters: str = "xyzt", points: int = 40) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(7)
        coordinates = {
            letter: (torch.rand(points, generator=generator, dtype=torch.float64) + (letter == "t")).requires_grad_()
            for letter in letters
        }
        found = {}
        for name in names:
            if name in coordinates:
                found[name] = coordinates[name]
                continue
            base = max((key for key in fields if name == key or name.startswith(f"{key}_")), key=len)
            function = fields[base]
            arguments = function.__code__.co_varnames[: function.__code__.co_argcount]
            value = function(*(coordinates[letter] for letter in arguments))
            found[name] = derivative(value, name[len(base) + 1 :], coordinates)
        return found

    return make
