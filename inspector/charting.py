"""What the time line shows beyond the position: found in a thread, placed by the session, measured where something is selected.

Also the way from one failed call to the next, which the same search finds. A part of the app, between its verbs and its routing.
"""

from __future__ import annotations

import threading

from inspector import protocol as ask
from inspector.events.spans import Survey, Times, duration, survey
from inspector.messages import Measure, Surveyed, WantCounts
from inspector.panes.timeline import TimelinePane
from inspector.verbs import Verbs
from traces._errors import TraceError


class Charting(Verbs):
    """An app that looks through its recording for calls of exports, spans and problems."""

    survey: Survey | None = None
    """None until the recording was looked through."""
    surveyed = 0
    """Events that were looked at."""
    _surveying: threading.Thread | None = None
    _done = False
    """Whether the app is about to end."""

    def begin_survey(self) -> None:
        """Looks through the recording, in a thread; does so once."""
        if self._surveying is None:
            self._surveying = threading.Thread(target=self._look_through, name="reprise-survey", daemon=True)
            self._surveying.start()

    def on_unmount(self) -> None:
        self._done = True
        if self._surveying is not None:
            self._surveying.join(2.0)

    def _look_through(self) -> None:
        """In a thread."""

        def told(count: int) -> None:
            self.surveyed = count

        try:
            found = survey(self.trace, lambda: not self._done, told)
        except (TraceError, OSError) as error:
            self.post_message(Surveyed(None, str(error)))
            return
        except Exception as error:  # a thread that died would look like one that never ends
            self.post_message(Surveyed(None, f"unexpected {type(error).__name__}: {error}"))
            return
        if found is not None:
            self.post_message(Surveyed(found))

    def on_surveyed(self, message: Surveyed) -> None:
        if message.survey is None:
            if not self.refused:  # which says the same, and more
                self.say(message.why, "warning")
            return
        self.survey = message.survey
        self.place_survey()

    def place_survey(self) -> None:
        """Has it put on the time line, once there is a machine that knows the clocks."""
        if self.facts is not None and self.survey is not None:
            self.session.post(ask.Place(self.survey))

    # -- what the time line wants, and what it is told

    def on_want_counts(self, message: WantCounts) -> None:
        self.session.post(ask.CountEvents(message.low, message.high, message.columns))

    def on_measure(self, message: Measure) -> None:
        self.session.post(ask.MeasureStretch(message.low, message.high))

    def charted(self, report: ask.Placed | ask.Counted | ask.Measured) -> None:
        """What the session answers."""
        pane = self.pane(TimelinePane)
        match report:
            case ask.Placed(found):
                pane.take_survey(found)
            case ask.Counted(low, high, found):
                pane.take_counts(low, high, found)
            case ask.Measured():
                threading.Thread(target=self._measure, args=(report, pane), name="reprise-times", daemon=True).start()

    def _measure(self, found: ask.Measured, pane: TimelinePane) -> None:
        """In a thread: how long a stretch took is in the tables."""
        parts = [_counted(found.high - found.low, "instruction"), _counted(found.end - found.first, "event")]
        if found.end - found.first > 1:
            try:
                times = Times(self.trace)
                try:
                    parts.append(duration(times.of(found.end - 1) - times.of(found.first)))
                finally:
                    times.close()
            except (TraceError, OSError) as error:
                parts.append(str(error))
        if not self._done:
            self.call_later(pane.take_measure, (found.low, found.high), ", ".join(parts))

    def event_shown(self) -> str:
        """The event in view as the time line names it, with when it was, as far as that is at hand."""
        seq = self.focus.event
        if not self.story.events or not self.story.at_hand(seq):
            return f"e{seq:,}"
        row = self.story.event(seq)
        name = row["import"] or row["target"] or row["kind"]
        return f"e{seq:,} {name.rpartition('.')[2] or name}  +{row['time_ns'] / 1e9:,.3f} s"

    # -- actions

    def action_problem_next(self) -> None:
        self._turn_problem(False)

    def action_problem_previous(self) -> None:
        self._turn_problem(True)

    def _turn_problem(self, reverse: bool) -> None:
        if self.survey is None:
            self.say(f"still looking for failed calls: {self.surveyed:,} of {self.story.events:,} events")
            return
        seq = self.survey.next_problem(self.focus.event, reverse)
        if seq is None:
            side = ("before" if reverse else "behind") if len(self.survey.problems) else "in"
            self.say(f"no call was denied or failed {side} {'this' if side != 'in' else 'this recording'}")
        else:
            self.move(self.focus.moved(mark=f"e{seq}", event=seq, frame=0))


def _counted(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"
