"""Products of large sparse matrices, which compiled kernels take where there are any."""

from __future__ import annotations

import numpy
import pytest
import torch
from scipy.sparse import csr_array, random_array

from sciml.kernels.sparse import sum_segments
from sciml.sparse import SparseOperator


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("batch", [(), (3,), (2, 2)])
def test_products_equal_those_of_scipy(dtype: torch.dtype, batch: tuple[int, ...]) -> None:
    # Rows of all lengths, empty ones among them.
    generator = numpy.random.default_rng(0)
    matrix = csr_array(random_array((900, 900), density=0.008, rng=generator))
    matrix.data[matrix.indptr[10] : matrix.indptr[20]] = 0.0
    matrix.eliminate_zeros()
    parts = (torch.from_numpy(matrix.indptr), torch.from_numpy(matrix.indices), torch.from_numpy(matrix.data).to(dtype))
    operator = SparseOperator(torch.sparse_csr_tensor(*parts, size=(900, 900), check_invariants=True))
    x = torch.from_numpy(generator.random((*batch, 900))).to(dtype)
    expected = torch.from_numpy((matrix @ x.double().numpy().reshape(-1, 900).T).T.reshape(x.shape))
    tolerance = 1e-13 if dtype == torch.float64 else 1e-5
    torch.testing.assert_close(operator.apply(x).double(), expected, rtol=tolerance, atol=tolerance)
    out = torch.empty_like(x)
    assert operator.apply(x, out) is out
    torch.testing.assert_close(out.double(), expected, rtol=tolerance, atol=tolerance)
    # A field that is no contiguous one, and the path that can be differentiated.
    wide = torch.stack([x, x], -1)[..., 0]
    torch.testing.assert_close(operator.apply(wide).double(), expected, rtol=tolerance, atol=tolerance)
    tracked = operator.apply(x.requires_grad_()).detach()
    torch.testing.assert_close(tracked.double(), expected, rtol=tolerance, atol=tolerance)


def test_sums_over_segments_of_all_lengths() -> None:
    starts = torch.tensor([0, 0, 3, 4, 4, 10], dtype=torch.int32)
    places = torch.tensor([5, 1, 0, 2, 4, 3, 6, 9, 8, 7], dtype=torch.int32)
    values = torch.rand(2, 3, 10, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = sum_segments(starts, places, values)
    if found is None:
        pytest.skip("there are no compiled kernels")
    ends = [slice(a, b) for a, b in zip(starts[:-1].tolist(), starts[1:].tolist(), strict=True)]
    expected = torch.stack([values[..., places[part].long()].sum(-1) for part in ends], -1)
    torch.testing.assert_close(found, expected, rtol=1e-15, atol=1e-15)
