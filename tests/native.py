"""The oracle's half of the harness: runs a guest on plain wasmtime. It imports nothing of this project, and a test proves it.

The engine options are written out here a second time on purpose: they are the ones that change what a guest computes, not those
that only decide how a recorder gets at its memory.

    python tests/native.py GUEST.wasm WORK_DIR STDIN [ARGS…]     runs a command and prints a JSON report on stderr's last line
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import wasmtime
from wasmtime import _bindings as ffi

WASI = "wasi_snapshot_preview1"


@dataclass(frozen=True)
class Ended:
    """How a call into the guest ended; equal for equal behaviour, whoever ran it."""

    kind: str
    """returned, trap, exit, raised"""
    values: tuple[int, ...] = ()
    """Results as raw bits, unsigned."""
    code: int | None = None
    """Trap code (-1 without one) or exit code."""
    what: str = ""
    """Type of the exception a host raised."""


@dataclass
class World:
    """What a native run is given."""

    argv: Sequence[str] = ()
    env: Sequence[tuple[str, str]] = ()
    preopens: Sequence[tuple[Path, str, bool]] = ()
    stdin: Path | None = None
    functions: Mapping[tuple[str, str], Callable[..., Any]] = field(default_factory=dict)
    """Host functions by import; called with plain Python values."""


@cache
def engine() -> wasmtime.Engine:
    config = wasmtime.Config()
    raw = config.ptr()
    config.cranelift_opt_level = "speed"
    config.wasm_threads = False
    config.wasm_tail_call = True
    config.wasm_multi_memory = True
    config.wasm_memory64 = True
    config.wasm_relaxed_simd = True
    config.wasm_relaxed_simd_deterministic = True
    ffi.wasmtime_config_wasm_function_references_set(raw, True)
    ffi.wasmtime_config_wasm_gc_set(raw, True)
    ffi.wasmtime_config_wasm_exceptions_set(raw, True)
    ffi.wasmtime_config_cranelift_nan_canonicalization_set(raw, True)
    ffi.wasmtime_config_async_stack_size_set(raw, 2 << 20)
    ffi.wasmtime_config_max_wasm_stack_set(raw, 1 << 20)
    return wasmtime.Engine(config)


@cache
def compiled(wasm: bytes) -> wasmtime.Module:
    return wasmtime.Module(engine(), wasm)


_WIDTH = {"i32": 32, "f32": 32, "i64": 64, "f64": 64}


def signed(bits: int, width: int) -> int:
    return bits - (1 << width) if bits >> (width - 1) else bits


def ended(call: Callable[[], tuple[int, ...]]) -> Ended:
    """Runs `call` and says how it ended."""
    try:
        return Ended("returned", call())
    except wasmtime.ExitTrap as error:
        return Ended("exit", code=error.code)
    except wasmtime.Trap as error:
        code = error.trap_code
        return Ended("trap", code=-1 if code is None else code.value)
    except wasmtime.WasmtimeError:
        return Ended("trap", code=-1)
    except Exception as error:
        return Ended("raised", what=type(error).__name__)


class Native:
    """A guest instantiated on plain wasmtime."""

    def __init__(self, wasm: bytes, world: World | None = None, imports: Mapping[tuple[str, str], Any] | None = None) -> None:
        """`imports`: externs (memories, tables, globals) by name; made by the caller with `make`, which needs a store first."""
        world = world or World()
        self.world = world
        self.store = wasmtime.Store(engine())
        config = wasmtime.WasiConfig()
        config.argv = list(world.argv)
        config.env = [list(pair) for pair in world.env]
        config.inherit_stdout()
        config.inherit_stderr()
        if world.stdin is not None:
            config.stdin_file = str(world.stdin)
        for host, guest, writable in world.preopens:
            config.preopen_dir(str(host), guest, writable)
        self.store.set_wasi(config)
        self.module = compiled(wasm)
        self._imports = dict(imports or {})
        self.provided: dict[tuple[str, str], Any] = {}
        self.instance: wasmtime.Instance | None = None

    def link(self, provided: Callable[[Native], Mapping[tuple[str, str], Any]] | None = None) -> Ended:
        """Instantiates; a start function runs now. `provided` makes the imported memories, tables and globals."""
        linker = wasmtime.Linker(engine())
        linker.define_wasi()
        self.provided = dict(provided(self)) if provided is not None else {}
        imports: list[Any] = []
        for i in self.module.imports:
            key = (i.module, i.name or "")
            if key in self.provided:
                imports.append(self.provided[key])
            elif key in self.world.functions:
                assert isinstance(i.type, wasmtime.FuncType)
                imports.append(wasmtime.Func(self.store, i.type, self.world.functions[key]))
            else:
                imports.append(linker.get(self.store, i.module, i.name or ""))

        def run() -> tuple[int, ...]:
            self.instance = wasmtime.Instance(self.store, self.module, imports)
            return ()

        return ended(run)

    @property
    def exports(self) -> Any:
        assert self.instance is not None
        return self.instance.exports(self.store)

    def call(self, name: str, *args: int) -> Ended:
        """Calls an export with raw integer bits."""
        func = self.exports[name]
        kinds = [str(t) for t in func.type(self.store).params]
        results = [str(t) for t in func.type(self.store).results]
        given = [signed(a & ((1 << _WIDTH[t]) - 1), _WIDTH[t]) for a, t in zip(args, kinds, strict=True)]

        def run() -> tuple[int, ...]:
            answer = func(self.store, *given)
            values = [] if answer is None else answer if isinstance(answer, list) else [answer]
            return tuple(int(v) & ((1 << _WIDTH[t]) - 1) for v, t in zip(values, results, strict=True))

        return ended(run)

    def memory(self, name: str = "memory") -> bytes:
        memory = self.exports[name]
        base = ctypes.addressof(memory.data_ptr(self.store).contents)
        return ctypes.string_at(base, memory.data_len(self.store))

    def write(self, address: int, data: bytes, name: str = "memory") -> None:
        memory = self.exports[name]
        assert address + len(data) <= memory.data_len(self.store)
        ctypes.memmove(ctypes.addressof(memory.data_ptr(self.store).contents) + address, data, len(data))


@contextlib.contextmanager
def redirected(stdout: Path, stderr: Path | None = None) -> Iterator[None]:
    """Sends this process's own descriptors 1 and 2 to files: native WASI writes past Python's `sys.stdout`."""
    sys.stdout.flush()
    sys.stderr.flush()
    saved = os.dup(1), os.dup(2)
    handles = [os.open(p or os.devnull, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600) for p in (stdout, stderr)]
    try:
        os.dup2(handles[0], 1)
        os.dup2(handles[1], 2)
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for number, handle in zip((1, 2), saved, strict=True):
            os.dup2(handle, number)
        for handle in (*handles, *saved):
            os.close(handle)


def main(argv: Sequence[str]) -> int:
    wasm, work, stdin, *args = argv
    world = World(argv=args, preopens=[(Path(work), "/work", True)], stdin=Path(stdin))
    native = Native(Path(wasm).read_bytes(), world)
    end = native.link()
    if end.kind == "returned":
        end = native.call("_start")
    loaded = sorted(n for n in sys.modules if n.split(".")[0] in ("recorder", "traces", "replayer", "reprise"))
    report = {
        "ended": [end.kind, list(end.values), end.code],
        "memory": hashlib.sha256(native.memory()).hexdigest(),
        "loaded": loaded,
    }
    print(json.dumps(report), file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
