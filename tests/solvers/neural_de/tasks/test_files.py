"""Files of MNIST and PhysioNet: read as they are written, and refused where they are damaged."""

from __future__ import annotations

import gzip
import io
import math
import struct
import tarfile
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sciml import InputError
from sciml.solvers.neural_de.tasks.mnist import read_idx, read_mnist
from sciml.solvers.neural_de.tasks.physionet import MEASURED, read_physionet


def idx(*shape: int, seed: int = 0, largest: int = 256) -> tuple[bytes, torch.Tensor]:
    values = torch.randint(largest, shape, generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)
    return struct.pack(f">HBB{len(shape)}I", 0, 8, len(shape), *shape) + values.numpy().tobytes(), values


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Seven images of 4 x 3 pixels for training and three for the test; two of the files are compressed."""
    files = {
        "train-images-idx3-ubyte.gz": idx(7, 4, 3)[0],
        "train-labels-idx1-ubyte": idx(7, seed=1, largest=5)[0],
        "t10k-images.idx3-ubyte": idx(3, 4, 3, seed=2)[0],
        "t10k-labels.idx1-ubyte.gz": idx(3, seed=3, largest=5)[0],
    }
    for name, data in files.items():
        (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return tmp_path


def test_images_are_those_in_the_files(folder):
    found = read_mnist(folder, torch.float64)
    assert torch.equal((found.image * 255).round(), idx(7, 4, 3)[1].flatten(1).double())
    assert torch.equal((found.test_image * 255).round(), idx(3, 4, 3, seed=2)[1].flatten(1).double())
    assert torch.equal(found.label, idx(7, seed=1, largest=5)[1].long())
    assert torch.equal(found.test_label, idx(3, seed=3, largest=5)[1].long())
    assert found.classes == 1 + int(torch.cat([found.label, found.test_label]).max())


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("train-labels-idx1-ubyte", lambda data: b"\x89PNG" + data, r"is no idx file: it begins with 89 50 4e 47"),
        ("train-labels-idx1-ubyte", lambda data: b"", r"begins with nothing"),
        ("train-labels-idx1-ubyte", lambda data: data[:2] + b"\x0d" + data[3:], r"holds numbers of kind 0x0d"),
        ("train-labels-idx1-ubyte", lambda data: data[:-1], r"7 bytes are announced, and 6 are there"),
        ("train-labels-idx1-ubyte", lambda data: data + b"\0", r"7 bytes are announced, and 8 are there"),
        ("train-labels-idx1-ubyte", lambda data: data[:6], r"1 axes are announced, and it has 6 bytes"),
        ("train-labels-idx1-ubyte", lambda data: idx(6)[0], r"has 7 images, and .* 6 labels"),
        ("t10k-images.idx3-ubyte", lambda data: idx(3, 5, 3)[0], r"training have \(4, 3\) pixels.* test \(5, 3\)"),
        ("t10k-images.idx3-ubyte", lambda data: idx(3, 12)[0], r"have shapes \(3, 12\) and \(3,\)"),
        ("train-images-idx3-ubyte.gz", lambda data: data[:-9], r"is damaged, or not compressed by gzip"),
        ("train-images-idx3-ubyte.gz", lambda data: idx(7, 4, 3)[0], r"is damaged, or not compressed by gzip"),
    ],
)
def test_damaged_images_are_refused(name, change, message, folder):
    path = folder / name
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(InputError, match=message):
        read_mnist(folder)


def test_files_that_are_missing_are_named(folder):
    (folder / "train-labels-idx1-ubyte").unlink()
    with pytest.raises(InputError, match=r"has no train-labels-idx1-ubyte, with or without \.gz"):
        read_mnist(folder)
    with pytest.raises(InputError, match="nowhere is no folder"):
        read_mnist(folder / "nowhere")


@settings(max_examples=60)
@given(st.binary(max_size=40))
def test_any_bytes_are_read_or_refused(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("idx") / "file"
    path.write_bytes(data)
    try:
        found = read_idx(path)
    except InputError:
        return
    assert found.numel() > 0 and bytes(found.flatten().tolist()) == data[4 + 4 * found.ndim :]


FIRST = """Time,Parameter,Value
00:00,RecordID,132539
00:00,Age,54
00:00,Gender,0
00:00,Height,-1
00:00,ICUType,4
00:00,Weight,-1
00:07,HR,73
00:07,Temp,35.1
00:37,HR,77
47:37,HR,86
"""
SECOND = """Time,Parameter,Value
00:00,RecordID,132540
00:00,Age,76
00:00,Gender,1
00:00,Height,175.3
00:00,ICUType,2
00:00,Weight,80.6
00:37,HR,88
00:37,HR,90
01:02,pH,7.45
"""
OUTCOMES = """RecordID,SAPS-I,SOFA,Length_of_stay,Survival,In-hospital_death
132539,6,1,5,-1,0
132541,21,11,19,-1,1
132540,16,8,8,-1,1
"""


@pytest.fixture
def records(tmp_path: Path) -> Path:
    folder = tmp_path / "set-a"
    folder.mkdir()
    (folder / "132540.txt").write_text(SECOND)
    (folder / "132539.txt").write_text(FIRST)
    (folder / "README.txt").write_text("no record")
    (tmp_path / "Outcomes-a.txt").write_text(OUTCOMES)
    return folder


def observed(data, patient: int) -> list[tuple[float, str, float]]:
    return [
        (float(data.series.times[at]), MEASURED[channel], float(data.series.value[patient, at, channel]))
        for at, channel in data.series.mask[patient].nonzero().tolist()
    ]


def test_records_are_those_in_the_files(records):
    data = read_physionet(records, records.parent / "Outcomes-a.txt", dtype=torch.float64)
    assert len(MEASURED) == 37 and len(set(MEASURED)) == 37
    assert data.identifier.tolist() == [132539, 132540]
    assert data.series.times.tolist() == pytest.approx([0, 7 / 60, 37 / 60, 1 + 2 / 60, 47 + 37 / 60])
    assert data.series.value.shape == (2, 5, 37)
    hr, temp, ph, weight = "HR", "Temp", "pH", "Weight"
    expected = [(7 / 60, hr, 73.0), (7 / 60, temp, 35.1), (37 / 60, hr, 77.0), (47 + 37 / 60, hr, 86.0)]
    assert observed(data, 0) == expected
    assert observed(data, 1) == [(0.0, weight, 80.6), (37 / 60, hr, 89.0), (1 + 2 / 60, ph, 7.45)]
    assert data.static[1].tolist() == [76.0, 1.0, 175.3, 2.0]
    assert data.static[0, [0, 1, 3]].tolist() == [54.0, 0.0, 4.0] and math.isnan(data.static[0, 2])
    assert data.outcome is not None and data.outcome.tolist() == [0.0, 1.0]
    assert read_physionet(records).outcome is None


def test_times_are_rounded_to_common_ones(records):
    data = read_physionet(records, rounded=1.0, dtype=torch.float64)
    assert data.series.times.tolist() == [0.0, 1.0, 48.0]
    assert observed(data, 0) == [(0.0, "HR", 73.0), (0.0, "Temp", 35.1), (1.0, "HR", 77.0), (48.0, "HR", 86.0)]
    assert observed(data, 1) == [(0.0, "Weight", 80.6), (1.0, "HR", 89.0), (1.0, "pH", 7.45)]
    scaled = data.series.scaled()
    hr = scaled.value[..., MEASURED.index("HR")][scaled.mask[..., MEASURED.index("HR")]]
    assert hr.tolist() == pytest.approx([0.0, 4 / 16, 13 / 16, 1.0])
    assert scaled.value[..., MEASURED.index("pH")].max() == 0


@pytest.mark.parametrize("ending", [".tar", ".tar.gz", ".tgz"])
def test_an_archive_is_its_folder(ending, records):
    path = records.parent / f"set-a{ending}"
    with tarfile.open(path, "w" if ending == ".tar" else "w:gz") as archive:
        archive.add(records, "set-a")
        link = tarfile.TarInfo("set-a/132541.txt")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    first, second = read_physionet(path), read_physionet(records)
    assert torch.equal(first.series.value, second.series.value) and torch.equal(first.identifier, second.identifier)
    assert not list(records.parent.glob("132*"))
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(InputError, match="is damaged, or no archive"):
        read_physionet(path)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("00:07,HR,73", "00:07,HR", r"132539\.txt, line 8: HH:MM,parameter,value is expected, not '00:07,HR'"),
        ("00:07,HR,73", "0:7,HR,73", r"line 8: HH:MM,parameter,value is expected, not '0:7,HR,73'"),
        ("00:07,HR,73", "00:61,HR,73", r"line 8: HH:MM,parameter,value is expected"),
        ("00:07,HR,73", "00:07,HR,high", r"line 8: a finite number is expected, not 'high'"),
        ("00:07,HR,73", "00:07,HR,nan", r"line 8: a finite number is expected, not 'nan'"),
        ("00:07,HR,73", "00:07,HRT,73", r"line 8: unknown parameter 'HRT'; did you mean 'HR'"),
        ("00:00,RecordID,132539", "00:00,RecordID,1.5", r"line 2: one whole RecordID a file is expected"),
        ("00:00,RecordID,132539\n", "", r"132539\.txt has no RecordID"),
        ("00:00,RecordID,132539", "00:00,RecordID,1e29", r"line 2: one whole RecordID a file is expected"),
        ("00:00,RecordID,132539", "00:00,RecordID,1e300", r"line 2: a finite number is expected"),
        ("132539", "132540", r"132540\.txt: patient 132540 is in another file already"),
        ("Time,Parameter", "Time;Parameter", r"line 1: 'Time,Parameter,Value' is expected"),
        ("00:07,HR,73", "00:07,HR,73°", r"is not a text file in ASCII"),
    ],
)
def test_a_malformed_line_is_named(old, new, message, records):
    path = records / "132539.txt"
    path.write_text(FIRST.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(InputError, match=message):
        read_physionet(records)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (OUTCOMES.replace("In-hospital_death", "Death"), r"line 1: there is no column 'In-hospital_death'"),
        (OUTCOMES.replace("132541,21,11,19,-1,1", "132541,21"), r"Outcomes-a\.txt, line 3: 6 values with a death of 0"),
        (OUTCOMES.replace("8,-1,1", "8,-1,maybe"), r"line 4: 6 values with a death of 0 or 1 are expected"),
        ("", r"line 1: there is no column 'RecordID'"),
        ("SAPS,RecordID,In-hospital_death\n6", r"line 2: 3 values with a death of 0 or 1 are expected"),
    ],
)
def test_malformed_outcomes_are_named(text, message, records):
    path = records.parent / "Outcomes-a.txt"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        read_physionet(records, path)


def test_sources_without_records_are_refused(records):
    with pytest.raises(InputError, match=r"has no records: files such as 132539\.txt"):
        read_physionet(records.parent)
    with pytest.raises(InputError, match="is neither a folder of text files nor an archive"):
        read_physionet(records.parent / "Outcomes-a.txt")
    with pytest.raises(InputError, match="rounded is a positive number of hours, got 0"):
        read_physionet(records, rounded=0.0)
    large = io.BytesIO(b"x" * (1 << 20))
    (records / "1.txt").write_bytes(large.getvalue() + b"x")
    with pytest.raises(InputError, match="it is no record of one patient"):
        read_physionet(records)
