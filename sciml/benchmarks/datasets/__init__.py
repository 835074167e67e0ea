"""Samples of datasets generated against other people's solvers."""
