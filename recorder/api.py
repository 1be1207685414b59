"""Recording and running from Python: what `import reprise` gives of this room.

The functions take plain Python values (dictionaries of directories, tuples for calls) and leave the rest to `recorder.recording`
and `recorder.native`, which the command line uses too.
"""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from recorder import values
from recorder.boundary.raw import Raw
from recorder.invocation import Call, Invocation, Preopen, run_invocation
from recorder.source import Source, load, recognise
from traces._errors import RefusedError, UsageError

if TYPE_CHECKING:
    from recorder.boundary.linking import Shape
    from recorder.outcome import Limits, Outcome
    from recorder.python_host import Guest
    from recorder.recording import Options
    from traces.tracedir import Trace

Module = str | os.PathLike[str] | bytes
"""A path, or a module's bytes (binary or text format)."""


@dataclass(frozen=True)
class Result:
    """What one call of an export returned."""

    export: str
    types: tuple[str, ...]
    raw: tuple[Raw, ...]
    """Raw bits, one per type."""

    @property
    def values(self) -> tuple[Any, ...]:
        """As Python values; references as their identity numbers."""
        return tuple(
            b if t in ("funcref", "externref") else values.from_raw(b, t) for b, t in zip(self.raw, self.types, strict=True)
        )

    @property
    def value(self) -> Any:
        """None, one value, or a list, by the number of results."""
        found = self.values
        return None if not found else found[0] if len(found) == 1 else list(found)


@dataclass(frozen=True)
class Recorded:
    """A finished recording."""

    path: Path
    """The trace."""
    outcome: Outcome
    calls: tuple[Result, ...]
    """One for each call that returned; empty for a command."""
    events: int

    @property
    def results(self) -> list[Any]:
        """Of each call: None, one value, or a list."""
        return [call.value for call in self.calls]

    def open(self) -> Trace:
        from traces.tracedir import Trace

        return Trace.open(self.path)


@dataclass(frozen=True)
class Ran:
    """A run that was not recorded."""

    outcome: Outcome
    calls: tuple[Result, ...]

    @property
    def results(self) -> list[Any]:
        return [call.value for call in self.calls]


def record(
    module: Module,
    *args: str,
    out: str | os.PathLike[str] | None = None,
    env: Mapping[str, str] | None = None,
    dirs: Mapping[str | os.PathLike[str], str] | None = None,
    stdin: str | os.PathLike[str] | bytes | None = None,
    invoke: Sequence[str | Sequence[Any]] = (),
    hosts: Sequence[Any] = (),
    fuel: int | None = None,
    timeout: float | None = None,
    max_memory: int | None = None,
    notes: Mapping[str, str] | None = None,
    durable: bool = False,
) -> Recorded:
    """Runs a module and records it.

    Args:
        module: a path, or bytes.
        args: the guest's arguments, after argv[0].
        out: the trace to make; None chooses a name in the working directory.
        dirs: host directory -> the guest's name for it, `"/data"`, or `"/data::ro"` if it may only be read.
        stdin: a file, or bytes; None passes this process's on.
        invoke: exports to call, by name or as `("name", arg, …)`; none calls `_start`.
        hosts: objects with `@reprise.host` methods, such functions, or `reprise.provide` values.
        fuel, timeout, max_memory: instructions, seconds, bytes.
        notes: kept in the manifest.
        durable: sync before each effect that leaves the machine.

    How the guest ended is in the result's `outcome`, not an exception. Raises RefusedError if it cannot be recorded.
    """
    source = source_of(module)
    with _stdin(stdin) as file:
        options = _options(source, args, out, env, dirs, file, invoke, hosts, fuel, timeout, max_memory, notes, durable)
        return follow(source, options)


def follow(source: Source, options: Options) -> Recorded:
    """Records the invocation that the options hold."""
    from recorder.recording import Recording

    made = Recording(source, options)
    raw: list[list[Raw]] = []
    with made.closing(), _shown():
        raw = run_invocation(made.link(), options.invocation, made.shape)
    assert made.outcome is not None
    results = named(options.invocation, raw, made.shape)
    return Recorded(made.directory, made.outcome, results, int(made.manifest.totals["records"]))


@contextlib.contextmanager
def _shown() -> Iterator[None]:
    """With REPRISE_DEBUG set, shows what a host raised before it becomes an outcome of one line."""
    try:
        yield
    except Exception:
        if os.environ.get("REPRISE_DEBUG"):
            import traceback

            traceback.print_exc(file=sys.stderr)
        raise


class recording:  # noqa: N801 - used like a function: `with reprise.recording(…) as guest:`
    """Records while the caller drives the guest: calls its exports, reads and writes its memory.

        with reprise.recording("agent.wasm", out="run.trace") as guest:
            address = guest.call("alloc", 5)

    The trace is closed at the end of the block. An exception passes through after that; the trace says how the guest ended.
    """

    def __init__(
        self,
        module: Module,
        *args: str,
        out: str | os.PathLike[str] | None = None,
        env: Mapping[str, str] | None = None,
        dirs: Mapping[str | os.PathLike[str], str] | None = None,
        stdin: str | os.PathLike[str] | bytes | None = None,
        hosts: Sequence[Any] = (),
        fuel: int | None = None,
        timeout: float | None = None,
        max_memory: int | None = None,
        notes: Mapping[str, str] | None = None,
        durable: bool = False,
    ) -> None:
        """As `record`; nothing is called but the start function and, in a reactor, `_initialize`."""
        self._resources = contextlib.ExitStack()
        self.source = source_of(module)
        with contextlib.ExitStack() as stack:
            file = stack.enter_context(_stdin(stdin))
            self.options = _options(self.source, args, out, env, dirs, file, (), hosts, fuel, timeout, max_memory, notes, durable)
            self._resources = stack.pop_all()
        self.outcome: Outcome | None = None
        """How the guest ended; None before the block does."""
        self.path: Path | None = None
        """The trace, once the block has begun."""

    def __enter__(self) -> Guest:
        from recorder.recording import Recording

        with contextlib.ExitStack() as stack:
            stack.push(self._resources)
            self._made = Recording(self.source, self.options, embedded=True)
            self.path = self._made.directory
            closing = self._made.closing()
            closing.__enter__()
            stack.push(self._close(closing))
            guest = self._made.link()
            if "_initialize" in self._made.shape.export_numbers:
                guest.call("_initialize")
            self._resources = stack.pop_all()
        return guest

    def _close(self, closing: contextlib.AbstractContextManager[None]) -> Any:
        def close(kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> bool:
            try:
                closing.__exit__(kind, error, trace)
            finally:
                # The guest's memory is still there, but nothing would record what is done to it.
                self._made.session.frames[0].alive = False
                self.outcome = self._made.outcome
            return False

        return close

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._resources.__exit__(kind, error, trace)


def run(
    module: Module,
    *args: str,
    env: Mapping[str, str] | None = None,
    dirs: Mapping[str | os.PathLike[str], str] | None = None,
    stdin: str | os.PathLike[str] | bytes | None = None,
    invoke: Sequence[str | Sequence[Any]] = (),
    hosts: Sequence[Any] = (),
    fuel: int | None = None,
    timeout: float | None = None,
    max_memory: int | None = None,
) -> Ran:
    """Runs a module as `record` would, without recording: no recorder is loaded, and no trace is made."""
    source = source_of(module)
    with _stdin(stdin) as file:
        invocation = invocation_of(source, args, env, dirs, file, invoke)
        return follow_native(source, invocation, tuple(hosts), limits(fuel, timeout, max_memory), signals=False)


def follow_native(source: Source, invocation: Invocation, hosts: tuple[Any, ...], limits: Limits, signals: bool) -> Ran:
    """Runs the invocation without recording it."""
    from recorder.native import Native, NativeOptions

    native = Native(source, NativeOptions(invocation, hosts, limits, signals))
    with _shown():
        outcome, raw = native.run()
    return Ran(outcome, named(invocation, raw, native.shape))


# -- from plain values ---------------------------------------------------------------------------------------------------


def source_of(module: Module) -> Source:
    if isinstance(module, bytes):
        return recognise(module, "module", "bytes", "the given bytes")
    return load(Path(module))


def named(invocation: Invocation, raw: Sequence[Sequence[Raw]], shape: Shape) -> tuple[Result, ...]:
    """The raw results of calls, with what they belong to."""
    types = {e.name: e.results for e in shape.exports}
    return tuple(Result(c.export, types[c.export], tuple(r)) for c, r in zip(invocation.calls, raw, strict=False))


def preopen(host: str, guest: str) -> Preopen:
    """A directory grant; `guest` may end in `::ro` (or `::rw`)."""
    name, _, mode = guest.partition("::")
    if mode not in ("", "ro", "rw"):
        raise UsageError(f"directory {host}::{guest}: write HOST::GUEST or HOST::GUEST::ro")
    if not name:
        raise UsageError(f"directory {host}: the guest's name for it is empty; write HOST::GUEST")
    return Preopen(Path(host), name, writable=mode != "ro")


def invocation_of(
    source: Source,
    args: Sequence[str],
    env: Mapping[str, str] | None,
    dirs: Mapping[str | os.PathLike[str], str] | None,
    stdin: Path | None,
    invoke: Sequence[str | Sequence[Any]],
) -> Invocation:
    return Invocation(
        argv=(source.name, *args),
        env=tuple((env or {}).items()),
        preopens=tuple(preopen(os.fspath(host), guest) for host, guest in (dirs or {}).items()),
        stdin=stdin,
        calls=tuple(Call(c) if isinstance(c, str) else Call(str(c[0]), tuple(c[1:])) for c in invoke),
    )


def limits(fuel: int | None, timeout: float | None, max_memory: int | None) -> Limits:
    from recorder.outcome import DEFAULT_MEMORY_LIMIT, Limits

    _check_limits(fuel, timeout, max_memory)
    return Limits(fuel, timeout, DEFAULT_MEMORY_LIMIT if max_memory is None else max_memory)


def _check_limits(fuel: int | None, timeout: float | None, max_memory: int | None) -> None:
    if fuel is not None and not 0 <= fuel < 1 << 63:
        raise UsageError(f"fuel {fuel}: give a number of instructions, from 0")
    if timeout is not None and not 0 < timeout < 1e9:
        raise UsageError(f"timeout {timeout}: give a number of seconds, more than 0")
    if max_memory is not None and not 0 <= max_memory < 1 << 48:
        raise UsageError(f"max_memory {max_memory}: give a number of bytes")


def _options(
    source: Source,
    args: Sequence[str],
    out: str | os.PathLike[str] | None,
    env: Mapping[str, str] | None,
    dirs: Mapping[str | os.PathLike[str], str] | None,
    stdin: Path | None,
    invoke: Sequence[str | Sequence[Any]],
    hosts: Sequence[Any],
    fuel: int | None,
    timeout: float | None,
    max_memory: int | None,
    notes: Mapping[str, str] | None,
    durable: bool,
) -> Options:
    from recorder.recording import Options

    return Options(
        out=None if out is None else Path(out),
        invocation=invocation_of(source, args, env, dirs, stdin, invoke),
        hosts=tuple(hosts),
        host_names=tuple(_name_of(host) for host in hosts),
        limits=limits(fuel, timeout, max_memory),
        notes=dict(notes or {}),
        durable=durable,
    )


def _name_of(host: Any) -> str:
    kind = host if hasattr(host, "__qualname__") else type(host)
    return f"{getattr(kind, '__module__', '?')}:{kind.__qualname__}"


@contextlib.contextmanager
def _stdin(given: str | os.PathLike[str] | bytes | None) -> Iterator[Path | None]:
    """Standard input as a file; bytes become one for as long as the guest runs."""
    if not isinstance(given, bytes):
        yield None if given is None else Path(given)
        return
    with tempfile.TemporaryDirectory(prefix="reprise-stdin-") as directory:
        file = Path(directory) / "stdin"
        try:
            file.write_bytes(given)
        except OSError as error:
            raise RefusedError(f"stdin: cannot be put into a file ({error.strerror}); give a path instead") from None
        yield file
