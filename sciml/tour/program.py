"""Runs the sections of the tour and writes its page and its numbers."""

from __future__ import annotations

import importlib.util
import json
import math
import platform
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from ..errors import InputError
from ..files import write_whole
from ..kernels import build as kernels
from ..machine import processor
from . import page
from .chapter import Outcome, Section
from .sections import SECTIONS

_LIBRARIES = ("sciml-torch", "torch", "numpy", "scipy", "sympy", "matplotlib", "pyamg")

Say = Callable[[str], None]


def demo(folder: Path, quick: bool) -> int:
    """What `sciml demo` does: run the tour, write its page, say where it is.

    Returns:
        the exit code, 1 if a section failed.

    Raises:
        InputError: if the folder is none.
        OSError: if the page cannot be written.
    """
    check_folder(folder)
    start = time.perf_counter()
    outcomes = run(SECTIONS, quick=quick, say=lambda line: print(line, file=sys.stderr, flush=True))
    files = write(outcomes, folder, quick=quick, seconds=time.perf_counter() - start)
    print("\n".join(str(file) for file in files))
    return int(any(outcome.status == "failed" for outcome in outcomes))


def run(sections: Sequence[Section], *, quick: bool = False, say: Say = lambda line: None) -> list[Outcome]:
    """Run sections one after the other; one that fails does not stop the others.

    Args:
        sections: what to run.
        quick: small sizes.
        say: called with one line of progress before and after every section.
    """
    outcomes = []
    kernels.library()  # compiled the first time, which is no part of any section
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse (CSR tensor support|invariant checks)")
        for number, section in enumerate(sections, 1):
            say(f"[{number}/{len(sections)}] {section.title}")
            outcomes.append(_run_one(section, quick))
            say(f"{' ' * len(f'[{number}/{len(sections)}]')} {_verdict(outcomes[-1])}")
    return outcomes


def write(outcomes: Sequence[Outcome], folder: Path, *, quick: bool, seconds: float) -> tuple[Path, Path]:
    """Write demo.html and demo.json into a folder, which is made if need be.

    Raises:
        InputError: if the folder is none.
        OSError: if the disk is full or not writable.
    """
    check_folder(folder)
    machine = describe_machine()
    html, numbers = folder / "demo.html", folder / "demo.json"
    write_whole(html, page.render(outcomes, machine, seconds).encode())
    content = {
        "quick": quick,
        "machine": machine,
        "seconds": seconds,
        "sections": [_as_json(outcome) for outcome in outcomes],
    }
    write_whole(numbers, (json.dumps(content, indent=2, allow_nan=False) + "\n").encode())
    return html, numbers


def check_folder(folder: Path) -> None:
    """Make a folder where there is none.

    Raises:
        InputError: if something else stands there.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is no folder; give one with --output")
    folder.mkdir(parents=True, exist_ok=True)


def describe_machine() -> dict[str, str]:
    """What ran where, label -> value, without names of the machine or its folders."""
    versions = {name: _version(name) for name in _LIBRARIES}
    facts = {"sciml": versions.pop("sciml-torch"), "Python": platform.python_version()}
    facts |= versions
    facts["processor"] = processor()
    facts["threads"] = str(torch.get_num_threads())
    facts["compiled kernels"] = "no" if kernels.library() is None else "yes"
    facts["system"] = f"{platform.system()} {platform.machine()}"
    facts["date"] = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    return facts


def _run_one(section: Section, quick: bool) -> Outcome:
    outcome = Outcome(section)
    missing = [name for name in section.needs if importlib.util.find_spec(name) is None]
    if missing:
        outcome.status = "left out"
        outcome.reason = (
            f"it needs {' and '.join(missing)}, which is not installed here; "
            f"`pip install 'sciml-torch[{section.extra}]'` brings it."
        )
        return outcome
    start = time.perf_counter()
    try:
        section.write(outcome.chapter, quick)
    except Exception as error:  # a section is somebody's code, and the others are still worth showing
        outcome.status, outcome.reason = "failed", f"{type(error).__name__}: {error}"
        traceback.print_exc(file=sys.stderr)
    outcome.seconds = time.perf_counter() - start
    false = [claim.text for claim in outcome.chapter.claims if not claim.holds]
    if false and outcome.status == "done":
        outcome.status, outcome.reason = "failed", f"a statement of it does not hold: {'; '.join(false)}"
    return outcome


def _verdict(outcome: Outcome) -> str:
    if outcome.status == "done":
        return f"{outcome.seconds:.1f} s, {outcome.chapter.headline.replace('`', '')}"
    return f"{outcome.status.upper()}: {outcome.reason}"


def _as_json(outcome: Outcome) -> dict[str, Any]:
    return {
        "name": outcome.section.name,
        "title": outcome.section.title,
        "status": outcome.status,
        "reason": outcome.reason,
        "seconds": outcome.seconds,
        "headline": outcome.chapter.headline,
        "claims": [{"text": claim.text, "holds": claim.holds} for claim in outcome.chapter.claims],
        "numbers": _plain(outcome.chapter.numbers),
    }


def _plain(item: Any) -> Any:
    """Numbers, texts, lists and dicts as JSON can hold them; what is not finite becomes null."""
    if isinstance(item, torch.Tensor):
        return _plain(item.tolist())
    if isinstance(item, dict):
        return {str(key): _plain(value) for key, value in item.items()}
    if isinstance(item, list | tuple):
        return [_plain(value) for value in item]
    return None if isinstance(item, float) and not math.isfinite(item) else item


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
