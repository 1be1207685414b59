"""The store browser: the runs of a directory in one table. Chooses, verifies, and hands an open run to the inspector.

Reading the directory, opening and verifying happen in threads, and are told by messages; here is the list that is shown.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Final

from textual.app import App, ComposeResult
from textual.binding import BindingType
from textual.containers import Horizontal, Vertical
from textual.message import Message
from textual.screen import Screen
from textual.widgets import Input, Static

from inspector.actions import ACTIONS as EVERYWHERE
from inspector.actions import BROWSER as ACTIONS
from inspector.actions import footer, shown_keys
from inspector.leaving import heed_signals
from inspector.panes.dialogs import Reading
from inspector.panes.line import Line
from inspector.panes.rows import Piece
from inspector.panes.runs import FilterInput, Headings, RunsTable, SortBy
from inspector.panes.texts import TextPane
from inspector.runs.listing import COLUMNS, counted, details, fitting
from inspector.runs.run import PACKED, RUNNING, UNFINISHED, Run
from inspector.runs.shelf import Shelf
from inspector.runs.store import Opened, Portion, open_run
from inspector.runs.verifier import Verified, Verifier, Verifying
from inspector.themes import theme_for
from traces._errors import RepriseError, UsageError
from traces.cli import one_line

LOOK_EVERY: Final = 2.0
"""Seconds between two looks at the directory; more where a look takes long."""
SHARE: Final = 20
"""A look may take one part in so many of the time."""
TALL: Final = 30
"""Rows from which the chosen run's details stand below the list."""
WIDE: Final = 170
"""Columns from which they stand beside it."""

_ACTION: Final = {action.id: action for action in ACTIONS}
_MOVES: Final = tuple(action for action in EVERYWHERE if action.pane == "rows" and action.id != "choose")


# -- what threads and widgets tell ---------------------------------------------------------------------------------------


class Scanned(Message):
    def __init__(self, portion: Portion) -> None:
        super().__init__()
        self.portion = portion


class ScanEnded(Message):
    def __init__(self, seconds: float, why: str = "") -> None:
        super().__init__()
        self.seconds, self.why = seconds, why


class OpeningEnded(Message):
    """A run was opened, or `why` it was not."""

    def __init__(self, ticket: int, opened: Opened | None, why: str = "") -> None:
        super().__init__()
        self.ticket, self.opened, self.why = ticket, opened, why


class Told(Message):
    """The verifier has something to tell."""

    def __init__(self, report: Verifying | Verified) -> None:
        super().__init__()
        self.report = report


# -- the application -----------------------------------------------------------------------------------------------------


class Browser(App[Opened]):
    """The runs of a directory.

    Args:
        shelf: what is shown, and what was found out; the same object shows the same again.
        keymap: keys by action, instead of the usual ones.
        theme: of Textual's; None chooses by what the terminal can do.
        trouble: told at once, because something went wrong elsewhere.
        opener: opens a run; tests put another one in its place.
    """

    CSS_PATH = "../app.tcss"
    CSS = """
    #shelf { height: 1fr; }
    #list { height: 1fr; width: 1fr; border: round $foreground 40%; border-subtitle-color: $foreground 60%; }
    #list:focus-within { border: round $text-accent; border-title-color: $text-accent; border-title-style: bold; }
    .-ansi #list { border: round ansi_bright_black; border-subtitle-color: ansi_bright_black; }
    .-ansi #list:focus-within { border: round ansi_cyan; border-title-color: ansi_cyan; }
    #list #runs, #list #runs:focus { border: none; height: 1fr; }
    #headings { height: 1; }
    #details { height: 13; display: none; padding: 0 1; }
    .-tall #details { display: block; }
    .-wide #shelf { layout: horizontal; }
    .-wide #details { display: block; height: 1fr; width: 64; }
    #search { height: 1; display: none; }
    #search.-open { display: block; }
    #search Static { width: 8; padding: 0 1; color: $foreground 60%; }
    #filter, #filter:focus { border: none; height: 1; padding: 0; background: $background; }
    """
    ENABLE_COMMAND_PALETTE = False
    TITLE = "reprise"
    # What follows the filter's key may be there already, and is for the filter: so that key is looked at before all others.
    BINDINGS: ClassVar[list[BindingType]] = [
        replace(action.binding(), priority=action.id in ("filter", "next-pane")) for action in ACTIONS if not action.pane
    ]

    def __init__(
        self,
        shelf: Shelf,
        *,
        keymap: Mapping[str, str] | None = None,
        theme: str | None = None,
        trouble: str = "",
        opener: Callable[[Path], Opened] = open_run,
    ) -> None:
        super().__init__()
        self.shelf, self.view = shelf, shelf.view
        ours = {action.id for action in (*ACTIONS, *_MOVES)}
        self.keys = {id: keys for id, keys in (keymap or {}).items() if id in ours}
        self.table = RunsTable()
        self.said: tuple[str, str] | None = (trouble, "bad") if trouble else None
        """What is told in the footer, and its role."""
        self._theme = theme if theme is not None else theme_for(os.environ)
        self._open = opener
        self._leaving = threading.Event()
        self._scanning = False
        self._reading: tuple[int, int] | None = None
        """Runs read, of how many, while a scan takes long enough to tell."""
        self._next_look = 0.0
        self._again = False
        self._ticket = 0
        self._opening: Run | None = None
        self._verifier = Verifier(self._told)
        self._verifying = Verifying(None)
        self._came_to: list[str] = []
        """The verdicts since it was asked to verify."""
        self._since = 0.0
        """When what is under way began."""

    # -- life

    def compose(self) -> ComposeResult:
        yield Line("banner")
        with Vertical(id="shelf"):
            with Vertical(id="list"):
                yield Headings(self.view)
                yield self.table
            yield TextPane("details")
        with Horizontal(id="search"):
            yield Static("filter", markup=False)
            yield FilterInput(self.view.filter, placeholder="words in any column", id="filter")
        yield Line("footer")

    def on_mount(self) -> None:
        if self._theme not in self.available_themes:
            self.exit(return_code=64, message=f"reprise: there is no theme {self._theme!r}")
            return
        self.theme = self._theme
        self.set_class(self._theme.startswith("ansi"), "-ansi")
        self.set_keymap(self.keys)
        self.table.focus()
        self._show_filter()
        self._fill()
        self.table.place(self.table.cursor, top=self.view.top)
        self._look()
        self.set_interval(0.5, self._tick)
        heed_signals(self)

    def on_unmount(self) -> None:
        self.view.top = self.table.top
        self._leaving.set()
        self._verifier.close()

    def _tell(self, message: Message) -> None:
        """In a thread."""
        if not self._leaving.is_set():
            self.post_message(message)

    # -- looking at the directory

    def _tick(self) -> None:
        if self._busy():
            self.show_footer()  # it tells the seconds
        if time.monotonic() >= self._next_look and not self._scanning:
            self._look()

    def _look(self, anew: bool = False) -> None:
        self._scanning, self._again = True, anew
        # A copy: while the thread compares, what it finds is taken here.
        threading.Thread(target=self._scan, args=(dict(self.shelf.runs), anew), name="reprise-store", daemon=True).start()

    def _scan(self, known: Mapping[Path, Run], anew: bool) -> None:
        """In a thread."""
        began = time.monotonic()
        why = ""
        try:
            for portion in self.shelf.store.scan(known, anew, self._leaving.is_set):
                self._tell(Scanned(portion))
        except UsageError as error:
            why = str(error)
        except Exception as error:  # whatever it is, the list must not wait for this scan for ever
            why = f"unexpected {type(error).__name__}: {one_line(str(error))}"
        self._tell(ScanEnded(time.monotonic() - began, why))

    def on_scanned(self, message: Scanned) -> None:
        portion = message.portion
        self._reading = (portion.read, portion.total) if portion.read < portion.total else None
        if portion.runs or portion.gone:
            self.shelf.take(portion)
            self._fill()
        else:
            self._show_banner()

    def on_scan_ended(self, message: ScanEnded) -> None:
        self._scanning, self._reading = False, None
        self._next_look = time.monotonic() + max(LOOK_EVERY, SHARE * message.seconds)
        if message.why:
            self.say(message.why, "bad")
        elif self._again:
            self.say(f"read again: {len(self.shelf.runs):,} runs")
        self._show_banner()

    # -- showing

    def _fill(self) -> None:
        """The runs as the view wants them; the cursor stays on its run."""
        table, view = self.table, self.view
        table.runs = view.rows(self.shelf.runs)
        if view.chosen is None:
            table.update()
        else:
            at = next((index for index, run in enumerate(table.runs) if run.path == view.chosen), table.cursor)
            if at != table.cursor:
                table.place(at)
            else:
                table.update()
        self._show_banner()
        self._show_details()

    def _show_banner(self) -> None:
        if not self.table.is_attached:
            return
        total, shown = len(self.shelf.runs), self.table.count()
        directory = one_line(str(self.shelf.store.directory))
        right: list[Piece] = [("  ", ""), *counted(self.shelf.runs.values()), (" ", "")]
        if self._reading is not None:
            right = [(f"  reading {self._reading[0]:,} of {self._reading[1]:,} · ", "mark"), *right[1:]]
        self._line("banner").show([(" reprise ", "strong"), (f" {directory}", "name")], right)
        box = self._base.query_one("#list")
        box.border_title = "runs"
        box.border_subtitle = f"{shown:,} of {total:,}" if self.view.filter else ""
        self._base.query_one(Headings).refresh()

    def _show_details(self) -> None:
        if not self.table.is_attached:
            return
        pane = self._base.query_one("#details", TextPane)
        if pane.display and pane.size.width:
            run = self.table.chosen
            lines = details(run, pane.size.width) if run is not None else []
            if run is None or pane.heading != run.name:
                pane.show(run.name if run is not None else "", lines)
            else:
                pane.lines = lines
                pane.update()

    def show_footer(self) -> None:
        if not self.table.is_attached:  # the app is on its way out; the same above
            return
        line = self._line("footer")
        busy = self._busy()
        if busy:
            cancel = shown_keys(_ACTION["cancel"], self.keys)[0]
            said: list[Piece] = [("  ", ""), self.said] if self.said is not None else []
            line.show([(f" … {busy}", "mark"), *said], [("  ", ""), (cancel, "strong"), (" cancels ", "dim")])
            return
        if self._base.query_one("#filter").has_focus:
            line.show([(" enter", "strong"), (" keeps it   ", "dim"), ("esc", "strong"), (" shows all", "dim")])
            return
        if self.said is not None:
            line.show([(f" {self.said[0]}", self.said[1])], [("  ? ", "strong"), ("help ", "dim")])
            return
        left: list[Piece] = [(" ", "")]
        for keys, name in footer(line.size.width or self.size.width, self.keys, ACTIONS):
            left += [(keys, "strong"), (f" {name}   ", "dim")]
        line.show(left)

    def _busy(self) -> str:
        seconds = int(time.monotonic() - self._since)
        took = f"  {seconds} s" if seconds > 1 else ""
        if self._opening is not None:
            how = {UNFINISHED: "reading the journal of", PACKED: "unpacking"}.get(self._opening.state, "opening")
            return f"{how} {self._opening.name}{took}"
        at = self._verifying
        if at.path is not None:
            return f"verifying {one_line(at.path.name)}" + (f"  {at.number:,} of {at.total:,}" if at.total > 1 else "") + took
        return ""

    def say(self, text: str, role: str = "") -> None:
        """One line for the user, in the footer until something else happens."""
        self.said = (text, role)
        self.show_footer()

    def _line(self, id: str) -> Line:
        return self._base.query_one(f"#{id}", Line)

    @property
    def _base(self) -> Screen[Any]:
        """The list's screen, whatever stands in front of it."""
        return self.screen_stack[0]

    def on_resize(self) -> None:
        self.call_later(self._arrange)

    def _arrange(self) -> None:
        width, height = self.size
        screen = self._base
        screen.set_class(width >= WIDE, "-wide")
        screen.set_class(width < WIDE and height >= TALL, "-tall")
        self.call_after_refresh(self._show_details)
        self.call_after_refresh(self.show_footer)

    # -- what widgets tell

    def on_descendant_focus(self) -> None:
        self.show_footer()

    def on_cursor_moved(self) -> None:
        run = self.table.chosen
        self.view.chosen = run.path if run is not None else None
        self.said = None
        self._show_details()
        self.show_footer()

    def on_sort_by(self, message: SortBy) -> None:
        if message.column == self.view.column:
            self.action_reverse()
        else:
            self.view.column, self.view.reverse = message.column, False
            self._fill()

    def on_input_changed(self, event: Input.Changed) -> None:
        self.view.filter = event.value.strip()
        self._fill()

    # -- actions

    def on_open_chosen(self) -> None:
        run = self.table.chosen
        if run is None or self._opening is not None:
            return
        self.view.chosen = run.path
        self._ticket += 1
        self._opening, self._since, self.said = run, time.monotonic(), None
        self.show_footer()
        threading.Thread(target=self._open_in_thread, args=(self._ticket, run.path), name="reprise-open", daemon=True).start()

    def _open_in_thread(self, ticket: int, path: Path) -> None:
        try:
            opened = self._open(path)
        except (RepriseError, OSError) as error:
            self._tell(OpeningEnded(ticket, None, str(error).removeprefix(f"{path.parent}/")))
            return
        except Exception as error:  # nor for this opening
            self._tell(OpeningEnded(ticket, None, f"unexpected {type(error).__name__}: {one_line(str(error))}"))
            return
        if self._leaving.is_set():
            opened.close()
        else:
            self.post_message(OpeningEnded(ticket, opened))

    def on_opening_ended(self, message: OpeningEnded) -> None:
        if message.ticket != self._ticket or self._opening is None:  # it was cancelled
            if message.opened is not None:
                threading.Thread(target=message.opened.close, daemon=True).start()
            return
        self._opening = None
        if message.opened is not None:
            self.exit(message.opened)
        else:
            self.say(message.why, "bad")

    def action_filter(self) -> None:
        self._base.query_one("#search").add_class("-open")
        self._base.set_focus(self._base.query_one("#filter"))

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """In the filter, its key is a letter like any other."""
        return action != "filter" or not isinstance(self.focused, FilterInput)

    def action_leave_filter(self) -> None:
        self._base.set_focus(self.table)
        self._show_filter()

    def _show_filter(self) -> None:
        """The line is there while it says something."""
        self._base.query_one("#search").set_class(bool(self.view.filter), "-open")

    def action_sort(self) -> None:
        names = [column.id for column, _ in fitting(self.table.size.width - 1)] or [column.id for column in COLUMNS]
        at = names.index(self.view.column) if self.view.column in names else -1
        self.on_sort_by(SortBy(names[(at + 1) % len(names)]))

    def action_reverse(self) -> None:
        self.view.reverse = not self.view.reverse
        self._fill()

    def _told(self, report: Verifying | Verified) -> None:
        """In the verifier's thread."""
        self._tell(Told(report))

    def on_told(self, message: Told) -> None:
        match message.report:
            case Verifying() as at:
                if at.path is None and len(self._came_to) > 1:
                    each = ", ".join(f"{self._came_to.count(kind):,} {kind}" for kind in dict.fromkeys(self._came_to))
                    self.said = (f"verified {len(self._came_to):,}: {each}", "")
                if at.path is None:
                    self._came_to.clear()
                self._verifying, self._since = at, time.monotonic()
                self.table.verifying = at.path
                self.table.refresh()
            case Verified(path, None, why):
                self.said = (f"{one_line(path.name)}: {why}", "bad")
            case Verified(path, finding, _) if finding is not None:
                self.shelf.found(path, finding)
                self._came_to.append(finding.kind)
                self.said = (f"{one_line(path.name)}  {finding.headline}", "good" if finding.kind == "identical" else "bad")
                self._fill()
        self.show_footer()

    def _verify(self, runs: list[Run]) -> None:
        able = [run.path for run in runs if run.state not in (RUNNING, PACKED)]
        if not able:
            run = runs[0] if len(runs) == 1 else None
            self.say("there is nothing to verify here" if run is None
                     else f"{run.name} is still being recorded" if run.state == RUNNING
                     else f"{run.name} is packed; `reprise unpack` it to verify it", "changed")  # fmt: skip
            return
        self.said = None
        self._verifier.add(able)

    def action_verify(self) -> None:
        run = self.table.chosen
        if run is not None:
            self._verify([run])

    def action_verify_shown(self) -> None:
        self._verify(self.table.runs)

    def action_cancel(self) -> None:
        self.said = None
        box = self._base.query_one("#filter", Input)
        if self._opening is not None:
            self._opening = None
        elif not box.has_focus and self._verifier.cancel():
            self.said = ("cancelled", "")
        else:
            self.view.filter = box.value = ""
            self._fill()
            self.action_leave_filter()
        self.show_footer()

    def action_interrupt(self) -> None:
        if self._busy():
            self.action_cancel()
        else:
            self.say(f"{shown_keys(_ACTION['quit'], self.keys)[0]} leaves")

    def action_details(self) -> None:
        run = self.table.chosen
        if run is not None:
            self.push_screen(Reading(run.name, details(run, min(96, int(self.size.width * 0.95) - 4))))

    def action_copy(self) -> None:
        run = self.table.chosen
        if run is not None:
            path = os.path.abspath(run.path)
            try:
                self.copy_to_clipboard(path)
            except UnicodeEncodeError:
                self.say(f"{one_line(path)} is not text, and cannot be copied", "changed")
            else:
                self.say(f"copied {one_line(path)}")

    def action_rescan(self) -> None:
        if not self._scanning:
            self._look(anew=True)

    def action_next_pane(self) -> None:
        if len(self.screen_stack) == 1:
            pane = self._base.query_one("#details", TextPane)
            self._base.set_focus(pane if pane.display and self.focused is self.table else self.table)
            self._show_filter()

    def action_help(self) -> None:
        lines: list[list[Piece]] = []
        for title, actions in (("Runs", ACTIONS), ("In a list", _MOVES)):
            lines += [[(title, "strong")]] if not lines else [[], [(title, "strong")]]
            for action in actions:
                keys = " ".join(shown_keys(action, self.keys))
                lines.append([(f"  {keys:<12} ", "name"), (f"{action.label:<14} ", ""), (action.help, "dim")])
        self.push_screen(Reading("help", lines))
