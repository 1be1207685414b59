"""`reprise demo`: an incident in one minute. An agent pays an invoice, pays the wrong account, and the trace shows why.

`agent.c` is the agent (`agent.wasm` its module), `hosts` the scripted world it runs in, `story` what can be read off the trace of
any such run, `tour` the steps and what they print. Every step that records or replays is a `reprise` command in a process of its
own, so this package needs no replayer, and the replay demonstrably needs none of this package.
"""

from __future__ import annotations

from collections.abc import Sequence


def main(argv: Sequence[str]) -> int:
    """Runs the tour; returns the exit code. `argv` is what stands behind `reprise demo`."""
    from recorder.demo.tour import main as tour

    return tour(argv)
