"""Puts one guest together: window, trampoline, guest, interposer. The same steps for recording and for replay.

Order matters and is fixed here: the trampoline first (the guest imports it), then what the embedder provides (memories,
globals, tables), then the guest (its memories must exist), then the interposer, whose elements fill the trampoline's table.
A guest whose start function could reach an import would call into the empty table, so it gets its start section turned into
an export that is called right after linking; that derivation, and metering, are the only ways in which other bytes run than
were given.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import wasmtime
from wasmtime import _bindings as ffi
from wasmtime import _ffi as kinds

from recorder.boundary.engine import Engine
from recorder.boundary.interposer import Description, GuestMemory, Hosted, trampoline
from recorder.boundary.memories import HostMemory
from recorder.boundary.raw import Function, GuestExit, GuestTrap, Machine, Raw
from recorder.wasm import module as wasm
from recorder.wasm.binary import WasmError
from recorder.wasm.metering import METERING_VERSION, NO_LIMIT, STOP_WORD, STOPPED_FLAG, meter
from recorder.wasm.rewrite import start_to_export, unused_export_name
from traces._errors import RefusedError
from traces.layout import MAX_IMPORTS, MAX_MEMORIES, PAGE, VALUE_SIZE
from traces.manifest import Export

START_AS_EXPORT = "start-as-export-1"
METERED = f"metered-{METERING_VERSION}"


class Shape:
    """What a guest declares, and whether it can be recorded at all. Refusals happen here, by name, before anything runs."""

    def __init__(self, data: bytes) -> None:
        try:
            self.module = wasm.parse_module(data)
            features = self.module.features()
        except WasmError as error:
            raise RefusedError(f"not a module that can be run: {error}") from None
        self.data = data
        self._refuse(features)

    def _refuse(self, features: frozenset[str]) -> None:
        for feature, what in (
            ("threads", "threads (shared memory or atomic instructions)"),
            ("stack-switching", "stack switching"),
            ("legacy-exceptions", "legacy exception handling; rebuild with the standard `try_table` form"),
            ("custom-page-sizes", "custom page sizes"),
        ):
            if feature in features:
                raise RefusedError(f"the module uses {what}, which cannot be recorded deterministically")
        m = self.module
        if len(self.function_imports) > MAX_IMPORTS:
            count = len(self.function_imports)
            raise RefusedError(f"the module has {count} function imports; at most {MAX_IMPORTS} can be recorded")
        if len(m.memories) > MAX_MEMORIES:
            raise RefusedError(f"the module has {len(m.memories)} memories; at most {MAX_MEMORIES} can be recorded")
        for i in m.imports:
            if isinstance(i.type, wasm.FuncType):
                for t in (*i.type.params, *i.type.results):
                    if t not in VALUE_SIZE:
                        raise RefusedError(
                            f"import {i.module}.{i.name} passes a value of type {t} across the boundary, which cannot be recorded"
                        )
            elif isinstance(i.type, wasm.TagType):
                raise RefusedError(f"import {i.module}.{i.name} is an exception tag; imported tags cannot be recorded yet")

    @cached_property
    def function_imports(self) -> list[wasm.Import]:
        return [i for i in self.module.imports if i.kind == "function"]

    @cached_property
    def other_imports(self) -> list[wasm.Import]:
        return [i for i in self.module.imports if i.kind != "function"]

    @cached_property
    def exports(self) -> list[Export]:
        """Exported functions that can be called with recordable values; positions are the `target` of records."""
        found = []
        for e in self.module.exports:
            if e.kind == "function":
                t = self.module.function_type(e.index)
                if all(v in VALUE_SIZE for v in (*t.params, *t.results)):
                    found.append(Export(e.name, t.params, t.results))
        return found

    @cached_property
    def export_numbers(self) -> Mapping[str, int]:
        return {e.name: i for i, e in enumerate(self.exports)}

    @cached_property
    def signatures_use_v128(self) -> bool:
        return any("v128" in (*t.params, *t.results) for t in self.module.types if isinstance(t, wasm.FuncType))

    @cached_property
    def primary_memory(self) -> GuestMemory | None:
        """The memory interposers access: the export named `memory`, else the first exported one."""
        exported = [e for e in self.module.exports if e.kind == "memory"]
        named = next((e for e in exported if e.name == "memory"), None)
        chosen = named or (exported[0] if exported else None)
        if chosen is None:
            return None
        kind = self.module.memories[chosen.index]
        return GuestMemory(chosen.index, kind.limits.is_64, named is not None)

    def export_name(self, kind: str, index: int) -> str | None:
        return next((e.name for e in self.module.exports if e.kind == kind and e.index == index), None)

    @property
    def start_reaches_imports(self) -> bool:
        return self.module.start is not None and bool(self.function_imports)


@dataclass(frozen=True)
class Derived:
    """The bytes that really run, and what was done to the given ones."""

    data: bytes
    names: tuple[str, ...] = ()
    start: str | None = None
    """Export that runs the start function, called right after linking."""
    clock: str | None = None
    """Exported global that counts the guest's instructions (metered only)."""
    stop: str | None = None
    """Exported memory whose first word is the clock value to stop at (metered only)."""
    unbounded: bool = False
    """Whether what was appended may be larger than the limits set for the guest's own memories and tables."""
    appended_memories: int = 0
    """How many memories were appended to the guest's own."""


def derive(shape: Shape, metered: bool) -> Derived:
    try:
        if metered:
            m = meter(shape.data)
            return Derived(m.data, (METERED,), m.start_export, m.clock_export, m.stop_export, appended_memories=1)
        if shape.start_reaches_imports:
            name = unused_export_name(shape.module, "reprise:start")
            return Derived(start_to_export(shape.data, name), (START_AS_EXPORT,), name)
    except WasmError as error:
        raise RefusedError(f"the module cannot be metered: {error}; run it without --fuel and --timeout") from None
    return Derived(shape.data)


def compile_guest(engine: Engine, derived: Derived) -> wasmtime.Module:
    """The guest's machine code; a module the engine finds invalid is refused."""
    try:
        return engine.compile(derived.data)
    except wasmtime.WasmtimeError as error:
        raise RefusedError(f"the engine refuses the module: {' '.join(str(error).split())}") from None


@dataclass(frozen=True)
class Provided:
    """An imported memory, global or table, made by the embedder before the guest."""

    module: str
    name: str
    kind: str
    type: dict[str, Any]
    """memory: minimum, maximum, is64. global: value, mutable, bits. table: element, minimum, maximum."""


@dataclass
class Wiring:
    """What linking needs from the recorder or the replayer."""

    description: Description
    interposer: str
    """Text of the interposer."""
    python: Mapping[str, tuple[Sequence[str], Sequence[str], Callable[..., Any]]]
    """Functions the interposer imports from `python`: parameters, results, callable on raw values."""
    real: Mapping[int, wasmtime.Func] = field(default_factory=dict)
    """Native functions by import index (recording only)."""
    witness: Sequence[wasmtime.Func] = ()
    """What a witnessed replay tells what it did (replay only): `served` and `wrote`."""


class Linked:
    """A guest that stands ready: its exports, memories, globals and tables within reach."""

    def __init__(self, engine: Engine, machine: Machine, shape: Shape, derived: Derived) -> None:
        self.engine = engine
        self.machine = machine
        self.shape = shape
        self.derived = derived
        self.memories: list[HostMemory] = []
        """By the guest's memory index; imported ones first."""
        self.start_failure: GuestTrap | GuestExit | None = None
        """How instantiating ended, if the start function (one that reaches no import) did not return."""
        self.provided: list[tuple[Provided, Any]] = []
        self._exports: Any = None
        self._provided_by_index: dict[tuple[str, int], Any] = {}
        self._functions: dict[int, Function] = {}
        self.appended: list[HostMemory] = []
        """The memories appended to the guest's own."""
        self._stop_memory: HostMemory | None = None
        self._limits = (-1, -1)
        self._window: Any = None
        self._table: Any = None

    # -- making --------------------------------------------------------------------------------------------------------------

    def make_window(self, size: int, backing: int | None) -> HostMemory:
        """The journal window, before any limit applies to memories. `backing` maps a file; None is private memory."""
        pages = -(-size // PAGE)
        creator = self.engine.memories
        creator.backing = backing
        # In a module of its own: the engine asks the creator only for memories that modules define.
        text = f'(module (memory (export "x") {pages} {pages}))'
        module = self.engine.compile(bytes(wasmtime.wat2wasm(text)))
        self._window = self.machine.instantiate(module, []).exports(self.machine.store)["x"]
        return creator.made[-1]

    def set_limits(self, memory_bytes: int, table_elements: int) -> None:
        self._limits = (memory_bytes, table_elements)
        self.machine.store.set_limits(memory_size=memory_bytes, table_elements=table_elements)

    def provide(self, provided: Sequence[Provided]) -> None:
        for p in provided:
            self.provided.append((p, self._make(p)))

    def _make(self, p: Provided) -> Any:
        store = self.machine.store
        t = p.type
        if p.kind == "memory":
            kind = "i64 " if t.get("is64") else ""
            text = f'(module (memory (export "x") {kind}{_limits(t)}))'
        elif p.kind == "table":
            text = f'(module (table (export "x") {_limits(t)} {t["element"]}))'
        else:
            value = _constant(t["value"], t["bits"])
            of = f"(mut {t['value']})" if t["mutable"] else t["value"]
            text = f'(module (global (export "x") {of} {value}))'
        module = self.engine.compile(bytes(wasmtime.wat2wasm(text)))
        made = self.machine.instantiate(module, []).exports(store)["x"]
        if p.kind == "memory":
            self._provided_memories[(p.module, p.name)] = self.engine.memories.made[-1]
        return made

    @cached_property
    def _provided_memories(self) -> dict[tuple[str, str], HostMemory]:
        return {}

    def instantiate_guest(self, hosted: Sequence[Hosted]) -> None:
        """Instantiates trampoline and guest. A start function that reaches no import runs here."""
        store = self.machine.store
        module = self.engine.compile(bytes(wasmtime.wat2wasm(trampoline(hosted))))
        entry = self.machine.instantiate(module, []).exports(store)
        self._table = entry["table"]
        by_name = {(p.module, p.name): extern for p, extern in self.provided}
        imports: list[Any] = []
        number = 0
        counters = {"memory": 0, "global": 0, "table": 0}
        for i in self.shape.module.imports:
            if i.kind == "function":
                imports.append(entry[str(number)])
                number += 1
            else:
                extern = by_name[(i.module, i.name)]
                imports.append(extern)
                self._provided_by_index[(i.kind, counters[i.kind])] = extern
                if i.kind == "memory":
                    self.memories.append(self._provided_memories[(i.module, i.name)])
                counters[i.kind] += 1
        guest = compile_guest(self.engine, self.derived)
        own = len(self.shape.module.memories) - self.shape.module.imported.memories
        own += self.derived.appended_memories
        before = len(self.engine.memories.made)
        if self.derived.unbounded:
            self.machine.store.set_limits(memory_size=-1, table_elements=-1)
        try:
            instance = self.machine.instantiate(guest, imports)
        except (GuestTrap, GuestExit) as failure:
            self.start_failure = failure
            self._take_memories(before, own)
            return
        except wasmtime.WasmtimeError as error:
            reason = " ".join(str(error).split())
            raise RefusedError(f"the module cannot be instantiated: {reason}") from None
        self._exports = instance.exports(store)
        self.set_limits(*self._limits)
        self._take_memories(before, own)

    def export(self, name: str) -> Any:
        """What the module that runs exports under that name."""
        return self._exports[name]

    def _take_memories(self, before: int, own: int) -> None:
        # A heap for garbage-collected values is made through the creator too, before the guest's own memories.
        made = self.engine.memories.made[before:]
        mine = made[len(made) - own :] if own and len(made) >= own else []
        guests = len(mine) - self.derived.appended_memories
        self.memories.extend(mine[:guests])
        self.appended = mine[guests:]
        if self.derived.stop is not None and self.appended:
            self._stop_memory = self.appended[0]
            self.stop_at(NO_LIMIT)

    def instantiate_interposer(self, wiring: Wiring) -> None:
        """Instantiates the interposer, which fills the trampoline's table."""
        module = self.engine.compile(bytes(wasmtime.wat2wasm(wiring.interposer)))
        self.machine.instantiate(module, self._interposer_imports(wiring, table=True))

    def _interposer_imports(self, wiring: Wiring, table: bool) -> list[Any]:
        d = wiring.description
        imports: list[Any] = []
        for params, results, call in wiring.python.values():
            imports.append(self.machine.host_function(params, results, call))
        imports += wiring.witness
        imports.append(self._window)
        if d.memory is not None:
            imports.append(self.memory_extern(d.memory.index))
        if table:
            imports.append(self._table)
        return imports + [wiring.real[h.index] for h in d.imports if h.index in wiring.real]

    def lone_function(self, wiring: Wiring, index: int) -> wasmtime.Func:
        """The function of an interposer that stands on its own, for an import defined while running."""
        instance = self.machine.instantiate(
            self.engine.compile(bytes(wasmtime.wat2wasm(wiring.interposer))), self._interposer_imports(wiring, table=False)
        )
        function = instance.exports(self.machine.store)[str(index)]
        assert isinstance(function, wasmtime.Func)
        return function

    # -- reaching into the guest -------------------------------------------------------------------------------------------------

    def _extern(self, kind: str, index: int) -> Any:
        provided = self._provided_by_index.get((kind, index))
        if provided is not None:
            return provided
        name = self.shape.export_name(kind, index)
        if name is None or self._exports is None:
            raise KeyError(f"{kind} {index} is neither exported nor imported")
        return self._exports[name]

    def memory_extern(self, index: int) -> Any:
        return self._extern("memory", index)

    def table_extern(self, index: int) -> Any:
        return self._extern("table", index)

    def exported(self, target: int) -> Function:
        """The exported function with that number in the manifest's list."""
        function = self._functions.get(target)
        if function is None:
            export = self.shape.exports[target]
            function = Function(self._exports[export.name]._func, export.params, export.results)
            self._functions[target] = function
        return function

    def start_function(self) -> Function | None:
        """The start function, if it is for us to call: one that ran while instantiating, or could not run at all, is not."""
        if self.derived.start is None or self.start_failure is not None:
            return None
        return Function(self._exports[self.derived.start]._func, (), ())

    def table_function(self, table: int, element: int) -> Function:
        """The function that stands in a table now. Raises KeyError if there is none."""
        func = self.table_get(table, element)
        if not isinstance(func, wasmtime.Func):
            raise KeyError(f"no function stands in table {table} at {element}")
        if self.shape.signatures_use_v128:
            raise KeyError("functions in tables cannot be called in a module whose signatures use v128")
        params, results = self.machine.function_type(func)
        return Function(func._func, params, results)

    def table_get(self, index: int, element: int) -> int | wasmtime.Func | None:
        """What stands in a table: None, a function, or the identity number of an external reference."""
        value = ffi.wasmtime_val_t()
        table = self.table_extern(index)
        if not ffi.wasmtime_table_get(self.machine.context, ctypes.byref(table._table), element, ctypes.byref(value)):
            raise IndexError(f"table {index} has no element {element}")
        try:
            if int(value.kind) == int(kinds.WASMTIME_FUNCREF.value):
                return wasmtime.Func._from_raw(value.of.funcref) if value.of.funcref.store_id else None
            return self.machine.references.number_of_value(value)
        finally:
            ffi.wasmtime_val_unroot(ctypes.byref(value))

    def table_set(self, index: int, element: int, reference: int | wasmtime.Func | None) -> None:
        """The counterpart of `table_get`; numbers stand for external references."""
        table = self.table_extern(index)
        value = self.machine.references.as_value(reference, self.shape.module.tables[index].element)
        error = ffi.wasmtime_table_set(self.machine.context, ctypes.byref(table._table), element, ctypes.byref(value))
        ffi.wasmtime_val_unroot(ctypes.byref(value))
        if error:
            raise IndexError(f"table {index} has no element {element}: {wasmtime.WasmtimeError._from_ptr(error)}")

    def table_grow(self, index: int, delta: int) -> int | None:
        """Grows a table with nulls; the previous size, or None if that was refused."""
        previous = ctypes.c_uint64()
        value = self.machine.references.as_value(None, self.shape.module.tables[index].element)
        error = ffi.wasmtime_table_grow(
            self.machine.context,
            ctypes.byref(self.table_extern(index)._table),
            delta,
            ctypes.byref(value),
            ctypes.byref(previous),
        )
        if error:
            wasmtime.WasmtimeError._from_ptr(error)  # takes the error, to free it
            return None
        return previous.value

    def table_size(self, index: int) -> int:
        return int(self.table_extern(index).size(self.machine.store))

    def grow_memory(self, index: int, delta: int) -> int | None:
        """Grows a memory by pages; the previous size in pages, or None if that was refused."""
        try:
            return int(self.memory_extern(index).grow(self.machine.store, delta))
        except wasmtime.WasmtimeError:
            return None

    def global_bits(self, index: int, extern: Any = None) -> Raw:
        """Raw bits of a global, whose extern may be given. References become 0 (null) or 1."""
        value = ffi.wasmtime_val_t()
        extern = extern or self._extern("global", index)
        ffi.wasmtime_global_get(self.machine.context, ctypes.byref(extern._global), ctypes.byref(value))
        kind = self.shape.module.globals[index].value
        width = VALUE_SIZE.get(kind)
        if width is None or kind in ("funcref", "externref"):
            bits = int(bool(value.of.funcref.store_id if kind == "funcref" else value.of.externref.store_id))
        else:
            bits = int.from_bytes(ctypes.string_at(ctypes.addressof(value.of), width), "little")
        ffi.wasmtime_val_unroot(ctypes.byref(value))
        return bits

    def set_global_bits(self, index: int, bits: Raw) -> None:
        kind = self.shape.module.globals[index].value
        value = ffi.wasmtime_val_t(kind=_VALUE_KINDS[kind])
        width = VALUE_SIZE[kind]
        ctypes.memmove(ctypes.addressof(value.of), bits.to_bytes(width, "little"), width)
        error = ffi.wasmtime_global_set(
            self.machine.context, ctypes.byref(self._extern("global", index)._global), ctypes.byref(value)
        )
        if error:
            raise ValueError(str(wasmtime.WasmtimeError._from_ptr(error)))

    def reachable(self, kind: str) -> list[int]:
        """Indices of the guest's memories, globals or tables that are exported or imported."""
        indices = {e.index for e in self.shape.module.exports if e.kind == kind}
        indices |= {index for k, index in self._provided_by_index if k == kind}
        return sorted(indices)

    # -- limits ------------------------------------------------------------------------------------------------------------------

    def stop_at(self, clock: int) -> None:
        """Sets the clock value at which a metered guest stops (any thread)."""
        if self._stop_memory is not None:
            ctypes.c_uint64.from_address(self._stop_memory.base + STOP_WORD).value = clock

    def clock(self) -> int | None:
        """Instructions the guest has begun, as last written down by it; None if it is not metered."""
        if self.derived.clock is None or self._exports is None:
            return None
        value = self._exports[self.derived.clock].value(self.machine.store)
        return int(value)

    def stopped_by_clock(self) -> bool:
        """Whether the trap that just ended the guest was its own check of the stop word."""
        if self._stop_memory is None:
            return False
        flag = ctypes.c_uint32.from_address(self._stop_memory.base + STOPPED_FLAG)
        stopped, flag.value = flag.value != 0, 0
        return stopped


_VALUE_KINDS = {
    "i32": kinds.WASMTIME_I32,
    "i64": kinds.WASMTIME_I64,
    "f32": kinds.WASMTIME_F32,
    "f64": kinds.WASMTIME_F64,
    "v128": kinds.WASMTIME_V128,
}


def _limits(t: Mapping[str, Any]) -> str:
    return f"{t['minimum']}" + (f" {t['maximum']}" if t.get("maximum") is not None else "")


def _constant(kind: str, bits: int) -> str:
    if kind == "i32":
        return f"(i32.const {bits})"
    if kind == "i64":
        return f"(i64.const {bits})"
    if kind in ("f32", "f64"):
        # Text literals cannot give every NaN on every assembler; integers can.
        sign, width, fraction = (31, 8, 23) if kind == "f32" else (63, 11, 52)
        exponent = bits >> fraction & ((1 << width) - 1)
        mantissa = bits & ((1 << fraction) - 1)
        minus = "-" if bits >> sign else ""
        if exponent == (1 << width) - 1:
            return f"({kind}.const {minus}{f'nan:{mantissa:#x}' if mantissa else 'inf'})"
        if exponent == 0:
            scale = 2 - (1 << (width - 1)) - fraction
            return f"({kind}.const {minus}{mantissa:#x}p{scale})"
        scale = exponent - ((1 << (width - 1)) - 1) - fraction
        return f"({kind}.const {minus}{mantissa | 1 << fraction:#x}p{scale})"
    if kind == "v128":
        return f"(v128.const i64x2 {bits & ((1 << 64) - 1)} {bits >> 64})"
    return f"(ref.null {'func' if kind == 'funcref' else 'extern'})"
