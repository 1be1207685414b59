"""What a guest that is listened to says it did, against what the interpreter of `tests.twin_kit` saw happen."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from recorder.python_host import Guest, HostFunction
from replayer import twin
from tests.harness import assemble
from tests.recording.test_twin_programs import BEYOND_THE_INTERPRETER, BIG_LOCALS, PROGRAMS, TRAPPING
from tests.twin_kit import Bench, Call, Interpreter, State, bench, interpreted

EVERYTHING = {"keep": "all", "most": 10**6}
DEEP: dict[str, tuple[str, list[Call]]] = {
    "fib": (
        """(func $fib (export "run") (param i32) (result i32)
             (if (result i32) (i32.lt_u (local.get 0) (i32.const 2)) (then (local.get 0)) (else (i32.add
               (call $fib (i32.sub (local.get 0) (i32.const 1))) (call $fib (i32.sub (local.get 0) (i32.const 2)))))))""",
        [("run", [6]), ("run", [3])],
    ),
    "exceptions_through_frames": (
        """(tag $e) (func $deep (param i32) (if (i32.eqz (local.get 0)) (then (throw $e)))
             (call $deep (i32.sub (local.get 0) (i32.const 1))))
           (func $own (param i32) (try_table (catch_all 0) (call $deep (local.get 0))))
           (func $catch (param i32) (result i32) (local $n i32)
             (call $own (local.get 0))
             (block $b (try_table (catch_all $b) (call $deep (local.get 0))))
             (loop $l (local.set $n (i32.add (local.get $n) (i32.const 1)))
               (if (i32.lt_u (local.get $n) (i32.const 3)) (then (try_table (catch_all $l) (call $deep (i32.const 1))))))
             (if (local.get 0) (then (drop (call $catch (i32.sub (local.get 0) (i32.const 1))))))
             (local.get $n))
           (func (export "run") (param i32) (result i32) (i32.add (call $catch (local.get 0)) (call $catch (i32.const 0))))""",
        [("run", [2])],
    ),
}  # fmt: skip
TEXTS = {**DEEP, **{name: text for name, text in PROGRAMS.items() if name not in BEYOND_THE_INTERPRETER | TRAPPING}}


def known(name: str) -> tuple[bytes, list[Call], Interpreter, list[State]]:
    text, wanted = TEXTS[name]
    wasm = assemble(f"(module {text})")
    return wasm, wanted, *interpreted(wasm, wanted)


def cuts(total: int) -> list[tuple[int, int]]:
    return [(0, total), (total // 3, 2 * total // 3 + 1), (total // 2, total)]


def scanned(found: Bench, low: int, high: int, message: dict[str, Any]) -> list[Any]:
    """A scan from the moment in front of `low` up to `high`."""
    with found.at(low) as moment:
        # The guest comes to rest at the head in front of a clock: what it writes behind that head takes a little more.
        hits = moment.scan({**EVERYTHING, **message, "low": low, "high": high, "clock": high + max(found.twin.stretches.counts)})
        assert isinstance(hits, list)
        return hits


@pytest.mark.parametrize("name", TEXTS)
def test_every_write_and_every_instruction_is_told(name: str, tmp_path: Path) -> None:
    wasm, wanted, machine, states = known(name)
    with bench(wasm, wanted, tmp_path) as found:
        for low, high in cuts(machine.clock):
            hits = scanned(found, low, high, {"memory": [-1, 0, 2**63 - 1]})
            told = [(clock, memory, address, bytes.fromhex(data)) for clock, _, _, _, memory, address, data, _ in hits]
            assert told == [write for write in machine.writes if low <= write[0] < high and write[3]]
            assert all(pc == states[clock].frames[0][1] for clock, pc, *_ in hits)

            hits = scanned(found, low, high, {"global": -1})
            told_globals = [
                (clock, index, int.from_bytes(bytes.fromhex(data), "little")) for clock, _, _, _, _, index, data, _ in hits
            ]
            assert told_globals == [change for change in machine.sets if low <= change[0] < high]

            stretches = found.twin.stretches
            heads: dict[int, list[tuple[int, int]]] = {}
            for pc in sorted({state.frames[0][1] for state in states}):
                head = stretches.pcs[stretches.at(pc)]
                heads.setdefault(head, []).append((pc, 0 if pc == head else found.job.details.ordinal(pc)))
            with found.at(low) as moment:
                base = len(states[moment.clock].frames)
            for limit in (2**31 - 1, 1, 0, -1):
                hits = scanned(found, low, high, {"heads": list(heads.items()), "depth": limit})
                if low and limit < 1 << 30 and "catch" in TEXTS[name][0]:
                    continue  # how deep frames from before the scan are is not known when they catch
                expected = [(n, states[n].frames[0][1], len(states[n].frames) - base) for n in range(low, high)]
                if low and "catch" in TEXTS[name][0]:
                    assert [hit[:2] for hit in hits] == [list(e[:2]) for e in expected]
                    continue
                assert [(clock, pc, depth) for clock, pc, *_, depth in hits] == [e for e in expected if e[2] <= limit]


@pytest.mark.parametrize(
    "name", ["fib", "exceptions_through_frames", "tail_calls", "catches", "mirrored", "empty_and_short", "unreachable_code"]
)
def test_a_tree_of_calls(name: str, tmp_path: Path) -> None:
    wasm, wanted, machine, states = known(name)
    with bench(wasm, wanted, tmp_path) as found:
        for low, high in cuts(machine.clock):
            with found.at(low) as moment:
                if moment.clock != low:
                    continue  # a tree begins at a head
                outer = [f[0] for f in reversed(states[low].frames)]
                raw = moment.scan({"calls": outer, "low": low, "high": high, "clock": high})
            calls: Counter[tuple[int, ...]] = Counter()
            own: Counter[tuple[int, ...]] = Counter()

            def walk(node: list[Any], path: tuple[int, ...], calls: Counter[Any] = calls, own: Counter[Any] = own) -> None:
                function, count, instructions, children = node[:4]
                here = (*path, function) if function >= 0 else path
                calls[here] += count
                own[here] += instructions
                for child in children:
                    walk(child, here)

            walk(raw, ())
            own[tuple(f for f in raw[4] if f >= 0)] += high - low - own.total()  # nothing is logged at the very end
            expected_own = Counter(tuple(f[0] for f in reversed(states[n].frames)) for n in range(low, high))
            assert +own == expected_own
            # Functions without an instruction are on nobody's path, and nothing says when the outermost calls began.
            entered = Counter(path for clock, path in machine.entries if low < clock < high and path in expected_own)
            assert +Counter({path: calls[path] for path in expected_own}) == entered


def test_a_trap_is_found_from_anywhere_before_it(tmp_path: Path) -> None:
    text, _ = PROGRAMS["traps_in_between"]
    wasm = assemble(f"(module {text})")
    wanted: list[Call] = [("run", [4])]
    _, states = interpreted(wasm, wanted)
    with bench(wasm, wanted, tmp_path) as found:
        stretches = found.twin.stretches
        for start in (0, 3, len(states) - 1):
            with found.at(start) as moment:
                pc, head, message = moment.scan({"trap": True})
            assert "divide by zero" in message
            assert pc == stretches.pcs[stretches.at(states[-1].frames[0][1])]
            assert states[head].frames[0][1] == pc
            assert head <= len(states) - 1 < head + stretches.counts[stretches.at(pc)]


def test_exceptions_caught_by_frames_from_before_the_scan(tmp_path: Path) -> None:
    """Such a frame has no depth of its own: it counts as outside of everything that was seen."""
    wasm, wanted, _, states = known("exceptions_through_frames")
    with bench(wasm, wanted, tmp_path) as found:
        deepest = max(range(len(states)), key=lambda n: len(states[n].frames))
        with found.at(deepest) as moment:
            here = moment.clock
            depths = len(states[here].frames)
        leaves = next(n for n in range(here, len(states)) if len(states[n].frames) < depths)
        stretches = found.twin.stretches
        pcs = sorted({state.frames[0][1] for state in states})
        heads: dict[int, list[tuple[int, int]]] = {}
        for pc in pcs:
            head = stretches.pcs[stretches.at(pc)]
            heads.setdefault(head, []).append((pc, 0 if pc == head else found.job.details.ordinal(pc)))
        with found.at(deepest) as moment:
            (hit,) = moment.scan({"heads": list(heads.items()), "depth": -1, "keep": "first", "most": 1, "low": here})
        assert hit[0] == leaves


TIMES = 500_000


def test_a_mirror_does_not_grow_by_what_exceptions_and_tail_calls_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Frames of mirrored functions that an exception or a tail call ends are given back, wherever the exception lands.

    Otherwise they would not fit: a frame has more than 1,200 bytes, and there is room for 512 MiB of them.
    """
    monkeypatch.setattr(twin, "QUADRATIC", 400)
    wasm = assemble(f"""(module (tag $e)
      (func $big (param $n i64) {BIG_LOCALS} (if (i64.eqz (local.get $n)) (then (nop))) (nop) (throw $e))
      (func $tail (param $n i32) {BIG_LOCALS} (if (i32.eqz (local.get $n)) (then (return)))
        (return_call $tail (i32.sub (local.get $n) (i32.const 1))))
      (func $own (try_table (catch_all 0) (call $big (i64.const 1))))
      (func $loop (local $i i32) (loop $l (local.set $i (i32.add (local.get $i) (i32.const 1)))
        (if (i32.lt_u (local.get $i) (i32.const {TIMES})) (then (try_table (catch_all $l) (call $big (i64.const 1)))))))
      (func $block (block $b (try_table (catch_all $b) (call $big (i64.const 1)))))
      (func (export "run") (param i32) (local $i i32)
        (if (i32.eqz (local.get 0)) (then (return (call $loop))))
        (if (i32.eq (local.get 0) (i32.const 3)) (then (return (call $tail (i32.const {TIMES})))))
        (loop $l (if (i32.eq (local.get 0) (i32.const 1)) (then (call $own)) (else (call $block)))
          (br_if $l (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const {TIMES}))))))""")
    with bench(wasm, [("run", [0]), ("run", [1]), ("run", [2]), ("run", [3])], tmp_path) as found:
        assert found.twin.mirrored == {0, 1}
        assert found.end["verdict"]["verdict"] == "identical"


def test_what_hosts_write_is_told_with_the_call_and_its_event(tmp_path: Path) -> None:
    """A host's write takes the clock of the call, and comes with the event; nested calls of the guest are told in their order."""
    wasm = assemble("""(module (import "env" "fill" (func $fill (param i32) (result i32)))
      (memory (export "memory") 1) (global $g (mut i32) (i32.const 0))
      (func (export "back") (param i32) (i32.store offset=64 (local.get 0) (i32.const 7)) (global.set $g (local.get 0)))
      (func (export "run") (param i32) (result i32)
        (i32.store (i32.const 4) (i32.const 1))
        (i32.add (i32.const 40) (call $fill (i32.const 8))) (drop)
        (i32.store8 (i32.const 30) (call $fill (i32.add (local.get 0) (i32.const 16)))) (i32.load (i32.const 30))))""")

    def recorded_fill(guest: Guest, address: int) -> int:
        guest.write(address, b"hello")
        guest.call_raw("back", [address])
        guest.write(address + 200, b"again")
        return address + 1

    def known_fill(machine: Interpreter, address: int) -> list[int]:
        machine.write(0, address, b"hello")
        machine.invoke("back", [address], seen.append_state)
        machine.write(0, address + 200, b"again")
        return [address + 1]

    class Seen(list[State]):
        def append_state(self, machine: Interpreter) -> None:
            self.append(machine.state())

    seen = Seen()
    wanted: list[Call] = [("run", [3]), ("run", [90])]
    machine = Interpreter(wasm, [known_fill])
    for name, args in wanted:
        machine.invoke(name, args, seen.append_state)
    hosts = [HostFunction("env", "fill", ("i32",), ("i32",), recorded_fill, "fill")]
    with bench(wasm, wanted, tmp_path, hosts=hosts) as found:
        assert found.end["verdict"]["verdict"] == "identical"
        assert found.end["clock"] == machine.clock == len(seen)
        for clock, state in found.states(range(len(seen))):
            own = len(seen[clock].frames)
            assert state.frames[:own] == seen[clock].frames, f"before instruction {clock}"
            assert (state.memories, state.globals) == (seen[clock].memories, seen[clock].globals), f"before instruction {clock}"
            # Behind the frames of a call that a host made stand the host's, and those of the guest that called it.
            assert [frame[0] for frame in state.frames[own:]] in ([], [-1, 2])
        for low, high in cuts(machine.clock):
            hits = scanned(found, low, high, {"memory": [0, 0, 2**63 - 1]})
            told = [(clock, memory, address, bytes.fromhex(data)) for clock, _, _, _, memory, address, data, _ in hits]
            assert told == [write for write in machine.writes if low <= write[0] < high]
            assert all((pc == -1) == (event >= 0) for _, pc, _, event, *_ in hits)


def test_the_log_of_simd_stores_rebuilds_memory(tmp_path: Path) -> None:
    """The interpreter has no SIMD: what is told is applied, one hit at a time, to what stepping finds in memory."""
    text, wanted = PROGRAMS["simd"]
    with bench(assemble(f"(module {text})"), wanted, tmp_path) as found:
        total = found.end["clock"]
        hits = scanned(found, 0, total, {"memory": [0, 0, 2**63 - 1]})
        seen = {clock: state.memories[0] for clock, state in found.states(range(total))}
        memory = bytearray(seen[0])
        for clock in range(total):
            assert bytes(memory) == seen[clock], f"before instruction {clock}"
            for hit in hits:
                if hit[0] == clock:
                    written = bytes.fromhex(hit[6])
                    memory[hit[5] : hit[5] + len(written)] = written
        assert sorted(len(hit[6]) // 2 for hit in hits) == [1, 2, 4, 8, 8, 8, 16]
