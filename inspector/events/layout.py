"""Which row of the story shows which event: runs folded to one row, unfolded ones with their heading, and filtered rows.

Windows may be indexed in any order. One that is not yet shows a row for each of its events, so every event always has its row,
and what is known only makes rows fewer.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate, pairwise
from typing import Any, Final

import pyarrow.compute as pc

from inspector.events.index import Index, Sort

KEPT_POSITIONS: Final = 8


@dataclass(frozen=True)
class Block:
    """A stretch of events that are shown alike."""

    first: int
    count: int
    period: int = 0
    """Events after which it repeats itself; 0 if it does not fold, and each event has a row."""


@dataclass
class _Shelf:
    """One window: the blocks that begin in it."""

    first: int
    end: int
    blocks: list[Block]
    index: Index | None = None
    firsts: list[int] = field(default_factory=list)
    tops: list[int] = field(default_factory=list)
    """First row of each block, counted in the shelf, and the number of rows behind the last."""


class Layout:
    """The rows of a whole story. `firsts`: the first event of each window, and the number of events."""

    def __init__(self, firsts: Sequence[int]) -> None:
        self._firsts = list(firsts[:-1])
        self._shelves = [
            _Shelf(first, end, [Block(first, end - first)] if end > first else []) for first, end in pairwise(firsts)
        ]
        self._open: set[int] = set()
        """First events of the runs that are unfolded."""
        for shelf in self._shelves:
            self._measure(shelf)
        self._tops: list[int] = []
        self._stack()

    def _measure(self, shelf: _Shelf) -> None:
        shelf.firsts = [block.first for block in shelf.blocks]
        shelf.tops = list(accumulate((self._height(block) for block in shelf.blocks), initial=0))

    def _stack(self) -> None:
        self._tops = list(accumulate((shelf.tops[-1] for shelf in self._shelves), initial=0))

    def _height(self, block: Block) -> int:
        if not block.period:
            return block.count
        return 1 + block.count if block.first in self._open else 1

    # -- windows

    @property
    def indexes(self) -> Sequence[Index | None]:
        """By window; None where nothing is known yet."""
        return [shelf.index for shelf in self._shelves]

    def index(self, number: int) -> Index | None:
        return self._shelves[number].index

    def add(self, index: Index) -> None:
        """Takes in what is known of a window."""
        number = index.number
        shelf = self._shelves[number]
        shelf.index, shelf.blocks = index, []
        at = shelf.first
        for run in index.runs:
            if shelf.first + run.first > at:
                shelf.blocks.append(Block(at, shelf.first + run.first - at))
            shelf.blocks.append(Block(shelf.first + run.first, run.size, run.period))
            at = shelf.first + run.first + run.size
        if at < shelf.end:
            shelf.blocks.append(Block(at, shelf.end - at))
        self._measure(shelf)
        for right in (number, number + 1):
            if 0 < right < len(self._shelves) and self._shelves[right - 1].index is not None:
                self._join(right)
        self._stack()

    def _join(self, number: int) -> None:
        """A run does not end where a window happens to: it goes on in the next as far as events keep repeating."""
        right = self._shelves[number]
        left = next((shelf for shelf in reversed(self._shelves[:number]) if shelf.blocks), None)
        if left is None or not right.blocks or right.index is None:
            return
        a, b = left.blocks[-1], right.blocks[0]
        if a.period and a.period == b.period and all(self._repeats(b.first + i, a.period) for i in range(a.period)):
            left.blocks[-1] = replace(a, count=a.count + b.count)
            del right.blocks[0]
            self._reopen(b.first, a.first)
        elif a.period and not b.period:
            more = 0
            while more < b.count and self._repeats(b.first + more, a.period):
                more += 1
            left.blocks[-1] = replace(a, count=a.count + more)
            right.blocks[:1] = [Block(b.first + more, b.count - more)] if more < b.count else []
        elif b.period and not a.period:
            more = 0
            while more < a.count and self._repeats(b.first - more - 1 + b.period, b.period):
                more += 1
            if more:
                # The run begins in the left window now, so that is where it is kept.
                left.blocks[-1:] = [Block(a.first, a.count - more)] if more < a.count else []
                left.blocks.append(replace(b, first=b.first - more, count=b.count + more))
                del right.blocks[0]
                self._reopen(b.first, b.first - more)
        self._measure(left)
        self._measure(right)

    def _reopen(self, old: int, new: int) -> None:
        """A run that begins elsewhere now stays unfolded if it was."""
        if old in self._open:
            self._open.remove(old)
            self._open.add(new)

    def _repeats(self, seq: int, period: int) -> bool:
        """Whether an event is like the one a period before it."""
        return self.sort(seq) == self.sort(seq - period)

    def sort(self, seq: int) -> Sort | None:
        """What an event is like; None if its window is not indexed yet."""
        index = self._shelves[bisect_right(self._firsts, seq) - 1].index
        return None if index is None else index.sort(seq)

    # -- rows

    @property
    def rows(self) -> int:
        return self._tops[-1]

    def at(self, number: int) -> tuple[Block, int]:
        """The block that a row belongs to, and which of its rows that is."""
        shelf_at = bisect_right(self._tops, number) - 1
        shelf, inside = self._shelves[shelf_at], number - self._tops[shelf_at]
        at = bisect_right(shelf.tops, inside) - 1
        return shelf.blocks[at], inside - shelf.tops[at]

    def is_open(self, block: Block) -> bool:
        return block.first in self._open

    def _holder(self, seq: int) -> tuple[int, int]:
        """The shelf and the number of the block that holds an event."""
        number = bisect_right(self._firsts, seq) - 1
        while not self._shelves[number].firsts or self._shelves[number].firsts[0] > seq:
            number -= 1
        return number, bisect_right(self._shelves[number].firsts, seq) - 1

    def row_of(self, seq: int) -> int:
        """The row that shows an event; of a folded run, its line."""
        number, at = self._holder(seq)
        shelf = self._shelves[number]
        block, top = shelf.blocks[at], self._tops[number] + shelf.tops[at]
        if not block.period:
            return top + seq - block.first
        return top + (1 + seq - block.first if block.first in self._open else 0)

    def toggle(self, number: int) -> int | None:
        """Folds or unfolds the run a row belongs to; returns the row its heading is in then, None if there is no run."""
        block, inside = self.at(number)
        if not block.period:
            return None
        self._open.symmetric_difference_update((block.first,))
        self._measure(self._shelves[self._holder(block.first)[0]])
        self._stack()
        return number - inside


class Chosen:
    """The rows of a filtered story: every event that passes has one, window by window as they become known."""

    def __init__(self, firsts: Sequence[int]) -> None:
        self._firsts = list(firsts[:-1])
        self._masks: list[Any] = [None] * len(self._firsts)
        self._counts = [0] * len(self._firsts)
        self._tops = [0] * len(firsts)
        self._positions: OrderedDict[int, Any] = OrderedDict()

    def add(self, number: int, mask: Any) -> None:
        """Which events of a window pass, as an array of booleans."""
        self._masks[number] = mask
        self._counts[number] = mask.true_count
        self._tops = list(accumulate(self._counts, initial=0))

    def mask(self, number: int) -> Any:
        """None if the window was not looked at yet."""
        return self._masks[number]

    @property
    def windows(self) -> int:
        """Windows that were looked at."""
        return sum(mask is not None for mask in self._masks)

    @property
    def rows(self) -> int:
        return self._tops[-1]

    def seq(self, row: int) -> int:
        """The event that a row shows."""
        number = bisect_right(self._tops, row) - 1
        return self._firsts[number] + int(self._places(number)[row - self._tops[number]].as_py())

    def row_of(self, seq: int) -> int:
        """The row that shows an event, else that of the last one shown before it; 0 if there is none."""
        number = bisect_right(self._firsts, seq) - 1
        if number < 0:
            return 0
        behind = self._tops[number]
        if self._counts[number]:
            behind += self._masks[number].slice(0, seq - self._firsts[number] + 1).true_count
        return max(0, behind - 1)

    def _places(self, number: int) -> Any:
        """Where in a window the events are that pass."""
        found = self._positions.pop(number, None)
        if found is None:
            found = pc.indices_nonzero(self._masks[number])
        self._positions[number] = found
        if len(self._positions) > KEPT_POSITIONS:
            self._positions.popitem(last=False)
        return found
