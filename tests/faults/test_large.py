"""Large and deep: payloads beyond any slot, calls nested through many rotations, and the memory that recording takes."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.kit import (
    CALL,
    CALLBACK,
    COMPLETE,
    DATA,
    OPEN,
    RETURN,
    Server,
    chunks,
    guest,
    looked_at,
    measured,
    records,
    serving,
    well_nested,
)

MIB = 1 << 20
NATIVE = str(Path(__file__).with_name("native_run.py"))
REPLAY = ("-m", "reprise", "replay")
REPORT: list[str] = []


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serving() as server:
        yield server
    for line in REPORT:
        print(line)


# -- deep ----------------------------------------------------------------------------------------------------------------

DEPTH, PAYLOAD, SLOT = 100, 3000, 65536


def test_nested_calls_across_rotations(server: Server, tmp_path: Path) -> None:
    """100 host calls inside each other, each with a payload, through five slots."""
    out = tmp_path / "run.trace"
    ended = server.run(out=str(out), module=guest("deep_recursion_import"), depth=DEPTH, payload=PAYLOAD, slot_size=SLOT)
    assert ended.code == 0, ended.err
    assert ended.out.count(b"in ") == ended.out.count(b"out ") == DEPTH
    rows = records(out)
    assert sum(r.kind == CALLBACK for r in rows) == DEPTH - 1
    assert sum(r.kind == CALL for r in rows) == DEPTH
    assert well_nested(rows) == 0
    (found,) = looked_at([out])
    assert found["opened"]["kind"] == "identical", found["opened"]
    assert found["opened"]["problems"] == []


@pytest.mark.parametrize("n", range(3))
def test_nested_calls_killed_in_the_middle(server: Server, tmp_path: Path, n: int) -> None:
    """Each level lets one line out on the way in and one on the way out; killed after a random number of them."""
    random_ = random.Random()
    outs, seen = [], []
    for k in range(8):
        out = tmp_path / f"{k}.trace"
        spec = {"depth": DEPTH, "payload": PAYLOAD, "slot_size": SLOT}
        recorder = server.start(out=str(out), module=guest("deep_recursion_import"), **spec)
        recorder.read(time.monotonic() + 20, random_.randint(1, 1400))
        outs.append(out)
        seen.append(recorder.kill().out)
    for out, lines, found in zip(outs, seen, looked_at(outs), strict=True):
        opened = found["opened"]
        assert found["recovery"] == "" or "complete" in found["recovery"], found
        assert opened["kind"] in ("incomplete", "identical"), opened
        assert opened["events"] == opened["total"]
        assert opened["problems"] == []
        rows = records(out)
        calls = [r for r in rows if r.kind == CALL]
        # The call is written down before its host runs, so before its first line; its return after its last line.
        assert len(calls) >= lines.count(b"in ")
        returned = sum(r.kind == RETURN and r.index != 0xFFFF for r in rows) + sum(r.status == COMPLETE for r in calls)
        assert lines.count(b"out ") - 1 <= returned <= lines.count(b"out ")
        assert [int.from_bytes(r.body[:4], "little") for r in calls] == list(range(1, len(calls) + 1))
        well_nested(rows)


# -- large ---------------------------------------------------------------------------------------------------------------


def received(out: Path) -> tuple[int, str]:
    """Bytes written into the guest by chunks of more than 64 KiB, and their digest in order."""
    digest, total = hashlib.sha256(), 0
    for row in records(out):
        if row.kind not in (CALL, DATA, RETURN) or len(row.body) < 65536:
            continue
        for sent, _, data in chunks(row.body, {CALL: 20, DATA: 0, RETURN: 4}[row.kind]):
            if not sent and len(data) > 64:
                digest.update(data)
                total += len(data)
    return total, digest.hexdigest()


def test_largest_single_read(server: Server, tmp_path: Path) -> None:
    """One fd_read of 120 MiB (the engine's WASI refuses 128 MiB and more), in memory that grows by the payload only."""
    size = 120 * MIB
    work, out = tmp_path / "work", tmp_path / "run.trace"
    work.mkdir()
    data = os.urandom(MIB) * 120
    (work / "big").write_bytes(data)
    spec = {"module": guest("big_read"), "argv": [size, "/work/big"], "dirs": [[str(work), "/work"]]}
    ended = server.run(out=str(out), **spec)
    assert ended.code == 0, ended.err
    assert ended.out.startswith(b"asked %d got %d fnv1a " % (size, size)), ended.out
    (work / "big").unlink()
    code, rss = measured(*REPLAY, out)
    assert code == 0
    REPORT.append(f"120 MiB fd_read: record {ended.rss / MIB:.0f} MiB, replay {rss / MIB:.0f} MiB peak RSS")
    # The engine's WASI reads into a buffer of its own before it writes to the guest: the payload may be there twice.
    assert ended.rss < (2 * 120 + 250) * MIB
    assert rss < (120 + 250) * MIB
    found = [r for r in records(out) if r.kind == DATA]
    assert len(found) > 20
    total = sum(len(d) for r in found for _, _, d in chunks(r.body, 0))
    assert size - 8 * MIB < total <= size


def test_read_killed_in_the_middle(server: Server, tmp_path: Path) -> None:
    """Killed while 120 MiB are being read or copied into the journal: recovered, and replayed as far as it goes."""
    size = 120 * MIB
    work = tmp_path / "work"
    work.mkdir()
    with open(work / "big", "wb") as file:
        file.truncate(size)
    outs = []
    for k in range(6):
        out = tmp_path / f"{k}.trace"
        spec = {"module": guest("big_read"), "argv": [size, "/work/big"], "dirs": [[str(work), "/work"]], "slot_size": MIB}
        recorder = server.start(out=str(out), **spec)
        log = out / "journal" / "log"
        deadline = time.monotonic() + 20
        while not (log.exists() and log.stat().st_size > k) and time.monotonic() < deadline:
            time.sleep(0.001)
        time.sleep(0.01 * k)
        recorder.kill()
        outs.append(out)
    for found in looked_at(outs):
        opened = found["opened"]
        assert opened["kind"] in ("incomplete", "identical"), opened
        assert opened == found["recovered"]
    middle = [rows[-1].kind == DATA or any(r.kind == DATA for r in rows) for rows in map(records, outs)]
    assert any(middle), "no kill hit the copying"


def fill_module(place: Path, pages: int) -> str:
    path = place / "fill.wat"
    path.write_text(f"""(module
      (import "env" "fill" (func $fill (param i64 i64)))
      (memory (export "memory") {pages})
      (func (export "_start") (call $fill (i64.const 65536) (i64.const {(pages - 2) * 65536}))))""")
    return str(path)


def gib_through_a_host(server: Server, tmp_path: Path, pages: int) -> None:
    out = tmp_path / "run.trace"
    payload = (pages - 2) * 65536
    ended = server.run(out=str(out), module=fill_module(tmp_path, pages))
    assert ended.code == 0, ended.err
    assert ended.out == b"filling\nfilled\n"
    code, rss = measured(*REPLAY, out)
    assert code == 0
    REPORT.append(
        f"{payload / MIB:.0f} MiB Guest.write: record {ended.rss / MIB:.0f} MiB (the host's own copy included), "
        f"replay {rss / MIB:.0f} MiB peak RSS"
    )
    # Record: the host's bytes, the copy that crosses into the guest, the guest's memory. Replay: the guest's memory.
    assert ended.rss < 3 * payload + 250 * MIB
    assert rss < payload + 250 * MIB
    rows = records(out) if payload < 400 * MIB else []
    for row in rows[-1:]:
        assert row.kind != OPEN


def test_large_payload_of_a_host(server: Server, tmp_path: Path) -> None:
    gib_through_a_host(server, tmp_path, 4096)


@pytest.mark.soak
def test_gibibyte_payload_of_a_host(server: Server, tmp_path: Path) -> None:
    gib_through_a_host(server, tmp_path, 16386)


def test_large_payload_of_a_host_killed_in_the_middle(server: Server, tmp_path: Path) -> None:
    out = tmp_path / "run.trace"
    recorder = server.start(out=str(out), module=fill_module(tmp_path, 4096), slot_size=MIB)
    recorder.until(b"filling\n")
    deadline = time.monotonic() + 20
    log = out / "journal" / "log"
    while log.stat().st_size < 20000 and time.monotonic() < deadline:
        time.sleep(0.001)
    ended = recorder.kill()
    assert ended.code == -signal.SIGKILL
    (found,) = looked_at([out])
    assert found["opened"]["kind"] == "incomplete", found["opened"]
    rows = records(out)
    assert [r.kind for r in rows[2:]] == [DATA] * (len(rows) - 2)
    assert well_nested(rows) == 2


# -- memory --------------------------------------------------------------------------------------------------------------


def flat(tmp_path: Path, count: int) -> None:
    """Recording and replaying `count` calls takes no more than 150 MiB beyond what the native run takes."""
    out = tmp_path / "run.trace"
    code, native = measured(NATIVE, guest("import_loop"), str(count))
    assert code == 0
    code, recorded = measured("-m", "reprise", "record", "-o", out, "--invoke", "run", "--arg", str(count), guest("import_loop"))
    assert code == 0
    code, replayed = measured(*REPLAY, out)
    assert code == 0
    line = (
        f"{count:,} events: native {native / MIB:.0f}, recorded {recorded / MIB:.0f}, replayed {replayed / MIB:.0f} MiB peak RSS"
    )
    REPORT.append(line)
    assert recorded - native < 150 * MIB, line
    assert replayed - native < 150 * MIB, line


def test_memory_is_flat(tmp_path: Path) -> None:
    flat(tmp_path, 10_000_000)


@pytest.mark.soak
def test_memory_is_flat_for_a_hundred_million(tmp_path: Path) -> None:
    flat(tmp_path, 100_000_000)
