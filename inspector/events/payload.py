"""The bytes that crossed in an event, in views that make a line when it is looked at: text, JSON, hexadecimal, typed.

Payloads may be huge and hostile: opening one looks at its head, and at most counts its newlines; JSON is read up to a limit.
"""

from __future__ import annotations

import json
import re
import struct
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any, Final, Protocol

from inspector.events.structs import Struct, pointers, struct_of
from traces.columns import printable
from traces.render import WASI, Piece

Spans = list[tuple[str, str]]
"""A line: texts, each with its role (see `panes.rows`)."""
VIEWS: Final = ("text", "JSON", "hex", "typed")
"""What a payload is shown as, if it can be; "auto" is the one that fits it best."""
COPIED: Final = 1 << 20
"""Bytes of a payload that are copied at most."""
JSON_LIMIT: Final = 1 << 20
"""Larger payloads are not read as JSON: that holds up everything else while it lasts."""
LINES_AT_ONCE: Final = 1 << 16
"""Bytes whose newlines are known one by one."""
_HEAD: Final = 4096
_NEWLINE: Final = re.compile(rb"\n")


@dataclass(frozen=True)
class Payload:
    """A piece of guest memory that an event read or wrote, joined over its records."""

    name: str
    """The parameter that points to it; "" if none does."""
    sent: bool
    """The host read it; otherwise the host wrote it."""
    memory: int
    address: int
    data: bytes = field(repr=False)
    struct: Struct | None = None
    """What is known of its structure; it may hold several of them."""
    cut: bool = False
    """There is more than was read."""

    @property
    def heading(self) -> str:
        where = f" of memory {self.memory}" if self.memory else ""
        size = f"{len(self.data):,} byte{'s' if len(self.data) != 1 else ''}"
        more = ", and more" if self.cut else ""
        return (
            f"{'sent' if self.sent else 'received'} {printable(self.name)}".strip()
            + f"  {size}{more} at {self.address:#x}{where}"
        )


class View(Protocol):
    """Lines of a payload."""

    @property
    def name(self) -> str: ...

    def __len__(self) -> int: ...

    def line(self, number: int, width: int) -> Spans:
        """One line; what is beyond `width` need not be made."""

    def bytes_of(self, number: int) -> tuple[int, int] | None:
        """The bytes a line stands for, as (offset, length); None if that is not told."""


def view_of(payload: Payload, wanted: str, per_row: int = 16) -> View:
    """A view of a payload; one that it has not becomes what comes nearest."""
    data = payload.data
    if wanted in ("auto", "typed") and payload.struct is not None:
        return Typed(payload)
    if wanted in ("auto", "JSON"):
        lines = json_lines(data, anything=wanted == "JSON")
        if lines is not None:
            return Json(lines)
    if wanted == "typed":
        return Typed(payload)
    if wanted != "hex" and looks_like_text(data):
        return Text(data)
    return Hex(data, payload.address, per_row)


def next_view(payload: Payload, now: str, per_row: int = 16) -> View:
    """The view behind one, of those that the payload has."""
    at = VIEWS.index(now)
    for wanted in VIEWS[at + 1 :] + VIEWS[:at]:
        view = view_of(payload, wanted, per_row)
        if view.name == wanted:
            return view
    return view_of(payload, now, per_row)


def copied(payload: Payload, view: View) -> tuple[str, bool]:
    """A payload as it is shown, for the clipboard, and whether that is all of it."""
    if isinstance(view, Text):
        return payload.data[:COPIED].decode("utf-8", "replace"), len(payload.data) <= COPIED and not payload.cut
    lines: list[str] = []
    size = 0
    for number in range(len(view)):
        lines.append("".join(text for text, _ in view.line(number, COPIED)))
        size += len(lines[-1]) + 1
        if size > COPIED:
            return "\n".join(lines)[:COPIED], False
    return "\n".join(lines), not payload.cut


# -- text --------------------------------------------------------------------------------------------------------------------


def looks_like_text(data: bytes) -> bool:
    """Whether its beginning is UTF-8, and mostly printable."""
    head = data[:_HEAD]
    try:
        text = head.decode("utf-8")
    except UnicodeDecodeError as error:
        if len(data) <= _HEAD or error.start < _HEAD - 3:
            return False
        text = head[: error.start].decode("utf-8")
    shown = sum(c.isprintable() or c in "\n\r\t" for c in text)
    return shown >= 0.9 * len(text)


class Text:
    """Lines as they stand."""

    name = "text"

    def __init__(self, data: bytes) -> None:
        self._data = data
        counts = (data.count(b"\n", at, at + LINES_AT_ONCE) for at in range(0, len(data), LINES_AT_ONCE))
        self._newlines = list(accumulate(counts, initial=0))
        """Newlines before each stretch of LINES_AT_ONCE bytes."""
        self._near: tuple[int, Sequence[int]] = (-1, ())

    def __len__(self) -> int:
        if not self._data:
            return 0
        return self._newlines[-1] + (0 if self._data.endswith(b"\n") else 1)

    def _start(self, number: int) -> int:
        """Where a line begins: behind the newline before it."""
        if number == 0:
            return 0
        block = bisect_right(self._newlines, number - 1) - 1
        return self._ends(block)[number - 1 - self._newlines[block]] + 1

    def _ends(self, block: int) -> Sequence[int]:
        """Where the newlines of a stretch are; those of the last one are kept."""
        if self._near[0] != block:
            at = block * LINES_AT_ONCE
            self._near = block, [at + found.start() for found in _NEWLINE.finditer(self._data[at : at + LINES_AT_ONCE])]
        return self._near[1]

    def line(self, number: int, width: int) -> Spans:
        start = self._start(number)
        text = self._data[start : start + 4 * width + 4]
        return [(text.partition(b"\n")[0].rstrip(b"\r").decode("utf-8", "replace").expandtabs(4), "")]

    def bytes_of(self, number: int) -> tuple[int, int]:
        start = self._start(number)
        end = self._data.find(b"\n", start)
        return start, (len(self._data) if end < 0 else end) - start


# -- JSON --------------------------------------------------------------------------------------------------------------------


class _Number(str):
    """A number as it was written."""


class _Pairs(list[tuple[str, Any]]):
    """An object, with the keys that it has twice."""


def json_lines(data: bytes, anything: bool = False) -> list[Spans] | None:
    """JSON, a member in a line; None if it is not JSON. A bare number or word is only if `anything` may be."""
    if len(data) > JSON_LIMIT or not (anything or data.lstrip()[:1] in (b"{", b"[")):
        return None
    try:
        value = json.loads(
            data.decode("utf-8"), parse_int=_Number, parse_float=_Number, parse_constant=_refuse, object_pairs_hook=_Pairs
        )
        return list(_json(value, "", "", ""))
    except (ValueError, RecursionError):
        return None


def _refuse(word: str) -> None:
    raise ValueError(word)


def _json(value: Any, indent: str, before: str, after: str) -> Iterator[Spans]:
    """The lines of a value; `before` is its key, `after` the comma behind it."""
    key: Spans = [(indent, ""), (before, "name")] if before else [(indent, "")]
    if isinstance(value, _Pairs | list) and value:
        marks = "{}" if isinstance(value, _Pairs) else "[]"
        yield [*key, (marks[0], "dim")]
        for number, one in enumerate(value):
            name, member = (f"{_string(one[0])}: ", one[1]) if isinstance(value, _Pairs) else ("", one)
            yield from _json(member, indent + "  ", name, "," if number + 1 < len(value) else "")
        yield [(indent, ""), (marks[1] + after, "dim")]
        return
    text, role = _scalar(value)
    yield [*key, (text, role), (after, "dim")]


def _scalar(value: Any) -> tuple[str, str]:
    if isinstance(value, _Pairs):
        return "{}", "dim"
    if isinstance(value, list):
        return "[]", "dim"
    if isinstance(value, _Number):
        return str(value), "number"
    if isinstance(value, str):
        return _string(value), ""
    return {None: "null", True: "true", False: "false"}[value], "number"


def _string(text: str) -> str:
    return json.dumps(text, ensure_ascii=not text.isprintable())


class Json:
    name = "JSON"

    def __init__(self, lines: list[Spans]) -> None:
        self._lines = lines

    def __len__(self) -> int:
        return len(self._lines)

    def line(self, number: int, width: int) -> Spans:
        return self._lines[number]

    def bytes_of(self, number: int) -> None:
        return None


# -- hexadecimal -------------------------------------------------------------------------------------------------------------


class Hex:
    """Address, bytes, and the characters they would be."""

    name = "hex"

    def __init__(self, data: bytes, address: int, per_row: int) -> None:
        self._data, self._address, self._per_row = data, address, per_row
        self._digits = max(8, len(f"{address + len(data):x}"))

    def __len__(self) -> int:
        return -(-len(self._data) // self._per_row)

    def line(self, number: int, width: int) -> Spans:
        at = number * self._per_row
        row = self._data[at : at + self._per_row]
        half = self._per_row // 2
        groups = f"{row[:half].hex(' '):<{3 * half - 1}}  {row[half:].hex(' '):<{3 * half - 1}}"
        shown = "".join(chr(byte) if 0x20 <= byte < 0x7F else "·" for byte in row)
        return [(f"{self._address + at:0{self._digits}x}  ", "dim"), (groups, ""), (f"  {shown}", "name")]

    def bytes_of(self, number: int) -> tuple[int, int]:
        at = number * self._per_row
        return at, min(self._per_row, len(self._data) - at)


# -- typed -------------------------------------------------------------------------------------------------------------------


class Typed:
    """Fields where the structure is known; else the numbers the bytes would be, little-endian."""

    name = "typed"

    def __init__(self, payload: Payload) -> None:
        self._data = payload.data
        self._fields = payload.struct.fields if payload.struct is not None else ()
        self._size = payload.struct.size if payload.struct is not None else 8
        self._items = -(-len(self._data) // self._size)
        self._per_item = max(1, len(self._fields))

    def __len__(self) -> int:
        return self._items * self._per_item

    def line(self, number: int, width: int) -> Spans:
        item, which = divmod(number, self._per_item)
        at = item * self._size
        if not self._fields:
            return [(f"+{at:04x}  ", "dim"), *numbers(self._data[at : at + 8])]
        one = self._fields[which]
        label = f"[{item}] " if self._items > 1 else ""
        raw = self._data[at + one.offset : at + one.end]
        value = one.show(raw) if len(raw) == one.end - one.offset else "?"
        return [(label, "dim"), (f"{one.name} ", "name"), (value, "number"), (f"  {one.kind}", "dim")]

    def bytes_of(self, number: int) -> tuple[int, int] | None:
        item, which = divmod(number, self._per_item)
        at, end = item * self._size, (item + 1) * self._size
        if self._fields:
            at, end = at + self._fields[which].offset, at + self._fields[which].end
        length = min(end, len(self._data)) - at
        return (at, length) if length > 0 else None


def numbers(data: bytes) -> Spans:
    """Up to eight bytes as every number they could be."""
    spans: Spans = []
    for size, integer, real in ((8, "q", "d"), (4, "i", "f"), (2, "h", ""), (1, "b", "")):
        if len(data) < size or (size < 4 and len(data) >= 4):
            continue
        count = len(data) // size
        used = data[: count * size]
        unsigned = struct.unpack(f"<{count}{integer.upper()}", used)
        spans += [(f"u{8 * size} ", "dim"), (" ".join(map(str, unsigned)), "number"), ("  ", "")]
        signed = struct.unpack(f"<{count}{integer}", used)
        if signed != unsigned:
            spans += [(f"i{8 * size} ", "dim"), (" ".join(map(str, signed)), "number"), ("  ", "")]
        if real:
            reals = struct.unpack(f"<{count}{real}", used)
            spans += [(f"f{8 * size} ", "dim"), (" ".join(f"{one:.6g}" for one in reals), ""), ("  ", "")]
    return spans[:-1] if spans else spans


# -- what an event carries ---------------------------------------------------------------------------------------------------


def payloads(carried: Sequence[Piece], name: str, names: Sequence[str], args: Sequence[int], cut: bool = False) -> list[Payload]:
    """An event's pieces, joined where one goes on where the one before ended.

    Args:
        name: of the import, qualified.
        names: of its parameters; the one that holds a piece's address names it.
        cut: there are more pieces than these.
    """
    joined: list[list[Piece]] = []
    end = -1
    for piece in carried:
        last = joined[-1][-1] if joined else None
        if last is not None and (last.sent, last.memory, end) == (piece.sent, piece.memory, piece.address):
            joined[-1].append(piece)
        else:
            joined.append([piece])
        end = piece.address + len(piece.data)
    operation = name.removeprefix(WASI) if name.startswith(WASI) else ""
    known = pointers(operation) if operation else dict(enumerate(names))
    called = {args[at]: word for at, word in known.items() if at < len(args)}
    found = []
    for at, run in enumerate(joined):
        head = run[0]
        word = called.get(head.address, "")
        data = run[0].data if len(run) == 1 else b"".join(piece.data for piece in run)
        struct = struct_of(operation, word) if operation else None
        found.append(Payload(word, head.sent, head.memory, head.address, data, struct, cut and at + 1 == len(joined)))
    return found
