"""Results as files: the end of the name says of what kind. CSV and JSON have bytes as base64, Parquet has all as it is."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from traces._errors import UsageError
from traces.query import csv_lines, json_lines

KINDS: Final = (".csv", ".parquet", ".json")


def target(text: str, trace: Path) -> Path:
    """Where to export to. Raises UsageError for a place that is none: what is in the trace is evidence and stays as it is."""
    path = Path(text).expanduser()
    if path.suffix.lower() not in KINDS:
        raise UsageError("let the name end in .csv, .parquet or .json")
    if not path.parent.is_dir():
        raise UsageError(f"{path.parent}: no such directory")
    if path.is_dir():
        raise UsageError(f"{path}: is a directory")
    if path.parent.resolve().is_relative_to(trace.resolve()):
        raise UsageError("not into the trace: it is evidence, and stays as it was")
    return path


def write(path: Path, replace: bool, schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> tuple[int, int]:
    """Writes rows to a file, whole or not at all; rows and bytes. Raises UsageError where it cannot."""
    reserved = False
    partial = ""
    try:
        if not replace:
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
            reserved = True
        handle, partial = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:60]}-")
        counted = _Counted(batches)
        with open(handle, "wb") as file:
            _encode(file, path.suffix.lower(), _distinct(schema), counted)
            size = file.tell()
        os.replace(partial, path)
    except FileExistsError:
        raise UsageError(f"{path}: exists already") from None
    except BaseException as error:
        for name in (partial, str(path) if reserved else ""):
            if name:
                Path(name).unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise UsageError(f"{path}: cannot be written ({error.strerror or error})") from None
        if isinstance(error, pa.ArrowException | ValueError | OverflowError):
            raise UsageError(f"{path.suffix} cannot hold this ({error}); cast the column to text") from None
        raise
    return counted.rows, size


class _Counted:
    def __init__(self, batches: Iterable[pa.RecordBatch]) -> None:
        self._batches = batches
        self.rows = 0

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        for batch in self._batches:
            self.rows += batch.num_rows
            yield batch


def _encode(file: Any, kind: str, schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> None:
    named = (pa.RecordBatch.from_arrays(batch.columns, schema=schema) for batch in batches)
    if kind == ".parquet":
        with pq.ParquetWriter(file, schema) as writer:
            for batch in named:
                writer.write_batch(batch)
        return
    reader = pa.RecordBatchReader.from_batches(schema, named)
    if kind == ".csv":
        file.writelines(line.encode() for line in csv_lines(reader))
        return
    before = b"[\n "
    for line in json_lines(reader):
        file.write(before + line.rstrip("\n").encode())
        before = b",\n "
    file.write(b"\n]\n" if before[:1] == b"," else b"[]\n")


def _distinct(schema: pa.Schema) -> pa.Schema:
    """Columns of one name are told apart by a number: objects of JSON, and most readers of Parquet, know a name once."""
    taken = set(schema.names)
    seen: set[str] = set()
    fields = []
    for field in schema:
        name, number = field.name, 1
        while name in seen or (name != field.name and name in taken):
            name, number = f"{field.name}_{number}", number + 1
        seen.add(name)
        fields.append(field.with_name(name))
    return pa.schema(fields)
