"""What panes and app tell each other: Textual messages, one class for each thing that happens."""

from __future__ import annotations

from textual.message import Message

from inspector.events.spans import Survey
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
    """Bytes were chosen; `show` also makes the memory pane active. `follows`: a pointer was followed, and there is a way back."""

    def __init__(self, memory: int, address: int, length: int, show: bool = False, follows: bool = False) -> None:
        super().__init__()
        self.memory, self.address, self.length, self.show, self.follows = memory, address, length, show, follows


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


class Tell(Message):
    """One line for the user."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text = text


class WantTable(Message):
    """The pane of tables shows elements that it does not have."""

    def __init__(self, table: int, start: int, length: int) -> None:
        super().__init__()
        self.table, self.start, self.length = table, start, length

    def can_replace(self, message: Message) -> bool:
        return isinstance(message, WantTable)


class Surveyed(Message):
    """The recording was looked through for what the time line shows; `why` it could not be, otherwise."""

    def __init__(self, survey: Survey | None, why: str = "") -> None:
        super().__init__()
        self.survey, self.why = survey, why


class WantCounts(Message):
    """The time line shows a part too small for what it has: how many events are in each of its columns?"""

    def __init__(self, low: int, high: int, columns: int) -> None:
        super().__init__()
        self.low, self.high, self.columns = low, high, columns

    def can_replace(self, message: Message) -> bool:
        return isinstance(message, WantCounts)


class Measure(Message):
    """A stretch of the time line was selected: how much is it?"""

    def __init__(self, low: int, high: int) -> None:
        super().__init__()
        self.low, self.high = low, high

    def can_replace(self, message: Message) -> bool:
        return isinstance(message, Measure)


class WantMemory(Message):
    """The memory pane shows bytes that it does not have."""

    def __init__(self, memory: int, address: int, length: int) -> None:
        super().__init__()
        self.memory, self.address, self.length = memory, address, length

    def can_replace(self, message: Message) -> bool:
        return isinstance(message, WantMemory)
