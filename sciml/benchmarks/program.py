"""What `sciml bench` does."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ..errors import InputError
from ..files import target, write_whole
from .suite import Device, Plan, Size, Suite
from .suites import SUITES


def bench(names: Sequence[str], size: Size, device: Device, path: Path | None, only: Sequence[str] = ()) -> None:
    """Run suites, print their tables and figures, and write them as JSON if asked to.

    Args:
        names: of the suites; all if empty.
        size, device: how large, and where.
        path: of the JSON file, beside which pictures stand, or None.
        only: texts, one of which the name of a case must contain; all cases if empty.

    Raises:
        InputError: for an unknown suite, texts that no case contains, a device that is not there, or a path that cannot
            become a file.
    """
    suites = [_find(name) for name in dict.fromkeys(names)] or SUITES
    if path is not None:
        target(path)
    from .report import as_json, progress, show
    from .runner import run

    with progress() as say:
        say("loading torch")
        if device is Device.CUDA:
            import torch

            if not torch.cuda.is_available():
                raise InputError("there is no CUDA device here, or this torch was built without: use --device cpu")
        plans = [_chosen(suite.plan(size.value, device.value), only) for suite in suites]
        if not any(plan.cases for plan in plans):
            raise InputError(_no_case(only, suites, size, device))
        runs = [
            run(suite, size.value, device.value, say, plan)
            for suite, plan in zip(suites, plans, strict=True)
            if plan.cases
        ]
    for finished in runs:
        show(finished)
    if path is not None:
        write_whole(path, (json.dumps(as_json(runs), indent=1) + "\n").encode())
        print(f"\nwritten: {path}")
        for suite in suites:
            for finished in runs:
                if finished.suite == suite.name and suite.picture and (content := suite.picture(finished.rows)):
                    beside = path.with_name(f"{path.stem}-{suite.name}.png")
                    write_whole(beside, content)
                    print(f"written: {beside}")


def _chosen(plan: Plan, only: Sequence[str]) -> Plan:
    """The plan with the cases whose names contain one of the texts."""
    return replace(plan, cases=tuple(case for case in plan.cases if any(text in case.name for text in only or [""])))


def _no_case(only: Sequence[str], suites: Sequence[Suite], size: Size, device: Device) -> str:
    names = [case.name for suite in suites for case in suite.plan(size.value, device.value).cases]
    texts = " or ".join(repr(text) for text in only)
    return f"no case at size {size.value} has {texts} in its name; there are: {'; '.join(names)}"


def _find(name: str) -> Suite:
    for suite in SUITES:
        if suite.name == name:
            return suite
    from ..boundary import suggestion

    raise InputError(f"there is no suite {name!r}{suggestion(name, [suite.name for suite in SUITES])}")
