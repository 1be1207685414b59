"""Types as debug information has them: their names as people write them, their sizes, what they are made of."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from replayer.source.units import Die

MAX_CHAIN: Final = 64
"""How many typedefs and qualifiers are peeled off, one below the other."""
MAX_NAME: Final = 200

_QUALIFIERS: Final = {"const_type": "const", "volatile_type": "volatile", "restrict_type": "restrict", "atomic_type": "_Atomic"}
_TRANSPARENT: Final = frozenset((*_QUALIFIERS, "typedef", "immutable_type", "packed_type", "shared_type"))
_C: Final = frozenset((0x01, 0x02, 0x0C, 0x1D, 0x2C))
_CPP: Final = frozenset((0x04, 0x1A, 0x21, 0x2B))
_RUST: Final = 0x1C
_TAGGED: Final = {"structure_type": "struct", "union_type": "union", "enumeration_type": "enum", "class_type": "class"}
AGGREGATES: Final = frozenset(("structure_type", "union_type", "class_type"))
POINTERS: Final = frozenset(("pointer_type", "reference_type", "rvalue_reference_type"))


def peel(die: Die | None) -> Die | None:
    """The type below typedefs and qualifiers; None for void, and for chains that go in circles."""
    for _ in range(MAX_CHAIN):
        if die is None or die.tag not in _TRANSPARENT:
            return die
        die = die.reference("DW_AT_type")
    return None


def definition(die: Die) -> Die:
    """The type itself for one that is only declared, if the same unit defines it."""
    if not die.has("DW_AT_declaration"):
        return die
    return die.unit.definitions.get((die.tag, die.text("DW_AT_name") or ""), die)


def type_name(die: Die | None, depth: int = 0) -> str:
    """The type as its language writes it, roughly."""
    text = _declarator(die, "", depth)
    return text if len(text) <= MAX_NAME else text[: MAX_NAME - 1] + "…"


def _declarator(die: Die | None, inner: str, depth: int) -> str:
    """C's way to write types: `inner` is what stands where the variable's name would."""
    if depth > MAX_CHAIN or len(inner) > MAX_NAME:
        return "…"
    if die is None:
        return _spaced("void", inner)
    own, target = die.text("DW_AT_name"), die.reference("DW_AT_type")
    if die.tag in _QUALIFIERS:
        word = _QUALIFIERS[die.tag]
        if target is not None and target.tag in POINTERS and not target.text("DW_AT_name"):
            return _declarator(target, _spaced(word, inner), depth + 1)  # the pointer itself is const
        return f"{word} {_declarator(target, inner, depth + 1)}"
    if own:
        tagged = _TAGGED.get(die.tag) if die.unit.language in _C else None
        return _spaced(f"{tagged} {own}" if tagged else own, inner)
    if die.tag in POINTERS:
        mark = {"pointer_type": "*", "reference_type": "&", "rvalue_reference_type": "&&"}[die.tag]
        below = peel(target) if target is not None and not target.text("DW_AT_name") else None
        if below is not None and below.tag in ("array_type", "subroutine_type") and not below.text("DW_AT_name"):
            return _declarator(target, f"({mark}{inner})", depth + 1)
        return _declarator(target, mark + inner, depth + 1)
    if die.tag == "array_type":
        known = [length(dimension) for dimension in dimensions(die)]
        if die.unit.language == _RUST:
            return f"[{type_name(target, depth + 1)}; {known[0] if known else ''}]"
        return _declarator(target, inner + "".join(f"[{'' if count is None else count}]" for count in known), depth + 1)
    if die.tag == "subroutine_type":
        parameters = [type_name(child.type(), depth + 24) for child in die.children[:8] if child.tag == "formal_parameter"]
        return _declarator(target, f"{inner}({', '.join(parameters)})", depth + 1)
    return _spaced(f"{_TAGGED.get(die.tag, die.tag)} {{…}}" if die.tag in _TAGGED else die.tag, inner)


def _spaced(word: str, inner: str) -> str:
    return f"{word}{'' if not inner or inner.startswith('[') else ' '}{inner}"


def dimensions(die: Die) -> list[Die]:
    """What says how long an array is, the outermost dimension first."""
    return [child for child in die.children if child.tag in ("subrange_type", "enumeration_type", "generic_subrange")]


def length(dimension: Die) -> int | None:
    """How many elements one dimension of an array has; None if that is not fixed."""
    count = dimension.number("DW_AT_count")
    if count is None and not dimension.has("DW_AT_count"):
        upper = dimension.number("DW_AT_upper_bound")
        if upper is None or dimension.is_expression("DW_AT_upper_bound") or _is_reference(dimension, "DW_AT_upper_bound"):
            return None
        if upper in (0xFFFFFFFF, 0xFFFFFFFFFFFFFFFF):  # how old compilers write "none"
            return 0
        count = upper + 1 - (dimension.number("DW_AT_lower_bound") or 0)
    elif _is_reference(dimension, "DW_AT_count"):
        return None
    return max(count, 0) if count is not None else None


def _is_reference(die: Die, name: str) -> bool:
    return str(die.attributes[name].form).startswith("DW_FORM_ref")


def byte_size(die: Die | None, depth: int = 0) -> int | None:
    """How many bytes a value of the type takes; None if that is not fixed."""
    die = peel(die)
    if die is None or depth > MAX_CHAIN:
        return None
    die = definition(die)
    size = die.number("DW_AT_byte_size")
    if size is not None:
        return size
    if die.tag in POINTERS or die.tag == "ptr_to_member_type":
        return die.unit.address_size
    if die.tag == "array_type":
        size = byte_size(die.reference("DW_AT_type"), depth + 1)
        for dimension in dimensions(die):
            count = length(dimension)
            if size is None or count is None:
                return None
            size *= count
        return size
    if die.tag == "enumeration_type":
        return byte_size(die.reference("DW_AT_type"), depth + 1)
    bits = die.number("DW_AT_bit_size")
    return (bits + 7) // 8 if bits is not None else None


def encoding(die: Die | None) -> int | None:
    """How a base type encodes its values (DW_ATE_…), None for any other type."""
    die = peel(die)
    return die.number("DW_AT_encoding") if die is not None and die.tag == "base_type" else None


def is_character(die: Die | None) -> bool:
    """A type of one byte that stands for a character."""
    return encoding(die) in (6, 8, 0x10) and byte_size(die) == 1


@dataclass(frozen=True, slots=True)
class Member:
    """One member of a struct, a union or a class, or the part it inherits."""

    name: str
    type: Die | None
    offset: int
    """In bytes."""
    bits: tuple[int, int] | None
    """Of a bit field: where it begins, counted from the struct's lowest bit, and how many bits it has."""


def member(die: Die) -> Member | None:
    """None for what lies outside of the object, or at a place that is not fixed."""
    if die.has("DW_AT_external") or die.has("DW_AT_declaration") or die.has("DW_AT_const_value"):
        return None
    declared = die.type()
    base = die.tag == "inheritance"
    name = f"<{type_name(declared)}>" if base else die.text("DW_AT_name") or "<anonymous>"
    offset = 0
    if die.has("DW_AT_data_member_location"):
        block = die.block("DW_AT_data_member_location")
        number = die.number("DW_AT_data_member_location")
        if number is None and block and block[0] == 0x23:  # plus_uconst, as old compilers write it
            number = sum((byte & 0x7F) << 7 * index for index, byte in enumerate(block[1:6]))
        if number is None:
            return None
        offset = number
    size, start = die.number("DW_AT_bit_size"), die.number("DW_AT_data_bit_offset")
    if size is not None:
        if start is None:
            storage = die.number("DW_AT_byte_size") or byte_size(declared) or 0
            start = 8 * (offset + storage) - (die.number("DW_AT_bit_offset") or 0) - size
        if not 1 <= size <= 128 or start < 0:
            return None
        return Member(name, declared, start // 8, (start, size))
    return Member(name, declared, offset, None)


def members(die: Die) -> Iterator[Member]:
    """The members of an aggregate in the order of their declaration, what it inherits first."""
    for tag in ("inheritance", "member"):
        for child in die.children:
            if child.tag == tag and (found := member(child)) is not None:
                yield found


def enumerators(die: Die) -> Iterator[tuple[str, int]]:
    """The names of an enumeration."""
    for child in die.children:
        value = child.number("DW_AT_const_value")
        if child.tag == "enumerator" and value is not None:
            yield child.text("DW_AT_name") or "?", value
