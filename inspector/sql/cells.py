"""Values of Arrow as text: bounded where a cell is drawn, whole where it is read or copied."""

from __future__ import annotations

import json
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from replayer.marks import Mark, parse_event
from traces._errors import UsageError
from traces.query import json_value

DRAWN: Final = 400
"""Characters of a cell that are made for a line of the screen."""
WHOLE: Final = 1_000_000
"""Characters of a cell that is read or copied; a result may hold a gigabyte in one."""
NULL: Final = "NULL"
_SAMPLE: Final = 500
"""Rows by which the width of a column is judged where looking at all of them takes long."""


def is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind))


def is_bytes(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind))


def is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def text_of(scalar: pa.Scalar, most: int = DRAWN) -> str | None:
    """A cell's text, at most so long (and then it ends in "…"); None for NULL."""
    if not scalar.is_valid:
        return None
    kind = scalar.type
    if is_text(kind):
        # Not the whole of it is decoded: UTF-8 has at most four bytes for a character.
        return _cut(scalar.as_buffer()[: 4 * most + 4].to_pybytes().decode("utf-8", "replace"), most)
    if is_bytes(kind):
        return _cut(scalar.as_buffer()[: most // 2 + 1].to_pybytes().hex(), most)
    if pa.types.is_list(kind) and len(scalar.values) > most:
        return _cut(_plain_text(scalar.values[:most].to_pylist()), most - 1) + "…"
    return _cut(_other(scalar), most)


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def _other(scalar: pa.Scalar) -> str:
    if pa.types.is_temporal(scalar.type) and not pa.types.is_interval(scalar.type):
        # Arrow's own text: Python has neither nanoseconds nor the year 100,000.
        try:
            return str(scalar.cast(pa.string()).as_py())
        except pa.ArrowException:
            return str(scalar.value)
    try:
        return _plain_text(scalar.as_py())
    except (ValueError, OverflowError):
        return str(scalar)


def _plain_text(value: Any) -> str:
    shown = json_value(_hexed(value))
    return shown if isinstance(shown, str) else json.dumps(shown, ensure_ascii=False)


def _hexed(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, dict):
        return {key: _hexed(item) for key, item in value.items()}
    return [_hexed(item) for item in value] if isinstance(value, list | tuple) else value


def natural_width(column: pa.ChunkedArray) -> int:
    """Characters that the longest cell of a column needs, at most DRAWN."""
    kind = column.type
    least = len(NULL) if column.null_count else 1
    if column.null_count == len(column):
        return least
    if is_text(kind):
        found = pc.max(pc.binary_length(column)).as_py()
        if found > 16:  # rather the exact number, where bytes may say too much
            found = pc.max(pc.utf8_length(column)).as_py()
    elif is_bytes(kind):
        found = 2 * pc.max(pc.binary_length(column)).as_py()
    elif pa.types.is_integer(kind):
        ends = pc.min_max(column)
        found = max(len(str(ends["min"].as_py())), len(str(ends["max"].as_py())))
    else:
        found = max(len(text_of(scalar) or "") for scalar in column[:_SAMPLE])
    return int(min(max(found, least), DRAWN))


def mark_of(row: dict[str, pa.Scalar]) -> str | None:
    """The mark that a row stands for: its `mark` (and `step`, beside it), or the event `seq`; None if there is neither."""
    mark, seq = row.get("mark"), row.get("seq")
    if mark is not None and mark.is_valid:
        text = str(mark.as_py())
        step = row.get("step")
        if step is not None and step.is_valid and pa.types.is_integer(step.type) and step.as_py() > 0 and text.isdigit():
            text += f".{step.as_py()}"
        return text if _is_mark(text) else None
    if seq is not None and seq.is_valid and pa.types.is_integer(seq.type) and seq.as_py() >= 0:
        return f"e{seq.as_py()}"
    return None


def _is_mark(text: str) -> bool:
    if text == "end" or parse_event(text) is not None:
        return True
    try:
        Mark.parse(text)
    except UsageError:
        return False
    return True
