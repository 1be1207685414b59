"""The bytes below WebAssembly's grammar: LEB128 integers, names, vectors and section framing.

This module alone knows how those are written and is the only place where bytes of a binary are taken one by
one. It also owns the error: whatever is wrong with a given binary, and however hostile it is, callers see a
`WasmError`. To keep that promise `Reader` checks every length and count against the bytes that remain before
anything is allocated. All offsets are absolute, counted from the first byte of the binary.
"""

from __future__ import annotations

from collections.abc import Iterable

PREAMBLE = b"\0asm\1\0\0\0"
"""Magic number and version of a core module."""

CUSTOM_SECTION = 0


class WasmError(ValueError):
    """The binary is malformed, or holds something that is not supported here. The message is one line."""

    offset: int | None
    """The byte the message is about, from the start of the binary; None where no single byte is to blame."""

    def __init__(self, problem: str, offset: int | None = None) -> None:
        self.offset = offset
        super().__init__(problem if offset is None else f"{problem} at byte {offset}")


class Reader:
    """A cursor over `data[position:end]` that refuses to leave it."""

    __slots__ = ("data", "end", "position")

    def __init__(self, data: bytes, position: int = 0, end: int | None = None) -> None:
        self.data = data
        self.position = position
        self.end = len(data) if end is None else end

    @property
    def remaining(self) -> int:
        return self.end - self.position

    def byte(self) -> int:
        at = self.position
        if at >= self.end:
            raise WasmError("unexpected end", at)
        self.position = at + 1
        return self.data[at]

    def peek(self) -> int:
        """The next byte, not consumed."""
        if self.position >= self.end:
            raise WasmError("unexpected end", self.position)
        return self.data[self.position]

    def take(self, size: int) -> bytes:
        at = self.position
        if size > self.end - at:
            raise WasmError(f"{size} bytes wanted, {self.end - at} left", at)
        self.position = at + size
        return self.data[at : at + size]

    def u32(self) -> int:
        return self._unsigned(32)

    def u64(self) -> int:
        return self._unsigned(64)

    def s33(self) -> int:
        """A signed 33-bit integer: how block types and heap types are written."""
        return self._signed(33)

    def count(self, smallest: int = 1) -> int:
        """The length of a vector whose items take at least `smallest` bytes each."""
        at = self.position
        count = self.u32()
        if count * smallest > self.remaining:
            raise WasmError(f"a vector claims {count} items, {self.remaining} bytes are left", at)
        return count

    def name(self) -> str:
        at = self.position
        raw = self.take(self.u32())
        try:
            return raw.decode()
        except UnicodeDecodeError:
            raise WasmError("a name is not UTF-8", at) from None

    def sub_reader(self, size: int) -> Reader:
        """A reader over the next `size` bytes; this one moves past them."""
        at = self.position
        if size > self.end - at:
            raise WasmError(f"{size} bytes wanted, {self.end - at} left", at)
        self.position = at + size
        return Reader(self.data, at, at + size)

    def expect_end(self, what: str) -> None:
        if self.position != self.end:
            raise WasmError(f"{self.remaining} bytes left over after the {what}", self.position)

    def _unsigned(self, bits: int) -> int:
        at = self.position
        value = shift = 0
        while True:
            byte = self.byte()
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                break
            shift += 7
            if shift >= bits:
                raise WasmError(f"an integer takes more bytes than {bits} bits need", at)
        if value >> bits:
            raise WasmError(f"an integer does not fit {bits} bits", at)
        return value

    def _signed(self, bits: int) -> int:
        at = self.position
        value = shift = 0
        while True:
            byte = self.byte()
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
            if shift >= bits:
                raise WasmError(f"an integer takes more bytes than {bits} bits need", at)
        if byte & 0x40:
            value -= 1 << shift
        if not -(1 << (bits - 1)) <= value < 1 << (bits - 1):
            raise WasmError(f"an integer does not fit {bits} bits", at)
        return value


def uleb(value: int) -> bytes:
    """`value` as the shortest unsigned LEB128."""
    if value < 0x80:
        return bytes((value,))
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def sleb(value: int) -> bytes:
    """`value` as the shortest signed LEB128."""
    out = bytearray()
    while not -0x40 <= value < 0x40:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value & 0x7F)
    return bytes(out)


def name(text: str) -> bytes:
    raw = text.encode()
    return uleb(len(raw)) + raw


def vec(items: Iterable[bytes]) -> bytes:
    listed = list(items)
    return uleb(len(listed)) + b"".join(listed)


def section(section_id: int, payload: bytes) -> bytes:
    return bytes((section_id,)) + uleb(len(payload)) + payload


def custom_section(section_name: str, content: bytes) -> bytes:
    return section(CUSTOM_SECTION, name(section_name) + content)
