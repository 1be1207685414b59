"""What the guest had written to stdout and stderr."""

from __future__ import annotations

from collections.abc import Sequence

from inspector.messages import GoTo
from inspector.panes.rows import Piece, Rows


class OutputPane(Rows):
    """The last lines of output up to here; each knows the event that wrote it."""

    NAME = "output"

    def __init__(self) -> None:
        super().__init__(id="output")
        self.lines: list[tuple[int, int, str]] = []

    def count(self) -> int:
        return len(self.lines)

    def show(self, chunks: Sequence[tuple[int, int, bytes]]) -> None:
        """(event, descriptor, bytes), in order."""
        lines: list[tuple[int, int, str]] = []
        unfinished: dict[int, int] = {}
        """Descriptor -> line that its next bytes belong to."""
        for seq, descriptor, data in chunks:
            for part in data.decode("utf-8", "replace").splitlines(keepends=True):
                at = unfinished.pop(descriptor, None)
                text = part.rstrip("\r\n")
                if at is None:
                    at = len(lines)
                    lines.append((seq, descriptor, text))
                else:
                    lines[at] = (lines[at][0], descriptor, lines[at][2] + text)
                if text == part:
                    unfinished[descriptor] = at
        self.lines = lines
        self.place(len(lines) - 1, top=max(0, len(lines) - self.room))

    def on_resize(self) -> None:
        self.top = max(0, len(self.lines) - self.room)
        super().on_resize()

    def note(self) -> str:
        return "" if self.lines else "nothing yet"

    def pieces(self, index: int, width: int) -> list[Piece]:
        _, descriptor, text = self.lines[index]
        return [(text.expandtabs(4), "bad" if descriptor == 2 else "")]

    @property
    def shows_cursor(self) -> bool:
        return self.has_focus

    def cursor_moved(self) -> None:
        seq = self.lines[self.cursor][0]
        self.post_message(GoTo(f"e{seq}", seq, "output"))
