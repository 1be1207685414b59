"""What `reprise` mounts from this room: replay, verify."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from traces._errors import UsageError
from traces.cli import Command, Parser, emit, emit_json_rows


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


COMMANDS = (
    Command("replay", "Prove", "re-execute a trace bit for bit and say whether the guest did the same", _replay, _declare_replay),
    Command("verify", "Prove", "check a trace's integrity and origin, and replay it", _verify, _declare_verify),
)
