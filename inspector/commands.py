"""What `reprise` mounts from this room: the terminal inspector. Textual is imported when it runs, and may be missing."""

from __future__ import annotations

import argparse
import importlib.util
import sys
from pathlib import Path

from traces._errors import UsageError
from traces.cli import Command, Parser


def _declare(parser: Parser) -> None:
    parser.add_argument("trace", metavar="TRACE")
    parser.add_argument("--at", metavar="MARK", help="open there: 1204331, e123, e123+, start or end (where it gets interesting)")
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
    parser.add_argument("--keys", metavar="FILE", type=Path, help="a keymap, TOML or JSON (~/.config/reprise/keys.toml)")
    parser.add_argument("--theme", metavar="NAME", help="a theme of Textual's, such as textual-light or ansi-dark")


def _inspect(args: argparse.Namespace) -> int:
    if importlib.util.find_spec("textual") is None:
        raise UsageError("the inspector needs Textual; install it with `pip install 'reprise-wasm[inspect]'`")
    for stream, name in ((sys.stdout, "stdout"), (sys.stdin, "stdin")):
        if stream is None or not stream.isatty():
            raise UsageError(f"the inspector needs a terminal, and {name} is none; `reprise at TRACE MARK` prints the same")
    pairs = []
    for text in args.source_map:
        old, found, new = text.partition("=")
        if not found or not old:
            raise UsageError(f"--source-map {text}: write FROM=TO")
        pairs.append((old, new))
    from inspector.actions import keymap_file, read_keymap
    from inspector.app import Inspector
    from traces.tracedir import Trace

    keymap = {}
    if args.keys is not None:
        keymap = read_keymap(args.keys)
    elif keymap_file().is_file():
        keymap = read_keymap(keymap_file())
    with Trace.open(args.trace) as trace:
        app = Inspector(trace, search=args.source, remap=pairs, at=args.at, keymap=keymap, theme=args.theme)
        app.run()
    return app.return_code or 0


COMMANDS = (Command("inspect", "Look", "travel through a recording in the terminal", _inspect, _declare),)
