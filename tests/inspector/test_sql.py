"""The SQL view: what it finds (pyarrow reads the files itself), how it stops, and what it must not do."""

from __future__ import annotations

import asyncio
import hashlib
import json
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from textual.app import App
from textual.pilot import Pilot

from inspector.sql import cells, console, export
from inspector.sql.console import COMPUTED, Console, Exported, Failed, Report, Result, Schema, Stopped, Unkept
from inspector.sql.editor import Editor
from inspector.sql.history import MOST, History
from inspector.sql.results import ResultTable
from inspector.sql.schema import SchemaPane
from inspector.sql.screen import SqlScreen, SqlState
from replayer.views import functions
from replayer.watching import Watch
from traces._errors import UsageError
from traces.query import Functions
from traces.tracedir import Trace

ROOT = Path(__file__).resolve().parents[2]
GOLDENS = ROOT / "tests" / "goldens" / "format-1"
INCIDENT = GOLDENS / "incident.trace"
PATIENCE = 15.0
"""Seconds for anything to happen on a machine with other work."""
SLOW = "SELECT count(*) FROM range(100000000) a, range(1000000) b WHERE hash(a.range + b.range) % 7 = 1"
"""Takes days."""


def nothing(watch: Watch) -> Functions:
    return {}


def computed(watch: Watch) -> Functions:
    return functions(INCIDENT)


# -- without a screen


class Asked:
    """A console, and what it told."""

    def __init__(self, path: Path, made: Callable[[Watch], Functions], history: History) -> None:
        self.reports: list[Report] = []
        self._told = threading.Condition()
        self.console = Console(path, made, self._tell, history)

    def _tell(self, report: Report) -> None:
        with self._told:
            self.reports.append(report)
            self._told.notify_all()

    def wait(self, number: int) -> Report:
        """The last report, once there are so many."""
        with self._told:
            assert self._told.wait_for(lambda: len(self.reports) >= number, PATIENCE), self.reports
            return self.reports[-1]

    def run(self, sql: str) -> Report:
        known = len(self.reports)
        self.console.run(sql)
        return self.wait(known + 1)

    def result(self, sql: str) -> Result:
        found = self.run(sql)
        assert isinstance(found, Result), found
        return found


@contextmanager
def asked(tmp_path: Path, trace: Path = INCIDENT, made: Callable[[Watch], Functions] = nothing) -> Iterator[Asked]:
    found = Asked(trace, made, History(tmp_path / "state" / "sql-history"))
    found.console.start()
    try:
        found.wait(1)
        yield found
    finally:
        found.console.close()


def test_rows_are_those_of_the_files(tmp_path: Path) -> None:
    raw = pq.read_table(INCIDENT / "events.parquet")
    with asked(tmp_path) as it:
        found = it.result("SELECT seq, kind, record FROM raw_events ORDER BY seq")
    assert found.table.column("seq").to_pylist() == raw.column("seq").to_pylist()
    assert found.table.column("kind").to_pylist() == raw.column("kind").to_pylist()
    assert found.table.column("record").to_pylist() == raw.column("record").to_pylist()
    assert not found.more


def test_the_schema_is_what_can_be_selected_from(tmp_path: Path) -> None:
    with asked(tmp_path, made=computed) as it:
        schema = it.reports[0]
        assert isinstance(schema, Schema)
        names = [relation.name for relation in schema.relations]
        assert names[:7] == ["runs", "events", "spans", "states", "files", "output", "network"]
        assert names[-2:] == ["calls('function')", "writes(address, length)"]
        for relation in schema.relations[:-2]:
            described = it.result(f"DESCRIBE {relation.name}").table
            pairs = zip(described.column("column_name").to_pylist(), described.column("column_type").to_pylist(), strict=True)
            assert relation.columns == tuple(pairs)
    assert "where" in schema.reserved and "seq" not in schema.reserved


def test_tables_without_rows_are_absent(tmp_path: Path) -> None:
    for trace in sorted(GOLDENS.glob("*.trace")):
        with asked(tmp_path, trace) as it:
            schema = it.reports[0]
            assert isinstance(schema, Schema)
            names = {relation.name for relation in schema.relations}
        for table in ("spans", "states"):
            assert (table in names) == (pq.read_table(trace / f"{table}.parquet").num_rows > 0), (trace.name, table)


@pytest.mark.parametrize("sql", ["FROM calls('pay')", "FROM writes(0x130050, 14)"])
def test_what_is_computed_has_the_columns_that_are_said(tmp_path: Path, sql: str) -> None:
    with asked(tmp_path, made=computed) as it:
        table = it.result(f"SELECT * {sql}").table
        assert table.num_rows
        described = it.result(f"DESCRIBE SELECT * {sql}").table
    kinds = zip(described.column("column_name").to_pylist(), described.column("column_type").to_pylist(), strict=True)
    name = sql.split("(")[0].removeprefix("FROM ")
    assert ", ".join(" ".join(pair) for pair in kinds) == COMPUTED[name][1]


def test_a_slow_statement_is_cancelled_and_the_next_one_runs(tmp_path: Path) -> None:
    with asked(tmp_path) as it:
        it.console.run(SLOW)
        time.sleep(0.3)
        assert it.console.busy
        began = time.monotonic()
        assert it.console.cancel()
        stopped = it.wait(2)
        assert isinstance(stopped, Stopped) and stopped.seconds >= 0.3
        assert time.monotonic() - began < 3
        assert not it.console.cancel()
        assert it.result("SELECT 42").table.column(0).to_pylist() == [42]


def test_a_cancellation_that_comes_before_the_statement_has_begun_is_not_lost(tmp_path: Path) -> None:
    with asked(tmp_path) as it:
        for number in range(5):
            it.console.run(SLOW)
            it.console.cancel()
            assert isinstance(it.wait(2 + number), Stopped)


def test_what_is_computed_can_be_cancelled(tmp_path: Path) -> None:
    began = threading.Event()

    def endless(watch: Watch) -> Functions:
        def compute(args: list[str | int]) -> pa.Table:
            while True:
                began.set()
                watch(0, 0)
                time.sleep(0.01)

        return {"calls": compute}

    with asked(tmp_path, made=endless) as it:
        it.console.run("FROM calls('x')")
        assert began.wait(PATIENCE)
        it.console.cancel()
        assert isinstance(it.wait(2), Stopped)


def test_what_was_computed_for_a_cancelled_statement_is_dropped(tmp_path: Path) -> None:
    began, go = threading.Event(), threading.Event()

    def deaf(watch: Watch) -> Functions:
        def compute(args: list[str | int]) -> pa.Table:
            began.set()
            assert go.wait(PATIENCE)
            return pa.table({"a": [1]})

        return {"calls": compute}

    with asked(tmp_path, made=deaf) as it:
        it.console.run("FROM calls('x')")
        assert began.wait(PATIENCE)
        it.console.cancel()
        assert it.console.cancelling
        go.set()
        assert isinstance(it.wait(2), Stopped)


def test_closing_ends_what_runs(tmp_path: Path) -> None:
    with asked(tmp_path) as it:
        it.console.run(SLOW)
        time.sleep(0.2)
        began = time.monotonic()
        it.console.close()
        assert time.monotonic() - began < 2
        assert len(it.reports) == 1


@pytest.mark.parametrize(
    ("sql", "why"),
    [
        ("SELEC 1", "syntax error"),
        ("SELECT nothing FROM events", "nothing"),
        ("SELECT 'x'::INTEGER FROM range(3)", "Could not convert"),
        ("SELECT CASE WHEN range > 5000 THEN error('late') ELSE 1 END FROM range(9000)", "late"),
        ("COPY events TO '{out}'", "COPY is not allowed"),
        ("COPY (SELECT 1) TO '{trace}/events.parquet'", "COPY is not allowed"),
        ("ATTACH '{out}'", "ATTACH is not allowed"),
        ("SET memory_limit = '1TB'", "SET is not allowed"),
        ("INSTALL httpfs", "is not allowed"),
        ("CREATE TABLE x AS SELECT 1", "CREATE is not allowed"),
        ("SELECT 1; SELECT 2", "2 statements"),
        ("SELECT * FROM read_text('{trace}/manifest.json')", "Permission"),
        ("SELECT * FROM calls(range)", "only numbers"),
    ],
)
def test_what_is_wrong_or_not_allowed_is_one_line(tmp_path: Path, sql: str, why: str) -> None:
    before = {file: hashlib.sha256(file.read_bytes()).digest() for file in INCIDENT.iterdir()}
    with asked(tmp_path, made=computed) as it:
        failed = it.run(sql.replace("{out}", str(tmp_path / "out")).replace("{trace}", str(INCIDENT)))
        assert isinstance(failed, Failed), failed
        assert why in failed.why and "\n" not in failed.why
        # The connection is used again: nothing of the failed statement is left in it.
        assert it.result("SELECT count(*) FROM events").table.column(0).to_pylist()[0] > 0
    assert not (tmp_path / "out").exists()
    assert {file: hashlib.sha256(file.read_bytes()).digest() for file in INCIDENT.iterdir()} == before


def test_nothing_is_computed_for_a_statement_that_is_not_allowed(tmp_path: Path) -> None:
    def untouched(watch: Watch) -> Functions:
        return {"calls": lambda args: pytest.fail("computed")}

    with asked(tmp_path, made=untouched) as it:
        failed = it.run("CREATE TABLE x AS FROM calls('y')")
        assert isinstance(failed, Failed) and "not allowed" in failed.why


def test_a_damaged_trace_is_told(tmp_path: Path) -> None:
    trace = tmp_path / "a.trace"
    trace.mkdir()
    (trace / "events.parquet").write_bytes(b"PAR1garbagePAR1")
    with asked(tmp_path, trace) as it:
        assert isinstance(it.reports[0], Failed) and "damaged" in it.reports[0].why
        assert isinstance(it.run("SELECT 1"), Failed)


def test_a_million_rows_are_kept_and_no_more(tmp_path: Path) -> None:
    with asked(tmp_path) as it:
        exact = it.result("SELECT range AS seq FROM range(1000000)")
        assert (exact.table.num_rows, exact.more) == (1_000_000, False)
        began = time.monotonic()
        cut = it.result("SELECT a.range AS seq FROM range(10000000) a, range(1000000) b")
        assert (cut.table.num_rows, cut.more) == (1_000_000, True)
        assert time.monotonic() - began < PATIENCE


def test_bytes_are_bounded_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console, "BYTES", 1 << 20)
    with asked(tmp_path) as it:
        cut = it.result("SELECT repeat('x', 1000) AS t FROM range(100000)")
        assert cut.more and 1000 <= cut.table.num_rows < 10_000


# -- history


def test_history_is_newest_first_without_repetition_and_private(tmp_path: Path) -> None:
    path = tmp_path / "state" / "reprise" / "sql-history"
    one, other = History(path), History(path)
    one.add("SELECT 1")
    other.add("SELECT 2\nFROM x")
    one.add(" SELECT 1 ")
    assert other.read() == one.read() == ["SELECT 1", "SELECT 2\nFROM x"]
    assert path.stat().st_mode & 0o777 == 0o600
    for number in range(MOST + 20):
        path.write_text("".join(json.dumps(f"SELECT {i}") + "\n" for i in range(number - 1, -1, -1))) if number == MOST else None
    one.add("SELECT 'new'")
    assert len(one.read()) == MOST and one.read()[:2] == ["SELECT 'new'", f"SELECT {MOST - 1}"]
    one.remove("SELECT 'new'")
    assert one.read()[0] == f"SELECT {MOST - 1}"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"{not json\n[1]\nnull\n", b"", b'"' * 100])
def test_a_broken_history_is_none(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "sql-history"
    path.write_bytes(content + b'\n"SELECT 1"\n')
    assert History(path).read() == ["SELECT 1"]
    History(path).add("SELECT 2")
    assert History(path).read() == ["SELECT 2", "SELECT 1"]


def test_a_history_that_cannot_be_kept_is_said_and_the_statement_runs(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    it = Asked(INCIDENT, nothing, History(tmp_path / "file" / "sql-history"))
    it.console.start()
    try:
        it.wait(1)
        it.console.run("SELECT 1")
        it.wait(3)
        assert isinstance(it.reports[1], Unkept) and isinstance(it.reports[2], Result)
    finally:
        it.console.close()


def test_the_history_is_where_state_is_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert History().path == tmp_path / "reprise" / "sql-history"
    monkeypatch.delenv("XDG_STATE_HOME")
    assert History().path == Path.home() / ".local" / "state" / "reprise" / "sql-history"


# -- export

MIXED = (
    "SELECT range AS seq, 'a,\"' || range AS t, NULL::INTEGER AS n, blob '\\x00\\xff' AS b, [1, 2] AS l, 1 AS x, 2 AS x "
    "FROM range(3)"
)


def exported(it: Asked, result: Result, path: Path, replace: bool = False) -> Report:
    known = len(it.reports)
    it.console.export(result, path, replace)
    return it.wait(known + 1)


def test_each_kind_of_file_holds_the_result(tmp_path: Path) -> None:
    with asked(tmp_path) as it:
        result = it.result(MIXED)
        for kind in export.KINDS:
            told = exported(it, result, tmp_path / f"out{kind}")
            assert isinstance(told, Exported) and told.rows == 3
            assert (tmp_path / f"out{kind}").stat().st_size == told.size
    whole = pq.read_table(tmp_path / "out.parquet")
    assert whole.column_names == ["seq", "t", "n", "b", "l", "x", "x_1"]
    assert whole.column("b").to_pylist() == [b"\x00\xff"] * 3 and whole.column("l").to_pylist() == [[1, 2]] * 3
    text = pyarrow.csv.read_csv(tmp_path / "out.csv")
    assert text.column("t").to_pylist() == ['a,"0', 'a,"1', 'a,"2'] and text.column("b").to_pylist() == ["AP8="] * 3
    rows = json.loads((tmp_path / "out.json").read_text())
    assert rows[2] == {"seq": 2, "t": 'a,"2', "n": None, "b": "AP8=", "l": [1, 2], "x": 1, "x_1": 2}


def test_nothing_is_overwritten_unless_it_was_said(tmp_path: Path) -> None:
    path = tmp_path / "out.csv"
    path.write_text("mine")
    with asked(tmp_path) as it:
        result = it.result("SELECT 1 AS a")
        refused = exported(it, result, path)
        assert isinstance(refused, Failed) and "exists" in refused.why and path.read_text() == "mine"
        assert isinstance(exported(it, result, path, replace=True), Exported)
    assert path.read_text() == "a\n1\n"
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["out.csv", "state"]


def test_a_failed_export_leaves_nothing(tmp_path: Path) -> None:
    with asked(tmp_path) as it:
        result = it.result("SELECT {'a': INTERVAL 3 DAY} AS i")
        failed = exported(it, result, tmp_path / "out.parquet")
        assert isinstance(failed, Failed) and "cannot hold" in failed.why
    assert [entry.name for entry in tmp_path.iterdir()] == ["state"]


def test_an_export_of_a_cut_result_has_all_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console, "ROWS", 100)
    with asked(tmp_path) as it:
        result = it.result("SELECT range AS seq FROM range(5000)")
        assert result.more and result.table.num_rows == 100
        told = exported(it, result, tmp_path / "out.parquet")
        assert isinstance(told, Exported) and told.rows == 5000
    assert pq.read_table(tmp_path / "out.parquet").column("seq").to_pylist() == list(range(5000))


def test_an_export_is_cancelled(tmp_path: Path) -> None:
    with asked(tmp_path) as it:
        result = it.result("SELECT a.range AS seq FROM range(10000000) a, range(1000000) b")
        it.console.export(result, tmp_path / "out.csv", False)
        time.sleep(0.3)
        it.console.cancel()
        assert isinstance(it.wait(3), Stopped)
    assert [entry.name for entry in tmp_path.iterdir()] == ["state"]


def test_where_an_export_may_go(tmp_path: Path) -> None:
    trace = tmp_path / "a.trace"
    (trace / "journal").mkdir(parents=True)
    (tmp_path / "link").symlink_to(trace)
    for name in ("a.trace/x.csv", "a.trace/journal/x.csv", "link/x.csv", "a.trace/../a.trace/x.json"):
        with pytest.raises(UsageError, match="evidence"):
            export.target(str(tmp_path / name), trace)
    for name, why in (("x.txt", "end in"), ("x", "end in"), ("none/x.csv", "no such directory")):
        with pytest.raises(UsageError, match=why):
            export.target(str(tmp_path / name), trace)
    assert export.target(str(tmp_path / "x.CSV"), trace) == tmp_path / "x.CSV"


# -- cells


def test_cells_are_text(tmp_path: Path) -> None:
    with asked(tmp_path) as it:
        row = it.result(
            "SELECT NULL, 'NULL', blob '\\x00\\xff', 1.50::DECIMAL(9,2), true, [1, 2], {'a': blob 'x'}, DATE '2020-01-02', "
            "TIMESTAMP_NS '2020-01-01 00:00:00.123456789', 170141183460469231731687303715884105727::HUGEINT, 'nan'::DOUBLE, "
            "DATE 'infinity', list_value(NULL)"
        ).table
    assert [cells.text_of(column[0]) for column in row.columns] == [
        None, "NULL", "00ff", "1.50", "true", "[1, 2]", '{"a": "78"}', "2020-01-02",
        "2020-01-01 00:00:00.123456789", "170141183460469231731687303715884105727", "nan",
        "<value out of range: 2147483647>", "[null]",
    ]  # fmt: skip


def test_a_gigantic_cell_is_cut_before_it_is_made() -> None:
    for scalar in (pa.scalar("ü" * 50_000_000), pa.scalar(b"x" * 50_000_000), pa.scalar(list(range(1_000_000)))):
        began = time.perf_counter()
        text = cells.text_of(scalar, 100)
        assert time.perf_counter() - began < 0.05
        assert text is not None and len(text) <= 100 and text.endswith("…")


@pytest.mark.parametrize(
    ("row", "mark"),
    [
        ({"seq": 29}, "e29"),
        ({"mark": 1204}, "1204"),
        ({"mark": 1204, "step": 2, "seq": 1}, "1204.2"),
        ({"mark": 1204, "step": 0}, "1204"),
        ({"mark": "e29+"}, "e29+"),
        ({"mark": "rm -rf"}, None),
        ({"mark": -5}, None),
        ({"mark": None, "seq": 3}, "e3"),
        ({"seq": -1}, None),
        ({"seq": "x"}, None),
        ({"other": 1}, None),
    ],
)
def test_what_a_row_stands_for(row: Mapping[str, Any], mark: str | None) -> None:
    assert cells.mark_of({name: pa.scalar(value, pa.int64() if value is None else None) for name, value in row.items()}) == mark


# -- on the screen


class Host(App[None]):
    CSS_PATH = str(ROOT / "inspector" / "app.tcss")


class Bench:
    """The SQL screen in an app that has nothing else."""

    def __init__(self, app: Host, pilot: Pilot[Any], trace: Trace, history: History) -> None:
        self.app, self.pilot, self.trace, self.history = app, pilot, trace, history
        self.state = SqlState()
        self.left: list[str | None] = []

    async def open(self, made: Callable[[Watch], Functions] = computed) -> None:
        screen = SqlScreen(self.trace, made, self.state, history=self.history)
        await self.app.push_screen(screen, self.left.append)
        self.sql = screen
        await self.until(lambda: screen.query_one(SchemaPane).count() or screen.query_one(ResultTable).said is not None)

    async def until(self, holds: Callable[[], Any]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not holds():
            assert time.monotonic() < deadline, f"never came:\n{self.text()}"
            await self.pilot.pause(0.02)
        await self.pilot.pause()

    async def run(self, sql: str | None = None) -> None:
        if sql is not None:
            self.sql.query_one(Editor).put(sql)
        await self.pilot.press("ctrl+j")
        await self.until(lambda: not self.sql._under_way)

    def lines(self) -> list[str]:
        return ["".join(part.text for part in strip).rstrip() for strip in self.app.screen._compositor.render_strips()]

    def text(self) -> str:
        return "\n".join(self.lines())


Journey = Callable[[Bench], Awaitable[None]]


def visit(tmp_path: Path, journey: Journey, size: tuple[int, int] = (120, 40), theme: str = "textual-dark") -> None:
    async def run() -> None:
        with Trace.open(INCIDENT) as trace:
            app = Host()
            async with app.run_test(size=size) as pilot:
                app.theme = theme
                bench = Bench(app, pilot, trace, History(tmp_path / "sql-history"))
                await bench.open()
                await journey(bench)

    asyncio.run(run())


@pytest.mark.parametrize("theme", ["textual-dark", "textual-light", "ansi-dark"])
@pytest.mark.parametrize("size", [(80, 24), (120, 40), (220, 60)])
def test_the_example_runs_and_a_row_goes_to_its_event(tmp_path: Path, size: tuple[int, int], theme: str) -> None:
    async def journey(bench: Bench) -> None:
        assert ("─ tables ─" in bench.text()) == (size[0] >= 100)
        assert "ctrl+j runs" in bench.text()
        await bench.run()
        lines = bench.lines()
        assert all(len(line) <= size[0] for line in lines) and len(lines) == size[1]
        assert "import" in bench.text() and "tool.pay" in "".join(str(bench.sql.query_one(ResultTable).result))
        assert "14 rows, 6 columns" in bench.text()
        assert "ctrl+j run" in lines[-1] and "f1 help" in lines[-1]
        await bench.pilot.press("end", "enter")
        await bench.until(lambda: bench.left)
        assert bench.left == ["e29"]

    visit(tmp_path, journey, size, theme)


def test_it_comes_back_as_it_was_left(tmp_path: Path) -> None:
    async def journey(bench: Bench) -> None:
        await bench.run("SELECT range AS seq, 'x' AS t FROM range(100)")
        await bench.pilot.press("down", "down", "right", "escape")
        await bench.until(lambda: bench.left)
        await bench.open()
        table = bench.sql.query_one(ResultTable)
        assert (table.cursor, table.column, table.count()) == (2, 1, 100)
        assert bench.sql.query_one(Editor).text == "SELECT range AS seq, 'x' AS t FROM range(100)"
        assert bench.app.focused is table
        await bench.pilot.press("enter")
        await bench.until(lambda: len(bench.left) == 2)
        assert bench.left == [None, "e2"]

    visit(tmp_path, journey)


def test_writes_lead_to_their_marks(tmp_path: Path) -> None:
    async def journey(bench: Bench) -> None:
        await bench.run("SELECT mark, step, function FROM writes(0x130050, 14) ORDER BY mark DESC LIMIT 1")
        await bench.pilot.press("enter")
        await bench.until(lambda: bench.left)
        with asked(tmp_path, made=computed) as it:
            row = it.result("FROM writes(0x130050, 14) ORDER BY mark DESC LIMIT 1").table.to_pylist()[0]
        assert bench.left == [f"{row['mark']}.{row['step']}" if row["step"] else str(row["mark"])]

    visit(tmp_path, journey)


def test_the_screen_lives_while_a_statement_runs_and_escape_ends_it(tmp_path: Path) -> None:
    async def journey(bench: Bench) -> None:
        bench.sql.query_one(Editor).put(SLOW)
        await bench.pilot.press("f5")
        await bench.until(lambda: "running" in bench.lines()[-1])
        assert "esc cancels" in bench.lines()[-1]
        slowest, last = 0.0, time.monotonic()
        for _ in range(100):
            await asyncio.sleep(0.01)
            slowest, last = max(slowest, time.monotonic() - last), time.monotonic()
        assert slowest < 0.5
        await bench.pilot.press("x")
        assert bench.sql.query_one(Editor).text == SLOW + "x"
        await bench.pilot.press("escape")
        await bench.until(lambda: "cancelled after" in bench.lines()[-1])
        assert not bench.left
        await bench.run("SELECT 7 AS seven")
        assert "seven" in bench.text()

    visit(tmp_path, journey)


def test_leaving_with_a_statement_that_runs_does_not_hang(tmp_path: Path) -> None:
    seen: list[SqlScreen] = []

    async def journey(bench: Bench) -> None:
        bench.sql.query_one(Editor).put(SLOW)
        await bench.pilot.press("ctrl+j")
        await bench.pilot.pause(0.2)
        assert bench.sql.console.busy
        seen.append(bench.sql)

    began = time.monotonic()
    visit(tmp_path, journey)
    assert time.monotonic() - began < 8
    assert not seen[0].console.busy and not seen[0].console._thread.is_alive()


def test_a_mistake_is_told_where_the_result_would_be(tmp_path: Path) -> None:
    async def journey(bench: Bench) -> None:
        await bench.run("SELEC 1")
        assert 'syntax error at or near "SELEC"' in bench.text()
        await bench.run("COPY events TO '/tmp/x.csv'")
        assert "COPY is not allowed here" in bench.text()
        await bench.run("SELECT 1 AS one WHERE false")
        assert "0 rows, 1 column" in bench.text()

    visit(tmp_path, journey)


def test_hostile_text_is_only_text(tmp_path: Path) -> None:
    async def journey(bench: Bench) -> None:
        await bench.run(
            "SELECT chr(27) || '[2J[bold]a[/]' || chr(10) || chr(8238) || 'b' AS \"[red]\", "
            "'漢字' AS wide, 'NULL' AS s, NULL AS n"
        )
        text = bench.text()
        assert "\x1b" not in text and "\u202e" not in text
        assert "[2J[bold]a[/] " in text and "[red]" in text and "漢字" in text
        await bench.pilot.press("y")
        assert bench.app.clipboard == "\\x1b[2J[bold]a[/]\n\\u202eb"
        await bench.pilot.press("Y")
        assert bench.app.clipboard.split("\t") == ["\\x1b[2J[bold]a[/] \\u202eb", "漢字", "NULL", ""]
        await bench.pilot.press("e")
        await bench.until(lambda: "─ row 1 ─" in bench.text())
        assert "\x1b" not in bench.text()
        await bench.pilot.press("escape")
        bench.sql.query_one(Editor).insert("\x1b[2J")
        await bench.pilot.pause()
        assert "\x1b" not in bench.text() and "[2J" in bench.text()

    visit(tmp_path, journey)


def test_two_hundred_columns_are_gone_through_one_by_one(tmp_path: Path) -> None:
    async def journey(bench: Bench) -> None:
        await bench.run("WITH t AS (SELECT " + ", ".join(f"{i} AS c{i}" for i in range(200)) + ") " + "\n" * 50 + "FROM t")
        assert " c0  c1 " in bench.text() and "c199" not in bench.text()
        table = bench.sql.query_one(ResultTable)
        await bench.pilot.press("right", "right")
        assert (table.column, table.first) == (2, 0)
        for _ in range(197):
            table.action_cursor_right()
        await bench.pilot.pause()
        assert "c199" in bench.text() and " c0 " not in bench.text()
        for _ in range(199):
            table.action_cursor_left()
        await bench.pilot.pause()
        assert " c0  c1 " in bench.text()

    visit(tmp_path, journey)


def test_a_million_rows_are_on_the_screen_at_once(tmp_path: Path) -> None:
    async def journey(bench: Bench) -> None:
        await bench.run("SELECT range AS seq, 'row ' || range AS t FROM range(1000000)")
        assert "1,000,000 rows" in bench.text()
        began = time.monotonic()
        await bench.pilot.press("end")
        assert time.monotonic() - began < 1
        assert "row 999999" in bench.text()
        await bench.pilot.press("enter")
        await bench.until(lambda: bench.left)
        assert bench.left == ["e999999"]

    visit(tmp_path, journey)


def test_earlier_statements_come_from_other_sessions_too(tmp_path: Path) -> None:
    async def first(bench: Bench) -> None:
        await bench.run("SELECT 1 AS one")
        await bench.run("SELECT 2 AS two")

    async def second(bench: Bench) -> None:
        await bench.pilot.press("f8")
        await bench.until(lambda: "earlier statements" in bench.text())
        assert bench.text().index("SELECT 2 AS two") < bench.text().index("SELECT 1 AS one")
        await bench.pilot.press("down", "enter")
        await bench.until(lambda: bench.sql.query_one(Editor).text == "SELECT 1 AS one")
        await bench.pilot.press("f8", "delete", "escape")
        assert bench.history.read() == ["SELECT 1 AS one"]

    visit(tmp_path, first)
    visit(tmp_path, second)


def test_an_export_asks_before_it_replaces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    async def journey(bench: Bench) -> None:
        await bench.pilot.press("ctrl+e")
        assert "no result to export" in bench.lines()[-1]
        await bench.run("SELECT 5 AS five")
        await bench.pilot.press("ctrl+e")
        await bench.until(lambda: "1 row; the name ends in" in bench.text())
        await bench.pilot.press("enter")
        await bench.until(lambda: (tmp_path / "incident.csv").exists() and "incident.csv" in bench.lines()[-1])
        assert (tmp_path / "incident.csv").read_text() == "five\n5\n"
        await bench.run("SELECT 6 AS six")
        await bench.pilot.press("ctrl+e", "enter")
        await bench.until(lambda: "exists, with 7 bytes" in bench.text())
        assert (tmp_path / "incident.csv").read_text() == "five\n5\n"
        await bench.pilot.press("enter")
        await bench.until(lambda: (tmp_path / "incident.csv").read_text() == "six\n6\n")

    visit(tmp_path, journey)


def test_tables_are_unfolded_and_names_inserted(tmp_path: Path) -> None:
    async def journey(bench: Bench) -> None:
        editor = bench.sql.query_one(Editor)
        editor.put("SELECT")
        assert "▸ runs" in bench.text()
        await bench.pilot.press("f9")
        assert "tables" not in bench.lines()[0]
        await bench.pilot.press("f9")
        assert bench.app.focused is bench.sql.query_one(SchemaPane)
        await bench.pilot.press("right", "down", "enter")
        assert "▾ runs" in bench.text() and "trace_id" in bench.text()
        assert editor.text == "SELECT trace_id"

    visit(tmp_path, journey)


def test_names_are_completed(tmp_path: Path) -> None:
    async def journey(bench: Bench) -> None:
        editor = bench.sql.query_one(Editor)
        editor.put("SELECT ")
        await bench.pilot.press(*"dura")
        assert editor.suggestion == "tion_ns"
        await bench.pilot.press("tab")
        assert editor.text == "SELECT duration_ns"
        editor.put("SELECT 'dur")
        assert editor.suggestion == ""
        editor.put("-- dur")
        assert editor.suggestion == ""

    visit(tmp_path, journey)


def test_a_part_is_run_if_one_is_chosen(tmp_path: Path) -> None:
    async def journey(bench: Bench) -> None:
        editor = bench.sql.query_one(Editor)
        editor.put("SELECT 1 AS one; SELECT 2 AS two;")
        editor.move_cursor((0, 17))
        editor.move_cursor((0, 33), select=True)
        await bench.run()
        assert bench.sql.query_one(ResultTable).title().startswith("result  two")

    visit(tmp_path, journey)


def test_help_and_a_click(tmp_path: Path) -> None:
    async def journey(bench: Bench) -> None:
        await bench.pilot.press("f1")
        assert "─ help ─" in bench.text() and "Write the result to" in bench.text()
        await bench.pilot.press("escape")
        await bench.run("SELECT range AS seq, 'x' AS t FROM range(10)")
        await bench.pilot.click(ResultTable, offset=(7, 4))
        table = bench.sql.query_one(ResultTable)
        assert (table.cursor, table.column) == (2, 1)
        await bench.pilot.click(ResultTable, offset=(2, 1))
        assert (table.cursor, table.column) == (2, 0)

    visit(tmp_path, journey)
