"""Finding events: the next one, or the one before, that says or carries something. Knows nothing of a screen.

Made in the event loop; `find` runs in a thread and may take as long as reading the whole recording does.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import pyarrow.compute as pc

from inspector.events.filters import Filter, Look, Needle, Tick

KEPT_MASKS: Final = 4


@dataclass(frozen=True)
class Hit:
    """An event that was found."""

    seq: int
    wrapped: bool
    """It lies on the other side of the recording's end, or of its start."""


class Search:
    """Looks for one needle; what was found in the last windows is kept, so that the next is near.

    Args:
        look: one window of the recording, by number.
        windows: how many there are.
        window_of: the window that holds an event.
        shown: only events that pass are found.
    """

    def __init__(
        self, needle: Needle, look: Callable[[int], Look], windows: int, window_of: Callable[[int], int], shown: Filter | None
    ) -> None:
        self.needle, self.shown = needle, shown
        self._look, self._windows, self._window_of = look, windows, window_of
        self._masks: OrderedDict[int, tuple[int, Any]] = OrderedDict()

    def find(self, at: int, reverse: bool, tick: Callable[[float], None]) -> Hit | None:
        """The next event behind `at`, or the last before it; the search goes on at the other end. `tick` is told how much of the
        recording was read, and raises to end it."""
        here, count = self._window_of(at), self._windows
        for step in range(count + 1):
            number = (here - step if reverse else here + step) % count
            share = step / count
            first, mask = self._mask(number, lambda share=share: tick(share))  # type: ignore[misc]
            tick(share)
            near = at - first
            wrapped = step == count or (number > here if reverse else number < here)
            if number != here:
                part, offset = mask, 0
            elif reverse != wrapped:  # the part before
                part, offset = mask.slice(0, near + (0 if reverse else 1)), 0
            else:
                offset = near + (0 if reverse else 1)
                part = mask.slice(offset)
            found = pc.indices_nonzero(part)
            if len(found):
                return Hit(first + offset + int(found[-1 if reverse else 0].as_py()), wrapped)
        return None

    def _mask(self, number: int, tick: Tick) -> tuple[int, Any]:
        found = self._masks.pop(number, None)
        if found is None:
            look = self._look(number)
            among = None if self.shown is None else self.shown.mask(look, tick)
            mask = self.needle.mask(look, tick, among)
            found = look.index.first, mask if among is None else pc.and_(mask, among)
        self._masks[number] = found
        if len(self._masks) > KEPT_MASKS:
            self._masks.popitem(last=False)
        return found
