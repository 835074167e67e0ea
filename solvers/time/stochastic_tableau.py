"""Tableaus of stochastic Runge-Kutta methods of strong order 3/2 for diagonal noise."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from .tableau import Row


@dataclass(frozen=True)
class StochasticTableau:
    """A method of the form SRI of Rößler, SIAM J. Numer. Anal. 48 (2010) 922-952: diagonal noise, Ito's calculus.

    With f the drift, g the diffusion, h the step, w the increment of W and k its integral over the step:

        P_i = u + h sum_j a_drift[i][j] f(P_j) + k/h sum_j b_drift[i][j] g(Q_j),
        Q_i = u + h sum_j a_noise[i][j] f(P_j) + sqrt(h) sum_j b_noise[i][j] g(Q_j),
        u(t + h) = u + h sum_i alpha[i] f(P_i) + sum_i (beta[0][i] w + beta[1][i] (w^2 - h) / (2 sqrt(h))
                   + beta[2][i] k/h + beta[3][i] (w^3 - 3 h w) / (6 h)) g(Q_i),

    f at the times t + c_drift[i] h and g at t + c_noise[i] h. All numbers are dimensionless.

    Attributes:
        name: as the literature calls it.
        a_drift, b_drift, a_noise, b_noise: row i has its i entries below the diagonal.
        alpha, beta: weights; beta has four rows.
        equal: two stages with the same c_drift, from which stiffness is estimated; the larger is the last.
    """

    name: str
    a_drift: tuple[Row, ...]
    b_drift: tuple[Row, ...]
    a_noise: tuple[Row, ...]
    b_noise: tuple[Row, ...]
    alpha: Row
    beta: tuple[Row, Row, Row, Row]
    equal: tuple[int, int] | None = None

    @property
    def stages(self) -> int:
        """Number of stages s."""
        return len(self.alpha)

    @cached_property
    def c_drift(self) -> Row:
        """`(s,)`, the times within a step at which the drift is taken."""
        return tuple(sum(row) for row in self.a_drift)

    @cached_property
    def c_noise(self) -> Row:
        """`(s,)`, the times within a step at which the diffusion is taken."""
        return tuple(sum(row) for row in self.a_noise)

    @cached_property
    def drifts(self) -> tuple[int, ...]:
        """The stages whose drift anything depends on."""
        rows = (*self.a_drift, *self.a_noise, self.alpha)
        return tuple(j for j in range(self.stages) if any(row[j] for row in rows if j < len(row)))


# Rößler (2010), SRI1W1. His third drift is that of the first stage, and is written so.
SRIW1 = StochasticTableau(
    "SRIW1",
    ((), (3 / 4,), (0.0, 0.0), (0.0, 0.0, 0.0)),
    ((), (3 / 2,), (0.0, 0.0), (0.0, 0.0, 0.0)),
    ((), (1 / 4,), (1.0, 0.0), (1 / 4, 0.0, 0.0)),
    ((), (1 / 2,), (-1.0, 0.0), (-5.0, 3.0, 1 / 2)),
    (1 / 3, 2 / 3, 0.0, 0.0),
    (
        (-1.0, 4 / 3, 2 / 3, 0.0),
        (-1.0, 4 / 3, -1 / 3, 0.0),
        (2.0, -4 / 3, -2 / 3, 0.0),
        (-2.0, 5 / 3, -2 / 3, 1.0),
    ),
)

# Rackauckas and Nie, Stability-optimized high order methods and stiffness detection for pathwise stiff stochastic
# differential equations, arXiv 1804.04344, with the digits of the authors' StochasticDiffEq.jl.
SOSRI = StochasticTableau(
    "SOSRI",
    (
        (),
        (-0.04199224421316468,),
        (2.842612915017106, -2.0527723684000727),
        (4.338237071435815, -2.8895936137439793, 2.3017575594644466),
    ),
    (
        (),
        (-0.21641093549612528,),
        (1.5336352863679572, 0.26066223492647056),
        (-1.0536037558179159, 1.7015284721089472, -0.20725685784180017),
    ),
    (
        (),
        (0.26204282091330466,),
        (0.20903646383505375, -0.1502377115150361),
        (0.05836595312746999, 0.6149440396332373, 0.08535117634046772),
    ),
    (
        (),
        (-0.5119011827621657,),
        (2.67767339866713, -4.9395031322250995),
        (0.15580956238299215, 3.2361551006624674, -1.4223118283355949),
    ),
    (1.140099274172029, -0.6401334255743456, 0.4736296532772559, 0.026404498125060714),
    (
        (-1.8453464565104432, 2.688764531100726, -0.2523866501071323, 0.40896857551684956),
        (0.4969658141589478, -0.5771202869753592, -0.12919702470322217, 0.2093514975196336),
        (2.8453464565104425, -2.688764531100725, 0.2523866501071322, -0.40896857551684945),
        (0.11522663875443433, -0.57877086147738, 0.2857851028163886, 0.17775911990655704),
    ),
)

SOSRI2 = StochasticTableau(
    "SOSRI2",
    (
        (),
        (0.13804532298278663,),
        (0.5818361298250374, 0.4181638701749618),
        (0.4670018408674211, 0.8046204792187386, -0.27162232008616016),
    ),
    (
        (),
        (0.08852381537667678,),
        (1.0317752458971061, 0.4563552922077882),
        (1.73078280444124, -0.46089678470929774, -0.9637509618944188),
    ),
    (
        (),
        (0.45605532163856893,),
        (0.7555807846451692, 0.24441921535482677),
        (0.6981181143266059, 0.3453277086024727, -0.04344582292908241),
    ),
    (
        (),
        (0.6753186815412179,),
        (-0.07452812525785148, -0.49783736486149366),
        (-0.5591906709928903, 0.022696571806569924, -0.8984927888368557),
    ),
    (-0.15036858140642623, 0.7545275856696072, 0.686995463807979, -0.2911544680711602),
    (
        (-0.45315689727309133, 0.8330937231303951, 0.3792843195533544, 0.24077885458934192),
        (-0.4994383733810986, 0.9181786186154077, -0.25613778661003145, -0.16260245862427797),
        (1.4531568972730915, -0.8330937231303933, -0.3792843195533583, -0.24077885458934023),
        (-0.4976090683622265, 0.9148155835648892, -1.4102107084476505, 0.9930041932449877),
    ),
    equal=(2, 3),
)
