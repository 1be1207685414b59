"""What happened, read off the trace alone: the steps worth telling, the payment, and the event that decided whom it went to.

Nothing here knows what the scripted hosts answered. The payment is the last call of `tool.pay`; where its account came from is
the last event that wrote to that place in the guest's memory and left these very bytes there.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from typing import Any

from traces._errors import TraceError
from traces.render import WASI, Filter, Piece, events, pieces, quoted
from traces.tracedir import Trace


@dataclass(frozen=True)
class Step:
    """One event worth telling."""

    seq: int
    call: str
    """`tool.search`, `fd_read`."""
    said: str
    """What the guest handed out, for people; of a read, the file's name; "" if it is not worth telling."""
    heard: str
    """What it got back, for people; of a write, ""."""


@dataclass(frozen=True)
class Harm:
    """The payment, and why it went where it went."""

    seq: int
    """The call of `tool.pay`."""
    account: str
    cents: int
    address: int
    """Where the account stood in the guest's memory."""
    invoice_seq: int
    """The read of the inbox."""
    invoice_account: str
    writer_seq: int
    """The event that wrote the paid account over the invoice's."""
    writer: str
    """Its import."""
    written: int
    """How many bytes it wrote there at once."""
    offset: int
    """How far into them the account begins."""


@dataclass(frozen=True)
class Story:
    steps: tuple[Step, ...]
    quiet: tuple[tuple[str, int], ...]
    """Every other call, by import, with how often; most frequent first."""
    harm: Harm


def read_story(trace: Trace) -> Story:
    """The story of one run of the demo's agent. Raises TraceError for a trace of something else."""
    rows = list(events(trace, Filter()))
    hosted = {entry.qualified for entry in trace.manifest.imports if entry.host == "python"}
    steps: list[Step] = []
    quiet: Counter[str] = Counter()
    paths: dict[int, str] = {}
    for row in rows:
        if row["kind"] != "call":
            continue
        name = row["import"].removeprefix(WASI)
        carried = pieces(row["record"], row["chunks_at"])
        if name == "path_open" and row["status"] == "ok":
            paths[_number(carried[-1])] = carried[0].data.decode("utf-8", "replace")
        step = _step(row, name, carried, paths, row["import"] in hosted)
        if step is None:
            quiet[name] += 1
        else:
            steps.append(step)
    return Story(tuple(steps), tuple(quiet.most_common()), _harm(rows))


def _step(row: dict[str, Any], name: str, carried: list[Piece], paths: dict[int, str], hosted: bool) -> Step | None:
    if hosted:
        said = b"".join(p.data for p in carried if p.sent)
        heard = b"".join(p.data for p in carried if not p.sent)
        # A prompt repeats all that was said before; the other requests are short and new.
        return Step(row["seq"], name, "" if name == "llm.complete" else _shown(said), _shown(heard) if heard else "accepted")
    path = paths.get(row["args"][0]) if row["args"] else None
    if name not in ("fd_read", "fd_write") or path is None:
        return None
    # The largest piece is the text: beside it there are only a list of buffers and a count.
    if name == "fd_read":
        read = max((p.data for p in carried if not p.sent), key=len, default=b"")
        return Step(row["seq"], name, path, _shown(read)) if len(read) > 4 else None
    return Step(row["seq"], name, f"{path} {_shown(max((p.data for p in carried if p.sent), key=len, default=b''))}", "")


def _shown(data: bytes) -> str:
    """Text, quoted; of a long one the beginning and, since answers are decided there as often, the end."""
    if len(data) <= _WHOLE:
        return quoted(data, len(data))
    return f"{quoted(data[:_HEAD])[:-1]} … {quoted(data[-_TAIL:])[1:]}"


_WHOLE, _HEAD, _TAIL = 52, 14, 30


def _number(piece: Piece) -> int:
    return int.from_bytes(piece.data[:4], "little")


def _harm(rows: list[dict[str, Any]]) -> Harm:
    payments = [row for row in rows if row["kind"] == "call" and row["import"] == "tool.pay"]
    if not payments:
        raise TraceError("nothing was paid in this run; it is not a recording of the demo's agent")
    paid = payments[-1]
    account = next(p for p in pieces(paid["record"], paid["chunks_at"]) if p.sent)
    invoice = _invoice(rows)
    for row in reversed(rows[: paid["seq"]]):
        for piece in pieces(row["record"], row["chunks_at"]):
            offset = account.address - piece.address
            if piece.sent or offset < 0 or piece.data[offset : offset + len(account.data)] != account.data:
                continue
            text = account.data.decode("utf-8", "replace")
            name = row["import"].removeprefix(WASI)
            return Harm(paid["seq"], text, paid["args"][2], account.address, *invoice, row["seq"], name, len(piece.data), offset)
    raise TraceError(f"event {paid['seq']}: no event wrote the account that was paid; the guest made it up itself")


def _invoice(rows: list[dict[str, Any]]) -> tuple[int, str]:
    """The event that read the invoice, and the account it names."""
    for row in rows:
        if row["kind"] == "call" and row["import"] == f"{WASI}fd_read":
            for piece in pieces(row["record"], row["chunks_at"]):
                found = re.search(rb"^account (\S+)$", piece.data, re.MULTILINE)
                if found and not piece.sent:
                    return row["seq"], found[1].decode("utf-8", "replace")
    raise TraceError("the run read no invoice; it is not a recording of the demo's agent")
