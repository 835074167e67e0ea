"""Scikit-learn's handwritten digits: 1,797 images of 8 x 8 pixels, which come with the library."""

from __future__ import annotations

import torch

from sciml.errors import InputError

from .data import Images

TRAINING = 1437
_SHADES = 16.0  # a pixel counts the black ones of a square of 4 x 4


def digits(dtype: torch.dtype = torch.float64, *, seed: int = 0) -> Images:
    """The digits, 1,437 of them for training and 360 for the test.

    Alpaydin and Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning Repository 1998; the part
    that scikit-learn has.

    Args:
        dtype: of the pixels, which are scaled to [0, 1].
        seed: of the division into two.

    Raises:
        InputError: scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise InputError("the digits come with scikit-learn: pip install 'sciml-torch[demo]'") from error
    pixels, labels = load_digits(return_X_y=True)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    image, label = torch.from_numpy(pixels)[order].to(dtype) / _SHADES, torch.from_numpy(labels)[order].long()
    return Images(image[:TRAINING], label[:TRAINING], image[TRAINING:], label[TRAINING:], classes=10)
