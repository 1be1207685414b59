"""What each command does when all is well: what it prints, where, and its exit code."""

from __future__ import annotations

import base64
import csv
import io
import json
import os
import signal
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import GUESTS, Cli, wait_until_watched

Guest = Callable[[str], Path]


def loads(text: str) -> Any:
    return json.loads(text)


# -- record and run ------------------------------------------------------------------------------------------------------


def test_the_guests_arguments_pass_through_untouched(cli: Cli, guest: Guest) -> None:
    words = ["-o", "--help", "--", "--json", "-x", "", "a b"]

    done = cli("record", "-o", "x.trace", "--dir", "work::/work", guest("clock_random_file"), *words)

    lines = done.stdout.splitlines()
    assert lines[: len(words) + 1] == ["argv[0] clock_random_file", *(f"argv[{i}] {w}" for i, w in enumerate(words, 1))]
    assert done.returncode == len(words)


def test_options_end_at_a_double_dash_too(cli: Cli, guest: Guest) -> None:
    done = cli("record", "-o", "x.trace", "--dir", "work::/work", "--", guest("clock_random_file"), "--", "-o")

    assert "argv[1] --\nargv[2] -o\n" in done.stdout


def test_values_may_look_like_options(cli: Cli, guest: Guest) -> None:
    done = cli("run", "--json", "--invoke", "add", "--arg", "-5", "--arg", "-0x1", guest("reactor"))

    assert loads(done.stdout)["results"][0]["values"] == [-6]


def test_recording_says_one_line_and_leaves_stdout_to_the_guest(cli: Cli, guest: Guest) -> None:
    native = cli("run", "--stdin", "hosts.py", guest("read_stdin"))
    recorded = cli("record", "-o", "x.trace", "--stdin", "hosts.py", guest("read_stdin"))

    assert recorded.stdout == native.stdout
    assert recorded.returncode == native.returncode
    *guests_own, line = recorded.stderr.splitlines(keepends=True)
    assert "".join(guests_own) == native.stderr
    assert line.strip().endswith("; trace x.trace")


def test_the_default_name_is_printed_and_private(cli: Cli, guest: Guest) -> None:
    done = cli("record", "--invoke", "count", guest("reactor"))

    (made,) = cli.cwd.glob("reactor-*.trace")
    assert done.stderr.splitlines()[-1].endswith(f"; trace {made.name}")
    assert stat.S_IMODE(made.stat().st_mode) == 0o700


def test_json_comes_after_the_guests_output(cli: Cli, guest: Guest) -> None:
    done = cli("record", "-o", "x.trace", "--json", "--dir", "work::/work", guest("clock_random_file"), "a")

    *output, last = done.stdout.splitlines()
    found = loads(last)
    assert output[0] == "argv[0] clock_random_file"
    assert found["schema"] == "reprise.recording/1"
    assert found["trace"] == "x.trace"
    assert found["outcome"] == {
        "kind": "exit", "exit_code": 1, "message": "", "code": 1, "clock": None, "inside": None,
    }  # fmt: skip
    assert found["events"] > 10


@pytest.mark.parametrize("command", ["record", "run"])
def test_results_of_calls(cli: Cli, guest: Guest, command: str) -> None:
    words = ["--json", "--invoke", "add", "--arg", "-3", "--arg", "0x1", "--invoke", "count", "--invoke", "count"]

    done = cli(command, *words, guest("reactor"))

    assert [line for line in done.stderr.splitlines() if "→" in line] == [
        "reprise: add → -2", "reprise: count → 1", "reprise: count → 2",
    ]  # fmt: skip
    assert [(r["values"], r["raw"]) for r in loads(done.stdout)["results"]] == [
        ([-2], ["0xfffffffe"]), ([1], ["0x1"]), ([2], ["0x2"]),
    ]  # fmt: skip


@pytest.mark.parametrize("command", ["record", "run"])
def test_bytes_as_arguments(cli: Cli, guest: Guest, command: str) -> None:
    (cli.cwd / "payload").write_bytes(bytes(range(100)))

    done = cli(command, "--json", "--invoke", "sum", "--arg", "@payload", guest("reactor"))

    assert loads(done.stdout)["results"][0]["values"] == [sum(range(100))]


@pytest.mark.parametrize("command", ["record", "run"])
def test_python_hosts(cli: Cli, guest: Guest, command: str) -> None:
    nested = cli(command, "--host", "hosts:Env", "--json", "--invoke", "again", "--arg", "1", guest("deep_recursion_import"))
    state = cli(command, "--host", "hosts:Env", "--json", "--invoke", "step", "--arg", "13", guest("imported_state"))

    assert loads(nested.stdout)["results"][0]["values"] == [10]
    assert loads(state.stdout)["results"][0]["values"] == [41]


@pytest.mark.parametrize(
    ("name", "options", "code"),
    [
        ("busy_loop", ["--fuel", "100000"], 134),
        ("busy_loop", ["--timeout", "0.2"], 124),
        ("sleep_hour", ["--timeout", "0.2"], 124),
        ("deep_recursion", [], 134),
    ],
)
def test_limits_and_traps_end_recorded_and_native_runs_alike(
    cli: Cli, guest: Guest, name: str, options: list[str], code: int
) -> None:
    native = cli("run", *options, guest(name))
    recorded = cli("record", "-o", "x.trace", *options, guest(name))
    replayed = cli("replay", "x.trace")

    assert (native.returncode, recorded.returncode) == (code, code), (native.stderr, recorded.stderr)
    assert replayed.returncode in (0, 4), replayed.stdout
    assert len(native.stderr.splitlines()) == len(recorded.stderr.splitlines()) == 1


def test_fuel_stops_recorded_and_native_runs_at_the_same_instruction(cli: Cli, guest: Guest) -> None:
    outcomes = [
        loads(cli(command, "--json", "--fuel", "12345", guest("import_loop_start")).stdout)["outcome"]
        for command in ("record", "run")
    ]

    assert outcomes[0] == outcomes[1]
    assert outcomes[0]["clock"] >= 12345


def test_a_memory_limit_is_kept(cli: Cli, guest: Guest) -> None:
    done = cli("record", "-o", "x.trace", "--max-memory", "2MiB", "--invoke", "alloc", "--arg", "4000000", guest("reactor"))

    assert "alloc → 0" in done.stderr  # malloc's answer to a growth that was refused
    assert cli("replay", "x.trace").returncode == 0


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("command", ["record", "run"])
@pytest.mark.parametrize("name", ["sleep_hour", "busy_loop"])
def test_signals(cli: Cli, guest: Guest, command: str, number: signal.Signals, code: int, name: str) -> None:
    process = cli.start(command, *(["-o", "x.trace"] if command == "record" else []), guest(name))
    wait_until_watched(process)
    time.sleep(0.3)
    process.send_signal(number)
    _, said = process.communicate(timeout=30)

    assert process.returncode == code, said
    assert len(said.splitlines()) == 1
    if command == "record":
        assert cli("verify", "x.trace").returncode == 4


def test_an_environment_variable_is_passed_on_by_name(cli: Cli, guest: Guest) -> None:
    words = ("--dir", "work::/work", "--env", "GREETING", "--env", "A=b=c", guest("clock_random_file"))

    done = cli("run", *words, env={"GREETING": "hello", "HIDDEN": "1"})

    assert "env GREETING=hello\nenv A=b=c\n" in done.stdout
    assert "HIDDEN" not in done.stdout


def test_a_read_only_directory_is_read_only(cli: Cli, guest: Guest) -> None:
    assert cli("run", "--dir", "work::/work::ro", guest("clock_random_file")).returncode == 102
    assert cli("run", "--dir", "work::/work::rw", guest("clock_random_file")).returncode == 0


def test_a_journal_that_cannot_be_written_is_a_failed_recording(cli: Cli, guest: Guest) -> None:
    import resource

    def small_files() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))

    done = cli("record", "-o", "x.trace", "--invoke", "count", guest("reactor"), preexec_fn=small_files)

    assert done.returncode == 127
    (line,) = done.stderr.splitlines()
    assert "cannot start recording" in line


# -- replay and verify ---------------------------------------------------------------------------------------------------


def test_replay_needs_nothing_but_the_trace(cli: Cli, trace: Path) -> None:
    (cli.cwd / "work").rmdir()

    done = cli("replay", "a.trace")

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("identical: ")


def test_replay_gives_the_guests_output_back(cli: Cli, guest: Guest) -> None:
    recorded = cli("record", "-o", "x.trace", "--dir", "work::/work", guest("clock_random_file"), "a")
    replayed = cli("replay", "--stdout", "x.trace")

    assert replayed.stdout == recorded.stdout
    assert replayed.stderr.startswith("identical: ")


def test_large_output_comes_back_whole(cli: Cli, guest: Guest) -> None:
    recorded = cli("record", "-o", "x.trace", guest("big_write"))
    replayed = cli("replay", "--stdout", "x.trace")

    assert replayed.returncode == 0
    assert replayed.stdout == recorded.stdout


def test_replaying_another_module_diverges(cli: Cli, trace: Path, guest: Guest) -> None:
    done = cli("replay", "--json", "--module", guest("pipe_writer"), "a.trace")

    assert done.returncode in (3, 5)
    assert loads(done.stdout)["verdict"] in ("diverged", "unusable")


def test_a_verdict_as_json(cli: Cli, trace: Path) -> None:
    found = loads(cli("replay", "--json", "a.trace").stdout)

    assert (found["schema"], found["verdict"], found["trace"]) == ("reprise.verdict/1", "identical", "a.trace")


def test_verify_says_three_lines(cli: Cli, trace: Path) -> None:
    done = cli("verify", "a.trace")

    assert (done.returncode, done.stderr) == (0, "")
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["integrity", "origin", "replay"]
    assert "origin     unsigned: self-consistent, origin not proven\n" in done.stdout


def test_verify_of_several_ends_with_the_worst(cli: Cli, trace: Path) -> None:
    done = cli("verify", "--json", "a.trace", "missing.trace")

    found = loads(done.stdout)
    assert done.returncode == 5
    assert found["verdict"] == "unusable"
    assert [t["verdict"] for t in found["traces"]] == ["identical", "unusable"]


# -- looking -------------------------------------------------------------------------------------------------------------


def test_show(cli: Cli, trace: Path) -> None:
    text = cli("show", "a.trace").stdout
    found = loads(cli("show", "--json", "a.trace").stdout)

    for part in ("outcome    exit 2", "dir:/work:rw", "note       case=7", "wasmtime", "fd_write", "bytes sent"):
        assert part in text
    writes = next(i for i in found["imports"] if i["import"].endswith("fd_write"))
    assert found["schema"] == "reprise.trace/1"
    assert found["crossings"] == sum(i["calls"] for i in found["imports"]) + 1
    assert writes["calls"] > 2
    assert writes["bytes_sent"] > 100


def test_show_counts_payloads_larger_than_one_record(cli: Cli, guest: Guest) -> None:
    written = len(cli("record", "-o", "x.trace", guest("big_write")).stdout)

    found = loads(cli("show", "--json", "x.trace").stdout)

    assert found["bytes_sent"] >= written


def test_show_has_spans_of_python_hosted_calls(cli: Cli, guest: Guest) -> None:
    cli("record", "-o", "x.trace", "--host", "hosts:Env", guest("deep_recursion_import"))

    lines = cli("show", "x.trace").stdout.splitlines()

    at = next(i for i, line in enumerate(lines) if line.startswith("span"))
    names = [line[: line.index("env") + 11] if "env" in line else line.split()[0] for line in lines[at + 1 :]]
    assert names == ["run", "  env.call_me", "    env.call_me", "      env.call_me"]


def test_events_are_decoded(cli: Cli, trace: Path) -> None:
    lines = cli("events", "a.trace").stdout.splitlines()

    assert lines[0].split() == ["0", "_start()", "open"]
    assert any("clock_time_get(realtime)" in line and "ok      → 20" in line for line in lines)
    assert any('path="missing.txt"' in line and "→ errno noent" in line for line in lines)
    assert any("fd_write(fd=1)" in line and '"argv[0] clock_random_file"' in line for line in lines)


def test_events_are_filtered(cli: Cli, trace: Path) -> None:
    def seqs(*words: str) -> list[int]:
        return [event["seq"] for event in loads(cli("events", "--json", *words, "a.trace").stdout)["events"]]

    everything = seqs()
    assert everything == list(range(len(everything)))
    assert seqs("--from", "3", "--to", "5") == [3, 4, 5]
    assert seqs("--limit", "2") == [0, 1]
    assert seqs("--around", "10") == list(range(5, 16))
    assert seqs("--import", "fd_write") == seqs("--import", "*.fd_write")
    assert len(seqs("--import", "fd_*")) > len(seqs("--import", "fd_write")) > 1
    assert len(seqs("--status", "errno")) == 2
    assert seqs("--kind", "export") == [0]
    assert seqs("--import", "nothing") == []


def test_an_event_in_full(cli: Cli, trace: Path) -> None:
    write = loads(cli("events", "--json", "--import", "fd_write", "--limit", "1", "a.trace").stdout)["events"][0]

    text = cli("events", "a.trace", str(write["seq"])).stdout
    found = loads(cli("events", "--json", "a.trace", str(write["seq"])).stdout)

    assert "args      fd=1, iovs=" in text
    assert "argv[0] clock_ra" in text
    assert b"argv[0] clock_random_file" in [base64.b64decode(piece["bytes"]) for piece in found["pieces"]]
    assert all(piece["address"].startswith("0x") for piece in found["pieces"])
    assert cli("events", "a.trace", "99999").returncode == 1


def test_guest_text_is_escaped(cli: Cli, guest: Guest) -> None:
    cli("record", "-o", "x.trace", "--host", "hosts:Env", "--invoke", "step", "--arg", "1", guest("imported_state"))

    text = cli("events", "x.trace").stdout + cli("events", "x.trace", "1").stdout

    assert "\x1b" not in text
    assert r"hello\x1b[31m" in text


def test_events_as_csv(cli: Cli, trace: Path) -> None:
    rows = list(csv.DictReader(io.StringIO(cli("events", "--csv", "--limit", "3", "a.trace").stdout)))

    assert [row["seq"] for row in rows] == ["0", "1", "2"]
    assert rows[1]["import"].endswith("environ_sizes_get")


def test_a_reader_that_leaves_is_no_error(cli: Cli, guest: Guest) -> None:
    cli("record", "-o", "x.trace", "--fuel", "1000000", guest("import_loop_start"))
    with cli.start("events", "x.trace") as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.readline()
        process.stdout.close()

        assert process.wait(30) == 141
        assert process.stderr.read() == ""


def test_query(cli: Cli, trace: Path) -> None:
    pytest.importorskip("duckdb")
    sql = "select stream, string_agg(text, '' order by seq) as text from output group by all order by all"

    text, as_csv = cli("query", "a.trace", sql), cli("query", "--csv", "a.trace", sql)
    found = loads(cli("query", "--json", "a.trace", sql).stdout)

    assert (text.returncode, text.stderr) == (0, "")
    assert "stderr" in text.stdout
    assert found["columns"] == ["stream", "text"]
    assert found["rows"][0] == {"stream": "stderr", "text": "clock_random_file: done, exit 2\n"}
    assert next(csv.DictReader(io.StringIO(as_csv.stdout)))["stream"] == "stderr"


def test_query_of_a_store(cli: Cli, trace: Path) -> None:
    pytest.importorskip("duckdb")
    cli("record", "-o", "b.trace", "--invoke", "count", GUESTS / "reactor.wasm")

    found = loads(cli("query", "--json", ".", "select trace, outcome from runs order by all").stdout)

    assert found["rows"] == [{"trace": "a", "outcome": "exit"}, {"trace": "b", "outcome": "returned"}]


def test_pack_and_unpack(cli: Cli, trace: Path) -> None:
    assert cli("pack", "a.trace/").returncode == 0
    assert cli("unpack", "a.trace.tar", "-o", "b.trace").returncode == 0

    assert {f.name: f.read_bytes() for f in trace.iterdir()} == {f.name: f.read_bytes() for f in (cli.cwd / "b.trace").iterdir()}
    assert cli("verify", "b.trace").returncode == 0


def test_export(cli: Cli, guest: Guest) -> None:
    pytest.importorskip("opentelemetry.exporter.otlp.proto.common")
    cli("record", "-o", "x.trace", "--host", "hosts:Env", guest("deep_recursion_import"))

    first, again = (cli("export", "--otlp", "x.trace").stdout for _ in range(2))
    assert cli("export", "--otlp", "-o", "spans.jsonl", "x.trace").returncode == 0

    assert first == again == (cli.cwd / "spans.jsonl").read_text()
    (line,) = first.splitlines()
    spans = loads(line)["resourceSpans"][0]["scopeSpans"][0]["spans"]
    manifest = loads((cli.cwd / "x.trace" / "manifest.json").read_text())
    assert [span["name"] for span in spans] == ["invoke_agent", *["execute_tool env.call_me"] * 3]
    assert {span["traceId"] for span in spans} == {manifest["trace_id"]}
    assert [span.get("parentSpanId") for span in spans] == [None, *(span["spanId"] for span in spans[:-1])]
    keys = {attribute["key"] for attribute in spans[1]["attributes"]}
    assert {"gen_ai.operation.name", "gen_ai.tool.name", "reprise.start_seq"} <= keys


def test_export_to_a_collector_that_is_not_there(cli: Cli, trace: Path) -> None:
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http")

    done = cli("export", "--otlp", "--endpoint", "http://127.0.0.1:9/v1/traces", "a.trace")

    assert done.returncode == 64
    assert "127.0.0.1:9" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


# -- all -----------------------------------------------------------------------------------------------------------------


def test_help_groups_the_commands(cli: Cli) -> None:
    done = cli("--help")

    assert [line for line in done.stdout.splitlines() if line.endswith(":")] == ["Record:", "Prove:", "Look:", "Test:"]
    assert cli().stdout == done.stdout


def test_a_bug_is_one_line_unless_asked_for(cli: Cli, trace: Path) -> None:
    (cli.cwd / "sitecustomize.py").write_text("import traces.tracedir as t\nt.Trace.open = lambda path: 1 / 0\n")
    paths = f"{cli.cwd}{os.pathsep}{cli.environment()['PYTHONPATH']}"

    short = cli("show", "a.trace", env={"PYTHONPATH": paths})
    long = cli("show", "a.trace", env={"PYTHONPATH": paths, "REPRISE_DEBUG": "1"})

    assert short.returncode == 70
    assert len(short.stderr.splitlines()) == 1
    assert "REPRISE_DEBUG=1" in short.stderr
    assert "Traceback" in long.stderr
