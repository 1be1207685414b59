"""`make bench` works: a smoke run measures every section and prints every row that a target or the README rests on."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BENCH = ROOT / "benchmarks" / "bench.py"
RESULTS = ROOT / "benchmarks" / "RESULTS.md"

ROWS = {
    "Import-bound loop: 20,000 calls of clock_time_get": (
        "native",
        "recorded",
        "replayed",
        "plain Python callbacks",
        "closing the",
    ),
    "Import-bound loop: 20,000 calls, whole commands": ("native (plain.py)", "`reprise record`", "`reprise replay`"),
    "Write-heavy loop": ("native", "recorded", "replayed", "plain Python callbacks", "events.parquet at rest"),
    "200 short export calls": ("native (wasmtime-py)", "recorded, `Guest.call`", "replayed"),
    "Programs that do real work": tuple(
        f"{name}, {mode}"
        for name in ("compress", "hash", "interp", "matrix", "parse", "raytrace", "sort", "geometric mean")
        for mode in ("recorded", "replayed")
    ),
    "At rest": ("journal windows to events.parquet", "events.parquet", "SQL aggregate over all events"),
    "Start-up": ("`reprise record` of a trivial module", "`reprise replay` of a trace"),
    "The time machine": (
        *(f"{name}: twin / plain replay" for name in ("compress", "hash", "interp", "matrix", "parse", "raytrace", "sort")),
        "geometric mean: twin / plain replay",
        "a large module: rewriting",
        "a large module: compiling",
        "a large module: from start to the first look, no caches",
        "a large module: from start to the first look, from cache",
        "the pass: with / without checkpoints",
        "a checkpoint: forking it",
        "a checkpoint: memory",
        "a seek to any instruction, median",
        "a seek to any instruction, worst",
        "a step of one instruction, forward",
        "a step of one instruction, backward",
    ),
    "The inspector, from a key to the last byte it draws": (
        "a large recording: from start to the first screen",
        "a large recording: from start to the place where it opens",
        "to another event",
        "a step by source line, forward",
        "a step by source line, backward",
        "a step of one instruction, forward",
        "a step of one instruction, backward",
        "the same in a run of seconds, forward",
        "the same in a run of seconds, backward",
    ),
}


def test_a_smoke_run_prints_every_row() -> None:
    before = RESULTS.read_bytes() if RESULTS.exists() else None

    done = subprocess.run([sys.executable, str(BENCH), "--quick"], cwd=ROOT, capture_output=True, text=True, timeout=300)

    assert done.returncode == 0, done.stderr
    sections = dict(
        zip(*[iter(re.split(r"\n\n|\n(?=  what )", "\n" + done.stdout.partition("nothing\n\n")[2]))] * 2, strict=True)
    )
    assert len(sections) == len(ROWS)
    for (title, text), (wanted, rows) in zip(sections.items(), ROWS.items(), strict=True):
        assert title.strip().startswith(wanted)
        for row in rows:
            assert re.search(rf"^  {re.escape(row)}.*  [\d.,]+ \S", text, re.MULTILINE), f"{row!r} is not in:\n{text}"
    assert (RESULTS.read_bytes() if RESULTS.exists() else None) == before


def test_the_committed_results_are_of_a_whole_run() -> None:
    """Written by `make bench`, all sections of it, with the machine described."""
    text = RESULTS.read_text(encoding="utf-8")

    assert len(re.findall(r"^## ", text, re.MULTILINE)) == len(ROWS)
    for fact in ("cores", "wasmtime", "CPython", "load averages", "repetitions"):
        assert fact in text
