"""The byte layout of a recording: one place for every offset and code that two programs must agree on.

Three writers and three readers share it: the generated interposers (Wasm), the Python host tap, the columniser (C, compiled
to Wasm), recovery, replay and `verify`. Everything is little-endian. `docs/format.md` explains the same facts in prose; the
C mirror is `traces/columns.c`, and a test compares the two.

A *record* is one thing that crossed, or tried to cross, the guest's boundary:

    u32 size      whole record, header included; multiple of 4
    u16 import    import index for call/return, and for a stop that an import met instead of its host; NO_IMPORT otherwise
    u8  kind      Kind
    u8  status    Status
    u32 time      milliseconds since the recording began (coarse; wraps after 49.7 days, readers unwrap)
    ...           body, by kind

A *chunk* is a piece of guest memory that was read by the host (sent) or written by it (received):

    u32 address   low 32 bits
    u32 word      length (24 bits) | memory index << 24 (6 bits) | WIDE << 30 | SENT << 31
    [u32 high]    only if WIDE: upper 32 bits of the address
    ...           `length` bytes, padded with zeros to a multiple of 4

Memory index META_MEMORY marks a chunk that holds facts about the call rather than guest memory; `address` is then a Meta code.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final

FORMAT_VERSION: Final = 1
"""Version of the trace format. Bump on any change a reader of older traces would notice; add a golden trace."""

# -- records ---------------------------------------------------------------------------------------------------------

HEADER_SIZE: Final = 12
NO_IMPORT: Final = 0xFFFF
MAX_IMPORTS: Final = 0xFFFE


class Kind(IntEnum):
    """What a record says. Bodies are given beside each name; `args`/`results` are raw values back to back."""

    CALL = 1
    """args, results (reserved; meaningful when complete), chunks. The guest called import `import`."""
    RETURN = 2
    """results, chunks. Closes the innermost open CALL, EXPORT or CALLBACK."""
    EXPORT = 3
    """u32 target, u32 element, args, results (reserved). The embedder called an export, outside any import."""
    CALLBACK = 4
    """u32 target, u32 element, args, results (reserved). A host called back into the guest, inside an import."""
    POKE = 5
    """chunks. The embedder (depth 0) or a host (inside a split call) touched guest memory."""
    GROWTH = 6
    """u32 what (0 memory, 1 table), u32 index, u64 delta, u64 previous size or all ones if refused. By host or embedder."""
    GLOBAL = 7
    """u32 global index, u32 zero, u128 raw bits. A host or the embedder set a global."""
    TABLE = 8
    """u32 table index, u32 reference code (Ref), u64 element, u64 reference value, u64 count. A table element was set."""
    DATA = 9
    """chunks. More of the payload of the innermost open CALL than one record could hold."""
    TRAP = 10
    """u32 trap code, u32 message length, message (padded). Closes the innermost EXPORT or CALLBACK and calls in it."""
    EXIT = 11
    """u32 exit code, u32 zero. Closes like TRAP."""
    STOP = 12
    """u32 StopReason, u32 message length, u64 clock (all ones if not metered), message (padded). Closes like TRAP."""
    GROW_FAILED = 13
    """u32 memory ordinal, u32 zero, u64 ordinal of the growth request that the operating system refused."""
    DEFINE = 14
    """u32 import index, u32 length, JSON of an import defined while running (a host function put into a table), padded."""


class Status(IntEnum):
    """How far a record got. One byte, written last, so that a record is open until it is complete."""

    OPEN = 0
    COMPLETE = 1
    DENIED = 2


class StopReason(IntEnum):
    FUEL = 1
    TIMEOUT = 2
    INTERRUPTED = 3
    TERMINATED = 4
    JOURNAL_FULL = 5


class Ref(IntEnum):
    """How a reference is written in GLOBAL and TABLE records; the value beside it is given here."""

    NULL = 0
    EXPORT_FUNC = 1
    """value: export index of the guest"""
    IMPORT_FUNC = 2
    """value: index of an import defined by a DEFINE record"""
    EXTERN = 3
    """value: identity number of the host object, from 1"""
    FUNC = 4
    """value: identity number of a function reference that crossed the boundary before"""
    TAKEN = 5
    """not a change: the host took the function that stands there; value: the identity number it was given"""


START_TARGET: Final = 0xFFFFFFFE
"""`target` of the EXPORT record that runs a module's start function."""
TABLE_TARGET: Final = 0x80000000
"""Bit in a CALLBACK or EXPORT `target`: the function stands in table `target & 0x7fffffff` at `element`."""

# -- chunks ----------------------------------------------------------------------------------------------------------

CHUNK_HEADER: Final = 8
CHUNK_LENGTH_MASK: Final = 0x00FFFFFF
CHUNK_MEMORY_SHIFT: Final = 24
CHUNK_MEMORY_MASK: Final = 0x3F
CHUNK_WIDE: Final = 1 << 30
CHUNK_SENT: Final = 1 << 31
META_MEMORY: Final = 63
MAX_MEMORIES: Final = 63


class Meta(IntEnum):
    TIMING = 1
    """u64 nanoseconds since the recording began, u64 duration in nanoseconds, both measured"""


# -- values ----------------------------------------------------------------------------------------------------------

VALUE_SIZE: Final = {"i32": 4, "f32": 4, "i64": 8, "f64": 8, "v128": 16, "funcref": 4, "externref": 4}
"""Bytes a raw value takes in a record, by type. References are identity numbers, 0 for null."""


def values_size(types: tuple[str, ...]) -> int:
    """Bytes that `types` take back to back in a record."""
    return sum(VALUE_SIZE[t] for t in types)


# -- the window file (`journal/window`) --------------------------------------------------------------------------------

WINDOW_MAGIC: Final = b"REPRISE1"
LOG_MAGIC: Final = 0x474C5052  # "RPLG"
PAGE: Final = 65536

RING_HEAD: Final = 0
"""u64: generation << 32 | address of the next record. One store moves both, so a kill sees either the old or the new."""
RING_LIMIT: Final = 8
"""u32: end of the current slot."""
RING_STOP: Final = 12
"""u32: not zero once the recording has been asked to stop; the next import then calls the recorder instead of its host."""
RING_TICKS: Final = 16
"""u32: milliseconds since the recording began, refreshed by a thread."""
RING_MAGIC: Final = 32
RING_SLOTS: Final = 40
RING_SLOT_SIZE: Final = 44
RING_SEALED: Final = 64
"""u64 per slot: generation << 32 | length in bytes, written when the slot is full."""
RING_SCRATCH: Final = 4096
"""Raw values a Python tap and an interposer hand each other: arguments on replay, results on both."""
RING_SCRATCH_SIZE: Final = PAGE - RING_SCRATCH
RING_DATA: Final = PAGE
"""Address of slot 0."""

MAX_WINDOW: Final = 64 << 20
"""Bytes of records in one window, at most; readers refuse more before they allocate."""

LOG_HEADER: Final = 24
"""Each appended slot: u32 LOG_MAGIC, u32 generation, u32 size of the records, u32 stored bytes, u32 CRC-32 of the stored bytes,
u32 codec (0 as they are, 1 Zstandard); then the stored bytes."""


def pad4(n: int) -> int:
    """`n` rounded up to a multiple of 4."""
    return (n + 3) & ~3
