"""Everything that can be checked about a trace, before any of it is believed.

A verdict rests on files. `checked_replay` gives none better than they deserve: a trace with a changed file never reads identical,
whatever its replay did, but a divergence is still named, because it shows where the change is. `verify` looks at all there is.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from replayer.replay import replay
from replayer.verdict import EXIT_CODES, Verdict
from traces._errors import TraceError
from traces.layout import Kind, StopReason
from traces.tables import SPANS_SCHEMA, EventsReader, read_table, spans_of, verify_columns
from traces.tracedir import EVENTS, SPANS, Trace

ORIGIN_UNSIGNED = "unsigned: self-consistent, origin not proven"
ORIGIN_UNKNOWN = "unsigned: not self-consistent, origin not proven"
SEVERITY = ("identical", "incomplete", "diverged", "unusable")
"""From best to worst."""


def worst(kinds: list[str]) -> str:
    """The worst of several verdicts."""
    return max(kinds, key=SEVERITY.index, default="identical")


def checked_replay(trace: Trace, module: bytes | None = None) -> Verdict:
    """Replays, and says "identical" or "incomplete" only if the files are those that were recorded."""
    problems = trace.problems()
    verdict = replay(trace, module)
    if not problems:
        return verdict
    if verdict.kind == "diverged":
        verdict.notes += problems
        return verdict
    reason = verdict.reason if verdict.kind == "unusable" else f"{trace.given / problems[0]}; restore it from a copy"
    return Verdict("unusable", verdict.events, verdict.total, reason, notes=verdict.notes)


@dataclass
class Verification:
    """What `verify` found out about one trace."""

    trace: str
    problems: list[str] = field(default_factory=list)
    """What is wrong with the files; empty if they agree with the manifest and with each other."""
    files: int = 0
    """Files whose digest was compared."""
    events: int = 0
    """Records from which every column was derived again."""
    replay: Verdict = field(default_factory=lambda: Verdict("unusable"))

    @property
    def kind(self) -> str:
        """The worst of integrity and replay, as a verdict."""
        return worst([self.replay.kind, "unusable" if self.problems else "identical"])

    @property
    def exit_code(self) -> int:
        return EXIT_CODES[self.kind]

    @property
    def origin(self) -> str:
        return ORIGIN_UNKNOWN if self.problems else ORIGIN_UNSIGNED

    def lines(self) -> list[str]:
        """Integrity, origin, replay: a line each, and more only for what is wrong."""
        if self.problems:
            integrity = [f"integrity  FAILED: {self.problems[0]}", *(f"           {text}" for text in self.problems[1:])]
        else:
            integrity = [f"integrity  ok: {self.files} files, and every column of {self.events:,} events, agree with the records"]
        verdict = self.replay.lines(self.trace)
        return [
            *integrity,
            f"origin     {self.origin}",
            f"replay     {verdict[0]}",
            *(f"         {text}" for text in verdict[1:]),
        ]

    def to_json(self) -> dict[str, Any]:
        return {
            "trace": self.trace,
            "verdict": self.kind,
            "integrity": {"ok": not self.problems, "problems": self.problems, "files": self.files, "events": self.events},
            "origin": {"signed": False, "text": self.origin},
            "replay": self.replay.to_json(),
        }


def verify_trace(trace: Trace) -> Verification:
    """Checks integrity, then replays."""
    found = Verification(str(trace.given), files=len(trace.manifest.files))
    found.problems = trace.problems() + _contradictions(trace, found)
    found.replay = checked_replay(trace)
    return found


def _contradictions(trace: Trace, found: Verification) -> list[str]:
    """Where the manifest, the tables and the records of one trace say different things."""
    manifest = trace.manifest
    problems = []
    try:
        trace.module()
        with EventsReader(trace.path / EVENTS) as reader:
            found.events = reader.rows
            for key, have in (("records", reader.rows), ("windows", reader.window_count)):
                if manifest.totals.get(key) != have:
                    problems.append(f"manifest.json: says {manifest.totals.get(key)} {key}, {EVENTS} holds {have}")
        problems += [
            f"{EVENTS}: {problem}" for problem in verify_columns(trace.path / EVENTS, manifest.imports, manifest.exports)
        ]
        problems += _outcome_problems(trace)
        stored = read_table(trace.path / SPANS, SPANS_SCHEMA)
        if not _same_rows(stored, spans_of(trace.path / EVENTS, manifest)):
            problems.append(f"{SPANS}: does not follow from the events and the manifest's outcome")
    except TraceError as error:
        text = str(error)
        if text not in problems:
            problems.append(text)
    return problems


def _outcome_problems(trace: Trace) -> list[str]:
    """An outcome that claims an exit or a used-up budget must stand in the last record.

    The others cannot be held to a record: an embedder may go on after a trap, and a host may fail outside any call.
    """
    outcome = trace.manifest.outcome
    kind = outcome.get("kind")
    if kind not in ("exit", "fuel"):
        return []
    with EventsReader(trace.path / EVENTS) as reader:
        last = reader.window(reader.window_count - 1) if reader.window_count else None
        record = bytes(last.data[last.offsets[last.rows - 1] :]) if last is not None and last.rows else b""
    found = record[6] if len(record) > 15 else 0
    code = int.from_bytes(record[12:16], "little")
    if kind == "exit" and (found, code) == (Kind.EXIT, (outcome.get("code") or 0) & 0xFFFFFFFF):
        return []
    if kind == "fuel" and (found, code) == (Kind.STOP, StopReason.FUEL):
        return []
    return [f"manifest.json: the outcome ({kind} {outcome.get('code')}) is not what the last record says"]


def _same_rows(stored: Any, derived: Any) -> bool:
    """Whether two tables hold the same values, however their words are encoded."""
    return stored.num_rows == derived.num_rows and all(
        stored.column(name).cast(_plain(kind)).equals(derived.column(name).cast(_plain(kind)))
        for name, kind in zip(SPANS_SCHEMA.names, SPANS_SCHEMA.types, strict=True)
    )


def _plain(kind: Any) -> Any:
    return getattr(kind, "value_type", kind)
