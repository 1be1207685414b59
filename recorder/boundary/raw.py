"""Calling the engine with raw bits: values cross as unsigned integers, so that no NaN payload is lost on the way.

The public wasmtime API turns f32 into Python floats (which quiets signalling NaNs), has no v128, and looks a function's type
up on every call. This module uses the engine's unchecked calls instead; types are checked once, by whoever builds a `Function`.
References are the exception: they cross as wasmtime objects.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import wasmtime
from wasmtime import _bindings as ffi
from wasmtime import _ffi as kinds

Raw = int
"""A value as raw bits: i32 and f32 zero-extended, v128 as one 128-bit integer."""

_FINALIZER = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
_NO_FINALIZER = _FINALIZER()
_VALUE = ctypes.sizeof(ffi.wasmtime_val_raw_t)
_WIDTH = {"i32": 4, "f32": 4, "i64": 8, "f64": 8, "v128": 16}
_TYPES: dict[str, Callable[[], wasmtime.ValType]] = {
    "i32": wasmtime.ValType.i32,
    "i64": wasmtime.ValType.i64,
    "f32": wasmtime.ValType.f32,
    "f64": wasmtime.ValType.f64,
    "funcref": wasmtime.ValType.funcref,
    "externref": wasmtime.ValType.externref,
}


GUEST_FRAMES = "__guest_frames__"
"""Attribute of an exception that crossed Wasm frames: which ones, innermost first."""


class GuestTrap(Exception):
    """The guest, or a host called by it, trapped. `code` is wasmtime's trap code, -1 for a trap without one."""

    def __init__(self, code: int, message: str, backtrace: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.backtrace = backtrace


class GuestExit(Exception):
    """The guest ended itself (`proc_exit`)."""

    def __init__(self, code: int) -> None:
        super().__init__(f"exit code {code}")
        self.code = code


STACK_OVERFLOW = wasmtime.TrapCode.STACK_OVERFLOW.value
UNREACHABLE = wasmtime.TrapCode.UNREACHABLE.value


@dataclass
class Function:
    """A guest function ready to be called with raw values."""

    func: Any
    """`wasmtime_func_t`"""
    params: tuple[str, ...]
    results: tuple[str, ...]


RECURSION = 10_000
"""Python frames allowed below a guest. A guest and its hosts may call each other until the guest's stack is used up (some 270
levels to the MiB, a dozen frames each): that is a trap, and can be recorded. Python's own limit of 1,000 would strike earlier, in
the recorder's code or, where ctypes drops the exception, without anybody noticing."""


class Machine:
    """One store: calls in, calls out, and the Python exception that is on its way through Wasm frames."""

    def __init__(self, engine: wasmtime.Engine) -> None:
        sys.setrecursionlimit(max(sys.getrecursionlimit(), RECURSION))
        self.store = wasmtime.Store(engine)
        self.context = self.store._context()
        self._pending: BaseException | None = None
        self._callbacks: list[Any] = []
        self._memories: Any = getattr(engine, "_memories", None)
        self.references = References(self)

    # -- calling the guest -----------------------------------------------------------------------------------------------

    def function_type(self, func: wasmtime.Func) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The signature of a function. Not for modules that use v128 in signatures: the engine's API aborts on those."""
        kind = func.type(self.store)
        return tuple(map(str, kind.params)), tuple(map(str, kind.results))

    def call(self, function: Function, args: Sequence[Raw]) -> list[Raw]:
        """Calls a function with raw values; references as identity numbers. Raises GuestTrap, GuestExit or what a host raised."""
        slots = max(len(function.params), len(function.results))
        buffer = (ffi.wasmtime_val_raw_t * slots)()
        base = ctypes.addressof(buffer)
        for i, (t, value) in enumerate(zip(function.params, args, strict=True)):
            self._put(base + i * _VALUE, t, value)
        trap = ctypes.POINTER(ffi.wasm_trap_t)()
        error = ffi.wasmtime_func_call_unchecked(self.context, ctypes.byref(function.func), buffer, slots, ctypes.byref(trap))
        if error or trap:
            self._raise(error, trap)
        self._raise_interrupted()
        return [self._get(base + i * _VALUE, t) for i, t in enumerate(function.results)]

    def instantiate(self, module: wasmtime.Module, imports: Sequence[Any]) -> wasmtime.Instance:
        try:
            instance = wasmtime.Instance(self.store, module, imports)
            self._raise_interrupted()
            return instance
        except wasmtime.ExitTrap as error:
            self._reraise_pending()
            raise GuestExit(error.code) from None
        except wasmtime.Trap as error:
            self._reraise_pending()
            raise _guest_trap(error) from None
        except wasmtime.WasmtimeError:
            self._raise_interrupted()
            raise

    def _raise_interrupted(self) -> None:
        """Passes on what a signal handler raised while the engine was asking for memory."""
        if self._memories is not None and self._memories.interrupted is not None:
            interrupted, self._memories.interrupted = self._memories.interrupted, None
            raise interrupted

    def _raise(self, error: Any, trap: Any) -> None:
        if trap:
            problem: Exception = wasmtime.Trap._from_ptr(trap)
        else:
            problem = wasmtime.WasmtimeError._from_ptr(error)
        if self._pending is not None and isinstance(problem, wasmtime.Trap) and not hasattr(self._pending, GUEST_FRAMES):
            setattr(self._pending, GUEST_FRAMES, guest_frames(problem))
        self._reraise_pending()
        if isinstance(problem, wasmtime.ExitTrap):
            raise GuestExit(problem.code) from None
        if isinstance(problem, wasmtime.Trap):
            raise _guest_trap(problem) from None
        raise GuestTrap(-1, str(problem)) from None

    def _reraise_pending(self) -> None:
        if self._pending is not None:
            pending, self._pending = self._pending, None
            raise pending

    # -- being called by the guest -------------------------------------------------------------------------------------

    def host_function(
        self, params: Sequence[str], results: Sequence[str], call: Callable[..., Sequence[Raw] | None]
    ) -> wasmtime.Func:
        """A function the guest can call; `call` gets and returns raw values. References cross as wasmtime values."""
        kind = wasmtime.FuncType([_TYPES[t]() for t in params], [_TYPES[t]() for t in results])
        signature = tuple((i * _VALUE, t) for i, t in enumerate(params))
        answers = tuple((i * _VALUE, t) for i, t in enumerate(results))

        def callback(_env: Any, _caller: Any, values: Any, _count: int) -> int:
            try:
                base = ctypes.addressof(values.contents) if values else 0
                answer = call(*[self._get(base + at, t) for at, t in signature])
                if answers:
                    for (at, t), value in zip(answers, answer or (), strict=True):
                        self._put(base + at, t, value)
                return 0
            except BaseException as error:
                self._pending = error
                message = b"host exception"
                trap = ffi.wasmtime_trap_new(ctypes.create_string_buffer(message), len(message))
                return ctypes.cast(trap, ctypes.c_void_p).value or 0

        raw = ffi.wasmtime_func_unchecked_callback_t(callback)
        self._callbacks.append(raw)
        func = ffi.wasmtime_func_t()
        ffi.wasmtime_func_new_unchecked(self.context, kind.ptr(), raw, None, _NO_FINALIZER, ctypes.byref(func))
        return wasmtime.Func._from_raw(func)

    # -- values ------------------------------------------------------------------------------------------------------------

    def _put(self, address: int, t: str, value: Raw) -> None:
        width = _WIDTH.get(t)
        if width is None:
            self.references.put(address, t, value)
        else:
            ctypes.memmove(address, value.to_bytes(width, "little"), width)

    def _get(self, address: int, t: str) -> Raw:
        width = _WIDTH.get(t)
        if width is None:
            return self.references.get(address, t)
        return int.from_bytes(ctypes.string_at(address, width), "little")


class References:
    """Identity numbers for references: from 1 in the order in which they first crossed, 0 for null.

    External references are Python objects on the recording side. On replay there are none, so numbers stand for themselves.
    """

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._functions: list[Any] = [None]
        self._function_numbers: dict[int, int] = {}
        self._objects: list[Any] = [None]
        self._object_numbers: dict[int, int] = {}

    def number_of_object(self, value: object) -> int:
        """The number of a host object; by identity, not equality."""
        if value is None:
            return 0
        number = self._object_numbers.get(id(value))
        if number is None:
            number = len(self._objects)
            self._objects.append(value)  # kept alive, so its id stays its own
            self._object_numbers[id(value)] = number
        return number

    def object_of(self, number: int) -> object:
        while number >= len(self._objects):
            self.number_of_object(_Stranger())
        return self._objects[number]

    def number_of_function(self, func: wasmtime.Func | None) -> int:
        if func is None:
            return 0
        return self._number_of_raw_function(self.address_of_function(func), func._func)

    def address_of_function(self, func: wasmtime.Func) -> int:
        """Where the engine keeps the function: the same for equal references, meaningless in another process."""
        return ffi.wasmtime_func_to_raw(self._machine.context, ctypes.byref(func._func)) or 0  # type: ignore[return-value]

    def function_of(self, number: int) -> wasmtime.Func | None:
        if number == 0:
            return None
        if number >= len(self._functions):
            raise IndexError(f"function reference {number} has not crossed the boundary")
        return wasmtime.Func._from_raw(self._functions[number])

    def _number_of_raw_function(self, address: int, func: Any) -> int:
        number = self._function_numbers.get(address)
        if number is None:
            number = len(self._functions)
            self._functions.append(func)
            self._function_numbers[address] = number
        return number

    def get(self, address: int, t: str) -> int:
        if t == "funcref":
            pointer = ctypes.c_void_p.from_address(address).value
            if not pointer:
                return 0
            func = ffi.wasmtime_func_t()
            ffi.wasmtime_func_from_raw(self._machine.context, pointer, ctypes.byref(func))
            return self._number_of_raw_function(pointer, func)
        raw = ctypes.c_uint32.from_address(address).value
        if raw == 0:
            return 0
        reference = ffi.wasmtime_externref_t()
        ffi.wasmtime_externref_from_raw(self._machine.context, raw, ctypes.byref(reference))
        data = ffi.wasmtime_externref_data(self._machine.context, ctypes.byref(reference))
        ffi.wasmtime_externref_unroot(ctypes.byref(reference))
        return int(data or 0)

    def number_of_value(self, value: Any) -> int | None:
        """The number behind an external reference in a `wasmtime_val_t`; None for null."""
        if not value.of.externref.store_id:
            return None
        number: Any = ffi.wasmtime_externref_data(self._machine.context, ctypes.byref(value.of.externref))
        return int(number or 0)

    def as_value(self, reference: int | wasmtime.Func | None, kind: str) -> Any:
        """A `wasmtime_val_t` holding a function, the external reference with that number, or null of the given type."""
        if kind == "funcref":
            value = ffi.wasmtime_val_t(kind=kinds.WASMTIME_FUNCREF)
            if isinstance(reference, wasmtime.Func):
                value.of.funcref = reference._func
            else:
                value.of.funcref.store_id = 0
            return value
        value = ffi.wasmtime_val_t(kind=kinds.WASMTIME_EXTERNREF)
        if isinstance(reference, int) and reference:
            self._new_extern(reference, value.of.externref)
        else:
            value.of.externref.store_id = 0
        return value

    def _new_extern(self, number: int, reference: Any) -> None:
        # The number itself is the host data: it needs no finaliser and reads back the same anywhere.
        if not ffi.wasmtime_externref_new(self._machine.context, number, _NO_FINALIZER, ctypes.byref(reference)):
            raise MemoryError("the engine has no room for another external reference")

    def put(self, address: int, t: str, number: int) -> None:
        if t == "funcref":
            func = self.function_of(number)
            ctypes.c_void_p.from_address(address).value = self.address_of_function(func) if func is not None else None
            return
        if number == 0:
            ctypes.c_uint32.from_address(address).value = 0
            return
        reference = ffi.wasmtime_externref_t()
        self._new_extern(number, reference)
        raw = ffi.wasmtime_externref_to_raw(self._machine.context, ctypes.byref(reference))
        ffi.wasmtime_externref_unroot(ctypes.byref(reference))
        ctypes.c_uint32.from_address(address).value = int(raw)


class _Stranger:
    """Stands for a host object of the recording in a replay."""


def guest_frames(error: wasmtime.Trap) -> list[str]:
    """The guest's frames in a trap's backtrace, innermost first, as `name (+offset in the code)`."""
    frames = []
    for frame in error.frames:
        name = frame.func_name or f"function {frame.func_index}"
        frames.append(f"{name} (module offset {frame.module_offset:#x})")
    return frames


def _guest_trap(error: wasmtime.Trap) -> GuestTrap:
    code = error.trap_code
    message = error.message
    first = message.strip().splitlines()
    text = first[-1].strip() if first else message
    for line in first:
        if line.strip().startswith("wasm trap:"):
            text = line.strip().removeprefix("wasm trap:").strip()
    return GuestTrap(code.value if code is not None else -1, text, message)
