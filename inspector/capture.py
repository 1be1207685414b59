"""Snapshots of the guest: plain values, taken from it where it stands, with what they were at the stop before.

The recording may be hostile: names and texts are escaped here.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from inspector.snapshot import CodeLine, CodeText, FrameDetail, FrameHead, Snapshot, SourceText, ValueRow
from replayer.marks import Mark
from traces.cli import one_line

if TYPE_CHECKING:
    from replayer.look import Frame, Here
    from replayer.source.values import Value

_SHOWN: Final = 200
"""Locals and operands."""
_MOST_VALUES: Final = 2000


class Capture:
    """Takes snapshots, and remembers the values of the stop before and which are opened."""

    def __init__(self) -> None:
        self._values: dict[tuple[str, ...], str] = {}
        """Values shown at this stop, by function and path."""
        self._previous: dict[tuple[str, ...], str] = {}
        """Those of the stop before."""
        self._expanded: set[tuple[str, ...]] = set()
        self._texts: dict[int, tuple[CodeLine, ...]] = {}

    def turn(self) -> None:
        """The guest is elsewhere: what was shown is what was before."""
        self._previous = self._values or self._previous
        self._values = {}

    def toggle(self, path: tuple[str, ...]) -> None:
        """Shows what a value is made of, or no longer."""
        self._expanded.symmetric_difference_update((path,))

    def snapshot(self, here: Here, level: int, before: Mark | None) -> Snapshot:
        """The guest at one mark, with one of its frames in full."""
        machine = here.machine
        event = None
        if here.events < machine.clocks.known and machine.mark_of(here.events) == here.mark:
            event = here.events
        heads = tuple(_head(frame) for frame in here.frames)
        return Snapshot(
            here.mark, here.events, event, heads, here.depth, self._globals(here), tuple(here.memory_sizes), here.at_end,
            self.detail(here, level) if heads else None, before,
        )  # fmt: skip

    def _globals(self, here: Here) -> tuple[ValueRow, ...]:
        from replayer.looking import value_text

        kinds = [found.value for found in here.machine.module.globals]
        return tuple(
            self._row(("global",), f"global {i}", kinds[i], value_text(kinds[i], bits)) for i, bits in enumerate(here.globals)
        )

    def detail(self, here: Here, level: int) -> FrameDetail:
        """One frame in full; of a level that is not there, the outermost."""
        level = min(level, len(here.frames) - 1)
        if level < 0:
            return FrameDetail(0, (), None, "", None)
        frame = here.frames[level]
        source, missing = self._source(frame)
        return FrameDetail(level, tuple(self._frame_values(frame)), source, missing, self._code(frame))

    def _source(self, frame: Frame) -> tuple[SourceText | None, str]:
        location, known = frame.location, frame.here.machine.source
        if location is None or known is None:
            return None, ""
        lines = known.text(location.file)
        if lines is None:
            return None, one_line(location.file)
        return SourceText(one_line(location.file), location.line, lines, known.text_is_current(location.file)), ""

    def _code(self, frame: Frame) -> CodeText | None:
        if frame.is_host:
            return None
        lines = self._texts.get(frame.function)
        if lines is None:
            from recorder.wasm.disassembly import disassemble

            lines = tuple(
                CodeLine(line.pc, line.depth, line.text) for line in disassemble(frame.here.machine.module, frame.function)
            )
            self._texts[frame.function] = lines
        return CodeText(frame.function, one_line(frame.name), frame.pc, lines)

    def _frame_values(self, frame: Frame) -> list[ValueRow]:
        """Variables, opened as far as they are wanted open; without any, what the module itself has."""
        from replayer.looking import local_text

        scope = (one_line(frame.name),)
        rows: list[ValueRow] = []
        seen: set[str] = set()
        for value in frame.variables:
            if value.name not in seen:  # the innermost of that name hides the others
                seen.add(value.name)
                self._add_value(rows, scope, value)
        if not frame.variables:
            for i in range(min(len(frame.locals), _SHOWN)):
                kind = frame.types[i] if i < len(frame.types) else ""
                rows.append(self._row(scope, f"local {i}", kind, local_text(frame, i)))
        if frame.level == 0:
            for i, bits in enumerate(frame.operands[:_SHOWN]):
                text = "?" if bits is None else f"{bits:#x}"
                row = self._row(scope, f"operand {i}", "", text)
                rows.append(replace(row, was=None))
        return rows

    def _add_value(self, rows: list[ValueRow], above: tuple[str, ...], value: Value) -> None:
        if len(rows) >= _MOST_VALUES:
            return
        path = (*above, one_line(value.name))
        row = self._row(above, path[-1], one_line(value.type_name), one_line(value.text))
        pointer = value.type_name.rstrip().endswith(("*", "&")) or value.type_name.startswith(("&", "*"))
        target = int.from_bytes(value.raw, "little") if pointer and value.raw is not None and len(value.raw) <= 8 else None
        length = len(value.raw) if value.raw is not None else 1
        row = replace(
            row, address=value.address, length=max(1, length), target=target, expandable=value.expand is not None,
            expanded=path in self._expanded and value.expand is not None, available=value.status == "ok",
        )  # fmt: skip
        rows.append(row)
        if row.expanded:
            children = value.children
            # Behind a pointer lies one thing: its members are shown at once.
            if len(children) == 1 and children[0].expand is not None and children[0].name.startswith("*"):
                children = children[0].children
            for child in children:
                self._add_value(rows, path, child)

    def _row(self, above: tuple[str, ...], name: str, type_name: str, text: str) -> ValueRow:
        """A row, with what the value was at the stop before."""
        path = (*above, name)
        self._values[path] = text
        old = self._previous.get(path)
        return ValueRow(path, name, type_name, text, old if old != text else None, None, 1, None, False, False)


def _head(frame: Frame) -> FrameHead:
    where = frame.location
    return FrameHead(
        frame.level, one_line(frame.name), "" if where is None else one_line(where.file), 0 if where is None else where.line,
        frame.pc, frame.function, tuple(one_line(call.name) for call in frame.inlined),
    )  # fmt: skip


def safe(line: str) -> str:
    """A line that may hold words of a guest's, indented as it was."""
    return line[: len(line) - len(line.lstrip(" "))] + one_line(line)
