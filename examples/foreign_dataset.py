"""A dataset of another program: a file in PDEBench's layout is recognized, checked, imported and solved again."""

from pathlib import Path

import h5py

import sciml
from sciml import datasets, pictures

# Such a file is downloaded; this one is small and made here: 24 media in which -div(a grad u) = beta.
n, beta = 64, 1.0
square = sciml.Grid((n, n), boundary=sciml.Dirichlet(0.0))
patches = datasets.GaussianField(datasets.InversePower(alpha=2.0, tau=5.0), boundary=sciml.Neumann(0.0))
a = datasets.Threshold(patches, above=1.0, below=0.1).sample(square, seeds=range(24))
solution = sciml.solve(sciml.Equation("-div(a*grad(u)) = beta"), square, fields={"a": a, "beta": beta}, rtol=1e-10)
with h5py.File("2D_DarcyFlow_beta1.0_Train.hdf5", "w") as file:
    file["nu"], file["tensor"] = a.float(), solution.value.float().unsqueeze(1)
    file["x-coordinate"], file["y-coordinate"] = (line.float() for line in square.axis_coordinates)
    file.attrs["beta"] = beta

found = datasets.read(Path("2D_DarcyFlow_beta1.0_Train.hdf5"))
print(found.equation, "on", found.grid.shape, found.points, "from", found.inputs, "to", found.outputs)
if not Path("darcy").exists():
    datasets.import_dataset(found, "darcy", {"train": 16, "valid": 4, "test": 4}, shuffle=0)

data = datasets.open("darcy")
print(data)

# The equation and the conditions are known, so that what was read can be solved again.
test = data.split("test")
again = sciml.solve(test.equation, test.grid, fields={"a": test.read("a").double()}, rtol=1e-10)
difference = (again.value - test.read("u")).norm() / again.value.norm()
print(f"solved again: relative difference {difference:.1e}")
figure = pictures.draw_fields(test.grid, {"a": test.read("a")[:2], "u": test.read("u")[:2]}, ["sample 0", "sample 1"])
figure.savefig("foreign_dataset.png", dpi=100)
