"""Small recordings for the tests of motion and history, and the oracle they are held against.

The oracle is a table with a row for every instruction of a recording, made by looking at every single mark. It shares nothing
with the scans that motion and history ask: what a step, a search or a question should come to is worked out from its rows.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from recorder.python_host import Guest, HostFunction
from replayer.machine import TimeMachine
from replayer.marks import Mark
from replayer.stops import entry_of
from tests import harness
from traces.layout import Kind, Status

# -- recordings --------------------------------------------------------------------------------------------------------------


def _next(guest: Guest, n: int) -> int:
    return (n * 31 + 5) & 0xFFFF


def _again(guest: Guest, n: int) -> int:
    """Writes, calls back twice, writes again."""
    guest.write(512, bytes((n & 0xFF, 1, 2, 3)))
    first = guest.call("inner", n + 1)
    second = guest.call("inner", n + 2)
    guest.write(520, b"done")
    return int(first) + int(second)


def _quiet(guest: Guest, n: int) -> int:
    return n + 1


HOSTS = [
    HostFunction("host", "next", ("i32",), ("i32",), _next, "tests"),
    HostFunction("host", "again", ("i32",), ("i32",), _again, "tests"),
]

CALLS = """
(module
  (import "host" "next" (func $next (param i32) (result i32)))
  (import "host" "again" (func $again (param i32) (result i32)))
  (type $unary (func (param i32) (result i32)))
  (memory (export "memory") 1 4)
  (data (i32.const 100) "from the module")
  (global $sum (export "sum") (mut i32) (i32.const 7))
  (global $wide (mut i64) (i64.const 11))
  (global $constant i32 (i32.const 5))
  (table 4 4 funcref)
  (elem (i32.const 0) func $leaf $loops)
  (start $prepare)
  (func $prepare (i32.store (i32.const 64) (i32.const 0x1234)) (drop (call $next (i32.const 1))))
  (func $leaf (param $x i32) (result i32) (i32.mul (local.get $x) (i32.const 3)))
  (func $loops (param $x i32) (result i32)
    (loop $more
      (i32.store8 (i32.add (i32.const 32) (local.get $x)) (local.get $x))
      (br_if $more (local.tee $x (i32.sub (local.get $x) (i32.const 1)))))
    (local.get $x))
  (func $last (param $x i32) (result i32) (call $leaf (local.get $x)))
  (func $down (param $x i32) (result i32)
    (if (result i32) (local.get $x) (then (i32.add (call $down (i32.sub (local.get $x) (i32.const 1))) (local.get $x)))
      (else (i32.const 0))))
  (func $hop (param $x i32) (result i32)
    (if (i32.eqz (local.get $x)) (then (return (i32.const 9))))
    (return_call $skip (i32.sub (local.get $x) (i32.const 1))))
  (func $skip (param $x i32) (result i32)
    (global.set $wide (i64.add (global.get $wide) (i64.const 1)))
    (return_call $hop (local.get $x)))
  (func (export "run") (param $n i32) (result i32)
    (local $x i32)
    (block $b (br_if $b (i32.eqz (call $last (local.get $n)))))
    (local.set $x (call $loops (local.get $n)))
    (local.set $x (i32.add (local.get $x) (call_indirect (type $unary) (local.get $n) (i32.const 0))))
    (local.set $x (i32.add (local.get $x) (call $down (i32.const 3))))
    (local.set $x (i32.add (local.get $x) (call $hop (i32.const 3))))
    (memory.fill (i32.const 200) (local.get $n) (i32.const 10))
    (memory.copy (i32.const 204) (i32.const 100) (i32.const 8))
    (i64.store offset=8 (i32.const 200) (i64.const 0x0102030405060708))
    (global.set $sum (i32.add (global.get $sum) (local.get $x)))
    (global.set $sum (global.get $sum))
    (i32.add (call $again (local.get $n)) (call $next (local.get $x))))
  (func (export "inner") (param $n i32) (result i32)
    (i32.store8 (i32.const 36) (local.get $n))
    (call $leaf (local.get $n)))
  (func (export "grow") (result i32)
    (drop (memory.grow (i32.const 1))) (i32.store (i32.const 70000) (i32.const 77)) (i32.const 1))
  (func (export "tail") (param i32) (result i32) (return_call $down (local.get 0)))
  (func (export "trap") (param $n i32) (result i32)
    (drop (call $leaf (i32.const 2)))
    (if (local.get $n) (then (return (i32.add (call $loops (i32.const 2)) (i32.load (i32.const 0x7fffffff))))))
    (unreachable))
  (func (export "nothing")))
"""
"""Calls of every kind: direct, indirect, in tail position, through hosts, last in a block and last in a function."""

THROWS = """
(module
  (import "host" "next" (func $next (param i32) (result i32)))
  (import "host" "again" (func $again (param i32) (result i32)))
  (tag $e (param i32))
  (memory (export "memory") 1)
  (func $deep (param $n i32)
    (if (i32.eqz (local.get $n)) (then (throw $e (i32.const 42))))
    (call $deep (i32.sub (local.get $n) (i32.const 1))))
  (func $middle (param $n i32) (result i32) (call $deep (local.get $n)) (i32.const 1))
  (func (export "inner") (param $n i32) (result i32) (local.get $n))
  (func (export "run") (param $n i32) (result i32)
    (local $got i32)
    (local.set $got (block $caught (result i32)
      (try_table (result i32) (catch $e $caught) (call $middle (local.get $n)))))
    (block $b (try_table (catch_all $b) (throw $e (local.get $n))))
    (drop (call $again (i32.const 1)))
    (i32.add (local.get $got) (call $next (local.get $got)))))
"""


def _drive_calls(guest: Guest) -> None:
    guest.write(4, b"before anything")
    guest.call("run", 4)
    guest.write(40, b"between")
    guest.set_global("sum", 3)
    guest.call("nothing")
    guest.call("grow")
    guest.call("tail", 2)
    for n in (1, 0):
        with contextlib.suppress(Exception):
            guest.call("trap", n)
    guest.call("run", 2)
    guest.call("nothing")
    guest.write(0, b"after everything")


def _drive_throws(guest: Guest) -> None:
    guest.call("run", 3)
    guest.call("run", 0)


def _drive_stepping(guest: Guest) -> None:
    guest.call("run", 3)
    guest.call("host", 2)
    guest.call("nothing")
    with contextlib.suppress(Exception):
        guest.call("fail", 2)
    guest.call("inner", 4)


def _wasm(name: str) -> bytes:
    return harness.guest(name)


PROGRAMS: dict[str, tuple[Callable[[], bytes], Callable[[Guest], Any]]] = {
    "calls": (lambda: harness.assemble(CALLS), _drive_calls),
    "throws": (lambda: harness.assemble(THROWS), _drive_throws),
    "stepping_O0": (lambda: _wasm("stepping_O0"), _drive_stepping),
    "stepping_O2": (lambda: _wasm("stepping_O2"), _drive_stepping),
}
SOURCED = ("stepping_O0", "stepping_O2")


def recorded(place: Path, name: str) -> Path:
    """The recording of a program, made once per place."""
    out = place / f"{name}.trace"
    if not out.exists():
        wasm, drive = PROGRAMS[name]
        harness.record(wasm(), out, drive, hosts=HOSTS)
    return out


def recorded_from(place: Path, name: str, text: str | bytes, drive: Callable[[Guest], Any]) -> Path:
    out = place / f"{name}.trace"
    if not out.exists():
        harness.record(text if isinstance(text, bytes) else harness.assemble(text), out, drive, hosts=HOSTS)
    return out


# -- the oracle --------------------------------------------------------------------------------------------------------------

Frames = tuple[tuple[int, int], ...]
PROLOGUE = ("prologue", 0)
KEPT = 80_000
"""Bytes of memory in a row, of programs without debug information."""


@dataclass(frozen=True)
class Row:
    """What stands at one mark."""

    frames: Frames
    """Of the guest alone, outermost first: function, pc."""
    activation: int
    """Which call from outside it is in: the event that began it."""
    instruction: str
    events: int
    locals: tuple[int | None, ...]
    operands: tuple[int | None, ...]
    globals: tuple[int, ...]
    memory: bytes

    @property
    def depth(self) -> int:
        return len(self.frames)

    @property
    def function(self) -> int:
        return self.frames[-1][0]

    @property
    def pc(self) -> int:
        return self.frames[-1][1]


@dataclass(frozen=True)
class Activation:
    """A call of the guest from outside."""

    first: Mark
    """The mark of the event that began it."""
    behind: Mark
    """The mark behind the event that ended it."""


class Table:
    """All rows of a recording."""

    def __init__(self, machine: TimeMachine) -> None:
        self.machine = machine
        machine.wait()
        self.total = machine.total
        self.activations: dict[int, Activation] = {}
        self.kinds = [machine.job.header(seq) for seq in range(machine.events)]
        self._opened = self._activations()
        self.rows = [self._row(clock) for clock in range(self.total)]

    def _activations(self) -> list[int]:
        """For every number of events that have happened, the activation then."""
        machine = self.machine
        stack = [-1]
        after = [-1]
        closes: list[int | None] = []
        for seq, (kind, status, _) in enumerate(self.kinds):
            if kind in (Kind.EXPORT, Kind.CALLBACK):
                if status is Status.OPEN:
                    stack.append(seq)
                    closes.append(seq)
                else:
                    self.activations[seq] = Activation(machine.mark_of(seq), machine.mark_after(seq))
            elif kind is Kind.CALL and status is Status.OPEN:
                closes.append(None)
            elif kind is Kind.RETURN:
                self._close(closes.pop(), seq, stack)
            elif kind in (Kind.TRAP, Kind.EXIT):
                while closes and closes[-1] is None:
                    closes.pop()
                self._close(closes.pop(), seq, stack)
            after.append(stack[-1])
        return after

    def _close(self, opened: int | None, seq: int, stack: list[int]) -> None:
        if opened is None:
            return
        stack.pop()
        machine = self.machine
        behind = Mark(self.total) if seq + 1 >= len(self.kinds) else machine.timeline.mark_after(seq, self.total)
        self.activations[opened] = Activation(machine.mark_of(opened), behind)

    def _row(self, clock: int) -> Row:
        here = self.machine.look(Mark(clock))
        try:
            frames = tuple((frame.function, frame.pc) for frame in reversed(here.frames) if not frame.is_host)
            activation = self._opened[here.events]
            # A call told in one record: it is under way although its event is still to come.
            seq = here.events
            if seq < len(self.kinds):
                kind, status, _ = self.kinds[seq]
                if kind in (Kind.EXPORT, Kind.CALLBACK) and status is Status.COMPLETE and self.machine.mark_of(seq) < here.mark:
                    activation = seq
            top = here.frames[0]
            memory = here.read(0, KEPT) if self.machine.source is None else b""
            row = Row(
                frames, activation, top.instruction, here.events, tuple(top.locals), tuple(top.operands),
                tuple(here.globals), memory,
            )  # fmt: skip
        finally:
            here.close()
        return row

    # -- source lines

    @cache  # noqa: B019
    def line(self, pc: int) -> tuple[str, int] | None:
        """The line of an instruction; a function's prologue is a line of its own."""
        source = self.machine.source
        if source is None:
            return None
        function = self.machine.details.function_at(pc)
        if pc < (entry_of(self.machine, function) or 0):
            return PROLOGUE if self.sourced(function) else None
        location = source.location(pc)
        return None if location is None else (location.file, location.line)

    @cache  # noqa: B019
    def sourced(self, function: int) -> bool:
        """Whether any instruction of a function has a line."""
        source = self.machine.source
        details = self.machine.details
        if source is None:
            return False
        return any(source.location(step.at - details.code_start) is not None for step in details.of(function).steps)

    # -- what a step should come to

    def step(self, clock: int, how: str, by: str, reverse: bool) -> Mark:
        """By the rules at the head of `replayer.motion`."""
        if how == "instruction" or (how == "in" and by == "instruction"):
            return self._mark(clock - 1 if reverse else clock + 1)
        by_line = by == "line" and self.sourced(self.rows[clock].function)
        if how == "in" and not by_line:
            return self._mark(clock - 1 if reverse else clock + 1)
        return self._backward(clock, how, by_line) if reverse else self._forward(clock, how, by_line)

    def _mark(self, clock: int) -> Mark:
        return Mark(max(-1, min(clock, self.total)))

    def _within(self, clock: int, activation: int) -> bool:
        """Whether an instruction belongs to an activation or one inside of it."""
        first, behind = self.activations[activation].first, self.activations[activation].behind
        return first < Mark(clock) < behind or (first < Mark(clock) and self.rows[clock].activation == activation)

    def _line_at(self, clock: int) -> tuple[str, int] | None:
        """The line of an instruction; of one without, that of the one executed before it in the frame."""
        row = self.rows[clock]
        while True:
            found = self.line(self.rows[clock].pc)
            if found is not None or self.rows[clock].pc == self._first(row.function):
                return found
            clock -= 1
            while (
                clock >= 0
                and self._within(clock, row.activation)
                and (self.rows[clock].depth > row.depth or self.rows[clock].function != row.function)
            ):
                if self.rows[clock].depth < row.depth:
                    return None
                clock -= 1
            if clock < 0 or not self._within(clock, row.activation) or self.rows[clock].depth < row.depth:
                return None

    def _first(self, function: int) -> int:
        return self.machine.details.of(function).steps[0].at - self.machine.details.code_start

    def _forward(self, clock: int, how: str, by_line: bool) -> Mark:
        row = self.rows[clock]
        depth, function, line = row.depth, row.function, self.line(row.pc)
        leaving = how == "out"
        entered = False
        for later in range(clock + 1, self.total):
            if not self._within(later, row.activation):
                break
            now = self.rows[later]
            if entered:
                if now.depth == depth + 1 and now.pc == entry_of(self.machine, now.function):
                    return Mark(later)
                continue
            if now.depth < depth:
                if how == "out" or not by_line or self.sourced(now.function):
                    return Mark(later)
                depth, leaving = now.depth, True
                continue
            if leaving:
                continue
            if now.depth == depth and not by_line:
                return Mark(later)
            if now.depth == depth and now.function == function and self.line(now.pc) not in (None, line):
                return Mark(later)
            enters = now.depth == depth + 1 and now.pc == self._first(now.function)
            if how == "in" and enters and self.sourced(now.function):
                entered = now.pc != entry_of(self.machine, now.function)
                if not entered:
                    return Mark(later)
        return self.activations[row.activation].behind

    def _backward(self, clock: int, how: str, by_line: bool) -> Mark:
        row = self.rows[clock]
        if how == "out":
            return self._call_of(clock, row, False)
        if not by_line:
            if clock == 0 or not self._within(clock - 1, row.activation) or self.rows[clock - 1].depth <= row.depth:
                return self._mark(clock - 1)
            return Mark(next(c for c in range(clock - 1, -1, -1) if self.rows[c].depth == row.depth))
        visible = self._visible(clock, how == "in")
        line = self._line_at(clock)
        at = row.depth, row.function, line
        begins = None
        for earlier, is_entry in visible:
            now = self.rows[earlier]
            found = self.line(now.pc)
            key = now.depth, now.function, found
            if found is None and not is_entry:
                continue  # nothing to arrive at
            if found not in (None, PROLOGUE):
                if begins is None or key == at:
                    if key != at and begins is None:
                        at = key
                    begins = earlier
                else:
                    break
            elif begins is not None:
                break
            if is_entry and begins is not None:
                break
            if is_entry and now.depth == row.depth:
                break
        if begins is not None and line != PROLOGUE:
            return Mark(begins)
        return self._call_of(clock, row, True)

    def _visible(self, clock: int, inside: bool) -> list[tuple[int, bool]]:
        """Instructions before a clock in its frame and, if `inside`, in what that called, as far as lines are known, backward.

        With each, whether its frame begins there.
        """
        row = self.rows[clock]
        found = []
        for earlier in range(clock - 1, -1, -1):
            if not self._within(earlier, row.activation):
                break
            now = self.rows[earlier]
            if now.depth < row.depth:
                break
            frames = now.frames[row.depth :]
            if (now.depth == row.depth and now.function == row.function) or (
                inside and frames and all(self.sourced(function) for function, _ in frames)
            ):
                is_entry = now.pc == self._first(now.function)
                found.append((earlier, is_entry))
                if is_entry and now.depth == row.depth:
                    break
        return found

    def _call_of(self, clock: int, row: Row, by_line: bool) -> Mark:
        depth = row.depth
        for earlier in range(clock - 1, -1, -1):
            if not self._within(earlier, row.activation):
                break
            now = self.rows[earlier]
            if now.depth < depth:
                if not by_line or self.sourced(now.function):
                    return Mark(earlier)
                depth = now.depth
        return self.activations[row.activation].first
