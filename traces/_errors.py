"""The workbench's errors, in one tree. Every message is one line: what is wrong, where, and what to do next.

    RepriseError              anything a user can be told in one line
    ├── UsageError            wrong usage                                     exit 64
    ├── RefusedError          a module or host that cannot be recorded        exit 126
    ├── RecordingError        the recording failed while running              exit 127
    └── TraceError            a trace that cannot be used                     exit 5
        └── NewerFormatError  a trace of a newer format than this program

Divergence is not an error but a verdict: see `replayer.verdict`.
"""

from __future__ import annotations


class RepriseError(Exception):
    """Base of every error that is the user's to read, never a traceback."""

    exit_code = 1


class UsageError(RepriseError):
    exit_code = 64


class RefusedError(RepriseError):
    exit_code = 126


class RecordingError(RepriseError):
    exit_code = 127


class TraceError(RepriseError):
    exit_code = 5


class NewerFormatError(TraceError):
    pass
