"""What a run is given and what it is asked to do: arguments, environment, directories, standard input, exports to call."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import wasmtime

from recorder import values
from recorder.boundary.linking import Shape
from recorder.python_host import Guest
from traces._errors import RefusedError, UsageError
from traces.manifest import Export


@dataclass(frozen=True)
class Preopen:
    """A directory of the host that the guest may use under a name of its own."""

    host: Path
    guest: str
    writable: bool = True


@dataclass(frozen=True)
class Call:
    """An export to call, with arguments as they stand on the command line (or as Python values, from the library)."""

    export: str
    args: tuple[Any, ...] = ()


@dataclass(frozen=True)
class Invocation:
    argv: tuple[str, ...] = ()
    """Including argv[0]."""
    env: tuple[tuple[str, str], ...] = ()
    preopens: tuple[Preopen, ...] = ()
    stdin: Path | None = None
    """None passes the recorder's own standard input on."""
    calls: tuple[Call, ...] = ()
    """Exports to call in this order; empty calls `_start`."""

    def describe(self) -> dict[str, Any]:
        """For the manifest. What a guest is given is evidence, environment included."""
        return {
            "argv": list(self.argv),
            "env": [list(pair) for pair in self.env],
            "preopens": [{"host": os.path.abspath(p.host), "guest": p.guest, "writable": p.writable} for p in self.preopens],
            "stdin": str(self.stdin) if self.stdin is not None else None,
            "calls": [{"export": c.export, "args": [str(a) for a in c.args]} for c in self.calls],
        }

    def capabilities(self) -> list[str]:
        granted = [f"dir:{p.guest}:{'rw' if p.writable else 'ro'}" for p in self.preopens]
        granted += [f"env:{name}" for name, _ in self.env]
        return [*granted, "stdin", "stdout", "stderr", "clock", "random"]

    def constants(self) -> dict[str, int]:
        """Sizes of what `args_get` and `environ_get` write."""
        argv = [a.encode() for a in self.argv]
        env = [f"{k}={v}".encode() for k, v in self.env]
        return {
            "argv_pointers": 4 * len(argv),
            "argv_bytes": sum(len(a) + 1 for a in argv),
            "env_pointers": 4 * len(env),
            "env_bytes": sum(len(e) + 1 for e in env),
        }

    def wasi(self) -> wasmtime.WasiConfig:
        """The engine's configuration; raises RefusedError for a directory or file that cannot be opened."""
        self.check()
        config = wasmtime.WasiConfig()
        config.argv = list(self.argv)
        config.env = [list(pair) for pair in self.env]
        config.inherit_stdout()
        config.inherit_stderr()
        if self.stdin is None:
            config.inherit_stdin()
        else:
            # Looked at, not opened: opening a pipe here would use up its writer.
            if not self.stdin.exists() or self.stdin.is_dir() or not os.access(self.stdin, os.R_OK):
                raise RefusedError(f"--stdin {self.stdin}: cannot be opened for reading")
            try:
                config.stdin_file = str(self.stdin)
            except wasmtime.WasmtimeError:
                raise RefusedError(f"--stdin {self.stdin}: cannot be opened for reading") from None
        for p in self.preopens:
            if not p.host.is_dir():
                raise RefusedError(f"--dir {p.host}::{p.guest}: {p.host} is not a directory that can be opened")
            try:
                config.preopen_dir(str(p.host), p.guest, p.writable)
            except wasmtime.WasmtimeError:
                raise RefusedError(f"--dir {p.host}::{p.guest}: {p.host} cannot be opened") from None
        return config

    def check(self) -> None:
        """Refuses words that WASI cannot pass on."""
        for what in (*self.argv, *(part for pair in self.env for part in pair), *(p.guest for p in self.preopens)):
            if not _is_unicode(what):
                raise UsageError(f"argument, environment value or directory {what!a} is not UTF-8, which WASI cannot pass")
        for text in (*self.argv, *(part for pair in self.env for part in pair)):
            if "\0" in text:
                raise UsageError(f"argument or environment value {text!r} contains a NUL character, which WASI cannot pass")
        for name, _ in self.env:
            if not name or "=" in name:
                raise UsageError(f"--env {name!r}: a variable's name must not be empty or contain '='")


def _is_unicode(text: str) -> bool:
    """Whether a word of the command line was UTF-8: what was not stands there as lone surrogates."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


_KEY_NAME = re.compile(r"(api|access|secret|private|auth|token|passw|credential|bearer|(^|_)key$)", re.IGNORECASE)
_KEY_VALUE = re.compile(
    r"^(sk|pk|rk|ghp|gho|ghs|glpat|xox[abp]|AKIA|ASIA|AIza|eyJ)[-_A-Za-z0-9.]{12,}|^[A-Za-z0-9+/_-]{32,}={0,2}$"
)


def looks_like_key(name: str, value: str) -> bool:
    """Whether an environment value is probably a secret: by its name, or by its shape."""
    return bool(value) and (_KEY_NAME.search(name) is not None or _KEY_VALUE.match(value) is not None)


def check_invocation(shape: Shape, invocation: Invocation) -> None:
    """Refuses, before anything runs, to call what is not there or with the wrong arguments."""
    exports = {e.name: e for e in shape.exports}
    if not invocation.calls:
        if "_start" not in exports:
            names = ", ".join(list(exports)[:8]) or "none"
            raise RefusedError(f"the module exports no _start; choose what to call with --invoke (exported functions: {names})")
        return
    for call in invocation.calls:
        export = exports.get(call.export)
        if export is None:
            names = ", ".join(list(exports)[:8]) or "none"
            raise RefusedError(f"--invoke {call.export}: the module exports no such function (it exports: {names})")
        _check_args(call, export)


def _check_args(call: Call, export: Export) -> None:
    given = sum(2 if isinstance(a, str) and a.startswith("@") else 1 for a in call.args)
    if given != len(export.params):
        wanted = " ".join(export.params) or "none"
        raise UsageError(f"--invoke {call.export} takes {len(export.params)} arguments ({wanted}), {given} given with --arg")
    position = 0
    for arg in call.args:
        if isinstance(arg, str) and arg.startswith("@"):
            position += 2
            continue
        if isinstance(arg, str):
            values.parse(arg, export.params[position])
        position += 1
    kinds = iter(export.params)
    for arg, kind in zip(call.args, kinds, strict=False):
        if isinstance(arg, str) and arg.startswith("@"):
            next(kinds)  # the bytes' length
        else:
            _raw_argument(arg, kind)


def _raw_argument(arg: Any, kind: str) -> int:
    """Raw bits of one argument, or a UsageError. Asked before anything runs too: a typing error must not leave a trace behind."""
    if kind in ("funcref", "externref"):
        raise UsageError(f"--arg {arg}: a {kind} cannot be given from outside; call the export from Python instead")
    if isinstance(arg, str):
        return values.parse(arg, kind)
    try:
        return values.to_raw(arg, kind)
    except (TypeError, ValueError) as error:
        raise UsageError(f"argument {arg!r}: {error}") from None


def run_invocation(guest: Guest, invocation: Invocation, shape: Shape) -> list[Any]:
    """Calls `_initialize` if the module is a reactor, then what was asked for; returns the results, raw, per call."""
    exports = {e.name: e for e in shape.exports}
    if not invocation.calls:
        guest.call_raw("_start", [])
        return []
    if "_initialize" in exports and all(c.export != "_initialize" for c in invocation.calls):
        guest.call_raw("_initialize", [])
    return [guest.call_raw(c.export, _arguments(guest, c, exports[c.export], exports)) for c in invocation.calls]


def _arguments(guest: Guest, call: Call, export: Export, exports: dict[str, Export]) -> list[int]:
    raw: list[int] = []
    for arg in call.args:
        kind = export.params[len(raw)]
        if isinstance(arg, str) and arg.startswith("@"):
            raw += _bytes_argument(guest, arg, exports)
        else:
            raw.append(_raw_argument(arg, kind))
    return raw


ALLOCATORS = ("cabi_realloc", "alloc", "malloc", "allocate")


def _bytes_argument(guest: Guest, arg: str, exports: dict[str, Export]) -> list[int]:
    """`@FILE`: the file's bytes, put into memory through the guest's own allocator; passed as pointer and length."""
    data = Path(arg[1:]).read_bytes()
    for name in ALLOCATORS:
        export = exports.get(name)
        if export is None:
            continue
        if name == "cabi_realloc" and len(export.params) == 4:
            address = guest.call_raw(name, [0, 0, 1, len(data)])[0]
        elif len(export.params) == 1 and len(export.results) == 1:
            address = guest.call_raw(name, [len(data)])[0]
        else:
            continue
        guest.write(address, data)
        return [address, len(data)]
    raise RefusedError(f"--arg {arg}: the module exports no allocator ({', '.join(ALLOCATORS)}) to put bytes into memory")


def check_files(calls: Sequence[Call]) -> None:
    """Refuses `@FILE` arguments that cannot be read, before anything runs."""
    for call in calls:
        for arg in call.args:
            if isinstance(arg, str) and arg.startswith("@"):
                try:
                    with open(arg[1:], "rb"):
                        pass
                except OSError as error:
                    raise UsageError(f"--arg {arg}: cannot be read ({error.strerror})") from None
