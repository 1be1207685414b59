"""What is kept of every event: one small number, that says what the event is like. Runs, filters and searches start from it.

A window of the recording is told by `codes`, a number per event, and by `sorts`, what each number stands for. There are few sorts
of events and millions of events; so a recording of ten million takes ten megabytes, and finding the next effect is a search
through bytes.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from traces.render import WASI

FOLD: Final = 3
"""Events of one sort in a row from which they are shown as one."""
FOLD_PATTERN: Final = 4
"""Times that several events must follow each other in the same order to be shown as one."""
FOLD_EFFECTS: Final = 8
"""Either, with effects among them: a few payments in a row are each worth a line."""
LONGEST_PATTERN: Final = 4

QUIET, TALK, OUTPUT, FILE, WORLD = range(5)
"""How much an event matters to the world: not; a host was asked; stdout or stderr; files and sockets; a host was told to act."""
_FILE_EFFECTS: Final = frozenset(
    ("fd_write", "fd_pwrite", "fd_allocate", "fd_filestat_set_size", "path_create_directory", "path_link",
     "path_remove_directory", "path_rename", "path_symlink", "path_unlink_file", "sock_send", "sock_shutdown")
)  # fmt: skip
_WRITE: Final = f"{WASI}fd_write"
_REPEATS: Final = frozenset(("call", "data"))
"""Kinds of which many in a row are shown as one."""
_ALTERNATE: Final = frozenset(("call", "return", "data", "poke", "export", "callback"))
"""Kinds that a pattern is made of."""
_NEVER: Final = 1 << 31


class Sort(NamedTuple):
    """What events have in common that are shown alike."""

    name: str
    """The import; else the export; else the kind."""
    kind: str
    status: str
    effect: int
    has_import: bool


class Run(NamedTuple):
    """A stretch of events that repeats its first `period` of them; its end may be within one."""

    first: int
    """Counted in the window."""
    size: int
    period: int


def effect_of(name: str, hosts: Mapping[str, str]) -> int:
    """How much a call of an import can matter, at most."""
    if name.startswith(WASI):
        return FILE if name.removeprefix(WASI) in _FILE_EFFECTS else QUIET
    return WORLD if hosts.get(name) in ("python", "defined") else QUIET


def effects_of(name: str, hosts: Mapping[str, str]) -> Collection[int]:
    """Everything that a call of an import can turn out to be."""
    most = effect_of(name, hosts)
    return {WORLD: (WORLD, TALK), FILE: (FILE, OUTPUT) if name == _WRITE else (FILE,)}.get(most, (most,))


@dataclass(frozen=True, eq=False)
class Index:
    """One window. Made in any thread, never changed."""

    number: int
    first: int
    """Its first event."""
    codes: Any
    """An array of unsigned integers, as wide as they must be."""
    sorts: tuple[Sort, ...]
    """By code."""
    runs: tuple[Run, ...]
    """Those that fold, in order; they do not overlap."""

    @property
    def rows(self) -> int:
        return len(self.codes)

    def sort(self, seq: int) -> Sort:
        """What an event of this window is like."""
        return self.sorts[int(self.codes[seq - self.first].as_py())]

    def wanted(self, test: Callable[[Sort], bool]) -> Any:
        """Which of its events are of a sort that passes, as an array of booleans."""
        return pc.is_in(self.codes, value_set=self._codes(test))

    def _codes(self, test: Callable[[Sort], bool]) -> Any:
        return pa.array([code for code, sort in enumerate(self.sorts) if test(sort)], self.codes.type)

    def next(self, test: Callable[[Sort], bool], seq: int, reverse: bool = False) -> int | None:
        """The first event from `seq` on, or the last before it, of a sort that passes."""
        if not any(map(test, self.sorts)):
            return None
        codes = self._codes(test)
        at = min(max(0, seq - self.first), self.rows)
        found = pc.indices_nonzero(pc.is_in(self.codes.slice(0, at) if reverse else self.codes.slice(at), value_set=codes))
        if not len(found):
            return None
        return self.first + (int(found[-1].as_py()) if reverse else at + int(found[0].as_py()))

    def starts(self, test: Callable[[Sort], bool]) -> Iterator[int]:
        """The events of a sort that passes and that the event before is not like."""
        if not any(map(test, self.sorts)):
            return
        codes = self._codes(test)
        differs = pc.not_equal(self.codes.slice(1), self.codes.slice(0, max(0, self.rows - 1)))
        begins = pa.concat_arrays([pa.array([True]), differs])
        for at in pc.indices_nonzero(pc.and_(begins, pc.is_in(self.codes, value_set=codes))):
            yield self.first + int(at.as_py())


# -- reading -----------------------------------------------------------------------------------------------------------------

COLUMNS: Final = ("kind", "import", "target", "status")
Columns = Callable[[Sequence[str]], pa.RecordBatch]
"""Reads some columns of one window."""


def read_index(number: int, first: int, columns: Columns, hosts: Mapping[str, str]) -> Index:
    """Makes the index of one window. `hosts` says who serves each import."""
    batch = columns(COLUMNS)
    if not batch.num_rows:
        return Index(number, first, pa.array([], pa.uint8()), (), ())
    codes, sorts = _codes(batch, hosts)
    codes, sorts = _split_writes(codes, sorts, columns)
    codes, sorts = _split_answers(codes, sorts, columns)
    used = set(pc.unique(codes).to_pylist())
    width = pa.uint8() if len(sorts) <= 1 << 8 else pa.uint16() if len(sorts) <= 1 << 16 else pa.uint32()
    # A sort that was split up may have nothing left; an effect that is listed is there.
    kept = tuple(sort if code in used else sort._replace(effect=QUIET) for code, sort in enumerate(sorts))
    small = pc.cast(codes, width)
    return Index(number, first, small, kept, tuple(find_runs(small, kept)))


def _codes(batch: pa.RecordBatch, hosts: Mapping[str, str]) -> tuple[Any, list[Sort]]:
    """A code for each row, by what the four columns say, looking at each name once."""
    kinds, imports, targets, statuses = (batch.column(name) for name in COLUMNS)
    kind_words, status_words = _words(kinds), _words(statuses)
    import_words, target_words = _words(imports), _words(targets)
    named = pc.cast(imports.indices, pa.int64())
    if targets.null_count < len(targets):
        named = pc.coalesce(named, pc.add(pc.cast(targets.indices, pa.int64()), len(import_words)))
    named = pc.fill_null(named, len(import_words) + len(target_words))
    alike = pc.add(pc.multiply(named, len(kind_words)), pc.cast(kinds.indices, pa.int64()))
    alike = pc.add(pc.multiply(alike, len(status_words)), pc.cast(statuses.indices, pa.int64()))
    encoded = alike.dictionary_encode()
    sorts = []
    for key in encoded.dictionary.to_pylist():
        rest, status = divmod(key, len(status_words))
        name, kind_at = divmod(rest, len(kind_words))
        kind = kind_words[kind_at]
        is_import = name < len(import_words)
        word = [*import_words, *target_words, kind][name]
        effect = effect_of(word, hosts) if is_import and kind == "call" else QUIET
        sorts.append(Sort(word, kind, status_words[status], effect, is_import))
    return encoded.indices, sorts


def _words(column: Any) -> list[str]:
    return [word or "?" for word in column.dictionary.to_pylist()]


def _split_writes(codes: Any, sorts: list[Sort], columns: Columns) -> tuple[Any, list[Sort]]:
    """What is written to descriptors 1 and 2 is output; to anything else it changes a file."""
    args: Any = None
    for code, sort in enumerate(tuple(sorts)):
        if sort.effect == FILE and sort.name == _WRITE:
            args = columns(["args"]).column("args") if args is None else args
            mask = pc.equal(codes, code)
            descriptors = pc.list_slice(args.filter(mask), 0, 1, return_fixed_size_list=True)
            shown = pc.fill_null(pc.is_in(descriptors.flatten(), value_set=pa.array([1, 2], pa.uint64())), False)
            codes = _split(codes, code, mask, shown, len(sorts))
            sorts.append(sort._replace(effect=OUTPUT))
    return codes, sorts


def _split_answers(codes: Any, sorts: list[Sort], columns: Columns) -> tuple[Any, list[Sort]]:
    """A host that is given something and gives no bytes back was told to do something; one that answers was asked."""
    received: Any = None
    for code, sort in enumerate(tuple(sorts)):
        if sort.effect == WORLD:
            received = columns(["received"]).column("received") if received is None else received
            mask = pc.equal(codes, code)
            codes = _split(codes, code, mask, pc.greater(received.filter(mask), 0), len(sorts))
            sorts.append(sort._replace(effect=TALK))
    return codes, sorts


def _split(codes: Any, code: int, mask: Any, other: Any, new: int) -> Any:
    """Gives those of the masked rows that are `other` a new code."""
    chosen = pc.if_else(other, pa.scalar(new, codes.type), pa.scalar(code, codes.type))
    return pc.replace_with_mask(codes, mask, chosen)


# -- runs --------------------------------------------------------------------------------------------------------------------


def least(sorts: Sequence[Sort]) -> int:
    """How often a pattern must come to be folded; more than any window holds if it never is."""
    kinds = {sort.kind for sort in sorts}
    if not kinds <= (_REPEATS if len(sorts) == 1 else _ALTERNATE) or not kinds & {"call", "export", "callback", "data"}:
        return _NEVER
    if any(sort.effect >= FILE for sort in sorts):
        return FOLD_EFFECTS
    return FOLD if len(sorts) == 1 else FOLD_PATTERN


def find_runs(codes: Any, sorts: Sequence[Sort]) -> list[Run]:
    """What of a window is folded: the longest stretches that repeat themselves, and of equally long ones the simplest."""
    same = _repeats(codes, sorts)
    mixed = [run for period in range(2, LONGEST_PATTERN + 1) for run in _patterns(codes, sorts, period)]
    if not mixed:
        return same
    chosen: list[Run] = []
    for run in sorted([*same, *mixed], key=lambda one: (-one.size, one.period)):
        at = bisect_right(chosen, run)
        start = max(run.first, chosen[at - 1].first + chosen[at - 1].size) if at else run.first
        end = min(run.first + run.size, chosen[at].first) if at < len(chosen) else run.first + run.size
        left = Run(start, end - start, run.period)
        if left.size >= run.period and left.size // run.period >= least(_pattern(codes, sorts, left)):
            chosen.insert(at, left)
    return chosen


def _pattern(codes: Any, sorts: Sequence[Sort], run: Run) -> list[Sort]:
    return [sorts[code] for code in codes.slice(run.first, run.period).to_pylist()]


def _stretches(codes: Any, period: int) -> tuple[Any, Any]:
    """Where stretches that repeat themselves after `period` events begin, and how many events they have."""
    size = len(codes)
    if size <= period:
        return pa.array([], pa.int32()), pa.array([], pa.int32())
    runs = pc.run_end_encode(pc.equal(codes.slice(period), codes.slice(0, size - period)))
    ends = runs.run_ends
    starts = pa.concat_arrays([pa.array([0], ends.type), ends.slice(0, len(ends) - 1)])
    return starts.filter(runs.values), pc.add(pc.subtract(ends, starts), period).filter(runs.values)


def _repeats(codes: Any, sorts: Sequence[Sort]) -> list[Run]:
    starts, counts = _stretches(codes, 1)
    needed = pa.array([least([sort]) for sort in sorts], pa.int64()).take(codes.take(starts))
    folds = pc.greater_equal(counts, needed)
    return [Run(a, n, 1) for a, n in zip(starts.filter(folds).to_pylist(), counts.filter(folds).to_pylist(), strict=True)]


def _patterns(codes: Any, sorts: Sequence[Sort], period: int) -> Iterator[Run]:
    starts, counts = _stretches(codes, period)
    long = pc.greater_equal(counts, period * FOLD_PATTERN)
    for first, count in zip(starts.filter(long).to_pylist(), counts.filter(long).to_pylist(), strict=True):
        pattern = codes.slice(first, period).to_pylist()
        simpler = any(period % p == 0 and pattern == pattern[:p] * (period // p) for p in range(1, period))
        if not simpler and count // period >= least([sorts[code] for code in pattern]):
            yield Run(first, count, period)
