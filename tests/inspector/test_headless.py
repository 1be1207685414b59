"""What the inspector knows without a screen: focus and visits, needles, keymaps, bookmarks, the session."""

from __future__ import annotations

import os
import queue
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from inspector import protocol as ask
from inspector.actions import ACTIONS, BY_ID, doable, footer, read_keymap, shown_keys
from inspector.bookmarks import Bookmark, bookmarks_file, read_bookmarks, write_bookmarks
from inspector.focus import Focus, Visits
from inspector.memory.values import decoded, needle
from inspector.panes.timeline import bars, height
from inspector.session import Session
from replayer.machine import TimeMachine
from tests.inspector.kit import ACCOUNT, INCIDENT, SOURCES
from traces._errors import UsageError


class TestVisits:
    def test_back_and_forward(self) -> None:
        visits = Visits()
        visits.go(Focus("1"))
        visits.go(Focus("2"))

        assert visits.back() == Focus("1")
        assert visits.back() == Focus()
        assert visits.back() is None
        assert visits.forward() == Focus("1")

    def test_a_cursor_running_down_is_one_visit(self) -> None:
        visits = Visits()
        for mark in range(100):
            visits.go(Focus(str(mark)), "story")

        assert visits.back() == Focus()

    def test_going_elsewhere_forgets_what_was_ahead(self) -> None:
        visits = Visits()
        visits.go(Focus("1"))
        visits.back()
        visits.go(Focus("2"))

        assert visits.forward() is None

    def test_what_becomes_known_is_no_visit(self) -> None:
        visits = Visits()
        visits.go(Focus("e29"))
        visits.settle(mark="112999")

        assert visits.now.mark == "112999"
        assert visits.back() == Focus()

    def test_staying_is_no_visit(self) -> None:
        visits = Visits()

        assert not visits.go(Focus())
        assert visits.back() is None


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("PAY", b"PAY"),
        ('"39 39"', b"39 39"),
        ("39 39 0a", b"99\n"),
        ("x:3939", b"99"),
        ("u32:12950", b"\x96\x32\x00\x00"),
        ("i16:-1", b"\xff\xff"),
        ("u8:0x41", b"A"),
    ],
)
def test_needles(text: str, found: bytes) -> None:
    assert needle(text) == found


@pytest.mark.parametrize("text", ["", "u8:256", "x:3"])
def test_needles_that_make_no_sense(text: str) -> None:
    with pytest.raises(UsageError):
        needle(text)


def test_bytes_as_numbers() -> None:
    values = dict(decoded(bytes([0xFF, 0xFF, 0xFF, 0xFF, 0, 0, 0, 0])))

    assert values["i8"] == "-1"
    assert values["u16"] == "65535"
    assert values["i64"] == "4294967295"
    assert dict(decoded(b"")) == {}


class TestKeys:
    def test_the_footer_fits(self) -> None:
        for width in range(40, 200, 7):
            cells = footer(width)
            assert sum(len(keys) + len(name) + 4 for keys, name in cells) <= width
            assert cells[-1][1] in ("help", "quit")

    @pytest.mark.parametrize("pane", ["", "story", "event", "memory", "timeline"])
    def test_no_key_means_two_things_in_a_footer(self, pane: str) -> None:
        cells = footer(1000, None, doable(pane))
        keys = [key for shown, _ in cells for key in shown.split()]

        assert len(keys) == len(set(keys))
        assert {action.family for action in ACTIONS if action.pane == pane} - {""} <= {name for _, name in cells}

    def test_a_key_that_a_pane_was_given_is_no_longer_shown_for_anything_else(self) -> None:
        keymap = {"zoom-in": "L"}

        assert "last change" in [name for _, name in footer(1000, keymap, doable("story", keymap))]
        assert "last change" not in [name for _, name in footer(1000, keymap, doable("timeline", keymap))]

    def test_a_key_under_two_names_is_shown_once(self) -> None:
        assert shown_keys(BY_ID["last-change"]) == ["L"]
        assert shown_keys(BY_ID["help"]) == ["?", "f1"]

    def test_a_keymap_is_read(self, tmp_path: Path) -> None:
        (tmp_path / "keys.toml").write_text('step-over = "f10"\n')
        (tmp_path / "keys.json").write_text('{"step-over": "f10"}')

        assert read_keymap(tmp_path / "keys.toml") == read_keymap(tmp_path / "keys.json") == {"step-over": "f10"}

    @pytest.mark.parametrize("text", ['stepover = "f10"', "step-over = 10", "step-over =", 'step-over = ""'])
    def test_a_keymap_that_makes_no_sense_is_refused_with_its_name(self, tmp_path: Path, text: str) -> None:
        path = tmp_path / "keys.toml"
        path.write_text(text)

        with pytest.raises(UsageError, match=r"keys\.toml"):
            read_keymap(path)

    def test_a_missing_keymap_is_told(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="cannot be read"):
            read_keymap(tmp_path / "keys.toml")


class TestBookmarks:
    def test_they_come_back(self, tmp_path: Path) -> None:
        kept = [Bookmark("112999", 29, "pay"), Bookmark("5", 1, "x", 16, 4, 1)]
        write_bookmarks(tmp_path / "a.trace", kept)

        assert read_bookmarks(tmp_path / "a.trace") == kept
        assert bookmarks_file(tmp_path / "a.trace").parent == tmp_path

    def test_none_are_none(self, tmp_path: Path) -> None:
        assert read_bookmarks(tmp_path / "a.trace") == []

    @pytest.mark.parametrize("text", ["", "[]", '{"bookmarks": [{"mark": 5}]}', "{" * 10_000])
    def test_a_file_that_is_something_else_is_told(self, tmp_path: Path, text: str) -> None:
        bookmarks_file(tmp_path / "a.trace").write_text(text)

        with pytest.raises(UsageError, match="bookmarks"):
            read_bookmarks(tmp_path / "a.trace")


def test_the_timeline_counts_every_event_at_any_width() -> None:
    density = [1, 0, 2, 3] * 16

    assert sum(bars(density, 0.0, 1.0, 16)) == sum(density)
    assert bars(density, 0.0, 1.0, 64) == density
    assert max(bars(density, 0.0, 1.0, 200)) == 3
    assert [height(n, 1000) for n in (0, 1, 1000)] == [0, 1, 8]


class Listener:
    """Hears what a session tells."""

    def __init__(self, **options: Any) -> None:
        self.reports: queue.Queue[ask.Report] = queue.Queue()
        self.session = Session(INCIDENT, self.reports.put, search=[SOURCES], **options)

    def next(self, *kinds: type) -> Any:
        """The next report of these kinds."""
        deadline = time.monotonic() + 30
        while True:
            report = self.reports.get(timeout=max(0.1, deadline - time.monotonic()))
            if isinstance(report, kinds):
                return report


class TestSession:
    @pytest.fixture
    def listener(self) -> Iterator[Listener]:
        made = Listener()
        made.session.start()
        made.next(ask.Opened)
        yield made
        made.session.close()

    def test_a_seek_brings_everything_the_panes_show(self, listener: Listener) -> None:
        listener.session.post(ask.Seek("e29"))
        snapshot = listener.next(ask.Arrived).snapshot

        assert (str(snapshot.mark), snapshot.event) == ("112999", 29)
        assert [head.name for head in snapshot.frames] == ["pay", "act", "__original_main", "_start"]
        assert snapshot.detail.source.line == 97
        assert snapshot.detail.code.lines[snapshot.detail.code.index].text.startswith("call 14")
        assert snapshot.memory_sizes == (1310720,)

    def test_of_several_seeks_the_newest_wins(self, listener: Listener) -> None:
        for seq in range(1, 40):
            listener.session.post(ask.Seek(f"e{seq}"))
        arrived: list[ask.Arrived] = []
        while not arrived or arrived[-1].asked != "e39":
            arrived.append(listener.next(ask.Arrived))

        assert len(arrived) < 10

    def test_bytes_come_with_those_of_the_stop_before(self, listener: Listener) -> None:
        listener.session.post(ask.Seek("e29"))
        listener.next(ask.Arrived)
        listener.session.post(ask.LastChange(0, ACCOUNT, 14))
        assert listener.next(ask.Arrived).snapshot.detail.source.line == 89
        listener.session.post(ask.ReadMemory(0, ACCOUNT, 14))
        pages = listener.next(ask.PagesRead).pages

        assert (pages.old, pages.data) == (b"9999-0000-6666", b"1234-5678-9012")

    def test_what_changed_says_what_it_was(self, listener: Listener) -> None:
        listener.session.post(ask.Seek("e28"))
        listener.next(ask.Arrived)
        listener.session.post(ask.Seek("e29"))
        row = listener.next(ask.Arrived).snapshot.globals[0]

        assert row.was is not None and row.was != row.text

    def test_what_cannot_be_done_is_one_line(self, listener: Listener) -> None:
        listener.session.post(ask.Seek("e4000"))

        assert "there is no event 4000" in listener.next(ask.Said).text

    def test_a_motion_is_cancelled(self, listener: Listener) -> None:
        listener.session.post(ask.Seek("e29"))
        listener.next(ask.Arrived)
        machine = listener.session.machine
        started: queue.Queue[None] = queue.Queue()

        def run(*_: Any, watch: Any, **__: Any) -> Any:
            started.put(None)
            while True:
                time.sleep(0.005)
                watch(5, 1)

        machine.motion.__dict__["run"] = run
        listener.session.post(ask.Run())
        started.get(timeout=10)
        assert listener.session.cancel()

        assert listener.next(ask.Said).text == "cancelled"
        assert not listener.session.cancel()

    def test_a_seek_ends_a_motion(self, listener: Listener) -> None:
        listener.session.post(ask.Seek("e29"))
        listener.next(ask.Arrived)
        started: queue.Queue[None] = queue.Queue()

        def run(*_: Any, watch: Any, **__: Any) -> Any:
            started.put(None)
            while True:
                time.sleep(0.005)
                watch(5, 1)

        listener.session.machine.motion.__dict__["run"] = run
        listener.session.post(ask.Run())
        started.get(timeout=10)
        listener.session.post(ask.Seek("e5"))

        assert listener.next(ask.Arrived).asked == "e5"

    def test_a_process_that_dies_is_told_and_the_machine_comes_back(self, listener: Listener) -> None:
        listener.session.post(ask.Seek("e29"))
        listener.next(ask.Arrived)
        machine = listener.session.machine
        os.kill(machine.here.moment.pid, 9)
        listener.session.post(ask.ReadMemory(0, ACCOUNT + 4096, 16))

        assert "opening the recording again" in listener.next(ask.Said).text
        assert str(listener.next(ask.Arrived).snapshot.mark) == "112999"
        assert "restarted" in listener.next(ask.Said).text
        assert listener.session.machine is not machine

    def test_a_machine_that_is_not_proven_shows_nothing(self) -> None:
        def make() -> TimeMachine:
            machine = TimeMachine(INCIDENT)
            machine.__dict__["proof"] = "the twin did something else"
            return machine

        listener = Listener(make=make)
        listener.session.start()

        assert "cannot be trusted" in listener.next(ask.Refused).why
        listener.session.close()

    def test_it_closes_while_it_opens(self) -> None:
        listener = Listener()
        listener.session.start()
        listener.session.close()

        assert not listener.session._thread.is_alive()
