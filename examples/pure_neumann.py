"""A closed box, nothing through its sides: the solution is fixed up to a constant, and the source must balance."""

import torch

import sciml

equation = sciml.Equation("-laplacian(u) = f")
box = sciml.Grid((200, 200), boundary=sciml.Neumann(0.0))


def source(x, y):
    into = torch.exp(-((x - 0.3) ** 2 + (y - 0.3) ** 2) / 0.004)
    out = torch.exp(-((x - 0.7) ** 2 + (y - 0.65) ** 2) / 0.004)
    return into - out


solution = sciml.solve(equation, box, fields={"f": source})
print(solution)
print(f"mean {solution.value.mean():.1e}, from {solution.value.min():.4f} to {solution.value.max():.4f}")
for note in solution.notes:
    print(f"  {note}")
solution.plot("pure_neumann.png")

try:
    sciml.solve(equation, box, fields={"f": 1.0})
except sciml.InputError as error:
    print(f"a source that does not balance is refused: {error}")
