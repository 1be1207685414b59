"""The runs of a store: their table, its headings, and the line that filters them."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from rich.segment import Segment
from textual import events
from textual.binding import Binding, BindingType
from textual.message import Message
from textual.strip import Strip
from textual.widget import Widget
from textual.widgets import Input

from inspector.panes.rows import ROLES, Piece, Rows, plain
from inspector.runs.listing import cell, fitting
from inspector.runs.run import Run
from inspector.runs.shelf import View


class SortBy(Message):
    def __init__(self, column: str) -> None:
        super().__init__()
        self.column = column


class CursorMoved(Message):
    """Another run is under the cursor."""


class OpenChosen(Message):
    """The run under the cursor is to be opened."""


class RunsTable(Rows):
    """The runs, one row each."""

    NAME = "runs"

    def __init__(self) -> None:
        super().__init__(id="runs")
        self.runs: list[Run] = []
        self.verifying: Path | None = None

    def count(self) -> int:
        return len(self.runs)

    def pieces(self, index: int, width: int) -> list[Piece]:
        run = self.runs[index]
        pieces: list[Piece] = [(" ", "")]
        for column, room in fitting(width - 1):
            text, role = column.text(run), column.role(run)
            if column.id == "verdict" and run.path == self.verifying:
                text, role = "verifying…", "mark"
            pieces.append((cell(plain(text), room, column), role))
        return pieces

    @property
    def chosen(self) -> Run | None:
        return self.runs[self.cursor] if self.cursor < len(self.runs) else None

    def cursor_moved(self) -> None:
        self.post_message(CursorMoved())

    def action_open(self) -> None:
        self.post_message(OpenChosen())

    def action_choose(self) -> None:
        self.action_open()

    def action_cursor_left(self) -> None:
        """The columns fit: there is nothing to scroll."""

    def action_cursor_right(self) -> None:
        """As above."""


class Headings(Widget):
    """The columns' names above the table; the one sorted by is marked."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {f"rows--{role}" for role in ROLES}

    def __init__(self, view: View) -> None:
        super().__init__(id="headings")
        self.view = view

    def render_line(self, y: int) -> Strip:
        width = self.size.width
        segments = [Segment(" ", self.rich_style)]
        for column, room in fitting(width - 1):
            sorted_by = column.id == self.view.column
            mark = ("▼" if column.descends != self.view.reverse else "▲") if sorted_by else ""
            style = self.get_component_rich_style(f"rows--{'here' if sorted_by else 'dim'}")
            segments.append(Segment(cell(f"{column.id} {mark}".strip(), room, column), style))
        return Strip(segments).crop_extend(0, width, self.rich_style)

    def on_click(self, event: events.Click) -> None:
        at = event.x - 1
        for column, room in fitting(self.size.width - 1):
            at -= room + 2
            if at < 0:
                self.post_message(SortBy(column.id))
                return


class FilterInput(Input):
    """Words to look for; `enter` or an arrow goes back to the list and keeps them."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("enter,down,up", "app.leave_filter", show=False)]
