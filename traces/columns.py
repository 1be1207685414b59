"""Records to columns: what a window of the journal says, as an Arrow batch. Untrusted bytes are parsed inside WebAssembly.

The parser is `columns.c`, run as `columns.wasm` under wasmtime, so a hostile window can make it fail but not escape. This module
owns its life: it hands it the tables of imports and exports, copies windows in and wraps the arrays that come out. It also owns
the names and types of the columns of `events.parquet`, and the language of detail templates.

**Detail templates** (`Import.detail`) are text with fields in braces; `{{` and `}}` are braces themselves.

    {0}                  argument 0, as an unsigned decimal          {r0}         result 0, likewise; any format below fits too
    {0:d}                signed decimal                              {0:x}        hexadecimal
    {0:f}                a float, to about six digits; NaNs with their payload
    {0:enum:a|b|c}       the name of that number, or the number      {0:flags:a|b}   the names of the bits set, joined by |
    {0:text:1}           the text sent from address (argument 0) and of length (argument 1): quoted, escaped, at most 200 bytes
    {0:u32}              the number the host wrote to address (argument 0)
    {r0:errno}           empty for 0, otherwise the WASI name of the error

The first ` → ` divides the call from its outcome. Results, `u32` and `errno` may stand only after it. An open record shows the
part before it; its return row shows the part after it. Where `errno` is not 0 it is the whole outcome (` → errno noent`), and an
outcome that comes out empty takes its arrow with it. What cannot be known is shown as `?`. A template that is empty or does not
fit its import is read as `name({0}, {1}, …)`.

Details are a dictionary, and worth their price only while they repeat: values that rarely do (the time a clock gave) belong in
`args` and `results`, not in a template. Rows beyond 32 MiB of distinct details in one window have none.
"""

from __future__ import annotations

import atexit
import ctypes
import json
import re
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

import pyarrow as pa

from traces._errors import TraceError
from traces.layout import MAX_IMPORTS, MAX_WINDOW, VALUE_SIZE, Kind, values_size
from traces.manifest import Export, Import, import_from_json

if TYPE_CHECKING:
    import wasmtime

KINDS: Final = tuple(kind.name.lower() for kind in Kind)
STATUSES: Final = ("ok", "errno", "trap", "denied", "open")
"""Of one row alone. A call whose return row tells the outcome is `open` here; the view `events` joins the two."""

NAME: Final = pa.dictionary(pa.int32(), pa.string())
WORDS: Final = pa.list_(pa.field("item", pa.uint64(), nullable=False))

SCHEMA: Final = pa.schema(
    [
        pa.field("seq", pa.int64(), nullable=False),
        pa.field("kind", pa.dictionary(pa.int8(), pa.string()), nullable=False),
        pa.field("import", NAME),
        pa.field("target", NAME),
        pa.field("depth", pa.int32(), nullable=False),
        pa.field("status", pa.dictionary(pa.int8(), pa.string()), nullable=False),
        pa.field("of", pa.int64()),
        pa.field("time_ns", pa.int64(), nullable=False),
        pa.field("duration_ns", pa.int64()),
        pa.field("args", WORDS, nullable=False),
        pa.field("results", WORDS, nullable=False),
        pa.field("detail", NAME),
        pa.field("sent", pa.int64(), nullable=False),
        pa.field("received", pa.int64(), nullable=False),
        pa.field("span", pa.int64()),
        pa.field("record", pa.large_binary(), nullable=False),
        pa.field("chunks_at", pa.int32()),
    ]
)
"""The columns of `events.parquet`. `record` is the truth; every other column derives from it and from the manifest's tables."""

MAX_DEPTH: Final = 16384
"""Records open at once; a journal that nests deeper is damaged. Mirrored in columns.c."""

# Codes of columns.c, in its order.
_TYPES: Final = {"i32": 0, "f32": 1, "i64": 2, "f64": 3, "v128": 4, "funcref": 5, "externref": 5}
_LITERAL, _UNSIGNED, _SIGNED, _HEX, _FLOAT, _ENUM, _FLAGS, _TEXT, _U32, _ERRNO, _V128 = range(11)
_RESULT: Final = 0x80000000
_F_ERRNO, _F_PYTHON = 1, 2
_DEFINE: Final = 1
_MEMORY: Final = 18
ERRORS: Final = {
    2: "too short for a record",
    3: "its size is impossible",
    4: "it reaches beyond the window",
    5: "its kind is unknown",
    6: "its status is impossible",
    7: "its import is not in the imports table",
    8: "it names an import, which its kind does not have",
    9: "its target is not in the exports table",
    10: "its values do not fit it",
    11: "bytes follow its last field",
    12: "a piece of memory reaches beyond it",
    13: "its timing is malformed",
    14: "it returns, but nothing is open",
    15: "it returns from another import than the innermost open record's",
    16: f"more than {MAX_DEPTH} records are open",
    17: "it continues a payload, but there is none",
}
"""What `scan` may find wrong, by its code in columns.c."""

(
    _O_WINDOW, _O_SEQ, _O_KIND, _O_IMPORT, _O_IMPORT_VALID, _O_TARGET, _O_TARGET_VALID, _O_DEPTH, _O_STATUS, _O_OF, _O_OF_VALID,
    _O_TIME, _O_DURATION, _O_DURATION_VALID, _O_ARGS_OFFSETS, _O_ARGS, _O_RESULTS_OFFSETS, _O_RESULTS, _O_DETAIL, _O_DETAIL_VALID,
    _O_SENT, _O_RECEIVED, _O_SPAN, _O_SPAN_VALID, _O_RECORD_OFFSETS, _O_CHUNKS_AT, _O_CHUNKS_VALID,
    _O_TARGET_TEXT_OFFSETS, _O_TARGET_TEXT, _O_DETAIL_TEXT_OFFSETS, _O_DETAIL_TEXT,
    _O_TARGET_TEXTS, _O_DETAIL_TEXTS, _O_ROWS, _O_ARG_WORDS, _O_RESULT_WORDS,
    _O_NULL_OF, _O_NULL_DURATION, _O_NULL_SPAN, _O_NULL_IMPORT, _O_NULL_TARGET, _O_NULL_DETAIL, _O_NULL_CHUNKS, _O_COUNT,
) = range(44)  # fmt: skip

_FUNCTION: Final = struct.Struct("<16I")
_OP: Final = struct.Struct("<4I")
_UNCACHED: Final = 1000

SHOWN_TEXT: Final = 200
"""Bytes of guest text shown in a detail."""
_SHOWN_ARGUMENTS = 32
_TEMPLATE_LIMIT = 4096
_ARENA_ROOM = 64 << 20
_IN_PLACE_WINDOW = 8 << 20
"""Largest window that is converted in place; the recorder's are half that."""
_IN_PLACE_ROOM = 256 << 20
"""Address space of such a window with its columns: what is not touched costs nothing."""
_UNPRINTABLE = re.compile(
    '[\\\\"\x00-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]',
)


# -- templates -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Field:
    """One step of a template: text, or a value and how it is shown."""

    op: int
    source: int = 0
    """Word number among the arguments, or among the results with _RESULT."""
    x: int = 0
    """By op: the type code, or the word number of a text's length."""
    names: tuple[str, ...] = ()
    """Of enum and flags; of a literal, its text."""


class _BadTemplateError(ValueError):
    pass


_FIELD = re.compile(r"\{\{|\}\}|\{(r?)([0-9]{1,4})(?::([a-z0-9]+)(?::([^{}]*))?)?\}|[{}]|[^{}]+")


def _words_before(types: Sequence[str], index: int) -> int:
    return sum(2 if t == "v128" else 1 for t in types[:index])


def _integer(types: Sequence[str], index: int, what: str) -> int:
    if index >= len(types):
        raise _BadTemplateError(f"there is no {what} {index}")
    if types[index] not in ("i32", "i64"):
        raise _BadTemplateError(f"{what} {index} is {types[index]}, not an integer")
    return _words_before(types, index)


def _field(entry: Import, result: bool, index: int, format: str, rest: str | None, outcome: bool) -> _Field:
    types, what = (entry.results, "result") if result else (entry.params, "argument")
    if index >= len(types):
        raise _BadTemplateError(f"there is no {what} {index}")
    if (result or format in ("u32", "errno")) and not outcome:
        raise _BadTemplateError("results, u32 and errno may stand only after ' → '")
    source = _words_before(types, index) | (_RESULT if result else 0)
    kind = types[index]
    if (rest is None) != (format not in ("enum", "flags", "text")):
        raise _BadTemplateError(f"{format!r} does not go with {rest!r}")
    if format == "" and kind == "v128":
        return _Field(_V128, source)
    if format == "":
        return _Field(_UNSIGNED, source, _TYPES[kind])
    if format == "f":
        if kind not in ("f32", "f64"):
            raise _BadTemplateError(f"{what} {index} is {kind}, not a float")
        return _Field(_FLOAT, source, _TYPES[kind])
    if format == "x" and kind == "v128":
        return _Field(_V128, source)
    if format == "x":
        return _Field(_HEX, source)
    _integer(types, index, what)
    if format == "d":
        return _Field(_SIGNED, source, _TYPES[kind])
    if format in ("enum", "flags"):
        return _Field(_ENUM if format == "enum" else _FLAGS, source, names=tuple((rest or "").split("|")[:64]))
    if format == "text":
        if result or not (rest or "").isdecimal():
            raise _BadTemplateError("text needs two argument numbers")
        return _Field(_TEXT, source, _integer(entry.params, int(rest or ""), "argument"))
    if format == "u32":
        return _Field(_U32, source)
    if format == "errno":
        return _Field(_ERRNO, source)
    raise _BadTemplateError(f"unknown format {format!r}")


def _compile(entry: Import) -> tuple[list[_Field], list[_Field]]:
    """The steps before and after the arrow. Raises _BadTemplateError."""
    if len(entry.detail) > _TEMPLATE_LIMIT:
        raise _BadTemplateError(f"longer than {_TEMPLATE_LIMIT} characters")
    head: list[_Field] = []
    tail: list[_Field] = []
    outcome = False
    literal = ""

    def flush() -> None:
        nonlocal literal
        if literal:
            (tail if outcome else head).append(_Field(_LITERAL, names=(literal,)))
        literal = ""

    # A space belongs to the arrow, so the text around it is looked at as one.
    for match in _FIELD.finditer(entry.detail):
        token = match.group()
        if match.group(2) is not None:
            flush()
            (tail if outcome else head).append(_field(entry, bool(match[1]), int(match[2]), match[3] or "", match[4], outcome))
        elif token in ("{", "}"):
            raise _BadTemplateError(f"a lone {token!r}, or a field that cannot be read")
        else:
            literal += {"{{": "{", "}}": "}"}.get(token, token)
            if not outcome and " → " in literal:
                literal, _, after = literal.partition(" → ")
                flush()
                outcome, literal = True, after
    flush()
    return head, tail


def _plain(name: str, params: Sequence[str]) -> list[_Field]:
    """`name({0}, {1}, …)`: for what has no template of its own."""
    fields = [_Field(_LITERAL, names=(printable(name) + "(",))]
    for index, kind in enumerate(params[:_SHOWN_ARGUMENTS]):
        if index:
            fields.append(_Field(_LITERAL, names=(", ",)))
        op = _V128 if kind == "v128" else _FLOAT if kind in ("f32", "f64") else _UNSIGNED
        fields.append(_Field(op, _words_before(params, index), _TYPES[kind]))
    fields.append(_Field(_LITERAL, names=(", …)" if len(params) > _SHOWN_ARGUMENTS else ")",)))
    return fields


def detail_problem(entry: Import) -> str | None:
    """Why an import's template cannot be used, in a few words; None when it can (or is empty)."""
    try:
        _compile(entry)
    except _BadTemplateError as error:
        return str(error)
    return None


def printable(text: str) -> str:
    """`text` without controls and without characters that reorder what follows; at most 200 bytes of it."""
    raw = text.encode("utf-8", "replace")
    shown = raw[:SHOWN_TEXT].decode("utf-8", "ignore")
    return _UNPRINTABLE.sub(_escape, shown) + ("…" if len(raw) > SHOWN_TEXT else "")


def _escape(match: re.Match[str]) -> str:
    c = match.group()
    named = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t"}.get(c)
    if named is not None:
        return named
    return f"\\x{ord(c):02x}" if ord(c) < 0x80 else f"\\u{{{ord(c):x}}}"


# -- the module ----------------------------------------------------------------------------------------------------------


@cache
def _module() -> tuple[wasmtime.Engine, wasmtime.Module]:
    import wasmtime

    engine = wasmtime.Engine()
    atexit.register(_module.cache_clear)  # at exit wasmtime, imported later than this module, is gone before it
    return engine, wasmtime.Module(engine, (Path(__file__).parent / "columns.wasm").read_bytes())


class _Arena:
    """Bytes at fixed addresses of the module's memory, only ever appended to (and cut back to an earlier end)."""

    def __init__(self, base: int) -> None:
        self.base = base
        self.data = bytearray()
        self.written = 0

    @property
    def end(self) -> int:
        return self.base + len(self.data)

    def put(self, data: bytes) -> int:
        self.data += bytes(-len(self.data) % 8)
        at = self.end
        self.data += data
        return at

    def cut(self, end: int) -> None:
        del self.data[end - self.base :]
        self.written = min(self.written, len(self.data))


class Columniser:
    """Turns windows into batches, in order. What one window leaves open the next may close, so an instance is one recording.

    Args:
        imports: the imports table; DEFINE records add to it, and must agree with entries already there.
        exports: the exports table.
    """

    def __init__(self, imports: Sequence[Import], exports: Sequence[Export]) -> None:
        if len(imports) > MAX_IMPORTS:
            raise TraceError(f"{len(imports)} imports are more than a trace can hold ({MAX_IMPORTS})")
        import wasmtime  # only who makes tables needs it, and it is slow to import

        engine, module = _module()
        self._store = wasmtime.Store(engine)
        self._exports = wasmtime.Instance(self._store, module, []).exports(self._store)
        memory = self._exports["memory"]
        assert isinstance(memory, wasmtime.Memory)
        self._memory = memory
        self._functions: dict[str, wasmtime.Func] = {}
        self._imports_at = self._call("imports_at")
        self._out_at = self._call("out_at")
        assert self._call("function_size") == _FUNCTION.size
        self._arena = _Arena(self._call("heap_at"))
        self._texts: dict[str, int] = {}
        self._names: list[str] = []
        self._name_ids: dict[str, int] = {}
        self._name_array: Any = None
        self.imports: list[Import] = []
        self.exports = tuple(exports)
        self.windows = 0
        """Windows converted so far."""
        entries = b"".join(self._export_entry(export) for export in exports)
        names = sum(len(export.name.encode("utf-8", "replace")) for export in exports)
        table = self._arena.put(entries)
        imported = b"".join(self._import_entry(entry) for entry in imports)
        self.imports = list(imports)
        # Room for definitions while running; memory that is never touched costs nothing.
        self._room = self._arena.end + _ARENA_ROOM
        self._window_at = (self._room + 65535) & ~65535
        self._in_place_at = (self._window_at, self._window_at + _IN_PLACE_ROOM)
        self._reserve(self._window_at)
        self._flush()
        self._write(self._imports_at, imported)
        self._call("set_imports", len(self.imports))
        self._call("set_exports", table, len(self.exports), names)

    # -- looking -------------------------------------------------------------------------------------------------

    @property
    def rows(self) -> int:
        """Records converted so far, which is the next row's `seq`."""
        return self._call("rows")

    @property
    def depth(self) -> int:
        """Records open now."""
        return self._call("open_records")

    # -- converting ----------------------------------------------------------------------------------------------

    def convert(self, window: bytes | memoryview) -> pa.RecordBatch:
        """The window's records as rows. Raises TraceError where they stop making sense; nothing is converted then."""
        return self._convert(window, self._copied)

    def convert_in_place(self, window: bytes | memoryview) -> pa.RecordBatch:
        """Like `convert`, but the batch lies in this object's memory and is garbage after its next call but one.

        Windows are laid out at two places in turn, so that one can be written while the next is converted.
        """
        here, there = self._in_place_at
        if len(window) > _IN_PLACE_WINDOW:
            return self.convert(window)
        self._in_place_at = (there, here)
        self._window_at, before = here, self._window_at
        try:
            return self._convert(window, self._foreign)
        finally:
            self._window_at = before

    def scan(self, window: bytes | memoryview) -> int:
        """Length of the longest prefix of the window that `convert` would take now; changes nothing."""
        self._load(window)
        with self._definitions(keep=False):
            self._scan()
        return self._call("scan_at")

    def _convert(self, window: bytes | memoryview, buffer: Any) -> pa.RecordBatch:
        self._load(window)
        with self._definitions(keep=True):
            problem = self._scan()
            if problem is not None:
                row, at = self.rows + self._call("scan_rows"), self._call("scan_at")
                raise TraceError(
                    f"record {row} at byte {at} of window {self.windows}: {problem}; "
                    "the trace is damaged from there on, restore it from a copy"
                )
            if self._call("plan") == _MEMORY:
                raise TraceError(f"window {self.windows} of {len(window)} bytes needs more memory than there is")
        self._call("fill")
        self.windows += 1
        return self._batch(buffer)

    def _load(self, window: bytes | memoryview) -> None:
        size = len(window)
        if size > MAX_WINDOW:
            raise TraceError(f"window {self.windows} of {size} bytes is larger than any ({MAX_WINDOW})")
        self._reserve(self._window_at + size + 64)
        self._write(self._window_at, window)
        self._call("set_window", self._window_at, size)
        self._call("scan_begin")

    def _scan(self) -> str | None:
        """Scans to the end; says what is wrong where it stopped, None when nothing is."""
        while code := self._call("scan"):
            if code != _DEFINE:
                return ERRORS[code]
            problem = self._define(self._window_at + self._call("scan_at"))
            if problem is not None:
                return problem
            self._call("scan_skip")
        return None

    # -- definitions ---------------------------------------------------------------------------------------------

    @contextmanager
    def _definitions(self, keep: bool) -> Iterator[None]:
        """Takes back imports defined inside, on an error or when they are not to be kept."""
        imports, names, end = len(self.imports), len(self._names), self._arena.end
        try:
            yield
            if keep:
                return
        except TraceError:
            keep = False
            raise
        finally:
            if not keep and len(self.imports) > imports:
                del self.imports[imports:]
                for name in self._names[names:]:
                    del self._name_ids[name]
                del self._names[names:]
                self._name_array = None
                self._texts = {text: at for text, at in self._texts.items() if at < end}
                self._arena.cut(end)
                self._call("set_imports", imports)

    def _define(self, at: int) -> str | None:
        index, length = struct.unpack("<II", self._read(at + 12, 8))
        try:
            data = json.loads(self._read(at + 20, length).decode("utf-8"))
            entry = import_from_json({"host": "defined", **data})
        except (ValueError, TypeError, KeyError, RecursionError):
            return "it defines an import in a way that cannot be read"
        if index < len(self.imports):
            known = self.imports[index]
            if (known.module, known.name, known.params, known.results) != (entry.module, entry.name, entry.params, entry.results):
                return f"it defines import {index}, which is {known.qualified!r}, as another one"
            return None
        if index != len(self.imports) or index >= MAX_IMPORTS:
            return f"it defines import {index}, but the next one is {len(self.imports)}"
        packed = self._import_entry(entry)
        if self._arena.end > self._room:
            return "the definitions take more room than there is"
        self._flush()
        self._write(self._imports_at + index * _FUNCTION.size, packed)
        self.imports.append(entry)
        self._call("set_imports", len(self.imports))
        return None

    # -- tables --------------------------------------------------------------------------------------------------

    def _import_entry(self, entry: Import) -> bytes:
        name = entry.qualified
        if name not in self._name_ids:
            self._name_ids[name] = len(self._names)
            self._names.append(name)
            self._name_array = None
        try:
            head, tail = _compile(entry)
        except _BadTemplateError:
            head, tail = [], []
        if not head and not tail:
            head = _plain(entry.name, entry.params)
        flags = (_F_ERRNO if entry.errno else 0) | (_F_PYTHON if entry.host == "python" else 0)
        return self._entry(name, entry.params, entry.results, head, tail, flags, self._name_ids[name])

    def _export_entry(self, export: Export) -> bytes:
        return self._entry(export.name, export.params, export.results, _plain(export.name, export.params), [], 0, 0)

    def _entry(
        self,
        name: str,
        params: Sequence[str],
        results: Sequence[str],
        head: list[_Field],
        tail: list[_Field],
        flags: int,
        name_id: int,
    ) -> bytes:
        fields = [field for field in head + tail if field.op != _LITERAL]
        cacheable = all(field.op != _TEXT for field in fields)
        words = sum(2 if field.op == _V128 else 1 for field in fields)
        ops = b"".join(self._op(field) for field in head + tail)
        raw = name.encode("utf-8", "replace")
        return _FUNCTION.pack(
            self._arena.put(bytes(_TYPES[t] for t in params)),
            len(params),
            self._arena.put(bytes(_TYPES[t] for t in results)),
            len(results),
            values_size(tuple(params)),
            values_size(tuple(results)),
            _words_before(params, len(params)),
            _words_before(results, len(results)),
            self._arena.put(ops),
            len(head),
            len(tail),
            flags,
            self._arena.put(raw),
            len(raw),
            name_id,
            words if cacheable else _UNCACHED,
        )

    def _op(self, field: _Field) -> bytes:
        if field.op == _LITERAL:
            return _OP.pack(_LITERAL, 0, *self._text(field.names[0]))
        if field.op in (_ENUM, _FLAGS):
            pairs = b"".join(struct.pack("<II", *self._text(name)) for name in field.names)
            return _OP.pack(field.op, field.source, self._arena.put(pairs), len(field.names))
        return _OP.pack(field.op, field.source, field.x, 0)

    def _text(self, text: str) -> tuple[int, int]:
        raw = text.encode("utf-8", "replace")
        if text not in self._texts:
            self._texts[text] = self._arena.put(raw)
        return self._texts[text], len(raw)

    # -- the module's memory -------------------------------------------------------------------------------------

    def _call(self, name: str, *arguments: int) -> int:
        function = self._functions.get(name)
        if function is None:
            function = self._functions[name] = cast("wasmtime.Func", self._exports[name])
        # wasmtime takes i32 in either signedness but gives it signed.
        result = function(self._store, *arguments)
        if name == "rows":
            return int(result)
        return int(result) & 0xFFFFFFFF if result is not None else 0

    def _base(self) -> int:
        return ctypes.addressof(self._memory.data_ptr(self._store).contents)

    def _reserve(self, end: int) -> None:
        missing = (end + 65535) // 65536 - self._memory.size(self._store)
        if missing > 0:
            import wasmtime

            try:
                self._memory.grow(self._store, missing)
            except wasmtime.WasmtimeError:
                raise TraceError(f"there is no memory for a table of {end} bytes; close other programs") from None

    def _write(self, at: int, data: bytes | bytearray | memoryview) -> None:
        size = len(data)
        if isinstance(data, memoryview):
            source = pa.py_buffer(data)
            ctypes.memmove(self._base() + at, source.address, size)
        else:
            ctypes.memmove(self._base() + at, bytes(data), size)

    def _read(self, at: int, size: int) -> bytes:
        return ctypes.string_at(self._base() + at, size)

    def _flush(self) -> None:
        arena = self._arena
        self._write(arena.base + arena.written, bytes(arena.data[arena.written :]))
        arena.written = len(arena.data)

    # -- wrapping ------------------------------------------------------------------------------------------------

    def _copied(self, at: int, size: int) -> Any:
        return pa.py_buffer(self._read(at, size))

    def _foreign(self, at: int, size: int) -> Any:
        return pa.foreign_buffer(self._base() + at, size, self)

    def _batch(self, buffer: Any) -> pa.RecordBatch:
        out = struct.unpack(f"<{_O_COUNT}I", self._read(self._out_at, 4 * _O_COUNT))
        n = out[_O_ROWS]

        def column(kind: Any, values: int, valid: int | None = None, nulls: int = 0) -> Any:
            width = kind.bit_width // 8
            bits = buffer(out[valid], (n + 7) // 8) if valid is not None and out[nulls] else None
            return pa.Array.from_buffers(kind, n, [bits, buffer(out[values], n * width)], out[nulls] if bits is not None else 0)

        def strings(count: int, offsets: int, text: int) -> Any:
            ends = self._read(out[offsets] + 4 * count, 4)
            size = int.from_bytes(ends, "little")
            return pa.Array.from_buffers(
                pa.string(), count, [None, buffer(out[offsets], 4 * count + 4), buffer(out[text], size)], 0
            )

        def words(offsets: int, values: int, count: int) -> Any:
            items = pa.Array.from_buffers(pa.uint64(), count, [None, buffer(out[values], 8 * count)], 0)
            return pa.Array.from_buffers(WORDS, n, [None, buffer(out[offsets], 4 * n + 4)], 0, children=[items])

        def names(indices: Any, dictionary: Any) -> Any:
            return pa.DictionaryArray.from_arrays(indices, dictionary, safe=False)

        if self._name_array is None:
            raw = [name.encode("utf-8", "replace").decode("utf-8") for name in self._names]
            self._name_array = pa.array(raw, pa.string())
        targets = strings(out[_O_TARGET_TEXTS], _O_TARGET_TEXT_OFFSETS, _O_TARGET_TEXT)
        details = strings(out[_O_DETAIL_TEXTS], _O_DETAIL_TEXT_OFFSETS, _O_DETAIL_TEXT)
        ends = struct.unpack("<q", self._read(out[_O_RECORD_OFFSETS] + 8 * n, 8))[0]
        record = pa.Array.from_buffers(
            pa.large_binary(), n, [None, buffer(out[_O_RECORD_OFFSETS], 8 * n + 8), buffer(out[_O_WINDOW], ends)], 0
        )
        i32, i64, i8 = pa.int32(), pa.int64(), pa.int8()
        arrays = [
            column(i64, _O_SEQ),
            names(column(i8, _O_KIND), _KIND_ARRAY),
            names(column(i32, _O_IMPORT, _O_IMPORT_VALID, _O_NULL_IMPORT), self._name_array),
            names(column(i32, _O_TARGET, _O_TARGET_VALID, _O_NULL_TARGET), targets),
            column(i32, _O_DEPTH),
            names(column(i8, _O_STATUS), _STATUS_ARRAY),
            column(i64, _O_OF, _O_OF_VALID, _O_NULL_OF),
            column(i64, _O_TIME),
            column(i64, _O_DURATION, _O_DURATION_VALID, _O_NULL_DURATION),
            words(_O_ARGS_OFFSETS, _O_ARGS, out[_O_ARG_WORDS]),
            words(_O_RESULTS_OFFSETS, _O_RESULTS, out[_O_RESULT_WORDS]),
            names(column(i32, _O_DETAIL, _O_DETAIL_VALID, _O_NULL_DETAIL), details),
            column(i64, _O_SENT),
            column(i64, _O_RECEIVED),
            column(i64, _O_SPAN, _O_SPAN_VALID, _O_NULL_SPAN),
            record,
            column(i32, _O_CHUNKS_AT, _O_CHUNKS_VALID, _O_NULL_CHUNKS),
        ]
        return pa.RecordBatch.from_arrays(arrays, schema=SCHEMA)


_KIND_ARRAY: Final = pa.array(KINDS, pa.string())
_STATUS_ARRAY: Final = pa.array(STATUSES, pa.string())
assert set(_TYPES) == set(VALUE_SIZE)
