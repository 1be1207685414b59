"""The front door of Reprise: the command line, and the one documented import.

    reprise record agent.wasm             python -m reprise record agent.wasm

    import reprise
    recorded = reprise.record("agent.wasm")
    print(reprise.replay(recorded.path).headline())

Both are lazy: importing this module loads none of the rooms, and a command loads what it uses. Before the first room is loaded,
all four are looked at: another distribution may own such ordinary names (docs/decisions/0001-import-names.md).
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from recorder.api import Ran, Recorded, record, recording, run
    from recorder.boundary.raw import GuestExit, GuestTrap
    from recorder.outcome import Outcome, Stopped
    from recorder.python_host import FuncRef, Guest, HostTrap, host, provide
    from recorder.values import Bits, Float
    from replayer.api import replay, verify
    from replayer.machine import TimeMachine
    from replayer.marks import Mark
    from replayer.stops import breakpoint_at, watchpoint_at
    from replayer.verdict import Verdict
    from replayer.verification import Verification
    from traces._errors import NewerFormatError, RecordingError, RefusedError, RepriseError, TraceError, UsageError
    from traces.cli import Command
    from traces.tracedir import Trace

__version__ = "0.1.0"

_HOMES = {
    "record": "recorder.api",
    "recording": "recorder.api",
    "run": "recorder.api",
    "Recorded": "recorder.api",
    "Ran": "recorder.api",
    "replay": "replayer.api",
    "verify": "replayer.api",
    "Verdict": "replayer.verdict",
    "Verification": "replayer.verification",
    "Trace": "traces.tracedir",
    "TimeMachine": "replayer.machine",
    "Mark": "replayer.marks",
    "breakpoint_at": "replayer.stops",
    "watchpoint_at": "replayer.stops",
    "host": "recorder.python_host",
    "provide": "recorder.python_host",
    "Guest": "recorder.python_host",
    "FuncRef": "recorder.python_host",
    "HostTrap": "recorder.python_host",
    "Bits": "recorder.values",
    "Float": "recorder.values",
    "Outcome": "recorder.outcome",
    "Stopped": "recorder.outcome",
    "GuestExit": "recorder.boundary.raw",
    "GuestTrap": "recorder.boundary.raw",
    "RepriseError": "traces._errors",
    "UsageError": "traces._errors",
    "RefusedError": "traces._errors",
    "RecordingError": "traces._errors",
    "TraceError": "traces._errors",
    "NewerFormatError": "traces._errors",
}
"""Where each documented name lives."""

__all__ = [
    "Bits",
    "Float",
    "FuncRef",
    "Guest",
    "GuestExit",
    "GuestTrap",
    "HostTrap",
    "Mark",
    "NewerFormatError",
    "Outcome",
    "Ran",
    "Recorded",
    "RecordingError",
    "RefusedError",
    "RepriseError",
    "Stopped",
    "TimeMachine",
    "Trace",
    "TraceError",
    "UsageError",
    "Verdict",
    "Verification",
    "__version__",
    "breakpoint_at",
    "host",
    "main",
    "provide",
    "record",
    "recording",
    "replay",
    "run",
    "verify",
    "watchpoint_at",
]


# -- the rooms are ours --------------------------------------------------------------------------------------------------

_ROOMS = ("traces", "recorder", "replayer", "inspector")
_MARK = '__distribution__ = "reprise-wasm"'
_checked = False


def _check_rooms() -> str | None:
    """Looks for each room without importing it; None if all are ours, else the one line to say."""
    global _checked
    if _checked:
        return None
    home = Path(__file__).resolve().parent
    for room in _ROOMS:
        found = _place(room, home)
        if found is not None:
            return (
                f"the package '{room}' that Python finds is not part of reprise-wasm: {found}; "
                "give Reprise an environment of its own (see docs/decisions/0001-import-names.md), "
                "or repair this one with `pip install --force-reinstall --no-deps reprise-wasm`"
            )
    _checked = True
    return None


def _place(room: str, home: Path) -> Path | None:
    """Where a room is that is not ours; None if it is."""
    ours = home / room / "__init__.py"
    spec = importlib.util.find_spec(room)
    if spec is None or spec.origin is None:
        places = list(spec.submodule_search_locations or ()) if spec is not None else []
        return Path(places[0]) if places else ours
    origin = Path(spec.origin)
    try:
        if origin.resolve() == ours and _MARK in ours.read_text(encoding="utf-8").splitlines():
            return None
    except (OSError, UnicodeDecodeError):
        pass
    return origin


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'reprise' has no attribute {name!r}")
    problem = _check_rooms()
    if problem is not None:
        raise ImportError(problem)
    value = getattr(importlib.import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)


# -- the command line ----------------------------------------------------------------------------------------------------

_COMMANDS = {
    "record": "recorder",
    "run": "recorder",
    "recover": "traces",
    "replay": "replayer",
    "verify": "replayer",
    "at": "replayer",
    "find": "replayer",
    "last-write": "replayer",
    "inspect": "inspector",
    "show": "traces",
    "events": "traces",
    "query": "replayer",
    "export": "traces",
    "pack": "traces",
    "unpack": "traces",
    "demo": "recorder",
}
"""Which room each command comes from, so that a command loads one room's `commands.py` only."""

USAGE = 64
SOFTWARE = 70
INTERRUPTED = 130
BROKEN_PIPE = 141


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit code (docs/commands.md). Never shows a traceback unless REPRISE_DEBUG is set."""
    words = list(sys.argv[1:] if argv is None else argv)
    problem = _check_rooms()
    if problem is not None:
        print(f"reprise: {problem}", file=sys.stderr)
        return USAGE
    from traces._errors import RepriseError
    from traces.cli import debugging, lenient, say

    lenient(sys.stdout)
    lenient(sys.stderr)
    try:
        code = _dispatch(words)
        if sys.stdout is not None:
            sys.stdout.flush()
        return code
    except RepriseError as error:
        if debugging():
            raise
        say(str(error))
        return error.exit_code
    except KeyboardInterrupt:
        say("interrupted")
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has left; without this Python complains once more when it closes the stream.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except Exception as error:
        if debugging():
            raise
        say(f"unexpected {type(error).__name__}: {error}; REPRISE_DEBUG=1 shows the traceback, please report it")
        return SOFTWARE


def _dispatch(words: list[str]) -> int:
    from traces._errors import UsageError

    name, rest = (words[0], words[1:]) if words else ("--help", [])
    if name in ("-h", "--help", "help"):
        print(_help())
        return 0
    if name in ("-V", "--version"):
        print(f"reprise {__version__}")
        return 0
    if name not in _COMMANDS:
        what = "option" if name.startswith("-") else "command"
        raise UsageError(f"no {what} {name!r}; see `reprise --help`")
    command = _room_commands(_COMMANDS[name])[name]
    try:
        return command.run(command.parse(rest))
    except SystemExit as end:  # argparse, after printing help
        return end.code if isinstance(end.code, int) else 0


def _room_commands(room: str) -> dict[str, Command]:
    module = importlib.import_module(f"{room}.commands")
    return {command.name: command for command in module.COMMANDS}


def _help() -> str:
    from traces.cli import GROUPS

    commands = [_room_commands(room)[name] for name, room in _COMMANDS.items()]
    lines = ["usage: reprise COMMAND [OPTIONS] …", "", "Records WebAssembly agents, and replays them bit for bit."]
    for group in GROUPS:
        members = [command for command in commands if command.group == group]
        if members:
            lines += ["", f"{group}:", *(f"  {command.name:<10}{command.summary}" for command in members)]
    lines += ["", "`reprise COMMAND --help` says more; `reprise --version` prints the version."]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
