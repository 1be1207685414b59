"""What the tests of the time machine share: recordings made once per session, and an eye on the processes of a machine.

Guests are small texts with everything a mark can fall on: calls of hosts, callbacks, several exports, a start function, pokes.
`states_of` is what "the same state" means here; `count_instructions` is an oracle for clocks that shares no code with the twin.
"""

from __future__ import annotations

import contextlib
import os
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from recorder.python_host import Guest, HostFunction
from replayer.look import Here
from replayer.machine import TimeMachine
from replayer.worker import Moment
from tests import harness
from traces.tracedir import Trace

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = ROOT / "benchmarks" / "programs"

# -- guests ------------------------------------------------------------------------------------------------------------------

BUSY = """
(module
  (import "host" "next" (func $next (param i32) (result i32)))
  (import "host" "again" (func $again (param i32) (result i32)))
  (memory (export "memory") 2 8)
  (global $sum (export "sum") (mut i32) (i32.const 7))
  (global $hidden (mut i64) (i64.const 11))
  (global (mut f64) (f64.const 0.5))
  (start $prepare)
  (func $prepare
    (i32.store (i32.const 64) (i32.const 0x1234))
    (global.set $hidden (i64.const 99))
    (drop (call $next (i32.const -1))))
  (func $mix (param $x i32) (result i32)
    (local $i i32)
    (loop $more
      (local.set $x (i32.xor (i32.mul (local.get $x) (i32.const 1103515245)) (i32.shr_u (local.get $x) (i32.const 7))))
      (i32.store (i32.add (i32.const 1024) (i32.and (local.get $x) (i32.const 0xfffc))) (local.get $x))
      (br_if $more (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const 50))))
    (local.get $x))
  (func (export "run") (param $rounds i32) (result i32)
    (local $x i32)
    (block $done
      (loop $more
        (br_if $done (i32.eqz (local.get $rounds)))
        (local.set $x (i32.add (call $mix (local.get $x)) (call $next (local.get $rounds))))
        (if (i32.eqz (i32.rem_u (local.get $rounds) (i32.const 3)))
          (then (local.set $x (i32.add (local.get $x) (call $again (local.get $rounds))))))
        (global.set $sum (i32.add (global.get $sum) (local.get $x)))
        (global.set $hidden (i64.add (global.get $hidden) (i64.extend_i32_u (local.get $x))))
        (local.set $rounds (i32.sub (local.get $rounds) (i32.const 1)))
        (br $more)))
    (local.get $x))
  (func (export "inner") (param $n i32) (result i32)
    (local $i i32)
    (loop $more
      (i32.store8 offset=32 (local.get $i) (local.get $n))
      (br_if $more (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (local.get $n))))
    (i32.add (call $next (local.get $n)) (local.get $i)))
  (func (export "nothing")))
"""
"""A start function that calls a host, hosts that call back, writes, globals of every kind."""

SPIN = """
(module
  (import "host" "next" (func $next (param i32) (result i32)))
  (memory (export "memory") {pages})
  (global $turns (export "turns") (mut i64) (i64.const 0))
  (func $step (param $x i64) (result i64)
    (local.set $x (i64.xor (local.get $x) (i64.shl (local.get $x) (i64.const 13))))
    (local.set $x (i64.xor (local.get $x) (i64.shr_u (local.get $x) (i64.const 7))))
    (i64.xor (local.get $x) (i64.shl (local.get $x) (i64.const 17))))
  (func (export "run") (param $rounds i32) (param $turns i32)
    (local $x i64) (local $i i32)
    (local.set $x (i64.const 88172645463325252))
    (loop $round
      (local.set $i (local.get $turns))
      (loop $turn
        (local.set $x (call $step (local.get $x)))
        (i64.store (i32.and (i32.wrap_i64 (local.get $x)) (i32.const {mask})) (local.get $x))
        (global.set $turns (i64.add (global.get $turns) (i64.const 1)))
        (br_if $turn (local.tee $i (i32.sub (local.get $i) (i32.const 1)))))
      (drop (call $next (local.get $rounds)))
      (br_if $round (local.tee $rounds (i32.sub (local.get $rounds) (i32.const 1)))))))
"""
"""Runs for as long as one likes, and writes all over its memory."""

TRAPS = """
(module
  (import "host" "next" (func $next (param i32) (result i32)))
  (type $v (func)) (type $i (func (result i32)))
  (memory (export "memory") 1)
  (table 3 3 funcref)
  (elem (i32.const 0) func $seven)
  (global $g (export "g") (mut i32) (i32.const 0))
  (func $seven (result i32) (i32.const 7))
  (func $work (param $n i32) (result i32)
    (local $i i32)
    (loop $more
      (i32.store (i32.and (i32.mul (local.get $i) (i32.const 4)) (i32.const 0xfffc)) (local.get $i))
      (br_if $more (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (local.get $n))))
    (global.set $g (i32.add (global.get $g) (local.get $i)))
    (local.get $i))
  (func (export "fine") (result i32) (i32.add (call $work (i32.const 20)) (call $next (i32.const 1))))
  (func (export "unreachable") (result i32)
    (i32.add (i32.const 1) (i32.add (call $work (i32.const 9)) (unreachable))))
  (func (export "bounds") (result i32)
    (i32.add (call $work (i32.const 9)) (i32.add (i32.const 3) (i32.load offset=8 (i32.const 65534)))))
  (func (export "store") (result i32)
    (drop (call $work (i32.const 5)))
    (i64.store (i32.const -1) (i64.const 1)) (i32.const 0))
  (func (export "divide") (result i32)
    (i32.add (i32.const 2)
      (i32.div_s (call $work (i32.const 5)) (i32.sub (call $next (i32.const 3)) (call $next (i32.const 3))))))
  (func (export "overflow") (result i32)
    (i32.add (call $work (i32.const 2)) (i32.div_s (i32.const 0x80000000) (i32.const -1))))
  (func (export "convert") (result i32)
    (i32.add (call $work (i32.const 2)) (i32.trunc_f32_s (f32.const nan))))
  (func (export "null") (result i32) (i32.add (call $work (i32.const 4)) (call_indirect (type $i) (i32.const 1))))
  (func (export "mismatch") (result i32) (drop (call $work (i32.const 4))) (call_indirect (type $v) (i32.const 0)) (i32.const 4))
  (func (export "beyond") (result i32) (i32.add (call $work (i32.const 4)) (call_indirect (type $i) (i32.const 9))))
  (func (export "fill") (result i32)
    (drop (call $work (i32.const 4))) (memory.fill (i32.const 65000) (i32.const 1) (i32.const 1000)) (i32.const 1))
  (func $deep (param $n i32) (result i32)
    (if (result i32) (local.get $n) (then (call $deep (i32.sub (local.get $n) (i32.const 1)))) (else (unreachable))))
  (func (export "deep") (result i32) (call $deep (i32.const 60)))
  (func $forever (param $n i32) (result i32) (i32.add (i32.const 1) (call $forever (i32.add (local.get $n) (i32.const 1)))))
  (func (export "stack") (result i32) (drop (call $work (i32.const 4))) (call $forever (i32.const 0))))
"""
TRAP_KINDS = (
    "unreachable",
    "bounds",
    "store",
    "divide",
    "overflow",
    "convert",
    "null",
    "mismatch",
    "beyond",
    "fill",
    "deep",
)

# -- recordings --------------------------------------------------------------------------------------------------------------


def next_host(guest: Guest, n: int) -> int:
    return (n * 31 + 5) & 0xFFFF


def again_host(guest: Guest, n: int) -> int:
    """Pokes, calls back (which calls a host in turn), pokes again."""
    guest.write(512 + n, bytes((n & 0xFF, 1, 2, 3)))
    got = guest.call("inner", 5 + n % 3)
    guest.write(520, b"done")
    return int(got)


def hosts() -> list[HostFunction]:
    return [
        HostFunction("host", "next", ("i32",), ("i32",), next_host, "tests"),
        HostFunction("host", "again", ("i32",), ("i32",), again_host, "tests"),
    ]


def drive_busy(guest: Guest) -> None:
    guest.write(4, b"before anything")
    guest.call("run", 7)
    guest.write(40, b"between")
    guest.set_global("sum", 3)
    guest.grow(1)
    guest.call("nothing")
    guest.call("run", 4)
    guest.call("nothing")
    guest.write(0, b"after everything")


def made(place: Path, name: str, text: str | bytes, drive: Callable[[Guest], Any], **more: Any) -> Path:
    """Records once per place."""
    out = place / f"{name}.trace"
    if not out.exists():
        wasm = text if isinstance(text, bytes) else harness.assemble(text)
        harness.record(wasm, out, drive, hosts=hosts(), **more)
    return out


def busy(place: Path) -> Path:
    return made(place, "busy", BUSY, drive_busy)


def spin_text(pages: int = 1) -> str:
    return SPIN.format(pages=pages, mask=(pages << 16) - 8)


def spin(place: Path, rounds: int = 20, turns: int = 500_000, pages: int = 1) -> Path:
    """About 27 instructions a turn."""
    return made(place, f"spin-{rounds}-{turns}-{pages}", spin_text(pages), lambda guest: guest.call("run", rounds, turns))


def trapping(place: Path, *exports: str) -> Path:
    def drive(guest: Guest) -> None:
        for export in exports:
            with contextlib.suppress(Exception):
                guest.call(export)

    return made(place, "-".join(exports), TRAPS, drive)


# -- what is the same --------------------------------------------------------------------------------------------------------


def states_of(here: Here) -> dict[str, Any]:
    """Everything that can be seen at a mark."""
    return {
        "mark": str(here.mark),
        "events": here.events,
        "depth": here.depth,
        "frames": [(f.function, f.pc, f.locals, f.operands) for f in here.frames],
        "globals": here.globals,
        "sizes": here.memory_sizes,
        "memories": [harness.sha256(here.read(0, size, i)) for i, size in enumerate(here.memory_sizes)],
        "end": here.at_end,
    }


# -- processes ---------------------------------------------------------------------------------------------------------------

_TAG = "REPRISE_TEST_STATIONS"


@dataclass
class Stations:
    """The worker processes started while this is open, by whomever; others' are told apart by their environment."""

    tag: str = field(default_factory=lambda: uuid.uuid4().hex)

    def alive(self) -> list[int]:
        found = []
        wanted = f"{_TAG}={self.tag}".encode()
        for entry in os.listdir("/proc"):
            if not entry.isdigit():
                continue
            with contextlib.suppress(OSError):
                if b"replayer.station" not in Path(f"/proc/{entry}/cmdline").read_bytes():
                    continue
                if wanted in Path(f"/proc/{entry}/environ").read_bytes():
                    found.append(int(entry))
        return found

    def gone(self, seconds: float = 5.0) -> bool:
        """Whether all have ended, within so many seconds."""
        deadline = time.monotonic() + seconds
        while self.alive():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.02)
        return True


@contextlib.contextmanager
def stations() -> Iterator[Stations]:
    watched = Stations()
    before = os.environ.get(_TAG)
    os.environ[_TAG] = watched.tag
    try:
        yield watched
    finally:
        if before is None:
            del os.environ[_TAG]
        else:
            os.environ[_TAG] = before


def zombies() -> list[int]:
    """Children of this process that ended and were not waited for."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError):
                words = Path(f"/proc/{entry}/stat").read_text().rsplit(")", 1)[1].split()
                if words[0] == "Z" and int(words[1]) == os.getpid():
                    found.append(int(entry))
    return found


def handles() -> int:
    return len(os.listdir("/proc/self/fd"))


def eventually(true: Callable[[], bool], seconds: float = 5.0) -> bool:
    deadline = time.monotonic() + seconds
    while not true():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def kill(moment: Moment) -> None:
    os.kill(moment.pid, 9)
    eventually(lambda: not os.path.exists(f"/proc/{moment.pid}"))


# -- an independent clock ----------------------------------------------------------------------------------------------------


def metered_clocks(directory: Path) -> list[tuple[int, int]]:
    """(event, clock) whenever the guest was outside, by the metered form of the module under a replay that serves every call from
    Python: a rewriter that shares no code with the twin's, and another way through the replay."""
    from recorder.boundary.linking import derive
    from replayer.cursor import Record

    class Metered(harness.SlowReplay):
        seen: list[tuple[int, int]]

        def _derive(self) -> Any:
            self.seen = []
            return derive(self.shape, True)

        def _advance(self, record: Record) -> None:
            # Before the guest is instantiated it has no clock; nothing can have begun.
            self.seen.append((record.seq, (self.linked.clock() or 0) if self.linked._exports is not None else 0))
            super()._advance(record)

    with Trace.open(directory) as trace:
        replay = Metered(trace)
        verdict = replay.run()
    assert verdict.kind in ("identical", "incomplete"), verdict.headline()
    return replay.seen


def settle(machine: TimeMachine) -> None:
    """Waits until the pass is over: an earlier one may be remembered, but the checkpoints are this one's."""
    machine._follower.join(60)
    machine.wait()
