"""Limits and stops from outside: exit codes, outcomes, the moment of the stop, and what a replay makes of it."""

from __future__ import annotations

import json
import random
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.faults.kit import (
    CALL,
    GROW_FAILED,
    OPEN,
    ROOT,
    STOP,
    TRAP,
    Server,
    command,
    guest,
    let_out,
    looked_at,
    manifest,
    records,
    serving,
    well_nested,
)

HOUR = 3600


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serving() as server:
        yield server


def wat(place: Path, text: str) -> str:
    path = place / "guest.wat"
    path.write_text(text)
    return str(path)


# -- who is stopped ------------------------------------------------------------------------------------------------------

FOREVER = """(module
  (import "wasi_snapshot_preview1" "clock_time_get" (func $clock (param i32 i64 i32) (result i32)))
  (memory (export "memory") 1)
  (func (export "_start") (loop $next (drop (call $clock (i32.const 1) (i64.const 1) (i32.const 8))) (br $next))))"""

HOSTED = """(module
  (import "env" "{name}" (func $host))
  (import "wasi_snapshot_preview1" "random_get" (func $random (param i32 i32) (result i32)))
  (memory (export "memory") 1)
  (func (export "_start") (drop (call $random (i32.const 0) (i32.const 8))) (call $host)
    (i32.store (i32.const 16) (i32.const 1))))"""


@dataclass(frozen=True)
class Case:
    """Something that does not end by itself, and how its end looks."""

    name: str
    module: str
    """Name of a committed guest, or text."""
    exact: bool
    """Stopped by itself, so that the recording is complete and replays identical; otherwise the process is ended under it."""
    inside: str | None = None
    ready: bytes = b""
    """What it lets out once it is where it stays."""
    limits: dict[str, Any] = field(default_factory=dict)


METERED = {"fuel": 1 << 60}
CASES = [
    Case("busy", "busy_loop", False),
    Case("busy-metered", "busy_loop", True, limits=METERED),
    Case("sleep", "sleep_hour", False, "wasi_snapshot_preview1.poll_oneoff", b"sleeping\n"),
    Case("sleep-metered", "sleep_hour", False, "wasi_snapshot_preview1.poll_oneoff", b"sleeping\n", METERED),
    Case("read", "read_stdin", False, "wasi_snapshot_preview1.fd_read"),
    Case("host-sleeps", HOSTED.format(name="sleep"), False, "env.sleep", b"sleeping\n"),
    Case("host-spins", HOSTED.format(name="spin"), False, "env.spin", b"spinning\n"),
    Case("host-spins-metered", HOSTED.format(name="spin"), False, "env.spin", b"spinning\n", METERED),
    Case("imports", FOREVER, True),
    Case("imports-metered", FOREVER, True, limits=METERED),
]
WAYS = [("SIGINT", 130, "interrupted"), ("SIGTERM", 143, "terminated"), ("timeout", 124, "timeout")]


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
@pytest.mark.parametrize(("way", "code", "kind"), WAYS, ids=[w[0] for w in WAYS])
def test_stopped(server: Server, tmp_path: Path, case: Case, way: str, code: int, kind: str) -> None:
    out = tmp_path / "run.trace"
    module = wat(tmp_path, case.module) if case.module.startswith("(") else guest(case.module)
    limits = dict(case.limits)
    exact = case.exact
    if way == "timeout":
        limits = {**limits, "timeout": 0.3}
        exact = exact or case.inside is None  # a deadline meters
    recorder = server.start(out=str(out), module=module, argv=[HOUR], limits=limits, stdin_pipe=True, grace=0.3)
    if way != "timeout":
        if case.ready:
            recorder.until(case.ready)
        settled(out, case.inside is not None)
        recorder.signal(getattr(signal, way))
    ended = recorder.end(30)
    assert ended.code == code, (ended.code, ended.err)
    assert ended.seconds < 10, "it took too long to stop"
    last = ended.err.splitlines()[-1]
    assert last.startswith(f"reprise: {kind}"), ended.err
    outcome = manifest(out)["outcome"]
    assert (outcome["kind"], outcome["exit_code"], outcome["inside"]) == (kind, code, case.inside), outcome
    assert outcome["complete"] is exact
    began = time.monotonic()
    (found,) = looked_at([out])
    assert time.monotonic() - began < 30
    opened = found["opened"]
    assert opened["problems"] == []
    assert opened["kind"] == ("identical" if exact else "incomplete"), opened
    rows = records(out)
    if exact:
        assert rows[-1].kind == STOP
        assert well_nested(rows) == 0
        clock = struct.unpack_from("<Q", rows[-1].body, 8)[0]
        metered = bool(limits)
        assert (clock == outcome["clock"]) if metered else clock == (1 << 64) - 1
    else:
        assert well_nested(rows) == (1 if case.inside is None else 2)
        if case.inside is not None:
            assert kind in opened["line"]
            assert case.inside in opened["line"], opened["line"]
            assert (rows[-1].kind, rows[-1].status) == (CALL, OPEN)


def settled(out: Path, inside: bool) -> None:
    """Waits until the guest runs; if it is to sit inside a host call, until its journal has not grown for a while."""
    window = out / "journal" / "window"
    deadline = time.monotonic() + 20

    def head() -> bytes:
        assert time.monotonic() < deadline, "the guest does not get where it should stay"
        time.sleep(0.01)
        if not window.exists():
            return b""
        with open(window, "rb") as file:
            return file.read(8)

    while (now := head()) == b"" or struct.unpack_from("<I", now)[0] in (0, 65536):
        pass
    since = time.monotonic()
    while time.monotonic() - since < (0.3 if inside else 0.1):
        if inside and head() != now:
            now, since = head(), time.monotonic()


def test_second_signal_does_not_wait(server: Server, tmp_path: Path) -> None:
    recorder = server.start(out=str(tmp_path / "run.trace"), module=guest("sleep_hour"), grace=60.0)
    recorder.until(b"sleeping\n")
    settled(tmp_path / "run.trace", True)
    recorder.signal(signal.SIGINT)
    time.sleep(0.2)
    recorder.signal(signal.SIGINT)
    ended = recorder.end(30)
    assert ended.code == 130
    assert ended.seconds < 20


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
def test_signal_at_any_moment(server: Server, tmp_path: Path, number: signal.Signals) -> None:
    """While starting, recording and closing: the run ends, and what was seen is in a trace or in a journal that recovers."""
    random_ = random.Random()
    outs: list[Path] = []
    seen: list[bytes] = []
    for n in range(20):
        out = tmp_path / f"{n}.trace"
        recorder = server.start(out=str(out), module=guest("pipe_writer"), argv=[4000], slot_size=65536)
        recorder.read(time.monotonic() + random_.uniform(0, 0.3))
        recorder.signal(number)
        ended = recorder.end(30)
        assert ended.code in (0, 130, 143, -number), (ended.code, ended.err)
        assert "Traceback" not in ended.err, ended.err
        if not out.exists():
            assert not ended.out
            continue
        outs.append(out)
        seen.append(ended.out)
    for out, bytes_, found in zip(outs, seen, looked_at(outs), strict=True):
        opened = found["opened"]
        if opened["kind"] == "error":
            assert not bytes_
            continue
        assert opened["kind"] in ("identical", "incomplete"), opened
        done, begun = let_out(out)
        assert (done + begun).startswith(bytes_)
        if opened["kind"] == "identical":
            assert done == bytes_


_LIBRARY = """
import os, signal, sys, threading
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from recorder.invocation import Invocation
from recorder.recording import Limits, Options, Recording
from recorder.source import load
def ours(number, frame): pass
signal.signal(signal.SIGINT, ours); signal.signal(signal.SIGTERM, ours)
read, write = os.pipe(); os.set_blocking(write, False); signal.set_wakeup_fd(write)
many = [os.open("/dev/null", os.O_RDONLY) for _ in range(int(sys.argv[5]))]
descriptors = len(os.listdir("/proc/self/fd"))
for n in range(3):
    limits = Limits(timeout=0.2) if sys.argv[4] == "timeout" else Limits(fuel=100000)
    options = Options(out=Path(sys.argv[3] + str(n)), invocation=Invocation(argv=("x",)), signals=True, limits=limits)
    print(Recording(load(sys.argv[2]), options).run().kind, file=sys.stderr)
assert signal.getsignal(signal.SIGINT) is ours and signal.getsignal(signal.SIGTERM) is ours, "handlers"
assert signal.set_wakeup_fd(-1) == write, "wakeup"
left = [t.name for t in threading.enumerate() if t is not threading.main_thread()]
assert not left, left
import gc; gc.collect()
print(descriptors, len(os.listdir("/proc/self/fd")), file=sys.stderr)
assert len(os.listdir("/proc/self/fd")) <= descriptors + 2, "descriptors"
"""


@pytest.mark.parametrize("way", ["timeout", "fuel"])
@pytest.mark.parametrize("open_files", [0, 1200])
def test_library_use_leaves_nothing_behind(tmp_path: Path, way: str, open_files: int) -> None:
    """Handlers, the wake-up descriptor, threads and descriptors are as they were, also where there are very many descriptors."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 2000:
        pytest.skip("this process may not open that many files")
    script = [str(ROOT), guest("busy_loop"), str(tmp_path / "run.trace"), way, str(open_files)]
    done = subprocess.run(
        [sys.executable, "-c", _LIBRARY, *script],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 2000), hard)),
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[:3] == [way] * 3


# -- limits --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("part", range(4))
def test_fuel_runs_out_anywhere(server: Server, tmp_path: Path, part: int) -> None:
    """4 × 50 random budgets: the guest stops at the budget, and its replay at the same instruction with the same memory."""
    random_ = random.Random()
    work = tmp_path / "work"
    work.mkdir()
    budgets = [1, 2, 3, *(random_.randint(1, 40_000) for _ in range(22)), *(random_.randint(1, 400_000) for _ in range(25))]
    outs: list[Path] = []
    for budget in budgets:
        out = tmp_path / f"{len(outs)}.trace"
        ended = server.run(
            out=str(out),
            module=guest("mixed_loop"),
            argv=[100_000],
            dirs=[[str(work), "/work"]],
            limits={"fuel": budget},
            slot_size=65536,
        )
        assert ended.code == 134, ended.err
        outs.append(out)
        outcome = manifest(out)["outcome"]
        assert (outcome["kind"], outcome["complete"]) == ("fuel", True)
        # Between two checks lies straight-line code, and mixed_loop has no long stretch of it.
        assert budget <= outcome["clock"] < budget + 1000, (budget, outcome)
        last = records(out)[-1]
        assert last.kind == STOP
        assert struct.unpack_from("<IIQ", last.body) == (1, 0, outcome["clock"])
    for budget, found in zip(budgets, looked_at(outs), strict=True):
        opened = found["opened"]
        assert opened["kind"] == "identical", (budget, opened)
        assert "1 memory" in opened["line"]


def test_fuel_stops_two_runs_of_pure_code_at_the_same_place(server: Server, tmp_path: Path) -> None:
    """Without anything nondeterministic, two recordings with one budget end in the same memory."""
    import pyarrow.parquet as pq

    digests = []
    for n, budget in enumerate((50_001, 50_001, 50_201)):
        out = tmp_path / f"{n}.trace"
        assert server.run(out=str(out), module=guest("busy_loop"), limits={"fuel": budget}).code == 134
        states = pq.read_table(out / "states.parquet").to_pylist()
        digests.append([s["digest"] for s in states if s["what"] == "memory"][-1])
    assert digests[0] == digests[1]
    assert digests[0] != digests[2]


def test_enough_fuel_changes_nothing(server: Server, tmp_path: Path) -> None:
    out = tmp_path / "run.trace"
    ended = server.run(out=str(out), module=guest("pipe_writer"), argv=[50], limits={"fuel": 1 << 40})
    assert (ended.code, ended.out) == (0, b"".join(b"%d\n" % n for n in range(1, 51)))
    assert looked_at([out])[0]["opened"]["kind"] == "identical"


GROWING = """(module
  (import "wasi_snapshot_preview1" "clock_time_get" (func $clock (param i32 i64 i32) (result i32)))
  (memory (export "memory") 1)
  (func (export "_start") (local $left i32)
    (local.set $left (i32.const {times}))
    (loop $next
      (if (i32.eq (memory.grow (i32.const {pages})) (i32.const -1))
        (then (i32.store (i32.const 32) (i32.add (i32.load (i32.const 32)) (i32.const 1)))))
      (drop (call $clock (i32.const 1) (i64.const 1) (i32.const 8)))
      (br_if $next (local.tee $left (i32.sub (local.get $left) (i32.const 1)))))
    (i32.store (i32.const 36) (memory.size))
    {then}))"""


def test_memory_limit(server: Server, tmp_path: Path) -> None:
    out = tmp_path / "run.trace"
    module = wat(tmp_path, GROWING.format(times=40, pages=1, then=""))
    ended = server.run(out=str(out), module=module, limits={"max_memory": 1 << 20})
    assert ended.code == 0, ended.err
    assert _sizes(out) == [1 << 20]
    assert not [r for r in records(out) if r.kind == GROW_FAILED], "the limit refuses by itself, on replay too"
    assert looked_at([out])[0]["opened"]["kind"] == "identical"


def _sizes(out: Path) -> list[int]:
    import pyarrow.parquet as pq

    states = pq.read_table(out / "states.parquet").to_pylist()
    last = max(s["seq"] for s in states)
    return [s["size"] for s in states if s["seq"] == last and s["what"] == "memory"]


def test_growth_refused_by_the_operating_system(server: Server, tmp_path: Path) -> None:
    """Recorded by ordinal; a replay without that shortage refuses the same requests and no others."""
    out = tmp_path / "run.trace"
    module = wat(tmp_path, GROWING.format(times=10, pages=6400, then=""))
    ended = server.run(out=str(out), module=module, rlimits={"RLIMIT_DATA": 1200 << 20})
    assert ended.code == 0, ended.err
    refused = [struct.unpack_from("<IIQ", r.body) for r in records(out) if r.kind == GROW_FAILED]
    assert 0 < len(refused) < 10
    assert 65536 < _sizes(out)[0] < 1200 << 20
    (found,) = looked_at([out])
    assert found["opened"]["kind"] == "identical", found["opened"]


@pytest.mark.parametrize("then", ["(loop $ever (br $ever))", "(drop (call $clock (i32.const 1) (i64.const 1) (i32.const 8)))"])
def test_killed_right_after_a_refused_growth(server: Server, tmp_path: Path, then: str) -> None:
    """The newest record is the refusal: the replay stops there, though the guest is in the middle of an instruction."""
    out = tmp_path / "run.trace"
    text = f"""(module
      (import "wasi_snapshot_preview1" "clock_time_get" (func $clock (param i32 i64 i32) (result i32)))
      (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
      (memory (export "memory") 1) (data (i32.const 0) "\\08\\00\\00\\00\\02\\00\\00\\00go")
      (func (export "_start")
        (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 32)))
        (drop (memory.grow (i32.const 40000)))
        (loop $ever (br_if $ever (i32.eqz (i32.load (i32.const 1000)))))
        {then}))"""
    recorder = server.start(out=str(out), module=wat(tmp_path, text), rlimits={"RLIMIT_DATA": 1 << 30})
    recorder.until(b"go")
    time.sleep(0.2)
    recorder.kill()
    done = command("recover", out)
    assert done.returncode == 0, done.stderr
    assert records(out)[-1].kind == GROW_FAILED
    try:
        replayed = subprocess.run(
            [sys.executable, "-m", "reprise", "replay", str(out)],
            capture_output=True,
            text=True,
            check=False,
            timeout=20,
            env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin"},
        )
    except subprocess.TimeoutExpired:
        pytest.fail("the replay of an incomplete recording runs on without end")
    assert replayed.returncode == 4, replayed.stdout + replayed.stderr


# -- stacks --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["deep_recursion", "deep_recursion_clock", "deep_recursion_import"])
@pytest.mark.parametrize("limits", [{}, METERED], ids=["plain", "metered"])
def test_stack_exhausted(server: Server, tmp_path: Path, name: str, limits: dict[str, Any]) -> None:
    out = tmp_path / "run.trace"
    ended = server.run(out=str(out), module=guest(name), limits=limits, slot_size=65536)
    assert ended.code == 134, (ended.code, ended.err)
    assert ended.err.count("\n") == 1
    outcome = manifest(out)["outcome"]
    assert outcome["complete"] is True
    if name != "deep_recursion_import":  # there, Python may run out of depth before the guest runs out of stack
        assert outcome["kind"] == "stack", outcome
    assert records(out)[-1].kind == TRAP
    (found,) = looked_at([out])
    opened = found["opened"]
    assert opened["problems"] == []
    assert opened["kind"] == "identical" or (opened["kind"] == "incomplete" and "stack exhausted" in opened["line"]), opened


def test_stops_from_the_command_line(tmp_path: Path) -> None:
    """The documented exit codes, through the commands: 124 with `timeout inside`, 134 for fuel, and 0 and 4 on replay."""
    done = command("record", "-o", tmp_path / "a.trace", "--timeout", "0.2", guest("busy_loop"))
    assert done.returncode == 124, done.stderr
    assert command("replay", tmp_path / "a.trace").returncode == 0
    done = command("record", "-o", tmp_path / "b.trace", "--fuel", "12345", "--json", guest("busy_loop"))
    assert done.returncode == 134, done.stderr
    outcome = json.loads(done.stdout)["outcome"]
    assert (outcome["kind"], outcome["exit_code"]) == ("fuel", 134)
    assert outcome["clock"] >= 12345
    done = command("record", "-o", tmp_path / "c.trace", "--timeout", "0.2", guest("sleep_hour"))
    assert done.returncode == 124, done.stderr
    assert "timeout inside wasi_snapshot_preview1.poll_oneoff" in done.stderr
    replayed = command("replay", tmp_path / "c.trace")
    assert replayed.returncode == 4
    assert "timeout inside wasi_snapshot_preview1.poll_oneoff" in replayed.stdout
