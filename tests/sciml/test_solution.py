"""Values between the unknowns, gradients, integrals and errors of solutions, measured against exact ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.sparse
import scipy.sparse.linalg
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from sciml import Dirichlet, Equation, Grid, InputError, Neumann, Periodic, Robin, Solution, Status, discretize

POISSON = Equation("-laplacian(u) = f")
DARCY = Equation("-div(a*grad(u)) = f")


def wrap(system: Any, value: Tensor, **words: Any) -> Solution:
    """A solution of a system with a given value."""
    batch = value.shape[: value.dim() - len(system.operator.space)]
    words.setdefault("codes", torch.zeros(batch, dtype=torch.int64))
    words.setdefault("statistics", {})
    return Solution(value, history={}, method="by hand", system=system, **words)


def of_values(grid: Grid, value: Tensor, equation: Equation = POISSON, **words: Any) -> Solution:
    """A solution with given values at the unknowns, whatever the equation says of them."""
    return wrap(discretize(equation, grid, fields=dict.fromkeys(equation.coefficients, 1.0), **words), value)


def solved(equation: Equation, grid: Grid, **words: Any) -> Solution:
    """A solution found by scipy's direct solver."""
    system = discretize(equation, grid, **words)
    csr = system.operator.to_sparse()
    matrix = scipy.sparse.csr_matrix((csr.values(), csr.col_indices(), csr.crow_indices()), csr.shape)
    value = scipy.sparse.linalg.spsolve(matrix, system.right_side.flatten().numpy())
    return wrap(system, torch.from_numpy(value).reshape(system.right_side.shape))


def slopes(function: Callable[..., Tensor], *coordinates: Tensor) -> tuple[Tensor, ...]:
    """The gradient of a function of the coordinates."""
    points = [c.detach().clone().requires_grad_() for c in coordinates]
    return torch.autograd.grad(function(*points).sum(), points)


def orders(errors: list[list[float]]) -> np.ndarray[Any, Any]:
    """Convergence orders between the last two of grids refined by two, one for each quantity."""
    result: np.ndarray[Any, Any] = np.log2(np.array(errors[-2]) / np.array(errors[-1]))
    return result


# A manufactured solution of -div(a grad u) = f


def exact(x: Tensor, y: Tensor) -> Tensor:
    return torch.sin(2 * x + 0.3) * torch.exp(y) + x * y


def conductivity(x: Tensor, y: Tensor) -> Tensor:
    return 1 + 0.5 * torch.sin(x + y)


def source(x: Tensor, y: Tensor) -> Tensor:
    points = [c.detach().clone().requires_grad_() for c in (x, y)]
    gradient = torch.autograd.grad(exact(*points).sum(), points, create_graph=True)
    fluxes = [conductivity(*points) * slope for slope in gradient]
    return -sum(
        (torch.autograd.grad(flux.sum(), points, retain_graph=True)[k] for k, flux in enumerate(fluxes)),
        start=torch.zeros(()),
    )


def condition(kind: str, axis: int, side: int) -> Any:
    def flux(x: Tensor, y: Tensor) -> Tensor:
        return conductivity(x, y) * slopes(exact, x, y)[axis] * (1 if side else -1)

    if kind == "D":
        return Dirichlet(exact)
    if kind == "N":
        return Neumann(flux)
    return Robin(lambda x, y: 1 + x * x + y, lambda x, y: flux(x, y) + (1 + x * x + y) * exact(x, y))


def points_up_to_the_walls(count: int, dimension: int) -> Tensor:
    """Points of the unit box, many of them near walls, on walls and in corners."""
    points = torch.rand(count, dimension, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    points[: count // 4] *= 1e-2
    points[count // 4 : count // 3, 0] = 1.0
    points[count // 3 : count // 2, -1] = 0.0
    points[-20:] = points[-20:].round()
    return points


@pytest.mark.parametrize("kinds", ["DDDD", "DNDN", "DRRN", "RRRR"])
def test_solved_problems_are_of_second_order_everywhere(kinds: str) -> None:
    errors = []
    for n in (24, 48):
        sides = [condition(kind, k // 2, k % 2) for k, kind in enumerate(kinds)]
        grid = Grid((n, n), (0.0, 0.5), (1.0, 2.0), boundary={"x": tuple(sides[:2]), "y": tuple(sides[2:])})
        solution = solved(DARCY, grid, fields={"a": conductivity, "f": source})
        points = points_up_to_the_walls(2000, 2) * torch.tensor([1.0, 1.5]) + torch.tensor([0.0, 0.5])
        at = (solution.at(points) - exact(*points.T)).abs().max()
        gradient = (solution.gradient() - torch.stack(slopes(exact, *grid.coordinates))).abs()
        norms = solution.error(exact)
        errors.append([float(at), float(gradient.square().mean().sqrt()), float(norms["L2"]), float(norms["H1"])])
        if kinds != "DDDD":  # corners of two Dirichlet sides are of lower order, see reconstruction.gradient
            errors[-1].append(float(gradient.max()))
    assert orders(errors).min() > 1.75
    assert abs(orders(errors)[2] - 2) < 0.1


def test_gradient_on_dirichlet_sides_is_of_second_order_away_from_the_corners() -> None:
    errors = []
    for n in (32, 64):
        grid = Grid((n, n), (0.0, 0.5), (1.0, 2.0), boundary=Dirichlet(exact))
        solution = solved(DARCY, grid, fields={"a": conductivity, "f": source})
        x, y = grid.coordinates
        away = torch.ones_like(x, dtype=torch.bool)
        for corner in ((0.0, 0.5), (0.0, 2.0), (1.0, 0.5), (1.0, 2.0)):
            away &= (x - corner[0]) ** 2 + (y - corner[1]) ** 2 > 0.04
        error = (solution.gradient() - torch.stack(slopes(exact, x, y))).abs().amax(0)
        errors.append([float(error[away].max())])
    assert orders(errors)[0] > 1.75


def wave(*coordinates: Tensor) -> Tensor:
    """Smooth, and of period one along every axis."""
    total = torch.zeros(())
    for k, c in enumerate(coordinates):
        total = total + torch.sin(2 * torch.pi * c + k + 0.3)
    return total * torch.cos(2 * torch.pi * (coordinates[0] - coordinates[-1]))


@pytest.mark.parametrize("dimension", [1, 2, 3])
@pytest.mark.parametrize("periodic", ["none", "first", "last", "all"])
def test_interpolation_and_gradient_of_exact_values_are_of_second_order(dimension: int, periodic: str) -> None:
    errors = []
    for n in (24, 48):
        wraps = [
            periodic == "all" or (periodic, k) in (("first", 0), ("last", dimension - 1)) for k in range(dimension)
        ]
        sides = {"xyz"[k]: Periodic() if wrap else Dirichlet(wave) for k, wrap in enumerate(wraps)}
        grid = Grid((n,) * dimension, boundary=sides)
        solution = of_values(grid, wave(*grid.coordinates))
        points = points_up_to_the_walls(1000, dimension)
        gradient = torch.stack(slopes(wave, *grid.coordinates))
        errors.append(
            [
                float((solution.at(points) - wave(*points.T)).abs().max()),
                float((solution.gradient() - gradient).abs().max()),
            ]
        )
    assert orders(errors).min() > 1.8


def test_values_on_a_dirichlet_wall_and_at_the_unknowns_are_met() -> None:
    grid = Grid((5, 7), boundary=Dirichlet(exact))
    solution = of_values(grid, torch.rand(5, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(1)))
    x, y = (c.select(0, 0) for c in grid.face_coordinates(0))
    on_wall = torch.stack((x, y), -1)
    torch.testing.assert_close(solution.at(on_wall), exact(x, y), rtol=0, atol=1e-14)
    unknowns = torch.stack([c.flatten() for c in grid.coordinates], -1)
    torch.testing.assert_close(solution.at(unknowns), solution.value.flatten(), rtol=0, atol=1e-14)


def linear(x: Tensor, y: Tensor) -> Tensor:
    return 1 + 2 * x - 3 * y


def blocks(shape: tuple[int, int]) -> Tensor:
    """Obstacles: in the middle, at a wall, and two that leave channels of one and two cells between them."""
    solid = torch.zeros(shape, dtype=torch.bool)
    solid[3:5, 4:6] = True
    solid[6, 4:6] = True
    solid[9:11, :4] = True
    solid[9:11, 6:8] = True
    return solid


@pytest.mark.parametrize("sides", ["walls", "periodic"])
def test_linear_fields_are_exact_around_obstacles(sides: str) -> None:
    shape = (14, 10)
    boundary: Any = Dirichlet(linear)
    field = linear
    if sides == "periodic":
        boundary = {"x": Periodic(), "y": Dirichlet(lambda x, y: -3 * y)}

        def field(x: Tensor, y: Tensor) -> Tensor:
            return -3 * y + 0 * x

    grid = Grid(shape, (0, 0), (1.4, 1), boundary=boundary, solid=blocks(shape), walls=Dirichlet(field))
    value = torch.where(blocks(shape), 0.0, field(*grid.coordinates))
    solution = of_values(grid, value)
    points = points_up_to_the_walls(4000, 2) * torch.tensor([1.4, 1.0])
    shift = 0.5 if sides == "periodic" else 0.0
    cells = ((points / 0.1 + torch.tensor([shift, 0.0])).floor().long()).clamp(max=torch.tensor([99, 9]))
    fluid = ~blocks(shape)[cells[:, 0] % 14 if sides == "periodic" else cells[:, 0].clamp(max=13), cells[:, 1]]
    torch.testing.assert_close(solution.at(points[fluid]), field(*points[fluid].T), rtol=0, atol=1e-13)
    expected = torch.stack(slopes(field, *grid.coordinates)).masked_fill(blocks(shape), 0.0)
    torch.testing.assert_close(solution.gradient(), expected, rtol=0, atol=1e-12)


def test_a_point_on_the_face_of_an_obstacle_belongs_to_the_fluid() -> None:
    grid = Grid((10,), solid=torch.arange(10) // 2 == 2, walls=Dirichlet(7.0))  # solid from 0.4 to 0.6
    solution = of_values(grid, torch.ones(10, dtype=torch.float64).masked_fill(torch.arange(10) // 2 == 2, 0.0))
    points = torch.tensor([[0.4], [0.6], [0.4 - 1e-12], [0.35]], dtype=torch.float64)
    torch.testing.assert_close(solution.at(points), torch.tensor([7.0, 7.0, 7.0, 1.0], dtype=torch.float64))
    with pytest.raises(InputError, match="1 of 2 lie inside solid cells, the first at"):
        solution.at([[0.5], [0.1]])


def test_at_and_gradient_are_differentiable() -> None:
    solid = torch.zeros(4, 5, dtype=torch.bool)
    solid[1, 2] = True
    grid = Grid((4, 5), boundary={"x": Periodic(), "y": (Dirichlet(1.0), Robin(2.0, 1.0))}, solid=solid)
    generator = torch.Generator().manual_seed(2)
    value = torch.rand(2, 4, 5, dtype=torch.float64, generator=generator).requires_grad_()
    points = torch.tensor([[0.03, 0.07], [0.95, 0.93], [0.31, 0.33], [0.52, 0.47]], dtype=torch.float64)
    points.requires_grad_()
    assert torch.autograd.gradcheck(lambda v, p: of_values(grid, v).at(p), (value, points))
    assert torch.autograd.gradcheck(lambda v: of_values(grid, v).gradient(), (value,))


def test_derivative_of_at_is_the_gradient() -> None:
    grid = Grid((40, 40), boundary=Dirichlet(exact))
    solution = of_values(grid, exact(*grid.coordinates))
    points = points_up_to_the_walls(200, 2)[60:].clamp(0.02, 0.98).requires_grad_()
    (derivative,) = torch.autograd.grad(solution.at(points).sum(), points)
    torch.testing.assert_close(derivative, torch.stack(slopes(exact, *points.T), -1), rtol=0, atol=0.1)


def test_a_batch_is_a_loop() -> None:
    values = torch.rand(2, 3, 6, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    walls = torch.tensor([[0.0], [1.0], [2.0]], dtype=torch.float64)
    grid = Grid((6, 5), boundary={"x": Dirichlet(walls), "y": Neumann(1.0)})
    points = points_up_to_the_walls(50, 2)
    batched = of_values(grid, values)
    half = lambda x, y: x < 0.5  # noqa: E731
    assert batched.at(points).shape == (2, 3, 50)
    assert batched.gradient().shape == (2, 3, 2, 6, 5)
    for i in range(2):
        for j in range(3):
            one = of_values(Grid((6, 5), boundary={"x": Dirichlet(float(j)), "y": Neumann(1.0)}), values[i, j])
            torch.testing.assert_close(batched.at(points)[i, j], one.at(points))
            torch.testing.assert_close(batched.gradient()[i, j], one.gradient())
            torch.testing.assert_close(batched.integral(half)[i, j], one.integral(half))
            for norm, error in batched.error(exact).items():
                torch.testing.assert_close(error[i, j], one.error(exact)[norm])


def test_several_unknowns_have_a_channel_axis() -> None:
    system = Equation(["-laplacian(u) + v = 0", "-laplacian(v) = 1"], unknowns=["u", "v"])
    grid = Grid((6, 5), boundary={"u": Dirichlet(1.0), "v": Neumann(0.0)})
    value = torch.rand(3, 2, 6, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    solution = wrap(discretize(system, grid), value, codes=torch.zeros(3, dtype=torch.int64))
    points = points_up_to_the_walls(20, 2)
    assert torch.equal(solution.fields["v"], value[:, 1])
    assert solution.at(points).shape == (3, 2, 20)
    assert solution.gradient().shape == (3, 2, 2, 6, 5)
    assert solution.integral().shape == (3, 2)
    assert solution.error({"u": exact, "v": linear})["H1"].shape == (3, 2)
    alone = {
        "u": of_values(Grid((6, 5), boundary=Dirichlet(1.0)), value[:, 0]),
        "v": of_values(Grid((6, 5), boundary=Neumann(0.0)), value[:, 1]),
    }
    for channel, one in enumerate(alone.values()):
        torch.testing.assert_close(solution.at(points)[:, channel], one.at(points))
        torch.testing.assert_close(solution.gradient()[:, channel], one.gradient())
    torch.testing.assert_close(solution.error({"u": exact, "v": linear})["L2"][:, 1], alone["v"].error(linear)["L2"])
    with pytest.raises(InputError, match="one function for each of u, v"):
        solution.error(exact)


def test_integrals() -> None:
    solid = torch.zeros(8, 4, dtype=torch.bool)
    solid[0, 0] = True
    grid = Grid((8, 4), (0, 0), (2, 1), solid=solid)
    ones = of_values(grid, (~solid).double())
    cell = 2 / 32
    assert float(ones.integral()) == pytest.approx(2 - cell, abs=1e-15)
    assert float(ones.integral(lambda x, y: x < 1)) == pytest.approx(1 - cell, abs=1e-15)
    assert float(ones.integral(~solid)) == pytest.approx(2 - cell, abs=1e-15)
    errors = []
    for n in (16, 32):
        grid = Grid((n, n))
        solution = of_values(grid, torch.exp(grid.coordinates[0] + grid.coordinates[1]))
        errors.append([abs(float(solution.integral()) - (np.e - 1) ** 2)])
    assert orders(errors)[0] == pytest.approx(2, abs=0.05)


@pytest.mark.parametrize("region", [torch.ones(3, 3, dtype=torch.bool), torch.ones(4, 4), 1.0, lambda x, y: x])
def test_a_region_that_is_no_mask_is_refused(region: Any) -> None:
    with pytest.raises(InputError, match=r"region: expected a bool tensor of the grid's shape \(4, 4\)"):
        of_values(Grid((4, 4)), torch.zeros(4, 4, dtype=torch.float64)).integral(region)


def test_errors_of_known_size() -> None:
    grid = Grid((10, 20), (0, 0), (2, 1))
    x, y = grid.coordinates
    constant = of_values(grid, linear(x, y) + 0.25).error(linear)
    assert float(constant["L2"]) == pytest.approx(0.25 * 2**0.5, rel=1e-12)
    assert float(constant["H1"]) == pytest.approx(0.25 * 2**0.5, rel=1e-12)
    tilted = of_values(grid, linear(x, y) + 0.5 * x).error(linear)
    middle = 0.25 * float((x**2).sum()) * 0.01
    assert float(tilted["L2"]) == pytest.approx(middle**0.5, rel=1e-12)
    assert float(tilted["H1"]) == pytest.approx((middle + 0.25 * 2 * 9 / 10) ** 0.5, rel=1e-12)
    number = of_values(grid, torch.full((10, 20), 3.0, dtype=torch.float64)).error(lambda x, y: 1.0)
    assert float(number["H1"]) == pytest.approx(2 * 2**0.5, rel=1e-12)


def test_errors_leave_obstacles_out() -> None:
    solid = blocks((14, 10))
    grid = Grid((14, 10), solid=solid)
    solution = of_values(grid, torch.where(solid, 0.0, linear(*grid.coordinates)))
    assert max(float(error) for error in solution.error(linear).values()) < 1e-12


@pytest.mark.parametrize("wrong", [lambda x: x, lambda x, y: np.sin(x.numpy()) + "a", lambda x, y: x @ y.T @ x[:2]])
def test_an_exact_solution_that_does_not_fit_is_refused(wrong: Any) -> None:
    with pytest.raises(InputError, match="exact solution of 'u': it must be a function of the 2 coordinates"):
        of_values(Grid((4, 4)), torch.zeros(4, 4, dtype=torch.float64)).error(wrong)


def test_fluxes_balance_the_source() -> None:
    solid = blocks((14, 10))
    grid = Grid((14, 10), (0, 0), (1.4, 1), boundary={"x": Dirichlet(0), "y": (Robin(1, 2), Neumann(0.5))}, solid=solid)
    solution = solved(DARCY, grid, fields={"a": conductivity, "f": 3.0})
    total = sum(float(solution.flux(name)) for name in grid.boundaries)
    assert -total == pytest.approx(3.0 * float((~solid).sum()) * 0.01, rel=1e-10)
    with pytest.raises(InputError, match="no boundary 'outlet'"):
        solution.flux("outlet")


@pytest.mark.parametrize(
    ("points", "message"),
    [
        ([["a", "b"]], "expected a tensor or nested lists of numbers"),
        (torch.zeros(3), r"expected shape \(n, 2\)"),
        (torch.zeros(3, 3), r"expected shape \(n, 2\)"),
        (torch.tensor([[0.5, float("nan")]]), "1 of 1 are NaN or infinite"),
        (torch.tensor([[0.5, 0.5], [0.5, 1.1]]), r"1 of 2 lie outside y in \[0, 1\], the first at \(0.5, 1.1"),
        (torch.tensor([[-0.1, 0.5]]), r"1 of 1 lie outside x in \[0, 1\]"),
    ],
)
def test_points_that_do_not_fit_are_refused(points: Any, message: str) -> None:
    solution = of_values(Grid((4, 4)), torch.zeros(4, 4, dtype=torch.float64))
    with pytest.raises(InputError, match=message):
        solution.at(points)


def test_points_wrap_along_periodic_axes() -> None:
    grid = Grid((8,), (1.0,), (3.0,), boundary=Periodic())
    solution = of_values(grid, torch.rand(8, dtype=torch.float64, generator=torch.Generator().manual_seed(5)))
    points = torch.linspace(1.0, 3.0, 33, dtype=torch.float64)[:, None]
    for shift in (-4.0, -2.0, 2.0, 200.0):
        torch.testing.assert_close(solution.at(points + shift), solution.at(points))
    assert solution.at([[1.0], [2.0]]).shape == (2,)


def test_float32_points_reach_the_last_cell_of_a_large_grid() -> None:
    grid = Grid((4096,), (0.1,), (0.7,), boundary=Dirichlet(lambda x: x), dtype=torch.float32)
    solution = of_values(grid, grid.coordinates[0])
    points = torch.tensor([[0.1], [0.3], [0.7]], dtype=torch.float32)
    torch.testing.assert_close(solution.at(points), points[:, 0], rtol=0, atol=1e-6)


@pytest.mark.parametrize("cells", [1, 2, 3])
def test_the_fewest_cells(cells: int) -> None:
    grid = Grid((cells,), boundary=Dirichlet(lambda x: 2 * x))
    solution = of_values(grid, 2 * grid.coordinates[0])
    points = torch.linspace(0, 1, 9, dtype=torch.float64)[:, None]
    torch.testing.assert_close(solution.at(points), 2 * points[:, 0])
    torch.testing.assert_close(solution.gradient(), torch.full((1, cells), 2.0, dtype=torch.float64))


# The object itself


def batch_of_three() -> Solution:
    grid = Grid((4, 4))
    value = torch.zeros(3, 4, 4, dtype=torch.float64)
    counts = {"iterations": torch.tensor([3, 9, 4]), "relative_residual": torch.tensor([1e-9, 2e-3, 3e-9])}
    codes = torch.tensor([0, 1, 0])
    return wrap(discretize(POISSON, grid, {"f": 1.0}), value, codes=codes, statistics={**counts, "seconds_solve": 0.5})


def test_status_row_by_row() -> None:
    solution = batch_of_three()
    assert solution.status == (Status.CONVERGED, Status.MAX_ITERATIONS, Status.CONVERGED)
    assert solution.converged.tolist() == [True, False, True]
    assert "preconditioner" in solution.status[1].advice
    assert solution.adjoint_status is None


def test_repr_says_what_it_is_and_what_to_do() -> None:
    text = repr(batch_of_three())
    for part in ("-laplacian(u) = f", "4 x 4", "3 rows", "row 1 MAX_ITERATIONS", "9 iterations", "2.0e-03", "by hand"):
        assert part in text
    assert Status.MAX_ITERATIONS.advice in text
    assert "\n" not in text
    good = repr(of_values(Grid((4,)), torch.zeros(4, dtype=torch.float64)))
    assert "converged" in good
    assert "not" not in good


def test_a_solution_is_a_pytree() -> None:
    solution = batch_of_three()
    leaves, spec = pytree.tree_flatten(solution)
    assert any(leaf is solution.value for leaf in leaves)
    again = pytree.tree_unflatten(leaves, spec)
    assert again.system is solution.system
    assert again.method == solution.method
    single = pytree.tree_map_only(Tensor, lambda t: t.float() if t.is_floating_point() else t, solution)
    assert single.value.dtype == torch.float32
    assert single.status == solution.status
    summed = pytree.tree_map(lambda one, other: one + other, solution, again)
    assert summed.statistics["iterations"].tolist() == [6, 18, 8]


def test_a_bare_solution_has_no_domain() -> None:
    solution = Solution(torch.ones(3), torch.tensor(0), {}, {}, "Jacobi")
    assert solution.domain is None
    assert solution.equation is None
    assert torch.equal(solution.fields["x"], torch.ones(3))
    assert "A x = b" in repr(solution)
    for use in (
        lambda: solution.at(torch.zeros(1, 1)),
        solution.gradient,
        solution.integral,
        lambda: solution.flux("walls"),
        lambda: solution.error(lambda x: x),
        lambda: solution.plot("a.png"),
        lambda: solution.save("a.h5"),
    ):
        with pytest.raises(InputError, match="bare operator"):
            use()


def test_versions_are_recorded() -> None:
    assert batch_of_three().versions["torch"] == torch.__version__
    assert set(batch_of_three().versions) >= {"sciml", "torch", "python"}
