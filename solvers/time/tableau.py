"""Tableaus of explicit Runge-Kutta methods: what the one loop of `explicit` needs to know of each."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property

Row = tuple[float, ...]


@dataclass(frozen=True)
class Tableau:
    """An explicit Runge-Kutta method: k_i = f(t + c_i h, y + h sum_j a_ij k_j), y(t + h) = y + h sum_i b_i k_i.

    All numbers are dimensionless.

    Attributes:
        name: as the literature calls it.
        order: of the local extrapolated solution.
        a: row i has its i entries below the diagonal; c_i is its sum.
        b: weights.
        error: b minus the weights of the embedded solution; None for methods of fixed step.
        embedded: order of the embedded solution.
        dense: for each stage the coefficients of theta, theta^2, ... in y(t + theta h) = y + h sum_i b_i(theta) k_i;
            None leaves interpolation to the cubic through both ends and their slopes.
        equal: two stages with the same c, from which stiffness is estimated; the larger is the last.
    """

    name: str
    order: int
    a: tuple[Row, ...]
    b: Row
    error: Row | None = None
    embedded: int = 0
    dense: tuple[Row, ...] | None = None
    equal: tuple[int, int] | None = None

    @property
    def stages(self) -> int:
        """Number of stages s."""
        return len(self.b)

    @cached_property
    def c(self) -> Row:
        """`(s,)`, the times of the stages within a step."""
        return tuple(sum(row) for row in self.a)

    @cached_property
    def first_same_as_last(self) -> bool:
        """Whether the last stage is the slope at the end of the step, and so the first of the next."""
        return self.b[-1] == 0.0 and self.a[-1] == self.b[:-1]


def _rows(text: str) -> tuple[Row, ...]:
    """Rows of decimals and fractions, one a line."""
    return tuple(tuple(float(Fraction(entry)) for entry in line.split()) for line in text.strip().split("\n"))


def _stages(text: str) -> tuple[Row, ...]:
    """Rows below the diagonal; the first stage has none."""
    return ((), *_rows(text))


def _pair(text: str) -> tuple[Row, Row]:
    """Weights, and their difference from the embedded ones in the second line."""
    b, embedded = _rows(text)
    return b, tuple(x - y for x, y in zip(b, embedded, strict=True))


EULER = Tableau("Euler", 1, ((),), (1.0,))

_HEUN, _HEUN_ERROR = _pair("""
    1/2 1/2
    1 0
""")
HEUN = Tableau("Heun", 2, _stages("1"), _HEUN, _HEUN_ERROR, embedded=1)

RK4 = Tableau(
    "classical Runge-Kutta",
    4,
    _stages("""
        1/2
        0 1/2
        0 0 1
    """),
    (1 / 6, 1 / 3, 1 / 3, 1 / 6),
    equal=(1, 2),
)

_BOSH, _BOSH_ERROR = _pair("""
    2/9 1/3 4/9 0
    7/24 1/4 1/3 1/8
""")
# Bogacki and Shampine, Appl. Math. Lett. 2 (1989) 321-325.
BOGACKI_SHAMPINE = Tableau(
    "Bogacki-Shampine 3(2)",
    3,
    _stages("""
        1/2
        0 3/4
        2/9 1/3 4/9
    """),
    _BOSH,
    _BOSH_ERROR,
    embedded=2,
)

_DOPRI, _DOPRI_ERROR = _pair("""
    35/384 0 500/1113 125/192 -2187/6784 11/84 0
    5179/57600 0 7571/16695 393/640 -92097/339200 187/2100 1/40
""")
# Dormand and Prince, J. Comput. Appl. Math. 6 (1980) 19-26; dense output of order 4: Shampine, Math. Comp. 46 (1986)
# 135-150.
DORMAND_PRINCE = Tableau(
    "Dormand-Prince 5(4)",
    5,
    _stages("""
        1/5
        3/40 9/40
        44/45 -56/15 32/9
        19372/6561 -25360/2187 64448/6561 -212/729
        9017/3168 -355/33 46732/5247 49/176 -5103/18656
        35/384 0 500/1113 125/192 -2187/6784 11/84
    """),
    _DOPRI,
    _DOPRI_ERROR,
    embedded=4,
    dense=_rows("""
        1 -8048581381/2820520608 8663915743/2820520608 -12715105075/11282082432
        0 0 0 0
        0 131558114200/32700410799 -68118460800/10900136933 87487479700/32700410799
        0 -1754552775/470086768 14199869525/1410260304 -10690763975/1880347072
        0 127303824393/49829197408 -318862633887/49829197408 701980252875/199316789632
        0 -282668133/205662961 2019193451/616988883 -1453857185/822651844
        0 40617522/29380423 -110615467/29380423 69997945/29380423
    """),
    equal=(5, 6),
)

# Tsitouras, Comput. Math. Appl. 62 (2011) 770-775, with dense output of order 4.
TSITOURAS = Tableau(
    "Tsitouras 5(4)",
    5,
    _stages("""
        0.161
        -0.008480655492356989 0.335480655492357
        2.8971530571054935 -6.359448489975075 4.3622954328695815
        5.325864828439257 -11.748883564062828 7.4955393428898365 -0.09249506636175525
        5.86145544294642 -12.92096931784711 8.159367898576159 -0.071584973281401 -0.02826905039406838
        0.09646076681806523 0.01 0.4798896504144996 1.379008574103742 -3.290069515436081 2.324710524099774
    """),
    (0.09646076681806523, 0.01, 0.4798896504144996, 1.379008574103742, -3.290069515436081, 2.324710524099774, 0.0),
    (
        0.00178001105222577714,
        0.0008164344596567469,
        -0.007880878010261995,
        0.1447110071732629,
        -0.5823571654525552,
        0.45808210592918697,
        -1 / 66,
    ),
    embedded=4,
    dense=_rows("""
        1 -2.7637061972748258 2.9132554618219126 -1.0530884977290216
        0 0.1317 -0.2234 0.1017
        0 3.9302962368947516 -5.9410338721315048 2.4906272856512528
        0 -12.411077166933676 30.338188630282321 -16.548102889244902
        0 37.509313416511041 -88.178904894766404 47.379521962819283
        0 -27.896526289197286 65.091894674793664 -34.870657861496611
        0 1.5 -4 2.5
    """),
    equal=(5, 6),
)

_PRINCE, _PRINCE_ERROR = _pair("""
    14005451/335480064 0 0 0 0 -59238493/1068277825 181606767/758867731 561292985/797845732 -1041891430/1371343529 \
760417239/1151165299 118820643/751138087 -528747749/2220607170 1/4
    13451932/455176623 0 0 0 0 -808719846/976000145 1757004468/5645159321 656045339/265891186 -3867574721/1518517206 \
465885868/322736535 53011238/667516719 2/45 0
""")
# RK8(7)13M, Prince and Dormand, J. Comput. Appl. Math. 7 (1981) 67-75: fractions of ten digits, true to 1e-17 or so.
PRINCE_DORMAND = Tableau(
    "Prince-Dormand 8(7)",
    8,
    _stages("""
        1/18
        1/48 1/16
        1/32 0 3/32
        5/16 0 -75/64 75/64
        3/80 0 0 3/16 3/20
        29443841/614563906 0 0 77736538/692538347 -28693883/1125000000 23124283/1800000000
        16016141/946692911 0 0 61564180/158732637 22789713/633445777 545815736/2771057229 -180193667/1043307555
        39632708/573591083 0 0 -433636366/683701615 -421739975/2616292301 100302831/723423059 790204164/839813087 \
800635310/3783071287
        246121993/1340847787 0 0 -37695042795/15268766246 -309121744/1061227803 -12992083/490766935 \
6005943493/2108947869 393006217/1396673457 123872331/1001029789
        -1028468189/846180014 0 0 8478235783/508512852 1311729495/1432422823 -10304129995/1701304382 \
-48777925059/3047939560 15336726248/1032824649 -45442868181/3398467696 3065993473/597172653
        185892177/718116043 0 0 -3185094517/667107341 -477755414/1098053517 -703635378/230739211 \
5731566787/1027545527 5232866602/850066563 -4093664535/808688257 3962137247/1805957418 65686358/487910083
        403863854/491063109 0 0 -5068492393/434740067 -411421997/543043805 652783627/914296604 \
11173962825/925320556 -13158990841/6184727034 3936647629/1978049680 -160528059/685178525 248638103/1413531060 0
    """),
    _PRINCE,
    _PRINCE_ERROR,
    embedded=7,
    equal=(11, 12),
)
