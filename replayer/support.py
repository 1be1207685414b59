"""The module a twin calls when its countdown is negative: it decides what that means, and writes the log.

The twin's cold code calls through a table, so this can be a module of its own, written as text, that imports the twin's memories
and globals. It alone knows the words shared with the machine and the form of the log; `Control` is the machine's side of both.

A log entry is a header of 24 bytes, and as many bytes of payload as its length says, padded to 8:

    i64 left     the countdown after the stretch was taken off it
    u32 pc       of the instruction; for a host's write, the number of the event
    u32 word     length | memory << 17 | LOG_HOST | LOG_GLOBAL | LOG_HEAD
    i64 address  for a global, its index; for a stretch's head, how deep the calls are nested

Payload: the bytes as they are after the write. A long write makes several entries.
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from recorder.boundary.memories import HostMemory
from recorder.wasm.module import GlobalType, Module
from replayer.twin import (
    BIAS,
    DUMP_HEAD,
    HEAD_AFTER_CALL,
    HEAD_CALLS,
    LOG_SIZE,
    MIRROR_HEAD,
    SEAT,
    STORE_SLOT,
    UNWINDING,
    Layout,
    Twin,
)

# -- words at fixed addresses of the support memory; 8, 12 and 96 are the twin's own --------------------------------------------

TARGET: Final = 16
"""i64: the clock the countdown counts down to: clock = target - left."""
LOG_HEAD: Final = 24
"""i32: address of the next log entry."""
LISTENING: Final = 28
"""i32: whether writes of hosts are logged too."""
WATCH_LOW: Final = 32
"""i64: first address whose writes are logged."""
WATCH_HIGH: Final = 40
"""i64: behind the last one."""
WATCH_MEMORY: Final = 48
"""i32: the memory those are in; -1 for every memory, -2 for none."""
WATCH_GLOBAL: Final = 52
"""i32: the global whose changes are logged; -1 for every global, -2 for none."""
DEPTH: Final = 56
"""i32: calls entered less calls left, since it was set."""
MAX_DEPTH: Final = 60
"""i32: heads of stretches deeper than this are not logged."""
HIT_STOPS: Final = 64
"""i32: whether the guest stops after each entry."""
LAST_PC: Final = 68
"""i32: the head passed last, while listening."""
LAST_LEFT: Final = 72
"""i64: the countdown there."""
MARK_NEXT: Final = 80
"""i32: the place in the list of marks that belongs to the next record."""
WINDOW_FIRST: Final = 84
"""i32: the number of the record that place 0 belongs to."""
FLOOR: Final = 92
"""i32: the lowest depth seen since it was set."""
# SEAT (96) is the twin's own: the depth of the frame at the head passed last, and the epoch above it
EPOCH: Final = 104
"""i32: which listening this is; a seat from another says nothing."""

FLAG_LOG: Final = 0x10
"""Bit of a head's flag byte: log it. The low bits are the twin's HEAD_… bits, as far as they are set."""

_LISTENS: Final = -(BIAS >> 1)
"""A countdown below this belongs to someone who listens: cold code is also run once after a stop, when nobody may."""
_PIECE: Final = 1 << 16
_LENGTH_MASK: Final = 0x1FFFF
_MEMORY_SHIFT: Final = 17
_MEMORY_MASK: Final = 0xFFF
LOG_HOST: Final = 1 << 29
LOG_GLOBAL: Final = 1 << 30
LOG_STRETCH: Final = 1 << 31

REASON_TARGET: Final = 0
REASON_HIT: Final = 1
REASON_FULL: Final = 2
"""The log has no room: the machine takes it away, and the guest goes on."""

FOREIGN_FRAME: Final = 0xFFFFFFFF
"""Function of the mark in the dump that stands where a host called back into the guest."""

_HEADER: Final = struct.Struct("<qIIq")


@dataclass(frozen=True)
class Entry:
    """One entry of the log."""

    left: int
    """As the guest had it: biased."""
    pc: int
    """-1 for a host's write."""
    event: int
    """The event, of a host's write; -1 otherwise."""
    kind: str
    """"write", "global" or "head"."""
    memory: int
    address: int
    data: bytes
    length: int


def support_module(module: Module, twin: Twin, marks: int) -> str:
    """Its text. `marks` is how many records a window can hold."""
    memories = module.memories
    layout = twin.layout
    numeric = [(i, g) for i, g in enumerate(module.globals) if g.mutable and g.value in ("i32", "i64", "f32", "f64", "v128")]
    lines = [
        "(module",
        '(import "python" "pause" (func $pause (param i32 i32)))',
        '(import "twin" "left" (global $left (mut i64)))',
        '(import "twin" "support" (memory $s 1))',
        f'(import "twin" "table" (table {STORE_SLOT + len(memories)} funcref))',
    ]
    for i, memory in enumerate(memories):
        lines.append(f'(import "twin" "memory{i}" (memory $m{i} {"i64 " if memory.limits.is_64 else ""}0))')
    for i, g in numeric:
        lines.append(f'(import "twin" "global{i}" (global $g{i} (mut {g.value})))')
    pages = max(1, -(-marks * 8 // 65536))
    lines.append(f'(memory $marks (export "marks") {pages} {pages})')
    lines.append(_HELPERS.format(**_constants(layout)))
    lines.append(_set_global(numeric))
    lines += [_stored(i, memory.limits.is_64) for i, memory in enumerate(memories)]
    lines.append(_wrote((memories and [m.limits.is_64 for m in memories]) or []))
    names = " ".join(["$stop", "$set_global", "$land", *(f"$stored{i}" for i in range(len(memories)))])
    lines.append(f"(elem (i32.const 0) func {names})")
    return "\n".join([*lines, ")"])


def imports_of(module: Module, twin: Twin) -> list[str]:
    """The twin's exports the support module imports, in order."""
    names = [twin.left, twin.memory, twin.table, *twin.memories]
    for i, g in enumerate(module.globals):
        if g.mutable and g.value in ("i32", "i64", "f32", "f64", "v128"):
            names.append(twin.globals[i])
    return names


def _constants(layout: Layout) -> dict[str, int]:
    return {
        "UNWINDING": UNWINDING, "LISTENS": -(BIAS >> 1), "BIAS": BIAS, "FLAGS": layout.flags,
        "LOG_LIMIT": layout.log + LOG_SIZE - _PIECE - 128,
        "CALLS": HEAD_CALLS, "AFTER_CALL": HEAD_AFTER_CALL, "FLAG_LOG": FLAG_LOG, "REASON_TARGET": REASON_TARGET,
        "REASON_HIT": REASON_HIT, "REASON_FULL": REASON_FULL, "TARGET": TARGET, "LOG_HEAD": LOG_HEAD, "LISTENING": LISTENING,
        "WATCH_LOW": WATCH_LOW, "WATCH_HIGH": WATCH_HIGH, "WATCH_MEMORY": WATCH_MEMORY, "WATCH_GLOBAL": WATCH_GLOBAL,
        "DEPTH": DEPTH, "MAX_DEPTH": MAX_DEPTH, "HIT_STOPS": HIT_STOPS, "LAST_PC": LAST_PC, "LAST_LEFT": LAST_LEFT,
        "MARK_NEXT": MARK_NEXT, "LOG_STRETCH": LOG_STRETCH - (1 << 32), "FLOOR": FLOOR, "EPOCH": EPOCH, "SEAT": SEAT,
    }  # fmt: skip


_HELPERS = """
(func $stop (param $left i64) (param $pc i32) (result i64)
  (if (i64.lt_s (local.get $left) (i64.const {UNWINDING})) (then (return (local.get $left))))
  (if (i64.lt_s (local.get $left) (i64.const {LISTENS}))
    (then
      (local.set $left (call $hear (local.get $left) (local.get $pc)))
      (if (i64.lt_s (local.get $left) (i64.const {UNWINDING})) (then (return (local.get $left))))
      (if (i64.ge_s (i64.add (local.get $left) (i64.const {BIAS})) (i64.const 0)) (then (return (local.get $left))))))
  (if (i64.ge_s (local.get $left) (i64.const 0)) (then (return (local.get $left))))
  (global.set $left (local.get $left))
  (call $pause (i32.const {REASON_TARGET}) (local.get $pc))
  (local.set $left (global.get $left))
  (i32.store $s offset={LAST_PC} (i32.const 0) (local.get $pc))
  (i64.store $s offset={LAST_LEFT} (i32.const 0) (local.get $left))
  (local.get $left))
(func $hear (param $left i64) (param $pc i32) (result i64)
  (local $flags i32)
  (i32.store $s offset={LAST_PC} (i32.const 0) (local.get $pc))
  (i64.store $s offset={LAST_LEFT} (i32.const 0) (local.get $left))
  (local.set $flags (i32.load8_u $s offset={FLAGS} (local.get $pc)))
  (if (i32.and (local.get $flags) (i32.const {AFTER_CALL}))
    (then (call $deeper (i32.const -1))))
  (i64.store $s offset={SEAT} (i32.const 0)
    (i64.or (i64.extend_i32_u (i32.load $s offset={DEPTH} (i32.const 0)))
      (i64.shl (i64.extend_i32_u (i32.load $s offset={EPOCH} (i32.const 0))) (i64.const 32))))
  (if (i32.and (local.get $flags) (i32.const {FLAG_LOG}))
    (then
      (if (i32.le_s (i32.load $s offset={DEPTH} (i32.const 0)) (i32.load $s offset={MAX_DEPTH} (i32.const 0)))
        (then
          (global.set $left (local.get $left))
          (call $note (local.get $left) (local.get $pc) (i32.const {LOG_STRETCH})
            (i64.extend_i32_s (i32.load $s offset={DEPTH} (i32.const 0))))
          (call $noted (local.get $pc))
          (local.set $left (global.get $left))))))
  (if (i32.and (local.get $flags) (i32.const {CALLS}))
    (then (call $deeper (i32.const 1))))
  (local.get $left))
(func $land (param $seat i64)
  (if (i64.eq (i64.shr_u (local.get $seat) (i64.const 32)) (i64.extend_i32_u (i32.load $s offset={EPOCH} (i32.const 0))))
    (then (i32.store $s offset={DEPTH} (i32.const 0) (i32.wrap_i64 (local.get $seat))))
    (else
      (i32.store $s offset={DEPTH} (i32.const 0) (i32.load $s offset={FLOOR} (i32.const 0)))
      (call $deeper (i32.const -1)))))
(func $deeper (param $by i32)
  (local $depth i32)
  (local.set $depth (i32.add (i32.load $s offset={DEPTH} (i32.const 0)) (local.get $by)))
  (i32.store $s offset={DEPTH} (i32.const 0) (local.get $depth))
  (if (i32.lt_s (local.get $depth) (i32.load $s offset={FLOOR} (i32.const 0)))
    (then (i32.store $s offset={FLOOR} (i32.const 0) (local.get $depth)))))
(func $room (param $pc i32)
  (if (i32.gt_u (i32.load $s offset={LOG_HEAD} (i32.const 0)) (i32.const {LOG_LIMIT}))
    (then (call $pause (i32.const {REASON_FULL}) (local.get $pc)))))
(func $note (param $left i64) (param $pc i32) (param $word i32) (param $address i64)
  (local $p i32)
  (call $room (local.get $pc))
  (local.set $p (i32.load $s offset={LOG_HEAD} (i32.const 0)))
  (i64.store $s (local.get $p) (local.get $left))
  (i32.store $s offset=8 (local.get $p) (local.get $pc))
  (i32.store $s offset=12 (local.get $p) (local.get $word))
  (i64.store $s offset=16 (local.get $p) (local.get $address))
  (i32.store $s offset={LOG_HEAD} (i32.const 0) (i32.add (local.get $p) (i32.const 24))))
(func $noted (param $pc i32)
  (if (i32.load $s offset={HIT_STOPS} (i32.const 0))
    (then (call $pause (i32.const {REASON_HIT}) (local.get $pc)))))
(func $payload (param $bytes i32) (result i32)
  (local $p i32)
  (local.set $p (i32.load $s offset={LOG_HEAD} (i32.const 0)))
  (i64.store $s (i32.add (local.get $p) (i32.and (local.get $bytes) (i32.const -8))) (i64.const 0))
  (i32.store $s offset={LOG_HEAD} (i32.const 0)
    (i32.add (local.get $p) (i32.and (i32.add (local.get $bytes) (i32.const 7)) (i32.const -8))))
  (local.get $p))
(func (export "served")
  (local $p i32)
  (local.set $p (i32.load $s offset={MARK_NEXT} (i32.const 0)))
  (i64.store $marks (local.get $p) (i64.sub (i64.load $s offset={TARGET} (i32.const 0)) (global.get $left)))
  (i32.store $s offset={MARK_NEXT} (i32.const 0) (i32.add (local.get $p) (i32.const 8))))
"""


def _set_global(numeric: list[tuple[int, GlobalType]]) -> str:
    """The counterpart of `global.set`: logs the value a global has now."""
    cases = []
    for i, g in numeric:
        kind = g.value
        size = {"i32": 4, "f32": 4, "i64": 8, "f64": 8, "v128": 16}[kind]
        cases.append(
            f"""(if (i32.eq (local.get $index) (i32.const {i})) (then
      (call $note (local.get $left) (local.get $pc) (i32.const {LOG_GLOBAL | size}) (i64.const {i}))
      ({kind}.store $s (call $payload (i32.const {size})) (global.get $g{i}))))"""
        )
    return f"""(func $set_global (param $index i32) (param $pc i32) (param $left i64)
  (if (i64.ge_s (local.get $left) (i64.const {_LISTENS})) (then (return)))
  (if (i32.and (i32.ne (i32.load $s offset={WATCH_GLOBAL} (i32.const 0)) (local.get $index))
               (i32.ne (i32.load $s offset={WATCH_GLOBAL} (i32.const 0)) (i32.const -1))) (then (return)))
  {" ".join(cases)}
  (call $noted (local.get $pc)))"""


def _watched(memory: str) -> str:
    """Whether [address, address + length) of a memory is to be logged; both are i64."""
    return f"""(i32.and
    (i32.or (i32.eq (i32.load $s offset={WATCH_MEMORY} (i32.const 0)) {memory})
            (i32.eq (i32.load $s offset={WATCH_MEMORY} (i32.const 0)) (i32.const -1)))
    (i32.and
      (i64.lt_u (local.get $address) (i64.load $s offset={WATCH_HIGH} (i32.const 0)))
      (i64.gt_u (i64.add (local.get $address) (local.get $length)) (i64.load $s offset={WATCH_LOW} (i32.const 0)))))"""


def _pieces(memory: int, is64: bool, pc: str, flags: int) -> str:
    """Logs what stands at [address, address + length) of a memory, in pieces."""
    source = "(local.get $address)" if is64 else "(i32.wrap_i64 (local.get $address))"
    word = (memory << _MEMORY_SHIFT) | flags
    word = word - (1 << 32) if word >= 1 << 31 else word
    return f"""(block $done (loop $more
    (br_if $done (i64.eqz (local.get $length)))
    (local.set $piece (i32.wrap_i64 (select (local.get $length) (i64.const {_PIECE})
      (i64.lt_u (local.get $length) (i64.const {_PIECE})))))
    (call $note (local.get $left) {pc} (i32.or (local.get $piece) (i32.const {word})) (local.get $address))
    (memory.copy $s $m{memory} (call $payload (local.get $piece)) {source} (local.get $piece))
    (local.set $address (i64.add (local.get $address) (i64.extend_i32_u (local.get $piece))))
    (local.set $length (i64.sub (local.get $length) (i64.extend_i32_u (local.get $piece))))
    (br $more)))"""


def _stored(memory: int, is64: bool) -> str:
    a = "i64" if is64 else "i32"
    wide = (lambda text: text) if is64 else (lambda text: f"(i64.extend_i32_u {text})")
    return f"""(func $stored{memory} (param $at {a}) (param $offset {a}) (param $size {a}) (param $pc i32) (param $left i64)
  (local $address i64) (local $length i64) (local $piece i32)
  (if (i64.ge_s (local.get $left) (i64.const {_LISTENS})) (then (return)))
  (local.set $address (i64.add {wide("(local.get $at)")} {wide("(local.get $offset)")}))
  (local.set $length {wide("(local.get $size)")})
  (if (i32.eqz {_watched(f"(i32.const {memory})")}) (then (return)))
  {_pieces(memory, is64, "(local.get $pc)", 0)}
  (call $noted (local.get $pc)))"""


def _wrote(memories: list[bool]) -> str:
    """What the interposer calls when it has written for a host."""
    cases = []
    event = f"(i32.add (i32.load $s offset={WINDOW_FIRST} (i32.const 0)) "
    event += f"(i32.shr_u (i32.load $s offset={MARK_NEXT} (i32.const 0)) (i32.const 3)))"
    for memory, is64 in enumerate(memories):
        cases.append(f"(if (i32.eq (local.get $memory) (i32.const {memory})) (then {_pieces(memory, is64, event, LOG_HOST)}))")
    return f"""(func (export "wrote") (param $memory i32) (param $address i64) (param $size i32)
  (local $length i64) (local $piece i32) (local $left i64)
  (if (i32.eqz (i32.load $s offset={LISTENING} (i32.const 0))) (then (return)))
  (local.set $length (i64.extend_i32_u (local.get $size)))
  (local.set $left (global.get $left))
  (if (i32.eqz {_watched("(local.get $memory)")}) (then (return)))
  {" ".join(cases)}
  (call $noted (i32.const -1)))"""


class Control:
    """The machine's side of the support memory."""

    def __init__(self, memory: HostMemory, layout: Layout) -> None:
        self.memory = memory
        self.layout = layout
        self._put32(LOG_HEAD, layout.log)
        self._put32(DUMP_HEAD, layout.dump)
        self._put32(MIRROR_HEAD, layout.mirror)
        self.watch_nothing()

    def _put32(self, at: int, value: int) -> None:
        ctypes.c_int32.from_address(self.memory.base + at).value = value

    def _put64(self, at: int, value: int) -> None:
        ctypes.c_int64.from_address(self.memory.base + at).value = value

    def word(self, at: int) -> int:
        return ctypes.c_int32.from_address(self.memory.base + at).value

    def long(self, at: int) -> int:
        return ctypes.c_int64.from_address(self.memory.base + at).value

    @property
    def target(self) -> int:
        return self.long(TARGET)

    @target.setter
    def target(self, value: int) -> None:
        self._put64(TARGET, value)

    def next_mark(self, place: int) -> None:
        self._put32(MARK_NEXT, place * 8)

    def window_first(self, seq: int) -> None:
        self._put32(WINDOW_FIRST, seq & 0x7FFFFFFF)

    # -- what is listened to

    def watch_nothing(self) -> None:
        self._put32(LISTENING, 0)
        self._put32(WATCH_MEMORY, -2)
        self._put32(WATCH_GLOBAL, -2)
        self._put32(HIT_STOPS, 0)
        self._put32(DEPTH, 0)
        self._put32(MAX_DEPTH, (1 << 31) - 1)

    def watch_memory(self, memory: int, low: int, high: int) -> None:
        """-1 for every memory; addresses up to `high`, which is not included."""
        self._put32(LISTENING, 1)
        self._put32(WATCH_MEMORY, memory)
        self._put64(WATCH_LOW, low)
        self._put64(WATCH_HIGH, high if high < 1 << 63 else high - (1 << 64))

    def watch_global(self, index: int) -> None:
        """-1 for every global."""
        self._put32(WATCH_GLOBAL, index)

    def stop_on_hits(self, stop: bool) -> None:
        self._put32(HIT_STOPS, int(stop))

    def set_depth(self, depth: int, limit: int) -> None:
        """From here on calls are counted from `depth`; heads of stretches deeper than `limit` are not logged.

        The frame in which the guest rests is at depth 0, whether it has already begun to call or not.
        """
        self._put32(DEPTH, depth)
        self._put32(FLOOR, 0)
        self._put32(MAX_DEPTH, limit)
        self._put32(EPOCH, self.word(EPOCH) + 1)
        self._put64(SEAT, self.word(EPOCH) << 32)

    @property
    def calls(self) -> tuple[int, int]:
        """How deep calls are nested, and where the next mirrored frame begins: a call that does not return leaves both behind."""
        return self.word(DEPTH), self.word(MIRROR_HEAD)

    @calls.setter
    def calls(self, value: tuple[int, int]) -> None:
        self._put32(DEPTH, value[0])
        self._put32(MIRROR_HEAD, value[1])

    def set_flags(self, flags: bytes | bytearray) -> None:
        """A byte for every pc: a head's HEAD_… bits, where calls are counted, and FLAG_LOG."""
        self.memory.write(self.layout.flags, bytes(flags))

    @property
    def last_pc(self) -> int:
        """The head passed last, while someone listened."""
        return self.word(LAST_PC)

    @property
    def last_left(self) -> int:
        return self.long(LAST_LEFT)

    @property
    def next_mark_place(self) -> int:
        return self.word(MARK_NEXT) >> 3

    def host_wrote(self, event: int, left: int, memory: int, address: int, data: bytes) -> bool:
        """Logs what the replay wrote on behalf of a host, as the interposer would. False: it is not watched."""
        watched = self.word(WATCH_MEMORY)
        low, high = self.long(WATCH_LOW), self.long(WATCH_HIGH) % (1 << 64)
        if not self.word(LISTENING) or watched not in (-1, memory) or address >= high or address + len(data) <= low:
            return False
        head = self.word(LOG_HEAD)
        for at in range(0, len(data), _PIECE):
            piece = data[at : at + _PIECE]
            entry = _HEADER.pack(left, event, len(piece) | memory << _MEMORY_SHIFT | LOG_HOST, address + at)
            self.memory.write(head, entry + piece + bytes(-len(piece) % 8))
            head += _HEADER.size + (len(piece) + 7 & ~7)
            self._put32(LOG_HEAD, head)
        return True

    @property
    def log_room(self) -> int:
        return self.layout.log + LOG_SIZE - self.word(LOG_HEAD)

    # -- frames

    def foreign_frame(self, index: int) -> None:
        """Marks in the dump that the frames so far were called from inside this import."""
        head = self.dump_head
        if head + 16 <= self.layout.mirror:
            self.memory.write(head, struct.pack("<IIII", FOREIGN_FRAME, index, 0, 16))
        self._put32(DUMP_HEAD, head + 16)

    @property
    def dump_head(self) -> int:
        return self.word(DUMP_HEAD)

    @property
    def mirror_head(self) -> int:
        """Where the next mirrored frame begins."""
        return self.word(MIRROR_HEAD)

    def reset_dump(self) -> None:
        self._put32(DUMP_HEAD, self.layout.dump)

    def dumped(self, at: int, length: int) -> bytes:
        return self.memory.read(at, length)

    # -- the log

    def take_log(self) -> bytes:
        head = self.word(LOG_HEAD)
        data = self.memory.read(self.layout.log, head - self.layout.log)
        self._put32(LOG_HEAD, self.layout.log)
        return data


def entries(log: bytes) -> Iterator[Entry]:
    """What stands in a log that was taken."""
    at = 0
    while at < len(log):
        left, pc, word, address = _HEADER.unpack_from(log, at)
        length = word & _LENGTH_MASK
        memory = word >> _MEMORY_SHIFT & _MEMORY_MASK
        at += _HEADER.size
        if word & LOG_STRETCH:
            yield Entry(left, pc, -1, "head", 0, address, b"", 0)
            continue
        data = log[at : at + length]
        at += length + 7 & ~7
        if word & LOG_GLOBAL:
            yield Entry(left, pc, -1, "global", 0, address, data, length)
        elif word & LOG_HOST:
            yield Entry(left, -1, pc, "write", memory, address, data, length)
        else:
            yield Entry(left, pc, -1, "write", memory, address, data, length)
