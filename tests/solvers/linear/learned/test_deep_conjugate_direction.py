"""Deep conjugate directions: known methods where the network is known, and no wrong answer where it is bad."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import sciml
from sciml.errors import InputError, SolveError
from sciml.solvers.linear import (
    GMRES,
    ConjugateGradient,
    DeepConjugateDirection,
    Direct,
    FlexibleConjugateGradient,
)
from sciml.solvers.linear.learned import DeepDirection, DirectionNetwork
from sciml.solvers.linear.learned.direction_inverse import Directions
from sciml.status import Status


class Function(nn.Module):
    """A function of residuals as a network."""

    def __init__(self, function):
        super().__init__()
        self.function = function
        self.seen = []

    def forward(self, residual):
        self.seen.append(tuple(residual.shape))
        return self.function(residual)


def smooth(residual):
    """Nonlinear, and a better direction than the residual: sums over neighbours, twice."""
    for _ in range(2):
        padded = nn.functional.pad(residual, (1, 1) * (residual.ndim - 1))
        middle = padded[(slice(None), *[slice(1, -1)] * (residual.ndim - 1))]
        for axis in range(1, residual.ndim):
            middle = middle + sum(residual_at(padded, axis, move) for move in (0, 2)) / 2
        residual = middle
    return residual + 0.1 * residual.abs()


def residual_at(padded, axis, move):
    index = [slice(1, -1)] * padded.ndim
    index[0], index[axis] = slice(None), slice(move, padded.shape[axis] - 2 + move)
    return padded[tuple(index)]


def true_residuals(operator, b, x):
    axes = tuple(range(-len(operator.space), 0))
    left = torch.linalg.vector_norm(operator.residual(b, x), dim=axes)
    return left / torch.linalg.vector_norm(b, dim=axes)


@pytest.mark.parametrize("directions", [1, 2, 4])
def test_with_the_identity_it_is_the_method_of_conjugate_gradients(boxes, directions):
    operator, b = boxes.operator(9), boxes.field(9, 9, 9)
    for limit in (1, 2, 5, 12):
        settings = {"rtol": 1e-12, "max_iterations": limit}
        plain = ConjugateGradient(**settings).solve(operator, b, throw=False)
        deep = DeepConjugateDirection(nn.Identity(), directions, **settings).solve(operator, b, throw=False)
        torch.testing.assert_close(deep.value, plain.value, rtol=1e-9, atol=1e-12 * float(plain.value.abs().max()))
    plain = ConjugateGradient(rtol=1e-8).solve(operator, b)
    deep = DeepConjugateDirection(nn.Identity(), directions, rtol=1e-8).solve(operator, b)
    assert abs(int(deep.statistics["iterations"]) - int(plain.statistics["iterations"])) <= 1
    assert len(deep.history["residual_norm"]) == int(deep.statistics["iterations"]) + 1


def test_without_earlier_directions_it_is_steepest_descent(boxes):
    operator, b = boxes.operator(6, 2), boxes.field(6, 6)
    solution = DeepConjugateDirection(nn.Identity(), 0, rtol=1e-30, max_iterations=3).solve(operator, b, throw=False)
    x = torch.zeros_like(b)
    for _ in range(3):
        r = operator.residual(b, x)
        x = x + (r * r).sum() / (r * operator.apply(r)).sum() * r
    torch.testing.assert_close(solution.value, x, rtol=1e-12, atol=1e-15)


def test_with_the_inverse_it_takes_one_step(boxes):
    operator, b = boxes.operator(7), boxes.field(3, 7, 7, 7)
    inverse = Direct().prepare(operator)
    solution = DeepConjugateDirection(Function(lambda r: -5.0 * inverse.apply(r)), rtol=1e-10).solve(operator, b)
    assert solution.statistics["iterations"].tolist() == [1, 1, 1]
    assert solution.statistics["replaced"].tolist() == [0, 0, 0]


@pytest.mark.parametrize("directions", [1, 2, 5])
def test_directions_are_orthogonal_to_the_last_ones(boxes, directions):
    """The steps that it takes are along its directions: seen from the solutions of fewer and more iterations."""
    operator, b = boxes.operator(6), boxes.field(6, 6, 6)
    found = [torch.zeros_like(b)]
    for limit in range(1, 8):
        method = DeepConjugateDirection(Function(smooth), directions, rtol=1e-30, max_iterations=limit)
        found.append(method.solve(operator, b, throw=False).value)
    steps = torch.stack(found).diff(dim=0)
    images = torch.stack([operator.apply(step) for step in steps])
    products = torch.einsum("iabc,jabc->ij", steps, images)
    scale = products.diagonal().sqrt()
    products = (products / scale / scale[:, None]).abs()
    distance = (torch.arange(7)[:, None] - torch.arange(7)).abs()
    assert products[(distance > 0) & (distance <= directions)].max() < 1e-10
    if directions < 5:
        assert products[distance == directions + 1].max() > 1e-4


def test_a_batch_is_its_rows_and_rows_at_their_end_do_not_pass_the_network(boxes):
    operator = boxes.operator(6)
    b = boxes.field(2, 2, 6, 6, 6)
    b[0, 1] = operator.apply(b[0, 1] * 0 + 1.0)  # easier than the others
    network = Function(smooth)
    together = DeepConjugateDirection(network, rtol=1e-6).solve(operator, b)
    passed = sum(shape[0] for shape in network.seen)
    assert passed == int(together.statistics["iterations"].sum())
    for i in range(2):
        for j in range(2):
            alone = DeepConjugateDirection(network, rtol=1e-6).solve(operator, b[i, j])
            assert int(alone.statistics["iterations"]) == int(together.statistics["iterations"][i, j])
            torch.testing.assert_close(alone.value, together.value[i, j], rtol=1e-6, atol=1e-9)


def test_a_batch_of_operators(boxes):
    coefficient = boxes.field(2, 6, 6, 6, seed=4).exp()
    equation, grid = sciml.Equation("-div(a*grad(u)) = f"), sciml.Grid((6, 6, 6))
    operator = sciml.discretize(equation, grid, fields={"a": coefficient, "f": 0.0}).operator
    b = boxes.field(6, 6, 6)
    together = DeepConjugateDirection(Function(smooth), rtol=1e-8).solve(operator, b)
    for row in range(2):
        alone = DeepConjugateDirection(Function(smooth), rtol=1e-8).solve(operator[row], b)
        assert int(together.statistics["iterations"][row]) == int(alone.statistics["iterations"])
        torch.testing.assert_close(together.value[row], alone.value, rtol=1e-6, atol=1e-9)


def test_the_network_sees_nothing_of_solid_cells_and_they_are_solved_for_at_the_start(boxes):
    solid = torch.zeros(6, 6, 6, dtype=torch.bool)
    solid[1:4, 2:5, 3] = True
    operator, b = boxes.operator(6, solid=solid), boxes.field(6, 6, 6)
    seen = []

    def network(residual):
        seen.append(residual)
        return smooth(residual) + 1.0

    solution = DeepConjugateDirection(Function(network), rtol=1e-8).solve(operator, b)
    assert all(torch.equal(one[0][solid], torch.zeros(9).double()) for one in seen)
    torch.testing.assert_close(solution.value[solid], b[solid], rtol=1e-15, atol=0.0)
    assert float(true_residuals(operator, b, solution.value)) <= 1e-8
    only_solid = torch.where(solid, b, 0.0)
    assert int(DeepConjugateDirection(Function(network)).solve(operator, only_solid).statistics["iterations"]) == 0


@pytest.mark.parametrize(
    ("network", "what"),
    [
        (lambda r: r * torch.nan, "NaN"),
        (lambda r: r.new_full(r.shape, torch.inf), "infinity"),
        (lambda r: r * 0, "zero"),
        (lambda r: torch.randn(r.shape, generator=torch.Generator().manual_seed(0), dtype=r.dtype), "random"),
        (lambda r: r.new_ones(r.shape), "always the same"),
    ],
)
def test_a_bad_network_costs_time_and_gives_no_wrong_answer(boxes, network, what):
    operator, b = boxes.operator(8), boxes.field(2, 8, 8, 8)
    plain = ConjugateGradient(rtol=1e-8).solve(operator, b)
    solution = DeepConjugateDirection(Function(network), rtol=1e-8).solve(operator, b)
    assert true_residuals(operator, b, solution.value).max() <= 1e-8
    assert (solution.statistics["iterations"] <= 4 * plain.statistics["iterations"]).all()
    assert (solution.statistics["replaced"] > 0).all()


def test_a_network_of_bad_rows_is_replaced_in_those_rows_only(boxes):
    operator, b = boxes.operator(6), boxes.field(6, 6, 6).expand(2, 6, 6, 6)
    half = Function(lambda r: torch.cat([smooth(r[:1]), r[1:] * torch.nan]) if len(r) == 2 else smooth(r))
    whole = DeepConjugateDirection(Function(smooth), rtol=1e-8).solve(operator, b[0])
    plain = DeepConjugateDirection(nn.Identity(), rtol=1e-8).solve(operator, b[0])
    solution = DeepConjugateDirection(half, rtol=1e-8, max_iterations=5).solve(operator, b, throw=False)
    for row, one in enumerate((whole, plain)):
        history = solution.history["residual_norm"][:, row]
        torch.testing.assert_close(history, one.history["residual_norm"][: len(history)], rtol=1e-8, atol=0.0)


def test_an_operator_with_a_few_negative_eigenvalues_is_reported_when_a_direction_meets_them():
    helmholtz = sciml.Equation("-laplacian(u) - k*u = f", parameters={"k": 60.0})
    square = sciml.Grid((40, 40), boundary=sciml.Dirichlet(0.0))
    system = sciml.discretize(helmholtz, square, fields={"f": 1.0})
    solver = DeepConjugateDirection(DirectionNetwork(2))
    assert solver.solve(system.operator, system.right_side, throw=False).status == (Status.INDEFINITE,)


@pytest.mark.parametrize("sign", ["negative", "indefinite"])
def test_an_indefinite_operator_is_reported(boxes, sign):
    operator, b = boxes.operator(6), boxes.field(6, 6, 6)
    identity = sciml.linear_operator.Identity(operator.space, operator.dtype)
    bad = -operator if sign == "negative" else operator - 150.0 * identity
    solution = DeepConjugateDirection(Function(smooth)).solve(bad, b, throw=False)
    assert solution.status == (Status.INDEFINITE,)
    with pytest.raises(SolveError, match="negative curvature: use MINRES"):
        DeepConjugateDirection(Function(smooth)).solve(bad, b)


def test_a_singular_operator_is_solved_up_to_its_null_space(boxes):
    operator = boxes.operator(6, boundary=sciml.Neumann(0.0))
    b = boxes.field(6, 6, 6)
    b -= b.mean()
    solution = DeepConjugateDirection(Function(lambda r: smooth(r) + 1e3), rtol=1e-8).solve(operator, b)
    assert float(true_residuals(operator, b, solution.value)) <= 1e-8
    assert abs(float(solution.value.mean())) < 1e-12


def test_starts_tolerances_and_single_precision(boxes):
    operator, b = boxes.operator(6), boxes.field(6, 6, 6)
    exact = Direct().solve(operator, b).value
    method = DeepConjugateDirection(DirectionNetwork(3, 4, (1, 1, 1)), rtol=1e-8)
    assert int(method.solve(operator, b, exact).statistics["iterations"]) == 0
    torch.testing.assert_close(method.solve(operator, b, exact + 0.1).value, exact, rtol=1e-6, atol=1e-9)
    single = DeepConjugateDirection(method.network, rtol=1e-4).solve(operator.to(torch.float32), b.float())
    assert single.value.dtype == torch.float32
    torch.testing.assert_close(single.value.double(), exact, rtol=1e-2, atol=1e-4)


def test_derivatives_of_a_solution(boxes):
    operator = boxes.operator(4, 2)
    method = DeepConjugateDirection(Function(smooth), rtol=1e-12)
    b = boxes.field(4, 4).requires_grad_()
    assert torch.autograd.gradcheck(lambda b: method.solve(operator, b).value, (b,))


@pytest.mark.parametrize("outer", [FlexibleConjugateGradient, GMRES], ids=lambda kind: kind.__name__)
def test_as_a_preconditioner_of_flexible_methods(boxes, outer):
    solid = torch.zeros(8, 8, 8, dtype=torch.bool)
    solid[2:4, 3:7, 1:5] = True
    operator, b = boxes.operator(8, solid=solid), boxes.field(2, 8, 8, 8)
    plain = outer(rtol=1e-8).solve(operator, b)
    near = Direct().prepare(boxes.operator(8))
    # Nonlinear, of any length and sign: the step along it is the best one.
    network = Function(lambda r: -7.0 * near.apply(r + 0.2 * r.abs()))
    solution = outer(preconditioner=DeepDirection(network), rtol=1e-8).solve(operator, b)
    assert true_residuals(operator, b, solution.value).max() <= 1e-8
    assert (solution.statistics["iterations"] < 0.7 * plain.statistics["iterations"]).all()
    for bad in (0.0, torch.nan):
        solution = outer(preconditioner=DeepDirection(Function(lambda r, bad=bad: bad * r)), rtol=1e-8).solve(
            operator, b
        )
        assert true_residuals(operator, b, solution.value).max() <= 1e-8


def test_the_preconditioner_is_nonlinear_and_follows_gradients(boxes):
    operator, r = boxes.operator(4), boxes.field(4, 4, 4)
    network = DirectionNetwork(3, 2, (1, 1, 1)).double()
    with pytest.raises(InputError, match="this one is nonlinear: use FlexibleConjugateGradient"):
        ConjugateGradient(DeepDirection(network)).prepare(operator)
    z = DeepDirection(network).prepare(operator).apply(r)
    (operator.residual(r, z) ** 2).sum().backward()
    weight = network.first.weight
    with torch.no_grad():
        step = torch.randn(weight.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        losses = []
        for sign in (1.0, -1.0):
            weight += sign * 1e-5 * step
            losses.append((operator.residual(r, DeepDirection(network).prepare(operator).apply(r)) ** 2).sum())
            weight -= sign * 1e-5 * step
    expected = float((losses[0] - losses[1]) / 2e-5)
    assert float((weight.grad * step).sum()) == pytest.approx(expected, rel=1e-4)


def test_what_does_not_fit_is_refused(boxes):
    operator = boxes.operator(4)
    network = DirectionNetwork(3, 2, (1, 1, 1))
    with pytest.raises(InputError, match=r"network must be a torch\.nn\.Module .*; got 'box-3d'"):
        DeepConjugateDirection("box-3d")
    with pytest.raises(InputError, match=r"network must be a torch\.nn\.Module"):
        DeepDirection(None)
    for count in (-1, 1.5, True):
        with pytest.raises(InputError, match=f"directions must be a whole number of at least 0, got {count}"):
            DeepConjugateDirection(network, count)
    with pytest.raises(InputError, match=r"of dimension 3, and the operator acts on fields \(4, 4\)"):
        DeepConjugateDirection(network).prepare(boxes.operator(4, 2))
    with pytest.raises(InputError, match=r"of dimension 3, and the operator acts on fields \(64,\)"):
        DeepConjugateDirection(network).prepare(operator.to_sparse())
    with pytest.raises(InputError, match="need a symmetric operator"):
        DeepConjugateDirection(network).prepare(operator @ operator)
    with pytest.raises(InputError, match=r"move the network there, network.to\('cpu'\)"):
        DeepConjugateDirection(network.to("meta")).prepare(operator)
    wrong = Function(lambda r: r[:, :2])
    with pytest.raises(InputError, match=r"returned shape \(1, 2, 4, 4\) for residuals of shape \(1, 4, 4, 4\)"):
        DeepConjugateDirection(wrong).solve(operator, boxes.field(4, 4, 4))
    with pytest.raises(InputError, match="no weights of kind 'direction-network' are called 'bocks-3d'"):
        DeepConjugateDirection.pretrained("bocks-3d")


def test_unknowns_that_are_coupled_to_no_other(boxes):
    solid = torch.zeros(5, 5, 5, dtype=torch.bool)
    solid[1, 2, 3] = solid[4, 4, 4] = True
    assert torch.equal(Directions(nn.Identity(), boxes.operator(5, solid=solid)).alone, solid)
    assert Directions(nn.Identity(), boxes.operator(5)).alone is None


def test_a_cell_that_walls_enclose_is_left_alone(boxes):
    """Its row is zero."""
    solid = torch.zeros(9, 9, dtype=torch.bool)
    solid[3:6, 3:6] = True
    solid[4, 4] = False
    operator, b = boxes.operator(9, 2, solid=solid), boxes.field(9, 9).masked_fill(solid, 0.0)
    assert float(operator.diagonal().expand(9, 9)[4, 4]) == 0
    b[4, 4] = 0.0
    for method in (DeepConjugateDirection(nn.Identity()), FlexibleConjugateGradient(DeepDirection(nn.Identity()))):
        solution = method.solve(operator, b)
        assert float(true_residuals(operator, b, solution.value)) <= 1e-8


@pytest.mark.cuda
def test_on_the_gpu_as_on_the_cpu(boxes):
    b = boxes.field(2, 12, 12, 12)
    usual = DeepConjugateDirection(Function(smooth), rtol=1e-8).solve(boxes.operator(12), b)
    grid = sciml.Grid((12, 12, 12), device="cuda")
    operator = sciml.discretize(sciml.Equation("-laplacian(u) = f"), grid, fields={"f": 0.0}).operator
    solution = DeepConjugateDirection(Function(smooth), rtol=1e-8).solve(operator, b.cuda())
    assert torch.equal(solution.statistics["iterations"].cpu(), usual.statistics["iterations"])
    torch.testing.assert_close(solution.value.cpu(), usual.value, rtol=1e-6, atol=1e-9)
    with pytest.raises(InputError, match=r"move the network there, network.to\('cuda:0'\)"):
        DeepConjugateDirection.pretrained("box-3d").prepare(operator)
    solution = DeepConjugateDirection.pretrained("box-3d", device="cuda", rtol=1e-8).solve(operator, b.cuda())
    torch.testing.assert_close(solution.value.cpu(), usual.value, rtol=1e-5, atol=1e-8)
