"""Line programs, range lists and location lists, written by hand from the DWARF standard."""

from __future__ import annotations

from pathlib import Path

import pytest

from recorder.wasm.module import parse_module
from replayer.source.bits import Cursor, Damaged
from replayer.source.debuginfo import open_source
from replayer.source.lines import LineTable, Segment
from replayer.source.units import Unit

GUESTS = Path(__file__).resolve().parents[1] / "guests"


def program(*parts: str) -> bytes:
    """A line program of version 4: line_base -3, line_range 12, opcode_base 13; one directory, one file."""
    header = bytes.fromhex("01 01 01 fd 0c 0d 00 01 01 01 01 00 00 00 01 00 00 01") + b"inc\0\0" + b"a.c\0\1\0\0" + b"\0"
    code = bytes.fromhex("".join(parts))
    rest = (4).to_bytes(2, "little") + len(header).to_bytes(4, "little") + header + code
    return len(rest).to_bytes(4, "little") + rest


def at(address: int) -> str:
    return "000502" + address.to_bytes(4, "little").hex()


END = "000101"


def table(*parts: str) -> LineTable:
    lines = LineTable({".debug_line": program(*parts)}, 10, 1000)
    lines.add(0, "/build", "unit.c")
    return lines


def test_special_opcodes_advance_both() -> None:
    # 18 - 13 = 5: address + 0, line + 2. 43 - 13 = 30: address + 2, line + 3.
    lines = table(at(20), "12", "2b", "0203", END)
    assert lines.files == ["/build/unit.c", "/build/inc/a.c"]
    assert lines.segments == [Segment(20, 22, 1, 3, 0, True, False), Segment(22, 25, 1, 6, 0, True, False)]


def test_standard_opcodes() -> None:
    # advance_line 99, set_column 7, negate_stmt, prologue_end, copy; const_add_pc adds 20; fixed_advance_pc adds 256.
    lines = table(at(20), "03e300", "0507", "06", "0a", "01", "08", "01", "090001", "01", "0201", END)
    assert lines.segments == [
        Segment(20, 40, 1, 100, 7, False, True),
        Segment(40, 296, 1, 100, 7, False, False),
        Segment(296, 297, 1, 100, 7, False, False),
    ]


def test_of_two_rows_for_one_address_the_last_counts_and_a_prologue_end_stays() -> None:
    lines = table(at(20), "0a", "12", "12", "0204", END)
    assert lines.segments == [Segment(20, 24, 1, 5, 0, True, True)]


def test_sequences_of_dropped_functions_are_dropped() -> None:
    assert table(at(0), "12", "0204", END, at(0xFFFFFFFF), "12", END, at(998), "12", "0204", END).segments == []


def test_a_file_that_is_not_listed_has_no_lines() -> None:
    assert table(at(20), "0409", "12", "0204", END).segments == [Segment(20, 24, 0, 0, 0, True, False)]


def test_what_came_before_the_damage_is_kept() -> None:
    lines = table(at(20), "12", "0204", END, at(40), "12", "02")
    assert lines.add(0, "", "") is None
    assert [segment.low for segment in lines.segments] == [20]


def test_a_breakpoint_is_set_once_in_a_run_of_rows() -> None:
    info = open_source(parse_module((GUESTS / "debug_types_O0_4.wasm").read_bytes()))
    assert info is not None
    low = info.functions()[1].low
    # Two rows of line 3, a row of line 4, line 3 again, first not as the beginning of a statement.
    info.__dict__["_table"] = table(at(low), "12", "1c", "1d", "06", "1b", "06", "1c", "0201", END), {}
    lines = [(segment.low - low, segment.line, segment.is_statement) for segment in info._lines.segments]
    assert lines == [(0, 3, True), (1, 3, True), (2, 4, True), (3, 3, False), (4, 3, True)]
    starts = [pc - low for pc in info.line_starts("a.c", 3)]
    assert starts == [0, 4]


def fixture(name: str, **sections: bytes) -> Unit:
    """The unit of a guest, with other lists."""
    info = open_source(parse_module((GUESTS / f"{name}.wasm").read_bytes()))
    assert info is not None
    unit = info._units.all[0]
    info._units._sections = {**info._units._sections, **{f".debug_{key}": value for key, value in sections.items()}}
    unit.base = 100
    return unit


def words(*numbers: int) -> bytes:
    return b"".join(number.to_bytes(4, "little") for number in numbers)


def test_location_lists_of_version_5() -> None:
    addresses = bytes(8) + words(500, 600)  # .debug_addr, behind its header
    content = bytes.fromhex("".join((
        "04 0a 14 01 30",                     # offset_pair: 110 to 120
        "06 c8000000", "04 0a 14 01 31",      # base_address 200: 210 to 220
        "07 2c010000 36010000 01 32",         # start_end: 300 to 310
        "08 90010000 0a 01 33",               # start_length: 400 to 410
        "03 00 0a 01 34",                     # startx_length: 500 to 510
        "02 00 01 01 35",                     # startx_endx: 500 to 600
        "01 01", "04 01 02 01 36",            # base_addressx 600: 601 to 602
        "05 01 37",                           # default_location
        "00",
    )))  # fmt: skip
    unit = fixture("debug_types_O0_5", loclists=content, addr=addresses)
    expected = {110: 0x30, 119: 0x30, 120: 0x37, 210: 0x31, 305: 0x32, 409: 0x33, 505: 0x34, 510: 0x35, 601: 0x36, 602: 0x37}
    assert {pc: (unit._location(0, pc) or b"?")[0] for pc in expected} == expected


def test_range_lists_of_version_5() -> None:
    addresses = bytes(8) + words(500, 600)
    content = bytes.fromhex("040a14 05c8000000 040a14 062c01000036010000 07900100000a 03000a 020001 0101 040102 00")
    unit = fixture("debug_types_O0_5", rnglists=content, addr=addresses)
    assert unit._range_list(0) == [(110, 120), (210, 220), (300, 310), (400, 410), (500, 510), (500, 600), (601, 602)]
    with pytest.raises(Damaged):
        fixture("debug_types_O0_5", rnglists=content[:-1])._range_list(0)


def test_lists_of_version_4() -> None:
    content = words(10, 20) + b"\1\0\x30" + words(0xFFFFFFFF, 200, 10, 20) + b"\1\0\x31" + words(0, 0)
    unit = fixture("debug_types_O0_4", loc=content, ranges=words(10, 20, 0xFFFFFFFF, 200, 10, 20, 0, 0))
    expected = {109: None, 110: b"\x30", 119: b"\x30", 120: None, 210: b"\x31", 219: b"\x31", 220: None}
    assert {pc: unit._old_location(0, pc) for pc in expected} == expected
    assert unit._old_range_list(0) == [(110, 120), (210, 220)]


def test_numbers() -> None:
    cursor = Cursor(bytes.fromhex("e58e26 c0bb78 7f 6100 01020304"))
    assert (cursor.uleb(), cursor.sleb(), cursor.sleb(), cursor.string(), cursor.unsigned(2)) == (
        624485,
        -123456,
        -1,
        b"a",
        0x201,
    )
    for broken in ("", "80", "80" * 20 + "00"):
        with pytest.raises(Damaged):
            Cursor(bytes.fromhex(broken)).uleb()
    with pytest.raises(Damaged):
        Cursor(b"abc").string()
    with pytest.raises(Damaged):
        Cursor(b"abc", 4)
