"""Finds out what every name of an equation stands for: unknown, coefficient field, parameter, or derivative."""

from __future__ import annotations

import keyword
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from ..errors import InputError
from .expression import RESERVED, Call, Diff, Name, Node, Row, listed, nearest, refuse, walk
from .parser import normalise


@dataclass(frozen=True)
class Names:
    """What the names of an equation stand for.

    Args:
        unknowns: the fields that the equations determine, those of higher order in time not yet split.
        constrained: the fields that the constraints determine.
        coefficients: the fields that are given with the problem, sorted.
        parameters: the names of numbers.
        coordinates: the letters of the space coordinates.
    """

    unknowns: tuple[str, ...]
    constrained: tuple[str, ...]
    coefficients: tuple[str, ...]
    parameters: tuple[str, ...]
    coordinates: tuple[str, ...]

    @property
    def solved(self) -> tuple[str, ...]:
        """Unknowns and the fields of the constraints."""
        return self.unknowns + self.constrained

    def is_field(self, name: str) -> bool:
        return name in self.unknowns or name in self.constrained or name in self.coefficients

    def derivative(self, name: str) -> tuple[str, str] | None:
        """`u_xy` -> ("u", "xy"); None for a name that stands for itself."""
        if self.is_field(name) or name in self.parameters:
            return None
        return _suffix(name, self.coordinates)


def check_coordinates(coordinates: object) -> tuple[str, ...]:
    """The letters of the coordinates, at most three.

    Raises:
        InputError: if they are not distinct single letters other than t.
    """
    if isinstance(coordinates, str) or not isinstance(coordinates, Sequence):
        raise InputError(f"coordinates is a tuple of letters such as ('x', 'y'), not {coordinates!r}")
    for letter in coordinates:
        if not isinstance(letter, str) or len(letter) != 1 or not (letter.isascii() and letter.isalpha()):
            raise InputError(f"a coordinate is a single letter, not {letter!r}")
        if letter == "t":
            raise InputError("t is the time and cannot be a space coordinate")
    if len(coordinates) > 3 or len(set(coordinates)) < len(coordinates):
        raise InputError(f"there are at most three different coordinates, not {tuple(coordinates)}")
    return tuple(coordinates)


def check_declared(kind: str, names: object, coordinates: Sequence[str]) -> tuple[str, ...]:
    """Names given by the caller, normalised.

    Raises:
        InputError: for what is no name, a reserved name or a name given twice.
    """
    if isinstance(names, str) or not isinstance(names, Iterable):
        raise InputError(f"{kind} is a sequence of names such as ('u', 'v'), not {names!r}")
    found = []
    for name in names:
        if not isinstance(name, str) or not name.isidentifier() or name.startswith("_"):
            raise InputError(f"{kind}: {name!r} is not a name that can stand in an equation")
        if keyword.iskeyword(name):
            raise InputError(f"{kind}: '{name}' is a word of Python and cannot stand in the text: write '{name}_'")
        if name in RESERVED or name in coordinates:
            raise InputError(f"{kind}: '{name}' is reserved ({', '.join(sorted({*RESERVED, *coordinates}))})")
        if normalise(name) in found:
            raise InputError(f"{kind}: '{name}' is given twice")
        found.append(normalise(name))
    return tuple(found)


def infer(
    rows: Sequence[Row],
    constraints: Sequence[Row],
    unknowns: tuple[str, ...] | None,
    coefficients: tuple[str, ...] | None,
    parameters: tuple[str, ...],
    coordinates: tuple[str, ...],
) -> Names:
    """What every name stands for, by the rules of `Equation`.

    Raises:
        InputError: if that is not clear, or if a declared name is not in the text.
    """
    _check_disjoint({"unknowns": unknowns or (), "coefficients": coefficients or (), "parameters": parameters})
    used = _used_names([*rows, *constraints], {*RESERVED, *coordinates})
    declared = {*(unknowns or ()), *(coefficients or ()), *parameters}
    finder = _Finder(declared, coordinates)
    constrained: tuple[str, ...] | None = None
    if unknowns is None:
        main = finder.unknowns(rows)
    else:
        main, constrained = _given_unknowns(unknowns, rows, constraints, used, coordinates)
    if constrained is None:
        constrained = finder.constrained(constraints, main)
    names = Names(main, constrained, (), parameters, coordinates)
    bases = {split[0] for name in used if (split := _suffix(name, coordinates))}
    _check_used("unknowns", names.solved, {*used, *bases}, set(used) - declared, used)
    found = _coefficients(names, used, coefficients)
    _check_used("coefficients", coefficients or (), {*used, *bases}, set(found) - declared, used)
    _check_used("parameters", parameters, set(used), set(found) - declared, used)
    return Names(main, constrained, tuple(sorted(found)), parameters, coordinates)


_Used = dict[str, tuple[Name, Row]]  # every name of a text with the first place where it stands


def _used_names(rows: Sequence[Row], reserved: set[str]) -> _Used:
    used: _Used = {}
    for row in rows:
        for node in (*walk(row.left), *walk(row.right)):
            if isinstance(node, Name) and node.name not in reserved:
                used.setdefault(node.name, (node, row))
    return used


def _suffix(name: str, coordinates: Sequence[str]) -> tuple[str, str] | None:
    """`u_xy` -> ("u", "xy") if the letters are coordinates or t; None for any other name."""
    base, _, letters = name.rpartition("_")
    if not base or not letters or base in RESERVED or base in coordinates:
        return None
    return (base, letters) if set(letters) <= {*coordinates, "t"} else None


def _distinct(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(names))


def _check_disjoint(kinds: dict[str, tuple[str, ...]]) -> None:
    pairs = [(first, second) for first in kinds for second in kinds if first < second]
    for first, second in pairs:
        both = set(kinds[first]) & set(kinds[second])
        if both:
            raise InputError(f"{listed(sorted(both))} cannot be in both {first} and {second}")


@dataclass(frozen=True)
class _Finder:
    """Finds unknowns that were not given."""

    declared: set[str]
    coordinates: tuple[str, ...]

    def unknowns(self, rows: Sequence[Row]) -> tuple[str, ...]:
        rates = _distinct(base for base, letters in self._differentiated(rows) if "t" in letters)
        found = rates or _distinct(base for base, _ in self._differentiated(rows))
        if not found:
            raise self._nothing_found(rows)
        if len(found) != len(rows):
            where = "carry _t" if rates else "stand under grad, laplacian or a derivative"
            needed = "an equation has one unknown" if len(rows) == 1 else f"{len(rows)} equations have as many unknowns"
            hint = "give an equation without time derivative in constraints=[...]"
            if not rates or len(found) > len(rows):
                hint = "say which are unknowns with unknowns=(...)"
            raise InputError(f"{needed}, and the names that {where} are {listed(found)}: {hint}")
        return found

    def _nothing_found(self, rows: Sequence[Row]) -> InputError:
        nodes = (node for row in rows for side in (row.left, row.right) for node in walk(side))
        for node in nodes:
            if isinstance(node, Name) and node.name.rpartition("_")[0] in self.coordinates:
                return InputError(
                    f"'{node.name}' in '{rows[0].text}' is no derivative, because {', '.join(self.coordinates)} are "
                    "coordinates; ordinary differential equations take coordinates=()"
                )
        return InputError(
            f"no unknown found in '{rows[0].text}': no name carries _t or stands under grad, laplacian or a "
            "derivative; give unknowns=('u',)"
        )

    def constrained(self, rows: Sequence[Row], main: tuple[str, ...]) -> tuple[str, ...]:
        under = [base for base, _ in self._differentiated(rows)]
        alone = [row.left.name for row in rows if isinstance(row.left, Name) and row.left.name not in self.declared]
        alone = [name for name in alone if not _suffix(name, self.coordinates)]
        reserved = {*RESERVED, *self.coordinates, *main}
        found = tuple(name for name in _distinct([*under, *alone]) if name not in reserved)
        if len(found) != len(rows):
            candidates = f": {listed(found)}" if found else ""
            raise InputError(
                f"{len(rows)} constraint{'s' * (len(rows) > 1)} must determine as many fields, and the fields under "
                f"grad, laplacian or a derivative, or alone on the left, are {len(found)}{candidates}; give all "
                "fields that are solved for with unknowns=(...)"
            )
        return found

    def _differentiated(self, rows: Sequence[Row]) -> Iterator[tuple[str, str]]:
        """Undeclared names under a derivative, each with the letters of it (those of grad and laplacian left out)."""
        for node in (node for row in rows for side in (row.left, row.right) for node in walk(side)):
            match node:
                case Name(name) if name not in self.declared and name not in RESERVED:
                    split = _suffix(name, self.coordinates)
                    if split and split[0] not in self.declared:
                        yield split
                case Call("grad" | "laplacian", (Name(name),)):
                    yield from self._plain(name, "")
                case Diff(Name(name), variable):
                    yield from self._plain(name, variable)

    def _plain(self, name: str, letters: str) -> Iterator[tuple[str, str]]:
        if name in self.declared or name in RESERVED or name in self.coordinates:
            return
        split = _suffix(name, self.coordinates)
        base, already = split or (name, "")
        if base not in self.declared:
            yield base, already + letters


def _given_unknowns(
    unknowns: tuple[str, ...],
    rows: Sequence[Row],
    constraints: Sequence[Row],
    used: _Used,
    coordinates: tuple[str, ...],
) -> tuple[tuple[str, ...], tuple[str, ...] | None]:
    """Unknowns of the equations, and those of the constraints if they were given too."""
    if len(unknowns) > len(rows):
        # The rates of an equation of higher order in time may be named with the unknowns: ("u", "u_t").
        rates = {name for name in unknowns if (split := _suffix(name, ())) and split[0] in unknowns}
        unknowns = tuple(name for name in unknowns if name not in rates)
    if len(unknowns) == len(rows):
        return unknowns, None
    if len(unknowns) == len(rows) + len(constraints):
        rates = {split[0] for name in used if (split := _suffix(name, coordinates)) and "t" in split[1]}
        main = tuple(name for name in unknowns if name in rates)
        if len(main) == len(rows):
            return main, tuple(name for name in unknowns if name not in rates)
        return unknowns[: len(rows)], unknowns[len(rows) :]
    raise InputError(
        f"{len(unknowns)} unknowns ({', '.join(unknowns)}) for {len(rows)} equation{'s' * (len(rows) > 1)} and "
        f"{len(constraints)} constraint{'s' * (len(constraints) != 1)}: each determines one field"
    )


def _coefficients(names: Names, used: _Used, declared: tuple[str, ...] | None) -> tuple[str, ...]:
    """The coefficient fields: the declared ones, or all names that are nothing else."""
    others = [name for name in used if name not in names.solved and name not in names.parameters]
    plain = {name for name in others if not _suffix(name, names.coordinates)} | set(declared or ())
    found = list(declared or ())
    for name in others:
        if name in found:
            continue
        split = _suffix(name, names.coordinates)
        if split and (split[0] in names.solved or split[0] in plain):
            continue
        _check_suffix_once(name, names, used)
        if declared is not None:
            raise _undeclared(name, names, used, declared)
        found.append(name)
    return tuple(found)


def _check_suffix_once(name: str, names: Names, used: _Used) -> None:
    """u_x_y, where u is an unknown, would be a coefficient of that name."""
    outer = _suffix(name, names.coordinates)
    inner = _suffix(outer[0], names.coordinates) if outer else None
    if outer and inner and inner[0] in names.solved:
        node, row = used[name]
        right = f"{inner[0]}_{inner[1]}{outer[1]}"
        raise refuse(row.text, node.position, f"'{name}': a derivative has one suffix, write '{right}'")


def _undeclared(name: str, names: Names, used: _Used, declared: tuple[str, ...]) -> InputError:
    node, row = used[name]
    suggestion = nearest(name, {*names.solved, *names.parameters, *declared})
    hint = f"did you mean '{suggestion}'?" if suggestion else "add it to coefficients= or parameters="
    return refuse(row.text, node.position, f"unknown name '{name}': {hint}")


def _check_used(kind: str, names: tuple[str, ...], present: set[str], others: set[str], used: _Used) -> None:
    """Refuses declared names that are not in the text, with the undeclared name that was perhaps meant."""
    for name in names:
        if name in present:
            continue
        message = f"'{name}' is given in {kind} and is not in the text"
        suggestion = nearest(name, others)
        if suggestion is None:
            left = f" (undeclared there: {', '.join(sorted(others))})" if others else ""
            raise InputError(f"{message}{left}")
        node, row = used[suggestion]
        raise refuse(row.text, node.position, f"{message}; '{suggestion}': did you mean '{name}'?")


def check_names(node: Node, text: str, allowed: Iterable[str]) -> None:
    """Checks the names of an expression in which only given names may stand.

    Raises:
        InputError: for any other name, with the nearest allowed one.
    """
    allowed = set(allowed)
    for part in walk(node):
        if isinstance(part, Name) and part.name != "pi" and part.name not in allowed:
            suggestion = nearest(part.name, allowed)
            hint = f"did you mean '{suggestion}'?" if suggestion else f"there are {', '.join(sorted(allowed))}"
            raise refuse(text, part.position, f"unknown name '{part.name}': {hint}")
