"""Motion against the table of all instructions: every kind of step, and every kind of stop, both ways."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from replayer import motion
from replayer.conditions import ConditionError
from replayer.machine import TimeMachine
from replayer.marks import START, Mark
from replayer.motion import Stop
from replayer.once import OnceCalls
from replayer.stops import Breakpoint, Watchpoint, breakpoint_at, entry_of, watchpoint_at
from replayer.watching import Cancelled
from tests.timetravel import kit, programs
from traces._errors import UsageError
from traces.layout import Kind

SHARE = float(os.environ.get("REPRISE_STEPS", "0.04"))
"""Which part of all instructions steps are tried from."""
MODES = [
    (how, by, reverse)
    for reverse in (False, True)
    for how, by in (("over", "line"), ("in", "line"), ("out", "line"), ("over", "instruction"), ("out", "instruction"))
]


class Bench:
    """A machine on one program, and the table of it."""

    def __init__(self, place: Path, name: str) -> None:
        self.name = name
        self.machine = TimeMachine(programs.recorded(place, name), search=[kit.ROOT / "tests" / "guests"])
        self._table: programs.Table | None = None

    @property
    def table(self) -> programs.Table:
        if self._table is None:
            self._table = programs.Table(self.machine)
        return self._table


@pytest.fixture(scope="module")
def benches(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Bench]]:
    place = tmp_path_factory.mktemp("motion")
    with kit.stations() as stations:
        made = {name: Bench(place, name) for name in programs.PROGRAMS}
        yield made
        for bench in made.values():
            bench.machine.close()
        assert stations.gone(), f"processes were left behind: {stations.alive()}"


@pytest.fixture(params=list(programs.PROGRAMS))
def bench(benches: dict[str, Bench], request: pytest.FixtureRequest) -> Bench:
    return benches[request.param]


@pytest.fixture
def calls(benches: dict[str, Bench]) -> Bench:
    return benches["calls"]


@pytest.fixture
def unoptimised(benches: dict[str, Bench]) -> Bench:
    return benches["stepping_O0"]


class TestSteps:
    @pytest.mark.parametrize(("how", "by", "reverse"), MODES)
    def test_arrive_where_the_table_says(self, bench: Bench, how: str, by: str, reverse: bool) -> None:
        machine, table = bench.machine, bench.table
        chosen = random.Random(f"{bench.name} {how} {by} {reverse}").sample(range(table.total), max(10, int(table.total * SHARE)))
        wrong = []
        for clock in chosen:
            machine.seek(Mark(clock))
            here = machine.motion.step(how, by=by, reverse=reverse)
            if here.mark != table.step(clock, how, by, reverse):
                wrong.append((clock, str(table.step(clock, how, by, reverse)), str(here.mark)))
            assert (here.mark < Mark(clock)) == reverse, "a step forward never goes back, nor a step backward forward"
            assert machine.here is here
        assert not wrong

    @pytest.mark.parametrize(("how", "by"), [("out", "instruction"), ("over", "line"), ("in", "line")])
    def test_backward_arrive_there_if_calls_are_found_from_the_front(
        self, bench: Bench, how: str, by: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        machine, table = bench.machine, bench.table
        monkeypatch.setattr(motion, "_NEAR", 3)
        found: list[bool] = []
        ask = OnceCalls.call

        def counted(self: OnceCalls, *arguments: Any) -> Mark | None:
            mark = ask(self, *arguments)
            found.append(mark is not None)
            return mark

        monkeypatch.setattr(OnceCalls, "call", counted)
        wrong = []
        for clock in random.Random(f"{bench.name} {how} once").sample(range(table.total), max(10, int(table.total * SHARE))):
            machine.seek(Mark(clock))
            here = machine.motion.step(how, by=by, reverse=True)
            if here.mark != table.step(clock, how, by, True):
                wrong.append((clock, str(table.step(clock, how, by, True)), str(here.mark)))
        assert not wrong
        if how == "out" and not machine.motion.catches:
            assert True in found, "no call was found from the front"

    def test_backward_one_by_one_are_the_reverse_of_forward(self, benches: dict[str, Bench]) -> None:
        machine = benches["throws"].machine
        machine.seek(START)
        forward = [machine.here.mark]
        while machine.here.mark != machine.end:
            forward.append(machine.motion.step("instruction").mark)
        assert forward == [START, *(Mark(clock) for clock in range(machine.total)), machine.end]
        backward = [machine.here.mark]
        while machine.here.mark != START:
            backward.append(machine.motion.step("instruction", reverse=True).mark)
        assert backward == forward[::-1]

    @pytest.mark.parametrize("how", ["in", "over", "out", "instruction"])
    def test_stay_at_the_edges(self, bench: Bench, how: str) -> None:
        machine = bench.machine
        machine.seek(START)
        assert machine.motion.step(how, reverse=True).mark == START
        machine.seek(machine.end)
        assert machine.motion.step(how).mark == machine.end
        machine.seek(START)
        assert machine.motion.step(how).mark == Mark(0)

    @pytest.mark.parametrize("how", ["in", "over", "out", "instruction"])
    def test_from_inside_a_host_go_to_the_guest(self, calls: Bench, how: str) -> None:
        machine = calls.machine
        (poke, *_) = (seq for seq, (kind, _, _) in enumerate(calls.table.kinds) if kind is Kind.POKE and seq > 6)
        mark = machine.mark_of(poke)
        assert mark.step
        machine.seek(mark)
        assert machine.motion.step(how).mark == Mark(mark.clock + 1)
        machine.seek(mark)
        assert machine.motion.step(how, reverse=True).mark == Mark(mark.clock)

    def test_over_lines_forward_and_back_meet_the_same_lines(self, unoptimised: Bench) -> None:
        """From line to line through a function without calls of itself, and back."""
        machine = unoptimised.machine
        stop = machine.motion.find([breakpoint_at(machine, "func=run")], start=START)
        assert stop is not None
        here = machine.seek(stop.mark)
        forward = [here.mark]
        while here.frames and here.frames[0].name == "run":
            here = machine.motion.step("over")
            forward.append(here.mark)
        machine.seek(forward[-2])
        backward = [forward[-2]]
        while backward[-1] > forward[0]:
            backward.append(machine.motion.step("over", reverse=True).mark)
        assert backward == forward[-2::-1]

    def test_unknown_kinds_are_refused(self, calls: Bench) -> None:
        here = calls.machine.seek(Mark(5))
        for how, by in (("sideways", "line"), ("over", "page"), ("", "line")):
            with pytest.raises(UsageError, match="cannot step"):
                calls.machine.motion.step(how, by=by)
        assert calls.machine.here is here

    def test_a_deep_recursion_is_stepped_over_and_out_of(self, tmp_path: Path) -> None:
        text = """(module
          (func $deep (param $n i32) (result i32)
            (if (result i32) (local.get $n)
              (then (i32.add (call $deep (i32.sub (local.get $n) (i32.const 1))) (i32.const 1))) (else (i32.const 0))))
          (func (export "run") (result i32) (call $deep (i32.const 2000))))"""
        trace = programs.recorded_from(tmp_path, "deep", text, lambda guest: guest.call("run"))
        with TimeMachine(trace) as machine:
            machine.seek(Mark(1))  # the call
            total = machine.total
            assert machine.motion.step("over").mark == machine.end  # nothing is left of `run` behind it
            machine.seek(Mark(1 + 6 * 1000))
            middle = machine.here.depth
            assert machine.motion.step("out").depth == middle - 1
            assert machine.motion.step("out", reverse=True).mark < Mark(1 + 6 * 1000)
            machine.seek(Mark(total - 1))
            assert machine.here.depth == 2
            assert machine.motion.step("out", reverse=True).mark == Mark(1)


def everywhere(machine: TimeMachine, points: list[Breakpoint], watches: list[Watchpoint], reverse: bool) -> list[Stop]:
    """All stops from one end to the other."""
    found: list[Stop] = []
    mark = machine.end if reverse else START
    while (stop := machine.motion.find(points, watches, start=mark, reverse=reverse)) is not None:
        assert (stop.mark < mark) if reverse else (stop.mark > mark), "a stop at the present position is left behind"
        found.append(stop)
        mark = stop.mark
    return found


def both_ways(machine: TimeMachine, *points: Breakpoint) -> list[Mark]:
    forward = [stop.mark for stop in everywhere(machine, list(points), [], False)]
    assert [stop.mark for stop in everywhere(machine, list(points), [], True)] == forward[::-1]
    return forward


class TestBreakpoints:
    @pytest.mark.parametrize("text", ["func=leaf", "func=3", "func=loops", "func=hop"])
    def test_on_functions_stop_at_every_entry(self, calls: Bench, text: str) -> None:
        machine, table = calls.machine, calls.table
        point = breakpoint_at(machine, text)
        assert both_ways(machine, point) == [Mark(c) for c, row in enumerate(table.rows) if row.pc == point.pcs[0]]

    def test_on_globs_stop_at_the_entries_of_all(self, calls: Bench) -> None:
        machine, table = calls.machine, calls.table
        point = breakpoint_at(machine, "func=l*")
        entries = {entry_of(machine, index) for name in ("leaf", "loops", "last") for index in machine.names.find(name)}
        assert both_ways(machine, point) == [Mark(c) for c, row in enumerate(table.rows) if row.pc in entries]

    @pytest.mark.parametrize("name", programs.SOURCED)
    def test_on_functions_with_lines_stop_behind_the_prologue(self, benches: dict[str, Bench], name: str) -> None:
        bench = benches[name]
        machine, table = bench.machine, bench.table
        point = breakpoint_at(machine, "func=clamp")
        (index,) = machine.names.find("clamp")
        entry = entry_of(machine, index)
        marks = both_ways(machine, point)
        assert marks == [Mark(c) for c, row in enumerate(table.rows) if row.pc == entry]
        assert len(marks) == sum(row.pc == table._first(index) for row in table.rows)

    @pytest.mark.parametrize("name", programs.SOURCED)
    def test_on_lines_stop_where_the_line_begins(self, benches: dict[str, Bench], name: str) -> None:
        bench = benches[name]
        machine, table = bench.machine, bench.table
        for line in (14, 69, 94):
            point = breakpoint_at(machine, f"line=stepping.c:{line}")
            marks = both_ways(machine, point)
            assert marks == [Mark(c) for c, row in enumerate(table.rows) if row.pc in point.pcs]
            assert marks
            for mark in marks:
                found = table.line(table.rows[mark.clock].pc)
                assert found in (programs.PROLOGUE, ("stepping.c", line))

    def test_on_instructions_stop_at_each_of_them(self, calls: Bench) -> None:
        machine, table = calls.machine, calls.table
        for clock in random.Random(4).sample(range(table.total), 6):
            pc = table.rows[clock].pc
            marks = both_ways(machine, breakpoint_at(machine, f"pc={pc:#x}"))
            assert marks == [Mark(c) for c, row in enumerate(table.rows) if row.pc == pc]

    def test_behind_a_trap_are_not_reached(self, calls: Bench) -> None:
        """The instruction behind one that traps stands in the same stretch and is never begun."""
        machine, table = calls.machine, calls.table
        load = next(c for c, row in enumerate(table.rows) if row.instruction.startswith("i32.load"))
        (index,) = machine.names.find("trap")
        steps = [step.at - machine.details.code_start for step in machine.details.of(index).steps]
        behind = steps[steps.index(table.rows[load].pc) + 1]
        assert not any(row.pc == behind for row in table.rows)
        assert both_ways(machine, breakpoint_at(machine, f"pc={behind:#x}")) == []

    def test_on_imports_stop_at_every_call(self, calls: Bench) -> None:
        machine, table = calls.machine, calls.table
        made = [Mark(c) for c, row in enumerate(table.rows) if row.instruction.startswith("call 0 ")]
        for text in ("import=host.next", "import=next", "func=0"):
            assert both_ways(machine, breakpoint_at(machine, text)) == made

    def test_of_several_the_nearest_counts(self, calls: Bench) -> None:
        machine, table = calls.machine, calls.table
        points = [breakpoint_at(machine, text) for text in ("func=leaf", "import=again", "func=down")]
        marks = both_ways(machine, *points)
        pcs = {pc for point in points for pc in point.pcs}
        wanted = [c for c, row in enumerate(table.rows) if row.pc in pcs or row.instruction.startswith("call 1 ")]
        assert marks == [Mark(c) for c in wanted]

    @pytest.mark.parametrize(
        ("text", "condition", "holds"),
        [
            ("func=loops", "local0 > 2", lambda row: row.locals[0] > 2),
            ("func=leaf", "local0 == 2 || local0 == 5", lambda row: row.locals[0] in (2, 5)),
            ("func=leaf", "global0 == 7", lambda row: row.globals[0] == 7),
            ("func=leaf", "$sum != 7", lambda row: row.globals[0] != 7),
            ("func=leaf", "u8[36] == 5", lambda row: row.memory[36] == 5),
            ("func=down", "depth >= 4", lambda row: row.depth >= 4),
            ("func=down", "clock > 100", None),
            ("func=down", "pc > 0", lambda row: True),
            ("func=down", "pc < 0", lambda row: False),
        ],
    )
    def test_with_conditions_stop_where_they_hold(self, calls: Bench, text: str, condition: str, holds: Any) -> None:
        machine, table = calls.machine, calls.table
        point = breakpoint_at(machine, text, condition)
        rows = [(c, row) for c, row in enumerate(table.rows) if row.pc in point.pcs]
        wanted = [Mark(c) for c, row in rows if (c > 100 if holds is None else holds(row))]
        assert both_ways(machine, point) == wanted

    def test_with_conditions_on_events_see_the_event(self, calls: Bench) -> None:
        machine = calls.machine
        marks = both_ways(machine, breakpoint_at(machine, "import=host.next", 'event.name == "host.next" && event.args[0] == 1'))
        assert marks == [Mark(4)]

    def test_with_conditions_on_source_variables(self, unoptimised: Bench) -> None:
        machine, table = unoptimised.machine, unoptimised.table
        point = breakpoint_at(machine, "func=factorial", "n == 2")
        marks = both_ways(machine, point)
        assert len(marks) == 1
        assert table.rows[marks[0].clock].depth == 4
        assert len(both_ways(machine, breakpoint_at(machine, "func=inner", "counter > 100"))) > 0

    @pytest.mark.parametrize("skip", [0, 1, 3, 100])
    def test_let_as_many_hits_pass_as_they_are_told(self, calls: Bench, skip: int) -> None:
        machine = calls.machine
        marks = both_ways(machine, breakpoint_at(machine, "func=leaf"))
        point = breakpoint_at(machine, "func=leaf", skip=skip)
        found = machine.motion.find([point], start=START)
        back = machine.motion.find([point], start=machine.end, reverse=True)
        assert (found and found.mark) == (marks[skip] if skip < len(marks) else None)
        assert (back and back.mark) == (marks[-1 - skip] if skip < len(marks) else None)

    def test_run_goes_there_and_to_the_edges_without_any(self, calls: Bench) -> None:
        machine = calls.machine
        machine.seek(START)
        here, stop = machine.motion.run([breakpoint_at(machine, "func=down")])
        assert here is machine.here and here.mark == stop.mark and stop.reason == "func=down"
        here, stop = machine.motion.run()
        assert here.mark == machine.end and stop.reason == "end"
        here, stop = machine.motion.run(reverse=True)
        assert here.mark == START and stop.reason == "start"

    def test_run_to_says_what_is_not_reached_and_stays(self, calls: Bench) -> None:
        machine = calls.machine
        here = machine.seek(machine.end)
        with pytest.raises(UsageError, match="func=down: not reached after mark"):
            machine.motion.run_to(breakpoint_at(machine, "func=down"))
        assert machine.here is here
        assert machine.motion.run_to(breakpoint_at(machine, "func=down"), reverse=True).mark < machine.end

    def test_a_condition_that_fails_is_an_error_and_the_machine_stays(self, calls: Bench) -> None:
        machine = calls.machine
        here = machine.seek(Mark(20))
        for condition, message in (("nothing > 1", "nothing"), ("local99 == 1", "local"), ("u32[0xffffffff] == 1", "memory")):
            with pytest.raises(ConditionError, match=message):
                machine.motion.run([breakpoint_at(machine, "func=down", condition)])
            assert machine.here is here
        assert machine.motion.step("instruction").mark == Mark(21)


class TestWatchpoints:
    def changes(self, table: programs.Table, low: int, high: int) -> list[int]:
        """Instructions and hosts' moments at which bytes came to differ, by the clock of the instruction before."""
        rows = table.rows
        return [c for c in range(len(rows) - 1) if rows[c].memory[low:high] != rows[c + 1].memory[low:high]]

    @pytest.mark.parametrize(("address", "length"), [(32, 8), (200, 24), (64, 4), (512, 12), (0, 600)])
    def test_on_memory_stop_behind_a_change_or_before_it(self, calls: Bench, address: int, length: int) -> None:
        machine, table = calls.machine, calls.table
        watch = watchpoint_at(machine, f"{address}:{length}", changes_only=True)
        forward = everywhere(machine, [], [watch], False)
        clocks = {stop.hit.clock for stop in forward if 0 <= stop.hit.clock < table.total - 1}
        assert set(self.changes(table, address, address + length)) <= clocks
        backward = everywhere(machine, [], [watch], True)
        assert {(stop.hit, stop.event) for stop in backward} == {(stop.hit, stop.event) for stop in forward}
        for stop in forward:
            assert stop.mark > stop.hit and stop.address is not None
            assert self.read(machine, stop.hit, stop) == stop.old
            assert self.read(machine, stop.mark, stop) == stop.new
            assert stop.old != stop.new
        for stop in backward:
            assert stop.mark == stop.hit

    @staticmethod
    def read(machine: TimeMachine, mark: Mark, stop: Stop) -> bytes:
        here = machine.look(mark)
        try:
            assert stop.address is not None
            return here.read(stop.address, len(stop.new), stop.memory)
        finally:
            here.close()

    def test_on_memory_stop_at_writes_that_change_nothing_too(self, calls: Bench) -> None:
        machine, table = calls.machine, calls.table
        stores = [c for c, row in enumerate(table.rows) if row.instruction == "i32.store8" and row.operands[-2] == 36]
        found = everywhere(machine, [], [watchpoint_at(machine, "36:1")], False)
        assert [stop.hit.clock for stop in found] == stores
        assert [stop.mark for stop in found] == [Mark(c + 1) for c in stores]

    def test_that_change_nothing_are_left_out_if_only_changes_count(self, calls: Bench) -> None:
        machine, table = calls.machine, calls.table
        found = everywhere(machine, [], [watchpoint_at(machine, "global=0", changes_only=True)], False)
        sets = [c for c, row in enumerate(table.rows) if row.instruction == "global.set 0"]
        changing = [c for c in sets if table.rows[c].globals[0] != table.rows[c + 1].globals[0]]
        assert [stop.hit.clock for stop in found if stop.event is None] == changing
        assert len(changing) < len(sets)

    def test_on_globals_stop_at_every_set(self, calls: Bench) -> None:
        machine, table = calls.machine, calls.table
        sets = [c for c, row in enumerate(table.rows) if row.instruction == "global.set 0"]
        watch = watchpoint_at(machine, "global=0")
        found = everywhere(machine, [], [watch], False)
        assert [stop.hit.clock for stop in found if stop.event is None] == sets
        for stop in found:
            if stop.event is None:
                assert int.from_bytes(stop.old, "little") == table.rows[stop.hit.clock].globals[0]
                assert int.from_bytes(stop.new, "little") == table.rows[stop.mark.clock].globals[0]
        back = everywhere(machine, [], [watch], True)
        assert [stop.hit for stop in back] == [stop.hit for stop in found][::-1]

    def test_take_conditions_and_skips(self, calls: Bench) -> None:
        machine = calls.machine
        plain = everywhere(machine, [], [watchpoint_at(machine, "32:8")], False)
        second = machine.motion.find([], [watchpoint_at(machine, "32:8", skip=1)], start=START)
        assert second == plain[1]
        some = everywhere(machine, [], [watchpoint_at(machine, "32:8", "u8[34] == 2")], False)
        assert 0 < len(some) < len(plain)

    def test_together_with_breakpoints_the_nearest_counts(self, calls: Bench) -> None:
        machine = calls.machine
        point, watch = breakpoint_at(machine, "func=down"), watchpoint_at(machine, "32:8")
        apart = {stop.mark for stop in everywhere(machine, [point], [], False)}
        apart |= {stop.mark for stop in everywhere(machine, [], [watch], False)}
        assert [stop.mark for stop in everywhere(machine, [point], [watch], False)] == sorted(apart)


class TestCancelling:
    def test_leaves_the_machine_usable_and_no_process_behind(self, tmp_path: Path) -> None:
        trace = kit.spin(tmp_path, rounds=2, turns=8_000_000)

        def stop(_clock: int, _events: int) -> None:
            raise Cancelled

        with kit.stations() as stations:
            with TimeMachine(trace) as machine:
                machine.know()
                motion, history = machine.motion, machine.history
                never = breakpoint_at(machine, "func=step", "clock < 0")
                watch = watchpoint_at(machine, "65528:8", "clock < 0")
                here = machine.seek(Mark(machine.total // 20))
                questions: list[Callable[[], Any]] = [
                    lambda: motion.run([never], watch=stop),
                    lambda: motion.run([never], reverse=True, watch=stop),
                    lambda: motion.run([], [watch], watch=stop),
                    lambda: motion.step("out", watch=stop),
                    lambda: list(history.calls(1, watch=stop)),
                    lambda: history.profile(watch=stop),
                    lambda: list(history.writes(0, 8, watch=stop)),
                ]
                for number, question in enumerate(questions):
                    with pytest.raises(Cancelled):
                        question()
                    assert machine.here is here, number
                assert machine.motion.step("instruction").mark == Mark(here.mark.clock + 1)
                moments = len(machine.checkpoints.all())
                assert kit.eventually(lambda: len(stations.alive()) <= moments + 2), "cancelled processes go on"
            assert stations.gone()
