"""What the tests of the twin need: an interpreter that says what is right, and a way to ask the real machine.

`Interpreter` is written from the specification and shares no code with `recorder.wasm` or the replayer: its own reading of the
binary, its own idea of where an instruction ends, its own clock. It executes one counted instruction at a time and can be looked
at before each: frames, locals, operands, memories, globals, all as raw bits. SIMD and garbage collection are not in it; what it
cannot run is compared between a coarse and a fine twin only.
"""

from __future__ import annotations

import contextlib
import math
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

from recorder.python_host import Guest
from replayer import worker
from replayer.twin import Twin, build_twin
from replayer.worker import Job, Moment
from tests import harness

PAGE = 65536
M32 = 0xFFFFFFFF
M64 = (1 << 64) - 1

Value = Any
"""Raw bits of a number; a reference is None or a tuple."""


class TrapError(Exception):
    """The guest trapped."""


class ThrownError(Exception):
    """An exception left the guest."""


class UnknownError(Exception):
    """The interpreter does not know an instruction."""


# -- reading -----------------------------------------------------------------------------------------------------------------


class Bytes:
    """A cursor over a binary."""

    def __init__(self, data: bytes, at: int = 0) -> None:
        self.data = data
        self.at = at

    def byte(self) -> int:
        self.at += 1
        return self.data[self.at - 1]

    def u(self) -> int:
        value = shift = 0
        while True:
            byte = self.byte()
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    def s(self) -> int:
        value = shift = 0
        while True:
            byte = self.byte()
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value - (1 << shift) if byte & 64 else value

    def take(self, size: int) -> bytes:
        self.at += size
        return self.data[self.at - size : self.at]

    def name(self) -> str:
        return self.take(self.u()).decode()

    def type(self) -> str:
        code = self.byte()
        if code in (0x63, 0x64):
            self.s()
            return "ref?" if code == 0x63 else "ref!"
        return {0x7F: "i32", 0x7E: "i64", 0x7D: "f32", 0x7C: "f64", 0x7B: "v128"}.get(code, "ref?")

    def types(self) -> list[str]:
        return [self.type() for _ in range(self.u())]

    def limits(self) -> tuple[bool, int, int | None]:
        flags = self.byte()
        least = self.u()
        return bool(flags & 4), least, self.u() if flags & 1 else None


@dataclass
class Ins:
    """One instruction."""

    pc: int
    op: int
    """The opcode; behind a prefix byte, prefix << 16 | sub-opcode."""
    imm: Any = None
    end: int = -1
    """Position of the matching `end`, of what opens a block."""
    other: int = -1
    """Position of the `else`, if there is one."""


@dataclass
class Code:
    """One function."""

    type: int
    locals: list[str] = field(default_factory=list)
    body: list[Ins] = field(default_factory=list)


@dataclass
class Label:
    """Where a branch goes."""

    opens: int
    """Position of what opened the block; -1 for the function."""
    end: int
    arity: int
    height: int
    loop: bool
    catches: Any = None


@dataclass
class Frame:
    """One call."""

    function: int
    locals: list[Value]
    labels: list[Label]
    at: int = 0
    stack: list[Value] = field(default_factory=list)
    calling: int = 0
    """pc of the call that has not returned."""


@dataclass(frozen=True)
class State:
    """The guest before one instruction."""

    frames: tuple[Any, ...]
    memories: tuple[bytes, ...]
    globals: tuple[int | None, ...]


def bits(value: Value) -> Any:
    return int(value is not None) if value is None or isinstance(value, tuple) else value


def _float(raw: int, width: int) -> float:
    return float(struct.unpack("<f" if width == 4 else "<d", raw.to_bytes(width, "little"))[0])


def _raw(value: float, width: int) -> int:
    if math.isnan(value):
        return 0x7FC00000 if width == 4 else 0x7FF8 << 48
    try:
        return int.from_bytes(struct.pack("<f" if width == 4 else "<d", value), "little")
    except OverflowError:
        return _raw(math.copysign(math.inf, value), width)


def signed(value: int, width: int) -> int:
    return value - (1 << width) if value >> (width - 1) else value


class Interpreter:
    """A module, instantiated. `hosts`: the imported functions, in order; each gets the interpreter and raw arguments."""

    def __init__(self, wasm: bytes, hosts: Sequence[Callable[..., list[Value]]] = ()) -> None:
        self.types: list[tuple[list[str], list[str]]] = []
        self.functions: list[Any] = []
        self.tables: list[list[Value]] = []
        self.tables64: list[bool] = []
        self.memories: list[bytearray] = []
        self.limits: list[tuple[bool, int, int | None]] = []
        self.tags: list[int] = []
        self.globals: list[Value] = []
        self.global_types: list[tuple[str, bool]] = []
        self.exports: dict[str, int] = {}
        self.data: list[bytes] = []
        self.elements: list[list[Value]] = []
        self.start: int | None = None
        self.clock = 0
        self.frames: list[Frame] = []
        self.results: list[Value] = []
        self.writes: list[tuple[int, int, int, bytes]] = []
        """Every write: clock, memory, address, bytes after."""
        self.entries: list[tuple[int, tuple[int, ...]]] = []
        """Every function entered: clock, and the functions on the stack."""
        self.sets: list[tuple[int, int, int]] = []
        """Every number given to a global: clock, index, raw bits."""
        self._hosts = list(hosts)
        self._load(wasm)

    # -- loading

    def _load(self, wasm: bytes) -> None:
        reader = Bytes(wasm, 8)
        declared: list[int] = []
        while reader.at < len(wasm):
            kind, size = reader.byte(), reader.u()
            start = reader.at
            if kind == 1:
                for _ in range(reader.u()):
                    assert reader.byte() == 0x60
                    self.types.append((reader.types(), reader.types()))
            elif kind == 2:
                for _ in range(reader.u()):
                    reader.name()
                    reader.name()
                    assert reader.byte() == 0
                    self.functions.append((reader.u(), self._hosts.pop(0)))
            elif kind == 3:
                declared = [reader.u() for _ in range(reader.u())]
                self.functions += [Code(t) for t in declared]
            elif kind == 4:
                for _ in range(reader.u()):
                    if reader.data[reader.at] == 0x40:
                        raise UnknownError("table with an initial value")
                    reader.type()
                    is64, least, _ = reader.limits()
                    self.tables.append([None] * least)
                    self.tables64.append(is64)
            elif kind == 5:
                for _ in range(reader.u()):
                    self.limits.append(reader.limits())
                    self.memories.append(bytearray(self.limits[-1][1] * PAGE))
            elif kind == 6:
                for _ in range(reader.u()):
                    self.global_types.append((reader.type(), bool(reader.byte())))
                    self.globals.append(self._constant(reader))
            elif kind == 7:
                for _ in range(reader.u()):
                    name, what, index = reader.name(), reader.byte(), reader.u()
                    if what == 0:
                        self.exports[name] = index
            elif kind == 8:
                self.start = reader.u()
            elif kind == 9:
                for _ in range(reader.u()):
                    self._element(reader)
            elif kind == 10:
                self._code(reader, start, len(self.functions) - len(declared))
            elif kind == 11:
                for _ in range(reader.u()):
                    mode = reader.u()
                    memory = reader.u() if mode == 2 else 0
                    offset = self._constant(reader) if mode != 1 else 0
                    found = reader.take(reader.u())
                    self.data.append(found if mode == 1 else b"")
                    if mode != 1:
                        self.memories[memory][offset : offset + len(found)] = found
            elif kind == 13:
                for _ in range(reader.u()):
                    reader.byte()
                    self.tags.append(reader.u())
            reader.at = start + size

    def _constant(self, reader: Bytes) -> Value:
        value: Value = None
        while (op := reader.byte()) != 0x0B:
            if op in (0x41, 0x42):
                value = reader.s() & (M32 if op == 0x41 else M64)
            elif op in (0x43, 0x44):
                value = int.from_bytes(reader.take(4 if op == 0x43 else 8), "little")
            elif op == 0xD0:
                reader.s()
            elif op == 0xD2:
                value = ("func", reader.u())
            elif op == 0x23:
                value = self.globals[reader.u()]
            else:
                raise UnknownError(f"{op:#x} in a constant expression")
        return value

    def _element(self, reader: Bytes) -> None:
        mode = reader.u()
        table = reader.u() if mode & 3 == 2 else 0
        offset = self._constant(reader) if not mode & 1 else 0
        if mode & 4:
            if mode & 3:
                reader.type()
            found = [self._constant(reader) for _ in range(reader.u())]
        else:
            if mode & 3:
                reader.byte()
            found = [("func", reader.u()) for _ in range(reader.u())]
        self.elements.append(found if mode & 3 == 1 else [])
        if not mode & 1:
            self.tables[table][offset : offset + len(found)] = found

    def _code(self, reader: Bytes, base: int, first: int) -> None:
        for position in range(reader.u()):
            size = reader.u()
            end = reader.at + size
            code = self.functions[first + position]
            code.locals = list(self.types[code.type][0])
            for _ in range(reader.u()):
                count = reader.u()
                code.locals += [reader.type()] * count
            opened: list[int] = []
            while reader.at < end:
                ins = self._instruction(reader, base)
                index = len(code.body)
                if ins.op in (2, 3, 4, 0x1F):
                    opened.append(index)
                elif ins.op == 5:
                    code.body[opened[-1]].other = index
                elif ins.op == 0x0B and opened:
                    code.body[opened.pop()].end = index
                code.body.append(ins)

    def _instruction(self, r: Bytes, base: int) -> Ins:
        pc = r.at - base
        op = r.byte()
        imm: Any = None
        if op in (0xFC, 0xFD):
            op = op << 16 | r.u()
            sub = op & 0xFFFF
            if op >> 16 == 0xFD:
                raise UnknownError("SIMD")
            if sub in (8, 10, 12, 14):
                imm = (r.u(), r.u())
            elif sub in (9, 11, 13, 15, 16, 17):
                imm = r.u()
        elif op in (2, 3, 4, 0x1F):
            if r.data[r.at] == 0x40:
                r.at += 1
                imm = (0, 0)
            elif r.data[r.at] & 0xC0 == 0x40:
                r.type()
                imm = (0, 1)
            else:
                params, results = self.types[r.s()]
                imm = (len(params), len(results))
            if op == 0x1F:
                catches = []
                for _ in range(r.u()):
                    kind = r.byte()
                    catches.append((kind, r.u() if kind < 2 else -1, r.u()))
                imm = (*imm, catches)
        elif op in (8, 0x0C, 0x0D, 0x10, 0x12, 0x14, 0x15, 0x3F, 0x40, 0xD2, 0xD5, 0xD6) or 0x20 <= op <= 0x26:
            imm = r.u()
        elif op in (0x11, 0x13):
            imm = (r.u(), r.u())
        elif op == 0x0E:
            imm = [r.u() for _ in range(r.u() + 1)]
        elif op == 0x1C:
            r.types()
        elif 0x28 <= op <= 0x3E:
            align = r.u()
            imm = (r.u() if align & 64 else 0, r.u())
        elif op in (0x41, 0x42):
            imm = r.s() & (M32 if op == 0x41 else M64)
        elif op in (0x43, 0x44):
            imm = int.from_bytes(r.take(4 if op == 0x43 else 8), "little")
        elif op == 0xD0:
            r.s()
        return Ins(pc, op, imm)

    # -- looking

    def state(self) -> State:
        """As `Moment.view` shows it: frames innermost first."""
        frames = []
        for frame in reversed(self.frames):
            code = self.functions[frame.function]
            innermost = frame is self.frames[-1]
            locals_ = [None if t == "ref!" else bits(v) for t, v in zip(code.locals, frame.locals, strict=True)]
            pc = code.body[frame.at].pc if innermost else frame.calling
            frames.append((frame.function, pc, tuple(locals_), tuple(bits(v) for v in frame.stack)))
        known = tuple(bits(v) for v in self.globals)
        return State(tuple(frames), tuple(bytes(m) for m in self.memories), known)

    # -- running

    def invoke(self, name: str | int, args: Sequence[Value], look: Callable[[Interpreter], None] | None = None) -> list[Value]:
        """Calls an export to its end; `look` before every instruction. Raises TrapError or ThrownError."""
        outer, self.frames = self.frames, []
        index = self.exports[name] if isinstance(name, str) else name
        try:
            self._enter(index, list(args))
            self._settle()
            while self.frames:
                if look is not None:
                    look(self)
                self.step()
        finally:
            self.frames = outer
        return self.results

    def _enter(self, index: int, args: list[Value]) -> None:
        found = self.functions[index]
        if isinstance(found, tuple):
            results = found[1](self, *args)
            if self.frames:
                self.frames[-1].stack += results
            else:
                self.results = results
            return
        params, results = self.types[found.type]
        locals_ = args + [None if t.startswith("ref") else 0 for t in found.locals[len(params) :]]
        frame = Frame(index, locals_, [Label(-1, len(found.body) - 1, len(results), 0, False)])
        self.frames.append(frame)
        self.entries.append((self.clock, tuple(f.function for f in self.frames)))

    def _settle(self) -> None:
        """Over what does not count, up to the next instruction that does."""
        while self.frames:
            frame = self.frames[-1]
            body = self.functions[frame.function].body
            ins = body[frame.at]
            if ins.op == 5:
                frame.at = frame.labels[-1].end
            elif ins.op == 0x0B:
                if len(frame.labels) == 1:
                    self._return()
                else:
                    frame.labels.pop()
                    frame.at += 1
            else:
                return

    def _return(self) -> None:
        frame = self.frames.pop()
        arity = frame.labels[0].arity
        values = frame.stack[len(frame.stack) - arity :]
        if self.frames:
            self.frames[-1].stack += values
        else:
            self.results = values

    def _branch(self, depth: int) -> None:
        frame = self.frames[-1]
        if depth == len(frame.labels) - 1:
            self._return()
            return
        label = frame.labels[-1 - depth]
        values = frame.stack[len(frame.stack) - label.arity :] if label.arity else []
        del frame.stack[label.height :]
        frame.stack += values
        if label.loop:
            del frame.labels[len(frame.labels) - depth :]
            frame.at = label.opens + 1
        else:
            del frame.labels[len(frame.labels) - 1 - depth :]
            frame.at = label.end + 1

    def _throw(self, tag: int, values: list[Value], exception: Any = None) -> None:
        exception = exception or ("exn", tag, values)
        while self.frames:
            frame = self.frames[-1]
            while frame.labels:
                label = frame.labels[-1]
                for kind, wanted, depth in label.catches or ():
                    if kind >= 2 or wanted == tag:
                        frame.labels.pop()
                        del frame.stack[label.height :]
                        frame.stack += (values if kind < 2 else []) + ([exception] if kind & 1 else [])
                        self._branch(depth)
                        return
                if len(frame.labels) == 1:
                    break
                frame.labels.pop()
            self.frames.pop()
        raise ThrownError

    def step(self) -> None:
        """Executes one instruction that counts, and those that do not behind it."""
        frame = self.frames[-1]
        body = self.functions[frame.function].body
        ins = body[frame.at]
        self.clock += 1
        frame.at += 1
        self._execute(frame, ins, frame.at - 1)
        self._settle()

    def _pop(self, frame: Frame, count: int) -> list[Value]:
        if not count:
            return []
        values = frame.stack[-count:]
        del frame.stack[-count:]
        return values

    def _call(self, frame: Frame, ins: Ins, index: int, tail: bool, wanted: int | None = None) -> None:
        found = self.functions[index]
        kind = found[0] if isinstance(found, tuple) else found.type
        if wanted is not None and self.types[kind] != self.types[wanted]:
            raise TrapError
        args = self._pop(frame, len(self.types[kind][0]))
        frame.calling = ins.pc
        if tail:
            self.frames.pop()
        self._enter(index, args)

    def _execute(self, frame: Frame, ins: Ins, at: int) -> None:
        op, imm, stack = ins.op, ins.imm, frame.stack
        if op in (2, 0x1F):
            frame.labels.append(Label(at, ins.end, imm[1], len(stack) - imm[0], False, imm[2] if op == 0x1F else None))
        elif op == 3:
            frame.labels.append(Label(at, ins.end, imm[0], len(stack) - imm[0], True))
        elif op == 4:
            condition = stack.pop()
            if condition or ins.other >= 0:
                frame.labels.append(Label(at, ins.end, imm[1], len(stack) - imm[0], False))
            if not condition:
                frame.at = ins.other + 1 if ins.other >= 0 else ins.end + 1
        elif op == 0:
            raise TrapError
        elif op == 8:
            self._throw(imm, self._pop(frame, len(self.types[self.tags[imm]][0])))
        elif op == 0x0A:
            exception = stack.pop()
            if exception is None:
                raise TrapError
            self._throw(exception[1], exception[2], exception)
        elif op == 0x0C:
            self._branch(imm)
        elif op == 0x0D:
            if stack.pop():
                self._branch(imm)
        elif op == 0x0E:
            self._branch(imm[min(stack.pop(), len(imm) - 1)])
        elif op == 0x0F:
            self._return()
        elif op in (0x10, 0x12):
            self._call(frame, ins, imm, op == 0x12)
        elif op in (0x11, 0x13):
            index = stack.pop()
            table = self.tables[imm[1]]
            if index >= len(table) or table[index] is None:
                raise TrapError
            self._call(frame, ins, table[index][1], op == 0x13, imm[0])
        elif op in (0x14, 0x15):
            reference = stack.pop()
            if reference is None:
                raise TrapError
            self._call(frame, ins, reference[1], op == 0x15)
        elif op in (0xD5, 0xD6):
            if (stack[-1] is None) == (op == 0xD5):
                if op == 0xD5:
                    stack.pop()
                self._branch(imm)
            elif op == 0xD6:
                stack.pop()
        else:
            self._straight(frame, op, imm)

    def _straight(self, frame: Frame, op: int, imm: Any) -> None:
        stack = frame.stack
        if op == 1:
            pass
        elif op == 0x1A:
            stack.pop()
        elif op in (0x1B, 0x1C):
            condition, b, a = stack.pop(), stack.pop(), stack.pop()
            stack.append(a if condition else b)
        elif op == 0x20:
            stack.append(frame.locals[imm])
        elif op == 0x21:
            frame.locals[imm] = stack.pop()
        elif op == 0x22:
            frame.locals[imm] = stack[-1]
        elif op == 0x23:
            stack.append(self.globals[imm])
        elif op == 0x24:
            self.globals[imm] = stack.pop()
            if not self.global_types[imm][0].startswith("ref"):
                self.sets.append((self.clock - 1, imm, self.globals[imm]))
        elif op == 0x25:
            index = stack.pop()
            if index >= len(self.tables[imm]):
                raise TrapError
            stack.append(self.tables[imm][index])
        elif op == 0x26:
            value, index = stack.pop(), stack.pop()
            if index >= len(self.tables[imm]):
                raise TrapError
            self.tables[imm][index] = value
        elif 0x28 <= op <= 0x35:
            self._load_value(stack, op, imm)
        elif 0x36 <= op <= 0x3E:
            size = {0x36: 4, 0x37: 8, 0x38: 4, 0x39: 8, 0x3A: 1, 0x3B: 2, 0x3C: 1, 0x3D: 2, 0x3E: 4}[op]
            value, address = stack.pop(), stack.pop()
            self.write(imm[0], address + imm[1], (value & (1 << 8 * size) - 1).to_bytes(size, "little"))
        elif op == 0x3F:
            stack.append(len(self.memories[imm]) // PAGE)
        elif op == 0x40:
            self._grow(stack, imm)
        elif 0x41 <= op <= 0x44:
            stack.append(imm)
        elif op == 0xD0:
            stack.append(None)
        elif op == 0xD1:
            stack.append(int(stack.pop() is None))
        elif op == 0xD2:
            stack.append(("func", imm))
        elif op == 0xD4:
            if stack[-1] is None:
                raise TrapError
        elif op >> 16 == 0xFC:
            self._misc(stack, op & 0xFFFF, imm)
        else:
            self._number(stack, op)

    # -- memory

    def write(self, memory: int, address: int, data: bytes) -> None:
        if address + len(data) > len(self.memories[memory]):
            raise TrapError
        self.memories[memory][address : address + len(data)] = data
        self.writes.append((self.clock - 1, memory, address, data))

    def _load_value(self, stack: list[Value], op: int, imm: tuple[int, int]) -> None:
        size = (4, 8, 4, 8, 1, 1, 2, 2, 1, 1, 2, 2, 4, 4)[op - 0x28]
        address = stack.pop() + imm[1]
        if address + size > len(self.memories[imm[0]]):
            raise TrapError
        value = int.from_bytes(self.memories[imm[0]][address : address + size], "little")
        if op >= 0x2C and not op & 1:
            value = signed(value, 8 * size) & (M32 if op <= 0x2F else M64)
        stack.append(value)

    def _grow(self, stack: list[Value], memory: int) -> None:
        is64, _, most = self.limits[memory]
        by, pages = stack.pop(), len(self.memories[memory]) // PAGE
        if pages + by > (most if most is not None else 1 << 16):
            stack.append(M64 if is64 else M32)
        else:
            self.memories[memory] += bytes(by * PAGE)
            stack.append(pages)

    def _misc(self, stack: list[Value], sub: int, imm: Any) -> None:
        if sub < 8:
            value = _float(stack.pop(), 4 if sub in (0, 1, 4, 5) else 8)
            width = 32 if sub < 4 else 64
            low, high = (0, (1 << width) - 1) if sub & 1 else (-(1 << width - 1), (1 << width - 1) - 1)
            whole = 0 if math.isnan(value) else low if value <= low else high if value >= high else math.trunc(value)
            stack.append(whole & (1 << width) - 1)
            return
        if sub in (19, 20):
            d, c, b, a = stack.pop(), stack.pop(), stack.pop(), stack.pop()
            wide = (b << 64 | a) + (1 if sub == 19 else -1) * (d << 64 | c)
            stack += [wide & M64, wide >> 64 & M64]
            return
        if sub in (21, 22):
            b, a = stack.pop(), stack.pop()
            wide = a * b if sub == 22 else signed(a, 64) * signed(b, 64)
            stack += [wide & M64, wide >> 64 & M64]
            return
        if sub == 9:
            self.data[imm] = b""
        elif sub == 13:
            self.elements[imm] = []
        elif sub == 16:
            stack.append(len(self.tables[imm]))
        elif sub == 15:
            by, value = stack.pop(), stack.pop()
            stack.append(len(self.tables[imm]))
            self.tables[imm] += [value] * by
        else:
            length, source, to = stack.pop(), stack.pop(), stack.pop()
            self._bulk(sub, imm, to, source, length)

    def _bulk(self, sub: int, imm: Any, to: int, source: Any, length: int) -> None:
        if sub == 17:
            if to + length > len(self.tables[imm]):
                raise TrapError
            self.tables[imm][to : to + length] = [source] * length
        elif sub in (12, 14):
            given = self.elements[imm[0]] if sub == 12 else self.tables[imm[1]]
            table = self.tables[imm[1] if sub == 12 else imm[0]]
            if source + length > len(given) or to + length > len(table):
                raise TrapError
            table[to : to + length] = given[source : source + length]
        elif sub == 11:
            self.write(imm, to, bytes((source & 255,)) * length)
        else:
            data = self.data[imm[0]] if sub == 8 else self.memories[imm[1]]
            if source + length > len(data):
                raise TrapError
            self.write(imm[1] if sub == 8 else imm[0], to, bytes(data[source : source + length]))

    # -- numbers

    def _number(self, stack: list[Value], op: int) -> None:
        if op in (0x45, 0x50):
            stack.append(int(stack.pop() == 0))
        elif 0x46 <= op <= 0x4F:
            self._compare_integers(stack, op - 0x46, 32)
        elif 0x51 <= op <= 0x5A:
            self._compare_integers(stack, op - 0x51, 64)
        elif 0x5B <= op <= 0x66:
            width = 4 if op <= 0x60 else 8
            b, a = _float(stack.pop(), width), _float(stack.pop(), width)
            stack.append(int((a == b, a != b, a < b, a > b, a <= b, a >= b)[(op - 0x5B) % 6]))
        elif 0x67 <= op <= 0x78:
            self._integer(stack, op - 0x67, 32)
        elif 0x79 <= op <= 0x8A:
            self._integer(stack, op - 0x79, 64)
        elif 0x8B <= op <= 0xA6:
            self._floating(stack, (op - 0x8B) % 14, 4 if op <= 0x98 else 8)
        else:
            stack.append(self._convert(stack.pop(), op))

    def _compare_integers(self, stack: list[Value], which: int, width: int) -> None:
        b, a = stack.pop(), stack.pop()
        if which >= 2 and not which & 1:
            a, b = signed(a, width), signed(b, width)
        stack.append(int((a == b, a != b, a < b, a < b, a > b, a > b, a <= b, a <= b, a >= b, a >= b)[which]))

    def _integer(self, stack: list[Value], which: int, width: int) -> None:
        mask = (1 << width) - 1
        if which < 3:
            a = stack.pop()
            text = f"{a:0{width}b}"
            counted = len(text) - len(text.lstrip("0")), len(text) - len(text.rstrip("0")), text.count("1")
            stack.append(counted[which])
            return
        b, a = stack.pop(), stack.pop()
        if which in (6, 7, 8, 9):
            if b == 0:
                raise TrapError
            if which in (6, 8):
                a, b = signed(a, width), signed(b, width)
            quotient = abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)
            if which == 6 and quotient == 1 << width - 1:
                raise TrapError
            stack.append((quotient if which < 8 else a - quotient * b) & mask)
            return
        n = b % width
        value = (
            lambda: a + b, lambda: a - b, lambda: a * b, int, int, int, int, lambda: a & b, lambda: a | b, lambda: a ^ b,
            lambda: a << n, lambda: signed(a, width) >> n, lambda: a >> n,
            lambda: a << n | a >> width - n, lambda: a >> n | a << width - n,
        )[which - 3]()  # fmt: skip
        stack.append(value & mask)

    def _floating(self, stack: list[Value], which: int, width: int) -> None:
        sign = 1 << 8 * width - 1
        if which < 2:
            stack.append(stack.pop() & ~sign if which == 0 else stack.pop() ^ sign)
        elif which == 13:
            b, a = stack.pop(), stack.pop()
            stack.append(a & ~sign | b & sign)
        elif which < 7:
            a = _float(stack.pop(), width)
            if math.isnan(a) or (math.isinf(a) and which != 6):
                stack.append(_raw(a, width))
            elif which == 6:
                stack.append(_raw(math.sqrt(a) if a >= 0 else math.nan, width))
            else:
                whole = (math.ceil, math.floor, math.trunc, round)[which - 2](a)
                stack.append(_raw(math.copysign(float(whole), a), width))
        else:
            b, a = _float(stack.pop(), width), _float(stack.pop(), width)
            stack.append(_raw(self._arithmetic(a, b, which - 7), width))

    def _arithmetic(self, a: float, b: float, which: int) -> float:
        if which < 3:
            return (a + b, a - b, a * b)[which]
        if which == 3:
            if b == 0:
                return math.nan if a == 0 or math.isnan(a) else math.copysign(math.inf, math.copysign(1, a) * math.copysign(1, b))
            return a / b
        if math.isnan(a) or math.isnan(b):
            return math.nan
        if a == b:
            negative = math.copysign(1, a) < 0 or math.copysign(1, b) < 0
            both = math.copysign(1, a) < 0 and math.copysign(1, b) < 0
            return -abs(a) if a == 0 and (negative if which == 4 else both) else abs(a) if a == 0 else a
        return min(a, b) if which == 4 else max(a, b)

    def _convert(self, a: int, op: int) -> int:
        if op == 0xA7:
            return a & M32
        if 0xA8 <= op <= 0xAB or 0xAE <= op <= 0xB1:
            width = 32 if op <= 0xAB else 64
            position = (op - (0xA8 if op <= 0xAB else 0xAE)) & 3
            value = _float(a, 4 if position < 2 else 8)
            if math.isnan(value) or math.isinf(value):
                raise TrapError
            whole = math.trunc(value)
            low, high = (0, 1 << width) if position & 1 else (-(1 << width - 1), 1 << width - 1)
            if not low <= whole < high:
                raise TrapError
            return whole & (1 << width) - 1
        if op in (0xAC, 0xAD):
            return signed(a, 32) & M64 if op == 0xAC else a
        if op in (0xB6, 0xBB):
            return _raw(_float(a, 8 if op == 0xB6 else 4), 4 if op == 0xB6 else 8)
        if 0xB2 <= op <= 0xBA:
            position = op - (0xB2 if op <= 0xB5 else 0xB7)
            width = 32 if position < 2 else 64
            whole = a if position & 1 else signed(a, width)
            return _raw(_exact(whole) if op <= 0xB5 else float(whole), 4 if op <= 0xB5 else 8)
        if 0xBC <= op <= 0xBF:
            return a
        if 0xC0 <= op <= 0xC4:
            size = (8, 16, 8, 16, 32)[op - 0xC0]
            return signed(a & (1 << size) - 1, size) & (M32 if op <= 0xC1 else M64)
        raise UnknownError(f"{op:#x}")


def _exact(whole: int) -> float:
    """An integer as the nearest float32, without rounding twice."""
    size = abs(whole)
    if size < 1 << 24:
        return float(whole)
    shift = size.bit_length() - 24
    kept, rest, half = size >> shift, size & (1 << shift) - 1, 1 << shift - 1
    kept += rest > half or (rest == half and kept & 1)
    return math.copysign(float(kept << shift), whole)


# -- the real machine --------------------------------------------------------------------------------------------------------

Call = tuple[str, list[int]]


def drive(wanted: Sequence[Call]) -> Callable[[Guest], Any]:
    """Calls exports with raw bits, whatever becomes of each."""

    def run(target: Guest) -> list[Any]:
        return [harness.outcome_of(lambda name=name, args=args: target.call_raw(name, args)) for name, args in wanted]  # type: ignore[misc]

    return run


class Bench:
    """A recording, and a guest of its twin at rest before the first instruction."""

    def __init__(self, trace: Any, *, fine: bool = False, twin: Callable[[bytes], Twin] | None = None) -> None:
        made = twin or (lambda wasm: build_twin(wasm, fine=fine))
        with mock.patch.object(worker, "load_twin", made):
            self.job = Job(trace)
        self.twin = self.job.twin
        self.first = self.job.start()

    def close(self) -> None:
        self.first.close()
        self.job.close()

    @contextlib.contextmanager
    def at(self, clock: int | None, **more: Any) -> Iterator[Moment]:
        moment = self.first.fork()
        try:
            moment.go(clock=clock, **more)
            yield moment
        finally:
            moment.close()

    @property
    def end(self) -> dict[str, Any]:
        with self.at(None) as moment:
            return dict(moment.position)

    def states(self, clocks: Sequence[int]) -> Iterator[tuple[int, State]]:
        """The states before the given instructions, which must be in order."""
        walker = self.first.fork()
        try:
            for clock in clocks:
                walker.go(clock=clock)
                seen = walker.fork()
                try:
                    yield clock, look(seen, clock)
                finally:
                    seen.close()
        finally:
            walker.close()


def look(moment: Moment, clock: int) -> State:
    """The state before an instruction of the stretch at which a moment rests."""
    assert moment.position["kind"] == "head", moment.position
    view = moment.view(steps=clock - moment.clock)
    frames = tuple((one.function, one.pc, tuple(one.locals), tuple(one.operands)) for one in view.frames)
    memories = tuple(moment.memory(i, 0, size) for i, size in enumerate(moment.memory_sizes()))
    return State(frames, memories, tuple(moment.globals()))


@contextlib.contextmanager
def bench(wasm: bytes, wanted: Sequence[Call], place: Path, *, fine: bool = False, **more: Any) -> Iterator[Bench]:
    """A recording of `wanted` on the bench."""
    found = harness.record(wasm, harness.unused(place), drive(wanted), **more)
    made = Bench(found.trace, fine=fine)
    try:
        yield made
    finally:
        made.close()


def interpreted(wasm: bytes, wanted: Sequence[Call], hosts: Sequence[Callable[..., Any]] = ()) -> tuple[Interpreter, list[State]]:
    """What the interpreter finds before every instruction. Calls that trap are the last ones."""
    machine = Interpreter(wasm, hosts)
    states: list[State] = []

    def look_at(machine: Interpreter) -> None:
        states.append(machine.state())

    started: list[tuple[str | int, list[int]]] = [] if machine.start is None else [(machine.start, [])]
    for name, args in [*started, *wanted]:
        try:
            machine.invoke(name, args, look_at)
        except ThrownError:
            pass
        except TrapError:
            break
    return machine, states


def differences(expected: State, found: State) -> str:
    """One line about the first thing that differs; empty if nothing does."""
    if expected.frames != found.frames:
        return f"frames {found.frames} instead of {expected.frames}"
    for i, (a, b) in enumerate(zip(expected.memories, found.memories, strict=True)):
        if a != b:
            return f"memory {i} at {harness.first_difference(a, b):#x} ({len(b)} bytes instead of {len(a)})"
    return "" if expected.globals == found.globals else f"globals {found.globals} instead of {expected.globals}"
