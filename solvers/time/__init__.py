"""Integrators in time for du/dt = f(u, t)."""
