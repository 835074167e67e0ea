"""What meshio makes of a file, and the files of which it makes nothing, too little, or never an end."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy

from .errors import InputError

if TYPE_CHECKING:
    import meshio

DIMENSIONS = {"vertex": 0, "line": 1, "triangle": 2, "tetra": 3}
# Drawings, and triangles as text that meshio looks for with a pattern whose time grows exponentially.
_LEFT_OUT = ("svg", "wkt")
# Readers that wait at the end of a damaged file for a line that never comes, with the kind of file that they want.
_WAITING = {"off": "text", "tecplot": "text", "ply": "bytes", "mdpa": "bytes"}
_PATIENCE = 100


def load(path: str | os.PathLike[str]) -> meshio.Mesh:
    """What meshio makes of a file, by whichever of its readers for this ending succeeds.

    Raises:
        InputError: the file is missing, empty, of no known format, or damaged.
    """
    import meshio

    try:
        file = Path(path)
    except TypeError as error:
        raise InputError(f"the path of a mesh file is a text or a path, got {path!r}") from error
    if file.is_dir():
        raise InputError(f"{path} is a folder; give the name of a file in it")
    if not file.is_file():
        raise InputError(f"{path}: there is no such file")
    if not file.stat().st_size:
        raise InputError(f"{path}: the file is empty")
    ending = "".join(file.suffixes[-2:] if file.suffix == ".gz" else file.suffixes[-1:]).lower()
    readers = _readers(meshio, ending)
    if not readers:
        known = (end for end in meshio.extension_to_filetypes if _readers(meshio, end))
        raise InputError(
            f"{path}: {ending or 'no ending'} is no format of meshes; known are {', '.join(sorted(known))}"
        )
    reasons = []
    # meshio.read would print, and end the program, where a reader fails; readers fail with errors of every kind.
    for name, read in readers.items():
        try:
            content = _read(file, name, read)
        except Exception as error:
            reasons.append(f"as {name}: {str(error).strip() or type(error).__name__}")
            cause = error
        else:
            _check_whole(file, name, content)
            return content
    hint = ""
    if "Incompatible cell data" in reasons[0]:
        hint = "; where only some of the elements are in physical groups, let Gmsh save version 2 (-format msh22)"
    raise InputError(f"{path}: not a mesh file, or a damaged one ({'; '.join(reasons)}){hint}") from cause


def _readers(meshio: Any, ending: str) -> dict[str, Callable[[Any], Any]]:
    formats = sorted(meshio.extension_to_filetypes.get(ending, []), key=lambda name: name != "gmsh")
    modules = {name: getattr(meshio, name.partition("-")[0]) for name in formats if name not in _LEFT_OUT}
    return {name: module.read for name, module in modules.items() if hasattr(module, "read")}


def _read(file: Path, kind: str, read: Callable[[Any], Any]) -> meshio.Mesh:
    if kind == "tetgen":
        _check_tetgen(file)
    # The number of triangles of an STL file is guessed from bytes that in a text can mean any number.
    with numpy.errstate(over="ignore"):
        if kind == "obj":
            return read(_plain_obj(file))
        if kind not in _WAITING:
            return read(str(file))
        stream = _Bytes(io.FileIO(file))
        with stream if _WAITING[kind] == "bytes" else _Text(stream) as lines:
            return read(lines)


def _plain_obj(file: Path) -> io.StringIO:
    """The points and faces of an .obj file and nothing else: meshio wants as many normals as points, and no colours."""
    lines, points = [], 0
    with open(file, encoding="utf-8", errors="replace") as stream:
        for line in stream:
            word, *rest = line.split() or [""]
            if word == "v":
                points += 1
                lines.append(" ".join(["v", *rest[:3]]))
            elif word == "f":
                corners = [int(corner.partition("/")[0]) for corner in rest]
                lines.append(" ".join(["f", *(str(c if c >= 0 else points + 1 + c) for c in corners)]))
    return io.StringIO("\n".join(lines))


class _Bytes(io.BufferedReader):
    """A file that raises EOFError if lines are asked for again and again behind its end."""

    misses = 0

    def readline(self, size: int | None = -1, /) -> bytes:
        line = super().readline(size)
        self.misses = _count_miss(line, self.misses)
        return line


class _Text(io.TextIOWrapper):
    """The same, of text."""

    misses = 0

    def readline(self, size: int = -1, /) -> str:  # type: ignore[override]
        line = super().readline(size)
        self.misses = _count_miss(line, self.misses)
        return line


def _count_miss(line: str | bytes, misses: int) -> int:
    if misses > _PATIENCE:
        raise EOFError("it ends too early")
    return 0 if line else misses + 1


def _check_tetgen(file: Path) -> None:
    """Refuse pairs of files one of which says nothing, for whose first line the reader would wait."""
    for name in (file.with_suffix(".node"), file.with_suffix(".ele")):
        if not name.is_file():
            raise InputError(f"there is no file {name}, and the format has two, .node and .ele")
        with open(name, errors="replace") as lines:
            if all(line.lstrip().startswith("#") or not line.strip() for line in lines):
                raise InputError(f"{name} has no line that says anything")


def _check_whole(file: Path, kind: str, content: meshio.Mesh) -> None:
    """Refuse what meshio makes of some files that end too early."""
    widths = {name: dimension + 1 for name, dimension in DIMENSIONS.items()}
    torn = [
        block.type for block in content.cells if block.type in widths and block.data.shape[1:] != (widths[block.type],)
    ]
    if not torn and kind in ("gmsh", "stl", "ply"):
        torn = [] if _is_whole(file.read_bytes(), kind, content) else [kind]
    if torn:
        raise InputError(f"{file}: the file is cut short: its elements end too early")


def _is_whole(data: bytes, kind: str, content: meshio.Mesh) -> bool:
    """Whether the last words of a file are there, or as many elements as its first ones say."""
    if kind == "gmsh":
        return b"$EndElements" in data
    if kind == "ply":
        said = re.search(rb"^element face (\d+)", data.partition(b"end_header")[0], re.MULTILINE)
        return said is None or int(said[1]) == sum(len(block.data) for block in content.cells)
    is_binary = len(data) >= 84 and len(data) == 84 + 50 * int.from_bytes(data[80:84], "little")
    return is_binary or b"endsolid" in data.lower()
