"""What outlives one showing of the browser: the runs of a store, what verifying them came to, and how they were shown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from inspector.runs.listing import in_order, matches
from inspector.runs.run import Finding, Run, Stamp
from inspector.runs.store import Portion, Store


@dataclass
class View:
    """What the list showed, so that it can be shown again as it was."""

    filter: str = ""
    column: str = "started"
    reverse: bool = False
    chosen: Path | None = None
    """The run under the cursor; None before anyone moved it."""
    top: int = 0

    def rows(self, runs: Mapping[Path, Run]) -> list[Run]:
        """The runs to show, in order."""
        words = self.filter.casefold().split()
        return in_order((run for run in runs.values() if not words or matches(run, words)), self.column, self.reverse)


@dataclass
class Shelf:
    """The runs of a store, as far as they are known."""

    store: Store
    runs: dict[Path, Run] = field(default_factory=dict)
    view: View = field(default_factory=View)
    _findings: dict[Path, tuple[Stamp, Finding]] = field(default_factory=dict)
    """What verifying came to, and what the run was like then: it says nothing of another one."""

    def take(self, portion: Portion) -> None:
        for run in portion.runs:
            stamp, finding = self._findings.get(run.path, (None, None))
            self.runs[run.path] = replace(run, verdict=finding) if stamp == run.stamp else run
        for path in portion.gone:
            self.runs.pop(path, None)
            self._findings.pop(path, None)

    def found(self, path: Path, finding: Finding) -> None:
        """A run was verified."""
        if path in self.runs:
            self._findings[path] = (self.runs[path].stamp, finding)
            self.runs[path] = replace(self.runs[path], verdict=finding)

    def forget(self, path: Path) -> None:
        """The next look reads this run anew."""
        if path in self.runs:
            self.runs[path] = replace(self.runs[path], stamp=())
