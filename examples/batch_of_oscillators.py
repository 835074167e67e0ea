"""A batch whose rows take steps of their own: Van der Pol's oscillator, from mild to stiff."""

import torch

import sciml
from sciml.equations import catalogue

equation = catalogue.get("van_der_pol").equation
mu = torch.tensor([0.5, 2.0, 8.0], dtype=torch.float64)
start = torch.tensor([2.0, 0.0], dtype=torch.float64).expand(3, 2)
times = torch.linspace(0, 40, 2001, dtype=torch.float64)


def run(control):
    return sciml.evolve(equation, initial=start, times=times, parameters={"mu": mu}, rtol=1e-8, control=control)


joint, row = run("joint"), run("row")
print(row)
for place, value in enumerate(mu.tolist()):
    together, alone = (int(solution.statistics["steps"][place]) for solution in (joint, row))
    amplitude = row.value[place, 500:, 0].max()
    print(f"mu {value:4.1f}: {alone} steps of its own, {together} together; amplitude {amplitude:.4f}")
print(f"largest difference for the mildest {(joint.value - row.value)[0].abs().max():.1e}")
row.plot("batch_of_oscillators.png")
