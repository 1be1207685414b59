"""Reading and rewriting WebAssembly binaries.

A leaf: it needs the standard library only and imports nothing else of the project, so that recording, replay
and the time machine can all stand on it. Import from its modules: `binary` (bytes and integers),
`instructions` (code), `module` (structure), `rewrite` (append-only changes), `metering` (the instruction
clock). Every error is a `WasmError`.
"""
