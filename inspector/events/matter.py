"""Where a story gets interesting: what stopped the guest, what it did to the world, what it said. As far as is indexed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Final

from inspector.events.index import FILE, OUTPUT, TALK, WORLD, Index, Sort, effects_of
from traces.manifest import Manifest
from traces.render import pieces, written

Indexes = Sequence[Index | None]
"""By window; None where nothing is known yet."""
_ENDED: Final = ("returned", "exit")
_STOPPED: Final = ("trap", "stop")
_FAR: Final = 4096
"""Records between a write that was split and its return."""


def _of(*effects: int) -> Callable[[Sort], bool]:
    return lambda sort: sort.effect in effects


def seek(indexes: Indexes, seq: int, reverse: bool, test: Callable[[Sort], bool]) -> int | None:
    """The first event behind `seq`, or the last before it, of a sort that passes."""
    for index in reversed(indexes) if reverse else indexes:
        if index is None or (index.first >= seq if reverse else index.first + index.rows <= seq + 1):
            continue
        found = index.next(test, seq if reverse else seq + 1, reverse)
        if found is not None:
            return found
    return None


def next_effect(indexes: Indexes, seq: int, reverse: bool, least: int) -> int | None:
    return seek(indexes, seq, reverse, lambda sort: sort.effect >= least)


def trap(indexes: Indexes) -> int | None:
    """The first record of the last window that says why the guest was stopped: a trap, or out of fuel, out of time."""
    for index in (one for one in reversed(indexes) if one is not None):
        for kind in _STOPPED:
            found = seek([index], index.first - 1, False, partial(_is_a, kind))
            if found is not None:
                return found
    return None


def _is_a(kind: str, sort: Sort) -> bool:
    return sort.kind == kind


class Opening:
    """The event to open at: what stopped the guest, else the last effect, else the last event.

    It is known before everything is indexed, if that begins at the end: as soon as nothing earlier could matter more.
    """

    def __init__(self, manifest: Manifest, events: int) -> None:
        self._events = events
        hosts = {entry.qualified: entry.host for entry in manifest.imports}
        self._stopped = manifest.outcome.get("kind") not in _ENDED
        can_be = {effect for name in hosts for effect in effects_of(name, hosts)}
        self._wanted = [effect for effect in (WORLD, FILE, OUTPUT) if effect in can_be]
        """What the recording's imports can do, the most interesting first."""

    def find(self, indexes: Indexes) -> tuple[int, bool]:
        """The event, as far as is known, and whether that is final."""
        end = len(indexes)
        complete = None not in indexes
        known = next((at + 1 for at in reversed(range(end)) if indexes[at] is None), 0)
        tail = indexes[known:]
        if self._stopped:
            stopped = trap(tail)
            if stopped is not None:
                return stopped, True
        for effect in self._wanted:
            found = seek(tail, self._events, True, _of(effect))
            if found is not None:
                return found, complete or (effect == self._wanted[0] and not self._stopped)
        return max(0, self._events - 1), complete or not (self._wanted or self._stopped)


def effects(indexes: Indexes, most: int) -> list[tuple[int, int]]:
    """(event, how much it matters) of what hosts were told, and asked if there is room; of several in a row the first."""
    found: list[tuple[int, int]] = []
    for wanted in (WORLD, FILE, TALK):
        for index in indexes:
            for seq in index.starts(_of(wanted)) if index is not None else ():
                if len(found) >= most:
                    return sorted(found)
                found.append((seq, wanted))
    return sorted(found)


def has(indexes: Indexes, effect: int) -> bool:
    return any(index is not None and any(sort.effect == effect for sort in index.sorts) for index in indexes)


def output(indexes: Indexes, event: Callable[[int], Mapping[str, Any]], before: int, most: int) -> list[tuple[int, int, bytes]]:
    """(event, descriptor, bytes) of the last writes to stdout and stderr before an event, in order. `event` reads one."""
    found: list[tuple[int, int, bytes]] = []
    for at in _backward(indexes, before, _of(OUTPUT)):
        row = event(at)
        carried = pieces(row["record"], row["chunks_at"])
        status = row["status"]
        for later in range(at + 1, min(before, at + _FAR)) if status == "open" else ():
            more = event(later)
            if more["of"] == at:
                carried += pieces(more["record"], more["chunks_at"])
                if more["kind"] == "return":
                    status = more["status"]
                    break
        if status == "ok":
            found.append((at, row["args"][0], written(row["args"], carried, 3)))
        if len(found) >= most:
            break
    return found[::-1]


def _backward(indexes: Indexes, seq: int, test: Callable[[Sort], bool]) -> Iterator[int]:
    at = seek(indexes, seq, True, test)
    while at is not None:
        yield at
        at = seek(indexes, at, True, test)
