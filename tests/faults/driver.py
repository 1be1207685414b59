"""A recorder to be hurt: records one run as told by JSON, as the command line would, with faults put in its way.

    python tests/faults/driver.py '{"out": …, "module": …}'     records once
    python tests/faults/driver.py --serve FD                     forks one recorder per request on a Unix socket

The checkout must be on PYTHONPATH.

The server imports everything once and has no thread, so that a recorder costs a fork instead of an interpreter's start. Each
request is a JSON object, with the recorder's stdout and stderr as two file descriptors beside it; the answer is its process id.
`{"wait": pid}` answers its exit status as `os.waitpid` gives it.
"""

from __future__ import annotations

import errno
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import recorder.recording
from recorder.invocation import Call, Invocation, Preopen
from recorder.outcome import Limits
from recorder.python_host import Guest, host
from recorder.recording import Options, Recording
from recorder.source import load
from traces import journal, tracedir
from traces._errors import RepriseError


class Hosts:
    """The hosts a spec can name. Bytes they let out go to descriptor 1, unbuffered, so that a test sees every effect."""

    def __init__(self, spec: dict[str, Any]) -> None:
        self.depth = int(spec.get("depth", 0))
        self.spec = spec
        self.turns = 0

    @host("env", "call_me", "i32 -> i32")
    def call_me(self, guest: Guest, depth: int) -> int:
        """Calls back until `depth` levels are open, and lets one line out on the way in and on the way out of each level."""
        _say(f"in {depth}\n")
        guest.write(64, f"level {depth}".encode().ljust(int(self.spec.get("payload", 64)), b"."))
        result = depth
        if depth < self.depth or not self.depth:
            result = guest.call("again", depth + 1)
        _say(f"out {depth}\n")
        return result

    @host("env", "sleep", "")
    def sleep(self, _guest: Guest) -> None:
        _say("sleeping\n")
        time.sleep(3600)

    @host("env", "spin", "")
    def spin(self, _guest: Guest) -> None:
        _say("spinning\n")
        while True:
            pass

    @host("env", "say", "i32")
    def say(self, guest: Guest, number: int) -> None:
        """One visible effect of a Python host, with a payload written into the guest before it."""
        guest.write(1024, os.urandom(int(self.spec.get("payload", 64))))
        _say(f"{number}\n")

    @host("env", "fill", "i64 i64")
    def fill(self, guest: Guest, address: int, length: int) -> None:
        """One payload of any size, made of a pattern, in one `Guest.write`."""
        _say("filling\n")
        block = bytes(range(256)) * 4096
        guest.write(address, memoryview(bytearray(block * -(-length // len(block))))[:length])
        _say("filled\n")


def _say(text: str) -> None:
    _write(1, text.encode())


_write = os.write
"""The real one, whatever `inject` does to the module's."""


# -- faults --------------------------------------------------------------------------------------------------------------


def inject(fault: dict[str, Any]) -> None:
    """Makes call number `n` (from 0) of one operation, and all after it if `forever`, fail with `errno`; `short` writes half.

    `what`: append (to the log), truncate (what was torn off an append), fallocate (the window), sync, table (Parquet), manifest.
    """
    failing = _Failing(int(fault["n"]), getattr(errno, fault["errno"]), bool(fault.get("forever", True)))
    what = fault["what"]
    if what == "append":
        plain = os.write

        def write(handle: int, data: Any) -> int:
            if handle <= 2:
                return plain(handle, data)
            if failing():
                if fault.get("short") and len(data) > 1:
                    plain(handle, bytes(data)[: len(data) // 2])  # a device that takes half, then no more
                raise failing.error
            return plain(handle, data)

        os.write = write
    elif what == "fallocate":
        _replace(os, "posix_fallocate", failing)
    elif what == "truncate":
        _replace(os, "ftruncate", failing)
        inject({**fault, "what": "append"})
    elif what == "sync":
        _replace(os, "fdatasync", failing)
    elif what == "table":
        import pyarrow

        class File:
            """What Arrow writes through instead of the operating system."""

            closed = False

            def __init__(self, path: str) -> None:
                self.file = open(path, "wb", buffering=0)  # noqa: SIM115

            def write(self, data: Any) -> int:
                if failing():
                    raise failing.error
                return self.file.write(bytes(data)) or 0

            def flush(self) -> None:
                self.file.flush()

            def close(self) -> None:
                self.closed = True
                self.file.close()

            def tell(self) -> int:
                return self.file.tell()

            def writable(self) -> bool:
                return True

            def readable(self) -> bool:
                return False

            def seekable(self) -> bool:
                return False

        pyarrow.OSFile = lambda path, _mode: pyarrow.PythonFile(File(path), "w")
    elif what == "manifest":
        tracedir._write = _before(tracedir._write, failing)
    else:
        raise ValueError(what)


class _Failing:
    def __init__(self, n: int, code: int, forever: bool) -> None:
        self.left, self.forever = n, forever
        self.error = OSError(code, os.strerror(code))

    def __call__(self) -> bool:
        self.left -= 1
        return self.left < 0 if self.forever else self.left == -1


def _replace(module: Any, name: str, failing: _Failing) -> None:
    setattr(module, name, _before(getattr(module, name), failing))


def _before(plain: Callable[..., Any], failing: _Failing) -> Callable[..., Any]:
    def call(*args: Any) -> Any:
        if failing():
            raise failing.error
        return plain(*args)

    return call


_STEPS = ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.truncate", "shutil.rmtree")


def die_at(n: int, trace: str) -> None:
    """Kills this process at the n-th thing it does to the trace from Python: each file operation (before it), each half of an
    append, and each of the journal's own stores that recovery depends on (before and after it)."""
    left = [n]

    def point() -> None:
        left[0] -= 1
        if left[0] < 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def hook(event: str, args: tuple[Any, ...]) -> None:
        if event in _STEPS or (event == "open" and str(args[0]).startswith(trace)):
            point()

    def store(self: Any, offset: int, value: int) -> None:
        point()
        plain_store(self, offset, value)
        point()

    def write(handle: int, data: Any) -> int:
        if handle <= 2 or len(data) < 2:
            return plain_write(handle, data)
        point()
        done = plain_write(handle, bytes(data)[: len(data) // 2])
        point()
        return done

    plain_store, plain_write = journal.Ring._u64, os.write
    journal.Ring._u64 = store  # type: ignore[method-assign]
    os.write = write
    sys.addaudithook(hook)


# -- recording -----------------------------------------------------------------------------------------------------------


def options_of(spec: dict[str, Any]) -> Options:
    argv = (Path(spec["module"]).stem, *[str(a) for a in spec.get("argv", ())])
    return Options(
        out=Path(spec["out"]),
        invocation=Invocation(
            argv=argv,
            preopens=tuple(Preopen(Path(a), b) for a, b in spec.get("dirs", ())),
            stdin=Path(spec["stdin"]) if spec.get("stdin") else None,
            calls=tuple(Call(name, tuple(args)) for name, *args in spec.get("calls", ())),
        ),
        hosts=(Hosts(spec),),
        limits=Limits(**spec.get("limits", {})),
        durable=bool(spec.get("durable")),
        signals=bool(spec.get("signals", True)),
    )


def record(spec: dict[str, Any]) -> int:
    """What the command line does, and how it says it."""
    if "slot_size" in spec:
        os.environ[journal.SLOT_SIZE_VARIABLE] = str(spec["slot_size"])
    if "grace" in spec:
        recorder.watchdog.GRACE = recorder.recording.GRACE = float(spec["grace"])  # type: ignore[attr-defined]
    for name, value in spec.get("rlimits", {}).items():
        import resource

        resource.setrlimit(getattr(resource, name), (value, value))
    if spec.get("stdin_pipe"):
        reading, _keep_open = os.pipe()
        os.dup2(reading, 0)
    for fault in spec.get("faults", ()):
        inject(fault)
    if "die" in spec:
        die_at(int(spec["die"]), spec["out"])
    if spec.get("recover"):
        tracedir.recover(Path(spec["out"]))
        return 0
    try:
        run = Recording(load(spec["module"]), options_of(spec))
        outcome = run.run()
        print(f"reprise: {outcome.line}; trace {run.directory}", file=sys.stderr)
        return outcome.exit_code
    except RepriseError as error:
        print(f"reprise: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130


# -- serving -------------------------------------------------------------------------------------------------------------


def serve(handle: int) -> None:
    link = socket.socket(fileno=handle)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    while True:
        message, handles, _, _ = socket.recv_fds(link, 1 << 16, 2)
        if not message:
            return
        request = json.loads(message)
        if "wait" in request:
            _, status, used = os.wait4(int(request["wait"]), 0)
            link.send(json.dumps([status, used.ru_maxrss]).encode())
            continue
        child = os.fork()
        if child == 0:
            code = 99
            try:
                link.close()
                signal.signal(signal.SIGINT, signal.default_int_handler)
                os.dup2(handles[0], 1)
                os.dup2(handles[1], 2)
                for each in handles:
                    os.close(each)
                code = record(request)
                sys.stderr.flush()
            except BaseException:
                import traceback

                traceback.print_exc()
                sys.stderr.flush()
            finally:
                os._exit(code)
        for each in handles:
            os.close(each)
        link.send(json.dumps(child).encode())


if __name__ == "__main__":
    if sys.argv[1] == "--serve":
        serve(int(sys.argv[2]))
    else:
        sys.exit(record(json.loads(sys.argv[1])))
