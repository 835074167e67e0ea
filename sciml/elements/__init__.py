"""P1 finite elements on triangles and tetrahedra: from a symbolic equation on a mesh to operator and right side."""

from __future__ import annotations

from .evolving import MeshEvolution, discretize_evolving_on_mesh
from .nonlinear_system import NonlinearMeshSystem, discretize_nonlinear_on_mesh
from .system import MeshSystem, discretize_on_mesh

__all__ = [
    "MeshEvolution",
    "MeshSystem",
    "NonlinearMeshSystem",
    "discretize_evolving_on_mesh",
    "discretize_nonlinear_on_mesh",
    "discretize_on_mesh",
]
