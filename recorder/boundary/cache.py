"""The user's private cache: what was computed once and can be computed again, in files that only the user can write.

Machine code is executed from it, and verdicts are believed from it. So a file that was cut short or changed is as good as none,
and a directory that others can write to is not used at all. A cache that cannot be written costs time, nothing else.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
import tempfile
from pathlib import Path


def load(kind: str, key: bytes) -> bytes | None:
    """What was kept under a key; None if there is nothing, or nothing that is whole."""
    path = _path(kind, key)
    try:
        data = path.read_bytes() if path is not None else b""
    except OSError:
        return None
    return data[32:] if data and hashlib.sha256(memoryview(data)[32:]).digest() == data[:32] else None


def save(kind: str, key: bytes, data: bytes) -> None:
    """Keeps something under a key, whole or not at all."""
    path = _path(kind, key)
    if path is None:
        return
    with contextlib.suppress(OSError):
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".new-")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(hashlib.sha256(data).digest())
                file.write(data)
            os.replace(temporary, path)
        except OSError:
            os.unlink(temporary)
            raise


def _path(kind: str, key: bytes) -> Path | None:
    directory = _directory(kind)
    return None if directory is None else directory / hashlib.sha256(key).hexdigest()


def _directory(kind: str) -> Path | None:
    """None if there is none that only the user can write."""
    if os.environ.get("REPRISE_NO_CACHE"):
        return None
    base = os.environ.get("XDG_CACHE_HOME") or (Path.home() / ".cache" if os.environ.get("HOME") else None)
    if base is None:
        return None
    path = Path(base) / "reprise" / kind
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        info = path.lstat()
    except OSError:
        return None
    private = stat.S_ISDIR(info.st_mode) and info.st_uid == os.getuid() and not info.st_mode & 0o077
    return path if private else None
