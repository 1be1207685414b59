"""What a finished pass found out about a trace, kept in the user's private cache: opening it again need not wait for another.

A proof is for one trace (its manifest, which names the digest of every file), one form of the twin and one engine. It holds the
verdict, where the execution ends, where the guest trapped, and the clock of every event.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from recorder.boundary import cache
from recorder.boundary.engine import engine_version
from replayer.twin import TWIN_VERSION
from traces.tracedir import MANIFEST, Trace

PROOFS_VERSION: Final = 2
MOST_EVENTS: Final = 20_000_000
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
    data = cache.load("proofs", _key(trace))
    if data is None:
        return None
    head, _, packed = data.partition(b"\n")
    facts = json.loads(head)
    traps = {int(events): begun for events, begun in facts["traps"].items()}
    return Proof(facts["verdict"], facts["end"], facts["known"], traps, zlib.decompress(packed))


def load_verdict(trace: Trace) -> Mapping[str, Any] | None:
    """Only the verdict of a proof."""
    data = cache.load("proofs", _key(trace))
    if data is None:
        return None
    verdict: Mapping[str, Any] = json.loads(data[: data.index(b"\n")])["verdict"]
    return verdict


def save_proof(trace: Trace, proof: Proof) -> None:
    if len(proof.clocks) > 8 * MOST_EVENTS:
        return
    facts = {
        "verdict": dict(proof.verdict),
        "end": proof.end,
        "known": proof.known,
        "traps": {str(events): begun for events, begun in proof.traps.items()},
    }
    cache.save("proofs", _key(trace), json.dumps(facts).encode() + b"\n" + zlib.compress(proof.clocks, 1))


def _key(trace: Trace) -> bytes:
    return f"{PROOFS_VERSION} {TWIN_VERSION} {engine_version()} ".encode() + (trace.path / MANIFEST).read_bytes()
