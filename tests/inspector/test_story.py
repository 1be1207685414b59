"""The story of a trace, without a screen."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from inspector.story import FILE, OUTPUT, TALK, WORLD, Block, Story
from tests.inspector.kit import GOLDENS, INCIDENT
from traces.tracedir import Trace


@pytest.fixture
def story() -> Iterator[Story]:
    with Trace.open(INCIDENT) as trace:
        found = Story(trace)
        found.index()
        yield found
        found.close()


def test_it_opens_at_the_payment(story: Story) -> None:
    assert story.opening() == 29
    assert story.opening(diverged=12) == 12
    assert story.opening(diverged=4000) == 42


def test_effects_are_told_from_questions_output_and_the_rest(story: Story) -> None:
    effects = {seq: story.row(story.row_of(seq)).effect for seq in (4, 11, 15, 29, 35)}

    assert effects == {4: 0, 11: OUTPUT, 15: TALK, 29: WORLD, 35: FILE}


def test_calls_of_hosts_are_told_with_the_bytes_that_crossed(story: Story) -> None:
    assert story.text(29).head == 'pay("9999-0000-6666", 12950)'
    assert story.text(29).outcome == "0"
    assert story.text(28).outcome == '3 "PAY"'
    assert story.bytes_of(29) == (0, 0x130050, 14)


def test_output_is_that_before_an_event(story: Story) -> None:
    assert [seq for seq, _, _ in story.output(41)] == [11, 12]
    assert b"".join(data for _, _, data in story.output(42)).endswith(b"done\n")
    assert story.output(5) == []


def test_the_next_effect_is_found_in_both_directions(story: Story) -> None:
    assert story.next_effect(0) == 29
    assert story.next_effect(29) == 35
    assert story.next_effect(35) is None
    assert story.next_effect(42, reverse=True) == 35
    assert story.next_effect(29, reverse=True) is None


class TestRuns:
    """Blocks as given, so that windows and folds can be put where they matter."""

    def story(self, *blocks: tuple[int, bool]) -> Story:
        """A story without a file: (events, folds) of each block."""
        made = Story.__new__(Story)
        made._open, made._groups = set(), []
        made._blocks, made._firsts, made._tops = [], [], [0]
        first = 0
        for count, folds in blocks:
            made._blocks.append(Block(first, count, folds))
            made._firsts.append(first)
            made._tops.append(made._tops[-1] + made._height(made._blocks[-1]))
            first += count
        return made

    def test_a_run_is_one_row_until_it_is_unfolded(self) -> None:
        story = self.story((2, False), (40_000, True), (3, False))

        assert story.rows == 6
        assert story.row_of(1) == 1
        assert story.row_of(20_000) == 2
        assert story.row_of(40_002) == 3
        assert story.toggle(2) == 2
        assert story.rows == 40_006
        assert story.row_of(2) == 3
        assert story.row_of(40_002) == 40_003
        assert story.toggle(20_000) == 2  # from inside the run, its heading
        assert story.rows == 6

    def test_what_is_no_run_does_not_unfold(self) -> None:
        story = self.story((2, False))

        assert story.toggle(0) is None
        assert story.toggle(99) is None

    def test_ten_million_rows_cost_nothing(self) -> None:
        story = self.story(*[(1, False), (9, True)] * 1000, (10_000_000, True))

        assert story.toggle(story.rows - 1) == 2000
        assert story.rows == 10_002_001
        assert story.row_of(10_000 + 9_999_999) == story.rows - 1


def test_every_row_of_a_real_recording_is_found_again() -> None:
    with Trace.open(GOLDENS / "killed.trace") as trace:
        story = Story(trace)
        story.index()
        for number in range(0, story.rows, 997):
            row = story.row(number)
            assert story.row_of(row.seq) == number
            assert story.text(row.seq).seq == row.seq
        story.close()
