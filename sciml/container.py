"""HDF5 files that are written whole, and whose every byte is checked before the HDF5 library sees them.

The file begins with a user block of 512 bytes, which HDF5 skips and every HDF5 program accepts. It holds one line of
text: what the file is, the version of its format, its length, and the SHA-256 digest of what it is, of the version and
of all that follows. A file that was cut short, or in which a single bit has changed, is refused for what it is: the
HDF5 library itself is known to crash or to hang on such.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py

from .errors import InputError
from .files import target, write_whole

BLOCK = 512
_CHUNK = 1 << 20
_MAGIC = b"sciml HDF5 file "
HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"


def write(path: str | os.PathLike[str], kind: str, format_version: int, fill: Callable[[h5py.File], None]) -> None:
    """Make an HDF5 file in memory by `fill`, then write it, whole or not at all.

    Args:
        kind: what the file holds, a word that `read` must be given again.
        format_version: of the layout within; a reader refuses a newer one than it knows.

    Raises:
        InputError: `path` cannot become a file.
        OSError: the disk is full or not writable; what stood at `path` is unharmed.
    """
    target(path, (".h5", ".hdf5"))
    buffer = io.BytesIO()
    with h5py.File(buffer, "w", userblock_size=BLOCK) as file:
        fill(file)
    with buffer.getbuffer() as image:
        digest = _hasher(kind, format_version)
        digest.update(image[BLOCK:])
        image[:BLOCK] = _header(kind, format_version, len(image), digest.hexdigest())
        write_whole(path, image)


@contextmanager
def read(path: str | os.PathLike[str], kind: str, format_version: int) -> Iterator[h5py.File]:
    """Open a file that `write` made, after checking it; whatever its content then raises is an InputError too.

    Raises:
        InputError: the file is missing, not HDF5, not ours, of another kind or a newer version, cut short or damaged.
    """
    check(path, kind, format_version)
    with reading(path, kind) as file:
        yield file


@contextmanager
def reading(path: str | os.PathLike[str], kind: str) -> Iterator[h5py.File]:
    """Open a file that `check` has found whole; whatever its content raises is an InputError."""
    try:
        with h5py.File(path, "r") as file:
            yield file
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    except (OSError, KeyError, IndexError, ValueError, TypeError, RuntimeError, AttributeError) as error:
        raise InputError(f"{path}: its content does not have the layout of a {kind}: {error}") from error


def is_ours(head: bytes) -> bool:
    """Whether a file that begins so claims to have been made by `write`."""
    return head.startswith(_MAGIC)


def _hasher(kind: str, format_version: int) -> hashlib._Hash:
    """Of what follows the header, begun with what the header says, as the first format was not."""
    return hashlib.sha256(b"" if format_version == 1 else f"{kind} {format_version}\n".encode())


def _header(kind: str, format_version: int, size: int, digest: str) -> bytes:
    content = {"kind": kind, "format": format_version, "bytes": size, "sha256": digest}
    return (_MAGIC + json.dumps(content).encode() + b"\n").ljust(BLOCK, b"\0")


def check(path: str | os.PathLike[str], kind: str, format_version: int, *, content: bool = True) -> tuple[int, str]:
    """The number of bytes of a file that `write` made and the digest that it bears, after checking it.

    Args:
        content: False compares the length only, and leaves the bytes after the header unread.

    Raises:
        InputError: as `read`.
    """
    path = Path(path)
    try:
        with open(path, "rb") as file:
            head = file.read(BLOCK)
            if not head.startswith(_MAGIC):
                raise InputError(f"{path} {_stranger(head)}")
            try:
                header = json.loads(head[len(_MAGIC) :].split(b"\n", 1)[0])
                found = (header["kind"], header["format"], header["bytes"], header["sha256"])
                intact = head == _header(*found) and isinstance(found[1], int)
            except (ValueError, KeyError, TypeError):
                intact = False
            if not intact:
                raise InputError(f"{path} is damaged: its first {BLOCK} bytes, which describe the rest, have changed")
            if found[0] != kind:
                raise InputError(f"{path} holds a {found[0]}; a {kind} is needed")
            if found[1] > format_version:
                raise InputError(
                    f"{path} was written by a newer version of sciml (format {found[1]}; this one reads up to "
                    f"{format_version}): upgrade sciml"
                )
            size = os.fstat(file.fileno()).st_size
            if size != found[2]:
                how = "cut short" if size < found[2] else "longer than it was"
                raise InputError(f"{path} is {how}: it was written with {found[2]} bytes and has {size}")
            digest = _hasher(kind, found[1])
            while content and (block := file.read(_CHUNK)):
                digest.update(block)
            if content and digest.hexdigest() != found[3]:
                raise InputError(f"{path} is damaged: its content is no longer what was written (SHA-256 differs)")
            return size, str(found[3])
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error


def _stranger(head: bytes) -> str:
    if not head:
        return "is empty"
    if head.startswith(HDF5_SIGNATURE):
        return "is an HDF5 file, but not one that sciml wrote"
    return "is not an HDF5 file"
