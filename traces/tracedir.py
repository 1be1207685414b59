"""A trace as a directory: how one is begun, finished, opened and recovered.

While recording, `journal/` holds the manifest as known at the start, the window and the log. A trace is finished by writing every
other file, then `manifest.json` by rename, then removing `journal/`; so a directory without `manifest.json` is one whose recorder
has not finished or has died, and says so when opened. Opening never writes into a trace.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from traces._errors import RecordingError, RefusedError, TraceError, UsageError
from traces.journal import missing_windows, recover_windows
from traces.manifest import Manifest

if TYPE_CHECKING:
    from traces.states import StateLike

MANIFEST = "manifest.json"
MODULE = "module.wasm"
EVENTS = "events.parquet"
SPANS = "spans.parquet"
STATES = "states.parquet"
SEAL = "seal.json"
JOURNAL = "journal"
LOCK_FILE = "lock"

TABLES = (EVENTS, SPANS, STATES)


def begin(directory: Path, module: bytes, manifest: Manifest) -> int:
    """Makes the directory of a new trace; returns the handle of its lock, held while the recorder lives."""
    try:
        directory.mkdir(mode=0o700)
    except FileExistsError:
        raise RefusedError(f"{directory}: exists already; recording never overwrites, choose another path with -o") from None
    except OSError as error:
        raise RefusedError(f"{directory}: cannot make the trace ({error.strerror}); choose a writable place with -o") from None
    try:
        journal = directory / JOURNAL
        journal.mkdir(mode=0o700)
        lock = os.open(journal / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _write(directory / MODULE, module)
        _write(journal / MANIFEST, manifest.to_json().encode())
    except OSError as error:
        shutil.rmtree(directory, ignore_errors=True)
        raise RefusedError(f"{directory}: cannot make the trace ({error.strerror}); choose another place with -o") from None
    return lock


def finish(directory: Path, manifest: Manifest, states: Iterable[tuple[int, StateLike]]) -> None:
    """Writes what remains beside `events.parquet`, the manifest last, and removes the journal."""
    from traces.tables import write_spans, write_states

    write_states(directory / STATES, states)
    write_spans(directory / SPANS, directory / EVENTS, manifest)
    manifest.files = {name: digest_file(directory / name) for name in (MODULE, *TABLES)}
    _write(directory / MANIFEST, manifest.to_json().encode())
    shutil.rmtree(directory / JOURNAL, ignore_errors=True)


def _write(path: Path, data: bytes) -> None:
    """Whole or not at all."""
    partial = path.with_name(path.name + ".partial")
    with open(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "wb") as file:
        file.write(data)
    os.replace(partial, path)


def digest_file(path: Path) -> str:
    digest = hashlib.sha256()
    try:
        with open(path, "rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    except FileNotFoundError:
        raise TraceError(f"{path}: is missing; the trace is incomplete, restore it from a copy") from None
    except OSError as error:
        raise TraceError(f"{path}: cannot be read ({error.strerror})") from None
    return digest.hexdigest()


class Trace:
    """A finished trace, open for reading; or, for as long as it is open, a recovered copy of an unfinished one."""

    def __init__(self, path: Path, manifest: Manifest, given: Path, temporary: tempfile.TemporaryDirectory[str] | None) -> None:
        self.path = path
        """Where the files are: `given`, or a temporary recovered copy."""
        self.given = given
        self.manifest = manifest
        self._temporary = temporary

    @property
    def recovered(self) -> bool:
        """The recorder did not finish it; what is seen was put together from its journal."""
        return self._temporary is not None

    @classmethod
    def open(cls, path: Path | str) -> Trace:
        """Opens a trace. Nothing is verified beyond what reading needs; see `check_files`."""
        given = Path(path)
        if not given.exists():
            raise TraceError(f"{given}: no such trace")
        if not given.is_dir():
            raise TraceError(f"{given}: is not a trace directory; if it is a packed trace, `reprise unpack` it first")
        if (given / MANIFEST).exists():
            return cls(given, Manifest.read(given / MANIFEST), given, None)
        if (given / JOURNAL).is_dir():
            _check_dead(given)
            temporary = tempfile.TemporaryDirectory(prefix="reprise-recovered-")
            try:
                target = Path(temporary.name) / given.name
                manifest = recover_into(given, target)
                return cls(target, manifest, given, temporary)
            except BaseException:
                temporary.cleanup()
                raise
        raise TraceError(f"{given}: has neither {MANIFEST} nor {JOURNAL}/; this is not a trace")

    def close(self) -> None:
        if self._temporary is not None:
            self._temporary.cleanup()

    def __enter__(self) -> Trace:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def module(self) -> bytes:
        """The recorded module's bytes, which must be the ones the manifest names."""
        path = self.path / MODULE
        try:
            data = path.read_bytes()
        except OSError as error:
            raise TraceError(f"{path}: cannot be read ({error.strerror}); restore it from a copy") from None
        wanted = self.manifest.module.get("sha256")
        if hashlib.sha256(data).hexdigest() != wanted:
            raise TraceError(f"{path}: is not the recorded module (the manifest names sha256 {wanted}); restore it from a copy")
        return data

    def problems(self) -> list[str]:
        """Files whose digest is not the manifest's; empty if all agree."""
        found = []
        for name in (MODULE, *TABLES):
            wanted = self.manifest.files.get(name)
            if wanted is None:
                found.append(f"{name}: the manifest has no digest of it")
                continue
            try:
                if digest_file(self.path / name) != wanted:
                    found.append(f"{name}: changed since the recording was closed (its sha256 differs from the manifest's)")
            except TraceError as error:
                found.append(str(error).removeprefix(f"{self.path}/"))
        return found


# -- recovery --------------------------------------------------------------------------------------------------------------


def recover(directory: Path) -> Manifest:
    """Turns a dead recorder's journal into a valid trace, in place."""
    if (directory / MANIFEST).exists():
        raise UsageError(f"{directory}: is complete; there is nothing to recover")
    if not (directory / JOURNAL).is_dir():
        raise TraceError(f"{directory}: has no {JOURNAL}/; this is not an unfinished trace")
    try:
        lock = os.open(directory / JOURNAL / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise RecordingError(_cannot_recover(directory, error)) from None
    try:
        if not _lock(lock, fcntl.LOCK_EX):
            raise UsageError(f"{directory}: is still being recorded; stop the recorder first")
        return recover_into(directory, directory)
    finally:
        os.close(lock)


def _lock(handle: int, kind: int) -> bool:
    """Whether the lock was free to be taken; kept while `handle` is open."""
    try:
        fcntl.flock(handle, kind | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _check_dead(directory: Path) -> None:
    """Refuses a trace whose recorder is alive: what is read while it is written may be neither before nor after."""
    try:
        lock = os.open(directory / JOURNAL / LOCK_FILE, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return  # a recorder that lives has its lock file; without one (or on a foreign file system) there is nobody to ask
    try:
        if not _lock(lock, fcntl.LOCK_SH):
            raise TraceError(f"{directory}: is still being recorded (or recovered); stop the recorder first, or wait for it")
    finally:
        os.close(lock)


def _cannot_recover(directory: Path, error: OSError) -> str:
    return (
        f"{directory}: cannot be recovered here ({error.strerror or error}); its journal is as it was: "
        f"make room or rights, or recover a copy"
    )


def recover_into(source: Path, target: Path) -> Manifest:
    """Builds the tables of an unfinished trace from its journal, into `target` (which may be `source`)."""
    if not (source / JOURNAL / MANIFEST).exists():
        raise TraceError(f"{source}: its recorder ended before it began to record; there is nothing to recover, remove it")
    manifest = Manifest.read(source / JOURNAL / MANIFEST)
    try:
        return _rebuild(source, target, manifest)
    except (OSError, RecordingError) as error:
        if target != source:
            reason = error.strerror if isinstance(error, OSError) else str(error).partition(";")[0]
            raise TraceError(
                f"{source}: is unfinished, and there is no temporary copy to be made of it ({reason}); "
                f"make room in {tempfile.gettempdir()}, set TMPDIR, or `reprise recover` it in place"
            ) from None
        if isinstance(error, OSError):
            raise RecordingError(_cannot_recover(source, error)) from None
        raise


def _rebuild(source: Path, target: Path, manifest: Manifest) -> Manifest:
    from traces.tables import EventsWriter

    if target != source:
        target.mkdir(mode=0o700, parents=True)
        if not (source / MODULE).is_file():
            raise TraceError(f"{source / MODULE}: is missing; restore it from a copy")
        shutil.copyfile(source / MODULE, target / MODULE)
    for name in TABLES:  # of the recorder that died, or of a recovery that did
        (target / name).unlink(missing_ok=True)
        (target / f"{name}.partial").unlink(missing_ok=True)
    windows = total = 0
    lost = ""
    with EventsWriter(target / EVENTS, manifest.imports, manifest.exports) as writer:
        for window in recover_windows(source / JOURNAL):
            usable = writer.scan(window)
            if usable:
                writer.write_window(window[:usable])
                windows += 1
                total += usable
            if usable < len(window):
                lost = f"{len(window) - usable} bytes behind the last whole record made no sense and were dropped"
                break
        else:
            lost = missing_windows(source / JOURNAL)
    manifest.outcome = _unfinished_outcome(lost)
    manifest.totals = {"records": writer.rows, "windows": windows, "bytes": total}
    finish(target, manifest, [])
    return manifest


def _unfinished_outcome(lost: str) -> dict[str, Any]:
    message = "the recorder did not finish; recovered from its journal"
    if lost:
        message += f"; {lost}"
    unknown = {"exit_code": None, "code": None, "clock": None, "inside": None}
    return {"kind": "killed", "message": message, **unknown, "complete": False}


__all__ = ["Trace", "begin", "finish", "recover", "recover_into"]
