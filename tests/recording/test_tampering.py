"""A replay finds every lie: each thing it checks is forged once, and the verdict names the event.

The forged trace is consistent in itself (derived columns and digests are made again), so nothing but re-execution can tell.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from recorder.invocation import Invocation
from recorder.outcome import Limits
from recorder.python_host import Guest, HostFunction, HostTrap
from replayer.verdict import Verdict
from tests import harness
from tests.harness import Forged, Row
from tests.native import redirected
from tests.scripts import RecordedReach, Script, hosts, scripted_guest
from traces import tables
from traces._errors import TraceError
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
        scripted_guest(),
        place / "a.trace",
        lambda guest: script.run(RecordedReach(guest)),
        hosts=hosts(script),
        slot_size=1 << 20,
    )
    assert recorded.outcome.kind == "returned", recorded.outcome
    harness.check(recorded)
    return recorded.directory


def flip(at: int, mask: int = 1) -> Callable[[list[Row], int], None]:
    """Flips bits of one byte of a record's body."""

    def change(rows: list[Row], seq: int) -> None:
        rows[seq].body[at] ^= mask

    return change


def put(at: int, value: int, width: int = 4) -> Callable[[list[Row], int], None]:
    def change(rows: list[Row], seq: int) -> None:
        rows[seq].body[at : at + width] = value.to_bytes(width, "little")

    return change


def of_import(index: int) -> Callable[[list[Row], int], None]:
    def change(rows: list[Row], seq: int) -> None:
        rows[seq].index = index

    return change


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


def test_rewriting_a_trace_unchanged_leaves_it_identical(genuine: Path, tmp_path: Path) -> None:
    assert forged(genuine, tmp_path, lambda rows: None).kind == "identical"


LATER = None
"""The lie has no consequence before something is compared; which event that is, is not the test's business."""

# Which record (of SCRIPT, in order), its kind, the forgery, the event the verdict must name, words it must say.
FORGERIES: dict[str, tuple[int, Kind, Callable[[list[Row], int], None], int | None, str]] = {
    "byte received outside a call": (0, Kind.POKE, flip(9), 1, "bytes sent differ"),
    "byte sent outside a call": (1, Kind.POKE, flip(10), 1, "1 of 8 bytes sent differ, the first at address 0xbba"),
    "address of what was sent": (1, Kind.POKE, flip(0), 1, "bytes sent differ"),
    "argument of an export": (2, Kind.EXPORT, flip(8), 3, "argument 0: expected 1, got 0"),
    "argument of a call": (3, Kind.CALL, flip(0), 3, "argument 0: expected 0, got 1"),
    "byte received by a call, then sent": (3, Kind.CALL, flip(17), 3, "bytes sent differ"),
    "byte sent by a call": (3, Kind.CALL, flip(54), 3, "bytes sent differ"),
    "target of a callback": (4, Kind.CALLBACK, put(0, 0), 4, "a call of env.act(4)"),
    "target of a callback that is none": (4, Kind.CALLBACK, put(0, 2), 4, "twice returned"),
    "argument of a callback": (4, Kind.CALLBACK, flip(8), 4, "bump returned 5"),
    "result of a callback": (4, Kind.CALLBACK, flip(12), 4, "bump returned 4"),
    "byte received in a split call": (5, Kind.POKE, flip(9), LATER, "memory memory"),
    "byte sent in a split call": (5, Kind.POKE, flip(21), 5, "bytes sent differ"),
    "previous size of a growth": (6, Kind.GROWTH, flip(16), 6, "grew by 1: from 3"),
    "size of a growth": (6, Kind.GROWTH, put(8, 2), LATER, ""),
    "value of a global": (7, Kind.GLOBAL, flip(8), LATER, "returned"),
    "which global": (7, Kind.GLOBAL, flip(0), LATER, "returned"),
    "reference taken from a table": (8, Kind.TABLE, put(16, 2), 8, "function reference 1"),
    "element it was taken from": (8, Kind.TABLE, put(8, 7), 8, "function reference 0"),
    "reference put into a table": (9, Kind.TABLE, put(16, 0), 17, "no function stands in table 0 at 6"),
    "element it was put into": (9, Kind.TABLE, put(8, 7), 17, "no function stands in table 0 at 6"),
    "null put into a table": (9, Kind.TABLE, put(4, Ref.NULL), 17, "no function stands"),
    "host function put elsewhere": (11, Kind.TABLE, put(8, 4), 15, "through trapped"),
    "previous size of a table": (12, Kind.GROWTH, flip(16), 12, "table 0 grew by 2: from 9"),
    "size of a table's growth": (12, Kind.GROWTH, put(8, 3), LATER, "table table"),
    "export put into a table": (13, Kind.TABLE, put(16, 2), LATER, "table table"),
    "how many were put into a table": (13, Kind.TABLE, put(24, 1), LATER, "table table"),
    "argument of a split callback": (14, Kind.CALLBACK, put(12, 6), 15, "argument 0: expected 7, got 6"),
    "element called through": (14, Kind.CALLBACK, put(8, 7), 15, "trapped"),
    "which import": (15, Kind.CALL, of_import(0), 15, "expected  a call of env.act(7)"),
    "argument of a defined function": (15, Kind.CALL, flip(0), 15, "argument 0: expected 6, got 7"),
    "result of a defined function": (15, Kind.CALL, flip(4), 16, "through returned 15"),
    "byte received from a defined function": (15, Kind.CALL, flip(17), LATER, "memory memory"),
    "result of a split callback": (16, Kind.RETURN, flip(0), 16, "through returned 15"),
    "element of a callback": (17, Kind.CALLBACK, put(4, 7), 17, "no function stands in table 0 at 7"),
    "trap code": (21, Kind.TRAP, put(0, 7), 21, "boom trapped"),
    "result of a split call": (22, Kind.RETURN, flip(0), 23, "go returned"),
    "result of an inner callback": (23, Kind.RETURN, flip(0), 23, "go returned 67"),
    "a growth that was refused": (24, Kind.GROWTH, put(16, 3, 8), 24, "refused"),
    "a refusal that was none": (28, Kind.GROWTH, put(16, (1 << 64) - 1, 8), 28, "refused"),
    "result of a split call of an export": (25, Kind.RETURN, flip(0), 26, "go returned"),
    "result of an export": (26, Kind.RETURN, flip(0), 26, "go returned 69"),
    "global set outside a call": (27, Kind.GLOBAL, flip(8), LATER, "global i64"),
    "message of a trap": (21, Kind.TRAP, flip(9), 21, "boom trapped"),
    "code of an export's trap": (30, Kind.TRAP, put(0, 9), 30, "div trapped"),
    "result of a complete call": (32, Kind.CALL, flip(4), 33, "go returned"),
    "external reference put into a table": (34, Kind.TABLE, put(16, 2), LATER, "table externs"),
    "byte received before an exception": (36, Kind.CALL, flip(17), LATER, "memory memory"),
    "result of a complete export": (38, Kind.EXPORT, flip(12), 38, "bump returned 6"),
    "argument of a native call": (40, Kind.CALL, flip(0), 40, "code: expected 2, got 3"),
    "result of the last export": (42, Kind.EXPORT, flip(12), 42, "twice returned 16"),
}


@pytest.mark.parametrize("case", FORGERIES)
def test_a_forged_record_is_found(case: str, genuine: Path, tmp_path: Path) -> None:
    seq, kind, change, named, words = FORGERIES[case]
    assert Forged(genuine).rows[seq].kind == kind
    assert_diverged(forged(genuine, tmp_path, lambda rows: change(rows, seq)), named, words)


MALFORMED: dict[str, tuple[int, Kind, Callable[[list[Row], int], None]]] = {
    "an unknown reference": (9, Kind.TABLE, put(16, 99)),
    "an unknown kind of reference": (9, Kind.TABLE, put(4, 77)),
    "too many elements": (13, Kind.TABLE, put(24, 9)),
    "a table that is not there": (13, Kind.TABLE, put(0, 9)),
    "a global that is not there": (27, Kind.GLOBAL, put(0, 50)),
    "a memory that is not there": (28, Kind.GROWTH, put(4, 9)),
    "an element beyond the table called": (17, Kind.CALLBACK, put(4, 70)),
    "an element of a table that is not there called": (17, Kind.CALLBACK, put(0, 0x8000_0001)),
    "a value too large for its global": (7, Kind.GLOBAL, put(16, 1)),
    "a chunk of a memory that is not there": (0, Kind.POKE, flip(7, 4)),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_a_record_that_cannot_be_is_unusable(case: str, genuine: Path, tmp_path: Path) -> None:
    seq, kind, change = MALFORMED[case]
    assert Forged(genuine).rows[seq].kind == kind
    verdict = forged(genuine, tmp_path, lambda rows: change(rows, seq))
    assert verdict.kind == "unusable", verdict.lines("TRACE")
    assert f"event {seq}" in verdict.reason


def test_a_write_beyond_memory_names_its_event(genuine: Path, tmp_path: Path) -> None:
    verdict = forged(genuine, tmp_path, lambda rows: put(0, 0x7FFF_0000)(rows, 0))
    assert_diverged(verdict, 0, "the memory is smaller")


EVENTS_IN_ALL = 43
WITHOUT_CONSEQUENCE = {1, 17, 24, 42}
"""A read outside a call, a pure callback, a refused growth, a pure export: taken away together with their number in the manifest,
nothing that is executed shows it. That is what seals are for."""


@pytest.mark.parametrize("seq", range(EVENTS_IN_ALL))
def test_a_record_more_or_less_than_the_manifest_counts_is_found(seq: int, genuine: Path, tmp_path: Path) -> None:
    target = harness.copy_of(genuine, tmp_path)
    harness.seal(target, lambda m: m.totals.update(records=seq))
    verdict = harness.verdict_of(target)
    assert verdict.kind == "unusable"
    assert f"counts {seq} events" in verdict.reason


@pytest.mark.parametrize("seq", [n for n in range(EVENTS_IN_ALL) if n not in WITHOUT_CONSEQUENCE])
def test_a_missing_record_is_found(seq: int, genuine: Path, tmp_path: Path) -> None:
    def drop(rows: list[Row]) -> None:
        assert len(rows) == EVENTS_IN_ALL
        del rows[seq]

    try:
        verdict = forged(genuine, tmp_path, drop)
    except TraceError:
        return  # the records no longer nest: they cannot even be made into a table
    assert verdict.kind in ("diverged", "unusable"), verdict.lines("TRACE")


HARMLESS_TWICE = {0, 5, 7, 8, 9, 11, 13, 27, 34, *WITHOUT_CONSEQUENCE}
"""Writing or comparing the same thing again changes nothing; such an event is found by counting, not by replaying."""


@pytest.mark.parametrize("seq", [n for n in range(EVENTS_IN_ALL) if n not in HARMLESS_TWICE])
def test_an_extra_record_is_found(seq: int, genuine: Path, tmp_path: Path) -> None:
    def repeat(rows: list[Row]) -> None:
        row = rows[seq]
        rows.insert(seq, Row(seq, row.index, row.kind, row.status, bytearray(row.body), row.time))

    try:
        verdict = forged(genuine, tmp_path, repeat)
    except TraceError:
        return
    assert verdict.kind in ("diverged", "unusable"), verdict.lines("TRACE")


def test_no_flipped_byte_crashes_the_replay(genuine: Path, tmp_path: Path) -> None:
    """Written past the checks of the table's writer: every fifth byte of every record, headers too, with one bit flipped."""
    target = harness.copy_of(genuine, tmp_path)
    windows = Forged(genuine).windows
    assert len(windows) == 1
    found: dict[str, int] = {}
    for at in range(0, len(windows[0]), 5):
        data = bytearray(windows[0])
        data[at] ^= 1 << at % 8
        harness.write_raw(target, bytes(data), genuine)
        kind = harness.verdict_of(target).kind
        found[kind] = found.get(kind, 0) + 1
    # Identical are flips of what replay has no use for: times, names, words that are reserved or are zero.
    assert set(found) <= {"diverged", "unusable", "incomplete", "identical"}
    assert min(found["diverged"], found["unusable"]) > 50


# -- digests -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["memory", "global", "table"])
@pytest.mark.parametrize("when", ["first", "last"])
def test_a_forged_digest_is_found(what: str, when: str, genuine: Path, tmp_path: Path) -> None:
    target = harness.copy_of(genuine, tmp_path)
    states = tables.read_states(target / STATES)
    moments = sorted({s.seq for s in states})
    seq = moments[0] if when == "first" else moments[-1]
    victim = next(s for s in states if s.what == what and s.seq == seq)
    wrong = [replace(s, digest=bytes(32)) if s is victim else s for s in states]
    (target / STATES).unlink()
    tables.write_states(target / STATES, [(s.seq, s) for s in wrong])
    harness.seal(target)
    assert_diverged(harness.verdict_of(target), seq, f"{what} {victim.name or victim.index}")


def test_a_forged_page_is_located(genuine: Path, tmp_path: Path) -> None:
    verdict = forged(genuine, tmp_path, lambda rows: flip(17)(rows, 36))
    assert verdict.difference is not None
    assert "1 of" in verdict.difference.where
    assert "pages differ, the first at address 0x0" in verdict.difference.where


def test_without_the_last_digests_nothing_is_identical(genuine: Path, tmp_path: Path) -> None:
    target = harness.copy_of(genuine, tmp_path)
    states = tables.read_states(target / STATES)
    (target / STATES).unlink()
    tables.write_states(target / STATES, [(s.seq, s) for s in states if s.seq != EVENTS_IN_ALL])
    harness.seal(target)
    assert harness.verdict_of(target).kind == "incomplete"


def test_digests_of_fewer_things_are_unusable(genuine: Path, tmp_path: Path) -> None:
    target = harness.copy_of(genuine, tmp_path)
    states = tables.read_states(target / STATES)
    (target / STATES).unlink()
    tables.write_states(target / STATES, [(s.seq, s) for s in states if s.what != "global"])
    harness.seal(target)
    assert harness.verdict_of(target).kind == "unusable"


# -- ends ----------------------------------------------------------------------------------------------------------------------


def ended(place: Path, *calls: tuple[Any, ...], limits: Limits | None = None, wasm: bytes | None = None) -> Path:
    script = Script(list(calls))
    recorded = harness.record(
        wasm or scripted_guest(),
        place / "ended.trace",
        lambda guest: script.run(RecordedReach(guest)),
        hosts=[] if wasm else hosts(script),
        limits=limits,
    )
    assert harness.verdict_of(recorded.directory).kind == "identical"
    return recorded.directory


@pytest.mark.parametrize("also_the_manifest", [False, True])
def test_a_forged_exit_is_found(also_the_manifest: bool, tmp_path: Path) -> None:
    """The code in the record that says how the run ended must be the one the guest asked for."""
    trace = ended(tmp_path, ("call", "leave", 3))
    target = harness.forge(trace, tmp_path, lambda rows: put(0, 0)(rows, len(rows) - 1))
    if also_the_manifest:
        harness.seal(target, lambda m: m.outcome.update(code=0, exit_code=0))
    verdict = harness.verdict_of(target)
    assert verdict.kind in ("diverged", "unusable"), verdict.lines("TRACE")


@pytest.mark.parametrize(
    ("call", "lie"),
    [
        (("call", "leave", 3), {"kind": "exit", "code": 0, "exit_code": 0}),
        (("call", "boom", 3), {"kind": "trap", "code": 7}),
        (("call", "bump", 3), {"kind": "trap", "code": 7, "exit_code": 134}),
        (("call", "bump", 3), {"kind": "exit", "code": 1, "exit_code": 1}),
    ],
)
def test_a_forged_outcome_is_found(call: tuple[Any, ...], lie: dict[str, Any], tmp_path: Path) -> None:
    """All but "returned", which is no lie if the embedder caught what happened."""
    target = ended(tmp_path, call)
    harness.seal(target, lambda m: m.outcome.update(lie))
    verdict = harness.verdict_of(target)
    assert verdict.kind in ("diverged", "unusable"), verdict.lines("TRACE")


@pytest.mark.parametrize("also_the_manifest", [False, True])
@pytest.mark.parametrize("by", [-1, 1, 1000])
def test_a_forged_stop_is_found(by: int, also_the_manifest: bool, tmp_path: Path) -> None:
    trace = ended(tmp_path, ("call", "_start"), limits=Limits(fuel=5000), wasm=harness.guest("busy_loop"))
    last = Forged(trace).rows[-1]
    assert last.kind == Kind.STOP
    (clock,) = struct.unpack_from("<Q", last.body, 8)
    target = harness.forge(trace, tmp_path, lambda rows: put(8, clock + by, 8)(rows, last.seq))
    if also_the_manifest:
        harness.seal(target, lambda m: m.outcome.update(clock=clock + by))
    verdict = harness.verdict_of(target)
    assert verdict.kind == "diverged", verdict.lines("TRACE")
    if by != 1 or not also_the_manifest:
        assert_diverged(verdict, last.seq, "")


@pytest.mark.parametrize("kind", [Kind.TRAP, Kind.EXIT, Kind.STOP])
def test_an_end_of_another_kind_is_found(kind: Kind, tmp_path: Path) -> None:
    trace = ended(tmp_path, ("try", ("call", "boom", 1)), ("call", "bump", 1))

    def change(rows: list[Row]) -> None:
        row = next(r for r in rows if r.kind == Kind.TRAP)
        row.kind = kind
        row.body = bytearray(struct.pack("<II", 7, 0) + (bytes(8) if kind is Kind.STOP else b""))

    verdict = forged(trace, tmp_path, change)
    assert verdict.kind == "diverged", verdict.lines("TRACE")


# -- the manifest and the module -------------------------------------------------------------------------------------------------


def lie(change: Callable[[Manifest], Any]) -> Callable[[Path], None]:
    return lambda target: harness.seal(target, change)


def other_module(target: Path) -> None:
    (target / MODULE).write_bytes(scripted_guest(is64=True))


LIES: dict[str, tuple[Callable[[Path], None], tuple[str, ...]]] = {
    "types of an import": (lie(lambda m: m.imports.__setitem__(0, replace(m.imports[0], params=("i64",)))), ("unusable",)),
    "a missing import": (lie(lambda m: m.imports.pop()), ("unusable",)),
    "an unknown engine": (lie(lambda m: m.engine.update(name="other")), ("unusable",)),
    "an unknown option": (lie(lambda m: m.engine["profile"].update(magic=True)), ("unusable",)),
    "an absurd stack": (lie(lambda m: m.engine["profile"].update(max_wasm_stack=1 << 60)), ("unusable",)),
    "an option of another type": (lie(lambda m: m.engine["profile"].update(simd="yes")), ("unusable",)),
    "another derivation": (lie(lambda m: m.module.update(derivation=["start-as-export-9"])), ("unusable",)),
    "a smaller memory limit": (lie(lambda m: m.limits.update(max_memory=65536 * 2)), ("diverged",)),
    "a smaller table limit": (lie(lambda m: m.limits.update(max_table=8)), ("diverged",)),
    "another module": (other_module, ("unusable",)),
    "no module": (lambda target: (target / MODULE).unlink(), ("unusable",)),
    "no events": (lambda target: (target / EVENTS).unlink(), ("unusable",)),
    "no states": (lambda target: (target / STATES).unlink(), ("unusable",)),
}


@pytest.mark.parametrize("case", LIES)
def test_a_lying_manifest_or_a_missing_file_is_found(case: str, genuine: Path, tmp_path: Path) -> None:
    change, expected = LIES[case]
    target = harness.copy_of(genuine, tmp_path)
    change(target)
    verdict = harness.verdict_of(target)
    assert verdict.kind in expected, verdict.lines("TRACE")


def test_another_module_of_the_same_shape_diverges_where_it_differs(genuine: Path, tmp_path: Path) -> None:
    wasm = scripted_guest()
    other = wasm.replace(b"\x7e\x7e\x42\x07", b"\x7e\x7e\x42\x08")
    swapped = wasm.replace(bytes((0x41, 0x01, 0x74)), bytes((0x41, 0x02, 0x74)), 1)
    assert swapped != wasm
    assert len(other) == len(wasm)
    target = harness.copy_of(genuine, tmp_path)
    (target / MODULE).write_bytes(swapped)
    harness.seal(target, lambda m: m.module.update(sha256=harness.sha256(swapped)))
    assert_diverged(harness.verdict_of(target), 17, "returned 84")


def test_a_native_call_that_sent_other_bytes_is_found(tmp_path: Path) -> None:
    wasm = harness.guest("two_memories")
    with redirected(tmp_path / "out"):
        recorded = harness.record(wasm, tmp_path / "a.trace", lambda guest: guest.call("_start"), invocation=Invocation())
    write = next(row for row in Forged(recorded.directory).rows if row.index == 1)
    at = bytes(write.body).index(b"two memories")
    target = harness.forge(recorded.directory, tmp_path, lambda rows: flip(at + 4, 0x20)(rows, write.seq))
    assert_diverged(harness.verdict_of(target), write.seq, "1 of 13 bytes sent differ, the first at address 0x44")
    clock = next(row for row in Forged(recorded.directory).rows if row.index == 0)
    target = harness.forge(recorded.directory, tmp_path, lambda rows: flip(len(rows[clock.seq].body) - 1)(rows, clock.seq))
    assert_diverged(harness.verdict_of(target), None, "memory")


def test_a_host_trap_stays_where_it_was(tmp_path: Path) -> None:
    def act(guest: Guest, node: int) -> int:
        raise HostTrap("no further")

    host = HostFunction("env", "act", ("i32",), ("i32",), act, "test")
    recorded = harness.record(scripted_guest(), tmp_path / "a.trace", lambda guest: guest.call("go", 1), hosts=[host])
    harness.check(recorded)
    assert recorded.outcome.kind == "trap"

    def go_on(rows: list[Row]) -> None:
        trap = rows.pop()
        call = rows[-1]
        call.status = Status.COMPLETE
        rows.append(Row(trap.seq, 0xFFFF, Kind.RETURN, Status.COMPLETE, bytearray(4)))

    verdict = forged(recorded.directory, tmp_path, go_on)
    assert verdict.kind in ("diverged", "unusable"), verdict.lines("TRACE")
