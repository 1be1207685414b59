"""What a statement found, as a table: only the cells on the screen are made. Or, in its place, what was wrong with it."""

from __future__ import annotations

import textwrap
from typing import ClassVar, Final

import pyarrow as pa
from rich.cells import cell_len, set_cell_size
from rich.segment import Segment
from textual import events
from textual.binding import BindingType
from textual.message import Message
from textual.strip import Strip

from inspector.panes.rows import Piece, Rows, plain
from inspector.sql.actions import bindings
from inspector.sql.cells import NULL, is_number, mark_of, text_of
from inspector.sql.console import Result

_USUAL: Final = 40
"""Columns of the screen that one of the result has at most, while others have not what they need."""
_GAP: Final = 2


class RowChosen(Message):
    """A row was opened: `mark` is the moment it stands for, or None."""

    def __init__(self, mark: str | None) -> None:
        super().__init__()
        self.mark = mark


class RowWanted(Message):
    """Something is to be done with the row, or cell, under the cursor: "copy-cell", "copy-row" or "read-row"."""

    def __init__(self, what: str) -> None:
        super().__init__()
        self.what = what


class ResultTable(Rows):
    """Under one line of names, rows; the cursor is on a cell."""

    BINDINGS: ClassVar[list[BindingType]] = bindings("sql-results")
    NAME = "result"

    def __init__(self) -> None:
        super().__init__(id="sql-results")
        self.result: Result | None = None
        self.column = 0
        """The column the cursor is in."""
        self.first = 0
        """The leftmost column on the screen."""
        self.said: tuple[str, str] | None = ("ctrl+j runs the statement", "dim")
        """What is told instead of a result, and its role."""
        self._lines: list[str] = []

    # -- what is shown

    def show(self, result: Result, *, cursor: int = 0, column: int = 0) -> None:
        self.result, self.said = result, None
        self.column, self.first = min(column, max(0, len(result.widths) - 1)), 0
        self._follow_column()
        self.top = 0
        self.place(cursor)

    def tell(self, text: str, role: str) -> None:
        """Shows a text where the result was."""
        self.result, self.said = None, (text, role)
        self.cursor = self.top = 0
        self.update()

    def update(self) -> None:
        if self.said is not None:
            self._lines = textwrap.wrap(plain(self.said[0]), max(20, self.size.width - 2)) or [""]
        super().update()

    def count(self) -> int:
        return self.result.table.num_rows if self.result is not None else len(self._lines)

    @property
    def room(self) -> int:
        return max(1, self.size.height - self._head)

    @property
    def _head(self) -> int:
        return 1 if self.result is not None else 0

    @property
    def shows_cursor(self) -> bool:
        return self.result is not None

    def title(self) -> str:
        if self.result is None or not self.result.table.num_columns:
            return self.NAME
        field = self.result.table.schema.field(self.column)
        return f"{self.NAME}  {field.name} {field.type}"

    def note(self) -> str:
        if self.result is None:
            return ""
        rows, columns = self.result.table.num_rows, self.result.table.num_columns
        shown = f"{'the first ' if self.result.more else ''}{counted(rows, 'row')}"
        goes = (
            "enter goes there, "
            if rows and self.size.width > 60 and {"mark", "seq"} & set(self.result.table.schema.names)
            else ""
        )
        return f"{goes}{shown}, {counted(columns, 'column')}, {duration(self.result.seconds)}"

    # -- columns

    def _sizes(self) -> list[int]:
        """The columns' widths: as usual, and what is left goes to those that need more."""
        assert self.result is not None
        names = self.result.table.schema.names
        needed = [max(width, cell_len(plain(name))) for width, name in zip(self.result.widths, names, strict=True)]
        sizes = [min(width, _USUAL) for width in needed]
        left = self.size.width - 2 - sum(sizes) - _GAP * (len(sizes) - 1)
        for i, width in enumerate(needed):
            if left <= 0:
                break
            more = min(left, width - sizes[i])
            sizes[i] += more
            left -= more
        return sizes

    def _spans(self) -> list[tuple[int, int, int]]:
        """(column, where it begins on the screen, its width there) for what is on the screen."""
        found, at = [], 1
        for column, size in list(enumerate(self._sizes()))[self.first :]:
            if at >= self.size.width:
                break
            found.append((column, at, min(size, self.size.width - at)))
            at += size + _GAP
        return found

    def _follow_column(self) -> None:
        """Scrolls until the column of the cursor is on the screen, as far as it fits."""
        if self.result is None or not self.result.widths:
            return
        self.first = min(self.first, self.column)
        sizes = self._sizes()
        while self.first < self.column:
            if 1 + sum(sizes[self.first : self.column + 1]) + _GAP * (self.column - self.first) <= self.size.width:
                break
            self.first += 1

    def _turn_column(self, by: int) -> None:
        if self.result is not None:
            self.column = max(0, min(self.column + by, self.result.table.num_columns - 1))
            self._follow_column()
            self.update()

    def action_cursor_left(self) -> None:
        self._turn_column(-1)

    def action_cursor_right(self) -> None:
        self._turn_column(1)

    def on_resize(self) -> None:
        self._follow_column()

    # -- drawing

    def render_line(self, y: int) -> Strip:
        if self.result is None:
            return super().render_line(y)
        if y == 0:
            return self._heading()
        strip = super().render_line(y - 1)
        if self.top + y - 1 == self.cursor < self.count() and self.has_focus:
            strip = self._with_cell(strip)
        return strip

    def _heading(self) -> Strip:
        assert self.result is not None
        pieces: list[Piece] = [(" ", "")]
        for column, _, size in self._spans():
            field = self.result.table.schema.field(column)
            role = "name" if column == self.column else "strong"
            pieces += [(_fitted(plain(field.name), size, is_number(field.type)), role), (" " * _GAP, "")]
        segments = [
            Segment(text, self.get_component_rich_style(f"rows--{role}") if role else self.rich_style) for text, role in pieces
        ]
        return Strip(segments).crop_extend(0, self.size.width, self.rich_style)

    def _with_cell(self, strip: Strip) -> Strip:
        """The cell of the cursor stands out of its row."""
        over = self.get_component_rich_style("rows--pick")
        for column, at, size in self._spans():
            if column == self.column:
                begin, end = at, min(at + size, self.size.width)
                cell = Strip(Segment.apply_style(strip.crop(begin, end), post_style=over))
                return Strip.join([strip.crop(0, begin), cell, strip.crop(end)])
        return strip

    def pieces(self, index: int, width: int) -> list[Piece]:
        if self.result is None:
            assert self.said is not None
            return [(" ", ""), (self._lines[index], self.said[1])]
        pieces: list[Piece] = [(" ", "")]
        for column, _, size in self._spans():
            values = self.result.table.column(column)
            text, role = text_of(values[index]), ""
            if text is None:
                text, role = NULL, "dim"
            pieces += [(_fitted(plain(text), size, is_number(values.type)), role), (" " * _GAP, "")]
        return pieces[:-1]

    # -- the cursor

    def on_click(self, event: events.Click) -> None:
        at = event.get_content_offset(self)
        if self.result is None or at is None:
            return
        # The line of names moves everything by one; a row's own handler would not know.
        event.prevent_default()
        column = next((column for column, begin, size in self._spans() if begin <= at.x < begin + size), self.column)
        index = self.top + at.y - 1
        same = (index, column) == (self.cursor, self.column)
        self.column = column
        if 0 <= index < self.count() and at.y:
            self.cursor = index
        self.update()
        if same and event.chain > 1:
            self.action_choose()

    def row(self) -> dict[str, pa.Scalar]:
        """The cells of the row under the cursor; of columns with the same name, the first."""
        assert self.result is not None
        table = self.result.table
        return {table.schema.names[i]: table.column(i)[self.cursor] for i in reversed(range(table.num_columns))}

    def cells(self, most: int) -> list[tuple[str, str | None]]:
        """Names and texts of the row under the cursor."""
        assert self.result is not None
        table = self.result.table
        return [(name, text_of(table.column(i)[self.cursor], most)) for i, name in enumerate(table.schema.names)]

    def action_choose(self) -> None:
        if self.result is not None and self.count():
            self.post_message(RowChosen(mark_of(self.row())))

    def _want(self, what: str) -> None:
        if self.result is not None and self.count():
            self.post_message(RowWanted(what))

    def action_copy_cell(self) -> None:
        self._want("copy-cell")

    def action_copy_row(self) -> None:
        self._want("copy-row")

    def action_read_row(self) -> None:
        self._want("read-row")


def _fitted(text: str, size: int, right: bool) -> str:
    """Text in so many columns of the screen: cut with "…", or padded."""
    length = cell_len(text)
    if length > size:
        return set_cell_size(text, size - 1) + "…" if size > 1 else "…"[:size]
    return " " * (size - length) + text if right else text + " " * (size - length)


def counted(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def duration(seconds: float) -> str:
    return f"{seconds * 1000:,.0f} ms" if seconds < 10 else f"{seconds:,.1f} s"
