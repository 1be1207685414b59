"""A table of any number of rows, of which only those on the screen are ever made."""

from __future__ import annotations

from typing import ClassVar, Final, Self

from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.binding import BindingType
from textual.geometry import Region
from textual.strip import Strip
from textual.widget import Widget

from inspector.actions import bindings

Piece = tuple[str, str]
"""Text, and what it is: one of ROLES, or ""."""
ROLES: Final = (
    "dim",
    "strong",
    "name",
    "number",
    "world",
    "file",
    "talk",
    "output",
    "bad",
    "good",
    "changed",
    "mark",
    "here",
    "pick",
    "keyword",
    "string",
    "comment",
)


def plain(text: str) -> str:
    """Text without anything a terminal would not simply print."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else " " if c in "\n\t" else "\ufffd" for c in text)


class Rows(Widget, can_focus=True):
    """Rows with a cursor. What they hold is asked for when they are drawn."""

    BINDINGS: ClassVar[list[BindingType]] = bindings("rows")
    COMPONENT_CLASSES: ClassVar[set[str]] = {"rows--cursor", "rows--resting", *(f"rows--{role}" for role in ROLES)}
    NAME: ClassVar[str] = ""
    """How the pane is called."""
    MARGIN: ClassVar[int] = 0
    """Rows that stay visible around what is placed, where there is room."""

    def __init__(self, id: str | None = None) -> None:
        self._strips: list[Strip] = []
        """The lines as drawn last; empty if they all have to be drawn."""
        self._titles: dict[bool, str] = {}
        """Title (True) and note as written last."""
        self._edge: Region | None = None
        """The part of the border that is being written."""
        super().__init__(id=id)
        self.top = 0
        self.cursor = 0
        self.shift = 0
        """Columns scrolled to the right."""
        self._placed = True
        """The cursor is where it was placed, not where the user moved it: when the room changes it is placed anew."""

    # -- to be told by each table

    def count(self) -> int:
        return 0

    def pieces(self, index: int, width: int) -> list[Piece]:
        raise NotImplementedError

    def cursor_moved(self) -> None:
        """The user moved the cursor."""

    def title(self) -> str:
        return self.NAME

    def note(self) -> str:
        """What stands at the lower edge."""
        return ""

    # -- drawing

    def update(self) -> None:
        """What is shown may have changed: draws it, and refreshes the lines that did."""
        self.cursor = min(self.cursor, max(0, self.count() - 1))
        self.top = max(0, min(self.top, self.count() - self.room))
        self._entitle()
        width, height = self.size
        if not self.display or not height:
            self.refresh()
            return
        base = self.rich_style
        strips = [self.draw(y, width, base) for y in range(height)]
        changed = [y for y, strip in enumerate(strips) if y >= len(self._strips) or strip != self._strips[y]]
        if len(self._strips) != height:
            self.refresh()
        elif changed:
            self.refresh(*(Region(0, y, width, 1) for y in changed))
        self._strips = strips

    def _entitle(self) -> None:
        """Writes title and note into the border. Textual would paint the whole widget anew for that."""
        height = self.size.height
        for edge, text in ((-1, self.title()), (height, self.note())):
            if text != self._titles.get(edge < 0):
                self._titles[edge < 0] = text
                self._edge = Region(-self.content_offset.x, edge, self.outer_size.width, 1)
                if edge < 0:
                    self.border_title = _escaped(text)
                else:
                    self.border_subtitle = _escaped(text)
                self._edge = None

    def refresh(self, *regions: Region, repaint: bool = True, layout: bool = False, recompose: bool = False) -> Self:
        if not regions and self._edge is not None:
            regions = (self._edge,)
        if not regions:
            self._strips = []
        return super().refresh(*regions, repaint=repaint, layout=layout, recompose=recompose)

    def notify_style_update(self) -> None:
        self._strips = []
        super().notify_style_update()

    @property
    def room(self) -> int:
        """Rows that fit."""
        return max(1, self.size.height)

    def render_line(self, y: int) -> Strip:
        return self._strips[y] if y < len(self._strips) else self.draw(y, self.size.width, self.rich_style)

    def draw(self, y: int, width: int, base: Style) -> Strip:
        """One line of the pane."""
        index = self.top + y
        if index >= self.count():
            return Strip.blank(width, base)
        segments = [
            Segment(plain(text), self.get_component_rich_style(f"rows--{role}") if role else base)
            for text, role in self.pieces(index, width + self.shift)
        ]
        line = Strip(segments)
        strip = line.crop_extend(self.shift, self.shift + width, base)
        if line.cell_length > self.shift + width > self.shift:
            strip = Strip([*strip.crop(0, width - 1), Segment("…", self.get_component_rich_style("rows--dim"))], width)
        if index == self.cursor and self.shows_cursor:
            over = self.get_component_rich_style("rows--cursor" if self.has_focus else "rows--resting", partial=True)
            strip = Strip(Segment.apply_style(strip, post_style=over), width)
        return strip

    @property
    def shows_cursor(self) -> bool:
        return True

    # -- moving

    def place(self, index: int, *, top: int | None = None) -> None:
        """Puts the cursor on a row, and that row on the screen: some rows from its edge, if it was not on it."""
        self.cursor = max(0, min(index, self.count() - 1))
        room = self.room
        self._placed = top is None or not self.size.height
        if top is not None:
            self.top = top
        elif not self._within():
            self.top = self.cursor - room // 3
        self.top = max(0, min(self.top, self.count() - room))
        self.update()

    def _within(self) -> bool:
        margin = min(self.MARGIN, (self.room - 1) // 2)
        above = self.cursor < margin or self.top + margin <= self.cursor
        return above and self.top <= self.cursor < self.top + self.room - margin

    def _move(self, by: int) -> None:
        old, self._placed = self.cursor, False
        self.cursor = max(0, min(self.cursor + by, self.count() - 1))
        self._follow()
        self.update()
        if self.cursor != old:
            self.cursor_moved()

    def _follow(self) -> None:
        if self.cursor < self.top:
            self.top = self.cursor
        elif self.cursor >= self.top + self.room:
            self.top = self.cursor - self.room + 1

    def action_cursor_up(self) -> None:
        self._move(-1)

    def action_cursor_down(self) -> None:
        self._move(1)

    def action_page_up(self) -> None:
        self._move(-self.room)

    def action_page_down(self) -> None:
        self._move(self.room)

    def action_first_row(self) -> None:
        self._move(-self.count())

    def action_last_row(self) -> None:
        self._move(self.count())

    def action_cursor_left(self) -> None:
        self.shift = max(0, self.shift - 8)
        self.refresh()

    def action_cursor_right(self) -> None:
        self.shift += 8
        self.refresh()

    def action_choose(self) -> None:
        """Opens what the cursor is on."""

    def on_mouse_scroll_down(self, event: events.MouseScrollDown) -> None:
        event.stop()
        self._placed = False
        self.top = max(0, min(self.top + 3, self.count() - self.room))
        self.update()

    def on_mouse_scroll_up(self, event: events.MouseScrollUp) -> None:
        event.stop()
        self._placed = False
        self.top = max(0, self.top - 3)
        self.update()

    def on_click(self, event: events.Click) -> None:
        at = event.get_content_offset(self)
        if at is None:
            return
        index = self.top + at.y
        if index >= self.count():
            return
        moved = index != self.cursor
        self.cursor, self._placed = index, False
        self.clicked(at.x)
        self.update()
        if moved:
            self.cursor_moved()
        elif event.chain > 1:
            self.action_choose()

    def clicked(self, column: int) -> None:
        """A row was clicked, at this column."""

    def on_focus(self) -> None:
        self.update()

    def on_blur(self) -> None:
        self.update()

    def on_resize(self) -> None:
        if self._placed or not self._within():
            self.top = max(0, self.cursor - self.room // 3)
        self.update()


def _escaped(text: str) -> str:
    """Text for a border, which would be read as markup."""
    return plain(text).replace("[", "\\[")
