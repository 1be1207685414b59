"""Compile units and their entries ("DIEs"), read through pyelftools; range lists and location lists, read here.

pyelftools knows abbreviations, forms and strings. Its trees and lists are not used: a tree is rebuilt from the flat
sequence of entries, so that no sibling pointer can send it in circles, and lists are decoded here because pyelftools
does not take the indexed entries that compilers write in DWARF 5.

Whatever goes wrong inside a unit costs that unit and nothing else: see `Units.problems`.
"""

from __future__ import annotations

import io
from bisect import bisect_right
from collections.abc import Iterator
from functools import cached_property
from typing import Any, Final

from recorder.wasm.module import Module
from replayer.source.bits import Cursor, Damaged, printable
from replayer.source.lines import Sections
from traces._errors import UsageError

MAX_UNITS: Final = 200_000
MAX_ENTRIES: Final = 2_000_000
"""In one unit."""
MAX_DEPTH: Final = 512
MAX_HOPS: Final = 16
"""How many abstract origins and specifications are followed, one from the other."""

ZIG: Final = 0x27
"""Of the codes of languages, the one that this package sets itself."""

_UNIT_REFERENCES: Final = frozenset(f"DW_FORM_ref{kind}" for kind in ("1", "2", "4", "8", "_udata"))
_NAMED_TYPES: Final = frozenset(("structure_type", "union_type", "class_type", "enumeration_type"))
_BLOCKS: Final = frozenset(("DW_FORM_exprloc", "DW_FORM_block", "DW_FORM_block1", "DW_FORM_block2", "DW_FORM_block4"))
_SECTIONS: Final = (
    "info", "abbrev", "str", "line", "line_str", "ranges", "rnglists", "loc", "loclists", "addr", "str_offsets", "types",
)  # fmt: skip

Range = tuple[int, int]
"""Instructions from the first up to, not including, the second."""


def debug_sections(module: Module) -> dict[str, bytes]:
    """The debug sections of a module by name."""
    found = {}
    for name in _SECTIONS:
        content = module.custom(f".debug_{name}")
        if content is not None:
            found[f".debug_{name}"] = content
    return found


class Die:
    """One debug information entry."""

    __slots__ = ("attributes", "children", "offset", "parent", "tag", "unit")

    def __init__(self, unit: Unit, offset: int, tag: str, attributes: dict[str, Any], parent: Die | None) -> None:
        self.unit = unit
        self.offset = offset
        self.tag = tag
        """Without the DW_TAG_ in front."""
        self.attributes = attributes
        self.parent = parent
        self.children: list[Die] = []

    def has(self, name: str) -> bool:
        return name in self.attributes

    def number(self, name: str) -> int | None:
        """An attribute that is a number (an address, a constant, an offset, a flag)."""
        found = self.attributes.get(name)
        return int(found.value) if found is not None and isinstance(found.value, int) else None

    def text(self, name: str) -> str | None:
        found = self.attributes.get(name)
        return printable(found.value) if found is not None and isinstance(found.value, bytes) else None

    def block(self, name: str) -> bytes | None:
        """An attribute that is bytes: an expression or a block."""
        found = self.attributes.get(name)
        if found is None or isinstance(found.value, (int, str)) or found.value is None:
            return None
        return bytes(found.value)

    def is_expression(self, name: str) -> bool:
        found = self.attributes.get(name)
        return found is not None and found.form in _BLOCKS

    def reference(self, name: str) -> Die | None:
        """The entry that an attribute points to."""
        found = self.attributes.get(name)
        if found is None or not isinstance(found.raw_value, int):
            return None
        if found.form in _UNIT_REFERENCES:
            return self.unit.die(self.unit.offset + found.raw_value)
        if found.form == "DW_FORM_ref_addr":
            return self.unit.units.die(found.raw_value)
        if found.form == "DW_FORM_ref_sig8":
            return self.unit.units.by_signature(found.raw_value)
        return None

    def origins(self) -> Iterator[Die]:
        """This entry and those it completes: the abstract function of an inlined one, the declaration of a method."""
        current: Die | None = self
        for _ in range(MAX_HOPS):
            if current is None:
                return
            yield current
            current = current.reference("DW_AT_abstract_origin") or current.reference("DW_AT_specification")

    def with_attribute(self, name: str) -> Die | None:
        """The first of `origins` that has the attribute."""
        return next((die for die in self.origins() if die.has(name)), None)

    def name(self) -> str | None:
        found = self.with_attribute("DW_AT_name")
        return found.text("DW_AT_name") if found else None

    def type(self) -> Die | None:
        found = self.with_attribute("DW_AT_type")
        return found.reference("DW_AT_type") if found else None

    def ranges(self) -> list[Range]:
        """The instructions this entry is about, without those of functions that the linker left out."""
        try:
            return self.unit.ranges_of(self)
        except Damaged:
            return []


class Unit:
    """One compile unit. Only its first entry is read until somebody asks for more."""

    def __init__(self, units: Units, raw: Any) -> None:
        top = raw.get_top_DIE()
        self.units = units
        self.offset: int = raw.cu_offset
        self.end: int = raw.cu_offset + raw.size
        self.version: int = raw["version"]
        self.address_size: int = raw["address_size"]
        self.offset_size = 8 if raw.structs.dwarf_format == 64 else 4
        self._raw = raw
        if self.address_size not in (4, 8):
            raise Damaged(f"addresses of {self.address_size} bytes")
        self.top = Die(self, top.offset, str(top.tag).removeprefix("DW_TAG_"), dict(top.attributes), None)
        self.name = self.top.text("DW_AT_name") or ""
        self.comp_dir = self.top.text("DW_AT_comp_dir") or ""
        self.language = self.top.number("DW_AT_language") or 0
        if (self.top.text("DW_AT_producer") or "").startswith("zig "):  # which says that it is C
            self.language = ZIG
        self.base = self.top.number("DW_AT_low_pc") or 0
        self.lines = self.top.number("DW_AT_stmt_list")
        """Offset of the line program."""
        header: dict[str, Any] = raw.header
        signature, within = header.get("type_signature"), header.get("type_offset")
        self.signature: int | None = signature if isinstance(signature, int) else None
        self.type_offset: int | None = self.offset + within if isinstance(within, int) else None

    @cached_property
    def declared_ranges(self) -> list[Range] | None:
        """The instructions of the unit; None if it does not say."""
        if self.top.has("DW_AT_ranges") or (self.top.has("DW_AT_low_pc") and self.top.has("DW_AT_high_pc")):
            return self.top.ranges()
        return None

    @cached_property
    def _dies(self) -> dict[int, Die]:
        try:
            return dict(self._read())
        except Exception as error:  # pyelftools meets damage with whatever exception comes up
            self.units.problem(f"the unit at {self.offset:#x} ({self.name or 'no name'}) is damaged: {error!r:.200}")
            self.top.children = []  # half a unit would show half-truths
            return {self.top.offset: self.top}

    def _read(self) -> Iterator[tuple[int, Die]]:
        from elftools.dwarf.die import DIE

        offset: int = self._raw.cu_die_offset
        parents: list[Die] = []
        count = 0
        while offset < self.end:
            raw = DIE(self._raw, self.units.stream, offset)
            if raw.size <= 0:
                raise Damaged("an entry without a size")
            at, offset = offset, offset + raw.size
            if raw.is_null():
                if parents:
                    parents.pop()
                if not parents:
                    return
                continue
            count += 1
            if count > MAX_ENTRIES or len(parents) > MAX_DEPTH:
                raise Damaged("too many entries, or too deep")
            if at == self.top.offset:
                die = self.top
            else:
                die = Die(self, at, str(raw.tag).removeprefix("DW_TAG_"), raw.attributes, parents[-1] if parents else None)
            if parents:
                parents[-1].children.append(die)
            yield at, die
            if raw.has_children:
                parents.append(die)
            elif not parents:
                return

    def dies(self) -> Iterator[Die]:
        """All entries."""
        return iter(self._dies.values())

    def die(self, offset: int) -> Die | None:
        return self._dies.get(offset)

    @cached_property
    def functions(self) -> list[tuple[int, int, Die]]:
        """The functions with code, as (low, high, entry), by address."""
        found: list[tuple[int, int, Die]] = []
        for die in self.dies():
            if die.tag == "subprogram":
                found += [(low, high, die) for low, high in die.ranges()]
        return sorted(found, key=lambda item: item[:2])

    @cached_property
    def definitions(self) -> dict[tuple[str, str], Die]:
        """The types that are more than declared, by tag and name."""
        found: dict[tuple[str, str], Die] = {}
        for die in self.dies():
            if die.tag in _NAMED_TYPES and not die.has("DW_AT_declaration") and (name := die.text("DW_AT_name")):
                found.setdefault((die.tag, name), die)
        return found

    # --- addresses, ranges, locations

    def address(self, index: int) -> int:
        """Entry of .debug_addr."""
        base = self.top.number("DW_AT_addr_base") or self.top.number("DW_AT_GNU_addr_base") or 0
        return Cursor(self.units.section(".debug_addr"), base + index * self.address_size).unsigned(self.address_size)

    def _is_code(self, low: int, high: int) -> bool:
        return self.units.low <= low < high <= self.units.high

    def ranges_of(self, die: Die) -> list[Range]:
        low = die.number("DW_AT_low_pc")
        if (at := die.number("DW_AT_ranges")) is not None:
            found = self._range_list(at) if self.version >= 5 else self._old_range_list(at)
        elif low is not None and (high := die.number("DW_AT_high_pc")) is not None:
            absolute = die.attributes["DW_AT_high_pc"].form.startswith("DW_FORM_addr")
            found = [(low, high if absolute else low + high)]
        else:
            return []
        return [(first, last) for first, last in found if self._is_code(first, last)]

    def _old_range_list(self, offset: int) -> list[Range]:
        cursor, base = Cursor(self.units.section(".debug_ranges"), offset), self.base
        found: list[Range] = []
        while True:
            low, high = cursor.unsigned(self.address_size), cursor.unsigned(self.address_size)
            if not low and not high:
                return found
            if low == (1 << 8 * self.address_size) - 1:
                base = high
            else:
                found.append((base + low, base + high))

    def _range_list(self, offset: int) -> list[Range]:
        cursor, base = Cursor(self.units.section(".debug_rnglists"), offset), self.base
        found: list[Range] = []
        while kind := cursor.unsigned(1):
            pair = self._pair(kind, cursor, base)
            if isinstance(pair, int):
                base = pair
            else:
                found.append(pair)
        return found

    def _pair(self, kind: int, cursor: Cursor, base: int) -> int | Range:
        """One entry of a DWARF 5 list: a new base address, or a range. Both kinds of list agree once the kinds of
        location lists are renumbered."""
        size = self.address_size
        if kind == 1:
            return self.address(cursor.uleb())
        if kind == 2:
            return self.address(cursor.uleb()), self.address(cursor.uleb())
        if kind == 3:
            low = self.address(cursor.uleb())
            return low, low + cursor.uleb()
        if kind == 4:
            return base + cursor.uleb(), base + cursor.uleb()
        if kind == 5:
            return cursor.unsigned(size)
        if kind == 6:
            return cursor.unsigned(size), cursor.unsigned(size)
        if kind == 7:
            low = cursor.unsigned(size)
            return low, low + cursor.uleb()
        raise Damaged(f"unknown kind {kind} of list entry")

    def expression(self, die: Die, name: str, pc: int | None) -> bytes | None:
        """The location expression in an attribute that holds at `pc`; None if there is none there."""
        if not die.has(name):
            return None
        if die.is_expression(name):
            return die.block(name)
        at = die.number(name)
        if at is None or pc is None:
            return None
        return self._location(at, pc) if self.version >= 5 else self._old_location(at, pc)

    def _old_location(self, offset: int, pc: int) -> bytes | None:
        cursor, base = Cursor(self.units.section(".debug_loc"), offset), self.base
        while True:
            low, high = cursor.unsigned(self.address_size), cursor.unsigned(self.address_size)
            if not low and not high:
                return None
            if low == (1 << 8 * self.address_size) - 1:
                base = high
                continue
            expression = cursor.take(cursor.unsigned(2))
            if base + low <= pc < base + high:
                return expression

    def _location(self, offset: int, pc: int) -> bytes | None:
        cursor, base, default = Cursor(self.units.section(".debug_loclists"), offset), self.base, None
        while kind := cursor.unsigned(1):
            if kind == 5:  # what holds where nothing else does
                default = cursor.take(cursor.uleb())
                continue
            pair = self._pair(kind - 1 if kind > 5 else kind, cursor, base)
            if isinstance(pair, int):
                base = pair
                continue
            expression = cursor.take(cursor.uleb())
            if pair[0] <= pc < pair[1]:
                return expression
        return default


class Units:
    """All compile units of a module."""

    def __init__(self, sections: Sections, low: int, high: int) -> None:
        """`[low, high)` is where code lies; whatever debug information says of other addresses is dead."""
        try:
            from elftools.dwarf.dwarfinfo import DebugSectionDescriptor, DwarfConfig, DWARFInfo
        except ImportError:
            raise UsageError(
                "the module has debug information, and reading it takes pyelftools: pip install 'reprise-wasm[inspect]'"
            ) from None
        self.low, self.high = low, high
        self.problems: list[str] = []
        """What is damaged, one line each."""
        self._sections = sections
        self.stream = io.BytesIO(self.section(".debug_info"))

        def descriptor(name: str) -> Any:
            if name not in sections:
                return None
            stream = self.stream if name == ".debug_info" else io.BytesIO(sections[name])
            return DebugSectionDescriptor(stream, name, None, len(sections[name]), 0)

        unused = ("debug_aranges", "debug_frame", "eh_frame", "debug_pubtypes", "debug_pubnames", "debug_sup")
        arguments = {f"debug_{name}_sec": descriptor(f".debug_{name}") for name in _SECTIONS}
        arguments |= {f"{name}_sec": None for name in (*unused, "gnu_debugaltlink")}
        config = DwarfConfig(little_endian=True, machine_arch="wasm", default_address_size=4)
        self._info: Any = DWARFInfo(config=config, **arguments)
        self.all: list[Unit] = list(self._read())
        self._offsets = [unit.offset for unit in self.all]

    def section(self, name: str) -> bytes:
        return self._sections.get(name, b"")

    def problem(self, text: str) -> None:
        if len(self.problems) < 100:
            self.problems.append(text)

    def _read(self) -> Iterator[Unit]:
        raws = self._info.iter_CUs()
        for _ in range(MAX_UNITS):
            try:
                raw = next(raws, None)
            except Exception as error:  # see Unit._dies
                self.problem(f".debug_info is damaged: {error!r:.200}")
                return
            if raw is None:
                return
            try:
                yield Unit(self, raw)
            except Exception as error:
                self.problem(f"the unit at {raw.cu_offset:#x} is damaged: {error!r:.200}")

    def die(self, offset: int) -> Die | None:
        """The entry at an offset of .debug_info."""
        index = bisect_right(self._offsets, offset) - 1
        return self.all[index].die(offset) if index >= 0 else None

    def by_signature(self, signature: int) -> Die | None:
        """The type of a DWARF 5 type unit."""
        unit = next((unit for unit in self.all if unit.signature == signature), None)
        return unit.die(unit.type_offset) if unit is not None and unit.type_offset is not None else None

    def covering(self, pc: int) -> Iterator[Unit]:
        """The units that say they hold `pc`, then those that do not say what they hold."""
        silent = []
        for unit in self.all:
            ranges = unit.declared_ranges
            if ranges is None:
                silent.append(unit)
            elif any(low <= pc < high for low, high in ranges):
                yield unit
        yield from silent

    def function_at(self, pc: int) -> Die | None:
        """The function, not an inlined one, whose code holds `pc`."""
        for unit in self.covering(pc):
            index = bisect_right(unit.functions, pc, key=lambda item: item[0]) - 1
            if index >= 0 and pc < unit.functions[index][1]:
                return unit.functions[index][2]
        return None
