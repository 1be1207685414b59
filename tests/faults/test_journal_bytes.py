"""Journals as a kill or a bad disk may leave them, made byte by byte: nothing whole is lost, nothing doubled, nothing crashes.

The files are written here, from the format's description; only reading them back is the code under test.
"""

from __future__ import annotations

import random
import shutil
import struct
import zlib
from pathlib import Path

import pyarrow
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from replayer.replay import replay
from tests.faults.kit import guest, manifest, records, serving
from traces._errors import RepriseError
from traces.journal import recover_windows
from traces.tracedir import Trace, recover

PAGE = 65536
SLOT, SLOTS = 4096, 3


def entry(generation: int, data: bytes, *, squeezed: bool = False) -> bytes:
    """A slot as the log holds it."""
    stored = bytes(pyarrow.Codec("zstd", compression_level=1).compress(data, asbytes=True)) if squeezed else data
    head = struct.pack("<4sIIIII", b"RPLG", generation, len(data), len(stored), zlib.crc32(stored), int(squeezed))
    return head + stored


def ring(slots: dict[int, bytes], newest: int, *, head: int | None = None) -> bytes:
    """A window file that holds these slots by generation, `newest` being written to."""
    file = bytearray(PAGE + SLOTS * SLOT)
    file[32:40] = b"REPRISE1"
    struct.pack_into("<II", file, 40, SLOTS, SLOT)
    for generation, data in slots.items():
        place = (generation - 1) % SLOTS
        start = PAGE + place * SLOT
        file[start : start + len(data)] = data
        if generation != newest:
            struct.pack_into("<II", file, 64 + 8 * place, len(data), generation)
    start = PAGE + (newest - 1) % SLOTS * SLOT
    length = len(slots.get(newest, b"")) if head is None else head
    struct.pack_into("<III", file, 0, start + length, newest, start + SLOT)
    return bytes(file)


def cut(data: bytes) -> list[bytes]:
    found, at = [], 0
    while at < len(data):
        size = struct.unpack_from("<I", data, at)[0]
        found.append(data[at : at + size])
        at += size
    return found


class Journal:
    """The directory of a recorder that died just before the end, and its records cut into small windows."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        with serving() as server:
            # The final manifest cannot be written: everything was recorded, nothing was finished.
            fault = {"what": "manifest", "n": 2, "errno": "EIO"}
            ended = server.run(out=str(directory), module=guest("pipe_writer"), argv=[12], faults=[fault])
        assert ended.code == 127, ended
        window = (directory / "journal" / "window").read_bytes()
        head, generation = struct.unpack_from("<II", window)
        assert generation == 1
        self.records = cut(window[PAGE:head])
        assert len(self.records) > 30
        self.windows = [b"".join(self.records[i : i + 5]) for i in range(0, len(self.records), 5)]
        self.count = len(self.windows)

    def copy(self, place: Path, *, log: bytes | None, window: bytes | None) -> Path:
        target = place / f"{len(list(place.iterdir()))}.trace"
        shutil.copytree(self.directory, target)
        for name, data in (("log", log), ("window", window)):
            path = target / "journal" / name
            path.unlink(missing_ok=True)
            if data is not None:
                path.write_bytes(data)
        return target

    def log(self, upto: int, *, squeezed_from: int = 3) -> bytes:
        """The first windows, as appended."""
        return b"".join(entry(n + 1, w, squeezed=n + 1 >= squeezed_from) for n, w in enumerate(self.windows[:upto]))

    def slots(self, *generations: int) -> dict[int, bytes]:
        return {g: self.windows[g - 1] for g in generations}


@pytest.fixture(scope="module")
def journal(tmp_path_factory: pytest.TempPathFactory) -> Journal:
    return Journal(tmp_path_factory.mktemp("journal") / "run.trace")


def recovered(directory: Path) -> list[bytes]:
    """The records a recovery finds, header and body; the trace it makes must replay as far as it goes."""
    recover(directory)
    with Trace.open(directory) as trace:
        assert trace.problems() == []
        verdict = replay(trace)
    assert verdict.kind == "incomplete", verdict.headline()
    rows = records(directory)
    assert verdict.events == len(rows)
    return [struct.pack("<HBB", r.index, r.kind, r.status) + r.body for r in rows]


def expected(given: list[bytes]) -> list[bytes]:
    return [r[4:8] + r[12:] for r in given]


def message(directory: Path) -> str:
    return str(manifest(directory)["outcome"]["message"])


@pytest.mark.parametrize("behind", range(3))
@pytest.mark.parametrize("squeezed_from", [1, 3, 99])
def test_log_and_window_are_put_together(journal: Journal, tmp_path: Path, behind: int, squeezed_from: int) -> None:
    """However far the appending thread was behind, and whether or not what it appended was freed: each record once."""
    newest = journal.count
    log = journal.log(newest - 1 - behind, squeezed_from=squeezed_from)
    held = [g for g in range(newest - SLOTS + 1, newest + 1) if g >= 1]
    target = journal.copy(tmp_path, log=log, window=ring(journal.slots(*held), newest))
    assert recovered(target) == expected(journal.records)
    assert "lost" not in message(target)


def test_killed_between_append_and_reset_of_the_head(journal: Journal, tmp_path: Path) -> None:
    """Sealed and appended, but the head still stands in the slot; then moved on, with nothing written yet."""
    n = journal.count
    file = bytearray(ring(journal.slots(n - 2, n - 1, n), n))
    struct.pack_into("<II", file, 64 + 8 * ((n - 1) % SLOTS), len(journal.windows[n - 1]), n)
    for log in (journal.log(n - 1), journal.log(n)):
        assert recovered(journal.copy(tmp_path, log=log, window=bytes(file))) == expected(journal.records)
    moved = bytearray(ring({**journal.slots(n - 1, n), n + 1: b""}, n + 1))
    stale = PAGE + n % SLOTS * SLOT
    moved[stale : stale + len(journal.windows[n - 3])] = journal.windows[n - 3]  # what stood in the slot before
    for upto in (n - 2, n - 1, n):
        assert recovered(journal.copy(tmp_path, log=journal.log(upto), window=bytes(moved))) == expected(journal.records)


def test_killed_between_completion_and_the_move_of_the_head(journal: Journal, tmp_path: Path) -> None:
    """A record is completed in place by its header's store; the head follows. In between, the record is whole."""
    n = journal.count
    last = cut(journal.windows[n - 1])
    for short in range(4, len(last[-1]), 4):
        window = ring(journal.slots(n - 2, n - 1, n), n, head=len(journal.windows[n - 1]) - len(last[-1]) + short)
        assert recovered(journal.copy(tmp_path, log=journal.log(n - 1), window=window)) == expected(journal.records)


def test_torn_append_at_every_byte(journal: Journal, tmp_path: Path) -> None:
    """The slot being appended is still in the window, so a torn append costs nothing, wherever it tore."""
    n = journal.count
    window = ring(journal.slots(n - 2, n - 1, n), n)
    whole, before = journal.log(n - 1), journal.log(n - 2)
    target = journal.copy(tmp_path, log=whole, window=window) / "journal"
    for length in range(len(before), len(whole)):
        (target / "log").write_bytes(whole[:length])
        assert b"".join(map(bytes, recover_windows(target))) == b"".join(journal.records), length
    for garbage in (b"\0", b"\xff" * 24, whole[:50], b"RPLG" + bytes(20), random.Random(1).randbytes(3000)):
        (target / "log").write_bytes(before + garbage)
        assert b"".join(map(bytes, recover_windows(target))) == b"".join(journal.records), garbage


def test_log_truncated_at_every_byte(journal: Journal, tmp_path: Path) -> None:
    """What was truncated away is the end: every slot that is whole is kept, and the outcome says that something is lost."""
    n = journal.count
    log, window = journal.log(n - 1), ring(journal.slots(n - 2, n - 1, n), n)
    ends = [len(journal.log(k)) for k in range(n)]
    target = journal.copy(tmp_path, log=log, window=window) / "journal"
    for length in range(len(log) + 1):
        (target / "log").write_bytes(log[:length])
        whole = sum(end <= length for end in ends) - 1
        wanted = journal.windows if whole >= n - 3 else journal.windows[:whole]
        assert [bytes(w) for w in recover_windows(target)] == wanted, length
    for whole in range(n):
        again = journal.copy(tmp_path, log=log[: ends[whole]], window=window)
        recover_rows = recovered(again)
        if whole >= n - 3:
            assert recover_rows == expected(journal.records)
            assert "lost" not in message(again)
        else:
            assert recover_rows == expected(journal.records[: 5 * whole])
            assert f"{n - 3 - whole} of the {n} windows" in message(again)


@pytest.mark.parametrize(
    "garbage", [b"", b"\0", bytes(1 << 20), b"REPRISE1" * 20000, random.Random(2).randbytes(100_000)], ids=len
)
def test_garbage_window(journal: Journal, tmp_path: Path, garbage: bytes) -> None:
    n = journal.count
    target = journal.copy(tmp_path, log=journal.log(n - 1), window=garbage)
    assert recovered(target) == expected(journal.records[: 5 * (n - 1)])
    assert "window is missing or damaged" in message(target)


def test_window_missing(journal: Journal, tmp_path: Path) -> None:
    n = journal.count
    target = journal.copy(tmp_path, log=journal.log(n - 1), window=None)
    assert recovered(target) == expected(journal.records[: 5 * (n - 1)])
    assert "window is missing or damaged" in message(target)


@pytest.mark.parametrize("log", [None, b""])
def test_log_missing_or_empty(journal: Journal, tmp_path: Path, log: bytes | None) -> None:
    n = journal.count
    target = journal.copy(tmp_path, log=log, window=ring(journal.slots(1, 2, 3), 3))
    assert recovered(target) == expected(journal.records[:15])
    late = journal.copy(tmp_path, log=log, window=ring(journal.slots(n - 2, n - 1, n), n))
    assert recovered(late) == []
    assert f"{n - 3} of the {n} windows" in message(late)


def test_log_and_window_of_different_recordings(journal: Journal, tmp_path: Path) -> None:
    n = journal.count
    target = journal.copy(tmp_path, log=journal.log(n), window=ring(journal.slots(1), 1))
    assert recovered(target) == expected(journal.records)
    assert "not that of its log" in message(target)


@pytest.mark.parametrize("name", ["journal/manifest.json", "module.wasm"])
@pytest.mark.parametrize("how", ["missing", "empty", "garbage", "directory"])
def test_other_files_damaged(journal: Journal, tmp_path: Path, name: str, how: str) -> None:
    target = journal.copy(tmp_path, log=b"", window=ring(journal.slots(1, 2, 3), 3))
    (target / name).unlink()
    if how == "directory":
        (target / name).mkdir()
    elif how != "missing":
        (target / name).write_bytes(b"" if how == "empty" else b"\xff\x00garbage")
    found = []
    for attempt in (lambda: Trace.open(target).close(), lambda: recover(target)):
        try:
            attempt()
        except RepriseError as error:
            assert "\n" not in str(error)
            found.append(str(error))
    if name != "module.wasm":
        assert len(found) == 2
    else:
        assert "module.wasm" in "".join(found) or replay(Trace.open(target)).kind == "unusable"


@pytest.mark.parametrize("leftover", ["events.parquet", "states.parquet.partial", "spans.parquet", "manifest.json.partial"])
def test_leftovers_of_closing(journal: Journal, tmp_path: Path, leftover: str) -> None:
    """The recorder, or a recovery, died while it wrote the tables."""
    target = journal.copy(tmp_path, log=b"", window=ring(journal.slots(1, 2, 3), 3))
    (target / leftover).write_bytes(b"half")
    assert recovered(target) == expected(journal.records[:15])
    assert not list(target.glob("*.partial"))


@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_damage_is_survived(journal: Journal, tmp_path: Path, data: st.DataObject) -> None:
    """Bytes changed anywhere: a trace that opens or one line that says why not, and never a crash."""
    n = journal.count
    files = {"log": bytearray(journal.log(n - 1)), "window": bytearray(ring(journal.slots(n - 2, n - 1, n), n))}
    log = bytes(files["log"])
    for _ in range(data.draw(st.integers(1, 4))):
        name = data.draw(st.sampled_from(sorted(files)))
        file = files[name]
        used = [*range(128), *range(PAGE, PAGE + 400), *range(PAGE + SLOT, PAGE + SLOT + 400)]
        at = data.draw(st.integers(0, len(file) - 1) if name == "log" else st.sampled_from(used))
        file[at] = data.draw(st.integers(0, 255))
    target = journal.copy(tmp_path, log=bytes(files["log"]), window=bytes(files["window"]))
    # The log is checksummed: what is taken from it is what was appended.
    kept = list(recover_windows(target / "journal"))
    if bytes(files["log"]) != log and bytes(files["window"]) == ring(journal.slots(n - 2, n - 1, n), n):
        assert [bytes(w) for w in kept] == journal.windows[: len(kept)]
    try:
        with Trace.open(target) as trace:
            assert replay(trace).kind in ("incomplete", "diverged", "unusable")
    except RepriseError as error:
        assert "\n" not in str(error)
    shutil.rmtree(target)
