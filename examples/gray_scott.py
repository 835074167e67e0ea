"""Two chemicals that make spots, worms or a labyrinth: three reactions as one batch."""

import torch
from matplotlib.figure import Figure

import sciml
from sciml.equations import catalogue

equation = catalogue.get("gray_scott").equation
square = sciml.Grid((96, 96), upper=1.5, boundary=sciml.Periodic())
x, y = square.coordinates
drops = torch.zeros_like(x)
for a, b in (0.25 + torch.rand(12, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)).tolist():
    drops += torch.exp(-((x - a) ** 2 + (y - b) ** 2) / 0.004)

F = torch.tensor([0.030, 0.046, 0.037], dtype=torch.float64)
k = torch.tensor([0.062, 0.063, 0.060], dtype=torch.float64)
solution = sciml.evolve(
    equation,
    square,
    initial={"u": 1 - drops / 2, "v": drops / 4},
    parameters={"F": F, "k": k},
    times=[0.0, 500.0, 1000.0, 1500.0],
    rtol=1e-3,
)
print(solution)
figure = Figure(figsize=(10, 3.5), layout="constrained")
for row, (axes, name) in enumerate(zip(figure.subplots(1, 3), ("spots", "worms", "labyrinth"), strict=True)):
    v = solution.fields["v"][row]
    print(f"{name}: V covers {', '.join(f'{part:.0%}' for part in (v > 0.1).double().mean((-2, -1)).tolist())}")
    axes.imshow(v[-1].T, origin="lower", cmap="magma", interpolation="bilinear")
    axes.set_axis_off()
    axes.set_title(name)
figure.savefig("gray_scott.png", dpi=150)
