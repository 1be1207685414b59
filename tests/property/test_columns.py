"""The columniser against a second, slow reader of the same records, on generated recordings and on damaged ones."""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from traces._errors import TraceError
from traces.columns import KINDS, Columniser
from traces.layout import Kind, Status
from traces.manifest import Export, Import

IMPORTS = (
    Import("env", "none", (), (), "wasi"),
    Import("env", "all", ("i32", "i64", "f32", "f64", "v128", "externref"), ("v128", "i32"), "wasi"),
    Import("host", "tool", ("i32",), ("i32",), "python"),
    Import("wasi", "open", ("i32", "i32", "i32"), ("i32",), "wasi", (), "open({0:text:1}) → fd {2:u32} {r0:errno}", True),
)
EXPORTS = (Export("run", (), ()), Export("sum", ("i64", "v128"), ("f64",)))
WIDTH = {"i32": 4, "f32": 4, "i64": 8, "f64": 8, "v128": 16, "externref": 4, "funcref": 4}
ORDER = [name for name in Columniser([], []).convert(b"").schema.names if name != "detail"]


def record(kind: Kind, body: bytes, index: int = 0xFFFF, status: Status = Status.COMPLETE, time: int = 0) -> bytes:
    return struct.pack("<IHBBI", 12 + len(body), index, kind, status, time) + body


def chunk(address: int, data: bytes, *, sent: bool = False, memory: int = 0, wide: bool = False) -> bytes:
    word = len(data) | memory << 24 | wide << 30 | sent << 31
    high = struct.pack("<I", address >> 32) if wide else b""
    return struct.pack("<II", address & 0xFFFFFFFF, word) + high + data + bytes(-len(data) % 4)


# -- the oracle ------------------------------------------------------------------------------------------------------------


@dataclass
class Oracle:
    """Reads records one by one, in plain Python, with nothing of `traces.columns` in it."""

    imports: list[Import]
    stack: list[dict[str, Any]] = field(default_factory=list)
    seq: int = 0
    payload: int | None = None
    time: int = 0
    last: int = 0

    def values(self, data: bytes, types: tuple[str, ...]) -> tuple[list[int], bytes]:
        words = []
        for kind in types:
            raw, data = data[: WIDTH[kind]], data[WIDTH[kind] :]
            words += [int.from_bytes(raw[i : i + 8], "little") for i in range(0, len(raw), 8)]
        return words, data

    def window(self, window: bytes) -> list[dict[str, Any]]:
        rows = []
        while window:
            size = struct.unpack_from("<I", window)[0]
            rows.append(self.one(window[:size]))
            window = window[size:]
        return rows

    def one(self, data: bytes) -> dict[str, Any]:
        _, index, kind, status, time = struct.unpack_from("<IHBBI", data)
        self.time += (time - self.last) % 2**32
        self.last = time
        body, name = data[12:], KINDS[kind - 1]
        row: dict[str, Any] = dict.fromkeys(ORDER)
        around = self.stack[-1]["span"] if self.stack else None
        row |= {
            "seq": self.seq, "kind": name, "depth": len(self.stack), "status": ("open", "ok", "denied")[status],
            "time_ns": self.time * 1000000, "args": [], "results": [], "sent": 0, "received": 0, "span": around, "record": data,
        }  # fmt: skip
        chunks: bytes | None = None
        payload = None
        inner = self.stack[-1]["seq"] if self.stack else None
        if name in ("call", "export", "callback"):
            function: Import | Export
            if name == "call":
                function = self.imports[index]
                row["import"] = self.imports[index].qualified
                if self.imports[index].host == "python":
                    row["span"] = self.seq
            else:
                target, _ = struct.unpack_from("<II", body)
                body, function = body[8:], EXPORTS[target]
                row["target"] = function.name
            row["args"], chunks = self.values(body, function.params)
            results, chunks = self.values(chunks, function.results)
            if status:
                row["results"] = results
            if name == "call" and self.imports[index].errno and status == 1 and results[0]:
                row["status"] = "errno"
            if not status:
                payload = self.seq if name == "call" else None
                self.stack.append({"seq": self.seq, "span": row["span"], "kind": name, "function": function})
        elif name == "return":
            closed = self.stack.pop()
            function = closed["function"]
            row |= {"depth": len(self.stack), "of": closed["seq"], "span": closed["span"]}
            row["results"], chunks = self.values(body, function.results)
            if closed["kind"] == "call":
                row["import"] = self.imports[index].qualified
                if self.imports[index].errno and row["results"][0] and status == 1:
                    row["status"] = "errno"
            payload = closed["seq"]
        elif name in ("trap", "exit", "stop"):
            if name != "exit" and status == 1:
                row["status"] = "trap"
            while self.stack:
                closed = self.stack.pop()
                if closed["kind"] != "call":
                    row["of"] = closed["seq"]
                    break
            row["depth"] = len(self.stack)
            if name != "stop":
                length = struct.unpack_from("<I", body, 4)[0] if name == "trap" else 0
                chunks = body[8 + length + -length % 4 :]
        elif name == "poke":
            chunks, payload, row["of"] = body, self.seq, inner
        elif name == "data":
            chunks, payload = body, self.payload
            calls = [frame["seq"] for frame in self.stack if frame["kind"] == "call"]
            row["of"] = self.payload if self.payload is not None else calls[-1]
        else:
            row["of"] = inner
            if name == "define":
                entry = json.loads(body[8 : 8 + struct.unpack_from("<I", body, 4)[0]])
                self.imports.append(
                    Import(entry["module"], entry["name"], tuple(entry["params"]), tuple(entry["results"]), "defined")
                )
        self.payload = payload
        if chunks is not None:
            row["chunks_at"] = len(data) - len(chunks)
            while chunks:
                address, word = struct.unpack_from("<II", chunks)
                length, start = word & 0xFFFFFF, 12 if word >> 30 & 1 else 8
                if word >> 24 & 63 == 63:
                    if address == 1:
                        row["duration_ns"] = struct.unpack_from("<q", chunks, start + 8)[0]
                else:
                    row["sent" if word >> 31 else "received"] += length
                chunks = chunks[start + length + -length % 4 :]
        self.seq += 1
        return row


# -- generated recordings --------------------------------------------------------------------------------------------------


@st.composite
def recordings(draw: st.DrawFn) -> list[bytes]:
    """Windows of a recording in which everything that opens and closes does so in order."""
    imports = list(IMPORTS)
    stack: list[tuple[str, Any, int]] = []
    windows, current, time = [], b"", draw(st.sampled_from([0, 5, 2**32 - 3]))
    payload = False
    blob = st.binary(max_size=9)

    def raw(types: tuple[str, ...]) -> bytes:
        return draw(st.binary(min_size=sum(WIDTH[t] for t in types), max_size=sum(WIDTH[t] for t in types)))

    def chunks() -> bytes:
        out = b""
        for _ in range(draw(st.integers(0, 2))):
            if draw(st.booleans()) and draw(st.booleans()):
                out += chunk(1, struct.pack("<qq", draw(st.integers(0, 2**62)), draw(st.integers(0, 2**62))), memory=63)
            else:
                wide = draw(st.booleans())
                at = draw(st.integers(0, 2**40 if wide else 2**32 - 1))
                out += chunk(at, draw(blob), sent=draw(st.booleans()), memory=draw(st.integers(0, 62)), wide=wide)
        return out

    for _ in range(draw(st.integers(0, 25))):
        time = (time + draw(st.sampled_from([0, 1, 70000]))) % 2**32
        choices = ["call", "call", "export", "callback", "poke", "growth", "global", "table", "grow_failed", "define", "cut",
                   "trap", "exit", "stop"]  # fmt: skip
        choices += ["return"] * 4 if stack else []
        choices += ["data"] if payload or any(kind == "call" for kind, _, _ in stack) else []
        name = draw(st.sampled_from(choices))
        if name == "cut":
            windows.append(current)
            current = b""
            continue
        kind, index, status, now_payload = Kind[name.upper()], 0xFFFF, Status.COMPLETE, False
        if name == "call":
            index = draw(st.integers(0, len(imports) - 1))
            status = draw(st.sampled_from(Status))
            body = raw(imports[index].params + imports[index].results) + chunks()
            if status is Status.OPEN:
                stack.append((name, imports[index], index))
                now_payload = True
        elif name in ("export", "callback"):
            target = draw(st.integers(0, 1))
            status = draw(st.sampled_from((Status.OPEN, Status.COMPLETE)))
            body = struct.pack("<II", target, 0) + raw(EXPORTS[target].params + EXPORTS[target].results)
            if status is Status.OPEN:
                stack.append((name, EXPORTS[target], 0xFFFF))
        elif name == "return":
            _, function, index = stack.pop()
            body, now_payload = raw(function.results) + chunks(), True
        elif name in ("trap", "exit", "stop"):
            text = draw(blob)
            padded = text + bytes(-len(text) % 4)
            if name == "trap":
                body = struct.pack("<II", 3, len(text)) + padded + chunks()
            elif name == "exit":
                body = struct.pack("<II", 7, 0) + chunks()
            else:
                body = struct.pack("<IIQ", 2, len(text), draw(st.integers(0, 2**64 - 1))) + padded
            while stack and stack.pop()[0] == "call":
                pass
        elif name in ("poke", "data"):
            body, now_payload = chunks(), name == "poke" or payload
        elif name == "define":
            entry = {"module": "d", "name": f"f{len(imports)}", "params": ["i64"], "results": ["v128"]}
            text = json.dumps(entry).encode()
            body = struct.pack("<II", len(imports), len(text)) + text + bytes(-len(text) % 4)
            imports.append(Import("d", entry["name"], ("i64",), ("v128",), "defined"))  # type: ignore[arg-type]
        else:
            body = draw(st.binary(min_size=(size := {"growth": 24, "global": 24, "table": 32}.get(name, 16)), max_size=size))
        payload = now_payload
        current += record(kind, body, index, status, time)
    return [*windows, current]


@given(recordings())
@settings(max_examples=300)
def test_every_column_agrees_with_a_second_reader(windows: list[bytes]) -> None:
    columniser, oracle = Columniser(IMPORTS, EXPORTS), Oracle(list(IMPORTS))

    for window in windows:
        assert columniser.scan(window) == len(window)
        batch = columniser.convert(window)
        batch.validate(full=True)
        assert batch.select(ORDER).to_pylist() == oracle.window(window)

    assert (columniser.rows, columniser.depth) == (oracle.seq, len(oracle.stack))
    assert [entry.qualified for entry in columniser.imports] == [entry.qualified for entry in oracle.imports]


@given(recordings(), st.data())
def test_damage_is_an_error_and_changes_nothing(windows: list[bytes], data: st.DataObject) -> None:
    columniser = Columniser(IMPORTS, EXPORTS)
    for window in windows[:-1]:
        columniser.convert(window)
    before = (columniser.rows, columniser.depth, columniser.windows, list(columniser.imports))
    damaged = bytearray(windows[-1])
    for _ in range(data.draw(st.integers(1, 4))):
        if damaged:
            damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))

    usable = columniser.scan(bytes(damaged))
    try:
        columniser.convert(bytes(damaged)).validate(full=True)
        assert usable == len(damaged)
    except TraceError as error:
        assert "\n" not in str(error)
        assert usable < len(damaged)
        assert (columniser.rows, columniser.depth, columniser.windows, columniser.imports) == before
        columniser.convert(bytes(damaged[:usable])).validate(full=True)


@given(st.binary(max_size=200))
@settings(max_examples=500)
def test_garbage_is_never_more_than_an_error(garbage: bytes) -> None:
    columniser = Columniser(IMPORTS, EXPORTS)
    usable = columniser.scan(garbage)
    if usable < len(garbage):
        with pytest.raises(TraceError):
            columniser.convert(garbage)
    columniser.convert(garbage[:usable]).validate(full=True)


@given(recordings())
@settings(max_examples=30)
def test_truncation_at_every_byte(windows: list[bytes]) -> None:
    columniser = Columniser(IMPORTS, EXPORTS)
    for window in windows[:-1]:
        columniser.convert(window)
    window = windows[-1]
    ends = {0}
    while max(ends) < len(window):
        ends.add(max(ends) + struct.unpack_from("<I", window, max(ends))[0])
    for length in range(len(window)):
        assert columniser.scan(window[:length]) == max(end for end in ends if end <= length)
