"""A real terminal to try things in: keys go in through tmux, the screen is what tmux sees."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest

from tests.inspector.kit import ROOT

TMUX = shutil.which("tmux")
needs_tmux = pytest.mark.skipif(TMUX is None, reason="tmux is not installed")


class Terminal:
    """A tmux server of its own, with one window."""

    def __init__(
        self,
        where: Path,
        *arguments: str,
        size: tuple[int, int] = (120, 40),
        term: str = "tmux-256color",
        command: str = "inspect",
    ) -> None:
        self._name = f"reprise-{uuid.uuid4().hex[:8]}"
        inspect = shlex.join([sys.executable, "-m", "reprise", command, *arguments])
        self._run("-f", "/dev/null", "new-session", "-d", "-x", str(size[0]), "-y", str(size[1]), "sh", cwd=where)
        self._run("set-option", "-g", "default-terminal", term)
        home = where / "home"
        home.mkdir(exist_ok=True)
        setting = f"PYTHONPATH={shlex.quote(str(ROOT))} TERM={term} COLORTERM= XDG_CONFIG_HOME={shlex.quote(str(home))}"
        self.keys(f"PS1='$ '; clear; {setting} {inspect}; echo ended with $?", "Enter")

    def _run(self, *arguments: str, cwd: Path | None = None) -> str:
        assert TMUX is not None
        environment = {key: value for key, value in os.environ.items() if key not in ("TMUX", "COLUMNS", "LINES")}
        done = subprocess.run(
            [TMUX, "-L", self._name, *arguments], cwd=cwd, env=environment, capture_output=True, text=True, timeout=30
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def keys(self, *keys: str) -> None:
        self._run("send-keys", "-t", "0", *keys)

    def screen(self) -> str:
        return self._run("capture-pane", "-p", "-t", "0")

    def until(self, *texts: str) -> str:
        deadline = time.monotonic() + 40
        while True:
            screen = self.screen()
            if all(text in screen for text in texts):
                return screen
            assert time.monotonic() < deadline, f"{texts} never came:\n{screen}"
            time.sleep(0.05)

    def gone(self, text: str) -> None:
        deadline = time.monotonic() + 40
        while text in self.screen():
            assert time.monotonic() < deadline, f"{text} stayed:\n{self.screen()}"
            time.sleep(0.05)

    def inspector(self) -> int:
        """The process that owns the screen."""
        shell = int(self._run("display-message", "-p", "-t", "0", "#{pane_pid}"))
        return next(pid for pid in _children(shell) if b"inspect" in _command(pid))

    def workers(self) -> list[int]:
        """Every process below it."""
        found = _children(self.inspector())
        for pid in found:
            found += _children(pid)
        return found

    def close(self) -> None:
        assert TMUX is not None
        subprocess.run([TMUX, "-L", self._name, "kill-server"], capture_output=True, timeout=30)


def _children(pid: int) -> list[int]:
    try:
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
        return [int(word) for task in tasks for word in (task / "children").read_text().split()]
    except OSError:
        return []


def _command(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()


def runs(pid: int) -> bool:
    """Whether there is such a process; one that ended and was not reaped is none."""
    try:
        return bool(_command(pid))
    except OSError:
        return False
