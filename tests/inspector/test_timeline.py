"""The time line: lanes of calls and spans, position, selection, zoom; and the way from one failed call to the next.

What it shows is held against the tables as pyarrow reads them and against the marks the time machine gives each event.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from textual import events

from inspector.events.spans import Lane, Survey, Times, clocks_of, counts, duration, survey
from inspector.panes.axis import Axis, draw_lane, label_for
from inspector.panes.timeline import TimelinePane
from replayer.machine import TimeMachine
from tests import harness
from tests.inspector.kit import GOLDENS, INCIDENT, Desk, travel
from tests.recording.test_tampering import SCRIPT
from tests.scripts import RecordedReach, hosts, scripted_guest
from traces.layout import Status
from traces.tracedir import Trace

NESTED = GOLDENS / "nested.trace"
PAY = 29
SEARCHES = (15, 22)
TALL, WIDE = (120, 40), (160, 50)


@pytest.fixture(scope="module")
def scripted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Hosts that call back, trap and are trapped, several exports, some told in one event."""
    script = SCRIPT.again()
    place = tmp_path_factory.mktemp("scripted") / "a.trace"
    harness.record(scripted_guest(), place, lambda guest: script.run(RecordedReach(guest)), hosts=hosts(script))
    return place


@pytest.fixture(scope="module")
def denied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's recording, in which two searches were denied."""

    def change(rows: list[harness.Row]) -> None:
        for seq in SEARCHES:
            rows[seq].status = Status.DENIED

    return harness.forge(INCIDENT, tmp_path_factory.mktemp("denied"), change)


def rows_of(trace: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = pq.read_table(trace / "events.parquet").to_pylist()
    return found


def surveyed(trace: Path) -> Survey:
    with Trace.open(trace) as opened:
        found = survey(opened)
    assert found is not None
    return found


def marks_of(trace: Path) -> list[int]:
    """The clock of every event's mark."""
    with TimeMachine(trace) as machine:
        machine.know()
        return [max(0, machine.mark_of(seq).clock) for seq in range(machine.events)]


# -- the axis ------------------------------------------------------------------------------------------------------------


@given(low=st.integers(0, 1 << 40), length=st.integers(1, 1 << 40), columns=st.integers(1, 300), share=st.floats(0, 1))
def test_every_clock_is_in_the_column_it_is_drawn_in(low: int, length: int, columns: int, share: float) -> None:
    axis = Axis(low, low + length, columns)
    clock = min(low + int(length * share), low + length - 1)
    at = axis.column(clock)

    assert at is not None and 0 <= at < columns
    first, end = axis.part(at)
    assert first <= clock < end
    assert axis.column(low - 1 if low else low + length + 1) is None


@given(
    gaps=st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)), max_size=60),
    low=st.integers(0, 2000),
    length=st.integers(1, 500),
)
def test_what_is_under_some_columns_is_found_as_one_would_by_looking_at_all(
    gaps: list[tuple[int, int]], low: int, length: int
) -> None:
    starts, stops, clock = [], [], 0
    for gap, size in gaps:
        starts.append(clock + gap)
        clock += gap + size + 1
        stops.append(clock - 1)
    count = len(starts)
    lane = Lane("spans", 0, starts, stops, starts, ["a"] * count, ["b"] * count, starts, stops)
    touching = [i for i in range(count) if starts[i] < low + length and stops[i] >= low]

    assert lane.at(low, low + length) == (touching[0] if touching else None)
    assert lane.beginning(low, low + length) == sum(low <= start < low + length for start in starts)
    drawn = draw_lane(lane, Axis(low, low + length, 40))
    assert len(drawn) == 40
    assert any(text.strip() for text, _ in drawn) == bool(touching)


def test_names_are_shown_whole_or_not_at_all() -> None:
    assert label_for("tool.pay", 8) == "tool.pay"
    assert label_for("tool.pay", 7) == "pay"
    assert label_for("tool.pay", 2) == ""
    assert label_for("a\x1b[31m", 20) == "a\ufffd[31m"
    assert label_for("支払", 20) == "\ufffd\ufffd"


def test_names_never_run_into_what_follows() -> None:
    lane = Lane("spans", 0, [0, 1], [0, 1], [0, 1], ["first", "second"], ["x", "x"], [0, 60], [1, 100])
    text = "".join(letter for letter, _ in draw_lane(lane, Axis(0, 100, 50)))

    assert text.startswith("■ first ")
    assert text[30:].startswith("┣ second ━") and text.endswith("┫")


# -- what there is to show -----------------------------------------------------------------------------------------------


def calls_by_hand(rows: Sequence[dict[str, Any]]) -> list[tuple[int, int, int, str]]:
    """(level, first event, last, name) of every call of an export, found by following the records."""
    found: list[tuple[int, int, int, str]] = []
    stack: list[tuple[str, int, str]] = []
    for row in rows:
        kind, seq = row["kind"], row["seq"]
        level = sum(one == "guest" for one, _, _ in stack)
        if kind in ("export", "callback"):
            if row["status"] == "open":
                stack.append(("guest", seq, row["target"] or "start"))
            else:
                found.append((level, seq, seq, row["target"] or "start"))
        elif kind == "call" and row["status"] == "open":
            stack.append(("host", seq, ""))
        elif kind == "return":
            what, first, name = stack.pop()
            if what == "guest":
                found.append((level - 1, first, seq, name))
        elif kind in ("trap", "exit", "stop"):
            while stack:
                what, first, name = stack.pop()
                if what == "guest":
                    found.append((level - 1, first, seq, name))
                    break
    return sorted(found)


@pytest.mark.parametrize("name", ["incident", "nested", "fuel", "scripted"])
def test_calls_of_exports_are_those_of_the_records(name: str, request: pytest.FixtureRequest) -> None:
    trace = request.getfixturevalue("scripted") if name == "scripted" else GOLDENS / f"{name}.trace"
    found = [
        (lane.level, first, last, label)
        for lane in surveyed(trace).lanes
        if lane.name == "exports"
        for first, last, label in zip(lane.firsts, lane.lasts, lane.labels, strict=True)
    ]

    assert sorted(found) == [call for call in calls_by_hand(rows_of(trace)) if call[0] < 2]


@pytest.mark.parametrize("name", ["incident", "nested"])
def test_spans_are_those_of_the_table_without_the_run(name: str) -> None:
    table = pq.read_table(GOLDENS / f"{name}.trace" / "spans.parquet").to_pylist()
    found = [
        (first, last, label)
        for lane in surveyed(GOLDENS / f"{name}.trace").lanes
        if lane.name == "spans"
        for first, last, label in zip(lane.firsts, lane.lasts, lane.labels, strict=True)
    ]

    assert found == [(row["start_seq"], row["end_seq"], row["name"]) for row in table if row["parent"] is not None]


def test_a_recording_without_hosts_has_no_lane_of_spans() -> None:
    assert [lane.name for lane in surveyed(GOLDENS / "fuel.trace").lanes] == ["exports"]


@pytest.mark.parametrize("name", ["incident", "fuel", "scripted", "denied"])
def test_problems_are_denials_traps_and_errors_of_hosts(name: str, request: pytest.FixtureRequest) -> None:
    trace = request.getfixturevalue(name) if name in ("scripted", "denied") else GOLDENS / f"{name}.trace"
    wanted = {
        row["of"] if row["kind"] == "return" else row["seq"]
        for row in rows_of(trace)
        if row["status"] in ("trap", "denied") and row["kind"] != "exit"
    }
    found = surveyed(trace)

    assert list(found.problems) == sorted(wanted)
    assert bool(wanted) == (name != "incident")  # in which files that are not there are looked for
    for seq in range(-1, 50):
        assert found.next_problem(seq) == min((one for one in wanted if one > seq), default=None)
        assert found.next_problem(seq, reverse=True) == max((one for one in wanted if one < seq), default=None)


def test_looking_through_ends_when_it_is_not_wanted() -> None:
    with Trace.open(INCIDENT) as trace:
        assert survey(trace, lambda: False) is None


@pytest.mark.parametrize("name", ["incident", "nested", "scripted"])
def test_stretches_begin_and_end_where_their_events_do(name: str, request: pytest.FixtureRequest) -> None:
    trace = request.getfixturevalue("scripted") if name == "scripted" else GOLDENS / f"{name}.trace"
    with TimeMachine(trace) as machine:
        machine.know()
        marks = [max(0, machine.mark_of(seq).clock) for seq in range(machine.events)]
        placed = surveyed(trace).placed(
            lambda events: clocks_of(machine.job.mark_clocks, events), machine.clocks.known, machine.total
        )
    kinds = [row["kind"] for row in rows_of(trace)]
    for lane in placed.lanes:
        assert list(lane.starts) == [marks[first] for first in lane.firsts]
        for first, last, stop in zip(lane.firsts, lane.lasts, lane.stops, strict=True):
            assert stop >= marks[first]
            if kinds[last] in ("return", "trap", "exit", "stop"):
                assert stop == marks[last]


def test_a_replay_that_came_less_far_has_what_it_reached() -> None:
    whole = surveyed(INCIDENT)
    placed = whole.placed(lambda events: [10 * max(0, seq) for seq in events], 20, 199)

    spans = next(lane for lane in placed.lanes if lane.name == "spans")
    assert list(spans.firsts) == [14, 15, 18]
    exports = next(lane for lane in placed.lanes if lane.name == "exports")
    assert (list(exports.starts), list(exports.stops)) == ([0], [199])


@given(seed=st.integers(0, 1 << 30), columns=st.integers(1, 60))
def test_events_are_counted_in_the_columns_they_are_drawn_in(seed: int, columns: int) -> None:
    chance = random.Random(seed)
    begun = sorted(chance.randrange(1, 5000) for _ in range(chance.randrange(300)))
    low = chance.randrange(4000)
    axis = Axis(low, low + chance.randrange(1, 1000), columns)
    found = counts(lambda first, count: begun[first : first + count], 0, len(begun), axis.low, axis.high, columns)
    wanted = [0] * columns
    for clock in begun:
        if axis.low <= clock - 1 < axis.high:
            at = axis.column(clock - 1)
            assert at is not None
            wanted[at] += 1

    assert found == wanted


def test_times_are_those_of_the_table() -> None:
    rows = rows_of(INCIDENT)
    with Trace.open(INCIDENT) as trace:
        times = Times(trace)
        assert [times.of(seq) for seq in (0, 42, 14)] == [rows[seq]["time_ns"] for seq in (0, 42, 14)]
        times.close()


@pytest.mark.parametrize(
    ("nanoseconds", "text"), [(0, "0 ns"), (999, "999 ns"), (1500, "1.5 µs"), (12_345_678, "12.3 ms"), (2 * 10**12, "2,000 s")]
)
def test_durations_have_few_digits(nanoseconds: int, text: str) -> None:
    assert duration(nanoseconds) == text


# -- under the pilot -----------------------------------------------------------------------------------------------------


async def ready(desk: Desk) -> TimelinePane:
    """The pane, once everything is on it, and active."""
    pane = desk.app.pane(TimelinePane)
    await desk.until(lambda: desk.app.survey is not None and (pane.survey.lanes or pane.survey.clocks), "the survey")
    desk.app.activate("timeline")
    await desk.settled()
    return pane


def lane_line(desk: Desk, name: str) -> str:
    return next(line for line in desk.lines() if line.startswith(f"│{name} "))


def test_it_says_where_we_are_and_when() -> None:
    async def journey(desk: Desk) -> None:
        await ready(desk)
        total = desk.app.facts.total if desk.app.facts is not None else 0
        time = rows_of(INCIDENT)[PAY]["time_ns"] / 1e9
        assert f"timeline  mark 112,999 of {total:,} (76 %)  e29 pay  +{time:.3f} s" in desk.screen()
        await desk.press("comma")
        assert "e28 complete" in desk.screen()

    travel(journey, size=TALL)


def test_there_is_a_lane_for_what_the_recording_has() -> None:
    async def journey(desk: Desk) -> None:
        await ready(desk)
        assert " _start ━" in lane_line(desk, "exports")
        assert "■ tool.search" in lane_line(desk, "spans")
        assert "●" in lane_line(desk, "effects")

    travel(journey, size=WIDE)

    async def nested(desk: Desk) -> None:
        pane = await ready(desk)
        assert [lane.level for lane in pane.lanes if isinstance(lane, Lane)] == [0, 1, 0]
        assert "  inside" in desk.screen()

    travel(nested, NESTED, size=WIDE)

    async def without(desk: Desk) -> None:
        await ready(desk)
        assert "│spans" not in desk.screen()
        assert "✗" in lane_line(desk, "effects")

    travel(without, GOLDENS / "fuel.trace", size=TALL)


def test_in_a_small_screen_it_is_one_line() -> None:
    async def journey(desk: Desk) -> None:
        pane = await ready(desk)
        assert pane.size.height == 1
        assert "┃" in desk.lines()[-2] and "●" not in desk.lines()[1]
        await desk.press("w", "left", "f")
        assert "┃" in desk.lines()[-2]

    travel(journey, size=(80, 24))


def test_what_is_zoomed_into_is_counted_exactly() -> None:
    marks = marks_of(INCIDENT)

    async def journey(desk: Desk) -> None:
        pane = await ready(desk)
        for _ in range(7):
            await desk.press("w")
        await desk.settled()
        axis = pane.axis
        assert axis.high - axis.low < 2000 and axis.low <= 112_999 < axis.high
        assert pane._exact is not None and pane._exact[0] == axis
        wanted = [0] * axis.columns
        for mark in marks:
            at = axis.column(mark)
            if at is not None and mark < axis.high:
                wanted[at] += 1
        assert list(pane._exact[1]) == wanted and sum(wanted) > 0
        assert f"mark {axis.low:,} to {axis.high:,}" in desk.screen()

    travel(journey, size=TALL)


def test_a_stretch_is_selected_measured_and_fitted() -> None:
    marks, rows = marks_of(INCIDENT), rows_of(INCIDENT)

    async def journey(desk: Desk) -> None:
        pane = await ready(desk)
        for _ in range(20):
            await desk.press("shift+left")
        await desk.until(lambda: pane.measured, "how much it is")
        assert pane.chosen is not None
        low, high = pane.chosen
        inside = [seq for seq, mark in enumerate(marks) if low <= mark < high]
        taken = duration(rows[inside[-1]]["time_ns"] - rows[inside[0]]["time_ns"])
        assert high == 112_999 and len(inside) > 3
        assert f"selected {high - low:,} instructions, {len(inside)} events, {taken}" in desk.screen()
        await desk.press("shift+right")
        assert pane.chosen[0] > low
        await desk.press("f")
        axis = pane.axis
        assert axis.low <= pane.chosen[0] and pane.chosen[1] <= axis.high < pane.total
        await desk.press("f")
        assert (pane.low, pane.high) == (0.0, 1.0)
        await desk.press("escape")
        assert pane.chosen is None and "selected" not in desk.screen()

    travel(journey, size=TALL)


def test_escape_cancels_what_runs_where_nothing_is_selected() -> None:
    async def journey(desk: Desk) -> None:
        await ready(desk)
        desk.app.say("something")
        await desk.press("escape")
        assert desk.app.said is None

    travel(journey, size=TALL)


def test_the_mouse_selects_zooms_and_goes() -> None:
    async def journey(desk: Desk) -> None:
        pane = await ready(desk)
        await desk.pilot.mouse_down(pane, offset=(21, 1))
        await desk.pilot.hover(pane, offset=(41, 1))
        await desk.pilot.mouse_up(pane, offset=(41, 1))
        await desk.settled()
        first = pane.axis.begin(21 - 1 - 9)
        assert pane.chosen == (first, pane.axis.begin(41 - 1 - 9))
        assert desk.mark == "112999"  # dragging goes nowhere
        clock = pane.axis.begin(60)
        for _ in range(6):
            at = pane.region.translate((70, 1)).offset
            pane.post_message(events.MouseScrollUp(pane, 70, 1, 0, 0, 0, False, False, False, *at))
            await desk.settled()
        assert pane.axis.high - pane.axis.low < pane.total // 3
        assert abs((pane.axis.column(clock) or 0) - 60) <= 1  # what is under the pointer stays there
        await desk.pilot.click(pane, offset=(12, 1))
        await desk.settled()
        assert int(desk.mark) == pane.axis.begin(2)

    travel(journey, size=TALL)


def test_a_double_click_on_a_span_fits_it(scripted: Path) -> None:
    async def journey(desk: Desk) -> None:
        pane = await ready(desk)
        lane = next(lane for lane in pane.shown if isinstance(lane, Lane) and lane.name == "spans")
        which = max(range(len(lane)), key=lambda at: lane.stops[at] - lane.starts[at])
        start, stop = lane.starts[which], lane.stops[which]
        middle = pane.axis.column((start + stop) // 2)
        assert stop - start > 16 and middle is not None
        await desk.pilot.click(pane, offset=(1 + 9 + middle, 1 + pane.shown.index(lane)), times=2)
        await desk.settled()
        assert pane.chosen == (start, stop)
        assert pane.axis.low <= start and stop <= pane.axis.high < pane.total

    travel(journey, scripted, size=WIDE)


def test_keys_go_to_the_ends_of_a_call() -> None:
    async def journey(desk: Desk) -> None:
        pane = await ready(desk)
        while not (isinstance(pane.lane, Lane) and pane.lane.name == "exports"):
            await desk.press("down")
        assert "_start e0 to e42" in desk.screen()
        await desk.press("enter")
        assert desk.app.focus.event == 0
        await desk.press("E")
        assert desk.app.focus.event == 42
        await desk.press("up", "up", "up", "end")
        assert desk.app.snapshot is not None and desk.app.snapshot.at_end
        await desk.press("home")
        assert desk.app.focus.event == 0

    travel(journey, size=TALL)


def test_a_span_in_one_event_is_gone_to_and_behind() -> None:
    async def journey(desk: Desk) -> None:
        pane = await ready(desk)
        while not (isinstance(pane.lane, Lane) and pane.lane.name == "spans"):
            await desk.press("down")
        assert "tool.pay e29" in desk.screen()
        await desk.press("E")
        assert desk.mark == "113000"
        await desk.press("left")
        assert int(desk.mark) < 112_999
        await desk.press("full_stop")
        assert desk.app.focus.event == PAY

    travel(journey, size=TALL)


def test_the_view_follows_the_position() -> None:
    async def journey(desk: Desk) -> None:
        pane = await ready(desk)
        await desk.press("w", "w", "w", "w")
        await desk.press("colon")
        await desk.type("e3")
        assert pane.axis.column(pane.clock) is not None

    travel(journey, size=TALL)


def test_failed_calls_are_gone_through(denied: Path) -> None:
    async def journey(desk: Desk) -> None:
        await ready(desk)
        await desk.press("X")
        assert desk.app.focus.event == SEARCHES[1]
        await desk.press("X")
        assert desk.app.focus.event == SEARCHES[0]
        await desk.press("X")
        assert desk.app.focus.event == SEARCHES[0] and "no call was denied or failed before this" in desk.screen()
        await desk.press("x")
        assert desk.app.focus.event == SEARCHES[1]
        assert lane_line(desk, "effects").count("✗") == 2

    travel(journey, denied, size=TALL)


def test_a_recording_without_failed_calls_says_so() -> None:
    async def journey(desk: Desk) -> None:
        await ready(desk)
        await desk.press("x")
        assert "no call was denied or failed in this recording" in desk.lines()[-1]

    travel(journey, size=TALL)


@pytest.fixture
def odd(tmp_path: Path) -> Iterator[Path]:
    """No memory, no debug information, no event but the call."""
    wasm = harness.assemble('(module (func (export "run") (result i32) (i32.const 7)))')
    harness.record(wasm, tmp_path / "odd.trace", lambda guest: guest.call("run"))
    yield tmp_path / "odd.trace"


def test_a_recording_of_one_event_has_a_time_line(odd: Path) -> None:
    async def journey(desk: Desk) -> None:
        pane = await ready(desk)
        await desk.press("w", "s", "f", "right", "shift+right", "f", "escape", "down", "enter", "E", "x")
        assert pane.total > 0 and "timeline  mark" in desk.screen()

    travel(journey, odd, size=TALL)
