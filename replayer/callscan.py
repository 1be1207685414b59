"""Calls of certain functions, with where each ends: built from what a guest logs at entries of functions and behind calls.

Like `replayer.calls`, which this is fed like: the log says how deep calls are nested, and a call is over when the guest is seen
above it. A call that ends by a tail call goes on in the function that replaced it.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, Final

from replayer.twin import BIAS, HEAD_ENTRY, HEAD_LANDING, Twin

if TYPE_CHECKING:
    from replayer.fragments import Details

_ENTRY: Final = struct.Struct("<qIIq")


class CallList:
    """Calls begun at clocks in [low, high), in the order of their beginnings."""

    def __init__(self, message: dict[str, Any], low: int, high: int) -> None:
        """`message`: the functions by the head of their first stretch, how many calls to tell at most, where the scan begins,
        and which function, if any, the guest is at the first instruction of there."""
        self._functions: dict[int, int] = dict(message["entries"])
        self._most: int = message["most"]
        self._low = low
        self._high = high
        self._found: list[list[Any]] = []
        """[function, clock, end or None, whether it ended by an exception, depth]"""
        self._open: list[tuple[int, list[Any]]] = []
        """Depths and rows of calls that are not over, outermost first."""
        if message.get("at") is not None:
            self._begin(message["at"], message["begin"], 0)

    def _begin(self, function: int, clock: int, depth: int) -> None:
        if clock >= self._low and len(self._found) < self._most:
            row = [function, clock, None, False, depth]
            self._found.append(row)
            self._open.append((depth, row))

    def take(self, log: bytes, target: int, twin: Twin, details: Details) -> None:
        stretches = twin.stretches
        for left, pc, _word, depth in _ENTRY.iter_unpack(log):
            function = self._functions.get(pc)
            if function is None and (not self._open or self._open[-1][0] < depth):
                continue
            index = stretches.at(pc)
            clock = target - (left + BIAS) - stretches.counts[index]
            if clock >= self._high:
                return
            heads = stretches.heads[index]
            if heads & HEAD_ENTRY:
                if function is not None:
                    self._begin(function, clock, depth)
                continue
            while self._open and self._open[-1][0] > depth:
                row = self._open.pop()[1]
                row[2], row[3] = clock, bool(heads & HEAD_LANDING)

    def result(self) -> Any:
        return self._found
