"""Marks: ordered as execution is, written and read back, and the same whoever counts."""

from __future__ import annotations

import itertools
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recorder.python_host import Guest
from replayer.machine import TimeMachine
from replayer.marks import START, Mark, parse_event
from tests import harness
from tests.timetravel import kit
from traces._errors import UsageError
from traces.layout import Kind, Status

MARKS = st.builds(Mark, st.integers(-1, 1 << 62), st.integers(0, 1 << 20))


class TestAMark:
    @given(MARKS)
    def test_is_read_back_as_it_was_written(self, mark: Mark) -> None:
        assert Mark.parse(str(mark)) == mark
        assert Mark.parse(f"  {mark} ") == mark

    @given(st.integers(0, 10**15), st.integers(0, 999))
    def test_may_have_its_thousands_apart(self, clock: int, step: int) -> None:
        assert Mark.parse(f"{clock:,}") == Mark.parse(f"{clock:_}") == Mark(clock)
        assert Mark.parse(f"{clock:,}.{step}") == Mark(clock, step)
        assert parse_event(f"e{clock:,}+") == (clock, True)

    @given(st.lists(MARKS, min_size=2))
    def test_is_ordered_as_execution_is(self, marks: list[Mark]) -> None:
        for a, b in itertools.pairwise(sorted(marks)):
            assert a <= b
            assert a.clock < b.clock or (a.clock == b.clock and a.step <= b.step)
        assert min(marks) >= START

    @given(st.text(max_size=12))
    def test_of_anything_else_is_an_error_with_examples(self, text: str) -> None:
        try:
            mark = Mark.parse(text)
        except UsageError as error:
            assert "is not a mark" in str(error)
        else:
            assert Mark.parse(str(mark)) == mark

    @pytest.mark.parametrize(
        "text", ["", "-1", "1.", ".1", "1.2.3", "0x10", "e", "e+", "e1++", "end+", "1e3", "²", "1 2", "start+", "e-1"]
    )
    def test_is_not(self, text: str) -> None:
        assert parse_event(text) is None
        with pytest.raises(UsageError, match="not a mark"):
            Mark.parse(text)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("marks")


def traps(place: Path) -> Path:
    return kit.trapping(place, "fine", "unreachable", "fine", "divide", "fine")


def commanded(place: Path) -> Path:
    out = place / "commanded.trace"
    if not out.exists():
        subprocess.run(
            [sys.executable, "-m", "reprise", "record", "-o", out, kit.ROOT / "tests/guests/mixed_loop.wasm", "40"],
            check=True, capture_output=True, cwd=kit.ROOT,
        )  # fmt: skip
    return out


def windows(place: Path) -> Path:
    """Many windows of a few records each."""
    return kit.made(place, "windows", kit.BUSY, lambda g: [g.call("run", 60) for _ in range(5)], slot_size=4096)


RECORDINGS = {"embedded": kit.busy, "traps": traps, "command": commanded, "windows": windows}


@pytest.mark.parametrize("name", RECORDINGS)
class TestEvents:
    def test_have_the_clock_another_rewriter_counts(self, place: Path, name: str) -> None:
        """The metered form, replayed from Python call by call. It knows less of traps: what was last written down."""
        trace = RECORDINGS[name](place)
        counted = kit.metered_clocks(trace)
        with TimeMachine(trace) as machine:
            machine.wait()
            assert [seq for seq, _ in counted] == list(range(machine.events))
            mine = list(machine.clocks)
            if machine.traps:
                unflushed = set(machine.traps)
                behind = 0
                for seq, clock in counted:
                    if seq in unflushed:
                        assert mine[seq] - behind >= clock
                        behind = mine[seq] - clock
                    assert mine[seq] == clock + behind, seq
            else:
                assert mine == [clock for _, clock in counted]

    def test_are_in_order_and_can_be_gone_to(self, place: Path, name: str) -> None:
        trace = RECORDINGS[name](place)
        with TimeMachine(trace) as machine:
            marks = [machine.mark_of(seq) for seq in range(machine.events)]
            # A call's mark is that of its instruction, which comes before whatever the host does in it.
            assert marks == sorted(marks)
            assert len(set(marks)) == len(marks)
            for seq in range(0, machine.events, max(1, machine.events // 40)):
                mark = marks[seq]
                assert machine.mark(f"e{seq}") == mark and Mark.parse(str(mark)) == mark
                here = machine.seek(f"e{seq}")
                assert (here.mark, here.events) == (mark, seq)
                kind, _, index = machine.job.header(seq)
                if kind is Kind.CALL:
                    assert here.frame is not None and f"call {index} " in here.frame.instruction + " "
                after = machine.mark_after(seq)
                assert mark < after <= machine.end
                assert machine.mark(f"e{seq}+") == after
                assert machine.seek(after).events > seq

    def test_have_the_same_marks_in_every_machine(self, place: Path, name: str) -> None:
        trace = RECORDINGS[name](place)
        found = []
        options: list[dict[str, Any]] = [{}, {"interval": 0.001, "most": 4}, {"checkpoints": False}]
        for each in options:
            with TimeMachine(trace, **each) as machine:
                found.append(([machine.mark_of(e) for e in range(machine.events)], machine.total, dict(machine.traps)))
        assert found[0] == found[1] == found[2]


def poke_and_call(guest: Guest) -> None:
    guest.write(8, b"first")
    guest.set_global("g", 5)
    guest.call("fine")


class TestHostActivity:
    def test_inside_one_instruction_is_told_apart(self, place: Path) -> None:
        """The host's second import pokes, calls back (and that calls a host), pokes, and returns: each is a moment of its own."""
        with TimeMachine(kit.busy(place)) as machine:
            opened = next(e for e in range(machine.events) if machine.job.header(e)[:2] == (Kind.CALL, Status.OPEN))
            call = machine.mark_of(opened)
            assert call.step == 0
            inner = machine.mark_of(opened + 1)
            assert inner.clock == call.clock and inner.step
            before = machine.seek(call)
            assert before.frame is not None and not before.frame.is_host
            inside = machine.seek(inner)
            assert inside.frame is not None and inside.frame.is_host and inside.frame.name == "host.again"
            assert inside.depth == before.depth + 1
            closing = machine.closing(opened)
            assert machine.mark_of(closing).clock > call.clock
            assert machine.mark_after(opened).clock == machine.mark_of(closing).clock + 1

    def test_of_the_embedder_is_seen_step_by_step(self, place: Path) -> None:
        """poke, set a global, grow: before each the one before has happened, and it has not."""
        with TimeMachine(kit.busy(place)) as machine:
            poke = next(
                e for e in range(20, machine.events) if machine.job.header(e)[0] is Kind.POKE and machine.mark_of(e).clock > 8000
            )
            kinds = [machine.job.header(poke + i)[0] for i in range(3)]
            assert kinds == [Kind.POKE, Kind.GLOBAL, Kind.GROWTH]
            seen = []
            for i in range(4):
                here = machine.seek(f"e{poke + i}")
                assert here.frame is None, "nobody is in the guest"
                seen.append((here.read(40, 7), here.globals[0], here.memory_sizes[0]))
            assert [s[0] == b"between" for s in seen] == [False, True, True, True]
            assert [s[1] == 3 for s in seen] == [False, False, True, True]
            assert [s[2] >> 16 for s in seen] == [2, 2, 2, 3]

    def test_before_the_first_instruction_is_behind_the_start(self, place: Path) -> None:
        trace = kit.made(place, "poked", kit.TRAPS, poke_and_call)
        with TimeMachine(trace) as machine:
            assert [str(machine.mark_of(e)) for e in range(3)] == ["start.1", "start.2", "start.3"]
            assert machine.seek("start.1").read(8, 5) == bytes(5)
            assert machine.seek("start.2").read(8, 5) == b"first"
            assert machine.seek("start.2").globals == [0] and machine.seek("start.3").globals == [5]
            here = machine.seek(0)
            assert here.read(8, 5) == b"first" and here.globals == [5] and here.depth == 1

    def test_a_start_function_is_part_of_the_execution(self, place: Path) -> None:
        with TimeMachine(kit.busy(place)) as machine:
            assert str(machine.mark_of(0)) == "start.1", "the call of the start function"
            here = machine.seek(0)
            assert here.frame is not None and machine.module.start == here.frame.function
            assert here.read(64, 4) == bytes(4) and machine.seek(3).read(64, 4) == b"\x34\x12\0\0"

    def test_what_never_happened_has_no_mark(self, place: Path) -> None:
        with TimeMachine(kit.busy(place)) as machine:
            for mark in ("4000.1", "8043.99", "start.9"):
                with pytest.raises(UsageError):
                    machine.seek(mark)


def test_nothing_to_count(place: Path) -> None:
    """No call at all; a call of an empty function."""

    def nothing(guest: Guest) -> None:
        pass

    trace = kit.made(place, "nothing", kit.TRAPS, nothing)
    with TimeMachine(trace) as machine:
        assert (machine.total, machine.events) == (0, 0)
        assert machine.seek("end").frame is None
        assert machine.seek("start").frame is None
        with pytest.raises(UsageError, match="none"):
            machine.seek("e0")
    empty = harness.assemble('(module (func (export "f")))')
    with TimeMachine(kit.made(place, "empty", empty, lambda g: g.call("f"))) as machine:
        assert (machine.total, machine.events) == (0, 1)
        assert machine.seek("e0").events == 0 and machine.seek("end").events == 1
