"""Variables of guests that really run, stopped where their source says `stop`; the values are those the source gives."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import wasmtime

from recorder.wasm.module import Module, parse_module
from replayer.source.debuginfo import DebugInfo, Variable, open_source
from replayer.source.units import ZIG
from replayer.source.values import Value

GUESTS = Path(__file__).resolve().parents[1] / "guests"
C = "debug_types.c"
UNOPTIMISED = ("debug_types_O0_4", "debug_types_O0_5")
OPTIMISED = ("debug_types_O2_4", "debug_types_O2_5")


def load(name: str) -> tuple[Module, DebugInfo]:
    module = parse_module((GUESTS / f"{name}.wasm").read_bytes())
    info = open_source(module)
    assert info is not None
    return module, info


class Machine:
    """A frame in a running guest. Unoptimised code keeps its frame base in a local that equals the stack pointer."""

    def __init__(self, memory: wasmtime.Memory, store: wasmtime.Store, locals_: Callable[[int], int | None], pc: int) -> None:
        self._memory, self._store, self._locals = memory, store, locals_
        self.pc = pc

    def local(self, index: int) -> int | None:
        return self._locals(index)

    def operand(self, index: int) -> int | None:
        return None

    def global_(self, index: int) -> int | None:
        return None

    def memory(self, address: int, length: int) -> bytes | None:
        if address + length > self._memory.data_len(self._store):
            return None
        return bytes(self._memory.read(self._store, address, address + length))


def stopped(name: str, line: int, which: int, look: Callable[[DebugInfo, Machine], None], file: str = C) -> None:
    """Run the guest's `run(9)` and look at it at its stop number `which`, which stands in `line`."""
    module, info = load(name)
    store = wasmtime.Store(wasmtime.Engine())
    instance: list[wasmtime.Instance] = []
    seen = 0

    def stop(_: int) -> None:
        nonlocal seen
        seen += 1
        if seen == which:
            exports = instance[0].exports(store)
            memory, pointer = exports["memory"], exports["__stack_pointer"]
            assert isinstance(memory, wasmtime.Memory) and isinstance(pointer, wasmtime.Global)
            base: int = pointer.value(store)
            look(info, Machine(memory, store, lambda _: base, info.line_starts(file, line)[-1]))

    function = wasmtime.Func(store, wasmtime.FuncType([wasmtime.ValType.i32()], []), stop)
    instance.append(wasmtime.Instance(store, wasmtime.Module(store.engine, module.data), [function]))
    run = instance[0].exports(store)["run"]
    assert isinstance(run, wasmtime.Func)
    run(store, 9)
    assert seen >= which


def values(info: DebugInfo, frame: Machine) -> dict[str, Value]:
    """By name; of several variables with one name, the innermost."""
    found: dict[str, Value] = {}
    for variable in info.variables(frame.pc):
        found.setdefault(variable.name, info.read(variable, frame))
    return found


@pytest.mark.parametrize("name", UNOPTIMISED)
def test_every_variable_shows_what_the_source_gave_it(name: str) -> None:
    def look(info: DebugInfo, frame: Machine) -> None:
        found = values(info, frame)
        others = ("text", "where", "list", "part", "packet")  # hold addresses
        assert {key: (value.type_name, value.text) for key, value in found.items() if key not in others} == {
            "seed": ("int", "9"),
            "small": ("signed char", "-7"),
            "letter": ("byte", "65 'A'"),
            "port": ("unsigned short", "65535"),
            "big": ("u64", "18364758544493064720"),
            "negative": ("long long", "-5000000000"),
            "wide": ("unsigned __int128", "1267650600228229401496703205379"),
            "yes": ("_Bool", "true"),
            "third": ("float", "0.25"),
            "pi": ("double", "-3.5"),
            "paint": ("enum color", "GREEN (5)"),
            "odd": ("enum color", "77"),
            "nothing": ("void *", "0x0"),
            "grid": ("int[2][3]", "[[1, 2, 3], [4, 5, 9]]"),
            "word": ("char[6]", '"hey"'),
            "op": ("operation", "function 1 of the table"),
            "large": ("int[150]", "[7, 0, 0, 0, 0, 0, 0, 0, …]"),
            "keep": ("volatile int", "9"),
        }
        assert all(value.status == "ok" for value in found.values())
        assert found["text"].type_name == "const char *"
        assert found["text"].text.endswith(' "hi \\"there\\"\\n"')
        assert found["port"].raw == b"\xff\xff"
        address = found["seed"].address
        assert address is not None and frame.memory(address, 4) == b"\x09\0\0\0"

    stopped(name, 91, 1, look)


@pytest.mark.parametrize("name", UNOPTIMISED)
def test_structs_arrays_and_pointers_open_up(name: str) -> None:
    def look(info: DebugInfo, frame: Machine) -> None:
        found = values(info, frame)
        packet = {child.name: child for child in found["packet"].children}
        assert list(packet) == ["version", "flags", "delta", "label", "name", "corners", "number"]
        assert (packet["version"].text, packet["flags"].text, packet["delta"].text) == ("5", "17", "-100")
        assert packet["delta"].type_name == "int : 9"
        assert packet["name"].text == '"name"'
        assert [corner.text for corner in packet["corners"].children] == ["{x = -1, y = 2}", "{x = 3, y = -4}"]
        assert [part.text for part in packet["number"].children] == ["1078530011", "3.1415927"]
        assert found["packet"].text.startswith("{version = 5, flags = 17, delta = -100, label = 0x")

        assert [cell.text for cell in found["grid"].children[1].children] == ["4", "5", "9"]
        assert found["grid"].children[1].type_name == "int[3]"
        (pointee,) = found["where"].children
        assert (pointee.name, pointee.type_name, pointee.text) == ("*where", "const int", "40")
        (head,) = found["list"].children
        (tail,) = head.children[1].children
        assert (head.children[0].text, tail.text) == ("1", "{value = 2, next = 0x0}")
        assert tail.children[1].children == []

        assert found["part"].text == "3 × [20, 30, 40]"
        assert [child.text for child in found["part"].children] == ["20", "30", "40"]
        large = found["large"].children
        assert len(large) == 101 and (large[99].name, large[100].text) == ("[99]", "50 more")

    stopped(name, 91, 1, look)


@pytest.mark.parametrize("name", UNOPTIMISED)
def test_an_inner_variable_hides_the_outer_one(name: str) -> None:
    def look(info: DebugInfo, frame: Machine) -> None:
        keeps = [variable for variable in info.variables(frame.pc) if variable.name == "keep"]
        assert [(found.depth, found.line, info.read(found, frame).text) for found in keeps] == [(1, 93, "99"), (0, 90, "9")]
        first = info.variables(frame.pc)
        assert [found.name for found in first[:3]] == ["keep", "inner", "seed"]
        assert [found.is_parameter for found in first[:3]] == [False, False, True]

    stopped(name, 95, 2, look)


@pytest.mark.parametrize("name", UNOPTIMISED + OPTIMISED)
def test_globals_have_their_values(name: str) -> None:
    def look(info: DebugInfo, frame: Machine) -> None:
        found = {variable.name: info.read(variable, frame) for variable in info.globals()}
        assert found["counter"].text == "40"
        assert found["head"].children[1].children[0].text == "{value = 2, next = 0x0}"
        assert found["tail"].address == int(found["head"].children[1].text, 16)
        assert {variable.name for variable in info.globals(frame.pc)} == set(found)

    stopped(name, 91, 1, look)


@pytest.mark.parametrize("name", OPTIMISED)
def test_what_was_optimised_out_says_so(name: str) -> None:
    def look(info: DebugInfo, frame: Machine) -> None:
        found = values(info, frame)
        assert found["keep"].text == "9"  # volatile: it is in memory whatever the compiler does
        assert (found["grid"].text, found["grid"].status, found["grid"].raw) == ("<optimised out>", "optimised out", None)
        assert found["grid"].children == []

    stopped(name, 91, 1, look)


@pytest.mark.parametrize("name", OPTIMISED)
def test_a_parameter_in_a_local_is_read_from_the_local(name: str) -> None:
    _, info = load(name)
    function = next(found for found in info.functions() if found.name == "square_sum")

    class Locals:
        pc = function.low + 2

        def local(self, index: int) -> int | None:
            return {0: 12, 1: 0xFFFFFFFD}.get(index)

        def operand(self, index: int) -> int | None:
            return None

        def global_(self, index: int) -> int | None:
            return None

        def memory(self, address: int, length: int) -> bytes | None:
            return None

    variables = {found.name: found for found in info.variables(Locals.pc) if found.inlined_in is None}
    assert [info.read(variables[key], Locals()).text for key in ("a", "b")] == ["12", "-3"]

    class Nothing(Locals):
        def local(self, index: int) -> int | None:
            return None

    value = info.read(variables["a"], Nothing())
    assert (value.text, value.status) == ("<unavailable: Wasm local 0 is not known>", "unavailable")


def test_classes() -> None:
    def look(info: DebugInfo, frame: Machine) -> None:
        found = values(info, frame)
        square = found["square"]
        assert square.type_name == "Square"
        assert [(part.name, part.text) for part in square.children] == [
            ("<Base>", "{id = 31}"),
            ("side", "9"),
            ("mode", "On (200)"),
        ]
        assert found["base"].type_name == "Base &"
        assert found["base"].children[0].text == "{id = 31}"
        assert found["area"].text == "81"

    stopped("debug_classes", 33, 2, look, "debug_classes.cpp")


def test_a_method_knows_its_class_and_its_object() -> None:
    def look(info: DebugInfo, frame: Machine) -> None:
        function = info.function(frame.pc)
        assert function is not None
        assert (function.name, function.qualified_name) == ("area", "shapes::Square::area")
        assert function.linkage_name is not None and function.linkage_name.startswith("_ZNK6shapes6Square4area")
        assert (function.file, function.line) == ("debug_classes.cpp", 20)
        this = values(info, frame)["this"]
        assert this.type_name == "const Square *"
        assert this.children[0].children[1].text == "9"

    stopped("debug_classes", 21, 1, look, "debug_classes.cpp")


def test_a_static_member_is_a_global() -> None:
    _, info = load("debug_classes")
    assert [(found.name, found.line) for found in info.globals()] == [("made", 11)]


def test_memory_that_is_not_there_is_unavailable() -> None:
    _, info = load("debug_types_O0_4")

    class Hole(Machine):
        def __init__(self) -> None:
            self.pc = info.line_starts(C, 91)[0]

        def local(self, index: int) -> int | None:
            return 0x1000

        def memory(self, address: int, length: int) -> bytes | None:
            return None

    by_name: dict[str, Variable] = {found.name: found for found in info.variables(Hole().pc)}
    for name, variable in by_name.items():
        value = info.read(variable, Hole())
        assert value.status == "unavailable" or name in ("grid", "packet", "part", "large"), name
        assert "<unavailable: memory at 0x1" in value.text


def test_optionals_and_tagged_unions_of_zig() -> None:
    """The C guest has structs like those of Zig. Zig itself would put a machine's paths in, and much of its library."""

    def look(info: DebugInfo, frame: Machine) -> None:
        found = {variable.name: info.read(variable, frame) for variable in info.globals()}
        assert found["five"].text == "{payload = 5, some = 1}"
        for unit in info._units.all:
            unit.language = ZIG
        found = {variable.name: info.read(variable, frame) for variable in info.globals()}
        assert {name: found[name].text for name in ("nothing_there", "five", "a_box", "an_empty")} == {
            "nothing_there": "null",
            "five": "5",
            "a_box": "box [3, 4]",
            "an_empty": "empty",
        }
        (box,) = found["a_box"].children
        assert (box.name, box.type_name, [child.text for child in box.children]) == ("box", "short[2]", ["3", "4"])

    stopped("debug_types_O0_4", 91, 1, look)


@pytest.mark.parametrize("name", UNOPTIMISED)
def test_an_array_of_variable_length(name: str) -> None:
    """Every local is 4096 and every word of memory is 3: so the array has three elements, each of them 3."""
    _, info = load(name)
    number = (GUESTS / C).read_text().splitlines().index("    stop(squares[0]);") + 1

    class Threes:
        pc = info.line_starts(C, number)[0]

        def local(self, index: int) -> int | None:
            return 4096

        def operand(self, index: int) -> int | None:
            return None

        def global_(self, index: int) -> int | None:
            return None

        def memory(self, address: int, length: int) -> bytes | None:
            return (b"\3\0\0\0" * length)[:length]

    found = {variable.name: info.read(variable, Threes()) for variable in info.variables(Threes.pc)}
    assert set(found) == {"count", "squares"}
    assert (found["squares"].text, found["squares"].address) == ("[3, 3, 3]", 4096)
    assert [child.name for child in found["squares"].children] == ["[0]", "[1]", "[2]"]
