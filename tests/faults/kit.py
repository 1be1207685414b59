"""What the tests of faults share: recorders to start and kill, and an eye on traces that shares no code with the recorder.

The codes and offsets below are written out a second time on purpose (from docs/format.md): a test that read them from
`traces.layout` could not find a mistake in it.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

ROOT = Path(__file__).resolve().parents[2]
GUESTS = ROOT / "tests" / "guests"
HERE = Path(__file__).resolve().parent
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}

CALL, RETURN, EXPORT, CALLBACK, POKE, GROWTH, DATA, TRAP, EXIT, STOP, GROW_FAILED = 1, 2, 3, 4, 5, 6, 9, 10, 11, 12, 13
OPEN, COMPLETE = 0, 1


def guest(name: str) -> str:
    return str(GUESTS / f"{name}.wasm")


# -- recorders -----------------------------------------------------------------------------------------------------------


@dataclass
class Ended:
    """A recorder that has ended."""

    code: int
    """Exit code, or minus the signal."""
    out: bytes
    err: str
    seconds: float = 0.0
    """From the signal or the start to the end."""
    rss: int = 0
    """Peak resident bytes."""


class Recorder:
    """A recorder that runs; what it lets out is read by the test and nobody else."""

    def __init__(self, server: Server, pid: int, out: int, err: int) -> None:
        self.server, self.pid = server, pid
        self._out, self._err = out, err
        self.seen = bytearray()
        self.began = time.monotonic()
        self.ended = False

    def read(self, deadline: float, enough: int | None = None) -> bool:
        """Reads until the deadline, or until that many bytes were seen; False at the end of the stream."""
        while enough is None or len(self.seen) < enough:
            left = deadline - time.monotonic()
            if left <= 0:
                return True
            if not select.select([self._out], [], [], left)[0]:
                return True
            data = os.read(self._out, 1 << 16 if enough is None else min(1 << 16, enough - len(self.seen)))
            if not data:
                return False
            self.seen += data
        return True

    def until(self, text: bytes, seconds: float = 20.0) -> None:
        deadline = time.monotonic() + seconds
        while text not in self.seen:
            assert time.monotonic() < deadline, f"{text!r} was not written; seen {bytes(self.seen[-200:])!r}"
            assert self.read(min(deadline, time.monotonic() + 0.05)) or text in self.seen, f"ended before {text!r}"

    def signal(self, number: int) -> None:
        self.began = time.monotonic()
        os.kill(self.pid, number)

    def kill(self) -> Ended:
        os.kill(self.pid, signal.SIGKILL)
        return self.end()

    def end(self, seconds: float = 60.0) -> Ended:
        """Reads everything to the end; the process must have ended by then."""
        deadline = time.monotonic() + seconds
        while self.read(min(deadline, time.monotonic() + 0.5)):
            if time.monotonic() >= deadline:
                os.kill(self.pid, signal.SIGKILL)
                self.server.wait(self.pid)
                raise AssertionError(f"the recorder did not end within {seconds} s; seen {bytes(self.seen[-200:])!r}")
        os.close(self._out)
        status, rss = self.server.wait(self.pid)
        took = time.monotonic() - self.began
        self.ended = True
        os.lseek(self._err, 0, os.SEEK_SET)
        with open(self._err, encoding="utf-8", errors="replace") as file:
            err = file.read()
        return Ended(os.waitstatus_to_exitcode(status), bytes(self.seen), err, took, rss * 1024)


class Server:
    """Forks recorders from one warm process. Not thread-safe: one for each thread."""

    def __init__(self) -> None:
        self._link, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._process = subprocess.Popen(
            [sys.executable, "-B", str(HERE / "driver.py"), "--serve", str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            cwd="/",
            env=ENVIRONMENT,
        )
        theirs.close()

    def start(self, **spec: Any) -> Recorder:
        mine, theirs = os.pipe()
        err = os.memfd_create("stderr")
        socket.send_fds(self._link, [json.dumps(spec).encode()], [theirs, err])
        os.close(theirs)
        return Recorder(self, int(json.loads(self._link.recv(1 << 16))), mine, err)

    def run(self, **spec: Any) -> Ended:
        return self.start(**spec).end()

    def wait(self, pid: int) -> tuple[int, int]:
        self._link.send(json.dumps({"wait": pid}).encode())
        status, rss = json.loads(self._link.recv(1 << 16))
        return int(status), int(rss)

    def close(self) -> None:
        self._link.close()
        assert self._process.wait(10) == 0


@contextlib.contextmanager
def serving() -> Iterator[Server]:
    server = Server()
    try:
        yield server
    finally:
        server.close()


def command(*words: str | Path, env: dict[str, str] | None = None, **more: Any) -> subprocess.CompletedProcess[str]:
    """The command line, in a process of its own."""
    return subprocess.run(
        [sys.executable, "-B", "-m", "reprise", *map(str, words)],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env={**ENVIRONMENT, **(env or {})},
        **more,
    )


def looked_at(directories: Sequence[Path]) -> list[dict[str, Any]]:
    """What `look.py` finds, in a fresh process."""
    if not directories:
        return []
    done = subprocess.run(
        [sys.executable, "-B", str(HERE / "look.py"), *map(str, directories)],
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
        env=ENVIRONMENT,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


_MEASURE = """
import os, sys
child = os.fork()
if child == 0:
    nowhere = os.open(os.devnull, os.O_RDWR)
    for n in (0, 1, 2): os.dup2(nowhere, n)
    os.execv(sys.executable, [sys.executable, "-B", *sys.argv[1:]])
_, status, used = os.wait4(child, 0)
print(os.waitstatus_to_exitcode(status), used.ru_maxrss)
"""


def measured(*words: str | Path) -> tuple[int, int]:
    """Exit code and peak resident bytes of a Python command; its output goes nowhere.

    Through a small process in between: a peak is inherited from whoever spawned, and a test process is large.
    """
    done = subprocess.run(
        [sys.executable, "-S", "-E", "-c", _MEASURE, *map(str, words)],
        capture_output=True,
        text=True,
        check=True,
        timeout=600,
        env=ENVIRONMENT,
    )
    code, kilobytes = map(int, done.stdout.split())
    return code, kilobytes * 1024


# -- looking at traces -----------------------------------------------------------------------------------------------------


@dataclass
class Seen:
    """One record, decoded here."""

    kind: int
    index: int
    status: int
    body: bytes


def records(trace: Path) -> list[Seen]:
    """Every record of a finished trace, in order."""
    found = []
    with pq.ParquetFile(trace / "events.parquet") as file:
        for group in range(file.metadata.num_row_groups):
            for data in file.read_row_group(group, columns=["record"]).column("record").to_pylist():
                size, index, kind, status, _ = struct.unpack_from("<IHBBI", data)
                assert size == len(data) and size % 4 == 0
                found.append(Seen(kind, index, status, data[12:]))
    return found


def chunks(body: bytes, at: int) -> Iterator[tuple[bool, int, bytes]]:
    """(sent, address, bytes) of each chunk behind the fixed part; facts about the call left out."""
    while at < len(body):
        address, word = struct.unpack_from("<II", body, at)
        at += 8
        if word >> 30 & 1:
            address |= struct.unpack_from("<I", body, at)[0] << 32
            at += 4
        length = word & 0xFFFFFF
        assert at + length <= len(body)
        if word >> 24 & 0x3F != 63:
            yield bool(word >> 31), address, body[at : at + length]
        at += (length + 3) & ~3
    assert at == len(body)


def manifest(trace: Path) -> dict[str, Any]:
    data: dict[str, Any] = json.loads((trace / "manifest.json").read_text())
    return data


def let_out(trace: Path, descriptor: int = 1) -> tuple[bytes, bytes]:
    """What the guest's fd_write calls put out on a descriptor: by calls known to have ended, and by one that had only begun.

    Follows the iovec list as recorded, not the interposer's order of chunks: the first chunk is the list itself.
    """
    imports = manifest(trace)["imports"]
    write = next(i for i, e in enumerate(imports) if e["name"] == "fd_write")
    done, begun = bytearray(), bytearray()
    rows = records(trace)
    for n, row in enumerate(rows):
        if row.kind != CALL or row.index != write:
            continue
        fd, _, count, where = struct.unpack_from("<IIII", row.body)
        if fd != descriptor:
            continue
        parts = list(chunks(row.body, 20))
        errno, ended = struct.unpack_from("<I", row.body, 16)[0], row.status == COMPLETE
        after = n + 1
        while not ended and after < len(rows) and rows[after].kind in (DATA, RETURN):
            later = rows[after]
            after += 1
            if later.kind == RETURN:
                errno, ended = struct.unpack_from("<I", later.body)[0], True
            parts += chunks(later.body, 4 if later.kind == RETURN else 0)
        sent = [data for out, _, data in parts if out]
        payload = b"".join(sent)[8 * count :]
        if not ended:
            assert after == len(rows), "an open call that is not the last"
            begun += payload
        elif errno == 0:
            (accepted,) = next(struct.unpack("<I", data) for out, at, data in parts if not out and at == where)
            done += payload[:accepted]
    return bytes(done), bytes(begun)


def well_nested(rows: Sequence[Seen]) -> int:
    """Checks that what was opened closes innermost first; returns how many records are open at the end."""
    stack: list[Seen] = []
    for row in rows:
        if row.kind in (CALL, EXPORT, CALLBACK):
            if row.status == OPEN:
                stack.append(row)
        elif row.kind == RETURN:
            opened = stack.pop()
            assert row.index == (opened.index if opened.kind == CALL else 0xFFFF), "a return of another call"
        elif row.kind in (TRAP, EXIT, STOP):
            while stack.pop().kind == CALL:
                pass
    return len(stack)


def threads_of(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/task"))
