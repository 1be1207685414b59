"""Positions in an execution.

A mark is `N`: as many instructions of the given module have begun, over all instances since the first call, and instruction `N`
is next. `N.k` is a moment of host activity behind the beginning of instruction `N` and before instruction `N + 1`: just before
the k-th record there is applied. `start` is before everything, `start.k` orders what the embedder did before the first
instruction.

Marks depend on the given bytes and the recording alone: they are the same on every machine and from every checkpoint.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from traces._errors import UsageError

_PLAIN: Final = re.compile(r"(?:(?P<clock>[0-9][0-9_,]{0,29})|start)(?:\.(?P<step>[0-9]{1,20}))?\Z")
_EVENT: Final = re.compile(r"e(?P<seq>[0-9][0-9_,]{0,29})(?P<after>\+)?\Z")


@dataclass(frozen=True, order=True)
class Mark:
    """A position, ordered as execution is."""

    clock: int
    """Instruction that is next; -1 for the start."""
    step: int = 0
    """0: nothing of the host's has happened since the instruction before; otherwise which record is next, from 1."""

    def __str__(self) -> str:
        name = "start" if self.clock < 0 else str(self.clock)
        return f"{name}.{self.step}" if self.step else name

    @classmethod
    def parse(cls, text: str) -> Mark:
        """The inverse of `str`. Events and `end` mean something only to a recording: see `TimeMachine.mark`."""
        found = _PLAIN.match(text.strip())
        if found is None:
            raise UsageError(f"{text!r} is not a mark: write 1204331, 1204331.2, e123, e123+, start or end")
        clock = found["clock"]
        return cls(-1 if clock is None else _number(clock), int(found["step"] or 0))


START: Final = Mark(-1)


def parse_event(text: str) -> tuple[int, bool] | None:
    """`e123` as (123, False), `e123+` as (123, True); None for anything else."""
    found = _EVENT.match(text.strip())
    return None if found is None else (_number(found["seq"]), found["after"] is not None)


def _number(text: str) -> int:
    return int(text.replace(",", "").replace("_", ""))
