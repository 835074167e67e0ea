"""The tour behind `sciml demo`: sections that solve something, and the page and numbers made of what they found."""

from .chapter import Chapter, Outcome, Section
from .program import demo, run, write
from .sections import SECTIONS

__all__ = ["SECTIONS", "Chapter", "Outcome", "Section", "demo", "run", "write"]
