"""Where a replay left its recording, side by side: what was recorded, and what the guest did instead.

Taken from the verdict that `reprise replay --json` prints, and said in its words. Nothing here knows a screen; a text has a role
beside it, as in `panes/rows.py`. Names and texts of the guest's are escaped.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from replayer.verdict import Sent, Side
from traces.cli import one_line
from traces.columns import printable
from traces.render import WASI, values

Piece = tuple[str, str]
_ARTICLES: Final = {"export": "a call of ", "callback": "a callback of ", "call": "a call of ", "return": "a return of "}
_MISSING: Final[tuple[Piece, ...]] = (("—", "dim"),)
_ADDRESS: Final = 9


@dataclass(frozen=True)
class Divergence:
    """One divergence, as the verdict tells it."""

    seq: int
    """The event at which they part."""
    words: str
    """What differs, in one line."""
    expected: Side
    """What was recorded."""
    got: Side
    """What the guest did."""
    place: tuple[int, int, int] | None
    """(memory, address, length) of the first bytes that differ."""
    calling: str
    """The import the guest was calling; "" if it was not."""
    mark: str = "end"
    """Where the guest stood: the instruction that called out or trapped, else behind everything."""
    frames: tuple[str, ...] = ()
    """Its stack there, innermost first."""

    @property
    def headline(self) -> str:
        return f"diverged at e{self.seq:,} — {self.words}"

    @property
    def looked_at(self) -> tuple[int, int, int] | None:
        """(memory, address, length) to look at: the first that differ, else those that were handed out."""
        first = next((piece for piece in self.got.sent if piece.data), None)
        return self.place if self.place is not None or first is None else (first.memory, first.address, len(first.data))

    @property
    def stands(self) -> bool:
        """Whether the guest was inside when they parted, so that there is an instruction it stood at."""
        return bool(self.calling) or self.got.kind == "trap"


@dataclass(frozen=True)
class Pair:
    """One line of both sides."""

    expected: tuple[Piece, ...]
    got: tuple[Piece, ...]
    address: tuple[int, int] | None = None
    """(memory, address) of its first byte; None if it is not of bytes."""
    differs: bool = False
    """Of bytes: on both sides there are some, and not the same."""


def read_divergence(verdict: Mapping[str, Any]) -> Divergence | None:
    """What a verdict tells of a divergence; None if there was none, or if it tells nothing of it."""
    found = verdict.get("difference")
    if verdict["verdict"] != "diverged" or found is None:
        return None
    sides = found.get("sides")
    # What an earlier version concluded of a trace has words only.
    if sides is None:
        expected, got = Side("other", text=found["expected"]), Side("other", text=found["got"])
    else:
        expected, got = _side(sides["expected"]), _side(sides["got"])
    place = found.get("place")
    words = found["where"] or f"expected {found['expected']}, got {found['got']}"
    bytes_ = None if place is None else (place["memory"], place["address"], place["length"])
    return Divergence(found["seq"], one_line(words), expected, got, bytes_, found.get("calling") or "")


def _side(found: Mapping[str, Any]) -> Side:
    carried = tuple(Sent(one["memory"], one["address"], bytes.fromhex(one["data"])) for one in found["sent"])
    given = tuple((one["name"], one["type"], int(one["bits"], 16)) for one in found["values"])
    return Side(found["kind"], found["name"], given, carried, found["text"])


# -- side by side --------------------------------------------------------------------------------------------------------


def pairs(found: Divergence, width: int) -> list[Pair]:
    """Both sides line by line, each so many columns wide."""
    was, now = found.expected, found.got
    lines = [_pair(_name(was), _name(now))]
    for i in range(max(len(was.values), len(now.values))):
        lines.append(_pair(_value(was.values[i : i + 1]), _value(now.values[i : i + 1])))
    lines += _texts(_besides(was), _besides(now), width)
    for i in range(max(len(was.sent), len(now.sent))):
        lines += _bytes(was.sent[i : i + 1], now.sent[i : i + 1], width)
    return lines


def first_difference(lines: Sequence[Pair]) -> int:
    """The line to be looked at first: of bytes if they differ, else of whatever does."""
    bytes_ = next((i for i, line in enumerate(lines) if line.differs and line.address is not None), None)
    return bytes_ if bytes_ is not None else next((i for i, line in enumerate(lines) if line.differs), 0)


def _pair(expected: Sequence[Piece], got: Sequence[Piece]) -> Pair:
    """Both, with what is not the same in the colour of changes."""
    if tuple(expected) == tuple(got):
        return Pair(tuple(expected), tuple(got))
    return Pair(_marked(expected), _marked(got), differs=True)


def _marked(pieces: Sequence[Piece]) -> tuple[Piece, ...]:
    return tuple((text, "changed" if role in ("", "strong") else role) for text, role in pieces)


def _name(side: Side) -> list[Piece]:
    if side.kind == "end":
        return [("the end of the recording", "strong")]
    if side.kind == "state":
        return [(printable(side.name), "strong")]
    if side.kind == "other" or not side.name:
        return [(printable(side.text or side.kind), "strong")]
    return [(_ARTICLES.get(side.kind, f"{side.kind} of ") + printable(side.name.removeprefix(WASI)), "strong")]


def _besides(side: Side) -> str:
    """What there is to say that its name does not."""
    return side.text if side.name else ""


def _value(found: Sequence[tuple[str, str, int]]) -> Sequence[Piece]:
    if not found:
        return _MISSING
    name, kind, bits = found[0]
    words = [bits & (1 << 64) - 1, bits >> 64] if kind == "v128" else [bits]
    text = values(words, [kind])[0]
    more = f"  {bits:#x}" if kind in ("i32", "i64") and not -9 <= int(text) <= 9 else ""
    return [(f"{printable(name)} ", "name"), (f"{kind} ", "dim"), (text, ""), (more, "dim")]


def _texts(expected: str, got: str, width: int) -> list[Pair]:
    """Texts, in as many lines as they need."""
    was, now = (textwrap.wrap(printable(text), max(8, width), break_on_hyphens=False) for text in (expected, got))
    count = max(len(was), len(now))
    was, now = was + [""] * (count - len(was)), now + [""] * (count - len(now))
    return [_pair([(a, "")], [(b, "")]) for a, b in zip(was, now, strict=True)]


def _bytes(expected: Sequence[Sent], got: Sequence[Sent], width: int) -> list[Pair]:
    """A piece of memory on both sides, as hex and as characters."""
    room = (width - _ADDRESS) // 4
    per_row = next((count for count in (32, 16, 8, 4) if count <= room), 2)
    was, now = expected[0] if expected else None, got[0] if got else None
    heads = [_MISSING if one is None else _head(one) for one in (was, now)]
    lines = [_pair(heads[0], heads[1])]
    length = max(len(one.data) for one in (was, now) if one is not None)
    for at in range(0, length, per_row):
        left, right = (b"" if one is None else one.data[at : at + per_row] for one in (was, now))
        place = was if was is not None and left else now
        assert place is not None
        lines.append(
            Pair(_hex(was, at, left, right, per_row), _hex(now, at, right, left, per_row), (place.memory, place.address + at),
                 bool(left and right) and left != right)
        )  # fmt: skip
    return lines


def _head(piece: Sent) -> list[Piece]:
    where = f" of memory {piece.memory}" if piece.memory else ""
    return [(f"{len(piece.data):,} bytes sent", ""), (f" at {piece.address:#x}{where}", "dim")]


def _hex(piece: Sent | None, at: int, data: bytes, other: bytes, per_row: int) -> tuple[Piece, ...]:
    if piece is None or not data:
        return _MISSING
    differing = [i >= len(other) or data[i] != other[i] for i in range(len(data))]
    found: list[Piece] = [(f"{piece.address + at:0{_ADDRESS - 1}x} ", "dim")]
    for byte, differs in zip(data, differing, strict=True):
        found.append((f"{byte:02x}", "bad" if differs else ""))
        found.append((" ", ""))
    found.append(("   " * (per_row - len(data)), ""))
    for byte, differs in zip(data, differing, strict=True):
        found.append((chr(byte) if 0x20 <= byte < 0x7F else ".", "bad" if differs else "dim"))
    return tuple(found)
