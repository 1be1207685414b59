"""The command line as a user has it: in a process of its own, in an empty directory."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
GUESTS = ROOT / "tests" / "guests"

HOSTS = """
import reprise


class Env:
    memory = reprise.provide("env", "memory", "memory", minimum=1, maximum=4)
    counter = reprise.provide("env", "counter", "global", value="i32", mutable=True, bits=0)
    table = reprise.provide("env", "table", "table", minimum=2, maximum=10)

    @reprise.host("env", "tick", "i32 -> i32")
    def tick(self, guest, x):
        guest.write(16, b"hello\\x1b[31m")
        guest.read(0, 4)
        return x + 1

    @reprise.host("env", "call_me", "i32 -> i32")
    def call_me(self, guest, depth):
        return guest.call("again", depth + 1) if depth < 3 else 7

    @reprise.host("env", "double", "i32 -> i32")
    def double(self, guest, x):
        if x == 13:
            raise ValueError("unlucky\\nsecond line \\x1b[31m")
        return 2 * x


class NeedsArguments:
    def __init__(self, key):
        pass


class Fails:
    def __init__(self):
        raise RuntimeError("no database")


class Empty:
    pass


class WrongArity:
    @reprise.host("env", "double", "i32 -> i32")
    def double(self, guest):
        return 0


class WrongType:
    @reprise.host("env", "double", "i64 -> i64")
    def double(self, guest, x):
        return x
"""


@dataclass(frozen=True)
class Cli:
    """Runs `python -m reprise` in a directory."""

    cwd: Path
    prefix: tuple[str, ...] = ()

    def command(self, *words: str | Path) -> list[str]:
        return [*self.prefix, sys.executable, "-m", "reprise", *map(str, words)]

    def without_privileges(self) -> Cli:
        """The same for a user whom permissions bind: root, as which CI runs, gives up what lets it ignore them."""
        return replace(self, prefix=("setpriv", "--bounding-set=-all", "--inh-caps=-all") if os.geteuid() == 0 else ())

    def environment(self, **more: str) -> dict[str, str]:
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "XDG_CACHE_HOME", "TMPDIR") if name in os.environ}
        return {**kept, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1", **more}

    def __call__(self, *words: str | Path, env: dict[str, str] | None = None, **options: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*words),
            cwd=self.cwd,
            env=self.environment(**(env or {})),
            capture_output=True,
            text=True,
            errors="surrogateescape",
            timeout=60,
            check=False,
            **({"stdin": subprocess.DEVNULL} | options if "input" not in options else options),
        )

    def start(self, *words: str | Path) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self.command(*words),
            cwd=self.cwd,
            env=self.environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )


def wait_until_watched(process: subprocess.Popen[str]) -> None:
    """Until a process catches that signal: from then on it is the guest that runs, or is about to."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        status = Path(f"/proc/{process.pid}/status").read_text()
        caught = next(line for line in status.splitlines() if line.startswith("SigCgt:"))
        # Python itself catches SIGINT from its start, so the watchdog is recognised by SIGTERM, which it takes too.
        if int(caught.split()[1], 16) >> (signal.SIGTERM - 1) & 1:
            return
        time.sleep(0.02)
    raise AssertionError(f"{process.args!r} never caught SIGTERM")


def one_line(done: subprocess.CompletedProcess[str], code: int, *parts: str) -> str:
    """Holds a failed command to its contract: the exit code, nothing on stdout, and one line that says what to do."""
    assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("reprise: "), line
    for part in parts:
        assert part in line, (part, line)
    return line


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    (tmp_path / "hosts.py").write_text(HOSTS)
    (tmp_path / "work").mkdir()
    return Cli(tmp_path)


@pytest.fixture(scope="session")
def _recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One trace, made once: the all-round guest, exit code 2."""
    directory = tmp_path_factory.mktemp("recorded")
    (directory / "work").mkdir()
    words = ("record", "-o", "a.trace", "--dir", "work::/work", "--env", "GREETING=hi", "--note", "case=7")
    done = Cli(directory)(*words, GUESTS / "clock_random_file.wasm", "-x", "--help")
    assert done.returncode == 2, done.stderr
    return directory / "a.trace"


@pytest.fixture
def trace(_recorded: Path, cli: Cli) -> Path:
    """A copy of that trace to look at or to damage, `a.trace` in the command's directory."""
    copy = cli.cwd / "a.trace"
    shutil.copytree(_recorded, copy)
    return copy


@pytest.fixture(scope="session")
def guest() -> Callable[[str], Path]:
    return lambda name: GUESTS / f"{name}.wasm"
