"""The benchmarks: native, recorded, replayed and called back through Python, side by side in one run, held against the targets.

    python benchmarks/bench.py                 measures everything (minutes), prints the table, writes benchmarks/RESULTS.md
    python benchmarks/bench.py --no-write      only prints
    python benchmarks/bench.py --quick         a smoke run: every row, on next to no work; its numbers mean nothing
    python benchmarks/bench.py --only REGEX    sections whose name matches; writes nothing

Ratios are taken per repetition, between runs that stood next to each other in time; a row shows their median and range. "native"
is plain wasmtime with its default engine and its own WASI. Reprise's engine profile alone is a row of its own where it matters.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
RESULTS = HERE / "RESULTS.md"
PROGRAMS = ("compress", "hash", "interp", "matrix", "parse", "raytrace", "sort")
"""Programs that do real work; `write_heavy` is about its imports and stands apart."""

Result = dict[str, Any]
Taken = list[dict[str, Any]]


@dataclass(frozen=True)
class Effort:
    """How much is measured."""

    repetitions: int
    calls: int
    """Of the import-bound loop."""
    exports: int
    """Short calls."""
    scale: int | None
    """Of the programs; None is each program's own."""
    writes: int
    """Of the write-heavy loop, in thousands."""
    events: int
    """Of the recording that is queried and converted."""
    starts: int
    """Whole processes, each."""
    large: int
    """Bytes of the module that is made ready to debug."""
    journey: int
    """Scale of the program that is travelled in: at 12,000 it runs for about 10 s."""
    seeks: int
    """Journeys to marks drawn at random; a sixth as many places are stepped at."""
    keys: int
    """Times that each key is pressed in the inspector."""


FULL = Effort(
    repetitions=5,
    calls=5_000_000,
    exports=100_000,
    scale=None,
    writes=400,
    events=10_000_000,
    starts=9,
    large=1 << 20,
    journey=12_000,
    seeks=120,
    keys=12,
)
QUICK = Effort(
    repetitions=1, calls=20_000, exports=200, scale=1, writes=1, events=20_000, starts=1, large=100_000, journey=100, seeks=6,
    keys=1,
)  # fmt: skip


@dataclass
class Row:
    """One line of the table."""

    what: str
    median: float
    low: float
    high: float
    unit: str
    """"×" of native, or a unit of its own."""
    note: str = ""
    target: float | None = None
    at_least: bool = False
    """The target is a lower bound."""

    @property
    def met(self) -> bool | None:
        """By the median, to two decimals; None without a target."""
        if self.target is None:
            return None
        median = round(self.median, 2)
        return median >= self.target if self.at_least else median <= self.target

    @property
    def verdict(self) -> str:
        if self.target is None or self.met is None:
            return ""
        if self.met:
            return "met"
        by = self.target / self.median if self.at_least else self.median / self.target
        return f"MISSED by {(by - 1) * 100:.0f} %"

    def cells(self) -> tuple[str, str, str, str, str, str]:
        target = "" if self.target is None else f"{'≥' if self.at_least else '≤'} {_number(self.target)} {self.unit}"
        spread = "" if self.low == self.high else f"{_number(self.low)}–{_number(self.high)}"
        return self.what, f"{_number(self.median)} {self.unit}", spread, target, self.verdict, self.note


@dataclass
class Section:
    title: str
    rows: list[Row] = field(default_factory=list)

    def without_targets(self) -> Section:
        """For a smoke run, whose numbers meet and miss nothing."""
        return Section(self.title, [replace(row, target=None) for row in self.rows])


def _number(value: float) -> str:
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}" if value < 0.1 or value >= 10 else f"{value:.3f}".rstrip("0").rstrip(".")


def of(values: Iterable[float], what: str, unit: str, note: str = "", target: float | None = None, at_least: bool = False) -> Row:
    listed = list(values)
    return Row(what, statistics.median(listed), min(listed), max(listed), unit, note, target, at_least)


def ratios(taken: Taken, native: Taken, key: str = "guest") -> list[float]:
    return [a[key] / b[key] for a, b in zip(taken, native, strict=True)]


def middle(taken: Taken, key: str = "guest") -> float:
    return statistics.median(t[key] for t in taken)


def thread(taken: Taken, native: Taken) -> str:
    """The guest's own thread, without what it waited: tells work from waiting, and from a machine that is busy."""
    return f"its thread's CPU {statistics.median(ratios(taken, native, 'cpu')):.3g} ×"


def seconds(value: float) -> str:
    return f"{value:.3g} s" if value >= 1 else f"{value * 1e3:.3g} ms" if value >= 1e-3 else f"{value * 1e6:.3g} µs"


# -- the sections ----------------------------------------------------------------------------------------------------------


class Bench:
    def __init__(self, effort: Effort, scratch: Path) -> None:
        self.effort = effort
        self.scratch = scratch

    def child(self, section: str, **spec: Any) -> Result:
        """One section of `workloads.py`, in a process of its own."""
        spec = {"repetitions": self.effort.repetitions, "scratch": str(self.scratch), **spec}
        done = subprocess.run(
            [sys.executable, str(HERE / "workloads.py"), section, json.dumps(spec)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
        if done.returncode != 0:
            lines = done.stderr.strip().splitlines() or [f"ended with {done.returncode}"]
            raise SystemExit(f"bench: section {section} failed: {lines[-1]}")
        result: Result = json.loads(done.stdout)
        return result

    def import_loop(self) -> Section:
        found = self.child("import_loop", calls=self.effort.calls)
        modes, calls = found["modes"], found["calls"]

        def each(taken: Taken, count: int = calls) -> str:
            return f"{middle(taken) / count * 1e9:.1f} ns a call"

        native = modes["native"]
        few, count = found["callbacks"], found["callback_calls"]
        events = modes["recorded"][0]["facts"]["records"]
        return Section(
            f"Import-bound loop: {calls:,} calls of clock_time_get, guest time",
            [
                of((t["guest"] * 1e9 / calls for t in native), "native", "ns a call"),
                of(ratios(modes["profile"], native), "native, Reprise's engine profile", "×", each(modes["profile"])),
                of(
                    ratios(modes["recorded"], native),
                    "recorded",
                    "×",
                    each(modes["recorded"]) + "; " + thread(modes["recorded"], native),
                    1.3,
                ),
                of(
                    ratios(modes["replayed"], native),
                    "replayed",
                    "×",
                    each(modes["replayed"]) + "; " + thread(modes["replayed"], native),
                    0.2,
                ),
                of(ratios(few["callbacks"], few["native"]), "plain Python callbacks", "×", each(few["callbacks"], count)),
                of((t["closing"] for t in modes["recorded"]), "closing the recording, after the guest", "s"),
                of([found["sizes"]["events.parquet"] / events], "events.parquet at rest", "bytes an event", "", 4.0),
            ],
        )

    def whole(self) -> Section:
        """Processes from start to end, for the same loop as a command."""
        module = self.scratch / "loop.wasm"
        self._loop_command(module)
        out = self.scratch / "whole.trace"
        native = [sys.executable, str(HERE / "plain.py"), str(module)]
        record = [sys.executable, "-m", "reprise", "record", "-o", str(out), str(module)]
        replay = [sys.executable, "-m", "reprise", "replay", str(out)]

        def fresh() -> None:
            shutil.rmtree(out, ignore_errors=True)

        times = self._processes(
            {"native": native, "record": record, "replay": replay}, {"record": fresh}, max(self.effort.repetitions, 1)
        )
        title = f"Import-bound loop: {self.effort.calls:,} calls, whole commands from start to exit (code cache warm)"
        return Section(
            title,
            [
                of(times["native"], "native (plain.py)", "s"),
                of(
                    _per(times["record"], times["native"]),
                    "`reprise record`, to a closed trace",
                    "×",
                    seconds(_mid(times["record"])),
                    2.2,
                ),
                of(_per(times["replay"], times["native"]), "`reprise replay`", "×", seconds(_mid(times["replay"]))),
            ],
        )

    def write_heavy(self) -> Section:
        found = self.child("program", name="write_heavy", scale=self.effort.writes)
        modes, native = found["modes"], found["modes"]["native"]
        writes = self.effort.writes * 1000
        few = found["callbacks"]
        events = modes["recorded"][0]["facts"]["records"]
        return Section(
            f"Write-heavy loop: {writes:,} fd_writes of 17 bytes, half to a file, with compute between them, guest time",
            [
                of((t["guest"] * 1e9 / writes for t in native), "native", "ns a write"),
                of(ratios(modes["profile"], native), "native, Reprise's engine profile", "×"),
                of(ratios(modes["recorded"], native), "recorded", "×", thread(modes["recorded"], native)),
                of(ratios(modes["replayed"], native), "replayed", "×", thread(modes["replayed"], native)),
                of(ratios(few["callbacks"], few["native"]), "plain Python callbacks", "×"),
                of((t["closing"] for t in modes["recorded"]), "closing the recording, after the guest", "s"),
                of(
                    [found["sizes"]["events.parquet"] / events],
                    "events.parquet at rest",
                    "bytes an event",
                    "of 44 that are payload",
                ),
            ],
        )

    def short_calls(self) -> Section:
        found = self.child("short_calls", calls=self.effort.exports)
        modes, native, calls = found["modes"], found["modes"]["native"], found["calls"]

        def each(taken: Taken) -> str:
            return f"{middle(taken) / calls * 1e6:.1f} µs a call"

        return Section(
            f"{calls:,} short export calls from Python, 16 MiB of memory",
            [
                of((t["guest"] * 1e6 / calls for t in native), "native (wasmtime-py)", "µs a call"),
                of(ratios(modes["recorded"], native), "recorded, `Guest.call`", "×", each(modes["recorded"]), 1.5),
                of(ratios(modes["recorded_raw"], native), "recorded, `Guest.call_raw`", "×", each(modes["recorded_raw"])),
                of(ratios(modes["replayed"], native), "replayed, whole replay", "×", each(modes["replayed"])),
                of((t["closing"] for t in modes["recorded"]), "closing the recording, after the last call", "s"),
            ],
        )

    def programs(self) -> Section:
        rows: list[Row] = []
        recorded: list[float] = []
        replayed: list[float] = []
        for name in PROGRAMS:
            found = self.child("program", name=name, scale=self.effort.scale)
            modes, native = found["modes"], found["modes"]["native"]
            profile = statistics.median(ratios(modes["profile"], native))
            took = f"native {seconds(middle(native))}; engine profile alone {profile:.3f} ×; {thread(modes['recorded'], native)}"
            rows.append(of(ratios(modes["recorded"], native), f"{name}, recorded", "×", took, 1.02))
            closing, digests = (seconds(middle(modes["recorded"], key)) for key in ("closing", "digests"))
            rows.append(
                of(
                    ratios(modes["replayed"], native),
                    f"{name}, replayed",
                    "×",
                    f"closing {closing}, of it digests {digests}",
                    1.0,
                )
            )
            called = found["callbacks"]
            rows.append(of(ratios(called["callbacks"], called["native"]), f"{name}, plain Python callbacks", "×"))
            recorded.append(rows[-3].median)
            replayed.append(rows[-2].median)
        for what, values, target in (("recorded", recorded, 1.02), ("replayed", replayed, 1.0)):
            mean = math.exp(statistics.fmean(map(math.log, values)))
            rows.append(
                Row(f"geometric mean, {what}", mean, min(values), max(values), "×", "range: of the programs' medians", target)
            )
        return Section("Programs that do real work (benchmarks/programs), guest time", rows)

    def at_rest(self) -> Section:
        found = self.child("at_rest", events=self.effort.events, repetitions=min(self.effort.repetitions, 5))
        events = found["events"]
        rate = [found["convert_events"] / s / 1e6 for s in found["convert_seconds"]]
        everything = sum(found["sizes"].values())
        return Section(
            f"At rest: a recording of {events:,} events",
            [
                of(
                    rate,
                    "journal windows to events.parquet",
                    "M events/s",
                    f"{found['convert_events']:,} events, alone",
                    5.0,
                    True,
                ),
                of(
                    [found["sizes"]["events.parquet"] / events],
                    "events.parquet",
                    "bytes an event",
                    f"{found['bytes'] / events:.1f} as records",
                    4.0,
                ),
                of([everything / events], "the whole trace", "bytes an event"),
                of(found["sql_seconds"], "SQL aggregate over all events, connecting included", "s", f"`{found['sql']}`", 1.0),
                of([found["peak_kib"] / 1024], "peak memory of the process that did all this", "MiB"),
            ],
        )

    def start_up(self) -> Section:
        module, out, small = self.scratch / "trivial.wasm", self.scratch / "made.trace", self.scratch / "small.trace"
        module.write_bytes(_assembled('(module (memory (export "memory") 1) (func (export "_start")))'))
        guest = ROOT / "tests" / "guests" / "import_loop.wasm"
        reprise = [sys.executable, "-m", "reprise"]
        self._run([*reprise, "record", "-o", str(small), "--invoke", "run", "--arg", "1000", str(guest)])

        def fresh() -> None:
            shutil.rmtree(out, ignore_errors=True)

        commands = {
            "python": [sys.executable, "-c", "import wasmtime"],
            "native": [sys.executable, str(HERE / "plain.py"), str(module)],
            "replay": [*reprise, "replay", str(small)],
            "record": [*reprise, "record", "-o", str(out), str(module)],
        }
        times = self._processes(commands, {"record": fresh}, self.effort.starts)
        return Section(
            "Start-up: whole processes (code cache warm)",
            [
                of(times["python"], "python -c 'import wasmtime'", "s"),
                of(times["native"], "a trivial module, native (plain.py)", "s"),
                of(times["record"], "`reprise record` of a trivial module", "s"),
                of(times["replay"], "`reprise replay` of a trace of 1,000 events", "s", "", 0.35),
            ],
        )

    def time_machine(self) -> Section:
        """Three workloads in one table: what the twin costs, how soon one can look, how fast one gets about."""
        rows: list[Row] = []
        few = min(self.effort.repetitions, 2)
        medians = []
        for name in PROGRAMS:
            found = self.child("twins", name=name, scale=self.effort.scale, repetitions=few)
            plain, twin = found["modes"]["replayed"], found["modes"]["twin"]
            rate = found["instructions"] / middle(twin) / 1e6
            note = f"replay {seconds(middle(plain))}; {rate:,.0f} M instructions/s; {thread(twin, plain)}"
            rows.append(of(ratios(twin, plain), f"{name}: twin / plain replay", "×", note))
            medians.append(rows[-1].median)
        mean = math.exp(statistics.fmean(map(math.log, medians)))
        rows.append(
            Row("geometric mean: twin / plain replay", mean, min(medians), max(medians), "×", "range: of the medians", 1.8)
        )

        made = self.child("large", size=self.effort.large, repetitions=few)
        size = (
            f"{made['bytes'] / 2**20:.2f} MiB, {made['instructions']:,} instructions; twin {made['twin_bytes'] / 2**20:.1f} MiB"
        )
        speed = [made["instructions"] / s / 1e6 for s in made["rewriting"]]
        compiled = f"original {seconds(_mid(made['original']))}, twin {seconds(_mid(made['compiling']))}"
        rows += [
            of(speed, "a large module: rewriting", "M instructions/s", size, 1.0, True),
            of(_per(made["compiling"], made["original"]), "a large module: compiling, twin / original", "×", compiled),
            of(made["cold"], "a large module: from start to the first look, no caches", "s", "whole process", 5.0),
            of(made["warm"], "a large module: from start to the first look, from cache", "s", "whole process", 1.0),
        ]

        went = self.child(
            "journeys", scale=self.effort.journey, repetitions=few, seeks=self.effort.seeks, places=-(-self.effort.seeks // 6)
        )
        title = f"{went['recorded']:.1f} s recorded, {went['instructions'] / 1e9:.2f} G instructions"
        count = max(1, went["checkpoints"])
        both = [1e3 * s for s in (*went["forward"], *went["backward"])]
        rows += [
            of(
                _per(went["with"], went["without"]),
                "the pass: with / without checkpoints",
                "×",
                f"{title}; without {seconds(_mid(went['without']))}",
            ),
            of((1e3 * s for s in went["forking"]), "a checkpoint: forking it", "ms", f"{count} kept"),
            of(
                [went["taken"] / count / 2**20],
                "a checkpoint: memory of its own, and its part of what several share",
                "MiB",
                f"median of its own alone: {went['private'] / 2**20:.1f} MiB",
            ),
            of((1e3 * s for s in went["seeks"]), "a seek to any instruction, median", "ms", f"{len(went['seeks'])} marks", 80),
            of([1e3 * max(went["seeks"])], "a seek to any instruction, worst", "ms", "", 200),
            of((1e3 * s for s in went["forward"]), "a step of one instruction, forward, median", "ms", "", 50),
            of((1e3 * s for s in went["backward"]), "a step of one instruction, backward, median", "ms", "", 50),
            of([max(both)], "a step of one instruction, worst", "ms"),
        ]
        return Section("The time machine", rows)

    def inspector(self) -> Section:
        """Whole processes in a pseudo terminal of 120 by 40: from the start, or a key, to the last byte that is drawn."""
        found = self.child(
            "inspector", events=self.effort.events, scale=self.effort.journey, places=self.effort.keys,
            repetitions=min(self.effort.repetitions, 3),
        )  # fmt: skip
        size = f"{found['events']:,} events"

        def keys(where: str, name: str, what: str, target: float | None = None) -> Row:
            times = [1e3 * s for s in found[where][name]]
            return of(times, what, "ms", f"{len(times)} keys, worst {max(times):,.0f} ms", target)

        return Section(
            "The inspector, from a key to the last byte it draws",
            [
                of(found["paints"], "a large recording: from start to the first screen", "s", size, 1.0),
                of(found["places"], "a large recording: from start to the place where it opens", "s", size),
                keys("demo", "event", "to another event", 50),
                keys("demo", "line", "a step by source line, forward", 50),
                keys("demo", "line_back", "a step by source line, backward", 50),
                keys("demo", "instruction", "a step of one instruction, forward", 50),
                keys("demo", "instruction_back", "a step of one instruction, backward", 50),
                keys("long", "instruction", "the same in a run of seconds, forward", 50),
                keys("long", "instruction_back", "the same in a run of seconds, backward", 50),
            ],
        )

    # -- processes -----------------------------------------------------------------------------------------------------------

    def _loop_command(self, path: Path) -> None:
        text = (ROOT / "tests" / "guests" / "import_loop_start.wat").read_text()
        changed = text.replace("(i32.const 1000000)", f"(i32.const {self.effort.calls})")
        if changed == text and self.effort.calls != 1_000_000:
            raise SystemExit("bench: import_loop_start.wat has no count to change")
        path.write_bytes(_assembled(changed))

    def _processes(
        self, commands: dict[str, list[str]], before: dict[str, Callable[[], None]], repetitions: int
    ) -> dict[str, list[float]]:
        times: dict[str, list[float]] = {name: [] for name in commands}
        for repetition in range(repetitions + 1):
            for name, command in commands.items():
                if name in before:
                    before[name]()
                took = self._run(command)
                if repetition:
                    times[name].append(took)
        return times

    def _run(self, command: list[str]) -> float:
        began = time.perf_counter()
        # Where Reprise is not installed, the repository's own `reprise` is found by the working directory.
        done = subprocess.run(command, cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True)
        took = time.perf_counter() - began
        if done.returncode != 0:
            raise SystemExit(f"bench: {' '.join(command[1:4])} … ended with {done.returncode}: {done.stderr.strip()[-300:]}")
        return took

    def sections(self) -> dict[str, Callable[[], Section]]:
        return {
            "import_loop": self.import_loop,
            "whole": self.whole,
            "write_heavy": self.write_heavy,
            "short_calls": self.short_calls,
            "programs": self.programs,
            "at_rest": self.at_rest,
            "start_up": self.start_up,
            "time_machine": self.time_machine,
            "inspector": self.inspector,
        }


def _assembled(text: str) -> bytes:
    import wasmtime

    return bytes(wasmtime.wat2wasm(text))


def _per(values: list[float], native: list[float]) -> list[float]:
    return [a / b for a, b in zip(values, native, strict=True)]


def _mid(values: list[float]) -> float:
    return statistics.median(values)


# -- reporting -------------------------------------------------------------------------------------------------------------

HEAD = ("what", "median", "min–max", "target", "", "")


def table(sections: Sequence[Section]) -> str:
    rows = [row.cells() for section in sections for row in section.rows]
    widths = [max(len(cells[i]) for cells in [HEAD, *rows]) for i in range(5)]
    lines = []
    for section in sections:
        lines += ["", section.title]
        for cells in (HEAD, *(row.cells() for row in section.rows)):
            text = "  ".join(cell.ljust(width) for cell, width in zip(cells[:5], widths, strict=True))
            lines.append(f"  {text}  {cells[5]}".rstrip())
    return "\n".join(lines[1:])


def markdown(sections: Sequence[Section], machine: Sequence[str], effort: Effort) -> str:
    lines = [
        "# Benchmark results",
        "",
        "Written by `make bench`; do not edit. What is measured, and how, stands in [bench.py](bench.py) and",
        "[workloads.py](workloads.py).",
        "",
        *(f"- {fact}" for fact in machine),
        f"- {effort.repetitions} repetitions after one that is not counted ({effort.starts} for the start-up section).",
        "  The modes take turns within a repetition, in one process for each section; a ratio is taken between runs of one",
        "  repetition. Given are the median and the range; a target is held against the median, to two decimals. Nothing is",
        "  pinned to a core: converting beside the guest is part of what recording costs.",
        "- *native* is plain wasmtime: its default engine configuration and its own WASI, called from Python. *plain Python",
        "  callbacks* is what a recorder without generated Wasm would be: each import is a Python function that calls the native",
        "  one and keeps what it saw in a list. *recorded* and *replayed* are guest time, inside the call of the export.",
        "  Compiling, linking and closing (the last window, digests, tables) stand in rows of their own, or in whole commands.",
    ]
    for section in sections:
        lines += ["", f"## {section.title}", "", "| what | median | min–max | target | | |", "|---|---|---|---|---|---|"]
        for cells in (row.cells() for row in section.rows):
            escaped = [cell.replace("|", "\\|") for cell in cells]
            if cells[4].startswith("MISSED"):
                escaped[4] = f"**{cells[4]}**"
            lines.append(f"| {' | '.join(escaped)} |")
    return "\n".join(lines) + "\n"


def machine() -> list[str]:
    """What the numbers were measured on, in words that name no one's machine."""
    cpu, memory = platform.machine(), ""
    try:
        found = re.search(r"^model name\s*:\s*(.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
        cpu = f"{found[1].strip()}, {cpu}" if found else cpu
        kib = re.search(r"^MemTotal:\s*(\d+)", Path("/proc/meminfo").read_text(), re.MULTILINE)
        memory = f", {int(kib[1]) / 2**20:.0f} GiB of memory" if kib else ""
    except OSError:
        pass  # Not Linux: the architecture has to do.
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    release = ".".join(platform.release().split(".")[:2])
    packages = ", ".join(f"{name} {version(name)}" for name in ("wasmtime", "pyarrow", "duckdb"))
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    return [
        f"{datetime.now(UTC):%Y-%m-%d}; {cpu}, {cores} cores{memory}; {platform.system()} {release}",
        f"{platform.python_implementation()} {platform.python_version()}, {packages}",
        f"load averages when it began (1, 5, 15 minutes): {load}; niceness {os.nice(0)}",
    ]


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="bench.py", description="Measures Reprise against native runs, side by side.")
    parser.add_argument("--quick", action="store_true", help="a smoke run: every row, next to no work")
    parser.add_argument("--only", metavar="REGEX", help="only sections whose name matches")
    parser.add_argument("--repetitions", type=int, metavar="N", help="how often each mode runs")
    parser.add_argument(
        "--write", action=argparse.BooleanOptionalAction, help="write benchmarks/RESULTS.md (default: if everything was measured)"
    )
    args = parser.parse_args(argv)
    effort = QUICK if args.quick else FULL
    if args.repetitions is not None:
        effort = Effort(**{**vars(effort), "repetitions": max(args.repetitions, 1)})
    write = args.write if args.write is not None else not (args.quick or args.only or args.repetitions)
    facts = machine()
    sections: list[Section] = []
    with tempfile.TemporaryDirectory(prefix="reprise-bench-") as scratch:
        for name, measure in Bench(effort, Path(scratch)).sections().items():
            if args.only is None or re.search(args.only, name):
                print(f"measuring {name} …", file=sys.stderr, flush=True)
                found = measure()
                sections.append(found.without_targets() if args.quick else found)
                if args.only is None and not args.quick:
                    print(table(sections[-1:]) + "\n", file=sys.stderr, flush=True)
    print("\n".join(facts))
    print("a smoke run: these numbers say nothing\n" if args.quick else "")
    print(table(sections))
    if write:
        RESULTS.write_text(markdown(sections, facts, effort), encoding="utf-8")
        print(f"\nwritten to {RESULTS.relative_to(ROOT)}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
