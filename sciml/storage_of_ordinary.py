"""What an HDF5 file holds of a system of ordinary differential equations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import h5py
import torch
from torch import Tensor

from .equations import Equation
from .ordinary import OrdinarySystem
from .tables_in_time import AtTimes, anywhere, over_times
from .well import DTYPES, Arrays, Category, dtype_name, restore, store, tensor_of, write_frame


def describe(
    file: h5py.File,
    system: OrdinarySystem,
    batch: tuple[int, ...],
    rows: int,
    fields: Category,
    scalars: Category,
    arrays: Arrays,
    times: Tensor | None,
) -> dict[str, Any]:
    """Write a system; returns what the description says of it."""
    write_frame(file, str(system.equation), system.parameters, "none", rows, (), times)

    def value(name: str, item: Any) -> Any:
        if times is None or isinstance(item, Tensor) or not callable(item):
            return store(item, name, batch, (), fields, scalars)
        table = over_times(lambda t: torch.as_tensor(item(t), dtype=system.dtype, device=system.device), times)
        return {"in_time": arrays.put(f"functions/{name}", table)}

    return {
        "ordinary": {"dtype": dtype_name(system.dtype)},
        "fields": {name: value(name, item) for name, item in system.fields.items()},
        "parameters": {n: store(v, n, batch, (), fields, scalars) for n, v in system.parameters.items()},
    }


def rebuild(
    file: h5py.File, description: Mapping[str, Any], equation: Equation, device: torch.device, times: Tensor | None
) -> OrdinarySystem:
    """The inverse of `describe`."""
    fields: dict[str, Any] = {}
    for name, item in description["fields"].items():
        if isinstance(item, Mapping) and "in_time" in item:
            table = tensor_of(file, item["in_time"], device)
            fields[name] = AtTimes(anywhere(table), torch.as_tensor(times), 0, f"field {name!r}")
            fields[name].strict = True
        else:
            fields[name] = restore(item, file, device)
    parameters = {name: restore(item, file, device) for name, item in description["parameters"].items()}
    dtype = DTYPES[description["ordinary"]["dtype"]]
    return OrdinarySystem(equation, fields, parameters, dtype=dtype, device=device)
