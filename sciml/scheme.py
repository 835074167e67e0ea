"""Which discretization: small frozen settings."""

from __future__ import annotations

from dataclasses import dataclass

from .errors import InputError

ADVECTION = ("auto", "central", "upwind")
LIMITERS = ("auto", "none", "minmod", "van_leer", "mc", "superbee")
AVERAGES = ("harmonic", "arithmetic")


@dataclass(frozen=True)
class FiniteDifference:
    """Finite differences on point values.

    Args:
        order: 2 or 4, of first and second derivatives up to the boundary. At order 2, div(a*grad(u)) is in flux form
            with arithmetic means of a on faces; at order 4 it is expanded into a*u_xx + a_x*u_x, so that a must be
            smooth.
        advection: how first derivatives are taken: "central" (of the given order); "upwind" (first order, whatever
            `order`); "auto": central unless the cell Peclet number |b| h / diffusivity exceeds 2 somewhere.

    Raises:
        InputError: for another order or another word.
    """

    order: int = 2
    advection: str = "auto"

    def __post_init__(self) -> None:
        if not isinstance(self.order, int) or self.order not in (2, 4):
            raise InputError(f"FiniteDifference: order is 2 or 4, got {self.order!r}")
        _check_word(self.advection, ADVECTION, "FiniteDifference: advection")


@dataclass(frozen=True)
class FiniteVolume:
    """Conservative finite volumes of second order for div(...); other terms are second-order finite differences.

    Args:
        average: mean of the two cell values of a coefficient on the face between them: "harmonic" (exact fluxes at
            jumps) or "arithmetic". Advective velocities are averaged arithmetically.
        advection: as in `FiniteDifference`.
        limiter: of the slopes in cells from which the fluxes of evolving conservation laws, u_t = -div(f(u)), are
            reconstructed on faces, so that shocks neither smear over many cells nor ring: "minmod" (the most cautious),
            "van_leer", "mc" (monotonized central), "superbee" (the sharpest; it squares off smooth waves). "none" takes
            such fluxes as any other. "auto": "van_leer" in equations without diffusion of their own, else "none", with
            a warning at the start of a run where the cell Peclet number of a nonlinear flux exceeds 2. A limiter that
            is asked for and finds no flux in div(...) to act on is refused.
            On a side with Dirichlet's condition one unknown by itself enters with the value given and leaves freely,
            while several take the values given. Steady equations know no limiters.

    Raises:
        InputError: for another word.
    """

    average: str = "harmonic"
    advection: str = "auto"
    limiter: str = "auto"

    def __post_init__(self) -> None:
        _check_word(self.average, AVERAGES, "FiniteVolume: average")
        _check_word(self.advection, ADVECTION, "FiniteVolume: advection")
        _check_word(self.limiter, LIMITERS, "FiniteVolume: limiter")


DEALIASINGS = ("2/3", "3/2", "none")


@dataclass(frozen=True)
class Spectral:
    """Fourier series on periodic grids: derivatives are exact for what is kept.

    Where products hold the state, what dealiasing does not keep of a field is dropped, also of the initial one, with a
    warning if it is more than 1e-6 of it. Where none does, all wavenumbers are kept, whatever `dealias` says, but for
    constraints with odd derivatives.

    Args:
        dealias: how products are kept from folding high wavenumbers back onto low ones. "2/3": wavenumbers below n/3
            are kept and products formed on the grid itself; "3/2": all below n/2 are kept and products formed on a grid
            3/2 as fine; both are exact for quadratic terms. "none": all are kept, products on the grid, which aliases.

    Raises:
        InputError: for another word.
    """

    dealias: str = "2/3"

    def __post_init__(self) -> None:
        _check_word(self.dealias, DEALIASINGS, "Spectral: dealias")


Scheme = FiniteDifference | FiniteVolume


def _check_word(word: object, words: tuple[str, ...], name: str) -> None:
    if word not in words:
        raise InputError(f"{name} is one of {', '.join(words)}, got {word!r}")


STABILIZATIONS = ("auto", "none", "streamline")


@dataclass(frozen=True)
class FiniteElement:
    """Continuous piecewise linear (P1) finite elements, the scheme of meshes.

    Args:
        stabilization: of first derivatives. "streamline": streamline-upwind Petrov-Galerkin (Brooks and Hughes, Comput.
            Methods Appl. Mech. Engrg. 32 (1982) 199-259); "none"; "auto": where the largest element Peclet number
            |b| h / (2 diffusivity) exceeds 1.
        lumped: whether the mass matrix of terms without derivatives is lumped onto its diagonal, which keeps a strong
            reaction from overshooting; the integrals of sources are not changed by it.

    Raises:
        InputError: for another word.
    """

    stabilization: str = "auto"
    lumped: bool = False

    def __post_init__(self) -> None:
        _check_word(self.stabilization, STABILIZATIONS, "FiniteElement: stabilization")
        if not isinstance(self.lumped, bool):
            raise InputError(f"FiniteElement: lumped is True or False, got {self.lumped!r}")
