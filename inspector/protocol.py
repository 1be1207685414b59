"""What the session can be asked, and what it tells: plain values that cross between the event loop and the session's thread."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from inspector.events.spans import Survey
from inspector.memory.search import Wanted
from inspector.snapshot import Facts, FrameDetail, Pages, Snapshot, StopPoint, TableWindow
from replayer.marks import Mark

# -- what can be asked ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Seek:
    """Go to a mark. Only the newest one counts."""

    mark: str
    frame: int = 0


@dataclass(frozen=True)
class Step:
    how: str
    reverse: bool = False
    by: str = "line"


@dataclass(frozen=True)
class Run:
    """Continue to the next break- or watchpoint, or to the end."""

    reverse: bool = False


@dataclass(frozen=True)
class RunToPlace:
    """Run to a place in the code, written as a breakpoint."""

    place: str
    reverse: bool = False


@dataclass(frozen=True)
class LastChange:
    """Go to the last write of these bytes before here."""

    memory: int
    address: int
    length: int


@dataclass(frozen=True)
class WhoWrote:
    """Tell of that write, without going there."""

    memory: int
    address: int
    length: int


@dataclass(frozen=True)
class ShowFrame:
    """Show another frame of this moment."""

    level: int


@dataclass(frozen=True)
class Expand:
    """Show what a value is made of, or no longer."""

    path: tuple[str, ...]


@dataclass(frozen=True)
class ReadMemory:
    memory: int
    address: int
    length: int


@dataclass(frozen=True)
class Compare:
    """Compare bytes with this mark from now on; None: with the stop before."""

    mark: str | None


@dataclass(frozen=True)
class FindBytes:
    needle: Wanted
    memory: int
    start: int
    """The first address to look at; backward, the first behind those to look at."""
    reverse: bool = False


@dataclass(frozen=True)
class NextChange:
    """Find the first changed run of bytes behind an address, or the last before it."""

    memory: int
    address: int | None
    """None: of the whole memory."""
    reverse: bool = False


@dataclass(frozen=True)
class FindAddress:
    """Find what somebody means by an address; see `addresses`."""

    text: str
    memory: int
    level: int
    """The frame whose variables are meant."""


@dataclass(frozen=True)
class ListNames:
    """Tell what can be given as an address, besides the variables of frames."""


@dataclass(frozen=True)
class ReadTable:
    table: int
    start: int
    length: int


@dataclass(frozen=True)
class AddStop:
    point: StopPoint


@dataclass(frozen=True)
class Locate:
    """Tell at which marks these events happen."""

    events: tuple[int, ...]


@dataclass(frozen=True)
class Place:
    """Tell at which clocks these calls, spans and problems are."""

    survey: Survey


@dataclass(frozen=True)
class CountEvents:
    """Count the events in each of so many equal parts of [low, high), in instructions."""

    low: int
    high: int
    columns: int


@dataclass(frozen=True)
class MeasureStretch:
    """Tell which events are in [low, high), in instructions."""

    low: int
    high: int


Request = (
    Seek | Step | Run | RunToPlace | LastChange | WhoWrote | Compare | FindBytes | NextChange | Locate | AddStop
    | ShowFrame | Expand | ReadMemory | ReadTable | FindAddress | ListNames | Place | CountEvents | MeasureStretch
)  # fmt: skip
MOTIONS: Final = (Seek, Step, Run, RunToPlace, LastChange, WhoWrote, Compare, FindBytes, NextChange)
"""May take long, and can be cancelled."""
LOOKS: Final = (ShowFrame, Expand, ReadMemory, ReadTable, FindAddress, ListNames, Place, CountEvents, MeasureStretch)
"""Need the guest only as it is shown."""


# -- what is told --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Opened:
    facts: Facts


@dataclass(frozen=True)
class Refused:
    """There is no machine for this recording; its tables can be read all the same."""

    why: str


@dataclass(frozen=True)
class Progress:
    """Something takes a while. `what` "" says that it is over."""

    what: str
    clock: int = 0
    events: int = 0


@dataclass(frozen=True)
class Arrived:
    snapshot: Snapshot
    reason: str = ""
    """What stopped the motion, if it is worth telling."""
    range: tuple[int, int, int] | None = None
    """The bytes it was about."""
    kind: str = ""
    """Of visit; see `focus.Visits`."""
    asked: str | None = None
    """The mark that was asked for; None after a motion, which finds its own."""
    pages: Pages | None = None
    """The bytes that were looked at before, as they are here."""
    seeks: int = 0
    """How many seeks there had been; if there were more since, this is not where the user wants to be."""


@dataclass(frozen=True)
class Missed:
    """The guest did not come to the mark that was asked for: it is where it was."""

    asked: str


@dataclass(frozen=True)
class Detailed:
    """Another frame of the same moment, or the same one with something expanded."""

    mark: Mark
    detail: FrameDetail


@dataclass(frozen=True)
class PagesRead:
    pages: Pages


@dataclass(frozen=True)
class TableRead:
    window: TableWindow


@dataclass(frozen=True)
class Named:
    """What can be given as an address."""

    names: tuple[str, ...]


@dataclass(frozen=True)
class Found:
    """Bytes that were looked for."""

    memory: int
    address: int
    length: int
    note: str = ""
    """What there is to tell of it."""


@dataclass(frozen=True)
class Answer:
    """Text to read, and a mark to go to."""

    title: str
    lines: tuple[str, ...]
    mark: str | None


@dataclass(frozen=True)
class Said:
    """One line for the user."""

    text: str
    severity: str = "information"
    """information, warning or error"""


@dataclass(frozen=True)
class StopsChanged:
    points: tuple[StopPoint, ...]


@dataclass(frozen=True)
class Located:
    clocks: tuple[tuple[int, int], ...]
    """(event, instruction), of the events that were reached."""


@dataclass(frozen=True)
class Placed:
    survey: Survey


@dataclass(frozen=True)
class Counted:
    low: int
    high: int
    counts: tuple[int, ...]


@dataclass(frozen=True)
class Measured:
    low: int
    high: int
    first: int
    """The first event in it."""
    end: int
    """The first behind it."""


Report = (
    Opened | Refused | Progress | Arrived | Missed | Detailed | PagesRead | TableRead | Named | Found | Answer | Said
    | StopsChanged | Located | Placed | Counted | Measured
)  # fmt: skip
