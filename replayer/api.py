"""Replaying and verifying from Python: what `import reprise` gives of this room."""

from __future__ import annotations

import os
from pathlib import Path

from replayer.verdict import Verdict
from replayer.verification import Verification, checked_replay, verify_trace
from traces._errors import TraceError
from traces.tracedir import Trace


def replay(trace: str | os.PathLike[str], module: bytes | None = None) -> Verdict:
    """Replays a trace, with no host, file or network, and says whether the guest did the same.

    Args:
        module: other bytes to replay instead of the recorded ones: where do they first behave differently?

    A trace that cannot be replayed is a verdict too (`unusable`), not an exception.
    """
    try:
        with Trace.open(Path(trace)) as opened:
            return checked_replay(opened, module)
    except TraceError as error:
        return Verdict("unusable", reason=str(error))


def verify(trace: str | os.PathLike[str]) -> Verification:
    """Checks a trace's files against its manifest and each other, and replays it."""
    try:
        with Trace.open(Path(trace)) as opened:
            return verify_trace(opened)
    except TraceError as error:
        return Verification(os.fspath(trace), [str(error)], replay=Verdict("unusable", reason="the trace cannot be opened"))
