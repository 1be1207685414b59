"""WASI preview1, as one table: what each function reads and writes in guest memory, and how its arguments read.

The interposer, the repair of half-done calls after a trap, the trace's decoded text and the tests all derive from `TABLE`.
Ranges may be larger than what the host really touches (a superset replays the same), never smaller; a test calls every function
with arbitrary arguments and compares all of memory.

Only preview1 under the module name `wasi_snapshot_preview1` is here; the older `wasi_unstable` is not served by the engine.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

MODULE: Final = "wasi_snapshot_preview1"

IOVEC_SIZE: Final = 8


@dataclass(frozen=True)
class Sent:
    """The host reads `count * size` bytes at `pointer` (parameter numbers; `count` None means one)."""

    pointer: int
    count: int | None
    size: int = 1


@dataclass(frozen=True)
class SentVectors:
    """The host reads `count` (pointer, length) pairs at `pointer`, and the bytes each pair describes."""

    pointer: int
    count: int


@dataclass(frozen=True)
class Received:
    """The host writes up to `count * size` bytes at `pointer`; after success, only as many items as the u32 at `used` says."""

    pointer: int
    count: int | None
    size: int = 1
    used: int | None = None


@dataclass(frozen=True)
class ReceivedVectors:
    """The host fills the buffers that `count` (pointer, length) pairs describe; after success `used` holds the byte count."""

    pointer: int
    count: int
    used: int


@dataclass(frozen=True)
class ReceivedConstant:
    """The host writes a number of bytes that no parameter gives, known when the run is set up (`argv`, `environ`)."""

    pointer: int
    size: str
    """Key of the size: "argv_pointers", "argv_bytes", "env_pointers", "env_bytes"."""


Range = Sent | SentVectors | Received | ReceivedVectors | ReceivedConstant


@dataclass(frozen=True)
class Function:
    """One preview1 function."""

    name: str
    names: tuple[str, ...]
    params: tuple[str, ...]
    results: tuple[str, ...]
    ranges: tuple[Range, ...]
    detail: str
    """Template of the decoded text (`traces.columns` defines the language); empty shows raw arguments."""
    outgoing: bool
    """Changes the world outside the guest; `--durable` syncs the journal before it."""

    @property
    def sent(self) -> tuple[Sent | SentVectors, ...]:
        return tuple(r for r in self.ranges if isinstance(r, Sent | SentVectors))

    @property
    def received(self) -> tuple[Received | ReceivedVectors | ReceivedConstant, ...]:
        return tuple(r for r in self.ranges if not isinstance(r, Sent | SentVectors))


_TYPES = {"i": "i32", "I": "i64"}


def _function(
    signature: str, types: str, *ranges: Range, detail: str = "", outgoing: bool = False, returns: bool = True
) -> Function:
    name, _, names = signature.partition(" ")
    return Function(
        name,
        tuple(names.split()),
        tuple(_TYPES[t] for t in types),
        ("i32",) if returns else (),
        ranges,
        detail,
        outgoing,
    )


_CLOCK = "{0:enum:realtime|monotonic|process_cputime|thread_cputime}"
_OFLAGS = "{4:flags:creat|directory|excl|trunc}"
_FDFLAGS = "{7:flags:append|dsync|nonblock|rsync|sync}"
_WHENCE = "{2:enum:set|cur|end}"
_ADVICE = "{3:enum:normal|sequential|random|willneed|dontneed|noreuse}"
_E = " → {r0:errno}"

_FUNCTIONS = (
    _function("args_get argv argv_buf", "ii", ReceivedConstant(0, "argv_pointers"), ReceivedConstant(1, "argv_bytes"),
              detail="args_get()" + _E),
    _function("args_sizes_get argc argv_buf_size", "ii", Received(0, None, 4), Received(1, None, 4),
              detail="args_sizes_get() → argc {0:u32}, {1:u32} bytes {r0:errno}"),
    _function("environ_get environ environ_buf", "ii", ReceivedConstant(0, "env_pointers"), ReceivedConstant(1, "env_bytes"),
              detail="environ_get()" + _E),
    _function("environ_sizes_get environc environ_buf_size", "ii", Received(0, None, 4), Received(1, None, 4),
              detail="environ_sizes_get() → {0:u32} variables, {1:u32} bytes {r0:errno}"),
    _function("clock_res_get id resolution", "ii", Received(1, None, 8),
              detail=f"clock_res_get({_CLOCK})" + _E),
    _function("clock_time_get id precision time", "iIi", Received(2, None, 8),
              detail=f"clock_time_get({_CLOCK})" + _E),
    _function("fd_advise fd offset len advice", "iIIi", detail=f"fd_advise(fd={{0}}, {_ADVICE})" + _E),
    _function("fd_allocate fd offset len", "iII", outgoing=True, detail="fd_allocate(fd={0}, offset={1}, len={2})" + _E),
    _function("fd_close fd", "i", detail="fd_close(fd={0})" + _E),
    _function("fd_datasync fd", "i", outgoing=True, detail="fd_datasync(fd={0})" + _E),
    _function("fd_fdstat_get fd stat", "ii", Received(1, None, 24), detail="fd_fdstat_get(fd={0})" + _E),
    _function("fd_fdstat_set_flags fd flags", "ii",
              detail="fd_fdstat_set_flags(fd={0}, {1:flags:append|dsync|nonblock|rsync|sync})" + _E),
    _function("fd_fdstat_set_rights fd base inheriting", "iII", detail="fd_fdstat_set_rights(fd={0}, {1:x}, {2:x})" + _E),
    _function("fd_filestat_get fd stat", "ii", Received(1, None, 64), detail="fd_filestat_get(fd={0})" + _E),
    _function("fd_filestat_set_size fd size", "iI", outgoing=True, detail="fd_filestat_set_size(fd={0}, size={1})" + _E),
    _function("fd_filestat_set_times fd atim mtim fst_flags", "iIIi", outgoing=True,
              detail="fd_filestat_set_times(fd={0}, {3:flags:atim|atim_now|mtim|mtim_now})" + _E),
    _function("fd_pread fd iovs iovs_len offset nread", "iiiIi", ReceivedVectors(1, 2, 4), Received(4, None, 4),
              detail="fd_pread(fd={0}, offset={3}) → {4:u32} bytes {r0:errno}"),
    _function("fd_prestat_get fd prestat", "ii", Received(1, None, 8), detail="fd_prestat_get(fd={0})" + _E),
    _function("fd_prestat_dir_name fd path path_len", "iii", Received(1, 2), detail="fd_prestat_dir_name(fd={0})" + _E),
    _function("fd_pwrite fd iovs iovs_len offset nwritten", "iiiIi", SentVectors(1, 2), Received(4, None, 4), outgoing=True,
              detail="fd_pwrite(fd={0}, offset={3}) → {4:u32} bytes {r0:errno}"),
    _function("fd_read fd iovs iovs_len nread", "iiii", ReceivedVectors(1, 2, 3), Received(3, None, 4),
              detail="fd_read(fd={0}) → {3:u32} bytes {r0:errno}"),
    _function("fd_readdir fd buf buf_len cookie bufused", "iiiIi", Received(1, 2, 1, 4), Received(4, None, 4),
              detail="fd_readdir(fd={0}, cookie={3}) → {4:u32} bytes {r0:errno}"),
    _function("fd_renumber fd to", "ii", detail="fd_renumber(fd={0}, to={1})" + _E),
    _function("fd_seek fd offset whence newoffset", "iIii", Received(3, None, 8),
              detail=f"fd_seek(fd={{0}}, {{1:d}}, {_WHENCE})" + _E),
    _function("fd_sync fd", "i", outgoing=True, detail="fd_sync(fd={0})" + _E),
    _function("fd_tell fd offset", "ii", Received(1, None, 8), detail="fd_tell(fd={0})" + _E),
    _function("fd_write fd iovs iovs_len nwritten", "iiii", SentVectors(1, 2), Received(3, None, 4), outgoing=True,
              detail="fd_write(fd={0}) → {3:u32} bytes {r0:errno}"),
    _function("path_create_directory fd path path_len", "iii", Sent(1, 2), outgoing=True,
              detail="path_create_directory(dir={0}, path={1:text:2})" + _E),
    _function("path_filestat_get fd flags path path_len stat", "iiiii", Sent(2, 3), Received(4, None, 64),
              detail="path_filestat_get(dir={0}, path={2:text:3})" + _E),
    _function("path_filestat_set_times fd flags path path_len atim mtim fst_flags", "iiiiIIi", Sent(2, 3), outgoing=True,
              detail="path_filestat_set_times(dir={0}, path={2:text:3})" + _E),
    _function("path_link old_fd old_flags old_path old_path_len new_fd new_path new_path_len", "iiiiiii",
              Sent(2, 3), Sent(5, 6), outgoing=True,
              detail="path_link(dir={0}, path={2:text:3}, new_dir={4}, new_path={5:text:6})" + _E),
    _function("path_open fd dirflags path path_len oflags rights_base rights_inheriting fdflags opened_fd", "iiiiiIIii",
              Sent(2, 3), Received(8, None, 4), outgoing=True,
              detail=f"path_open(dir={{0}}, path={{2:text:3}}, {_OFLAGS}, {_FDFLAGS}) → fd {{8:u32}} {{r0:errno}}"),
    _function("path_readlink fd path path_len buf buf_len bufused", "iiiiii",
              Sent(1, 2), Received(3, 4, 1, 5), Received(5, None, 4),
              detail="path_readlink(dir={0}, path={1:text:2}) → {5:u32} bytes {r0:errno}"),
    _function("path_remove_directory fd path path_len", "iii", Sent(1, 2), outgoing=True,
              detail="path_remove_directory(dir={0}, path={1:text:2})" + _E),
    _function("path_rename fd old_path old_path_len new_fd new_path new_path_len", "iiiiii",
              Sent(1, 2), Sent(4, 5), outgoing=True,
              detail="path_rename(dir={0}, path={1:text:2}, new_dir={3}, new_path={4:text:5})" + _E),
    _function("path_symlink old_path old_path_len fd new_path new_path_len", "iiiii", Sent(0, 1), Sent(3, 4), outgoing=True,
              detail="path_symlink(target={0:text:1}, dir={2}, path={3:text:4})" + _E),
    _function("path_unlink_file fd path path_len", "iii", Sent(1, 2), outgoing=True,
              detail="path_unlink_file(dir={0}, path={1:text:2})" + _E),
    _function("poll_oneoff in out nsubscriptions nevents", "iiii", Sent(0, 2, 48), Received(1, 2, 32, 3), Received(3, None, 4),
              detail="poll_oneoff({2} subscriptions) → {3:u32} events {r0:errno}"),
    _function("proc_exit code", "i", returns=False, detail="proc_exit({0})"),
    _function("proc_raise signal", "i", detail="proc_raise({0})" + _E),
    _function("random_get buf buf_len", "ii", Received(0, 1), detail="random_get({1} bytes)" + _E),
    _function("sched_yield", "", detail="sched_yield()" + _E),
    _function("sock_accept fd flags opened_fd", "iii", Received(2, None, 4), outgoing=True,
              detail="sock_accept(fd={0}) → fd {2:u32} {r0:errno}"),
    _function("sock_recv fd iovs iovs_len ri_flags nread ro_flags", "iiiiii",
              ReceivedVectors(1, 2, 4), Received(4, None, 4), Received(5, None, 2),
              detail="sock_recv(fd={0}) → {4:u32} bytes {r0:errno}"),
    _function("sock_send fd iovs iovs_len si_flags nwritten", "iiiii", SentVectors(1, 2), Received(4, None, 4), outgoing=True,
              detail="sock_send(fd={0}) → {4:u32} bytes {r0:errno}"),
    _function("sock_shutdown fd how", "ii", outgoing=True, detail="sock_shutdown(fd={0}, {1:flags:rd|wr})" + _E),
)  # fmt: skip

TABLE: Final[dict[str, Function]] = {f.name: f for f in _FUNCTIONS}
"""Every preview1 function by name."""
