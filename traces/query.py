"""SQL over a trace, or over a store of traces. Owns what the user's SQL may do: read these tables, and nothing else.

Both the trace and, at times, the SQL come from someone else. So the files are opened by name before the gate closes: external
access goes off with only these files allowed, the configuration is locked, memory is limited, nothing spills to disk, Python's
variables are out of sight, and only statements that read are run (an allowed file could otherwise be written over).

DuckDB is an optional dependency: it is imported when a query runs.
"""

from __future__ import annotations

import base64
import csv
import datetime
import decimal
import io
import json
import math
import re
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa

from traces._errors import TraceError, UsageError
from traces.manifest import Manifest
from traces.tables import SPANS_SCHEMA, STATES_SCHEMA, EventsReader, read_table

if TYPE_CHECKING:
    import duckdb

MEMORY_LIMIT: Final = "2GB"
EVENTS: Final = "events.parquet"
_BATCH: Final = 2048
"""Rows at a time, where a result is read as it is made."""
_TOO_MUCH: Final = "the query needs more than {}; select fewer rows or columns"
_FAILED: Final = "the query failed: {}; check the trace with `reprise verify`"
_TYPES = {"int64": "BIGINT", "int32": "INTEGER", "string": "VARCHAR"}
_RUNS = {
    "trace_id": "VARCHAR", "format": "INTEGER", "producer": "VARCHAR", "module": "VARCHAR", "module_sha256": "VARCHAR",
    "engine": "VARCHAR", "started": "VARCHAR", "ended": "VARCHAR", "outcome": "VARCHAR", "code": "BIGINT", "message": "VARCHAR",
    "exit_code": "BIGINT", "records": "BIGINT", "windows": "BIGINT", "bytes": "BIGINT", "notes": "VARCHAR", "manifest": "VARCHAR",
    "trace": "VARCHAR",
}  # fmt: skip


Functions = Mapping[str, Callable[[list[str | int]], pa.Table]]
"""Relations that SQL may ask for by calling them with literals, beside the tables; whoever passes them computes them."""


def query(path: Path, sql: str, functions: Functions | None = None) -> pa.Table:
    """The result of one reading statement over a trace, or over all traces directly in a directory.

    Raises UsageError for SQL that is wrong or not allowed, TraceError for traces that cannot be read.
    """
    database = Database(path)
    try:
        return database.ask(sql, functions)
    finally:
        database.close()


class Database:
    """A trace, or a store, that is asked one statement after another: by one thread, and interrupted by any.

    Nothing a statement does outlives it: only such that read are run, and the connection is locked.
    """

    def __init__(self, path: Path) -> None:
        """Raises like `query`."""
        self._connection = connect(path)
        self._registered: list[str] = []

    def ask(self, sql: str, functions: Functions | None = None) -> pa.Table:
        """The whole result. Raises like `query`."""
        with _explained():
            return self._relation(sql, functions).to_arrow_table()

    def stream(self, sql: str, functions: Functions | None = None) -> tuple[pa.Schema, Generator[pa.RecordBatch, None, None]]:
        """The result as it is made: its schema, and batches until it is exhausted or closed. Both raise like `query`."""
        with _explained():
            reader = self._relation(sql, functions).to_arrow_reader(_BATCH)
        return reader.schema, _batches(reader)

    def interrupt(self) -> None:
        """Ends the statement that runs, which then raises; nothing, if none has begun."""
        self._connection.interrupt()

    def close(self) -> None:
        self._connection.close()

    def _relation(self, sql: str, functions: Functions | None) -> duckdb.DuckDBPyRelation:
        for name in self._registered:
            self._connection.unregister(name)
        self._registered.clear()
        sql, relations = _computed(sql, functions or {})
        # Before anything is computed for it, a statement is known to be allowed.
        sql = _one_reading_statement(self._connection, sql)
        for name, compute in relations.items():
            self._connection.register(name, compute())
            self._registered.append(name)
        return self._connection.sql(sql)


def _batches(reader: pa.RecordBatchReader) -> Generator[pa.RecordBatch, None, None]:
    try:
        while True:
            with _explained():
                try:
                    batch = reader.read_next_batch()
                except StopIteration:
                    return
                except OSError as error:  # so Arrow passes on what DuckDB says once rows have begun to come
                    raise _streamed(error) from None
            yield batch
    finally:
        reader.close()


def _streamed(error: OSError) -> UsageError | TraceError:
    text = _first_line(error)
    if text.startswith("Out of Memory"):
        return UsageError(_TOO_MUCH.format(MEMORY_LIMIT))
    if text.startswith(("Invalid Input Error", "Conversion Error", "Out of Range Error", "INTERRUPT")):
        return UsageError(text)
    return TraceError(_FAILED.format(text))


_CALLED: Final = re.compile(
    r"""(?P<skip>'(?:[^']|'')*'|"(?:[^"]|"")*"|--[^\n]*|/\*.*?\*/)|\b(?P<name>[a-z_]+)\s*\((?P<args>[^()]*)\)""",
    re.DOTALL | re.IGNORECASE,
)
_LITERAL: Final = re.compile(r"\s*(?:'((?:[^']|'')*)'|(0[xX][0-9a-fA-F]+|\d+))\s*(,|\Z)")


def _computed(sql: str, functions: Functions) -> tuple[str, dict[str, Callable[[], pa.Table]]]:
    """The SQL with every call of one of the functions replaced by the name of a relation, and what computes each of these."""
    relations: dict[str, Callable[[], pa.Table]] = {}

    def replaced(found: re.Match[str]) -> str:
        compute = functions.get((found["name"] or "").lower())
        if compute is None:
            return found.group()
        name = f"computed {len(relations)}"
        relations[name] = partial(compute, _literals(found["name"], found["args"]))
        return f'"{name}"'

    return _CALLED.sub(replaced, sql), relations


def _literals(name: str, text: str) -> list[str | int]:
    values: list[str | int] = []
    at = 0
    while at < len(text):
        found = _LITERAL.match(text, at)
        if found is None:
            raise UsageError(f"{name}({text}): only numbers and 'text' can stand there")
        values.append(int(found[2], 0) if found[2] is not None else found[1].replace("''", "'"))
        at = found.end()
    return values


def traces_in(path: Path) -> list[Path]:
    """The trace itself, or the traces of a store, sorted."""
    if (path / EVENTS).is_file():
        return [path]
    if not path.is_dir():
        raise UsageError(f"{path}: no such trace or store; name a directory")
    found = sorted(entry for entry in path.iterdir() if (entry / EVENTS).is_file())
    if not found:
        raise UsageError(f"{path}: holds no trace ({EVENTS} is missing); record one, or `reprise recover` a broken one")
    return found


def connect(path: Path) -> duckdb.DuckDBPyConnection:
    """A locked connection with the views of `views.sql`. Run only what `query` would: writing is not stopped here."""
    try:
        import duckdb
    except ImportError:
        raise UsageError("queries need DuckDB; install it with `pip install 'reprise-wasm[query]'`") from None
    traces = [trace.resolve() for trace in traces_in(path)]
    for trace in traces:
        EventsReader(trace / EVENTS).close()
    connection = duckdb.connect(":memory:")
    try:
        with _explained():
            _prepare(connection, traces)
    except BaseException:
        connection.close()
        raise
    return connection


def _prepare(connection: duckdb.DuckDBPyConnection, traces: list[Path]) -> None:
    files = {
        table: [trace / f"{table}.parquet" for trace in traces if (trace / f"{table}.parquet").is_file()]
        for table in ("events", "spans", "states")
    }
    for table, schema in (("spans", SPANS_SCHEMA), ("states", STATES_SCHEMA)):
        for file in files[table]:
            read_table(file, schema)
    allowed = ", ".join(_quoted(str(file)) for group in files.values() for file in group)
    for setting in (
        f"allowed_paths = [{allowed}]",
        "python_enable_replacements = false",
        "temp_directory = ''",
        f"memory_limit = '{MEMORY_LIMIT}'",
        "enable_external_access = false",
        "autoinstall_known_extensions = false",
        "autoload_known_extensions = false",
        "enable_progress_bar = false",
    ):
        connection.execute(f"SET {setting}")
    _attach(connection, "raw_events", files["events"], None)
    _attach(connection, "spans", files["spans"], SPANS_SCHEMA)
    _attach(connection, "states", files["states"], STATES_SCHEMA)
    connection.execute("CREATE TABLE runs (" + ", ".join(f'"{name}" {kind}' for name, kind in _RUNS.items()) + ")")
    for trace in traces:
        if (trace / "manifest.json").is_file():
            values = _run(trace)
            connection.execute(f"INSERT INTO runs VALUES ({', '.join('?' * len(values))})", values)
    connection.execute((Path(__file__).parent / "views.sql").read_text(encoding="utf-8"))
    connection.execute("SET lock_configuration = true")


def _attach(connection: duckdb.DuckDBPyConnection, name: str, files: list[Path], schema: pa.Schema | None) -> None:
    if files:
        listed = ", ".join(_quoted(str(file)) for file in files)
        # One trace's name is a constant; with several it comes from the file each row is in.
        trace = (
            _quoted(_trace_name(files[0]))
            if len(files) == 1
            else "regexp_replace(split_part(filename, '/', -2), '[.]trace$', '')"
        )
        more = ", filename = true" if len(files) > 1 else ""
        columns = "* EXCLUDE (filename)" if more else "*"
        # Globs in a file's own name must not find other files.
        connection.execute(f"CREATE VIEW {name} AS SELECT {columns}, {trace} AS trace FROM read_parquet([{listed}]{more})")
        return
    assert schema is not None
    columns = ", ".join(f'"{field.name}" {_sql_type(field.type)}' for field in schema)
    connection.execute(f"CREATE TABLE {name} ({columns}, trace VARCHAR)")


def _sql_type(kind: Any) -> str:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if pa.types.is_list(kind):
        return _sql_type(kind.value_type) + "[]"
    return _TYPES.get(str(kind), "BLOB")


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _trace_name(file: Path) -> str:
    return file.parent.name.removesuffix(".trace")


def _run(trace: Path) -> list[Any]:
    manifest = Manifest.read(trace / "manifest.json")

    def number(value: Any) -> int | None:
        return value if isinstance(value, int) and -(2**63) <= value < 2**63 else None

    def text(value: Any) -> str | None:
        return None if value is None else value if isinstance(value, str) else json.dumps(value)

    outcome, totals = manifest.outcome, manifest.totals
    engine = " ".join(str(manifest.engine[key]) for key in ("name", "version") if key in manifest.engine)
    values = [
        manifest.trace_id, manifest.format, manifest.producer, text(manifest.module.get("origin")),
        text(manifest.module.get("sha256")), engine, text(manifest.started.get("utc")), text(manifest.ended.get("utc")),
        text(outcome.get("kind")),
        number(outcome.get("code")), text(outcome.get("message")), number(outcome.get("exit_code")),
        number(totals.get("records")), number(totals.get("windows")), number(totals.get("bytes")),
        json.dumps(manifest.notes), manifest.to_json(),
        trace.name.removesuffix(".trace"),
    ]  # fmt: skip
    return [value.encode("utf-8", "replace").decode() if isinstance(value, str) else value for value in values]


def _one_reading_statement(connection: duckdb.DuckDBPyConnection, sql: str) -> str:
    import duckdb

    statements = connection.extract_statements(sql)
    if len(statements) != 1:
        raise UsageError(f"{len(statements)} statements; give exactly one")
    statement = statements[0]
    reads = statement.type == duckdb.StatementType.SELECT or (
        statement.type == duckdb.StatementType.EXPLAIN and re.match(r"(?is)\s*explain\s+(select|from|with)\b", statement.query)
    )
    if not reads:
        kind = statement.type.name
        raise UsageError(f"{kind} is not allowed here; a trace is only read: use SELECT, and redirect the output to keep it")
    return str(statement.query)


@contextmanager
def _explained() -> Iterator[None]:
    """Turns DuckDB's errors into one line each."""
    import duckdb

    try:
        yield
    except (
        duckdb.ParserException, duckdb.BinderException, duckdb.CatalogException, duckdb.PermissionException,
        duckdb.SyntaxException, duckdb.ConversionException, duckdb.InvalidInputException, duckdb.OutOfRangeException,
    ) as error:  # fmt: skip
        raise UsageError(f"{_first_line(error)}; see the tables with `SHOW TABLES`") from None
    except duckdb.OutOfMemoryException:
        raise UsageError(_TOO_MUCH.format(MEMORY_LIMIT)) from None
    except duckdb.InterruptException:
        raise UsageError("interrupted") from None
    except (duckdb.Error, pa.ArrowException) as error:
        raise TraceError(_FAILED.format(_first_line(error))) from None


def _first_line(error: Exception) -> str:
    line = (str(error) or type(error).__name__).splitlines()[0]
    return _UNSAFE.sub(lambda match: ascii(match.group())[1:-1], line)


# -- results as text -----------------------------------------------------------------------------------------------------


def json_value(value: Any) -> Any:
    """What stands for a value in JSON: bytes as base64, floats that JSON lacks as text, integers exact."""
    if isinstance(value, bytes | bytearray | memoryview):
        return base64.b64encode(value).decode("ascii")
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, decimal.Decimal):
        return int(value) if value.is_finite() and value == value.to_integral_value() else str(value)
    if isinstance(value, dict):
        return {str(key): json_value(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [json_value(item) for item in value]
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    return str(value)


def _rows(table: pa.Table | pa.RecordBatchReader) -> Iterator[list[Any]]:
    # By position: two columns may have one name.
    for batch in table.to_batches(max_chunksize=4096) if isinstance(table, pa.Table) else table:
        yield from (list(row) for row in zip(*map(_values, batch.columns), strict=True))


def _values(column: pa.Array) -> list[Any]:
    """A column as Python values; moments that Python has no value for ("infinity", parts of a microsecond) as text."""
    try:
        found: list[Any] = column.to_pylist()
    except (OverflowError, ValueError):
        found = [_value(scalar) for scalar in column]
    return found


def _value(scalar: pa.Scalar) -> Any:
    try:
        return scalar.as_py()
    except (OverflowError, ValueError):
        if isinstance(scalar, pa.ListScalar):
            return [_value(item) for item in scalar.values]
        try:
            return scalar.cast(pa.string()).as_py()
        except (pa.ArrowException, UnicodeError):
            return str(getattr(scalar, "value", "?"))


def json_lines(table: pa.Table | pa.RecordBatchReader) -> Iterator[str]:
    """One JSON object per row."""
    names = table.schema.names
    for row in _rows(table):
        yield json.dumps(dict(zip(names, map(json_value, row), strict=True)), ensure_ascii=False, allow_nan=False) + "\n"


def csv_lines(table: pa.Table | pa.RecordBatchReader) -> Iterator[str]:
    """A header and the rows; nothing stands for null, bytes are base64, lists and structs JSON."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(table.schema.names)
    for row in _rows(table):
        writer.writerow([_csv_cell(json_value(value)) for value in row])
        yield out.getvalue()
        out.seek(0)
        out.truncate()
    if out.tell():
        yield out.getvalue()


def _csv_cell(value: Any) -> Any:
    if isinstance(value, bool):
        return "true" if value else "false"
    return json.dumps(value, ensure_ascii=False) if isinstance(value, list | dict) else value


def text_lines(table: pa.Table, width: int = 60) -> Iterator[str]:
    """Aligned columns for a terminal: numbers to the right, long cells cut at `width`, controls escaped."""
    rows = [[_text_cell(value, width) for value in row] for row in _rows(table)]
    names = [_text_cell(name, width) for name in table.column_names]
    right = [pa.types.is_integer(f.type) or pa.types.is_floating(f.type) or pa.types.is_decimal(f.type) for f in table.schema]
    widths = [max([len(name), *(len(row[i]) for row in rows)]) for i, name in enumerate(names)]
    for cells in [names, ["─" * size for size in widths], *rows]:
        line = "  ".join(
            cell.rjust(size) if number else cell.ljust(size) for cell, size, number in zip(cells, widths, right, strict=True)
        )
        yield line.rstrip() + "\n"


def _text_cell(value: Any, width: int) -> str:
    if value is None:
        return "·"
    if isinstance(value, bytes):
        shown = value[: width + 1].hex()
    else:
        value = json_value(value)
        shown = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        shown = _UNSAFE.sub(lambda match: ascii(match.group())[1:-1], shown[: width + 1])
    return shown if len(shown) <= width else shown[: width - 1] + "…"


_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]")
