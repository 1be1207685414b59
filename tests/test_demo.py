"""`reprise demo`, run as a newcomer runs it: in a directory of their own, and what it claims is held against the trace."""

from __future__ import annotations

import os
import pty
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import reprise
from recorder.demo import hosts, tour
from recorder.demo.story import read_story
from traces.tables import EventsReader
from traces.tracedir import EVENTS, Trace

ROOT = Path(__file__).resolve().parent.parent
AGENT = ROOT / "recorder" / "demo" / "agent.wasm"
ESCAPE = "\x1b["


def environment(**more: str) -> dict[str, str]:
    inherited = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "TERM", "COLUMNS", "FORCE_COLOR")}
    return {**inherited, "PYTHONPATH": str(ROOT), "TERM": "xterm-256color", **more}


def demo(where: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "reprise", "demo", *arguments],
        cwd=where,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Where the demo ran once, and what it printed."""
    where = tmp_path_factory.mktemp("demo")
    done = demo(where)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return where, done.stdout


@pytest.fixture(scope="module")
def rows(ran: tuple[Path, str]) -> list[dict[str, Any]]:
    """The recorded events, as the table has them."""
    with EventsReader(ran[0] / "reprise-demo" / "incident.trace" / EVENTS) as reader:
        return [row for window in range(reader.window_count) for row in reader.batch(window).to_pylist()]


def numbers(text: str, pattern: str) -> tuple[str, ...]:
    found = re.search(pattern, text)
    assert found is not None, f"{pattern!r} is not in:\n{text}"
    return found.groups()


def test_it_fits_a_screen_and_is_plain_text_in_a_pipe(ran: tuple[Path, str]) -> None:
    lines = ran[1].splitlines()

    assert len(lines) <= 33
    assert ESCAPE not in ran[1]
    assert max(map(len, lines)) <= tour.WIDTH


def test_the_replay_is_identical_and_counts_what_the_trace_holds(ran: tuple[Path, str], rows: list[dict[str, Any]]) -> None:
    assert numbers(ran[1], r"record +(\d+) events") == (str(len(rows)),)
    assert numbers(ran[1], r"replay +identical: (\d+) events, memory compared at (\d+) moments") == (str(len(rows)), "2")


def test_every_host_call_is_told_with_the_text_that_crossed(ran: tuple[Path, str], rows: list[dict[str, Any]]) -> None:
    told = {int(n): text for n, text in re.findall(r"^(?:story)? +(\d+)  (.*)$", ran[1], re.MULTILINE)}
    hosted = {row["seq"]: row["import"] for row in rows if row["import"] in ("llm.complete", "tool.search", "tool.pay")}

    assert {seq: text.split(" ")[0] for seq, text in told.items() if seq in hosted} == hosted
    replies = [told[seq].split(" → ")[1] for seq, name in hosted.items() if name == "llm.complete"]
    assert replies == [f'"{reply}"' for reply in hosts.REPLIES]
    clocks = sum(row["import"] == "wasi_snapshot_preview1.clock_time_get" for row in rows)
    assert f"clock_time_get ×{clocks}" in ran[1]


def test_the_harm_is_in_the_events_it_names(ran: tuple[Path, str], rows: list[dict[str, Any]]) -> None:
    paid, cents, account = numbers(ran[1], r"harm +event (\d+) paid ([\d.]+) to (\S+)")
    read, wanted = numbers(ran[1], r"the invoice, read by event (\d+), says (\S+)")
    wrote, how_many = numbers(ran[1], r"event (\d+) changed that: tool.search wrote (\d+) bytes")

    payment, reading, writing = rows[int(paid)], rows[int(read)], rows[int(wrote)]
    assert payment["import"] == "tool.pay"
    assert payment["args"][2] == round(float(cents) * 100) == 12950
    assert account.encode() in payment["record"]
    assert f"account {wanted}\n".encode() in reading["record"]
    assert wanted != account
    assert writing["import"] == "tool.search"
    assert writing["received"] == int(how_many) == len(hosts.ANSWERS[1])
    assert account.encode() in writing["record"]


def test_the_altered_copy_is_readable_and_its_verdict_names_the_event(ran: tuple[Path, str], rows: list[dict[str, Any]]) -> None:
    (named,) = numbers(ran[1], r"replayed: diverged at event (\d+)")
    incident, altered = ran[0] / "reprise-demo" / "incident.trace", ran[0] / "reprise-demo" / "altered.trace"

    with EventsReader(altered / EVENTS) as reader:
        changed = [row for window in range(reader.window_count) for row in reader.batch(window).to_pylist()]
    different = [seq for seq, (a, b) in enumerate(zip(rows, changed, strict=True)) if a != b]
    assert different == [int(named)]
    a, b = rows[int(named)], changed[int(named)]
    assert {key for key in a if a[key] != b[key]} == {"record"}
    assert sum((x ^ y).bit_count() for x, y in zip(a["record"], b["record"], strict=True)) == 1
    verdict = reprise.replay(altered)
    assert verdict.kind == "diverged"
    assert verdict.difference is not None and verdict.difference.seq == int(named)
    assert reprise.verify(incident).kind == "identical"


def test_the_line_that_let_it_happen_is_found_by_running_the_agent_again(ran: tuple[Path, str]) -> None:
    (mark, line) = numbers(ran[1], r"why +run again, instruction ([\d,]+) let it: search, agent\.c:(\d+)\n")
    source = (ROOT / "recorder" / "demo" / "agent.c").read_text().splitlines()

    assert "tool_search(" in source[int(line) - 1]
    assert source[int(line) - 1].strip() in ran[1]
    with reprise.TimeMachine(ran[0] / "reprise-demo" / "incident.trace") as machine:
        here = machine.seek(int(mark.replace(",", "")))
        assert here.frame is not None
        assert here.frame.instruction.startswith("call ")
        assert here.frame.name == "search"


def test_the_commands_to_go_on_work(ran: tuple[Path, str]) -> None:
    commands = [line[9:] for line in ran[1][ran[1].index("go on    ") :].splitlines()]
    verbs = {}
    for command in commands:
        words = shlex.split(command)
        done = subprocess.run(words, cwd=ran[0], env=environment(), capture_output=True, text=True, timeout=60)
        verbs[next(word for word in words if word in ("show", "at", "events", "query", "verify"))] = done.returncode
        assert done.stdout

    assert set(verbs) == {"show", "at", "events", "query", "verify"}
    assert verbs.pop("verify") != 0
    assert set(verbs.values()) == {0}


def test_the_world_it_was_recorded_in_is_gone(ran: tuple[Path, str]) -> None:
    with Trace.open(ran[0] / "reprise-demo" / "incident.trace") as trace:
        assert [Path(p["host"]).exists() for p in trace.manifest.invocation["preopens"]] == [False]


@pytest.mark.parametrize("name", tour.UNIMPORTABLE)
def test_the_replaying_process_cannot_load_a_host(name: str) -> None:
    tried = subprocess.run(
        [sys.executable, "-c", tour._WITHOUT.format(names=tour.UNIMPORTABLE) + f"import {name}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )

    assert "ModuleNotFoundError" in tried.stderr or "ImportError" in tried.stderr


def test_it_overwrites_nothing(tmp_path: Path) -> None:
    (tmp_path / "reprise-demo").mkdir()

    again = demo(tmp_path)
    onto = demo(tmp_path, "-o", "reprise-demo")

    assert again.returncode == 0 and "reprise-demo-2/incident.trace" in again.stdout
    assert list((tmp_path / "reprise-demo").iterdir()) == []
    assert onto.returncode == 126 and onto.stdout == ""
    assert onto.stderr.count("\n") == 1 and "choose another place with -o" in onto.stderr


def test_another_world_tells_another_story(tmp_path: Path) -> None:
    """What the demo says is read off the trace: with other answers it says something else."""

    class Other(hosts.World):
        def __init__(self) -> None:
            super().__init__()
            self._answers = iter(("a first answer whose end is".ljust(64, ".") + "8888-7777-6666", "fine"))

    work = tmp_path / "work"
    work.mkdir()
    (work / "inbox.txt").write_text(hosts.INBOX)
    recorded = reprise.record(AGENT, out=tmp_path / "other.trace", dirs={work: "/work"}, hosts=[Other()])
    with recorded.open() as trace:
        story = read_story(trace)

    assert recorded.outcome.kind == "returned"
    assert story.harm.account == "8888-7777-6666"
    first = next(step.seq for step in story.steps if step.call == "tool.search")
    assert (story.harm.writer, story.harm.writer_seq) == ("tool.search", first)
    assert story.harm.offset == 64


def on_a_terminal(where: Path, *arguments: str, **more: str) -> str:
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "reprise", "demo", *arguments],
        cwd=where,
        env=environment(**more),
        stdin=slave,
        stdout=slave,
        stderr=slave,
    )
    os.close(slave)
    said = b"".join(_read(master))
    os.close(master)
    assert process.wait(timeout=60) == 0
    return said.decode()


def _read(master: int) -> Iterator[bytes]:
    while True:
        try:
            piece = os.read(master, 4096)
        except OSError:  # what a terminal whose other side was closed reads as
            return
        if not piece:
            return
        yield piece


def test_colours_are_for_terminals_that_want_them(tmp_path: Path) -> None:
    coloured = on_a_terminal(tmp_path, "--no-inspect")
    plain = on_a_terminal(tmp_path, "--no-inspect", NO_COLOR="1")

    assert f"{ESCAPE}32midentical{ESCAPE}0m" in coloured
    assert ESCAPE not in plain
    assert len(coloured.splitlines()) <= 33
