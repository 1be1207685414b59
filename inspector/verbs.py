"""What each action does: for every row of the table in `actions` that holds everywhere, its method.

The app is built on this class; the two are apart because composing a screen and acting on a focus are different things to read.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Final, TypeVar

from textual.app import App
from textual.binding import BindingType
from textual.screen import Screen

from inspector import protocol as ask
from inspector.actions import ACTIONS, BY_ID, bindings, shown_keys
from inspector.bookmarks import Bookmark, bookmarks_file, write_bookmarks
from inspector.events.story import Story
from inspector.focus import Focus, Visits
from inspector.memory.addresses import HINT, written
from inspector.memory.search import Pattern, Wanted
from inspector.memory.values import FIND_HINT, needle
from inspector.panes.code import CodePane, SourcePane
from inspector.panes.dialogs import Listing, Prompt, Reading
from inspector.panes.event import EventDialog
from inspector.panes.memory import MemoryPane
from inspector.panes.rows import Piece, Rows
from inspector.panes.story import StoryPane
from inspector.panes.timeline import TimelinePane
from inspector.session import Session
from inspector.snapshot import Facts, FrameDetail, Snapshot, StopPoint
from traces._errors import RepriseError, UsageError
from traces.tracedir import Trace

if TYPE_CHECKING:
    from inspector.sql.screen import SqlState

P = TypeVar("P", bound=Rows)
NAMED: Final = 115
"""Columns from which the help has the actions' labels, too."""
NOT_YET: Final = "the time machine is not open yet"
TWICE: Final = 3.0
"""Seconds within which a second ctrl+c leaves."""


class Verbs(App[None]):
    """An app with a focus, a session and a story, and what can be done with them."""

    BINDINGS: ClassVar[list[BindingType]] = bindings("")

    def __init__(self, trace: Trace, keys: Mapping[str, str], session: Session) -> None:
        super().__init__()
        self.trace = trace
        self.story = Story(trace)
        self.keys = dict(keys)
        """Keys by action, instead of the usual ones."""
        self.session = session
        self.visits = Visits()
        self.facts: Facts | None = None
        """None until the machine is open."""
        self.snapshot: Snapshot | None = None
        """None until the guest was seen."""
        self.refused = ""
        """Why there is no machine."""
        self.by = "line"
        """Granularity of steps: "line" or "instruction"."""
        self.needle: Wanted = b""
        self.names: tuple[str, ...] = ()
        """What can be given as an address, besides variables of frames."""
        self.bookmarks: list[Bookmark] = []
        self.unkept = ""
        """Why bookmarks are not kept: what is in their place cannot be read, and is not overwritten."""
        self.detail = "source"
        """The pane beside the story where there is room for one."""
        self.wanted: str | None = None
        """The mark that was asked for last."""
        self.said: tuple[str, str] | None = None
        """What is told in the footer, and how grave it is."""
        self.shown_detail: FrameDetail | None = None
        self._interrupted = -TWICE
        self._sql: SqlState | None = None
        """The SQL view as it was left."""

    # -- of the app

    @property
    def focus(self) -> Focus:
        return self.visits.now

    def pane(self, kind: type[P]) -> P:
        """The pane of a kind, whatever stands in front of it."""
        return self.screen_stack[0].query_one(kind)

    def move(self, focus: Focus, kind: str = "") -> None:
        """Moves the focus, and the guest with it if it is somewhere else."""
        raise NotImplementedError

    def follow(self, before: Focus) -> None:
        """What follows from the focus having moved."""
        raise NotImplementedError

    def say(self, text: str, severity: str = "information") -> None:
        """One line for the user, in the footer until something else happens."""
        raise NotImplementedError

    def activate(self, name: str) -> None:
        """Makes a pane active, and visible."""
        raise NotImplementedError

    def arrange(self) -> None:
        """Shows the panes that there is room and something for."""
        raise NotImplementedError

    def show_footer(self) -> None:
        raise NotImplementedError

    def show_detail(self, detail: FrameDetail | None) -> None:
        raise NotImplementedError

    def reachable(self) -> list[str]:
        """The panes that `tab` goes through."""
        raise NotImplementedError

    # -- actions: views

    def _turn_pane(self, by: int) -> None:
        if len(self.screen_stack) > 1:
            return
        names = self.reachable()
        focused = self.focused.id if self.focused is not None else None
        at = names.index(focused) if focused in names else 0
        self.activate(names[(at + by) % len(names)])

    def action_next_pane(self) -> None:
        self._turn_pane(1)

    def action_previous_pane(self) -> None:
        self._turn_pane(-1)

    def action_granularity(self) -> None:
        self.by = "instruction" if self.by == "line" else "line"
        if self.detail in ("source", "code"):
            self.detail = "source"
        if self.snapshot is not None:
            self.show_detail(self.shown_detail)
        self.arrange()
        self.say(f"steps go by {self.by}")

    def action_visit_back(self) -> None:
        before = self.focus
        if self.visits.back() is None:
            self.say("nothing before this")
        else:
            self.said = None
            self.follow(before)

    def action_visit_forward(self) -> None:
        before = self.focus
        if self.visits.forward() is None:
            self.say("nothing behind this")
        else:
            self.said = None
            self.follow(before)

    def action_fold(self) -> None:
        if not self.pane(StoryPane).run_fold():
            self.say("this event is not part of a run")

    def action_expand_event(self) -> None:
        seq = self.focus.event
        if self.story.events:
            self.push_screen(EventDialog(self.story, seq))

    def action_sql(self) -> None:
        from inspector.sql.screen import SqlScreen, SqlState
        from replayer.views import functions

        def chosen(mark: str | None) -> None:
            if mark is not None:
                self.move(self.focus.moved(mark=mark, frame=0))

        if self._sql is None:
            self._sql = SqlState()
        self.push_screen(SqlScreen(self.trace, partial(functions, self.trace.path), self._sql, self.keys), chosen)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        # A screen in front has a tab of its own.
        return not (action in ("next_pane", "previous_pane") and len(self.screen_stack) > 1)

    def action_help(self) -> None:
        name = self.focused.id if self.focused is not None else ""
        lines: list[list[Piece]] = []
        groups = dict.fromkeys(action.group for action in ACTIONS if not action.pane)
        order = [
            *((action.group, action.pane) for action in ACTIONS if action.pane == name),
            *(("In a pane", "rows") if group == "" else (group, "") for group in [*groups, ""]),
        ]
        for group, pane in dict.fromkeys(order):
            lines += [[(group, "strong")]] if not lines else [[], [(group, "strong")]]
            for action in ACTIONS:
                if action.group == group and action.pane == pane:
                    keys = " ".join(shown_keys(action, self.keys))
                    # Where there is not room for both, the sentence says more than the label.
                    label = f"{action.label:<22} " if self.size.width >= NAMED else ""
                    lines.append([(f"  {keys:<11} ", "name"), (label, ""), (action.help, "dim" if label else "")])
        self.push_screen(Reading("help", lines))

    def action_palette(self) -> None:
        self.action_command_palette()

    def get_system_commands(self, screen: Screen[Any]) -> Iterable[Any]:
        return ()

    # -- actions: motion

    def _machine_ready(self) -> bool:
        if self.snapshot is None:
            self.say(self.refused or NOT_YET, "warning")
        return self.snapshot is not None

    def _motion(self, request: ask.Request) -> None:
        if self._machine_ready():
            self.said = None
            self.session.post(request)
            self.show_footer()

    def _step(self, how: str, reverse: bool) -> None:
        self._motion(ask.Step(how, reverse, self.by))

    def action_step_in(self) -> None:
        self._step("in", False)

    def action_step_over(self) -> None:
        self._step("over", False)

    def action_step_out(self) -> None:
        self._step("out", False)

    def action_continue(self) -> None:
        self._motion(ask.Run())

    def action_back_in(self) -> None:
        self._step("in", True)

    def action_back_over(self) -> None:
        self._step("over", True)

    def action_back_out(self) -> None:
        self._step("out", True)

    def action_back_continue(self) -> None:
        self._motion(ask.Run(reverse=True))

    def action_cancel(self) -> None:
        if not self.session.cancel():
            self.said = None
            self.pane(MemoryPane).highlight(b"")
            self.show_footer()

    def action_interrupt(self) -> None:
        now = time.monotonic()
        if self.session.cancel():
            return
        if now - self._interrupted < TWICE:
            self.exit()
        self._interrupted = now
        leave = shown_keys(BY_ID["quit"], self.keys)[0]
        self.say(f"nothing runs that could be interrupted; {leave}, or ctrl+c once more, leaves")

    def _turn_event(self, by: int) -> None:
        if not self.story.rows:
            return
        at = self.story.row_of(self.focus.event) + by
        # Between two events, the one before is in view: it is not here that it happens.
        if by < 0 and self.snapshot is not None and self.snapshot.event is None and self.wanted == self.focus.mark:
            at += 1 if self.snapshot.events else 0
        elif by < 0 and self.story.filter is not None and self.story.row(at - by).seq < self.focus.event:
            at += 1  # a filter hides the event in view, and the row stands for what is shown before it
        if not 0 <= at < self.story.rows:
            self.say("this is the first event" if by < 0 else "this is the last event")
            return
        seq = self.story.row(at).seq
        self.pane(StoryPane).place(at)
        self.move(self.focus.moved(mark=f"e{seq}", event=seq, frame=0), "event")

    def action_event_previous(self) -> None:
        self._turn_event(-1)

    def action_event_next(self) -> None:
        self._turn_event(1)

    def _turn_effect(self, reverse: bool) -> None:
        seq = self.story.next_effect(self.focus.event, reverse)
        if seq is None:
            self.say(f"nothing outside was changed {'before' if reverse else 'after'} this")
        else:
            self.move(self.focus.moved(mark=f"e{seq}", event=seq, frame=0))

    def action_effect_previous(self) -> None:
        self._turn_effect(True)

    def action_effect_next(self) -> None:
        self._turn_effect(False)

    def action_problem(self) -> None:
        if self.facts is not None and self.facts.diverged is not None:
            self.move(self.parting())
            self.activate("divergence")
            self.say(self.facts.reason or "the replay diverged here", "error")
            return
        trap = self.story.trap()
        if trap is None:
            self.say("the replay did not diverge, and the guest was not stopped")
        else:
            self.move(self.focus.moved(mark=f"e{trap}", event=trap, frame=0))

    def parting(self) -> Focus:
        """Where the replay left its recording: the guest as it stood then, and the bytes that differ."""
        facts = self.facts
        assert facts is not None and facts.diverged is not None
        focus = Focus("end", min(facts.diverged, max(0, facts.events - 1)))
        difference = facts.difference
        if difference is None:
            return focus
        memory, address, length = difference.looked_at or (0, None, 1)
        return focus.moved(mark=difference.mark, memory=memory, address=address, length=length)

    def action_goto_mark(self) -> None:
        def answered(text: str | None) -> None:
            if text is not None and self._machine_ready():
                self.move(self.focus.moved(mark=text, frame=0))

        self.push_screen(Prompt("go to a mark", hint="1204331, e29, e29+, start or end"), answered)

    # -- actions: bytes

    def _chosen(self) -> tuple[int, int, int] | None:
        if self.focus.range is None:
            self.say("choose bytes first: in the memory pane, a variable, or with g", "warning")
        return self.focus.range

    def action_last_change(self) -> None:
        chosen = self._chosen()
        if chosen is not None:
            self._motion(ask.LastChange(*chosen))

    def action_who_wrote(self) -> None:
        chosen = self._chosen()
        if chosen is not None:
            self._motion(ask.WhoWrote(*chosen))

    def action_goto_address(self) -> None:
        if not self._machine_ready() or not self._has_memory():
            return

        def answered(text: str | None) -> None:
            if text is not None:
                self.session.post(ask.FindAddress(text, self.focus.memory, self.focus.frame))

        values = self.shown_detail.values if self.shown_detail is not None else ()
        known = dict.fromkeys([*(value.name for value in values if value.address is not None), *self.names])
        self.push_screen(Prompt("go to an address", hint=HINT, check=self._wrong_address, known=list(known)), answered)

    def _wrong_address(self, text: str) -> str:
        """What is wrong with an address, as far as that can be said without looking at the guest."""
        sizes = self.snapshot.memory_sizes if self.snapshot is not None else ()
        try:
            written(text, self.focus.memory, sizes)
        except UsageError as error:
            return str(error)
        return ""

    def _has_memory(self) -> bool:
        if self.facts is not None and not self.facts.memories:
            self.say("the module has no memory")
            return False
        return True

    def action_memory_next(self) -> None:
        if self._machine_ready() and self._has_memory():
            self.pane(MemoryPane).action_memory_next()
            self.activate("memory")

    def action_compare(self) -> None:
        if self.snapshot is not None and self.snapshot.compared:
            self._motion(ask.Compare(None))
        else:
            self._motion(ask.Compare(self.focus.mark))

    def action_change_next(self) -> None:
        self._change(False)

    def action_change_previous(self) -> None:
        self._change(True)

    def _change(self, reverse: bool) -> None:
        if self._has_memory():
            self._motion(ask.NextChange(self.focus.memory, self.focus.address, reverse))

    def action_find(self) -> None:
        if not self._machine_ready() or not self._has_memory():
            return

        def check(text: str) -> str:
            try:
                needle(text)
            except RepriseError as error:
                return str(error)
            return ""

        def answered(text: str | None) -> None:
            if text is not None:
                self.needle = needle(text)
                self.pane(MemoryPane).highlight(self.needle)
                self._find(False, from_here=True)

        self.push_screen(Prompt("find in memory", hint=FIND_HINT, check=check), answered)

    def _find(self, reverse: bool, from_here: bool = False) -> None:
        if not self.needle:
            self.action_find()
            return
        at = self.focus.address
        if at is None:
            at = self.snapshot.memory_sizes[self.focus.memory] if reverse and self.snapshot is not None else 0
        elif not reverse and not from_here:
            at += self.focus.length if isinstance(self.needle, Pattern) else 1
        self._motion(ask.FindBytes(self.needle, self.focus.memory, at, reverse))

    def action_find_next(self) -> None:
        self._find(False)

    def action_find_previous(self) -> None:
        self._find(True)

    # -- actions: stops

    def action_break(self) -> None:
        if not self._machine_ready():
            return
        place = ""
        if isinstance(self.focused, SourcePane | CodePane):
            place = self.focused.place_text() or ""
        known = [f"import={entry.qualified}" for entry in self.trace.manifest.imports] if self.trace.manifest.imports else []
        hint = "func=NAME, line=FILE:LINE, import=NAME or pc=0x1a2b; then, if you like, ` if CONDITION`"
        self.push_screen(Prompt("breakpoint", place, hint, known=known), partial(self._add_stop, False))

    def action_watch(self) -> None:
        if not self._machine_ready():
            return
        chosen = self.focus.range
        text = "" if chosen is None else f"{f'{chosen[0]}/' if chosen[0] else ''}{chosen[1]:#x}:{chosen[2]}"
        hint = "ADDRESS:LENGTH, M/ADDRESS:LENGTH or global=N; then, if you like, ` if CONDITION`"
        self.push_screen(Prompt("watchpoint", text, hint), partial(self._add_stop, True))

    def _add_stop(self, watches: bool, text: str | None) -> None:
        if text:
            place, _, condition = text.partition(" if ")
            self.session.post(ask.AddStop(StopPoint(place.strip(), watches, condition.strip() or None)))

    def action_stops(self) -> None:
        if not self.session.points:
            self.say("no break- or watchpoints; b and W set them")
            return

        def rows() -> list[list[Piece]]:
            return [
                [("● " if point.enabled else "○ ", "bad" if point.enabled else "dim"),
                 (point.describe(), "" if point.enabled else "dim")]
                for point in self.session.points
            ]  # fmt: skip

        def toggle(at: int) -> None:
            points = list(self.session.points)
            points[at] = StopPoint(points[at].text, points[at].watches, points[at].condition, not points[at].enabled)
            self.session.set_points(points)

        def remove(at: int) -> None:
            self.session.set_points([point for i, point in enumerate(self.session.points) if i != at])

        self.push_screen(Listing("stops", rows, "space switches, d removes, esc closes", toggle, remove))

    # -- actions: bookmarks

    def action_bookmark(self) -> None:
        focus = self.focus
        head = self.snapshot.frames[0] if self.snapshot is not None and self.snapshot.frames else None
        name = f"e{focus.event}" + (f"  {head.name} {head.where}" if head is not None else "")
        self.bookmarks = [one for one in self.bookmarks if one.mark != focus.mark]
        self.bookmarks.append(Bookmark(focus.mark, focus.event, name, focus.address, focus.length, focus.memory))
        self._keep_bookmarks(f"bookmarked, in {bookmarks_file(self.trace.given).name}")

    def _keep_bookmarks(self, done: str) -> None:
        try:
            if self.unkept:
                raise UsageError(f"not kept: {self.unkept}")
            write_bookmarks(self.trace.given, self.bookmarks)
        except UsageError as error:
            self.say(str(error), "warning")
        else:
            self.say(done)
        pane = self.pane(TimelinePane)
        pane.bookmarks = [int(one.mark.partition(".")[0]) for one in self.bookmarks if one.mark[:1].isdigit()]
        pane.update()

    def action_bookmarks(self) -> None:
        if not self.bookmarks:
            self.say("no bookmarks; m sets one")
            return

        def rows() -> list[list[Piece]]:
            return [[(f"{one.mark:>12}  ", "dim"), (one.name, "")] for one in self.bookmarks]

        def remove(at: int) -> None:
            del self.bookmarks[at]
            self._keep_bookmarks("removed")

        def chosen(at: int | None) -> None:
            if at is not None:
                one = self.bookmarks[at]
                self.move(Focus(one.mark, one.event, 0, one.address, one.length, one.memory))

        self.push_screen(Listing("bookmarks", rows, "enter goes there, d removes, esc closes", remove=remove), chosen)
