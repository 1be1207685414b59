"""What `reprise` mounts from this room: recover, pack, unpack, show, events, query, export."""

from __future__ import annotations

import argparse
import csv
import importlib
import io
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from traces._errors import TraceError, UsageError
from traces.cli import Command, Parser, emit, emit_json, emit_json_rows, new_file, say

if TYPE_CHECKING:
    from traces.query import Functions
    from traces.render import Filter
    from traces.tracedir import Trace


def _declare_json(parser: Parser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON")


# -- recover, pack, unpack -----------------------------------------------------------------------------------------------


def _declare_recover(parser: Parser) -> None:
    parser.add_argument("trace", metavar="TRACE", type=Path)
    _declare_json(parser)


def _recover(args: argparse.Namespace) -> int:
    from traces.tracedir import recover

    if not args.trace.is_dir():
        raise TraceError(f"{args.trace}: no such trace; name the directory that the recorder left")
    manifest = recover(args.trace)
    records = int(manifest.totals.get("records", 0))
    say(f"{manifest.outcome.get('message')}; {records:,} events; trace {args.trace}")
    if args.json:
        emit_json("recovery/1", trace=str(args.trace), outcome=manifest.outcome, events=records)
    return 0


def _declare_pack(parser: Parser) -> None:
    parser.add_argument("trace", metavar="TRACE", type=Path)
    parser.add_argument("-o", "--output", metavar="FILE", type=Path, help="the file to make (default: TRACE.tar)")
    _declare_json(parser)


def _pack(args: argparse.Namespace) -> int:
    from traces.packing import pack

    trace = Path(os.path.normpath(args.trace))
    out = pack(trace, args.output or trace.with_name(trace.name + ".tar"))
    size = out.stat().st_size
    say(f"packed {trace} into {out}, {size:,} bytes")
    if args.json:
        emit_json("pack/1", trace=str(trace), file=str(out), bytes=size)
    return 0


def _declare_unpack(parser: Parser) -> None:
    parser.add_argument("file", metavar="FILE", type=Path)
    parser.add_argument("-o", "--output", metavar="DIR", type=Path, help="the trace to make (default: FILE without .tar)")
    _declare_json(parser)


def _unpack(args: argparse.Namespace) -> int:
    from traces.packing import unpack

    name = args.file.name.removesuffix(".tar")
    out = args.output or args.file.with_name(name if name != args.file.name else f"{name}.trace")
    unpack(args.file, out)
    say(f"unpacked {args.file} into {out}")
    if args.json:
        emit_json("unpack/1", file=str(args.file), trace=str(out))
    return 0


# -- show ----------------------------------------------------------------------------------------------------------------


def _declare_show(parser: Parser) -> None:
    parser.add_argument("trace", metavar="TRACE", type=Path)
    _declare_json(parser)


def _show(args: argparse.Namespace) -> int:
    from dataclasses import asdict

    from traces.render import summarise, summary_lines
    from traces.tracedir import Trace

    with Trace.open(args.trace) as trace:
        summary = summarise(trace)
        if not args.json:
            emit(_sensible(trace, lambda: list(summary_lines(trace, summary))))
            return 0
        emit_json(
            "trace/1",
            trace=str(args.trace),
            unfinished=trace.recovered,
            manifest=asdict(trace.manifest),
            crossings=summary.crossings,
            bytes_sent=summary.sent,
            bytes_received=summary.received,
            kinds=summary.kinds,
            imports=[traffic.to_json() for traffic in summary.imports],
            exports=[{"export": name, "calls": count} for name, count in summary.exports.items()],
            spans=len(summary.spans),
        )
    return 0


def _sensible(trace: Trace, work: Any) -> Any:
    """A manifest may be well-formed and still hold nonsense where text is expected."""
    try:
        return work()
    except (AttributeError, TypeError, KeyError, IndexError, ValueError) as error:
        raise TraceError(
            f"{trace.given}: the manifest holds something that makes no sense ({error}); restore it from a copy"
        ) from None


# -- events --------------------------------------------------------------------------------------------------------------

AROUND = 5
"""Events shown before and after the one that `--around` names."""


def _number(text: str) -> int:
    number = int(text)
    if number < 0:
        raise ValueError(text)
    return number


_number.__name__ = "event number"  # argparse names the type in its complaint


def _declare_events(parser: Parser) -> None:
    add = parser.add_argument
    add("trace", metavar="TRACE", type=Path)
    add("event", metavar="N", type=_number, nargs="?", help="show this one event in full")
    add("--import", metavar="GLOB", dest="imports", default="", help="calls of these imports: 'fd_*', 'env.*'")
    add("--kind", metavar="K", default="", help="call, return, export, callback, poke, growth, trap, exit, stop, …")
    add("--status", metavar="S", default="", help="ok, errno, trap, denied, open")
    add("--from", metavar="N", type=_number, dest="first", help="from this event on")
    add("--to", metavar="N", type=_number, dest="last", help="up to this event, inclusive")
    add("--around", metavar="N", type=_number, help=f"this event with {AROUND} before and after it")
    add("--limit", metavar="N", type=_number, help="at most so many")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print JSON")
    form.add_argument("--csv", action="store_true", help="print CSV")


def _events(args: argparse.Namespace) -> int:
    from traces.render import Lines, event_json, events, expanded
    from traces.tracedir import Trace

    wanted = _filter(args)
    with Trace.open(args.trace) as trace:
        rows = events(trace, wanted)
        if args.event is not None:
            row = next(rows, None)
            if row is None:
                say(f"{args.trace}: there is no event {args.event}; it has {trace.manifest.totals.get('records')}")
                return 1
            if args.json:
                emit_json("event/1", **event_json(row, payload=True))
            else:
                emit(expanded(row, trace.manifest))
        elif args.json:
            emit_json_rows("events/1", "events", (json.dumps(event_json(row), ensure_ascii=False) for row in rows))
        elif args.csv:
            sys.stdout.writelines(_csv(event_json(row) for row in rows))
        else:
            lines = Lines(trace.manifest)
            for row in rows:
                mark = ">" if row["seq"] == args.around else ""
                text = lines.line(row)
                print(mark + text[len(mark) :])
    return 0


def _filter(args: argparse.Namespace) -> Filter:
    from traces.render import Filter

    first, last, limit = args.first, args.last, args.limit
    if args.event is not None:
        if first is not None or last is not None or args.around is not None:
            raise UsageError("give one event, or a range with --from, --to or --around")
        return Filter(first=args.event, last=args.event, limit=1)
    if args.around is not None:
        if first is not None or last is not None:
            raise UsageError("--around is a range already; leave --from and --to out")
        first, last = max(args.around - AROUND, 0), args.around + AROUND
    return Filter(args.imports, args.kind, args.status, first, last, limit)


def _csv(rows: Iterable[dict[str, Any]]) -> Iterator[str]:
    from traces.render import PLAIN

    out = io.StringIO()
    writer = csv.DictWriter(out, (*PLAIN, "args", "results"), lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({**row, "args": " ".join(row["args"]), "results": " ".join(row["results"])})
        yield out.getvalue()
        out.seek(0)
        out.truncate()
    if out.tell():
        yield out.getvalue()


# -- query ---------------------------------------------------------------------------------------------------------------


def declare_query(parser: Parser) -> None:
    """For the room that mounts `query`: it can compute what this one only stores."""
    parser.add_argument("path", metavar="TRACE|STORE", type=Path)
    parser.add_argument("sql", metavar="SQL", help="one SELECT over runs, events, spans, states, files, output, network")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print JSON")
    form.add_argument("--csv", action="store_true", help="print CSV")


def run_query(args: argparse.Namespace, functions_of: Callable[[Path], Functions] | None = None) -> int:
    """`functions_of` gives what the SQL may call besides, for one trace."""
    try:
        importlib.import_module("duckdb")
    except ImportError:
        raise UsageError("queries need DuckDB; install it with `pip install 'reprise-wasm[query]'`") from None
    from traces.query import csv_lines, json_lines, query, text_lines
    from traces.tracedir import JOURNAL, MANIFEST, Trace

    path = args.path
    with ExitStack() as stack:
        if (path / JOURNAL).is_dir() and not (path / MANIFEST).exists():
            path = stack.enter_context(Trace.open(path)).path
        elif (path / MANIFEST).is_file():
            stack.enter_context(Trace.open(path))  # a trace of a newer format says so
        one = functions_of is not None and (path / MANIFEST).is_file()
        table = query(path, args.sql, functions_of(path) if one and functions_of is not None else None)
    if args.json:
        emit_json_rows("rows/1", "rows", json_lines(table), columns=table.column_names)
    else:
        sys.stdout.writelines(csv_lines(table) if args.csv else text_lines(table))
    return 0


# -- export --------------------------------------------------------------------------------------------------------------


def _declare_export(parser: Parser) -> None:
    parser.add_argument("trace", metavar="TRACE", type=Path)
    parser.add_argument("--otlp", action="store_true", required=True, help="spans, as OpenTelemetry's OTLP")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("-o", "--output", metavar="FILE", type=Path, help="JSON lines to a file (default: stdout)")
    where.add_argument("--endpoint", metavar="URL", help="send to a collector over HTTP")


def _export(args: argparse.Namespace) -> int:
    from traces.otel import json_lines, send
    from traces.tracedir import Trace

    with Trace.open(args.trace) as trace:
        if args.endpoint is not None:
            say(f"sent {send(trace, args.endpoint):,} spans to {args.endpoint}")
        elif args.output is None:
            sys.stdout.writelines(json_lines(trace))
        else:
            _write(args.output, json_lines(trace))
            say(f"wrote {args.output}")
    return 0


def _write(path: Path, lines: Iterator[str]) -> None:
    """A new file, whole or not at all."""
    first = next(lines, "")  # what is wrong with the trace or the installation is known before a file is made
    with os.fdopen(new_file(path), "w", encoding="utf-8") as file:
        try:
            file.write(first)
            file.writelines(lines)
        except BaseException:
            path.unlink(missing_ok=True)
            raise


COMMANDS = (
    Command("recover", "Record", "turn what a dead recorder left into a valid trace", _recover, _declare_recover),
    Command("show", "Look", "what ran, how it ended, and what crossed its boundary", _show, _declare_show),
    Command("events", "Look", "the recorded events, one line each, or one in full", _events, _declare_events),
    Command("export", "Look", "spans for OpenTelemetry", _export, _declare_export),
    Command("pack", "Look", "make a trace one file", _pack, _declare_pack),
    Command("unpack", "Look", "make a packed trace a directory again", _unpack, _declare_unpack),
)
