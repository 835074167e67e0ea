"""The files of the PhysioNet challenge of 2012: what was measured of patients in intensive care, in text files."""

from __future__ import annotations

import io
import math
import os
import re
import tarfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import final

import torch
from torch import Tensor

from sciml.boundary import suggestion
from sciml.errors import InputError

from .data import Series

STATIC = ("Age", "Gender", "Height", "ICUType")
MEASURED = (
    "ALP", "ALT", "AST", "Albumin", "BUN", "Bilirubin", "Cholesterol", "Creatinine", "DiasABP", "FiO2", "GCS",
    "Glucose", "HCO3", "HCT", "HR", "K", "Lactate", "MAP", "MechVent", "Mg", "NIDiasABP", "NIMAP", "NISysABP", "Na",
    "PaCO2", "PaO2", "Platelets", "RespRate", "SaO2", "SysABP", "Temp", "TroponinI", "TroponinT", "Urine", "WBC",
    "Weight", "pH",
)  # fmt: skip
_FINITE = 1e30  # of a value, which float32 holds
_HEADER = "Time,Parameter,Value"
_TIME = re.compile(r"(\d{2,3}):([0-5]\d)")
_ARCHIVES = (".tar", ".tar.gz", ".tgz")
_LARGEST = 1 << 20  # bytes of the record of one patient


@final
@dataclass(frozen=True, eq=False)
class PhysioNet:
    """Records of patients in common times.

    Args:
        identifier: `(patients,)`, int64, increasing.
        series: values of MEASURED in their own units, the times in hours since admission.
        static: `(patients, 4)`: values of STATIC, NaN where unknown; age in years, height in cm.
        outcome: `(patients,)`, 1.0 for those who died in hospital, NaN where unknown; None without that file.
    """

    identifier: Tensor
    series: Series
    static: Tensor
    outcome: Tensor | None


def read_physionet(
    source: str | os.PathLike[str],
    outcomes: str | os.PathLike[str] | None = None,
    *,
    rounded: float | None = None,
    dtype: torch.dtype = torch.float32,
) -> PhysioNet:
    """Read the records of the PhysioNet/Computing in Cardiology Challenge 2012.

    Silva, Moody, Scott, Celi and Mark, Computing in Cardiology 39 (2012) 245-248, whose page describes the files.
    A value of -1 stands for one that is unknown. Where a parameter of a patient has several values at one time, their
    mean is taken.

    Args:
        source: a folder with files such as 132539.txt, or a .tar or .tar.gz of one, as set-a is distributed; nothing is
            unpacked.
        outcomes: the file such as Outcomes-a.txt, if any.
        rounded: hours to whose multiples times are rounded, so that the common times become few; None keeps minutes.
        dtype: of the values.

    Raises:
        InputError: there are no records, or one has a line that is none; file and line are named.
    """
    if rounded is not None and not (math.isfinite(rounded) and rounded > 0):
        raise InputError(f"rounded is a positive number of hours, got {rounded!r}")
    place = Path(source)
    records: dict[int, _Record] = {}
    for name, text in _texts(place):
        record = _record(name, text)
        if record.identifier in records:
            raise InputError(f"{name}: patient {record.identifier} is in another file already")
        records[record.identifier] = record
    if not records:
        raise InputError(f"{place} has no records: files such as 132539.txt that begin with {_HEADER!r}")
    ordered = [records[identifier] for identifier in sorted(records)]
    identifier = torch.tensor([record.identifier for record in ordered])
    static = torch.tensor([record.static for record in ordered], dtype=dtype)
    died = None if outcomes is None else _outcomes(Path(outcomes))
    outcome = None
    if died is not None:
        outcome = torch.tensor([died.get(record.identifier, math.nan) for record in ordered], dtype=dtype)
    return PhysioNet(identifier, _series(ordered, rounded, dtype), static, outcome)


@dataclass(frozen=True)
class _Record:
    """Of one patient: the static values, and of what was measured the minute, the parameter's place, and the value."""

    identifier: int
    static: list[float]
    minutes: list[int]
    places: list[int]
    values: list[float]


def _texts(place: Path) -> Iterator[tuple[str, str]]:
    """Names and contents of the records."""
    if place.is_dir():
        for path in sorted(place.glob("*.txt")):
            if path.stem.isdigit():
                yield str(path), _decoded(str(path), _content(path))
    elif place.is_file() and place.name.endswith(_ARCHIVES):
        try:
            with tarfile.open(place, "r:*") as archive:
                for member in archive:
                    name = f"{place}, {member.name}"
                    if not member.isfile() or not re.fullmatch(r"\d+\.txt", Path(member.name).name):
                        continue
                    if member.size > _LARGEST:
                        raise InputError(f"{name} has {member.size} bytes: it is no record of one patient")
                    file = archive.extractfile(member) or io.BytesIO()
                    yield name, _decoded(name, file.read())
        except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
            raise InputError(f"{place} is damaged, or no archive: {error}") from error
    else:
        raise InputError(f"{place} is neither a folder of text files nor an archive ending in {', '.join(_ARCHIVES)}")


def _content(path: Path) -> bytes:
    try:
        with open(path, "rb") as file:
            data = file.read(_LARGEST + 1)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    if len(data) > _LARGEST:
        raise InputError(f"{path} has more than {_LARGEST} bytes: it is no record of one patient")
    return data


def _decoded(name: str, data: bytes) -> str:
    try:
        return data.decode("ascii")
    except UnicodeDecodeError as error:
        raise InputError(f"{name} is not a text file in ASCII (byte {error.start})") from error


def _record(name: str, text: str) -> _Record:
    header, *lines = text.splitlines() or [""]
    if header.strip() != _HEADER:
        raise InputError(f"{name}, line 1: {_HEADER!r} is expected, not {header[:40]!r}")
    place_of = {parameter: place for place, parameter in enumerate(MEASURED)}
    identifier: int | None = None
    static = dict.fromkeys(STATIC, math.nan)
    record = _Record(0, [], [], [], [])
    for number, line in enumerate(lines, 2):
        if not line.strip():
            continue
        minute, parameter, value = _line(f"{name}, line {number}", line)
        if parameter == "RecordID":
            if identifier is not None or not 0 <= value < 2**53 or value != int(value):
                raise InputError(f"{name}, line {number}: one whole RecordID a file is expected, got {line!r}")
            identifier = int(value)
        elif parameter in static:
            static[parameter] = math.nan if value == -1 else value
        elif parameter not in place_of:
            known = ("RecordID", *STATIC, *MEASURED)
            raise InputError(f"{name}, line {number}: unknown parameter {parameter!r}{suggestion(parameter, known)}")
        elif value != -1:
            record.minutes.append(minute)
            record.places.append(place_of[parameter])
            record.values.append(value)
    if identifier is None:
        raise InputError(f"{name} has no RecordID")
    return _Record(identifier, list(static.values()), record.minutes, record.places, record.values)


def _line(where: str, line: str) -> tuple[int, str, float]:
    parts = line.strip().split(",")
    match = _TIME.fullmatch(parts[0])
    if len(parts) != 3 or match is None:
        raise InputError(f"{where}: HH:MM,parameter,value is expected, not {line[:40]!r}")
    try:
        value = float(parts[2])
    except ValueError:
        value = math.nan
    if not abs(value) < _FINITE:
        raise InputError(f"{where}: a finite number is expected, not {parts[2][:40]!r}")
    return 60 * int(match[1]) + int(match[2]), parts[1], value


def _series(records: list[_Record], rounded: float | None, dtype: torch.dtype) -> Series:
    patient = torch.repeat_interleave(
        torch.arange(len(records)), torch.tensor([len(record.minutes) for record in records])
    )
    minutes = torch.tensor([minute for record in records for minute in record.minutes], dtype=torch.float64)
    if len(minutes) == 0:
        raise InputError("nothing was measured of any patient: the records have static values only")
    hours = minutes / 60 if rounded is None else (minutes / (60 * rounded)).round() * rounded
    times, moment = hours.unique(return_inverse=True)
    channel = torch.tensor([place for record in records for place in record.places])
    value = torch.tensor([value for record in records for value in record.values], dtype=torch.float64)
    shape = (len(records), len(times), len(MEASURED))
    at = (patient * shape[1] + moment) * shape[2] + channel
    total = torch.zeros(math.prod(shape), dtype=torch.float64).index_add_(0, at, value)
    count = torch.zeros(math.prod(shape), dtype=torch.float64).index_add_(0, at, torch.ones_like(value))
    mean = (total / count.clamp(min=1)).reshape(shape)
    return Series(times, mean.to(dtype), (count > 0).reshape(shape))


def _outcomes(path: Path) -> Mapping[int, float]:
    """RecordID -> whether the patient died in hospital."""
    lines = _decoded(str(path), _content(path)).splitlines()
    columns = [column.strip() for column in lines[0].split(",")] if lines else []
    missing = [column for column in ("RecordID", "In-hospital_death") if column not in columns]
    if missing:
        raise InputError(f"{path}, line 1: there is no column {missing[0]!r}{suggestion(missing[0], columns)}")
    found = {}
    for number, line in enumerate(lines[1:], 2):
        if not line.strip():
            continue
        values = [value.strip() for value in line.split(",")]
        row = dict(zip(columns, values, strict=False))
        identifier, died = row.get("RecordID", ""), row.get("In-hospital_death")
        if len(values) != len(columns) or not identifier.isdigit() or died not in ("0", "1"):
            raise InputError(f"{path}, line {number}: {len(columns)} values with a death of 0 or 1 are expected")
        found[int(identifier)] = float(died)
    return found
