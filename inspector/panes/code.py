"""Where the chosen frame is: in the source, and in the instructions."""

from __future__ import annotations

from collections.abc import Mapping

from inspector.colouring import coloured
from inspector.messages import RunTo
from inspector.panes.rows import Piece, Rows
from inspector.snapshot import CodeText, FrameHead, SourceText


def _sign(stop: bool | None) -> Piece:
    """Of a breakpoint, as in the list of stops; None where there is none."""
    return (" ", "") if stop is None else ("●", "bad") if stop else ("○", "dim")


class SourcePane(Rows):
    """The source of the chosen frame."""

    NAME = "source"
    MARGIN = 3

    def __init__(self) -> None:
        super().__init__(id="source")
        self.source: SourceText | None = None
        self.head: FrameHead | None = None
        self.missing = ""
        self.stops: Mapping[tuple[str, int], bool] = {}
        """By (end of a file's path, line): the breakpoints, and whether they are switched on."""

    def count(self) -> int:
        return len(self.source.lines) if self.source is not None else 0

    def show(self, source: SourceText | None, head: FrameHead | None, missing: str) -> None:
        changed = source is None or self.source is None or (source.file, source.line) != (self.source.file, self.source.line)
        self.source, self.head, self.missing = source, head, missing
        if source is not None and changed:
            self.shift = 0
            self.place(source.line - 1)
        else:
            self.update()

    def title(self) -> str:
        if self.head is None:
            return "source"
        return f"source  {self.head.where}  {self.head.name}()"

    def note(self) -> str:
        if self.source is None:
            if self.missing:
                return f"{self.missing} is not at hand: --source DIR"
            return "no source line here" if self.head is not None else ""
        return "changed since it was compiled" if self.source.current is False else ""

    def pieces(self, index: int, width: int) -> list[Piece]:
        assert self.source is not None
        number = index + 1
        here = number == self.source.line
        digits = len(str(len(self.source.lines)))
        stop = [on for (file, line), on in self.stops.items() if number == line and self.source.file.endswith(file)]
        text = self.source.lines[index][: width + 1].expandtabs(4)
        parts = [(text, "here")] if here else coloured(text, self.source.file, index in self.source.inside)
        return [_sign(any(stop) if stop else None), ("▶" if here else " ", "here"), (f"{number:>{digits}}  ", "dim"), *parts]

    @property
    def shows_cursor(self) -> bool:
        return self.has_focus

    def place_text(self) -> str | None:
        """The line under the cursor, as a breakpoint is written."""
        return f"line={self.source.file}:{self.cursor + 1}" if self.source is not None else None

    def action_choose(self) -> None:
        place = self.place_text()
        if place is not None:
            self.post_message(RunTo(place))


class CodePane(Rows):
    """The instructions of the chosen frame's function."""

    NAME = "code"
    MARGIN = 3

    def __init__(self) -> None:
        super().__init__(id="code")
        self.code: CodeText | None = None
        self.stops: Mapping[int, bool] = {}
        """By offset: the breakpoints, and whether they are switched on."""

    def count(self) -> int:
        return len(self.code.lines) if self.code is not None else 0

    def show(self, code: CodeText | None) -> None:
        changed = code is None or self.code is None or (code.function, code.pc) != (self.code.function, self.code.pc)
        self.code = code
        if code is not None and changed:
            self.place(code.index)
        else:
            self.update()

    def title(self) -> str:
        return "code" if self.code is None else f"code  {self.code.name}  +{self.code.pc:#x}"

    def note(self) -> str:
        return "" if self.code is None else f"function {self.code.function}"

    def pieces(self, index: int, width: int) -> list[Piece]:
        assert self.code is not None
        line = self.code.lines[index]
        here = line.pc == self.code.pc
        text, found, comment = line.text.partition(" ;; ")
        pieces = [
            _sign(self.stops.get(line.pc)), ("▶" if here else " ", "here"), (f"{line.pc:06x}  ", "dim"),
            ("  " * min(line.depth, 12) + text, "here" if here else ""),
        ]  # fmt: skip
        return [*pieces, (f"  {comment}", "name")] if found else pieces

    @property
    def shows_cursor(self) -> bool:
        return self.has_focus

    def place_text(self) -> str | None:
        return f"pc={self.code.lines[self.cursor].pc:#x}" if self.code is not None and self.code.lines else None

    def action_choose(self) -> None:
        place = self.place_text()
        if place is not None:
            self.post_message(RunTo(place))
