"""Everything the inspector can be told to do: one table. Bindings, footer, palette, help and keymap files all come from it.

An action's method in the app, or in a pane, is `action_` and its id with underscores. A keymap file (TOML or JSON) maps ids to
keys: `step-over = "f10"`.
"""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from textual.binding import Binding, BindingType

from traces._errors import UsageError


@dataclass(frozen=True)
class Action:
    """One thing to do."""

    id: str
    key: str
    """Default keys, separated by commas, as Textual names them."""
    label: str
    """A few words: palette and help."""
    help: str
    """One sentence."""
    group: str
    """Heading in the help."""
    family: str = ""
    """Actions of one family share a place in the footer, under this name; "" is not in the footer."""
    pane: str = ""
    """Only while this pane is active: "rows" (any table), or its name; "" anywhere."""

    @property
    def method(self) -> str:
        return self.id.replace("-", "_")

    def binding(self) -> Binding:
        # Screens have a tab of their own, which knows nothing of panes that are out of sight.
        priority = self.id in ("next-pane", "previous-pane")
        return Binding(self.key, self.method, self.label, show=False, priority=priority, tooltip=self.help, id=self.id)


ACTIONS: Final = (
    Action("event-previous", "comma", "previous event", "Go to the event in the row above.", "Motion", "event"),
    Action("event-next", "full_stop", "next event", "Go to the event in the row below.", "Motion", "event"),
    Action("step-in", "s", "step in", "Go to the next line, or instruction, into calls.", "Motion", "step"),
    Action("step-over", "n", "step over", "Go to the next line of this function, over calls.", "Motion", "step"),
    Action("step-out", "o", "step out", "Run until this function has returned.", "Motion", "step"),
    Action("continue", "c", "continue", "Run to the next break- or watchpoint, or to the end.", "Motion", "step"),
    Action("back-in", "S,shift+s", "step in, backward", "Go to the line executed before, into calls.", "Motion", "back"),
    Action("back-over", "N,shift+n", "step over, backward", "Go to the line before in this function.", "Motion", "back"),
    Action("back-out", "O,shift+o", "step out, backward", "Go back to where this function was called.", "Motion", "back"),
    Action("back-continue", "C,shift+c", "continue backward", "Run back to the stop before, or to the start.", "Motion", "back"),
    Action("granularity", "i", "lines or instructions", "Step by source line, or by instruction.", "Motion"),
    Action("cancel", "escape", "cancel", "End what runs.", "Motion"),
    Action("effect-previous", "left_curly_bracket", "previous effect", "Go back to what last changed the outside.", "Motion"),
    Action("effect-next", "right_curly_bracket", "next effect", "Go to what next changes something outside.", "Motion"),
    Action("problem", "exclamation_mark", "what went wrong", "Go to the divergence, the trap, or the stop.", "Motion"),
    Action("problem-next", "x", "next failed call", "Go to the next call that was denied or failed.", "Motion"),
    Action("problem-previous", "X,shift+x", "failed call before", "Go back to one that was denied or failed.", "Motion"),
    Action("goto-mark", "colon", "go to a mark", "Go to a mark: 1204331, e29, e29+, start or end.", "Motion"),
    Action("last-change", "L,shift+l", "last change", "Go to the last write of the bytes; repeat it.", "Bytes", "last change"),
    Action("who-wrote", "w", "who wrote this", "Tell who wrote the chosen bytes last.", "Bytes", "who wrote"),
    Action("goto-address", "g", "go to an address", "Show an address: 0x1a2b, or M/ADDRESS:LENGTH.", "Bytes"),
    Action("find", "slash", "find bytes", "Find bytes in memory: text, 39 39 0a, or u32:12950.", "Bytes", "find"),
    Action("find-next", "f3", "find next", "Find the same bytes behind the chosen ones.", "Bytes"),
    Action("find-previous", "shift+f3", "find previous", "Find the same bytes before the chosen ones.", "Bytes"),
    Action("compare", "equals_sign", "compare with this mark", "Show what changed since here; again ends that.", "Bytes"),
    Action("change-next", "right_parenthesis", "next changed bytes", "Go to what changed next in memory.", "Bytes"),
    Action("change-previous", "left_parenthesis", "changed bytes before", "Go to what changed before it in memory.", "Bytes"),
    Action("memory-next", "M,shift+m", "next memory", "Show the next memory of several, where it was left.", "Bytes"),
    Action("break", "b", "breakpoint", "Stop at func=NAME, line=FILE:LINE, import=NAME, pc=OFFSET.", "Stops", "break"),
    Action("watch", "W,shift+w", "watchpoint", "Stop at writes of ADDRESS:LENGTH, or of global=N.", "Stops"),
    Action("stops", "B,shift+b", "list of stops", "Switch break- and watchpoints on and off, remove them.", "Stops"),
    Action("visit-back", "left_square_bracket,backspace", "where I was", "Go back to what was looked at before.", "View"),
    Action("visit-forward", "right_square_bracket", "forward again", "Go forward to what was left with [.", "View"),
    Action("bookmark", "m", "bookmark", "Remember this place; bookmarks are kept beside the trace.", "View"),
    Action("bookmarks", "apostrophe", "bookmarks", "Go to a bookmark.", "View"),
    Action("fold", "z", "fold or unfold", "Show a run of one import event by event, or as one line.", "View"),
    Action("expand-event", "e", "event in full", "Show the event in view with all its fields and bytes.", "View"),
    Action("next-pane", "tab", "next pane", "Make the next pane active.", "View"),
    Action("previous-pane", "shift+tab", "previous pane", "Make the pane before active.", "View"),
    Action("sql", "f2", "SQL", "Ask in SQL; a row of the result goes to its moment.", "View", "sql"),
    Action("help", "question_mark,f1", "help", "Every key, and what it does.", "View", "help"),
    Action("palette", "ctrl+p", "palette", "Find an action by its name.", "View"),
    Action("interrupt", "ctrl+c", "interrupt", "End what runs; twice, with nothing running: leave.", "View"),
    Action("suspend-process", "ctrl+z", "to the shell", "Let the shell have the terminal; `fg` comes back.", "View"),
    Action("quit", "q,ctrl+q", "quit", "Leave. The trace is as it was.", "View", "quit"),
    Action("cursor-up", "up,k", "row above", "Go one row up.", "In a pane", pane="rows"),
    Action("cursor-down", "down,j", "row below", "Go one row down.", "In a pane", pane="rows"),
    Action("page-up", "pageup", "page above", "Go one page up.", "In a pane", pane="rows"),
    Action("page-down", "pagedown", "page below", "Go one page down.", "In a pane", pane="rows"),
    Action("first-row", "home", "first row", "Go to the first row.", "In a pane", pane="rows"),
    Action("last-row", "end", "last row", "Go to the last row.", "In a pane", pane="rows"),
    Action("choose", "enter", "choose", "Open what is there: frame, value, pointer; run to a line.", "In a pane", pane="rows"),
    Action("cursor-left", "left,h", "to the left", "Scroll, or go to the byte before.", "In a pane", pane="rows"),
    Action("cursor-right", "right,l", "to the right", "Scroll, or go to the byte behind.", "In a pane", pane="rows"),
    Action("filter-events", "f", "filter", "Show only some: clock, status=errno, effect, /text/.", "Story", pane="story"),
    Action("find-event", "slash", "find in events", "Find text or /regex/ in events and their bytes.", "Story", "find",
           pane="story"),
    Action("find-event-next", "f3", "find next", "Find it again behind this event.", "Story", pane="story"),
    Action("find-event-previous", "shift+f3", "find previous", "Find it again before this event.", "Story", pane="story"),
    Action("copy-event", "y", "copy the row", "Copy the row as text.", "Story", pane="story"),
    Action("copy-event-json", "Y,shift+y", "copy as JSON", "Copy the event as `events --json` has it.", "Story", pane="story"),
    Action("show-all-events", "escape", "show all", "End a search, or show all events again.", "Story", pane="story"),
    Action("event-view", "v", "view", "Show the bytes as text, JSON, hexadecimal or numbers.", "Event", "view", pane="event"),
    Action("copy-piece", "y", "copy the bytes", "Copy the piece under the cursor as it is shown.", "Event", "copy", pane="event"),
    Action("search-events", "slash", "find in events", "Find text or /regex/ in events and their bytes.", "Event", "find",
           pane="event"),
    Action("search-events-next", "f3", "find next", "Find it again behind this event.", "Event", pane="event"),
    Action("search-events-previous", "shift+f3", "find previous", "Find it again before this event.", "Event", pane="event"),
    Action("select-more", "shift+right,plus", "choose more bytes", "Make the chosen range longer.", "Memory", pane="memory"),
    Action("select-less", "shift+left,minus", "choose fewer bytes", "Make the chosen range shorter.", "Memory", pane="memory"),
    Action("decode", "v", "what bytes mean", "Show the chosen bytes as numbers, text, time.", "Memory", "decode", pane="memory"),
    Action("zoom-in", "w", "zoom in", "Show less of the execution, in more detail.", "Timeline", "zoom", pane="timeline"),
    Action("zoom-out", "s", "zoom out", "Show more of the execution.", "Timeline", "zoom", pane="timeline"),
    Action("pan-left", "a", "pan left", "Show an earlier part.", "Timeline", "pan", pane="timeline"),
    Action("pan-right", "d", "pan right", "Show a later part.", "Timeline", "pan", pane="timeline"),
    Action("earlier", "left", "a little earlier", "Go one column back.", "Timeline", pane="timeline"),
    Action("later", "right", "a little later", "Go one column on.", "Timeline", pane="timeline"),
    Action("select-later", "shift+right", "select more", "Select from here on; or drag with the mouse.", "Timeline",
           pane="timeline"),
    Action("select-earlier", "shift+left", "select less", "Select up to here.", "Timeline", pane="timeline"),
    Action("fit", "f", "fit", "Show what is selected, the call or span here, or all.", "Timeline", "fit",
           pane="timeline"),
    Action("stretch-end", "E,shift+e", "to its end", "Go to the end of the call or span; enter: to its start.", "Timeline",
           pane="timeline"),
    Action("select-nothing", "escape", "select nothing", "Forget the selection.", "Timeline", pane="timeline"),
    Action("sql-run", "ctrl+j,f5", "run", "Run the statement, or the chosen part of it.", "SQL", "run", pane="sql"),
    Action("sql-cancel", "escape", "cancel, or leave", "End what runs; if nothing does, go back.", "SQL", "back", pane="sql"),
    Action("sql-leave", "f2", "leave", "Go back; everything here stays as it is.", "SQL", pane="sql"),
    Action("sql-history", "f8", "earlier statements", "Choose among the statements run before.", "SQL", "history", pane="sql"),
    Action("sql-schema", "f9", "tables", "Show or hide the tables and their columns.", "SQL", "tables", pane="sql"),
    Action("sql-export", "ctrl+e", "export", "Write the result to a .csv, .parquet or .json file.", "SQL", "export", pane="sql"),
    Action("copy-cell", "y", "copy the cell", "Put the cell into the clipboard.", "Results", "copy", pane="sql-results"),
    Action("copy-row", "Y,shift+y", "copy the row", "Put the row into the clipboard, with tabs.", "Results", pane="sql-results"),
    Action("read-row", "e,space", "the row in full", "Read every cell of the row.", "Results", pane="sql-results"),
)  # fmt: skip

BROWSER: Final = (
    Action("choose", "enter", "open", "Open the run in the inspector; `q` there comes back here.", "Runs", "open", pane="runs"),
    Action("filter", "slash", "filter", "Show only runs with these words in some column.", "Runs", "filter"),
    Action("sort", "s", "sort by", "Sort by the next column; a click on a heading sorts by that one.", "Runs", "sort"),
    Action("reverse", "S,shift+s", "reverse", "Sort the other way round.", "Runs", "sort"),
    Action("verify", "v", "verify", "Check the run's files, and replay it in a process of its own.", "Runs", "verify"),
    Action("verify-shown", "V,shift+v", "verify all", "Verify every run that is shown, one after the other.", "Runs", "verify"),
    Action("cancel", "escape", "cancel", "End what runs; else show all runs again.", "Runs"),
    Action("details", "e", "details", "Everything that is known of the run.", "Runs", "details"),
    Action("copy", "y", "copy path", "Copy the run's path to the clipboard.", "Runs", "copy"),
    Action("rescan", "r", "read again", "Read every run again; new ones appear by themselves.", "Runs", "again"),
    Action("next-pane", "tab", "next pane", "Go from the list to the details, and back.", "Runs"),
    Action("help", "question_mark,f1", "help", "Every key, and what it does.", "Runs", "help"),
    Action("interrupt", "ctrl+c", "interrupt", "End what runs.", "Runs"),
    Action("suspend-process", "ctrl+z", "to the shell", "Let the shell have the terminal; `fg` comes back.", "Runs"),
    Action("quit", "q,ctrl+q", "quit", "Leave.", "Runs", "quit"),
)
"""The same for the list of recordings, which is an app of its own."""

BY_ID: Final = {action.id: action for action in ACTIONS}


def bindings(pane: str) -> list[BindingType]:
    """The bindings of the app (""), of every table ("rows") or of one pane."""
    return [action.binding() for action in ACTIONS if action.pane == pane]


# -- keymaps -----------------------------------------------------------------------------------------------------------------


def keymap_file() -> Path:
    """Where a user's keymap is looked for."""
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "reprise" / "keys.toml"


def read_keymap(path: Path) -> dict[str, str]:
    """Keys by action. Raises UsageError for a file that cannot be used, with what is wrong with it."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})") from None
    try:
        found: Any = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path}: is not {'JSON' if path.suffix == '.json' else 'TOML'} ({error})") from None
    if not isinstance(found, dict):
        raise UsageError(f'{path}: write actions and keys, as in step-over = "f10"')
    keys: dict[str, str] = {}
    for name, value in found.items():
        if name not in BY_ID and not any(name == action.id for action in BROWSER):
            raise UsageError(f"{path}: there is no action {name!r}; `?` in the inspector lists them")
        if not isinstance(value, str) or not value.strip():
            raise UsageError(f'{path}: {name}: write keys as text, as in {name} = "f10,ctrl+n"')
        keys[name] = value
    return keys


_NAMES: Final = {
    "equals_sign": "=", "right_parenthesis": ")", "left_parenthesis": "(",
    "comma": ",", "full_stop": ".", "slash": "/", "question_mark": "?", "exclamation_mark": "!", "colon": ":", "apostrophe": "'",
    "left_square_bracket": "[", "right_square_bracket": "]", "left_curly_bracket": "{", "right_curly_bracket": "}",
    "escape": "esc", "plus": "+", "minus": "-", "pageup": "pgup", "pagedown": "pgdn",
    "up": "↑", "down": "↓", "left": "←", "right": "→", "shift+left": "shift+←", "shift+right": "shift+→",
}  # fmt: skip


def shown_keys(action: Action, keymap: Mapping[str, str] | None = None) -> list[str]:
    """An action's keys, as they are printed on a keyboard; what is one key under two names is there once."""
    keys = (keymap or {}).get(action.id, action.key).split(",")
    shown = [_NAMES.get(key.strip(), key.strip()) for key in keys if key.strip()]
    return [key for key in dict.fromkeys(shown) if not (key.startswith("shift+") and key[6:].upper() in shown and len(key) == 7)]


def doable(pane: str, keymap: Mapping[str, str] | None = None) -> list[Action]:
    """What can be done while a pane is active, what matters most first: a pane's own keys hide those that mean something else
    everywhere else."""
    own = [action for action in ACTIONS if action.pane == pane and pane]
    taken = {key for action in own for key in shown_keys(action, keymap)}
    free = [action for action in ACTIONS if not action.pane and taken.isdisjoint(shown_keys(action, keymap))]
    first = [action for action in free if action.group == "Motion" or action.id == "last-change"]
    return [*first, *own, *(action for action in free if action not in first)]


def footer(width: int, keymap: Mapping[str, str] | None = None, actions: Sequence[Action] | None = None) -> list[tuple[str, str]]:
    """(keys, name) of the families that fit a width, of what can be done anywhere unless `actions` says otherwise; the first
    come first, and `help` is always among them."""
    families: dict[str, list[str]] = {}
    for action in doable("", keymap) if actions is None else actions:
        if action.family:
            families.setdefault(action.family, []).append(shown_keys(action, keymap)[0])
    cells = [(" ".join(keys), name) for name, keys in families.items()]
    least = next((cell for cell in cells if cell[1] == "help"), None)
    room = width - 2 - (_width(least) if least else 0)
    found = []
    for cell in cells:
        if cell is least:
            found.append(cell)
        elif _width(cell) <= room:
            found.append(cell)
            room -= _width(cell)
    return found


def _width(cell: tuple[str, str]) -> int:
    return len(cell[0]) + 1 + len(cell[1]) + 3
