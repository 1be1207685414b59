"""What the debug information of a module says about its code: lines, functions, variables and their values."""

from __future__ import annotations

import difflib
import hashlib
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from recorder.wasm.module import CODE, Module
from replayer.source import types
from replayer.source.bits import Damaged
from replayer.source.files import find_source, to_lines
from replayer.source.lines import LineTable, Location, Program, Segment
from replayer.source.places import Evaluator, Frame, Missing, Nowhere, left_out
from replayer.source.units import Die, Range, Unit, Units, debug_sections
from replayer.source.values import Builder, Value, missing_value
from traces._errors import UsageError

_VARIABLES = ("variable", "formal_parameter")
_MAX_SCOPES = 512


@dataclass(frozen=True, slots=True)
class SourceFunction:
    """A function of the source that has code of its own."""

    name: str
    linkage_name: str | None
    """The mangled name, where the language has such."""
    qualified_name: str
    """With the namespaces, modules and classes it stands in, joined by "::"."""
    low: int
    high: int
    """The code is `[low, high)`."""
    file: str | None
    line: int | None
    """Where it is declared."""
    die: Die = field(repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class InlinedCall:
    """A call that the compiler replaced by the body of the function."""

    name: str
    low: int
    high: int
    """The range of the inlined body that was asked about."""
    ranges: tuple[Range, ...]
    """All ranges of the inlined body."""
    call_file: str | None
    call_line: int | None
    call_column: int | None
    """Where the call stands in the source."""
    die: Die = field(repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Variable:
    """A variable or a parameter; `DebugInfo.read` gets its value."""

    name: str
    type_name: str
    is_parameter: bool
    depth: int
    """How many scopes it stands in: 0 is the function itself, 1 a block or an inlined call in it, and so on. Of a
    global, -1."""
    inlined_in: str | None
    """The function whose inlined body the variable belongs to; None if it belongs to the function around."""
    file: str | None
    line: int | None
    """Where it is declared."""
    die: Die = field(repr=False, compare=False)
    function: Die | None = field(repr=False, compare=False)
    """The function around, None for a global."""


def open_source(module: Module, *, remap: Sequence[tuple[str, str]] = (), search: Sequence[Path] = ()) -> DebugInfo | None:
    """The source level of a module; None if it has no debug information.

    `remap` and `search` say where source files lie, see `DebugInfo.text`. Raises UsageError if there is debug
    information and no pyelftools to read it.
    """
    sections = debug_sections(module)
    if not sections.get(".debug_info") or not sections.get(".debug_abbrev"):
        return None
    return DebugInfo(module, remap=remap, search=search)


class DebugInfo:
    """Debug information of one module, read as far as it is asked for.

    A `pc` is the offset of an instruction from the start of the code section's payload. Damaged parts count as absent
    and are listed in `problems`.
    """

    def __init__(self, module: Module, *, remap: Sequence[tuple[str, str]] = (), search: Sequence[Path] = ()) -> None:
        code = module.section(CODE)
        start, high = (code.start, code.end - code.start) if code is not None else (0, 0)
        self._bodies = [(body.start - start, body.end - start) for body in module.code]
        # Where a function begins, some say before the size of its body, which has up to five bytes.
        low = max(1, self._bodies[0][0] - 5) if self._bodies else 1
        self._sections = debug_sections(module)
        self._units = Units(self._sections, low, high)
        self._range = low, high
        self._remap, self._search = tuple(remap), tuple(search)
        self._texts: dict[str, bytes | None] = {}

    @property
    def problems(self) -> list[str]:
        """What is damaged in what has been read so far, one line each."""
        return list(self._units.problems)

    # --- lines

    @cached_property
    def _table(self) -> tuple[LineTable, dict[int, Program]]:
        table = LineTable(self._sections, *self._range)
        programs = {}
        for unit in self._units.all:
            if unit.lines is not None:
                program = table.add(unit.lines, unit.comp_dir, unit.name)
                if program is None:
                    self._units.problem(f"the line program of the unit at {unit.offset:#x} is damaged")
                else:
                    programs[unit.offset] = program
        return table, programs

    @property
    def _lines(self) -> LineTable:
        return self._table[0]

    @cached_property
    def files(self) -> list[str]:
        """The source files, as the debug information names them, sorted."""
        return sorted(self._lines.files)

    def _file_of(self, unit: Unit, number: int | None) -> str | None:
        program = self._table[1].get(unit.offset)
        if program is None or number is None or (number == 0 and unit.version < 5):
            return None
        index = program.files.get(number)
        return self._lines.files[index] if index is not None else None

    def location(self, pc: int) -> Location | None:
        """The source of an instruction; None for what the compiler made up (line 0) and where there is none."""
        segment = self._lines.at(pc)
        return self._lines.location(segment) if segment is not None and segment.line else None

    def find_file(self, file: str) -> str:
        """The one of `files` that `file` names: all of it or the last parts of its path. Raises UsageError."""
        if file in self.files:
            return file
        wanted = file.replace("\\", "/").removeprefix("./")
        found = [name for name in self.files if name == wanted or name.replace("\\", "/").endswith("/" + wanted.lstrip("/"))]
        if len(found) > 1:
            found = [name for name in found if self._lines.files.index(name) in self._lines.by_file] or found
        if len(found) == 1:
            return found[0]
        if found:
            raise UsageError(f"{file} is ambiguous: {_listed(found)}")
        names = {name.rsplit("/", 1)[-1]: name for name in self.files}
        near = [names[base] for base in difflib.get_close_matches(wanted.rsplit("/", 1)[-1], names, n=3, cutoff=0.5)]
        if not near:
            near = [name for name in self.files if self._lines.files.index(name) in self._lines.by_file][:3]
        raise UsageError(f"no source file {file} in the debug information" + (f"; there is {_listed(near)}" if near else ""))

    def _body(self, pc: int) -> int:
        """Which function body holds `pc`; -1 if none does."""
        index = bisect_right(self._bodies, pc, key=lambda body: body[0]) - 1
        return index if index >= 0 and pc < self._bodies[index][1] else -1

    def line_starts(self, file: str, line: int) -> list[int]:
        """Where the statements of a line begin: the first instruction of each run of its code. `file` is a name of
        `files` or the end of one. Raises UsageError for a file that is not known and a line that has no code."""
        name = self.find_file(file)
        segments = self._lines.by_file.get(self._lines.files.index(name), [])
        starts: list[int] = []
        run: tuple[int, int] | None = None
        """Where the code before ends, and in which body, if it is of the same line and a breakpoint is in it already."""
        for segment in segments:
            if segment.line != line:
                continue
            here = segment.low, self._body(segment.low)
            if run != here and segment.is_statement:
                starts.append(segment.low)
                run = segment.high, here[1]
            elif run == here:
                run = segment.high, here[1]
        if starts:
            return starts
        lines = sorted({segment.line for segment in segments if segment.is_statement})
        if not lines:
            raise UsageError(f"{name} has no code")
        following = bisect_right(lines, line)
        if following < len(lines):
            raise UsageError(f"line {line} of {name} has no code; the next line that has is {lines[following]}")
        raise UsageError(f"line {line} of {name} has no code; the last line that has is {lines[-1]}")

    def ranges_of_line(self, pc: int) -> list[Range]:
        """The code of the source line of `pc` in the same function, as ranges; none where `location` is None."""
        segment, body = self._lines.at(pc), self._body(pc)
        if segment is None or not segment.line:
            return []
        low, high = self._bodies[body] if body >= 0 else (segment.low, segment.high)
        ranges: list[Range] = []
        for other in self._lines.between(low, high):
            if other.file == segment.file and other.line == segment.line:
                if ranges and ranges[-1][1] == other.low:
                    ranges[-1] = ranges[-1][0], other.high
                else:
                    ranges.append((other.low, other.high))
        return ranges

    # --- functions

    def function(self, pc: int) -> SourceFunction | None:
        """The function whose code holds `pc`; if the code is inlined, the function it was inlined into."""
        die = self._units.function_at(pc)
        return self._function(die, pc) if die is not None else None

    def _function(self, die: Die, pc: int) -> SourceFunction:
        ranges = die.ranges()
        low, high = next((found for found in ranges if found[0] <= pc < found[1]), ranges[0])
        linkage = die.with_attribute("DW_AT_linkage_name") or die.with_attribute("DW_AT_MIPS_linkage_name")
        linkage_name = None
        if linkage is not None:
            linkage_name = linkage.text("DW_AT_linkage_name") or linkage.text("DW_AT_MIPS_linkage_name")
        file, line = self._declared(die)
        name = die.name() or linkage_name or f"<function at {low:#x}>"
        return SourceFunction(name, linkage_name, _qualified(die, name), low, high, file, line, die)

    def functions(self) -> list[SourceFunction]:
        """All functions with code, by address. Reads all units."""
        found: dict[tuple[int, int], SourceFunction] = {}
        for unit in self._units.all:
            for low, _, die in unit.functions:
                found.setdefault((low, die.offset), self._function(die, low))
        return [found[key] for key in sorted(found)]

    def _declared(self, die: Die) -> tuple[str | None, int | None]:
        lined, filed = die.with_attribute("DW_AT_decl_line"), die.with_attribute("DW_AT_decl_file")
        file = self._file_of(filed.unit, filed.number("DW_AT_decl_file")) if filed is not None else None
        return file, lined.number("DW_AT_decl_line") if lined is not None else None

    def prologue_end(self, function: SourceFunction) -> int | None:
        """Where the body proper begins, the place for a breakpoint on the function: where the line table says so, else
        where the second line begins; None if the line table does not know the function."""
        segments = [found for found in self._lines.between(function.low, function.high) if found.line]
        if not segments:
            return None
        marked = next((found.low for found in segments if found.prologue_end), None)
        if marked is not None:
            return marked
        first = segments[0]
        second: Segment | None = next((found for found in segments if found.line != first.line and found.is_statement), None)
        return second.low if second is not None else first.low

    # --- scopes

    def _scopes(self, pc: int) -> list[Die]:
        """The function that holds `pc`, and the blocks and inlined calls in it that do, innermost last."""
        die = self._units.function_at(pc)
        scopes: list[Die] = []
        while die is not None and len(scopes) < _MAX_SCOPES:
            scopes.append(die)
            die = next((child for child in die.children if _holds(child, pc)), None)
        return scopes

    def inlined(self, pc: int) -> list[InlinedCall]:
        """The inlined calls whose bodies hold `pc`, innermost first."""
        calls = []
        for die in reversed(self._scopes(pc)):
            if die.tag == "inlined_subroutine":
                ranges = die.ranges()
                low, high = next(found for found in ranges if found[0] <= pc < found[1])
                file = self._file_of(die.unit, die.number("DW_AT_call_file"))
                line, column = die.number("DW_AT_call_line"), die.number("DW_AT_call_column")
                calls.append(InlinedCall(die.name() or "?", low, high, tuple(ranges), file, line, column, die))
        return calls

    def variables(self, pc: int) -> list[Variable]:
        """The parameters and local variables in scope, those of the innermost scope first, each scope's in the order of
        declaration. A name may be there several times: the first one hides the others."""
        scopes = self._scopes(pc)
        if not scopes:
            return []
        found: list[Variable] = []
        for depth in range(len(scopes) - 1, -1, -1):
            inlined = next((die.name() for die in reversed(scopes[: depth + 1]) if die.tag == "inlined_subroutine"), None)
            for die in _declared_in(scopes[depth]):
                variable = self._variable(die, depth, inlined, scopes[0])
                if variable is not None:
                    found.append(variable)
        return found

    def _variable(self, die: Die, depth: int, inlined: str | None, function: Die | None) -> Variable | None:
        name = die.name()
        if name is None:
            return None
        file, line = self._declared(die)
        parameter = die.tag == "formal_parameter"
        return Variable(name, types.type_name(die.type()), parameter, depth, inlined, file, line, die, function)

    def globals(self, pc: int | None = None) -> list[Variable]:
        """Variables outside of functions: of the compile unit that holds `pc`, or of all units, which are then read.
        Those that the linker left out are not there."""
        units = self._units.all
        if pc is not None:
            function = self._units.function_at(pc)
            units = [function.unit] if function is not None else []
        found = []
        for unit in units:
            for die in unit.dies():
                outside = die.parent is not None and die.parent.tag in ("compile_unit", "namespace", "module", *types.AGGREGATES)
                if die.tag != "variable" or not outside or not (die.has("DW_AT_location") or die.has("DW_AT_const_value")):
                    continue
                if left_out(die):
                    continue
                variable = self._variable(die, -1, None, None)
                if variable is not None:
                    found.append(variable)
        return found

    def read(self, variable: Variable, frame: Frame) -> Value:
        """The value of a variable in a frame. Never raises: what cannot be had says why."""
        declared = variable.die.type()
        evaluator = Evaluator(frame, variable.die.unit, variable.function)
        try:
            place = evaluator.of(variable.die, types.byte_size(declared))
        except Missing as missing:
            return missing_value(variable.name, variable.type_name, missing)
        except Damaged as error:
            return missing_value(variable.name, variable.type_name, Missing("unavailable", f"damaged debug information: {error}"))
        if isinstance(place, Nowhere):
            return missing_value(variable.name, variable.type_name, place.missing)
        return Builder(evaluator).value(variable.name, declared, place)

    # --- text

    def text(self, file: str) -> list[str] | None:
        """The lines of a source file; None if it is not found.

        A source that the debug information carries comes first; then the file, under the first prefix of `remap` that
        fits, under its own name, and in the directories of `search` by as much of its path as possible.
        """
        data = self._source(file)
        return to_lines(data) if data is not None else None

    def _source(self, file: str) -> bytes | None:
        if file not in self._texts:
            index = self._index(file)
            embedded = self._lines.embedded.get(index) if index is not None else None
            self._texts[file] = embedded if embedded is not None else find_source(file, self._remap, self._search)
        return self._texts[file]

    def _index(self, file: str) -> int | None:
        return self._lines.files.index(file) if file in self._lines.files else None

    def text_is_current(self, file: str) -> bool | None:
        """Whether `text` is what the module was compiled from; None if there is no text, or no checksum to tell by."""
        index = self._index(file)
        checksum = self._lines.checksums.get(index) if index is not None else None
        data = self._source(file)
        if checksum is None or data is None:
            return None
        return hashlib.md5(data, usedforsecurity=False).digest() == checksum


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (", …" if len(names) > 5 else "")


def _holds(die: Die, pc: int) -> bool:
    return die.tag in ("lexical_block", "inlined_subroutine") and any(low <= pc < high for low, high in die.ranges())


def _declared_in(scope: Die) -> Iterator[Die]:
    """The variables of one scope. Those an inlined function has and its inlined body has not are optimised out: they
    come last. Variables that the compiler invented, such as the length of an array, are not shown; `this` is."""
    origins = set()
    for child in scope.children:
        if child.tag in _VARIABLES and not (child.tag == "variable" and child.has("DW_AT_artificial")):
            origin = child.reference("DW_AT_abstract_origin")
            if origin is not None:
                origins.add(origin.offset)
            yield child
    abstract = scope.reference("DW_AT_abstract_origin")
    if abstract is not None and abstract is not scope:
        for child in abstract.children:
            if child.tag in _VARIABLES and child.offset not in origins:
                yield child


def _qualified(die: Die, name: str) -> str:
    parts = [name]
    declared = list(die.origins())[-1].parent
    for _ in range(_MAX_SCOPES):
        if declared is None or declared.tag in ("compile_unit", "type_unit", "partial_unit"):
            break
        own = declared.text("DW_AT_name")
        if own and declared.tag in ("namespace", "module", "subprogram", *types.AGGREGATES, "enumeration_type"):
            parts.append(own)
        declared = declared.parent
    return "::".join(reversed(parts))
