"""What `reprise` mounts from this room: replay, verify, and the time machine's at, find and last-write."""

from __future__ import annotations

import argparse
import base64
import contextlib
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from traces._errors import UsageError
from traces.cli import Command, Parser, emit, emit_json_rows, one_line, say
from traces.commands import declare_query, run_query

if TYPE_CHECKING:
    from replayer.machine import TimeMachine
    from replayer.watching import Watch
    from traces.query import Functions


def _declare_replay(parser: Parser) -> None:
    parser.add_argument("trace", metavar="TRACE")
    parser.add_argument("--stdout", action="store_true", help="print what the guest wrote to stdout; the verdict goes to stderr")
    parser.add_argument("--module", metavar="NEW", type=Path, help="replay this module instead of the recorded one")
    parser.add_argument("--json", action="store_true", help="print the verdict as JSON")


def _replay(args: argparse.Namespace) -> int:
    from replayer.api import replay
    from replayer.verdict import Verdict

    module = None
    if args.module is not None:
        try:
            module = args.module.read_bytes()
        except OSError as error:
            raise UsageError(f"--module {args.module}: cannot be read ({error.strerror})") from None
    verdict: Verdict = replay(args.trace, module)
    if args.stdout:
        _print_output(args.trace, verdict)
    out = sys.stderr if args.stdout else sys.stdout
    if args.json:
        print(json.dumps({**verdict.to_json(), "trace": args.trace}, ensure_ascii=False), file=out)
    else:
        for line in verdict.lines(args.trace):
            print(line, file=out)
    return verdict.exit_code


def _print_output(path: str, verdict: object) -> None:
    """What the guest wrote, as far as the replay went along with the recording."""
    from replayer.verdict import Verdict
    from traces.render import output
    from traces.tracedir import Trace

    assert isinstance(verdict, Verdict)
    if verdict.kind == "unusable":
        return
    with Trace.open(path) as trace:
        for piece in output(trace, stop=verdict.events):
            sys.stdout.buffer.write(piece)
    sys.stdout.flush()


def _declare_verify(parser: Parser) -> None:
    parser.add_argument("traces", metavar="TRACE", nargs="+")
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")


def _verify(args: argparse.Namespace) -> int:
    from replayer.api import verify
    from replayer.verdict import EXIT_CODES
    from replayer.verification import worst

    kinds = []
    rows = []
    for number, trace in enumerate(args.traces):
        found = verify(trace)
        kinds.append(found.kind)
        if args.json:
            rows.append(json.dumps(found.to_json(), ensure_ascii=False))
            continue
        if len(args.traces) > 1:
            emit([*([""] if number else []), f"{trace}:"])
        emit(found.lines())
    if args.json:
        emit_json_rows("verification/1", "traces", rows, verdict=worst(kinds))
    return EXIT_CODES[worst(kinds)]


# -- queries: this room computes calls(…) and writes(…) ----------------------------------------------------------------------


def _query(args: argparse.Namespace) -> int:
    def functions(trace: Path) -> Functions:
        from replayer.views import functions as computed

        return computed(trace)

    return run_query(args, functions)


# -- the time machine


def declare_sources(parser: Parser) -> None:
    """Where source files are, for every command that shows them."""
    parser.add_argument(
        "--source",
        metavar="DIR",
        action="append",
        default=[],
        type=Path,
        help="look for source files here, by the end of their path",
    )
    parser.add_argument(
        "--source-map", metavar="FROM=TO", action="append", default=[], help="read source files below FROM in TO instead"
    )


def source_map(args: argparse.Namespace) -> list[tuple[str, str]]:
    """The pairs of `--source-map`."""
    pairs = []
    for text in args.source_map:
        old, found, new = text.partition("=")
        if not found or not old:
            raise UsageError(f"--source-map {text}: write FROM=TO")
        pairs.append((old, new))
    return pairs


def _declare_machine(parser: Parser) -> None:
    parser.add_argument("trace", metavar="TRACE")
    declare_sources(parser)
    parser.add_argument(
        "--no-checkpoints", action="store_true", help="replay every look from the start, without forked processes"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


@contextlib.contextmanager
def _machine(args: argparse.Namespace) -> Iterator[TimeMachine]:
    """The time machine on the trace of a command, proven: its twin did what the recording says."""
    from replayer.machine import TimeMachine

    with TimeMachine(args.trace, checkpoints=not args.no_checkpoints, remap=source_map(args), search=args.source) as machine:
        machine.open_source()
        for note in machine.notes:
            say(f"note: {note}")
        machine.require_proof(_progress(machine))
        yield machine


def _progress(machine: TimeMachine) -> Watch:
    """Tells a terminal how far the run through the recording is, once it takes long."""
    shown = [time.monotonic()]

    def tell(_clock: int, events: int) -> None:
        now = time.monotonic()
        if sys.stderr.isatty() and now - shown[0] > 1:
            shown[0] = now
            print(f"\rreplaying: {events:,} of {machine.events:,} events", end="", file=sys.stderr, flush=True)
            if events >= machine.events:
                print(file=sys.stderr)

    return tell


def _safe(line: str) -> str:
    """A line that may hold words of a guest's, indented as it was."""
    return line[: len(line) - len(line.lstrip(" "))] + one_line(line)


def _declare_at(parser: Parser) -> None:
    _declare_machine(parser)
    parser.add_argument("mark", metavar="MARK", help="1204331, 1204331.2, e123, e123+, start or end")
    parser.add_argument(
        "--memory", metavar="[M/]ADDR:LEN", action="append", default=[], help="print these bytes too; may be given again"
    )
    parser.add_argument(
        "--frame", metavar="N", type=int, default=0, help="show the source and instructions of frame N (0, the innermost)"
    )
    parser.add_argument("--globals", action="store_true", help="print the module's globals too")
    parser.add_argument("--output", action="store_true", help="print what the guest had written to stdout and stderr by then")
    parser.add_argument("--since", metavar="MARK", help="print which bytes of memory differ from what they were at MARK")


def _at(args: argparse.Namespace) -> int:
    from replayer import looking
    from replayer.stops import memory_range

    with _machine(args) as machine:
        ranges = [memory_range(machine, text, 1 << 20) for text in args.memory]
        here = machine.seek(args.mark)
        dumps = []
        for memory, address, length in ranges:
            data = here.read(address, length, memory)
            if len(data) < length:
                size = here.memory_sizes[memory]
                raise UsageError(f"--memory {address:#x}:{length}: memory {memory} has {size:,} bytes at mark {here.mark}")
            dumps.append((memory, address, data))
        if not 0 <= args.frame < max(1, len(here.frames)):
            raise UsageError(f"--frame {args.frame}: there are frames 0 to {len(here.frames) - 1} at mark {here.mark}")
        changes = []
        if args.since is not None:
            for memory in range(len(machine.module.memories)):
                changes += machine.history.changes(machine.mark(args.since), here.mark, memory=memory)
        if args.json:
            found = looking.here_json(here)
            if args.output:
                found["output"] = [
                    {"event": event, "fd": to, "bytes": base64.b64encode(data).decode()}
                    for event, to, data in looking.output_of(here)
                ]
            if args.since is not None:
                found["changes"] = [
                    {"memory": c.memory, "address": f"{c.address:#x}", "old": c.old.hex(), "new": c.new.hex()} for c in changes
                ]
            found["memory"] = [{"memory": m, "address": f"{a:#x}", "bytes": base64.b64encode(d).decode()} for m, a, d in dumps]
            print(json.dumps(found, ensure_ascii=False))
            return 0
        emit(map(_safe, looking.here_lines(here, args.frame)))
        if args.globals:
            kinds = [found.value for found in machine.module.globals]
            emit(f"global {i} = {looking.value_text(kinds[i], bits)}" for i, bits in enumerate(here.globals))
        for _, address, data in dumps:
            emit(looking.memory_lines(data, address))
        if args.output:
            emit(map(_safe, looking.output_lines(here)))
        if args.since is not None:
            emit(
                [f"since mark {machine.mark(args.since)}, {len(changes)} stretches of memory changed" + (":" if changes else "")]
            )
            emit(map(_safe, looking.change_lines(changes)))
    return 0


def _declare_find(parser: Parser) -> None:
    _declare_machine(parser)
    parser.add_argument(
        "--break", dest="breaks", metavar="PLACE", action="append", default=[],
        help="func=NAME, import=MODULE.NAME, line=FILE:LINE or pc=OFFSET; may be given again",
    )  # fmt: skip
    parser.add_argument(
        "--watch",
        metavar="[M/]ADDR:LEN|global=N",
        action="append",
        default=[],
        help="stop at writes of these; may be given again",
    )
    parser.add_argument("--changes", action="store_true", help="with --watch: only writes that change something")
    parser.add_argument(
        "--if", dest="condition", metavar="EXPR", help="only stops at which this holds (see docs/time-machine.md)"
    )
    parser.add_argument("--from", dest="start", metavar="MARK", help="where to begin (the start; with --reverse, the end)")
    parser.add_argument("--reverse", action="store_true", help="search backward")
    parser.add_argument("--count", metavar="N", type=int, default=1, help="how many stops to tell (1; 0 for all)")


def _find(args: argparse.Namespace) -> int:
    from replayer import looking
    from replayer.stops import breakpoint_at, watchpoint_at

    if not args.breaks and not args.watch:
        raise UsageError("find needs something to look for: --break PLACE or --watch ADDR:LEN")
    if args.count < 0:
        raise UsageError("--count: how many stops to tell, from 1; 0 for all")
    with _machine(args) as machine:
        points = [breakpoint_at(machine, text, args.condition) for text in args.breaks]
        watches = [watchpoint_at(machine, text, args.condition, changes_only=args.changes) for text in args.watch]
        mark = machine.mark(args.start or ("end" if args.reverse else "start"))
        rows: list[str] = []
        while not args.count or len(rows) < args.count:
            stop = machine.motion.find(points, watches, start=mark, reverse=args.reverse)
            if stop is None:
                break
            here = machine.seek(stop.mark)
            rows.append(json.dumps(looking.stop_json(stop, here), ensure_ascii=False))
            if not args.json:
                emit([_safe(looking.stop_line(machine, stop, here))])
            mark = stop.mark
        if args.json:
            emit_json_rows("stops/1", "stops", rows)
    if not rows:
        say("nothing found")
    return 0 if rows else 1


def _declare_last_write(parser: Parser) -> None:
    _declare_machine(parser)
    parser.add_argument("range", metavar="[M/]ADDR[:LEN]", help="the bytes in question")
    parser.add_argument("--before", metavar="MARK", default="end", help="only writes before this mark (end)")
    parser.add_argument("--count", metavar="N", type=int, default=1, help="how many writes to tell, going further back (1)")


def _last_write(args: argparse.Namespace) -> int:
    from replayer import looking
    from replayer.stops import memory_range

    if args.count < 1:
        raise UsageError("--count: how many writes to tell, from 1")
    with _machine(args) as machine:
        memory, address, length = memory_range(machine, args.range, 1 << 20)
        mark = machine.mark(args.before)
        rows: list[str] = []
        while len(rows) < args.count:
            found = machine.history.last_write(address, length, memory=memory, before=mark)
            if found is None:
                break
            rows.append(json.dumps(looking.write_json(machine, found), ensure_ascii=False))
            if not args.json:
                emit(map(_safe, looking.write_lines(machine, found)))
            if found.by == "module":
                break
            mark = found.mark
        if args.json:
            emit_json_rows("writes/1", "writes", rows)
    if not rows:
        say(f"nothing ever wrote {args.range} before mark {mark}")
    return 0 if rows else 1


COMMANDS = (
    Command("replay", "Prove", "re-execute a trace bit for bit and say whether the guest did the same", _replay, _declare_replay),
    Command("verify", "Prove", "check a trace's integrity and origin, and replay it", _verify, _declare_verify),
    Command("query", "Look", "SQL over a trace, or over a directory of traces", _query, declare_query),
    Command("at", "Look", "look into the guest at one moment: frames, variables, source, memory", _at, _declare_at),
    Command("find", "Look", "find where a function, line or import is reached, or memory is written", _find, _declare_find),
    Command("last-write", "Look", "find who wrote these bytes last", _last_write, _declare_last_write),
)
