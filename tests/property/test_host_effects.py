"""Everything a Python host can do to a guest, as data: native, recorded and replayed agree, at every event boundary.

Each case is a script (`tests.scripts`): what the embedder does, and what the host does when the guest calls it. It runs on plain
wasmtime, is recorded (with slots so small that records rotate out all the time), and is replayed the quick way, the slow way and
in a process that has nothing of the recording's world.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from recorder.outcome import Limits
from recorder.python_host import Guest
from tests import harness
from tests.native import Ended
from tests.scripts import Action, NativeReach, RecordedReach, Script, hosts, how, run_native, scripted_guest

SOAK = int(os.environ.get("REPRISE_EXAMPLES", "1"))
PAGE = 65536
MIB = 1 << 20
GO: Action = ("call", "go", 1)


def one(*actions: Action) -> Script:
    """The embedder calls `go(1)` once; the host does that."""
    return Script([GO], {1: actions})


def outside(*actions: Action) -> Script:
    """The embedder does it, outside any call."""
    return Script([*actions, ("call", "bump", 1)])


def nested(depth: int, *actions: Action, before: tuple[Action, ...] = (), after: tuple[Action, ...] = ()) -> Script:
    """A host call that calls the guest that calls the host …, `depth` times, and does `actions` at the bottom."""
    nodes: dict[int, tuple[Action, ...]] = {n: (*before, ("call", "go", n + 1), *after) for n in range(1, depth)}
    nodes[depth] = actions
    return Script([GO], nodes, budget=100_000)


def trying(action: Action) -> Action:
    return ("try", action)


def _cases() -> dict[str, Script]:
    cases: dict[str, Script] = {}
    # -- memory: written -----------------------------------------------------------------------------------------------
    for length in (0, 1, 2, 3, 4, 5, 7, 8, 9, 63, 64, 65, 4095, 4097):
        cases[f"write {length}"] = one(("write", 1001, length))
    for length in (8 * 1024, PAGE, PAGE + 4096):
        cases[f"write {length}, larger than a slot"] = one(("write", 512, length))
    cases["write to the last byte"] = one(("write", 2 * PAGE - 5, 5))
    cases["write past the last byte, caught"] = one(trying(("write", 2 * PAGE - 5, 6)), ("write", 100, 3))
    cases["write past the last byte, uncaught"] = one(("write", 100, 3), ("write", 2 * PAGE - 5, 6))
    cases["write at a negative address"] = one(trying(("write", -4, 4)))
    cases["write twice to one place"] = one(("write", 200, 50, 1), ("write", 220, 50, 2))
    cases["write to another memory"] = one(("write", 10, 40, 3, "second"), ("write", 10, 40, 4), ("write", 50, 9, 5, "second"))
    cases["write between calls"] = Script([GO, ("write", 300, 77), GO, ("write", 300, 77, 9)], {1: [("read", 300, 90)]})
    cases["write over the guest's own counter"] = Script([GO, GO], {1: [("write", 0, 2, 1)]})
    # -- memory: read --------------------------------------------------------------------------------------------------
    for length in (0, 1, 5, 4096, 2 * PAGE):
        cases[f"read {length}"] = one(("read", 0, length))
    cases["read what was written"] = one(("write", 128, 30), ("read", 120, 50))
    cases["read, write, read"] = one(
        ("read", 128, 30), ("write", 130, 4), ("read", 128, 30), ("write", 128, 9, 7), ("read", 0, 200)
    )
    cases["read past the end"] = one(trying(("read", 2 * PAGE - 1, 2)), ("read", 2 * PAGE - 1, 1))
    cases["read another memory"] = one(("read", 0, 64, "second"), ("read", 0, 64))
    cases["read outside a call"] = outside(("read", 0, 64), ("call", "bump", 1), ("read", 0, 64))
    cases["read around a callback"] = one(("read", 0, 16), ("call", "bump", 9), ("read", 0, 16))
    # -- memory: grown -------------------------------------------------------------------------------------------------
    cases["grow"] = one(("grow", 1), ("size",))
    cases["grow by nothing"] = one(("grow", 0))
    cases["grow and write there"] = one(
        ("grow", 2), ("write", 2 * PAGE, 100), ("read", 2 * PAGE, 100), ("write", 4 * PAGE - 3, 3)
    )
    cases["write, then grow"] = one(("write", 100, 10), ("grow", 1), ("write", 110, 10))
    cases["grow refused"] = one(("grow", 99), ("grow", 1), ("size",))
    cases["grow another memory"] = one(("grow", 1, "second"), ("grow", 1, "second"), ("grow", 1, "second"), ("size", "second"))
    cases["grow outside a call"] = outside(("grow", 3), ("write", 4 * PAGE, 9), ("size",))
    cases["grow while the guest grows too"] = one(("grow", 1), ("call", "grow", 2), ("grow", 1), ("size",))
    cases["grow inside a callback"] = Script(
        [GO, GO], {1: [("call", "go", 2), ("size",)], 2: [("grow", 1), ("write", 2 * PAGE, 8)]}
    )
    cases["grow by a lot"] = one(("grow", 80), ("write", 81 * PAGE, 20))
    # -- globals -------------------------------------------------------------------------------------------------------
    for value in (0, 1, -1, 0x7FFF_FFFF):
        cases[f"global i32 {value}"] = one(("set", "i32", value), ("get", "i32"))
    cases["global i64"] = one(("get", "i64"), ("set", "i64", -(1 << 63)), ("get", "i64"), ("call", "bump", 1), ("get", "i64"))
    cases["global set outside a call"] = outside(("set", "i32", 77), ("get", "i32"))
    cases["global set around a callback"] = one(("set", "i32", 4), ("call", "bump", 1), ("get", "i32"), ("set", "i32", 9))
    cases["global set between writes"] = one(("write", 99, 3), ("set", "i32", 4), ("write", 102, 3))
    cases["global that is not there"] = one(trying(("get", "nothing")))
    # -- tables --------------------------------------------------------------------------------------------------------
    cases["table: an export"] = one(("table_set", 5, "bump"), ("call", "through", 5, 3), ("call_table", 5, 4))
    cases["table: null"] = one(("table_set", 0, None), trying(("call", "through", 0, 3)), ("table_kind", 0))
    cases["table: over another"] = one(
        ("table_set", 0, "twice"), ("call", "through", 0, 3), ("table_set", 0, "bump"), ("call", "through", 0, 3)
    )
    cases["table: several at once"] = one(("table_set", 4, "twice", 3), ("call", "through", 6, 21))
    cases["table: none at once"] = one(("table_set", 4, "twice", 0), ("table_kind", 4))
    cases["table: past its end"] = one(trying(("table_set", 8, None)), trying(("table_kind", 8)))
    cases["table: from its middle past its end"] = one(trying(("table_set", 0, None, 20)), ("table_kind", 0), ("table_kind", 7))
    cases["table: no such export"] = one(trying(("table_set", 0, "nobody")), ("table_kind", 0))
    cases["table: taken and put back elsewhere"] = one(
        ("table_take", 1), ("table_set", 6, ("taken", 0)), ("call", "through", 6, 21)
    )
    cases["table: an import taken"] = one(("table_take", 4), ("table_set", 7, ("taken", 0)), ("call", "through", 7, 2))
    cases["table: null taken"] = one(("table_take", 7), ("table_take", 0), ("table_set", 0, ("taken", 0)), ("table_kind", 0))
    cases["table: grown"] = one(("table_grow", 3), ("table_kind", 10), ("table_set", 10, "twice"), ("call", "through", 10, 4))
    cases["table: grown with a function"] = one(("table_grow", 2, "twice"), ("call", "through", 9, 4))
    cases["table: grown by nothing"] = one(("table_grow", 0, "twice"), ("table_grow", 0))
    cases["table: growth refused"] = one(("table_grow", 33), ("table_grow", 33, "twice"), ("table_grow", 32), ("table_grow", 1))
    cases["table: swapped by the guest"] = one(("table_set", 5, "twice"), ("call", "swap", 0, 5), ("call", "through", 0, 8))
    cases["table: changed outside a call"] = outside(
        ("table_set", 5, "twice"), ("call", "through", 5, 3), ("table_grow", 1), ("table_take", 0)
    )
    cases["table: called where nothing stands"] = one(trying(("call_table", 7, 1)), trying(("call_table", 70, 1)))
    cases["table: called with the wrong arguments"] = one(trying(("call_table", 0)), trying(("call_table", 0, 1, 2)))
    cases["table: a host function"] = Script(
        [GO], {1: [("table_set", 5, ("host", 2)), ("call", "through", 5, 3)], 2: [("write", 90, 3)]}
    )
    cases["table: a host function called by the host"] = Script(
        [GO], {1: [("table_set", 5, ("host", 2)), ("call_table", 5, 3)], 2: [("write", 90, 3)]}
    )
    cases["table: a host function that calls back"] = Script(
        [("table_set", 5, ("host", 2)), ("call", "through", 5, 3), GO],
        {1: [("call", "through", 5, 9)], 2: [("call", "bump", 3), ("grow", 1)]},
    )
    cases["table: a host function that raises"] = Script(
        [("table_set", 5, ("host", 2)), trying(("call", "through", 5, 3)), GO],
        {1: [trying(("call", "through", 5, 1))], 2: [("raise",)]},
    )
    cases["table: host functions swapped"] = Script(
        [("table_set", 5, ("host", 2)), ("table_set", 6, ("host", 3)), ("call", "swap", 0, 6), ("call", "swap", 6, 5), GO],
        {
            1: [("call", "through", 0, 1), ("call", "through", 6, 1)],
            2: [("write", 500, 4, 1)],
            3: [("write", 500, 4, 2), ("read", 500, 4)],
        },
    )
    cases["table: a host function taken"] = Script(
        [("table_set", 5, ("host", 2)), ("table_take", 5), ("table_set", 7, ("taken", 0)), ("call", "through", 7, 1)],
        {2: [("write", 1, 1)]},
    )
    cases["table: the host function that puts another in its place"] = Script(
        [("table_set", 5, ("host", 2)), ("call", "through", 5, 1), ("call", "through", 5, 1)],
        {2: [("table_set", 5, ("host", 3))], 3: [("write", 40, 4)]},
    )
    # -- external references -------------------------------------------------------------------------------------------
    cases["externref: an object"] = one(("extern_set", 0, 3), ("extern_get", 0), ("call", "has", 0), ("call", "has", 1))
    cases["externref: the same object twice"] = one(
        ("extern_set", 0, 3), ("extern_set", 1, 3), ("extern_get", 1), ("extern_set", 0, -1), ("extern_get", 0)
    )
    cases["externref: moved by the guest"] = one(("extern_set", 0, 4), ("call", "moves", 2, 0), ("extern_get", 2))
    cases["externref: text is an object too"] = one(
        ("extern_set", 0, 0), ("extern_get", 0), ("extern_set", 1, 1), ("extern_get", 1)
    )
    cases["externref: past the end"] = one(trying(("extern_set", 4, 3)), trying(("extern_get", 4)))
    # -- calls back ----------------------------------------------------------------------------------------------------
    cases["callback"] = one(("call", "bump", 5))
    cases["callbacks"] = one(*[("call", "bump", n) for n in range(40)])
    cases["callback around writes"] = one(
        ("write", 700, 5), ("call", "bump", 5), ("write", 705, 5), ("call", "twice", 5), ("write", 710, 5)
    )
    cases["callback by a table"] = one(("call_table", 1, 21), ("call_table", 0, 2))
    cases["callback with the wrong arguments"] = one(
        trying(("call", "bump")), trying(("call", "bump", 1, 2)), trying(("call", "nobody", 1))
    )
    for depth in (2, 10, 40):
        cases[f"nested {depth}"] = nested(depth, ("write", 800, 8))
        cases[f"nested {depth} with effects on the way"] = nested(
            depth, ("grow", 1), before=(("write", 900, 70), ("read", 0, 300)), after=(("call", "bump", 1), ("write", 980, 30))
        )
    # -- failures ------------------------------------------------------------------------------------------------------
    for trap in ("boom", "div", "far", "null", "wrong", "out", "deep"):
        cases[f"{trap} caught by the host"] = one(trying(("call", trap, 1)), ("write", 77, 3), ("call", "bump", 1))
        if trap != "deep":
            cases[f"{trap} not caught"] = one(("write", 77, 3), ("call", trap, 1))
            cases[f"{trap} caught by the embedder"] = Script(
                [trying(GO), ("call", "bump", 1), trying(GO)], {1: [("write", 77, 3), ("call", trap, 1)]}
            )
    cases["trap outside a call"] = Script([trying(("call", "far", 1)), ("call", "bump", 3)])
    for kind in ("HostError", "HostTrap", "ValueError"):
        cases[f"{kind} not caught"] = one(("write", 77, 3), ("raise", kind))
        cases[f"{kind} caught by the embedder"] = Script(
            [trying(GO), ("call", "bump", 1), trying(GO)], {1: [("write", 77, 3), ("raise", kind)]}
        )
    cases["raised before anything"] = one(("raise",))
    cases["raised after a callback"] = one(("call", "bump", 1), ("raise",))
    for level in (1, 3, 5):
        nodes: dict[int, list[Action]] = {
            n: [("write", 60 * n, 9), ("call", "go", n + 1), ("write", 60 * n, 3, 7)] for n in range(1, 6)
        }
        nodes[6] = [("call", "bump", 1), ("raise",)]
        nodes[level] = [("write", 60 * level, 9), trying(("call", "go", level + 1)), ("call", "bump", 2)]
        cases[f"raised at depth 6, caught at {level}"] = Script([trying(GO), GO], nodes)
    cases["raised again and again"] = Script([trying(GO)] * 5, {1: [trying(("call", "go", 2)), ("raise",)], 2: [("raise",)]})
    for code in (0, 3, 125):
        cases[f"exit {code}"] = one(("write", 77, 3), ("call", "leave", code))
    cases["exit 126"] = one(("call", "leave", 126))
    cases["exit caught by the host"] = one(trying(("call", "leave", 3)), ("write", 77, 3))
    cases["exit caught by the embedder"] = Script(
        [trying(("call", "leave", 3)), ("call", "bump", 1), trying(GO)], {1: [("call", "leave", 4)]}
    )
    # -- results -------------------------------------------------------------------------------------------------------
    for value in (0, -1, 0x7FFF_FFFF, -(1 << 31)):
        cases[f"returns {value}"] = one(("write", 77, 3), ("return", value))
    # -- payloads larger than many slots -------------------------------------------------------------------------------
    cases["5 MiB written"] = one(("grow", 90), ("write", 1000, 5 * MIB), ("call", "bump", 1), ("write", 3, 3))
    cases["5 MiB read"] = one(("grow", 90), ("read", 1000, 5 * MIB), ("call", "bump", 1), ("read", 3, 3))
    cases["5 MiB written outside a call"] = outside(("grow", 90), ("write", 1000, 5 * MIB), ("read", 0, MIB))
    cases["1 MiB written at depth 3"] = nested(3, ("grow", 40), ("write", 1000, MIB), after=(("write", 50_000, 30_000),))
    cases["1 MiB written, then raised"] = one(("grow", 40), ("write", 1000, MIB), ("raise",))
    return cases


CASES = _cases()
STACK = [name for name in CASES if name.startswith("deep ")]


def running(script: Script) -> Callable[[Guest], None]:
    return lambda guest: script.run(RecordedReach(guest))


def compare(
    script: Script, place: Path, slot_size: int | None, *, is64: bool = False, limits: Limits | None = None
) -> harness.Recorded:
    """Runs a script natively, recorded and replayed; demands that nobody could tell."""
    wasm = scripted_guest(is64=is64)
    expected = script.again()
    native, end = run_native(wasm, expected)

    def drive(guest: Guest) -> None:
        try:
            script.run(RecordedReach(guest))
        except Exception as error:
            script.log.append(how(error))
            raise

    recorded = harness.record(
        wasm, harness.unused(place), drive, hosts=hosts(script), slot_size=slot_size, limits=limits, watch=True
    )
    assert script.log == expected.log
    assert (recorded.outcome.kind == "returned") == (end == Ended("returned")), recorded.outcome
    for index, name in enumerate(("memory", "second")):
        assert recorded.memories[index] == native.memory(name)
    for index, name in enumerate(("i32", "i64")):
        width = 1 << (32 if name == "i32" else 64)
        assert recorded.globals[index] == native.exports[name].value(native.store) % width
    size, reach = native.exports["table"].size(native.store), NativeReach(native)
    linked = recorded.recording.session.linked
    assert linked.table_size(0) == size
    assert [linked.table_get(0, i) is None for i in range(size)] == [reach.table_kind(i) == "null" for i in range(size)]
    return recorded


def test_there_are_at_least_ninety_cases() -> None:
    assert len(CASES) >= 90


@pytest.mark.parametrize("case", [name for name in CASES if name not in STACK])
def test_an_effect_is_the_same_recorded_and_replayed(case: str, tmp_path: Path) -> None:
    slot = 65536 if "MiB" in case else 8192
    harness.check(compare(CASES[case].again(), tmp_path, slot))


@pytest.mark.parametrize("case", [name for name in CASES if name not in STACK and "MiB" not in name][::6])
def test_an_effect_on_a_64_bit_memory_is_the_same_recorded_and_replayed(case: str, tmp_path: Path) -> None:
    harness.check(compare(CASES[case].again(), tmp_path, 1 << 20, is64=True))


@pytest.mark.parametrize("case", [name for name in CASES if name not in STACK and "MiB" not in name][3::8])
def test_an_effect_is_the_same_in_the_metered_form(case: str, tmp_path: Path) -> None:
    recorded = compare(CASES[case].again(), tmp_path, 8192, limits=Limits(fuel=1 << 40, timeout=600))
    assert recorded.recording.manifest.module["derivation"]
    harness.check(recorded)


@pytest.mark.parametrize("case", STACK)
def test_a_stack_exhausted_in_a_callback_and_caught_is_never_a_divergence(case: str, tmp_path: Path) -> None:
    recorded = compare(CASES[case].again(), tmp_path, 1 << 20)
    verdict = harness.verdict_of(recorded.directory)
    assert verdict.kind in ("identical", "incomplete"), verdict.lines("")


@pytest.mark.parametrize("slot_size", [8192, 65536])
def test_calls_nested_a_hundred_deep_across_rotations(slot_size: int, tmp_path: Path) -> None:
    script = nested(100, ("write", 800, 8), before=(("write", 900, 700),), after=(("read", 0, 500), ("call", "bump", 1)))
    harness.check(compare(script, tmp_path, slot_size))


@pytest.mark.parametrize("caught", [True, False])
def test_calls_nested_deeper_than_the_interpreter_allows_end_the_same(caught: bool, tmp_path: Path) -> None:
    """Wherever a limit of the host strikes, in whatever code of the recorder, the recording stays whole."""
    last: Action = ("call", "go", 1)
    script = Script(
        [trying(GO) if caught else GO, *([("call", "bump", 1)] if caught else [])], {1: [("write", 900, 70), last]}, budget=10**6
    )
    recorded = harness.record(scripted_guest(), tmp_path / "a.trace", running(script), hosts=hosts(script))
    assert recorded.outcome.kind in ("returned", "trap", "stack")
    verdict = harness.verdict_of(recorded.directory)
    assert verdict.kind in ("identical", "incomplete"), verdict.lines("")


def test_every_case_replays_in_a_process_that_knows_nothing(tmp_path: Path) -> None:
    traces, wanted = [], []
    for name, case in CASES.items():
        if name in STACK or "5 MiB" in name:
            continue
        script = case.again()
        recorded = harness.record(scripted_guest(), harness.unused(tmp_path), running(script), hosts=hosts(script))
        traces.append(recorded.directory)
        wanted.append([harness.sha256(m) for m in recorded.memories])
    reports = harness.replayed_elsewhere(traces, tmp_path)
    assert {r["verdict"]["verdict"] for r in reports} == {"identical"}
    assert [r["memories"] for r in reports] == wanted


# -- generated scripts -------------------------------------------------------------------------------------------------------

_ADDRESSES = st.one_of(st.sampled_from((0, 1, 4, 64, 4096, PAGE - 1, 2 * PAGE - 8, 2 * PAGE)), st.integers(0, 2 * PAGE))
_SIZES = st.one_of(st.sampled_from((0, 1, 4, 63, 64, 65, 4096, 9000, PAGE)), st.integers(0, 300))
_MEMORIES = st.sampled_from(("memory", "memory", "second"))
_ELEMENTS = st.sampled_from((0, 1, 2, 3, 4, 5, 6, 7, 7, 8, 30))


def _actions(low: int) -> st.SearchStrategy[Action]:
    """Actions of a node; calls lead to nodes from `low` on, so that they come to an end."""
    node = st.integers(low, low + 2)
    what = st.one_of(
        st.sampled_from((None, "bump", "twice", "go", "wide", "boom", "nobody")),
        st.tuples(st.just("host"), node),
        st.tuples(st.just("taken"), st.integers(0, 3)),
    )
    plain = st.one_of(
        st.tuples(st.just("read"), _ADDRESSES, _SIZES, _MEMORIES),
        st.tuples(st.just("write"), _ADDRESSES, _SIZES, st.integers(0, 255), _MEMORIES),
        st.tuples(st.just("grow"), st.sampled_from((0, 1, 1, 2, 50, 200)), _MEMORIES),
        st.tuples(st.just("size"), _MEMORIES),
        st.tuples(st.just("get"), st.sampled_from(("i32", "i64"))),
        st.tuples(st.just("set"), st.sampled_from(("i32", "i64")), st.integers(-(1 << 31), (1 << 31) - 1)),
        st.tuples(st.just("table_set"), _ELEMENTS, what, st.sampled_from((1, 1, 1, 0, 3, 9))),
        st.tuples(st.just("table_kind"), _ELEMENTS),
        st.tuples(st.just("table_take"), _ELEMENTS),
        st.tuples(st.just("table_grow"), st.sampled_from((0, 1, 3, 40)), what),
        st.tuples(st.just("extern_set"), st.integers(0, 4), st.integers(-1, 4)),
        st.tuples(st.just("extern_get"), st.integers(0, 4)),
    )
    calls = st.one_of(
        st.tuples(st.just("call"), st.just("go"), node),
        st.tuples(st.just("call"), st.just("go"), node),
        st.tuples(
            st.just("call"), st.sampled_from(("bump", "twice", "boom", "div", "far", "null", "leave", "grow")), st.integers(0, 3)
        ),
        st.tuples(st.just("call"), st.just("through"), _ELEMENTS, node),
        st.tuples(st.just("call"), st.sampled_from(("swap", "moves")), st.integers(0, 5), st.integers(0, 5)),
        st.tuples(st.just("call_table"), _ELEMENTS, node),
    )
    each = st.one_of(plain, plain, calls, calls, st.just(("raise", "HostError")))
    return st.one_of(each, each.map(trying), each.map(trying))


@st.composite
def scripts(draw: st.DrawFn) -> Script:
    main = draw(st.lists(_actions(1), min_size=1, max_size=6))
    nodes = {n: draw(st.lists(_actions(n + 1), max_size=6)) for n in range(1, 7)}
    return Script([GO, *main, trying(GO)], nodes, budget=150)


@settings(deadline=None, max_examples=60 * SOAK, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(scripts(), st.sampled_from((8192, 8192, 65536, 1 << 20)))
def test_any_script_is_the_same_recorded_and_replayed(
    tmp_path_factory: pytest.TempPathFactory, script: Script, slot_size: int
) -> None:
    harness.check(compare(script.again(), tmp_path_factory.mktemp("script"), slot_size))


@pytest.mark.soak
@settings(deadline=None, max_examples=3000, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(scripts(), st.sampled_from((8192, 8192, 65536, 1 << 20)))
def test_many_scripts_are_the_same_recorded_and_replayed(
    tmp_path_factory: pytest.TempPathFactory, script: Script, slot_size: int
) -> None:
    harness.check(compare(script.again(), tmp_path_factory.mktemp("script"), slot_size))
