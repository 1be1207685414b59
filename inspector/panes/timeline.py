"""The whole execution from left to right: when events happened, which exports were called, what took time, and where we are."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import Final

from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.actions import SkipAction
from textual.strip import Strip

from inspector.actions import bindings
from inspector.events.index import FILE, TALK, WORLD
from inspector.events.spans import Lane, Survey
from inspector.messages import GoTo, Measure, WantCounts
from inspector.panes.axis import Axis, Cell, bars, draw_bars, draw_lane, height
from inspector.panes.rows import Rows

_SIGNS = {TALK: ("○", "talk"), FILE: ("■", "file"), WORLD: ("●", "world")}
_GUTTER: Final = 9
"""Columns in which lanes are named, where there is room."""
_LEAST: Final = 16
"""Instructions that are shown at least: nearer than that is nothing to be seen."""
_USUAL: Final = 4
"""Lanes that most recordings have: there is room for them from the beginning, so that nothing moves when they are known."""
_FAR: Final = 60
"""Columns from which lanes are named."""


class TimelinePane(Rows):
    """Lanes over one axis, which is counted in instructions; and the position, and a selection."""

    NAME = "timeline"
    BINDINGS = bindings("timeline")

    def __init__(self) -> None:
        super().__init__(id="timeline")
        self.density: Sequence[int] = ()
        self.total = 0
        self.clock = -1
        self.event = ""
        """What happens at the position, and when; for the title."""
        self.low, self.high = 0.0, 1.0
        """What is shown, of an execution that is [0, 1)."""
        self.effects: Sequence[tuple[int, int]] = ()
        """(clock, how much it matters)"""
        self.bookmarks: Sequence[int] = ()
        self.baseline: int | None = None
        """The chosen mark that memory is compared with."""
        self.survey = Survey((), ())
        """Placed, once it is there."""
        self._surveyed = False
        self.diverged = False
        """Whether the replay ended with a divergence; that is where the axis ends."""
        self.chosen: tuple[int, int] | None = None
        """A stretch that was selected: clocks, the second not part of it."""
        self.measured = ""
        """How much it is."""
        self._exact: tuple[Axis, Sequence[int]] | None = None
        """Events in each column of a part too small for the density; none until they are counted."""
        self._lane = 0
        self._anchor: int | None = None
        """The clock at which the mouse was pressed."""
        self._dragged = False

    # -- what is shown

    def show(self, clock: int, event: str) -> None:
        """Moves the position, and the view along with it."""
        self.event = event
        if clock != self.clock:
            self.clock = clock
            here = self._here
            if not self.low <= here <= self.high:
                self._window(here - (self.high - self.low) / 2, self.high - self.low)
        self.update()

    def take_counts(self, low: int, high: int, found: Sequence[int]) -> None:
        self._exact = (Axis(low, high, len(found)), found)
        self.update()

    def take_survey(self, survey: Survey) -> None:
        self.survey, self._surveyed = survey, True
        self.update()

    def take_measure(self, chosen: tuple[int, int], text: str) -> None:
        """How much the selection is, if it is still the same one."""
        if chosen == self.chosen:
            self.measured = text
            self.update()

    @property
    def lanes(self) -> list[str | Lane]:
        """What the lines show, from the top: those that there is something for."""
        found: list[str | Lane] = ["events"]
        if self.effects or self.bookmarks or self.baseline is not None or self.survey.clocks or self.diverged:
            found.append("effects")
        return [*found, *self.survey.lanes]

    @property
    def shown(self) -> list[str | Lane]:
        """Those of them that there is room for: inner levels give way first."""
        lanes, room = self.lanes, max(1, self.size.height)
        inner = [lane for lane in lanes if isinstance(lane, Lane) and lane.level]
        while len(lanes) > room:
            lanes.remove(inner.pop() if inner else lanes[-1])
        return lanes

    def count(self) -> int:
        return 0

    def title(self) -> str:
        if not self.total:
            return self.NAME
        clock = max(0, self.clock)
        place = f"timeline  mark {clock:,} of {self.total:,} ({clock * 100 // self.total} %)"
        if self.chosen is not None:
            return f"{place} · selected {self.measured or f'{self.chosen[1] - self.chosen[0]:,} instructions'}"
        return f"{place}  {self.event}".rstrip()

    def note(self) -> str:
        parts = []
        lane = self.lane
        if self.has_focus and isinstance(lane, Lane):
            at = lane.at(*self._under)
            several = lane.beginning(*self._under)
            if several > 1:
                parts.append(f"{several:,} {lane.name} begin here")
            elif at is not None:
                parts.append(f"{lane.labels[at]} e{lane.firsts[at]:,}" + self._until(lane, at))
        if (self.low, self.high) != (0.0, 1.0) and self.total:
            parts.append(f"mark {self.axis.low:,} to {self.axis.high:,}")
        return " · ".join(parts)

    def _until(self, lane: Lane, at: int) -> str:
        length = lane.stops[at] - lane.starts[at]
        last = f" to e{lane.lasts[at]:,}" if lane.lasts[at] != lane.firsts[at] else ""
        return f"{last}, {length:,} instructions" if length > 1 else last

    @property
    def lane(self) -> str | Lane:
        """The lane that keys are about."""
        shown = self.shown
        return shown[min(self._lane, len(shown) - 1)]

    # -- places

    @property
    def _gutter(self) -> int:
        return _GUTTER if self.size.height > 1 and self.size.width >= _FAR else 0

    @property
    def _columns(self) -> int:
        return max(1, self.size.width - self._gutter)

    @property
    def _here(self) -> float:
        return max(0, self.clock) / self.total if self.total else 0.0

    @property
    def axis(self) -> Axis:
        """What the columns stand for."""
        low = int(self.low * self.total + 1e-6)
        return Axis(low, max(low + 1, int(self.high * self.total + 1e-6)), self._columns)

    @property
    def _under(self) -> tuple[int, int]:
        """The clocks of the column that the position is in."""
        at = self.axis.column(self.clock) if self.total else None
        return self.axis.part(at) if at is not None else (max(0, self.clock), max(0, self.clock) + 1)

    # -- drawing

    def update(self) -> None:
        axis = self.axis
        coarse = self.density and (self.high - self.low) * len(self.density) < axis.columns
        if coarse and self.size.height and (self._exact is None or self._exact[0] != axis):
            self._exact = (axis, ())
            self.post_message(WantCounts(axis.low, axis.high, axis.columns))
        lanes = len(self.lanes) if self._surveyed else max(_USUAL, len(self.lanes))
        for many in range(3, 7):
            self.set_class(many == min(6, lanes), f"-lanes-{many}")
        super().update()

    def draw(self, y: int, width: int, base: Style) -> Strip:
        style = self.get_component_rich_style
        shown = self.shown
        if y >= len(shown) or width < 2:
            return Strip.blank(width, base)
        lane = shown[y]
        cells: list[Cell] = [(" ", "")] * self._columns
        if lane == "events":
            cells = self._density()
        elif isinstance(lane, Lane):
            cells = draw_lane(lane, self.axis)
        if lane == "effects" or len(shown) == 1:
            self._draw_signs(cells, quiet=lane != "effects")
        position = self.axis.column(self.clock) if self.total else None
        if position is not None:
            text, role = cells[position]
            if lane == "events" or text == " ":
                text = "┃" if lane == "events" else "│"
            cells[position] = (text, role if role == "bad" else "here")
        name = lane.name if isinstance(lane, Lane) else lane
        if isinstance(lane, Lane) and lane.level:
            name = "  inside"
        active = self.has_focus and y == min(self._lane, len(shown) - 1)
        segments = [Segment(f"{name:<{_GUTTER}}", style("rows--mark" if active else "rows--dim"))] if self._gutter else []
        band = style("rows--resting", partial=True)
        low, high = self.chosen if self.chosen is not None else (0, 0)
        left, right = (self.axis.nearest(low), self.axis.nearest(high - 1)) if high > low else (1, 0)
        for column, (text, role) in enumerate(cells):
            look = style(f"rows--{role}") if role else base
            segments.append(Segment(text, look + band if left <= column <= right else look))
        return Strip(segments).simplify().crop_extend(0, width, base)

    def _density(self) -> list[Cell]:
        if not self.density:
            return [("·", "dim")] * self._columns
        exact = self._exact[1] if self._exact is not None and self._exact[0] == self.axis else ()
        return draw_bars(exact or bars(self.density, self.low, self.high, self._columns))

    def _draw_signs(self, cells: list[Cell], quiet: bool) -> None:
        """Effects, bookmarks and problems; `quiet`: only what matters most."""
        axis, clocks = self.axis, self.survey.clocks
        for clock, effect in sorted(self.effects, key=lambda one: one[1]):
            at = axis.column(clock)
            if at is not None and (not quiet or effect == WORLD):
                cells[at] = _SIGNS[effect]
        for clock in self.bookmarks:
            at = axis.column(clock)
            if at is not None:
                cells[at] = ("◆", "name")
        compared = axis.column(max(0, self.baseline)) if self.baseline is not None else None
        if compared is not None:
            cells[compared] = ("◇", "changed")
        for at in range(axis.columns) if clocks else ():
            low, high = axis.part(at)
            first = bisect_left(clocks, low)
            if first < len(clocks) and clocks[first] < high:
                cells[at] = ("✗", "bad")
        if self.diverged and self.high >= 1.0:
            cells[-1] = ("✗", "bad")

    # -- going

    def _go(self, clock: int) -> None:
        if self.total:
            self.post_message(GoTo("end" if clock >= self.total else str(max(0, clock)), None, "timeline"))

    def _step(self, columns: int) -> None:
        """To the next column, or the next instruction where those are wider."""
        self._go(max(0, self.clock) + columns * self.axis.width)

    def action_earlier(self) -> None:
        self._step(-1)

    def action_later(self) -> None:
        self._step(1)

    def action_cursor_up(self) -> None:
        self._turn(-1)

    def action_cursor_down(self) -> None:
        self._turn(1)

    def _turn(self, by: int) -> None:
        self._lane = max(0, min(min(self._lane, len(self.shown) - 1) + by, len(self.shown) - 1))
        self.update()

    def action_first_row(self) -> None:
        self._go(0)

    def action_last_row(self) -> None:
        self._go(self.total)

    def action_page_up(self) -> None:
        self._step(-self._columns // 4)

    def action_page_down(self) -> None:
        self._step(self._columns // 4)

    def _item(self) -> tuple[Lane, int] | None:
        """The stretch under the position: of the chosen lane, or of the innermost that has one."""
        lanes = [self.lane] if isinstance(self.lane, Lane) else [one for one in reversed(self.shown) if isinstance(one, Lane)]
        for lane in lanes:
            at = lane.at(*self._under) if isinstance(lane, Lane) else None
            if isinstance(lane, Lane) and at is not None:
                return lane, at
        return None

    def action_choose(self) -> None:
        self._go_to_end_of(False)

    def action_stretch_end(self) -> None:
        self._go_to_end_of(True)

    def _go_to_end_of(self, last: bool) -> None:
        found = self._item()
        if found is not None:
            lane, at = found
            seq = lane.lasts[at] if last else lane.firsts[at]
            after = last and lane.lasts[at] == lane.firsts[at]
            self.post_message(GoTo(f"e{seq}+" if after else f"e{seq}", seq, ""))

    # -- zoom

    def _window(self, low: float, span: float) -> None:
        span = min(1.0, max(span, min(1.0, _LEAST / max(_LEAST, self.total))))
        self.low = min(max(0.0, low), 1.0 - span)
        self.high = self.low + span
        self.update()

    def _zoom(self, factor: float, here: float | None = None) -> None:
        if here is None:
            here = self._here
        if not self.low <= here <= self.high:
            here = (self.low + self.high) / 2
        span = (self.high - self.low) * factor
        self._window(here - (here - self.low) * factor, span)

    def action_zoom_in(self) -> None:
        self._zoom(0.5)

    def action_zoom_out(self) -> None:
        self._zoom(2.0)

    def action_pan_left(self) -> None:
        self._window(self.low - (self.high - self.low) / 4, self.high - self.low)

    def action_pan_right(self) -> None:
        self._window(self.low + (self.high - self.low) / 4, self.high - self.low)

    def action_fit(self) -> None:
        """Shows the selection, or what is under the position, or everything; and from there all of it again."""
        found = self._item()
        stretch = self.chosen
        if stretch is None and found is not None:
            lane, at = found
            stretch = (lane.starts[at], lane.stops[at] + 1)
        before = (self.low, self.high)
        if stretch is not None and self.total:
            # A little of what is around it shows where it ends.
            around = (stretch[1] - stretch[0]) * 0.02
            span = stretch[1] - stretch[0] + 2 * around
            middle = (stretch[0] + stretch[1]) / 2
            span = max(span, _LEAST)
            self._window((middle - span / 2) / self.total, span / self.total)
        if stretch is None or (self.low, self.high) == before:
            self._window(0.0, 1.0)

    # -- selecting

    def _choose(self, one: int, other: int) -> None:
        low, high = sorted((max(0, min(one, self.total)), max(0, min(other, self.total))))
        chosen = (low, max(low + 1, high))
        if chosen != self.chosen:
            self.chosen, self.measured = chosen, ""
            self.post_message(Measure(*chosen))
        self.update()

    def action_select_later(self) -> None:
        self._extend(1)

    def action_select_earlier(self) -> None:
        self._extend(-1)

    def _extend(self, columns: int) -> None:
        """Moves the end of the selection that is not where the position is."""
        if not self.total:
            return
        here = max(0, self.clock)
        far = here if self.chosen is None else self.chosen[0] if self.chosen[1] <= here + 1 else self.chosen[1]
        self._choose(here, far + columns * self.axis.width)

    def action_select_nothing(self) -> None:
        if self.chosen is None:
            raise SkipAction  # then the key is for whatever else runs
        self.chosen, self.measured = None, ""
        self.update()

    # -- the mouse

    def _clock_at(self, x: int) -> int:
        return self.axis.begin(max(0, min(x - self._gutter, self._columns)))

    def on_mouse_down(self, event: events.MouseDown) -> None:
        at = event.get_content_offset(self)
        if at is not None and self.total:
            self._anchor, self._dragged = self._clock_at(at.x), False
            self.capture_mouse()

    def on_mouse_move(self, event: events.MouseMove) -> None:
        if self._anchor is None:
            return
        clock = self._clock_at(event.get_content_offset_capture(self).x)
        if clock != self._anchor or self._dragged:
            self._dragged = True
            self._choose(self._anchor, clock)

    def on_mouse_up(self, event: events.MouseUp) -> None:
        self.release_mouse()
        self._anchor = None

    def on_click(self, event: events.Click) -> None:
        at = event.get_content_offset(self)
        if self._dragged or at is None or not self.total:
            self._dragged = False
            return
        self._lane = at.y
        if event.chain > 1:
            lane, column = self.lane, max(0, at.x - self._gutter)
            found = lane.at(*self.axis.part(column)) if isinstance(lane, Lane) else None
            if isinstance(lane, Lane) and found is not None:
                self._choose(lane.starts[found], lane.stops[found])
                self.action_fit()
                return
        self._go(self._clock_at(at.x))
        self.update()

    def on_mouse_scroll_down(self, event: events.MouseScrollDown) -> None:
        event.stop()
        self._zoom(1.25, self._share_at(event))

    def on_mouse_scroll_up(self, event: events.MouseScrollUp) -> None:
        event.stop()
        self._zoom(0.8, self._share_at(event))

    def _share_at(self, event: events.MouseEvent) -> float:
        at = event.get_content_offset(self)
        x = self._columns // 2 if at is None else max(0, at.x - self._gutter)
        return self.low + (self.high - self.low) * x / self._columns


__all__ = ["TimelinePane", "bars", "height"]
