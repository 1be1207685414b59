"""A directory of recordings: which there are, and what is known of each without opening it.

Listing must stay cheap for thousands of runs, and must leave them alone: a manifest is read, the footer of the events, names and
sizes of files. No journal is recovered, no event is read, nothing is executed. A run carries the times of its files, so looking
again reads only what has changed. Nothing here knows of a screen.
"""

from __future__ import annotations

import fcntl
import os
import stat
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from inspector.runs.run import DAMAGED, PACKED, RUNNING, UNFINISHED, Finding, Run, Stamp, cut, described, finding_of
from traces._errors import NewerFormatError, TraceError, UsageError
from traces.manifest import MANIFEST_LIMIT, Manifest
from traces.packing import MEMBERS, unpack
from traces.tables import EventsReader
from traces.tracedir import EVENTS, JOURNAL, LOCK_FILE, MANIFEST, MODULE, TABLES, Trace

PACK: Final = ".tar"
_BEGINS: Final = 10.0
"""Seconds in which a recorder has begun or never will."""
_PORTION: Final = 0.1
"""Seconds between two portions of a scan, at first."""
_MANY: Final = 1000
"""Runs from which a portion takes longer: whoever shows them sorts them all each time."""


# -- the runs of a directory -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Portion:
    """A part of what a scan found."""

    runs: tuple[Run, ...]
    """New or changed."""
    gone: tuple[Path, ...]
    read: int
    """Runs read by now, of `total` that had to be."""
    total: int


class Store:
    """The runs directly in a directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._others: dict[Path, Stamp] = {}
        """What turned out to be no run."""

    def scan(
        self, known: Mapping[Path, Run], anew: bool = False, leaving: Callable[[], bool] = lambda: False
    ) -> Iterator[Portion]:
        """What is new, has changed (or is all read anew) or is gone, compared with what is known; the newest first.

        Raises UsageError if the directory cannot be read.
        """
        found = dict(_candidates(self.directory))
        gone = [path for path in known if path not in found]
        changed = [path for path, stamp in found.items() if anew or self._stamp_of(path, known) != stamp]
        changed.sort(key=lambda path: found[path], reverse=True)
        runs: list[Run] = []
        told = time.monotonic()
        for number, path in enumerate(changed):
            if leaving():
                return
            if time.monotonic() - told > _PORTION * (1 + number // _MANY):
                yield Portion(tuple(runs), tuple(gone), number, len(changed))
                runs, gone, told = [], [], time.monotonic()
            run = read_run(path)
            if run is not None:
                # A recording that runs is another one by the next scan.
                runs.append(run if run.state == RUNNING else replace(run, stamp=found[path]))
                continue
            self._others[path] = found[path]
            if path in known:
                gone.append(path)
        yield Portion(tuple(runs), tuple(gone), len(changed), len(changed))

    def _stamp_of(self, path: Path, known: Mapping[Path, Run]) -> Stamp | None:
        run = known.get(path)
        return run.stamp if run is not None else self._others.get(path)


def _candidates(directory: Path) -> Iterator[tuple[Path, Stamp]]:
    """What may be runs, each with the times and sizes by which a change would be seen."""
    try:
        with os.scandir(directory) as entries:
            names = [entry.name for entry in entries if not entry.name.startswith(".")]
    except OSError as error:
        raise UsageError(f"{directory}: cannot be read ({error.strerror})") from None
    for name in names:
        stamp = _stamp(directory / name)
        if stamp is not None:
            yield directory / name, stamp


def _stamp(path: Path) -> Stamp | None:
    own = _stat(path)
    if own is None:
        return None
    if stat.S_ISREG(own.st_mode):
        return (own.st_mtime_ns, own.st_size, own.st_ino) if path.suffix == PACK else None
    if not stat.S_ISDIR(own.st_mode):
        return None
    inner = _stat(path / MANIFEST) or _stat(path / JOURNAL) or _stat(path / EVENTS)
    return None if inner is None else (inner.st_mtime_ns, inner.st_size, inner.st_ino, own.st_mtime_ns)


def _stat(path: Path) -> os.stat_result | None:
    try:
        return os.stat(path)
    except (OSError, ValueError):
        return None


def holds_runs(directory: Path) -> bool:
    """Whether there is anything in it to list."""
    return any(read_run(path) is not None for path, _ in _candidates(directory))


def is_store(path: Path) -> bool:
    """A directory that is no trace itself, not even a damaged one."""
    own = _stat(path)
    return own is not None and stat.S_ISDIR(own.st_mode) and not any(_stat(path / name) for name in (MANIFEST, JOURNAL, EVENTS))


def is_unfinished(path: Path) -> bool:
    """A recording whose recorder is dead: opening it reads its whole journal."""
    begun = _stat(path / JOURNAL / MANIFEST) is not None and _stat(path / MANIFEST) is None
    return begun and not is_locked(path / JOURNAL / LOCK_FILE)


# -- one run -----------------------------------------------------------------------------------------------------------------


def read_run(path: Path) -> Run | None:
    """What is known of a run; None for something that is none."""
    try:
        return _directory(path) if path.is_dir() else _pack(path)
    except TraceError as error:
        return _damaged(path, error)
    except OSError as error:
        return Run(path, DAMAGED, DAMAGED, why=f"cannot be read ({error.strerror})")


def _damaged(path: Path, error: TraceError) -> Run | None:
    """A run with something wrong; other programs have a `manifest.json`, too, and theirs is no damage."""
    alone = not any(_stat(path / name) for name in (MODULE, EVENTS, JOURNAL))
    if path.suffix != PACK and alone and not isinstance(error, NewerFormatError):
        return None
    return Run(path, DAMAGED, DAMAGED, size=_size(path), why=cut(str(error).removeprefix(f"{path}/").removeprefix(f"{path}: ")))


def _directory(path: Path) -> Run | None:
    if (path / MANIFEST).exists():
        return _finished(path, _manifest(path / MANIFEST))
    if (path / JOURNAL).is_dir():
        return _begun(path)
    if (path / MODULE).is_file() and (path / EVENTS).is_file():
        raise TraceError(_headless(path))
    return None


def _headless(path: Path) -> str:
    return f"{path / MANIFEST}: is missing; restore it from a copy"


def _manifest(path: Path) -> Manifest:
    if not path.is_file():  # a pipe would never end
        raise TraceError(f"{path}: is not a plain file; this is not a trace")
    return Manifest.read(path)


def _finished(path: Path, manifest: Manifest) -> Run:
    run = replace(described(path, manifest), size=_size(path))
    why = _wrong(path, manifest)
    if why:
        return replace(run, state=DAMAGED, outcome=DAMAGED, why=why)
    return replace(run, verdict=_remembered(path, manifest))


def _wrong(path: Path, manifest: Manifest) -> str:
    """What a look at names, sizes and the footer of the events shows to be wrong; "" if nothing is."""
    for name in (MODULE, *TABLES):
        if not (path / name).is_file():
            return f"{name} is missing; restore it from a copy"
    size = (path / MODULE).stat().st_size
    if size != manifest.module.get("size"):
        return f"{MODULE} has {size:,} bytes, not those of the recorded module; restore it from a copy"
    try:
        reader = EventsReader(path / EVENTS)
    except TraceError as error:
        return cut(str(error).removeprefix(f"{path}/"))
    rows = reader.rows
    reader.close()
    told = manifest.totals.get("records")
    if rows != told:
        return cut(f"the manifest counts {told} events, {EVENTS} holds {rows:,}; restore it from a copy")
    return ""


def _remembered(path: Path, manifest: Manifest) -> Finding | None:
    """What the time machine's last pass through this very trace came to."""
    from replayer.proofs import load_verdict

    verdict = load_verdict(Trace(path, manifest, path, None))
    return None if verdict is None else finding_of(verdict)


def _begun(path: Path) -> Run:
    """A recording that was not finished: its recorder still runs, or is dead."""
    journal = path / JOURNAL
    if not (journal / MANIFEST).exists():
        # The lock is left alone until the recorder has it: one that is about to take it must find it free.
        if time.time() - journal.stat().st_mtime < _BEGINS:
            return Run(path, RUNNING, "starting", size=_size(path))
        raise TraceError(f"{path}: its recorder ended before it began to record; there is nothing to recover, remove it")
    run = replace(described(path, _manifest(journal / MANIFEST)), size=_size(path), events=None, duration=None)
    if is_locked(journal / LOCK_FILE):
        since = None if run.started is None else max(0, time.time_ns() - run.started)
        return replace(run, state=RUNNING, outcome=RUNNING, duration=since)
    why = f"its recorder did not finish; what its journal holds can be opened, `reprise recover {run.name}` makes it a trace"
    return replace(run, state=UNFINISHED, outcome=UNFINISHED, why=why)


def is_locked(path: Path) -> bool:
    """Whether a recorder that lives holds the lock."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(handle)
    return False


def _size(path: Path) -> int:
    if not path.is_dir():
        return path.stat().st_size
    total = 0
    for directory in (path, path / JOURNAL):
        if directory.is_dir():
            with os.scandir(directory) as entries:
                total += sum(entry.stat().st_size for entry in entries if entry.is_file())
    return total


# -- packed ------------------------------------------------------------------------------------------------------------------


def _pack(path: Path) -> Run | None:
    """A packed run; None for any other archive."""
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK | os.O_CLOEXEC)) as file:
        for number in range(len(MEMBERS)):
            header = _header(file.read(tarfile.BLOCKSIZE))
            if header is None or header.name not in MEMBERS or header.size < 0:
                if number == 0:
                    return None
                break
            if header.name == MANIFEST:
                where = f"{path}/{MANIFEST}"
                if header.size > MANIFEST_LIMIT:
                    raise TraceError(f"{where}: {header.size} bytes is larger than any manifest; this is not a trace")
                text = file.read(header.size).decode("utf-8", "replace")
                return replace(described(path, Manifest.from_json(text, where)), state=PACKED, size=path.stat().st_size)
            file.seek(-(-header.size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE, os.SEEK_CUR)
    raise TraceError(f"{path}: ends before its manifest, or is damaged; copy it again")


def _header(block: bytes) -> tarfile.TarInfo | None:
    try:
        return tarfile.TarInfo.frombuf(block, "utf-8", "replace")
    except (tarfile.TarError, ValueError, OverflowError):
        return None


# -- opening -----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Opened:
    """An open run, and what must be cleared away after it."""

    trace: Trace
    path: Path
    """What was chosen: a trace, or the pack it came out of."""
    after: ExitStack

    def close(self) -> None:
        self.after.close()


def open_run(path: Path) -> Opened:
    """Opens a run of any kind for the inspector, a pack in a temporary place; or says in one line why that cannot be."""
    with ExitStack() as stack:
        place = path
        if path.is_file() and path.suffix == PACK:
            scratch = stack.enter_context(_scratch(path))
            place = unpack(path, scratch / path.name.removesuffix(PACK))
        elif path.is_dir() and (path / EVENTS).is_file() and not any((path / name).exists() for name in (MANIFEST, JOURNAL)):
            raise TraceError(_headless(path))
        trace = stack.enter_context(Trace.open(place))
        EventsReader(trace.path / EVENTS).close()  # a trace whose events cannot be read at all has nothing to show
        return Opened(trace, path, stack.pop_all())


@contextmanager
def _scratch(path: Path) -> Iterator[Path]:
    try:
        scratch = tempfile.TemporaryDirectory(prefix="reprise-unpacked-")
    except OSError as error:
        raise TraceError(
            f"{path}: is packed, and there is no temporary copy to be made of it ({error.strerror}); make room or set TMPDIR"
        ) from None
    with scratch as name:
        yield Path(name)
