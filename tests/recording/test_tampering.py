"""A replay finds every lie: each thing it checks is forged once, and the verdict names the event.

The forged trace is consistent in itself (derived columns and digests are made again), so nothing but re-execution can tell.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from recorder.invocation import Invocation
from recorder.python_host import Guest, HostFunction, HostTrap
from recorder.recording import Limits
from replayer.verdict import Verdict
from tests import harness
from tests.harness import Forged, Row
from tests.native import redirected
from tests.scripts import RecordedReach, Script, hosts, scripted_guest
from traces import tables
from traces.layout import Kind, Ref, Status
from traces.manifest import Manifest
from traces.tracedir import EVENTS, MODULE, STATES

SCRIPT = Script(
    [
        ("write", 3000, 16, 5),
        ("read", 3000, 8),
        ("call", "go", 1),
        ("set", "i64", 99),
        ("grow", 1),
        ("try", ("call", "div", 0)),
        ("call", "go", 5),
        ("extern_set", 1, 3),
        ("try", ("call", "go", 6)),
        ("call", "bump", 2),
        ("try", ("call", "leave", 3)),
        ("call", "twice", 8),
    ],
    {
        1: [
            ("write", 2000, 24, 1),
            ("read", 2000, 40),
            ("call", "bump", 4),
            ("write", 2100, 4, 2),
            ("read", 0, 12),
            ("grow", 1),
            ("set", "i32", 50),
            ("table_take", 1),
            ("table_set", 6, ("taken", 0)),
            ("table_set", 5, ("host", 4)),
            ("table_grow", 2, "bump"),
            ("call", "through", 5, 7),
            ("call_table", 6, 21),
            ("call", "go", 3),
            ("grow", 500),
        ],
        3: [("try", ("call", "boom", 1))],
        4: [("write", 2200, 8, 3)],
        5: [("write", 2300, 8, 4), ("return", 1234)],
        6: [("write", 2400, 4), ("raise",)],
    },
)


@pytest.fixture(scope="module")
def genuine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    script = SCRIPT.again()
    place = tmp_path_factory.mktemp("genuine")
    recorded = harness.record(
        scripted_guest(), place / "a.trace", lambda guest: script.run(RecordedReach(guest)), hosts=hosts(script), slot_size=1 << 20
    )
    assert recorded.outcome.kind == "returned", recorded.outcome
    harness.check(recorded)
    return recorded.directory


def rows_of(directory: Path, kind: Kind, which: Callable[[Row], bool] = lambda row: True) -> list[Row]:
    return [row for row in Forged(directory).rows if row.kind == kind and which(row)]


def forged(genuine: Path, place: Path, change: Callable[[list[Row]], Any]) -> Verdict:
    return harness.verdict_of(harness.forge(genuine, place, change))


def assert_diverged(verdict: Verdict, seq: int | None, what: str = "") -> None:
    text = "\n".join(verdict.lines("TRACE"))
    assert verdict.kind == "diverged", text
    assert verdict.difference is not None
    if seq is not None:
        assert verdict.difference.seq == seq, text
    assert what in text, text
    assert f"--around {verdict.difference.seq}" in text


def flip(at: int, mask: int = 1) -> Callable[[Row], None]:
    def change(row: Row) -> None:
        row.body[at] ^= mask

    return change


def test_rewriting_a_trace_unchanged_leaves_it_identical(genuine: Path, tmp_path: Path) -> None:
    assert forged(genuine, tmp_path, lambda rows: None).kind == "identical"


CALL, CALLBACK, EXPORT = 8, 8, 8  # where the parts of these bodies begin: CALL args 0, result 4, chunks 8; others: args 8


@pytest.mark.parametrize(
    ("kind", "nth", "change", "later", "what"),
    [
        pytest.param(Kind.CALL, 0, flip(0), 0, "argument 0: expected 0, got 1", id="argument of a split call"),
        pytest.param(Kind.CALL, -2, flip(0), 0, "argument 0: expected", id="argument of a complete call"),
        pytest.param(Kind.CALL, 0, flip(8 + 8 + 24 + 8 + 3), 0, "bytes sent differ", id="byte sent by a call"),
        pytest.param(Kind.POKE, 1, flip(8 + 2), 0, "bytes sent differ, the first at address 0xbba", id="byte sent outside a call"),
        pytest.param(Kind.POKE, 0, flip(8 + 2), 1, "bytes sent differ", id="byte received, read again by the host"),
        pytest.param(Kind.EXPORT, -1, flip(12), 0, "twice returned 16", id="result of an export"),
        pytest.param(Kind.EXPORT, -1, flip(8), 0, "twice returned 18", id="argument of an export"),
        pytest.param(Kind.EXPORT, -1, flip(0), 0, "returned", id="target of an export"),
        pytest.param(Kind.CALLBACK, 0, flip(12), 0, "bump returned 4", id="result of a callback"),
        pytest.param(Kind.CALLBACK, 0, flip(8), 0, "bump returned 5", id="argument of a callback"),
        pytest.param(Kind.CALLBACK, 0, flip(0), 0, "returned", id="target of a callback"),
        pytest.param(Kind.GROWTH, 0, flip(16), 0, "grew by 1: from 3", id="previous size of a growth"),
        pytest.param(Kind.GROWTH, -2, flip(16), 0, "refused", id="a refused growth that worked"),
    ],
)
def test_a_changed_record_is_found(
    kind: Kind, nth: int, change: Callable[[Row], None], later: int, what: str, genuine: Path, tmp_path: Path
) -> None:
    row = rows_of(genuine, kind)[nth]
    verdict = forged(genuine, tmp_path, lambda rows: change(rows[row.seq]))
    assert_diverged(verdict, None)
    assert verdict.difference is not None
    text = "\n".join(verdict.lines("TRACE"))
    if later == 0:
        assert verdict.difference.seq == row.seq, text
    assert verdict.difference.seq >= row.seq, text
    assert row.seq + later <= verdict.difference.seq, text
    assert what.split(", got")[0] in text or what in text, text
