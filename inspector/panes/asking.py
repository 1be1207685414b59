"""A question whose answer is checked while it is typed."""

from __future__ import annotations

from collections.abc import Callable

from textual.widgets import Input, Static

from inspector.panes.dialogs import Prompt
from inspector.panes.rows import plain


class LivePrompt(Prompt):
    """Says what is wrong with the answer as it stands. `empty`: what no answer means; "" is then let through."""

    def __init__(self, question: str, value: str, hint: str, check: Callable[[str], str], empty: str = "") -> None:
        super().__init__(question, value, hint, check)
        self.empty = empty

    def on_input_changed(self, event: Input.Changed) -> None:
        text = event.value.strip()
        wrong = self.check(text) if self.check is not None and text else ""
        hint = self.query_one("#hint", Static)
        hint.update(plain(wrong or (self.empty if self.empty and not text else self.hint)))
        hint.set_class(bool(wrong), "wrong")

    def on_input_submitted(self, event: Input.Submitted) -> None:
        text = event.value.strip()
        if not text and self.empty:
            event.prevent_default()
            self.dismiss("")
