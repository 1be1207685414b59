"""Every preview1 function with any arguments: native and recorded agree on result, trap and all of memory, and so does a replay.

The oracle is plain wasmtime (`tests.native`). Both runs get their own fresh copy of one directory tree. Every step begins with
the whole memory set to a drawn image, so that what one call leaves behind (random bytes, times, inode numbers) cannot steer the
next; of those bytes only it is compared that they changed. The signatures are written out here once more, from the
specification, with what each parameter means; nothing is taken from the recorder's table.
"""

from __future__ import annotations

import os
import shutil
import struct
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from recorder.boundary.wasi_p1 import TABLE
from recorder.invocation import Invocation, Preopen
from recorder.python_host import Guest
from tests import harness
from tests.native import WASI, Ended, Native, World, redirected

SOAK = int(os.environ.get("REPRISE_EXAMPLES", "1"))
"""Multiplies the examples of every property here."""

PAGE = 65536
MILLISECOND = 1_000_000

# f fd, p pointer to an answer, s path pointer and length, v iovec list and count, b buffer and length, S subscriptions (pointer;
# its events' pointer and count follow), n number, F flags, o file offset, t time, c clock, w whence
SIGNATURES = {
    "args_get": "pp",
    "args_sizes_get": "pp",
    "environ_get": "pp",
    "environ_sizes_get": "pp",
    "clock_res_get": "cp",
    "clock_time_get": "ctp",
    "fd_advise": "fooF",
    "fd_allocate": "foo",
    "fd_close": "f",
    "fd_datasync": "f",
    "fd_fdstat_get": "fp",
    "fd_fdstat_set_flags": "fF",
    "fd_fdstat_set_rights": "ftt",
    "fd_filestat_get": "fp",
    "fd_filestat_set_size": "fo",
    "fd_filestat_set_times": "fttF",
    "fd_pread": "fvop",
    "fd_prestat_get": "fp",
    "fd_prestat_dir_name": "fb",
    "fd_pwrite": "fvop",
    "fd_read": "fvp",
    "fd_readdir": "fbop",
    "fd_renumber": "ff",
    "fd_seek": "fowp",
    "fd_sync": "f",
    "fd_tell": "fp",
    "fd_write": "fvp",
    "path_create_directory": "fs",
    "path_filestat_get": "fFsp",
    "path_filestat_set_times": "fFsttF",
    "path_link": "fFsfs",
    "path_open": "fFsFttFp",
    "path_readlink": "fsbp",
    "path_remove_directory": "fs",
    "path_rename": "fsfs",
    "path_symlink": "sfs",
    "path_unlink_file": "fs",
    "poll_oneoff": "Sp",
    "proc_exit": "n",
    "proc_raise": "n",
    "random_get": "b",
    "sched_yield": "",
    "sock_accept": "fFp",
    "sock_recv": "fvFpp",
    "sock_send": "fvFp",
    "sock_shutdown": "fF",
}
_TYPES = {"s": "i32 i32", "v": "i32 i32", "b": "i32 i32", "S": "i32 i32 i32", "o": "i64", "t": "i64"}


def types_of(name: str) -> list[str]:
    return [t for letter in SIGNATURES[name] for t in _TYPES.get(letter, "i32").split()]


def _result(name: str) -> str:
    return "" if name == "proc_exit" else "(result i32)"


def passing(memory: str = '(memory (export "memory") 1 2)') -> bytes:
    """Imports every function and exports each again; the guest itself does nothing."""
    lines = ["(module"]
    for name in SIGNATURES:
        kind = f"(param {' '.join(types_of(name))}) {_result(name)}"
        lines.append(f'(import "{WASI}" "{name}" (func ${name} {kind}))')
    lines.append(memory)
    for name in SIGNATURES:
        kind = f"(param {' '.join(types_of(name))}) {_result(name)}"
        arguments = " ".join(f"(local.get {i})" for i in range(len(types_of(name))))
        lines.append(f'(func (export "{name}") {kind} (call ${name} {arguments}))')
    return harness.assemble("\n".join([*lines, ")"]))


# -- the world both runs see -------------------------------------------------------------------------------------------------

ARGV = ("guest", "an argument", "", "ünïcode")
ENV = (("A", "1"), ("EMPTY", ""), ("LONG", "x" * 300))
STAMP = 1_600_000_000
_BIG = bytes(i * 31 % 251 for i in range(70_000))


def make_tree(root: Path) -> None:
    work, fixed = root / "work", root / "fixed"
    (work / "sub" / "deep").mkdir(parents=True)
    (work / "empty").mkdir()
    fixed.mkdir()
    (work / "a.txt").write_bytes(b"hello, world\n")
    (work / "big.bin").write_bytes(_BIG)
    (work / "sub" / "inner.txt").write_bytes(b"inner")
    (work / "link").symlink_to("a.txt")
    (work / "dangling").symlink_to("missing")
    (work / "loop").symlink_to("loop")
    (work / "outside").symlink_to("../../..")
    (fixed / "r.txt").write_bytes(b"read only")
    (root / "stdin").write_bytes(b"standard input, " * 40)
    for path in [*work.rglob("*"), work, fixed, fixed / "r.txt"]:
        os.utime(path, (STAMP, STAMP), follow_symlinks=False)


def tree(root: Path) -> list[tuple[Any, ...]]:
    """What can be seen of a directory tree, apart from times."""
    found: list[tuple[Any, ...]] = []
    for path in sorted(root.rglob("*")):
        name = str(path.relative_to(root))
        if path.is_symlink():
            found.append((name, "link", os.readlink(path)))
        elif path.is_dir():
            found.append((name, "directory"))
        else:
            with open(path, "rb") as file:
                found.append((name, "file", path.stat().st_size, file.read(1 << 20)))
    return found


@contextmanager
def worlds() -> Iterator[tuple[Path, Path, Path]]:
    """Two equal trees and a place for traces."""
    place = Path(tempfile.mkdtemp(prefix="reprise-wasi-"))
    try:
        for name in ("native", "recorded"):
            (place / name).mkdir()
            make_tree(place / name)
        yield place, place / "native", place / "recorded"
    finally:
        shutil.rmtree(place, ignore_errors=True)


def native_world(root: Path) -> World:
    return World(ARGV, ENV, [(root / "work", "/work", True), (root / "fixed", "/fixed", False)], root / "stdin")


def recorded_world(root: Path) -> Invocation:
    preopens = (Preopen(root / "work", "/work"), Preopen(root / "fixed", "/fixed", writable=False))
    return Invocation(ARGV, ENV, preopens, root / "stdin")


# -- steps -------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Step:
    """One call: the memory is `fill` everywhere, then `patches`, then the function is called."""

    name: str
    args: tuple[int, ...]
    patches: tuple[tuple[int, bytes], ...] = ()
    fill: int = 0

    def image(self, size: int = PAGE) -> bytes:
        memory = bytearray((bytes([self.fill]) if self.fill < 256 else bytes(range(256))) * size)[:size]
        for address, data in self.patches:
            if address < size:
                memory[address : address + len(data)] = data[: size - address]
        if self.name == "poll_oneoff":
            _never_long(memory, self.args[0], self.args[2])
        return bytes(memory)


def _never_long(memory: bytearray, subscriptions: int, count: int) -> None:
    """Bounds the timeout of every clock subscription in the image, so that no call sleeps; the bytes are drawn otherwise."""
    for i in range(min(count, PAGE // 48 + 1)):
        at = subscriptions + 48 * i
        if at + 48 > len(memory):
            return
        timeout = int.from_bytes(memory[at + 24 : at + 32], "little")
        memory[at + 24 : at + 32] = (timeout % MILLISECOND).to_bytes(8, "little")


def volatile(step: Step, after: bytes) -> list[tuple[int, int]]:
    """Ranges whose values no two runs share: times, random bytes, inode numbers, which events were first."""
    a = step.args
    if step.name == "clock_time_get":
        return [(a[2], 8)]
    if step.name == "random_get":
        return [(a[0], a[1])]
    if step.name in ("fd_filestat_get", "path_filestat_get"):
        stat = a[1] if step.name == "fd_filestat_get" else a[4]
        return [(stat + 8, 8), (stat + 40, 24)]
    if step.name == "poll_oneoff":
        return [(a[1], 32 * a[2]), (a[3], 4)]
    if step.name == "fd_readdir":
        ranges, at, end = [], a[1], min(a[1] + a[2], len(after))
        while at < end:
            ranges.append((at + 8, min(8, max(0, end - at - 8))))
            at += 24 + (int.from_bytes(after[at + 16 : at + 20], "little") if at + 20 <= end else end)
        return ranges
    return []


def same_memory(step: Step, before: bytes, native: bytes, recorded: bytes) -> None:
    assert len(native) == len(recorded)
    masked = bytearray(native), bytearray(recorded)
    for start, length in volatile(step, native):
        end = min(start + length, len(native))
        if start >= end:
            continue
        if (end - start >= 16 and step.name == "random_get") or (step.name == "clock_time_get" and end - start == 8):
            changed = native[start:end] != before[start:end], recorded[start:end] != before[start:end]
            assert changed[0] == changed[1], f"{step}: one run changed {start:#x}..{end:#x}, the other did not"
        for memory in masked:
            memory[start:end] = bytes(end - start)
    if masked[0] != masked[1]:
        at = harness.first_difference(*map(bytes, masked))
        pytest.fail(f"{step}: native has {native[at : at + 16].hex()} at {at:#x}, recorded {recorded[at : at + 16].hex()}")


def run_both(steps: Sequence[Step], slot_size: int, wasm: bytes | None = None) -> list[Ended]:
    """Runs the steps natively and recorded, compares after each, replays, and returns how each ended."""
    wasm = wasm or passing()
    with worlds() as (place, native_root, recorded_root):
        native = Native(wasm, native_world(native_root))
        ends: list[Ended] = []
        memories: list[bytes] = []
        with redirected(place / "native.out", place / "native.err"):
            assert native.link() == Ended("returned")
            for step in steps:
                native.write(0, step.image())
                ends.append(native.call(step.name, *step.args))
                memories.append(native.memory())

        def drive(guest: Guest) -> None:
            for step, end, memory in zip(steps, ends, memories, strict=True):
                image = step.image()
                guest.write(0, image)
                raw = list(step.args)

                def call(step: Step = step, raw: list[int] = raw) -> list[int]:
                    return guest.call_raw(step.name, raw)

                assert harness.outcome_of(call) == end, step
                same_memory(step, image, memory, guest.read(0, guest.memory_size()))

        with redirected(place / "recorded.out", place / "recorded.err"):
            recorded = harness.record(
                wasm, place / "a.trace", drive, invocation=recorded_world(recorded_root), slot_size=slot_size, watch=True
            )
        if recorded.outcome.kind != "returned":  # the driver's own assertion, which the recorder took for a host's exception
            raise AssertionError(recorded.outcome.message)
        for stream in ("out", "err"):
            assert (place / f"native.{stream}").read_bytes() == (place / f"recorded.{stream}").read_bytes()
        assert tree(native_root) == tree(recorded_root)
        shutil.rmtree(recorded_root)
        harness.check(recorded)
        return ends


# -- drawing steps -------------------------------------------------------------------------------------------------------------

_EDGES = (0, 1, 3, 8, 64, 4096, PAGE - 64, PAGE - 24, PAGE - 8, PAGE - 4, PAGE - 3, PAGE - 2, PAGE - 1, PAGE, PAGE + 4)
_FAR = (0x7FFF_FFFF, 0x8000_0000, 0xFFFF_0000, 0xFFFF_FFF8, 0xFFFF_FFFF)
_LENGTHS = (0, 1, 2, 3, 4, 8, 24, 31, 64, 100, 600, 4096, PAGE - 1, PAGE, PAGE + 1, 0x8000_0000, 0xFFFF_FFFF)
_PATHS = (
    b"a.txt", b"big.bin", b"sub", b"sub/inner.txt", b"sub/", b"a.txt/", b"link", b"dangling", b"loop", b"outside/etc", b"empty",
    b"new", b"sub/new", b"sub/deep", b"missing/x", b".", b"..", b"../work/a.txt", b"", b"/", b"/work/a.txt", b"nul\0name",
    b"\xff\xfe", b"r.txt", "ünïcode".encode(), b"x" * 300, b"y/" * 3000,
)  # fmt: skip
_OFFSETS = (0, 1, 5, 13, 4096, 70_000, 100_000, (1 << 63) - 1, 1 << 63, (1 << 64) - 1, (1 << 64) - 5)
_FDS = (3, 3, 3, 4, 5, 5, 6, 6, 7, 7, 0, 1, 2, 8, 9, 10, 100, 0x7FFF_FFFF, 0xFFFF_FFFF)

OPENED = (
    # fd 5: a.txt for everything; fd 6: big.bin for reading; fd 7: the directory sub
    Step("path_open", (3, 1, 100, 5, 0, (1 << 30) - 1, (1 << 30) - 1, 0, 200), ((100, b"a.txt"),)),
    Step("path_open", (3, 1, 100, 7, 0, 0x2 | 0x4 | 0x20 | 0x200000, 0, 0, 200), ((100, b"big.bin"),)),
    Step("path_open", (3, 1, 100, 3, 2, 0x4_6000, (1 << 30) - 1, 0, 200), ((100, b"sub"),)),
)


@st.composite
def steps_of(draw: st.DrawFn, names: Sequence[str]) -> Step:
    """A call of one of `names`. Pointers come from a small pool, so that ranges meet and overlap often."""
    name = draw(st.sampled_from(names))
    near = st.integers(0, PAGE - 1)
    pool = draw(st.lists(st.one_of(near, st.sampled_from(_EDGES)), min_size=2, max_size=3))
    nudge = st.sampled_from((0, 0, 0, 4, 8, -8, -4, 1, 16, 48))
    in_pool = st.builds(lambda base, by: max(0, base + by), st.sampled_from(pool), nudge)
    pointer = st.one_of(in_pool, in_pool, in_pool, st.sampled_from((*_EDGES, *_FAR)))
    length = st.one_of(st.sampled_from(_LENGTHS), st.integers(0, 300))
    patches: list[tuple[int, bytes]] = []
    args: list[int] = []
    for letter in SIGNATURES[name]:
        if letter == "f":
            args.append(draw(st.sampled_from(_FDS)))
        elif letter == "p":
            args.append(draw(pointer))
        elif letter == "b":
            args += [draw(pointer), draw(length)]
        elif letter == "s":
            at, path = draw(pointer), draw(st.sampled_from(_PATHS))
            patches.append((at, path))
            args += [at, draw(st.one_of(st.just(len(path)), st.just(len(path)), st.just(len(path)), length))]
        elif letter == "v":
            at = draw(pointer)
            vectors = draw(st.lists(st.tuples(pointer, length), max_size=5))
            times = draw(st.sampled_from((1, 1, 1, 1, 1, 1, 130, 600))) if vectors else 1
            patches.append((at, b"".join(struct.pack("<II", *v) for v in vectors) * times))
            args += [at, draw(st.one_of(st.just(len(vectors) * times), st.just(len(vectors) * times), length))]
        elif letter == "S":
            at = draw(pointer)
            subscriptions = draw(st.lists(_subscription, max_size=4))
            patches.append((at, b"".join(subscriptions)))
            args += [at, draw(pointer), draw(st.one_of(st.just(len(subscriptions)), st.just(len(subscriptions)), length))]
        elif letter == "o":
            args.append(draw(st.sampled_from(_OFFSETS)))
        elif letter == "t":
            args.append(draw(st.sampled_from((0, 1, STAMP * 10**9, 0x3FFF_FFFF, 0x2, 0x20, 0x42, (1 << 63), (1 << 64) - 1))))
        elif letter == "c":
            args.append(draw(st.sampled_from((0, 1, 2, 3, 4, 0xFFFF_FFFF))))
        elif letter == "w":
            args.append(draw(st.sampled_from((0, 1, 2, 3, 0xFF))))
        elif letter == "n":
            args.append(draw(st.sampled_from((0, 1, 3, 125, 126, 255, 0x8000_0000, 0xFFFF_FFFF))))
        else:
            args.append(draw(st.sampled_from((0, 0, 0, 1, 2, 4, 8, 5, 9, 0xFF, 0xFFFF_FFFF))))
    return Step(name, tuple(args), tuple(patches), draw(st.sampled_from((0, 0, 0x41, 0xFF, 256))))


_subscription = st.one_of(
    st.builds(
        lambda user, clock, timeout, flags: struct.pack("<QB7xI4xQQH6x", user, 0, clock, timeout, 0, flags),
        st.integers(0, (1 << 64) - 1),
        st.sampled_from((0, 1, 2, 9)),
        st.sampled_from((0, 1, 500, MILLISECOND - 1)),
        st.sampled_from((0, 1, 2)),
    ),
    st.builds(
        lambda user, tag, fd: struct.pack("<QB7xI28x", user, tag, fd),
        st.integers(0, (1 << 64) - 1),
        st.sampled_from((1, 2, 2, 3)),
        st.sampled_from(_FDS),
    ),
    st.binary(min_size=48, max_size=48),
)

_QUICK = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
_SLOTS = st.sampled_from((1 << 20, 1 << 20, 1 << 16, 1 << 14))


@pytest.mark.parametrize("name", SIGNATURES)
@settings(_QUICK, max_examples=3 * SOAK)
@given(st.data())
def test_a_function_with_any_arguments_is_the_same_recorded_and_replayed(name: str, data: st.DataObject) -> None:
    steps = data.draw(st.lists(steps_of([name]), min_size=4, max_size=12))
    run_both([*OPENED, *steps], data.draw(_SLOTS))


@settings(_QUICK, max_examples=30 * SOAK)
@given(st.lists(steps_of(list(SIGNATURES)), min_size=6, max_size=16), _SLOTS)
def test_any_sequence_of_calls_is_the_same_recorded_and_replayed(steps: list[Step], slot_size: int) -> None:
    run_both([*OPENED, *steps], slot_size)


@pytest.mark.soak
@settings(_QUICK, max_examples=2000)
@given(st.lists(steps_of(list(SIGNATURES)), min_size=10, max_size=30), _SLOTS)
def test_long_sequences_of_calls_are_the_same_recorded_and_replayed(steps: list[Step], slot_size: int) -> None:
    run_both([*OPENED, *steps], slot_size)


def test_the_recorder_knows_every_function_with_its_type() -> None:
    assert {n: list(f.params) for n, f in TABLE.items()} == {n: types_of(n) for n in SIGNATURES}
    assert len(SIGNATURES) == 46 - 1 + 1


# -- one sensible call of each ---------------------------------------------------------------------------------------------

P, BUF, OUT = 104, 1000, 2000
ALL = (1 << 30) - 1


def _vectors(*pairs: tuple[int, int]) -> bytes:
    return b"".join(struct.pack("<II", *p) for p in pairs)


def _clock(timeout: int, user: int = 7) -> bytes:
    return struct.pack("<QB7xI4xQQH6x", user, 0, 1, timeout, 0, 0)


SENSIBLE: dict[str, Step] = {
    s.name: s
    for s in (
        Step("args_get", (BUF, OUT)),
        Step("args_sizes_get", (BUF, OUT)),
        Step("environ_get", (BUF, OUT)),
        Step("environ_sizes_get", (BUF, OUT)),
        Step("clock_res_get", (1, OUT)),
        Step("clock_time_get", (0, 1, OUT)),
        Step("fd_advise", (5, 0, 10, 0)),
        Step("fd_allocate", (5, 0, 100)),
        Step("fd_close", (5,)),
        Step("fd_datasync", (5,)),
        Step("fd_fdstat_get", (5, OUT)),
        Step("fd_fdstat_set_flags", (5, 1)),
        Step("fd_fdstat_set_rights", (5, 2, 0)),
        Step("fd_filestat_get", (5, OUT)),
        Step("fd_filestat_set_size", (5, 4)),
        Step("fd_filestat_set_times", (5, 5_000_000_000, 6_000_000_000, 5)),
        Step("fd_pread", (6, P, 2, 7, OUT), ((P, _vectors((BUF, 10), (BUF + 100, 20))),)),
        Step("fd_prestat_get", (3, OUT)),
        Step("fd_prestat_dir_name", (3, BUF, 5)),
        Step("fd_pwrite", (5, P, 2, 3, OUT), ((P, _vectors((BUF, 3), (BUF + 100, 2))), (BUF, b"abc"), (BUF + 100, b"de"))),
        Step("fd_read", (6, P, 2, OUT), ((P, _vectors((BUF, 10), (BUF + 100, 20))),)),
        Step("fd_readdir", (3, BUF, 512, 0, OUT)),
        Step("fd_renumber", (6, 5)),
        Step("fd_seek", (5, 3, 0, OUT)),
        Step("fd_sync", (5,)),
        Step("fd_tell", (5, OUT)),
        Step("fd_write", (1, P, 2, OUT), ((P, _vectors((BUF, 6), (BUF + 100, 2))), (BUF, b"hello "), (BUF + 100, b"u\n"))),
        Step("path_create_directory", (3, P, 3), ((P, b"new"),)),
        Step("path_filestat_get", (3, 1, P, 4, OUT), ((P, b"link"),)),
        Step("path_filestat_set_times", (3, 0, P, 5, 5_000_000_000, 6_000_000_000, 5), ((P, b"a.txt"),)),
        Step("path_link", (3, 0, P, 5, 3, P + 50, 4), ((P, b"a.txt"), (P + 50, b"hard"))),
        Step("path_open", (3, 1, P, 3, 1, ALL, ALL, 0, OUT), ((P, b"new"),)),
        Step("path_readlink", (3, P, 4, BUF, 100, OUT), ((P, b"link"),)),
        Step("path_remove_directory", (3, P, 5), ((P, b"empty"),)),
        Step("path_rename", (3, P, 5, 3, P + 50, 4), ((P, b"a.txt"), (P + 50, b"b.tx"))),
        Step("path_symlink", (P, 5, 3, P + 50, 4), ((P, b"a.txt"), (P + 50, b"soft"))),
        Step("path_unlink_file", (3, P, 5), ((P, b"a.txt"),)),
        Step("poll_oneoff", (P, BUF, 1, OUT), ((P, _clock(1000)),)),
        Step("proc_exit", (3,)),
        Step("proc_raise", (6,)),
        Step("random_get", (BUF, 32)),
        Step("sched_yield", ()),
        Step("sock_accept", (5, 0, OUT)),
        Step("sock_recv", (5, P, 1, 0, OUT, OUT + 8), ((P, _vectors((BUF, 10))),)),
        Step("sock_send", (5, P, 1, 0, OUT), ((P, _vectors((BUF, 10))),)),
        Step("sock_shutdown", (5, 1)),
    )
}
FAILS_HERE = {"fd_allocate", "fd_fdstat_set_rights", "proc_raise", "sock_accept", "sock_recv", "sock_send", "sock_shutdown"}
"""Which the engine does not support at all, or not for files."""


@pytest.mark.parametrize("name", SIGNATURES)
def test_a_sensible_call_is_the_same_recorded_and_replayed(name: str) -> None:
    ends = run_both([*OPENED, SENSIBLE[name]], 1 << 16)
    expected = Ended("exit", code=3) if name == "proc_exit" else None
    assert [e.values for e in ends[:3]] == [(0,)] * 3
    if expected is not None:
        assert ends[3] == expected
    else:
        assert ends[3].kind in ("returned", "trap")
        assert (ends[3].values == (0,)) == (name not in FAILS_HERE), ends[3]


LAST = PAGE - 8
LONG = _vectors(*[(BUF + i, 1) for i in range(600)])

AWKWARD = {
    "read: the list lies in its own buffer": Step("fd_read", (6, BUF, 3, OUT), ((BUF, _vectors((BUF, 40), (3000, 5), (0, 1))),)),
    "read: nread lies in the buffer": Step("fd_read", (6, P, 1, BUF + 2), ((P, _vectors((BUF, 40))),)),
    "read: nread lies in the list": Step("fd_read", (6, P, 1, P), ((P, _vectors((BUF, 40))),)),
    "read: nread is out of bounds": Step("fd_read", (6, P, 1, PAGE - 2), ((P, _vectors((BUF, 40))),)),
    "read: list overwritten, nread out of bounds": Step("fd_read", (6, P, 1, PAGE), ((P, _vectors((P - 8, 40))),)),
    "pread: list overwritten, nread out of bounds": Step("fd_pread", (6, P, 1, 9, PAGE), ((P, _vectors((P - 8, 40))),)),
    "read: unaligned nread": Step("fd_read", (6, P, 1, OUT + 1), ((P, _vectors((BUF, 40))),)),
    "read: unaligned list": Step("fd_read", (6, P + 1, 1, OUT), ((P + 1, _vectors((BUF, 40))),)),
    "read: buffer to the last byte": Step("fd_read", (6, P, 1, OUT), ((P, _vectors((PAGE - 40, 40))),)),
    "read: buffer past the last byte": Step("fd_read", (6, P, 1, OUT), ((P, _vectors((PAGE - 40, 41))),)),
    "read: second buffer out of bounds": Step("fd_read", (6, P, 2, OUT), ((P, _vectors((BUF, 5), (PAGE, 5))),)),
    "read: empty buffers first": Step("fd_read", (6, P, 3, OUT), ((P, _vectors((0, 0), (PAGE + 9, 0), (BUF, 8))),)),
    "read: huge buffer": Step("fd_read", (6, P, 1, OUT), ((P, _vectors((0, 0xFFFF_FFFF))),)),
    "read: the whole memory": Step("fd_read", (6, P, 1, OUT), ((P, _vectors((0, PAGE))),)),
    "read: 600 buffers": Step("fd_read", (6, 8192, 600, OUT), ((8192, LONG),)),
    "read: 600 buffers, nread out of bounds": Step("fd_read", (6, 8192, 600, PAGE), ((8192, LONG),)),
    "read: 600 buffers, list overwritten, nread out of bounds": Step(
        "fd_read", (6, 8192, 600, PAGE), ((8192, _vectors(*[(8192 - 100, 5000)] * 600)),)
    ),
    "read: 512 buffers": Step("fd_read", (6, 8192, 512, OUT), ((8192, LONG),)),
    "read: 513 buffers": Step("fd_read", (6, 8192, 513, OUT), ((8192, LONG),)),
    "read: four thousand million buffers": Step("fd_read", (6, 8192, 0xFFFF_FFFF, OUT), ((8192, LONG),)),
    "read: list at the last byte": Step("fd_read", (6, LAST, 1, OUT), ((LAST, _vectors((BUF, 5))),)),
    "read: list half out of bounds": Step("fd_read", (6, PAGE - 4, 1, OUT)),
    "read: overlapping buffers": Step("fd_pread", (6, P, 2, 0, OUT), ((P, _vectors((BUF, 50), (BUF + 10, 50))),)),
    "read: not a file": Step("fd_read", (7, P, 1, OUT), ((P, _vectors((BUF, 50))),)),
    "pread: negative offset": Step("fd_pread", (6, P, 1, (1 << 64) - 1, OUT), ((P, _vectors((BUF, 50))),)),
    "write: 600 buffers": Step("fd_write", (1, 8192, 600, OUT), ((8192, LONG),), 0x41),
    "write: nwritten in the buffer": Step("fd_write", (1, P, 1, BUF), ((P, _vectors((BUF, 50))),), 0x42),
    "write: nwritten out of bounds": Step("fd_write", (1, P, 1, PAGE), ((P, _vectors((BUF, 50))),), 0x43),
    "write: everything": Step("fd_write", (1, P, 1, OUT), ((P, _vectors((0, PAGE))),), 0x44),
    "write: everything to a file": Step("fd_write", (5, P, 1, OUT), ((P, _vectors((0, PAGE))),), 0x45),
    "write: list is also the payload": Step("fd_write", (1, P, 1, P), ((P, _vectors((P, 8))),)),
    "readdir: not enough room": Step("fd_readdir", (3, BUF, 30, 0, OUT)),
    "readdir: no room": Step("fd_readdir", (3, BUF, 0, 0, OUT)),
    "readdir: into the last byte": Step("fd_readdir", (3, PAGE - 60, 60, 0, OUT)),
    "readdir: out of bounds": Step("fd_readdir", (3, PAGE - 60, 61, 0, OUT)),
    "readdir: from a cookie": Step("fd_readdir", (3, BUF, 512, 2, OUT)),
    "readdir: from a cookie that is none": Step("fd_readdir", (3, BUF, 512, 1 << 62, OUT)),
    "readdir: used in the buffer": Step("fd_readdir", (3, BUF, 512, 0, BUF + 8)),
    "readdir: used out of bounds": Step("fd_readdir", (3, BUF, 512, 0, PAGE)),
    "readlink: too short": Step("path_readlink", (3, P, 4, BUF, 2, OUT), ((P, b"link"),)),
    "readlink: used in the path": Step("path_readlink", (3, P, 4, BUF, 9, P), ((P, b"link"),)),
    "readlink: over its own path": Step("path_readlink", (3, P, 4, P, 9, OUT), ((P, b"link"),)),
    "readlink: used out of bounds": Step("path_readlink", (3, P, 4, BUF, 9, PAGE), ((P, b"link"),)),
    "random: to the last byte": Step("random_get", (PAGE - 32, 32)),
    "random: past the last byte": Step("random_get", (PAGE - 32, 33)),
    "random: everything": Step("random_get", (0, PAGE)),
    "random: nothing": Step("random_get", (PAGE, 0)),
    "random: far away": Step("random_get", (0xFFFF_FFFF, 0xFFFF_FFFF)),
    "clock: unaligned": Step("clock_time_get", (0, 1, OUT + 1)),
    "clock: half out of bounds": Step("clock_time_get", (0, 1, PAGE - 4)),
    "clock: at the last byte": Step("clock_time_get", (0, 1, PAGE - 8)),
    "args: strings over the pointers": Step("args_get", (BUF, BUF)),
    "args: pointers over the strings": Step("args_get", (BUF + 4, BUF)),
    "args: out of bounds half way": Step("args_get", (BUF, PAGE - 8)),
    "args: pointers out of bounds": Step("args_get", (PAGE - 4, BUF)),
    "environ: out of bounds half way": Step("environ_get", (BUF, PAGE - 20)),
    "environ sizes: the same place twice": Step("environ_sizes_get", (OUT, OUT)),
    "environ sizes: second out of bounds": Step("environ_sizes_get", (OUT, PAGE)),
    "prestat: longer than the name": Step("fd_prestat_dir_name", (3, BUF, 400)),
    "prestat: shorter than the name": Step("fd_prestat_dir_name", (3, BUF, 3)),
    "poll: nothing": Step("poll_oneoff", (P, BUF, 0, OUT)),
    "poll: events over the subscriptions": Step("poll_oneoff", (P, P, 2, OUT), ((P, _clock(0) + _clock(1, 8)),)),
    "poll: number of events in the events": Step("poll_oneoff", (P, BUF, 1, BUF), ((P, _clock(0)),)),
    "poll: number of events out of bounds": Step("poll_oneoff", (P, BUF, 1, PAGE), ((P, _clock(0)),)),
    "poll: events out of bounds": Step("poll_oneoff", (P, PAGE - 8, 1, OUT), ((P, _clock(0)),)),
    "poll: too many": Step("poll_oneoff", (P, BUF, 0x0800_0000, OUT)),
    "filestat: half out of bounds": Step("fd_filestat_get", (5, PAGE - 32)),
    "path: bytes that are not text": Step("path_open", (3, 1, P, 2, 1, ALL, ALL, 0, OUT), ((P, b"\xff\xfe"),)),
    "path: length out of bounds": Step("path_open", (3, 1, P, PAGE, 1, ALL, ALL, 0, OUT), ((P, b"new"),)),
    "path: opened, its number out of bounds": Step("path_open", (3, 1, P, 3, 1, ALL, ALL, 0, PAGE), ((P, b"new"),)),
    "path: opened, its number over the path": Step("path_open", (3, 1, P, 3, 1, ALL, ALL, 0, P), ((P, b"new"),)),
    "exit: 0": Step("proc_exit", (0,)),
    "exit: 125": Step("proc_exit", (125,)),
    "exit: 126 is refused": Step("proc_exit", (126,)),
    "exit: huge": Step("proc_exit", (0xFFFF_FFFF,)),
}


AFTERWARDS = (Step("fd_tell", (6, OUT)), SENSIBLE["fd_read"], SENSIBLE["fd_readdir"])
"""What an awkward call did to files and descriptors must be the same too."""


@pytest.mark.parametrize("case", AWKWARD)
def test_an_awkward_call_is_the_same_recorded_and_replayed(case: str) -> None:
    run_both([*OPENED, AWKWARD[case], *AFTERWARDS], 1 << 13)


def test_all_awkward_calls_in_a_row_are_the_same_recorded_and_replayed() -> None:
    run_both([*OPENED, *(step for case in AWKWARD.values() for step in (case, *AFTERWARDS))], 1 << 20)


# -- odd callers -------------------------------------------------------------------------------------------------------------


def _clock_guest(memory: str) -> bytes:
    return harness.assemble(
        f"""(module
        (import "{WASI}" "clock_time_get" (func $clock (param i32 i64 i32) (result i32)))
        (import "{WASI}" "random_get" (func $random (param i32 i32) (result i32)))
        (import "{WASI}" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
        {memory}
        (func (export "clock") (result i32) (call $clock (i32.const 1) (i64.const 1) (i32.const 64)))
        (func (export "random") (result i32) (call $random (i32.const 128) (i32.const 32)))
        (func (export "write") (result i32) (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 40))))"""
    )


@pytest.mark.parametrize(
    ("memory", "works"),
    [
        ("", False),
        ("(memory 1)", False),
        ('(memory (export "other") 1)', False),
        ('(func (export "memory"))', False),
        ('(memory (export "memory") i64 1)', True),
        ('(memory 1) (memory (export "memory") 1)', True),
        ('(memory (export "other") 1) (memory (export "memory") 1)', True),
        ('(memory (export "memory") (export "again") 1)', True),
        ('(memory (export "memory") 0)', False),
    ],
)
def test_the_memory_native_wasi_asks_for_is_found_or_missed_alike(memory: str, works: bool, tmp_path: Path) -> None:
    wasm = _clock_guest(memory)
    native = Native(wasm)
    with redirected(tmp_path / "out"):
        assert native.link() == Ended("returned")
        ends = [native.call(name) for name in ("clock", "random", "write")]

    def drive(guest: Guest) -> None:
        for name, end in zip(("clock", "random", "write"), ends, strict=True):

            def call(name: str = name) -> list[int]:
                return guest.call_raw(name, [])

            assert harness.outcome_of(call) == end, name

    with redirected(tmp_path / "out2"):
        recorded = harness.record(wasm, tmp_path / "a.trace", drive, watch=True)
    assert recorded.outcome.kind == "returned", recorded.outcome
    assert {e.kind for e in ends} == ({"returned"} if works else {"trap"})
    harness.check(recorded)


@pytest.mark.parametrize(("offset", "nread", "kind"), [((1 << 64) - 1, OUT, "returned"), (0, 4 * PAGE, "trap")])
def test_a_failing_read_into_overlapping_buffers_is_not_recorded_once_for_each(
    offset: int, nread: int, kind: str, tmp_path: Path
) -> None:
    """A guest must not be able to fill the disk with calls that fail: 512 buffers, each of them all of memory."""
    wasm = passing('(memory (export "memory") 4 4)')
    ends: list[Ended] = []
    with worlds() as (_, _, root):

        def drive(guest: Guest) -> None:
            for step in OPENED:
                guest.write(0, step.image())
                guest.call_raw(step.name, list(step.args))
            guest.write(8192, _vectors((0, 4 * PAGE)) * 512)
            ends.append(harness.outcome_of(lambda: guest.call_raw("fd_pread", [6, 8192, 512, offset, nread])))
            guest.read(0, 4 * PAGE)

        recorded = harness.record(wasm, tmp_path / "a.trace", drive, invocation=recorded_world(root), watch=True)
    assert ends[0].kind == kind
    assert ends[0].values != (0,)
    assert recorded.recording.manifest.totals["bytes"] < 16 * 4 * PAGE
    harness.check(recorded)


def test_bytes_written_through_many_buffers_are_in_the_trace(tmp_path: Path) -> None:
    """What left the guest is evidence, however it was cut up."""
    step = Step("fd_write", (1, 8192, 600, OUT), ((8192, LONG), (BUF, b"evidence")))
    with worlds() as (place, _, root):

        def drive(guest: Guest) -> None:
            guest.write(0, step.image())
            guest.call_raw("fd_write", list(step.args))

        with redirected(place / "out"):
            recorded = harness.record(passing(), tmp_path / "a.trace", drive, invocation=recorded_world(root))
        written = (place / "out").read_bytes()
    assert written
    calls = [r for r in harness.Forged(recorded.directory).rows if r.kind == 1]
    from traces.layout import CHUNK_SENT

    sent = b""
    for row in calls:
        at = 20
        while at < len(row.body):
            address, word = struct.unpack_from("<II", row.body, at)
            length = word & 0xFFFFFF
            if word & CHUNK_SENT and address != 8192:
                sent += row.body[at + 8 : at + 8 + length]
            at += 8 + (length + 3 & ~3)
    assert sent.startswith(written), f"{len(written)} bytes left the guest, {len(sent)} of them are recorded"
