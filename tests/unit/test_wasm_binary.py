"""LEB128, names and bounds."""

from __future__ import annotations

import pytest

from recorder.wasm.binary import Reader, WasmError, custom_section, name, section, sleb, uleb, vec


@pytest.mark.parametrize("value", [0, 1, 0x3F, 0x40, 0x7F, 0x80, 0x3FFF, 0x4000, (1 << 32) - 1])
def test_unsigned_round_trip(value: int) -> None:
    assert Reader(uleb(value)).u32() == value


@pytest.mark.parametrize("value", [0, 1, -1, 0x3F, 0x40, -0x40, -0x41, (1 << 32) - 1, -(1 << 32)])
def test_signed_round_trip(value: int) -> None:
    assert Reader(sleb(value)).s33() == value


def test_encodings_are_the_shortest() -> None:
    assert (uleb(127), uleb(128), uleb(624485)) == (b"\x7f", b"\x80\x01", b"\xe5\x8e\x26")
    assert (sleb(-1), sleb(63), sleb(64), sleb(-123456)) == (b"\x7f", b"\x3f", b"\xc0\x00", b"\xc0\xbb\x78")


@pytest.mark.parametrize(
    ("raw", "problem"),
    [
        (b"", "unexpected end at byte 0"),
        (b"\x80\x80", "unexpected end at byte 2"),
        (b"\x80\x80\x80\x80\x80\x00", "an integer takes more bytes than 32 bits need at byte 0"),
        (b"\xff\xff\xff\xff\x1f", "an integer does not fit 32 bits at byte 0"),
    ],
)
def test_malformed_integers(raw: bytes, problem: str) -> None:
    with pytest.raises(WasmError) as caught:
        Reader(raw).u32()
    assert str(caught.value) == problem


def test_padded_integers_are_read() -> None:
    assert Reader(b"\x83\x80\x80\x80\x00").u32() == 3


def test_a_reader_stays_inside_its_end() -> None:
    reader = Reader(b"abcdef", 1, 3)
    assert reader.take(2) == b"bc"
    with pytest.raises(WasmError, match="unexpected end at byte 3"):
        reader.byte()
    with pytest.raises(WasmError, match="1 bytes wanted, 0 left at byte 3"):
        reader.take(1)
    with pytest.raises(WasmError):
        reader.sub_reader(1)


def test_counts_are_bounded_by_what_is_left() -> None:
    with pytest.raises(WasmError, match="a vector claims 4294967295 items, 0 bytes are left at byte 0"):
        Reader(b"\xff\xff\xff\xff\x0f").count()


def test_names_must_be_utf8() -> None:
    assert Reader(name("Grüße")).name() == "Grüße"
    with pytest.raises(WasmError, match="a name is not UTF-8 at byte 0"):
        Reader(b"\x01\xff").name()


def test_writers() -> None:
    assert vec([b"a", b"bc"]) == b"\x02abc"
    assert section(3, b"xyz") == b"\x03\x03xyz"
    assert custom_section("n", b"xyz") == b"\x00\x05\x01nxyz"
