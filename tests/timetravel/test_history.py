"""History against the table of all instructions: who wrote, what was called, what changed, and how much was executed."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from replayer.history import Profile, Write, flat, folded
from replayer.machine import TimeMachine
from replayer.marks import START, Mark
from tests.timetravel import kit, programs
from traces._errors import UsageError

SIZES = {"i32.store8": 1, "i32.store16": 2, "i32.store": 4, "i64.store": 8, "i64.store8": 1}


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, programs.Table]]:
    place = tmp_path_factory.mktemp("history")
    with kit.stations() as stations:
        machines = {name: TimeMachine(programs.recorded(place, name)) for name in ("calls", "throws")}
        yield {name: programs.Table(machine) for name, machine in machines.items()}
        for machine in machines.values():
            machine.close()
        assert stations.gone()


@pytest.fixture
def table(tables: dict[str, programs.Table]) -> programs.Table:
    return tables["calls"]


def stored(row: programs.Row) -> tuple[int, int] | None:
    """Which bytes an instruction stores to, decoded from its text and its operands."""
    name = row.instruction.split()[0]
    operands = [0 if bits is None else bits for bits in row.operands]
    if name in SIZES:
        offset = re.search(r"offset=(\d+)", row.instruction)
        return operands[-2] + (int(offset[1]) if offset else 0), SIZES[name]
    if name in ("memory.fill", "memory.copy"):
        return operands[-3], operands[-1]
    return None


def guest_writes(table: programs.Table, address: int, length: int) -> list[int]:
    """Instructions that store to any of these bytes."""
    found = []
    for clock, row in enumerate(table.rows):
        range_ = stored(row)
        if range_ is not None and range_[0] < address + length and address < range_[0] + range_[1]:
            traps = clock + 1 < table.total and table.rows[clock + 1].activation != row.activation
            if not traps:
                found.append(clock)
    return found


RANGES = ((32, 8), (36, 1), (64, 4), (200, 32), (204, 2), (208, 8), (70000, 4), (512, 4), (520, 4), (40, 7), (4, 15), (300, 8))


class TestLastWrite:
    @pytest.mark.parametrize(("address", "length"), RANGES)
    def test_is_found_again_and_again_as_a_scan_of_all_stores_says(
        self, table: programs.Table, address: int, length: int
    ) -> None:
        history = table.machine.history
        stores = guest_writes(table, address, length)
        found: list[Write] = []
        mark = table.machine.end
        while (write := history.last_write(address, length, before=mark)) is not None:
            assert write.mark < mark
            found.append(write)
            if write.by == "module":
                break
            mark = write.mark
        assert [write.mark.clock for write in found if write.by == "guest"] == stores[::-1]
        for write in found:
            if write.by == "guest":
                clock = write.mark.clock
                row, after = table.rows[clock], table.rows[clock + 1]
                assert write.pc == row.pc
                assert write.old == row.memory[write.address : write.address + len(write.old)]
                assert write.new == after.memory[write.address : write.address + len(write.new)]
                assert address <= write.address and write.address + len(write.new) <= address + length
                name = table.machine.names.name(row.function)
                assert write.function == name and write.frames[0].startswith(name)
            elif write.by == "host":
                assert write.event is not None
        if address == 4:
            assert [write.new for write in found] == [b"r everything", b"before anything"]
        if address == 40:
            assert [write.new for write in found if write.by == "host"] == [b"between"]
        if address == 300:
            assert not found

    def test_before_any_mark_is_the_nearest_store(self, table: programs.Table) -> None:
        chosen = random.Random(7)
        for _ in range(20):
            address, length = chosen.choice(RANGES[:5])
            clock = chosen.randrange(table.total)
            write = table.machine.history.last_write(address, length, before=Mark(clock))
            stores = [c for c in guest_writes(table, address, length) if c < clock]
            if write is None or write.by != "guest":
                assert not stores or (write is not None and write.mark.clock >= stores[-1])
            else:
                assert write.mark == Mark(stores[-1])

    def test_of_what_the_module_brought_along_is_the_module(self, table: programs.Table) -> None:
        history = table.machine.history
        write = history.last_write(100, 15, before=table.machine.end)
        assert write is not None
        assert (write.by, write.mark, write.new) == ("module", START, b"from the module")
        assert history.last_write(100, 15, before=START) is None

    def test_of_nothing_or_outside_is_an_error(self, table: programs.Table) -> None:
        history = table.machine.history
        for address, length, memory in ((0, 0, 0), (-1, 4, 0), (0, 4, 3)):
            with pytest.raises(UsageError):
                history.last_write(address, length, memory=memory)


class TestWrites:
    @pytest.mark.parametrize(("low", "high"), [(None, None), (30, 200), (158, 400)])
    @pytest.mark.parametrize(("address", "length"), [(0, 600), (200, 32), (36, 1), (69990, 20)])
    def test_are_complete_and_lead_from_one_snapshot_to_the_next(
        self, table: programs.Table, address: int, length: int, low: int | None, high: int | None
    ) -> None:
        machine = table.machine
        start = START if low is None else Mark(low)
        end = None if high is None else Mark(high)
        writes = list(machine.history.writes(address, length, start=start, end=end))
        assert [write.mark for write in writes] == sorted(write.mark for write in writes)
        expected = [c for c in guest_writes(table, address, length) if c >= (low or 0) and c < (high or table.total)]
        assert [write.mark.clock for write in writes if write.by == "guest"] == expected
        here = machine.look(start)
        kept = bytearray(here.read(address, length).ljust(length, b"\0"))
        here.close()
        for write in writes:
            part = slice(write.address - address, write.address - address + len(write.new))
            assert kept[part] == write.old
            kept[part] = write.new
        here = machine.look(end or machine.end)
        assert kept == here.read(address, length).ljust(length, b"\0")
        here.close()

    def test_of_a_megabyte_in_one_instruction_are_told_whole(self, tmp_path: Path) -> None:
        text = """(module (memory (export "memory") 20)
          (func (export "run") (memory.fill (i32.const 100) (i32.const 7) (i32.const 1200000))
            (i32.store8 (i32.const 70000) (i32.const 1))))"""
        trace = programs.recorded_from(tmp_path, "large", text, lambda guest: guest.call("run"))
        with TimeMachine(trace) as machine:
            writes = list(machine.history.writes(0, 20 << 16))
            assert sum(len(write.new) for write in writes) == 1_200_001
            last = machine.history.last_write(65000, 6000, before=Mark(4))
            assert last is not None
            assert (last.mark, last.address, last.new) == (Mark(3), 65000, b"\7" * 6000)


class TestChanges:
    @pytest.mark.parametrize(("low", "high"), [(0, 422), (10, 200), (200, 300), (5, 6)])
    def test_are_those_of_a_comparison_byte_by_byte(self, table: programs.Table, low: int, high: int) -> None:
        before, after = table.rows[low].memory, table.rows[high].memory
        before, after = before.ljust(len(after), b"\0"), after.ljust(len(before), b"\0")
        differ = {i for i, (a, b) in enumerate(zip(before, after, strict=True)) if a != b}
        changes = table.machine.history.changes(Mark(low), Mark(high))
        told = {change.address + i for change in changes for i in range(len(change.new))}
        assert told == differ
        for change in changes:
            assert len(change.old) == len(change.new)
            assert before[change.address : change.address + len(change.old)] == change.old
            assert after[change.address : change.address + len(change.new)] == change.new
        ends = [change.address + len(change.new) for change in changes]
        assert all(end < change.address for end, change in zip(ends, changes[1:], strict=False)), "neighbours are together"


def counted(table: programs.Table, low: int, high: int) -> tuple[Counter[int], Counter[int]]:
    """Instructions of its own, and with what it called, by function."""
    own: Counter[int] = Counter()
    total: Counter[int] = Counter()
    for row in table.rows[low:high]:
        own[row.function] += 1
        total.update({function for function, _ in row.frames})
    return own, total


class TestProfile:
    @pytest.mark.parametrize("name", ["calls", "throws"])
    @pytest.mark.parametrize("cut", [(0.0, 1.0), (0.2, 0.7), (0.5, 0.55), (0.9, 1.0)])
    def test_counts_what_the_table_counts(self, tables: dict[str, programs.Table], name: str, cut: tuple[float, float]) -> None:
        table = tables[name]
        low, high = (int(table.total * part) for part in cut)
        profile = table.machine.history.profile(START if low == 0 else Mark(low), Mark(high))
        assert profile.total == high - low
        own, total = counted(table, low, high)
        names = table.machine.names
        rows = {row.name: row for row in flat(profile)}
        assert {function: rows[names.name(function)].own for function in own} == dict(own)
        assert {function: rows[names.name(function)].total for function in total} == dict(total)
        lines = dict(line.rsplit(" ", 1) for line in folded(profile))
        assert sum(map(int, lines.values())) == high - low

    def test_counts_calls(self, table: programs.Table) -> None:
        profile = table.machine.history.profile()
        rows = {row.name: row.calls for row in flat(profile)}
        for index in {row.function for row in table.rows}:
            entered = sum(row.pc == table._first(index) for row in table.rows)
            assert rows[table.machine.names.name(index)] == entered

    def test_tells_paths_apart(self, table: programs.Table) -> None:
        def walk(node: Profile, path: tuple[int, ...]) -> Iterator[tuple[tuple[int, ...], int]]:
            here = path if node.function < 0 else (*path, node.function)
            if node.own:
                yield here, node.own
            for child in node.children:
                yield from walk(child, here)

        found = Counter(dict(walk(table.machine.history.profile(), ())))
        assert found == Counter(tuple(function for function, _ in row.frames) for row in table.rows)


class TestCalls:
    @pytest.mark.parametrize("name", ["calls", "throws"])
    @pytest.mark.parametrize(("low", "high"), [(0, None), (20, 60), (23, 60), (61, 160)])
    def test_of_every_function_begin_and_end_as_the_table_says(
        self, tables: dict[str, programs.Table], name: str, low: int, high: int | None
    ) -> None:
        table = tables[name]
        machine = table.machine
        last = table.total if high is None else min(high, table.total)
        functions = sorted({row.function for row in table.rows})
        found = list(
            machine.history.calls(functions, start=Mark(low) if low else START, end=None if high is None else Mark(last))
        )
        expected = []
        for clock in range(low, last):
            row = table.rows[clock]
            if row.pc != table._first(row.function):
                continue
            end: int | None = clock + 1
            while (
                end is not None
                and end < table.total
                and table._within(end, row.activation)
                and table.rows[end].depth >= row.depth
            ):
                end += 1
            assert end is not None
            inside = end < table.total and table._within(end, row.activation)
            if not inside and not machine.motion.activations.returned(machine.motion.activations.at(clock)):  # type: ignore[arg-type]
                end = None
            if end is not None and end >= last and not (end == last and not inside):
                end = None
            expected.append((row.function, Mark(clock), None if end is None else Mark(end), row.depth - 1))
        assert [(call.function, call.mark, call.end, call.depth) for call in found] == expected

    def test_tell_parameters_and_results(self, table: programs.Table) -> None:
        machine = table.machine
        (leaf,) = machine.names.find("leaf")
        seen = 0
        for call in machine.history.calls(leaf, args=True, results=True):
            assert call.args == (table.rows[call.mark.clock].locals[0],)
            if call.results is not None:
                assert call.args[0] is not None
                assert call.results == (call.args[0] * 3,)
                seen += 1
        assert seen >= 5

    def test_of_an_import_or_of_nothing_are_refused(self, table: programs.Table) -> None:
        history = table.machine.history
        with pytest.raises(UsageError, match="imported"):
            list(history.calls(0))
        with pytest.raises(UsageError, match="no function 99"):
            list(history.calls(99))
        with pytest.raises(UsageError, match="comes before"):
            list(history.calls(3, start=Mark(9), end=Mark(3)))

    def test_are_as_many_as_asked_for(self, table: programs.Table) -> None:
        (leaf,) = table.machine.names.find("leaf")
        every = list(table.machine.history.calls(leaf))
        assert list(table.machine.history.calls(leaf, most=2)) == every[:2]
