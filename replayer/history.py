"""Questions about a part of the execution: who wrote these bytes, what was called and how much, what changed between two marks.

Answers are computed by running the guest over that part, listened to; nothing is stored for them while recording.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

from replayer.look import Here
from replayer.marks import START, Mark
from replayer.motion import Hit
from replayer.stops import Watchpoint
from replayer.watching import Watch
from traces._errors import UsageError

if TYPE_CHECKING:
    from replayer.machine import TimeMachine

PAGE: Final = 4096
MOST: Final = 100_000
"""Rows of one answer."""


@dataclass(frozen=True)
class Write:
    """One write of a range of memory."""

    mark: Mark
    """The instruction that wrote, or the event in which a host did."""
    by: str
    """"guest" or "host"; "module" for what stood there from the start."""
    address: int
    """Of the first byte of the range that was written."""
    old: bytes
    new: bytes
    pc: int | None = None
    """Of the storing instruction; of a host's write, of the call it happened in, if the guest was calling."""
    event: int | None = None
    function: str = ""
    where: str = ""
    """Source line, if it is known."""
    frames: tuple[str, ...] = ()
    """Innermost first; only of `last_write`."""
    memory: int = 0


@dataclass(frozen=True)
class Call:
    """One call of a function."""

    function: int
    mark: Mark
    """Its first instruction."""
    end: Mark | None
    """The first instruction behind it; None if it did not return before the end of the question. A call that ends by a tail call
    is over when that is."""
    depth: int
    """Calls of the guest around it."""
    args: tuple[int | None, ...] | None = None
    """Raw bits of its parameters; None if they were not asked for."""
    results: tuple[int | None, ...] | None = None
    """Raw bits of what it returned; None if they were not asked for, or cannot be seen: it ended by an exception, or returned to
    an embedder or a host."""


@dataclass
class Profile:
    """A function, called along one path, and what was executed in it."""

    function: int
    """-1 for what calls the guest."""
    name: str
    calls: int
    own: int
    """Instructions of its own."""
    total: int
    """Instructions, with those of everything it called."""
    children: list[Profile] = field(default_factory=list)


@dataclass(frozen=True)
class Change:
    """Bytes that differ between two marks."""

    memory: int
    address: int
    old: bytes
    new: bytes


class History:
    """What a machine can tell about a part of the execution."""

    def __init__(self, machine: TimeMachine) -> None:
        self.machine = machine

    # -- writes

    def last_write(
        self, address: int, length: int = 1, *, memory: int = 0, before: Mark | None = None, watch: Watch | None = None
    ) -> Write | None:
        """The last write of any of these bytes before a mark (where the machine is, unless given); None if there never was one.

        What the module itself put there (data segments) counts as a write at the start. Ask again with `before=found.mark` to go
        further back.
        """
        machine = self.machine
        self._check_range(memory, address, length)
        mark = machine.here.mark if before is None else before
        wanted = Watchpoint(f"{address:#x}:{length}", memory, address, length)
        found: Hit | None = None
        for hit in machine.motion.writes_from(wanted, mark, True, watch):
            if found is not None:
                # A large write is told in pieces.
                same = (hit.clock, hit.event, hit.pc) == (found.clock, found.event, found.pc)
                if not same or hit.address + len(hit.data) != found.address:
                    break
                hit = replace(found, address=hit.address, data=hit.data + found.data)
            found = hit
            if found.address <= address:
                break
        if found is not None:
            return self._write(found, address, length, watch)
        if mark == START:
            return None
        here = machine.look(START, watch)
        try:
            data = here.read(address, length, memory)
        finally:
            here.close()
        return Write(START, "module", address, bytes(len(data)), data, memory=memory) if any(data) else None

    def _write(self, hit: Hit, address: int, length: int, watch: Watch | None) -> Write:
        machine = self.machine
        mark = machine.motion.mark_of_hit(hit)
        first = max(address, hit.address)
        end = min(address + length, hit.address + len(hit.data))
        here = machine.look(mark, watch)
        try:
            old = here.read(first, end - first, hit.memory)
            frame = next((frame for frame in here.frames if not frame.is_host), None)
            where = ""
            if frame is not None and frame.location is not None:
                where = f"{frame.location.file}:{frame.location.line}"
            return Write(
                mark,
                "guest" if hit.event < 0 else "host",
                first,
                old,
                hit.data[first - hit.address : end - hit.address],
                None if frame is None else frame.pc,
                None if hit.event < 0 else hit.event,
                "" if frame is None else frame.name,
                where,
                tuple(frame.describe() for frame in here.frames[:16]),
                hit.memory,
            )
        finally:
            here.close()

    def writes(
        self,
        address: int,
        length: int = 1,
        *,
        memory: int = 0,
        start: Mark = START,
        end: Mark | None = None,
        most: int = MOST,
        watch: Watch | None = None,
    ) -> Iterator[Write]:
        """Every write of any of these bytes between two marks, in order, with the bytes before and after it."""
        machine = self.machine
        machine.know(watch)
        self._check_range(memory, address, length)
        here = machine.look(start, watch)
        try:
            kept = bytearray(here.read(address, length, memory).ljust(length, b"\0"))
        finally:
            here.close()
        wanted = Watchpoint(f"{address:#x}:{length}", memory, address, length)
        number = 0
        for hit in machine.motion.writes_from(wanted, start, False, watch, end):
            mark = machine.motion.mark_of_hit(hit)
            if end is not None and mark >= end:
                return
            number += 1
            if number > most:
                return
            first = max(address, hit.address)
            last = min(address + length, hit.address + len(hit.data))
            new = hit.data[first - hit.address : last - hit.address]
            old = bytes(kept[first - address : last - address])
            kept[first - address : last - address] = new
            if hit.event >= 0:
                yield Write(mark, "host", first, old, new, None, hit.event, memory=memory)
                continue
            where = ""
            if machine.source is not None and (found := machine.source.location(hit.pc)) is not None:
                where = f"{found.file}:{found.line}"
            name = machine.names.name(machine.details.function_at(hit.pc))
            yield Write(mark, "guest", first, old, new, hit.pc, None, name, where, memory=memory)

    def _check_range(self, memory: int, address: int, length: int) -> None:
        if not 0 <= memory < len(self.machine.module.memories):
            raise UsageError(f"the module has no memory {memory}")
        if length < 1 or address < 0 or address + length > 1 << 63:
            raise UsageError(f"{address:#x}:{length} is not a range of memory")

    # -- calls

    def calls(
        self,
        function: int | Sequence[int],
        *,
        start: Mark = START,
        end: Mark | None = None,
        most: int = MOST,
        args: bool = False,
        results: bool = False,
        watch: Watch | None = None,
    ) -> Iterator[Call]:
        """Every call of a function of the guest, or of several, that begins between two marks, in order."""
        machine = self.machine
        machine.know(watch)
        entries: dict[int, int] = {}
        for index in [function] if isinstance(function, int) else function:
            if not 0 <= index < len(machine.module.functions):
                raise UsageError(f"there is no function {index}: the module has {len(machine.module.functions)}")
            if index < machine.module.imported.functions:
                raise UsageError(f"function {index} is imported: its calls are events")
            entries.update(dict.fromkeys(machine.motion.entry_heads(index), index))
        low, high = self._clocks(start, end)
        if not entries or low >= high or most < 1:
            return
        begin = low
        if machine.motion.catches and (around := machine.motion.activations.outermost(low)) is not None:
            begin = around.begin
        here = machine.look(Mark(begin), watch)
        here.close()
        outside = max(0, sum(not frame.is_host for frame in here.frames) - 1)
        at = entries.get(here.frames[0].pc) if here.frames and not here.frames[0].is_host else None
        called = {"entries": list(entries.items()), "most": most, "at": at}
        moment = machine.motion.from_clock(begin, watch)
        raw = machine.motion.ask(moment, {"called": {**called, "begin": begin}, "low": low, "high": high, "clock": high}, watch)
        for index, clock, ended, thrown, depth in raw:
            activation = machine.motion.activations.at(clock)
            if activation is not None and (ended is None or ended >= activation.end):
                # It was the outermost, or was cut off with it.
                returned = activation.closing is not None and machine.motion.activations.returned(activation)
                ended, thrown = (activation.end, True) if returned and activation.end <= high else (None, True)
            values = self._arguments(index, clock, watch) if args else None
            given = self._results(index, ended, watch) if results and ended is not None and not thrown else None
            yield Call(index, Mark(clock), None if ended is None else Mark(ended), outside + depth, values, given)

    def _arguments(self, function: int, clock: int, watch: Watch | None) -> tuple[int | None, ...]:
        here = self.machine.look(Mark(clock), watch)
        here.close()
        return tuple(here.frames[0].locals[: len(self.machine.module.function_type(function).params)])

    def _results(self, function: int, clock: int, watch: Watch | None) -> tuple[int | None, ...] | None:
        """What lies on top of the operands behind a call."""
        count = len(self.machine.module.function_type(function).results)
        here = self.machine.look(Mark(clock), watch)
        here.close()
        if not here.frames or here.frames[0].is_host or len(here.frames[0].operands) < count:
            return None
        operands = here.frames[0].operands
        return tuple(operands[len(operands) - count :])

    def _clocks(self, start: Mark, end: Mark | None) -> tuple[int, int]:
        """The instructions between two marks: [low, high)."""
        total = self.machine.total
        low = max(start.clock + (1 if start.step else 0), 0)
        high = total if end is None else min(end.clock + (1 if end.step else 0), total)
        if end is not None and end < start:
            raise UsageError(f"{end} comes before {start}")
        return low, max(low, high)

    def profile(self, start: Mark = START, end: Mark | None = None, watch: Watch | None = None) -> Profile:
        """The tree of calls between two marks, with instructions counted."""
        machine = self.machine
        machine.know(watch)
        low, high = self._clocks(start, end)
        here = machine.look(Mark(low) if low < machine.total else machine.end, watch)
        outer = [frame.function for frame in reversed(here.frames) if not frame.is_host]
        here.close()
        moment = machine.motion.from_clock(low, watch)
        raw = machine.motion.ask(moment, {"calls": outer, "low": low, "high": high, "clock": high}, watch)
        if outer and here.frames[0].pc in machine.motion.entry_heads(outer[-1]):
            # The guest stands at the beginning of a call.
            node = raw
            for function in outer:
                node = next(child for child in node[3] if child[0] == function)
            node[1] += 1
        root = self._profile(raw)
        missing = (high - low) - root.total
        if missing > 0:
            # What was executed after the last call or return belongs to whoever was on top then.
            _deepest_last(root, raw[4] if len(raw) > 4 else []).own += missing
            root = _totalled(root)
        return root

    def _profile(self, raw: list[Any]) -> Profile:
        function, calls, own, children = raw[:4]
        name = "host" if function < 0 else self.machine.names.name(function)
        made = [self._profile(child) for child in children]
        return Profile(function, name, calls, own, own + sum(child.total for child in made), made)

    # -- memory

    def changes(self, start: Mark, end: Mark, *, memory: int = 0, most: int = MOST, watch: Watch | None = None) -> list[Change]:
        """Bytes of a memory that differ between two marks, neighbours together. Memory grown in between counts as zero before."""
        before = self.machine.look(start, watch)
        try:
            after = self.machine.look(end, watch)
            try:
                return self._changes(before, after, memory, most)
            finally:
                after.close()
        finally:
            before.close()

    def _changes(self, before: Here, after: Here, memory: int, most: int) -> list[Change]:
        if not 0 <= memory < len(self.machine.module.memories):
            raise UsageError(f"the module has no memory {memory}")
        old_pages, new_pages = (here.moment.page_digests(memory, PAGE) for here in (before, after))
        found: list[Change] = []
        for page in range(max(len(old_pages), len(new_pages))):
            if page < min(len(old_pages), len(new_pages)) and old_pages[page] == new_pages[page]:
                continue
            old = before.read(page * PAGE, PAGE, memory).ljust(PAGE, b"\0")
            new = after.read(page * PAGE, PAGE, memory).ljust(PAGE, b"\0")
            for first, last in _runs(old, new):
                address = page * PAGE + first
                previous = found[-1] if found else None
                if previous is not None and previous.address + len(previous.new) == address:
                    found[-1] = Change(memory, previous.address, previous.old + old[first:last], previous.new + new[first:last])
                elif len(found) >= most:
                    return found
                else:
                    found.append(Change(memory, address, old[first:last], new[first:last]))
        return found


def _runs(old: bytes, new: bytes) -> Iterator[tuple[int, int]]:
    """Where two pages of the same size differ."""
    first = None
    for at, (a, b) in enumerate(zip(old, new, strict=True)):
        if a != b and first is None:
            first = at
        elif a == b and first is not None:
            yield first, at
            first = None
    if first is not None:
        yield first, len(old)


def _deepest_last(root: Profile, path: list[int]) -> Profile:
    node = root
    for function in path:
        node = next((child for child in node.children if child.function == function), node)
    return node


def _totalled(node: Profile) -> Profile:
    children = [_totalled(child) for child in node.children]
    return Profile(node.function, node.name, node.calls, node.own, node.own + sum(child.total for child in children), children)


@dataclass(frozen=True)
class Flat:
    """One function, over all paths."""

    name: str
    calls: int
    own: int
    total: int
    """With what it called; a recursive function counts once for each outermost call."""


def flat(profile: Profile) -> list[Flat]:
    """A profile by function, most instructions of its own first."""
    calls: dict[str, int] = {}
    own: dict[str, int] = {}
    total: dict[str, int] = {}

    def visit(node: Profile, above: frozenset[str]) -> None:
        if node.function >= 0 or node.own:
            calls[node.name] = calls.get(node.name, 0) + node.calls
            own[node.name] = own.get(node.name, 0) + node.own
            if node.name not in above:
                total[node.name] = total.get(node.name, 0) + node.total
        for child in node.children:
            visit(child, above | {node.name})

    visit(profile, frozenset())
    return sorted((Flat(name, calls[name], own[name], total.get(name, 0)) for name in own), key=lambda row: (-row.own, row.name))


def folded(profile: Profile) -> Iterator[str]:
    """A profile as folded stacks, a line for each path: what flame graph programs read."""

    def visit(node: Profile, path: str) -> Iterator[str]:
        name = node.name.replace(";", ":").replace(" ", "_")
        here = f"{path};{name}" if path else name
        if node.function < 0:
            here = path
        if node.own:
            yield f"{here or name} {node.own}"
        for child in node.children:
            yield from visit(child, here)

    yield from visit(profile, "")
