"""How the direction networks that come with the package are made.

    from sciml.solvers.linear.learned.direction_recipe import BOX_3D
    BOX_3D.train("runs/box-3d", progress=True)        # may be interrupted; the same line goes on

leaves `runs/box-3d/direction-network-box-3d.safetensors`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from math import pi
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor

from sciml.boundary import Boundary, Dirichlet
from sciml.discretization import discretize
from sciml.equations import Equation
from sciml.grid import Grid
from sciml.linear_operator import LinearOperator
from sciml.machine import processor
from sciml.training import Adam, OneCycle, Plan, checkpoint
from sciml.training.plan import Precision

from ..conjugate_gradient import ConjugateGradient
from .deep_conjugate_direction import DeepConjugateDirection
from .direction_network import KIND, DirectionNetwork
from .direction_training import DirectionTraining, train_direction_network


@final
@dataclass(frozen=True)
class Stage:
    """A part of a training, at one size.

    Args:
        points: cells an axis.
        steps: of the optimizer.
        batch_size: residuals of a step.
        rate: the largest learning rate, of one cycle.
        vectors: Ritz vectors, in float32.
        precision: of the convolutions, see sciml.training.Plan.
    """

    points: int
    steps: int
    batch_size: int
    rate: float
    vectors: int
    precision: Precision = "bf16"


@final
@dataclass(frozen=True)
class DirectionRecipe:
    """A training of a published network on -laplacian(u) = f in the unit cube, from small to large.

    Args:
        name: of the weights.
        boundary: conditions on the faces.
        mirrored: whether the problem has the symmetries of the cube.
        stages: one after the other, each beginning with the weights of the one before.
        published: 64 or 128, see DirectionNetwork.published.
        seed: of weights, Ritz vectors and residuals.
    """

    name: str
    boundary: Boundary
    mirrored: bool
    stages: tuple[Stage, ...]
    published: int = 64
    seed: int = 0

    def operator(self, points: int) -> LinearOperator:
        """-laplacian with its conditions, 7 points, on a cube of so many cells an axis."""
        grid = Grid((points,) * 3, boundary=self.boundary)
        operator: LinearOperator = discretize(Equation("-laplacian(u) = f"), grid, fields={"f": 0.0}).operator
        return operator

    def train(self, folder: str | os.PathLike[str], *, resume: bool = True, progress: bool = False) -> Path:
        """Train in a folder, from where an earlier call was interrupted, and write the weights.

        Args:
            folder: for the checkpoints of every stage, and the weights.
            resume: go on with the first stage if the folder has a part of it; the others go on in any case.
            progress: show a bar on a terminal, plain lines elsewhere.

        Returns:
            The file of weights, which says what the training was and what it cost.

        Raises:
            InputError: there is a part of the first stage, which is not to be resumed; or it is of another recipe.
            KeyboardInterrupt: SIGINT or SIGTERM ended it, after a checkpoint.
        """
        place = Path(folder)
        network = DirectionNetwork.published(self.published, mean_square=True, seed=self.seed)
        about: list[Mapping[str, Any]] = []
        for number, stage in enumerate(self.stages):
            part = place / f"stage-{number}"
            training = train_direction_network(
                network,
                self.operator(stage.points),
                self._settings(stage, number),
                folder=part,
                # A later stage that has not begun is nothing that one could have asked to resume.
                resume=resume if number == 0 else bool(checkpoint.found(part / "checkpoints")),
                save_every=120.0,
                progress=progress,
            )
            loss = float(training.validations["loss"][-1])
            spent = {"samples": training.steps * stage.batch_size, "seconds": round(training.seconds, 1), "loss": loss}
            about.append({**asdict(stage), **spent})
        path = place / f"{KIND}-{self.name}.safetensors"
        network.save(
            path,
            {
                "problem": "-laplacian(u) = f in the unit cube, 7 points",
                "boundary": str(self.boundary),
                "stages": about,
                "seconds": sum(part["seconds"] for part in about),
                "samples": sum(part["samples"] for part in about),
                "processor": processor(torch.device("cpu")),
                "threads": torch.get_num_threads(),
                "seed": self.seed,
            },
        )
        return path

    def _settings(self, stage: Stage, number: int) -> DirectionTraining:
        return DirectionTraining(
            vectors=stage.vectors,
            mirrored=self.mirrored,
            samples=stage.steps * stage.batch_size,
            held_out=32,
            seed=self.seed + number,
            plan=Plan(
                steps=stage.steps,
                batch_size=stage.batch_size,
                optimizer=Adam(stage.rate),
                schedule=OneCycle(peak=0.15),
                clip=1.0,
                precision=stage.precision,
                seed=self.seed + number,
            ),
        )

    def compare(
        self, network: DirectionNetwork, points: int, *, rtol: float = 1e-4, directions: int = 2
    ) -> dict[str, dict[str, float]]:
        """Iterations and seconds with the network and of conjugate gradients, on right sides that no training had.

        Args:
            network: trained.
            points: cells an axis.
            rtol: relative residual to reach.
            directions: see DeepConjugateDirection.

        Returns:
            By right side: iterations "deep" and "plain", and their seconds.
        """
        operator = self.operator(points)
        results = {}
        for name, b in {"normal": normal(points), "divergence": divergence(points)}.items():
            row: dict[str, float] = {}
            deep = DeepConjugateDirection(network, directions, rtol=rtol, max_iterations=1000)
            for method, solver in (("deep", deep), ("plain", ConjugateGradient(rtol=rtol))):
                start = time.perf_counter()
                solution = solver.solve(operator, b, throw=False)
                row[method] = int(solution.statistics["iterations"])
                row[f"{method}_seconds"] = round(time.perf_counter() - start, 3)
            results[name] = row
        return results


def normal(points: int, seed: int = 5) -> Tensor:
    """Independent normal numbers in every cell of a cube, float64."""
    return torch.randn((points,) * 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def divergence(points: int, seed: int = 5, waves: int = 12) -> Tensor:
    """Minus the divergence of a random smooth velocity, a sum of plane waves, in the unit cube, float64."""
    generator = torch.Generator().manual_seed(seed)
    centres = (torch.arange(points, dtype=torch.float64) + 0.5) / points
    place = torch.stack(torch.meshgrid(centres, centres, centres, indexing="ij"))
    total = torch.zeros((points,) * 3, dtype=torch.float64)
    for _ in range(waves):
        wave = pi * torch.randint(1, 7, (3,), generator=generator).double()
        phase = 2 * pi * float(torch.rand((), generator=generator))
        velocity = torch.randn(3, generator=generator, dtype=torch.float64) / wave.norm()
        total += (velocity @ wave) * torch.sin(torch.tensordot(wave, place, 1) + phase)
    return total


BOX_3D = DirectionRecipe(
    name="box-3d",
    boundary=Dirichlet(0.0),
    mirrored=True,
    stages=(
        Stage(points=16, steps=2500, batch_size=16, rate=2e-3, vectors=800),
        Stage(points=32, steps=1200, batch_size=8, rate=1e-3, vectors=1200),
        Stage(points=64, steps=150, batch_size=4, rate=5e-4, vectors=600),
    ),
)
"""An open box: u = 0 on all faces.

The weights that ship took 50,200 residuals and 57 minutes of a core that others were using too. Iterations to 1e-4 of
independent normal numbers and of a divergence, against those of conjugate gradients: 8 and 8 for 68 and 56 at 32 points
an axis, 9 and 10 for 124 and 118 at 64, 15 and 21 at 128, these in bfloat16. Of 600 residuals at 64 points the network
has learned little: for more, raise the steps of the last stage and call `train` on the same folder, where it goes on.
"""
