"""Moving: run to the next stop, step over, into and out of, one instruction on, and all of that backward.

Everything here is a question to a scan (`replayer.scans`): the guest runs once over the part of the execution in question, listened
to, and tells where it would have stopped. Forward, the first answer counts; backward, the last one before the present, looked for
from checkpoint to checkpoint towards the start. The arrival rules are GDB's:

- a breakpoint at the present position does not stop a motion that leaves it, in either direction;
- forward, a watchpoint stops behind the write; backward, before it;
- stepping backward arrives at the beginning of a line: of the present one if the guest is in the middle of it, of the one executed
  before it otherwise; out of a function backward arrives at the call.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final

from replayer.conditions import Condition
from replayer.look import Here
from replayer.marks import START, Mark
from replayer.stops import Breakpoint, Watchpoint, entry_of
from replayer.twin import HEAD_AFTER_CALL, HEAD_ENTRY
from replayer.worker import Cancelled, Moment, Watch
from traces._errors import UsageError
from traces.layout import NO_IMPORT, Kind, Status

if TYPE_CHECKING:
    from replayer.machine import TimeMachine
    from replayer.source.values import Value

STEPS: Final = ("in", "over", "out", "instruction")
_BATCHES: Final = (1, 8, 64, 512)
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

    # -- hits, forward and backward

    def hits(self, scan: dict[str, Any], low: int, high: int | None = None, watch: Watch | None = None) -> Iterator[Hit]:
        """What a scan finds at clocks in [low, high), in the order of execution, found as it is asked for."""
        if low >= self.machine.total:
            return
        seen: set[tuple[int, int, int]] = set()
        for batch in _endless(_BATCHES):
            moment = self.from_clock(low, watch)
            raw = self.ask(moment, {**scan, "low": low, "high": high, "clock": high, "keep": "first", "most": batch}, watch)
            for found in map(Hit.of, raw):
                key = (found.clock, found.event, found.pc)
                if key not in seen:
                    seen.add(key)
                    yield found
            if len(raw) < batch:
                return
            last = raw[-1][0]
            if last != low:
                seen = {key for key in seen if key[0] == last}
            low = last

    def hits_back(self, scan: dict[str, Any], low: int, high: int, watch: Watch | None = None) -> Iterator[Hit]:
        """The same in [low, high), the last one first."""
        machine = self.machine
        edges = [edge for edge in machine.checkpoints.between(low, high - 1)]
        edges = [low, *(edge for edge in edges if edge > low)]
        for edge in reversed(edges):
            seen: set[tuple[int, int, int]] = set()
            top = high
            for batch in _endless(_BATCHES):
                moment = self.from_clock(edge, watch)
                message = {**scan, "low": edge, "high": top, "clock": top, "keep": "last", "most": batch}
                raw = self.ask(moment, message, watch)
                fresh = []
                for found in reversed([Hit.of(one) for one in raw]):
                    key = (found.clock, found.event, found.pc)
                    if key not in seen:
                        seen.add(key)
                        fresh.append(found)
                yield from fresh
                if len(raw) < batch:
                    break
                # What happened at the earliest clock of the answer may not all have been told.
                top = raw[0][0] + 1
            high = edge

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
        """Instructions by the head of their stretch: what a scan wants to be told."""
        stretches = self.machine.twin.stretches
        grouped: dict[int, list[int]] = {}
        for pc in pcs:
            grouped.setdefault(stretches.pcs[stretches.at(pc)], []).append(pc)
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
        for hit in hits:
            arrival = Mark(hit.clock)
            if point.condition is None or self._holds(point.condition, arrival, None, watch):
                if skip == 0:
                    return Stop(arrival, point.text, arrival, hit.pc)
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
        numbers = range(present - 1, -1, -1) if reverse else range(present, known)
        for seq in numbers:
            kind, _, index = machine.job.header(seq)
            if kind is Kind.CALL and index in imports:
                at = machine.timeline.mark_of(seq)
                if at < mark if reverse else at > mark:
                    yield seq

    def _find_write(self, wanted: Watchpoint, mark: Mark, reverse: bool, watch: Watch | None) -> Stop | None:
        skip = wanted.skip
        for hit in self.writes_from(wanted, mark, reverse, watch):
            written = self.mark_of_hit(hit)
            arrival = written if reverse else self.mark_after_hit(hit)
            if wanted.changes_only and not self._changed(wanted, hit, written, watch):
                continue
            if wanted.condition is None or self._holds(wanted.condition, arrival, None, watch):
                if skip == 0:
                    event = None if hit.event < 0 else hit.event
                    pc = None if hit.pc < 0 else hit.pc
                    return Stop(arrival, wanted.text, written, pc, event, hit.address, hit.data, hit.memory)
                skip -= 1
        return None

    def writes_from(self, wanted: Watchpoint, mark: Mark, reverse: bool, watch: Watch | None = None) -> Iterator[Hit]:
        """Writes of what is watched: those to come from a mark on, or those before it, the last one first."""
        if wanted.global_ is not None:
            scan: dict[str, Any] = {"global": wanted.global_}
        else:
            scan = {"memory": [wanted.memory, wanted.address, wanted.address + wanted.length]}
        if reverse:
            hits = self.hits_back(scan, -1, mark.clock + (mark.step > 0), watch)
        else:
            hits = self.hits(scan, mark.clock, None, watch)
        for hit in hits:
            if mark.step and hit.clock == mark.clock and hit.event >= 0 and self._is_past(hit, mark) != reverse:
                continue
            yield hit

    def _is_past(self, hit: Hit, mark: Mark) -> bool:
        """Whether a host's write inside the instruction of a mark has happened there."""
        return hit.event < self.machine.timeline.events_before(mark)

    def mark_of_hit(self, hit: Hit) -> Mark:
        """Where something was done: the instruction, or the event."""
        return Mark(hit.clock) if hit.event < 0 else self.machine.mark_of(hit.event)

    def mark_after_hit(self, hit: Hit) -> Mark:
        return Mark(hit.clock + 1) if hit.event < 0 else self.machine.mark_after(hit.event)

    def _changed(self, wanted: Watchpoint, hit: Hit, written: Mark, watch: Watch | None) -> bool:
        here = self.machine.look(written, watch)
        try:
            if wanted.global_ is not None:
                old = here.globals[wanted.global_].to_bytes(16, "little")[: len(hit.data)]
                return old != hit.data
            return here.read(hit.address, len(hit.data), hit.memory) != hit.data
        finally:
            here.close()

    def _holds(self, condition: Condition, mark: Mark, seq: int | None, watch: Watch | None) -> bool:
        here = self.machine.look(mark, watch)
        try:
            return condition.holds(Scope(here, seq))
        finally:
            here.close()

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
        here = self.machine.here
        if how == "instruction" or (how == "in" and by == "instruction"):
            return self.machine.seek(self._next_instruction(here, reverse), watch)
        if not here.frames or here.frames[0].is_host:
            return self.machine.seek(self._next_instruction(here, reverse), watch)
        with_lines = by == "line" and here.frames[0].location is not None
        if reverse:
            mark = self._back(here, how, with_lines, watch)
        else:
            mark = self._ahead(here, how, with_lines, watch)
        return self.machine.seek(mark, watch)

    def _next_instruction(self, here: Here, reverse: bool) -> Mark:
        mark = here.mark
        if not reverse:
            following = Mark(mark.clock + 1)
            return following if mark.clock + 1 < self.machine.total else self.machine.end
        if mark.step:
            return Mark(mark.clock)
        return Mark(mark.clock - 1)  # -1 is the start

    # forward

    def _ahead(self, here: Here, how: str, with_lines: bool, watch: Watch | None) -> Mark:
        stretches = self.machine.twin.stretches
        frame = here.frames[0]
        own = self._lines_away(frame.function, frame.pc) if with_lines else []
        if not with_lines and how != "out":
            following = self._after_this(here)
            if following is not None:
                return following
        returns = [pc for pc, head in zip(stretches.pcs, stretches.heads, strict=True) if head & HEAD_AFTER_CALL]
        entries: dict[int, int] = {}
        if how == "in" and with_lines:
            entries = self._sourced_entries()
        pcs = dict.fromkeys([*returns, *(own if how != "out" else ()), *entries])
        own_pcs = set(own)
        here_after = self._return_of(frame.pc) if not with_lines and how == "over" else None
        limit = 1 if entries else 0
        scan: dict[str, Any] = {"heads": self.heads(pcs), "depth": limit, "event": self._bound(here.mark)}
        for hit in self.hits_once(scan, here.mark, watch):
            if hit.depth < 0:
                return Mark(hit.clock)
            if hit.pc in entries and hit.depth == 1:
                return self._behind_prologue(hit, entries[hit.pc], watch)
            if hit.depth == 0 and how != "out" and (hit.pc in own_pcs or hit.pc == here_after):
                return Mark(hit.clock)
        return self._behind(scan["event"])

    def hits_once(self, scan: dict[str, Any], mark: Mark, watch: Watch | None) -> Iterator[Hit]:
        """What a scan that follows calls finds behind a mark: it has to begin exactly here, since depth counts from here."""
        seen: set[tuple[int, int]] = set()
        for batch in _endless(_BATCHES):
            moment = self.from_clock(mark.clock, watch)
            message = {**scan, "low": mark.clock + 1, "clock": None, "keep": "first", "most": len(seen) + batch}
            raw = self.ask(moment, message, watch)
            for found in map(Hit.of, raw):
                if (found.clock, found.pc) not in seen:
                    seen.add((found.clock, found.pc))
                    yield found
            if len(raw) < message["most"]:
                return

    def _after_this(self, here: Here) -> Mark | None:
        """Where one instruction, with all that it calls, comes to; None if it calls."""
        frame = here.frames[0]
        stretch = self.machine.details.stretch_of(frame.pc)
        if stretch[-1].at - self.machine.details.code_start == frame.pc and self._return_of(frame.pc) is not None:
            return None
        return self._next_instruction(here, False)

    def _return_of(self, pc: int) -> int | None:
        """The head behind the call at `pc`; None if that is not a call."""
        stretches = self.machine.twin.stretches
        index = stretches.at(pc)
        if index + 1 < len(stretches.pcs) and stretches.heads[index + 1] & HEAD_AFTER_CALL:
            last = self.machine.details.stretch_of(pc)[-1]
            if last.at - self.machine.details.code_start == pc:
                return int(stretches.pcs[index + 1])
        return None

    def _lines_away(self, function: int, pc: int) -> list[int]:
        """The instructions of a function with which another line than that of `pc` is entered, one for each stretch."""
        source = self.machine.source
        assert source is not None
        ranges = source.ranges_of_line(pc)
        found = []
        stretch = -1
        for step in self.machine.details.of(function).steps:
            at = step.at - self.machine.details.code_start
            if step.stretch == stretch or any(low <= at < high for low, high in ranges) or source.location(at) is None:
                continue
            stretch = step.stretch
            found.append(at)
        return found

    def _sourced_entries(self) -> dict[int, int]:
        """First instructions of functions that have source lines, with the instruction behind their prologue."""
        machine = self.machine
        source = machine.source
        assert source is not None
        found = {}
        stretches = machine.twin.stretches
        for pc, head in zip(stretches.pcs, stretches.heads, strict=True):
            if head & HEAD_ENTRY:
                known = source.function(pc)
                if known is not None and (source.location(pc) or source.prologue_end(known)) is not None:
                    found[pc] = entry_of(machine, machine.details.function_at(pc)) or pc
        return found

    def _behind_prologue(self, hit: Hit, pc: int, watch: Watch | None) -> Mark:
        if pc == hit.pc:
            return Mark(hit.clock)
        for found in self.hits({"heads": self.heads([pc])}, hit.clock, None, watch):
            return Mark(found.clock)
        return Mark(hit.clock)

    def _bound(self, mark: Mark) -> int | None:
        """The event behind the call, from outside, in which the guest is at a mark; None if it is the last."""
        closing = self._activation(mark)
        return None if closing is None or closing + 1 >= self.machine.events else closing + 1

    def _activation(self, mark: Mark) -> int | None:
        """The record with which the call from outside that is under way at a mark ends."""
        machine = self.machine
        machine.know()
        seq = machine.timeline.events_before(mark)
        if seq < machine.clocks.known:
            kind, status, _ = machine.job.header(seq)
            if kind in (Kind.EXPORT, Kind.CALLBACK) and status is Status.COMPLETE and machine.timeline.mark_of(seq) <= mark:
                return seq
        level = 0
        for earlier in range(seq - 1, -1, -1):
            kind, status, index = machine.job.header(earlier)
            if kind is Kind.RETURN and index == NO_IMPORT:
                level += 1
            elif kind in (Kind.EXPORT, Kind.CALLBACK) and status is Status.OPEN:
                if level == 0:
                    return machine.closing(earlier)
                level -= 1
            elif kind in (Kind.TRAP, Kind.EXIT, Kind.STOP):
                return None
        return None

    def _behind(self, event: int | None) -> Mark:
        return self.machine.end if event is None else self.machine.mark_of(event)

    # backward

    def _back(self, here: Here, how: str, with_lines: bool, watch: Watch | None) -> Mark:
        frame = here.frames[0]
        machine = self.machine
        if not with_lines and how != "out":
            # The instruction before; over a call that has just returned, that call.
            return self._call_returned(here, watch) or self._next_instruction(here, True)
        if how == "out":
            entry = self._entry(here, watch)
            return START if entry is None else self._caller(entry)
        source = machine.source
        assert source is not None
        code_start = machine.details.code_start
        wanted = self._line_heads(None if how == "in" else frame.function)
        visits: list[tuple[int, tuple[str, int] | None, int, int]] = []
        for hit in self._visits_back(here, wanted, how, watch):
            detail = machine.details.of(machine.details.function_at(hit.pc))
            index = detail.by_pc[hit.pc]
            location = source.location(detail.steps[index].at - code_start)
            line = None if location is None else (location.file, location.line)
            if (visits and visits[-1][1] != line) or (visits and visits[-1][2] != hit.depth):
                found = self._line_begins(visits, here.mark)
                if found is not None:
                    return found
            visits.append((hit.clock, line, hit.depth, hit.pc))
            if how != "in" and hit.depth == 0 and machine.twin.stretches.heads[machine.twin.stretches.at(hit.pc)] & HEAD_ENTRY:
                begins = self._line_begins(visits, here.mark)
                return begins if begins is not None else self._caller(hit)
        begins = self._line_begins(visits, here.mark)
        return START if begins is None else begins

    @staticmethod
    def _line_begins(visits: list[tuple[int, tuple[str, int] | None, int, int]], mark: Mark) -> Mark | None:
        """Where the earliest run of visits of one line begins, if that is before the mark and really a line."""
        if not visits or visits[-1][1] is None:
            return None
        clock, line, depth, _ = visits[-1]
        return Mark(clock) if clock < mark.clock or (clock == mark.clock and mark.step) else None

    def _caller(self, entry: Hit) -> Mark:
        """The call that entered a function; where a host called, the event."""
        machine = self.machine
        seq = machine.timeline.events_before(Mark(entry.clock))
        if seq:
            kind, _, _ = machine.job.header(seq - 1)
            if kind in (Kind.EXPORT, Kind.CALLBACK) and machine.clocks[seq - 1] == entry.clock:
                return machine.timeline.mark_of(seq - 1)
        if seq < machine.clocks.known:
            kind, status, _ = machine.job.header(seq)
            if kind in (Kind.EXPORT, Kind.CALLBACK) and machine.timeline.mark_of(seq).clock == entry.clock - 1:
                return machine.timeline.mark_of(seq)
        return Mark(entry.clock - 1)

    def _depth_at(self, moment: Moment, mark: Mark, watch: Watch | None) -> int:
        """How much deeper calls are nested at a mark than where a moment is."""
        self.ask(moment, {"heads": [], "depth": 1 << 30, "clock": mark.clock, "keep": "last", "most": 1}, watch)
        return moment.depth

    def _visits_back(self, here: Here, pcs: list[int], how: str, watch: Watch | None) -> Iterator[Hit]:
        """Visits of these instructions before a mark, the last first; `depth` counts from the present frame.

        Deeper ones only if `how` is "in"; the frames of other calls of this function are left out.
        """
        machine = self.machine
        mark = here.mark
        high = mark.clock + (mark.step > 0)
        edges = [-1, *machine.checkpoints.between(0, high - 1)]
        # Most steps back are short: a moment close by saves most of the interval.
        near = [moment.clock for moment in machine.checkpoints.all() if 0 <= moment.clock < high]
        edges = sorted({*edges, *near})
        deeper = (1 << 30) if how == "in" else 0
        top = high
        heads = self.heads(pcs)
        for edge in reversed(edges):
            base = self._depth_at(self.from_clock(edge, watch), mark, watch)
            limit = min(1 << 30, base + deeper)
            while True:
                message = {
                    "heads": heads, "depth": limit, "low": edge, "high": top, "clock": top, "keep": "last", "most": _VISITS,
                }  # fmt: skip
                raw = self.ask(self.from_clock(edge, watch), message, watch)
                for found in reversed([Hit.of(one) for one in raw]):
                    depth = found.depth - base
                    if how == "in" or depth == 0:
                        yield Hit(found.clock, found.pc, found.kind, -1, 0, 0, b"", depth)
                if len(raw) < _VISITS:
                    break
                top = raw[0][0]
            top = edge
            if top < 0:
                return

    def _entry(self, here: Here, watch: Watch | None) -> Hit | None:
        """Where the present frame was entered."""
        frame = here.frames[0]
        first = self._first_pc(frame.function)
        if first is None:
            return None
        high = here.mark.clock + (here.mark.step > 0)
        if frame.pc == first and not here.mark.step:
            return Hit(here.mark.clock, first, "head", -1, 0, 0, b"", 0)
        for hit in self._visits_back(here, [first], "over", watch):
            if hit.clock < high:
                return hit
        return None

    def _first_pc(self, function: int) -> int | None:
        steps = self.machine.details.of(function).steps
        return steps[0].at - self.machine.details.code_start if steps else None

    def _line_heads(self, function: int | None) -> list[int]:
        """Instructions that tell which line the guest is in: the first of every line in every stretch."""
        machine = self.machine
        source = machine.source
        assert source is not None
        if function is not None:
            functions = [function]
        else:
            entries = self._sourced_entries()
            functions = sorted({machine.details.function_at(pc) for pc in entries})
        found = []
        for index in functions:
            last: tuple[int, Any] | None = None
            for position, step in enumerate(machine.details.of(index).steps):
                at = step.at - machine.details.code_start
                location = source.location(at)
                key = (step.stretch, None if location is None else (location.file, location.line))
                if position == 0 or (key != last and location is not None):
                    found.append(at)
                if location is not None or position == 0:
                    last = key
        return found

    def _call_returned(self, here: Here, watch: Watch | None) -> Mark | None:
        """The call behind which the guest stands, if it stands right behind one."""
        stretches = self.machine.twin.stretches
        pc = here.frames[0].pc
        index = stretches.at(pc)
        head = stretches.pcs[index]
        if pc != head or not stretches.heads[index] & HEAD_AFTER_CALL or index == 0 or here.mark.step:
            return None
        calls = self.machine.details.stretch_of(stretches.pcs[index - 1])
        if not calls:
            return None
        call = calls[-1].at - self.machine.details.code_start
        for hit in self._visits_back(here, [call], "over", watch):
            return Mark(hit.clock)
        return None


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
        for export in self._here.machine.module.exports:
            if export.kind == "global" and export.name == name:
                return self._here.globals[export.index]
        raise LookupError(f"${name}")

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


def _endless(sizes: Sequence[int]) -> Iterator[int]:
    yield from sizes
    while True:
        yield sizes[-1]
