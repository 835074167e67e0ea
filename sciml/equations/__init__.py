"""Equations as data: text in, a symbolic object out, from which everything else is made."""

from __future__ import annotations

from . import catalogue as catalogue
from .components import parse_expression as parse_expression
from .equation import Equation as Equation
from .evaluation import evaluate as evaluate
from .forms import Form as Form
from .forms import Term as Term
from .predicate import parse_predicate as parse_predicate
