"""What a person writes as a breakpoint or a watchpoint: what is wrong with it is said, with what may have been meant."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from replayer.machine import TimeMachine
from replayer.marks import Mark
from replayer.stops import breakpoint_at, watchpoint_at
from tests.timetravel import kit, programs
from traces._errors import UsageError


@pytest.fixture(scope="module")
def machines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, TimeMachine]]:
    place = tmp_path_factory.mktemp("stops")
    with kit.stations() as stations:
        made = {name: TimeMachine(programs.recorded(place, name)) for name in ("calls", "stepping_O0")}
        yield made
        for machine in made.values():
            machine.close()
        assert stations.gone()


@pytest.mark.parametrize(
    ("program", "text", "message"),
    [
        ("calls", "func=leav", "did you mean leaf"),
        ("calls", "func=99", "no function 99: the module has"),
        ("calls", "func=zz*", "no function"),
        ("calls", "import=host.nexd", "did you mean host.next"),
        ("calls", "import=", "is not a breakpoint"),
        ("calls", "line=calls.c:3", "no debug information"),
        ("calls", "pc=0xffffff", "the code ends at"),
        ("calls", "pc=4", "the nearest is 0x"),
        ("calls", "pc=-1", "no instruction"),
        ("calls", "pc=here", "not a code offset"),
        ("calls", "leaf", "is not a breakpoint: write func=NAME"),
        ("calls", "function=leaf", "is not a breakpoint"),
        ("calls", "", "is not a breakpoint"),
        ("stepping_O0", "line=steping.c:14", "stepping.c"),
        ("stepping_O0", "line=stepping.c:9999", "the last line that has is"),
        ("stepping_O0", "line=stepping.c:1", "the next line that has is"),
        ("stepping_O0", "line=14", "write FILE:LINE"),
        ("stepping_O0", "line=stepping.c:²", "write FILE:LINE"),
    ],
)
def test_breakpoints_that_cannot_be_are_refused(machines: dict[str, TimeMachine], program: str, text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        breakpoint_at(machines[program], text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0x10000000:4", "outside memory 0, which never has more than 262,144 bytes"),
        ("262144", "outside memory 0"),
        ("262143:2", "outside memory 0"),
        ("0:0", "outside memory 0"),
        ("5/0:1", "the module has 1 memory"),
        ("ten:1", "is not a range of memory"),
        ("-1:1", "is not a range of memory"),
        ("0:1:2", "is not a range of memory"),
        ("", "is not a range of memory"),
        ("global=2", "constant"),
        ("global=3", "the module has 3 globals"),
        ("global=x", "the module has 3 globals"),
        ("global=²", "the module has 3 globals"),
    ],
)
def test_watchpoints_that_cannot_be_are_refused(machines: dict[str, TimeMachine], text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        watchpoint_at(machines["calls"], text)


@pytest.mark.parametrize(("condition", "column"), [("local0 >", 9), ("(1", 3), ("1 == 2 == 3", 8), ("u8[", 4), ("a ; b", 3)])
def test_conditions_with_a_syntax_error_name_the_column(machines: dict[str, TimeMachine], condition: str, column: int) -> None:
    for make in (
        lambda: breakpoint_at(machines["calls"], "func=leaf", condition),
        lambda: watchpoint_at(machines["calls"], "0:1", condition),
    ):
        with pytest.raises(UsageError, match=f"at column {column}:"):
            make()


def test_what_was_refused_leaves_the_machine_usable(machines: dict[str, TimeMachine]) -> None:
    machine = machines["calls"]
    with pytest.raises(UsageError):
        breakpoint_at(machine, "func=nobody")
    assert machine.seek(Mark(7)).mark == Mark(7)


def test_names_indices_and_globs_mean_functions(machines: dict[str, TimeMachine]) -> None:
    machine = machines["calls"]
    (leaf,) = machine.names.find("leaf")
    by_name, by_index, by_mark = (breakpoint_at(machine, f"func={text}") for text in ("leaf", str(leaf), f"#{leaf}"))
    assert by_name.pcs == by_index.pcs == by_mark.pcs and len(by_name.pcs) == 1
    assert len(breakpoint_at(machine, "func=l*").pcs) == 3
    assert breakpoint_at(machine, "func=host.*").imports == (0, 1)


def test_ranges_may_be_decimal_or_hexadecimal(machines: dict[str, TimeMachine]) -> None:
    machine = machines["calls"]
    for text, address, length in (("16:4", 16, 4), ("0x10:0x4", 16, 4), ("0/16:4", 16, 4), ("16", 16, 1)):
        watch = watchpoint_at(machine, text)
        assert (watch.memory, watch.address, watch.length) == (0, address, length)
