"""The events of a trace as a story: runs folded, effects on the world marked, and where it gets interesting.

Millions of rows are never rows here. `index` has what is kept of every event, `layout` which row shows which; the text of an
event is made when it is shown, from a window that is read then and forgotten again.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from inspector.events import matter
from inspector.events.filters import Filter, Look, Needle
from inspector.events.finding import Search
from inspector.events.index import FILE, FOLD, FOLD_EFFECTS, OUTPUT, QUIET, TALK, WORLD, Index, read_index
from inspector.events.layout import Chosen, Layout
from traces._errors import TraceError
from traces.columns import printable
from traces.manifest import Import, Manifest
from traces.render import WASI, Lines, expanded, pieces, quoted, values
from traces.tables import EventsReader
from traces.tracedir import EVENTS, Trace

__all__ = ["FILE", "FOLD", "FOLD_EFFECTS", "OUTPUT", "QUIET", "TALK", "WORLD", "Index", "Row", "Story", "Text"]

KEPT_WINDOWS: Final = 6
KEPT_LINES: Final = 4096


@dataclass(frozen=True)
class Row:
    """One line of the story."""

    seq: int
    """Number of the event; of a folded run, of its first."""
    count: int
    """Events it stands for; 1 unless it is a run's heading."""
    effect: int
    """How much it matters; of a run, at most."""
    names: tuple[str, ...]
    """What it is called; of a run, the events that repeat. Empty while its window is not indexed."""
    folded: bool
    """A run that is shown as this one line; False also for the heading of an unfolded one."""
    inside: bool
    """One event of an unfolded run."""

    @property
    def name(self) -> str:
        return self.names[0] if self.names else ""


@dataclass(frozen=True)
class Text:
    """One event, in words."""

    seq: int
    depth: int
    head: str
    outcome: str
    status: str
    """Of `traces.columns.STATUSES`."""
    kind: str


class Story:
    """The events of a trace, as rows that are made when they are looked at.

    What reads (`read_index`, `load`, `look`, `event`, `output`) may be called in any thread; everything else belongs to one.
    """

    def __init__(self, trace: Trace) -> None:
        self.manifest: Manifest = trace.manifest
        self._reader = EventsReader(trace.path / EVENTS)
        self._firsts = [self._reader.first_of(number) for number in range(self._reader.window_count + 1)]
        self._layout = Layout(self._firsts)
        self._opening = matter.Opening(self.manifest, self.events)
        self._chosen: Chosen | None = None
        self.filter: Filter | None = None
        """Which events are shown; None shows all."""
        self.version = 0
        """Changes whenever rows do."""
        self._indexed = 0
        self._windows: OrderedDict[int, pa.RecordBatch] = OrderedDict()
        self._texts: OrderedDict[int, Text] = OrderedDict()
        self._imports: dict[str, Import] = {}
        for entry in self.manifest.imports:
            self._imports.setdefault(entry.qualified, entry)
        self._hosts = {entry.qualified: entry.host for entry in self.manifest.imports}
        self._lines = Lines(self.manifest)
        self._lock = threading.Lock()
        self._reading = threading.Lock()
        self._closed = False

    @property
    def events(self) -> int:
        """Events of the recording."""
        return self._reader.rows

    @property
    def windows(self) -> int:
        return self._reader.window_count

    @property
    def indexed(self) -> int:
        """Events that are indexed."""
        return self._indexed

    @property
    def complete(self) -> bool:
        return None not in self._layout.indexes

    def close(self) -> None:
        """Waits for what is being read; whoever wants more then is told so by a TraceError."""
        with self._reading:
            self._closed = True
            self._reader.close()

    def _read(self, number: int, columns: Sequence[str] | None) -> pa.RecordBatch:
        with self._reading:
            if self._closed:
                raise TraceError("the trace was closed")
            return self._reader.batch(number, columns)

    # -- the index

    def read_index(self) -> Iterator[Index]:
        """Reads the windows that are not indexed yet, from the last to the first: stories end with what matters.
        Give each to `add`; the reading may be done in another thread."""
        for number in reversed(range(self.windows)):
            if self._layout.index(number) is None:
                yield self._index(number)

    def _index(self, number: int) -> Index:
        return read_index(number, self._firsts[number], lambda columns: self._read(number, columns), self._hosts)

    def add(self, index: Index) -> None:
        """Takes the index of a window in."""
        if self._layout.index(index.number) is None:
            self._indexed += index.rows
        self._layout.add(index)
        self.version += 1

    def index(self) -> None:
        """Indexes everything, here and now."""
        for index in self.read_index():
            self.add(index)

    # -- what is shown

    def show(self, wanted: Filter | None) -> None:
        """Shows only the events that pass, as far as `take` was told of them; None shows all."""
        self.filter = wanted
        self._chosen = None if wanted is None else Chosen(self._firsts)
        self.version += 1

    def sift(self, near: int) -> Iterator[int]:
        """The windows a filter has to look at, those near an event first."""
        here = self._window_of(near) if self.events else 0
        return iter(sorted(range(self.windows), key=lambda number: (abs(number - here), number)))

    def look(self, number: int) -> Look:
        """A window, to be looked through by a filter or a search."""
        return Look(self._layout.index(number) or self._index(number), lambda columns: self._read(number, columns))

    def take(self, wanted: Filter, number: int, mask: Any) -> None:
        """Which events of a window pass a filter; of no interest if another one is shown by now."""
        if self._chosen is not None and self.filter is wanted:
            self._chosen.add(number, mask)
            self.version += 1

    @property
    def sifted(self) -> float:
        """How much of the recording the filter has looked at: 1 when it is done."""
        return 1.0 if self._chosen is None or not self.windows else self._chosen.windows / self.windows

    def search(self, needle: Needle) -> Search:
        """A search through the events that are shown."""
        return Search(needle, self.look, self.windows, self._window_of, self.filter)

    # -- rows

    @property
    def rows(self) -> int:
        """Rows as shown, as far as is known."""
        return self._layout.rows if self._chosen is None else self._chosen.rows

    def row(self, number: int) -> Row:
        """One row as shown. Raises IndexError."""
        if not 0 <= number < self.rows:
            raise IndexError(number)
        if self._chosen is not None:
            return self._single(self._chosen.seq(number), False)
        block, inside = self._layout.at(number)
        if not block.period:
            return self._single(block.first + inside, False)
        if inside:
            return self._single(block.first + inside - 1, True)
        pattern = [self._layout.sort(block.first + at) for at in range(block.period)]
        known = [sort for sort in pattern if sort is not None]
        effect, names = max(sort.effect for sort in known), tuple(sort.name for sort in known)
        return Row(block.first, block.count, effect, names, not self._layout.is_open(block), False)

    def _single(self, seq: int, inside: bool) -> Row:
        sort = self._layout.sort(seq)
        return Row(seq, 1, QUIET if sort is None else sort.effect, () if sort is None else (sort.name,), False, inside)

    def row_of(self, seq: int) -> int:
        """The row that shows an event: of a folded run, its line; if a filter hides it, the nearest before, else the first."""
        if self._chosen is not None:
            return self._chosen.row_of(seq)
        return self._layout.row_of(max(0, min(seq, self.events - 1))) if self.events else 0

    def toggle(self, number: int) -> int | None:
        """Folds or unfolds the run a row belongs to; returns the row its heading is in then, None if there is no run."""
        if not 0 <= number < self.rows or self._chosen is not None:
            return None
        self.version += 1
        return self._layout.toggle(number)

    # -- texts

    def text(self, seq: int) -> Text:
        """An event in words. Reads its window if that is not at hand: see `ready`."""
        found = self._texts.get(seq)
        if found is None:
            row = self.event(seq)
            head, outcome = self.words(row, self._lines)
            found = Text(seq, row["depth"], head, outcome, row["status"], row["kind"])
            self._texts[seq] = found
            if len(self._texts) > KEPT_LINES:
                self._texts.popitem(last=False)
        return found

    def words(self, row: Mapping[str, Any], lines: Lines) -> tuple[str, str]:
        """What happened in an event, and what came of it."""
        return self._spoken(row) or lines.texts(row)

    def _spoken(self, row: Mapping[str, Any]) -> tuple[str, str] | None:
        """A call of a host that Python serves, with the bytes that crossed in the place of the arguments that point to them; None
        for anything else."""
        name = row["import"] or ""
        entry = self._imports.get(name)
        if row["kind"] != "call" or entry is None or entry.host == "wasi" or len(row["args"]) != len(entry.params):
            return None
        if not set(entry.params) <= {"i32", "i64"}:
            return None
        carried = pieces(row["record"], row["chunks_at"])
        said: list[str | bytes] = []
        answers: list[bytes] = []
        at = 0
        while at < len(row["args"]):
            word = row["args"][at]
            room = row["args"][at + 1] if at + 1 < len(row["args"]) else -1
            piece = next((p for p in carried if p.address == word and len(p.data) <= room), None)
            if piece is None or (piece.sent and len(piece.data) != room):
                said += values([word], entry.params[at : at + 1])
                at += 1
                continue
            (said if piece.sent else answers).append(piece.data)
            at += 2
        results = [] if entry.errno else values(row["results"], entry.results)
        # Where there is an answer, it matters more than the question.
        limit = 24 if answers else 96
        given = (one if isinstance(one, str) else quoted(one, limit) for one in said)
        return f"{printable(entry.name)}({', '.join(given)})", " ".join([*results, *(quoted(one, 96) for one in answers)])

    def ready(self, seq: int) -> bool:
        """Whether `text` needs no reading."""
        return seq in self._texts or self.at_hand(seq)

    def at_hand(self, seq: int) -> bool:
        """Whether `event` and `bytes_of` need no reading."""
        return self._window_of(seq) in self._windows

    def load(self, seq: int) -> None:
        """Reads the window of an event."""
        self._batch(self._window_of(seq))

    def event(self, seq: int) -> dict[str, Any]:
        """An event with all its columns."""
        number = self._window_of(seq)
        rows: list[dict[str, Any]] = self._batch(number).slice(seq - self._firsts[number], 1).to_pylist()
        return rows[0]

    def parts(self, seq: int) -> Iterator[dict[str, Any]]:
        """The records that continue an event whose payload was too large for one, up to its return."""
        columns = ["seq", "of", "kind", "status", "detail", "results", "duration_ns", "record", "chunks_at"]
        for number in range(self._window_of(seq), self.windows):
            batch = self._read(number, ["of"])
            of = pc.fill_null(pc.equal(batch.column("of"), seq), False)
            if of.true_count:
                for row in self._read(number, columns).filter(of).to_pylist():
                    yield row
                    if row["kind"] == "return":
                        return

    def bytes_of(self, seq: int) -> tuple[int, int, int] | None:
        """The guest's bytes that an event was about, as (memory, address, length): what the host read, else what it wrote."""
        row = self.event(seq)
        carried = [piece for piece in pieces(row["record"], row["chunks_at"]) if piece.data]
        if not carried or row["kind"] not in ("call", "poke"):
            return None
        if row["import"] == f"{WASI}fd_write":  # the first piece is the list of buffers
            carried = carried[1:] or carried
        chosen = next((piece for piece in carried if piece.sent), carried[0])
        return chosen.memory, chosen.address, len(chosen.data)

    def import_of(self, name: str | None) -> Import | None:
        """The import of that name, as the manifest describes it."""
        return self._imports.get(name) if name is not None else None

    def expanded(self, seq: int) -> list[str]:
        """An event in full, with its bytes."""
        return list(expanded(self.event(seq), self.manifest))

    def _window_of(self, seq: int) -> int:
        if not 0 <= seq < self.events:
            raise IndexError(seq)
        return self._reader.window_of(seq)

    def _batch(self, number: int) -> pa.RecordBatch:
        with self._lock:
            found = self._windows.get(number)
            if found is not None:
                self._windows.move_to_end(number)
                return found
        found = self._read(number, None)
        with self._lock:
            self._windows[number] = found
            if len(self._windows) > KEPT_WINDOWS:
                self._windows.popitem(last=False)
        return found

    # -- what matters

    def opening(self, diverged: int | None = None) -> int:
        """The event to open at: where the replay diverged, else what stopped the guest, the last effect or the last event."""
        if diverged is not None:
            return max(0, min(diverged, self.events - 1))
        return self._opening.find(self._layout.indexes)[0]

    @property
    def opening_known(self) -> bool:
        """Whether nothing that is still to be indexed can change `opening`."""
        return self._opening.find(self._layout.indexes)[1]

    def trap(self) -> int | None:
        """The record of the last trap, or of what stopped the guest; None if it ended by itself."""
        return matter.trap(self._layout.indexes)

    def next_effect(self, seq: int, reverse: bool = False, least: int = FILE) -> int | None:
        """The next event behind `seq`, or the last before it, that changed something outside."""
        return matter.next_effect(self._layout.indexes, seq, reverse, least)

    def effects(self, most: int = 4000) -> list[tuple[int, int]]:
        """(event, how much it matters) of what hosts were told, and asked if there is room: marks for a time line."""
        return matter.effects(self._layout.indexes, most)

    def output(self, before: int, most: int = 200) -> list[tuple[int, int, bytes]]:
        """(event, descriptor, bytes) of the last writes to stdout and stderr before an event, in order."""
        return matter.output(self._layout.indexes, self.event, before, most)

    @property
    def has_output(self) -> bool:
        """Whether the guest wrote to stdout or stderr, as far as is indexed."""
        return matter.has(self._layout.indexes, OUTPUT)
