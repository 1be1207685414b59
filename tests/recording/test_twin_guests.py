"""Every committed module has a twin that validates; and whatever ended a run ends its twin alike."""

from __future__ import annotations

from pathlib import Path

import pytest
import wasmtime

from recorder.boundary.engine import Engine, Profile
from recorder.outcome import Limits
from recorder.wasm.binary import WasmError
from recorder.wasm.module import parse_module
from replayer import twin
from replayer.fragments import Details
from replayer.twin import Twin, build_twin
from replayer.twincache import read_twin, write_twin
from tests import harness
from tests.harness import ROOT, assemble, guest, verdict_of
from tests.twin_kit import Bench, Call, bench, drive
from traces.tracedir import Trace

MODULES = sorted(
    [*ROOT.glob("tests/guests/*.wasm"), *ROOT.glob("benchmarks/programs/*.wasm"), ROOT / "recorder" / "demo" / "agent.wasm"]
)
GOLDENS = sorted(ROOT.glob("tests/goldens/format-*/*.trace"))


def checked(wasm: bytes, made: Twin) -> None:
    Engine(Profile()).compile(made.data, keep=False)
    stretches = made.stretches
    assert list(stretches.pcs) == sorted(set(stretches.pcs))
    assert sum(stretches.counts) == made.instructions
    assert read_twin(write_twin(made, wasm), wasm) == made


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_every_module_has_a_twin(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wasm = path.read_bytes()
    if path.stem == "threads":
        with pytest.raises(WasmError, match="threads"):
            build_twin(wasm)
        return
    coarse = build_twin(wasm)
    checked(wasm, coarse)
    assert not coarse.mirrored or path.stat().st_size > 10_000
    if len(wasm) < 40_000:
        fine = build_twin(wasm, fine=True)
        checked(wasm, fine)
        assert fine.instructions == coarse.instructions
        monkeypatch.setattr(twin, "QUADRATIC", 0)
        checked(wasm, build_twin(wasm))
        details = Details(parse_module(wasm), coarse)
        for pc, count in zip(coarse.stretches.pcs, coarse.stretches.counts, strict=True):
            steps = details.stretch(pc)
            assert len(steps) == count
            assert [details.ordinal(step.at - details.code_start) for step in steps] == list(range(count))


@pytest.mark.parametrize("trace", GOLDENS, ids=lambda path: path.stem)
def test_golden_traces_end_alike(trace: Path) -> None:
    found = Bench(Trace.open(trace))
    try:
        assert found.end["verdict"] == verdict_of(trace).to_json()
    finally:
        found.close()


@pytest.mark.parametrize(
    "name", ["deep_recursion", "deep_recursion_clock", "allocator_run", "reactor", "word_count", "clock_random_file"]
)
def test_runs_end_alike(name: str, tmp_path: Path) -> None:
    """Stack overflows, exits and ordinary ends.

    Of an overflow nobody wrote down how deep it was, and a twin's frames are larger: it says so, and nothing else differs.
    """
    wasm = guest(name)
    module = parse_module(wasm)
    wanted: list[Call] = [
        (e.name, []) for e in module.exports if e.kind == "function" and not module.function_type(e.index).params
    ]
    recorded = harness.record(wasm, tmp_path / "a.trace", drive(wanted))
    found = Bench(recorded.trace)
    try:
        plain, verdict = verdict_of(recorded.directory).to_json(), found.end["verdict"]
        assert plain["verdict"] == "identical"
        if name.startswith("deep"):
            assert verdict["reason"] == "stack exhausted, at another depth than in the recording"
        else:
            assert verdict == plain
    finally:
        found.close()


def test_a_run_stopped_by_its_fuel(tmp_path: Path) -> None:
    wasm = assemble("""(module (memory (export "memory") 1) (func (export "run") (local i32)
        (loop $l (i32.store (i32.const 8) (local.tee 0 (i32.add (local.get 0) (i32.const 1)))) (br $l))))""")
    with bench(wasm, [("run", [])], tmp_path, limits=Limits(fuel=1234)) as found:
        end = found.end
        assert end["verdict"]["verdict"] == "identical"
        with found.at(end["clock"]) as moment:
            # In front of the instruction that was never begun.
            assert (moment.position["kind"], moment.clock) == ("head", end["clock"])


def test_a_function_that_never_returns_null(tmp_path: Path) -> None:
    """Its frame returns some function when it unwinds, as a reference that cannot be null has to be one."""
    wasm = assemble("""(module (type $t (func (result i32))) (elem declare func $k)
        (func $k (type $t) (i32.const 12)) (func $make (param i32) (result (ref $t)) (nop) (ref.func $k))
        (func (export "run") (result i32) (call_ref $t (call $make (i32.const 4)))))""")
    with bench(wasm, [("run", [])], tmp_path) as found, found.at(2) as moment:
        assert moment.view().frames[0].locals == [4]


def test_what_cannot_be_stepped_through_is_refused_by_name() -> None:
    with pytest.raises(WasmError, match="of which there is none to be made"):
        build_twin(
            bytes(wasmtime.wat2wasm('(module (func (export "f") (param (ref extern)) (result (ref extern)) (local.get 0)))'))
        )
    with pytest.raises(WasmError, match="garbage-collected"):
        build_twin(bytes(wasmtime.wat2wasm("(module (type (struct)) (func (drop (struct.new 0))))")))
