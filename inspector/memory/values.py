"""Bytes as people give and read them: needles of a search, and what some bytes mean as numbers, text or a time."""

from __future__ import annotations

import re
import struct
from datetime import UTC, datetime, timedelta
from typing import Final

from inspector.memory.search import Pattern, Wanted
from replayer.source.values import quote
from traces._errors import UsageError

_INTEGER: Final = re.compile(r"(?P<kind>[iu](?:8|16|32|64))[:=](?P<value>-?(?:0x[0-9a-fA-F]+|\d+))\Z")
_HEX: Final = re.compile(r"(?:[0-9a-fA-F]{2}\s*)+\Z")
FIND_HINT: Final = 'text, "text", u"UTF-16", 39 39 0a, x:3939, u32:12950, i64:-1 or /expression/'
MOST_TEXT: Final = 64
"""Bytes of a text that are shown."""
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_PLAUSIBLE: Final = (631_152_000, 4_102_444_800)
"""Seconds since 1970 that are taken for a time: the years 1990 to 2099."""


def needle(text: str) -> Wanted:
    """What to look for: `"text"`, `u"text"` as UTF-16, or plain text; `39 39 39` (or `x:393939`) as bytes; `u32:12950` as a
    number, little-endian; `/expression/` for what a regular expression matches."""
    if len(text) > 1 and text[0] == text[-1] == '"':
        return _not_empty(text[1:-1].encode())
    if len(text) > 2 and text[:2] == 'u"' and text[-1] == '"':
        return _not_empty(text[2:-1].encode("utf-16-le"))
    if len(text) > 2 and text[0] == text[-1] == "/":
        pattern = Pattern(text[1:-1])
        pattern.check()
        return pattern
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
    return _not_empty(text.encode())


def _not_empty(data: bytes) -> bytes:
    if not data:
        raise UsageError("nothing to look for: write text, bytes as 39 39 0a, a number as u32:12950, or /expression/")
    return data


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


# -- the decoder -------------------------------------------------------------------------------------------------------------


def explained(data: bytes, size: int, wide: bool) -> list[tuple[str, str]]:
    """What the bytes at an address may mean, as (kind, meaning), the integers first; little-endian.

    Args:
        data: from the address on, as many as are at hand.
        size: of the memory.
        wide: whether its addresses have 64 bits.
    """
    values = dict(decoded(data))
    found = []
    for bits in (8, 16, 32, 64):
        if f"u{bits}" in values:
            found.append((str(bits), _integer(data[: bits // 8], values[f"u{bits}"], values[f"i{bits}"])))
    found += [(kind, values[kind]) for kind in ("f32", "f64") if kind in values]
    width = 8 if wide else 4
    if len(data) >= width:
        target = int.from_bytes(data[:width], "little")
        found.append(("pointer", f"{target:#x}" if 0 < target < size else "null" if not target else "outside the memory"))
    lebs = leb128(data)
    if lebs is not None:
        unsigned, signed, count = lebs
        both = f"{unsigned}" if signed == unsigned else f"{unsigned} or {signed}"
        found.append(("leb128", f"{both}, {count} {'byte' if count == 1 else 'bytes'}"))
    found.append(("text", text_at(data)))
    when = timestamp(data)
    if when:
        found.append(("time", when))
    return [one for one in found if one[1]]


def _integer(data: bytes, unsigned: str, signed: str) -> str:
    text = unsigned if unsigned == signed else f"{unsigned} or {signed}"
    if len(data) == 1:
        letter = f"  {character(data[0])!r}" if 0x20 <= data[0] < 0x7F else ""
        return f"{text}{letter}  {data[0]:08b}"
    return f"{text}  {int(unsigned):#x}" if len(data) < 8 else text


def leb128(data: bytes) -> tuple[int, int, int] | None:
    """The unsigned and the signed integer that begins here, and its bytes; None if none ends within the 10 that one may have."""
    value = 0
    for i, byte in enumerate(data[:10]):
        value |= (byte & 0x7F) << 7 * i
        if byte < 0x80:
            if value >> 64:
                return None
            signed = value - (1 << 7 * (i + 1)) if byte & 0x40 else value
            return value, max(signed, -(1 << 63)), i + 1
    return None


def text_at(data: bytes) -> str:
    """The text that begins here, quoted: up to a NUL, or to what is no UTF-8; "" for none."""
    whole = data[:MOST_TEXT]
    text = whole.partition(b"\0")[0]
    try:
        shown = text.decode()
    except UnicodeDecodeError as error:
        shown = text[: error.start].decode()
    printable = next((i for i, c in enumerate(shown) if not (c.isprintable() or c in "\n\r\t")), len(shown))
    shown = shown[:printable]
    used = len(shown.encode())
    if not used:
        return ""
    ended = used < len(data) and data[used] == 0
    return f"{quote(shown.encode())} {used} {'byte' if used == 1 else 'bytes'}{', NUL' if ended else ''}"


def timestamp(data: bytes) -> str:
    """The bytes as a time between 1990 and 2099, UTC: 64 bits of seconds to nanoseconds since 1970, or 32 of seconds; else ""."""
    low, high = _PLAUSIBLE
    if len(data) >= 8:
        number = int.from_bytes(data[:8], "little")
        for unit, per_second in (("ns", 10**9), ("µs", 10**6), ("ms", 1000), ("s", 1)):
            if low <= number / per_second < high:
                return f"{_time(number // per_second, number % per_second, per_second)}, {unit}"
    if len(data) >= 4:
        number = int.from_bytes(data[:4], "little")
        if low <= number < high:
            return f"{_time(number, 0, 1)}, s in 32 bits"
    return ""


def _time(seconds: int, part: int, per_second: int) -> str:
    fraction = f".{part:0{len(str(per_second)) - 1}d}" if per_second > 1 else ""
    return f"{_EPOCH + timedelta(seconds=seconds):%Y-%m-%d %H:%M:%S}{fraction}Z"


def wasm_value(kind: str, bits: int | None) -> str:
    """A local or a global of the module's, by its type: integers signed and, where that says more, in hexadecimal."""
    if bits is None:
        return "?"
    if kind in ("i32", "i64"):
        width = 32 if kind == "i32" else 64
        number = bits - (1 << width) if bits >> (width - 1) else bits
        return str(number) if -10 < number < 10 else f"{number}  {bits:#x}"
    if kind in ("f32", "f64"):
        code, number_of_bytes = ("<f", 4) if kind == "f32" else ("<d", 8)
        value = struct.unpack(code, bits.to_bytes(number_of_bytes, "little"))[0]
        return f"{value:.9g}" if kind == "f32" else f"{value!r}"
    if kind == "v128":
        return f"{bits:#034x}"
    return "null" if bits == 0 else "ref"


def character(byte: int) -> str:
    """How a byte looks among text."""
    return chr(byte) if 0x20 <= byte < 0x7F else "." if byte else "·"
