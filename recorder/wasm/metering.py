"""The guest's instruction clock: rewriting a module so that it counts what it executes and can be stopped
exactly.

**The clock** counts every instruction of the given module that is begun, except `end` and `else`, over the
life of an instance: exports called one after the other continue it. A `loop` counts when it is entered, not
when a branch goes back to it. The clock is an exported i64 global; it is exact whenever the guest is outside:
in an imported function, after an export returned or left with an exception, at a stop, and at the guest's own
`unreachable`. After any other trap it shows the last of those moments, which may be earlier than the trap but
never later.

**The stop word** is the i64 at address `STOP_WORD` of an exported one-page memory. The guest stops, with an
`unreachable` trap, at the first check where the clock has reached it. The embedder writes it, before the
first call and whenever it likes, from any thread that knows where the memory lies. A fresh instance holds 0,
which stops at the first check: whoever forgets the limit sees it at once. `NO_LIMIT` never stops. At a stop
the guest also sets the i32 at `STOPPED_FLAG` to 1, which tells a stop from an `unreachable` of its own.

**Exactness.** At every check the clock is exact, and between two checks with the same clock no instruction of
the guest has begun. So after a stop at clock C, however the limit came to be written, a fresh instance with C
in the stop word from the start stops after the same instruction with the same memory. One caveat: what the
*embedder* does between two calls, or inside an import that calls back, takes no clock time. To stop inside
the same call, write C only when that call begins.

**Checks** stand at loop heads, at function entries, and after calls that may have left the module: calls of
imports, indirect calls and calls of references. A call of the module's own functions needs none behind it,
because the callee checked on entry. Whatever runs for long passes one; the stretch between two checks is
straight-line code.

Only appends: one global, one memory, exports. No index shifts, so sections other than code stay as they are,
except for custom sections that hold code offsets (DWARF, relocations, branch hints), which would lie and are
dropped; branch hints are carried over. A start section becomes an export, to be called before anything else.
Modules that had one memory have two: the engine must allow several memories, and its limits one more of each.

`meter` is a pure function of the given bytes. Whatever changes its output changes `METERING_VERSION`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from recorder.wasm import instructions as ops
from recorder.wasm.binary import CUSTOM_SECTION, Reader, WasmError, custom_section, section, sleb, uleb, vec
from recorder.wasm.module import (
    CODE,
    EXPORT,
    GLOBAL,
    MEMORY,
    START,
    Body,
    Export,
    Module,
    Section,
    parse_module,
    read_locals,
)
from recorder.wasm.rewrite import encode_export, rebuild, unused_export_name

METERING_VERSION: Final = 1
"""Named in manifests: the same bytes metered under the same version give the same bytes."""

STOP_WORD: Final = 0
"""Address in the stop memory of the i64, little-endian, at which the guest is to stop."""
STOPPED_FLAG: Final = 8
"""Address in the stop memory of the i32 that a stop sets to 1."""
NO_LIMIT: Final = (1 << 63) - 1
"""The stop word that never stops."""

BRANCH_HINTS: Final = "metadata.code.branch_hint"


@dataclass(frozen=True, slots=True)
class Metered:
    """A metered module and where its instruments are."""

    data: bytes
    """The module to run."""
    clock_export: str
    """The name of the clock: a mutable i64 global that starts at 0."""
    stop_export: str
    """The name of the memory that holds the stop word."""
    start_export: str | None
    """The function that was the start function, to be called right after instantiation; None if there was
    none."""


def meter(data: bytes) -> Metered:
    """Rewrite a core module so that it counts its instructions; raises WasmError, by name, for what cannot
    be."""
    module = parse_module(data)
    clock = Export(unused_export_name(module, "reprise:clock"), "global", len(module.globals))
    stop = Export(unused_export_name(module, "reprise:stop"), "memory", len(module.memories))
    exports = [clock, stop]
    if module.start is not None:
        exports.append(Export(unused_export_name(module, "reprise:start"), "function", module.start))
    metered = rebuild(
        module,
        append={
            GLOBAL: [b"\x7e\x01\x42\x00\x0b"],  # mutable i64, initially 0
            MEMORY: [b"\x01\x01\x01"],  # exactly one page: accesses need no bounds check, and it never moves
            EXPORT: [encode_export(export) for export in exports],
        },
        replace={CODE: _meter_code(module, _Code(clock.index, stop.index))},
        drop=drops_section,
    )
    return Metered(metered, clock.name, stop.name, exports[2].name if module.start is not None else None)


def drops_section(found: Section) -> bool:
    """The start section, which became an export, and custom sections that hold code offsets."""
    if found.id != CUSTOM_SECTION:
        return found.id == START
    return found.name in ("linking", "sourceMappingURL", "external_debug_info") or found.name.startswith(
        (".debug_", "reloc.", "metadata.code.")
    )


def _meter_code(module: Module, code: _Code) -> bytes:
    """The sections that replace the code section: branch hints, then the code."""
    given_hints = read_hints(module)
    bodies: list[bytes] = []
    hints: list[bytes] = []
    for position, body in enumerate(module.code):
        index = module.imported.functions + position
        rewriter = _meter_body(module, index, body, code, given_hints.get(index, {}))
        content = rewriter.content()
        bodies.append(uleb(len(content)) + content)
        if rewriter.hints:
            encoded = vec(uleb(at) + b"\x01" + bytes((likely,)) for at, likely in rewriter.hints)
            hints.append(uleb(index) + encoded)
    return (custom_section(BRANCH_HINTS, vec(hints)) if hints else b"") + section(CODE, vec(bodies))


def read_hints(module: Module) -> dict[int, dict[int, int]]:
    """The module's own branch hints: function, offset in the body, likely or not. A malformed section gives
    none."""
    content = module.custom(BRANCH_HINTS)
    if content is None:
        return {}
    hints: dict[int, dict[int, int]] = {}
    reader = Reader(content)
    try:
        for _ in range(reader.count(2)):
            of_function = hints.setdefault(reader.u32(), {})
            for _ in range(reader.count(3)):
                at = reader.u32()
                value = reader.take(reader.u32())
                if value in (b"\0", b"\1"):
                    of_function[at] = value[0]
    except WasmError:
        return {}
    return hints


class _Code:
    """The instrumentation as bytes, for one module."""

    def __init__(self, clock: int, stop_memory: int) -> None:
        self.set_clock: Final = b"\x24" + uleb(clock)
        self.get_clock: Final = b"\x23" + uleb(clock)
        # A memory index needs bit 6 of the alignment; memory 0 goes without, so that it needs no proposal.
        index = uleb(stop_memory) if stop_memory else b""
        bit = 0x40 if stop_memory else 0
        load = b"\x29" + bytes((3 | bit,)) + index + uleb(STOP_WORD)
        store_flag = b"\x36" + bytes((2 | bit,)) + index + uleb(STOPPED_FLAG)
        self.at_limit: Final = b"\x41\x00" + load + b"\x59"
        """With the clock on the stack: i32.const 0, i64.load, i64.ge_s."""
        self.at_limit_in_loop: Final = b"\x42\x3f\x88\xa7" + load + b"\x59"
        """With the clock on the stack twice: i64.const 63, i64.shr_u, i32.wrap_i64, i64.load, i64.ge_s.

        The address is 0, because the clock is never negative, but the engine does not know that. From address
        0 it would load once, before a loop that neither stores nor calls, and a limit written later would go
        unseen.
        """
        self.stop: Final = b"\x41\x00\x41\x01" + store_flag + b"\x00\x0b"
        """Behind the clock's flush: set the flag, unreachable, end."""


class _Label:
    """What a branch can go to."""

    __slots__ = ("landing", "live_outside", "offset", "opcode", "targeted")

    def __init__(self, opcode: int, offset: int, live_outside: bool, landing: bool) -> None:
        self.opcode = opcode
        self.offset = offset
        """Of the opening instruction; tells labels apart."""
        self.live_outside = live_outside
        """Whether the opening instruction can be reached."""
        self.landing = landing
        """Whether a catch clause goes here too, so that the local clock may be stale on arrival: then
        everyone who comes here brings the clock in the global."""
        self.targeted = False
        """Whether a branch to its end has been seen."""


_FUNCTION = -1
"""The opcode of the label that is the function itself."""


def _meter_body(module: Module, index: int, body: Body, code: _Code, given_hints: dict[int, int]) -> _BodyRewriter:
    """Rewrite one function.

    Which labels a catch clause goes to must be known before the first branch to them, so a body with
    try_table is done twice: the first time finds them.
    """
    landings: frozenset[int] = frozenset()
    while True:
        rewriter = _BodyRewriter(module, index, body, code, given_hints, landings)
        rewriter.run()
        if rewriter.landings <= landings:
            return rewriter
        landings = frozenset(rewriter.landings)


class _BodyRewriter:
    """One pass over a function's instructions.

    Instructions are counted in `pending` and added to the clock in one go before the straight line can be
    left, and before the end of a block that a branch may skip to. The clock lives in a local; it goes to the
    global before calls and exits and comes back after calls.
    """

    def __init__(
        self,
        module: Module,
        index: int,
        body: Body,
        code: _Code,
        given_hints: dict[int, int],
        known: frozenset[int],
    ) -> None:
        self.module = module
        self.data = module.data
        self.body = body
        self.code = code
        self.given_hints = given_hints
        self.known_landings = known
        self.landings: set[int] = set()
        self.pending = 0
        self.live = True
        self.labels: list[_Label] = []
        self.hints: list[tuple[int, int]] = []
        """(offset in the new body, likely) of each hinted branch."""
        reader = Reader(self.data, body.start, body.end)
        signature = module.function_type(index)
        locals_before = read_locals(reader)
        first = reader.position
        clock_local = len(signature.params) + sum(count for count, _ in locals_before)
        if clock_local >= 1 << 32:
            raise WasmError("too many locals", body.start)
        after_count = Reader(self.data, body.start, first)
        after_count.u32()
        declared = uleb(len(locals_before) + 1) + self.data[after_count.position : first] + b"\x01\x7e"
        self.out: list[bytes] = [declared]
        self.size = len(declared)
        self.copied = first
        """Up to here the given body is in `out`."""
        self.get = b"\x20" + uleb(clock_local)
        self.set = b"\x21" + uleb(clock_local)
        self.tee = b"\x22" + uleb(clock_local)

    def content(self) -> bytes:
        return b"".join(self.out)

    def run(self) -> None:
        data, end = self.data, self.body.end
        at = self.copied
        self.labels = [_Label(_FUNCTION, at, True, False)]
        self._reload_and_check(at)
        handlers = _HANDLERS
        while at < end:
            count, at = ops.straight_run(data, at, end)
            if self.live:
                self.pending += count
            if at >= end:
                break
            opcode = data[at]
            after = ops.instruction_end(data, at, end)
            handler = handlers.get(opcode)
            if handler is None:
                raise WasmError(f"{_REFUSED.get(opcode, 'unknown instruction')} cannot be metered", at)
            if not self.labels:
                raise WasmError("instructions behind the end of a function", at)
            handler(self, at, after)
            at = after
        if self.labels:
            raise WasmError("a function does not end", end)
        self._put(end, b"")

    # --- output

    def _put(self, at: int, code: bytes) -> None:
        """Put `code` before the given instruction at `at`."""
        chunk = self.data[self.copied : at] + code
        self.copied = at
        self.out.append(chunk)
        self.size += len(chunk)

    def _advanced(self) -> bytes:
        """The clock, brought up to date, on the stack."""
        count, self.pending = self.pending, 0
        return self.get + b"\x42" + sleb(count) + b"\x7c" if count else self.get

    def _settle(self, at: int) -> None:
        """Bring the local clock up to date."""
        if self.live and self.pending:
            self._put(at, self._advanced() + self.set)

    def _settle_and_flush(self, at: int) -> None:
        """Bring the local and the global clock up to date."""
        if self.live:
            self._put(at, (self._advanced() + self.tee if self.pending else self.get) + self.code.set_clock)

    def _flush(self, at: int) -> None:
        """Bring the global clock up to date; the local one is not needed any more."""
        if self.live:
            self._put(at, self._advanced() + self.code.set_clock)

    def _reload_and_check(self, at: int) -> None:
        """The check at entries and after calls."""
        self._check(at, self.code.get_clock + self.tee + self.code.at_limit)

    def _check_in_loop(self, at: int) -> None:
        self._check(at, self.get + self.get + self.code.at_limit_in_loop)

    def _check(self, at: int, condition: bytes) -> None:
        """Stop if `condition` holds; the local clock must be right."""
        self._put(at, condition)
        self.hints.append((self.size, 0))
        self._put(at, b"\x04\x40" + self.get + self.code.set_clock + self.code.stop)

    # --- labels

    def _open(self, opcode: int, at: int) -> _Label:
        label = _Label(opcode, at, self.live, at in self.known_landings)
        self.labels.append(label)
        return label

    def _label(self, depth: int, at: int) -> _Label:
        if depth >= len(self.labels):
            raise WasmError(f"label {depth} does not exist", at)
        return self.labels[-1 - depth]

    def _branch(self, depths: list[int], at: int) -> None:
        """The instruction at `at`, counted already, may go to any of these labels."""
        flush = False
        for depth in depths:
            label = self._label(depth, at)
            label.targeted = True
            flush = flush or label.landing or label.opcode == _FUNCTION
        if flush:
            self._settle_and_flush(at)
        else:
            self._settle(at)

    def _count(self) -> None:
        if self.live:
            self.pending += 1

    def _stop_living(self) -> None:
        """What follows, up to the end of the block, is never reached."""
        self.live = False
        self.pending = 0

    # --- instructions

    def _on_block(self, at: int, after: int) -> None:
        self._count()
        self._open(self.data[at], at)

    def _on_loop(self, at: int, after: int) -> None:
        self._count()
        label = self._open(ops.LOOP, at)
        if not self.live:
            return
        if label.landing:
            self._settle_and_flush(at)
            self._put(after, self.code.get_clock + self.set)
        else:
            self._settle(at)
        self._check_in_loop(after)

    def _on_if(self, at: int, after: int) -> None:
        self._count()
        label = self._open(ops.IF, at)
        label.targeted = True  # without an else the condition itself goes to the end
        if label.landing:
            self._settle_and_flush(at)
        else:
            self._settle(at)
        self._hint(at)

    def _on_else(self, at: int, after: int) -> None:
        label = self.labels[-1]
        if label.opcode != ops.IF:
            raise WasmError("else without if", at)
        self._arrive(label, at)
        self.live = label.live_outside
        self.pending = 0

    def _on_try_table(self, at: int, after: int) -> None:
        self._count()
        reader = Reader(self.data, at + 1, after)
        ops.read_block_type(reader)
        for depth in ops.read_catches(reader):
            label = self._label(depth, at)
            label.targeted = True
            if label.opcode != _FUNCTION:  # a catch that returns needs nothing: the global clock is right
                self.landings.add(label.offset)
        self._open(ops.TRY_TABLE, at)

    def _on_end(self, at: int, after: int) -> None:
        label = self.labels.pop()
        if label.opcode == _FUNCTION:
            self._flush(at)
            return
        if label.opcode != ops.LOOP and label.targeted:
            self._arrive(label, at)
            if label.landing and label.live_outside:
                self._put(after, self.code.get_clock + self.set)
        self.live = label.live_outside

    def _arrive(self, label: _Label, at: int) -> None:
        """The straight line reaches the end of a block that others may reach too."""
        if label.landing:
            self._settle_and_flush(at)
        else:
            self._settle(at)

    def _on_br(self, at: int, after: int) -> None:
        self._count()
        self._branch([self._index(at)], at)
        self._stop_living()

    def _on_br_if(self, at: int, after: int) -> None:
        self._count()
        self._branch([self._index(at)], at)
        self._hint(at)

    def _on_br_table(self, at: int, after: int) -> None:
        self._count()
        self._branch(ops.read_branch_table(Reader(self.data, at + 1, after)), at)
        self._stop_living()

    def _on_gc(self, at: int, after: int) -> None:
        """br_on_cast and br_on_cast_fail: prefix, sub-opcode, flags, label."""
        self._count()
        reader = Reader(self.data, at + 1, after)
        reader.u32()
        reader.byte()
        self._branch([reader.u32()], at)

    def _on_exit(self, at: int, after: int) -> None:
        """return, throw, unreachable, tail calls."""
        self._count()
        self._flush(at)
        self._stop_living()

    def _on_call(self, at: int, after: int) -> None:
        self._count()
        if not self.live:
            return
        self._flush(at)
        if self._may_leave(at):
            self._reload_and_check(after)
        else:
            self._put(after, self.code.get_clock + self.set)

    def _may_leave(self, at: int) -> bool:
        """Whether the call at `at` may run something that did not check on entry."""
        return self.data[at] != ops.CALL or self._index(at) < self.module.imported.functions

    def _index(self, at: int) -> int:
        return Reader(self.data, at + 1, self.body.end).u32()

    def _hint(self, at: int) -> None:
        """Carry over the hint for the branch at `at`. Code before it must be in `out` already."""
        likely = self.given_hints.get(at - self.body.start)
        if likely is not None:
            self.hints.append((self.size + at - self.copied, likely))


_TAIL_CALLS: Final = (ops.RETURN_CALL, ops.RETURN_CALL_INDIRECT, ops.RETURN_CALL_REF)

_HANDLERS: Final = {
    **dict.fromkeys((ops.UNREACHABLE, ops.THROW, ops.THROW_REF, ops.RETURN), _BodyRewriter._on_exit),
    **dict.fromkeys(_TAIL_CALLS, _BodyRewriter._on_exit),
    **dict.fromkeys((ops.CALL, ops.CALL_INDIRECT, ops.CALL_REF), _BodyRewriter._on_call),
    **dict.fromkeys((ops.BR_IF, ops.BR_ON_NULL, ops.BR_ON_NON_NULL), _BodyRewriter._on_br_if),
    ops.BLOCK: _BodyRewriter._on_block,
    ops.LOOP: _BodyRewriter._on_loop,
    ops.IF: _BodyRewriter._on_if,
    ops.ELSE: _BodyRewriter._on_else,
    ops.TRY_TABLE: _BodyRewriter._on_try_table,
    ops.END: _BodyRewriter._on_end,
    ops.BR: _BodyRewriter._on_br,
    ops.BR_TABLE: _BodyRewriter._on_br_table,
    ops.GC_PREFIX: _BodyRewriter._on_gc,
}

_REFUSED: Final = {
    **dict.fromkeys(ops.LEGACY_EXCEPTIONS, "legacy-exceptions"),
    **dict.fromkeys(ops.STACK_SWITCHING, "stack-switching"),
}
