"""Where a replay parted from its recording, taken apart: both sides of it, value by value and byte by byte.

Nothing is decided here: the difference was found before, and whatever a damaged record does not tell is left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from recorder.boundary.raw import Raw
from replayer.verdict import Sent, Side
from traces._errors import TraceError
from traces.layout import VALUE_SIZE, Kind, values_size

if TYPE_CHECKING:
    from recorder.boundary.memories import HostMemory
    from replayer.cursor import Record
    from traces.manifest import Import

KEPT: Final = 2048
"""Bytes of a piece that are kept. A verdict is printed, and sent between processes; payloads can be megabytes."""
_BEFORE: Final = 256
_LONGEST: Final = 64
Values = list[tuple[str, Raw]]


def typed(record: Record, at: int, types: Sequence[str]) -> Values:
    """The values that stand in a record's body from `at` on."""
    if at + values_size(tuple(types)) > len(record.body):
        raise record.malformed("it is too short for its values")
    values = []
    for t in types:
        width = VALUE_SIZE[t]
        values.append((t, int.from_bytes(record.body[at : at + width], "little")))
        at += width
    return values


def called(entry: Import, args: Values) -> Side:
    """A call of an import."""
    return Side("call", entry.qualified, _named(args, "argument", entry.names))


def returned(name: str, results: Values) -> Side:
    """The return of an export, or of an import."""
    return Side("return", name, _named(results, "result"))


def recorded(imports: Sequence[Import], record: Record | None, text: str) -> Side:
    """What the recording holds there, as far as its kind tells how to read it; `text` says it in words."""
    if record is None:
        return Side("end")
    entry = imports[record.index] if record.index < len(imports) else None
    try:
        sent = _sent(record, entry)
        if record.kind is Kind.CALL and entry is not None:
            return replace(called(entry, typed(record, 0, entry.params)), sent=sent)
        if record.kind is Kind.RETURN and entry is not None:
            return replace(returned(entry.qualified, typed(record, 0, entry.results)), sent=sent)
    except TraceError:
        sent = ()  # the difference does not lie in what cannot be read
    return Side(record.kind.name.lower(), sent=sent, text=text)


def both(
    imports: Sequence[Import], memories: Sequence[HostMemory], record: Record, text: str, args: Values | None
) -> tuple[Side, Side]:
    """A recorded event, and the same one by the guest as it is now: with these arguments, and the bytes it would hand out."""
    was = recorded(imports, record, text)
    values = was.values if args is None else _named(args, "argument", imports[record.index].names)
    # What is handed out lies where an argument says, so it moves with it.
    moved = {old[2]: new[2] for old, new in zip(was.values, values, strict=True)}
    pairs = [_aligned(piece, _there(memories, piece, moved)) for piece in was.sent]
    now = replace(was, values=values, sent=tuple(pair[1] for pair in pairs))
    return replace(was, sent=tuple(pair[0] for pair in pairs)), now


def first_run(was: bytes, now: bytes) -> tuple[int, int]:
    """Where the two first differ, and how far that goes; (n, n) if one is the beginning of the other, n bytes long."""
    common = min(len(was), len(now))
    first = next((i for i in range(common) if was[i] != now[i]), common)
    end = first
    while end < min(common, first + _LONGEST) and was[end] != now[end]:
        end += 1
    return first, end


def _named(values: Values, what: str, names: Sequence[str] = ()) -> tuple[tuple[str, str, int], ...]:
    """Values with their names, else with their numbers."""
    return tuple(
        (names[i] if i < len(names) else what if what == "result" and len(values) == 1 else f"{what} {i}", kind, bits)
        for i, (kind, bits) in enumerate(values)
    )


def _sent(record: Record, entry: Import | None) -> tuple[Sent, ...]:
    """The pieces of memory a record says the guest handed out."""
    if record.kind in (Kind.POKE, Kind.DATA):
        fixed = 0
    elif record.kind is Kind.CALL and entry is not None:
        fixed = values_size(entry.params) + values_size(entry.results)
    elif record.kind is Kind.RETURN and entry is not None:
        fixed = values_size(entry.results)
    else:
        return ()
    return tuple(Sent(chunk.memory, chunk.address, chunk.data) for chunk in record.chunks(fixed) if chunk.sent)


def _there(memories: Sequence[HostMemory], piece: Sent, moved: Mapping[int, int]) -> Sent:
    """What the guest has where a recorded piece was."""
    address = moved.get(piece.address, piece.address)
    memory = memories[piece.memory] if piece.memory < len(memories) else None
    length = 0 if memory is None else max(0, min(len(piece.data), memory.size - address))
    return Sent(piece.memory, address, memory.read(address, length) if memory is not None and length else b"")


def _aligned(was: Sent, now: Sent) -> tuple[Sent, Sent]:
    """Both, cut to the same stretch around their first difference."""
    if max(len(was.data), len(now.data)) <= KEPT:
        return was, now
    start = max(0, min(first_run(was.data, now.data)[0] - _BEFORE, len(was.data) - KEPT)) & ~15
    return _cut(was, start), _cut(now, start)


def _cut(piece: Sent, start: int) -> Sent:
    return Sent(piece.memory, piece.address + start, piece.data[start : start + KEPT])
