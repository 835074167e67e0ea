"""Shards, manifest and reading: what was written comes back, from any part of it, and nothing else does."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sciml import Dirichlet, Equation, Grid, InputError, Neumann, Periodic, Robin, datasets
from sciml.datasets import Dataset, Description, Field, Manifest, ShardEntry, write_shard

SHAPE = (6, 5)
SIZES = (("train", 4), ("train", 3), ("valid", 2), ("test", 3))
FIELDS = {
    "a": Field(),
    "u": Field(time_varying=True, unit="K"),
    "v": Field(time_varying=True, components=(2,)),
    "s": Field(components=(2, 2)),
    "f": Field(sample_varying=False),
}


def describe(**changes: Any) -> Description:
    sides = {"x": Periodic(), "y": (Dirichlet(1.5), Robin(2.0, torch.linspace(0.0, 1.0, 6, dtype=torch.float64)))}
    return Description(
        **{
            "name": "demo",
            "grid": Grid(SHAPE, (0.0, -1.0), (2.0, 1.0), sides),
            "fields": FIELDS,
            "times": torch.tensor([0.0, 0.5, 2.0]),
            "equation": Equation("u_t = nu*laplacian(u)", parameters={"nu": 0.5}),
            "parameters": {"k": 2.0},
            "inputs": ("a", "u", "nu"),
            "outputs": ("u",),
            "notes": ("made up",),
            **changes,
        }
    )


def make_values(samples: int, seed: int, description: Description | None = None) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    description = description or describe()
    return {
        name: torch.randn(description.shape(name, samples), generator=generator)
        if kind.sample_varying
        else torch.ones(description.shape(name, samples))
        for name, kind in description.fields.items()
    }


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, torch.Tensor]]:
    """A dataset of four shards, and all its values in memory."""
    folder = tmp_path_factory.mktemp("demo")
    entries: list[ShardEntry] = []
    values = []
    for seed, (split, count) in enumerate(SIZES):
        number = sum(entry.split == split for entry in entries)
        made = make_values(count, seed)
        rates = torch.full((count,), float(seed), dtype=torch.float64)
        entries.append(write_shard(folder, split, number, describe(), made, {"nu": rates}))
        values.append({**made, "nu": rates})
    Manifest("demo", tuple(entries), {"seed": 0}).write(folder)
    joined = {name: torch.cat([part[name] for part in values]) for name in values[0] if name != "f"}
    return folder, {**joined, "f": torch.ones(sum(count for _, count in SIZES), *SHAPE)}


@pytest.fixture(scope="module")
def opened(written: tuple[Path, Any]) -> Dataset:
    return datasets.open(written[0], verify=False)


@pytest.fixture
def copy(written: tuple[Path, Any], tmp_path: Path) -> Path:
    """The same files, to be damaged."""
    folder = tmp_path / "copy"
    for path in written[0].rglob("*"):
        if path.is_file():
            target = folder / path.relative_to(written[0])
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    return folder


def test_everything_comes_back(written: tuple[Path, dict[str, torch.Tensor]]) -> None:
    folder, values = written
    dataset = datasets.open(folder)
    for name, expected in values.items():
        assert torch.equal(dataset.read(name), expected), name
    assert len(dataset) == 12 and dataset.splits == ("train", "valid", "test")
    assert dataset.name == "demo" and dataset.provenance == {"seed": 0} and dataset.notes == ("made up",)
    assert dict(dataset.fields) == FIELDS and dataset.fields["u"].unit == "K"
    assert dataset.times is not None and dataset.times.tolist() == [0.0, 0.5, 2.0]
    assert dataset.equation == describe().equation
    assert dataset.parameters["k"] == 2.0 and torch.equal(torch.as_tensor(dataset.parameters["nu"]), values["nu"])
    sides = dataset.grid.boundary
    assert dataset.grid.lower == (0.0, -1.0) and dataset.grid.upper == (2.0, 1.0)
    assert sides["x"] == (Periodic(), Periodic()) and sides["y"][0] == Dirichlet(1.5)
    assert torch.equal(sides["y"][1].value.reshape(-1), torch.linspace(0.0, 1.0, 6, dtype=torch.float64))


def test_splits_are_their_files(written: tuple[Path, dict[str, torch.Tensor]]) -> None:
    folder, values = written
    dataset = datasets.open(folder)
    assert torch.equal(dataset.split("train").read("u"), values["u"][:7])
    assert torch.equal(dataset.split("test").read("nu"), values["nu"][9:])
    with pytest.raises(InputError, match="no split 'vaild'; did you mean 'valid'"):
        dataset.split("vaild")


@given(
    rows=st.lists(st.integers(0, 11), max_size=20),
    name=st.sampled_from(["a", "u", "v", "s", "f", "nu"]),
    data=st.data(),
)
@settings(max_examples=60)
def test_scattered_reading_is_slicing(
    written: tuple[Path, dict[str, torch.Tensor]], opened: Dataset, rows: list[int], name: str, data: st.DataObject
) -> None:
    values, dataset = written[1], opened
    assert torch.equal(dataset.read(name, rows), values[name][rows])
    if name in ("u", "v"):
        times = data.draw(st.lists(st.integers(0, 2), min_size=len(rows), max_size=len(rows)))
        assert torch.equal(dataset.read(name, rows, times), values[name][rows, times])


def test_indices_outside_are_refused(written: tuple[Path, Any]) -> None:
    dataset = datasets.open(written[0])
    with pytest.raises(InputError, match=r"sample 12 of dataset 'demo', which has 12"):
        dataset.read("u", [0, 12])
    with pytest.raises(InputError, match="sample -1"):
        dataset.read("u", [-1])
    with pytest.raises(InputError, match="time 3 of"):
        dataset.read("u", [0], [3])
    with pytest.raises(InputError, match="no field or parameter 'w'"):
        dataset.read("w")


def test_one_file_is_a_dataset(written: tuple[Path, dict[str, torch.Tensor]]) -> None:
    folder, values = written
    dataset = datasets.open(folder / "data/train/shard-00001.hdf5")
    assert torch.equal(dataset.read("v"), values["v"][4:7])


def test_the_same_content_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "other"):
        entry = write_shard(tmp_path / name, "train", 0, describe(), make_values(3, 7), {"nu": torch.rand(3) * 0})
        Manifest("demo", (entry,), {"b": 1, "a": [2]}).write(tmp_path / name)
    for file in ("manifest.json", "data/train/shard-00000.hdf5"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "other" / file).read_bytes()


def test_a_shard_tells_what_the_manifest_says(written: tuple[Path, Any]) -> None:
    manifest = Manifest.read(written[0])
    for shard in manifest.shards:
        assert datasets.inspect_shard(written[0], shard.split, shard.number) == shard
    assert datasets.inspect_shard(written[0], "train", 9) is None
    assert not manifest.damaged(written[0])


def test_a_dataset_goes_through_a_fork_and_through_pickle(written: tuple[Path, dict[str, torch.Tensor]]) -> None:
    folder, values = written
    dataset = datasets.open(folder)
    again: Dataset = pickle.loads(pickle.dumps(dataset))
    assert torch.equal(again.read("u", [11, 0]), values["u"][[11, 0]])
    child = os.fork()
    if not child:
        os._exit(0 if torch.equal(dataset.read("a", [3, 8]), values["a"][[3, 8]]) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_no_file_stays_open(written: tuple[Path, Any]) -> None:
    before = len(os.listdir("/proc/self/fd"))
    dataset = datasets.open(written[0])
    dataset.read("u", [0, 5, 11])
    assert len(os.listdir("/proc/self/fd")) == before


# -- what is refused ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v: v.pop("a"), "the values of field 'a' are missing"),
        (lambda v: v.update(b=v["a"]), "'b', which is no field"),
        (lambda v: v.update(a=v["a"][:, :-1]), r"field 'a' has shape \(3, 5, 5\), expected \(3, 6, 5\)"),
        (lambda v: v.update(a=v["a"].int()), "field 'a' is float32 or float64"),
        (lambda v: v.update(a=v["a"][:2]), "same number of samples; got a 2, u 3"),
        (lambda v: v["u"][1].fill_(torch.nan), r"90 values of 'u' are NaN or infinite, first in sample 1"),
    ],
)
def test_values_that_do_not_fit_are_refused(
    tmp_path: Path, change: Callable[[dict[str, torch.Tensor]], object], message: str
) -> None:
    values = make_values(3, 0)
    change(values)
    with pytest.raises(InputError, match=message):
        write_shard(tmp_path, "train", 0, describe(inputs=()), values)
    assert not list(tmp_path.rglob("*.hdf5"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"times": torch.tensor([0.0, 0.0, 1.0])}, "numbers that increase"),
        ({"times": None}, "changes in time, and no times"),
        ({"outputs": ("w",)}, "output 'w' is none of its fields"),
        ({"fields": {"a b": Field()}}, "'a b' cannot name"),
        ({"fields": {"v": Field(components=(3,))}}, r"components \(3,\)"),
        ({"parameters": {"a": 1.0}}, "'a' is both a field and a parameter"),
        ({"points": "corners"}, "'cells' or 'nodes'"),
    ],
)
def test_descriptions_that_do_not_fit_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        describe(**changes)


def test_an_overlap_of_splits_is_refused_and_named(tmp_path: Path) -> None:
    train, test = make_values(4, 0), make_values(3, 1)
    for name in ("a", "u"):
        test[name][2] = train[name][1]
    rates = torch.ones(4, dtype=torch.float64)
    entries = (
        write_shard(tmp_path, "train", 0, describe(), train, {"nu": rates}),
        write_shard(tmp_path, "test", 0, describe(), test, {"nu": rates[:3]}),
    )
    with pytest.raises(InputError) as caught:
        Manifest("demo", entries).write(tmp_path)
    assert "sample 2 of data/test/shard-00000.hdf5 (test)" in str(caught.value)
    assert "sample 1 of data/train/shard-00000.hdf5 (train)" in str(caught.value)
    # The same fields with another parameter are another sample.
    other = write_shard(tmp_path, "test", 0, describe(), test, {"nu": 2 * rates[:3]})
    Manifest("demo", (entries[0], other)).write(tmp_path)


def test_outputs_do_not_make_a_sample_another(tmp_path: Path) -> None:
    """Only the first time of an evolving input counts, and fields that are no input do not."""
    one, other = make_values(1, 0), make_values(1, 1)
    other["a"], other["u"][:, 0] = one["a"], one["u"][:, 0]
    same = [
        write_shard(tmp_path, "train", number, describe(inputs=("a", "u")), values).identities
        for number, values in enumerate((one, other))
    ]
    assert same[0] == same[1]


def test_the_digest_is_that_of_all_values(copy: Path, tmp_path: Path) -> None:
    """Of outputs too; a file that is left out makes the dataset another one."""
    one, other = make_values(1, 0), make_values(1, 0)
    other["u"][:, 1] += 1.0
    for number, values in enumerate((one, other, one)):
        write_shard(tmp_path / str(number), "train", 0, describe(), values, {"nu": torch.ones(1)})
    digests = [datasets.open(tmp_path / str(n) / "data/train/shard-00000.hdf5").digest for n in range(3)]
    assert digests[0] == digests[2] != digests[1]
    whole = datasets.open(copy)
    assert whole.digest == datasets.open(copy, verify=False).digest
    assert len({whole.digest, *(whole.split(name).digest for name in whole.splits)}) == 4
    (copy / "data/train/shard-00001.hdf5").unlink()
    assert datasets.open(copy, damaged="skip").digest != whole.digest


@pytest.mark.parametrize("damage", ["cut", "flip", "missing", "empty", "swapped"])
def test_a_damaged_shard_is_named_and_the_rest_is_usable(
    copy: Path, written: tuple[Path, dict[str, torch.Tensor]], damage: str
) -> None:
    path = copy / "data/train/shard-00001.hdf5"
    content = bytearray(path.read_bytes())
    if damage == "cut":
        path.write_bytes(content[:-100])
    elif damage == "flip":
        content[len(content) // 2] ^= 16
        path.write_bytes(content)
    elif damage == "missing":
        path.unlink()
    elif damage == "empty":
        path.write_bytes(b"")
    else:
        path.write_bytes((copy / "data/train/shard-00000.hdf5").read_bytes())
    with pytest.raises(InputError, match=r"1 of the 4 files .*\n.*train/shard-00001") as caught:
        datasets.open(copy)
    assert "train/shard-00000" not in str(caught.value)
    manifest = Manifest.read(copy)
    assert [(shard.split, shard.number) for shard in manifest.damaged(copy)] == [("train", 1)]
    rest = datasets.open(copy, damaged="skip")
    assert list(rest.damaged) == ["data/train/shard-00001.hdf5"]
    keep = [0, 1, 2, 3, 7, 8, 9, 10, 11]
    assert torch.equal(rest.read("u"), written[1]["u"][keep])


@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
@settings(max_examples=40)
def test_every_flipped_bit_is_noticed(written: tuple[Path, Any], place: float, bit: int) -> None:
    """In a shard and in the manifest: read from a copy in memory that is written beside."""
    for name in ("data/test/shard-00000.hdf5", "manifest.json"):
        path = written[0] / name
        sound = path.read_bytes()
        content = bytearray(sound)
        content[int(place * len(content))] ^= 1 << bit
        try:
            path.write_bytes(content)
            # White space of the manifest means nothing.
            if name != "manifest.json" or _meaning(bytes(content)) != _meaning(sound):
                with pytest.raises(InputError):
                    datasets.open(written[0])
        finally:
            path.write_bytes(sound)


def _meaning(text: bytes) -> object:
    try:
        return json.loads(text)
    except ValueError:
        return None


def test_a_file_cut_short_after_opening_is_refused(copy: Path) -> None:
    dataset = datasets.open(copy)
    path = copy / "data/train/shard-00000.hdf5"
    os.truncate(path, 2000)
    with pytest.raises(InputError, match="cut short"):
        dataset.read("u")


def test_a_folder_without_manifest_and_a_newer_one_are_refused(copy: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"manifest\.json cannot be read"):
        datasets.open(tmp_path)
    content = json.loads((copy / "manifest.json").read_text())
    content["format"] = 99
    (copy / "manifest.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match="newer version"):
        datasets.open(copy)


def test_shards_of_different_datasets_are_refused(copy: Path) -> None:
    other = describe(grid=Grid(SHAPE, 0.0, 1.0, Neumann(0.0)))
    rates = torch.ones(3, dtype=torch.float64)
    entry = write_shard(copy, "test", 1, other, make_values(3, 9), {"nu": rates})
    manifest = Manifest.read(copy)
    Manifest("demo", (*manifest.shards, entry)).write(copy)
    with pytest.raises(InputError, match="differ in grid"):
        datasets.open(copy)


# -- samples for training ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("memory", [0, 1 << 30])
def test_pairs_in_time(written: tuple[Path, dict[str, torch.Tensor]], memory: int) -> None:
    folder, values = written
    samples = datasets.open(folder).samples(["u", "a", "nu"], ["u"], memory=memory)
    assert samples.in_memory == bool(memory)  # type: ignore[attr-defined]
    assert len(samples) == 12 * 2
    indices = torch.tensor([23, 0, 5, 5])  # sample 11 from time 1, sample 0 from time 0, sample 2 from time 1
    batch = samples.batch(indices)
    rows, times = torch.tensor([11, 0, 2, 2]), torch.tensor([1, 0, 1, 1])
    assert torch.equal(batch["output"][:, 0], values["u"][rows, times + 1])
    assert torch.equal(batch["input"][:, 0], values["u"][rows, times])
    assert torch.equal(batch["input"][:, 1], values["a"][rows])
    assert torch.equal(batch["input"][:, 2], values["nu"][rows].float()[:, None, None].expand(-1, *SHAPE))
    assert batch["input"].dtype == torch.float32


@pytest.mark.parametrize("memory", [0, 1 << 30])
def test_first_to_last_and_components(written: tuple[Path, dict[str, torch.Tensor]], memory: int) -> None:
    folder, values = written
    samples = datasets.open(folder).samples(["a", "f", "k"], ["v", "u"], memory=memory)
    assert samples.output_channels == ("v_x", "v_y", "u")  # type: ignore[attr-defined]
    batch = samples.batch(torch.tensor([4, 9]))
    assert torch.equal(batch["output"][:, :2], values["v"][[4, 9], 2])
    assert torch.equal(batch["output"][:, 2], values["u"][[4, 9], 2])
    assert torch.equal(batch["input"][:, 0], values["a"][[4, 9]])
    assert (batch["input"][:, 1] == 1).all() and (batch["input"][:, 2] == 2).all()


def test_samples_that_do_not_fit_are_refused(written: tuple[Path, Any]) -> None:
    dataset = datasets.open(written[0])
    with pytest.raises(InputError, match="from 1 to 2, got 3"):
        dataset.samples(["u"], ["u"], steps=3)
    with pytest.raises(InputError, match="none is both"):
        dataset.samples(["a"], ["u"], steps=1)
    with pytest.raises(InputError, match="'a' is both input and output and does not change"):
        dataset.samples(["a"], ["a"])
    with pytest.raises(InputError, match="output 'w' is no field"):
        dataset.samples(["a"], ["w"])
    with pytest.raises(InputError, match="list of names, got one text"):
        dataset.samples("a", ["u"])


def test_a_dataset_is_read_in_pieces_of_bounded_size(
    written: tuple[Path, dict[str, torch.Tensor]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What goes through all values (identities, ranges) never holds more than a block."""
    monkeypatch.setattr("sciml.datasets.dataset._BLOCK", 2 * 4 * 3 * 6 * 5)  # two samples of u
    dataset = datasets.open(written[0])
    pieces = [values["u"] for _, _, values in dataset.blocks(["u"])]
    assert max(len(piece) for piece in pieces) == 2
    assert torch.equal(torch.from_numpy(np.concatenate(pieces)), written[1]["u"])
    computed = [name for part in dataset.parts for name in dataset.identities_of(part)]
    assert tuple(computed) == dataset.identities


def test_the_file_has_the_documented_groups(written: tuple[Path, dict[str, torch.Tensor]]) -> None:
    with h5py.File(written[0] / "data/valid/shard-00000.hdf5") as file:
        assert set(file) == {
            *("boundary_conditions", "dimensions", "scalars", "sciml", "t0_fields", "t1_fields", "t2_fields")
        }
        assert file.attrs["n_trajectories"] == 2 and file.attrs["n_spatial_dims"] == 2
        assert file.attrs["grid_type"] == "cartesian" and list(file.attrs["simulation_parameters"]) == ["k"]
        assert list(file["t0_fields"].attrs["field_names"]) == ["a", "u", "f"]
        assert file["t1_fields/v"].shape == (2, 3, 6, 5, 2) and file["t2_fields/s"].shape == (2, 6, 5, 2, 2)
        np.testing.assert_array_equal(file["t1_fields/v"][..., 1], written[1]["v"][7:9, :, 1])
        assert not file["t0_fields/f"].attrs["sample_varying"] and file["scalars/nu"].shape == (2,)
        assert file["boundary_conditions/x_periodic"].attrs["bc_type"] == "PERIODIC"
        assert file["boundary_conditions/y_lower/mask"][()].tolist() == [True, False, False, False, False]
