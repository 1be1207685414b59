"""Moving: run to the next stop, step over, into and out of, one instruction on, and all of that backward.

Everything here is a question to a scan (`replayer.scans`): the guest runs once over the part of the execution in question,
listened to, and tells where it would have stopped. Forward, the first answer counts; backward, the last one before the present,
looked for in ever longer windows or from checkpoint to checkpoint towards the start. The arrival rules are GDB's:

- a breakpoint at the present position does not stop a motion that leaves it, in either direction;
- forward, a watchpoint stops behind the write; backward, before it;
- a step by line goes on to the first instruction of another line in the same frame, wherever in that line it is. A step in also
  ends in a function that has lines and is called by the frame itself, or by a host that it called, behind the function's
  prologue. Functions without lines are stepped over;
- a step that leaves its frame, by return or by exception, stops right behind the call; if the caller has no lines, it leaves
  that one, too. A step out always stops in the caller;
- stepping backward arrives at the beginning of a line: of the present one if the guest is in the middle of it, of the one
  executed before it otherwise. A step in goes backward through what returned last. A prologue is no line to arrive at: out of a
  function backward arrives at the call (of a step by line, at the one in the next caller that has lines);
- a call of the guest by an embedder or a host is left to the mark behind its last event, and backward to that of its first. That
  is where a trap or an exit ends a step, too;
- instructions to which no line belongs are part of the line executed before them. In functions without lines, and in modules
  without debug information, a step in is one instruction, and a step over is one instruction with all it calls;
- a tail call replaces a frame, which is over with it; a function that calls itself so is a loop. Inlined calls are lines like
  any other.
"""

from __future__ import annotations

import bisect
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import takewhile
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final

from replayer.activations import Activation, Activations
from replayer.conditions import Condition
from replayer.look import Frame, Here
from replayer.marks import START, Mark
from replayer.once import OnceCalls
from replayer.stops import Breakpoint, Watchpoint, entry_of
from replayer.twin import HEAD_AFTER_CALL, HEAD_CALLS, HEAD_ENTRY, HEAD_LANDING
from replayer.watching import Cancelled, Watch
from replayer.worker import Moment
from traces._errors import UsageError

if TYPE_CHECKING:
    from replayer.machine import TimeMachine
    from replayer.source.values import Value

Line = tuple[str, int]
"""A source line: file and number."""

_PROLOGUE: Final[Line] = ("prologue", 0)
STEPS: Final = ("in", "over", "out", "instruction")
_BATCHES: Final = (1, 8, 64, 512)
_MOST_HITS: Final = 4096
"""Hits of one answer, unless more of them happened at one clock."""
_WINDOW: Final = 2_000
"""Instructions first searched when going back."""
_NEAR: Final = 50_000_000
"""Instructions that are always gone back through: a fraction of a second's worth."""
_VISITS: Final = 4096
"""Stretches of a function looked at, at most, to find the line before this one; then the search goes on further back."""


@dataclass(frozen=True)
class Stop:
    """Where a motion came to."""

    mark: Mark
    """The arrival."""
    reason: str
    """What stopped it, as it was written; "start" or "end" where nothing did."""
    hit: Mark
    """The instruction, or event, that is to blame: of a watchpoint, the write."""
    pc: int | None = None
    event: int | None = None
    address: int | None = None
    """Of a write: its first byte."""
    new: bytes = b""
    """Of a write: what it wrote."""
    memory: int = 0
    old: bytes = b""
    """Of a write: what stood there before."""


@dataclass(frozen=True)
class Hit:
    """One answer of a scan."""

    clock: int
    pc: int
    """-1: a host did it."""
    kind: str
    event: int
    """-1: the guest did it."""
    memory: int
    address: int
    data: bytes
    depth: int

    @classmethod
    def of(cls, raw: Sequence[Any]) -> Hit:
        clock, pc, kind, event, memory, address, data, depth = raw
        return cls(clock, pc, kind, event, memory, address, bytes.fromhex(data), depth)


class Motion:
    """How a machine moves. Each method goes somewhere and returns what is there, or where it would be."""

    def __init__(self, machine: TimeMachine) -> None:
        self.machine = machine
        self._told = 0.0
        self._sourced: dict[int, bool] = {}
        self._bodies: dict[int, int] = {}
        self._line_changes: dict[int, list[tuple[int, Line]]] = {}

    # -- hits, forward and backward

    def hits(self, scan: dict[str, Any], low: int, high: int | None = None, watch: Watch | None = None) -> Iterator[Hit]:
        """What a scan finds at clocks in [low, high), in the order of execution, found as it is asked for."""
        self.machine.know(watch)
        seen: set[Hit] = set()
        batch = 1
        while low < (self.machine.total if high is None else min(high, self.machine.total)):
            moment = self.from_clock(low, watch)
            message = {**scan, "low": low, "high": high, "clock": self._past(high), "keep": "first", "most": batch}
            raw = self.ask(moment, message, watch)
            for found in self._real(map(Hit.of, raw)):
                if found not in seen:
                    seen.add(found)
                    yield found
            if len(raw) < batch:
                return
            # What happened at the last clock of the answer may not all have been told.
            last = raw[-1][0]
            if last != low:
                seen = {hit for hit in seen if hit.clock == last}
                low = last
                batch = min(batch * 8, _MOST_HITS)
            else:
                batch *= 8

    def hits_back(self, scan: dict[str, Any], low: int, high: int, watch: Watch | None = None) -> Iterator[Hit]:
        """The same in [low, high), the last one first: found in windows that are longer the less there is to find."""
        self.machine.know(watch)
        seen: set[Hit] = set()
        batch, width = 1, 10 * _WINDOW
        while high > low:
            edge = max(low, high - width)
            message = {**scan, "low": edge, "high": high, "clock": self._past(high), "keep": "last", "most": batch}
            raw = self.ask(self.from_clock(edge, watch), message, watch)
            for found in self._real(map(Hit.of, reversed(raw))):
                if found not in seen:
                    seen.add(found)
                    yield found
            if len(raw) < batch:
                high, width = edge, width * 8
                seen.clear()
                continue
            # What happened at the first clock of the answer may not all have been told.
            first = raw[0][0]
            if first + 1 == high:
                batch *= 8
                continue
            seen = {hit for hit in seen if hit.clock == first}
            width = max(_WINDOW, 2 * (high - first))
            high, batch = first + 1, min(batch * 8, _MOST_HITS)

    def _real(self, hits: Iterable[Hit]) -> Iterator[Hit]:
        """Without those that a trap cut off: a scan hears that a stretch begins, and takes it for granted that all of it runs."""
        traps = sorted(self.machine.traps.values())
        for hit in hits:
            if hit.kind == "head" and hit.pc >= 0 and traps:
                index = bisect.bisect_right(traps, hit.clock) - 1
                if index >= 0 and traps[index] > hit.clock - self._ordinal(hit.pc):
                    continue
            yield hit

    def _past(self, clock: int | None) -> int | None:
        """A goal with which everything before a clock is done: a guest comes to rest at the head of the stretch that holds it."""
        return None if clock is None else clock + self._longest

    @cached_property
    def _longest(self) -> int:
        return max(self.machine.twin.stretches.counts, default=0)

    def _ordinal(self, pc: int) -> int:
        """How many instructions of its stretch stand before one; a head behind a call may be none."""
        details = self.machine.details
        return details.ordinal(pc) if pc in details.of(details.function_at(pc)).by_pc else 0

    def from_clock(self, clock: int, watch: Watch | None) -> Moment:
        """A process of its own at the head that holds `clock`, or before."""
        if clock < 0:
            return self.machine.checkpoints.fork(clock=-1)
        moment = self.machine.moment(Mark(clock), watch)
        if not self.machine.forks:
            return moment
        child = moment.fork()
        self.machine.checkpoints.remember(moment)
        return child

    def ask(self, moment: Moment, message: dict[str, Any], watch: Watch | None) -> list[Any]:
        try:
            found = moment.scan(message, watch)
        except Cancelled:
            moment.kill()
            raise
        except BaseException:
            moment.close()
            raise
        moment.close()
        return list(found)

    def heads(self, pcs: Iterable[int]) -> list[list[Any]]:
        """Instructions by the head of their stretch, each with how many stand before it there: what a scan wants to be told."""
        stretches = self.machine.twin.stretches
        grouped: dict[int, list[tuple[int, int]]] = {}
        for pc in pcs:
            head = stretches.pcs[stretches.at(pc)]
            grouped.setdefault(head, []).append((pc, 0 if pc == head else self.machine.details.ordinal(pc)))
        return [[head, sorted(found)] for head, found in grouped.items()]

    # -- finding stops

    def find(
        self,
        breakpoints: Sequence[Breakpoint] = (),
        watchpoints: Sequence[Watchpoint] = (),
        *,
        start: Mark | None = None,
        reverse: bool = False,
        watch: Watch | None = None,
    ) -> Stop | None:
        """The next stop after `start` (where the machine is, unless given), or the one before; None if there is none."""
        mark = self.machine.here.mark if start is None else start
        best: Stop | None = None
        for stop in self._searches(breakpoints, watchpoints, mark, reverse, watch):
            if stop is not None and (best is None or (stop.mark > best.mark if reverse else stop.mark < best.mark)):
                best = stop
        return best

    def _searches(
        self, points: Sequence[Breakpoint], watches: Sequence[Watchpoint], mark: Mark, reverse: bool, watch: Watch | None
    ) -> Iterator[Stop | None]:
        for point in points:
            if point.pcs:
                yield self._find_place(point, mark, reverse, watch)
            if point.imports:
                yield self._find_call(point, mark, reverse, watch)
        for wanted in watches:
            yield self._find_write(wanted, mark, reverse, watch)

    def _find_place(self, point: Breakpoint, mark: Mark, reverse: bool, watch: Watch | None) -> Stop | None:
        scan = {"heads": self.heads(point.pcs)}
        skip = point.skip
        if reverse:
            hits = self.hits_back(scan, -1, mark.clock + (mark.step > 0), watch)
        else:
            hits = self.hits(scan, mark.clock + 1, None, watch)
        with closing(_Walker(self, watch)) as walker:
            for hit in hits:
                if point.condition is None or self._holds_at(point.condition, hit, walker, watch):
                    if skip == 0:
                        return Stop(Mark(hit.clock), point.text, Mark(hit.clock), hit.pc)
                    skip -= 1
        return None

    def _find_call(self, point: Breakpoint, mark: Mark, reverse: bool, watch: Watch | None) -> Stop | None:
        skip = point.skip
        for seq in self._calls_of(point.imports, mark, reverse, watch):
            arrival = self.machine.mark_of(seq, watch)
            if point.condition is None or self._holds(point.condition, arrival, seq, watch):
                if skip == 0:
                    return Stop(arrival, point.text, arrival, event=seq)
                skip -= 1
        return None

    def _calls_of(self, imports: tuple[int, ...], mark: Mark, reverse: bool, watch: Watch | None) -> Iterator[int]:
        """Calls of these imports behind a mark in the order of execution, or before it in the opposite order."""
        machine = self.machine
        machine.know(watch)
        known = machine.clocks.known
        present = min(machine.timeline.events_before(mark), known)
        low, high = (0, present) if reverse else (present, known)
        for seq in machine.calls_of(imports, low, high, reverse):
            at = machine.timeline.mark_of(seq)
            if at < mark if reverse else at > mark:
                yield seq

    def _find_write(self, wanted: Watchpoint, mark: Mark, reverse: bool, watch: Watch | None) -> Stop | None:
        skip = wanted.skip
        for hit in self.writes_from(wanted, mark, reverse, watch):
            written = self.mark_of_hit(hit)
            arrival = written if reverse else self.mark_after_hit(hit)
            if wanted.changes_only and not self._differ(wanted, hit, self._before(wanted, hit, written, watch)):
                continue
            if wanted.condition is None or self._holds(wanted.condition, arrival, None, watch):
                if skip == 0:
                    event = None if hit.event < 0 else hit.event
                    pc = None if hit.pc < 0 else hit.pc
                    old = self._before(wanted, hit, written, watch)
                    return Stop(arrival, wanted.text, written, pc, event, hit.address, hit.data, hit.memory, old)
                skip -= 1
        return None

    def writes_from(
        self, wanted: Watchpoint, mark: Mark, reverse: bool, watch: Watch | None = None, end: Mark | None = None
    ) -> Iterator[Hit]:
        """Writes of what is watched: those to come from a mark on (to `end`, if given), or those before it, the last first."""
        if wanted.global_ is not None:
            scan: dict[str, Any] = {"global": wanted.global_}
        else:
            scan = {"memory": [wanted.memory, wanted.address, wanted.address + wanted.length]}
        if reverse:
            hits = self.hits_back(scan, -1, mark.clock + (mark.step > 0), watch)
        else:
            hits = self.hits(scan, mark.clock, None if end is None else end.clock + (end.step > 0), watch)
        for hit in hits:
            past = hit.clock < mark.clock or (hit.clock == mark.clock and mark.step > 0 and self._is_past(hit, mark))
            if past != reverse or not _touches(hit, wanted):
                continue
            yield hit

    def _is_past(self, hit: Hit, mark: Mark) -> bool:
        """Whether a write inside the instruction of a mark has happened there: the instruction's own has."""
        return hit.event < self.machine.timeline.events_before(mark)

    def mark_of_hit(self, hit: Hit) -> Mark:
        """Where something was done: the instruction, or the event."""
        return Mark(hit.clock) if hit.event < 0 else self.machine.mark_of(hit.event)

    def mark_after_hit(self, hit: Hit) -> Mark:
        if hit.event < 0:
            return Mark(hit.clock + 1)
        self.machine.know()
        return self.machine.timeline.mark_after(hit.event, self.machine.total)

    def _before(self, wanted: Watchpoint, hit: Hit, written: Mark, watch: Watch | None) -> bytes:
        """What stood where something was written."""
        here = self.machine.look(written, watch)
        try:
            if wanted.global_ is not None:
                return here.globals[wanted.global_].to_bytes(16, "little")[: len(hit.data)]
            return here.read(hit.address, len(hit.data), hit.memory)
        finally:
            here.close()

    @staticmethod
    def _differ(wanted: Watchpoint, hit: Hit, old: bytes) -> bool:
        """Whether a write changed anything of what is watched."""
        if wanted.global_ is not None:
            return old != hit.data
        part = slice(max(0, wanted.address - hit.address), max(0, wanted.address + wanted.length - hit.address))
        return old[part] != hit.data[part]

    def _holds_at(self, condition: Condition, hit: Hit, walker: _Walker, watch: Watch | None) -> bool:
        """Whether a condition holds before an instruction. Looks no closer than it has to: it may be asked very often."""
        mark = Mark(hit.clock)
        if not condition.needs:
            self._tell(mark, watch)
            return condition.holds(_Clocked(self.machine, mark, hit.pc))
        if condition.needs <= {"memory", "globals"} and self._is_head(hit.pc):
            self._tell(mark, watch)
            return condition.holds(_Clocked(self.machine, mark, hit.pc, walker.at(hit.clock)))
        return self._holds(condition, mark, None, watch)

    def _holds(self, condition: Condition, mark: Mark, seq: int | None, watch: Watch | None) -> bool:
        self._tell(mark, watch)
        here = self.machine.look(mark, watch)
        try:
            return condition.holds(Scope(here, seq))
        finally:
            here.close()

    def _tell(self, mark: Mark, watch: Watch | None) -> None:
        """Tells how far a search has come, so that it can be cancelled: on the way to the next candidate nobody is told."""
        now = time.monotonic()
        if watch is not None and now - self._told > 0.1:
            self._told = now
            watch(max(mark.clock, 0), self.machine.timeline.events_before(mark))

    def _is_head(self, pc: int) -> bool:
        """Whether the guest rests exactly here: whether nothing is to be executed between the head of a stretch and this."""
        stretches = self.machine.twin.stretches
        return bool(stretches.pcs[stretches.at(pc)] == pc)

    def run(
        self,
        breakpoints: Sequence[Breakpoint] = (),
        watchpoints: Sequence[Watchpoint] = (),
        *,
        reverse: bool = False,
        watch: Watch | None = None,
    ) -> tuple[Here, Stop]:
        """Continues to the next stop, or to the end; backward to the one before, or to the start."""
        stop = self.find(breakpoints, watchpoints, reverse=reverse, watch=watch)
        if stop is None:
            edge = START if reverse else self.machine.end
            stop = Stop(edge, "start" if reverse else "end", edge)
        return self.machine.seek(stop.mark, watch), stop

    def run_to(self, place: Breakpoint, *, reverse: bool = False, watch: Watch | None = None) -> Here:
        """Runs to a place in the code. Stays, with a UsageError, if the guest does not come there."""
        stop = self.find([place], reverse=reverse, watch=watch)
        if stop is None:
            side = "before" if reverse else "after"
            raise UsageError(f"{place.text}: not reached {side} mark {self.machine.here.mark}")
        return self.machine.seek(stop.mark, watch)

    # -- stepping

    def step(self, how: str = "over", *, reverse: bool = False, by: str = "line", watch: Watch | None = None) -> Here:
        """One step from where the machine is.

        Args:
            how: "in", "over", "out" or "instruction".
            by: "line", or "instruction" to step over and into calls without regard to source lines.
        """
        if how not in STEPS or by not in ("line", "instruction"):
            raise UsageError(f"cannot step {how} by {by}: the steps are {', '.join(STEPS)}, by line or instruction")
        machine = self.machine
        here = machine.here
        machine.know(watch)
        if how == "instruction" or (how == "in" and by == "instruction") or not here.frames or here.frames[0].is_host:
            return machine.seek(self._next_instruction(here.mark, reverse), watch)
        by_line = by == "line" and self.sourced(here.frames[0].function)
        if how == "in" and not by_line:
            return machine.seek(self._next_instruction(here.mark, reverse), watch)
        activation = self.activations.at(here.mark.clock)
        if activation is None:
            return machine.seek(self._next_instruction(here.mark, reverse), watch)
        if reverse:
            mark = self._back(here, how, by_line, activation, watch)
        else:
            mark = self._ahead(here, how, by_line, activation, watch)
        return machine.seek(mark, watch)

    def _next_instruction(self, mark: Mark, reverse: bool) -> Mark:
        if not reverse:
            following = Mark(mark.clock + 1)
            return following if mark.clock + 1 < self.machine.total else self.machine.end
        if mark.step:
            return Mark(mark.clock)
        return Mark(mark.clock - 1) if mark.clock > 0 else START

    @cached_property
    def activations(self) -> Activations:
        self.machine.know()
        return Activations(self.machine)

    # lines

    def sourced(self, function: int) -> bool:
        """Whether the debug information knows a line of this function."""
        known = self._sourced.get(function)
        if known is None:
            source = self.machine.source
            start = self.machine.details.code_start
            known = source is not None and any(
                source.location(step.at - start) is not None for step in self.machine.details.of(function).steps
            )
            self._sourced[function] = known
        return known

    def _line(self, function: int, pc: int) -> Line | None:
        """Which line an instruction belongs to; the prologue is one of its own. None: to that of the one executed before it."""
        source = self.machine.source
        assert source is not None
        if pc < self._body_of(function):
            return _PROLOGUE
        found = source.location(pc)
        return None if found is None else (found.file, found.line)

    def _body_of(self, function: int) -> int:
        """The first instruction behind a function's prologue."""
        known = self._bodies.get(function)
        if known is None:
            known = self._bodies[function] = entry_of(self.machine, function) or 0
        return known

    def _changes_of_line(self, function: int) -> list[tuple[int, Line]]:
        """The instructions that tell in which line the guest is: the first of every run of a line in every stretch."""
        known = self._line_changes.get(function)
        if known is None:
            known = []
            last: tuple[int, Line] | None = None
            start = self.machine.details.code_start
            for step in self.machine.details.of(function).steps:
                line = self._line(function, step.at - start)
                if line is not None and (step.stretch, line) != last:
                    known.append((step.at - start, line))
                    last = step.stretch, line
            self._line_changes[function] = known
        return known

    @cached_property
    def _sourced_entries(self) -> dict[int, int]:
        """First instructions of functions that have source lines, with the functions."""
        machine = self.machine
        stretches = machine.twin.stretches
        entries = [pc for pc, head in zip(stretches.pcs, stretches.heads, strict=True) if head & HEAD_ENTRY]
        return {pc: function for pc in entries if self.sourced(function := machine.details.function_at(pc))}

    # heads of stretches

    @cached_property
    def catches(self) -> bool:
        """Whether the module catches exceptions. How deep calls are nested is then only known from the beginning of a call from
        outside on: of a frame that is there already, it is not known where it lands."""
        return any(head & HEAD_LANDING for head in self.machine.twin.stretches.heads)

    def entry_heads(self, function: int) -> list[int]:
        """The head at which a function is entered; none for an empty one."""
        return self._heads_in(function, HEAD_ENTRY)

    def _heads_in(self, function: int, bits: int) -> list[int]:
        """The heads of a function's stretches that are one of these."""
        stretches = self.machine.twin.stretches
        module = self.machine.module
        body = module.code[function - module.imported.functions]
        start = self.machine.details.code_start
        low = bisect.bisect_left(stretches.pcs, body.start - start)
        high = bisect.bisect_left(stretches.pcs, body.end - start)
        return [stretches.pcs[i] for i in range(low, high) if stretches.heads[i] & bits]

    def _calls_in(self, function: int) -> list[int]:
        """The instructions of a function that call, and come back."""
        found: dict[int, int] = {}
        stretches = self.machine.twin.stretches
        start = self.machine.details.code_start
        for step in self.machine.details.of(function).steps:
            found[step.stretch] = step.at - start
        return [pc for pc in found.values() if stretches.heads[stretches.at(pc)] & HEAD_CALLS]

    def _return_of(self, pc: int) -> int | None:
        """The head behind the call at `pc`; None if that is not a call."""
        stretches = self.machine.twin.stretches
        index = stretches.at(pc)
        if not stretches.heads[index] & HEAD_CALLS or index + 1 >= len(stretches.pcs):
            return None
        last = self.machine.details.stretch_of(pc)
        if not last or last[-1].at - self.machine.details.code_start != pc:
            return None
        return int(stretches.pcs[index + 1]) if stretches.heads[index + 1] & HEAD_AFTER_CALL else None

    # forward

    def _ahead(self, here: Here, how: str, by_line: bool, activation: Activation, watch: Watch | None) -> Mark:
        place = _Place.of(here)
        while True:
            arrival, returned = self._ahead_in(place, how, by_line, activation, watch)
            if arrival is None or arrival.clock >= activation.end:
                return self._behind(activation)
            if not returned or not by_line or how == "out":
                return arrival
            # Back in a caller: one without lines is left, too.
            place = self._look(arrival.clock, watch)
            if self.sourced(place.frame.function):
                return arrival
            how = "leave"

    def _ahead_in(
        self, place: _Place, how: str, by_line: bool, activation: Activation, watch: Watch | None
    ) -> tuple[Mark | None, bool]:
        """Where the guest stops first, and whether it has returned from the frame for that; None: not in this activation."""
        frame, outer = place.frame, place.outer
        function = frame.function
        wanted: set[int] = set()
        """Instructions that end the step in this frame."""
        entries: dict[int, int] = {}
        if how in ("in", "over") and by_line:
            line = self._line(function, frame.pc)
            wanted.update(pc for pc, other in self._changes_of_line(function) if other != line)
            if how == "in":
                entries = self._sourced_entries
        elif how == "over":
            behind = self._return_of(frame.pc)
            if behind is None:
                return self._next_instruction(Mark(place.seen), False), False
            wanted.add(behind)
            wanted.update(self._heads_in(function, HEAD_LANDING))
        # Behind the call in the frame around, or at a handler in any: the guest has left this frame.
        left = {pc for other in {found.function for found in outer} for pc in self._heads_in(other, HEAD_LANDING)}
        if outer and (back := self._return_of(outer[0].pc)) is not None:
            left.add(back)
        scan: dict[str, Any] = {
            "heads": self.heads({*wanted, *left, *entries}),
            "depth": 1 if entries else 0,
            "event": self._bound(activation),
        }
        for hit in self.hits_once(scan, place.seen, watch):
            if hit.depth < 0:
                return Mark(hit.clock), True
            if hit.clock >= activation.end:
                break
            if hit.pc in entries and (hit.depth == 1 or (hit.depth == 0 and entries[hit.pc] != function)):
                return self._behind_prologue(hit, entries[hit.pc], watch), False
            if hit.depth == 0 and hit.pc in wanted:
                return Mark(hit.clock), False
        return None, True

    def hits_once(self, scan: dict[str, Any], clock: int, watch: Watch | None) -> Iterator[Hit]:
        """What a scan that follows calls finds behind a clock: it has to begin exactly there, since depth counts from there."""
        told = 0
        for batch in _endless(_BATCHES):
            most = told + batch
            moment = self.from_clock(clock, watch)
            message = {**scan, "low": clock + 1, "clock": None, "keep": "first", "most": most}
            raw = self.ask(moment, message, watch)
            yield from self._real(map(Hit.of, raw[told:]))
            if len(raw) < most:
                return
            told = most

    def _behind_prologue(self, hit: Hit, function: int, watch: Watch | None) -> Mark:
        pc = self._body_of(function)
        if pc == hit.pc:
            return Mark(hit.clock)
        for found in self.hits({"heads": self.heads([pc])}, hit.clock, None, watch):
            return Mark(found.clock)
        return Mark(hit.clock)

    def _bound(self, activation: Activation) -> int | None:
        """The event behind an activation, where a scan of it may end; None if it is the last."""
        closing = activation.closing
        return None if closing is None or closing + 1 >= self.machine.clocks.known else closing + 1

    def _behind(self, activation: Activation) -> Mark:
        if activation.closing is None:
            return self.machine.end
        return self.machine.timeline.mark_after(activation.closing, self.machine.total)

    # backward

    def _back(self, here: Here, how: str, by_line: bool, activation: Activation, watch: Watch | None) -> Mark:
        place = _Place.of(here)
        if how == "out":
            return self._caller(place, False, activation, watch)
        if not by_line:
            return self._over_call(here, activation, watch) or self._next_instruction(here.mark, True)
        return self._line_back(place, how, self._line(place.frame.function, place.frame.pc), None, activation, watch)

    def _over_call(self, here: Here, activation: Activation, watch: Watch | None) -> Mark | None:
        """The call behind which the guest stands, if it stands right behind one."""
        clock = here.mark.clock
        if clock <= activation.begin or self._look(clock - 1, watch).depth <= here.depth:
            return None
        place = _Place.of(here)
        return self._last(place, self._calls_in(place.frame.function), activation, watch)

    def _last(self, place: _Place, pcs: list[int], activation: Activation, watch: Watch | None) -> Mark | None:
        """The last time one of these instructions was begun in the frame itself."""
        for hit in self._visits(place, pcs, 0, activation, watch):
            if hit.depth == 0:
                return Mark(hit.clock)
        return None

    def _line_back(
        self, place: _Place, how: str, line: Line | None, begins: int | None, activation: Activation, watch: Watch | None
    ) -> Mark:
        """Where a run of instructions of one line begins: of the line the guest is in the middle of, or the one before.

        `line` is that of the place; `begins` the earliest instruction known to be in the run that is looked for.
        """
        function = place.frame.function
        lines = dict(self._changes_of_line(function))
        first = self._heads_in(function, HEAD_ENTRY)
        entries = self._sourced_entries if how == "in" else {}
        returns = self._heads_in(function, HEAD_AFTER_CALL | HEAD_LANDING) if how == "in" else []
        behind = place.clock
        """The earliest instruction of this frame seen so far."""
        if line == _PROLOGUE:
            line = begins = None
        if place.frame.pc in first:
            return self._caller(place, True, activation, watch) if begins is None else Mark(begins)
        for hit in self._visits(place, [*{*lines, *first, *returns, *entries}], int(how == "in"), activation, watch):
            if hit.depth == 1 and hit.pc in entries:
                if begins is not None:
                    return Mark(begins)
                inside = self._inside(place, behind, watch)
                if inside is not None:
                    return inside
            if hit.depth != 0:
                continue
            found = lines.get(hit.pc)
            if found is not None and found != _PROLOGUE:
                if found != line and begins is not None:
                    return Mark(begins)
                line, begins = found, hit.clock
            if hit.pc in first or found == _PROLOGUE:
                break
            behind = hit.clock
        return self._caller(place, True, activation, watch) if begins is None else Mark(begins)

    def _inside(self, place: _Place, behind: int, watch: Watch | None) -> Mark | None:
        """Backward into what returned to a frame at clock `behind`: the beginning of its last line; None if it has no lines."""
        seen = self._look(behind - 1, watch)
        level = own = seen.depth - place.own_depth
        while level > 0 and level <= len(seen.frames):
            deeper = seen.frames[level - 1]
            if not deeper.is_host and not self.sourced(deeper.function):
                break
            level -= 1
        if level < own and level < len(seen.frames) and seen.frames[level].is_host:
            level += 1
        if level >= own:
            return None
        found = seen.at(level)
        clock = behind - 1
        if level:
            # It waits for a function without lines: back over that.
            activation = self.activations.at(clock)
            call = activation and self._last(found.at(level, behind), [found.frame.pc], activation, watch)
            clock = call.clock if call else clock
        activation = self.activations.at(clock)
        if activation is None:
            return None
        line = self._line(found.frame.function, found.frame.pc)
        begins = None if line is None else clock
        return self._line_back(found.at(level, clock), "in", line, begins, activation, watch)

    def _caller(self, place: _Place, by_line: bool, activation: Activation, watch: Watch | None) -> Mark:
        """The call that entered a frame; with `by_line`, that in the next frame that has lines. The event, if a host called."""
        for above, frame in enumerate(place.outer, 1):
            if not by_line or self.sourced(frame.function):
                mark = self._call_in(place.at(place.level + above), activation, watch)
                if mark is not None:
                    return mark
        return self.machine.mark_of(activation.opening)

    def _call_in(self, place: _Place, activation: Activation, watch: Watch | None) -> Mark | None:
        """The call in which a frame stands: mostly near, else found from the front if it can be, else wherever it is."""
        pcs = [place.frame.pc]
        near = place.clock - _NEAR
        if near > activation.begin and not self.catches:
            chain = [*reversed(place.outer), place.frame]
            whole = len(place.frames) == place.depth or len(place.outer) < len(place.frames) - place.level - 1
            mark = self._last(place, pcs, replace(activation, begin=near), watch)
            if mark is None and whole:
                mark = self._once.call(chain, activation, place.clock, watch)
            if mark is not None:
                return mark
        return self._last(place, pcs, activation, watch)

    @cached_property
    def _once(self) -> OnceCalls:
        return OnceCalls(self)

    def _look(self, clock: int, watch: Watch | None) -> _Place:
        """The frames at a clock."""
        here = self.machine.look(Mark(clock), watch)
        here.close()
        return _Place.of(here)

    def _visits(self, place: _Place, pcs: list[int], deeper: int, activation: Activation, watch: Watch | None) -> Iterator[Hit]:
        """When these instructions were begun before a place, the last first; `depth` counts from its frame.

        Calls nested deeper than `deeper` are left out. The search goes back window by window, each longer than the one before:
        most steps are short.
        """
        heads = self.heads(pcs)
        top, depth = place.seen, sum(not frame.is_host for frame in place.frames[: place.level])
        """The end of the window, and how much deeper than the place calls are nested there."""
        for low in [activation.begin] if self.catches else _windows(activation.begin, place.seen):
            if low < top:
                moment = self.from_clock(low, watch)
                depth -= self._deepens(moment, top, watch)
            if low < place.clock:
                high = min(place.clock, top)
                while True:
                    message = {
                        "heads": heads, "depth": deeper - depth, "low": low, "high": high, "clock": high,
                        "keep": "last", "most": _VISITS,
                    }  # fmt: skip
                    raw = self.ask(self.from_clock(low, watch), message, watch)
                    for found in self._real(map(Hit.of, reversed(raw))):
                        if found.depth + depth <= deeper:
                            yield replace(found, depth=found.depth + depth)
                    if len(raw) < _VISITS:
                        break
                    high = raw[0][0]
            top = low

    def _deepens(self, moment: Moment, clock: int, watch: Watch | None) -> int:
        """How much deeper calls are nested at a clock than where a moment is."""
        there = moment.position
        if there["kind"] == "head" and clock < there["clock"] + there["count"]:
            moment.close()
            return 0
        self.ask(moment, {"heads": [], "depth": 1 << 30, "clock": clock, "keep": "last", "most": 1}, watch)
        return moment.depth


class Scope:
    """What a condition can see at one moment."""

    def __init__(self, here: Here, seq: int | None) -> None:
        self._here = here
        self._seq = seq

    @property
    def clock(self) -> int:
        return self._here.mark.clock

    @property
    def pc(self) -> int:
        if self._here.pc is None:
            raise LookupError("the guest does not run here")
        return self._here.pc

    @property
    def depth(self) -> int:
        return self._here.depth

    def local(self, index: int) -> int:
        frame = self._here.frame
        bits = None if frame is None else frame.local(index)
        if bits is None:
            raise LookupError(f"local {index}")
        return bits

    def global_(self, index: int) -> int:
        if index >= len(self._here.globals):
            raise LookupError(f"global {index}")
        return self._here.globals[index]

    def global_named(self, name: str) -> int:
        return self.global_(_global_named(self._here.machine, name))

    def memory(self, address: int, length: int) -> bytes:
        data = self._here.read(address, length)
        if len(data) != length:
            raise LookupError(f"memory at {address:#x}")
        return data

    def event(self) -> Any:
        """The event at this moment, with the fields of its row."""
        machine = self._here.machine
        seq = self._seq
        if seq is None:
            seq = self._here.events
            if seq >= machine.clocks.known or machine.mark_of(seq) != self._here.mark:
                return None
        from traces.render import Filter, events

        row = next(iter(events(machine.trace, Filter(first=seq, last=seq))))
        return SimpleNamespace(**{**row, "name": row["import"] or row["kind"]})

    def variable(self, name: str) -> Any:
        for frame in self._here.frames[:1]:
            for value in frame.variables:
                if value.name == name:
                    return SourceValue(value)
        source = self._here.machine.source
        if source is not None and self._here.frames:
            for variable in source.globals():
                if variable.name == name:
                    return SourceValue(source.read(variable, self._here.frames[0]))
        raise LookupError(name)


class _Clocked(Scope):
    """What a condition can see of a guest whose frames are not looked at."""

    def __init__(self, machine: TimeMachine, mark: Mark, pc: int, moment: Moment | None = None) -> None:
        self._machine = machine
        self._mark = mark
        self._pc = pc
        self._moment = moment

    @property
    def clock(self) -> int:
        return self._mark.clock

    @property
    def pc(self) -> int:
        return self._pc

    def global_(self, index: int) -> int:
        assert self._moment is not None
        found = self._moment.globals()
        if index >= len(found):
            raise LookupError(f"global {index}")
        return found[index]

    def global_named(self, name: str) -> int:
        return self.global_(_global_named(self._machine, name))

    def memory(self, address: int, length: int) -> bytes:
        assert self._moment is not None
        data = self._moment.memory(0, address, length)
        if len(data) != length:
            raise LookupError(f"memory at {address:#x}")
        return data


def _global_named(machine: TimeMachine, name: str) -> int:
    for export in machine.module.exports:
        if export.kind == "global" and export.name == name:
            return export.index
    raise LookupError(f"${name}")


class SourceValue:
    """A source variable, as conditions use it."""

    def __init__(self, value: Value) -> None:
        self._value = value

    def scalar(self) -> int | float | bytes:
        value = self._value
        if value.status != "ok":
            raise LookupError(f"{value.name} is {value.status}")
        word = value.text.split()[0] if value.text else ""
        for read in (lambda text: int(text, 0), float):
            try:
                return read(word)
            except ValueError:
                pass
        if value.raw is None:
            raise LookupError(f"{value.name} has no single value")
        if len(value.raw) > 16:
            return value.raw.split(b"\0")[0]
        return int.from_bytes(value.raw, "little")

    def member(self, name: str) -> SourceValue:
        return self._child(name)

    def index(self, i: int) -> SourceValue:
        return self._child(f"[{i}]")

    def deref(self) -> SourceValue:
        return self._child(f"*{self._value.name}")

    def _child(self, name: str) -> SourceValue:
        for child in self._value.children:
            if child.name == name:
                return SourceValue(child)
        if not name.startswith(("[", "*")):
            # `p->member`: one pointer further on.
            for child in self._value.children:
                if child.name.startswith("*"):
                    return SourceValue(child).member(name)
        raise LookupError(f"{self._value.name} has no {name}")


class _Walker:
    """A process of its own that is taken from one moment to the next: much cheaper than a new one for each, if in order."""

    def __init__(self, motion: Motion, watch: Watch | None) -> None:
        self._motion = motion
        self._watch = watch
        self._moment: Moment | None = None

    def at(self, clock: int) -> Moment:
        moment = self._moment
        if moment is None or moment.position["kind"] != "head" or clock <= moment.clock:
            self.close()
            moment = self._moment = self._motion.from_clock(clock, self._watch)
        else:
            moment.go(clock=clock, watch=self._watch)
            if moment.clock != clock:
                # A trap is in between.
                self.close()
                moment = self._moment = self._motion.from_clock(clock, self._watch)
        return moment

    def close(self) -> None:
        if self._moment is not None:
            self._moment.kill()
            self._moment = None


@dataclass(frozen=True)
class _Place:
    """A frame, and a clock up to which it is looked back at."""

    frames: list[Frame]
    """Of the guest and of hosts, innermost first, as they were seen."""
    seen: int
    """The clock at which they were."""
    depth: int
    """How many there were."""
    level: int
    """Which of them it is."""
    clock: int

    @classmethod
    def of(cls, here: Here) -> _Place:
        return cls(here.frames, here.mark.clock, here.depth, 0, here.mark.clock)

    def at(self, level: int, clock: int | None = None) -> _Place:
        return replace(self, level=level, clock=self.clock if clock is None else clock)

    @property
    def frame(self) -> Frame:
        return self.frames[self.level]

    @property
    def own_depth(self) -> int:
        """How many frames there are up to this one."""
        return self.depth - self.level

    @property
    def outer(self) -> list[Frame]:
        """The frames around it that belong to the same call from outside."""
        return list(takewhile(lambda frame: not frame.is_host, self.frames[self.level + 1 :]))


def _touches(hit: Hit, wanted: Watchpoint) -> bool:
    """Large writes are told in pieces, not all of which need to be of what is watched."""
    return wanted.global_ is not None or (
        hit.address < wanted.address + wanted.length and wanted.address < hit.address + len(hit.data)
    )


def _windows(low: int, high: int) -> Iterator[int]:
    """Where the stretches of an execution begin that are searched backward from `high` to `low`, each longer than the last."""
    size = _WINDOW
    while high > low:
        high = max(low, high - size)
        yield high
        size *= 16


def _endless(sizes: Sequence[int]) -> Iterator[int]:
    yield from sizes
    while True:
        yield sizes[-1]
