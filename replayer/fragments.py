"""Frames that were written down, and the few instructions between the head of a stretch and the one that is wanted.

A fragment is a tiny module that holds the first instructions of a stretch as they are, with the guest's own memories and globals
and with locals and operands as parameters: so the semantics of every instruction stay the engine's. It runs after the guest's
frames are gone, in a process that is only looked at from then on.
"""

from __future__ import annotations

import bisect
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import wasmtime

from recorder.boundary.raw import Function
from recorder.wasm import instructions as ops
from recorder.wasm.binary import PREAMBLE, Reader, WasmError, name, section, uleb, vec
from recorder.wasm.effects import encode_type, is_reference
from recorder.wasm.module import MemoryType, Module
from replayer.support import FOREIGN_FRAME, Control
from replayer.twin import Rewriter, Slot, Step, Twin
from traces._errors import RepriseError

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
        # A twin none of whose stretches is longer than one instruction is the fine one, however it was asked for.
        self.rewriter = Rewriter(module, fine=max(twin.stretches.counts, default=0) <= 1, mirrored=twin.mirrored)
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
        """The instructions of the stretch whose head is at `pc`; the head itself may stand at an `end`, which is none."""
        steps = self.of(self.function_at(pc)).steps
        stretches = self.twin.stretches
        first = bisect.bisect_left(steps, pc + self.code_start, key=lambda step: step.at)
        return steps[first : first + stretches.counts[stretches.at(pc)]]

    def stretch_of(self, pc: int) -> list[Step]:
        """The instructions of the stretch that holds the one at `pc`; none if none that counts begins there."""
        detail = self.of(self.function_at(pc))
        index = detail.by_pc.get(pc)
        if index is None:
            return []
        number = detail.steps[index].stretch
        return [step for step in detail.steps if step.stretch == number]

    def ordinal(self, pc: int) -> int:
        """How many instructions of its stretch stand before the one at `pc`."""
        detail = self.of(self.function_at(pc))
        index = detail.by_pc[pc]
        number = detail.steps[index].stretch
        first = index
        while first and detail.steps[first - 1].stretch == number:
            first -= 1
        return index - first


@dataclass(frozen=True)
class Dump:
    """Frames as the guest wrote them down when it unwound: read out by its process, made sense of by the machine, which keeps
    what it has found out about functions."""

    frames: bytes
    count: int
    """How many there were; `frames` may hold fewer."""
    mirror: bytes
    mirror_at: int
    """The address of `mirror`'s first byte."""


def take_dump(control: Control, limit: int, mirror_head: int) -> Dump:
    """What was written down of the innermost `limit` frames. `mirror_head`: where mirrored ones ended before they unwound."""
    at = control.layout.dump
    end = min(control.dump_head, control.layout.mirror)
    count, wanted = 0, at
    lowest = mirror_head
    while at + 16 <= end:
        function, _, mirror, size = struct.unpack("<IIII", control.dumped(at, 16))
        if size < 16:
            break
        at += size
        count += 1
        if count <= limit:
            wanted = at
            if function != FOREIGN_FRAME and control.layout.mirror <= mirror < lowest:
                lowest = mirror
    first = control.layout.dump
    return Dump(control.dumped(first, wanted - first), count, control.dumped(lowest, mirror_head - lowest), lowest)


def read_frames(dump: Dump, details: Details, in_call: bool) -> list[Frame]:
    """The frames of a dump, innermost first. `in_call`: the innermost one waits for a call to return, too."""
    frames: list[Frame] = []
    at = 0
    while at < len(dump.frames):
        function, pc, mirror, size = struct.unpack_from("<IIII", dump.frames, at)
        if function == FOREIGN_FRAME:
            frames.append(Frame(-1, pc))
        else:
            frames.append(_frame(dump, details, function, pc, mirror, at + 16, at_head=not frames and not in_call))
        at += size
    return frames


def _frame(dump: Dump, details: Details, function: int, pc: int, mirror: int, at: int, at_head: bool) -> Frame:
    """The frame written down at `at`. `at_head`: it rests at the head of a stretch; every other waits behind a call."""
    detail = details.of(function)
    mirrored = function in details.twin.mirrored
    data, base = (dump.mirror, mirror - dump.mirror_at) if mirrored else (dump.frames, at)

    def slot(place: Slot | None) -> int | None:
        if place is None:
            return None
        first = base + place.offset
        return int.from_bytes(data[first : first + _WIDTHS.get(place.type, 4)], "little")

    frame = Frame(function, pc, [slot(place) for place in detail.locals])
    operands: tuple[str, ...] = ()
    if at_head:
        steps = details.stretch(pc)
        if steps:  # otherwise the function is about to return
            frame.pc = steps[0].at - details.code_start
            operands = steps[0].operands
    else:
        call = _call_before(details, detail, pc)
        frame.pc = call.at - details.code_start
        operands = call.operands[: len(call.operands) - _taken(details, call)]
    frame.operands = [slot(detail.operand_slots.get((height, t))) for height, t in enumerate(operands)]
    return frame


def _call_before(details: Details, detail: FunctionDetail, pc: int) -> Step:
    """The call behind which the stretch at `pc` begins."""
    return detail.steps[bisect.bisect_left(detail.steps, pc + details.code_start, key=lambda step: step.at) - 1]


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
    """The module of a fragment, and how to call it.

    Values go in and come out through a memory of its own, `PLACE` bytes for each: locals first, then operands. Parameters and
    results would do for few of them only.
    """

    data: bytes
    locals: tuple[int, ...]
    """The locals it takes and gives back, first."""
    taken: tuple[str, ...]
    """The operands it takes from the top."""
    given: tuple[str, ...]
    """The operands it leaves in their place."""
    globals: tuple[int, ...]
    """The globals it imports."""


PLACE: Final = 16
_PAGE: Final = 65536
_SKIPPED: Final = frozenset((ops.BLOCK, ops.END, ops.TRY_TABLE))
_LOADS: Final = {"i32": b"\x28", "i64": b"\x29", "f32": b"\x2a", "f64": b"\x2b", "v128": b"\xfd\x00"}
_STORES: Final = {"i32": b"\x36", "i64": b"\x37", "f32": b"\x38", "f64": b"\x39", "v128": b"\xfd\x0b"}


def fragment(module: Module, detail: FunctionDetail, steps: list[Step], behind: Step) -> Fragment:
    """The module that runs `steps`, the first of their stretch; `behind` is the step after them, in the same one."""
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
    operands = steps[0].operands
    depth = max((i + 1 for i, t in enumerate(operands) if is_reference(t)), default=0)
    taken, given = operands[depth:], behind.operands[depth:]
    types = [detail.types[index] for index in numbers]
    own = len(module.memories)

    def place(opcodes: dict[str, bytes], number: int, value: str) -> bytes:
        align = b"\x00" if not own else b"\x40" + uleb(own)
        return opcodes[value] + align + uleb(number * PLACE)

    code = b"".join(b"\x41\x00" + place(_LOADS, i, t) + b"\x21" + uleb(i) for i, t in enumerate(types))
    code += b"".join(b"\x41\x00" + place(_LOADS, i, t) for i, t in enumerate(taken, len(types))) + body
    code += b"".join(b"\x21" + uleb(i) for i in reversed(range(len(types), len(types) + len(given))))
    kept = [*types, *given]
    code += b"".join(b"\x41\x00\x20" + uleb(i) + place(_STORES, i, t) for i, t in enumerate(kept)) + b"\x0b"
    code = vec(b"\x01" + encode_type(t) for t in kept) + code
    imports = [b"\x01m" + name(str(i)) + b"\x02" + _limits(m) for i, m in enumerate(module.memories)]
    for index in globals_:
        kind = module.globals[index]
        imports.append(b"\x01g" + name(str(index)) + b"\x03" + encode_type(kind.value) + bytes((kind.mutable,)))
    pages = (len(types) + max(len(taken), len(given))) * PLACE // _PAGE + 1
    sections = section(1, b"\x01\x60\x00\x00") + section(2, vec(imports)) + section(3, b"\x01\x00")
    sections += section(5, b"\x01\x01" + uleb(pages) * 2) + section(7, b"\x01\x01f\x00\x00")
    whole = PREAMBLE + sections + section(10, vec([uleb(len(code)) + code]))
    return Fragment(whole, tuple(numbers), taken, given, tuple(globals_))


def _limits(memory: MemoryType) -> bytes:
    flags = (1 if memory.limits.maximum is not None else 0) | (4 if memory.limits.is_64 else 0)
    code = bytes((flags,)) + uleb(memory.limits.minimum)
    return code + (uleb(memory.limits.maximum) if memory.limits.maximum is not None else b"")


Run = Callable[[Fragment, bytes, int], bytes]
"""Runs a fragment on the guest: its values as it takes them, how many it gives, and those as it gives them."""


def advance(run: Run, details: Details, frame: Frame, count: int) -> None:
    """Runs the first `count` instructions of the stretch at whose head the innermost frame stands, for good."""
    if count == 0:
        return
    steps = details.stretch(frame.pc)
    if count >= len(steps):
        raise RepriseError("the time machine: that is not inside this stretch")
    made = fragment(details.module, details.of(frame.function), steps[:count], steps[count])
    below = len(frame.operands) - len(made.taken)
    values = [*(frame.locals[index] for index in made.locals), *frame.operands[below:]]
    types = [*(details.of(frame.function).types[index] for index in made.locals), *made.given]
    given = run(made, b"".join((value or 0).to_bytes(PLACE, "little") for value in values), len(types))
    answers = [int.from_bytes(given[i * PLACE : i * PLACE + _WIDTHS[t]], "little") for i, t in enumerate(types)]
    for index, value in zip(made.locals, answers, strict=False):
        frame.locals[index] = value
    frame.operands[below:] = answers[len(made.locals) :]
    frame.pc = steps[count].at - details.code_start


def run_fragment(replay: TwinReplay, data: bytes, globals_: Sequence[int], values: bytes, given: int) -> bytes:
    """Runs a fragment in the process of the guest."""
    module = replay.engine.compile(data, keep=False)
    externs = [replay.linked.export(export) for export in replay.twin.memories]
    externs += [replay.linked.export(replay.twin.globals[index]) for index in globals_]
    instance = replay.machine.instantiate(module, externs)
    memory = replay.engine.memories.made[-1]
    memory.write(0, values)
    function = instance.exports(replay.machine.store)["f"]
    assert isinstance(function, wasmtime.Func)
    replay.machine.call(Function(function._func, (), ()), [])
    return memory.read(0, given * PLACE)
