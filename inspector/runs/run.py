"""What is known of one recording without opening it, and how that is taken from its manifest.

A manifest is the word of others: it may be well-formed and hold nonsense, which is shown as unknown, and every text of it is made
safe to print.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from traces.cli import one_line
from traces.manifest import Manifest

FINISHED, PACKED, RUNNING, UNFINISHED, DAMAGED = "finished", "packed", "running", "unfinished", "damaged"
LATEST: Final = 253_402_300_799 * 10**9
"""Nanoseconds; a later moment is in no calendar."""
_TEXT: Final = 400
"""Characters of one fact."""
_NAMES: Final = 40
"""Names listed in one fact."""

Stamp = tuple[int, ...]


@dataclass(frozen=True)
class Finding:
    """What is known of a run's replay."""

    kind: str
    """Of `replayer.verdict`."""
    event: int | None = None
    """Where it diverged."""
    headline: str = ""
    checked: bool = False
    """The files were checked, too; False for what the time machine remembers of an earlier day."""


@dataclass(frozen=True)
class Run:
    """One recording, as far as it is known from outside."""

    path: Path
    state: str
    """FINISHED, PACKED, RUNNING, UNFINISHED or DAMAGED."""
    outcome: str
    """How it ended, in a few words: "exit 0", "trap", "running"."""
    size: int = 0
    """Bytes of all its files."""
    started: int | None = None
    """Nanoseconds since 1970; None if that is not known, as in the two below."""
    duration: int | None = None
    """Nanoseconds."""
    events: int | None = None
    module: str = ""
    """The module's name, without directory and ending."""
    why: str = ""
    """What is wrong with it, and what to do; "" if nothing is."""
    verdict: Finding | None = None
    """What an earlier replay came to; None if it is not remembered."""
    facts: tuple[tuple[str, str], ...] = ()
    """(name, text) of what else the manifest says."""
    stamp: Stamp = ()
    """Times and sizes of its files as it was read; () if they say nothing."""

    @property
    def name(self) -> str:
        return one_line(self.path.name)

    @property
    def clean(self) -> bool:
        """It ended as a program should."""
        return self.outcome in ("returned", "exit 0")


def finding_of(found: Mapping[str, Any], checked: bool = False) -> Finding:
    """A verdict as it stands in JSON."""
    difference = found.get("difference")
    kind = one_line(str(found.get("verdict")))
    event = None
    told = f"{kind}: {found['reason']}" if found.get("reason") else f"{kind}: {count(found.get('events')) or 0:,} events"
    if isinstance(difference, dict) and (event := count(difference.get("seq"))) is not None:
        told = f"{kind} at event {event:,}: expected {difference.get('expected')}, got {difference.get('got')}"
    return Finding(kind, event, cut(told), checked)


def described(path: Path, manifest: Manifest) -> Run:
    """A run as its manifest tells it."""
    begin, end = count(manifest.started.get("monotonic_ns")), count(manifest.ended.get("monotonic_ns"))
    started = count(manifest.started.get("realtime_ns"))
    return Run(
        path,
        FINISHED,
        _outcome(manifest.outcome),
        started=started if started is not None and started <= LATEST else None,
        duration=end - begin if begin is not None and end is not None and end >= begin else None,
        events=count(manifest.totals.get("records")),
        module=cut(Path(str(manifest.module.get("origin") or "")).name.removesuffix(".wasm")),
        facts=tuple((name, cut(text)) for name, text in _facts(manifest) if text),
    )


def _outcome(outcome: Mapping[str, Any]) -> str:
    kind = one_line(str(outcome.get("kind") or "?"))[:20]
    return f"{kind} {count(outcome.get('code'), least=-(1 << 31))}" if kind == "exit" else kind


def _facts(manifest: Manifest) -> Iterator[tuple[str, str]]:
    module, engine, invocation, outcome = manifest.module, manifest.engine, manifest.invocation, manifest.outcome
    inside = f", inside {outcome['inside']}" if outcome.get("inside") else ""
    yield "ended", f"{outcome.get('message') or ''}{inside}"
    for name, value in manifest.notes.items():
        yield "note", f"{name}={value}"
    yield "arguments", " ".join(map(str, _list(invocation.get("argv"))))
    # Only the names: values may be secrets, and this is a screen that others see.
    yield "environment", _names([str(pair[0]) for pair in _list(invocation.get("env")) if isinstance(pair, list) and pair])
    yield "invoked", _names([_call(call) for call in _list(invocation.get("calls"))])
    yield "hosts", _names(list(map(str, _list(invocation.get("hosts")))))
    yield "granted", ", ".join(map(str, manifest.capabilities))
    limits = (f"{name} {value}" for name, value in manifest.limits.items() if name in ("fuel", "timeout") and value is not None)
    yield "limits", ", ".join(limits)
    yield "module", f"{module.get('origin') or 'unknown'}  sha256 {str(module.get('sha256'))[:16]}…"
    yield "engine", f"{engine.get('name')} {engine.get('version')}  profile {str(engine.get('fingerprint'))[:16]}…"
    yield "imports", _names([entry.qualified.removeprefix("wasi_snapshot_preview1.") for entry in manifest.imports])
    yield "exports", _names([entry.name for entry in manifest.exports])


def _call(call: Any) -> str:
    return f"{call.get('export')}({', '.join(map(str, _list(call.get('args'))))})" if isinstance(call, dict) else str(call)


def _names(names: Sequence[str]) -> str:
    more = f", … {len(names) - _NAMES:,} more" if len(names) > _NAMES else ""
    return ", ".join(names[:_NAMES]) + more


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def count(value: Any, least: int = 0) -> int | None:
    """A whole number that makes sense, or None."""
    return value if isinstance(value, int) and not isinstance(value, bool) and least <= value < 1 << 63 else None


def cut(text: str) -> str:
    text = one_line(text[: 2 * _TEXT])
    return text if len(text) <= _TEXT else text[: _TEXT - 1] + "…"
