"""The worker layer: one thread, nothing left behind, death and cancellation survived, checkpoints pristine and bounded."""

from __future__ import annotations

import gc
import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from replayer import wire
from replayer.machine import TimeMachine
from replayer.marks import Mark
from replayer.watching import Cancelled, WorkerDied
from replayer.worker import Job
from tests.timetravel import kit
from traces._errors import RepriseError, TraceError, UsageError
from traces.tracedir import Trace

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="processes are looked at through /proc")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("processes")


@pytest.fixture(scope="module")
def long(place: Path) -> Path:
    """Half a second of execution, 20 events."""
    return kit.spin(place, rounds=20, turns=2_000_000)


@pytest.fixture(scope="module")
def longer(place: Path) -> Path:
    """Seconds of execution without an event in the middle."""
    return kit.spin(place, rounds=2, turns=60_000_000)


@pytest.fixture(scope="module")
def wide(place: Path) -> Path:
    """Writes all over 8 MiB, about half a second long."""
    return kit.spin(place, rounds=10, turns=2_500_000, pages=128)


@pytest.fixture(scope="module")
def small(place: Path) -> Path:
    return kit.busy(place)


@pytest.fixture(autouse=True)
def watched() -> Iterator[kit.Stations]:
    """No test leaves a process, a zombie or a file behind."""
    before = kit.handles()
    with kit.stations() as found:
        yield found
    assert found.gone(), f"processes were left behind: {found.alive()}"
    assert kit.eventually(lambda: not kit.zombies())
    assert kit.eventually(lambda: kit.handles() <= before), "file descriptors were left open"


class TestTheWorker:
    def test_has_one_thread_and_little_loaded(self, small: Path) -> None:
        with TimeMachine(small) as machine:
            kit.settle(machine)
            for moment in machine.checkpoints.all():
                found = moment.threads()
                assert found["threads"] == 1
                rooms = {
                    name for name in found["modules"] if name.split(".")[0] in ("recorder", "inspector", "traces", "replayer")
                }
                allowed = ("recorder.wasm", "recorder.boundary", "traces", "replayer")
                strangers = {name for name in rooms if not name.startswith(allowed)} - {"recorder"}
                assert not strangers
                heavy = {"pyarrow", "duckdb", "asyncio", "textual", "numpy", "elftools", "concurrent.futures"}
                assert not heavy & set(found["modules"])
                assert {"traces.tables", "traces.journal"}.isdisjoint(found["modules"])

    def test_refuses_to_fork_with_a_second_thread(self, small: Path) -> None:
        """The check is the station's own: a thread is started inside it through the one place that runs before it serves."""
        program = (
            "import sys, threading, time; sys.path.insert(0, sys.argv[1]);"
            "from replayer import station; import os;"
            "threading.Thread(target=time.sleep, args=(60,), daemon=True).start();"
            "os._exit(station.main(sys.argv[2:]))"
        )
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("replayer.worker._START", program)
            with Trace.open(small) as trace:
                job = Job(trace)
        try:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr("replayer.worker._START", program)
                moment = job.start()
            with pytest.raises(RepriseError, match="2 threads"):
                moment.fork()
            assert moment.threads()["threads"] == 2
            moment.close()
        finally:
            job.close()

    def test_links_no_native_wasi(self, place: Path) -> None:
        """A recording that wrote files and read clocks is replayed with nothing but the interposer behind its imports."""
        out = place / "wasi.trace"
        if not out.exists():
            subprocess.run(
                [sys.executable, "-m", "reprise", "record", "-o", out, kit.ROOT / "tests/guests/mixed_loop.wasm", "200"],
                check=True, capture_output=True, cwd=kit.ROOT,
            )  # fmt: skip
        with TimeMachine(out) as machine:
            kit.settle(machine)
            assert machine.proof == ""
            (first,) = [m for m in machine.checkpoints.all() if m.clock == 0][:1]
            for entry in os.listdir(f"/proc/{first.pid}/fd"):
                target = os.readlink(f"/proc/{first.pid}/fd/{entry}")
                assert "mixed" not in target and not target.endswith(".trace"), target
            assert first.threads()["threads"] == 1


class TestCheckpoints:
    def test_stand_at_measured_time_and_are_thinned_to_a_number(self, long: Path) -> None:
        with TimeMachine(long, interval=0.02, most=8) as machine:
            kit.settle(machine)
            clocks = machine.checkpoints.clocks
            assert 2 <= len(clocks) <= 8
            assert clocks == sorted(clocks)
            gaps = [b - a for a, b in zip([0, *clocks], [*clocks, machine.total], strict=True)]
            assert max(gaps) < machine.total * 0.8, "the kept ones are spread over the whole execution"

    def test_are_thinned_to_a_budget(self, wide: Path) -> None:
        """Each has some MiB to itself: the guest writes all over its memory."""
        budget = 80 << 20  # what all of them share counts once
        with TimeMachine(wide, interval=0.02, most=64, budget=budget) as machine:
            kit.settle(machine)
            assert len(machine.checkpoints) > 1
            assert machine.checkpoints.memory() <= budget + (24 << 20)
            clocks = [0, *machine.checkpoints.clocks, machine.total]
            assert max(b - a for a, b in itertools.pairwise(clocks)) < machine.total * 0.7, "spread over the whole execution"
            here = machine.seek(machine.total // 2)
            assert here.frame is not None

    def test_a_budget_of_nothing_leaves_a_machine_that_works(self, long: Path) -> None:
        with TimeMachine(long, interval=0.02, budget=0) as machine:
            kit.settle(machine)
            assert len(machine.checkpoints) < 16
            assert machine.seek(machine.total - 3).frame is not None

    def test_are_pristine(self, long: Path) -> None:
        with TimeMachine(long, interval=0.03) as machine:
            kit.settle(machine)
            clock = machine.checkpoints.clocks[len(machine.checkpoints) // 2]
            (kept,) = [m for m in machine.checkpoints.all() if m.clock == clock]
            before = kept.digests(), kept.globals(), dict(kept.position)
            targets = [clock + n * 37 for n in range(50)]
            first = kit.states_of(machine.seek(targets[0]))
            for target in targets:
                machine.seek(target)
            assert (kept.digests(), kept.globals(), dict(kept.position)) == before
            assert kit.states_of(machine.seek(targets[0])) == first

    def test_without_fork_every_look_replays_from_the_start_and_says_so(self, small: Path, watched: kit.Stations) -> None:
        with TimeMachine(small, checkpoints=False) as machine, TimeMachine(small) as forking:
            assert any("replays from the start" in note for note in machine.notes)
            assert not forking.notes
            for mark in ("0", "e9", "e9+", "4000", "start", "start.1", "end", "8043.4"):
                assert kit.states_of(machine.seek(mark)) == kit.states_of(forking.seek(mark)), mark
            assert len(machine.checkpoints) == 0


class TestCancelling:
    def test_a_seek_leaves_no_process_and_a_machine_that_works(self, longer: Path, watched: kit.Stations) -> None:
        with TimeMachine(longer, checkpoints=True, interval=1e6) as machine:
            kit.settle(machine)
            resting = len(watched.alive())
            seen: list[tuple[int, int]] = []

            def enough(clock: int, events: int) -> None:
                seen.append((clock, events))
                if len(seen) >= 2:
                    raise Cancelled

            began = time.monotonic()
            with pytest.raises(Cancelled):
                machine.seek(machine.total - 5, watch=enough)
            assert time.monotonic() - began < 2
            assert 0 < seen[0][0] < machine.total
            assert kit.eventually(lambda: len(watched.alive()) <= resting)
            assert machine.seek(5000).frame is not None

    def test_waiting_for_the_pass_can_be_given_up(self, longer: Path) -> None:
        def never(clock: int, events: int) -> None:
            raise Cancelled

        with TimeMachine(longer) as machine:
            with pytest.raises(Cancelled):
                machine.seek("end", watch=never)
            assert machine.seek(1000).mark == Mark(1000), "the pass goes on, and so does the machine"


class TestDeath:
    def test_of_the_runner_is_survived(self, longer: Path) -> None:
        """Another goes on from the last checkpoint; what is known about marks in the end is the same."""
        with TimeMachine(longer, interval=0.02) as machine:
            machine.wait()
            marks, total = [machine.mark_of(seq) for seq in range(machine.events)], machine.total
        with TimeMachine(longer, interval=0.02) as machine:
            assert kit.eventually(lambda: len(machine.checkpoints) > 3)
            assert machine._runner is not None
            os.kill(machine._runner.pid, signal.SIGKILL)
            machine.wait()
            assert any("runs the recording through died" in death for death in machine.checkpoints.deaths)
            assert ([machine.mark_of(seq) for seq in range(machine.events)], machine.total) == (marks, total)
            assert machine.checkpoints.clocks == sorted(machine.checkpoints.clocks)

    def test_of_one_runner_after_the_other_is_reported(self, longer: Path) -> None:
        with TimeMachine(longer) as machine:
            for _ in range(3):
                assert machine._runner is not None
                runner = machine._runner
                kit.kill(runner)
                kit.eventually(lambda dead=runner: machine._runner is not dead or machine._pass_failed is not None)  # type: ignore[misc]
            with pytest.raises(WorkerDied, match="open the trace again"):
                machine.wait()
            with pytest.raises(WorkerDied, match="open the trace again"):
                machine.seek("end")
            assert machine.seek(100).mark == Mark(100), "what needs no pass still works"

    def test_of_a_checkpoint_is_survived(self, long: Path) -> None:
        with TimeMachine(long, interval=0.03) as machine:
            kit.settle(machine)
            target = machine.checkpoints.clocks[-1] + 1000
            before = kit.states_of(machine.seek(target))
            for moment in machine.checkpoints.all():
                if moment.clock:
                    kit.kill(moment)
            assert kit.states_of(machine.seek(target)) == before
            assert machine.checkpoints.deaths
            assert "died" in machine.checkpoints.deaths[0]

    def test_of_every_process_is_survived(self, long: Path, watched: kit.Stations) -> None:
        with TimeMachine(long, interval=0.03) as machine:
            kit.settle(machine)
            before = kit.states_of(machine.seek(machine.total // 2))
            for pid in watched.alive():
                os.kill(pid, signal.SIGKILL)
            assert watched.gone()
            assert kit.states_of(machine.seek(machine.total // 2)) == before
            assert kit.states_of(machine.seek("end"))["end"]

    def test_of_the_view_is_reported_and_the_next_seek_works(self, small: Path) -> None:
        with TimeMachine(small) as machine:
            here = machine.seek(4000)
            kit.kill(here.moment)
            with pytest.raises(WorkerDied, match="died"):
                here.read(0, 16)
            assert machine.seek(4000).read(4, 3) == b"bef"

    def test_during_a_run_is_survived(self, longer: Path, watched: kit.Stations) -> None:
        """Whoever runs towards the mark is killed on the way; the seek begins again."""
        with TimeMachine(longer, interval=1e6) as machine:
            kit.settle(machine)
            resting = set(watched.alive())
            killed: list[int] = []

            def murder(clock: int, events: int) -> None:
                if not killed:
                    for pid in set(watched.alive()) - resting:
                        killed.append(pid)
                        os.kill(pid, signal.SIGKILL)

            here = machine.seek(machine.total - 5, watch=murder)
            assert killed and here.mark == Mark(machine.total - 5)
            assert machine.checkpoints.deaths

    def test_over_and_over_ends_in_an_error(self, longer: Path, watched: kit.Stations) -> None:
        with TimeMachine(longer, interval=1e6) as machine:
            kit.settle(machine)
            resting = set(watched.alive())

            def murder(clock: int, events: int) -> None:
                for pid in set(watched.alive()) - resting:
                    os.kill(pid, signal.SIGKILL)

            with pytest.raises(WorkerDied, match="died"):
                machine.seek(machine.total - 5, watch=murder)
            assert machine.seek(50).mark == Mark(50)

    def test_as_it_starts_says_what_was_wrong(self, small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("replayer.worker._START", "raise SystemError('no such luck')")
        with pytest.raises(WorkerDied, match="no such luck"):
            TimeMachine(small)


_OWNER = """
import sys, time
sys.path.insert(0, sys.argv[1])
from replayer.machine import TimeMachine
machine = TimeMachine(sys.argv[2])
if sys.argv[3] == "wait":
    machine.wait()
    machine.seek(1000)
print("ready", flush=True)
if sys.argv[3] != "leave":
    machine.seek("end") if sys.argv[3] == "run" else time.sleep(60)
"""


class TestTheEnd:
    @pytest.mark.parametrize("how", ["run", "wait"])
    def test_of_a_killed_parent_is_the_end_of_all(self, longer: Path, small: Path, watched: kit.Stations, how: str) -> None:
        """In the middle of a long run, and with everything at rest."""
        trace = longer if how == "run" else small
        process = subprocess.Popen([sys.executable, "-c", _OWNER, str(kit.ROOT), str(trace), how], stdout=subprocess.PIPE)
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        assert watched.alive()
        process.kill()
        process.wait()
        process.stdout.close()
        assert watched.gone(1.5), "a second after its owner, a process is still there"

    def test_of_an_interpreter_that_forgot_to_close(self, longer: Path, watched: kit.Stations) -> None:
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", _OWNER, str(kit.ROOT), str(longer), "leave"],
            capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert (done.returncode, done.stdout, done.stderr) == (0, "ready\n", "")
        assert watched.gone(1.5)

    def test_closing_twice_and_using_it_afterwards(self, small: Path) -> None:
        machine = TimeMachine(small)
        machine.seek(10)
        machine.close()
        machine.close()
        with pytest.raises(RepriseError):
            machine.seek(20)

    def test_closing_in_the_middle_of_the_pass(self, longer: Path, watched: kit.Stations) -> None:
        machine = TimeMachine(longer)
        assert kit.eventually(lambda: machine.progress[0] > 0)
        began = time.monotonic()
        machine.close()
        assert watched.gone(1.5) and time.monotonic() - began < 2

    def test_leaves_no_files(self, small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
        gc.collect()  # what other tests let go of is closed now, and not in the middle
        handles = kit.handles()
        for _ in range(3):
            with TimeMachine(small) as machine:
                machine.seek("e9")
                machine.seek("end")
                assert not list(tmp_path.iterdir()), "its files have no name, even while it is open"
        assert kit.eventually(lambda: kit.handles() == handles)

    def test_leaves_no_threads(self, small: Path) -> None:
        before = threading.active_count()
        for _ in range(3):
            with TimeMachine(small) as machine:
                machine.seek(100)
        assert kit.eventually(lambda: threading.active_count() <= before)


class TestTraces:
    def test_changed_after_opening(self, small: Path, tmp_path: Path) -> None:
        from tests.harness import copy_of

        trace = copy_of(small, tmp_path)
        with TimeMachine(trace) as machine:
            machine.seek(5)
            with open(trace / "events.parquet", "ab") as file:
                file.write(b"!")
            with pytest.raises(TraceError, match="changed on disk since it was opened; open it again"):
                machine.seek(6)

    def test_that_went_away(self, small: Path, tmp_path: Path) -> None:
        import shutil

        from tests.harness import copy_of

        trace = copy_of(small, tmp_path)
        with TimeMachine(trace) as machine:
            machine.seek(5)
            shutil.rmtree(trace)
            with pytest.raises(TraceError, match="changed on disk"):
                machine.seek(6)

    @pytest.mark.parametrize("name", ["events.parquet", "states.parquet", "module.wasm", "manifest.json"])
    def test_damaged(self, small: Path, tmp_path: Path, name: str) -> None:
        from tests.harness import copy_of

        trace = copy_of(small, tmp_path)
        data = bytearray((trace / name).read_bytes())
        data[len(data) // 2] ^= 0x40
        (trace / name).write_bytes(data)
        with pytest.raises(TraceError):
            TimeMachine(trace)

    def test_of_a_module_that_is_no_longer_its_own(self, small: Path, tmp_path: Path) -> None:
        from tests.harness import assemble, copy_of, seal, sha256

        trace = copy_of(small, tmp_path)
        (trace / "module.wasm").write_bytes(assemble("(module)"))
        seal(trace, lambda m: m.module.update(sha256=sha256(assemble("(module)"))))
        with pytest.raises(RepriseError):
            TimeMachine(trace)


class TestTheWire:
    def test_a_message_comes_as_it_was_sent(self) -> None:
        import socket

        a, b = socket.socketpair()
        with a, b:
            sent = {"do": "x", "list": [1, None, "ü"]}
            thread = threading.Thread(target=wire.send, args=(a, sent, bytes(300_000)))
            thread.start()
            assert wire.receive(b) == (sent, bytes(300_000), None)
            thread.join()

    def test_a_connection_that_is_cut_is_closed(self) -> None:
        import socket

        for cut in (b"", b"\x05", b"\x05\0\0\0\0\0\0\0[1", b"\xff" * 8):
            a, b = socket.socketpair()
            with b:
                a.sendall(cut)
                a.close()
                with pytest.raises(wire.Closed):
                    wire.receive(b)

    def test_a_mark_beyond_the_end_is_an_error_of_the_users(self, small: Path) -> None:
        with TimeMachine(small) as machine:
            for mark in (machine.total + 1, 10**12, "e43", "e999"):
                with pytest.raises(UsageError):
                    machine.seek(mark)
            assert json.loads(json.dumps(machine.verdict()))["verdict"] == "identical"
