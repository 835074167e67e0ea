"""Solving with a learned multigrid: the solution, the iterations it saves, derivatives, and what is refused."""

from __future__ import annotations

import itertools

import numpy
import pytest
import scipy.ndimage
import scipy.sparse.linalg
import torch
from scipy.sparse import csr_array

import sciml
from sciml.errors import InputError
from sciml.kernels import build
from sciml.solvers.linear import ConjugateGradient, IncompleteCholesky
from sciml.solvers.linear.learned import (
    CoarseningNetwork,
    DirectionNetwork,
    LearnedMultigrid,
    learned_multigrid,
    save_weights,
    shipped,
)
from sciml.sparse import as_operator
from sciml.status import Status

OPEN, CLOSED, RING = sciml.Dirichlet(0.0), sciml.Neumann(0.0), sciml.Periodic()
KIND = "coarsening-network"
DARCY, POISSON = sciml.Equation("-div(a*grad(u)) = f"), sciml.Equation("-laplacian(u) = f")


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def operator_of(equation, shape, boundary=OPEN, solid=None, **fields):
    grid = sciml.Grid(shape, boundary=boundary, solid=solid)
    return sciml.discretize(equation, grid, fields={"f": 0.0, **fields}).operator


def random_weights(scale, seed=0, **settings):
    network = CoarseningNetwork(**settings)
    with torch.no_grad():
        for place, parameter in enumerate((network.last.weight, network.last.bias)):
            generator = torch.Generator().manual_seed(10 * seed + place)
            parameter.copy_(scale * torch.randn(parameter.shape, generator=generator))
    return network


def by_scipy(operator, b):
    matrix = operator.to_sparse()
    parts = (matrix.values().numpy(), matrix.col_indices().numpy(), matrix.crow_indices().numpy())
    return torch.from_numpy(scipy.sparse.linalg.spsolve(csr_array(parts).tocsc(), b.flatten().numpy())).reshape(b.shape)


def wavy(*shape):
    """Two values of ratio 10,000 on either side of waves."""
    axes = torch.meshgrid(*(torch.linspace(0, 5, n, dtype=torch.float64) for n in shape), indexing="ij")
    return torch.where(sum(torch.sin(2.1 * x + k) for k, x in enumerate(axes)) > 0, 1e4, 1.0).double()


def spheres(n, dimension, count=7, seed=0):
    places = torch.stack(torch.meshgrid(*[torch.arange(n) + 0.5] * dimension, indexing="ij"), -1) / n
    draw = torch.Generator().manual_seed(seed)
    solid = torch.zeros([n] * dimension, dtype=torch.bool)
    for _ in range(count):
        centre, radius = torch.rand(dimension, generator=draw), 0.06 + 0.14 * float(torch.rand((), generator=draw))
        solid |= (places - centre).norm(dim=-1) < radius
    return solid


def scan(n, dimension, seed=1):
    """A porous medium: where smoothed noise is large."""
    noise = numpy.random.default_rng(seed).standard_normal([n] * dimension)
    smooth = scipy.ndimage.gaussian_filter(noise, 1.5, mode="wrap")
    return torch.from_numpy(smooth > numpy.quantile(smooth, 0.6))


ONE_OPEN = {"x": (OPEN, CLOSED), "y": CLOSED, "z": CLOSED}
UNSEEN = {
    "spheres": lambda n, dimension: operator_of(POISSON, (n,) * dimension, walls(dimension), spheres(n, dimension)),
    "scan": lambda n, dimension: operator_of(POISSON, (n,) * dimension, walls(dimension), scan(n, dimension)),
    "two values": lambda n, dimension: operator_of(DARCY, (n,) * dimension, a=wavy(*(n,) * dimension)),
}


def walls(dimension):
    return {name: ONE_OPEN[name] for name in "xyz"[:dimension]}


def supported(operator, b):
    """The right side without cells that are cut off or in pockets that nothing leads out of."""
    matrix = operator.to_sparse()
    parts = (matrix.values().numpy(), matrix.col_indices().numpy(), matrix.crow_indices().numpy())
    entries = csr_array(parts)
    leaks = numpy.asarray(entries.sum(axis=1)).ravel() > 1e-9 * entries.diagonal()
    _, labels = scipy.sparse.csgraph.connected_components(abs(entries) > 0)
    reached = numpy.isin(labels, numpy.unique(labels[leaks]))
    return torch.where(torch.from_numpy(reached).reshape(b.shape), b, 0.0)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("precision", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(60,), (33, 29), (11, 12, 9)])
def test_the_solution_is_that_of_scipy(shape, precision, dtype):
    operator = operator_of(DARCY, shape, a=(0.5 * normal(*shape)).exp())
    b = normal(*shape, seed=1)
    expected = by_scipy(operator, b)
    method = LearnedMultigrid(random_weights(0.2), coarsest=50, precision=precision)
    rtol = 1e-11 if dtype == torch.float64 else 2e-6
    found = ConjugateGradient(preconditioner=method, rtol=rtol).solve(operator.to(dtype), b.to(dtype)).value
    assert found.dtype == dtype
    assert float((found.double() - expected).norm() / expected.norm()) <= (1e-9 if dtype == torch.float64 else 2e-3)


def iterations(operator, b, preconditioner, rtol=1e-6):
    solution = ConjugateGradient(preconditioner=preconditioner, rtol=rtol, max_iterations=20_000).solve(operator, b)
    assert float((b - operator.apply(solution.value)).norm() / b.norm()) <= 1.01 * rtol
    return int(solution.statistics["iterations"])


def methods(dimension):
    """Untrained and trained."""
    return [LearnedMultigrid(), LearnedMultigrid.pretrained(f"poisson-{dimension}d")]


@pytest.mark.parametrize(("n", "dimension"), [(64, 2), (16, 3), (24, 3)])
@pytest.mark.parametrize("name", UNSEEN)
def test_a_third_of_the_iterations_of_conjugate_gradients_and_fewer_than_with_incomplete_cholesky(name, n, dimension):
    operator = UNSEEN[name](n, dimension)
    b = supported(operator, normal(*operator.space))
    plain, cholesky = iterations(operator, b, None), iterations(operator, b, IncompleteCholesky())
    for method in methods(dimension):
        count = iterations(operator, b, method)
        assert 3 * count <= plain
        assert count < cholesky


def test_iterations_do_not_grow_with_the_grid():
    for method in methods(2):
        counts = []
        for n in (32, 64, 128):
            operator = operator_of(POISSON, (n, n))
            counts.append(iterations(operator, normal(n, n), method, rtol=1e-8))
        assert max(counts) <= min(counts) + 3


@pytest.mark.parametrize("dimension", [2, 3])
def test_the_weights_that_ship_are_few_and_solve(dimension):
    assert shipped(KIND) == ("poisson-2d", "poisson-3d")
    method = LearnedMultigrid.pretrained(f"poisson-{dimension}d")
    assert method.network.dimensions == (dimension,)
    assert sum(parameter.numel() for parameter in method.network.parameters()) == 505
    operator = operator_of(POISSON, (12,) * dimension)
    b = normal(*operator.space)
    torch.testing.assert_close(
        ConjugateGradient(preconditioner=method, rtol=1e-11).solve(operator, b).value, by_scipy(operator, b)
    )


def test_the_lines_in_the_documentation():
    lines = [line[4:] for line in learned_multigrid.__doc__.splitlines() if line.startswith("    ")]
    assert any("pretrained" in line for line in lines)
    names = {"operator": operator_of(POISSON, (12, 13, 14)), "b": normal(12, 13, 14)}
    exec("\n".join(lines), names)
    torch.testing.assert_close(names["solution"].value, by_scipy(names["operator"], names["b"]), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("precision", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("shape", "boundary"), [((30, 31), CLOSED), ((24, 23), RING), ((9, 10, 11), CLOSED), ((120,), RING)]
)
def test_where_nothing_leads_out_the_solution_is_one_up_to_a_constant(shape, boundary, precision):
    operator = operator_of(POISSON, shape, boundary)
    b = normal(*shape)
    b -= b.mean()
    method = LearnedMultigrid(coarsest=60, precision=precision)
    solution = ConjugateGradient(preconditioner=method, rtol=1e-9).solve(operator, b)
    assert float((operator.apply(solution.value) - b).norm() / b.norm()) <= 1.01e-9
    assert int(solution.statistics["iterations"]) <= 20


def test_closed_pockets_converge_for_right_sides_that_they_allow():
    solid = torch.zeros(28, 28, dtype=torch.bool)
    solid[4:14, 4] = solid[4:14, 13] = solid[4, 4:14] = solid[13, 4:14] = True  # a room without a door
    solid[20:24, 20:24] = True
    solid[21, 21] = False  # one cell alone
    b = normal(28, 28)
    inside = torch.zeros(28, 28, dtype=torch.bool)
    inside[5:13, 5:13] = True
    b[inside] -= b[inside].mean()
    b[solid] = 0.0
    b[21, 21] = 0.0
    operator = operator_of(POISSON, (28, 28), solid=solid)
    for precision in (torch.float32, torch.float64):
        method = LearnedMultigrid(coarsest=50, precision=precision)
        solution = ConjugateGradient(preconditioner=method, rtol=1e-9).solve(operator, b)
        assert float((operator.apply(solution.value) - b).norm() / b.norm()) <= 1.01e-9
        assert int(solution.statistics["iterations"]) <= 25


@pytest.mark.parametrize("reaction", [1e-3, 1e-5, 1e-6, 1e-7])
def test_nearly_singular_operators_take_few_iterations(reaction):
    """The constant has an eigenvalue of 1e-9 times the largest, beside which float32 loses all others' digits."""
    equation = sciml.Equation("-laplacian(u) + k*u = f", parameters={"k": reaction})
    operator = operator_of(equation, (32, 32), CLOSED)
    solution = ConjugateGradient(preconditioner=LearnedMultigrid(), rtol=1e-6).solve(operator, normal(32, 32))
    assert int(solution.statistics["iterations"]) <= 25


@pytest.mark.parametrize("boundary", [CLOSED, RING])
@pytest.mark.parametrize("precision", [torch.float32, torch.float64])
def test_row_sums_that_are_rounding_are_none_in_single_precision(boundary, precision):
    """Nothing leads out; conductances to zero of 1e-7 would make constants all of the result."""
    operator = operator_of(DARCY, (200, 200), boundary, a=normal(200, 200).exp()).to(torch.float32)
    b = normal(200, 200, seed=1)
    solver = ConjugateGradient(preconditioner=LearnedMultigrid(precision=precision), rtol=1e-5)
    assert int(solver.solve(operator, (b - b.mean()).float()).statistics["iterations"]) <= 8


@pytest.mark.parametrize("precision", [torch.float32, torch.float64])
@pytest.mark.parametrize("boundary", [CLOSED, RING])
@pytest.mark.parametrize("small", [1e-6, 1e-14, 1e-20])
def test_reactions_count_beside_much_larger_coefficients(small, boundary, precision):
    """In the other half of a domain, and in the other row of a batch."""
    equation = sciml.Equation("-div(a*grad(u)) + c*u = f")
    halves, rows = torch.ones(48, 48, dtype=torch.float64), torch.ones(2, 48, 48, dtype=torch.float64)
    halves[24:] = rows[1] = small
    solver = ConjugateGradient(preconditioner=LearnedMultigrid(precision=precision), rtol=1e-8)
    for a in (halves, rows):
        operator = operator_of(equation, (48, 48), boundary, a=a, c=1000 * a)
        b = operator.apply(normal(*a.shape))
        assert int(solver.solve(operator, b).statistics["iterations"].max()) <= 8


@pytest.mark.parametrize("precision", [torch.float32, torch.float64])
@pytest.mark.parametrize("width", [1e-2, 1e-3])
def test_coefficients_beyond_the_range_of_single_precision(width, precision):
    """Of exp(-r^2 / width) the least are 1e-22 and 0."""
    x, y = sciml.Grid((48, 48)).coordinates
    operator = operator_of(DARCY, (48, 48), a=torch.exp(-((x - 0.5) ** 2 + (y - 0.5) ** 2) / width))
    b = operator.apply(normal(48, 48))
    assert iterations(operator, b, LearnedMultigrid(precision=precision)) <= 8


def test_what_nothing_couples_takes_no_memory():
    equation = sciml.Equation("u - m*laplacian(u) = f", parameters={"m": 0.0})
    operator, b = operator_of(equation, (300, 300)), normal(300, 300)
    solution = ConjugateGradient(preconditioner=LearnedMultigrid()).solve(operator, b)
    torch.testing.assert_close(solution.value, b)


def test_a_batch_is_its_rows():
    operator = operator_of(DARCY, (20, 21), a=(2 * normal(3, 20, 21)).exp())
    b = normal(3, 20, 21, seed=3)
    solver = ConjugateGradient(preconditioner=LearnedMultigrid(), rtol=1e-10)
    together = solver.solve(operator, b)
    for row in range(3):
        alone = solver.solve(operator[row], b[row])
        assert abs(int(together.statistics["iterations"][row]) - int(alone.statistics["iterations"])) <= 1
        torch.testing.assert_close(together.value[row], alone.value, rtol=1e-7, atol=1e-9)


def test_derivatives_of_a_solve():
    """By the adjoint, with respect to the right side and to the coefficient, against central differences."""
    a = (0.5 * normal(8, 9)).exp().requires_grad_()
    b = normal(8, 9, seed=1).requires_grad_()
    solver = ConjugateGradient(preconditioner=LearnedMultigrid(coarsest=10), rtol=1e-13)

    def solve(a, b):
        return solver.solve(operator_of(DARCY, (8, 9), a=a), b).value

    assert torch.autograd.gradcheck(solve, (a, b), eps=1e-5, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("precision", [torch.float32, torch.float64])
@pytest.mark.parametrize("scale", [0.3, 3.0, 1e3, 1e10])
def test_a_bad_network_costs_time_only(scale, precision):
    operator = operator_of(DARCY, (20, 22), a=(2 * normal(20, 22)).exp())
    b = normal(20, 22, seed=1)
    for seed in range(3):
        method = LearnedMultigrid(random_weights(scale, seed), coarsest=30, precision=precision)
        solver = ConjugateGradient(preconditioner=method, rtol=1e-8, max_iterations=300)
        solution = solver.solve(operator, b, throw=False)
        if scale < 1:
            assert solution.status[0] is Status.CONVERGED
        if solution.status[0] is Status.CONVERGED:
            assert float((operator.apply(solution.value) - b).norm() / b.norm()) <= 1.01e-8
        else:
            assert solution.status[0] is Status.MAX_ITERATIONS


@pytest.mark.parametrize(
    ("name", "value"),
    [*itertools.product(("smoothing", "mismatch", "correction"), (-300.0, -30.0, 30.0, 300.0)), ("last", 1e25)],
)
def test_a_network_beyond_all_measure_never_gives_a_wrong_answer(name, value):
    operator, b = operator_of(POISSON, (20, 22)), normal(20, 22)
    network = random_weights(1.0)
    with torch.no_grad():
        (network.last.weight if name == "last" else getattr(network, name)).fill_(value)
    for precision in (torch.float32, torch.float64):
        method = LearnedMultigrid(network, coarsest=30, precision=precision)
        solver = ConjugateGradient(preconditioner=method, rtol=1e-8, max_iterations=400)
        solution = solver.solve(operator, b, throw=False)
        if solution.status[0] is Status.CONVERGED:
            assert float((operator.apply(solution.value) - b).norm() / b.norm()) <= 1.01e-8
        else:
            assert name != "smoothing" and value > 0


def test_weights_go_through_a_file(tmp_path):
    network = random_weights(0.5, width=7, sweeps=2, dimensions=(2, 3))
    LearnedMultigrid(network).save(tmp_path / "mine.safetensors", {"seconds": 3.5})
    loaded = LearnedMultigrid.load(tmp_path / "mine.safetensors").network
    assert (loaded.width, loaded.sweeps, loaded.dimensions) == (7, 2, (2, 3))
    assert all(torch.equal(x, loaded.state_dict()[name]) for name, x in network.state_dict().items())
    operator, x = operator_of(POISSON, (24, 25)), normal(24, 25)
    cycles = [LearnedMultigrid(one).prepare(operator).apply(x) for one in (network, loaded)]
    assert torch.equal(*cycles)


def test_weights_that_are_not_finite_are_refused(tmp_path):
    network = CoarseningNetwork()
    with torch.no_grad():
        network.second.weight[3, 4] = torch.nan
    with pytest.raises(InputError, match=r"1 of 256 values of 'second\.weight' are NaN or infinite"):
        LearnedMultigrid(network).save(tmp_path / "bad.safetensors")
    with pytest.raises(InputError, match="the network has weights that are NaN or infinite"):
        LearnedMultigrid(network).prepare(operator_of(POISSON, (20, 20)))


def test_weights_of_other_networks_are_refused(tmp_path):
    path = tmp_path / "weights.safetensors"
    DirectionNetwork(2, 3, (1, 1, 1)).save(path)
    with pytest.raises(InputError, match="kind 'direction-network', and 'coarsening-network' is needed"):
        LearnedMultigrid.load(path)
    settings = {"width": 16, "sweeps": 2, "dimensions": [2]}
    for change in ({"width": 8}, {"width": "16"}, {"width": 0}, {"sweeps": 2.5}, {"sweeps": None}, {"dimensions": [7]}):
        save_weights(path, KIND, {**settings, **change}, CoarseningNetwork())
        with pytest.raises(InputError, match="of another architecture than CoarseningNetwork"):
            LearnedMultigrid.load(path)
    save_weights(path, KIND, {"sweeps": 2}, CoarseningNetwork())
    with pytest.raises(InputError, match=r"weights\.safetensors are of another .* settings {'sweeps': 2}"):
        LearnedMultigrid.load(path)
    with pytest.raises(InputError, match=r"cannot be read"):
        LearnedMultigrid.load(tmp_path / "none.safetensors")


def test_weights_that_were_changed_are_refused(tmp_path):
    path = tmp_path / "weights.safetensors"
    LearnedMultigrid(random_weights(1.0)).save(path)
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match="damaged"):
        LearnedMultigrid.load(path)


def test_names_that_do_not_ship_are_refused_and_others_suggested():
    message = "no weights of kind 'coarsening-network' are called 'poisson-4d'; did you mean 'poisson-[23]d'"
    with pytest.raises(InputError, match=message):
        LearnedMultigrid.pretrained("poisson-4d")


def test_settings_out_of_range_are_refused():
    with pytest.raises(InputError, match="network must be a CoarseningNetwork"):
        LearnedMultigrid("poisson-2d")
    with pytest.raises(InputError, match="coarsest must be a whole number of at least 1"):
        LearnedMultigrid(coarsest=0)
    with pytest.raises(InputError, match=r"precision must be torch\.float32 or float64"):
        LearnedMultigrid(precision=torch.bfloat16)
    with pytest.raises(InputError, match="width must be a whole number of at least 1, got 0"):
        CoarseningNetwork(width=0)
    with pytest.raises(InputError, match=r"sweeps must be a whole number of at least 1, got 2\.5"):
        CoarseningNetwork(sweeps=2.5)
    for dimensions in ((4,), (), 2):
        with pytest.raises(InputError, match="dimensions are some of 1, 2 and 3"):
            CoarseningNetwork(dimensions=dimensions)


def test_another_dimension_is_refused_with_the_advice():
    method = LearnedMultigrid(CoarseningNetwork(dimensions=(2,)))
    with pytest.raises(
        InputError, match=r'made for operators on 2 axes.*has 3.*LearnedMultigrid.pretrained\("poisson-3d"'
    ):
        method.prepare(operator_of(POISSON, (6, 6, 6)))
    with pytest.raises(InputError, match=r"made for operators on 2 axes, this one has 1: .*Multigrid") as refusal:
        method.prepare(operator_of(POISSON, (30,)))
    assert "poisson-1d" not in str(refusal.value)  # which nobody ships


def refused():
    wide = sciml.discretize(
        POISSON, sciml.Grid((12, 12), boundary=RING), fields={"f": 0.0}, scheme=sciml.FiniteDifference(4)
    ).operator
    tensor = operator_of(
        sciml.Equation("-div([u_x + b*u_y, b*u_x + u_y]) = f", parameters={"b": 0.5}), (12, 12), boundary=RING
    )
    advection = operator_of(sciml.Equation("-laplacian(u) + p*u_x = f", parameters={"p": 3.0}), (12, 12))
    growth = operator_of(sciml.Equation("u + m*laplacian(u) = f", parameters={"m": 1e-4}), (12, 12))
    return {
        "farther": (wide, r"one farther than the next cell \(offset .*\): use Multigrid"),
        "corners": (tensor, r"one across corners \(offset .*\): use Multigrid"),
        "nonsymmetric": (advection, "needs a symmetric operator, and this one is not known to be"),
        "of the other sign": (growth, "needs couplings of the sign of diffusion"),
        "negative": (
            operator_of(sciml.Equation("laplacian(u) = f"), (12, 12)),
            "where it is negative, change the sign of the equation",
        ),
        "CSR": (as_operator(operator_of(POISSON, (12, 12)).to_sparse()), "works on operators of grids"),
    }


@pytest.mark.parametrize("precision", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", ["farther", "corners", "nonsymmetric", "of the other sign", "negative", "CSR"])
def test_other_operators_are_refused_with_the_reason(name, precision):
    operator, message = refused()[name]
    with pytest.raises(InputError, match=message):
        LearnedMultigrid(precision=precision).prepare(operator)


def test_a_matrix_is_refused_for_what_it_is_and_not_for_its_axes():
    matrix = as_operator(operator_of(POISSON, (12, 12)).to_sparse())
    with pytest.raises(InputError, match="works on operators of grids: use AlgebraicMultigrid"):
        LearnedMultigrid.pretrained("poisson-2d").prepare(matrix)


def test_operators_that_are_not_finite_are_refused():
    a = torch.ones(12, 12, dtype=torch.float64)
    operator = operator_of(DARCY, (12, 12), a=a)
    operator.coefficients[0].view(-1)[0] = torch.nan
    with pytest.raises(InputError, match=r"NaN or infinite"):
        LearnedMultigrid().prepare(operator)


@pytest.mark.parametrize("precision", [torch.float32, torch.float64])
def test_an_indefinite_operator_is_said_to_be_so(precision):
    """Its diagonal is positive still; its least eigenvalue is about 20 - 150."""
    equation = sciml.Equation("-laplacian(u) - k*u = f", parameters={"k": 150.0})
    operator, b = operator_of(equation, (24, 24)), normal(24, 24)
    method = LearnedMultigrid(precision=precision)
    solution = ConjugateGradient(preconditioner=method).solve(operator, b, throw=False)
    assert solution.status[0] is Status.INDEFINITE


def test_without_a_compiler_it_is_the_same_but_for_rounding(monkeypatch):
    operator, b = operator_of(DARCY, (30, 28), a=wavy(30, 28)), normal(30, 28)
    solver = ConjugateGradient(preconditioner=LearnedMultigrid(random_weights(0.2)), rtol=1e-10)
    compiled = solver.solve(operator, b)
    monkeypatch.setattr(build, "library", lambda: None)
    plain = ConjugateGradient(preconditioner=LearnedMultigrid(random_weights(0.2)), rtol=1e-10).solve(operator, b)
    assert abs(int(compiled.statistics["iterations"]) - int(plain.statistics["iterations"])) <= 2
    torch.testing.assert_close(compiled.value, plain.value, rtol=1e-6, atol=1e-10)


@pytest.mark.cuda
def test_on_a_gpu():
    operator = operator_of(DARCY, (40, 41), a=wavy(40, 41))
    b = normal(40, 41)
    solver = ConjugateGradient(preconditioner=LearnedMultigrid(), rtol=1e-9)
    expected = solver.solve(operator, b)
    device_operator = sciml.discretize(
        DARCY, sciml.Grid((40, 41), boundary=OPEN), fields={"f": 0.0, "a": wavy(40, 41).cuda()}
    ).operator
    found = solver.solve(device_operator, b.cuda())
    torch.testing.assert_close(found.value.cpu(), expected.value, rtol=1e-6, atol=1e-9)
    assert abs(int(found.statistics["iterations"]) - int(expected.statistics["iterations"])) <= 2
