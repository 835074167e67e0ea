"""Files of weights: written whole, read back to the bit, and refused with the reason where they cannot be used."""

from __future__ import annotations

import json

import pytest
import safetensors.torch
import torch
from torch import nn

from sciml.errors import InputError
from sciml.solvers.linear.learned import weights
from sciml.solvers.linear.learned.weights import about_weights, fill, load_shipped, load_weights, save_weights, shipped

SETTINGS = {"channels": 3, "levels": [1, 2]}


def network(width=3):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(2, width), nn.ReLU(), nn.Linear(width, 1))


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "some.safetensors"
    save_weights(path, "some-network", SETTINGS, network(), {"seconds": 3.5})
    return path


def test_what_was_written_is_read(file):
    settings, tensors = load_weights(file, "some-network")
    assert settings == SETTINGS and about_weights(file) == {"seconds": 3.5}
    other = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
    fill(other, tensors, "here")
    for name, value in network().state_dict().items():
        assert torch.equal(other.state_dict()[name], value)
    assert [path.name for path in file.parent.iterdir()] == [file.name]


def test_scalars_and_empty_tensors_are_kept(tmp_path):
    state = {"scale": torch.tensor(2.5, dtype=torch.float64), "none": torch.empty(0, 3), "count": torch.tensor(7)}
    save_weights(tmp_path / "a.safetensors", "some-network", {}, state)
    tensors = load_weights(tmp_path / "a.safetensors", "some-network").tensors
    assert all(
        torch.equal(tensors[name], value) and tensors[name].dtype == value.dtype for name, value in state.items()
    )


def test_another_kind_is_refused(file):
    with pytest.raises(InputError, match="holds weights of kind 'some-network', and 'other' is needed"):
        load_weights(file, "other")


def test_a_newer_version_is_refused(file, monkeypatch):
    monkeypatch.setattr(weights, "VERSION", weights.VERSION + 1)
    save_weights(file, "some-network", SETTINGS, network())
    monkeypatch.undo()
    with pytest.raises(InputError, match="has version 2, and this sciml reads up to version 1: update sciml"):
        load_weights(file, "some-network")


def test_weights_that_are_not_finite_are_refused(file):
    broken = network()
    with torch.no_grad():
        broken[0].weight[1, 0] = torch.nan
    with pytest.raises(InputError, match=r"1 of 6 values of '0\.weight' are NaN or infinite"):
        save_weights(file, "some-network", SETTINGS, broken)
    settings, tensors = load_weights(file, "some-network")
    tensors["2.bias"][0] = torch.inf
    content = {"kind": "some-network", "version": 1, "settings": settings, "about": {}, "sha256": ""}
    safetensors.torch.save_file(tensors, file, {"sciml": json.dumps(content)})
    with pytest.raises(InputError, match=r"1 of 1 values of '2\.bias' are NaN or infinite"):
        load_weights(file, "some-network")


@pytest.mark.parametrize("kept", [0, 5, 8, 100, -4])
def test_a_truncated_file_is_refused(file, kept):
    file.write_bytes(file.read_bytes()[:kept])
    with pytest.raises(InputError, match="is no file of weights, or is damaged"):
        load_weights(file, "some-network")


def test_a_flipped_bit_is_noticed(file):
    data = bytearray(file.read_bytes())
    data[-2] ^= 1
    file.write_bytes(data)
    with pytest.raises(InputError, match="is damaged: the weights are not those that were written"):
        load_weights(file, "some-network")


def test_a_file_of_something_else_is_refused(file, tmp_path):
    safetensors.torch.save_file({"a": torch.zeros(2)}, file)
    with pytest.raises(InputError, match="was not written by sciml"):
        load_weights(file, "some-network")
    safetensors.torch.save_file({"a": torch.zeros(2)}, file, {"sciml": "[1"})
    with pytest.raises(InputError, match="its metadata cannot be read"):
        load_weights(file, "some-network")
    safetensors.torch.save_file({"a": torch.zeros(2)}, file, {"sciml": '{"kind": "some-network", "version": 1}'})
    with pytest.raises(InputError, match="its metadata lack about, settings, sha256"):
        load_weights(file, "some-network")
    with pytest.raises(InputError, match=r"nothing\.safetensors cannot be read: No such file"):
        load_weights(tmp_path / "nothing.safetensors", "some-network")
    with pytest.raises(InputError, match="cannot be read"):
        load_weights(tmp_path, "some-network")


def test_tensors_that_do_not_fit_are_named(file):
    tensors = load_weights(file, "some-network").tensors
    with pytest.raises(InputError, match=r"the weights of here .* '0.bias' has shape \(3,\), the network \(4,\); "):
        fill(network(width=4), tensors, "here")
    tensors["3.bias"] = tensors.pop("2.bias")
    with pytest.raises(InputError, match=r"'2.bias' is missing; '3.bias' is not of this network"):
        fill(network(), tensors, "here")


def test_settings_are_json(tmp_path):
    with pytest.raises(InputError, match="settings of weights are numbers, texts, lists and dicts"):
        save_weights(tmp_path / "a.safetensors", "some-network", {"kind": torch.float32}, network())
    with pytest.raises(InputError, match=r"a file name ending in \.safetensors is needed"):
        save_weights(tmp_path / "a.bin", "some-network", {}, network())
    assert not list(tmp_path.iterdir())


def test_weights_that_do_not_ship_are_refused_by_name(tmp_path, monkeypatch):
    monkeypatch.setattr(weights, "_folder", lambda: tmp_path)
    with pytest.raises(InputError, match="no weights of kind 'some-network' are called 'box'; there are none"):
        load_shipped("box", "some-network")
    save_weights(tmp_path / "some-network-box-3d.safetensors", "some-network", SETTINGS, network())
    save_weights(tmp_path / "other-network-disk.safetensors", "other-network", SETTINGS, network())
    assert shipped("some-network") == ("box-3d",)
    assert load_shipped("box-3d", "some-network").settings == SETTINGS
    with pytest.raises(InputError, match=r"are called 'box-2d'; did you mean 'box-3d'\?"):
        load_shipped("box-2d", "some-network")
    with pytest.raises(InputError, match="are called 'disk'"):
        load_shipped("disk", "some-network")
