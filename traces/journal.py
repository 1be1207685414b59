"""The journal: a ring of slots in a shared file mapping, and the log that full slots are appended to.

The interposer (Wasm) and the Python hosts write records into the current slot. When it is full, the next slot becomes current
and a background thread appends the full one to the log and hands it on to be converted. Since every slot is a fully allocated
file mapping, what was written survives the death of the process at any instruction; `recover_windows` puts log and ring
together again. Nothing here knows what a record means, except that the first word is its size.

Files in `journal/`: `window` (the ring; layout in `traces.layout`) and `log` (slots appended in order, each behind a header).
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import struct
import threading
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from traces import layout
from traces._errors import RecordingError, TraceError, UsageError
from traces.layout import (
    CHUNK_HEADER,
    CHUNK_LENGTH_MASK,
    CHUNK_MEMORY_SHIFT,
    CHUNK_SENT,
    CHUNK_WIDE,
    HEADER_SIZE,
    LOG_HEADER,
    LOG_MAGIC,
    META_MEMORY,
    NO_IMPORT,
    RING_DATA,
    Kind,
    Status,
    pad4,
)

SLOT_SIZE = 3 << 19
SLOTS = 4
SMALLEST_SLOT = 64 << 10
"""The largest fixed part of a record, an interposer's longest iovec list beside it, and some room."""
SLOT_SIZE_VARIABLE = "REPRISE_SLOT_SIZE"
"""Internal, for tests: bytes per slot, so that a few records fill one."""


def chosen_slot_size() -> int:
    text = os.environ.get(SLOT_SIZE_VARIABLE, "")
    if not text:
        return SLOT_SIZE
    if not text.isdecimal() or not SMALLEST_SLOT <= int(text) <= layout.MAX_WINDOW or int(text) % layout.PAGE:
        raise UsageError(f"{SLOT_SIZE_VARIABLE}={text}: not a multiple of {layout.PAGE} up to {layout.MAX_WINDOW}; unset it")
    return int(text)


_U32 = struct.Struct("<I")
_U64 = struct.Struct("<Q")
_HEADER = struct.Struct("<IHBBI")
_CHUNK = struct.Struct("<II")
_LOG_HEADER = struct.Struct("<IIIIII")
_PLAIN, _ZSTD = 0, 1

WINDOW_FILE = "window"
LOG_FILE = "log"


def occupy_standard_descriptors() -> None:
    """Puts /dev/null where descriptor 0, 1 or 2 is closed: the next file opened would get that number, and the guest, whose
    standard output it then is, would write over the journal."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number, which is this one


class Ring:
    """The window file, mapped. Used by the recorder's main thread; `sealed`/`freed` hand slots to the appending thread."""

    def __init__(self, path: Path, slots: int = SLOTS, slot_size: int | None = None) -> None:
        slot_size = chosen_slot_size() if slot_size is None else slot_size
        self.path = path
        self.slots = slots
        self.slot_size = slot_size
        self.size = RING_DATA + slots * slot_size
        occupy_standard_descriptors()
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            # A sparse mapping on a full disk would die of SIGBUS in the middle of a record.
            os.posix_fallocate(handle, 0, self.size)
            self.map = mmap.mmap(handle, self.size)
        except OSError:
            os.close(handle)
            path.unlink(missing_ok=True)
            raise
        self.handle = handle
        self.generation = 1
        self._u64(layout.RING_HEAD, self.generation << 32 | RING_DATA)
        self._u32(layout.RING_LIMIT, RING_DATA + slot_size)
        self._u32(layout.RING_SLOTS, slots)
        self._u32(layout.RING_SLOT_SIZE, slot_size)
        self.map[layout.RING_MAGIC : layout.RING_MAGIC + 8] = layout.WINDOW_MAGIC
        self._free = threading.Semaphore(slots - 1)
        self._full: list[tuple[int, int, int]] = []
        self._changed = threading.Condition()
        self._closed = False

    # -- plain access --------------------------------------------------------------------------------------------

    def _u32(self, offset: int, value: int) -> None:
        _U32.pack_into(self.map, offset, value)

    def _u64(self, offset: int, value: int) -> None:
        # One aligned 8-byte store: struct would copy byte by byte.
        ctypes.c_uint64.from_buffer(self.map, offset).value = value

    @property
    def head(self) -> int:
        value: int = _U32.unpack_from(self.map, layout.RING_HEAD)[0]
        return value

    @head.setter
    def head(self, value: int) -> None:
        self._u64(layout.RING_HEAD, self.generation << 32 | value)

    @property
    def limit(self) -> int:
        value: int = _U32.unpack_from(self.map, layout.RING_LIMIT)[0]
        return value

    def slot_start(self, generation: int) -> int:
        return RING_DATA + (generation - 1) % self.slots * self.slot_size

    def ask_to_stop(self) -> None:
        """From now on the next import calls `rotate` instead of running (any thread)."""
        self._u32(layout.RING_STOP, 1)

    def tick(self, milliseconds: int) -> None:
        self._u32(layout.RING_TICKS, milliseconds & 0xFFFFFFFF)

    # -- rotation ------------------------------------------------------------------------------------------------

    def rotate(self, wait: Callable[[], None] | None = None) -> None:
        """Makes the next slot current. Blocks while the appending thread is `slots - 1` slots behind.

        `wait` is called first whenever there is no free slot, to raise if there never will be one.
        """
        while not self._free.acquire(timeout=0.05):
            if wait is not None:
                wait()
        generation, start = self.generation, self.slot_start(self.generation)
        length = self.head - start
        # Order matters for a kill in between: first say how long the full slot is, then move on, in one store.
        self._u64(layout.RING_SEALED + 8 * ((generation - 1) % self.slots), generation << 32 | length)
        with self._changed:
            self._full.append((generation, start, length))
            self._changed.notify()
        self.generation = generation + 1
        start = self.slot_start(self.generation)
        self._u32(layout.RING_LIMIT, start + self.slot_size)
        self._u64(layout.RING_HEAD, self.generation << 32 | start)

    def seal_last(self) -> None:
        """Hands the current slot over, at the end of the recording; nothing may be written afterwards."""
        start = self.slot_start(self.generation)
        with self._changed:
            self._full.append((self.generation, start, self.head - start))
            self._closed = True
            self._changed.notify()

    def sealed(self) -> Iterator[tuple[int, memoryview, bool]]:
        """Slots in order, as (generation, bytes, whether it is the last); waits for them. For the appending thread."""
        while True:
            with self._changed:
                while not self._full and not self._closed:
                    self._changed.wait()
                if not self._full:
                    return
                generation, start, length = self._full.pop(0)
                last = self._closed and not self._full
            with memoryview(self.map) as whole, whole[start : start + length] as window:
                yield generation, window, last

    def freed(self) -> None:
        """The slot last taken from `sealed` may be written again."""
        self._free.release()

    def sync(self) -> None:
        self.map.flush()

    def close(self) -> None:
        os.close(self.handle)


class Codec(Protocol):
    """What the log compresses with."""

    def compress(self, data: memoryview, *, asbytes: bool) -> Any: ...

    def decompress(self, data: bytes, size: int) -> Any: ...


def load_codec() -> Codec:
    """Zstandard, from Arrow: loading it takes a while, so nobody should wait for it who need not."""
    import pyarrow

    codec: Codec = pyarrow.Codec("zstd", compression_level=1)
    return codec


class Log:
    """The append-only file of full slots. An append that fails leaves the file as it was before.

    Slots are compressed once a codec is at hand: records repeat themselves, and on many machines a fresh page of the file
    cache costs more than squeezing its contents twentyfold.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.codec: Codec | None = None
        """Set (by any thread) as soon as it is loaded; until then slots are stored as they are."""
        self.handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self.end = 0

    def append(self, generation: int, window: memoryview) -> int:
        """Appends a slot; returns where it begins, for `read`."""
        codec, stored = self.codec, window
        if codec is not None:
            # As bytes: a buffer's memoryview may be as long as its capacity.
            stored = memoryview(codec.compress(window, asbytes=True))
        header = _LOG_HEADER.pack(
            LOG_MAGIC, generation, len(window), len(stored), zlib.crc32(stored), _PLAIN if codec is None else _ZSTD
        )
        at = self.end
        try:
            self._write(memoryview(header))
            self._write(stored)
        except OSError:
            os.ftruncate(self.handle, at)
            raise
        self.end += LOG_HEADER + len(stored)
        return at

    def read(self, at: int) -> memoryview:
        """A slot appended before (any thread)."""
        header = os.pread(self.handle, LOG_HEADER, at)
        slot = _stored(header, lambda size: os.pread(self.handle, size, at + LOG_HEADER))
        if slot is None:
            raise OSError(errno.EIO, "the journal's log was changed by another program")
        return slot[1]

    def _write(self, data: memoryview) -> None:
        while data:
            data = data[os.write(self.handle, data) :]

    def sync(self) -> None:
        os.fdatasync(self.handle)

    def close(self) -> None:
        os.close(self.handle)


@dataclass(frozen=True)
class Opened:
    """Where an open record lies, to complete it later in place if it is still the newest."""

    start: int
    generation: int
    kind: Kind
    index: int


class Writer:
    """Appends records from Python: exports, pokes, and what Python hosts do. Single-threaded, like the guest.

    A record begins with `begin`, grows by `raw` and `chunk`, and is written down by `commit`. A payload that does not fit the
    slot goes on in DATA records; `spilled` then says that the record begun cannot be completed in place.
    """

    def __init__(self, ring: Ring, rotate: Callable[[], None]) -> None:
        self.ring = ring
        self.map = ring.map
        self.rotate = rotate
        self.start = 0
        self.cursor = 0
        self.kind = Kind.CALL
        self.index = NO_IMPORT
        self.spilled = False

    def begin(self, kind: Kind, index: int = NO_IMPORT, room: int = 64) -> None:
        """Starts a record at the head, in a fresh slot if fewer than `room` bytes beyond the header are left."""
        if self.ring.head + HEADER_SIZE + room > self.ring.limit:
            self.rotate()
        self.start = self.ring.head
        self.cursor = self.start + HEADER_SIZE
        self.kind, self.index, self.spilled = kind, index, False

    def resume(self, opened: Opened) -> bool:
        """Goes on with an open record, if nothing was written since; says whether that was possible."""
        if opened.generation != self.ring.generation:
            return False
        size: int = _U32.unpack_from(self.map, opened.start)[0]
        if opened.start + size != self.ring.head:
            return False
        self.start, self.cursor = opened.start, opened.start + size
        self.kind, self.index, self.spilled = opened.kind, opened.index, False
        return True

    def opened(self, start: int, kind: Kind, index: int = NO_IMPORT) -> Opened:
        return Opened(start, self.ring.generation, kind, index)

    def raw(self, data: bytes) -> None:
        """Bytes of the record's fixed part; `begin` made room for them."""
        end = self.cursor + len(data)
        self.map[self.cursor : end] = data
        self.cursor = end

    def chunk(self, memory: int, address: int, data: bytes | memoryview, sent: bool) -> None:
        view = memoryview(data).cast("B") if not isinstance(data, memoryview) else data
        position, total = 0, len(view)
        wide = address + total > 0xFFFFFFFF
        overhead = CHUNK_HEADER + (4 if wide else 0)
        while position < total:
            space = self.ring.limit - self.cursor - overhead
            piece = min(total - position, space & ~3, CHUNK_LENGTH_MASK & ~3)
            if piece <= 0 or (piece < total - position and space < 4096):
                self._spill()
                continue
            where = address + position
            word = piece | memory << CHUNK_MEMORY_SHIFT | (CHUNK_SENT if sent else 0) | (CHUNK_WIDE if wide else 0)
            _CHUNK.pack_into(self.map, self.cursor, where & 0xFFFFFFFF, word)
            if wide:
                _U32.pack_into(self.map, self.cursor + CHUNK_HEADER, where >> 32)
            at = self.cursor + overhead
            self.map[at : at + piece] = view[position : position + piece]
            padded = pad4(piece)
            if padded != piece:
                self.map[at + piece : at + padded] = bytes(padded - piece)
            self.cursor = at + padded
            position += piece

    def meta(self, code: layout.Meta, data: bytes) -> None:
        """Facts about the call, if there is room for them beside it (they are not worth a record of their own)."""
        if self.cursor + CHUNK_HEADER + len(data) <= self.ring.limit:
            _CHUNK.pack_into(self.map, self.cursor, code, len(data) | META_MEMORY << CHUNK_MEMORY_SHIFT)
            self.cursor += CHUNK_HEADER
            self.raw(data)

    def _spill(self) -> None:
        """Writes down what the record holds so far and goes on in a DATA record in a fresh slot."""
        self.commit(Status.OPEN if self.kind is Kind.CALL else Status.COMPLETE)
        self.rotate()
        self.start = self.ring.head
        self.cursor = self.start + HEADER_SIZE
        self.kind, self.index, self.spilled = Kind.DATA, NO_IMPORT, True

    def commit(self, status: Status) -> int:
        """Writes the record down; returns where it begins.

        The header's first eight bytes are one store and go last, so that a kill leaves the record as it was or as it is now.
        """
        start, size = self.start, self.cursor - self.start
        fresh = self.ring.head == start
        if fresh:
            self.map[start + 8 : start + 12] = self.map[layout.RING_TICKS : layout.RING_TICKS + 4]
        ctypes.c_uint64.from_buffer(self.map, start).value = size | self.index << 32 | self.kind << 48 | status << 56
        self.ring.head = self.cursor
        return start


# -- recovery ------------------------------------------------------------------------------------------------------------


def recover_windows(directory: Path) -> Iterator[bytes | memoryview]:
    """The slots a dead recorder left, in order, from its log and its ring.

    Raises TraceError if the files cannot be read or are not a journal. What is torn (an append that never finished) is
    whole in the ring; what is truncated away is simply the end. The caller checks that the records in a slot make sense.
    """
    last = 0
    log = directory / LOG_FILE
    if log.exists():
        for generation, data in _read_log(log):
            if generation != last + 1:
                break  # garbage that looks like an entry: the ring may still hold what comes next
            last = generation
            yield data
    for generation, records in _read_ring(directory / WINDOW_FILE):
        if generation <= last:
            continue
        if generation != last + 1:
            return
        last = generation
        yield records


def missing_windows(directory: Path) -> str:
    """What `recover_windows` could not give, in words; "" if it gave all there was."""
    log = directory / LOG_FILE
    kept = log.exists() and log.stat().st_size
    last = 0
    for generation, _ in _read_log(log) if kept else ():
        if generation != last + 1:
            break
        last = generation
    data = _ring_bytes(directory / WINDOW_FILE)
    if data is None:
        return "the journal's window is missing or damaged, and what stood in it is lost" if kept else ""
    newest: int = _U64.unpack_from(data, layout.RING_HEAD)[0] >> 32
    held = {generation for generation, _ in _ring_slots(data)}
    if newest < last or newest not in held:
        return "the journal's window is damaged, or is not that of its log, and what stood in it is lost"
    gap = min(generation for generation in held if set(range(generation, newest)) <= held) - last - 1
    if gap > 0:
        return f"{gap} of the {newest} windows of the journal's log are missing or damaged, and everything from there on is lost"
    return ""


def _stored(header: bytes, read: Callable[[int], bytes]) -> tuple[int, memoryview] | None:
    """Generation and records of a slot in the log; None if it is not whole."""
    if len(header) < LOG_HEADER:
        return None
    magic, generation, size, length, checksum, codec = _LOG_HEADER.unpack(header)
    if magic != LOG_MAGIC or max(size, length) > layout.MAX_WINDOW or codec not in (_PLAIN, _ZSTD):
        return None
    data = read(length)
    if len(data) < length or zlib.crc32(data) != checksum:
        return None
    if codec == _PLAIN:
        return (generation, memoryview(data)) if size == length else None
    try:
        return generation, memoryview(load_codec().decompress(data, size)).cast("B")
    except (OSError, ValueError):  # Arrow's errors are these; the checksum covers the stored bytes, not the header
        return None


def _read_log(path: Path) -> Iterator[tuple[int, memoryview]]:
    try:
        with open(path, "rb") as file:
            while (slot := _stored(file.read(LOG_HEADER), file.read)) is not None:
                yield slot
    except OSError as error:
        raise TraceError(f"{path}: cannot read the journal ({error.strerror})") from None


def _read_ring(path: Path) -> list[tuple[int, bytes]]:
    data = _ring_bytes(path)
    return [] if data is None else _ring_slots(data)


def _ring_bytes(path: Path) -> bytes | None:
    """The window file, if it is one and of a possible shape."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise TraceError(f"{path}: cannot read the journal ({error.strerror})") from None
    if len(data) < RING_DATA or data[layout.RING_MAGIC : layout.RING_MAGIC + 8] != layout.WINDOW_MAGIC:
        return None
    slots: int = _U32.unpack_from(data, layout.RING_SLOTS)[0]
    slot_size: int = _U32.unpack_from(data, layout.RING_SLOT_SIZE)[0]
    if not 2 <= slots <= 64 or not 4096 <= slot_size <= layout.MAX_WINDOW or slot_size % 4:
        return None
    return data if RING_DATA + slots * slot_size <= len(data) else None


def _ring_slots(data: bytes) -> list[tuple[int, bytes]]:
    slots: int = _U32.unpack_from(data, layout.RING_SLOTS)[0]
    slot_size: int = _U32.unpack_from(data, layout.RING_SLOT_SIZE)[0]
    word: int = _U64.unpack_from(data, layout.RING_HEAD)[0]
    generation, head = word >> 32, word & 0xFFFFFFFF
    found = []
    for older in range(max(1, generation - slots + 1), generation):
        slot = (older - 1) % slots
        sealed: int = _U64.unpack_from(data, layout.RING_SEALED + 8 * slot)[0]
        start = RING_DATA + slot * slot_size
        if sealed >> 32 == older and sealed & 0xFFFFFFFF <= slot_size:
            found.append((older, data[start : start + (sealed & 0xFFFFFFFF)]))
    start = RING_DATA + (generation - 1) % slots * slot_size
    if generation >= 1 and start <= head <= start + slot_size and head % 4 == 0:
        found.append((generation, data[start : _end_of_last(data, start, head, start + slot_size)]))
    return found


def _end_of_last(data: bytes, start: int, head: int, limit: int) -> int:
    """Where the newest record ends: a kill between a record's completion and the head's move leaves the head short."""
    position = start
    while position < head:
        size: int = _U32.unpack_from(data, position)[0]
        if size < HEADER_SIZE or size % 4 or position + size > limit:
            return head
        position += size
    return position


def disk_error(error: OSError, trace: Path) -> RecordingError:
    """What to tell the user when the recording of `trace` cannot be written."""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    what = "no space left on the device" if full else error.strerror or str(error)
    return RecordingError(
        f"recording failed: {trace}: {what}; the guest was stopped before its next effect; "
        f"{'make room, then ' if full else ''}`reprise recover {trace}` keeps what was recorded"
    )
