"""What the commands of the time machine print: a moment, a stop, a write, as text for people and as JSON."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

from recorder.wasm.disassembly import disassemble
from replayer.history import Change, Write
from replayer.look import Frame, Here
from replayer.machine import TimeMachine
from replayer.motion import Stop
from traces.render import WASI, Filter, events, pieces, written

SHOWN_FRAMES: Final = 24
SHOWN_VALUES: Final = 24
AROUND: Final = 3
_ROW: Final = 16
WRITE: Final = f"{WASI}fd_write"


def here_lines(here: Here, level: int = 0) -> Iterator[str]:
    """A moment: where, which event, frames with their variables, source and instructions around those of one frame."""
    machine = here.machine
    total = machine.total
    share = f" ({here.mark.clock * 100 // total} %)" if total and here.mark.clock >= 0 else ""
    yield f"mark {here.mark} of {total:,}{share}, {here.events:,} of {machine.events:,} events have happened"
    event = event_at(here)
    if event is not None:
        yield f"event {event['seq']}  {event['import'] or event['kind']}  {event['detail'] or ''}".rstrip()
    if not here.frames:
        yield "the guest is not running here"
    for frame in here.frames[:SHOWN_FRAMES]:
        yield from frame_lines(frame)
    if here.depth > min(len(here.frames), SHOWN_FRAMES):
        yield f"… and {here.depth - min(len(here.frames), SHOWN_FRAMES):,} more frames"
    if level < len(here.frames) and not here.frames[level].is_host:
        yield from source_lines(here.frames[level])
        yield from code_lines(here.frames[level])


def event_at(here: Here) -> dict[str, Any] | None:
    """The event that happens at this mark, if one does."""
    machine = here.machine
    if here.events < machine.clocks.known and machine.mark_of(here.events) == here.mark:
        return next(iter(events(machine.trace, Filter(first=here.events, last=here.events))))
    return None


def frame_lines(frame: Frame) -> Iterator[str]:
    for inlined in frame.inlined:
        where = f" at {inlined.location.file}:{inlined.location.line}" if inlined.location is not None else ""
        yield f"#{frame.level}  {inlined.name}{where} (inlined)"
    yield f"#{frame.level}  {frame.describe()}"
    if frame.variables:
        for value in frame.variables[:SHOWN_VALUES]:
            yield f"      {value.name} = {value.text}  ({value.type_name})"
        return
    shown = [f"{i}={local_text(frame, i)}" for i in range(min(len(frame.locals), SHOWN_VALUES))]
    if shown:
        yield "      locals " + " ".join(shown) + (" …" if len(frame.locals) > SHOWN_VALUES else "")


def local_text(frame: Frame, index: int) -> str:
    """A local of the module's, by its type."""
    return value_text(frame.types[index] if index < len(frame.types) else "i64", frame.locals[index])


def value_text(kind: str, bits: int | None) -> str:
    if bits is None:
        return "?"
    if kind in ("i32", "i64"):
        width = 32 if kind == "i32" else 64
        return str(bits - (1 << width) if bits >> (width - 1) else bits)
    if kind in ("f32", "f64", "v128"):
        return f"{bits:#x}"
    return "null" if bits == 0 else "ref"


def source_lines(frame: Frame) -> Iterator[str]:
    location = frame.location
    source = frame.here.machine.source
    if location is None or source is None:
        return
    text = source.text(location.file)
    if text is None:
        return
    first = max(1, location.line - AROUND)
    for number in range(first, min(len(text), location.line + AROUND) + 1):
        yield f"{'▶' if number == location.line else ' '} {number:5}  {text[number - 1]}"


def code_lines(frame: Frame) -> Iterator[str]:
    lines = disassemble(frame.here.machine.module, frame.function)
    position = next((i for i, line in enumerate(lines) if line.pc == frame.pc), None)
    if position is None:
        return
    for line in lines[max(0, position - AROUND) : position + AROUND + 1]:
        yield f"{'▶' if line.pc == frame.pc else ' '} {line.pc:#08x}  {'  ' * min(line.depth, 12)}{line.text}"
    if frame.operands:
        yield "      operands " + " ".join("?" if bits is None else f"{bits:#x}" for bits in frame.operands)


def memory_lines(data: bytes, address: int) -> Iterator[str]:
    """Bytes in hexadecimal and as text."""
    for at in range(0, len(data), _ROW):
        row = data[at : at + _ROW]
        text = "".join(chr(byte) if 0x20 <= byte < 0x7F else "." for byte in row)
        yield f"{address + at:#010x}  {row.hex(' '):<{_ROW * 3 - 1}}  {text}"


def output_of(here: Here) -> Iterator[tuple[int, int, bytes]]:
    """(event, descriptor, bytes) of what the guest had written to stdout and stderr by this moment."""
    began: dict[int, dict[str, Any]] = {}
    """Writes during which the guest was called back: the answer stands in an event of its own."""
    for row in events(here.machine.trace, Filter(last=here.events - 1)) if here.events else ():
        if row["import"] == WRITE and row["args"][0] in (1, 2):
            began[row["seq"]] = {**row, "carried": pieces(row["record"], row["chunks_at"])}
        if (call := began.get(row["of"] if row["of"] is not None else row["seq"])) is None:
            continue
        if row["seq"] != call["seq"]:
            call["carried"] += pieces(row["record"], row["chunks_at"])
            call["status"] = row["status"] if row["kind"] == "return" else call["status"]
        if call["status"] != "open":
            del began[call["seq"]]
            if call["status"] == "ok":
                yield call["seq"], call["args"][0], written(call["args"], call["carried"], 3)


def output_lines(here: Here) -> Iterator[str]:
    """What the guest had written, line by line, stderr marked."""
    for descriptor in (1, 2):
        data = b"".join(data for _, to, data in output_of(here) if to == descriptor)
        name = {1: "stdout", 2: "stderr"}[descriptor]
        yield from (f"{name}  {line}" for line in data.decode("utf-8", "backslashreplace").splitlines())


def change_lines(found: Sequence[Change]) -> Iterator[str]:
    """Bytes that differ between two marks."""
    for change in found:
        memory = f"{change.memory}/" if change.memory else ""
        yield f"{memory}{change.address:#010x}:{len(change.new)}  {short(change.old)} → {short(change.new)}"


def here_json(here: Here) -> dict[str, Any]:
    machine = here.machine
    return {
        "schema": "reprise.moment/1",
        "mark": here.mark.clock,
        "step": here.mark.step,
        "text": str(here.mark),
        "total": machine.total,
        "events": here.events,
        "depth": here.depth,
        "frames": [frame_json(frame) for frame in here.frames],
        "globals": [f"{bits:#x}" for bits in here.globals],
        "memories": here.memory_sizes,
        "notes": machine.notes,
    }


def frame_json(frame: Frame) -> dict[str, Any]:
    location = frame.location
    return {
        "function": None if frame.is_host else frame.function,
        "name": frame.name,
        "pc": None if frame.is_host else f"{frame.pc:#x}",
        "instruction": frame.instruction,
        "file": None if location is None else location.file,
        "line": None if location is None else location.line,
        "inlined": [inlined.name for inlined in frame.inlined],
        "locals": [None if bits is None else f"{bits:#x}" for bits in frame.locals],
        "operands": [None if bits is None else f"{bits:#x}" for bits in frame.operands],
        "variables": [{"name": v.name, "type": v.type_name, "value": v.text, "status": v.status} for v in frame.variables],
    }


def stop_line(machine: TimeMachine, stop: Stop, here: Here) -> str:
    where = here.frame.describe() if here.frame is not None else "the guest is not running"
    event = f"  event {stop.event}" if stop.event is not None else ""
    wrote = f"  wrote {short(stop.new)} over {short(stop.old)} at {stop.address:#x}" if stop.address is not None else ""
    return f"mark {stop.mark}  {stop.reason}{event}{wrote}  {where}"


def stop_json(stop: Stop, here: Here) -> dict[str, Any]:
    return {
        "mark": stop.mark.clock,
        "step": stop.mark.step,
        "reason": stop.reason,
        "hit": stop.hit.clock,
        "event": stop.event,
        "pc": None if stop.pc is None else f"{stop.pc:#x}",
        "address": None if stop.address is None else f"{stop.address:#x}",
        "old": stop.old.hex() if stop.address is not None else None,
        "new": stop.new.hex() if stop.address is not None else None,
        "where": here.frame.describe() if here.frame is not None else None,
    }


def write_lines(machine: TimeMachine, write: Write) -> Iterator[str]:
    if write.by == "module":
        yield "start  written by the module itself (a data segment)"
    elif write.by == "host":
        row = next(iter(events(machine.trace, Filter(first=write.event, last=write.event))))
        yield f"mark {write.mark}  written by the host, in event {write.event} {row['import'] or row['kind']}"
    else:
        yield f"mark {write.mark}  written by {write.function} +{write.pc:#x}"
    if write.where:
        yield f"  where   {write.function} at {write.where}"
        text = _line_of(machine, write.where)
        if text:
            yield f"  line    {text}"
    if write.by != "module":
        yield f"  before  {short(write.old)}"
    yield f"  after   {short(write.new)}"
    for level, frame in enumerate(write.frames[:8]):
        yield f"  {'stack ' if level == 0 else '      '}  {frame}"


def _line_of(machine: TimeMachine, where: str) -> str:
    """The text of a source line, if the file is at hand."""
    file, _, line = where.rpartition(":")
    text = machine.source.text(file) if machine.source is not None else None
    return text[int(line) - 1].strip() if text and 0 < int(line) <= len(text) else ""


def write_json(machine: TimeMachine, write: Write) -> dict[str, Any]:
    return {
        "mark": write.mark.clock,
        "step": write.mark.step,
        "by": write.by,
        "memory": write.memory,
        "address": f"{write.address:#x}",
        "old": write.old.hex(),
        "new": write.new.hex(),
        "pc": None if write.pc is None else f"{write.pc:#x}",
        "event": write.event,
        "function": write.function,
        "where": write.where,
        "line": _line_of(machine, write.where) if write.where else "",
        "frames": list(write.frames),
    }


def short(data: bytes) -> str:
    """A few bytes, in hexadecimal and, where it is text, as text."""
    cut = data[:32]
    more = "…" if len(data) > 32 else ""
    printable = cut and all(0x20 <= byte < 0x7F for byte in cut.rstrip(b"\0")) and cut.rstrip(b"\0")
    text = f'  "{cut.rstrip(bytes(1)).decode()}"' if printable else ""
    return f"{cut.hex(' ')}{more}{text}"
