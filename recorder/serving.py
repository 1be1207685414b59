"""Who serves each import of a guest: native WASI, a Python host, or nobody. The same for recorded and for native runs."""

from __future__ import annotations

from recorder.boundary.interposer import Hosted
from recorder.boundary.linking import Provided, Shape
from recorder.boundary.wasi_p1 import MODULE as WASI_MODULE
from recorder.boundary.wasi_p1 import TABLE as WASI_TABLE
from recorder.python_host import HostFunction, Hosts
from recorder.wasm.module import FuncType
from traces._errors import RefusedError
from traces.manifest import Import


def serve(shape: Shape, hosts: Hosts) -> list[tuple[Import, Hosted, HostFunction | None]]:
    """Who serves each function import; refuses, by name, one that nobody serves."""
    served: list[tuple[Import, Hosted, HostFunction | None]] = []
    for index, i in enumerate(shape.function_imports):
        assert isinstance(i.type, FuncType)
        params, results = i.type.params, i.type.results
        function = hosts.find(i.module, i.name, params, results)
        wasi = WASI_TABLE.get(i.name) if i.module == WASI_MODULE else None
        if function is not None:
            entry = Import(i.module, i.name, params, results, "python")
            served.append((entry, Hosted(index, params, results, None), function))
        elif wasi is not None and (wasi.params, wasi.results) == (params, results):
            entry = Import(i.module, i.name, params, results, "wasi", wasi.names, wasi.detail, errno=bool(results))
            served.append((entry, Hosted(index, params, results, wasi), None))
        else:
            raise RefusedError(_nobody(i.module, i.name, params, results, hosts, wasi is not None))
    return served


def _nobody(module: str, name: str, params: tuple[str, ...], results: tuple[str, ...], hosts: Hosts, wasi: bool) -> str:
    wanted = f"({' '.join(params)}) -> ({' '.join(results)})"
    others = hosts.named(module, name)
    if others:
        have = ", ".join(f"({' '.join(f.params)}) -> ({' '.join(f.results)}) by {f.where}" for f in others)
        return f"the module imports {module}.{name} with type {wanted}, but the host serves {have}; correct the host's signature"
    if wasi:
        return f"the module imports {module}.{name} with type {wanted}, which is not its WASI type; serve it with --host"
    if module == "wasi_unstable":
        return f"the module imports {module}.{name}: this is WASI's first snapshot; rebuild it for wasi_snapshot_preview1"
    return f"nobody provides import {module}.{name} {wanted}; serve it from Python with --host PKG.MOD:NAME"


def provide(shape: Shape, hosts: Hosts) -> list[Provided]:
    """What is made for each imported memory, global and table; refuses one that nobody provides."""
    provided = []
    for i in shape.other_imports:
        found = next((p for p in hosts.provided if (p.module, p.name, p.kind) == (i.module, i.name, i.kind)), None)
        if found is None:
            raise RefusedError(
                f"nobody provides the imported {i.kind} {i.module}.{i.name}; "
                f"give a host with reprise.provide({i.module!r}, {i.name!r}, {i.kind!r}, …)"
            )
        provided.append(found)
    return provided
