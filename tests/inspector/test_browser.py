"""The store browser: what is listed and what is said of it, each action under a pilot, and a journey in a real terminal."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st
from textual import events
from textual.pilot import Pilot

from inspector.actions import BROWSER as ACTIONS
from inspector.commands import COMMANDS
from inspector.runs.browser import Browser
from inspector.runs.listing import COLUMNS, fitting, how_long, how_much, in_order
from inspector.runs.run import DAMAGED, FINISHED, PACKED, RUNNING, UNFINISHED, Run, described
from inspector.runs.shelf import Shelf
from inspector.runs.store import Opened, Store, holds_runs, is_store, is_unfinished, open_run, read_run
from inspector.runs.verifier import Verified, Verifier
from replayer.machine import TimeMachine
from tests.inspector.kit import GOLDENS, PATIENCE, ROOT
from tests.inspector.terminal import Terminal, needs_tmux
from traces._errors import TraceError, UsageError
from traces.manifest import Manifest
from traces.packing import pack

NAMES = ("fuel", "incident", "killed", "nested")
GUESTS = ROOT / "tests" / "guests"


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test sees what another one's time machine remembers."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """The goldens, in a directory."""
    directory = tmp_path / "store"
    directory.mkdir()
    for name in NAMES:
        shutil.copytree(GOLDENS / f"{name}.trace", directory / f"{name}.trace")
    return directory


def recorder(out: Path, guest: str, *arguments: str) -> subprocess.Popen[bytes]:
    """A recorder at work: the guest has begun when this returns."""
    words = [sys.executable, "-m", "reprise", "record", "-o", str(out), str(GUESTS / f"{guest}.wasm"), *arguments]
    process = subprocess.Popen(words, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert process.stdout is not None
    assert process.stdout.read(8), "the guest wrote nothing"
    return process


def end(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGKILL)
    process.wait(20)
    assert process.stdout is not None
    process.stdout.close()


@pytest.fixture
def running(store: Path) -> Iterator[Path]:
    process = recorder(store / "running.trace", "sleep_hour")
    yield store / "running.trace"
    end(process)


@pytest.fixture
def unfinished(store: Path) -> Path:
    out = store / "unfinished.trace"
    end(recorder(out, "pipe_writer", "100000000"))
    return out


def read(path: Path) -> Run:
    run = read_run(path)
    assert run is not None, path
    return run


def everything(store: Store, known: dict[Path, Run] | None = None, anew: bool = False) -> tuple[list[Run], list[Path]]:
    runs: list[Run] = []
    gone: list[Path] = []
    for portion in store.scan(known or {}, anew):
        runs += portion.runs
        gone += portion.gone
    return runs, gone


def snapshot(path: Path) -> dict[str, tuple[int, int]]:
    """Every file below, with its time and size."""
    files = [found for found in path.rglob("*") if found.is_file()]
    return {str(found): (found.stat().st_mtime_ns, found.stat().st_size) for found in files}


# -- what is known of a run ----------------------------------------------------------------------------------------------


class TestReading:
    def test_a_finished_run(self, store: Path) -> None:
        run = read(store / "incident.trace")

        assert (run.state, run.outcome, run.clean) == (FINISHED, "returned", True)
        assert (run.events, run.module, run.duration) == (43, "agent", 108506370)
        assert run.size == sum(file.stat().st_size for file in (store / "incident.trace").iterdir())
        assert run.verdict is None
        facts = dict(run.facts)
        assert facts["hosts"] == "recorder.demo.hosts:World" and facts["note"] == "case=demo"
        assert facts["imports"].endswith("tool.search, tool.pay")

    def test_the_environment_is_told_by_name_only(self, store: Path) -> None:
        manifest = Manifest.read(store / "incident.trace" / "manifest.json")
        manifest.invocation["env"] = [["TOKEN", "hunter2"]]

        run = described(store, manifest)

        assert dict(run.facts)["environment"] == "TOKEN"
        assert "hunter2" not in str(run)

    def test_a_packed_run_is_read_without_unpacking(self, store: Path) -> None:
        run = read(pack(store / "incident.trace", store / "incident.tar"))

        assert replace(run, path=Path(), size=0, state="", stamp=()) == replace(
            read(store / "incident.trace"), path=Path(), size=0, state="", stamp=()
        )
        assert run.state == PACKED

    def test_a_recording_that_runs(self, running: Path) -> None:
        run = read(running)

        assert (run.state, run.outcome, run.module) == (RUNNING, "running", "sleep_hour")
        assert run.duration is not None and 0 <= run.duration < 60 * 10**9
        with pytest.raises(TraceError, match="still being recorded"):
            open_run(running)

    def test_a_killed_recording_is_listed_as_it_is_and_opens(self, unfinished: Path) -> None:
        before = snapshot(unfinished)

        run = read(unfinished)

        assert (run.state, run.events) == (UNFINISHED, None)
        assert "reprise recover unfinished.trace" in run.why
        opened = open_run(unfinished)
        assert opened.trace.recovered and opened.trace.manifest.totals["records"] > 0
        opened.close()
        assert snapshot(unfinished) == before

    def test_one_that_died_before_it_began(self, store: Path) -> None:
        journal = store / "early.trace" / "journal"
        journal.mkdir(parents=True)
        assert read(store / "early.trace").outcome == "starting"
        os.utime(journal, (1, 1))
        run = read(store / "early.trace")
        assert run.state == DAMAGED and "ended before it began" in run.why

    @pytest.mark.parametrize(
        ("harm", "why"),
        [
            (lambda trace: (trace / "module.wasm").unlink(), "module.wasm is missing"),
            (lambda trace: (trace / "spans.parquet").unlink(), "spans.parquet is missing"),
            (lambda trace: (trace / "events.parquet").unlink(), "events.parquet is missing"),
            (lambda trace: (trace / "manifest.json").unlink(), "manifest.json: is missing"),
            (lambda trace: (trace / "manifest.json").write_text("{"), "manifest.json: not valid JSON"),
            (lambda trace: (trace / "manifest.json").write_text('{"format": 9}'), "manifest.json: trace format 9 is newer"),
            (lambda trace: os.truncate(trace / "events.parquet", 1000), "events.parquet: cannot be read"),
            (lambda trace: os.truncate(trace / "module.wasm", 1000), "module.wasm has 1,000 bytes"),
            (lambda trace: edited(trace, "totals", {"records": 44}), "the manifest counts 44 events, events.parquet holds 43"),
        ],
    )
    def test_a_damaged_one_says_why(self, store: Path, harm: Callable[[Path], Any], why: str) -> None:
        trace = store / "incident.trace"
        harm(trace)
        run = read(trace)
        assert (run.state, run.outcome) == (DAMAGED, "damaged")
        assert run.why.startswith(why)

    def test_a_manifest_that_is_a_pipe_stops_nothing(self, store: Path) -> None:
        (store / "incident.trace" / "manifest.json").unlink()
        os.mkfifo(store / "incident.trace" / "manifest.json")
        assert "not a plain file" in read(store / "incident.trace").why

    def test_a_pack_that_was_cut(self, store: Path) -> None:
        packed = pack(store / "incident.trace", store / "incident.tar")
        os.truncate(packed, 2000)
        assert read(packed).state == DAMAGED

    def test_other_things_are_not_runs(self, tmp_path: Path) -> None:
        (tmp_path / "notes.txt").write_text("x")
        (tmp_path / "notes.tar").write_bytes(b"x" * 2000)
        (tmp_path / "extension").mkdir()
        (tmp_path / "extension" / "manifest.json").write_text('{"name": "of another program"}')
        (tmp_path / "empty").mkdir()
        (tmp_path / "gone").symlink_to(tmp_path / "nowhere")
        os.mkfifo(tmp_path / "pipe.tar")
        assert everything(Store(tmp_path)) == ([], [])
        assert not holds_runs(tmp_path)
        assert is_store(tmp_path)

    def test_what_the_time_machine_remembers_is_the_verdict(self, store: Path) -> None:
        with TimeMachine(store / "nested.trace") as machine:
            machine.require_proof()
        run = read(store / "nested.trace")
        assert run.verdict is not None
        assert (run.verdict.kind, run.verdict.checked) == ("identical", False)


def edited(trace: Path, field: str, value: Any) -> None:
    manifest = json.loads((trace / "manifest.json").read_text())
    manifest[field] = value
    (trace / "manifest.json").write_text(json.dumps(manifest))


_ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text() | st.sampled_from(["kind", "code"]), inner, max_size=3),
    max_leaves=6,
)
_FIELDS = {
    "started": ("realtime_ns", "monotonic_ns"),
    "ended": ("monotonic_ns",),
    "outcome": ("kind", "code", "message", "inside"),
    "totals": ("records",),
    "module": ("origin", "sha256", "size"),
    "engine": ("name", "version", "fingerprint"),
    "invocation": ("argv", "env", "calls", "hosts"),
    "limits": ("fuel", "timeout"),
    "notes": ("a", "b"),
}


@given(st.fixed_dictionaries({name: st.fixed_dictionaries(dict.fromkeys(keys, _ANY)) for name, keys in _FIELDS.items()}))
def test_a_manifest_of_nonsense_is_listed_on_one_line(fields: dict[str, Any]) -> None:
    run = described(Path("x.trace"), Manifest(**fields, capabilities=[fields["notes"]]))

    texts = [column.text(run) for column in COLUMNS] + [text for pair in run.facts for text in pair]
    assert not any(c in text for text in texts for c in "\n\r\t\x1b\x9b\u202e")
    assert in_order([run, run], "started", False) == [run, run]


# -- a directory ---------------------------------------------------------------------------------------------------------


class TestScanning:
    def test_only_what_changed_is_read_again(self, store: Path) -> None:
        shelf = Store(store)
        runs, _ = everything(shelf)
        known = {run.path: run for run in runs}
        assert sorted(run.name for run in runs) == [f"{name}.trace" for name in NAMES]
        assert everything(shelf, known) == ([], [])

        shutil.rmtree(store / "fuel.trace")
        edited(store / "nested.trace", "notes", {"a": "b"})
        shutil.copytree(GOLDENS / "fuel.trace", store / "new.trace")
        runs, gone = everything(shelf, known)

        assert sorted(run.name for run in runs) == ["nested.trace", "new.trace"]
        assert gone == [store / "fuel.trace"]
        assert len(everything(shelf, known, anew=True)[0]) == 4

    def test_what_runs_is_always_read_again_until_it_ends(self, store: Path) -> None:
        process = recorder(store / "running.trace", "sleep_hour")
        shelf = Store(store)
        try:
            known = {run.path: run for run in everything(shelf)[0]}
            again, _ = everything(shelf, known)
        finally:
            end(process)
        assert [(run.name, run.state) for run in again] == [("running.trace", RUNNING)]
        ended, _ = everything(shelf, known)
        assert [(run.name, run.state) for run in ended] == [("running.trace", UNFINISHED)]
        known |= {run.path: run for run in ended}
        assert everything(shelf, known) == ([], [])

    def test_nothing_is_written(self, store: Path) -> None:
        before = snapshot(store)
        everything(Store(store))
        assert snapshot(store) == before

    def test_a_directory_that_is_gone_says_so(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="cannot be read"):
            everything(Store(tmp_path / "nowhere"))


class TestListing:
    def test_durations_and_sizes_are_short(self) -> None:
        texts = [how_long(int(seconds * 1e9)) for seconds in (0, 0.0126, 0.9999, 59.94, 59.99, 3599.6, 86400, 1e9)]
        assert texts == ["0 ms", "13 ms", "1.0 s", "59.9 s", "1 m 00 s", "1 h 00 m", "24 h 00 m", "11,574 d"]
        assert [how_much(size) for size in (0, 999, 1000, 10**6, 10**9, 10**13)] == [
            "0 B", "999 B", "1.0 KiB", "977 KiB", "954 MiB", "9.1 TiB",
        ]  # fmt: skip

    @pytest.mark.parametrize("width", range(40, 220, 9))
    def test_the_columns_fit(self, width: int) -> None:
        shown = [column.id for column, _ in fitting(width)]
        assert {"name", "outcome", "verdict"} <= set(shown)
        assert sum(room + 2 for _, room in fitting(width)) <= max(width, 45)
        assert (len(shown) == len(COLUMNS)) == (width >= 114)

    @pytest.mark.parametrize("column", [column.id for column in COLUMNS])
    def test_every_column_sorts_both_ways_with_the_unknown_last(self, store: Path, column: str) -> None:
        (store / "fuel.trace" / "manifest.json").write_text("{")
        runs, _ = everything(Store(store))
        key = next(one.key for one in COLUMNS if one.id == column)
        keys = [key(run) for run in in_order(runs, column, False)]
        known = [one for one in keys if one is not None]
        assert keys[len(known) :] == [None] * (len(keys) - len(known))
        assert known in (sorted(known), sorted(known, reverse=True))
        turned = [one for one in map(key, in_order(runs, column, True)) if one is not None]
        assert turned == known[::-1]


class TestVerifying:
    def test_runs_are_verified_one_after_the_other(self, store: Path) -> None:
        flipped = store / "fuel.trace" / "events.parquet"
        data = bytearray(flipped.read_bytes())
        data[2000] ^= 1
        flipped.write_bytes(data)
        told: list[Any] = []
        verifier = Verifier(told.append)

        assert verifier.add([store / "nested.trace", store / "fuel.trace"]) == 2
        wait_for(lambda: not verifier.busy)

        found = {report.path.name: report.finding for report in told if isinstance(report, Verified) and report.finding}
        assert found["nested.trace"].kind == "identical" and found["nested.trace"].checked
        assert found["fuel.trace"].kind == "unusable"
        assert found["fuel.trace"].headline.startswith("unusable: events.parquet: changed since the recording was closed")

    def test_cancelling_ends_the_process_and_tells_nothing_of_it(self, unfinished: Path) -> None:
        told: list[Any] = []
        verifier = Verifier(told.append)
        verifier.add([unfinished, unfinished.with_name("nested.trace")])
        wait_for(lambda: verifier._process is not None)
        process = verifier._process
        assert process is not None

        assert verifier.cancel()
        wait_for(lambda: not verifier.busy)

        assert process.returncode == -signal.SIGKILL
        assert not any(isinstance(report, Verified) for report in told)
        assert not verifier.cancel()


def wait_for(holds: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 2 * PATIENCE
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


# -- under a pilot -------------------------------------------------------------------------------------------------------


class Desk:
    """A browser under a pilot."""

    def __init__(self, app: Browser, pilot: Pilot[Any]) -> None:
        self.app, self.pilot = app, pilot

    async def until(self, holds: Callable[[], Any]) -> None:
        deadline = time.monotonic() + 2 * PATIENCE
        while not holds():
            assert time.monotonic() < deadline, f"it never came:\n{self.screen()}"
            await self.pilot.pause(0.02)
        await self.pilot.pause()

    async def press(self, *keys: str) -> None:
        await self.pilot.press(*keys)
        await self.pilot.pause(0.02)

    def lines(self) -> list[str]:
        strips = self.app.screen._compositor.render_strips()
        return ["".join(piece.text for piece in strip).rstrip() for strip in strips]

    def screen(self) -> str:
        return "\n".join(self.lines())

    @property
    def names(self) -> list[str]:
        return [run.name.removesuffix(".trace") for run in self.app.table.runs]

    @property
    def chosen(self) -> str:
        run = self.app.table.chosen
        assert run is not None
        return run.name.removesuffix(".trace")


Journey = Callable[[Desk], Awaitable[None]]


def browse(directory: Path | Shelf, journey: Journey, size: tuple[int, int] = (120, 40), **options: Any) -> Browser:
    """Shows a directory, waits until it was read, and goes on the journey."""

    async def run() -> Browser:
        shelf = directory if isinstance(directory, Shelf) else Shelf(Store(directory))
        app = Browser(shelf, **{"theme": "textual-dark", **options})
        async with app.run_test(size=size) as pilot:
            desk = Desk(app, pilot)
            await desk.until(lambda: not app._scanning)
            await journey(desk)
        return app

    return asyncio.run(run())


def test_every_action_has_a_method() -> None:
    for action in ACTIONS:
        if not action.pane:
            assert hasattr(Browser, f"action_{action.method}"), action.id


@pytest.mark.parametrize("size", [(80, 24), (120, 40), (200, 50)])
def test_the_first_screen(store: Path, size: tuple[int, int]) -> None:
    (store / "nested.trace" / "module.wasm").unlink()

    async def journey(desk: Desk) -> None:
        lines, screen = desk.lines(), desk.screen()
        assert len(lines) == size[1] and all(len(line) <= size[0] for line in lines)
        assert lines[0].startswith(" reprise ") and lines[0].endswith("4 runs · 1 damaged")
        assert desk.names == ["nested", "killed", "fuel", "incident"]  # the newest first
        headings = [word for word in lines[2].strip("│ ").split() if word not in ("▼", "│")]
        assert headings[:4] == ["name", "outcome", "started", "duration"] if size[0] > 80 else "verdict" in headings
        assert "started ▼" in lines[2]
        assert "incident.trace" in screen and "38,310" in screen and "damaged" in screen
        assert ("module.wasm is missing; restore it from a copy" in screen) == (size != (80, 24))
        assert ("agent " in screen) == (size != (80, 24))
        assert lines[-1].startswith(" enter open   / filter   s S sort") and "? help" in lines[-1]

    browse(store, journey, size)


def test_sixteen_colours_and_light(store: Path) -> None:
    async def journey(desk: Desk) -> None:
        assert "incident.trace" in desk.screen()

    for theme in ("ansi-dark", "textual-light"):
        browse(store, journey, theme=theme)


def test_sorting_by_key_and_by_mouse(store: Path) -> None:
    async def journey(desk: Desk) -> None:
        await desk.press("down", "up", "s", "s")  # duration, events
        assert "events ▼" in desk.lines()[2]
        assert desk.names == ["killed", "incident", "fuel", "nested"]
        assert desk.chosen == "nested"  # the cursor stays on its run
        await desk.press("S")
        assert "events ▲" in desk.lines()[2]
        assert desk.names == ["nested", "fuel", "incident", "killed"]
        await desk.pilot.click("#headings", offset=(3, 0))
        await desk.pilot.pause()
        assert "name ▲" in desk.lines()[2]
        assert desk.names == ["fuel", "incident", "killed", "nested"]
        await desk.pilot.click("#headings", offset=(3, 0))
        await desk.pilot.pause()
        assert desk.names == ["nested", "killed", "incident", "fuel"]

    browse(store, journey)


def test_the_filter_works_while_it_is_typed(store: Path) -> None:
    async def journey(desk: Desk) -> None:
        await desk.press("down", "slash", "P", "i", "p", "e")
        assert desk.names == ["killed"]
        assert "1 of 4" in desk.screen() and "enter keeps it   esc shows all" in desk.lines()[-1]
        await desk.press("space", "x")
        assert desk.names == []
        await desk.press("backspace", "enter")
        assert desk.names == ["killed"] and "filter Pipe" in desk.lines()[-2]
        assert desk.lines()[-1].startswith(" enter open")
        await desk.press("escape")
        assert len(desk.names) == 4 and "filter" not in desk.lines()[-2]
        assert desk.chosen == "killed"
        await desk.press("slash", "i", "n", "c", "i", "down", "down")
        assert desk.names == ["incident"]
        await desk.press("slash", "escape")
        assert len(desk.names) == 4

    browse(store, journey)


def test_what_is_typed_right_behind_the_slash_belongs_to_the_filter(store: Path) -> None:
    async def journey(desk: Desk) -> None:
        for key in ("slash", "a", "g", "e", "n", "t"):  # all of it is there before the first is looked at
            desk.app.post_message(events.Key(key, "/" if key == "slash" else key))
        await desk.until(lambda: desk.names == ["incident"])
        await desk.press("slash")
        assert desk.app.view.filter == "agent/"

    browse(store, journey)


def test_verifying_the_chosen_run(store: Path) -> None:
    (store / "fuel.trace" / "states.parquet").unlink()

    async def journey(desk: Desk) -> None:
        await desk.press("home", "v")
        await desk.until(lambda: "verifying nested.trace" in desk.lines()[-1])
        assert "esc cancels" in desk.lines()[-1] and "verifying…" in desk.screen()
        await desk.until(lambda: not desk.app._verifier.busy and "nested.trace  identical: 17 events" in desk.lines()[-1])
        row = next(line for line in desk.lines() if "nested.trace" in line)
        assert row.rstrip("│ ").endswith("identical")

    browse(store, journey)


def test_verifying_all_and_ending_it(store: Path) -> None:
    pack(store / "nested.trace", store / "nested.tar")

    async def journey(desk: Desk) -> None:
        await desk.press("V")
        await desk.until(lambda: "of 4" in desk.lines()[-1])  # a pack cannot be verified
        await desk.press("escape")
        await desk.until(lambda: not desk.app._verifier.busy)
        assert "cancelled" in desk.lines()[-1]
        await desk.press("V")
        await desk.until(lambda: "verified 4: 3 identical, 1 incomplete" in desk.lines()[-1])
        verdicts = {run.name: run.verdict.kind for run in desk.app.table.runs if run.verdict is not None}
        assert verdicts == {
            "fuel.trace": "identical", "incident.trace": "identical", "killed.trace": "incomplete", "nested.trace": "identical",
        }  # fmt: skip

    browse(store, journey)


def test_ctrl_c_ends_what_runs_and_nothing_else(store: Path) -> None:
    async def journey(desk: Desk) -> None:
        await desk.press("ctrl+c")
        assert "q leaves" in desk.lines()[-1]
        await desk.press("V")
        await desk.until(lambda: "verifying" in desk.lines()[-1])
        await desk.press("ctrl+c")
        await desk.until(lambda: not desk.app._verifier.busy)
        assert "cancelled" in desk.lines()[-1]

    browse(store, journey)


def test_what_cannot_be_verified_says_so(store: Path, running: Path) -> None:
    async def journey(desk: Desk) -> None:
        assert desk.chosen == "running"
        assert "1 running" in desk.lines()[0]
        await desk.press("v")
        assert "running.trace is still being recorded" in desk.lines()[-1]
        await desk.press("enter")
        await desk.until(lambda: "running.trace: is still being recorded" in desk.lines()[-1])

    browse(store, journey)


def test_a_verdict_is_for_the_run_as_it_was(store: Path) -> None:
    shelf = Shelf(Store(store))

    async def journey(desk: Desk) -> None:
        await desk.press("home", "v")
        await desk.until(lambda: "identical" in desk.lines()[-1])
        await desk.press("r")
        await desk.until(lambda: "read again: 4 runs" in desk.lines()[-1])
        assert shelf.runs[store / "nested.trace"].verdict is not None
        edited(store / "nested.trace", "notes", {"a": "b"})
        await desk.press("r")
        await desk.until(lambda: not desk.app._scanning and shelf.runs[store / "nested.trace"].verdict is None)

    browse(shelf, journey)


def test_new_recordings_appear_and_old_ones_go_by_themselves(store: Path) -> None:
    async def journey(desk: Desk) -> None:
        await desk.press("end")
        assert desk.chosen == "incident"
        shutil.copytree(GOLDENS / "nested.trace", store / "later.trace")
        shutil.rmtree(store / "fuel.trace")
        await desk.until(lambda: "later" in desk.names and "fuel" not in desk.names)
        assert desk.chosen == "incident"

    browse(store, journey)


def test_copying_the_path(store: Path) -> None:
    async def journey(desk: Desk) -> None:
        await desk.press("home", "y")
        assert desk.app.clipboard == str(store / "nested.trace")
        assert "copied" in desk.lines()[-1]

    browse(store, journey)


def test_details_where_there_is_no_room_for_their_pane(store: Path) -> None:
    async def journey(desk: Desk) -> None:
        assert "sha256" not in desk.screen()
        await desk.press("end", "e")
        assert "─ incident.trace ─" in desk.screen() and "e2494f5ba98f0e3b" in desk.screen()
        await desk.press("escape")
        assert "sha256" not in desk.screen()

    browse(store, journey, (80, 24))


def test_tab_goes_to_the_details_and_back(store: Path) -> None:
    async def journey(desk: Desk) -> None:
        await desk.press("end", "tab", "down", "down")
        assert desk.app.focused is not None and desk.app.focused.id == "details"
        assert desk.chosen == "incident"
        await desk.press("tab")
        assert desk.app.focused is desk.app.table

    browse(store, journey)


def test_help_names_every_action(store: Path) -> None:
    async def journey(desk: Desk) -> None:
        await desk.press("question_mark")
        for action in ACTIONS:
            assert action.label in desk.screen()
        await desk.press("q")
        assert "─ help ─" not in desk.screen()

    browse(store, journey)


def test_keys_can_be_changed(store: Path) -> None:
    async def journey(desk: Desk) -> None:
        await desk.press("f6")
        assert "duration ▼" in desk.lines()[2]
        assert "f6 S sort" in desk.lines()[-1]

    browse(store, journey, keymap={"sort": "f6", "step-over": "f10"})


def test_enter_hands_out_the_open_run_and_everything_is_as_it_was_on_coming_back(store: Path) -> None:
    shelf = Shelf(Store(store))

    async def leave(desk: Desk) -> None:
        await desk.press("s", "slash", "t", "r", "a", "c", "e", "enter", "down", "down", "enter")
        await desk.until(lambda: desk.app._exit)

    app = browse(shelf, leave)
    opened = app.return_value
    assert isinstance(opened, Opened)
    name = opened.path.name
    assert opened.trace.manifest.totals["records"] > 0
    opened.close()

    async def back(desk: Desk) -> None:
        assert desk.chosen == name.removesuffix(".trace")
        assert "duration ▼" in desk.lines()[2] and "filter trace" in desk.lines()[-2]
        await desk.press("q")

    assert browse(shelf, back).return_value is None


def test_a_pack_opens_in_a_temporary_place(store: Path) -> None:
    packed = pack(store / "nested.trace", store / "nested.tar")
    opened = open_run(packed)
    place = opened.trace.path
    assert place.name == "nested" and place.parent != store
    opened.close()
    assert not place.exists()


@pytest.mark.parametrize("name", ["manifest.json", "events.parquet"])
def test_what_cannot_be_opened_says_why_and_stays(store: Path, name: str) -> None:
    os.truncate(store / "nested.trace" / name, 100)

    async def journey(desk: Desk) -> None:
        while desk.chosen != "nested":
            await desk.press("down")
        await desk.press("enter")
        await desk.until(lambda: f"nested.trace/{name}: " in desk.lines()[-1])
        assert not desk.app._exit

    browse(store, journey)


def test_opening_is_cancelled(store: Path) -> None:
    closed: list[Path] = []

    def slowly(path: Path) -> Opened:
        time.sleep(0.5)
        opened = open_run(path)
        opened.after.callback(lambda: closed.append(path))
        return opened

    async def journey(desk: Desk) -> None:
        await desk.press("home", "enter")
        assert "opening nested.trace" in desk.lines()[-1] and "esc cancels" in desk.lines()[-1]
        await desk.press("escape")
        await desk.until(lambda: closed)
        assert not desk.app._exit

    browse(store, journey, opener=slowly)


def test_two_thousand_runs_never_hold_up_the_screen(tmp_path: Path) -> None:
    for number in range(2000):
        (tmp_path / f"run-{number:04}.trace").symlink_to(GOLDENS / f"{NAMES[number % 4]}.trace")
    asyncio.run(_many(tmp_path))


async def _many(directory: Path) -> None:
    app = Browser(Shelf(Store(directory)), theme="textual-dark")
    gaps = []
    began = time.monotonic()
    async with app.run_test(size=(120, 40)) as pilot:
        desk = Desk(app, pilot)
        while app._scanning:
            before = time.monotonic()
            await asyncio.sleep(0.01)
            gaps.append(time.monotonic() - before)
            assert time.monotonic() - began < 60
        await desk.until(lambda: "2,000 runs" in desk.lines()[0])
        assert len(gaps) > 10  # the loop went on while the runs were read
        assert sorted(gaps)[len(gaps) * 9 // 10] < 0.1
        before = time.monotonic()
        await desk.press("slash", "1", "9", "9")
        assert desk.names and all("199" in name for name in desk.names)
        await desk.press("escape", "end")
        assert time.monotonic() - before < 5


# -- the command ---------------------------------------------------------------------------------------------------------


class _Tty:
    def isatty(self) -> bool:
        return True


def inspect(*words: str) -> int:
    """The command, as in a terminal."""
    with mock.patch("sys.stdin", _Tty()), mock.patch("sys.stdout", _Tty()):
        return COMMANDS[0].run(COMMANDS[0].parse(list(words)))


class TestCommand:
    def test_a_directory_without_runs_says_what_to_do(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="holds no recordings; make one with `reprise record") as raised:
            inspect(str(tmp_path))
        assert raised.value.exit_code == 64

    def test_a_mark_belongs_to_one_recording(self, store: Path) -> None:
        with pytest.raises(UsageError, match="--at"):
            inspect(str(store), "--at", "e3")

    @pytest.mark.parametrize(("name", "why"), [("x.trace", "no such trace"), ("x.tar", "no such trace")])
    def test_a_path_to_nothing(self, tmp_path: Path, name: str, why: str) -> None:
        with pytest.raises(TraceError, match=why):
            inspect(str(tmp_path / name))

    def test_a_running_one_says_so(self, running: Path) -> None:
        with pytest.raises(TraceError, match=r"is still being recorded .*stop the recorder first, or wait for it"):
            inspect(str(running))

    @pytest.mark.parametrize("name", ["events.parquet", "manifest.json"])
    def test_a_damaged_one_says_so(self, store: Path, name: str) -> None:
        (store / "nested.trace" / name).unlink()
        with pytest.raises(TraceError, match=f"nested.trace/{name}: "):
            inspect(str(store / "nested.trace"))

    def test_which_ones_are_unfinished(self, store: Path, unfinished: Path, running: Path) -> None:
        assert [is_unfinished(path) for path in (unfinished, running, store / "nested.trace", store)] == [
            True,
            False,
            False,
            False,
        ]


@needs_tmux
def test_browse_open_come_back_and_leave(store: Path, tmp_path: Path) -> None:
    terminal = Terminal(tmp_path, str(store), size=(100, 30))
    try:
        terminal.until("4 runs", "nested.trace", "started ▼")
        terminal.keys("/")
        terminal.keys("-l", "agent")
        terminal.keys("Enter")
        terminal.until("1 of 4", "incident.trace")
        terminal.keys("Enter")
        terminal.until("reprise  incident.trace", "identical", "of 43")
        terminal.keys("q")
        # The time machine's verdict is in the list now.
        screen = terminal.until("1 of 4", "filter agent", "incident.trace", "verdict", "identical")
        assert "ended with" not in screen
        terminal.keys("q")
        screen = terminal.until("ended with 0")
        assert "Traceback" not in screen and "╭" not in screen
    finally:
        terminal.close()
