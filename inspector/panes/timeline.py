"""The whole execution on one line: where things happened, and where we are."""

from __future__ import annotations

from collections.abc import Sequence

from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.strip import Strip

from inspector.actions import bindings
from inspector.messages import GoTo
from inspector.panes.rows import Rows
from inspector.story import FILE, TALK, WORLD

_BARS = " ▁▂▃▄▅▆▇█"
_SIGNS = {TALK: ("○", "talk"), FILE: ("■", "file"), WORLD: ("●", "world")}


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


class TimelinePane(Rows):
    """Event density, effects, bookmarks, and the position."""

    NAME = "timeline"
    BINDINGS = bindings("timeline")

    def __init__(self) -> None:
        super().__init__(id="timeline")
        self.density: Sequence[int] = ()
        self.total = 0
        self.clock = -1
        self.low, self.high = 0.0, 1.0
        self.effects: Sequence[tuple[int, int]] = ()
        """(clock, how much it matters)"""
        self.bookmarks: Sequence[int] = ()

    def count(self) -> int:
        return 0

    def note(self) -> str:
        if (self.low, self.high) == (0.0, 1.0) or not self.total:
            return ""
        return f"mark {int(self.low * self.total):,} to {int(self.high * self.total):,}"

    def title(self) -> str:
        return "timeline"

    def column(self, clock: int, width: int) -> int | None:
        """Where a mark is on the screen; None if it is not on it."""
        if not self.total:
            return None
        share = (max(0, clock) / self.total - self.low) / (self.high - self.low)
        return min(width - 1, int(share * width)) if 0 <= share <= 1 else None

    def draw(self, y: int, width: int, base: Style) -> Strip:
        style = self.get_component_rich_style
        cells: list[tuple[str, str]] = [(" ", "")] * width
        position = self.column(self.clock, width)
        if y == 0:
            found = bars(self.density, self.low, self.high, width) if self.density else [0] * width
            most = max(found, default=0)
            cells = [(_BARS[height(value, most)] if value else "·", "" if value else "dim") for value in found]
        if y == 1 or self.size.height == 1:
            for clock, effect in sorted(self.effects, key=lambda one: one[1]):
                at = self.column(clock, width)
                if at is not None and (y == 1 or effect == WORLD):
                    cells[at] = _SIGNS[effect]
            for clock in self.bookmarks:
                at = self.column(clock, width)
                if at is not None:
                    cells[at] = ("◆", "name")
        if position is not None and self.total and y <= 1:
            beside = y == 1 and cells[position][0] != " "
            cells[position] = (cells[position][0] if beside else "┃", "here")
        if y > 1:
            return Strip.blank(width, base)
        return Strip([Segment(text, style(f"rows--{role}") if role else base) for text, role in cells], width)

    def _seek(self, share: float) -> None:
        clock = int(min(1.0, max(0.0, share)) * self.total)
        self.post_message(GoTo("end" if clock >= self.total else str(clock), None, "timeline"))

    def on_click(self, event: events.Click) -> None:
        at = event.get_content_offset(self)
        if at is not None and self.total:
            self._seek(self.low + (self.high - self.low) * at.x / max(1, self.size.width))

    def _step(self, columns: int) -> None:
        if self.total:
            self._seek(max(0, self.clock) / self.total + (self.high - self.low) * columns / max(1, self.size.width))

    def action_earlier(self) -> None:
        self._step(-1)

    def action_later(self) -> None:
        self._step(1)

    def _window(self, low: float, span: float) -> None:
        span = min(1.0, max(span, 16 / max(16, self.total)))
        self.low = min(max(0.0, low), 1.0 - span)
        self.high = self.low + span
        self.update()

    def action_zoom_in(self) -> None:
        self._zoom(0.5)

    def action_zoom_out(self) -> None:
        self._zoom(2.0)

    def _zoom(self, factor: float) -> None:
        here = max(0, self.clock) / self.total if self.total else 0.5
        if not self.low <= here <= self.high:
            here = (self.low + self.high) / 2
        span = (self.high - self.low) * factor
        self._window(here - (here - self.low) * factor, span)

    def action_pan_left(self) -> None:
        self._window(self.low - (self.high - self.low) / 4, self.high - self.low)

    def action_pan_right(self) -> None:
        self._window(self.low + (self.high - self.low) / 4, self.high - self.low)
