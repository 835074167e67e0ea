"""Parts of the layout of The Well in HDF5 files that solutions on grids and on meshes share."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import h5py
import numpy as np
import torch
from torch import Tensor

from .boundary import Dirichlet, Neumann, Periodic, Robin, Unstated

DTYPES = {"float64": torch.float64, "float32": torch.float32}
_CONDITIONS = {kind.__name__: kind for kind in (Dirichlet, Neumann, Robin, Periodic, Unstated)}


class Category:
    """One of The Well's groups of datasets with its list of names."""

    def __init__(self, file: h5py.File, name: str) -> None:
        self._group = file.create_group(name)
        self._names: list[str] = []
        self._group.attrs["field_names"] = texts(())

    def add(self, name: str, values: np.ndarray[Any, Any], **attributes: Any) -> str:
        """Store an array; returns its place in the file."""
        self._group[name] = values
        self._group[name].attrs.update(attributes)
        self._names.append(name)
        self._group.attrs["field_names"] = texts(self._names)
        return str(self._group[name].name)


class Arrays:
    """Arrays of a group, referred to from the description by their place."""

    def __init__(self, group: h5py.Group) -> None:
        self._group = group

    def put(self, name: str, values: Tensor) -> dict[str, str]:
        """Store a tensor; returns what the description says of it."""
        self._group[name] = numpy_of(values)
        return {"dataset": f"{self._group.name}/{name}"}

    def keep(self, name: str, item: Any) -> Any:
        """Store a tensor, or return what JSON can hold itself."""
        return self.put(name, item) if isinstance(item, Tensor) else item


def write_frame(
    file: h5py.File,
    name: str,
    parameters: Mapping[str, Any],
    kind: str,
    rows: int,
    axes: Iterable[Tensor],
    times: Tensor | None = None,
) -> h5py.Group:
    """Attributes, `dimensions`, and an empty `boundary_conditions`, which is returned.

    Args:
        name: of the dataset.
        parameters: by name; those that are tensors are left to `store`.
        kind: of grid, for the attribute `grid_type`.
        rows: of the batch, flattened.
        axes: coordinates, one tensor an axis.
        times: of an evolution.
    """
    places = dict(zip("xyz", axes, strict=False))
    uniform = {name: value for name, value in parameters.items() if not isinstance(value, Tensor)}
    file.attrs["dataset_name"] = name
    file.attrs["grid_type"] = kind
    file.attrs["n_spatial_dims"] = len(places)
    file.attrs["n_trajectories"] = rows
    file.attrs["simulation_parameters"] = texts(uniform)
    for name, value in uniform.items():
        file.attrs[name] = value
    dimensions = file.create_group("dimensions")
    dimensions.attrs["spatial_dims"] = texts(places)
    dimensions["time"] = np.zeros(1) if times is None else numpy_of(times)
    dimensions["time"].attrs["sample_varying"] = False
    for axis, coordinates in places.items():
        dimensions[axis] = numpy_of(coordinates)
        dimensions[axis].attrs["sample_varying"] = dimensions[axis].attrs["time_varying"] = False
    return file.create_group("boundary_conditions")


def write_boundary(
    group: h5py.Group, name: str, axes: Iterable[str], kind: str, mask: np.ndarray[Any, Any], held: Mapping[str, float]
) -> None:
    """One entry of `boundary_conditions`: where it is, and the unknowns whose value is held there."""
    entry = group.create_group(name)
    entry.attrs["associated_dims"] = texts(axes)
    entry.attrs["associated_fields"] = texts(held)
    entry.attrs["bc_type"] = kind
    entry.attrs["sample_varying"] = entry.attrs["time_varying"] = False
    entry["mask"] = mask
    if len(held) == 1:
        entry["values"] = np.full(int(mask.sum()), next(iter(held.values())))


def store(
    value: float | Tensor,
    name: str,
    batch: tuple[int, ...],
    shape: tuple[int, ...],
    fields: Category,
    scalars: Category,
    **attributes: Any,
) -> Any:
    """Store a coefficient or parameter where The Well has it; returns what the description says of it.

    Args:
        value: a number, or a tensor that broadcasts to `(*batch, *shape)`.
        attributes: of the dataset, where the value varies in space.
    """
    if not isinstance(value, Tensor):
        scalars.add(name, np.full(1, value), sample_varying=False, time_varying=False)
        return value
    leading = value.shape[: value.dim() - len(shape)]
    varies_by_row = math.prod(leading) > 1
    uniform = math.prod(value.shape[value.dim() - len(shape) :]) == 1
    space = (1,) * len(shape) if uniform else shape
    whole = value.expand(*batch, *space) if varies_by_row else value.reshape(value.shape[len(leading) :]).expand(space)
    flat = numpy_of(whole.reshape([*([-1] if varies_by_row else []), *(() if uniform else space)]))
    if uniform:
        place = scalars.add(name, flat.reshape(-1), sample_varying=varies_by_row, time_varying=False)
    else:
        varying = {"sample_varying": varies_by_row, "time_varying": False, "dim_varying": [True] * len(shape)}
        place = fields.add(name, flat, **varying, **attributes)
    return {"dataset": place, "shape": list(value.shape), "whole": list(whole.shape)}


def store_in_time(
    values: Tensor, name: str, batch: tuple[int, ...], axes: int, fields: Category, **attributes: Any
) -> dict[str, Any]:
    """Store a field that changes in time where The Well has it; returns what the description says of it.

    Args:
        values: `(time, *own, *space)`, where `own` broadcasts to the batch.
        axes: of space.
        attributes: of the dataset.
    """
    space = values.shape[values.ndim - axes :]
    own = batch if math.prod(values.shape[1 : values.ndim - axes]) > 1 else ()
    shaped = values if own else values.reshape(len(values), *space)
    whole = shaped.expand(len(values), *own, *space).movedim(0, len(own))
    whole = whole.reshape(*([-1] if own else []), len(values), *space)
    varying = {"sample_varying": bool(own), "time_varying": True, "dim_varying": [True] * axes}
    place = fields.add(name, numpy_of(whole), **varying, **attributes)
    return {"dataset": place, "own": list(own), "axes": axes}


def restore_in_time(item: Mapping[str, Any], file: h5py.File, device: torch.device) -> Tensor:
    """The inverse of `store_in_time`."""
    whole, own, axes = tensor_of(file, item, device), item["own"], item["axes"]
    shape = whole.shape[whole.ndim - axes - 1 :]
    return whole.reshape(*own, *shape).movedim(len(own), 0)


def restore(item: Any, file: h5py.File, device: torch.device) -> float | Tensor:
    """The inverse of `store`: axes along which the value was repeated are cut down again."""
    if not isinstance(item, Mapping):
        return float(item)
    shape: list[int] = item["shape"]
    whole = tensor_of(file, item, device).reshape(item["whole"])
    whole = whole[(0,) * max(0, whole.dim() - len(shape))]
    for axis in range(-1, -1 - min(len(shape), whole.dim()), -1):
        whole = whole.narrow(axis, 0, shape[axis])
    return whole.reshape(shape).contiguous()


def restore_parameters(
    described: Mapping[str, Any], file: h5py.File, device: torch.device, axes: int
) -> dict[str, float | Tensor]:
    """Parameters as callers give them: of the batch's shape, without the `axes` of space."""
    restored = {name: restore(item, file, device) for name, item in described.items()}
    return {
        name: value.reshape(value.shape[: value.dim() - axes]) if isinstance(value, Tensor) else value
        for name, value in restored.items()
    }


def make_condition(described: Mapping[str, Any], read: Callable[[Any], Any]) -> Any:
    """A condition from its kind and its values, each of which `read` makes of what the description says."""
    words = {word: read(item) for word, item in described.items() if word != "kind"}
    return _CONDITIONS[described["kind"]](**words)


def numpy_of(values: Tensor) -> np.ndarray[Any, Any]:
    """A tensor as an array on the CPU."""
    return values.detach().cpu().contiguous().numpy()


def tensor_of(file: h5py.File, item: Mapping[str, Any], device: torch.device) -> Tensor:
    """The tensor that the description refers to."""
    return torch.from_numpy(np.asarray(file[item["dataset"]][()])).to(device)


def texts(words: Iterable[str]) -> np.ndarray[Any, Any]:
    """Words as an attribute of HDF5."""
    return np.array(list(words), dtype=h5py.string_dtype())


def dtype_name(dtype: torch.dtype) -> str:
    """One of DTYPES."""
    return next(name for name, known in DTYPES.items() if known == dtype)
