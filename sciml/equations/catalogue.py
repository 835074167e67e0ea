"""Named equations with their sources; every function makes one entry, its keyword arguments set the parameters.

All are dimensionless unless said otherwise. Any number of axes is meant where only grad, div and laplacian occur.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from ..errors import InputError
from .equation import Equation
from .expression import nearest


@dataclass(frozen=True)
class CatalogueEntry:
    """A named equation.

    Args:
        name: name in the catalogue.
        equation: the equation with its parameters.
        description: what it describes, in a sentence.
        source: where it comes from.
        symbols: what every unknown, coefficient and parameter stands for, with typical values.
    """

    name: str
    equation: Equation
    description: str
    source: str
    symbols: Mapping[str, str] = field(hash=False)


def names() -> tuple[str, ...]:
    """The names of all entries."""
    return tuple(_ENTRIES)


def get(name: str, **parameters: float) -> CatalogueEntry:
    """The entry of a name.

    Args:
        name: one of `names()`.
        parameters: the keyword arguments of the function of that name.

    Raises:
        InputError: for an unknown name or parameter, with the nearest known one.
    """
    if name not in _ENTRIES:
        suggestion = nearest(name, _ENTRIES)
        hint = f"did you mean '{suggestion}'?" if suggestion else f"there are {', '.join(_ENTRIES)}"
        raise InputError(f"no equation is called '{name}': {hint}")
    known = tuple(inspect.signature(_ENTRIES[name]).parameters)
    for parameter in parameters:
        if parameter not in known:
            suggestion = nearest(parameter, known)
            has = f"it has {', '.join(known)}" if known else "it has none"
            hint = f"did you mean '{suggestion}'?" if suggestion else has
            raise InputError(f"'{name}' has no parameter '{parameter}': {hint}")
    return _ENTRIES[name](**parameters)


def _entry(name: str, equation: Equation, description: str, source: str, **symbols: str) -> CatalogueEntry:
    return CatalogueEntry(name, equation, description, source, symbols)


# Steady


def poisson() -> CatalogueEntry:
    """-laplacian(u) = f."""
    return _entry(
        "poisson",
        Equation("-laplacian(u) = f"),
        "The potential of a charge, the deflection of a membrane, the steady temperature of a homogeneous body.",
        "L. C. Evans, Partial Differential Equations, 2nd ed., AMS 2010, section 2.2",
        u="potential",
        f="source, a given field",
    )


def diffusion() -> CatalogueEntry:
    """-div(a*grad(u)) = f, a varying in space."""
    return _entry(
        "diffusion",
        Equation("-div(a*grad(u)) = f"),
        "Steady diffusion in an inhomogeneous medium, such as the pressure of a fluid that seeps through rock (Darcy).",
        "J. Bear, Dynamics of Fluids in Porous Media, Elsevier 1972; L. C. Evans, Partial Differential Equations, "
        "2nd ed., AMS 2010, section 6.1",
        u="pressure or temperature",
        a="permeability or conductivity, a given positive field; in two-valued Darcy problems 3 and 12",
        f="source, a given field",
    )


def anisotropic_diffusion(*, dimension: int = 2) -> CatalogueEntry:
    """-div(A grad(u)) = f with a symmetric tensor field A.

    Args:
        dimension: number of axes, 2 (fields a11, a12, a22) or 3 (a11, a12, a13, a22, a23, a33).
    """
    if dimension not in (2, 3):
        raise InputError(f"a tensor coefficient needs 2 or 3 axes, not {dimension}; for one axis take 'diffusion'")
    axes = range(1, dimension + 1)
    fluxes = [" + ".join(f"a{min(i, j)}{max(i, j)}*u_{'xyz'[j - 1]}" for j in axes) for i in axes]
    return _entry(
        "anisotropic_diffusion",
        Equation(f"-div([{', '.join(fluxes)}]) = f"),
        "Steady diffusion in a medium that conducts better in some directions, such as layered rock or fibres.",
        "J. Bear, Dynamics of Fluids in Porous Media, Elsevier 1972; L. C. Evans, Partial Differential Equations, "
        "2nd ed., AMS 2010, section 6.1",
        u="pressure or temperature",
        f="source, a given field",
        **{f"a{i}{j}": "component of the tensor, a given field" for i in axes for j in axes if i <= j},
    )


def helmholtz(*, k: float = 10.0) -> CatalogueEntry:
    """-laplacian(u) - k**2*u = f.

    Args:
        k: wavenumber, one over length; the wavelength is 2 pi/k. Typical 1 to 100.
    """
    return _entry(
        "helmholtz",
        Equation("-laplacian(u) - k**2*u = f", parameters={"k": k}),
        "Waves of one frequency; indefinite as soon as k**2 exceeds the least eigenvalue of -laplacian.",
        "D. Colton and R. Kress, Inverse Acoustic and Electromagnetic Scattering Theory, 3rd ed., Springer 2013, "
        "section 2.1",
        u="amplitude",
        f="source, a given field",
        k="wavenumber, 1 to 100",
    )


def advection_diffusion(*, nu: float = 0.01, dimension: int = 2) -> CatalogueEntry:
    """-nu*laplacian(u) + dot([b1, b2], grad(u)) = f.

    Args:
        nu: diffusivity, length squared over time; typical 1e-4 to 1.
        dimension: number of axes, 1 to 3, and of components of the velocity b1, b2, b3.
    """
    if dimension not in (1, 2, 3):
        raise InputError(f"advection-diffusion has 1 to 3 axes, not {dimension}")
    velocity = [f"b{axis}" for axis in range(1, dimension + 1)]
    return _entry(
        "advection_diffusion",
        Equation(f"-nu*laplacian(u) + dot([{', '.join(velocity)}], grad(u)) = f", parameters={"nu": nu}),
        "What a flow carries along and diffusion spreads, in the steady state; boundary layers where nu is small.",
        "H. Elman, D. Silvester and A. Wathen, Finite Elements and Fast Iterative Solvers, 2nd ed., Oxford University "
        "Press 2014, chapter 6",
        u="concentration or temperature",
        f="source, a given field",
        nu="diffusivity, 1e-4 to 1",
        **dict.fromkeys(velocity, "component of the velocity, a given field"),
    )


# Evolving, one unknown


def heat(*, alpha: float = 1.0) -> CatalogueEntry:
    """u_t = alpha*laplacian(u).

    Args:
        alpha: diffusivity, length squared over time; typical 1e-3 to 1.
    """
    return _entry(
        "heat",
        Equation("u_t = alpha*laplacian(u)", parameters={"alpha": alpha}),
        "Conduction of heat in a homogeneous body.",
        "J. Fourier, Théorie analytique de la chaleur, Paris 1822; L. C. Evans, Partial Differential Equations, "
        "2nd ed., AMS 2010, section 2.3",
        u="temperature",
        alpha="diffusivity, 1e-3 to 1",
    )


def wave(*, c: float = 1.0) -> CatalogueEntry:
    """u_tt = c**2*laplacian(u).

    Args:
        c: speed of the waves, length over time; typical 1.
    """
    return _entry(
        "wave",
        Equation("u_tt = c**2*laplacian(u)", parameters={"c": c}),
        "Small vibrations of a string or membrane, sound.",
        "L. C. Evans, Partial Differential Equations, 2nd ed., AMS 2010, section 2.4",
        u="displacement",
        u_t="its velocity",
        c="speed, 1",
    )


def klein_gordon(*, c: float = 1.0, m: float = 1.0) -> CatalogueEntry:
    """u_tt = c**2*laplacian(u) - m**2*u.

    Args:
        c: speed of short waves, length over time; typical 1.
        m: mass, the angular frequency of infinitely long waves; typical 1.
    """
    return _entry(
        "klein_gordon",
        Equation("u_tt = c**2*laplacian(u) - m**2*u", parameters={"c": c, "m": m}),
        "A relativistic scalar field; dispersive waves with frequency squared c**2 k**2 + m**2.",
        "O. Klein, Z. Phys. 37 (1926) 895-906; W. Gordon, Z. Phys. 40 (1926) 117-133",
        u="field",
        u_t="its rate",
        c="speed, 1",
        m="mass, 1",
    )


def porous_medium(*, m: float = 2.0) -> CatalogueEntry:
    """u_t = laplacian(u**m), u >= 0.

    Args:
        m: exponent above 1; typical 2 to 4. Below 2 the written-out form divides by zero where u = 0.
    """
    return _entry(
        "porous_medium",
        Equation("u_t = laplacian(u**m)", parameters={"m": m}),
        "Gas in a porous medium; it spreads with a sharp front at finite speed.",
        "G. I. Barenblatt, Prikl. Mat. Mekh. 16 (1952) 67-78; J. L. Vázquez, The Porous Medium Equation, Oxford "
        "University Press 2007",
        u="density, not negative",
        m="exponent, 2 to 4",
    )


def burgers(*, nu: float = 0.01) -> CatalogueEntry:
    """u_t = -u*u_x + nu*u_xx.

    Args:
        nu: viscosity, length squared over time; typical 1e-3 to 0.1 (0.01/pi in the physics-informed literature).
    """
    return _entry(
        "burgers",
        Equation("u_t = -u*u_x + nu*u_xx", parameters={"nu": nu}),
        "The simplest flow that steepens into shocks, which viscosity keeps smooth.",
        "J. M. Burgers, Adv. Appl. Mech. 1 (1948) 171-199; solved by E. Hopf, Comm. Pure Appl. Math. 3 (1950) 201-230, "
        "and J. D. Cole, Quart. Appl. Math. 9 (1951) 225-236",
        u="velocity",
        nu="viscosity, 1e-3 to 0.1",
    )


def allen_cahn(*, epsilon: float = 0.05) -> CatalogueEntry:
    """u_t = epsilon**2*laplacian(u) + u - u**3.

    Args:
        epsilon: width of the walls between the phases, a length; typical 0.01 to 0.1.
    """
    return _entry(
        "allen_cahn",
        Equation("u_t = epsilon**2*laplacian(u) + u - u**3", parameters={"epsilon": epsilon}),
        "Two phases, u = 1 and u = -1, whose walls move by their curvature; the mass is not conserved.",
        "S. M. Allen and J. W. Cahn, Acta Metall. 27 (1979) 1085-1095",
        u="order parameter",
        epsilon="width of a wall, 0.01 to 0.1",
    )


def cahn_hilliard(*, epsilon: float = 0.05) -> CatalogueEntry:
    """u_t = laplacian(u**3 - u - epsilon**2*laplacian(u)).

    Args:
        epsilon: width of the walls between the phases, a length; typical 0.01 to 0.1.
    """
    return _entry(
        "cahn_hilliard",
        Equation("u_t = laplacian(u**3 - u - epsilon**2*laplacian(u))", parameters={"epsilon": epsilon}),
        "A mixture that separates into two phases and conserves the mass of each.",
        "J. W. Cahn and J. E. Hilliard, J. Chem. Phys. 28 (1958) 258-267; J. W. Cahn, Acta Metall. 9 (1961) 795-801",
        u="difference of the concentrations",
        epsilon="width of a wall, 0.01 to 0.1",
    )


def kdv(*, alpha: float = 6.0, beta: float = 1.0) -> CatalogueEntry:
    """u_t = -alpha*u*u_x - beta*u_xxx.

    Args:
        alpha: strength of the steepening; 6 in the usual scaling, 1 in Zabusky and Kruskal's.
        beta: dispersion; 1 in the usual scaling, 0.022**2 in Zabusky and Kruskal's.
    """
    return _entry(
        "kdv",
        Equation("u_t = -alpha*u*u_x - beta*u_xxx", parameters={"alpha": alpha, "beta": beta}),
        "Long waves on shallow water; solitons.",
        "D. J. Korteweg and G. de Vries, Phil. Mag. 39 (1895) 422-443; N. J. Zabusky and M. D. Kruskal, Phys. Rev. "
        "Lett. 15 (1965) 240-243",
        u="height of the wave",
        alpha="steepening, 6 or 1",
        beta="dispersion, 1 or 0.022**2",
    )


def kuramoto_sivashinsky(*, nu: float = 1.0) -> CatalogueEntry:
    """u_t = -u*u_x - u_xx - nu*u_xxxx.

    Args:
        nu: damping of short waves; 1, with the length of the periodic domain (22 to 200) deciding how chaotic it is.
    """
    return _entry(
        "kuramoto_sivashinsky",
        Equation("u_t = -u*u_x - u_xx - nu*u_xxxx", parameters={"nu": nu}),
        "Flame fronts and thin films; chaotic in space and time.",
        "Y. Kuramoto and T. Tsuzuki, Prog. Theor. Phys. 55 (1976) 356-369; G. I. Sivashinsky, Acta Astronaut. 4 (1977) "
        "1177-1206",
        u="slope of the front",
        nu="damping, 1",
    )


# Systems


def gray_scott(*, Du: float = 2e-5, Dv: float = 1e-5, F: float = 0.04, k: float = 0.06) -> CatalogueEntry:
    """u_t = Du*laplacian(u) - u*v**2 + F*(1 - u), v_t = Dv*laplacian(v) + u*v**2 - (F + k)*v.

    Args:
        Du: diffusivity of u; 2e-5 on a square of side 2.5.
        Dv: diffusivity of v; 1e-5.
        F: feed rate; 0.01 to 0.08.
        k: removal rate of v; 0.045 to 0.07.
    """
    return _entry(
        "gray_scott",
        Equation(
            ["u_t = Du*laplacian(u) - u*v**2 + F*(1 - u)", "v_t = Dv*laplacian(v) + u*v**2 - (F + k)*v"],
            parameters={"Du": Du, "Dv": Dv, "F": F, "k": k},
        ),
        "Two chemicals, U + 2V -> 3V, fed and removed: spots, stripes and waves.",
        "P. Gray and S. K. Scott, Chem. Eng. Sci. 39 (1984) 1087-1097; J. E. Pearson, Science 261 (1993) 189-192",
        u="concentration of U",
        v="concentration of V",
        Du="diffusivity of U, 2e-5",
        Dv="diffusivity of V, 1e-5",
        F="feed rate, 0.01 to 0.08",
        k="removal rate, 0.045 to 0.07",
    )


def navier_stokes(*, nu: float = 1e-3) -> CatalogueEntry:
    """w_t = psi_x*w_y - psi_y*w_x + nu*laplacian(w) + f, where laplacian(psi) = -w; two axes.

    The velocity is (psi_y, -psi_x), the vorticity w its curl.

    Args:
        nu: viscosity, length squared over time; typical 1e-5 to 1e-2.
    """
    return _entry(
        "navier_stokes",
        Equation(
            "w_t = psi_x*w_y - psi_y*w_x + nu*laplacian(w) + f",
            constraints=["laplacian(psi) = -w"],
            parameters={"nu": nu},
        ),
        "Incompressible flow in two dimensions, by its vorticity and stream function.",
        "A. J. Majda and A. L. Bertozzi, Vorticity and Incompressible Flow, Cambridge University Press 2002, chapter 2",
        w="vorticity",
        psi="stream function, from the constraint",
        f="curl of the force, a given field",
        nu="viscosity, 1e-5 to 1e-2",
    )


def quasi_geostrophic(
    *,
    beta: float = 0.5,
    F1: float = 1.0,
    F2: float = 1.0,
    U1: float = 1.0,
    U2: float = 0.0,
    r: float = 0.1,
) -> CatalogueEntry:
    """Two layers on a beta plane, upper (1) and lower (2), about zonal flows U1 and U2; two axes.

    q_t + J(psi, q) + U q_x + Q_y psi_x = 0 in each layer, where J(a, b) = a_x b_y - a_y b_x, the gradients of the
    background are beta + F1*(U1 - U2) and beta - F2*(U1 - U2), and the lower layer feels bottom drag. The velocity is
    (-psi_y, psi_x). Lengths are in units of the deformation radius and speeds in units of the shear with the values
    here. What removes enstrophy at small scales, a filter or hyperviscosity, is left to the scheme or to `+`.

    Args:
        beta: gradient of the Coriolis parameter. Unstable where beta < F2*(U1 - U2); typical 0 to 1.
        F1: coupling of the upper layer to the lower, one over length squared; F1/F2 is the ratio of depths H2/H1.
        F2: coupling of the lower layer to the upper.
        U1: zonal background flow of the upper layer.
        U2: zonal background flow of the lower layer.
        r: bottom drag, one over time; typical 0.05 to 0.5.
    """
    return _entry(
        "quasi_geostrophic",
        Equation(
            [
                "q1_t = psi1_y*q1_x - psi1_x*q1_y - U1*q1_x - (beta + F1*(U1 - U2))*psi1_x",
                "q2_t = psi2_y*q2_x - psi2_x*q2_y - U2*q2_x - (beta - F2*(U1 - U2))*psi2_x - r*laplacian(psi2)",
            ],
            constraints=["laplacian(psi1) + F1*(psi2 - psi1) = q1", "laplacian(psi2) + F2*(psi1 - psi2) = q2"],
            parameters={"beta": beta, "F1": F1, "F2": F2, "U1": U1, "U2": U2, "r": r},
        ),
        "The least model of weather and ocean eddies: baroclinic instability of a sheared zonal flow.",
        "N. A. Phillips, Tellus 6 (1954) 273-286; G. K. Vallis, Atmospheric and Oceanic Fluid Dynamics, 2nd ed., "
        "Cambridge University Press 2017, chapters 5 and 9",
        q1="potential vorticity of the upper layer, without the background's",
        q2="potential vorticity of the lower layer, without the background's",
        psi1="stream function of the upper layer, from the constraints",
        psi2="stream function of the lower layer, from the constraints",
        beta="gradient of the Coriolis parameter, 0 to 1",
        F1="coupling of the upper layer, 1",
        F2="coupling of the lower layer, 1",
        U1="background flow of the upper layer, 1",
        U2="background flow of the lower layer, 0",
        r="bottom drag, 0.05 to 0.5",
    )


# Ordinary differential equations


def lorenz(*, sigma: float = 10.0, rho: float = 28.0, beta: float = 8.0 / 3.0) -> CatalogueEntry:
    """x_t = sigma*(y - x), y_t = x*(rho - z) - y, z_t = x*y - beta*z.

    Args:
        sigma: Prandtl number; 10.
        rho: Rayleigh number over its critical value; 28.
        beta: shape of the convection cells; 8/3.
    """
    return _entry(
        "lorenz",
        Equation(
            ["x_t = sigma*(y - x)", "y_t = x*(rho - z) - y", "z_t = x*y - beta*z"],
            parameters={"sigma": sigma, "rho": rho, "beta": beta},
            coordinates=(),
        ),
        "Convection reduced to three numbers; the first strange attractor.",
        "E. N. Lorenz, J. Atmos. Sci. 20 (1963) 130-141, equations 25-27",
        x="speed of the convection",
        y="temperature difference between the streams",
        z="distortion of the temperature profile",
        sigma="Prandtl number, 10",
        rho="relative Rayleigh number, 28",
        beta="shape of the cells, 8/3",
    )


def van_der_pol(*, mu: float = 1.0) -> CatalogueEntry:
    """x_tt = mu*(1 - x**2)*x_t - x.

    Args:
        mu: strength of the nonlinear damping; 1 is mild, 1000 very stiff.
    """
    return _entry(
        "van_der_pol",
        Equation("x_tt = mu*(1 - x**2)*x_t - x", parameters={"mu": mu}, coordinates=()),
        "An oscillator that keeps its own amplitude; for large mu it relaxes in jumps.",
        "B. van der Pol, Phil. Mag. 2 (1926) 978-992",
        x="displacement",
        x_t="its velocity",
        mu="damping, 1 to 1000",
    )


_ENTRIES: dict[str, Callable[..., CatalogueEntry]] = {
    function.__name__: function
    for function in (
        poisson,
        diffusion,
        anisotropic_diffusion,
        helmholtz,
        advection_diffusion,
        heat,
        wave,
        klein_gordon,
        porous_medium,
        burgers,
        allen_cahn,
        cahn_hilliard,
        kdv,
        kuramoto_sivashinsky,
        gray_scott,
        navier_stokes,
        quasi_geostrophic,
        lorenz,
        van_der_pol,
    )
}
