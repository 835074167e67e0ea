"""From a symbolic equation on a domain to an operator and a right side, made of tensors."""

from __future__ import annotations

from .system import System, discretize

__all__ = ["System", "discretize"]
