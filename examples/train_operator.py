"""An operator learned from solutions: a dataset, a short training, and its answers for media that it has not seen."""

from pathlib import Path

import torch

from sciml import datasets, operators, pictures
from sciml.training import AdamW, Linear, Plan

datasets.generate(Path(__file__).parent / "recipes" / "darcy-32.toml", "darcy-32")
data = datasets.open("darcy-32")
print(data)

torch.manual_seed(0)
network = operators.MgNO(in_channels=3, channels=16, layers=2, levels=[(1, 0)] * 4)
plan = Plan(epochs=6, batch_size=8, optimizer=AdamW(4e-3), schedule=Linear(warmup=0.1), clip=3.0, monitor="L2")
loss = operators.RelativeH1.on(data.grid)
operator, training = operators.train_operator(network, data, plan, loss=loss, coordinates=True)
operator.save("mgno")
print(f"{training.steps} steps; errors of validation: {', '.join(f'{e:.1%}' for e in training.validations['L2'])}")

test = data.split("test")
a, u = test.read("a"), test.read("u")
answer = operator({"a": a}, test.grid)["u"].detach()
errors = (answer - u).flatten(1).norm(dim=1) / u.flatten(1).norm(dim=1)
print(f"{len(test)} test samples: mean error {errors.mean():.1%}, largest {errors.max():.1%}")
shown = errors.argsort()[[len(test) // 2, -1]]
fields = {"a": a[shown], "u": u[shown], "answer": answer[shown], "difference": (answer - u)[shown]}
pictures.draw_fields(test.grid, fields, [f"error {e:.1%}" for e in errors[shown]]).savefig("train_operator.png")
