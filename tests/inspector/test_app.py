"""The inspector under a pilot: each action, by its key, on the demo's recording."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from inspector.actions import ACTIONS, BROWSER, BY_ID, shown_keys
from inspector.app import Inspector
from inspector.panes.frames import FramesPane
from inspector.panes.memory import MemoryPane
from inspector.panes.story import StoryPane
from inspector.session import Session
from inspector.snapshot import ValueRow
from recorder.demo.tour import alter
from replayer.machine import TimeMachine
from tests.inspector.kit import ACCOUNT, GOLDENS, INCIDENT, ROOT, Desk, copied, travel
from traces.tracedir import Trace


def test_every_action_has_a_method() -> None:
    for action in ACTIONS:
        if not action.pane:
            assert hasattr(Inspector, f"action_{action.method}"), action.id


def test_it_opens_at_the_last_thing_a_host_was_told_to_do() -> None:
    async def journey(desk: Desk) -> None:
        assert desk.app.focus.event == 29
        assert desk.where == "agent.c:97"
        assert desk.app.focus.range == (0, ACCOUNT, 14)
        assert "identical" in desk.lines()[0]
        assert "e29 of 43" in desk.lines()[0]
        assert "mark 112,999 (76 %)" in desk.lines()[0]

    travel(journey)


def test_it_opens_where_it_is_told_to() -> None:
    async def journey(desk: Desk) -> None:
        assert desk.mark == "70327"

    travel(journey, at="e22")


def test_the_last_change_of_the_account_leads_to_the_line_that_overran_the_buffer() -> None:
    async def journey(desk: Desk) -> None:
        await desk.press("L")
        assert desk.where == "agent.c:89"
        assert desk.app.focus.event == 22
        assert "last written here, by the host, in event 22" in desk.screen()
        await desk.press("L")  # once more: sscanf, as the invoice was read
        assert int(desk.mark) < 70327
        assert desk.app.focus.range == (0, ACCOUNT, 14)

    travel(journey)


def test_who_wrote_tells_and_enter_goes_there() -> None:
    async def journey(desk: Desk) -> None:
        await desk.press("w")
        assert "who wrote 0x130050:14" in desk.screen()
        assert "9999-0000-6666" in desk.screen()
        assert desk.mark == "112999"
        await desk.press("enter")
        assert desk.where == "agent.c:89"

    travel(journey)


def test_events_are_stepped_through() -> None:
    async def journey(desk: Desk) -> None:
        await desk.press("comma")
        assert desk.app.focus.event == 28
        await desk.press("full_stop", "full_stop")
        assert desk.app.focus.event == 30
        await desk.press("left_curly_bracket")
        assert desk.app.focus.event == 29
        await desk.press("right_curly_bracket")
        assert desk.app.focus.event == 35
        await desk.press("up")
        assert desk.app.focus.event == 34
        assert desk.app.snapshot is not None and desk.app.snapshot.event == 34

    travel(journey)


def test_steps_go_forward_and_back_by_lines() -> None:
    async def journey(desk: Desk) -> None:
        await desk.press("n")
        assert desk.where == "agent.c:98"
        await desk.press("N")
        assert desk.where == "agent.c:97"
        await desk.press("O")
        assert desk.where == "agent.c:114"
        await desk.press("s")
        assert desk.where.startswith("agent.c:9")
        await desk.press("o")
        assert desk.app.snapshot is not None and desk.app.snapshot.frames[0].name == "act"
        before = desk.mark
        await desk.press("S")
        assert desk.mark != before

    travel(journey)


def test_steps_go_by_instructions() -> None:
    async def journey(desk: Desk) -> None:
        await desk.press("i")
        assert "code" in desk.screen() and "call 14" in desk.screen()
        await desk.press("s")
        assert desk.mark == "113000"
        await desk.press("S", "S")
        assert desk.mark == "112998"
        await desk.press("i")
        assert "source  agent.c" in desk.screen()

    travel(journey)


def test_it_continues_to_breakpoints_both_ways() -> None:
    async def journey(desk: Desk) -> None:
        await desk.press("b")
        await desk.type("func=search")
        assert [point.text for point in desk.app.session.points] == ["func=search"]
        await desk.press("C")
        assert desk.where.startswith("agent.c:8")
        first = int(desk.mark)
        await desk.press("C")
        assert int(desk.mark) < first
        await desk.press("c")
        assert int(desk.mark) == first
        await desk.press("B")
        assert "break func=search" in desk.screen()
        await desk.press("space", "escape")
        assert not desk.app.session.points[0].enabled
        await desk.press("c")
        assert desk.app.snapshot is not None and desk.app.snapshot.at_end
        await desk.press("B", "d")
        assert desk.app.session.points == ()

    travel(journey)


def test_a_breakpoint_that_cannot_be_is_told() -> None:
    async def journey(desk: Desk) -> None:
        await desk.press("b")
        await desk.type("func=serch")
        assert "serch" in desk.lines()[-1]
        assert desk.app.session.points == ()

    travel(journey)


def test_a_watchpoint_is_offered_for_the_chosen_bytes() -> None:
    async def journey(desk: Desk) -> None:
        await desk.press("W")
        await desk.press("enter")
        assert [point.text for point in desk.app.session.points] == ["0x130050:14"]
        await desk.press("C")
        assert desk.mark == "70327"

    travel(journey)


def test_run_to_a_line_of_the_source() -> None:
    async def journey(desk: Desk) -> None:
        await desk.press("tab")
        assert desk.app.focused is not None and desk.app.focused.id == "source"
        await desk.press("down", "down", "enter")
        assert desk.where == "agent.c:99"

    travel(journey)


def test_memory_is_gone_to_and_searched() -> None:
    async def journey(desk: Desk) -> None:
        await desk.press("g")
        await desk.type("0x130010")
        assert desk.app.focus.range == (0, 0x130010, 1)
        assert "130010" in desk.screen() and "Vendor r" in desk.screen()
        await desk.press("slash")
        await desk.type("9999-0000")
        found = desk.app.focus.address
        assert found == ACCOUNT
        await desk.press("f3")
        assert desk.app.focus.address is not None and desk.app.focus.address >= found
        await desk.press("g")
        await desk.type("0xffffffff")
        assert "memory 0 ends at 0x140000" in desk.screen()
        await desk.press("escape")
        await desk.press("slash")
        await desk.type("nowhere to be found")
        assert "not found" in desk.lines()[-1]

    travel(journey)


def test_changed_bytes_are_known_against_the_stop_before() -> None:
    async def journey(desk: Desk) -> None:
        await desk.press("L")
        pane = desk.app.pane(MemoryPane)
        page, at = divmod(ACCOUNT, 4096)
        now, old = pane._pages[page]
        assert now[at : at + 14] == b"1234-5678-9012"
        assert old is not None and old[at : at + 14] == b"9999-0000-6666"

    travel(journey)


def test_bytes_are_chosen_with_the_cursor() -> None:
    async def journey(desk: Desk) -> None:
        desk.app.activate("memory")
        await desk.press("right")
        assert desk.app.focus.range == (0, ACCOUNT + 1, 1)
        await desk.press("shift+right", "shift+right", "shift+left")
        assert desk.app.focus.range == (0, ACCOUNT + 1, 2)
        await desk.press("down")
        per_row = desk.app.pane(MemoryPane).per_row
        assert desk.app.focus.range == (0, ACCOUNT + 1 + per_row, 1)
        await desk.press("home")
        assert desk.app.focus.address == 0
        await desk.press("end")
        assert desk.app.focus.address == 0x140000 - 1

    travel(journey)


def test_values_open_and_their_bytes_are_chosen() -> None:
    async def journey(desk: Desk) -> None:
        desk.app.activate("frames")
        await desk.press("down", "enter")
        pane = desk.app.pane(FramesPane)
        names = [item.name for item in pane.items if isinstance(item, ValueRow)]
        assert "account" in names and "amount_cents" in names
        await desk.press("down", "down")
        assert desk.app.focus.range == (0, ACCOUNT, 16)
        await desk.press("L")
        assert desk.where == "agent.c:89"

    travel(journey)


def test_another_frame_moves_the_source() -> None:
    async def journey(desk: Desk) -> None:
        desk.app.activate("frames")
        pane = desk.app.pane(FramesPane)
        for _ in range(4):
            await desk.press("down")
        assert desk.app.focus.frame == 1
        assert pane.level == 1
        assert "source  agent.c:114  act()" in desk.screen()
        await desk.press("left_square_bracket")
        assert desk.app.focus.frame == 0
        assert "source  agent.c:97  pay()" in desk.screen()
        await desk.press("right_square_bracket")
        assert "source  agent.c:114  act()" in desk.screen()

    travel(journey)


def test_history_goes_back_and_forward() -> None:
    async def journey(desk: Desk) -> None:
        await desk.press("L", "n")
        here = desk.mark
        await desk.press("left_square_bracket")
        assert desk.mark == "70327"
        await desk.press("left_square_bracket")
        assert desk.mark == "112999"
        await desk.press("right_square_bracket", "right_square_bracket")
        assert desk.mark == here

    travel(journey)


def test_bookmarks_are_kept_beside_the_trace(tmp_path: Path) -> None:
    with copied(INCIDENT, tmp_path) as trace:
        files = sorted(path.name for path in trace.iterdir())

        async def sets(desk: Desk) -> None:
            await desk.press("m")
            assert "bookmarked" in desk.lines()[-1]

        async def goes(desk: Desk) -> None:
            await desk.press("comma", "apostrophe")
            assert "pay agent.c:97" in desk.screen()
            await desk.press("enter")
            assert desk.mark == "112999"

        travel(sets, trace)
        travel(goes, trace)
        assert sorted(path.name for path in trace.iterdir()) == files
        kept = json.loads((tmp_path / "incident.trace.bookmarks.json").read_text())
        assert kept["bookmarks"][0]["mark"] == "112999"


def test_bookmarks_that_cannot_be_read_are_not_overwritten(tmp_path: Path) -> None:
    with copied(INCIDENT, tmp_path) as trace:
        beside = tmp_path / "incident.trace.bookmarks.json"
        beside.write_text("somebody else's")

        async def journey(desk: Desk) -> None:
            await desk.press("m")
            assert "not kept" in desk.lines()[-1]

        travel(journey, trace)
        assert beside.read_text() == "somebody else's"


def test_the_footer_has_the_keys_of_the_active_pane() -> None:
    async def journey(desk: Desk) -> None:
        assert "s n o c step" in desk.lines()[-1]
        desk.app.activate("timeline")
        await desk.settled()
        assert " n o c step" in desk.lines()[-1] and "s n o c" not in desk.lines()[-1]
        assert "w s zoom" in desk.lines()[-1] and "who wrote" not in desk.lines()[-1]

    travel(journey)


def test_a_breakpoint_that_is_switched_off_is_told_apart() -> None:
    async def journey(desk: Desk) -> None:
        await desk.press("b")
        await desk.type("line=agent.c:98")
        assert "●  98" in desk.screen()
        await desk.press("B", "space", "escape")
        assert "○  98" in desk.screen()

    travel(journey)


def test_a_mark_is_gone_to() -> None:
    async def journey(desk: Desk) -> None:
        await desk.press("colon")
        await desk.type("70329")
        assert desk.where == "agent.c:90"
        await desk.press("colon")
        await desk.type("rubbish")
        assert "is not a mark" in desk.lines()[-1]
        assert desk.mark == desk.app.focus.mark == "70329"
        assert desk.app.focus.event == 22  # the focus is where the guest is

    travel(journey)


def test_help_lists_every_action_and_the_palette_finds_one() -> None:
    async def journey(desk: Desk) -> None:
        await desk.press("question_mark")
        from inspector.panes.texts import TextPane

        shown = "\n".join("".join(text for text, _ in line) for line in desk.app.screen.query_one(TextPane).lines)
        for action in ACTIONS:
            if not action.pane:
                assert action.label in shown
        await desk.press("escape")
        await desk.press("ctrl+p")
        await desk.pilot.pause(0.3)
        for letter in "last change":
            await desk.pilot.press("space" if letter == " " else letter)
        await desk.pilot.pause(0.5)
        await desk.press("enter")
        await desk.until(lambda: desk.mark == "70327")

    travel(journey)


def test_an_event_is_shown_in_full() -> None:
    async def journey(desk: Desk) -> None:
        await desk.press("e")
        assert "9999-0000-6666" in desk.screen()
        assert "import    tool.pay" in desk.screen()
        await desk.press("escape")

    travel(journey)


def test_what_did_not_go_wrong_is_not_gone_to() -> None:
    async def journey(desk: Desk) -> None:
        await desk.press("exclamation_mark")
        assert "did not diverge" in desk.lines()[-1]

    travel(journey)


def test_keys_can_be_given_to_other_actions() -> None:
    async def journey(desk: Desk) -> None:
        assert "f9" in desk.lines()[-1]
        await desk.press("f9")
        assert desk.where == "agent.c:89"

    travel(journey, keymap={"last-change": "f9"})


def test_the_timeline_moves_the_guest() -> None:
    async def journey(desk: Desk) -> None:
        desk.app.activate("timeline")
        await desk.press("left")
        assert int(desk.mark.partition(".")[0]) < 112999
        await desk.press("w", "w", "a")
        assert "mark" in desk.screen()
        await desk.press("s", "s", "s")

    travel(journey)


def test_the_output_is_that_of_the_moment() -> None:
    async def journey(desk: Desk) -> None:
        assert "asks for 12950 cents" in desk.screen()
        assert "paid 129.50" not in desk.screen()
        await desk.press("c")
        assert "paid 129.50" in desk.screen()

    travel(journey, size=(120, 60))


def test_the_guest_does_not_run_at_the_end() -> None:
    async def journey(desk: Desk) -> None:
        await desk.press("c")
        assert "the guest does not run here" in desk.screen()
        await desk.press("n")
        assert "the end" in desk.lines()[-1]
        await desk.press("N")
        assert desk.app.snapshot is not None

    travel(journey)


@pytest.mark.parametrize("name", ["fuel", "killed", "nested"])
def test_other_recordings_open_to_something_useful(name: str) -> None:
    async def journey(desk: Desk) -> None:
        assert not desk.app.refused
        assert f"{name}.trace" in desk.lines()[0]
        await desk.press("comma", "n", "N", "i", "s", "S", "tab", "tab", "up")
        assert desk.app.snapshot is not None
        assert desk.app.pane(StoryPane).count() > 0

    travel(journey, GOLDENS / f"{name}.trace")


def test_a_trace_whose_tables_changed_opens_and_says_so(tmp_path: Path) -> None:
    with copied(INCIDENT, tmp_path) as trace:
        (trace / "spans.parquet").write_bytes(b"something else")

        async def journey(desk: Desk) -> None:
            assert "identical · files changed" in desk.lines()[0]
            assert desk.app.facts is not None and "spans.parquet" in desk.app.facts.changed[0]
            await desk.press("L")
            assert desk.where == "agent.c:89"

        travel(journey, trace)


def test_what_was_seen_of_changed_files_is_not_remembered_of_the_trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with Trace.open(INCIDENT) as trace:
        alter(trace, tmp_path / "incident.trace", 29)

    async def altered(desk: Desk) -> None:
        assert "diverged at e29 · files changed" in desk.lines()[0]

    async def genuine(desk: Desk) -> None:
        assert "identical" in desk.lines()[0] and "changed" not in desk.lines()[0]

    for _ in range(2):
        travel(altered, tmp_path / "incident.trace")
        travel(genuine, INCIDENT)


def test_a_trace_with_another_module_has_no_machine_but_a_story(tmp_path: Path) -> None:
    with copied(INCIDENT, tmp_path) as trace:
        (trace / "module.wasm").write_bytes(b"something else")

        async def journey(desk: Desk) -> None:
            assert "module.wasm" in desk.app.refused
            assert "no time machine" in desk.lines()[-1]
            assert 'pay("9999-0000-6666"' in desk.screen()
            assert "import    tool.pay" in desk.screen()  # the event stands where the guest would
            await desk.press("n", "comma")
            assert desk.app.focus.event == 28

        travel(journey, trace)


def test_the_table_of_actions_is_consistent() -> None:
    keys: dict[tuple[str, str], str] = {}
    for action in ACTIONS:
        assert BY_ID[action.id] is action
        assert action.help.endswith(".")
        for key in action.key.split(","):
            assert keys.setdefault((action.pane, key), action.id) == action.id, key


def test_a_divergence_is_where_it_opens() -> None:
    def make() -> TimeMachine:
        machine = TimeMachine(INCIDENT)
        machine.wait()
        machine.__dict__["proof"] = ""
        machine.passed = {**machine.verdict(), "verdict": "diverged", "reason": "event 20: expected a clock, got a write"}
        machine.clocks.known = 20
        return machine

    async def journey(desk: Desk) -> None:
        assert "diverged" in desk.lines()[0]
        assert "expected a clock, got a write" in desk.lines()[-1]
        assert desk.app.focus.event == 20
        assert desk.app.snapshot is not None and desk.app.snapshot.at_end
        await desk.press("home")
        assert desk.app.focus.event == 0
        await desk.press("exclamation_mark")
        assert desk.app.focus.event == 20

    travel(journey, session=lambda tell: Session(INCIDENT, tell, make=make))


def test_the_documentation_names_every_key() -> None:
    text = (ROOT / "docs" / "inspector.md").read_text(encoding="utf-8")
    told = set(re.findall(r"`([^`\s]+)`", text)) | {"↑", "↓", "←", "→", "pgup", "pgdn", "home", "end"}
    for action in (*ACTIONS, *BROWSER):
        keys = shown_keys(action)
        assert told & set(keys), f"{action.id} ({' '.join(keys)}) is not in docs/inspector.md"
