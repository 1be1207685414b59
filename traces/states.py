"""What a digest of a guest's memory, global or table is, apart from the table it is stored in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


class StateLike(Protocol):
    """What a row of the states table is made from."""

    @property
    def what(self) -> str: ...
    @property
    def index(self) -> int: ...
    @property
    def name(self) -> str: ...
    @property
    def size(self) -> int: ...
    @property
    def digest(self) -> bytes: ...
    @property
    def pages(self) -> tuple[bytes, ...]: ...
    @property
    def value(self) -> bytes | None: ...


@dataclass(frozen=True)
class StateRow:
    """What one memory, global or table was at a moment of the recording."""

    seq: int
    """The moment: as many records had happened."""
    what: str
    """"memory", "global" or "table"."""
    index: int
    name: str
    """As exported; empty when it is not."""
    size: int
    """Bytes of a memory, elements of a table, 0 for a global."""
    digest: bytes
    """32 bytes; for a memory the root over `pages`."""
    pages: tuple[bytes, ...] = ()
    """One digest per 64 KiB page; memories only."""
    value: bytes | None = None
    """16 bytes, raw bits, little-endian; globals only."""
