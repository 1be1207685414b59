"""The time machine behind the inspector: asked from the event loop, working in a thread of its own.

The machine is synchronous, and a journey may take as long as the recording did. So whoever wants something posts a request and
goes on; answers are told as reports, from the worker's thread. What has become pointless is dropped: of several seeks only the
newest counts, and it ends what runs. Motions are cancelled between two signs of life of the guest. When a process of the machine
dies, that is told, the machine is opened anew and goes back to where it was.

The recording may be hostile; what is taken from it was escaped where it was made, or is here.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from inspector.snapshot import (
    CodeLine,
    CodeText,
    Facts,
    FrameDetail,
    FrameHead,
    Pages,
    Snapshot,
    SourceText,
    StopPoint,
    ValueRow,
)
from replayer.marks import Mark
from replayer.worker import Cancelled, WorkerDied
from traces._errors import RepriseError, UsageError
from traces.cli import debugging, one_line

if TYPE_CHECKING:
    from replayer.look import Frame, Here
    from replayer.machine import TimeMachine
    from replayer.source.values import Value

DENSITY: Final = 2048
"""Parts of the execution whose events are counted."""
TELL_EVERY: Final = 0.1
"""Seconds between two reports of progress."""
_CHUNK: Final = 1 << 20
_SHOWN: Final = 200
_MOST_VALUES: Final = 2000


# -- what can be asked ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Seek:
    """Go to a mark. Only the newest one counts."""

    mark: str
    frame: int = 0


@dataclass(frozen=True)
class Step:
    how: str
    reverse: bool = False
    by: str = "line"


@dataclass(frozen=True)
class Run:
    """Continue to the next break- or watchpoint, or to the end."""

    reverse: bool = False


@dataclass(frozen=True)
class RunToPlace:
    """Run to a place in the code, written as a breakpoint."""

    place: str
    reverse: bool = False


@dataclass(frozen=True)
class LastChange:
    """Go to the last write of these bytes before here."""

    memory: int
    address: int
    length: int


@dataclass(frozen=True)
class WhoWrote:
    """Tell of that write, without going there."""

    memory: int
    address: int
    length: int


@dataclass(frozen=True)
class ShowFrame:
    """Show another frame of this moment."""

    level: int


@dataclass(frozen=True)
class Expand:
    """Show what a value is made of, or no longer."""

    path: tuple[str, ...]


@dataclass(frozen=True)
class ReadMemory:
    memory: int
    address: int
    length: int


@dataclass(frozen=True)
class FindBytes:
    needle: bytes
    memory: int
    start: int
    """The first address to look at; backward, the first behind those to look at."""
    reverse: bool = False


@dataclass(frozen=True)
class AddStop:
    point: StopPoint


@dataclass(frozen=True)
class Locate:
    """Tell at which marks these events happen."""

    events: tuple[int, ...]


Request = Seek | Step | Run | RunToPlace | LastChange | WhoWrote | ShowFrame | Expand | ReadMemory | FindBytes | AddStop | Locate
_MOTIONS: Final = (Seek, Step, Run, RunToPlace, LastChange, WhoWrote, FindBytes)


# -- what is told --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Opened:
    facts: Facts


@dataclass(frozen=True)
class Refused:
    """There is no machine for this recording; its tables can be read all the same."""

    why: str


@dataclass(frozen=True)
class Progress:
    """Something takes a while. `what` "" says that it is over."""

    what: str
    clock: int = 0
    events: int = 0


@dataclass(frozen=True)
class Arrived:
    snapshot: Snapshot
    reason: str = ""
    """What stopped the motion, if it is worth telling."""
    range: tuple[int, int, int] | None = None
    """The bytes it was about."""
    kind: str = ""
    """Of visit; see `focus.Visits`."""
    asked: str | None = None
    """The mark that was asked for; None after a motion, which finds its own."""


@dataclass(frozen=True)
class Detailed:
    """Another frame of the same moment, or the same one with something expanded."""

    mark: Mark
    detail: FrameDetail


@dataclass(frozen=True)
class PagesRead:
    pages: Pages


@dataclass(frozen=True)
class Found:
    """Bytes that were looked for."""

    memory: int
    address: int
    length: int


@dataclass(frozen=True)
class Answer:
    """Text to read, and a mark to go to."""

    title: str
    lines: tuple[str, ...]
    mark: str | None


@dataclass(frozen=True)
class Said:
    """One line for the user."""

    text: str
    severity: str = "information"
    """information, warning or error"""


@dataclass(frozen=True)
class StopsChanged:
    points: tuple[StopPoint, ...]


@dataclass(frozen=True)
class Located:
    clocks: tuple[tuple[int, int], ...]
    """(event, instruction), of the events that were reached."""


Report = Opened | Refused | Progress | Arrived | Detailed | PagesRead | Found | Answer | Said | StopsChanged | Located


class Session:
    """One recording's machine, at work.

    Args:
        tell: given each report, in the worker's thread.
        search, remap: where sources are; see TimeMachine.
        start: where to go first; None goes where the replay diverged, if it did, and else stays at the start.
        make: opens the machine; tests put another one in its place.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        tell: Callable[[Report], None],
        *,
        search: Sequence[Path] = (),
        remap: Sequence[tuple[str, str]] = (),
        make: Callable[[], TimeMachine] | None = None,
    ) -> None:
        self.path = Path(path)
        self._tell_report = tell
        self._search, self._remap = list(search), list(remap)
        self._make = make if make is not None else self._open_machine
        self._queue: deque[Request] = deque()
        self._wake = threading.Condition()
        self._running: Request | None = None
        self._cancelled = False
        self._closing = False
        self._machine: TimeMachine | None = None
        self._mark: Mark | None = None
        """Where the machine was last, to come back to after an accident."""
        self._level = 0
        self._before: Mark | None = None
        self._old: Here | None = None
        """The guest at the stop before, for comparing bytes; looked at when first needed."""
        self._values: dict[tuple[str, ...], str] = {}
        """Values shown at this stop, by function and path."""
        self._previous: dict[tuple[str, ...], str] = {}
        """Those of the stop before."""
        self.expanded: set[tuple[str, ...]] = set()
        self._points: tuple[StopPoint, ...] = ()
        self._texts: dict[int, tuple[CodeLine, ...]] = {}
        self._told = 0.0
        self._doing = ""
        self._thread = threading.Thread(target=self._work, name="reprise-inspector", daemon=True)

    # -- from the event loop

    def start(self) -> None:
        self._thread.start()

    def post(self, request: Request) -> None:
        """Asks for something."""
        with self._wake:
            if isinstance(request, Seek):
                self._queue = deque(one for one in self._queue if not isinstance(one, Seek))
                if isinstance(self._running, _MOTIONS):
                    self._cancelled = True
            elif isinstance(request, ReadMemory):
                self._queue = deque(one for one in self._queue if not isinstance(one, ReadMemory))
            self._queue.append(request)
            self._wake.notify()

    def cancel(self) -> bool:
        """Ends what runs, and forgets what waits behind it; says whether there was anything."""
        with self._wake:
            waiting = [one for one in self._queue if isinstance(one, _MOTIONS)]
            self._queue = deque(one for one in self._queue if not isinstance(one, _MOTIONS))
            if isinstance(self._running, _MOTIONS):
                self._cancelled = True
                return True
            return bool(waiting)

    @property
    def points(self) -> tuple[StopPoint, ...]:
        return self._points

    def set_points(self, points: Sequence[StopPoint]) -> None:
        """Which break- and watchpoints there are from now on. Each was added once, so each can be resolved."""
        self._points = tuple(points)
        self._tell(StopsChanged(self._points))

    def close(self, timeout: float = 2.0) -> None:
        """Lets the machine go."""
        with self._wake:
            self._closing = self._cancelled = True
            self._queue.clear()
            self._wake.notify()
        if not self._thread.is_alive():
            return
        self._thread.join(timeout)
        machine = self._machine
        if self._thread.is_alive() and machine is not None:
            # It hears nothing of the guest, and so not of us: without its processes it will.
            with contextlib.suppress(Exception):
                machine.close()
            self._thread.join(timeout)

    # -- in the worker's thread

    def _tell(self, report: Report) -> None:
        if not self._closing:
            self._tell_report(report)

    def _watch(self, clock: int, events: int) -> None:
        """Given to every motion: told where the guest is, ends it if nobody wants it any more."""
        if self._cancelled:
            raise Cancelled
        now = time.monotonic()
        if now - self._told > TELL_EVERY:
            self._told = now
            self._tell(Progress(self._doing, clock, events))

    def _work(self) -> None:
        try:
            if self._open():
                self._serve()
        finally:
            self._let_go()

    def _let_go(self) -> None:
        """Closes the machine, and what was looked at beside it."""
        old, machine = self._old, self._machine
        self._old = self._machine = None
        for one in (old, machine):
            if one is not None:
                with contextlib.suppress(Exception):
                    one.close()

    def _serve(self) -> None:
        while True:
            with self._wake:
                while not self._queue and not self._closing:
                    self._wake.wait()
                if self._closing:
                    return
                request = self._running = self._queue.popleft()
                self._cancelled = False
                self._told = time.monotonic()
                self._doing = _doing(request)
            try:
                self._do(request)
            except Cancelled:
                if not any(isinstance(one, Seek) for one in self._queue):
                    self._tell(Said("cancelled"))
            except WorkerDied as error:
                self._revive(str(error))
            except RepriseError as error:
                self._tell(Said(one_line(str(error)), "warning"))
            except Exception as error:
                if debugging():
                    raise
                self._revive(f"unexpected {type(error).__name__}: {error}")
            finally:
                with self._wake:
                    self._running = None
                    idle = not self._queue
                if idle:
                    self._tell(Progress(""))

    def _open_machine(self) -> TimeMachine:
        from replayer.machine import TimeMachine

        return TimeMachine(self.path, remap=self._remap, search=self._search)

    def _open(self) -> bool:
        """Opens the machine and proves it. Says why not, if not."""
        self._doing = "replaying"
        try:
            machine = self._machine = self._make()
            if self._closing:
                machine.close()
                return False
            machine.require_proof(self._watch)
            has_source = machine.open_source()
            verdict = machine.verdict()
            kind = str(verdict["verdict"])
            diverged = machine.clocks.known if kind == "diverged" else None
            facts = Facts(
                machine.total, machine.events, machine.clocks.known, kind, one_line(str(verdict.get("reason") or "")), diverged,
                len(machine.module.memories), has_source, tuple(map(one_line, machine.notes)), self._density(machine),
            )  # fmt: skip
        except Cancelled:
            return False
        except Exception as error:
            self._let_go()
            if not isinstance(error, RepriseError) and debugging():
                raise
            what = "" if isinstance(error, RepriseError) else f"unexpected {type(error).__name__}: "
            self._tell(Refused(one_line(what + str(error))))
            return False
        self._tell(Opened(facts))
        return True

    def _density(self, machine: TimeMachine) -> tuple[int, ...]:
        """How many events happened in each part of the execution."""
        counts = [0] * DENSITY
        width = max(1, -(-machine.total // DENSITY))
        known = machine.clocks.known
        for first in range(0, known, 1 << 16):
            clocks = pa.array(machine.job.mark_clocks(first, min(1 << 16, known - first)), pa.uint64())
            parts = pc.min_element_wise(pc.divide(clocks, width), pa.scalar(DENSITY - 1, pa.uint64()))
            for found in pc.value_counts(parts).to_pylist():
                counts[found["values"]] += found["counts"]
        return tuple(counts[: max(1, -(-machine.total // width))])

    def _revive(self, why: str) -> None:
        """The machine is in no state to go on with: opens another at the same place."""
        if self._closing:
            return
        self._tell(Said(f"{one_line(why)}; opening the recording again", "warning"))
        self._let_go()
        self._before = None
        if self._open() and self._mark is not None:
            try:
                self._arrive(self.machine.seek(self._mark), asked=str(self._mark))
                self._tell(Said("the time machine was restarted; it is where it was"))
            except Exception as error:
                self._tell(Said(f"the time machine could not be restarted: {one_line(str(error))}", "error"))

    @property
    def machine(self) -> TimeMachine:
        assert self._machine is not None
        return self._machine

    def _do(self, request: Request) -> None:
        machine = self.machine
        match request:
            case Seek(mark, frame):
                self._level = frame
                self._arrive(machine.seek(mark, self._watch), asked=mark)
            case Step(how, reverse, by):
                before = machine.here.mark
                here = machine.motion.step(how, reverse=reverse, by=by, watch=self._watch)
                self._arrive(here, "" if here.mark != before else "the end" if not reverse else "the start", kind="step")
            case Run(reverse):
                breaks, watches = self._resolved()
                here, stop = machine.motion.run(breaks, watches, reverse=reverse, watch=self._watch)
                wrote = (stop.memory, stop.address, max(1, len(stop.new))) if stop.address is not None else None
                self._arrive(here, stop.reason, wrote)
            case RunToPlace(place, reverse):
                point = self._resolve(StopPoint(place, False))
                self._arrive(machine.motion.run_to(point, reverse=reverse, watch=self._watch), place)
            case LastChange(memory, address, length):
                write = machine.history.last_write(address, length, memory=memory, watch=self._watch)
                if write is None:
                    raise UsageError(f"nothing wrote {address:#x}:{length} before here")
                by = {"host": f"the host, in event {write.event}", "module": "the module's own data"}.get(
                    write.by, write.function
                )
                reason = f"{address:#x}:{length} was last written here, by {one_line(by)}"
                self._arrive(machine.seek(write.mark, self._watch), reason, (memory, address, length))
            case WhoWrote(memory, address, length):
                self._tell(self._who_wrote(memory, address, length))
            case ShowFrame(level):
                self._level = level
                self._tell(Detailed(machine.here.mark, self._detail(machine.here, level)))
            case Expand(path):
                self.expanded.symmetric_difference_update((path,))
                self._tell(Detailed(machine.here.mark, self._detail(machine.here, self._level)))
            case ReadMemory(memory, address, length):
                data = machine.here.read(address, length, memory)
                self._tell(PagesRead(Pages(machine.here.mark, memory, address, data, self._old_bytes(memory, address, length))))
            case FindBytes():
                self._find(request)
            case Locate(events):
                reached = [seq for seq in events if seq < machine.clocks.known]
                self._tell(Located(tuple((seq, machine.mark_of(seq).clock) for seq in reached)))
            case AddStop(point):
                self._resolve(point)
                if not any(other.describe() == point.describe() for other in self._points):
                    self.set_points([*self._points, point])
                self._tell(Said(f"{point.describe()}: set"))

    # -- stops

    def _resolve(self, point: StopPoint) -> Any:
        from replayer.stops import breakpoint_at, watchpoint_at

        if point.watches:
            return watchpoint_at(self.machine, point.text, point.condition)
        return breakpoint_at(self.machine, point.text, point.condition)

    def _resolved(self) -> tuple[list[Any], list[Any]]:
        enabled = [point for point in self._points if point.enabled]
        return (
            [self._resolve(point) for point in enabled if not point.watches],
            [self._resolve(point) for point in enabled if point.watches],
        )

    # -- answers

    def _who_wrote(self, memory: int, address: int, length: int) -> Answer:
        from replayer.looking import write_lines

        write = self.machine.history.last_write(address, length, memory=memory, watch=self._watch)
        title = f"who wrote {address:#x}:{length}"
        if write is None:
            return Answer(title, ("nothing wrote these bytes before here",), None)
        return Answer(title, tuple(_safe(line) for line in write_lines(self.machine, write)), str(write.mark))

    def _find(self, wanted: FindBytes) -> None:
        here = self.machine.here
        size = here.memory_sizes[wanted.memory]
        step, overlap = _CHUNK, len(wanted.needle) - 1
        starts = range(wanted.start, size, step) if not wanted.reverse else range(max(0, wanted.start - step), -step, -step)
        for start in starts:
            self._watch(here.mark.clock, here.events)
            first = max(0, start)
            end = min(size, start + step + overlap)
            if wanted.reverse:
                end = min(end, wanted.start + overlap)
            data = here.read(first, end - first, wanted.memory)
            at = data.rfind(wanted.needle) if wanted.reverse else data.find(wanted.needle)
            if at >= 0:
                self._tell(Found(wanted.memory, first + at, len(wanted.needle)))
                return
        side = "before" if wanted.reverse else "from"
        raise UsageError(f"not found {side} {wanted.start:#x}")

    def _old_bytes(self, memory: int, address: int, length: int) -> bytes | None:
        if self._before is None:
            return None
        if self._old is None:
            self._old = self.machine.look(self._before, self._watch)
        return self._old.read(address, length, memory)

    # -- arriving

    def _arrive(
        self, here: Here, reason: str = "", range: tuple[int, int, int] | None = None, kind: str = "", asked: str | None = None
    ) -> None:
        if asked is None:
            self._level = 0
        if here.mark != self._mark:
            self._before, self._mark = self._mark, here.mark
            self._previous = self._values or self._previous
            self._values = {}
            if self._old is not None:
                self._old.close()
                self._old = None
        self._tell(Arrived(self._snapshot(here), reason, range, kind, asked))

    def _snapshot(self, here: Here) -> Snapshot:
        machine = self.machine
        event = None
        if here.events < machine.clocks.known and machine.mark_of(here.events) == here.mark:
            event = here.events
        heads = tuple(_head(frame) for frame in here.frames)
        self._level = min(self._level, max(0, len(heads) - 1))
        return Snapshot(
            here.mark, here.events, event, heads, here.depth, self._globals(here), tuple(here.memory_sizes), here.at_end,
            self._detail(here, self._level) if heads else None, self._before,
        )  # fmt: skip

    def _globals(self, here: Here) -> tuple[ValueRow, ...]:
        from replayer.looking import value_text

        kinds = [found.value for found in here.machine.module.globals]
        return tuple(
            self._row(("global",), f"global {i}", kinds[i], value_text(kinds[i], bits)) for i, bits in enumerate(here.globals)
        )

    def _detail(self, here: Here, level: int) -> FrameDetail:
        level = min(level, len(here.frames) - 1)
        if level < 0:
            return FrameDetail(0, (), None, "", None)
        frame = here.frames[level]
        source, missing = self._source(frame)
        return FrameDetail(level, tuple(self._frame_values(frame)), source, missing, self._code(frame))

    def _source(self, frame: Frame) -> tuple[SourceText | None, str]:
        location, known = frame.location, self.machine.source
        if location is None or known is None:
            return None, ""
        lines = known.text(location.file)
        if lines is None:
            return None, one_line(location.file)
        return SourceText(one_line(location.file), location.line, lines, known.text_is_current(location.file)), ""

    def _code(self, frame: Frame) -> CodeText | None:
        if frame.is_host:
            return None
        lines = self._texts.get(frame.function)
        if lines is None:
            from recorder.wasm.disassembly import disassemble

            lines = tuple(CodeLine(line.pc, line.depth, line.text) for line in disassemble(self.machine.module, frame.function))
            self._texts[frame.function] = lines
        return CodeText(frame.function, one_line(frame.name), frame.pc, lines)

    def _frame_values(self, frame: Frame) -> list[ValueRow]:
        """Variables, opened as far as they are wanted open; without any, what the module itself has."""
        from replayer.looking import local_text

        scope = (one_line(frame.name),)
        rows: list[ValueRow] = []
        seen: set[str] = set()
        for value in frame.variables:
            if value.name not in seen:  # the innermost of that name hides the others
                seen.add(value.name)
                self._add_value(rows, scope, value)
        if not frame.variables:
            for i in range(min(len(frame.locals), _SHOWN)):
                kind = frame.types[i] if i < len(frame.types) else ""
                rows.append(self._row(scope, f"local {i}", kind, local_text(frame, i)))
        if frame.level == 0:
            for i, bits in enumerate(frame.operands[:_SHOWN]):
                text = "?" if bits is None else f"{bits:#x}"
                row = self._row(scope, f"operand {i}", "", text)
                rows.append(replace(row, was=None))
        return rows

    def _add_value(self, rows: list[ValueRow], above: tuple[str, ...], value: Value) -> None:
        if len(rows) >= _MOST_VALUES:
            return
        path = (*above, one_line(value.name))
        row = self._row(above, path[-1], one_line(value.type_name), one_line(value.text))
        pointer = value.type_name.rstrip().endswith(("*", "&")) or value.type_name.startswith(("&", "*"))
        target = int.from_bytes(value.raw, "little") if pointer and value.raw is not None and len(value.raw) <= 8 else None
        length = len(value.raw) if value.raw is not None else 1
        row = replace(
            row, address=value.address, length=max(1, length), target=target, expandable=value.expand is not None,
            expanded=path in self.expanded and value.expand is not None, available=value.status == "ok",
        )  # fmt: skip
        rows.append(row)
        if row.expanded:
            children = value.children
            # Behind a pointer lies one thing: its members are shown at once.
            if len(children) == 1 and children[0].expand is not None and children[0].name.startswith("*"):
                children = children[0].children
            for child in children:
                self._add_value(rows, path, child)

    def _row(self, above: tuple[str, ...], name: str, type_name: str, text: str) -> ValueRow:
        """A row, with what the value was at the stop before."""
        path = (*above, name)
        self._values[path] = text
        old = self._previous.get(path)
        return ValueRow(path, name, type_name, text, old if old != text else None, None, 1, None, False, False)


def _head(frame: Frame) -> FrameHead:
    where = frame.location
    return FrameHead(
        frame.level, one_line(frame.name), "" if where is None else one_line(where.file), 0 if where is None else where.line,
        frame.pc, frame.function, tuple(one_line(call.name) for call in frame.inlined),
    )  # fmt: skip


def _doing(request: Request) -> str:
    match request:
        case Step(_, True, _) | Run(True) | LastChange() | WhoWrote():
            return "searching backward"
        case Step() | Run() | RunToPlace():
            return "running"
        case Seek(mark):
            return f"going to {mark}"
        case FindBytes():
            return "searching memory"
    return ""


def _safe(line: str) -> str:
    return line[: len(line) - len(line.lstrip(" "))] + one_line(line)
