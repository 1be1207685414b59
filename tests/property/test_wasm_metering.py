"""The instruction clock against an interpreter that has never seen a binary.

Hypothesis makes up small programs as nested Python tuples. One path prints them as text, lets wasmtime encode
them, meters the bytes and runs the result; the other interprets the tuples and counts. Results, memory and
clock must agree, at the end and at stops in the middle.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from typing import Any

import wasmtime
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from wasmtime._bindings import wasmtime_config_wasm_branch_hinting_set

from recorder.wasm.metering import NO_LIMIT, STOP_WORD, STOPPED_FLAG, Metered, meter

FUNCTIONS = 3
VARIABLES = 3
DEEPEST = 4
"""Blocks inside blocks; every loop level has a counter of its own, in the locals behind the variables."""
MOST_STEPS = 20_000
MEMORY = 256
"""Bytes of memory that programs touch."""

Instruction = tuple[Any, ...]
Code = list[Instruction]


def _engine() -> wasmtime.Engine:
    config = wasmtime.Config()
    config.wasm_multi_memory = True
    config.wasm_exceptions = True
    config.wasm_tail_call = True
    wasmtime_config_wasm_branch_hinting_set(config.ptr(), True)
    return wasmtime.Engine(config)


ENGINE = _engine()


# --- programs


@st.composite
def statements(draw: st.DrawFn, function: int, labels: tuple[str, ...]) -> Code:
    """Code that leaves the operand stack as it was. `labels` are the enclosing blocks, innermost first."""
    code: Code = []
    for _ in range(draw(st.integers(0, 4))):
        code += draw(statement(function, labels))
    return code


@st.composite
def statement(draw: st.DrawFn, function: int, labels: tuple[str, ...]) -> Code:
    simple = ["set", "set", "store", "load", "br_if", "br_table", "br", "return", "throw"]
    calls = ["call", "call_indirect", "tail"] if function + 1 < FUNCTIONS else []
    nested = ["block", "loop", "if", "if_else", "try", "try"] if len(labels) < DEEPEST else []
    kind = draw(st.sampled_from(simple + calls + nested))
    variable = st.integers(0, VARIABLES - 1)
    get: Code = [("local.get", draw(variable))]
    # A branch back to a loop head is only made by the loop itself, so that every program ends.
    targets = [depth for depth, label in enumerate(labels) if label != "loop"] + [len(labels)]
    target = st.sampled_from(targets)
    if kind == "set":
        operation = draw(st.sampled_from(["i32.add", "i32.sub", "i32.xor"]))
        constant = draw(st.integers(-3, 300))
        return [*get, ("i32.const", constant), (operation,), ("local.set", draw(variable))]
    if kind == "store":
        address: Code = [("local.get", draw(variable)), ("i32.const", MEMORY - 4), ("i32.and",)]
        return [*address, *get, ("i32.store",)]
    if kind == "load":
        return [*get, ("i32.const", MEMORY - 4), ("i32.and",), ("i32.load",), ("local.set", draw(variable))]
    if kind == "br_if":
        return [*get, ("br_if", draw(target))]
    if kind == "br":
        return [("br", draw(target))]
    if kind == "br_table":
        return [*get, ("br_table", *draw(st.lists(target, min_size=1, max_size=3)))]
    if kind in ("return", "throw"):
        return [(kind,)]
    if kind in ("call", "call_indirect", "tail"):
        callee = draw(st.integers(function + 1, FUNCTIONS - 1))
        if kind == "call_indirect":
            return [*get, ("i32.const", callee), ("call_indirect",)]
        return [*get, ("call" if kind == "call" else "return_call", callee)]
    if kind == "loop":
        counter = VARIABLES + len(labels)
        body = draw(statements(function, ("loop", *labels)))
        again: Code = [
            ("local.get", counter),
            ("i32.const", 1),
            ("i32.sub",),
            ("local.tee", counter),
            ("br_if", 0),
        ]
        return [("i32.const", draw(st.integers(1, 3))), ("local.set", counter), ("loop", [*body, *again])]
    if kind == "block":
        return [("block", draw(statements(function, ("block", *labels))))]
    if kind == "try":
        before = draw(statements(function, ("block", *labels)))
        inside = draw(statements(function, ("try", "block", *labels)))
        return [("block", [*before, ("try", inside)])]
    then = draw(statements(function, ("if", *labels)))
    otherwise = draw(statements(function, ("if", *labels))) if kind == "if_else" else None
    return [*get, ("if", then, otherwise)]


@st.composite
def programs(draw: st.DrawFn) -> list[Code]:
    return [draw(statements(function, ())) for function in range(FUNCTIONS)]


def text_of(code: Code) -> str:
    words = []
    for operation, *operands in code:
        if operation in ("block", "loop"):
            words.append(f"{operation} {text_of(operands[0])} end")
        elif operation == "try":
            words.append(f"try_table (catch $e 0) {text_of(operands[0])} end")
        elif operation == "if":
            otherwise = "" if operands[1] is None else f" else {text_of(operands[1])}"
            words.append(f"if {text_of(operands[0])}{otherwise} end")
        elif operation == "throw":
            words.append("throw $e")
        elif operation == "call_indirect":
            words.append("call_indirect (type $t)")
        else:
            words.append(" ".join(map(str, (operation, *operands))))
    return "\n".join(words)


def module_of(program: list[Code]) -> bytes:
    names = " ".join(f"$f{index}" for index in range(FUNCTIONS))
    locals_ = "(local" + " i32" * (VARIABLES + DEEPEST + 1) + ")"
    functions = "".join(f"(func $f{i} (type $t) {locals_} {text_of(code)})" for i, code in enumerate(program))
    return bytes(
        wasmtime.wat2wasm(f"""(module (type $t (func (param i32))) (tag $e) (memory (export "memory") 1)
          (table funcref (elem {names})) {functions}
          (func (export "run") (param i32) (block (try_table (catch $e 0) (call 0 (local.get 0))))))""")
    )


# --- the interpreter


class ThrownError(Exception):
    pass


class StoppedError(Exception):
    pass


@dataclass
class Interpreter:
    program: list[Code]
    limit: int | None = None
    """Stop before the instruction that would make the clock larger than this."""
    clock: int = 0
    memory: bytearray = field(default_factory=lambda: bytearray(MEMORY))

    def run(self, argument: int) -> None:
        self.clock += 4  # block, try_table, local.get, call
        try:
            self.call(0, argument)
        except ThrownError:
            return

    def call(self, function: int, argument: int) -> None:
        while True:
            variables = [argument] + [0] * (VARIABLES + DEEPEST + 1)
            stack: list[int] = []
            self.tail: tuple[int, int] | None = None
            self.block(self.program[function], variables, stack)
            if self.tail is None:
                return
            function, argument = self.tail
            self.tail = None

    def block(self, code: Code, variables: list[int], stack: list[int]) -> int | None:
        """Run code; None when it runs to its end, else how many labels further out it goes on."""
        for operation, *operands in code:
            if self.limit is not None and self.clock >= self.limit:
                raise StoppedError
            self.clock += 1
            assume(self.clock < MOST_STEPS)
            leaving = self.step(operation, operands, variables, stack)
            if leaving is not None:
                return leaving
        return None

    def step(self, operation: str, operands: list[Any], variables: list[int], stack: list[int]) -> int | None:
        match operation:
            case "block":
                return _outwards(self.block(operands[0], variables, stack))
            case "if":
                chosen = operands[0] if stack.pop() else operands[1] or []
                return _outwards(self.block(chosen, variables, stack))
            case "loop":
                while (leaving := self.block(operands[0], variables, stack)) == 0:
                    pass
                return _outwards(leaving)
            case "try":
                try:
                    return _outwards(self.block(operands[0], variables, stack))
                except ThrownError:
                    return 0
            case "br":
                return int(operands[0])
            case "br_if":
                return int(operands[0]) if stack.pop() else None
            case "br_table":
                return int(operands[min(stack.pop(), len(operands) - 1)])
            case "return":
                return 1_000
            case "throw":
                raise ThrownError
            case "return_call":
                self.tail = (operands[0], stack.pop())
                return 1_000
            case "call" | "call_indirect":
                callee = stack.pop() if operation == "call_indirect" else operands[0]
                self.call(callee, stack.pop())
            case _:
                self.compute(operation, operands, variables, stack)
        return None

    def compute(self, operation: str, operands: list[Any], variables: list[int], stack: list[int]) -> None:
        match operation:
            case "local.get":
                stack.append(variables[operands[0]])
            case "local.set":
                variables[operands[0]] = stack.pop()
            case "local.tee":
                variables[operands[0]] = stack[-1]
            case "i32.const":
                stack.append(operands[0] & 0xFFFFFFFF)
            case "i32.load":
                at = stack.pop()
                stack.append(int.from_bytes(self.memory[at : at + 4], "little"))
            case "i32.store":
                value, at = stack.pop(), stack.pop()
                self.memory[at : at + 4] = value.to_bytes(4, "little")
            case _:
                right, left = stack.pop(), stack.pop()
                results = {
                    "i32.add": left + right,
                    "i32.sub": left - right,
                    "i32.xor": left ^ right,
                    "i32.and": left & right,
                }
                stack.append(results[operation] & 0xFFFFFFFF)


def _outwards(leaving: int | None) -> int | None:
    """What leaving an inner block that way means for the block around it."""
    return leaving - 1 if leaving else None


# --- the metered module


@dataclass(frozen=True)
class Outcome:
    clock: int
    memory: bytes
    stopped: bool


def run_metered(metered: Metered, argument: int, limit: int = NO_LIMIT) -> Outcome:
    store = wasmtime.Store(ENGINE)
    exports = wasmtime.Instance(store, wasmtime.Module(ENGINE, metered.data), []).exports(store)
    run, memory = exports["run"], exports["memory"]
    stop, clock = exports[metered.stop_export], exports[metered.clock_export]
    assert isinstance(run, wasmtime.Func)
    assert isinstance(memory, wasmtime.Memory)
    assert isinstance(stop, wasmtime.Memory)
    assert isinstance(clock, wasmtime.Global)
    stop.write(store, limit.to_bytes(8, "little"), STOP_WORD)
    try:
        run(store, argument)
        stopped = False
    except wasmtime.Trap:
        stopped = True
    assert stop.read(store, STOPPED_FLAG, STOPPED_FLAG + 4) == stopped.to_bytes(4, "little")
    return Outcome(int(clock.value(store)), bytes(memory.read(store, 0, MEMORY)), stopped)


@settings(max_examples=300)
@given(programs(), st.integers(0, 5))
def test_the_clock_counts_what_an_interpreter_counts(program: list[Code], argument: int) -> None:
    expected = Interpreter(program)
    expected.run(argument)
    outcome = run_metered(meter(module_of(program)), argument)
    assert outcome == Outcome(expected.clock, bytes(expected.memory), stopped=False)


@settings(max_examples=300)
@given(programs(), st.integers(0, 5), st.data())
def test_a_stop_is_an_exact_place(program: list[Code], argument: int, data: st.DataObject) -> None:
    whole = Interpreter(program)
    whole.run(argument)
    limit = data.draw(st.integers(0, whole.clock), label="limit")
    metered = meter(module_of(program))
    outcome = run_metered(metered, argument, limit)
    if not outcome.stopped:
        assert outcome.clock == whole.clock
        return
    assert outcome.clock >= limit
    assert run_metered(metered, argument, outcome.clock) == outcome
    partial = Interpreter(program, limit=outcome.clock)
    if outcome.clock >= 4:
        with contextlib.suppress(StoppedError):
            partial.run(argument)
        assert outcome.memory == bytes(partial.memory)
