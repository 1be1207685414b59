"""The story of a trace, without a screen."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from inspector.events.story import FILE, OUTPUT, TALK, WORLD, Story
from tests.inspector.kit import GOLDENS, INCIDENT
from traces._errors import TraceError
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


def test_every_row_of_a_real_recording_is_found_again() -> None:
    with Trace.open(GOLDENS / "killed.trace") as trace:
        story = Story(trace)
        story.index()
        for number in range(0, story.rows, 997):
            row = story.row(number)
            assert story.row_of(row.seq) == number
            assert story.text(row.seq).seq == row.seq
        story.close()


def test_the_opening_is_known_from_the_end_on() -> None:
    with Trace.open(GOLDENS / "killed.trace") as trace:
        whole, partly = Story(trace), Story(trace)
        whole.index()
        seen = []
        for index in partly.read_index():
            partly.add(index)
            seen.append((partly.opening_known, partly.opening()))
        assert seen[-1] == (True, whole.opening())
        assert {opening for known, opening in seen if known} == {whole.opening()}
        whole.close()
        partly.close()


def test_a_closed_story_says_so() -> None:
    with Trace.open(INCIDENT) as trace:
        story = Story(trace)
        story.close()
        with pytest.raises(TraceError, match="closed"):
            story.load(3)
