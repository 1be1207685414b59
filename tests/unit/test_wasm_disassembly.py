"""Disassembly, proven by wasmtime's own text parser: what is printed assembles to the bytes it came from."""

from __future__ import annotations

import itertools
import random
import struct
from functools import cache
from pathlib import Path

import pytest
import wasmtime
from hypothesis import given, settings
from hypothesis import strategies as st

from recorder.wasm import instructions as ops
from recorder.wasm.binary import PREAMBLE, Reader, WasmError, custom_section, name, section, sleb, uleb, vec
from recorder.wasm.disassembly import MAX_NAME, Line, disassemble, escaped, float_text, instruction_text, mnemonic
from recorder.wasm.module import Module, parse_module, read_locals
from tests.unit.test_wasm_instructions import ONE_OF_EACH, code_of

GUESTS = sorted((Path(__file__).parents[1] / "guests").glob("*.wasm"))
UNASSIGNED_SIMD = {154, 162, 165, 166, 175, 176, 178, 179, 180, 187, 194, 197, 198, 207, 208, 210, 211, 212, 226, 238}
PREFIXED = [(prefix, sub) for prefix, shapes in ops.PREFIXED.items() for sub in shapes]
ALL = [(opcode, 0) for opcode in ops.PLAIN if opcode not in ops.PREFIXED] + [
    pair for pair in PREFIXED if pair[0] != ops.SIMD_PREFIX or pair[1] not in UNASSIGNED_SIMD
]
AROUND = {
    **dict.fromkeys((ops.BLOCK, ops.LOOP, ops.IF, ops.TRY_TABLE), (b"", b"\x0b")),
    ops.ELSE: (b"\x04\x40", b"\x0b"),
    ops.END: (b"\x02\x40", b""),
    **dict.fromkeys((ops.CATCH, ops.CATCH_ALL), (b"\x06\x40", b"\x0b")),
    ops.DELEGATE: (b"\x06\x40", b""),
    ops.TRY: (b"", b"\x0b"),
}
"""What must stand before and behind an instruction for the text to be a well-formed sequence."""


def module_of(code: bytes, names: bytes = b"") -> Module:
    """A module whose one function has those instructions, and the `end` behind them."""
    body = b"\0" + code + b"\x0b"
    data = PREAMBLE + section(1, vec([b"\x60\0\0"])) + section(3, vec([b"\0"])) + section(10, vec([uleb(len(body)) + body]))
    return parse_module(data + names)


def code_from(text: str) -> bytes:
    """What the text assembles to, without the function's `end`."""
    data = bytes(wasmtime.wat2wasm(f"(module (type (func)) (func {text}\n))"))
    body = parse_module(data).code[0]
    assert data[body.start] == 0, "no locals"
    return data[body.start + 1 : body.end - 1]


def text_of(code: bytes) -> str:
    lines = disassemble(module_of(code), 0)
    return "\n".join("  " * line.depth + line.text for line in lines[:-1])


# --- bytes of an instruction with any immediates, written without looking at how the disassembler reads them

U32 = (0, 1, 127, 128, 300, 0xFFFFFFFF)
S33_HEAP = [sleb(number - 0x80) for number in range(0x68, 0x76)] + [uleb(3), sleb(64), sleb(200)]
VALUE_TYPES = [bytes((code,)) for code in (*range(0x68, 0x76), *range(0x7B, 0x80))] + [b"\x64\x70", b"\x64\x05", b"\x63\x05"]


def any_u32(rng: random.Random) -> bytes:
    return uleb(rng.choice(U32) if rng.random() < 0.7 else rng.randrange(1 << rng.randrange(33)))


def any_memarg(rng: random.Random) -> bytes:
    memory = rng.choice((0, 0, 1, 129))
    offset = rng.choice((0, 1, 300, 0xFFFFFFFF, (1 << 64) - 1))
    return uleb(rng.randrange(32) | (0x40 if memory else 0)) + (uleb(memory) if memory else b"") + uleb(offset)


def any_block_type(rng: random.Random) -> bytes:
    return rng.choice([b"\x40", uleb(0), *VALUE_TYPES])


def any_float(rng: random.Random, width: int) -> bytes:
    fraction, exponent = (23, 8) if width == 32 else (52, 11)
    mantissa = rng.choice((0, 1, 1 << (fraction - 1), rng.randrange(1 << fraction), (1 << fraction) - 1))
    power = rng.choice((0, (1 << exponent) - 1, 1, rng.randrange(1 << exponent), (1 << (exponent - 1)) - 1))
    return (rng.randrange(2) << (width - 1) | power << fraction | mantissa).to_bytes(width // 8, "little")


def any_catches(rng: random.Random) -> bytes:
    kinds = [rng.randrange(4) for _ in range(rng.randrange(4))]
    return vec(bytes((kind,)) + (any_u32(rng) if kind < 2 else b"") + any_u32(rng) for kind in kinds)


def any_handlers(rng: random.Random) -> bytes:
    kinds = [rng.randrange(2) for _ in range(rng.randrange(3))]
    return vec(bytes((kind,)) + any_u32(rng) + (b"" if kind else any_u32(rng)) for kind in kinds)


def any_signed(rng: random.Random, bits: int) -> bytes:
    half = 1 << (bits - 1)
    return sleb(rng.choice((0, -1, 63, 64, -64, -65, half - 1, -half, rng.randrange(-half, half))))


def any_immediates(opcode: int, sub: int, rng: random.Random) -> bytes:
    special = {
        ops.BR_TABLE: lambda: uleb(2) + any_u32(rng) + any_u32(rng) + any_u32(rng),
        ops.SELECT_TYPED: lambda: vec(rng.choice(VALUE_TYPES) for _ in range(rng.choice((1, 1, 2)))),
        ops.TRY_TABLE: lambda: any_block_type(rng) + any_catches(rng),
        0xE3: lambda: any_u32(rng) + any_handlers(rng),
        0xE4: lambda: any_u32(rng) + any_u32(rng) + any_handlers(rng),
        0xE5: lambda: any_u32(rng) + any_handlers(rng),
        0x41: lambda: any_signed(rng, 32),
        0x42: lambda: any_signed(rng, 64),
        0x43: lambda: any_float(rng, 32),
        0x44: lambda: any_float(rng, 64),
        0xD0: lambda: rng.choice(S33_HEAP),
        ops.CALL_INDIRECT: lambda: uleb(0) + any_u32(rng),
        ops.RETURN_CALL_INDIRECT: lambda: uleb(0) + any_u32(rng),
        **dict.fromkeys((ops.BLOCK, ops.LOOP, ops.IF, ops.TRY), lambda: any_block_type(rng)),
    }
    if opcode in special:
        return special[opcode]()
    if opcode == ops.GC_PREFIX and 20 <= sub < 24:
        return rng.choice(S33_HEAP)
    if opcode == ops.GC_PREFIX and sub in (24, 25):
        return bytes((rng.randrange(4),)) + any_u32(rng) + rng.choice(S33_HEAP) + rng.choice(S33_HEAP)
    if opcode == ops.SIMD_PREFIX and 12 <= sub < 35:
        if sub == 12:
            return rng.randbytes(16)
        if sub == 13:
            return bytes(rng.randrange(32) for _ in range(16))
        return bytes((rng.randrange(2),)) if sub >= 21 else b""
    if opcode == ops.ATOMIC_PREFIX and sub == 3:
        return b"\0"
    shape = ops.PREFIXED[opcode][sub] if opcode in ops.PREFIXED else ops.PLAIN[opcode]
    memory = shape.startswith(ops._MEMARG)
    if memory:
        return any_memarg(rng) + (bytes((rng.randrange(2),)) if shape != ops._MEMARG else b"")
    return b"".join(any_u32(rng) for _ in range({b"": 0, ops._U32: 1, ops._U32 * 2: 2}[shape]))


def any_instruction(opcode: int, sub: int, rng: random.Random) -> bytes:
    return bytes((opcode,)) + (uleb(sub) if opcode in ops.PREFIXED else b"") + any_immediates(opcode, sub, rng)


@pytest.mark.parametrize(("opcode", "sub"), ALL, ids=[f"{mnemonic(*pair)}-{pair[0]:02x}-{pair[1]}" for pair in ALL])
def test_every_instruction_assembles_to_the_bytes_it_was_printed_from(opcode: int, sub: int) -> None:
    before, behind = AROUND.get(opcode, (b"", b""))
    rng = random.Random(opcode * 1000 + sub)
    once = [before + any_instruction(opcode, sub, rng) + behind for _ in range(20)]
    together = b"".join(once)
    if code_from(text_of(together)) != together:  # one by one, to show which
        for code in once:
            assert (text_of(code), code_from(text_of(code)).hex(" ")) == (text_of(code), code.hex(" "))


def test_all_236_simd_instructions_have_a_name() -> None:
    assert sum(1 for prefix, sub in ALL if prefix == ops.SIMD_PREFIX and sub < 0x100) == 236
    for sub in UNASSIGNED_SIMD:
        with pytest.raises(WasmError, match=f"unknown instruction 0xfd {sub:#04x}"):
            mnemonic(ops.SIMD_PREFIX, sub)


def test_no_two_opcodes_share_a_name_unless_the_text_format_has_it_so() -> None:
    named = sorted((mnemonic(*pair), pair) for pair in ALL)
    shared = [first[0] for first, second in itertools.pairwise(named) if first[0] == second[0]]
    assert shared == ["ref.cast", "ref.test", "select"]


@pytest.mark.parametrize(("text", "opcode", "sub"), ONE_OF_EACH, ids=[row[0] for row in ONE_OF_EACH])
def test_text_written_by_hand_survives_the_way_there_and_back(text: str, opcode: int, sub: int) -> None:
    data, start, end = code_of(text)
    module = parse_module(data)
    lines = [instruction_text(module, at, after) for at, _, _, after in ops.instructions(data, start, end)]
    assert lines[0].split()[0] == mnemonic(opcode, sub)
    code = data[start : end - 1]
    assert code_from("\n".join(lines[:-1])) == code


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from([pair for pair in ALL if pair[0] not in AROUND]), min_size=1, max_size=40), st.randoms())
def test_sequences_round_trip(pairs: list[tuple[int, int]], rng: random.Random) -> None:
    code = b"".join(any_instruction(opcode, sub, rng) for opcode, sub in pairs)
    lines = disassemble(module_of(code), 0)
    assert [(line.opcode, line.sub) for line in lines[:-1]] == pairs
    assert code_from("\n".join(line.text for line in lines[:-1])) == code


# --- guests


def unpadded(code: bytes) -> bytes:
    """The instructions with each LEB128 in its shortest form: linkers leave room in some."""
    out = bytearray()
    for at, opcode, sub, end in ops.instructions(code, 0, len(code)):
        reader = Reader(code, at + 1, end)
        if opcode in ops.PREFIXED:
            assert reader.u32() == sub
        out += bytes((opcode,)) + (uleb(sub) if opcode in ops.PREFIXED else b"")
        if opcode in (0x41, 0x42):
            out += sleb(reader._signed(64))
        elif 0x28 <= opcode <= 0x3E or opcode in (ops.CALL, ops.CALL_INDIRECT, 0x23, 0x24, 0xD2):
            while reader.remaining:
                out += uleb(reader.u64())
        else:
            out += code[reader.position : end]
    return bytes(out)


@cache
def guest_functions(path: Path) -> list[tuple[int, int, list[Line], Module]]:
    module = parse_module(path.read_bytes())
    found = []
    for number, body in enumerate(module.code):
        reader = Reader(module.data, body.start, body.end)
        read_locals(reader)
        found.append((reader.position, body.end, disassemble(module, module.imported.functions + number), module))
    return found


@pytest.mark.parametrize("path", GUESTS, ids=[path.stem for path in GUESTS])
def test_every_byte_of_every_guest_function_is_accounted_for(path: Path) -> None:
    for start, end, lines, module in guest_functions(path):
        at = start
        code_start = next(found.start for found in module.sections if found.id == 10)
        for line in lines:
            assert (line.offset, line.pc) == (at, at - code_start)
            at += line.size
        assert at == end
        assert (lines[-1].text, lines[-1].depth) == ("end", 0)


@pytest.mark.parametrize("path", GUESTS, ids=[path.stem for path in GUESTS])
def test_guest_functions_assemble_to_their_bytes(path: Path) -> None:
    functions = guest_functions(path)
    types = "(type (func))" * 40
    texts = ["\n".join(line.text for line in lines[:-1]) for _, _, lines, _ in functions]
    data = bytes(wasmtime.wat2wasm(f"(module {types} " + " ".join(f"(func {text}\n)" for text in texts) + ")"))
    for (start, end, _, module), body in zip(functions, parse_module(data).code, strict=True):
        original, assembled = module.data[start:end], data[body.start + 1 : body.end]
        assert assembled == unpadded(original)
        if len(original) == len(assembled):
            assert assembled == original


def test_many_guest_functions_have_nothing_padded() -> None:
    """So that for these the proof above is one of bytes, whatever `unpadded` does."""
    functions = [found for path in GUESTS for found in guest_functions(path)]
    exact = sum(module.data[start:end] == unpadded(module.data[start:end]) for start, end, _, module in functions)
    assert exact > 30


# --- what people see


@pytest.mark.parametrize(
    ("code", "text"),
    [
        ("20 00", "local.get 0"),
        ("28 02 00", "i32.load"),
        ("28 00 08", "i32.load offset=8 align=1"),
        ("28 42 03 00", "i32.load 3"),
        ("fd 54 40 01 07 02", "v128.load8_lane 1 offset=7 2"),
        ("41 7f", "i32.const -1"),
        ("43 00 00 c0 3f", "f32.const 0x1.8p+0 ;; 1.5"),
        ("43 cd cc cc 3d", "f32.const 0x1.99999ap-4 ;; 0.1"),
        ("43 01 00 80 7f", "f32.const nan:0x1"),
        ("43 00 00 00 80", "f32.const -0x0p+0 ;; -0"),
        ("43 ff ff 7f 7f", "f32.const 0x1.fffffep+127 ;; 3.4028235e+38"),
        ("44 00 00 00 00 00 00 f0 ff", "f64.const -inf"),
        ("44 01 00 00 00 00 00 00 00", "f64.const 0x0.0000000000001p-1022 ;; 5e-324"),
        ("44 18 2d 44 54 fb 21 09 40", "f64.const 0x1.921fb54442d18p+1 ;; 3.141592653589793"),
        ("0e 02 00 01 02", "br_table 0 1 2"),
        ("11 00 00", "call_indirect (type 0)"),
        ("11 00 02", "call_indirect 2 (type 0)"),
        ("fc 0a 00 00", "memory.copy"),
        ("fc 0a 00 01", "memory.copy 0 1"),
        ("fc 08 05 01", "memory.init 1 5"),
        ("fb 18 03 00 6e 6c", "br_on_cast 0 (ref null any) (ref null i31)"),
        ("10 0c", "call 12"),
    ],
)
def test_operands(code: str, text: str) -> None:
    assert disassemble(module_of(bytes.fromhex(code)), 0)[0].text == text


def test_blocks_are_indented_by_depth() -> None:
    code = code_from("block (result i32) try_table (catch_all 0) end i32.const 1 if nop else nop end i32.const 2 end drop")
    assert [(line.depth, line.text) for line in disassemble(module_of(code), 0)] == [
        (0, "block (result i32)"),
        (1, "try_table (catch_all 0)"),
        (1, "end"),
        (1, "i32.const 1"),
        (1, "if"),
        (2, "nop"),
        (1, "else"),
        (2, "nop"),
        (1, "end"),
        (1, "i32.const 2"),
        (0, "end"),
        (0, "drop"),
        (0, "end"),
    ]


def test_calls_show_the_name_of_what_they_call() -> None:
    names = custom_section("name", b"\1" + (lambda table: uleb(len(table)) + table)(vec([uleb(0) + name("malloc")])))
    module = module_of(b"\x10\x00\xd2\x00\x12\x07", names)
    assert [line.text for line in disassemble(module, 0)[:3]] == ["call 0 ;; malloc", "ref.func 0 ;; malloc", "return_call 7"]
    data = bytes(wasmtime.wat2wasm('(module (import "env" "g" (global i32)) (import "env" "log" (func)) (func call 0))'))
    assert disassemble(parse_module(data), 1)[0].text == "call 0 ;; env.log"


def test_hostile_names_stay_on_their_line_and_in_their_comment() -> None:
    hostile = 'a\n unreachable \r\x1b[2J\u202e;)\u2028"\x00\x9b'
    names = custom_section("name", b"\1" + (lambda table: uleb(len(table)) + table)(vec([uleb(0) + name(hostile)])))
    text = disassemble(module_of(b"\x10\x00", names), 0)[0].text
    assert text == 'call 0 ;; a\\n unreachable \\r\\x1b[2J\\u202e;)\\u2028"\\x00\\x9b'
    assert code_from(text) == b"\x10\x00"
    assert escaped("x" * 5000) == "x" * MAX_NAME + "…"


@given(st.text(max_size=300))
def test_escaped_names_are_printable(text: str) -> None:
    assert escaped(text).isprintable()


@given(st.integers(0, (1 << 64) - 1), st.sampled_from((32, 64)))
def test_float_text_is_exact(bits: int, width: int) -> None:
    bits &= (1 << width) - 1
    text = float_text(bits, width)
    if "nan" in text:
        return
    packed = struct.pack("<f" if width == 32 else "<d", float.fromhex(text) if "inf" not in text else float(text))
    assert int.from_bytes(packed, "little") == bits


def test_functions_without_code_are_refused() -> None:
    data = bytes(wasmtime.wat2wasm('(module (import "env" "log" (func)) (func))'))
    with pytest.raises(WasmError, match="function 0 is imported"):
        disassemble(parse_module(data), 0)
    for index in (2, -1):
        with pytest.raises(WasmError, match=f"function {index} does not exist"):
            disassemble(parse_module(data), index)
    with pytest.raises(WasmError, match="does not exist"):
        disassemble(parse_module(PREAMBLE), 0)


@given(st.binary(max_size=60))
def test_any_bytes_disassemble_or_are_refused(code: bytes) -> None:
    try:
        lines = disassemble(module_of(code), 0)
    except WasmError:
        return
    assert sum(line.size for line in lines) == len(code) + 1
    assert all(line.text.isprintable() and len(line.text) < 5000 for line in lines)
