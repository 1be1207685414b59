"""What the commands of all rooms share: how one is declared, how arguments are cut, how output is written.

Each room's `commands.py` lists its `Command`s; `reprise.py` mounts them. Heavy imports stay inside the functions that run.
stdout is data, stderr is talk: commands print through `emit*` and `say`, and whatever a user must be told is one line.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NoReturn, TextIO

from traces._errors import TraceError, UsageError

GROUPS: Final = ("Record", "Prove", "Look", "Test")
"""Headings of `reprise --help`, in this order."""


class Parser(argparse.ArgumentParser):
    """An argument parser whose complaints are errors like any other: one line, exit code 64."""

    def __init__(self, prog: str, description: str, usage: str | None = None) -> None:
        super().__init__(prog=prog, description=description, usage=usage, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}; see `{self.prog} --help`")


def _nothing(_: Parser) -> None:
    """For commands without options."""


@dataclass(frozen=True)
class Command:
    """One verb of the command line."""

    name: str
    group: str
    """One of GROUPS."""
    summary: str
    """One line for `reprise --help`."""
    run: Callable[[argparse.Namespace], int]
    """Does the work; returns the exit code."""
    declare: Callable[[Parser], None] = _nothing
    """Adds the options and positional arguments."""
    usage: str | None = None
    """Replaces argparse's usage line."""
    ends_at_module: bool = False
    """Options end at MODULE: the first word that is neither option nor value is `module`, the rest are `args`, untouched."""
    passes_arguments: bool = False
    """Every word goes to `run` as `args`, options included."""

    def parse(self, argv: Sequence[str]) -> argparse.Namespace:
        """Raises UsageError, or SystemExit for `--help`."""
        if self.passes_arguments:
            return argparse.Namespace(args=list(argv))
        parser = Parser(prog=f"reprise {self.name}", description=self.summary, usage=self.usage)
        self.declare(parser)
        if not self.ends_at_module:
            return parser.parse_args(argv)
        options, rest = split_at_module(parser, argv)
        namespace = parser.parse_args(options)
        if not rest:
            parser.error("name the module to run")
        namespace.module, namespace.args = rest[0], rest[1:]
        return namespace


def split_at_module(parser: argparse.ArgumentParser, argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """Cuts arguments into options and what begins with the first word that belongs to no option.

    argparse's own way (REMAINDER) loses a leading `--` and takes some of the guest's options for ours. Options come back as
    `--name=value`, so that a value may begin with a dash.
    """
    known = {name: action for action in parser._actions for name in action.option_strings}
    options: list[str] = []
    words = iter(range(len(argv)))
    for at in words:
        word = argv[at]
        if word == "--":
            return options, list(argv[at + 1 :])
        if not word.startswith("-") or word == "-":
            return options, list(argv[at:])
        action = known.get(word)
        if action is None or action.nargs == 0 or at + 1 == len(argv):
            options.append(word)
        else:
            options.append(f"{action.option_strings[-1]}={argv[next(words)]}")
    return options, []


# -- output --------------------------------------------------------------------------------------------------------------


def say(text: str) -> None:
    """One line for people, on stderr."""
    if sys.stdout is not None:  # it is, if the command was started with it closed
        sys.stdout.flush()
    print(f"reprise: {one_line(text)}", file=sys.stderr, flush=True)


def one_line(text: str) -> str:
    """Text that may come from a guest or a host, on one line and without what would move a terminal's cursor."""
    return _UNSAFE.sub(lambda match: " " if match.group() in "\n\t" else ascii(match.group())[1:-1], text.strip())


_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]")


def emit(lines: Iterable[str]) -> None:
    """Lines of data, on stdout."""
    for line in lines:
        print(line)


def emit_json(schema: str, **fields: Any) -> None:
    """One JSON object on one line."""
    print(json.dumps({"schema": f"reprise.{schema}", **fields}, ensure_ascii=False, allow_nan=False))


def emit_json_rows(schema: str, name: str, rows: Iterable[str], **fields: Any) -> None:
    """One JSON object that ends in a list, written row by row: `rows` are texts of JSON."""
    head = json.dumps({"schema": f"reprise.{schema}", **fields}, ensure_ascii=False, allow_nan=False)
    sys.stdout.write(f"{head[:-1]}, {json.dumps(name)}: [")
    for number, row in enumerate(rows):
        sys.stdout.write((",\n " if number else "\n ") + row.rstrip("\n"))
    sys.stdout.write("\n]}\n")


def lenient(stream: TextIO) -> None:
    """A character the terminal's encoding lacks is escaped, not an error."""
    reconfigure = getattr(stream, "reconfigure", None)
    if reconfigure is not None:
        reconfigure(errors="backslashreplace")


def debugging() -> bool:
    """Whether the user asked for tracebacks."""
    return bool(os.environ.get("REPRISE_DEBUG"))


def new_file(path: Path) -> int:
    """A handle for a file that must not exist yet, private to the user."""
    try:
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        raise UsageError(f"{path}: exists already; choose another name with -o") from None
    except OSError as error:
        raise TraceError(f"{path}: cannot be written ({error.strerror}); choose a writable place with -o") from None
