"""The suite `geometry`: coefficients that jump and point in directions, meshes, scans, nonlinear equations."""
