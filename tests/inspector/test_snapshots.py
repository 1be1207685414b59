"""Golden screens: every scene at three sizes, characters and colours.

A golden holds the lines of the screen, and below them, line by line, in which styles they are drawn: `12a 3b` is twelve cells in
the style `a` and three in `b`, which stand at the end. After a change that is meant, `REPRISE_GOLDENS=write pytest
tests/inspector/test_snapshots.py` writes them anew; look at the difference before it is committed.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest
from rich.segment import Segment
from textual.app import App

from tests.inspector.scenes import SCENES, SIZES, Scene, pinned, play, screen_of

SCREENS = Path(__file__).parent / "screens"


def drawn(app: App[Any]) -> str:
    """The screen as a golden has it."""
    strips = screen_of(app)
    lines = ["".join(segment.text for segment in strip).rstrip() for strip in strips]
    names: dict[str, str] = {}
    styles = [_styles(line, names) for line in strips]
    legend = [f"{name} = {style}" for style, name in names.items()]
    return "\n".join([*lines, *styles, *legend]) + "\n"


def _styles(line: list[Segment], names: dict[str, str]) -> str:
    """Lengths and names of the styles along one line."""
    runs: list[tuple[int, str]] = []
    for segment in line:
        style = str(segment.style or "")
        name = names.setdefault(style, _name(len(names)))
        if runs and runs[-1][1] == name:
            runs[-1] = (runs[-1][0] + segment.cell_length, name)
        else:
            runs.append((segment.cell_length, name))
    return " ".join(f"{length}{name}" for length, name in runs)


def _name(number: int) -> str:
    letters = "abcdefghijklmnopqrstuvwxyz"
    return letters[number] if number < 26 else letters[number // 26 - 1] + letters[number % 26]


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.name)
def test_the_screen_is_the_golden_one(scene: Scene, size: tuple[int, int]) -> None:
    seen: list[str] = []
    with pinned():
        asyncio.run(play(scene, size, lambda app: seen.append(drawn(app))))
    golden = SCREENS / f"{scene.name}-{size[0]}x{size[1]}.txt"
    if os.environ.get("REPRISE_GOLDENS") == "write":
        golden.parent.mkdir(exist_ok=True)
        golden.write_text(seen[0], encoding="utf-8")
    assert seen[0] == golden.read_text(encoding="utf-8")


def test_every_golden_belongs_to_a_scene() -> None:
    wanted = {f"{scene.name}-{size[0]}x{size[1]}.txt" for scene in SCENES for size in SIZES}
    assert {path.name for path in SCREENS.iterdir()} == wanted
