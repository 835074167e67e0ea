"""The log of a training: one JSON object a line, in order, without gaps or repetitions also after a resume."""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, final

from ..errors import InputError

NAME = "log.jsonl"


@final
class Log:
    """Lines appended to a file; where the disk is full they wait in memory until there is space.

    Args:
        path: the file; made where there is none.
        position: bytes that stay; what comes after them is cut off. `lost` is how many of them are not there.
    """

    def __init__(self, path: Path, position: int) -> None:
        self._file = open(path, "ab", buffering=0)
        self._waiting: list[bytes] = []
        size = os.fstat(self._file.fileno()).st_size
        self.lost = max(position - size, 0)
        self.position = position - self.lost
        self._file.truncate(self.position)

    def add(self, entry: Mapping[str, Any]) -> None:
        """Add a line; it is written at the next flush. JSON has no "inf" and "nan" but as text, which `float` reads."""
        tidy = {name: str(v) if isinstance(v, float) and not math.isfinite(v) else v for name, v in entry.items()}
        self._waiting.append(json.dumps(tidy).encode() + b"\n")

    def flush(self, lasting: bool = False) -> None:
        """Hand what waits to the system, and to the disk itself if it is to last.

        Raises:
            OSError: the disk is full; the lines stay for the next flush.
        """
        data = b"".join(self._waiting)
        try:
            if data and self._file.write(data) != len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            if lasting:
                os.fsync(self._file.fileno())
        except OSError:
            with contextlib.suppress(OSError):
                self._file.truncate(self.position)
            raise
        self._waiting.clear()
        self.position += len(data)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.flush()
        self._file.close()


def entries(path: Path, end: int | None = None) -> Iterator[dict[str, Any]]:
    """The lines of a log; none where there is no file.

    Args:
        path: the file.
        end: how many of its bytes are read; None: all.

    Raises:
        InputError: a line that is not a JSON object.
    """
    data = path.read_bytes()[:end] if path.exists() else b""
    for number, line in enumerate(data.splitlines(), 1):
        try:
            entry = json.loads(line)
        except ValueError as error:
            raise InputError(f"{path}, line {number}: not JSON ({error})") from error
        if not isinstance(entry, dict):
            raise InputError(f"{path}, line {number}: a JSON object is needed")
        yield entry
