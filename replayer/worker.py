"""The machine's side of its worker processes: what they are given, how they are started, and how they are spoken to.

A `Moment` is a guest at rest in a process. The first is made by starting a process anew; every other is a fork of one. Each has a
socket of its own, and ends when that is closed: so nothing outlives this process, whatever becomes of it.
"""

from __future__ import annotations

import bisect
import contextlib
import os
import resource
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

from recorder.boundary.engine import Engine
from recorder.wasm.binary import WasmError
from recorder.wasm.module import Module, parse_module
from replayer import wire
from replayer.fragments import Details, Dump, Fragment, Frame, advance, read_frames
from replayer.image import Piece, write_image
from replayer.recorded import Recorded
from replayer.replay import recorded_profile
from replayer.twin import Twin
from replayer.twincache import load_twin, write_twin
from replayer.watching import Watch, WorkerDied
from replayer.wire import Closed, Message
from traces._errors import RefusedError, RepriseError
from traces.layout import Kind, Status
from traces.tracedir import Trace

STACK_FACTOR: Final = 8
"""A twin's frames are larger than those of the module it was made from."""
_START: Final = (
    "import sys; sys.path.insert(0, sys.argv[1]); from replayer.station import main; import os; os._exit(main(sys.argv[2:]))"
)
CAN_FORK: Final = hasattr(os, "fork") and sys.platform.startswith("linux")


@dataclass(frozen=True)
class View:
    """What one look at a moment found."""

    position: Message
    frames: list[Frame]
    """Innermost first."""
    count: int
    """How many frames there are; `frames` may hold fewer."""


class Moment:
    """A guest at rest in a process of its own."""

    def __init__(self, sock: socket.socket, pid: int, position: Message, details: Details) -> None:
        self._sock = sock
        self.pid = pid
        self.position = position
        self._details = details
        self._lock = threading.Lock()
        self._let_go = False
        self.depth = 0
        """Calls entered less calls left during the last scan."""
        self.on_trap: Callable[[int], int | None] = lambda _: None
        """Asked how many instructions had begun when the guest trapped, after so many records."""
        self.known_traps: Callable[[], dict[str, int]] = dict
        """The answers that are known already."""

    @classmethod
    def adopt(cls, handle: int, pid: int, position: Message, details: Details) -> Moment:
        """The process whose socket another one handed over."""
        return cls(socket.socket(fileno=handle), pid, position, details)

    @property
    def clock(self) -> int:
        return int(self.position["clock"])

    @property
    def events(self) -> int:
        """Records served so far."""
        return int(self.position["events"])

    # -- talking

    def ask(self, message: Message, watch: Watch | None = None, blob: bytes = b"") -> tuple[Message, bytes, int | None]:
        """Sends one thing and waits for the answer. Raises WorkerDied, or RepriseError with what the process found wrong."""
        with self._lock:
            try:
                wire.send(self._sock, message, blob)
                while True:
                    answer, blob, handle = wire.receive(self._sock)
                    if "progress" in answer:
                        if watch is not None:
                            watch(answer["progress"], answer["events"])
                        continue
                    if "trapped" in answer:
                        wire.send(self._sock, {"do": "on", "begun": self.on_trap(answer["trapped"])})
                        continue
                    break
            except Closed as error:
                raise WorkerDied(f"a process of the time machine died ({error})") from None
        if "error" in answer:
            raise RepriseError(f"the time machine: {answer['error']}")
        if "fatal" in answer:
            raise RefusedError(answer["fatal"])
        return answer, blob, handle

    def fork(self) -> Moment:
        """Another process with the guest at rest at the same moment."""
        answer, _, handle = self.ask({"do": "fork"})
        if handle is None:
            raise WorkerDied("a process of the time machine could not fork")
        child = Moment.adopt(handle, answer["forked"], answer["at"], self._details)
        child.on_trap, child.known_traps = self.on_trap, self.known_traps
        return child

    def go(self, clock: int | None = None, event: int | None = None, watch: Watch | None = None) -> Message:
        """Runs on to a clock, an event, or the end; returns the new position."""
        answer, _, _ = self.ask({"do": "go", "clock": clock, "event": event, "traps": self.known_traps()}, watch)
        self.position = answer["at"]
        return self.position

    def scan(self, message: Message, watch: Watch | None = None) -> Any:
        """Runs on and tells what the guest did on the way. The moment may be gone afterwards."""
        answer, _, _ = self.ask({"do": "scan", **message}, watch)
        self.position = answer["at"]
        self.depth = answer.get("depth", 0)
        return answer["scan"]

    def view(self, steps: int = 0, frames: int = 256) -> View:
        """Looks at the guest, `steps` instructions on. From then on this moment can only be looked at."""
        answer, blob, _ = self.ask({"do": "view", "frames": frames})
        size = answer["frames"]
        dump = Dump(blob[:size], answer["count"], blob[size:], answer["mirror_at"])
        found = read_frames(dump, self._details, answer["view"]["kind"] == "event")
        if found:
            advance(self._run, self._details, found[0], steps)
        return View(answer["view"], found, answer["count"])

    def _run(self, made: Fragment, values: bytes, given: int) -> bytes:
        message = {"do": "advance", "code": len(made.data), "globals": list(made.globals), "given": given}
        return self.ask(message, blob=made.data + values)[1]

    def memory(self, index: int, address: int, length: int) -> bytes:
        return self.ask({"do": "memory", "index": index, "address": address, "length": length})[1]

    def memory_sizes(self) -> list[int]:
        return list(self.ask({"do": "sizes"})[0]["memories"])

    def globals(self) -> list[int]:
        return list(self.ask({"do": "globals"})[0]["globals"])

    def table(self, index: int, start: int, length: int) -> Message:
        return self.ask({"do": "table", "index": index, "start": start, "length": length})[0]

    def page_digests(self, memory: int, page: int) -> list[bytes]:
        """Checksums of a memory's pages: equal where the pages are, and hardly ever otherwise."""
        data = self.ask({"do": "pages", "index": memory, "page": page})[1]
        return [data[at : at + 8] for at in range(0, len(data), 8)]

    def digests(self) -> list[list[Any]]:
        return list(self.ask({"do": "digest"})[0]["states"])

    def threads(self) -> Message:
        return self.ask({"do": "threads"})[0]

    def close(self) -> None:
        """Lets the process go."""
        self._let_go = True
        self._sock.close()

    def kill(self) -> None:
        """Ends the process whatever it is doing."""
        if not self._let_go:  # one that was let go may have ended, and its number may be another process' by now
            with contextlib.suppress(OSError):
                os.kill(self.pid, 9)
        self.close()

    def receive(self) -> tuple[Message, bytes, int | None]:
        """What a process says on its own account, during the pass."""
        return wire.receive(self._sock)

    def send(self, message: Message) -> None:
        wire.send(self._sock, message)


class Job:
    """What worker processes are given: the twin, its machine code, the journal image, and where marks go. Nameless files."""

    def __init__(self, trace: Trace) -> None:
        recorded = Recorded.of(trace)
        self._handles: list[int] = []
        try:
            self._prepare(trace, recorded)
        except BaseException:
            self.close()
            raise
        finally:
            recorded.reader.close()

    def _prepare(self, trace: Trace, recorded: Recorded) -> None:
        try:
            self.module: Module = parse_module(recorded.module)
            self.twin: Twin = load_twin(recorded.module)
        except WasmError as error:
            raise RefusedError(f"{recorded.given}: the time machine cannot run the recorded module: {error}") from None
        profile, self.notes = recorded_profile(recorded.manifest, recorded.given)
        self.stack = profile.max_wasm_stack * STACK_FACTOR
        hard = resource.getrlimit(resource.RLIMIT_STACK)[1]
        if hard != resource.RLIM_INFINITY:
            self.stack = max(profile.max_wasm_stack, min(self.stack, hard - (16 << 20)))
        self.details = Details(self.module, self.twin)
        engine = Engine(replace(profile, max_wasm_stack=self.stack))
        code = bytes(engine.compile(self.twin.data).serialize())
        image, pieces = write_image(recorded.reader.windows())
        self._handles.append(image)
        self.pieces: list[Piece] = pieces
        self.rows = recorded.reader.rows
        self.marks = self._file(b"")
        os.truncate(self.marks, self.rows * 8)
        self.image = image
        self._module = self._file(recorded.module)
        self._twin = self._file(write_twin(self.twin, recorded.module))
        self._code = self._file(code)
        self._job = {
            "given": recorded.given,
            "manifest": recorded.manifest.to_json(),
            "module": self._module,
            "twin": self._twin,
            "code": self._code,
            "image": image,
            "marks": self.marks,
            "pieces": [list(asdict(piece).values()) for piece in pieces],
            "rows": recorded.reader.rows,
            "largest_window": recorded.reader.largest_window,
            "trailing": {kind: recorded.reader.trailing(kind) for kind in ("stop", "grow_failed")},
            "states": [_state_json(row) for row in recorded.states],
            "stack": self.stack,
            "traps": {},
        }

    def _file(self, data: bytes) -> int:
        """A private file without a name that holds `data`."""
        handle, path = tempfile.mkstemp(prefix="reprise-")
        os.unlink(path)
        self._handles.append(handle)
        with open(handle, "wb", closefd=False) as file:
            file.write(data)
        return handle

    def start(self) -> Moment:
        """Starts a worker process anew; its guest rests before its first instruction."""
        if not self._handles:
            raise RefusedError("this time machine was closed; open the trace again")
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        root = str(Path(__file__).resolve().parent.parent)
        with tempfile.TemporaryFile() as complaints:
            process = subprocess.Popen(
                [sys.executable, "-c", _START, root, str(theirs.fileno())],
                pass_fds=[theirs.fileno(), *self._handles],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=complaints,
                start_new_session=True,
            )
            theirs.close()
            _reap(process)
            try:
                wire.send(ours, self._job)
                answer, _, _ = wire.receive(ours)
            except Closed:
                complaints.seek(0)
                said = complaints.read().decode(errors="replace").strip().splitlines()
                ours.close()
                raise WorkerDied(
                    f"the time machine's worker process died as it started ({said[-1] if said else 'it said nothing'})"
                ) from None
        if "fatal" in answer:
            ours.close()
            raise RefusedError(answer["fatal"])
        return Moment(ours, process.pid, answer["at"], self.details)

    def header(self, seq: int) -> tuple[Kind, Status, int]:
        """What kind of record an event is, how far it got, and its import."""
        piece = self.pieces[bisect.bisect_right(self.pieces, seq, key=lambda p: p.first) - 1]
        place = os.pread(self.image, 8, piece.at + piece.length + 8 * (seq - piece.first))
        record = os.pread(self.image, 8, piece.at + int.from_bytes(place, "little"))
        return Kind(record[6]), Status(record[7]), int.from_bytes(record[4:6], "little")

    def mark_clocks(self, first: int, count: int) -> Sequence[int]:
        """The clocks at which records were served, as far as the pass has come."""
        data = os.pread(self.marks, count * 8, first * 8)
        return memoryview(data).cast("Q").tolist()

    def close(self) -> None:
        for handle in self._handles:
            with contextlib.suppress(OSError):
                os.close(handle)
        self._handles.clear()


def _reap(process: subprocess.Popen[bytes]) -> None:
    """Waits for a process in the background, so that it leaves no zombie."""
    threading.Thread(target=process.wait, name="reprise-reaper", daemon=True).start()


def _state_json(row: Any) -> dict[str, Any]:
    return {
        "seq": row.seq,
        "what": row.what,
        "index": row.index,
        "name": row.name,
        "size": row.size,
        "digest": row.digest.hex(),
        "pages": [page.hex() for page in row.pages],
        "value": None if row.value is None else row.value.hex(),
    }
