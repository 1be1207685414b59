"""Verifies runs for the browser: one after the other, each by `reprise verify` in a process of its own.

A replay may take as long as the recording did, and wasmtime cannot be asked to stop: a process can be ended. What it leaves in
the temporary directory goes with it, because it has one of its own.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from inspector.runs.run import Finding, finding_of
from traces.cli import one_line

_START: Final = """
import sys
sys.path.insert(0, sys.argv[1])
from replayer.commands import COMMANDS
verify = next(command for command in COMMANDS if command.name == "verify")
sys.exit(verify.run(verify.parse(["--json", "--", sys.argv[2]])))
"""


@dataclass(frozen=True)
class Verifying:
    """Where it is: `number` of `total`. `path` None says that all is done."""

    path: Path | None
    number: int = 0
    total: int = 0


@dataclass(frozen=True)
class Verified:
    path: Path
    finding: Finding | None
    """None if it could not be verified at all."""
    why: str = ""


class Verifier:
    """Works in a thread, which lives while there is something to do.

    Args:
        tell: given each report, in that thread.
    """

    def __init__(self, tell: Callable[[Verifying | Verified], None]) -> None:
        self._tell = tell
        self._lock = threading.Lock()
        self._queue: deque[Path] = deque()
        self._thread: threading.Thread | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._ended = False
        """What runs was cancelled: nothing of it is told."""
        self._done = self._total = 0

    @property
    def busy(self) -> bool:
        return self._thread is not None

    def add(self, paths: Iterable[Path]) -> int:
        """Verifies these, too; returns how many were not waiting already."""
        with self._lock:
            waiting = set(self._queue)
            new = [path for path in paths if path not in waiting]
            self._queue += new
            self._total += len(new)
            if self._thread is None and self._queue:
                self._thread = threading.Thread(target=self._work, name="reprise-verifier", daemon=True)
                self._thread.start()
            return len(new)

    def cancel(self) -> bool:
        """Ends what runs and forgets what waits; says whether there was anything."""
        with self._lock:
            if self._thread is None:
                return False
            self._queue.clear()
            self._ended = True
            self._kill()
            return True

    def close(self) -> None:
        thread = self._thread
        if self.cancel() and thread is not None:
            thread.join(5)

    def _kill(self) -> None:
        if self._process is not None and self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError):  # it ended by itself in this very moment
                os.killpg(self._process.pid, signal.SIGKILL)

    def _next(self) -> Path | None:
        with self._lock:
            self._ended = False
            if not self._queue:
                self._thread = None
                self._done = self._total = 0
                return None
            self._done += 1
            return self._queue.popleft()

    def _work(self) -> None:
        while (path := self._next()) is not None:
            self._tell(Verifying(path, self._done, self._total))
            found = self._verify(path)
            if not self._ended:
                self._tell(found)
        self._tell(Verifying(None))

    def _verify(self, path: Path) -> Verified:
        root = str(Path(__file__).resolve().parents[2])
        words = [sys.executable, "-c", _START, root, os.path.abspath(path)]
        try:
            with tempfile.TemporaryDirectory(prefix="reprise-verify-", ignore_cleanup_errors=True) as scratch:
                with self._lock:
                    if self._ended:
                        return Verified(path, None)
                    self._process = subprocess.Popen(
                        words,
                        stdin=subprocess.DEVNULL,
                        stdout=subprocess.PIPE,
                        stderr=subprocess.PIPE,
                        env={**os.environ, "TMPDIR": scratch},
                        start_new_session=True,
                    )
                out, complaints = self._process.communicate()
        except OSError as error:
            return Verified(path, None, f"cannot be verified ({error.strerror})")
        return _verified(path, out, complaints.decode("utf-8", "replace"))


def _verified(path: Path, out: bytes, complaints: str) -> Verified:
    try:
        found: dict[str, Any] = json.loads(out)["traces"][0]
        integrity, replayed = found["integrity"], found["replay"]
    except (ValueError, KeyError, IndexError, TypeError):
        said = complaints.strip().splitlines()
        return Verified(path, None, f"the process that verified it ended: {one_line(said[-1]) if said else 'it said nothing'}")
    if integrity["ok"]:
        return Verified(path, finding_of(replayed, checked=True))
    # The worst of both is the verdict, and the damage is its reason.
    place = os.path.abspath(path)
    reason = integrity["problems"][0].removeprefix(f"{place}/").removeprefix(f"{place}: ")
    damaged = {"verdict": found["verdict"], "reason": reason}
    return Verified(path, finding_of(damaged, checked=True))
