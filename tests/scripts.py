"""Hosts made of lists: what a host does to a guest is data, so that one script runs natively and recorded, and can be generated.

An action is a tuple whose first item names it; see `Script.perform`. Everything a script observes goes into its log, so equal
logs mean that neither guest nor host could tell the runs apart.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import wasmtime

from recorder.boundary.raw import GuestExit, GuestTrap
from recorder.python_host import Bits, Guest, HostFunction, HostTrap
from tests.harness import assemble
from tests.native import Ended, Native, World

Action = tuple[Any, ...]


class HostError(Exception):
    """Raised by scripts."""


class Reach(Protocol):
    """What a script does to a guest."""

    def read(self, address: int, length: int, memory: str) -> bytes: ...
    def write(self, address: int, data: bytes, memory: str) -> None: ...
    def grow(self, pages: int, memory: str) -> int: ...
    def size(self, memory: str) -> int: ...
    def get(self, name: str) -> int: ...
    def set(self, name: str, bits: int) -> None: ...
    def table_set(self, element: int, what: Any, count: int) -> None: ...
    def table_kind(self, element: int) -> str: ...
    def table_take(self, element: int) -> Any: ...
    def table_grow(self, delta: int, what: Any) -> int: ...
    def extern_set(self, element: int, value: object) -> None: ...
    def extern_get(self, element: int) -> object: ...
    def define(self, script: Script, node: int) -> Any: ...
    def call(self, export: str, args: Sequence[int]) -> int | None: ...
    def call_table(self, element: int, args: Sequence[int]) -> int | None: ...


def payload(length: int, seed: int) -> bytes:
    return bytes((seed * 37 + i * 11 + (i >> 8)) & 0xFF for i in range(min(length, 4096))) * (length // 4096 + 1)


def how(error: BaseException) -> str:
    """An exception that came out of the guest, in words that do not depend on who ran it."""
    if isinstance(error, GuestTrap):
        return f"trap {error.code}"
    if isinstance(error, GuestExit):
        return f"exit {error.code}"
    if isinstance(error, wasmtime.ExitTrap):
        return f"exit {error.code}"
    if isinstance(error, wasmtime.Trap):
        return f"trap {-1 if error.trap_code is None else error.trap_code.value}"
    if isinstance(error, wasmtime.WasmtimeError):
        return "trap -1"
    return f"raised {type(error).__name__}"


_OBJECTS: list[object] = ["text", 7, ("tuple",), object(), 3.5]


@dataclass
class Script:
    """`main` is what the embedder does; `nodes[n]` is what the host does when the guest calls it with n."""

    main: Sequence[Action]
    nodes: Mapping[int, Sequence[Action]] = field(default_factory=dict)
    budget: int = 2000
    """Actions performed at most: functions in tables can make loops."""
    log: list[Any] = field(default_factory=list)
    taken: list[Any] = field(default_factory=list)

    def again(self) -> Script:
        return Script(self.main, self.nodes, self.budget)

    def run(self, reach: Reach) -> None:
        for action in self.main:
            self.perform(reach, action)

    def act(self, reach: Reach, node: int) -> int:
        for action in self.nodes.get(node, ()):
            if self.budget <= 0:
                break
            if action[0] == "return":
                return int(action[1])
            self.perform(reach, action)
        return len(self.log) & 0x7FFF

    def perform(self, reach: Reach, action: Action) -> None:
        self.budget -= 1
        name, *rest = action
        if name == "try":
            try:
                self.perform(reach, rest[0])
            except Exception as error:
                self.log.append(how(error))
            return
        self.log.append((name, getattr(self, f"_{name}")(reach, *rest)))

    def _read(self, reach: Reach, address: int, length: int, memory: str = "memory") -> bytes:
        return reach.read(address, length, memory)

    def _write(self, reach: Reach, address: int, length: int, seed: int = 1, memory: str = "memory") -> None:
        reach.write(address, payload(length, seed)[:length], memory)

    def _grow(self, reach: Reach, pages: int, memory: str = "memory") -> int:
        return reach.grow(pages, memory)

    def _size(self, reach: Reach, memory: str = "memory") -> int:
        return reach.size(memory)

    def _get(self, reach: Reach, name: str) -> int:
        return reach.get(name)

    def _set(self, reach: Reach, name: str, bits: int) -> None:
        reach.set(name, bits)

    def _what(self, reach: Reach, what: Any) -> Any:
        if isinstance(what, tuple) and what[0] == "host":
            return reach.define(self, what[1])
        if isinstance(what, tuple) and what[0] == "taken":
            return self.taken[what[1]] if what[1] < len(self.taken) else None
        return what

    def _table_set(self, reach: Reach, element: int, what: Any, count: int = 1) -> None:
        reach.table_set(element, self._what(reach, what), count)

    def _table_kind(self, reach: Reach, element: int) -> str:
        return reach.table_kind(element)

    def _table_take(self, reach: Reach, element: int) -> bool:
        self.taken.append(reach.table_take(element))
        return self.taken[-1] is not None

    def _table_grow(self, reach: Reach, delta: int, what: Any = None) -> int:
        return reach.table_grow(delta, self._what(reach, what))

    def _extern_set(self, reach: Reach, element: int, number: int) -> None:
        reach.extern_set(element, None if number < 0 else _OBJECTS[number])

    def _extern_get(self, reach: Reach, element: int) -> int:
        value = reach.extern_get(element)
        return -1 if value is None else next((i for i, o in enumerate(_OBJECTS) if o is value), -2)

    def _call(self, reach: Reach, export: str, *args: int) -> int | None:
        return reach.call(export, args)

    def _call_table(self, reach: Reach, element: int, *args: int) -> int | None:
        return reach.call_table(element, args)

    def _raise(self, reach: Reach, kind: str = "HostError") -> None:
        raise {"HostError": HostError, "HostTrap": HostTrap, "ValueError": ValueError}[kind]("on purpose: ünïcode")

    def _nothing(self, reach: Reach) -> None:
        pass


# -- natively ----------------------------------------------------------------------------------------------------------------


class NativeReach:
    """A script's hands on a guest that runs on plain wasmtime."""

    def __init__(self, native: Native) -> None:
        self.native = native

    def _extern(self, name: str) -> Any:
        return self.native.exports[name]

    def _at(self, address: int, length: int, memory: str) -> int:
        extern = self._extern(memory)
        if address < 0 or address + length > extern.data_len(self.native.store):
            raise IndexError("outside the memory")
        return ctypes.addressof(extern.data_ptr(self.native.store).contents) + address

    def read(self, address: int, length: int, memory: str) -> bytes:
        return ctypes.string_at(self._at(address, length, memory), length)

    def write(self, address: int, data: bytes, memory: str) -> None:
        ctypes.memmove(self._at(address, len(data), memory), data, len(data))

    def grow(self, pages: int, memory: str) -> int:
        try:
            return int(self._extern(memory).grow(self.native.store, pages))
        except wasmtime.WasmtimeError:
            return -1

    def size(self, memory: str) -> int:
        return int(self._extern(memory).data_len(self.native.store))

    def get(self, name: str) -> int:
        return int(self._extern(name).value(self.native.store))

    def set(self, name: str, bits: int) -> None:
        self._extern(name).set_value(self.native.store, bits)

    def _value(self, what: Any) -> Any:
        return self._extern(what) if isinstance(what, str) else what

    def table_set(self, element: int, what: Any, count: int) -> None:
        table, value = self._extern("table"), self._value(what)
        if element < 0 or element + count > table.size(self.native.store):
            raise IndexError("outside the table")
        for i in range(count):
            table.set(self.native.store, element + i, value)

    def _table_get(self, element: int) -> Any:
        table = self._extern("table")
        if not 0 <= element < table.size(self.native.store):
            raise IndexError("outside the table")
        value = table.get(self.native.store, element)
        return value.value if isinstance(value, wasmtime.Val) else value  # a null comes as a `Val`

    def table_kind(self, element: int) -> str:
        return "null" if self._table_get(element) is None else "function"

    def table_take(self, element: int) -> Any:
        return self._table_get(element)

    def table_grow(self, delta: int, what: Any) -> int:
        try:
            return int(self._extern("table").grow(self.native.store, delta, self._value(what)))
        except wasmtime.WasmtimeError:
            return -1

    def extern_set(self, element: int, value: object) -> None:
        table = self._extern("externs")
        if not 0 <= element < table.size(self.native.store):
            raise IndexError("outside the table")
        table.set(self.native.store, element, wasmtime.Val.externref(value))

    def extern_get(self, element: int) -> object:
        table = self._extern("externs")
        if not 0 <= element < table.size(self.native.store):
            raise IndexError("outside the table")
        value = table.get(self.native.store, element)
        return value.value if isinstance(value, wasmtime.Val) else value

    def define(self, script: Script, node: int) -> Any:
        kind = wasmtime.FuncType([wasmtime.ValType.i32()], [wasmtime.ValType.i32()])
        return wasmtime.Func(self.native.store, kind, lambda x: script.act(self, node))

    def call(self, export: str, args: Sequence[int]) -> int | None:
        return self._call(self._extern(export), args)

    def _call(self, func: Any, args: Sequence[int]) -> int | None:
        kinds = func.type(self.native.store).params
        if len(kinds) != len(args):
            raise TypeError("arguments")
        answer: int | None = func(self.native.store, *args)
        return answer

    def call_table(self, element: int, args: Sequence[int]) -> int | None:
        func = self._table_get(element)
        if func is None:
            raise KeyError("no function")
        return self._call(func, args)


# -- recorded ----------------------------------------------------------------------------------------------------------------


class RecordedReach:
    """The same through the recorder's `Guest`."""

    def __init__(self, guest: Guest) -> None:
        self.guest = guest

    def read(self, address: int, length: int, memory: str) -> bytes:
        return self.guest.read(address, length, memory)

    def write(self, address: int, data: bytes, memory: str) -> None:
        self.guest.write(address, data, memory)

    def grow(self, pages: int, memory: str) -> int:
        return self.guest.grow(pages, memory)

    def size(self, memory: str) -> int:
        return self.guest.memory_size(memory)

    def get(self, name: str) -> int:
        value = self.guest.get_global(name)
        return getattr(value, "bits", None) or int(value)

    def set(self, name: str, bits: int) -> None:
        self.guest.set_global(name, Bits(bits) if name.startswith("f") else bits)

    def table_set(self, element: int, what: Any, count: int) -> None:
        self.guest.table_set("table", element, what, count)

    def table_kind(self, element: int) -> str:
        return "null" if self.guest.table_get("table", element) is None else "function"

    def table_take(self, element: int) -> Any:
        return self.guest.table_get("table", element)

    def table_grow(self, delta: int, what: Any) -> int:
        return self.guest.table_grow("table", delta, what)

    def extern_set(self, element: int, value: object) -> None:
        self.guest.table_set("externs", element, value)

    def extern_get(self, element: int) -> object:
        value: object = self.guest.table_get("externs", element)
        return value

    def define(self, script: Script, node: int) -> Any:
        def defined(guest: Guest, x: int) -> int:
            return script.act(RecordedReach(guest), node)

        return self.guest.function("i32 -> i32", defined)

    def call(self, export: str, args: Sequence[int]) -> int | None:
        answer: int | None = self.guest.call(export, *args)
        return answer

    def call_table(self, element: int, args: Sequence[int]) -> int | None:
        answer: int | None = self.guest.call_table("table", element, *args)
        return answer


def hosts(script: Script) -> list[HostFunction]:
    """The script as the recorder's host of `env.act`."""

    def act(guest: Guest, node: int) -> int:
        return script.act(RecordedReach(guest), node)

    return [HostFunction("env", "act", ("i32",), ("i32",), act, "script")]


def run_native(wasm: bytes, script: Script) -> tuple[Native, Ended]:
    """Runs the script on plain wasmtime. How it ended is that of the driver: an exception that nobody caught."""
    holder: list[NativeReach] = []
    native = Native(wasm, World(functions={("env", "act"): lambda node: script.act(holder[0], node)}))
    holder.append(NativeReach(native))
    end = native.link()
    if end.kind == "returned":
        try:
            script.run(holder[0])
        except Exception as error:
            script.log.append(how(error))
            end = Ended("raised", what=how(error))
    return native, end


# -- the guest ---------------------------------------------------------------------------------------------------------------


def scripted_guest(*, is64: bool = False) -> bytes:
    """A guest with something of everything; all it does, it does when told to by `main` or by a node.

    go(n): counts at 0, calls env.act(n), stores the answer. bump, twice: plain functions, also in the table. boom, div, far,
    null, wrong, out, deep: traps. leave(code): proc_exit. through(i, x): call_indirect.
    """
    at = "i64.const" if is64 else "i32.const"
    index = "(i64.extend_i32_u {})" if is64 else "{}"
    grow = "(i32.wrap_i64 (memory.grow $m (i64.extend_i32_u (local.get 0))))" if is64 else "(memory.grow $m (local.get 0))"
    memories = f"""(memory $m (export "memory") {"i64 " if is64 else ""}2 100) (memory $n (export "second") 1 3)"""
    return assemble(
        f"""(module
  (type $unary (func (param i32) (result i32)))
  (type $other (func (param i64) (result i64)))
  (import "env" "act" (func $act (type $unary)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
  {memories}
  (global $g32 (export "i32") (mut i32) (i32.const 5))
  (global $g64 (export "i64") (mut i64) (i64.const -5))
  (global $f32 (export "f32") (mut f32) (f32.const 1.5))
  (global $f64 (export "f64") (mut f64) (f64.const 2.5))
  (global $v (export "v128") (mut v128) (v128.const i64x2 1 2))
  (table $t (export "table") 8 40 funcref)
  (table $x (export "externs") 4 16 externref)
  (elem (table $t) (i32.const 0) func $bump $twice $go $wide $act)
  (func $go (export "go") (type $unary) (local $r i32)
    (i32.store $m ({at} 0) (i32.add (i32.load $m ({at} 0)) (i32.const 1)))
    (local.set $r (call $act (local.get 0)))
    (i32.store $m offset=64 {index.format("(i32.shl (i32.and (i32.load $m (" + at + " 0)) (i32.const 63)) (i32.const 2))")}
      (local.get $r))
    (i32.add (local.get $r) (global.get $g32)))
  (func $bump (export "bump") (type $unary)
    (i32.store $m ({at} 4) (i32.add (i32.load $m ({at} 4)) (local.get 0)))
    (global.set $g32 (i32.add (global.get $g32) (i32.const 1)))
    (global.set $g64 (i64.mul (global.get $g64) (i64.const 3)))
    (i32.load $m ({at} 4)))
  (func $twice (export "twice") (type $unary) (i32.shl (local.get 0) (i32.const 1)))
  (func $wide (export "wide") (type $other) (i64.mul (local.get 0) (i64.const 7)))
  (func (export "boom") (type $unary) unreachable)
  (func (export "div") (type $unary) (i32.div_s (i32.const 1) (i32.const 0)))
  (func (export "far") (type $unary) (i32.store $m ({at} 8) (i32.const 77)) (i32.load $m ({at} 0x7fffffff)))
  (func (export "null") (type $unary) (call_indirect $t (type $unary) (local.get 0) (i32.const 7)))
  (func (export "wrong") (type $unary) (call_indirect $t (type $unary) (local.get 0) (i32.const 3)))
  (func (export "out") (type $unary) (call_indirect $t (type $unary) (local.get 0) (i32.const 1000)))
  (func $deep (export "deep") (type $unary) (i32.add (call $deep (local.get 0)) (i32.const 1)))
  (func (export "leave") (type $unary) (call $exit (local.get 0)) (i32.const 0))
  (func (export "through") (param i32 i32) (result i32)
    (call_indirect $t (type $unary) (local.get 1) (local.get 0)))
  (func (export "peek") (type $unary) (i32.load8_u $m {index.format("(local.get 0)")}))
  (func (export "poke") (type $unary) (i32.store8 $n (local.get 0) (i32.const 99)) (i32.load $n (local.get 0)))
  (func (export "grow") (type $unary) {grow})
  (func (export "f32bits") (result i32) (i32.reinterpret_f32 (global.get $f32)))
  (func (export "f64bits") (result i64) (i64.reinterpret_f64 (global.get $f64)))
  (func (export "vlow") (result i64) (i64x2.extract_lane 1 (global.get $v)))
  (func (export "swap") (param i32 i32)
    (table.set $t (local.get 0) (table.get $t (local.get 1))))
  (func (export "has") (type $unary) (ref.is_null (table.get $x (local.get 0))))
  (func (export "moves") (param i32 i32) (table.set $x (local.get 0) (table.get $x (local.get 1)))))"""
    )
