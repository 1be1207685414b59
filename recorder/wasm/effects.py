"""What each plain instruction takes from the operand stack and leaves on it.

One table, shared by whoever has to know the types of operands: an entry says how many operands go, which one comes, and how the
immediates are written. Control instructions, calls, locals, globals, tables and whatever else depends on declarations are not in
it; their effect is the walker's business. `recorder.wasm.instructions` alone knows where an instruction ends; the immediate class
here is the short form of it for the instructions that make up most of any code.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from recorder.wasm.binary import sleb
from recorder.wasm.module import NUMERIC_TYPES, ValType

NO_IMMEDIATE, ONE_LEB, MEMARG, FOUR_BYTES, EIGHT_BYTES = 0, 1, 2, 4, 8


class Effect(NamedTuple):
    """What one instruction does to the operand stack."""

    immediate: int
    """How its immediates are written: one of the constants above."""
    pops: int
    push: ValType | None
    """The operand it leaves, if any."""


def _spread(table: dict[int, Effect], first: int, last: int, pops: int, push: ValType | None, immediate: int = 0) -> None:
    table.update(dict.fromkeys(range(first, last + 1), Effect(immediate, pops, push)))


def _plain() -> list[Effect | None]:
    table: dict[int, Effect] = {0x01: Effect(NO_IMMEDIATE, 0, None)}  # nop
    _spread(table, 0x41, 0x41, 0, "i32", ONE_LEB)
    _spread(table, 0x42, 0x42, 0, "i64", ONE_LEB)
    _spread(table, 0x43, 0x43, 0, "f32", FOUR_BYTES)
    _spread(table, 0x44, 0x44, 0, "f64", EIGHT_BYTES)
    for opcode, value in ((0x28, "i32"), (0x29, "i64"), (0x2A, "f32"), (0x2B, "f64")):
        _spread(table, opcode, opcode, 1, value, MEMARG)
    _spread(table, 0x2C, 0x2F, 1, "i32", MEMARG)
    _spread(table, 0x30, 0x35, 1, "i64", MEMARG)
    _spread(table, 0x45, 0x45, 1, "i32")  # eqz
    _spread(table, 0x46, 0x4F, 2, "i32")
    _spread(table, 0x50, 0x50, 1, "i32")
    _spread(table, 0x51, 0x66, 2, "i32")  # comparisons of i64, f32, f64
    _spread(table, 0x67, 0x69, 1, "i32")
    _spread(table, 0x6A, 0x78, 2, "i32")
    _spread(table, 0x79, 0x7B, 1, "i64")
    _spread(table, 0x7C, 0x8A, 2, "i64")
    _spread(table, 0x8B, 0x91, 1, "f32")
    _spread(table, 0x92, 0x98, 2, "f32")
    _spread(table, 0x99, 0x9F, 1, "f64")
    _spread(table, 0xA0, 0xA6, 2, "f64")
    _spread(table, 0xA7, 0xAB, 1, "i32")
    _spread(table, 0xAC, 0xB1, 1, "i64")
    _spread(table, 0xB2, 0xB6, 1, "f32")
    _spread(table, 0xB7, 0xBB, 1, "f64")
    for opcode, value in ((0xBC, "i32"), (0xBD, "i64"), (0xBE, "f32"), (0xBF, "f64")):
        _spread(table, opcode, opcode, 1, value)
    _spread(table, 0xC0, 0xC1, 1, "i32")
    _spread(table, 0xC2, 0xC4, 1, "i64")
    return [table.get(opcode) for opcode in range(256)]


PLAIN: Final[list[Effect | None]] = _plain()
"""By opcode; None for what is not plain. Stores are missing on purpose: they write to memory, and someone may have to know."""


def _simd() -> dict[int, Effect]:
    table: dict[int, Effect] = {}
    _spread(table, 0, 10, 1, "v128")
    _spread(table, 12, 12, 0, "v128")
    _spread(table, 13, 14, 2, "v128")
    _spread(table, 15, 20, 1, "v128")
    lanes = ((21, 22, "i32"), (24, 25, "i32"), (27, 27, "i32"), (29, 29, "i64"), (31, 31, "f32"), (33, 33, "f64"))
    for first, last, value in lanes:
        _spread(table, first, last, 1, value)  # extract
        _spread(table, last + 1, last + 1, 2, "v128")  # replace
    _spread(table, 35, 76, 2, "v128")
    _spread(table, 77, 77, 1, "v128")
    _spread(table, 78, 81, 2, "v128")
    _spread(table, 82, 82, 3, "v128")
    _spread(table, 83, 83, 1, "i32")
    _spread(table, 84, 87, 2, "v128")
    _spread(table, 92, 95, 1, "v128")
    _spread(table, 96, 0xFF, 2, "v128")
    unary = (96, 97, 98, 103, 104, 105, 106, 116, 117, 122, 124, 125, 126, 127, 128, 129, 135, 136, 137, 138, 148, 160, 161)
    more = (167, 168, 169, 170, 192, 193, 199, 200, 201, 202, 224, 225, 227, 236, 237, 239, *range(248, 256))
    for sub in (*unary, *more):
        _spread(table, sub, sub, 1, "v128")
    for sub in (99, 100, 131, 132, 163, 164, 195, 196):  # all_true, bitmask
        _spread(table, sub, sub, 1, "i32")
    _spread(table, 0x100, 0x113, 2, "v128")
    _spread(table, 0x101, 0x104, 1, "v128")
    _spread(table, 0x105, 0x10C, 3, "v128")
    _spread(table, 0x113, 0x113, 3, "v128")
    return table


SIMD: Final[dict[int, Effect]] = _simd()
"""By sub-opcode; stores (11 and 88 to 91) are missing. `immediate` says nothing here."""

MISC: Final[dict[int, tuple[int, tuple[ValType, ...]]]] = {
    **dict.fromkeys(range(4), (1, ("i32",))),
    **dict.fromkeys(range(4, 8), (1, ("i64",))),
    19: (4, ("i64", "i64")),
    20: (4, ("i64", "i64")),
    21: (2, ("i64", "i64")),
    22: (2, ("i64", "i64")),
}
"""Saturating conversions and wide arithmetic, by sub-opcode: how many operands go, which come."""

STORES: Final[dict[int, int]] = {0x36: 4, 0x37: 8, 0x38: 4, 0x39: 8, 0x3A: 1, 0x3B: 2, 0x3C: 1, 0x3D: 2, 0x3E: 4}
"""Bytes that each store writes."""
STORED_TYPES: Final[dict[int, ValType]] = {
    0x36: "i32", 0x37: "i64", 0x38: "f32", 0x39: "f64", 0x3A: "i32", 0x3B: "i32", 0x3C: "i64", 0x3D: "i64", 0x3E: "i64",
}  # fmt: skip
SIMD_STORES: Final[dict[int, int]] = {11: 16, 88: 1, 89: 2, 90: 4, 91: 8}
"""Bytes that v128.store and the stores of a lane write, by sub-opcode."""

_HEAPS: Final = {
    "func": b"\x70", "extern": b"\x6f", "any": b"\x6e", "eq": b"\x6d", "i31": b"\x6c", "struct": b"\x6b", "array": b"\x6a",
    "exn": b"\x69", "none": b"\x71", "noextern": b"\x72", "nofunc": b"\x73", "noexn": b"\x74",
}  # fmt: skip
_NULLABLE: Final = {
    **{f"{heap}ref": code for heap, code in _HEAPS.items()},
    "nullref": b"\x71", "nullexternref": b"\x72", "nullfuncref": b"\x73", "nullexnref": b"\x74",
}  # fmt: skip
_NUMERIC: Final = {text: bytes((code,)) for code, text in NUMERIC_TYPES.items()}


def encode_type(value: ValType) -> bytes:
    """How a value type is written in a binary: the inverse of what `recorder.wasm.module` reads."""
    known = _NUMERIC.get(value) or _NULLABLE.get(value)
    if known is not None:
        return known
    words = value.strip("()").split()
    heap = words[-1]
    code = sleb(int(heap)) if heap.isdigit() else _HEAPS[heap]
    return (b"\x63" if "null" in words else b"\x64") + code


def is_reference(value: ValType) -> bool:
    return value not in _NUMERIC


def is_nullable(value: ValType) -> bool:
    """Whether a local of this reference type starts as null."""
    return not value.startswith("(ref ") or value.startswith("(ref null ")


def nullable(value: ValType) -> ValType:
    """The type that holds what this reference type holds, and null."""
    return value if is_nullable(value) else "(ref null " + value.removeprefix("(ref ")
