"""The time machine: a recording, and the guest of it at any moment.

`TimeMachine` goes to marks and looks; `replayer.motion` steps, finds and searches on top of it. The guest is never in this
process: it rests in worker processes, forked from checkpoints. The first run from start to end, the *pass*, goes on in the
background from the moment the machine is opened. It leaves checkpoints behind, learns at which mark every event happens, and ends
with a verdict: the twin served every record and reached the recorded digests, as the plain replay does, or it is not trusted.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from replayer.checkpoints import Checkpoints
from replayer.look import Here
from replayer.marks import START, Mark, parse_event
from replayer.names import Names
from replayer.proofs import Proof, load_proof, save_proof
from replayer.timeline import Clocks, Timeline
from replayer.watching import Cancelled, Watch, WorkerDied
from replayer.wire import Closed
from replayer.worker import CAN_FORK, Job, Moment
from traces._errors import RepriseError, TraceError, UsageError
from traces.tracedir import Trace

if TYPE_CHECKING:
    from replayer.history import History
    from replayer.motion import Motion
    from replayer.source.debuginfo import DebugInfo

NEAR: Final = 300_000
"""Instructions before a mark at which a moment is kept, for the next step back."""
INTERVAL: Final = 0.08
"""Seconds of execution between checkpoints, at first."""
MOST: Final = 192
BUDGET: Final = 1 << 30
ATTEMPTS: Final = 3
"""Processes that may die on the way before a journey, or the pass, is given up."""


class TimeMachine:
    """A recording that can be looked at anywhere.

    Args:
        trace: the trace's directory.
        checkpoints: False goes without forked checkpoints: every journey begins at the start (as on systems that cannot fork).
        interval: seconds of execution between checkpoints; doubled whenever there are `most` of them.
        budget: bytes of memory checkpoints may have to themselves.
        remap: source directories to read elsewhere, as (recorded prefix, prefix here).
        search: directories in which sources are looked for by the end of their path.
        changed: also open a trace whose files were changed since it was closed. What is shown is then of the files as they are
            now, and `problems` and `notes` say which are not as they were.
    """

    def __init__(
        self,
        trace: str | os.PathLike[str],
        *,
        checkpoints: bool = True,
        interval: float = INTERVAL,
        most: int = MOST,
        budget: int = BUDGET,
        remap: Sequence[tuple[str, str]] = (),
        search: Sequence[str | os.PathLike[str]] = (),
        changed: bool = False,
    ) -> None:
        self.trace = Trace.open(Path(trace))
        self.forks = checkpoints and CAN_FORK
        self.notes: list[str] = [] if self.forks else ["without checkpoints: every look replays from the start"]
        self._remap = list(remap)
        self._search = [Path(path) for path in search]
        try:
            problems = self.trace.problems()
            if problems and not changed:
                raise TraceError(f"{self.trace.given / problems[0]}; restore it from a copy")
            self._files = _stamps(self.trace.path)
            self.job = Job(self.trace)
        except BaseException:
            self.trace.close()
            raise
        self.problems = problems
        """What is not as it was when the recording was closed."""
        self.notes += [f"{problem}; what is shown is what the files say now" for problem in problems]
        self.module = self.job.module
        self.twin = self.job.twin
        self.notes += self.job.notes
        if self.trace.manifest.outcome.get("kind") == "stack":
            self.notes.append(
                "the run exhausted its stack: behind its last event the twin's own depth is shown, which is another"
            )
        self.details = self.job.details
        self.clocks = Clocks(self.job)
        self.timeline = Timeline(self.clocks, self.job)
        self.checkpoints = Checkpoints(self.job, self.forks, budget)
        self.checkpoints.on_trap = self._begun_at_trap
        self.checkpoints.known_traps = self._known_traps
        self.traps: dict[int, int] = {}
        """Instructions begun at each trap of the guest, by the number of events before it."""
        self.passed: Mapping[str, Any] | None = None
        """The verdict of the pass, once it is done."""
        self._end: int | None = None
        self._progress = (0, 0)
        self._changed = threading.Condition()
        self._pass_failed: str | None = None
        self._pass_done = False
        self._closed = False
        self._trap_lock = threading.RLock()
        self._finding: set[int] = set()
        """Traps that are being found: a process on the way to one does not wait for its own answer."""
        self._here: Here | None = None
        self._proven = self._recall()
        self._runner: Moment | None = None
        self._pass = {"do": "pass", "interval": interval if self.forks else 1e9, "most": most}
        try:
            self._run_through()
        except BaseException:
            self.close()
            raise
        self._follower = threading.Thread(target=self._follow, name="reprise-pass", daemon=True)
        self._follower.start()

    # -- life

    def __enter__(self) -> TimeMachine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Lets every process go."""
        with self._changed:
            self._closed = True
            if self._runner is not None:
                self._runner.kill()
        if self._here is not None:
            self._here.moment.close()
        self.checkpoints.close()
        self.job.close()
        self.trace.close()

    def _still_the_same(self) -> None:
        """Checkpoints belong to the trace as it was when the machine was opened."""
        if self._closed:
            raise UsageError(f"{self.trace.given}: this time machine was closed; open the trace again")
        if _stamps(self.trace.path) != self._files:
            raise TraceError(f"{self.trace.given}: changed on disk since it was opened; open it again")

    # -- the pass

    def _recall(self) -> bool:
        """Whether an earlier pass through this very trace is known to have come out as the plain replay does."""
        # A proof is of the files that the manifest names.
        known = load_proof(self.trace) if not self.problems else None
        if known is None or len(known.clocks) != 8 * self.events:
            return False
        os.pwrite(self.job.marks, known.clocks, 0)
        self.traps.update(known.traps)
        self._end = known.end
        self.clocks.known = known.known
        self._progress = (known.end, known.known)
        self.passed = known.verdict
        return True

    def _remember(self) -> None:
        assert self.passed is not None and self._end is not None
        if self.problems:
            return
        clocks = os.pread(self.job.marks, 8 * self.events, 0)
        save_proof(self.trace, Proof(self.passed, self._end, self.clocks.known, self.traps, clocks))

    def _follow(self) -> None:
        """Hears what the runner says, in a thread of its own. When it dies, another goes on from the last checkpoint."""
        for attempt in range(ATTEMPTS):
            runner = self._runner
            assert runner is not None
            try:
                self._hear_out(runner)
                return
            except (Closed, WorkerDied) as error:
                died = f"the process that runs the recording through died ({error})"
                runner.kill()
                if self._closed or attempt == ATTEMPTS - 1:
                    break
                self.checkpoints.deaths.append(died)
                try:
                    self._run_through()
                except Exception as worse:
                    died = str(worse)
                    break
            except Exception as error:  # whatever it is, whoever waits for the pass must hear of it
                died = f"the run through the recording failed ({error})"
                break
            finally:
                runner.close()
        self._fail(died)

    def _run_through(self) -> None:
        """Sends a process on the pass."""
        runner = self.checkpoints.resume()
        with self._changed:
            if self._closed:
                runner.kill()
                return
            self._runner = runner
        runner.send(self._pass)

    def _hear_out(self, runner: Moment) -> None:
        while True:
            message, _, handle = runner.receive()
            if "checkpoint" in message and handle is not None:
                self.checkpoints.add(Moment.adopt(handle, message["checkpoint"], message["at"], self.details))
                if message["thin"]:
                    self.checkpoints.thin()
                self._heard(message["at"]["clock"], message["at"]["events"])
            elif "progress" in message:
                self._heard(message["progress"], message["events"])
            elif "trapped" in message:
                runner.send({"do": "on", "begun": self._begun_at_trap(message["trapped"])})
            elif "passed" in message:
                self._finish(message["at"])
                return
            elif "error" in message or "fatal" in message:
                self._fail(str(message.get("error") or message.get("fatal")))
                return

    def _heard(self, clock: int, events: int) -> None:
        with self._changed:
            self._progress = (clock, events)
            self._changed.notify_all()

    def _finish(self, position: Mapping[str, Any]) -> None:
        with self._changed:
            self._end = position["clock"]
            self._progress = (position["clock"], position["events"])
            self.clocks.known = position["events"]
            self.passed = position["verdict"]
            self._pass_done = True
            self._changed.notify_all()

    def _fail(self, why: str) -> None:
        with self._changed:
            if not self._closed:
                self._pass_failed = why
            self._changed.notify_all()

    @property
    def progress(self) -> tuple[int, int]:
        """How far the pass has come: instructions begun, events."""
        return self._progress

    def wait(self, watch: Watch | None = None) -> None:
        """Waits for the pass to end: then all checkpoints stand."""
        self._wait_for(lambda: self._pass_done, watch)

    def know(self, watch: Watch | None = None) -> None:
        """Waits until the verdict, the end and the mark of every event are known: from the pass, or from an earlier one."""
        self._wait_for(lambda: self.passed is not None, watch)

    def _wait_for(self, enough: Callable[[], bool], watch: Watch | None) -> None:
        with self._changed:
            while not enough():
                if self._pass_failed is not None:
                    raise WorkerDied(self._pass_failed + "; open the trace again")
                self._changed.wait(0.1)
                if watch is not None:
                    watch(*self._progress)

    def _begun_at_trap(self, events: int) -> int | None:
        """How many instructions had begun when the guest trapped after so many events: found by listening from earlier on."""
        with self._trap_lock:
            known = self.traps.get(events)
            if known is None and events not in self._finding:
                self._finding.add(events)
                try:
                    known = self.traps[events] = self._find_trap(events)
                finally:
                    self._finding.discard(events)
            return known

    def _find_trap(self, events: int) -> int:
        earlier = [begun for served, begun in self.traps.items() if served < events]
        floor = max(earlier, default=0)
        scanner = self.checkpoints.fork(events=events)
        if scanner.clock < floor:
            scanner.go(event=None, clock=floor)
        try:
            pc, head, _ = scanner.scan({"trap": True, "traps": self._known_traps()})
        finally:
            scanner.close()
        steps = self.details.stretch(pc)
        # Which instruction of the stretch it was: the first that a fragment cannot get past.
        for count in range(1, len(steps)):
            moment = self.checkpoints.fork(clock=head, events=events)
            try:
                moment.go(clock=head)
                moment.view(count, 1)
            except WorkerDied:
                raise
            except RepriseError:
                return int(head) + count
            finally:
                moment.close()
        return int(head) + len(steps)

    def _known_traps(self) -> dict[str, int]:
        return {str(events): begun for events, begun in self.traps.items()}

    # -- marks

    @property
    def total(self) -> int:
        """Instructions of the whole execution."""
        self.know()
        assert self._end is not None
        return self._end

    @property
    def end(self) -> Mark:
        """The mark behind everything."""
        return Mark(self.total)

    @property
    def events(self) -> int:
        return self.job.rows

    def verdict(self) -> Mapping[str, Any]:
        """What the pass came to: the twin against the recording."""
        self.know()
        assert self.passed is not None
        return self.passed

    @cached_property
    def proof(self) -> str:
        """ "" if the twin did what the plain replay does: then everything shown is what was recorded. Otherwise what is wrong."""
        verdict = self.verdict()
        if self._proven:
            return ""
        if verdict["verdict"] == "identical":
            self._remember()
            return ""
        from replayer.replay import STACK_MOVED, replay

        plain = replay(self.trace).to_json()
        same = all(verdict[key] == plain[key] for key in ("verdict", "events", "total"))
        # Where a stack runs out is the one thing a twin does at a depth of its own: it agrees if it went along up to there.
        deeper = verdict["reason"] == STACK_MOVED and plain["verdict"] in ("identical", "incomplete")
        if same or (deeper and verdict["events"] <= plain["events"]):
            self._remember()
            return ""
        return (
            f"the instrumented twin ended {verdict['verdict']} at event {verdict['events']}, "
            f"the plain replay {plain['verdict']} at event {plain['events']}"
        )

    def require_proof(self, watch: Watch | None = None) -> None:
        """For whoever shows what is found to others. Raises TraceError if the twin did not do what the plain replay does."""
        self.know(watch)
        if self.proof:
            raise TraceError(f"{self.trace.given}: {self.proof}; what the time machine would show cannot be trusted")

    def mark(self, text: str | int | Mark, watch: Watch | None = None) -> Mark:
        """A mark from what a person writes: `1204331`, `1204331.2`, `e123`, `e123+`, `start`, `end`. Raises UsageError."""
        if isinstance(text, Mark):
            return text
        if isinstance(text, int):
            return Mark(text)
        event = parse_event(text)
        if event is not None:
            seq, after = event
            return self.mark_after(seq, watch) if after else self.mark_of(seq, watch)
        if text.strip() == "end":
            self.know(watch)
            return self.end
        return Mark.parse(text)

    def mark_of(self, seq: int, watch: Watch | None = None) -> Mark:
        """The mark at which an event happens."""
        self._need_event(seq, watch)
        return self.timeline.mark_of(seq)

    def mark_after(self, seq: int, watch: Watch | None = None) -> Mark:
        """The mark just behind an event; of a call, of its return."""
        self._need_event(self.events - 1, watch)
        self._need_event(seq, watch)
        return self.timeline.mark_after(self.closing(seq), self.total)

    def closing(self, seq: int) -> int:
        """The record that ends what a record began: itself, unless more happened inside."""
        from traces.layout import Kind, Status

        kind, status, _ = self.job.header(seq)
        if status is not Status.OPEN or kind not in (Kind.CALL, Kind.EXPORT, Kind.CALLBACK):
            return seq
        depth = 1
        for later in range(seq + 1, self.events):
            kind, status, _ = self.job.header(later)
            if kind in (Kind.CALL, Kind.EXPORT, Kind.CALLBACK) and status is Status.OPEN:
                depth += 1
            elif kind is Kind.RETURN:
                depth -= 1
                if depth == 0:
                    return later
            elif kind in (Kind.TRAP, Kind.EXIT, Kind.STOP):
                return later
        return self.events - 1

    def calls_of(self, imports: Sequence[int], low: int, high: int, reverse: bool) -> Iterator[int]:
        """Events in [low, high) that are calls of these imports, in order or backward: picked from the table by columns."""
        import pyarrow as pa
        import pyarrow.compute as pc

        from traces.tables import EventsReader
        from traces.tracedir import EVENTS

        names = {self.trace.manifest.imports[index].qualified for index in imports}
        with EventsReader(self.trace.path / EVENTS) as reader:
            windows = range(reader.window_of(low), reader.window_of(high - 1) + 1) if low < high else range(0)
            for window in reversed(windows) if reverse else windows:
                batch = reader.batch(window, ["kind", "import"])
                wanted = pc.is_in(batch.column("import").cast("string"), value_set=pa.array(sorted(names), pa.string()))
                calls = pc.equal(batch.column("kind").cast("string"), "call")
                found = pc.indices_nonzero(pc.and_(calls, wanted)).to_pylist()
                for row in reversed(found) if reverse else found:
                    seq = reader.first_of(window) + row
                    # Two imports may have one name, and be told apart by number.
                    if low <= seq < high and self.job.header(seq)[2] in imports:
                        yield seq

    def _need_event(self, seq: int, watch: Watch | None = None) -> None:
        if not 0 <= seq < self.events:
            last = f"the last is e{self.events - 1}" if self.events else "it has none"
            raise UsageError(f"there is no event {seq} in this recording: {last}")
        # Clocks reach the file a window at a time.
        self.know(watch)
        if seq >= self.clocks.known:
            kind = self.passed["verdict"] if self.passed is not None else "stopped"
            raise UsageError(f"event {seq} was not reached: the replay is {kind} after event {self.clocks.known}")

    # -- going

    def seek(self, mark: str | int | Mark, watch: Watch | None = None) -> Here:
        """Goes to a mark. Raises UsageError for one beyond the end."""
        self._still_the_same()
        target = self.mark(mark, watch)
        for attempt in range(ATTEMPTS):
            try:
                return self._seek(target, watch)
            except WorkerDied as error:
                self.checkpoints.deaths.append(str(error))
                if attempt == ATTEMPTS - 1:
                    raise
            except UsageError:
                raise
            except RepriseError:
                # On the way there the guest trapped, and the pass has not come by yet to tell where that was.
                if self.passed is not None:
                    raise
                self.know(watch)
        return self._seek(target, watch)

    def _seek(self, target: Mark, watch: Watch | None) -> Here:
        here = self.look(target, watch)
        if self._here is not None and not self._here.held:
            self._here.close()
        self._here = here
        return here

    def look(self, target: Mark, watch: Watch | None = None) -> Here:
        """The guest at a mark, without going there. The caller closes what is returned."""
        moment = self.moment(target, watch)
        position = moment.position
        steps = target.clock - position["clock"] if position["kind"] == "head" else 0
        viewer = moment
        if self.forks:
            try:
                viewer = moment.fork()
            finally:
                self.checkpoints.remember(moment)
        try:
            return Here(self, target, viewer, viewer.view(steps))
        except BaseException:
            viewer.kill()
            raise

    def moment(self, target: Mark, watch: Watch | None = None) -> Moment:
        """A process with the guest at rest at a mark, or at the head of the stretch that holds it. The caller's to close."""
        if target == START:
            return self.checkpoints.fork(clock=-1)
        if target.step:
            self.know(watch)
            seq = self.timeline.event_at(target)
            moment = self.checkpoints.fork(clock=target.clock, events=seq)
            self._go(moment, watch, event=seq)
            return moment
        if self._end is not None and target.clock >= self._end:
            if target.clock > self._end:
                raise UsageError(f"mark {target} is beyond the end of the recording, which is mark {self._end}")
            moment = self.checkpoints.fork()
            self._go(moment, watch)
            return moment
        moment = self.checkpoints.fork(clock=target.clock)
        self._past_trap(moment, target.clock, watch)
        if self.forks and target.clock - moment.clock > 3 * NEAR:
            self._go(moment, watch, clock=target.clock - NEAR)
            if moment.position["kind"] == "head":
                near = moment
                moment = near.fork()
                self.checkpoints.remember(near)
        self._go(moment, watch, clock=target.clock)
        if moment.position["kind"] == "end":
            moment.close()
            self.know(watch)
            raise UsageError(f"mark {target} is beyond the end of the recording, which is mark {self._end}")
        return moment

    def _past_trap(self, moment: Moment, clock: int, watch: Watch | None) -> None:
        """Goes past the last trap before a clock: a stretch that it cut short would hold the clock, too."""
        served = max((served for served, begun in self.traps.items() if begun <= clock), default=-1)
        if moment.events <= served:
            self._go(moment, watch, event=served)

    def _go(self, moment: Moment, watch: Watch | None, clock: int | None = None, event: int | None = None) -> None:
        try:
            moment.go(clock=clock, event=event, watch=watch)
        except Cancelled:
            moment.kill()
            raise
        except BaseException:
            moment.close()
            raise

    @property
    def here(self) -> Here:
        """Where the machine is; the start, at first."""
        if self._here is None:
            return self.seek(START)
        return self._here

    @cached_property
    def motion(self) -> Motion:
        """Stepping, running and searching, forward and backward."""
        from replayer.motion import Motion

        return Motion(self)

    @cached_property
    def history(self) -> History:
        """Questions about stretches of the execution: who wrote this, what was called, what changed."""
        from replayer.history import History

        return History(self)

    # -- what is known about the module

    @cached_property
    def names(self) -> Names:
        return Names(self.module)

    def open_source(self) -> bool:
        """Whether source lines are known; if they could be, `notes` says what is missing."""
        return self.source is not None

    @cached_property
    def source(self) -> DebugInfo | None:
        """What the module's debug information says; None if it has none, or if what reads it is not installed (see `notes`)."""
        from replayer.source.debuginfo import open_source

        try:
            return open_source(self.module, remap=self._remap, search=self._search)
        except UsageError as error:
            self.notes.append(str(error))
            return None


def _stamps(path: Path) -> list[tuple[str, int, int]]:
    """What tells whether a trace's files are still those that were opened."""
    found = []
    with contextlib.suppress(OSError):
        for entry in sorted(path.iterdir()):
            info = entry.lstat()
            found.append((entry.name, info.st_size, info.st_mtime_ns))
    return found
