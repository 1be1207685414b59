"""What can be selected from: tables, and below each its columns."""

from __future__ import annotations

from textual import events
from textual.message import Message

from inspector.panes.rows import Piece, Rows
from inspector.sql.console import Relation, Schema


class NameChosen(Message):
    """A name is wanted in the statement."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text = text


class SchemaPane(Rows):
    """A tree of two levels."""

    NAME = "tables"

    def __init__(self, unfolded: set[str]) -> None:
        super().__init__(id="sql-schema")
        self.schema: Schema | None = None
        self.unfolded = unfolded
        self._shown: list[tuple[Relation, int | None]] = []
        """What each row is: a relation, or one of its columns."""

    def show(self, schema: Schema) -> None:
        self.schema = schema
        self._arrange()

    def _arrange(self) -> None:
        self._shown.clear()
        for relation in self.schema.relations if self.schema is not None else ():
            self._shown.append((relation, None))
            if relation.name in self.unfolded:
                self._shown += [(relation, column) for column in range(len(relation.columns))]
        self.update()

    def count(self) -> int:
        return len(self._shown)

    def note(self) -> str:
        return "enter inserts" if self.schema is not None else "reading"

    def pieces(self, index: int, width: int) -> list[Piece]:
        relation, column = self._shown[index]
        if column is None:
            return [("▾ " if relation.name in self.unfolded else "▸ ", "dim"), (relation.name, "name")]
        name, kind = relation.columns[column]
        wide = max(len(name) for name, _ in relation.columns)
        return [("    ", ""), (f"{name:<{wide}}", ""), (f"  {kind.lower()}", "dim")]

    def _fold(self, index: int, unfold: bool | None = None) -> None:
        """Folds or unfolds what a row belongs to; None changes it."""
        if not self._shown:
            return
        relation, _ = self._shown[index]
        if unfold is None:
            unfold = relation.name not in self.unfolded
        (self.unfolded.add if unfold else self.unfolded.discard)(relation.name)
        self._arrange()
        self.place(next(at for at, (one, column) in enumerate(self._shown) if one is relation and column is None))

    def action_cursor_left(self) -> None:
        self._fold(self.cursor, False)

    def action_cursor_right(self) -> None:
        if self._shown and self._shown[self.cursor][1] is None:
            self._fold(self.cursor, True)

    def on_click(self, event: events.Click) -> None:
        at = event.get_content_offset(self)
        if at is not None and self.top + at.y < len(self._shown) and self._shown[self.top + at.y][1] is None:
            event.prevent_default()
            self._fold(self.top + at.y)

    def action_choose(self) -> None:
        if self._shown:
            relation, column = self._shown[self.cursor]
            self.post_message(NameChosen(relation.name if column is None else relation.columns[column][0]))
