"""Re-executes a recorded module bit for bit, with no host, no file and no network, and says whether it did the same.

Ordinary records are served inside Wasm by the replaying interposer. What is out of the ordinary comes to `_slow`: calls that
were split, because the guest was called back or the payload was large, and everything that does not match, which is looked at
again here to say exactly what differs. The replayer knows no API by name: it applies recorded effects.
"""

from __future__ import annotations

import ctypes
import json
import struct
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import wasmtime

from recorder.boundary import states
from recorder.boundary.engine import Engine, Profile, engine_version
from recorder.boundary.interposer import Description, Hosted, replaying_interposer
from recorder.boundary.linking import METERED, Derived, Linked, Provided, Shape, Wiring, derive
from recorder.boundary.memories import HostMemory
from recorder.boundary.raw import GUEST_FRAMES, STACK_OVERFLOW, UNREACHABLE, Function, GuestExit, GuestTrap, Machine, Raw
from replayer import sides
from replayer.cursor import Chunk, Cursor, Record
from replayer.recorded import Recorded
from replayer.sides import Values
from replayer.verdict import Difference, Diverged, RecordingEnds, Side, Verdict
from traces._errors import RefusedError, TraceError
from traces.layout import (
    NO_IMPORT,
    PAGE,
    RING_SCRATCH,
    START_TARGET,
    TABLE_TARGET,
    VALUE_SIZE,
    Kind,
    Ref,
    Status,
    StopReason,
    values_size,
)
from traces.manifest import Import, Manifest, import_from_json

if TYPE_CHECKING:
    from traces.states import StateRow
    from traces.tracedir import Trace

_ALL_ONES = (1 << 64) - 1
_NO_CLOCK = _ALL_ONES
STACK_MOVED = "stack exhausted, at another depth than in the recording"
_CLOSERS = (Kind.TRAP, Kind.EXIT, Kind.STOP)


class _HostRaised(Exception):
    """The recorded host trapped here; the TRAP record at the head says how."""


class _Stopped(BaseException):
    """The recorded run was stopped here, before an import; the STOP record at the head says why."""


class _StackRanOut(Exception):
    """The recorded run exhausted its stack before the import the replay has just reached."""


class Abandoned(BaseException):
    """Whoever looks at this replay has seen enough: it is not run to its end."""


class Replay:
    """One replay of one trace."""

    def __init__(self, trace: Trace | Recorded, module: bytes | None = None) -> None:
        recorded = trace if isinstance(trace, Recorded) else Recorded.of(trace, module)
        self.recorded = recorded
        self.given = recorded.given
        self.manifest: Manifest = recorded.manifest
        self.notes: list[str] = []
        self.stack_moved = False
        self._ends: set[tuple[Kind, int]] = set()
        """How calls that did not return ended: kind of record, and the trap's or exit's code."""
        self.overflowed: int | None = None
        """Event at which the guest's stack was first exhausted; from there on, a difference may be the stack's doing."""
        self.moments = 0
        try:
            self.shape = Shape(recorded.module)
            self.derived = self._derive()
            self.engine = self._make_engine()
            self.cursor = Cursor(recorded.reader, bool(self.manifest.outcome.get("complete")))
        except BaseException as error:
            recorded.reader.close()
            if isinstance(error, RefusedError):
                raise TraceError(f"{self.given}: the recorded module cannot be run: {error}") from None
            raise
        self.states: dict[int, list[StateRow]] = {}
        for row in recorded.states:
            self.states.setdefault(row.seq, []).append(row)
        self.imports: list[Import] = list(self.manifest.imports)
        self.hosted = [Hosted(i, e.params, e.results, None) for i, e in enumerate(self.imports)]
        self.machine = Machine(self.engine.engine)
        self.linked = Linked(self.engine, self.machine, self.shape, self.derived)
        self.defined: dict[int, wasmtime.Func] = {}
        self.stop_clock = self._recorded_stop()
        self._calling: list[tuple[Import, Values]] = []
        """Calls out of the guest that are being served here, innermost last, with their arguments."""
        self._refused: set[tuple[int, int]] = set()
        """Growths the operating system refused to a host while recording: ordinal of the memory, number of the request."""

    def _derive(self) -> Derived:
        """The form of the module that is to run: the one that was recorded."""
        derivation = self.manifest.module.get("derivation", [])
        derived = derive(self.shape, METERED in derivation)
        if not self.recorded.substituted and list(derived.names) != list(derivation):
            raise TraceError(
                f"{self.given}: was recorded from the module rewritten as {', '.join(derivation) or 'given'}, "
                f"this program would run it as {', '.join(derived.names) or 'given'}; use the version that recorded it"
            )
        return derived

    def _make_engine(self) -> Engine:
        return Engine(self._profile())

    def _profile(self) -> Profile:
        profile, notes = recorded_profile(self.manifest, self.given)
        self.notes += notes
        return profile

    def _recorded_stop(self) -> int | None:
        """The clock at which a metered run was stopped by its own check; None if it was not.

        Host activity takes no clock time, so the guest may pass checks with that very clock before the one that stopped it. The
        stop word is therefore set only when everything recorded before the stop has been served: see `_advance`.
        """
        clock = self.manifest.outcome.get("clock")
        if not isinstance(clock, int) or isinstance(clock, bool) or not 0 <= clock < 1 << 63:
            return None
        self.cursor.watch_for_stop()
        return clock

    def _advance(self, record: Record) -> None:
        self.cursor.advance(record)
        if self.stop_clock is not None and self.cursor.stop_follows():
            self._stop_at(self.stop_clock)

    def _stop_at(self, clock: int) -> None:
        """The guest is to stop, as it did while recording, when its clock shows this."""
        self.linked.stop_at(clock)

    def _stopped_by_clock(self) -> bool:
        return self.linked.stopped_by_clock()

    def _clock(self) -> int | None:
        return self.linked.clock()

    # -- the run -------------------------------------------------------------------------------------------------------------

    def run(self) -> Verdict:
        """Replays to the end and compares. Raises TraceError if the trace makes no sense."""
        try:
            self._link()
            self._drive()
            return self._end()
        except Diverged as diverged:
            if self.overflowed is not None:
                return self._verdict("incomplete", self.overflowed, reason=STACK_MOVED)
            return self._verdict("diverged", diverged.difference.seq, difference=diverged.difference)
        except RecordingEnds:
            if self.stack_moved:
                return self._verdict("incomplete", self.cursor.seq(), reason=STACK_MOVED)
            return self._verdict("incomplete", self.cursor.end, reason=self._short())
        except (IndexError, OverflowError, ValueError, struct.error) as error:
            raise TraceError(f"event {self.cursor.seq()}: {error}; the trace is damaged, restore it from a copy") from None
        finally:
            self.cursor.close()

    def _verdict(self, kind: str, events: int, reason: str = "", difference: Difference | None = None) -> Verdict:
        compared: dict[str, Any] = {"moments": self.moments}
        if self.moments:
            compared.update(states.digested(self.linked))
        return Verdict(kind, events, self.cursor.total, reason, difference, compared, self.notes)

    def _short(self) -> str:
        outcome = self.manifest.outcome
        kind = outcome.get("kind")
        if kind == "killed":
            return "the recorder was killed"
        inside = outcome.get("inside")
        return f"{kind} inside {inside}" if inside else f"{kind}"

    def _link(self) -> None:
        provided = [_provided(p) for p in self.manifest.provided]
        wanted = {(i.module, i.name, i.kind) for i in self.shape.other_imports}
        if wanted - {(p.module, p.name, p.kind) for p in provided}:
            raise TraceError(f"{self.given}: the manifest does not say what its imported memories, globals and tables were")
        signatures = [(i.type.params, i.type.results) for i in self.shape.function_imports]  # type: ignore[union-attr]
        if signatures != [(e.params, e.results) for e in self.imports]:
            raise TraceError(f"{self.given}: the manifest's imports are not the module's; the trace is damaged")
        self.engine.memories.refuses = self._refuses_growth
        self.cursor.attach(self.linked.make_window(self.cursor.window_size, None))
        limits = self.manifest.limits
        self.linked.set_limits(int(limits.get("max_memory", -1)), int(limits.get("max_table", -1)))
        self.linked.provide(provided)
        self.linked.instantiate_guest(self.hosted)
        if self.linked.start_failure is None:
            d = Description(tuple(self.hosted), self.shape.primary_memory)
            self.linked.instantiate_interposer(self._wiring(d))

    def _wiring(self, d: Description, lone: bool = False) -> Wiring:
        return Wiring(d, replaying_interposer(d, lone), self._python_functions(d))

    def _python_functions(self, d: Description) -> dict[str, tuple[Sequence[str], Sequence[str], Callable[..., Any]]]:
        functions: dict[str, tuple[Sequence[str], Sequence[str], Callable[..., Any]]] = {
            "refill": (("i32",), (), self._refill),
            "slow": (("i32",), (), self._slow),
        }
        references = {t for h in d.imports for t in (*h.params, *h.results) if t in ("funcref", "externref")}
        for t in sorted(references):
            functions[f"{t}_number"] = ((t,), ("i32",), _same)
            functions[f"{t}_of"] = (("i32",), (t,), _same)
        return functions

    def _drive(self) -> None:
        """Does what the embedder did: calls, pokes, growth, in the recorded order."""
        while (record := self.cursor.peek()) is not None:
            self._reach(record)
            if record.kind is Kind.EXPORT:
                self._call_guest(record)
                self._compare_states()
            else:
                self._effect(record)

    def _reach(self, record: Record) -> None:
        """The replay stands before this record and has the say: for whoever wants to look."""

    def _end(self) -> Verdict:
        if not self.cursor.complete:
            return self._verdict("incomplete", self.cursor.total, reason=self._short())
        self._compare_states()
        self._compare_outcome()
        if self.stack_moved:
            return self._verdict("incomplete", self.cursor.total, reason=STACK_MOVED)
        if self.cursor.total == 0 and not self.moments:
            return self._verdict("unusable", 0, reason="the recording holds nothing that could be compared")
        if self.cursor.total not in self.states and states.take(self.linked):
            return self._verdict("incomplete", self.cursor.total, reason="no digests were taken at the end of the recording")
        return self._verdict("identical", self.cursor.total)

    def _compare_outcome(self) -> None:
        """The manifest must not say of the run that it trapped or exited in a way in which nothing in it did."""
        kind, code = self.manifest.outcome.get("kind"), self.manifest.outcome.get("code")
        closer = {"trap": Kind.TRAP, "stack": Kind.TRAP, "exit": Kind.EXIT}.get(str(kind))
        # An exception of a host's or the embedder's own has no code.
        if closer is not None and isinstance(code, int) and (closer, code & 0xFFFFFFFF) not in self._ends:
            raise TraceError(f"{self.given}: the manifest says that the run ended with {kind} {code}, the events do not")

    # -- digests -------------------------------------------------------------------------------------------------------------

    def _compare_states(self) -> None:
        seq = self.cursor.seq()
        recorded = self.states.get(seq)
        if recorded is None:
            return
        taken = {(s.what, s.index): s for s in states.take(self.linked)}
        if {(r.what, r.index) for r in recorded} != set(taken):
            raise TraceError(f"event {seq}: the digests recorded are not those of this module's memories, globals and tables")
        self.moments += 1
        for row in recorded:
            state = taken[(row.what, row.index)]
            if (row.digest, row.size) != (state.digest, state.size):
                self._state_differs(seq, row, state)

    def _state_differs(self, seq: int, row: StateRow, state: states.State) -> None:
        name = f"{row.what} {row.name or row.index}"
        if self._stack_outcome() and seq == self.cursor.total:
            self.stack_moved = True
            return
        where, place = "", None
        if row.what == "memory" and row.size == state.size:
            pages = [i for i, (a, b) in enumerate(zip(row.pages, state.pages, strict=True)) if a != b]
            if pages:
                where = f"{len(pages)} of {len(state.pages)} pages differ, the first at address {pages[0] * PAGE:#x}"
                place = (row.index, pages[0] * PAGE, min(PAGE, row.size - pages[0] * PAGE))
        size = f"{row.size} bytes, " if row.what == "memory" else ""
        now = f"{state.size} bytes, " if row.what == "memory" else ""
        raise Diverged(
            Difference(
                seq,
                f"{name}: {size}sha256 {row.digest.hex()[:16]}… after {seq} events",
                f"{name}: {now}sha256 {state.digest.hex()[:16]}…",
                where,
                sides=(
                    Side("state", name, text=f"{size}sha256 {row.digest.hex()}"),
                    Side("state", name, text=f"{now}sha256 {state.digest.hex()}"),
                ),
                place=place,
            )
        )

    def _stack_outcome(self) -> bool:
        return self.manifest.outcome.get("kind") == "stack"

    # -- calls into the guest ------------------------------------------------------------------------------------------------

    def _call_guest(self, record: Record) -> None:
        """Repeats a call into the guest and checks how it ended."""
        target, element = struct.unpack_from("<II", record.body)
        function = self._resolve(record, target, element)
        args = self._values(record, 8, function.params if function is not None else ())
        done = record.status is Status.COMPLETE
        if not done:
            self._advance(record)
        try:
            if function is None:
                answers: list[Raw] = self._started()
            else:
                answers = self._invoke(function, [bits for _, bits in args])
        except (Diverged, RecordingEnds, TraceError, IndexError, Abandoned):
            raise
        except BaseException as error:
            self._expect_unwinding(record, error)
            return
        self._expect_return(record, function, answers)

    def _invoke(self, function: Function, args: list[Raw]) -> list[Raw]:
        return self.machine.call(function, args)

    def _started(self) -> list[Raw]:
        """The start function of a module in which it reaches no import ran while the module was instantiated."""
        if self.linked.start_failure is not None:
            raise self.linked.start_failure
        return []

    def _resolve(self, record: Record, target: int, element: int) -> Function | None:
        if target == START_TARGET:
            return self.linked.start_function()
        try:
            if target & TABLE_TARGET:
                return self.linked.table_function(target & ~TABLE_TARGET, element)
            if target >= len(self.shape.exports):
                raise KeyError(f"the module has no exported function {target}")
            return self.linked.exported(target)
        except KeyError as error:
            raise self._diverged(record, str(error.args[0]), f"a call of {self._target(target, element)}") from None

    def _expect_return(self, record: Record, function: Function | None, answers: Sequence[Raw]) -> None:
        types = function.results if function is not None else ()
        name = self._target(*struct.unpack_from("<II", record.body))
        if record.status is Status.COMPLETE:
            ended, at = record, 8 + values_size(function.params if function is not None else ())
        else:
            found = self.cursor.peek()
            if found is None or found.kind is not Kind.RETURN or found.index != NO_IMPORT:
                side = sides.returned(name, list(zip(types, answers, strict=True)))
                raise self._diverged(found, f"{name} returned {_show(types, answers)}", side=side)
            ended, at = found, 0
        recorded = [bits for _, bits in self._values(ended, at, types)]
        if recorded != list(answers):
            was, now = (sides.returned(name, list(zip(types, values, strict=True))) for values in (recorded, answers))
            raise self._diverged(
                ended,
                f"{name} returned {_show(types, answers)}",
                f"{name} returned {_show(types, recorded)}",
                both=(was, now),
            )
        self._advance(ended)

    def _expect_unwinding(self, record: Record, error: BaseException) -> None:
        """The call did not return; the recording must say the same, at this point."""
        found = self.cursor.peek()
        name = self._target(*struct.unpack_from("<II", record.body))
        if isinstance(error, GuestTrap) and error.code == UNREACHABLE and self._stopped_by_clock():
            self._expect_stop(found, name)
        elif isinstance(error, GuestTrap) and error.code == STACK_OVERFLOW:
            self._expect_stack_overflow(found, name, error)
        elif isinstance(error, GuestTrap):
            side = Side("trap", name, text=error.message)
            if found is None or found.kind is not Kind.TRAP or _first_word(found) != error.code & 0xFFFFFFFF:
                raise self._diverged(found, f"{name} trapped: {error.message}", error=error, side=side)
            # Without a code, the message is an error's of the engine, with the frames of whoever linked the guest in it.
            if error.code >= 0 and not self.notes and _message(found) != error.message.encode("utf-8", "replace")[:4096]:
                raise self._diverged(found, f"{name} trapped: {error.message}", error=error, side=side)
        elif isinstance(error, _StackRanOut):
            self.stack_moved = True
            self._overflows(found)
        elif not isinstance(error, _HostRaised | _Stopped | GuestExit):
            raise error
        assert found is not None
        if found.kind not in _CLOSERS:
            raise found.malformed("a call ended without a record of how")
        fixed = {Kind.TRAP: 8, Kind.EXIT: 8, Kind.STOP: 16}[found.kind]
        if found.kind is not Kind.EXIT:
            fixed += (struct.unpack_from("<I", found.body, 4)[0] + 3) & ~3
        self._ends.add((found.kind, _first_word(found)))
        for chunk in found.chunks(fixed):
            self._apply(found, chunk)
        self._advance(found)

    def _expect_stop(self, found: Record | None, name: str) -> None:
        clock = self._clock()
        if found is None or found.kind is not Kind.STOP:
            raise self._diverged(found, f"{name} was stopped at instruction {clock}")
        (recorded,) = struct.unpack_from("<Q", found.body, 8)
        if recorded != clock:
            raise self._diverged(found, f"stopped at instruction {clock}", f"stopped at instruction {recorded}")

    def _overflows(self, found: Record | None) -> None:
        if self.overflowed is None and found is not None:
            self.overflowed = found.seq

    def _expect_stack_overflow(self, found: Record | None, name: str, error: GuestTrap) -> None:
        if found is not None and found.kind is Kind.TRAP and _first_word(found) == STACK_OVERFLOW:
            self._overflows(found)
            return
        if self._stack_outcome():
            # Frames of hosts differ between recording and replay, so the depth at which the stack ends may differ too.
            self.stack_moved = True
            raise RecordingEnds
        side = Side("trap", name, text=error.message)
        raise self._diverged(found, f"{name} trapped: {error.message}", error=error, side=side)

    # -- serving imports out of the ordinary -----------------------------------------------------------------------------------

    def _refill(self, index: Raw) -> None:
        if not self.cursor.refill():
            name = self.imports[index].qualified
            raise self._diverged(None, f"a call of {name}", side=Side("call", name), calling=name)

    def _slow(self, index: Raw) -> None:
        """Serves one call of an import from the record at the head, whatever it is."""
        entry = self.imports[index]
        args = self._scratch(entry.params)
        self._calling.append((entry, args))
        try:
            self._serve(index, entry, args)
        finally:
            self._calling.pop()

    def _serve(self, index: int, entry: Import, args: Values) -> None:
        record = self.cursor.peek()
        if record is not None:
            self._reach(record)
        if record is not None and record.kind is Kind.TRAP and _first_word(record) == STACK_OVERFLOW:
            raise _StackRanOut
        if record is not None and record.kind is Kind.STOP and record.index == index:
            raise _Stopped
        if record is None or record.kind is not Kind.CALL or record.index != index:
            raise self._diverged(record, f"a call of {_call(entry, args)}", side=sides.called(entry, args))
        self._check_args(record, entry, args)
        fixed = values_size(entry.params) + values_size(entry.results)
        for chunk in record.chunks(fixed):
            self._apply(record, chunk)
        if record.status is not Status.OPEN:
            self._answer(self._values(record, values_size(entry.params), entry.results))
            self._advance(record)
            return
        self._advance(record)
        self._serve_split(record, entry)

    def _serve_split(self, opened: Record, entry: Import) -> None:
        """The rest of a call that was not written down in one record: what happened inside it, up to its return."""
        while True:
            record = self.cursor.peek()
            if record is None:
                raise opened.malformed("the recording ends inside this call, though it is said to be complete")
            self._reach(record)
            if record.kind is Kind.RETURN:
                if record.index != opened.index:
                    raise record.malformed("a return that belongs to another call")
                for chunk in record.chunks(values_size(entry.results)):
                    self._apply(record, chunk)
                self._answer(self._values(record, 0, entry.results))
                self._advance(record)
                return
            if record.kind is Kind.CALLBACK:
                self._call_guest(record)
            elif record.kind is Kind.TRAP:
                raise _HostRaised
            elif record.kind is Kind.EXIT:
                self._check_exit(record, opened, entry)
                raise GuestExit(_first_word(record))
            elif record.kind is Kind.STOP:
                raise _Stopped
            else:
                self._effect(record)

    def _check_exit(self, record: Record, opened: Record, entry: Import) -> None:
        """A native import that ends the guest does so with the code the guest gave it (one of Python may choose another)."""
        asked = self._values(opened, 0, entry.params)
        if entry.host == "wasi" and asked and asked[0][1] != _first_word(record):
            was, now = (Side("exit", entry.qualified, (("code", "i32", code),)) for code in (_first_word(record), asked[0][1]))
            raise self._diverged(record, f"exit {asked[0][1]}", f"exit {_first_word(record)}", both=(was, now))

    def _check_args(self, record: Record, entry: Import, args: Values) -> None:
        recorded = self._values(record, 0, entry.params)
        for i, ((t, was), (_, now)) in enumerate(zip(recorded, args, strict=True)):
            if was != now:
                name = entry.names[i] if i < len(entry.names) else f"argument {i}"
                raise self._diverged(
                    record,
                    f"a call of {_call(entry, args)}",
                    _call(entry, recorded),
                    f"{name}: expected {_value(t, was)}, got {_value(t, now)}",
                    both=self._both(record),
                )

    # -- effects -------------------------------------------------------------------------------------------------------------

    def _effect(self, record: Record) -> None:
        """Repeats something a host or the embedder did to the guest."""
        kind = record.kind
        if kind in (Kind.POKE, Kind.DATA):
            for chunk in record.chunks(0):
                self._apply(record, chunk)
        elif kind is Kind.GROWTH:
            self._grow(record)
        elif kind is Kind.GLOBAL:
            index, _ = struct.unpack_from("<II", record.body)
            self._must_reach(record, "global", index)
            self.linked.set_global_bits(index, int.from_bytes(record.body[8:24], "little"))
        elif kind is Kind.TABLE:
            self._table(record)
        elif kind is Kind.DEFINE:
            self._define(record)
        elif kind is Kind.GROW_FAILED:
            ordinal, _, number = struct.unpack_from("<IIQ", record.body)
            self._refused.add((ordinal, number))
        else:
            raise record.malformed(f"a {kind.name.lower()} record where none can be")
        self._advance(record)

    def _refuses_growth(self, memory: HostMemory, number: int) -> bool:
        """Whether the operating system refused this growth while recording."""
        if (memory.ordinal, number) in self._refused:
            return True
        try:
            record = self.cursor.peek() if self.cursor.attached else None
        except TraceError:
            return False  # whoever looks next says so: nothing can be raised through the engine from here
        if record is None or record.kind is not Kind.GROW_FAILED:
            return False
        if struct.unpack_from("<IIQ", record.body) != (memory.ordinal, 0, number):
            return False
        self._advance(record)
        return True

    def _apply(self, record: Record, chunk: Chunk) -> None:
        """Writes what a host wrote; compares what it was handed."""
        if chunk.memory >= len(self.linked.memories):
            raise record.malformed(f"it touches memory {chunk.memory}, which the module does not have")
        memory = self.linked.memories[chunk.memory]
        end = chunk.address + len(chunk.data)
        if end > memory.size:
            raise self._diverged(
                record,
                f"memory {chunk.memory} of {memory.size} bytes",
                f"bytes {chunk.address:#x} to {end:#x} of memory {chunk.memory}",
                "the memory is smaller than it was while recording",
            )
        if not chunk.sent:
            memory.write(chunk.address, chunk.data)
            self._wrote(record, chunk)
            return
        now = memory.read(chunk.address, len(chunk.data))
        if now != chunk.data:
            at = next(i for i, (a, b) in enumerate(zip(now, chunk.data, strict=True)) if a != b)
            count = sum(a != b for a, b in zip(now, chunk.data, strict=True))
            run = sides.first_run(chunk.data, now)
            raise self._diverged(
                record,
                f"{_excerpt(now, at)} sent",
                f"{_excerpt(chunk.data, at)} sent",
                f"{count} of {len(now)} bytes sent differ, the first at address {chunk.address + at:#x}",
                both=self._both(record),
                place=(chunk.memory, chunk.address + run[0], run[1] - run[0]),
            )

    def _wrote(self, record: Record, chunk: Chunk) -> None:
        """A host's write was repeated: for whoever wants to know."""

    def _grow(self, record: Record) -> None:
        what, index, delta, recorded = struct.unpack_from("<IIQQ", record.body)
        kind = "memory" if what == 0 else "table"
        self._must_reach(record, kind, index)
        previous = self.linked.grow_memory(index, delta) if what == 0 else self.linked.table_grow(index, delta)
        now = _ALL_ONES if previous is None else previous
        if now != recorded:
            was = "refused" if recorded == _ALL_ONES else f"from {recorded}"
            is_ = "refused" if previous is None else f"from {previous}"
            raise self._diverged(record, f"{kind} {index} grew by {delta}: {is_}", f"{kind} {index} grew by {delta}: {was}")

    def _table(self, record: Record) -> None:
        index, code, element, number, count = struct.unpack_from("<IIQQQ", record.body)
        self._must_reach(record, "table", index)
        if code == Ref.TAKEN:
            value = self.linked.table_get(index, element)
            taken = self.machine.references.number_of_function(value) if isinstance(value, wasmtime.Func) else 0
            if taken != number:
                place = f"in table {index}[{element}]"
                raise self._diverged(record, f"function reference {taken} {place}", f"function reference {number} {place}")
            return
        reference = self._reference(record, code, number)
        for i in range(min(count, self.linked.table_size(index))):
            self.linked.table_set(index, element + i, reference)

    def _reference(self, record: Record, code: int, number: int) -> int | wasmtime.Func | None:
        try:
            if code == Ref.NULL:
                return None
            if code == Ref.EXPORT_FUNC:
                return wasmtime.Func._from_raw(self.linked.exported(number).func)
            if code == Ref.IMPORT_FUNC:
                return self.defined[number]
            if code == Ref.FUNC:
                return self.machine.references.function_of(number)
            if code == Ref.EXTERN:
                return number
        except (KeyError, IndexError):
            pass
        raise record.malformed(f"an unknown reference ({code}, {number})")

    def _define(self, record: Record) -> None:
        index, length = struct.unpack_from("<II", record.body)
        try:
            entry = import_from_json(json.loads(record.body[8 : 8 + length]))
        except (ValueError, KeyError, TypeError) as error:
            raise record.malformed(f"a definition that cannot be read ({error})") from None
        if index != len(self.imports):
            raise record.malformed(f"definition {index} is out of order")
        self.imports.append(entry)
        hosted = Hosted(index, entry.params, entry.results, None)
        self.hosted.append(hosted)
        d = Description((hosted,), self.shape.primary_memory)
        self.defined[index] = self.linked.lone_function(self._wiring(d, lone=True), index)
        self.machine.references.number_of_function(self.defined[index])

    def _must_reach(self, record: Record, kind: str, index: int) -> None:
        if index not in self.linked.reachable(kind):
            raise record.malformed(f"it touches {kind} {index}, which the module does not export")

    # -- values ----------------------------------------------------------------------------------------------------------------

    def _values(self, record: Record, at: int, types: Sequence[str]) -> Values:
        return sides.typed(record, at, types)

    def _scratch(self, types: Sequence[str]) -> Values:
        base = self.cursor.memory.base + RING_SCRATCH
        return [(t, int.from_bytes(ctypes.string_at(base + 16 * i, VALUE_SIZE[t]), "little")) for i, t in enumerate(types)]

    def _answer(self, values: Values) -> None:
        for i, (t, bits) in enumerate(values):
            self.cursor.memory.write(RING_SCRATCH + 16 * i, bits.to_bytes(VALUE_SIZE[t], "little"))

    # -- telling -----------------------------------------------------------------------------------------------------------------

    def _diverged(
        self,
        record: Record | None,
        got: str,
        expected: str | None = None,
        where: str = "",
        error: GuestTrap | None = None,
        side: Side | None = None,
        both: tuple[Side, Side] | None = None,
        place: tuple[int, int, int] | None = None,
        calling: str = "",
    ) -> Diverged:
        """The guest did `got` where `record` was to come. `side` takes `got` apart; `both` is the two."""
        seq = self.cursor.seq() if record is None else record.seq
        wanted = expected or ("the end of the recording" if record is None else self.describe(record))
        frames = tuple(getattr(error, GUEST_FRAMES, ())) if error is not None else ()
        parted = both or (sides.recorded(self.imports, record, wanted), side or Side("other", text=got))
        calling = calling or (self._calling[-1][0].qualified if self._calling else "")
        return Diverged(Difference(seq, wanted, got, where, frames, parted, place, calling))

    def _both(self, record: Record) -> tuple[Side, Side]:
        """A recorded event that the guest was about to do otherwise, and what it did."""
        args = self._calling[-1][1] if self._calling and record.kind is Kind.CALL else None
        return sides.both(self.imports, self.linked.memories, record, self.describe(record), args)

    def describe(self, record: Record) -> str:
        """A record in a few words."""
        kind = record.kind
        if kind is Kind.CALL and record.index < len(self.imports):
            entry = self.imports[record.index]
            return f"a call of {_call(entry, self._values(record, 0, entry.params))}"
        if kind is Kind.RETURN:
            return "a return"
        if kind in (Kind.EXPORT, Kind.CALLBACK):
            return f"a call of {self._target(*struct.unpack_from('<II', record.body))}"
        if kind is Kind.TRAP:
            code, length = struct.unpack_from("<II", record.body)
            return f"a trap: {record.body[8 : 8 + length].decode('utf-8', 'replace')}"
        if kind is Kind.EXIT:
            return f"exit {_first_word(record)}"
        if kind is Kind.STOP:
            code, _, clock = struct.unpack_from("<IIQ", record.body)
            reason = StopReason(code).name.lower() if code in StopReason._value2member_map_ else f"reason {code}"
            return f"a stop ({reason})" + ("" if clock == _NO_CLOCK else f" at instruction {clock}")
        return f"a {kind.name.lower()} record"

    def _target(self, target: int, element: int) -> str:
        if target == START_TARGET:
            return "the start function"
        if target & TABLE_TARGET:
            return f"table {target & ~TABLE_TARGET}[{element}]"
        return self.shape.exports[target].name if target < len(self.shape.exports) else f"export {target}"


def recorded_profile(manifest: Manifest, given: str) -> tuple[Profile, list[str]]:
    """The profile a trace was recorded with: what a replay must run with, whatever this program's own is; and what to note."""
    engine = manifest.engine
    notes: list[str] = []
    known = Profile()
    recorded = engine.get("profile", {})
    if engine.get("name") != "wasmtime" or not isinstance(recorded, dict):
        name = engine.get("name")
        raise TraceError(f"{given}: was recorded on engine {name!r}, which this program does not have")
    for key, value in recorded.items():
        if not hasattr(known, key) or not isinstance(value, type(getattr(known, key))):
            raise TraceError(f"{given}: was recorded with engine option {key}={value!r}, unknown here; upgrade")
    if not 0 < recorded.get("max_wasm_stack", 1) <= 64 << 20 or not 0 <= recorded.get("memory_reservation", 0) <= 64 << 30:
        raise TraceError(f"{given}: the manifest asks for an absurd engine configuration; restore it from a copy")
    if engine.get("version") != engine_version():
        notes.append(f"recorded on wasmtime {engine.get('version')}, replayed on {engine_version()}")
    return Profile(**recorded), notes


def replay(trace: Trace | Recorded, module: bytes | None = None) -> Verdict:
    """Replays a trace and says whether the guest did the same. A trace that cannot be replayed is `unusable`, not an error."""
    try:
        return Replay(trace, module).run()
    except (TraceError, RefusedError) as error:
        return Verdict("unusable", reason=str(error))


def _provided(data: Any) -> Provided:
    try:
        return Provided(str(data["module"]), str(data["name"]), str(data["kind"]), dict(data["type"]))
    except (TypeError, KeyError, ValueError):
        raise TraceError("the manifest's list of provided memories, globals and tables is malformed") from None


def _same(value: Raw) -> list[Raw]:
    return [value]


def _message(trap: Record) -> bytes:
    return trap.body[8 : 8 + int(struct.unpack_from("<I", trap.body, 4)[0])]


def _first_word(record: Record) -> int:
    return int(struct.unpack_from("<I", record.body)[0])


def _value(t: str, bits: Raw) -> str:
    if t in ("i32", "i64"):
        return str(bits)
    return f"{bits:#x}"


def _show(types: Sequence[str], values: Sequence[Raw]) -> str:
    return ", ".join(_value(t, v) for t, v in zip(types, values, strict=True)) or "nothing"


def _call(entry: Import, args: Values) -> str:
    shown = []
    for i, (t, bits) in enumerate(args):
        name = f"{entry.names[i]}=" if i < len(entry.names) else ""
        shown.append(f"{name}{_value(t, bits)}")
    return f"{entry.qualified}({', '.join(shown)})"


def _excerpt(data: bytes, at: int) -> str:
    start = max(0, at - 8)
    return repr(data[start : at + 24])[1:]
