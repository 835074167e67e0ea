"""Equations written as text."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from math import isfinite
from numbers import Integral, Real
from typing import Any, TypeAlias, final

import sympy

from ..errors import InputError
from .canonical import canonical
from .components import Components
from .conversion import from_sympy, from_term
from .evaluation import Value, evaluate_all, names
from .expression import Call, Diff, Name, Node, Row, Vector, add, listed, nearest, scale, walk
from .forms import ComponentSystem, Form, Term
from .names import check_coordinates, check_declared, infer
from .parser import normalise, read_expression, read_rows
from .printing import row_latex, row_text
from .residuals import ResidualForm, residual_forms

FORMAT = "sciml.Equation"
VERSION = 1

Addend: TypeAlias = str | float | sympy.Expr | Term


@final
class Equation:
    """A partial differential equation, a system of them, or of ordinary differential equations; immutable.

    Grammar: `L = R` with + - * / ** and brackets; `u_xy` is a derivative if its suffix consists of coordinate letters
    and t, `u` is an unknown or a coefficient, and `u_xy` itself is not declared; diff(expr, x[, n]); vectors [p, q] or
    grad(u), taken by div and dot; laplacian; sin, cos, tan, exp, log, sqrt, tanh, abs; pi. Reserved are the
    coordinates, t, pi, these functions and the word `where`; any other name is free.

    Several equations are a list of texts, or one text with ';' between them; `where` before constraints does what
    `constraints` does. Everything is dimensionless, or in whatever units the user keeps to.

    Args:
        text: the equation, or a list of equations. Evolving ones hold one time derivative each: `u_t = R`, or
            `c*u_t = R` with a factor free of derivatives. `u_tt = R` has the unknowns u and u_t.
        unknowns: what is solved for, in the order of the channels. None: the names that carry _t, else the one name
            that stands directly under grad, laplacian or a derivative. Fields of the constraints may follow.
        coefficients: names of given fields. None: every name that is nothing else. If given, it is complete.
        parameters: numbers by name. Tensors are passed to the call that solves.
        constraints: equations without time derivatives of their own, each of which determines one more field, found
            by the same rule or as the name alone on the left side.
        coordinates: letters of the space coordinates; () for ordinary differential equations, where x, y and z are
            free names.

    Raises:
        InputError: with what is wrong, where in the text, and what would be right.
    """

    def __init__(
        self,
        text: str | Sequence[str],
        *,
        unknowns: Sequence[str] | None = None,
        coefficients: Sequence[str] | None = None,
        parameters: Mapping[str, float] | None = None,
        constraints: str | Sequence[str] = (),
        coordinates: Sequence[str] = ("x", "y", "z"),
    ) -> None:
        letters = check_coordinates(coordinates)
        self._parameters = _check_parameters(parameters or {}, letters)
        self._given_unknowns = None if unknowns is None else check_declared("unknowns", unknowns, letters)
        self._given_coefficients = (
            None if coefficients is None else check_declared("coefficients", coefficients, letters)
        )
        self._rows, self._constraints = read_rows(_check_texts("text", text), letters)
        if constraints:
            more, nested = read_rows(_check_texts("constraints", constraints), letters)
            if nested:
                raise InputError("'where' stands in the text of the equations, not in constraints")
            self._constraints += more
        self._names = infer(
            self._rows,
            self._constraints,
            self._given_unknowns,
            self._given_coefficients,
            tuple(self._parameters),
            letters,
        )
        self._systems: dict[int, ComponentSystem] = {}
        self._forms: dict[int, tuple[Form, ...]] = {}
        self._residuals: dict[int, tuple[sympy.Expr, ...]] = {}
        self.forms(self.dimension)

    # What it is

    @property
    def texts(self) -> tuple[str, ...]:
        """The equations as texts, without the constraints."""
        return tuple(row_text(row) for row in self._rows)

    @property
    def constraints(self) -> tuple[str, ...]:
        """The constraints as texts."""
        return tuple(row_text(row) for row in self._constraints)

    @cached_property
    def unknowns(self) -> tuple[str, ...]:
        """What is solved for, in the order of the channels; an equation of second order in time gives u and u_t."""
        orders = self._system(self.dimension).time_orders
        return tuple(
            name + ("_" + "t" * count if count else "")
            for name in self._names.unknowns
            for count in range(max(1, orders[name]))
        )

    @property
    def constrained(self) -> tuple[str, ...]:
        """The fields that the constraints determine."""
        return self._names.constrained

    @property
    def coefficients(self) -> tuple[str, ...]:
        """The fields that must be given with the problem, sorted."""
        return self._names.coefficients

    @property
    def parameters(self) -> dict[str, float]:
        """The parameters and their values."""
        return dict(self._parameters)

    @property
    def coordinates(self) -> tuple[str, ...]:
        """Letters of the space coordinates."""
        return self._names.coordinates

    @property
    def evolving(self) -> bool:
        """Whether it holds a time derivative of an unknown."""
        return self._system(self.dimension).evolving

    @property
    def time_order(self) -> int:
        """Highest order of a time derivative of an unknown, 0 if steady."""
        return max(self._system(self.dimension).time_orders.values())

    @cached_property
    def order(self) -> int:
        """Highest order of a space derivative of what is solved for."""
        return self._system(self.dimension).order

    @cached_property
    def linear(self) -> bool:
        """Whether it is linear in all fields that are solved for together."""
        return all(form.remainder == 0 for form in self.forms(self.dimension))

    @cached_property
    def dimension(self) -> int:
        """The least number of axes that the text needs; 0 if it has neither coordinates nor space derivatives."""
        needed = 0
        for row in (*self._rows, *self._constraints):
            for node in (*walk(row.left), *walk(row.right)):
                needed = max(needed, self._axes_of(node))
        return needed

    def _axes_of(self, node: Node) -> int:
        letters = ""
        match node:
            case Name(name):
                split = self._names.derivative(name)
                letters = split[1] if split else name if name in self.coordinates else ""
            case Diff(_, variable):
                letters = variable
            case Vector(components):
                return len(components)
            case Call("grad" | "div" | "laplacian"):
                return 1
        return max((self.coordinates.index(letter) + 1 for letter in letters if letter != "t"), default=0)

    # Component form

    def forms(self, dimension: int) -> tuple[Form, ...]:
        """The equations written out for a number of axes.

        Args:
            dimension: number of axes, at least `self.dimension`.

        Returns:
            One form per unknown in the order of `unknowns` (steady: per equation in the order of the text), then one
            per constraint. In their expressions fields are sympy functions of the coordinates and t, parameters and
            coordinates are symbols; `evaluation.evaluate` gives them values. Of an unknown of second order in time the
            rate is a function called `u_t`, and its derivatives are named `u_t_x`.

        Raises:
            InputError: if the equation cannot be written for that many axes.
        """
        dimension = self._check_dimension(dimension)
        if dimension not in self._forms:
            self._forms[dimension] = self._system(dimension).forms()
        return self._forms[dimension]

    def residual_forms(
        self, dimension: int, *, conservative: bool = True, varying: Iterable[str] = ("t",), divided: bool = True
    ) -> tuple[ResidualForm, ...]:
        """What the residual is made of, see `ResidualForm`: of an evolving equation one form for each of `unknowns`,
        that of minus its rate, of a steady one a form per equation; then one per constraint.

        Args:
            dimension: number of axes, at least `self.dimension`.
            conservative: keep divergences of nonlinear fluxes together; otherwise they are carried out.
            varying: names of what changes in time besides the unknowns, t and coefficient fields. What holds them is
                no term but stands in the fluxes and the rest.
            divided: divide by the factors before the rates; otherwise those that vary in space alone are left there.
        """
        system = self._system(self._check_dimension(dimension))
        return residual_forms(system, conservative, frozenset(varying), divided)

    def required(self, dimension: int) -> set[str]:
        """Names of all values that `residual` needs: fields, derivatives such as u_xx, coordinates and t if they stand
        in the equation, not the parameters.

        Args:
            dimension: number of axes.
        """
        found = set().union(*(names(expression) for expression in self._residual_expressions(dimension)))
        return found - set(self._parameters)

    def residual(self, values: Mapping[str, Value], dimension: int) -> Value | tuple[Value, ...]:
        """Left side minus right side at scattered points.

        Args:
            values: tensor or number of each name of `required(dimension)`, of shapes that broadcast, such as (points,)
                or (*batch, points); for `u_tt = R` the value of u_tt. Parameters may be overridden here.
            dimension: number of axes.

        Returns:
            A tensor of the broadcast shape, differentiable in all values; for several equations and constraints a tuple
            with one each, in the order of the text.

        Raises:
            InputError: if a value is missing.
        """
        found = evaluate_all(self._residual_expressions(dimension), {**self._parameters, **values})
        return found[0] if len(found) == 1 else found

    def _residual_expressions(self, dimension: int) -> tuple[sympy.Expr, ...]:
        dimension = self._check_dimension(dimension)
        if dimension not in self._residuals:
            components = Components(self._names, dimension)
            rows = (*self._rows, *self._constraints)
            self._residuals[dimension] = tuple(components.difference(row) for row in rows)
        return self._residuals[dimension]

    def _system(self, dimension: int) -> ComponentSystem:
        if dimension not in self._systems:
            self._systems[dimension] = ComponentSystem(self._names, self._rows, self._constraints, dimension)
        return self._systems[dimension]

    def _check_dimension(self, dimension: int) -> int:
        if not isinstance(dimension, Integral) or isinstance(dimension, bool):
            raise InputError(f"dimension is a number of axes, not {dimension!r}")
        if not self.dimension <= dimension <= len(self.coordinates):
            raise InputError(
                f"'{self}' can be written for {self.dimension} to {len(self.coordinates)} axes, not for {dimension}"
            )
        return int(dimension)

    # New equations from it

    def with_parameters(self, **values: float) -> Equation:
        """The same equation with other values of parameters; a coefficient named here becomes a parameter.

        Raises:
            InputError: for a name that is neither, with the nearest that is.
        """
        for name in values:
            known = {*self._parameters, *self.coefficients}
            if normalise(name) not in known:
                suggestion = nearest(name, known)
                hint = f"did you mean '{suggestion}'?" if suggestion else f"there are {sorted(known)}"
                raise InputError(f"'{name}' is no parameter of '{self}': {hint}")
        merged = {**self._parameters, **{normalise(name): value for name, value in values.items()}}
        new = self._rebuilt(self.texts, merged)
        gained = sorted(set(new.coefficients) - set(self.coefficients))
        if gained:
            raise InputError(f"'{self}' holds {listed(gained)}, a derivative of what would be a number")
        return new

    def __add__(self, term: Addend | Mapping[str, Addend]) -> Equation:
        """The equation with a term added to R, where it reads `u_t = R` (solved for the time derivative), or `L = R`.

        Args:
            term: a text, number, sympy expression or `Term`; for a system a dict of these by unknown.

        Raises:
            InputError: for a term that does not fit the equation.
        """
        if not isinstance(term, str | Real | sympy.Expr | Term | Mapping):
            return NotImplemented
        by_unknown = term if isinstance(term, Mapping) else {self._names.unknowns[0]: term}
        if len(self._rows) > 1 and not isinstance(term, Mapping):
            raise InputError(
                f"this is a system of {len(self._rows)} equations: add a dict by unknown, "
                f"such as {{'{self._names.unknowns[0]}': ...}}"
            )
        rows = list(self._rows)
        for unknown, addend in by_unknown.items():
            place, factor = self._row_of(unknown)
            node = scale(from_sympy(factor), self._read_addend(addend))
            rows[place] = Row(rows[place].text, rows[place].left, add(rows[place].right, node))
        return self._rebuilt([row_text(row) for row in rows], self._parameters)

    def _row_of(self, unknown: str) -> tuple[int, sympy.Expr]:
        """The equation of an unknown, and the factor of the time derivative in it."""
        if unknown not in self._names.unknowns:
            raise InputError(f"'{unknown}' is no unknown here: there are {listed(self._names.unknowns)}")
        system = self._system(self.dimension)
        if not system.evolving:
            return self._names.unknowns.index(unknown), sympy.Integer(1)
        row = system.rows[self._names.unknowns.index(unknown)]
        return next(place for place, other in enumerate(self._rows) if other is row.source), row.factor

    def _read_addend(self, term: Any) -> Node:
        rates = set(self.unknowns) - set(self._names.unknowns)
        if isinstance(term, str):
            return read_expression(term, self.coordinates)
        if isinstance(term, Term):
            return from_term(term, self.coordinates, rates)
        if isinstance(term, sympy.Expr):
            return from_sympy(term, rates)
        if isinstance(term, Real) and not isinstance(term, bool):
            return from_sympy(sympy.Float(float(term)))
        raise InputError(f"a term is a text, number, sympy expression or Term, not {type(term).__name__}")

    def _rebuilt(self, texts: Sequence[str], parameters: Mapping[str, float]) -> Equation:
        given = self._given_coefficients
        new = Equation(
            texts,
            unknowns=self._names.solved,
            coefficients=None if given is None else [name for name in given if name not in parameters],
            parameters=parameters,
            constraints=self.constraints,
            coordinates=self.coordinates,
        )
        lost = set(self.coefficients) - set(new.coefficients) - set(parameters)
        if lost:
            raise InputError(
                f"{listed(sorted(lost))} would no longer be a coefficient in '{new}' but a derivative: rename what was "
                "added, or declare coefficients="
            )
        return new

    # Text, comparison, storage

    def __str__(self) -> str:
        equations = "; ".join(self.texts)
        return equations + (f" where {'; '.join(self.constraints)}" if self._constraints else "")

    def __repr__(self) -> str:
        arguments = [repr(self.texts[0] if len(self.texts) == 1 else list(self.texts))]
        if self._given_unknowns is not None:
            arguments.append(f"unknowns={self._given_unknowns!r}")
        if self._given_coefficients is not None:
            arguments.append(f"coefficients={self._given_coefficients!r}")
        if self._parameters:
            arguments.append(f"parameters={self._parameters!r}")
        if self._constraints:
            arguments.append(f"constraints={list(self.constraints)!r}")
        if self.coordinates != ("x", "y", "z"):
            arguments.append(f"coordinates={self.coordinates!r}")
        return f"Equation({', '.join(arguments)})"

    def latex_lines(self) -> tuple[str, ...]:
        """Each equation and constraint in LaTeX, without dollar signs; matplotlib's mathtext reads them too."""
        return tuple(row_latex(row, self._names) for row in (*self._rows, *self._constraints))

    def latex(self) -> str:
        """The equation in LaTeX, without dollar signs; several are aligned at the equals sign."""
        lines = self.latex_lines()
        if len(lines) == 1:
            return lines[0]
        body = " \\\\\n".join(line.replace(" = ", " &= ", 1) for line in lines)
        return f"\\begin{{aligned}}\n{body}\n\\end{{aligned}}"

    def _repr_latex_(self) -> str:
        return f"$\\displaystyle {self.latex()}$"

    @cached_property
    def _key(self) -> tuple[Any, ...]:
        system = ComponentSystem(
            self._names, self._rows, self._constraints, len(self.coordinates), flux=False, pad=True
        )
        parameters = frozenset(self._parameters.items())
        return (self.unknowns, frozenset(self.constrained), self.coordinates, parameters, canonical(system))

    def __eq__(self, other: object) -> bool:
        """Whether both say the same, with the same unknowns in the same order: multiplied out in component form, moved
        between the sides, and for a steady equation up to a constant factor. Identities between functions, such as
        sin**2 + cos**2 = 1, are not used.

        Raises:
            InputError: if an equation has too many terms to be multiplied out.
        """
        if not isinstance(other, Equation):
            return NotImplemented
        return self is other or bool(self._key == other._key)

    def __hash__(self) -> int:
        return hash(self._key)

    def to_json(self) -> str:
        """Everything that makes the equation, as JSON."""
        return json.dumps(
            {
                "format": FORMAT,
                "version": VERSION,
                "equations": list(self.texts),
                "constraints": list(self.constraints),
                "unknowns": list(self._names.solved),
                "coefficients": None if self._given_coefficients is None else list(self._given_coefficients),
                "parameters": self._parameters,
                "coordinates": list(self.coordinates),
            }
        )

    @classmethod
    def from_json(cls, text: str) -> Equation:
        """The equation that `to_json` wrote.

        Raises:
            InputError: for a text that is not such an equation, or was written by a newer version.
        """
        content = _read_json(text)
        return cls(
            content["equations"],
            unknowns=content["unknowns"],
            coefficients=content["coefficients"],
            parameters=content["parameters"],
            constraints=content["constraints"],
            coordinates=content["coordinates"],
        )

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return Equation.from_json, (self.to_json(),)


def _check_texts(kind: str, texts: object) -> list[str]:
    if isinstance(texts, str):
        return [texts]
    if not isinstance(texts, Iterable):
        raise InputError(f"{kind} is a text such as 'u_t = u_xx' or a list of such texts, not {type(texts).__name__}")
    found = list(texts)
    for item in found:
        if not isinstance(item, str):
            raise InputError(f"{kind}: every equation is a text, not {type(item).__name__}")
    return found


def _check_parameters(parameters: object, coordinates: Sequence[str]) -> dict[str, float]:
    if not isinstance(parameters, Mapping):
        raise InputError(f"parameters is a dict of numbers by name, not {type(parameters).__name__}")
    checked = check_declared("parameters", parameters, coordinates)
    found = {}
    for name, value in zip(checked, parameters.values(), strict=True):
        if isinstance(value, bool) or not isinstance(value, Real):
            raise InputError(
                f"parameter '{name}' of an equation is a number, not {type(value).__name__}; "
                "tensors are passed to the call that solves it"
            )
        if not isfinite(value):
            raise InputError(f"parameter '{name}' is {value}; it must be finite")
        found[name] = float(value)
    return found


def _read_json(text: object) -> dict[str, Any]:
    if not isinstance(text, str | bytes):
        raise InputError(f"an equation in JSON is a text, not {type(text).__name__}")
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"this is no JSON: {error}") from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise InputError(f"this JSON holds no equation: its 'format' would be '{FORMAT}'")
    version = content.get("version")
    if type(version) is not int or version < 1:
        raise InputError(f"the version of an equation in JSON is a whole number, not {version!r}")
    if version > VERSION:
        raise InputError(f"this equation was written in version {version} of its format; this program reads {VERSION}")
    keys = {"format", "version", "equations", "constraints", "unknowns", "coefficients", "parameters", "coordinates"}
    if content.keys() != keys:
        wrong = [f"{name} is missing" for name in sorted(keys - content.keys())]
        wrong += [f"{name} is unknown" for name in sorted(content.keys() - keys)]
        raise InputError(f"an equation in JSON has other keys: {', '.join(wrong)}")
    for key in ("equations", "constraints", "unknowns", "coordinates"):
        if not isinstance(content[key], list) or not all(isinstance(item, str) for item in content[key]):
            raise InputError(f"'{key}' of an equation in JSON is a list of texts")
    if not isinstance(content["parameters"], dict):
        raise InputError("'parameters' of an equation in JSON is a dict of numbers")
    return content
