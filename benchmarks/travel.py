"""What is measured of the time machine: the twin, how soon a module can be looked into, the pass and its checkpoints, journeys.

Sections for `workloads.py`, each in a process of its own. The twin runs under the same replay as the module it was made from,
from the same trace, in turns; compiling is left out of that and has rows of its own. Journeys go to marks drawn with a fixed
seed.

    python benchmarks/travel.py TRACE      opens a time machine, looks at the first instruction, and prints nothing: to be timed
"""

from __future__ import annotations

import os
import random
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

LARGE_PROGRAM = "interp"
"""Its functions, over and over, make the large module."""
JOURNEY_PROGRAM = "parse"
"""A real program with a heap of some MiB that it keeps writing to."""
SEED = 20261121


# -- the twin ----------------------------------------------------------------------------------------------------------------


class _Onlooker:
    """Owns a replay of a twin and never wants to stop it."""

    def at_start(self) -> None: ...
    def at_head(self, clock: int, pc: int) -> None: ...
    def at_event(self, record: Any) -> None: ...
    def on_log(self, log: bytes) -> None: ...
    def on_hit(self, pc: int) -> None: ...
    def on_trap(self, error: BaseException) -> int | None: ...
    def on_marks(self, first: int, marks: bytes) -> None: ...


def twins(scratch: Path, spec: dict[str, Any]) -> dict[str, Any]:
    """One program: its trace replayed, and its twin under the same replay."""
    from workloads import PROGRAMS, Recorded, Taken, Task, load, take_turns

    from recorder.boundary.engine import Engine
    from replayer.recorded import Recorded as Given
    from replayer.replay import Replay
    from replayer.twin import build_twin
    from replayer.twinreplay import TWIN_STACK, TwinReplay
    from traces.tracedir import Trace

    out = scratch / "bench.trace"
    scale = () if spec.get("scale") is None else (str(spec["scale"]),)
    recorded = Recorded(Task(load(PROGRAMS / f"{spec['name']}.wasm"), argv=scale), out)()
    twin = build_twin((out / "module.wasm").read_bytes())
    begun: list[int] = []

    def timed(replay: Replay) -> Taken:
        call = replay.machine.call
        guest = cpu = 0.0

        def measured(*arguments: Any) -> Any:
            nonlocal guest, cpu
            entered, spent = time.perf_counter(), time.thread_time()
            try:
                return call(*arguments)
            finally:
                guest += time.perf_counter() - entered
                cpu += time.thread_time() - spent

        replay.machine.call = measured  # type: ignore[method-assign]
        verdict = replay.run()
        if verdict.kind != "identical":
            raise SystemExit(f"{spec['name']}: {verdict.headline()}")
        return Taken(guest, cpu)

    def plain() -> Taken:
        return timed(Replay(Trace.open(out)))

    def twinned() -> Taken:
        replay = TwinReplay(Given.of(Trace.open(out)), twin, None, _Onlooker(), Engine().profile.max_wasm_stack * TWIN_STACK)
        taken = timed(replay)
        begun.append(replay.begun)
        return taken

    modes = take_turns({"replayed": plain, "twin": twinned}, spec["repetitions"])
    return {"modes": modes, "instructions": begun[0], "recorded": recorded.guest}


# -- a large module ----------------------------------------------------------------------------------------------------------


def enlarged(data: bytes, size: int) -> bytes:
    """A module of at least `size` bytes: every function again and again, behind the others, so that no index changes."""
    from recorder.wasm.binary import section, uleb
    from recorder.wasm.module import CODE, FUNCTION, parse_module
    from recorder.wasm.rewrite import rebuild

    module = parse_module(data)
    functions, code = module.section(FUNCTION), module.section(CODE)
    assert functions is not None and code is not None
    count = len(module.code)
    types, bodies = _items(data[functions.start : functions.end]), _items(data[code.start : code.end])
    copies = max(1, -(-size // max(1, len(bodies))))
    replaced = {
        FUNCTION: section(FUNCTION, uleb(count * copies) + types * copies),
        CODE: section(CODE, uleb(count * copies) + bodies * copies),
    }
    return rebuild(module, replace=replaced)


def _items(content: bytes) -> bytes:
    """A vector's items, without their number."""
    at = 0
    while content[at] & 0x80:
        at += 1
    return content[at + 1 :]


def large(scratch: Path, spec: dict[str, Any]) -> dict[str, Any]:
    """Rewriting and compiling a large module, and how soon it can be looked into, without any cache and with one."""
    from workloads import PROGRAMS, Recorded, Task

    from recorder.boundary.engine import Engine
    from recorder.source import recognise
    from replayer.twin import build_twin

    data = enlarged((PROGRAMS / f"{LARGE_PROGRAM}.wasm").read_bytes(), spec["size"])
    out = scratch / "bench.trace"
    Recorded(Task(recognise(data, "large", "large", "large"), argv=("1",)), out)()
    rewriting, compiling, original = [], [], []
    twin = build_twin(data)
    engine = Engine()
    for _ in range(spec["repetitions"]):
        began = time.perf_counter()
        twin = build_twin(data)
        rewriting.append(time.perf_counter() - began)
        began = time.perf_counter()
        engine.compile(data, keep=False)
        original.append(time.perf_counter() - began)
        began = time.perf_counter()
        engine.compile(twin.data, keep=False)
        compiling.append(time.perf_counter() - began)
    cold, warm = [], []
    for number in range(spec["repetitions"]):
        cache = scratch / f"cache{number}"
        environment = {**os.environ, "XDG_CACHE_HOME": str(cache)}
        environment.pop("REPRISE_NO_CACHE", None)
        for times in (cold, warm):
            began = time.perf_counter()
            subprocess.run([sys.executable, __file__, str(out)], check=True, env=environment, cwd=ROOT)
            times.append(time.perf_counter() - began)
        shutil.rmtree(cache, ignore_errors=True)
    return {
        "bytes": len(data),
        "twin_bytes": len(twin.data),
        "instructions": twin.instructions,
        "rewriting": rewriting,
        "original": original,
        "compiling": compiling,
        "cold": cold,
        "warm": warm,
    }


# -- the pass and its checkpoints --------------------------------------------------------------------------------------------


def _pass(job: Any, interval: float, most: int) -> tuple[float, list[Any], float]:
    """Seconds from start to end of one pass, the checkpoints it left, and the seconds spent in forking."""
    from replayer.worker import Moment

    kept = []
    forking = 0.0
    moment = job.start()
    began = time.perf_counter()
    moment.send({"do": "pass", "interval": interval, "most": most})
    while True:
        message, _, handle = moment.receive()
        if handle is not None:
            kept.append(Moment.adopt(handle, message["checkpoint"], message["at"], job.details))
            forking = message["fork_ms"] / 1e3
        if "passed" in message:
            break
        if "error" in message or "fatal" in message:
            raise SystemExit(f"the pass failed: {message}")
    took = time.perf_counter() - began
    moment.close()
    return took, kept, forking


def journeys(scratch: Path, spec: dict[str, Any]) -> dict[str, Any]:
    """A long recording: its pass with and without checkpoints, what these take, and how long it takes to go anywhere in it."""
    from workloads import PROGRAMS, Recorded, Task, load

    from replayer.checkpoints import memory_of, private_memory
    from replayer.machine import INTERVAL, MOST, TimeMachine

    out = scratch / "bench.trace"
    task = Task(load(PROGRAMS / f"{JOURNEY_PROGRAM}.wasm"), argv=(str(spec["scale"]),))
    recorded = Recorded(task, out)()
    without, with_, forking = [], [], []
    with TimeMachine(out) as machine:
        machine.wait()
        clocks = machine.checkpoints.clocks
        total = machine.total
        moments = [m for m in machine.checkpoints.all() if m.clock in set(clocks)]
        private = [private_memory(m.pid) for m in moments]
        taken = sum(memory_of(m.pid) for m in moments)
        draw = random.Random(SEED)
        seeks = [_timed(lambda n=n: machine.seek(n)) for n in draw.sample(range(total), min(spec["seeks"], total))]
        forward, backward = [], []
        for _ in range(spec["places"]):
            at = draw.randrange(16, total - 16)
            machine.seek(at)
            for step in range(1, 6):
                forward.append(_timed(lambda n=at + step: machine.seek(n)))
            for step in range(4, -6, -1):
                backward.append(_timed(lambda n=at + step: machine.seek(n)))
        for _ in range(spec["repetitions"]):
            took, kept, _ = _pass(machine.job, 1e9, MOST)
            without.append(took)
            took, kept, spent = _pass(machine.job, INTERVAL, MOST)
            with_.append(took)
            forking.append(spent / max(1, len(kept)))
            for moment in kept:
                moment.close()
    return {
        "recorded": recorded.guest,
        "instructions": total,
        "checkpoints": len(clocks),
        "private": statistics.median(private) if private else 0,
        "taken": taken,
        "without": without,
        "with": with_,
        "forking": forking,
        "seeks": seeks,
        "forward": forward,
        "backward": backward,
    }


def _timed(what: Callable[[], Any]) -> float:
    began = time.perf_counter()
    what()
    return time.perf_counter() - began


SECTIONS: dict[str, Callable[[Path, dict[str, Any]], dict[str, Any]]] = {"twins": twins, "large": large, "journeys": journeys}


def main(argv: list[str]) -> int:
    from replayer.machine import TimeMachine

    with TimeMachine(argv[0]) as machine:
        frame = machine.seek(0).frame
        assert frame is not None and frame.instruction
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
