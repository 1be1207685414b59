"""Guests out of the ordinary: recorded like native, and replayed bit for bit, here and where nothing is known of them."""

from __future__ import annotations

import array
import json
import struct
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import wasmtime

from recorder.boundary import memories
from recorder.invocation import Call, Invocation, Preopen
from recorder.python_host import Bits, Float, FuncRef, Guest, HostFunction, HostTrap, provide
from recorder.recording import Options, Recording
from recorder.source import Source
from tests import harness
from tests.harness import GUESTS, ROOT, Forged, assemble, check, guest, record
from tests.native import WASI, Ended, Native, World, redirected
from tests.scripts import scripted_guest
from traces._errors import RefusedError
from traces.layout import Kind

PAGE = 65536


def host(name: str, signature: str, call: Callable[..., Any]) -> HostFunction:
    params, _, results = signature.partition("->")
    return HostFunction("env", name, tuple(params.split()), tuple(results.split()), call, name)


def calls(*wanted: tuple[str, list[int]], ends: list[Ended] | None = None) -> Callable[[Guest], list[Ended]]:
    """Drives exports with raw values; gives how each ended."""

    def drive(target: Guest) -> list[Ended]:
        found = ends if ends is not None else []
        for name, args in wanted:

            def call(name: str = name, args: list[int] = args) -> list[int]:
                return target.call_raw(name, args)

            found.append(harness.outcome_of(call))
        return found

    return drive


def elsewhere(recorded: harness.Recorded, place: Path, kind: str = "identical") -> None:
    (report,) = harness.replayed_elsewhere([recorded.directory], place)
    assert report["verdict"]["verdict"] == kind, report
    if kind == "identical":
        assert report["memories"] == [harness.sha256(m) for m in recorded.memories]


def both(
    wasm: bytes,
    functions: dict[str, tuple[str, Callable[..., Any], Callable[..., Any]]],
    wanted: Sequence[tuple[str, list[int]]],
    place: Path,
    compare_memory: bool = True,
) -> harness.Recorded:
    """Calls exports natively and recorded. `functions`: import of `env` → signature, native host, recorded host."""
    native = Native(wasm, World(functions={("env", name): n for name, (_, n, _) in functions.items()}))
    hosts = [host(name, signature, r) for name, (signature, _, r) in functions.items()]
    with redirected(place / "native.out"):
        assert native.link() == Ended("returned")
        ends = [native.call(name, *args) for name, args in wanted]
    with redirected(place / "recorded.out"):
        recorded = record(wasm, place / "a.trace", calls(*wanted), hosts=hosts, watch=True)
    assert recorded.value == ends
    assert (place / "native.out").read_bytes() == (place / "recorded.out").read_bytes()
    if compare_memory and recorded.memories:
        assert recorded.memories[-1] == native.memory()
    check(recorded)
    elsewhere(recorded, place)
    return recorded


def plain(function: Callable[..., Any]) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """A host that does nothing to the guest, for both sides."""
    return function, lambda _guest, *args: function(*args)


# -- the committed text guests -----------------------------------------------------------------------------------------


def test_no_memory(tmp_path: Path) -> None:
    double = ("i32 -> i32", *plain(lambda x: x * 2))
    recorded = both(guest("no_memory"), {"double": double}, [("run", [4]), ("run", [9])], tmp_path)
    assert recorded.value == [Ended("returned", (9,)), Ended("returned", (19,))]


def test_nothing_at_all_to_compare_but_results(tmp_path: Path) -> None:
    wasm = assemble('(module (func (export "run") (param i32) (result i32) (i32.mul (local.get 0) (i32.const 3))))')
    recorded = both(wasm, {}, [("run", [5])], tmp_path)
    assert "results only" in harness.verdict_of(recorded.directory).headline()


def test_a_recording_of_nothing_is_not_identical(tmp_path: Path) -> None:
    wasm = assemble('(module (func (export "run")))')
    recorded = record(wasm, tmp_path / "a.trace", lambda target: None)
    assert harness.verdict_of(recorded.directory).kind == "unusable"


def test_two_memories(tmp_path: Path) -> None:
    with redirected(tmp_path / "out"):
        recorded = record(guest("two_memories"), tmp_path / "a.trace", calls(("_start", []), ("peek", [128])), watch=True)
    assert (tmp_path / "out").read_bytes() == b"two memories\n"
    private, shown = recorded.memories
    assert recorded.value[1].values == (int.from_bytes(shown[8:16], "little"),) == (int.from_bytes(private[128:136], "little"),)
    check(recorded)
    elsewhere(recorded, tmp_path)


def test_memory64(tmp_path: Path) -> None:
    def fill(target: Guest, address: int, length: int) -> int:
        target.write(address, bytes(i & 0xFF for i in range(length)))
        return length

    holder: list[Native] = []

    def native_fill(address: int, length: int) -> int:
        holder[0].write(address, bytes(i & 0xFF for i in range(length)))
        return length

    wasm = guest("memory64")
    native = Native(wasm, World(functions={("env", "fill"): native_fill}))
    holder.append(native)
    native.link()
    wanted: list[tuple[str, list[int]]] = [("run", [100, 1000]), ("grow", [2]), ("run", [3 * PAGE, 70]), ("run", [0, 2 * PAGE])]
    ends = [native.call(name, *args) for name, args in wanted]
    recorded = record(
        wasm, tmp_path / "a.trace", calls(*wanted), hosts=[host("fill", "i64 i64 -> i64", fill)], slot_size=8192, watch=True
    )
    assert recorded.value == ends
    assert recorded.memories == [native.memory()]
    check(recorded)
    elsewhere(recorded, tmp_path)


def test_a_start_function_that_calls_imports(tmp_path: Path) -> None:
    recorded = record(guest("start_import"), tmp_path / "a.trace", calls(("time", []), ("noise", []), ("run", [])), watch=True)
    assert [e.kind for e in recorded.value] == ["returned"] * 3
    assert recorded.recording.manifest.module["derivation"]
    assert harness.kinds(recorded.directory)["EXPORT"] == 4
    check(recorded)
    elsewhere(recorded, tmp_path)


def test_a_start_function_without_imports(tmp_path: Path) -> None:
    both(guest("start_pure"), {"double": ("i32 -> i32", *plain(lambda x: 2 * x))}, [("run", [4])], tmp_path)


@pytest.mark.parametrize("body", ["unreachable", "(drop (i32.div_s (i32.const 1) (i32.const 0)))", "(call $loop)"])
@pytest.mark.parametrize("imports", ["", '(import "env" "f" (func $f))'], ids=["pure", "with imports"])
@pytest.mark.parametrize("memory", ["", '(memory (export "memory") 1) (data (i32.const 5) "data")'], ids=["none", "memory"])
def test_a_start_function_that_traps(body: str, imports: str, memory: str, tmp_path: Path) -> None:
    wasm = assemble(
        f"""(module {imports} {memory} (func $loop (call $loop)) (func $begin {body}) (start $begin)
        (global (export "g") i32 (i32.const 3)) (func (export "run")))"""
    )
    native = Native(wasm, World(functions={("env", "f"): lambda: None}))
    end = native.link()
    recorded = record(wasm, tmp_path / "a.trace", calls(("run", [])), hosts=[host("f", "", lambda _: None)] if imports else [])
    assert end.kind == "trap"
    assert recorded.outcome.code == end.code
    assert recorded.outcome.kind == ("stack" if "loop" in body else "trap")
    verdict = harness.verdict_of(recorded.directory)
    assert verdict.kind in ("identical", "incomplete"), verdict.lines("TRACE")
    if memory:
        assert verdict.kind == "identical", verdict.lines("TRACE")


@pytest.mark.parametrize("slot_size", [8192, 65536])
def test_imported_memory_global_and_table(slot_size: int, tmp_path: Path) -> None:
    wasm = guest("imported_state")

    def provided(native: Native) -> dict[tuple[str, str], Any]:
        store = native.store
        table = wasmtime.TableType(wasmtime.ValType.funcref(), wasmtime.Limits(2, 10))
        counter = wasmtime.GlobalType(wasmtime.ValType.i32(), True)
        return {
            ("env", "memory"): wasmtime.Memory(store, wasmtime.MemoryType(wasmtime.Limits(1, 4))),
            ("env", "counter"): wasmtime.Global(store, counter, wasmtime.Val.i32(7)),
            ("env", "table"): wasmtime.Table(store, table, None),
        }

    native = Native(wasm, World(functions={("env", "tick"): lambda x: x + 100}))
    assert native.link(provided) == Ended("returned")
    ends = [native.call("step", 3), native.call("step", 4)]

    def tick(target: Guest, x: int) -> int:
        return x + 100

    given = [
        provide("env", "memory", "memory", minimum=1, maximum=4),
        provide("env", "counter", "global", value="i32", mutable=True, bits=7),
        provide("env", "table", "table", element="funcref", minimum=2, maximum=10),
    ]
    hosts = [*given, host("tick", "i32 -> i32", tick)]
    recorded = record(
        wasm, tmp_path / "a.trace", calls(("step", [3]), ("step", [4])), hosts=hosts, slot_size=slot_size, watch=True
    )
    assert recorded.value == ends
    assert recorded.memories == [native.memory()]
    assert recorded.globals == {0: 9}
    check(recorded)
    elsewhere(recorded, tmp_path)

    def busy(target: Guest, x: int) -> int:
        target.grow(1)
        target.write(PAGE + x, b"tick")
        target.set_global("env.counter", x * 2)
        target.table_grow("table", 1, "step")
        target.table_set("env.table", 1, "step")
        return int(target.call_table("table", 0, x)) if x < 30 else 0

    hosts[-1] = host("tick", "i32 -> i32", busy)
    wanted = calls(("step", [1]), ("step", [1]), ("step", [1]))
    check(record(wasm, tmp_path / "b.trace", wanted, hosts=hosts, slot_size=slot_size, watch=True))


@pytest.mark.parametrize(
    ("value", "bits"),
    [
        ("i32", 0xFFFF_FFFF),
        ("i64", 1 << 63),
        ("f32", 0x7FA0_0001),
        ("f32", 0x8000_0000),
        ("f64", 0xFFF4_0000_0000_0001),
        ("f64", 1),
    ],
)
@pytest.mark.parametrize("mutable", [True, False])
def test_an_imported_global_keeps_its_bits(value: str, bits: int, mutable: bool, tmp_path: Path) -> None:
    kind = f"(mut {value})" if mutable else value
    reads = {"f32": "i32.reinterpret_f32", "f64": "i64.reinterpret_f64"}.get(value, "")
    result = {"f32": "i32", "f64": "i64"}.get(value, value)
    body = f"({reads} (global.get 0))" if reads else "(global.get 0)"
    wasm = assemble(f'(module (import "env" "g" (global {kind})) (func (export "bits") (result {result}) {body}))')
    given = provide("env", "g", "global", value=value, mutable=mutable, bits=bits)
    recorded = record(wasm, tmp_path / "a.trace", calls(("bits", [])), hosts=[given])
    assert recorded.value == [Ended("returned", (bits,))]
    check(recorded)


def test_one_name_imported_with_two_types(tmp_path: Path) -> None:
    hosts = [host("f", "i32 -> i32", lambda _, x: x + 1), host("f", "i64 -> i64", lambda _, x: x + 2)]
    recorded = record(guest("same_name_two_types"), tmp_path / "a.trace", calls(("run", [5])), hosts=hosts, watch=True)
    assert recorded.value == [Ended("returned", (6 + 7 * 1000 + 6 * 1_000_000,))]
    check(recorded)
    elsewhere(recorded, tmp_path)


def test_several_results(tmp_path: Path) -> None:
    def split(_: Guest, x: int) -> tuple[int, Float | float, int]:
        return x & 0xFF, x / 2, -x

    recorded = record(
        guest("multi_value"),
        tmp_path / "a.trace",
        calls(("swap", [1, 2]), ("run", [0x123]), ("none", [])),
        hosts=[host("split", "i64 -> i32 f64 i64", split)],
        watch=True,
    )
    half = struct.unpack("<Q", struct.pack("<d", 0x123 / 2))[0]
    assert [e.values for e in recorded.value] == [(2, 1), ((1 << 64) - 0x123, half, 0x23, 0x3F00_0000), ()]
    check(recorded)
    elsewhere(recorded, tmp_path)


def test_float_bits_survive_python(tmp_path: Path) -> None:
    seen: list[int] = []

    def keep(_: Guest, x: Float) -> Float:
        seen.append(x.bits)
        return x

    hosts = [host("id_f32", "f32 -> f32", keep), host("id_f64", "f64 -> f64", keep)]
    patterns = [("pass_f32", [0x7FA0_0000]), ("pass_f64", [0x7FF0_0000_0000_0001])]
    recorded = record(guest("float_bits"), tmp_path / "a.trace", calls(("run", []), *patterns), hosts=hosts, watch=True)
    assert [e.values for e in recorded.value] == [(0,), (0x7FA0_0000,), (0x7FF0_0000_0000_0001,)]
    assert 0x7F80_0001 in seen
    assert 0xFFF4_0000_DEAD_BEEF in seen
    check(recorded)
    elsewhere(recorded, tmp_path)


@pytest.mark.parametrize("answer", [0x7FA0_0000, 0xFFBF_FFFF, 0x7F80_0001, 0, 0x8000_0000])
def test_a_host_can_answer_with_any_bits(answer: int, tmp_path: Path) -> None:
    hosts = [host("id_f32", "f32 -> f32", lambda _, x: Bits(answer)), host("id_f64", "f64 -> f64", lambda _, x: x)]
    recorded = record(guest("float_bits"), tmp_path / "a.trace", calls(("pass_f32", [1])), hosts=hosts, watch=True)
    assert recorded.value == [Ended("returned", (answer,))]
    check(recorded)


def test_v128_through_python(tmp_path: Path) -> None:
    hosts = [host("id_v128", "v128 -> v128", lambda _, x: x)]
    recorded = record(guest("v128_bits"), tmp_path / "a.trace", calls(("run", [])), hosts=hosts, watch=True)
    assert recorded.value == [Ended("returned", (1,))]
    check(recorded)
    elsewhere(recorded, tmp_path)


def test_tables(tmp_path: Path) -> None:
    wanted: list[tuple[str, list[int]]] = [
        ("call", [0, 21]), ("call", [1, 9]), ("grow", [3]), ("call", [6, 5]), ("set", [0, 1]), ("call", [0, 7]), ("clear", [1]),
        ("call", [1, 7]), ("imported", [3]), ("call", [3, 8]), ("grow", [100]), ("size", []), ("call", [99, 0]),
    ]  # fmt: skip
    both(guest("tables"), {"note": ("i32 -> i32", *plain(lambda x: x + 1))}, wanted, tmp_path)


def test_a_function_reference_is_handed_out_and_put_back(tmp_path: Path) -> None:
    def drive(target: Guest) -> list[Any]:
        picked = target.call("pick", 0)
        assert isinstance(picked, FuncRef)
        assert picked == target.call("pick", 0)
        assert target.call("pick", 3) is None
        target.table_set("table", 3, picked)
        return [target.call("call", 3, 4), target.call("pick", 3) == picked]

    hosts = [host("note", "i32 -> i32", lambda _, x: x)]
    recorded = record(guest("tables"), tmp_path / "a.trace", drive, hosts=hosts, watch=True)
    assert recorded.value == [8, True]
    check(recorded)
    elsewhere(recorded, tmp_path)


REFERENCES = """(module
  (type $f (func (param i32) (result i32)))
  (import "env" "refs" (func $refs (param externref funcref i32) (result funcref externref)))
  (table $t (export "table") 4 funcref) (table $x (export "externs") 4 externref) (memory (export "memory") 1)
  (elem (table $t) (i32.const 0) func $one $two)
  (func $one (type $f) (i32.add (local.get 0) (i32.const 1)))
  (func $two (type $f) (i32.add (local.get 0) (i32.const 2)))
  (func (export "go") (param i32) (result i32) (local $e externref)
    (call $refs (table.get $x (i32.const 0)) (table.get $t (local.get 0)) (local.get 0))
    (local.set $e) (call $put)
    (table.set $x (i32.const 1) (local.get $e))
    (i32.add (call_indirect $t (type $f) (local.get 0) (i32.const 3)) (ref.is_null (local.get $e))))
  (func $put (param funcref) (table.set $t (i32.const 3) (local.get 0))))"""


def test_references_through_imports(tmp_path: Path) -> None:
    things = [object(), {"a": 1}]
    seen: list[Any] = []

    def refs(target: Guest, extern: object, func: FuncRef | None, n: int) -> tuple[FuncRef | None, object]:
        seen.append((extern, func is None))
        target.write(0, b"x" * n)
        return (func if n == 0 else target.table_get("table", 0)), things[1] if n else None

    def drive(target: Guest) -> list[int]:
        target.table_set("externs", 0, things[0])
        return [target.call("go", n) for n in (0, 1, 2)]

    hosts = [host("refs", "externref funcref i32 -> funcref externref", refs)]
    recorded = record(assemble(REFERENCES), tmp_path / "a.trace", drive, hosts=hosts, slot_size=8192, watch=True)
    assert recorded.value == [2, 2, 3]
    assert seen == [(things[0], False), (things[0], False), (things[0], True)]
    check(recorded)
    elsewhere(recorded, tmp_path)


def test_a_wrong_kind_of_reference_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    def drive(target: Guest) -> list[str]:
        found = []
        for table, value in (("table", 5), ("table", object()), ("table", b"one"), ("table", 1.5)):
            with pytest.raises(TypeError):
                target.table_set(table, 0, value)
            with pytest.raises(TypeError):
                target.table_grow(table, 1, value)
            found.append(str(target.table_size(table)))
        target.table_set("externs", 0, target.table_get("table", 0))  # a FuncRef is an object like any other there
        assert isinstance(target.table_get("externs", 0), FuncRef)
        return found

    hosts = [host("refs", "externref funcref i32 -> funcref externref", lambda *_: (None, None))]
    recorded = record(assemble(REFERENCES), tmp_path / "a.trace", drive, hosts=hosts, watch=True)
    assert recorded.value == ["4"] * 4
    check(recorded)


@pytest.mark.parametrize(
    ("wasm", "name"),
    [
        (guest("threads"), "threads"),
        (assemble('(module (import "env" "m" (memory 1 1)) (func (export "f")))'), "env.m"),
        (assemble('(module (import "env" "t" (table 1 funcref)) (func (export "f")))'), "env.t"),
        (assemble('(module (import "env" "g" (global i32)) (func (export "f")))'), "env.g"),
        (assemble('(module (import "env" "nobody" (func)) (func (export "f")))'), "env.nobody"),
        (assemble('(module (import "env" "e" (tag)) (func (export "f")))'), "env.e"),
        (assemble('(module (import "env" "gc" (func (param anyref))) (func (export "f")))'), "env.gc"),
        (assemble(f'(module (import "{WASI}" "fd_write" (func (param i32))) (func (export "f")))'), "fd_write"),
        (assemble('(module (import "wasi_unstable" "fd_write" (func (param i32 i32 i32 i32) (result i32))))'), "wasi_unstable"),
    ],
    ids=lambda v: v if isinstance(v, str) else "",
)
def test_what_is_not_supported_is_refused_by_name_and_leaves_nothing(wasm: bytes, name: str, tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match=name):
        record(wasm, tmp_path / "a.trace", lambda target: None)
    assert not (tmp_path / "a.trace").exists()


@pytest.mark.parametrize(
    ("name", "export", "bits"),
    [
        ("f32", "f32bits", 0x7FA0_0001),
        ("f32", "f32bits", 0x8000_0000),
        ("f64", "f64bits", 0xFFF4_0000_0000_0001),
        ("f64", "f64bits", 1),
        ("v128", "vlow", (0x7FF0_0000_0000_0001 << 64) | 5),
    ],
)
@pytest.mark.parametrize("inside", [True, False])
def test_a_global_is_set_to_any_bits(name: str, export: str, bits: int, inside: bool, tmp_path: Path) -> None:
    def change(target: Guest) -> None:
        target.set_global(name, bits if name == "v128" else Bits(bits))
        kept = target.get_global(name)
        assert (kept if name == "v128" else kept.bits) == bits

    def act(target: Guest, node: int) -> int:
        change(target)
        return 0

    def drive(target: Guest) -> list[int]:
        if inside:
            target.call("go", 1)
        else:
            change(target)
        return target.call_raw(export, [])

    hosts = [host("act", "i32 -> i32", act)]
    recorded = record(scripted_guest(), tmp_path / "a.trace", drive, hosts=hosts, watch=True)
    assert recorded.outcome.kind == "returned", recorded.outcome
    assert recorded.value == [bits >> 64 if name == "v128" else bits]
    check(recorded)


# -- reactors, and embedders that poke ---------------------------------------------------------------------------------


def test_a_reactor_called_in_sequence(tmp_path: Path) -> None:
    def drive(target: Guest) -> list[Any]:
        target.call("_initialize")
        found: list[Any] = [target.call("add", 3, -4), target.call("count"), target.call("count")]
        place = target.call("alloc", 300)
        target.write(place, bytes(range(150)))
        found += [target.call("sum", place, 150), target.read(place, 4)]
        target.write(place + 2, b"\xff")
        found += [target.call("sum", place, 150), target.call("seed") != 0, target.call("stamp") > 0, target.call("count")]
        target.call("free", place)
        return found

    recorded = record(guest("reactor"), tmp_path / "a.trace", drive, slot_size=8192, watch=True)
    assert recorded.value == [-1, 1, 2, sum(range(150)), b"\0\1\2\3", sum(range(150)) + 253, True, True, 3]
    check(recorded)
    elsewhere(recorded, tmp_path)


def test_pokes_are_the_only_input(tmp_path: Path) -> None:
    wasm = guest("allocator_run")
    native = Native(wasm)
    native.link()
    data = bytes(b"The quick brown fox " * 5000)
    (place,) = native.call("alloc", len(data)).values
    native.write(place, data)
    expected = native.call("run", place, len(data))

    def drive(target: Guest) -> list[int]:
        (at,) = target.call_raw("alloc", [len(data)])
        target.write(at, data)
        found = target.call_raw("run", [at, len(data)])
        assert target.read(at, 30)
        return found

    recorded = record(wasm, tmp_path / "a.trace", drive, slot_size=8192, watch=True)
    assert tuple(recorded.value) == expected.values
    assert recorded.memories == [native.memory()]
    check(recorded)
    elsewhere(recorded, tmp_path)


@pytest.mark.parametrize(
    "data",
    [
        b"bytes",
        bytearray(b"bytearray"),
        memoryview(b"memoryview"),
        memoryview(array.array("I", [1, 2, 3, 0xFFFF_FFFF])),
        memoryview(b"every second one")[::2],
        memoryview(bytearray(24)).cast("B", (4, 6)),
    ],
    ids=["bytes", "bytearray", "memoryview", "of integers", "with strides", "in two dimensions"],
)
def test_anything_with_bytes_can_be_written(data: Any, tmp_path: Path) -> None:
    wasm = assemble('(module (memory (export "memory") 1) (func (export "get") (result i64) (i64.load (i32.const 64))))')
    plain_bytes = memoryview(data).tobytes()

    def drive(target: Guest) -> bytes:
        target.write(64, data)
        target.call("get")
        return target.read(64, len(plain_bytes) + 8)

    recorded = record(wasm, tmp_path / "a.trace", drive, watch=True)
    assert recorded.outcome.kind == "returned", recorded.outcome
    assert recorded.value == plain_bytes + bytes(8)
    check(recorded)


def test_a_guest_kept_beyond_its_call_raises(tmp_path: Path) -> None:
    kept: list[Guest] = []

    def act(target: Guest, node: int) -> int:
        if node == 1:
            kept.append(target)
            with pytest.raises(RuntimeError, match="outer host call"):
                embedder[0].read(0, 1)
            target.call("go", 2)
        elif node == 2:
            with pytest.raises(RuntimeError, match="outer host call"):
                kept[0].write(0, b"x")
        return 0

    embedder: list[Guest] = []

    def drive(target: Guest) -> None:
        embedder.append(target)
        target.call("go", 1)
        for use in (
            lambda: kept[0].read(0, 1),
            lambda: kept[0].write(0, b"x"),
            lambda: kept[0].grow(1),
            lambda: kept[0].call("bump", 1),
            lambda: kept[0].set_global("i32", 1),
            lambda: kept[0].table_set("table", 0, None),
        ):
            with pytest.raises(RuntimeError, match="has returned"):
                use()

    recorded = record(scripted_guest(), tmp_path / "a.trace", drive, hosts=[host("act", "i32 -> i32", act)], watch=True)
    assert recorded.outcome.kind == "returned", recorded.outcome
    check(recorded)


def test_what_a_host_wrote_around_its_guest_is_seen_by_observing(tmp_path: Path) -> None:
    def act(target: Guest, node: int) -> int:
        memory = target._session.memories[0]
        with target.observing():
            memory.write(9000, b"around the facade")
            target.call("bump", 1)
        return 0

    hosts = [host("act", "i32 -> i32", act)]
    recorded = record(scripted_guest(), tmp_path / "a.trace", calls(("go", [1])), hosts=hosts)
    assert recorded.memories[0][9000:9006] == b"around"
    check(recorded)


@pytest.mark.parametrize("answer", [None, "text", 1.5, 1 << 40, (1, 2), [], b"x"])
def test_a_wrong_answer_of_a_host_traps_and_replays(answer: Any, tmp_path: Path) -> None:
    def act(target: Guest, node: int) -> Any:
        target.write(500, b"before")
        return answer

    hosts = [host("act", "i32 -> i32", act)]
    recorded = record(scripted_guest(), tmp_path / "a.trace", lambda target: target.call("go", 1), hosts=hosts, watch=True)
    assert recorded.outcome.kind == "trap"
    assert "TypeError" in recorded.outcome.message
    check(recorded)


# -- commands ----------------------------------------------------------------------------------------------------------


def command(name: str, place: Path, argv: tuple[str, ...] = ()) -> tuple[harness.Recorded, dict[str, Any], bytes]:
    """Runs a command in a native process that never saw the recorder, and recorded; gives both."""
    place.mkdir(exist_ok=True)
    for which in ("native", "recorded"):
        (place / which).mkdir()
    (place / "stdin").write_bytes(b"one line\nand another\n" * 20)
    done = subprocess.run(
        [
            sys.executable,
            "tests/native.py",
            str(GUESTS / f"{name}.wasm"),
            str(place / "native"),
            str(place / "stdin"),
            name,
            *argv,
        ],
        cwd=ROOT,
        capture_output=True,
        check=True,
        timeout=60,
        env={"PATH": "/usr/bin", "PYTHONPATH": str(ROOT)},
    )
    report: dict[str, Any] = json.loads(done.stderr.splitlines()[-1])
    invocation = Invocation((name, *argv), preopens=(Preopen(place / "recorded", "/work"),), stdin=place / "stdin")
    with redirected(place / "out", place / "err"):
        recorded = record(guest(name), place / "a.trace", calls(("_start", [])), invocation=invocation, watch=True)
    return recorded, report, done.stdout


@pytest.mark.parametrize("name", ["clock_random_file", "read_stdin", "mixed_loop", "word_count", "pipe_writer", "big_write"])
def test_a_command_is_the_same_as_in_a_native_process(name: str, tmp_path: Path) -> None:
    argv = ("5",) if name in ("mixed_loop", "pipe_writer", "big_write") else ()
    recorded, report, stdout = command(name, tmp_path / "run", argv)
    assert report["loaded"] == [], "the native run loaded the recorder"
    end = recorded.value[0]
    assert [end.kind, list(end.values), end.code] == report["ended"]
    written = (tmp_path / "run" / "out").read_bytes()
    if name in ("clock_random_file", "mixed_loop", "word_count"):  # they print times and random numbers
        assert written.split()[:1] == stdout.split()[:1]
    else:
        assert written == stdout
    if name in ("read_stdin", "big_write"):
        assert report["memory"] == harness.sha256(recorded.memories[0])
    for path in (tmp_path / "run" / "recorded", tmp_path / "run" / "stdin"):
        path.rename(tmp_path / f"gone-{path.name}")
    check(recorded)
    elsewhere(recorded, tmp_path)


def test_the_command_line_way_of_running_is_the_same(tmp_path: Path) -> None:
    """`Recording.run` with an invocation, as the command line does it: `_initialize` first, exports in order."""
    invocation = Invocation(("reactor",), calls=(Call("add", ("3", "4")), Call("count"), Call("count")))
    recording = Recording(Source(guest("reactor"), "reactor", "test"), Options(out=tmp_path / "a.trace", invocation=invocation))
    assert recording.run().kind == "returned"
    assert harness.kinds(tmp_path / "a.trace")["EXPORT"] == 4
    assert harness.verdict_of(tmp_path / "a.trace").kind == "identical"


# -- stacks ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["deep_recursion", "deep_recursion_clock"])
def test_an_exhausted_stack_in_the_guest_and_through_imports(name: str, tmp_path: Path) -> None:
    native = Native(guest(name))
    native.link()
    assert native.call("_start") == Ended("trap", code=0)
    recorded = record(guest(name), tmp_path / "a.trace", lambda target: target.call("_start"))
    assert recorded.outcome.kind == "stack"
    verdict = harness.verdict_of(recorded.directory)
    assert verdict.kind in ("identical", "incomplete"), verdict.lines("TRACE")
    if name == "deep_recursion":
        assert verdict.kind == "identical"
        assert recorded.memories == [native.memory()], "the guest got deeper, or less deep, than natively"
    elsewhere(recorded, tmp_path, verdict.kind)


@pytest.mark.parametrize("caught", [0, 1, 50])
@pytest.mark.parametrize("frames", [0, 10])
def test_an_exhausted_stack_through_callbacks(caught: int, frames: int, tmp_path: Path) -> None:
    """`caught`: the depth at which a host catches it (0: nobody does). `frames`: how many Python frames each level takes more."""

    def at(extra: int, target: Guest, depth: int) -> int:
        if extra:
            return at(extra - 1, target, depth)
        try:
            return int(target.call("again", depth + 1))
        except Exception:
            if depth != caught:
                raise
            target.write(100, b"caught")
            return -1

    hosts = [host("call_me", "i32 -> i32", lambda target, depth: at(frames, target, depth))]
    recorded = record(guest("deep_recursion_import"), tmp_path / "a.trace", lambda target: target.call("_start"), hosts=hosts)
    assert recorded.outcome.kind == ("returned" if caught else "stack"), recorded.outcome
    depth = int.from_bytes(recorded.memories[0][:4], "little")
    assert depth > 100
    verdict = harness.verdict_of(recorded.directory)
    assert verdict.kind in ("identical", "incomplete"), verdict.lines("TRACE")
    elsewhere(recorded, tmp_path, verdict.kind)


@pytest.mark.parametrize("frames", [35, 60, 150])
@pytest.mark.parametrize("caught", [0, 3, 25])
def test_the_interpreters_own_limit_is_an_exception_like_any_other(frames: int, caught: int, tmp_path: Path) -> None:
    """Hosts with deep stacks of their own run into Python's limit before the guest's stack ends: raised, never dropped."""

    def at(extra: int, target: Guest, depth: int) -> int:
        if extra:
            return at(extra - 1, target, depth)
        try:
            return int(target.call("again", depth + 1))
        except Exception:
            if depth != caught:
                raise
            target.write(100, b"caught")
            return -1

    hosts = [host("call_me", "i32 -> i32", lambda target, depth: at(frames, target, depth))]
    recorded = record(guest("deep_recursion_import"), tmp_path / "a.trace", lambda target: target.call("_start"), hosts=hosts)
    assert recorded.outcome.kind == ("returned" if caught else "trap"), recorded.outcome
    if not caught:
        assert "RecursionError" in recorded.outcome.message
    check(recorded)


# -- memories and engines ----------------------------------------------------------------------------------------------


def test_a_growth_the_operating_system_refuses_is_refused_again(tmp_path: Path) -> None:
    wasm = assemble(
        """(module (import "env" "act" (func $act (param i32) (result i32)))
        (memory (export "memory") 1 50) (memory (export "b") 1 50)
        (func (export "grow") (param i32) (result i32) (memory.grow 0 (local.get 0)))
        (func (export "growb") (param i32) (result i32) (memory.grow 1 (local.get 0)))
        (func (export "go") (result i32) (i32.add (memory.grow 0 (i32.const 1)) (call $act (i32.const 1)))))"""
    )
    real, refuse = memories._libc.mprotect, [False]

    def mprotect(*args: Any) -> int:
        return -1 if refuse[0] else int(real(*args))

    def act(target: Guest, _: int) -> int:
        refuse[0] = True
        found = [target.grow(1), target.call("grow", 1), target.grow(1, "b")]
        refuse[0] = False
        return int(target.grow(2) + sum(found))

    def drive(target: Guest) -> list[Any]:
        found = [target.call("grow", 1)]
        refuse[0] = True
        found += [target.call("grow", 1), target.call("growb", 1), target.grow(1)]
        refuse[0] = False
        return [*found, target.call("grow", 1), target.call("go"), target.call("growb", 1), target.memory_size()]

    with mock.patch.object(memories._libc, "mprotect", mprotect):
        recorded = record(wasm, tmp_path / "a.trace", drive, hosts=[host("act", "i32 -> i32", act)], watch=True)
    assert recorded.value == [1, -1, -1, -1, 2, 3 + 4 - 3, 1, 6 * PAGE]
    assert harness.kinds(recorded.directory)["GROW_FAILED"] == 6
    check(recorded)
    elsewhere(recorded, tmp_path)


def test_collected_values_do_not_hide_the_memory(tmp_path: Path) -> None:
    """The engine makes the heap of collected values through the same creator as memories."""
    wasm = assemble(
        """(module (type $s (struct (field (mut i32)))) (type $a (array (mut i8)))
        (import "env" "act" (func $act (param i32) (result i32)))
        (global $g (mut (ref $s)) (struct.new $s (i32.const 7)))
        (memory $first (export "first") 1) (memory $m (export "memory") 2) (data (memory $m) (i32.const 8) "data")
        (table (export "externs") 2 externref)
        (func (export "run") (param i32) (result i32) (local $n i32)
          (loop $l (global.set $g (struct.new $s (local.get $n)))
            (drop (array.new $a (i32.const 1) (i32.const 1000)))
            (br_if $l (i32.lt_u (local.tee $n (i32.add (local.get $n) (i32.const 1))) (local.get 0))))
          (i32.store $m (i32.const 0) (local.get $n))
          (i32.add (call $act (local.get 0)) (struct.get $s 0 (global.get $g)))))"""
    )

    def act(target: Guest, n: int) -> int:
        target.write(100, b"here", "memory")
        target.table_set("externs", 0, object())
        return n

    hosts = [host("act", "i32 -> i32", act)]
    recorded = record(wasm, tmp_path / "a.trace", calls(("run", [5]), ("run", [3000])), hosts=hosts, watch=True)
    assert [e.kind for e in recorded.value] == ["returned"] * 2
    assert [len(m) for m in recorded.memories] == [PAGE, 2 * PAGE]
    assert recorded.memories[1][8:12] == b"data"
    assert recorded.memories[1][100:104] == b"here"
    assert recorded.memories[1][:4] == struct.pack("<I", 3000)
    check(recorded)
    elsewhere(recorded, tmp_path)


EXCEPTIONS = """(module (tag $t (param i32)) (import "env" "act" (func $act (param i32) (result i32)))
  (memory (export "memory") 1)
  (func (export "throw") (param i32) (result i32) (i32.store (i32.const 4) (local.get 0)) (throw $t (local.get 0)))
  (func (export "go") (param i32) (result i32)
    (block $h (result i32)
      (try_table (result i32) (catch $t $h) (call $act (local.get 0)))
      (return))
    (i32.add (i32.const 1000)))
  (func (export "inside") (param i32) (result i32)
    (block $h (result i32) (try_table (catch $t $h) (throw $t (local.get 0))) (i32.const 0))))"""


def test_exceptions_of_the_guest(tmp_path: Path) -> None:
    def act(target: Guest, n: int) -> int:
        if n == 1:
            target.write(64, b"before")
            return int(target.call("throw", 5))
        try:
            return int(target.call("throw", 6))
        except Exception:
            target.write(64, b"caught")
            return n

    wanted = [("inside", [8]), ("go", [2]), ("throw", [3]), ("go", [1]), ("inside", [9])]
    hosts = [host("act", "i32 -> i32", act)]
    recorded = record(assemble(EXCEPTIONS), tmp_path / "a.trace", calls(*wanted), hosts=hosts, watch=True)
    ends: list[Ended] = recorded.value
    assert [e.values for e in ends if e.kind == "returned"] == [(8,), (2,), (9,)], ends
    assert [e.kind for e in ends] == ["returned", "returned", "trap", "trap", "returned"]
    check(recorded)
    elsewhere(recorded, tmp_path)


def test_tail_calls_and_simd(tmp_path: Path) -> None:
    wasm = assemble(
        """(module (import "env" "tick" (func $tick (param i64) (result i64))) (memory (export "memory") 1)
        (func $down (param i64 i64) (result i64)
          (if (result i64) (i64.eqz (local.get 0)) (then (return_call $tick (local.get 1)))
            (else (return_call $down (i64.sub (local.get 0) (i64.const 1)) (i64.add (local.get 1) (i64.const 3))))))
        (func (export "run") (param i64) (result i64)
          (v128.store (i32.const 16) (i32x4.relaxed_trunc_f32x4_s (f32x4.splat (f32.const nan))))
          (v128.store (i32.const 32) (f32x4.mul (f32x4.splat (f32.const inf)) (f32x4.splat (f32.const 0))))
          (f64.store (i32.const 48) (f64.sub (f64.const inf) (f64.const inf)))
          (return_call $down (local.get 0) (i64.const 0))))"""
    )
    both(wasm, {"tick": ("i64 -> i64", *plain(lambda x: x * 2))}, [("run", [100_000])], tmp_path)


def test_many_imports_and_many_memories(tmp_path: Path) -> None:
    imports = "".join(f'(import "env" "f{n % 7}" (func $f{n} (param i32) (result i32)))' for n in range(300))
    memory = "".join(f'(memory $m{n} (export "m{n}") 1)' for n in range(20))
    body = "".join(f"(i32.store $m{n % 20} (i32.const {4 * n}) (call $f{n} (i32.const {n})))" for n in range(300))
    wasm = assemble(f'(module {imports} {memory} (func (export "run") {body}))')

    def f(target: Guest, n: int) -> int:
        target.write(40_000 + n, b"here", f"m{n % 20}")
        return n * n

    hosts = [host(f"f{k}", "i32 -> i32", f) for k in range(7)]
    recorded = record(wasm, tmp_path / "a.trace", calls(("run", [])), hosts=hosts, slot_size=8192, watch=True)
    assert recorded.value == [Ended("returned")]
    for n in range(300):
        assert recorded.memories[n % 20][4 * n : 4 * n + 4] == struct.pack("<I", n * n)
    check(recorded)
    elsewhere(recorded, tmp_path)


def test_a_memory64_grown_towards_four_gigabytes(tmp_path: Path) -> None:
    """Whether the address space is there or not, the recording says so and the replay repeats it."""
    wasm = assemble(
        """(module (import "env" "act" (func $act (param i64) (result i64))) (memory (export "memory") i64 1)
        (func (export "run") (param i64) (result i64) (drop (call $act (local.get 0))) (i64.load (local.get 0))))"""
    )
    at = (4 << 30) - 4
    seen: list[int] = []

    def act(target: Guest, address: int) -> int:
        seen.append(target.grow(PAGE))
        if seen[-1] < 0:
            raise HostTrap("no such memory here")
        target.write(address, b"12345678")
        return 0

    recorded = record(wasm, tmp_path / "a.trace", calls(("run", [at])), hosts=[host("act", "i64 -> i64", act)])
    verdict = harness.verdict_of(recorded.directory)
    assert verdict.kind == "identical", verdict.lines("TRACE")


def test_the_host_catches_a_trap_raised_by_itself(tmp_path: Path) -> None:
    def act(target: Guest, node: int) -> int:
        if node == 2:
            raise HostTrap("inner")
        with pytest.raises(HostTrap, match="inner"):
            target.call("go", 2)
        return 5

    hosts = [host("act", "i32 -> i32", act)]
    recorded = record(scripted_guest(), tmp_path / "a.trace", calls(("go", [1])), hosts=hosts, watch=True)
    assert recorded.value == [Ended("returned", (10,))]
    assert [Kind(r.kind).name for r in Forged(recorded.directory).rows].count("TRAP") == 1
    check(recorded)
