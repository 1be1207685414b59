"""The events, as a story: filtered, searched and copied here, too. What reads runs in threads, and tells by a message."""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar, Final

from textual.actions import SkipAction
from textual.binding import BindingType
from textual.message import Message
from textual.worker import get_current_worker

from inspector.actions import bindings
from inspector.events.filters import HINT, Filter, Needle, parse
from inspector.events.finding import Hit, Search
from inspector.events.story import FILE, OUTPUT, QUIET, TALK, WORLD, Row, Story
from inspector.messages import GoTo, Reported, WantEvents
from inspector.panes.asking import LivePrompt
from inspector.panes.rows import Piece, Rows
from inspector.protocol import Said
from traces._errors import TraceError, UsageError
from traces.render import event_json

SIGNS = {QUIET: " ", TALK: "○", OUTPUT: "»", FILE: "■", WORLD: "●"}
ROLE_OF = {QUIET: "", TALK: "talk", OUTPUT: "output", FILE: "file", WORLD: "world"}
_BAD = ("trap", "denied")
_TELL_EVERY: Final = 0.1


class Stopped(Exception):
    """Nobody wants the answer any more."""


class Worked(Message):
    """A filter or a search got further."""

    def can_replace(self, message: Message) -> bool:
        return isinstance(message, Worked)


class Found(Message):
    """A search is over; `hit` is None if there is nothing."""

    def __init__(self, search: Search, hit: Hit | None) -> None:
        super().__init__()
        self.search, self.hit = search, hit


class Copied(Message):
    """Text was made to be copied."""

    def __init__(self, text: str, what: str) -> None:
        super().__init__()
        self.text, self.what = text, what


class StoryPane(Rows):
    """Events; a run is one row until it is unfolded."""

    NAME = "story"
    BINDINGS: ClassVar[list[BindingType]] = bindings("story")

    def __init__(self, story: Story) -> None:
        super().__init__(id="story")
        self.story = story
        self.reached: int | None = None
        """Events the replay reached; None if it reached all, or is not known."""
        self.held = max(0, story.events - 1)
        """The event the cursor is kept on while rows come and go."""
        self._version = -1
        self._masks: deque[tuple[Filter, int, Any]] = deque()
        self._search: Search | None = None
        self._share: float | None = None
        """How far the search that runs is."""
        self._then: Callable[[int], None] | None = None

    # -- rows

    def count(self) -> int:
        return self.story.rows

    def title(self) -> str:
        return self.NAME if self.story.filter is None else f"{self.NAME} · {self.story.filter.text}"

    def note(self) -> str:
        story = self.story
        if self._share is not None and self._search is not None:
            return f"finding {self._search.needle.text}, {self._share:.0%}"
        if story.filter is not None:
            note = f"{story.rows:,} of {story.events:,}"
            return note if story.sifted == 1 else f"{note}, reading, {story.sifted:.0%}"
        if not story.complete:
            return f"reading {story.indexed:,} of {story.events:,}"
        return f"{story.events:,} events" + ("" if story.rows == story.events else f" in {story.rows:,} rows")

    def update(self) -> None:
        if self._version != self.story.version:
            # Rows have come or gone: the cursor stays on its event, and that where it was on the screen.
            self._version = self.story.version
            above = self.cursor - self.top
            self.cursor = self.story.row_of(self.held)
            self.top = self.cursor - above if 0 <= above < self.room else self.cursor - self.room // 3
        super().update()

    def place(self, index: int, *, top: int | None = None) -> None:
        self._version = self.story.version
        if self.story.rows:
            self.held = self.story.row(max(0, min(index, self.story.rows - 1))).seq
        super().place(index, top=top)

    def pieces(self, index: int, width: int) -> list[Piece]:
        row = self.story.row(index)
        digits = len(str(max(0, self.story.events - 1)))
        role = ROLE_OF[row.effect]
        parted, lost = row.seq == self.reached, self.reached is not None and row.seq > self.reached
        pieces: list[Piece] = [(f"{row.seq:>{digits}} ", "dim"), (f"{SIGNS[row.effect]} ", role)]
        if row.count > 1:
            return [*pieces, *_heading(row, role)]
        if not self.story.ready(row.seq):
            self.post_message(WantEvents(row.seq))
            return [*pieces, ("  " if row.inside else "", ""), (_short(row.name), "dim")]
        text = self.story.text(row.seq)
        indent = ("  " if row.inside else "") + "  " * min(max(0, text.depth - 1), 6)
        wrong = text.status in _BAD or text.kind == "trap" or parted
        pieces.append((indent + text.head, "bad" if wrong else "dim" if text.status == "errno" or lost else role))
        if text.status == "denied":
            pieces.append(("  denied", "bad"))
        if text.outcome:
            pieces += [(" → ", "dim"), (text.outcome, "bad" if wrong else "dim" if row.effect == QUIET or lost else "")]
        return pieces

    def cursor_moved(self) -> None:
        self.held = self.story.row(self.cursor).seq
        self.post_message(GoTo(f"e{self.held}", self.held, "story"))

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
        """Puts the cursor on an event; if a filter hides it, on the one shown before."""
        if self.story.rows:
            row = self.story.row(self.cursor) if self.cursor < self.story.rows else None
            if row is None or not (row.seq == seq and row.count == 1):
                self.place(self.story.row_of(seq))
        self.held = seq

    # -- filter

    def action_filter_events(self) -> None:
        now = self.story.filter.text if self.story.filter is not None else ""

        def answered(text: str | None) -> None:
            if text is not None:
                self.run_filter(text)

        self.app.push_screen(LivePrompt("show only events", now, HINT, _complaint(parse), "all events"), answered)

    def run_filter(self, text: str) -> None:
        """Shows only the events that pass; "" shows all. Raises UsageError."""
        wanted = parse(text) if text.strip() else None
        self.workers.cancel_group(self, "filter")
        self.story.show(wanted)
        self.update()
        if wanted is not None:
            self.run_worker(partial(self._sift, wanted, self.held), group="filter", thread=True)

    def _sift(self, wanted: Filter, near: int) -> None:
        """In a thread."""
        worker = get_current_worker()
        try:
            for number in self.story.sift(near):
                self._masks.append((wanted, number, wanted.mask(self.story.look(number), partial(heed, worker))))
                self.post_message(Worked())
                heed(worker)
        except Stopped:
            return
        except (TraceError, OSError) as error:
            self._say(str(error), "error")

    def on_worked(self) -> None:
        while self._masks:
            self.story.take(*self._masks.popleft())
        self.update()

    # -- search

    def action_find_event(self) -> None:
        self.ask_for(None)

    def action_find_event_next(self) -> None:
        self.find(False)

    def action_find_event_previous(self) -> None:
        self.find(True)

    def ask_for(self, then: Callable[[int], None] | None) -> None:
        """Asks what to find, and finds it; `then` is told the event, too."""
        now = self._search.needle.text if self._search is not None else ""

        def answered(text: str | None) -> None:
            if text:
                self._search = self.story.search(Needle(text))
                self.find(False, then)

        self.app.push_screen(LivePrompt("find in events", now, "text, 12950, or /regex/", _complaint(Needle)), answered)

    def find(self, reverse: bool, then: Callable[[int], None] | None = None) -> None:
        """Finds the next event behind the cursor's, or before it."""
        if self._search is None:
            self.ask_for(then)
            return
        if not self.story.events:
            return
        if self._search.shown is not self.story.filter:
            self._search = self.story.search(self._search.needle)
        self._share, self._then = 0.0, then
        self.workers.cancel_group(self, "search")
        self.run_worker(partial(self._seek, self._search, self.held, reverse), group="search", thread=True)
        self.update()

    def _seek(self, search: Search, at: int, reverse: bool) -> None:
        """In a thread."""
        worker, told = get_current_worker(), time.monotonic()

        def tick(share: float) -> None:
            nonlocal told
            heed(worker)
            if time.monotonic() - told > _TELL_EVERY:
                told, self._share = time.monotonic(), share
                self.post_message(Worked())

        try:
            hit = search.find(at, reverse, tick)
        except Stopped:
            return
        except (TraceError, OSError) as error:
            self._say(str(error), "error")
            return
        if not worker.is_cancelled:
            self.post_message(Found(search, hit))

    def on_found(self, message: Found) -> None:
        if message.search is not self._search:
            return
        self._share = None
        if message.hit is None:
            self._say(f"no event has {message.search.needle.text}" + ("" if self.story.filter is None else ", of those shown"))
        else:
            self._arrive(message.hit)
        self.update()

    def _arrive(self, hit: Hit) -> None:
        self.show(hit.seq)
        self.post_message(GoTo(f"e{hit.seq}", hit.seq, "find"))
        if hit.wrapped:
            self._say("found from the other end on")
        if self._then is not None:
            self._then(hit.seq)

    def action_show_all_events(self) -> None:
        """Ends the search that runs; else shows all events again; else it is not about this pane."""
        if self._share is not None:
            self.workers.cancel_group(self, "search")
            self._share = None
            self.update()
            self._say("cancelled")
        elif self.story.filter is not None:
            self.run_filter("")
        else:
            raise SkipAction

    # -- copying

    def action_copy_event(self) -> None:
        if self.cursor < self.count():
            text = "".join(text for text, _ in self.pieces(self.cursor, 1 << 16)).strip()
            self.post_message(Copied(text, "the row"))

    def action_copy_event_json(self) -> None:
        if self.cursor < self.count():
            self.run_worker(partial(self._make_json, self.story.row(self.cursor).seq), group="copy", thread=True)

    def _make_json(self, seq: int) -> None:
        """In a thread."""
        try:
            row = self.story.event(seq)
        except (TraceError, OSError) as error:
            self._say(str(error), "error")
            return
        self.post_message(Copied(json.dumps(event_json(row), ensure_ascii=False), f"event {seq} as JSON"))

    def on_copied(self, message: Copied) -> None:
        self.app.copy_to_clipboard(message.text)
        self._say(f"copied {message.what}")

    def _say(self, text: str, severity: str = "information") -> None:
        self.post_message(Reported(Said(text, severity)))


def heed(worker: Any) -> None:
    if worker.is_cancelled:
        raise Stopped


def _complaint(read: Callable[[str], object]) -> Callable[[str], str]:
    """What is wrong with a text, in one line; "" if it can be read."""

    def check(text: str) -> str:
        try:
            read(text)
        except UsageError as error:
            return str(error)
        return ""

    return check


def _short(name: str) -> str:
    return name.rpartition(".")[2] or name


def _heading(row: Row, role: str) -> list[Piece]:
    """A run: what repeats, how often, and what of it is left over at its end."""
    names = " ".join(_short(name) for name in row.names)
    times, rest = divmod(row.count, len(row.names))
    shown = f"({names})" if len(row.names) > 1 else names
    more: list[Piece] = [(f" +{rest}", "dim")] if rest else []
    return [("▸ " if row.folded else "▾ ", role or "name"), (f"{shown} ", role or "name"), (f"×{times:,}", "number"), *more]
