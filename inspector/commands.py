"""What `reprise` mounts from this room: the terminal inspector. Textual is imported when it runs, and may be missing."""

from __future__ import annotations

import argparse
import importlib.util
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from replayer.commands import declare_sources, source_map
from traces._errors import TraceError, UsageError
from traces.cli import Command, Parser, say

if TYPE_CHECKING:
    from inspector.app import Inspector
    from traces.tracedir import Trace


def _declare(parser: Parser) -> None:
    parser.add_argument("trace", metavar="TRACE|DIR", type=Path, help="a trace, packed or not, or a directory that holds some")
    parser.add_argument("--at", metavar="MARK", help="open there: 1204331, e123, e123+, start or end (where it gets interesting)")
    declare_sources(parser)
    parser.add_argument("--keys", metavar="FILE", type=Path, help="a keymap, TOML or JSON (~/.config/reprise/keys.toml)")
    parser.add_argument("--theme", metavar="NAME", help="a theme of Textual's, such as textual-light or ansi-dark")


def _inspect(args: argparse.Namespace) -> int:
    if importlib.util.find_spec("textual") is None:
        raise UsageError("the inspector needs Textual; install it with `pip install 'reprise-wasm[inspect]'`")
    for stream, name in ((sys.stdout, "stdout"), (sys.stdin, "stdin")):
        if stream is None or not stream.isatty():
            raise UsageError(f"the inspector needs a terminal, and {name} is none; `reprise at TRACE MARK` prints the same")
    # What a step changes is to be seen at once: Textual looks for changes 60 times a second unless told otherwise.
    os.environ.setdefault("TEXTUAL_FPS", "120")
    from inspector.runs.store import holds_runs, is_store, is_unfinished, open_run

    sources, keymap = source_map(args), _keymap(args.keys)

    def inspector(trace: Trace) -> Inspector:
        from inspector.app import Inspector

        return Inspector(trace, search=args.source, remap=sources, at=args.at, keymap=keymap, theme=args.theme)

    if is_store(args.trace):
        if not holds_runs(args.trace):
            raise UsageError(
                f"{args.trace}: holds no recordings; make one with `reprise record -o {args.trace}/NAME.trace MODULE`"
            )
        if args.at is not None:
            raise UsageError("--at: a mark is a place in one recording; name that instead of the directory")
        return _browse(args.trace, keymap, args.theme, inspector)
    if is_unfinished(args.trace):
        say(f"{args.trace}: its recorder did not finish; reading what its journal holds")
    opened = open_run(args.trace)
    try:
        app = inspector(opened.trace)
        app.run()
    finally:
        opened.close()
    return app.return_code or 0


def _keymap(path: Path | None) -> dict[str, str]:
    from inspector.actions import keymap_file, read_keymap

    if path is None and not keymap_file().is_file():
        return {}
    return read_keymap(path if path is not None else keymap_file())


def _browse(directory: Path, keymap: dict[str, str], theme: str | None, inspector: Callable[[Trace], Inspector]) -> int:
    """Browser and inspector in turns: leaving the one goes to the other, leaving the browser ends it."""
    from inspector.runs.browser import Browser
    from inspector.runs.shelf import Shelf
    from inspector.runs.store import Store

    shelf = Shelf(Store(directory))
    trouble = ""
    while True:
        browser = Browser(shelf, keymap=keymap, theme=theme, trouble=trouble)
        opened = browser.run()
        if opened is None:
            return browser.return_code or 0
        trouble = ""
        try:
            app = inspector(opened.trace)
            app.run()
        except TraceError as error:
            trouble = str(error)
        else:
            if app.return_code:
                return app.return_code
        finally:
            opened.close()
        shelf.forget(opened.path)


COMMANDS = (Command("inspect", "Look", "travel through a recording in the terminal", _inspect, _declare),)
