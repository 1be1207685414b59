"""What a finished pass found out about a trace, kept in the user's private cache: opening it again need not wait for another.

A proof is for one trace (its manifest, which names the digest of every file), one form of the twin and one engine. It holds the
verdict, where the execution ends, where the guest trapped, and the clock of every event.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from recorder.boundary.engine import cache_dir, engine_version
from replayer.twin import TWIN_VERSION
from traces.tracedir import MANIFEST, Trace

MOST_EVENTS: Final = 8_000_000
"""Events whose clocks are kept; a longer recording is run through again."""


@dataclass(frozen=True)
class Proof:
    """What the pass came to."""

    verdict: Mapping[str, Any]
    end: int
    """Instructions of the whole execution."""
    known: int
    """Events whose clock is known."""
    traps: Mapping[int, int]
    clocks: bytes
    """A u64 for each event."""


def load_proof(trace: Trace) -> Proof | None:
    path = _path(trace)
    if path is None:
        return None
    try:
        data = path.read_bytes()
        if hashlib.sha256(data[32:]).digest() != data[:32]:
            return None
        head, _, packed = data[32:].partition(b"\n")
        facts = json.loads(head)
        clocks = zlib.decompress(packed)
        if len(clocks) != 8 * facts["rows"]:
            return None
        traps = {int(events): begun for events, begun in facts["traps"].items()}
        return Proof(facts["verdict"], facts["end"], facts["known"], traps, clocks)
    except (OSError, ValueError, KeyError, zlib.error):
        return None


def save_proof(trace: Trace, proof: Proof) -> None:
    path = _path(trace)
    if path is None or len(proof.clocks) > 8 * MOST_EVENTS:
        return
    facts = {
        "verdict": dict(proof.verdict),
        "end": proof.end,
        "known": proof.known,
        "traps": {str(events): begun for events, begun in proof.traps.items()},
        "rows": len(proof.clocks) // 8,
    }
    body = json.dumps(facts).encode() + b"\n" + zlib.compress(proof.clocks, 1)
    with contextlib.suppress(OSError):  # a cache that cannot be written costs time, nothing else
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".new-")
        with os.fdopen(handle, "wb") as file:
            file.write(hashlib.sha256(body).digest() + body)
        os.replace(temporary, path)


def _path(trace: Trace) -> Path | None:
    directory = cache_dir("proofs")
    if directory is None:
        return None
    manifest = (trace.path / MANIFEST).read_bytes()
    key = hashlib.sha256(f"{TWIN_VERSION} {engine_version()} ".encode() + manifest).hexdigest()
    return directory / key
