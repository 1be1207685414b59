"""The journal image: the records of a trace as a worker process reads them.

The parent expands the trace's tables into a private file that has no name, and hands the worker the open file and an index. The
worker reads one window at a time, with nothing that would start a thread. What comes back the same way are the clocks at which
records were served: one u64 for each record.
"""

from __future__ import annotations

import os
import tempfile
from array import array
from collections.abc import Generator, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from traces.tables import Window


@dataclass(frozen=True)
class Piece:
    """Where one window lies in the image."""

    first: int
    rows: int
    at: int
    length: int
    """Bytes of records; behind them stand rows + 1 offsets (int64)."""


def write_image(windows: Iterable[Window]) -> tuple[int, list[Piece]]:
    """Writes the image; returns the open file and its index."""
    handle, path = tempfile.mkstemp(prefix="reprise-image-")
    os.unlink(path)
    pieces = []
    at = 0
    try:
        with open(handle, "wb", closefd=False) as file:
            for window in windows:
                offsets = bytes(window.offsets.cast("B")) if window.offsets.format != "B" else bytes(window.offsets)
                file.write(window.data)
                file.write(offsets)
                pieces.append(Piece(window.first, window.rows, at, len(window.data)))
                at += len(window.data) + len(offsets)
    except BaseException:
        os.close(handle)
        raise
    return handle, pieces


@dataclass
class _Window:
    """One window, read back."""

    first: int
    rows: int
    data: bytearray
    offsets: array[int]
    address: int


class ImageReader:
    """Reads an image, window by window. Forked processes share the file and nothing else."""

    def __init__(self, handle: int, pieces: list[Piece], rows: int, largest_window: int, trailing: dict[str, int]) -> None:
        self.handle = handle
        self.pieces = pieces
        self.rows = rows
        self.largest_window = largest_window
        self._trailing = trailing

    def windows(self) -> Generator[Any, None, None]:
        for piece in self.pieces:
            data = bytearray(os.pread(self.handle, piece.length, piece.at))
            offsets = array("q")
            offsets.frombytes(os.pread(self.handle, (piece.rows + 1) * 8, piece.at + piece.length))
            if len(data) != piece.length or len(offsets) != piece.rows + 1:
                raise OSError("the journal image is cut short")
            yield _Window(piece.first, piece.rows, data, offsets, array_address(data))

    def trailing(self, kind: str) -> int:
        return self._trailing.get(kind, 0)

    def close(self) -> None:
        """The file belongs to the process, not to a replay."""


def array_address(data: bytearray) -> int:
    import ctypes

    return ctypes.addressof(ctypes.c_char.from_buffer(data)) if data else 0
