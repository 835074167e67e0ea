"""Ritz vectors against scipy's and the dense eigenvectors, with all the memory and with little."""

from __future__ import annotations

import numpy
import pytest
import scipy.sparse.linalg
import torch

import sciml
from sciml.errors import InputError
from sciml.solvers.linear.learned import ritz_vectors


def scipy_matrix(operator):
    matrix = operator.to_sparse()
    parts = (matrix.values().numpy(), matrix.col_indices().numpy(), matrix.crow_indices().numpy())
    return scipy.sparse.csr_matrix(parts, shape=(operator.size, operator.size))


def residuals(operator, ritz):
    images = torch.stack([operator.apply(vector) for vector in ritz.vectors])
    return (images - ritz.values.reshape(-1, *[1] * len(operator.space)) * ritz.vectors).flatten(1).norm(dim=1)


def overlaps(ritz):
    rows = ritz.vectors.flatten(1)
    return (rows @ rows.mT - torch.eye(len(rows), dtype=rows.dtype)).abs().max()


@pytest.fixture
def operator():
    """Of different lengths and spacings along its axes: all its eigenvalues are simple."""
    grid = sciml.Grid((9, 10, 7), upper=(1.0, 1.3, 0.9))
    return sciml.discretize(sciml.Equation("-laplacian(u) = f"), grid, fields={"f": 0.0}).operator


def test_the_ends_of_the_spectrum_are_those_of_scipy(operator):
    ritz = ritz_vectors(operator, 150, dtype=torch.float64)
    assert (len(ritz.values), ritz.products, ritz.restarts) == (150, 151, 0)
    for which, own in (("SM", slice(0, 4)), ("LA", slice(-4, None))):
        sigma = {"sigma": 0.0, "which": "LM"} if which == "SM" else {"which": which}
        values, vectors = scipy.sparse.linalg.eigsh(scipy_matrix(operator), 4, **sigma)
        numpy.testing.assert_allclose(ritz.values[own].numpy(), values, rtol=1e-9)
        along = (vectors.T @ ritz.vectors[own].flatten(1).numpy().T).diagonal()
        numpy.testing.assert_allclose(abs(along), 1.0, rtol=1e-8)
    assert overlaps(ritz) < 1e-13
    torch.testing.assert_close(residuals(operator, ritz), ritz.residuals, rtol=1e-6, atol=1e-9)


def test_with_little_memory_the_lowest_converge_by_restarts(operator):
    whole = ritz_vectors(operator, 120, dtype=torch.float64)
    little = ritz_vectors(operator, 120, memory=8 * operator.size * 25, dtype=torch.float64)
    assert len(little.values) == 24 and little.restarts >= 4 and little.products > 120
    values = scipy.sparse.linalg.eigsh(scipy_matrix(operator), 6, sigma=0.0, which="LM")[0]
    numpy.testing.assert_allclose(little.values[:6].numpy(), values, rtol=1e-6)
    once = ritz_vectors(operator, 24, restarts=0, dtype=torch.float64)
    assert little.residuals[:6].max() < 1e-3 * once.residuals[:6].min()
    assert overlaps(little) < 1e-12
    torch.testing.assert_close(residuals(operator, little), little.residuals, rtol=1e-6, atol=1e-9)
    assert "24 Ritz vectors of (9, 10, 7)" in little.describe() and "restarts" in little.describe()
    assert "restarts" not in whole.describe()


def test_in_single_precision_they_stay_orthonormal(operator):
    ritz = ritz_vectors(operator, 200)
    assert ritz.vectors.dtype == torch.float32
    assert overlaps(ritz) < 2e-6
    exact = numpy.linalg.eigvalsh(scipy_matrix(operator).toarray())
    numpy.testing.assert_allclose(ritz.values[:4].numpy(), exact[:4], rtol=2e-5)


def test_all_of_a_small_space_and_a_start_that_is_an_eigenvector(boxes):
    whole = boxes.operator(3)
    ritz = ritz_vectors(whole, 1000, dtype=torch.float64)
    exact = numpy.linalg.eigvalsh(scipy_matrix(whole).toarray())
    numpy.testing.assert_allclose(ritz.values.numpy(), exact, rtol=1e-10)
    identity = sciml.linear_operator.Identity((4, 4), torch.float64)
    torch.testing.assert_close(ritz_vectors(identity, 5, dtype=torch.float64).values, torch.ones(5).double())


def test_the_null_space_is_left_out(boxes):
    ritz = ritz_vectors(boxes.operator(5, boundary=sciml.Neumann(0.0)), 125, dtype=torch.float64)
    assert ritz.values[0] > 1.0
    assert ritz.vectors.flatten(1).sum(1).abs().max() < 1e-10


def test_what_cannot_be_is_refused(boxes, operator):
    with pytest.raises(InputError, match="memory for 1 vectors of 630 unknowns: at least 12600 bytes are needed"):
        ritz_vectors(operator, 100, memory=5040)
    with pytest.raises(InputError, match="not known to be"):
        ritz_vectors(operator @ operator, 10)
    with pytest.raises(InputError, match="count must be a whole number of at least 1"):
        ritz_vectors(operator, 0)
    for restarts in (-1, 1.5):
        with pytest.raises(InputError, match="restarts must be None or a whole number of at least 0"):
            ritz_vectors(operator, 10, restarts=restarts)
    with pytest.raises(InputError, match=r"dtype must be torch\.float32 or float64, got torch\.int64"):
        ritz_vectors(operator, 10, dtype=torch.int64)
