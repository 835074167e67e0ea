"""Poisson's equation on the unit square, zero on its sides."""

import sciml

equation = sciml.Equation("-laplacian(u) = f")
square = sciml.Grid((255, 255), boundary=sciml.Dirichlet(0.0))
solution = sciml.solve(equation, square, fields={"f": 1.0})

print(solution)
print(f"largest value {solution.value.max():.7f}, by Fourier series 0.0736713")
solution.plot("poisson.png")
