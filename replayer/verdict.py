"""What a replay says in the end, and how a divergence is told.

identical    every record was served, and everything that can be compared is equal
diverged     at event N the guest did something else, or ended in another state
incomplete   the recording itself stops short: identical as far as it goes
unusable     the trace cannot be replayed at all
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

EXIT_CODES = {"identical": 0, "diverged": 3, "incomplete": 4, "unusable": 5}


@dataclass(frozen=True)
class Difference:
    """Where a replay left the recording."""

    seq: int
    """Event number."""
    expected: str
    """What the recording holds there."""
    got: str
    """What the guest did instead."""
    where: str = ""
    """Which argument, byte or page; "" if the two texts say it all."""
    frames: tuple[str, ...] = ()
    """The guest's call stack, innermost first."""


@dataclass
class Verdict:
    """The result of one replay."""

    kind: str
    events: int = 0
    """Events that were served and compared equal."""
    total: int = 0
    """Events in the recording."""
    reason: str = ""
    """Why it is incomplete or unusable."""
    difference: Difference | None = None
    compared: dict[str, Any] = field(default_factory=dict)
    """What the verdict rests on: memories, globals, tables, moments at which digests were compared."""
    notes: list[str] = field(default_factory=list)
    """What a reader must know besides: another engine version, say."""

    @property
    def exit_code(self) -> int:
        return EXIT_CODES[self.kind]

    def headline(self) -> str:
        """One line."""
        if self.kind == "identical":
            return f"identical: {self.events:,} events, {self._basis()}"
        if self.kind == "diverged":
            assert self.difference is not None
            return f"diverged at event {self.difference.seq:,} of {self.total:,}"
        if self.kind == "incomplete":
            return f"incomplete: {self.reason}; identical up to event {self.events:,} of {self.total:,}"
        return f"unusable: {self.reason}"

    def _basis(self) -> str:
        parts = []
        for key in ("memories", "globals", "tables"):
            count = len(self.compared.get(key, ()))
            if count:
                parts.append(f"{count} {key[:-3] + 'y' if key == 'memories' and count == 1 else key[:-1] if count == 1 else key}")
        moments = self.compared.get("moments", 0)
        what = ", ".join(parts) or "results only"
        return f"{what} compared at {moments:,} moment{'s' if moments != 1 else ''}" if moments else what

    def lines(self, trace: str) -> list[str]:
        """For people: the verdict, and after a divergence what was expected, what came, and the command to look there."""
        lines = [self.headline()]
        d = self.difference
        if d is not None:
            lines.append(f"  expected  {d.expected}")
            lines.append(f"  got       {d.got}")
            if d.where:
                lines.append(f"  where     {d.where}")
            lines += [f"  {'guest' if i == 0 else '     '}     {frame}" for i, frame in enumerate(d.frames[:8])]
            lines.append(f"  look      reprise events {trace} --around {d.seq}")
        lines += [f"  note      {note}" for note in self.notes]
        return lines

    def to_json(self) -> dict[str, Any]:
        d = self.difference
        return {
            "schema": "reprise.verdict/1",
            "verdict": self.kind,
            "events": self.events,
            "total": self.total,
            "reason": self.reason,
            "difference": None
            if d is None
            else {"seq": d.seq, "expected": d.expected, "got": d.got, "where": d.where, "frames": list(d.frames)},
            "compared": self.compared,
            "notes": self.notes,
        }


class Diverged(Exception):
    """The guest left the recording."""

    def __init__(self, difference: Difference) -> None:
        super().__init__(f"diverged at event {difference.seq}")
        self.difference = difference


class RecordingEnds(Exception):
    """An incomplete recording has been replayed to its last record."""
