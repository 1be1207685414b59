"""A trace as one file, and back. Owns the form of a pack: a plain tar whose bytes depend on the trace's content alone.

Members are the trace's files, sorted, with no directory, owner or date; the same trace always packs to the same bytes. `unpack`
accepts exactly what `pack` writes: each header is rebuilt and compared, so there is nowhere to put a link, a device or a path
that leads elsewhere. Nothing is compressed (Parquet already is), so no member can be larger than the file that holds it.
"""

from __future__ import annotations

import os
import shutil
import stat
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final

from traces._errors import TraceError, UsageError
from traces.columns import printable

REQUIRED: Final = ("events.parquet", "manifest.json", "module.wasm")
MEMBERS: Final = (*REQUIRED, "seal.json", "spans.parquet", "states.parquet")
"""What a trace may consist of."""

_BLOCK = 512
_PIECE = 1 << 20
_TYPES = {b"1": "a hard link", b"2": "a symbolic link", b"3": "a device", b"4": "a device", b"5": "a directory", b"6": "a pipe"}


def pack(trace: Path, out: Path) -> Path:
    """Writes the trace to one new file and returns its path."""
    if not trace.is_dir():
        raise UsageError(f"{trace}: not a directory; name the trace to pack")
    names = sorted(entry.name for entry in os.scandir(trace))
    if "journal" in names:
        raise TraceError(f"{trace}: still has its journal; run `reprise recover {trace}` first")
    for name in names:
        if name not in MEMBERS:
            raise TraceError(f"{trace / printable(name)}: not a part of a trace; move it away before packing")
    for name in REQUIRED:
        if name not in names:
            raise TraceError(f"{trace}: has no {name}; only whole traces can be packed")
    if os.path.lexists(out):
        raise UsageError(f"{out}: exists already; choose another name")
    partial = out.with_name(out.name + ".partial")
    with _files(out):
        handle = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with _files(out), os.fdopen(handle, "wb") as file:
            for name in names:
                _add(file, trace / name)
            file.write(bytes(2 * _BLOCK))
        with _files(out):
            partial.rename(out)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    return out


def unpack(file: Path, out: Path) -> Path:
    """Writes a pack's files into a new directory, which appears only when all of them are there; returns its path."""
    if os.path.lexists(out):
        raise UsageError(f"{out}: exists already; choose another name")
    if not file.is_file():
        raise UsageError(f"{file}: no such file; name the pack to unpack")
    with _files(out):
        scratch = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        with _files(file), file.open("rb") as source:
            seen = _extract(source, file, scratch)
        for name in REQUIRED:
            if name not in seen:
                raise TraceError(f"{file}: has no {name}; it is not a packed trace")
        with _files(out):
            scratch.rename(out)
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        raise
    return out


@contextmanager
def _files(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise TraceError(f"{error.filename or path}: {error.strerror or error}") from None


def _header(name: str, size: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.mode = size, 0o600
    return info.tobuf(tarfile.GNU_FORMAT)


def _add(file: IO[bytes], path: Path) -> None:
    # Neither follow a link nor wait for a pipe.
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(handle, "rb") as source:
        status = os.fstat(source.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise TraceError(f"{path}: not a plain file; a trace has nothing else")
        file.write(_header(path.name, status.st_size))
        left = status.st_size
        while left:
            piece = source.read(min(left, _PIECE))
            if not piece:
                raise TraceError(f"{path}: became shorter while it was packed; pack again")
            file.write(piece)
            left -= len(piece)
        file.write(bytes(-status.st_size % _BLOCK))


def _extract(source: IO[bytes], pack: Path, out: Path) -> list[str]:
    total = os.fstat(source.fileno()).st_size
    seen: list[str] = []
    while True:
        header = source.read(_BLOCK)
        if header == bytes(_BLOCK):
            if source.read(_BLOCK + 1) != bytes(_BLOCK):
                raise TraceError(f"{pack}: does not end as a pack ends; copy it again")
            return seen
        name, size = _member(header, pack)
        if name in seen:
            raise TraceError(f"{pack}: member {name} is there twice; do not trust this file")
        if size > total - source.tell():
            raise TraceError(f"{pack}: member {name} says it has {size} bytes, more than the file holds; copy it again")
        seen.append(name)
        left = size
        handle = os.open(out / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with os.fdopen(handle, "wb") as target:
            while left:
                piece = source.read(min(left, _PIECE))
                if not piece:
                    raise TraceError(f"{pack}: ends inside member {name}; copy it again")
                target.write(piece)
                left -= len(piece)
        if source.read(-size % _BLOCK) != bytes(-size % _BLOCK):
            raise TraceError(f"{pack}: member {name} is not padded as a pack pads; do not trust this file")


def _member(header: bytes, pack: Path) -> tuple[str, int]:
    try:
        info = tarfile.TarInfo.frombuf(header, "utf-8", "strict")
    except (tarfile.TarError, ValueError, OverflowError):
        raise TraceError(f"{pack}: not a packed trace, or damaged; copy it again") from None
    shown = printable(info.name)
    kind = header[156:157]
    if kind != b"0":
        raise TraceError(f"{pack}: member {shown} is {_TYPES.get(kind, 'not a plain file')}; do not trust this file")
    if info.name not in MEMBERS:
        where = "leads elsewhere" if "/" in info.name or ".." in info.name else "is not a part of a trace"
        raise TraceError(f"{pack}: member {shown} {where}; do not trust this file")
    if info.size < 0 or header != _header(info.name, info.size):
        raise TraceError(f"{pack}: the header of member {shown} is not as `reprise pack` writes it; do not trust this file")
    return info.name, info.size
