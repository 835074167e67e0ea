"""The problems of the suite `evolution`, their references, and that the peers solve the same problems."""

from __future__ import annotations

import os
from dataclasses import replace
from math import pi

import numpy
import pytest
import scipy.linalg
import torch

from sciml.benchmarks.evolution import (
    exponax_peer,
    problems,
    pyqg_peer,
    references,
    scipy_peer,
    systems,
    torchdiffeq_peer,
    torchode_peer,
)
from sciml.benchmarks.evolution.one_core import one_core
from sciml.benchmarks.timing import Contender
from sciml.equations import Equation
from sciml.ordinary import OrdinarySystem


def distance(value, exact):
    return float(numpy.linalg.norm(value - exact) / numpy.linalg.norm(exact))


def solved(contender: Contender):
    """The value of a peer, or a skipped test where it is not installed."""
    if contender.version is None:
        pytest.skip(f"{contender.library} is not installed")
    state = contender.prepare() if contender.prepare else None
    return contender.finish(contender.solve(state))


def test_smooth_fields_have_no_mean_unit_size_and_no_short_waves():
    fields = problems.smooth(3, (20, 24), 4, seed=5)
    assert numpy.abs(fields.mean(axis=(1, 2))).max() < 1e-14
    numpy.testing.assert_allclose((fields**2).mean(axis=(1, 2)), 1.0, rtol=1e-12)
    spectrum = numpy.abs(numpy.fft.fft2(fields))
    assert spectrum[:, 5:-4].max() < 1e-10 * spectrum.max()
    assert spectrum[:, :, 5:-4].max() < 1e-10 * spectrum.max()


# References against closed forms


def test_the_reference_of_kuramoto_sivashinsky_grows_and_damps_small_waves_as_it_should():
    problem = problems.kuramoto_sivashinsky(1, 64, 40)
    x = numpy.arange(64) / 64 * problem.length
    for m in (1, 3):
        k = 2 * pi * m / problem.length
        small = replace(problem, initial=1e-9 * numpy.cos(k * x)[None])
        found = references.kuramoto_sivashinsky(small, 1, refine=1)
        assert distance(found, small.initial * numpy.exp((k**2 - k**4) * small.end)) < 1e-8


def test_the_reference_of_kuramoto_sivashinsky_moves_with_a_constant():
    """u(x, t) = c + v(x - c t, t) where v solves the equation too (Galilean invariance): tests the product."""
    problem = problems.kuramoto_sivashinsky(1, 64, 40)
    shift = 10 * problem.length / 64
    faster = replace(problem, initial=problem.initial + shift / problem.end)
    still, moved = (references.kuramoto_sivashinsky(one, 1) for one in (problem, faster))
    assert distance(moved - shift / problem.end, numpy.roll(still, 10, axis=-1)) < 1e-8


def test_the_reference_of_navier_stokes_lets_taylor_green_vortices_decay():
    problem = problems.navier_stokes(1, 24, 50)
    x = numpy.arange(24) / 24 * 2 * pi
    start = (numpy.cos(2 * x)[:, None] * numpy.cos(2 * x))[None]
    vortices = replace(problem, initial=start, parameters={"nu": 0.05})
    found = references.navier_stokes(vortices, 1, refine=1)
    assert distance(found, start * numpy.exp(-8 * 0.05 * vortices.end)) < 1e-12


def test_the_reference_of_navier_stokes_keeps_the_enstrophy_of_an_inviscid_flow():
    problem = replace(problems.navier_stokes(1, 32, 50), parameters={"nu": 0.0})
    found = references.navier_stokes(problem, 1, refine=1)
    kept = references.navier_stokes(replace(problem, steps=0), 1)
    assert distance(found, kept) > 0.05, "it moves"
    assert numpy.sum(found**2) == pytest.approx(numpy.sum(kept**2), rel=1e-6), "and keeps its enstrophy"


def test_the_reference_of_quasi_geostrophic_layers_follows_the_linear_waves():
    """Of small amplitude every wave follows its own 2x2 system."""
    problem = problems.quasi_geostrophic(1, 24, 100)
    x = numpy.arange(24) / 24 * 2 * pi
    wave = numpy.exp(1j * (2 * x[:, None] + 3 * x))
    start = numpy.array([1.0, 0.5j])
    given = problem.parameters
    square = 2**2 + 3**2
    stretching = numpy.array([[-given["F1"], given["F1"]], [given["F2"], -given["F2"]]])
    inversion = numpy.linalg.inv(stretching - square * numpy.eye(2))
    matrix = (
        -2j * (numpy.diag([given["U"], 0.0]) + numpy.diag([given["G1"], given["G2"]]) @ inversion)
        + numpy.diag([0.0, given["r"] * square]) @ inversion
    )
    end = scipy.linalg.expm(matrix * problem.end) @ start
    initial, exact = (1e-7 * (q[:, None, None] * wave).real[None] for q in (start, end))
    assert distance(references.quasi_geostrophic(replace(problem, initial=initial), 1, refine=1), exact) < 1e-7


# Peers against the references


def test_exponax_steps_the_same_kuramoto_sivashinsky_equation():
    problem = problems.kuramoto_sivashinsky(2, 256, 20)
    outcome = solved(exponax_peer.kuramoto_sivashinsky(problem))
    assert outcome.value.dtype == numpy.float64
    assert outcome.value.shape == problem.initial.shape
    assert distance(outcome.value, references.kuramoto_sivashinsky(problem, 2)) < 1e-6


def test_exponax_steps_the_same_vorticity():
    problem = problems.navier_stokes(2, 64, 10)
    outcome = solved(exponax_peer.navier_stokes(problem))
    assert distance(outcome.value, references.navier_stokes(problem, 2)) < 1e-6


def test_pyqg_steps_the_same_layers():
    """To the second order of its first step, which is Euler's: half the step, a quarter of the error."""
    errors = []
    for refine in (1, 2):
        problem = problems.quasi_geostrophic(2, 64, 10)
        problem = replace(problem, step=problem.step / refine, steps=problem.steps * refine)
        outcome = solved(pyqg_peer.quasi_geostrophic(problem))
        errors.append(distance(outcome.value, references.quasi_geostrophic(problem, 2)))
    assert errors[0] < 1e-3
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.25)


@pytest.mark.parametrize(
    "peer",
    [
        torchdiffeq_peer.forward,
        lambda problem: torchode_peer.forward(problem, torchode_peer.DOPRI5),
        lambda problem: torchode_peer.forward(problem, torchode_peer.TSIT5),
    ],
    ids=["torchdiffeq", "torchode-dopri5", "torchode-tsit5"],
)
def test_peers_integrate_the_same_systems(peer):
    problem = systems.van_der_pol(3, 5, 4.0, "cpu")
    outcome = solved(peer(problem))
    assert distance(outcome.value, systems.by_scipy(problem, 3)) < 1e-4
    assert outcome.iterations < outcome.extra["evaluations"] <= 6 * outcome.iterations + 2


def test_scipy_integrates_the_same_trajectories():
    problem = systems.lorenz(4, 2.0, "cpu")
    outcome = solved(scipy_peer.lorenz(problem, 2))
    assert distance(outcome.value, systems.by_scipy(problem, 2)) < 1e-4


@pytest.mark.parametrize(
    "peer",
    [torchdiffeq_peer.gradient, lambda problem: torchode_peer.gradient(problem, torchode_peer.DOPRI5)],
    ids=["torchdiffeq", "torchode"],
)
def test_peers_differentiate_the_same_network(peer):
    problem = systems.network(3, 1.0, "cpu")
    exact = systems.gradient_of(problem, systems.classical(problem, 100)).numpy()
    assert distance(solved(peer(problem)).value, exact) < 1e-4


# Systems


@pytest.mark.parametrize(
    ("problem", "parameters"),
    [
        (systems.van_der_pol(5, 1, 1.0, "cpu"), {"mu": systems.MU}),
        (systems.lorenz(5, 6.0, "cpu"), systems.LORENZ_PARAMETERS),
    ],
    ids=["Van der Pol", "Lorenz"],
)
def test_the_text_of_a_system_says_what_its_function_does(problem, parameters):
    written = OrdinarySystem(Equation(problem.text, coordinates=(), parameters=parameters))
    torch.testing.assert_close(written.rate(problem.initial, 0.0), problem.rate(0.0, problem.initial))


def test_the_classical_method_converges_with_order_four():
    problem = systems.van_der_pol(4, 1, 1.0, "cpu")
    exact = systems.by_scipy(problem, 4)[:, -1]
    errors = [distance(systems.classical(problem, n)(problem.initial).numpy(), exact) for n in (20, 40)]
    assert numpy.log2(errors[0] / errors[1]) == pytest.approx(4, abs=0.3)


def test_one_core_is_left_as_it_was():
    threads = torch.get_num_threads()
    cores = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None
    with one_core():
        assert torch.get_num_threads() == 1
        if cores is not None:
            assert len(os.sched_getaffinity(0)) == 1
    assert torch.get_num_threads() == threads
    if cores is not None:
        assert os.sched_getaffinity(0) == cores
