"""The event table: runs, filters, searches and copying, against what the tables themselves say."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inspector.events.filters import Needle, parse
from inspector.events.index import FOLD_EFFECTS, FOLD_PATTERN, QUIET, WORLD, Index, Sort, find_runs, least
from inspector.events.layout import Chosen, Layout
from inspector.events.story import Story
from inspector.panes.event import EventDialog, EventPane
from inspector.panes.story import StoryPane
from tests.inspector.kit import GOLDENS, INCIDENT, Desk, travel
from traces._errors import UsageError
from traces.render import pieces
from traces.tracedir import EVENTS, Trace

SORTS = (
    Sort("clock", "call", "ok", QUIET, True),
    Sort("poll", "call", "ok", QUIET, True),
    Sort("pay", "call", "ok", WORLD, True),
    Sort("run", "export", "open", QUIET, False),
    Sort("trap", "trap", "trap", QUIET, False),
)


# -- runs and rows -----------------------------------------------------------------------------------------------------------


def index_of(number: int, first: int, codes: list[int]) -> Index:
    array = pa.array(codes, pa.uint8())
    return Index(number, first, array, SORTS, tuple(find_runs(array, SORTS)))


def repeating() -> st.SearchStrategy[list[int]]:
    """Events that repeat themselves now and then."""
    part = st.tuples(st.lists(st.integers(0, len(SORTS) - 1), min_size=1, max_size=4), st.integers(1, 14))
    return st.lists(part, max_size=8).map(lambda parts: [code for pattern, times in parts for code in pattern * times])


def cut(codes: list[int], places: list[int]) -> tuple[list[int], list[list[int]]]:
    """A recording in windows: where they begin and where it ends, and their events."""
    ends = sorted({0, len(codes), *(place % (len(codes) + 1) for place in places)})
    return ends, [codes[a:b] for a, b in pairwise(ends)]


def check_rows(layout: Layout, codes: list[int]) -> None:
    """Every event is shown once, in order, and what is folded does repeat itself."""
    expected = 0
    for number in range(layout.rows):
        block, inside = layout.at(number)
        if not block.period:
            assert block.first + inside == expected
            assert layout.row_of(expected) == number
            expected += 1
        elif inside == 0:
            assert block.first == expected
            run = codes[block.first : block.first + block.count]
            assert all(code == run[at % block.period] for at, code in enumerate(run))
            assert block.count // block.period >= least([SORTS[code] for code in run[: block.period]])
            if not layout.is_open(block):
                assert {layout.row_of(seq) for seq in range(expected, expected + block.count)} == {number}
                expected += block.count
        else:
            assert block.first + inside - 1 == expected
            assert layout.row_of(expected) == number
            expected += 1
    assert expected == len(codes)


@settings(max_examples=300, deadline=None)
@given(repeating(), st.lists(st.integers(0, 200), max_size=4), st.randoms(use_true_random=False), st.data())
def test_every_event_has_its_row_whatever_is_indexed_and_unfolded(
    codes: list[int], places: list[int], shuffle: random.Random, data: st.DataObject
) -> None:
    firsts, windows = cut(codes, places)
    layout = Layout(firsts)
    order = list(range(len(windows)))
    shuffle.shuffle(order)
    for number in order:
        layout.add(index_of(number, firsts[number], windows[number]))
        known = [window if layout.index(at) is not None else None for at, window in enumerate(windows)]
        if None not in known:
            check_rows(layout, codes)
        if layout.rows:
            row = data.draw(st.integers(0, layout.rows - 1))
            block, _ = layout.at(row)
            rows, was = layout.rows, layout.is_open(block)
            heading = layout.toggle(row)
            assert (heading is None) == (block.period == 0)
            if heading is not None:
                assert layout.at(heading) == (block, 0)
                assert layout.rows - rows == (-block.count if was else block.count)
    if codes:
        check_rows(layout, codes)


def test_effects_fold_late_and_patterns_need_calls() -> None:
    def runs(codes: list[int]) -> list[tuple[int, int, int]]:
        return [(run.first, run.size, run.period) for run in index_of(0, 0, codes).runs]

    assert runs([0, 0]) == []
    assert runs([0, 0, 0]) == [(0, 3, 1)]
    assert runs([2] * (FOLD_EFFECTS - 1)) == []
    assert runs([2] * FOLD_EFFECTS) == [(0, FOLD_EFFECTS, 1)]
    assert runs([0, 1] * (FOLD_PATTERN - 1)) == []
    assert runs([0, 1] * FOLD_PATTERN) == [(0, 8, 2)]
    assert runs([0, 2] * (FOLD_EFFECTS - 1)) == []
    assert runs([0, 2] * FOLD_EFFECTS + [0]) == [(0, 17, 2)]  # what is left over belongs to it
    assert runs([4] * 50) == []
    assert runs([0, 0, 0, 1] * 5) == [(0, 20, 4)]
    assert runs([0] * 9 + [0, 1] * 20) == [(0, 9, 1), (9, 40, 2)]


def test_a_run_goes_on_in_the_next_window_in_whatever_order_they_come() -> None:
    firsts = [0, 10_001, 20_000, 30_000]
    codes = [0, 1] * 15_000
    for order in ((0, 1, 2), (2, 1, 0), (0, 2, 1), (1, 2, 0)):
        layout = Layout(firsts)
        for number in order:
            layout.add(index_of(number, firsts[number], codes[firsts[number] : firsts[number + 1]]))
        assert layout.rows == 1
        assert layout.at(0)[0].count == 30_000
        assert layout.toggle(0) == 0
        assert layout.rows == 30_001
        assert layout.row_of(29_999) == 30_000


@settings(max_examples=200, deadline=None)
@given(st.lists(st.booleans(), max_size=60), st.lists(st.integers(0, 60), max_size=4), st.randoms(use_true_random=False))
def test_filtered_rows_are_those_that_pass(passes: list[bool], places: list[int], shuffle: random.Random) -> None:
    ends = sorted({0, len(passes), *(place % (len(passes) + 1) for place in places)})
    chosen = Chosen(ends)
    order = list(range(len(ends) - 1))
    shuffle.shuffle(order)
    known: set[int] = set()
    for number in order:
        chosen.add(number, pa.array(passes[ends[number] : ends[number + 1]], pa.bool_()))
        known |= {seq for seq in range(ends[number], ends[number + 1]) if passes[seq]}
        shown = sorted(known)
        assert [chosen.seq(row) for row in range(chosen.rows)] == shown
        for seq in range(len(passes)):
            assert chosen.row_of(seq) == max(0, sum(one <= seq for one in shown) - 1)


# -- filters and searches ----------------------------------------------------------------------------------------------------

Event = dict[str, Any]


@pytest.fixture(scope="module")
def incident() -> Iterator[tuple[Story, list[Event]]]:
    with Trace.open(INCIDENT) as trace:
        story = Story(trace)
        story.index()
        yield story, pq.read_table(INCIDENT / EVENTS).to_pylist()
        story.close()


def passing(story: Story, text: str) -> list[int]:
    wanted = parse(text)
    story.show(wanted)
    for number in story.sift(0):
        story.take(wanted, number, wanted.mask(story.look(number)))
    assert story.sifted == 1
    found = [story.row(row).seq for row in range(story.rows)]
    story.show(None)
    return found


def carries(event: Event, needle: bytes) -> bool:
    return any(needle in piece.data.lower() for piece in pieces(event["record"], event["chunks_at"]))


TERMS: dict[str, Callable[[Event], bool]] = {
    "clock": lambda e: "clock" in (e["import"] or e["target"] or e["kind"]),
    "_start": lambda e: "_start" in (e["import"] or e["target"] or e["kind"]),
    "import=tool.": lambda e: "tool." in (e["import"] or ""),
    "status=errno,denied": lambda e: e["status"] in ("errno", "denied"),
    "status!=ok": lambda e: e["status"] != "ok",
    "kind=call": lambda e: e["kind"] == "call",
    "seq>=20": lambda e: e["seq"] >= 20,
    "seq<29": lambda e: e["seq"] < 29,
    "seq!=15": lambda e: e["seq"] != 15,
    "effect": lambda e: e["seq"] in (29, 35),
    "effects=output": lambda e: e["import"] == "wasi_snapshot_preview1.fd_write" and e["args"][0] in (1, 2),
    '"9999-0000"': lambda e: carries(e, b"9999-0000"),
    "/9{4}-0+/": lambda e: carries(e, b"9999-0000"),
    '"ledger.txt"': lambda e: carries(e, b"ledger.txt"),
    "text=12950": lambda e: carries(e, b"12950") or 12950 in [*e["args"], *e["results"]] or "12950" in (e["detail"] or ""),
}  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.sampled_from(sorted(TERMS))), min_size=1, max_size=3))
def test_a_filter_shows_what_the_tables_say(incident: tuple[Story, list[Event]], terms: list[tuple[bool, str]]) -> None:
    story, rows = incident
    text = " ".join(("-" if negated else "") + term for negated, term in terms)

    expected = [row["seq"] for row in rows if all(TERMS[term](row) != negated for negated, term in terms)]

    assert passing(story, text) == expected


def test_each_term_finds_something(incident: tuple[Story, list[Event]]) -> None:
    story, rows = incident
    for term in TERMS:
        assert 0 < len(passing(story, term)) < len(rows), term


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("status=bad", "no event has it; choose of ok, errno"),
        ("kinds=call", "there is no such term"),
        ("seq>=x", "write the number of an event"),
        ('"open', 'a quotation ends with "'),
        ("/open", "a regular expression ends with /"),
        ("/(/", "missing )"),
        ("text=", "write what it must be"),
        ("status>ok", "write status= or status!="),
        ("-", "write what not to show"),
    ],
)
def test_a_filter_that_makes_no_sense_is_told_in_one_line(text: str, wrong: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(text)
    assert wrong in str(caught.value)
    assert "\n" not in str(caught.value)


def test_text_in_capitals_is_found_as_it_is(incident: tuple[Story, list[Event]]) -> None:
    story, rows = incident
    exact = [row["seq"] for row in rows if any(b"PAY" in piece.data for piece in pieces(row["record"], row["chunks_at"]))]
    assert passing(story, '"PAY"') == exact
    assert set(passing(story, '"pay"')) > set(exact)


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(["9999-0000", "ledger", "/cent(s)?/", "12950", "nowhere"]), st.integers(0, 42), st.booleans(), st.booleans()
)
def test_a_search_goes_on_at_the_other_end(
    incident: tuple[Story, list[Event]], needle: str, at: int, reverse: bool, filtered: bool
) -> None:
    story, _ = incident
    quoted = needle if needle.startswith("/") else f'"{needle}"'
    hits = passing(story, f"kind=call {quoted}" if filtered else quoted)
    story.show(parse("kind=call") if filtered else None)

    hit = story.search(Needle(needle)).find(at, reverse, lambda share: None)

    near = [seq for seq in hits if (seq < at if reverse else seq > at)]
    if not hits:
        assert hit is None
    else:
        assert hit is not None
        assert hit.seq == ((near or hits)[-1] if reverse else (near or hits)[0])
        assert hit.wrapped == (not near)
    story.show(None)


def test_a_search_that_nobody_wants_ends(incident: tuple[Story, list[Event]]) -> None:
    story, _ = incident

    def tick(share: float) -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        story.search(Needle("nowhere")).find(0, False, tick)


def test_windows_are_searched_across(tmp_path: Path) -> None:
    """A recording of many windows: each hit is found once, in order, forward and backward."""
    with Trace.open(GOLDENS / "killed.trace") as trace:
        story = Story(trace)
        assert story.windows > 1
        rows = pq.read_table(trace.path / EVENTS, columns=["seq", "status"]).to_pylist()
        last = max(row["seq"] for row in rows)
        story.show(parse(f"seq>={last - 3}"))
        search = story.search(Needle("/./"))
        seen, at = [], 0
        for _ in range(4):
            hit = search.find(at, True, lambda share: None)
            assert hit is not None
            seen.append(hit.seq)
            at = hit.seq
        assert seen == [last, last - 1, last - 2, last - 3]
        story.close()


# -- in the app --------------------------------------------------------------------------------------------------------------


def test_f_filters_and_esc_shows_all() -> None:
    async def journey(desk: Desk) -> None:
        pane = desk.app.pane(StoryPane)
        await desk.press("f")
        await desk.pilot.press(*"status")
        await desk.pilot.press("equals_sign", "b")
        await desk.until(lambda: "no event has it" in desk.screen(), "what is wrong")
        await desk.pilot.press("backspace")
        await desk.type("errno")
        await desk.until(lambda: pane.story.rows == 1 and pane.story.sifted == 1, "the filter")
        assert "story · status=errno" in desk.screen()
        assert "1 of 43" in desk.screen()
        assert desk.app.focus.event == 29  # hidden, and still in view elsewhere
        await desk.press("escape")
        assert pane.story.filter is None
        assert pane.story.row(pane.cursor).seq == 29

    travel(journey)


def test_the_cursor_stays_on_its_event_when_the_filter_shows_it() -> None:
    async def journey(desk: Desk) -> None:
        pane = desk.app.pane(StoryPane)
        await desk.press("f")
        await desk.type("effects=talk,world")
        await desk.until(lambda: pane.story.rows == 9 and pane.story.sifted == 1, "the filter")
        assert pane.story.row(pane.cursor).seq == 29
        await desk.press("down")
        assert desk.app.focus.event == 39
        await desk.press("f")
        for _ in range(len("effects=talk,world")):
            await desk.pilot.press("backspace")
        await desk.press("enter")
        assert pane.story.filter is None
        assert pane.story.row(pane.cursor).seq == 39

    travel(journey)


def test_slash_finds_in_events_and_f3_goes_on() -> None:
    async def journey(desk: Desk) -> None:
        async def arrives(*expected: int) -> None:
            await desk.until(lambda: desk.app.focus.event in expected, f"event {expected}")
            await desk.settled()

        await desk.press("slash")
        await desk.type("9999-0000")
        await arrives(35)
        await desk.press("shift+f3")
        await arrives(29)
        await desk.press("f3")
        await arrives(35)
        await desk.press("slash")
        for _ in range(len("9999-0000")):
            await desk.pilot.press("backspace")
        await desk.type("nowhere")
        await desk.until(lambda: "no event has nowhere" in desk.lines()[-1], "the answer")
        assert desk.app.focus.event == 35

    travel(journey)


def test_rows_are_copied_as_text_and_as_json() -> None:
    async def journey(desk: Desk) -> None:
        await desk.press("y")
        assert desk.app.clipboard == '29 ● pay("9999-0000-6666", 12950) → 0'
        await desk.press("Y")
        await desk.until(lambda: desk.app.clipboard.startswith("{"), "the JSON")
        found = json.loads(desk.app.clipboard)
        assert (found["seq"], found["import"], found["args"]) == (29, "tool.pay", ["0x130050", "0xe", "0x3296"])

    travel(journey)


def test_the_event_in_full_shows_its_bytes_in_views() -> None:
    async def journey(desk: Desk) -> None:
        desk.app.push_screen(EventDialog(desk.app.story, 35))
        await desk.until(lambda: "sent iovs  16 bytes" in desk.screen(), "the event")
        assert "len 82  u32" in desk.screen()
        assert "1795257552348 request 678ccc81" in desk.screen()
        await desk.press("v")
        await desk.until(lambda: "82 bytes at 0x130888  hex" in desk.screen(), "the dump")
        assert "31 37 39 35 32 35 37 35  35 32 33 34 38 20 72 65" in desk.screen()
        pane = desk.app.screen.query_one(EventPane)
        await desk.press("end")
        await desk.press("y")
        assert desk.app.clipboard  # the last piece: what the host wrote
        heading = next(row for row in range(pane.count()) if "82 bytes at" in "".join(text for text, _ in pane.pieces(row, 200)))
        pane.place(heading)
        await desk.press("enter")
        await desk.until(lambda: desk.app.focus.range == (0, 0x130888, 82), "the bytes")

    travel(journey)
