"""Where a replay left its recording: the two sides of it, the way there, and the way back from there.

The oracle is the verdict of the plain replay, as its own process prints it, and the records as they were and as they were forged.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inspector.divergence import Divergence, Pair, first_difference, pairs, read_divergence
from inspector.panes.divergence import DivergencePane
from inspector.panes.frames import FramesPane
from inspector.panes.memory import MemoryPane
from inspector.snapshot import FrameHead
from recorder.outcome import Limits
from recorder.python_host import HostFunction
from replayer.machine import TimeMachine
from replayer.marks import Mark
from replayer.sides import KEPT, first_run
from replayer.verdict import Sent, Side
from tests import harness
from tests.harness import Row
from tests.inspector.kit import ACCOUNT, GOLDENS, INCIDENT, ROOT, Desk, travel
from tests.recording.test_tampering import FORGERIES, SCRIPT
from tests.scripts import RecordedReach, Script, hosts, scripted_guest
from traces import tables
from traces.tracedir import STATES

PAY = 29
ACCOUNT_TEXT = b"9999-0000-6666"
Change = Callable[[list[Row]], None]


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What an earlier program concluded of the same traces is not to be found."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


def another_amount(rows: list[Row]) -> None:
    at = rows[PAY].body.index((12950).to_bytes(8, "little"))
    rows[PAY].body[at : at + 8] = (12953).to_bytes(8, "little")


def another_account(rows: list[Row]) -> None:
    at = rows[PAY].body.index(ACCOUNT_TEXT)
    rows[PAY].body[at + 5 : at + 7] = b"12"


def another_import(rows: list[Row]) -> None:
    rows[PAY].index = rows[PAY - 1].index


def a_missing_event(rows: list[Row]) -> None:
    del rows[PAY]


def an_additional_event(rows: list[Row]) -> None:
    row = rows[PAY]
    rows.insert(PAY, Row(PAY, row.index, row.kind, row.status, bytearray(row.body), row.time))


CHANGES: dict[str, Change] = {
    change.__name__: change for change in (another_amount, another_account, another_import, a_missing_event, an_additional_event)
}


@pytest.fixture(scope="module")
def forged(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The demo's recording with something else in it; made once."""
    made: dict[str, Path] = {}

    def make(name: str) -> Path:
        if name not in made:
            made[name] = harness.forge(INCIDENT, tmp_path_factory.mktemp("forged"), CHANGES[name])
        return made[name]

    return make


def printed(trace: Path) -> dict[str, Any]:
    """What `reprise replay --json` prints."""
    command = [sys.executable, "-m", "reprise", "replay", "--json", str(trace)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 3, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def divergence_of(verdict: dict[str, Any]) -> Divergence:
    found = read_divergence(verdict)
    assert found is not None
    return found


def texts(side: tuple[tuple[str, str], ...]) -> str:
    return "".join(text for text, _ in side)


# -- both sides ----------------------------------------------------------------------------------------------------------


def test_another_argument_is_told_of_both(forged: Callable[[str], Path]) -> None:
    found = divergence_of(printed(forged("another_amount")))

    assert (found.seq, found.calling, found.place) == (PAY, "tool.pay", None)
    assert (found.expected.kind, found.expected.name) == (found.got.kind, found.got.name) == ("call", "tool.pay")
    assert [(kind, bits) for _, kind, bits in found.expected.values] == [("i32", ACCOUNT), ("i32", 14), ("i64", 12953)]
    assert [bits for _, _, bits in found.got.values] == [ACCOUNT, 14, 12950]
    assert found.expected.sent == found.got.sent == (Sent(0, ACCOUNT, ACCOUNT_TEXT),)
    assert found.looked_at == (0, ACCOUNT, 14)


def test_other_bytes_are_told_of_both(forged: Callable[[str], Path]) -> None:
    found = divergence_of(printed(forged("another_account")))

    assert found.expected.values == found.got.values
    assert found.expected.sent == (Sent(0, ACCOUNT, b"9999-1200-6666"),)
    assert found.got.sent == (Sent(0, ACCOUNT, ACCOUNT_TEXT),)
    assert found.place == found.looked_at == (0, ACCOUNT + 5, 2)


def test_another_import_is_told_of_both(forged: Callable[[str], Path]) -> None:
    found = divergence_of(printed(forged("another_import")))

    assert (found.expected.name, found.got.name) == ("llm.complete", "tool.pay")
    assert found.place is None


def test_an_event_more_or_less_is_told_as_what_came_instead(forged: Callable[[str], Path]) -> None:
    missing, more = (divergence_of(printed(forged(name))) for name in ("a_missing_event", "an_additional_event"))

    assert (missing.expected.name.rpartition(".")[2], missing.got.name) == ("fd_fdstat_get", "tool.pay")
    assert more.seq == PAY + 1
    assert (more.expected.name, more.got.name.rpartition(".")[2]) == ("tool.pay", "fd_fdstat_get")


def test_a_pointer_that_moved_shows_what_lies_where_it_points(tmp_path: Path) -> None:
    wasm = harness.assemble("""(module (import "env" "take" (func $take (param i32 i32)))
        (memory (export "memory") 1) (data (i32.const 100) "first") (data (i32.const 200) "other")
        (func (export "run") (call $take (i32.const 100) (i32.const 5))))""")

    def take(guest: Any, at: int, length: int) -> None:
        guest.read(at, length)

    host = HostFunction("env", "take", ("i32", "i32"), (), take, "test")
    harness.record(wasm, tmp_path / "a.trace", lambda guest: guest.call("run"), hosts=[host])

    def move(rows: list[Row]) -> None:
        row = next(row for row in rows if b"first" in row.body)
        assert row.body.count((100).to_bytes(4, "little")) == 2
        row.body[:] = row.body.replace((100).to_bytes(4, "little"), (200).to_bytes(4, "little")).replace(b"first", b"other")

    found = divergence_of(harness.verdict_of(harness.forge(tmp_path / "a.trace", tmp_path, move)).to_json())
    assert found.expected.sent == (Sent(0, 200, b"other"),)
    assert found.got.sent == (Sent(0, 100, b"first"),)


def test_of_long_pieces_what_is_around_the_difference_is_kept(tmp_path: Path) -> None:
    made = Script([("call", "go", 1)], {1: [("read", 0, 30000)]})
    harness.record(
        scripted_guest(), tmp_path / "a.trace", lambda guest: made.run(RecordedReach(guest)), hosts=hosts(made), slot_size=1 << 20
    )

    def change(rows: list[Row]) -> None:
        row = max(rows, key=lambda row: len(row.body))
        assert len(row.body) > 30000
        row.body[-10000] ^= 1

    verdict = harness.verdict_of(harness.forge(tmp_path / "a.trace", tmp_path, change))
    found = divergence_of(verdict.to_json())
    was, now = found.expected.sent[0], found.got.sent[0]
    assert (was.address, len(was.data)) == (now.address, len(now.data)) and len(was.data) == KEPT
    first = first_run(was.data, now.data)[0]
    assert found.place == (0, was.address + first, 1)
    assert f"{was.address + first:#x}" in found.words


@pytest.fixture(scope="module")
def genuine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    script = SCRIPT.again()
    place = tmp_path_factory.mktemp("genuine") / "a.trace"
    harness.record(
        scripted_guest(), place, lambda guest: script.run(RecordedReach(guest)), hosts=hosts(script), slot_size=1 << 20
    )
    return place


@pytest.mark.parametrize("case", FORGERIES)
def test_every_divergence_has_two_sides_that_differ(case: str, genuine: Path, tmp_path: Path) -> None:
    seq, _, change, _, _ = FORGERIES[case]
    verdict = harness.verdict_of(harness.forge(genuine, tmp_path, lambda rows: change(rows, seq)))
    assert verdict.difference is not None
    found = divergence_of(json.loads(json.dumps(verdict.to_json())))

    assert (found.expected, found.got) == verdict.difference.sides
    assert found.seq == verdict.difference.seq
    assert found.words == verdict.difference.where or verdict.difference.got in found.words
    for width in (20, 28, 60, 200):
        lines = pairs(found, width)
        assert any(line.expected != line.got for line in lines), case
        first = lines[first_difference(lines)]
        assert first.expected != first.got
        if found.place is not None and found.expected.sent:
            assert first.address is not None and first.address[1] <= found.place[1]


def test_a_verdict_of_an_earlier_program_is_told_in_its_words() -> None:
    found = divergence_of(
        {
            "verdict": "diverged",
            "difference": {"seq": 3, "expected": "exit 0", "got": "env.f trapped", "where": "", "frames": []},
        }
    )

    assert found.words == "expected exit 0, got env.f trapped"
    assert [(texts(line.expected), texts(line.got)) for line in pairs(found, 40)] == [("exit 0", "env.f trapped")]
    assert read_divergence({"verdict": "identical", "difference": None}) is None


@given(was=st.binary(max_size=80), now=st.binary(max_size=80), width=st.integers(16, 150))
def test_bytes_are_shown_as_they_are(was: bytes, now: bytes, width: int) -> None:
    sides = [Side("poke", "", (), (Sent(0, 0x1000, data),)) for data in (was, now)]
    lines = pairs(Divergence(0, "", sides[0], sides[1], None, ""), width)[2:]
    for data, side in ((was, "expected"), (now, "got")):
        shown = b""
        for line in lines:
            pieces_: tuple[tuple[str, str], ...] = getattr(line, side)
            digits = [text for text, _ in pieces_[1:] if len(text) == 2 and text.strip()]
            shown += bytes.fromhex("".join(digits))
        assert shown == data
    for line in lines:
        left, right = ([text for text, _ in one[1:]] for one in (line.expected, line.got))
        assert line.differs == bool(left and right and left != right)


def test_names_of_a_guest_are_escaped() -> None:
    side = Side("call", "env.\x1b[31m", (("\x1b]0;", "i32", 5),), (), "")
    lines = pairs(Divergence(0, "", side, side, None, ""), 40)

    assert not any("\x1b" in texts(line.expected) for line in lines)


@pytest.mark.parametrize(
    ("kind", "bits", "text"),
    [
        ("i32", 0xFFFFFFFF, "-1"),
        ("f32", 0x7FC00001, "nan (0x7fc00001)"),
        ("f64", 0x3FF8000000000000, "1.5"),
        ("v128", 1 << 64, "0x10000000000000000"),
    ],
)
def test_values_are_shown_as_what_they_are(kind: str, bits: int, text: str) -> None:
    side = Side("call", "env.f", (("x", kind, bits),))
    lines: list[Pair] = pairs(Divergence(0, "", side, side, None, ""), 40)

    assert text in texts(lines[1].expected) and kind in texts(lines[1].expected)


# -- under the pilot -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CHANGES)
def test_it_opens_there_and_says_what_the_plain_replay_says(name: str, forged: Callable[[str], Path]) -> None:
    plain = printed(forged(name))["difference"]

    async def journey(desk: Desk) -> None:
        found = desk.app.pane(DivergencePane).found
        assert found is not None and desk.app.facts is not None
        assert found.seq == plain["seq"] == desk.app.focus.event == desk.app.facts.diverged
        assert plain["where"] in found.words and found.words in desk.app.facts.reason
        assert f"diverged at e{plain['seq']}" in desk.lines()[0]
        assert found.expected.to_json() == plain["sides"]["expected"] and found.got.to_json() == plain["sides"]["got"]
        assert "recorded  a call of " in desk.screen() and "replayed  a call of " in desk.screen()
        # The guest stands at the call that was another.
        assert desk.app.snapshot is not None
        frames = [head for head in desk.app.pane(FramesPane).items if isinstance(head, FrameHead)]
        assert len(frames) == len(found.frames) and found.frames[0].startswith(frames[0].name)
        with TimeMachine(forged(name)) as machine:
            assert found.mark == desk.mark == str(Mark(machine.total - 1))

    travel(journey, forged(name))


def test_the_differing_bytes_are_chosen_and_their_writer_is_found(forged: Callable[[str], Path]) -> None:
    async def journey(desk: Desk) -> None:
        assert desk.app.focus.range == (0, ACCOUNT + 5, 2)
        await desk.press("w")
        assert "who wrote" in desk.screen()
        await desk.press("escape", "L")
        assert desk.where == "agent.c:89"
        await desk.press("exclamation_mark")
        assert desk.app.focused is not None and desk.app.focused.id == "divergence"
        assert desk.where == "agent.c:97" and desk.app.focus.event == PAY
        memory = desk.app.pane(MemoryPane)
        assert memory.has_focus is False and f"memory  {ACCOUNT + 5:#x} +2" in desk.screen()

    travel(journey, forged("another_account"))


def test_it_is_walked_away_from_backward_and_forward(forged: Callable[[str], Path]) -> None:
    async def journey(desk: Desk) -> None:
        there = desk.mark
        marks = [int(there)]
        for key in ("S", "N", "O"):
            await desk.press(key)
            marks.append(int(desk.mark))
        assert marks == sorted(marks, reverse=True) and len(set(marks)) == 4
        await desk.press("b")
        await desk.type("func=search")
        await desk.press("exclamation_mark", "C")
        assert desk.where.startswith("agent.c:8") and int(desk.mark) < int(there)
        await desk.press("c")
        assert desk.app.snapshot is not None and desk.app.snapshot.at_end
        await desk.press("i", "S")
        assert desk.mark == there

    travel(journey, forged("another_amount"))


def test_the_pane_leads_to_bytes_frames_and_back(forged: Callable[[str], Path]) -> None:
    async def journey(desk: Desk) -> None:
        desk.app.activate("divergence")
        pane = desk.app.pane(DivergencePane)
        await desk.press("home")
        for _ in range(5):
            await desk.press("down")
        assert desk.app.focus.range == (0, ACCOUNT, 1)
        while pane._place()[0] != "frame":
            await desk.press("down")
        await desk.press("down", "enter")
        assert desk.app.focus.frame == 1 and "source  agent.c:114  act()" in desk.screen()
        await desk.press("end")
        assert pane._place()[0] == "event"
        assert "fd_fdstat_get" in desk.screen()
        await desk.press("colon")
        await desk.type("e3")
        desk.app.activate("divergence")
        await desk.press("home", "enter")
        assert desk.app.focus.event == PAY and desk.where == "agent.c:97"

    travel(journey, forged("another_account"))


@pytest.mark.parametrize("size", [(60, 14), (80, 24), (100, 30), (160, 50), (220, 60)])
def test_both_sides_are_seen_at_every_size(size: tuple[int, int], forged: Callable[[str], Path]) -> None:
    async def journey(desk: Desk) -> None:
        await desk.press("exclamation_mark")
        screen = desk.screen()
        assert all(len(line) <= size[0] for line in desk.lines())
        assert "─ divergence  e29 " in screen and "─ story ─" in screen
        assert "31 32 30" in screen and "30 30 30" in screen

    travel(journey, forged("another_account"), size=size)


def test_a_recording_that_replays_has_no_such_pane() -> None:
    async def journey(desk: Desk) -> None:
        desk.app.activate("divergence")
        assert "divergence" not in desk.screen()
        assert not desk.app.pane(DivergencePane).display

    travel(journey)


def test_a_state_that_differs_at_the_end_is_told_with_its_page(genuine: Path, tmp_path: Path) -> None:
    seq, _, change, _, _ = FORGERIES["byte received before an exception"]
    trace = harness.forge(genuine, tmp_path, lambda rows: change(rows, seq))

    async def journey(desk: Desk) -> None:
        found = desk.app.pane(DivergencePane).found
        assert found is not None and found.expected.kind == found.got.kind == "state"
        assert desk.app.snapshot is not None and desk.app.snapshot.at_end
        assert desk.app.focus.range is not None and desk.app.focus.range[2] == 65536
        assert "memory memory" in desk.screen() and "sha256" in desk.screen()
        await desk.press("L")
        assert "last written here" in desk.lines()[-1]

    travel(journey, trace)


@pytest.mark.parametrize(
    "case",
    ["code of an export's trap", "result of the last export", "argument of a native call", "a growth that was refused",
     "element of a callback", "byte sent outside a call", "byte sent in a split call", "argument of a split callback",
     "host function put elsewhere", "message of a trap"],
)  # fmt: skip
def test_divergences_of_every_kind_open_to_something_useful(case: str, genuine: Path, tmp_path: Path) -> None:
    seq, _, change, _, _ = FORGERIES[case]
    trace = harness.forge(genuine, tmp_path, lambda rows: change(rows, seq))
    plain = harness.verdict_of(trace).difference
    assert plain is not None and plain.sides is not None
    expected, got = plain.sides

    async def journey(desk: Desk) -> None:
        found = desk.app.pane(DivergencePane).found
        assert not desk.app.refused and found is not None
        assert (found.seq, found.expected, found.got) == (plain.seq, expected, got)
        assert f"diverged at e{plain.seq}" in desk.lines()[0]
        assert desk.app.pane(DivergencePane).display
        await desk.press("S", "i", "S", "comma", "exclamation_mark")
        assert desk.app.focus.event == min(plain.seq, desk.app.story.events - 1)

    travel(journey, trace)


def test_digests_that_were_forged_are_told(tmp_path: Path) -> None:
    target = harness.copy_of(INCIDENT, tmp_path)
    states = tables.read_states(target / STATES)
    last = max(state.seq for state in states)
    wrong = [replace(s, digest=bytes(32)) if s.seq == last and s.what == "memory" else s for s in states]
    (target / STATES).unlink()
    tables.write_states(target / STATES, [(s.seq, s) for s in wrong])
    harness.seal(target)

    async def journey(desk: Desk) -> None:
        assert "diverged at e43" in desk.lines()[0]
        assert "0000000000" in desk.screen()
        assert desk.app.focus.event == 42

    travel(journey, target)


@pytest.mark.parametrize("name", ["fuel", "killed", "nested"])
def test_recordings_that_stop_short_have_no_divergence(name: str) -> None:
    async def journey(desk: Desk) -> None:
        assert desk.app.facts is not None and desk.app.facts.difference is None
        await desk.press("exclamation_mark", "x", "X")
        assert desk.app.snapshot is not None

    travel(journey, GOLDENS / f"{name}.trace")


# -- how a guest was stopped ---------------------------------------------------------------------------------------------

LOOP = """(module (memory (export "memory") 1) (func (export "run") (local i32)
    (loop $l (i32.store (i32.const 8) (local.tee 0 (i32.add (local.get 0) (i32.const 1)))) (br $l))))"""
TRAPS = """(module (func $inner (param i32) (drop (i32.div_u (i32.const 1) (local.get 0))))
    (func (export "run") (call $inner (i32.const 0))))"""
STOPPED: dict[str, tuple[bytes, str, Limits]] = {
    "out of fuel": (harness.assemble(LOOP), "run", Limits(fuel=5000)),
    "out of time": (harness.assemble(LOOP), "run", Limits(timeout=0.2)),
    "a trap, and no memory": (harness.assemble(TRAPS), "run", Limits()),
    "an exhausted stack": (harness.guest("deep_recursion"), "_start", Limits()),
}


@pytest.mark.parametrize("case", STOPPED)
def test_the_guest_is_seen_where_it_was_stopped(case: str, tmp_path: Path) -> None:
    wasm, export, limits = STOPPED[case]
    made = harness.record(wasm, tmp_path / "a.trace", lambda guest: guest.call(export), limits=limits)
    assert made.outcome.kind in ("fuel", "timeout", "trap", "stack")

    async def journey(desk: Desk) -> None:
        await desk.until(lambda: desk.app.survey is not None, "the survey")
        assert desk.app.focus.event == 1 and desk.app.snapshot is not None
        assert desk.app.snapshot.event == 1 and desk.app.snapshot.frames
        if case.startswith("a trap"):
            assert "▶" in desk.screen() and "i32.div_u" in next(line for line in desk.lines() if "▶0" in line)
            assert desk.app.snapshot.frames[0].name.startswith("inner") or len(desk.app.snapshot.frames) == 2
        there = desk.mark
        await desk.press("i", "S")
        assert int(desk.mark) == int(there) - 1
        await desk.press("exclamation_mark")
        assert (desk.mark, desk.app.focus.event) == (there, 1)
        await desk.press("comma", "x")
        assert desk.app.focus.event == 1

    travel(journey, tmp_path / "a.trace")


@pytest.mark.parametrize("text", ["(module)", '(module (memory (export "memory") 1))'])
def test_a_recording_without_events_opens_at_its_start(text: str, tmp_path: Path) -> None:
    harness.record(harness.assemble(text), tmp_path / "a.trace", lambda guest: None)

    async def journey(desk: Desk) -> None:
        assert desk.mark == "start" and "e0 of 0" in desk.lines()[0]
        await desk.press("exclamation_mark", "comma", "n", "S", "e", "x", "tab", "up")
        desk.app.activate("timeline")
        await desk.press("w", "f", "right", "shift+right", "E", "enter", "escape")
        assert desk.mark == "start"

    travel(journey, tmp_path / "a.trace")


def test_what_makes_a_verdict_less_than_identical_is_told() -> None:
    async def journey(desk: Desk) -> None:
        assert "incomplete: the recorder was killed" in desk.lines()[-1]

    travel(journey, GOLDENS / "killed.trace")
