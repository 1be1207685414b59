"""Changing a module by appending to it.

Nothing is ever inserted before anything else of its kind, so no index shifts, and every section that is not
named stays byte for byte what it was: element segments, data, names and code keep meaning what they meant.
This module alone puts sections together; what is appended is its callers' business.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from recorder.wasm.binary import CUSTOM_SECTION, PREAMBLE, Reader, WasmError, name, section, uleb, vec
from recorder.wasm.module import EXPORT, KINDS, SECTION_ORDER, START, Export, Module, Section, parse_module


def encode_export(export: Export) -> bytes:
    return name(export.name) + bytes((KINDS.index(export.kind),)) + uleb(export.index)


def unused_export_name(module: Module, wanted: str) -> str:
    """`wanted`, or, where the module exports that already, `wanted` with the first number from 2 that is
    free."""
    taken = {export.name for export in module.exports}
    if wanted not in taken:
        return wanted
    number = 2
    while f"{wanted}.{number}" in taken:
        number += 1
    return f"{wanted}.{number}"


def rebuild(
    module: Module,
    *,
    append: Mapping[int, Sequence[bytes]] | None = None,
    replace: Mapping[int, bytes] | None = None,
    drop: Callable[[Section], bool] = lambda _: False,
) -> bytes:
    """The module's bytes with some sections changed and all others as they are.

    `append` maps a section id to the encoded items that go behind those the section has; a section that is
    missing is made. `replace` maps a section id to everything that stands in that section's place: one or
    more whole sections. `drop` picks sections that are left out.
    """
    pending = {section_id: items for section_id, items in (append or {}).items() if items}
    replacements = replace or {}
    out = [PREAMBLE]
    last_known = 1  # where in `out` sections that are missing at the end belong: before trailing custom ones
    for found in module.sections:
        if found.id != CUSTOM_SECTION:
            rank = SECTION_ORDER.index(found.id)
            out += _missing_sections(pending, SECTION_ORDER[:rank])
        if not drop(found):
            out.append(_rebuilt(module, found, pending.pop(found.id, ()), replacements))
        if found.id != CUSTOM_SECTION:
            last_known = len(out)
    out[last_known:last_known] = _missing_sections(pending, SECTION_ORDER)
    return b"".join(out)


def start_to_export(data: bytes, export_name: str) -> bytes:
    """The module without its start section; the function that would have run is exported as `export_name`
    instead."""
    module = parse_module(data)
    if module.start is None:
        raise WasmError("the module has no start function")
    started = Export(export_name, "function", module.start)
    return _with_exports(module, [started], drop=lambda found: found.id == START)


def with_exports(data: bytes, extra: Iterable[Export]) -> bytes:
    """The module with more exports: how a memory, global, table or function it keeps to itself can be looked
    at."""
    return _with_exports(parse_module(data), list(extra))


def _with_exports(module: Module, extra: list[Export], drop: Callable[[Section], bool] = lambda _: False) -> bytes:
    _check_exports(module, extra)
    return rebuild(module, append={EXPORT: [encode_export(export) for export in extra]}, drop=drop)


def _check_exports(module: Module, extra: Iterable[Export]) -> None:
    """Raise WasmError unless each of `extra` has a name of its own and names something that exists."""
    sizes = {
        "function": len(module.functions),
        "table": len(module.tables),
        "memory": len(module.memories),
        "global": len(module.globals),
        "tag": len(module.tags),
    }
    taken = {export.name for export in module.exports}
    for export in extra:
        if export.name in taken:
            raise WasmError(f"the module exports {export.name!r} already")
        if not 0 <= export.index < sizes[export.kind]:
            raise WasmError(f"{export.kind} {export.index} does not exist, so it cannot be exported")
        taken.add(export.name)


def _missing_sections(pending: dict[int, Sequence[bytes]], order: Sequence[int]) -> list[bytes]:
    """Sections made of those of `order` that are still pending, and are then no longer."""
    return [section(missing, vec(pending.pop(missing))) for missing in order if missing in pending]


def _rebuilt(module: Module, found: Section, items: Sequence[bytes], replacements: Mapping[int, bytes]) -> bytes:
    if found.id != CUSTOM_SECTION and found.id in replacements:
        return replacements[found.id]
    if not items:
        return module.data[found.offset : found.end]
    reader = Reader(module.data, found.start, found.end)
    count = reader.u32()
    given = module.data[reader.position : found.end]
    return section(found.id, uleb(count + len(items)) + given + b"".join(items))
