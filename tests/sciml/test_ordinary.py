"""Systems of ordinary differential equations from text: their rates, Jacobians and compiled steps."""

from __future__ import annotations

import copy
import math
import pickle

import pytest
import torch

import sciml
from sciml import Equation, InputError
from sciml.equations import catalogue
from sciml.kernels import build
from sciml.ordinary import OrdinarySystem
from sciml.solvers.time import ExplicitRungeKutta

EVERYTHING = Equation(
    [
        "x_t = a*sin(t*y) - exp(-x)/(1 + z**2)",
        "y_t = sqrt(1 + x**2) + abs(z) - 3 + log(2 + cos(y))*b",
        "z_t = -z + tanh(x*y*z) - x**3/2 + 1",
    ],
    parameters={"a": 0.7, "b": 0.2},
    coordinates=(),
)


def by_hand(u, t, a=0.7, b=0.2):
    x, y, z = u.unbind(-1)
    return torch.stack(
        (
            a * torch.sin(t * y) - torch.exp(-x) / (1 + z**2),
            torch.sqrt(1 + x**2) + z.abs() - 3 + torch.log(2 + torch.cos(y)) * b,
            -z + torch.tanh(x * y * z) - x**3 / 2 + 1,
        ),
        -1,
    )


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("batch", [(), (5,), (2, 300)])
def test_rates_compiled_and_not(batch, dtype):
    u = torch.randn(*batch, 3, dtype=dtype, generator=torch.Generator().manual_seed(0))
    a = torch.rand(batch, dtype=dtype, generator=torch.Generator().manual_seed(1))
    for parameters, values in (({}, {}), ({"a": a, "b": 0.4}, {"a": a, "b": 0.4})):
        system = OrdinarySystem(EVERYTHING, parameters=parameters, dtype=dtype)
        expected = by_hand(u, 1.3, **values)
        torch.testing.assert_close(system.rate(u, 1.3), expected)
        y = system.encode(u)
        with torch.no_grad():
            assert (system.tape(y) is not None) is (build.library() is not None)
            torch.testing.assert_close(system.slope(y, 1.3), expected)
        torch.testing.assert_close(system.slope(y, torch.full(batch, 1.3, dtype=dtype)), expected)


@pytest.mark.parametrize("method", [ExplicitRungeKutta.tsit5(), ExplicitRungeKutta.rk4(), ExplicitRungeKutta.heun()])
def test_whole_steps_equal_stage_by_stage(method, monkeypatch):
    """Also of more rows than are worked on at once, a number that is no multiple of that."""
    start = torch.randn(301, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    a = torch.linspace(0.1, 1.0, 301, dtype=torch.float64)
    given = {"initial": start, "times": [0.0, 0.3, 1.0], "parameters": {"a": a}, "method": method}
    given["step" if method.tableau.embedded == 0 else "rtol"] = 0.05 if method.tableau.embedded == 0 else 1e-5
    whole = sciml.evolve(EVERYTHING, **given)
    monkeypatch.setattr(build, "library", lambda: None)
    plain = sciml.evolve(EVERYTHING, **given)
    torch.testing.assert_close(whole.value, plain.value, rtol=1e-11, atol=1e-11)
    assert int(whole.statistics["evaluations"][0]) == int(plain.statistics["evaluations"][0])


def test_linear_part_and_rest_make_the_rate():
    system = OrdinarySystem(catalogue.get("lorenz").equation)
    u = torch.randn(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    expected = torch.tensor([[-10.0, 10.0, 0.0], [28.0, -1.0, 0.0], [0.0, 0.0, -8 / 3]], dtype=torch.float64)
    torch.testing.assert_close(system.linear_part.matrices, expected)
    x, y, z = u.unbind(-1)
    torch.testing.assert_close(system.nonlinear_part(u, 0.0), torch.stack((0 * x, -x * z, x * y), -1))
    torch.testing.assert_close(system.linear_part.apply(u) + system.nonlinear_part(u, 0.0), system.rate(u, 0.0))


def test_shifted_is_the_derivative_of_the_force():
    system = OrdinarySystem(EVERYTHING)
    u = torch.randn(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    jacobian = torch.func.vmap(torch.func.jacrev(lambda v: by_hand(v, 0.7)))(u)
    found = system.shifted(u, 0.7, 0.1).matrices
    torch.testing.assert_close(found, torch.eye(3, dtype=torch.float64) - 0.1 * jacobian)


def test_coefficients_may_be_functions_of_the_time():
    equation = Equation("u_t = -c*u + f", coefficients=["c", "f"], coordinates=())
    solution = sciml.evolve(
        equation,
        initial=1.0,
        times=[0.0, 2.0],
        fields={"c": lambda t: 2 * t, "f": 0.0},
        rtol=1e-10,
        atol=1e-10,
    )
    assert float(solution.value[-1]) == pytest.approx(
        float(torch.exp(torch.tensor(-4.0, dtype=torch.float64))), rel=1e-7
    )


@pytest.mark.parametrize("control", ["joint", "row"])
@pytest.mark.parametrize("unknowns", [["u"], ["u", "v"]], ids=["one", "two"])
@pytest.mark.parametrize("batch", [(), (2,)], ids=["alone", "batch"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_functions_of_the_time_get_a_tensor(dtype, batch, unknowns, control):
    """u = u(0) exp(sin t + t^2 / 2) and its derivative in u(0), in the dtype of the state."""
    texts = [f"{name}_t = f*{name} + t*{name}" for name in unknowns]
    equation = Equation(texts, unknowns=unknowns, coordinates=())
    start = (1 + torch.rand((*batch, *[2] * (len(unknowns) == 2)), dtype=dtype)).requires_grad_()
    tolerance = 5e-4 if dtype == torch.float32 else 5e-6
    functions = [torch.cos] if batch and control == "row" else [torch.cos, math.cos]
    for function in functions:
        solution = sciml.evolve(equation, initial=start, times=(0.0, 1.0), fields={"f": function}, control=control)
        growth = torch.full_like(start, math.exp(math.sin(1.0) + 0.5))
        last = solution.value.select(len(batch), -1)
        assert last.dtype == dtype
        torch.testing.assert_close(last, start * growth, rtol=tolerance, atol=0)
        (slope,) = torch.autograd.grad(last.sum(), start)
        torch.testing.assert_close(slope, growth, rtol=tolerance, atol=0)


def test_systems_are_copied_and_pickled():
    system = OrdinarySystem(EVERYTHING)
    u = torch.randn(3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = system.slope(u, 0.5)
        for again in (copy.deepcopy(system), pickle.loads(pickle.dumps(system))):
            torch.testing.assert_close(again.slope(u, 0.5), expected)


@pytest.mark.parametrize(
    ("equation", "given", "message"),
    [
        (Equation("u_t = u_xx"), {}, "no system of ordinary differential equations"),
        (Equation("u_t = -c*u", coefficients=["c"], coordinates=()), {}, "no value is given for the coefficient c"),
        (EVERYTHING, {"parameters": {"c": 1.0}}, "the equation has no 'c'"),
        (EVERYTHING, {"parameters": {"a": torch.tensor(float("nan"), dtype=torch.float64)}}, "NaN"),
    ],
)
def test_refused(equation, given, message):
    with pytest.raises(InputError, match=message):
        OrdinarySystem(equation, **given)
