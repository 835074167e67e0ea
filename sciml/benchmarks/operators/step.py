"""One step of training: forward, backward and the optimizer, of MgNO and of networks with as many real numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from sciml.operators import FNO, DeepONet, MgNO, RelativeL2, UNet

from ...training import AdamW
from ..bench import Bench, version_of
from ..evolution.compiled import warmed
from ..evolution.one_core import one_core
from ..row import Row
from ..timing import Contender, Outcome
from .contestants import DEEPONET, MGNO, NEURALOPERATOR_FNO, OWN_FNO, UNET
from .peers import NeuraloperatorFNO, PlainMgNO, real_numbers

COMPILED = "MgNO, compiled"
PLAIN = "MgNO, plain writing"
GRAPHS = "graphs of torch.compile"

_RATE, _DECAY = 1e-3, 1e-4


@dataclass(frozen=True)
class Problem:
    """What is stepped with.

    Args:
        points: along an axis.
        batch: samples of a step.
        channels, layers, levels: of MgNO; the defaults are the published settings.
        modes, width: of the two FNOs.
        compiled: whether the compiled network is timed too.
    """

    points: int = 64
    batch: int = 8
    channels: int = 24
    layers: int = 4
    levels: Sequence[int] = (1, 1, 1, 1, 1, 2)
    modes: Sequence[int] = (16, 16)
    width: int = 22
    compiled: bool = True

    def mgno(self) -> MgNO:
        """Ours."""
        return MgNO(
            in_channels=1, channels=self.channels, layers=self.layers, levels=[(steps, 0) for steps in self.levels]
        )

    def plain(self) -> PlainMgNO:
        """The plain writing."""
        return PlainMgNO(self.channels, self.layers, self.levels)

    def fno(self) -> FNO:
        """Ours."""
        return FNO(in_channels=1, out_channels=1, modes=self.modes, width=self.width)

    def neuraloperator_fno(self) -> NeuraloperatorFNO:
        """Theirs."""
        return NeuraloperatorFNO(in_channels=1, out_channels=1, modes=self.modes, width=self.width)

    def fields(self, device: str) -> tuple[Tensor, Tensor]:
        """Inputs and outputs of a batch."""
        generator = torch.Generator().manual_seed(0)
        x, y = torch.randn(2, self.batch, 1, self.points, self.points, generator=generator)
        return x.to(device), y.to(device)


def step_case(problem: Problem, one_thread: bool, device: str = "cpu") -> str:
    """Name of the case."""
    threads = "" if device == "cuda" else ", one thread" if one_thread else ", all threads"
    return f"training step {problem.points}x{problem.points}, batch {problem.batch}{threads}"


def measure_step(problem: Problem, one_thread: bool, bench: Bench) -> list[Row]:
    """All networks in turn on one batch."""
    x, y = problem.fields(bench.device)

    def contender(
        method: str,
        library: str,
        make: Callable[[], nn.Module],
        optimizer: Callable[[nn.Module], torch.optim.Optimizer],
        compile: bool = False,
    ) -> Contender:
        step = Step(make, optimizer, x, y, compile)

        def finish(network: nn.Module) -> Outcome:
            count = real_numbers(network)
            return Outcome(note=f"{count:,} parameters", extra={"parameters": count})

        return Contender(method, library, version_of(library), lambda _: step(), finish, device=bench.device)

    adamw = AdamW(_RATE, weight_decay=_DECAY).build
    contenders = [
        contender(MGNO, "sciml", problem.mgno, adamw),
        contender(PLAIN, "torch", problem.plain, _plain_adam),
        contender(NEURALOPERATOR_FNO, "neuraloperator", problem.neuraloperator_fno, adamw),
        contender(OWN_FNO, "sciml", problem.fno, adamw),
    ]
    with one_core() if one_thread else nullcontext():
        for item in contenders:
            with suppress(Exception):  # networks are made and libraries loaded; the run that is timed tells what fails
                bench.say(f"{item.method}, first step")
                item.solve(None)
        if problem.compiled:
            bench.say("MgNO is compiled")
            contenders.insert(1, warmed(contender(COMPILED, "sciml", problem.mgno, adamw, compile=True)))
        rows = bench.compare(step_case(problem, one_thread, bench.device), contenders, unknowns=x.numel())
    return [replace(row, dtype="float32") for row in rows]


class Step:
    """A step of training on a batch that stays the same.

    Args:
        make: the network; called at the first step.
        optimizer: of the network.
        x, y: input and output of the batch.
        compile: whether the network is compiled.
    """

    def __init__(
        self,
        make: Callable[[], nn.Module],
        optimizer: Callable[[nn.Module], torch.optim.Optimizer],
        x: Tensor,
        y: Tensor,
        compile: bool = False,
    ) -> None:
        self._make, self._optimizer, self._compile = make, optimizer, compile
        self._x, self._y, self._loss = x, y, RelativeL2()
        self._made: tuple[nn.Module, Callable[[Tensor], Tensor], torch.optim.Optimizer] | None = None

    def __call__(self) -> nn.Module:
        if self._made is None:
            torch.manual_seed(0)
            network = self._make().to(self._x.device)
            called: Any = torch.compile(network) if self._compile else network
            self._made = network, called, self._optimizer(network)
        network, called, optimizer = self._made
        optimizer.zero_grad()
        self._loss(called(self._x), self._y).mean().backward()
        optimizer.step()
        return network


def _plain_adam(network: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.Adam(network.parameters(), lr=_RATE, weight_decay=_DECAY, foreach=False)


def measure_graphs(problem: Problem, bench: Bench) -> list[Row]:
    """Into how many pieces torch.compile cuts each network."""
    x, _ = problem.fields(bench.device)
    space = (problem.points, problem.points)
    one: dict[str, Any] = {"in_channels": 1, "out_channels": 1}
    networks: dict[str, tuple[str, Callable[[], nn.Module]]] = {
        MGNO: ("sciml", problem.mgno),
        OWN_FNO: ("sciml", problem.fno),
        UNET: ("sciml", partial(UNet, **one, width=4)),
        DEEPONET: ("sciml", partial(DeepONet, **one, grid=space, basis=8, width=4)),
        NEURALOPERATOR_FNO: ("neuraloperator", problem.neuraloperator_fno),
    }
    rows = []
    for name, (library, make) in networks.items():
        bench.say(f"graph breaks of {name}")
        row = bench.row(GRAPHS, name, library, version=version_of(library), dtype="float32")
        try:
            torch._dynamo.reset()
            explained = torch._dynamo.explain(make().to(bench.device))(x)
        except ModuleNotFoundError as error:
            failure = f"{error.name} is not installed (pip install 'sciml-torch[bench]')"
            rows.append(replace(row, extra={"failure": failure}))
            continue
        breaks = int(explained.graph_break_count)
        note = f"{breaks} graph break{'' if breaks == 1 else 's'}"
        rows.append(replace(row, extra={"graph_breaks": breaks, "note": note}))
    torch._dynamo.reset()
    return rows
