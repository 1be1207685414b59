"""Reading little-endian numbers and strings out of a debug section, always inside its bounds."""

from __future__ import annotations


class Damaged(Exception):
    """Debug information that contradicts itself. Stays inside this package: what is damaged counts as missing."""


def printable(data: bytes) -> str:
    """A name out of debug information, with what could upset a terminal or a line of text escaped."""
    text = data.decode("utf-8", "replace")
    return text if text.isprintable() else "".join(char if char.isprintable() else f"\\u{{{ord(char):x}}}" for char in text)


class Cursor:
    """A position in `data` that moves forward; reading past `end` raises Damaged."""

    __slots__ = ("data", "end", "position")

    def __init__(self, data: bytes, position: int = 0, end: int | None = None) -> None:
        self.data = data
        self.end = len(data) if end is None else min(end, len(data))
        self.position = position
        if not 0 <= position <= self.end:
            raise Damaged(f"offset {position:#x} is outside its section")

    @property
    def remaining(self) -> int:
        return self.end - self.position

    def take(self, length: int) -> bytes:
        start = self.position
        if not 0 <= length <= self.end - start:
            raise Damaged("a section ends early")
        self.position = start + length
        return self.data[start : self.position]

    def unsigned(self, size: int) -> int:
        return int.from_bytes(self.take(size), "little")

    def signed(self, size: int) -> int:
        return int.from_bytes(self.take(size), "little", signed=True)

    def uleb(self) -> int:
        result = shift = 0
        while True:
            byte = self.unsigned(1)
            result |= (byte & 0x7F) << shift
            if byte < 0x80:
                return result
            shift += 7
            if shift > 70:
                raise Damaged("a number is too long")

    def sleb(self) -> int:
        result = shift = 0
        while True:
            byte = self.unsigned(1)
            result |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return result - (1 << shift) if byte & 0x40 else result
            if shift > 70:
                raise Damaged("a number is too long")

    def string(self) -> bytes:
        """Up to the next zero byte, which is skipped."""
        stop = self.data.find(b"\0", self.position, self.end)
        if stop < 0:
            raise Damaged("a string does not end")
        found = self.data[self.position : stop]
        self.position = stop + 1
        return found

    def initial_length(self) -> tuple[int, int]:
        """The length that opens a contribution to a section, and how many bytes its offsets have (4 or 8)."""
        length = self.unsigned(4)
        if length == 0xFFFFFFFF:
            return self.unsigned(8), 8
        if length >= 0xFFFFFFF0:
            raise Damaged("a reserved length")
        return length, 4
