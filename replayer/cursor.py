"""The journal image being replayed: which record comes next, and the window the interposer reads it from.

The window is private memory of the replaying process, filled from the trace one recorded window at a time. The head in it is
moved by the interposer for ordinary records and by `advance` for the others.
"""

from __future__ import annotations

import bisect
import ctypes
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from recorder.boundary.memories import HostMemory
from replayer.verdict import RecordingEnds
from traces import layout
from traces._errors import TraceError
from traces.layout import (
    CHUNK_HEADER,
    CHUNK_LENGTH_MASK,
    CHUNK_MEMORY_MASK,
    CHUNK_MEMORY_SHIFT,
    CHUNK_SENT,
    CHUNK_WIDE,
    HEADER_SIZE,
    RING_DATA,
    Kind,
    Status,
    pad4,
)

if TYPE_CHECKING:
    from replayer.recorded import Reader
    from traces.tables import Window

_HEADER = struct.Struct("<IHBBI")


@dataclass(frozen=True)
class Chunk:
    memory: int
    address: int
    sent: bool
    data: bytes


@dataclass(frozen=True)
class Record:
    """One record of the journal, read from the window."""

    seq: int
    at: int
    """Address in the window."""
    kind: Kind
    index: int
    status: Status
    body: bytes
    """All but the header."""

    @property
    def size(self) -> int:
        return HEADER_SIZE + len(self.body)

    def chunks(self, fixed: int) -> Iterator[Chunk]:
        """The chunks behind `fixed` bytes of body; metadata is left out."""
        at = fixed
        while at < len(self.body):
            if at + CHUNK_HEADER > len(self.body):
                raise self.malformed("a chunk is cut short")
            address, word = struct.unpack_from("<II", self.body, at)
            at += CHUNK_HEADER
            if word & CHUNK_WIDE:
                if at + 4 > len(self.body):
                    raise self.malformed("a chunk is cut short")
                address |= int.from_bytes(self.body[at : at + 4], "little") << 32
                at += 4
            length = word & CHUNK_LENGTH_MASK
            if at + length > len(self.body):
                raise self.malformed("a chunk is cut short")
            memory = word >> CHUNK_MEMORY_SHIFT & CHUNK_MEMORY_MASK
            if memory != layout.META_MEMORY:
                yield Chunk(memory, address, bool(word & CHUNK_SENT), self.body[at : at + length])
            at += pad4(length)

    def malformed(self, what: str) -> TraceError:
        return TraceError(f"event {self.seq}: {what}; the trace is damaged, restore it from a copy")


class Cursor:
    """Where the replay stands in the recording."""

    def __init__(self, reader: Reader, complete: bool) -> None:
        self.reader = reader
        self.complete = complete
        """False: the recording stops short, and the replay must stop with its last record."""
        self.total = reader.rows
        self._stop: int | None = None
        """Number of the first of the STOP records that end the recording."""
        self._windows = reader.windows()
        self._window: Window | None = None
        self._memory: HostMemory | None = None
        self.end = self.total if complete else self.total - reader.trailing(Kind.GROW_FAILED.name.lower())
        """Where an incomplete recording ends for a replay: it can stop at any record but a refused growth, which is in the middle
        of an instruction."""
        self._special: int | None = None if complete else self.end - 1
        """Number of a record that must come to the slow path: after it, the replay has something to do."""
        self._hidden: set[int] = set()
        """Addresses of records in the window that are made to look open."""
        self._pause: int | None = None
        """Number of another record that must come to the slow path, because someone wants to look."""
        self.on_load: Callable[[Window], None] = lambda _: None
        """Told of each window when it is in place."""

    def attach(self, memory: HostMemory) -> None:
        """Gives the cursor the window's memory, of at least `window_size` bytes."""
        self._memory = memory
        self._put(layout.RING_LIMIT, RING_DATA)
        self.head = RING_DATA

    def close(self) -> None:
        """Gives up the file and its reading threads. Left to the garbage collector, these could be joined at a moment at which
        the collecting thread holds a lock of theirs."""
        self._windows.close()
        self.reader.close()

    @cached_property
    def window_size(self) -> int:
        # A page more than the records: the interposer may load a fixed part before it knows that the record is cut short.
        return RING_DATA + self.reader.largest_window + layout.PAGE

    @property
    def attached(self) -> bool:
        return self._memory is not None

    @property
    def memory(self) -> HostMemory:
        assert self._memory is not None
        return self._memory

    def _put(self, offset: int, value: int) -> None:
        ctypes.c_uint32.from_address(self.memory.base + offset).value = value

    def _get(self, offset: int) -> int:
        return ctypes.c_uint32.from_address(self.memory.base + offset).value

    @property
    def head(self) -> int:
        return self._get(layout.RING_HEAD)

    @head.setter
    def head(self, value: int) -> None:
        self._put(layout.RING_HEAD, value)

    def refill(self) -> bool:
        """Brings the next window, if the current one has been used up; says whether there is a record to come."""
        while self.head >= self._get(layout.RING_LIMIT):
            window = next(self._windows, None)
            if window is None:
                return False
            self._load(window)
        return True

    def _load(self, window: Window) -> None:
        self._window = window
        length = len(window.data)
        ctypes.memmove(self.memory.base + RING_DATA, window.address, length)
        self._put(layout.RING_LIMIT, RING_DATA + length)
        self.head = RING_DATA
        self._hidden = set()
        self._hide(self._special)
        self._hide(self._pause)
        self.on_load(window)

    def _hide(self, seq: int | None) -> None:
        """Makes a record look open, if it is in the window: the interposer leaves those to the slow path."""
        window = self._window
        if seq is None or window is None or not 0 <= seq - window.first < window.rows:
            return
        at = RING_DATA + window.offsets[seq - window.first]
        status = ctypes.c_uint8.from_address(self.memory.base + at + 7)
        kind = ctypes.c_uint8.from_address(self.memory.base + at + 6).value
        if kind == Kind.CALL and status.value == Status.COMPLETE:
            status.value = Status.OPEN
            self._hidden.add(at)

    def pause_at(self, seq: int | None) -> None:
        """Brings this record, of those to come, to the slow path."""
        self._pause = seq
        self._hide(seq)

    @property
    def window_first(self) -> int:
        return 0 if self._window is None else self._window.first

    def seq(self) -> int:
        """Number of the record at the head: as many as were served so far."""
        window = self._window
        if window is None:
            return 0
        return window.first + bisect.bisect_left(window.offsets, self.head - RING_DATA, 0, window.rows)

    def watch_for_stop(self) -> None:
        """Makes `stop_follows` true once everything before the recording's final STOP records has been served."""
        stops = self.reader.trailing(Kind.STOP.name.lower())
        if stops and self.complete:
            self._stop = self.total - stops
            self._special = self._stop - 1

    def stop_follows(self) -> bool:
        return self._stop is not None and self.seq() == self._stop

    def peek(self) -> Record | None:
        """The next record, or None at the end of the recording."""
        if not self.refill():
            return None
        at, limit = self.head, self._get(layout.RING_LIMIT)
        seq = self.seq()
        if at + HEADER_SIZE > limit:
            raise TraceError(f"event {seq}: a record is cut short; the trace is damaged, restore it from a copy")
        size, index, kind, status, _ = _HEADER.unpack(ctypes.string_at(self.memory.base + at, HEADER_SIZE))
        if size < HEADER_SIZE or at + size > limit:
            raise TraceError(f"event {seq}: a record has an impossible size; the trace is damaged, restore it from a copy")
        if at in self._hidden:
            status = Status.COMPLETE
        body = ctypes.string_at(self.memory.base + at + HEADER_SIZE, size - HEADER_SIZE)
        try:
            return Record(seq, at, Kind(kind), index, Status(status), body)
        except ValueError:
            raise TraceError(
                f"event {seq}: a record of an unknown kind ({kind}, {status}); the trace is damaged, restore it from a copy"
            ) from None

    def advance(self, record: Record) -> None:
        """The record has been served. Ends the replay if the recording stops short here."""
        self.head = record.at + record.size
        if not self.complete and record.seq + 1 == self.end:
            raise RecordingEnds
