"""What becomes of full slots: appended to the log at once, converted to Parquet as time allows.

Two threads, because they have different hurry. The guest waits for the appending thread when it is three slots behind, so
that one does nothing but copy; converting takes several times as long as recording, so that thread works from the log, at
low priority, and catches up when the guest is done. The log holds the whole recording until the trace is finished: it is
what recovery reads.
"""

from __future__ import annotations

import contextlib
import os
import queue
import threading
from dataclasses import dataclass
from pathlib import Path

from traces._errors import RecordingError
from traces.journal import LOG_FILE, Log, Ring, disk_error, load_codec
from traces.manifest import Manifest
from traces.tracedir import EVENTS, JOURNAL

_BACKGROUND = 5
"""Niceness of the converting threads: the guest has the processor first."""


@dataclass(frozen=True)
class _Appended:
    """A slot that stands in the log, or the last one, which is taken from the ring as it is."""

    generation: int
    at: int
    data: bytes | None = None


class Archiver:
    """Appends and converts until the ring's last slot has been sealed; `join` waits for both."""

    def __init__(self, ring: Ring, directory: Path, manifest: Manifest, durable: bool) -> None:
        self.ring = ring
        self.directory = directory
        self.manifest = manifest
        self.durable = durable
        self.failure: RecordingError | None = None
        """Why the recording cannot go on, once it cannot."""
        self.places: set[tuple[int, int]] = set()
        """Where digests were taken: generation of the slot, offset in it. Given before the slot is handed over."""
        self.located: dict[tuple[int, int], int] = {}
        """For each such place, how many records stand before it."""
        self.windows = 0
        self.bytes = 0
        self.records = 0
        self._log = Log(directory / JOURNAL / LOG_FILE)
        self._appended: queue.SimpleQueue[_Appended | None] = queue.SimpleQueue()
        self._threads = [
            threading.Thread(target=self._guarded, args=(work,), name=f"reprise-{name}", daemon=True)
            for name, work in (("appender", self._append), ("converter", self._convert))
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def join(self) -> None:
        for thread in self._threads:
            thread.join()
        self._log.close()

    def _guarded(self, work: object) -> None:
        try:
            assert callable(work)
            work()
        except OSError as error:
            self._fail(disk_error(error, self.directory))
        except RecordingError as error:
            self._fail(error)
        except Exception as error:  # whatever it is, the guest must not run on unrecorded
            reason = f"{type(error).__name__}: {error}"
            self._fail(RecordingError(f"recording failed: {reason}; `reprise recover {self.directory}` keeps what was recorded"))

    def _fail(self, failure: RecordingError) -> None:
        if self.failure is None:
            self.failure = failure
        self.ring.ask_to_stop()
        self._appended.put(None)

    # -- appending -----------------------------------------------------------------------------------------------------------

    def _append(self) -> None:
        for generation, window, last in self.ring.sealed():
            if last:
                # The trace is about to be finished, and until then the slot is safe where it is.
                self._appended.put(_Appended(generation, 0, bytes(window)))
            else:
                at = self._log.append(generation, window)
                if self.durable:
                    self._log.sync()
                self._appended.put(_Appended(generation, at))
            self.ring.freed()
        self._appended.put(None)

    # -- converting ----------------------------------------------------------------------------------------------------------

    def _convert(self) -> None:
        _stand_back()
        # Imported here: the guest need not wait for Arrow to load.
        from traces.tables import EventsWriter

        self._log.codec = load_codec()
        events = self.directory / EVENTS
        with EventsWriter(events, self.manifest.imports, self.manifest.exports, start_thread=_stand_back) as writer:
            while (slot := self._appended.get()) is not None:
                window = self._log.read(slot.at) if slot.data is None else memoryview(slot.data)
                self._locate(slot.generation, window, writer.rows)
                if len(window):
                    writer.write_window(window)
                    self.windows += 1
                    self.bytes += len(window)
            self.records = writer.rows
            if self.failure is not None:
                raise self.failure

    def _locate(self, generation: int, window: memoryview, first: int) -> None:
        """Finds out how many records stand before the places at which digests were taken in this slot."""
        places = sorted(offset for wanted, offset in list(self.places) if wanted == generation)
        sizes = window.cast("I") if places and places[-1] else None
        at = count = 0
        for place in places:
            while sizes is not None and at < place:
                at += sizes[at // 4]
                count += 1
            self.located[generation, place] = first + count
            self.places.discard((generation, place))


def _stand_back() -> None:
    """Lowers this thread's priority, where threads have one of their own (Linux)."""
    with contextlib.suppress(OSError, AttributeError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _BACKGROUND)
