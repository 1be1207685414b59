"""Time and stops from outside: the coarse clock, the deadline, Ctrl-C and SIGTERM.

While Wasm or native WASI runs, Python's main thread sees no signal. A thread does: it keeps the journal's clock word fresh,
reads signals from the wake-up pipe that CPython's C-level handler writes to, and watches the deadline. A stop is asked for first;
if the guest has not come out after a grace period (it spins without imports, or sits in a host call), `stuck` takes over.
"""

from __future__ import annotations

import os
import select
import signal
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

from traces.layout import StopReason

TICK = 0.001
GRACE = 1.0
"""Seconds between asking a guest to stop and ending the process under it."""

_REASONS = {signal.SIGINT: StopReason.INTERRUPTED, signal.SIGTERM: StopReason.TERMINATED}


class Watchdog:
    """One thread for one recording. `close` must be called, and does not return before the thread has ended."""

    def __init__(
        self,
        tick: Callable[[int], None],
        stop: Callable[[StopReason], None],
        stuck: Callable[[StopReason], None] | None,
        timeout: float | None,
        signals: bool,
        grace: float = GRACE,
    ) -> None:
        self._tick = tick
        self._stop = stop
        self._stuck = stuck
        self._grace = grace
        self._began = time.monotonic_ns()
        self._deadline = None if timeout is None else time.monotonic() + timeout
        self._closing = threading.Event()
        self._read, self._write = os.pipe()
        os.set_blocking(self._write, False)
        self._previous_wakeup: int | None = None
        self._previous: dict[int, Any] = {}
        if signals and threading.current_thread() is threading.main_thread():
            self._take_signals()
        self._thread = threading.Thread(target=self._watch, name="reprise-watchdog", daemon=True)
        self._thread.start()

    def _take_signals(self) -> None:
        def ignore(_signal: int, _frame: FrameType | None) -> None:
            """The byte in the wake-up pipe has said it already."""

        for number in _REASONS:
            self._previous[number] = signal.signal(number, ignore)
        self._previous_wakeup = signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)

    def _watch(self) -> None:
        reason: StopReason | None = None
        stuck_at = 0.0
        signals = select.poll()  # not select(): an embedder may have a thousand descriptors open
        signals.register(self._read, select.POLLIN)
        while not self._closing.is_set():
            self._tick((time.monotonic_ns() - self._began) // 1_000_000)
            asked = self._signalled() if signals.poll(TICK * 1000) else None
            if asked is None and reason is None and self._deadline is not None and time.monotonic() >= self._deadline:
                asked = StopReason.TIMEOUT
            if asked is not None and reason is None:
                reason, stuck_at = asked, time.monotonic() + self._grace
                self._stop(asked)
            elif asked is not None:
                stuck_at = 0.0  # asked twice: do not wait any longer
            if reason is not None and time.monotonic() >= stuck_at and self._stuck is not None:
                if not self._closing.is_set():
                    self._stuck(reason)
                return

    def _signalled(self) -> StopReason | None:
        for number in os.read(self._read, 64):
            if number in _REASONS:
                return _REASONS[signal.Signals(number)]
        return None

    def close(self) -> None:
        self._closing.set()
        if threading.current_thread() is not self._thread:
            self._thread.join()
        if self._previous_wakeup is not None:
            signal.set_wakeup_fd(self._previous_wakeup)
        for number, handler in self._previous.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)  # None: not a handler of Python's
        self._previous = {}
        os.close(self._read)
        os.close(self._write)
