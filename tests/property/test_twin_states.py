"""Any program, stopped before any instruction, shows the state an interpreter has there; and tells everything it wrote.

Hypothesis makes up programs as folded text: expressions of every numeric type with blocks, loops, exceptions and calls inside
them, so that operands stand under whatever can happen. They are recorded, and their guests are looked at in worker processes,
through a coarse twin, a fine one, and one that mirrors every local.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from unittest import mock

import wasmtime
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from replayer import twin
from tests.twin_kit import Interpreter, State, TrapError, bench, differences, interpreted

TYPES = ("i32", "i64", "f32", "f64")
FUNCTIONS = 4
LOCALS = {"i32": 3, "i64": 2, "f32": 1, "f64": 1}
COUNTERS = 6
MOST_STEPS = 1500
SIGNATURES = (("i32", "i32"), ("i32 i64", "i64"), ("i32", "i32 i64"), ("i32 f64", ""))
"""Parameters and results of each function."""
UNARY = {
    "i32": ["i32.clz", "i32.eqz", "i32.extend8_s"], "i64": ["i64.popcnt", "i64.extend32_s"],
    "f32": ["f32.abs", "f32.neg", "f32.sqrt"], "f64": ["f64.nearest", "f64.floor"],
}  # fmt: skip
BINARY = {
    "i32": ["i32.add", "i32.sub", "i32.mul", "i32.and", "i32.xor", "i32.rotl", "i32.lt_s", "i32.ge_u"],
    "i64": ["i64.add", "i64.sub", "i64.xor", "i64.shr_s", "i64.or"],
    "f32": ["f32.add", "f32.mul", "f32.min"], "f64": ["f64.add", "f64.div", "f64.copysign"],
}  # fmt: skip
CONVERSIONS = {
    "i32": [("i32.wrap_i64", "i64"), ("i32.trunc_sat_f64_s", "f64"), ("f64.lt", "f64 f64"), ("i64.gt_u", "i64 i64")],
    "i64": [("i64.extend_i32_s", "i32"), ("i64.trunc_sat_f32_u", "f32")],
    "f32": [("f32.convert_i32_s", "i32"), ("f32.demote_f64", "f64")],
    "f64": [("f64.convert_i64_u", "i64"), ("f64.promote_f32", "f32")],
}


@dataclass
class Maker:
    """One function being made up."""

    draw: st.DrawFn
    function: int
    labels: list[tuple[str, str]] = field(default_factory=list)
    """Name and type (or none) that a branch there takes."""
    made: int = 0
    loops: int = 0

    def pick(self, *options: str) -> str:
        return self.draw(st.sampled_from(options))

    def number(self, low: int, high: int) -> int:
        return self.draw(st.integers(low, high))

    def local(self, kind: str) -> str:
        return f"${kind}{self.number(0, LOCALS[kind] - 1)}"

    def label(self, kind: str) -> str:
        name = f"$b{self.made}"
        self.made += 1
        self.labels.append((name, kind))
        return name

    def target(self, kind: str) -> str | None:
        found = [name for name, taken in self.labels if taken == kind]
        return self.draw(st.sampled_from(found)) if found else None

    # -- expressions

    def expression(self, kind: str, deep: int) -> str:
        plain = ["const", "get", "get", "tee", "unary", "binary", "binary", "convert"]
        rich = [
            "block",
            "block",
            "if",
            "select",
            "br_if",
            "load",
            "call",
            "loop",
            "try",
            "params",
            "global",
            "size",
            "return",
            "statement",
        ]
        what = self.pick(*(plain[:3] if deep <= 0 else plain + rich))
        if what == "const":
            return self.constant(kind)
        if what == "get":
            return f"(local.get {self.local(kind)})"
        if what == "tee":
            return f"(local.tee {self.local(kind)} {self.expression(kind, deep - 1)})"
        if what == "unary":
            return f"({self.pick(*UNARY[kind])} {self.expression(kind, deep - 1)})"
        if what == "binary":
            return f"({self.pick(*BINARY[kind])} {self.expression(kind, deep - 1)} {self.expression(kind, deep - 1)})"
        if what == "convert":
            name, taken = self.draw(st.sampled_from(CONVERSIONS[kind]))
            return f"({name} {' '.join(self.expression(t, deep - 1) for t in taken.split())})"
        return self.rich(what, kind, deep - 1)

    def constant(self, kind: str) -> str:
        if kind[0] == "i":
            return f"({kind}.const {self.number(-(1 << 31), (1 << 31) - 1) if self.number(0, 3) == 0 else self.number(-2, 70)})"
        return f"({kind}.const {self.number(-40, 40)}.5)"

    def rich(self, what: str, kind: str, deep: int) -> str:
        expression = self.expression
        if what == "block":
            name = self.label(kind)
            body = f"(block {name} (result {kind}) {self.statements(deep)} {expression(kind, deep)})"
            self.labels.pop()
            return body
        if what == "params":
            other = self.pick(*TYPES)
            given = f"{expression(kind, deep)} {expression(other, deep)}"
            name = self.label(kind)
            body = f"(drop) {self.statements(deep)}" + (f"(drop) {expression(kind, deep)}" if self.number(0, 1) else "")
            self.labels.pop()
            return f"{given} (block {name} (param {kind} {other}) (result {kind}) {body})"
        if what == "loop":
            counter, name = f"$c{self.number(0, COUNTERS - 1)}", f"$l{self.made}"
            self.made += 1
            given = expression(kind, deep)
            less = f"(local.tee {counter} (i32.sub (local.get {counter}) (i32.const 1)))"
            body = f"{self.statements(deep)} (br_if {name} (i32.gt_s {less} (i32.const 0)))"
            first = f"{given} (local.set {counter} (i32.const {self.number(0, 3)}))"
            return f"{first} (loop {name} (param {kind}) (result {kind}) {body})"
        if what == "if":
            condition, name = expression("i32", deep), self.label(kind)
            then, otherwise = expression(kind, deep), f"{self.statements(deep)} {expression(kind, deep)}"
            text = f"(if {name} (result {kind}) {condition} (then {then}) (else {otherwise}))"
            self.labels.pop()
            return text
        if what == "try":
            return self.trying(kind, deep)
        if what == "select":
            return f"(select {expression(kind, deep)} {expression(kind, deep)} {expression('i32', deep)})"
        if what == "br_if":
            name = self.target(kind) or ""
            return f"(br_if {name} {expression(kind, deep)} {expression('i32', deep)})" if name else expression(kind, deep)
        if what == "load":
            memory = self.pick("$a", "$w")
            return f"({kind}.load {memory} offset={self.number(0, 9)} {self.address(memory, deep)})"
        if what == "global":
            return f"(global.get ${kind}g)"
        if what == "size" and kind == "i64":
            return f"(memory.{self.pick('size $w)', 'grow $w (i64.const 1))')}"
        if what == "call":
            return self.call(kind, deep)
        if what == "return" and SIGNATURES[self.function][1] == kind:
            then, otherwise = f"(return {expression(kind, deep)})", expression(kind, deep)
            return f"(if (result {kind}) {expression('i32', deep)} (then {then}) (else {otherwise}))"
        return f"{self.statements(deep)} {expression(kind, deep)}"

    def trying(self, kind: str, deep: int) -> str:
        """Every kind of catch clause, to a block around it."""
        name, clause = self.label(kind), self.pick("catch", "catch_all", "catch_ref", "catch_all_ref")
        inside = f"{self.statements(deep)} {self.expression(kind, deep)}"
        self.labels.pop()
        results = {"catch": "i32", "catch_all": "", "catch_ref": "i32 exnref", "catch_all_ref": "exnref"}[clause]
        tag = " $e" if clause in ("catch", "catch_ref") else ""
        after = "(drop)" * len(results.split())
        if clause == "catch_all_ref" and self.number(0, 1):
            after = "(local.set $x) (if (i32.eqz (local.get $i320)) (then (throw_ref (local.get $x))))"
        handler = f"$h{self.made}"
        self.made += 1
        body = f"(br {name} (try_table (result {kind}) ({clause}{tag} {handler}) {inside}))"
        return f"(block {name} (result {kind}) (block {handler} (result {results}) {body}) {after} {self.expression(kind, deep)})"

    def call(self, kind: str, deep: int) -> str:
        callees = [i for i in range(self.function + 1, FUNCTIONS) if kind in SIGNATURES[i][1].split()]
        if not callees:
            return self.expression(kind, deep)
        callee = self.draw(st.sampled_from(callees))
        params, results = SIGNATURES[callee]
        args = " ".join(self.expression(t, deep) for t in params.split())
        how = self.pick("direct", "indirect", "ref")
        if how == "direct":
            called = f"{args} (call {callee})"
        elif how == "indirect":
            called = f"{args} (i32.const {callee}) (call_indirect (type $t{callee}))"
        else:
            called = f"{args} (ref.func {callee}) (call_ref $t{callee})"
        # Of several results, only the one that is wanted stays.
        position = results.split().index(kind)
        behind = results.split()[position + 1 :]
        before = results.split()[:position]
        called += "(drop)" * len(behind)
        if before:
            called = f"(block (result {kind}) {called} (local.set ${kind}0) {'(drop)' * len(before)} (local.get ${kind}0))"
        return called

    def address(self, memory: str, deep: int) -> str:
        if memory == "$a":
            return f"(i32.and {self.expression('i32', deep)} (i32.const 0x7f))"
        return f"(i64.and {self.expression('i64', deep)} (i64.const 0x7f))"

    # -- statements

    def statements(self, deep: int) -> str:
        return " ".join(self.statement(deep) for _ in range(self.number(0, 2))) if deep > 0 else ""

    def statement(self, deep: int) -> str:
        kind = self.pick(*TYPES)
        expression = self.expression
        what = self.pick(
            "set", "store", "store", "store8", "global", "bulk", "drop", "if", "block", "br", "br_table", "throw", "tail", "nop"
        )
        if what == "set":
            return f"(local.set {self.local(kind)} {expression(kind, deep - 1)})"
        if what in ("store", "store8"):
            memory = self.pick("$a", "$w")
            name = f"{kind}.store" + ("8" if what == "store8" and kind[0] == "i" else "")
            return f"({name} {memory} offset={self.number(0, 200)} {self.address(memory, deep - 1)} {expression(kind, deep - 1)})"
        if what == "global":
            return f"(global.set ${kind}g {expression(kind, deep - 1)})"
        if what == "bulk":
            size = self.number(0, 9)
            return self.pick(
                f"(memory.fill $a {self.address('$a', deep - 1)} (i32.const 165) (i32.const {size}))",
                f"(memory.copy $w $a {self.address('$w', deep - 1)} (i32.const 3) (i32.const {size}))",
                f"(memory.init $a $d {self.address('$a', deep - 1)} (i32.const 1) (i32.const {size}))",
            )
        if what == "drop":
            return f"(drop {expression(kind, deep - 1)})"
        if what == "if":
            return f"(if {expression('i32', deep - 1)} (then {self.statements(deep - 1)}) (else {self.statements(deep - 1)}))"
        if what == "block":
            name = self.label("")
            body = f"(block {name} {self.statements(deep - 1)})"
            self.labels.pop()
            return body
        target = self.target("")
        if what == "br" and target:
            return f"(if {expression('i32', deep - 1)} (then (br {target}) (drop (i32.const 3))))"
        if what == "br_table" and target:
            out, other = f"$out{self.made}", self.target("")
            return f"(block {out} (br_table {target} {out} {other} {out} {expression('i32', deep - 1)}) (nop))"
        if what == "throw":
            return f"(if {expression('i32', deep - 1)} (then {self.pick('(throw $e (i32.const 6))', '(throw $f)')}))"
        if what == "tail":
            wanted = SIGNATURES[self.function][1]
            same = [i for i in range(self.function + 1, FUNCTIONS) if SIGNATURES[i][1] == wanted]
            if same:
                args = " ".join(expression(t, deep - 1) for t in SIGNATURES[same[0]][0].split())
                return f"(if (i32.eqz {expression('i32', deep - 1)}) (then (return_call {same[0]} {args})))"
        return "(nop)"


@st.composite
def programs(draw: st.DrawFn) -> str:
    functions = []
    for index, (params, results) in enumerate(SIGNATURES):
        maker = Maker(draw, index)
        body = maker.statements(3) + " ".join(maker.expression(t, 4 if index < 2 else 3) for t in results.split())
        # Parameters are named as the locals of their type, from the last one down.
        named, left = [], dict(LOCALS)
        for t in params.split():
            left[t] -= 1
            named.append(f"(param ${t}{left[t]} {t})")
        others = " ".join(f"(local ${t}{i} {t})" for t, count in left.items() for i in range(count))
        counters = " ".join(f"(local $c{i} i32)" for i in range(COUNTERS))
        result = f"(result {results})" if results else ""
        functions.append(
            f"(func $f{index} (type $t{index}) {' '.join(named)} {result} {others} {counters} (local $x exnref) {body})"
        )
    types = " ".join(f"(type $t{i} (func (param {p}) (result {r})))" for i, (p, r) in enumerate(SIGNATURES))
    return f"""(module {types} (tag $e (param i32)) (tag $f) (memory $a (export "memory") 1) (memory $w i64 1 3)
      (data $d "some bytes of data")
      (global $i32g (mut i32) (i32.const 1)) (global $i64g (mut i64) (i64.const 2)) (global $f32g (mut f32) (f32.const 3))
      (global $f64g (mut f64) (f64.const 4)) (table funcref (elem {" ".join(f"$f{i}" for i in range(FUNCTIONS))}))
      {" ".join(functions)}
      (func (export "run") (param i32) (result i32) (local i32)
        (i32.const 77) (block $c (try_table (catch_all $c) (local.set 1 (call $f0 (local.get 0))))) (drop) (local.get 1)))"""


CALLS = [("run", [5]), ("run", [0])]


@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(programs(), st.data())
def test_every_twin_shows_what_the_interpreter_has(text: str, data: st.DataObject) -> None:
    wasm = bytes(wasmtime.wat2wasm(text))
    machine, states = bounded(wasm)
    picked = sorted(data.draw(st.sets(st.integers(0, len(states) - 1), min_size=1, max_size=40), label="instructions"))
    low, high = sorted((picked[0], data.draw(st.integers(0, len(states)), label="end")))
    with tempfile.TemporaryDirectory() as place:
        for quadratic, fine in ((twin.QUADRATIC, False), (-1, False), (twin.QUADRATIC, True)):
            with mock.patch.object(twin, "QUADRATIC", quadratic), bench(wasm, CALLS, Path(place), fine=fine) as found:
                assert bool(found.twin.mirrored) == (quadratic < 0)
                end = found.end
                assert end["verdict"]["verdict"] == "identical"
                assert end["clock"] == machine.clock
                for clock, state in found.states(picked):
                    assert not (wrong := differences(states[clock], state)), f"before instruction {clock}: {wrong}"
                with found.at(low) as moment:
                    hits = moment.scan({"memory": [-1, 0, 2**63 - 1], "keep": "all", "most": 10**6, "low": low, "high": high})
                memories = [bytearray(memory) for memory in states[low].memories]
                for _, _, _, _, memory, address, written, _ in hits:
                    new = bytes.fromhex(written)
                    memories[memory].extend(bytes(max(0, address + len(new) - len(memories[memory]))))
                    memories[memory][address : address + len(new)] = new
                if high < len(states):
                    for was, now in zip(memories, states[high].memories, strict=True):
                        assert bytes(was).rstrip(b"\0") == now.rstrip(b"\0")
                told = [(clock, memory, address, bytes.fromhex(written)) for clock, _, _, _, memory, address, written, _ in hits]
                assert told == [write for write in machine.writes if low <= write[0] < high and write[3]]
                assert all(pc == states[clock].frames[0][1] for clock, pc, *_ in hits)


def bounded(wasm: bytes) -> tuple[Interpreter, list[State]]:
    """The interpreter's run, if it is short enough."""
    machine = Interpreter(wasm)

    def look(machine: Interpreter) -> None:
        assume(machine.clock < MOST_STEPS)

    try:
        for name, args in CALLS:
            machine.invoke(name, args, look)
    except TrapError:
        assume(False)
    return interpreted(wasm, CALLS)
