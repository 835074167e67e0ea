"""Writing a file whole or not at all, and a folder that one process has to itself."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

from .errors import InputError


def target(path: str | os.PathLike[str], suffixes: tuple[str, ...] = ()) -> Path:
    """The file that `path` means, links followed; what cannot become a file is refused before any work is done for it.

    Args:
        path: where the file is to stand; its folder must exist.
        suffixes: the endings that are allowed, with their dot; none means any.

    Raises:
        InputError: the folder does not exist, the path is a folder, or the ending is not one of `suffixes`.
    """
    try:
        resolved = Path(os.path.realpath(path))
    except TypeError as error:
        raise InputError(f"the path of a file is a text or a path, got {path!r}") from error
    if suffixes and resolved.suffix.lower() not in suffixes:
        raise InputError(f"{path}: a file name ending in {' or '.join(suffixes)} is needed")
    if resolved.is_dir():
        raise InputError(f"{path} is a folder; give the name of a file in it")
    if not resolved.parent.is_dir():
        raise InputError(f"{path}: the folder {resolved.parent} does not exist; make it first")
    return resolved


def write_whole(path: str | os.PathLike[str], data: bytes | bytearray | memoryview) -> None:
    """Write `data` to `path` so that at every moment either the old file or the new one stands there, whole.

    The data goes to a temporary name in the same folder (".NAME.RANDOM.part"), is flushed to the disk and renamed. If
    anything fails, the temporary file is removed and the old file stays. A process that is killed can leave the
    temporary file behind, never a damaged `path`.

    Raises:
        InputError: the folder does not exist or the path is a folder.
        OSError: the disk is full, or writing is not permitted; it names `path`.
    """
    final = target(path)
    temporary = final.with_name(f".{final.name[:200]}.{secrets.token_hex(8)}.part")
    try:
        with open(temporary, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, final)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        if isinstance(error, OSError):
            message = f"could not write it ({error.strerror}); what stood there before is unharmed"
            raise OSError(error.errno, message, str(path)) from error
        raise
    _flush_folder(final.parent)


def _flush_folder(folder: Path) -> None:
    """Make a rename in `folder` last through a loss of power, where the system has a way to say so."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextlib.contextmanager
def alone_in(folder: str | os.PathLike[str], doing: str) -> Iterator[None]:
    """Have a folder to itself among all that ask so, by a lock on its file ".lock", which ends with the process.

    Args:
        folder: which exists. Where its file system knows no locks, nothing is refused.
        doing: what is done in it, for the message.

    Raises:
        InputError: another process has it.
        OSError: the folder is not writable.
    """
    import fcntl  # not everywhere there is, as sciml.files is needed

    with open(Path(folder) / ".lock", "a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(f"another process is {doing} in {folder}: wait for it, or give another folder") from error
        except OSError:
            pass
        yield
