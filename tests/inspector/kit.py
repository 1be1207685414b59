"""An inspector without a terminal: keys in, the screen as text out."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from textual.pilot import Pilot

from inspector.app import Inspector
from traces.tracedir import Trace

ROOT = Path(__file__).resolve().parents[2]
GOLDENS = ROOT / "tests" / "goldens" / "format-1"
INCIDENT = GOLDENS / "incident.trace"
SOURCES = ROOT / "recorder" / "demo"
ACCOUNT = 0x130050
PATIENCE = 15.0
"""Seconds for anything to happen on a machine with other work."""


class Desk:
    """An app under a pilot."""

    def __init__(self, app: Inspector, pilot: Pilot[Any]) -> None:
        self.app = app
        self.pilot = pilot

    async def until(self, holds: Callable[[], Any], what: str = "") -> None:
        """Waits until something holds; what was on the screen is told if it never does."""
        deadline = asyncio.get_running_loop().time() + PATIENCE
        while not holds():
            assert asyncio.get_running_loop().time() < deadline, f"{what or holds} never came:\n{self.screen()}"
            await self.pilot.pause(0.02)
        await self.pilot.pause()

    async def opened(self) -> None:
        await self.until(lambda: self.app.snapshot is not None or self.app.refused, "the machine")
        await self.settled()

    async def settled(self) -> None:
        """Nothing is under way, and the screen shows where the guest is."""
        app = self.app

        def rests() -> bool:
            session = app.session
            return session._running is None and not session._queue and not app._loading and app._tables._work_queue.empty()

        for _ in range(3):
            await self.pilot.pause(0.02)
            await self.until(rests, "rest")

    async def press(self, *keys: str) -> None:
        for key in keys:
            await self.pilot.press(key)
            await self.settled()

    async def type(self, text: str) -> None:
        names = {" ": "space", "=": "equals_sign", ".": "full_stop", ":": "colon", "/": "slash", "-": "minus", "_": "underscore"}
        for letter in text:
            await self.pilot.press(names.get(letter, letter))
        await self.press("enter")

    @property
    def mark(self) -> str:
        assert self.app.snapshot is not None
        return str(self.app.snapshot.mark)

    @property
    def where(self) -> str:
        assert self.app.snapshot is not None
        frames = self.app.snapshot.frames
        return frames[0].where if frames else ""

    def lines(self) -> list[str]:
        strips = self.app.screen._compositor.render_strips()
        return ["".join(strip_.text for strip_ in strip).rstrip() for strip in strips]

    def screen(self) -> str:
        return "\n".join(self.lines())


Journey = Callable[[Desk], Awaitable[None]]


@contextmanager
def copied(trace: Path, where: Path) -> Iterator[Path]:
    """A copy to write beside."""
    target = where / trace.name
    shutil.copytree(trace, target)
    yield target


def travel(journey: Journey, trace: Path = INCIDENT, size: tuple[int, int] = (120, 40), **options: Any) -> None:
    """Opens a trace, waits until the guest is seen, and goes on the journey."""

    async def run() -> None:
        with Trace.open(trace) as opened:
            app = Inspector(opened, search=[SOURCES], theme="textual-dark", **options)
            async with app.run_test(size=size) as pilot:
                desk = Desk(app, pilot)
                await desk.opened()
                await journey(desk)

    asyncio.run(run())
