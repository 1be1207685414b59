"""The divergence: what was recorded and what the replay did, side by side; the guest's stack, and how the recording goes on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from rich.cells import cell_len, set_cell_size

from inspector.divergence import Divergence, Pair, first_difference, pairs
from inspector.messages import ChooseBytes, ChooseFrame, GoTo
from inspector.panes.rows import Piece, Rows, plain

FOLLOWING: Final = 12
"""Recorded events that are shown behind the divergence."""


class DivergencePane(Rows):
    """Lines of both sides, then frames, then recorded events."""

    NAME = "divergence"
    MARGIN = 1

    def __init__(self, text_of: Callable[[int], str | None], events: int) -> None:
        """`text_of`: a recorded event in words, None if it is not at hand; `events`: how many there are."""
        super().__init__(id="divergence")
        self.found: Divergence | None = None
        self._text_of = text_of
        self._events = events
        self._pairs: list[Pair] = []
        self._width = 0

    # -- what is shown

    def show(self, found: Divergence) -> None:
        self.found = found
        self._lay_out()
        self._scroll()

    def _scroll(self) -> None:
        """To the first difference; to the top, if it is seen from there."""
        first = first_difference(self._pairs)
        self.place(first, top=0 if first < self.room else None)

    def _lay_out(self) -> None:
        """Lines are made for a width: bytes are shown in as long rows as fit."""
        self._width = self._half
        if self.found is not None:
            self._pairs = pairs(self.found, self._width)

    @property
    def _half(self) -> int:
        return max(16, (self.size.width - 4) // 2)

    def on_resize(self) -> None:
        stood = self._placed or self.cursor == first_difference(self._pairs)
        if self._half != self._width:
            self._lay_out()
        super().on_resize()
        if stood and self.size.height:
            self._scroll()

    @property
    def _frames(self) -> Sequence[str]:
        return self.found.frames if self.found is not None else ()

    @property
    def _following(self) -> range:
        """The recorded events that are shown: the one they part at, and some behind it."""
        first = self.found.seq if self.found is not None else 0
        return range(min(first, self._events), min(first + FOLLOWING, self._events))

    def count(self) -> int:
        if self.found is None:
            return 0
        return len(self._pairs) + self._section(len(self._frames)) + self._section(len(self._following))

    def _section(self, rows: int) -> int:
        """Rows that a part takes with its heading; none if it is empty."""
        return rows + 1 if rows else 0

    def title(self) -> str:
        return f"divergence  e{self.found.seq:,}" if self.found is not None else self.NAME

    def note(self) -> str:
        return self.found.words if self.found is not None else ""

    @property
    def shows_cursor(self) -> bool:
        """It has a sign of its own: a cursor over a whole row would hide which bytes of it differ."""
        return False

    def pieces(self, index: int, width: int) -> list[Piece]:
        sign = "▸" if index == self.cursor and self.has_focus else " "
        return [(sign, "mark"), *self._line(index)]

    def _line(self, index: int) -> list[Piece]:
        if index < len(self._pairs):
            line = self._pairs[index]
            heads = (("recorded  ", "dim"), ("replayed  ", "dim")) if index == 0 else (("", ""), ("", ""))
            return self._both([heads[0], *line.expected], [heads[1], *line.got])
        index -= len(self._pairs)
        if index < self._section(len(self._frames)):
            return self._frame(index - 1)
        index -= self._section(len(self._frames))
        return [("the recording goes on", "dim")] if index == 0 else self._event(self._following[index - 1])

    def _both(self, expected: Sequence[Piece], got: Sequence[Piece]) -> list[Piece]:
        return [*_fitted(expected, self._width), (" │ ", "dim"), *got]

    def _frame(self, level: int) -> list[Piece]:
        if level < 0:
            return [("the guest stood in", "dim")]
        return [(f"#{level} ", "dim"), (self._frames[level], "strong" if level == 0 else "")]

    def _event(self, seq: int) -> list[Piece]:
        assert self.found is not None
        text = self._text_of(seq)
        return [(f"e{seq:,} ", "dim"), (text if text is not None else "…", "bad" if seq == self.found.seq else "")]

    # -- choosing

    def _place(self) -> tuple[str, int]:
        """What the cursor is on: "pair", "frame" or "event", and which; "" for a heading."""
        index = self.cursor
        if index < len(self._pairs):
            return "pair", index
        index -= len(self._pairs) + 1
        if 0 <= index < len(self._frames):
            return "frame", index
        index -= self._section(len(self._frames))
        return ("event", self._following[index]) if 0 <= index < len(self._following) else ("", 0)

    def cursor_moved(self) -> None:
        kind, at = self._place()
        address = self._pairs[at].address if kind == "pair" else None
        if address is not None:
            self.post_message(ChooseBytes(*address, 1))

    def action_choose(self) -> None:
        """Goes to where the guest stood; on a frame, to that one; on bytes, to them in memory."""
        assert self.found is not None
        kind, at = self._place()
        address = self._pairs[at].address if kind == "pair" else None
        if address is not None:
            self.post_message(ChooseBytes(*address, 1, show=True))
            return
        self.post_message(GoTo(self.found.mark, self.found.seq, ""))
        if kind == "frame":
            self.post_message(ChooseFrame(at))


def _fitted(pieces: Sequence[Piece], width: int) -> list[Piece]:
    """Pieces cut, or filled up, to exactly so many columns."""
    found: list[Piece] = []
    room = width
    for text, role in pieces:
        shown = plain(text)
        if cell_len(shown) > room:
            shown = set_cell_size(shown, max(0, room - 1)) + "…" if room else ""
        found.append((shown, role))
        room -= cell_len(shown)
    return [*found, (" " * room, "")]
