"""The statement, while it is written: Textual's text editor, with colours, and names completed as they are typed."""

from __future__ import annotations

import re
from typing import ClassVar, Final

from rich.text import Text
from textual.binding import Binding, BindingType
from textual.widgets import TextArea
from textual.widgets.text_area import Selection

from inspector.panes.rows import plain
from inspector.sql.console import Schema

_WORDS: Final = re.compile(
    "select|from|where|group|by|order|having|limit|offset|distinct|as|and|or|not|in|is|null|like|ilike|between|case|when|then|else|"
    "end|join|left|right|inner|outer|full|cross|asof|on|using|union|all|except|intersect|with|recursive|values|over|partition|"
    "qualify|filter|exists|asc|desc|describe|show|summarize|explain|tables|cast|true|false|interval|unnest|lateral|exclude|replace",
    re.IGNORECASE,
)
_COMPLETED: Final = ("select", "from", "where", "group by", "order by", "having", "limit", "distinct", "between", "describe")
_TOKEN: Final = re.compile(
    r"(?P<dim>--.*)|(?P<output>'(?:[^']|'')*'?)|(?P<name>\"(?:[^\"]|\"\")*\"?)|\b(?P<number>0[xX][0-9a-fA-F]+|\d+(?:\.\d+)?)\b|(?P<word>\w+)"
)
_BEGUN: Final = re.compile(r"(?P<quote>\"?)(?P<word>[A-Za-z_]\w*)\Z")
_ROLES: Final = ("dim", "output", "name", "number", "strong")


class Editor(TextArea):
    """A statement. `right` takes a completion, and so does `tab`."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {f"rows--{role}" for role in _ROLES}
    BINDINGS: ClassVar[list[BindingType]] = [Binding("tab", "complete", "complete", show=False)]

    def __init__(self, text: str) -> None:
        super().__init__(text, id="sql-editor", soft_wrap=True, highlight_cursor_line=False, tab_behavior="focus")
        self.border_title = "sql"
        self.names: tuple[str, ...] = ()
        """What is completed, in the order of preference."""
        self.reserved: frozenset[str] = frozenset()

    def know(self, schema: Schema) -> None:
        """Completes the names of a schema from now on."""
        tables = [relation.name.partition("'")[0].partition("address")[0] for relation in schema.relations]
        columns = [name for relation in schema.relations for name, _ in relation.columns]
        # A trace has a say in what its columns are called.
        self.names = tuple(name for name in dict.fromkeys([*tables, *columns]) if re.fullmatch(r"\w+\(?", name))
        self.reserved = schema.reserved

    def statement(self) -> str:
        """What is to be run: what is selected, else everything."""
        return (self.selected_text.strip() or self.text).strip().rstrip(";")

    def put(self, text: str) -> None:
        """Replaces the whole text, so that it can be undone."""
        text = "\n".join(plain(line) for line in text.replace("\r\n", "\n").split("\n"))
        self.replace(text, (0, 0), self.document.end)
        self.selection = Selection.cursor(self.document.end)

    def insert_name(self, name: str) -> None:
        quoted = re.fullmatch(r"[a-z_]\w*(\(.*\))?", name) and name not in self.reserved
        text = name if quoted else '"' + plain(name).replace('"', '""') + '"'
        row, column = self.cursor_location
        before = self.document.get_line(row)[:column]
        self.insert(f" {text}" if re.search(r"[\w\"')]\Z", before) else text)
        if text.endswith(")"):  # what it is called with is to be written now
            row, column = self.cursor_location
            self.selection = Selection((row, column - len(text) + text.index("(") + 1), (row, column - 1))

    # -- completion

    def update_suggestion(self) -> None:
        row, column = self.cursor_location
        line = self.document.get_line(row)
        begun = _BEGUN.search(line[:column])
        self.suggestion = ""
        if begun is None or line[column : column + 1].strip() or not self.selection.is_empty:
            return
        word, quote = begun["word"], begun["quote"]
        if line[: begun.start()].count("'") % 2 or "--" in line[: begun.start()]:
            return
        known = self.names if quote else (*(name for name in self.names if name not in self.reserved), *_COMPLETED)
        for name in known if len(word) > 1 else ():
            if name.lower().startswith(word.lower()) and len(name) > len(word):
                rest = name[len(word) :] + quote
                self.suggestion = rest.upper() if word.isupper() and name in _COMPLETED else rest
                return

    def on_text_area_selection_changed(self) -> None:
        self.update_suggestion()

    def action_complete(self) -> None:
        if self.suggestion:
            self.insert(self.suggestion)
        else:
            self.screen.focus_next()

    # -- drawing

    def get_line(self, line_index: int) -> Text:
        # As wide as it is, but without what would move a terminal's cursor: it may have been pasted.
        line = self.document.get_line(line_index)
        text = Text("".join(c if c.isprintable() or c == "\t" else "\ufffd" for c in line), end="", no_wrap=True)
        for found in _TOKEN.finditer(line):
            role = found.lastgroup or ""
            if role == "word":
                role = "strong" if _WORDS.fullmatch(found.group()) else ""
            if role:
                text.stylize(self.get_component_rich_style(f"rows--{role}", partial=True), found.start(), found.end())
        return text
