"""Compiled CPU kernels behind `sciml.stencil` and the multigrid transfers; see `build.library`."""
