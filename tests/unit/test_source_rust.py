"""Rust: enums with data, niches, strings, shadowed variables."""

from __future__ import annotations

from pathlib import Path

import wasmtime

from recorder.wasm.module import parse_module
from replayer.source.debuginfo import open_source
from replayer.source.values import Value

GUEST = Path(__file__).resolve().parents[1] / "guests" / "debug_rust.wasm"
LINES = {1: 55, 2: 58, 3: 60}
"""Where the calls of `stop` stand, by their first argument."""


def look() -> dict[int, dict[str, Value]]:
    """The variables at each stop. Children are read here too, while memory is as it was."""
    module = parse_module(GUEST.read_bytes())
    info = open_source(module)
    assert info is not None
    store = wasmtime.Store(wasmtime.Engine())
    instance: list[wasmtime.Instance] = []
    found: dict[int, dict[str, Value]] = {}

    class Frame:
        def __init__(self, pc: int) -> None:
            self.pc = pc

        def local(self, index: int) -> int | None:
            value: int = instance[0].exports(store)["__stack_pointer"].value(store)  # type: ignore[union-attr]
            return value

        def operand(self, index: int) -> int | None:
            return None

        def global_(self, index: int) -> int | None:
            return None

        def memory(self, address: int, length: int) -> bytes | None:
            memory = instance[0].exports(store)["memory"]
            assert isinstance(memory, wasmtime.Memory)
            return bytes(memory.read(store, address, address + length))

    def stop(where: int, *_: int) -> None:
        assert info is not None
        frame = Frame(info.line_starts("debug_rust.rs", LINES[where])[0])
        here: dict[str, Value] = {}
        for variable in info.variables(frame.pc):
            here.setdefault(variable.name, info.read(variable, frame))
        for value in here.values():
            for child in value.children:
                assert child.children is not None
        found[where] = here

    kind = wasmtime.FuncType([wasmtime.ValType.i32()] * 4, [])
    instance.append(wasmtime.Instance(store, wasmtime.Module(store.engine, module.data), [wasmtime.Func(store, kind, stop)]))
    run = instance[0].exports(store)["run"]
    assert isinstance(run, wasmtime.Func) and run(store, 9) == 9
    function = info.functions()[-1]
    assert (function.name, function.qualified_name) == ("run", "debug_rust::inner::run")
    return found


def test_enums_slices_and_shadowing() -> None:
    found = look()
    assert set(found) == {1, 2, 3}
    assert [found[where]["shape"].text for where in (1, 2, 3)] == ['Named {name = "rusty", id = 7}', "Circle {__0 = 9}", "Empty"]
    assert found[1]["maybe"].text == "Nothing"  # a niche: the reference is null
    assert found[2]["maybe"].text.startswith("Just {__0 = 0x")
    assert found[1]["maybe"].type_name == "Maybe<&i32>"
    assert (found[1]["bytes"].type_name, found[1]["bytes"].text) == ("[u8; 3]", "[1, 2, 3]")
    assert found[1]["seed"].text == "9"
    (named,) = found[1]["shape"].children
    name, number = named.children
    assert (named.name, name.type_name, name.text, number.text) == ("Named", "&str", '"rusty"', "7")
    assert [child.text for child in name.children][:2] == ["114", "117"]
    (just,) = found[2]["maybe"].children
    assert just.children[0].children[0].text == "41"
