"""One line of the screen, with something at its left and something at its right: the banner and the footer."""

from __future__ import annotations

from typing import ClassVar

from rich.cells import cell_len
from rich.segment import Segment
from textual.strip import Strip
from textual.widget import Widget

from inspector.panes.rows import ROLES, Piece, plain


class Line(Widget):
    """Where there is not room for both sides, the right one stays whole and the left one ends in "…"."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {f"rows--{role}" for role in ROLES}

    def __init__(self, id: str) -> None:
        super().__init__(id=id)
        self.left: list[Piece] = []
        self.right: list[Piece] = []

    def show(self, left: list[Piece], right: list[Piece] | None = None) -> None:
        self.left, self.right = left, right or []
        self.refresh()

    def render_line(self, y: int) -> Strip:
        width, base = self.size.width, self.rich_style
        right = self._strip(self.right)
        room = max(0, width - right.cell_length)
        left = self._strip(self.left)
        if left.cell_length > room:
            left = Strip([*left.crop(0, max(0, room - 2)), Segment("… " if room > 1 else "", base)])
        left = left.crop_extend(0, room, base)
        return Strip([*left, *right]).crop_extend(0, width, base)

    def _strip(self, pieces: list[Piece]) -> Strip:
        segments = [
            Segment(plain(text), self.get_component_rich_style(f"rows--{role}") if role else self.rich_style)
            for text, role in pieces
        ]
        return Strip(segments, sum(cell_len(segment.text) for segment in segments))
