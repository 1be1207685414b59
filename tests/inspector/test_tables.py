"""Globals, tables and what values are made of: against the time machine's own answers, and modules written for it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inspector import protocol as ask
from inspector.capture import Capture
from inspector.memory.labels import read_labels, read_table_start
from inspector.panes.frames import FramesPane
from inspector.panes.tables import TablesPane
from inspector.session import Session
from recorder.wasm.binary import PREAMBLE, custom_section
from recorder.wasm.module import parse_module
from replayer.machine import TimeMachine
from replayer.source.values import Value
from tests.harness import assemble, guest, record
from tests.inspector.kit import GOLDENS, INCIDENT, Desk, travel

CALLS = """(module
  (global $counter (mut i32) (i32.const 7))
  (global $ratio (export "ratio") f64 (f64.const 1.5))
  (global $place (mut i32) (i32.const 256))
  (table $calls 300 funcref)
  (table $many 100000 funcref)
  (elem (table $calls) (i32.const 3) func $touch $run)
  (elem (table $many) (i32.const 99998) func $run)
  (memory 1)
  (func $touch (global.set $counter (i32.add (global.get $counter) (i32.const 1))))
  (func $run (export "run") (call $touch) (call $touch)))"""
"""Tables that nothing writes."""


@pytest.fixture(scope="module")
def calls(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("calls") / "calls.trace"
    record(assemble(CALLS), path, lambda target: target.call_raw("run", []))
    return path


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Elements are set and cleared while it runs."""
    path = tmp_path_factory.mktemp("written") / "written.trace"
    wasm = assemble("""(module
      (table $t 4 8 funcref) (elem (table $t) (i32.const 0) func $f $f)
      (func $f)
      (func (export "run")
        (table.set $t (i32.const 0) (ref.null func))
        (table.set $t (i32.const 3) (ref.func $f))
        (drop (table.grow $t (ref.func $f) (i32.const 2)))))""")
    record(wasm, path, lambda target: target.call_raw("run", []))
    return path


# -- what a module calls things ----------------------------------------------------------------------------------------------


def test_names_come_from_the_name_section_exports_and_imports() -> None:
    labels = read_labels(parse_module(assemble(CALLS)))

    assert [label.name for label in labels.globals] == ["counter", "ratio", "place"]
    assert [label.name for label in labels.tables] == ["calls", "many"]
    assert labels.global_named("ratio") == 1 and labels.global_named("") is None

    imported = read_labels(parse_module(guest("imported_state")))
    assert all(label.imported for label in imported.globals[:1])


def test_elements_of_segments_are_known() -> None:
    module = parse_module(assemble(CALLS))
    start = read_table_start(module)

    assert start.functions == {0: {3: 0, 4: 1}, 1: {99998: 1}}
    assert not start.written
    assert read_table_start(parse_module(guest("tables"))).written


def test_segments_of_every_form_are_read() -> None:
    module = parse_module(
        assemble("""(module (table $a 9 funcref) (table $b 9 funcref) (func $f) (func $g)
          (elem (i32.const 1) $f $g)
          (elem (table $b) (i32.const 2) func $g)
          (elem (table $b) (i32.const 3) funcref (ref.func $f) (ref.null func))
          (elem (table $a) (i32.const 2) funcref (ref.null func))
          (elem func $f) (elem declare func $g))""")
    )
    assert read_table_start(module).functions == {0: {1: 0}, 1: {2: 1, 3: 0}}


@given(st.binary(max_size=60))
def test_a_damaged_name_section_costs_names_only(data: bytes) -> None:
    labels = read_labels(parse_module(PREAMBLE + custom_section("name", data)))

    assert (labels.globals, labels.tables) == ((), ())


# -- the pane ----------------------------------------------------------------------------------------------------------------


def rows(pane: TablesPane) -> list[str]:
    return ["".join(text for text, _ in pane.pieces(i, 200)).strip() for i in range(pane.count())]


def test_globals_and_tables_of_a_module(calls: Path) -> None:
    async def journey(desk: Desk) -> None:
        desk.app.activate("tables")
        await desk.press("c")
        pane = desk.app.pane(TablesPane)
        assert rows(pane) == [
            "0 counter = 9 (was 7)  mut i32",
            "1 ratio = 1.5  f64",
            "2 place = 256  0x100  mut i32",
            "▾ table 0 calls  300 × funcref",
            "0 null ×3",
            "3 #0 touch",
            "4 #1 run",
            "5 null ×295",
            "▸ table 1 many  100,000 × funcref",
        ]
        await desk.press("end", "right", "end")
        assert pane.count() == 9 + 100_000
        assert rows(pane)[-2:] == ["99998 #1 run", "99999 null"] or "99998 #1 run" in desk.screen()
        assert len(pane._windows) < 8  # of a hundred thousand elements those on the screen were read
        await desk.press("home", "down", "down", "enter")
        assert desk.app.focus.range == (0, 256, 1)
        assert desk.app.focused is not None and desk.app.focused.id == "memory"

    travel(journey, calls, at="start", size=(200, 60))


def test_elements_that_are_written_are_those_of_the_moment(written: Path) -> None:
    async def journey(desk: Desk) -> None:
        desk.app.activate("tables")
        await desk.press("c")
        await desk.press("c")
        assert rows(desk.app.pane(TablesPane)) == [
            "▾ table 0 t  6 × funcref",
            "0 null (was a function; at the start #0 f)",
            "1 a function; at the start #0 f",
            "2 null",
            "3 a function (was null)",
            "4 a function (was null)",
            "5 a function (was null)",
        ]
        await desk.press("down", "down", "enter")
        assert "element 1 of table 0" in desk.lines()[-1]

    travel(journey, written, at="start")


def test_the_globals_are_those_of_the_machine() -> None:
    async def journey(desk: Desk) -> None:
        with TimeMachine(INCIDENT) as machine:
            bits = machine.seek("e29").globals[0]
        assert desk.app.snapshot is not None
        row = desk.app.snapshot.globals[0]
        assert row.text == f"{bits}  {bits:#x}" and row.target == bits
        assert not any("stack_pointer" in str(item) for item in desk.app.pane(FramesPane).items)

    travel(journey)


def test_a_pane_without_data_is_absent(tmp_path: Path) -> None:
    path = tmp_path / "bare.trace"
    record(assemble('(module (memory 1) (func (export "run")))'), path, lambda target: target.call_raw("run", []))

    async def journey(desk: Desk) -> None:
        assert "tables" not in desk.app.reachable()

    travel(journey, path, size=(200, 60))


@pytest.mark.parametrize(("size", "beside"), [((80, 24), False), ((120, 40), False), ((150, 45), True), ((200, 60), True)])
def test_where_there_is_room_tables_stand_beside_frames_and_memory(size: tuple[int, int], beside: bool) -> None:
    async def journey(desk: Desk) -> None:
        assert ("─ globals and tables ─" in desk.screen()) == beside
        desk.app.activate("tables")
        await desk.settled()
        screen = desk.screen()
        assert "─ globals and tables ─" in screen and "__stack_pointer" in screen
        assert ("─ frames ─" in screen) == beside
        assert ("─ memory " in screen) == (size != (80, 24))
        desk.app.activate("frames")
        await desk.settled()
        assert "─ frames ─" in desk.screen()

    travel(journey, size=size)


def test_other_recordings_show_theirs() -> None:
    async def journey(desk: Desk) -> None:
        desk.app.activate("tables")
        await desk.settled()
        shown = rows(desk.app.pane(TablesPane))
        assert (shown[0].startswith("▾ table 0") and "exported as table" in shown[0]) or shown[0].startswith("▾ table 0 table")

    travel(journey, GOLDENS / "nested.trace")


# -- structures --------------------------------------------------------------------------------------------------------------


class Elements:
    """An array's elements in windows, as a reader of debug information that makes them would give them."""

    def __init__(self, count: int, window: int = 100) -> None:
        self.count, self.window = count, window

    def value(self, name: str) -> Value:
        return Value(name, f"int[{self.count}]", "[…]", None, 16, "ok", lambda: self.rows(0))

    def rows(self, first: int) -> list[Value]:
        end = min(self.count, first + self.window)
        found = [Value(f"[{i}]", "int", str(i), i.to_bytes(4, "little"), 16 + 4 * i, "ok") for i in range(first, end)]
        if end < self.count:
            found.append(Value("…", "", f"{self.count - end} more", None, None, "ok", lambda: self.rows(end)))
        return found


def shown(capture: Capture, value: Value, opened: Sequence[tuple[str, ...]]) -> list[Any]:
    for path in opened:
        capture.toggle(path)
    found: list[Any] = []
    capture._add_value(found, ("f",), value)
    return found


def test_long_arrays_open_window_by_window() -> None:
    value = Elements(250).value("a")
    first = shown(Capture(), value, [("f", "a")])
    assert [row.name for row in first[-2:]] == ["[99]", "… 150 more"]
    assert first[-1].expandable and not first[-1].expanded

    second = shown(Capture(), value, [("f", "a"), first[-1].path])
    assert [row.name for row in second[-2:]] == ["[199]", "… 50 more"]
    assert len({len(row.path) for row in second[1:]}) == 1  # all in line

    whole = shown(Capture(), value, [("f", "a"), first[-1].path, second[-1].path])
    assert [row.text for row in whole[1:]] == [str(i) for i in range(250)]


def test_lists_that_go_in_circles_open_one_by_one() -> None:
    def node(name: str) -> Value:
        return Value(name, "struct node *", "0x10", b"\x10\0\0\0", 8, "ok", lambda: [node("next")])

    path: tuple[str, ...] = ("f", "head")
    opened = [path]
    for _ in range(20):
        path = (*path, "next")
        opened.append(path)
    found = shown(Capture(), node("head"), opened)

    assert len(found) == 22
    assert found[0].target == 16 and not found[-1].expanded


def test_what_is_not_shown_is_told() -> None:
    wide = Value("s", "struct s", "{…}", None, 0, "ok", lambda: [Value(f"m{i}", "int", "0", None, i, "ok") for i in range(3000)])
    found = shown(Capture(), wide, [("f", "s")])

    assert len(found) == 2001 and found[-1].name == "… more is open than is shown"


def test_tables_are_read_while_the_guest_is_at_its_end(calls: Path) -> None:
    import queue

    reports: queue.Queue[ask.Report] = queue.Queue()
    session = Session(calls, reports.put)
    session.start()
    session.post(ask.Seek("end"))
    session.post(ask.ReadTable(1, 99_990, 512))
    while not isinstance(report := reports.get(timeout=30), ask.TableRead):
        pass
    session.close()

    assert report.window.size == 100_000
    assert [element.null for element in report.window.elements] == [True] * 8 + [False, True]
