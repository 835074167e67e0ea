"""Making datasets: they solve their equations, have the same bytes whoever makes them, and survive what goes wrong."""

from __future__ import annotations

import copy
import errno
import os
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from sciml import datasets, files
from sciml.command_line import app
from sciml.datasets import generate, load_recipe
from sciml.datasets.manifest import Manifest
from sciml.errors import InputError

DARCY: dict[str, Any] = {
    "name": "trial",
    "equation": {"catalogue": "diffusion"},
    "domain": {"shape": [16, 16], "lower": [0.0, 0.0], "upper": [1.0, 1.0]},
    "fields": {
        "f": 1.0,
        "a": {
            "kind": "threshold",
            "above": 12.0,
            "below": 3.0,
            "field": {"kind": "gaussian", "alpha": 2.0, "tau": 3.0, "boundary": "neumann"},
        },
    },
    "samples": {"train": 10, "valid": 3, "test": 4, "shard": 4, "batch": 2},
}
SHARDS = 5


def darcy(**tables: dict[str, Any]) -> dict[str, Any]:
    content = copy.deepcopy(DARCY)
    for name, table in tables.items():
        content.setdefault(name, {}).update(table)
    return content


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def recipe() -> datasets.Recipe:
    return load_recipe(DARCY)


@pytest.fixture(scope="module")
def reference(recipe: datasets.Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("reference") / "data"
    generate(recipe, folder, workers=0)
    return folder


# What is in it


def flux_divergence(a: np.ndarray[Any, Any], u: np.ndarray[Any, Any], harmonic: bool = True) -> np.ndarray[Any, Any]:
    """-div(a grad u) on a square of n by n cells with u = 0 on its sides, by fluxes through faces."""
    n = a.shape[-1]
    result = np.zeros_like(u)
    for axis in (-2, -1):
        lower, upper = (np.take(a, range(k, n - 1 + k), axis) for k in (0, 1))
        face = 2 * lower * upper / (lower + upper)
        first, last = (np.take(a * u, [place], axis) * 2 * n for place in (0, -1))
        flux = np.concatenate([first, face * np.diff(u, axis=axis) * n, -last], axis)
        result -= np.diff(flux, axis=axis) * n
    return result


def test_solutions_satisfy_the_equation_in_flux_form(tmp_path: Path) -> None:
    generate(load_recipe(darcy(stored={"dtype": "float64"}, solver={"rtol": 1e-10})), tmp_path / "data", workers=0)
    data = datasets.open(tmp_path / "data")
    assert (len(data), data.inputs, data.outputs, data.parameters) == (17, ("a",), ("u",), {"f": 1.0})
    a, u = data.read("a").numpy(), data.read("u").numpy()
    assert set(np.unique(a)) == {3.0, 12.0}
    assert np.abs(flux_divergence(a, u) - 1).max() < 1e-7
    assert np.abs(a * flux_divergence(np.ones_like(a), u) - 1).max() > 1  # as -a laplacian(u) = 1 would have it


def test_solutions_of_a_smooth_problem_converge_with_second_order(tmp_path: Path) -> None:
    """u = k sin(pi x) sin(2 pi y) with a = 1 + x**2 + y needs f = -div(a grad u)."""
    f = "k*((1 + x**2 + y)*5*pi**2*sin(pi*x)*sin(2*pi*y) - 2*x*pi*cos(pi*x)*sin(2*pi*y) - 2*pi*sin(pi*x)*cos(2*pi*y))"
    errors = []
    for n in (32, 64):
        content = darcy(domain={"shape": [n, n]}, stored={"dtype": "float64", "coarsen": 2, "fields": ["f", "u"]})
        numbers = {"k": {"kind": "log_uniform", "lower": 0.5, "upper": 5.0}}
        content["fields"] = {"a": "1 + x**2 + y", "f": {"kind": "formula", "text": f, "of": numbers}}
        content["samples"] = {"train": 3, "shard": 3, "batch": 3}
        generate(load_recipe(content), tmp_path / str(n), workers=0)
        data = datasets.open(tmp_path / str(n))
        x, y = data.grid.coordinates
        shape = torch.sin(np.pi * x) * torch.sin(2 * np.pi * y)
        recipe = load_recipe(content)
        g = recipe.fields["f"]
        assert isinstance(g, datasets.Formula)
        seeds = [datasets.distributions.seed_of(0, "train", i, "field", "f", 0) for i in range(3)]
        k = g.of["k"].sample(recipe.grid, [datasets.distributions.seed_of(seed, "k") for seed in seeds])[:, :1, :1]
        errors.append(float(((data.read("u") - k * shape) / k).abs().max()))
    assert errors[1] < 5e-3
    assert 3.6 < errors[0] / errors[1] < 4.4


def test_fields_are_averaged_over_cells_and_taken_at_nodes(tmp_path: Path) -> None:
    content = darcy(
        domain={"shape": [16, 12]},
        boundary={"x": {"kind": "periodic"}},
        stored={"dtype": "float64"},
        samples={"train": 2, "valid": 0, "test": 0, "shard": 2, "batch": 2},
    )
    generate(load_recipe(content), tmp_path / "fine", workers=0)
    content["stored"]["coarsen"] = 2
    generate(load_recipe(content), tmp_path / "coarse", workers=0)
    fine, coarse = datasets.open(tmp_path / "fine"), datasets.open(tmp_path / "coarse")
    for name in ("a", "u"):
        values = fine.read(name)[:, ::2]
        torch.testing.assert_close(coarse.read(name), (values[..., ::2] + values[..., 1::2]) / 2, rtol=1e-14, atol=0)
    x, y = (axis[::2] for axis in fine.grid.axis_coordinates)
    torch.testing.assert_close(coarse.grid.axis_coordinates[0], x)
    torch.testing.assert_close(coarse.grid.axis_coordinates[1], y + fine.grid.spacing[1] / 2)


def test_evolutions_with_a_parameter_of_each_sample(tmp_path: Path) -> None:
    """The heat equation: a mode of wavenumber k decays with exp(-alpha k**2 t)."""
    content = {
        "equation": {"catalogue": "heat"},
        "domain": {"shape": [32], "lower": [0.0], "upper": [1.0]},
        "boundary": {"all": {"kind": "periodic"}},
        "parameters": {"alpha": {"kind": "log_uniform", "lower": 1e-3, "upper": 1e-2}},
        "initial": {"u": {"kind": "gaussian", "alpha": 2.0, "tau": 3.0, "modes": 15}},
        "scheme": {"name": "Spectral"},
        "solver": {"times": [0.0, 1.0, 3.0], "rtol": 1e-9},
        "stored": {"dtype": "float64"},
        "samples": {"train": 5, "shard": 3, "batch": 2},
    }
    generate(load_recipe(content), tmp_path / "data", workers=0)
    data = datasets.open(tmp_path / "data")
    u, alpha = data.read("u"), data.parameters["alpha"]
    assert isinstance(alpha, torch.Tensor) and data.times is not None
    assert torch.equal(data.times, torch.tensor([0.0, 1.0, 3.0], dtype=torch.float64))
    assert len(set(alpha.tolist())) == 5 and 1e-3 < float(alpha.min()) < float(alpha.max()) < 1e-2
    decay = torch.exp(-alpha[:, None, None] * data.times[:, None] * (2 * np.pi * torch.arange(17)) ** 2)
    expected = torch.fft.irfft(torch.fft.rfft(u[:, :1]) * decay, n=32)
    torch.testing.assert_close(u, expected, rtol=0, atol=1e-7 * float(u.abs().max()))


def test_splits_have_no_sample_in_common(reference: Path) -> None:
    data = datasets.open(reference)
    assert data.splits == ("train", "valid", "test")
    assert [len(data.split(name)) for name in data.splits] == [10, 3, 4]
    a = data.read("a").flatten(1)
    assert len(torch.unique(a, dim=0)) == len(set(data.identities)) == 17


def test_the_manifest_says_how_it_was_made(recipe: datasets.Recipe, reference: Path) -> None:
    provenance = Manifest.read(reference).provenance
    assert provenance["recipe"] == DARCY
    assert load_recipe(provenance["recipe"]).content == recipe.content
    (environment,) = provenance["environments"]
    assert environment["threads"] == 1
    assert environment["torch"] == torch.__version__
    assert environment["processor"]


# The same bytes


def test_a_sample_does_not_depend_on_the_sizes_of_splits(reference: Path, tmp_path: Path) -> None:
    generate(load_recipe(DARCY, sizes={"train": 1, "valid": 1, "test": 1}), tmp_path / "data", workers=0)
    few, many = datasets.open(tmp_path / "data"), datasets.open(reference)
    for split in few.splits:
        assert torch.equal(few.split(split).read("a"), many.split(split).read("a")[:1])


def test_processes_make_the_same_bytes(reference: Path, recipe: datasets.Recipe, tmp_path: Path) -> None:
    generate(recipe, tmp_path / "two", workers=2)
    assert contents(tmp_path / "two") == contents(reference)


def test_the_program_makes_the_same_bytes(reference: Path, tmp_path: Path) -> None:
    lines = [
        f"{name} = {value!r}".replace("'", '"').replace("{", "{ ").replace("}", " }").replace('": ', '" = ')
        for name, value in DARCY.items()
    ]
    file = tmp_path / "trial.toml"
    file.write_text("\n".join(lines))
    told = CliRunner().invoke(app, ["data", "generate", str(file), "--output", str(tmp_path / "one"), "--workers", "1"])
    assert told.exit_code == 0, told.output
    assert "10 train, 3 valid, 4 test in 5 shards" in told.output
    assert contents(tmp_path / "one") == contents(reference)


def test_a_dask_cluster_makes_the_same_bytes(reference: Path, recipe: datasets.Recipe, tmp_path: Path) -> None:
    distributed = pytest.importorskip("distributed")
    with (
        distributed.LocalCluster(n_workers=1, threads_per_worker=1, processes=False, dashboard_address=None) as cluster,
        distributed.Client(cluster) as client,
    ):
        generate(recipe, tmp_path / "data", client=client)
    assert contents(tmp_path / "data") == contents(reference)


def test_a_dask_worker_that_dies_is_reported(
    reference: Path, recipe: datasets.Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dask, distributed = pytest.importorskip("dask"), pytest.importorskip("distributed")
    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 0}),
        distributed.LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None) as cluster,
        distributed.Client(cluster) as client,
    ):
        (worker,) = client.run(os.getpid).values()

        submit, calls = client.submit, iter(range(100))

        def submit_to_one_that_sleeps(*given: Any, **options: Any) -> Any:
            if next(calls) == 1:  # the first shard
                os.kill(worker, signal.SIGSTOP)
                killing.start()
            return submit(*given, **options)

        def kill() -> None:
            while not any(client.processing().values()):
                time.sleep(0.05)
            os.kill(worker, signal.SIGKILL)

        monkeypatch.setattr(client, "submit", submit_to_one_that_sleeps)
        killing = threading.Thread(target=kill)
        with pytest.raises(ChildProcessError, match=r"none lived to make train shard \d.*0 of 5 shards are there"):
            generate(recipe, tmp_path / "data", client=client)
        killing.join()
    generate(recipe, tmp_path / "data", workers=0)
    assert contents(tmp_path / "data") == contents(reference)


@pytest.mark.cuda
def test_another_device_makes_the_same_samples(reference: Path, recipe: datasets.Recipe, tmp_path: Path) -> None:
    generate(recipe, tmp_path / "data", workers=0, device="cuda")
    one, other = datasets.open(reference), datasets.open(tmp_path / "data")
    assert torch.equal(one.read("a"), other.read("a"))
    torch.testing.assert_close(one.read("u"), other.read("u"), rtol=1e-5, atol=1e-8)


# What goes wrong


def in_a_process(work: Any) -> int:
    """Run in a copy of this process; the signal that ended it."""
    child = os.fork()
    if not child:
        try:
            work()
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.parametrize("moment", [0, 1, 4, 7, 2 * SHARDS + 2, 2 * SHARDS + 3])
def test_a_run_that_is_killed_goes_on(
    moment: int, reference: Path, recipe: datasets.Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed just before or just after a file gets its name, which is when it becomes valid."""
    folder, replace, renamed = tmp_path / "data", os.replace, iter(range(100))

    def replace_and_die(source: Any, target: Any) -> None:
        count = next(renamed)
        if 2 * count == moment:
            os.kill(os.getpid(), signal.SIGKILL)
        replace(source, target)
        if 2 * count + 1 == moment:
            os.kill(os.getpid(), signal.SIGKILL)

    def work() -> None:
        monkeypatch.setattr(files.os, "replace", replace_and_die)
        generate(recipe, folder, workers=0)

    assert in_a_process(work) == -signal.SIGKILL
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("shard-*.hdf5")}
    assert len(before) == min(SHARDS, max(0, (moment - 1) // 2))
    generate(recipe, folder, workers=0)
    assert all(path.stat().st_mtime_ns == time for path, time in before.items())
    assert contents(folder) == contents(reference)


def test_a_process_that_dies_is_reported_and_the_rest_is_kept(
    reference: Path, recipe: datasets.Recipe, tmp_path: Path
) -> None:
    def kill(done: int, total: int, what: str) -> None:
        for child in children():
            os.kill(child, signal.SIGKILL)

    def children() -> Iterator[int]:
        for path in Path("/proc/self/task").glob("*/children"):
            for child in path.read_text().split():
                if b"sciml.datasets.workers" in Path(f"/proc/{child}/cmdline").read_bytes():
                    yield int(child)

    if not Path(f"/proc/self/task/{os.getpid()}/children").exists():
        pytest.skip("the system does not list processes")
    with pytest.raises(ChildProcessError, match=r"process \d+, which made train shard \d, was ended by SIGKILL"):
        generate(recipe, tmp_path / "data", workers=1, progress=kill)
    made = {path.name for path in (tmp_path / "data").rglob("shard-*.hdf5")}
    assert made
    assert not (tmp_path / "data" / "manifest.json").exists()
    generate(recipe, tmp_path / "data", workers=0)
    assert contents(tmp_path / "data") == contents(reference)


@pytest.mark.parametrize("fault", ["truncated", "flipped", "missing", "of another split"])
def test_a_damaged_shard_is_made_again_alone(
    fault: str, reference: Path, recipe: datasets.Recipe, tmp_path: Path
) -> None:
    folder = tmp_path / "data"
    shutil.copytree(reference, folder)
    victim = folder / "data" / "train" / "shard-00001.hdf5"
    data = bytearray(victim.read_bytes())
    if fault == "truncated":
        victim.write_bytes(data[:-100])
    elif fault == "flipped":
        data[len(data) // 2] ^= 1
        victim.write_bytes(data)
    elif fault == "missing":
        victim.unlink()
    else:
        victim.write_bytes((folder / "data" / "test" / "shard-00000.hdf5").read_bytes())
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("shard-*.hdf5") if path != victim}
    said: list[str] = []
    generate(recipe, folder, workers=0, progress=lambda done, total, what: said.append(what))
    assert [what for what in said if "samples" in what] == ["data/train/shard-00001.hdf5 with 4 samples"]
    assert any("shard 1 is made again" in what for what in said) == (fault != "missing")
    assert all(path.stat().st_mtime_ns == time for path, time in before.items())
    assert contents(folder) == contents(reference)


def test_nothing_is_done_where_nothing_is_missing(recipe: datasets.Recipe, reference: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in reference.rglob("*")}
    manifest = generate(recipe, reference, workers=0)
    assert manifest == Manifest.read(reference)
    assert {path: path.stat().st_mtime_ns for path in reference.rglob("*")} == before


def test_one_process_at_a_time_makes_a_dataset(reference: Path, recipe: datasets.Recipe, tmp_path: Path) -> None:
    refusals: list[str] = []

    def meddle(done: int, total: int, what: str) -> None:
        with pytest.raises(InputError) as refused:
            generate(recipe, tmp_path / "data", workers=0)
        refusals.append(str(refused.value))

    generate(recipe, tmp_path / "data", workers=0, progress=meddle)
    assert len(refusals) == SHARDS
    assert all("another process is making a dataset in" in refusal for refusal in refusals)
    assert contents(tmp_path / "data") == contents(reference)


def test_a_full_disk_leaves_what_is_there(
    reference: Path, recipe: datasets.Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, sync, calls = tmp_path / "data", os.fsync, []

    def full(descriptor: int) -> None:
        calls.append(descriptor)
        if len(list(folder.rglob("shard-*.hdf5"))) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        sync(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(files.os, "fsync", full)
        with pytest.raises(OSError, match=r"No space left.*2 of 5 shards are there and stay valid") as caught:
            generate(recipe, folder, workers=0)
    assert caught.value.errno == errno.ENOSPC
    assert str(caught.value.filename).endswith("shard-00002.hdf5")
    assert not list(folder.rglob(".*.part"))
    generate(recipe, folder, workers=0)
    assert contents(folder) == contents(reference)


# For about a third of these 150 iterations are not enough.
CONTRAST = {"kind": "uniform", "lower": 0.1, "upper": 5.0}
HARD = darcy(
    fields={"a": {"kind": "formula", "text": "exp(k*sin(9*x)*cos(8*y))", "of": {"k": CONTRAST}}},
    solver={"method": {"name": "ConjugateGradient", "max_iterations": 150}},
    samples={"train": 12, "valid": 0, "test": 0, "shard": 6, "batch": 3},
)


def test_a_solve_that_fails_is_refused_with_its_sample(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"trial: the solve of train sample \d+ failed: MAX_ITERATIONS: .*redraw"):
        generate(load_recipe(HARD), tmp_path / "data", workers=0)


def test_samples_whose_solve_fails_are_drawn_anew(tmp_path: Path) -> None:
    content = copy.deepcopy(HARD)
    content["samples"]["failures"] = "redraw"
    content["stored"] = {"dtype": "float64"}
    recipe = load_recipe(content)
    manifest = generate(recipe, tmp_path / "data", workers=0)
    redrawn = {int(sample) for sample in manifest.provenance["redrawn"]["train"]}
    assert 0 < len(redrawn) < 12
    data = datasets.open(tmp_path / "data")
    a, u = data.read("a").numpy(), data.read("u").numpy()
    assert np.abs(flux_divergence(a, u) - 1).max() < 1e-4
    seeds = [datasets.distributions.seed_of(0, "train", sample, "field", "a", 0) for sample in range(12)]
    first = recipe.fields["a"].sample(recipe.grid, seeds).numpy()
    assert {k for k in range(12) if not np.array_equal(first[k], a[k])} == redrawn
    generate(recipe, tmp_path / "again", workers=0)
    assert contents(tmp_path / "again") == contents(tmp_path / "data")


def test_folders_of_something_else_are_refused(recipe: datasets.Recipe, reference: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"another recipe \(they differ in samples\.seed\)"):
        generate(load_recipe(darcy(samples={"seed": 1})), reference, workers=0)
    (tmp_path / "note.txt").write_text("mine")
    with pytest.raises(InputError, match="is not empty, and no dataset was begun in it"):
        generate(recipe, tmp_path, workers=0)
    with pytest.raises(InputError, match="is no folder"):
        generate(recipe, tmp_path / "note.txt", workers=0)
    shutil.copytree(reference, tmp_path / "deep")
    for name in ("manifest.json", "generation.json"):
        (tmp_path / "deep" / name).write_text("[" * 200_000)
        with pytest.raises(InputError, match=rf"{name} is damaged"):
            (datasets.open if name == "manifest.json" else lambda place: generate(recipe, place))(tmp_path / "deep")
    with pytest.raises(InputError, match="'cdua' is not a device"):
        generate(recipe, tmp_path / "data", workers=0, device="cdua")


def test_the_program_says_what_is_wrong(tmp_path: Path) -> None:
    told = CliRunner().invoke(app, ["data", "generate", "darcy-65", "--output", str(tmp_path / "data")])
    assert told.exit_code == 2
    assert "sciml: no recipe is called 'darcy-65'; did you mean 'darcy-64'?" in told.output
    listed = CliRunner().invoke(app, ["data", "generate", "--list"])
    assert listed.exit_code == 0
    assert all(name in listed.output for name in datasets.shipped_recipes())
