"""A tree of calls, counted in instructions: built from what a guest logs at the entries of its functions and behind its calls.

The log says how deep calls are nested. A frame is popped when the guest is seen at its depth or above it, so tail calls (which
replace a frame) and exceptions (which skip some) need no record of their own.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, Final

from replayer.twin import BIAS, HEAD_ENTRY, HEAD_LANDING, Twin

if TYPE_CHECKING:
    from replayer.fragments import Details

_ENTRY: Final = struct.Struct("<qIIq")
DEEPEST: Final = 400
"""Frames beyond which calls are counted in the deepest frame's own instructions."""


class Node:
    """One function, called along one path."""

    __slots__ = ("calls", "children", "function", "own")

    def __init__(self, function: int) -> None:
        self.function = function
        self.calls = 0
        self.own = 0
        """Instructions of this function itself."""
        self.children: dict[int, Node] = {}

    def child(self, function: int) -> Node:
        found = self.children.get(function)
        if found is None:
            found = self.children[function] = Node(function)
        return found


class CallTree:
    """Instructions begun between two clocks, by the path of calls."""

    def __init__(self, outer: list[int], low: int, high: int) -> None:
        """`outer`: the functions that are on the stack at `low`, outermost first."""
        self.root = Node(-1)
        self._low = low
        self._high = high
        self._last = low
        self._stack: list[tuple[Node, int]] = []
        """Open frames, outermost first, with their depths."""
        node = self.root
        for i, function in enumerate(outer):
            node = node.child(function)
            self._stack.append((node, i - len(outer) + 1))

    def take(self, log: bytes, target: int, twin: Twin, details: Details) -> None:
        stretches = twin.stretches
        for left, pc, _word, depth in _ENTRY.iter_unpack(log):
            index = stretches.at(pc)
            clock = target - (left + BIAS) - stretches.counts[index]
            self._until(clock)
            if clock >= self._high:
                return
            function = details.function_at(pc)
            heads = stretches.heads[index]
            if heads & HEAD_ENTRY:
                self._enter(function, depth, clock >= self._low)
            elif heads & HEAD_LANDING:
                # Of a frame that was there before, it is not known how deep it is: of those above, at least, none is left.
                while self._stack and (self._stack[-1][1] > depth or self._stack[-1][0].function != function):
                    self._stack.pop()
                if self._stack:
                    self._stack[-1] = (self._stack[-1][0], depth)
                else:
                    self._enter(function, depth, False)
            else:
                while self._stack and self._stack[-1][1] > depth:
                    self._stack.pop()
                if not self._stack or self._stack[-1][0].function != function:
                    self._enter(function, depth, False)

    def _enter(self, function: int, depth: int, counts: bool) -> None:
        while self._stack and self._stack[-1][1] >= depth:
            self._stack.pop()
        if len(self._stack) >= DEEPEST:
            return
        node = (self._stack[-1][0] if self._stack else self.root).child(function)
        node.calls += counts
        self._stack.append((node, depth))

    def _until(self, clock: int) -> None:
        """Everything up to `clock` belongs to the innermost frame."""
        clock = min(clock, self._high)
        if clock > self._last:
            node = self._stack[-1][0] if self._stack else self.root
            node.own += clock - self._last
            self._last = clock

    def result(self) -> Any:
        """[function, calls, own, [children…]], nested; behind the outermost, the functions on the stack at the end."""
        return [*_as_list(self.root), [node.function for node, _ in self._stack]]


def _as_list(node: Node) -> list[Any]:
    return [node.function, node.calls, node.own, [_as_list(child) for child in node.children.values()]]
