"""What is measured of the inspector, as its user has it: the command in a terminal of its own, keys written, bytes drawn.

A section for `workloads.py`. The terminal is a pseudo terminal of 120 by 40; what is drawn is read and thrown away but for its
text. A key counts until the last byte of what it makes the inspector draw.
"""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
COLUMNS, LINES = 120, 40
QUIET = 0.15
"""Seconds without a byte after which a screen counts as drawn."""
PATIENCE = 600.0
_CONTROL = re.compile(rb"\x1b(?:\[[0-9;:?<>=$]*[a-zA-Z]|[\]P][^\x07\x1b]*(?:\x07|\x1b\\)|[()][A-Z0-9]|[=>])")


class Screen:
    """The inspector on a trace, in a pseudo terminal."""

    def __init__(self, home: Path, *arguments: str) -> None:
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
        environment = {**os.environ, "TERM": "xterm-256color", "COLORTERM": "truecolor", "XDG_CONFIG_HOME": str(home)}
        self.began = time.perf_counter()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "reprise", "inspect", *arguments],
            cwd=ROOT, env=environment, stdin=slave, stdout=slave, stderr=slave, start_new_session=True,
        )  # fmt: skip
        os.close(slave)
        self.text = b""
        """What was drawn, without colours and positions."""

    def _read(self, patience: float) -> bool:
        """Takes what has been drawn; says whether there was anything."""
        if not select.select([self._master], [], [], patience)[0]:
            return False
        self.text += _CONTROL.sub(b"", os.read(self._master, 1 << 16))
        return True

    def until(self, text: str) -> float:
        """When this text had been drawn, in seconds since the start."""
        wanted = text.encode()
        while wanted not in self.text:
            if time.perf_counter() - self.began > PATIENCE or not self._read(PATIENCE):
                raise RuntimeError(f"{text!r} never came; last: {self.text[-300:]!r}")
        return time.perf_counter() - self.began

    def settle(self) -> None:
        """Waits until nothing is drawn any more."""
        while self._read(4 * QUIET):
            pass

    def press(self, key: bytes) -> float | None:
        """Seconds from a key to the last byte that it draws; None if it draws nothing."""
        began = time.perf_counter()
        last = None
        os.write(self._master, key)
        while self._read(QUIET if last is not None else 5.0):
            last = time.perf_counter()
        return None if last is None else last - began

    def close(self) -> None:
        self._process.terminate()
        while self._process.poll() is None:
            try:
                self._read(0.05)
            except OSError:  # the other side is gone
                break
        self._process.wait(timeout=30)
        os.close(self._master)


def inspector(scratch: Path, spec: dict[str, Any]) -> dict[str, Any]:
    """First paint and place of a large recording; keys on the demo's recording and in the middle of a long run."""
    from workloads import IMPORT_LOOP, PROGRAMS, Recorded, Task, load

    from replayer.machine import TimeMachine
    from traces.tables import EventsReader
    from traces.tracedir import EVENTS

    large, long = scratch / "large.trace", scratch / "long.trace"
    Recorded(Task(load(IMPORT_LOOP), "run", (spec["events"],)), large)()
    with EventsReader(large / EVENTS) as reader:
        events = reader.rows
    Recorded(Task(load(PROGRAMS / "parse.wasm"), argv=(str(spec["scale"]),)), long)()
    with TimeMachine(long) as machine:
        machine.know()
        middle = machine.total // 2
    paints, places = [], []
    for _ in range(spec["repetitions"]):
        screen = Screen(scratch, str(large))
        try:
            paints.append(screen.until("large.trace"))
            places.append(screen.until(f" of {events:,}"))
        finally:
            screen.close()
    incident = ROOT / "tests" / "goldens" / "format-1" / "incident.trace"
    keys = {
        "event": (b",", b"."),
        "line": (b"s", b"n"),
        "line_back": (b"S", b"N"),
        "instruction": (b"s",),
        "instruction_back": (b"S",),
    }
    demo = _keys(Screen(scratch, str(incident), "--source", str(ROOT / "recorder" / "demo")), keys, spec["places"])
    single = {name: keys[name] for name in ("instruction", "instruction_back")}
    far = _keys(Screen(scratch, str(long), "--at", str(middle)), single, spec["places"])
    return {"events": events, "paints": paints, "places": places, "demo": demo, "long": far}


def _keys(screen: Screen, keys: dict[str, tuple[bytes, ...]], places: int) -> dict[str, list[float]]:
    """How long keys take, each a few times, one kind after the other."""
    found: dict[str, list[float]] = {}
    try:
        screen.until("identical")
        screen.settle()
        for name, pressed in keys.items():
            if name == "instruction":
                screen.press(b"i")
                screen.settle()
            times = [screen.press(key) for _ in range(places) for key in pressed]
            found[name] = [one for one in times if one is not None]
    finally:
        screen.close()
    return found


SECTIONS: dict[str, Callable[[Path, dict[str, Any]], dict[str, Any]]] = {"inspector": inspector}
