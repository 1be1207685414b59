"""What is being looked at: one small value that every pane shows its part of, and the way back to earlier ones.

A pane never tells another pane anything. It moves the focus, and whoever shows a part of it follows.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Final

MOST_VISITS: Final = 500


@dataclass(frozen=True)
class Focus:
    """One moment, and what of it."""

    mark: str = "start"
    """Where, as `TimeMachine.mark` reads it: `1204331`, `1204331.2`, `e29`, `end`. Text, because it can be wanted before the
    machine that could resolve it is open."""
    event: int = 0
    """The event in view: the one that happens at the mark, else the last one before it."""
    frame: int = 0
    """Level of the chosen frame; 0 is the innermost."""
    address: int | None = None
    """First of the chosen bytes; None if none are chosen."""
    length: int = 1
    """How many bytes are chosen."""
    memory: int = 0

    @property
    def range(self) -> tuple[int, int, int] | None:
        """The chosen bytes as (memory, address, length)."""
        return None if self.address is None else (self.memory, self.address, self.length)

    def moved(self, **changes: Any) -> Focus:
        """The focus with some of it changed."""
        return replace(self, **changes)


@dataclass
class Visits:
    """The focus now, and those before and after it, as a browser keeps pages.

    Moves of one `kind` that follow each other, such as a cursor running down a table, count as one visit: its last place.
    """

    now: Focus = field(default_factory=Focus)
    _past: list[Focus] = field(default_factory=list)
    _future: list[Focus] = field(default_factory=list)
    _kind: str = ""

    def go(self, focus: Focus, kind: str = "") -> bool:
        """Moves the focus; says whether it changed. `kind` "" always begins a visit of its own."""
        if focus == self.now:
            return False
        if not (kind and kind == self._kind):
            self._past.append(self.now)
            del self._past[:-MOST_VISITS]
        self._future.clear()
        self.now, self._kind = focus, kind
        return True

    def settle(self, **changes: Any) -> None:
        """What became known about the present focus, such as the number behind `e29`: no visit, and nothing is forgotten."""
        self.now = self.now.moved(**changes)

    def back(self) -> Focus | None:
        """The focus before; None at the first."""
        return self._turn(self._past, self._future)

    def forward(self) -> Focus | None:
        """The focus that `back` left; None at the last."""
        return self._turn(self._future, self._past)

    def _turn(self, source: list[Focus], target: list[Focus]) -> Focus | None:
        if not source:
            return None
        target.append(self.now)
        self.now, self._kind = source.pop(), ""
        return self.now
