"""Full diffusion tensors up to walls."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

import sciml
from sciml import Dirichlet, InputError, Neumann, Periodic, Robin
from sciml.discretization import System

TENSOR = "-div([a*u_x + b*u_y, b*u_x + c*u_y]) = f"
PLANE = {
    "a": lambda x, y: 1.5 + 0.5 * torch.sin(2.0 * x + y),
    "b": lambda x, y: 0.6 * torch.cos(3.0 * x + y) + 0.1,
    "c": lambda x, y: 2.0 + 0.5 * torch.cos(x - 2.0 * y),
}
TURN = 2.0 * math.pi
AROUND = {
    "a": lambda x, y: 1.5 + 0.5 * torch.sin(TURN * x) * torch.cos(y),
    "b": lambda x, y: 0.6 * torch.cos(TURN * x + y),
    "c": lambda x, y: 2.0 + torch.cos(TURN * x - y),
}
SPACE = {
    "a": lambda x, y, z: 1.5 + 0.5 * torch.sin(x + y - z),
    "b": lambda x, y, z: 2.0 + 0.5 * torch.cos(x - y),
    "c": lambda x, y, z: 1.6 + 0.3 * torch.sin(z + x),
    "p": lambda x, y, z: 0.5 + 0.2 * torch.sin(2.0 * x + y),
    "q": lambda x, y, z: 0.3 * torch.cos(z - y) - 0.4,
    "r": lambda x, y, z: 0.3 * torch.sin(x + 2.0 * z),
}
IN_SPACE = "-div([a*u_x + p*u_y + q*u_z, p*u_x + b*u_y + r*u_z, q*u_x + r*u_y + c*u_z]) = f"
ENTRIES = {2: ("ab", "bc"), 3: ("apq", "pbr", "qrc")}
ALL_SIDES = {"x": (Dirichlet(lambda x, y: x + y * y), Neumann(0.3)), "y": (Neumann(lambda x, y: x), Dirichlet(1.0))}


def waves(x: Tensor, y: Tensor) -> Tensor:
    return torch.sin(4.0 * x + 0.2) * torch.cos(3.0 * y + 0.3) + x * y


def periodic_in_x(x: Tensor, y: Tensor) -> Tensor:
    return torch.exp(0.5 * torch.sin(TURN * x)) * torch.cos(2.0 * y + 0.3)


def waves_in_space(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
    return torch.sin(2.1 * x + 0.2) * torch.cos(1.4 * y + 0.3) * torch.exp(0.5 * z) + x * y * z


def gradient(function: Callable[..., Tensor], coordinates: Sequence[Tensor]) -> list[Tensor]:
    places = [c.detach().expand(torch.broadcast_shapes(*(d.shape for d in coordinates))).clone() for c in coordinates]
    with torch.enable_grad():
        value = function(*[place.requires_grad_() for place in places])
        return list(torch.autograd.grad(value.sum(), places))


def whole_flux(fields: Any, exact: Callable[..., Tensor], axis: int, sign: float) -> Callable[..., Tensor]:
    """n . A grad u on a side across an axis."""

    def flux(*c: Tensor) -> Tensor:
        names = ENTRIES[len(c)][axis]
        return sign * sum(fields[name](*c) * slope for name, slope in zip(names, gradient(exact, c), strict=True))

    return flux


def conditions(fields: Any, exact: Callable[..., Tensor], kinds: Sequence[str]) -> dict[str, Any]:
    sides: dict[str, Any] = {}
    for axis, (name, letters) in enumerate(zip("xyz", kinds, strict=False)):
        sides[name] = Periodic()
        if letters != "P":
            flux = [Neumann(whole_flux(fields, exact, axis, sign)) for sign in (-1.0, 1.0)]
            sides[name] = tuple(Dirichlet(exact) if k == "D" else flux[side] for side, k in enumerate(letters))
    return sides


CASES = [
    *(
        (TENSOR, PLANE, waves, kinds)
        for kinds in [("DD", "DD"), ("DN", "DD"), ("DD", "ND"), ("DN", "ND"), ("NN", "DN")]
    ),
    *((TENSOR, AROUND, periodic_in_x, ("P", letters)) for letters in ("DD", "ND")),
    *(
        (IN_SPACE, SPACE, waves_in_space, kinds)
        for kinds in [("DD", "DD", "DD"), ("DD", "DN", "ND"), ("ND", "NN", "DN")]
    ),
]


@pytest.mark.parametrize(("text", "fields", "exact", "kinds"), CASES)
def test_order(manufactured: Any, monkeypatch: Any, text: str, fields: Any, exact: Any, kinds: Any) -> None:
    monkeypatch.setattr(manufactured, "_sides", lambda self, unknown: conditions(fields, exact, kinds))
    problem = manufactured(text, {"u": exact}, kinds, fields, upper=(1.0, 1.2, 0.9))
    assert problem.order(24 if len(kinds) == 2 else 8) == pytest.approx(2.0, abs=0.1)


@pytest.mark.parametrize(("text", "fields", "exact", "kinds"), CASES)
def test_fluxes_balance(text: str, fields: Any, exact: Any, kinds: Any) -> None:
    """For any field, the sum of A u - b over the cells and the source is what leaves through the sides."""
    n = 6
    grid = sciml.Grid((n, n + 1, n + 2)[: len(kinds)], boundary=conditions(fields, exact, kinds))
    system = sciml.discretize(sciml.Equation(text), grid, {**fields, "f": 0.7})
    u = random(grid.shape)
    lost = (system.operator.apply(u) - system.right_side + 0.7).sum() * grid.cell_volume
    assert float(lost) == pytest.approx(-sum(float(system.flux(u, name)) for name in grid.boundaries), abs=1e-11)


@pytest.mark.parametrize(("text", "fields", "exact", "kinds"), CASES)
def test_a_symmetric_tensor_makes_a_symmetric_positive_operator(text: str, fields: Any, exact: Any, kinds: Any) -> None:
    grid = sciml.Grid((5, 6, 4)[: len(kinds)], boundary=conditions(fields, exact, kinds))
    system = sciml.discretize(sciml.Equation(text), grid, {**fields, "f": 0.0})
    assert system.operator.symmetric
    assert system.definite
    matrix = system.operator.to_sparse().to_dense()
    torch.testing.assert_close(matrix, matrix.T, rtol=0.0, atol=1e-13 * float(matrix.abs().max()))
    assert float(torch.linalg.eigvalsh(matrix).min()) > 1.0


@pytest.mark.parametrize(
    "boundary", [Dirichlet(0.0), ALL_SIDES, {"x": Periodic(), "y": (Neumann(0.0), Dirichlet(0.0))}]
)
def test_jumps_of_any_size_leave_the_operator_positive(boundary: Any) -> None:
    """Random directions, ratios up to 1e4 and six decades of scale from one cell to the next."""
    generator = torch.Generator().manual_seed(0)
    root = torch.randn(12, 12, 2, 2, dtype=torch.float64, generator=generator)
    scale = 10 ** (6 * torch.rand(12, 12, 1, 1, dtype=torch.float64, generator=generator) - 3)
    a, b, c = ((scale * (root @ root.mT + 1e-3 * torch.eye(2)))[..., i, j] for i, j in ((0, 0), (0, 1), (1, 1)))
    system = sciml.discretize(
        sciml.Equation(TENSOR), sciml.Grid((12, 12), boundary=boundary), {"a": a, "b": b, "c": c, "f": 0.0}
    )
    assert system.definite
    matrix = system.operator.to_sparse().to_dense()
    root_diagonal = matrix.diagonal().sqrt()
    assert float(torch.linalg.eigvalsh(matrix / root_diagonal / root_diagonal[:, None]).min()) > 1e-9


def test_the_transposed_tensor_makes_the_transposed_operator() -> None:
    equation = sciml.Equation("-div([a*u_x + b*u_y, d*u_x + c*u_y]) = f")
    grid = sciml.Grid((6, 5), boundary=ALL_SIDES)
    given = {name: 1.0 + 0.3 * random(grid.shape, seed) for seed, name in enumerate("abcd")}
    system = sciml.discretize(equation, grid, {**given, "f": 0.0})
    assert not system.operator.symmetric
    swapped = sciml.discretize(equation, grid, {**given, "b": given["d"], "d": given["b"], "f": 0.0})
    expected = swapped.operator.to_sparse().to_dense()
    torch.testing.assert_close(system.operator.to_sparse().to_dense().T, expected)
    torch.testing.assert_close(system.operator.transpose().to_sparse().to_dense(), expected)


def test_not_every_tensor_is_definite() -> None:
    system = sciml.discretize(sciml.Equation(TENSOR), sciml.Grid((6, 6)), {"a": 1.0, "b": 1.1, "c": 1.0, "f": 0.0})
    assert system.operator.symmetric
    assert not system.definite


def test_constants_are_the_null_space_between_closed_sides() -> None:
    given = {name: PLANE[name] for name in "abc"}
    system = sciml.discretize(sciml.Equation(TENSOR), sciml.Grid((9, 8), boundary=Neumann(0.0)), {**given, "f": 0.0})
    assert system.definite
    assert system.operator.null_space is not None
    image = system.operator.apply(system.operator.null_space[0])
    torch.testing.assert_close(image, torch.zeros(9, 8, dtype=torch.float64), rtol=0.0, atol=1e-12)


def test_linear_fields_are_exact() -> None:
    """With a constant tensor: inside, and at walls where the value or the flux of the field is given."""
    field, entries = (lambda x, y: 1.0 + 2.0 * x - 3.0 * y), {"a": 2.0, "b": 0.7, "c": 1.5}
    constant = {name: (lambda x, y, value=value: value + 0.0 * x) for name, value in entries.items()}
    for kinds in itertools.product(("DD", "DN", "ND"), repeat=2):
        grid = sciml.Grid((7, 6), boundary=conditions(constant, field, kinds))
        system = sciml.discretize(sciml.Equation(TENSOR), grid, {**entries, "f": 0.0})
        u = field(*grid.coordinates)
        torch.testing.assert_close(system.operator.apply(u), system.right_side, rtol=0.0, atol=1e-11)
        for axis, side in itertools.product((0, 1), repeat=2):
            face = [c.select(axis, 0) for c in grid.coordinates]
            face[axis] = torch.full_like(face[axis], float(side))
            torch.testing.assert_close(system.boundary_value(u, axis, side), field(*face))
            expected = (1.0 if side else -1.0) * sum(
                entries[name] * s for name, s in zip(ENTRIES[2][axis], (2.0, -3.0), strict=True)
            )
            assert float(system.flux(u, f"{'xy'[axis]}_{('lower', 'upper')[side]}")) == pytest.approx(expected)


def test_gradients() -> None:
    grid = sciml.Grid((4, 3))
    u = random(grid.shape)

    def residual(b: Tensor, value: Tensor, flux: Tensor) -> Tensor:
        sides = {"x": (Dirichlet(value), Neumann(flux)), "y": (Dirichlet(0.5), Neumann(flux.sum()))}
        fields = {"a": 2.0 + b * b, "b": b, "c": 1.5, "f": 0.0}
        system = sciml.discretize(sciml.Equation(TENSOR), grid, fields, boundary=sides)
        return system.operator.apply(u) - system.right_side

    inputs = (0.5 * random(grid.shape, 1), random((1, 3), 2), random((1, 3), 3))
    assert torch.autograd.gradcheck(residual, tuple(x.requires_grad_() for x in inputs))


def test_a_batch_is_a_loop() -> None:
    grid = sciml.Grid((6, 5), boundary=ALL_SIDES)
    fields = {"a": 2.0 + random((3, 6, 5), 1), "b": random((3, 6, 5), 2), "c": 2.0, "f": 1.0}
    together = sciml.discretize(sciml.Equation(TENSOR), grid, fields)
    u = random(grid.shape)
    for row in range(3):
        one = {name: value[row] if isinstance(value, Tensor) else value for name, value in fields.items()}
        alone = sciml.discretize(sciml.Equation(TENSOR), grid, one)
        torch.testing.assert_close(together.operator.apply(u.expand(3, 6, 5))[row], alone.operator.apply(u))
        torch.testing.assert_close(together.right_side[row], alone.right_side)


def test_solved_by_conjugate_gradients_with_the_exact_flux() -> None:
    """What the interface chooses, and a value at a point on the side."""
    grid = sciml.Grid((40, 40), boundary=conditions(PLANE, waves, ("DN", "ND")))
    x, y = grid.coordinates
    system: System = sciml.discretize(sciml.Equation(TENSOR), grid, {**PLANE, "f": 0.0})
    source = system.operator.apply(waves(x, y)) - system.right_side
    solution = sciml.solve(sciml.Equation(TENSOR), grid, fields={**PLANE, "f": source})
    assert "conjugate gradients" in solution.method
    torch.testing.assert_close(solution.value, waves(x, y), rtol=0.0, atol=1e-6)


@pytest.mark.parametrize(
    ("text", "boundary", "message"),
    [
        (TENSOR, {"x": Robin(1.0, 0.0), "y": Dirichlet(0.0)}, "x_lower: Robin conditions do not go with off-diagonal"),
        ("-u_xx - b*u_xy - c*u_yy = a + f", Dirichlet(0.0), r"not periodic; .* write them as div\(\[a\*u_x"),
    ],
)
def test_refused(text: str, boundary: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        sciml.discretize(sciml.Equation(text), sciml.Grid((6, 5), boundary=boundary), {**PLANE, "f": 0.0})


def random(shape: Sequence[int], seed: int = 0) -> Tensor:
    return torch.rand(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
