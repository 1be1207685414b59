"""Text to be read line by line: an event in full, as a pane; answers and help, as dialogs."""

from __future__ import annotations

from collections.abc import Sequence

from inspector.panes.rows import Piece, Rows


class TextPane(Rows):
    """Lines of text, each made of pieces."""

    NAME = "text"

    def __init__(self, id: str, name: str = "") -> None:
        super().__init__(id=id)
        self.heading = name
        self.lines: Sequence[list[Piece]] = ()

    def show(self, heading: str, lines: Sequence[list[Piece]]) -> None:
        self.heading, self.lines = heading, lines
        self.cursor = self.top = 0
        self.update()

    def count(self) -> int:
        return len(self.lines)

    def title(self) -> str:
        return self.heading

    def pieces(self, index: int, width: int) -> list[Piece]:
        return self.lines[index]

    @property
    def shows_cursor(self) -> bool:
        return False

    def _move(self, by: int) -> None:
        self.top = max(0, min(self.top + by, self.count() - self.room))
        self.update()
