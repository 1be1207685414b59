"""The instrumented twin of a module: the same program, rewritten to be stopped before any instruction and looked into.

**Clock.** Every instruction of the given module that is begun counts, except `end` and `else`. Code is cut into *stretches*:
straight lines that run from their first instruction to their last, which is the first one that may go elsewhere, or that a
fragment of a function could not hold (anything that touches a reference). At the head of a stretch its length is taken off the
countdown, an i64 that lives in a local and goes to the exported global `left` around calls. When the countdown is negative, the
guest calls the `stop` function of the support module (`replayer.support`), which decides what that means.

**Frames.** After `stop` answered with less than `UNWINDING`, every frame writes itself to the support memory (function, position,
locals, operands) and returns, innermost first, up to whoever called the guest. Locals thus cost nothing while the guest runs. In
a function for which the engine would pay too much for that (code size times locals), locals are mirrored to memory as they are
set.

**Writes.** While the countdown is biased below zero, every store, bulk operation and `global.set` is reported after it happened.

**Exceptions** end frames that nobody sees return. A function that catches remembers what they may leave behind: where its
mirrored frame ends, and, while someone listens, how deep it is (its *seat*). Both are put right wherever a catch clause lands.

Only appends: one global, one memory, one table, relay functions (through which cold code calls what is in the table), types and
exports. No index shifts; `pc` is an offset from the start of the given code section, which is also what DWARF calls an address. A
start section becomes an export. The rewriting is a pure function of the bytes; whatever changes its output changes
`TWIN_VERSION`. How a function is rewritten is `replayer.twinbody`'s business.
"""

from __future__ import annotations

import bisect
from array import array
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final

from recorder.wasm.binary import WasmError, custom_section, section, uleb, vec
from recorder.wasm.effects import encode_type
from recorder.wasm.metering import BRANCH_HINTS, drops_section, read_hints
from recorder.wasm.module import (
    CODE,
    EXPORT,
    FUNCTION,
    GLOBAL,
    MEMORY,
    TABLE,
    TYPE,
    Export,
    Module,
    parse_module,
)
from recorder.wasm.rewrite import encode_export, rebuild, unused_export_name
from replayer.twinbody import (
    DUMP_HEAD,
    GLOBAL_SLOT,
    HEAD_AFTER_CALL,
    HEAD_CALLS,
    HEAD_ENTRY,
    HEAD_LANDING,
    LAND_SLOT,
    MIRROR_HEAD,
    SEAT,
    STOP_SLOT,
    STORE_SLOT,
    UNWINDING,
    FunctionBody,
    Slot,
    Step,
    address_of,
    i32,
)

__all__ = [
    "BIAS",
    "DUMP_HEAD",
    "GLOBAL_SLOT",
    "HEAD_AFTER_CALL",
    "HEAD_CALLS",
    "HEAD_ENTRY",
    "HEAD_LANDING",
    "LAND_SLOT",
    "LOG_SIZE",
    "MIRROR_HEAD",
    "SEAT",
    "STOP_SLOT",
    "STORE_SLOT",
    "TWIN_VERSION",
    "UNWINDING",
    "Layout",
    "Rewriter",
    "Slot",
    "Step",
    "Stretches",
    "Twin",
    "build_twin",
]

TWIN_VERSION: Final = 3

BIAS: Final = 1 << 60
"""Taken off the countdown to make the guest report what it does; the countdown counts on below it."""

# -- the support memory: one appended memory, its parts at fixed places ------------------------------------------------------

PAGE: Final = 65536
FLAGS: Final = PAGE
"""A byte per pc."""
LOG_SIZE: Final = 4 << 20
DUMP_SIZE: Final = 64 << 20
MIRROR_SIZE: Final = 512 << 20

QUADRATIC: Final = 120_000
"""Stretches times locals of a function beyond which its locals are mirrored."""


@dataclass(frozen=True)
class Layout:
    """Where the parts of the support memory lie."""

    flags: int
    log: int
    dump: int
    mirror: int
    end: int

    @property
    def pages(self) -> int:
        return self.end // PAGE


def layout_for(code_size: int) -> Layout:
    log = FLAGS + (code_size + PAGE) // PAGE * PAGE
    dump = log + LOG_SIZE
    mirror = dump + DUMP_SIZE
    return Layout(FLAGS, log, dump, mirror, mirror + MIRROR_SIZE)


@dataclass
class Stretches:
    """Every stretch of a module, in the order of its code."""

    pcs: array[int] = field(default_factory=lambda: array("I"))
    """Where each begins."""
    counts: array[int] = field(default_factory=lambda: array("I"))
    """How many instructions it has."""
    heads: array[int] = field(default_factory=lambda: array("B"))
    """What its head is: HEAD_… bits."""

    @cached_property
    def marked(self) -> list[tuple[int, int]]:
        """Those whose head is anything: where they begin, and what it is."""
        return [(pc, head) for pc, head in zip(self.pcs, self.heads, strict=True) if head]

    def at(self, pc: int) -> int:
        """Number of the stretch that holds the instruction at `pc`."""
        index = bisect.bisect_right(self.pcs, pc) - 1
        if index < 0:
            raise WasmError(f"no instruction that can run stands at code offset {pc:#x}")
        return index


@dataclass(frozen=True)
class Twin:
    """A twin and where its instruments are."""

    data: bytes
    """The module to run."""
    left: str
    """Export: the countdown, a mutable i64."""
    memory: str
    """Export: the support memory."""
    table: str
    """Export: the table of the support module's functions."""
    start: str | None
    """Export: what was the start function."""
    memories: tuple[str, ...]
    """Exports, by index: every memory of the guest."""
    globals: tuple[str, ...]
    tables: tuple[str, ...]
    stretches: Stretches
    mirrored: frozenset[int]
    """Functions whose locals are mirrored."""
    instructions: int
    """How many the module has; for measuring."""
    layout: Layout


def build_twin(data: bytes, *, fine: bool = False) -> Twin:
    """Rewrite a core module; raises WasmError, by name, for what cannot be.

    `fine` makes every instruction a stretch of its own: slow, and an independent check of everything else.
    """
    return Rewriter(parse_module(data), fine=fine).twin()


class Relays:
    """The appended functions through which cold code reaches the support module: to call one is the least code there can be."""

    def __init__(self, rewriter: Rewriter) -> None:
        self._rewriter = rewriter
        self.functions: list[tuple[int, bytes]] = []
        """Type and body of each."""
        addresses = [address_of(memory.limits.is_64) for memory in rewriter.module.memories]
        self.stop = self._relay(STOP_SLOT, ("i64", "i32"), ("i64",))
        """Code that calls it."""
        self.global_set = self._relay(GLOBAL_SLOT, ("i32", "i32", "i64"), ())
        self.land = self._relay(LAND_SLOT, ("i64",), ())
        self.stored = [self._relay(STORE_SLOT + i, (a, a, a, "i32", "i64"), ()) for i, a in enumerate(addresses)]

    def _relay(self, slot: int, params: tuple[str, ...], results: tuple[str, ...]) -> bytes:
        number = self._rewriter.type_number(params, results)
        arguments = b"".join(b"\x20" + uleb(i) for i in range(len(params)))
        body = b"\0" + arguments + i32(slot) + b"\x11" + uleb(number) + uleb(self._rewriter.table) + b"\x0b"
        self.functions.append((number, body))
        return b"\x10" + uleb(len(self._rewriter.module.functions) + len(self.functions) - 1)


class Rewriter:
    """One module's rewriting."""

    def __init__(self, module: Module, *, fine: bool = False, mirrored: Iterable[int] | None = None) -> None:
        self.module = module
        self.fine = fine
        self._refuse(module.structural_features)
        code = module.section(CODE)
        self.code_start = code.start if code is not None else 0
        self.layout = layout_for(code.end - code.start if code is not None else 0)
        self.mirrored: set[int] = set(mirrored or ())
        self._mirror_decided = mirrored is not None
        self.left = len(module.globals)
        self.memory = len(module.memories)
        self.table = len(module.tables)
        self.stretches = Stretches()
        self.instructions = 0
        self._types: list[bytes] = []
        self._declared: set[int] = set()
        """Functions that the twin refers to: it has to export them."""
        self._type_numbers: dict[tuple[tuple[str, ...], tuple[str, ...]], int] = {}
        self.relays = Relays(self)
        self.given_hints = read_hints(module)

    def _refuse(self, features: frozenset[str]) -> None:
        for feature, what in (
            ("gc", "garbage-collected types"),
            ("threads", "threads"),
            ("stack-switching", "stack switching"),
            ("legacy-exceptions", "legacy exception handling"),
            ("custom-page-sizes", "custom page sizes"),
        ):
            if feature in features:
                raise WasmError(f"the module uses {what}, which the time machine cannot step through yet") from None

    def type_number(self, params: tuple[str, ...], results: tuple[str, ...]) -> int:
        """The index of a function type, appended if the twin has none yet."""
        key = (params, results)
        number = self._type_numbers.get(key)
        if number is None:
            number = len(self.module.types) + len(self._types)
            encoded = b"\x60" + vec(encode_type(t) for t in params) + vec(encode_type(t) for t in results)
            # A function type of the module's own may be part of a recursive group or have supertypes: a new one never is.
            self._types.append(encoded)
            self._type_numbers[key] = number
        return number

    def stand_in(self, value: str) -> int:
        """A function that a reference which cannot be null may stand for, in a frame that returns nothing that matters."""
        heap = value.removeprefix("(ref ").removesuffix(")")
        for index, number in enumerate(self.module.functions):
            if heap in ("func", str(number)):
                self._declared.add(index)
                return index
        raise WasmError(f"a function returns {value}, of which there is none to be made, so that it cannot be unwound")

    def twin(self) -> Twin:
        module = self.module
        bodies: list[bytes] = []
        hints: list[bytes] = []
        for position in range(len(module.code)):
            index = module.imported.functions + position
            body = self.body(index)
            stretches = body.stretches
            self.stretches.pcs.extend(head.at - self.code_start for head in stretches)
            self.stretches.counts.extend(head.count for head in stretches)
            self.stretches.heads.extend(head.flags for head in stretches)
            self.instructions += body.instructions
            content, hinted = body.content()
            bodies.append(uleb(len(content)) + content)
            if hinted:
                hints.append(uleb(index) + vec(uleb(at) + b"\x01" + bytes((likely,)) for at, likely in hinted))
        relays = self.relays.functions if bodies else []
        bodies += [uleb(len(content)) + content for _, content in relays]
        exports: list[Export] = []

        def export(wanted: str, kind: str, index: int) -> str:
            name = unused_export_name(module, f"reprise:{wanted}")
            exports.append(Export(name, kind, index))  # type: ignore[arg-type]
            return name

        left = export("left", "global", self.left)
        memory = export("support", "memory", self.memory)
        table = export("table", "table", self.table)
        start = None if module.start is None else export("start", "function", module.start)
        memories = tuple(export(f"memory{i}", "memory", i) for i in range(len(module.memories)))
        globals_ = tuple(export(f"global{i}", "global", i) for i in range(len(module.globals)))
        tables = tuple(export(f"table{i}", "table", i) for i in range(len(module.tables)))
        for index in sorted(self._declared):
            export(f"function{index}", "function", index)
        pages = uleb(self.layout.pages)
        slots = uleb(STORE_SLOT + len(module.memories))
        data = rebuild(
            module,
            append={
                TYPE: self._types,
                FUNCTION: [uleb(number) for number, _ in relays],
                GLOBAL: [b"\x7e\x01\x42\x00\x0b"],
                MEMORY: [b"\x01" + pages + pages],
                TABLE: [b"\x70\x01" + slots + slots],
                EXPORT: [encode_export(found) for found in exports],
            },
            replace={CODE: (custom_section(BRANCH_HINTS, vec(hints)) if hints else b"") + section(CODE, vec(bodies))},
            drop=drops_section,
        )
        return Twin(
            data,
            left,
            memory,
            table,
            start,
            memories,
            globals_,
            tables,
            self.stretches,
            frozenset(self.mirrored),
            self.instructions,
            self.layout,
        )

    def body(self, index: int, observe: list[Step] | None = None) -> FunctionBody:
        """Rewrites one function. `observe` collects what stands on the operand stack before each instruction."""
        try:
            return self._body(index, observe)
        except WasmError:
            self._refuse(self.module.features())  # by name, if that is why
            raise

    def _body(self, index: int, observe: list[Step] | None) -> FunctionBody:
        landings: frozenset[int] = frozenset()
        while True:
            if observe is not None:
                observe.clear()
            body = FunctionBody(self, index, landings, index in self.mirrored, observe)
            body.run()
            if not self._mirror_decided and not body.mirror and len(body.stretches) * len(body.slot_types) > QUADRATIC:
                self.mirrored.add(index)
            elif body.landings <= landings:
                return body
            landings |= body.landings
