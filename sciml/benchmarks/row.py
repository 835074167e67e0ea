"""One line of a benchmark: the keys that the rows of all suites share."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from ..errors import InputError

NOISE = 1.5
"""A run is quiet if the copies before and after it took at most this times the best copy."""


@dataclass(frozen=True)
class Row:
    """One method on one case.

    Args:
        suite, case, method, library, version: what was run. `version` is None for a library that is not installed.
        unknowns: number of unknowns, over the whole batch.
        device: "cpu" or "cuda".
        dtype: of the solution.
        threads: how many torch, BLAS and OpenMP may use; scipy's and pyamg's sparse kernels use one.
        setup_seconds, solve_seconds: least of the repeats; medians are in `extra`.
        iterations: the most of the batch.
        relative_residual: |b - A x| / |b|, computed afresh by numpy, the largest of the batch.
        error: distance to a reference, relative unless `extra` says otherwise.
        extra: whatever else there is to say, as JSON can hold it.

    Every number is None where it is meaningless or could not be measured.
    """

    suite: str
    case: str
    method: str
    library: str
    version: str | None = None
    unknowns: int | None = None
    device: str = "cpu"
    dtype: str | None = "float64"
    threads: int | None = None
    setup_seconds: float | None = None
    solve_seconds: float | None = None
    iterations: int | None = None
    relative_residual: float | None = None
    error: float | None = None
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def total_seconds(self) -> float | None:
        """Least of set-up and solve together, None if it was not timed."""
        return self.extra.get("total_seconds")

    @property
    def missed(self) -> bool:
        """Whether the true residual is above the tolerance."""
        return bool(self.extra.get("missed"))

    def judged(self, best_copy: float, copy_bytes: int) -> Row:
        """The row in the light of the best copy of the whole run.

        `extra["noisy"]` says whether a copy beside the row's runs was too slow; `extra["copy_bytes_per_second"]` stands
        beside a row's own bytes a second.

        Args:
            best_copy: seconds.
            copy_bytes: bytes that a copy reads and writes.
        """
        extra = dict(self.extra)
        if "copy_seconds" in extra:
            extra["noisy"] = extra["copy_seconds"] > NOISE * best_copy
        if "bytes_per_second" in extra:
            extra["copy_bytes_per_second"] = copy_bytes / best_copy
        return replace(self, extra=extra)

    def to_json(self) -> dict[str, Any]:
        """The row as JSON can hold it: NaN and infinity become null."""
        cleaned: dict[str, Any] = _finite(asdict(self))
        return cleaned

    @staticmethod
    def from_json(data: dict[str, Any]) -> Row:
        """The row that `to_json` wrote.

        Raises:
            InputError: for missing or unknown keys.
        """
        if set(data) != set(KEYS):
            difference = ", ".join(sorted(set(data) ^ set(KEYS)))
            raise InputError(
                f"a benchmark row has the keys {', '.join(KEYS)}; these are missing or too many: {difference}"
            )
        return Row(**data)


KEYS = tuple(item.name for item in fields(Row))


class Rows(Sequence[Row]):
    """Rows of a run, to be looked up by what they are."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self._rows = tuple(rows)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: Any) -> Any:
        return self._rows[index]

    def __iter__(self) -> Iterator[Row]:
        return iter(self._rows)

    def one(self, case: str, method: str) -> Row:
        """The row of a method on a case.

        Raises:
            LookupError: if there is none, or it failed.
        """
        for row in self._rows:
            if (row.case, row.method) == (case, method) and "failure" not in row.extra:
                return row
        raise LookupError(f"no row {method!r} on {case!r}")

    def ratio(self, case: str, method: str, peers: Sequence[str]) -> float:
        """Set-up and solve of a method over that of the quickest of its peers, the least of the repeats each.

        Raises:
            LookupError: if the method or all of its peers were not timed, or missed the tolerance.
        """
        rows = [row for row in self._rows if row.case == case and not row.missed and row.total_seconds is not None]
        times = {row.method: row.total_seconds or 0.0 for row in rows}
        others = [times[peer] for peer in peers if peer in times]
        if method not in times or not others:
            raise LookupError(f"{case!r}: {method!r} or its peers were not timed, or missed the tolerance")
        return times[method] / min(others)


def _finite(item: Any) -> Any:
    if isinstance(item, dict):
        return {str(key): _finite(value) for key, value in item.items()}
    if isinstance(item, list | tuple):
        return [_finite(value) for value in item]
    return None if isinstance(item, float) and not math.isfinite(item) else item
