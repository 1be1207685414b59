"""Traces recorded once and never again: as long as a format version is readable, they verify and replay as they did."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from traces.layout import FORMAT_VERSION

GOLDENS = Path(__file__).parent / "goldens"
ROOT = Path(__file__).resolve().parents[1]
TRACES = sorted(GOLDENS.glob("format-*/*.trace"))


def test_every_format_version_has_golden_traces() -> None:
    assert {trace.parent.name for trace in TRACES} == {f"format-{version}" for version in range(1, FORMAT_VERSION + 1)}


@pytest.mark.parametrize("trace", TRACES, ids=lambda trace: f"{trace.parent.name}/{trace.stem}")
def test_a_golden_trace_verifies_and_replays(trace: Path, tmp_path: Path) -> None:
    before = {file.name: file.read_bytes() for file in trace.iterdir()}
    expected = json.loads((trace.parent / "expected.json").read_text())[trace.name]

    done = subprocess.run(
        [sys.executable, "-m", "reprise", "verify", "--json", str(trace)],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert done.returncode == expected["exit_code"], done.stdout + done.stderr
    for part in expected["says"]:
        assert part in done.stdout
    assert {file.name: file.read_bytes() for file in trace.iterdir()} == before
