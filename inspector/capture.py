"""Snapshots of the guest: plain values, taken from it where it stands, with what they were at the stop before.

The recording may be hostile: names and texts are escaped here.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from inspector.colouring import inside_comments
from inspector.memory.labels import Labels, TableStart, origin, read_table_start
from inspector.memory.values import wasm_value
from inspector.snapshot import (
    CodeLine,
    CodeText,
    Element,
    FrameDetail,
    FrameHead,
    Snapshot,
    SourceText,
    TableWindow,
    ValueRow,
)
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
        self.labels = Labels((), (), {})
        """What the module's globals and tables are called."""
        self._table_start: TableStart | None = None
        """Read when a table is first looked at."""
        self._expanded: set[tuple[str, ...]] = set()
        self._texts: dict[int, tuple[CodeLine, ...]] = {}
        self._comments: dict[str, frozenset[int]] = {}
        """Of each source file that was shown: see `inside_comments`."""

    def turn(self) -> None:
        """The guest is elsewhere: what was shown is what was before."""
        self._previous = self._values or self._previous
        self._values = {}

    def toggle(self, path: tuple[str, ...]) -> None:
        """Shows what a value is made of, or no longer."""
        self._expanded.symmetric_difference_update((path,))

    def snapshot(self, here: Here, level: int, old: Here | None) -> Snapshot:
        """The guest at one mark, with one of its frames in full. `old`: what memory and globals are compared with."""
        heads = tuple(_head(frame) for frame in here.frames)
        return Snapshot(
            here.mark, here.events, _event(here), heads, here.depth, self._globals(here, old), tuple(here.memory_sizes),
            here.at_end, self.detail(here, level) if heads else None, None if old is None else old.mark,
            before_event=None if old is None else _event(old),
        )  # fmt: skip

    def _globals(self, here: Here, old: Here | None) -> tuple[ValueRow, ...]:
        """Every global; those that can be an address in memory 0 have it as their target."""
        rows = []
        memories = here.machine.module.memories
        kind = ("i64" if memories[0].limits.is_64 else "i32") if memories else ""
        before = old.globals if old is not None else here.globals
        for label, bits, was in zip(self.labels.globals, here.globals, before, strict=True):
            name = f"{label.index} {label.name}".rstrip()
            what = f"{'mut ' if label.mutable else ''}{label.type}{origin(label)}"
            target = bits if label.type == kind and 0 <= bits < here.memory_sizes[0] else None
            text = wasm_value(label.type, bits)
            changed = wasm_value(label.type, was).partition("  ")[0] if was != bits else None
            rows.append(ValueRow(("global", name), name, what, text, changed, None, 1, target, False, False))
        return tuple(rows)

    # -- tables

    def table(self, here: Here, old: Here | None, table: int, start: int, length: int) -> TableWindow:
        """Elements of a table, and what they were."""
        if self._table_start is None:
            self._table_start = read_table_start(here.machine.module)
        now = here.moment.table(table, start, length)
        before = old.moment.table(table, start, length)["elements"] if old is not None else now["elements"]
        before += [None] * (len(now["elements"]) - len(before))  # elements that were not there yet were nothing, too
        elements = []
        for i, (kind, was) in enumerate(zip(now["elements"], before, strict=False)):
            text, old_text = (self._element(here, table, start + i, one) for one in (kind, was))
            elements.append(Element(text, kind is None, old_text if was != kind else None))
        mark = None if old is None else old.mark
        return TableWindow(here.mark, mark, table, start, now["size"], tuple(elements))

    def _element(self, here: Here, table: int, index: int, kind: str | None) -> str:
        """One element. Which function it is, is known of tables that nothing writes; of others, which it was at the start."""
        assert self._table_start is not None
        if kind != "func":
            return "null" if kind is None else "a reference of the host's"
        function = self._table_start.functions.get(table, {}).get(index)
        label = self.labels.tables[table]
        fixed = not self._table_start.written and not label.imported and not label.exported
        if function is None:
            return "a function"
        name = f"#{function} {one_line(here.machine.names.name(function))}"
        return name if fixed else f"a function; at the start {name}"

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
        if location.file not in self._comments:
            self._comments[location.file] = inside_comments(location.file, lines)
        current, inside = known.text_is_current(location.file), self._comments[location.file]
        return SourceText(one_line(location.file), location.line, lines, current, inside), ""

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
                rows.append(self._row(scope, f"local {i}", kind, wasm_value(kind or "i64", frame.locals[i])))
            if len(frame.locals) > _SHOWN:
                rows.append(_note(scope, f"{len(frame.locals) - _SHOWN:,} more locals"))
        if frame.level == 0:
            for i, bits in enumerate(frame.operands[:_SHOWN]):
                text = "?" if bits is None else f"{bits:#x}"
                row = self._row(scope, f"operand {i}", "", text)
                rows.append(replace(row, was=None))
        return rows

    def _add_value(self, rows: list[ValueRow], above: tuple[str, ...], value: Value) -> None:
        if len(rows) >= _MOST_VALUES:
            if len(rows) == _MOST_VALUES:
                rows.append(_note(above, "more is open than is shown"))
            return
        if value.name == "…":
            self._add_rest(rows, above, value)
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

    def _add_rest(self, rows: list[ValueRow], above: tuple[str, ...], value: Value) -> None:
        """The elements behind those that are shown: once they are wanted they stand in line with those."""
        if value.expand is None:
            rows.append(_note(above, one_line(value.text)))
            return
        path = (*above, f"… {one_line(value.text)}")
        if path not in self._expanded:
            rows.append(ValueRow(path, path[-1], "", "", None, None, 1, None, True, False))
            return
        for child in value.children:
            self._add_value(rows, above, child)

    def _row(self, above: tuple[str, ...], name: str, type_name: str, text: str) -> ValueRow:
        """A row, with what the value was at the stop before."""
        path = (*above, name)
        self._values[path] = text
        old = self._previous.get(path)
        return ValueRow(path, name, type_name, text, old if old != text else None, None, 1, None, False, False)


def _note(above: tuple[str, ...], text: str) -> ValueRow:
    """A row that says what is not shown."""
    return ValueRow((*above, f"… {text}"), f"… {text}", "", "", None, None, 1, None, False, False, False)


def _event(here: Here) -> int | None:
    """The event that happens there; None in between."""
    machine = here.machine
    happens = here.events < machine.clocks.known and machine.mark_of(here.events) == here.mark
    return here.events if happens else None


def _head(frame: Frame) -> FrameHead:
    where = frame.location
    return FrameHead(
        frame.level, one_line(frame.name), "" if where is None else one_line(where.file), 0 if where is None else where.line,
        frame.pc, frame.function, tuple(one_line(call.name) for call in frame.inlined),
    )  # fmt: skip


def safe(line: str) -> str:
    """A line that may hold words of a guest's, indented as it was."""
    return line[: len(line) - len(line.lstrip(" "))] + one_line(line)
