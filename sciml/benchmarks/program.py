"""What `sciml bench` does."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from ..errors import InputError
from ..files import target, write_whole
from .suite import Device, Size, Suite
from .suites import SUITES


def bench(names: Sequence[str], size: Size, device: Device, path: Path | None) -> None:
    """Run suites, print their tables and figures, and write them as JSON if asked to.

    Args:
        names: of the suites; all if empty.
        size, device: how large, and where.
        path: of the JSON file, or None.

    Raises:
        InputError: for an unknown suite, a device that is not there, or a path that cannot become a file.
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
        runs = [run(suite, size.value, device.value, say) for suite in suites]
    for finished in runs:
        show(finished)
    if path is not None:
        write_whole(path, (json.dumps(as_json(runs), indent=1) + "\n").encode())
        print(f"\nwritten: {path}")


def _find(name: str) -> Suite:
    for suite in SUITES:
        if suite.name == name:
            return suite
    from ..boundary import suggestion

    raise InputError(f"there is no suite {name!r}{suggestion(name, [suite.name for suite in SUITES])}")
