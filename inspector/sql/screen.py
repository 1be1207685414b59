"""SQL over the trace: a screen in front of the inspector's. It goes when a row was chosen, and comes back as it was left."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Final

from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Horizontal, Vertical
from textual.message import Message
from textual.screen import ModalScreen
from textual.widgets.text_area import Selection

from inspector.actions import ACTIONS as EVERYWHERE
from inspector.actions import BY_ID, footer, shown_keys
from inspector.panes.dialogs import Listing, Prompt, Reading
from inspector.panes.line import Line
from inspector.panes.rows import Piece
from inspector.sql import console as sql
from inspector.sql import export
from inspector.sql.actions import ACTIONS, bindings
from inspector.sql.cells import NULL, WHOLE
from inspector.sql.console import Console
from inspector.sql.editor import Editor
from inspector.sql.history import History
from inspector.sql.results import ResultTable, RowChosen, RowWanted, counted, duration
from inspector.sql.schema import NameChosen, SchemaPane
from replayer.watching import Watch
from traces._errors import UsageError
from traces.cli import one_line
from traces.query import Functions
from traces.tracedir import Trace

NARROW: Final = 100
"""Columns below which the tables are shown only when they are asked for."""
EXAMPLE: Final = """\
-- What crossed the boundary, how often, and first when:
-- enter on a row of the result goes there.
SELECT import, status, count(*) AS calls,
       sum(sent) AS sent, sum(received) AS received, min(seq) AS seq
FROM events
GROUP BY ALL
ORDER BY calls DESC, seq"""
_END: Final = (6, 24)
"""Where the example ends."""


@dataclass
class SqlState:
    """How the screen was left."""

    text: str = EXAMPLE
    selection: Selection = field(default_factory=lambda: Selection(_END, _END))
    result: sql.Result | None = None
    said: tuple[str, str] | None = None
    """What stood in the place of a result."""
    row: int = 0
    column: int = 0
    unfolded: set[str] = field(default_factory=lambda: {"events"})
    tables: bool | None = None
    """Whether the tables are shown; None: if there is room."""
    focus: str = "sql-editor"
    exported: str = ""
    """Where the last export went."""


class Told(Message):
    """The console has something to tell."""

    def __init__(self, report: sql.Report) -> None:
        super().__init__()
        self.report = report


class SqlScreen(ModalScreen[str | None]):
    """Its result is the mark to go to.

    Args:
        trace: open for as long as the screen is.
        functions: makes what SQL may call besides, for a watch that may raise Cancelled.
        state: how it was left; changed as it is left again.
        keys: keys by action, instead of the usual ones.
    """

    # In front of everything, as a dialog is: the keys of the panes behind must not move the guest.
    CSS_PATH = "sql.tcss"
    BINDINGS: ClassVar[list[BindingType]] = bindings("sql")
    AUTO_FOCUS = ""

    def __init__(
        self,
        trace: Trace,
        functions: Callable[[Watch], Functions],
        state: SqlState | None = None,
        keys: Mapping[str, str] | None = None,
        history: History | None = None,
    ) -> None:
        super().__init__()
        self.trace = trace
        self.state = state or SqlState()
        self.keys = keys or {}
        self.console = Console(trace.path, functions, self._told, history)
        self.said: tuple[str, str] | None = None
        """What is told in the footer, and its role."""
        self._under_way = ""
        """What runs, in words."""
        self._since = 0.0

    # -- life

    def compose(self) -> ComposeResult:
        with Horizontal(id="sql-body"):
            yield SchemaPane(self.state.unfolded)
            with Vertical(id="sql-right"):
                yield Editor(self.state.text)
                yield ResultTable()
        yield Line("sql-footer")

    def on_mount(self) -> None:
        state = self.state
        self._editor.selection = state.selection
        if state.result is not None:
            self._results.show(state.result, cursor=state.row, column=state.column)
        elif state.said is not None:
            self._results.tell(*state.said)
        else:
            run = next(action for action in ACTIONS if action.id == "sql-run")
            self._results.tell(
                f"{shown_keys(run, self.keys)[0]} runs the statement; enter on a row of the result goes there", "dim"
            )
        self._arrange()
        self.query_one(f"#{state.focus}").focus()
        self.set_interval(0.1, self._tick)
        self.console.start()
        self._show_footer()

    async def on_unmount(self) -> None:
        # A statement that runs is ended; that is not waited for here, where everything else would wait, too.
        await asyncio.to_thread(self.console.close)

    def _leave(self, mark: str | None) -> None:
        state, results = self.state, self._results
        state.text, state.selection = self._editor.text, self._editor.selection
        state.result, state.said = results.result, results.said
        state.row, state.column = results.cursor, results.column
        state.focus = (self.focused.id if self.focused is not None else None) or "sql-editor"
        self.dismiss(mark)

    @property
    def _editor(self) -> Editor:
        return self.query_one(Editor)

    @property
    def _results(self) -> ResultTable:
        return self.query_one(ResultTable)

    @property
    def _schema(self) -> SchemaPane:
        return self.query_one(SchemaPane)

    # -- what the console tells

    def _told(self, report: sql.Report) -> None:
        """In the console's thread."""
        self.post_message(Told(report))

    def on_told(self, message: Told) -> None:
        report = message.report
        if not isinstance(report, sql.Unkept | sql.Schema):
            self._under_way = ""
        match report:
            case sql.Schema():
                self._schema.show(report)
                self._editor.know(report)
            case sql.Result():
                self._results.show(report)
                if report.more:
                    self._say(f"only the first {report.table.num_rows:,} rows are kept; an export has all", "changed")
                elif report.table.num_rows:
                    self._results.focus()
            case sql.Failed(why):
                self._results.tell(one_line(why), "bad")
            case sql.Stopped(seconds):
                self._say(f"cancelled after {duration(seconds)}")
            case sql.Exported(path, rows, size):
                self._say(f"{counted(rows, 'row')}, {size:,} bytes: {one_line(str(path))}", "good")
            case sql.Unkept(why):
                self._say(one_line(why), "changed")
        self._show_footer()

    def _tick(self) -> None:
        if self._under_way:
            self._show_footer()

    # -- showing

    def _say(self, text: str, role: str = "") -> None:
        self.said = (text, role)
        self._show_footer()

    def _show_footer(self) -> None:
        line = self.query_one("#sql-footer", Line)
        cancel = next(action for action in ACTIONS if action.id == "sql-cancel")
        if self._under_way:
            what = "cancelling" if self.console.cancelling else self._under_way
            rows = f"  {self.console.rows:,} rows" if self.console.rows else ""
            left: list[Piece] = [(f" … {what}", "mark"), (f"  {time.monotonic() - self._since:.1f} s{rows}", "")]
            line.show(left, [(shown_keys(cancel, self.keys)[0], "strong"), (" cancels ", "dim")])
            return
        keys = " ".join(shown_keys(BY_ID["help"], self.keys)[-1:])
        if self.said is not None:
            line.show([(f" {self.said[0]}", self.said[1])], [(f"  {keys}", "strong"), (" help ", "dim")])
            return
        left = [(" ", "")]
        for key, name in footer(self.app.size.width, {**self.keys, "help": keys}, (*ACTIONS, BY_ID["help"])):
            left += [(key, "strong"), (f" {name}   ", "dim")]
        line.show(left)

    def _arrange(self) -> None:
        wanted = self.state.tables
        self._schema.display = self.app.size.width >= NARROW if wanted is None else wanted
        if self.focused is self._schema and not self._schema.display:
            self._editor.focus()

    def on_resize(self) -> None:
        self._arrange()
        self._show_footer()

    # -- actions

    def _free(self) -> bool:
        """Whether nothing runs; says so if something does."""
        if self._under_way:
            self._say("one statement runs already")
        return not self._under_way

    def _begin(self, what: str) -> None:
        self.said, self._under_way, self._since = None, what, time.monotonic()
        self._show_footer()

    def action_sql_run(self) -> None:
        # What was typed before this key may still be on its way to the editor: it comes first.
        self._editor.call_later(self._run)

    def _run(self) -> None:
        statement = self._editor.statement()
        if statement and self._free():
            self._begin("running")
            self.console.run(statement)

    def action_sql_cancel(self) -> None:
        if self._under_way:
            self.console.cancel()
            self._show_footer()
        elif self.said is not None:
            self.said = None
            self._show_footer()
        else:
            self._leave(None)

    def action_sql_leave(self) -> None:
        self._leave(None)

    def action_sql_schema(self) -> None:
        self.state.tables = not self._schema.display
        self._arrange()
        if self._schema.display:
            self._schema.focus()

    def action_sql_history(self) -> None:
        history = self.console.history
        known = history.read()
        if not known:
            self._say("no statement was run before")
            return

        def forget(index: int) -> None:
            try:
                history.remove(known.pop(index))
            except UsageError as error:
                self._say(one_line(str(error)), "changed")

        def chosen(index: int | None) -> None:
            if index is not None:
                self._editor.put(known[index])
                self._editor.focus()

        def rows() -> list[list[Piece]]:
            return [[(" ".join(statement.split()), "")] for statement in known]

        self.app.push_screen(Listing("earlier statements", rows, "enter takes one, delete forgets it", remove=forget), chosen)

    def action_sql_export(self) -> None:
        result = self._results.result
        if result is None:
            self._say("there is no result to export: run a statement first")
            return
        if not self._free():
            return
        warned: list[str] = []

        def check(text: str) -> str:
            try:
                path = export.target(text, self.trace.given)
            except (UsageError, OSError, ValueError, RuntimeError) as error:
                return str(error)
            if path.exists() and text not in warned:
                warned.append(text)
                return f"{path.name} exists, with {path.stat().st_size:,} bytes; enter again replaces it"
            return ""

        def answered(text: str | None) -> None:
            if text is not None and self._free():
                self.state.exported = text
                self._begin("exporting")
                self.console.export(result, Path(text).expanduser(), text in warned)

        rows = "all rows of the statement, which runs again" if result.more else counted(result.table.num_rows, "row")
        proposed = self.state.exported or f"{self.trace.given.name.removesuffix('.trace')}.csv"
        self.app.push_screen(Prompt("export", proposed, f"{rows}; the name ends in .csv, .parquet or .json", check), answered)

    def _read_row(self) -> None:
        lines: list[list[Piece]] = []
        cells = self._results.cells(WHOLE)
        wide = min(24, max(len(name) for name, _ in cells))
        for name, text in cells:
            first, *rest = [(NULL, "dim")] if text is None else [(line, "") for line in text.split("\n")]
            lines.append([(f"{name:<{wide}}  ", "name"), first])
            lines += [[(" " * (wide + 2), ""), line] for line in rest]
        self.app.push_screen(Reading(f"row {self._results.cursor + 1:,}", lines))

    def action_help(self) -> None:
        lines: list[list[Piece]] = []
        shown = [*ACTIONS, *(action for action in EVERYWHERE if action.pane == "rows" and action.id != "choose")]
        for group in dict.fromkeys(action.group for action in shown):
            lines += [[(group, "strong")]] if not lines else [[], [(group, "strong")]]
            for action in shown:
                if action.group == group:
                    keys = " ".join(shown_keys(action, self.keys))
                    lines.append([(f"  {keys:<12} ", "name"), (f"{action.label:<22} ", ""), (action.help, "dim")])
        lines += [[], [("  In a result, enter goes to the moment that the row's mark, or seq, stands for.", "")]]
        self.app.push_screen(Reading("help", lines))

    # -- what the panes say

    def on_row_chosen(self, message: RowChosen) -> None:
        if message.mark is not None:
            self._leave(message.mark)
        else:
            self._read_row()

    def on_row_wanted(self, message: RowWanted) -> None:
        cells = self._results.cells(WHOLE)
        match message.what:
            case "copy-cell":
                name, text = cells[self._results.column]
                self.app.copy_to_clipboard(_copied(text))
                self._say(f"copied {one_line(name)}")
            case "copy-row":
                self.app.copy_to_clipboard("\t".join(one_line(text or "") for _, text in cells))
                self._say(f"copied row {self._results.cursor + 1:,}")
            case _:
                self._read_row()

    def on_name_chosen(self, message: NameChosen) -> None:
        self._editor.insert_name(message.text)
        self._editor.focus()


def _copied(text: str | None) -> str:
    """A cell as it is pasted: lines and tabs stay, what would be a command to a terminal is escaped."""
    return "\n".join("\t".join(map(_escaped, line.split("\t"))) for line in (text or "").split("\n"))


def _escaped(text: str) -> str:
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
