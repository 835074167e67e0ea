"""Every kind of linear operator: its matrix is its action, its transpose its adjoint, a batch its rows."""

from __future__ import annotations

import itertools
import math

import numpy
import pytest
import scipy.sparse
import torch
from torch import Tensor

from sciml.csr import csr_entries, csr_tensor, is_symmetric, sorted_entries
from sciml.errors import InputError
from sciml.linear_operator import (
    BlockOperator,
    Identity,
    LinearOperator,
    ProductOperator,
    ScaledOperator,
    SumOperator,
)
from sciml.sparse import SparseOperator, as_operator
from sciml.stencil import StencilOperator

SPACE = (5, 4)
CROSS = [(0, 0), (1, 0), (-1, 0), (0, 1), (0, -1)]
WIDE = [*CROSS, (2, 0), (-2, 0), (0, 2), (0, -2)]


def field(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def stencil(offsets=CROSS, periodic=(False, True), batch: tuple[int, ...] = (), seed: int = 0) -> StencilOperator:
    coefficients = [field(*batch, *SPACE, seed=seed + k) for k in range(len(offsets))]
    return StencilOperator(SPACE, offsets, coefficients, periodic)


def sparse(seed: int = 0) -> SparseOperator:
    matrix = field(20, 20, seed=seed) * (field(20, 20, seed=seed + 50) > 0.8)
    return SparseOperator(matrix.to_sparse_csr(), SPACE)


def scale(*batch: int) -> Tensor:
    return 0.5 + field(*batch, seed=9).abs()


IDENTITY = Identity(SPACE, torch.float64)
OPERATORS = {
    "identity": lambda: IDENTITY,
    "stencil": stencil,
    "wide periodic stencil": lambda: stencil(WIDE, (True, True)),
    "wide stencil": lambda: stencil(WIDE, (False, False)),
    "stencil batch": lambda: stencil(batch=(3,)),
    "stencil two batch axes": lambda: stencil(batch=(2, 3)),
    "sparse": sparse,
    "scaled by a number": lambda: -2.5 * stencil(),
    "scaled by a tensor": lambda: ScaledOperator(scale(2, 3), stencil()),
    "scaled batch": lambda: ScaledOperator(scale(3), stencil(batch=(2, 3))),
    "sum": lambda: stencil() + 3.0 * IDENTITY - sparse(),
    "sum of batches": lambda: stencil(batch=(3,)) + stencil(batch=(2, 3), seed=20),
    "product": lambda: stencil() @ sparse(),
    "product of batches": lambda: stencil(batch=(2, 1)) @ stencil(batch=(3,), seed=20),
    "blocks": lambda: BlockOperator([[stencil(), None], [sparse(), 2.0 * IDENTITY]]),
    "blocks of batches": lambda: BlockOperator([[stencil(batch=(3,)), IDENTITY], [stencil(batch=(2, 1)), sparse()]]),
    "negative": lambda: -(stencil() @ stencil(seed=5)),
}


@pytest.fixture(params=OPERATORS)
def operator(request: pytest.FixtureRequest) -> LinearOperator:
    return OPERATORS[request.param]()


def rows(operator: LinearOperator):
    """Every index of the batch, with the single operator there."""
    for index in itertools.product(*map(range, operator.batch)):
        single = operator
        for i in index:
            single = single[i]
        yield index, single


def test_matrix_is_the_action(operator):
    x = field(*operator.space, seed=1)
    for _, single in rows(operator):
        assert single.batch == ()
        matrix = single.to_sparse()
        assert matrix.layout == torch.sparse_csr
        product = (matrix @ x.reshape(-1, 1)).reshape(operator.space)
        torch.testing.assert_close(single.apply(x), product, rtol=1e-13, atol=1e-13)
        diagonal = single.diagonal().expand(operator.space).reshape(-1)
        torch.testing.assert_close(diagonal, matrix.to_dense().diagonal(), rtol=1e-13, atol=1e-13)


def test_transpose_is_the_adjoint(operator):
    x, y = field(4, *[1] * len(operator.batch), *operator.space), field(*operator.batch, *operator.space, seed=2)
    axes = tuple(range(-len(operator.space), 0))
    transposed = operator.transpose()
    assert transposed.batch == operator.batch
    left, right = (operator.apply(x) * y).sum(dim=axes), (x * transposed.apply(y)).sum(dim=axes)
    torch.testing.assert_close(left, right, rtol=1e-12, atol=1e-12)
    again = transposed.transpose().apply(x)
    torch.testing.assert_close(again, operator.apply(x), rtol=1e-12, atol=1e-12)


def test_a_batch_is_its_rows(operator):
    x = field(4, *operator.batch, *operator.space, seed=3)
    together = operator.apply(x)
    assert together.shape == x.shape
    diagonal = operator.diagonal().expand(*operator.batch, *operator.space)
    for index, single in rows(operator):
        torch.testing.assert_close(together[(slice(None), *index)], single.apply(x[(slice(None), *index)]))
        torch.testing.assert_close(diagonal[index], single.diagonal().expand(operator.space))
    if operator.batch:
        with pytest.raises(InputError, match=r"not one matrix.*operator\[i\]"):
            operator.to_sparse()
    else:
        with pytest.raises(InputError, match="no batch axis"):
            operator[0]


def test_residual_and_out(operator):
    x, b = field(*operator.batch, *operator.space, seed=4), field(*operator.batch, *operator.space, seed=5)
    image = operator.apply(x)
    torch.testing.assert_close(operator.residual(b, x), b - image)
    with torch.no_grad():
        for action, expected in ((operator.apply, image), (lambda v, out: operator.residual(b, v, out=out), b - image)):
            out = torch.empty_like(b)
            assert action(x, out=out) is out
            torch.testing.assert_close(out, expected)


def test_conversion_and_detachment(operator):
    x = field(*operator.space, seed=6)
    single = operator.to(torch.float32)
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.apply(x.float()).double(), operator.apply(x), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(operator.detach().apply(x), operator.apply(x))
    assert operator.shape == (*operator.batch, operator.size, operator.size)
    assert operator.size == math.prod(operator.space)
    assert type(operator).__name__ in repr(operator)


def test_gradients_reach_every_part():
    a, b, c = (field(*SPACE, seed=k).requires_grad_() for k in range(3))
    values = field(20, seed=3).requires_grad_()

    def apply(a: Tensor, b: Tensor, c: Tensor, values: Tensor) -> Tensor:
        first = StencilOperator(SPACE, CROSS[:2], [a, b], (False, True))
        diagonal = torch.arange(20)
        pattern = csr_tensor(diagonal, diagonal.flip(0), torch.ones(20, dtype=torch.float64), (20, 20))
        second = SparseOperator(pattern, SPACE, values=values)
        third = ScaledOperator(values[0], second + first @ second.transpose())
        block = BlockOperator([[third, first.transpose()], [None, second]])
        return block.apply(torch.stack([c, c.sin()]))

    assert torch.autograd.gradcheck(apply, (a, b, c, values), check_forward_ad=True, fast_mode=True)
    assert torch.autograd.gradgradcheck(apply, (a, b, c, values), fast_mode=True)
    assert not OPERATORS["blocks"]().detach().apply(torch.ones(2, *SPACE, dtype=torch.float64)).requires_grad


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("size", [5, 60])
def test_sparse_products_of_any_batch(dtype, size):
    """Below and above the size at which rows are taken one by one; strided fields and results."""
    dense = (field(size, size) * (field(size, size, seed=1) > 0)).to(dtype)
    operator = SparseOperator(dense.to_sparse_csr())
    with torch.no_grad():
        for shape in [(size,), (1, size), (3, size), (2, 3, size)]:
            x = field(*shape, seed=2).to(dtype)
            torch.testing.assert_close(operator.apply(x), x @ dense.T)
        wide = field(size, 3, seed=2).to(dtype)
        out = torch.empty_like(wide).T
        torch.testing.assert_close(operator.apply(wide.T, out=out), (dense @ wide).T)


def test_matrices_that_are_accepted():
    dense = field(6, 6).abs() * (field(6, 6, seed=1) > 0)
    coo = scipy.sparse.coo_array(dense.numpy())
    doubled = scipy.sparse.coo_array(
        (numpy.tile(coo.data / 2, 2), (numpy.tile(coo.row, 2), numpy.tile(coo.col, 2))), shape=(6, 6)
    )
    accepted = [dense, dense.to_sparse(), dense.to_sparse_csr(), coo, coo.tocsr(), coo.tocsc(), doubled]
    accepted += [scipy.sparse.csr_matrix(dense.numpy()), dense.to_sparse_csc()]
    x = field(6, seed=2)
    for matrix in accepted:
        torch.testing.assert_close(as_operator(matrix).apply(x), dense @ x)
    operator = as_operator(dense)
    assert as_operator(operator) is operator


def test_symmetry_is_seen():
    dense = field(8, 8) * (field(8, 8, seed=1) > 0)
    symmetric = dense + dense.T
    assert is_symmetric(symmetric.to_sparse_csr())
    assert not is_symmetric(dense.to_sparse_csr())
    assert as_operator(symmetric).transpose() is not None
    symmetric[0, 1] += 1e-15
    symmetric[1, 0] -= 1e-15
    assert is_symmetric(symmetric.to_sparse_csr())
    symmetric[0, 1] += 1e-6
    assert not is_symmetric(symmetric.to_sparse_csr())
    assert is_symmetric(torch.zeros(3, 3).to_sparse_csr())
    entries = csr_entries(symmetric.to_sparse_csr())
    torch.testing.assert_close(csr_tensor(*entries, (8, 8)).to_dense(), symmetric)


def test_entries_are_sorted_and_added_up():
    rows, columns = torch.tensor([2, 0, 1, 0, 2, 0]), torch.tensor([1, 3, 0, 3, 1, 0])
    values = torch.arange(1.0, 7.0, dtype=torch.float64).requires_grad_()
    sorted_rows, sorted_columns, total = sorted_entries(rows, columns, values, 4)
    assert sorted_rows.tolist() == [0, 0, 1, 2] and sorted_columns.tolist() == [0, 3, 0, 1]
    assert total.tolist() == [6.0, 6.0, 3.0, 6.0]
    assert torch.autograd.gradgradcheck(lambda v: sorted_entries(rows, columns, v, 4)[2].exp(), (values,))
    assert sorted_entries(sorted_rows, sorted_columns, total, 4)[2] is total


def test_matrices_are_made_without_warnings(recwarn):
    for name in ("stencil", "blocks", "sum", "sparse"):
        OPERATORS[name]().to_sparse()
    as_operator(scipy.sparse.eye_array(3, format="csr"))
    assert not [str(w.message) for w in recwarn if "parse" in str(w.message)]


def test_refusals():
    with pytest.raises(InputError, match="different spaces"):
        stencil() + Identity((4, 5), torch.float64)
    with pytest.raises(InputError, match=r"add numbers as c \* Identity"):
        stencil() + 2.0
    with pytest.raises(InputError, match="square table"):
        BlockOperator([[stencil()], [stencil()]])
    with pytest.raises(InputError, match="diagonal block"):
        BlockOperator([[stencil(), stencil()], [stencil(), None]])
    with pytest.raises(InputError, match="20 rows does not act on fields of shape"):
        SparseOperator(sparse().matrix, (3, 3))
    with pytest.raises(InputError, match="square CSR matrix"):
        SparseOperator(torch.ones(3, 3))


def test_names_of_the_parts():
    assert isinstance(stencil() + IDENTITY, SumOperator)
    assert isinstance(stencil() @ IDENTITY, ProductOperator)
    assert (2.0 * IDENTITY).symmetric and (IDENTITY + IDENTITY).symmetric
    assert not (IDENTITY + stencil()).symmetric
