"""Runs guests three ways and compares: natively (`tests.native`), recorded, and replayed, here or in a hostile process.

Also owns the tools that the tests of replay need: looking at a replay at every event boundary, and forging traces.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, partial
from pathlib import Path
from typing import Any
from unittest import mock

import pyarrow as pa
import pyarrow.parquet as pq
import wasmtime

import recorder.recording
from recorder.boundary.linking import Linked
from recorder.boundary.raw import RECURSION, GuestExit, GuestTrap
from recorder.invocation import Invocation
from recorder.outcome import Limits, Outcome
from recorder.python_host import Guest
from recorder.recording import Options, Recording
from recorder.source import Source
from replayer.cursor import Cursor, Record
from replayer.replay import Replay
from replayer.verdict import Verdict
from tests.native import Ended
from traces import tables
from traces.journal import Ring, Writer
from traces.layout import HEADER_SIZE, RING_DATA, Kind, Status
from traces.manifest import Manifest
from traces.tables import EventsReader
from traces.tracedir import EVENTS, MANIFEST, STATES, Trace, digest_file

# Running a guest raises the limit for good; hypothesis warns if that happens in the middle of a test.
sys.setrecursionlimit(max(sys.getrecursionlimit(), RECURSION))

ROOT = Path(__file__).resolve().parents[1]
GUESTS = ROOT / "tests" / "guests"


def guest(name: str) -> bytes:
    """The bytes of a committed guest."""
    return (GUESTS / f"{name}.wasm").read_bytes()


@cache
def assemble(text: str) -> bytes:
    return bytes(wasmtime.wat2wasm(text))


def unused(place: Path, stem: str = "run") -> Path:
    """A path in `place` that does not exist yet."""
    return next(p for n in range(1 << 30) if not (p := place / f"{stem}{n}.trace").exists())


# -- recording -------------------------------------------------------------------------------------------------------------


@dataclass
class Recorded:
    """A finished recording."""

    directory: Path
    outcome: Outcome
    value: Any
    """What `drive` returned; None if it raised."""
    memories: list[bytes]
    """All of every memory at the end."""
    globals: dict[int, int]
    """Raw bits of every reachable global at the end."""
    boundaries: dict[tuple[int, int], str]
    """Fingerprint of the guest after a record was written down by Python, by where that record stands."""
    recording: Recording

    @property
    def trace(self) -> Trace:
        return Trace.open(self.directory)


@contextlib.contextmanager
def slots_of(size: int | None, count: int = 3) -> Iterator[None]:
    """Makes the journal's slots that small, so that a few records fill one."""
    if size is None:
        yield
        return
    with mock.patch.object(recorder.recording, "Ring", partial(Ring, slots=count, slot_size=size)):
        yield


def record(
    wasm: bytes,
    out: Path,
    drive: Callable[[Guest], Any],
    *,
    hosts: Sequence[Any] = (),
    invocation: Invocation | None = None,
    slot_size: int | None = 65536,
    limits: Limits | None = None,
    watch: bool = False,
) -> Recorded:
    """Records what `drive` does to a guest, as an embedder. What it raises becomes the outcome."""
    options = Options(out=out, invocation=invocation or Invocation(), hosts=tuple(hosts), limits=limits or Limits())
    with slots_of(slot_size):
        recording = Recording(Source(wasm, "guest", "test"), options, embedded=True)
    value = None
    boundaries: dict[tuple[int, int], str] = {}
    with _watching(recording, boundaries) if watch else contextlib.nullcontext(), recording.closing():
        value = drive(recording.link())
    assert recording.outcome is not None
    linked = recording.session.linked
    memories = [m.read(0, m.size) for m in linked.memories]
    reachable = {} if linked.start_failure is not None else {i: linked.global_bits(i) for i in linked.reachable("global")}
    return Recorded(out, recording.outcome, value, memories, reachable, boundaries, recording)


def outcome_of(call: Callable[[], Sequence[int] | None]) -> Ended:
    """How a call through the recorder ended, in the words of the native oracle."""
    try:
        return Ended("returned", tuple(call() or ()))
    except GuestTrap as error:
        return Ended("trap", code=error.code)
    except GuestExit as error:
        return Ended("exit", code=error.code)
    except Exception as error:
        return Ended("raised", what=type(error).__name__)


def fingerprint(linked: Linked) -> str:
    """Everything that can be seen of a guest from outside, in one digest."""
    digest = hashlib.sha256()
    for memory in linked.memories:
        digest.update(memory.size.to_bytes(8, "little"))
        digest.update(memory.view())
    if linked.start_failure is not None or linked._exports is None:
        return digest.hexdigest()
    for index in linked.reachable("global"):
        digest.update(linked.global_bits(index).to_bytes(16, "little"))
    for index in linked.reachable("table"):
        seen: dict[int, int] = {}
        for element in range(linked.table_size(index)):
            value = linked.table_get(index, element)
            if isinstance(value, wasmtime.Func):
                address = linked.machine.references.address_of_function(value)
                digest.update(b"f%d" % seen.setdefault(address, len(seen)))
            else:
                digest.update(b"-" if value is None else b"x%d" % value)
        digest.update(b"|")
    return digest.hexdigest()


@contextlib.contextmanager
def _watching(recording: Recording, boundaries: dict[tuple[int, int], str]) -> Iterator[None]:
    """Takes the guest's fingerprint whenever Python has written a record down."""
    writer, ring, linked = recording.session.writer, recording.session.ring, recording.session.linked
    commit, spill = writer.commit, writer._spill
    spilling: list[tuple[int, int]] = []

    def committed(status: Status) -> int:
        start = commit(status)
        place = (ring.generation, start - ring.slot_start(ring.generation))
        if writer.spilled or place in spilling:
            boundaries.pop(place, None)  # memory is ahead of what this record holds
        elif linked._exports is not None:
            boundaries[place] = fingerprint(linked)
        return start

    def spilled() -> None:
        spilling.append((ring.generation, writer.start - ring.slot_start(ring.generation)))
        spill()

    with mock.patch.object(writer, "commit", committed), mock.patch.object(writer, "_spill", spilled):
        yield


# -- replaying -------------------------------------------------------------------------------------------------------------


@dataclass
class Replayed:
    verdict: Verdict
    memories: list[bytes]
    globals: dict[int, int]
    boundaries: dict[tuple[int, int], str]

    @property
    def kind(self) -> str:
        return self.verdict.kind


class _SlowCursor(Cursor):
    """Makes every complete call look open in the window, so that the interposer hands each one to the slow path."""

    def __init__(self, plain: Cursor) -> None:
        self.__dict__.update(plain.__dict__)
        self.masked: set[int] = set()

    def _load(self, window: tables.Window) -> None:
        super()._load(window)
        self.masked = set()
        for offset in list(window.offsets)[: window.rows]:
            at = RING_DATA + offset
            if self.memory.read(at + 6, 2) == bytes((Kind.CALL, Status.COMPLETE)):
                self.memory.write(at + 7, bytes((Status.OPEN,)))
                self.masked.add(at)

    def peek(self) -> Record | None:
        record = super().peek()
        if record is not None and record.at in self.masked:
            return replace(record, status=Status.COMPLETE)
        return record


class SlowReplay(Replay):
    """A replay in which no call is served inside Wasm, and the guest is looked at after every record."""

    def __init__(self, trace: Trace) -> None:
        super().__init__(trace)
        self.boundaries: dict[tuple[int, int], str] = {}
        self.cursor = _SlowCursor(self.cursor)

    def _advance(self, record: Record) -> None:
        window = self.cursor._window
        assert window is not None
        reader = self.cursor.reader
        assert isinstance(reader, EventsReader)
        generation = next(n for n, first in enumerate(reader._first) if first == window.first) + 1
        if self.linked._exports is not None:
            self.boundaries[generation, record.at - RING_DATA] = fingerprint(self.linked)
        super()._advance(record)


def _result(run: Replay) -> Replayed:
    from traces._errors import TraceError

    try:
        verdict = run.run()
    except TraceError as error:
        verdict = Verdict("unusable", reason=str(error))
    linked = run.linked
    memories = [m.read(0, m.size) for m in linked.memories if m.alive]
    known = {} if linked.start_failure is not None or linked._exports is None else linked.reachable("global")
    return Replayed(verdict, memories, {i: linked.global_bits(i) for i in known}, getattr(run, "boundaries", {}))


def replayed(directory: Path) -> Replayed:
    """An ordinary replay in this process."""
    return _result(Replay(Trace.open(directory)))


def replayed_slowly(directory: Path) -> Replayed:
    """A replay through the slow path only, looked at after every record."""
    return _result(SlowReplay(Trace.open(directory)))


def verdict_of(directory: Path) -> Verdict:
    from replayer.replay import replay

    with Trace.open(directory) as trace:
        return replay(trace)


_ELSEWHERE = """
import hashlib, json, os, socket, sys
root, allowed, *names = sys.argv[1:]
sys.path.insert(0, root)
FORBIDDEN = ("recorder.recording", "recorder.session", "recorder.python_host", "recorder.invocation", "recorder.watchdog",
             "recorder.hosts", "recorder.runtime", "tests", "inspector", "duckdb", "textual", "requests", "httpx")
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if any(name == f or name.startswith(f + ".") for f in FORBIDDEN):
            raise ImportError("a replay must not import " + name)
sys.meta_path.insert(0, Refuse())
import replayer.replay, traces.tracedir
opened = []
def hook(event, args):
    if event.startswith("socket.") or event in ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn"):
        raise RuntimeError("a replay must not " + event)
    if event == "open" and isinstance(args[0], str) and isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR):
        if os.path.abspath(args[0]).startswith(os.path.abspath(allowed)):
            raise RuntimeError("a replay must not write " + args[0])
sys.addaudithook(hook)
for name in names:
    with traces.tracedir.Trace.open(name) as trace:
        memories = []
        try:
            run = replayer.replay.Replay(trace)
            verdict = run.run().to_json()
            memories = [hashlib.sha256(m.read(0, m.size)).hexdigest() for m in run.linked.memories]
        except traces._errors.TraceError as error:
            verdict = {"verdict": "unusable", "reason": str(error)}
    print(json.dumps({"verdict": verdict, "memories": memories}))
"""


def replayed_elsewhere(directories: Sequence[Path], place: Path) -> list[dict[str, Any]]:
    """Replays in a fresh process that has nothing of the recording's world: another directory, time zone, language and home, no
    network, no host modules, the traces read-only. One report (verdict and digests of memories) for each trace."""
    nowhere = place / "nowhere"
    nowhere.mkdir(exist_ok=True)
    environment = {
        "TZ": "Pacific/Kiritimati",
        "LANG": "tr_TR.UTF-8",
        "LC_ALL": "tr_TR.UTF-8",
        "HOME": str(nowhere / "no" / "such" / "home"),
        "PATH": "/nonexistent",
        "TMPDIR": str(nowhere),
        "PYTHONHASHSEED": "1234",
        "PYTHONDONTWRITEBYTECODE": "1",
        "REPRISE_NO_CACHE": "1",
    }
    command = [sys.executable, "-c", _ELSEWHERE, str(ROOT), str(place), *[str(d.resolve()) for d in directories]]
    if _can_unshare():
        command = ["/usr/bin/unshare", "-rn", *command]
    done = subprocess.run(command, cwd=nowhere, env=environment, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@cache
def _can_unshare() -> bool:
    if not os.path.exists("/usr/bin/unshare"):
        return False
    return subprocess.run(["/usr/bin/unshare", "-rn", "/bin/true"], capture_output=True, check=False).returncode == 0


def check(recorded: Recorded, kind: str = "identical") -> Replayed:
    """Replays the quick way and the slow way and compares all of memory, globals and, where known, every event boundary."""
    quick = replayed(recorded.directory)
    assert quick.kind == kind, "\n".join(quick.verdict.lines(str(recorded.directory)))
    same_state(quick, recorded)
    slow = replayed_slowly(recorded.directory)
    assert slow.kind == kind, "slow path: " + "\n".join(slow.verdict.lines(str(recorded.directory)))
    same_state(slow, recorded)
    rows = {(g + 1, offset) for g, window in enumerate(Forged(recorded.directory).windows) for offset in offsets_of(window)}
    assert set(recorded.boundaries) <= rows
    for place, seen in recorded.boundaries.items():
        if place in slow.boundaries:
            assert slow.boundaries[place] == seen, f"the guest differs after the record at {place}"
    problems = tables.verify_columns(
        recorded.directory / EVENTS, recorded.recording.manifest.imports, recorded.recording.manifest.exports
    )
    assert not problems, problems
    assert not recorded.trace.problems()
    return quick


def same_state(replay: Replayed, recorded: Recorded) -> None:
    assert [len(m) for m in replay.memories] == [len(m) for m in recorded.memories]
    for index, (now, was) in enumerate(zip(replay.memories, recorded.memories, strict=True)):
        assert now == was, f"memory {index} differs first at {first_difference(now, was):#x}"
    assert replay.globals == recorded.globals


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def first_difference(a: bytes, b: bytes) -> int:
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


# -- forging ---------------------------------------------------------------------------------------------------------------


def offsets_of(window: bytes) -> list[int]:
    found, at = [], 0
    while at < len(window):
        found.append(at)
        at += int.from_bytes(window[at : at + 4], "little")
    return found


@dataclass
class Row:
    """One record, taken apart only as far as its header."""

    seq: int
    index: int
    kind: int
    status: int
    body: bytearray
    time: int = 0

    @classmethod
    def parse(cls, seq: int, data: bytes) -> Row:
        _, index, kind, status, time = struct.unpack_from("<IHBBI", data)
        return cls(seq, index, kind, status, bytearray(data[HEADER_SIZE:]), time)

    def pack(self) -> bytes:
        return struct.pack("<IHBBI", HEADER_SIZE + len(self.body), self.index, self.kind, self.status, self.time) + self.body


@dataclass
class Forged:
    """The records of a trace, to be changed and written back so that every digest and derived column agrees again."""

    directory: Path
    windows: list[bytes] = field(default_factory=list)

    def __post_init__(self) -> None:
        reader = tables.EventsReader(self.directory / EVENTS)
        self.windows = [bytes(reader.window(i).data) for i in range(reader.window_count)]
        reader.close()

    @property
    def rows(self) -> list[Row]:
        found: list[Row] = []
        for window in self.windows:
            ends = [*offsets_of(window)[1:], len(window)]
            for start, end in zip(offsets_of(window), ends, strict=True):
                found.append(Row.parse(len(found), window[start:end]))
        return found

    def write(self, rows: Sequence[Row], *, total_states: bool = True) -> None:
        """Writes the rows back as one window, and everything that depends on them."""
        manifest = Manifest.read(self.directory / MANIFEST)
        before = len(self.rows)
        (self.directory / EVENTS).unlink()
        with tables.EventsWriter(self.directory / EVENTS, manifest.imports, manifest.exports) as writer:
            data = b"".join(row.pack() for row in rows)
            if data:
                writer.write_window(data)
            writer.close()
        if total_states and len(rows) != before:  # the final digests stand behind the last record
            states = tables.read_states(self.directory / STATES)
            (self.directory / STATES).unlink()
            tables.write_states(self.directory / STATES, [(len(rows) if s.seq == before else s.seq, s) for s in states])
        seal(self.directory, lambda m: m.totals.update(records=len(rows)))


def write_raw(directory: Path, window: bytes, like: Path) -> None:
    """Writes a window's bytes into the table without the checks of its writer; every other column stays as in `like`."""
    offsets = offsets_of(Forged(like).windows[0])
    ends = [*offsets[1:], len(window)]
    table = pq.read_table(like / EVENTS)
    records = pa.array([window[a:b] for a, b in zip(offsets, ends, strict=True)], pa.large_binary())
    table = table.set_column(table.schema.get_field_index("record"), table.schema.field("record"), records)
    pq.write_table(table, directory / EVENTS, use_dictionary=["kind"], compression="zstd", write_page_checksum=True)


def seal(directory: Path, change: Callable[[Manifest], None] | None = None) -> None:
    """Makes the manifest's digests those of the files, after an optional change of the manifest itself."""
    manifest = Manifest.read(directory / MANIFEST)
    if change is not None:
        change(manifest)
    manifest.files = {name: digest_file(directory / name) for name in manifest.files}
    (directory / MANIFEST).write_text(manifest.to_json(), encoding="utf-8")


def copy_of(directory: Path, place: Path) -> Path:
    target = unused(place, "forged")
    shutil.copytree(directory, target)
    return target


def forge(directory: Path, place: Path, change: Callable[[list[Row]], None]) -> Path:
    """A copy of a trace with its records changed; consistent in itself, so that only a replay can find out."""
    target = copy_of(directory, place)
    forged = Forged(target)
    rows = forged.rows
    change(rows)
    forged.write(rows)
    return target


def kinds(directory: Path) -> Mapping[str, int]:
    counted: dict[str, int] = {}
    for row in Forged(directory).rows:
        name = Kind(row.kind).name
        counted[name] = counted.get(name, 0) + 1
    return counted


__all__ = [
    "Forged",
    "Recorded",
    "Replayed",
    "Row",
    "Writer",
    "assemble",
    "check",
    "copy_of",
    "forge",
    "guest",
    "kinds",
    "outcome_of",
    "record",
    "replayed",
    "replayed_elsewhere",
    "replayed_slowly",
    "same_state",
    "seal",
    "sha256",
    "slots_of",
    "unused",
    "verdict_of",
    "write_raw",
]
