"""Lines and functions, against the sources and against what the engine says of running code."""

from __future__ import annotations

from pathlib import Path

import pytest
import wasmtime

from recorder.wasm.module import CODE, Module, parse_module
from replayer.source.debuginfo import DebugInfo, open_source
from replayer.source.lines import join_path
from traces._errors import UsageError

GUESTS = Path(__file__).resolve().parents[1] / "guests"
C = "debug_types.c"
UNOPTIMISED = ("debug_types_O0_4", "debug_types_O0_5")
OPTIMISED = ("debug_types_O2_4", "debug_types_O2_5")
SOURCE = (GUESTS / C).read_text().splitlines()


def load(name: str) -> tuple[Module, DebugInfo]:
    module = parse_module((GUESTS / f"{name}.wasm").read_bytes())
    info = open_source(module)
    assert info is not None
    return module, info


def calls(module: Module, export: str, *arguments: int) -> list[list[int]]:
    """The stacks, as pcs of the guest with the innermost first, of the calls of `stop`, by a `stop` that traps."""
    section = module.section(CODE)
    assert section is not None
    engine = wasmtime.Engine()
    guest = wasmtime.Module(engine, module.data)
    found: list[list[int]] = []
    while True:
        store = wasmtime.Store(engine)
        trap = wasmtime.Module(
            engine,
            f"""(module (global $left (mut i32) (i32.const {len(found)})) (func (export "stop") (param i32)
            (if (i32.eqz (global.get $left)) (then unreachable))
            (global.set $left (i32.sub (global.get $left) (i32.const 1)))))""",
        )
        stop = wasmtime.Instance(store, trap, []).exports(store)["stop"]
        assert isinstance(stop, wasmtime.Func)
        function = wasmtime.Instance(store, guest, [stop]).exports(store)[export]
        assert isinstance(function, wasmtime.Func)
        try:
            function(store, *arguments)
        except wasmtime.Trap as error:
            found.append([frame.module_offset - section.start for frame in error.frames[1:]])
        else:
            return found


def line(info: DebugInfo, pc: int) -> int | None:
    found = info.location(pc)
    return found.line if found is not None else None


@pytest.mark.parametrize("name", UNOPTIMISED + OPTIMISED)
def test_the_pc_of_a_running_call_is_on_the_line_of_the_call(name: str) -> None:
    module, info = load(name)
    stacks = calls(module, "run", 2000)  # 2000: multiplies, so that nothing stops in the loop
    assert [line(info, stack[0]) for stack in stacks] == [91, 95, 98, 99]
    assert all("stop(" in SOURCE[(line(info, stack[0]) or 0) - 1] for stack in stacks)
    for stack in stacks:
        function = info.function(stack[0])
        assert function is not None and (function.name, function.file, function.line) == ("run", C, 68)


@pytest.mark.parametrize("name", UNOPTIMISED + OPTIMISED)
def test_a_line_starts_before_its_call_and_covers_it(name: str) -> None:
    module, info = load(name)
    for (pc,), number in zip(calls(module, "run", 2000), (91, 95, 98, 99), strict=True):
        starts = info.line_starts(C, number)
        assert starts == sorted(set(starts)) and starts[0] <= pc
        assert all(line(info, start) == number for start in starts)
        ranges = info.ranges_of_line(pc)
        assert any(low <= pc < high for low, high in ranges)
        assert all(line(info, low) == line(info, high - 1) == number for low, high in ranges)
        assert all(line(info, high) != number for _, high in ranges)


def test_a_line_with_several_pieces_of_code_starts_several_times() -> None:
    _, info = load("debug_types_O0_4")
    loop = info.line_starts(C, 60)
    assert len(loop) >= 2  # the beginning and the step of a for loop are apart
    assert len(info.ranges_of_line(loop[0])) == len(loop)


@pytest.mark.parametrize("name", UNOPTIMISED + OPTIMISED)
def test_functions(name: str) -> None:
    module, info = load(name)
    section = module.section(CODE)
    assert section is not None
    ends = {body.end - section.start for body in module.code}
    found = {function.name: function for function in info.functions()}
    assert {"run": 68, "apply": 58, "add": 51, "multiply": 53, "square_sum": 103}.items() <= {
        key: function.line for key, function in found.items()
    }.items()
    for function in found.values():
        assert function.high in ends
        assert info.function(function.low) == info.function(function.high - 1) == function
        assert (function.file, function.linkage_name, function.qualified_name) == (C, None, function.name)
    assert info.function(0) is None and info.function(10**9) is None and info.function(-1) is None
    assert info.location(0) is None and info.location(10**9) is None and info.location(-1) is None
    assert info.variables(0) == [] and info.inlined(0) == [] and info.ranges_of_line(0) == []


@pytest.mark.parametrize("name", UNOPTIMISED)
def test_the_prologue_ends_at_the_first_statement(name: str) -> None:
    _, info = load(name)
    found = {function.name: function for function in info.functions()}
    for function, expected in (("run", 69), ("apply", 59), ("multiply", 54), ("square_sum", 104)):
        pc = info.prologue_end(found[function])
        assert pc is not None and pc > found[function].low and line(info, pc) == expected


@pytest.mark.parametrize("name", OPTIMISED)
def test_inlined_calls(name: str) -> None:
    module, info = load(name)
    ((pc,),) = calls(module, "square_sum", 3, 4)
    assert line(info, pc) == 105 and info.inlined(pc) == []
    function = info.function(pc)
    assert function is not None and function.name == "square_sum"
    inside = [
        (inlined[0].name, inlined[0].call_file, inlined[0].call_line, inlined[0].call_column)
        for at in range(function.low, function.high)
        if (inlined := info.inlined(at))
    ]
    assert set(inside) == {("multiply", C, 104, 17), ("multiply", C, 106, 18)}
    first = next(at for at in range(function.low, function.high) if info.inlined(at))
    at = info.inlined(first)[0].high - 1
    call = info.inlined(at)[0]
    assert call.low <= at < call.high and (call.low, call.high) in call.ranges and line(info, at) == 54
    scopes = {(found.name, found.depth, found.inlined_in) for found in info.variables(at)}
    assert {("a", 1, "multiply"), ("product", 1, "multiply"), ("a", 0, None), ("second", 0, None)} <= scopes
    assert info.variables(at)[0].depth == 1


def test_files_by_any_part_of_their_name() -> None:
    _, info = load("debug_types_O2_4")
    assert info.files == [C]
    assert info.find_file(C) == info.find_file("./" + C) == C
    with pytest.raises(UsageError, match=r"^no source file debug_typos\.c in the debug information; there is debug_types\.c$"):
        info.line_starts("debug_typos.c", 1)
    with pytest.raises(UsageError, match=r"there is debug_types\.c$"):
        info.find_file("zzz")


def test_a_line_without_code_names_the_next_one_with() -> None:
    _, info = load("debug_types_O0_4")
    with pytest.raises(UsageError, match=r"^line 92 of debug_types\.c has no code; the next line that has is 93$"):
        info.line_starts(C, 92)
    with pytest.raises(UsageError, match=r"the last line that has is \d+$"):
        info.line_starts(C, 9_999)


def test_a_file_name_that_fits_several_files_is_refused() -> None:
    _, info = load("debug_types_O0_4")
    info._lines.__dict__["by_file"] = {0: [], 1: [], 2: []}
    info._lines.files[:] = ["/a/main.c", "/b/main.c", "/b/other.c"]
    assert info.find_file("b/main.c") == "/b/main.c"
    with pytest.raises(UsageError, match=r"^main\.c is ambiguous: /a/main\.c, /b/main\.c$"):
        info.find_file("main.c")


def test_the_demo_agent() -> None:
    module = parse_module((GUESTS.parents[1] / "recorder" / "demo" / "agent.wasm").read_bytes())
    info = open_source(module)
    assert info is not None
    assert "agent.c" in info.files
    names = {function.name for function in info.functions()}
    assert "main" in names and info.problems == []


def test_a_module_without_debug_information() -> None:
    assert open_source(parse_module((GUESTS / "reactor.wasm").read_bytes())) is None


@pytest.mark.parametrize("tombstone", [0, 0xFFFFFFFF, 0xFFFFFFFE])
def test_functions_that_the_linker_dropped_are_not_there(tombstone: int) -> None:
    """Their entries stay, at addresses where no code is. Here `add` is made one of them."""
    module, info = load("debug_types_O0_4")
    add = next(function for function in info.functions() if function.name == "add")
    section = next(found for found in module.sections if found.name == ".debug_info")
    at = section.start + add.die.attributes["DW_AT_low_pc"].offset
    assert module.data[at : at + 4] == add.low.to_bytes(4, "little")
    dropped = open_source(parse_module(module.data[:at] + tombstone.to_bytes(4, "little") + module.data[at + 4 :]))
    assert dropped is not None
    assert {function.name for function in info.functions()} - {function.name for function in dropped.functions()} == {"add"}
    assert dropped.function(add.low) is None and dropped.function(add.low - 2) is not None


def test_paths_are_joined_as_the_debug_information_means_them() -> None:
    assert join_path("/src", "include", "a.h") == "/src/include/a.h"
    assert join_path("/src", "/usr/include", "a.h") == "/usr/include/a.h"
    assert join_path("/src", "", "./x/../a.c") == "/src/a.c"
    assert join_path(".", "a.c") == "a.c"
    assert join_path("C:\\src", "D:\\a.c") == "D:\\a.c"
