"""A process that holds a replayed guest at one moment, and does what the machine asks of it.

`python -m replayer.station` is started by the machine (`replayer.worker`) with an inherited socket, files and a job; it links the
twin and rests before the first instruction. From then on every process is the same thing, a guest at rest: it can **fork** (the
child rests at the same moment, and talks over a socket of its own), **go** on to another moment, **scan** what the guest does on
the way, run the **pass** to the end leaving forked checkpoints behind, or become a **view**: unwind the guest's frames, run the
few instructions that are missing, and answer questions about memory, globals and frames until it is let go.

One thread, asserted before every fork. No Arrow, no DuckDB, no asyncio, no native WASI. A station ends when its socket does.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import hashlib
import os
import resource
import select
import signal
import socket
import sys
import time
from typing import Any, Final, NoReturn

import wasmtime

from recorder.boundary import states
from recorder.boundary.raw import GuestTrap
from replayer import wire
from replayer.cursor import Record
from replayer.fragments import Details, Dump, run_fragment, take_dump
from replayer.image import ImageReader, Piece
from replayer.recorded import Recorded
from replayer.replay import Abandoned
from replayer.scans import Scan
from replayer.twin import BIAS
from replayer.twincache import read_twin
from replayer.twinreplay import FOREVER, TwinReplay
from replayer.verdict import Verdict
from replayer.wire import Closed, Message
from traces._errors import RepriseError, TraceError
from traces.layout import Kind
from traces.manifest import Manifest
from traces.states import StateRow

TICK_SECONDS: Final = 0.02
"""How often a running guest looks up."""
FIRST_SLICE: Final = 200_000
_PR_SET_CHILD_SUBREAPER: Final = 36
FRAMES: Final = 256
"""Frames of one answer."""


def threads() -> int:
    return len(os.listdir("/proc/self/task")) if os.path.isdir("/proc/self/task") else 1


class Station:
    """The guest of this process."""

    def __init__(self, sock: socket.socket, job: Message) -> None:
        self.sock = sock
        self.job = job
        self.marks_handle: int | None = job["marks"]
        self.finished: Verdict | None = None
        self.position: Message = {"kind": "start", "clock": 0, "events": 0}
        self.slice = FIRST_SLICE
        self.traps: dict[int, int] = {int(k): v for k, v in job["traps"].items()}
        """Instructions begun at each trap of the guest, by the number of records served before it."""
        self._ticked = 0.0
        self._goal = 0
        self._goal_event: int | None = None
        self._awaited = False
        """Whether the machine waits for this process to rest."""
        self._pass: _Pass | None = None
        self._scan: Scan | None = None
        self._view: Message | None = None
        self._mirror_head = 0
        """Where mirrored frames ended when the guest began to unwind."""
        self._progress = 0.0
        self._ready = False
        """Whether the guest was linked, and the machine was told."""
        self.replay: TwinReplay
        self.details: Details

    # -- life

    def run(self) -> None:
        """Links the guest, rests, and then does as it is told, until the machine lets go."""
        manifest = Manifest.from_json(self.job["manifest"], self.job["given"])
        module = _read_all(self.job["module"])
        twin = read_twin(_read_all(self.job["twin"]), module)
        pieces = [Piece(*piece) for piece in self.job["pieces"]]
        reader = ImageReader(self.job["image"], pieces, self.job["rows"], self.job["largest_window"], self.job["trailing"])
        recorded = Recorded(self.job["given"], manifest, module, reader, [_state_row(row) for row in self.job["states"]])
        self.replay = TwinReplay(recorded, twin, _read_all(self.job["code"]), self, self.job["stack"])
        self.details = Details(self.replay.shape.module, twin)
        _ = twin.stretches.marked  # found once here, and not again in every process that is forked from this one
        gc.collect()
        gc.freeze()
        gc.disable()
        try:
            verdict = self.replay.run()
        except Abandoned:
            self._look()
            return
        except TraceError as error:
            if not self._ready:
                raise
            # A trace that makes no sense from here on: as with a divergence, one can look at everything up to here.
            verdict = Verdict("unusable", reason=str(error))
        self.replay.flush_marks()
        self.finished = verdict
        self._rest("end", self.replay.begun)

    def at_start(self) -> None:
        self._ready = True
        self._rest("start", 0)

    # -- resting

    def _rest(self, kind: str, clock: int, **more: Any) -> None:
        """The guest rests here until it is told to go on."""
        self.position = {"kind": kind, "clock": clock, "events": self.replay.cursor.seq(), **more}
        if self.finished is not None:
            self.position["verdict"] = self.finished.to_json()
        if self._awaited:
            self._awaited = False
            self._reply({"at": self.position, **self._scanned()})
        elif self._pass is not None and kind == "end":
            self._pass = None
            self._reply({"at": self.position, "passed": True})
        elif kind == "start":
            self._reply({"at": self.position, "threads": threads()})
        while not self._obey(self._hear()):
            pass

    def _scanned(self) -> Message:
        scan, self._scan = self._scan, None
        if scan is None:
            return {}
        scan.take(self.replay.control.take_log())
        depth = scan.depth_here(self.position)
        self._listen(False)
        return {"scan": scan.result(), "depth": depth}

    def _hear(self) -> Message:
        """What the machine wants next."""
        return self._receive()[0]

    def _receive(self) -> tuple[Message, bytes, int | None]:
        """The same, with its blob. Without a machine there is nothing left to do."""
        try:
            return wire.receive(self.sock)
        except Closed:
            leave()

    def _reply(self, message: Message, blob: bytes = b"", handle: int | None = None) -> None:
        try:
            wire.send(self.sock, message, blob, handle)
        except Closed:
            leave()

    def _obey(self, message: Message) -> bool:
        """Does one thing; says whether the guest goes on."""
        do = message["do"]
        try:
            if do == "fork":
                self._fork_and_tell()
                return False
            if do == "view":
                return self._become_view(message)
            if do in ("go", "scan", "pass"):
                return self._go_on(do, message)
            self._answer(message)
            return False
        except (RepriseError, ValueError, IndexError, KeyError) as error:
            self._reply({"error": f"{error}"})
            return False

    # -- forking

    def _fork_and_tell(self) -> None:
        child = self._fork()
        if child is not None:
            handle, pid = child
            self._reply({"forked": pid, "at": self.position}, handle=handle)
            os.close(handle)

    def _fork(self) -> tuple[int, int] | None:
        """In the parent: the child's socket and pid. In the child: None; it rests where the parent does."""
        count = threads()
        if count != 1:
            raise ValueError(f"the worker has {count} threads; it may not fork with more than one")
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        pid = os.fork()
        if pid:
            theirs.close()
            return ours.detach(), pid
        ours.close()
        self.sock.close()
        self.sock = theirs
        return None

    # -- going on

    def _go_on(self, do: str, message: Message) -> bool:
        """On to a clock or an event, whichever comes first, or to the end; says whether the guest has to go on for that."""
        clock, event = message.get("clock"), message.get("event")
        self.traps.update({int(k): v for k, v in message.get("traps", {}).items()})
        there = self.position
        here = there["kind"] == "head" and clock is not None and do == "go" and self._holds(there["clock"], there["count"], clock)
        if self.finished is not None or here:
            result = Scan(message, self.replay, self.details).result() if do == "scan" else None
            self._reply({"at": there} if result is None else {"at": there, "scan": result})
            return False
        if do == "pass":
            self._pass = _Pass(message["interval"], message["most"], there.get("seconds", 0.0))
            self.marks_handle = self.job["marks"]
        else:
            self._awaited = True
        if do == "scan":
            self._scan = Scan(message, self.replay, self.details)
            self._scan.listen(self.replay.control, there)
            if self._scan.done:
                self._reply({"at": there, "scan": self._scan.result()})
                self._awaited, self._scan = False, None
                self._listen(False)
                return False
            self.replay.listening = True
        self._set_goal(clock, event)
        return True

    def _become_view(self, message: Message) -> bool:
        self._view = message
        self._mirror_head = self.replay.control.mirror_head
        if self.finished is not None:
            self._look()
        self.replay.unwind()
        return True

    def _set_goal(self, clock: int | None, event: int | None) -> None:
        self._goal = FOREVER if clock is None else clock
        self._goal_event = event
        self._ticked = time.monotonic()
        self.replay.goal = min(self._goal, self._begun() + self.slice)
        self.replay.goal_event = event
        self.replay.rearm(self._begun())

    def _begun(self) -> int:
        """Instructions begun, as far as the guest's countdown says: at a head, its stretch included."""
        return self.replay.begun

    def _listen(self, listening: bool) -> None:
        self.replay.listening = listening
        if not listening:
            self.replay.control.watch_nothing()

    def _holds(self, clock: int, count: int, goal: int) -> bool:
        """Whether a goal is in, or before, the stretch of so many instructions at whose head the guest is. A stretch in which the
        guest traps ends there: what has the clocks behind it comes in the next call."""
        trap = self.traps.get(self.replay.cursor.seq())
        if trap is not None and clock < trap <= clock + count:
            return goal < trap
        return goal < clock + count

    # -- what the replay calls (Owner)

    def at_head(self, clock: int, pc: int) -> None:
        count = self.replay.twin.stretches.counts[self.replay.twin.stretches.at(pc)]
        if self._view is not None:
            return
        if self._holds(clock, count, self._goal):
            self._rest("head", clock, pc=pc, count=count)
            return
        self._tick(clock, pc, count)
        if self._view is None:
            self.replay.goal = min(self._goal, clock + count + self.slice)

    def _tick(self, clock: int, pc: int, count: int) -> None:
        """The guest looks up for a moment: is anybody still there, how fast does it run, is it time for a checkpoint?"""
        now = time.monotonic()
        spent = max(now - self._ticked, 1e-6)
        self.slice = int(max(1000, min(self.slice * TICK_SECONDS / spent, self.slice * 4, 1 << 40)))
        if select.select([self.sock], [], [], 0)[0]:
            if self._hear()["do"] == "cancel":
                self._scan = None
                self._listen(False)
                self._awaited = False
                self._reply({"cancelled": True})
                self._rest("head", clock, pc=pc, count=count)
        elif self._awaited and now - self._progress > 0.1:
            self._progress = now
            self._reply({"progress": clock, "events": self.replay.cursor.seq()})
        if self._pass is not None and self._view is None:
            self._checkpoint(self._pass, now, clock, pc, count)
        self._ticked = time.monotonic()

    def _checkpoint(self, passing: _Pass, now: float, clock: int, pc: int, count: int) -> None:
        computed = time.process_time()
        if computed - passing.last >= passing.interval:
            passing.ran += computed - passing.last
            seconds = round(passing.ran, 4)
            position = {"kind": "head", "clock": clock, "events": self.replay.cursor.seq(), "pc": pc, "count": count}
            position["seconds"] = seconds
            started = time.monotonic()
            child = self._fork()
            if child is None:
                self._pass = None
                self.marks_handle = None
                self._rest("head", clock, pc=pc, count=count, seconds=seconds)
                return
            handle, pid = child
            passing.made += 1
            passing.spent += time.monotonic() - started
            thin = passing.made >= passing.most
            self._reply({"checkpoint": pid, "at": position, "thin": thin, "fork_ms": passing.spent * 1e3}, handle=handle)
            os.close(handle)
            if thin:
                passing.made //= 2
                passing.interval *= 2
            passing.last = time.process_time()
        elif now - passing.told > 0.1:
            passing.told = now
            self._reply({"progress": clock, "events": self.replay.cursor.seq()})

    def at_event(self, record: Record) -> None:
        if self._view is not None:
            return
        self._goal_event = self.replay.goal_event = None
        depth = record.kind is not Kind.EXPORT and self._inside()
        self._rest("event", self.replay.begun, event=record.seq, inside=depth)

    def _inside(self) -> bool:
        """Whether the guest is on the stack."""
        return self.replay.calls > 0

    def on_log(self, log: bytes) -> None:
        if self._scan is not None:
            self._scan.take(log)

    def on_hit(self, pc: int) -> None:
        scan = self._scan
        if scan is None or not scan.first:
            return
        scan.take(self.replay.control.take_log())
        if scan.done:
            # Wherever the guest is just now, it cannot be looked at here: the machine asked for the moment, not for the guest.
            self._reply({"at": {"kind": "gone"}, "scan": scan.result()})
            os._exit(0)

    def on_trap(self, error: BaseException) -> int | None:
        known = self.traps.get(self.replay.cursor.seq())
        if known is not None:
            return known
        if self._scan is not None and self._scan.trap:
            control = self.replay.control
            left = control.last_left
            stretches = self.replay.twin.stretches
            clock = control.target - (left + BIAS) - stretches.counts[stretches.at(control.last_pc)]
            self._reply({"at": {"kind": "gone"}, "scan": [control.last_pc, clock, str(getattr(error, "message", error))]})
            os._exit(0)
        # What was begun since the countdown was last written down is lost with the guest's frames. The machine can find out.
        self._reply({"trapped": self.replay.cursor.seq()})
        answer = self._hear()
        if answer["do"] == "cancel":
            os._exit(0)
        begun = answer.get("begun")
        if begun is not None:
            self.traps[self.replay.cursor.seq()] = begun
        return begun

    def on_marks(self, first: int, marks: bytes) -> None:
        if self.marks_handle is not None and self._pass is not None:
            os.pwrite(self.marks_handle, marks, first * 8)

    # -- looking

    def _look(self) -> None:
        """The frames are written down and gone; what is left is the guest's memory, and questions about it."""
        message = self._view
        assert message is not None
        try:
            self._answer_view(message)
        except (RepriseError, GuestTrap, ValueError, IndexError, KeyError) as error:
            self._reply({"error": str(error)})
        while True:
            try:
                message, blob, _ = self._receive()
                self._answer(message, blob)
            except (RepriseError, GuestTrap, ValueError, IndexError, KeyError) as error:
                self._reply({"error": str(error)})

    def _answer_view(self, message: Message) -> None:
        dump = Dump(b"", 0, b"", 0)
        if self.position["kind"] in ("head", "event") and self.position.get("inside", True):
            dump = take_dump(self.replay.control, message.get("frames", FRAMES), self._mirror_head)
        sizes = {"frames": len(dump.frames), "count": dump.count, "mirror_at": dump.mirror_at}
        self._reply({"view": self.position, **sizes}, dump.frames + dump.mirror)

    def _answer(self, message: Message, blob: bytes = b"") -> None:
        do = message["do"]
        replay = self.replay
        if do == "memory":
            memory = replay.linked.memories[message["index"]]
            start = max(0, min(message["address"], memory.size))
            self._reply({"size": memory.size}, memory.read(start, max(0, min(message["length"], memory.size - start))))
        elif do == "sizes":
            self._reply({"memories": [memory.size for memory in replay.linked.memories]})
        elif do == "pages":
            memory = replay.linked.memories[message["index"]]
            self._reply({"size": memory.size}, b"".join(_page_digests(memory, message.get("page", 4096))))
        elif do == "globals":
            count = len(replay.shape.module.globals)
            bits = [replay.linked.global_bits(i, replay.linked.export(replay.twin.globals[i])) for i in range(count)]
            self._reply({"globals": bits})
        elif do == "advance":
            size = message["code"]
            self._reply({}, run_fragment(replay, blob[:size], message["globals"], blob[size:], message["given"]))
        elif do == "table":
            self._reply(self._table(message))
        elif do == "digest":
            found = [[s.what, s.index, s.size, s.digest.hex()] for s in states.take(replay.linked)]
            self._reply({"states": found, "clock": replay.begun})
        elif do == "threads":
            self._reply({"threads": threads(), "modules": sorted(sys.modules)})
        elif do == "stop":
            os._exit(0)
        else:
            raise ValueError(f"a station cannot {do}")

    def _table(self, message: Message) -> Message:
        """Elements of a table: null, a function, or a reference of the host's."""
        index = message["index"]
        table = self.replay.linked.export(self.replay.twin.tables[index])
        size = int(table.size(self.replay.machine.store))
        elements = []
        for element in range(message["start"], min(size, message["start"] + message["length"])):
            value = table.get(self.replay.machine.store, element)
            if isinstance(value, wasmtime.Val):  # what is false in Python comes wrapped, null among it
                value = value.value
            elements.append(None if value is None else "func" if isinstance(value, wasmtime.Func) else "extern")
        return {"size": size, "elements": elements}


class _Pass:
    """The one run from start to end that leaves checkpoints behind.

    They stand apart by what the guest computes between them, not by the clock on the wall: a busy machine places them no closer.
    """

    def __init__(self, interval: float, most: int, ran: float) -> None:
        self.interval = interval
        self.most = most
        self.ran = ran
        """Seconds the guest has computed, forking left out."""
        self.last = time.process_time()
        self.told = time.monotonic()
        self.made = 0
        self.spent = 0.0


def _page_digests(memory: Any, size: int) -> list[bytes]:
    view = memory.view()
    return [hashlib.blake2b(view[at : at + size], digest_size=8).digest() for at in range(0, memory.size, size)]


def _state_row(row: dict[str, Any]) -> StateRow:
    value = row["value"]
    return StateRow(
        row["seq"],
        row["what"],
        row["index"],
        row["name"],
        row["size"],
        bytes.fromhex(row["digest"]),
        tuple(bytes.fromhex(page) for page in row["pages"]),
        None if value is None else bytes.fromhex(value),
    )


def _read_all(handle: int) -> bytes:
    size = os.fstat(handle).st_size
    data = bytearray()
    while len(data) < size:
        piece = os.pread(handle, size - len(data), len(data))
        if not piece:
            raise OSError("a file of the job is cut short")
        data += piece
    return bytes(data)


_adopts = 0
"""The process to which orphaned stations go: the one that was started, not forked."""


def leave() -> NoReturn:
    """Ends this process. The one that was started first lets those forked from it go, so that none is left to whoever runs as the
    first process of the system, which in a container may not know what to do with it."""
    if os.getpid() == _adopts:
        signal.alarm(2)
        with contextlib.suppress(OSError):
            os.waitpid(-1, 0)  # SIGCHLD is ignored: this returns when the last has ended
    os._exit(0)


def _adopt() -> None:
    global _adopts
    with contextlib.suppress(OSError, AttributeError):
        if ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0:
            _adopts = os.getpid()


def main(argv: list[str]) -> int:
    _adopt()
    sock = socket.socket(fileno=int(argv[0]))
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the forked
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the machine decides what an interrupt ends
    try:
        job, _, _ = wire.receive(sock)
        wanted = job["stack"] + (16 << 20)
        soft, hard = resource.getrlimit(resource.RLIMIT_STACK)
        if soft != resource.RLIM_INFINITY and soft < wanted:
            room = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
            resource.setrlimit(resource.RLIMIT_STACK, (room, hard))
        station = Station(sock, job)
        try:
            station.run()
        except Closed:
            raise
        except Exception as error:
            # By now this may be a forked process, with a socket of its own.
            what = str(error) if isinstance(error, RepriseError) else f"{type(error).__name__}: {error}"
            wire.send(station.sock, {"fatal": what})
            return 1
    except Closed:
        return 0
    except RepriseError as error:
        try:
            wire.send(sock, {"fatal": str(error)})
        except Closed:
            return 0
        return 1
    return 0


if __name__ == "__main__":
    os._exit(main(sys.argv[1:]))
