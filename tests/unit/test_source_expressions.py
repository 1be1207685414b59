"""Location expressions, operation by operation; the bytes are written by hand from the DWARF standard."""

from __future__ import annotations

from pathlib import Path

import pytest

from recorder.wasm.module import parse_module
from replayer.source.debuginfo import open_source
from replayer.source.places import Evaluator, Missing
from replayer.source.units import Unit

GUESTS = Path(__file__).resolve().parents[1] / "guests"
MEMORY = bytes(range(256))


class Frame:
    pc = 300

    def local(self, index: int) -> int | None:
        return {0: 7, 1: 0xFFFFFFFE, 2: 0x1234567890, 3: 1 << 127 | 5}.get(index)

    def operand(self, index: int) -> int | None:
        return {0: 99}.get(index)

    def global_(self, index: int) -> int | None:
        return {0: 0x40, 200: 0x41}.get(index)

    def memory(self, address: int, length: int) -> bytes | None:
        return MEMORY[address : address + length] if address + length <= 256 else None


def unit() -> Unit:
    info = open_source(parse_module((GUESTS / "debug_types_O0_5.wasm").read_bytes()))
    assert info is not None
    return info._units.all[0]


UNIT = unit()


def number(code: str) -> int:
    return Evaluator(Frame(), UNIT, None).number(bytes.fromhex(code))


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("35", 5),
        ("08ff", 255),
        ("09ff", 0xFFFFFFFF),
        ("0a0201", 0x102),
        ("0c01020304", 0x04030201),
        ("0e0000000001000000", 1 << 32),
        ("10e58e26", 624485),
        ("117f", 0xFFFFFFFF),
        ("ed0000", 7),
        ("ed0002", 0x1234567890),
        ("ed01c801", 0x41),
        ("ed0200", 99),
        ("ed0300000000", 0x40),
        ("ed00002305", 12),
        ("3532" + "22", 7),
        ("3235" + "1c", 0xFFFFFFFD),
        ("35321e", 10),
        ("37331b", 2),
        ("09f9331b", 0xFFFFFFFE),
        ("38351d", 3),
        ("3f321a", 2),
        ("38321f22", 6),
        ("313424", 16),
        ("09fe3125", 0x7FFFFFFF),
        ("09fe3126", 0xFFFFFFFF),
        ("ed00013126", 0xFFFFFFFF),
        ("3f3027", 15),
        ("3f20", 0xFFFFFFF0),
        ("09fb19", 5),
        ("3132" + "2d", 1),
        ("09ff30" + "2d", 1),
        ("3132" + "16" + "1c", 1),
        ("313233" + "17" + "13" + "1c" + "1f", 0xFFFFFFFE),
        ("3132" + "14" + "22" + "22", 4),
        ("3132331502" + "22", 4),
        ("0840" + "06", 0x43424140),
        ("0840" + "9402", 0x4140),
        ("31" + "280100" + "35" + "36", 6),
        ("2f0100" + "35" + "36", 6),
        ("9637", 7),
    ],
)  # fmt: skip
def test_operations(code: str, expected: int) -> None:
    assert number(code) == expected


def test_results_are_as_wide_as_their_operands() -> None:
    assert number("09fe" + "08ff" + "22") == 253
    assert number("ed0002" + "31" + "22") == 0x1234567891
    assert number("ed0001" + "32" + "22") == 0  # 32 bits wrap around


def place(code: str, offset: int, length: int) -> bytes:
    return Evaluator(Frame(), UNIT, None).place(bytes.fromhex(code)).read(offset, length)


def test_memory_values_and_constants() -> None:
    assert place("0310000000", 2, 3) == b"\x12\x13\x14"
    assert place("ed00009f", 0, 4) == b"\x07\0\0\0"
    assert place("ed0000", 0, 4) == MEMORY[7:11]  # LLVM means: the local holds the address
    assert place("ed00039f", 0, 16) == (1 << 127 | 5).to_bytes(16, "little")
    assert place("9e03616263", 1, 2) == b"bc"
    with pytest.raises(Missing, match="fewer bytes"):
        place("ed00009f", 0, 16)


def test_pieces() -> None:
    code = "ed00009f9304" + "9302" + "0320000000" + "9302"
    assert place(code, 0, 4) == b"\x07\0\0\0"
    assert place(code, 6, 2) == b"\x20\x21"
    with pytest.raises(Missing) as caught:
        place(code, 3, 2)
    assert caught.value.status == "optimised out"
    with pytest.raises(Missing):
        place(code, 6, 3)
    unknown = "ed00099f9304" + "0320000000" + "9302"  # a local nobody knows takes only its own piece along
    assert place(unknown, 4, 2) == b"\x20\x21"
    with pytest.raises(Missing, match="local 9 is not known"):
        place(unknown, 0, 1)


@pytest.mark.parametrize(
    ("code", "status", "reason"),
    [
        ("", "optimised out", "^$"),
        ("ed0009", "unavailable", "local 9 is not known"),
        ("ed0900", "unavailable", "kind 9"),
        ("a301509f", "unavailable", "when the function was entered"),
        ("9100", "unavailable", "no frame base"),
        ("50", "unavailable", "operation 0x50"),
        ("35301b", "unavailable", "zero"),
        ("22", "unavailable", "empty stack"),
        ("2ffdff", "unavailable", "does not end"),
        ("2fff7f", "unavailable", "jumps out"),
        ("03ffffffff", "optimised out", "linker"),
        ("0300000000", "optimised out", "linker"),
        ("03ff", "unavailable", "ends early"),
        ("0310270000", "unavailable", "memory at 0x2710"),
        ("a1ffff03", "unavailable", "damaged"),
        ("31" * 1001, "unavailable", "too much stack"),
    ],
)
def test_what_cannot_be_had_says_why(code: str, status: str, reason: str) -> None:
    with pytest.raises(Missing, match=reason) as caught:
        place(code, 0, 4)
    assert caught.value.status == status
