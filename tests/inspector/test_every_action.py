"""Every action of the tables, by its key, and what it then does; and any keys at all, in any order.

A test says which actions it is about with `covers`. Which keys were pressed, and which actions they led to, is written down while
it runs: a test that names an action without pressing one of its keys fails, and so does an action that no test names.
"""

from __future__ import annotations

import inspect
import json
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any, Final
from unittest import mock

import pytest
from textual.app import App
from textual.binding import BindingsMap

from inspector.actions import ACTIONS, BROWSER, Action
from inspector.panes.event import EventPane
from inspector.panes.memory import MemoryPane
from inspector.panes.story import StoryPane
from inspector.panes.texts import TextPane
from inspector.panes.timeline import TimelinePane
from inspector.sql.editor import Editor
from inspector.sql.results import ResultTable
from tests.harness import assemble, record
from tests.inspector import test_browser, test_sql, test_terminal, test_timeline
from tests.inspector.kit import ACCOUNT, INCIDENT, SOURCES, Desk, copied, travel
from tests.inspector.test_browser import store  # noqa: F401, a fixture of the tests named below
from tests.inspector.test_timeline import denied  # noqa: F401, another one
from tests.recording.test_odd_modules import calls, host

SEARCH, PAY, LEDGER = 22, 29, 35
"""Events of the demo's recording: the answer that was too long, the payment, the line in the ledger."""
PAID_AT = "112999"

_keys: list[str] = []
"""The keys whose bindings are being looked for: the last one is what an action that runs is due to."""


@contextmanager
def written_down() -> Iterator[set[tuple[str, str]]]:
    """The actions that keys led to meanwhile, as (key, action)."""
    found: set[tuple[str, str]] = set()
    check, run = App._check_bindings, App.run_action

    async def checking(app: App[Any], key: str, priority: bool = False) -> bool:
        _keys.append(key)
        try:
            return await check(app, key, priority)
        finally:
            _keys.pop()

    async def running(app: App[Any], action: Any, *more: Any, **named: Any) -> bool:
        done = await run(app, action, *more, **named)
        if done and _keys:
            found.add((_keys[-1], str(action)))
        return done

    with mock.patch.object(App, "_check_bindings", checking), mock.patch.object(App, "run_action", running):
        yield found


def by_key(action: Action) -> set[tuple[str, str]]:
    """What is written down if one of the action's keys led to it."""
    # For the palette, Textual comes first with a binding of its own.
    methods = (action.method, "command_palette") if action.id == "palette" else (action.method,)
    return {(key, method) for key in BindingsMap([action.binding()]).key_to_bindings for method in methods}


COVERED: dict[tuple[str, str], list[str]] = {}
"""Names of tests by (table, id)."""
TABLES: Final = {"inspector": ACTIONS, "browser": BROWSER}
Test = Callable[..., None]


def covers(*ids: str, table: str = "inspector") -> Callable[[Test], Test]:
    """The test presses keys of these actions, and looks at what they do."""
    known = {action.id: action for action in TABLES[table]}

    def decorate(test: Test) -> Test:
        for id in ids:
            COVERED.setdefault((table, id), []).append(test.__name__)

        @wraps(test)
        def watched(*arguments: Any, **named: Any) -> None:
            with written_down() as found:
                test(*arguments, **named)
            missing = [id for id in ids if not by_key(known[id]) & found]
            assert not missing, f"{test.__name__} never pressed a key for {', '.join(missing)}"

        return watched

    return decorate


def told(desk: Desk) -> str:
    return desk.lines()[-1]


# -- motion --------------------------------------------------------------------------------------------------------------


@covers(
    "event-previous", "event-next", "effect-previous", "effect-next", "goto-mark", "problem", "problem-next", "problem-previous"
)
def test_from_event_to_event() -> None:
    async def journey(desk: Desk) -> None:
        for key, event in (("comma", PAY - 1), ("full_stop", PAY), ("right_curly_bracket", LEDGER), ("left_curly_bracket", PAY)):
            await desk.press(key)
            assert desk.app.focus.event == event
            assert desk.app.snapshot is not None and desk.app.snapshot.event == event
        await desk.press("colon")
        await desk.type("e3+")
        assert desk.app.snapshot is not None and desk.app.snapshot.events == 4 and desk.app.snapshot.event is None
        for key, said in (
            ("exclamation_mark", "did not diverge"), ("x", "no call was denied or failed"), ("X", "no call was denied or failed"),
        ):  # fmt: skip
            await desk.press(key)
            assert said in told(desk)

    travel(journey)


@covers("step-in", "step-over", "step-out", "back-in", "back-over", "back-out", "granularity")
def test_steps() -> None:
    lines = (SOURCES / "agent.c").read_text().splitlines()

    async def journey(desk: Desk) -> None:
        for key, code in (
            ("n", "agent->paid = !refused;"),
            ("N", "int32_t refused = tool_pay("),
            ("O", 'else if (strcmp(action, "PAY") == 0) pay(agent);'),
            ("s", "int32_t refused = tool_pay("),  # into pay()
            ("S", 'if (strcmp(action, "PAY") == 0) pay(agent);'),
            ("n", "}"),
        ):
            await desk.press(key)
            assert code in lines[int(desk.where.rpartition(":")[2]) - 1], f"{key} led to {desk.where}"
        await desk.press("o")
        assert desk.app.snapshot is not None and "main" in desk.app.snapshot.frames[0].name
        await desk.press("colon")
        await desk.type(PAID_AT)
        before = int(desk.mark)
        await desk.press("i")
        assert "steps go by instruction" in told(desk)
        await desk.press("s")
        assert int(desk.mark) == before + 1
        await desk.press("S", "S")
        assert int(desk.mark) == before - 1
        await desk.press("i")
        assert "steps go by line" in told(desk)

    travel(journey)


@covers("break", "continue", "back-continue", "stops", "watch", "cancel")
def test_stops() -> None:
    async def journey(desk: Desk) -> None:
        await desk.press("b")
        await desk.type("import=tool.search")
        await desk.press("C")
        assert desk.app.focus.event == SEARCH
        await desk.press("C")
        assert desk.app.focus.event == 15
        await desk.press("c")
        assert desk.app.focus.event == SEARCH
        await desk.press("W", "enter", "c")  # the bytes that are chosen are offered
        assert [point.text for point in desk.app.session.points] == ["import=tool.search", f"{ACCOUNT:#x}:14"]
        assert desk.app.focus.range is not None and desk.app.focus.range[1] < ACCOUNT + 14
        assert desk.app.focus.event == SEARCH and desk.mark != PAID_AT
        await desk.press("B")
        assert "import=tool.search" in desk.screen() and f"{ACCOUNT:#x}:14" in desk.screen()
        await desk.press("d", "d")
        assert desk.app.session.points == ()
        await desk.press("c")
        assert desk.app.snapshot is not None and desk.app.snapshot.at_end
        await desk.press("escape")
        assert told(desk).startswith(" , . event")  # nothing ran: what was told is taken away

    travel(journey)


# -- bytes ---------------------------------------------------------------------------------------------------------------


@covers("last-change", "who-wrote", "goto-address", "visit-back", "visit-forward")
def test_bytes_and_who_wrote_them() -> None:
    async def journey(desk: Desk) -> None:
        await desk.press("g")
        await desk.type(f"{ACCOUNT:#x}:4")
        assert desk.app.focus.range == (0, ACCOUNT, 4)
        await desk.press("w")
        assert f"who wrote {ACCOUNT:#x}:4" in desk.screen() and "tool.search" in desk.screen()
        await desk.press("escape")
        assert desk.mark == PAID_AT
        await desk.press("L")
        assert desk.app.focus.event == SEARCH
        written = desk.mark
        await desk.press("left_square_bracket")
        assert desk.mark == PAID_AT
        await desk.press("right_square_bracket")
        assert desk.mark == written

    travel(journey)


@covers("find", "find-next", "find-previous", "compare", "change-next", "change-previous", "decode", "select-more", "select-less")
def test_bytes_are_searched_compared_and_decoded() -> None:
    async def journey(desk: Desk) -> None:
        pane = desk.app.pane(MemoryPane)
        desk.app.activate("memory")
        await desk.press("home", "slash")
        await desk.type("invoice")
        first = desk.app.focus.range
        assert first is not None and first[2] == 7
        await desk.press("f3")
        assert desk.app.focus.range is not None and desk.app.focus.range[1] > first[1]
        await desk.press("shift+f3")
        assert desk.app.focus.range == first
        await desk.press("slash")
        await desk.type("9999-0000")
        assert desk.app.focus.range == (0, ACCOUNT, 9)
        await desk.press("shift+right", "plus", "minus", "shift+left")
        assert desk.app.focus.range == (0, ACCOUNT, 9)
        await desk.press("shift+right")
        assert desk.app.focus.range == (0, ACCOUNT, 10)
        await desk.press("v")
        assert pane.decoding and f"{int.from_bytes(b'9999', 'little'):,}".replace(",", "") in desk.screen()
        await desk.press("v")
        assert not pane.decoding

        await desk.press("equals_sign", "L")
        assert f"since e{PAY}" in desk.screen()
        await desk.press("g")
        await desk.type("0")
        await desk.press("right_parenthesis")
        changed = desk.app.focus.address
        assert changed is not None and changed > 0
        await desk.press("right_parenthesis")
        assert desk.app.focus.address is not None and desk.app.focus.address > changed
        await desk.press("left_parenthesis")
        assert desk.app.focus.address == changed
        await desk.press("equals_sign")
        assert "since e" not in desk.screen()

    travel(journey)


TWO = """(module (memory 1) (memory 2) (func (export "run") (i32.store (i32.const 16) (i32.const 1))))"""


@covers("memory-next")
def test_there_may_be_several_memories(tmp_path: Path) -> None:
    record(assemble(TWO), tmp_path / "two.trace", lambda target: target.call_raw("run", []))

    async def journey(desk: Desk) -> None:
        for memory, size in ((1, 131_072), (0, 65_536)):
            await desk.press("M")
            assert desk.app.focus.memory == memory
            assert desk.app.pane(MemoryPane).size_bytes == size and f"memory {memory} of 2" in desk.screen()

    travel(journey, tmp_path / "two.trace")


# -- panes ---------------------------------------------------------------------------------------------------------------


@covers(
    "next-pane", "previous-pane", "cursor-up", "cursor-down", "page-up", "page-down", "first-row", "last-row", "cursor-left",
    "cursor-right", "choose", "fold",
)  # fmt: skip
def test_panes_and_their_rows() -> None:
    async def journey(desk: Desk) -> None:
        pane = desk.app.pane(StoryPane)
        for key, event in (("home", 0), ("down", 1), ("j", 2), ("k", 1), ("up", 0), ("end", 42)):
            await desk.press(key)
            assert desk.app.focus.event == event and pane.cursor == event
        await desk.press("pageup")
        above = desk.app.focus.event
        assert above == max(0, 42 - pane.room)
        await desk.press("pagedown")
        assert desk.app.focus.event == 42
        await desk.press("z")
        assert "not part of a run" in told(desk)
        text = desk.lines()[3]
        await desk.press("right")
        assert desk.lines()[3] != text
        await desk.press("left")
        assert desk.lines()[3] == text
        names = []
        for _ in range(7):
            await desk.press("tab")
            assert desk.app.focused is not None
            names.append(desk.app.focused.id)
        assert names == ["source", "frames", "memory", "tables", "output", "timeline", "story"]
        await desk.press("shift+tab")
        assert desk.app.focused is not None and desk.app.focused.id == "timeline"
        desk.app.activate("memory")
        await desk.press("g")
        await desk.type(f"{ACCOUNT:#x}")
        await desk.press("l")
        assert desk.app.focus.address == ACCOUNT + 1
        await desk.press("h", "h")
        assert desk.app.focus.address == ACCOUNT - 1

        await desk.press("colon")
        await desk.type(f"e{PAY}")
        desk.app.activate("frames")
        await desk.press("home", "down")
        assert "▸ agent" in desk.screen()
        await desk.press("enter")
        assert "▾ agent" in desk.screen() and "amount_cents = 12950" in desk.screen()

    travel(journey)


@covers("fold", "choose")
def test_a_run_is_unfolded_and_folded(tmp_path: Path) -> None:
    wasm = assemble(f'(module (import "env" "f" (func $f)) (func (export "run") {"(call $f)" * 50}))')
    record(wasm, tmp_path / "run.trace", calls(("run", [])), hosts=[host("f", "", lambda _: None)])

    async def journey(desk: Desk) -> None:
        pane = desk.app.pane(StoryPane)
        desk.app.activate("story")
        await desk.press("home", "down")
        folded = pane.count()
        assert "×50" in desk.screen()
        await desk.press("z")
        assert pane.count() == folded + 50
        await desk.press("down", "down")
        assert desk.app.focus.event == 2
        await desk.press("z")
        assert pane.count() == folded
        await desk.press("enter")
        assert pane.count() == folded + 50

    travel(journey, tmp_path / "run.trace")


@covers(
    "filter-events", "show-all-events", "find-event", "find-event-next", "find-event-previous", "copy-event", "copy-event-json"
)
def test_the_story() -> None:
    async def journey(desk: Desk) -> None:
        app, pane = desk.app, desk.app.pane(StoryPane)
        await desk.press("f")
        await desk.type("effect")
        await desk.until(lambda: pane.count() < 43, "the filter")
        shown = [app.story.row(row).seq for row in range(pane.count())]
        assert PAY in shown and LEDGER in shown and 0 not in shown
        await desk.press("escape")
        assert pane.count() == 43
        await desk.press("home", "slash")
        await desk.type("9999-0000")
        await desk.until(lambda: app.focus.event == SEARCH, "the first event with it")
        await desk.press("f3")
        await desk.until(lambda: app.focus.event == PAY, "the next one")
        await desk.press("shift+f3")
        await desk.until(lambda: app.focus.event == SEARCH, "the one before")
        await desk.press("full_stop", "y")
        await desk.until(lambda: app.clipboard.startswith(f"{SEARCH + 1} "), "the row")
        await desk.press("Y")
        await desk.until(lambda: app.clipboard.startswith("{"), "the event")
        assert json.loads(app.clipboard)["seq"] == SEARCH + 1

    travel(journey)


@covers("expand-event", "event-view", "copy-piece", "search-events", "search-events-next", "search-events-previous")
def test_an_event_in_full() -> None:
    async def journey(desk: Desk) -> None:
        def pane() -> EventPane:
            return desk.app.screen.query_one(EventPane)

        await desk.press("e")
        await desk.until(lambda: "14 bytes at 0x130050  text" in desk.screen(), "the bytes")
        await desk.press("end", "y")
        assert desk.app.clipboard == "9999-0000-6666"
        await desk.press("v")
        await desk.until(lambda: "14 bytes at 0x130050  hex" in desk.screen(), "the dump")
        await desk.press("slash")
        await desk.type("9999-0000-6666")
        await desk.until(lambda: "─ event 35 ─" in desk.screen(), "the next event with it")
        await desk.press("shift+f3")
        await desk.until(lambda: "─ event 29 ─" in desk.screen(), "the one before")
        await desk.press("f3")
        await desk.until(lambda: "─ event 35 ─" in desk.screen(), "the next one")
        assert pane().has_focus
        await desk.press("escape")
        assert desk.app.focus.event == LEDGER

    travel(journey)


@covers(
    "pan-left", "pan-right", "zoom-in", "zoom-out", "earlier", "later", "select-later", "select-earlier", "fit", "stretch-end",
    "select-nothing",
)  # fmt: skip
def test_the_timeline() -> None:
    async def journey(desk: Desk) -> None:
        pane = desk.app.pane(TimelinePane)
        await desk.until(lambda: bool(pane.survey.lanes), "the lanes")
        desk.app.activate("timeline")
        await desk.settled()
        here = int(desk.mark)
        await desk.press("left")
        assert int(desk.mark.partition(".")[0]) < here
        await desk.press("right")
        assert abs(int(desk.mark.partition(".")[0]) - here) <= 1
        await desk.press("w", "w")
        assert pane.high - pane.low == pytest.approx(0.25)
        low = pane.low
        await desk.press("a")
        assert pane.low < low
        await desk.press("d")
        assert pane.low == pytest.approx(low)
        await desk.press("s")
        assert pane.high - pane.low == pytest.approx(0.5)
        await desk.press("shift+right", "shift+right", "shift+right")
        chosen = pane.chosen
        assert chosen is not None and "selected" in desk.screen()
        await desk.press("shift+left")
        assert pane.chosen is not None and pane.chosen[1] < chosen[1]
        await desk.press("f")
        low, high = pane.chosen
        assert pane.low <= low / pane.total and high / pane.total <= pane.high < pane.low + 0.25
        await desk.press("escape")
        assert pane.chosen is None
        await desk.press("E")  # of the innermost that is here, the payment, which is one event: behind it
        assert desk.mark == "113000"
        await desk.press("down", "down", "E")
        assert desk.app.focus.event == 42, "of the call of _start"

    travel(journey)


# -- everything else -----------------------------------------------------------------------------------------------------


@covers("bookmark", "bookmarks", "help", "palette", "interrupt", "quit")
def test_places_help_and_the_way_out(tmp_path: Path) -> None:
    async def journey(desk: Desk) -> None:
        await desk.press("m", "comma", "comma", "apostrophe")
        assert "─ bookmarks ─" in desk.screen() and "pay agent.c:97" in desk.screen()
        await desk.press("enter")
        assert desk.mark == PAID_AT
        await desk.press("question_mark")
        shown = "\n".join("".join(text for text, _ in line) for line in desk.app.screen.query_one(TextPane).lines)
        for action in ACTIONS:
            assert action.pane not in ("", "rows", "story") or (action.label in shown and action.help in shown), action.id
        await desk.press("q")
        assert desk.app.is_running and "─ help ─" not in desk.screen()
        await desk.press("ctrl+p")
        await desk.pilot.pause(0.3)
        for letter in "effect":
            await desk.pilot.press(letter)
        await desk.until(lambda: "previous effect" in desk.screen(), "the palette's answer")
        await desk.press("escape")
        await desk.press("ctrl+c")
        assert "nothing runs that could be interrupted" in told(desk) and desk.app.is_running
        await desk.pilot.press("q")
        await desk.until(lambda: desk.app._exit, "the end")

    with copied(INCIDENT, tmp_path) as trace:
        travel(journey, trace)


@covers("sql", "sql-run", "sql-schema", "sql-cancel", "sql-leave", "copy-cell", "copy-row", "read-row")
def test_asking_in_sql(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))

    async def journey(desk: Desk) -> None:
        def table() -> ResultTable:
            return desk.app.screen.query_one(ResultTable)

        await desk.press("f2")
        await desk.until(lambda: "─ sql ─" in desk.screen(), "the view")
        await desk.press("f9")
        assert "─ tables ─" not in desk.screen()
        desk.app.screen.query_one(Editor).put("SELECT seq, import FROM events WHERE import LIKE 'tool.%' ORDER BY seq")
        await desk.press("ctrl+j")
        await desk.until(lambda: "tool.pay" in "\n".join(desk.lines()[5:]), "the rows")
        await desk.until(lambda: table().has_focus, "the result's focus")
        await desk.press("end", "Y")
        assert desk.app.clipboard == f"{PAY}\ttool.pay"
        await desk.press("y")
        assert desk.app.clipboard in (str(PAY), "tool.pay")
        await desk.press("e")
        assert "row" in desk.screen().lower() and desk.app.screen.__class__.__name__ == "Reading"
        await desk.press("escape")
        await desk.press("f2")
        assert "─ story ─" in desk.screen()
        await desk.press("f2")
        await desk.until(lambda: "tool.pay" in desk.screen(), "the rows, still there")
        await desk.press("escape")
        assert "─ story ─" in desk.screen()

    travel(journey)


CITED: Final[dict[Test, tuple[str, tuple[str, ...]]]] = {
    test_sql.test_earlier_statements_come_from_other_sessions_too: ("inspector", ("sql-history",)),
    test_sql.test_an_export_asks_before_it_replaces: ("inspector", ("sql-export",)),
    test_timeline.test_failed_calls_are_gone_through: ("inspector", ("problem-next", "problem-previous")),
    test_browser.test_sorting_by_key_and_by_mouse: ("browser", ("sort", "reverse")),
    test_browser.test_the_filter_works_while_it_is_typed: ("browser", ("filter", "cancel")),
    test_browser.test_verifying_the_chosen_run: ("browser", ("verify",)),
    test_browser.test_ctrl_c_ends_what_runs_and_nothing_else: ("browser", ("verify-shown", "interrupt")),
    test_browser.test_a_verdict_is_for_the_run_as_it_was: ("browser", ("rescan",)),
    test_browser.test_copying_the_path: ("browser", ("copy",)),
    test_browser.test_details_where_there_is_no_room_for_their_pane: ("browser", ("details",)),
    test_browser.test_tab_goes_to_the_details_and_back: ("browser", ("next-pane",)),
    test_browser.test_help_names_every_action: ("browser", ("help",)),
    test_browser.test_enter_hands_out_the_open_run_and_everything_is_as_it_was_on_coming_back: ("browser", ("choose", "quit")),
}
"""Tests of other modules that press these keys already, and look at what they do: run here, once more, to see that they do."""


@pytest.mark.parametrize("test", CITED, ids=lambda test: test.__name__)
def test_elsewhere(test: Test, request: pytest.FixtureRequest) -> None:
    table, ids = CITED[test]
    fixtures = {name: request.getfixturevalue(name) for name in inspect.signature(test).parameters}
    covers(*ids, table=table)(test)(**fixtures)


IN_A_TERMINAL: Final = {
    ("inspector", "suspend-process"): test_terminal.test_the_shell_can_have_the_terminal_meanwhile,
    ("browser", "suspend-process"): None,
}
"""What only a real terminal can show. The list of recordings leaves it to the same code of Textual."""


def test_every_action_is_tested() -> None:
    cited = {(table, id) for table, ids in CITED.values() for id in ids}
    there = {(name, action.id) for name, table in TABLES.items() for action in table}
    tested = {*COVERED, *cited, *IN_A_TERMINAL}
    assert there - tested == set(), "no test presses these keys"
    assert tested - there == set(), "there are no such actions any more"


# -- any keys ------------------------------------------------------------------------------------------------------------

MASHED: Final = sorted(
    key.strip()
    for action in ACTIONS
    if action.id not in ("quit", "suspend-process", "interrupt", "sql-export", "bookmark")
    for key in action.key.split(",")
    if not key.startswith("shift+") or len(key) > 7
)
"""Every key of an action, but those that leave, and those that write files."""
TYPED: Final = ("0", "9", "x", "minus", "space", "enter", "escape", "backspace", "tab", "delete", "e", "quotation_mark")


async def consistent(desk: Desk) -> None:
    """What holds whenever nothing is under way: one moment, one range, every pane shows them, and nobody asks for more."""
    app, focus, snapshot = desk.app, desk.app.focus, desk.app.snapshot
    assert app._exception is None
    assert snapshot is not None
    assert app.wanted == focus.mark == str(snapshot.mark), (app.wanted, focus, snapshot.mark)
    assert app.session._now is not None and app.session._now.mark == snapshot.mark
    assert app.pane(MemoryPane)._mark is not None
    if focus.range is not None:
        pane = app.pane(MemoryPane)
        assert (pane.memory, pane.at, pane.length) == focus.range
    assert 0 <= focus.event < max(1, app.story.events)
    assert focus.frame == 0 or focus.frame < len(snapshot.frames)
    assert app.pane(TimelinePane).clock == snapshot.mark.clock
    if len(app.screen_stack) == 1:
        lines = desk.lines()
        assert f"e{focus.event:,} of " in lines[0]
        clock = "mark start" if str(snapshot.mark).startswith("start") else f"mark {snapshot.mark.clock:,}"
        assert clock in lines[0], lines[0]
        assert all(len(line) <= app.size.width for line in lines)
    with mock.patch.object(app.session, "post", wraps=app.session.post) as post:
        await desk.pilot.pause(0.1)
        assert post.call_args_list == []


async def mash(desk: Desk, keys: Sequence[str]) -> None:
    for key in keys:
        await desk.pilot.press(key)
        assert desk.app._exception is None and desk.app.is_running, key
    for _ in range(10):  # out of whatever stands in front; an answer may still come and stand there, too
        await desk.press("escape")
        if len(desk.app.screen_stack) == 1:
            break
    await desk.settled()
    assert len(desk.app.screen_stack) == 1
    await consistent(desk)


def test_going_somewhere_ends_every_motion_before_it() -> None:
    """Whoever goes elsewhere while motions wait is there in the end, and so is the guest."""

    async def journey(desk: Desk) -> None:
        for _ in range(3):
            await desk.press("colon")
            await desk.type("e20")
            for action in ("step_in", "step_in", "back_in", "step_over", "step_in", "back_over"):  # nobody waits for any of them
                await desk.app.run_action(action)
            desk.app.move(desk.app.focus.moved(mark=PAID_AT, frame=0))
            await desk.settled()
            assert desk.mark == PAID_AT
            await consistent(desk)

    travel(journey)


def test_bytes_that_are_not_there_yet_are_not_asked_for() -> None:
    """The memory grew up to the chosen bytes later: at the start there is nothing to read, and nothing is."""

    async def journey(desk: Desk) -> None:
        await desk.press("home")
        assert desk.app.focus.range is not None and desk.app.snapshot is not None
        assert desk.app.focus.range[1] > desk.app.snapshot.memory_sizes[0]
        await consistent(desk)

    travel(journey)


@pytest.mark.parametrize("number", [0, *(pytest.param(number, marks=pytest.mark.soak) for number in range(1, 12))])
def test_no_keys_in_any_order_are_too_much(number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Walks at random, the same each time, at sizes of all kinds."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    chance = random.Random(number)
    size = ((120, 40), (80, 24), (200, 60), (61, 15))[number % 4]
    walked: list[str] = []

    async def journey(desk: Desk) -> None:
        for _ in range(12):
            keys = [chance.choice(MASHED if chance.random() < 0.85 else TYPED) for _ in range(chance.randint(1, 12))]
            walked.extend(keys)
            await mash(desk, keys)

    with copied(INCIDENT, tmp_path) as trace:
        try:
            travel(journey, trace, size=size)
        except BaseException:
            print("walked:", *walked)
            raise
