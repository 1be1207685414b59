"""The Parquet tables: there and back, damaged, and lying."""

from __future__ import annotations

import random
import resource
import struct
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from traces._errors import RecordingError, TraceError
from traces.layout import Kind, Status
from traces.manifest import Export, Import, Manifest
from traces.states import StateRow
from traces.tables import (
    RUN_SPAN,
    EventsReader,
    EventsWriter,
    derive_spans,
    read_spans,
    read_states,
    verify_columns,
    write_spans,
    write_states,
)

IMPORTS = [
    Import("wasi", "clock", ("i32",), ("i32",), "wasi", (), "clock({0:enum:realtime|monotonic}) → {r0:errno}", True),
    Import("host", "tool", ("i32",), ("i32",), "python"),
]
EXPORTS = [Export("run", (), ("i32",))]


def record(kind: Kind, body: bytes = b"", index: int = 0xFFFF, status: Status = Status.COMPLETE, time: int = 0) -> bytes:
    return struct.pack("<IHBBI", 12 + len(body), index, kind, status, time) + body


def clock(errno: int = 0) -> bytes:
    return record(Kind.CALL, struct.pack("<II", 1, errno), 0)


def tool(status: Status = Status.COMPLETE, time: int = 0) -> bytes:
    return record(Kind.CALL, struct.pack("<II", 1, 0), 1, status, time)


EXPORT = record(Kind.EXPORT, struct.pack("<III", 0, 0, 0), status=Status.OPEN)
RETURN = record(Kind.RETURN, struct.pack("<I", 0))
WINDOWS = [
    EXPORT + clock() * 50 + tool(),
    clock(8) + tool(Status.OPEN, 5) + record(Kind.CALLBACK, struct.pack("<III", 0, 0, 0), status=Status.OPEN),
    clock() + tool() + RETURN + record(Kind.RETURN, struct.pack("<I", 0), 1, time=9) + RETURN,
]


@pytest.fixture
def events(tmp_path: Path) -> Path:
    path = tmp_path / "events.parquet"
    with EventsWriter(path, IMPORTS, EXPORTS) as writer:
        assert [writer.write_window(window) for window in WINDOWS] == [52, 3, 5]
        assert writer.write_window(b"") == 0
        assert not path.exists()
    return path


def test_windows_come_back_as_they_were(events: Path) -> None:
    with EventsReader(events) as reader:
        windows = list(reader.windows())
        assert [bytes(window.data) for window in windows] == WINDOWS
        assert [(window.first, window.rows) for window in windows] == [(0, 52), (52, 3), (55, 5)]
        assert list(windows[1].offsets) == [0, 20, 40, 64]
        assert (reader.rows, reader.window_count) == (60, 3)
        assert reader.largest_window >= max(map(len, WINDOWS))


def test_only_whole_tables_get_their_name(tmp_path: Path) -> None:
    path = tmp_path / "events.parquet"
    with pytest.raises(TraceError), EventsWriter(path, IMPORTS, EXPORTS) as writer:
        writer.write_window(WINDOWS[0])
        writer.write_window(b"garbage")
    assert list(tmp_path.iterdir()) == []

    path.write_bytes(b"evidence")
    with pytest.raises(RecordingError, match="exists already"):
        EventsWriter(path, IMPORTS, EXPORTS)
    assert path.read_bytes() == b"evidence"


def test_a_file_that_cannot_grow_is_an_error_of_one_line(tmp_path: Path) -> None:
    writer = EventsWriter(tmp_path / "events.parquet", IMPORTS, EXPORTS)
    window = b"".join(record(Kind.CALL, struct.pack("<II", i * i, 0), 1) for i in range(20_000))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (65536, before[1]))
    try:
        with pytest.raises(RecordingError, match="cannot be written") as error:
            for _ in range(9):
                writer.write_window(window)
            writer.close()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        writer.abandon()
    assert "\n" not in str(error.value) and list(tmp_path.iterdir()) == []


def test_the_columns_agree_with_the_records(events: Path) -> None:
    assert verify_columns(events, IMPORTS, EXPORTS) == []


def rewritten(path: Path, name: str, row: int, value: Any) -> None:
    """The same table with one value changed, in the same row groups."""
    with pq.ParquetFile(path) as file:
        tables = [file.read_row_group(group) for group in range(file.num_row_groups)]
        schema = file.schema_arrow
    with pq.ParquetWriter(path, schema, use_dictionary=["kind", "import"]) as writer:
        for table in tables:
            if 0 <= row < len(table):
                column = table.column(name)
                values = column.to_pylist()
                values[row] = value
                kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
                index = table.schema.get_field_index(name)
                table = table.set_column(index, schema.field(name), pa.array(values, kind).cast(column.type))
            row -= len(table)
            writer.write_table(table)


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("seq", 7), ("kind", "poke"), ("import", "host.other"), ("import", None), ("target", "x"), ("depth", 9),
        ("status", "errno"),
        ("of", 3), ("time_ns", 1), ("duration_ns", 5), ("args", [2]), ("args", []), ("results", [1]), ("detail", "lie"),
        ("sent", 1),
        ("received", 1), ("span", 4), ("chunks_at", None),
    ],
)  # fmt: skip
def test_a_column_that_lies_is_named_with_its_row(events: Path, column: str, value: Any) -> None:
    rewritten(events, column, 56, value)

    problems = verify_columns(events, IMPORTS, EXPORTS)

    assert [(p.window, p.row, p.column) for p in problems] == [(2, 56, column)]
    assert str(problems[0]).startswith(f"event 56: column {column} says ")


def test_a_record_that_lies_shows(events: Path) -> None:
    rewritten(events, "record", 56, clock()[:8] + b"\1\0\0\0" + clock()[12:])
    assert {(p.row, p.column) for p in verify_columns(events, IMPORTS, EXPORTS)} >= {(56, "import"), (56, "time_ns")}

    rewritten(events, "record", 56, b"x" * 20)
    (problem,) = verify_columns(events, IMPORTS, EXPORTS)
    assert problem.column == "" and "record 56" in str(problem)


def read_all(path: Path) -> None:
    with EventsReader(path) as reader:
        for window in reader.windows():
            bytes(window.data)
    verify_columns(path, IMPORTS, EXPORTS)


def test_damage_is_an_error_of_one_line(events: Path) -> None:
    whole = events.read_bytes()
    chance = random.Random(7)
    failed = 0
    cases = [whole[:length] for length in range(0, len(whole), 97)]
    for _ in range(250):
        damaged = bytearray(whole)
        damaged[chance.randrange(len(whole))] ^= 1 << chance.randrange(8)
        cases.append(bytes(damaged))
    for case in cases:
        events.write_bytes(case)
        try:
            read_all(events)
        except TraceError as error:
            assert "\n" not in str(error) and str(events) in str(error)
            failed += 1
    assert failed > len(cases) // 2


def test_a_table_of_another_shape_is_refused(tmp_path: Path, events: Path) -> None:
    other = tmp_path / "other.parquet"
    pq.write_table(pa.table({"seq": [1]}), other)
    with pytest.raises(TraceError, match="columns are not those"):
        EventsReader(other)
    table = pq.read_table(events)
    pq.write_table(table.set_column(0, "seq", table.column("seq").cast(pa.int32())), other)
    with pytest.raises(TraceError, match="column seq is int32"):
        EventsReader(other)
    with pytest.raises(TraceError, match="no such file"):
        EventsReader(tmp_path / "absent")


def test_a_dictionary_of_records_is_refused(tmp_path: Path, events: Path) -> None:
    """One large value, named a million times, would fill any memory."""
    path = tmp_path / "bomb.parquet"
    pq.write_table(pq.read_table(events), path, use_dictionary=["record"])
    with pytest.raises(TraceError, match="as a dictionary"):
        EventsReader(path)


def test_a_window_too_large_is_refused_unread(tmp_path: Path, events: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("traces.tables.MAX_WINDOW", 60)
    with pytest.raises(TraceError, match="more than any window"):
        EventsReader(events)


def test_spans_of_hosted_calls(events: Path, tmp_path: Path) -> None:
    spans = derive_spans(events, {"kind": "returned"}).to_pylist()

    assert [(s["span_id"], s["parent"], s["name"], s["end_seq"], s["status"]) for s in spans] == [
        (RUN_SPAN, None, "run", 59, "ok"),
        (51, RUN_SPAN, "host.tool", 51, "ok"),
        (53, RUN_SPAN, "host.tool", 58, "ok"),
        (56, 53, "host.tool", 56, "ok"),
    ]
    assert (spans[2]["start_ns"], spans[2]["duration_ns"]) == (5_000_000, 4_000_000)
    assert spans[1]["attributes"] == '{"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "host.tool"}'
    write_spans(tmp_path / "spans.parquet", events, Manifest(imports=list(IMPORTS), outcome={"kind": "returned"}))
    assert read_spans(tmp_path / "spans.parquet").to_pylist() == spans


def test_spans_of_a_recording_that_stops_inside_a_call(tmp_path: Path) -> None:
    path = tmp_path / "events.parquet"
    with EventsWriter(path, IMPORTS, EXPORTS) as writer:
        writer.write_window(tool(Status.OPEN) + EXPORT + clock())
    assert [(s["status"], s["end_seq"]) for s in derive_spans(path).to_pylist()] == [("unfinished", 2), ("unfinished", 2)]


def test_an_empty_recording_is_a_table_too(tmp_path: Path) -> None:
    path = tmp_path / "events.parquet"
    EventsWriter(path, [], []).close()
    assert verify_columns(path, [], []) == []
    assert len(derive_spans(path)) == 1


def test_states_come_back(tmp_path: Path) -> None:
    rows = [
        StateRow(9, "memory", 0, "memory", 131072, b"m" * 32, (b"a" * 32, b"b" * 32)),
        StateRow(9, "memory", 1, "", 0, b"n" * 32),
        StateRow(9, "global", 1, "", 0, b"g" * 32, (), bytes(16)),
        StateRow(12, "table", 0, "t", 7, b"t" * 32),
    ]
    write_states(tmp_path / "states.parquet", [(row.seq, row) for row in rows])
    assert read_states(tmp_path / "states.parquet") == rows

    (tmp_path / "states.parquet").write_bytes(b"PAR1")
    with pytest.raises(TraceError):
        read_states(tmp_path / "states.parquet")
