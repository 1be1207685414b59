"""What a station collects while its guest runs and is listened to: hits of breakpoints and watchpoints, or a tree of calls.

A scan is described by a message, so that the machine can send it:

    heads     [[pc of a stretch's head, [pc, …]], …]: report these instructions when they are about to be begun
    memory    [memory, low, high]: report writes to [low, high) (memory -1: to any)
    global    index: report changes of this global (-1: of any)
    depth     [limit, heads only where calls are nested no deeper]; 0 is where the scan begins
    low, high clocks between which a hit counts: low <= clock < high
    keep      "first", "last" or "all"; `most` is how many
    calls     the functions on the stack at `low`, outermost first: a tree of calls instead of hits
    called    calls of certain functions, with their ends, instead of hits: see `replayer.callscan`
    trap      true: tell where the guest traps

A hit is [clock, pc, kind, event, memory, address, bytes in hex, depth]; for a host's write pc is -1 and the event is given,
otherwise the event is -1. What the guest writes behind the head at which a scan comes to rest is not told: it has not got there.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, Final

from replayer.calls import CallTree
from replayer.callscan import CallList
from replayer.support import DEPTH, FLAG_LOG, Control, Entry, entries
from replayer.twin import BIAS, HEAD_AFTER_CALL, HEAD_CALLS, HEAD_ENTRY, HEAD_LANDING

if TYPE_CHECKING:
    from replayer.fragments import Details
    from replayer.twinreplay import TwinReplay
    from replayer.wire import Message

_LISTENS: Final = -(BIAS >> 1)
ALL: Final = (1 << 31) - 1
_FOREVER: Final = 1 << 62


class Scan:
    """One scan under way."""

    def __init__(self, message: Message, replay: TwinReplay, details: Details) -> None:
        self.replay = replay
        self.details = details
        self.first = message.get("keep") == "first"
        self.trap = bool(message.get("trap"))
        self._low = message.get("low", 0)
        high = message.get("high")
        self._high = _FOREVER if high is None else high
        self._most = message.get("most", 1)
        self._heads: dict[int, list[tuple[int, int]]] = dict(message.get("heads", ()))
        """Instructions by the head of their stretch, with how many stand before each."""
        self._memory = message.get("memory")
        self._global = message.get("global")
        self._depth = message.get("depth")
        self._tree: CallTree | CallList | None = None
        if message.get("calls") is not None:
            self._tree = CallTree(message["calls"], self._low, self._high)
        elif message.get("called") is not None:
            self._tree = CallList(message["called"], self._low, self._high)
        self._hits: deque[list[Any]] = deque(maxlen=self._most if message.get("keep") == "last" else None)
        self._ordinals: dict[int, int] = {}
        self.overflowed = False

    def listen(self, control: Control, position: Message) -> None:
        """Makes the guest, which rests at this position, report what this scan wants to know."""
        stretches = self.replay.twin.stretches
        follow = HEAD_CALLS | HEAD_AFTER_CALL if self._depth is not None or self._tree is not None else 0
        flags = bytearray(control.layout.log - control.layout.flags)
        if follow:
            for pc, head in stretches.marked:
                flags[pc] |= head & follow
                if self._tree is not None and head & (HEAD_ENTRY | HEAD_AFTER_CALL | HEAD_LANDING):
                    flags[pc] |= FLAG_LOG
        for pc in self._heads:
            flags[pc] |= FLAG_LOG
        control.set_flags(flags)
        inside = 0
        if position["kind"] == "head":
            # The head at which the guest rests has been passed already: what it would have reported is made up for here.
            inside = int(bool(follow and stretches.heads[stretches.at(position["pc"])] & HEAD_CALLS))
            for pc, ordinal in self._heads.get(position["pc"], ()) if self._depth is None or self._depth >= 0 else ():
                clock = position["clock"] + ordinal
                self._hit(clock, Entry(0, position["pc"], -1, "head", 0, 0, b"", 0), pc)
        control.set_depth(inside, self._depth if self._depth is not None else ALL)
        if self._memory is not None:
            control.watch_memory(*self._memory)
        if self._global is not None:
            control.watch_global(self._global)
        control.stop_on_hits(self.first)

    @property
    def done(self) -> bool:
        return self.first and len(self._hits) >= self._most

    def take(self, log: bytes) -> None:
        """What was logged since the last time."""
        target = self.replay.control.target
        if self._tree is not None:
            self._tree.take(log, target + 0, self.replay.twin, self.details)
            return
        for entry in entries(log):
            self._take(entry, target)
            if self.done:
                return

    def _take(self, entry: Entry, target: int) -> None:
        real = entry.left + BIAS if entry.left < _LISTENS else entry.left
        begun = target - real
        if entry.pc < 0:
            self._hit(begun - 1, entry, -1)
            return
        stretches = self.replay.twin.stretches
        head = begun - stretches.counts[stretches.at(entry.pc)]
        if entry.kind == "head":
            for pc, ordinal in self._heads.get(entry.pc, ()):
                self._hit(head + ordinal, entry, pc)
        else:
            self._hit(head + self._ordinal(entry.pc), entry, entry.pc)

    def _ordinal(self, pc: int) -> int:
        found = self._ordinals.get(pc)
        if found is None:
            found = self._ordinals[pc] = self.details.ordinal(pc)
        return found

    def _hit(self, clock: int, entry: Entry, pc: int) -> None:
        if not self._low <= clock < self._high or self.done:
            return
        depth = entry.address if entry.kind == "head" else 0
        address = 0 if entry.kind == "head" else entry.address
        self._hits.append([clock, pc, entry.kind, entry.event, entry.memory, address, entry.data.hex(), depth])
        if self._hits.maxlen is None and len(self._hits) > self._most:
            self._hits.pop()
            self.overflowed = True

    def depth_here(self, position: Message) -> int:
        """How deep calls are nested where the guest rests now, as heads are told: its stretch's own call not included."""
        depth = self.replay.control.word(DEPTH)
        if position["kind"] == "head":
            stretches = self.replay.twin.stretches
            depth -= int(bool(stretches.heads[stretches.at(position["pc"])] & HEAD_CALLS))
        return depth

    def result(self) -> Any:
        if self._tree is not None:
            return self._tree.result()
        return list(self._hits)
