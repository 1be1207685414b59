"""Finding the text of source files."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

MAX_SOURCE: Final = 16 << 20
"""Bytes. A larger file is not a source anybody reads."""


def candidates(name: str, remap: Sequence[tuple[str, str]], search: Sequence[Path]) -> Iterator[Path]:
    """Where the file may lie: under the new prefixes, under its own name, then in the directories of `search`, those
    where more of its path matches first."""
    for old, new in remap:
        stem = old.rstrip("/")
        if name == stem or name.startswith(stem + "/") or (stem in ("", ".") and not name.startswith("/")):
            rest = name if stem in ("", ".") and not name.startswith("/") else name[len(stem) :]
            yield Path(new, rest.lstrip("/")) if rest.strip("/") else Path(new)
    yield Path(name)
    parts = [part for part in name.replace("\\", "/").split("/") if part not in ("", ".")]
    if ".." in parts:
        parts = parts[-1:] if parts[-1] != ".." else []
    for start in range(len(parts)):
        for directory in search:
            yield directory.joinpath(*parts[start:])


def read_file(path: Path) -> bytes | None:
    """The content of a regular file of reasonable size; None for anything else."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError):
        return None
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_size > MAX_SOURCE:
            return None
        with open(descriptor, "rb", closefd=False) as file:
            data = file.read(MAX_SOURCE + 1)
    except OSError:
        return None
    finally:
        os.close(descriptor)
    return data if len(data) <= MAX_SOURCE else None


def find_source(name: str, remap: Sequence[tuple[str, str]], search: Sequence[Path]) -> bytes | None:
    """The content of the first of `candidates` that can be read."""
    for path in candidates(name, remap, search):
        data = read_file(path)
        if data is not None:
            return data
    return None


def to_lines(data: bytes) -> list[str]:
    """The lines of a source, without their ends. What is not UTF-8 is replaced. A form feed ends no line."""
    text = data.decode("utf-8", "replace").removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    lines = text.split("\n")
    return lines[:-1] if lines[-1] == "" else lines
