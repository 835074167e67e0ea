"""What the discretization promises of its operators, checked on the dense matrix; sizes of coefficients; batches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from sciml.boundary import Dirichlet, Neumann, Periodic, Robin
from sciml.discretization import System, discretize
from sciml.equations import Equation
from sciml.grid import Grid
from sciml.linear_operator import BlockOperator
from sciml.scheme import FiniteDifference, FiniteVolume
from sciml.stencil import StencilOperator

FREE = {"x": Neumann(0.0), "y": Neumann(1.0)}
PARTS = torch.tensor([[0, 0, 1, 0, 0], [0, 1, 1, 1, 0], [1, 1, 0, 1, 0], [0, 0, 1, 0, 0], [0, 0, 1, 0, 0]]).bool()


def positive(n: int, m: int) -> Tensor:
    return 0.5 + torch.rand(n, m, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


A, B = positive(5, 5), positive(5, 5).T.contiguous()
POISSON, DARCY = "-laplacian(u) = f", "-div(a*grad(u)) = f"


# text, conditions, what else the grid gets, scheme, (symmetric, definite, dimension of the declared kernel)
PROMISES: list[tuple[str, Any, dict[str, Any], Any, tuple[bool, bool, int]]] = [
    (POISSON, Dirichlet(), {}, None, (True, True, 0)),
    ("laplacian(u) = f", Dirichlet(), {}, None, (True, True, 0)),
    (POISSON, FREE, {}, None, (True, True, 1)),
    (POISSON, Periodic(), {}, None, (True, True, 1)),
    (POISSON, Periodic(), {}, FiniteDifference(4), (True, True, 1)),
    (POISSON, Dirichlet(), {}, FiniteDifference(4), (False, False, 0)),
    (POISSON, {"x": Periodic(), "y": (Neumann(), Robin(2.0))}, {}, None, (True, True, 0)),
    (POISSON, {"x": Periodic(), "y": (Neumann(), Robin(0.0))}, {}, None, (True, True, 1)),
    (POISSON, {"x": Periodic(), "y": (Neumann(), Robin(lambda x, y: 0 * x))}, {}, None, (True, False, 0)),
    (POISSON, {"x": Periodic(), "y": (Neumann(), Robin(-3.0))}, {}, None, (True, False, 0)),
    (DARCY, {"x": (Dirichlet(), Neumann()), "y": Robin(lambda x, y: 1 + x)}, {}, None, (True, True, 0)),
    (DARCY, FREE, {}, None, (True, True, 1)),
    (DARCY, FREE, {}, FiniteDifference(), (True, True, 1)),
    (DARCY, Periodic(), {}, FiniteVolume(), (True, True, 1)),
    (DARCY, Periodic(), {}, FiniteDifference(4), (False, False, 0)),
    ("-div(a*grad(u)) + b*u = f", FREE, {}, None, (True, True, 0)),
    ("div(a*grad(u)) + b*u = f", FREE, {}, None, (True, False, 0)),
    ("-laplacian(u) + 0*u = f", FREE, {}, None, (True, True, 1)),
    ("-laplacian(u) + x*u = f", FREE, {}, None, (True, True, 0)),
    ("-div([a*u_x, b*u_y]) = f", FREE, {}, None, (True, True, 1)),
    ("-div([2*u_x + a*u_y, a*u_x + 3*u_y]) = f", Periodic(), {}, None, (True, True, 1)),
    ("-div([2*u_x + a*u_y, b*u_x + 3*u_y]) = f", Periodic(), {}, None, (False, False, 0)),
    ("-div([2*u_x + a*u_y, a*u_x + 3*u_y]) = f", Periodic(), {}, FiniteDifference(4), (True, False, 1)),
    ("u_xxxx + u_yyyy - u_xx = f", Periodic(), {}, None, (True, True, 1)),
    ("u_xxxx + u_yyyy + u_xx + u = f", Periodic(), {}, None, (True, False, 0)),
    ("u_xxx - u_yy = f", Periodic(), {}, None, (False, False, 0)),
    ("-laplacian(u) + u_x = f", Dirichlet(), {}, None, (False, False, 0)),
    ("-a*u_xx - u_yy = f", Dirichlet(), {}, None, (False, False, 0)),
    ("-(1 + y)*u_xx - (2 + x)*u_yy = f", Dirichlet(), {}, None, (True, True, 0)),
    ("-a*laplacian(u) = f", Dirichlet(), {}, None, (False, False, 0)),
    ("-u_xx = f", {"x": (Dirichlet(), Neumann()), "y": Neumann()}, {}, None, (True, True, 0)),
    ("-u_xx = f", {"x": Neumann(), "y": Dirichlet()}, {}, None, (True, True, 5)),
    ("u*a = f", Neumann(), {}, None, (True, True, 0)),
    (DARCY, FREE, {"solid": PARTS}, None, (True, True, 4)),
    (DARCY, {"x": Neumann(), "y": Periodic()}, {"solid": PARTS}, None, (True, True, 2)),
    (DARCY, {"x": (Dirichlet(), Neumann()), "y": Neumann()}, {"solid": PARTS}, None, (True, True, 2)),
    (POISSON, FREE, {"solid": PARTS, "walls": Dirichlet(1.0)}, None, (True, True, 0)),
    (POISSON, FREE, {"solid": PARTS, "walls": Robin(lambda x, y: 1 + x)}, None, (True, True, 0)),
    (POISSON, FREE, {"solid": PARTS, "walls": Robin(lambda x, y: (x > 0.5) * y)}, None, (True, False, 0)),
    (POISSON, FREE, {"solid": PARTS}, None, (True, True, 4)),
    ("-laplacian(u) + c*u = f", FREE, {"solid": PARTS}, None, (True, True, 3)),
    ("-laplacian(u) + u_x = f", FREE, {"solid": PARTS}, FiniteDifference(advection="upwind"), (False, False, 0)),
]


def system_of(text: str, boundary: Any, grid: dict[str, Any], scheme: Any) -> System:
    equation = Equation(text, unknowns=["u"])
    values = {"a": A, "b": B, "f": 1.0, "c": torch.where(torch.arange(5) == 4, 1.0, 0.0).double().reshape(1, 5)}
    values["c"] = values["c"] * (torch.arange(5) == 4).double().reshape(5, 1)
    fields = {name: values[name] for name in equation.coefficients}
    return discretize(equation, Grid((5, 5), upper=(1.0, 1.3), boundary=boundary, **grid), fields, scheme=scheme)


@pytest.mark.parametrize(("text", "boundary", "grid", "scheme", "promised"), PROMISES)
def test_promises_hold(
    text: str, boundary: Any, grid: dict[str, Any], scheme: Any, promised: tuple[bool, bool, int], matrix_of: Callable
) -> None:
    system = system_of(text, boundary, grid, scheme)
    operator = system.operator
    matrix = torch.from_numpy(matrix_of(system).toarray())
    kernel = 0 if operator.null_space is None else operator.null_space.shape[0]
    assert (operator.symmetric, system.definite, kernel) == promised
    scale = matrix.abs().max()
    if operator.symmetric:
        assert (matrix - matrix.T).abs().max() <= 1e-14 * scale
    if operator.null_space is not None:
        vectors = operator.null_space.reshape(kernel, -1)
        torch.testing.assert_close(vectors @ vectors.T, torch.eye(kernel, dtype=torch.float64))
        assert (vectors @ matrix.T).abs().max() <= 1e-13 * scale
    if system.definite:
        free = torch.ones(25).bool() if not grid else ~PARTS.flatten()
        values = torch.linalg.eigvalsh(system.sign * matrix[free][:, free])
        assert int((values < 1e-10 * scale).sum()) == kernel
        assert values.min() > -1e-12 * scale
    if grid:
        solid = PARTS.flatten()
        assert torch.equal(matrix[solid], torch.eye(25, dtype=torch.float64)[solid])
        assert torch.equal(matrix[:, solid], torch.eye(25, dtype=torch.float64)[:, solid])
        assert (system.right_side[PARTS] == 0.0).all()


def test_constant_coefficients_stay_small() -> None:
    system = discretize(Equation(POISSON), Grid((6, 7)), {"f": 1.0})
    assert isinstance(system.operator, StencilOperator)
    shapes = {(offset, tuple(c.shape)) for offset, c in zip(*terms(system), strict=True)}
    assert len(terms(system)[0]) == 6
    assert shapes == {((1, 0), (1, 1)), ((-1, 0), (1, 1)), ((0, 1), (1, 1)), ((0, -1), (1, 1))} | {
        ((0, 0), (6, 1)),
        ((0, 0), (1, 7)),
    }
    a = torch.linspace(1.0, 2.0, 7, dtype=torch.float64).reshape(1, 7)
    for text in ("-a*u_xx - a*u_yy = f", "-(2 + y)*(u_xx + u_yy) + 0*a*u = f"):
        system = discretize(Equation(text), Grid((6, 7)), {"f": 1.0, "a": a})
        assert all(c.shape == (1, 7) for offset, c in zip(*terms(system), strict=True) if any(offset))


def terms(system: System) -> tuple[Any, Any]:
    return system.operator.offsets, system.operator.coefficients


def test_neighbours_of_variable_diffusion_share_one_array_of_faces() -> None:
    system = discretize(Equation(DARCY), Grid((5, 5)), {"a": A, "f": 1.0})
    by_offset = dict(zip(*terms(system), strict=True))
    for axis in range(2):
        ends = [by_offset[tuple(sign * (k == axis) for k in range(2))] for sign in (-1, 1)]
        assert ends[0].untyped_storage().data_ptr() == ends[1].untyped_storage().data_ptr()
    assert len(by_offset) == len(terms(system)[0]) == 5


def test_a_batch_equals_a_loop() -> None:
    equation = Equation("-div(a*grad(u)) + k*u = f", parameters={"k": 1.0})
    generator = torch.Generator().manual_seed(0)
    a = 0.5 + torch.rand(3, 1, 6, 5, dtype=torch.float64, generator=generator)
    f = torch.randn(2, 6, 5, dtype=torch.float64, generator=generator)
    k = torch.tensor([[1.0], [2.0], [3.0]], dtype=torch.float64)
    edge = torch.randn(3, 1, 5, dtype=torch.float64, generator=generator)
    alpha = 1.0 + torch.rand(2, 6, dtype=torch.float64, generator=generator)
    solid = torch.zeros(6, 5, dtype=torch.bool)
    solid[2:4, 1:3] = True
    u = torch.randn(3, 2, 6, 5, dtype=torch.float64, generator=generator)
    for obstacle in (None, solid):
        sides = {"x": (Dirichlet(edge), Neumann(1.0)), "y": (Robin(alpha, 2.0), Neumann(lambda x, y: x))}
        grid = Grid((6, 5), boundary=sides, solid=obstacle, walls=Dirichlet(a[:, :, :1, :1]))
        system = discretize(equation, grid, {"a": a, "f": f}, {"k": k})
        assert system.right_side.shape == (3, 2, 6, 5)
        assert system.operator.batch == (3, 2)
        image, flux = system.operator.apply(u), system.flux(u, "x_lower")
        assert flux.shape == (3, 2)
        for i in range(3):
            for j in range(2):
                sides = {"x": (Dirichlet(edge[i, 0]), Neumann(1.0)), "y": (Robin(alpha[j], 2.0), sides["y"][1])}
                grid = Grid((6, 5), boundary=sides, solid=obstacle, walls=Dirichlet(float(a[i, 0, 0, 0])))
                single = discretize(equation, grid, {"a": a[i, 0], "f": f[j]}, {"k": float(k[i, 0])})
                torch.testing.assert_close(single.right_side, system.right_side[i, j])
                torch.testing.assert_close(single.operator.apply(u[i, j]), image[i, j])
                torch.testing.assert_close(single.flux(u[i, j], "x_lower"), flux[i, j])


def test_notes_say_what_was_chosen() -> None:
    equation = Equation("b*u_x - nu*laplacian(u) = f", parameters={"nu": 1.0})
    grid = Grid((10, 10))
    slow = discretize(equation, grid, {"b": 19.0, "f": 1.0})
    fast = discretize(equation, grid, {"b": torch.full((10, 10), -21.0, dtype=torch.float64), "f": 1.0})
    assert "first derivatives: central, of order 2 (cell Peclet number 1.9 <= 2)" in slow.notes
    assert "first derivatives: upwind, of order 1 (cell Peclet number 2.1 > 2)" in fast.notes
    asked = discretize(equation, grid, {"b": 90.0, "f": 1.0}, scheme=FiniteDifference(4, "central"))
    assert asked.notes == ("finite differences of order 4", "first derivatives: central, of order 4 (as asked)")
    assert discretize(Equation(DARCY), Grid((5, 5)), {"a": A, "f": 1.0}).notes == (
        "finite volumes of order 2, harmonic means of coefficients on faces",
    )
    pure = discretize(Equation("u_x + u = f"), Grid(10), {"f": 1.0})
    assert "first derivatives: upwind, of order 1 (cell Peclet number inf > 2)" in pure.notes
    assert not any(
        "first derivatives" in note for note in discretize(Equation("u_x*0 - u_xx = f"), Grid(9), {"f": 1.0}).notes
    )


@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize("text", ["s*(b*u_x - nu*laplacian(u)) = f", "s*(div([b*u, 0*u]) - div(nu*grad(u))) = f"])
def test_upwinding_makes_an_m_matrix_whatever_the_sign_of_the_row(sign: float, text: str, matrix_of: Callable) -> None:
    equation = Equation(text, parameters={"nu": 1e-3, "s": sign}, unknowns=["u"])
    b = torch.linspace(-1.0, 1.0, 5, dtype=torch.float64).reshape(5, 1).expand(5, 5)
    if "div" in text:
        b = b.abs() - 2.0  # of one sign: where the flow converges, no conservative scheme has such a matrix
    system = discretize(equation, Grid((5, 5)), {"b": b, "f": 1.0})
    assert system.sign == sign
    matrix = sign * torch.from_numpy(matrix_of(system).toarray())
    assert (matrix.diagonal() > 0).all()
    assert (matrix - matrix.diagonal().diag() <= 0).all()


def test_a_boundary_of_the_call_replaces_that_of_the_grid() -> None:
    grid = Grid((5, 4), boundary={"x": (Dirichlet(1.0), Neumann(2.0)), "y": Periodic()})
    equation = Equation(POISSON)
    system = discretize(equation, grid, {"f": 1.0}, boundary=Dirichlet(3.0))
    expected = Grid((5, 4), boundary={"x": Dirichlet(3.0), "y": Periodic()})
    same = discretize(equation, expected, {"f": 1.0})
    assert torch.equal(system.right_side, same.right_side)
    assert system.boundary == {"u": {"x": (Dirichlet(3.0), Dirichlet(3.0)), "y": (Periodic(), Periodic())}}
    by_unknown = discretize(equation, grid, {"f": 1.0}, boundary={"u": {"x": Dirichlet(3.0)}})
    assert torch.equal(by_unknown.right_side, same.right_side)


def test_several_unknowns_make_a_block_operator_with_rows_in_the_order_of_the_unknowns(matrix_of: Callable) -> None:
    equation = Equation(["-laplacian(v) = f", "-laplacian(u) = v"], unknowns=["u", "v"])
    system = discretize(equation, Grid(6, boundary={"u": Dirichlet(2.0), "v": Neumann(1.0)}), {"f": 5.0})
    assert isinstance(system.operator, BlockOperator)
    assert system.operator.space == (2, 6)
    assert system.right_side.shape == (2, 6)
    first, second = system.operator.blocks
    assert first[0] is not None and first[1] is not None and second[0] is None and second[1] is not None
    assert second[1].symmetric and second[1].null_space is None  # the kernel of a block is not that of the system
    interior = system.right_side[1, 1:-1]
    assert torch.equal(interior, torch.full_like(interior, 5.0))
    assert float(system.right_side[0, 0]) == pytest.approx(2 * 36 * 2.0)
    assert (matrix_of(system).toarray()[:6, 6:] == -torch.eye(6, dtype=torch.float64).numpy()).all()


FREE_V = {"u": Dirichlet(), "v": Neumann()}
# what stands in the rows of u and v, conditions, scheme, channels of each null vector
SYSTEMS: list[tuple[str, str, Any, Any, list[str]]] = [
    ("-laplacian(u)", "-div(a*grad(v))", Periodic(), None, ["u", "v"]),
    ("-laplacian(u)", "-div(a*grad(v))", Neumann(), None, ["u", "v"]),
    ("laplacian(u)", "-laplacian(v) + v", Neumann(), None, ["u"]),
    ("-laplacian(u)", "-laplacian(v)", FREE_V, None, ["v"]),
    ("-laplacian(u) + a*(u - v)", "-laplacian(v) + a*(v - u)", Neumann(), None, ["uv"]),
    ("-laplacian(u) + u + 2*v", "-laplacian(v) + 2*u + 4*v", Periodic(), FiniteDifference(4), ["uv"]),
    ("-laplacian(u) + v_x", "-laplacian(v) - u_x", Periodic(), None, ["u", "v"]),
    ("-laplacian(u) + v_x", "-laplacian(v) - u_x", Neumann(), None, []),
    ("-laplacian(u) + u_x", "-laplacian(v)", Periodic(), None, ["u", "v"]),
    ("-laplacian(u) + a*(u - v)", "-laplacian(v) + a*(v - u)", FREE_V, None, []),
    ("-laplacian(u) + v", "-laplacian(v) - u", Periodic(), None, []),
    ("-laplacian(u) + 1e-6*(u - v)", "-laplacian(v) + 1.0001e-6*(v - u)", Periodic(), None, []),
    ("-laplacian(u) + v", "-laplacian(v)", Periodic(), None, []),
]


@pytest.mark.parametrize(("first", "second", "boundary", "scheme", "promised"), SYSTEMS)
def test_null_space_of_a_system(
    first: str, second: str, boundary: Any, scheme: Any, promised: list[str], matrix_of: Callable
) -> None:
    equation = Equation([f"{first} = 1", f"{second} = 1"], unknowns=["u", "v"])
    fields = {"a": A} if "a" in equation.coefficients else {}
    system = discretize(equation, Grid((5, 5), boundary=boundary), fields, scheme=scheme)
    null_space = system.operator.null_space
    assert (null_space is None) == (not promised)
    if null_space is None:
        return
    channels = ["".join(name for name, part in zip("uv", vector, strict=True) if part.any()) for vector in null_space]
    assert sorted(channels) == promised
    vectors, matrix = null_space.flatten(1), torch.from_numpy(matrix_of(system).toarray())
    torch.testing.assert_close(vectors @ vectors.T, torch.eye(len(promised), dtype=torch.float64))
    for product in (vectors @ matrix.T, vectors @ matrix):
        assert product.abs().max() <= 1e-13 * matrix.abs().max()
    assert int((torch.linalg.svdvals(matrix) < 1e-10 * matrix.abs().max()).sum()) == len(promised)
    operator = system.operator
    for other in (operator.transpose(), operator.detach(), operator.to(torch.float32)):
        assert other.null_space is not None and other.null_space.dtype == other.dtype


def test_null_space_of_a_system_around_obstacles_and_in_a_batch() -> None:
    """A constant on every part of the fluid; and only what all rows of a batch have in common."""
    texts = ["-laplacian(u) + k*(u - v) = 1", "-laplacian(v) + k*(v - u) = 1", "-laplacian(w) = 1"]
    equation = Equation(texts, unknowns=["u", "v", "w"], parameters={"k": 1.0})
    grid = Grid((5, 5), boundary=Neumann(), solid=PARTS)
    alone = discretize(Equation("-laplacian(u) = 1"), grid).operator.null_space
    system = discretize(equation, grid)
    operator = system.operator
    assert alone is not None and operator.null_space is not None
    assert len(operator.null_space) == 2 * len(alone)
    for vector in operator.null_space:
        assert operator.apply(vector).abs().max() < 1e-12
    k = torch.tensor([1.0, 3.0], dtype=torch.float64)
    batched = discretize(equation, grid, parameters={"k": k}).operator
    assert batched.null_space is not None and len(batched.null_space) == 2 * len(alone)
    assert batched[1].null_space is batched.null_space


def test_fields_of_a_steady_constraint_are_solved_for_together() -> None:
    equation = Equation("-laplacian(u) = v", constraints=["laplacian(v) = f"])
    system = discretize(equation, Grid((4, 4)), {"f": 1.0})
    assert system.unknowns == ("u", "v")
    assert system.operator.space == (2, 4, 4)


@pytest.mark.parametrize("shape", [(1,), (2,), (1, 4), (2, 1, 3)])
@pytest.mark.parametrize("boundary", [Dirichlet(1.0), Periodic(), Robin(1.0, 2.0)])
def test_grids_of_few_cells(shape: tuple[int, ...], boundary: Any, matrix_of: Callable) -> None:
    """A constant solves the equation where it meets the conditions: checked to rounding on the smallest grids."""
    text = "-div(a*grad(u)) + u = 1" if boundary != Robin(1.0, 2.0) else "-div(a*grad(u)) + u = 2"
    a = 1.0 + torch.rand(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    system = discretize(Equation(text), Grid(shape, boundary=boundary), {"a": a})
    exact = torch.full(shape, 2.0 if boundary == Robin(1.0, 2.0) else 1.0, dtype=torch.float64)
    torch.testing.assert_close(system.operator.apply(exact), system.right_side)


def test_single_precision_stays_single() -> None:
    grid = Grid(
        (5, 4), dtype=torch.float32, boundary={"x": (Dirichlet(1.0), Robin(1.0, lambda x, y: y)), "y": Neumann()}
    )
    system = discretize(Equation("-div(a*grad(u)) + x*u_x = f"), grid, {"a": lambda x, y: 1 + x * y, "f": 1.0})
    assert system.right_side.dtype == torch.float32
    assert {c.dtype for c in terms(system)[1]} == {torch.float32}
