"""A trace for people: what ran, one line per event, one event in full, the guest's output. No SQL engine is needed for it.

Everything shown may come from a hostile guest, so it is escaped here and nowhere later. What an import means is known only as far
as it makes a line readable (a clock's value, the text of a write); the record is shown as bytes beside it.
"""

from __future__ import annotations

import base64
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatchcase
from json import loads
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from traces._errors import UsageError
from traces.columns import KINDS, STATUSES, printable
from traces.layout import (
    CHUNK_LENGTH_MASK,
    CHUNK_MEMORY_MASK,
    CHUNK_MEMORY_SHIFT,
    CHUNK_SENT,
    CHUNK_WIDE,
    META_MEMORY,
    pad4,
)
from traces.manifest import Import, Manifest
from traces.tables import EventsReader, read_spans
from traces.tracedir import EVENTS, SPANS, Trace

WASI: Final = "wasi_snapshot_preview1."
DUMPED: Final = 1024
"""Bytes of one piece of memory that are dumped; its size is always told."""
_PREVIEW = 48


# -- records -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Piece:
    """Guest memory that an event read or wrote."""

    memory: int
    address: int
    sent: bool
    """The host read it; otherwise the host wrote it."""
    data: bytes


def pieces(record: bytes, at: int | None) -> list[Piece]:
    """The pieces of memory a record carries, from `at` on. A record that lies about their lengths ends the list."""
    found: list[Piece] = []
    while at is not None and at + 8 <= len(record):
        address, word = struct.unpack_from("<II", record, at)
        at += 8
        if word & CHUNK_WIDE:
            address |= int.from_bytes(record[at : at + 4], "little") << 32
            at += 4
        length = word & CHUNK_LENGTH_MASK
        memory = word >> CHUNK_MEMORY_SHIFT & CHUNK_MEMORY_MASK
        if memory != META_MEMORY:
            found.append(Piece(memory, address, bool(word & CHUNK_SENT), record[at : at + length]))
        at += pad4(length)
    return found


def quoted(data: bytes, limit: int = _PREVIEW) -> str:
    """Bytes as an escaped string if they are text, else as hex; at most `limit` of them."""
    more = "…" if len(data) > limit else ""
    head = data[:limit]
    try:
        return f'"{printable(head.decode("utf-8"))}{more}"'
    except UnicodeDecodeError as error:
        if more and error.start > limit - 4 and error.reason == "unexpected end of data":
            return f'"{printable(head[: error.start].decode("utf-8"))}{more}"'
        return f"{head[: limit // 2].hex()}{'…' if len(data) > limit // 2 else ''}"


# -- choosing events -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Filter:
    """Which events to show; None and "" mean all."""

    imports: str = ""
    """A glob over `module.name` or `name`."""
    kind: str = ""
    status: str = ""
    first: int | None = None
    last: int | None = None
    """Inclusive."""
    limit: int | None = None

    def check(self) -> None:
        """Raises UsageError for a kind or status that no event can have."""
        for given, known, what in ((self.kind, KINDS, "kind"), (self.status, STATUSES, "status")):
            if given and given not in known:
                raise UsageError(f"--{what} {given}: no event has it; choose one of {', '.join(known)}")

    def apply(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        masks = []
        if self.first is not None:
            masks.append(pc.greater_equal(batch.column("seq"), self.first))
        if self.last is not None:
            masks.append(pc.less_equal(batch.column("seq"), self.last))
        if self.kind:
            masks.append(_among(batch.column("kind"), lambda name: name == self.kind))
        if self.status:
            masks.append(_among(batch.column("status"), lambda name: name == self.status))
        if self.imports:
            masks.append(_among(batch.column("import"), self._import_matches))
        for mask in masks[1:]:
            masks[0] = pc.and_(masks[0], mask)
        return batch.filter(masks[0]) if masks else batch

    def _import_matches(self, name: str) -> bool:
        return fnmatchcase(name, self.imports) or fnmatchcase(name.rpartition(".")[2], self.imports)


def _among(column: Any, wanted: Any) -> Any:
    """Which rows of a dictionary column hold a wanted word; looks at each word once."""
    words = column.dictionary.to_pylist()
    chosen = pa.array([i for i, word in enumerate(words) if wanted(word)], column.indices.type)
    return pc.fill_null(pc.is_in(column.indices, value_set=chosen), False)


def events(trace: Trace, wanted: Filter) -> Iterator[dict[str, Any]]:
    """The chosen rows in order, a window at a time."""
    wanted.check()
    shown = 0
    with EventsReader(trace.path / EVENTS) as reader:
        for first, rows, index in _windows(reader):
            if wanted.last is not None and first > wanted.last:
                return
            if wanted.first is not None and first + rows <= wanted.first:
                continue
            chosen = wanted.apply(reader.batch(index))
            # A slice at a time: Python objects take far more room than columns.
            for at in range(0, chosen.num_rows, 4096):
                for row in chosen.slice(at, 4096).to_pylist():
                    if wanted.limit is not None and shown >= wanted.limit:
                        return
                    shown += 1
                    yield row


PLAIN = (
    "seq", "kind", "import", "target", "depth", "status", "of", "time_ns", "duration_ns", "detail", "sent", "received", "span",
)  # fmt: skip


def event_json(row: dict[str, Any], payload: bool = False) -> dict[str, Any]:
    shown = {name: row[name] for name in PLAIN}
    shown["args"] = [hex(word) for word in row["args"]]
    shown["results"] = [hex(word) for word in row["results"]]
    if payload:
        shown["pieces"] = [
            {
                "memory": piece.memory,
                "address": hex(piece.address),
                "direction": "sent" if piece.sent else "received",
                "bytes": base64.b64encode(piece.data).decode("ascii"),
            }
            for piece in pieces(row["record"], row["chunks_at"])
        ]
        shown["record"] = base64.b64encode(row["record"]).decode("ascii")
    return shown


def _windows(reader: EventsReader) -> Iterator[tuple[int, int, int]]:
    """First row, number of rows and index of each window, from the file's footer alone."""
    for index in range(reader.window_count):
        yield reader._first[index], reader._first[index + 1] - reader._first[index], index


# -- one line per event --------------------------------------------------------------------------------------------------


class Lines:
    """Turns rows into lines."""

    def __init__(self, manifest: Manifest) -> None:
        self._imports: dict[str, Import] = {}
        for entry in manifest.imports:
            self._imports.setdefault(entry.qualified, entry)
        self._results = {export.name: export.results for export in manifest.exports}
        self._open: dict[int, tuple[str, ...]] = {}
        """Result types of calls into the guest that have not returned yet; a return does not name what it returns from."""

    def line(self, row: Mapping[str, Any]) -> str:
        head, outcome = self.texts(row)
        indent = "  " * min(row["depth"], 12)
        text = f"{row['seq']:>8}  {indent + head:<46}  {row['status']:<6}"
        return f"{text}  → {outcome}".rstrip() if outcome else text.rstrip()

    def texts(self, row: Mapping[str, Any]) -> tuple[str, str]:
        """What happened, and what came of it."""
        detail = row["detail"] or ""
        head, _, outcome = detail.partition(" → ")
        kind = row["kind"]
        if kind in ("export", "callback") and row["status"] == "open":
            self._open[row["seq"]] = self._results.get(row["target"] or "", ())
        if kind == "return":
            head = f"return of {row['of']}" + (f"  {outcome or head}" if detail else "")
            return head, self._values(row)
        if kind in ("call", "export", "callback"):
            parts = [outcome, "" if outcome else self._values(row), self._payload(row)]
            return head or printable(row["import"] or row["target"] or kind), " ".join(part for part in parts if part)
        if kind in ("poke", "data"):
            return f"{kind}  {detail}".rstrip(), self._payload(row)
        return f"{kind}  {detail}".rstrip(), ""

    def _values(self, row: Mapping[str, Any]) -> str:
        entry = self._imports.get(row["import"]) if row["import"] else None
        if entry is not None and entry.errno:
            return ""
        types = entry.results if entry is not None else self._results.get(row["target"] or "", ())
        if row["kind"] == "return" and entry is None:
            types = self._open.pop(row["of"], ())
        return ", ".join(values(row["results"], types))

    def _payload(self, row: Mapping[str, Any]) -> str:
        """The interesting bytes of an event, in a few words."""
        if not row["sent"] and not row["received"]:
            return ""
        carried = pieces(row["record"], row["chunks_at"])
        name = row["import"] or ""
        if name.startswith(WASI):
            return _wasi_payload(name.removeprefix(WASI), row["args"], carried) if row["status"] == "ok" else ""
        sent = b"".join(p.data for p in carried if p.sent)
        received = b"".join(p.data for p in carried if not p.sent)
        shown = [f"read {quoted(sent)}" if sent else "", f"wrote {quoted(received)}" if received else ""]
        return ", ".join(text for text in shown if text)


def values(words: Sequence[int], types: Sequence[str]) -> list[str]:
    """Raw words as numbers: integers signed, floats as floats (NaNs with their bits), the rest in hexadecimal."""
    if sum(2 if t == "v128" else 1 for t in types) != len(words):
        return [hex(word) for word in words]
    left = iter(words)
    return [_value(t, next(left) | next(left) << 64 if t == "v128" else next(left)) for t in types]


def _value(t: str, bits: int) -> str:
    if t in ("i32", "i64"):
        width = 32 if t == "i32" else 64
        return str(bits - (1 << width) if bits >> (width - 1) else bits)
    if t in ("f32", "f64"):
        code, size = ("<f", 4) if t == "f32" else ("<d", 8)
        (number,) = struct.unpack(code, (bits & (1 << 8 * size) - 1).to_bytes(size, "little"))
        return f"nan ({bits:#x})" if number != number else repr(number)
    return hex(bits)


_WRITES = {"fd_write": 3, "fd_pwrite": 4, "sock_send": 4}
"""Operation -> argument that points to the number of bytes accepted."""
_READS = {"fd_read": 3, "fd_pread": 4, "sock_recv": 4}


def _wasi_payload(operation: str, args: Sequence[int], carried: Sequence[Piece]) -> str:
    if operation == "clock_time_get":
        data = b"".join(p.data for p in carried if not p.sent)
        return _clock(args[0], int.from_bytes(data, "little")) if len(data) == 8 else ""
    if operation == "random_get":
        return b"".join(p.data for p in carried if not p.sent)[:16].hex()
    if operation in _WRITES:
        data = written(args, carried, _WRITES[operation])
        return quoted(data) if data else ""
    if operation in _READS:
        where = args[_READS[operation]] if len(args) > _READS[operation] else -1
        data = b"".join(p.data for p in carried if not p.sent and p.address != where)
        return quoted(data) if data else ""
    return ""


def written(args: Sequence[int], carried: Sequence[Piece], count_at: int) -> bytes:
    """What a host accepted of a gathered write: behind the list of buffers, as many bytes as it says."""
    if len(args) <= count_at:
        return b""
    used = next((p.data for p in carried if not p.sent and p.address == args[count_at] and len(p.data) >= 4), b"")
    count = int.from_bytes(used[:4], "little")
    start = 8 * args[2]
    return b"".join(p.data for p in carried if p.sent)[start : start + count]


def _clock(clock: int, nanoseconds: int) -> str:
    if clock == 0 and nanoseconds < 1 << 62:
        return _utc(nanoseconds)
    return f"{nanoseconds // 10**9}.{nanoseconds % 10**9:09} s"


def _utc(nanoseconds: int) -> str:
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=nanoseconds // 10**9)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{nanoseconds % 10**9:09}Z"


# -- one event in full ---------------------------------------------------------------------------------------------------


def expanded(row: Mapping[str, Any], manifest: Manifest) -> Iterator[str]:
    """One event, field by field, with its bytes."""
    yield Lines(manifest).line(row).strip()
    yield f"  kind      {row['kind']}"
    if row["import"] is not None:
        yield f"  import    {printable(row['import'])}"
    if row["target"] is not None:
        yield f"  target    {printable(row['target'])}"
    yield f"  status    {row['status']}"
    if row["of"] is not None:
        yield f"  closes    event {row['of']}"
    yield f"  depth     {row['depth']}"
    taken = f", took {row['duration_ns'] / 1e3:,.1f} µs" if row["duration_ns"] is not None else ""
    yield f"  time      {row['time_ns'] / 1e9:.3f} s after the start{taken}"
    if row["span"] is not None:
        yield f"  span      {row['span']}"
    entry = next((i for i in manifest.imports if i.qualified == row["import"]), None)
    for name, words, types, names in (
        ("args", row["args"], entry.params if entry else (), entry.names if entry else ()),
        ("results", row["results"], entry.results if entry else (), ()),
    ):
        if words:
            shown = values(words, types) if types else [hex(word) for word in words]
            labels = [f"{printable(names[i])}=" if i < len(names) else "" for i in range(len(shown))]
            yield f"  {name:<9} {', '.join(label + value for label, value in zip(labels, shown, strict=True))}"
    for piece in pieces(row["record"], row["chunks_at"]):
        yield from _dump(piece)


def _dump(piece: Piece) -> Iterator[str]:
    what = "sent    " if piece.sent else "received"
    where = f" of memory {piece.memory}" if piece.memory else ""
    yield f"  {what}  {len(piece.data):,} bytes at {piece.address:#x}{where}"
    for at in range(0, min(len(piece.data), DUMPED), 16):
        row = piece.data[at : at + 16]
        text = "".join(chr(byte) if 0x20 <= byte < 0x7F else "." for byte in row)
        yield f"    {piece.address + at:08x}  {row.hex(' '):<47}  {text}"
    if len(piece.data) > DUMPED:
        yield f"    … {len(piece.data) - DUMPED:,} more bytes"


# -- the guest's output --------------------------------------------------------------------------------------------------


def output(trace: Trace, stop: int | None = None, descriptor: int = 1) -> Iterator[bytes]:
    """What the guest wrote to stdout (or another descriptor), as far as the host accepted it, before event `stop`."""
    open_calls: dict[int, tuple[list[int], list[Piece]]] = {}
    wanted = f"{WASI}fd_write"
    columns = ["seq", "kind", "import", "status", "of", "args", "record", "chunks_at"]
    with EventsReader(trace.path / EVENTS) as reader:
        for first, _, index in _windows(reader):
            if stop is not None and first >= stop:
                return
            batch = reader.batch(index, columns)
            mask = _among(batch.column("import"), lambda name: name == wanted)
            if open_calls or pc.any(pc.and_(mask, _among(batch.column("status"), lambda name: name == "open"))).as_py():
                mask = pc.or_(mask, _among(batch.column("kind"), lambda name: name in ("data", "return")))
            for row in batch.filter(mask).to_pylist():
                if stop is not None and row["seq"] >= stop:
                    return
                yield from _accepted(row, open_calls, descriptor)


def _accepted(row: Mapping[str, Any], open_calls: dict[int, tuple[list[int], list[Piece]]], descriptor: int) -> Iterator[bytes]:
    carried = pieces(row["record"], row["chunks_at"])
    if row["kind"] == "call" and row["args"][0] == descriptor:
        if row["status"] == "open":
            open_calls[row["seq"]] = (row["args"], carried)
        elif row["status"] == "ok":
            yield written(row["args"], carried, 3)
    elif row["of"] in open_calls:
        args, before = open_calls[row["of"]]
        before += carried
        if row["kind"] == "return":
            del open_calls[row["of"]]
            if row["status"] == "ok":
                yield written(args, before, 3)


# -- the whole trace -----------------------------------------------------------------------------------------------------


@dataclass
class Traffic:
    """What went through one import."""

    name: str
    host: str
    calls: int = 0
    failed: int = 0
    """With an errno, a trap or a denial."""
    sent: int = 0
    """Bytes the host read of the guest."""
    received: int = 0
    """Bytes the host wrote into the guest."""

    def to_json(self) -> dict[str, Any]:
        return {
            "import": self.name, "host": self.host, "calls": self.calls, "failed": self.failed,
            "bytes_sent": self.sent, "bytes_received": self.received,
        }  # fmt: skip


@dataclass
class Summary:
    """What `show` tells about a trace."""

    manifest: Manifest
    imports: list[Traffic] = field(default_factory=list)
    exports: dict[str, int] = field(default_factory=dict)
    """Calls into the guest, by export."""
    kinds: dict[str, int] = field(default_factory=dict)
    spans: list[dict[str, Any]] = field(default_factory=list)

    @property
    def crossings(self) -> int:
        """Calls in either direction."""
        return sum(i.calls for i in self.imports) + sum(self.exports.values())

    @property
    def sent(self) -> int:
        return sum(i.sent for i in self.imports)

    @property
    def received(self) -> int:
        return sum(i.received for i in self.imports)


def summarise(trace: Trace) -> Summary:
    """Counts everything once, column by column."""
    summary = Summary(trace.manifest)
    traffic: dict[str, Traffic] = {}
    for entry in trace.manifest.imports:
        traffic.setdefault(entry.qualified, Traffic(entry.qualified, entry.host))
    split: dict[int, str] = {}
    columns = ["seq", "kind", "import", "target", "status", "of", "sent", "received"]
    with EventsReader(trace.path / EVENTS) as reader:
        for _, _, index in _windows(reader):
            batch = reader.batch(index, columns)
            table = pa.Table.from_batches([batch])
            for name in ("kind", "import", "target", "status"):
                column = table.column(name)
                table = table.set_column(table.schema.get_field_index(name), name, column.cast(column.type.value_type))
            groups = table.group_by(["kind", "import", "target", "status"]).aggregate(
                [("seq", "count"), ("sent", "sum"), ("received", "sum")]
            )
            for row in groups.to_pylist():
                _count(summary, traffic, row)
            _count_split(table, split, traffic)
    summary.imports = sorted((t for t in traffic.values() if t.calls), key=lambda t: (-t.calls, t.name))
    summary.spans = _spans(trace)
    return summary


def _count(summary: Summary, traffic: dict[str, Traffic], row: Mapping[str, Any]) -> None:
    count, kind = row["seq_count"], row["kind"]
    summary.kinds[kind] = summary.kinds.get(kind, 0) + count
    if kind in ("export", "callback") and row["target"] is not None:
        summary.exports[row["target"]] = summary.exports.get(row["target"], 0) + count
    if row["import"] is None or kind not in ("call", "return"):
        return
    entry = traffic.setdefault(row["import"], Traffic(row["import"], "defined"))
    entry.calls += count if kind == "call" else 0
    entry.failed += count if row["status"] in ("errno", "trap", "denied") else 0
    entry.sent += row["sent_sum"] or 0
    entry.received += row["received_sum"] or 0


def _count_split(table: pa.Table, split: dict[int, str], traffic: dict[str, Traffic]) -> None:
    """Bytes of payloads that were too large for one record belong to the call they continue."""
    data = table.filter(pc.equal(table.column("kind"), "data"))
    opened = table.filter(pc.and_(pc.equal(table.column("kind"), "call"), pc.equal(table.column("status"), "open")))
    for seq, name in zip(opened.column("seq").to_pylist(), opened.column("import").to_pylist(), strict=True):
        split[seq] = name
    for of, sent, received in zip(*(data.column(n).to_pylist() for n in ("of", "sent", "received")), strict=True):
        entry = traffic.get(split.get(of, ""))
        if entry is not None:
            entry.sent += sent
            entry.received += received
    # Calls that have returned are not continued; without this a long recording would keep them all.
    for of in table.filter(pc.equal(table.column("kind"), "return")).column("of").to_pylist():
        split.pop(of, None)


def _spans(trace: Trace) -> list[dict[str, Any]]:
    table = read_spans(trace.path / SPANS)
    rows: list[dict[str, Any]] = table.to_pylist()
    return rows


def columns(rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> Iterator[str]:
    """Rows aligned; the columns numbered in `right` to the right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))] if rows else []
    for row in rows:
        cells = [cell.rjust(w) if i in right else cell.ljust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))]
        yield "  ".join(cells).rstrip()


SHOWN_SPANS: Final = 24


def summary_lines(trace: Trace, summary: Summary) -> Iterator[str]:
    """A trace on one screen."""
    m = summary.manifest
    for name, text in _facts(trace, m):
        yield f"{name:<10} {text}"
    yield f"{'events':<10} {_number(m.totals.get('records'))}, {_number(m.totals.get('bytes'))} bytes of records"
    yield f"{'crossings':<10} {summary.crossings:,}; {summary.sent:,} bytes sent, {summary.received:,} bytes received"
    yield ""
    rows = [("import", "host", "calls", "failed", "sent", "received")]
    rows += [
        (printable(t.name), printable(t.host), f"{t.calls:,}", f"{t.failed:,}", f"{t.sent:,}", f"{t.received:,}")
        for t in summary.imports
    ]
    yield from columns(rows, right=(2, 3, 4, 5)) if summary.imports else ["no import was called"]
    if summary.exports:
        yield ""
        yield from columns([("export", "calls"), *((printable(n), f"{c:,}") for n, c in summary.exports.items())], right=(1,))
    if len(summary.spans) > 1:
        yield ""
        yield from _span_lines(summary.spans)


def _facts(trace: Trace, m: Manifest) -> Iterator[tuple[str, str]]:
    def shown(value: Any) -> str:
        return printable(str(value))

    module, engine, invocation, outcome = m.module, m.engine, m.invocation, m.outcome
    yield "trace", f"{shown(trace.given)}{'  (unfinished: recovered for reading)' if trace.recovered else ''}"
    yield "module", f"{shown(module.get('origin'))}, {_number(module.get('size'))} bytes, sha256 {shown(module.get('sha256'))}"
    if module.get("derivation"):
        yield "ran as", shown(", ".join(map(str, module["derivation"])))
    yield "outcome", _outcome(outcome)
    yield "started", f"{shown(m.started.get('utc'))}{_took(m)}"
    if invocation.get("argv"):
        yield "arguments", " ".join(quoted(str(a).encode("utf-8", "replace"), 200) for a in invocation["argv"])
    for call in invocation.get("calls") or ():
        yield "invoked", shown(f"{call.get('export')}({', '.join(map(str, call.get('args') or ()))})")
    if invocation.get("hosts"):
        yield "hosts", shown(", ".join(map(str, invocation["hosts"])))
    yield "granted", shown(", ".join(m.capabilities)) or "nothing"
    limits = [
        f"{k} {m.limits[k]}" for k in ("fuel", "timeout", "max_memory", "max_table", "max_stack") if m.limits.get(k) is not None
    ]
    yield "limits", shown(", ".join(limits))
    yield "engine", shown(f"{engine.get('name')} {engine.get('version')}, profile {str(engine.get('fingerprint'))[:16]}")
    yield "machine", shown(f"{m.machine.get('os')}, {m.machine.get('cpu')}, Python {m.machine.get('python')}; {m.producer}")
    for key, value in m.notes.items():
        yield "note", f"{shown(key)}={shown(value)}"
    if m.digested:
        counts = ", ".join(f"{k}: {len(v)}" for k, v in m.digested.items() if isinstance(v, list | tuple) and v)
        yield "digested", shown(counts) or "nothing"


def _outcome(outcome: Mapping[str, Any]) -> str:
    text = str(outcome.get("kind"))
    if text == "exit":
        text += f" {outcome.get('code')}"
    if outcome.get("inside"):
        text += f" inside {outcome['inside']}"
    if isinstance(outcome.get("clock"), int):
        text += f" at instruction {outcome['clock']:,}"
    if outcome.get("message"):
        text += f": {outcome['message']}"
    return printable(text)


def _took(m: Manifest) -> str:
    begin, end = m.started.get("monotonic_ns"), m.ended.get("monotonic_ns")
    return f", took {(end - begin) / 1e9:.3f} s" if isinstance(begin, int) and isinstance(end, int) else ""


def _number(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else "?"


def _span_lines(spans: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    depth: dict[Any, int] = {}
    rows = [("span", "events", "ms", "status")]
    for span in spans[:SHOWN_SPANS]:
        level = depth[span["span_id"]] = depth.get(span["parent"], -1) + 1
        taken = f"{span['duration_ns'] / 1e6:,.2f}" if span["duration_ns"] is not None else "?"
        rows.append(
            (
                "  " * min(level, 12) + printable(span["name"]),
                f"{span['start_seq']}–{span['end_seq']}",
                taken,
                printable(span["status"]),
            )
        )
    yield from columns(rows, right=(1, 2))
    if len(spans) > SHOWN_SPANS:
        yield f"… {len(spans) - SHOWN_SPANS:,} more: reprise query TRACE 'FROM spans'"


def span_attributes(span: Mapping[str, Any]) -> dict[str, Any]:
    """A span's attributes as a dictionary; empty if they make no sense."""
    try:
        found = loads(span["attributes"])
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
