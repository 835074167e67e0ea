"""Solvers: of linear systems (`sciml.solvers.linear`), and `sciml.solve` itself."""

if not __name__.startswith("sciml."):
    raise ImportError("this folder is the package sciml.solvers: import it by that name", name=__name__)
