"""What took time: calls of exports and spans as stretches of the execution, and what went wrong as points of it.

Found once, column by column, for recordings of any length; a time line then looks up what each of its columns shows. Knows events
by number and, once the session has placed them, by the clock: instructions begun. Nothing here knows a screen.
"""

from __future__ import annotations

import threading
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from traces.columns import printable
from traces.tables import RUN_SPAN, EventsReader, read_spans
from traces.tracedir import EVENTS, SPANS, Trace

MOST: Final = 1 << 20
"""Stretches of one lane that are kept, the first ones; problems likewise."""
LEVELS: Final = 2
"""How deep nesting is shown."""
_CLOSERS: Final = ("return", "trap", "exit", "stop")
_PAGE: Final = 4096


@dataclass(frozen=True)
class Lane:
    """Stretches that follow each other without overlapping, in order."""

    name: str
    """exports or spans."""
    level: int
    """0 for the outermost; those of level 1 lie inside them."""
    firsts: Sequence[int] = field(repr=False)
    """The event each begins with."""
    lasts: Sequence[int] = field(repr=False)
    """The event each ends with."""
    begins: Sequence[int] = field(repr=False)
    """The event behind which it begins, if that is not where its first happens: of a call that is told in one event, the one
    before; -1 is the start."""
    labels: Sequence[str] = field(repr=False)
    """Of each: what it is called."""
    kinds: Sequence[str] = field(repr=False)
    """Of each: "export", or the span's kind; "bad" if it failed."""
    starts: Sequence[int] = field(default=(), repr=False)
    """The clock at which each begins; empty until they are placed."""
    stops: Sequence[int] = field(default=(), repr=False)
    """The clock at which each ends."""

    def __len__(self) -> int:
        return len(self.firsts)

    def placed(self, clocks: Callable[[Sequence[int]], Sequence[int]], known: int, end: int) -> Lane:
        """With clocks, as far as the replay came: `clocks` tells those at which events were over, `known` how many it knows."""
        count = bisect_left(self.begins, known)
        firsts, lasts, begins = self.firsts[:count], self.lasts[:count], self.begins[:count]
        stops = clocks([min(last, known - 1) for last in lasts])
        stops = [clock if last < known else end for clock, last in zip(stops, lasts, strict=True)]
        return replace(
            self, firsts=firsts, lasts=lasts, begins=begins, labels=self.labels[:count], kinds=self.kinds[:count],
            starts=clocks(begins), stops=stops,
        )  # fmt: skip

    def at(self, low: int, high: int) -> int | None:
        """The first stretch that touches the clocks from `low` up to, not including, `high`; None if there is none."""
        at = bisect_left(self.stops, low)
        return at if at < len(self) and self.starts[at] < high else None

    def beginning(self, low: int, high: int) -> int:
        """How many begin from `low` up to, not including, `high`."""
        return bisect_left(self.starts, high) - bisect_left(self.starts, low)


@dataclass(frozen=True)
class Survey:
    """What there is for a time line to show, besides how many events."""

    lanes: tuple[Lane, ...]
    problems: Sequence[int] = field(repr=False)
    """Events that were denied or failed, trapped the guest or stopped it."""
    clocks: Sequence[int] = field(default=(), repr=False)
    """Where they are; empty until they are placed, shorter if the replay did not come to all of them."""

    def placed(self, clocks: Callable[[Sequence[int]], Sequence[int]], known: int, end: int) -> Survey:
        """With clocks; see `Lane.placed`."""
        reached = bisect_left(self.problems, known)
        lanes = tuple(lane.placed(clocks, known, end) for lane in self.lanes)
        return Survey(tuple(lane for lane in lanes if len(lane)), self.problems, clocks(self.problems[:reached]))

    def next_problem(self, seq: int, reverse: bool = False) -> int | None:
        """The first behind an event, or the last before it."""
        at = bisect_left(self.problems, seq) - 1 if reverse else bisect_right(self.problems, seq)
        return self.problems[at] if 0 <= at < len(self.problems) else None


def survey(trace: Trace, goes_on: Callable[[], bool] = lambda: True, told: Callable[[int], None] | None = None) -> Survey | None:
    """Looks through a recording once; None if it was not to go on. `told` hears how many events were looked at.

    Takes files of its own, so it may run in a thread beside other readers. Raises TraceError.
    """
    exports, problems = _Exports(), array("q")
    failing = {entry.qualified for entry in trace.manifest.imports if entry.host != "wasi"}
    columns = ["seq", "kind", "import", "target", "depth", "status", "of"]
    with EventsReader(trace.path / EVENTS) as reader:
        for window in range(reader.window_count):
            if not goes_on():
                return None
            batch = reader.batch(window, columns)
            if batch.num_rows:
                exports.take(batch)
                problems.extend(_problems(batch, failing))
            if told is not None:
                told(reader.first_of(window + 1))
        last = reader.rows - 1
    lanes = [*exports.lanes(last), *_span_lanes(trace)]
    return Survey(tuple(lane for lane in lanes if len(lane)), array("q", sorted(set(problems[:MOST]))))


class _Exports:
    """Calls of exports, collected window by window."""

    def __init__(self) -> None:
        self._opened: list[tuple[array[int], array[int], list[str], list[str]]] = [
            (array("q"), array("q"), [], []) for _ in range(LEVELS)
        ]
        """By level: event, 1 if it is over in that one event, name, kind."""
        self._closed: dict[int, tuple[int, bool]] = {}
        """Event that ended one, and whether badly, by the event that began it."""

    def take(self, batch: pa.RecordBatch) -> None:
        kind = pc.cast(batch.column("kind"), pa.string())
        opens = pc.is_in(kind, value_set=pa.array(("export", "callback")))
        # Inside an export are calls of imports, inside these callbacks: every other depth is one of ours.
        found = batch.filter(pc.and_(opens, pc.less(batch.column("depth"), 2 * LEVELS)))
        names = ("seq", "depth", "target", "status")
        for seq, depth, target, status in zip(*(found.column(name).to_pylist() for name in names), strict=True):
            seqs, whole, labels, kinds = self._opened[depth // 2]
            if len(seqs) < MOST:
                seqs.append(seq)
                whole.append(status != "open")
                labels.append(printable(target) if target is not None else "start")
                kinds.append("bad" if status in ("trap", "denied") else "export")
        closes = pc.and_(pc.is_in(kind, value_set=pa.array(_CLOSERS)), pc.is_null(batch.column("import")))
        closers = batch.filter(pc.and_(closes, pc.is_valid(batch.column("of"))))
        for of, seq, ended in zip(
            closers.column("of").to_pylist(), closers.column("seq").to_pylist(), closers.column("kind").to_pylist(), strict=True
        ):
            self._closed.setdefault(of, (seq, ended in ("trap", "stop")))

    def lanes(self, last: int) -> list[Lane]:
        """`last`: the last event, which ends whatever nothing else does."""
        found = []
        for level, (seqs, whole, labels, kinds) in enumerate(self._opened):
            ends = array("q")
            for i, (seq, done) in enumerate(zip(seqs, whole, strict=True)):
                end, bad = (seq, False) if done else self._closed.get(seq, (last, False))
                ends.append(end)
                kinds[i] = "bad" if bad else kinds[i]
            begins = array("q", (seq - done for seq, done in zip(seqs, whole, strict=True)))
            found.append(Lane("exports", level, seqs, ends, begins, labels, kinds))
        return found


def _problems(batch: pa.RecordBatch, failing: set[str]) -> list[int]:
    """Events that were denied or trapped, or are errors of hosts. Errors of WASI's are how files are looked for."""
    status, kind = (pc.cast(batch.column(name), pa.string()) for name in ("status", "kind"))
    wrong = pc.is_in(status, value_set=pa.array(("trap", "denied")))
    ours = pc.is_in(pc.cast(batch.column("import"), pa.string()), value_set=pa.array(sorted(failing), pa.string()))
    wrong = pc.or_(wrong, pc.and_(pc.equal(status, "errno"), ours))
    found = batch.filter(pc.and_(wrong, pc.not_equal(kind, "exit")))
    return [
        of if kind == "return" and of is not None else seq
        for seq, kind, of in zip(*(found.column(name).to_pylist() for name in ("seq", "kind", "of")), strict=True)
    ]


def _span_lanes(trace: Trace) -> list[Lane]:
    """The spans, without the one that holds the whole run."""
    table = read_spans(trace.path / SPANS)
    ids, parents = table.column("span_id").to_pylist(), table.column("parent").to_pylist()
    level: dict[int, int] = {RUN_SPAN: -1}
    found: list[list[tuple[int, int, str, str]]] = [[] for _ in range(LEVELS)]
    rows = zip(
        *(table.column(name).to_pylist() for name in ("start_seq", "end_seq", "name", "kind", "status")), strict=True
    )  # fmt: skip
    for id, parent, (first, last, name, kind, status) in zip(ids, parents, rows, strict=True):
        if id == RUN_SPAN:
            continue
        level[id] = level.get(parent, -1) + 1
        if level[id] < LEVELS and len(found[level[id]]) < MOST:
            bad = status not in ("ok", "unfinished")
            found[level[id]].append((first, last, printable(name), "bad" if bad else kind))
    return [_spans_of(at, sorted(spans)) for at, spans in enumerate(found)]


def _spans_of(level: int, spans: Sequence[tuple[int, int, str, str]]) -> Lane:
    firsts = array("q", (span[0] for span in spans))
    lasts = array("q", (span[1] for span in spans))
    return Lane("spans", level, firsts, lasts, firsts, [span[2] for span in spans], [span[3] for span in spans])


class Times:
    """When events happened: nanoseconds since the recording began. May be asked in any thread but the event loop's: it reads."""

    def __init__(self, trace: Trace) -> None:
        self._reader = EventsReader(trace.path / EVENTS)
        self._lock = threading.Lock()
        self._window: tuple[int, Any] = (-1, None)

    def of(self, seq: int) -> int:
        with self._lock:
            number = self._reader.window_of(seq)
            if self._window[0] != number:
                self._window = (number, self._reader.batch(number, ["time_ns"]).column(0))
            return int(self._window[1][seq - self._reader.first_of(number)].as_py())

    def close(self) -> None:
        self._reader.close()


def clocks_of(read: Callable[[int, int], Sequence[int]], events: Sequence[int]) -> list[int]:
    """The instruction that was under way as each of these events was over; -1 stands for the start. `read` gives how many had
    begun, for many events in a row."""
    found: list[int] = []
    page = -1
    begun: Sequence[int] = ()
    for seq in events:
        if seq < 0:
            found.append(0)
            continue
        if seq // _PAGE != page:
            page = seq // _PAGE
            begun = read(page * _PAGE, _PAGE)
        found.append(max(0, begun[seq % _PAGE] - 1))
    return found


def counts(read: Callable[[int, int], Sequence[int]], first: int, last: int, low: int, high: int, columns: int) -> list[int]:
    """How many of the events from `first` up to, not including, `last` are in each of equally wide columns of [low, high)."""
    found = [0] * columns
    for start in range(first, last, 1 << 16):
        clocks = pa.array(read(start, min(1 << 16, last - start)), pa.int64())
        marks = pc.max_element_wise(pc.subtract(clocks, 1), 0)
        marks = marks.filter(pc.and_(pc.greater_equal(marks, low), pc.less(marks, high)))
        at = pc.divide(pc.multiply(pc.subtract(marks, low), columns), high - low)
        for one in pc.value_counts(at).to_pylist():
            found[one["values"]] += one["counts"]
    return found


def duration(nanoseconds: int) -> str:
    """A time in a few digits."""
    for unit, name in ((1_000_000_000, "s"), (1_000_000, "ms"), (1_000, "µs")):
        if abs(nanoseconds) >= unit:
            return f"{nanoseconds / unit:.3g} {name}" if abs(nanoseconds) < 1000 * unit else f"{nanoseconds // unit:,} {name}"
    return f"{nanoseconds} ns"
