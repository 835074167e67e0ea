"""Neural operators: models that map the fields of one problem to the fields of its solution."""

if not __name__.startswith("sciml."):
    raise ImportError("this folder is the package sciml.operators: import it by that name", name=__name__)
