"""What is on the screen, at three sizes: that it is there, whole, and that what has no data is not."""

from __future__ import annotations

import pytest

from tests.inspector.kit import GOLDENS, Desk, travel

SMALL, USUAL, LARGE = (80, 24), (120, 40), (200, 60)


@pytest.mark.parametrize("size", [SMALL, USUAL, LARGE])
def test_the_first_screen(size: tuple[int, int]) -> None:
    async def journey(desk: Desk) -> None:
        lines = desk.lines()
        assert len(lines) == size[1]
        assert all(len(line) <= size[0] for line in lines)
        assert lines[0].startswith(" reprise  incident.trace  identical")
        assert lines[0].endswith("e29 of 43  mark 112,999 (76 %)")
        assert "? help" in lines[-1] and lines[-1].startswith(" , . event   s n o c step   S N O C back")
        screen = desk.screen()
        for part in ("─ story ─", "─ source  agent.c:97  pay() ─", "▶ 97", '29 ● pay("9999-0000-6666"', "43 events"):
            assert part in screen, part
        assert ("─ memory  0x130050 +14 ─" in screen) == (size != SMALL)
        assert ("▶#0 pay  agent.c:97" in screen) == (size != SMALL)
        assert ("─ code  pay" in screen) == (size == LARGE)
        assert ("─ timeline  mark 112,999 of 148,032 (76 %)" in screen) == (size != SMALL)
        assert "┃" in screen
        # The source has lines above the one we are at.
        assert " 96  static void pay" in screen

    travel(journey, size=size)


def test_a_small_screen_shows_one_pane_beside_the_story() -> None:
    async def journey(desk: Desk) -> None:
        seen = []
        for _ in range(6):
            await desk.press("tab")
            assert desk.app.focused is not None
            seen.append(desk.app.focused.id)
            assert "─ story ─" in desk.screen()
        assert seen == ["source", "frames", "memory", "tables", "output", "timeline"]

    travel(journey, size=SMALL)


def test_memory_has_sixteen_bytes_in_a_row_where_there_is_room() -> None:
    async def journey(desk: Desk) -> None:
        assert "130050  39 39 39 39 2d 30 30 30  30 2d 36 36 36 36 00 00 9999-0000-6666" in desk.screen()

    travel(journey, size=LARGE)


def test_a_screen_that_is_too_small_says_so() -> None:
    async def journey(desk: Desk) -> None:
        assert "too small" in desk.screen() and "60×14" in desk.screen()
        assert desk.lines()[0].startswith(" reprise")

    travel(journey, size=(50, 10))


def test_what_a_recording_does_not_have_is_absent() -> None:
    async def journey(desk: Desk) -> None:
        screen = desk.screen()
        assert "─ source" not in screen
        assert "─ output" not in screen
        assert "─ code" in screen

    travel(journey, GOLDENS / "nested.trace")


def test_sixteen_colours_do() -> None:
    async def journey(desk: Desk) -> None:
        desk.app.theme = "ansi-dark"
        await desk.press("L")
        assert "▶ 89" in desk.screen()

    travel(journey)
