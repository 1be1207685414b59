"""at, find and last-write: what they print, for people and for programs, and what they say to a mistake.

The trace is the golden one of the demo's agent, whose story is known: tool.search (event 22) overwrites the account at 0x130050
from line 89 of agent.c, and tool.pay (event 29) pays it from line 97.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from replayer.machine import TimeMachine
from tests.cli.conftest import GUESTS, ROOT, Cli, one_line

SOURCES = ROOT / "recorder" / "demo"
PAID = b"9999-0000-6666"
INVOICED = b"1234-5678-9012"


@pytest.fixture
def incident(cli: Cli) -> str:
    shutil.copytree(ROOT / "tests" / "goldens" / "format-1" / "incident.trace", cli.cwd / "incident.trace")
    return "incident.trace"


def test_a_moment_is_told_with_frames_variables_source_code_and_memory(cli: Cli, incident: str) -> None:
    done = cli("at", incident, "e29", "--source", SOURCES, "--memory", "0x130050:16", "--globals")

    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith("mark 112999 of ")
    assert "29 of 43 events have happened" in lines[0]
    assert lines[1].startswith("event 29  tool.pay")
    assert "#0  pay at agent.c:97" in lines
    assert "      agent = 0x130010  (struct agent *)" in lines
    source = (SOURCES / "agent.c").read_text().splitlines()[96]
    assert f"▶    97  {source}" in lines
    assert any(line.startswith("▶ 0x") and line.endswith("call 14 ;; tool_pay") for line in lines)
    assert "0x00130050  39 39 39 39 2d 30 30 30 30 2d 36 36 36 36 00 00  9999-0000-6666.." in lines
    assert "global 0 = 1048" in done.stdout


def test_a_moment_as_json(cli: Cli, incident: str) -> None:
    done = cli("at", incident, "e29", "--json", "--memory", "1245264:14")

    found = json.loads(done.stdout)
    assert found["schema"] == "reprise.moment/1"
    assert (found["mark"], found["step"], found["events"]) == (112999, 0, 29)
    frame = found["frames"][0]
    assert (frame["name"], frame["line"], frame["file"]) == ("pay", 97, "agent.c")
    assert frame["operands"][-3:] == ["0x130050", "0xe", "0x3296"]
    assert base64.b64decode(found["memory"][0]["bytes"]) == PAID


def test_an_outer_frame_the_output_and_what_changed_are_told(cli: Cli, incident: str) -> None:
    done = cli("at", incident, "e29", "--source", SOURCES, "--frame", "1", "--output", "--since", "e22")

    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert any(line.startswith("▶   114  ") for line in lines)
    assert any(line.startswith("▶ 0x") and line.endswith(";; pay") for line in lines)
    assert "stdout  invoice 77 asks for 12950 cents to account 1234-5678-9012" in lines
    since = next(i for i, line in enumerate(lines) if line.startswith("since mark 70327, "))
    told: set[int] = set()
    for line in lines[since + 1 :]:
        address, _, length = line.split()[0].partition(":")
        told.update(range(int(address, 16), int(address, 16) + int(length)))
    with TimeMachine(cli.cwd / incident) as machine:
        size = 1310720
        before, after = (machine.seek(mark).read(0, size).ljust(size, b"\0") for mark in ("e22", "e29"))
    assert told == {at for at in range(size) if before[at] != after[at]}


def test_output_and_changes_as_json(cli: Cli, incident: str) -> None:
    found = json.loads(cli("at", incident, "end", "--json", "--output", "--since", "end").stdout)

    said = b"".join(base64.b64decode(one["bytes"]) for one in found["output"] if one["fd"] == 1)
    assert said.startswith(b"invoice 77 asks for 12950 cents to account 1234-5678-9012\n")
    assert found["changes"] == []


def test_start_and_end_are_moments_too(cli: Cli, incident: str) -> None:
    start = cli("at", incident, "start", "--memory", "0x130050:1")
    end = cli("at", incident, "end", "--json")

    one_line(start, 64, "--memory", "memory 0 has")
    assert json.loads(end.stdout)["mark"] == json.loads(end.stdout)["total"]
    assert json.loads(end.stdout)["frames"] == []
    assert "the guest is not running here" in cli("at", incident, "start").stdout


def test_just_after_an_event_its_effects_stand(cli: Cli, incident: str) -> None:
    before = cli("at", incident, "e22", "--memory", "0x130050:14")
    after = cli("at", incident, "e22+", "--memory", "0x130050:14")

    assert INVOICED.decode() in before.stdout
    assert PAID.decode() in after.stdout


def test_without_checkpoints_it_says_so_and_shows_the_same(cli: Cli, incident: str) -> None:
    usual = cli("at", incident, "e22", "--json")
    without = cli("at", incident, "e22", "--json", "--no-checkpoints")

    def plain(text: str) -> Any:
        found = json.loads(text)
        del found["notes"]
        return found

    assert plain(without.stdout) == plain(usual.stdout)
    assert without.stderr == "reprise: note: without checkpoints: every look replays from the start\n"


def test_every_place_is_found_in_both_directions(cli: Cli, incident: str) -> None:
    forward = cli("find", incident, "--break", "func=search", "--count", "0", "--json")
    backward = cli("find", incident, "--break", "func=search", "--count", "0", "--json", "--reverse")

    marks = [stop["mark"] for stop in json.loads(forward.stdout)["stops"]]
    assert len(marks) == 2
    assert [stop["mark"] for stop in json.loads(backward.stdout)["stops"]] == marks[::-1]


def test_places_are_functions_lines_imports_and_offsets(cli: Cli, incident: str) -> None:
    def first(*words: str) -> dict[str, Any]:
        done = cli("find", incident, *words, "--json")
        assert done.returncode == 0, done.stderr
        stop: dict[str, Any] = json.loads(done.stdout)["stops"][0]
        return stop

    by_import = first("--break", "import=tool.pay")
    assert (by_import["mark"], by_import["event"]) == (112999, 29)
    by_line = first("--break", "line=agent.c:97")
    assert by_line["where"] == "pay at agent.c:97"
    assert by_line["mark"] < by_import["mark"]
    assert first("--break", f"pc={by_line['pc']}")["mark"] == by_line["mark"]
    assert first("--break", "func=pay")["where"].startswith("pay at agent.c:")


def test_a_condition_chooses_among_hits(cli: Cli, incident: str) -> None:
    hits = json.loads(cli("find", incident, "--break", "import=tool.search", "--count", "0", "--json").stdout)["stops"]
    chosen = cli("find", incident, "--break", "import=tool.search", "--if", "event.args[1] > 12", "--count", "0", "--json")

    assert [stop["event"] for stop in hits] == [15, 22]
    assert [stop["event"] for stop in json.loads(chosen.stdout)["stops"]] == [22]


def test_a_watch_stops_behind_the_write_and_backward_before_it(cli: Cli, incident: str) -> None:
    last = cli("find", incident, "--watch", "0x130050:14", "--reverse", "--json")
    again = cli("find", incident, "--watch", "0x130050:14", "--from", "e22", "--json")

    (stop,) = json.loads(last.stdout)["stops"]
    assert (stop["event"], stop["mark"], stop["hit"]) == (22, 70327, 70327)
    (stop,) = json.loads(again.stdout)["stops"]
    assert (stop["event"], stop["mark"], stop["hit"]) == (22, 70328, 70327)


def test_the_last_write_is_named_with_its_source_line(cli: Cli, incident: str) -> None:
    done = cli("last-write", incident, "0x130050:14", "--before", "e29", "--source", SOURCES)

    lines = done.stdout.splitlines()
    assert lines[0] == "mark 70327  written by the host, in event 22 tool.search"
    assert "  where   search at agent.c:89" in lines
    line = (SOURCES / "agent.c").read_text().splitlines()[88].strip()
    assert f"  line    {line}" in lines
    assert f'  before  {INVOICED.hex(" ")}  "{INVOICED.decode()}"' in lines
    assert f'  after   {PAID.hex(" ")}  "{PAID.decode()}"' in lines


def test_further_back_stands_who_wrote_it_before(cli: Cli, incident: str) -> None:
    done = cli("last-write", incident, "0x130050", "--count", "3", "--json")

    writes = json.loads(done.stdout)["writes"]
    assert [write["by"] for write in writes] == ["host", "guest", "guest"]
    assert [write["new"][:2] for write in writes[:2]] == [f"{PAID[0]:02x}", f"{INVOICED[0]:02x}"]
    assert writes[0]["mark"] > writes[1]["mark"] > writes[2]["mark"]


def test_calls_and_writes_are_relations_in_sql(cli: Cli, incident: str) -> None:
    pytest.importorskip("duckdb")

    def rows(sql: str) -> list[dict[str, Any]]:
        done = cli("query", incident, sql, "--json")
        assert done.returncode == 0, done.stderr
        found: list[dict[str, Any]] = json.loads(done.stdout)["rows"]
        return found

    marks = [stop["mark"] for stop in json.loads(cli("find", incident, "--break", "func=pay", "--json").stdout)["stops"]]
    (call,) = rows("SELECT * FROM calls('pay')")
    assert call["mark"] <= marks[0] < call["end_mark"]
    assert call["instructions"] == call["end_mark"] - call["mark"]
    assert rows("SELECT count(*) AS n FROM calls('search') WHERE depth > 0") == [{"n": 2}]

    last = rows('SELECT mark, "by", event, new FROM writes(0x130050, 14) ORDER BY mark DESC LIMIT 1')
    assert last == [{"mark": 70327, "by": "host", "event": 22, "new": base64.b64encode(PAID).decode()}]
    joined = rows("SELECT e.import FROM writes(1245264, 14) w JOIN events e ON e.seq = w.event")
    assert joined == [{"import": "tool.search"}]
    # What stands in quotes or comments is left alone, and nothing is kept in the trace.
    assert rows("SELECT 'calls(''pay'')' AS t /* writes(1) */") == [{"t": "calls('pay')"}]
    assert sorted(path.name for path in (cli.cwd / incident).iterdir()) == sorted(
        path.name for path in (ROOT / "tests" / "goldens" / "format-1" / "incident.trace").iterdir()
    )


@pytest.mark.parametrize(
    ("sql", "parts"),
    [
        ("SELECT * FROM calls('serch')", ("serch", "did you mean search")),
        ("SELECT * FROM calls('tool_pay')", ("imported", "events")),
        ("SELECT * FROM calls()", ("one function",)),
        ("SELECT * FROM writes('here')", ("numbers",)),
        ("SELECT * FROM writes(seq)", ("only numbers and 'text'",)),
    ],
)
def test_a_mistake_in_such_sql_is_one_line(cli: Cli, incident: str, sql: str, parts: tuple[str, ...]) -> None:
    pytest.importorskip("duckdb")
    one_line(cli("query", incident, sql), 64, *parts)


def test_nothing_found_is_exit_1(cli: Cli, incident: str) -> None:
    found = cli("find", incident, "--break", "func=pay", "--from", "end")
    write = cli("last-write", incident, "0x13ff00:4")

    assert (found.returncode, found.stdout, found.stderr) == (1, "", "reprise: nothing found\n")
    assert write.returncode == 1
    assert "nothing ever wrote 0x13ff00:4" in write.stderr


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (("at", "T", "999999999"), ("beyond the end", "mark")),
        (("at", "T", "e43"), ("no event 43", "e42")),
        (("at", "T", "yesterday"), ("'yesterday' is not a mark", "e123")),
        (("at", "T", "112999.7"), ("112999.7",)),
        (("at", "T", "0", "--memory", "0x0"), ()),
        (("at", "T", "0", "--memory", "99/0:4"), ("99/0:4", "the module has 1 memory")),
        (("at", "T", "0", "--memory", "0x0:0x7fffffff"), ("outside", "0x7fffffff")),
        (("at", "T", "0", "--memory", "here"), ("'here'", "ADDRESS:LENGTH")),
        (("at", "T", "0", "--source-map", "x"), ("FROM=TO",)),
        (("at", "T", "e29", "--frame", "9"), ("--frame 9", "frames 0 to 3")),
        (("at", "T", "e29", "--since", "e99"), ("no event 99",)),
        (("find", "T"), ("--break", "--watch")),
        (("find", "T", "--break", "func=serch"), ("serch", "did you mean search")),
        (("find", "T", "--break", "import=tool.pya"), ("tool.pya", "did you mean tool.pay")),
        (("find", "T", "--break", "line=agent.c:9999"), ("9999", "agent.c", "138")),
        (("find", "T", "--break", "line=agnet.c:12"), ("agnet.c", "agent.c")),
        (("find", "T", "--break", "line=12"), ("FILE:LINE",)),
        (("find", "T", "--break", "pc=0x1"), ("0x1",)),
        (("find", "T", "--break", "pc=zz"), ("zz", "0x1a2b")),
        (("find", "T", "--break", "main"), ("'main' is not a breakpoint", "func=")),
        (("find", "T", "--break", "func=pay", "--if", "agent =="), ("column 9", "agent ==")),
        (("find", "T", "--break", "func=pay", "--if", "nobody > 1"), ("nobody", "column 1")),
        (("find", "T", "--break", "func=pay", "--count", "-1"), ("--count",)),
        (("find", "T", "--watch", "0xfffffffff:4"), ("outside memory 0",)),
        (("find", "T", "--watch", "global=99"), ("global=99",)),
        (("last-write", "T", "12:0"), ("12:0",)),
        (("last-write", "T", "0x130050", "--count", "0"), ("--count",)),
        (("last-write", "T", "0x130050", "--before", "soon"), ("soon",)),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_a_mistake_is_one_line(cli: Cli, incident: str, words: tuple[str, ...], parts: tuple[str, ...]) -> None:
    done = cli(*(incident if word == "T" else word for word in words))
    if not parts:  # a length of 1 is understood
        assert done.returncode == 0, done.stderr
        return
    assert done.returncode in (1, 64), done.stderr
    one_line(done, done.returncode, *parts)


def test_a_module_the_twin_cannot_handle_is_refused_by_name(cli: Cli) -> None:
    module = cli.cwd / "gc.wat"
    module.write_text('(module (type $s (struct (field i32))) (func (export "run") (result i32)'
                      " (struct.get $s 0 (struct.new $s (i32.const 7)))))")  # fmt: skip
    assert cli("record", "-o", "gc.trace", "--invoke", "run", module).returncode == 0

    one_line(cli("at", "gc.trace", "0"), 126, "garbage-collected types")


def test_a_changed_trace_is_refused(cli: Cli, incident: str) -> None:
    events = cli.cwd / incident / "events.parquet"
    data = bytearray(events.read_bytes())
    data[len(data) // 2] ^= 1
    os.chmod(events, 0o600)
    events.write_bytes(data)

    one_line(cli("at", incident, "0"), 5, "events.parquet", "restore it from a copy")


def test_without_debug_information_there_are_names_and_offsets(cli: Cli) -> None:
    assert cli("record", "-o", "r.trace", "--invoke", "add", "--arg", "1", "--arg", "2", GUESTS / "reactor.wasm").returncode == 0
    done = cli("at", "r.trace", "end")
    found = cli("find", "r.trace", "--break", "func=add")

    assert done.returncode == 0, done.stderr
    assert found.returncode == 0, found.stderr
    assert "add +0x" in found.stdout
    one_line(cli("find", "r.trace", "--break", "line=a.c:1"), 64, "no debug information")


def test_without_what_reads_debug_information_it_says_what_to_install(cli: Cli, incident: str) -> None:
    program = "import sys; sys.modules['elftools'] = None; import reprise; sys.exit(reprise.main(sys.argv[1:]))"
    done = subprocess.run(
        [sys.executable, "-c", program, "at", incident, "e29"],
        cwd=cli.cwd,
        env=cli.environment(),
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert "#0  pay +0x" in done.stdout
    assert "pip install 'reprise-wasm[inspect]'" in done.stderr


def test_a_recording_without_an_end_can_be_looked_at_up_to_there(cli: Cli) -> None:
    shutil.copytree(ROOT / "tests" / "goldens" / "format-1" / "killed.trace", cli.cwd / "killed.trace")
    shutil.copytree(ROOT / "tests" / "goldens" / "format-1" / "fuel.trace", cli.cwd / "fuel.trace")

    assert cli("at", "killed.trace", "end").returncode == 0
    fuel = cli("at", "fuel.trace", "end", "--json")
    outcome = json.loads((cli.cwd / "fuel.trace" / "manifest.json").read_text())["outcome"]
    assert json.loads(fuel.stdout)["mark"] == outcome["clock"]


def test_a_run_that_exhausted_its_stack_can_be_looked_at(cli: Cli) -> None:
    done = cli("record", "-o", "deep.trace", GUESTS / "deep_recursion.wasm")
    assert "stack" in done.stderr
    at = cli("at", "deep.trace", "1000", "--json")
    end = cli("at", "deep.trace", "end")

    assert at.returncode == 0, at.stderr
    assert json.loads(at.stdout)["depth"] > 100
    assert end.returncode == 0, end.stderr
    assert "exhausted its stack" in end.stderr


def test_interrupting_leaves_no_process_behind(cli: Cli, tmp_path: Path) -> None:
    import signal
    import time

    text = '(module (func (export "run") (param i32) (loop $l (br_if $l (local.tee 0 (i32.sub (local.get 0) (i32.const 1)))))))'
    (cli.cwd / "long.wat").write_text(text)
    assert (
        cli(
            "record",
            "-o",
            "long.trace",
            "--invoke",
            "run",
            "--arg",
            "0x7fffffff",
            "--invoke",
            "run",
            "--arg",
            "-1",
            "--invoke",
            "run",
            "--arg",
            "-1",
            "long.wat",
        ).returncode
        == 0
    )
    process = subprocess.Popen(
        cli.command("at", "long.trace", "end"),
        cwd=cli.cwd,
        env=cli.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        # Whoever runs the tests may ignore interrupts (a job in the background does), and that would be inherited.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    time.sleep(1.5)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=20)

    assert process.returncode == 130
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline and _stations(str(process.pid)):
        time.sleep(0.05)
    assert _stations(str(process.pid)) == []


def _stations(of: str) -> list[str]:
    """Processes of time machines that a process started and that have lost it (their session leader is a station)."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                line = (entry / "cmdline").read_bytes().decode(errors="replace")
                stat = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if "replayer.station" in line and stat[0] != "Z" and int(stat[1]) in (1, int(of)):
                found.append(entry.name)
    return found
