"""What stands in front of the panes for a moment: a question, a list to choose from, a text to read."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.suggester import SuggestFromList
from textual.widgets import Input, Static

from inspector.panes.rows import Piece, Rows, plain
from inspector.panes.texts import TextPane

_CLOSE = Binding("escape", "close", "close", show=False)


class Prompt(ModalScreen[str | None]):
    """Asks for one line. `check` says what is wrong with it, or "" to let it through."""

    BINDINGS = [_CLOSE]

    def __init__(self, question: str, value: str = "", hint: str = "", check: Callable[[str], str] | None = None,
                 known: Sequence[str] = ()) -> None:  # fmt: skip
        super().__init__()
        self.question, self.value, self.hint = question, value, hint
        self.check, self.known = check, known

    def compose(self) -> ComposeResult:
        with Vertical(id="prompt") as box:
            box.border_title = plain(self.question)
            suggester = SuggestFromList(self.known, case_sensitive=True) if self.known else None
            yield Input(self.value, suggester=suggester, id="answer")
            yield Static(plain(self.hint), id="hint", markup=False)

    def on_mount(self) -> None:
        # Before it is painted: what is typed at once is for this line.
        self.set_focus(self.query_one(Input))

    def on_input_submitted(self, event: Input.Submitted) -> None:
        wrong = self.check(event.value.strip()) if self.check is not None else ""
        if wrong:
            self.query_one("#hint", Static).update(plain(wrong))
            self.query_one("#hint").add_class("wrong")
        else:
            self.dismiss(event.value.strip() or None)

    def action_close(self) -> None:
        self.dismiss(None)


class Reading(ModalScreen[str | None]):
    """A text; `enter` takes up what it offers."""

    BINDINGS = [_CLOSE, Binding("q,question_mark,f1", "close", "close", show=False)]

    def __init__(self, title: str, lines: Sequence[list[Piece]], offer: str = "", value: str | None = None) -> None:
        super().__init__()
        self.heading, self.lines, self.offer, self.value = title, lines, offer, value

    def compose(self) -> ComposeResult:
        yield _Text(self.heading, self.lines, self.offer)

    def on_mount(self) -> None:
        text = self.query_one(_Text)
        text.styles.height = min(len(self.lines) + 2, max(5, self.app.size.height - 4))
        text.focus()

    def take(self) -> None:
        self.dismiss(self.value)

    def action_close(self) -> None:
        self.dismiss(None)


class _Text(TextPane):
    def __init__(self, heading: str, lines: Sequence[list[Piece]], offer: str) -> None:
        super().__init__("reading")
        self.heading, self.lines, self.offer = heading, lines, offer

    def note(self) -> str:
        return f"{self.offer}, esc closes" if self.offer else "esc closes"

    def on_mount(self) -> None:
        self.update()

    def action_choose(self) -> None:
        assert isinstance(self.screen, Reading)
        self.screen.take()


class Listing(ModalScreen[int | None]):
    """Rows to choose from; `space` switches one, `delete` removes it, where that makes sense."""

    BINDINGS = [
        _CLOSE,
        Binding("space", "switch", "switch", show=False),
        Binding("delete,d,backspace", "remove", "remove", show=False),
    ]

    def __init__(
        self,
        title: str,
        rows: Callable[[], Sequence[list[Piece]]],
        note: str,
        toggle: Callable[[int], None] | None = None,
        remove: Callable[[int], None] | None = None,
    ) -> None:
        super().__init__()
        self.heading, self.rows, self.lower = title, rows, note
        self.switch, self.drop = toggle, remove

    def compose(self) -> ComposeResult:
        yield _List(self)

    def on_mount(self) -> None:
        self.query_one(_List).styles.height = min(max(1, len(self.rows())) + 2, max(5, self.app.size.height - 4))
        self.query_one(_List).focus()

    def _change(self, change: Callable[[int], None] | None) -> None:
        table = self.query_one(_List)
        if change is not None and table.cursor < table.count():
            change(table.cursor)
            table.update()
            if not table.count():
                self.dismiss(None)

    def action_switch(self) -> None:
        self._change(self.switch)

    def action_remove(self) -> None:
        self._change(self.drop)

    def action_close(self) -> None:
        self.dismiss(None)


class _List(Rows):
    def __init__(self, owner: Listing) -> None:
        super().__init__(id="listing")
        self.owner = owner

    def on_mount(self) -> None:
        self.update()

    def count(self) -> int:
        return len(self.owner.rows())

    def title(self) -> str:
        return self.owner.heading

    def note(self) -> str:
        return self.owner.lower

    def pieces(self, index: int, width: int) -> list[Piece]:
        return self.owner.rows()[index]

    def action_choose(self) -> None:
        if self.count():
            self.owner.dismiss(self.cursor)
