"""Calls of the guest from outside, by an embedder or by a host that calls back: where each begins and ends.

Depth counts within one of them, so a step has to know which one the guest is in. Read off the headers of all records, once.
"""

from __future__ import annotations

import bisect
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from traces.layout import Kind, Status

if TYPE_CHECKING:
    from replayer.machine import TimeMachine

_NEVER: Final = 1 << 62


@dataclass(frozen=True)
class Activation:
    """One call of the guest from outside."""

    opening: int
    """The record that began it."""
    closing: int | None
    """The record that ended it; None if the recording ends first."""
    begin: int
    """Clock of its first instruction."""
    end: int
    """Clock of the first instruction behind it."""


class Activations:
    """Those of one recording, found by clock. The pass has to be done."""

    def __init__(self, machine: TimeMachine) -> None:
        known = machine.clocks.known
        kinds, statuses = _headers(machine)
        self.kinds = kinds
        found: list[tuple[int, int | None]] = []
        """Opening and closing record, in the order of opening."""
        parents: list[int] = []
        outside: list[int] = []
        """Activations under way."""
        stack: list[int] = []
        """What is open: a number of `found`, or -1 for a call of an import."""
        for seq in range(known):
            kind, is_open = kinds[seq], statuses[seq] == Status.OPEN
            if kind in (Kind.EXPORT, Kind.CALLBACK):
                parents.append(outside[-1] if outside else -1)
                found.append((seq, None if is_open else seq))
                if is_open:
                    outside.append(len(found) - 1)
                    stack.append(len(found) - 1)
            elif kind == Kind.CALL and is_open:
                stack.append(-1)
            elif kind == Kind.RETURN and stack:
                closed = stack.pop()
                if closed >= 0:
                    found[closed] = (found[closed][0], seq)
                    outside.pop()
            elif kind in (Kind.TRAP, Kind.EXIT) and outside:
                # Ends the innermost call from outside, and with it the calls of imports in it.
                while stack and stack.pop() < 0:
                    pass
                closed = outside.pop()
                found[closed] = (found[closed][0], seq)
        clocks = machine.clocks
        # What came back after the last record that was reached has no clock.
        rows = [
            Activation(
                opening,
                closing,
                (clocks[opening - 1] if opening else 0) if closing == opening else clocks[opening],
                _NEVER if closing is None else clocks[closing],
            )
            for opening, closing in found
        ]
        self._rows = rows
        self._parents = parents
        self._begins = [row.begin for row in rows]
        if known < machine.events and kinds[known] in (Kind.EXPORT, Kind.CALLBACK) and statuses[known] != Status.OPEN:
            # The run ends inside a call that is told in one record: at its end, which was not reached.
            self._parents.append(outside[-1] if outside else -1)
            begin = clocks[known - 1] if known else 0
            self._rows.append(Activation(known, None, begin, _NEVER))
            self._begins.append(begin)

    def returned(self, activation: Activation) -> bool:
        """Whether it ended by returning."""
        closing = activation.closing
        return closing is not None and (closing == activation.opening or self.kinds[closing] == Kind.RETURN)

    def outermost(self, clock: int) -> Activation | None:
        """The one made by the embedder."""
        index = self._index(clock)
        while index >= 0 and self._parents[index] >= 0:
            index = self._parents[index]
        return self._rows[index] if index >= 0 else None

    def at(self, clock: int) -> Activation | None:
        """The innermost one whose instruction `clock` is."""
        index = self._index(clock)
        return self._rows[index] if index >= 0 else None

    def _index(self, clock: int) -> int:
        index = bisect.bisect_right(self._begins, clock) - 1
        while index >= 0 and self._rows[index].end <= clock:
            index = self._parents[index]
        return index


def _headers(machine: TimeMachine) -> tuple[bytearray, bytearray]:
    """Kind and status of every record."""
    kinds, statuses = bytearray(machine.events), bytearray(machine.events)
    for piece in machine.job.pieces:
        data = os.pread(machine.job.image, piece.length + 8 * piece.rows, piece.at)
        places = memoryview(data)[piece.length : piece.length + 8 * piece.rows].cast("q")
        for row, place in enumerate(places):
            kinds[piece.first + row] = data[place + 6]
            statuses[piece.first + row] = data[place + 7]
    return kinds, statuses
