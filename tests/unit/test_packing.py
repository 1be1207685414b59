"""A trace as one file: the same bytes every time, and nothing unpacked that a pack does not write."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import pytest

from traces._errors import RepriseError, TraceError, UsageError
from traces.packing import pack, unpack

FILES = {"manifest.json": b"{}", "module.wasm": b"\0asm", "events.parquet": b"PAR1" * 1000, "states.parquet": b""}


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    path = tmp_path / "a.trace"
    path.mkdir()
    for name, data in FILES.items():
        (path / name).write_bytes(data)
    return path


def test_there_and_back(trace: Path, tmp_path: Path) -> None:
    file, out = pack(trace, tmp_path / "a.pack"), tmp_path / "b.trace"

    assert unpack(file, out) == out
    assert {entry.name: entry.read_bytes() for entry in out.iterdir()} == FILES
    assert out.stat().st_mode & 0o777 == 0o700 and {e.stat().st_mode & 0o777 for e in out.iterdir()} == {0o600}
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["a.pack", "a.trace", "b.trace"]


def test_the_same_trace_packs_to_the_same_bytes(trace: Path, tmp_path: Path) -> None:
    first = pack(trace, tmp_path / "1").read_bytes()
    os.utime(trace / "module.wasm", (1, 1))
    (trace / "module.wasm").chmod(0o644)
    trace.rename(tmp_path / "renamed")

    assert pack(tmp_path / "renamed", tmp_path / "2").read_bytes() == first
    with tarfile.open(tmp_path / "1") as tar:
        assert [(m.name, m.mtime, m.uid, m.mode) for m in tar] == [(name, 0, 0, 0o600) for name in sorted(FILES)]


def test_what_is_not_a_whole_trace_is_not_packed(trace: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    (trace / "journal").mkdir()
    with pytest.raises(TraceError, match="recover"):
        pack(trace, out)
    (trace / "journal").rename(trace / "stray")
    with pytest.raises(TraceError, match="stray: not a part of a trace"):
        pack(trace, out)
    (trace / "stray").rmdir()
    (trace / "spans.parquet").symlink_to("/etc/passwd")
    with pytest.raises(TraceError, match=r"spans\.parquet"):
        pack(trace, out)
    (trace / "spans.parquet").unlink()
    os.mkfifo(trace / "spans.parquet")
    with pytest.raises(TraceError, match="not a plain file"):
        pack(trace, out)
    (trace / "spans.parquet").unlink()
    (trace / "module.wasm").unlink()
    with pytest.raises(TraceError, match="has no module"):
        pack(trace, out)
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.trace"]


def test_nothing_is_overwritten(trace: Path, tmp_path: Path) -> None:
    file = pack(trace, tmp_path / "a.pack")
    with pytest.raises(UsageError, match="exists already"):
        pack(trace, file)
    with pytest.raises(UsageError, match="exists already"):
        unpack(file, trace)


def member(name: str, data: bytes = b"x", kind: bytes = tarfile.REGTYPE, **more: object) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size, info.mode, info.type = len(data), 0o600, kind
    for key, value in more.items():
        setattr(info, key, value)
    return info, data


@pytest.mark.parametrize(
    ("bad", "what"),
    [
        (member("../evil"), "leads elsewhere"),
        (member("/etc/evil"), "leads elsewhere"),
        (member("sub/manifest.json"), "leads elsewhere"),
        (member("stray"), "not a part"),
        (member("seal.json", b"", tarfile.SYMTYPE, linkname="/etc/passwd"), "symbolic link"),
        (member("seal.json", b"", tarfile.LNKTYPE, linkname="manifest.json"), "hard link"),
        (member("seal.json", b"", tarfile.CHRTYPE), "device"),
        (member("seal.json", b"", tarfile.DIRTYPE), "directory"),
        (member("seal.json", b"", tarfile.FIFOTYPE), "pipe"),
        (member("seal.json", b"", tarfile.GNUTYPE_SPARSE), "not a plain file"),
        (member("manifest.json"), "twice"),
        (member("seal.json", mode=0o4777), "header"),
        (member("seal.json", mtime=5), "header"),
        (member("\x1b[2J"), r"\\x1b"),
    ],
)
def test_a_member_that_does_not_belong_is_named(
    trace: Path, tmp_path: Path, bad: tuple[tarfile.TarInfo, bytes], what: str
) -> None:
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for info, data in [*(member(name, data) for name, data in FILES.items()), bad]:
            tar.addfile(info, io.BytesIO(data))
    file = tmp_path / "bad"
    file.write_bytes(raw.getvalue())

    with pytest.raises(TraceError, match=what) as error:
        unpack(file, tmp_path / "out")
    assert "\n" not in str(error.value) and "\x1b" not in str(error.value)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["a.trace", "bad"]


def test_a_declared_size_beyond_the_file_writes_nothing(tmp_path: Path) -> None:
    info = tarfile.TarInfo("events.parquet")
    info.size, info.mode = 1 << 60, 0o600
    (tmp_path / "bomb").write_bytes(info.tobuf(tarfile.GNU_FORMAT) + bytes(1024))
    with pytest.raises(TraceError, match=r"events\.parquet says it has 1152921504606846976 bytes"):
        unpack(tmp_path / "bomb", tmp_path / "out")


def test_damage_at_any_place_is_found_or_harmless(trace: Path, tmp_path: Path) -> None:
    whole = pack(trace, tmp_path / "a.pack").read_bytes()
    file, out = tmp_path / "cut", tmp_path / "out"
    for length in [*range(0, len(whole), 100), len(whole) - 1]:
        file.write_bytes(whole[:length])
        with pytest.raises(TraceError):
            unpack(file, out)
    for at in range(0, 512, 3):
        file.write_bytes(whole[:at] + bytes([whole[at] ^ 0x41]) + whole[at + 1 :])
        with pytest.raises(RepriseError):
            unpack(file, out)
    file.write_bytes(whole + b"more")
    with pytest.raises(TraceError):
        unpack(file, out)
    assert not out.exists()
