"""The inspector's application: composes the panes, routes what they say, and keeps the one focus they all show.

What takes time happens elsewhere: the guest in `session`, the tables in threads of their own. Here is only who is told what;
what each action does is in `verbs`.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Final, TypeVar

from textual.app import ComposeResult
from textual.command import DiscoveryHit, Hit, Hits, Provider
from textual.containers import Container, Horizontal, Vertical
from textual.widgets import Static

from inspector import protocol as ask
from inspector.actions import ACTIONS, BY_ID, footer, shown_keys
from inspector.bookmarks import read_bookmarks
from inspector.focus import Focus, Visits
from inspector.messages import (
    ChooseBytes,
    ChooseFrame,
    GoTo,
    Indexed,
    Loaded,
    Reported,
    RunTo,
    ToggleValue,
    WantEvents,
    WantMemory,
)
from inspector.panes.code import CodePane, SourcePane
from inspector.panes.dialogs import Reading
from inspector.panes.frames import FramesPane
from inspector.panes.line import Line
from inspector.panes.memory import MemoryPane
from inspector.panes.output import OutputPane
from inspector.panes.rows import Piece, Rows
from inspector.panes.story import StoryPane
from inspector.panes.texts import TextPane
from inspector.panes.timeline import TimelinePane
from inspector.session import Session
from inspector.snapshot import Facts, FrameDetail, StopPoint
from inspector.story import Index
from inspector.verbs import Verbs
from traces._errors import TraceError, UsageError
from traces.tracedir import Trace

NARROW: Final = 100
"""Columns below which story and one other pane share the screen."""
SHORT: Final = 30
"""Rows below which they do, too."""
WIDE: Final = 150
"""Columns from which source and instructions stand beside the rest."""
VAST: Final = 190
"""Columns from which the memory pane is given room for 16 bytes in a row."""
LEAST: Final = (60, 14)
P = TypeVar("P", bound=Rows)
PANES: Final = ("story", "source", "code", "event", "frames", "memory", "output", "timeline")


class Actions(Provider):
    """The palette: every action of the table that can be done from anywhere."""

    def _all(self) -> Iterator[tuple[str, str, Callable[[], Any]]]:
        app = self.app
        assert isinstance(app, Inspector)
        for action in ACTIONS:
            if not action.pane and action.id not in ("palette", "cancel"):
                keys = " ".join(shown_keys(action, app.keys))
                yield f"{action.label}  ({keys})", action.help, partial(app.run_action, action.method)

    async def discover(self) -> Hits:
        for label, text, run in self._all():
            yield DiscoveryHit(label, run, help=text)

    async def search(self, query: str) -> Hits:
        matcher = self.matcher(query)
        for label, text, run in self._all():
            score = max(matcher.match(label), matcher.match(text) * 0.8)
            if score > 0:
                yield Hit(score, matcher.highlight(label), run, help=text)


class Inspector(Verbs):
    """One recording, inspected.

    Args:
        trace: open for as long as the app runs.
        search, remap: where sources are; see TimeMachine.
        at: the mark to open at; None opens where it gets interesting.
        keymap: keys by action, instead of the usual ones.
        theme: of Textual's; None chooses by what the terminal can do.
        session: made by the app unless a test has its own.
    """

    CSS_PATH = "app.tcss"
    COMMANDS: ClassVar[set[type[Provider] | Callable[[], type[Provider]]]] = {Actions}
    ENABLE_COMMAND_PALETTE = True
    COMMAND_PALETTE_BINDING = "ctrl+p"
    TITLE = "reprise"

    def __init__(
        self,
        trace: Trace,
        *,
        search: Sequence[Path] = (),
        remap: Sequence[tuple[str, str]] = (),
        at: str | None = None,
        keymap: Mapping[str, str] | None = None,
        theme: str | None = None,
        session: Callable[[Callable[[ask.Report], None]], Session] | None = None,
    ) -> None:
        tell = self._reported
        made = session(tell) if session is not None else Session(trace.given, tell, search=search, remap=remap)
        super().__init__(trace, keymap or {}, made)
        self._at = at
        self._placed = False
        """Whether the first place was chosen."""
        self._busy: ask.Progress | None = None
        self._indexes: deque[Index] = deque()
        self._leaving = threading.Event()
        self._tables = ThreadPoolExecutor(1, "reprise-tables")
        self._loading: set[int] = set()
        self._output_at = -1
        self._theme = theme if theme is not None else _theme_for(os.environ)

    # -- life

    def compose(self) -> ComposeResult:
        yield Line("banner")
        with Horizontal(id="body"):
            with Vertical(id="left"):
                yield StoryPane(self.story)
                yield OutputPane()
            with Container(id="detail"):
                with Vertical(id="middle"):
                    yield SourcePane()
                    yield CodePane()
                    yield TextPane("event")
                with Vertical(id="right"):
                    yield FramesPane()
                    yield MemoryPane()
        yield Static("", id="small", markup=False)
        yield TimelinePane()
        yield Line("footer")

    def on_mount(self) -> None:
        if self._theme not in self.available_themes:
            self.exit(return_code=64, message=f"reprise: there is no theme {self._theme!r}")
            return
        self.theme = self._theme
        self.screen.set_class(self._theme.startswith("ansi"), "-ansi")
        self.set_keymap(self.keys)
        try:
            self.bookmarks = read_bookmarks(self.trace.given)
        except UsageError as error:
            self.say(str(error), "warning")
        self.arrange()
        self.pane(StoryPane).focus()
        self._show_banner()
        self.show_footer()
        threading.Thread(target=self._read_index, name="reprise-index", daemon=True).start()
        self.session.start()

    def on_unmount(self) -> None:
        self._leaving.set()
        self.session.close()
        self._tables.shutdown(wait=True, cancel_futures=True)
        self.story.close()

    def line(self, id: str) -> Line:
        return self.screen_stack[0].query_one(f"#{id}", Line)

    # -- the tables

    def _read_index(self) -> None:
        """In a thread: reads what the story is made of."""
        try:
            for index in self.story.read_index():
                if self._leaving.is_set():
                    return
                self._indexes.append(index)
                self.post_message(Indexed())
        except (TraceError, OSError) as error:
            self._reported(ask.Said(str(error), "error"))

    def on_indexed(self) -> None:
        while self._indexes:
            self.story.add(self._indexes.popleft())
        pane = self.pane(StoryPane)
        pane.update()
        if self.story.complete:
            self.arrange()
            if not self._placed:
                self._open_somewhere()
            pane.show(self.focus.event)
            self._show_output()
            self._locate_effects()

    def on_want_events(self, message: WantEvents) -> None:
        if message.seq in self._loading or self._leaving.is_set():
            return
        self._loading.add(message.seq)

        def load() -> None:
            try:
                self.story.load(message.seq)
            except (TraceError, OSError) as error:
                self._reported(ask.Said(str(error), "error"))
                return
            self.post_message(Loaded())

        self._tables.submit(load)

    def on_loaded(self) -> None:
        self._loading.clear()
        self.pane(StoryPane).refresh()
        self._show_event()

    # -- the focus

    def _open_somewhere(self) -> None:
        """The first place: where it was asked for, else where the story is."""
        self._placed = True
        said = self.said
        if self._at is not None:
            self.move(Focus(self._at), "")
        else:
            seq = self.story.opening()
            self.move(Focus(f"e{seq}" if self.story.events else "start", seq), "")
        self.visits = Visits(self.focus)
        self.said = said
        self.show_footer()

    def move(self, focus: Focus, kind: str = "") -> None:
        """Moves the focus, and the guest with it if it is somewhere else."""
        before = self.focus
        self.said = None
        if not self.visits.go(focus, kind):
            return
        self.follow(before)

    def follow(self, before: Focus) -> None:
        """What follows from the focus having moved."""
        focus = self.focus
        if focus.mark != before.mark:
            self.wanted = focus.mark
            if self.facts is not None:
                self.session.post(ask.Seek(focus.mark, focus.frame))
        elif focus.frame != before.frame:
            self.session.post(ask.ShowFrame(focus.frame))
        if focus.range is not None and focus.range != before.range:
            self.pane(MemoryPane).choose(*focus.range)
        if focus.event != before.event:
            self._show_event()
        self._show_banner()
        self.show_footer()

    def on_go_to(self, message: GoTo) -> None:
        event = self.focus.event if message.event is None else message.event
        self.move(self.focus.moved(mark=message.mark, event=event, frame=0), message.kind)

    def on_choose_bytes(self, message: ChooseBytes) -> None:
        self.move(self.focus.moved(memory=message.memory, address=message.address, length=message.length), "bytes")
        if message.show:
            self.activate("memory")

    def on_choose_frame(self, message: ChooseFrame) -> None:
        self.move(self.focus.moved(frame=message.level), "frame")

    def on_toggle_value(self, message: ToggleValue) -> None:
        self.session.post(ask.Expand(message.path))

    def on_run_to(self, message: RunTo) -> None:
        self._motion(ask.RunToPlace(message.place))

    def on_want_memory(self, message: WantMemory) -> None:
        if self.snapshot is not None:
            self.session.post(ask.ReadMemory(message.memory, message.address, message.length))

    # -- what the session tells

    def _reported(self, report: ask.Report) -> None:
        """In the session's thread."""
        if not self._leaving.is_set():
            self.post_message(Reported(report))

    def on_reported(self, message: Reported) -> None:
        report = message.report
        match report:
            case ask.Opened(facts):
                self._opened(facts)
            case ask.Refused(why):
                self.refused = why
                self.say(f"no time machine: {why}", "error")
                self.arrange()
            case ask.Progress():
                self._busy = report if report.what else None
                self.show_footer()
            case ask.Arrived():
                self._arrived(report)
            case ask.Detailed(mark, detail):
                if self.snapshot is not None and self.snapshot.mark == mark:
                    self.show_detail(detail)
            case ask.PagesRead(pages):
                self.pane(MemoryPane).take(pages)
            case ask.Found(memory, address, length):
                self.move(self.focus.moved(memory=memory, address=address, length=length), "")
                self.activate("memory")
            case ask.Answer(title, lines, mark):
                offer = "enter goes there" if mark is not None else ""
                self.push_screen(Reading(title, [_answer_line(line) for line in lines], offer, mark), self._answered)
            case ask.Said(text, severity):
                self.say(text, severity)
            case ask.StopsChanged(points):
                self._show_stops(points)
            case ask.Located(clocks):
                of = dict(self.story.effects())
                self.pane(TimelinePane).effects = [(clock, of.get(seq, 0)) for seq, clock in clocks if of.get(seq)]
                self.pane(TimelinePane).update()

    def _answered(self, mark: str | None) -> None:
        if mark is not None:
            self.move(self.focus.moved(mark=mark, frame=0))

    def _opened(self, facts: Facts) -> None:
        again = self.facts is not None
        self.facts = facts
        pane = self.pane(TimelinePane)
        pane.density, pane.total = facts.density, facts.total
        pane.update()
        if facts.reached < facts.events:
            self.pane(StoryPane).reached = facts.reached
        if again:
            return
        for note in facts.notes:
            self.say(note, "warning")
        if facts.diverged is not None and self._at is None:
            self._placed = True
            self.visits = Visits(Focus("end", min(facts.diverged, max(0, facts.events - 1))))
            self.say(facts.reason or "the replay diverged", "error")
        if self._placed:
            self.wanted = self.focus.mark
            self.session.post(ask.Seek(self.focus.mark, self.focus.frame))
        self._locate_effects()
        self.arrange()
        self._show_banner()

    def _locate_effects(self) -> None:
        if self.facts is not None and self.story.complete:
            self.session.post(ask.Locate(tuple(seq for seq, _ in self.story.effects())))

    def _arrived(self, report: ask.Arrived) -> None:
        snapshot = report.snapshot
        mark = str(snapshot.mark)
        if report.asked is not None and report.asked != self.wanted:
            return  # the user is elsewhere by now, and so will the guest be
        if report.asked is None:
            focus = self.focus.moved(mark=mark, event=snapshot.in_view, frame=0)
            if report.range is not None:
                memory, address, length = report.range
                focus = focus.moved(memory=memory, address=address, length=length)
            self.visits.go(focus, report.kind)
        else:
            diverged = self.facts is not None and self.facts.diverged is not None and snapshot.at_end
            event = self.focus.event if diverged else snapshot.in_view
            self.visits.settle(mark=mark, event=event, frame=snapshot.detail.level if snapshot.detail is not None else 0)
        self.wanted = mark
        self.snapshot = snapshot
        self.arrange()
        self.pane(StoryPane).show(self.focus.event)
        self.pane(MemoryPane).show(snapshot)
        if self.focus.range is None and snapshot.event is not None and self.story.ready(snapshot.event):
            # Nobody has chosen bytes yet: those the event is about are worth a look.
            about = self.story.bytes_of(snapshot.event)
            if about is not None and about[1] + about[2] <= sum(snapshot.memory_sizes[about[0] : about[0] + 1]):
                self.visits.settle(memory=about[0], address=about[1], length=about[2])
                self.pane(MemoryPane).choose(*about)
        elif self.focus.range is not None and report.range is not None:
            self.pane(MemoryPane).choose(*self.focus.range)
        timeline = self.pane(TimelinePane)
        timeline.clock = snapshot.mark.clock
        timeline.update()
        self.show_detail(snapshot.detail)
        self._show_output()
        self._show_event()
        self._show_banner()
        if report.reason:
            self.say(report.reason)
        self.show_footer()

    # -- showing

    def show_detail(self, detail: FrameDetail | None) -> None:
        assert self.snapshot is not None
        level = detail.level if detail is not None else 0
        head = self.snapshot.frames[level] if level < len(self.snapshot.frames) else None
        self.pane(SourcePane).show(detail.source if detail else None, head, detail.missing if detail else "")
        self.pane(CodePane).show(detail.code if detail else None)
        self.pane(FramesPane).operands = self.by == "instruction"
        self.pane(FramesPane).show(self.snapshot, detail)
        self.shown_detail = detail
        self.arrange()

    def _show_output(self) -> None:
        if not self.story.complete or not self.story.has_output:
            return
        before = self.snapshot.events if self.snapshot is not None else self.focus.event
        if before == self._output_at or self._leaving.is_set():
            return
        self._output_at = before

        def read() -> None:
            if before != self._output_at:
                return
            try:
                chunks = self.story.output(before)
            except (TraceError, OSError, RuntimeError):
                return
            if not self._leaving.is_set():
                self.call_later(self.pane(OutputPane).show, chunks)

        self._tables.submit(read)

    def _show_event(self) -> None:
        pane = self.screen_stack[0].query_one("#event", TextPane)
        if not pane.display or not self.story.events:
            return
        seq = self.focus.event
        if not self.story.ready(seq):
            self.post_message(WantEvents(seq))
            return
        pane.show(f"event {seq}", [[(line, "")] for line in self.story.expanded(seq)])

    def _show_stops(self, points: tuple[StopPoint, ...]) -> None:
        lines, codes = set(), set()
        for point in points:
            kind, _, value = point.text.partition("=")
            file, _, line = value.rpartition(":")
            if kind == "line" and line.isdigit():
                lines.add((file, int(line)))
            elif kind == "pc":
                codes.add(int(value, 0))
        self.pane(SourcePane).stops = frozenset(lines)
        self.pane(CodePane).stops = frozenset(codes)
        self.pane(SourcePane).refresh()
        self.pane(CodePane).refresh()

    def _show_banner(self) -> None:
        manifest = self.trace.manifest
        verdict, role = "opening the time machine", "dim"
        if self.facts is not None:
            verdict = self.facts.verdict
            role = "good" if verdict == "identical" else "bad"
        elif self.refused:
            verdict, role = "not replayed", "bad"
        outcome = manifest.outcome
        ended = str(outcome.get("kind") or "?")
        if ended == "exit":
            ended = f"exit {outcome.get('code')}"
        clean = ended in ("exit 0", "returned")
        left: list[Piece] = [
            (" reprise ", "strong"), (f" {self.trace.given.name}  ", "name"), (verdict, role), (" · ", "dim"),
            (ended, "" if clean else "bad"),
        ]  # fmt: skip
        events_ = f"e{self.focus.event:,} of {self.story.events:,}"
        right: list[Piece] = [("  ", ""), (events_, "strong")]
        if self.snapshot is not None and self.facts is not None:
            clock = max(0, self.snapshot.mark.clock)
            share = f" ({clock * 100 // self.facts.total} %)" if self.facts.total else ""
            name = str(self.snapshot.mark)
            shown = f"{self.snapshot.mark.clock:,}" + (f".{self.snapshot.mark.step}" if self.snapshot.mark.step else "")
            right.append((f"  mark {name if name.startswith('start') else shown}{share}", ""))
        self.line("banner").show(left, [*right, (" ", "")])

    def show_footer(self) -> None:
        line = self.line("footer")
        width = line.size.width or self.size.width
        cancel = shown_keys(BY_ID["cancel"], self.keys)[0]
        if self._busy is not None:
            total = self.facts.total if self.facts is not None else 0
            share = f"  {min(100, max(0, self._busy.clock) * 100 // total)} %" if total else f"  {self._busy.events:,} events"
            line.show([(f" … {self._busy.what}", "mark"), (share, "")], [(f"{cancel} ", "strong"), ("cancels ", "dim")])
            return
        if self.said is not None:
            text, severity = self.said
            role = {"warning": "changed", "error": "bad"}.get(severity, "")
            line.show([(f" {text}", role)], [("  ? ", "strong"), ("help ", "dim")])
            return
        left: list[Piece] = [(" ", "")]
        for keys, name in footer(width, self.keys):
            left += [(keys, "strong"), (f" {name}   ", "dim")]
        line.show(left)

    def say(self, text: str, severity: str = "information") -> None:
        """One line for the user, in the footer until something else happens."""
        self.said = (text, severity)
        self.show_footer()

    # -- the arrangement

    def on_resize(self) -> None:
        # The app itself is told after this what its size is.
        self.call_later(self._resized)

    def _resized(self) -> None:
        self.arrange()
        self._show_banner()
        self.call_after_refresh(self.show_footer)

    @property
    def narrow(self) -> bool:
        return self.size.width < NARROW or self.size.height < SHORT

    def _available(self) -> list[str]:
        """The panes there is something for, in their order."""
        facts, snapshot = self.facts, self.snapshot
        found = ["story"]
        if snapshot is not None and facts is not None:
            if facts.has_source:
                found.append("source")
            found += ["code", "frames"]
            if facts.memories:
                found.append("memory")
        else:
            found.append("event")
        if self.story.has_output:
            found.append("output")
        if facts is not None:
            found.append("timeline")
        return found

    def _shown(self) -> list[str]:
        """Those of them that are on the screen now."""
        available = self._available()
        detail = self.shown_detail
        sourced = "source" in available and self.by == "line" and not (detail is not None and detail.source is None)
        main = "source" if sourced else "code"
        if self.narrow:
            chosen = self.detail if self.detail in available and self.detail not in ("source", "code") else main
            if chosen not in available:
                chosen = "event"
            return [name for name in available if name in ("story", chosen, "timeline")]
        if self.size.width >= WIDE:
            return available
        return [name for name in available if name not in ("source", "code") or name == main]

    def reachable(self) -> list[str]:
        shown = self._shown()
        return [name for name in self._available() if name in shown or (self.narrow and name not in ("source", "code"))]

    def arrange(self) -> None:
        """Shows the panes that there is room and something for."""
        screen = self.screen_stack[0]
        width, height = self.size
        tiny = width < LEAST[0] or height < LEAST[1]
        screen.set_class(tiny, "-tiny")
        screen.set_class(self.narrow, "-narrow")
        screen.set_class(width >= WIDE and not self.narrow, "-wide")
        screen.set_class(width >= VAST and not self.narrow, "-vast")
        if tiny:
            text = f"{width}×{height} is too small for the inspector\nit needs {LEAST[0]}×{LEAST[1]}"
            screen.query_one("#small", Static).update(text)
        shown = self._shown()
        focused = self.focused.id if self.focused is not None else None
        for name in PANES:
            pane = screen.query_one(f"#{name}")
            if pane.display != (name in shown):
                pane.display = name in shown
        # In a narrow screen the output stands where the other details do.
        output = "output" in shown and self.narrow
        screen.query_one("#middle").display = any(name in shown for name in ("source", "code", "event"))
        screen.query_one("#right").display = any(name in shown for name in ("frames", "memory"))
        screen.query_one("#detail").display = not output
        screen.query_one("#left").set_class(output, "-alone")
        if focused in PANES and focused not in shown and len(self.screen_stack) == 1:
            partner = {"source": "code", "code": "source", "event": "source"}.get(focused, "story")
            screen.query_one(f"#{partner if partner in shown else 'story'}").focus()

    def activate(self, name: str) -> None:
        if name not in self._available():
            return
        if name not in ("story", "timeline"):
            self.detail = name
        self.arrange()
        self.screen_stack[0].query_one(f"#{name}").focus()


def _answer_line(line: str) -> list[Piece]:
    if line.startswith("  "):
        label, rest = line[:10], line[10:]
        return [(label, "dim"), (rest, "")]
    return [(line, "strong")]


def _theme_for(environment: Mapping[str, str]) -> str:
    """Terminals that say they have few colours get a theme of those that every terminal has."""
    term = environment.get("TERM", "")
    rich_colours = environment.get("COLORTERM", "") in ("truecolor", "24bit") or "256" in term or "direct" in term
    known = environment.get("TEXTUAL_THEME")
    return known if known else "textual-dark" if rich_colours else "ansi-dark"
