"""Which theme suits a terminal."""

from __future__ import annotations

from collections.abc import Mapping


def theme_for(environment: Mapping[str, str]) -> str:
    """Terminals that say they have few colours get a theme of those that every terminal has."""
    term = environment.get("TERM", "")
    rich_colours = environment.get("COLORTERM", "") in ("truecolor", "24bit") or "256" in term or "direct" in term
    known = environment.get("TEXTUAL_THEME")
    return known if known else "textual-dark" if rich_colours else "ansi-dark"
