"""Which event happened at which mark: read off the clocks the pass wrote down.

For a record, `served` is how many instructions had begun when the replay was done with it. A call of the guest that is told in
one record (nothing happened inside) is done with when it returns, and began where the record before it ended.
"""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from typing import TYPE_CHECKING

from replayer.marks import START, Mark
from traces._errors import UsageError
from traces.layout import Kind, Status

if TYPE_CHECKING:
    from replayer.worker import Job


class Clocks(Sequence[int]):
    """`served`, by event, as far as the pass has come."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._count = job.rows
        self._pages: dict[int, Sequence[int]] = {}
        self.known = 0
        """Events whose clock is known."""

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> int:  # type: ignore[override]
        if not 0 <= index < self._count:
            raise IndexError(index)
        page, at = divmod(index, 4096)
        found = self._pages.get(page)
        if found is None:
            found = self._job.mark_clocks(page * 4096, min(4096, self._count - page * 4096))
            if (page + 1) * 4096 <= self.known or self.known >= self._count:
                self._pages[page] = found
        return found[at]


class Timeline:
    """Marks of events, and events of marks. Only for events whose clock is known."""

    def __init__(self, clocks: Clocks, job: Job) -> None:
        self.clocks = clocks
        self._job = job
        self._rows = job.rows

    def _began(self, seq: int) -> int:
        """Instructions begun when this record's activity began."""
        kind, status, _ = self._job.header(seq)
        if kind in (Kind.EXPORT, Kind.CALLBACK) and status is Status.COMPLETE:
            return self.clocks[seq - 1] if seq else 0
        return self.clocks[seq]

    def mark_of(self, seq: int) -> Mark:
        """The mark at which an event happens."""
        began = self._began(seq)
        if self._job.header(seq)[0] is Kind.CALL:
            return Mark(began - 1)
        earlier = seq
        while earlier and self.clocks[earlier - 1] == began:
            earlier -= 1
        return Mark(began - 1, seq - earlier + 1)

    def mark_after(self, seq: int, total: int) -> Mark:
        """The mark behind a record: what comes next there, instruction or record."""
        if seq + 1 >= self.clocks.known:
            return Mark(total)
        following = self._began(seq + 1)
        if following == self.clocks[seq] and self._job.header(seq + 1)[0] is not Kind.CALL:
            return self.mark_of(seq + 1)
        return Mark(self.clocks[seq])

    def event_at(self, mark: Mark) -> int:
        """The record that `N.k`, k > 0, stands before."""
        began = mark.clock + 1
        first = bisect.bisect_left(self.clocks, began, 0, self.clocks.known)
        seq = first + mark.step - 1
        if seq >= self.clocks.known or self._began(seq) != began:
            raise UsageError(f"mark {mark}: nothing of the host's happened there; the nearest instruction is {mark.clock}")
        return seq

    def events_before(self, mark: Mark) -> int:
        """How many events have happened at a mark."""
        if mark == START:
            return 0
        if mark.step:
            return self.event_at(mark)
        return bisect.bisect_left(self.clocks, mark.clock + 1, 0, self.clocks.known)
