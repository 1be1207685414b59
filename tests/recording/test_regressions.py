"""Bugs that programs from elsewhere brought to light, each as small as it gets."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from recorder.boundary import states
from recorder.boundary.linking import Linked
from recorder.outcome import Limits
from recorder.python_host import host
from tests import harness

BROKEN = {
    "data": '(memory (export "memory") 1) (data (i32.const 0) "kept") (data (i32.const 65535) "ab")',
    "elements": "(table 1 funcref) (func $f) (elem (i32.const 5) $f)",
    "before a start function": '(memory 1) (data (i32.const 65535) "ab") (func $s) (start $s)',
    "before a start function that reaches an import": """
        (import "env" "f" (func $f)) (memory 1) (data (i32.const 65535) "ab") (func $s (call $f)) (start $s)""",
}


@host("env", "f", "")
def never_called(guest: object) -> None:
    raise AssertionError("the start function must not run")


@pytest.mark.parametrize("limits", [Limits(), Limits(timeout=100.0), Limits(fuel=10)], ids=["plain", "timeout", "fuel"])
@pytest.mark.parametrize("parts", BROKEN.values(), ids=BROKEN)
def test_a_segment_out_of_bounds_ends_the_run_and_replays(parts: str, limits: Limits, tmp_path: Path) -> None:
    """Instantiating traps although no start function runs; the replay called such a trace damaged, or did not survive it."""
    wasm = harness.assemble(f"(module {parts})")
    recorded = harness.record(wasm, tmp_path / "run.trace", lambda guest: None, hosts=[never_called], limits=limits)
    assert recorded.outcome.kind == "trap"
    assert "out of bounds" in recorded.outcome.message
    replayed = harness.replayed(recorded.directory)
    assert replayed.verdict.lines("run.trace")[0].startswith("identical: 2 events")
    assert replayed.memories == recorded.memories


def test_digests_of_untouched_memory_are_quick(tmp_path: Path) -> None:
    """A page of zeros was compared item by item, four times slower than hashing it."""
    wasm = harness.assemble('(module (memory (export "memory") 4096) (func (export "f")))')
    seconds: list[float] = []

    def drive(guest: object) -> None:
        linked: Linked = guest._session.linked  # type: ignore[attr-defined]
        for _ in range(3):
            began = time.perf_counter()
            states.take(linked)
            seconds.append(time.perf_counter() - began)

    harness.record(wasm, tmp_path / "run.trace", drive)
    assert min(seconds) < 0.5  # 4,096 pages: 1.1 s and more before, 0.04 s now


_CLOSED = """
import os, sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from recorder.recording import Options, Recording
from recorder.source import Source
source = Source(Path(sys.argv[2]).read_bytes(), "guest", "test")
for number in (0, 1, 2):
    os.close(number)
os._exit(Recording(source, Options(out=Path(sys.argv[3]))).run().exit_code)
"""


def test_output_of_a_guest_without_standard_descriptors_stays_out_of_the_journal(tmp_path: Path) -> None:
    """Started with 0, 1 and 2 closed, the recorder's window became descriptor 1 and the guest printed over its own journal."""
    wasm = harness.assemble("""(module
        (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
        (memory (export "memory") 1)
        (data (i32.const 0) "\\10\\00\\00\\00\\00\\02\\00\\00")
        (func (export "_start") (local i32)
          (loop $again
            (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))
            (drop (call $write (i32.const 2) (i32.const 0) (i32.const 1) (i32.const 8)))
            (br_if $again (i32.lt_u (local.tee 0 (i32.add (local.get 0) (i32.const 1))) (i32.const 1000))))))""")
    module, out = tmp_path / "guest.wasm", tmp_path / "run.trace"
    module.write_bytes(wasm)
    command = [sys.executable, "-c", _CLOSED, str(harness.ROOT), str(module), str(out)]
    done = subprocess.run(command, env={**os.environ, "HOME": str(tmp_path)}, check=False, timeout=60)
    assert done.returncode == 0
    assert harness.verdict_of(out).lines("run.trace")[0].startswith("identical: 2,002 events")
