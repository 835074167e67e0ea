"""Tableaus of implicit Runge-Kutta methods, and of pairs of an explicit and an implicit one."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property

Row = tuple[float, ...]


@dataclass(frozen=True)
class ImplicitTableau:
    """A singly diagonally implicit, stiffly accurate Runge-Kutta method for M dy/dt = G(y, t):

        M (Y_i - y) = h sum_(j <= i) a_ij G(Y_j, t + c_i h), y(t + h) = Y_s.

    All numbers are dimensionless.

    Attributes:
        name: as the literature calls it.
        order: of the last stage.
        a: row i has i + 1 entries, the last of which is on the diagonal: the same in every row, but perhaps 0 in the
            first; c_i is the row's sum.
        embedded: order of the last stage but one, if it is the embedded solution; 0 for methods of fixed step.
        dense: for each stage the coefficients of theta, theta^2, ... in y(t + theta h) = y + h sum_i b_i(theta) k_i;
            None leaves interpolation to the cubic through both ends and their slopes.
    """

    name: str
    order: int
    a: tuple[Row, ...]
    embedded: int = 0
    dense: tuple[Row, ...] | None = None

    @property
    def stages(self) -> int:
        """Number of stages s."""
        return len(self.a)

    @property
    def diagonal(self) -> float:
        """The entry on the diagonal."""
        return self.a[-1][-1]

    @property
    def explicit_first(self) -> bool:
        """Whether the first stage is the state itself."""
        return self.a[0] == (0.0,)

    @cached_property
    def c(self) -> Row:
        """`(s,)`, the times of the stages within a step."""
        return tuple(sum(row) for row in self.a)


@dataclass(frozen=True)
class AdditiveTableau:
    """A pair of Runge-Kutta methods for M dy/dt = L y + N(y, t), the first implicit and the second explicit:

        M (Y_i - y) = h sum_(j <= i) a_ij L Y_j + h sum_(j < i) e_ij N(Y_j, t + c_i h),
        M (y(t + h) - y) = h sum_i b_i (L Y_i + N(Y_i, t + c_i h)).

    All numbers are dimensionless.

    Attributes:
        name: as the literature calls it.
        order: of the solution that is carried on.
        embedded: of the embedded solution.
        implicit: a; row i has i + 1 entries, the last on the diagonal, 0 in the first row. The last row is b.
        explicit: e; row i has i entries.
        error: b minus the weights of the embedded solution.
    """

    name: str
    order: int
    embedded: int
    implicit: tuple[Row, ...]
    explicit: tuple[Row, ...]
    error: Row

    @property
    def stages(self) -> int:
        """Number of stages s."""
        return len(self.implicit)

    @property
    def diagonal(self) -> float:
        """The entry on the diagonal of the implicit method."""
        return self.implicit[-1][-1]

    @property
    def b(self) -> Row:
        """`(s,)`, the weights of both methods."""
        return self.implicit[-1]

    @cached_property
    def c(self) -> Row:
        """`(s,)`, the times of the stages within a step."""
        return tuple(sum(row) for row in self.explicit)


def _rows(text: str) -> tuple[Row, ...]:
    """Rows of decimals and fractions, one a line."""
    return tuple(tuple(float(Fraction(entry)) for entry in line.split()) for line in text.strip().split("\n"))


BACKWARD_EULER = ImplicitTableau("backward Euler", 1, ((1.0,),))
CRANK_NICOLSON = ImplicitTableau("Crank-Nicolson", 2, ((0.0,), (0.5, 0.5)))

# Alexander, SIAM J. Numer. Anal. 14 (1977) 1006-1021, theorem 5.
_G2 = 1 - 0.5**0.5
ALEXANDER = ImplicitTableau("Alexander's SDIRK2", 2, ((_G2,), (1 - _G2, _G2)))


# Kværnø, BIT Numer. Math. 44 (2004) 489-502. In both, gamma is the root that makes the last stage L-stable.
def _kvaerno3() -> ImplicitTableau:
    g = 0.435866521508458999416  # 6 g^3 - 18 g^2 + 9 g - 1 = 0
    third = ((-4 * g**2 + 6 * g - 1) / (4 * g), (1 - 2 * g) / (4 * g), g)
    last = ((6 * g - 1) / (12 * g), -1 / (12 * g * (2 * g - 1)), (-6 * g**2 + 6 * g - 1) / (3 * (2 * g - 1)), g)
    return ImplicitTableau("Kvaerno 3(2)", 3, ((0.0,), (g, g), third, last), embedded=2)


def _kvaerno4() -> ImplicitTableau:
    g = 0.572816062482134855408  # 24 g^4 - 96 g^3 + 72 g^2 - 16 g + 1 = 0
    p = 12 * g**2 - 6 * g + 1
    q = 12 * g**2 - 9 * g + 2
    r = 3 * g - 1
    third = (
        g * (144 * g**4 - 180 * g**3 + 81 * g**2 - 15 * g + 1) / p**2,
        g * (-36 * g**3 + 39 * g**2 - 15 * g + 2) / p**2,
        g,
    )
    fourth = (
        (-144 * g**5 + 396 * g**4 - 330 * g**3 + 117 * g**2 - 18 * g + 1) / (12 * g**2 * q),
        (72 * g**4 - 126 * g**3 + 69 * g**2 - 15 * g + 1) / (12 * g**2 * r),
        (-6 * g**2 + 6 * g - 1) * p**2 / (12 * g**2 * q * r),
        g,
    )
    last = (
        (288 * g**4 - 312 * g**3 + 120 * g**2 - 18 * g + 1) / (48 * g**2 * q),
        (24 * g**2 - 12 * g + 1) / (48 * g**2 * r),
        -(p**3) / (48 * g**2 * r * q * (6 * g**2 - 6 * g + 1)),
        (-24 * g**3 + 36 * g**2 - 12 * g + 1) / (4 * (6 * g**2 - 6 * g + 1)),
        g,
    )
    return ImplicitTableau("Kvaerno 4(3)", 4, ((0.0,), (g, g), third, fourth, last), embedded=3)


KVAERNO3 = _kvaerno3()
KVAERNO4 = _kvaerno4()

# The dense output, of order 4, is the one of least norm that meets the order conditions at every theta and joins the
# next step with a continuous derivative.
KVAERNO5 = ImplicitTableau(
    "Kvaerno 5(4)",
    5,
    _rows("""
        0
        0.26 0.26
        0.13 0.84033320996790809 0.26
        0.22371961478320505 0.47675532319799699 -0.06470895363112615 0.26
        0.16648564323248321 0.1045001884159172 0.03631482272098715 -0.13090704451073998 0.26
        0.13855640231268224 0 -0.04245337201752043 0.02446657898003141 0.61943039072480676 0.26
        0.13659751177640291 0 -0.05496908796538376 -0.04118626728321046 0.62993304899016403 0.06962479448202728 0.26
    """),
    embedded=4,
    dense=_rows("""
        1 -2.0720375887956863 1.6904652246969822 -0.48183012412489390
        0 0 0 0
        0 0.84272431906165120 -1.9053249899848461 1.0076315829578069
        0 -0.66658571364223806 1.1684263581516345 -0.54302691179260720
        0 3.2569288143993478 -3.9941254328380507 1.3671296674288627
        0 -0.60502552056969428 1.4885502190674975 -0.81389990401577661
        0 -0.75600431045339611 1.5520086209067943 -0.53600431045339714
    """),
)


def _difference(text: str) -> Row:
    """The first row minus the second."""
    b, embedded = _rows(text)
    return tuple(x - y for x, y in zip(b, embedded, strict=True))


# Kennedy and Carpenter, Appl. Numer. Math. 44 (2003) 139-181: fractions of thirteen digits, true to 1e-24 or so.
KENNEDY_CARPENTER_3 = AdditiveTableau(
    "ARK3(2)4L[2]SA",
    3,
    2,
    _rows("""
        0
        1767732205903/4055673282236 1767732205903/4055673282236
        2746238789719/10658868560708 -640167445237/6845629431997 1767732205903/4055673282236
        1471266399579/7840856788654 -4482444167858/7529755066697 11266239266428/11593286722821 \
1767732205903/4055673282236
    """),
    (
        (),
        *_rows("""
            1767732205903/2027836641118
            5535828885825/10492691773637 788022342437/10882634858940
            6485989280629/16251701735622 -4246266847089/9704473918619 10755448449292/10357097424841
        """),
    ),
    _difference("""
        1471266399579/7840856788654 -4482444167858/7529755066697 11266239266428/11593286722821 \
1767732205903/4055673282236
        2756255671327/12835298489170 -10771552573575/22201958757719 9247589265047/10645013368117 \
2193209047091/5459859503100
    """),
)

KENNEDY_CARPENTER_4 = AdditiveTableau(
    "ARK4(3)6L[2]SA",
    4,
    3,
    _rows("""
        0
        1/4 1/4
        8611/62500 -1743/31250 1/4
        5012029/34652500 -654441/2922500 174375/388108 1/4
        15267082809/155376265600 -71443401/120774400 730878875/902184768 2285395/8070912 1/4
        82889/524892 0 15625/83664 69875/102672 -2260/8211 1/4
    """),
    (
        (),
        *_rows("""
            1/2
            13861/62500 6889/62500
            -116923316275/2393684061468 -2731218467317/15368042101831 9408046702089/11113171139209
            -451086348788/2902428689909 -2682348792572/7519795681897 12662868775082/11960479115383 \
3355817975965/11060851509271
            647845179188/3216320057751 73281519250/8382639484533 552539513391/3454668386233 \
3354512671639/8306763924573 4040/17871
        """),
    ),
    _difference("""
        82889/524892 0 15625/83664 69875/102672 -2260/8211 1/4
        4586570599/29645900160 0 178811875/945068544 814220225/1159782912 -3700637/11593932 61727/225920
    """),
)
