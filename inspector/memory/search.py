"""Looking through a memory: for bytes, for what a regular expression matches, for what differs from another moment.

A memory may have gigabytes and lies in another process: it is read in pieces, through a function, and whoever asked is heard
between two pieces. Regular expressions are RE2's: whatever the memory holds, they take time linear in it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from traces._errors import UsageError
from traces.cli import one_line

CHUNK: Final = 1 << 20
"""Bytes that are looked through at once."""
LONGEST: Final = 4096
"""Bytes that a regular expression matches at most."""
MOST_RUN: Final = 1 << 16
"""Bytes of a changed run that are chosen at most."""
_WINDOW: Final = 4096

Read = Callable[[int, int], bytes]
"""Address and length to bytes; fewer where the memory ends."""
Tick = Callable[[], None]
"""Called between two pieces; may raise Cancelled."""
Span = tuple[int, int]
"""Address and length."""


@dataclass(frozen=True)
class Pattern:
    """A regular expression over bytes, of which `.` matches each."""

    text: str

    @property
    def expression(self) -> bytes:
        return b"(?s)" + self.text.encode()

    def check(self) -> None:
        """Raises UsageError for what is no expression, or for one that matches nothing at all."""
        try:
            empty = self._at(b"")
        except pa.ArrowInvalid as error:
            why = one_line(str(error)).removeprefix("Invalid regular expression: ")
            raise UsageError(f"/{one_line(self.text)}/: {why}") from None
        if empty >= 0:
            raise UsageError(f"/{one_line(self.text)}/: matches even nothing; write what must be there")

    def _at(self, data: bytes) -> int:
        found: int = pc.find_substring_regex(pa.array([data], pa.binary()), pattern=self.expression)[0].as_py()
        return found

    def _length(self, data: bytes) -> int:
        rest = pc.replace_substring_regex(
            pa.array([data], pa.binary()), pattern=self.expression, replacement=b"", max_replacements=1
        )
        return len(data) - len(rest[0].as_py())

    def spans(self, data: bytes, limit: int) -> Iterator[Span]:
        """Matches that begin before `limit`, none in another, in order."""
        at = 0
        while at < limit:
            found = self._at(data[at:])
            if found < 0 or at + found >= limit:
                return
            at += found
            length = self._length(data[at : at + LONGEST])
            if length:
                yield at, length
            at += max(1, length)


Wanted = bytes | Pattern


def spans(wanted: Wanted, data: bytes, limit: int) -> Iterator[Span]:
    """What is wanted, in `data`, as far as it begins before `limit`; of bytes, also where one lies in another."""
    if isinstance(wanted, Pattern):
        yield from wanted.spans(data, limit)
        return
    at = data.find(wanted, 0, limit + len(wanted) - 1)
    while at >= 0:
        yield at, len(wanted)
        at = data.find(wanted, at + 1, limit + len(wanted) - 1)


def overlap(wanted: Wanted) -> int:
    """Bytes behind a piece that are needed to find what begins in it."""
    return LONGEST if isinstance(wanted, Pattern) else len(wanted) - 1


def find(read: Read, size: int, wanted: Wanted, start: int, reverse: bool, tick: Tick) -> tuple[Span, bool] | None:
    """The first that begins at or behind `start`, or with `reverse` the last that begins before it; else, from the other end of
    the memory, whichever comes next. Says whether it was from there. None if there is none at all."""
    search = _last if reverse else _first
    near, far = ((0, start), (start, size)) if reverse else ((start, size), (0, start))
    for wrapped, (low, high) in enumerate((near, far)):
        found = search(read, size, wanted, low, min(high, size), tick)
        if found is not None:
            return found, bool(wrapped)
    return None


def _first(read: Read, size: int, wanted: Wanted, low: int, high: int, tick: Tick) -> Span | None:
    for at in range(low, high, CHUNK):
        tick()
        limit = min(CHUNK, high - at)
        data = read(at, min(size - at, limit + overlap(wanted)))
        for start, length in spans(wanted, data, limit):
            return at + start, length
    return None


def _last(read: Read, size: int, wanted: Wanted, low: int, high: int, tick: Tick) -> Span | None:
    for end in range(high, low, -CHUNK):
        tick()
        at = max(low, end - CHUNK)
        data = read(at, min(size, end + overlap(wanted)) - at)
        if isinstance(wanted, bytes):
            found = data.rfind(wanted, 0, end - at + len(wanted) - 1)
            if found >= 0:
                return at + found, len(wanted)
        elif next(wanted.spans(data, end - at), None) is not None:
            found_span = _last_match(wanted, data, end - at, tick)
            if found_span is not None:
                return at + found_span[0], found_span[1]
    return None


def _last_match(wanted: Pattern, data: bytes, limit: int, tick: Tick) -> Span | None:
    """The last match. Expressions are read forward: so in small windows from behind, each from its beginning."""
    for end in range(limit, 0, -_WINDOW):
        tick()
        first = max(0, end - _WINDOW)
        found = list(wanted.spans(data[first : end + LONGEST], end - first))
        if found:
            return first + found[-1][0], found[-1][1]
    return None


# -- differences -------------------------------------------------------------------------------------------------------------

_DIFFERENT: Final = re.compile(rb"[^\0]+")


def differing(now: bytes, old: bytes) -> list[Span]:
    """Runs of bytes that are not the same in both, which are equally long."""
    if now == old:
        return []
    mixed = (int.from_bytes(now, "little") ^ int.from_bytes(old, "little")).to_bytes(len(now), "little")
    return [(found.start(), found.end() - found.start()) for found in _DIFFERENT.finditer(mixed)]


def next_change(
    now: Read, old: Read, size: int, page: int, start: int, reverse: bool, same: Callable[[int], bool], tick: Tick
) -> Span | None:
    """The first changed run that begins behind `start`, or with `reverse` the last that begins before it.

    Args:
        old: reads what was there, and zeros where there was no memory yet.
        page: bytes of a page, of which `same` says by its number whether nothing in it changed.
    """
    last = -(-size // page) - 1
    near = max(0, min(start, size - 1)) // page
    for number in range(near, -1, -1) if reverse else range(near, last + 1):
        if same(number):
            continue
        tick()
        low, high = number * page, min(size, (number + 1) * page)
        # One byte more: a run that began in the page before is not another one.
        first = max(0, low - 1)
        runs = [(first + at, length) for at, length in differing(now(first, high - first), old(first, high - first))]
        starts = [run for run in runs if run[0] >= low and (run[0] < start if reverse else run[0] > start)]
        if starts:
            at, length = starts[-1] if reverse else starts[0]
            return at, _to_its_end(now, old, size, at, length) if at + length == high else length
    return None


def _to_its_end(now: Read, old: Read, size: int, at: int, length: int) -> int:
    """The length of a run that goes on behind the page it begins in."""
    while length < MOST_RUN and at + length < size:
        step = min(_WINDOW, size - at - length)
        runs = differing(now(at + length, step), old(at + length, step))
        more = runs[0][1] if runs and runs[0][0] == 0 else 0
        length += more
        if more < step:
            break
    return min(length, MOST_RUN)
