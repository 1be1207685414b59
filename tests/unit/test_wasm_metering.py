"""The instruction clock: counts by hand, exact stops, and guests that do not notice."""

from __future__ import annotations

import ctypes
import importlib.util
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import wasmtime
from wasmtime._bindings import wasmtime_config_wasm_branch_hinting_set

from recorder.wasm.binary import Reader, WasmError, custom_section
from recorder.wasm.metering import NO_LIMIT, STOP_WORD, STOPPED_FLAG, Metered, meter
from recorder.wasm.module import CODE, EXPORT, GLOBAL, MEMORY, START, parse_module

GUESTS = sorted((Path(__file__).parents[1] / "guests").glob("*.wasm"))


def engine() -> wasmtime.Engine:
    config = wasmtime.Config()
    config.wasm_multi_memory = True
    config.wasm_memory64 = True
    config.wasm_tail_call = True
    config.wasm_function_references = True
    config.wasm_gc = True
    config.wasm_exceptions = True
    config.wasm_threads = True
    config.wasm_relaxed_simd = True
    config.wasm_wide_arithmetic = True
    config.wasm_custom_page_sizes = True
    wasmtime_config_wasm_branch_hinting_set(config.ptr(), True)
    return wasmtime.Engine(config)


ENGINE = engine()


def wat(text: str) -> bytes:
    return bytes(wasmtime.wat2wasm(text))


@dataclass
class Guest:
    """One instance of a metered module."""

    metered: Metered
    imports: list[wasmtime.Func] = field(default_factory=list)
    limit: int = NO_LIMIT
    store: wasmtime.Store = field(default_factory=lambda: wasmtime.Store(ENGINE))

    def __post_init__(self) -> None:
        module = wasmtime.Module(ENGINE, self.metered.data)
        self.exports = wasmtime.Instance(self.store, module, self.imports).exports(self.store)
        self.set_limit(self.limit)

    def memory(self, name: str) -> wasmtime.Memory:
        found = self.exports[name]
        assert isinstance(found, wasmtime.Memory)
        return found

    @property
    def stop_address(self) -> int:
        pointer = self.memory(self.metered.stop_export).data_ptr(self.store)
        return ctypes.addressof(pointer.contents)

    def set_limit(self, limit: int) -> None:
        ctypes.c_int64.from_address(self.stop_address + STOP_WORD).value = limit

    @property
    def stopped(self) -> bool:
        return ctypes.c_int32.from_address(self.stop_address + STOPPED_FLAG).value == 1

    @property
    def clock(self) -> int:
        found = self.exports[self.metered.clock_export]
        assert isinstance(found, wasmtime.Global)
        return int(found.value(self.store))

    def call(self, name: str, *args: object) -> object:
        found = self.exports[name]
        assert isinstance(found, wasmtime.Func)
        return found(self.store, *args)

    def stops(self, name: str, *args: object) -> int:
        """Call an export that must be stopped; the clock at which it was."""
        with pytest.raises(wasmtime.Trap, match="unreachable"):
            self.call(name, *args)
        assert self.stopped
        return self.clock


COUNTED: list[tuple[str, str, tuple[int, ...], object, int]] = [
    ("straight line", "(func (export $f) (result i32) (i32.add (i32.const 1) (i32.const 2)))", (), 3, 3),
    ("empty", "(func (export $f))", (), None, 0),
    ("return", "(func (export $f) (result i32) (return (i32.const 4)) (i32.const 5))", (), 4, 2),
    # block, const, br: 3; the drop after the block: 1; nothing of the dead code
    ("br", "(func (export $f) (drop (block (result i32) (br 0 (i32.const 1)) (i32.const 9))))", (), None, 4),
    (
        "br to the function",
        "(func (export $f) (result i32) (block (br 1 (i32.const 6))) i32.const 7)",
        (),
        6,
        3,
    ),
    # local.get, if, const (then) = 3; the else arm has two more
    (
        "then",
        "(func (export $f) (param i32) (result i32)"
        " (if (result i32) (local.get 0) (then (i32.const 1)) (else (i32.const 2) (i32.const 3) i32.add)))",
        (1,),
        1,
        3,
    ),
    (
        "else",
        "(func (export $f) (param i32) (result i32)"
        " (if (result i32) (local.get 0) (then (i32.const 1)) (else (i32.const 2) (i32.const 3) i32.add)))",
        (0,),
        5,
        5,
    ),
    (
        "if without else",
        "(func (export $f) (param i32) (if (local.get 0) (then nop nop)) nop)",
        (0,),
        None,
        3,
    ),
    # loop once, then per round: local.get, const, sub, local.tee, br_if
    (
        "loop",
        "(func (export $f) (param i32) (loop (br_if 0 (local.tee 0 (i32.sub (local.get 0) (i32.const 1))))))",
        (10,),
        None,
        1 + 10 * 5,
    ),
    # three blocks, local.get, br_table; a nop after each end
    (
        "br_table",
        "(func (export $f) (param i32) block block block local.get 0 br_table 0 1 2 end nop end nop end nop)",
        (1,),
        None,
        5 + 2,
    ),
    (
        "br_table to the function",
        "(func (export $f) (param i32) block block local.get 0 br_table 0 2 1 end nop end nop)",
        (1,),
        None,
        4,
    ),
    # caller: const, call, const, add; callee: local.get, const, mul
    (
        "call",
        "(func $g (param i32) (result i32) (i32.mul (local.get 0) (i32.const 3)))"
        "(func (export $f) (result i32) (i32.add (call $g (i32.const 5)) (i32.const 1)))",
        (),
        16,
        4 + 3,
    ),
    (
        "call_indirect",
        "(table funcref (elem $g)) (func $g (result i32) i32.const 5)"
        "(func (export $f) (result i32) (call_indirect (result i32) (i32.const 0)))",
        (),
        5,
        3,
    ),
    # per level: local.get, if, local.get, const, sub, return_call; at the bottom: local.get, if, const
    (
        "tail call",
        "(func $g (export $f) (param i32) (result i32) (if (local.get 0)"
        " (then (return_call $g (i32.sub (local.get 0) (i32.const 1))))) (i32.const 8))",
        (4,),
        8,
        4 * 6 + 3,
    ),
    (
        "call_ref",
        "(type $t (func (result i32))) (elem declare func $g) (func $g (type $t) i32.const 2)"
        "(func (export $f) (result i32) (call_ref $t (ref.func $g)))",
        (),
        2,
        3,
    ),
    ("br_on_null", "(func (export $f) (block (br_on_null 0 (ref.null func)) drop) nop)", (), None, 4),
    (
        "br_on_cast",
        "(func (export $f) (drop (block (result (ref i31)) "
        "(br_on_cast 0 anyref (ref i31) (ref.i31 (i32.const 1))) nop unreachable)))",
        (),
        None,
        5,
    ),
    # try_table, block, const, throw; then drop at the landing
    (
        "catch in the same function",
        "(tag $e (param i32)) (func (export $f) (result i32)"
        " (block (result i32) (try_table (catch $e 0) (throw $e (i32.const 3))) (i32.const 1)))",
        (),
        3,
        4,
    ),
    # f: block, try_table, call; g: nop, const, throw; f: const, add
    (
        "catch from a callee",
        "(tag $e (param i32)) (func $g nop (throw $e (i32.const 3)))"
        "(func (export $f) (result i32) (i32.add (i32.const 10)"
        " (block (result i32) (try_table (catch $e 0) (call $g)) (i32.const 1))))",
        (),
        13,
        1 + 3 + 3 + 1,
    ),
    # the block that is a landing is also left by a plain branch: const, block, br_if (not taken), ...
    (
        "landing reached by a branch",
        "(tag $e) (func $g (param i32) (if (local.get 0) (then (throw $e))))"
        "(func (export $f) (param i32 i32)"
        " (block (br_if 0 (local.get 0)) (try_table (catch $e 0) (call $g (local.get 1))) nop) nop)",
        (1, 0),
        None,
        3 + 1,
    ),
    (
        "landing reached by falling",
        "(tag $e) (func $g (param i32) (if (local.get 0) (then (throw $e))))"
        "(func (export $f) (param i32 i32)"
        " (block (br_if 0 (local.get 0)) (try_table (catch $e 0) (call $g (local.get 1))) nop) nop)",
        (0, 0),
        None,
        3 + 3 + 2 + 1 + 1,
    ),
    (
        "landing reached by catching",
        "(tag $e) (func $g (param i32) (if (local.get 0) (then (throw $e))))"
        "(func (export $f) (param i32 i32)"
        " (block (br_if 0 (local.get 0)) (try_table (catch $e 0) (call $g (local.get 1))) nop) nop)",
        (0, 1),
        None,
        3 + 3 + 3 + 1,
    ),
    # a catch that lands at a loop head: the second round does not throw
    (
        "landing at a loop",
        "(tag $e) (global $n (mut i32) (i32.const 0))"
        "(func $g (global.set $n (i32.add (global.get $n) (i32.const 1)))"
        " (if (i32.lt_u (global.get $n) (i32.const 3)) (then (throw $e))))"
        "(func (export $f) (loop (try_table (catch $e 0) (call $g) nop)) nop)",
        (),
        None,
        # loop; three times try_table and call; $g: 4 + 4, and throw twice; nop nop
        1 + 3 * 2 + 3 * 8 + 2 + 2,
    ),
    (
        "catch that returns",
        "(tag $e (param i32)) (func (export $f) (result i32)"
        " (try_table (catch $e 0) nop (throw $e (i32.const 3))) (i32.const 1))",
        (),
        3,
        4,
    ),
    # the landing is an if: get, if, try_table, const, throw -> after the if: nop
    (
        "landing at an if",
        "(tag $e) (func (export $f) (param i32) (if (local.get 0) (then (try_table (catch $e 0) nop (throw $e)))) nop)",
        (0,),
        None,
        3,
    ),
    (
        "multi-value",
        "(func (export $f) i32.const 1 i32.const 2 (block (param i32 i32) drop drop))",
        (),
        None,
        5,
    ),
    (
        "dead blocks",
        "(func (export $f) return (block (loop (if (i32.const 1) (then br 1) (else))) br 0))",
        (),
        None,
        1,
    ),
    (
        "memory64",
        "(memory i64 1) (func (export $f) (result i32) (i32.store (i64.const 8) (i32.const 4)) (i32.load (i64.const 8)))",
        (),
        4,
        5,
    ),
    (
        "simd",
        "(func (export $f) (result i32) (i32x4.extract_lane 1 (i32x4.add"
        " (v128.const i32x4 1 2 3 4) (v128.const i32x4 1 2 3 4))))",
        (),
        4,
        4,
    ),
]


@pytest.mark.parametrize(("text", "args", "result", "count"), [row[1:] for row in COUNTED], ids=[r[0] for r in COUNTED])
def test_counts_by_hand(text: str, args: tuple[int, ...], result: object, count: int) -> None:
    guest = Guest(meter(wat("(module " + text.replace("$f)", '"f")') + ")")))
    assert guest.call("f", *args) == result
    assert guest.clock == count
    guest.set_limit(NO_LIMIT)
    again = Guest(guest.metered)
    again.call("f", *args)
    assert again.clock == count


def test_the_clock_goes_on_from_call_to_call() -> None:
    guest = Guest(meter(wat('(module (func (export "f") nop nop) (func (export "g") nop))')))
    for expected, name in ((2, "f"), (3, "g"), (5, "f")):
        guest.call(name)
        assert guest.clock == expected


def test_the_clock_is_exact_inside_an_import_and_survives_calls_back() -> None:
    metered = meter(
        wat("""(module (import "h" "f" (func $h)) (func (export "back") nop nop nop)
          (func (export "run") nop (call $h) nop))""")
    )
    seen: list[int] = []
    store = wasmtime.Store(ENGINE)
    guest: Guest

    def host() -> None:
        seen.append(guest.clock)
        guest.call("back")
        seen.append(guest.clock)

    guest = Guest(metered, [wasmtime.Func(store, wasmtime.FuncType([], []), host)], store=store)
    guest.call("run")
    assert (seen, guest.clock) == ([2, 5], 6)


def test_the_clock_is_exact_at_the_guests_own_unreachable() -> None:
    guest = Guest(meter(wat('(module (func $g nop unreachable) (func (export "f") nop call $g))')))
    with pytest.raises(wasmtime.Trap):
        guest.call("f")
    assert (guest.clock, guest.stopped) == (4, False)


def test_the_clock_is_never_ahead_at_any_other_trap() -> None:
    guest = Guest(meter(wat('(module (func (export "f") nop (drop (i32.div_u (i32.const 1) (i32.const 0))) nop))')))
    with pytest.raises(wasmtime.Trap):
        guest.call("f")
    assert guest.clock <= 4


def test_a_fresh_instance_stops_at_once() -> None:
    guest = Guest(meter(wat('(module (func (export "f") nop))')), limit=0)
    assert guest.stops("f") == 0


BUSY = """(module (memory (export "memory") 1)
  (func $work (param i32) (result i32)
    (i32.store (i32.and (local.get 0) (i32.const 0xfffc))
      (i32.add (i32.load (i32.const 0)) (local.get 0)))
    (if (result i32) (i32.and (local.get 0) (i32.const 3))
      (then (i32.const 1))
      (else nop nop (i32.const 1))))
  (func (export "spin") (local $i i32)
    (loop (local.set $i (i32.add (local.get $i) (call $work (local.get $i)))) (br 0))))"""


def stop_from_outside(guest: Guest, name: str) -> int:
    """Call an endless export and stop it from another thread; the clock at which it stopped."""
    address = guest.stop_address

    def write() -> None:
        time.sleep(0.02)
        ctypes.c_int64.from_address(address + STOP_WORD).value = 0

    thread = threading.Thread(target=write)
    thread.start()
    try:
        return guest.stops(name)
    finally:
        thread.join()


def test_a_stop_from_outside_can_be_repeated_exactly() -> None:
    metered = meter(wat(BUSY))
    guest = Guest(metered)
    clock = stop_from_outside(guest, "spin")
    assert clock > 0
    again = Guest(metered, limit=clock)
    assert again.stops("spin") == clock
    assert again.memory("memory").read(again.store) == guest.memory("memory").read(guest.store)


@pytest.mark.parametrize("limit", range(60))
def test_every_limit_stops_at_the_first_check_it_has_reached(limit: int) -> None:
    metered = meter(wat(BUSY))
    guest = Guest(metered, limit=limit)
    clock = guest.stops("spin")
    assert limit <= clock < limit + 30
    for nearby in range(limit, clock + 1):
        again = Guest(metered, limit=nearby)
        assert again.stops("spin") == clock
        assert again.memory("memory").read(again.store) == guest.memory("memory").read(guest.store)


@pytest.mark.parametrize(
    "text",
    [
        '(func (export "f") (loop (br 0)))',
        '(func $f (export "f") (return_call $f))',
        '(table funcref (elem $f)) (func $f (export "f") (return_call_indirect (i32.const 0)))',
        '(tag $e) (func (export "f") (loop (try_table (catch $e 0) (throw $e))))',
        '(tag $e) (func $g (throw $e)) (func (export "f") (loop (try_table (catch $e 0) (call $g))))',
        '(func (export "f") (loop (br_on_null 0 (ref.null func)) drop))',
    ],
)
def test_everything_endless_can_be_stopped(text: str) -> None:
    metered = meter(wat(f"(module {text})"))
    clock = stop_from_outside(Guest(metered), "f")
    assert Guest(metered, limit=clock).stops("f") == clock


def test_the_guest_cannot_catch_a_stop() -> None:
    guest = Guest(meter(wat('(module (func (export "f") (loop (try_table (catch_all 0) (loop (br 0))))))')), limit=50)
    assert guest.stops("f") >= 50


def test_a_start_section_becomes_an_export() -> None:
    metered = meter(
        wat("""(module (global $g (mut i32) (i32.const 0)) (start $s)
          (func $s nop (global.set $g (i32.const 1)))
          (func (export "g") (result i32) (global.get $g)))""")
    )
    assert metered.start_export == "reprise:start"
    assert START not in [found.id for found in parse_module(metered.data).sections]
    guest = Guest(metered)
    assert guest.call("g") == 0
    guest.call(metered.start_export)
    assert (guest.call("g"), guest.clock) == (1, 5)


def test_without_a_start_section_there_is_no_such_export() -> None:
    assert meter(wat("(module)")).start_export is None


def test_names_that_are_taken_are_avoided() -> None:
    metered = meter(wat('(module (func (export "reprise:clock") (export "reprise:stop") nop))'))
    assert (metered.clock_export, metered.stop_export) == ("reprise:clock.2", "reprise:stop.2")
    guest = Guest(metered)
    guest.call("reprise:clock")
    assert guest.clock == 1


def test_metering_is_a_pure_function_and_only_appends() -> None:
    data = wat(BUSY)
    metered = meter(data)
    assert meter(bytes(bytearray(data))) == metered
    kept = [
        [module.data[s.offset : s.end] for s in module.sections if s.id not in (GLOBAL, MEMORY, EXPORT, CODE, 0)]
        for module in (parse_module(data), parse_module(metered.data))
    ]
    assert kept[0] == kept[1]
    before, after = parse_module(data), parse_module(metered.data)
    assert after.exports[: len(before.exports)] == before.exports
    assert after.memories[: len(before.memories)] == before.memories


def test_custom_sections_that_hold_code_offsets_go_and_the_others_stay() -> None:
    data = wat("(module (func $f nop))") + custom_section(".debug_line", b"x") + custom_section("producers", b"\0")
    after = parse_module(meter(data).data)
    assert after.custom(".debug_line") is None
    assert after.custom("producers") == b"\0"
    assert dict(after.function_names()) == {0: "f"}


def hints_of(data: bytes) -> list[tuple[int, int, int]]:
    """(function, opcode the hint is on, likely) of each branch hint."""
    module = parse_module(data)
    content = module.custom("metadata.code.branch_hint")
    assert content is not None
    reader, found = Reader(content), []
    for _ in range(reader.count()):
        function = reader.u32()
        body = module.code[function - module.imported.functions]
        for _ in range(reader.count()):
            at = reader.u32()
            found.append((function, data[body.start + at], reader.take(reader.u32())[0]))
    reader.expect_end("hints")
    return found


def test_checks_are_hinted_cold_and_given_hints_are_carried_over() -> None:
    data = wat("""(module (import "h" "f" (func)) (func (param i32)
      (@metadata.code.branch_hint "\\01") (if (local.get 0) (then nop))
      (block (@metadata.code.branch_hint "\\00") (br_if 0 (local.get 0)))))""")
    assert [row[1:] for row in hints_of(data)] == [(0x04, 1), (0x0D, 0)]
    metered = meter(data).data
    assert hints_of(metered) == [(1, 0x04, 0), (1, 0x04, 1), (1, 0x0D, 0)]
    wasmtime.Module.validate(ENGINE, metered)


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (wat("(component)"), "this is a component, not a core module"),
        (wat("(module (func try catch_all end))"), "legacy-exceptions cannot be metered at byte"),
        (wat("(module (tag $t) (func suspend $t))"), "stack-switching cannot be metered at byte"),
    ],
)
def test_what_cannot_be_metered_is_refused_by_name(data: bytes, problem: str) -> None:
    with pytest.raises(WasmError, match=problem):
        meter(data)


@pytest.mark.parametrize("guest", GUESTS, ids=lambda path: path.stem)
def test_metered_guests_are_valid(guest: Path) -> None:
    metered = meter(guest.read_bytes())
    wasmtime.Module.validate(ENGINE, metered.data)


C_PROGRAM = r"""
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
static int compare(const void *a, const void *b) { return *(const int *)a - *(const int *)b; }
static unsigned collatz(unsigned n) { return n == 1 ? 0 : 1 + collatz(n % 2 ? 3 * n + 1 : n / 2); }
int main(void) {
    int *values = malloc(5000 * sizeof *values);
    unsigned x = 1;
    for (int i = 0; i < 5000; i++) { x = x * 1664525 + 1013904223; values[i] = x >> 8; }
    qsort(values, 5000, sizeof *values, compare);
    double sum = 0;
    char text[64];
    for (int i = 0; i < 5000; i++) {
        switch (values[i] % 5) {
            case 0: sum += values[i] / 3.0; break;
            case 1: sum -= collatz(i + 1); break;
            case 3: snprintf(text, sizeof text, "%d:%x", i, values[i]); sum += strlen(text); break;
            default: sum *= 0.999;
        }
    }
    printf("%.9g %d %d\n", sum, values[0], values[4999]);
    return values[7] % 50;
}
"""


def run_wasi(data: bytes, prepare: Callable[[wasmtime.Store, wasmtime.Instance], None], out: Path) -> tuple[int, bytes]:
    """Run a WASI command; its exit code and what it printed."""
    store = wasmtime.Store(ENGINE)
    wasi = wasmtime.WasiConfig()
    wasi.stdout_file = str(out)
    store.set_wasi(wasi)
    linker = wasmtime.Linker(ENGINE)
    linker.define_wasi()
    instance = linker.instantiate(store, wasmtime.Module(ENGINE, data))
    prepare(store, instance)
    start = instance.exports(store)["_start"]
    assert isinstance(start, wasmtime.Func)
    code = 0
    try:
        start(store)
    except wasmtime.ExitTrap as exit_:
        code = exit_.code
    return code, out.read_bytes()


@pytest.mark.toolchain
@pytest.mark.skipif(importlib.util.find_spec("ziglang") is None, reason="ziglang is not installed")
@pytest.mark.parametrize("level", ["-O0", "-O2"])
def test_a_compiled_program_does_not_notice(tmp_path: Path, level: str) -> None:
    source, binary = tmp_path / "guest.c", tmp_path / "guest.wasm"
    source.write_text(C_PROGRAM)
    command = [
        sys.executable,
        "-m",
        "ziglang",
        "cc",
        "-target",
        "wasm32-wasi",
        level,
        str(source),
        "-o",
        str(binary),
    ]
    subprocess.run(command, check=True, timeout=600)
    data = binary.read_bytes()
    metered = meter(data)
    clocks = []

    def no_limit(store: wasmtime.Store, instance: wasmtime.Instance) -> None:
        exports = instance.exports(store)
        memory, clock = exports[metered.stop_export], exports[metered.clock_export]
        assert isinstance(memory, wasmtime.Memory)
        assert isinstance(clock, wasmtime.Global)
        memory.write(store, NO_LIMIT.to_bytes(8, "little"), STOP_WORD)
        clocks.append((store, clock))

    expected = run_wasi(data, lambda _store, _instance: None, tmp_path / "given.txt")
    assert run_wasi(metered.data, no_limit, tmp_path / "metered.txt") == expected
    assert run_wasi(metered.data, no_limit, tmp_path / "again.txt") == expected
    first, second = (clock.value(store) for store, clock in clocks)
    assert first == second > 100_000
