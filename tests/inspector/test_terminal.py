"""The inspector in a real terminal."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.inspector.kit import INCIDENT, ROOT, SOURCES
from tests.inspector.terminal import Terminal, needs_tmux, runs

pytestmark = needs_tmux


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
        [sys.executable, "-m", "reprise", "inspect", "x.trace"],
        cwd=ROOT, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert "needs a terminal" in done.stderr


def test_the_demo_ends_in_the_inspector(tmp_path: Path) -> None:
    terminal = Terminal(tmp_path, command="demo", size=(120, 45))
    try:
        terminal.until("inspect  ", "Enter opens the inspector")
        terminal.keys("Enter")
        terminal.until("identical", 'pay("9999-0000-6666"', "▶ 97", "tool_pay(agent->account")
        terminal.keys("q")
        screen = terminal.until("ended with 0", "go on")
        assert "Traceback" not in screen
    finally:
        terminal.close()


def test_control_c_twice_leaves_the_terminal_clean(terminal: Terminal) -> None:
    terminal.until("identical", "▶ 97")
    terminal.keys("C-c")
    terminal.until("nothing runs that could be interrupted")
    terminal.keys("C-c")
    screen = terminal.until("ended with 0")
    assert "╭" not in screen and "Traceback" not in screen
    terminal.keys("echo still $((40+2))", "Enter")  # the terminal echoes, and takes lines
    terminal.until("echo still", "still 42")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGINT, 130)])
def test_a_signal_leaves_the_terminal_clean(terminal: Terminal, number: int, code: int) -> None:
    terminal.until("identical", "▶ 97")
    os.kill(terminal.inspector(), number)
    screen = terminal.until(f"ended with {code}")
    assert "╭" not in screen and "Traceback" not in screen


def test_the_shell_can_have_the_terminal_meanwhile(terminal: Terminal) -> None:
    terminal.until("identical", "▶ 97")
    terminal.keys("C-z")
    terminal.until("Stopped")
    terminal.keys("echo still $((40+2))", "Enter")
    terminal.until("still 42")
    terminal.keys("fg", "Enter")
    terminal.until("identical", "▶ 97")
    terminal.keys("q")
    terminal.until("still 42")
    terminal.keys("echo left $((40+3)) $?", "Enter")
    assert "╭" not in terminal.until("left 43 0")


def test_it_survives_the_death_of_its_processes(terminal: Terminal) -> None:
    terminal.until("identical", "▶ 97")
    terminal.keys(",")
    terminal.until("e28 of 43", "▶ 80")
    workers = terminal.workers()
    assert workers
    for child in workers:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
    terminal.keys("s")
    terminal.until("the time machine was restarted", "e28 of 43")
    terminal.keys(".")
    terminal.until("e29 of 43", "▶ 97")
    terminal.keys("q")
    assert "Traceback" not in terminal.until("ended with 0")


def test_nothing_stays_when_the_terminal_is_gone(terminal: Terminal) -> None:
    terminal.until("identical", "▶ 97")
    processes = [terminal.inspector(), *terminal.workers()]
    terminal.close()
    deadline = time.monotonic() + 30
    while any(map(runs, processes)):
        assert time.monotonic() < deadline, f"of {processes} some are still there"
        time.sleep(0.1)
