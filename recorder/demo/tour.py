"""The steps of `reprise demo` and what they print: at most 33 lines, on stdout, in colour only where a terminal wants it."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from recorder.demo.story import Harm, Story, read_story
from traces._errors import RefusedError, RepriseError
from traces.cli import Parser
from traces.columns import SCHEMA
from traces.render import pieces
from traces.tracedir import EVENTS, Trace

DIRECTORY = "reprise-demo"
HOSTS = "recorder.demo.hosts:World"
ROOT = Path(__file__).resolve().parents[2]
"""Where `reprise.py` and the rooms are."""
UNIMPORTABLE = ("recorder.demo", "recorder.demo.hosts", "recorder.python_host", "recorder.session", "recorder.recording")
"""What a replaying process of the demo must do without: every host, and all that could call one."""

_COMMAND = "import sys; sys.path.insert(0, sys.argv[1]); from reprise import main; sys.exit(main(sys.argv[2:]))"
_WITHOUT = "import sys; sys.modules.update(dict.fromkeys({names!r})); "
WIDTH = 110


class _DemoError(RepriseError):
    """A step did not do what it is there to show."""


def main(argv: Sequence[str]) -> int:
    parser = Parser(prog="reprise demo", description="Records an incident, replays it, and shows what the trace proves.")
    parser.add_argument("-o", "--output", metavar="DIR", type=Path, help=f"where to keep the traces (default: {DIRECTORY}/)")
    parser.add_argument("--no-inspect", action="store_true", help="end after the text, on a terminal too")
    options = parser.parse_args(argv)
    directory = _make_directory(options.output)
    pen = Pen(sys.stdout)
    incident, altered = directory / "incident.trace", directory / "altered.trace"

    pen.line(pen.strong("An agent pays an invoice, to the wrong account. What its recording shows:"))
    pen.line()
    recorded = _timed(lambda: _record(incident))
    with Trace.open(incident) as trace:
        story = read_story(trace)
        size = sum(file.stat().st_size for file in incident.iterdir())
        pen.item("record", f"{trace.manifest.totals['records']} events, {size / 1024:.0f} KiB in {incident}  ({recorded:.1f} s)")
        _replay_step(pen, incident)
        pen.line()
        _story_step(pen, story)
        _harm_step(pen, story.harm)
        _why_step(pen, incident, story.harm)
        _alter_step(pen, trace, altered, story.harm)
    pen.line()
    for number, command in enumerate(_onward(incident, altered, story.harm)):
        pen.item("" if number else "go on", command)
    return 0 if options.no_inspect else _inspect(pen, incident)


def _make_directory(wanted: Path | None) -> Path:
    names = [wanted] if wanted is not None else [Path(DIRECTORY), *(Path(f"{DIRECTORY}-{n}") for n in range(2, 1000))]
    for path in names:
        try:
            path.mkdir()
        except FileExistsError:
            continue
        except OSError as error:
            raise RefusedError(f"{path}: cannot be made ({error.strerror}); choose another place with -o") from None
        return path
    raise RefusedError(f"{names[0]}: exists already; choose another place with -o")


# -- the steps -----------------------------------------------------------------------------------------------------------


def _record(out: Path) -> None:
    """Records the agent in a directory that is gone afterwards."""
    from recorder.demo.hosts import INBOX

    with tempfile.TemporaryDirectory(prefix="reprise-demo-") as work:
        (Path(work) / "inbox.txt").write_text(INBOX)
        options = ["-o", str(out), "--dir", f"{work}::/work", "--host", HOSTS, "--note", "case=demo"]
        _reprise(["record", *options, str(Path(__file__).with_name("agent.wasm"))], "", (0,))


def _replay(trace: Path, codes: tuple[int, ...]) -> dict[str, Any]:
    """The verdict on a trace, from another process that could not run a host if it wanted to."""
    answer = _reprise(["replay", "--json", str(trace.resolve())], _WITHOUT.format(names=UNIMPORTABLE), codes)
    verdict: dict[str, Any] = json.loads(answer)
    return verdict


def _reprise(arguments: Sequence[str], before: str, codes: tuple[int, ...]) -> str:
    """Runs a `reprise` command in a process of its own; returns its output."""
    done = subprocess.run(
        [sys.executable, "-c", before + _COMMAND, str(ROOT), *arguments], stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    if done.returncode not in codes:
        said = (done.stderr or done.stdout).strip().splitlines() or ["nothing"]
        raise _DemoError(f"demo: `reprise {arguments[0]}` ended with {done.returncode} and said: {said[-1]}")
    return done.stdout


def _timed(step: Any) -> float:
    began = time.perf_counter()
    step()
    return time.perf_counter() - began


def _replay_step(pen: Pen, incident: Path) -> None:
    began = time.perf_counter()
    verdict = _replay(incident, (0,))
    took = time.perf_counter() - began
    compared = f"{verdict['events']} events, memory compared at {verdict['compared']['moments']} moments"
    pen.item("replay", f"{pen.good(verdict['verdict'])}: {compared}  ({took:.1f} s)")
    pen.item("", "in another process, without the hosts, the files and the clock")


def _story_step(pen: Pen, story: Story) -> None:
    for number, step in enumerate(story.steps):
        text = f"{step.seq:>3}  {step.call}{' ' if step.said else ''}{step.said}{' → ' if step.heard else ''}{step.heard}"
        bad = step.seq in (story.harm.seq, story.harm.writer_seq)
        pen.item("" if number else "story", text, pen.bad if bad else str)
    shown, others = story.quiet[:4], story.quiet[4:]
    quiet = [*(f"{name} ×{count}" for name, count in shown), *([f"{sum(c for _, c in others)} others"] if others else [])]
    pen.item("", f"     besides: {', '.join(quiet)}", pen.faint)


def _harm_step(pen: Pen, harm: Harm) -> None:
    start, length = harm.address - harm.offset, len(harm.account)
    pen.item("harm", pen.bad(f"event {harm.seq} paid {harm.cents // 100}.{harm.cents % 100:02} to {harm.account}"))
    pen.item("", f"the invoice, read by event {harm.invoice_seq}, says {harm.invoice_account}")
    pen.item("", f"event {harm.writer_seq} changed that: {harm.writer} wrote {harm.written} bytes from {start:#x} on,")
    end = "the last " if harm.offset + length == harm.written else ""
    pen.item("", f"{end}{length} of them over the account at {harm.address:#x}")


def _why_step(pen: Pen, incident: Path, harm: Harm) -> None:
    """The time machine's part: which line of the agent let that happen. Without pyelftools, which place in its code."""
    asked = ["last-write", "--json", "--source", str(Path(__file__).parent), "--before", f"e{harm.seq}"]
    answer = _reprise([*asked, str(incident), f"{harm.address:#x}:{len(harm.account)}"], "", (0,))
    write: dict[str, Any] = json.loads(answer)["writes"][0]
    if write["event"] != harm.writer_seq:
        raise _DemoError(f"demo: event {harm.writer_seq} wrote the account, the time machine says event {write['event']}")
    place = f"{write['function']}, {write['where']}" if write["where"] else f"{write['function']} at code offset {write['pc']}"
    pen.item("why", f"run again, instruction {write['mark']:,} let it: {pen.strong(place)}")
    if write["line"]:
        pen.item("", write["line"], pen.bad)


def _alter_step(pen: Pen, trace: Trace, altered: Path, harm: Harm) -> None:
    was, now = alter(trace, altered, harm.seq)
    verdict = _replay(altered, (3,))
    seq = verdict["difference"]["seq"]
    if seq != harm.seq:
        raise _DemoError(f"demo: event {harm.seq} was altered, but the replay diverged at event {seq}")
    pen.item("alter", f"one bit of event {harm.seq}, in a copy: {was} → {now}")
    pen.item("", f"replayed: {pen.bad(f'diverged at event {seq}')}; the agent still hands out {was}")


def alter(trace: Trace, out: Path, seq: int) -> tuple[str, str]:
    """Copies a trace, with one bit changed in the first byte that event `seq` handed out; returns that text before and after.

    Only the record changes; the columns that derive from it stay as they were, as would suit someone who covers something up.
    """
    shutil.copytree(trace.path, out)
    source = pq.ParquetFile(trace.path / EVENTS)
    texts = ("", "")
    first = 0
    with pq.ParquetWriter(out / EVENTS, SCHEMA, compression="zstd", use_dictionary=False) as writer:
        for group in range(source.num_row_groups):
            table = source.read_row_group(group)
            if 0 <= seq - first < table.num_rows:
                records = table.column("record").to_pylist()
                place = table.column("chunks_at")[seq - first].as_py()
                records[seq - first], texts = _flipped(records[seq - first], place)
                column = pa.array(records, pa.large_binary())
                table = table.set_column(SCHEMA.get_field_index("record"), SCHEMA.field("record"), column)
            first += table.num_rows
            writer.write_table(table.cast(SCHEMA), row_group_size=max(table.num_rows, 1))
    source.close()
    return texts


def _flipped(record: bytes, chunks_at: int) -> tuple[bytes, tuple[str, str]]:
    data = next(piece.data for piece in pieces(record, chunks_at) if piece.sent)
    changed = bytes([data[0] ^ 1]) + data[1:]
    # The first occurrence from `chunks_at` on is the chunk's own bytes: its header is address and length.
    at = record.index(data, chunks_at)
    texts = (data.decode("utf-8", "replace"), changed.decode("utf-8", "replace"))
    return record[:at] + changed + record[at + len(data) :], texts


def _onward(incident: Path, altered: Path, harm: Harm) -> list[str]:
    """Commands that go on from here, as this user can type them."""
    commands = [
        ["show", str(incident)],
        ["at", str(incident), f"e{harm.seq}"],
        ["events", str(incident), "--around", str(harm.writer_seq)],
        ["verify", str(altered)],
    ]
    if importlib.util.find_spec("duckdb") is not None:
        commands.insert(3, ["query", str(incident), "SELECT * FROM spans"])
    return [" ".join([_name(), *map(_for_shell, command)]) for command in commands]


def _inspect(pen: Pen, incident: Path) -> int:
    """Where there is a terminal to show it on, the tour ends in the inspector, at the payment."""
    terminal = all(stream is not None and stream.isatty() for stream in (sys.stdin, sys.stdout))
    if not terminal or os.environ.get("TERM", "dumb") == "dumb" or importlib.util.find_spec("textual") is None:
        return 0
    pen.line()
    pen.item(
        "inspect", "Enter opens the inspector at the payment (there L leads to the cause, ? helps, q leaves); Ctrl-C ends here"
    )
    try:
        answered = sys.stdin.readline()
    except KeyboardInterrupt:
        answered = ""
    if not answered:
        pen.line()
        return 0
    asked = ["inspect", "--source", str(Path(__file__).parent), str(incident)]
    return subprocess.run([sys.executable, "-c", _COMMAND, str(ROOT), *asked]).returncode


def _for_shell(word: str) -> str:
    return f'"{word}"' if re.fullmatch(r"[\w ,*]+ [\w ,*]+", word) else quote(word)


def _name() -> str:
    """How this user calls `reprise`."""
    beside = Path(sys.executable).with_name("reprise")
    if not beside.exists():
        return f"{_short(Path(sys.executable))} -m reprise"
    return _short(beside)


def _short(program: Path) -> str:
    """A program's name if the shell finds it by that, otherwise its path, from here if it lies below."""
    found = shutil.which(program.name)
    if found is not None and Path(found).absolute() == program.absolute():
        return program.name
    here = Path.cwd()
    return quote(str(program.relative_to(here) if program.is_relative_to(here) else program))


# -- printing ------------------------------------------------------------------------------------------------------------


@dataclass
class Pen:
    """Prints lines with a label in the first column; colours them if the stream is a terminal and nobody asked not to."""

    stream: Any

    def __post_init__(self) -> None:
        terminal = self.stream.isatty()
        self.colour = terminal and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
        self.width = shutil.get_terminal_size((WIDTH, 24)).columns if terminal else WIDTH

    def line(self, text: str = "") -> None:
        print(text, file=self.stream, flush=True)

    def item(self, label: str, text: str, paint: Any = str) -> None:
        """`paint` colours the text after it was cut to the width; text that is coloured already is not cut."""
        room = max(self.width - 9, 40)
        if "\x1b" not in text and len(text) > room and paint is not str:
            text = text[: room - 1] + "…"
        self.line(f"{self.strong(f'{label:<9}')}{paint(text)}" if label else f"{'':<9}{paint(text)}")

    def strong(self, text: str) -> str:
        return self._paint("1", text)

    def good(self, text: str) -> str:
        return self._paint("32", text)

    def bad(self, text: str) -> str:
        return self._paint("31", text)

    def faint(self, text: str) -> str:
        return self._paint("2", text)

    def _paint(self, code: str, text: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self.colour else text
