"""A replay of the twin: the same records, the same comparisons, and a guest that can be stopped anywhere.

It knows where it is (`begun`: instructions of the guest begun so far), stops at a goal, and lets whoever owns it (`Owner`) look
and decide. What is served, applied and compared is `replayer.replay`'s business and the same as in a plain replay: that is why a
twin that reached the end with the recorded digests is as good as the module it was made from.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final, Protocol

import wasmtime

from recorder.boundary.engine import Engine, Profile
from recorder.boundary.interposer import Description, replaying_interposer
from recorder.boundary.linking import Derived, Wiring
from recorder.boundary.raw import UNREACHABLE, Function, GuestTrap, Raw
from replayer import support
from replayer.cursor import Chunk, Record
from replayer.recorded import Recorded
from replayer.replay import Abandoned, Replay
from replayer.support import REASON_FULL, REASON_HIT, Control
from replayer.twin import BIAS, Twin
from traces.layout import HEADER_SIZE, RING_SCRATCH, Status

FOREVER: Final = 1 << 58
"""A goal no run reaches."""
_UNWIND: Final = -(3 << 61)
_LISTENS: Final = -(BIAS >> 1)
TWIN_STACK: Final = 8
"""How much more native stack a twin gets: its frames are larger."""


class Owner(Protocol):
    """Who owns a replay of a twin, and is asked at every rest. Each method returns when the guest may go on."""

    def at_start(self) -> None:
        """The guest stands ready; nothing has run."""

    def at_head(self, clock: int, pc: int) -> None:
        """At the head of a stretch; `clock` is the mark of its first instruction."""

    def at_event(self, record: Record) -> None:
        """Before a record."""

    def on_log(self, log: bytes) -> None:
        """The log was full and was taken."""

    def on_hit(self, pc: int) -> None:
        """An entry was logged, and hits stop."""

    def on_trap(self, error: BaseException) -> int | None:
        """The guest trapped; returns how many instructions had begun, if that is known."""

    def on_marks(self, first: int, marks: bytes) -> None:
        """A window was used up: the clocks at which its records were served."""


class TwinReplay(Replay):
    """One replay of the twin of a recorded module."""

    def __init__(self, recorded: Recorded, twin: Twin, code: bytes | None, owner: Owner, stack: int) -> None:
        self.twin = twin
        self.owner = owner
        self.goal = FOREVER
        """The clock at which to rest."""
        self.goal_event: int | None = None
        self.listening = False
        self.unwinding = False
        self.fuel: int | None = None
        """The clock at which the recorded run was stopped, once everything before the stop has been served."""
        self.fuel_met = False
        self._native_stack = stack
        self.calls = 0
        """Calls into the guest that have not returned."""
        super().__init__(recorded)
        if code is not None:
            self.engine.adopt(twin.data, code)
        self.cursor.on_load = self._loaded
        self.control: Control
        self._marks: Any = None
        self._left: Any = None
        self._witness: list[wasmtime.Func] = []

    # -- set-up

    def _profile(self) -> Profile:
        recorded = super()._profile()
        return replace(recorded, max_wasm_stack=self._native_stack)

    def _make_engine(self) -> Engine:
        return Engine(self._profile(), one_thread=True)

    def _derive(self) -> Derived:
        return Derived(self.twin.data, ("twin",), self.twin.start, unbounded=True, appended_memories=1)

    def _wiring(self, d: Description, lone: bool = False) -> Wiring:
        if not self._witness:
            self._link_support()
        return Wiring(d, replaying_interposer(d, lone, witnessed=True), self._python_functions(d), witness=self._witness)

    def _link_support(self) -> None:
        """Instantiates the support module, which fills the twin's table."""
        linked, twin = self.linked, self.twin
        self.control = Control(linked.appended[0], twin.layout)
        self._left = linked.export(twin.left)
        module = self.shape.module
        rows = self.cursor.window_size // HEADER_SIZE + 2
        text = support.support_module(module, twin, rows)
        pause = self.machine.host_function(("i32", "i32"), (), self._pause)
        imports = [pause, *(linked.export(name) for name in support.imports_of(module, twin))]
        instance = self.machine.instantiate(self.engine.compile(bytes(wasmtime.wat2wasm(text))), imports)
        self._marks = self.engine.memories.made[-1]
        exports = instance.exports(self.machine.store)
        functions = exports["served"], exports["wrote"]
        self._witness = [function for function in functions if isinstance(function, wasmtime.Func)]
        self.control.target = FOREVER
        self._set_left(FOREVER)
        self.owner.at_start()
        if self.unwinding:
            raise Abandoned
        self.rearm()

    # -- the clock

    def _get_left(self) -> int:
        return int(self._left.value(self.machine.store))

    def _set_left(self, value: int) -> None:
        self._left.set_value(self.machine.store, value)

    @property
    def begun(self) -> int:
        """Instructions begun. Exact whenever the guest is outside, or has just stopped at a head (whose stretch counts)."""
        left = self._get_left()
        return self.control.target - (left + BIAS if left < _LISTENS else left)

    def rearm(self, begun: int | None = None) -> None:
        """Puts the goal, and whether someone listens, into effect."""
        if begun is None:
            begun = self.begun
        if self.listening:
            self.owner.on_log(self.control.take_log())  # its entries count down to the old target
        goal = self.goal if self.fuel is None else min(self.goal, self.fuel)
        self.control.target = goal
        self._set_left(goal - begun - (BIAS if self.listening else 0))
        self.cursor.pause_at(self.goal_event)

    def unwind(self) -> None:
        """Makes every frame write itself down and return, as soon as the owner lets the guest go on."""
        self.unwinding = True
        self.control.reset_dump()
        self._set_left(_UNWIND)

    def _stop_at(self, clock: int) -> None:
        self.fuel = clock
        self.rearm()

    def _stopped_by_clock(self) -> bool:
        return self.fuel_met

    def _clock(self) -> int:
        return self.fuel if self.fuel is not None else self.begun

    # -- rests

    def _pause(self, reason: Raw, pc: Raw) -> None:
        if reason == REASON_FULL:
            self.owner.on_log(self.control.take_log())
            return
        if reason == REASON_HIT:
            self.owner.on_hit(pc)
            return
        index = self.twin.stretches.at(pc)
        begun = self.begun
        clock = begun - self.twin.stretches.counts[index]
        if self.fuel is not None and clock >= self.fuel and not self.unwinding:
            if self.goal <= clock:
                self.owner.at_head(clock, pc)
            if not self.unwinding:
                self.fuel_met = True
                self.rearm(clock)  # what the stretch would have begun was not begun
                raise GuestTrap(UNREACHABLE, "stopped by its clock")
            return
        self.owner.at_head(clock, pc)
        if not self.unwinding:
            self.rearm(begun)

    def _reach(self, record: Record) -> None:
        if self.goal_event is not None and record.seq >= self.goal_event:
            self.owner.at_event(record)
            if self.unwinding:
                raise Abandoned
            self.rearm()

    def _invoke(self, function: Function, args: list[Raw]) -> list[Raw]:
        self.calls += 1
        nested = self.control.calls
        try:
            answers = self.machine.call(function, args)
        except BaseException:
            self.control.calls = nested
            raise
        finally:
            self.calls -= 1
        if self.unwinding:
            raise Abandoned
        if self.fuel is not None and self.begun >= self.fuel:
            # The recorded guest was stopped on its way out, where the twin has no check: nothing more was begun.
            self.fuel_met = True
            raise GuestTrap(UNREACHABLE, "stopped by its clock")
        return answers

    def _slow(self, index: Raw) -> None:
        try:
            super()._slow(index)
        except Abandoned:
            # The frames above have returned; those below are to follow, so the call returns too, with zeroes.
            entry = self.imports[index]
            self.control.foreign_frame(index)
            self._set_left(_UNWIND)
            zeroes = bytes(16 * max(1, len(entry.results)))
            self.cursor.memory.write(RING_SCRATCH, zeroes)

    def _expect_unwinding(self, record: Record, error: BaseException) -> None:
        if isinstance(error, GuestTrap) and not self.fuel_met:
            begun = self.owner.on_trap(error)
            if begun is not None:
                self.rearm(begun)
        self._reach_next()
        super()._expect_unwinding(record, error)

    def _expect_return(self, record: Record, function: Function | None, answers: Sequence[Raw]) -> None:
        if record.status is not Status.COMPLETE:
            self._reach_next()
        super()._expect_return(record, function, answers)

    def _reach_next(self) -> None:
        """How a call of the guest ended is a record, too: the guest is outside, and the record stands before the replay."""
        found = self.cursor.peek()
        if found is not None:
            self._reach(found)

    # -- records

    def _loaded(self, window: Any) -> None:
        if self._marks is None:
            return
        self.flush_marks()
        self._marks_first = window.first
        self.control.next_mark(0)
        self.control.window_first(window.first)

    _marks_first = 0

    def flush_marks(self) -> None:
        """Gives the owner the clocks of the records served since the window was loaded."""
        count = self.control.next_mark_place
        if count:
            self.owner.on_marks(self._marks_first, self._marks.read(0, count * 8))

    def _advance(self, record: Record) -> None:
        place = record.seq - self._marks_first
        ctypes.c_uint64.from_address(self._marks.base + place * 8).value = self.begun
        self.control.next_mark(place + 1)
        super()._advance(record)

    def _wrote(self, record: Record, chunk: Chunk) -> None:
        if self.control.log_room < 2 * len(chunk.data) + 4096:
            self.owner.on_log(self.control.take_log())
        if self.control.host_wrote(record.seq, self._get_left(), chunk.memory, chunk.address, chunk.data):
            self.owner.on_hit(-1)
