"""Linear memories made by the host: the journal window as a shared file mapping, and every guest memory within reach.

wasmtime asks this creator for each linear memory. That is what lets the window survive a killed process, lets hosts and
digests read memories a module does not export, and lets a replay repeat a growth the operating system once refused.
Memories are numbered in the order in which they are made; instantiating a module makes its own memories in index order.
"""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from wasmtime import _bindings as ffi

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
_libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
_libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]

_PROT_NONE = 0
_PROT_RW = mmap.PROT_READ | mmap.PROT_WRITE
_MAP_FIXED = 0x10
_MAP_NORESERVE = 0x4000
_MAP_FAILED = ctypes.c_void_p(-1).value

_FINALIZER = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


@dataclass
class HostMemory:
    """One linear memory: where it lies in this process and how large it is now."""

    ordinal: int
    base: int
    size: int
    capacity: int
    mapped: int
    grows: int = 0
    """Growth requests that reached the operating system so far."""
    alive: bool = True
    callbacks: list[Any] = field(default_factory=list, repr=False)

    def read(self, address: int, length: int) -> bytes:
        self._check(address, length)
        return ctypes.string_at(self.base + address, length)

    def write(self, address: int, data: bytes | bytearray | memoryview) -> None:
        source = data if isinstance(data, bytes) else bytes(data)  # a view may have items of any size, in any order
        length = len(source)
        self._check(address, length)
        if length:
            ctypes.memmove(self.base + address, source, length)

    def view(self) -> memoryview:
        """The memory's bytes in place. The guest changes them while it runs; growing does not move them."""
        self._check(0, self.size)
        return memoryview((ctypes.c_ubyte * self.size).from_address(self.base)).cast("B")

    def _check(self, address: int, length: int) -> None:
        if not self.alive:
            raise ValueError("the memory is gone: its store was closed")
        if address < 0 or length < 0 or address + length > self.size:
            raise IndexError(f"{length} bytes at {address:#x} lie outside the memory of {self.size} bytes")


class MemoryCreator:
    """Makes linear memories for one engine. The engine keeps a pointer into `raw`, so the two must live equally long."""

    def __init__(self) -> None:
        self.made: list[HostMemory] = []
        self.backing: int | None = None
        """File descriptor to map, shared, as the next memory; taken once."""
        self.on_refused: Callable[[HostMemory, int], None] | None = None
        """Told when the operating system refuses growth number n of a memory (recording)."""
        self.refuses: Callable[[HostMemory, int], bool] | None = None
        """Asked whether growth number n of a memory is to be refused, as it was while recording (replay)."""
        self.interrupted: BaseException | None = None
        """What was raised (by a signal handler) while the engine was calling; it cannot pass through the engine."""
        self._new = ffi.wasmtime_new_memory_callback_t(self._guarded(self._new_memory))
        self._finalizer = _FINALIZER(lambda _env: None)
        self.raw = ffi.wasmtime_memory_creator(None, self._new, self._finalizer)

    def _guarded(self, callback: Callable[..., int]) -> Callable[..., int]:
        """An exception out of a callback would leave the engine with whatever stands in the return register."""

        def guarded(*args: Any) -> int:
            try:
                return callback(*args)
            except BaseException as error:
                self.interrupted = error
                return _new_error(f"interrupted by {type(error).__name__}")

        return guarded

    def _new_memory(self, _env: Any, _type: Any, minimum: int, maximum: int, reserved: int, guard: int, result: Any) -> int:
        capacity = max(reserved, minimum)
        mapped = max(capacity + guard, mmap.PAGESIZE)
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_NORESERVE
        base = _libc.mmap(None, mapped, _PROT_NONE, flags, -1, 0)
        if base is None or base == _MAP_FAILED:
            return _new_error(f"cannot reserve {mapped} bytes of address space for a linear memory")
        if minimum and not self._open(base, minimum):
            _libc.munmap(base, mapped)
            return _new_error(f"cannot map {minimum} bytes for a linear memory")
        memory = HostMemory(len(self.made), base, minimum, capacity, mapped)
        self.made.append(memory)
        self._fill(result, memory)
        return 0

    def _open(self, base: int, size: int) -> bool:
        if self.backing is None:
            return bool(_libc.mprotect(base, size, _PROT_RW) == 0)
        handle, self.backing = self.backing, None
        return bool(_libc.mmap(base, size, _PROT_RW, mmap.MAP_SHARED | _MAP_FIXED, handle, 0) == base)

    def _fill(self, result: Any, memory: HostMemory) -> None:
        def get(_env: Any, size: Any, capacity: Any) -> int:
            size[0] = memory.size
            capacity[0] = memory.capacity
            return memory.base

        def grow(_env: Any, new_size: int) -> int:
            number = memory.grows
            memory.grows += 1
            if new_size > memory.capacity:
                return _new_error("a linear memory cannot grow beyond the address space reserved for it")
            if self.refuses is not None and self.refuses(memory, number):
                return _new_error("growth refused, as it was while recording")
            if _libc.mprotect(memory.base, new_size, _PROT_RW) != 0:
                if self.on_refused is not None:
                    self.on_refused(memory, number)
                return _new_error("the operating system refused to grow a linear memory")
            memory.size = new_size
            return 0

        def finish(_env: Any) -> None:
            memory.alive = False
            _libc.munmap(memory.base, memory.mapped)

        memory.callbacks = [
            ffi.wasmtime_memory_get_callback_t(get),
            ffi.wasmtime_memory_grow_callback_t(self._guarded(grow)),
            _FINALIZER(finish),
        ]
        result[0].env = None
        result[0].get_memory, result[0].grow_memory, result[0].finalizer = memory.callbacks


def _new_error(message: str) -> int:
    error = ffi.wasmtime_error_new(ctypes.create_string_buffer(message.encode()))
    return int(ctypes.cast(error, ctypes.c_void_p).value or 0)
