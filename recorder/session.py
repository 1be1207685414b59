"""One guest being recorded: what happens at its boundary from Python's side.

The interposer records native calls on its own and comes here only when the window is full (`_rotate`) or a Python host is to
serve a call (`_tap`). Calls into the guest, pokes, growth and tables are recorded here, through `traces.journal.Writer`.

Records nest strictly: a call into the guest closes before the host call around it does. A record that was open when another one
began can no longer be completed in place; it gets a RETURN.
"""

from __future__ import annotations

import json
import struct
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import wasmtime

from recorder.boundary.engine import Engine
from recorder.boundary.interposer import VECTORS_KEPT, VECTORS_MAX, Description, Hosted, recording_interposer
from recorder.boundary.linking import Derived, Linked, Shape, Wiring
from recorder.boundary.memories import HostMemory
from recorder.boundary.raw import UNREACHABLE, Function, GuestExit, GuestTrap, Machine, Raw
from recorder.boundary.wasi_p1 import IOVEC_SIZE, ReceivedConstant, ReceivedVectors, Sent, SentVectors
from recorder.outcome import Stopped
from recorder.python_host import CALL_KIND, FuncRef, Guest, HostFunction, Hosts, reference_code
from recorder.values import from_raw, to_raw
from traces import layout
from traces._errors import RecordingError
from traces.journal import Opened, Ring, Writer
from traces.layout import (
    HEADER_SIZE,
    NO_IMPORT,
    RING_SCRATCH,
    START_TARGET,
    TABLE_TARGET,
    VALUE_SIZE,
    Kind,
    Meta,
    Ref,
    Status,
    StopReason,
    values_size,
)
from traces.manifest import Import

ALL_ONES = (1 << 64) - 1
NO_CLOCK = ALL_ONES
HOST_TRAP = 0xFFFFFFFF
"""Trap code of a trap that a host raised."""

_TWO = struct.Struct("<II")
_QUADS = struct.Struct("<QQ")


class Frame:
    """One host call in progress, or the embedder (without an open record)."""

    def __init__(self, opened: Opened | None) -> None:
        self.opened = opened
        self.split = False
        """Something was written after the open record, so it cannot be completed in place."""
        self.building = False
        """The writer is in the middle of a record of this frame."""
        self.alive = True


@dataclass
class Clock:
    """Monotonic time since the recording began."""

    origin: int

    def now(self) -> int:
        return time.monotonic_ns() - self.origin


class Session:
    """A guest under recording. Not thread-safe: it belongs to the thread the guest runs in."""

    def __init__(self, engine: Engine, shape: Shape, derived: Derived, hosts: Hosts, ring: Ring, clock: Clock) -> None:
        self.engine = engine
        self.shape = shape
        self.hosts = hosts
        self.ring = ring
        self.clock = clock
        self.machine = Machine(engine.engine)
        self.linked = Linked(engine, self.machine, shape, derived)
        self.writer = Writer(ring, self._next_slot)
        self.frames: list[Frame] = [Frame(None)]
        self.imports: list[Import] = []
        self.hosted: list[Hosted] = []
        self.functions: list[HostFunction | None] = []
        self.stop_reason: StopReason | None = None
        self.failure: Callable[[], RecordingError | None] = lambda: None
        """Asks whether the journal can no longer be written."""
        self.after_export: Callable[[], None] = lambda: None
        """Called when a call from the embedder has ended: the moment to take digests."""
        self.before_start: Callable[[], None] = lambda: None
        """Called when the guest is linked and nothing of it has run."""
        self.started = False
        """The guest is linked: from here on, what happens is evidence."""
        self._seized = threading.Event()
        self._defined: dict[int, tuple[wasmtime.Func, Any]] = {}
        self._snapshot: list[bytes] = []
        self._description: Description | None = None

    @property
    def embedder(self) -> Guest:
        return Guest(self, self.frames[0])

    @property
    def memories(self) -> list[HostMemory]:
        return self.linked.memories

    # -- linking -------------------------------------------------------------------------------------------------------------

    def link(
        self, imports: Sequence[tuple[Import, Hosted, HostFunction | None]], real: dict[int, wasmtime.Func], d: Description
    ) -> None:
        """Instantiates everything and runs the start function, if there is one. `_description` is kept for later definitions."""
        for entry, hosted, function in imports:
            self.imports.append(entry)
            self.hosted.append(hosted)
            self.functions.append(function)
        self._description = d
        self.engine.memories.on_refused = self._growth_refused
        opened = self._open_start() if self.shape.module.start is not None else None
        self.linked.instantiate_guest(self.hosted)
        if self.linked.start_failure is not None:
            if opened is None:
                self._open_start()  # it was a segment out of bounds that trapped: instantiating counts as starting
            self._unwound(self.linked.start_failure)
            raise self.linked.start_failure
        wiring = Wiring(d, recording_interposer(d), self._python_functions(d), real)
        self.linked.instantiate_interposer(wiring)
        self.before_start()
        self.started = True
        if opened is not None:
            start = self.linked.start_function()
            if start is None:
                self._complete(opened, [], ())
            else:
                self._run(opened, start, [])

    def _python_functions(self, d: Description) -> dict[str, tuple[Sequence[str], Sequence[str], Callable[..., Any]]]:
        references = {t for h in d.imports for t in (*h.params, *h.results) if t in ("funcref", "externref")}
        functions: dict[str, tuple[Sequence[str], Sequence[str], Callable[..., Any]]] = {
            "rotate": (("i32", "i32"), (), self._rotate),
            "tap": (("i32", "i32"), (), self._tap),
            "sync": ((), (), self._sync),
            "observe": (("i32",), (), self._observe),
            "observed": (("i32", "i32", "i32"), (), self._observed),
        }
        for t in sorted(references):
            # References cross Python calls as identity numbers already, so both directions only pass the number on.
            functions[f"{t}_number"] = ((t,), ("i32",), _same)
            functions[f"{t}_of"] = (("i32",), (t,), _same)
        return functions

    # -- being closed under the guest ------------------------------------------------------------------------------------------

    def seize(self) -> None:
        """Takes the journal away from the guest's thread, for good (the watchdog's thread; the process is about to end)."""
        self._seized.set()
        time.sleep(0.05)  # a record that Python is writing this moment is done long before

    def gate(self) -> None:
        """Every way of the guest's thread back into the journal leads through here; after `seize` none leads on."""
        if self._seized.is_set():
            threading.Event().wait()

    def position(self) -> tuple[int, int]:
        """Where the next record will stand: generation of the slot, offset in it."""
        generation = self.ring.generation
        return generation, self.ring.head - self.ring.slot_start(generation)

    def newest_open_call(self) -> int | None:
        """Index of the import whose call is the newest record and still open."""
        record = self._newest_record()
        if record is None:
            return None
        _, index, kind, status, _ = struct.unpack_from("<IHBBI", self.ring.map, record)
        return index if kind == Kind.CALL and status == Status.OPEN else None

    def _newest_record(self) -> int | None:
        at, head, last = self.ring.slot_start(self.ring.generation), self.ring.head, None
        while at < head:
            last = at
            at += int.from_bytes(self.ring.map[at : at + 4], "little")
        return last

    # -- called by the interposer --------------------------------------------------------------------------------------------

    def _rotate(self, index: Raw, after: Raw) -> None:
        self.gate()
        if not after:
            self._check_stop(index)
        self._next_slot()

    def _check_stop(self, index: int) -> None:
        failure = self.failure()
        if failure is not None:
            raise failure
        if self.stop_reason is not None:
            raise Stopped(self.stop_reason, self.linked.clock(), index)

    def _next_slot(self) -> None:
        if self.ring.head == self.ring.slot_start(self.ring.generation):
            return  # called for a stop that was withdrawn, or for a slot that is empty anyway

        def wait() -> None:
            failure = self.failure()
            if failure is not None:
                raise failure

        self.ring.rotate(wait)

    def _sync(self) -> None:
        self.ring.sync()

    def _tap(self, index: Raw, start: Raw) -> None:
        hosted, function = self.hosted[index], self.functions[index]
        assert function is not None
        frame = Frame(Opened(start, self.ring.generation, Kind.CALL, index))
        self.frames.append(frame)
        began = self.clock.now()
        try:
            answers = self._serve(frame, hosted, function, start)
        except BaseException:
            self.flush(frame)
            raise
        finally:
            frame.alive = False
            self.frames.pop()
        self._finish_call(frame, hosted, answers, began)

    def _serve(self, frame: Frame, hosted: Hosted, function: HostFunction, start: int) -> list[Raw]:
        args, at = [], start + HEADER_SIZE
        for t in hosted.params:
            width = VALUE_SIZE[t]
            args.append(self.from_raw(int.from_bytes(self.ring.map[at : at + width], "little"), t))
            at += width
        answer = function.call(Guest(self, frame), *args)
        self.gate()
        return self._answers(hosted, function, answer)

    def _answers(self, hosted: Hosted, function: HostFunction, answer: Any) -> list[Raw]:
        if not hosted.results:
            if answer is not None:
                raise TypeError(f"host {function.where} returned {answer!r}, but the import has no result")
            return []
        values = [answer] if len(hosted.results) == 1 else answer
        if len(hosted.results) > 1 and (not isinstance(values, list | tuple) or len(values) != len(hosted.results)):
            raise TypeError(f"host {function.where} must return {len(hosted.results)} values, returned {answer!r}")
        try:
            return [self.to_raw(v, t) for v, t in zip(values, hosted.results, strict=True)]
        except (TypeError, ValueError) as error:
            raise TypeError(f"host {function.where} returned a wrong value: {error}") from None

    def _finish_call(self, frame: Frame, hosted: Hosted, answers: list[Raw], began: int) -> None:
        opened = frame.opened
        assert opened is not None
        results = _pack(hosted.results, answers)
        if not frame.split and (frame.building or self.writer.resume(opened)):
            at = opened.start + hosted.results_at
            self.ring.map[at : at + len(results)] = results
        else:
            self.flush(frame)
            self.writer.begin(Kind.RETURN, opened.index, len(results) + 64)
            self.writer.raw(results)
        self.writer.meta(Meta.TIMING, _QUADS.pack(began, self.clock.now() - began))
        self.writer.commit(Status.COMPLETE)
        for i, (t, bits) in enumerate(zip(hosted.results, answers, strict=True)):
            at = RING_SCRATCH + 16 * i
            self.ring.map[at : at + VALUE_SIZE[t]] = bits.to_bytes(VALUE_SIZE[t], "little")

    def _observe(self, _index: Raw) -> None:
        self._snapshot = self.snapshot()

    def _observed(self, index: Raw, start: Raw, errno: Raw) -> None:
        hosted = self.hosted[index]
        frame = Frame(Opened(start, self.ring.generation, Kind.CALL, index))
        self.record_changes(frame, self._snapshot)
        self._snapshot = []
        self._finish_call(frame, hosted, [errno], self.clock.now())

    def _growth_refused(self, memory: HostMemory, number: int) -> None:
        try:
            self.writer.begin(Kind.GROW_FAILED)
        except RecordingError:
            return  # nothing can be raised through the engine from here; the next import stops the guest
        self.writer.raw(_TWO.pack(memory.ordinal, 0) + number.to_bytes(8, "little"))
        self.writer.commit(Status.COMPLETE)

    # -- calls into the guest ------------------------------------------------------------------------------------------------

    def resolve(self, target: int, element: int) -> Function:
        if target & TABLE_TARGET and target != START_TARGET:
            return self.linked.table_function(target & ~TABLE_TARGET, element)
        return self.linked.exported(target)

    def invoke(self, frame: Frame, target: int, element: int, function: Function, raw: Sequence[Raw]) -> list[Raw]:
        """Calls the guest and records it: from the embedder an EXPORT, from inside a host call a CALLBACK."""
        _headroom(64)
        self.flush(frame)
        if frame.opened is None:
            self._check_stop(NO_IMPORT)
        opened = self._open(CALL_KIND[frame.opened is not None], target, element, function, raw)
        results = self._run(opened, function, raw)
        if frame.opened is None:
            self.after_export()
        return results

    def _open(self, kind: Kind, target: int, element: int, function: Function, raw: Sequence[Raw]) -> Opened:
        body = _TWO.pack(target, element) + _pack(function.params, raw) + bytes(values_size(function.results))
        self.writer.begin(kind, NO_IMPORT, len(body))
        self.writer.raw(body)
        return self.writer.opened(self.writer.commit(Status.OPEN), kind)

    def _open_start(self) -> Opened:
        return self._open(Kind.EXPORT, START_TARGET, 0, Function(None, (), ()), ())

    def _run(self, opened: Opened, function: Function, raw: Sequence[Raw]) -> list[Raw]:
        try:
            answers = self.machine.call(function, raw)
            self.gate()
        except BaseException as error:
            self.gate()
            if isinstance(error, RecordingError):
                raise  # the journal takes no more records, and this is nothing that a replay could repeat
            stopped = self._as_stop(error)
            self._unwound(stopped or error)
            if stopped is not None and stopped is not error:
                raise stopped from None
            raise
        self._complete(opened, answers, function.results)
        return answers

    def _complete(self, opened: Opened, answers: Sequence[Raw], types: Sequence[str]) -> None:
        results = _pack(types, answers)
        if self.writer.resume(opened):
            at = self.writer.cursor - len(results)
            self.ring.map[at : at + len(results)] = results
        else:
            self.writer.begin(Kind.RETURN, NO_IMPORT, len(results))
            self.writer.raw(results)
        self.writer.commit(Status.COMPLETE)

    def _as_stop(self, error: BaseException) -> Stopped | None:
        if isinstance(error, Stopped):
            return error
        if isinstance(error, GuestTrap) and error.code == UNREACHABLE and self.linked.stopped_by_clock():
            return Stopped(self.stop_reason or StopReason.FUEL, self.linked.clock())
        return None

    def _unwound(self, error: BaseException) -> None:
        """Writes how the innermost call into the guest ended, when it did not return."""
        writes = self._half_done()
        if writes:  # in a record of their own: only the payload of a call or a poke may go on in further records
            self.writer.begin(Kind.POKE)
            for index, address, data in writes:
                self.writer.chunk(index, address, data, sent=False)
            self.writer.commit(Status.COMPLETE)
        if isinstance(error, Stopped):
            clock = NO_CLOCK if error.clock is None else error.clock
            self.writer.begin(Kind.STOP, error.index)
            self.writer.raw(_TWO.pack(error.reason, 0) + clock.to_bytes(8, "little"))
        elif isinstance(error, GuestExit):
            self.writer.begin(Kind.EXIT)
            self.writer.raw(_TWO.pack(error.code & 0xFFFFFFFF, 0))
        else:
            code, text = HOST_TRAP, f"{type(error).__name__}: {error}"
            if isinstance(error, GuestTrap):
                code, text = error.code & 0xFFFFFFFF, error.message
            message = text.encode("utf-8", "replace")[:4096]
            padded = message.ljust(layout.pad4(len(message)), b"\0")
            self.writer.begin(Kind.TRAP, NO_IMPORT, len(padded) + 64)
            self.writer.raw(_TWO.pack(code, len(message)) + padded)
        self.writer.commit(Status.COMPLETE)

    def _half_done(self) -> list[tuple[int, int, bytes]]:
        """Memory a native host may have written before it trapped, from the table and the open call's arguments."""
        found = self._last_open_call()
        memory = self.shape.primary_memory
        if found is None or memory is None:
            return []
        hosted, args = found
        assert hosted.wasi is not None and self._description is not None
        target = self.memories[memory.index]
        ranges: list[tuple[int, int]] = []
        for r in hosted.wasi.ranges:
            if isinstance(r, Sent | SentVectors):
                continue
            if isinstance(r, ReceivedConstant):
                ranges.append((args[r.pointer], self._description.constants[r.size]))
            elif isinstance(r, ReceivedVectors):
                ranges += self._vectors(target, args[r.pointer], args[r.count])
            else:
                ranges.append((args[r.pointer], (1 if r.count is None else args[r.count]) * r.size))
        merged: list[list[int]] = []  # buffers may overlap: together they are no more than the memory
        for address, length in sorted(ranges):
            end = min(address + length, target.size)
            if merged and address <= merged[-1][1]:
                merged[-1][1] = max(merged[-1][1], end)
            elif address < end:
                merged.append([address, end])
        return [(memory.index, start, target.read(start, end - start)) for start, end in merged]

    def _vectors(self, memory: HostMemory, pointer: int, count: int) -> list[tuple[int, int]]:
        """The buffers the host was given. It may have written over their list, so that is taken from where it was kept."""
        if count > VECTORS_MAX:
            before, self._snapshot = self._snapshot, []
            changed = _changed(before[self.memories.index(memory)], memory.read(0, memory.size))
            return [(start, end - start) for start, end in changed]
        kept = min(count, max(0, memory.size - pointer) // IOVEC_SIZE)
        return list(_TWO.iter_unpack(self.ring.map[VECTORS_KEPT : VECTORS_KEPT + kept * IOVEC_SIZE]))

    def _last_open_call(self) -> tuple[Hosted, list[Raw]] | None:
        """The newest record, if it is an open call of a native import."""
        last, index = self._newest_record(), self.newest_open_call()
        if last is None or index is None or self.hosted[index].wasi is None:
            return None
        hosted = self.hosted[index]
        args, at = [], last + HEADER_SIZE
        for t in hosted.params:
            args.append(int.from_bytes(self.ring.map[at : at + VALUE_SIZE[t]], "little"))
            at += VALUE_SIZE[t]
        return hosted, args

    # -- effects of hosts and the embedder -----------------------------------------------------------------------------------

    def effect(self, frame: Frame, memory: int, address: int, data: bytes | bytearray | memoryview, sent: bool) -> None:
        """A piece of memory read or written by a host (in its call's record) or by the embedder (in a POKE of its own)."""
        self.gate()
        if not frame.building:
            if frame.opened is None or frame.split or not self.writer.resume(frame.opened):
                frame.split = True
                self.writer.begin(Kind.POKE)
            frame.building = True
        self.writer.chunk(memory, address, memoryview(data), sent)
        if self.writer.spilled:
            frame.split = True
        if frame.opened is None:
            self.flush(frame)

    def flush(self, frame: Frame) -> None:
        """Writes down the record this frame is in the middle of, because another one is about to begin."""
        self.gate()
        if frame.building:
            self.writer.commit(Status.OPEN if self.writer.kind is Kind.CALL else Status.COMPLETE)
            frame.building = False
        if frame.opened is not None:
            frame.split = True

    def snapshot(self) -> list[bytes]:
        return [m.read(0, m.size) for m in self.memories]

    def record_changes(self, frame: Frame, before: Sequence[bytes]) -> None:
        for index, (old, memory) in enumerate(zip(before, self.memories, strict=True)):
            new = memory.read(0, memory.size)
            for start, end in _changed(old, new):
                self.effect(frame, index, start, new[start:end], sent=False)

    def grow_memory(self, frame: Frame, index: int, pages: int) -> int:
        self.flush(frame)
        previous = self.linked.grow_memory(index, pages)
        self._growth(0, index, pages, previous)
        return -1 if previous is None else previous

    def _growth(self, what: int, index: int, delta: int, previous: int | None) -> None:
        self.writer.begin(Kind.GROWTH)
        self.writer.raw(_TWO.pack(what, index) + _QUADS.pack(delta, ALL_ONES if previous is None else previous))
        self.writer.commit(Status.COMPLETE)

    def set_global(self, frame: Frame, index: int, bits: Raw) -> None:
        self.flush(frame)
        self.linked.set_global_bits(index, bits)
        self.writer.begin(Kind.GLOBAL)
        self.writer.raw(_TWO.pack(index, 0) + bits.to_bytes(16, "little"))
        self.writer.commit(Status.COMPLETE)

    def table_size(self, index: int) -> int:
        return self.linked.table_size(index)

    def table_get(self, frame: Frame, index: int, element: int) -> Any:
        value = self.linked.table_get(index, element)
        if not isinstance(value, wasmtime.Func):
            return None if value is None else self.machine.references.object_of(value)
        self.flush(frame)
        number = self.machine.references.number_of_function(value)
        self._table_record(index, Ref.TAKEN, element, number, 1)
        return FuncRef(number)

    def table_set(self, frame: Frame, index: int, element: int, value: Any, count: int) -> None:
        self.flush(frame)
        code, number, real = self._reference(value, self.shape.module.tables[index].element)
        size = self.linked.table_size(index)
        if element < 0 or count < 0 or element + count > size:
            raise IndexError(f"{count} elements at {element} lie outside table {index}, which has {size}")
        for i in range(count):
            self.linked.table_set(index, element + i, real)
        self._table_record(index, code, element, number, count)

    def table_grow(self, frame: Frame, index: int, delta: int, value: Any) -> int:
        self.flush(frame)
        self._reference(value, self.shape.module.tables[index].element)  # refused before anything has grown
        previous = self.linked.table_grow(index, delta)
        self._growth(1, index, delta, previous)
        if previous is not None and value is not None and delta:
            self.table_set(frame, index, previous, value, delta)
        return -1 if previous is None else previous

    def _table_record(self, index: int, code: Ref, element: int, number: int, count: int) -> None:
        self.writer.begin(Kind.TABLE)
        self.writer.raw(_TWO.pack(index, code) + struct.pack("<QQQ", element, number, count))
        self.writer.commit(Status.COMPLETE)

    def _reference(self, value: Any, element: str) -> tuple[Ref, int, Any]:
        """How a value put into a table of such elements is written down, and what really goes in."""
        code = reference_code(value, element)
        if code is Ref.NULL:
            return code, 0, None
        if code is Ref.FUNC:
            defined = next((i for i, (func, ref) in self._defined.items() if ref == value), None)
            if defined is not None:
                return Ref.IMPORT_FUNC, defined, self._defined[defined][0]
            return code, value.number, self.machine.references.function_of(value.number)
        if code is Ref.EXPORT_FUNC:
            target = self.find_export(value)
            return code, target, wasmtime.Func._from_raw(self.linked.exported(target).func)
        number = self.machine.references.number_of_object(value)
        return code, number, number

    def define(self, frame: Frame, function: HostFunction) -> FuncRef:
        """Makes a host function callable by reference: an import defined while running, with an interposer of its own."""
        self.flush(frame)
        index = len(self.hosted)
        if index >= layout.MAX_IMPORTS:
            raise RecordingError(f"more than {layout.MAX_IMPORTS} host functions were put into tables")
        entry = Import(function.module, function.name, function.params, function.results, "defined")
        hosted = Hosted(index, function.params, function.results, None)
        self.imports.append(entry)
        self.hosted.append(hosted)
        self.functions.append(function)
        text = json.dumps(asdict(entry)).encode()
        self.writer.begin(Kind.DEFINE, NO_IMPORT, len(text) + 64)
        self.writer.raw(_TWO.pack(index, len(text)) + text.ljust(layout.pad4(len(text)), b"\0"))
        self.writer.commit(Status.COMPLETE)
        assert self._description is not None
        d = Description((hosted,), self.shape.primary_memory)
        wiring = Wiring(d, recording_interposer(d, lone=True), self._python_functions(d))
        func = self.linked.lone_function(wiring, index)
        reference = FuncRef(self.machine.references.number_of_function(func))
        self._defined[index] = (func, reference)
        return reference

    # -- names and values ----------------------------------------------------------------------------------------------------

    def memory_index(self, memory: int | str) -> int:
        if isinstance(memory, int):
            if not 0 <= memory < len(self.memories):
                raise IndexError(f"the guest has no memory {memory}")
            return memory
        return self._named("memory", memory)

    def find_global(self, name: str) -> tuple[int, str]:
        index = self._named("global", name)
        return index, self.shape.module.globals[index].value

    def find_table(self, name: str) -> int:
        return self._named("table", name)

    def _named(self, kind: str, name: str) -> int:
        """Index of an exported memory, global or table, or of an imported one by `module.name`."""
        for e in self.shape.module.exports:
            if e.kind == kind and e.name == name:
                return e.index
        number = 0
        for i in self.shape.module.imports:
            if i.kind == kind:
                if f"{i.module}.{i.name}" == name or i.name == name:
                    return number
                number += 1
        raise KeyError(f"the guest exports no {kind} named {name!r}")

    def find_export(self, name: str) -> int:
        target = self.shape.export_numbers.get(name)
        if target is None:
            raise KeyError(f"the guest exports no function named {name!r}")
        return target

    def target_name(self, target: int, element: int) -> str:
        if target & TABLE_TARGET and target != START_TARGET:
            return f"table {target & ~TABLE_TARGET}[{element}]"
        return self.shape.exports[target].name

    def from_raw(self, bits: Raw, kind: str) -> Any:
        if kind == "funcref":
            return FuncRef(bits) if bits else None
        if kind == "externref":
            return self.machine.references.object_of(bits)
        return from_raw(bits, kind)

    def to_raw(self, value: Any, kind: str) -> Raw:
        if kind == "funcref":
            if value is not None and not isinstance(value, FuncRef):
                raise TypeError(f"funcref expected, got {type(value).__name__}")
            return value.number if value is not None else 0
        if kind == "externref":
            return self.machine.references.number_of_object(value)
        return to_raw(value, kind)


def _headroom(frames: int) -> None:
    """Raises RecursionError here and now, not from a callback of the engine's, where ctypes would drop it."""
    if frames:
        _headroom(frames - 1)


def _same(value: Raw) -> list[Raw]:
    return [value]


def _pack(types: Sequence[str], values: Sequence[Raw]) -> bytes:
    return b"".join(v.to_bytes(VALUE_SIZE[t], "little") for t, v in zip(types, values, strict=True))


_BLOCK = 4096


def _changed(old: bytes, new: bytes) -> list[tuple[int, int]]:
    """Ranges of `new` that differ from `old` (or lie beyond it), to within a block."""
    ranges: list[tuple[int, int]] = []
    for at in range(0, len(new), _BLOCK):
        end = min(at + _BLOCK, len(new))
        if new[at:end] != old[at:end]:
            if ranges and ranges[-1][1] == at:
                ranges[-1] = (ranges[-1][0], end)
            else:
                ranges.append((at, end))
    return ranges
