"""The events of a trace as a story: runs of one import folded, effects on the world marked, and where it gets interesting.

Millions of rows are never rows here. What is kept per window of the recording are the boundaries of its runs; the text of an
event is made when it is shown, from a window that is read then and forgotten again. Rows are counted as they are shown: a folded
run is one of them, and an unfolded one is as many as it holds, with its heading.
"""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from traces.columns import printable
from traces.manifest import Import, Manifest
from traces.render import WASI, Lines, expanded, pieces, quoted, values, written
from traces.tables import EventsReader
from traces.tracedir import EVENTS, Trace

FOLD: Final = 3
"""Events of one import in a row from which they are shown as one."""
FOLD_EFFECTS: Final = 8
"""The same for effects: a few payments in a row are each worth a line."""
KEPT_WINDOWS: Final = 6
KEPT_LINES: Final = 4096

QUIET, TALK, OUTPUT, FILE, WORLD = range(5)
"""How much an event matters to the world: not; a host was asked; stdout or stderr; files and sockets; a host was told to act."""
_FILE_EFFECTS: Final = frozenset(
    ("fd_pwrite", "fd_allocate", "fd_filestat_set_size", "path_create_directory", "path_link", "path_remove_directory",
     "path_rename", "path_symlink", "path_unlink_file", "sock_send", "sock_shutdown")
)  # fmt: skip


@dataclass(frozen=True)
class Block:
    """A stretch of events that are shown alike: a run of one import that folds, or events that each have a row."""

    first: int
    count: int
    folds: bool


@dataclass(frozen=True)
class Row:
    """One line of the story."""

    seq: int
    """Number of the event; of a folded run, of its first."""
    count: int
    """Events it stands for; 1 unless it is a run's heading."""
    effect: int
    name: str
    folded: bool
    """A run that is shown as this one line; False also for the heading of an unfolded one."""
    inside: bool
    """One event of an unfolded run."""


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


class Index:
    """The runs of one window, in a few bytes each: events in a row that have import, kind, status and effect in common."""

    def __init__(self, batch: pa.RecordBatch, first: int, args: Any, hosts: Mapping[str, str]) -> None:
        self.first = first
        self.rows: int = batch.num_rows
        self.starts: Sequence[int] = ()
        """Where each run begins, counted in the window."""
        self.effects = b""
        """How much each run matters."""
        self.folds: list[tuple[int, int]] = []
        """(number of the run, events) of those that fold."""
        self.trap: int | None = None
        """The first record of a trap, or else of a stop: out of fuel, out of time."""
        self._words: list[str] = []
        self._names: Sequence[int] = ()
        if self.rows:
            self._read(batch, args, hosts)

    def _read(self, batch: pa.RecordBatch, args: Any, hosts: Mapping[str, str]) -> None:
        kinds, statuses, imports = (batch.column(name) for name in ("kind", "status", "import"))
        kind_words, import_words = kinds.dictionary.to_pylist(), imports.dictionary.to_pylist()
        effect = _effects(batch, args, hosts)
        of_kind = pc.cast(kinds.indices, pa.int32())
        # What a run is called: its import, or else its kind.
        name = pc.coalesce(pc.cast(imports.indices, pa.int32()), pc.add(of_kind, len(import_words)))
        self._words = [*import_words, *kind_words]
        key = pc.add(pc.multiply(pc.cast(name, pa.int64()), 65536), pc.multiply(pc.cast(of_kind, pa.int64()), 1024))
        key = pc.add(key, pc.add(pc.multiply(pc.cast(statuses.indices, pa.int64()), 16), pc.cast(effect, pa.int64())))
        ends = pc.run_end_encode(key).run_ends
        starts = pa.concat_arrays([pa.array([0], ends.type), ends.slice(0, len(ends) - 1)])
        counts = pc.subtract(ends, starts)
        run_effect = effect.take(starts)
        self.starts, self.effects = _ints(starts), bytes(_buffer(run_effect))
        self._names = _ints(name.take(starts))
        call = kind_words.index("call") if "call" in kind_words else -1
        least = pc.if_else(pc.greater_equal(run_effect, FILE), FOLD_EFFECTS, FOLD)
        folds = pc.and_(pc.equal(of_kind.take(starts), call), pc.greater_equal(counts, least))
        numbers = pc.indices_nonzero(folds)
        self.folds = list(zip(numbers.to_pylist(), counts.take(numbers).to_pylist(), strict=True))
        for kind in ("stop", "trap"):
            if kind in kind_words:
                found = pc.indices_nonzero(pc.equal(of_kind, kind_words.index(kind)))
                self.trap = self.first + found[0].as_py() if len(found) else self.trap

    def run_at(self, row: int) -> int:
        """The run that holds a row of the window."""
        return bisect_right(self.starts, row) - 1

    def name(self, run: int) -> str:
        return self._words[self._names[run]]

    def span(self, run: int) -> tuple[int, int]:
        """First event of a run, and the one behind its last."""
        end = self.starts[run + 1] if run + 1 < len(self.starts) else self.rows
        return self.first + self.starts[run], self.first + end

    def blocks(self) -> Iterator[Block]:
        at = self.first
        for number, count in self.folds:
            start = self.first + self.starts[number]
            if start > at:
                yield Block(at, start - at, False)
            yield Block(start, count, True)
            at = start + count
        if at < self.first + self.rows:
            yield Block(at, self.first + self.rows - at, False)


def _buffer(array: Any) -> memoryview:
    """The values of an array without nulls, as they lie in memory."""
    flat = pa.concat_arrays([array])
    width = flat.type.bit_width // 8
    return memoryview(flat.buffers()[1]).cast("B")[flat.offset * width : (flat.offset + len(flat)) * width]


def _ints(array: Any) -> memoryview:
    return _buffer(array.cast(pa.int32())).cast("i")


def _effects(batch: pa.RecordBatch, args: Any, hosts: Mapping[str, str]) -> pa.Array:
    """How much each row matters, looking at each name once."""
    imports = batch.column("import")
    words: list[str | None] = imports.dictionary.to_pylist()
    classes = [_class_of(word or "", hosts) for word in words]
    by_import = pa.array(classes, pa.int8()).take(imports.indices) if words else pa.nulls(batch.num_rows, pa.int8())
    effect = pc.fill_null(by_import, QUIET)
    call = pc.equal(pc.cast(batch.column("kind"), pa.string()), "call")
    effect = pc.if_else(call, effect, pa.scalar(QUIET, pa.int8()))
    # A host that is given something and gives no bytes back was told to do something; one that answers was asked.
    told = pc.and_(pc.equal(effect, WORLD), pc.greater(batch.column("received"), 0))
    effect = pc.if_else(told, pa.scalar(TALK, pa.int8()), effect)
    if args is not None:
        # fd_write to 1 and 2 is output; to anything else it changes a file.
        write = pc.fill_null(pc.equal(pc.cast(imports, pa.string()), f"{WASI}fd_write"), False)
        first = pc.list_element(pc.if_else(write, args, pa.scalar([0], args.type)), 0)
        shown = pc.and_(write, pc.is_in(first, value_set=pa.array([1, 2], first.type)))
        effect = pc.if_else(shown, pa.scalar(OUTPUT, pa.int8()), effect)
    return effect


def _class_of(name: str, hosts: Mapping[str, str]) -> int:
    if name.startswith(WASI):
        operation = name.removeprefix(WASI)
        return FILE if operation in _FILE_EFFECTS or operation == "fd_write" else QUIET
    return WORLD if hosts.get(name) in ("python", "defined") else QUIET


class Story:
    """The events of a trace, as rows that are made when they are looked at.

    `index` may run in another thread; everything else belongs to one.
    """

    def __init__(self, trace: Trace) -> None:
        self.manifest: Manifest = trace.manifest
        self._reader = EventsReader(trace.path / EVENTS)
        self._groups: list[Index] = []
        self._blocks: list[Block] = []
        self._firsts: list[int] = []
        """First event of each block."""
        self._tops: list[int] = [0]
        """First row of each block as shown, and the number of rows behind the last."""
        self._open: set[int] = set()
        """First events of the runs that are unfolded."""
        self._windows: OrderedDict[int, pa.RecordBatch] = OrderedDict()
        self._texts: OrderedDict[int, Text] = OrderedDict()
        self._imports: dict[str, Import] = {}
        for entry in self.manifest.imports:
            self._imports.setdefault(entry.qualified, entry)
        self._hosts = {entry.qualified: entry.host for entry in self.manifest.imports}
        self._lines = Lines(self.manifest)
        self._lock = threading.Lock()

    @property
    def events(self) -> int:
        """Events of the recording."""
        return self._reader.rows

    @property
    def indexed(self) -> int:
        """Events that are indexed."""
        return self._groups[-1].first + self._groups[-1].rows if self._groups else 0

    @property
    def complete(self) -> bool:
        return len(self._groups) == self._reader.window_count

    def close(self) -> None:
        self._reader.close()

    # -- the index

    def read_index(self) -> Iterator[Index]:
        """Reads the windows that are not indexed yet, in order. Give each to `add`; the reading may be done in another thread."""
        for number in range(len(self._groups), self._reader.window_count):
            first = self._reader.first_of(number)
            batch = self._reader.batch(number, ["kind", "import", "status", "received"])
            names = batch.column("import").dictionary.to_pylist()
            args = None
            if f"{WASI}fd_write" in names:
                args = self._reader.batch(number, ["args"]).column("args")
            yield Index(batch, first, args, self._hosts)

    def add(self, index: Index) -> None:
        """Takes the index of the next window in."""
        before = self._groups[-1] if self._groups else None
        self._groups.append(index)
        blocks = list(index.blocks())
        last = self._blocks[-1] if self._blocks else None
        if before is not None and last is not None and blocks:
            # Neither a run nor a stretch ends where a window happens to.
            first = blocks[0]
            same = before.name(len(before.starts) - 1) == index.name(0) and before.effects[-1] == index.effects[0]
            if last.folds == first.folds and (same or not first.folds):
                self._blocks[-1] = Block(last.first, last.count + first.count, last.folds)
                self._tops[-1] = self._tops[-2] + self._height(self._blocks[-1])
                blocks = blocks[1:]
        for block in blocks:
            self._blocks.append(block)
            self._firsts.append(block.first)
            self._tops.append(self._tops[-1] + self._height(block))

    def index(self) -> None:
        """Indexes everything, here and now."""
        for index in self.read_index():
            self.add(index)

    def _height(self, block: Block) -> int:
        if not block.folds:
            return block.count
        return 1 + block.count if block.first in self._open else 1

    def _run(self, seq: int) -> tuple[Index, int]:
        """The run that holds an event, and the window it is in."""
        group = self._groups[bisect_right(self._groups, seq, key=lambda one: one.first) - 1]
        return group, group.run_at(seq - group.first)

    # -- rows

    @property
    def rows(self) -> int:
        """Rows as shown, of what is indexed."""
        return self._tops[-1]

    def row(self, number: int) -> Row:
        """One row as shown. Raises IndexError."""
        if not 0 <= number < self.rows:
            raise IndexError(number)
        at = bisect_right(self._tops, number) - 1
        block, inside = self._blocks[at], number - self._tops[at]
        seq = block.first + (inside if not block.folds else max(0, inside - 1))
        group, run = self._run(seq)
        effect, name = group.effects[run], group.name(run)
        if block.folds and inside == 0:
            return Row(block.first, block.count, effect, name, block.first not in self._open, False)
        return Row(seq, 1, effect, name, False, block.folds)

    def row_of(self, seq: int) -> int:
        """The row that shows an event; of a folded run, its line. 0 if there is none yet."""
        if not self._blocks:
            return 0
        at = max(0, bisect_right(self._firsts, seq) - 1)
        block = self._blocks[at]
        inside = min(max(0, seq - block.first), block.count - 1)
        if not block.folds:
            return self._tops[at] + inside
        return self._tops[at] + (1 + inside if block.first in self._open else 0)

    def toggle(self, number: int) -> int | None:
        """Folds or unfolds the run a row belongs to; returns the row its heading is in then, None if there is no run."""
        if not 0 <= number < self.rows:
            return None
        at = bisect_right(self._tops, number) - 1
        block = self._blocks[at]
        if not block.folds:
            return None
        change = block.count if block.first not in self._open else -block.count
        self._open.symmetric_difference_update((block.first,))
        self._tops[at + 1 :] = [top + change for top in self._tops[at + 1 :]]
        return self._tops[at]

    # -- texts

    def text(self, seq: int) -> Text:
        """An event in words. Reads its window if that is not at hand: see `ready`."""
        found = self._texts.get(seq)
        if found is None:
            row = self.event(seq)
            head, outcome = self._spoken(row) or self._lines.texts(row)
            found = Text(seq, row["depth"], head, outcome, row["status"], row["kind"])
            self._texts[seq] = found
            if len(self._texts) > KEPT_LINES:
                self._texts.popitem(last=False)
        return found

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
        return seq in self._texts or self._window_of(seq) in self._windows

    def load(self, seq: int) -> None:
        """Reads the window of an event; may be called in any thread."""
        self._batch(self._window_of(seq))

    def event(self, seq: int) -> dict[str, Any]:
        """An event with all its columns."""
        number = self._window_of(seq)
        first = self._reader.first_of(number)
        rows: list[dict[str, Any]] = self._batch(number).slice(seq - first, 1).to_pylist()
        return rows[0]

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
        found = self._reader.batch(number)
        with self._lock:
            self._windows[number] = found
            if len(self._windows) > KEPT_WINDOWS:
                self._windows.popitem(last=False)
        return found

    # -- what matters

    def opening(self, diverged: int | None = None) -> int:
        """The event to open at: where the replay diverged, else the trap, else the last effect, else the last event."""
        if not self.events:
            return 0
        if diverged is not None:
            return min(diverged, self.events - 1)
        trap = self.trap()
        if trap is not None:
            return trap
        for wanted in (WORLD, FILE, OUTPUT):
            found = self._seek(self.events, True, bytes([wanted]))
            if found is not None:
                return found
        return self.events - 1

    def trap(self) -> int | None:
        """The record of the last trap, or of what stopped the guest; None if it ended by itself."""
        return next((group.trap for group in reversed(self._groups) if group.trap is not None), None)

    def next_effect(self, seq: int, reverse: bool = False, least: int = FILE) -> int | None:
        """The next event behind `seq`, or the last before it, that changed something outside."""
        return self._seek(seq, reverse, bytes(range(least, WORLD + 1)))

    def _seek(self, seq: int, reverse: bool, wanted: bytes) -> int | None:
        """The nearest event behind `seq`, or before it, that matters as much as one of `wanted`."""
        for group in reversed(self._groups) if reverse else self._groups:
            if group.first >= seq if reverse else group.first + group.rows <= seq + 1:
                continue
            if reverse:
                top = group.run_at(min(seq - 1 - group.first, group.rows - 1)) + 1
                run = max(group.effects.rfind(one, 0, top) for one in wanted)
                if run >= 0:
                    return min(group.span(run)[1], seq) - 1
            else:
                low = group.run_at(max(0, seq + 1 - group.first))
                runs = [run for one in wanted if (run := group.effects.find(one, low)) >= 0]
                if runs:
                    return max(group.span(min(runs))[0], seq + 1)
        return None

    def effects(self, most: int = 4000) -> list[tuple[int, int]]:
        """(event, how much it matters) of what hosts were told, and asked if there is room: marks for a time line."""
        found: list[tuple[int, int]] = []
        for wanted in (WORLD, FILE, TALK):
            for group in self._groups:
                run = group.effects.find(wanted)
                while run >= 0 and len(found) < most:
                    found.append((group.span(run)[0], wanted))
                    run = group.effects.find(wanted, run + 1)
        return sorted(found)

    def output(self, before: int, most: int = 200) -> list[tuple[int, int, bytes]]:
        """(event, descriptor, bytes) of the last writes to stdout and stderr before an event, in order."""
        found: list[tuple[int, int, bytes]] = []
        at = before
        while len(found) < most:
            earlier = self._seek(at, True, bytes([OUTPUT]))
            if earlier is None:
                break
            at = earlier
            row = self.event(at)
            carried = pieces(row["record"], row["chunks_at"])
            status = row["status"]
            for later in range(at + 1, min(before, at + 4096)) if status == "open" else ():
                more = self.event(later)
                if more["of"] == at:
                    carried += pieces(more["record"], more["chunks_at"])
                    if more["kind"] == "return":
                        status = more["status"]
                        break
            if status == "ok":
                found.append((at, row["args"][0], written(row["args"], carried, 3)))
        return found[::-1]

    @property
    def has_output(self) -> bool:
        """Whether the guest wrote to stdout or stderr, as far as is indexed."""
        return any(OUTPUT in group.effects for group in self._groups)
