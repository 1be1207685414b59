"""Values as people read them: one line of text, and children for whoever wants to look inside."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property
from typing import Final

from replayer.source import types
from replayer.source.bits import Damaged
from replayer.source.places import Evaluator, InMemory, Missing, Place, Status
from replayer.source.units import ZIG, Die

MAX_STRING: Final = 200
"""Bytes of a string that are shown."""
MAX_CHILDREN: Final = 100
"""Elements of an array that are children; how many more there are is said."""
MAX_MEMBERS: Final = 1_000
MAX_RAW: Final = 4_096
"""Bytes of a value that `Value.raw` holds at most."""
_SLICES: Final = (("data_ptr", "length"), ("ptr", "len"))
"""What Rust and Zig call the members of a slice."""
_IN_LINE: Final = 8
"""Elements and members that the text of an aggregate shows."""
_IN_DEPTH: Final = 2
"""How deep the text of an aggregate goes."""


@dataclass(frozen=True)
class Value:
    """One value, and what it is made of."""

    name: str
    """Of the variable, the member ("next"), the element ("[3]") or the pointee ("*next")."""
    type_name: str
    text: str
    """One line. What is cut short ends in "…"; a value that cannot be had is "<optimised out>" or "<unavailable: why>"."""
    raw: bytes | None
    """The bytes, little-endian, at most `MAX_RAW`; None if not all of them are known, and for bit fields."""
    address: int | None
    """Where it lies in memory 0; None if it lies elsewhere."""
    status: Status
    """Of a value in parts, "ok" even if parts are missing: they say so themselves."""
    expand: Callable[[], list[Value]] | None = field(default=None, repr=False, compare=False)
    """Makes the children; None if there are none."""

    @cached_property
    def children(self) -> list[Value]:
        """Members, elements, or what a pointer points to. Computed when first asked for, with the frame the value was
        read from: so ask while that frame still stands where it stood."""
        return [] if self.expand is None else self.expand()


def missing_value(name: str, type_name: str, missing: Missing, address: int | None = None) -> Value:
    """The value that stands for one that cannot be had."""
    text = f"<{missing.status}: {missing.reason}>" if missing.reason else f"<{missing.status}>"
    return Value(name, type_name, text, None, address, missing.status)


def quote(data: bytes, cut: bool = False) -> str:
    """A string in double quotes, escaped. Room behind it that was never used is counted, not shown."""
    pieces = []
    unused = len(data) - len(data.rstrip(b"\0")) if not cut else 0
    if unused > 3:
        return f"{quote(data[:-unused])} and {unused} zeros"
    for char in data.decode("utf-8", "backslashreplace" if not cut else "replace"):
        pieces.append(_ESCAPES.get(char) or (char if char.isprintable() else f"\\u{{{ord(char):x}}}"))
    return '"' + "".join(pieces) + '"' + ("…" if cut else "")


_ESCAPES: Final = {'"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t", "\0": "\\0", "\x1b": "\\e"}


class Builder:
    """Makes the values that one frame holds."""

    def __init__(self, evaluator: Evaluator) -> None:
        self.evaluator = evaluator
        self.frame = evaluator.frame

    def value(self, name: str, declared: Die | None, place: Place, offset: int = 0, depth: int = 0) -> Value:
        """The value of type `declared` that lies `offset` bytes into `place`."""
        try:
            return self._value(name, declared, place, offset, depth)
        except (Missing, Damaged) as error:
            missing = error if isinstance(error, Missing) else Missing("unavailable", f"damaged debug information: {error}")
            address = None if place.address is None else place.address + offset
            return missing_value(name, types.type_name(declared), missing, address)

    def _value(self, name: str, declared: Die | None, place: Place, offset: int, depth: int) -> Value:
        die = types.peel(declared)
        if die is None:
            raise Missing("unavailable", "the value has no type")
        die = types.definition(die)
        if die.tag in types.AGGREGATES:
            return self._aggregate(name, declared, die, place, offset, depth)
        if die.tag == "array_type":
            return self._array(name, declared, die, place, offset, depth, 0)
        size = types.byte_size(die)
        if size is None or not 0 <= size <= 64:
            raise Missing("unavailable", "a type that is not supported")
        return self._scalar(name, declared, die, place.read(offset, size), self._address(place, offset))

    @staticmethod
    def _address(place: Place, offset: int) -> int | None:
        return None if place.address is None else place.address + offset

    # --- scalars

    def _scalar(self, name: str, declared: Die | None, die: Die, data: bytes, address: int | None) -> Value:
        text = self._pointer_text(die, data) if die.tag in types.POINTERS else scalar_text(die, data)
        expand = self._pointee(name, die, data) if die.tag in types.POINTERS else None
        return Value(name, types.type_name(declared), text, data, address, "ok", expand)

    def _pointer_text(self, die: Die, data: bytes) -> str:
        target, target_type = int.from_bytes(data, "little"), types.peel(die.reference("DW_AT_type"))
        if target_type is not None and target_type.tag == "subroutine_type":
            return f"function {target} of the table" if target else "0x0"
        if target and types.is_character(die.reference("DW_AT_type")) and die.tag == "pointer_type":
            return f"{target:#x} {self._string(target)}"
        return f"{target:#x}"

    def _string(self, address: int) -> str:
        """The C string at an address: read in small steps, for it may end just before the memory does."""
        data = b""
        while len(data) <= MAX_STRING:
            step = self.frame.memory(address + len(data), 32)
            if step is None:
                step = self._tail(address + len(data))
                if not step:
                    return f"{quote(data, cut=True)} <memory ends>" if data else "<not in memory>"
            end = step.find(b"\0")
            if end >= 0:
                data += step[:end]
                break
            data += step
        return quote(data) if len(data) <= MAX_STRING else quote(data[:MAX_STRING], cut=True)

    def _tail(self, address: int) -> bytes:
        data = b""
        while (byte := self.frame.memory(address + len(data), 1)) and len(data) < 32:
            data += byte
        return data

    def _pointee(self, name: str, die: Die, data: bytes) -> Callable[[], list[Value]] | None:
        target, declared = int.from_bytes(data, "little"), die.reference("DW_AT_type")
        below = types.peel(declared)
        if not target or below is None or below.tag in ("subroutine_type", "unspecified_type"):
            return None
        return lambda: [self.value(f"*{name}", declared, InMemory(self.frame, target))]

    # --- aggregates

    def _aggregate(self, name: str, declared: Die | None, die: Die, place: Place, offset: int, depth: int) -> Value:
        if die.has("DW_AT_declaration"):
            raise Missing("unavailable", "the type is only declared")
        shown = types.type_name(declared)
        address = self._address(place, offset)
        raw = _raw(place, offset, types.byte_size(die))
        variant = next((child for child in die.children if child.tag == "variant_part"), None)
        if variant is not None:
            return self._variant(name, shown, die, variant, place, offset, depth)
        parts = [part for _, part in zip(range(MAX_MEMBERS), types.members(die), strict=False)]
        special = self._slice(name, shown, parts, place, offset, depth)
        if special is None and die.unit.language == ZIG:
            special = self._zig(name, shown, parts, place, offset, depth)
        if special is not None:
            return special

        def expand() -> list[Value]:
            return [self._member(part, place, offset, 0) for part in parts]

        if depth > _IN_DEPTH:
            text = "{…}" if parts else "{}"
        else:
            inner = [self._member(part, place, offset, depth + 1) for part in parts[:_IN_LINE]]
            if inner and all(part.status != "ok" for part in inner) and len(inner) == len(parts):
                raise Missing(inner[0].status, "" if inner[0].status == "optimised out" else _reason(inner[0]))
            text = _braces([f"{part.name} = {part.text}" for part in inner], len(parts) > _IN_LINE)
        return Value(name, shown, text, raw, address, "ok", expand if parts else None)

    def _member(self, part: types.Member, place: Place, offset: int, depth: int) -> Value:
        if part.bits is None:
            return self.value(part.name, part.type, place, offset + part.offset, depth)
        start, size = part.bits
        low, high = start // 8, (start + size + 7) // 8
        shown = f"{types.type_name(part.type)} : {size}"
        try:
            number = int.from_bytes(place.read(offset + low, high - low), "little") >> start % 8 & ((1 << size) - 1)
            die = types.peel(part.type)
            whole = types.byte_size(die) or 0
            if die is None or not size <= 8 * whole <= 128:
                raise Missing("unavailable", "a bit field larger than its type")
            if _is_signed(die) and number >> size - 1:
                number -= 1 << size
            text = scalar_text(die, (number & ((1 << 8 * whole) - 1)).to_bytes(whole, "little"))
        except Missing as missing:
            return missing_value(part.name, shown, missing)
        return Value(part.name, shown, text, None, self._address(place, offset + low), "ok")

    def _variant(self, name: str, shown: str, die: Die, variant: Die, place: Place, offset: int, depth: int) -> Value:
        """An enum of Rust: the discriminant says which of the variants is there."""
        chosen, fallback = None, None
        marker = variant.reference("DW_AT_discr")
        found = types.member(marker) if marker is not None else None
        number: int | None = None
        if found is not None:
            size = types.byte_size(found.type) or 0
            if not 0 < size <= 16:
                raise Missing("unavailable", "a discriminant that is not supported")
            number = int.from_bytes(place.read(offset + found.offset, size), "little")
        for child in variant.children:
            if child.tag != "variant":
                continue
            value = child.number("DW_AT_discr_value")
            if value is None:
                fallback = child
            elif number is not None and found is not None and value & _mask(found.type) == number:
                chosen = child
        picked = chosen or fallback
        part = next((types.member(child) for child in picked.children if child.tag == "member"), None) if picked else None
        raw, address = _raw(place, offset, types.byte_size(die)), self._address(place, offset)
        if part is None:
            return Value(name, shown, f"<no variant {number}>", raw, address, "ok")
        if depth > _IN_DEPTH + 1:
            return Value(name, shown, f"{part.name} {{…}}", raw, address, "ok")
        inner = self._member(part, place, offset, depth + 1)
        text = part.name if inner.text == "{}" else f"{part.name} {inner.text}"
        return Value(name, shown, text, raw, address, "ok", lambda: [self._member(part, place, offset, 0)])

    def _zig(self, name: str, shown: str, parts: list[types.Member], place: Place, offset: int, depth: int) -> Value | None:
        """An optional or a tagged union of Zig: structs like others, but for the names of their members."""
        by_name = {part.name: part for part in parts}
        if len(parts) != 2 or set(by_name) not in ({"payload", "some"}, {"payload", "tag"}):
            return None
        payload = by_name["payload"]
        raw, address = _raw(place, offset, (types.byte_size(parts[0].type) or 0) + parts[1].offset), self._address(place, offset)
        if "some" in by_name:
            if not place.read(offset + by_name["some"].offset, 1)[0]:
                return Value(name, shown, "null", raw, address, "ok")
            inner = self._member(payload, place, offset, depth)
            return Value(name, shown, inner.text, raw, address, inner.status, lambda: [self._member(payload, place, offset, 0)])
        tag, union = by_name["tag"], types.peel(payload.type)
        tag_type, size = types.peel(tag.type), types.byte_size(tag.type)
        if union is None or union.tag != "union_type" or tag_type is None or not size or depth > _IN_DEPTH + 1:
            return None
        number = int.from_bytes(place.read(offset + tag.offset, size), "little")
        active = next((text for text, value in types.enumerators(tag_type) if value & _mask(tag_type) == number), None)
        part = next((part for part in types.members(union) if part.name == active), None)
        if active is None:
            return None
        if part is None:  # a variant without a payload
            return Value(name, shown, active, raw, address, "ok")
        start = offset + payload.offset
        text = f"{active} {self._member(part, place, start, depth + 1).text}"
        return Value(name, shown, text, raw, address, "ok", lambda: [self._member(part, place, start, 0)])

    def _slice(self, name: str, shown: str, parts: list[types.Member], place: Place, offset: int, depth: int) -> Value | None:
        """A slice of Rust or Zig, a string among them: a pointer and a length."""
        by_name = {part.name: part for part in parts}
        names = next((names for names in _SLICES if len(parts) == 2 and set(by_name) == set(names)), None)
        if names is None:
            return None
        pointer, counter = by_name[names[0]], by_name[names[1]]
        die, size = types.peel(pointer.type), types.byte_size(counter.type)
        element = die.reference("DW_AT_type") if die is not None else None
        width = types.byte_size(element)
        if die is None or die.tag != "pointer_type" or types.encoding(counter.type) != 7 or not size or width is None:
            return None
        start = int.from_bytes(place.read(offset + pointer.offset, die.unit.address_size), "little")
        count = int.from_bytes(place.read(offset + counter.offset, size), "little")
        target = InMemory(self.frame, start)

        def item(index: int, level: int) -> Value:
            return self.value(f"[{index}]", element, target, index * width, level)

        # Rust tells strings from bytes by the name of the slice; Zig has only bytes.
        if width == 1 and types.encoding(element) in (7, 8) and (shown.endswith("str") or shown.startswith("[]")):
            try:
                text = quote(target.read(0, min(count, MAX_STRING)), count > MAX_STRING)
            except Missing as missing:
                text = missing_value("", "", missing).text
        else:
            text = f"{count} × {self._elements(item, count, depth)}"
        raw = _raw(place, offset, size + die.unit.address_size)
        return Value(name, shown, text, raw, self._address(place, offset), "ok", lambda: self._items(item, count))

    # --- arrays

    def _array(self, name: str, declared: Die | None, die: Die, place: Place, offset: int, depth: int, level: int) -> Value:
        """An array, or, with `level`, one of the arrays that it is made of."""
        sizes = [self._length(dimension) for dimension in types.dimensions(die)[level:]]
        element = die.reference("DW_AT_type")
        width = types.byte_size(element)
        count = sizes[0] if sizes else 0
        for inner in sizes[1:]:
            width = None if width is None or inner is None else width * inner
        if width is None or count is None:
            raise Missing("unavailable", "an array whose size is not known")
        shown = types.type_name(declared) if not level else types.type_name(element) + "".join(f"[{size}]" for size in sizes)
        last = len(sizes) <= 1
        stride = width

        def item(index: int, deeper: int) -> Value:
            if last:
                return self.value(f"[{index}]", element, place, offset + index * stride, deeper)
            return self._row(f"[{index}]", declared, die, place, offset + index * stride, deeper, level + 1)

        raw, address = _raw(place, offset, count * width), self._address(place, offset)
        if last and types.is_character(element):
            data = place.read(offset, min(count, MAX_STRING + 1))
            stripped = data.rstrip(b"\0") if count <= MAX_STRING else data[:MAX_STRING]
            ended = stripped.split(b"\0")[0] if stripped.isascii() and b"\0" not in stripped else stripped
            text = quote(ended, count > MAX_STRING)
        else:
            text = self._elements(item, count, depth)
        return Value(name, shown, text, raw, address, "ok", (lambda: self._items(item, count)) if count else None)

    def _row(self, name: str, declared: Die | None, die: Die, place: Place, offset: int, depth: int, level: int) -> Value:
        try:
            return self._array(name, declared, die, place, offset, depth, level)
        except (Missing, Damaged) as error:
            missing = error if isinstance(error, Missing) else Missing("unavailable", str(error))
            return missing_value(name, types.type_name(declared), missing, self._address(place, offset))

    def _length(self, dimension: Die) -> int | None:
        """The length of one dimension, for an array of variable length from the variable that holds it."""
        fixed = types.length(dimension)
        if fixed is not None:
            return fixed
        name = "DW_AT_count" if dimension.has("DW_AT_count") else "DW_AT_upper_bound"
        more = 0 if name == "DW_AT_count" else 1
        holder = dimension.reference(name)
        if holder is not None:
            size = types.byte_size(holder.type())
            if size is None or not 0 < size <= 8:
                return None
            inner = Evaluator(self.frame, holder.unit, self.evaluator.function, self.evaluator.nesting + 1)
            return int.from_bytes(inner.of(holder, size).read(0, size), "little") + more
        if dimension.is_expression(name) and (block := dimension.block(name)):
            return self.evaluator.number(block) + more
        return 0  # a flexible array at the end of a struct

    def _elements(self, item: Callable[[int, int], Value], count: int, depth: int) -> str:
        if depth > _IN_DEPTH:
            return "[…]" if count else "[]"
        texts = [item(index, depth + 1).text for index in range(min(count, _IN_LINE))]
        return "[" + ", ".join(texts) + (", …" if count > _IN_LINE else "") + "]"

    def _items(self, item: Callable[[int, int], Value], count: int, first: int = 0) -> list[Value]:
        """So many at once; the others are children of what says that there are more."""
        end = min(count, first + MAX_CHILDREN)
        found = [item(index, 0) for index in range(first, end)]
        if end < count:
            found.append(Value("…", "", f"{count - end:,} more", None, None, "ok", lambda: self._items(item, count, end)))
        return found


def _mask(die: Die | None) -> int:
    return (1 << 8 * (types.byte_size(die) or 0)) - 1


def _reason(value: Value) -> str:
    return value.text.removeprefix(f"<{value.status}").removeprefix(": ").removesuffix(">")


def _braces(items: list[str], more: bool) -> str:
    return "{" + ", ".join(items) + (", …" if more else "") + "}"


def _raw(place: Place, offset: int, size: int | None) -> bytes | None:
    if size is None or size < 0:
        return None
    try:
        return place.read(offset, min(size, MAX_RAW))
    except Missing:
        return None


def _is_signed(die: Die) -> bool:
    if die.tag == "enumeration_type":
        below = types.peel(die.reference("DW_AT_type"))
        return types.encoding(below) in (5, 6) if below is not None else any(v < 0 for _, v in types.enumerators(die))
    return types.encoding(die) in (5, 6, 0x0D)


def scalar_text(die: Die, data: bytes) -> str:
    """A number, a character, a truth value or the name of an enumerator."""
    unsigned = int.from_bytes(data, "little")
    signed = int.from_bytes(data, "little", signed=True)
    if die.tag == "enumeration_type":
        mask = (1 << 8 * len(data)) - 1
        number = signed if _is_signed(die) else unsigned
        for name, value in types.enumerators(die):
            if value & mask == unsigned:
                return f"{name} ({number})"
        return str(number)
    match types.encoding(die):
        case 2:
            return {0: "false", 1: "true"}.get(unsigned, str(unsigned))
        case 4:
            return _float(data)
        case 3 if len(data) in (8, 16):
            half = len(data) // 2
            return f"{_float(data[:half])} + {_float(data[half:])}i"
        case 5 | 0x0D:
            return str(signed)
        case 6:
            return f"{signed} {_character(unsigned)}".rstrip() if len(data) == 1 else str(signed)
        case 8:
            return f"{unsigned} {_character(unsigned)}".rstrip() if len(data) == 1 else str(unsigned)
        case 7:
            return str(unsigned)
        case 0x10:
            return f"U+{unsigned:04X} {_character(unsigned)}".rstrip()
        case 1:
            return f"{unsigned:#x}"
    if die.tag in ("unspecified_type", "nullptr_type"):
        return "null"
    return f"{unsigned:#x}" if data else "{}"


def _character(code: int) -> str:
    if code > 0x10FFFF or 0xD800 <= code < 0xE000 or not chr(code).isprintable():
        return {10: "'\\n'", 13: "'\\r'", 9: "'\\t'", 0: "'\\0'"}.get(code, "")
    return f"'{chr(code)}'" if code < 0x80 or code > 0xFF else ""


def _float(data: bytes) -> str:
    formats = {2: "<e", 4: "<f", 8: "<d"}
    if len(data) in formats:
        (number,) = struct.unpack(formats[len(data)], data)
        if len(data) == 4 and number == number and abs(number) != float("inf"):
            return _shortest(number)
        return repr(float(number))
    if len(data) == 16:
        return _quad(int.from_bytes(data, "little"))
    return f"{int.from_bytes(data, 'little'):#x}"


def _shortest(number: float) -> str:
    """The fewest digits that name a 32-bit float."""
    for digits in range(1, 10):
        text = f"{number:.{digits}g}"
        if struct.pack("<f", float(text)) == struct.pack("<f", number):
            return repr(float(text))
    return repr(number)


def _quad(bits: int) -> str:
    """A 128-bit float, as near as a double shows it."""
    sign, exponent, fraction = bits >> 127, bits >> 112 & 0x7FFF, bits & ((1 << 112) - 1)
    mark = "-" if sign else ""
    if exponent == 0x7FFF:
        return "nan" if fraction else f"{mark}inf"
    mantissa = fraction | (1 << 112 if exponent else 0)
    power = (exponent or 1) - 16383 - 112
    try:
        number = float(Fraction(mantissa) * Fraction(2) ** power)
    except OverflowError:
        return f"{mark}{mantissa:#x} × 2^{power}"
    return f"{mark}{number!r}"
