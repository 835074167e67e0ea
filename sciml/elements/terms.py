"""The terms of an equation, sorted by how they enter the weak form."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..errors import InputError
from ..mesh import Mesh

if TYPE_CHECKING:
    import sympy

    from ..equations import Equation
    from ..equations.forms import Term


@dataclass
class Terms:
    """What one row holds of one unknown u, everything on the left side; axes are numbered from 0.

    Attributes:
        diffusion: outer -> (k, l) -> inner, the terms outer d/dx_k(inner du/dx_l).
        carried: outer -> k -> inner, the terms outer d/dx_k(inner u).
        advection: k -> coefficient, the terms coefficient du/dx_k.
        reaction: the coefficients of u.
    """

    diffusion: dict[sympy.Expr, dict[tuple[int, int], sympy.Expr]] = field(default_factory=lambda: defaultdict(dict))
    carried: dict[sympy.Expr, dict[int, sympy.Expr]] = field(default_factory=lambda: defaultdict(dict))
    advection: dict[int, sympy.Expr] = field(default_factory=dict)
    reaction: sympy.Expr | None = None

    @property
    def is_empty(self) -> bool:
        """Whether there are none."""
        return not (self.diffusion or self.carried or self.advection or self.reaction is not None)

    @property
    def is_symmetric(self) -> bool:
        """Whether the weak form is, as far as the expressions tell."""
        tensors = self.diffusion.values()
        return not self.advection and not self.carried and all(t[k, j] == t.get((j, k)) for t in tensors for k, j in t)


@dataclass(frozen=True)
class Row:
    """One equation.

    Attributes:
        terms: unknown -> its terms.
        sources: the expressions on the right side, to be added up.
        outers: the factors before divergences of nonlinear fluxes, which conditions on the flux speak of too.
    """

    terms: dict[str, Terms]
    sources: tuple[sympy.Expr, ...]
    outers: tuple[sympy.Expr, ...] = ()


def read_rows(equation: Equation, mesh: Mesh) -> tuple[Row, ...]:
    """The equations in order.

    Raises:
        InputError: for a nonlinear or evolving equation, more axes than the mesh has, derivatives of the third order or
            above, second derivatives of another unknown than the row's own, or a row without its own unknown.
    """
    refuse_evolving(equation)
    refuse_more_axes(equation, mesh)
    if not equation.linear:
        raise InputError(
            "the equation is not linear in its unknowns, and has no operator and right side: take "
            "discretize_nonlinear, or sciml.solve"
        )
    unknowns = (*equation.unknowns, *equation.constrained)
    rows = []
    for own, form in zip(unknowns, equation.forms(mesh.dimension), strict=True):
        terms, sources = sort_terms(form.terms)
        rows.append(Row(dict(terms), sources))
        check_row(rows[-1], (own,), unknowns)
    return tuple(rows)


def refuse_evolving(equation: Equation) -> None:
    """Raise InputError for an equation with time derivatives."""
    if equation.evolving:
        raise InputError("the equation has time derivatives: take sciml.evolve, or sciml.discretize for its rate")


def refuse_more_axes(equation: Equation, mesh: Mesh) -> None:
    """Raise InputError for an equation with more axes than the mesh."""
    if equation.dimension > mesh.dimension:
        raise InputError(
            f"the equation needs {equation.dimension} axes, the mesh has {mesh.dimension} ({', '.join(mesh.axes)})"
        )


def check_row(row: Row, family: tuple[str, ...], unknowns: tuple[str, ...], *, with_rate: bool = False) -> None:
    """Raise InputError unless the row holds its own unknown, the first of a family, or its rate, and second derivatives
    of no other than the family."""
    own = family[0]
    if own not in row.terms and not with_rate:
        raise InputError(
            f"the equation paired with {own} does not hold it (equations and unknowns go together in order: "
            f"{', '.join(unknowns)}); reorder the equations"
        )
    for other, terms in row.terms.items():
        if other not in family and terms.diffusion:
            raise InputError(
                f"the equation of {own} holds second derivatives of {other}: on meshes this version has no "
                "boundary conditions for that; reorder the equations, or write it as a system without them"
            )


def sort_terms(given: Iterable[Term]) -> tuple[defaultdict[str, Terms], tuple[sympy.Expr, ...]]:
    """Linear terms by unknown, and the sources on the right side.

    Raises:
        InputError: for derivatives of the third order or above.
    """
    found: defaultdict[str, Terms] = defaultdict(Terms)
    sources = []
    for term in given:
        if term.unknown is None:
            sources.append(-term.coefficient)
            continue
        terms, axes = found[term.unknown], [k for k, order in enumerate(term.derivative) for _ in range(order)]
        outer, inner = term.coefficient, term.flux_coefficient
        if len(axes) + (term.flux_axis is not None) > 2:
            raise InputError(
                f"derivatives of order {len(axes) + (term.flux_axis is not None)} are not square integrable for P1 "
                "elements: write the equation as a system of second-order equations, -laplacian(u) = w, ..."
            )
        if term.flux_axis is not None and inner is not None:
            if axes:
                _add(terms.diffusion[outer], (term.flux_axis, axes[0]), inner)
            else:
                _add(terms.carried[outer], term.flux_axis, inner)
        elif len(axes) == 2:
            # Half from each order of the two derivatives, so that the weak form of u_xy is symmetric.
            one = outer**0
            _add(terms.diffusion[outer], (axes[0], axes[1]), one / 2)
            _add(terms.diffusion[outer], (axes[1], axes[0]), one / 2)
        elif axes:
            _add(terms.advection, axes[0], outer)
        else:
            terms.reaction = outer if terms.reaction is None else terms.reaction + outer
    return found, tuple(sources)


def _add(sums: dict[Any, sympy.Expr], key: Any, value: sympy.Expr) -> None:
    sums[key] = sums[key] + value if key in sums else value
