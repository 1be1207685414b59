"""What WASI's structures look like in memory: their fields, for showing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from recorder.boundary.wasi_p1 import TABLE

_SIZES: Final = {"u8": 1, "u16": 2, "u32": 4, "u64": 8, "s64": 8, "time": 8, "pointer": 4, "flags": 8}
_FILETYPES: Final = ("unknown", "block_device", "character_device", "directory", "regular_file", "socket_dgram", "socket_stream",
                     "symbolic_link")  # fmt: skip
_LATEST: Final = 1 << 62


@dataclass(frozen=True)
class Field:
    """One member of a structure."""

    name: str
    kind: str
    """u8 … u64, s64, pointer, time (nanoseconds), flags, filetype."""
    offset: int

    @property
    def end(self) -> int:
        return self.offset + _SIZES.get(self.kind, 1)

    def show(self, raw: bytes) -> str:
        number = int.from_bytes(raw, "little", signed=self.kind == "s64")
        if self.kind in ("pointer", "flags"):
            return f"{number:#x}"
        if self.kind == "filetype":
            return _FILETYPES[number] if number < len(_FILETYPES) else str(number)
        if self.kind == "time":
            return f"{number // 10**9}.{number % 10**9:09} s{_date(number)}"
        return str(number)


def _date(nanoseconds: int) -> str:
    """A time of the last decades, as a date; a clock that counts from its start has none."""
    if not 10**18 < nanoseconds < _LATEST:
        return ""
    return f" ({datetime.fromtimestamp(nanoseconds // 10**9, UTC):%Y-%m-%d %H:%M:%S} UTC)"


@dataclass(frozen=True)
class Struct:
    """A structure; several may lie behind each other."""

    size: int
    fields: tuple[Field, ...]


def _struct(size: int, text: str) -> Struct:
    """Fields as `offset kind name`, separated by commas."""
    words = (one.split() for one in text.split(","))
    return Struct(size, tuple(Field(name, kind, int(offset)) for offset, kind, name in words))


_U32, _U64, _TIME = _struct(4, "0 u32 value"), _struct(8, "0 u64 value"), _struct(8, "0 time value")
_POINTER = _struct(4, "0 pointer to")
_FDSTAT = _struct(24, "0 filetype filetype, 2 u16 flags, 8 flags rights_base, 16 flags rights_inheriting")
_FILESTAT = _struct(
    64, "0 u64 dev, 8 u64 ino, 16 filetype filetype, 24 u64 nlink, 32 u64 size, 40 time atim, 48 time mtim, 56 time ctim"
)
_SUBSCRIPTION = _struct(48, "0 u64 userdata, 8 u8 tag, 16 u32 clock_or_fd, 24 u64 timeout, 32 u64 precision, 40 u16 flags")
_EVENT = _struct(32, "0 u64 userdata, 8 u16 error, 10 u8 type, 16 u64 nbytes, 24 u16 flags")
_BY_NAME: Final[Mapping[str, Struct]] = {
    "iovs": _struct(8, "0 pointer buf, 4 u32 len"), "prestat": _struct(8, "0 u8 tag, 4 u32 name_len"),
    "in": _SUBSCRIPTION, "out": _EVENT, "time": _TIME, "resolution": _TIME, "argv": _POINTER, "environ": _POINTER,
    "newoffset": _U64, "offset": _U64,
    "nread": _U32, "nwritten": _U32, "bufused": _U32, "argc": _U32, "argv_buf_size": _U32, "environc": _U32,
    "environ_buf_size": _U32, "opened_fd": _U32, "nevents": _U32,
}  # fmt: skip


def struct_of(operation: str, parameter: str) -> Struct | None:
    """What a parameter of a WASI function points to; None if it is plain bytes."""
    if parameter == "stat":
        return _FDSTAT if operation == "fd_fdstat_get" else _FILESTAT
    return _BY_NAME.get(parameter)


def pointers(operation: str) -> Mapping[int, str]:
    """The parameters of a WASI function that point into memory: number -> name."""
    found = TABLE.get(operation)
    return {} if found is None else {one.pointer: found.names[one.pointer] for one in found.ranges}
