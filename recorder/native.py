"""Running a guest without recording: what `reprise run` does, and what recordings are compared with.

The engine and its profile are those of a recording, and nothing else is: the module is linked directly to native WASI and to its
Python hosts, with no interposer, journal or trace in the process. `NativeGuest` is written apart from `python_host.Guest` on
purpose, so that a mistake in one of them shows as a difference.

Two things need other bytes than the given ones, as in a recording: limits run the metered form, and a start function that could
call a Python host (which could not reach an instance that is still being made) is called right after linking.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn, cast

import wasmtime

from recorder import values
from recorder.boundary.engine import Engine, Profile
from recorder.boundary.linking import Derived, Linked, Shape, derive
from recorder.boundary.memories import HostMemory
from recorder.boundary.raw import UNREACHABLE, Function, GuestTrap, Machine, Raw
from recorder.boundary.wasi_p1 import MODULE as WASI_MODULE
from recorder.invocation import Invocation, check_files, check_invocation, run_invocation
from recorder.outcome import STOPS, Limits, Outcome, Stopped, outcome_of
from recorder.python_host import FuncRef, Guest, HostFunction, collect, parse_signature, reference_code
from recorder.serving import provide, serve
from recorder.source import Source
from recorder.watchdog import GRACE, Watchdog
from traces.layout import Ref, StopReason


@dataclass(frozen=True)
class NativeOptions:
    """What to run and with which rights; the part of a recording's options that concerns the guest."""

    invocation: Invocation = field(default_factory=Invocation)
    hosts: tuple[Any, ...] = ()
    limits: Limits = field(default_factory=Limits)
    signals: bool = False
    """Take SIGINT and SIGTERM, and end the process if the guest does not stop (the command line does)."""


class NativeLinked(Linked):
    """A guest linked to the functions that really serve it, by position."""

    def instantiate_directly(self, functions: Sequence[wasmtime.Func]) -> None:
        """Instantiates the guest; a start section in it runs now."""
        by_name = {(p.module, p.name): extern for p, extern in self.provided}
        counters = {"memory": 0, "global": 0, "table": 0}
        imports: list[Any] = []
        serving = iter(functions)
        for i in self.shape.module.imports:
            if i.kind == "function":
                imports.append(next(serving))
                continue
            imports.append(by_name[(i.module, i.name)])
            self._provided_by_index[(i.kind, counters[i.kind])] = imports[-1]
            if i.kind == "memory":
                self.memories.append(self._provided_memories[(i.module, i.name)])
            counters[i.kind] += 1
        own = len(self.shape.module.memories) - self.shape.module.imported.memories
        own += self.derived.stop is not None
        module = self.engine.compile(self.derived.data)
        before = len(self.engine.memories.made)
        self._exports = self.machine.instantiate(module, imports).exports(self.machine.store)
        self._take_memories(before, own)


class Native:
    """One guest, run without a recorder."""

    def __init__(self, source: Source, options: NativeOptions, embedded: bool = False) -> None:
        """`embedded`: the caller drives the guest itself, instead of `run` following the options' invocation."""
        self.source = source
        self.options = options
        self.shape = Shape(source.data)
        if not embedded:
            check_invocation(self.shape, options.invocation)
            check_files(options.invocation.calls)
        self.hosts = collect(options.hosts)
        self._served = [function for _, _, function in serve(self.shape, self.hosts)]
        self._provided = provide(self.shape, self.hosts)
        self.engine = Engine(Profile())
        self.machine = Machine(self.engine.engine)
        self.linked = NativeLinked(self.engine, self.machine, self.shape, self._derive())
        self.guests: list[NativeGuest] = []
        """The embedder's, then one per host call in progress."""
        self._stop_reason: StopReason | None = None
        self.machine.store.set_wasi(options.invocation.wasi())
        self.linked.set_limits(options.limits.max_memory, options.limits.max_table)
        self.linked.provide(self._provided)

    def _derive(self) -> Derived:
        hosted = any(function is not None for function in self._served)
        if self.options.limits.metered or (hosted and self.shape.start_reaches_imports):
            return derive(self.shape, self.options.limits.metered)
        return Derived(self.shape.data)

    def run(self) -> tuple[Outcome, list[list[Raw]]]:
        """Follows the invocation; returns how it ended, and the raw results of each call that returned."""
        results: list[list[Raw]] = []
        error: BaseException | None = None
        with self._watched():
            try:
                guest = cast(Guest, self.link())  # as far as an invocation uses one
                results = run_invocation(guest, self.options.invocation, self.shape)
            except BaseException as raised:
                error = raised
        return outcome_of(error), results

    def link(self) -> NativeGuest:
        """Instantiates the guest (its start function runs now) and returns it, for an embedder to drive."""
        embedder = NativeGuest(self)
        self.guests.append(embedder)
        linker = wasmtime.Linker(self.engine.engine)
        linker.define_wasi()
        functions = []
        for i, function in zip(self.shape.function_imports, self._served, strict=True):
            if function is None:
                native = linker.get(self.machine.store, WASI_MODULE, i.name)
                assert isinstance(native, wasmtime.Func)
                functions.append(native)
            else:
                functions.append(self.host_function(function))
        self.linked.instantiate_directly(functions)
        if self.options.limits.fuel is not None:
            self.linked.stop_at(self.options.limits.fuel)
        start = self.linked.start_function()
        if start is not None:
            self.call(start, [])
        return embedder

    # -- calls ---------------------------------------------------------------------------------------------------------------

    def call(self, function: Function, raw: Sequence[Raw]) -> list[Raw]:
        try:
            return self.machine.call(function, raw)
        except GuestTrap as trap:
            if trap.code == UNREACHABLE and self.linked.stopped_by_clock():
                raise Stopped(self._stop_reason or StopReason.FUEL, self.linked.clock()) from None
            raise

    def host_function(self, function: HostFunction) -> wasmtime.Func:
        """A Python host as a plain callback."""

        def serve(*raw: Raw) -> list[Raw]:
            guest = NativeGuest(self)
            self.guests.append(guest)
            try:
                given = [self.from_raw(bits, t) for bits, t in zip(raw, function.params, strict=True)]
                return self._answers(function, function.call(guest, *given))
            finally:
                guest.alive = False
                self.guests.pop()

        if "v128" in (*function.params, *function.results):
            return self._vector_function(function, serve)
        return self.machine.host_function(function.params, function.results, serve)

    def _answers(self, function: HostFunction, answer: Any) -> list[Raw]:
        results = function.results
        if not results:
            if answer is not None:
                raise TypeError(f"host {function.where} returned {answer!r}, but the import has no result")
            return []
        given = [answer] if len(results) == 1 else answer
        if len(results) > 1 and (not isinstance(given, list | tuple) or len(given) != len(results)):
            raise TypeError(f"host {function.where} must return {len(results)} values, returned {answer!r}")
        try:
            return [self.to_raw(value, t) for value, t in zip(given, results, strict=True)]
        except (TypeError, ValueError) as error:
            raise TypeError(f"host {function.where} returned a wrong value: {error}") from None

    def _vector_function(self, function: HostFunction, serve: Callable[..., list[Raw]]) -> wasmtime.Func:
        """The engine's callbacks cannot carry a v128, so a small module passes it as two i64."""

        def halves(*flat: Raw) -> list[Raw]:
            return _split(serve(*_joined(flat, function.params)), function.results)

        params, results = _flattened(function.params), _flattened(function.results)
        python = self.machine.host_function(params, results, halves)
        module = self.engine.compile(bytes(wasmtime.wat2wasm(_vector_shim(function.params, function.results))))
        shim = self.machine.instantiate(module, [python]).exports(self.machine.store)["f"]
        assert isinstance(shim, wasmtime.Func)
        return shim

    # -- values --------------------------------------------------------------------------------------------------------------

    def from_raw(self, bits: Raw, kind: str) -> Any:
        if kind == "funcref":
            return FuncRef(bits) if bits else None
        if kind == "externref":
            return self.machine.references.object_of(bits)
        return values.from_raw(bits, kind)

    def to_raw(self, value: Any, kind: str) -> Raw:
        if kind == "funcref":
            if value is not None and not isinstance(value, FuncRef):
                raise TypeError(f"funcref expected, got {type(value).__name__}")
            return value.number if value is not None else 0
        if kind == "externref":
            return self.machine.references.number_of_object(value)
        return values.to_raw(value, kind)

    # -- stops ---------------------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _watched(self) -> Iterator[None]:
        limits = self.options.limits
        # Only a metered guest can be asked to stop; any other is ended at once.
        grace = GRACE if limits.metered else 0.0
        stuck = self._stuck if self.options.signals else None
        watchdog = Watchdog(lambda _: None, self._stop, stuck, limits.timeout, self.options.signals, grace)
        try:
            yield
        finally:
            watchdog.close()

    def _stop(self, reason: StopReason) -> None:
        self._stop_reason = reason
        self.linked.stop_at(0)

    def _stuck(self, reason: StopReason) -> NoReturn:
        """The guest did not stop: end the process under it (the watchdog's thread)."""
        kind, exit_code, message = STOPS[reason]
        print(f"reprise: {Outcome(kind, exit_code, message).line}", file=sys.stderr, flush=True)
        os._exit(exit_code)


class NativeGuest:
    """The guest as a host or the embedder sees it, with the methods of `python_host.Guest`; nothing is recorded."""

    def __init__(self, native: Native) -> None:
        self._native = native
        self.alive = True

    def _live(self) -> Linked:
        if not self.alive:
            raise RuntimeError("this Guest belongs to a host call that has returned; it cannot be used any more")
        if self._native.guests[-1] is not self:
            raise RuntimeError("this Guest belongs to an outer host call; use the one passed to the innermost")
        return self._native.linked

    # -- memory ----------------------------------------------------------------------------------------------------------

    def _memory(self, memory: int | str) -> HostMemory:
        linked = self._live()
        index = self._index("memory", memory) if isinstance(memory, str) else memory
        if not 0 <= index < len(linked.memories):
            raise IndexError(f"the guest has no memory {index}")
        return linked.memories[index]

    def read(self, address: int, length: int, memory: int | str = 0) -> bytes:
        return self._memory(memory).read(address & 0xFFFFFFFFFFFFFFFF, length)

    def write(self, address: int, data: bytes | bytearray | memoryview, memory: int | str = 0) -> None:
        self._memory(memory).write(address, data)

    def memory_size(self, memory: int | str = 0) -> int:
        return self._memory(memory).size

    def grow(self, pages: int, memory: int | str = 0) -> int:
        self._memory(memory)
        index = self._index("memory", memory) if isinstance(memory, str) else memory
        previous = self._live().grow_memory(index, pages)
        return -1 if previous is None else previous

    @contextlib.contextmanager
    def observing(self) -> Iterator[None]:
        self._live()
        yield

    # -- globals and tables ------------------------------------------------------------------------------------------------

    def _index(self, kind: str, name: str) -> int:
        module = self._native.shape.module
        for e in module.exports:
            if (e.kind, e.name) == (kind, name):
                return e.index
        imported = [i for i in module.imports if i.kind == kind]
        for number, i in enumerate(imported):
            if name in (i.name, f"{i.module}.{i.name}"):
                return number
        raise KeyError(f"the guest exports no {kind} named {name!r}")

    def get_global(self, name: str) -> Any:
        linked = self._live()
        index = self._index("global", name)
        return values.from_raw(linked.global_bits(index), self._native.shape.module.globals[index].value)

    def set_global(self, name: str, value: Any) -> None:
        linked = self._live()
        index = self._index("global", name)
        linked.set_global_bits(index, values.to_raw(value, self._native.shape.module.globals[index].value))

    def table_size(self, name: str) -> int:
        return self._live().table_size(self._index("table", name))

    def table_get(self, name: str, element: int) -> Any:
        value = self._live().table_get(self._index("table", name), element)
        references = self._native.machine.references
        if isinstance(value, wasmtime.Func):
            return FuncRef(references.number_of_function(value))
        return None if value is None else references.object_of(value)

    def table_set(self, name: str, element: int, value: Any, count: int = 1) -> None:
        linked, index = self._live(), self._index("table", name)
        real = self._reference(value, index)
        size = linked.table_size(index)
        if element < 0 or count < 0 or element + count > size:
            raise IndexError(f"{count} elements at {element} lie outside table {index}, which has {size}")
        for i in range(count):
            linked.table_set(index, element + i, real)

    def table_grow(self, name: str, delta: int, value: Any = None) -> int:
        self._reference(value, self._index("table", name))  # refused before anything has grown
        previous = self._live().table_grow(self._index("table", name), delta)
        if previous is None:
            return -1
        if value is not None and delta:
            self.table_set(name, previous, value, delta)
        return previous

    def _reference(self, value: Any, table: int) -> Any:
        references = self._native.machine.references
        code = reference_code(value, self._native.linked.shape.module.tables[table].element)
        if code is Ref.NULL:
            return None
        if code is Ref.FUNC:
            return references.function_of(value.number)
        if code is Ref.EXPORT_FUNC:
            return wasmtime.Func._from_raw(self._native.linked.exported(self._target(value)).func)
        return references.number_of_object(value)

    def function(self, signature: str, call: Callable[..., Any], name: str = "") -> FuncRef:
        self._live()
        params, results = parse_signature(signature)
        where = getattr(call, "__qualname__", repr(call))
        func = self._native.host_function(HostFunction("defined", name, params, results, call, where))
        return FuncRef(self._native.machine.references.number_of_function(func))

    # -- calls -------------------------------------------------------------------------------------------------------------

    def exports(self) -> list[str]:
        self._live()
        return [e.name for e in self._native.shape.exports]

    def _target(self, export: str) -> int:
        target = self._native.shape.export_numbers.get(export)
        if target is None:
            raise KeyError(f"the guest exports no function named {export!r}")
        return target

    def call(self, export: str, *args: Any) -> Any:
        return self._call(self._live().exported(self._target(export)), export, args)

    def call_table(self, name: str, element: int, *args: Any) -> Any:
        index = self._index("table", name)
        return self._call(self._live().table_function(index, element), f"table {index}[{element}]", args)

    def _call(self, function: Function, label: str, args: Sequence[Any]) -> Any:
        native = self._native
        if len(args) != len(function.params):
            raise TypeError(f"{label} takes {len(function.params)} arguments, got {len(args)}")
        raw = [native.to_raw(value, t) for value, t in zip(args, function.params, strict=True)]
        answers = [native.from_raw(bits, t) for bits, t in zip(native.call(function, raw), function.results, strict=True)]
        return None if not answers else answers[0] if len(answers) == 1 else answers

    def call_raw(self, export: str, raw: Sequence[Raw]) -> list[Raw]:
        return self._native.call(self._live().exported(self._target(export)), raw)


# -- v128 ----------------------------------------------------------------------------------------------------------------

_HALF = (1 << 64) - 1


def _flattened(types: Sequence[str]) -> list[str]:
    return [half for t in types for half in (("i64", "i64") if t == "v128" else (t,))]


def _joined(flat: Sequence[Raw], types: Sequence[str]) -> list[Raw]:
    words = iter(flat)
    return [next(words) | next(words) << 64 if t == "v128" else next(words) for t in types]


def _split(raw: Sequence[Raw], types: Sequence[str]) -> list[Raw]:
    return [half for bits, t in zip(raw, types, strict=True) for half in ((bits & _HALF, bits >> 64) if t == "v128" else (bits,))]


def _vector_shim(params: Sequence[str], results: Sequence[str]) -> str:
    """A function with v128 in its type, around an import that takes and gives each as two i64, low first."""
    flat = _flattened(results)
    push = " ".join(
        f"(i64x2.extract_lane 0 (local.get {i})) (i64x2.extract_lane 1 (local.get {i}))" if t == "v128" else f"(local.get {i})"
        for i, t in enumerate(params)
    )
    pop = " ".join(f"(local.set {len(params) + i})" for i in reversed(range(len(flat))))
    answers, at = [], len(params)
    for t in results:
        if t == "v128":
            answers.append(f"(i64x2.replace_lane 1 (i64x2.splat (local.get {at})) (local.get {at + 1}))")
        else:
            answers.append(f"(local.get {at})")
        at += 2 if t == "v128" else 1
    return (
        f'(module (import "python" "f" (func $f (param {" ".join(_flattened(params))}) (result {" ".join(flat)})))'
        f' (func (export "f") (param {" ".join(params)}) (result {" ".join(results)}) (local {" ".join(flat)})'
        f" (call $f {push}) {pop} {' '.join(answers)}))"
    )
