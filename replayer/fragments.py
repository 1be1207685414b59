"""Frames that were written down, and the few instructions between the head of a stretch and the one that is wanted.

A fragment is a tiny module that holds the first instructions of a stretch as they are, with the guest's own memories and globals
and with locals and operands as parameters: so the semantics of every instruction stay the engine's. It runs after the guest's
frames are gone, in a process that is only looked at from then on.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from recorder.boundary.raw import Function
from recorder.wasm import instructions as ops
from recorder.wasm.binary import PREAMBLE, Reader, WasmError, section, uleb, vec
from recorder.wasm.effects import encode_type, is_reference
from recorder.wasm.module import Module
from replayer.support import FOREIGN_FRAME, Control
from replayer.twin import Rewriter, Slot, Step, Twin

if TYPE_CHECKING:
    from replayer.twinreplay import TwinReplay

_WIDTHS: Final = {"i32": 4, "f32": 4, "i64": 8, "f64": 8, "v128": 16}


@dataclass
class Frame:
    """One frame of the guest."""

    function: int
    """Index; -1 where a host called back into the guest."""
    pc: int
    """Of the instruction that is next, or of the call that has not returned. For -1, the import."""
    locals: list[int | None] = field(default_factory=list)
    """Raw bits; of references 0 for null and 1 otherwise; None if it cannot be known."""
    operands: list[int | None] = field(default_factory=list)
    """Bottom first; what the instruction at `pc` takes is on top, unless it is a call that has not returned."""

    def to_json(self) -> list[Any]:
        return [self.function, self.pc, self.locals, self.operands]


@dataclass
class FunctionDetail:
    """What one function's stretches and frames look like: found by going over its code again."""

    steps: list[Step]
    by_pc: dict[int, int]
    """pc to position in `steps`."""
    locals: list[Slot | None]
    operand_slots: dict[tuple[int, str], Slot]
    types: list[str]


class Details:
    """Details of functions, made when they are first asked for."""

    def __init__(self, module: Module, twin: Twin) -> None:
        self.module = module
        self.twin = twin
        self.rewriter = Rewriter(module, mirrored=twin.mirrored)
        self.code_start = self.rewriter.code_start
        self._known: dict[int, FunctionDetail] = {}

    def of(self, function: int) -> FunctionDetail:
        found = self._known.get(function)
        if found is None:
            steps: list[Step] = []
            body = self.rewriter.body(function, steps)
            by_pc = {step.at - self.code_start: i for i, step in enumerate(steps)}
            found = FunctionDetail(steps, by_pc, body.local_slots(), body.operand_slots(), body.types)
            self._known[function] = found
        return found

    def function_at(self, pc: int) -> int:
        """The function whose code holds `pc`."""
        at = pc + self.code_start
        low, high = 0, len(self.module.code)
        while low < high:
            middle = (low + high) // 2
            if self.module.code[middle].end <= at:
                low = middle + 1
            else:
                high = middle
        if low == len(self.module.code) or at < self.module.code[low].start:
            raise WasmError(f"no function's code holds offset {pc:#x}")
        return self.module.imported.functions + low

    def stretch(self, pc: int) -> list[Step]:
        """The instructions of the stretch whose head is at `pc`."""
        detail = self.of(self.function_at(pc))
        first = detail.by_pc.get(pc)
        if first is None:
            # The head may stand at an instruction that does not count (an `end`): the first that does follows it.
            candidates = [i for p, i in detail.by_pc.items() if p > pc]
            if not candidates:
                return []
            first = min(candidates)
        number = detail.steps[first].stretch
        last = first
        while last < len(detail.steps) and detail.steps[last].stretch == number:
            last += 1
        return detail.steps[first:last]

    def ordinal(self, pc: int) -> int:
        """How many instructions of its stretch stand before the one at `pc`."""
        detail = self.of(self.function_at(pc))
        index = detail.by_pc[pc]
        number = detail.steps[index].stretch
        first = index
        while first and detail.steps[first - 1].stretch == number:
            first -= 1
        return index - first


def read_frames(control: Control, details: Details, limit: int, in_call: bool) -> tuple[list[Frame], int]:
    """The frames that were written down, innermost first, at most `limit`; and how many there are.

    `in_call`: the innermost one waits for a call to return, too.
    """
    frames: list[Frame] = []
    at = control.layout.dump
    end = min(control.dump_head, control.layout.mirror)
    count = 0
    while at + 16 <= end:
        function, pc, mirror, size = struct.unpack("<IIII", control.dumped(at, 16))
        if size < 16:
            break
        if count < limit:
            if function == FOREIGN_FRAME:
                frames.append(Frame(-1, pc))
            else:
                frames.append(_frame(control, details, function, pc, mirror, at + 16, at_head=not frames and not in_call))
        count += 1
        at += size
    return frames, count


def _frame(control: Control, details: Details, function: int, pc: int, mirror: int, at: int, at_head: bool) -> Frame:
    detail = details.of(function)
    base = mirror if function in details.twin.mirrored else at

    def slot(place: Slot | None) -> int | None:
        if place is None:
            return None
        width = _WIDTHS.get(place.type, 4)
        return int.from_bytes(control.dumped(base + place.offset, width), "little")

    frame = Frame(function, pc, [slot(place) for place in detail.locals])
    index = detail.by_pc.get(pc)
    if at_head and index is not None:
        operands = detail.steps[index].operands
    else:
        call = _call_before(details, detail, pc)
        if call is None:
            return frame
        frame.pc = call.at - details.code_start
        operands = call.operands[: len(call.operands) - _taken(details, call)]
    frame.operands = [slot(detail.operand_slots.get((height, t))) for height, t in enumerate(operands)]
    return frame


def _call_before(details: Details, detail: FunctionDetail, pc: int) -> Step | None:
    """The call behind which the instruction at `pc` stands."""
    at = pc + details.code_start
    best = None
    for step in detail.steps:
        if step.at >= at:
            break
        best = step
    return best


def _taken(details: Details, call: Step) -> int:
    """How many operands a call takes."""
    module = details.module
    index = Reader(module.data, call.at + 1, len(module.data)).u32()
    if call.opcode == ops.CALL:
        return len(module.function_type(index).params)
    kind = module.types[index]
    return len(getattr(kind, "params", ())) + 1


@dataclass(frozen=True)
class Fragment:
    """The module of a fragment, and how to call it."""

    data: bytes
    params: tuple[str, ...]
    results: tuple[str, ...]
    locals: tuple[int, ...]
    """The locals it takes and gives back, first."""
    taken: int
    """How many operands it takes from the top."""
    globals: tuple[int, ...]
    """The globals it imports."""


_SKIPPED: Final = frozenset((ops.BLOCK, ops.END, ops.TRY_TABLE))


def fragment(module: Module, detail: FunctionDetail, steps: list[Step], operands: tuple[str, ...]) -> Fragment:
    """The module that runs `steps`, which find `operands` on the stack and none of which is the last of its stretch."""
    data = module.data
    numbers: dict[int, int] = {}
    globals_: dict[int, int] = {}
    body = b""
    for step in steps:
        end = ops.instruction_end(data, step.at, len(data))
        if step.opcode in _SKIPPED:
            continue
        if 0x20 <= step.opcode <= 0x24:
            index = Reader(data, step.at + 1, end).u32()
            known = numbers if step.opcode <= 0x22 else globals_
            body += bytes((step.opcode,)) + uleb(known.setdefault(index, len(known)))
        else:
            body += data[step.at : end]
    # Whatever touches a reference ends its stretch: what stands up to the last one is not touched here.
    depth = max((i + 1 for i, t in enumerate(operands) if is_reference(t)), default=0)
    taken = operands[depth:]
    locals_ = tuple(numbers)
    last = next(i for i, step in enumerate(detail.steps) if step.at == steps[-1].at)
    after = detail.steps[last + 1].operands[depth:]
    types = [detail.types[index] for index in locals_]
    params = (*types, *taken)
    results = (*types, *after)
    # Parameters first the locals; the operands are put on the stack, and afterwards the results are put behind the locals.
    put = b"".join(b"\x20" + uleb(len(types) + i) for i in range(len(taken)))
    first_kept = len(params)
    keep = b"".join(b"\x21" + uleb(first_kept + i) for i in reversed(range(len(after))))
    give = b"".join(b"\x20" + uleb(i) for i in range(len(types)))
    give += b"".join(b"\x20" + uleb(first_kept + i) for i in range(len(after)))
    kept = vec(b"\x01" + encode_type(t) for t in after)
    code = kept + put + body + keep + give + b"\x0b"
    imports = [b"\x01m" + uleb(len(str(i))) + str(i).encode() + b"\x02" + _limits(m) for i, m in enumerate(module.memories)]
    for index in globals_:
        kind = module.globals[index]
        name = str(index).encode()
        imports.append(b"\x01g" + uleb(len(name)) + name + b"\x03" + encode_type(kind.value) + bytes((kind.mutable,)))
    kind_ = b"\x60" + vec(encode_type(t) for t in params) + vec(encode_type(t) for t in results)
    sections = section(1, vec([kind_])) + section(2, vec(imports)) + section(3, b"\x01\x00") + section(7, b"\x01\x01f\x00\x00")
    return Fragment(
        PREAMBLE + sections + section(10, vec([uleb(len(code)) + code])), params, results, locals_, len(taken), tuple(globals_)
    )


def _limits(memory: Any) -> bytes:
    flags = (1 if memory.limits.maximum is not None else 0) | (4 if memory.limits.is_64 else 0)
    code = bytes((flags,)) + uleb(memory.limits.minimum)
    return code + (uleb(memory.limits.maximum) if memory.limits.maximum is not None else b"")


def advance(replay: TwinReplay, details: Details, frame: Frame, count: int) -> None:
    """Runs the first `count` instructions of the stretch at whose head the innermost frame stands, for good."""
    if count == 0:
        return
    steps = details.stretch(frame.pc)
    if count >= len(steps):
        raise ValueError("that is not inside this stretch")
    detail = details.of(frame.function)
    operands = steps[0].operands
    made = fragment(details.module, detail, steps[:count], operands)
    module = replay.engine.compile(made.data, keep=False)
    linked = replay.linked
    externs = [linked.export(name) for name in replay.twin.memories]
    externs += [linked.export(replay.twin.globals[index]) for index in made.globals]
    instance = replay.machine.instantiate(module, externs)
    function = instance.exports(replay.machine.store)["f"]
    values = [frame.locals[index] or 0 for index in made.locals]
    below = len(frame.operands) - made.taken
    values += [value or 0 for value in frame.operands[below:]]
    answers = replay.machine.call(Function(function._func, made.params, made.results), values)
    for index, value in zip(made.locals, answers, strict=False):
        frame.locals[index] = value
    frame.operands[below:] = answers[len(made.locals) :]
    frame.pc = steps[count].at - details.code_start
