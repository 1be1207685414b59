"""Looks at what dead recorders left, in a process of its own: opens it, replays it, recovers it, replays it again.

python tests/faults/look.py TRACE…        one JSON object per trace on stdout

The checkout must be on PYTHONPATH.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

from replayer.replay import replay
from traces._errors import RepriseError
from traces.tables import verify_columns
from traces.tracedir import EVENTS, Trace, recover


def look(path: Path) -> dict[str, Any]:
    """`opened` and `recovered`: the verdict, or the error as text."""
    before = fingerprint(path)
    found: dict[str, Any] = {"opened": opened(path)}
    found["untouched"] = fingerprint(path) == before
    try:
        recover(path)
        found["recovery"] = ""
    except RepriseError as error:
        found["recovery"] = f"{type(error).__name__}: {error}"
    found["recovered"] = opened(path)
    found["files"] = sorted(p.name for p in path.iterdir()) if path.is_dir() else []
    return found


def opened(path: Path) -> dict[str, Any]:
    try:
        with Trace.open(path) as trace:
            problems = trace.problems() + [
                str(p) for p in verify_columns(trace.path / EVENTS, trace.manifest.imports, trace.manifest.exports)
            ]
            verdict = replay(trace)
            return {
                "kind": verdict.kind,
                "exit": verdict.exit_code,
                "events": verdict.events,
                "total": verdict.total,
                "line": verdict.headline(),
                "outcome": trace.manifest.outcome,
                "problems": problems,
            }
    except RepriseError as error:
        return {"kind": "error", "line": f"{type(error).__name__}: {error}", "exit": error.exit_code}


def fingerprint(path: Path) -> str:
    """Names, contents and times of everything in a directory."""
    digest = hashlib.sha256()
    for file in sorted(path.rglob("*")) if path.exists() else []:
        stat = file.stat()
        digest.update(f"{file.relative_to(path)} {stat.st_mode} {stat.st_size} {stat.st_mtime_ns}\n".encode())
        if file.is_file():
            digest.update(file.read_bytes())
    return digest.hexdigest()


if __name__ == "__main__":
    for name in sys.argv[1:]:
        print(json.dumps(look(Path(name))), flush=True)
