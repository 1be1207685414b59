"""Calls that can have happened only once in their frame: found from the front.

Where a frame was entered is looked for backward, and mostly lies near. The frames around a whole program lie as far away as they
can: between a place in its middle and the call of `main` there is half of the execution, all of which would have to be listened
to. But a call that stands in no loop happens at most once while its function runs. So the outermost frame, which began with the
call from outside, began the next one with the first such call, and so on inward; each is found as soon as it is come to.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from recorder.wasm import instructions as ops
from recorder.wasm.disassembly import disassemble
from replayer.marks import Mark

if TYPE_CHECKING:
    from replayer.activations import Activation
    from replayer.look import Frame
    from replayer.motion import Motion
    from replayer.watching import Watch

_TAIL_CALLS: Final = (ops.RETURN_CALL, ops.RETURN_CALL_INDIRECT, ops.RETURN_CALL_REF)
_OPENS: Final = (ops.BLOCK, ops.LOOP, ops.IF, ops.TRY_TABLE)


class OnceCalls:
    """Finds them, for one machine's motions."""

    def __init__(self, motion: Motion) -> None:
        self._motion = motion
        self._single: dict[int, frozenset[int]] = {}

    def call(self, chain: Sequence[Frame], activation: Activation, before: int, watch: Watch | None) -> Mark | None:
        """When the last of these frames made the call in which it stands; None if that cannot be told so.

        `chain` is the outermost frame of an activation, the next one inward, and so on. `before` is a clock at which they stand.
        """
        begin = activation.begin
        for frame in chain:
            if frame.pc not in self.single(frame.function):
                return None
            here = self._motion.machine.look(Mark(begin), watch)
            here.close()
            entered = here.frame
            if entered is None or entered.function != frame.function or here.mark.step:
                return None
            called = self._first(frame.pc, begin, before, watch)
            if called is None:
                return None
            begin = called + 1
        return Mark(begin - 1) if chain else None

    def _first(self, pc: int, low: int, high: int, watch: Watch | None) -> int | None:
        """The first time that an instruction is begun in the frame that begins at clock `low`."""
        motion = self._motion
        message = {"heads": motion.heads([pc]), "depth": 0, "low": low, "high": high, "clock": high, "keep": "first", "most": 1}
        found = motion.ask(motion.from_clock(low, watch), message, watch)
        return found[0][0] if found else None

    def single(self, function: int) -> frozenset[int]:
        """The places of a function that are begun at most once while it runs; none of one that may hand its frame on."""
        known = self._single.get(function)
        if known is None:
            known = self._single[function] = self._outside_loops(function)
        return known

    def _outside_loops(self, function: int) -> frozenset[int]:
        found = []
        blocks: list[int] = []
        loops = 0
        for line in disassemble(self._motion.machine.module, function):
            if line.opcode in _TAIL_CALLS:
                return frozenset()
            if line.opcode in _OPENS:
                blocks.append(line.opcode)
                loops += line.opcode == ops.LOOP
            elif line.opcode == ops.END and blocks:
                loops -= blocks.pop() == ops.LOOP
            elif not loops:
                found.append(line.pc)
        return frozenset(found)
