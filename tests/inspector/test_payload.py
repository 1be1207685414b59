"""The bytes of events, in their views: against struct, json and the bytes themselves."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inspector.events.details import duration, read_detail
from inspector.events.payload import LINES_AT_ONCE, VIEWS, Hex, Payload, Text, copied, json_lines, next_view, payloads, view_of
from inspector.events.story import Story
from recorder.invocation import Invocation
from tests.harness import guest, record
from tests.inspector.kit import INCIDENT
from traces.render import WASI, Piece
from traces.tracedir import Trace


def payload(data: bytes, address: int = 0x1000) -> Payload:
    return Payload("", True, 0, address, data)


def shown(view: Any, width: int = 1 << 20) -> list[str]:
    return ["".join(text for text, _ in view.line(number, width)) for number in range(len(view))]


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (b'{"pay": [1, 2.50]}', "JSON"),
        (b"[]", "JSON"),
        (b"12950", "text"),
        ("né à Paris".encode(), "text"),
        (b"{not json}", "text"),
        (b"\x00\x01\x02\xff", "hex"),
        (b"\x00" * 40, "hex"),
        (b'{"deep": ' + b"[" * 100_000, "text"),
        (b'{"a": NaN}', "text"),
    ],
)
def test_auto_takes_what_fits_best(data: bytes, name: str) -> None:
    assert view_of(payload(data), "auto").name == name


def test_views_are_gone_through_and_those_it_has_not_are_left_out() -> None:
    names = ["text"]
    for _ in range(6):
        names.append(next_view(payload(b"plain"), names[-1]).name)
    assert names == ["text", "hex", "typed", "text", "hex", "typed", "text"]
    assert next_view(payload(b"{}"), "text").name == "JSON"
    assert set(names) < set(VIEWS)


@given(st.binary(max_size=400), st.integers(0, 1 << 40), st.sampled_from([8, 16]))
def test_a_dump_holds_every_byte_at_its_address(data: bytes, address: int, per_row: int) -> None:
    view = Hex(data, address, per_row)
    found = b""
    for number, line in enumerate(shown(view)):
        where, rest = line.split("  ", 1)
        offset, length = view.bytes_of(number)
        assert int(where, 16) == address + offset
        found += bytes.fromhex(rest[: 3 * per_row])[:length]
    assert found == data


LINES = st.lists(st.text(alphabet="aé\r €", max_size=6), max_size=40).map("\n".join)


@given(LINES, st.integers(0, 3))
def test_text_is_shown_line_by_line(text: str, repeated: int) -> None:
    data = (text * 10**repeated).encode()
    view = Text(data)
    expected = data.decode().split("\n")
    if expected[-1] == "":
        expected.pop()
    assert len(view) == len(expected)
    for number in range(0, len(view), max(1, len(view) // 50)):
        offset, length = view.bytes_of(number)
        assert data[offset : offset + length] == expected[number].encode()
        assert shown_line(view, number) == expected[number].rstrip("\r")


def shown_line(view: Text, number: int) -> str:
    return "".join(text for text, _ in view.line(number, 1 << 16))


def test_lines_across_stretches_are_whole() -> None:
    data = b"\n" * (LINES_AT_ONCE - 2) + b"begin " + b"x" * LINES_AT_ONCE + b" end\nlast"
    view = Text(data)
    assert shown_line(view, LINES_AT_ONCE - 2).startswith("begin xxx")
    assert shown_line(view, LINES_AT_ONCE - 1) == "last"
    assert len(view) == LINES_AT_ONCE


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=20,
)


@given(JSON)
def test_pretty_json_is_the_same_json(value: Any) -> None:
    lines = json_lines(json.dumps(value).encode(), anything=True)
    assert lines is not None
    assert json.loads("".join(text for line in lines for text, _ in line)) == value


def test_json_keeps_numbers_as_written_and_keys_that_come_twice() -> None:
    lines = json_lines(b'{"a": 1.500, "a": 123456789012345678901234567890, "b": 1E5}')
    assert lines is not None
    assert ["".join(text for text, _ in line) for line in lines] == [
        "{", '  "a": 1.500,', '  "a": 123456789012345678901234567890,', '  "b": 1E5', "}",
    ]  # fmt: skip


@given(st.binary(min_size=8, max_size=8))
def test_eight_bytes_are_shown_as_every_number_they_could_be(data: bytes) -> None:
    (line,) = shown(view_of(payload(data), "typed"))
    (u64,) = struct.unpack("<Q", data)
    assert f"u64 {u64}" in line
    assert "u32 {} {}".format(*struct.unpack("<II", data)) in line
    assert "f64 {:.6g}".format(*struct.unpack("<d", data)) in line


def test_what_crossed_is_joined_and_named() -> None:
    carried = [
        Piece(0, 100, True, struct.pack("<IIII", 200, 3, 300, 2)), Piece(0, 200, True, b"abc"), Piece(0, 203, True, b"de"),
        Piece(0, 205, False, b"x"), Piece(1, 206, False, b"y"), Piece(0, 80, False, struct.pack("<I", 5)),
    ]  # fmt: skip
    found = payloads(carried, f"{WASI}fd_write", ("fd", "iovs", "iovs_len", "nwritten"), (1, 100, 2, 80), cut=True)
    assert [(one.name, one.sent, one.memory, one.address, one.data) for one in found][1:] == [
        ("", True, 0, 200, b"abcde"), ("", False, 0, 205, b"x"), ("", False, 1, 206, b"y"),
        ("nwritten", False, 0, 80, b"\x05\x00\x00\x00"),
    ]  # fmt: skip
    assert shown(view_of(found[0], "auto")) == [
        "[0] buf 0xc8  pointer", "[0] len 3  u32", "[1] buf 0x12c  pointer", "[1] len 2  u32",
    ]  # fmt: skip
    assert shown(view_of(found[-1], "auto")) == ["value 5  u32"]
    assert [one.cut for one in found] == [False] * 4 + [True]


def test_a_structure_that_is_cut_short_is_shown_as_far_as_it_goes() -> None:
    (found,) = payloads([Piece(0, 100, True, b"\x01\x00\x00\x00\x02")], f"{WASI}fd_write", (), (1, 100, 1, 80))
    assert shown(view_of(found, "auto")) == ["buf 0x1  pointer", "len ?  u32"]


def test_copying_ends_somewhere() -> None:
    large = payload(b"\xff" * (3 << 20))
    text, whole = copied(large, view_of(large, "hex"))
    assert not whole
    assert len(text) == 1 << 20
    small = payload(b"tab\tand \xc3\xa9\n")
    assert copied(small, view_of(small, "text")) == ("tab\tand é\n", True)


def test_an_event_in_full_has_what_the_recording_has() -> None:
    with Trace.open(INCIDENT) as trace:
        story = Story(trace)
        story.index()
        detail = read_detail(story, 31, lambda: None)
        facts = {fact.name: fact.text for fact in detail.facts}
        assert detail.head.startswith('path_open(dir=3, path="ledger.txt"')
        assert facts["fd"] == "3" and facts["status"] == "ok" and facts["path_len"] == "10"
        assert next((one.name, one.data) for one in detail.payloads) == ("path", b"ledger.txt")
        failed = {fact.name: fact.text for fact in read_detail(story, 3, lambda: None).facts}
        assert failed["status"] == "errno badf" and failed["result"] == "8  badf"
        story.close()


def test_a_payload_in_many_records_is_one(tmp_path: Path) -> None:
    size = 300_000
    made = record(
        guest("big_write"), tmp_path / "big.trace", lambda guest: guest.call("_start"),
        invocation=Invocation(argv=("big_write", str(size))), slot_size=65536,
    )  # fmt: skip
    with made.trace as trace:
        story = Story(trace)
        story.index()
        seq = next(
            seq for seq in range(story.events) if story.event(seq)["status"] == "open" and story.event(seq)["kind"] == "call"
        )
        detail = read_detail(story, seq, lambda: None)
        (large,) = [one for one in detail.payloads if len(one.data) > 100]
        assert large.data == bytes((i * 7 + (i >> 8)) & 0xFF for i in range(size))
        assert "returned" in {fact.name for fact in detail.facts}
        story.close()


def test_durations_are_told_in_a_unit_that_fits() -> None:
    assert [duration(ns) for ns in (999, 18_700, 2_000_000, 1_500_000_000)] == ["999 ns", "18.7 µs", "2 ms", "1.5 s"]
