"""The import-bound loop on plain wasmtime, to compare with: `native_run.py GUEST COUNT`."""

from __future__ import annotations

import sys
from pathlib import Path

import wasmtime

config = wasmtime.Config()
engine = wasmtime.Engine(config)
store = wasmtime.Store(engine)
store.set_wasi(wasmtime.WasiConfig())
linker = wasmtime.Linker(engine)
linker.define_wasi()
instance = linker.instantiate(store, wasmtime.Module(engine, Path(sys.argv[1]).read_bytes()))
run = instance.exports(store)["run"]
assert isinstance(run, wasmtime.Func)
run(store, int(sys.argv[2]))
