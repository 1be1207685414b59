"""Memory: searching, comparing, decoding, addresses; under the pilot and without a screen, against the plainest way of each."""

from __future__ import annotations

import queue
import re
import struct
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inspector import protocol as ask
from inspector.memory import search
from inspector.memory.search import Pattern, find, next_change
from inspector.memory.values import explained, leb128, needle, text_at, timestamp, wasm_value
from inspector.panes.memory import MemoryPane
from recorder.wasm.binary import sleb, uleb
from replayer.machine import TimeMachine
from tests.harness import assemble, record
from tests.inspector.kit import ACCOUNT, INCIDENT, SOURCES, Desk, travel
from tests.inspector.test_headless import Listener
from traces._errors import UsageError

TWO = """(module
  (memory $small (export "memory") 1 4)
  (memory $wide (export "wide") i64 2)
  (data $words (memory $small) (i32.const 256) "needle and thread")
  (data (memory $wide) (i64.const 65536) "needle")
  (func $touch (param i32) (i32.store8 (local.get 0) (i32.const 0x5a)))
  (func (export "run")
    (i32.store (i32.const 16) (i32.const 256))
    (call $touch (i32.const 65535))
    (drop (memory.grow $small (i32.const 1)))
    (call $touch (i32.const 65536))
    (i64.store $wide (i64.const 32) (i64.const 65536))))"""
"""Two memories, the second with addresses of 64 bits; the first grows, and what is written there joins on to what was before."""


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("two") / "two.trace"
    record(assemble(TWO), path, lambda target: target.call_raw("run", []))
    return path


# -- searching ---------------------------------------------------------------------------------------------------------------

SMALL = st.lists(st.sampled_from(b"ab\0"), max_size=60).map(bytes)


def reader(data: bytes) -> search.Read:
    return lambda address, length: data[max(0, address) : max(0, address) + length]


@given(SMALL, SMALL.filter(bool).map(lambda data: data[:4]), st.integers(0, 60), st.booleans(), st.integers(1, 9))
def test_bytes_are_found_as_by_looking_at_every_address(
    data: bytes, wanted: bytes, start: int, reverse: bool, chunk: int
) -> None:
    places = [at for at in range(len(data)) if data[at : at + len(wanted)] == wanted]
    if reverse:
        ahead, behind = [at for at in places if at < start][::-1], [at for at in places if at >= start][::-1]
    else:
        ahead, behind = [at for at in places if at >= start], [at for at in places if at < start]
    expected = ((ahead[0], len(wanted)), False) if ahead else ((behind[0], len(wanted)), True) if behind else None

    with mock.patch.object(search, "CHUNK", chunk):
        assert find(reader(data), len(data), wanted, start, reverse, lambda: None) == expected


@given(SMALL, st.sampled_from(["ab", "a+b", "[ab]{2}", r"\x00.", "b|a"]), st.integers(0, 60), st.integers(1, 9))
def test_expressions_are_found_as_by_another_engine(data: bytes, text: str, start: int, chunk: int) -> None:
    other = re.compile(text.encode(), re.DOTALL)
    found = other.search(data, start) or other.search(data)
    with mock.patch.object(search, "CHUNK", chunk):
        result = find(reader(data), len(data), Pattern(text), start, False, lambda: None)

    if found is None:
        assert result is None
    else:
        assert result is not None and result[0] == (found.start(), len(found[0]))


@given(SMALL, st.integers(0, 60), st.integers(1, 9))
def test_expressions_are_found_backward(data: bytes, start: int, chunk: int) -> None:
    places = [at for at in range(min(start, len(data))) if data[at] in b"a\0"]
    with mock.patch.object(search, "CHUNK", chunk), mock.patch.object(search, "_WINDOW", 4):
        result = find(reader(data), len(data), Pattern(r"[a\x00]"), start, True, lambda: None)

    if places:
        assert result == ((places[-1], 1), False)
    else:
        assert result is None or result[1]


def test_an_expression_that_backtracks_takes_no_time() -> None:
    assert find(reader(b"a" * 100_000), 100_000, Pattern("(a+)+b"), 0, False, lambda: None) is None


@pytest.mark.parametrize("text", ["/(/", "/a*/", "/|/", 'u""', '""'])
def test_what_cannot_be_looked_for_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        needle(text)


def test_more_needles() -> None:
    assert needle('u"hé"') == "hé".encode("utf-16-le")
    assert needle("/a.c/") == Pattern("a.c")
    assert needle("/") == b"/"


# -- comparing ---------------------------------------------------------------------------------------------------------------


@given(SMALL, SMALL, st.integers(-1, 61), st.booleans(), st.integers(1, 9))
def test_changed_runs_are_found_as_by_comparing_every_byte(now: bytes, old: bytes, start: int, reverse: bool, page: int) -> None:
    old = old[: len(now)]
    padded = old.ljust(len(now), b"\0")
    differs = [a != b for a, b in zip(now, padded, strict=True)]
    runs = [at for at in range(len(now)) if differs[at] and not (at and differs[at - 1])]
    wanted = [at for at in runs if at < start][::-1] if reverse else [at for at in runs if at > start]
    expected = None
    if wanted:
        end = next((i for i in range(wanted[0], len(now)) if not differs[i]), len(now))
        expected = wanted[0], end - wanted[0]

    def same(number: int) -> bool:
        return now[number * page : (number + 1) * page] == old[number * page : (number + 1) * page]

    with mock.patch.object(search, "_WINDOW", 3):
        found = next_change(
            reader(now),
            lambda address, length: padded[address : address + length],
            len(now),
            page,
            start,
            reverse,
            same,
            lambda: None,
        )
    assert found == expected


# -- decoding ----------------------------------------------------------------------------------------------------------------


@given(st.binary(min_size=8, max_size=20))
def test_bytes_are_what_struct_says(data: bytes) -> None:
    found = dict(explained(data, 1 << 32, False))
    unsigned, signed = struct.unpack("<Q", data[:8])[0], struct.unpack("<q", data[:8])[0]

    assert found["64"] == (f"{unsigned}" if unsigned == signed else f"{unsigned} or {signed}")
    assert found["f32"] == f"{struct.unpack('<f', data[:4])[0]:.9g}"
    assert found["f64"] == f"{struct.unpack('<d', data[:8])[0]:.9g}"
    target = struct.unpack("<I", data[:4])[0]
    assert found["pointer"] == (f"{target:#x}" if target else "null")


@given(st.integers(0, 2**64 - 1), st.binary(max_size=3))
def test_leb128_is_what_the_writer_wrote(value: int, behind: bytes) -> None:
    data = uleb(value)
    found = leb128(data + behind)
    assert found is not None and (found[0], found[2]) == (value, len(data))

    signed = value - 2**63
    found = leb128(sleb(signed) + behind)
    assert found is None or (found[1], found[2]) == (signed, len(sleb(signed)))


@given(st.datetimes(datetime(1990, 1, 2), datetime(2099, 12, 30)), st.sampled_from([(1, "s"), (10**3, "ms"), (10**9, "ns")]))
def test_times_are_told(when: datetime, unit: tuple[int, str]) -> None:
    seconds = int(when.replace(tzinfo=UTC, microsecond=0).timestamp())

    text = timestamp((seconds * unit[0]).to_bytes(8, "little"))

    assert text.startswith(f"{when:%Y-%m-%d %H:%M:%S}") and text.endswith(f"Z, {unit[1]}")


def test_small_numbers_are_no_times() -> None:
    assert timestamp(struct.pack("<q", 5)) == "" and timestamp(b"\xff" * 8) == ""


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"pay\0rest", '"pay" 3 bytes, NUL'),
        ("é\0".encode(), '"é" 2 bytes, NUL'),
        (b"a\xff", '"a" 1 byte'),
        (b"\0a", ""),
        (b"\x1b[31m", ""),
    ],
)
def test_texts_end_at_a_nul_or_at_what_is_no_text(data: bytes, text: str) -> None:
    assert text_at(data) == text


def test_values_of_the_module() -> None:
    assert wasm_value("i32", 0xFFFFFFFF) == "-1"
    assert wasm_value("i32", 0x130050) == "1245264  0x130050"
    assert wasm_value("f64", struct.unpack("<Q", struct.pack("<d", 1.5))[0]) == "1.5"
    assert wasm_value("f32", struct.unpack("<I", struct.pack("<f", 0.1))[0]) == "0.100000001"
    assert wasm_value("funcref", 0) == "null"


# -- the session -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def listener() -> Iterator[Listener]:
    made = Listener()
    made.session.start()
    made.next(ask.Opened)
    made.session.post(ask.Seek("e29"))
    made.next(ask.Arrived)
    yield made
    made.session.close()


def place(listener: Listener, text: str, level: int = 0) -> Any:
    listener.session.post(ask.FindAddress(text, 0, level))
    report = listener.next(ask.Found, ask.Said)
    return (report.memory, report.address, report.length) if isinstance(report, ask.Found) else report.text


def test_addresses_are_found_by_name(listener: Listener) -> None:
    with TimeMachine(INCIDENT, search=[SOURCES]) as machine:
        here = machine.seek("e29")
        stack = here.globals[0]

        assert place(listener, "0x130050:14") == (0, ACCOUNT, 14)
        assert place(listener, "sp") == place(listener, "__stack_pointer") == place(listener, "global=0") == (0, stack, 1)
        assert place(listener, "*sp")[1] == int.from_bytes(here.read(stack, 4), "little") or "ends at" in place(listener, "*sp")
        assert "is not in memory here" in place(listener, "agent")
        assert place(listener, "agemt").endswith("did you mean agent?")
        listener.session.post(ask.Seek("e22"))
        listener.next(ask.Arrived)
        variable = next(value for value in machine.seek("e22").frames[0].variables if value.name == "observation")
        assert variable.address is not None and variable.raw is not None
        assert place(listener, "observation") == (0, variable.address, 128)
    assert "ends at 0x140000" in place(listener, "0x140000")
    assert "there is no memory 1" in place(listener, "1/0x10")
    assert "there is no global 9" in place(listener, "global=9")


def test_a_pointer_is_followed_by_its_name(listener: Listener) -> None:
    with TimeMachine(INCIDENT, search=[SOURCES]) as machine:
        agent = next(value for value in machine.seek("e29").frames[0].variables if value.name == "agent")
        assert agent.raw is not None

        assert place(listener, "*agent") == (0, int.from_bytes(agent.raw, "little"), 1)


def test_a_chosen_mark_is_compared_with_until_it_is_no_longer(listener: Listener) -> None:
    def account() -> Any:
        listener.session.post(ask.ReadMemory(0, ACCOUNT, 14))
        return listener.next(ask.PagesRead).pages

    with TimeMachine(INCIDENT) as machine:
        e20 = machine.seek("e20").read(ACCOUNT, 14)
    listener.session.post(ask.Compare("e20"))
    snapshot = listener.next(ask.Arrived).snapshot
    assert (snapshot.compared, snapshot.before_event) == (True, 20)
    assert account().old == e20
    listener.session.post(ask.Seek("e30"))
    assert listener.next(ask.Arrived).snapshot.before_event == 20
    assert account().old == e20

    listener.session.post(ask.Compare(None))
    snapshot = listener.next(ask.Arrived).snapshot
    assert (snapshot.compared, snapshot.before_event) == (False, 29)


def test_changed_bytes_of_the_guest_are_those_of_two_images(listener: Listener) -> None:
    with TimeMachine(INCIDENT) as machine:
        old = machine.seek("e20").read(0, 0x140000)
        now = machine.seek("e29").read(0, 0x140000)
    differs = [at for at in range(len(now)) if now[at] != old[at]]
    runs = [at for i, at in enumerate(differs) if i == 0 or differs[i - 1] != at - 1]
    listener.session.post(ask.Compare("e20"))
    listener.next(ask.Arrived)

    found, at = [], None
    while True:
        listener.session.post(ask.NextChange(0, at))
        report = listener.next(ask.Found, ask.Said)
        if isinstance(report, ask.Said):
            break
        at = report.address
        assert all(now[i] != old[i] for i in range(at, at + report.length))
        found.append(at)
    assert found == runs
    assert "no changed bytes behind" in report.text
    listener.session.post(ask.NextChange(0, None, True))
    assert listener.next(ask.Found).address == runs[-1]


def test_addresses_are_found_while_a_motion_runs(listener: Listener) -> None:
    started: queue.Queue[None] = queue.Queue()

    def run(*_: Any, watch: Any, **__: Any) -> Any:
        started.put(None)
        while True:
            time.sleep(0.005)
            watch(5, 1)

    listener.session.machine.motion.__dict__["run"] = run
    listener.session.post(ask.Run())
    started.get(timeout=10)

    assert place(listener, "0x130050") == (0, ACCOUNT, 1)
    assert place(listener, "nothing of that name").startswith("'nothing of that name' is neither")
    listener.session.post(ask.ReadTable(0, 0, 8))
    assert listener.next(ask.TableRead).window.size == 8
    assert listener.session.cancel()


# -- the pane ----------------------------------------------------------------------------------------------------------------


def test_the_chosen_bytes_are_decoded_at_the_foot() -> None:
    async def journey(desk: Desk) -> None:
        desk.app.activate("memory")
        await desk.press("v")
        screen = desk.screen()
        value = struct.unpack("<I", b"9999")[0]
        assert f"32 bits  {value}  {value:#x}" in screen
        assert '"9999-0000-6666" 14 bytes, NUL' in screen
        assert "outside the memory" in screen
        await desk.press("down", "up", "v")
        assert "32 bits" not in desk.screen()

    travel(journey)


@pytest.mark.parametrize("size", [(80, 24), (120, 40), (150, 45), (200, 60)])
def test_bytes_stay_beside_the_decoder(size: tuple[int, int]) -> None:
    async def journey(desk: Desk) -> None:
        desk.app.activate("memory")
        await desk.press("v")
        assert f"{ACCOUNT:x}  39 39 39 39" in desk.screen()
        assert "8 bits" in desk.screen()

    travel(journey, size=size)


def test_a_mark_to_compare_with_is_in_the_title() -> None:
    async def journey(desk: Desk) -> None:
        await desk.press("L", "equals_sign")
        assert "memory  0x130050 +14  since e22" in desk.screen()
        await desk.press("c")
        assert "since e22" in desk.screen()
        pane = desk.app.pane(MemoryPane)
        now, old = pane._pages[ACCOUNT // 4096]
        assert old is not None and old[ACCOUNT % 4096 :][:14] == b"1234-5678-9012"
        assert now[ACCOUNT % 4096 :][:14] == b"9999-0000-6666"
        await desk.press("g")
        await desk.type("0x130040")
        before = desk.app.focus.address
        await desk.press(")")
        assert desk.app.focus.address is not None and before is not None and desk.app.focus.address > before
        await desk.press("(", "equals_sign")
        assert "since e22" not in desk.screen()

    travel(journey)


def test_found_bytes_stand_out_and_the_search_goes_round() -> None:
    async def journey(desk: Desk) -> None:
        desk.app.activate("memory")
        await desk.press("slash")
        await desk.type('"approved"')
        first = desk.app.focus.address
        assert first is not None and desk.app.pane(MemoryPane)._found
        places = [first]
        for _ in range(20):
            await desk.press("f3")
            assert desk.app.focus.address is not None
            if desk.app.focus.address in places:
                break
            places.append(desk.app.focus.address)
        assert desk.app.focus.address == first or "found from the start of the memory on" in desk.screen()
        with TimeMachine(INCIDENT) as machine:
            data = machine.seek("e29").read(0, 0x140000)
        assert sorted(places) == [found.start() for found in re.finditer(b"approved", data)]
        await desk.press("escape")
        assert not desk.app.pane(MemoryPane)._found

    travel(journey)


def test_an_expression_is_found() -> None:
    async def journey(desk: Desk) -> None:
        desk.app.activate("memory")
        await desk.press("slash")
        await desk.type(r"/[0-9]{4}-[0-9]{4}-6/")
        assert desk.app.focus.range == (0, ACCOUNT, 11)

    travel(journey)


def test_who_wrote_one_byte() -> None:
    async def journey(desk: Desk) -> None:
        await desk.press("g")
        await desk.type("0x130051")
        await desk.press("w")
        assert "who wrote 0x130051:1" in desk.screen() and "tool.search" in desk.screen()
        await desk.press("escape", "L")
        assert desk.mark == "70327"
        await desk.press("L")
        assert int(desk.mark) < 70327

    travel(journey)


def test_memories_keep_their_places(two: Path) -> None:
    async def journey(desk: Desk) -> None:
        await desk.press("c", "g")
        await desk.type("words")
        assert desk.app.focus.range == (0, 256, 17)
        await desk.press("M")
        assert desk.app.focus.memory == 1 and "memory 1 of 2" in desk.screen()
        await desk.press("g")
        await desk.type("0x20")
        await desk.press("enter")  # a pointer of 8 bytes
        assert desk.app.focus.range == (1, 65536, 1)
        assert "needle" in desk.screen()
        await desk.press("backspace")
        assert desk.app.focus.range == (1, 32, 1)
        await desk.press("M")
        assert desk.app.focus.range == (0, 256, 17)
        await desk.press("g")
        await desk.type("16")
        await desk.press("enter")
        assert desk.app.focus.range == (0, 256, 1)
        await desk.press("enter")
        assert "is not in this memory" in desk.lines()[-1]

    travel(journey, two)


def test_memory_that_grew_changed_only_where_something_was_written(two: Path) -> None:
    async def journey(desk: Desk) -> None:
        await desk.press("colon")
        await desk.type("start")
        await desk.press("equals_sign", "c", "g")
        await desk.type("17")
        await desk.press(")")
        assert desk.app.focus.range == (0, 65535, 2)  # from the last byte of the old memory into the new one
        await desk.press(")")
        assert "no changed bytes behind" in desk.lines()[-1]
        await desk.press("(")
        assert desk.app.focus.range in ((0, 17, 1), (0, 256, 17))  # 256 is what was stored; the words came with the module

    travel(journey, two)
