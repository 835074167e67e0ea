"""How a training begins: with what all ranks agree on, anew or from a checkpoint, in a folder of its own."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from torch import nn

from ..errors import InputError
from ..files import alone_in
from . import checkpoint
from .checkpoint import Checkpoint
from .log import NAME as LOG
from .log import Log, entries
from .plan import EXTENSIBLE, Plan
from .ranks import Ranks
from .samples import Samples

_ABSENT = object()


@final
@dataclass(frozen=True)
class Beginning:
    """Where a training begins, the same on all ranks.

    Args:
        found: the checkpoint to go on from, if any.
        refused: why newer ones, of which only the first rank knows, are of no use.
        entries: of the log until then.
    """

    found: Checkpoint | None
    refused: Mapping[Path, str]
    entries: list[dict[str, Any]]


def identity(network: nn.Module, plan: Plan, about: Mapping[str, Any] | None) -> dict[str, Any]:
    """What a training is of, as JSON gives it back: with lists for tuples, and text for keys.

    Raises:
        InputError: `about` holds something else than JSON's values.
    """
    try:
        settled = json.loads(json.dumps(dict(about or {}), allow_nan=False))
    except (TypeError, ValueError) as error:
        values = "numbers, text, lists and tables of them"
        raise InputError(f"about holds JSON's values by name: {values} ({error})") from error
    return {"network": type(network).__name__, "plan": plan.described(), "about": settled}


def begin(
    network: nn.Module,
    samples: Samples,
    validation: Samples | None,
    given: Mapping[str, Any],
    place: Path | None,
    resume: bool,
    ranks: Ranks,
    stack: contextlib.ExitStack,
) -> Beginning:
    """The first rank locks the folder and chooses a checkpoint, and all read it; what one of them refuses, all refuse.

    Args:
        network, samples, validation, resume: as in `train`.
        given: see `identity`.
        place: the folder, if any.
        ranks: those that agree.
        stack: at whose end the folder is free again.

    Raises:
        InputError: no checkpoint is of use, another training is in the folder, or the ranks do not train the same.
    """
    found: Checkpoint | None = None
    refused: Mapping[Path, str] = {}
    with ranks.agreement():
        if place is not None and ranks.first:
            stack.enter_context(_locked(place))
            if resume:
                found, refused = checkpoint.newest(place / "checkpoints")
            elif checkpoint.found(place / "checkpoints"):
                raise InputError(
                    f"{place} holds a training already: resume it (resume=True, --resume), or give another folder"
                )
            if found is not None:
                _check_same(found, {**given, "samples": len(samples)})
                checkpoint.check_network(network, found)
    chosen = ranks.told(None if found is None else found.path.name)[0]
    logged: list[dict[str, Any]] = []
    with ranks.agreement():
        for name, held in (("samples", samples), ("validation samples", validation)):
            if held is not None and len(held) < 1:
                raise InputError(f"there are no {name}: at least one is needed")
        if place is not None and chosen is not None:
            found = found or checkpoint.read(place / "checkpoints" / chosen)
            logged = list(entries(place / LOG, found.record["position"]["log"]))
    mine = {
        **given,
        "samples": len(samples),
        "validation samples": None if validation is None else len(validation),
        "checkpoint": None if found is None else found.digest,
    }
    first, *others = ranks.told(mine)
    for rank, theirs in enumerate(others, 1):
        differences = _differences(first, theirs, "on rank 0", f"on rank {rank}")
        if differences:
            raise InputError(
                f"the ranks do not train the same: {'; '.join(differences)}; all need the same arguments, and machines "
                "share the folder"
            )
    return Beginning(found, refused, logged)


def continued(place: Path, beginning: Beginning, tensorboard: bool, stack: contextlib.ExitStack) -> tuple[Log, Any]:
    """The log and TensorBoard's writer in a folder, where the beginning left off.

    Args:
        place: the folder, which gets rid of what a killed process left there, and of refused checkpoints.
        beginning: what all ranks have read.
        tensorboard: as in `train`.
        stack: at whose end both are closed.
    """
    found = beginning.found
    checkpoint.clean(place / "checkpoints")
    for path in beginning.refused:
        checkpoint.set_aside(path)
    log = Log(place / LOG, found.record["position"]["log"] if found else 0)
    stack.callback(log.close)
    if not tensorboard:
        return log, None
    from torch.utils.tensorboard import SummaryWriter  # takes its time

    step = found.record["position"]["step"] + 1 if found else None
    board = SummaryWriter(place / "tensorboard", purge_step=step)
    stack.callback(board.close)
    return log, board


@contextlib.contextmanager
def _locked(place: Path) -> Iterator[None]:
    """A folder, made where there is none, that no other training may use."""
    try:
        (place / "checkpoints").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"the folder {place} cannot be made: {error.strerror}") from error
    with alone_in(place, "training"):
        yield


def _check_same(found: Checkpoint, given: Mapping[str, Any]) -> None:
    """Refuse a checkpoint of something else than what is given now."""

    def tables(record: Mapping[str, Any]) -> list[dict[str, Any]]:
        plan = {name: value for name, value in record["plan"].items() if name not in EXTENSIBLE}
        return [{name: record[name] for name in ("network", "samples")}, plan, record["about"]]

    pairs = zip(tables(found.record), tables(given), strict=True)
    changed = [text for theirs, ours in pairs for text in _differences(theirs, ours, "there", "here")]
    if changed:
        raise InputError(
            f"{found.path} is of another training ({'; '.join(changed)}): a training is resumed as it was, except for "
            f"{', '.join(EXTENSIBLE)}; give another folder to begin a new one"
        )


def _differences(first: Any, second: Any, one: str, other: str, name: str = "") -> list[str]:
    """What differs between two of JSON's values, by the names of the tables it stands in, and where it is what."""
    if isinstance(first, dict) and isinstance(second, dict):
        keys = {**first, **second}
        inner = [(first.get(key, _ABSENT), second.get(key, _ABSENT), f"{name}.{key}".lstrip(".")) for key in keys]
        return [text for a, b, path in inner for text in _differences(a, b, one, other, path)]
    if first == second:
        return []
    shown = ["absent" if value is _ABSENT else repr(value) for value in (first, second)]
    return [f"{name} {shown[0]} {one}, {shown[1]} {other}"]
