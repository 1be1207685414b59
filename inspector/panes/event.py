"""One event in full: its fields, and the bytes that crossed, each piece in a view of its own. As a pane, and as a dialog."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from typing import ClassVar, Final

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.message import Message
from textual.screen import ModalScreen
from textual.worker import get_current_worker

from inspector.actions import bindings
from inspector.events.details import Detail, read_detail
from inspector.events.payload import Hex, Payload, View, copied, next_view, view_of
from inspector.events.story import Story
from inspector.messages import ChooseBytes, GoTo, Reported
from inspector.panes.rows import Piece, Rows
from inspector.panes.story import Copied, Stopped, StoryPane, heed
from inspector.protocol import Said
from traces._errors import TraceError

WIDE: Final = 82
"""Columns from which a row of the dump has 16 bytes."""
_INDENT: Final = "  "
_LABELS: Final = (9, 18)
"""Columns of the names of fields, at least and at most."""


class EventRead(Message):
    """An event was read, with a view of each of its pieces."""

    def __init__(self, detail: Detail, views: list[View]) -> None:
        super().__init__()
        self.detail, self.views = detail, views


class Viewed(Message):
    """Another view of a piece was made."""

    def __init__(self, seq: int, number: int, view: View) -> None:
        super().__init__()
        self.seq, self.number, self.view = seq, number, view


@dataclass
class _Piece:
    payload: Payload
    view: View


class EventPane(Rows):
    """Fields first; then, for each piece, a heading and its lines, of which only those on the screen are made."""

    NAME = "event"
    BINDINGS: ClassVar[list[BindingType]] = bindings("event")

    def __init__(self, story: Story, id: str = "event") -> None:
        super().__init__(id=id)
        self.story = story
        self.seq: int | None = None
        """The event that is wanted; `detail` is that of the one before while it is read."""
        self.detail: Detail | None = None
        self._pieces: list[_Piece] = []
        self._tops: list[int] = [0]
        """First row of each piece, and the number of rows."""
        self._label = _LABELS[0]

    # -- reading

    def look(self, seq: int) -> None:
        """Shows an event, once it is read."""
        if seq == self.seq or not 0 <= seq < self.story.events:
            return
        self.seq = seq
        self.workers.cancel_group(self, "event")
        self.run_worker(partial(self._read, seq, self._per_row), group="event", thread=True)
        self.update()

    def _read(self, seq: int, per_row: int) -> None:
        """In a thread."""
        worker = get_current_worker()
        try:
            detail = read_detail(self.story, seq, partial(heed, worker))
        except Stopped:
            return
        except (TraceError, OSError) as error:
            self.post_message(Reported(Said(str(error), "error")))
            return
        self.post_message(EventRead(detail, [view_of(payload, "auto", per_row) for payload in detail.payloads]))

    def on_event_read(self, message: EventRead) -> None:
        if message.detail.seq != self.seq:
            return
        self.detail = message.detail
        longest = max(len(fact.name) for fact in message.detail.facts)
        self._label = max(_LABELS[0], min(longest, _LABELS[1]))
        self._pieces = [_Piece(payload, view) for payload, view in zip(message.detail.payloads, message.views, strict=True)]
        self._measure()
        self.cursor = self.top = self.shift = 0
        self.update()

    def _turn(self, seq: int, number: int, piece: _Piece, per_row: int) -> None:
        """In a thread: the lines of a large text are counted, JSON is read."""
        self.post_message(Viewed(seq, number, next_view(piece.payload, piece.view.name, per_row)))

    def on_viewed(self, message: Viewed) -> None:
        if self.detail is None or message.seq != self.detail.seq:
            return
        self._pieces[message.number].view = message.view
        here = self._at(self.cursor)[0] if self.cursor < self.count() else None
        self._measure()
        if here == message.number:  # the cursor stays on the piece, at its heading
            self.cursor = self._tops[here] + 1
        self.update()

    # -- rows

    @property
    def _per_row(self) -> int:
        return 16 if self.size.width >= WIDE else 8

    def _measure(self) -> None:
        facts = 1 + len(self.detail.facts) if self.detail is not None else 0
        # A blank row, the heading, the lines.
        self._tops = list(accumulate((2 + len(piece.view) for piece in self._pieces), initial=facts))

    def count(self) -> int:
        return self._tops[-1]

    def title(self) -> str:
        return self.NAME if self.seq is None else f"{self.NAME} {self.seq:,}"

    def note(self) -> str:
        if self.seq is not None and (self.detail is None or self.detail.seq != self.seq):
            return "reading"
        return "v view, y copy, enter shows in memory" if self._pieces else ""

    def _at(self, row: int) -> tuple[int | None, int]:
        """The piece a row belongs to, None for a field, and which of its lines it is: -2 is blank, -1 its heading."""
        if row < self._tops[0]:
            return None, row
        number = bisect_right(self._tops, row) - 1
        return number, row - self._tops[number] - 2

    def pieces(self, index: int, width: int) -> list[Piece]:
        number, line = self._at(index)
        if number is None:
            return self._fact(line)
        piece = self._pieces[number]
        if line == -2:
            return []
        if line == -1:
            return [(piece.payload.heading, "talk" if piece.payload.sent else "output"), (f"  {piece.view.name}", "dim")]
        return [(_INDENT, ""), *piece.view.line(line, width)]

    def _fact(self, line: int) -> list[Piece]:
        assert self.detail is not None
        if line == 0:
            return [(self.detail.head, "strong")]
        fact = self.detail.facts[line - 1]
        return [(f"{fact.name:<{self._label}} ", "dim"), (fact.text, fact.role)]

    def on_resize(self) -> None:
        for piece in self._pieces:
            if isinstance(piece.view, Hex):
                piece.view = Hex(piece.payload.data, piece.payload.address, self._per_row)
        self._measure()
        super().on_resize()

    # -- acting

    def action_event_view(self) -> None:
        """The next view: of the piece under the cursor, else of each."""
        if self.detail is None or not self._pieces:
            return
        number, _ = self._at(self.cursor)
        for each in range(len(self._pieces)) if number is None else (number,):
            work = partial(self._turn, self.detail.seq, each, self._pieces[each], self._per_row)
            self.run_worker(work, group="view", thread=True)

    def action_copy_piece(self) -> None:
        if self.detail is None:
            return
        number, _ = self._at(self.cursor)
        if number is None:
            lines = [self.detail.head, *(f"{fact.name:<{self._label}} {fact.text}" for fact in self.detail.facts)]
            self.post_message(Copied("\n".join(lines), "the fields"))
            return
        piece = self._pieces[number]
        text, whole = copied(piece.payload, piece.view)
        size = f"{len(piece.payload.data):,} bytes" if whole else "the beginning"
        self.post_message(Copied(text, f"{size} as {piece.view.name}"))

    def on_copied(self, message: Copied) -> None:
        self.app.copy_to_clipboard(message.text)
        self.post_message(Reported(Said(f"copied {message.what}")))

    def action_choose(self) -> None:
        """Bytes are shown in memory, all of a piece or those of the line; an event that is named is gone to."""
        if self.detail is None or self.cursor >= self.count():
            return
        number, line = self._at(self.cursor)
        if number is None:
            event = self.detail.facts[line - 1].event if line else None
            if event is not None:
                self.post_message(GoTo(f"e{event}", event))
            return
        piece = self._pieces[number]
        offset, length = (piece.view.bytes_of(line) if line >= 0 else None) or (0, len(piece.payload.data))
        self.post_message(ChooseBytes(piece.payload.memory, piece.payload.address + offset, max(1, length), show=True))

    def on_go_to(self, message: GoTo) -> None:
        if message.event is not None:
            self.look(message.event)

    # -- finding: the story does it

    def action_search_events(self) -> None:
        self._story_pane.ask_for(self.look)

    def action_search_events_next(self) -> None:
        self._story_pane.find(False, self.look)

    def action_search_events_previous(self) -> None:
        self._story_pane.find(True, self.look)

    @property
    def _story_pane(self) -> StoryPane:
        return self.app.screen_stack[0].query_one(StoryPane)


class EventDialog(ModalScreen[None]):
    """An event in front of the panes."""

    BINDINGS = [Binding("escape,q,e", "close", "close", show=False)]
    DEFAULT_CSS = """
    EventDialog { align: center middle; background: $background 40%; }
    EventDialog EventPane { width: 100; max-width: 95%; height: 20; max-height: 95%; background: $surface; padding: 0 1; }
    """

    def __init__(self, story: Story, seq: int) -> None:
        super().__init__()
        self.story, self.seq = story, seq

    def compose(self) -> ComposeResult:
        yield EventPane(self.story, "expanded")

    def on_mount(self) -> None:
        pane = self.query_one(EventPane)
        pane.focus()
        # Its width, and so the form of a dump, is known only then.
        self.call_after_refresh(pane.look, self.seq)

    def on_event_read(self) -> None:
        self._fit()

    def on_viewed(self) -> None:
        self._fit()

    def _fit(self) -> None:
        """As high as what it shows, where there is room."""
        pane = self.query_one(EventPane)
        pane.styles.height = min(pane.count() + 2, max(5, self.app.size.height - 4))

    def on_choose_bytes(self) -> None:
        self.dismiss(None)

    def action_close(self) -> None:
        self.dismiss(None)
