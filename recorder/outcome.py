"""How a run ends, and what may end it: the vocabulary of recorded and native runs alike. Knows neither journal nor trace."""

from __future__ import annotations

from dataclasses import dataclass

from recorder.boundary.raw import STACK_OVERFLOW, GuestExit, GuestTrap
from traces._errors import RecordingError, RefusedError, UsageError
from traces.layout import NO_IMPORT, StopReason

DEFAULT_MEMORY_LIMIT = 4 << 30
DEFAULT_TABLE_LIMIT = 10_000_000


class Stopped(BaseException):
    """The run was stopped from outside or ran into a limit. Not an Exception: hosts must not swallow it."""

    def __init__(self, reason: StopReason, clock: int | None, index: int = NO_IMPORT) -> None:
        super().__init__(reason.name.lower())
        self.reason = reason
        self.clock = clock
        self.index = index


@dataclass(frozen=True)
class Limits:
    fuel: int | None = None
    """Instructions the guest may begin; None is no limit. Any value runs the metered form."""
    timeout: float | None = None
    """Seconds; None is no limit. Any value runs the metered form."""
    max_memory: int = DEFAULT_MEMORY_LIMIT
    """Bytes each linear memory may reach; growth fails beyond."""
    max_table: int = DEFAULT_TABLE_LIMIT
    """Elements each table may reach."""

    @property
    def metered(self) -> bool:
        return self.fuel is not None or self.timeout is not None


@dataclass(frozen=True)
class Outcome:
    """How a run ended."""

    kind: str
    """returned, exit, trap, stack, fuel, timeout, interrupted, terminated"""
    exit_code: int
    """Of `reprise record` and `reprise run`."""
    message: str = ""
    code: int | None = None
    """Trap code or the guest's exit code."""
    clock: int | None = None
    """Instructions begun, if metered."""
    inside: str | None = None
    """The import that did not return, if the process was ended inside one."""

    @property
    def line(self) -> str:
        """One line for people."""
        if self.kind == "returned":
            return "returned"
        if self.kind == "exit":
            return f"exit {self.code}"
        where = f" inside {self.inside}" if self.inside else ""
        at = f" at instruction {self.clock:,}" if self.clock is not None else ""
        text = f": {self.message}" if self.message else ""
        return f"{self.kind}{where}{at}{text}"


STOPS = {
    StopReason.FUEL: ("fuel", 134, "the fuel is used up"),
    StopReason.TIMEOUT: ("timeout", 124, "the time limit was reached"),
    StopReason.INTERRUPTED: ("interrupted", 130, "interrupted"),
    StopReason.TERMINATED: ("terminated", 143, "terminated"),
}
"""Kind, exit code and message for each way of being stopped."""


def outcome_of(error: BaseException | None) -> Outcome:
    """The outcome a run that ended with `error` (None: it returned) is recorded with. Anything else is raised again."""
    if error is None:
        return Outcome("returned", 0)
    if isinstance(error, GuestExit):
        return Outcome("exit", error.code if 0 <= error.code <= 125 else 125, code=error.code)
    if isinstance(error, GuestTrap):
        kind = "stack" if error.code == STACK_OVERFLOW else "trap"
        return Outcome(kind, 134, error.message, code=error.code)
    if isinstance(error, Stopped):
        kind, exit_code, message = STOPS[error.reason]
        return Outcome(kind, exit_code, message, clock=error.clock)
    if isinstance(error, RecordingError | UsageError | RefusedError):
        raise error
    if isinstance(error, KeyboardInterrupt):
        kind, exit_code, message = STOPS[StopReason.INTERRUPTED]
        return Outcome(kind, exit_code, message)
    return Outcome("trap", 134, f"host raised {type(error).__name__}: {error}")
