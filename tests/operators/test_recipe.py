"""Recipes of training: what they build, and what they refuse."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from sciml import Dirichlet, Grid, InputError, Neumann, Periodic
from sciml.datasets import Dataset, Description, Field, Manifest, write_shard
from sciml.datasets import open as open_dataset
from sciml.operators import LegacyH1, MeanOverFields, RelativeH1
from sciml.operators.recipe import load_recipe, shipped_recipes


@pytest.fixture
def data(tmp_path: Path) -> Callable[[Grid], Dataset]:
    """A dataset of one sample on a grid."""

    def make(grid: Grid) -> Dataset:
        fields = {"a": Field(), "u": Field(), "v": Field(components=(2,)), "w": Field(time_varying=True)}
        times = torch.tensor([0.0, 1.0])
        description = Description(name="made", grid=grid, fields=fields, times=times, inputs=("a",), outputs=("u",))
        values = {name: torch.zeros(description.shape(name, 1)) for name in fields}
        folder = tmp_path / f"data-{len(list(tmp_path.iterdir()))}"
        Manifest("made", (write_shard(folder, "train", 0, description, values),)).write(folder)
        return open_dataset(folder)

    return make


def count(name: str, data: Dataset) -> int:
    network = load_recipe(name).make_network(data)
    return sum(parameter.numel() for parameter in network.parameters())


def test_what_is_shipped_says_what_it_is_and_can_be_built(data):
    walls, ring = data(Grid((64, 64))), data(Grid((64, 64), boundary=Periodic()))
    for name, description in shipped_recipes().items():
        assert description, name
        assert count(name, ring if "navier" in name else walls) > 0


def test_sizes_of_the_shipped_networks(data):
    walls, ring = data(Grid((64, 64))), data(Grid((64, 64), boundary=Periodic()))
    assert count("mgno-darcy-rough", walls) == 572_661
    assert count("mgno-navier-stokes", ring) == 2_885_194
    assert count("mgno-darcy-64", walls) <= 580_000
    assert 500_000 < count("fno-darcy-64", walls) <= 580_000


TEXT = """
[data]
folder = "d"
[operator]
name = "MgNO"
channels = 4
layers = 1
levels = [[1, 0], [1, 0]]
[training]
epochs = 1
"""


def write(folder: Path, old: str = "", new: str = "") -> Path:
    path = folder / "mine.toml"
    path.write_text(TEXT.replace(old, new) if old else TEXT)
    return path


def test_what_the_dataset_determines(data, tmp_path: Path):
    made = load_recipe(write(tmp_path, "layers = 1", "layers = 1\ncoordinates = true\nseed = 3"))
    grid = Grid((8, 9), boundary={"x": Periodic(), "y": (sides := Grid(3).boundary["x"][0], sides)})
    before = torch.get_rng_state()
    network = made.make_network(data(grid))
    assert torch.equal(torch.get_rng_state(), before)
    # Sine and cosine along x, the coordinate along y.
    assert network.settings["in_channels"] == 1 + 3
    assert network.settings["padding"] == ["circular", "zeros"]
    again = made.make_network(data(grid))
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), again.parameters(), strict=True))
    made = load_recipe(write(tmp_path, "[training]", "[loss]\nname = 'RelativeH1'\n[training]"))
    assert made.make_loss(data(grid)) == RelativeH1.on(grid)


def test_several_outputs_have_the_mean_of_their_losses(data, tmp_path: Path):
    grid = Grid((8, 9), boundary={"u": Dirichlet(0.0), "v": Neumann(0.0)})
    several = write(tmp_path, 'folder = "d"', 'folder = "d"\noutputs = ["v", "u"]\n[loss]\nname = "RelativeH1"')
    losses = RelativeH1.on(grid, "v"), RelativeH1.on(grid, "u")
    assert losses[0] != losses[1]
    assert load_recipe(several).make_loss(data(grid)) == MeanOverFields(losses, (2, 1))
    several.write_text(several.read_text().replace("RelativeH1", "LegacyH1"))
    assert load_recipe(several).make_loss(data(grid)) == MeanOverFields((LegacyH1(), LegacyH1()), (2, 1))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("channels", "chanels", r"mine.toml, \[operator\].*unknown key 'chanels'; did you mean 'channels'"),
        ("layers = 1", "layers = 1\nin_channels = 2", "unknown key 'in_channels': the dataset determines it"),
        ('"MgNO"', '"MGNO"', "no network 'MGNO'; did you mean 'MgNO'"),
        ('folder = "d"', "", r"\[data\].*'folder' is missing"),
        ("epochs = 1", "epoch = 1", "unknown key 'epoch'; did you mean 'epochs'"),
        ("layers = 1", "coordinates = 1", r"\[operator\] coordinates: input should be a valid boolean, not 1"),
        ("layers = 1", "layers = 'many'", r"\[operator\] layers: input should be a valid integer, not 'many'"),
        ("layers = 1", "cycle = 'X'", r"\[operator\] cycle: input should be 'V' or 'W', not 'X'"),
        ("[1, 0], [1, 0]", "[1, 0], 3", r"\[operator\] levels\[1\]: input should be a valid list, not 3"),
        ("layers = 1", "logarithm = [1]", r"\[operator\] logarithm\[0\]: input should be a valid boolean, not 1"),
        ("layers = 1", "seed = -1", r"\[operator\] seed: input should be greater than or equal to 0, not -1"),
        ('"MgNO"', "3", "a table with the name of a network is needed: DeepONet, FNO, MgNO, UNet"),
        ('folder = "d"', 'folder = "d"\ninputs = []', r"\[data\] inputs: name one or more"),
        ("[training]", "[loss]\nname = 'L2'\n[training]", r"\[loss\] name"),
        ("[data]", "[[data]]", "a table is needed"),
    ],
)
def test_what_is_wrong_is_named(old: str, new: str, message: str, tmp_path: Path):
    with pytest.raises(InputError, match=message):
        load_recipe(write(tmp_path, old, new))


def test_settings_that_the_network_refuses(data, tmp_path: Path):
    made = load_recipe(write(tmp_path, "layers = 1", "prolongation = 5"))
    with pytest.raises(InputError, match=r"\[operator\] MgNO: prolongation: 3 or 4, .* got 5"):
        made.make_network(data(Grid((8, 8))))
    with pytest.raises(InputError, match="no recipe of this name; did you mean 'mgno-darcy-64'"):
        load_recipe("mgno-darcy-65")


def test_a_recipe_of_a_dataset_is_no_recipe_of_a_training(tmp_path: Path):
    path = tmp_path / "darcy.toml"
    path.write_text('equation = { catalogue = "diffusion" }\nsamples = { train = 1 }\n')
    with pytest.raises(InputError, match=r"darcy\.toml says how a dataset is made: sciml data generate .*darcy\.toml"):
        load_recipe(path)
