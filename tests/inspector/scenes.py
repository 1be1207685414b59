"""Scenes of the inspector: what is opened, which keys are pressed, what there is to see. For golden screens, and as pictures.

    python -m tests.inspector.scenes docs/images       draws the scenes that the documentation shows, as SVG

Everything that could differ from run to run is pinned: the recording, the theme, the zone of the clock, and the size.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from rich.segment import Segment
from textual.app import App

from inspector.app import Inspector
from inspector.runs.browser import Browser
from inspector.runs.shelf import Shelf
from inspector.runs.store import Store, is_store
from inspector.sql import results
from recorder.demo.tour import alter
from tests.inspector.kit import GOLDENS, INCIDENT, ROOT, SOURCES, Desk
from traces.tracedir import Trace

Journey = Callable[[Desk], Awaitable[None]]
SIZES = ((80, 24), (120, 40), (200, 60))


async def _nothing(_: Desk) -> None:
    pass


def keys(*pressed: str) -> Journey:
    """Presses these, one after the other."""

    async def journey(desk: Desk) -> None:
        await desk.press(*pressed)

    return journey


async def _typed(desk: Desk, key: str, text: str) -> None:
    await desk.pilot.press(key)
    await desk.type(text)


async def _asked(desk: Desk) -> None:
    await desk.pilot.press("f2")
    await desk.pilot.pause(0.3)
    await desk.pilot.press("ctrl+j")
    await desk.until(lambda: "14 rows" in desk.screen())


async def _compared(desk: Desk) -> None:
    await desk.press("L", "equals_sign", "left_square_bracket")
    desk.app.activate("memory")
    await desk.press("v")


async def _tables(desk: Desk) -> None:
    desk.app.activate("tables")
    await desk.settled()


async def _timeline(desk: Desk) -> None:
    desk.app.activate("timeline")
    await desk.press("w", "w", "shift+right", "shift+right", "shift+right")


async def _filtered(desk: Desk) -> None:
    await desk.pilot.press("f")
    await desk.pilot.pause(0.1)
    await desk.type("effect")


def _incident(_: Path) -> Path:
    return INCIDENT


def _altered(where: Path) -> Path:
    """One bit of the payment's record is not what it was."""
    with Trace.open(INCIDENT) as trace:
        alter(trace, where / "altered.trace", 29)
    return where / "altered.trace"


def _stopped(_: Path) -> Path:
    return GOLDENS / "fuel.trace"


def _store(where: Path) -> Path:
    for trace in sorted(GOLDENS.glob("*.trace")):
        shutil.copytree(trace, where / "runs" / trace.name)
    shutil.copytree(INCIDENT, where / "runs" / "damaged.trace")
    (where / "runs" / "damaged.trace" / "manifest.json").write_text("{")
    os.chdir(where)  # its path is on the screen
    return Path("runs")


async def _searched(desk: Desk) -> None:
    await _typed(desk, "slash", "9999-0000")


async def _stops(desk: Desk) -> None:
    await _typed(desk, "b", "func=pay")
    await _typed(desk, "b", "import=tool.search")
    await desk.press("W", "enter", "B")


@dataclass(frozen=True)
class Scene:
    """One thing to see."""

    name: str
    what: str
    """In words, for who looks at the picture."""
    journey: Journey = _nothing
    trace: Callable[[Path], Path] = _incident
    """What is opened; what has to be made is made in a directory of its own."""
    theme: str = "textual-dark"
    picture: tuple[int, int] | None = None
    """The size in which the documentation shows it."""


SCENES: list[Scene] = [
    Scene("first", "the first screen: the payment", picture=(140, 42)),
    Scene("cause", "the last change of the account: the line that overran the buffer", keys("L"), picture=(140, 42)),
    Scene("who", "who wrote these bytes", keys("w")),
    Scene("instructions", "by instruction", keys("i", "s", "s")),
    Scene("memory", "the memory pane, bytes searched", _searched),
    Scene("frames", "a structure opened", keys("tab", "tab", "tab", "down", "enter")),
    Scene("stops", "break- and watchpoints", _stops),
    Scene("help", "the help", keys("question_mark")),
    Scene("event", "an event in full", keys("e")),
    Scene("filter", "only effects in the story", _filtered),
    Scene("compared", "memory compared with a chosen mark, and decoded", _compared),
    Scene("tables", "globals and tables", _tables),
    Scene("timeline", "the timeline, zoomed in, with a selection", _timeline),
    Scene("sql", "SQL", _asked, picture=(140, 36)),
    Scene("divergence", "a replay that diverged: both sides", trace=_altered, picture=(140, 42)),
    Scene("stopped", "a guest that ran out of fuel", trace=_stopped),
    Scene("runs", "a directory of recordings", trace=_store, picture=(140, 24)),
    Scene("light", "a light theme", theme="textual-light"),
    Scene("ansi", "sixteen colours", theme="ansi-dark"),
]


async def play(scene: Scene, size: tuple[int, int], see: Callable[[App[Any]], None]) -> None:
    """Goes to a scene and looks."""
    with tempfile.TemporaryDirectory(prefix="reprise-scene-") as scratch, contextlib.chdir(ROOT):
        path = scene.trace(Path(scratch))
        if is_store(path):
            browser = Browser(Shelf(Store(path)), theme=scene.theme)
            browser.animation_level = "none"
            async with browser.run_test(size=size) as pilot:
                while browser._scanning or not browser.shelf.runs:
                    await pilot.pause(0.05)
                await pilot.pause(0.2)
                see(browser)
            return
        with Trace.open(path) as trace:
            app = Inspector(trace, search=[SOURCES], theme=scene.theme)
            app.animation_level = "none"
            async with app.run_test(size=size) as pilot:
                desk = Desk(app, pilot)
                await desk.opened()
                await scene.journey(desk)
                await desk.settled()
                see(app)


def screen_of(app: App[Any]) -> list[list[Segment]]:
    """What is on the screen, line by line."""
    return [list(strip) for strip in app.screen._compositor.render_strips()]


@contextmanager
def pinned() -> Iterator[None]:
    """Pins what the environment says, and forgets what earlier programs concluded."""
    with tempfile.TemporaryDirectory(prefix="reprise-home-") as home, pytest.MonkeyPatch.context() as patch:
        patch.setenv("TZ", "UTC")
        patch.setenv("XDG_STATE_HOME", home)
        patch.setenv("XDG_CACHE_HOME", home)
        patch.setattr(results, "duration", lambda _: "12 ms")
        time.tzset()
        yield
    time.tzset()


def main(directory: Path) -> None:
    """Draws the pictures of the documentation."""
    directory = directory.resolve()
    directory.mkdir(parents=True, exist_ok=True)
    for scene in SCENES:
        if scene.picture is not None:
            picture = directory / f"inspector-{scene.name}.svg"

            def draw(app: App[Any], picture: Path = picture) -> None:
                picture.write_text(app.export_screenshot(title="reprise inspect"), encoding="utf-8")

            with pinned():
                asyncio.run(play(scene, scene.picture, draw))
            print(picture)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
