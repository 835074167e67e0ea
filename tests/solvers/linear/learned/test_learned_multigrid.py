"""The cycle of a learned multigrid against dense linear algebra, and its kernels against torch."""

from __future__ import annotations

import copy
import dataclasses
import itertools
import math
import pickle

import pytest
import torch

import sciml
from sciml.errors import InputError
from sciml.kernels import build
from sciml.kernels.conductances import CompiledCoarsening, Faces
from sciml.solvers.linear.learned import CoarseningNetwork, LearnedMultigrid
from sciml.solvers.linear.learned.multigrid_coarsening import coarsen
from sciml.solvers.linear.learned.multigrid_compiled import compiled_cycle
from sciml.solvers.linear.learned.multigrid_conductances import conductances_of
from sciml.solvers.linear.learned.multigrid_cycle import ConductanceCycle
from sciml.solvers.linear.learned.multigrid_training import random_network

OPEN, CLOSED, RING = sciml.Dirichlet(0.0), sciml.Neumann(0.0), sciml.Periodic()
NAMES = "xyz"

needs_kernels = pytest.mark.skipif(build.library() is None, reason="no compiler here")


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def network(scale=0.0, seed=0, **settings):
    """With random last weights of a size; of size 0 the rules are not corrected."""
    made = CoarseningNetwork(**settings)
    with torch.no_grad():
        for place, parameter in enumerate(made.parameters()):
            generator = torch.Generator().manual_seed(100 * seed + place)
            if parameter.ndim:
                size = scale if parameter.shape[0] == 6 else 1.0
                parameter.copy_(size * torch.randn(parameter.shape, generator=generator))
            else:
                parameter.add_(min(scale, 1.0) * torch.randn((), generator=generator))
    return made


def diffusion(*shape, contrast=1.0, solid=None, boundary=OPEN, reaction=0.0, seed=0, batch=(), factor=1.0):
    """-div(a grad u) + k u with lognormal a, whose logarithm in base `contrast` is about -1/2 .. 1/2."""
    a = factor * contrast ** (0.5 * normal(*batch, *shape, seed=seed).clamp(-1, 1))
    grid = sciml.Grid(shape, boundary=boundary, solid=solid)
    equation = sciml.Equation("-div(a*grad(u)) + k*u = f", parameters={"k": reaction})
    return sciml.discretize(equation, grid, fields={"f": 0.0, "a": a}).operator


def boxes(*shape, seed=0):
    """Solid boxes, some of which touch."""
    solid = torch.zeros(shape, dtype=torch.bool)
    draw = torch.Generator().manual_seed(seed)
    for _ in range(4):
        corner = [int(torch.randint(n, (), generator=draw)) for n in shape]
        solid[tuple(slice(at, at + max(1, n // 3)) for at, n in zip(corner, shape, strict=True))] = True
    return solid


def matrix_of(inverse):
    """The dense matrix of a prepared cycle in float64."""
    columns = torch.eye(inverse.size, dtype=torch.float64).reshape(-1, *inverse.space)
    return inverse.apply(columns).reshape(inverse.size, inverse.size).mT


CASES = {
    "1D": lambda: diffusion(53, contrast=1e3),
    "1D, ring": lambda: diffusion(41, contrast=1e3, boundary=RING),
    "2D": lambda: diffusion(16, 16),
    "2D, odd, contrast": lambda: diffusion(17, 23, contrast=1e6),
    "2D, obstacles": lambda: diffusion(19, 14, solid=boxes(19, 14), contrast=1e2),
    "2D, closed": lambda: diffusion(15, 16, boundary=CLOSED),
    "2D, long and thin": lambda: diffusion(3, 90, contrast=1e2),
    "2D, one axis wraps": lambda: diffusion(13, 18, boundary={"x": RING, "y": OPEN}, contrast=1e4),
    "2D, both wrap": lambda: diffusion(13, 14, boundary=RING, solid=boxes(13, 14)),
    "2D, one cell that wraps": lambda: diffusion(40, 1, boundary=RING, contrast=1e2, reaction=5.0),
    "3D": lambda: diffusion(8, 8, 8, contrast=1e4),
    "3D, odd, obstacles": lambda: diffusion(7, 9, 6, solid=boxes(7, 9, 6, seed=3), contrast=1e6),
    "3D, walls": lambda: diffusion(6, 5, 9, boundary={"x": (OPEN, CLOSED), "y": CLOSED, "z": CLOSED}),
    "3D, flat": lambda: diffusion(11, 1, 13, contrast=1e2),
    "nearly singular": lambda: diffusion(16, 16, boundary=CLOSED, reaction=1e-6),
    "nearly singular islands": lambda: diffusion(16, 16, boundary=CLOSED, reaction=1e-2, contrast=1e9),
}


@pytest.mark.parametrize(
    ("precision", "scale"),
    [(torch.float32, 0.0), (torch.float32, 0.5), (torch.float32, 30.0), (torch.float64, 3.0)],
)
@pytest.mark.parametrize("name", CASES)
def test_the_cycle_is_symmetric_positive_definite_whatever_the_network_says(name, precision, scale):
    """In float32 on the CPU it is the compiled one with coefficients in 16 bits."""
    operator = CASES[name]()
    method = LearnedMultigrid(network(scale), coarsest=40, precision=precision)
    matrix = matrix_of(method.prepare(operator))
    rounding = 2e-6 if precision == torch.float32 else 1e-12
    assert float((matrix - matrix.mT).abs().max()) <= rounding * float(matrix.abs().max())
    assert float(scaled_eigenvalues(operator, matrix)[0]) > 1e-3


def scaled_eigenvalues(operator, matrix):
    """Of an inverse, scaled by the diagonal, since those of the inverse itself span the contrast."""
    scale = operator.diagonal().expand(operator.space).flatten().sqrt()
    return torch.linalg.eigvalsh(scale[:, None] * (matrix + matrix.mT) / 2 * scale)


def with_reaction(c, boundary=OPEN):
    """-laplacian(u) + c u for a field c."""
    grid = sciml.Grid(tuple(c.shape), boundary=boundary)
    return sciml.discretize(sciml.Equation("-laplacian(u) + c*u = f"), grid, fields={"f": 0.0, "c": c}).operator


@pytest.mark.parametrize("precision", [torch.float32, torch.float64])
@pytest.mark.parametrize("boundary", [OPEN, RING])
def test_it_is_so_where_row_sums_are_negative_too(boundary, precision):
    """In single cells, whose neighbours hold them so well that the operator is positive definite."""
    c = torch.full((12, 12), 5e4, dtype=torch.float64)
    c[::3, ::3] = -3.9 * 12**2
    operator = with_reaction(c, boundary)
    assert float(torch.linalg.eigvalsh(operator.to_sparse().to_dense())[0]) > 0
    matrix = matrix_of(LearnedMultigrid(coarsest=30, precision=precision).prepare(operator))
    assert float(scaled_eigenvalues(operator, matrix)[0]) > 1e-2


@pytest.mark.parametrize("precision", [torch.float32, torch.float64])
@pytest.mark.parametrize("boundary", [OPEN, RING])
@pytest.mark.parametrize("reaction", [1e3, 1e6, 1e12, 1e18])
def test_eigenvalues_do_not_grow_with_a_reaction_that_jumps(reaction, boundary, precision):
    """As that of a penalty does, which holds u at zero in an obstacle."""
    c = torch.zeros(24, 24, dtype=torch.float64)
    c[8:14, 6:15] = reaction
    c[0, 20] = c[17, 3] = reaction
    operator = with_reaction(c, boundary)
    factor = torch.linalg.cholesky(operator.to_sparse().to_dense())
    matrix = matrix_of(LearnedMultigrid(coarsest=30, precision=precision).prepare(operator))
    eigenvalues = torch.linalg.eigvalsh(factor.mT @ (matrix + matrix.mT) @ factor / 2)
    assert float(eigenvalues[0]) > 0.25
    assert float(eigenvalues[-1]) < 1.1


@pytest.mark.parametrize("sweeps", [1, 3])
def test_other_numbers_of_sweeps_too(sweeps):
    operator = diffusion(17, 12, contrast=1e4, solid=boxes(17, 12))
    matrix = matrix_of(LearnedMultigrid(network(1.0, sweeps=sweeps, width=5), coarsest=20).prepare(operator))
    assert float(torch.linalg.eigvalsh((matrix + matrix.mT) / 2)[0]) > 0


def test_on_one_grid_it_is_the_inverse():
    operator = diffusion(9, 10, contrast=1e2)
    matrix = matrix_of(LearnedMultigrid(precision=torch.float64).prepare(operator))
    torch.testing.assert_close(matrix @ operator.to_sparse().to_dense(), torch.eye(90, dtype=torch.float64))


@pytest.mark.parametrize("name", CASES)
def test_conductances_are_the_operator(name):
    operator = CASES[name]()
    found, diagonal = conductances_of(operator)
    unit = operator.diagonal().expand(operator.space).mean()
    torch.testing.assert_close(diagonal * unit, operator.diagonal().expand(operator.space))
    x = normal(*operator.space, seed=4)
    if "obstacles" in name or "both wrap" in name:
        # Cells inside of obstacles stand alone; conductances leave them to their own diagonal.
        x = torch.where(found.incident() > 0, x, 0.0)
    expected = operator.apply(x)
    assert float((unit * found.apply(x) - expected).abs().max()) <= 1e-12 * float(expected.abs().max())
    assert all(float(faces.min()) >= 0 for faces in (*found.edges, found.ground))


def test_conductances_of_random_stencils():
    for seed, dimension in itertools.product(range(8), (1, 2, 3)):
        draw = torch.Generator().manual_seed(seed)
        shape = [int(torch.randint(1, 9, (), generator=draw)) + 3 for _ in range(dimension)]
        sides = [OPEN, CLOSED, RING, (OPEN, CLOSED), sciml.Robin(2.0)]
        boundary = {name: sides[int(torch.randint(5, (), generator=draw))] for name in NAMES[:dimension]}
        operator = diffusion(*shape, contrast=1e5, boundary=boundary, seed=seed, reaction=float(seed % 2))
        found, _ = conductances_of(operator)
        unit = operator.diagonal().expand(operator.space).mean()
        x = normal(*shape, seed=seed)
        expected = operator.apply(x)
        assert float((unit * found.apply(x) - expected).abs().max()) <= 1e-12 * float(expected.abs().max())


@pytest.mark.parametrize(("shape", "ring"), [((24,), False), ((16, 21), False), ((12, 13), True), ((8, 9, 6), False)])
def test_untrained_interpolation_keeps_constants(shape, ring):
    """All over a domain that nothing leads out of."""
    operator = diffusion(*shape, contrast=1e4, boundary=RING if ring else CLOSED)
    found, _ = conductances_of(operator)
    for axis in range(len(shape)):
        with torch.no_grad():
            coarser, transfer = coarsen(found, axis, CoarseningNetwork().double())
        ones = torch.ones(coarser.space, dtype=torch.float64)
        torch.testing.assert_close(transfer.prolong(ones), torch.ones(shape, dtype=torch.float64))
        assert float(coarser.apply(ones).abs().max()) <= 1e-14


def test_interpolation_keeps_constants_away_from_walls_and_obstacles():
    solid = boxes(20, 22)
    found, _ = conductances_of(diffusion(20, 22, solid=solid, contrast=1e2))
    with torch.no_grad():
        coarser, transfer = coarsen(found, 0, CoarseningNetwork().double())
    error = (transfer.prolong(torch.ones(coarser.space, dtype=torch.float64)) - 1).abs()
    # In the first and last row of cells the walls at x = 0 and 1, of value zero, are seen.
    assert float(error[1:-1][~solid[1:-1]].max()) <= 1e-14
    assert float(error[0][~solid[0]].min()) > 0.1
    alone = found.incident() == 0
    assert float(transfer.prolong(normal(*coarser.space))[alone].abs().max()) == 0.0


def test_restriction_is_the_transpose_of_interpolation():
    for shape, ring in (((13, 8), False), ((11, 7), True), ((9, 5, 6), False)):
        found, _ = conductances_of(diffusion(*shape, boundary=RING if ring else OPEN, contrast=1e3))
        for axis in range(len(shape)):
            coarser, transfer = coarsen(found, axis, network(1.0).double())
            coarse, fine = normal(*coarser.space), normal(*shape, seed=1)
            one, other = (fine * transfer.prolong(coarse)).sum(), (transfer.restrict(fine) * coarse).sum()
            torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


def test_coarse_grids_of_a_ring_have_one_conductance_for_the_face_that_is_first_and_last():
    found, _ = conductances_of(diffusion(11, 13, boundary=RING, contrast=1e4))
    for axis, other in itertools.product(range(2), range(2)):
        coarser, _ = coarsen(found, axis, network(1.0).double())
        faces = coarser.edges[other]
        torch.testing.assert_close(faces.select(other, 0), faces.select(other, -1), rtol=1e-13, atol=0.0)


@pytest.mark.parametrize("precision", [torch.float32, torch.float64])
@pytest.mark.parametrize("factor", [1e-18, 37.0, 1e21])
def test_a_multiple_of_an_operator_has_the_cycle_divided_by_it(factor, precision):
    operator, multiple = (diffusion(19, 22, contrast=1e4, factor=number) for number in (1.0, factor))
    method = LearnedMultigrid(network(0.5), coarsest=40, precision=precision)
    x = normal(19, 22)
    plain, scaled = method.prepare(operator).apply(x), method.prepare(multiple).apply(x)
    tolerance = 2e-5 if precision == torch.float32 else 1e-11
    assert float((factor * scaled - plain).norm() / plain.norm()) <= tolerance


@pytest.mark.parametrize("factor", [1e-60, 1e60])
@pytest.mark.parametrize("precision", [torch.float32, torch.float64])
def test_the_cycle_is_linear_over_all_magnitudes(factor, precision):
    inverse = LearnedMultigrid(network(0.5), coarsest=40, precision=precision).prepare(diffusion(19, 22))
    x = normal(19, 22)
    plain, scaled = inverse.apply(x), inverse.apply(factor * x)
    assert float((scaled / factor - plain).norm() / plain.norm()) <= 1e-6
    assert torch.equal(inverse.apply(0 * x), 0 * x)


@needs_kernels
@pytest.mark.parametrize(
    "shape", [(40, 40), (17, 23), (37,), (5,), (9, 7, 1), (1, 9, 2), (16, 10, 12), (13, 9, 7), (20, 1)]
)
def test_kernels_coarsen_as_torch_does(shape):
    learned = network(0.3)
    layers = [(layer.weight.detach(), layer.bias.detach()) for layer in (learned.first, learned.second, learned.last)]
    compiled = CompiledCoarsening(layers, float(learned.mismatch.detach().exp()))
    for seed, axis in itertools.product(range(4), range(len(shape))):
        if shape[axis] < 2:
            continue
        fine = random_network(shape, torch.Generator().manual_seed(seed))
        ground = torch.where(normal(*shape, seed=seed) > 0, 10 ** normal(*shape, seed=seed + 9), 0.0)
        fine = dataclasses.replace(fine, ground=fine.ground + ground).to(torch.float32)
        with torch.no_grad():
            coarser, transfer = coarsen(fine, axis, learned)
        faces, pairs = compiled(Faces(tuple(edge.contiguous() for edge in fine.edges), fine.ground.contiguous()), axis)
        found = [
            *faces.edges,
            faces.ground,
            pairs.own_first,
            pairs.own_second,
            pairs.outward_first,
            pairs.outward_second,
        ]
        expected = [*coarser.edges, coarser.ground, *transfer.own, *transfer.outward]
        for one, other in zip(found, expected, strict=True):
            assert float((one - other).abs().max()) <= 1e-4 * float(other.abs().max())


@needs_kernels
@pytest.mark.parametrize("scale", [0.0, 0.3])
@pytest.mark.parametrize("name", [name for name in CASES if not any(word in name for word in ("ring", "wrap", "near"))])
def test_the_compiled_cycle_in_16_bits_is_that_of_torch_but_for_rounding(name, scale):
    """But for nearly singular ones: what the coarsest grid bounds depends on the precision."""
    operator, learned = CASES[name](), network(scale)
    x = normal(*operator.space, seed=2)
    compiled = LearnedMultigrid(learned, coarsest=40).prepare(operator).apply(x)
    plain = LearnedMultigrid(learned, coarsest=40, precision=torch.float64).prepare(operator).apply(x)
    assert float((compiled - plain).norm() / plain.norm()) <= 1e-2
    z = torch.empty_like(x)
    with torch.no_grad():
        product = compiled_cycle(operator, learned, 40)(x, z)
    assert product == pytest.approx(float((x * z).sum()), rel=1e-12)


@needs_kernels
def test_threads_change_nothing_but_rounding():
    """On grids of which the two finest are large enough to be shared."""
    operator, x = diffusion(300, 301, contrast=1e3), normal(300, 301)
    threads = torch.get_num_threads()
    results = []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            results.append(LearnedMultigrid(network(0.3)).prepare(operator).apply(x))
    finally:
        torch.set_num_threads(threads)
    for other in results[1:]:
        assert float((other - results[0]).norm() / results[0].norm()) <= 1e-6


@pytest.mark.parametrize("precision", [torch.float32, torch.float64])
@pytest.mark.parametrize("boundary", [OPEN, RING])
def test_a_batch_is_its_rows_one_by_one(precision, boundary):
    operator = diffusion(14, 15, batch=(2, 3), contrast=1e2, boundary=boundary, reaction=1.0)
    method = LearnedMultigrid(network(0.3), coarsest=30, precision=precision)
    x = normal(2, 3, 14, 15)
    together = method.prepare(operator).apply(x)
    tolerance = 1e-5 if precision == torch.float32 else 1e-12
    for i, j in itertools.product(range(2), range(3)):
        alone = method.prepare(operator[i][j]).apply(x[i, j])
        assert float((together[i, j] - alone).norm() / alone.norm()) <= tolerance


@pytest.mark.parametrize("precision", [torch.float32, torch.float64])
def test_batches_broadcast(precision):
    operator = diffusion(14, 15, batch=(2, 1), contrast=1e2)
    method = LearnedMultigrid(network(0.3), coarsest=30, precision=precision)
    inverse, x = method.prepare(operator), normal(4, 2, 3, 14, 15)
    together, one_field = inverse.apply(x), inverse.apply(x[0, 0, 0])
    assert one_field.shape == (2, 1, 14, 15)
    for row in range(2):
        alone = method.prepare(operator[row][0])
        torch.testing.assert_close(one_field[row, 0], alone.apply(x[0, 0, 0]), rtol=1e-4, atol=1e-6)
        for place, column in itertools.product(range(4), range(3)):
            expected = alone.apply(x[place, row, column])
            assert float((together[place, row, column] - expected).norm() / expected.norm()) <= 1e-5


@pytest.mark.parametrize("precision", [torch.float32, torch.float64])
def test_results_go_where_they_are_wanted(precision):
    inverse = LearnedMultigrid(precision=precision).prepare(diffusion(22, 23))
    x = normal(23, 22).mT
    expected = inverse.apply(x.contiguous())
    out, turned = torch.empty(22, 23, dtype=torch.float64), torch.empty(23, 22, dtype=torch.float64).mT
    for place in (out, turned):
        assert inverse.apply(x, out=place) is place
        torch.testing.assert_close(place, expected, rtol=1e-6, atol=1e-9)
    short = torch.empty(22, 23)
    assert inverse.apply(x, out=short) is short
    torch.testing.assert_close(short, expected.float())
    torch.testing.assert_close(inverse.apply(torch._neg_view(x.contiguous())), -expected)
    assert inverse.transpose() is inverse


@pytest.mark.parametrize("precision", [torch.float32, torch.float64])
def test_fields_of_another_type_or_shape_are_refused(precision):
    inverse = LearnedMultigrid(precision=precision).prepare(diffusion(22, 23))
    for x in (torch.ones(22, 23), torch.ones(22, 22, dtype=torch.float64), torch.ones(23, dtype=torch.float64)):
        with pytest.raises(InputError, match=r"prepared for \(\*batch, 22, 23\), torch.float64"):
            inverse.apply(x)


def test_operators_in_half_precision():
    operator, x = diffusion(24, 25), normal(24, 25)
    expected = LearnedMultigrid().prepare(operator).apply(x)
    found = LearnedMultigrid().prepare(operator.to(torch.bfloat16)).apply(x.to(torch.bfloat16))
    assert float((found.double() - expected).norm() / expected.norm()) < 0.05


@pytest.mark.parametrize("precision", [torch.float32, torch.float64])
def test_copies_give_the_same_bits(precision):
    inverse = LearnedMultigrid(network(0.5), precision=precision).prepare(diffusion(31, 20, contrast=1e3))
    x = normal(31, 20)
    expected = inverse.apply(x)
    for other in (copy.copy(inverse), copy.deepcopy(inverse), pickle.loads(pickle.dumps(inverse))):
        assert torch.equal(other.apply(x), expected)
    del inverse
    assert torch.equal(other.apply(x), expected)


def test_derivatives_with_respect_to_the_networks_weights():
    """Of a functional of the cycle, against finite differences along random directions, in float64."""
    shape = (13, 11)
    system = random_network(shape, torch.Generator().manual_seed(5))
    learned = network(0.3).double()
    x, y = normal(*shape), normal(*shape, seed=1)

    def value():
        return (x * ConductanceCycle.of(system, system.diagonal(), learned, 12).apply(y)).sum()

    parameters = dict(learned.named_parameters())
    gradients = dict(zip(parameters, torch.autograd.grad(value(), list(parameters.values())), strict=True))
    assert all(float(gradient.abs().max()) > 0 for gradient in gradients.values())
    for place, (name, parameter) in enumerate(parameters.items()):
        direction = normal(*parameter.shape, seed=place)
        expected = float((gradients[name] * direction).sum())
        step, values = 1e-6 / float(direction.norm()), []
        with torch.no_grad():
            for sign in (1.0, -1.0):
                parameter.add_(sign * step * direction)
                values.append(float(value()))
                parameter.sub_(sign * step * direction)
        assert (values[0] - values[1]) / (2 * step) == pytest.approx(expected, rel=2e-4, abs=1e-8), name


def test_smoothing_is_the_polynomial_of_chebyshev():
    """With sweeps before and after it reduces an eigenvector of D^-1 A by the square of that polynomial."""
    learned = CoarseningNetwork(sweeps=3).double()
    with torch.no_grad():
        learned.correction.fill_(-200.0)  # nothing comes from the coarser grids
        learned.smoothing.fill_(math.log(0.25 * 3**2))
    operator = diffusion(48, contrast=30.0)
    inverse = matrix_of(LearnedMultigrid(learned, coarsest=10, precision=torch.float64).prepare(operator))
    root = operator.diagonal().expand(48).sqrt()
    values, vectors = torch.linalg.eigh(operator.to_sparse().to_dense() / root / root[:, None])
    # On [0.5, 2], where the polynomial of degree 3 that is 1 at 0 is smallest.
    x, top = (1.25 - values) / 0.75, 1.25 / 0.75
    q = (4 * x**3 - 3 * x) / (4 * top**3 - 3 * top)
    found = vectors.mT @ (root[:, None] * inverse * root) @ vectors
    torch.testing.assert_close(found, torch.diag((1 - q**2) / values), rtol=1e-10, atol=1e-10)
