"""Reading the structure of modules."""

from __future__ import annotations

from pathlib import Path

import pytest
import wasmtime

from recorder.wasm.binary import PREAMBLE, WasmError, custom_section, section
from recorder.wasm.module import (
    Export,
    FuncType,
    GlobalType,
    Import,
    ImportCounts,
    Limits,
    MemoryType,
    OtherType,
    TableType,
    TagType,
    is_component,
    is_core_module,
    parse_module,
)

GUESTS = sorted((Path(__file__).parents[1] / "guests").glob("*.wasm"))


def wat(text: str) -> bytes:
    return bytes(wasmtime.wat2wasm(text))


def test_everything_a_module_declares() -> None:
    module = parse_module(
        wat("""(module $demo
          (import "env" "f" (func $f (param i32 f32) (result i64)))
          (import "env" "f" (func $f2 (param i32) (result i32)))
          (import "env" "t" (table 1 2 externref))
          (import "env" "m" (memory 1))
          (import "env" "g" (global (mut v128)))
          (import "env" "e" (tag (param i32)))
          (func $start)
          (func $two (export "two") (result i32 i32) i32.const 1 i32.const 2)
          (table 3 funcref)
          (memory (export "big") i64 1 5)
          (global (export "c") i32 i32.const 7)
          (tag (export "oops") (param i32))
          (start $start)
          (data "abc") (data (i32.const 0) "def"))""")
    )
    taking, giving = FuncType(("i32", "f32"), ("i64",)), FuncType(("i32",), ("i32",))
    assert str(taking) == "(i32 f32) -> (i64)"
    assert module.imports == (
        Import("env", "f", "function", taking),
        Import("env", "f", "function", giving),
        Import("env", "t", "table", TableType("externref", Limits(1, 2, False, False))),
        Import("env", "m", "memory", MemoryType(Limits(1, None, False, False), 65536)),
        Import("env", "g", "global", GlobalType("v128", True)),
        Import("env", "e", "tag", TagType(module.tags[0].type_index)),
    )
    assert module.imported == ImportCounts(2, 1, 1, 1, 1)
    assert [len(space) for space in (module.functions, module.tables, module.memories, module.globals)] == [
        4,
        2,
        2,
        2,
    ]
    assert module.function_type(3) == FuncType((), ("i32", "i32"))
    assert module.memories[1] == MemoryType(Limits(1, 5, True, False), 65536)
    assert module.globals[1] == GlobalType("i32", False)
    assert len(module.tags) == 2
    assert module.exports == (
        Export("two", "function", 3),
        Export("big", "memory", 1),
        Export("c", "global", 1),
        Export("oops", "tag", 1),
    )
    assert (module.start, len(module.code), module.data_count) == (2, 2, 2)
    assert module.name == "demo"
    assert dict(module.function_names()) == {0: "f", 1: "f2", 2: "start", 3: "two"}


def test_types_that_are_not_functions_are_kept_opaque() -> None:
    module = parse_module(
        wat("""(module (rec (type $s (sub (struct (field (mut i8)) (field (ref null $s))))) (type (array
        i32))) (type $f (func (param anyref (ref null $s) (ref func) exnref (ref null func)))) (type (cont
        $f)) (func (type $f)))""")
    )
    assert module.types == (
        OtherType("struct"),
        OtherType("array"),
        FuncType(("anyref", "(ref null 0)", "(ref func)", "exnref", "funcref"), ()),
        OtherType("cont"),
    )


def test_compact_imports_are_written_out() -> None:
    module = parse_module(
        wat("""(module (import "a" (item "b" (func (param i32))) (item "c" (memory 1)))
                       (import "d" (item "e") (item "f") (global i32)))""")
    )
    assert [(found.module, found.name, found.kind) for found in module.imports] == [
        ("a", "b", "function"),
        ("a", "c", "memory"),
        ("d", "e", "global"),
        ("d", "f", "global"),
    ]
    assert module.imported == ImportCounts(functions=1, memories=1, globals=2)
    assert "compact-imports" in module.features()


@pytest.mark.parametrize(
    ("feature", "text"),
    [
        ("threads", "(memory 1 1 shared)"),
        ("threads", "(memory 1) (func (drop (i32.atomic.load (i32.const 0))))"),
        ("gc", "(type (struct))"),
        ("gc", "(func (param i31ref))"),
        ("gc", "(func (local anyref))"),
        ("typed-function-references", "(type $f (func)) (func (param (ref $f)) (call_ref $f (local.get 0)))"),
        ("exceptions", "(tag)"),
        ("exceptions", "(func (block (try_table (catch_all 0))))"),
        ("legacy-exceptions", "(func try catch_all end)"),
        ("tail-calls", "(func $f return_call $f)"),
        ("simd", "(func (drop (v128.const i64x2 0 0)))"),
        ("relaxed-simd", "(func (param v128) (drop (i8x16.relaxed_swizzle (local.get 0) (local.get 0))))"),
        ("multi-memory", "(memory 1) (memory 1)"),
        ("memory64", "(memory i64 1)"),
        ("memory64", "(table i64 1 funcref)"),
        ("multi-value", "(func (result i32 i32) i32.const 0 i32.const 0)"),
        ("multi-value", "(func (param i32) local.get 0 block (param i32) drop end)"),
        ("reference-types", "(func (drop (ref.null extern)))"),
        ("reference-types", "(table 1 funcref) (table 1 funcref)"),
        ("bulk-memory", "(memory 1) (func (memory.fill (i32.const 0) (i32.const 0) (i32.const 0)))"),
        ("bulk-memory", '(data "x")'),
        ("extended-const", "(global i32 (i32.add (i32.const 1) (i32.const 2)))"),
        ("wide-arithmetic", "(func (param i64) local.get 0 local.get 0 i64.mul_wide_u drop drop)"),
        ("custom-page-sizes", "(memory 1 (pagesize 1))"),
        ("stack-switching", "(type $f (func)) (type (cont $f))"),
    ],
)
def test_features_go_by_their_names(feature: str, text: str) -> None:
    assert feature in parse_module(wat(f"(module {text})")).features()


def test_a_plain_module_uses_no_proposal() -> None:
    text = "(module (memory 1) (func (param f32) (drop (i32.trunc_sat_f32_s (local.get 0)))))"
    assert parse_module(wat(text)).features() == frozenset()


@pytest.mark.parametrize("guest", GUESTS, ids=lambda path: path.stem)
def test_agrees_with_the_engine_on_real_guests(guest: Path) -> None:
    data = guest.read_bytes()
    config = wasmtime.Config()
    module = parse_module(data)
    compiled = wasmtime.Module(wasmtime.Engine(config), data)
    assert [(i.module, i.name) for i in module.imports] == [(i.module, i.name) for i in compiled.imports]
    assert [export.name for export in module.exports] == [export.name for export in compiled.exports]
    assert b"".join(data[found.offset : found.end] for found in module.sections) == data[8:]
    module.features()


def test_custom_sections_and_names() -> None:
    data = wat("(module (func $f))")
    named = parse_module(data + custom_section("note", b"one") + custom_section("note", b"two"))
    assert (named.custom("note"), named.custom("other")) == (b"one", None)
    assert dict(named.function_names()) == {0: "f"}


@pytest.mark.parametrize("content", [b"\x01\xff\xff\xff\xff\x0f", b"\x01\x03\x01\x00\x05", b"\x01\x04\x01\x00\x01\xff"])
def test_a_malformed_name_section_yields_no_names(content: bytes) -> None:
    module = parse_module(PREAMBLE + custom_section("name", content))
    assert (dict(module.function_names()), module.name) == ({}, None)


def test_preambles() -> None:
    component = wat("(component)")
    assert (is_component(component), is_core_module(component)) == (True, False)
    assert (is_component(PREAMBLE), is_core_module(PREAMBLE)) == (False, True)
    with pytest.raises(WasmError, match="this is a component, not a core module"):
        parse_module(component)
    with pytest.raises(WasmError, match="this is not a WebAssembly module at byte 0"):
        parse_module(b"#!/bin/sh")


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (PREAMBLE + b"\x01", "unexpected end at byte 9"),
        (PREAMBLE + b"\x01\x05\x00", "5 bytes wanted, 1 left at byte 10"),
        (PREAMBLE + section(14, b""), "unknown section 14 at byte 8"),
        (
            PREAMBLE + section(3, b"\0") + section(1, b"\0"),
            "section 1 is repeated or out of order at byte 11",
        ),
        (PREAMBLE + section(1, b"\xff\xff\xff\xff\x0f"), "a vector claims 4294967295 items"),
        (PREAMBLE + section(1, b"\x01\x60\x00\x00\x00"), "1 bytes left over after the content of section 1"),
        (PREAMBLE + section(1, b"\x01\x61\x00"), "unknown type form 0x61 at byte 11"),
        (PREAMBLE + section(3, b"\x01\x00"), "type 0 is not a function type at byte 11"),
        (PREAMBLE + section(7, b"\x01\x00\x00\x00"), "function 0 does not exist"),
        (PREAMBLE + section(8, b"\x00"), "function 0 does not exist"),
        (
            PREAMBLE + section(1, b"\x01\x60\x00\x00") + section(3, b"\x01\x00"),
            "1 functions are declared, 0 have code",
        ),
    ],
)
def test_what_is_wrong_is_said_in_one_line(data: bytes, problem: str) -> None:
    with pytest.raises(WasmError) as caught:
        parse_module(data)
    assert problem in str(caught.value)
    assert "\n" not in str(caught.value)
