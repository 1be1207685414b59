"""The determinism profile: one engine configuration for native, recorded and replayed runs, and a private code cache.

This module alone decides which options the engine runs with. Everything that could make two runs of one module differ is
set explicitly, so that an engine's changed default cannot change a replay. The profile's fingerprint goes into the manifest.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import json
import platform
from dataclasses import asdict, dataclass
from functools import cache as remembered
from importlib.metadata import version

import wasmtime
from wasmtime import _bindings as ffi

from recorder.boundary import cache
from recorder.boundary.memories import MemoryCreator

ENGINE_NAME = "wasmtime"


@remembered
def engine_version() -> str:
    return version("wasmtime")


@dataclass(frozen=True)
class Profile:
    """Every option determinism depends on. Proposals not named here are switched off."""

    nan_canonicalization: bool = True
    relaxed_simd_deterministic: bool = True
    tail_call: bool = True
    reference_types: bool = True
    function_references: bool = True
    gc: bool = True
    simd: bool = True
    relaxed_simd: bool = True
    bulk_memory: bool = True
    multi_value: bool = True
    multi_memory: bool = True
    memory64: bool = True
    exceptions: bool = True
    branch_hinting: bool = True
    wide_arithmetic: bool = True
    threads: bool = False
    shared_memory: bool = False
    custom_page_sizes: bool = False
    stack_switching: bool = False
    max_wasm_stack: int = 1 << 20
    """Bytes of native stack a guest may use, hosts called by it included."""
    memory_reservation: int = 4 << 30
    """Address space reserved for each memory; memories never move, and grow only inside it."""
    memory_guard: int = 32 << 20

    def fingerprint(self) -> str:
        text = json.dumps({"engine": ENGINE_NAME, "version": engine_version(), **asdict(self)}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


class Engine:
    """A wasmtime engine with the profile, and the creator through which every linear memory is made."""

    def __init__(self, profile: Profile | None = None, *, one_thread: bool = False) -> None:
        """`one_thread`: the engine starts no threads to compile with, because the process is going to fork."""
        self.profile = profile or Profile()
        self.one_thread = one_thread
        self.memories = MemoryCreator()
        self._adopted: dict[bytes, wasmtime.Module] = {}
        self.engine = wasmtime.Engine(self._config())
        # The engine calls into the creator for as long as it lives, whoever still holds it.
        self.engine._memories = self.memories  # type: ignore[attr-defined]

    def _config(self) -> wasmtime.Config:
        p = self.profile
        config = wasmtime.Config()
        raw = config.ptr()
        config.cranelift_opt_level = "speed"
        if self.one_thread:
            config.parallel_compilation = False
        config.wasm_threads = p.threads
        config.wasm_tail_call = p.tail_call
        config.wasm_reference_types = p.reference_types
        config.wasm_simd = p.simd
        config.wasm_bulk_memory = p.bulk_memory
        config.wasm_multi_value = p.multi_value
        config.wasm_multi_memory = p.multi_memory
        config.wasm_memory64 = p.memory64
        config.wasm_relaxed_simd = p.relaxed_simd
        config.wasm_relaxed_simd_deterministic = p.relaxed_simd_deterministic
        # The Python wrapper has no setters for these.
        ffi.wasmtime_config_wasm_function_references_set(raw, p.function_references)
        ffi.wasmtime_config_gc_support_set(raw, True)
        ffi.wasmtime_config_wasm_gc_set(raw, p.gc)
        ffi.wasmtime_config_wasm_exceptions_set(raw, p.exceptions)
        ffi.wasmtime_config_wasm_branch_hinting_set(raw, p.branch_hinting)
        ffi.wasmtime_config_wasm_wide_arithmetic_set(raw, p.wide_arithmetic)
        ffi.wasmtime_config_wasm_custom_page_sizes_set(raw, p.custom_page_sizes)
        ffi.wasmtime_config_wasm_stack_switching_set(raw, p.stack_switching)
        ffi.wasmtime_config_shared_memory_set(raw, p.shared_memory)
        ffi.wasmtime_config_cranelift_nan_canonicalization_set(raw, p.nan_canonicalization)
        # wasmtime refuses a Wasm stack larger than the stack it sets aside for async calls, used or not.
        ffi.wasmtime_config_async_stack_size_set(raw, p.max_wasm_stack + (1 << 20))
        ffi.wasmtime_config_max_wasm_stack_set(raw, p.max_wasm_stack)
        ffi.wasmtime_config_memory_reservation_set(raw, p.memory_reservation)
        ffi.wasmtime_config_memory_guard_size_set(raw, p.memory_guard)
        ffi.wasmtime_config_memory_may_move_set(raw, False)
        # A host memory creator cannot serve copy-on-write images: wasmtime aborts if both are on.
        ffi.wasmtime_config_memory_init_cow_set(raw, False)
        ffi.wasmtime_config_host_memory_creator_set(raw, ctypes.byref(self.memories.raw))
        return config

    def compile(self, wasm: bytes, *, keep: bool = True) -> wasmtime.Module:
        """Compiles `wasm`, or takes its machine code from the user's private cache. Without `keep`, the cache is left alone."""
        if not keep:
            return wasmtime.Module(self.engine, wasm)
        adopted = self._adopted.get(wasm)
        if adopted is not None:
            return adopted
        key = f"{self.profile.fingerprint()} {platform.machine()} {_cpu_features()}".encode() + wasm
        code = cache.load("code", key)
        if code is not None:
            with contextlib.suppress(wasmtime.WasmtimeError):
                return wasmtime.Module.deserialize(self.engine, code)
        module = wasmtime.Module(self.engine, wasm)
        cache.save("code", key, bytes(module.serialize()))
        return module

    def adopt(self, wasm: bytes, code: bytes) -> None:
        """Takes machine code that an engine of the same profile made of `wasm` in a process of this program."""
        self._adopted[wasm] = wasmtime.Module.deserialize(self.engine, code)


def _cpu_features() -> str:
    try:
        with open("/proc/cpuinfo", encoding="ascii", errors="replace") as lines:
            for line in lines:
                if line.startswith(("flags", "Features")):
                    return line
    except OSError:
        pass
    return platform.processor()
