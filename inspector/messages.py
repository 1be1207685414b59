"""What panes and app tell each other: Textual messages, one class for each thing that happens."""

from __future__ import annotations

from textual.message import Message

from inspector.protocol import PagesRead, Progress, Report


class Reported(Message):
    """The session has something to tell."""

    def __init__(self, report: Report) -> None:
        super().__init__()
        self.report = report

    def can_replace(self, message: Message) -> bool:
        """Of progress and of pages only the newest matters."""
        return isinstance(message, Reported) and any(
            isinstance(message.report, kind) and isinstance(self.report, kind) for kind in (Progress, PagesRead)
        )


class Indexed(Message):
    """More of the story is known."""

    def can_replace(self, message: Message) -> bool:
        return isinstance(message, Indexed)


class Loaded(Message):
    """A window of events was read."""

    def can_replace(self, message: Message) -> bool:
        return isinstance(message, Loaded)


class WantEvents(Message):
    """A pane shows an event whose window is not at hand."""

    def __init__(self, seq: int) -> None:
        super().__init__()
        self.seq = seq


class GoTo(Message):
    """Something was chosen that stands for a moment."""

    def __init__(self, mark: str, event: int | None = None, kind: str = "") -> None:
        super().__init__()
        self.mark, self.event, self.kind = mark, event, kind


class ChooseBytes(Message):
    """Bytes were chosen; `show` also makes the memory pane active."""

    def __init__(self, memory: int, address: int, length: int, show: bool = False) -> None:
        super().__init__()
        self.memory, self.address, self.length, self.show = memory, address, length, show


class ChooseFrame(Message):
    def __init__(self, level: int) -> None:
        super().__init__()
        self.level = level


class ToggleValue(Message):
    def __init__(self, path: tuple[str, ...]) -> None:
        super().__init__()
        self.path = path


class RunTo(Message):
    """Run to a place in the code, written as a breakpoint."""

    def __init__(self, place: str) -> None:
        super().__init__()
        self.place = place


class WantMemory(Message):
    """The memory pane shows bytes that it does not have."""

    def __init__(self, memory: int, address: int, length: int) -> None:
        super().__init__()
        self.memory, self.address, self.length = memory, address, length

    def can_replace(self, message: Message) -> bool:
        return isinstance(message, WantMemory)
