"""Where one instruction ends and the next begins, for every instruction wasmtime can accept.

This module alone knows the immediates. It holds one table, opcode to immediate shape, and a shape is written
as the regular expression that matches its bytes: so the same table decodes single instructions
(`instructions`) and finds and counts whole runs of them at the speed of the `re` engine (`straight_run`,
`opcodes_used`). The few shapes with a length of their own (br_table, select with types, try_table, resume)
and oddly padded encodings take a slower path.

Nothing here checks types: that is the engine's business. Bytes are never read beyond the given end.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Final

from recorder.wasm.binary import Reader, WasmError, uleb

# --- opcodes that code outside this module has to name

UNREACHABLE: Final = 0x00
BLOCK: Final = 0x02
LOOP: Final = 0x03
IF: Final = 0x04
ELSE: Final = 0x05
TRY: Final = 0x06
CATCH: Final = 0x07
THROW: Final = 0x08
RETHROW: Final = 0x09
THROW_REF: Final = 0x0A
END: Final = 0x0B
BR: Final = 0x0C
BR_IF: Final = 0x0D
BR_TABLE: Final = 0x0E
RETURN: Final = 0x0F
CALL: Final = 0x10
CALL_INDIRECT: Final = 0x11
RETURN_CALL: Final = 0x12
RETURN_CALL_INDIRECT: Final = 0x13
CALL_REF: Final = 0x14
RETURN_CALL_REF: Final = 0x15
DELEGATE: Final = 0x18
CATCH_ALL: Final = 0x19
SELECT_TYPED: Final = 0x1C
TRY_TABLE: Final = 0x1F
BR_ON_NULL: Final = 0xD5
BR_ON_NON_NULL: Final = 0xD6
GC_PREFIX: Final = 0xFB
BR_ON_CAST: Final = 24
"""Behind `GC_PREFIX`."""
BR_ON_CAST_FAIL: Final = 25
"""Behind `GC_PREFIX`."""
MISC_PREFIX: Final = 0xFC
SIMD_PREFIX: Final = 0xFD
ATOMIC_PREFIX: Final = 0xFE
STACK_SWITCHING: Final = range(0xE0, 0xE7)

LEGACY_EXCEPTIONS: Final = frozenset((TRY, CATCH, RETHROW, DELEGATE, CATCH_ALL))
"""Exception handling as it was before `try_table`. Decoded, so that it can be refused by name."""

# --- immediate shapes, as regular expressions

_NONE = rb""
_U32 = rb"[\x80-\xff]{0,4}[\x00-\x7f]"
_U64 = rb"[\x80-\xff]{0,9}[\x00-\x7f]"
_S32 = _S33 = _U32  # the sign does not change where a LEB128 ends
_S64 = _U64
_BYTE = rb"[\x00-\xff]"
_FOUR = rb"[\x00-\xff]{4}"
_EIGHT = rb"[\x00-\xff]{8}"
_SIXTEEN = rb"[\x00-\xff]{16}"
_VALUE_TYPE = rb"(?:[\x63\x64]" + _S33 + rb"|[\x40-\x62\x65-\x7f])"
_BLOCK_TYPE = rb"(?:[\x63\x64]" + _S33 + rb"|[\x00-\x62\x65-\x7f]|[\x80-\xff]" + _U32 + rb")"
_MORE = rb"[\x80-\xff]{0,3}[\x00-\x7f]"
# Bit 6 of the alignment says that a memory index follows.
_ALIGNMENT = rb"(?:[\x00-\x3f]|[\x80-\xbf]" + _MORE + rb")"
_ALIGNMENT_AND_MEMORY = rb"(?:[\x40-\x7f]|[\xc0-\xff]" + _MORE + rb")" + _U32
_MEMARG = rb"(?:" + _ALIGNMENT + rb"|" + _ALIGNMENT_AND_MEMORY + rb")" + _U64
_IRREGULAR = rb"(?!)"  # never matches, which sends the decoder to `_IRREGULAR_ENDS`

Shapes = dict[int, bytes]


def _shapes(*groups: tuple[bytes, tuple[int | range, ...]]) -> Shapes:
    table: Shapes = {}
    for shape, opcodes in groups:
        for item in opcodes:
            table.update(dict.fromkeys(item if isinstance(item, range) else (item,), shape))
    return table


PLAIN: Final = _shapes(
    (_NONE, (UNREACHABLE, 0x01, ELSE, THROW_REF, END, RETURN, CATCH_ALL, 0x1A, 0x1B)),
    (_NONE, (range(0x45, 0xC5), 0xD1, 0xD3, 0xD4)),
    (_BLOCK_TYPE, (BLOCK, LOOP, IF, TRY)),
    (_U32, (CATCH, THROW, RETHROW, BR, BR_IF, CALL, RETURN_CALL, CALL_REF, RETURN_CALL_REF, DELEGATE)),
    (_U32, (range(0x20, 0x27), 0x3F, 0x40, 0xD2, BR_ON_NULL, BR_ON_NON_NULL)),
    (_U32 + _U32, (CALL_INDIRECT, RETURN_CALL_INDIRECT)),
    (_IRREGULAR, (BR_TABLE, SELECT_TYPED, TRY_TABLE)),
    (_MEMARG, (range(0x28, 0x3F),)),
    (_S32, (0x41,)),
    (_S64, (0x42,)),
    (_FOUR, (0x43,)),
    (_EIGHT, (0x44,)),
    (_S33, (0xD0,)),
    (_U32, (0xE0, 0xE2)),
    (_U32 + _U32, (0xE1, 0xE6)),
    (_IRREGULAR, (0xE3, 0xE4, 0xE5)),
)
"""Shape of the immediates of each opcode that has no prefix."""

PREFIXED: Final[dict[int, Shapes]] = {
    GC_PREFIX: _shapes(
        (_U32, (0, 1, 6, 7, range(11, 15), 16)),
        (_U32 + _U32, (range(2, 6), range(8, 11), range(17, 20))),
        (_NONE, (15, range(26, 31))),
        (_S33, (range(20, 24),)),
        (_BYTE + _U32 + _S33 + _S33, (BR_ON_CAST, BR_ON_CAST_FAIL)),
    ),
    MISC_PREFIX: _shapes(
        (_NONE, (range(0, 8), range(19, 23))),
        (_U32, (9, 11, 13, range(15, 18))),
        (_U32 + _U32, (8, 10, 12, 14)),
    ),
    SIMD_PREFIX: _shapes(
        (_MEMARG, (range(0, 12), 92, 93)),
        (_SIXTEEN, (12, 13)),
        (_NONE, (range(14, 21), range(35, 84), range(94, 0x114))),
        (_BYTE, (range(21, 35),)),
        (_MEMARG + _BYTE, (range(84, 92),)),
    ),
    ATOMIC_PREFIX: _shapes((_MEMARG, (range(0, 3), range(0x10, 0x4F))), (_BYTE, (3,))),
}
"""Shape of the immediates that follow a prefix byte and the sub-opcode after it."""

_BLOCKS = (BLOCK, LOOP, IF, ELSE, END, TRY, TRY_TABLE, CATCH, CATCH_ALL, DELEGATE)
_BRANCHES = (BR, BR_IF, BR_TABLE, BR_ON_NULL, BR_ON_NON_NULL)
_CALLS = (CALL, CALL_INDIRECT, CALL_REF, RETURN_CALL, RETURN_CALL_INDIRECT, RETURN_CALL_REF)
_EXITS = (UNREACHABLE, THROW, RETHROW, THROW_REF, RETURN)
CONTROL: Final = frozenset((*_BLOCKS, *_BRANCHES, *_CALLS, *_EXITS, *STACK_SWITCHING))
"""Opcodes that open or close a block, or after which the next instruction may not be the next one to run.
With `CONTROL_CASTS` these are what ends a straight run."""
CONTROL_CASTS: Final = frozenset((BR_ON_CAST, BR_ON_CAST_FAIL))
"""The same, behind `GC_PREFIX`."""


def _byte_set(values: list[int]) -> bytes:
    return b"[" + b"".join(b"\\x%02x" % value for value in sorted(values)) + b"]"


def _alternatives(heads: dict[bytes, bytes]) -> list[bytes]:
    """One alternative for each shape, out of head pattern to shape; single-byte heads become one set."""
    by_shape: dict[bytes, list[bytes]] = {}
    for head, shape in heads.items():
        by_shape.setdefault(shape, []).append(head)
    out = []
    for shape, members in by_shape.items():
        singles = [member[0] for member in members if len(member) == 1]
        longer = [b"".join(b"\\x%02x" % byte for byte in member) for member in members if len(member) > 1]
        heads_pattern = b"|".join(([_byte_set(singles)] if singles else []) + longer)
        out.append((b"(?:" + heads_pattern + b")" if longer else heads_pattern) + shape)
    return out


def _sub_heads(shapes: Shapes, without: frozenset[int]) -> dict[bytes, bytes]:
    """The bytes of each sub-opcode to its shape."""
    return {uleb(opcode): shape for opcode, shape in shapes.items() if opcode not in without}


def _one_of(without: frozenset[int], without_casts: frozenset[int]) -> bytes:
    """The pattern of one instruction, leaving some out."""
    kept = {opcode: shape for opcode, shape in PLAIN.items() if opcode not in without}
    regular = {bytes((opcode,)): shape for opcode, shape in kept.items() if shape is not _IRREGULAR}
    alternatives = _alternatives(regular)
    for prefix, shapes in PREFIXED.items():
        heads = _sub_heads(shapes, without_casts if prefix == GC_PREFIX else frozenset())
        alternatives.append(b"\\x%02x(?:" % prefix + b"|".join(_alternatives(heads)) + b")")
    return b"(?:" + b"|".join(alternatives) + b")"


# The bound keeps the engine's backtracking stack small; callers loop.
_RUN = b"{1,512}"
_ANY = _one_of(frozenset(), frozenset())
_STRAIGHT = _one_of(CONTROL, CONTROL_CASTS)
_match_one = re.compile(_ANY, re.DOTALL).match
_match_run = re.compile(_ANY + _RUN, re.DOTALL).match
_match_straight_run = re.compile(_STRAIGHT + _RUN, re.DOTALL).match
_find_straight = re.compile(_STRAIGHT, re.DOTALL).findall
# What `opcodes_used` keeps of an instruction: prefix and sub-opcode; a block's opcode and a type index; or
# one byte.
_PREFIXED_HEAD = rb"[\xfb-\xfe](?:[\x80-\xff][\x00-\xff]|[\x00-\x7f])"
_BLOCK_HEAD = rb"[\x02-\x04\x06][\x00-\x3f\x80-\xff]"
_HEAD = rb"(?=(" + _PREFIXED_HEAD + rb"|" + _BLOCK_HEAD + rb"|[\x00-\xfa]))"
_find_heads = re.compile(_HEAD + _ANY, re.DOTALL).findall


# --- the shapes with a length of their own


def read_block_type(reader: Reader) -> None:
    _skip(reader, _match_block_type)


def read_catches(reader: Reader) -> list[int]:
    """The label of each catch clause of a try_table; the reader stands behind the block type."""
    labels = []
    for _ in range(reader.count(2)):
        at = reader.position
        kind = reader.byte()
        if kind > 3:
            raise WasmError(f"unknown catch clause {kind:#04x}", at)
        if kind < 2:  # catch and catch_ref name a tag, catch_all and catch_all_ref do not
            reader.u32()
        labels.append(reader.u32())
    return labels


def read_branch_table(reader: Reader) -> list[int]:
    """The labels of a br_table, default last."""
    return [reader.u32() for _ in range(reader.count() + 1)]


_match_block_type = re.compile(_BLOCK_TYPE, re.DOTALL).match
_match_value_type = re.compile(_VALUE_TYPE, re.DOTALL).match

_Matcher = Callable[[bytes, int, int], "re.Match[bytes] | None"]


def _skip(reader: Reader, match: _Matcher) -> None:
    found = match(reader.data, reader.position, reader.end)
    if found is None:
        raise WasmError("malformed immediate", reader.position)
    reader.position = found.end()


def _skip_select_types(reader: Reader) -> None:
    for _ in range(reader.count()):
        _skip(reader, _match_value_type)


def _skip_try_table(reader: Reader) -> None:
    read_block_type(reader)
    read_catches(reader)


def _skip_branch_table(reader: Reader) -> None:
    read_branch_table(reader)


def _skip_handlers(indices: int) -> Callable[[Reader], None]:
    """resume, resume_throw and resume_throw_ref: `indices` indices, then a vector of handlers."""

    def skip(reader: Reader) -> None:
        for _ in range(indices):
            reader.u32()
        for _ in range(reader.count(2)):
            at = reader.position
            kind = reader.byte()
            if kind > 1:
                raise WasmError(f"unknown handler {kind:#04x}", at)
            reader.u32()
            if kind == 0:
                reader.u32()

    return skip


_IRREGULAR_ENDS: Final[dict[int, Callable[[Reader], None]]] = {
    BR_TABLE: _skip_branch_table,
    SELECT_TYPED: _skip_select_types,
    TRY_TABLE: _skip_try_table,
    0xE3: _skip_handlers(1),
    0xE4: _skip_handlers(2),
    0xE5: _skip_handlers(1),
}


def _slow_end(data: bytes, at: int, end: int) -> int:
    """Where the instruction at `at` ends, for what the regular patterns leave out; the source of every
    error."""
    reader = Reader(data, at, end)
    opcode = reader.byte()
    if opcode in _IRREGULAR_ENDS:
        _IRREGULAR_ENDS[opcode](reader)
        return reader.position
    if opcode in PREFIXED:  # a sub-opcode padded with redundant LEB128 bytes, or a malformed one
        sub = reader.u32()
        shape = PREFIXED[opcode].get(sub)
        if shape is None:
            raise WasmError(f"unknown instruction {opcode:#04x} {sub:#04x}", at)
    elif opcode in PLAIN:
        shape = PLAIN[opcode]
    else:
        raise WasmError(f"unknown instruction {opcode:#04x}", at)
    found = re.compile(shape, re.DOTALL).match(data, reader.position, end)
    if found is None:
        raise WasmError(f"instruction {opcode:#04x} is cut off or malformed", at)
    return found.end()


# --- reading code


def instruction_end(data: bytes, at: int, end: int) -> int:
    """The offset behind the instruction that starts at `at`."""
    found = _match_one(data, at, end)
    return _slow_end(data, at, end) if found is None else found.end()


def sub_opcode(data: bytes, at: int, end: int) -> int:
    """The opcode that follows the prefix byte at `at`."""
    sub = data[at + 1] if at + 1 < end else 0x80
    return sub if sub < 0x80 else Reader(data, at + 1, end).u32()


def instructions(data: bytes, start: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """Each instruction of `data[start:end]`: its offset, opcode, sub-opcode (0 without a prefix), and the
    offset behind its immediates."""
    match = _match_one
    at = start
    while at < end:
        found = match(data, at, end)
        after = _slow_end(data, at, end) if found is None else found.end()
        opcode = data[at]
        yield at, opcode, sub_opcode(data, at, end) if opcode >= GC_PREFIX else 0, after
        at = after


def straight_run(data: bytes, start: int, end: int) -> tuple[int, int]:
    """How many instructions, from `start` on, certainly run one after the other, and the offset behind them.

    The instruction at that offset is one of `CONTROL` or `CONTROL_CASTS`, or `end` is reached.
    """
    count = 0
    at = start
    while at < end:
        found = _match_straight_run(data, at, end)
        if found is not None:
            after = found.end()
            count += len(_find_straight(data, at, after))
        elif data[at] in CONTROL or (data[at] == GC_PREFIX and sub_opcode(data, at, end) in CONTROL_CASTS):
            break
        else:
            after = _slow_end(data, at, end)
            count += 1
        at = after
    return count, at


def opcodes_used(data: bytes, start: int, end: int) -> set[tuple[int, int]]:
    """Every (opcode, sub-opcode) that occurs in `data[start:end]`.

    A block, loop or if whose type is an index, which is how parameters and several results are written, comes
    with 1 for a sub-opcode.
    """
    heads: set[bytes] = set()
    used: set[tuple[int, int]] = set()
    at = start
    while at < end:
        found = _match_run(data, at, end)
        if found is not None:
            after = found.end()
            heads.update(_find_heads(data, at, after))
        else:
            after = _slow_end(data, at, end)
            opcode = data[at]
            used.add((opcode, sub_opcode(data, at, end) if opcode in PREFIXED else 0))
        at = after
    for head in heads:
        if head[0] in PREFIXED:
            used.add((head[0], sub_opcode(head, 0, len(head))))
        else:
            used.add((head[0], len(head) - 1))
    return used


def expression_end(data: bytes, start: int, end: int) -> int:
    """The offset behind the `end` of the constant expression that starts at `start`."""
    for at, opcode, _, after in instructions(data, start, end):
        if opcode == END:
            return after
        if opcode in CONTROL:
            raise WasmError(f"instruction {opcode:#04x} in a constant expression", at)
    raise WasmError("a constant expression does not end", start)
