"""Programs written by hand, one for each thing the rewriter has to get right: the twin agrees with whoever else can run them.

Each is recorded, and its guest is looked at before **every** instruction (of longer runs: some), in the coarse twin, in the fine
one and in one that mirrors all locals, and compared with the interpreter of `tests.twin_kit` (which knows none of them), or,
where that cannot run the program (SIMD), with one another.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from recorder.wasm.module import parse_module
from replayer import twin
from tests.harness import assemble
from tests.twin_kit import Call, State, UnknownError, bench, differences, interpreted

EXN = "(tag $e (param i32)) (tag $f)"
MEMORY = '(memory (export "memory") 1)'

LANES = "\n".join(
    f"(v128.store{w}_lane offset={o} {n} (i32.const {o}) (local.get $v))"
    f" (local.set $v (v128.load{w}_lane {n} (i32.const {o + 1}) (local.get $v)))"
    for w, n, o in ((8, 15, 1), (16, 7, 20), (32, 3, 40), (64, 1, 60))
)
LOADS = "\n".join(
    f"(local.set $v (i8x16.add (local.get $v) (v128.load{kind} offset=3 (i32.const 5))))"
    for kind in ("", "8x8_s", "8x8_u", "16x4_s", "32x2_u", "8_splat", "16_splat", "32_splat", "64_splat", "32_zero", "64_zero")
)
MANY = 1100
BIG = "\n".join(
    f"(local.set $l{i} (i64.add (local.get $l{(i * 7 + 3) % 150}) (i64.const {i}))) (if (i64.eqz (local.get $l{i})) (then (nop)))"
    for i in range(150)
)
BIG_LOCALS = " ".join(f"(local $l{i} i64)" for i in range(150))

PROGRAMS: dict[str, tuple[str, list[Call]]] = {
    "blocks_and_operands": (
        """(func (export "run") (param i32) (result i32) (local i64 f32 f64)
             (i32.add (i32.const 7) (block $b (result i32)
               (local.set 1 (i64.extend_i32_u (local.get 0)))
               (i32.add (i32.const 3) (block (result i32) (br_if $b (i32.const 9) (i32.eqz (local.get 0))) (drop)
                 (i32.const 4)))))
             (local.set 2 (f32.const 1.5)) (local.set 3 (f64.promote_f32 (local.get 2))))""",
        [("run", [0]), ("run", [5])],
    ),
    "multi_value": (
        """(type $t (func (param i32 i64) (result i64 i32)))
           (func $swap (param i32 i64) (result i64 i32) (local.get 1) (local.get 0))
           (func (export "run") (param i32) (result i32)
             (i64.const 77) (local.get 0) (i64.const 5)
             (block (type $t) (if (type $t) (i32.const 1) (then (call $swap)) (else (drop) (drop) (i64.const 0) (i32.const 0))))
             (loop (param i64 i32) (result i32) (drop) (i32.wrap_i64))
             (loop $l (param i32) (result i32) (i32.const 1) (i32.add) (br_if $l (i32.lt_u (local.tee 0 (i32.add (local.get 0)
               (i32.const 1))) (i32.const 4))))
             (drop) (i32.wrap_i64))""",
        [("run", [1])],
    ),
    "catches": (
        EXN
        + """(func $a (param i32) (if (local.get 0) (then (throw $e (local.get 0)))) (throw $f))
             (func $b (param i32) (i32.const 8) (call $a (local.get 0)) (drop))
             (func $own (param i32) (result i32) (try_table (result i32) (catch $e 0) (call $b (local.get 0)) (i32.const 5)))
             (func $all (param i32) (result i32) (block (try_table (catch_all 0) (call $b (local.get 0)))) (i32.const 99))
             (func $loops (param i32) (result i32) (local $n i32)
               (i32.const 31)
               (loop $l
                 (local.set $n (i32.add (local.get $n) (i32.const 1)))
                 (if (i32.gt_u (local.get $n) (i32.const 3)) (then (return (local.get $n))))
                 (try_table (catch_all $l) (call $b (local.get 0))))
               (drop) (i32.const 6))
             (func (export "own") (param i32) (result i32) (call $own (local.get 0)))
             (func (export "all") (param i32) (result i32) (i32.add (i32.const 1) (call $all (local.get 0))))
             (func (export "loops") (param i32) (result i32) (call $loops (local.get 0)))
             (func (export "refs") (param i32) (result i32) (local $x exnref)
               (block $h (result exnref) (try_table (catch_all_ref $h) (call $b (local.get 0))) (ref.null exn))
               (local.set $x)
               (block $g (result i32 exnref)
                 (try_table (catch_ref $e $g) (throw_ref (local.get $x))) (unreachable))
               (drop))
             (func (export "uncaught") (call $b (i32.const 4)))""",
        [("own", [3]), ("all", [0]), ("all", [7]), ("loops", [2]), ("refs", [6]), ("uncaught", []), ("all", [0])],
    ),
    "branches_to_landings": (
        EXN
        + """(func $f (param i32) (result i32)
               (block $h (block $k
                 (try_table (catch_all $h) (br_if $h (local.get 0)) (if (i32.const 1) (then (br_table $h $k $h
                    (i32.const 1)))) (throw $f)))
                 (nop))
               (loop $l (local.set 0 (i32.add (local.get 0) (i32.const 1)))
                 (if (i32.lt_u (local.get 0) (i32.const 4)) (then (nop) (br $l)))
                 (block (br_if $l (i32.eq (local.get 0) (i32.const 4))) (nop))
                 (try_table (catch_all $l) (if (i32.lt_u (local.get 0) (i32.const 7)) (then (throw $f)))))
               (block $n (try_table (catch_all $n) (drop (br_on_null $n (ref.null func)))) (nop))
               (block $m (result (ref func)) (block $mm (try_table (catch_all $mm)
                 (br_on_non_null $m (ref.func $f)) (nop))) (ref.func $f)) (drop)
               (if $i (local.get 0) (then (nop) (try_table (catch_all $i) (throw $f))))
               (if $j (i32.eqz (local.get 0)) (then (try_table (catch_all $j) (nop))) (else (nop) (br $j)))
               (block $own (br_if 1 (i32.const 5) (i32.eq (local.get 0) (i32.const 8))) (drop)
                 (br 1 (try_table (result i32) (catch $e 1) (i32.const 6)))) (i32.const 9))
             (elem declare func $f)
             (func (export "run") (param i32) (result i32) (i32.add (call $f (local.get 0)) (i32.const 1)))""",
        [("run", [0]), ("run", [1]), ("run", [7])],
    ),
    "tail_calls": (
        """(type $t (func (param i32 i32) (result i32))) (table funcref (elem $even $odd)) (elem declare func $odd)
           (func $even (type $t) (if (i32.eqz (local.get 0)) (then (return (i32.const 1))))
             (return_call $odd (i32.sub (local.get 0) (i32.const 1)) (local.get 1)))
           (func $odd (type $t) (if (i32.eqz (local.get 0)) (then (return (i32.const 0))))
             (return_call_indirect (type $t) (i32.sub (local.get 0) (i32.const 1)) (local.get 1) (i32.const 0)))
           (func $third (type $t) (return_call_ref $t (local.get 0) (local.get 1) (ref.func $odd)))
           (func (export "run") (param i32) (result i32)
             (i32.add (call $even (local.get 0) (i32.const 3)) (i32.add (i32.const 50) (call $third (local.get 0)
               (i32.const 4)))))""",
        [("run", [4])],
    ),
    "references": (
        """(type $t (func (param i32) (result i32)))
           (table $t1 4 10 funcref) (table $x 3 9 externref) (table $typed 2 (ref null $t))
           (elem $e func $inc $dec) (elem declare func $inc $dec) (global $g (mut funcref) (ref.null func))
           (func $inc (type $t) (i32.add (local.get 0) (i32.const 1)))
           (func $dec (type $t) (i32.sub (local.get 0) (i32.const 1)))
           (func (export "run") (param i32) (result i32) (local $f funcref) (local $y externref) (local $r (ref $t)) (local $n
             (ref null $t))
             (table.init $t1 $e (i32.const 0) (i32.const 0) (i32.const 2)) (elem.drop $e)
             (local.set $f (table.get $t1 (i32.const 1)))
             (global.set $g (local.get $f)) (table.set $t1 (i32.const 3) (global.get $g))
             (drop (table.grow $t1 (local.get $f) (i32.const 2))) (table.fill $t1 (i32.const 4) (ref.null func) (i32.const 1))
             (table.copy $t1 $t1 (i32.const 2) (i32.const 0) (i32.const 2))
             (drop (table.grow $x (local.get $y) (i32.const 1)))
             (local.set $r (ref.func $inc)) (local.set $n (local.get $r))
             (table.set $typed (i32.const 0) (local.get $r))
             (local.get 0) (local.get $r)
             (block (param i32 (ref $t)) (result i32) (call_ref $t))
             (block $null (result i32)
               (block $z (br_on_null $z (table.get $typed (i32.const 1))) (drop))
               (block $some (result (ref $t)) (br_on_non_null $some (local.get $n)) (unreachable))
               (drop) (ref.is_null (select (result funcref) (local.get $f) (ref.null func) (local.get 0))))
             (i32.add) (i32.add (ref.is_null (ref.as_non_null (local.get $n))))
             (i32.add (i32.add (table.size $t1) (table.size $x)))
             (i32.add (call_indirect $t1 (type $t) (local.get 0) (i32.const 3)))
             (i32.add (i32.const 1) (call_ref $t (i32.const 6) (local.get $r)))
             (i32.add))""",
        [("run", [1]), ("run", [0])],
    ),
    "a_reference_set_behind_a_store": (
        MEMORY
        + """(type $t (func (result i32))) (elem declare func $k)
           (func $k (type $t) (i32.const 12)) (func $make (result (ref $t)) (ref.func $k))
           (func (export "run") (result i32) (local $r (ref $t))
             (call $make) (i32.store (i32.const 4) (i32.const 9)) (local.set $r) (i32.store (i32.const 8) (i32.const 1))
             (call_ref $t (local.get $r)))""",
        [("run", [])],
    ),
    "memories": (
        """(memory $a (export "memory") 1 3) (memory $b 1 2) (memory $w i64 1 4) (data $d "twelve bytes")
           (global $g (mut i64) (i64.const 1)) (global $h (mut f32) (f32.const 2)) (global $i (mut i32) (i32.const 3))
           (func (export "run") (param i32) (result i32) (local i64)
             (i32.store8 $a (i32.const 1) (i32.const 300)) (i32.store16 $b offset=7 (local.get 0) (i32.const 77777))
             (i64.store $w offset=9 (i64.const 100) (i64.const -2)) (i64.store8 $a (i32.const 33) (i64.const 258))
             (i64.store16 $a (i32.const 34) (i64.const 66000)) (i64.store32 $a (i32.const 37) (i64.const -5))
             (f32.store $a (i32.const 44) (f32.const 1.25)) (f64.store $b (i32.const 48) (f64.const -9.5))
             (memory.init $b $d (i32.const 200) (i32.const 2) (i32.const 5)) (data.drop $d)
             (memory.copy $a $b (i32.const 100) (i32.const 200) (i32.const 6))
             (memory.copy $w $a (i64.const 500) (i32.const 30) (i32.const 16))
             (memory.copy $a $w (i32.const 700) (i64.const 500) (i32.const 16))
             (memory.copy $w $w (i64.const 502) (i64.const 500) (i64.const 16))
             (memory.fill $w (i64.const 800) (i32.const 170) (i64.const 20)) (memory.fill $b (i32.const 9) (i32.const 3)
               (i32.const 0))
             (drop (memory.grow $w (i64.const 1))) (drop (memory.grow $b (i32.const 5))) (drop (memory.grow $a (i32.const 1)))
             (i32.store $a (i32.const 65540) (i32.const 42))
             (global.set $g (i64.add (global.get $g) (i64.load $w (i64.const 109)))) (global.set $h (f32.sqrt (global.get $h)))
             (global.set $i (memory.size $b))
             (i32.add (i32.load $a (i32.const 65540)) (i32.wrap_i64 (memory.size $w))))""",
        [("run", [3])],
    ),
    "simd": (
        MEMORY
        + f"""(func (export "run") (param i32) (result i32) (local $v v128)
           (i64.store (i32.const 0) (i64.const 0x0102030405060708)) (i64.store (i32.const 8) (i64.const -3))
           (local.set $v (i32x4.splat (local.get 0))) (v128.store offset=4 (i32.const 100) (local.get $v))
           {LOADS} {LANES}
           (local.set $v (v128.bitselect (local.get $v) (v128.const i64x2 1 2)
             (i8x16.shuffle 0 1 2 3 4 5 6 7 8 9 10 11 12 13 30 31 (local.get $v) (local.get $v))))
           (local.get $v)
           (block (result v128) (local.set $v (f32x4.relaxed_madd (local.get $v) (local.get $v) (local.get $v))) (local.get $v))
           (i32.add (i32x4.extract_lane 1) (i32.const 5)) (local.set 0)
           (local.set $v (i8x16.replace_lane 3 (local.get $v) (local.get 0)))
           (local.set 0 (i32.add (i8x16.bitmask (local.get $v)) (v128.any_true (local.get $v))))
           (drop) (i64x2.all_true (f64x2.promote_low_f32x4 (i32x4.dot_i16x8_s (local.get $v) (local.get $v)))))""",
        [("run", [7])],
    ),
    "wide_arithmetic": (
        """(func (export "run") (param i64 i64) (result i64)
             (i64.add128 (local.get 0) (local.get 1) (local.get 1) (i64.const 5)) (i64.xor)
             (i64.sub128 (local.get 0) (local.get 1) (local.get 1) (i64.const 5)) (i64.xor) (i64.xor)
             (i64.mul_wide_s (local.get 0) (local.get 1)) (i64.xor) (i64.xor)
             (i64.mul_wide_u (local.get 0) (local.get 1)) (i64.xor) (i64.xor))""",
        [("run", [1 << 63, 12345678901234567])],
    ),
    "unreachable_code": (
        """(func $f (param i32) (result i32)
             (block $a (br $a) (drop (i32.const 1)) (loop (br 0)) (if (then (unreachable)) (else (nop))))
             (block $b (result i32) (br_if 0 (i32.const 1) (local.get 0)) (return (i32.const 2)) (i32.add) (br_table 0 0))
             (if (result i32) (then (return (i32.const 4)) (block (br 0))) (else (br 0 (i32.const 8)) (drop)))
             (block (loop (br 1) (block)) (nop) (loop (return (i32.const 5))) (nop)))
           (func (export "run") (param i32) (result i32) (call $f (local.get 0)) (return) (unreachable) (drop) (call $f
             (i32.const 1)))
           (func (export "dies") (call 0 (i32.const 0)) (unreachable) (block (unreachable)))""",
        [("run", [0]), ("run", [1]), ("dies", [])],
    ),
    "empty_and_short": (
        """(func $empty) (func $only (call $empty)) (func $two (call $only) (block (call $only)))
           (func $value (result i32) (call $const)) (func $const (result i32) (i32.const 4))
           (func (export "empty")) (func (export "run") (result i32) (call $empty) (call $two) (block (block (block
             (call $only)))) (call $value))""",
        [("empty", []), ("run", []), ("empty", [])],
    ),
    "branches": (
        """(func (export "run") (param i32) (result i32) (local i32)
             (block $o (block $a (block $b (block $c
               (br_table $a $b $a $c $o $b (local.get 0)))
               (local.set 1 (i32.const 1)) (br $o))
               (local.set 1 (i32.const 2)))
               (local.set 1 (i32.add (local.get 1) (i32.const 16))))
             (block (block (block (br_if 2 (local.get 0)))))
             (loop $l (local.set 0 (i32.sub (local.get 0) (i32.const 1))) (block (br_if $l (i32.gt_s (local.get 0)
               (i32.const 0)))))
             (if (local.get 1) (then (local.set 0 (i32.const 3))))
             (if (local.get 0) (then) (else))
             (select (local.get 0) (local.get 1) (i32.const 0)))""",
        [("run", [n]) for n in (0, 1, 2, 3, 4, 9)],
    ),
    "operands_under_calls": (
        """(func $id (param i64) (result i64) (i64.add (i64.const 1) (block (result i64) (local.get 0))))
           (func $rec (param i32) (result i64) (i64.const 5) (local.get 0)
             (if (param i64) (result i64) (then (i64.extend_i32_u (local.get 0)) (call $rec (i32.sub (local.get 0)
               (i32.const 1))) (i64.add) (i64.mul)))
             (f64.const 2.5) (call $id (i64.const 8)) (drop) (drop))
           (func (export "run") (result i64) (i32.const 1) (f32.const 2) (call $rec (i32.const 2)) (local.set 0) (drop) (drop)
             (local.get 0))""".replace(
            '(export "run") (result i64)', '(export "run") (result i64) (local i64)'
        ),
        [("run", [])],
    ),
    "operands_under_ifs": (
        """(func $g (param i32) (result i32) (i64.const 3) (if (local.get 0) (then (nop))) (drop) (local.get 0))
           (func (export "run") (param i32) (result i32)
             (i32.const 11) (f64.const 2.5)
             (if (result i32) (local.get 0) (then (nop) (call $g (i32.const 1))) (else (i32.const 2) (call $g) (nop)))
             (br_if 0 (i32.eq (local.get 0) (i32.const 7))) (local.set 0) (drop) (i32.add (local.get 0)))""",
        [("run", [0]), ("run", [1]), ("run", [7])],
    ),
    "many_locals": (
        f"""(func (export "run") (param i64) (result i64) (local {"i64 " * MANY})
             {" ".join(f"(local.set {i} (i64.add (local.get {i - 1}) (i64.const 1)))" for i in range(1, MANY, 3))}
             (i64.add (local.get {MANY - 1}) (local.get 0)))""",
        [("run", [3])],
    ),
    "mirrored": (
        EXN
        + MEMORY
        + f"""(func $big (param $n i64) (result i64) {BIG_LOCALS}
             (i64.store (i32.const 8) (local.get $n))
             (local.set $l3 (local.get $n)) (i64.const 70) (block (param i64) (result i64) {BIG})
             (if (i64.eqz (local.get $n)) (then (throw $e (i32.const 5))))
             (i64.add (call $big (i64.sub (local.get $n) (i64.const 1)))))
           (func $catcher (param $n i64) (result i32)
             (drop (block $c (result i32) (try_table (catch $e $c) (drop (call $big (local.get $n)))) (i32.const 3)))
               (i32.const 4))
           (func (export "run") (param i64) (result i32)
             (i32.add (call $catcher (local.get 0)) (call $catcher (i64.const 0))))""",
        [("run", [1])],
    ),
    "started": (
        MEMORY
        + """(func $s (i32.store (i32.const 16) (i32.const 5))) (start $s)
             (func (export "run") (result i32) (i32.load (i32.const 16)))""",
        [("run", [])],
    ),
    "traps_in_between": (
        MEMORY
        + """(global $g (mut i32) (i32.const 0))
             (func (export "run") (param i32) (result i32) (global.set $g (i32.add (global.get $g) (i32.const 1)))
               (i32.store (local.get 0) (i32.const 77)) (i32.const 9) (i32.div_u (i32.const 8) (i32.sub (local.get 0)
                 (i32.const 4))) (i32.add))""",
        [("run", [8]), ("run", [4])],
    ),
    "numbers": (
        """(func (export "run") (param i32 i64 f32 f64) (result f64)
            (local.set 0 (i32.rotl (i32.popcnt (local.get 0)) (i32.clz (local.get 0))))
            (local.set 1 (i64.shr_s (i64.extend8_s (local.get 1)) (i64.ctz (local.get 1))))
            (local.set 2 (f32.div (f32.nearest (local.get 2)) (f32.convert_i64_u (local.get 1))))
            (local.set 3 (f64.max (f64.min (local.get 3) (f64.promote_f32 (local.get 2))) (f64.copysign (f64.const 3)
              (f64.const -0.0))))
            (local.set 0 (i32.trunc_sat_f64_s (local.get 3)))
            (f64.add (f64.convert_i32_s (i32.rem_s (local.get 0) (i32.const 7))) (f64.reinterpret_i64
              (i64.const 4607182418800017408))))""",
        [("run", [0xF0F0, 0x1234567890, 0x40490FDB, 0x400921FB54442D18])],
    ),
}  # fmt: skip
BEYOND_THE_INTERPRETER = {"simd"}
TRAPPING = {"traps_in_between", "references"}
EVERY = 60
"""Instructions up to which every one is looked at; of longer runs, that many are picked."""


@pytest.mark.parametrize("name", PROGRAMS)
def test_every_instruction_of_a_program_written_by_hand(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text, wanted = PROGRAMS[name]
    wasm = assemble(f"(module {text})")
    try:
        machine, states = interpreted(wasm, wanted)
        assert name not in BEYOND_THE_INTERPRETER
        total = machine.clock
    except UnknownError:
        assert name in BEYOND_THE_INTERPRETER
        states = []
    with bench(wasm, wanted, tmp_path) as coarse, bench(wasm, wanted, tmp_path, fine=True) as fine:
        for found in (coarse, fine):
            assert found.end["verdict"]["verdict"] == "identical"
        assert set(fine.twin.stretches.counts) <= {0, 1}
        if states:
            # A trap inside a stretch takes the clock of the last moment that was exact.
            assert fine.end["clock"] == total or name in TRAPPING
        total = len(states) or fine.end["clock"]
        assert total > 0
        step = max(1, total // EVERY)
        clocks = range(0, total, step)
        seen: dict[int, State] = {}
        for clock, state in coarse.states(clocks):
            seen[clock] = state
            if states:
                assert not (wrong := differences(states[clock], state)), f"before instruction {clock}: {wrong}"
        for clock, state in fine.states(clocks):
            assert not (wrong := differences(seen[clock], state)), f"fine and coarse, before instruction {clock}: {wrong}"
    monkeypatch.setattr(twin, "QUADRATIC", -1)
    with bench(wasm, wanted, tmp_path) as mirroring:
        assert len(mirroring.twin.mirrored) == len(parse_module(wasm).code)
        for clock, state in mirroring.states([clock for clock in clocks if clock in seen]):
            assert not (wrong := differences(seen[clock], state)), f"mirrored, before instruction {clock}: {wrong}"
