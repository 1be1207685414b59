"""Globals and tables of a module. Of a table of any size only what is on the screen is read; nulls of a small one are folded."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

from inspector.memory.labels import Label, origin
from inspector.messages import ChooseBytes, Tell, WantTable
from inspector.panes.rows import Piece, Rows
from inspector.snapshot import Element, Snapshot, TableWindow, ValueRow

WINDOW: Final = 512
"""Elements that are read at once."""
KEPT: Final = 32
FOLDED: Final = WINDOW
"""Elements up to which a table is read whole, and runs of nulls in it are one row."""
READABLE: Final = ("funcref", "externref")
"""What elements must be for anything to be said of them."""
OPEN: Final = 64
"""Rows up to which a table is shown opened at first."""
_SIGNS: Final = {True: "▾ ", False: "▸ "}


@dataclass
class _Table:
    """One table of the guest's as far as it was seen."""

    label: Label
    size: int = 0
    opened: bool = False
    known: bool = False
    """Whether its size is known: something of it was read."""
    runs: tuple[tuple[int, int], ...] | None = None
    """Of a small table: (first element, how many) of each row."""

    @property
    def rows(self) -> int:
        """Rows of its elements."""
        return 0 if not self.opened else len(self.runs) if self.runs is not None else self.size


class TablesPane(Rows):
    """Globals first, then each table, which `enter` opens."""

    NAME = "tables"

    def __init__(self) -> None:
        super().__init__(id="tables")
        self.globals: tuple[ValueRow, ...] = ()
        self._tables: list[_Table] = []
        self._mark: object = None
        self._windows: OrderedDict[tuple[int, int], TableWindow] = OrderedDict()
        """Elements at hand, by table and number of the window."""
        self._stale: dict[tuple[int, int], TableWindow] = {}
        """Those of the moment before: shown until the new ones are there, so that nothing flickers."""

    # -- shape

    def begin(self, labels: tuple[Label, ...]) -> None:
        """Which tables there are."""
        self._tables = [_Table(label) for label in labels]

    def show(self, snapshot: Snapshot) -> None:
        moved = self._mark != (snapshot.mark, snapshot.before)
        self.globals = snapshot.globals
        if moved:
            self._mark = (snapshot.mark, snapshot.before)
            self._stale = dict(self._windows) or self._stale
            self._windows.clear()
        self.update()

    def take(self, window: TableWindow) -> None:
        """Elements that were asked for."""
        if self._mark is None or (window.mark, window.before) != self._mark or window.table >= len(self._tables):
            return
        self._windows[window.table, window.start // WINDOW] = window
        while len(self._windows) > KEPT:
            self._windows.popitem(last=False)
        table = self._tables[window.table]
        table.size = window.size
        table.runs = _runs(window) if window.size <= FOLDED else None
        if not table.known:
            table.known, table.opened = True, table.runs is not None and len(table.runs) <= OPEN
        self.update()

    def title(self) -> str:
        return "globals and tables" if self._tables and self.globals else "tables" if self._tables else "globals"

    def count(self) -> int:
        return len(self.globals) + sum(1 + table.rows for table in self._tables)

    def get_content_height(self, container: object, viewport: object, width: int) -> int:
        """As many rows as there are: where there is little, the other panes have the room."""
        return self.count()

    def _at(self, index: int) -> tuple[_Table | None, int]:
        """What a row shows: a table and -1 for its head, else which of its rows; without a table, a global."""
        if index < len(self.globals):
            return None, index
        index -= len(self.globals)
        for table in self._tables:
            if index <= table.rows:
                return table, index - 1
            index -= 1 + table.rows
        raise IndexError(index)

    def update(self) -> None:
        before = self.size.height
        super().update()
        if before and self.styles.height is not None and self.styles.height.is_auto:
            self.refresh(layout=True)
        self._want()

    def _want(self) -> None:
        """Asks for what is on the screen and not at hand."""
        if self._mark is None or not self.display or not self.size.height:
            return
        for index in range(self.top, min(self.count(), self.top + self.room)):
            table, row = self._at(index)
            if table is None or table.label.type not in READABLE:
                continue
            number = max(0, row) // WINDOW if table.runs is None else 0
            if (table.label.index, number) not in self._windows:
                self.post_message(WantTable(table.label.index, number * WINDOW, WINDOW))
                return

    # -- drawing

    def note(self) -> str:
        return ""

    def pieces(self, index: int, width: int) -> list[Piece]:
        table, row = self._at(index)
        if table is None:
            return _global(self.globals[row])
        if row < 0:
            return _head(table)
        element, count = table.runs[row] if table.runs is not None else (row, 1)
        digits = len(str(max(0, table.size - 1)))
        where: list[Piece] = [("  ", ""), (f"{element:>{digits}} ", "dim")]
        if count > 1:
            return [*where, (f"null ×{count:,}", "dim")]
        found = self.element(table, element)
        if found is None:
            return [*where, ("·", "dim")]
        pieces = [*where, (found.text, "changed" if found.was is not None else "dim" if found.null else "")]
        if found.was is not None:
            pieces.append((f" (was {found.was})", "dim"))
        return pieces

    def element(self, table: _Table, element: int) -> Element | None:
        """One that is at hand; else None."""
        place = table.label.index, element // WINDOW
        window = self._windows.get(place) or self._stale.get(place)
        at = element % WINDOW
        return window.elements[at] if window is not None and at < len(window.elements) else None

    # -- choosing

    def action_choose(self) -> None:
        if not self.count():
            return
        table, row = self._at(self.cursor)
        if table is None:
            found = self.globals[row]
            if found.target is not None:
                self.post_message(ChooseBytes(0, found.target, 1, show=True))
            else:
                self.post_message(Tell(f"{found.name} is no address in memory 0"))
        elif row < 0:
            table.opened = not table.opened
            self.update()
        else:
            element, count = table.runs[row] if table.runs is not None else (row, 1)
            shown = self.element(table, element)
            if shown is not None:
                name = f"elements {element:,} to {element + count - 1:,}" if count > 1 else f"element {element:,}"
                self.post_message(Tell(f"{name} of table {table.label.index}: {shown.text}"))

    def action_cursor_right(self) -> None:
        self._open(True)

    def action_cursor_left(self) -> None:
        self._open(False)

    def _open(self, opened: bool) -> None:
        table, row = self._at(self.cursor) if self.count() else (None, 0)
        if table is not None and row < 0 and table.opened != opened:
            table.opened = opened
            self.update()
        elif opened:
            super().action_cursor_right()
        else:
            super().action_cursor_left()


def _global(row: ValueRow) -> list[Piece]:
    pieces: list[Piece] = [(row.name, "name"), (" = ", "dim"), (row.text, "changed" if row.was is not None else "")]
    if row.was is not None:
        pieces.append((f" (was {row.was})", "dim"))
    return [*pieces, (f"  {row.type_name}", "dim")]


def _head(table: _Table) -> list[Piece]:
    label = table.label
    size = f"{table.size:,} × {label.type}" if table.known else label.type
    pieces: list[Piece] = [(_SIGNS[table.opened], "dim"), (f"table {label.index}", "name")]
    if label.name:
        pieces.append((f" {label.name}", "name"))
    return [*pieces, (f"  {size}", ""), (origin(label), "dim")]


def _runs(window: TableWindow) -> tuple[tuple[int, int], ...]:
    """Rows of a small table: each element its own, but nulls that follow each other together."""
    found: list[tuple[int, int]] = []
    for i, element in enumerate(window.elements):
        quiet = element.null and element.was is None
        if quiet and found and window.elements[i - 1].null and window.elements[i - 1].was is None:
            found[-1] = found[-1][0], found[-1][1] + 1
        else:
            found.append((i, 1))
    return tuple(found)
