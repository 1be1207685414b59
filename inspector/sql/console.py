"""Statements over a trace, without a screen: they run one after another in a thread, and can be cancelled from any other.

Whoever wants something posts it and goes on; answers are told as reports, from the console's thread. What is kept of a result
is bounded; an export of a larger one runs the statement again, and keeps nothing. What a statement may do, `traces.query` says.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import pyarrow as pa

from inspector.sql import export
from inspector.sql.cells import natural_width
from inspector.sql.history import History
from replayer.watching import Cancelled, Watch
from traces._errors import RepriseError, UsageError
from traces.query import Database, Functions

ROWS: Final = 1_000_000
"""Rows that are kept of a result."""
BYTES: Final = 256 << 20
"""Bytes behind which no more rows are kept."""
_FIRST: Final = ("runs", "events", "spans", "states", "files", "output", "network")
COMPUTED: Final = {
    "calls": (
        "calls('function')",
        "function BIGINT, name VARCHAR, mark BIGINT, end_mark BIGINT, instructions BIGINT, depth BIGINT",
    ),
    "writes": (
        "writes(address, length)",
        "mark BIGINT, step BIGINT, by VARCHAR, event BIGINT, memory BIGINT, address BIGINT, old BLOB, new BLOB, "
        "function VARCHAR, where VARCHAR, pc BIGINT",
    ),
}
"""Relations that are computed when they are asked for: how they are called, and their columns."""


@dataclass(frozen=True)
class Relation:
    """Something to select from."""

    name: str
    """As it is written: `events`, or `calls('function')`."""
    columns: tuple[tuple[str, str], ...]
    """Names and types."""


@dataclass(frozen=True)
class Schema:
    relations: tuple[Relation, ...]
    reserved: frozenset[str]
    """Words that are names only in quotes."""


@dataclass(frozen=True)
class Result:
    sql: str
    table: pa.Table
    widths: tuple[int, ...]
    """Characters that each column needs."""
    more: bool
    """There were more rows than are kept."""
    seconds: float


@dataclass(frozen=True)
class Failed:
    why: str


@dataclass(frozen=True)
class Stopped:
    """What ran was cancelled."""

    seconds: float


@dataclass(frozen=True)
class Exported:
    path: Path
    rows: int
    size: int


@dataclass(frozen=True)
class Unkept:
    """A statement runs, but will not be in the history."""

    why: str


Batches = Generator[pa.RecordBatch, None, None]
Report = Schema | Result | Failed | Stopped | Exported | Unkept


class Console:
    """One trace, asked in SQL.

    Args:
        path: where the trace's files are.
        functions: makes what SQL may call besides, for a watch that is told of progress and may raise Cancelled.
        tell: called with every report, in the console's thread.
    """

    def __init__(
        self, path: Path, functions: Callable[[Watch], Functions], tell: Callable[[Report], None], history: History | None = None
    ) -> None:
        self.path = path
        self.history = history or History()
        self.rows = 0
        """Rows that have come so far, of what runs."""
        self._functions = functions
        self._tell = tell
        self._jobs: queue.SimpleQueue[Callable[[], Report] | None] = queue.SimpleQueue()
        self._changing = threading.Lock()
        self._waiting = 0
        """Statements and exports that were posted and are not over."""
        self._cancelled = False
        self._closing = False
        self._database: Database | None = None
        # If it must, the interpreter leaves without it: a guest may be computing.
        self._thread = threading.Thread(target=self._work, name="reprise-sql", daemon=True)

    def start(self) -> None:
        """Opens the trace, and tells its schema."""
        self._thread.start()
        self._post(self._read_schema)

    def run(self, sql: str) -> None:
        self._post(partial(self._run, sql))

    def export(self, result: Result, path: Path, replace: bool) -> None:
        """Writes a result to a file; `path` is from `export.target`."""
        self._post(partial(self._export, result, path, replace))

    @property
    def busy(self) -> bool:
        return self._waiting > 0

    @property
    def cancelling(self) -> bool:
        return self._cancelled and self.busy

    def cancel(self) -> bool:
        """Ends what runs, and what waits; whether there was anything."""
        with self._changing:
            if not self._waiting or self._cancelled:
                return self._waiting > 0
            self._cancelled = True
        threading.Thread(target=self._interrupt, name="reprise-sql-cancel", daemon=True).start()
        return True

    def close(self, patience: float = 2.0) -> None:
        """Ends what runs, and lets go of the trace. Waits no longer than told."""
        self._closing = True
        self.cancel()
        self._jobs.put(None)
        if self._thread.is_alive():
            self._thread.join(patience)

    # -- in the thread

    def _post(self, job: Callable[[], Report]) -> None:
        with self._changing:
            self._waiting += 1
        self._jobs.put(job)

    def _interrupt(self) -> None:
        """In a thread of its own: an interrupt that comes before a statement has begun is lost, so there may be several."""
        while True:
            with self._changing:
                if not self._cancelled:
                    return
                if self._database is not None:
                    self._database.interrupt()
            time.sleep(0.02)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            began = time.perf_counter()
            self.rows = 0
            try:
                self._check()
                report = job()
            except Cancelled:
                report = Stopped(time.perf_counter() - began)
            except Exception as error:  # whatever it was, it is told: a thread that died would look like one that never ends
                why = str(error) if isinstance(error, RepriseError) else f"{type(error).__name__}: {error}"
                report = Stopped(time.perf_counter() - began) if self._cancelled else Failed(why)
            with self._changing:
                self._waiting -= 1
                if not self._waiting:
                    self._cancelled = False
            if not self._closing:
                self._tell(report)
        with self._changing:
            database, self._database = self._database, None
        if database is not None:
            database.close()

    def _check(self) -> None:
        if self._cancelled:
            raise Cancelled

    def _watch(self, clock: int, events: int) -> None:
        self._check()

    def _opened(self) -> Database:
        if self._database is None:
            self._database = Database(self.path)
        return self._database

    def _batches(self, sql: str) -> tuple[pa.Schema, Batches]:
        schema, batches = self._opened().stream(sql, self._functions(self._watch))
        return schema, self._counted(batches)

    def _counted(self, batches: Batches) -> Batches:
        with contextlib.closing(batches):
            for batch in batches:
                self._check()
                self.rows += batch.num_rows
                yield batch

    def _run(self, sql: str) -> Report:
        began = time.perf_counter()
        try:
            self.history.add(sql)
        except UsageError as error:
            self._tell(Unkept(str(error)))
        schema, batches = self._batches(sql)
        kept, rows, size, more = [], 0, 0, False
        with contextlib.closing(batches):
            for batch in batches:
                if rows == ROWS or size > BYTES:
                    more = True
                    break
                kept.append(batch.slice(0, ROWS - rows))
                more = batch.num_rows > ROWS - rows
                rows += kept[-1].num_rows
                size += batch.nbytes
                if more:
                    break
        table = pa.Table.from_batches(kept, schema)
        widths = tuple(natural_width(column) for column in table.columns)
        self._check()
        return Result(sql, table, widths, more, time.perf_counter() - began)

    def _export(self, result: Result, path: Path, replace: bool) -> Report:
        if result.more:
            schema, batches = self._batches(result.sql)
        else:
            kept = result.table
            schema, batches = kept.schema, self._counted(batch for batch in kept.to_batches(max_chunksize=4096))
        with contextlib.closing(batches):
            rows, size = export.write(path, replace, schema, batches)
        return Exported(path, rows, size)

    def _read_schema(self) -> Report:
        database = self._opened()
        found: dict[str, list[tuple[str, str]]] = {}
        columns = database.ask(
            "SELECT table_name, column_name, data_type FROM duckdb_columns() WHERE NOT internal ORDER BY table_oid, column_index"
        )
        for table, column, kind in zip(*(values.to_pylist() for values in columns.columns), strict=True):
            found.setdefault(table, []).append((column, kind))
        for table in ("spans", "states"):
            if not database.ask(f"SELECT 1 FROM {table} LIMIT 1").num_rows:
                found.pop(table, None)
        order = [*(name for name in _FIRST if name in found), *(name for name in found if name not in _FIRST)]
        relations = [Relation(name, tuple(found[name])) for name in order]
        for name in self._functions(self._watch):
            call, described = COMPUTED[name]
            pairs = (pair.split(" ", 1) for pair in described.split(", "))
            relations.append(Relation(call, tuple((column, kind) for column, kind in pairs)))
        words = database.ask("SELECT keyword_name FROM duckdb_keywords() WHERE keyword_category = 'reserved'")
        return Schema(tuple(relations), frozenset(words.column(0).to_pylist()))
