"""The recorder dies by SIGKILL at any moment: what was seen outside is in the trace, and the trace replays as far as it goes."""

from __future__ import annotations

import random
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.faults.kit import COMPLETE, EXPORT, Server, command, guest, let_out, looked_at, manifest, records, serving, well_nested

SLOT = 65536
"""So that 400 lines fill a slot, and a run passes through dozens of rotations."""


def check(trace: Path, seen: bytes, found: dict[str, Any]) -> str:
    """What must hold of a dead recorder's directory, whenever it died. Returns what kind of death it was."""
    lines = seen[: seen.rfind(b"\n") + 1]
    assert found["untouched"], "opening wrote into the trace"
    opened, recovered = found["opened"], found["recovered"]
    if opened["kind"] == "error":
        # Died before there was anything to record: then nothing can have been seen either.
        assert not seen, f"{len(seen)} bytes were seen, but: {opened['line']}"
        assert "\n" not in opened["line"]
        assert found["recovery"] and "\n" not in found["recovery"]
        return "before"
    assert opened == recovered, "a trace opened without recovery is not the one recovered"
    assert opened["problems"] == []
    if opened["kind"] == "identical":
        assert let_out(trace) == (seen, b"")
        assert "complete" in found["recovery"]
        return "after"
    assert (opened["kind"], opened["exit"]) == ("incomplete", 4), opened["line"]
    assert f"identical up to event {opened['events']:,} of {opened['total']:,}" in opened["line"]
    assert opened["events"] == opened["total"] == manifest(trace)["totals"]["records"]
    assert (opened["outcome"]["kind"], opened["outcome"]["complete"]) == ("killed", False)
    done, begun = let_out(trace)
    # Nothing seen is missing; nothing is twice or out of order; nothing is there that could not be.
    assert (done + begun).startswith(seen), "bytes were seen that the trace does not have"
    assert seen.startswith(done[: len(seen)])
    counted = [int(line) for line in done.split()]
    assert counted == list(range(1, len(counted) + 1)), "lines are lost, doubled or out of order"
    assert len(counted) + (1 if begun else 0) >= len(lines.split())
    assert len(done) <= len(seen), "a call is said to have ended whose effect was never seen"
    well_nested(records(trace))
    assert "journal" not in found["files"]
    return "during"


def one_kill(server: Server, out: Path, random_: random.Random) -> bytes:
    """Records a writer and kills it at a random point of a random phase; returns what was seen."""
    phase = random_.choices(("start", "bytes", "time", "stalled", "closing"), (2, 3, 3, 1, 2))[0]
    lines = random_.randint(1, 2500) if phase == "closing" else 1_000_000
    recorder = server.start(out=str(out), module=guest("pipe_writer"), argv=[lines], slot_size=SLOT)
    far = time.monotonic() + 30
    if phase == "start":
        time.sleep(random_.uniform(0, 0.06))
    elif phase == "bytes":
        recorder.read(far, random_.randint(1, 30_000))
    elif phase == "time":
        recorder.read(far, 1)
        recorder.read(time.monotonic() + random_.uniform(0, 0.02))
    elif phase == "stalled":
        recorder.read(far, 1)
        time.sleep(0.02)  # the pipe is full, the guest inside fd_write
    else:
        recorder.read(far, sum(len(str(n)) + 1 for n in range(1, lines + 1)))
        time.sleep(random_.uniform(0, 0.08))
    return recorder.kill().out


def kill_many(place: Path, count: int, seed: int) -> dict[str, int]:
    """Kills `count` recorders, two at a time; looks at what they left in fresh processes."""
    kinds: dict[str, int] = {}
    for first in range(0, count, 25):
        seeds = range(first, min(first + 25, count))
        outs = [place / f"{n}.trace" for n in seeds]

        def work(numbers: list[int], outs: list[Path] = outs, first: int = first) -> list[tuple[int, bytes]]:
            with serving() as server:
                return [(n, one_kill(server, outs[n - first], random.Random(f"{seed} {n}"))) for n in numbers]

        with ThreadPoolExecutor(2) as pool:
            halves = list(pool.map(work, (list(seeds)[::2], list(seeds)[1::2])))
        seen = dict(pair for half in halves for pair in half)
        existing = [out for out in outs if out.exists()]
        assert all(seen[first + i] == b"" for i, out in enumerate(outs) if out not in existing)
        for out, found in zip(existing, looked_at(existing), strict=True):
            try:
                kind = check(out, seen[first + outs.index(out)], found)
            except AssertionError as error:
                raise AssertionError(f"seed {seed} {first + outs.index(out)}: {error}; {found}") from error
            kinds[kind] = kinds.get(kind, 0) + 1
    return kinds


@pytest.mark.parametrize("part", range(4))
def test_killed_at_random_points(tmp_path: Path, part: int) -> None:
    """4 × 50 kills: while starting, recording, rotating, stalled in a host call, and closing."""
    kinds = kill_many(tmp_path, 50, random.randrange(1 << 30))
    assert kinds.get("during", 0) >= 20, f"the kills do not hit the recording: {kinds}"


@pytest.mark.soak
@pytest.mark.parametrize("part", range(20))
def test_killed_at_thousands_of_random_points(tmp_path: Path, part: int) -> None:
    kill_many(tmp_path, 250, random.randrange(1 << 30))


@pytest.mark.parametrize("part", range(2))
def test_killed_at_every_step_from_python(tmp_path: Path, part: int) -> None:
    """Before every file operation, in the middle of every append, and around every store that moves the journal on."""
    seen: dict[Path, bytes] = {}
    with serving() as server:
        for n in range(part, 1000, 2):
            out = tmp_path / f"{n}.trace"
            ended = server.run(out=str(out), module=guest("pipe_writer"), argv=[900], slot_size=SLOT, die=n)
            if ended.code != -9:
                assert ended.code == 0, ended.err
                assert n > 50, "there are more steps than that"
                break
            if out.exists():
                seen[out] = ended.out
            else:
                assert ended.out == b""
    kinds: dict[str, int] = {}
    for (out, bytes_), found in zip(seen.items(), looked_at(list(seen)), strict=True):
        try:
            kind = check(out, bytes_, found)
        except AssertionError as error:
            raise AssertionError(f"step {out.stem}: {error}; {found}") from error
        kinds[kind] = kinds.get(kind, 0) + 1
    assert min(kinds.get(kind, 0) for kind in ("before", "during", "after")) >= 1, kinds


def test_recovery_killed_at_every_step(tmp_path: Path) -> None:
    """Recovering once more, after a recovery that died anywhere, gives the same trace."""
    first = tmp_path / "first.trace"
    copies = []
    with serving() as server:
        recorder = server.start(out=str(first), module=guest("pipe_writer"), argv=[100000], slot_size=SLOT)
        recorder.read(time.monotonic() + 30, 5000)
        seen = recorder.kill().out
        for n in range(100):
            copy = tmp_path / f"{n}.trace"
            shutil.copytree(first, copy)
            copies.append(copy)
            ended = server.run(out=str(copy), recover=True, die=n)
            if ended.code == 0:
                break
            assert ended.code == -9, ended.err
        assert 5 < n < 99
    for copy, found in zip(copies, looked_at(copies), strict=True):
        opened = found["opened"]
        assert (opened["kind"], opened["problems"]) == ("incomplete", []), (copy.name, opened)
        assert found["recovery"] == "" or "is complete" in found["recovery"], (copy.name, found)
        assert opened == found["recovered"]
        assert b"".join(let_out(copy)).startswith(seen)


def test_killed_recorder_on_the_command_line(tmp_path: Path) -> None:
    """The same through the commands a user has: replay says incomplete (4) before and after recover, which works once."""
    out = tmp_path / "run.trace"
    with serving() as server:
        recorder = server.start(out=str(out), module=guest("pipe_writer"), argv=[100000], slot_size=SLOT)
        recorder.read(time.monotonic() + 30, 9000)
        refused = command("recover", out)
        assert (refused.returncode, refused.stderr.count("\n")) == (64, 1)
        assert "still being recorded" in refused.stderr
        unreadable = command("replay", out)
        assert (unreadable.returncode, unreadable.stdout.count("\n")) == (5, 1), unreadable.stderr
        assert "still being recorded" in unreadable.stdout
        seen = recorder.kill().out
    replayed = command("replay", out)
    assert replayed.returncode == 4
    assert replayed.stdout.startswith("incomplete: the recorder was killed; identical up to event ")
    assert (out / "journal").is_dir()
    done = command("recover", out)
    assert done.returncode == 0, done.stderr
    assert command("replay", out).stdout == replayed.stdout
    assert command("verify", out).returncode == 4
    again = command("recover", out)
    assert (again.returncode, again.stderr.count("\n")) == (64, 1)
    done_, begun = let_out(out)
    assert (done_ + begun).startswith(seen)


def test_records_of_a_killed_run_are_those_of_its_beginning(tmp_path: Path) -> None:
    """The recovered table begins with the same kinds of record as a run that was left alone."""
    with serving() as server:
        whole = server.run(out=str(tmp_path / "whole.trace"), module=guest("pipe_writer"), argv=[2000], slot_size=SLOT)
        recorder = server.start(out=str(tmp_path / "killed.trace"), module=guest("pipe_writer"), argv=[2000], slot_size=SLOT)
        recorder.read(time.monotonic() + 30, 4000)
        recorder.kill()
    assert whole.code == 0
    assert looked_at([tmp_path / "killed.trace"])[0]["recovery"] == ""
    a, b = ([(r.kind, r.index) for r in records(tmp_path / f"{name}.trace")] for name in ("whole", "killed"))
    assert b == a[: len(b)]
    first = records(tmp_path / "killed.trace")[0]
    assert first.kind == EXPORT
    assert first.status != COMPLETE
