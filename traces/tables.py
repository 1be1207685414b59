"""The Parquet tables of a trace: how `events.parquet`, `spans.parquet` and `states.parquet` are written, read and checked.

Owns the encodings, the rule that a row group is a window of the journal, and the finish by rename: a table that is not whole
stands as `NAME.parquet.partial`. Readers take files from strangers: sizes are looked at before anything is allocated, and damage
is a TraceError of one line.

`seq`, `start_seq` and so on count journal records from 0; times are nanoseconds since the recording began.
"""

from __future__ import annotations

import bisect
import os
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate
from json import dumps
from pathlib import Path
from types import TracebackType
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from traces._errors import RecordingError, TraceError
from traces.columns import SCHEMA, Columniser
from traces.layout import HEADER_SIZE, MAX_WINDOW
from traces.manifest import Export, Import, Manifest
from traces.states import StateLike, StateRow

COLUMN_LIMIT: Final = 1 << 30
"""Bytes that one column of one row group may take, at most; readers refuse more before they allocate."""

_DICTIONARY = ("kind", "import", "target", "status", "detail")
_READERS = 2
_BATCH = 1 << 16
"""Rows the encoder takes at a time; larger than Arrow's choice, and measurably faster."""
_WORDS = ("args.list.element", "results.list.element")
"""Plain and LZ4: hashing every word for a dictionary costs more than all other columns but the records."""
_DELTA = ("seq", "time_ns", "of", "span")
_PLAIN = ("depth", "duration_ns", "sent", "received", "chunks_at")
"""LZ4 as they are: hardly larger than delta-encoded, at a third of the time."""

STATES_SCHEMA: Final = pa.schema(
    [
        pa.field("seq", pa.int64(), nullable=False),
        pa.field("what", pa.dictionary(pa.int32(), pa.string()), nullable=False),
        pa.field("index", pa.int32(), nullable=False),
        pa.field("name", pa.dictionary(pa.int32(), pa.string())),
        pa.field("size", pa.int64(), nullable=False),
        pa.field("digest", pa.binary(32), nullable=False),
        pa.field("pages", pa.list_(pa.field("item", pa.binary(32), nullable=False))),
        pa.field("value", pa.binary(16)),
    ]
)

SPANS_SCHEMA: Final = pa.schema(
    [
        pa.field("span_id", pa.int64(), nullable=False),
        pa.field("parent", pa.int64()),
        pa.field("name", pa.string(), nullable=False),
        pa.field("kind", pa.dictionary(pa.int32(), pa.string()), nullable=False),
        pa.field("start_seq", pa.int64(), nullable=False),
        pa.field("end_seq", pa.int64(), nullable=False),
        pa.field("start_ns", pa.int64(), nullable=False),
        pa.field("duration_ns", pa.int64()),
        pa.field("status", pa.dictionary(pa.int32(), pa.string()), nullable=False),
        pa.field("attributes", pa.string(), nullable=False),
    ]
)

RUN_SPAN: Final = -1
"""`span_id` of the span that holds the whole run; every other id is the `seq` of the call that opened it."""


@dataclass(frozen=True)
class Problem:
    """One way in which a table is not what its records say."""

    window: int
    row: int
    """`seq` of the first row that differs."""
    column: str
    """Empty when the records themselves cannot be read."""
    text: str

    def __str__(self) -> str:
        return self.text


# -- files ---------------------------------------------------------------------------------------------------------------


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turns whatever Arrow finds wrong with a file into one line."""
    try:
        yield
    except FileNotFoundError:
        raise TraceError(f"{path}: no such file; is this a trace?") from None
    except (pa.ArrowException, OSError, ValueError, KeyError, IndexError, TypeError, OverflowError, MemoryError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0][:200]
        raise TraceError(f"{path}: cannot be read ({reason}); the file is damaged, restore it from a copy") from None


class _Sink:
    """A file that gets its name when it is whole. Never overwrites."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.partial = path.with_name(path.name + ".partial")
        if path.exists():
            raise RecordingError(f"{path}: exists already; a recording never overwrites, choose another place")
        try:
            os.close(os.open(self.partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
            self.file = pa.OSFile(str(self.partial), "wb")
        except OSError as error:
            raise RecordingError(f"{self.partial}: cannot be created ({error.strerror or error})") from None

    @contextmanager
    def writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            reason = (error.strerror or str(error)).splitlines()[0]
            raise RecordingError(
                f"{self.partial}: cannot be written ({reason}); "
                f"make room, then `reprise recover {self.path.parent}` keeps what was recorded"
            ) from None

    def finish(self, sync: bool) -> None:
        with self.writing():
            self.file.close()
            if sync:
                with self.partial.open("rb") as file:
                    os.fsync(file.fileno())
            self.partial.rename(self.path)

    def abandon(self) -> None:
        self.file.close()
        self.partial.unlink(missing_ok=True)


def write_table(path: Path, table: pa.Table, *, sync: bool = False) -> None:
    """Writes a whole small table, finished by rename."""
    sink = _Sink(path)
    try:
        with sink.writing():
            pq.write_table(table, sink.file, compression="zstd", compression_level=3, write_page_checksum=True)
        sink.finish(sync)
    except BaseException:
        sink.abandon()
        raise


def read_table(path: Path, schema: pa.Schema) -> pa.Table:
    """Reads a whole small table. Raises TraceError if it is damaged, too large, or not of this schema."""
    with _reading(path), pq.ParquetFile(path, page_checksum_verification=True) as file:
        _check_schema(path, file.schema_arrow, schema)
        _check_sizes(path, file.metadata)
        table = file.read()
        table.validate()
        return table


def write_states(path: Path, states: Iterable[tuple[int, StateLike]], *, sync: bool = False) -> None:
    """Writes states, each with the number of records that had happened."""
    rows = [
        {
            "seq": seq,
            "what": state.what,
            "index": state.index,
            "name": state.name or None,
            "size": state.size,
            "digest": state.digest,
            "pages": list(state.pages) if state.what == "memory" else None,
            "value": state.value,
        }
        for seq, state in states
    ]
    plain = pa.schema([field.with_type(_plain_type(field.type)) for field in STATES_SCHEMA])
    write_table(path, pa.Table.from_pylist(rows, schema=plain).cast(STATES_SCHEMA), sync=sync)


def read_states(path: Path) -> list[StateRow]:
    with _reading(path):
        rows = read_table(path, STATES_SCHEMA).to_pylist()
        return [StateRow(**{**row, "name": row["name"] or "", "pages": tuple(row["pages"] or ())}) for row in rows]


def write_spans(path: Path, events: Path, manifest: Manifest, *, sync: bool = False) -> None:
    """Derives the spans from `events` and writes them."""
    write_table(path, spans_of(events, manifest), sync=sync)


def spans_of(events: Path, manifest: Manifest) -> pa.Table:
    """What `spans.parquet` of this trace must hold."""
    return derive_spans(events, manifest.outcome, any(entry.host == "python" for entry in manifest.imports))


def read_spans(path: Path) -> pa.Table:
    return read_table(path, SPANS_SCHEMA)


def _plain_type(kind: Any) -> Any:
    # How wide a dictionary's indices are is not the file's to say.
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _check_schema(path: Path, found: pa.Schema, wanted: pa.Schema) -> None:
    names = list(found.names)
    if names != list(wanted.names):
        raise TraceError(f"{path}: its columns are not those of a trace; restore it from a copy")
    for have, want in zip(found, wanted, strict=True):
        same_shape = pa.types.is_dictionary(have.type) == pa.types.is_dictionary(want.type)
        if not same_shape or _plain_type(have.type) != _plain_type(want.type) or have.nullable != want.nullable:
            raise TraceError(f"{path}: column {want.name} is {have.type}, not {want.type}; restore it from a copy")


def _check_sizes(path: Path, metadata: Any) -> None:
    for group in range(metadata.num_row_groups):
        row_group = metadata.row_group(group)
        for index in range(row_group.num_columns):
            column = row_group.column(index)
            if max(column.total_uncompressed_size, column.total_compressed_size) > COLUMN_LIMIT:
                raise TraceError(
                    f"{path}: column {column.path_in_schema} of row group {group} says it takes "
                    f"{column.total_uncompressed_size} bytes, more than any window can; restore it from a copy"
                )


# -- events --------------------------------------------------------------------------------------------------------------


class EventsWriter:
    """Writes `events.parquet`, one row group per window. One thread at a time; `columniser` may be looked at in between.

    A window is encoded and written while the next is parsed, so a write that fails is reported by the next call or by `close`.
    """

    def __init__(
        self, path: Path, imports: Sequence[Import], exports: Sequence[Export], start_thread: Callable[[], None] = lambda: None
    ) -> None:
        """`path`: the file, or the trace's directory. `start_thread` runs first in the encoding thread (to set its priority)."""
        path = path / "events.parquet" if path.is_dir() else path
        self.columniser = Columniser(imports, exports)
        self.path = path
        self._sink = _Sink(path)
        self._closed = False
        # The records are compressed but not dictionary- or delta-encoded: that made them 3 % smaller, and slower both ways.
        self._writer = pq.ParquetWriter(
            self._sink.file,
            SCHEMA,
            compression=dict.fromkeys(SCHEMA.names, "zstd") | dict.fromkeys((*_WORDS, *_PLAIN), "lz4"),
            compression_level={name: 1 for name in SCHEMA.names if name not in (*_PLAIN, "args", "results")},
            write_batch_size=_BATCH,
            use_dictionary=list(_DICTIONARY),
            column_encoding=dict.fromkeys(_DELTA, "DELTA_BINARY_PACKED"),
            write_statistics=["seq"],
            write_page_checksum=True,
        )
        self._pool = ThreadPoolExecutor(1, "events-writer", start_thread)
        self._pending: Future[None] | None = None

    @property
    def rows(self) -> int:
        return self.columniser.rows

    def scan(self, window: bytes | memoryview) -> int:
        """Length of the longest prefix of the window that `write_window` would take now."""
        self._wait()  # the columniser looks at a window where the one being written may lie
        return self.columniser.scan(window)

    def write_window(self, window: bytes | memoryview) -> int:
        """Appends a window; returns its number of rows. Raises TraceError, having written nothing of it, if it makes no sense."""
        batch = self.columniser.convert_in_place(window)  # good until the next window but one: written by then
        self._wait()
        rows: int = batch.num_rows
        if rows:
            self._pending = self._pool.submit(self._writer.write_batch, batch, row_group_size=rows)
        return rows

    def _wait(self) -> None:
        pending, self._pending = self._pending, None
        if pending is not None:
            with self._sink.writing():
                pending.result()

    def close(self, *, sync: bool = False) -> None:
        """Finishes the file and gives it its name; `sync` puts it on the disk first."""
        if self._closed:
            return
        try:
            self._wait()
            with self._sink.writing():
                self._writer.close()
            self._sink.finish(sync)
        except BaseException:
            self.abandon()
            raise
        self._closed = True
        self._pool.shutdown()

    def abandon(self) -> None:
        """Removes what was written."""
        if self._closed:
            return
        self._closed = True
        self._pool.shutdown()
        self._writer.is_open = False
        self._sink.abandon()

    def __enter__(self) -> EventsWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        if kind is None:
            self.close()
        else:
            self.abandon()


@dataclass(frozen=True)
class Window:
    """The records of one row group."""

    first: int
    """`seq` of its first record."""
    rows: int
    data: memoryview
    """The records, back to back."""
    offsets: memoryview
    """Where each record begins in `data` (int64), and the end: rows + 1 entries."""
    address: int
    """Of `data`, valid while this object lives."""


class EventsReader:
    """Reads `events.parquet`: the records for replay, or all columns of a window for looking."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        with _reading(path):
            self._file = pq.ParquetFile(path, page_checksum_verification=True)
            _check_schema(path, self._file.schema_arrow, SCHEMA)
            _check_sizes(path, self._file.metadata)
            metadata = self._file.metadata
            leaf = list(self._file.schema).index(next(c for c in self._file.schema if c.path == "record"))
            for group in range(metadata.num_row_groups):
                row_group = metadata.row_group(group)
                column = row_group.column(leaf)
                # Plain values carry their length; the rest is page headers.
                room = MAX_WINDOW + 4 * row_group.num_rows + (1 << 20)
                if column.total_uncompressed_size > room or row_group.num_rows * HEADER_SIZE > MAX_WINDOW:
                    raise TraceError(
                        f"{path}: window {group} says it holds {row_group.num_rows} records in "
                        f"{column.total_uncompressed_size} bytes, more than any window ({MAX_WINDOW}); restore it from a copy"
                    )
                if any("DICTIONARY" in encoding for encoding in column.encodings):
                    raise TraceError(f"{path}: window {group} stores its records as a dictionary; restore it from a copy")
            self.window_count: int = metadata.num_row_groups
            self.rows: int = metadata.num_rows
            groups = [metadata.row_group(group) for group in range(self.window_count)]
            self._first = list(accumulate((group.num_rows for group in groups), initial=0))
            self._sizes = [group.column(leaf).total_uncompressed_size for group in groups]
            self.largest_window: int = max(self._sizes, default=0)
            """No window has more bytes of records."""

    def first_of(self, index: int) -> int:
        """Number of a window's first record; for one behind the last window, how many there are."""
        return int(self._first[index])

    def window_of(self, seq: int) -> int:
        """The window that holds a record."""
        return bisect.bisect_right(self._first, seq) - 1

    def window(self, index: int) -> Window:
        """The records of one window."""
        with _reading(self.path):
            return self._window(self._read(index, ["record"]), index)

    def _window(self, table: pa.Table, index: int) -> Window:
        with _reading(self.path):
            column = table.column(0)
            chunks = [chunk for chunk in column.chunks if len(chunk)]
            array = chunks[0] if len(chunks) == 1 else pa.concat_arrays(chunks or [pa.array([], pa.large_binary())])
            rows = self._first[index + 1] - self._first[index]
            if array.null_count or len(array) != rows or array.offset:
                raise TraceError(f"{self.path}: window {index} does not have the {rows} records it says; restore it from a copy")
            _, ends, data = array.buffers()
            offsets = memoryview(ends if rows else bytes(8)).cast("B").cast("q")[: rows + 1]
            if offsets[0] != 0 or offsets[rows] > min(self._sizes[index], MAX_WINDOW):
                raise TraceError(f"{self.path}: window {index} is larger than it says; restore it from a copy")
            view = memoryview(data if data is not None else b"").cast("B")[: offsets[rows]]
            return Window(self._first[index], rows, view, offsets, data.address if data is not None else 0)

    def windows(self) -> Generator[Window, None, None]:
        """The records window by window; the next ones are decoded while the caller works on this one.

        Decoding a record takes three times as long as replaying it, so two threads do it, each with a file of its own:
        one file is not to be used by two threads.
        """
        if self.window_count < 3:
            yield from map(self.window, range(self.window_count))
            return
        own = threading.local()
        files: list[Any] = []

        def decode(index: int) -> Window:
            with _reading(self.path):
                if not hasattr(own, "file"):
                    own.file = pq.ParquetFile(self.path, metadata=self._file.metadata, page_checksum_verification=True)
                    files.append(own.file)
                table = own.file.read_row_group(index, columns=["record"], use_threads=False)
                table.validate(full=True)
                return self._window(table, index)

        coming: deque[Future[Window]] = deque()
        with ThreadPoolExecutor(_READERS, "events-reader") as pool:
            try:
                for index in range(self.window_count):
                    while len(coming) < _READERS and index + len(coming) < self.window_count:
                        coming.append(pool.submit(decode, index + len(coming)))
                    window = coming.popleft().result()
                    if index + _READERS < self.window_count:
                        coming.append(pool.submit(decode, index + _READERS))
                    yield window
            finally:
                for future in coming:
                    future.cancel()
        for file in files:
            file.close()

    def trailing(self, kind: str) -> int:
        """How many records of that kind end the recording."""
        count = 0
        for index in reversed(range(self.window_count)):
            kinds = self.batch(index, ["kind"]).column("kind").to_pylist()
            while kinds and kinds[-1] == kind:
                kinds.pop()
                count += 1
            if kinds:
                break
        return count

    def batch(self, index: int, columns: Sequence[str] | None = None) -> pa.RecordBatch:
        """The rows of one window; all columns unless named."""
        with _reading(self.path):
            return _as_batch(self._read(index, columns))

    def _read(self, index: int, columns: Sequence[str] | None) -> pa.Table:
        # One file is read by one thread at a time: two at once end in a segmentation fault.
        with self._lock:
            table = self._file.read_row_group(index, columns=columns, use_threads=False)
        table.validate(full=True)
        return table

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> EventsReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _as_batch(table: pa.Table) -> pa.RecordBatch:
    batches = table.combine_chunks().to_batches()
    return batches[0] if batches else pa.RecordBatch.from_pylist([], schema=table.schema)


# -- checking ------------------------------------------------------------------------------------------------------------


def verify_columns(path: Path, imports: Sequence[Import], exports: Sequence[Export]) -> list[Problem]:
    """Derives every column again from the records and compares. Names the first differing row of each column, in the first
    window where anything differs; empty when all agree. Raises TraceError if the file cannot be read."""
    columniser = Columniser(imports, exports)
    with EventsReader(path) as reader:
        for index, window in enumerate(reader.windows()):
            stored = reader.batch(index)
            try:
                derived = columniser.convert_in_place(window.data)
            except TraceError as error:
                return [Problem(index, window.first, "", str(error))]
            problems = list(_differences(stored, derived, index, window.first))
            if problems:
                return problems
    return []


def _differences(stored: pa.RecordBatch, derived: pa.RecordBatch, window: int, start: int) -> Iterator[Problem]:
    if stored.num_rows != derived.num_rows:
        text = f"window {window} has {stored.num_rows} rows for {derived.num_rows} records"
        yield Problem(window, start + min(stored.num_rows, derived.num_rows), "record", text)
        return
    for name in SCHEMA.names:
        have, want = _decoded(stored.column(name)), _decoded(derived.column(name))
        if have.equals(want):
            continue
        # The longest equal prefix, by halving: `equals` is vectorised, whatever the type.
        low, high = 0, len(have)
        while high - low > 1:
            middle = (low + high) // 2
            if have.slice(low, middle - low).equals(want.slice(low, middle - low)):
                low = middle
            else:
                high = middle
        row = start + low
        yield Problem(
            window, row, name, f"event {row}: column {name} says {_short(have[low])}, the record says {_short(want[low])}"
        )


def _decoded(array: Any) -> Any:
    return array.dictionary_decode() if pa.types.is_dictionary(array.type) else array


def _short(scalar: Any) -> str:
    text = ascii(scalar.as_py())
    return text if len(text) <= 80 else text[:79] + "…"


# -- spans ---------------------------------------------------------------------------------------------------------------


def derive_spans(path: Path, outcome: Mapping[str, Any] | None = None, hosted_calls: bool = True) -> pa.Table:
    """Spans from `events.parquet`: one `execute_tool` per Python-hosted call, and the run around them.

    Args:
        outcome: the manifest's; gives the run its status.
        hosted_calls: whether any import is served by Python; if not, there is nothing to look for between first and last.
    """
    import pyarrow.compute as pc  # slow to load, and replay does not need it

    calls: list[pa.Table] = []
    ends: list[pa.Table] = []
    last_seq, last_ns, first_ns = -1, 0, None
    columns = ["seq", "kind", "import", "depth", "status", "of", "time_ns", "duration_ns", "span"]
    with EventsReader(path) as reader:
        windows = range(reader.window_count)
        for window in windows if hosted_calls else sorted({*windows[:1], *windows[-1:]}):
            batch = reader.batch(window, columns)
            if not batch.num_rows:
                continue
            if first_ns is None:
                first_ns = batch.column("time_ns")[0].as_py()
            last_seq, last_ns = batch.column("seq")[-1].as_py(), batch.column("time_ns")[-1].as_py()
            hosted = batch.filter(pc.is_valid(batch.column("span")))
            if not hosted.num_rows:
                continue
            for name in ("kind", "import", "status"):
                index = hosted.schema.get_field_index(name)
                hosted = hosted.set_column(index, name, _decoded(hosted.column(name)))
            calls.append(pa.Table.from_batches([hosted.filter(pc.equal(hosted.column("span"), hosted.column("seq")))]))
            returned = pc.and_(pc.equal(hosted.column("kind"), "return"), pc.equal(hosted.column("of"), hosted.column("span")))
            ends.append(pa.Table.from_batches([hosted.filter(returned)]))
    status = "unfinished"
    if outcome:
        fine = outcome.get("kind") == "returned" or (outcome.get("kind") == "exit" and not outcome.get("code"))
        status = "ok" if fine else "error"
    run = pa.Table.from_arrays(
        [
            pa.array([value], kind)
            for value, kind in (
                (RUN_SPAN, pa.int64()), (None, pa.int64()), ("run", pa.string()), ("run", pa.string()), (0, pa.int64()),
                (max(last_seq, 0), pa.int64()), (first_ns or 0, pa.int64()), (last_ns - (first_ns or 0), pa.int64()),
                (status, pa.string()), (dumps({"gen_ai.operation.name": "invoke_agent"}), pa.string()),
            )
        ],
        names=SPANS_SCHEMA.names,
    )  # fmt: skip
    if not calls:
        return run.cast(SPANS_SCHEMA)
    opened = pa.concat_tables(calls)
    closed = pa.concat_tables(ends)
    # Left join on the call's seq: where the return stands among `closed`, null when there is none.
    at = pc.index_in(opened.column("seq"), value_set=closed.column("of").combine_chunks())
    is_open = pc.equal(opened.column("status"), "open")
    end_seq = pc.if_else(
        is_open, pc.coalesce(closed.column("seq").take(at), pa.scalar(last_seq, pa.int64())), opened.column("seq")
    )
    end_ns = pc.if_else(is_open, closed.column("time_ns").take(at), opened.column("time_ns"))
    measured = pc.coalesce(opened.column("duration_ns"), closed.column("duration_ns").take(at))
    final = pc.if_else(is_open, pc.coalesce(closed.column("status").take(at), pa.scalar("unfinished")), opened.column("status"))
    tool = opened.column("import")
    spans = pa.Table.from_arrays(
        [
            opened.column("seq"),
            _parents(opened, end_seq),
            tool,
            pa.chunked_array([pa.repeat("execute_tool", len(opened))]),
            opened.column("seq"),
            end_seq,
            opened.column("time_ns"),
            pc.coalesce(measured, pc.subtract(end_ns, opened.column("time_ns"))),
            final,
            _attributes(tool),
        ],
        names=SPANS_SCHEMA.names,
    )
    return pa.concat_tables([run, spans]).cast(SPANS_SCHEMA)


def _parents(opened: pa.Table, end_seq: Any) -> Any:
    """The innermost Python-hosted call around each. Only calls that were split can hold others, and each cost its host far
    more than it costs here."""
    import pyarrow.compute as pc  # slow to load, and replay does not need it

    parents = pa.chunked_array([pa.repeat(pa.scalar(RUN_SPAN, pa.int64()), len(opened))])
    if not pc.any(pc.equal(opened.column("status"), "open")).as_py():
        return parents
    found = []
    stack: list[tuple[int, int]] = []
    for seq, end in zip(opened.column("seq").to_pylist(), end_seq.to_pylist(), strict=True):
        while stack and stack[-1][1] < seq:
            stack.pop()
        found.append(stack[-1][0] if stack else RUN_SPAN)
        if end > seq:
            stack.append((seq, end))
    return pa.chunked_array([pa.array(found, pa.int64())])


def _attributes(tool: Any) -> Any:
    encoded = tool.combine_chunks().dictionary_encode()
    texts = [
        dumps({"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": name}) for name in encoded.dictionary.to_pylist()
    ]
    return pa.array(texts, pa.string()).take(encoded.indices)
