"""Append-only rewriting: what is added works, everything else stays byte for byte."""

from __future__ import annotations

import pytest
import wasmtime

from recorder.wasm.binary import CUSTOM_SECTION, WasmError, custom_section
from recorder.wasm.module import EXPORT, GLOBAL, MEMORY, START, TABLE, Export, parse_module
from recorder.wasm.rewrite import encode_export, rebuild, start_to_export, unused_export_name, with_exports

PRIVATE = """(module
  (memory 1) (table 2 funcref) (global $g (mut i32) (i32.const 1))
  (func $start (global.set $g (i32.const 7)) (i32.store8 (i32.const 3) (i32.const 9)))
  (func (export "g") (result i32) (global.get $g))
  (start $start) (elem (i32.const 0) func $start) (data (i32.const 8) "data"))"""


def wat(text: str) -> bytes:
    return bytes(wasmtime.wat2wasm(text))


def unchanged_sections(before: bytes, after: bytes, *changed: int) -> None:
    """Assert that all sections but `changed` are the same bytes in the same order."""
    kept = [[data[s.offset : s.end] for s in parse_module(data).sections if s.id not in changed] for data in (before, after)]
    assert kept[0] == kept[1]


def test_the_start_section_becomes_an_export() -> None:
    before = wat(PRIVATE)
    after = start_to_export(before, "reprise:start")
    unchanged_sections(before, after, START, EXPORT)
    store = wasmtime.Store()
    instance = wasmtime.Instance(store, wasmtime.Module(store.engine, after), [])
    exports = instance.exports(store)
    read, start = exports["g"], exports["reprise:start"]
    assert isinstance(read, wasmtime.Func)
    assert isinstance(start, wasmtime.Func)
    assert read(store) == 1
    start(store)
    assert read(store) == 7


def test_start_to_export_refuses_what_it_cannot_do() -> None:
    with pytest.raises(WasmError, match="the module has no start function"):
        start_to_export(wat("(module)"), "s")
    with pytest.raises(WasmError, match="the module exports 'g' already"):
        start_to_export(wat(PRIVATE), "g")


def test_private_things_can_be_exported() -> None:
    before = wat(PRIVATE)
    extra = [
        Export("m", "memory", 0),
        Export("t", "table", 0),
        Export("v", "global", 0),
        Export("f", "function", 0),
    ]
    after = with_exports(before, extra)
    unchanged_sections(before, after, EXPORT)
    assert parse_module(after).exports[1:] == tuple(extra)
    store = wasmtime.Store()
    exports = wasmtime.Instance(store, wasmtime.Module(store.engine, after), []).exports(store)
    memory, value = exports["m"], exports["v"]
    assert isinstance(memory, wasmtime.Memory)
    assert isinstance(value, wasmtime.Global)
    assert bytes(memory.read(store, 3, 13)) == b"\x09\0\0\0\0data\0"
    assert value.value(store) == 7


@pytest.mark.parametrize(
    ("extra", "problem"),
    [
        ([Export("x", "memory", 1)], "memory 1 does not exist"),
        ([Export("x", "tag", 0)], "tag 0 does not exist"),
        ([Export("x", "memory", 0), Export("x", "table", 0)], "exports 'x' already"),
    ],
)
def test_bad_exports_are_refused(extra: list[Export], problem: str) -> None:
    with pytest.raises(WasmError, match=problem):
        with_exports(wat(PRIVATE), extra)


def test_nothing_to_add_changes_nothing() -> None:
    data = wat(PRIVATE) + custom_section("note", b"x")
    assert with_exports(data, []) == data


def test_missing_sections_are_made_in_their_place() -> None:
    first, last = custom_section("dylink.0", b""), custom_section("note", b"x")
    bare = wat("(module (func))")
    before = bare[:8] + first + bare[8:] + last
    after = rebuild(
        parse_module(before),
        append={
            EXPORT: [encode_export(Export("m", "memory", 0))],
            MEMORY: [b"\x00\x01"],
            GLOBAL: [b"\x7f\x00\x41\x00\x0b"],
            TABLE: [b"\x70\x00\x01"],
        },
    )
    wasmtime.Module.validate(wasmtime.Engine(), after)
    ids = [found.id for found in parse_module(after).sections]
    assert ids == [CUSTOM_SECTION, 1, 3, TABLE, MEMORY, GLOBAL, EXPORT, 10, CUSTOM_SECTION]


def test_a_module_without_any_section_can_grow() -> None:
    before = wat("(module)") + custom_section("note", b"x")
    after = rebuild(parse_module(before), append={MEMORY: [b"\x00\x01"], EXPORT: []})
    assert [found.id for found in parse_module(after).sections] == [MEMORY, CUSTOM_SECTION]


def test_names_that_are_taken_are_numbered() -> None:
    module = parse_module(wat('(module (func (export "a") (export "a.2") (export "b")))'))
    assert [unused_export_name(module, wanted) for wanted in ("a", "b", "c")] == ["a.3", "b.2", "c"]
