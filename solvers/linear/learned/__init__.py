"""Linear solvers and preconditioners that are learned."""
