"""What the panes show: plain values taken from the time machine at one moment. They stay true when it goes elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

from inspector.divergence import Divergence
from inspector.memory.labels import Label
from replayer.marks import Mark


@dataclass(frozen=True)
class Facts:
    """What is known of a recording once its machine is open and proven."""

    total: int
    """Instructions of the whole execution."""
    events: int
    reached: int
    """Events the replay reached; fewer than `events` if it diverged."""
    verdict: str
    reason: str
    """Why it is not "identical", in one line; empty if it is."""
    diverged: int | None
    """The event at which the replay diverged."""
    memories: int
    has_source: bool
    notes: tuple[str, ...]
    density: tuple[int, ...]
    """Events in each of equally long parts of the execution, counted in instructions."""
    wide: tuple[bool, ...] = ()
    """Of each memory, whether its addresses have 64 bits."""
    globals: int = 0
    tables: tuple[Label, ...] = ()
    difference: Divergence | None = None
    """What the divergence was, if the verdict tells."""
    changed: tuple[str, ...] = ()
    """Files that are not as they were when the recording was closed."""


@dataclass(frozen=True)
class FrameHead:
    """One frame, without what is in it."""

    level: int
    name: str
    file: str
    """Source file; empty if it is not known."""
    line: int
    """0 if it is not known."""
    pc: int
    function: int
    """-1 for a host that called back."""
    inlined: tuple[str, ...]
    """Calls the compiler dissolved into it, innermost first."""

    @property
    def where(self) -> str:
        if self.function < 0:
            return "host"
        return f"{self.file.rsplit('/', 1)[-1]}:{self.line}" if self.file else f"+{self.pc:#x}"


@dataclass(frozen=True)
class ValueRow:
    """A variable, a member of one, or a local or operand of the module's."""

    path: tuple[str, ...]
    """Names from the variable down to this one."""
    name: str
    type_name: str
    text: str
    was: str | None
    """What it was at the stop before; None if it is the same, or was not there."""
    address: int | None
    """Where it lies in memory; None if it does not."""
    length: int
    """Bytes it has there."""
    target: int | None
    """Of a pointer: where it points."""
    expandable: bool
    expanded: bool
    available: bool = True


@dataclass(frozen=True)
class SourceText:
    """A source file, and where in it a frame is."""

    file: str
    line: int
    lines: Sequence[str] = field(repr=False)
    current: bool | None
    """Whether this is what the module was compiled from; None if nothing tells."""
    inside: frozenset[int] = field(default=frozenset(), repr=False)
    """The lines, counted from 0, that begin inside a comment."""


@dataclass(frozen=True)
class CodeLine:
    pc: int
    depth: int
    text: str


@dataclass(frozen=True)
class CodeText:
    """The instructions of a frame's function."""

    function: int
    name: str
    pc: int
    lines: Sequence[CodeLine] = field(repr=False)

    @cached_property
    def index(self) -> int:
        """Which of the lines is the frame's."""
        return next((i for i, line in enumerate(self.lines) if line.pc == self.pc), 0)


@dataclass(frozen=True)
class FrameDetail:
    """One frame in full."""

    level: int
    values: tuple[ValueRow, ...]
    source: SourceText | None
    """None if the module has no source there, or its text is not at hand: then `missing` says which file that would be."""
    missing: str
    code: CodeText | None


@dataclass(frozen=True)
class Snapshot:
    """A moment."""

    mark: Mark
    events: int
    """Events that have happened."""
    event: int | None
    """The one that happens here; None in between."""
    frames: tuple[FrameHead, ...]
    depth: int
    """Frames there are; `frames` may hold fewer."""
    globals: tuple[ValueRow, ...]
    memory_sizes: tuple[int, ...]
    at_end: bool
    detail: FrameDetail | None
    """Of the chosen frame; None while the guest does not run."""
    before: Mark | None
    """The mark with which bytes are compared: the stop before, or a chosen one."""
    compared: bool = False
    """Whether it was chosen."""
    before_event: int | None = None
    """The event that happens there."""

    @property
    def in_view(self) -> int:
        """The event that happens here, else the last one that did."""
        return self.event if self.event is not None else max(0, self.events - 1)


@dataclass(frozen=True)
class Pages:
    """Bytes of a memory, and what they were at the moment they are compared with."""

    mark: Mark
    memory: int
    address: int
    data: bytes = field(repr=False)
    old: bytes | None = field(repr=False)
    """Zeros where there was no memory yet; None if there is no such moment."""
    before: Mark | None = None
    """Which that is."""


@dataclass(frozen=True)
class Element:
    """One element of a table."""

    text: str
    null: bool
    was: str | None
    """What it was at the moment it is compared with; None if it is the same."""


@dataclass(frozen=True)
class TableWindow:
    """Some elements of a table."""

    mark: Mark
    before: Mark | None
    table: int
    start: int
    size: int
    """Elements of the whole table."""
    elements: tuple[Element, ...] = field(repr=False)


@dataclass(frozen=True)
class StopPoint:
    """A break- or watchpoint, as it was asked for."""

    text: str
    """func=…, import=…, line=…, pc=…; or ADDRESS:LENGTH, global=N."""
    watches: bool
    condition: str | None = None
    enabled: bool = True

    def describe(self) -> str:
        kind = "watch" if self.watches else "break"
        return f"{kind} {self.text}" + (f" if {self.condition}" if self.condition else "")
