"""SQL over traces: what it finds, and what it must not reach."""

from __future__ import annotations

import hashlib
import json
import struct
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from traces._errors import TraceError, UsageError
from traces.layout import Kind, Status
from traces.manifest import Export, Import, Manifest
from traces.query import csv_lines, json_lines, query, text_lines
from traces.tables import EventsWriter, write_spans, write_states

pytest.importorskip("duckdb")

W = "wasi_snapshot_preview1"
IMPORTS = [
    Import(W, "fd_write", ("i32",) * 4, ("i32",), "wasi", (), "fd_write(fd={0}) → {3:u32} bytes {r0:errno}", True),
    Import(W, "path_open", ("i32", "i32", "i32", "i32", "i32", "i64", "i64", "i32", "i32"), ("i32",), "wasi", (),
           "path_open({2:text:3}) → fd {8:u32} {r0:errno}", True),
    Import(W, "fd_read", ("i32",) * 4, ("i32",), "wasi", (), "", True),
    Import(W, "sock_send", ("i32",) * 5, ("i32",), "wasi", (), "", True),
    Import("host", "tool", ("i32",), ("i32",), "python"),
]  # fmt: skip


def record(kind: Kind, body: bytes = b"", index: int = 0xFFFF, status: Status = Status.COMPLETE) -> bytes:
    return struct.pack("<IHBBI", 12 + len(body), index, kind, status, 0) + body


def chunk(address: int, data: bytes, sent: bool = False) -> bytes:
    return struct.pack("<II", address, len(data) | sent << 31) + data + bytes(-len(data) % 4)


def u32(*values: int) -> bytes:
    return struct.pack(f"<{len(values)}I", *values)


def write(fd: int, data: bytes, accepted: int, errno: int = 0) -> bytes:
    half = len(data) // 2
    iovecs = chunk(16, u32(100, half, 500, len(data) - half), True)
    body = u32(fd, 16, 2, 8, errno) + iovecs + chunk(100, data[:half], True) + chunk(500, data[half:], True)
    return record(Kind.CALL, body + (b"" if errno else chunk(8, u32(accepted))), 0)


def path_open(path: bytes, fd: int, errno: int = 0) -> bytes:
    body = struct.pack("<5IQQII", 3, 0, 100, len(path), 0, 1, 1, 0, 8) + u32(errno) + chunk(100, path, True)
    return record(Kind.CALL, body + (b"" if errno else chunk(8, u32(fd))), 1)


WINDOWS = [
    record(Kind.EXPORT, u32(0, 0), status=Status.OPEN) + write(1, b"hello world", 5)
    + write(2, b"\xff\xfe", 2) + write(1, b"no", 0, 8),
    # A write split over windows: the list and the first half, the rest as data, the count in the return.
    record(Kind.CALL, u32(1, 16, 1, 8, 0) + chunk(16, u32(100, 6), True) + chunk(100, b"abc", True), 0, Status.OPEN),
    record(Kind.DATA, chunk(103, b"def", True)) + record(Kind.RETURN, u32(0) + chunk(8, u32(6)), 0),
    path_open(b"plan.json", 5) + path_open(b"missing", 0, 44)
    + record(Kind.CALL, u32(5, 16, 1, 8, 0) + chunk(100, b"data") + chunk(8, u32(4)), 2)
    + write(5, b"xyz", 3) + path_open(b"second", 5) + write(5, b"12", 2)
    + record(Kind.CALL, u32(9, 16, 1, 0, 8, 0) + chunk(16, u32(100, 3), True) + chunk(100, b"net", True) + chunk(8, u32(2)), 3),
    record(Kind.CALL, u32(7, 0), 4, Status.OPEN) + record(Kind.RETURN, u32(3), 4)
    + record(Kind.CALL, u32(7, 0), 4, Status.OPEN) + record(Kind.EXIT, u32(2, 0))
    + record(Kind.CALL, u32(7, 0), 4, Status.OPEN),
]  # fmt: skip


def make(path: Path, windows: list[bytes] = WINDOWS) -> Path:
    path.mkdir(parents=True)
    exports = [Export("_start", (), ())]
    with EventsWriter(path, IMPORTS, exports) as writer:
        for window in windows:
            writer.write_window(window)
    manifest = Manifest(trace_id="ab", imports=IMPORTS, exports=exports, outcome={"kind": "exit", "code": 2}, notes={"case": "7"})
    write_spans(path / "spans.parquet", path / "events.parquet", manifest)
    write_states(path / "states.parquet", [])
    (path / "manifest.json").write_text(manifest.to_json())
    return path


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    return make(tmp_path / "store" / "it's [a] *.trace")


def rows(path: Path, sql: str) -> list[tuple[Any, ...]]:
    return [tuple(row.values()) for row in query(path, sql).to_pylist()]


def test_output_is_what_the_host_accepted(trace: Path) -> None:
    assert rows(trace, "SELECT seq, stream, bytes, text, size FROM output ORDER BY seq") == [
        (1, "stdout", b"hello", "hello", 5), (2, "stderr", b"\xff\xfe", None, 2), (4, "stdout", b"abcdef", "abcdef", 6),
    ]  # fmt: skip


def test_files_have_their_descriptors_and_traffic(trace: Path) -> None:
    assert rows(trace, "SELECT seq, path, fd, status, errno, bytes_read, bytes_written FROM files ORDER BY seq") == [
        (7, "plan.json", 5, "ok", 0, 4, 3), (8, "missing", None, "errno", 44, None, None), (11, "second", 5, "ok", 0, 0, 2),
    ]  # fmt: skip


def test_network_shows_what_was_sent(trace: Path) -> None:
    assert rows(trace, "SELECT seq, operation, fd, size, bytes FROM network") == [(13, "sock_send", 9, 2, b"ne")]


def test_calls_are_joined_with_how_they_ended(trace: Path) -> None:
    found = rows(
        trace,
        "SELECT seq, kind, status, results, sent, received, ended, detail FROM events "
        "WHERE seq IN (0, 4, 14, 16, 18) ORDER BY seq",
    )
    assert found == [
        (0, "export", "ok", [], 0, 0, 17, "_start()"),
        (4, "call", "ok", [0], 14, 4, 6, "fd_write(fd=1) → 6 bytes"),
        (14, "call", "ok", [3], 0, 0, 15, "tool(7)"),
        (16, "call", "ok", [], 0, 0, None, "tool(7)"),
        (18, "call", "unfinished", [], 0, 0, None, "tool(7)"),
    ]
    assert rows(trace, "SELECT count(*), count(DISTINCT seq) FROM events") == [(16, 16)]
    assert rows(trace, "SELECT count(*) FROM raw_events") == [(19,)]


def test_payloads_are_blobs(trace: Path) -> None:
    assert rows(trace, "SELECT sent_blob(record, chunks_at), received_blob(record, chunks_at) FROM raw_events WHERE seq = 9") == [
        (b"", b"data" + u32(4))
    ]


def test_a_store_is_its_traces_together(trace: Path) -> None:
    make(trace.parent / "b.trace", WINDOWS[:1])
    store = trace.parent

    assert rows(store, "SELECT trace, count(*) FROM raw_events GROUP BY 1 ORDER BY 1") == [("b", 4), ("it's [a] *", 19)]
    assert rows(store, "SELECT trace, outcome, code, notes FROM runs ORDER BY 1")[0] == ("b", "exit", 2, '{"case": "7"}')
    assert rows(store, "SELECT trace, text FROM output WHERE stream = 'stdout' ORDER BY ALL") == [
        ("b", "hello"), ("it's [a] *", "abcdef"), ("it's [a] *", "hello"),
    ]  # fmt: skip
    assert rows(store, "SELECT trace, count(*) FROM spans GROUP BY 1 ORDER BY 1") == [("b", 1), ("it's [a] *", 4)]
    assert rows(store, "SELECT count(*) FROM states") == [(0,)]


SECRET = "do not read me"


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM read_csv('{secret}')", "SELECT * FROM read_text('{secret}')", "SELECT * FROM '{secret}'",
        "SELECT * FROM read_blob('{trace}/manifest.json')", "SELECT * FROM glob('/etc/*')",
        "SELECT * FROM read_parquet('{trace}/*')",
        "COPY events TO '{out}'", "COPY (SELECT 1) TO '{trace}/events.parquet'",
        "COPY (SELECT 1 AS seq) TO '{trace}/events.parquet' (FORMAT parquet, USE_TMP_FILE false)",
        "EXPLAIN ANALYZE COPY (SELECT 1 AS seq) TO '{trace}/events.parquet' (FORMAT parquet, USE_TMP_FILE false)",
        "ATTACH '{out}'", "INSTALL httpfs", "LOAD httpfs", "SET memory_limit = '1TB'", "SET enable_external_access = true",
        "RESET memory_limit", "PRAGMA enable_profiling", "PRAGMA memory_limit='1TB'", "EXPORT DATABASE '{out}'",
        "IMPORT DATABASE '{out}'",
        "CREATE TABLE x AS SELECT 1", "DROP VIEW events", "INSERT INTO runs VALUES (1)", "CREATE SECRET (TYPE s3)", "CHECKPOINT",
        "SELECT 1; SELECT 2", "", "SELECT * FROM secret_table", "SELEC 1", "SELECT nothing FROM events", "CALL pragma_version()",
        "SELECT * FROM read_csv('https://127.0.0.1:1/x')", "SELECT error('a\nb')", "SELECT 'x'::INTEGER",
        "WITH x AS (COPY (SELECT 1) TO '{out}') SELECT * FROM x", "SELECT * FROM query('COPY (SELECT 1) TO ''{out}''')",
        "SELECT * FROM read_duckdb('{secret}')", "VACUUM",
    ],
)  # fmt: skip
def test_sql_reaches_nothing_else(trace: Path, tmp_path: Path, sql: str) -> None:
    trace = trace.rename(trace.parent / "plain")
    secret, out = tmp_path / "secret.csv", tmp_path / "out"
    secret.write_text(SECRET)
    secret_table = pa.table({"a": [1]})
    before = {file: hashlib.sha256(file.read_bytes()).digest() for file in trace.iterdir()}

    with pytest.raises((UsageError, TraceError)) as error:
        query(trace, sql.replace("{secret}", str(secret)).replace("{out}", str(out)).replace("{trace}", str(trace)))

    assert "\n" not in str(error.value) and SECRET not in str(error.value)
    assert not out.exists() and len(secret_table) == 1
    assert {file: hashlib.sha256(file.read_bytes()).digest() for file in trace.iterdir()} == before


@pytest.mark.parametrize(
    "sql", ["DESCRIBE events", "SHOW TABLES", "SUMMARIZE raw_events", "EXPLAIN SELECT 1", "FROM runs", "VALUES (1)"]
)
def test_statements_that_only_read_run(trace: Path, sql: str) -> None:
    assert query(trace, sql).num_rows


def test_memory_is_limited(trace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("traces.query.MEMORY_LIMIT", "50MB")
    with pytest.raises((UsageError, TraceError), match="50MB"):
        query(trace, "SELECT count(DISTINCT hash(i)) FROM range(100000000) t(i)")


def test_what_is_no_trace_is_said_so(tmp_path: Path, trace: Path) -> None:
    with pytest.raises(UsageError, match="no such"):
        query(tmp_path / "absent", "SELECT 1")
    with pytest.raises(UsageError, match="holds no trace"):
        query(tmp_path, "SELECT 1")
    (trace / "events.parquet").write_bytes(b"PAR1garbagePAR1")
    with pytest.raises(TraceError, match="damaged"):
        query(trace, "SELECT 1")


def test_calls_in_place_need_no_join(tmp_path: Path) -> None:
    many = record(Kind.CALL, u32(5, 16, 0, 8, 0), 2) * 100_000
    path = make(tmp_path / "many", [many] * 10)
    start = time.perf_counter()
    assert rows(path, 'SELECT "import", count(*) FROM events GROUP BY 1') == [(f"{W}.fd_read", 1_000_000)]
    assert time.perf_counter() - start < 5


def test_moments_that_python_has_no_value_for_are_text(trace: Path) -> None:
    sql = """SELECT TIMESTAMP_NS '2020-01-01 00:00:00.123456789' AS fine, DATE 'infinity' AS never,
                    [TIMESTAMP '2020-01-01', TIMESTAMP 'infinity'] AS both"""
    (row,) = json.loads("[" + ",".join(json_lines(query(trace, sql))) + "]")
    assert row["fine"] == "2020-01-01 00:00:00.123456789"
    assert "2147483647" in row["never"]
    assert row["both"][0].startswith("2020-01-01") and "9223372036854775807" in row["both"][1]


def test_results_as_text() -> None:
    table = pa.table(
        {
            "n": pa.array([1, 2**63 - 1], pa.int64()), "f": pa.array([float("nan"), 0.5]), "b": pa.array([b"\x00\xff", None]),
            "s": ["a\x1b[31m", 'q",'], "l": pa.array([[2**64 - 1], []], pa.list_(pa.uint64())),
        }
    )  # fmt: skip

    lines = [json.loads(line) for line in json_lines(table)]
    assert lines[0] == {"n": 1, "f": "nan", "b": "AP8=", "s": "a\x1b[31m", "l": [2**64 - 1]}
    assert lines[1] == {"n": 2**63 - 1, "f": 0.5, "b": None, "s": 'q",', "l": []}
    assert "9223372036854775807" in list(json_lines(table))[1]
    assert "".join(csv_lines(table)).splitlines() == [
        "n,f,b,s,l", "1,nan,AP8=,a\x1b[31m,[18446744073709551615]", '9223372036854775807,0.5,,"q"",",[]'
    ]  # fmt: skip
    text = "".join(text_lines(table))
    assert "\x1b" not in text and "00ff" in text and text.splitlines()[2].index("nan") == text.splitlines()[3].index("0.5")
    assert list(csv_lines(table.slice(0, 0))) == ["n,f,b,s,l\n"]
