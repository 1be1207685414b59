"""What is measured, and how: the same guest run natively, recorded, replayed, and through Python callbacks.

`bench.py` starts this file once per section, in a process of its own, so that no section inherits another's threads, memory or
caches. Inside a section the modes take turns, repetition by repetition: whatever the machine does meanwhile hits all of them.
Guest time is the time inside the call of the export, nothing else; linking and closing are measured beside it.

    python benchmarks/workloads.py SECTION JSON     prints one JSON object; the guest's own output goes nowhere
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
if __name__ == "__main__":
    sys.modules["workloads"] = sys.modules["__main__"]
if str(ROOT) not in sys.path:  # an installed Reprise is this one (editable), but none need be installed
    sys.path.insert(0, str(ROOT))

import screen  # noqa: E402
import travel  # noqa: E402
import wasmtime  # noqa: E402

from recorder.boundary.engine import Engine  # noqa: E402
from recorder.invocation import Invocation, Preopen  # noqa: E402
from recorder.recording import Options, Recording  # noqa: E402
from recorder.source import Source, recognise  # noqa: E402
from replayer.replay import Replay  # noqa: E402
from traces.tables import EventsReader, EventsWriter  # noqa: E402
from traces.tracedir import EVENTS, Trace  # noqa: E402

PROGRAMS = ROOT / "benchmarks" / "programs"
IMPORT_LOOP = ROOT / "tests" / "guests" / "import_loop.wasm"

SHORT_CALLS = """
(module
  (memory (export "memory") 256)
  (func (export "fill") (local $at i32) (local $x i64)
    (local.set $x (i64.const 0x243f6a8885a308d3))
    (loop $next
      (local.set $x (i64.add (i64.mul (local.get $x) (i64.const 6364136223846793005)) (i64.const 1442695040888963407)))
      (i64.store (local.get $at) (local.get $x))
      (br_if $next (i32.lt_u (local.tee $at (i32.add (local.get $at) (i32.const 8))) (i32.const 0x1000000)))))
  (func (export "mix") (param $at i32) (param $x i32) (result i32)
    (local.set $at (i32.and (i32.mul (local.get $at) (i32.const 4093)) (i32.const 0xfffffc)))
    (i32.store (local.get $at) (i32.add (i32.load (local.get $at)) (local.get $x)))
    (i32.load (local.get $at))))
"""
"""Short exports on a memory of 16 MiB, filled so that no page of it is zero."""


@dataclass
class Task:
    """One guest and the call that is measured."""

    source: Source
    export: str = "_start"
    args: tuple[int, ...] = ()
    argv: tuple[str, ...] = ()
    directory: Path | None = None
    """Preopened as /work."""

    @property
    def invocation(self) -> Invocation:
        preopens = (Preopen(self.directory, "/work"),) if self.directory else ()
        return Invocation(argv=(self.source.name, *self.argv), preopens=preopens, stdin=Path(os.devnull))


@dataclass
class Taken:
    """One run in one mode, in seconds."""

    guest: float
    cpu: float = 0.0
    """Of `guest`, what the guest's own thread spent computing; the rest it waited, or did not get a core."""
    setup: float = 0.0
    """Reading, compiling (or taking from the code cache) and linking."""
    digests: float = 0.0
    """Digests taken after the last call: they belong to closing."""
    closing: float = 0.0
    """From the guest's return to the finished trace, digests included."""
    facts: dict[str, Any] = field(default_factory=dict)


@contextlib.contextmanager
def ending() -> Iterator[None]:
    """A guest that ends with `proc_exit(0)` has returned."""
    try:
        yield
    except wasmtime.ExitTrap as error:
        if error.code:
            raise


PROFILE = Engine()
"""Reprise's own engine profile, for native runs that differ from recorded ones in nothing else. Held here: the engine calls
back into it for every memory it makes."""

# -- the modes -------------------------------------------------------------------------------------------------------------


class Native:
    """Plain wasmtime with its own WASI: what the guest costs without Reprise."""

    def __init__(self, task: Task, engine: wasmtime.Engine) -> None:
        self.task = task
        self.engine = engine
        self.module = wasmtime.Module(engine, task.source.data)

    def __call__(self) -> Taken:
        began = time.perf_counter()
        store = wasmtime.Store(self.engine)
        store.set_wasi(self.task.invocation.wasi())
        linker = wasmtime.Linker(self.engine)
        linker.define_wasi()
        run = linker.instantiate(store, self.module).exports(store)[self.task.export]
        assert isinstance(run, wasmtime.Func)
        start, cpu = time.perf_counter(), time.thread_time()
        with ending():
            run(store, *self.task.args)
        return Taken(time.perf_counter() - start, time.thread_time() - cpu, start - began)


class Callbacks:
    """What a recorder without generated Wasm would do: each import is a Python function that calls the real one and notes it.

    Native WASI asks its caller for the export `memory`, so the real function is called through a small module that has it.
    """

    def __init__(self, task: Task) -> None:
        self.task = task
        self.engine = wasmtime.Engine()
        self.module = wasmtime.Module(self.engine, task.source.data)

    def __call__(self) -> Taken:
        store = wasmtime.Store(self.engine)
        store.set_wasi(self.task.invocation.wasi())
        linker = wasmtime.Linker(self.engine)
        linker.define_wasi()
        real: list[wasmtime.Func] = []
        noted: list[tuple[int, tuple[int, ...], Any]] = []

        def callback(index: int) -> Callable[..., Any]:
            def called(*args: int) -> Any:
                answer = real[index](store, *args)
                noted.append((index, args, answer))
                return answer

            return called

        functions = []
        for index, entry in enumerate(self.module.imports):
            assert isinstance(entry.type, wasmtime.FuncType)
            functions.append(wasmtime.Func(store, entry.type, callback(index)))
        exports = wasmtime.Instance(store, self.module, functions).exports(store)
        shim = wasmtime.Module(self.engine, self._shim())
        natives = [linker.get(store, entry.module, str(entry.name)) for entry in self.module.imports]
        through = wasmtime.Instance(store, shim, [*natives, exports["memory"]]).exports(store)
        real += [through[f"f{index}"] for index in range(len(functions))]
        run = exports[self.task.export]
        start = time.perf_counter()
        with ending():
            run(store, *self.task.args)
        return Taken(time.perf_counter() - start, facts={"calls": len(noted)})

    def _shim(self) -> str:
        imports, functions = [], []
        for index, entry in enumerate(self.module.imports):
            params = " ".join(str(t) for t in entry.type.params)
            results = " ".join(str(t) for t in entry.type.results)
            signature = f"(param {params}) (result {results})"
            imports.append(f'(import "real" "f{index}" (func $r{index} {signature}))')
            gets = " ".join(f"(local.get {i})" for i in range(len(entry.type.params)))
            functions.append(f'(func (export "f{index}") {signature} (call $r{index} {gets}))')
        memory = '(import "guest" "memory" (memory 0)) (export "memory" (memory 0))'
        return f"(module {' '.join(imports)} {memory} {' '.join(functions)})"


class Recorded:
    """The guest under record, to a closed trace."""

    def __init__(self, task: Task, out: Path) -> None:
        self.task = task
        self.out = out

    def __call__(self) -> Taken:
        shutil.rmtree(self.out, ignore_errors=True)
        began = time.perf_counter()
        recording = Recording(self.task.source, Options(out=self.out, invocation=self.task.invocation), embedded=True)
        start = end = began
        digests = cpu = 0.0
        with recording.closing():
            guest = recording.link()
            after = recording.session.after_export

            def timed() -> None:
                nonlocal digests
                entered = time.perf_counter()
                after()
                digests += time.perf_counter() - entered

            recording.session.after_export = timed
            start, cpu = time.perf_counter(), time.thread_time()
            try:
                guest.call_raw(self.task.export, list(self.task.args))
            finally:
                end, cpu = time.perf_counter(), time.thread_time() - cpu
        closed = time.perf_counter()
        assert recording.outcome is not None
        if recording.outcome.exit_code:
            raise SystemExit(f"{self.task.source.name}: {recording.outcome.line}")
        facts = dict(recording.manifest.totals)
        return Taken(end - start - digests, cpu - digests, start - began, digests, closed - end + digests, facts)


class Replayed:
    """The same guest served from the trace; the replay must find it identical."""

    def __init__(self, out: Path) -> None:
        self.out = out

    def __call__(self) -> Taken:
        began = time.perf_counter()
        replay = Replay(Trace.open(self.out))
        call = replay.machine.call
        guest = cpu = 0.0

        def timed(*arguments: Any) -> Any:
            nonlocal guest, cpu
            entered, spent = time.perf_counter(), time.thread_time()
            try:
                return call(*arguments)
            finally:
                guest += time.perf_counter() - entered
                cpu += time.thread_time() - spent

        replay.machine.call = timed  # type: ignore[method-assign]
        verdict = replay.run()
        if verdict.kind != "identical":
            raise SystemExit(f"{self.out}: {verdict.headline()}")
        whole = time.perf_counter() - began
        return Taken(guest, cpu, facts={"whole": whole})


def take_turns(modes: dict[str, Callable[[], Taken]], repetitions: int) -> dict[str, list[dict[str, Any]]]:
    """Every mode once per repetition, in turn; after one round that is not counted, which fills the caches."""
    taken: dict[str, list[dict[str, Any]]] = {name: [] for name in modes}
    for repetition in range(repetitions + (repetitions > 1)):
        for name, mode in modes.items():
            result = vars(mode())
            if repetition or repetitions == 1:
                taken[name].append(result)
    return taken


def side_by_side(task: Task, scratch: Path, repetitions: int) -> dict[str, Any]:
    out = scratch / "bench.trace"
    modes: dict[str, Callable[[], Taken]] = {
        "native": Native(task, wasmtime.Engine()),
        "profile": Native(task, PROFILE.engine),
        "recorded": Recorded(task, out),
        "replayed": Replayed(out),
    }
    return {"modes": take_turns(modes, repetitions), **_sizes(out)}


def _sizes(trace: Path) -> dict[str, Any]:
    sizes = {entry.name: entry.stat().st_size for entry in trace.iterdir() if entry.is_file()}
    return {"sizes": sizes, "peak_kib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss}


def load(path: Path) -> Source:
    return recognise(path.read_bytes(), path.stem, path.name, path.name)


# -- the sections ------------------------------------------------------------------------------------------------------------


def import_loop(scratch: Path, spec: dict[str, Any]) -> dict[str, Any]:
    calls, fewer = spec["calls"], max(spec["calls"] // 50, 1)
    source = load(IMPORT_LOOP)
    taken = side_by_side(Task(source, "run", (calls,)), scratch, spec["repetitions"])
    # Callbacks are so much slower that they get fewer calls, against a native run of as many.
    small = Task(source, "run", (fewer,))
    modes: dict[str, Callable[[], Taken]] = {"native": Native(small, wasmtime.Engine()), "callbacks": Callbacks(small)}
    return {"calls": calls, **taken, "callback_calls": fewer, "callbacks": take_turns(modes, spec["repetitions"])}


def program(scratch: Path, spec: dict[str, Any]) -> dict[str, Any]:
    directory = scratch / "work"
    directory.mkdir()
    source = load(PROGRAMS / f"{spec['name']}.wasm")
    writes = spec["name"] == "write_heavy"
    scale = () if spec.get("scale") is None else (str(spec["scale"]),)
    argv = (*scale, *(("/work",) if writes else ()))
    task = Task(source, argv=argv, directory=directory if writes else None)
    taken = side_by_side(task, scratch, spec["repetitions"])
    small = task
    if writes:
        small = Task(source, argv=(str(max(int(scale[0]) // 8, 1)), "/work"), directory=directory)
    modes: dict[str, Callable[[], Taken]] = {"native": Native(small, wasmtime.Engine()), "callbacks": Callbacks(small)}
    return {**taken, "callbacks": take_turns(modes, min(spec["repetitions"], 3))}


def short_calls(scratch: Path, spec: dict[str, Any]) -> dict[str, Any]:
    """Calls from Python, one after the other: natively through wasmtime-py, and through a recording's `Guest`."""
    count = spec["calls"]
    source = recognise(SHORT_CALLS.encode(), "short_calls", "benchmarks/workloads.py", "short_calls")
    out = scratch / "bench.trace"

    def native(engine: wasmtime.Engine) -> Callable[[], Taken]:
        module = wasmtime.Module(engine, source.data)

        def run() -> Taken:
            store = wasmtime.Store(engine)
            exports = wasmtime.Instance(store, module, []).exports(store)
            fill, mix = exports["fill"], exports["mix"]
            fill(store)
            start = time.perf_counter()
            for i in range(count):
                mix(store, i, i)
            return Taken(time.perf_counter() - start)

        return run

    def recorded(raw: bool) -> Callable[[], Taken]:
        def run() -> Taken:
            shutil.rmtree(out, ignore_errors=True)
            recording = Recording(source, Options(out=out), embedded=True)
            with recording.closing():
                guest = recording.link()
                guest.call("fill")
                start = time.perf_counter()
                if raw:
                    for i in range(count):
                        guest.call_raw("mix", [i, i])
                else:
                    for i in range(count):
                        guest.call("mix", i, i)
                end = time.perf_counter()
            return Taken(end - start, closing=time.perf_counter() - end, facts=dict(recording.manifest.totals))

        return run

    def replayed() -> Taken:
        began = time.perf_counter()
        replay = Replay(Trace.open(out))
        verdict = replay.run()
        if verdict.kind != "identical":
            raise SystemExit(f"short calls: {verdict.headline()}")
        return Taken(time.perf_counter() - began, facts={"moments": replay.moments})

    modes: dict[str, Callable[[], Taken]] = {
        "native": native(wasmtime.Engine()),
        "profile": native(PROFILE.engine),
        "recorded_raw": recorded(True),
        "recorded": recorded(False),
        "replayed": replayed,
    }
    return {"calls": count, "modes": take_turns(modes, spec["repetitions"]), **_sizes(out)}


def at_rest(scratch: Path, spec: dict[str, Any]) -> dict[str, Any]:
    """A long recording, then: its size, how fast its records become columns again, and how fast SQL reads them."""
    events, repetitions = spec["events"], spec["repetitions"]
    out = scratch / "bench.trace"
    recorded = Recorded(Task(load(IMPORT_LOOP), "run", (events,)), out)()
    converted, converted_rows = _convert(out, scratch, min(events, 5_000_000), repetitions)
    return {
        "events": recorded.facts["records"],
        "bytes": recorded.facts["bytes"],
        "convert_seconds": converted,
        "convert_events": converted_rows,
        "sql": SQL,
        "sql_seconds": _ask(out, repetitions),
        **_sizes(out),
    }


def _convert(trace: Path, scratch: Path, limit: int, repetitions: int) -> tuple[list[float], int]:
    manifest = Trace.open(trace).manifest
    windows, rows = [], 0
    with EventsReader(trace / EVENTS) as reader:
        for window in reader.windows():
            windows.append(bytes(window.data))
            rows += window.rows
            if rows >= limit:
                break
    seconds = []
    for number in range(repetitions + 1):
        file = scratch / f"converted-{number}.parquet"
        began = time.perf_counter()
        with EventsWriter(file, manifest.imports, manifest.exports) as writer:
            for data in windows:
                writer.write_window(data)
        seconds.append(time.perf_counter() - began)
        file.unlink()
    return seconds[1:], rows


SQL = 'SELECT "import", status, count(*) AS calls, sum(received) AS bytes, max(time_ns) AS last FROM events GROUP BY ALL'


def _ask(trace: Path, repetitions: int) -> list[float]:
    from traces.query import query

    seconds = []
    for _ in range(repetitions + 1):
        began = time.perf_counter()
        table = query(trace, SQL)
        seconds.append(time.perf_counter() - began)
        assert table.num_rows >= 1
    return seconds[1:]


SECTIONS: dict[str, Callable[[Path, dict[str, Any]], dict[str, Any]]] = {
    "import_loop": import_loop,
    "program": program,
    "short_calls": short_calls,
    "at_rest": at_rest,
    **travel.SECTIONS,
    **screen.SECTIONS,
}


def main(argv: list[str]) -> int:
    section, spec = argv[0], json.loads(argv[1])
    answer = os.fdopen(os.dup(1), "w")
    # The guests' own output costs them a system call all the same, and nobody reads it.
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 1)
        quiet = os.dup(2)
        os.dup2(nowhere.fileno(), 2)
    scratch = Path(tempfile.mkdtemp(prefix="reprise-bench-", dir=spec.get("scratch")))
    try:
        result = SECTIONS[section](scratch, spec)
    except BaseException:
        os.dup2(quiet, 2)
        raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    json.dump(result, answer)
    answer.close()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
