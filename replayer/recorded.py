"""What a replay needs of a trace, wherever it comes from: the trace's tables, or the image a worker process is given.

A worker must have one thread, and Arrow starts some as it is imported: so nothing here imports it before it is asked for.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from traces._errors import TraceError
from traces.manifest import Manifest

if TYPE_CHECKING:
    from traces.states import StateRow
    from traces.tables import Window
    from traces.tracedir import Trace


class Reader(Protocol):
    """The records of a recording, window by window."""

    rows: int
    largest_window: int

    def windows(self) -> Generator[Window, None, None]: ...

    def trailing(self, kind: str) -> int: ...

    def close(self) -> None: ...


@dataclass
class Recorded:
    """One recording."""

    given: str
    """What the user called it; for messages."""
    manifest: Manifest
    module: bytes
    reader: Reader
    states: list[StateRow]
    substituted: bool = False
    """Whether `module` is another than the recorded one."""

    @classmethod
    def of(cls, trace: Trace, module: bytes | None = None) -> Recorded:
        """A trace's tables. Raises TraceError if they contradict the manifest."""
        from traces.tables import EventsReader, read_states
        from traces.tracedir import EVENTS, STATES

        given = trace.module() if module is None else module
        reader = EventsReader(trace.path / EVENTS)
        counted = trace.manifest.totals.get("records")
        if counted != reader.rows:
            reader.close()
            raise TraceError(
                f"{trace.given}: the manifest counts {counted} events, {EVENTS} holds {reader.rows}; restore it from a copy"
            )
        states = read_states(trace.path / STATES)
        return cls(str(trace.given), trace.manifest, given, reader, states, module is not None)
