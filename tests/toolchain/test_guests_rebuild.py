"""The committed guest programs are what their sources in this repository build into, byte for byte.

Slow the first time (the compiler builds its libc, about 20 s), then a few seconds: `tests/guests/.cache` keeps it.
"""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

BUILD = Path(__file__).resolve().parents[1] / "guests" / "build.py"


@pytest.mark.skipif(
    importlib.util.find_spec("ziglang") is None and not os.environ.get("CI"),
    reason="needs the ziglang wheel (pip install ziglang==0.17.0)",
)
def test_committed_guests_are_what_their_sources_build_into() -> None:
    done = subprocess.run([sys.executable, str(BUILD), "--check"], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout + done.stderr
