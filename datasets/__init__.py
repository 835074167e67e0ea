"""Datasets: made from equations, or read from other formats."""

if not __name__.startswith("sciml."):
    raise ImportError("this folder is the package sciml.datasets: import it by that name", name=__name__)
