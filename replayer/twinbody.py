"""One function of a module, rewritten for its twin: types of operands, stretches, and the new code, in one pass.

`replayer.twin` says what a twin is; this is how its functions come about. What the generated code and its surroundings have to
agree on stands here too: the words of the support memory that the code itself uses, and the slots of the functions it calls.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from recorder.wasm import effects
from recorder.wasm import instructions as ops
from recorder.wasm.binary import Reader, WasmError, sleb, uleb
from recorder.wasm.effects import MEMARG, NO_IMMEDIATE, ONE_LEB, encode_type, is_reference
from recorder.wasm.module import Body, FuncType, read_locals

if TYPE_CHECKING:
    from replayer.twin import Rewriter

UNWINDING: Final = -(1 << 62)
"""A countdown below this makes every frame write itself down and return."""

DUMP_HEAD: Final = 8
"""i32: where the next frame is written."""
MIRROR_HEAD: Final = 12
"""i32: where the next mirrored frame begins."""
SEAT: Final = 96
"""i64: how deep the frame is whose head was passed last, while listening; frames that catch exceptions remember it."""

STOP_SLOT: Final = 0
GLOBAL_SLOT: Final = 1
LAND_SLOT: Final = 2
STORE_SLOT: Final = 3
"""Of memory 0; the others follow."""

HEAD_ENTRY: Final = 1
"""The stretch is a function's first."""
HEAD_AFTER_CALL: Final = 2
HEAD_LANDING: Final = 4
"""An exception may have come in here."""
HEAD_CALLS: Final = 8
"""The stretch ends with a call (not a tail call)."""


@dataclass(frozen=True)
class Slot:
    """Where a local or an operand stands in a frame that was written down."""

    offset: int
    type: str


@dataclass(frozen=True)
class Step:
    """One instruction that can run, and what it finds on the operand stack."""

    at: int
    """File offset."""
    opcode: int
    operands: tuple[str, ...]
    """Types, bottom first; of the whole function, enclosing blocks included."""
    base: int
    """How many of them belong to enclosing blocks and cannot be reached from here."""
    stretch: int
    """Number of its stretch within the function."""


class _Stretch:
    """One stretch: its head and what was found about it."""

    __slots__ = ("at", "chunk", "count", "flags", "nest", "opening", "prefix", "reload")

    def __init__(self, at: int, chunk: int, nest: int, flags: int, reload: bool, prefix: bytes) -> None:
        self.at = at
        self.chunk = chunk
        """Which chunk of the output its head code fills."""
        self.nest = nest
        """Blocks around the head; others may open before the stretch ends."""
        self.count = 0
        self.flags = flags
        self.reload = reload
        """Whether the countdown comes from the global."""
        self.prefix = prefix
        """Code that puts operands aside, before the head."""
        self.opening: tuple[bytes, bytes, bytes] | None = None
        """Type, reporting form and plain form of the code at the head, if it writes."""


class _Label:
    """What a branch can go to."""

    __slots__ = ("at", "base", "landing", "live_outside", "opcode", "params", "results", "targeted")

    def __init__(
        self, opcode: int, at: int, base: int, params: tuple[str, ...], results: tuple[str, ...], live: bool, landing: bool
    ) -> None:
        self.opcode = opcode
        self.at = at
        self.base = base
        """Height of the operand stack below the block's parameters."""
        self.params = params
        self.results = results
        self.live_outside = live
        self.landing = landing
        """Whether a catch clause goes to its end: then everyone who comes there brings the countdown in the global."""
        self.targeted = False


_FUNCTION: Final = -1
_NO_TYPES: Final[tuple[str, ...]] = ()
_COLD: Final = 0
"""The branch hint "unlikely"."""


_BELOW_ZERO: Final = b"\x42\x00\x53"
_BELOW_UNWINDING: Final = b"\x42" + sleb(UNWINDING) + b"\x53"


def i32(value: int) -> bytes:
    """`i32.const`, as most of them are written."""
    if 0 <= value < 0x40:
        return bytes((0x41, value))
    if 0 <= value < 0x2000:
        return bytes((0x41, value & 0x7F | 0x80, value >> 7))
    if 0 <= value < 0x100000:
        return bytes((0x41, value & 0x7F | 0x80, value >> 7 & 0x7F | 0x80, value >> 14))
    return b"\x41" + sleb(value)


def _i64(value: int) -> bytes:
    """`i64.const`, likewise."""
    return bytes((0x42, value)) if 0 <= value < 0x40 else b"\x42" + sleb(value)


def address_of(is_64: bool) -> str:
    return "i64" if is_64 else "i32"


def _memarg(opcode: bytes, align: int, memory: int, offset: int) -> bytes:
    if memory:
        return opcode + bytes((align | 0x40,)) + uleb(memory) + uleb(offset)
    return opcode + bytes((align,)) + uleb(offset)


_SLOT_STORES: Final = {
    "i32": (b"\x36", 2),
    "i64": (b"\x37", 3),
    "f32": (b"\x38", 2),
    "f64": (b"\x39", 3),
    "v128": (b"\xfd\x0b", 4),
}


class FunctionBody:
    """One pass over one function: types of operands, stretches, and the new code."""

    def __init__(
        self, rewriter: Rewriter, index: int, known_landings: frozenset[int], mirror: bool, observe: list[Step] | None
    ) -> None:
        module = rewriter.module
        self.rewriter = rewriter
        self.module = module
        self.data = module.data
        self.index = index
        self.mirror = mirror
        self.observe = observe
        self.known_landings = known_landings
        self.landings: set[int] = set()
        self.given_hints = rewriter.given_hints.get(index, {})
        self.bounds: Body = module.code[index - module.imported.functions]
        self.signature = module.function_type(index)
        reader = Reader(self.data, self.bounds.start, self.bounds.end)
        groups = read_locals(reader)
        self.first = reader.position
        counted = Reader(self.data, self.bounds.start, self.first)
        self.groups = counted.u32()
        self.given_locals = self.data[counted.position : self.first]
        self.types: list[str] = list(self.signature.params)
        for count, value in groups:
            if len(self.types) + count > 50_000:
                raise WasmError("too many locals", self.bounds.start)
            self.types += [value] * count
        self.plain = [None if is_reference(t) else t for t in self.types]
        """Types of locals that a fragment can hold."""
        self.new_locals: list[str] = []
        self.clock = self._new_local("i64")
        self.pc = self._new_local("i32")
        self.frame = self._new_local("i32")
        self._scratch: dict[str, bytes] = {}
        self._spills: dict[tuple[int, str], int] = {}
        self.slot_types: list[str] = []
        self._slots: dict[int, Slot] = {}
        self.frame_size = 0
        for local, value in enumerate(self.types):
            self._add_slot(local, value, not is_reference(value) or effects.is_nullable(value))

        left = uleb(rewriter.left)
        self.get_left = b"\x23" + left
        self.set_left = b"\x24" + left
        self.get = b"\x20" + uleb(self.clock)
        self.set = b"\x21" + uleb(self.clock)
        self.tee = b"\x22" + uleb(self.clock)
        self.flush = self.get + self.set_left
        self.below_zero = self.get + _BELOW_ZERO
        self.tee_below_zero = self.tee + _BELOW_ZERO
        self.tee_below_unwinding = self.tee + _BELOW_UNWINDING
        self.call_stop = b"\x22" + uleb(self.pc) + rewriter.relays.stop
        """Takes the countdown and the pc, which it remembers."""

        self.out: list[bytes] = []
        self.copied = self.first
        self.hinted: list[tuple[int, int, int]] = []
        """(chunk, offset in it, likely) of each hinted branch."""
        self.stack: list[str] = []
        self.labels: list[_Label] = [_Label(_FUNCTION, -1, 0, (), self.signature.results, True, -1 in known_landings)]
        self.live = True
        self.count = 0
        """Instructions of the current stretch so far."""
        self.instructions = 0
        self.stretches: list[_Stretch] = []
        self._edits: list[tuple[int, int, bytes, bytes, bool]] = []
        """What goes around instructions of the current run: (at, after, code before, code behind, only if someone listens)."""
        self._reports = False
        """Whether the current run has anything to report."""
        self._run_start = self.first
        self._run_operands: list[str] = []
        """What this block had on the operand stack when the run began."""
        self._restores: list[int] = []
        """Chunks that bring the mirror back to this frame, once its size is known."""
        self._landed = False

    # -- output

    def _put(self, at: int, code: bytes) -> None:
        """Put `code` before the given instruction at `at`, where the current run ends."""
        if at != self.copied:
            self._end_run(at)
        if code:
            self.out.append(code)

    def _end_run(self, at: int) -> None:
        """The given instructions up to `at`, which follow one another in one block, are complete.

        A run that writes comes in two forms: one that reports what it wrote, where the countdown is negative, and one that does
        not. At the head of a stretch, where the countdown is looked at anyway, that costs nothing.
        """
        start, self.copied = self.copied, at
        edits, self._edits = self._edits, []
        if not edits:
            self.out.append(self.data[start:at])
        elif not self._reports:
            self.out.append(self._edited(start, at, edits, True))
        else:
            self._reports = False
            types = tuple(self.stack[self.labels[-1].base :])
            block_type = self._encoded_block_type(tuple(self._run_operands), types)
            forms = block_type, self._edited(start, at, edits, True), self._edited(start, at, edits, False)
            stretch = self.stretches[-1]
            if start == stretch.at and stretch.chunk == len(self.out) - 1:
                stretch.opening = forms
            else:
                condition = self.below_zero
                self.out.append(condition + b"\x04" + forms[0] + forms[1] + b"\x05" + forms[2] + b"\x0b")
                self.hinted.append((len(self.out) - 1, len(condition), _COLD))

    def _edited(self, start: int, end: int, edits: list[tuple[int, int, bytes, bytes, bool]], reporting: bool) -> bytes:
        pieces = []
        for at, after, before, behind, only_reporting in edits:
            if reporting or not only_reporting:
                pieces += [self.data[start:at], before, self.data[at:after], behind]
                start = after
        pieces.append(self.data[start:end])
        return b"".join(pieces)

    def _edit(self, at: int, after: int, before: bytes, behind: bytes, reports: bool) -> None:
        """Code around an instruction within the run; `reports` says that it is only for those who listen."""
        if self.copied < self._run_start:
            self.out.append(self.data[self.copied : self._run_start])
            self.copied = self._run_start
        self._edits.append((at, after, before, behind, reports))
        if reports:
            self._reports = True

    def _encoded_block_type(self, params: tuple[str, ...], results: tuple[str, ...]) -> bytes:
        if not params and len(results) < 2:
            return encode_type(results[0]) if results else b"\x40"
        return sleb(self.rewriter.type_number(params, results))

    def _new_local(self, value: str) -> int:
        self.new_locals.append(value)
        return len(self.types) + len(self.new_locals) - 1

    def _temporary(self, key: str, value: str) -> bytes:
        """A local that keeps an operand over one instruction."""
        number = self._scratch.get(key)
        if number is None:
            number = self._scratch[key] = uleb(self._new_local(value))
        return number

    # -- stretches

    def _begin(self, at: int, flags: int = 0, reload: bool = False) -> None:
        """A stretch begins at `at`; its head goes in front when its length is known."""
        base = self.labels[-1].base if self.labels else 0
        # The operands of this block are put aside, so that a frame can write them down.
        prefix = self._aside(self.stack[base:], base) if len(self.stack) > base else b""
        self._put(at, b"")
        self.out.append(b"")
        self.stretches.append(_Stretch(at, len(self.out) - 1, len(self.labels) - 1, flags, reload, prefix))
        self.count = 0
        self._run_start = at
        self._run_operands = self.stack[base:]

    def _close(self, at: int) -> None:
        """The current stretch is complete; it ends before `at`."""
        self._put(at, b"")
        stretch = self.stretches[-1]
        stretch.count = self.count
        self.instructions += self.count
        self.count = 0
        source = self.get_left if stretch.reload else self.get
        if not stretch.count and not stretch.flags & HEAD_AFTER_CALL:
            # Nothing to count: but the countdown may have to come back from the global.
            self.out[stretch.chunk] = stretch.prefix + (source + self.set if stretch.reload else b"")
            if not stretch.reload:
                self.stretches.pop()
            return
        condition = stretch.prefix + source + _i64(stretch.count) + b"\x7d" + self.tee_below_zero
        pc = i32(stretch.at - self.rewriter.code_start)
        land = self._call_land() if stretch.flags & HEAD_LANDING else b""
        sit = self._sit() if self.known_landings else b""
        consequence = land + self.get + pc + self.call_stop + sit + self.tee_below_unwinding + b"\x0d" + uleb(stretch.nest + 2)
        block_type, reporting, plain = stretch.opening or (b"\x40", b"", b"")
        otherwise = b"\x05" + plain if stretch.opening else b""
        self.out[stretch.chunk] = condition + b"\x04" + block_type + consequence + reporting + otherwise + b"\x0b"
        self.hinted.append((stretch.chunk, len(condition), _COLD))

    def _next(self, at: int, flags: int = 0, reload: bool = False) -> None:
        """The current stretch ends before `at`; another begins there."""
        self._close(at)
        self._begin(at, flags, reload)

    def _aside(self, types: list[str], base: int) -> bytes:
        """Code that copies the topmost operands to locals and leaves them where they are."""
        put = b""
        back = b""
        for height in range(base + len(types) - 1, base - 1, -1):
            value = types[height - base]
            local = uleb(self._spill(height, value))
            mirrored = self._mirrored(self._spills[height, value]) if self.mirror else b""
            again = b"\xd4" if is_reference(value) and not effects.is_nullable(value) else b""
            put += b"\x21" + local + mirrored
            back = b"\x20" + local + again + back
        return put + back

    def _spill(self, height: int, value: str) -> int:
        """The local in which an operand at that height is kept."""
        key = (height, value)
        number = self._spills.get(key)
        if number is None:
            number = self._spills[key] = self._new_local(effects.nullable(value) if is_reference(value) else value)
            self._add_slot(number, value)
        return number

    # -- frames

    def _add_slot(self, local: int, value: str, place: bool = True) -> None:
        """Gives a local its place in a frame. Without a place, it is not written down."""
        self.slot_types.append(value)
        if place:
            self._slots[local] = Slot(self.frame_size, value)
            self.frame_size += 16 if value == "v128" else 8

    def local_slots(self) -> list[Slot | None]:
        """Where the given locals stand in a frame that was written down. None: a reference that may not be set yet."""
        return [self._slots.get(local) for local in range(len(self.types))]

    def operand_slots(self) -> dict[tuple[int, str], Slot]:
        """Where operands that were put aside stand, by height on the operand stack and type."""
        return {key: self._slots[local] for key, local in self._spills.items()}

    def _store_slot(self, base: bytes, local: int, slot: Slot, extra: int) -> bytes:
        """Code that writes a local to its slot of the frame at `base`."""
        value = b"\x20" + uleb(local)
        if is_reference(slot.type):
            return base + value + b"\xd1\x45" + _memarg(b"\x36", 2, self.rewriter.memory, extra + slot.offset)
        opcode, align = _SLOT_STORES[slot.type]
        return base + value + _memarg(opcode, align, self.rewriter.memory, extra + slot.offset)

    def _mirrored(self, local: int) -> bytes:
        """Code that copies a local to the mirror, after it was set."""
        slot = self._slots.get(local)
        return b"" if slot is None else self._store_slot(b"\x20" + uleb(self.frame), local, slot, 0)

    def _open_mirror(self, size: int) -> bytes:
        """Code at the function's entry: a mirrored frame, all zero but for the parameters."""
        memory = self.rewriter.memory
        head = b"\x41\x00" + _memarg(b"\x28", 2, memory, MIRROR_HEAD)
        frame = uleb(self.frame)
        code = b"\x41\x00" + head + b"\x22" + frame + b"\x41" + sleb(size) + b"\x6a" + _memarg(b"\x36", 2, memory, MIRROR_HEAD)
        code += b"\x20" + frame + b"\x41\x00\x41" + sleb(size) + b"\xfc\x0b" + uleb(memory)
        for local in range(len(self.signature.params)):
            code += self._mirrored(local)
        return code

    def _close_mirror(self) -> bytes:
        if not self.mirror:
            return b""
        return b"\x41\x00\x20" + uleb(self.frame) + _memarg(b"\x36", 2, self.rewriter.memory, MIRROR_HEAD)

    def _restore_mirror(self) -> bytes:
        """After an exception: frames above this one are gone from the mirror too."""
        size = b"\x41" + sleb(self.frame_size) + b"\x6a" if self.mirror else b""
        return b"\x41\x00\x20" + uleb(self.frame) + size + _memarg(b"\x36", 2, self.rewriter.memory, MIRROR_HEAD)

    def _land(self) -> None:
        """The landing at which a stretch has just begun: what those above left behind is put right."""
        self.out.append(b"")
        self._restores.append(len(self.out) - 1)

    def _leave_landed(self) -> bytes:
        """At the end of a function to which a catch clause goes: the countdown is in the global already."""
        given_back = b"\x41\x00\x20" + uleb(self.frame) + _memarg(b"\x36", 2, self.rewriter.memory, MIRROR_HEAD)
        land = self.get_left + b"\x42\x00\x53\x04\x40" + self._call_land() + b"\x0b"
        return given_back + land

    def _call_land(self) -> bytes:
        """Tells how deep this frame is: calls that an exception has ended were not seen to return."""
        return b"\x20" + self._seat() + self.rewriter.relays.land

    def _sit(self) -> bytes:
        return b"\x41\x00" + _memarg(b"\x29", 3, self.rewriter.memory, SEAT) + b"\x21" + self._seat()

    def _seat(self) -> bytes:
        """The local that holds what the support module calls this frame's depth."""
        return self._temporary("seat", "i64")

    def _dump(self) -> bytes:
        """Code that writes the frame down: function, pc, address of the mirror, then locals and operands."""
        memory = self.rewriter.memory
        whole = 16 + (0 if self.mirror else self.frame_size)
        frame = self._temporary("dump", "i32")
        code = b"\x41\x00\x41\x00" + _memarg(b"\x28", 2, memory, DUMP_HEAD) + b"\x22" + frame
        code += b"\x41" + sleb(whole) + b"\x6a" + _memarg(b"\x36", 2, memory, DUMP_HEAD)
        base = b"\x20" + frame
        code += base + b"\x41" + sleb(self.rewriter.layout.mirror - whole) + b"\x4d\x04\x40"
        code += base + b"\x41" + sleb(self.index) + _memarg(b"\x36", 2, memory, 0)
        code += base + b"\x20" + uleb(self.pc) + _memarg(b"\x36", 2, memory, 4)
        code += base + b"\x20" + uleb(self.frame) + _memarg(b"\x36", 2, memory, 8)
        code += base + b"\x41" + sleb(whole) + _memarg(b"\x36", 2, memory, 12)
        if not self.mirror:
            for local, slot in self._slots.items():
                code += self._store_slot(base, local, slot, 16)
        return code + b"\x0b"

    def _dummies(self) -> bytes:
        code = b""
        for value in self.signature.results:
            if is_reference(value) and effects.is_nullable(value):
                code += b"\xd0" + _heap_of(value)
            elif is_reference(value):
                code += b"\xd2" + uleb(self.rewriter.stand_in(value))
            else:
                code += _ZEROES[value]
        return code

    def content(self) -> tuple[bytes, list[tuple[int, int]]]:
        """The new body, and its branch hints: (offset in the body, likely)."""
        results = self.signature.results
        if not results:
            block_type = b"\x40"
        elif len(results) == 1:
            block_type = encode_type(results[0])
        else:
            block_type = sleb(self.rewriter.type_number((), results))
        opening = b"\x02\x40\x02" + block_type
        if self.mirror:
            opening = self._open_mirror(self.frame_size) + opening
        elif self.known_landings:
            opening = b"\x41\x00" + _memarg(b"\x28", 2, self.rewriter.memory, MIRROR_HEAD) + b"\x21" + uleb(self.frame) + opening
        leaving = self._leave_landed() if self._landed else self.flush + self._close_mirror()
        closing = b"\x0b" + leaving + b"\x0f\x0b" + self._dump() + self.flush + self._dummies() + b"\x0b"
        for restore in self._restores:
            self.out[restore] = self._restore_mirror()
        groups = b"".join(b"\x01" + encode_type(t) for t in self.new_locals)
        declared = uleb(self.groups + len(self.new_locals)) + self.given_locals + groups
        starts = []
        at = len(declared) + len(opening)
        for chunk in self.out:
            starts.append(at)
            at += len(chunk)
        hints = sorted((starts[chunk] + offset, likely) for chunk, offset, likely in self.hinted)
        return b"".join((declared, opening, *self.out, closing)), hints

    # -- the walk

    def run(self) -> None:
        data, end = self.data, self.bounds.end
        stack, plain_locals, table = self.stack, self.plain, effects.PLAIN
        handlers, lengths, observe, fine = _HANDLERS, _LENGTHS, self.observe, self.rewriter.fine
        quick = observe is None and not fine
        few = min(len(plain_locals), 0x80)
        at = self.first
        self._begin(at, HEAD_ENTRY, True)
        while at < end:
            opcode = data[at]
            if opcode == 0x20 and quick and self.live and (local := data[at + 1]) < few and (plain := plain_locals[local]):
                stack.append(plain)
                self.count += 1
                at += 2
                continue
            if not self.live:
                after = ops.instruction_end(data, at, end)
                dead = _DEAD_HANDLERS.get(opcode)
                if dead is not None:
                    dead(self, at, after)
                at = after
                continue
            if observe is not None and opcode not in (ops.END, ops.ELSE):
                base = self.labels[-1].base
                observe.append(Step(at, opcode, tuple(stack), base, len(self.stretches) - 1))
            effect = table[opcode]
            if effect is not None:
                immediate, pops, push = effect
                if immediate == NO_IMMEDIATE:
                    at += 1
                elif immediate == ONE_LEB:
                    at += 2
                    while data[at - 1] >= 0x80:
                        at += 1
                elif immediate == MEMARG:
                    if data[at + 1] < 0x40 and data[at + 2] < 0x80:
                        at += 3
                    else:
                        at = ops.instruction_end(data, at, end)
                else:
                    at += 1 + immediate
                if pops:
                    if pops == 2:
                        stack.pop()
                    assert push is not None  # whatever takes something leaves something
                    stack[-1] = push
                elif push is not None:
                    stack.append(push)
                self.count += 1
            elif 0x20 <= opcode <= 0x22:
                start = at
                local = data[at + 1]
                if local < 0x80:
                    at += 2
                else:
                    local = Reader(data, at + 1, end).u32()
                    at = ops.instruction_end(data, at, end)
                if local >= len(plain_locals):
                    raise WasmError(f"local {local} does not exist", start)
                value = plain_locals[local]
                self.count += 1
                if value is None:
                    if self._edits:
                        # Not in the same run as a write: what stands in one of two forms sets nothing for good.
                        self._end_run(start)
                    self._on_reference_local(opcode, local, start, at)
                    continue
                if opcode == 0x20:
                    stack.append(value)
                else:
                    if opcode == 0x21:
                        stack.pop()
                    if self.mirror:
                        self._edit(start, at, b"", self._mirrored(local), False)
            else:
                if opcode in _RUN_ENDS and self._edits:
                    self._end_run(at)
                size = lengths[opcode]
                after = at + size if size and (size == 1 or data[at + 1] < 0x80) else ops.instruction_end(data, at, end)
                handler = handlers.get(opcode)
                if handler is None:
                    raise WasmError(f"instruction {opcode:#04x} cannot be stepped through", at)
                handler(self, at, after)
                at = after
                if not self.labels:
                    break
                if opcode in _RUN_ENDS:
                    self._run_start = at
                    self._run_operands = stack[self.labels[-1].base :]
                continue
            if fine:
                self._next(at)
        if self.labels or at != end:
            raise WasmError("a function does not end where its body does", end)
        self._put(end, b"")

    def _index(self, at: int) -> int:
        """The index that the instruction at `at` names first."""
        index = self.data[at + 1]
        return index if index < 0x80 else Reader(self.data, at + 1, self.bounds.end).u32()

    def _pop(self, count: int) -> None:
        if count:
            del self.stack[-count:]

    def _plain(self, after: int) -> None:
        """An instruction was counted that needs nothing else."""
        if self.rewriter.fine:
            self._next(after)

    def _on_reference_local(self, opcode: int, local: int, at: int, after: int) -> None:
        value = self.types[local]
        if opcode == 0x20:
            self.stack.append(value)
        elif opcode == 0x21:
            self.stack.pop()
        else:
            self.stack[-1] = value
        if opcode != 0x20 and self.mirror:
            self._edit(at, after, b"", self._mirrored(local), False)
        self._next(after)

    # -- blocks

    def _block_type(self, at: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
        code = self.data[at + 1]
        if code == 0x40:
            return _NO_TYPES, _NO_TYPES
        simple = _BLOCK_RESULTS.get(code)
        if simple is not None:
            return _NO_TYPES, simple
        reader = Reader(self.data, at + 1, self.bounds.end)
        if code in (0x63, 0x64) or 0x40 < code < 0x80:
            return _NO_TYPES, (_read_value_type(self.data, at + 1, self.bounds.end),)
        number = reader.s33()
        found = self.module.types[number] if 0 <= number < len(self.module.types) else None
        if not isinstance(found, FuncType):
            raise WasmError(f"block type {number} is not a function type", at)
        return found.params, found.results

    def _open(self, opcode: int, at: int) -> _Label:
        params, results = self._block_type(at)
        base = len(self.stack) - len(params)
        label = _Label(opcode, at, base, params, results, True, at in self.known_landings)
        below = self.labels[-1].base
        if base > below:
            # These cannot be reached from inside the block: they are put aside here.
            self._put(at, self._aside(self.stack[below:], below))
        self.labels.append(label)
        # The operands of the stack that were declared are now known by the block's types.
        if params:
            self.stack[base:] = params
        return label

    def _on_block(self, at: int, after: int) -> None:
        self.count += 1
        self._open(ops.BLOCK, at)
        self._plain(after)

    def _on_loop(self, at: int, after: int) -> None:
        self.count += 1
        self._open(ops.LOOP, at)
        landing = at in self.known_landings
        if landing:
            self._put(at, self.flush)
        self._next(after, HEAD_LANDING if landing else 0, landing)
        if landing:
            self._land()

    def _on_if(self, at: int, after: int) -> None:
        self.count += 1
        self.stack.pop()
        # The condition is on top of what would be put aside: that is then done on either side of the branch.
        params, results = self._block_type(at)
        base = len(self.stack) - len(params)
        label = _Label(ops.IF, at, base, params, results, True, at in self.known_landings)
        below = self.labels[-1].base
        if base > below:
            condition = self._temporary("condition", "i32")
            self._put(at, b"\x21" + condition + self._aside(self.stack[below:], below) + b"\x20" + condition)
        if label.landing:
            self._put(at, self.flush)
        self._keep_hint(at)
        self.labels.append(label)
        if params:
            self.stack[base:] = params
        label.targeted = True
        self._next(after)

    def _on_try_table(self, at: int, after: int) -> None:
        self.count += 1
        reader = Reader(self.data, at + 1, after)
        ops.read_block_type(reader)
        for depth in ops.read_catches(reader):
            label = self._label(depth, at)
            label.targeted = True
            self.landings.add(label.at)
        self._open(ops.TRY_TABLE, at)
        self._plain(after)

    def _on_else(self, at: int, after: int) -> None:
        label = self.labels[-1]
        if label.opcode != ops.IF:
            raise WasmError("else without if", at)
        if self.live and label.landing:
            self._put(at, self.flush)
        if self.live:
            self._close(at)
        self.live = True
        self.stack[label.base :] = label.params
        self._begin(after)

    def _on_end(self, at: int, after: int) -> None:
        label = self.labels[-1]
        if label.opcode == _FUNCTION:
            if self.live:
                if label.landing:
                    self._put(at, self.flush)
                self._close(at)
            self._landed = label.landing
            # The wrapping block ends where the function did.
            self._put(at, b"")
            self.copied = after
            self.labels.pop()
            return
        merges = label.opcode != ops.LOOP and label.targeted
        if self.live and merges and label.landing:
            self._put(at, self.flush)
        was_live = self.live
        if was_live and merges:
            self._close(at)
        self.labels.pop()
        self.live = label.live_outside
        if not self.live:
            return
        self.stack[label.base :] = label.results
        if merges or not was_live:
            self._begin(after, HEAD_LANDING if label.landing else 0, label.landing)
            if label.landing:
                self._land()

    # In code that cannot be reached only the nesting counts.

    def _dead_open(self, at: int, after: int) -> None:
        self.labels.append(_Label(self.data[at], at, len(self.stack), (), (), False, False))

    def _dead_else(self, at: int, after: int) -> None:
        if self.labels[-1].live_outside:
            self._on_else(at, after)

    def _dead_end(self, at: int, after: int) -> None:
        self._on_end(at, after)

    # -- branches

    def _label(self, depth: int, at: int) -> _Label:
        if depth >= len(self.labels):
            raise WasmError(f"label {depth} does not exist", at)
        return self.labels[-1 - depth]

    def _branch(self, depths: Iterable[int], at: int) -> None:
        flush = False
        for depth in depths:
            label = self._label(depth, at)
            label.targeted = True
            flush = flush or label.landing
        if flush:
            self._put(at, self.flush)

    def _end_of_life(self, after: int) -> None:
        """What follows, up to the end of the block, is never reached."""
        self._close(after)
        self.live = False

    def _on_br(self, at: int, after: int) -> None:
        self.count += 1
        self._branch((self._index(at),), at)
        self._end_of_life(after)

    def _on_br_if(self, at: int, after: int) -> None:
        self.count += 1
        self.stack.pop()
        self._branch((self._index(at),), at)
        self._keep_hint(at)
        self._next(after)

    def _on_br_table(self, at: int, after: int) -> None:
        self.count += 1
        self._branch(ops.read_branch_table(Reader(self.data, at + 1, after)), at)
        self._end_of_life(after)

    def _on_br_on_null(self, at: int, after: int) -> None:
        self.count += 1
        self._branch((self._index(at),), at)
        value = self.stack[-1]
        self.stack[-1] = _non_null(value)
        self._keep_hint(at)
        self._next(after)

    def _on_br_on_non_null(self, at: int, after: int) -> None:
        self.count += 1
        self._branch((self._index(at),), at)
        self.stack.pop()
        self._keep_hint(at)
        self._next(after)

    def _keep_hint(self, at: int) -> None:
        likely = self.given_hints.get(at - self.bounds.start)
        if likely is not None:
            self._put(at, b"")
            self.hinted.append((len(self.out), 0, likely))  # the instruction opens the next chunk

    def _on_leave(self, at: int, after: int) -> None:
        """return, unreachable, throw, throw_ref."""
        self.count += 1
        self._put(at, self.flush + (self._close_mirror() if self.data[at] == ops.RETURN else b""))
        self._end_of_life(after)

    def _on_tail_call(self, at: int, after: int) -> None:
        self.count += 1
        self._put(at, self.flush + self._close_mirror())
        self._end_of_life(after)

    # -- calls

    def _callee(self, at: int) -> FuncType:
        opcode = self.data[at]
        index = self._index(at)
        if opcode == ops.CALL:
            if index >= len(self.module.functions):
                raise WasmError(f"function {index} does not exist", at)
            return self.module.function_type(index)
        found = self.module.types[index] if index < len(self.module.types) else None
        if not isinstance(found, FuncType):
            raise WasmError(f"type {index} is not a function type", at)
        return found

    def _on_call(self, at: int, after: int) -> None:
        self.count += 1
        callee = self._callee(at)
        self._pop(len(callee.params) + (self.data[at] != ops.CALL))
        self.stack += callee.results
        self._put(at, self.flush)
        self.stretches[-1].flags |= HEAD_CALLS
        self._next(after, HEAD_AFTER_CALL, True)

    # -- operands, references, tables

    def _on_drop(self, at: int, after: int) -> None:
        self.count += 1
        if is_reference(self.stack.pop()):
            self._next(after)
        else:
            self._plain(after)

    def _on_select(self, at: int, after: int) -> None:
        self.count += 1
        self._pop(2)
        if is_reference(self.stack[-1]):
            self._next(after)
        else:
            self._plain(after)

    def _on_typed_select(self, at: int, after: int) -> None:
        self.count += 1
        self._pop(2)
        value = _read_value_type(self.data, at + 2, after)
        self.stack[-1] = value
        if is_reference(value):
            self._next(after)
        else:
            self._plain(after)

    def _on_global(self, at: int, after: int) -> None:
        self.count += 1
        index = self._index(at)
        if index >= len(self.module.globals):
            raise WasmError(f"global {index} does not exist", at)
        value = self.module.globals[index].value
        if self.data[at] == 0x23:
            self.stack.append(value)
        else:
            self.stack.pop()
            if not is_reference(value):
                report = i32(index) + i32(at - self.rewriter.code_start) + self.get + self.rewriter.relays.global_set
                self._edit(at, after, b"", report, True)
        if is_reference(value):
            self._next(after)
        else:
            self._plain(after)

    def _on_ref_null(self, at: int, after: int) -> None:
        self.count += 1
        self.stack.append(_null_type(self.data, at + 1, after))
        self._next(after)

    def _on_ref_is_null(self, at: int, after: int) -> None:
        self.count += 1
        self.stack[-1] = "i32"
        self._next(after)

    def _on_ref_func(self, at: int, after: int) -> None:
        self.count += 1
        index = self._index(at)
        if index >= len(self.module.functions):
            raise WasmError(f"function {index} does not exist", at)
        self.stack.append(f"(ref {self.module.functions[index]})")
        self._next(after)

    def _on_as_non_null(self, at: int, after: int) -> None:
        self.count += 1
        self.stack[-1] = _non_null(self.stack[-1])
        self._next(after)

    def _on_table(self, at: int, after: int) -> None:
        """table.get, table.set."""
        self.count += 1
        index = self._index(at)
        if index >= len(self.module.tables):
            raise WasmError(f"table {index} does not exist", at)
        if self.data[at] == 0x25:
            self.stack[-1] = self.module.tables[index].element
        else:
            self._pop(2)
        self._next(after)

    # -- memory

    def _memory(self, index: int, at: int) -> str:
        """The address type of a memory."""
        if index >= len(self.module.memories):
            raise WasmError(f"memory {index} does not exist", at)
        return address_of(self.module.memories[index].limits.is_64)

    def _on_memory_size(self, at: int, after: int) -> None:
        self.count += 1
        self.stack.append(self._memory(self._index(at), at))
        self._plain(after)

    def _on_memory_grow(self, at: int, after: int) -> None:
        self.count += 1
        self.stack[-1] = self._memory(self._index(at), at)
        self._next(after)

    def _memarg(self, at: int, after: int) -> tuple[int, int]:
        """Memory and offset of the access whose immediates stand at `at`."""
        if self.data[at] < 0x40 and self.data[at + 1] < 0x80:
            return 0, self.data[at + 1]
        reader = Reader(self.data, at, after)
        align = reader.u32()
        memory = reader.u32() if align & 0x40 else 0
        return memory, reader.u64()

    def _on_store(self, at: int, after: int) -> None:
        opcode = self.data[at]
        memory, offset = self._memarg(at + 1, after)
        self._store(at, after, memory, offset, effects.STORES[opcode], effects.STORED_TYPES[opcode])

    def _store(self, at: int, after: int, memory: int, offset: int, size: int, value: str) -> None:
        """The value on top goes to the address below it; afterwards that is reported, if someone listens."""
        self.count += 1
        self._pop(2)
        address_type = self._memory(memory, at)
        address = self._temporary("address " + address_type, address_type)
        kept = self._temporary("value " + value, value)
        keep = b"\x21" + kept + b"\x22" + address + b"\x20" + kept
        self._report(at, after, keep, memory, address, _constant(address_type, offset), _constant(address_type, size))
        self._plain(after)

    def _report(self, at: int, after: int, keep: bytes, memory: int, address: bytes, offset: bytes, size: bytes) -> None:
        pc = i32(at - self.rewriter.code_start)
        code = b"\x20" + address + offset + size + pc + self.get + self.rewriter.relays.stored[memory]
        self._edit(at, after, keep, code, True)

    def _on_simd(self, at: int, after: int) -> None:
        sub = ops.sub_opcode(self.data, at, after)
        size = effects.SIMD_STORES.get(sub)
        if size is not None:
            reader = Reader(self.data, at + 1, after)
            reader.u32()
            memory, offset = self._memarg(reader.position, after)
            self._store(at, after, memory, offset, size, "v128")
            return
        effect = effects.SIMD.get(sub)
        if effect is None:
            raise WasmError(f"instruction 0xfd {sub:#04x} cannot be stepped through", at)
        self.count += 1
        self._pop(effect.pops)
        assert effect.push is not None
        self.stack.append(effect.push)
        self._plain(after)

    def _on_misc(self, at: int, after: int) -> None:
        sub = ops.sub_opcode(self.data, at, after)
        known = effects.MISC.get(sub)
        if known is not None:
            self.count += 1
            self._pop(known[0])
            self.stack += known[1]
            self._plain(after)
            return
        reader = Reader(self.data, at + 1, after)
        reader.u32()
        if sub in (8, 10, 11):
            self._on_bulk(at, after, sub, reader)
            return
        self.count += 1
        if sub in (12, 14, 17):  # table.init, table.copy, table.fill
            self._pop(3)
        elif sub in (15, 16):
            index = reader.u32()
            if index >= len(self.module.tables):
                raise WasmError(f"table {index} does not exist", at)
            self._pop(2 if sub == 15 else 0)
            self.stack.append(address_of(self.module.tables[index].limits.is_64))
        elif sub not in (9, 13):  # data.drop, elem.drop
            raise WasmError(f"instruction 0xfc {sub:#04x} cannot be stepped through", at)
        self._next(after)

    def _on_bulk(self, at: int, after: int, sub: int, reader: Reader) -> None:
        """memory.init, memory.copy, memory.fill: (destination, source or value, length)."""
        self.count += 1
        length, source, destination = self.stack[-1], self.stack[-2], self.stack[-3]
        self._pop(3)
        if sub == 8:
            reader.u32()
        memory = reader.u32()
        address_type = self._memory(memory, at)
        to = self._temporary("address " + destination, destination)
        by = self._temporary("length " + length, length)
        of = self._temporary("source " + source, source)
        keep = b"\x21" + by + b"\x21" + of + b"\x22" + to + b"\x20" + of + b"\x20" + by
        wide = b"\xad" if address_type == "i64" and length == "i32" else b""
        self._report(at, after, keep, memory, to, _constant(address_type, 0), b"\x20" + by + wide)
        if sub == 8:
            self._next(after)  # which segments are dropped is the instance's own
        else:
            self._plain(after)


def _constant(address_type: str, value: int) -> bytes:
    if address_type == "i64":
        return _i64(value if value < 1 << 63 else value - (1 << 64))
    return i32(value if value < 1 << 31 else value - (1 << 32))


def _read_value_type(data: bytes, at: int, end: int) -> str:
    """A value type, as `recorder.wasm.module` names it."""
    return read_locals(Reader(b"\x01\x01" + data[at : min(end, at + 12)]))[0][1]


def _null_type(data: bytes, at: int, end: int) -> str:
    """The type of `ref.null` with the heap type at `at`."""
    return _read_value_type(b"\x63" + data[at:end], 0, 12)


def _non_null(value: str) -> str:
    if not effects.is_nullable(value):
        return value
    if value.startswith("(ref null "):
        return "(ref " + value.removeprefix("(ref null ")
    return f"(ref {value.removesuffix('ref')})"


def _heap_of(value: str) -> bytes:
    encoded = encode_type(value)
    return encoded[1:] if encoded[0] == 0x63 else encoded


_ZEROES: Final = {
    "i32": b"\x41\x00",
    "i64": b"\x42\x00",
    "f32": b"\x43" + bytes(4),
    "f64": b"\x44" + bytes(8),
    "v128": b"\xfd\x0c" + bytes(16),
}
_BLOCK_RESULTS: Final[dict[int, tuple[str, ...]]] = {
    0x7F: ("i32",), 0x7E: ("i64",), 0x7D: ("f32",), 0x7C: ("f64",), 0x7B: ("v128",), 0x70: ("funcref",), 0x6F: ("externref",),
}  # fmt: skip

_HANDLERS: Final = {
    **dict.fromkeys((ops.UNREACHABLE, ops.RETURN, ops.THROW, ops.THROW_REF), FunctionBody._on_leave),
    **dict.fromkeys((ops.RETURN_CALL, ops.RETURN_CALL_INDIRECT, ops.RETURN_CALL_REF), FunctionBody._on_tail_call),
    **dict.fromkeys((ops.CALL, ops.CALL_INDIRECT, ops.CALL_REF), FunctionBody._on_call),
    ops.BLOCK: FunctionBody._on_block,
    ops.LOOP: FunctionBody._on_loop,
    ops.IF: FunctionBody._on_if,
    ops.ELSE: FunctionBody._on_else,
    ops.END: FunctionBody._on_end,
    ops.TRY_TABLE: FunctionBody._on_try_table,
    ops.BR: FunctionBody._on_br,
    ops.BR_IF: FunctionBody._on_br_if,
    ops.BR_TABLE: FunctionBody._on_br_table,
    ops.BR_ON_NULL: FunctionBody._on_br_on_null,
    ops.BR_ON_NON_NULL: FunctionBody._on_br_on_non_null,
    0x1A: FunctionBody._on_drop,
    0x1B: FunctionBody._on_select,
    ops.SELECT_TYPED: FunctionBody._on_typed_select,
    **dict.fromkeys((0x23, 0x24), FunctionBody._on_global),
    **dict.fromkeys((0x25, 0x26), FunctionBody._on_table),
    **dict.fromkeys(effects.STORES, FunctionBody._on_store),
    0x3F: FunctionBody._on_memory_size,
    0x40: FunctionBody._on_memory_grow,
    0xD0: FunctionBody._on_ref_null,
    0xD1: FunctionBody._on_ref_is_null,
    0xD2: FunctionBody._on_ref_func,
    0xD4: FunctionBody._on_as_non_null,
    ops.MISC_PREFIX: FunctionBody._on_misc,
    ops.SIMD_PREFIX: FunctionBody._on_simd,
}

_RUN_ENDS: Final = frozenset(_HANDLERS) - {
    0x1A, 0x1B, ops.SELECT_TYPED, 0x23, 0x24, 0x3F, *effects.STORES, ops.MISC_PREFIX, ops.SIMD_PREFIX,
}  # fmt: skip
"""What never stands within a run: the run is complete before it."""

_LENGTHS: Final = bytes(
    1 if opcode in (ops.UNREACHABLE, ops.ELSE, ops.END, ops.RETURN, 0x1A, 0x1B, 0xD1, 0xD4)
    else 2 if opcode in (ops.BR, ops.BR_IF, ops.CALL, ops.THROW, ops.RETURN_CALL, 0x23, 0x24, 0x3F, 0x40)
    else 0
    for opcode in range(256)
)  # fmt: skip
"""Bytes of an instruction, if its index takes one; 0 where that is not all."""

_DEAD_HANDLERS: Final = {
    **dict.fromkeys((ops.BLOCK, ops.LOOP, ops.IF, ops.TRY_TABLE), FunctionBody._dead_open),
    ops.ELSE: FunctionBody._dead_else,
    ops.END: FunctionBody._dead_end,
}
