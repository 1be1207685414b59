"""What of the table of actions can be done in the SQL view."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from textual.binding import BindingType

from inspector.actions import ACTIONS as EVERYWHERE
from inspector.actions import BY_ID

ACTIONS: Final = tuple(action for action in EVERYWHERE if action.pane in ("sql", "sql-results"))


def bindings(pane: str) -> list[BindingType]:
    """Bindings of the screen ("sql") or of one of its panes. Those of the screen come before the editor's own."""
    found: list[BindingType] = [replace(action.binding(), priority=pane == "sql") for action in ACTIONS if action.pane == pane]
    return [*found, BY_ID["help"].binding()] if pane == "sql" else found
