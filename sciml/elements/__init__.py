"""P1 finite elements on triangles and tetrahedra: from a symbolic equation on a mesh to operator and right side."""
