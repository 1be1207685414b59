"""The inspector in a real terminal: keys go in through tmux, the screen is what tmux sees."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.inspector.kit import INCIDENT, ROOT, SOURCES

TMUX = shutil.which("tmux")
pytestmark = pytest.mark.skipif(TMUX is None, reason="tmux is not installed")
START = "import sys; from inspector.commands import COMMANDS as c; sys.exit(c[0].run(c[0].parse(sys.argv[1:])))"


class Terminal:
    """A tmux server of its own, with one window."""

    def __init__(self, where: Path, *arguments: str, size: tuple[int, int] = (120, 40), term: str = "tmux-256color") -> None:
        self._name = f"reprise-{uuid.uuid4().hex[:8]}"
        inspect = shlex.join([sys.executable, "-c", START, *arguments])
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

    def close(self) -> None:
        assert TMUX is not None
        subprocess.run([TMUX, "-L", self._name, "kill-server"], capture_output=True, timeout=30)


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    made = Terminal(tmp_path, str(INCIDENT), "--source", str(SOURCES))
    yield made
    made.close()


def test_from_the_payment_to_the_line_that_wrote_the_wrong_account(terminal: Terminal) -> None:
    terminal.until("identical", 'pay("9999-0000-6666"', "▶ 97", "9999-000")
    terminal.keys(",")
    terminal.until("e28 of 43")
    terminal.keys(".")
    terminal.until("e29 of 43", "▶ 97")
    terminal.keys("g")
    terminal.until("go to an address")
    terminal.keys("-l", "0x130050:14")
    terminal.keys("Enter")
    terminal.gone("go to an address")
    terminal.until("memory  0x130050 +14")
    terminal.keys("L")
    terminal.until("source  agent.c:89  search()", "▶ 89", "1234-567", "by the host, in event 22")
    terminal.keys("q")
    screen = terminal.until("ended with 0")
    assert "Traceback" not in screen
    assert "╭" not in screen  # the terminal is as it was


def test_it_shrinks_and_grows_with_the_terminal(terminal: Terminal) -> None:
    terminal.until("▶ 97", "─ memory")
    terminal._run("resize-window", "-t", "0", "-x", "80", "-y", "24")
    screen = terminal.until("▶ 97")
    terminal._run("resize-window", "-t", "0", "-x", "200", "-y", "60")
    screen = terminal.until("▶ 97", "─ code  pay", "─ memory")
    assert "e29 of 43" in screen
    terminal.keys("C-q")
    terminal.until("ended with 0")


def test_sixteen_colours(tmp_path: Path) -> None:
    terminal = Terminal(tmp_path, str(INCIDENT), "--source", str(SOURCES), size=(80, 24), term="screen")
    try:
        terminal.until("▶ 97")
        painted = terminal._run("capture-pane", "-p", "-e", "-t", "0")
        assert "38;2;" not in painted and "48;2;" not in painted
    finally:
        terminal.close()


def test_without_a_terminal_it_says_what_to_do_instead() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "from inspector.commands import COMMANDS as c; c[0].run(c[0].parse(['x.trace']))"],
        cwd=ROOT, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert "needs a terminal" in done.stderr
