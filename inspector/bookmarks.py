"""Places worth coming back to, kept in a file beside the trace and never in it: looking at evidence must not change it."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from traces._errors import UsageError

_MOST: Final = 1 << 20
"""Bytes of a file of bookmarks."""


@dataclass(frozen=True)
class Bookmark:
    mark: str
    event: int
    name: str
    address: int | None = None
    length: int = 1
    memory: int = 0


def bookmarks_file(trace: Path) -> Path:
    """`incident.trace.bookmarks.json`, beside `incident.trace`."""
    path = Path(os.path.abspath(trace))
    return path.with_name(path.name + ".bookmarks.json")


def read_bookmarks(trace: Path) -> list[Bookmark]:
    """What was kept; nothing if there is no file. Raises UsageError for one that makes no sense."""
    path = bookmarks_file(trace)
    try:
        if not path.is_file():
            return []
        if path.stat().st_size > _MOST:
            raise UsageError(f"{path}: too large for bookmarks")
        found: Any = json.loads(path.read_text(encoding="utf-8"))
        return [_bookmark(one) for one in found["bookmarks"]]
    except (OSError, ValueError, RecursionError, KeyError, TypeError) as error:
        raise UsageError(f"{path}: cannot be read as bookmarks ({type(error).__name__}); move it away") from None


def _bookmark(found: Any) -> Bookmark:
    address = found.get("address")
    if not isinstance(found["mark"], str) or not isinstance(found["name"], str):
        raise TypeError
    return Bookmark(
        found["mark"], int(found["event"]), found["name"], None if address is None else int(address),
        int(found.get("length", 1)), int(found.get("memory", 0)),
    )  # fmt: skip


def write_bookmarks(trace: Path, bookmarks: list[Bookmark]) -> None:
    """Whole or not at all. Raises UsageError where nothing can be written."""
    path = bookmarks_file(trace)
    partial = path.with_name(path.name + ".partial")
    try:
        partial.write_text(json.dumps({"bookmarks": [asdict(one) for one in bookmarks]}, indent=1) + "\n", encoding="utf-8")
        os.replace(partial, path)
    except OSError as error:
        raise UsageError(f"{path}: cannot be written ({error.strerror}); the bookmark is gone when you leave") from None
