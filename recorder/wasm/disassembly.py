"""Instructions as people read them: the mnemonics and operands of the WebAssembly text format.

What is printed can be assembled again, and yields the bytes it was printed from, provided their integers were
written in the shortest way. So nothing is rounded: floats are hexadecimal or carry their payload, and the
readable value follows as a comment. Names come from the binary, so from anyone: whatever could move a
terminal's cursor, reorder a line or end a comment is escaped.

Immediates are bounded by `recorder.wasm.instructions`, which alone knows where an instruction ends. This
module only gives them names.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Final

from recorder.wasm import instructions as ops
from recorder.wasm.binary import Reader, WasmError
from recorder.wasm.module import CODE, Module, _heap_type, _value_type, read_locals

MAX_NAME: Final = 200
"""Longest name printed, in characters; longer ones are cut off and end in an ellipsis."""


@dataclass(frozen=True, slots=True)
class Line:
    """One instruction of a function."""

    offset: int
    """Of its first byte, from the start of the binary."""
    pc: int
    """The same, from the start of the code section's payload: how DWARF counts."""
    size: int
    """In bytes, immediates included."""
    depth: int
    """How many blocks it lies in. What opens or closes a block lies outside of it, and so does the last `end`."""
    text: str
    """In the text format, on one line, with the names it refers to as a comment (`call 12 ;; malloc`)."""
    opcode: int
    sub: int
    """The opcode behind a prefix; 0 without one."""


def disassemble(module: Module, function_index: int) -> list[Line]:
    """Every instruction of a function, in order. They cover its body from the declarations of locals to its end.

    Raises WasmError for a function that is imported or does not exist, and for malformed code.
    """
    defined = function_index - module.imported.functions
    if not 0 <= defined < len(module.code):
        imported = 0 <= function_index < module.imported.functions
        raise WasmError(f"function {function_index} {'is imported: it has no code here' if imported else 'does not exist'}")
    section = module.section(CODE)
    assert section is not None  # the function's body lies in it
    body = module.code[defined]
    reader = Reader(module.data, body.start, body.end)
    read_locals(reader)
    lines = []
    depth = 0
    for at, opcode, sub, after in ops.instructions(module.data, reader.position, body.end):
        if opcode in _CLOSING and depth:
            depth -= 1
        text = instruction_text(module, at, after)
        lines.append(Line(at, at - section.start, after - at, depth, text, opcode, sub))
        if opcode in _OPENING:
            depth += 1
    return lines


def mnemonic(opcode: int, sub: int = 0) -> str:
    """The name of an instruction without its operands; raises WasmError if there is none."""
    found = _PREFIXED_NAMES[opcode].get(sub) if opcode in _PREFIXED_NAMES else _PLAIN_NAMES.get(opcode)
    if found is None:
        raise WasmError(f"unknown instruction {opcode:#04x}" + (f" {sub:#04x}" if opcode in _PREFIXED_NAMES else ""))
    return found


def instruction_text(module: Module, at: int, end: int) -> str:
    """The one instruction that lies at `module.data[at:end]`, in the text format."""
    reader = Reader(module.data, at, end)
    opcode = reader.byte()
    sub = reader.u32() if opcode in ops.PREFIXED else 0
    name = mnemonic(opcode, sub)
    if opcode in (ops.CALL, ops.RETURN_CALL, _REF_FUNC):
        index = reader.u32()
        called = _function_name(module, index)
        return f"{name} {index} ;; {called}" if called else f"{name} {index}"
    operands = _operands(opcode, sub)
    return name if operands is None else " ".join((name, *operands(reader)))


def escaped(name: str) -> str:
    """A name from a binary, safe to print on a terminal and to put in a comment."""
    cut = name if len(name) <= MAX_NAME else name[:MAX_NAME] + "…"
    if cut.isprintable():
        return cut
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape", "backslashreplace").decode() for letter in cut
    )


def float_text(bits: int, width: int) -> str:
    """A float of `width` bits, exactly, as the text format writes it."""
    fraction_bits, exponent_bits = (23, 8) if width == 32 else (52, 11)
    fraction = bits & ((1 << fraction_bits) - 1)
    exponent = bits >> fraction_bits & ((1 << exponent_bits) - 1)
    sign = "-" if bits >> (width - 1) else ""
    if exponent == (1 << exponent_bits) - 1:
        return f"{sign}nan:{fraction:#x}" if fraction else f"{sign}inf"
    (value,) = struct.unpack("<f" if width == 32 else "<d", bits.to_bytes(width // 8, "little"))
    digits, power = abs(value).hex().split("p")
    return f"{sign}{digits.rstrip('0').rstrip('.') if '.' in digits else digits}p{power}"


# --- names of opcodes

_REF_FUNC: Final = 0xD2
_OPENING: Final = frozenset((ops.BLOCK, ops.LOOP, ops.IF, ops.ELSE, ops.TRY, ops.TRY_TABLE, ops.CATCH, ops.CATCH_ALL))
_CLOSING: Final = frozenset((ops.ELSE, ops.END, ops.CATCH, ops.CATCH_ALL, ops.DELEGATE))


def _names(first: int, text: str) -> dict[int, str]:
    """Names of consecutive opcodes from `first` on. `-` is an opcode that nobody has assigned; `i32:` is put in
    front of the names that follow it."""
    table: dict[int, str] = {}
    prefix = ""
    opcode = first
    for word in text.split():
        if word.endswith(":"):
            prefix = word[:-1] + "." if word != ":" else ""
            continue
        if word != "-":
            table[opcode] = prefix + word
        opcode += 1
    return table


_INT_COMPARE: Final = "eq ne lt_s lt_u gt_s gt_u le_s le_u ge_s ge_u"
_FLOAT_COMPARE: Final = "eq ne lt gt le ge"
_INT_ARITHMETIC: Final = "clz ctz popcnt add sub mul div_s div_u rem_s rem_u and or xor shl shr_s shr_u rotl rotr"
_FLOAT_ARITHMETIC: Final = "abs neg ceil floor trunc nearest sqrt add sub mul div min max copysign"

_PLAIN_NAMES: Final[dict[int, str]] = {
    **_names(0x00, "unreachable nop block loop if else try catch throw rethrow throw_ref end br br_if br_table return"),
    **_names(0x10, "call call_indirect return_call return_call_indirect call_ref return_call_ref - - delegate catch_all"),
    **_names(0x1A, "drop select select - - try_table local: get set tee global: get set table: get set"),
    **_names(0x28, "i32: load i64: load f32: load f64: load i32: load8_s load8_u load16_s load16_u"),
    **_names(0x30, "i64: load8_s load8_u load16_s load16_u load32_s load32_u i32: store i64: store f32: store f64: store"),
    **_names(0x3A, "i32: store8 store16 i64: store8 store16 store32 memory: size grow"),
    **_names(0x41, "i32: const i64: const f32: const f64: const"),
    **_names(0x45, f"i32: eqz {_INT_COMPARE} i64: eqz {_INT_COMPARE} f32: {_FLOAT_COMPARE} f64: {_FLOAT_COMPARE}"),
    **_names(0x67, f"i32: {_INT_ARITHMETIC} i64: {_INT_ARITHMETIC} f32: {_FLOAT_ARITHMETIC} f64: {_FLOAT_ARITHMETIC}"),
    **_names(0xA7, "i32: wrap_i64 trunc_f32_s trunc_f32_u trunc_f64_s trunc_f64_u"),
    **_names(0xAC, "i64: extend_i32_s extend_i32_u trunc_f32_s trunc_f32_u trunc_f64_s trunc_f64_u"),
    **_names(0xB2, "f32: convert_i32_s convert_i32_u convert_i64_s convert_i64_u demote_f64"),
    **_names(0xB7, "f64: convert_i32_s convert_i32_u convert_i64_s convert_i64_u promote_f32"),
    **_names(0xBC, "i32: reinterpret_f32 i64: reinterpret_f64 f32: reinterpret_i32 f64: reinterpret_i64"),
    **_names(0xC0, "i32: extend8_s extend16_s i64: extend8_s extend16_s extend32_s"),
    **_names(0xD0, "ref: null is_null func eq as_non_null : br_on_null br_on_non_null"),
    **_names(0xE0, "cont: new bind : suspend resume resume_throw resume_throw_ref switch"),
}


def _gc_names() -> dict[int, str]:
    return {
        **_names(0, "struct: new new_default get get_s get_u set"),
        **_names(6, "array: new new_default new_fixed new_data new_elem get get_s get_u set len fill copy init_data init_elem"),
        **_names(20, "ref: test test cast cast : br_on_cast br_on_cast_fail any: convert_extern extern: convert_any"),
        **_names(28, "ref: i31 i31: get_s get_u"),
    }


def _misc_names() -> dict[int, str]:
    saturating = "trunc_sat_f32_s trunc_sat_f32_u trunc_sat_f64_s trunc_sat_f64_u"
    return {
        **_names(0, f"i32: {saturating} i64: {saturating} memory: init data: drop memory: copy fill"),
        **_names(12, "table: init elem: drop table: copy grow size fill - i64: add128 sub128 mul_wide_s mul_wide_u"),
    }


def _simd_names() -> dict[int, str]:
    integer_lanes = "shl shr_s shr_u add add_sat_s add_sat_u sub sub_sat_s sub_sat_u"
    wide_lanes = "shl shr_s shr_u add - - sub - - - mul"
    float_lanes = "abs neg - sqrt add sub mul div min max pmin pmax"

    def halves(operation: str, lanes: str) -> str:
        return " ".join(f"{operation}_{half}_{lanes}_{sign}" for sign in "su" for half in ("low", "high"))

    return {
        **_names(0, "v128: load load8x8_s load8x8_u load16x4_s load16x4_u load32x2_s load32x2_u"),
        **_names(7, "v128: load8_splat load16_splat load32_splat load64_splat store const i8x16: shuffle swizzle"),
        **_names(15, "i8x16: splat i16x8: splat i32x4: splat i64x2: splat f32x4: splat f64x2: splat"),
        **_names(21, "i8x16: extract_lane_s extract_lane_u replace_lane i16x8: extract_lane_s extract_lane_u replace_lane"),
        **_names(27, "i32x4: extract_lane replace_lane i64x2: extract_lane replace_lane"),
        **_names(31, "f32x4: extract_lane replace_lane f64x2: extract_lane replace_lane"),
        **_names(35, f"i8x16: {_INT_COMPARE} i16x8: {_INT_COMPARE} i32x4: {_INT_COMPARE}"),
        **_names(65, f"f32x4: {_FLOAT_COMPARE} f64x2: {_FLOAT_COMPARE} v128: not and andnot or xor bitselect any_true"),
        **_names(84, "v128: load8_lane load16_lane load32_lane load64_lane store8_lane store16_lane store32_lane store64_lane"),
        **_names(92, "v128: load32_zero load64_zero f32x4: demote_f64x2_zero f64x2: promote_low_f32x4"),
        **_names(96, "i8x16: abs neg popcnt all_true bitmask narrow_i16x8_s narrow_i16x8_u f32x4: ceil floor trunc nearest"),
        **_names(107, f"i8x16: {integer_lanes} f64x2: ceil floor i8x16: min_s min_u max_s max_u f64x2: trunc i8x16: avgr_u"),
        **_names(124, "i16x8: extadd_pairwise_i8x16_s extadd_pairwise_i8x16_u"),
        **_names(126, "i32x4: extadd_pairwise_i16x8_s extadd_pairwise_i16x8_u"),
        **_names(128, "i16x8: abs neg q15mulr_sat_s all_true bitmask narrow_i32x4_s narrow_i32x4_u"),
        **_names(135, f"i16x8: {halves('extend', 'i8x16')} {integer_lanes} f64x2: nearest i16x8: mul"),
        **_names(150, f"i16x8: min_s min_u max_s max_u - avgr_u {halves('extmul', 'i8x16')}"),
        **_names(160, f"i32x4: abs neg - all_true bitmask - - {halves('extend', 'i16x8')} {wide_lanes}"),
        **_names(182, f"i32x4: min_s min_u max_s max_u dot_i16x8_s - {halves('extmul', 'i16x8')}"),
        **_names(192, f"i64x2: abs neg - all_true bitmask - - {halves('extend', 'i32x4')} {wide_lanes}"),
        **_names(214, f"i64x2: eq ne lt_s gt_s le_s ge_s {halves('extmul', 'i32x4')}"),
        **_names(224, f"f32x4: {float_lanes} f64x2: {float_lanes}"),
        **_names(248, "i32x4: trunc_sat_f32x4_s trunc_sat_f32x4_u f32x4: convert_i32x4_s convert_i32x4_u"),
        **_names(252, "i32x4: trunc_sat_f64x2_s_zero trunc_sat_f64x2_u_zero f64x2: convert_low_i32x4_s convert_low_i32x4_u"),
        **_names(0x100, "i8x16: relaxed_swizzle i32x4: relaxed_trunc_f32x4_s relaxed_trunc_f32x4_u"),
        **_names(0x103, "i32x4: relaxed_trunc_f64x2_s_zero relaxed_trunc_f64x2_u_zero"),
        **_names(0x105, "f32x4: relaxed_madd relaxed_nmadd f64x2: relaxed_madd relaxed_nmadd"),
        **_names(0x109, " ".join(f"{lanes}: relaxed_laneselect" for lanes in ("i8x16", "i16x8", "i32x4", "i64x2"))),
        **_names(0x10D, "f32x4: relaxed_min relaxed_max f64x2: relaxed_min relaxed_max i16x8: relaxed_q15mulr_s"),
        **_names(0x112, "i16x8: relaxed_dot_i8x16_i7x16_s i32x4: relaxed_dot_i8x16_i7x16_add_s"),
    }


_ATOMIC_WIDTHS: Final = (("i32", ""), ("i64", ""), ("i32", "8"), ("i32", "16"), ("i64", "8"), ("i64", "16"), ("i64", "32"))
"""The order in which each family of atomic accesses comes: type, and width where it is narrower."""


def _atomic_names() -> dict[int, str]:
    table = _names(0, "memory.atomic: notify wait32 wait64 : atomic.fence")
    table |= {0x10 + at: f"{kind}.atomic.load{width}{width and '_u'}" for at, (kind, width) in enumerate(_ATOMIC_WIDTHS)}
    table |= {0x17 + at: f"{kind}.atomic.store{width}" for at, (kind, width) in enumerate(_ATOMIC_WIDTHS)}
    for number, change in enumerate(("add", "sub", "and", "or", "xor", "xchg", "cmpxchg")):
        first = 0x1E + 7 * number
        for at, (kind, width) in enumerate(_ATOMIC_WIDTHS):
            table[first + at] = f"{kind}.atomic.rmw{width}.{change}{width and '_u'}"
    return table


_PREFIXED_NAMES: Final[dict[int, dict[int, str]]] = {
    ops.GC_PREFIX: _gc_names(),
    ops.MISC_PREFIX: _misc_names(),
    ops.SIMD_PREFIX: _simd_names(),
    ops.ATOMIC_PREFIX: _atomic_names(),
}

# --- operands

_Operands = Callable[[Reader], list[str]]
"""Reads the immediates of an instruction and gives them as words of the text format, in its order."""

_NATURAL_PLAIN: Final = dict(enumerate(bytes.fromhex("02030203000001010000010102020203020300010001 02"), 0x28))
_NATURAL_SIMD: Final = dict(enumerate(bytes.fromhex("040303030303030001020304")))
_NATURAL_SIMD_LANES: Final = {**dict(enumerate(bytes.fromhex("0001020300010203"), 84)), 92: 2, 93: 3}
_NATURAL_ATOMIC: Final = {0: 2, 1: 2, 2: 3} | {0x10 + at: (2, 3, 0, 1, 0, 1, 2)[at % 7] for at in range(63)}
_NATURAL: Final[dict[tuple[int, int], int]] = {
    **{(opcode, 0): log for opcode, log in _NATURAL_PLAIN.items()},
    **{(ops.SIMD_PREFIX, sub): log for sub, log in (_NATURAL_SIMD | _NATURAL_SIMD_LANES).items()},
    **{(ops.ATOMIC_PREFIX, sub): log for sub, log in _NATURAL_ATOMIC.items()},
}
"""The alignment each memory access has unless it says otherwise, as a power of two."""


def _function_name(module: Module, index: int) -> str:
    """How a function is called, as a comment; empty if the binary has no name for it."""
    name = module.function_names().get(index)
    if name is None and index < module.imported.functions:
        position = 0
        for found in module.imports:
            if found.kind == "function":
                if position == index:
                    name = f"{found.module}.{found.name}"
                    break
                position += 1
    return escaped(name) if name else ""


def _index(reader: Reader) -> list[str]:
    return [str(reader.u32())]


def _two_indices(reader: Reader) -> list[str]:
    return [str(reader.u32()), str(reader.u32())]


def _index_unless_0(reader: Reader) -> list[str]:
    """A table or memory, of which most modules have one."""
    index = reader.u32()
    return [str(index)] if index else []


def _copy(reader: Reader) -> list[str]:
    both = [reader.u32(), reader.u32()]
    return [str(index) for index in both] if any(both) else []


def _segment_then_space(reader: Reader) -> list[str]:
    """memory.init and table.init: the binary has the segment first, the text has it last."""
    segment = reader.u32()
    return [*_index_unless_0(reader), str(segment)]


def _call_indirect(reader: Reader) -> list[str]:
    signature = reader.u32()
    return [*_index_unless_0(reader), f"(type {signature})"]


def _block_type(reader: Reader) -> list[str]:
    first = reader.peek()
    if first == 0x40:
        reader.byte()
        return []
    if first & 0xC0 == 0x40:  # one byte, negative: a value type
        return [f"(result {_value_type(reader)})"]
    at = reader.position
    index = reader.s33()
    if index < 0:
        raise WasmError("malformed block type", at)
    return [f"(type {index})"]


def _try_table(reader: Reader) -> list[str]:
    words = _block_type(reader)
    for _ in range(reader.count(2)):
        at = reader.position
        kind = reader.byte()
        if kind > 3:
            raise WasmError(f"unknown catch clause {kind:#04x}", at)
        tag = f" {reader.u32()}" if kind < 2 else ""
        words.append(f"({('catch', 'catch_ref', 'catch_all', 'catch_all_ref')[kind]}{tag} {reader.u32()})")
    return words


def _branch_table(reader: Reader) -> list[str]:
    return [str(label) for label in ops.read_branch_table(reader)]


def _select_types(reader: Reader) -> list[str]:
    types = [_value_type(reader) for _ in range(reader.count())]
    return [f"(result{''.join(' ' + one for one in types)})"]


def _memory_access(natural: int) -> _Operands:
    def operands(reader: Reader) -> list[str]:
        at = reader.position
        flags = reader.u32()
        if flags >= 0x80:
            raise WasmError("malformed alignment", at)
        words = _index_unless_0(reader) if flags & 0x40 else []
        offset = reader.u64()
        if offset:
            words.append(f"offset={offset}")
        if flags & 0x3F != natural:
            words.append(f"align={1 << (flags & 0x3F)}")
        return words

    return operands


def _memory_access_and_lane(natural: int) -> _Operands:
    access = _memory_access(natural)
    return lambda reader: [*access(reader), str(reader.byte())]


def _lane(reader: Reader) -> list[str]:
    return [str(reader.byte())]


def _shuffle(reader: Reader) -> list[str]:
    return [str(lane) for lane in reader.take(16)]


def _fence(reader: Reader) -> list[str]:
    reader.byte()
    return []


def _signed(bits: int) -> _Operands:
    return lambda reader: [str(reader._signed(bits))]


def _float(width: int) -> _Operands:
    def operands(reader: Reader) -> list[str]:
        raw = reader.take(width // 8)
        exact = float_text(int.from_bytes(raw, "little"), width)
        if "0x" not in exact or ":" in exact:  # infinite, or not a number
            return [exact]
        return [exact, ";;", _shortest(raw)]

    return operands


def _shortest(raw: bytes) -> str:
    """The shortest decimal that reads back as this float."""
    if len(raw) == 8:
        return repr(struct.unpack("<d", raw)[0])
    (value,) = struct.unpack("<f", raw)
    return next((text for digits in range(1, 9) if _as_f32(text := f"{value:.{digits}g}") == raw), f"{value:.9g}")


def _as_f32(text: str) -> bytes | None:
    try:
        return struct.pack("<f", float(text))
    except OverflowError:  # rounded up, past the largest
        return None


def _vector(reader: Reader) -> list[str]:
    return ["i32x4", *(f"{lane:#010x}" for lane in struct.unpack("<4I", reader.take(16)))]


def _heap(reader: Reader) -> list[str]:
    return [_heap_type(reader)]


def _reference(nullable: bool) -> _Operands:
    return lambda reader: [_reference_text(nullable, _heap_type(reader))]


def _reference_text(nullable: bool, heap: str) -> str:
    return f"(ref {'null ' if nullable else ''}{heap})"


def _branch_on_cast(reader: Reader) -> list[str]:
    flags = reader.byte()
    label = str(reader.u32())
    source = _reference_text(bool(flags & 1), _heap_type(reader))
    return [label, source, _reference_text(bool(flags & 2), _heap_type(reader))]


def _resume(indices: int) -> _Operands:
    def operands(reader: Reader) -> list[str]:
        words = [str(reader.u32()) for _ in range(indices)]
        for _ in range(reader.count(2)):
            switches = reader.byte() != 0
            tag = reader.u32()
            words.append(f"(on {tag} {'switch' if switches else reader.u32()})")
        return words

    return operands


_PLAIN_OPERANDS: Final[dict[int, _Operands]] = {
    **dict.fromkeys((ops.BLOCK, ops.LOOP, ops.IF, ops.TRY), _block_type),
    ops.TRY_TABLE: _try_table,
    ops.BR_TABLE: _branch_table,
    ops.SELECT_TYPED: _select_types,
    **dict.fromkeys((ops.CALL_INDIRECT, ops.RETURN_CALL_INDIRECT), _call_indirect),
    **dict.fromkeys((0x25, 0x26, 0x3F, 0x40), _index_unless_0),
    0x41: _signed(32),
    0x42: _signed(64),
    0x43: _float(32),
    0x44: _float(64),
    0xD0: _heap,
    0xE3: _resume(1),
    0xE4: _resume(2),
    0xE5: _resume(1),
}
_PREFIXED_OPERANDS: Final[dict[tuple[int, int], _Operands]] = {
    (ops.GC_PREFIX, 20): _reference(False),
    (ops.GC_PREFIX, 21): _reference(True),
    (ops.GC_PREFIX, 22): _reference(False),
    (ops.GC_PREFIX, 23): _reference(True),
    (ops.GC_PREFIX, ops.BR_ON_CAST): _branch_on_cast,
    (ops.GC_PREFIX, ops.BR_ON_CAST_FAIL): _branch_on_cast,
    (ops.MISC_PREFIX, 8): _segment_then_space,
    (ops.MISC_PREFIX, 10): _copy,
    (ops.MISC_PREFIX, 11): _index_unless_0,
    (ops.MISC_PREFIX, 12): _segment_then_space,
    (ops.MISC_PREFIX, 14): _copy,
    **dict.fromkeys(((ops.MISC_PREFIX, sub) for sub in (15, 16, 17)), _index_unless_0),
    (ops.SIMD_PREFIX, 12): _vector,
    (ops.SIMD_PREFIX, 13): _shuffle,
    **dict.fromkeys(((ops.SIMD_PREFIX, sub) for sub in range(21, 35)), _lane),
    (ops.ATOMIC_PREFIX, 3): _fence,
}
"""What the shape of the immediates alone does not tell."""


@cache
def _operands(opcode: int, sub: int) -> _Operands | None:
    """How to read the operands of an instruction; None if it has none. Anything without a rule of its own has
    one index, two, or nothing: its size decides."""
    rule = _PREFIXED_OPERANDS.get((opcode, sub)) if opcode in ops.PREFIXED else _PLAIN_OPERANDS.get(opcode)
    if rule is not None:
        return rule
    natural = _NATURAL.get((opcode, sub))
    if natural is not None:
        with_lane = opcode == ops.SIMD_PREFIX and 84 <= sub < 92
        return _memory_access_and_lane(natural) if with_lane else _memory_access(natural)
    shape = ops.PREFIXED[opcode][sub] if opcode in ops.PREFIXED else ops.PLAIN[opcode]
    return {ops._NONE: None, ops._U32: _index, ops._U32 + ops._U32: _two_indices}[shape]
