"""Measured orders of convergence on manufactured solutions."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from sciml.scheme import FiniteDifference, FiniteVolume

FD4 = FiniteDifference(order=4)
SCHEMES = {2: None, 4: FD4}


def wave(x: Tensor) -> Tensor:
    return torch.sin(4.0 * x + 0.2) + x * x


def waves(x: Tensor, y: Tensor) -> Tensor:
    return torch.sin(4.0 * x + 0.2) * torch.cos(3.0 * y + 0.3) + x * y


def waves_in_space(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
    return torch.sin(2.1 * x + 0.2) * torch.cos(1.4 * y + 0.3) * torch.exp(0.5 * z) + x * y * z


def periodic_in_x(x: Tensor, y: Tensor) -> Tensor:
    return torch.exp(torch.sin(6.283185307179586 * x)) * torch.cos(2.0 * y + 0.3)


def doubly_periodic(x: Tensor, y: Tensor) -> Tensor:
    turn = 6.283185307179586
    return torch.exp(0.5 * torch.sin(turn * x)) * torch.cos(turn * y) + 0.3 * torch.sin(turn * (x - y))


def a(x: Tensor, y: Tensor) -> Tensor:
    return 1.5 + torch.sin(2.0 * x + y)


def b(x: Tensor, y: Tensor) -> Tensor:
    return 2.0 + torch.cos(x - 2.0 * y)


def turning(x: Tensor, y: Tensor) -> Tensor:
    """A velocity that blows either way."""
    return torch.cos(4.0 * x + y)


def periodic_a(x: Tensor, y: Tensor) -> Tensor:
    return 1.5 + 0.5 * torch.sin(6.283185307179586 * x) * torch.cos(6.283185307179586 * y)


def a_in_space(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
    return 1.5 + torch.sin(x + y - z)


AB = {"a": a, "b": b}
DIFFUSION = {"text": "-div(a*grad(u)) = f", "fields": {"a": a}, "normal": {"u": ("a", "a")}}
TRANSPORT = {"text": "b*u_x - w*u_y - 0.5*laplacian(u) = f", "fields": {"b": b, "w": turning}}
CONSERVED = {
    "text": "div([w*u, -a*u]) - div(a*grad(u)) = f",
    "fields": {"a": a, "w": turning},
    "normal": {"u": ("a", "a")},
}
SYSTEM = {
    "text": ["-laplacian(u) + v = f0", "-div(a*grad(v)) + u_x + 2*v = f1"],
    "exact": {"u": waves, "v": lambda x, y: torch.cos(2.0 * x - y)},
    "fields": {"a": a},
    "unknowns": ("u", "v"),
    "normal": {"v": ("a", "a")},
}


def cases() -> list[Any]:
    rows: list[tuple[str, dict[str, Any], int, float]] = []  # name, problem, coarse n, order
    for kind in "DNR":
        sides = [(kind + "D", "DD"), ("D" + kind, "DD"), ("DD", kind + "D"), ("DD", "D" + kind)]
        for side, kinds in enumerate(dict.fromkeys(sides)):
            for order, scheme in SCHEMES.items():
                name = f"Laplace, {kind} on side {side}"
                problem = {"text": "-laplacian(u) = f", "exact": {"u": waves}, "kinds": kinds, "scheme": scheme}
                rows.append((name, problem, 24 if order == 2 else 48, order))
    for order, scheme in SCHEMES.items():
        n = 24 if order == 2 else 32
        for kinds in ["DD", "DN", "NR", "RN"]:
            problem = {"text": "-u_xx = f", "exact": {"u": wave}, "kinds": [kinds], "scheme": scheme}
            rows.append((f"1D, {kinds}", problem, 64, order))
        for kinds in [("DD", "DD"), ("ND", "DR"), ("RN", "NR"), ("NN", "DN")]:
            rows.append((f"div(a grad u), {kinds}", {**DIFFUSION, "kinds": kinds, "scheme": scheme}, n, order))
        for kinds in [("RN", "DD"), ("DN", "NR")]:
            text = "-div([a*u_x, b*u_y]) + b*u = f"
            problem = {"text": text, "fields": AB, "normal": {"u": ("a", "b")}, "kinds": kinds, "scheme": scheme}
            rows.append((f"diagonal tensor, {kinds}", problem, n, order))
        factor = {"text": "-a*u_xx - b*u_yy = f", "fields": AB, "kinds": ("DN", "RD"), "scheme": scheme}
        rows.append(("factor outside", factor, n, order))
        space = {
            "text": "-div(a*grad(u)) = f",
            "exact": {"u": waves_in_space},
            "fields": {"a": a_in_space},
            "normal": {"u": ("a", "a", "a")},
            "kinds": ("DD", "DN", "RD"),
            "scheme": scheme,
        }
        rows.append(("3D", space, 12, order))
        mixed = {**DIFFUSION, "exact": {"u": periodic_in_x}, "fields": {"a": lambda x, y: 1.5 + torch.sin(y)}}
        rows.append(("periodic in x", {**mixed, "kinds": ("P", "NR"), "scheme": scheme}, n, order))
        around = {**DIFFUSION, "exact": {"u": doubly_periodic}, "fields": {"a": periodic_a}, "upper": (1.0, 1.0)}
        around["text"] = "-div(a*grad(u)) + u = f"
        rows.append(("periodic", {**around, "kinds": ("P", "P"), "scheme": scheme}, n, order))
        around["text"] = "-div([2*u_x + a*u_y, a*u_x + 3*u_y]) + u = f"
        rows.append(("full tensor, periodic", {**around, "kinds": ("P", "P"), "scheme": scheme}, n, order))
        around["text"] = "u_xxxx + u_yyyy + 2*u_xxyy + a*u_xxx - u_xy + 9*u = f"
        high = scheme or FiniteDifference(advection="central")
        rows.append(("high derivatives, periodic", {**around, "kinds": ("P", "P"), "scheme": high}, 24, order))
        rows.append(("system", {**SYSTEM, "kinds": ("DN", "RD"), "scheme": scheme}, n, order))
        central = FiniteDifference(order, "central")
        for kinds in [("DD", "DD"), ("ND", "DR"), ("RN", "DN")]:
            rows.append((f"advection, {kinds}", {**TRANSPORT, "kinds": kinds, "scheme": central}, n, order))
            conserved = central if order == 4 else FiniteVolume(advection="central")
            rows.append((f"advective flux, {kinds}", {**CONSERVED, "kinds": kinds, "scheme": conserved}, 40, order))
    for kinds in [("DD", "DD"), ("ND", "DR"), ("RN", "DN")]:
        for scheme in [FiniteDifference(advection="upwind"), FiniteDifference(4, "upwind")]:
            rows.append((f"upwind, {kinds}", {**TRANSPORT, "kinds": kinds, "scheme": scheme}, 64, 1))
        upwind = {**CONSERVED, "kinds": kinds, "scheme": FiniteVolume(advection="upwind")}
        rows.append((f"upwind flux, {kinds}", upwind, 96, 1))
    arithmetic = {**DIFFUSION, "kinds": ("RN", "ND")}
    rows.append(("arithmetic means", {**arithmetic, "scheme": FiniteVolume(average="arithmetic")}, 24, 2))
    rows.append(("flux form by differences", {**arithmetic, "scheme": FiniteDifference()}, 24, 2))
    return [
        pytest.param({"exact": {"u": waves}, **problem}, n, order, id=f"order {order}: {name}")
        for name, problem, n, order in rows
    ]


@pytest.mark.parametrize(("problem", "n", "order"), cases())
def test_order(manufactured: Any, problem: dict[str, Any], n: int, order: float) -> None:
    assert manufactured(**problem).order(n) == pytest.approx(order, abs=0.1)
