"""The inspector's application: composes the panes, routes what they say, and keeps the one focus they all show.

What takes time happens elsewhere: the guest in `session`, the tables in threads of their own. Here is only who is told what;
what each action does is in `verbs`.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Final, TypeVar

from textual.app import ComposeResult
from textual.command import DiscoveryHit, Hit, Hits, Provider
from textual.containers import Container, Horizontal, Vertical
from textual.widgets import Static

from inspector import protocol as ask
from inspector.actions import ACTIONS, BY_ID, doable, footer, shown_keys
from inspector.bookmarks import read_bookmarks
from inspector.charting import Charting
from inspector.events.story import Index
from inspector.focus import Focus, Visits
from inspector.leaving import heed_signals
from inspector.messages import (
    ChooseBytes,
    ChooseFrame,
    GoTo,
    Indexed,
    Loaded,
    Reported,
    RunTo,
    Tell,
    ToggleValue,
    WantEvents,
    WantMemory,
    WantTable,
)
from inspector.panes.code import CodePane, SourcePane
from inspector.panes.dialogs import Reading
from inspector.panes.divergence import DivergencePane
from inspector.panes.event import EventPane
from inspector.panes.frames import FramesPane
from inspector.panes.line import Line
from inspector.panes.memory import MemoryPane
from inspector.panes.output import OutputPane
from inspector.panes.rows import Piece, Rows
from inspector.panes.story import StoryPane
from inspector.panes.tables import TablesPane
from inspector.panes.timeline import TimelinePane
from inspector.session import Session
from inspector.snapshot import Facts, FrameDetail, StopPoint
from inspector.themes import theme_for
from inspector.verbs import NOT_YET
from traces._errors import TraceError, UsageError
from traces.tracedir import Trace

NARROW: Final = 100
"""Columns below which story and one other pane share the screen."""
SHORT: Final = 30
"""Rows below which they do, too."""
WIDE: Final = 150
"""Columns from which source and instructions stand beside the rest."""
TALL: Final = 36
"""Rows from which the time line has as many lines as there are lanes."""
VAST: Final = 190
"""Columns from which the memory pane is given room for 16 bytes in a row."""
LEAST: Final = (60, 14)
P = TypeVar("P", bound=Rows)
PANES: Final = ("story", "divergence", "source", "code", "event", "frames", "memory", "tables", "output", "timeline")


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


class Inspector(Charting):
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
        path = trace.path if trace.recovered else trace.given
        made = session(tell) if session is not None else Session(path, tell, search=search, remap=remap)
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
        self._theme = theme if theme is not None else theme_for(os.environ)

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
                    yield EventPane(self.story)
                with Vertical(id="right"):
                    yield FramesPane()
                    yield TablesPane()
                    yield MemoryPane()
        yield DivergencePane(self._event_text, self.story.events)
        yield Static("", id="small", markup=False)
        yield TimelinePane()
        yield Line("footer")

    def on_mount(self) -> None:
        if self._theme not in self.available_themes:
            self.exit(return_code=64, message=f"reprise: there is no theme {self._theme!r}")
            return
        self.theme = self._theme
        self.set_class(self._theme.startswith("ansi"), "-ansi")
        self.set_keymap(self.keys)
        try:
            self.bookmarks = read_bookmarks(self.trace.given)
        except UsageError as error:
            self.unkept = str(error)
            self.say(self.unkept, "warning")
        self.arrange()
        self.pane(StoryPane).focus()
        self._show_banner()
        self.show_footer()
        threading.Thread(target=self._read_index, name="reprise-index", daemon=True).start()
        self.session.start()
        heed_signals(self)
        self.app_resume_signal.subscribe(self, self._repaint)

    def _repaint(self, _: object) -> None:
        """The shell had the terminal, and left nothing of the screen."""
        self.screen.refresh(layout=True)

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
            self.post_message(Indexed())  # of a recording without events there was nothing to tell
        except (TraceError, OSError) as error:
            self._reported(ask.Said(str(error), "error"))
        except Exception as error:  # a thread that died would look like one that never ends
            self._reported(ask.Said(f"unexpected {type(error).__name__}: {error}", "error"))

    def on_indexed(self) -> None:
        while self._indexes:
            self.story.add(self._indexes.popleft())
        pane = self.pane(StoryPane)
        pane.update()
        if not self._placed and self.story.opening_known:
            self._open_somewhere()
        pane.show(self.focus.event if self._placed else self.story.opening())
        if self.story.complete:
            self.arrange()
            self._show_output()
            self._locate_effects()
            self.begin_survey()

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
            finally:
                self._loading.discard(message.seq)
            self.post_message(Loaded())

        self._in_tables(load)

    def _in_tables(self, work: Callable[[], None]) -> None:
        """Does something in the thread of the tables. What nobody expected is told: a future would keep it to itself."""

        def over(done: Future[None]) -> None:
            error = None if done.cancelled() else done.exception()
            if error is not None:
                self._reported(ask.Said(f"unexpected {type(error).__name__}: {error}", "error"))

        self._tables.submit(work).add_done_callback(over)

    def on_loaded(self) -> None:
        self.pane(DivergencePane).update()
        self.pane(StoryPane).refresh()
        self._show_event()
        self._choose_about()

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
        if self.facts is not None and self.wanted is None:  # it is where the focus was from the beginning
            self.wanted = self.focus.mark
            self.session.post(ask.Seek(self.focus.mark, self.focus.frame))
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
        self.move(self.focus.moved(memory=message.memory, address=message.address, length=message.length),
                  "" if message.follows else "bytes")  # fmt: skip
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

    def on_want_table(self, message: WantTable) -> None:
        if self.snapshot is not None:
            self.session.post(ask.ReadTable(message.table, message.start, message.length))

    def on_tell(self, message: Tell) -> None:
        self.say(message.text)

    # -- what the session tells

    def _reported(self, report: ask.Report) -> None:
        """In the session's thread."""
        if not self._leaving.is_set():
            self.post_message(Reported(report))

    def on_reported(self, message: Reported) -> None:
        report = message.report
        if not self.screen_stack:
            return  # the screens are gone already
        match report:
            case ask.Opened(facts):
                self._opened(facts)
            case ask.Refused(why):
                self.refused = why
                self._show_banner()
                self.say(f"no time machine: {why}", "error")
                self.arrange()
            case ask.Progress():
                self._busy = report if report.what else None
                self.show_footer()
            case ask.Arrived():
                self._arrived(report)
            case ask.Missed(asked):
                self._missed(asked)
            case ask.Detailed(mark, detail):
                if self.snapshot is not None and self.snapshot.mark == mark:
                    self.show_detail(detail)
            case ask.PagesRead(pages):
                self.pane(MemoryPane).take(pages)
            case ask.TableRead(window):
                self.pane(TablesPane).take(window)
            case ask.Named(names):
                self.names = names
            case ask.Found(memory, address, length, note):
                self.move(self.focus.moved(memory=memory, address=address, length=length), "")
                self.activate("memory")
                if note:
                    self.say(note)
            case ask.Answer(title, lines, mark):
                offer = "enter goes there" if mark is not None else ""
                self.push_screen(Reading(title, [_answer_line(line) for line in lines], offer, mark), self._answered)
            case ask.Said(text, severity):
                self.say(text, severity)
            case ask.StopsChanged(points):
                self._show_stops(points)
            case ask.Placed() | ask.Counted() | ask.Measured():
                self.charted(report)
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
        pane.diverged = facts.diverged is not None
        pane.update()
        if facts.difference is not None:
            self.pane(DivergencePane).show(facts.difference)
        self.pane(MemoryPane).wide = facts.wide
        self.pane(TablesPane).begin(facts.tables)
        if facts.reached < facts.events:
            self.pane(StoryPane).reached = facts.reached
        if again:
            return
        if facts.reason:
            self.say(f"{facts.verdict}: {facts.reason}", "warning")
        for note in facts.notes:
            self.say(note, "warning")
        if facts.diverged is not None and self._at is None:
            self._placed = True
            self.visits = Visits(self.parting())
            if self.focus.range is not None:
                self.pane(MemoryPane).choose(*self.focus.range)
            self.say(facts.reason or "the replay diverged", "error")
        if self._placed:
            self.wanted = self.focus.mark
            self.session.post(ask.Seek(self.focus.mark, self.focus.frame))
        self._locate_effects()
        self.place_survey()
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
        if report.asked is None and report.seeks < self.session.seeks:
            return
        if report.asked is None:
            focus = self.focus.moved(mark=mark, event=snapshot.in_view, frame=0)
            if report.range is not None:
                memory, address, length = report.range
                focus = focus.moved(memory=memory, address=address, length=length)
            self.visits.go(focus, report.kind)
        else:
            difference = self.facts.difference if self.facts is not None else None
            # The event they parted at did not happen, but it is what this mark is about.
            parted = snapshot.at_end or (difference is not None and difference.mark == mark)
            diverged = self.facts is not None and self.facts.diverged is not None and parted
            event = self.focus.event if diverged else snapshot.in_view
            self.visits.settle(mark=mark, event=event, frame=snapshot.detail.level if snapshot.detail is not None else 0)
        self.wanted = mark
        if self.snapshot is None:
            self.session.post(ask.ListNames())
            if self.said == (NOT_YET, "warning"):
                self.said = None
        self.snapshot = snapshot
        self.arrange()
        self.pane(StoryPane).show(self.focus.event)
        self.pane(MemoryPane).show(snapshot, report.pages)
        self.pane(TablesPane).show(snapshot)
        if self.focus.range is not None and report.range is not None:
            self.pane(MemoryPane).choose(*self.focus.range)
        self._choose_about()
        baseline = snapshot.before if snapshot.compared else None
        self.pane(TimelinePane).baseline = None if baseline is None else baseline.clock
        self.pane(TimelinePane).show(snapshot.mark.clock, self.event_shown())
        self.show_detail(snapshot.detail)
        self._show_output()
        self._show_event()
        self._show_banner()
        if report.reason:
            self.say(report.reason)
        self.show_footer()

    def _missed(self, asked: str) -> None:
        """The focus stays with the guest, which did not come along: so what was asked for can be asked for again."""
        if asked != self.wanted or self.snapshot is None:
            return
        self.wanted = str(self.snapshot.mark)
        if asked != self.wanted:  # the guest may have come to yet another one, which nobody wanted to see any more
            self.session.post(ask.Seek(self.wanted))
        self.visits.settle(mark=self.wanted, event=self.snapshot.in_view, frame=0)
        self.pane(StoryPane).show(self.focus.event)
        self._show_event()
        self._show_banner()

    def _choose_about(self) -> None:
        """While nobody has chosen bytes: those that the event in view is about are worth a look."""
        seq = self.snapshot.event if self.snapshot is not None else None
        if self.snapshot is None or seq is None or self.focus.range is not None:
            return
        if not self.story.at_hand(seq):
            self.post_message(WantEvents(seq))
            return
        about = self.story.bytes_of(seq)
        if about is not None and about[1] + about[2] <= sum(self.snapshot.memory_sizes[about[0] : about[0] + 1]):
            self.visits.settle(memory=about[0], address=about[1], length=about[2])
            self.pane(MemoryPane).choose(*about)

    # -- showing

    def _event_text(self, seq: int) -> str | None:
        """A recorded event in words; None if it has to be read first, which is then done."""
        if not self.story.ready(seq):
            self.post_message(WantEvents(seq))
            return None
        text = self.story.text(seq)
        return text.head + (f" → {text.outcome}" if text.outcome else "")

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
        pane = self.pane(OutputPane)

        def read() -> None:
            if before != self._output_at:
                return
            try:
                chunks = self.story.output(before)
            except (TraceError, OSError) as error:
                self._reported(ask.Said(str(error), "error"))
                return
            if not self._leaving.is_set():
                self.call_later(pane.show, chunks)

        self._in_tables(read)

    def _show_event(self) -> None:
        pane = self.screen_stack[0].query_one(EventPane)
        if pane.display:
            pane.look(self.focus.event)

    def _show_stops(self, points: tuple[StopPoint, ...]) -> None:
        lines: dict[tuple[str, int], bool] = {}
        codes: dict[int, bool] = {}
        for point in sorted(points, key=lambda point: point.enabled):
            kind, _, value = point.text.partition("=")
            file, _, line = value.rpartition(":")
            if kind == "line" and line.isdigit():
                lines[file, int(line)] = point.enabled
            elif kind == "pc":
                codes[int(value, 0)] = point.enabled
        self.pane(SourcePane).stops = lines
        self.pane(CodePane).stops = codes
        self.pane(SourcePane).refresh()
        self.pane(CodePane).refresh()

    def _show_banner(self) -> None:
        manifest = self.trace.manifest
        verdict, role = "opening the time machine", "dim"
        if self.facts is not None:
            verdict = self.facts.verdict
            if self.facts.difference is not None:
                verdict = f"{verdict} at e{self.facts.difference.seq:,}"
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
        if self.facts is not None and self.facts.changed:
            left[3:3] = [(" · ", "dim"), ("files changed", "bad")]
        elif self.size.width >= NARROW:
            left[3:3] = [(" · ", "dim"), ("unsigned", "dim")]
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
        width = self.size.width
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
        for keys, name in footer(width, self.keys, doable(self._active, self.keys)):
            left += [(keys, "strong"), (f" {name}   ", "dim")]
        line.show(left)

    @property
    def _active(self) -> str:
        """The pane that keys are for; "" if none is."""
        focused = self.screen_stack[0].focused
        return (focused.id or "") if focused is not None else ""

    def on_descendant_focus(self) -> None:
        if self.screen_stack and self.screen_stack[0].is_attached:  # else the app is on its way out
            self.show_footer()

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
        if facts is not None and facts.difference is not None:
            found.append("divergence")
        if snapshot is not None and facts is not None:
            if facts.has_source:
                found.append("source")
            found += ["code", "frames"]
            if facts.memories:
                found.append("memory")
            if facts.globals or facts.tables:
                found.append("tables")
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
        # Where there is not room for both, the tables stand in the place of the frames while they are wanted.
        away = "frames" if self.detail == "tables" else "tables"
        return [name for name in available if name != away and (name not in ("source", "code") or name == main)]

    def reachable(self) -> list[str]:
        shown = self._shown()
        hidden = ("source", "code") if self.narrow else ("source", "code", "story", "output", "timeline")
        return [name for name in self._available() if name in shown or name not in hidden]

    def arrange(self) -> None:
        """Shows the panes that there is room and something for."""
        screen = self.screen_stack[0]
        width, height = self.size
        tiny = width < LEAST[0] or height < LEAST[1]
        screen.set_class(tiny, "-tiny")
        screen.set_class(self.narrow, "-narrow")
        screen.set_class(height < TALL, "-low")
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
        # In a narrow screen the output stands where the other details do, and a divergence takes the lower half of it.
        alone = self.narrow and ("output" in shown or "divergence" in shown)
        screen.query_one("#middle").display = any(name in shown for name in ("source", "code", "event"))
        screen.query_one("#right").display = any(name in shown for name in ("frames", "memory", "tables"))
        screen.query_one("#detail").display = not alone
        screen.query_one("#left").set_class(alone, "-alone")
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
