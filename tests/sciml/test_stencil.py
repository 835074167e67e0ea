"""Stencil operators: compiled and eager forms, matrix, transpose, and the fused sweeps agree with the definition."""

from __future__ import annotations

import copy
import itertools

import pytest
import torch

from sciml.errors import InputError
from sciml.kernels import build
from sciml.stencil import StencilOperator

CASES = [
    ((9,), (False,), 1, ()),
    ((7,), (True,), 2, ()),
    ((6, 5), (False, False), 1, ()),
    ((6, 5), (True, False), 2, (3,)),
    ((5, 4), (True, True), 1, (2, 3)),
    ((4, 5, 3), (False, True, False), 1, ()),
    ((5, 4, 6), (True, False, True), 1, (2,)),
    ((3, 40, 2100), (False, False, False), 1, ()),
]


def random_stencil(space, periodic, reach, batch, dtype=torch.float64, seed=0):
    """Terms at all offsets within reach along axes and diagonals, coefficients constant, linewise and full in turn."""
    generator = torch.Generator().manual_seed(seed)
    offsets = [o for o in itertools.product(range(-reach, reach + 1), repeat=len(space)) if sum(map(abs, o)) <= reach]
    offsets += [(1,) * len(space), (0,) * len(space)]
    coefficients = []
    for term in range(len(offsets)):
        shape = [n if (term >> axis) % 2 else 1 for axis, n in enumerate(space)]
        lead = batch if term % 3 == 0 else ()
        coefficients.append(torch.randn(*lead, *shape, generator=generator, dtype=torch.float64).to(dtype))
    return StencilOperator(space, offsets, coefficients, periodic)


def by_definition(operator, x):
    """The sum over terms, point by point, in plain Python over one row without a batch."""
    result = torch.zeros(operator.space, dtype=x.dtype)
    for here in itertools.product(*(range(n) for n in operator.space)):
        for offset, coefficient in zip(operator.offsets, operator.coefficients, strict=True):
            there = [i + o for i, o in zip(here, offset, strict=True)]
            wrapped = [i % n if p else i for i, n, p in zip(there, operator.space, operator.periodic, strict=True)]
            if all(0 <= i < n for i, n in zip(wrapped, operator.space, strict=True)):
                weight = coefficient.expand(operator.space)[here]
                result[here] += weight * x[tuple(wrapped)]
    return result


@pytest.mark.parametrize(("space", "periodic", "reach", "batch"), CASES[:7])
def test_apply_is_the_definition(space, periodic, reach, batch):
    operator = random_stencil(space, periodic, reach, batch)
    for _ in batch:
        operator = operator[1]
    x = torch.randn(space, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(operator.apply(x), by_definition(operator, x), rtol=1e-13, atol=1e-13)


@pytest.mark.skipif(build.library() is None, reason="no C++ compiler")
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize(("space", "periodic", "reach", "batch"), CASES)
def test_compiled_equals_eager(space, periodic, reach, batch, dtype):
    operator = random_stencil(space, periodic, reach, batch, dtype)
    generator = torch.Generator().manual_seed(2)
    x, b = (torch.randn(*batch, *space, generator=generator, dtype=torch.float64).to(dtype) for _ in range(2))
    inverse = operator.diagonal().reciprocal()
    expected = operator._sum_of_slices(x)
    tolerance = {"rtol": 1e-4, "atol": 1e-4} if dtype == torch.float32 else {"rtol": 1e-12, "atol": 1e-12}
    with torch.no_grad():
        assert operator._compilable(x, b)
        torch.testing.assert_close(operator.apply(x), expected, **tolerance)
        torch.testing.assert_close(operator._sum_of_slices_in_blocks(x, None), expected, **tolerance)
        torch.testing.assert_close(operator.residual(b, x), b - expected, **tolerance)
        image = torch.empty_like(x)
        product = operator.apply_and_dot(x, image)
        torch.testing.assert_close(image, expected, **tolerance)
        space_axes = tuple(range(-len(space), 0))
        energy, size = (x * expected).double().sum(space_axes), (x * expected).double().abs().sum(space_axes)
        assert float(((product - energy).abs() / size).max()) <= tolerance["rtol"]
        sweep = x + 0.7 * inverse * (b - expected)
        scale = float(sweep.abs().max())
        assert float((operator.relax(x, b, 0.7, inverse) - sweep).abs().max()) <= tolerance["rtol"] * scale
        assert float((operator.relax(x, b, 0.7, None) - sweep).abs().max()) <= tolerance["rtol"] * scale
        scaled = 0.3 * inverse * b
        assert float((operator.scale(b, 0.3, None) - scaled).abs().max()) <= tolerance["rtol"] * float(
            scaled.abs().max()
        )


def test_diagonal_taken_on_the_fly_follows_rows():
    """A separable diagonal, varying along both axes, is never stored; every row must see its own."""
    n, m = 6, 7
    first = torch.arange(1.0, n + 1, dtype=torch.float64).reshape(n, 1)
    second = torch.arange(1.0, m + 1, dtype=torch.float64).reshape(1, m) ** 2
    operator = StencilOperator((n, m), [(0, 0), (0, 0), (0, 1)], [first, second, 0 * second], (False, False))
    b = torch.ones(n, m, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(operator.scale(b, 1.0, None), 1 / (first + second))
        torch.testing.assert_close(operator.relax(torch.zeros_like(b), b, 1.0, None), 1 / (first + second))


@pytest.mark.parametrize(("space", "periodic", "reach", "batch"), CASES[:7])
def test_matrix_and_transpose(space, periodic, reach, batch):
    operator = random_stencil(space, periodic, reach, batch)
    for _ in batch:
        operator = operator[0]
    matrix = operator.to_sparse().to_dense()
    x, y = torch.randn(2, *space, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close((matrix @ x.reshape(-1)).reshape(space), operator.apply(x), rtol=1e-13, atol=1e-12)
    torch.testing.assert_close(operator.transpose().to_sparse().to_dense(), matrix.T, rtol=0, atol=0)
    torch.testing.assert_close((operator.apply(x) * y).sum(), (operator.transpose().apply(y) * x).sum())
    diagonal = operator.diagonal().expand(space).reshape(-1)
    torch.testing.assert_close(diagonal, matrix.diagonal(), rtol=1e-14, atol=1e-14)


def test_batch_is_a_loop_over_rows():
    operator = random_stencil((6, 5), (True, False), 2, (3,))
    x = torch.randn(3, 6, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    torch.testing.assert_close(operator.apply(x), torch.stack([operator[i].apply(x[i]) for i in range(3)]))


def test_gradients_of_coefficients_and_field():
    operator = random_stencil((4, 3), (True, False), 1, ())
    coefficients = [c.clone().requires_grad_() for c in operator.coefficients]
    x = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)

    def act(x, *coefficients):
        return StencilOperator((4, 3), operator.offsets, coefficients, (True, False)).apply(x)

    assert torch.autograd.gradcheck(act, (x, *coefficients), check_forward_ad=True)
    assert torch.autograd.gradgradcheck(act, (x, *coefficients))


def test_conversion_keeps_shared_faces_shared():
    faces = torch.randn(6, 5, dtype=torch.float64)
    lower, upper = faces.narrow(0, 0, 5), faces.narrow(0, 1, 5)
    operator = StencilOperator((5, 5), [(-1, 0), (1, 0)], [lower, upper], (False, False)).to(torch.float32)
    first, second = operator.coefficients
    assert first.untyped_storage().data_ptr() == second.untyped_storage().data_ptr()
    torch.testing.assert_close(first, lower.float())
    torch.testing.assert_close(second, upper.float())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (((3, 3), [(0, 0)], [torch.ones(2, 1)], (False, False)), "does not broadcast"),
        (((3, 3), [(0,)], [torch.ones(1, 1)], (False, False)), "differ in their axes"),
        (((3, 3), [(0, 0), (0, 1)], [torch.ones(1, 1)], (False, False)), "one of each a term"),
        (((2, 2, 2, 2), [(0,) * 4], [torch.ones(1, 1, 1, 1)], (False,) * 4), "differ in their axes"),
    ],
)
def test_refusals(arguments, message):
    with pytest.raises(InputError, match=message):
        StencilOperator(*arguments)


def test_batched_operator_is_not_a_matrix():
    with pytest.raises(InputError, match=r"operator\[i\]"):
        random_stencil((4, 3), (True, False), 1, (2,)).to_sparse()


def test_views_as_coefficients_and_fields():
    """Transposed and strided coefficients, fields and results, and fields that are negated views."""
    first = torch.randn(6, 5, dtype=torch.float64).T
    second = torch.randn(5, 12, dtype=torch.float64)[:, ::2]
    operator = StencilOperator((5, 6), [(0, 0), (0, 1)], [first, second], (False, False))
    x = torch.randn(6, 5, dtype=torch.float64).T
    negated = torch._neg_view(torch.randn(5, 6, dtype=torch.float64))
    for field in (x, negated):
        torch.testing.assert_close(operator.apply(field), by_definition(operator, field.clone()))
    expected = by_definition(operator, x)
    out = torch.zeros(6, 5, dtype=torch.float64).T
    with torch.no_grad():
        torch.testing.assert_close(operator.apply(x, out=out), expected)
        in_place = x.contiguous()
        torch.testing.assert_close(operator.apply(in_place, out=in_place), expected)


@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_relaxation_on_short_rings(n):
    """Offsets that lead once around a ring belong to the diagonal."""
    offsets = [(0, 0), (0, 1), (0, -1), (0, 2), (1, 0)]
    coefficients = [torch.full((1, 1), value, dtype=torch.float64) for value in (5.0, 1.0, -0.5, 0.25, -1.0)]
    operator = StencilOperator((3, n), offsets, coefficients, (True, True))
    b = torch.randn(3, n, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(operator.scale(b, 1.0, None), b / operator.diagonal())


def test_fields_that_do_not_fit_are_refused():
    operator = StencilOperator((4, 5), [(0, 0)], [torch.ones(1, 1, dtype=torch.float64)], (False, False))
    for field, message in (
        (torch.zeros(5, 4, dtype=torch.float64), r"shape \(5, 4\), expected"),
        (torch.zeros(4, 5), "float32"),
        (torch.zeros(20, dtype=torch.float64), "expected"),
    ):
        with pytest.raises(InputError, match=message):
            operator.apply(field)
    with pytest.raises(InputError, match="same dtype"):
        StencilOperator((4,), [(0,), (1,)], [torch.ones(1), torch.ones(1).double()], (False,))
    with pytest.raises(InputError, match="at least one point"):
        StencilOperator((0, 4), [(0, 0)], [torch.ones(1, 1)], (False, False))
    with pytest.raises(InputError, match="row 7 of a batch of 3"):
        random_stencil((4, 3), (True, False), 1, (3,))[7]


def test_batch_in_one_coefficient_alone_without_kernels(monkeypatch):
    batched = torch.rand(3, 8, dtype=torch.float64)
    operator = StencilOperator((8,), [(0,), (1,)], [torch.full((1,), 4.0, dtype=torch.float64), batched], (False,))
    x = torch.rand(8, dtype=torch.float64)
    with torch.no_grad():
        expected = torch.stack([operator[row].apply(x) for row in range(3)])
        monkeypatch.setattr(build, "library", lambda: None)
        torch.testing.assert_close(operator.apply(x), expected)


def test_operators_travel_to_other_processes():
    operator = random_stencil((6, 5), (True, False), 2, (3,))
    x = torch.randn(3, 6, 5, dtype=torch.float64)
    expected = operator.apply(x)
    torch.testing.assert_close(copy.deepcopy(operator).apply(x), expected)
