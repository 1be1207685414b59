"""The native side of "whole command": a module run by plain wasmtime from Python, start to end, with nothing of Reprise.

python benchmarks/plain.py MODULE
"""

from __future__ import annotations

import sys

import wasmtime


def main(path: str) -> int:
    engine = wasmtime.Engine()
    store = wasmtime.Store(engine)
    wasi = wasmtime.WasiConfig()
    wasi.argv = [path]
    wasi.inherit_stdin()
    wasi.inherit_stdout()
    wasi.inherit_stderr()
    store.set_wasi(wasi)
    linker = wasmtime.Linker(engine)
    linker.define_wasi()
    start = linker.instantiate(store, wasmtime.Module.from_file(engine, path)).exports(store)["_start"]
    assert isinstance(start, wasmtime.Func)
    start(store)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
