"""What someone who waits for the time machine has to know of its processes; importing it imports nothing else of the machine."""

from __future__ import annotations

from collections.abc import Callable

from traces._errors import RepriseError


class WorkerDied(RepriseError):
    """A process of the machine is gone. The machine starts another and goes on; this says what happened."""


class Cancelled(Exception):
    """Whoever asked no longer wants to know."""


Watch = Callable[[int, int], None]
"""Told how far a running guest is: clock and events. May raise Cancelled."""
