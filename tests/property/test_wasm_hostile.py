"""Whatever bytes come in, WasmError is the only thing that comes out."""

from __future__ import annotations

import contextlib
from pathlib import Path

import wasmtime
from hypothesis import given, settings
from hypothesis import strategies as st

from recorder.wasm.binary import PREAMBLE, WasmError, section
from recorder.wasm.instructions import instruction_end, instructions, opcodes_used, straight_run
from recorder.wasm.metering import meter
from recorder.wasm.module import Export, parse_module
from recorder.wasm.rewrite import start_to_export, with_exports

SMALL = 4_000
"""Guests up to this size are mutated whole; larger ones would mostly be mutated in the dull middle of their
code."""

DENSE = bytes(
    wasmtime.wat2wasm("""(module $dense (rec (type $s (sub (struct (field (mut i8)) (field (ref null $s)))))
    (type (array i32))) (type $f (func (param anyref (ref null $s)) (result i32 i32))) (type (cont $f))
    (import "a" (item "b" (func (param i32))) (item "c" (memory 1))) (import "d" (item "e") (item "f") (global
    i32)) (tag $t (param i32)) (table 1 funcref (ref.null func)) (memory i64 1 2 (pagesize 1)) (global (mut
    i32) (i32.add (i32.const 1) (i32.const 2))) (func $start) (start $start) (export "x" (func $start)) (elem
    (i32.const 0) func $start) (data (i32.const 0) "abc") (data "def") (func (param i32) (result i32) (local
    v128 (ref null $s)) (block (result i32) (try_table (catch $t 0) (catch_all 1) (br_table 0 1 0 (local.get
    0))) (if (local.get 0) (then (throw $t (i32.const 1))) (else (call 0 (i32.const 2)))) (loop (br_if 0
    (local.get 0))) (drop (i8x16.shuffle 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 (v128.const i64x2 1 2)
    (v128.const i64x2 1 2))) (drop (select (result i32) (i32.const 1) (i32.const 2) (i32.const 3))) (return
    (i32.const 3)))))""")
)
SEEDS = [DENSE] + [
    data for path in sorted((Path(__file__).parents[1] / "guests").glob("*.wasm")) if len(data := path.read_bytes()) <= SMALL
]


@st.composite
def mutated_modules(draw: st.DrawFn) -> bytes:
    """A real module with some bytes overwritten, removed or inserted, perhaps cut off."""
    data = bytearray(draw(st.sampled_from(SEEDS)))
    for _ in range(draw(st.integers(1, 6))):
        at = draw(st.integers(8, len(data)))
        removed = draw(st.integers(0, 3))
        data[at : at + removed] = draw(st.binary(max_size=5))
    return bytes(data[: draw(st.one_of(st.just(len(data)), st.integers(0, len(data))))])


def framed() -> st.SearchStrategy[bytes]:
    """Random content in well-formed sections, in order."""
    ids = st.lists(st.sampled_from((1, 2, 3, 4, 5, 13, 6, 7, 8, 9, 12, 10, 11)), unique=True)
    contents = st.lists(st.binary(max_size=24), min_size=13, max_size=13)
    return st.builds(lambda chosen, payloads: PREAMBLE + b"".join(map(section, chosen, payloads)), ids, contents)


def exercise(data: bytes) -> None:
    """Everything that takes bytes from outside."""
    with contextlib.suppress(WasmError):
        module = parse_module(data)
        module.function_names()
        assert module.name is None or isinstance(module.name, str)
        for body in module.code:
            assert 0 <= body.start <= body.end <= len(data)
        with contextlib.suppress(WasmError):
            with_exports(data, [Export("extra", "memory", 0)])
        with contextlib.suppress(WasmError):
            start_to_export(data, "extra")
        with contextlib.suppress(WasmError):
            module.features()
        meter(data)


@settings(max_examples=600)
@given(mutated_modules())
def test_mutated_modules(data: bytes) -> None:
    exercise(data)


@given(st.binary(max_size=200).map(lambda tail: PREAMBLE + tail) | st.binary(max_size=40) | framed())
def test_random_bytes(data: bytes) -> None:
    exercise(data)


@given(st.binary(max_size=120))
def test_decoders_agree_on_random_code(code: bytes) -> None:
    """Single steps and runs see the same instructions, or the same error."""
    end = len(code)
    stepped: list[tuple[int, int]] = []
    try:
        for _, opcode, sub, after in instructions(code, 0, end):
            assert after <= end
            stepped.append((opcode, sub))
    except WasmError as problem:
        for decode in (lambda: opcodes_used(code, 0, end), lambda: _follow(code)):
            try:
                decode()
            except WasmError as same:
                assert str(same) == str(problem)
            else:
                raise AssertionError(f"only single steps found {problem}") from problem
        return
    assert _follow(code) == len(stepped)
    used = opcodes_used(code, 0, end)
    assert {opcode for opcode, _ in used} == {opcode for opcode, _ in stepped}
    assert {pair for pair in used if pair[0] >= 0xFB} == {pair for pair in stepped if pair[0] >= 0xFB}


def _follow(code: bytes) -> int:
    """How many instructions runs and single control instructions make up."""
    total, at = 0, 0
    while at < len(code):
        count, at = straight_run(code, at, len(code))
        total += count
        if at < len(code):
            at = instruction_end(code, at, len(code))
            total += 1
    return total


def test_deep_nesting_is_no_recursion() -> None:
    depth = 100_000
    code = b"\x00" + b"\x02\x40" * depth + b"\x0b" * (depth + 1)
    sized = bytearray()
    size = len(code)
    while size >= 0x80:
        sized.append(size & 0x7F | 0x80)
        size >>= 7
    sized.append(size)
    body = b"\x01" + bytes(sized) + code
    data = PREAMBLE + section(1, b"\x01\x60\x00\x00") + section(3, b"\x01\x00") + section(10, body)
    assert len(meter(data).data) > depth
