"""What a module calls its globals, tables and data, and which functions its tables hold when it begins.

Names come from the name section, else from exports and imports. All of it is for people: what is damaged is left out, and nothing
depends on it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal

from inspector.memory.values import leb128
from recorder.wasm import instructions as ops
from recorder.wasm.binary import Reader, WasmError
from recorder.wasm.module import DATA, ELEMENT, Body, Module, read_locals
from traces.cli import one_line

MOST_NAMES: Final = 100_000
MOST_ELEMENTS: Final = 1 << 20
LONGEST_NAME: Final = 200
_TABLES, _GLOBALS, _DATA = 5, 7, 9
"""Subsections of the name section."""
_WRITERS: Final = frozenset(((0x26, 0), (0xFC, 0x0C), (0xFC, 0x0E), (0xFC, 0x0F), (0xFC, 0x11)))
"""The instructions that write tables: table.set, table.init, table.copy, table.grow and table.fill."""
_I32_CONST, _I64_CONST, _REF_FUNC = 0x41, 0x42, 0xD2


@dataclass(frozen=True)
class Label:
    """A global or a table of the module's."""

    index: int
    name: str
    """Empty if it has none."""
    type: str
    """Of the value, or of the elements."""
    mutable: bool
    """True of tables."""
    imported: str
    """From where; empty if it is the module's own."""
    exported: str


@dataclass(frozen=True)
class Labels:
    """What a module's globals, tables and named data segments are called."""

    globals: tuple[Label, ...]
    tables: tuple[Label, ...]
    data: dict[str, tuple[int, int, int]]
    """Memory, address and length."""

    def symbols(self) -> list[str]:
        """What stands for an address."""
        return [*(label.name for label in self.globals if label.name), *self.data]

    def global_named(self, name: str) -> int | None:
        """The global of that name, or exported as it."""
        return next((label.index for label in self.globals if name and name in (label.name, label.exported)), None)


def read_labels(module: Module) -> Labels:
    global_names, table_names, data_names = (_names(module, kind) for kind in (_GLOBALS, _TABLES, _DATA))
    global_types = [(found.value, found.mutable) for found in module.globals]
    table_types = [(found.element, True) for found in module.tables]
    segments = _data(module) if data_names else {}
    return Labels(
        _labels(module, "global", global_types, global_names),
        _labels(module, "table", table_types, table_names),
        {name: segments[index] for index, name in data_names.items() if index in segments},
    )


def _labels(
    module: Module, kind: Literal["global", "table"], types: list[tuple[str, bool]], names: dict[int, str]
) -> tuple[Label, ...]:
    imports = [(_short(found.module), _short(found.name)) for found in module.imports if found.kind == kind]
    exports = {found.index: _short(found.name) for found in reversed(module.exports) if found.kind == kind}
    found = []
    for i, (value, mutable) in enumerate(types):
        imported = ".".join(imports[i]) if i < len(imports) else ""
        name = names.get(i) or exports.get(i) or (imports[i][1] if imported else "")
        found.append(Label(i, name, value, mutable, imported, exports.get(i, "")))
    return tuple(found)


def _short(text: str) -> str:
    return one_line(text[:LONGEST_NAME])


def _names(module: Module, wanted: int) -> dict[int, str]:
    """One subsection of the name section."""
    found: dict[int, str] = {}
    try:
        reader = Reader(module.custom("name") or b"")
        while reader.remaining:
            kind = reader.byte()
            part = reader.sub_reader(reader.u32())
            if kind == wanted:
                for _ in range(min(part.count(2), MOST_NAMES)):
                    index = part.u32()
                    found[index] = _short(part.name())
    except WasmError:  # those before the damage are good
        pass
    return found


def origin(label: Label) -> str:
    """Where it comes from, and how it is known outside."""
    imported = f"  imported from {label.imported}" if label.imported else ""
    return imported + (f"  exported as {label.exported}" if label.exported and label.exported != label.name else "")


# -- segments ----------------------------------------------------------------------------------------------------------------


def _data(module: Module) -> dict[int, tuple[int, int, int]]:
    """Active data segments at constant places: memory, address and length."""
    found: dict[int, tuple[int, int, int]] = {}
    section = module.section(DATA)
    if section is None:
        return found
    try:
        reader = Reader(module.data, section.start, section.end)
        for index in range(min(reader.count(), MOST_NAMES)):
            flags = reader.u32()
            memory = reader.u32() if flags == 2 else 0
            address = _constant(reader) if flags in (0, 2) else None
            length = reader.u32()
            reader.take(length)
            if address is not None and length:
                found[index] = memory, address, length
    except WasmError:
        pass
    return found


def _constant(reader: Reader, opcodes: tuple[int, ...] = (_I32_CONST, _I64_CONST)) -> int | None:
    """What a constant expression is; None if it is more than a constant."""
    start = reader.position
    end = ops.expression_end(reader.data, start, reader.end)
    reader.take(end - start)
    value = leb128(reader.data[start + 1 : end - 1])
    if reader.data[start] not in opcodes or value is None or start + 1 + value[2] != end - 1:
        return None
    unsigned, signed, _ = value
    if reader.data[start] == _REF_FUNC:
        return unsigned
    return signed & (0xFFFFFFFF if reader.data[start] == _I32_CONST else (1 << 64) - 1)


@dataclass(frozen=True)
class TableStart:
    """What tables hold when the module begins."""

    functions: dict[int, dict[int, int]]
    """Table to element to function."""
    written: bool
    """Whether the module has instructions that write tables."""


def read_table_start(module: Module) -> TableStart:
    """Reads element segments, and looks through the code for what could change them."""
    functions: dict[int, dict[int, int]] = {}
    try:
        for table, start, items in _active_segments(module):
            for i, function in enumerate(items):
                if function is not None and function < len(module.functions):
                    functions.setdefault(table, {})[start + i] = function
                else:
                    functions.get(table, {}).pop(start + i, None)
    except WasmError:
        pass
    written = any(not _WRITERS.isdisjoint(_opcodes(module, body)) for body in module.code)
    return TableStart(functions, written)


def _opcodes(module: Module, body: Body) -> set[tuple[int, int]]:
    reader = Reader(module.data, body.start, body.end)
    read_locals(reader)
    return ops.opcodes_used(module.data, reader.position, reader.end)


def _active_segments(module: Module) -> Iterator[tuple[int, int, list[int | None]]]:
    section = module.section(ELEMENT)
    if section is None:
        return
    reader = Reader(module.data, section.start, section.end)
    left = MOST_ELEMENTS
    for _ in range(reader.count()):
        flags = reader.u32()
        passive, explicit, expressions = flags & 1, flags & 2, flags & 4
        table = reader.u32() if explicit and not passive else 0
        start = None if passive else _constant(reader)
        if explicit or passive:
            if expressions:
                _skip_reference(reader)
            else:
                reader.byte()
        count = reader.count()
        items = [_constant(reader, (_REF_FUNC,)) if expressions else reader.u32() for _ in range(count)]
        left -= count
        if start is not None and left >= 0:
            yield table, start, items


def _skip_reference(reader: Reader) -> None:
    """A reference type: one byte, or two that are followed by an index."""
    if reader.byte() in (0x63, 0x64):
        reader.s33()
