"""Recording one run, from options to a closed trace.

A `Recording` owns the trace directory while it is made, the journal's appending thread, the watchdog and the outcome. What
crosses the boundary is `recorder.session`'s business; what a finished trace looks like is `traces`'.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import secrets
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn

import wasmtime

from recorder.archive import Archiver
from recorder.boundary import states
from recorder.boundary.engine import Engine, Profile, engine_version
from recorder.boundary.interposer import Description
from recorder.boundary.linking import Derived, Provided, Shape, compile_guest, derive
from recorder.boundary.wasi_p1 import MODULE as WASI_MODULE
from recorder.invocation import Invocation, check_files, check_invocation, run_invocation
from recorder.outcome import STOPS, Limits, Outcome, outcome_of
from recorder.python_host import Guest, collect
from recorder.serving import provide, serve
from recorder.session import Clock, Session
from recorder.source import Source
from recorder.watchdog import GRACE, Watchdog
from traces._errors import RecordingError, RefusedError
from traces.journal import WINDOW_FILE, Ring, disk_error
from traces.layout import StopReason
from traces.manifest import Manifest
from traces.tracedir import JOURNAL, begin, finish

PRODUCER = "reprise-wasm"


@dataclass(frozen=True)
class Options:
    """What to run and with which rights. Nothing is granted that does not stand here."""

    out: Path | None = None
    """The trace to make; None chooses `<stem>-<UTC time>.trace` in the working directory."""
    invocation: Invocation = field(default_factory=Invocation)
    hosts: tuple[Any, ...] = ()
    """Host objects, in the sense of `recorder.python_host.collect`."""
    host_names: tuple[str, ...] = ()
    """How the hosts were named on the command line, for the manifest."""
    limits: Limits = field(default_factory=Limits)
    notes: dict[str, str] = field(default_factory=dict)
    durable: bool = False
    command_line: tuple[str, ...] = ()
    signals: bool = False
    """Take SIGINT and SIGTERM, and end the process if the guest does not stop (the command line does)."""


class Recording:
    """A run being recorded. `with` closes it, whatever happens."""

    def __init__(self, source: Source, options: Options, embedded: bool = False) -> None:
        """`embedded`: the caller drives the guest itself, instead of `run` following the options' invocation."""
        self.source = source
        self.options = options
        self.outcome: Outcome | None = None
        self._states: list[tuple[tuple[int, int], states.State]] = []
        """Digests, each with where the next record stood when they were taken: generation of the slot, offset in it."""
        self._digest_time = 0
        self._calls = 0
        self._next_digest = 1
        self._seized = False

        options.invocation.check()
        self.shape = Shape(source.data)
        if not embedded:
            check_invocation(self.shape, options.invocation)
            check_files(options.invocation.calls)
        self.hosts = collect(options.hosts)
        self._served = serve(self.shape, self.hosts)
        provided = provide(self.shape, self.hosts)
        derived = derive(self.shape, options.limits.metered)
        self.engine = Engine(Profile())
        compile_guest(self.engine, derived)  # a module the engine refuses must not leave a trace behind
        self.directory = options.out or default_output(source.name)

        self.clock = Clock(time.monotonic_ns())
        self.manifest = self._manifest(derived, provided)
        self._lock = begin(self.directory, source.data, self.manifest)
        try:
            self._start(derived, provided)
        except BaseException:
            os.close(self._lock)
            with contextlib.suppress(OSError):
                shutil.rmtree(self.directory)
            raise

    # -- setting up ----------------------------------------------------------------------------------------------------------

    def _manifest(self, derived: Derived, provided: Sequence[Provided]) -> Manifest:
        options, source = self.options, self.source
        return Manifest(
            producer=f"{PRODUCER} {_own_version()}",
            trace_id=secrets.token_hex(16),
            module={
                "sha256": hashlib.sha256(source.data).hexdigest(),
                "size": len(source.data),
                "origin": source.origin,
                "kind": "core",
                "derivation": list(derived.names),
                "features": sorted(self.shape.module.features()),
            },
            engine={
                "name": "wasmtime",
                "version": engine_version(),
                "profile": asdict(self.engine.profile),
                "fingerprint": self.engine.profile.fingerprint(),
            },
            imports=[entry for entry, _, _ in self._served],
            exports=list(self.shape.exports),
            provided=[asdict(p) for p in provided],
            invocation={
                **options.invocation.describe(),
                "hosts": list(options.host_names),
                "command_line": list(options.command_line),
            },
            limits={**asdict(options.limits), "max_stack": self.engine.profile.max_wasm_stack},
            capabilities=options.invocation.capabilities(),
            started={
                "utc": datetime.now(UTC).isoformat(timespec="milliseconds"),
                "realtime_ns": time.time_ns(),
                "monotonic_ns": self.clock.origin,
                "resolution_ns": round(time.get_clock_info("monotonic").resolution * 1e9),
            },
            machine={
                "os": platform.platform(),
                "cpu": platform.machine(),
                "python": platform.python_version(),
            },
            notes=dict(options.notes),
            durability="power" if options.durable else "process",
        )

    def _start(self, derived: Derived, provided: Sequence[Provided]) -> None:
        options = self.options
        try:
            self.ring = Ring(self.directory / JOURNAL / WINDOW_FILE)
        except OSError as error:
            reason = error.strerror or error
            raise RecordingError(
                f"{self.directory}: cannot start recording, the journal's window cannot be made ({reason}); "
                "make room, or choose another place with -o"
            ) from None
        self.archiver = Archiver(self.ring, self.directory, self.manifest, options.durable)
        self.session = Session(self.engine, self.shape, derived, self.hosts, self.ring, self.clock)
        self.session.failure = lambda: self.archiver.failure
        self.session.after_export = self._after_export
        self.session.machine.store.set_wasi(options.invocation.wasi())
        self.session.linked.make_window(self.ring.size, self.ring.handle)
        self.session.linked.set_limits(options.limits.max_memory, options.limits.max_table)
        self.session.linked.provide(provided)
        self.archiver.start()
        self.watchdog = Watchdog(
            self.ring.tick, self._stop, self._stuck if options.signals else None, options.limits.timeout, options.signals, GRACE
        )

    # -- running -------------------------------------------------------------------------------------------------------------

    def run(self) -> Outcome:
        """Runs the invocation from the options and closes the recording."""
        with self.closing():
            run_invocation(self.link(), self.options.invocation, self.shape)
        assert self.outcome is not None
        return self.outcome

    def link(self) -> Guest:
        """Instantiates the guest (its start function runs now) and returns it, for an embedder to drive."""
        d = Description(
            tuple(hosted for _, hosted, _ in self._served),
            self.shape.primary_memory,
            self.options.invocation.constants(),
            self.options.durable,
        )
        if self.options.limits.fuel is not None:
            fuel = self.options.limits.fuel
            self.session.before_start = lambda: self.session.linked.stop_at(fuel)
        self.session.link(self._served, self._real(), d)
        return self.session.embedder

    def _real(self) -> dict[int, wasmtime.Func]:
        linker = wasmtime.Linker(self.engine.engine)
        linker.define_wasi()
        real = {}
        for _, hosted, _ in self._served:
            if hosted.wasi is not None:
                func = linker.get(self.session.machine.store, WASI_MODULE, hosted.wasi.name)
                assert isinstance(func, wasmtime.Func)
                real[hosted.index] = func
        return real

    @contextlib.contextmanager
    def closing(self) -> Iterator[None]:
        """Around everything that runs the guest: whatever ends it becomes the outcome, and the trace is closed."""
        error: BaseException | None = None
        try:
            yield
        except BaseException as raised:
            error = raised
        self._close(error)
        if isinstance(error, KeyboardInterrupt):
            raise error  # recorded, and still the caller's

    def _close(self, error: BaseException | None) -> None:
        self.session.gate()
        self.watchdog.close()
        try:
            self.outcome = outcome_of(error)
        except RefusedError:
            self._abandon()
            if not self.session.started:
                shutil.rmtree(self.directory, ignore_errors=True)
            raise
        except BaseException:
            self._abandon()
            raise
        self.session.frames[0].alive = False
        self._take_states()
        self._finish(self.outcome)

    def _abandon(self) -> None:
        """The recording itself failed: the journal stays, for `reprise recover`."""
        self.ring.seal_last()
        self.archiver.join()
        os.close(self._lock)

    # -- stops ---------------------------------------------------------------------------------------------------------------

    def _stop(self, reason: StopReason) -> None:
        self.session.stop_reason = reason
        self.session.linked.stop_at(0)
        self.ring.ask_to_stop()

    def _stuck(self, reason: StopReason) -> NoReturn:
        """The guest did not stop: close the trace under it and end the process (the watchdog's thread)."""
        self._seized = True
        self.session.seize()
        kind, exit_code, message = STOPS[reason]
        open_call = self.session.newest_open_call()
        inside = self.manifest.imports[open_call].qualified if open_call is not None else None
        outcome = Outcome(kind, exit_code, message, inside=inside)
        try:
            self._finish(outcome)
            print(f"reprise: {outcome.line}; trace {self.directory}", file=sys.stderr)
        except RecordingError as error:
            print(f"reprise: {error}", file=sys.stderr)
            exit_code = error.exit_code
        sys.stderr.flush()
        os._exit(exit_code)

    # -- closing -------------------------------------------------------------------------------------------------------------

    def _after_export(self) -> None:
        """Digests after calls, while they cost less than 1 % of the run; then at doubling distances."""
        self._calls += 1
        elapsed = self.clock.now()
        if self._calls < self._next_digest and self._digest_time * 100 >= elapsed:
            return
        if self._digest_time * 100 >= elapsed:
            self._next_digest = self._calls * 2
        self._take_states()

    def _take_states(self) -> None:
        began = time.monotonic_ns()
        after = self.session.position()
        if self._states and self._states[-1][0] == after:
            return
        self.archiver.places.add(after)
        self._states += [(after, s) for s in states.take(self.session.linked)]
        self._digest_time += time.monotonic_ns() - began

    def _finish(self, outcome: Outcome) -> None:
        self.ring.seal_last()
        self.archiver.join()
        if self.archiver.failure is not None:
            os.close(self._lock)
            raise self.archiver.failure
        m = self.manifest
        m.outcome = {**asdict(outcome), "complete": outcome.inside is None and not self._seized}
        m.ended = {
            "utc": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "realtime_ns": time.time_ns(),
            "monotonic_ns": time.monotonic_ns(),
        }
        m.digested = states.digested(self.session.linked) if self._states else {}
        m.totals = {
            "records": self.archiver.records,
            "windows": self.archiver.windows,
            "bytes": self.archiver.bytes,
        }
        try:
            finish(self.directory, m, [(self.archiver.located[place], state) for place, state in self._states])
        except OSError as error:
            raise disk_error(error, self.directory) from None
        finally:
            os.close(self._lock)
        self.ring.close()


def default_output(stem: str) -> Path:
    return Path(f"{stem}-{datetime.now(UTC).strftime('%Y%m%dT%H%M%S')}-{secrets.token_hex(2)}.trace")


def _own_version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(PRODUCER)
    except PackageNotFoundError:
        return "unknown"
