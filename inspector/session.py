"""The time machine behind the inspector: asked from the event loop, working in a thread of its own.

The machine is synchronous, and a journey may take as long as the recording did. So whoever wants something posts a request and
goes on; answers are told as reports, from the worker's thread. What has become pointless is dropped: of several seeks only the
newest counts, and it ends what runs. Motions are cancelled between two signs of life of the guest, and between two signs of life
those who only want to look at where the guest was are served: memory can be read while a long motion runs. When a process of
the machine dies, that is told, the machine is opened anew and goes back to where it was.

The recording may be hostile; what is taken from it was escaped where it was made, or is in `capture`.
"""

from __future__ import annotations

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
from inspector.protocol import (
    LOOKS,
    MOTIONS,
    AddStop,
    Answer,
    Arrived,
    Compare,
    Detailed,
    Expand,
    FindBytes,
    Found,
    LastChange,
    Locate,
    Located,
    Opened,
    PagesRead,
    Progress,
    ReadMemory,
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
    WhoWrote,
)
from inspector.snapshot import Facts, Pages, StopPoint
from replayer.marks import Mark
from replayer.worker import Cancelled, WorkerDied
from traces._errors import RepriseError, UsageError
from traces.cli import debugging, one_line

if TYPE_CHECKING:
    from replayer.look import Here
    from replayer.machine import TimeMachine

DENSITY: Final = 2048
"""Parts of the execution whose events are counted."""
TELL_EVERY: Final = 0.1
"""Seconds between two reports of progress."""
_CHUNK: Final = 1 << 20


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
        self._cancelled = False
        self._closing = False
        self._machine: TimeMachine | None = None
        self._now: Here | None = None
        """The guest as it was shown last; stays while the machine goes elsewhere."""
        self._old: Here | None = None
        """The guest at the stop before, or at the chosen mark: what bytes are compared with."""
        self._compared = False
        """Whether that mark was chosen."""
        self._mark: Mark | None = None
        """Where the machine was last, to come back to after an accident."""
        self._level = 0
        self._capture = Capture()
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
                self._queue = deque(one for one in self._queue if not isinstance(one, Seek))
                if isinstance(self._running, MOTIONS):
                    self._cancelled = True
            elif isinstance(request, ReadMemory):
                self._queue = deque(one for one in self._queue if not isinstance(one, ReadMemory))
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

    # -- opening

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
        self._compared = False
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
            case Compare(mark):
                self._compare(mark)
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
            case _:
                self._look(request)

    def _look(self, request: Request) -> None:
        """What needs the guest only as it is shown."""
        here = self._shown
        match request:
            case ShowFrame(level):
                self._level = level
                self._tell(Detailed(here.mark, self._capture.detail(here, level)))
            case Expand(path):
                self._capture.toggle(path)
                self._tell(Detailed(here.mark, self._capture.detail(here, self._level)))
            case ReadMemory(memory, address, length):
                data = here.read(address, length, memory)
                old = self._old.read(address, length, memory) if self._old is not None else None
                self._tell(PagesRead(Pages(here.mark, memory, address, data, old)))

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
        here = self._shown
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

    def _compare(self, mark: str | None) -> None:
        """Compares bytes with a chosen mark from now on; without one, with the stop before, as of the next stop."""
        old = self.machine.look(self.machine.mark(mark, self._watch), self._watch) if mark is not None else None
        if self._old is not None:
            self._old.close()
        self._old, self._compared = old, old is not None
        self._arrive(self._shown, "" if old is None else f"bytes are compared with mark {old.mark}", asked=str(self._shown.mark))

    # -- arriving

    def _arrive(
        self, here: Here, reason: str = "", range: tuple[int, int, int] | None = None, kind: str = "", asked: str | None = None
    ) -> None:
        """Shows the guest there. What was shown before is kept: it is what bytes are compared with."""
        if asked is None:
            self._level = 0
        if here is not self._now:
            here.held = True
            moved = self._now is None or here.mark != self._now.mark
            old, self._now, self._mark = self._now, here, here.mark
            if moved:
                self._capture.turn()
                if not self._compared:
                    self._old, old = old, self._old
            if old is not None:
                old.close()
        snapshot = self._capture.snapshot(here, self._level, self._old.mark if self._old is not None else None)
        self._level = snapshot.detail.level if snapshot.detail is not None else 0
        self._tell(Arrived(replace(snapshot, compared=self._compared), reason, range, kind, asked))


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
        case FindBytes():
            return "searching memory"
    return ""
