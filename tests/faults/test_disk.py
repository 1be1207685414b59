"""A full, broken or read-only disk: no SIGBUS, the guest stopped before its next effect, what was seen recoverable."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.faults.kit import Ended, Server, command, guest, let_out, looked_at, serving

SLOT = 65536


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serving() as server:
        yield server


def check_failure(out: Path, ended: Ended, *, started: bool = True) -> None:
    """The recording failed honestly: one line that says how to keep what there is, and nothing seen that is not there."""
    assert ended.code == 127, (ended.code, ended.err)
    assert ended.err.count("\n") == 1, ended.err
    assert ended.err.startswith("reprise: "), ended.err
    if not started:
        assert not out.exists()
        assert ended.out == b""
        assert "recover" not in ended.err
        return
    assert f"reprise recover {out}" in ended.err, ended.err


def check_recovered(out: Path, seen: bytes) -> None:
    (found,) = looked_at([out])
    assert found["untouched"]
    assert found["recovery"] == "", found
    recovered = found["recovered"]
    assert (recovered["kind"], recovered["problems"]) == ("incomplete", []), recovered
    done, begun = let_out(out)
    assert (done + begun).startswith(seen), "bytes were seen that the trace does not have"
    assert done == seen, "the guest's last call is said to have ended otherwise than it did"


def faults() -> list[Any]:
    cases = []
    for code in ("ENOSPC", "EIO"):
        cases += [pytest.param({"what": "append", "n": n, "errno": code}, id=f"append-{n}-{code}") for n in (0, 1, 2, 3, 6, 7)]
        cases += [pytest.param({"what": "table", "n": n, "errno": code}, id=f"table-{n}-{code}") for n in (0, 1, 2, 5, 40, 200)]
    cases += [pytest.param({"what": "append", "n": n, "errno": "ENOSPC", "short": True}, id=f"short-{n}") for n in (0, 1, 5)]
    cases += [pytest.param({"what": "append", "n": 3, "errno": "EIO", "forever": False}, id="append-once")]
    cases += [pytest.param({"what": "truncate", "n": 0, "errno": "EIO", "short": True}, id="truncate-fails-too")]
    cases += [pytest.param({"what": "manifest", "n": 2, "errno": "ENOSPC"}, id="last-manifest")]
    return cases


@pytest.mark.parametrize("fault", faults())
def test_device_fails(server: Server, tmp_path: Path, fault: dict[str, Any]) -> None:
    out = tmp_path / "run.trace"
    ended = server.run(out=str(out), module=guest("pipe_writer"), argv=[4000], slot_size=SLOT, faults=[fault])
    check_failure(out, ended)
    check_recovered(out, ended.out)


@pytest.mark.parametrize("n", [0, 1, 2])
def test_sync_fails(server: Server, tmp_path: Path, n: int) -> None:
    out = tmp_path / "run.trace"
    fault = {"what": "sync", "n": n, "errno": "EIO"}
    ended = server.run(out=str(out), module=guest("pipe_writer"), argv=[2000], slot_size=SLOT, durable=True, faults=[fault])
    check_failure(out, ended)
    check_recovered(out, ended.out)


def test_window_cannot_be_allocated(server: Server, tmp_path: Path) -> None:
    out = tmp_path / "run.trace"
    fault = {"what": "fallocate", "n": 0, "errno": "ENOSPC"}
    ended = server.run(out=str(out), module=guest("pipe_writer"), argv=[10], faults=[fault])
    check_failure(out, ended, started=False)


@pytest.mark.parametrize("n", [0, 1])
def test_trace_cannot_be_begun(server: Server, tmp_path: Path, n: int) -> None:
    out = tmp_path / "run.trace"
    fault = {"what": "manifest", "n": n, "errno": "ENOSPC"}
    ended = server.run(out=str(out), module=guest("pipe_writer"), argv=[10], faults=[fault])
    assert (ended.code, ended.out, out.exists()) == (126, b"", False)
    assert ended.err.count("\n") == 1
    assert "No space left" in ended.err


# -- real disks ----------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def disk(place: Path, size: str) -> Iterator[Path]:
    """A file system of its own that is that small."""
    place.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", place], capture_output=True, text=True, check=False
    )
    if done.returncode:
        assert not os.environ.get("CI"), f"CI must be able to mount a tmpfs: {done.stderr}"
        pytest.skip(f"needs the right to mount a tmpfs: {done.stderr.strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", place], check=True)


def remount(place: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", place], check=True)


SIZES = ["4k", "16k", "100k", "200k", "276k", "288k", "300k", "360k", "420k", "500k", "640k", "900k", "1200k", "2m"]


@pytest.mark.parametrize("size", SIZES)
def test_full_disk(server: Server, tmp_path: Path, size: str) -> None:
    """From too small for the directory to nearly enough: allocation, append, tables and manifest each hit the end somewhere."""
    with disk(tmp_path / "disk", size) as place:
        out = place / "run.trace"
        ended = server.run(out=str(out), module=guest("pipe_writer"), argv=[8000], slot_size=SLOT)
        assert ended.code in (0, 126, 127), (ended.code, ended.err)
        assert ended.err.count("\n") == 1, ended.err
        remount(place, "size=64m")
        if ended.code == 126:
            assert ended.out == b""
            assert not out.exists()
        elif ended.code == 127 and not out.exists():
            check_failure(out, ended, started=False)
        elif ended.code == 127:
            check_failure(out, ended)
            assert "no space left" in ended.err.lower()
            check_recovered(out, ended.out)
        else:
            assert let_out(out) == (ended.out, b"")


def test_recovery_on_a_full_disk(server: Server, tmp_path: Path) -> None:
    """Recovery that runs out of room leaves the journal as it was, and works once there is room."""
    with disk(tmp_path / "disk", "16m") as place:
        out = place / "run.trace"
        recorder = server.start(out=str(out), module=guest("pipe_writer"), argv=[100000], slot_size=SLOT)
        recorder.read(time.monotonic() + 30, 40000)
        seen = recorder.kill().out
        used = sum(f.stat().st_blocks * 512 for f in out.rglob("*"))
        for more in (4096, 16384, 65536):
            remount(place, f"size={used + more}")
            done = command("recover", out)
            assert done.returncode not in (0, 70, 1), done
            assert done.stderr.count("\n") == 1, done.stderr
            assert (out / "journal" / "log").exists()
        remount(place, "size=64m")
        check_recovered_after_kill(out, seen)


def check_recovered_after_kill(out: Path, seen: bytes) -> None:
    (found,) = looked_at([out])
    assert found["recovery"] == "", found
    assert found["recovered"]["kind"] == "incomplete"
    done, begun = let_out(out)
    assert (done + begun).startswith(seen)


def test_read_only_place(server: Server, tmp_path: Path) -> None:
    with disk(tmp_path / "disk", "16m") as place:
        out = place / "run.trace"
        recorder = server.start(out=str(out), module=guest("pipe_writer"), argv=[100000], slot_size=SLOT)
        recorder.read(time.monotonic() + 30, 9000)
        seen = recorder.kill().out
        remount(place, "ro")
        refused = server.run(out=str(place / "other.trace"), module=guest("pipe_writer"), argv=[1])
        assert (refused.code, refused.out, refused.err.count("\n")) == (126, b"", 1)
        assert "Read-only" in refused.err
        replayed = command("replay", out)
        assert replayed.returncode == 4, replayed.stderr
        recovered = command("recover", out)
        assert (recovered.returncode, recovered.stderr.count("\n")) == (127, 1), recovered.stderr
        assert "Read-only" in recovered.stderr
        remount(place, "rw")
        check_recovered_after_kill(out, seen)


def test_no_room_for_a_temporary_copy(server: Server, tmp_path: Path) -> None:
    out = tmp_path / "run.trace"
    recorder = server.start(out=str(out), module=guest("pipe_writer"), argv=[100000], slot_size=SLOT)
    recorder.read(time.monotonic() + 30, 60000)
    recorder.kill()
    for size in ("4k", "16k", "40k"):
        with disk(tmp_path / f"disk{size}", size) as place:
            done = command("replay", out, env={"TMPDIR": str(place)})
            assert done.returncode not in (0, 4, 70), done
            said = done.stdout + done.stderr
            assert said.count("\n") == 1, said
            assert "TMPDIR" in said, said
            assert not list(place.iterdir()), "the temporary copy was left behind"
    assert command("replay", out).returncode == 4


# -- who else is there ---------------------------------------------------------------------------------------------------


def test_two_recorders_on_one_path(server: Server, tmp_path: Path) -> None:
    out = tmp_path / "run.trace"
    first = server.start(out=str(out), module=guest("pipe_writer"), argv=[3000], slot_size=SLOT)
    first.read(time.monotonic() + 30, 100)
    with serving() as other:
        second = other.run(out=str(out), module=guest("pipe_writer"), argv=[3000], slot_size=SLOT)
    assert (second.code, second.out, second.err.count("\n")) == (126, b"", 1)
    assert "exists already" in second.err
    ended = first.end()
    assert ended.code == 0
    assert let_out(out) == (ended.out, b"")
    third = command("record", "-o", out, guest("pipe_writer"), "1")
    assert (third.returncode, third.stdout, third.stderr.count("\n")) == (126, "", 1)
