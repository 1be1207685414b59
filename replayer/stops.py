"""Where to stop: breakpoints and watchpoints, as a person writes them and as the machine looks for them."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from recorder.wasm.binary import WasmError
from replayer.conditions import Condition, parse
from traces._errors import UsageError

if TYPE_CHECKING:
    from replayer.machine import TimeMachine

KINDS: Final = ("func", "import", "line", "pc")
_NUMBER: Final = "0[xX][0-9a-fA-F]{1,16}|[0-9]{1,20}"
_WATCH: Final = re.compile(r"(?:(?P<memory>[0-9]{1,9})/)?(?P<address>{N})(?::(?P<length>{N}))?\Z".replace("{N}", _NUMBER))


@dataclass(frozen=True)
class Breakpoint:
    """A place in the code, or an import."""

    text: str
    """As it was written."""
    pcs: tuple[int, ...] = ()
    """Instructions before which to stop."""
    imports: tuple[int, ...] = ()
    """Imports at whose calls to stop."""
    condition: Condition | None = None
    skip: int = 0
    """How many hits to let pass."""


@dataclass(frozen=True)
class Watchpoint:
    """Bytes of a memory, or a global, whose writing is to stop the guest."""

    text: str
    memory: int = 0
    address: int = 0
    length: int = 0
    global_: int | None = None
    """A global instead of memory."""
    condition: Condition | None = None
    skip: int = 0
    changes_only: bool = field(default=False)
    """Whether a write of what stands there already does not count."""


def breakpoint_at(machine: TimeMachine, text: str, condition: str | None = None, skip: int = 0) -> Breakpoint:
    """`func=NAME`, `func=12`, `import=module.name`, `line=FILE:LINE` or `pc=0x1a2b`. Raises UsageError, with what is nearest."""
    kind, found, value = text.partition("=")
    if not found or kind not in KINDS or not value:
        raise UsageError(f"{text!r} is not a breakpoint: write func=NAME, import=MODULE.NAME, line=FILE:LINE or pc=OFFSET")
    parsed = None if condition is None else parse(condition)
    if kind == "import":
        return Breakpoint(text, imports=_imports(machine, value), condition=parsed, skip=skip)
    if kind == "line":
        return Breakpoint(text, _line(machine, value), condition=parsed, skip=skip)
    if kind == "pc":
        return Breakpoint(text, (instruction_at(machine, value),), condition=parsed, skip=skip)
    functions = machine.names.find(value)
    imported = machine.module.imported.functions
    pcs = tuple(pc for index in functions if index >= imported and (pc := entry_of(machine, index)) is not None)
    imports = tuple(index for index in functions if index < imported)
    return Breakpoint(text, pcs, imports, parsed, skip)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 10


def entry_of(machine: TimeMachine, function: int) -> int | None:
    """The instruction before which a breakpoint on a function stops: behind its prologue, where the source says so."""
    steps = machine.details.of(function).steps
    if not steps:
        return None
    first = steps[0].at - machine.details.code_start
    if machine.source is not None:
        found = machine.source.function(first)
        end = None if found is None else machine.source.prologue_end(found)
        if end is not None and end in machine.details.of(function).by_pc:
            return end
    return first


def instruction_at(machine: TimeMachine, text: str) -> int:
    """A code offset at which an instruction that can run begins."""
    try:
        pc = int(text, 0)
    except ValueError:
        raise UsageError(f"pc={text}: not a code offset; write it as in a disassembly, 0x1a2b") from None
    try:
        detail = machine.details.of(machine.details.function_at(pc))
    except WasmError:
        code = machine.module.code
        size = code[-1].end - machine.details.code_start if code else 0
        raise UsageError(f"pc={text}: no instruction stands there; the code ends at {size:#x}") from None
    if pc not in detail.by_pc:
        nearest = min(detail.by_pc, key=lambda known: abs(known - pc), default=None)
        hint = "" if nearest is None else f"; the nearest is {nearest:#x}"
        raise UsageError(f"pc={text}: no instruction that counts begins there{hint}")
    return pc


def _line(machine: TimeMachine, text: str) -> tuple[int, ...]:
    file, found, line = text.rpartition(":")
    if not found or not _is_number(line):
        raise UsageError(f"line={text}: write FILE:LINE")
    if machine.source is None:
        raise UsageError(f"line={text}: the module carries no debug information (build it with -g); use func= or pc=")
    pcs = []
    for pc in machine.source.line_starts(file, int(line)):
        try:
            detail = machine.details.of(machine.details.function_at(pc))
        except WasmError:
            continue
        # A row of the line table may begin at an instruction that does not count, such as `end`.
        exact = pc if pc in detail.by_pc else min((p for p in detail.by_pc if p > pc), default=None)
        if exact is not None:
            pcs.append(exact)
    if not pcs:
        raise UsageError(f"line={text}: no instruction that can run belongs to that line")
    return tuple(dict.fromkeys(pcs))


def _imports(machine: TimeMachine, text: str) -> tuple[int, ...]:
    entries = machine.trace.manifest.imports
    exact = tuple(i for i, entry in enumerate(entries) if text in (entry.qualified, entry.name))
    if not exact:
        near = difflib.get_close_matches(text, [entry.qualified for entry in entries] + [entry.name for entry in entries], 3)
        hint = f"; did you mean {' or '.join(near)}?" if near else ""
        raise UsageError(f"import={text}: the module imports no such function{hint}")
    return exact


def watchpoint_at(
    machine: TimeMachine, text: str, condition: str | None = None, skip: int = 0, changes_only: bool = False
) -> Watchpoint:
    """`ADDRESS:LENGTH`, `MEMORY/ADDRESS:LENGTH` or `global=INDEX`."""
    parsed = None if condition is None else parse(condition)
    if text.startswith("global="):
        value = text.removeprefix("global=")
        count = len(machine.module.globals)
        if not _is_number(value) or int(value) >= count:
            raise UsageError(f"{text}: the module has {count} globals, numbered from 0")
        if not machine.module.globals[int(value)].mutable:
            raise UsageError(f"{text}: that global is constant; nothing ever writes it")
        return Watchpoint(text, global_=int(value), condition=parsed, skip=skip, changes_only=changes_only)
    memory, address, length = memory_range(machine, text)
    return Watchpoint(text, memory, address, length, None, parsed, skip, changes_only)


def memory_range(machine: TimeMachine, text: str, most: int = 1 << 32) -> tuple[int, int, int]:
    """`ADDRESS[:LENGTH]` or `MEMORY/ADDRESS[:LENGTH]` as (memory, address, length); the length is 1 if not given."""
    found = _WATCH.match(text)
    if found is None:
        raise UsageError(f"{text!r} is not a range of memory: write ADDRESS:LENGTH, both decimal or 0x…")
    memory = int(found["memory"] or 0)
    if memory >= len(machine.module.memories):
        count = len(machine.module.memories)
        raise UsageError(f"{text}: the module has {count or 'no'} {'memory' if count == 1 else 'memories'}")
    address, length = int(found["address"], 0), int(found["length"] or "1", 0)
    kind = machine.module.memories[memory].limits
    largest = (kind.maximum if kind.maximum is not None else (1 << 48 if kind.is_64 else 1 << 16)) * 65536
    if not 0 < length <= most or address + length > largest:
        raise UsageError(f"{text}: outside memory {memory}, which never has more than {largest:,} bytes")
    return memory, address, length
