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
class Sent:
    """Bytes of the guest's memory that a host was handed."""

    memory: int
    address: int
    data: bytes
    """Of a long piece only what lies around the first difference."""

    def to_json(self) -> dict[str, Any]:
        return {"memory": self.memory, "address": self.address, "data": self.data.hex()}


@dataclass(frozen=True)
class Side:
    """What one of the two did where they parted, taken apart: for whoever shows them side by side."""

    kind: str
    """As the kind of an event; "state" for a digest, "end" behind the last event."""
    name: str = ""
    """The import or the export; the memory, global or table of a digest."""
    values: tuple[tuple[str, str, int], ...] = ()
    """(name, type, bits): arguments of a call, results of a return."""
    sent: tuple[Sent, ...] = ()
    text: str = ""
    """What there is to say besides: how a trap was worded, or a digest."""

    def to_json(self) -> dict[str, Any]:
        # Bits as text: what reads JSON elsewhere may have no integers of this size.
        values = [{"name": name, "type": kind, "bits": hex(bits)} for name, kind, bits in self.values]
        sent = [piece.to_json() for piece in self.sent]
        return {"kind": self.kind, "name": self.name, "values": values, "sent": sent, "text": self.text}


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
    sides: tuple[Side, Side] | None = None
    """The same two, expected and got, taken apart; None if the texts are all there is."""
    place: tuple[int, int, int] | None = None
    """(memory, address, length) of the first bytes that differ; None if it is not about bytes."""
    calling: str = ""
    """The import the guest was calling; "" if it was not."""

    def to_json(self) -> dict[str, Any]:
        sides = None if self.sides is None else {"expected": self.sides[0].to_json(), "got": self.sides[1].to_json()}
        place = None if self.place is None else dict(zip(("memory", "address", "length"), self.place, strict=True))
        return {
            "seq": self.seq, "expected": self.expected, "got": self.got, "where": self.where, "frames": list(self.frames),
            "sides": sides, "place": place, "calling": self.calling,
        }  # fmt: skip


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
            "difference": None if d is None else d.to_json(),
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
