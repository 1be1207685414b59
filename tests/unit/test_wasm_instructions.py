"""Instruction boundaries, against the encodings that wasmtime's own text parser makes."""

from __future__ import annotations

import pytest
import wasmtime

from recorder.wasm import instructions as ops
from recorder.wasm.binary import Reader, WasmError
from recorder.wasm.module import parse_module, read_locals

SIGNATURES = """ (type $f (func)) (type $c (cont $f)) (type $s (struct (field (mut i32)))) (type $a (array
(mut i8))) (tag $t) (memory $m 1) (memory $n 1) (table $t0 1 funcref) (table $t1 1 funcref) (global $g (mut
i32) i32.const 0) (data $d "x") (elem $e func $callee) (func $callee)
"""

ONE_OF_EACH: list[tuple[str, int, int]] = [
    ("unreachable", 0x00, 0),
    ("block (param i32) end", 0x02, 0),
    ("loop (result (ref null $f)) end", 0x03, 0),
    ("if (result i32) else end", 0x04, 0),
    ("throw $t", 0x08, 0),
    ("throw_ref", 0x0A, 0),
    ("br 0", 0x0C, 0),
    ("br_if 0", 0x0D, 0),
    ("br_table 0 0 0 0", 0x0E, 0),
    ("call $callee", 0x10, 0),
    ("call_indirect $t1 (type $f)", 0x11, 0),
    ("return_call $callee", 0x12, 0),
    ("return_call_indirect $t1 (type $f)", 0x13, 0),
    ("call_ref $f", 0x14, 0),
    ("return_call_ref $f", 0x15, 0),
    ("drop", 0x1A, 0),
    ("select", 0x1B, 0),
    ("select (result (ref null $f))", 0x1C, 0),
    ("select (result i64)", 0x1C, 0),
    (
        "try_table (result i32) (catch $t 0) (catch_ref $t 0) (catch_all 0) (catch_all_ref 0) end",
        0x1F,
        0,
    ),
    ("local.get 0", 0x20, 0),
    ("global.set $g", 0x24, 0),
    ("table.get $t1", 0x25, 0),
    ("i32.load offset=4294967295", 0x28, 0),
    ("i64.store $n offset=300 align=1", 0x37, 0),
    ("memory.grow $n", 0x40, 0),
    ("i32.const -2147483648", 0x41, 0),
    ("i64.const -9223372036854775808", 0x42, 0),
    ("f32.const nan:0x200000", 0x43, 0),
    ("f64.const -1.5", 0x44, 0),
    ("i32.extend8_s", 0xC0, 0),
    ("ref.null extern", 0xD0, 0),
    ("ref.null $s", 0xD0, 0),
    ("ref.func $callee", 0xD2, 0),
    ("ref.eq", 0xD3, 0),
    ("br_on_null 0", 0xD5, 0),
    ("cont.new $c", 0xE0, 0),
    ("cont.bind $c $c", 0xE1, 0),
    ("suspend $t", 0xE2, 0),
    ("resume $c (on $t 0) (on $t switch)", 0xE3, 0),
    ("resume_throw $c $t (on $t 0)", 0xE4, 0),
    ("resume_throw_ref $c", 0xE5, 0),
    ("switch $c $t", 0xE6, 0),
    ("struct.new $s", 0xFB, 0),
    ("struct.set $s 0", 0xFB, 5),
    ("array.new_fixed $a 3", 0xFB, 8),
    ("array.len", 0xFB, 15),
    ("array.copy $a $a", 0xFB, 17),
    ("ref.test (ref $s)", 0xFB, 20),
    ("ref.cast (ref null any)", 0xFB, 23),
    ("br_on_cast 0 anyref (ref $s)", 0xFB, 24),
    ("i31.get_u", 0xFB, 30),
    ("i32.trunc_sat_f32_s", 0xFC, 0),
    ("memory.init $n $d", 0xFC, 8),
    ("data.drop $d", 0xFC, 9),
    ("memory.copy $n $m", 0xFC, 10),
    ("memory.fill $n", 0xFC, 11),
    ("table.init $t1 $e", 0xFC, 12),
    ("table.copy $t1 $t0", 0xFC, 14),
    ("table.fill $t1", 0xFC, 17),
    ("i64.add128", 0xFC, 19),
    ("i64.mul_wide_u", 0xFC, 22),
    ("v128.load $n offset=70", 0xFD, 0),
    ("v128.const i64x2 1 2", 0xFD, 12),
    ("i8x16.shuffle 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15", 0xFD, 13),
    ("i8x16.swizzle", 0xFD, 14),
    ("i8x16.extract_lane_s 15", 0xFD, 21),
    ("v128.load8_lane $n offset=200 3", 0xFD, 84),
    ("v128.load64_zero", 0xFD, 93),
    ("f64x2.convert_low_i32x4_u", 0xFD, 255),
    ("i8x16.relaxed_swizzle", 0xFD, 256),
    ("i32x4.relaxed_dot_i8x16_i7x16_add_s", 0xFD, 275),
    ("memory.atomic.notify", 0xFE, 0),
    ("atomic.fence", 0xFE, 3),
    ("i64.atomic.rmw32.cmpxchg_u $n offset=9", 0xFE, 0x4E),
    ("try end", 0x06, 0),
    ("try catch $t rethrow 0 catch_all end", 0x06, 0),
    ("try delegate 0", 0x06, 0),
]


def code_of(text: str) -> tuple[bytes, int, int]:
    """The bytes of a module whose last function holds `text`, and where its instructions lie."""
    data = bytes(wasmtime.wat2wasm(f"(module {SIGNATURES} (func (param i32) {text} nop))"))
    body = parse_module(data).code[-1]
    reader = Reader(data, body.start, body.end)
    read_locals(reader)
    return data, reader.position, body.end


@pytest.mark.parametrize(("text", "opcode", "sub"), ONE_OF_EACH, ids=[row[0] for row in ONE_OF_EACH])
def test_each_instruction_ends_where_the_next_begins(text: str, opcode: int, sub: int) -> None:
    data, start, end = code_of(text)
    decoded = list(ops.instructions(data, start, end))
    assert decoded[0][1:3] == (opcode, sub)
    assert [entry[1] for entry in decoded[-2:]] == [0x01, ops.END], "the nop and the end that follow"
    assert decoded[-1][3] == end
    assert ops.instruction_end(data, start, end) == decoded[0][3]


def test_every_simd_and_atomic_sub_opcode_is_known_to_both_decoders() -> None:
    for prefix, shapes in ops.PREFIXED.items():
        assert len(shapes) == {0xFB: 31, 0xFC: 22, 0xFD: 276, 0xFE: 67}[prefix]


def test_runs_and_counts_agree_with_single_steps() -> None:
    straight = [row for row in ONE_OF_EACH if row[1] not in ops.CONTROL and row[0] != "br_on_cast 0 anyref (ref $s)"]
    data, start, end = code_of(" ".join(row[0] for row in straight) + " br 0")
    count, at = ops.straight_run(data, start, end)
    assert (count, data[at]) == (len(straight), ops.BR)
    used = ops.opcodes_used(data, start, end)
    assert used == {(row[1], row[2]) for row in straight} | {(ops.BR, 0), (0x01, 0), (ops.END, 0)}


def test_blocks_typed_by_index_are_told_apart() -> None:
    data, start, end = code_of("block (result i32) end block (param i32) end")
    assert {(ops.BLOCK, 0), (ops.BLOCK, 1)} <= ops.opcodes_used(data, start, end)


def test_padded_encodings_decode() -> None:
    padded = b"\xfd\x8e\x80\x00" + b"\x28\xc2\x00\x01\x84\x00" + b"\x0b"  # swizzle; load of memory 1; end
    decoded = list(ops.instructions(padded, 0, len(padded)))
    assert [(entry[1], entry[2]) for entry in decoded] == [(0xFD, 14), (0x28, 0), (0x0B, 0)]
    assert ops.straight_run(padded, 0, len(padded)) == (2, len(padded) - 1)


@pytest.mark.parametrize(
    ("code", "problem"),
    [
        (b"\xff", "unknown instruction 0xff at byte 0"),
        (b"\x01\x27", "unknown instruction 0x27 at byte 1"),
        (b"\xfc\x20", "unknown instruction 0xfc 0x20 at byte 0"),
        (b"\xfd", "unexpected end at byte 1"),
        (b"\x44\x00\x00", "instruction 0x44 is cut off or malformed at byte 0"),
        (b"\x41\x80\x80\x80\x80\x80\x00", "instruction 0x41 is cut off or malformed at byte 0"),
        (b"\x0e\xff\xff\xff\xff\x0f", "a vector claims 4294967295 items, 0 bytes are left at byte 1"),
        (b"\x1f\x40\x01\x09\x00", "unknown catch clause 0x09 at byte 3"),
    ],
)
def test_malformed_code_is_named(code: bytes, problem: str) -> None:
    for decode in (
        lambda: list(ops.instructions(code, 0, len(code))),
        lambda: ops.opcodes_used(code, 0, len(code)),
    ):
        with pytest.raises(WasmError) as caught:
            decode()
        assert str(caught.value) == problem
