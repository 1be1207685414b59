"""The line table: which source line every instruction came from, and where the statements of a line begin.

Line programs are decoded here and not by pyelftools: this is the one part of the debug information that is read
whole, so its speed shows, and a hostile header must not make it loop.
"""

from __future__ import annotations

import posixpath
import re
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final, NamedTuple

from replayer.source.bits import Cursor, Damaged, printable

Sections = Mapping[str, bytes]
"""Content of the debug sections by name; a missing one is not in it."""

_MD5, _SOURCE = 5, 0x2001
"""DW_LNCT codes of a file entry: the MD5 of the source, and (an extension of LLVM) the source itself."""


@dataclass(frozen=True, slots=True)
class Location:
    """A place in the source."""

    file: str
    """As the debug information names it; see `DebugInfo.files`."""
    line: int
    """From 1."""
    column: int
    """From 1; 0 if it is not known."""
    is_statement: bool
    """The instruction range belongs to the beginning of a statement: a good place for a breakpoint."""


class Segment(NamedTuple):
    """A run of instructions with one row of the line table."""

    low: int
    high: int
    file: int
    """Index in `LineTable.files`."""
    line: int
    column: int
    is_statement: bool
    prologue_end: bool


@dataclass
class Program:
    """What one line program says about files; its rows are in the table."""

    files: dict[int, int] = field(default_factory=dict)
    """By the number the debug information uses, the index in `LineTable.files`."""


def join_path(*parts: str) -> str:
    """Join directories and a file name of debug information, made on any system, and drop `.` and `..`."""
    result = ""
    for part in parts:
        absolute = part.startswith("/") or re.match(r"[A-Za-z]:[\\/]|\\\\", part)
        result = part if absolute or not result else f"{result.rstrip('/')}/{part}" if part else result
    return posixpath.normpath(result) if result else ""


class LineTable:
    """The rows of all line programs of a module, by address."""

    def __init__(self, sections: Sections, low: int, high: int) -> None:
        """Addresses outside `[low, high)` are those of functions that the linker left out."""
        self.files: list[str] = []
        self.embedded: dict[int, bytes] = {}
        """Source text that the debug information carries itself, by file."""
        self.checksums: dict[int, bytes] = {}
        """MD5 of the source, by file."""
        self._sections = sections
        self._section = sections.get(".debug_line", b"")
        self._low, self._high = low, high
        self._by_name: dict[str, int] = {}
        self._segments: list[Segment] = []
        self._programs: dict[int, Program | None] = {}
        self._budget = 2 * len(self._section)

    def add(self, offset: int, comp_dir: str, unit_name: str) -> Program | None:
        """Decode the program at `offset`, once; None if it is damaged."""
        if offset not in self._programs:
            try:
                self._programs[offset] = self._decode(offset, comp_dir, unit_name)
            except Damaged:
                self._programs[offset] = None
        return self._programs[offset]

    @cached_property
    def segments(self) -> list[Segment]:
        """All segments by address. Read it when all programs are added."""
        return sorted(self._segments)

    @cached_property
    def _starts(self) -> list[int]:
        return [segment.low for segment in self.segments]

    @cached_property
    def by_file(self) -> dict[int, list[Segment]]:
        """The segments with a line, by file, in order of address."""
        found: dict[int, list[Segment]] = {}
        for segment in self.segments:
            if segment.line:
                found.setdefault(segment.file, []).append(segment)
        return found

    def at(self, pc: int) -> Segment | None:
        """The segment that covers `pc`."""
        index = bisect_right(self._starts, pc) - 1
        if index >= 0 and self.segments[index].low <= pc < self.segments[index].high:
            return self.segments[index]
        return None

    def between(self, low: int, high: int) -> Sequence[Segment]:
        """The segments that begin in `[low, high)`."""
        return self.segments[bisect_right(self._starts, low - 1) : bisect_right(self._starts, high - 1)]

    def location(self, segment: Segment) -> Location:
        return Location(self.files[segment.file], segment.line, segment.column, segment.is_statement)

    # --- decoding

    def _file(self, name: str) -> int:
        index = self._by_name.setdefault(name, len(self.files))
        if index == len(self.files):
            self.files.append(name)
        return index

    def _decode(self, offset: int, comp_dir: str, unit_name: str) -> Program:
        cursor = Cursor(self._section, offset)
        length, offset_size = cursor.initial_length()
        end = cursor.position + length
        if end > len(self._section):
            raise Damaged("a line program is cut off")
        self._budget -= length
        if self._budget < 0:
            raise Damaged("line programs overlap")
        cursor.end = end
        version = cursor.unsigned(2)
        if not 2 <= version <= 5:
            raise Damaged(f"line program of version {version}")
        address_size = 4
        if version >= 5:
            address_size = cursor.unsigned(1)
            cursor.unsigned(1)
            if address_size not in (4, 8):
                raise Damaged(f"addresses of {address_size} bytes")
        header_length = cursor.unsigned(offset_size)
        start = cursor.position + header_length
        if start > end:
            raise Damaged("a line program's header is cut off")
        state = _Header(
            minimum_length=cursor.unsigned(1),
            max_operations=cursor.unsigned(1) if version >= 4 else 1,
            default_is_stmt=bool(cursor.unsigned(1)),
            line_base=cursor.signed(1),
            line_range=cursor.unsigned(1),
            opcode_base=cursor.unsigned(1),
        )
        if state.line_range == 0 or state.opcode_base == 0:
            raise Damaged("a line program's header makes no sense")
        operands = cursor.take(state.opcode_base - 1)
        program = Program()
        if version >= 5:
            self._files_5(cursor, offset_size, comp_dir, program)
        else:
            self._files_4(cursor, comp_dir, unit_name, program)
        cursor.position = start
        run = _Run(state, operands, address_size, cursor, program, self._low, self._high)
        try:
            run.run(lambda name: self._file(join_path(comp_dir, name)))
        finally:
            self._segments += run.segments  # sequences that ended before the damage are good
        return program

    def _files_4(self, cursor: Cursor, comp_dir: str, unit_name: str, program: Program) -> None:
        directories = [comp_dir]
        while name := cursor.string():
            directories.append(join_path(comp_dir, printable(name)))
        program.files[0] = self._file(join_path(comp_dir, unit_name))
        number = 1
        while name := cursor.string():
            directory = cursor.uleb()
            cursor.uleb()
            cursor.uleb()
            parent = directories[directory] if directory < len(directories) else ""
            program.files[number] = self._file(join_path(parent, printable(name)))
            number += 1

    def _files_5(self, cursor: Cursor, offset_size: int, comp_dir: str, program: Program) -> None:
        directories = []
        for entry in self._entries(cursor, offset_size):
            directories.append(join_path(comp_dir, _text(entry.get(1, b""))))
        for number, entry in enumerate(self._entries(cursor, offset_size)):
            directory = entry.get(2, 0)
            known = isinstance(directory, int) and directory < len(directories)
            parent = directories[directory] if known and isinstance(directory, int) else comp_dir
            index = program.files[number] = self._file(join_path(parent, _text(entry.get(1, b""))))
            source, checksum = entry.get(_SOURCE), entry.get(_MD5)
            if isinstance(source, bytes) and source:
                self.embedded.setdefault(index, source)
            if isinstance(checksum, bytes) and any(checksum):
                self.checksums.setdefault(index, checksum)

    def _entries(self, cursor: Cursor, offset_size: int) -> list[dict[int, int | bytes]]:
        formats = [(cursor.uleb(), cursor.uleb()) for _ in range(cursor.unsigned(1))]
        count = cursor.uleb()
        if count > cursor.remaining or (count and not formats):
            raise Damaged("a line program names more files than it has room for")
        return [{code: self._form(cursor, form, offset_size) for code, form in formats} for _ in range(count)]

    def _form(self, cursor: Cursor, form: int, offset_size: int) -> int | bytes:
        if form == 0x08:
            return cursor.string()
        if form in (0x0E, 0x1F):  # strp, line_strp
            name = ".debug_str" if form == 0x0E else ".debug_line_str"
            return Cursor(self._sections.get(name, b""), cursor.unsigned(offset_size)).string()
        if form in _FIXED:
            return cursor.unsigned(_FIXED[form])
        if form == 0x0F:
            return cursor.uleb()
        if form == 0x1E:
            return cursor.take(16)
        if form == 0x09:
            return cursor.take(cursor.uleb())
        raise Damaged(f"form {form:#x} in a line program")


_DefineFile = Callable[[str], int]
"""Takes the name of a file and returns its index."""

_FIXED: Final = {0x0B: 1, 0x05: 2, 0x06: 4, 0x07: 8}
"""Sizes of the forms DW_FORM_data1 and so on."""


def _text(value: int | bytes) -> str:
    return printable(value) if isinstance(value, bytes) else ""


@dataclass(frozen=True, slots=True)
class _Header:
    minimum_length: int
    max_operations: int
    default_is_stmt: bool
    line_base: int
    line_range: int
    opcode_base: int


class _Run:
    """The state machine of one line program."""

    def __init__(
        self, header: _Header, operands: bytes, address_size: int, cursor: Cursor, program: Program, low: int, high: int
    ) -> None:
        self.header = header
        self.operands = operands
        self.address_size = address_size
        self.cursor = cursor
        self.program = program
        self.low, self.high = low, high
        self.segments: list[Segment] = []
        self.rows: list[tuple[int, int, int, int, bool, bool]] = []
        self.reset()

    def reset(self) -> None:
        self.address = self.column = 0
        self.file = self.line = 1
        self.is_stmt = self.header.default_is_stmt
        self.prologue_end = False
        self.rows = []

    def run(self, define_file: _DefineFile) -> None:
        cursor, header = self.cursor, self.header
        base, spread, shift = header.opcode_base, header.line_range, header.minimum_length
        while cursor.remaining:
            opcode = cursor.unsigned(1)
            if opcode >= base:
                advance = opcode - base
                self.address += (advance // spread) * shift
                self.line += header.line_base + advance % spread
                self.row()
            elif opcode == 0:
                self.extended(define_file)
            elif opcode <= 12:
                self.standard(opcode)
            else:
                for _ in range(self.operands[opcode - 1]):
                    cursor.uleb()

    def standard(self, opcode: int) -> None:
        cursor = self.cursor
        if opcode == 1:
            self.row()
        elif opcode == 2:
            self.address += cursor.uleb() * self.header.minimum_length
        elif opcode == 3:
            self.line += cursor.sleb()
        elif opcode == 4:
            self.file = cursor.uleb()
        elif opcode == 5:
            self.column = cursor.uleb()
        elif opcode == 6:
            self.is_stmt = not self.is_stmt
        elif opcode == 8:
            self.address += ((255 - self.header.opcode_base) // self.header.line_range) * self.header.minimum_length
        elif opcode == 9:
            self.address += cursor.unsigned(2)
        elif opcode == 10:
            self.prologue_end = True
        elif opcode == 12:
            cursor.uleb()

    def extended(self, define_file: _DefineFile) -> None:
        cursor = self.cursor
        length = cursor.uleb()
        inner = Cursor(cursor.take(length))
        if not length:
            return
        opcode = inner.unsigned(1)
        if opcode == 1:
            self.end_sequence()
        elif opcode == 2:
            self.address = inner.unsigned(min(inner.remaining, 8))
        elif opcode == 3:
            name = printable(inner.string())
            self.program.files[max(self.program.files, default=0) + 1] = define_file(name)

    def row(self) -> None:
        self.rows.append((self.address, self.file, self.line, self.column, self.is_stmt, self.prologue_end))
        self.prologue_end = False

    def end_sequence(self) -> None:
        rows, end = self.rows, self.address
        if rows and self.low <= rows[0][0] and end <= self.high:
            files, prologue = self.program.files, False
            for index, (address, file, line, column, is_stmt, prologue_end) in enumerate(rows):
                following = rows[index + 1][0] if index + 1 < len(rows) else end
                prologue = prologue or prologue_end
                if following > address:  # of several rows for one address the last one counts
                    known = files.get(file)
                    if known is None or line < 0:
                        known, line = 0, 0
                    self.segments.append(Segment(address, following, known, line, column, is_stmt, prologue))
                    prologue = False
        self.reset()
