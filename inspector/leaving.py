"""Leaving when the process is told to from outside: the terminal gets back what it was."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from typing import Any, Final

from textual.app import App

PATIENCE: Final = 10.0
"""Seconds after which the process ends however far it got."""


def heed_signals(app: App[Any]) -> None:
    """Ends an app in order when its process is to end or its terminal is gone. To be called in the event loop."""
    if threading.current_thread() is threading.main_thread() and not app.is_headless:
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, _leave, app, 128 + number)


def _leave(app: App[Any], code: int) -> None:
    # Whoever writes to a terminal that is gone may wait for ever; the guest's processes end with this one.
    guard = threading.Timer(PATIENCE, os._exit, (code,))
    guard.daemon = True
    guard.start()
    app.exit(return_code=code)
