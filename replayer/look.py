"""What can be seen at one moment: frames with their locals, globals, memory, and where in the source that is."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from recorder.wasm.disassembly import instruction_text
from replayer.fragments import Frame as RawFrame
from replayer.marks import Mark
from replayer.worker import Moment, View
from traces._errors import UsageError

if TYPE_CHECKING:
    from replayer.machine import TimeMachine
    from replayer.source.lines import Location
    from replayer.source.values import Value


@dataclass(frozen=True)
class InlinedFrame:
    """A call that the compiler dissolved into its caller."""

    name: str
    location: Location | None
    """Where in it the guest is."""


class Frame:
    """One frame of the guest."""

    def __init__(self, here: Here, level: int, raw: RawFrame) -> None:
        self.here = here
        self.level = level
        """0 is the innermost."""
        self.function = raw.function
        """Index; -1 where a host called back into the guest."""
        self.pc = raw.pc
        """Of the instruction that is next or, in outer frames, of the call; for a host's frame, the import."""
        self.locals = raw.locals
        """Raw bits. References are 0 for null, 1 otherwise."""
        self.operands = raw.operands
        """Raw bits, bottom first."""

    @property
    def is_host(self) -> bool:
        return self.function < 0

    @cached_property
    def types(self) -> list[str]:
        """Of the locals."""
        return [] if self.is_host else self.here.machine.details.of(self.function).types

    @property
    def name(self) -> str:
        if self.is_host:
            return self.here.machine.trace.manifest.imports[self.pc].qualified
        return self.here.machine.names.name(self.function)

    @cached_property
    def location(self) -> Location | None:
        """The source line, if the module's debug information knows it."""
        source = self.here.machine.source
        return None if source is None or self.is_host else source.location(self.pc)

    @cached_property
    def inlined(self) -> list[InlinedFrame]:
        """Calls dissolved into this frame, innermost first."""
        from replayer.source.lines import Location

        source = self.here.machine.source
        if source is None or self.is_host:
            return []
        found = []
        location = self.location
        for call in source.inlined(self.pc):
            found.append(InlinedFrame(call.name, location))
            location = None
            if call.call_file is not None and call.call_line is not None:
                location = Location(call.call_file, call.call_line, call.call_column or 0, True)
        return found

    @property
    def instruction(self) -> str:
        """The instruction at `pc`, as text."""
        if self.is_host:
            return ""
        module = self.here.machine.module
        at = self.pc + self.here.machine.details.code_start
        return instruction_text(module, at, len(module.data))

    def local(self, index: int) -> int | None:
        return self.locals[index] if 0 <= index < len(self.locals) else None

    def operand(self, index: int) -> int | None:
        return self.operands[index] if 0 <= index < len(self.operands) else None

    def global_(self, index: int) -> int | None:
        bits = self.here.globals
        return bits[index] if 0 <= index < len(bits) else None

    def memory(self, address: int, length: int) -> bytes | None:
        data = self.here.read(address, length)
        return data if len(data) == length else None

    @cached_property
    def variables(self) -> list[Value]:
        """Parameters and local variables of the source, innermost scope first; empty without debug information."""
        source = self.here.machine.source
        if source is None or self.is_host:
            return []
        return [source.read(variable, self) for variable in source.variables(self.pc)]

    def describe(self) -> str:
        """`main at agent.c:88`, or `function 12 +0x1a2b`."""
        if self.is_host:
            return f"{self.name} (host)"
        where = self.location
        return f"{self.name} at {where.file}:{where.line}" if where is not None else f"{self.name} +{self.pc:#x}"


class Here:
    """The guest at one mark. Good until the machine goes elsewhere, unless it is held; what was read before stays."""

    def __init__(self, machine: TimeMachine, mark: Mark, moment: Moment, view: View) -> None:
        self.machine = machine
        self.mark = mark
        self.moment = moment
        self.events: int = view.position["events"]
        """Events that have happened."""
        self.depth = view.count
        """Frames of the guest."""
        self.frames = [Frame(self, level, raw) for level, raw in enumerate(view.frames)]
        """Innermost first; of very deep stacks not all."""
        self.at_end = view.position["kind"] == "end"
        self.held = False
        """Whether someone still looks at it when the machine has gone elsewhere; who says so, closes it."""

    @property
    def frame(self) -> Frame | None:
        """The innermost frame; None while the guest does not run."""
        return self.frames[0] if self.frames else None

    @property
    def pc(self) -> int | None:
        """Offset in the code section of the instruction that is next; None while the guest does not run."""
        return self.frames[0].pc if self.frames else None

    @cached_property
    def globals(self) -> list[int]:
        """Raw bits of every global."""
        return self.moment.globals()

    @cached_property
    def memory_sizes(self) -> list[int]:
        """In bytes."""
        return self.moment.memory_sizes()

    def read(self, address: int, length: int, memory: int = 0) -> bytes:
        """Bytes of a memory; fewer where it ends."""
        if not 0 <= memory < len(self.machine.module.memories):
            raise UsageError(f"the module has no memory {memory}")
        return self.moment.memory(memory, address, length)

    def close(self) -> None:
        """Lets go of the guest; what was read stays."""
        self.moment.close()

    def digests(self) -> list[list[Any]]:
        """What a recording's digests are taken of: [what, index, size, sha256]."""
        return self.moment.digests()
