"""Values at nodes, from the file to the operator."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import scipy.io
import torch

from sciml import Dirichlet, Grid, InputError, datasets
from sciml.boundary import Unstated
from sciml.operators import RelativeH1, UNet, train_operator
from sciml.training import Plan


def test_an_operator_keeps_the_conditions_of_the_domain(tmp_path: Path) -> None:
    """It is asked on the grid of the values, which states none, and on cells, where the same ones must hold."""
    x, y = np.meshgrid(np.linspace(0.0, 1.0, 17), np.linspace(0.0, 1.0, 17), indexing="ij")
    u = np.random.default_rng(0).random((6, 1, 1)) * np.sin(np.pi * x) * np.sin(np.pi * y)
    scipy.io.savemat(tmp_path / "d.mat", {"coeff": 1 + u, "sol": u})
    datasets.import_dataset(datasets.read(tmp_path / "d.mat"), tmp_path / "d", {"train": 4, "valid": 2})
    data = datasets.open(tmp_path / "d")
    operator, _ = train_operator(
        UNet(in_channels=1, out_channels=1, width=4, levels=2), data, Plan(steps=1, batch_size=2)
    )
    assert operator.place.lower == (0.0, 0.0) and operator.place.upper == (1.0, 1.0)
    a = torch.from_numpy(1 + u[:2])
    there = operator({"a": a}, data.grid)["u"]
    assert data.grid.boundary["x"] == (Unstated(), Unstated())
    assert RelativeH1.on(data.grid).walls == (("open", "open"),) * 2
    assert RelativeH1.on(data.domain).walls == (("zero", "zero"),) * 2
    torch.testing.assert_close(there, operator({"a": a})["u"], rtol=0.0, atol=0.0)
    between = operator({"a": (a[:, 1:, 1:] + a[:, :-1, 1:] + a[:, 1:, :-1] + a[:, :-1, :-1]) / 4}, data.domain)["u"]
    assert between.shape == (2, 16, 16)
    with pytest.raises(InputError, match=r"trained with Dirichlet.*at x_lower, and the grid has Dirichlet"):
        operator({"a": a[:, 1:, 1:]}, Grid((16, 16), boundary=Dirichlet(1.0)))
