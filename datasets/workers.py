"""Makes shards in other processes: each is a fresh interpreter whose threads are set before it loads torch.

A process reads tasks from its standard input, a line of JSON each, and answers with a line each. It ends when its input
does, so that none outlives the one that started it by more than a shard.
"""

from __future__ import annotations

import errno
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sciml.errors import InputError

from .environment import devices_of, environment
from .making import Task, make_shard
from .manifest import ShardEntry
from .recipe import Recipe, load_recipe

if TYPE_CHECKING:
    from distributed import Client

Outcome = tuple[Task, ShardEntry | Exception]
_TAIL = 2000  # characters of what a process that died had said


def in_processes(
    recipe: Recipe, tasks: Sequence[Task], folder: Path, workers: int, devices: Sequence[str]
) -> Iterator[Outcome]:
    """Make shards in `workers` processes; an outcome each, in the order in which they come.

    After the first failure no further shards are begun. A process that dies takes only its shard with it.

    Args:
        recipe: of the dataset.
        tasks: shards to make.
        folder: of the dataset, which the processes share.
        workers: number of processes.
        devices: where they compute, one after another.
    """
    waiting: queue.SimpleQueue[Task] = queue.SimpleQueue()
    outcomes: queue.SimpleQueue[Outcome | None] = queue.SimpleQueue()
    for task in tasks:
        waiting.put(task)
    processes = [_Process(recipe, folder, devices[k % len(devices)]) for k in range(min(workers, len(tasks)))]
    stop = threading.Event()

    def serve(process: _Process) -> None:
        while not stop.is_set():
            try:
                task = waiting.get_nowait()
            except queue.Empty:
                break
            outcome = process.make(task)
            outcomes.put((task, outcome))
            if process.ended:
                break
            if isinstance(outcome, Exception):
                stop.set()
        outcomes.put(None)

    threads = [threading.Thread(target=serve, args=(process,), daemon=True) for process in processes]
    try:
        for thread in threads:
            thread.start()
        serving = len(threads)
        while serving:
            outcome = outcomes.get()
            if outcome is None:
                serving -= 1
            else:
                yield outcome
    finally:
        stop.set()
        for process in processes:
            process.end()


class _Process:
    """One process that makes shards."""

    def __init__(self, recipe: Recipe, folder: Path, device: str) -> None:
        self._said = tempfile.TemporaryFile()
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", __name__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            env={**os.environ, **environment_of(recipe.threads)},
            text=True,
        )
        self._first = {"content": recipe.content, "folder": str(folder), "device": device}
        self.ended = False

    def make(self, task: Task) -> ShardEntry | Exception:
        """Have a shard made."""
        try:
            for message in (self._first, asdict(task)):
                if message and self._process.stdin is not None:
                    self._process.stdin.write(json.dumps(message) + "\n")
                    self._process.stdin.flush()
            self._first = {}
            answer = self._process.stdout.readline() if self._process.stdout is not None else ""
        except OSError:
            answer = ""
        if not answer.endswith("\n"):
            self.ended = True
            return self._death(task)
        return _read(json.loads(answer))

    def end(self) -> None:
        """End it, whatever it does."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                try:
                    pipe.close()
                except OSError:  # what it had not read
                    pass
        self._said.close()

    def _death(self, task: Task) -> ChildProcessError:
        code = self._process.wait()
        try:
            how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        except ValueError:
            how = f"was ended by signal {-code}"
        if code == -signal.SIGKILL:
            how += ", as the system does where memory runs out: fewer workers, or a smaller batch, need less"
        self._said.seek(0, os.SEEK_END)
        self._said.seek(max(0, self._said.tell() - _TAIL))
        said = self._said.read().decode(errors="replace").strip()
        return ChildProcessError(
            errno.ECHILD,
            f"process {self._process.pid}, which made {task.split} shard {task.number}, {how}"
            + (f". It last said: {said}" if said else ""),
        )


def environment_of(threads: int) -> dict[str, str]:
    """What must stand in the environment before torch is loaded: workers that spin slow down a shared machine."""
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    return {"GOMP_SPINCOUNT": "1000", "OMP_WAIT_POLICY": "PASSIVE", **dict.fromkeys(names, str(threads))}


def on_dask(recipe: Recipe, tasks: Sequence[Task], folder: Path, client: Client, device: str) -> Iterator[Outcome]:
    """Make shards on the machines of a Dask cluster, which share `folder`; an outcome each as they come.

    After the first failure no further shards are begun. The shard of a worker that dies is given to others, as often as
    the cluster's `distributed.scheduler.allowed-failures` says.
    """
    from distributed import as_completed

    futures = {
        client.submit(_make_remotely, recipe.content, asdict(task), str(folder), device, pure=False): task
        for task in tasks
    }
    try:
        for future in as_completed(list(futures)):
            error = future.exception()
            if error is None:
                yield futures[future], future.result()
            else:
                task = futures[future]
                yield task, _of_the_cluster(error, f"make {task.split} shard {task.number}")
                return
    finally:
        client.cancel(list(futures))


def environment_on_dask(recipe: Recipe, client: Client, device: str) -> dict[str, Any]:
    """`environment` of a worker of a Dask cluster, waited for if need be; all are taken to be alike.

    Raises:
        InputError: it has no such device. ChildProcessError: it died.
    """
    future = client.submit(_environment_there, recipe.content, device, pure=False)
    error = future.exception()
    if error is not None:
        raise _of_the_cluster(error, "begin")
    found: dict[str, Any] = future.result()
    return found


def _environment_there(content: Mapping[str, Any], device: str) -> dict[str, Any]:
    return environment(load_recipe(content), devices_of(device)[0])


def _of_the_cluster(error: Exception, what: str) -> Exception:
    """What a worker raised, or in place of what the cluster raised that a worker died."""
    from distributed import CancelledError, KilledWorker

    if not isinstance(error, CancelledError | KilledWorker):
        return error
    return ChildProcessError(errno.ECHILD, f"of the workers of the cluster none lived to {what} ({error})")


def _make_remotely(content: Mapping[str, Any], task: Mapping[str, Any], folder: str, device: str) -> ShardEntry:
    return make_here(load_recipe(content), Task(**task), folder, device)


def make_here(recipe: Recipe, task: Task, folder: str | os.PathLike[str], device: str) -> ShardEntry:
    """Make a shard in this process, with the recipe's number of threads."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(recipe.threads)
    try:
        return make_shard(recipe, task, folder, device)
    finally:
        torch.set_num_threads(before)


def _serve() -> None:
    """What a process does that was started by `in_processes`."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of Ctrl-C the one that started it decides
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints is no answer
    first = json.loads(sys.stdin.readline())
    recipe = load_recipe(first["content"])
    for line in sys.stdin:
        try:
            answer = asdict(make_here(recipe, Task(**json.loads(line)), first["folder"], first["device"]))
        except Exception as error:
            answer = {"error": _written(error)}
        print(json.dumps(answer), file=answers, flush=True)


def _written(error: Exception) -> dict[str, Any]:
    if isinstance(error, InputError):
        return {"kind": "input", "message": str(error)}
    if isinstance(error, OSError):
        return {"kind": "system", "number": error.errno, "message": error.strerror, "file": error.filename}
    if isinstance(error, MemoryError):
        return {"kind": "memory", "message": str(error)}
    return {"kind": "other", "message": "".join(traceback.format_exception(error))}


def _read(answer: Mapping[str, Any]) -> ShardEntry | Exception:
    error = answer.get("error")
    if error is None:
        return ShardEntry(**{**answer, "identities": tuple(answer["identities"])})
    match error["kind"]:
        case "input":
            return InputError(error["message"])
        case "system":
            return OSError(error["number"], error["message"], error["file"])
        case "memory":
            return MemoryError(error["message"])
    return RuntimeError(error["message"])


if __name__ == "__main__":
    _serve()
