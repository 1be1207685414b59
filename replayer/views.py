"""Execution as SQL: `calls('function')` and `writes(address, length)` in `reprise query`, computed by running the guest.

Answers are kept in the user's private cache, by the trace's manifest and the question, never in the trace.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from recorder.boundary import cache
from recorder.boundary.engine import engine_version
from replayer.twin import TWIN_VERSION
from traces._errors import UsageError
from traces.tracedir import MANIFEST

if TYPE_CHECKING:
    from replayer.machine import TimeMachine
    from replayer.watching import Watch

VIEWS_VERSION: Final = 1
_CALLS: Final = pa.schema(
    [
        pa.field("function", pa.int64()),
        pa.field("name", pa.string()),
        pa.field("mark", pa.int64()),
        pa.field("end_mark", pa.int64()),
        pa.field("instructions", pa.int64()),
        pa.field("depth", pa.int64()),
    ]
)
_WRITES: Final = pa.schema(
    [
        pa.field("mark", pa.int64()),
        pa.field("step", pa.int64()),
        pa.field("by", pa.string()),
        pa.field("event", pa.int64()),
        pa.field("memory", pa.int64()),
        pa.field("address", pa.int64()),
        pa.field("old", pa.binary()),
        pa.field("new", pa.binary()),
        pa.field("function", pa.string()),
        pa.field("where", pa.string()),
        pa.field("pc", pa.int64()),
    ]
)


def functions(trace: Path, watch: Watch | None = None) -> Mapping[str, Callable[[list[str | int]], pa.Table]]:
    """What SQL over this trace may call, by name. `watch` is told how far the guest is, and may raise Cancelled."""
    return {name: partial(_answered, trace, name, watch) for name in ("calls", "writes")}


def _answered(trace: Path, name: str, watch: Watch | None, args: list[str | int]) -> pa.Table:
    versions = f"{VIEWS_VERSION} {TWIN_VERSION} {engine_version()}"
    key = f"{versions} {name}{args!r} ".encode() + (trace / MANIFEST).read_bytes()
    known = cache.load("views", key)
    if known is not None:
        return pq.read_table(pa.BufferReader(known))
    from replayer.machine import TimeMachine

    with TimeMachine(trace) as machine:
        machine.require_proof(watch)
        table = (_calls if name == "calls" else _writes)(machine, args, watch)
    out = pa.BufferOutputStream()
    pq.write_table(table, out)
    cache.save("views", key, out.getvalue().to_pybytes())
    return table


def _calls(machine: TimeMachine, args: list[str | int], watch: Watch | None) -> pa.Table:
    if len(args) != 1:
        raise UsageError("calls takes one function: calls('name'), calls('glob*') or calls(12)")
    imported = machine.module.imported.functions
    wanted = [index for index in machine.names.find(str(args[0])) if index >= imported]
    if not wanted:
        raise UsageError(f"calls('{args[0]}'): that is imported; its calls are rows of events")
    rows: list[dict[str, Any]] = []
    for call in machine.history.calls(wanted, watch=watch):
        end = None if call.end is None else call.end.clock
        rows.append(
            {
                "function": call.function,
                "name": machine.names.name(call.function),
                "mark": call.mark.clock,
                "end_mark": end,
                "instructions": None if end is None else end - call.mark.clock,
                "depth": call.depth,
            }
        )
    return pa.Table.from_pylist(rows, schema=_CALLS)


def _writes(machine: TimeMachine, args: list[str | int], watch: Watch | None) -> pa.Table:
    if not 1 <= len(args) <= 3 or not all(isinstance(arg, int) for arg in args):
        raise UsageError("writes takes numbers: writes(address), writes(address, length) or writes(address, length, memory)")
    address, length, memory = (*(int(arg) for arg in args), *(1, 0)[len(args) - 1 :])
    rows = []
    for write in machine.history.writes(address, length, memory=memory, watch=watch):
        rows.append(
            {
                "mark": write.mark.clock,
                "step": write.mark.step,
                "by": write.by,
                "event": write.event,
                "memory": write.memory,
                "address": write.address,
                "old": write.old,
                "new": write.new,
                "function": write.function or None,
                "where": write.where or None,
                "pc": write.pc,
            }
        )
    return pa.Table.from_pylist(rows, schema=_WRITES)
