"""The moments a machine keeps: checkpoints the pass left behind, and the ones it was at lately.

It alone decides which moment a journey begins from, and which are let go: at most so many, in at most so much memory, spread over
the whole execution. Every moment handed out is a fork, so those kept stay as they are. A moment whose process died is forgotten,
and the journey begins from an earlier one.
"""

from __future__ import annotations

import contextlib
import threading
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Final

from replayer.watching import WorkerDied
from replayer.worker import Job, Moment
from traces._errors import RefusedError

RECENT: Final = 12


class Checkpoints:
    """Moments to start from, in the order of execution."""

    def __init__(self, job: Job, forks: bool, budget: int) -> None:
        self._job = job
        self._forks = forks
        self._budget = budget
        """Bytes of memory that kept moments may have to themselves, together."""
        self._lock = threading.RLock()
        self._first: Moment | None = None
        self._kept: list[Moment] = []
        self._recent: OrderedDict[int, Moment] = OrderedDict()
        self.on_trap: Callable[[int], int | None] = lambda _: None
        self.known_traps: Callable[[], dict[str, int]] = dict
        self._sizes: dict[int, int] = {}
        """Bytes each kept moment takes, by pid, as last measured."""
        self._closed = False
        self.deaths: list[str] = []
        """What became of processes that died, for whoever asks."""

    def __len__(self) -> int:
        return len(self._kept)

    @property
    def clocks(self) -> list[int]:
        with self._lock:
            return [moment.clock for moment in self._kept]

    def all(self) -> list[Moment]:
        with self._lock:
            return [*([self._first] if self._first else []), *self._kept, *self._recent.values()]

    # -- keeping

    def add(self, moment: Moment) -> None:
        """A checkpoint the pass left."""
        moment.on_trap, moment.known_traps = self.on_trap, self.known_traps
        with self._lock:
            if self._closed:
                moment.close()
                return
            if self._kept:
                # Only now does the last one have pages of its own: those that the guest has written since.
                last = self._kept[-1]
                self._sizes[last.pid] = memory_of(last.pid)
            self._kept.append(moment)
            if sum(self._sizes.values()) > self._budget:
                self._sizes = {kept.pid: memory_of(kept.pid) for kept in self._kept}
                if sum(self._sizes.values()) > self._budget:
                    self.thin()

    def thin(self) -> None:
        """Lets half of the checkpoints go: always the one whose neighbours are closest to each other in time of execution, so
        that those kept stay spread over the whole of it."""
        with self._lock:
            for _ in range((len(self._kept) + 1) // 2):
                times = [0.0, *(_seconds(moment) for moment in self._kept)]
                # The last one has no neighbour behind it yet: the pass goes on from there.
                gaps = [times[i + 1] - times[i - 1] for i in range(1, len(times) - 1)]
                place = min(range(len(gaps)), key=gaps.__getitem__, default=0)
                gone = self._kept.pop(place)
                self._sizes.pop(gone.pid, None)
                gone.close()

    def remember(self, moment: Moment) -> None:
        """Keeps a moment for a while: whoever was here is likely to come back."""
        with self._lock:
            old = self._recent.pop(moment.clock, None)
            if old is not None:
                old.close()
            self._recent[moment.clock] = moment
            while len(self._recent) > RECENT:
                self._recent.popitem(last=False)[1].close()

    def memory(self) -> int:
        """Bytes the kept moments take: pages that several share are counted once, in parts."""
        with self._lock:
            return sum(memory_of(moment.pid) for moment in self._kept)

    # -- starting

    def fork(self, clock: int | None = None, events: int | None = None) -> Moment:
        """A new process, as late as possible with at most so many instructions begun, or so many records served."""
        if not self._forks:
            return self._start()
        while True:
            best = self._best(clock, events)
            try:
                child = best.fork()
                child.on_trap, child.known_traps = self.on_trap, self.known_traps
                return child
            except WorkerDied:
                self._forget(best)

    def resume(self) -> Moment:
        """A new process where the pass has come to: what it writes down as it goes is complete up to its last checkpoint."""
        if not self._forks:
            return self._start()
        with self._lock:
            while self._kept:
                try:
                    return self._kept[-1].fork()
                except WorkerDied:
                    self._forget(self._kept[-1])
        return self.fork(clock=-1)

    def _best(self, clock: int | None, events: int | None) -> Moment:
        with self._lock:
            if self._first is None:
                self._first = self._start()
            usable = [
                moment
                for moment in (*self._kept, *self._recent.values())
                if (clock is None or moment.clock <= clock) and (events is None or moment.events <= events)
            ]
            return max(usable, key=lambda moment: moment.clock, default=self._first)

    def _start(self) -> Moment:
        if self._closed:
            raise RefusedError("this time machine was closed; open the trace again")
        moment = self._job.start()
        moment.on_trap, moment.known_traps = self.on_trap, self.known_traps
        return moment

    def _forget(self, dead: Moment) -> None:
        with self._lock:
            self.deaths.append(f"the process that held the guest at instruction {dead.clock} died")
            dead.close()
            if dead is self._first:
                self._first = None
            self._kept = [moment for moment in self._kept if moment is not dead]
            for clock, moment in list(self._recent.items()):
                if moment is dead:
                    del self._recent[clock]

    def between(self, low: int, high: int) -> list[int]:
        """Clocks of the checkpoints in [low, high], first to last."""
        with self._lock:
            return sorted(moment.clock for moment in self._kept if low <= moment.clock <= high)

    def close(self) -> None:
        with self._lock:
            self._closed = True
            for moment in self.all():
                moment.close()
            self._first = None
            self._kept.clear()
            self._recent.clear()


def _seconds(moment: Moment) -> float:
    """How long the guest ran until there."""
    return float(moment.position.get("seconds", 0.0))


def memory_of(pid: int) -> int:
    """Bytes of memory a process takes for itself, and its part of what it shares with others; 0 if that cannot be known."""
    return _rolled_up(pid, "Pss_Anon:") or private_memory(pid)


def private_memory(pid: int) -> int:
    """Bytes of memory that a process shares with no other; 0 if that cannot be known."""
    return _rolled_up(pid, "Private_Dirty:")


def _rolled_up(pid: int, name: str) -> int:
    with contextlib.suppress(OSError, ValueError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith(name):
                return int(line.split()[1]) * 1024
    return 0
