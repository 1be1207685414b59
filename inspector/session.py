"""The time machine behind the inspector: asked from the event loop, working in a thread of its own.

The machine is synchronous, and a journey may take as long as the recording did. So whoever wants something posts a request and
goes on; answers are told as reports, from the worker's thread. What has become pointless is dropped: of several seeks only the
newest counts, and it ends what runs. Motions are cancelled between two signs of life of the guest, and between two signs of life
those who only want to look at where the guest was are served: memory can be read while a long motion runs. When a process of
the machine dies, that is told, the machine is opened anew and goes back to where it was.

The recording may be hostile; what is taken from it was escaped where it was made, or is in `capture`.
"""

from __future__ import annotations

import bisect
import contextlib
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from inspector.capture import Capture, safe
from inspector.divergence import Divergence, read_divergence
from inspector.events.spans import clocks_of, counts
from inspector.memory.addresses import Addresses
from inspector.memory.labels import read_labels
from inspector.memory.search import Pattern, find, next_change
from inspector.protocol import (
    LOOKS,
    MOTIONS,
    AddStop,
    Answer,
    Arrived,
    Compare,
    Counted,
    CountEvents,
    Detailed,
    Expand,
    FindAddress,
    FindBytes,
    Found,
    LastChange,
    ListNames,
    Locate,
    Located,
    Measured,
    MeasureStretch,
    Missed,
    Named,
    NextChange,
    Opened,
    PagesRead,
    Place,
    Placed,
    Progress,
    ReadMemory,
    ReadTable,
    Refused,
    Report,
    Request,
    Run,
    RunToPlace,
    Said,
    Seek,
    ShowFrame,
    Step,
    StopsChanged,
    TableRead,
    WhoWrote,
)
from inspector.snapshot import Facts, Pages, StopPoint
from replayer.marks import Mark, parse_event
from replayer.watching import Cancelled, WorkerDied
from traces._errors import RepriseError, UsageError
from traces.cli import debugging, one_line
from traces.layout import Kind

if TYPE_CHECKING:
    from replayer.look import Here
    from replayer.machine import TimeMachine

DENSITY: Final = 2048
"""Parts of the execution whose events are counted."""
TELL_EVERY: Final = 0.1
"""Seconds between two reports of progress."""
_STOPPERS: Final = (Kind.TRAP, Kind.EXIT, Kind.STOP)
"""Records of how the guest was stopped."""
_PAGE: Final = 1 << 16
"""Bytes of a page whose checksums tell whether it changed."""
_KEPT: Final = 4
"""Memories whose checksums are kept."""


class Session:
    """One recording's machine, at work.

    Args:
        tell: given each report, in the worker's thread.
        search, remap: where sources are; see TimeMachine.
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
        self.seeks = self._round = 0
        """Seeks asked for up to now, and before what runs: no motion waits behind a seek, for a seek ends those before it."""
        self._cancelled = False
        self._closing = False
        self._machine: TimeMachine | None = None
        self._now: Here | None = None
        """The guest as it was shown last; stays while the machine goes elsewhere."""
        self._old: Here | None = None
        """The guest at the stop before, or at the chosen mark: what bytes are compared with."""
        self._compared = False
        """Whether that mark was chosen."""
        self._before: Mark | None = None
        """The stop before, to compare with when a chosen mark is chosen no longer."""
        self._digests: dict[tuple[Mark, int], list[bytes]] = {}
        """Checksums of the pages of a memory at a mark."""
        self._mark: Mark | None = None
        """Where the machine was last, to come back to after an accident."""
        self._level = 0
        self._read: ReadMemory | None = None
        """The bytes that were read last: they are likely to be looked at after the next step, too."""
        self._capture = Capture()
        self._addresses: Addresses | None = None
        self._points: tuple[StopPoint, ...] = ()
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
                self.seeks += 1
                self._queue = deque(one for one in self._queue if not isinstance(one, MOTIONS))
                if isinstance(self._running, MOTIONS):
                    self._cancelled = True
            elif isinstance(request, ReadMemory | ReadTable | CountEvents | MeasureStretch):
                self._queue = deque(one for one in self._queue if not isinstance(one, type(request)))
            self._queue.append(request)
            self._wake.notify()

    def cancel(self) -> bool:
        """Ends what runs, and forgets what waits behind it; says whether there was anything."""
        with self._wake:
            waiting = [one for one in self._queue if isinstance(one, MOTIONS)]
            self._queue = deque(one for one in self._queue if not isinstance(one, MOTIONS))
            if isinstance(self._running, MOTIONS):
                self._cancelled = True
                return True
            return bool(waiting)

    @property
    def rests(self) -> bool:
        """Whether nothing is under way, and nothing waits."""
        with self._wake:
            return self._running is None and not self._queue

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
        self._serve_looks()
        now = time.monotonic()
        if now - self._told > TELL_EVERY:
            self._told = now
            self._tell(Progress(self._doing, clock, events))

    def _serve_looks(self) -> None:
        """Serves who only wants to look at the guest as it is shown, while something else runs."""
        if not self._queue or self._now is None:
            return
        with self._wake:
            looks = [one for one in self._queue if isinstance(one, LOOKS)]
            self._queue = deque(one for one in self._queue if not isinstance(one, LOOKS))
        for one in looks:
            try:
                self._look(one)
            except WorkerDied:
                raise
            except RepriseError as error:  # what runs is not to blame
                self._tell(Said(one_line(str(error)), "warning"))

    def _work(self) -> None:
        try:
            if self._open():
                self._serve()
        finally:
            self._let_go()

    def _let_go(self) -> None:
        """Closes the machine, and what is looked at beside it."""
        known = (self._now, self._old, self._machine)
        self._now = self._old = self._machine = None
        for one in known:
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
                self._cancelled, self._round = False, self.seeks
                self._told = time.monotonic()
                self._doing = _doing(request)
            try:
                self._do(request)
            except Cancelled:
                if not any(isinstance(one, Seek) for one in self._queue):
                    self._missed(request)
                    self._tell(Said("cancelled"))
            except WorkerDied as error:
                self._revive(str(error))
                self._missed(request)
            except RepriseError as error:
                self._missed(request)
                self._tell(Said(one_line(str(error)), "warning"))
            except Exception as error:
                if debugging():
                    raise
                self._revive(f"unexpected {type(error).__name__}: {error}")
                self._missed(request)
            finally:
                with self._wake:
                    self._running = None
                    idle = not self._queue
                if idle:
                    self._tell(Progress(""))

    def _missed(self, request: Request) -> None:
        if isinstance(request, Seek):
            self._tell(Missed(request.mark))

    # -- opening

    def _open_machine(self) -> TimeMachine:
        from replayer.machine import TimeMachine

        return TimeMachine(self.path, remap=self._remap, search=self._search, changed=True)

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
            labels = self._capture.labels = read_labels(machine.module)
            self._addresses = Addresses(labels)
            diverged = machine.clocks.known if kind == "diverged" else None
            difference = self._difference(machine)
            reason = one_line(str(verdict.get("reason") or "")) or (difference.headline if difference is not None else "")
            facts = Facts(
                machine.total, machine.events, machine.clocks.known, kind, reason, diverged,
                len(machine.module.memories), has_source, tuple(map(one_line, machine.notes)), self._density(machine),
                tuple(found.limits.is_64 for found in machine.module.memories), len(labels.globals), labels.tables, difference,
                tuple(map(one_line, machine.problems)),
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

    def _difference(self, machine: TimeMachine) -> Divergence | None:
        """What the verdict tells of a divergence, and where the guest stood then, if it was inside."""
        found = read_divergence(machine.verdict())
        if found is None or not found.stands or not machine.total:
            return found
        mark = Mark(machine.total - 1)
        with contextlib.closing(machine.look(mark, self._watch)) as here:
            return replace(found, mark=str(mark), frames=tuple(one_line(frame.describe()) for frame in here.frames))

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
        self._compared = False
        if self._open() and self._mark is not None:
            try:
                self._arrive(self.machine.seek(self._mark), asked=str(self._mark))
                self._tell(Said("the time machine was restarted; it is where it was"))
            except Exception as error:
                self._tell(Said(f"the time machine could not be restarted: {one_line(str(error))}", "error"))

    @property
    def machine(self) -> TimeMachine:
        if self._machine is None:  # it could not be opened again; perhaps it can now
            raise WorkerDied("there is no time machine")
        return self._machine

    @property
    def _shown(self) -> Here:
        if self._now is None:
            raise RepriseError("the guest was not seen yet; go to an event")
        return self._now

    # -- requests

    def _do(self, request: Request) -> None:
        machine = self.machine
        match request:
            case Seek(mark, frame):
                self._level = frame
                here, event = self._stood(machine.seek(mark, self._watch), mark)
                self._arrive(here, asked=mark, event=event)
            case Step(how, reverse, by):
                before = machine.here.mark
                here = machine.motion.step(how, reverse=reverse, by=by, watch=self._watch)
                self._arrive(here, "" if here.mark != before else "the end" if not reverse else "the start", kind="step")
            case Run(reverse):
                breaks, watches = self._resolved()
                here, stop = machine.motion.run(breaks, watches, reverse=reverse, watch=self._watch)
                wrote = (stop.memory, stop.address, max(1, len(stop.new))) if stop.address is not None else None
                reason = f"the {stop.reason}" if stop.reason in ("start", "end") else stop.reason
                self._arrive(here, reason, wrote)
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
            case Compare(mark):
                self._compare(mark)
            case FindBytes():
                self._find(request)
            case NextChange():
                self._next_change(request)
            case Locate(events):
                reached = [seq for seq in events if seq < machine.clocks.known]
                self._tell(Located(tuple((seq, machine.mark_of(seq).clock) for seq in reached)))
            case AddStop(point):
                self._resolve(point)
                if not any(other.describe() == point.describe() for other in self._points):
                    self.set_points([*self._points, point])
                self._tell(Said(f"{point.describe()}: set"))
            case _:
                self._look(request)

    def _look(self, request: Request) -> None:
        """What needs the guest only as it is shown, or not at all."""
        if isinstance(request, Place | CountEvents | MeasureStretch):
            self._chart(request)
            return
        here = self._shown
        match request:
            case ShowFrame(level):
                self._level = level
                self._tell(Detailed(here.mark, self._capture.detail(here, level)))
            case Expand(path):
                self._capture.toggle(path)
                self._tell(Detailed(here.mark, self._capture.detail(here, self._level)))
            case ReadMemory():
                self._read = request
                self._tell(PagesRead(self._pages(here, request)))
            case ReadTable(table, start, length):
                self._tell(TableRead(self._capture.table(here, self._old, table, start, length)))
            case FindAddress(text, memory, level):
                assert self._addresses is not None
                self._tell(Found(*self._addresses.place(here, level, text, memory)))
            case ListNames():
                assert self._addresses is not None
                self._tell(Named(tuple(self._addresses.names(here))))

    def _chart(self, request: Place | CountEvents | MeasureStretch) -> None:
        """What the time line shows: read off the clocks of events."""
        machine = self.machine
        known, read = machine.clocks.known, machine.job.mark_clocks
        if isinstance(request, Place):
            survey = request.survey.placed(lambda events: clocks_of(read, events), known, machine.total)
            self._tell(Placed(survey))
            return
        low, high = request.low, request.high
        first, end = (bisect.bisect_left(machine.clocks, clock + 1, 0, known) for clock in (low, high))
        if isinstance(request, MeasureStretch):
            self._tell(Measured(low, high, first, end))
        else:
            # What comes before the first instruction stands in its column.
            found = counts(read, first if low else 0, end, low, high, request.columns)
            self._tell(Counted(low, high, tuple(found)))

    def _stood(self, here: Here, asked: str) -> tuple[Here, int | None]:
        """Of an event that says how the guest was stopped: the guest where it stood then, as nothing of it is left at the event
        itself, and that event; of any other what was found, and None."""
        machine, seq = self.machine, here.events
        outside = not here.frames and here.mark.step and here.mark.clock >= 0 and seq < machine.clocks.known
        if not outside or parse_event(asked) != (seq, False) or machine.job.header(seq)[0] not in _STOPPERS:
            return here, None
        try:
            return machine.seek(Mark(here.mark.clock), self._watch), seq
        except (Cancelled, WorkerDied):
            raise
        except RepriseError:  # a stack that was exhausted elsewhere than in the recording
            return machine.seek(here.mark, self._watch), None

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
        return Answer(title, tuple(safe(line) for line in write_lines(self.machine, write)), str(write.mark))

    def _find(self, wanted: FindBytes) -> None:
        here, memory = self._shown, wanted.memory
        size = here.memory_sizes[memory]
        found = find(
            lambda address, length: here.read(address, length, memory), size, wanted.needle, wanted.start, wanted.reverse,
            lambda: self._watch(here.mark.clock, here.events),
        )  # fmt: skip
        if found is None:
            text = f"/{one_line(wanted.needle.text)}/" if isinstance(wanted.needle, Pattern) else "these bytes"
            raise UsageError(f"{text}: not found in memory {memory}")
        (address, length), wrapped = found
        end = "the end" if wanted.reverse else "the start"
        self._tell(Found(memory, address, length, f"found from {end} of the memory on" if wrapped else ""))

    def _next_change(self, wanted: NextChange) -> None:
        here, old, memory = self._shown, self._old, wanted.memory
        if old is None:
            raise UsageError("there is no stop before this one to compare with; = chooses a mark")
        size = here.memory_sizes[memory]
        start = wanted.address if wanted.address is not None else size if wanted.reverse else -1
        near = max(0, min(start, size - 1)) // _PAGE

        def same(page: int) -> bool:
            if page == near:  # most changes are near: no need to read all of the memory for those
                return False
            now_, old_ = self._checksums(here, memory), self._checksums(old, memory)
            return page < len(now_) and page < len(old_) and now_[page] == old_[page]

        found = next_change(
            lambda address, length: here.read(address, length, memory), _padded(old, memory), size, _PAGE, start,
            wanted.reverse, same, lambda: self._watch(here.mark.clock, here.events),
        )  # fmt: skip
        if found is None:
            side = "before" if wanted.reverse else "behind"
            where = f" {side} {wanted.address:#x}" if wanted.address is not None else ""
            raise UsageError(f"no changed bytes{where} in memory {memory}, compared with mark {old.mark}")
        self._tell(Found(memory, *found))

    def _checksums(self, here: Here, memory: int) -> list[bytes]:
        known = self._digests.get((here.mark, memory))
        if known is None:
            known = self._digests[here.mark, memory] = here.moment.page_digests(memory, _PAGE)
            while len(self._digests) > _KEPT:
                del self._digests[next(iter(self._digests))]
        return known

    def _compare(self, mark: str | None) -> None:
        """Compares bytes with a chosen mark from now on; without one, with the stop before."""
        wanted = self.machine.mark(mark, self._watch) if mark is not None else self._before
        old = self.machine.look(wanted, self._watch) if wanted is not None else None
        if self._old is not None:
            self._old.close()
        self._old, self._compared = old, mark is not None
        here = self._shown
        self._arrive(here, f"bytes are compared with mark {old.mark}" if old is not None else "", asked=str(here.mark))

    def _pages(self, here: Here, wanted: ReadMemory) -> Pages:
        data = here.read(wanted.address, wanted.length, wanted.memory)
        old, before = None, None
        if self._old is not None:
            old, before = _padded(self._old, wanted.memory)(wanted.address, len(data)), self._old.mark
        return Pages(here.mark, wanted.memory, wanted.address, data, old, before)

    # -- arriving

    def _arrive(
        self,
        here: Here,
        reason: str = "",
        range: tuple[int, int, int] | None = None,
        kind: str = "",
        asked: str | None = None,
        event: int | None = None,
    ) -> None:
        """Shows the guest there. What was shown before is kept: it is what bytes are compared with."""
        if asked is None:
            self._level = 0
        if here is not self._now:
            here.held = True
            moved = self._now is None or here.mark != self._now.mark
            old, self._now, self._mark = self._now, here, here.mark
            if moved:
                self._before = old.mark if old is not None else None
                self._capture.turn()
                if not self._compared:
                    self._old, old = old, self._old
            if old is not None:
                old.close()
        snapshot = self._capture.snapshot(here, self._level, self._old)
        if event is not None:
            snapshot = replace(snapshot, event=event)
        self._level = snapshot.detail.level if snapshot.detail is not None else 0
        pages = self._pages(here, self._read) if self._read is not None else None
        self._tell(Arrived(replace(snapshot, compared=self._compared), reason, range, kind, asked, pages, self._round))


def _padded(here: Here, memory: int) -> Callable[[int, int], bytes]:
    """Reads what a memory held; zeros where there was none yet."""
    return lambda address, length: here.read(address, length, memory).ljust(length, b"\0")


def _doing(request: Request) -> str:
    match request:
        case Step(_, True, _) | Run(True) | LastChange() | WhoWrote():
            return "searching backward"
        case Step() | Run() | RunToPlace():
            return "running"
        case Seek(mark):
            return f"going to {mark}"
        case Compare(str(mark)):
            return f"looking at {mark}"
        case Compare():
            return "looking at the stop before"
        case FindBytes() | NextChange():
            return "searching memory"
    return ""
