"""How runs are told: columns, their words and order, and everything about one run, as text. Knows nothing of a screen."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from rich.cells import cell_len, set_cell_size

from inspector.runs.run import DAMAGED, PACKED, RUNNING, UNFINISHED, Finding, Run
from traces.cli import one_line

NOTHING: Final = "—"
"""What is not known, or does not exist."""
_SEVERITY: Final = ("unusable", "diverged", "incomplete", "identical")
_GAP: Final = 2
_LABEL: Final = 13
_SECONDS: Final = 3
"""Characters of a moment that are shown where there is room."""

Piece = tuple[str, str]
"""Text and its role, as in `panes.rows`."""


@dataclass(frozen=True)
class Column:
    """One column of the list."""

    id: str
    width: int
    """Characters; of the first column the least, as it takes what is left over."""
    text: Callable[[Run], str]
    key: Callable[[Run], Any]
    """What runs are sorted by; None is sorted behind everything."""
    role: Callable[[Run], str] = lambda run: ""
    right: bool = False
    descends: bool = False
    """Sorting by it begins with the largest."""
    rank: int = 0
    """Columns of high rank are the first to go when there is not room for all."""


def local_time(nanoseconds: int | None) -> str:
    """A moment in the user's time zone."""
    if nanoseconds is None:
        return NOTHING
    return datetime.fromtimestamp(nanoseconds // 10**9).isoformat(" ")


def how_long(nanoseconds: int | None) -> str:
    """A duration, in the unit that suits it."""
    if nanoseconds is None:
        return NOTHING
    seconds = nanoseconds / 1e9
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours >= 100:
        return f"{hours // 24:,} d"
    return f"{hours} h {minutes:02} m" if hours else f"{minutes} m {rest:02} s"


def how_much(size: int) -> str:
    """A number of bytes, in the unit that suits it."""
    amount, unit = float(size), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if amount < 1000:
            break
        amount, unit = amount / 1024, larger
    return f"{size} B" if unit == "B" else f"{amount:.1f} {unit}" if amount < 9.95 else f"{amount:,.0f} {unit}"


def verdict_text(finding: Finding | None) -> str:
    if finding is None:
        return NOTHING
    return finding.kind if finding.event is None else f"{finding.kind} e{finding.event}"


def verdict_role(finding: Finding | None) -> str:
    if finding is None:
        return "dim"
    if finding.kind == "identical":
        return "good" if finding.checked else ""
    return "changed" if finding.kind == "incomplete" else "bad"


def outcome_role(run: Run) -> str:
    if run.state == RUNNING:
        return "mark"
    if run.state == UNFINISHED or run.outcome == "killed":
        return "changed"
    return "" if run.clean else "bad"


def _severity(run: Run) -> int | None:
    kind = run.verdict.kind if run.verdict is not None else ""
    return _SEVERITY.index(kind) if kind in _SEVERITY else None


COLUMNS: Final = (
    Column("name", 16, lambda run: run.name, lambda run: run.name.casefold(), lambda run: "name"),
    Column("outcome", 11, lambda run: run.outcome, lambda run: run.outcome, outcome_role),
    Column("started", 16, lambda run: local_time(run.started), lambda run: run.started, descends=True, rank=2),
    Column("duration", 10, lambda run: how_long(run.duration), lambda run: run.duration, right=True, descends=True, rank=3),
    Column("events", 11, lambda run: NOTHING if run.events is None else f"{run.events:,}", lambda run: run.events,
           right=True, descends=True, rank=1),
    Column("size", 8, lambda run: how_much(run.size), lambda run: run.size, right=True, descends=True, rank=5),
    Column("module", 14, lambda run: run.module or NOTHING, lambda run: run.module.casefold() or None, rank=4),
    Column("verdict", 12, lambda run: verdict_text(run.verdict), _severity, lambda run: verdict_role(run.verdict)),
)  # fmt: skip
BY_ID: Final = {column.id: column for column in COLUMNS}


def fitting(width: int) -> list[tuple[Column, int]]:
    """The columns that fit, and how wide each is."""
    shown = list(COLUMNS)
    while len(shown) > 1 and _room(shown) > width and any(column.rank for column in shown):
        shown.remove(max(shown, key=lambda column: column.rank))
    left = max(0, width - _room(shown))
    widths = {column.id: column.width for column in shown}
    if "started" in widths and left >= _SECONDS:
        widths["started"] += _SECONDS
        left -= _SECONDS
    widths["name"] += left
    if "module" in widths and left > 16:
        widths["module"] += left // 4
        widths["name"] -= left // 4
    return [(column, widths[column.id]) for column in shown]


def _room(columns: Sequence[Column]) -> int:
    return sum(column.width + _GAP for column in columns)


def cell(text: str, width: int, column: Column) -> str:
    """Text in a column, with the gap behind it; what is too long ends in "…"."""
    if column.id == "started":
        text = text[:width]
    wide = cell_len(text)
    if wide > width:
        text = set_cell_size(text, max(0, width - 1)) + "…"
    elif column.right:
        text = " " * (width - wide) + text
    return set_cell_size(text, width + _GAP)


def in_order(runs: Iterable[Run], column: str, reverse: bool) -> list[Run]:
    """Sorted by a column, and by name where that says nothing."""
    by = BY_ID[column]
    named = sorted(runs, key=lambda run: run.name.casefold())
    known = [run for run in named if by.key(run) is not None]
    known.sort(key=by.key, reverse=by.descends != reverse)
    return known + [run for run in named if by.key(run) is None]


def matches(run: Run, words: Sequence[str]) -> bool:
    """Whether each word stands in some column."""
    text = " ".join(column.text(run) for column in COLUMNS).casefold()
    return all(word in text for word in words)


def counted(runs: Iterable[Run]) -> list[Piece]:
    """How many runs there are, and of what kind those are that are not simply finished."""
    kinds: dict[str, int] = {}
    total = 0
    for run in runs:
        total += 1
        kinds[run.state] = kinds.get(run.state, 0) + 1
    pieces: list[Piece] = [(f"{total:,} run{'' if total == 1 else 's'}", "strong")]
    for state, role in ((RUNNING, "mark"), (UNFINISHED, "changed"), (DAMAGED, "bad")):
        if state in kinds:
            pieces += [(" · ", "dim"), (f"{kinds[state]:,} {state}", role)]
    return pieces


def details(run: Run, width: int) -> list[list[Piece]]:
    """Everything that is known of a run, as lines of a width."""
    rows: list[tuple[str, str, str]] = []
    if run.why:
        rows.append((run.state, run.why, outcome_role(run)))
    else:
        packed = "  (packed: a temporary copy is opened, whose bookmarks are not kept)" if run.state == PACKED else ""
        rows.append(("outcome", run.outcome + packed, outcome_role(run)))
    if run.verdict is not None:
        source = "" if run.verdict.checked else "  (as the time machine remembers; v checks the files, too)"
        rows.append(("verdict", run.verdict.headline + source, verdict_role(run.verdict)))
    measured = [f"{run.events:,} events"] if run.events is not None else []
    measured += [how_long(run.duration)] if run.duration is not None else []
    measured.append(how_much(run.size))
    rows.append(("started", ", ".join([local_time(run.started), *measured]), ""))
    rows += [(name, text, "") for name, text in run.facts]
    rows.append(("path", one_line(str(run.path)), "dim"))
    lines: list[list[Piece]] = []
    for name, text, role in rows:
        wrapped = textwrap.wrap(text, max(20, width - _LABEL - 1), break_on_hyphens=False) or [""]
        for number, part in enumerate(wrapped):
            lines.append([(f"{'' if number else name:<{_LABEL}}", "dim"), (part, role)])
    return lines
