"""Addresses as people give them: numbers, names of the source's and of the module's, and what pointers point to."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from inspector.memory.labels import Labels
from traces._errors import UsageError
from traces.cli import one_line

if TYPE_CHECKING:
    from replayer.look import Here
    from replayer.source.debuginfo import Variable
    from replayer.source.values import Value

HINT: Final = "0x1a2b, 0x1a2b:16, 1/0x1a2b in memory 1, a variable, sp, global=0, or *0x1a2b for where that points"
MOST_DEBUG: Final = 8 << 20
"""Bytes of debug information that are read for the variables outside of functions; of more, only those of the file we are in."""
_NUMBER: Final = re.compile(r"0[xX][0-9a-fA-F]+\Z|\d+\Z")
_MEMORY: Final = re.compile(r"(?P<memory>\d+)/(?P<rest>.*)\Z")
_LENGTH: Final = re.compile(r"(?P<rest>.*[^:]):(?P<length>0[xX][0-9a-fA-F]+|\d+)\Z")
_STACK_POINTER: Final = "__stack_pointer"
MOST_STARS: Final = 8
MOST_COMPARED: Final = 10_000

Place = tuple[int, int, int]
"""Memory, address, length."""


class Addresses:
    """Finds addresses in a guest as it is shown."""

    def __init__(self, labels: Labels) -> None:
        self.labels = labels
        self._all: list[Variable] | None = None
        """Every variable outside of functions, once they were read."""

    def place(self, here: Here, level: int, text: str, memory: int = 0) -> Place:
        """The bytes meant by `text`. Raises UsageError.

        Args:
            level: the frame whose variables are meant.
            memory: that is meant if none is written.
        """
        memory, text, wanted = _split(text, memory, here.memory_sizes)
        bare = text.lstrip("*")
        stars = len(text) - len(bare)
        if stars > MOST_STARS:
            raise UsageError(f"at most {MOST_STARS} pointers are followed at once")
        address, length = self._base(here, level, bare.strip(), memory, stars)
        _inside(here.memory_sizes, memory, address, length if wanted is None else wanted)
        return memory, address, length if wanted is None else wanted

    def _base(self, here: Here, level: int, name: str, memory: int, stars: int) -> tuple[int, int]:
        """Where it is, and how long; `stars` pointers further."""
        length = 1
        if _NUMBER.match(name):
            address = _number(name)
        elif (index := self._global(name)) is not None:
            address = self._bits(here, index)
        elif name in self.labels.data:
            owner, address, length = self.labels.data[name]
            if owner != memory:
                raise UsageError(f"{name} is in memory {owner}: write {owner}/{name}")
        else:
            value = self._variable(here, level, name)
            length = max(1, len(value.raw)) if value.raw is not None else 1
            if value.address is not None:
                address = value.address
            elif stars and value.raw is not None and len(value.raw) <= 8:
                address, stars = int.from_bytes(value.raw, "little"), stars - 1
                length = 1
            else:
                raise UsageError(f"{one_line(name)} is not in memory here: {one_line(value.text)}")
        for _ in range(stars):
            address, length = read_pointer(here, memory, address), 1
        return address, length

    def _global(self, name: str) -> int | None:
        if name.startswith("global="):
            index = name.removeprefix("global=")
            if not index.isdigit() or int(index) >= len(self.labels.globals):
                raise UsageError(f"there is no global {one_line(index)}: the module has {len(self.labels.globals)}")
            return int(index)
        if name != "sp":
            return self.labels.global_named(name)
        known = self.labels.global_named(_STACK_POINTER)
        if known is None:
            # Compilers keep it in the first global that can change, whether they name it or not.
            known = next((label.index for label in self.labels.globals if label.mutable and label.type in ("i32", "i64")), None)
        if known is None:
            raise UsageError("the module has no stack pointer")
        return known

    def _bits(self, here: Here, index: int) -> int:
        label = self.labels.globals[index]
        if label.type not in ("i32", "i64"):
            raise UsageError(f"global {index} is no address: it is of type {label.type}")
        return here.globals[index]

    def _variable(self, here: Here, level: int, name: str) -> Value:
        frame = here.frames[level] if level < len(here.frames) else None
        for value in frame.variables if frame is not None else ():
            if value.name == name:
                return value
        source = here.machine.source
        looker = frame if frame is not None else _AtRest(here)
        for variable in self._outside(here, None if frame is None else frame.pc):
            if source is not None and variable.name == name:
                return source.read(variable, looker)
        raise UsageError(self._unknown(here, level, name))

    def _outside(self, here: Here, pc: int | None) -> list[Variable]:
        """Variables outside of functions: those of the file we are in first, for each may have one of the name."""
        source = here.machine.source
        if source is None:
            return []
        if self._all is None and len(here.machine.module.custom(".debug_info") or b"") <= MOST_DEBUG:
            self._all = source.globals()
        return [*(source.globals(pc) if pc is not None else ()), *(self._all or ())]

    def names(self, here: Here) -> list[str]:
        """The names that `place` knows, besides the variables of frames."""
        variables = [one_line(variable.name) for variable in self._outside(here, here.pc)]
        return list(dict.fromkeys([*variables, *self.labels.symbols()]))

    def _unknown(self, here: Here, level: int, name: str) -> str:
        local = [one_line(value.name) for value in here.frames[level].variables] if level < len(here.frames) else []
        near = difflib.get_close_matches(name[:200], [*local, *self.names(here)][:MOST_COMPARED], 3)
        hint = f"did you mean {', '.join(near)}?" if near else "write 0x1a2b, 0x1a2b:16 or a variable"
        return f"{one_line(name)!r} is neither an address nor a name here: {hint}"


class _AtRest:
    """What variables are read with where the guest does not run."""

    pc = 0

    def __init__(self, here: Here) -> None:
        self._here = here

    def local(self, index: int) -> int | None:
        return None

    def operand(self, index: int) -> int | None:
        return None

    def global_(self, index: int) -> int | None:
        return self._here.globals[index] if 0 <= index < len(self._here.globals) else None

    def memory(self, address: int, length: int) -> bytes | None:
        data = self._here.read(address, length)
        return data if len(data) == length else None


def pointer_size(here: Here, memory: int) -> int:
    """Bytes of a pointer into a memory."""
    return 8 if here.machine.module.memories[memory].limits.is_64 else 4


def read_pointer(here: Here, memory: int, address: int) -> int:
    """Where the pointer at an address points. Raises UsageError if there is not all of one."""
    width = pointer_size(here, memory)
    _inside(here.memory_sizes, memory, address, width)
    return int.from_bytes(here.read(address, width, memory), "little")


def written(text: str, memory: int, sizes: Sequence[int]) -> None:
    """Raises UsageError for what is wrong with an address whatever the guest holds."""
    memory, name, length = _split(text, memory, sizes)
    if _NUMBER.match(name):
        _inside(sizes, memory, _number(name), 1 if length is None else length)


def _split(text: str, memory: int, sizes: Sequence[int]) -> tuple[int, str, int | None]:
    """Memory, what is meant in it, and how long if that is said."""
    found = _MEMORY.match(text)
    if found is not None:
        memory, text = int(found["memory"]), found["rest"]
    if not 0 <= memory < len(sizes):
        raise UsageError(f"there is no memory {memory}")
    sized = _LENGTH.match(text)
    return (memory, text, None) if sized is None else (memory, sized["rest"], _number(sized["length"]))


def _number(text: str) -> int:
    return int(text, 16 if text[:2] in ("0x", "0X") else 10)


def _inside(sizes: Sequence[int], memory: int, address: int, length: int) -> None:
    if not 0 <= address < sizes[memory] or not 0 < length <= sizes[memory] - address:
        text = f"{address:#x}" if length == 1 else f"{address:#x}:{length}"
        raise UsageError(f"{text} is not there: memory {memory} ends at {sizes[memory]:#x}")
