"""The same state at a mark, however one gets there; and a machine for every way a recording can end."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from recorder.outcome import Limits
from recorder.python_host import Guest
from replayer.machine import TimeMachine
from replayer.marks import Mark
from tests import harness
from tests.harness import Row, forge
from tests.timetravel import kit
from traces._errors import UsageError
from traces.layout import Kind

_ELSEWHERE = """
import json, sys
sys.path.insert(0, sys.argv[1])
from replayer.machine import TimeMachine
from tests.timetravel import kit
with TimeMachine(sys.argv[2]) as machine:
    print(json.dumps([kit.states_of(machine.seek(mark)) for mark in sys.argv[3:]]))
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("seek")


def same(states: Any) -> Any:
    """As it looks after a journey through JSON."""
    return json.loads(json.dumps(states))


class TestTheSameState:
    def test_at_any_mark_through_any_checkpoint(self, place: Path) -> None:
        """From far and near, forward and backward, through many checkpoints and none, in this process' children and others'."""
        trace = kit.busy(place)
        draw = random.Random(7)
        with TimeMachine(trace) as machine:
            total = machine.total
            marks = ["start", "end", *map(str, draw.sample(range(total), 8)), *(f"e{e}" for e in range(0, machine.events, 8))]
            marks += [f"e{e}+" for e in range(3, machine.events, 9)]
            first = {mark: kit.states_of(machine.seek(mark)) for mark in marks}
            for mark in reversed(marks):
                assert kit.states_of(machine.seek(mark)) == first[mark], f"{mark}, the second time"
        with TimeMachine(trace, interval=0.0001, most=200) as machine:
            machine.wait()
            for mark in draw.sample(marks, len(marks)):
                assert kit.states_of(machine.seek(mark)) == first[mark], f"{mark}, through another checkpoint"
        with TimeMachine(trace, checkpoints=False) as machine:
            for mark in marks[::3]:
                assert kit.states_of(machine.seek(mark)) == first[mark], f"{mark}, from the start"
        done = subprocess.run(
            [sys.executable, "-c", _ELSEWHERE, str(kit.ROOT), str(trace), *marks], capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout) == [same(first[mark]) for mark in marks]

    def test_at_every_checkpoint_of_a_long_run(self, place: Path) -> None:
        """At its very clock, one before, one behind: reached through it and, in a machine without, from the start."""
        trace = kit.spin(place, rounds=5, turns=20_000_000, pages=4)
        with TimeMachine(trace, interval=0.02) as machine, TimeMachine(trace, interval=1e6) as plain:
            machine.wait()
            clocks = machine.checkpoints.clocks
            assert len(clocks) >= 3
            for clock in clocks[:: max(1, len(clocks) // 4)]:
                for near in (clock - 1, clock, clock + 1):
                    assert kit.states_of(machine.seek(near)) == kit.states_of(plain.seek(near))

    def test_whole_memory_of_a_walk_backwards(self, place: Path) -> None:
        trace = kit.busy(place)
        with TimeMachine(trace) as machine:
            marks = range(2290, 2330)
            forward = [kit.states_of(machine.seek(n)) for n in marks]
            assert [kit.states_of(machine.seek(n)) for n in reversed(marks)] == forward[::-1]
            pcs = [state["frames"][0][1] for state in forward]
            assert len(set(pcs)) > 10

    def test_the_end_has_the_recorded_digests(self, place: Path) -> None:
        trace = kit.busy(place)
        with TimeMachine(trace) as machine:
            here = machine.seek("end")
            found = {(what, index): digest for what, index, _, digest in here.digests()}
            rows: Any = machine.job._job["states"]
            recorded = {
                (row["what"], row["index"]): bytes.fromhex(row["digest"]).hex() for row in rows if row["seq"] == machine.events
            }
            assert recorded and recorded == {key: found[key] for key in recorded}


class TestTraps:
    @pytest.mark.parametrize("kind", kit.TRAP_KINDS)
    def test_the_last_instruction_is_the_one_that_trapped(self, place: Path, kind: str) -> None:
        expected = {
            "unreachable": ("unreachable", [1, 9]),
            "bounds": ("i32.load offset=8", [9, 3, 65534]),
            "store": ("i64.store", [0xFFFFFFFF, 1]),
            "divide": ("i32.div_s", [2, 5, 0]),
            "overflow": ("i32.div_s", [2, 0x80000000, 0xFFFFFFFF]),
            "convert": ("i32.trunc_f32_s", [2, 0x7FC00000]),
            "null": ("call_indirect (type 1)", [4, 1]),
            "mismatch": ("call_indirect (type 0)", [0]),
            "beyond": ("call_indirect (type 1)", [4, 9]),
            "fill": ("memory.fill", [65000, 1, 1000]),
            "deep": ("unreachable", []),
        }[kind]
        with TimeMachine(kit.trapping(place, kind)) as machine:
            assert machine.proof == ""
            here = machine.seek(machine.total - 1)
            assert here.frame is not None
            assert (here.frame.instruction, here.frame.operands) == expected
            assert here.depth == (62 if kind == "deep" else 1)
            trap = machine.events - 1
            assert machine.job.header(trap)[0] is Kind.TRAP
            assert machine.mark_of(trap) == Mark(machine.total - 1, 1)
            assert machine.seek("end").frame is None
            with pytest.raises(UsageError, match="beyond the end"):
                machine.seek(machine.total + 1)

    def test_one_after_the_other_in_one_session(self, place: Path) -> None:
        """The embedder goes on after each; clocks go on behind the instruction that trapped."""
        exports = ("bounds", "fine", "divide", "unreachable", "fine", "deep", "store", "fine", "null")
        trace = kit.trapping(place, *exports)
        alone = {}
        for export in set(exports):
            with TimeMachine(kit.trapping(place, export)) as machine:
                alone[export] = machine.total
        for forks in (True, False):
            with TimeMachine(trace, checkpoints=forks) as machine:
                assert machine.proof == ""
                assert machine.total == sum(alone[export] for export in exports)
                assert len(machine.traps) == 6
                for begun in machine.traps.values():
                    here = machine.seek(begun - 1)
                    assert here.frame is not None
                    assert here.frame.instruction.split()[0] in {
                        "i32.load", "i32.div_s", "unreachable", "i64.store", "call_indirect",
                    }  # fmt: skip
                    assert machine.seek(begun).mark == Mark(begun)

    def test_of_a_stack_that_ran_out(self, place: Path) -> None:
        """The twin's frames are larger and it has more stack, so how deep it gets is its own; what comes after can be seen."""
        with TimeMachine(kit.trapping(place, "fine", "stack", "fine")) as machine:
            machine.wait()
            assert machine.seek(machine.total - 1).frame is not None
            assert machine.seek("e0").events == 0
            here = machine.seek(100)
            assert here.frame is not None


class TestEnds:
    def test_an_exit(self, place: Path) -> None:
        trace = command(place, "clock_random_file")
        with TimeMachine(trace) as machine:
            assert machine.proof == "" and machine.verdict()["verdict"] == "identical"
            here = machine.seek(machine.total - 1)
            assert here.frame is not None and "proc_exit" in here.frame.instruction
            assert here.frame.operands == [102]

    def test_fuel(self, place: Path) -> None:
        text = kit.spin_text()
        limits = Limits(fuel=100_000)
        trace = kit.made(place, "fuel", text, lambda g: _quietly(lambda: g.call("run", 5, 100_000)), limits=limits)
        with TimeMachine(trace) as machine:
            assert machine.proof == "" and machine.verdict()["verdict"] == "identical"
            assert 100_000 <= machine.total < 100_100
            assert machine.total == machine.trace.manifest.outcome["clock"]
            here = machine.seek(machine.total - 1)
            assert here.frame is not None and here.events == machine.events - 1
            assert machine.seek("end").at_end

    @pytest.mark.parametrize("how", ["timeout", "interrupt", "kill"])
    def test_from_outside(self, place: Path, how: str) -> None:
        out = place / f"{how}.trace"
        module = place / "spin.wasm"
        module.write_bytes((kit.ROOT / "tests" / "guests" / "mixed_loop.wasm").read_bytes())
        words = [sys.executable, "-m", "reprise", "record", "-o", str(out)]
        words += ["--timeout", "0.7"] if how == "timeout" else []
        process = subprocess.Popen(
            [*words, str(module), "100000000"], cwd=kit.ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        if how != "timeout":
            assert kit.eventually(lambda: (out / "journal").exists(), 20)
            time.sleep(0.5)
            process.send_signal(signal.SIGINT if how == "interrupt" else signal.SIGKILL)
        process.wait(30)
        if how == "kill":
            subprocess.run([sys.executable, "-m", "reprise", "recover", str(out)], cwd=kit.ROOT, check=True, capture_output=True)
        with TimeMachine(out) as machine:
            assert machine.proof == ""
            assert machine.verdict()["verdict"] == ("incomplete" if how == "kill" else "identical")
            here = machine.seek(machine.total - 1)
            assert here.frame is not None
            before = kit.states_of(machine.seek(machine.total // 2))
            machine.seek("end")
            assert kit.states_of(machine.seek(machine.total // 2)) == before

    def test_without_memory(self, place: Path) -> None:
        def drive(guest: Guest) -> None:
            for export in guest.exports():
                _quietly(lambda name=export: guest.call(name, 3))  # type: ignore[misc]

        trace = kit.made(
            place,
            "no_memory",
            _plain('(func (export "f") (param i32) (result i32) (i32.mul (local.get 0) (i32.const 7)))'),
            drive,
        )
        with TimeMachine(trace) as machine:
            assert machine.total == 3
            here = machine.seek(2)
            assert here.frame is not None and here.frame.operands == [3, 7] and here.memory_sizes == []
            with pytest.raises(UsageError, match="no memory 0"):
                here.read(0, 1)

    def test_without_events(self, place: Path) -> None:
        trace = kit.made(place, "silent", _plain("(memory 1)"), lambda g: None)
        with TimeMachine(trace) as machine:
            assert (machine.total, machine.events) == (0, 0)
            assert kit.states_of(machine.seek("start"))["sizes"] == [65536]
            assert machine.seek("end").at_end

    def test_many_windows(self, place: Path) -> None:
        trace = kit.made(place, "windows", kit.BUSY, lambda g: [g.call("run", 90) for _ in range(6)], slot_size=4096)
        with TimeMachine(trace, interval=0.001) as machine:
            assert len(machine.job.pieces) > 3 and machine.proof == ""
            for seq in range(0, machine.events, machine.events // 12):
                assert machine.seek(f"e{seq}").events == seq
                piece = machine.job.pieces[len(machine.job.pieces) // 2]
            for seq in (piece.first - 1, piece.first, piece.first + 1):
                assert machine.seek(f"e{seq}").events == seq


class TestDivergence:
    def _forged(self, place: Path, change: Callable[[list[Row]], None]) -> Path:
        return forge(kit.busy(place), place, change)

    def test_of_an_answer_can_be_looked_at(self, place: Path) -> None:
        """The host's second answer is another: the guest asks something else next, and the machine stands where it does."""

        def change(rows: list[Row]) -> None:
            call = [row for row in rows if row.kind == Kind.CALL][1]
            call.body[0] ^= 1  # its argument

        trace = self._forged(place, change)
        with TimeMachine(trace) as machine:
            verdict = machine.verdict()
            assert verdict["verdict"] == "diverged"
            assert machine.proof == "", "the plain replay says the same"
            seq = verdict["events"]
            here = machine.seek(machine.total - 1)
            assert here.frame is not None and here.frame.instruction.startswith("call 0")
            assert here.events == seq
            machine.seek(f"e{seq - 1}")
            with pytest.raises(UsageError, match="was not reached"):
                machine.seek(f"e{machine.events - 1}")
            with pytest.raises(UsageError, match="beyond"):
                machine.seek(machine.total + 5)

    def test_of_a_result_can_be_looked_at(self, place: Path) -> None:
        def change(rows: list[Row]) -> None:
            row = [row for row in rows if row.kind == Kind.RETURN][-1]
            row.body[0] ^= 1

        trace = self._forged(place, change)
        with TimeMachine(trace) as machine:
            assert machine.verdict()["verdict"] == "diverged" and machine.proof == ""
            assert machine.seek(machine.total - 1).frame is not None

    def test_of_a_trap(self, place: Path) -> None:
        def change(rows: list[Row]) -> None:
            row = [row for row in rows if row.kind == Kind.TRAP][-1]
            row.body[0] ^= 3

        trace = forge(kit.trapping(place, "fine", "bounds"), place, change)
        with TimeMachine(trace) as machine:
            assert machine.verdict()["verdict"] == "diverged" and machine.proof == ""
            here = machine.seek(machine.total - 1)
            assert here.frame is not None and here.frame.instruction.startswith("i32.load")

    def test_of_a_trace_that_makes_no_sense(self, place: Path) -> None:
        """Consistent in itself, and impossible: a poke into a memory that the module does not have."""

        def change(rows: list[Row]) -> None:
            row = [row for row in rows if row.kind == Kind.POKE][2]
            row.body[7] |= 0x05

        trace = self._forged(place, change)
        with TimeMachine(trace) as machine:
            verdict = machine.verdict()
            assert verdict["verdict"] == "unusable" and "restore it from a copy" in verdict["reason"]
            assert machine.proof == ""
            assert machine.seek(machine.total - 1).frame is not None
            assert machine.seek("end").at_end


# -- helpers -----------------------------------------------------------------------------------------------------------------


def _quietly(call: Callable[[], Any]) -> None:
    import contextlib

    with contextlib.suppress(Exception):
        call()


def _plain(body: str) -> bytes:
    return harness.assemble(f"(module {body})")


def command(place: Path, name: str, *argv: str) -> Path:
    out = place / f"{name}.trace"
    if not out.exists():
        subprocess.run(
            [sys.executable, "-m", "reprise", "record", "-o", str(out), str(harness.GUESTS / f"{name}.wasm"), *argv],
            cwd=kit.ROOT, stdin=subprocess.DEVNULL, capture_output=True, check=False,
        )  # fmt: skip
    return out
