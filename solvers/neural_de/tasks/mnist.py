"""The files of MNIST, and of the data sets that share their format: idx, compressed by gzip or not."""

from __future__ import annotations

import gzip
import os
import zlib
from math import prod
from pathlib import Path

import torch
from torch import Tensor

from sciml.errors import InputError

from .data import Images

_FILES = {
    "image": "train-images-idx3-ubyte",
    "label": "train-labels-idx1-ubyte",
    "test_image": "t10k-images-idx3-ubyte",
    "test_label": "t10k-labels-idx1-ubyte",
}
_UNSIGNED_BYTES = 0x08
_LARGEST = 1 << 31  # bytes; a small compressed file can become any number of them


def read_mnist(
    folder: str | os.PathLike[str],
    dtype: torch.dtype = torch.float32,
    *,
    pixels: int | None = None,
    classes: int | None = None,
) -> Images:
    """MNIST, or a data set in its format such as Fashion-MNIST.

    LeCun, Cortes and Burges, "The MNIST database of handwritten digits", whose page describes the format.

    Args:
        folder: with the four files as they are distributed, train-images-idx3-ubyte and so on, each with the ending
            .gz or without; a dot before "idx" is taken, too.
        dtype: of the pixels, which are scaled to [0, 1].
        pixels, classes: numbers of them that are wanted; None takes any.

    Raises:
        InputError: a file is missing, damaged, or of another format, the files do not belong together, or have other
            numbers than those wanted.
    """
    place = Path(folder)
    if not place.is_dir():
        raise InputError(f"{place} is no folder: MNIST is read from one with {', '.join(_FILES.values())}")
    found = {name: _find(place, file) for name, file in _FILES.items()}
    read = {name: read_idx(path) for name, path in found.items()}
    for kind in ("", "test_"):
        image, label = read[f"{kind}image"], read[f"{kind}label"]
        if image.ndim != 3 or label.ndim != 1:
            raise InputError(
                f"{found[f'{kind}image']} and {found[f'{kind}label']} have shapes {tuple(image.shape)} and "
                f"{tuple(label.shape)}: images (samples, rows, columns) and labels (samples,) are needed"
            )
        if len(image) != len(label):
            raise InputError(
                f"{found[f'{kind}image']} has {len(image)} images, and {found[f'{kind}label']} {len(label)} labels"
            )
    if read["image"].shape[1:] != read["test_image"].shape[1:]:
        raise InputError(
            f"{place}: images for training have {tuple(read['image'].shape[1:])} pixels, and those of the test "
            f"{tuple(read['test_image'].shape[1:])}"
        )
    found_classes = 1 + max(int(read["label"].max()), int(read["test_label"].max()))
    found_pixels = read["image"][0].numel()
    for what, wanted, there in (("pixels", pixels, found_pixels), ("classes", classes, found_classes)):
        if wanted is not None and there != wanted:
            raise InputError(f"{place}: images have {there} {what}, and the model is for {wanted}")

    def scaled(pixels: Tensor) -> Tensor:
        return pixels.flatten(1).to(dtype) / 255

    return Images(
        scaled(read["image"]),
        read["label"].long(),
        scaled(read["test_image"]),
        read["test_label"].long(),
        found_classes,
    )


def read_idx(path: str | os.PathLike[str]) -> Tensor:
    """What an idx file of unsigned bytes holds, uint8.

    Args:
        path: compressed by gzip where it ends in .gz.

    Raises:
        InputError: the file cannot be read, is damaged, or holds something else.
    """
    place = Path(path)
    try:
        with gzip.open(place) if place.suffix == ".gz" else open(place, "rb") as file:
            data = file.read(_LARGEST + 1)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise InputError(f"{place} is damaged, or not compressed by gzip: {error}") from error
    except OSError as error:
        raise InputError(f"{place} cannot be read: {error.strerror or error}") from error
    if len(data) > _LARGEST:
        raise InputError(f"{place} has more than {_LARGEST} bytes")
    if len(data) < 4 or data[:2] != b"\0\0":
        begins = data[:4].hex(" ") or "nothing"
        raise InputError(f"{place} is no idx file: it begins with {begins}, and one of images with 00 00 08 03")
    kind, axes = data[2], data[3]
    if kind != _UNSIGNED_BYTES:
        raise InputError(f"{place} holds numbers of kind 0x{kind:02x}: only unsigned bytes, 0x08, are read")
    start = 4 + 4 * axes
    if axes < 1 or len(data) < start:
        raise InputError(f"{place} is damaged: {axes} axes are announced, and it has {len(data)} bytes")
    shape = tuple(int.from_bytes(data[4 + 4 * axis : 8 + 4 * axis], "big") for axis in range(axes))
    if prod(shape) == 0 or len(data) - start != prod(shape):
        announced = " x ".join(map(str, shape))
        raise InputError(f"{place} is damaged: {announced} bytes are announced, and {len(data) - start} are there")
    return torch.frombuffer(bytearray(data), dtype=torch.uint8, offset=start).reshape(shape)


def _find(folder: Path, name: str) -> Path:
    dotted = name.replace("-idx", ".idx")
    for known in (name, f"{name}.gz", dotted, f"{dotted}.gz"):
        if (folder / known).is_file():
            return folder / known
    raise InputError(f"{folder} has no {name}, with or without .gz: MNIST consists of {', '.join(_FILES.values())}")
