"""The events, as a story."""

from __future__ import annotations

from inspector.messages import GoTo, WantEvents
from inspector.panes.rows import Piece, Rows
from inspector.story import FILE, OUTPUT, QUIET, TALK, WORLD, Story

SIGNS = {QUIET: " ", TALK: "○", OUTPUT: "»", FILE: "■", WORLD: "●"}
ROLE_OF = {QUIET: "", TALK: "talk", OUTPUT: "output", FILE: "file", WORLD: "world"}
_BAD = ("trap", "denied")


class StoryPane(Rows):
    """Events; a run of one import is one row until it is unfolded."""

    NAME = "story"

    def __init__(self, story: Story) -> None:
        super().__init__(id="story")
        self.story = story
        self.reached: int | None = None
        """Events the replay reached; None if it reached all, or is not known."""

    def count(self) -> int:
        return self.story.rows

    def note(self) -> str:
        if not self.story.complete:
            return f"reading {self.story.indexed:,} of {self.story.events:,}"
        return (
            f"{self.story.events:,} events"
            if self.story.rows == self.story.events
            else (f"{self.story.events:,} events in {self.story.rows:,} rows")
        )

    def pieces(self, index: int, width: int) -> list[Piece]:
        row = self.story.row(index)
        digits = len(str(max(0, self.story.events - 1)))
        role = ROLE_OF[row.effect]
        lost = self.reached is not None and row.seq >= self.reached
        pieces: list[Piece] = [(f"{row.seq:>{digits}} ", "dim"), (f"{SIGNS[row.effect]} ", role)]
        if row.count > 1:
            short = row.name.rpartition(".")[2] or row.name
            sign = "▸" if row.folded else "▾"
            return [*pieces, (f"{sign} {short} ", role or "name"), (f"×{row.count:,}", "number")]
        if not self.story.ready(row.seq):
            self.post_message(WantEvents(row.seq))
            return [*pieces, ("  " if row.inside else "", ""), (row.name.rpartition(".")[2] or row.name, "dim")]
        text = self.story.text(row.seq)
        indent = ("  " if row.inside else "") + "  " * min(max(0, text.depth - 1), 6)
        wrong = text.status in _BAD or text.kind == "trap" or lost
        pieces.append((indent + text.head, "bad" if wrong else "dim" if text.status == "errno" else role))
        if text.status == "denied":
            pieces.append(("  denied", "bad"))
        if text.outcome:
            pieces += [(" → ", "dim"), (text.outcome, "bad" if wrong else "dim" if row.effect == QUIET else "")]
        return pieces

    def cursor_moved(self) -> None:
        seq = self.story.row(self.cursor).seq
        self.post_message(GoTo(f"e{seq}", seq, "story"))

    def action_choose(self) -> None:
        self.run_fold()

    def run_fold(self) -> bool:
        """Folds or unfolds the run under the cursor."""
        heading = self.story.toggle(self.cursor)
        if heading is None:
            return False
        self.place(heading)
        return True

    def show(self, seq: int) -> None:
        """Puts the cursor on an event."""
        if self.story.rows:
            row = self.story.row(self.cursor) if self.cursor < self.story.rows else None
            if row is None or not (row.seq == seq and row.count == 1):
                self.place(self.story.row_of(seq))
