"""Generates the Wasm that stands between a guest and its hosts, for recording and for replay, from one description.

Three kinds of module, as text:

- the *trampoline* exports one function per guest import, each a `call_indirect` into a shared table, so that the guest can be
  instantiated before the interposer that needs the guest's memory;
- the *recording interposer* writes every call to the journal window: committed before the real host runs, completed after it;
- the *replaying interposer* serves every call from the window: it compares what the guest hands over and applies what the
  host did, knowing no API by name.

The interposer never traps on its own account and never changes an outcome: it clamps every range to the memory, and where
nothing can be recorded any more it asks the recorder (`rotate`), which alone decides to stop the guest.

All offsets and codes come from `traces.layout`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from recorder.boundary import wasi_p1
from recorder.boundary.wasi_p1 import (
    Function,
    Received,
    ReceivedConstant,
    ReceivedVectors,
    Sent,
    SentVectors,
)
from traces import layout
from traces.layout import (
    CHUNK_HEADER,
    CHUNK_LENGTH_MASK,
    CHUNK_MEMORY_SHIFT,
    CHUNK_SENT,
    HEADER_SIZE,
    NO_IMPORT,
    RING_HEAD,
    RING_LIMIT,
    RING_SCRATCH,
    RING_STOP,
    RING_TICKS,
    VALUE_SIZE,
    Kind,
    Status,
    pad4,
    values_size,
)

VECTORS_MAX = 512
"""Longest iovec list the interposer follows itself. What a call with more received is found by comparing all of memory; of what
it sent, that many buffers with something in them are taken (the engine writes the first of those only)."""

_VECTORS_ROOM = VECTORS_MAX * wasi_p1.IOVEC_SIZE + CHUNK_HEADER
VECTORS_KEPT = RING_SCRATCH + 16384
"""Where in the window a list of buffers to be filled is kept while the host runs."""

PARTIAL_ERRNOS = (21, 25, 28, 37, 61, 68)
"""fault, ilseq, inval, nametoolong, overflow, range: errors a host may find after it has written part of its answer."""


@dataclass(frozen=True)
class GuestMemory:
    """The memory the interposer reads and writes: the one a guest exports as `memory`, which native WASI asks its caller for."""

    index: int
    """In the guest's index space; goes into every chunk."""
    is64: bool
    reexport: bool
    """Export it again as `memory` (the guest does)."""


@dataclass(frozen=True)
class Hosted:
    """One guest import and who serves it."""

    index: int
    params: tuple[str, ...]
    results: tuple[str, ...]
    wasi: Function | None
    """The row of the WASI table, or None for an import served by Python through the tap."""

    @property
    def fixed(self) -> int:
        """Bytes of header, arguments and results in its CALL record."""
        return HEADER_SIZE + values_size(self.params) + values_size(self.results)

    @property
    def results_at(self) -> int:
        return HEADER_SIZE + values_size(self.params)


@dataclass(frozen=True)
class Description:
    """What both interposers are generated from."""

    imports: tuple[Hosted, ...]
    memory: GuestMemory | None
    constants: dict[str, int] = field(default_factory=dict)
    """Sizes of argv and environment, by the names `ReceivedConstant` uses (recording only)."""
    durable: bool = False
    """Sync the journal before each outgoing effect (recording only)."""


_REFERENCES = ("funcref", "externref")
_LOAD = {"i32": "i32.load", "f32": "f32.load", "i64": "i64.load", "f64": "f64.load", "v128": "v128.load"}
_STORE = {"i32": "i32.store", "f32": "f32.store", "i64": "i64.store", "f64": "f64.store", "v128": "v128.store"}


def signature(params: Sequence[str], results: Sequence[str]) -> str:
    """`(param …) (result …)`, in text format."""
    parts = []
    if params:
        parts.append(f"(param {' '.join(params)})")
    if results:
        parts.append(f"(result {' '.join(results)})")
    return " ".join(parts)


def trampoline(imports: Sequence[Hosted]) -> str:
    """The module whose exports (`0`, `1`, …) become the guest's function imports; its table is exported as `table`."""
    lines = ["(module", f'(table (export "table") {len(imports)} funcref)']
    for h in imports:
        arguments = " ".join(f"(local.get {i})" for i in range(len(h.params)))
        kind = signature(h.params, h.results)
        lines.append(
            f'(type $t{h.index} (func {kind})) (func (export "{h.index}") (type $t{h.index}) '
            f"(call_indirect (type $t{h.index}) {arguments} (i32.const {h.index})))"
        )
    return "\n".join([*lines, ")"])


def _header(index: int, kind: Kind, status: Status, size: int = 0) -> int:
    value = size | index << 32 | kind << 48 | status << 56
    return value - (1 << 64) if value >= 1 << 63 else value


def _prologue(d: Description, functions: Iterable[tuple[str, str]], lone: bool) -> list[str]:
    """Imports common to both interposers: the Python functions, then the window, the guest's memory and the table."""
    lines = ["(module"]
    lines += [f'(import "python" "{name}" (func ${name} {kind}))' for name, kind in functions]
    lines.append('(import "window" "memory" (memory $log 1))')
    if d.memory is not None:
        lines.append(f'(import "guest" "memory" (memory $guest {"i64 " if d.memory.is64 else ""}0))')
    if not lone:
        lines.append('(import "trampoline" "table" (table 0 funcref))')
    return lines


def _reference_functions(d: Description) -> list[tuple[str, str]]:
    """Python functions that turn references into identity numbers and back, if any import carries references."""
    used = {t for h in d.imports for t in (*h.params, *h.results) if t in _REFERENCES}
    functions = []
    for t in sorted(used):
        functions.append((f"{t}_number", f"(param {t}) (result i32)"))
        functions.append((f"{t}_of", f"(param i32) (result {t})"))
    return functions


def _reach(d: Description, lone: bool) -> str:
    """How the functions are reached: through the trampoline's table, or by name."""
    if lone:
        return "\n".join(f'(export "{h.index}" (func $f{h.index}))' for h in d.imports)
    names = " ".join(f"$f{h.index}" for h in d.imports)
    return f"(elem (i32.const 0) func {names})" if names else ""


class _Memory:
    """Text for access to the guest's memory, whatever its address type."""

    def __init__(self, memory: GuestMemory | None) -> None:
        self.present = memory is not None
        self.is64 = memory is not None and memory.is64
        self.flags = (memory.index << CHUNK_MEMORY_SHIFT) if memory is not None else 0

    def at(self, address: str) -> str:
        """An i32 expression as an address of the guest's memory."""
        return f"(i64.extend_i32_u {address})" if self.is64 else address

    @property
    def size(self) -> str:
        """The memory's size in bytes, as i64."""
        pages = "(memory.size $guest)" if self.is64 else "(i64.extend_i32_u (memory.size $guest))"
        return f"(i64.shl {pages} (i64.const 16))"


def _store_value(t: str, base: str, offset: int, local: int) -> str:
    if t in _REFERENCES:
        return f"(i32.store $log offset={offset} {base} (call ${t}_number (local.get {local})))"
    return f"({_STORE[t]} $log offset={offset} {base} (local.get {local}))"


def _load_value(t: str, base: str, offset: int) -> str:
    if t in _REFERENCES:
        return f"(call ${t}_of (i32.load $log offset={offset} {base}))"
    return f"({_LOAD[t]} $log offset={offset} {base})"


def _offsets(types: Sequence[str], start: int) -> list[tuple[str, int]]:
    pairs, at = [], start
    for t in types:
        pairs.append((t, at))
        at += VALUE_SIZE[t]
    return pairs


# -- recording ---------------------------------------------------------------------------------------------------------------

_RECORD_FUNCTIONS = (
    ("rotate", "(param i32 i32)"),  # import asked for (or -1), 1 if the effect already happened
    ("tap", "(param i32 i32)"),  # import, address of its open record
    ("sync", ""),
    ("observe", "(param i32)"),  # before a call whose writes are found by comparing all of memory
    ("observed", "(param i32 i32 i32)"),  # after it: import, address of its record, its result
)


def recording_interposer(d: Description, lone: bool = False) -> str:
    """The module that records. Imports the real WASI functions as `real`.`<import index>`.

    `lone` exports the functions by index instead of putting them into the trampoline's table: for imports defined while running.
    """
    memory = _Memory(d.memory)
    lines = _prologue(d, [*_RECORD_FUNCTIONS, *_reference_functions(d)], lone)
    for h in d.imports:
        if h.wasi is not None:
            lines.append(f'(import "real" "{h.index}" (func $real{h.index} {signature(h.params, h.results)}))')
    if d.memory is not None and d.memory.reexport:
        lines.append('(export "memory" (memory $guest))')
    lines.append(_record_helpers(memory))
    for h in d.imports:
        if h.wasi is None:
            lines.append(_record_tapped(h))
        elif all(isinstance(r, Received) and r.count is None for r in h.wasi.ranges) or not memory.present:
            lines.append(_record_fixed(h, h.wasi, memory, d))
        else:
            lines.append(_record_ranges(h, h.wasi, memory, d))
    lines.append(_reach(d, lone))
    return "\n".join([*lines, ")"])


def _record_helpers(memory: _Memory) -> str:
    text = f"""
(global $record (mut i32) (i32.const 0))
(global $cursor (mut i32) (i32.const 0))
(global $tag (mut i64) (i64.const 0))
(global $spilled (mut i32) (i32.const 0))
(func $open (param $tag i64) (param $room i32)
  (call $make_room (local.get $room) (i32.wrap_i64 (i64.and (i64.shr_u (local.get $tag) (i64.const 32)) (i64.const 0xffff))))
  (global.set $record (i32.load $log (i32.const {RING_HEAD})))
  (global.set $tag (local.get $tag))
  (global.set $spilled (i32.const 0))
  (i32.store $log offset=8 (global.get $record) (i32.load $log (i32.const {RING_TICKS}))))
(func $make_room (param $room i32) (param $import i32)
  (if (i32.or
        (i32.gt_u (i32.add (i32.load $log (i32.const {RING_HEAD})) (local.get $room)) (i32.load $log (i32.const {RING_LIMIT})))
        (i32.load $log (i32.const {RING_STOP})))
    (then (call $rotate (local.get $import) (i32.const 0)))))
(func $write_down
  (i64.store $log (global.get $record)
    (i64.or (global.get $tag) (i64.extend_i32_u (i32.sub (global.get $cursor) (global.get $record)))))
  (i32.store $log (i32.const {RING_HEAD}) (global.get $cursor)))
(func $next_slot (param $tag i64)
  (call $rotate (i32.const -1) (i32.const 1))
  (global.set $record (i32.load $log (i32.const {RING_HEAD})))
  (global.set $cursor (i32.add (global.get $record) (i32.const {HEADER_SIZE})))
  (global.set $tag (local.get $tag))
  (global.set $spilled (i32.const 1))
  (i32.store $log offset=8 (global.get $record) (i32.load $log (i32.const {RING_TICKS}))))
"""
    if not memory.present:
        return text
    return (
        text
        + f"""
(func $copy (param $to i32) (param $from i32) (param $length i32)
  (if (i32.gt_u (local.get $length) (i32.const 64))
    (then (memory.copy $log $guest (local.get $to) {memory.at("(local.get $from)")} (local.get $length)) (return)))
  (block $done (loop $eight
    (br_if $done (i32.lt_u (local.get $length) (i32.const 8)))
    (i64.store $log (local.get $to) (i64.load $guest {memory.at("(local.get $from)")}))
    (local.set $to (i32.add (local.get $to) (i32.const 8)))
    (local.set $from (i32.add (local.get $from) (i32.const 8)))
    (local.set $length (i32.sub (local.get $length) (i32.const 8)))
    (br $eight)))
  (block $done (loop $one
    (br_if $done (i32.eqz (local.get $length)))
    (i32.store8 $log (local.get $to) (i32.load8_u $guest {memory.at("(local.get $from)")}))
    (local.set $to (i32.add (local.get $to) (i32.const 1)))
    (local.set $from (i32.add (local.get $from) (i32.const 1)))
    (local.set $length (i32.sub (local.get $length) (i32.const 1)))
    (br $one))))
(func $put (param $address i32) (param $wanted i64) (param $flags i32)
  (local $length i32) (local $space i32) (local $piece i32) (local $left i64)
  (local.set $left (i64.sub {memory.size} (i64.extend_i32_u (local.get $address))))
  (if (i64.le_s (local.get $left) (i64.const 0)) (then (return)))
  (if (i64.gt_u (local.get $wanted) (local.get $left)) (then (local.set $wanted (local.get $left))))
  (local.set $length (i32.wrap_i64 (local.get $wanted)))
  (block $done (loop $more
    (br_if $done (i32.eqz (local.get $length)))
    (local.set $space (i32.and (i32.const -4)
      (i32.sub (i32.load $log (i32.const {RING_LIMIT})) (i32.add (global.get $cursor) (i32.const {CHUNK_HEADER})))))
    (local.set $piece (local.get $length))
    (if (i32.or (i32.lt_s (local.get $space) (i32.const 4))
          (i32.and (i32.gt_u (local.get $length) (local.get $space)) (i32.lt_u (local.get $space) (i32.const 4096))))
      (then
        (call $write_down)
        (call $next_slot (i64.const {_header(NO_IMPORT, Kind.DATA, Status.COMPLETE)}))
        (br $more)))
    (if (i32.gt_u (local.get $piece) (local.get $space)) (then (local.set $piece (local.get $space))))
    (if (i32.gt_u (local.get $piece) (i32.const {CHUNK_LENGTH_MASK & ~3}))
      (then (local.set $piece (i32.const {CHUNK_LENGTH_MASK & ~3}))))
    (i32.store $log (global.get $cursor) (local.get $address))
    (i32.store $log offset=4 (global.get $cursor) (i32.or (local.get $piece) (local.get $flags)))
    (global.set $cursor (i32.add (global.get $cursor) (i32.const {CHUNK_HEADER})))
    (if (i32.and (local.get $piece) (i32.const 3))
      (then (i32.store $log (i32.add (global.get $cursor) (i32.and (local.get $piece) (i32.const -4))) (i32.const 0))))
    (call $copy (global.get $cursor) (local.get $address) (local.get $piece))
    (global.set $cursor (i32.add (global.get $cursor) (i32.and (i32.add (local.get $piece) (i32.const 3)) (i32.const -4))))
    (local.set $address (i32.add (local.get $address) (local.get $piece)))
    (local.set $length (i32.sub (local.get $length) (local.get $piece)))
    (br $more))))
(func $sent_vectors (param $vectors i32) (param $count i32)
  (local $address i32) (local $left i32)
  (local.set $address (local.get $vectors))
  (local.set $left (i32.const {VECTORS_MAX}))
  (block $done (loop $next
    (br_if $done (i32.or (i32.eqz (local.get $count)) (i32.eqz (local.get $left))))
    (br_if $done (i64.gt_u (i64.add (i64.extend_i32_u (local.get $address)) (i64.const 8)) {memory.size}))
    (local.set $left (i32.sub (local.get $left)
      (i32.ne (i32.load $guest offset=4 {memory.at("(local.get $address)")}) (i32.const 0))))
    (call $put (i32.load $guest {memory.at("(local.get $address)")})
      (i64.extend_i32_u (i32.load $guest offset=4 {memory.at("(local.get $address)")}))
      (i32.const {_signed(CHUNK_SENT | memory.flags)}))
    (local.set $address (i32.add (local.get $address) (i32.const 8)))
    (local.set $count (i32.sub (local.get $count) (i32.const 1)))
    (br $next))))
(func $keep_vectors (param $vectors i32) (param $count i32) (result i32)
  ;; copies the list out of the guest's reach and out of the slots' (a long answer may go through all of them); returns its end
  (local $to i32)
  (local.set $to (i32.const {VECTORS_KEPT}))
  (block $done (loop $next
    (br_if $done (i32.eqz (local.get $count)))
    (br_if $done (i64.gt_u (i64.add (i64.extend_i32_u (local.get $vectors)) (i64.const 8)) {memory.size}))
    (i64.store $log (local.get $to) (i64.load $guest {memory.at("(local.get $vectors)")}))
    (local.set $to (i32.add (local.get $to) (i32.const 8)))
    (local.set $vectors (i32.add (local.get $vectors) (i32.const 8)))
    (local.set $count (i32.sub (local.get $count) (i32.const 1)))
    (br $next)))
  (local.get $to))
(func $received_vectors (param $end i32) (param $left i64)
  (local $length i64) (local $list i32) (local $sum i64)
  (local.set $list (i32.const {VECTORS_KEPT}))
  (if (i64.eq (local.get $left) (i64.const -1))
    (then
      ;; Nobody says how much was filled. Buffers may overlap: all of them together are no more than the memory.
      (block $done (loop $next
        (br_if $done (i32.ge_u (local.get $list) (local.get $end)))
        (local.set $sum (i64.add (local.get $sum) (i64.extend_i32_u (i32.load $log offset=4 (local.get $list)))))
        (local.set $list (i32.add (local.get $list) (i32.const 8)))
        (br $next)))
      (local.set $list (i32.const {VECTORS_KEPT}))
      (if (i64.gt_u (local.get $sum) {memory.size})
        (then
          (local.set $sum (i64.shr_u {memory.size} (i64.const 1)))
          (call $put (i32.const 0) (local.get $sum) (i32.const {memory.flags}))
          (call $put (i32.wrap_i64 (local.get $sum)) (local.get $sum) (i32.const {memory.flags}))
          (return)))))
  (block $done (loop $next
    (br_if $done (i32.ge_u (local.get $list) (local.get $end)))
    (br_if $done (i64.eqz (local.get $left)))
    (local.set $length (i64.extend_i32_u (i32.load $log offset=4 (local.get $list))))
    (if (i64.gt_u (local.get $length) (local.get $left)) (then (local.set $length (local.get $left))))
    (call $put (i32.load $log (local.get $list)) (local.get $length) (i32.const {memory.flags}))
    (local.set $left (i64.sub (local.get $left) (local.get $length)))
    (local.set $list (i32.add (local.get $list) (i32.const 8)))
    (br $next))))
(func $used (param $pointer i32) (result i64)
  (if (i64.gt_u (i64.add (i64.extend_i32_u (local.get $pointer)) (i64.const 4)) {memory.size})
    (then (return (i64.const 0xffffffff))))
  (i64.extend_i32_u (i32.load $guest {memory.at("(local.get $pointer)")})))
(func $may_have_written (param $errno i32) (result i32)
  {_any_of("(local.get $errno)", (0, *PARTIAL_ERRNOS))})
"""
    )


def _signed(value: int) -> int:
    return value - (1 << 32) if value >= 1 << 31 else value


def _any_of(expression: str, values: Sequence[int]) -> str:
    text = f"(i32.eq {expression} (i32.const {values[0]}))"
    for value in values[1:]:
        text = f"(i32.or {text} (i32.eq {expression} (i32.const {value})))"
    return text


def _begin_inline(h: Hosted, room: int, status: Status) -> str:
    """Opens a CALL record at the head, into local $p, and stores the arguments. Nothing is committed yet."""
    stores = "\n".join(_store_value(t, "(local.get $p)", at, i) for i, (t, at) in enumerate(_offsets(h.params, HEADER_SIZE)))
    return f"""
  (if (i32.or
        (i32.gt_u (i32.add (local.tee $p (i32.load $log (i32.const {RING_HEAD}))) (i32.const {room}))
                  (i32.load $log (i32.const {RING_LIMIT})))
        (i32.load $log (i32.const {RING_STOP})))
    (then (call $rotate (i32.const {h.index}) (i32.const 0)) (local.set $p (i32.load $log (i32.const {RING_HEAD})))))
  (i64.store $log (local.get $p) (i64.const {_header(h.index, Kind.CALL, status, h.fixed)}))
  (i32.store $log offset=8 (local.get $p) (i32.load $log (i32.const {RING_TICKS})))
{stores}"""


def _head_to(expression: str) -> str:
    return f"(i32.store $log (i32.const {RING_HEAD}) {expression})"


def _call_real(h: Hosted) -> str:
    arguments = " ".join(f"(local.get {i})" for i in range(len(h.params)))
    call = f"(call $real{h.index} {arguments})"
    return f"(local.set $errno {call})" if h.results else call


def _sync(f: Function, d: Description) -> str:
    return "(call $sync)" if d.durable and f.outgoing else ""


def _function_head(h: Hosted, locals_: str) -> str:
    return f"(func $f{h.index} {signature(h.params, h.results)} {locals_}"


def _record_tapped(h: Hosted) -> str:
    results = " ".join(_load_value(t, f"(i32.const {RING_SCRATCH})", 16 * i) for i, t in enumerate(h.results))
    return f"""{_function_head(h, "(local $p i32)")}
{_begin_inline(h, h.fixed + 256, Status.OPEN)}
  {_head_to(f"(i32.add (local.get $p) (i32.const {h.fixed}))")}
  (call $tap (i32.const {h.index}) (local.get $p))
  {results})"""


def _record_fixed(h: Hosted, f: Function, memory: _Memory, d: Description) -> str:
    """A call that writes only a few fixed-size answers: no helper calls on the way, room for everything made beforehand."""
    answers = [(r.pointer, r.size) for r in f.received if isinstance(r, Received)] if memory.present else []
    room = h.fixed + sum(CHUNK_HEADER + pad4(size) for _, size in answers)
    parts = [
        _function_head(h, "(local $p i32) (local $q i32) (local $errno i32)"),
        _begin_inline(h, room, Status.OPEN),
        f"(local.set $q (i32.add (local.get $p) (i32.const {h.fixed})))",
        _head_to("(local.get $q)"),
        _sync(f, d),
        _call_real(h),
    ]
    if h.results:
        parts.append(f"(i32.store $log offset={h.results_at} (local.get $p) (local.get $errno))")
    parts += [_inline_answer(pointer, size, memory) for pointer, size in answers]
    parts.append(
        f"""(i64.store $log (local.get $p)
    (i64.or (i64.const {_header(h.index, Kind.CALL, Status.COMPLETE)})
            (i64.extend_i32_u (i32.sub (local.get $q) (local.get $p)))))
  {_head_to("(local.get $q)")}"""
    )
    if h.results:
        parts.append("(local.get $errno)")
    return "\n  ".join(parts) + ")"


def _inline_answer(pointer: int, size: int, memory: _Memory) -> str:
    copies, at = [], 0
    source = memory.at(f"(local.get {pointer})")
    for width, load, store in ((8, "i64.load", "i64.store"), (4, "i32.load", "i32.store"), (2, "i32.load16_u", "i32.store")):
        while size - at >= width:
            copies.append(f"({store} $log offset={CHUNK_HEADER + at} (local.get $q) ({load} $guest offset={at} {source}))")
            at += width
    body = "\n      ".join(copies)
    return f"""(if (i64.le_u (i64.add (i64.extend_i32_u (local.get {pointer})) (i64.const {size})) {memory.size})
    (then
      (i32.store $log (local.get $q) (local.get {pointer}))
      (i32.store $log offset=4 (local.get $q) (i32.const {size | memory.flags}))
      {body}
      (local.set $q (i32.add (local.get $q) (i32.const {CHUNK_HEADER + pad4(size)}))))
    (else
      (global.set $cursor (local.get $q))
      (call $put (local.get {pointer}) (i64.const {size}) (i32.const {memory.flags}))
      (local.set $q (global.get $cursor))))"""


def _record_ranges(h: Hosted, f: Function, memory: _Memory, d: Description) -> str:
    """A call with payloads of any size in either direction."""
    vectors = next((r for r in f.ranges if isinstance(r, SentVectors | ReceivedVectors)), None)
    room = h.fixed + 256 + (_VECTORS_ROOM if vectors is not None else 0)
    opened = _header(h.index, Kind.CALL, Status.OPEN)
    parts = [
        _function_head(h, "(local $p i32) (local $errno i32) (local $list i32) (local $observe i32)"),
        f"(call $open (i64.const {opened}) (i32.const {room}))",
        "(local.set $p (global.get $record))",
        *(_store_value(t, "(local.get $p)", at, i) for i, (t, at) in enumerate(_offsets(h.params, HEADER_SIZE))),
        f"(global.set $cursor (i32.add (local.get $p) (i32.const {h.fixed})))",
    ]
    if vectors is not None:
        parts.append(_vectors_before(vectors, memory))
    for sent in f.sent:
        parts.append(_sent(sent, memory))
    parts += ["(call $write_down)", _sync(f, d)]
    if isinstance(vectors, ReceivedVectors):
        parts.append(f"(if (local.get $observe) (then (call $observe (i32.const {h.index}))))")
    parts.append(_call_real(h))
    answers = "\n    ".join(_received(r, memory, d) for r in f.received)
    if isinstance(vectors, ReceivedVectors):
        done = f"(call $observed (i32.const {h.index}) (local.get $p) (local.get $errno)) {_return(h)}"
        parts.append(f"(if (local.get $observe) (then {done}))")
    parts.append(answers)
    result = f"(i32.store $log offset={h.results_at} (local.get $p) (local.get $errno))" if h.results else ""
    parts.append(
        f"""(if (i32.eqz (global.get $spilled))
    (then
      {result}
      (global.set $tag (i64.const {_header(h.index, Kind.CALL, Status.COMPLETE)})))
    (else
      (call $write_down)
      (if (i32.gt_u (i32.add (i32.load $log (i32.const {RING_HEAD})) (i32.const 64)) (i32.load $log (i32.const {RING_LIMIT})))
        (then (call $next_slot (i64.const 0))))
      (global.set $record (i32.load $log (i32.const {RING_HEAD})))
      (global.set $tag (i64.const {_header(h.index, Kind.RETURN, Status.COMPLETE)}))
      (i32.store $log offset=8 (global.get $record) (i32.load $log (i32.const {RING_TICKS})))
      (i32.store $log offset={HEADER_SIZE} (global.get $record) (local.get $errno))
      (global.set $cursor (i32.add (global.get $record) (i32.const {HEADER_SIZE + values_size(h.results)})))))
  (call $write_down)"""
    )
    if h.results:
        parts.append("(local.get $errno)")
    return "\n  ".join(parts) + ")"


def _return(h: Hosted) -> str:
    return "(return (local.get $errno))" if h.results else "(return)"


def _vectors_before(v: SentVectors | ReceivedVectors, memory: _Memory) -> str:
    """The list of buffers itself, taken before the call, since the host may write over it."""
    if isinstance(v, SentVectors):
        limit = f"(i32.const {VECTORS_MAX})"
        count = f"(select {limit} (local.get {v.count}) (i32.gt_u (local.get {v.count}) {limit}))"
        return f"""(call $put (local.get {v.pointer}) (i64.shl (i64.extend_i32_u {count}) (i64.const 3))
        (i32.const {_signed(CHUNK_SENT | memory.flags)}))"""
    keep = f"(local.set $list (call $keep_vectors (local.get {v.pointer}) (local.get {v.count})))"
    return f"""(if (i32.gt_u (local.get {v.count}) (i32.const {VECTORS_MAX}))
    (then (local.set $observe (i32.const 1)))
    (else
      {keep}
      (call $put (local.get {v.pointer}) (i64.shl (i64.extend_i32_u (local.get {v.count})) (i64.const 3))
        (i32.const {_signed(CHUNK_SENT | memory.flags)}))))"""


def _sent(r: Sent | SentVectors, memory: _Memory) -> str:
    if isinstance(r, SentVectors):
        return f"(call $sent_vectors (local.get {r.pointer}) (local.get {r.count}))"
    return f"(call $put (local.get {r.pointer}) {_length(r.count, r.size)} (i32.const {_signed(CHUNK_SENT | memory.flags)}))"


def _length(count: int | None, size: int) -> str:
    if count is None:
        return f"(i64.const {size})"
    wide = f"(i64.extend_i32_u (local.get {count}))"
    return wide if size == 1 else f"(i64.mul {wide} (i64.const {size}))"


def _received(r: Received | ReceivedVectors | ReceivedConstant, memory: _Memory, d: Description) -> str:
    flags = f"(i32.const {memory.flags})"
    if isinstance(r, ReceivedConstant):
        return f"(call $put (local.get {r.pointer}) (i64.const {d.constants[r.size]}) {flags})"
    if isinstance(r, ReceivedVectors):
        left = f"(if (result i64) (local.get $errno) (then (i64.const -1)) (else (call $used (local.get {r.used}))))"
        follow = f"(call $received_vectors (local.get $list) {left})"
        return f"(if (call $may_have_written (local.get $errno)) (then {follow}))"
    length = _length(r.count, r.size)
    if r.count is None:
        return f"(call $put (local.get {r.pointer}) {length} {flags})"
    if r.used is not None:
        used = f"(i64.mul (call $used (local.get {r.used})) (i64.const {r.size}))"
        length = (
            f"(if (result i64) (i32.and (i32.eqz (local.get $errno)) (i64.lt_u {used} {length})) (then {used}) (else {length}))"
        )
    return f"(if (call $may_have_written (local.get $errno)) (then (call $put (local.get {r.pointer}) {length} {flags})))"


_PLACE_MASK = ~CHUNK_LENGTH_MASK & ~CHUNK_SENT & 0xFFFFFFFF
_META_PLACE = layout.META_MEMORY << CHUNK_MEMORY_SHIFT

# -- replay ------------------------------------------------------------------------------------------------------------------

_REPLAY_FUNCTIONS = (
    ("refill", "(param i32)"),  # the import called when the window ran out; returns with the next window in place, or raises
    ("slow", "(param i32)"),  # the import whose arguments stand in the scratch area; leaves its results there, or raises
)


_WITNESS_FUNCTIONS = (
    ("served", ""),  # a record was served
    ("wrote", "(param i32 i64 i32)"),  # memory, address, length of what was just written for a host
)


def replaying_interposer(d: Description, lone: bool = False, witnessed: bool = False) -> str:
    """The module that replays. It compares, applies and returns; whatever is out of the ordinary goes to `slow`.

    `witnessed`: it also tells two imported functions which records it served and what it wrote.
    """
    memory = _Memory(d.memory)
    functions = [*_REPLAY_FUNCTIONS, *_reference_functions(d), *(_WITNESS_FUNCTIONS if witnessed else ())]
    lines = _prologue(d, functions, lone)
    if memory.present:
        lines.append(_replay_helpers(memory, witnessed))
    lines += [_replay_function(h, memory, witnessed) for h in d.imports]
    lines.append(_reach(d, lone))
    return "\n".join([*lines, ")"])


def _told(memory: _Memory, witnessed: bool, address: str, length: str) -> str:
    if not witnessed:
        return ""
    return f"(call $wrote (i32.const {memory.flags >> CHUNK_MEMORY_SHIFT}) (i64.extend_i32_u {address}) {length})"


def _replay_helpers(memory: _Memory, witnessed: bool) -> str:
    at = memory.at
    told = _told(memory, witnessed, "(i32.load $log (local.get $q))", "(local.get $length)")
    return f"""
(func $differs (param $address i32) (param $q i32) (param $length i32) (result i32)
  (block $done (loop $eight
    (br_if $done (i32.lt_u (local.get $length) (i32.const 8)))
    (if (i64.ne (i64.load $log (local.get $q)) (i64.load $guest {at("(local.get $address)")})) (then (return (i32.const 1))))
    (local.set $q (i32.add (local.get $q) (i32.const 8)))
    (local.set $address (i32.add (local.get $address) (i32.const 8)))
    (local.set $length (i32.sub (local.get $length) (i32.const 8)))
    (br $eight)))
  (block $done (loop $one
    (br_if $done (i32.eqz (local.get $length)))
    (if (i32.ne (i32.load8_u $log (local.get $q)) (i32.load8_u $guest {at("(local.get $address)")}))
      (then (return (i32.const 1))))
    (local.set $q (i32.add (local.get $q) (i32.const 1)))
    (local.set $address (i32.add (local.get $address) (i32.const 1)))
    (local.set $length (i32.sub (local.get $length) (i32.const 1)))
    (br $one)))
  (i32.const 0))
(func $write (param $address i32) (param $q i32) (param $length i32)
  (if (i32.gt_u (local.get $length) (i32.const 64))
    (then (memory.copy $guest $log {at("(local.get $address)")} (local.get $q) (local.get $length)) (return)))
  (block $done (loop $eight
    (br_if $done (i32.lt_u (local.get $length) (i32.const 8)))
    (i64.store $guest {at("(local.get $address)")} (i64.load $log (local.get $q)))
    (local.set $q (i32.add (local.get $q) (i32.const 8)))
    (local.set $address (i32.add (local.get $address) (i32.const 8)))
    (local.set $length (i32.sub (local.get $length) (i32.const 8)))
    (br $eight)))
  (block $done (loop $one
    (br_if $done (i32.eqz (local.get $length)))
    (i32.store8 $guest {at("(local.get $address)")} (i32.load8_u $log (local.get $q)))
    (local.set $q (i32.add (local.get $q) (i32.const 1)))
    (local.set $address (i32.add (local.get $address) (i32.const 1)))
    (local.set $length (i32.sub (local.get $length) (i32.const 1)))
    (br $one))))
(func $ordinary (param $q i32) (param $end i32) (result i32)
  ;; whether every chunk is of the guest's memory, within it, and what was sent is still what the guest sends;
  ;; nothing is applied before all of that is known, so that the slow path finds the guest as it was
  (local $word i32) (local $length i32) (local $seen_write i32)
  (block $done (loop $next
    (br_if $done (i32.eq (local.get $q) (local.get $end)))
    (if (i32.gt_u (i32.add (local.get $q) (i32.const {CHUNK_HEADER})) (local.get $end)) (then (return (i32.const 0))))
    (local.set $word (i32.load $log offset=4 (local.get $q)))
    (local.set $length (i32.and (local.get $word) (i32.const {CHUNK_LENGTH_MASK})))
    (if (i32.gt_u (local.get $length) (i32.sub (local.get $end) (i32.add (local.get $q) (i32.const {CHUNK_HEADER}))))
      (then (return (i32.const 0))))
    (if (i32.ne (i32.and (local.get $word) (i32.const {_signed(_PLACE_MASK)})) (i32.const {_META_PLACE}))
      (then
        (if (i32.ne (i32.and (local.get $word) (i32.const {_signed(_PLACE_MASK)})) (i32.const {memory.flags}))
          (then (return (i32.const 0))))
        (if (i64.gt_u
              (i64.add (i64.extend_i32_u (i32.load $log (local.get $q))) (i64.extend_i32_u (local.get $length))) {memory.size})
          (then (return (i32.const 0))))
        (if (i32.lt_s (local.get $word) (i32.const 0))
          (then
            ;; bytes sent after bytes were received depend on the order: leave it to the slow path
            (if (local.get $seen_write) (then (return (i32.const 0))))
            (if (call $differs
                  (i32.load $log (local.get $q)) (i32.add (local.get $q) (i32.const {CHUNK_HEADER})) (local.get $length))
              (then (return (i32.const 0)))))
          (else (local.set $seen_write (i32.const 1))))))
    (local.set $q (i32.add (i32.add (local.get $q) (i32.const {CHUNK_HEADER}))
      (i32.and (i32.add (local.get $length) (i32.const 3)) (i32.const -4))))
    (br $next)))
  (i32.const 1))
(func $apply (param $q i32) (param $end i32)
  (local $word i32) (local $length i32)
  (block $done (loop $next
    (br_if $done (i32.ge_u (local.get $q) (local.get $end)))
    (local.set $word (i32.load $log offset=4 (local.get $q)))
    (local.set $length (i32.and (local.get $word) (i32.const {CHUNK_LENGTH_MASK})))
    (if (i32.eq (i32.and (local.get $word) (i32.const {_signed(~CHUNK_LENGTH_MASK & 0xFFFFFFFF)})) (i32.const {memory.flags}))
      (then (call $write (i32.load $log (local.get $q)) (i32.add (local.get $q) (i32.const {CHUNK_HEADER})) (local.get $length))
        {told}))
    (local.set $q (i32.add (i32.add (local.get $q) (i32.const {CHUNK_HEADER}))
      (i32.and (i32.add (local.get $length) (i32.const 3)) (i32.const -4))))
    (br $next))))
"""


def _replay_function(h: Hosted, memory: _Memory, witnessed: bool) -> str:
    expected = h.index | Kind.CALL << 16 | Status.COMPLETE << 24
    checks = []
    for i, (t, at) in enumerate(_offsets(h.params, HEADER_SIZE)):
        checks.append(f"(br_if $slow {_argument_differs(t, at, i)})")
    chunks = (
        f"""(if (i32.ne (local.get $end) (i32.add (local.get $p) (i32.const {h.fixed})))
      (then {_replay_chunks(h, memory, witnessed)}))"""
        if memory.present
        else f"(br_if $slow (i32.ne (local.get $end) (i32.add (local.get $p) (i32.const {h.fixed}))))"
    )
    results = " ".join(_load_value(t, "(local.get $p)", at) for t, at in _offsets(h.results, h.results_at))
    scratch = f"(i32.const {RING_SCRATCH})"
    spilled = "\n  ".join(_store_value(t, scratch, 16 * i, i) for i, t in enumerate(h.params))
    slow_results = " ".join(_load_value(t, scratch, 16 * i) for i, t in enumerate(h.results))
    return f"""{_function_head(h, "(local $p i32) (local $end i32)")}
  (if (i32.ge_u (local.tee $p (i32.load $log (i32.const {RING_HEAD}))) (i32.load $log (i32.const {RING_LIMIT})))
    (then (call $refill (i32.const {h.index})) (local.set $p (i32.load $log (i32.const {RING_HEAD})))))
  (block $slow
    (br_if $slow (i32.ne (i32.load $log offset=4 (local.get $p)) (i32.const {_signed(expected)})))
    {" ".join(checks)}
    (local.set $end (i32.add (local.get $p) (i32.load $log (local.get $p))))
    (br_if $slow (i32.gt_u (local.get $end) (i32.load $log (i32.const {RING_LIMIT}))))
    {chunks}
    {_head_to("(local.get $end)")}
    {"(call $served)" if witnessed else ""}
    (return {results}))
  {spilled}
  (call $slow (i32.const {h.index}))
  {slow_results})"""


def _replay_chunks(h: Hosted, memory: _Memory, witnessed: bool) -> str:
    """The commonest record has one chunk of eight bytes received; it is applied without a call."""
    first = f"(i32.load $log offset={h.fixed} (local.get $p))"
    general = f"""(br_if $slow (i32.eqz (call $ordinary (i32.add (local.get $p) (i32.const {h.fixed})) (local.get $end))))
        (call $apply (i32.add (local.get $p) (i32.const {h.fixed})) (local.get $end))"""
    return f"""(if (i32.and
          (i32.and (i32.eq (i32.load $log offset={h.fixed + 4} (local.get $p)) (i32.const {8 | memory.flags}))
                   (i32.eq (local.get $end) (i32.add (local.get $p) (i32.const {h.fixed + CHUNK_HEADER + 8}))))
          (i64.le_u (i64.add (i64.extend_i32_u {first}) (i64.const 8)) {memory.size}))
      (then
        (i64.store $guest {memory.at(first)} (i64.load $log offset={h.fixed + CHUNK_HEADER} (local.get $p)))
        {_told(memory, witnessed, first, "(i32.const 8)")})
      (else
        {general}))"""


def _argument_differs(t: str, at: int, local: int) -> str:
    p = "(local.get $p)"
    if t in _REFERENCES:
        return f"(i32.ne (i32.load $log offset={at} {p}) (call ${t}_number (local.get {local})))"
    if t == "v128":
        return f"(v128.any_true (v128.xor (v128.load $log offset={at} {p}) (local.get {local})))"
    if t in ("f32", "f64"):
        # Bit for bit: a comparison of floats would hold a NaN different from itself and -0 equal to 0.
        whole = "i32" if t == "f32" else "i64"
        return f"({whole}.ne ({whole}.load $log offset={at} {p}) ({whole}.reinterpret_{t} (local.get {local})))"
    return f"({t}.ne ({t}.load $log offset={at} {p}) (local.get {local}))"
