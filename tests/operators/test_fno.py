"""FNO against the definition by sums, neuraloperator's FNO, and the symmetries of the torus."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from math import pi
from typing import Any

import pytest
import torch
from torch import Tensor

from sciml.errors import InputError
from sciml.operators import FNO, fno_from_neuraloperator, spectral_convolution
from sciml.operators.fno import _position_channels
from sciml.operators.spectral_convolution import SpectralConvolution, fourier_basis


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def convolve(layer: SpectralConvolution, u: Tensor, added: Tensor | float = 0.0) -> Tensor:
    """The layer on `(batch, channel, *space)`."""
    u = u.movedim(1, -1)
    basis = fourier_basis(u.shape[1:-1], layer.modes, u.dtype, u.device)
    out = layer(u, basis, torch.zeros(*u.shape[:-1], layer.real.shape[-1], dtype=u.dtype) + added)
    return out.movedim(-1, 1)


def by_definition(layer: SpectralConvolution, u: Tensor) -> Tensor:
    """Sum of Re(weight_k W_k c_k exp(2 pi i k.i/n)), one wave number after the other, by complex exponentials."""
    shape = u.shape[2:]
    axes = tuple(range(2, u.dim()))
    points = torch.meshgrid(*[torch.arange(n, dtype=torch.float64) / n for n in shape], indexing="ij")
    ranges = [range(-(m // 2), m - m // 2) for m in layer.modes[:-1]] + [range(layer.modes[-1] // 2 + 1)]
    out = torch.zeros(u.shape[0], layer.real.shape[-1], *shape, dtype=u.dtype)
    for place in product(*[range(len(numbers)) for numbers in ranges]):
        k = [numbers[index] for numbers, index in zip(ranges, place, strict=True)]
        signed = [-(n // 2) <= number <= (n - 1) // 2 for number, n in zip(k[:-1], shape, strict=False)]
        if not all(signed) or k[-1] > shape[-1] // 2:
            continue
        wave = torch.exp(2j * pi * sum(number * x for number, x in zip(k, points, strict=True)))
        coefficient = (u * wave.conj()).mean(axes)
        weight = torch.complex(layer.real[place], layer.imaginary[place])
        twice = 1 if k[-1] == 0 or 2 * k[-1] == shape[-1] else 2
        out += twice * torch.einsum("bi,io,...->bo...", coefficient, weight, wave).real
    return out


@pytest.mark.parametrize("most_by_product", [128, 3, 0], ids=["products", "mixed", "FFT"])
@pytest.mark.parametrize(
    ("modes", "shape"),
    [
        ((5,), (16,)),
        ((8,), (8,)),
        ((9,), (7,)),
        ((4, 6), (9, 10)),
        ((5, 3), (8, 5)),
        ((8, 8), (6, 5)),
        ((3, 4, 2), (5, 6, 4)),
    ],
)
def test_spectral_convolution_is_what_its_sum_says(
    modes: Sequence[int], shape: Sequence[int], most_by_product: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spectral_convolution, "MOST_BY_PRODUCT", most_by_product)
    torch.manual_seed(0)
    layer = SpectralConvolution(2, 3, modes).double()
    u, added = normal(2, 2, *shape), normal(2, *shape, 3, seed=1)
    expected = by_definition(layer, u) + added.movedim(-1, 1)
    torch.testing.assert_close(convolve(layer, u, added), expected, rtol=1e-12, atol=1e-13)


def test_fourier_tables_stay_exact_on_long_axes() -> None:
    """Angles grow to 2 pi 100; single precision loses nothing but the rounding of the tables."""
    n = 20_011
    u = torch.cos(2 * pi * 100 * torch.arange(n, dtype=torch.float64) / n).float()[None, :, None]
    coefficients = fourier_basis((n,), (202,), torch.float32, torch.device("cpu")).coefficients(u)
    expected = torch.zeros(1, 2, 102, 1)
    expected[0, 0, 100] = 0.5
    torch.testing.assert_close(coefficients, expected, rtol=0.0, atol=3e-7)


@pytest.mark.parametrize("factor", [2, 3])
def test_a_band_limited_field_has_the_same_answer_on_every_grid(factor: int) -> None:
    """Exactly, where no nonlinear function comes before the last Fourier layer."""
    torch.manual_seed(1)
    network = FNO(in_channels=1, out_channels=2, modes=(7, 8), width=6, layers=1, lifting=0, positions=None).double()

    def field(*shape: int) -> Tensor:
        x, y = torch.meshgrid(*[2 * pi * torch.arange(n, dtype=torch.float64) / n for n in shape], indexing="ij")
        return (1 + torch.sin(3 * x - 2 * y) + torch.cos(x + 3 * y) + 0.3 * torch.cos(2 * x))[None, None]

    coarse = network(field(9, 10))
    fine = network(field(9 * factor, 10 * factor))[..., ::factor, ::factor]
    torch.testing.assert_close(fine, coarse, rtol=1e-12, atol=1e-13)


def test_answers_of_a_smooth_field_converge_exponentially() -> None:
    """The whole network on odd numbers of points: what is left is the aliasing of its nonlinear functions."""
    torch.manual_seed(2)
    network = FNO(in_channels=1, out_channels=1, modes=(8,), width=8, positions=None).double()
    answers = {}
    for n in (9, 27, 81):
        x = 2 * pi * torch.arange(n, dtype=torch.float64) / n
        answers[n] = network(torch.sin(x + 0.5 * torch.cos(x))[None, None])[..., :: n // 9].detach()
    errors = [float((answers[n] - answers[81]).norm() / answers[81].norm()) for n in (9, 27)]
    assert 1e-8 < errors[0] < 1e-3
    assert errors[1] < 1e-12


@pytest.mark.parametrize("shape", [(12, 16), (9, 15), (6, 5)])
def test_translations_commute_with_the_network(shape: tuple[int, int]) -> None:
    torch.manual_seed(3)
    network = FNO(in_channels=2, out_channels=1, modes=(6, 6), width=8, positions=None).double()
    u = normal(1, 2, *shape)
    moved = network(u.roll((2, -3), (2, 3)))
    torch.testing.assert_close(moved, network(u).roll((2, -3), (2, 3)), rtol=1e-10, atol=1e-12)


def test_positions_are_those_of_nodes_or_of_cell_centres() -> None:
    u = torch.zeros(1, 3, 4, 1)
    assert _position_channels(u, 0.0)[0, :, 0, 0].tolist() == pytest.approx([0, 1 / 3, 2 / 3])
    assert _position_channels(u, 0.5)[0, 2, :, 1].tolist() == pytest.approx([1 / 8, 3 / 8, 5 / 8, 7 / 8])


@pytest.mark.parametrize(
    ("modes", "shape", "settings"),
    [
        ((16,), (64,), {}),
        ((16,), (65,), {"domain_padding": 0.2}),
        ((8, 8), (16, 15), {}),
        ((5, 7), (20, 20), {"positional_embedding": None, "lifting_channel_ratio": 0, "channel_mlp_expansion": 0.8}),
        ((8, 8), (6, 12), {"projection_channel_ratio": 3, "n_layers": 2}),
        ((8, 8), (20, 10), {"domain_padding": [0.25, 0.1]}),
        ((4, 4, 6), (8, 6, 7), {}),
        ((260,), (600,), {}),
    ],
)
def test_weights_of_neuraloperator_give_its_answers(
    modes: tuple[int, ...], shape: tuple[int, ...], settings: dict[str, Any]
) -> None:
    models = pytest.importorskip("neuralop.models")
    torch.manual_seed(4)
    theirs = models.FNO(n_modes=modes, in_channels=2, out_channels=3, hidden_channels=6, **settings)
    ours = fno_from_neuraloperator(theirs)
    x = normal(2, 2, *shape, dtype=torch.float32)
    expected = theirs(x)
    torch.testing.assert_close(ours(x), expected, rtol=1e-5, atol=2e-6 * float(expected.detach().abs().max()))


def test_what_has_no_counterpart_is_refused() -> None:
    models = pytest.importorskip("neuralop.models")
    model = models.FNO(n_modes=(4, 4), in_channels=1, out_channels=1, hidden_channels=4, norm="group_norm")
    with pytest.raises(InputError, match="norm='group_norm' has no counterpart in FNO; only None has"):
        fno_from_neuraloperator(model)
    model = models.TFNO(n_modes=(4, 4), in_channels=1, out_channels=1, hidden_channels=4)
    with pytest.raises(InputError, match="factorized weights have no counterpart"):
        fno_from_neuraloperator(model)
    with pytest.raises(InputError, match="Linear does not record the settings of an FNO"):
        fno_from_neuraloperator(torch.nn.Linear(1, 1))


def test_no_complex_parameters() -> None:
    network = FNO(in_channels=1, out_channels=1, modes=(4, 4), width=4)
    assert {parameter.dtype for parameter in network.parameters()} == {torch.float32}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"modes": ()}, r"modes is \(\); it must be made of positive whole numbers"),
        ({"modes": (4, 0)}, r"modes is \(4, 0\)"),
        ({"modes": (4, 4, 4, 4)}, "modes speaks of 4 axes"),
        ({"width": 2.5}, "width is 2.5"),
        ({"padding": (0.1, 0.1, 0.1)}, "one for each of 2 axes"),
        ({"projection": 0.1}, "projection must come to one channel"),
    ],
)
def test_refused_settings(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        FNO(**{"in_channels": 1, "out_channels": 1, "modes": (4, 4), "width": 4} | settings)
