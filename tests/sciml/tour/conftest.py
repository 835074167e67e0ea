"""One quick run of the whole tour, which the tests of the tour read."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from sciml import tour


@dataclass(frozen=True)
class Visit:
    """What the tour left behind."""

    outcomes: list[tour.Outcome]
    folder: Path
    page: str
    content: dict[str, Any]

    def numbers(self, name: str) -> dict[str, Any]:
        """The numbers of a section, as demo.json has them."""
        return next(section["numbers"] for section in self.content["sections"] if section["name"] == name)


@pytest.fixture(scope="session")
def visit(tmp_path_factory: pytest.TempPathFactory) -> Visit:
    folder = tmp_path_factory.mktemp("tour")
    start = time.perf_counter()
    outcomes = tour.run(tour.SECTIONS, quick=True)
    html, numbers = tour.write(outcomes, folder, quick=True, seconds=time.perf_counter() - start)
    return Visit(outcomes, folder, html.read_text(encoding="utf-8"), json.loads(numbers.read_text(encoding="utf-8")))
