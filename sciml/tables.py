"""Tables of TOML files, checked key by key: what problem files and recipes have in common."""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError, model_validator

from .boundary import suggestion
from .errors import InputError

_LARGEST_FILE = 1 << 18  # bytes; more numbers belong into HDF5
_DEEPEST = 100  # tables and lists within each other
_LONGEST_LINE = 1 << 13  # characters; the time to read a dotted key grows with the square of its length


class Table(BaseModel):
    """A table of the file. Unknown keys are refused with the nearest known one."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
    elsewhere: ClassVar[Mapping[str, str]] = {}
    """What to say of keys that belong into another table."""

    @model_validator(mode="before")
    @classmethod
    def _check_keys(cls, content: Any) -> Any:
        if not isinstance(content, dict):
            raise ValueError(f"a table is needed here, not {shown(content)}")
        unknown = [key for key in content if key not in cls.model_fields]
        if unknown:
            known = {*cls.model_fields, *cls.elsewhere}
            hints = {key: cls.elsewhere.get(key) or suggestion(key, known) for key in unknown}
            raise ValueError("; ".join(f"unknown key {shown(key)}{hint}" for key, hint in hints.items()))
        return content


def _number(content: Any) -> float:
    if isinstance(content, bool) or not isinstance(content, int | float):
        raise ValueError(f"a number is needed, not {shown(content)}")
    if not abs(content) <= sys.float_info.max:
        raise ValueError(f"a finite number is needed, not {shown(content)}")
    return float(content)


def _value(content: Any) -> float | str:
    if isinstance(content, str):
        return content
    if isinstance(content, bool) or not isinstance(content, int | float):
        raise ValueError(f"a number or an expression of the coordinates is needed, not {shown(content)}")
    return _number(content)


def _listed(content: Any) -> Any:
    return [content] if isinstance(content, str) else content


Number = Annotated[float, BeforeValidator(_number)]
Value = Annotated[float | str, BeforeValidator(_value)]
Texts = Annotated[list[str], BeforeValidator(_listed)]


_Kind = TypeVar("_Kind", bound=Table)


def validate(path: Path, content: dict[str, Any], kind: type[_Kind]) -> _Kind:
    """Check what a file holds.

    Args:
        path: the file, for messages.
        content: as `parse` gives it.
        kind: of its outermost table.

    Raises:
        InputError: one line for everything that is wrong, each with the file and the table.
    """
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        lines = [_line(path, content, problem) for problem in error.errors()]
        raise InputError("\n".join(dict.fromkeys(lines))) from None


def parse(path: Path) -> dict[str, Any]:
    """The tables of a TOML file.

    Raises:
        InputError: if it cannot be read, is too long or too deep, or is not TOML.
    """
    try:
        with open(path, "rb") as file:
            data = file.read(_LARGEST_FILE + 1)
        if len(data) > _LARGEST_FILE:
            raise InputError(
                f"{path} has more than {_LARGEST_FILE} bytes; keep arrays in HDF5 files and name them here"
            )
        text = data.decode()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not a text file in UTF-8 (byte {error.start})") from error
    for number, line in enumerate(text.splitlines(), 1):
        if len(line) > _LONGEST_LINE:
            raise InputError(f"{path}, line {number} has {len(line)} characters; break it after {_LONGEST_LINE}")
    try:
        content = tomllib.loads(text)
    except ValueError as error:  # TOMLDecodeError, and what int() says of a number with thousands of digits
        raise InputError(f"{path} is not valid TOML: {error}") from error
    except RecursionError as error:
        raise InputError(f"{path} is nested too deeply") from error
    if _is_deep(content):
        raise InputError(f"{path} is nested too deeply")
    return content


def _is_deep(content: Any) -> bool:
    """Whether more tables and lists stand within each other than what reads them can follow."""
    level = [content]
    for _ in range(_DEEPEST):
        inner = [item for item in level if isinstance(item, dict | list)]
        level = [x for item in inner for x in (item.values() if isinstance(item, dict) else item)]
    return bool(level)


def _line(path: Path, content: Any, error: Mapping[str, Any]) -> str:
    """One of pydantic's errors as a line with the file and the table."""
    tables: list[str] = []
    key = ""
    for part in error["loc"]:  # names the branch of a union too, which is not in the file
        if isinstance(content, dict) and part in content:
            tables, key = [*tables, *([key] if key else [])], str(part)
        elif isinstance(content, list) and isinstance(part, int) and part < len(content):
            key += f"[{part}]"
        else:
            continue
        content = content[part]
    kind, message = error["type"], str(error["msg"]).removeprefix("Value error, ")
    if kind == "missing":
        message = f"{error['loc'][-1]!r} is missing"
    elif kind != "value_error":
        message = f"{message[0].lower()}{message[1:]}, not {shown(content)}"
    if isinstance(content, dict):
        tables, key = [*tables, *([key] if key else [])], ""
    place = f" [{'.'.join(tables)}]" if tables else ""
    return f"{path.name},{place}{' ' + key if key else ''}: {message}".replace(",:", ":")


def shown(content: Any) -> str:
    """A value of a file for a message, cut where it is long."""
    text = repr(content)
    return text if len(text) <= 40 else f"{text[:37]}..."
