"""Values as Python sees them, to and from the raw bits that cross the boundary.

Integers are signed, floats are `Float` (a float that remembers its bits, so that a signalling NaN handed through a host stays
one), v128 are integers of 128 bits. Going back, anything that has those bits is taken: signed or unsigned integers in range,
floats, `Bits`, 16 bytes.
"""

from __future__ import annotations

import struct
from typing import Any

from traces._errors import UsageError

_WIDTHS = {"i32": 32, "i64": 64, "v128": 128}


class Float(float):
    """An f32 or f64 with the exact bits it crossed with."""

    bits: int

    def __new__(cls, bits: int, kind: str) -> Float:
        value = super().__new__(cls, _float_of(bits, kind))
        value.bits = bits
        value.kind = kind
        return value

    kind: str


class Bits(int):
    """Raw bits for a float or vector: `Bits(0x7fa00000)` is a signalling NaN when an f32 is wanted."""


def _float_of(bits: int, kind: str) -> float:
    value: float
    if kind == "f32":
        (value,) = struct.unpack("<f", bits.to_bytes(4, "little"))
    else:
        (value,) = struct.unpack("<d", bits.to_bytes(8, "little"))
    return value


def from_raw(bits: int, kind: str) -> Any:
    """The Python value for raw bits. References are their caller's business."""
    if kind in ("f32", "f64"):
        return Float(bits, kind)
    width = _WIDTHS[kind]
    if kind != "v128" and bits >> (width - 1):
        return bits - (1 << width)
    return bits


def to_raw(value: Any, kind: str) -> int:
    """Raw bits for a Python value; TypeError or ValueError says what does not fit."""
    if kind in ("f32", "f64"):
        return _float_bits(value, kind)
    if kind == "v128" and isinstance(value, bytes | bytearray):
        if len(value) != 16:
            raise ValueError(f"a v128 is 16 bytes, not {len(value)}")
        return int.from_bytes(value, "little")
    if not isinstance(value, int):
        raise TypeError(f"{kind} expected, got {type(value).__name__}")
    width = _WIDTHS[kind]
    if not -(1 << (width - 1)) <= value < 1 << width:
        raise ValueError(f"{value} does not fit an {kind}")
    return value & ((1 << width) - 1)


def _float_bits(value: Any, kind: str) -> int:
    if isinstance(value, Float) and value.kind == kind:
        return value.bits
    if isinstance(value, Bits):
        if not 0 <= value < 1 << (32 if kind == "f32" else 64):
            raise ValueError(f"{int(value):#x} does not fit an {kind}")
        return int(value)
    if not isinstance(value, int | float):
        raise TypeError(f"{kind} expected, got {type(value).__name__}")
    if kind == "f64":
        return int.from_bytes(struct.pack("<d", value), "little")
    try:
        return int.from_bytes(struct.pack("<f", value), "little")
    except OverflowError:
        return 0x7F800000 if value > 0 else 0xFF800000


def parse(text: str, kind: str) -> int:
    """Raw bits for a command-line value: WAVE numbers, `nan:0x…`, or `0x…` for raw bits of a float or vector."""
    original, text = text, text.strip().replace("_", "")
    try:
        if kind in ("f32", "f64"):
            return _parse_float(text, kind)
        return to_raw(int(text, 0), kind)
    except (ValueError, TypeError):
        raise UsageError(f"--arg {original!r} is not a value of type {kind}; give a number, 0x… for raw bits, or @FILE") from None


def _parse_float(text: str, kind: str) -> int:
    sign_bit, exponent, fraction = (31, 0x7F800000, 23) if kind == "f32" else (63, 0x7FF << 52, 52)
    sign = 0
    if text.startswith(("-nan", "+nan")):
        sign = 1 << sign_bit if text[0] == "-" else 0
        text = text[1:]
    if text == "nan":
        return sign | exponent | 1 << (fraction - 1)
    if text.startswith("nan:0x"):
        payload = int(text[4:], 16)
        if not 0 < payload < 1 << fraction:
            raise ValueError(text)
        return sign | exponent | payload
    if text.lower().startswith("0x") and "." not in text and "p" not in text.lower():
        return _float_bits(Bits(int(text, 16)), kind)
    if "0x" in text.lower():
        return _float_bits(float.fromhex(text), kind)
    return _float_bits(float(text), kind)
