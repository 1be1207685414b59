"""What the columns of a time line stand for, and what is drawn into them. No widget: positions, letters and their roles."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.cells import cell_len

from inspector.events.spans import Lane
from inspector.panes.rows import plain

_BARS = " ▁▂▃▄▅▆▇█"
_KINDS = {"export": "mark", "execute_tool": "talk", "bad": "bad"}
"""Colours of stretches, by kind; of others "name"."""
Cell = tuple[str, str]
"""A letter, and its role."""


@dataclass(frozen=True)
class Axis:
    """The clocks from `low` up to, not including, `high`, in so many columns."""

    low: int
    high: int
    columns: int

    def begin(self, column: int) -> int:
        """The first clock of a column."""
        return self.low + -(-(self.high - self.low) * column // self.columns)

    def part(self, column: int) -> tuple[int, int]:
        """The clocks of a column, the second not one of them."""
        first = self.begin(column)
        return first, max(first + 1, self.begin(column + 1))

    def column(self, clock: int) -> int | None:
        """The column of a clock; None if it is not shown. The end of everything is in the last one."""
        clock = max(0, clock)
        if not self.low <= clock <= self.high:
            return None
        return min(self.columns - 1, (clock - self.low) * self.columns // (self.high - self.low))

    def nearest(self, clock: int) -> int:
        """The same; left or right of all columns if it is not shown."""
        at = self.column(clock)
        return at if at is not None else -1 if clock < self.low else self.columns

    @property
    def width(self) -> int:
        """Instructions in a column, at least one: by how many keys move."""
        return max(1, (self.high - self.low) // self.columns)


def bars(density: Sequence[int], low: float, high: float, columns: int) -> list[int]:
    """Events in each of `columns` equal parts of [low, high), of an execution that is [0, 1)."""
    count = len(density)
    found = []
    for column in range(columns):
        # Both ends are rounded down: no part is counted twice, and where a column is narrower than a part, it shows that part.
        first = int((low + (high - low) * column / columns) * count + 1e-9)
        last = int((low + (high - low) * (column + 1) / columns) * count + 1e-9)
        found.append(sum(density[first : max(last, first + 1)]))
    return found


def height(value: int, most: int) -> int:
    """0 to 8, by the logarithm: one event is seen beside thousands."""
    if not value:
        return 0
    return max(1, round(8 * (value.bit_length()) / max(1, most.bit_length())))


def draw_bars(found: Sequence[int]) -> list[Cell]:
    """Counts as bars; a column in which nothing happened is a point."""
    most = max(found, default=0)
    return [(_BARS[height(value, most)] if value else "·", "" if value else "dim") for value in found]


def label_for(text: str, room: int) -> str:
    """As much of a name as fits without being cut: all of it, or what is behind its last point; "" if neither does."""
    clean = "".join(c if cell_len(c) == 1 else "\ufffd" for c in plain(text))
    return next((one for one in (clean, clean.rpartition(".")[2]) if one and len(one) <= room), "")


def stretches(lane: Lane, axis: Axis) -> Iterator[tuple[int, int, int]]:
    """(which, its first column, its last) of those that can be told apart; where many share a column, the first of them."""
    column = 0
    while column < axis.columns:
        at = lane.at(axis.begin(column), axis.high)
        if at is None:
            return
        left = max(column, axis.nearest(lane.starts[at]))
        if left >= axis.columns:
            return
        right = max(left, min(axis.columns - 1, axis.nearest(max(lane.starts[at], lane.stops[at] - 1))))
        yield at, left, right
        column = right + 1


def draw_lane(lane: Lane, axis: Axis) -> list[Cell]:
    """Stretches as lines with their names inside, points as squares with their names behind them, where those fit."""
    cells: list[Cell] = [(" ", "")] * axis.columns
    drawn = list(stretches(lane, axis))
    for number, (at, left, right) in enumerate(drawn):
        role = _KINDS.get(lane.kinds[at], "name")
        room = right - left + 1
        if room < 3:
            cells[left : right + 1] = [("■", role)] * room
            free = (drawn[number + 1][1] if number + 1 < len(drawn) else axis.columns) - right
            text, first = label_for(lane.labels[at], free - 3), right + 2
        else:
            cells[left : right + 1] = [("┣", role), *[("━", role)] * (room - 2), ("┫", role)]
            text = label_for(lane.labels[at], room - 4)
            text, first = f" {text} " if text else "", left + 1
        for i, letter in enumerate(text):
            cells[first + i] = (letter, "bad" if role == "bad" else "" if room >= 3 else "dim")
    return cells
