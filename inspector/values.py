"""Bytes as people give and read them: needles of a search, addresses, and what some bytes mean as numbers."""

from __future__ import annotations

import re
import struct
from typing import Final

from traces._errors import UsageError

_INTEGER: Final = re.compile(r"(?P<kind>[iu](?:8|16|32|64))[:=](?P<value>-?(?:0x[0-9a-fA-F]+|\d+))\Z")
_HEX: Final = re.compile(r"(?:[0-9a-fA-F]{2}\s*)+\Z")


def needle(text: str) -> bytes:
    """What to look for: `"text"` or plain text, `39 39 39`  (or `x:393939`) as bytes, `u32:12950` as a number, little-endian."""
    if len(text) > 1 and text[0] == text[-1] == '"':
        return text[1:-1].encode()
    found = _INTEGER.match(text)
    if found is not None:
        width = int(found["kind"][1:]) // 8
        try:
            return int(found["value"], 0).to_bytes(width, "little", signed=found["value"].startswith("-"))
        except OverflowError:
            raise UsageError(f"{text}: does not fit {width} bytes") from None
    if text.startswith("x:"):
        if not _HEX.match(text[2:].strip()):
            raise UsageError(f"{text}: write bytes as x:39 39 0a")
        return bytes.fromhex(text[2:])
    if " " in text.strip() and _HEX.match(text.strip()):
        return bytes.fromhex(text)
    if not text:
        raise UsageError("nothing to look for: write text, bytes as 39 39 0a, or a number as u32:12950")
    return text.encode()


def decoded(data: bytes) -> list[tuple[str, str]]:
    """The bytes as each kind of number that fits them, little-endian: (kind, value)."""
    found = []
    for kind, code in (
        ("i8", "b"),
        ("u8", "B"),
        ("i16", "h"),
        ("u16", "H"),
        ("i32", "i"),
        ("u32", "I"),
        ("i64", "q"),
        ("u64", "Q"),
    ):
        size = struct.calcsize(f"<{code}")
        if len(data) >= size:
            found.append((kind, str(struct.unpack(f"<{code}", data[:size])[0])))
    for kind, code in (("f32", "f"), ("f64", "d")):
        size = struct.calcsize(f"<{code}")
        if len(data) >= size:
            found.append((kind, f"{struct.unpack(f'<{code}', data[:size])[0]:.9g}"))
    return found


def character(byte: int) -> str:
    """How a byte looks among text."""
    return chr(byte) if 0x20 <= byte < 0x7F else "." if byte else "·"
