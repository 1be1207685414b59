"""Journeys through the inspector in a real terminal: keys in, screen out.

What the screen should say is never asked of the inspector: it comes from the guest's source, from `reprise replay`, `last-write`
and `at`, which share the time machine with it but none of its screens, or from what the guest is known to do.
"""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from recorder.demo.tour import alter
from tests.inspector.kit import ACCOUNT, GOLDENS, INCIDENT, ROOT, SOURCES
from tests.inspector.terminal import Terminal, needs_tmux
from traces.tracedir import Trace

pytestmark = needs_tmux

GUESTS = ROOT / "tests" / "guests"
PROGRAMS = ROOT / "benchmarks" / "programs"
LEDGER = (GUESTS / "ledger.c").read_text().splitlines()
ENTRY = 0x100050
"""Where `entries[2]` of the ledger is: its name, and behind it the byte that gets wrong."""
WRONG = ENTRY + 8
PAY = 29
"""The event of the demo's recording that pays the wrong account."""

Open = Callable[..., Terminal]


def reprise(*arguments: str, code: int = 0) -> Any:
    """What a command prints as JSON."""
    words = [sys.executable, "-m", "reprise", *arguments]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL)
    assert done.returncode == code, done.stderr
    return json.loads(done.stdout) if "--json" in arguments else done.stdout


def line_of(code: str) -> int:
    """The number of the only line of the ledger's source that has this in it."""
    (found,) = [number for number, line in enumerate(LEDGER, 1) if code in line]
    return found


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What is remembered of recordings, by the inspector and by the commands that are asked about it."""
    with mock.patch.dict(os.environ, {"XDG_CACHE_HOME": str(tmp_path_factory.mktemp("cache"))}):
        yield


@pytest.fixture(scope="module")
def ledgers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The ledger's runs, with debug information (`O0`) and without (`bare`). Both trap."""
    where = tmp_path_factory.mktemp("ledgers")
    for kind in ("O0", "bare"):
        reprise("record", "-o", str(where / f"{kind}.trace"), str(GUESTS / f"ledger_{kind}.wasm"), code=134)
    return where


@pytest.fixture(scope="module")
def altered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's recording, with one bit of the account that was handed to the bank changed."""
    out = tmp_path_factory.mktemp("altered") / "altered.trace"
    with Trace.open(INCIDENT) as trace:
        assert alter(trace, out, PAY) == ("9999-0000-6666", "8999-0000-6666")
    return out


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of seconds, and almost without events: backward, each part of it is run again."""
    out = tmp_path_factory.mktemp("long") / "long.trace"
    reprise("record", "-o", str(out), str(PROGRAMS / "parse.wasm"), "1600")
    return out


@pytest.fixture
def inspect(tmp_path: Path) -> Iterator[Open]:
    """Opens the inspector in a terminal; it is looked at afterwards that nobody left a traceback in it."""
    opened: list[Terminal] = []

    def open_(*arguments: object, **options: Any) -> Terminal:
        opened.append(Terminal(tmp_path, *map(str, arguments), **options))
        return opened[-1]

    yield open_
    for terminal in opened:
        screen = terminal.screen()
        terminal.close()
        assert "Traceback" not in screen and "Error" not in screen, screen


# -- what a user does, and sees ------------------------------------------------------------------------------------------


def ask(terminal: Terminal, key: str, title: str, answer: str, over: str = "") -> None:
    """Opens a prompt, types an answer over what it offers, and gives it."""
    terminal.keys(key)
    terminal.until(f"─ {title} ─", over)
    if over:
        terminal.keys("C-u")
        terminal.gone(f"│ {over} ")
    terminal.keys("-l", answer)
    terminal.until(f"│ {answer} ")
    terminal.keys("Enter")
    terminal.gone(f"─ {title} ─")


def mark(screen: str) -> str:
    """The mark in the banner, as commands write it; "" before the guest was seen."""
    found = re.search(r"  mark ([\d,.]+|start|end)\b", screen.partition("\n")[0])
    return found[1].replace(",", "") if found is not None else ""


def seen(terminal: Terminal, *texts: str) -> str:
    """Waits for these texts, and for the guest."""
    deadline = time.monotonic() + 40
    while not (mark(screen := terminal.screen()) and all(text in screen for text in texts)):
        assert time.monotonic() < deadline, f"{texts} and the guest never came:\n{screen}"
        time.sleep(0.05)
    return screen


def arrives(terminal: Terminal, wanted: object) -> str:
    """Waits until the banner tells this mark."""
    deadline = time.monotonic() + 40
    while mark(screen := terminal.screen()) != str(wanted):
        assert time.monotonic() < deadline, f"mark {wanted} never came:\n{screen}"
        time.sleep(0.05)
    return screen


def leaves(terminal: Terminal) -> None:
    terminal.keys("q")
    terminal.until("ended with 0")
    terminal.gone("╭")


def holds(terminal: Terminal, address: int, wanted: str) -> str:
    """Waits until the memory pane shows these bytes, as hexadecimal, at or behind an address that begins a row."""
    deadline = time.monotonic() + 40
    while re.search(rf"│0*{address:x}  {wanted}", screen := terminal.screen()) is None:
        assert time.monotonic() < deadline, f"{wanted} was never at {address:#x}:\n{screen}"
        time.sleep(0.05)
    return screen


# -- who wrote it --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["O0", "bare"])
def test_from_a_wrong_byte_to_the_instruction_that_wrote_it(kind: str, ledgers: Path, inspect: Open) -> None:
    trace = ledgers / f"{kind}.trace"
    told = reprise("last-write", "--json", "--count", "3", "--source", str(GUESTS), str(trace), f"{WRONG:#x}:1")["writes"]
    first, second = told  # the label that is too long, and before it the zero the entry was opened with
    assert (first["by"], first["new"], second["new"]) == ("guest", "51", "00")

    terminal = inspect(trace, "--source", GUESTS)
    seen(terminal, "identical", "trap", "out of bounds memory access")
    ask(terminal, "g", "go to an address", f"{ENTRY:#x}")
    terminal.until(f"─ memory  {ENTRY:#x} ─")
    ask(terminal, "/", "find in memory", "journeysQ")
    terminal.until(f"─ memory  {ENTRY:#x} +9 ─", "journeys")
    terminal.keys("F3")  # the literal it was copied from is at a lower address: the search goes round
    terminal.until("from the start of the memory on")
    terminal.keys("F3")
    terminal.until(f"─ memory  {ENTRY:#x} +9 ─")
    ask(terminal, "g", "go to an address", f"{WRONG:#x}:1")
    terminal.until(f"─ memory  {WRONG:#x} ─")
    holds(terminal, WRONG, "51")

    before = mark(terminal.screen())
    terminal.keys("w")
    screen = terminal.until(f"who wrote {WRONG:#x}:1", first["function"], "enter goes there")
    assert f"{first['mark']}" in screen.replace(",", "") and re.search(r'after +51 +"Q"', screen)
    if kind == "O0":
        assert f"ledger.c:{line_of('entry->name[i] = name[i]')}" in screen
    terminal.keys("Escape")
    terminal.gone("who wrote 0x")
    assert mark(terminal.screen()) == before

    terminal.keys("L")
    screen = arrives(terminal, first["mark"])
    if kind == "O0":
        assert re.search(rf"▶ *{line_of('entry->name[i] = name[i]')}  +entry->name\[i\] = name\[i\];", screen)
        assert f"#1 start  ledger.c:{line_of('journeysQ')}" in screen
    else:
        assert f"▶{int(first['pc'], 16):06x}  i32.store8" in screen
    holds(terminal, WRONG, "00")  # the instruction is about to be executed
    terminal.keys("L")
    arrives(terminal, second["mark"])
    terminal.keys("L")
    terminal.until(f"nothing wrote {WRONG:#x}:1 before here")
    assert mark(terminal.screen()) == str(second["mark"])
    leaves(terminal)


@pytest.mark.parametrize("kind", ["O0", "bare"])
def test_a_watchpoint_stops_at_the_same_writes_both_ways_and_instructions_show_them(
    kind: str, ledgers: Path, inspect: Open
) -> None:
    trace = ledgers / f"{kind}.trace"
    later, earlier = reprise("last-write", "--json", "--count", "3", str(trace), f"{WRONG:#x}:1")["writes"]

    terminal = inspect(trace, "--source", GUESTS)
    seen(terminal, "identical", "out of bounds memory access")
    ask(terminal, "g", "go to an address", f"{WRONG:#x}:1")
    terminal.until(f"─ memory  {WRONG:#x} ─")
    terminal.keys("W")
    terminal.until("─ watchpoint ─", f"{WRONG:#x}:1")  # the chosen bytes are offered
    terminal.keys("Enter")
    terminal.gone("─ watchpoint ─")
    terminal.until(": set")
    terminal.keys("C")
    arrives(terminal, later["mark"])
    terminal.keys("C")
    arrives(terminal, earlier["mark"])
    terminal.keys("C")
    arrives(terminal, "start")
    # Forward it stops behind a write, backward in front of it.
    terminal.keys("c")
    arrives(terminal, earlier["mark"] + 1)
    terminal.keys("c")
    arrives(terminal, later["mark"] + 1)
    holds(terminal, WRONG, "51")
    terminal.keys("i")
    terminal.until("steps go by instruction", "─ code  ")
    terminal.keys("S")
    arrives(terminal, later["mark"])
    assert f"▶{int(later['pc'], 16):06x}" in holds(terminal, WRONG, "00")
    terminal.keys("s")
    arrives(terminal, later["mark"] + 1)
    holds(terminal, WRONG, "51")
    leaves(terminal)


def test_from_a_trap_to_the_line_that_made_its_index_wrong(ledgers: Path, inspect: Open) -> None:
    trace = ledgers / "O0.trace"
    trapped, computed, spoiled = line_of("totals[index] +="), line_of("unsigned index ="), line_of("entry->name[i] = name[i]")
    index = ord("Q") << 24

    terminal = inspect(trace, "--source", GUESTS)
    screen = terminal.until("identical", "trap", f"ledger.c:{trapped}  count()", f"▶{trapped}", f"index = {index}")
    assert "e3 of 4" in screen and "the guest does not run here" not in screen
    assert f"#1 start  ledger.c:{line_of('count(&entries[i])')}" in screen
    stood = mark(screen)
    terminal.keys("Tab")
    terminal.keys("Tab")
    terminal.keys("Down", "Down")  # the innermost frame, its argument, its variable
    screen = terminal.until("+4 ─")
    found = re.search(r"─ memory  (0x[0-9a-f]+) \+4 ─", screen)
    assert found is not None, screen
    (write,) = reprise("last-write", "--json", "--before", stood, "--source", str(GUESTS), str(trace), f"{found[1]}:4")["writes"]
    assert write["where"] == f"ledger.c:{computed}"
    terminal.keys("L")
    screen = arrives(terminal, write["mark"])
    assert f"ledger.c:{computed}  count()" in screen

    # What it was computed from: the field of the argument.
    terminal.keys("Up")
    terminal.until("+4 ─", "▸ entry = ")
    terminal.keys("Enter")
    terminal.until("slot = 81 'Q'")
    terminal.keys("Down", "Down")
    terminal.until(f"─ memory  {WRONG:#x} ─")
    terminal.keys("w")
    terminal.until(f"who wrote {WRONG:#x}:1", f"ledger.c:{spoiled}", "entry->name[i] = name[i];")
    terminal.keys("Enter")
    terminal.until(f"source  ledger.c:{spoiled}  label()", "i = 8")
    terminal.keys("!")
    assert f"ledger.c:{trapped}  count()" in arrives(terminal, stood)
    leaves(terminal)


def test_backward_from_a_divergence(altered: Path, inspect: Open) -> None:
    verdict = reprise("replay", "--json", str(altered), code=3)
    assert verdict["difference"]["seq"] == PAY
    (write,) = reprise("last-write", "--json", "--before", f"e{PAY}", str(INCIDENT), f"{ACCOUNT:#x}:1")["writes"]

    terminal = inspect(altered, "--source", SOURCES)
    screen = seen(terminal, "diverged at e29", "─ divergence  e29 ─", "▶ 97")
    recorded, replayed = verdict["difference"]["expected"], verdict["difference"]["got"]
    assert "8999-0000-6666" in recorded and "9999-0000-6666" in replayed
    (sides,) = [line for line in screen.splitlines() if line.count(f"{ACCOUNT:08x} ") == 2]
    left, right = sides.split(f"{ACCOUNT:08x} ")[1:]
    assert left.startswith("38 39 39 39") and right.startswith("39 39 39 39")
    assert verdict["difference"]["where"] in screen

    parted = int(mark(screen))
    terminal.keys("w")  # the byte that differs is chosen
    terminal.until(f"who wrote {ACCOUNT:#x}:1", f"event {write['event']}")
    terminal.keys("Escape")
    terminal.gone("who wrote 0x")
    marks = [parted]
    for key in ("S", "N", "O"):
        terminal.keys(key)
        deadline = time.monotonic() + 40
        while int(mark(screen := terminal.screen())) == marks[-1]:
            assert time.monotonic() < deadline, f"{key} went nowhere:\n{screen}"
            time.sleep(0.05)
        marks.append(int(mark(screen)))
        assert "diverged at e29" in screen and "─ divergence  e29 ─" in screen
    assert marks == sorted(marks, reverse=True)
    ask(terminal, "b", "breakpoint", "func=search")
    terminal.until("break func=search: set")
    terminal.keys("C")
    terminal.until("search()", "func=search")
    terminal.keys("!")
    arrives(terminal, parted)
    leaves(terminal)


# -- from the list of recordings to a row of SQL and back ----------------------------------------------------------------


def test_from_the_list_into_a_recording_to_a_row_of_sql_and_back(tmp_path: Path, inspect: Open) -> None:
    store = tmp_path / "store"
    for name in ("incident", "nested"):
        shutil.copytree(GOLDENS / f"{name}.trace", store / f"{name}.trace")
    told = reprise("query", "--json", str(INCIDENT), "SELECT seq FROM events WHERE import = 'tool.pay'")
    (seq,) = [row["seq"] for row in told["rows"]]
    terminal = inspect(store, "--source", SOURCES)
    terminal.until("incident.trace", "nested.trace", "2 runs", "enter open")
    terminal.keys("/")
    terminal.keys("-l", "incident")
    terminal.until("1 of 2")
    terminal.keys("Enter")
    terminal.gone("│ nested.trace")
    terminal.keys("Enter")
    terminal.until("identical", "e29 of 43", "▶ 97")
    terminal.keys(",", ",", ",")
    terminal.until("e26 of 43")
    terminal.keys("F2")
    terminal.until("─ sql ─", "ctrl+j run")
    terminal.keys("F7", "DC")  # the example
    terminal.gone("ORDER BY")
    terminal.keys("-l", "SELECT seq, import FROM events WHERE import = 'tool.pay'")
    terminal.until("WHERE import = 'tool.pay'")
    terminal.keys("C-j")
    terminal.until("tool.pay ", "1 row")
    terminal.keys("Enter")
    terminal.gone("─ sql ─")
    terminal.until(f"e{seq} of 43", "▶ 97")
    terminal.keys("F2")
    terminal.until("WHERE import = 'tool.pay'", "1 row")  # as it was left
    terminal.keys("Escape")
    terminal.gone("─ sql ─")
    terminal.keys("q")
    terminal.until("─ runs", "incident.trace", "enter open")
    leaves(terminal)


# -- a motion that takes long --------------------------------------------------------------------------------------------


def test_a_long_motion_tells_how_far_it_is_is_looked_around_in_and_cancelled(long: Path, inspect: Open) -> None:
    where = 0x100BF8
    there = reprise("at", "--json", "--memory", f"{where:#x}:8", str(long), "e9")

    terminal = inspect(long)
    seen(terminal, "identical", "e9 of 11")
    began = mark(terminal.screen())
    ask(terminal, "W", "watchpoint", "0x40:1", over=f"{where:#x}:43")
    terminal.until("set")
    terminal.keys("C")
    terminal.until("searching backward", "esc cancels")
    shares: set[int] = set()
    deadline = time.monotonic() + 20
    while len(shares) < 2:
        found = re.search(r"searching backward +(\d+) %", terminal.screen())
        assert found is not None and time.monotonic() < deadline, terminal.screen()
        shares.add(int(found[1]))
    ask(terminal, "g", "go to an address", f"{where:#x}:8")
    screen = terminal.until(f"─ memory  {where:#x} +8 ─", "searching backward")
    screen = holds(terminal, where, base64.b64decode(there["memory"][0]["bytes"]).hex(" "))
    assert "searching backward" in screen
    assert mark(screen) == began

    asked = time.monotonic()
    terminal.keys("Escape")
    terminal.until("cancelled")
    assert time.monotonic() - asked < 1.0
    assert mark(terminal.screen()) == began
    terminal.keys(",")
    terminal.until("e8 of 11", "parse ")
    leaves(terminal)


# -- terminals of all kinds ----------------------------------------------------------------------------------------------


def test_it_is_resized_while_it_moves(inspect: Open) -> None:
    terminal = inspect(INCIDENT, "--source", SOURCES)
    seen(terminal, "identical", "▶ 97")
    began = mark(terminal.screen())
    for turn in range(4):
        for columns, rows in ((80, 24), (200, 60), (59, 13), (120, 40)):
            terminal.keys(*"nnN" if turn % 2 else "SSs")
            terminal._run("resize-window", "-t", "0", "-x", str(columns), "-y", str(rows))
    terminal.keys("e")
    terminal.until("─ event ")
    terminal._run("resize-window", "-t", "0", "-x", "80", "-y", "24")
    terminal.keys("Escape")
    terminal.until("─ story ─", "? help")
    terminal.gone("─ event ")
    ask(terminal, ":", "go to a mark", began)
    arrives(terminal, began)
    for columns, rows in ((200, 60), (80, 24)):
        terminal._run("resize-window", "-t", "0", "-x", str(columns), "-y", str(rows))
        terminal.until("▶ 97", "? help")
        deadline = time.monotonic() + 20
        while not _whole(lines := terminal.screen().splitlines(), columns, rows):
            assert time.monotonic() < deadline, "\n".join(lines)
            time.sleep(0.05)
    leaves(terminal)


def _whole(lines: list[str], columns: int, rows: int) -> bool:
    """Whether the screen is filled to its edges: banner above, panes with all their corners, footer below."""
    text = "\n".join(lines)
    corners = [text.count(corner) for corner in "╭╮╰╯"]
    wide = all(len(line) <= columns for line in lines) and max(map(len, lines)) == columns
    return len(lines) == rows and wide and len(set(corners)) == 1 and lines[0].startswith(" reprise") and "? help" in lines[-1]


_COLOUR = re.compile(r"48;5;(\d+)|48;2;(\d+);(\d+);(\d+)")


def _brightness(painted: str) -> float:
    """Of the backgrounds that a screen is painted in, from 0 to 1."""
    found = []
    for number, *rgb in _COLOUR.findall(painted):
        if not number:
            found.append(statistics.mean(map(int, rgb)) / 255)
        elif int(number) >= 232:
            found.append((int(number) - 232) / 23)
        elif int(number) >= 16:
            found.append(statistics.mean(((int(number) - 16) // 36, (int(number) - 16) // 6 % 6, (int(number) - 16) % 6)) / 5)
    return statistics.median(found)


def test_a_light_theme_is_light(inspect: Open) -> None:
    brightness = {}
    for theme in ("textual-light", "textual-dark"):
        terminal = inspect(INCIDENT, "--source", SOURCES, "--theme", theme)
        seen(terminal, "identical", "▶ 97")
        terminal.keys("L")
        terminal.until("▶ 89")
        brightness[theme] = _brightness(terminal._run("capture-pane", "-p", "-e", "-t", "0"))
        leaves(terminal)
    assert brightness["textual-light"] > 0.7 > 0.3 > brightness["textual-dark"]


def test_sixteen_colours_are_enough_for_a_journey(inspect: Open) -> None:
    terminal = inspect(INCIDENT, "--source", SOURCES, size=(80, 24), term="screen")
    for keys, shown in ((), "▶ 97"), (("L",), "▶ 89"), (("?",), "─ help ─"), (("Escape",), "▶ 89"), (("e",), "─ event 22"):
        terminal.keys(*keys) if keys else None
        terminal.until(shown)
        painted = terminal._run("capture-pane", "-p", "-e", "-t", "0")
        assert not re.search(r"[34]8;[25];", painted), "more than sixteen colours"
        assert re.search(r"\x1b\[[\d;]*[349][0-7]", painted), "no colour at all"
    terminal.keys("Escape")
    terminal.gone("─ event 22")
    leaves(terminal)


# -- the mouse -----------------------------------------------------------------------------------------------------------


def _mouse(terminal: Terminal, button: int, column: int, row: int, release: bool = True) -> None:
    """What a terminal sends for a click or a turn of the wheel, in cells from 0."""
    terminal.keys("-l", f"\x1b[<{button};{column + 1};{row + 1}M")
    if release:
        terminal.keys("-l", f"\x1b[<{button};{column + 1};{row + 1}m")


def _cell(screen: str, text: str, inside: str = "") -> tuple[int, int]:
    """The column and row of a text, in the line that also has `inside` in it."""
    row, line = next((row, line) for row, line in enumerate(screen.splitlines()) if text in line and inside in line)
    return line.index(text), row


def test_the_mouse_chooses_events_bytes_and_moments_and_the_wheel_scrolls(inspect: Open) -> None:
    terminal = inspect(INCIDENT, "--source", SOURCES)
    screen = seen(terminal, "identical", "▶ 97", "9999-000")
    _mouse(terminal, 0, *_cell(screen, "complete(", inside="│28 "))
    screen = terminal.until("e28 of 43", "▶ 80")

    _mouse(terminal, 0, *_cell(screen, "30 30 30", inside="│130050"))
    terminal.until(f"─ memory  {ACCOUNT + 5:#x} ─")

    column, row = _cell(screen, "events ", inside="│events ")
    _mouse(terminal, 0, column + 60, row)
    deadline = time.monotonic() + 40
    while "e28 of 43" in (screen := terminal.screen()):
        assert time.monotonic() < deadline, screen
    total = reprise("replay", "--json", str(INCIDENT)).get("instructions") or 148_032
    share = int(mark(screen).partition(".")[0]) / total
    assert abs(share - (60 - 9) / (118 - 9)) < 0.02, screen

    here = mark(screen)
    column, row = _cell(screen, "─ story ─")
    first = screen.splitlines()[row + 1][1:4]
    for _ in range(3):
        _mouse(terminal, 64, column, row + 3, release=False)  # up
    deadline = time.monotonic() + 40
    while (screen := terminal.screen()).splitlines()[row + 1][1:4] == first:
        assert time.monotonic() < deadline, screen
    assert mark(screen) == here  # looking is not going
    leaves(terminal)


# -- what is no recording, and what is no terminal -----------------------------------------------------------------------


class Shell:
    """A shell in a terminal, and what it says to one line after the other."""

    def __init__(self, terminal: Terminal) -> None:
        self.terminal, self.lines = terminal, 0
        self.terminal.until("ended with 0")

    def start(self, line: str) -> None:
        self.lines += 1
        self.terminal.keys("-l", f"clear; export PYTHONPATH={ROOT}; {line}; echo {self.lines} done with $?")
        self.terminal.keys("Enter")

    def run(self, line: str) -> tuple[int, list[str]]:
        """The exit code and what was printed, if the line ends by itself."""
        self.start(line)
        return self.ended()

    def ended(self) -> tuple[int, list[str]]:
        deadline = time.monotonic() + 40
        while (
            found := re.search(rf"^(.*)^{self.lines} done with (\d+)\n", screen := self.terminal.screen(), re.S | re.M)
        ) is None:
            assert time.monotonic() < deadline, f"it never ended:\n{screen}"
            time.sleep(0.05)
        printed = [line for line in found[1].splitlines() if line.strip()]
        assert "Traceback" not in screen and "╭" not in screen, screen
        return int(found[2]), printed


PYTHON = f"{sys.executable} -m reprise"


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    terminal = Terminal(tmp_path, "--help", size=(200, 50))
    yield Shell(terminal)
    terminal.close()


def test_what_is_no_recording_is_told_in_one_line(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "notes.trace").write_text("dear diary\n")
    (tmp_path / "zeros").write_bytes(bytes(4096))
    (tmp_path / "empty").mkdir()
    (tmp_path / "one.trace").mkdir()
    shutil.copytree(INCIDENT, tmp_path / "manifest.trace")
    (tmp_path / "manifest.trace" / "manifest.json").write_text('{"format": ')
    shutil.copytree(INCIDENT, tmp_path / "nobody.trace")
    (tmp_path / "nobody.trace" / "manifest.json").write_text("[]")
    for name, said in {
        "nothing.trace": "nothing.trace", "notes.trace": "notes.trace", "zeros": "zeros", "empty": "holds no recordings",
        "one.trace": "one.trace", "manifest.trace": "manifest", "nobody.trace": "manifest", "/dev/null": "/dev/null",
    }.items():  # fmt: skip
        code, printed = shell.run(f"{PYTHON} inspect {name}")
        assert code not in (0, 1), (name, printed)
        assert len(printed) == 1 and printed[0].startswith("reprise: ") and said in printed[0], (name, printed)


def test_wrong_options_are_told_in_one_line(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "keys.toml").write_text('fly = "f"\n')
    for options, said in {
        "--keys keys.toml": "there is no action 'fly'", "--keys gone.toml": "gone.toml", "--theme neon": "no theme 'neon'",
    }.items():  # fmt: skip
        code, printed = shell.run(f"{PYTHON} inspect {INCIDENT} {options}")
        assert code == 64, (options, printed)
        assert len(printed) == 1 and said in printed[0], (options, printed)


def test_a_running_recording_says_so(shell: Shell, tmp_path: Path) -> None:
    out = tmp_path / "running.trace"
    words = [sys.executable, "-m", "reprise", "record", "-o", str(out), str(GUESTS / "sleep_hour.wasm")]
    process = subprocess.Popen(words, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    try:
        assert process.stdout is not None and process.stdout.read(8)
        code, printed = shell.run(f"{PYTHON} inspect {out}")
        assert code != 0 and len(printed) == 1 and "record" in printed[0], printed
    finally:
        process.kill()
        process.communicate()


def test_damaged_events_are_told_and_what_is_left_is_shown(shell: Shell, tmp_path: Path) -> None:
    """Where it opens at all, it says what is wrong, lets itself be used, and leaves."""
    data = (INCIDENT / "events.parquet").read_bytes()
    for name, left in {"cut": data[: len(data) // 2], "noise": data[:64] + bytes(512) + data[576:]}.items():
        trace = tmp_path / f"{name}.trace"
        shutil.copytree(INCIDENT, trace)
        (trace / "events.parquet").write_bytes(left)
        shell.start(f"{PYTHON} inspect {trace.name}")
        deadline = time.monotonic() + 40
        while not re.search(
            r"^\d+ done with|no time machine|─ .*events\.parquet", screen := shell.terminal.screen(), re.M | re.S
        ):
            assert time.monotonic() < deadline, screen
            time.sleep(0.05)
        if "done with" not in screen:
            shell.terminal.keys("n", ",", "e")
            time.sleep(0.3)
            shell.terminal.keys("Escape")
            time.sleep(0.3)
            shell.terminal.keys("q")
        code, printed = shell.ended()
        assert len(printed) <= 1 and (code == 0 or "events" in printed[0]), printed


def test_a_recording_without_debug_information_shows_instructions(ledgers: Path, inspect: Open) -> None:
    terminal = inspect(ledgers / "bare.trace")
    screen = terminal.until("identical", "─ code  function", "▶", "i32.load", "#1 _start")
    assert "─ source" not in screen
    leaves(terminal)


def test_a_tiny_terminal_says_what_it_needs_and_can_be_left(inspect: Open) -> None:
    terminal = inspect(INCIDENT, size=(20, 5))
    terminal.until("small")
    for key in ("n", "?", "Escape", "Tab", "e"):
        terminal.keys(key)
        time.sleep(0.3)  # nothing of it is on the screen
    terminal._run("resize-window", "-t", "0", "-x", "80", "-y", "24")
    terminal.until("─ event ")
    terminal.keys("Escape")
    terminal.gone("─ event ")
    terminal.until("? help")
    terminal.keys("q")
    terminal.until("ended with 0")


@pytest.mark.parametrize(
    "setting", ["TERM=dumb", "NO_COLOR=1", "LC_ALL=C LANG=C", "TERM=vt100 COLORTERM=", "TERM=nonsense", "env -u TERM"]
)
def test_odd_environments(setting: str, shell: Shell) -> None:
    shell.start(f"{setting} {PYTHON} inspect {INCIDENT} --source {SOURCES}")
    deadline = time.monotonic() + 40
    while not re.search(r"^\d+ done with|▶ 97", screen := shell.terminal.screen(), re.M):
        assert time.monotonic() < deadline, screen
        time.sleep(0.05)
    if "▶ 97" in screen:
        if setting.startswith("NO_COLOR"):
            painted = shell.terminal._run("capture-pane", "-p", "-e", "-t", "0")
            assert [colour for colour in _rgb(painted) if len(set(colour)) > 1] == []
        shell.terminal.keys("q")
        assert shell.ended() == (0, [])
    else:
        code, printed = shell.ended()
        assert code == 64 and len(printed) == 1 and "terminal" in printed[0], printed


def _rgb(painted: str) -> Iterator[tuple[int, int, int]]:
    """The colours that a screen is painted in, of 256."""
    for number in map(int, re.findall(r"[34]8;5;(\d+)", painted)):
        if number >= 232:
            yield (number, number, number)
        elif number >= 16:
            yield ((number - 16) // 36, (number - 16) // 6 % 6, (number - 16) % 6)
    for code in re.findall(r"\x1b\[(?:\d+;)*([349][1-6])m", painted):
        yield (int(code), 0, 0)


def test_without_a_terminal_or_without_textual_it_says_what_to_do(shell: Shell, tmp_path: Path) -> None:
    hidden = tmp_path / "hidden"
    (hidden / "home").mkdir(parents=True)
    # What `import` finds of a package that is not installed: nothing.
    (hidden / "sitecustomize.py").write_text(
        "import importlib.util, sys\n"
        "found = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda name, *more: None if name.split('.')[0] == 'textual' else found(name, *more)\n"
        "sys.modules['textual'] = None\n"
    )
    for line, said in {
        f"{PYTHON} inspect {INCIDENT} </dev/null": "stdin",
        f"{PYTHON} inspect {INCIDENT} | cat; (exit 64)": "stdout",
        f"{PYTHON} inspect {INCIDENT} <&-": "stdin",
        f"PYTHONPATH={hidden}:{ROOT} {PYTHON} inspect {INCIDENT}": "pip install 'reprise-wasm[inspect]'",
    }.items():
        code, printed = shell.run(line)
        assert code == 64, (line, printed)
        assert len(printed) == 1 and printed[0].startswith("reprise: ") and said in printed[0], (line, printed)
