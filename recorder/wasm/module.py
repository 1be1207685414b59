"""What a core module declares: types, imports, index spaces, exports, names, and the proposals it uses.

`parse_module` reads structure and leaves contents alone: code bodies are offsets, data and element segments
are not decoded, and nothing is validated that the engine validates better. What it returns can be trusted to
be in bounds: a function's type exists and is a function type, offsets lie inside the binary, index spaces
list imports first.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import Final, Literal

from recorder.wasm import instructions as ops
from recorder.wasm.binary import CUSTOM_SECTION, PREAMBLE, Reader, WasmError

COMPONENT_PREAMBLE: Final = b"\0asm\x0d\0\1\0"

TYPE, IMPORT, FUNCTION, TABLE, MEMORY, GLOBAL, EXPORT = 1, 2, 3, 4, 5, 6, 7
START, ELEMENT, CODE, DATA, DATA_COUNT, TAG = 8, 9, 10, 11, 12, 13
SECTION_ORDER: Final = (
    TYPE, IMPORT, FUNCTION, TABLE, MEMORY, TAG, GLOBAL, EXPORT, START, ELEMENT, DATA_COUNT, CODE, DATA,
)  # fmt: skip
"""The order in which a binary must hold its sections; custom sections may stand anywhere between."""

MAX_TYPES: Final = 1_000_000
MAX_FUNCTIONS: Final = 1_000_000
MAX_PARAMETERS: Final = 1_000

ValType = str
"""A value type as text: "i32", "i64", "f32", "f64", "v128", a reference shorthand such as "funcref",
"externref" or "exnref", or "(ref 3)", "(ref null 3)", "(ref func)" for references that have no shorthand."""

Kind = Literal["function", "table", "memory", "global", "tag"]
KINDS: Final[tuple[Kind, ...]] = ("function", "table", "memory", "global", "tag")
"""External kinds; the index is the byte that stands for them."""

NUMERIC_TYPES: Final[Mapping[int, ValType]] = MappingProxyType({0x7F: "i32", 0x7E: "i64", 0x7D: "f32", 0x7C: "f64", 0x7B: "v128"})
_HEAP_TYPES: Final[dict[int, str]] = {
    0x75: "nocont", 0x74: "noexn", 0x73: "nofunc", 0x72: "noextern", 0x71: "none", 0x70: "func",
    0x6F: "extern", 0x6E: "any", 0x6D: "eq", 0x6C: "i31", 0x6B: "struct", 0x6A: "array",
    0x69: "exn", 0x68: "cont",
}  # fmt: skip
_SHORTHANDS: Final[dict[str, ValType]] = {
    "none": "nullref", "noextern": "nullexternref", "nofunc": "nullfuncref", "noexn": "nullexnref",
    "nocont": "nullcontref",
}  # fmt: skip
_GC_REFERENCES: Final = frozenset(
    ("anyref", "eqref", "i31ref", "structref", "arrayref", "nullref", "nullexternref", "nullfuncref")
)
_GC_HEAP_TYPES: Final = frozenset(("any", "eq", "i31", "struct", "array", "none", "noextern", "nofunc"))


@dataclass(frozen=True, slots=True)
class FuncType:
    """A function signature."""

    params: tuple[ValType, ...]
    results: tuple[ValType, ...]

    def __str__(self) -> str:
        return f"({' '.join(self.params)}) -> ({' '.join(self.results)})"


@dataclass(frozen=True, slots=True)
class OtherType:
    """A type that is not a plain function signature."""

    form: str
    """"struct", "array" or "cont"."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Size bounds of a memory (in pages) or a table (in entries)."""

    minimum: int
    maximum: int | None
    """None: no bound given."""
    is_64: bool
    """Addresses are i64 instead of i32."""
    shared: bool
    """Threads may share it."""


@dataclass(frozen=True, slots=True)
class TableType:
    element: ValType
    limits: Limits


@dataclass(frozen=True, slots=True)
class MemoryType:
    limits: Limits
    page_size: int
    """In bytes; 65,536 unless the module asks for another."""


@dataclass(frozen=True, slots=True)
class GlobalType:
    value: ValType
    mutable: bool


@dataclass(frozen=True, slots=True)
class TagType:
    type_index: int
    """The function type whose parameters an exception carries."""


ExternType = FuncType | TableType | MemoryType | GlobalType | TagType


@dataclass(frozen=True, slots=True)
class Import:
    """One import. A module may import the same name twice: imports are told apart by position."""

    module: str
    name: str
    kind: Kind
    type: ExternType


@dataclass(frozen=True, slots=True)
class Export:
    name: str
    kind: Kind
    index: int
    """In the index space of its kind, imports first."""


@dataclass(frozen=True, slots=True)
class Section:
    """Where a section lies. `data[offset:end]` is all of it."""

    id: int
    offset: int
    """Of the id byte."""
    start: int
    """Of the payload; for a custom section, of the content behind its name."""
    end: int
    name: str
    """Of a custom section; empty for the others."""


@dataclass(frozen=True, slots=True)
class Body:
    """Where a function's code lies: `data[start:end]` is the declarations of locals and the instructions."""

    start: int
    end: int


@dataclass(frozen=True, slots=True)
class ImportCounts:
    """How many entries of each index space are imported."""

    functions: int = 0
    tables: int = 0
    memories: int = 0
    globals: int = 0
    tags: int = 0


@dataclass(frozen=True)
class Module:
    """A parsed core module. Index spaces hold the imported entries first."""

    data: bytes
    """The bytes that were parsed."""
    sections: tuple[Section, ...]
    types: tuple[FuncType | OtherType, ...]
    imports: tuple[Import, ...]
    functions: tuple[int, ...]
    """The type index of each function."""
    tables: tuple[TableType, ...]
    memories: tuple[MemoryType, ...]
    globals: tuple[GlobalType, ...]
    tags: tuple[TagType, ...]
    exports: tuple[Export, ...]
    start: int | None
    """The function that runs on instantiation; None if there is none."""
    imported: ImportCounts
    code: tuple[Body, ...]
    """One for each function that is not imported."""
    data_count: int
    """How many data segments the module has."""
    structural_features: frozenset[str]
    """The proposals that types, imports, limits and constant expressions use; see `features`."""

    def function_type(self, index: int) -> FuncType:
        """The signature of function `index`, which must exist."""
        signature = self.types[self.functions[index]]
        assert isinstance(signature, FuncType)  # parse_module checked
        return signature

    def section(self, section_id: int) -> Section | None:
        """The section with that id; not meant for custom sections."""
        return next((found for found in self.sections if found.id == section_id), None)

    def custom(self, name: str) -> bytes | None:
        """The content of the first custom section of that name; None if there is none."""
        for found in self.sections:
            if found.id == CUSTOM_SECTION and found.name == name:
                return self.data[found.start : found.end]
        return None

    def function_names(self) -> Mapping[int, str]:
        """Names of functions by index, from the name section; empty if that is missing or malformed."""
        return self._names.functions

    @property
    def name(self) -> str | None:
        """The module's own name, from the name section."""
        return self._names.module

    def features(self) -> frozenset[str]:
        """The proposals beyond WebAssembly 1.0 that the module uses, by the names users know them by.

        Code is scanned on the first call; malformed code raises WasmError.
        """
        return self._features

    @cached_property
    def _names(self) -> _Names:
        content = self.custom("name")
        if content is None:
            return _Names(None, {})
        try:
            return _read_names(Reader(content))
        except WasmError:  # names are for people: a bad name section costs the names, nothing else
            return _Names(None, {})

    @cached_property
    def _features(self) -> frozenset[str]:
        used: set[tuple[int, int]] = set()
        local_types: set[ValType] = set()
        for body in self.code:
            reader = Reader(self.data, body.start, body.end)
            local_types.update(value for _, value in read_locals(reader))
            used |= ops.opcodes_used(self.data, reader.position, body.end)
        found = {_opcode_feature(opcode, sub) for opcode, sub in used}
        found |= {_feature_of_type(value) for value in local_types}
        return self.structural_features | {feature for feature in found if feature is not None}


@dataclass(frozen=True, slots=True)
class _Names:
    module: str | None
    functions: dict[int, str]


def is_core_module(data: bytes) -> bool:
    """Whether `data` begins as a core module does."""
    return data[:8] == PREAMBLE


def is_component(data: bytes) -> bool:
    """Whether `data` begins as a component does."""
    return data[:8] == COMPONENT_PREAMBLE


def parse_module(data: bytes) -> Module:
    """Read a core module; raises WasmError for anything else."""
    if is_component(data):
        raise WasmError("this is a component, not a core module")
    if not is_core_module(data):
        raise WasmError("this is not a WebAssembly module", 0)
    return _Parser(data).parse()


def read_locals(reader: Reader) -> list[tuple[int, ValType]]:
    """The declarations of locals that open a body, as (how many, type); the reader moves on to the
    instructions."""
    return [(reader.u32(), _value_type(reader)) for _ in range(reader.count(2))]


# --- types


def _feature_of_type(value: ValType) -> str | None:
    if value == "v128":
        return "simd"
    if value == "externref":
        return "reference-types"
    if value in ("exnref", "nullexnref"):
        return "exceptions"
    if value in ("contref", "nullcontref"):
        return "stack-switching"
    if value in _GC_REFERENCES:
        return "gc"
    if value.startswith("(ref"):
        heap = value[1:-1].split()[-1]
        return "gc" if heap in _GC_HEAP_TYPES else "typed-function-references"
    return None


def _heap_type(reader: Reader) -> str:
    at = reader.position
    code = reader.s33()
    if code >= 0:
        return str(code)
    named = _HEAP_TYPES.get(code + 0x80)
    if named is None:
        raise WasmError(f"unknown heap type {code}", at)
    return named


def _value_type(reader: Reader) -> ValType:
    at = reader.position
    code = reader.byte()
    numeric = NUMERIC_TYPES.get(code)
    if numeric is not None:
        return numeric
    if code in _HEAP_TYPES:
        heap = _HEAP_TYPES[code]
        return _SHORTHANDS.get(heap, heap + "ref")
    if code == 0x64:
        return f"(ref {_heap_type(reader)})"
    if code == 0x63:
        heap = _heap_type(reader)
        return f"(ref null {heap})" if heap.isdigit() else _SHORTHANDS.get(heap, heap + "ref")
    raise WasmError(f"unknown value type {code:#04x}", at)


def _limits(reader: Reader) -> tuple[Limits, int | None]:
    """Limits and the base-2 logarithm of a custom page size, if one is given."""
    at = reader.position
    flags = reader.byte()
    if flags > 0x0F:
        raise WasmError(f"unknown limits flags {flags:#04x}", at)
    number = reader.u64 if flags & 4 else reader.u32
    minimum = number()
    maximum = number() if flags & 1 else None
    page_log = reader.u32() if flags & 8 else None
    return Limits(minimum, maximum, bool(flags & 4), bool(flags & 2)), page_log


def _read_names(reader: Reader) -> _Names:
    module_name: str | None = None
    functions: dict[int, str] = {}
    while reader.remaining:
        kind = reader.byte()
        part = reader.sub_reader(reader.u32())
        if kind == 0:
            module_name = part.name()
        elif kind == 1:
            for _ in range(part.count(2)):
                index = part.u32()
                functions[index] = part.name()
    return _Names(module_name, functions)


# --- features


_PLAIN_FEATURES: Final[dict[int, str]] = {
    **dict.fromkeys(ops.LEGACY_EXCEPTIONS, "legacy-exceptions"),
    **dict.fromkeys((ops.THROW, ops.THROW_REF, ops.TRY_TABLE), "exceptions"),
    **dict.fromkeys((ops.RETURN_CALL, ops.RETURN_CALL_INDIRECT, ops.RETURN_CALL_REF), "tail-calls"),
    **dict.fromkeys((ops.SELECT_TYPED, 0x25, 0x26, 0xD0, 0xD1, 0xD2), "reference-types"),
    **dict.fromkeys((ops.CALL_REF, 0xD4, ops.BR_ON_NULL, ops.BR_ON_NON_NULL), "typed-function-references"),
    **dict.fromkeys(ops.STACK_SWITCHING, "stack-switching"),
    0xD3: "gc",
    ops.GC_PREFIX: "gc",
    ops.ATOMIC_PREFIX: "threads",
}


def _opcode_feature(opcode: int, sub: int) -> str | None:
    if opcode == ops.SIMD_PREFIX:
        return "simd" if sub < 0x100 else "relaxed-simd"
    if opcode == ops.MISC_PREFIX:
        if sub < 8:  # saturating conversions: part of every engine for so long that nobody asks
            return None
        return "bulk-memory" if sub < 15 else "reference-types" if sub < 19 else "wide-arithmetic"
    if opcode in (ops.BLOCK, ops.LOOP, ops.IF):
        return "multi-value" if sub else None
    return _PLAIN_FEATURES.get(opcode)


_EXTENDED_CONST: Final = frozenset((0x6A, 0x6B, 0x6C, 0x7C, 0x7D, 0x7E))


class _Parser:
    """Collects the parts of a `Module`, section by section."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.types: list[FuncType | OtherType] = []
        self.imports: list[Import] = []
        self.functions: list[int] = []
        self.tables: list[TableType] = []
        self.memories: list[MemoryType] = []
        self.globals: list[GlobalType] = []
        self.tags: list[TagType] = []
        self.exports: list[Export] = []
        self.start: int | None = None
        self.code: list[Body] = []
        self.data_count = 0
        self.features: set[str] = set()

    def parse(self) -> Module:
        sections = tuple(self._read_sections())
        self._check_body_count()
        self._collect_features()
        counts = {kind: sum(1 for found in self.imports if found.kind == kind) for kind in KINDS}
        return Module(
            data=self.data,
            sections=sections,
            types=tuple(self.types),
            imports=tuple(self.imports),
            functions=tuple(self.functions),
            tables=tuple(self.tables),
            memories=tuple(self.memories),
            globals=tuple(self.globals),
            tags=tuple(self.tags),
            exports=tuple(self.exports),
            start=self.start,
            imported=ImportCounts(counts["function"], counts["table"], counts["memory"], counts["global"], counts["tag"]),
            code=tuple(self.code),
            data_count=self.data_count,
            structural_features=frozenset(self.features),
        )

    def _read_sections(self) -> Iterator[Section]:
        reader = Reader(self.data, len(PREAMBLE))
        last_rank = -1
        while reader.remaining:
            offset = reader.position
            section_id = reader.byte()
            payload = reader.sub_reader(reader.u32())
            name = ""
            if section_id == CUSTOM_SECTION:
                name = payload.name()
            else:
                if section_id not in SECTION_ORDER:
                    raise WasmError(f"unknown section {section_id}", offset)
                rank = SECTION_ORDER.index(section_id)
                if rank <= last_rank:
                    raise WasmError(f"section {section_id} is repeated or out of order", offset)
                last_rank = rank
            yield Section(section_id, offset, payload.position, payload.end, name)
            self._read_section(section_id, payload)

    def _read_section(self, section_id: int, payload: Reader) -> None:
        if section_id == START:
            self.start = self._function_index(payload)
        elif section_id == DATA_COUNT:
            self.features.add("bulk-memory")
            return
        elif section_id in _SECTION_ITEMS:
            smallest, read_item = _SECTION_ITEMS[section_id]
            for _ in range(payload.count(smallest)):
                read_item(self, payload)
        elif section_id == DATA:
            self.data_count = payload.count()
            self._read_data(payload)
        elif section_id == ELEMENT:
            payload.count()
            return
        else:
            return
        payload.expect_end(f"content of section {section_id}")

    def _function_index(self, reader: Reader) -> int:
        at = reader.position
        index = reader.u32()
        if index >= len(self.functions):
            raise WasmError(f"function {index} does not exist", at)
        return index

    # types

    def _read_type(self, reader: Reader) -> None:
        if reader.peek() != 0x4E:
            self._read_sub_type(reader)
            return
        reader.byte()
        self.features.add("gc")
        for _ in range(reader.count(2)):
            self._read_sub_type(reader)

    def _read_sub_type(self, reader: Reader) -> None:
        if reader.peek() in (0x4F, 0x50):
            reader.byte()
            self.features.add("gc")
            for _ in range(reader.count()):
                reader.u32()
        at = reader.position
        if len(self.types) >= MAX_TYPES:
            raise WasmError(f"more than {MAX_TYPES} types", at)
        form = reader.byte()
        if form == 0x60:
            self.types.append(FuncType(self._value_types(reader), self._value_types(reader)))
        elif form == 0x5F:
            for _ in range(reader.count(2)):
                self._read_field(reader)
            self._add_other_type("struct", "gc")
        elif form == 0x5E:
            self._read_field(reader)
            self._add_other_type("array", "gc")
        elif form == 0x5D:
            _ = reader.s33()
            self._add_other_type("cont", "stack-switching")
        else:
            raise WasmError(f"unknown type form {form:#04x}", at)

    def _add_other_type(self, form: str, feature: str) -> None:
        self.types.append(OtherType(form))
        self.features.add(feature)

    def _read_field(self, reader: Reader) -> None:
        if reader.peek() in (0x77, 0x78):  # i16 and i8 exist in fields only
            reader.byte()
        else:
            _value_type(reader)
        self._mutability(reader)

    def _value_types(self, reader: Reader) -> tuple[ValType, ...]:
        at = reader.position
        count = reader.count()
        if count > MAX_PARAMETERS:
            raise WasmError(f"{count} parameters or results; engines take {MAX_PARAMETERS}", at)
        return tuple([_value_type(reader) for _ in range(count)])

    @staticmethod
    def _mutability(reader: Reader) -> bool:
        at = reader.position
        flag = reader.byte()
        if flag > 1:
            raise WasmError(f"unknown mutability {flag:#04x}", at)
        return flag == 1

    def _function_type_index(self, reader: Reader) -> int:
        at = reader.position
        index = reader.u32()
        if index >= len(self.types) or not isinstance(self.types[index], FuncType):
            raise WasmError(f"type {index} is not a function type", at)
        return index

    def _table_type(self, reader: Reader) -> TableType:
        at = reader.position
        element = _value_type(reader)
        limits, page_log = _limits(reader)
        if element in NUMERIC_TYPES.values() or page_log is not None:
            raise WasmError("malformed table type", at)
        return TableType(element, limits)

    @staticmethod
    def _memory_type(reader: Reader) -> MemoryType:
        at = reader.position
        limits, page_log = _limits(reader)
        if page_log is not None and page_log > 16:
            raise WasmError(f"page size 2**{page_log} is too large", at)
        return MemoryType(limits, 1 << (16 if page_log is None else page_log))

    def _global_type(self, reader: Reader) -> GlobalType:
        return GlobalType(_value_type(reader), self._mutability(reader))

    def _tag_type(self, reader: Reader) -> TagType:
        at = reader.position
        if reader.byte() != 0:
            raise WasmError("unknown tag attribute", at)
        return TagType(self._function_type_index(reader))

    # index spaces

    def _add_function(self, reader: Reader) -> FuncType:
        if len(self.functions) >= MAX_FUNCTIONS:
            raise WasmError(f"more than {MAX_FUNCTIONS} functions", reader.position)
        index = self._function_type_index(reader)
        self.functions.append(index)
        signature = self.types[index]
        assert isinstance(signature, FuncType)
        return signature

    def _read_function(self, reader: Reader) -> None:
        self._add_function(reader)

    def _read_extern(self, kind: int, reader: Reader) -> ExternType:
        """Read the type of an import of that kind into its index space."""
        at = reader.position
        if kind == 0:
            return self._add_function(reader)
        if kind == 1:
            self.tables.append(self._table_type(reader))
            return self.tables[-1]
        if kind == 2:
            self.memories.append(self._memory_type(reader))
            return self.memories[-1]
        if kind == 3:
            self.globals.append(self._global_type(reader))
            return self.globals[-1]
        if kind == 4:
            self.tags.append(self._tag_type(reader))
            return self.tags[-1]
        raise WasmError(f"unknown import kind {kind:#04x}", at)

    def _read_import(self, reader: Reader) -> None:
        module = reader.name()
        name = reader.name()
        kind = reader.byte()
        if name == "" and kind == 0x7F:  # compact: one module name, several (name, type)
            self.features.add("compact-imports")
            for _ in range(reader.count(3)):
                self._add_import(module, reader.name(), reader.byte(), reader)
        elif name == "" and kind == 0x7E:  # compact: one module name, one type, several names
            self.features.add("compact-imports")
            self._read_imports_of_one_type(module, reader)
        else:
            self._add_import(module, name, kind, reader)

    def _read_imports_of_one_type(self, module: str, reader: Reader) -> None:
        kind = reader.byte()
        type_at = reader.position
        self._skip_extern(kind, reader)
        for _ in range(reader.count()):
            self._add_import(module, reader.name(), kind, Reader(self.data, type_at, reader.end))

    def _skip_extern(self, kind: int, reader: Reader) -> None:
        """Read past an import's type, leaving the index spaces alone."""
        self._read_extern(kind, reader)
        spaces = (self.functions, self.tables, self.memories, self.globals, self.tags)
        spaces[kind].pop()

    def _add_import(self, module: str, name: str, kind: int, reader: Reader) -> None:
        extern = self._read_extern(kind, reader)
        self.imports.append(Import(module, name, KINDS[kind], extern))

    def _read_table(self, reader: Reader) -> None:
        has_initialiser = reader.peek() == 0x40
        if has_initialiser:
            reader.byte()
            at = reader.position
            if reader.byte() != 0:
                raise WasmError("malformed table", at)
            self.features.add("typed-function-references")
        self.tables.append(self._table_type(reader))
        if has_initialiser:
            self._skip_expression(reader)

    def _read_memory(self, reader: Reader) -> None:
        self.memories.append(self._memory_type(reader))

    def _read_global(self, reader: Reader) -> None:
        self.globals.append(self._global_type(reader))
        self._skip_expression(reader)

    def _read_tag(self, reader: Reader) -> None:
        self.tags.append(self._tag_type(reader))

    def _skip_expression(self, reader: Reader) -> None:
        start = reader.position
        reader.position = ops.expression_end(self.data, start, reader.end)
        for opcode, sub in ops.opcodes_used(self.data, start, reader.position):
            feature = "extended-const" if opcode in _EXTENDED_CONST else _opcode_feature(opcode, sub)
            if feature is not None:
                self.features.add(feature)

    # the rest

    def _read_export(self, reader: Reader) -> None:
        name = reader.name()
        at = reader.position
        kind = reader.byte()
        if kind >= len(KINDS):
            raise WasmError(f"unknown export kind {kind:#04x}", at)
        index = reader.u32()
        spaces = (self.functions, self.tables, self.memories, self.globals, self.tags)
        if index >= len(spaces[kind]):
            raise WasmError(f"{KINDS[kind]} {index} does not exist", at)
        self.exports.append(Export(name, KINDS[kind], index))

    def _read_body(self, reader: Reader) -> None:
        size = reader.u32()
        body = reader.sub_reader(size)
        self.code.append(Body(body.position, body.end))

    def _read_data(self, reader: Reader) -> None:
        for _ in range(self.data_count):
            at = reader.position
            mode = reader.u32()
            if mode > 2:
                raise WasmError(f"unknown data segment mode {mode}", at)
            if mode == 1:
                self.features.add("bulk-memory")
            else:
                if mode == 2:
                    reader.u32()
                self._skip_expression(reader)
            reader.take(reader.u32())

    def _check_body_count(self) -> None:
        defined = len(self.functions) - sum(1 for found in self.imports if found.kind == "function")
        if defined != len(self.code):
            raise WasmError(f"{defined} functions are declared, {len(self.code)} have code")

    def _collect_features(self) -> None:
        self._collect_type_features()
        limits = [memory.limits for memory in self.memories] + [table.limits for table in self.tables]
        checks = (
            ("multi-memory", len(self.memories) > 1),
            ("memory64", any(found.is_64 for found in limits)),
            ("threads", any(found.shared for found in limits)),
            ("custom-page-sizes", any(memory.page_size != 65536 for memory in self.memories)),
            ("reference-types", len(self.tables) > 1),
            ("exceptions", bool(self.tags)),
        )
        self.features.update(feature for feature, used in checks if used)

    def _collect_type_features(self) -> None:
        values = {found.element for found in self.tables} | {found.value for found in self.globals}
        for signature in self.types:
            if isinstance(signature, FuncType):
                values.update(signature.params, signature.results)
                if len(signature.results) > 1:
                    self.features.add("multi-value")
        self.features.update(feature for value in values if (feature := _feature_of_type(value)) is not None)


_SECTION_ITEMS: Final = {
    TYPE: (2, _Parser._read_type),
    IMPORT: (4, _Parser._read_import),
    FUNCTION: (1, _Parser._read_function),
    TABLE: (3, _Parser._read_table),
    MEMORY: (2, _Parser._read_memory),
    TAG: (2, _Parser._read_tag),
    GLOBAL: (3, _Parser._read_global),
    EXPORT: (3, _Parser._read_export),
    CODE: (1, _Parser._read_body),
}
"""How small an item of each section's vector can be, and what reads one."""
