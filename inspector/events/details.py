"""One event in full: what is known of it, and the bytes that crossed, joined over all its records. No screen here."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from inspector.events.payload import Payload, payloads
from inspector.events.story import Story
from traces.cli import one_line
from traces.columns import printable
from traces.manifest import Import
from traces.render import Lines, Piece, pieces, values

MOST_BYTES: Final = 256 << 20
"""Bytes of one event that are looked at; they are all in memory at once."""


class Fact(NamedTuple):
    """One thing that is known of an event."""

    name: str
    text: str
    role: str = ""
    """On the screen."""
    event: int | None = None
    """The event it names."""


@dataclass(frozen=True)
class Detail:
    """One event."""

    seq: int
    head: str
    facts: tuple[Fact, ...]
    payloads: tuple[Payload, ...]


def read_detail(story: Story, seq: int, tick: Callable[[], None]) -> Detail:
    """Reads an event and what continues it: to be called in a thread. `tick` raises to end it."""
    row = story.event(seq)
    carried = pieces(row["record"], row["chunks_at"])
    closing: Mapping[str, Any] | None = None
    records, size, cut = 1, sum(len(piece.data) for piece in carried), False
    for part in story.parts(seq) if row["kind"] in ("call", "export", "callback") and row["status"] == "open" else ():
        tick()
        if part["kind"] == "return":
            closing = part
        more = pieces(part["record"], part["chunks_at"])
        size += sum(len(piece.data) for piece in more)
        if size > MOST_BYTES:
            cut = True
            break
        carried += more
        records += 1
    entry = story.import_of(row["import"])
    names = entry.names if entry is not None else ()
    found = payloads([piece for piece in carried if piece.data], row["import"] or "", names, row["args"], cut)
    head, outcome = story.words(row, Lines(story.manifest))
    facts = tuple(_facts(row, closing, entry, story, carried, records))
    return Detail(seq, one_line(head + (f" → {outcome}" if outcome else "")), facts, tuple(found))


def _facts(
    row: Mapping[str, Any],
    closing: Mapping[str, Any] | None,
    entry: Import | None,
    story: Story,
    carried: Sequence[Piece],
    records: int,
) -> list[Fact]:
    facts = [Fact("kind", row["kind"])]
    if row["import"] is not None:
        facts.append(Fact("import", printable(row["import"]), "name"))
    if row["target"] is not None:
        facts.append(Fact("export", printable(row["target"]), "name"))
    if entry is not None:
        facts.append(Fact("served by", {"wasi": "WASI", "python": "Python"}.get(entry.host, printable(entry.host))))
    last = closing if closing is not None else row
    facts.append(Fact("status", _status(last), "bad" if last["status"] in ("trap", "denied", "errno") else ""))
    if closing is not None:
        more = f", with {records - 2:,} more records" if records > 2 else ""
        facts.append(Fact("returned", f"event {closing['seq']:,}{more}", "mark", closing["seq"]))
    if row["of"] is not None:
        facts.append(Fact("closes" if row["kind"] == "return" else "belongs to", f"event {row['of']:,}", "mark", row["of"]))
    facts += _arguments(row, entry, {piece.address for piece in carried})
    results = entry.results if entry is not None else ()
    for number, value in enumerate(values(last["results"], results) if results else [hex(word) for word in last["results"]]):
        errno = entry is not None and entry.errno and number == 0
        facts.append(Fact("result", f"{value}  {_errno(last)}".rstrip() if errno else value, "number"))
    facts.append(Fact("depth", str(row["depth"])))
    facts.append(Fact("time", f"{row['time_ns'] / 1e9:.3f} s after the start"))
    if last["duration_ns"] is not None:
        facts.append(Fact("took", duration(last["duration_ns"])))
    span = row["span"]
    if span is not None and span != row["seq"]:
        facts.append(Fact("in", f"event {span:,}", "mark", span) if 0 <= span < story.events else Fact("in", "the whole run"))
    return facts


def _arguments(row: Mapping[str, Any], entry: Import | None, addresses: set[int]) -> list[Fact]:
    """Arguments by their names; those that point to what crossed are shown as addresses."""
    types = entry.params if entry is not None else ()
    shown = values(row["args"], types) if types else [hex(word) for word in row["args"]]
    named = entry is not None and len(entry.names) == len(shown)
    words = row["args"] if len(row["args"]) == len(shown) else [-1] * len(shown)
    facts = []
    for number, (value, word) in enumerate(zip(shown, words, strict=True)):
        name = printable(entry.names[number]) if named and entry is not None else f"arg {number}"
        facts.append(Fact(name, hex(word) if word in addresses else value, "number"))
    return facts


def _status(row: Mapping[str, Any]) -> str:
    return f"errno {_errno(row)}".rstrip() if row["status"] == "errno" else str(row["status"])


def _errno(row: Mapping[str, Any]) -> str:
    """The name of an error, as the recording's text has it."""
    _, found, name = (row["detail"] or "").rpartition("errno ")
    return printable(name) if found else ""


def duration(nanoseconds: int) -> str:
    """A time a call took, in a unit that fits it."""
    for unit, size in (("s", 10**9), ("ms", 10**6), ("µs", 10**3)):
        if nanoseconds >= size:
            return f"{nanoseconds / size:,.3g} {unit}" if nanoseconds < 1000 * size else f"{nanoseconds / size:,.0f} {unit}"
    return f"{nanoseconds} ns"
